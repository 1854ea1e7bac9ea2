use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use core::time::Duration;
use std::sync::{Barrier, Mutex};
use std::thread;

use failsoft_core::bulkhead::{self, Slots, Tally};
use failsoft_core::cell::{Fresh, Packed, Replaceable, SettingsCell};
use failsoft_core::circuit_breaker::trip::{Consecutive, Drained, Ring};
use failsoft_core::circuit_breaker::{
    Config, ConsecutiveFailures, Counts, FailureMeter, FailureRate, PackedMeter, State, StateKind, Totals, Transition,
    Trip,
};
use failsoft_core::{Clock, Instant, Ratio, Reason, Rng, valid};

use super::{Atomic, AtomicCell, CLAIMED, StateCell, Swapped};
use crate::{Bulkhead, CircuitBreaker, LiveCircuitBreaker};

const THREADS: u32 = 4;

/// Runs `f` on several threads at once.
fn on_threads(f: impl Fn(u32) + Sync) {
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let f = &f;
            scope.spawn(move || f(thread));
        }
    });
}

/// A clock that threads share, moved by hand.
#[derive(Default)]
struct SharedClock(AtomicU64);

impl SharedClock {
    fn advance(&self, span: Duration) {
        self.0.fetch_add(u64::try_from(span.as_nanos()).expect("short"), Ordering::Relaxed);
    }
}

impl Clock for SharedClock {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// All transitions, with the thread that told of each.
#[derive(Default)]
struct Log(Mutex<Vec<(thread::ThreadId, Transition)>>);

impl Log {
    fn note(&self, event: &Transition) {
        self.0.lock().expect("no panic under it").push((thread::current().id(), *event));
    }

    fn take(&self) -> Vec<(thread::ThreadId, Transition)> {
        core::mem::take(&mut *self.0.lock().expect("no panic under it"))
    }

    fn len(&self) -> usize {
        self.0.lock().expect("no panic under it").len()
    }
}

#[test]
fn a_fresh_state_is_zero_words_so_that_a_static_can_hold_it() {
    fn check<S: Packed + PartialEq + core::fmt::Debug>() {
        assert_eq!(S::FRESH.pack(), (0, 0));
        assert_eq!(S::unpack(0, 0), S::FRESH);
        assert!(!S::has_tail(0));
        let cell = <AtomicCell<S> as StateCell<S>>::NEW;
        assert_eq!(cell.read(|state| *state), S::FRESH);
    }
    check::<State<Consecutive>>();
    check::<State<Ring>>();
    check::<State<Drained>>();
    check::<State<(Consecutive, Consecutive)>>();
    check::<Slots>();
    check::<Tally>();
}

#[test]
fn an_update_that_changes_nothing_writes_nothing() {
    let cell = <AtomicCell<Pair> as StateCell<Pair>>::NEW;
    cell.update(Pair::enter_next);
    // Stands in for a writer that gets in between: a compare-exchange of the old head would undo its change.
    let raced = cell.update(|state| {
        if state.changes == 0 {
            cell.head.store(Pair { changes: 7, ..*state }.pack().0, Ordering::Relaxed);
        }
        *state
    });
    assert_eq!((raced.changes, cell.read(|state| state.changes)), (0, 7));
}

#[test]
fn an_update_runs_again_on_what_it_finds_when_another_was_faster() {
    let cell = <AtomicCell<Pair> as StateCell<Pair>>::NEW;
    let mut runs = 0;
    cell.update(|state| {
        runs += 1;
        if runs == 1 {
            cell.update(Pair::enter_next);
        }
        state.enter_next();
    });
    assert_eq!((runs, cell.read(|state| state.generation)), (2, 2));
    assert!(cell.read(|state| state.is_whole()));
}

/// A state whose tail follows from its head: every fourth generation has none. Besides, it counts its changes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pair {
    generation: u32,
    changes: u32,
    tail: u64,
}

impl Pair {
    const HAS_TAIL: u64 = 1 << 62;

    /// The tail that belongs to a generation: far from that of its neighbours.
    fn tail_of(generation: u32) -> u64 {
        if generation.is_multiple_of(4) { 0 } else { u64::from(generation).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1 }
    }

    fn is_whole(&self) -> bool {
        self.tail == Self::tail_of(self.generation)
    }

