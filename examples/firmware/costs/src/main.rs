//! Counts what the policies take on this chip: instructions, stack and RAM.
//!
//! One figure a line: `instructions.POLICY.CELL.OPERATION N`, `section.POLICY.CELL.OPERATION N` for those by which it holds an interrupt
//! off at most, and in bytes `stack.POLICY.CELL.OPERATION N`, `ram.POLICY.CELL N` with the
//! settings and `state.POLICY.CELL N` without.

#![no_std]
#![no_main]

mod rest;

use core::fmt::{self, Display, Write};
use core::future::ready;
use core::hint::black_box;
use core::time::Duration;

use board::{Gauge, Text};
use costs::{COMPARTMENT, CONSECUTIVE, HALF, METER, RATE, SLOTS, TEN_A_MINUTE, THREE_ATTEMPTS, Tiny, WINDOW};
use failsoft_embassy::bulkhead::{Bulkhead, Slots, Tally};
use failsoft_embassy::cell::{CellKind, Fresh as _, Local};
use failsoft_embassy::circuit_breaker::{
    CircuitBreaker, Config, ConsecutiveFailures, Permit, State, StateKind, Trip,
    trip::{Consecutive, Drained, Ring, Sample},
};
use failsoft_embassy::degradation::{self, Criticality, Health, Service};
use failsoft_embassy::rate_limiter::{self, Arrivals};
use failsoft_embassy::{
    CriticalSection, Degradation, Instant, KeyedRateLimiter, Pipeline, RetryPolicy, Timeout, Valid, Verdict, valid,
};

/// What the clock says. Reading a clock is not the policies' cost.
const NOW: Instant = Instant::from_millis(5);

/// What a cell is called that an interrupt shares.
const SHARED: &str = "critical-section";

/// Services of a degradation.
const NAMES: [&str; 8] = ["adc", "bus", "can", "display", "flash", "gps", "modem", "radio"];

/// No dwell, and one good report is enough: each report that can changes the level.
const ALL_AT_ONCE: Valid<degradation::Config> =
    valid!(degradation::Config::new().with_dwell(Duration::ZERO).with_recovery(1).validate());

/// More permits for each key than are ever taken.
const MANY: Valid<rate_limiter::Config> =
    valid!(rate_limiter::Config::new(1, Duration::from_secs(1)).with_burst(1_000_000).validate());

/// Keys that come once.
const FLOOD: u32 = 100_000;

/// A policy under the gauge, and where its figures go.
struct Subject<'r> {
    gauge: &'r Gauge,
    text: &'r mut Text,
    policy: &'r str,
    cell: &'r str,
}

