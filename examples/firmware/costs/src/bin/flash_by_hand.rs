//! A breaker for consecutive failures written by hand for this image alone, its settings constants: what the rules that a breaker
//! keeps take at least, without a library.
//!
//! The rules are those of the library's defaults: five failures in a row open it for a minute; then three successes close it, with no more
//! than three probes at once and a deadline; reports of an earlier state are late; what is dropped gives its place back; an interrupt
//! may come between. There is no more than that: no other condition or period, no choice of cell, no observer, no snapshot, no word on
//! why a call was rejected and until when.

#![no_std]
#![no_main]

use core::cell::Cell;
use core::hint::black_box;

use costs::Ending;
use critical_section::Mutex;
use failsoft_embassy::Instant;

const THRESHOLD: u8 = 5;
const PROBES: u8 = 3;
const MINUTE: u64 = 60_000_000_000;

#[derive(Clone, Copy, Eq, PartialEq)]
enum Phase {
    Closed,
    Open,
    HalfOpen,
}

#[derive(Clone, Copy)]
struct State {
    phase: Phase,
    /// Failures in a row while closed, successes while half-open.
    count: u8,
    in_flight: u8,
    generation: u16,
    until: u64,
}

impl State {
    fn pass(&mut self, phase: Phase, now: u64) {
        let generation = self.generation.wrapping_add(1);
        *self = Self { phase, count: 0, in_flight: 0, generation, until: now.saturating_add(MINUTE) };
    }
}

static STATE: Mutex<Cell<State>> =
    Mutex::new(Cell::new(State { phase: Phase::Closed, count: 0, in_flight: 0, generation: 0, until: 0 }));

fn update<R>(f: impl FnOnce(&mut State) -> R) -> R {
    critical_section::with(|section| {
        let cell = STATE.borrow(section);
        let mut state = cell.get();
        let result = f(&mut state);
        cell.set(state);
        result
    })
}

/// The generation of a call that is let through.
#[inline(never)]
fn admit(now: u64) -> Option<u16> {
    update(|state| {
        if state.phase == Phase::HalfOpen && now >= state.until {
            state.pass(Phase::Open, state.until);
        }
        if state.phase == Phase::Open && now >= state.until {
            state.pass(Phase::HalfOpen, now);
        }
        let admitted = match state.phase {
            Phase::Closed => true,
            Phase::Open => false,
            Phase::HalfOpen => state.in_flight.saturating_add(state.count) < PROBES,
        };
        if admitted && state.phase == Phase::HalfOpen {
            state.in_flight = state.in_flight.saturating_add(1);
        }
        admitted.then_some(state.generation)
    })
}

#[inline(never)]
fn report(generation: u16, ending: Ending, now: u64) {
    update(|state| {
        if state.generation != generation {
            return;
        }
        state.in_flight = state.in_flight.saturating_sub(1);
        match (state.phase, ending) {
            (Phase::Closed, Ending::Success) => state.count = 0,
            (Phase::Closed | Phase::HalfOpen, Ending::Failure) => {
                state.count = state.count.saturating_add(1);
                if state.phase == Phase::HalfOpen || state.count >= THRESHOLD {
                    state.pass(Phase::Open, now);
                }
            }
            (Phase::HalfOpen, Ending::Success) => {
                state.count = state.count.saturating_add(1);
                if state.count >= PROBES {
                    state.pass(Phase::Closed, now);
                }
            }
            (Phase::Open, _) | (_, Ending::Dropped) => {}
        }
    });
}

fn call(ending: Ending, now: Instant) -> bool {
    let Some(generation) = admit(now.as_nanos()) else { return false };
    report(generation, ending, now.as_nanos());
    true
}

costs::flash_image!(black_box(call(black_box(Ending::Success), black_box(Instant::START))));