    fn enter_next(&mut self) {
        self.generation += 1;
        self.tail = Self::tail_of(self.generation);
    }
}

impl Fresh for Pair {
    const FRESH: Self = Self { generation: 0, changes: 0, tail: 0 };
}

impl Packed for Pair {
    fn pack(self) -> (u64, u64) {
        let head = u64::from(self.generation) | u64::from(self.changes) << 31;
        (if self.generation.is_multiple_of(4) { head } else { head | Self::HAS_TAIL }, self.tail)
    }

    fn unpack(head: u64, tail: u64) -> Self {
        let part = |shift: u32| u32::try_from(head >> shift & 0x7FFF_FFFF).expect("31 bits");
        Self { generation: part(0), changes: part(31), tail }
    }

    fn has_tail(head: u64) -> bool {
        // The cell asks between its look at the head and its look at the tail: now and then that takes a while.
        if head % 8 == 1 {
            (0..40).for_each(|_| core::hint::spin_loop());
        }
        head & (Self::HAS_TAIL | CLAIMED) != 0
    }
}

/// A cell whose two words lie in different cache lines: a change of both is then seen in parts, unless the cell sees to it.
#[repr(C, align(64))]
struct Straddling {
    padding: [u64; 7],
    cell: AtomicCell<Pair>,
}

#[test]
fn a_head_is_never_seen_with_another_states_tail() {
    const ROUNDS: u32 = 100_000;
    let straddling = Straddling { padding: [0; 7], cell: StateCell::NEW };
    let Straddling { padding: _, cell } = &straddling;
    let torn = AtomicU32::new(0);
    on_threads(|thread| {
        let mut rng = Rng::new(thread.into());
        let mut mine = 0;
        for _ in 0..ROUNDS {
            let whole = match (thread, rng.next() % 4) {
                // Half of the threads only look.
                (0 | 1, 0) => cell.update(|state| state.is_whole()),
                (0 | 1, _) => cell.read(Pair::is_whole),
                // Within a generation: the tail stays.
                (_, 0) => cell.update(|state| {
                    state.changes += 1;
                    state.is_whole()
                }),
                // Into the next: the tail changes with it.
                _ => cell.update(|state| {
                    let whole = state.is_whole();
                    state.enter_next();
                    whole
                }),
            };
            mine += u32::from(!whole);
        }
        torn.fetch_add(mine, Ordering::Relaxed);
    });
    assert_eq!(torn.into_inner(), 0, "torn reads");
    assert_eq!(cell.head.load(Ordering::Relaxed) & CLAIMED, 0, "a claim was left behind");
}

#[test]
fn who_finds_the_cell_claimed_waits_for_the_new_state() {
    fn claimed_then<R: Send>(from: Pair, caller: impl FnOnce(&AtomicCell<Pair>) -> R + Send) -> (R, Pair) {
        let cell = <AtomicCell<Pair> as StateCell<Pair>>::NEW;
        let (head, tail) = from.pack();
        // As a writer leaves it that was preempted in the middle of a change.
        cell.tail.store(tail, Ordering::Relaxed);
        cell.head.store(head | CLAIMED, Ordering::Relaxed);
        let mut to = from;
        to.enter_next();
        let seen = thread::scope(|scope| {
            let caller = scope.spawn(|| caller(&cell));
            thread::sleep(Duration::from_millis(2));
            let (head, tail) = to.pack();
            cell.tail.store(tail, Ordering::Release);
            cell.head.store(head, Ordering::Release);
            caller.join().expect("no panic in it")
        });
        (seen, cell.read(|state| *state))
    }
    let mut from = Pair::FRESH;
    for generation in 1..6 {
        let (seen, _) = claimed_then(from, |cell| cell.read(|state| *state));
        assert_eq!((seen.generation, seen.is_whole()), (generation, true));
        let (seen, left) = claimed_then(from, |cell| {
            cell.update(|state| {
                state.changes += 1;
                *state
            })
        });
        assert_eq!((seen.generation, seen.changes, seen.is_whole()), (generation, from.changes + 1, true));
        assert_eq!(left, seen);
        from.enter_next();
    }
}