impl Subject<'_> {
    fn figure(&mut self, kind: &str, operation: impl Display, figure: impl Display) -> fmt::Result {
        writeln!(self.text, "{kind}.{}.{}{operation} {figure}", self.policy, self.cell)
    }

    /// An operation is done once for each figure, each time from where `prepare` leaves the policy.
    fn operation(&mut self, operation: &str, prepare: &dyn Fn(), work: &mut dyn FnMut()) -> fmt::Result {
        prepare();
        let instructions = self.gauge.instructions(work);
        prepare();
        let stack = self.gauge.stack(work);
        self.figure("instructions", format_args!(".{operation}"), instructions)?;
        self.figure("stack", format_args!(".{operation}"), stack)?;
        // Other cells mask no interrupts.
        if self.cell == SHARED {
            let held_off = self.gauge.held_off(prepare, work);
            self.figure("section", format_args!(".{operation}"), held_off)?;
        }
        Ok(())
    }

    fn memory<P, S>(&mut self) -> fmt::Result {
        self.figure("ram", "", size_of::<P>())?;
        self.figure("state", "", size_of::<S>())
    }

    fn breaker<K, T>(&mut self, policy: &'static str, config: Valid<Config<T>>) -> fmt::Result
    where
        T: Copy + Trip,
        K: CellKind<State<T::Meter>>,
    {
        self.policy = policy;
        let breaker = CircuitBreaker::<K, T>::new(config);
        let breaker = black_box(&breaker);
        let fail = || breaker.try_acquire(NOW).map(Permit::failure).is_ok();
        // In full health: a window is full of successes.
        let well = || {
            breaker.reset();
            for _ in 0..WINDOW {
                let _ = breaker.try_acquire(NOW).map(Permit::success);
            }
        };
        let mut failures = 0;
        well();
        while breaker.state() == StateKind::Closed {
            fail();
            failures += 1;
        }

        let mut success = || {
            black_box(breaker.try_acquire(black_box(NOW)).map(Permit::success).is_ok());
        };
        let mut failure = || {
            black_box(breaker.try_acquire(black_box(NOW)).map(Permit::failure).is_ok());
        };
        let mut dropped = || {
            black_box(breaker.try_acquire(black_box(NOW)).map(drop).is_ok());
        };
        let after = |count: u32| {
            well();
            for _ in 0..count {
                fail();
            }
        };
        self.memory::<CircuitBreaker<K, T>, State<T::Meter>>()?;
        self.operation("closed-success", &well, &mut success)?;
        self.operation("closed-failure", &well, &mut failure)?;
        self.operation("closed-dropped", &well, &mut dropped)?;
        self.operation("success-after-failure", &|| after(1), &mut success)?;
        self.operation("failure-that-opens", &|| after(failures - 1), &mut failure)?;
        self.operation("open-rejected", &|| after(failures), &mut success)?;
        self.operation("first-probe", &|| breaker.open_until(Instant::START), &mut success)
    }

    /// What a failure takes of a condition alone, with the time at hand and a meter of its own: no breaker can take less.
    fn condition<T: Copy + Trip>(&mut self, policy: &'static str, trip: T) -> fmt::Result {
        (self.policy, self.cell) = (policy, "none");
        let (trip, mut meter) = (black_box(trip), T::Meter::FRESH);
        // In full health, as above.
        for _ in 0..WINDOW {
            trip.record(&mut meter, Sample::of(false), Some(NOW));
        }
        self.operation("condition-alone", &|| {}, &mut || {
            black_box(trip.record(black_box(&mut { meter }), Sample::of(true), Some(black_box(NOW))));
        })
    }

    fn bulkhead<K: CellKind<Slots> + CellKind<Tally>>(&mut self) -> fmt::Result {
        self.policy = "bulkhead";
        let bulkhead = Bulkhead::<K>::new(COMPARTMENT);
        let bulkhead = black_box(&bulkhead);
        let mut take = || {
            black_box(bulkhead.try_acquire().is_ok());
        };
        self.memory::<Bulkhead<K>, (Slots, Tally)>()?;
        self.operation("acquire-release", &|| {}, &mut take)?;
        let all = bulkhead.try_acquire_many(SLOTS);
        self.operation("full-rejected", &|| {}, &mut take)?;
        drop(all);
        Ok(())
    }

    fn pipeline<K>(&mut self) -> fmt::Result
    where
        K: CellKind<State<Consecutive>> + CellKind<Slots> + CellKind<Tally>,
    {
        self.policy = "pipeline";
        let (bulkhead, breaker) = (Bulkhead::<K>::new(COMPARTMENT), CircuitBreaker::<K>::new(CONSECUTIVE));
        let pipeline = Pipeline::new(Tiny)
            .layer(Timeout::new(Duration::from_secs(2)))
            .layer(RetryPolicy::new(THREE_ATTEMPTS))
            .layer(&bulkhead)
            .layer(&breaker);
        let pipeline = black_box(&pipeline);
        self.figure("ram", ".call", size_of_val(&pipeline.call(|_| ready(Ok::<u32, u32>(1)))))?;
        self.operation("success", &|| {}, &mut || {
            black_box(Tiny.run(pipeline.call(|_| ready(black_box(Ok::<u32, u32>(1))))).is_ok());
        })
    }

    /// Its sections grow with the services: the last of them reports.
    fn degradation<const N: usize>(&mut self, policy: &'static str) -> fmt::Result {
        self.policy = policy;
        let hub = Degradation::<N>::new(ALL_AT_ONCE);
        let hub = black_box(&hub);
        for name in NAMES.iter().take(N) {
            hub.register(name, Service::new(Criticality::Important)).map_err(|_| fmt::Error)?;
        }
        let last = NAMES.get(N - 1).copied().unwrap_or_default();
        let report = |good| {
            black_box(hub.report(black_box(last), good, &NOW).is_ok());
        };
        self.memory::<Degradation<N>, Health<(), N>>()?;
        self.operation("report-well", &|| report(true), &mut || report(true))?;
        self.operation("report-that-lowers", &|| report(true), &mut || report(false))?;
        self.operation("report-that-raises", &|| report(false), &mut || report(true))
    }

    /// What a key costs that has its place, before and after a flood of others, and what one costs that comes too late.
    fn keyed<const N: usize>(&mut self, policy: &'static str) -> fmt::Result {
        self.policy = policy;
        let limiter = KeyedRateLimiter::<u32, N>::new(MANY);
        let limiter = black_box(&limiter);
        let take = |key: u32| {
            black_box(limiter.try_acquire(black_box(&key), &NOW).is_ok());
        };
        self.memory::<KeyedRateLimiter<u32, N>, Arrivals<u32, N>>()?;
        take(0);
        self.operation("known-key", &|| {}, &mut || take(0))?;
        for key in 1..=FLOOD {
            take(key);
        }
        self.operation("known-key-after-flood", &|| {}, &mut || take(0))?;
        self.operation("new-key-after-flood", &|| {}, &mut || take(u32::MAX))
    }

    fn retry(&mut self) -> fmt::Result {
        (self.policy, self.cell) = ("retry", "none");
        let retry = RetryPolicy::new(THREE_ATTEMPTS);
        let retry = black_box(&retry);
        let decide = |attempt: u32| {
            let decision = retry.decide(
                black_box(attempt),
                Verdict::TRANSIENT,
                Duration::ZERO,
                black_box(0x5EED_5EED),
                black_box(NOW),
                black_box(Instant::MAX),
            );
            black_box(decision);
        };
        self.figure("ram", "", size_of::<RetryPolicy>())?;
        self.operation("decide-again", &|| {}, &mut || decide(2))?;
        self.operation("decide-stop", &|| {}, &mut || decide(3))
    }
}