#[test]
fn a_glimpse_sees_what_takes_one_look_and_waits_for_nothing() {
    let cell = <AtomicCell<Pair> as StateCell<Pair>>::NEW;
    let glimpse = |wanted: bool| cell.glimpse(|state| wanted.then_some(state.generation));
    assert_eq!((glimpse(true), glimpse(false)), (Some(0), None));
    // With a tail, which takes another look.
    cell.update(Pair::enter_next);
    assert_eq!((glimpse(true), cell.read(|state| state.generation)), (None, 1));
    // As a writer leaves it that was preempted in the middle of a change.
    cell.head.store(CLAIMED, Ordering::Relaxed);
    assert_eq!(glimpse(true), None);
}

#[test]
fn a_change_that_one_can_do_without_is_made_within_one_word_or_not_at_all() {
    let cell = <AtomicCell<Pair> as StateCell<Pair>>::NEW;
    let seen = || cell.read(|state| (state.generation, state.changes));
    let change = |wanted: bool| {
        cell.try_update(|state| {
            wanted.then(|| {
                state.changes += 1;
                state.changes
            })
        })
    };
    assert_eq!((change(true), change(false), seen()), (Some(1), None, (0, 1)));
    assert_eq!((cell.try_update(|state| Some(state.changes)), seen()), (Some(1), (0, 1)));
    // Into a state with a tail, and within one.
    let entered = cell.try_update(|state| {
        state.enter_next();
        Some(())
    });
    assert_eq!((entered, seen()), (None, (0, 1)));
    cell.update(Pair::enter_next);
    assert_eq!((change(true), seen()), (None, (1, 1)));
    // As a writer leaves it that was preempted in the middle of a change.
    cell.head.store(CLAIMED, Ordering::Relaxed);
    assert_eq!((change(true), cell.head.load(Ordering::Relaxed)), (None, CLAIMED));
}

#[test]
fn of_changes_within_one_word_none_is_lost_or_made_twice() {
    const ROUNDS: u32 = 40_000;
    let cell = <AtomicCell<Pair> as StateCell<Pair>>::NEW;
    let seen = AtomicU64::new(0);
    on_threads(|_| {
        let mut sum = 0;
        for _ in 0..ROUNDS {
            let change = cell.try_update(|state| {
                state.changes += 1;
                Some(state.changes)
            });
            sum += u64::from(change.expect("it has no tail"));
        }
        seen.fetch_add(sum, Ordering::Relaxed);
    });
    let changes = u64::from(THREADS * ROUNDS);
    assert_eq!(cell.read(|state| u64::from(state.changes)), changes);
    // Each number was given out once.
    assert_eq!(seen.into_inner(), changes * (changes + 1) / 2);
}

#[test]
fn no_change_is_lost_or_made_twice() {
    const ROUNDS: u32 = 40_000;
    let cell = <AtomicCell<Pair> as StateCell<Pair>>::NEW;
    let seen = AtomicU64::new(0);
    on_threads(|thread| {
        let mut last = 0;
        let mut sum = 0;
        for round in 0..ROUNDS {
            let now = cell.update(|state| {
                state.changes += 1;
                if round % 8 == thread {
                    state.enter_next();
                }
                state.changes
            });
            assert!(now > last, "a change went back");
            last = now;
            sum += u64::from(now);
        }
        seen.fetch_add(sum, Ordering::Relaxed);
    });
    let all = u64::from(THREADS * ROUNDS);
    assert_eq!(u64::from(cell.read(|state| state.changes)), all);
    // Every number was handed out once: their sum is that of 1 to all.
    assert_eq!(seen.into_inner(), all * (all + 1) / 2);
    assert_eq!(cell.read(|state| state.generation), THREADS * ROUNDS / 8);
}

#[test]
fn failures_reported_by_many_threads_are_all_counted() {
    const EACH: u32 = 10_000;
    let config = Config::new().with_trip(valid!(ConsecutiveFailures::new(65_535)));
    let breaker: CircuitBreaker = CircuitBreaker::new(config.validate().expect("valid"));
    on_threads(|_| {
        for _ in 0..EACH {
            breaker.try_acquire(Instant::START).expect("closed").failure();
        }
    });
    let failures = THREADS * EACH;
    assert_eq!(breaker.snapshot(&Instant::START).counts, Counts { calls: failures, failures, slow: 0 });
    assert_eq!(breaker.state(), StateKind::Closed);
}

#[test]
fn the_failure_that_fills_the_count_opens_the_breaker_once_whoever_reports_it() {
    // A multiple of the threads: the last failure of all is the one that trips.
    const EACH: u32 = 50;
    let log = Log::default();
    let config = valid!(Config::new().with_trip(valid!(ConsecutiveFailures::new(THREADS * EACH))).validate());
    let breaker = CircuitBreaker::with_observer(config, |event: &Transition| log.note(event));
    let start = Barrier::new(THREADS as usize);
    for _ in 0..100 {
        on_threads(|_| {
            start.wait();
            for _ in 0..EACH {
                breaker.try_acquire(Instant::START).expect("closed").failure();
            }
        });
        let events = log.take();
        let [(_, opened)] = events.as_slice() else { unreachable!("one transition, not {events:?}") };
        assert_eq!((opened.from, opened.to), (StateKind::Closed, StateKind::Open));
        assert_eq!(opened.counts.failures, THREADS * EACH);
        assert_eq!(breaker.state(), StateKind::Open);
        breaker.reset();
        log.take();
    }
}

#[test]
fn a_failure_rate_counted_by_many_threads_is_that_of_the_last_calls() {
    let config = Config::new().with_trip(valid!(FailureRate::new(Ratio::ONE, 47)));
    let breaker: CircuitBreaker<FailureRate> = CircuitBreaker::new(config.validate().expect("valid"));
    on_threads(|thread| {
        for call in 0..5_000_u32 {
            let permit = breaker.try_acquire(Instant::START).expect("never all failed");
            if (call + thread) % 4 == 0 { permit.failure() } else { permit.success() }
        }
    });
    let counts = breaker.snapshot(&Instant::START).counts;
    assert_eq!(counts.calls, 47);
    assert!((1..47).contains(&counts.failures), "{counts:?}");
    // Alone again, it is exact.
    for _ in 0..47 {
        breaker.try_acquire(Instant::START).expect("closed").success();
    }
    assert_eq!(breaker.snapshot(&Instant::START).counts, Counts { calls: 47, failures: 0, slow: 0 });
}

#[test]
fn a_failure_meter_takes_note_of_every_threads_failures() {
    const EACH: u32 = 1_000;
    let meter = valid!(FailureMeter::new(THREADS * EACH, Duration::from_secs(4_000)));
    let breaker: CircuitBreaker<FailureMeter> =
        CircuitBreaker::new(Config::new().with_trip(meter).validate().expect("valid"));
    on_threads(|_| {
        for _ in 0..EACH {
            breaker.try_acquire(Instant::START).expect("not above the limit").failure();
        }
    });
    assert_eq!(breaker.state(), StateKind::Closed);
    assert_eq!(breaker.snapshot(&Instant::START).counts.failures, THREADS * EACH);
    breaker.try_acquire(Instant::START).expect("full, but not above").failure();
    assert_eq!(breaker.state(), StateKind::Open);
}

#[test]
fn a_bulkheads_permits_are_never_exceeded_and_all_come_back() {
    const PERMITS: u32 = 5;
    const ROUNDS: u32 = 20_000;
    let bulkhead = Bulkhead::new(valid!(bulkhead::Config::new(PERMITS).validate()));
    let (held, most, admitted, rejected) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    on_threads(|thread| {
        let mut rng = Rng::new(thread.into());
        let mut mine = Vec::new();
        for _ in 0..ROUNDS {
            if rng.next().is_multiple_of(2) {
                if let Some((weight, permit)) = mine.pop() {
                    held.fetch_sub(weight, Ordering::SeqCst);
                    drop(permit);
                }
                continue;
            }
            let weight = 1 + rng.next() % 3;
            if let Ok(permit) = bulkhead.try_acquire_many(weight) {
                most.fetch_max(held.fetch_add(weight, Ordering::SeqCst) + weight, Ordering::SeqCst);
                admitted.fetch_add(1, Ordering::Relaxed);
                mine.push((weight, permit));
            } else {
                rejected.fetch_add(1, Ordering::Relaxed);
            }
        }
        for (weight, _permit) in mine {
            held.fetch_sub(weight, Ordering::SeqCst);
        }
    });
    let snapshot = bulkhead.snapshot();
    assert_eq!((snapshot.in_use, snapshot.queued), (0, 0));
    assert!(most.load(Ordering::Relaxed) <= PERMITS, "{most:?} permits were out at once");
    assert!(most.into_inner() <= snapshot.high_water && snapshot.high_water <= PERMITS, "{snapshot:?}");
    assert_eq!(snapshot.rejected, rejected.into_inner());
    assert!(admitted.into_inner() > 0 && snapshot.rejected > 0, "the test never met both answers");
}