/// All policies with a state, in cells of one kind.
fn shared<K>(subject: &mut Subject<'_>, cell: &'static str) -> fmt::Result
where
    K: CellKind<State<Consecutive>>
        + CellKind<State<Ring>>
        + CellKind<State<Drained>>
        + CellKind<Slots>
        + CellKind<Tally>,
{
    subject.cell = cell;
    subject.breaker::<K, _>("consecutive", CONSECUTIVE)?;
    subject.breaker::<K, _>("rate", RATE)?;
    subject.breaker::<K, _>("meter", METER)?;
    subject.bulkhead::<K>()?;
    subject.pipeline::<K>()
}

fn measure() -> fmt::Result {
    let gauge = Gauge::take().ok_or(fmt::Error)?;
    let mut text = Text::new().ok_or(fmt::Error)?;
    let mut subject = Subject { gauge: &gauge, text: &mut text, policy: "", cell: "" };
    shared::<Local>(&mut subject, "local")?;
    shared::<CriticalSection>(&mut subject, SHARED)?;
    subject.degradation::<2>("degradation-2")?;
    subject.degradation::<8>("degradation-8")?;
    subject.keyed::<8>("keyed-8")?;
    subject.keyed::<64>("keyed-64")?;
    subject.condition("consecutive", ConsecutiveFailures::DEFAULT)?;
    subject.condition("rate", HALF)?;
    subject.condition("meter", TEN_A_MINUTE)?;
    subject.retry()?;
    subject.rest()?;
    text.flush()
}

#[board::entry]
fn main() -> ! {
    board::exit(u8::from(measure().is_err()))
}