/// What the threads do with the probes that they got.
#[derive(Clone, Copy, PartialEq)]
enum Probes {
    Succeed,
    Fail,
}

/// Many threads meet at the instant at which the open period ends, over and over.
///
/// What is wrong is written down and not asserted at once: a thread that panicked would leave the others at the barrier.
fn meet_at_the_end_of_the_open_period(probes: Probes) {
    const ROUNDS: u16 = 800;
    const PROBES: u32 = 2;
    let open_for = Duration::from_secs(1);
    let (log, clock, wrong) = (Log::default(), SharedClock::default(), Mutex::new(Vec::new()));
    let config = valid!(Config::new().with_probes(PROBES).with_open_for(Duration::from_secs(1)).validate());
    let breaker = CircuitBreaker::with_observer(config, |event: &Transition| log.note(event));
    let expect = |round: u16, what: &str, holds: bool| {
        if !holds {
            wrong.lock().expect("no panic under it").push(format!("round {round}: {what}"));
        }
    };
    let expect_change = |round, from, to| {
        let changes: Vec<_> = log.take().iter().map(|(_, event)| (event.from, event.to)).collect();
        expect(round, &format!("{changes:?}"), changes == [(from, to)]);
    };
    let (gate, admitted) = (Barrier::new(THREADS as usize), AtomicU32::new(0));
    on_threads(|_| {
        for round in 0..ROUNDS {
            if gate.wait().is_leader() {
                if breaker.state() != StateKind::Open {
                    breaker.open_until(clock.now().saturating_add(open_for));
                }
                log.take();
                admitted.store(0, Ordering::Relaxed);
                clock.advance(open_for);
            }
            gate.wait();
            let answer = breaker.try_acquire(&clock);
            match &answer {
                Ok(permit) => {
                    admitted.fetch_add(1, Ordering::Relaxed);
                    expect(round, "no probe", permit.is_probe());
                }
                Err(rejected) => expect(round, "not for the probes", rejected.reason() == Reason::ProbesOut),
            }
            if gate.wait().is_leader() {
                let admitted = admitted.load(Ordering::Relaxed);
                expect(round, &format!("{admitted} admitted"), admitted == PROBES);
                expect_change(round, StateKind::Open, StateKind::HalfOpen);
            }
            gate.wait();
            if let Ok(permit) = answer {
                if probes == Probes::Succeed { permit.success() } else { permit.failure() }
            }
            if gate.wait().is_leader() {
                let to = if probes == Probes::Succeed { StateKind::Closed } else { StateKind::Open };
                expect_change(round, StateKind::HalfOpen, to);
            }
        }
    });
    assert_eq!(wrong.into_inner().expect("no panic under it"), [""; 0]);
}

#[test]
fn the_instant_the_open_period_ends_lets_exactly_the_probes_through_and_their_success_closes_once() {
    meet_at_the_end_of_the_open_period(Probes::Succeed);
}

#[test]
fn the_instant_the_open_period_ends_lets_exactly_the_probes_through_and_their_failure_opens_once() {
    meet_at_the_end_of_the_open_period(Probes::Fail);
}

#[test]
fn under_contention_every_change_is_told_once_and_a_single_probe_stays_single() {
    // Fewer than there are generations, so that each is met once.
    const CHANGES: usize = 3_000;
    let (log, clock) = (Log::default(), SharedClock::default());
    let config = valid!(
        Config::new()
            .with_trip(valid!(ConsecutiveFailures::new(2)))
            .with_probes(1)
            .with_open_for(Duration::from_micros(20))
            .without_half_open_deadline()
            .validate()
    );
    let breaker = CircuitBreaker::with_observer(config, |event: &Transition| log.note(event));
    let (probes, most) = (AtomicU32::new(0), AtomicU32::new(0));
    on_threads(|thread| {
        let mut rng = Rng::new(thread.into());
        while log.len() < CHANGES {
            clock.advance(Duration::from_micros(u64::from(rng.next() % 10)));
            let Ok(permit) = breaker.try_acquire(&clock) else { continue };
            let probe = permit.is_probe();
            if probe {
                most.fetch_max(probes.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            }
            if rng.next().is_multiple_of(8) {
                thread::yield_now();
            }
            if probe {
                probes.fetch_sub(1, Ordering::SeqCst);
            }
            match rng.next() % 8 {
                0 => drop(permit),
                1 => permit.ignore(),
                2 | 3 => permit.success(),
                _ => permit.failure(),
            }
        }
    });
    assert_eq!(most.into_inner(), 1, "probes at once");
    let mut events = log.take();
    assert!(events.len() < 4_096, "generations wrapped: the test says nothing");
    // Told outside the cell, so the threads' events may arrive mixed; each thread's own are in order.
    for (index, (id, event)) in events.iter().enumerate() {
        let next = events.get(index + 1..).into_iter().flatten().find(|(other, _)| other == id);
        assert!(next.is_none_or(|(_, next)| next.generation > event.generation), "{event:?} before {next:?}");
    }
    events.sort_by_key(|(_, event)| event.generation);
    let mut state = StateKind::Closed;
    for (expected, (_, event)) in (1..).zip(&events) {
        assert_eq!(event.generation, expected, "each change has one event");
        assert_eq!(event.from, state, "{event:?} does not follow from the one before");
        state = event.to;
    }
    assert_eq!(breaker.state(), state);
}

#[test]
fn by_hand_and_by_itself_at_once_the_changes_still_form_one_chain() {
    const ROUNDS: u32 = 250;
    let (log, clock) = (Log::default(), SharedClock::default());
    let config = valid!(Config::new().with_trip(valid!(ConsecutiveFailures::new(1))).validate());
    let breaker = CircuitBreaker::<_, _>::with_observer(config, |event: &Transition| log.note(event));
    on_threads(|thread| {
        for _ in 0..ROUNDS {
            match thread {
                0 => breaker.isolate(),
                1 => breaker.reset(),
                2 => breaker.open_until(clock.now()),
                _ => clock.advance(Duration::from_secs(61)),
            }
            if let Ok(permit) = breaker.try_acquire(&clock) {
                permit.failure();
            }
            breaker.handle_timeout(&clock);
        }
    });
    let mut events = log.take();
    assert!(events.len() < 4_096, "generations wrapped: the test says nothing");
    events.sort_by_key(|(_, event)| event.generation);
    let (mut state, mut generation) = (StateKind::Closed, 0);
    for (_, event) in &events {
        generation += 1;
        assert_eq!((event.generation, event.from), (generation, state), "{event:?}");
        state = event.to;
    }
    assert_eq!(breaker.state(), state);
    assert_eq!(breaker.snapshot(&clock).generation, generation);
}

/// Calls from three threads while a fourth replaces the settings, by each in turn, until they are through.
fn call_while_settings_change<T: Copy + Send + Sync + Trip<Meter: PackedMeter>>(
    breaker: &LiveCircuitBreaker<T, Totals<Atomic>>,
    settings: &[Config<T>],
    call: impl Fn(u32) + Sync,
) {
    let calling = AtomicU32::new(THREADS - 1);
    let replaced = AtomicU32::new(0);
    on_threads(|thread| {
        if thread == 0 {
            for config in settings.iter().cycle() {
                breaker.reconfigure(config.validate().expect("a good configuration"), &Instant::START);
                replaced.fetch_add(1, Ordering::Relaxed);
                if calling.load(Ordering::Relaxed) == 0 {
                    break;
                }
            }
        } else {
            call(thread);
            calling.fetch_sub(1, Ordering::Relaxed);
        }
    });
    assert!(replaced.into_inner() > 0);
}

const CALLS: u32 = 10_000;

#[test]
fn no_failure_is_lost_while_the_settings_are_replaced() {
    let of = |threshold| Config::new().with_trip(ConsecutiveFailures::new(threshold).expect("a good threshold"));
    let breaker = LiveCircuitBreaker::with_observer(of(50_000).validate().expect("good"), Totals::<Atomic>::new(()));
    call_while_settings_change(&breaker, &[of(40_000), of(60_000)], |_| {
        (0..CALLS).for_each(|_| breaker.try_acquire(Instant::START).expect("closed").failure());
    });
    let failures = (THREADS - 1) * CALLS;
    assert_eq!(breaker.snapshot(&Instant::START).counts.failures, failures);
    assert_eq!(breaker.state(), StateKind::Closed);
    // What is in force is one of the settings: the next failures open, no sooner and no later.
    let more = (failures..).take_while(|_| breaker.try_acquire(Instant::START).map(|call| call.failure()).is_ok());
    let opened = failures + u32::try_from(more.count()).expect("few");
    assert!([40_000, 60_000].contains(&opened), "opened after {opened}");
    assert_eq!(breaker.observer().failures(), u64::from(opened));
}

#[test]
fn a_window_that_is_replaced_under_way_still_holds_the_last_calls() {
    let of = |window| {
        let rate = FailureRate::new(Ratio::percent(100), window).expect("a good rate");
        Config::new().with_trip(rate)
    };
    let breaker = LiveCircuitBreaker::with_observer(of(47).validate().expect("good"), Totals::<Atomic>::new(()));
    call_while_settings_change(&breaker, &[of(5), of(47), of(20)], |_| {
        for call in 0..CALLS {
            let permit = breaker.try_acquire(Instant::START).expect("never all of them fail");
            if call % 8 == 0 { permit.failure() } else { permit.success() }
        }
    });
    breaker.reconfigure(of(10).validate().expect("good"), &Instant::START);
    (0..10).for_each(|_| breaker.try_acquire(Instant::START).expect("closed").success());
    assert_eq!(breaker.snapshot(&Instant::START).counts, Counts { calls: 10, failures: 0, slow: 0 });
    let totals = breaker.observer();
    assert_eq!(totals.successes() + totals.failures(), u64::from((THREADS - 1) * CALLS + 10));
}

#[test]
fn probes_all_come_back_while_the_settings_are_replaced() {
    let of = |successes, trials| Config::new().with_trials(successes, trials).without_half_open_deadline();
    let breaker = LiveCircuitBreaker::with_observer(of(3, 9).validate().expect("good"), Totals::<Atomic>::new(()));
    let rounds = AtomicU32::new(0);
    call_while_settings_change(&breaker, &[of(1, 1), of(9, 9), of(2, 5), of(5, 7).with_full_trial()], |_| {
        for call in 0..CALLS {
            if breaker.state() == StateKind::Closed {
                breaker.half_open(&Instant::START);
                rounds.fetch_add(1, Ordering::Relaxed);
            }
            match breaker.try_acquire(Instant::START) {
                Ok(permit) if call % 16 == 0 => drop(permit),
                Ok(permit) => permit.success(),
                Err(rejected) => assert_eq!(rejected.reason(), Reason::ProbesOut),
            }
        }
    });
    assert!(rounds.into_inner() > 10);
    // However it was left, some good probes close it: no slot is lost, and no verdict is waited for in vain.
    for _ in 0..9 {
        if breaker.state() == StateKind::HalfOpen {
            breaker.try_acquire(Instant::START).expect("a free probe").success();
        }
    }
    assert_eq!((breaker.state(), breaker.snapshot(&Instant::START).probes), (StateKind::Closed, 0));
    let totals = breaker.observer();
    let over = [totals.successes(), totals.failures(), totals.ignored(), totals.abandoned(), totals.late()];
    assert_eq!(over.iter().sum::<u64>(), totals.admitted());
}

#[test]
fn replacements_form_one_chain_each_carrying_over_from_the_one_before() {
    let cell = <Swapped<u32> as SettingsCell<u32>>::NEW;
    let chain = Mutex::new(Vec::new());
    on_threads(|thread| {
        for round in 0..500 {
            let next = 1 + thread * 500 + round;
            cell.replace(&0, next, |from| chain.lock().expect("no panic under it").push((*from, next)));
        }
    });
    let mut last = 0;
    for (from, to) in chain.into_inner().expect("no panic under it") {
        assert_eq!(from, last);
        last = to;
    }
    assert_eq!(cell.with(&0, |settings| *settings), last);
}

#[test]
fn atomic_policies_are_shared_between_threads() {
    fn check<T: Send + Sync>() {}
    check::<CircuitBreaker>();
    check::<LiveCircuitBreaker>();
    check::<Bulkhead>();
    // Whatever the state is: none is ever shared.
    check::<AtomicCell<core::cell::Cell<u8>>>();
    let _: fn() = check::<failsoft_core::circuit_breaker::CircuitBreaker<Atomic, FailureRate>>;
}
