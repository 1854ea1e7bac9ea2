//! The breaker's promises, one by one. The whole machine is in [`table`]; a naive oracle follows it through random scripts
//! in [`oracle`].

#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, clippy::indexing_slicing, reason = "tests")]

use core::cell::Cell;
use core::mem::{forget, size_of};
use core::time::Duration;
use std::vec::Vec;

use super::*;
use crate::backoff::Jitter;
use crate::cell::{Copied, Live, Local};
use crate::testing::{ManualClock, Recorder, Script, Step, VirtualExecutor};
use crate::{Classify, ErrIsFailure, Executor, Pipeline, Ratio, Rng, valid};

mod edges;
mod exhaustive;
mod faults;
mod oracle;
mod saved;
mod table;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);

const fn at(seconds: u64) -> Instant {
    Instant::from_millis(seconds * 1_000)
}

const fn seconds(instant: Instant) -> u64 {
    instant.as_nanos() / 1_000_000_000
}

type Events = Recorder<Transition, 64>;

fn breaker<T: Copy + Trip>(config: Config<T>) -> CircuitBreaker<Local, T> {
    CircuitBreaker::new(config.validate().expect("a good configuration"))
}

fn observed<T: Copy + Trip>(config: Config<T>, events: &Events) -> CircuitBreaker<Local, T, &Events> {
    CircuitBreaker::with_observer(config.validate().expect("a good configuration"), events)
}

/// Opens after one failure, for 10 s, and closes after one success.
fn touchy() -> Config {
    let trip = ConsecutiveFailures::new(1).expect("a threshold of one");
    Config::new().with_trip(trip).with_open_for(10 * SECOND).with_probes(1)
}

/// The same with other open periods.
fn growing(periods: Backoff, seed: u64) -> Config<Growing<ConsecutiveFailures>> {
    touchy().with_open_backoff(periods, seed).expect("good periods")
}

/// Fails until the breaker opens.
fn trip<T: Copy + Trip, O: Observer<Transition>>(breaker: &CircuitBreaker<Local, T, O>, clock: impl Clock) {
    // More failures than any condition here bears.
    for _ in 0..100_000 {
        let Ok(permit) = breaker.try_acquire(&clock) else { break };
        permit.failure();
    }
    assert_eq!(breaker.state(), StateKind::Open);
}

const fn verdict(failed: bool) -> Verdict {
    if failed { Verdict::TRANSIENT } else { Verdict::SUCCESS }
}

/// Opens after so many slow calls in a row, failed or not.
#[derive(Clone, Copy, Debug)]
struct SlowInARow {
    threshold: u16,
    limit: Span,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct InARow(u64);

impl Fresh for InARow {
    const FRESH: Self = Self(0);
}

impl Meter for InARow {
    type Home = Copied;

    fn keep(&mut self, until: Instant) {
        self.0 = until.as_nanos();
    }

    fn kept(&self) -> Instant {
        Instant::from_nanos(self.0)
    }
}

impl PackedMeter for InARow {
    const BITS: u32 = 16;

    fn to_bits(self) -> u64 {
        self.0
    }

    fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

impl Trip for SlowInARow {
    type Meter = InARow;

    fn record(&self, meter: &mut InARow, sample: Sample, now: Option<Instant>) -> Option<bool> {
        // With a limit, every call is timed.
        now?;
        meter.0 = if sample.slow || sample.took > self.limit { (meter.0 + 1).min(0xFFFF) } else { 0 };
        Some(meter.0 >= self.threshold.into())
    }

    fn is_healthy(&self, meter: &InARow) -> bool {
        meter.0 == 0
    }

    fn counts(&self, meter: &InARow, _: Option<Instant>) -> Counts {
        Counts { calls: meter.0 as u32, failures: 0, slow: meter.0 as u32 }
    }

    fn slow_after(&self) -> Span {
        self.limit
    }
}

/// A clock that moves on by a step with every reading, and counts the readings.
struct RunningClock {
    now: Cell<Instant>,
    step: Duration,
    readings: Cell<u32>,
}

impl RunningClock {
    const fn new(step: Duration) -> Self {
        Self { now: Cell::new(Instant::START), step, readings: Cell::new(0) }
    }
}

impl Clock for RunningClock {
    fn now(&self) -> Instant {
        self.readings.set(self.readings.get() + 1);
        self.now.replace(self.now.get().saturating_add(self.step))
    }
}

// Permits

impl<K, T, O> CircuitBreaker<K, T, O>
where
    T: Copy + Trip,
    K: CellKind<State<T::Meter>>,
{
    fn peek(&self) -> State<T::Meter> {
        self.cell.read(|state| *state)
    }
}

#[test]
fn a_call_that_panics_gives_its_probe_back() {
    let breaker = breaker(touchy());
    trip(&breaker, at(0));
    let panicked = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
        let _permit = breaker.try_acquire(at(10));
        std::panic::resume_unwind(std::boxed::Box::new("the call"));
    }));
    assert!(panicked.is_err());
    assert_eq!(breaker.snapshot(&at(10)).probes, 0);
    breaker.try_acquire(at(10)).expect("the slot is free again").success();
    assert_eq!(breaker.state(), StateKind::Closed);
}

#[test]
fn a_forgotten_probe_holds_its_slot_until_the_half_open_deadline_and_no_longer() {
    let breaker = breaker(touchy().with_half_open_for(20 * SECOND));
    trip(&breaker, at(0));
    forget(breaker.try_acquire(at(10)));
    let rejected = breaker.try_acquire(at(29)).expect_err("the only probe is out");
    assert_eq!((rejected.reason(), rejected.retry_at()), (Reason::ProbesOut, Some(at(30))));
    let rejected = breaker.try_acquire(at(30)).expect_err("open again");
    assert_eq!((rejected.reason(), rejected.retry_at()), (Reason::Open, Some(at(40))));
    breaker.try_acquire(at(40)).expect("a new probe").success();
    assert_eq!(breaker.state(), StateKind::Closed);
}

#[test]
fn no_number_of_cancelled_probes_wedges_a_half_open_breaker() {
    let breaker = breaker(touchy());
    trip(&breaker, at(0));
    for _ in 0..1_000 {
        drop(breaker.try_acquire(at(10)).expect("the slot is free again"));
    }
    breaker.try_acquire(at(10)).expect("the slot is free again").success();
    assert_eq!(breaker.state(), StateKind::Closed);
}

#[test]
fn calls_admitted_before_the_trip_neither_close_nor_reopen_a_recovering_breaker() {
    let events = Events::new();
    let breaker = observed(touchy().with_probes(2), &events);
    let old: Vec<_> = (0..4).map(|_| breaker.try_acquire(at(0)).expect("closed")).collect();
    trip(&breaker, at(0));
    let mut old = old.into_iter();
    old.next().expect("an old permit").success();
    assert_eq!(breaker.state(), StateKind::Open);

    let probe = breaker.try_acquire(at(10)).expect("a probe");
    let before = breaker.snapshot(&at(10));
    old.next().expect("an old permit").success();
    old.next().expect("an old permit").failure();
    drop(old.next());
    assert_eq!(breaker.snapshot(&at(10)), before);
    probe.success();
    breaker.try_acquire(at(10)).expect("a probe").success();
    let states: Vec<_> = events.take().map(|event| event.to).collect();
    assert_eq!(states, [StateKind::Open, StateKind::HalfOpen, StateKind::Closed]);
}

#[test]
fn a_probe_of_an_older_half_open_period_frees_no_slot_and_counts_nothing_in_a_newer_one() {
    let breaker = breaker(touchy().with_half_open_for(5 * SECOND));
    trip(&breaker, at(0));
    let old = breaker.try_acquire(at(10)).expect("a probe");
    let new = breaker.try_acquire(at(25)).expect("a probe of the next period");
    assert!(old.is_probe() && new.is_probe());
    old.success();
    assert_eq!((breaker.state(), breaker.snapshot(&at(25)).probes), (StateKind::HalfOpen, 1));
    assert!(breaker.try_acquire(at(25)).is_err());
    new.success();
    assert_eq!(breaker.state(), StateKind::Closed);
}

#[test]
fn generations_wrap_after_4096_changes_and_until_then_an_old_permit_stays_late() {
    let events = Events::new();
    let breaker = observed(touchy(), &events);
    let old = breaker.try_acquire(at(0)).expect("closed");
    for change in 1..=4_096_u32 {
        breaker.reset();
        let generation = events.take().last().expect("an event").generation;
        assert_eq!(u32::from(generation), change % 4_096);
        if change < 4_096 {
            // A copy of the old report: it is late.
            let copy = Permit { breaker: &breaker, ticket: old.ticket, clock: at(0) };
            copy.failure();
            assert_eq!(breaker.state(), StateKind::Closed, "after {change} changes");
        }
    }
    // The documented price of 12 bits.
    old.failure();
    assert_eq!(breaker.state(), StateKind::Open);
}

// Half-open

#[test]
fn of_a_thousand_callers_at_the_end_of_the_open_period_only_the_probes_are_admitted() {
    let breaker = breaker(touchy().with_trials(4, 9).with_probes_at_once(5));
    trip(&breaker, at(0));
    let admitted: Vec<_> = (0..1_000).filter_map(|_| breaker.try_acquire(at(10)).ok()).collect();
    assert_eq!((admitted.len(), breaker.snapshot(&at(10)).probes), (5, 5));
}

#[test]
fn half_open_reaches_its_verdict_with_the_first_outcome_that_makes_it_certain() {
    for (trials, needed) in (1..=6_u32).flat_map(|trials| (1..=trials).map(move |needed| (trials, needed))) {
        for script in 0..1_u32 << trials {
            let outcomes: Vec<bool> = (0..trials).map(|trial| script >> trial & 1 == 1).collect();
            let breaker = breaker(touchy().with_trials(needed, trials));
            trip(&breaker, at(0));
            for told in 1..=outcomes.len() {
                let permit = breaker.try_acquire(at(10)).expect("no verdict yet");
                permit.record(verdict(!outcomes[told - 1]));
                let good = outcomes[..told].iter().filter(|good| **good).count() as u32;
                let best = good + trials - told as u32;
                let (expected, certain) = match () {
                    () if good >= needed => (StateKind::Closed, true),
                    () if best < needed => (StateKind::Open, true),
                    () => (StateKind::HalfOpen, false),
                };
                assert_eq!(breaker.state(), expected, "{needed} of {trials}, {outcomes:?}, {told} told");
                if certain {
                    break;
                }
            }
            assert_ne!(breaker.state(), StateKind::HalfOpen, "{needed} of {trials}, {outcomes:?}");
        }
    }
}

#[test]
fn a_full_trial_decides_with_its_last_probe_and_not_before() {
    for (trials, needed) in (1..=6_u32).flat_map(|trials| (1..=trials).map(move |needed| (trials, needed))) {
        for script in 0..1_u32 << trials {
            let breaker = breaker(touchy().with_trials(needed, trials).with_full_trial());
            trip(&breaker, at(0));
            // An ignored or abandoned probe is not one of them.
            breaker.try_acquire(at(10)).expect("a probe").ignore();
            drop(breaker.try_acquire(at(10)));
            for probe in 0..trials {
                assert_eq!(breaker.state(), StateKind::HalfOpen, "{needed} of {trials}, {script:b}, {probe} told");
                let permit = breaker.try_acquire(at(10)).expect("no verdict yet");
                permit.record(verdict(script >> probe & 1 == 0));
            }
            let expected = if script.count_ones() >= needed { StateKind::Closed } else { StateKind::Open };
            assert_eq!(breaker.state(), expected, "{needed} of {trials}, {script:b}");
        }
    }
}

#[test]
fn a_slow_probe_is_a_bad_one_whether_the_clock_or_the_classifier_says_so() {
    let slow = SlowInARow { threshold: 1, limit: Span::of(SECOND) };
    let half_open = || {
        let breaker = breaker(touchy().with_trip(slow).with_trials(1, 2));
        breaker.half_open(&at(0));
        breaker
    };
    let events = |end: Instant, verdict: Verdict| {
        let (clock, breaker) = (ManualClock::new(), half_open());
        let probe = breaker.try_acquire(&clock).expect("a probe");
        clock.set(end);
        probe.record(verdict);
        (breaker.state(), breaker.snapshot(&clock).counts)
    };
    let counts = |failures, slow| Counts { calls: 1, failures, slow };
    let longer = at(1).saturating_add(Duration::from_nanos(1));
    assert_eq!(events(at(1), Verdict::SUCCESS), (StateKind::Closed, Counts::default()), "as long as the limit");
    assert_eq!(events(longer, Verdict::SUCCESS), (StateKind::HalfOpen, counts(0, 1)));
    assert_eq!(events(longer, Verdict::TRANSIENT), (StateKind::HalfOpen, counts(1, 1)));
    assert_eq!(events(at(0), Verdict::SUCCESS.with_slow()), (StateKind::HalfOpen, counts(0, 1)));
    // Where nobody asks how long calls take, the classifier may still say it.
    let breaker = breaker(touchy().with_trials(2, 2));
    breaker.half_open(&at(0));
    breaker.try_acquire(at(0)).expect("a probe").record(Verdict::SUCCESS.with_slow());
    assert_eq!(breaker.state(), StateKind::Open);
}

#[test]
fn half_open_by_hand_comes_from_any_state_with_all_probes_and_a_deadline_from_now() {
    let events = Events::new();
    let breaker = observed(touchy().with_probes(2).with_half_open_for(7 * SECOND), &events);
    let by_hand: [&dyn Fn(); 7] = [
        &|| breaker.reset(),
        &|| breaker.isolate(),
        &|| breaker.disable(),
        &|| breaker.observe_only(),
        &|| breaker.open_until(at(1_000)),
        &|| breaker.open_until(Instant::START),
        &|| drop(breaker.try_acquire(at(100))),
    ];
    for enter in by_hand {
        enter();
        let old = breaker.try_acquire(at(100)).ok();
        breaker.half_open(&at(100));
        let snapshot = breaker.snapshot(&at(100));
        assert_eq!((snapshot.state, snapshot.until, snapshot.probes), (StateKind::HalfOpen, Some(at(107)), 0));
        // What an earlier state admitted is late.
        drop(old);
        let probes: Vec<_> = (0..3).filter_map(|_| breaker.try_acquire(at(100)).ok()).collect();
        assert_eq!(probes.len(), 2);
        probes.into_iter().for_each(Permit::success);
        assert_eq!(breaker.state(), StateKind::Closed);
        events.take().for_each(drop);
    }
}

#[test]
fn an_early_probe_by_hand_does_not_make_the_breaker_forget_how_often_it_reopened() {
    let periods = Backoff::exponential(SECOND).with_cap(HOUR).with_jitter(Jitter::None);
    let breaker = breaker(growing(periods, 0));
    trip(&breaker, at(0));
    for reopened in 1..=3 {
        breaker.half_open(&at(0));
        breaker.try_acquire(at(0)).expect("a probe").failure();
        let snapshot = breaker.snapshot(&at(0));
        assert_eq!((snapshot.reopened, snapshot.until), (reopened, Some(at(1 << reopened))));
    }
}

#[test]
fn half_open_never_has_more_probes_out_than_allowed_nor_more_in_total_than_trials() {
    for (trials, at_once) in (1..=8_u32).flat_map(|trials| (1..=trials).map(move |at_once| (trials, at_once))) {
        let breaker = breaker(touchy().with_trials(trials.div_ceil(2), trials).with_probes_at_once(at_once));
        trip(&breaker, at(0));
        let (mut out, mut total, mut random) = (Vec::new(), 0, Rng::new(u64::from(trials << 8 | at_once)));
        while breaker.state() != StateKind::Closed && total <= 1_000 {
            let before = out.len();
            out.extend(core::iter::from_fn(|| breaker.try_acquire(at(10)).ok()));
            total += out.len() - before;
            assert!(out.len() <= at_once as usize && total <= trials as usize, "{trials} trials, {at_once} at once");
            // Alternately, so that the verdict comes late; which one returns first does not matter.
            let permit: Permit<'_, _, _, _, _> = out.swap_remove(random.next() as usize % out.len());
            permit.record(verdict(total.is_multiple_of(2)));
            if breaker.state() == StateKind::Open {
                break;
            }
        }
        assert!(matches!(breaker.state(), StateKind::Open | StateKind::Closed));
    }
}

#[test]
fn an_ignored_probe_returns_its_slot_and_its_trial() {
    let breaker = breaker(touchy());
    trip(&breaker, at(0));
    for _ in 0..1_000 {
        breaker.try_acquire(at(10)).expect("the trial is free again").ignore();
    }
    assert_eq!(breaker.snapshot(&at(10)).counts, Counts::default());
}

#[test]
fn the_period_after_a_half_open_deadline_counts_from_the_deadline_however_late_it_is_noticed() {
    let events = Events::new();
    let breaker = observed(touchy().with_half_open_for(20 * SECOND), &events);
    trip(&breaker, at(0));
    forget(breaker.try_acquire(at(10)));
    assert_eq!(breaker.poll_timeout(), Some(at(30)));
    breaker.handle_timeout(&at(29));
    assert_eq!(breaker.state(), StateKind::HalfOpen);
    breaker.handle_timeout(&at(37));
    assert_eq!((breaker.state(), breaker.poll_timeout()), (StateKind::Open, Some(at(40))));
    assert_eq!(events.take().last().and_then(|event| event.until), Some(at(40)));
}

#[test]
fn the_half_open_deadline_is_as_long_as_the_open_period_unless_said_otherwise() {
    let breaker = breaker(touchy());
    trip(&breaker, at(0));
    breaker.handle_timeout(&at(10));
    assert_eq!(breaker.snapshot(&at(10)).until, Some(at(20)));
}

#[test]
fn without_a_half_open_deadline_the_breaker_waits_for_its_probes_for_ever() {
    let breaker = breaker(touchy().without_half_open_deadline());
    trip(&breaker, at(0));
    let probe = breaker.try_acquire(at(10)).expect("a probe");
    assert_eq!(breaker.poll_timeout(), None);
    let rejected = breaker.try_acquire(Instant::MAX).expect_err("the only probe is out");
    assert_eq!((rejected.reason(), rejected.retry_at()), (Reason::ProbesOut, None));
    probe.success();
    assert_eq!(breaker.state(), StateKind::Closed);
}

#[test]
fn whoever_only_follows_poll_timeout_gets_every_change_on_time() {
    let events = Events::new();
    let breaker = observed(touchy().with_half_open_for(3 * SECOND), &events);
    trip(&breaker, at(0));
    for _ in 0..6 {
        let next = breaker.poll_timeout().expect("no state waits for ever");
        breaker.handle_timeout(&next);
        // Extra calls are harmless.
        breaker.handle_timeout(&next);
    }
    let changes: Vec<_> = events.take().map(|event| (event.to, event.until.map(seconds))).collect();
    let (open, half_open) = (StateKind::Open, StateKind::HalfOpen);
    let untils = [10, 13, 23, 26, 36, 39, 49].map(Some);
    assert_eq!(
        changes,
        [open, half_open, open, half_open, open, half_open, open].into_iter().zip(untils).collect::<Vec<_>>()
    );
}

// Events

#[test]
fn each_change_yields_one_event_with_the_counts_from_before_it() {
    let events = Events::new();
    let rate = FailureRate::new(Ratio::percent(50), 4).expect("a good rate");
    let breaker = observed(touchy().with_trip(rate).with_trials(2, 4), &events);
    for failed in [false, true, false, true] {
        let permit = breaker.try_acquire(at(1)).expect("closed");
        permit.record(verdict(failed));
    }
    for failed in [false, true, false] {
        let permit = breaker.try_acquire(at(11)).expect("a probe");
        permit.record(verdict(failed));
    }
    let of = |from, to, generation, failures, calls, until| Transition {
        from,
        to,
        generation,
        reopened: 0,
        counts: Counts { calls, failures, slow: 0 },
        until,
    };
    let expected = [
        of(StateKind::Closed, StateKind::Open, 1, 2, 4, Some(at(11))),
        of(StateKind::Open, StateKind::HalfOpen, 2, 0, 0, Some(at(21))),
        of(StateKind::HalfOpen, StateKind::Closed, 3, 1, 3, None),
    ];
    assert_eq!(events.take().collect::<Vec<_>>(), expected);
}

#[test]
fn each_transition_says_how_often_in_a_row_the_breaker_has_reopened() {
    let events = Events::new();
    let breaker = observed(touchy(), &events);
    trip(&breaker, at(0));
    for again in 1..=2 {
        breaker.try_acquire(at(again * 10)).expect("a probe").failure();
    }
    breaker.try_acquire(at(30)).expect("a probe").success();
    breaker.try_acquire(at(30)).expect("closed").failure();
    let reopened: Vec<_> = events.take().map(|event| (event.to, event.reopened)).collect();
    let (open, half_open, closed) = (StateKind::Open, StateKind::HalfOpen, StateKind::Closed);
    let expected =
        [(open, 0), (half_open, 0), (open, 1), (half_open, 1), (open, 2), (half_open, 2), (closed, 0), (open, 0)];
    assert_eq!(reopened, expected);
}

/// An observer that asks the breaker, and changes it, from within the event.
struct Nosy<'a> {
    breaker: Cell<Option<&'a CircuitBreaker<Local, ConsecutiveFailures, Self>>>,
    seen: Cell<(u32, Option<StateKind>)>,
}

impl Observer<Transition> for Nosy<'_> {
    fn observe(&self, event: &Transition) {
        let Some(breaker) = self.breaker.get() else { return };
        self.seen.set((self.seen.get().0 + 1, Some(breaker.state())));
        if event.to == StateKind::Open {
            breaker.isolate();
        }
    }
}

#[test]
fn an_observer_sees_the_new_state_and_may_call_back_into_the_breaker() {
    let nosy = Nosy { breaker: Cell::new(None), seen: Cell::new((0, None)) };
    let breaker = CircuitBreaker::<Local, _, _>::with_observer(valid!(Config::new().validate()), nosy);
    breaker.observer().breaker.set(Some(&breaker));
    for _ in 0..5 {
        breaker.try_acquire(at(0)).expect("closed").failure();
    }
    assert_eq!(breaker.observer().seen.get(), (2, Some(StateKind::Isolated)));
    assert_eq!(breaker.state(), StateKind::Isolated);
}

// The clock

#[test]
fn a_closed_breaker_that_counts_calls_never_reads_the_clock_before_it_opens() {
    let clock = RunningClock::new(SECOND);
    let rate = FailureRate::new(Ratio::percent(50), 10).expect("a good rate");
    let (consecutive, rate) = (breaker(Config::new()), breaker(Config::new().with_trip(rate)));
    for _ in 0..4 {
        consecutive.try_acquire(&clock).expect("closed").success();
        consecutive.try_acquire(&clock).expect("closed").failure();
        rate.try_acquire(&clock).expect("closed").failure();
        drop(rate.try_acquire(&clock));
    }
    assert_eq!(clock.readings.get(), 0);
    trip(&consecutive, &clock);
    assert_eq!(clock.readings.get(), 2, "one for the trip, one for the rejection");
}

#[test]
fn only_the_failures_of_a_failure_meter_read_the_clock() {
    let clock = RunningClock::new(SECOND);
    let meter = FailureMeter::new(10, HOUR).expect("a good meter");
    let breaker = breaker(Config::new().with_trip(meter));
    for _ in 0..3 {
        breaker.try_acquire(&clock).expect("closed").success();
        breaker.try_acquire(&clock).expect("closed").failure();
        breaker.try_acquire(&clock).expect("closed").success();
    }
    assert_eq!(clock.readings.get(), 3);
}

#[test]
fn a_condition_that_asks_how_long_calls_take_costs_two_readings_a_call() {
    let clock = RunningClock::new(Duration::from_millis(1));
    let breaker = breaker(touchy().with_trip(SlowInARow { threshold: 9, limit: Span::of(SECOND) }));
    type Counted<'a> = Permit<'a, Local, SlowInARow, (), &'a RunningClock>;
    let ends: [fn(Counted<'_>); 4] =
        [|call| call.success(), |call| call.failure(), |call| call.ignore(), |call| drop(call)];
    for end in ends {
        end(breaker.try_acquire(&clock).expect("closed"));
    }
    assert_eq!(clock.readings.get(), 2 + 2 + 2 + 1, "an abandoned call counts as nothing, however long it took");
    assert_eq!(breaker.snapshot(&at(0)).counts, Counts::default(), "none took longer than a millisecond");
}

/// A condition that takes it amiss to be asked without the time it wants, or whether it is well where a success counts by its time. Of
/// nothing it wants to know how long it took.
#[derive(Clone, Copy, Debug)]
struct Punctual {
    successes: bool,
}

impl Trip for Punctual {
    type Meter = InARow;

    fn record(&self, meter: &mut InARow, sample: Sample, now: Option<Instant>) -> Option<bool> {
        assert_eq!((now.is_some(), sample.took), (self.wants_time(sample.failed), Span::ZERO));
        meter.0 += 1;
        Some(false)
    }

    fn is_healthy(&self, meter: &InARow) -> bool {
        assert!(!self.successes);
        meter.0 == 1
    }

    fn counts(&self, meter: &InARow, _: Option<Instant>) -> Counts {
        Counts { calls: meter.0 as u32, failures: 0, slow: 0 }
    }

    fn wants_time(&self, failed: bool) -> bool {
        failed || self.successes
    }
}

#[test]
fn a_condition_that_wants_the_time_is_not_asked_without_and_no_other_outcome_reads_the_clock() {
    for (successes, recorded, readings) in [(false, [1, 1, 2], [0, 0, 1]), (true, [1, 2, 3], [1, 2, 3])] {
        let clock = RunningClock::new(SECOND);
        let breaker = breaker(Config::new().with_trip(Punctual { successes }));
        let seen = || (breaker.snapshot(&at(0)).counts.calls, clock.readings.get());
        breaker.try_acquire(&clock).expect("closed").success();
        breaker.try_acquire(&clock).expect("closed").ignore();
        drop(breaker.try_acquire(&clock));
        assert_eq!(seen(), (recorded[0], readings[0]));
        breaker.try_acquire(&clock).expect("closed").success();
        assert_eq!(seen(), (recorded[1], readings[1]), "now it is well");
        breaker.try_acquire(&clock).expect("closed").failure();
        assert_eq!(seen(), (recorded[2], readings[2]));
    }
}

#[test]
fn no_operation_reads_the_clock_more_than_once() {
    let config = touchy().with_abandoned(Abandoned::FailureAfter(SECOND));
    reads_the_clock_once(config);
    reads_the_clock_once(config.with_trip((ConsecutiveFailures::new(1).expect("one"), SLOW)));
    reads_the_clock_once(
        config.with_trip((ConsecutiveFailures::new(1).expect("one"), SLOW)).with_abandoned(Abandoned::Failure),
    );
}

const SLOW: SlowInARow = SlowInARow { threshold: 1, limit: Span::of(SECOND) };

fn reads_the_clock_once<T: Copy + Trip>(config: Config<T>) {
    let clock = RunningClock::new(Duration::from_millis(1));
    let breaker = breaker(config);
    let once = |what: &str, operation: &mut dyn FnMut()| {
        let before = clock.readings.get();
        operation();
        assert!(clock.readings.get() - before <= 1, "{what}: {} readings", clock.readings.get() - before);
    };
    let mut held = None;
    once("admission", &mut || held = breaker.try_acquire(&clock).ok());
    once("trip", &mut || held.take().expect("admitted").failure());
    once("rejection", &mut || assert!(breaker.try_acquire(&clock).is_err()));
    clock.now.set(at(11));
    once("open to half-open", &mut || held = breaker.try_acquire(&clock).ok());
    once("ignored probe", &mut || held.take().expect("a probe").ignore());
    once("half-open by hand", &mut || breaker.half_open(&clock));
    once("probe", &mut || forget(breaker.try_acquire(&clock)));
    clock.now.set(at(1_000));
    once("half-open to open to half-open", &mut || held = breaker.try_acquire(&clock).ok());
    once("verdict", &mut || held.take().expect("a probe").failure());
    once("timeout", &mut || breaker.handle_timeout(&clock));
    once("snapshot", &mut || assert_eq!(breaker.snapshot(&clock).state, StateKind::Open));
}

/// A breaker that fails the test where it would hang it.
fn never_in_circles<T: Copy + Trip>(config: Config<T>) -> CircuitBreaker<Local, T, impl Observer<Transition>> {
    let changes = Cell::new(0);
    let count = move |_: &Transition| {
        changes.set(changes.get() + 1);
        assert!(changes.get() < 100, "the breaker runs in circles");
    };
    CircuitBreaker::with_observer(config.validate().expect("a good configuration"), count)
}

#[test]
fn a_period_shorter_than_a_reading_of_the_clock_does_not_hold_a_call_up() {
    let clock = RunningClock::new(Duration::from_micros(1));
    let breaker = never_in_circles(touchy().with_open_for(Duration::from_nanos(1)));
    breaker.try_acquire(&clock).expect("closed").failure();
    assert!(breaker.try_acquire(&clock).expect("the period is over").is_probe());
}

#[test]
fn an_open_period_of_zero_does_not_hold_a_call_up() {
    const PERIODS: &[Duration] = &[SECOND, Duration::ZERO];
    let breaker = never_in_circles(growing(Backoff::table(PERIODS), 0));
    trip(&breaker, at(0));
    breaker.try_acquire(at(1)).expect("a probe").failure();
    assert!(breaker.try_acquire(at(2)).expect("the period of zero is over").is_probe());
}

#[test]
fn full_jitter_at_its_lowest_does_not_hold_a_call_up() {
    // A thousandth of the instants draws a period of zero.
    let periods = Backoff::constant(Duration::from_nanos(999)).with_jitter(Jitter::Full);
    for nanos in 0..20_000 {
        let breaker = never_in_circles(growing(periods, 0));
        breaker.open_until(Instant::START);
        assert!(breaker.try_acquire(Instant::from_nanos(nanos)).expect("the period is over").is_probe());
    }
}

#[test]
fn on_a_clock_that_stands_still_an_open_breaker_stays_open_and_a_half_open_one_still_decides() {
    let breaker = breaker(touchy());
    trip(&breaker, at(5));
    for _ in 0..1_000 {
        assert_eq!(breaker.try_acquire(at(5)).expect_err("open").retry_at(), Some(at(15)));
    }
    breaker.try_acquire(at(15)).expect("a probe").failure();
    assert_eq!(breaker.snapshot(&at(15)).until, Some(at(25)));
    breaker.try_acquire(at(25)).expect("a probe").success();
    assert_eq!(breaker.state(), StateKind::Closed);
}

#[test]
fn a_clock_that_steps_back_an_hour_changes_nothing_but_how_long_the_state_lasts() {
    let breaker = breaker(touchy().with_abandoned(Abandoned::FailureAfter(SECOND)));
    let clock = ManualClock::new();
    clock.set(at(3_600));
    let old = breaker.try_acquire(&clock).expect("closed");
    clock.set(at(0));
    drop(old);
    assert_eq!(breaker.state(), StateKind::Closed, "a call that took less than no time did not hang");

    clock.set(at(3_600));
    trip(&breaker, &clock);
    clock.set(at(0));
    assert_eq!(breaker.try_acquire(&clock).expect_err("open").retry_at(), Some(at(3_610)));
    clock.set(at(3_610));
    let probe = breaker.try_acquire(&clock).expect("a probe");
    clock.set(at(10));
    assert_eq!(breaker.try_acquire(&clock).expect_err("probes out").retry_at(), Some(at(3_620)));
    probe.failure();
    assert_eq!(breaker.snapshot(&clock).until, Some(at(20)), "counted from the clock as it is now");
}

#[test]
fn after_a_jump_of_a_century_one_call_catches_up_and_is_admitted() {
    let events = Events::new();
    let breaker = observed(touchy(), &events);
    let clock = ManualClock::new();
    trip(&breaker, &clock);
    clock.advance(CENTURY);
    forget(breaker.try_acquire(&clock));
    clock.advance(CENTURY);
    assert!(breaker.try_acquire(&clock).expect("open and half-open again").is_probe());
    let states: Vec<_> = events.take().map(|event| event.to).collect();
    let (open, half_open) = (StateKind::Open, StateKind::HalfOpen);
    assert_eq!(states, [open, half_open, open, half_open]);
}

#[test]
fn an_open_period_of_duration_max_lasts_until_it_is_ended_by_hand() {
    for now in [Instant::START, at(1), Instant::MAX] {
        let breaker = never_in_circles(touchy().with_open_for(Duration::MAX).with_half_open_for(Duration::MAX));
        trip(&breaker, now);
        assert_eq!((breaker.poll_timeout(), breaker.snapshot(&now).until), (None, None));
        assert_eq!(breaker.try_acquire(Instant::MAX).expect_err("open").retry_at(), None);
        breaker.handle_timeout(&Instant::MAX);
        assert_eq!(breaker.state(), StateKind::Open);
        breaker.open_until(Instant::MAX);
        assert!(breaker.try_acquire(Instant::MAX).is_err());
        breaker.open_until(now);
        // At the clock's very end, "now" and "never" are the same instant.
        assert_eq!(breaker.try_acquire(now).is_ok(), now != Instant::MAX);
        breaker.reset();
        breaker.try_acquire(now).expect("closed").success();
    }
}

#[test]
fn spans_of_duration_max_overflow_nowhere() {
    let periods =
        Backoff::exponential(Duration::MAX).with_cap(Duration::MAX).with_jitter(Jitter::Proportional(Ratio::ONE));
    let config = growing(periods, 0).with_abandoned(Abandoned::FailureAfter(Duration::MAX));
    for now in [Instant::START, at(1), Instant::from_nanos(u64::MAX - 1), Instant::MAX] {
        let breaker = never_in_circles(config);
        drop(breaker.try_acquire(now));
        assert_eq!(breaker.state(), StateKind::Closed);
        breaker.try_acquire(now).expect("closed").record(Verdict::TRANSIENT.with_retry_after(Duration::MAX));
        assert_eq!(breaker.state(), StateKind::Open);
        breaker.open_until(Instant::START);
        breaker.try_acquire(now).expect("a probe").record(Verdict::TRANSIENT.with_retry_after(CENTURY * 5));
        assert_eq!(breaker.state(), StateKind::Open);
    }
}

// The open period

#[test]
fn the_open_period_grows_with_each_reopening_up_to_its_cap_and_starts_over_once_closed() {
    let periods = Backoff::exponential(SECOND).with_cap(10 * SECOND).with_jitter(Jitter::None);
    let breaker = breaker(growing(periods, 0));
    let mut now = at(0);
    for round in 0..2 {
        breaker.try_acquire(now).expect("closed").failure();
        // 300 reopenings: the counter of them has 8 bits, and stops there.
        for reopened in 0..300 {
            let expected = [1, 2, 4, 8].get(reopened).copied().unwrap_or(10);
            let until = now.saturating_add(expected * SECOND);
            assert_eq!(breaker.snapshot(&now).until, Some(until), "round {round}, reopened {reopened} times");
            now = until;
            breaker.try_acquire(now).expect("a probe").failure();
        }
        now = breaker.poll_timeout().expect("open");
        breaker.try_acquire(now).expect("a probe").success();
    }
}

#[test]
fn jitter_spreads_the_open_period_but_not_beyond_the_cap() {
    let periods =
        Backoff::constant(10 * SECOND).with_cap(11 * SECOND).with_jitter(Jitter::Proportional(Ratio::percent(50)));
    let period = |seed, nanos| {
        let now = Instant::from_nanos(nanos);
        let breaker = breaker(growing(periods, seed));
        breaker.try_acquire(now).expect("closed").failure();
        breaker.poll_timeout().expect("open").saturating_duration_since(now)
    };
    let spans: Vec<_> = (0..1_000).map(|seed| period(seed, 0)).collect();
    assert!(spans.iter().all(|span| (5 * SECOND..=11 * SECOND).contains(span)));
    assert!(spans.iter().any(|span| *span < 6 * SECOND) && spans.contains(&(11 * SECOND)));
    assert_eq!(period(7, 0), period(7, 0), "the same seed at the same time");
    assert_ne!(period(7, 0), period(8, 0), "two devices that failed together");
    assert_ne!(period(7, 0), period(7, 1), "two openings of one device");
}

#[test]
fn a_retry_after_makes_the_open_period_longer_but_never_shorter() {
    for (hint, expected) in [(Duration::ZERO, 10), (9 * SECOND, 10), (11 * SECOND, 11), (HOUR, 3_600)] {
        let breaker = breaker(touchy());
        breaker.try_acquire(at(0)).expect("closed").record(Verdict::PERMANENT.with_retry_after(hint));
        assert_eq!(breaker.snapshot(&at(0)).until, Some(at(expected)), "from closed");
        breaker.open_until(at(0));
        breaker.try_acquire(at(0)).expect("a probe").record(Verdict::TRANSIENT.with_retry_after(hint));
        assert_eq!(breaker.snapshot(&at(0)).until, Some(at(expected)), "from half-open");
    }
}

#[test]
fn an_open_period_of_zero_makes_the_next_call_a_probe_where_half_open_has_its_own_deadline() {
    let breaker = never_in_circles(touchy().with_open_for(Duration::ZERO).with_half_open_for(SECOND));
    for now in 0..10 {
        breaker.reset();
        trip_once(&breaker, at(now));
        assert_eq!(breaker.state(), StateKind::Open);
        // At the same instant.
        let probe = breaker.try_acquire(at(now)).expect("half-open at once");
        assert!(probe.is_probe());
        assert!(breaker.try_acquire(at(now)).is_err(), "the only probe is out");
        probe.success();
        assert_eq!(breaker.state(), StateKind::Closed);
    }
    let breaker = never_in_circles(touchy().with_open_for(Duration::ZERO).without_half_open_deadline());
    trip_once(&breaker, at(0));
    assert!(breaker.try_acquire(at(0)).expect("half-open at once").is_probe());
}

fn trip_once<T: Copy + Trip, O: Observer<Transition>>(breaker: &CircuitBreaker<Local, T, O>, now: Instant) {
    breaker.try_acquire(now).expect("closed").failure();
}

#[test]
fn a_verdict_that_opens_does_so_at_once_for_at_least_as_long_as_it_says() {
    let verdicts = [Verdict::SUCCESS, Verdict::TRANSIENT, Verdict::PERMANENT, Verdict::IGNORED];
    for (verdict, wait) in verdicts.into_iter().flat_map(|verdict| [0, 9, 10, 11, 3_600].map(|wait| (verdict, wait))) {
        let breaker = breaker(Config::new().with_open_for(10 * SECOND));
        let banned = verdict.with_opening().with_retry_after(Duration::from_secs(wait));
        let until = Some(at(wait.max(10)));
        breaker.try_acquire(at(0)).expect("closed").record(banned);
        assert_eq!((breaker.state(), breaker.poll_timeout()), (StateKind::Open, until), "{verdict:?}");
        breaker.half_open(&at(0));
        breaker.try_acquire(at(0)).expect("a probe").record(banned);
        assert_eq!((breaker.state(), breaker.poll_timeout()), (StateKind::Open, until), "{verdict:?}");
        assert_eq!(breaker.snapshot(&at(0)).reopened, 1);
    }
}

#[test]
fn a_verdict_that_opens_is_told_with_its_own_outcome_among_the_counts() {
    let events = Events::new();
    let rate = FailureRate::new(Ratio::percent(100), 40).expect("a good rate");
    let breaker = observed(Config::new().with_trip(rate), &events);
    breaker.try_acquire(at(0)).expect("closed").success();
    breaker.try_acquire(at(0)).expect("closed").record(Verdict::PERMANENT.with_opening());
    let counts = events.take().map(|event| event.counts).collect::<Vec<_>>();
    assert_eq!(counts, [Counts { calls: 2, failures: 1, slow: 0 }]);
}

#[test]
fn an_open_time_is_computed_from_the_counts_the_reopenings_and_the_time() {
    fn open_time(opening: &Opening) -> Duration {
        assert_eq!(opening.configured, Span::of(10 * SECOND));
        let Counts { calls, failures, slow } = opening.counts;
        let minute = u32::try_from(seconds(opening.at) / 60).expect("early");
        calls * Duration::from_secs(1_000)
            + failures * Duration::from_secs(100)
            + slow * 10 * SECOND
            + u32::from(opening.reopened) * SECOND
            + minute * HOUR
    }
    let breaker = breaker(touchy().with_trials(2, 3).with_open_time(open_time).with_half_open_for(HOUR));
    breaker.try_acquire(at(0)).expect("closed").failure();
    assert_eq!(breaker.poll_timeout(), Some(at(1_100)));
    breaker.half_open(&at(60));
    breaker.try_acquire(at(60)).expect("a probe").success();
    breaker.try_acquire(at(60)).expect("a probe").record(Verdict::SUCCESS.with_slow());
    breaker.try_acquire(at(60)).expect("a probe").failure();
    assert_eq!(breaker.poll_timeout(), Some(at(60 + 3_000 + 100 + 10 + 1 + 3_600)));
    // The failure's own word, where it asks for longer.
    breaker.half_open(&at(0));
    breaker.try_acquire(at(0)).expect("a probe").record(Verdict::TRANSIENT.with_opening().with_retry_after(24 * HOUR));
    assert_eq!(breaker.poll_timeout(), Some(at(24 * 3_600)));
}

#[test]
fn a_computed_open_time_of_zero_does_not_hold_a_call_up() {
    for config in [touchy(), touchy().with_half_open_for(SECOND)] {
        let breaker = never_in_circles(config.with_open_time(|_| Duration::ZERO));
        trip_once(&breaker, at(0));
        assert!(breaker.try_acquire(at(0)).expect("the period of zero is over").is_probe());
    }
    let breaker = never_in_circles(touchy().with_open_time(|_| Duration::MAX));
    trip_once(&breaker, at(1));
    assert_eq!(breaker.poll_timeout(), None);
}

// Abandoned calls

#[test]
fn an_abandoned_call_is_a_failure_where_the_configuration_says_so() {
    let breaker = breaker(touchy().with_abandoned(Abandoned::Failure));
    drop(breaker.try_acquire(at(0)));
    assert_eq!(breaker.state(), StateKind::Open);
    drop(breaker.try_acquire(at(10)));
    assert_eq!((breaker.state(), breaker.poll_timeout()), (StateKind::Open, Some(at(20))), "an abandoned probe too");
}

#[test]
fn an_abandoned_call_that_ran_for_longer_than_the_limit_is_a_failure_and_not_before() {
    let breaker = breaker(touchy().with_abandoned(Abandoned::FailureAfter(SECOND)));
    let clock = ManualClock::new();
    let abandon_after = |span| {
        let permit = breaker.try_acquire(&clock).expect("admitted");
        clock.advance(span);
        drop(permit);
        breaker.state()
    };
    assert_eq!(abandon_after(Duration::ZERO), StateKind::Closed);
    assert_eq!(abandon_after(SECOND), StateKind::Closed);
    assert_eq!(abandon_after(SECOND + Duration::from_nanos(1)), StateKind::Open);
    clock.advance(10 * SECOND);
    assert_eq!(abandon_after(SECOND), StateKind::HalfOpen);
    assert_eq!(abandon_after(2 * SECOND), StateKind::Open);
}

#[test]
fn a_dependency_that_hangs_behind_an_outer_timeout_opens_the_breaker() {
    let breaker = breaker(Config::new().with_abandoned(Abandoned::FailureAfter(SECOND)));
    let clock = ManualClock::new();
    let reached = (0..50).filter(|_| {
        let permit = breaker.try_acquire(&clock);
        clock.advance(2 * SECOND);
        permit.is_ok()
    });
    // 5 trip it; then, each minute or so, one probe goes out, hangs, and reopens.
    assert_eq!(reached.count(), 5 + 1);
}

#[test]
fn an_abandoned_call_of_an_older_generation_is_late_whatever_it_would_count_as() {
    for abandoned in [Abandoned::Ignored, Abandoned::Failure, Abandoned::FailureAfter(Duration::ZERO)] {
        let clock = ManualClock::new();
        let breaker = breaker(touchy().with_abandoned(abandoned));
        let old = breaker.try_acquire(&clock).expect("closed");
        breaker.reset();
        clock.advance(HOUR);
        drop(old);
        assert_eq!(breaker.state(), StateKind::Closed, "{abandoned:?}");
    }
}

// In a pipeline

#[test]
fn in_a_pipeline_the_classifier_says_what_a_result_counts_as() {
    let executor = VirtualExecutor::new();
    let rate = FailureRate::new(Ratio::percent(100), 40).expect("a good rate");
    let events = Recorder::<Transition, 4>::new();
    let breaker = observed_totals(Config::new().with_trip((SlowInARow { threshold: 3, ..SLOW }, rate)), &events);
    let pipeline = Pipeline::new(&executor).layer(&breaker).classify(|result: Result<&u32, &u32>| match result {
        Ok(503) => Verdict::TRANSIENT,
        Ok(206) => Verdict::SUCCESS.with_slow(),
        Err(404) => Verdict::IGNORED,
        Err(429) => Verdict::PERMANENT.with_opening().with_retry_after(HOUR),
        result => ErrIsFailure.classify(result),
    });
    let call = |status: Result<u32, u32>, takes: Duration| {
        let call = pipeline.call(async |_| {
            (&executor).sleep_until(executor.now().saturating_add(takes)).await;
            status
        });
        assert!(executor.run(call).expect("it ends").is_ok() == status.is_ok());
    };
    let millis = Duration::from_millis;
    call(Ok(200), SECOND);
    call(Ok(503), millis(0));
    call(Err(404), 5 * SECOND);
    call(Ok(206), millis(0));
    call(Ok(200), millis(1_001));
    assert_eq!(breaker.snapshot(&&executor).counts, Counts { calls: 2, failures: 0, slow: 2 });
    call(Err(429), millis(0));
    let totals = breaker.observer();
    assert_eq!((totals.successes(), totals.failures(), totals.ignored(), totals.abandoned()), (3, 2, 1, 0));
    let until = executor.now().saturating_add(HOUR);
    assert_eq!((breaker.state(), breaker.poll_timeout()), (StateKind::Open, Some(until)));
}

#[test]
fn in_a_pipeline_slow_calls_open_the_breaker_by_the_clock() {
    let executor = VirtualExecutor::new();
    let breaker = breaker(Config::new().with_trip(SlowInARow { threshold: 3, ..SLOW }));
    let sluggish = [Step::SucceedAfter(Duration::from_millis(1_500))];
    let service = Script::new(&sluggish);
    let pipeline = Pipeline::new(&executor).layer(&breaker);
    let through = (0..10).filter(|_| {
        let result = executor.run(pipeline.call(|_| service.call(&executor)));
        result.expect("it ends").is_ok()
    });
    assert_eq!((through.count(), breaker.state()), (3, StateKind::Open));
}

fn observed_totals<T: Copy + Trip>(
    config: Config<T>,
    events: &Recorder<Transition, 4>,
) -> CircuitBreaker<Local, T, Totals<Local, &Recorder<Transition, 4>>> {
    CircuitBreaker::with_observer(config.validate().expect("a good configuration"), Totals::new(events))
}

// By hand

#[test]
fn an_isolated_breaker_rejects_until_told_otherwise_and_a_disabled_one_never_opens() {
    let breaker = breaker(touchy());
    breaker.isolate();
    let rejected = breaker.try_acquire(Instant::MAX).expect_err("isolated");
    assert_eq!(
        (rejected.policy(), rejected.reason(), rejected.retry_at()),
        (Policy::CircuitBreaker, Reason::Isolated, None)
    );
    assert_eq!(breaker.poll_timeout(), None);
    breaker.disable();
    for _ in 0..1_000 {
        breaker.try_acquire(at(0)).expect("disabled").failure();
    }
    assert_eq!((breaker.state(), breaker.snapshot(&at(0)).counts), (StateKind::Disabled, Counts::default()));
}

#[test]
fn metrics_only_reports_each_trip_once_and_never_rejects() {
    let events = Events::new();
    let breaker = observed(Config::new(), &events);
    breaker.observe_only();
    events.take().for_each(drop);
    for _ in 0..3 {
        for _ in 0..20 {
            breaker.try_acquire(at(0)).expect("metrics only").failure();
        }
        breaker.try_acquire(at(0)).expect("metrics only").success();
    }
    let would_have = Transition {
        from: StateKind::MetricsOnly,
        to: StateKind::Open,
        generation: 1,
        reopened: 0,
        counts: Counts { calls: 5, failures: 5, slow: 0 },
        until: None,
    };
    assert_eq!(events.take().collect::<Vec<_>>(), [would_have; 3]);
    assert_eq!(breaker.state(), StateKind::MetricsOnly);
}

/// Panics over a call once it has been admitted.
struct Touchy;

impl Observer<Transition> for Touchy {
    fn observe(&self, _: &Transition) {}

    fn called(&self, called: Called) {
        assert_ne!(called, Called::Admitted, "touchy");
    }
}

#[test]
fn an_observer_that_panics_over_a_probe_does_not_keep_its_slot() {
    use core::panic::AssertUnwindSafe;
    use std::panic::catch_unwind;
    let config = Config::new().with_trials(1, 1).validate().expect("it makes sense");
    let clock = ManualClock::new();
    let breaker = CircuitBreaker::<Local, _, _>::with_observer(config, Touchy);
    breaker.half_open(&clock);
    for _ in 0..3 {
        assert!(catch_unwind(AssertUnwindSafe(|| breaker.try_acquire(&clock).map(drop))).is_err());
        assert_eq!(breaker.snapshot(&clock).probes, 0);
        let executor = VirtualExecutor::new();
        let pipeline = Pipeline::new(&executor).layer(&breaker);
        let call = || executor.run(pipeline.call(|_| core::future::ready(Ok::<_, ()>(()))));
        assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
        assert_eq!(breaker.snapshot(&clock).probes, 0);
    }
}

#[test]
fn a_dry_run_tells_of_its_counts_and_again_after_each_recovery() {
    let events = Events::new();
    let breaker = observed(Config::new().with_trip((SLOW, ConsecutiveFailures::DEFAULT)), &events);
    breaker.observe_only();
    events.take().for_each(drop);
    for _ in 0..3 {
        breaker.try_acquire(at(0)).expect("metrics only").record(Verdict::TRANSIENT.with_slow());
        breaker.try_acquire(at(0)).expect("metrics only").record(Verdict::SUCCESS.with_slow());
        breaker.try_acquire(at(0)).expect("metrics only").success();
    }
    let told: Vec<_> = events.take().map(|event| (event.from, event.to, event.counts)).collect();
    assert_eq!(told, [(StateKind::MetricsOnly, StateKind::Open, Counts { calls: 1, failures: 0, slow: 1 }); 3]);
}

#[test]
fn a_dry_run_tells_of_other_settings_anew() {
    let (events, clock) = (Recorder::<Transition, 4>::new(), ManualClock::new());
    let settings = |window| {
        let half = FailureRate::new(Ratio::percent(50), window).and_then(|rate| rate.with_minimum_calls(1));
        Config::new().with_trip(half.expect("it makes sense")).validate().expect("they make sense")
    };
    let breaker = CircuitBreaker::<Live<Local>, _, _>::with_observer(settings(6), &events);
    breaker.observe_only();
    let report = |failed: bool| {
        breaker.try_acquire(&clock).expect("a dry run admits all").record(verdict(failed));
        events.take().filter(|event| event.to == StateKind::Open).count()
    };
    assert_eq!([true, true, false, false].map(report), [1, 0, 0, 0], "half of the last six failed, all the time");
    // None of the last two did; the window of a single call forgets the rest.
    breaker.reconfigure(settings(2), &clock);
    assert_eq!([false, true].map(report), [0, 1], "and by these, half of the last two");
}

#[test]
fn a_dry_run_tells_once_of_verdicts_that_would_open_until_one_that_would_not() {
    let events = Events::new();
    let meter = FailureMeter::new(10, HOUR).expect("a good meter");
    let (breaker, metered) = (observed(Config::new(), &events), observed(Config::new().with_trip(meter), &events));
    let tell = |verdicts: &[Verdict]| {
        breaker.observe_only();
        metered.observe_only();
        events.take().for_each(drop);
        for verdict in verdicts {
            breaker.try_acquire(at(0)).expect("metrics only").record(*verdict);
            metered.try_acquire(at(0)).expect("metrics only").record(*verdict);
        }
        events.take().count()
    };
    let (ban, good, bad) = (Verdict::PERMANENT.with_opening(), Verdict::SUCCESS, Verdict::TRANSIENT);
    assert_eq!(tell(&[ban]), 2);
    assert_eq!(tell(&[ban, ban, Verdict::IGNORED, ban]), 2);
    assert_eq!(tell(&[ban, good, ban, good, good, ban]), 6);
    assert_eq!(tell(&[ban, bad, ban]), 4);
    assert_eq!(tell(&[Verdict::IGNORED.with_opening(), Verdict::SUCCESS.with_opening()]), 2);
}

// Other settings

fn live<T: Copy + Trip>(config: Config<T>) -> CircuitBreaker<Live<Local>, T> {
    CircuitBreaker::new(config.validate().expect("a good configuration"))
}

fn replace<T: Copy + Trip>(breaker: &CircuitBreaker<Live<Local>, T>, config: Config<T>, now: Instant) {
    breaker.reconfigure(config.validate().expect("a good configuration"), &now);
}

#[test]
fn other_settings_keep_what_was_counted() {
    let of = |threshold| Config::new().with_trip(ConsecutiveFailures::new(threshold).expect("a threshold"));
    let breaker = live(of(5));
    for _ in 0..3 {
        breaker.try_acquire(at(0)).expect("closed").failure();
    }
    replace(&breaker, of(10), at(0));
    assert_eq!(breaker.snapshot(&at(0)).counts.failures, 3);
    for _ in 0..6 {
        breaker.try_acquire(at(0)).expect("closed").failure();
    }
    // Fewer than there are: the next failure opens.
    replace(&breaker, of(2), at(0));
    assert_eq!((breaker.state(), breaker.snapshot(&at(0)).counts.failures), (StateKind::Closed, 9));
    breaker.try_acquire(at(0)).expect("closed").failure();
    assert_eq!(breaker.state(), StateKind::Open);
}

#[test]
fn other_settings_keep_an_open_period_and_change_the_next() {
    let breaker = live(touchy());
    breaker.try_acquire(at(0)).expect("closed").failure();
    replace(&breaker, touchy().with_open_for(HOUR).with_half_open_for(5 * SECOND), at(3));
    assert_eq!(breaker.poll_timeout(), Some(at(10)));
    let probe = breaker.try_acquire(at(10)).expect("a probe");
    assert_eq!(breaker.poll_timeout(), Some(at(15)));
    replace(&breaker, touchy(), at(11));
    assert_eq!((breaker.poll_timeout(), breaker.snapshot(&at(11)).probes), (Some(at(15)), 1), "probes stay out");
    probe.failure();
    assert_eq!(breaker.poll_timeout(), Some(at(20)));
}

#[test]
fn other_settings_leave_no_half_open_breaker_waiting_for_a_report_that_cannot_come() {
    let good = |breaker: &CircuitBreaker<Live<Local>>, count: u32| {
        (0..count).for_each(|_| breaker.try_acquire(at(0)).expect("a probe").success());
    };
    let half_open = |config: Config| {
        let breaker = live(config.without_half_open_deadline());
        breaker.half_open(&at(0));
        breaker
    };
    // Enough are good by now.
    let breaker = half_open(touchy().with_trials(5, 8));
    good(&breaker, 3);
    replace(&breaker, touchy().with_trials(3, 8), at(0));
    assert_eq!(breaker.state(), StateKind::Closed);
    // All trials are in by now.
    let breaker = half_open(touchy().with_trials(5, 8));
    good(&breaker, 2);
    breaker.try_acquire(at(0)).expect("a probe").failure();
    replace(&breaker, touchy().with_trials(3, 3), at(0));
    assert_eq!(breaker.state(), StateKind::Open);
    // More are out than may be: they report, and that decides.
    let breaker = half_open(touchy().with_trials(5, 8));
    let probes: Vec<_> = (0..4).map(|_| breaker.try_acquire(at(0)).expect("a probe")).collect();
    replace(&breaker, touchy().with_trials(2, 2), at(0));
    assert!(breaker.try_acquire(at(0)).is_err());
    probes.into_iter().for_each(Permit::success);
    assert_eq!(breaker.state(), StateKind::Closed);
}

#[test]
fn a_last_report_judged_by_settings_just_replaced_leaves_the_verdict_to_the_next_call() {
    let breaker = live(touchy().with_probes(1).without_half_open_deadline());
    breaker.half_open(&at(0));
    // As if a thread that still had settings with three trials had counted it.
    StateCell::update(&breaker.cell, |state| {
        state.trial.judge(false, false);
    });
    assert!(!breaker.try_acquire(at(0)).expect("closed by that").is_probe());
}

#[test]
fn a_call_that_nobody_timed_is_not_slow_by_settings_that_came_later() {
    let pair = |limit| {
        let slow = SlowInARow { threshold: 1, limit };
        Config::new().with_trip(slow)
    };
    let breaker = live(pair(Span::MAX));
    let clock = ManualClock::new();
    clock.set(at(3_600));
    let untimed = breaker.try_acquire(&clock).expect("closed");
    replace(&breaker, pair(Span::of(SECOND)).with_abandoned(Abandoned::FailureAfter(SECOND)), at(3_600));
    let (abandoned, timed) = (breaker.try_acquire(&clock), breaker.try_acquire(&clock).expect("closed"));
    clock.advance(SECOND);
    drop(abandoned);
    clock.advance(SECOND);
    untimed.success();
    assert_eq!(breaker.state(), StateKind::Closed);
    timed.success();
    assert_eq!(breaker.state(), StateKind::Open);
}

#[test]
fn an_observer_may_replace_the_settings_from_within_an_event() {
    struct Stretch<'a>(Cell<Option<&'a CircuitBreaker<Live<Local>, ConsecutiveFailures, Self>>>);
    impl Observer<Transition> for Stretch<'_> {
        fn observe(&self, event: &Transition) {
            let longer = Config::new().with_open_for(HOUR).validate().expect("a good configuration");
            if let (Some(breaker), StateKind::Open) = (self.0.get(), event.to) {
                breaker.reconfigure(longer, &at(0));
            }
        }
    }
    let breaker = CircuitBreaker::<Live<Local>, _, _>::with_observer(
        touchy().validate().expect("a good configuration"),
        Stretch(Cell::new(None)),
    );
    breaker.observer().0.set(Some(&breaker));
    breaker.try_acquire(at(0)).expect("closed").failure();
    breaker.try_acquire(at(10)).expect("a probe").failure();
    assert_eq!(breaker.poll_timeout(), Some(at(10 + 3_600)));
}

// Endurance

#[test]
fn after_a_hundred_thousand_successes_a_window_of_failures_opens() {
    let rate = FailureRate::new(Ratio::percent(50), 40).expect("a good rate");
    let breaker = breaker(Config::new().with_trip(rate));
    for _ in 0..100_000 {
        breaker.try_acquire(at(0)).expect("closed").success();
    }
    for failures in 1..=20 {
        assert_eq!(breaker.state(), StateKind::Closed, "before failure {failures}");
        breaker.try_acquire(at(0)).expect("closed").failure();
    }
    assert_eq!(breaker.state(), StateKind::Open, "20 of the last 40 failed");
}

#[test]
fn ten_thousand_trips_and_recoveries_leave_nothing_behind() {
    let events = Recorder::<Transition, 4>::new();
    let breaker = CircuitBreaker::<Local, _, _>::with_observer(touchy().validate().expect("good"), &events);
    let clock = ManualClock::new();
    for cycle in 0..10_000 {
        breaker.try_acquire(&clock).expect("closed").failure();
        clock.advance(10 * SECOND);
        breaker.try_acquire(&clock).expect("a probe").success();
        let states: Vec<_> = events.take().map(|event| event.to).collect();
        assert_eq!(states, [StateKind::Open, StateKind::HalfOpen, StateKind::Closed], "cycle {cycle}");
        assert_eq!(breaker.peek(), State { stamp: breaker.peek().stamp(), ..State::FRESH }, "cycle {cycle}");
    }
    assert_eq!(events.missed(), 0);
}

// The packed form

type PackedPair = (Consecutive, Consecutive);
use super::machine::{GENERATIONS, Trial};
use super::trip::{Consecutive, Drained, Ring};
use crate::cell::{Fresh, Packed};

#[test]
fn fresh_states_pack_to_zero_so_that_a_static_needs_no_initialiser() {
    assert_eq!(State::<Consecutive>::FRESH.pack(), (0, 0));
    assert_eq!(State::<Ring>::FRESH.pack(), (0, 0));
    assert_eq!(State::<Drained>::FRESH.pack(), (0, 0));
    assert_eq!(State::<PackedPair>::FRESH.pack(), (0, 0));
}

/// The state of any phase, with all that it may keep.
fn any_state<M: PackedMeter>(random: &mut Rng) -> State<M> {
    let long = u64::from(random.next()) << 32 | u64::from(random.next());
    let mut until = M::FRESH;
    until.keep(Instant::from_nanos(u64::from(random.next()) << 32 | u64::from(random.next())));
    let [reopened, in_flight, ..] = random.next().to_le_bytes();
    let trial = Trial(random.next());
    let generation = random.next() as u16 % GENERATIONS;
    let counted = M::from_bits(long & ((1 << M::BITS) - 1));
    let fresh = State::<M>::FRESH;
    let (phase, state) = match random.next() % 8 {
        0 => (Phase::CLOSED, State { meter: counted, ..fresh }),
        1 => (Phase::METRICS_ONLY, State { meter: counted, ..fresh }),
        2 => (Phase::METRICS_ONLY_MET, State { meter: counted, ..fresh }),
        3 => (Phase::ISOLATED, fresh),
        4 => (Phase::DISABLED, fresh),
        5 => (Phase::OPEN, State { meter: until, reopened, ..fresh }),
        6 => (Phase::METRICS_ONLY_OPENED, State { meter: counted, ..fresh }),
        _ => (Phase::HALF_OPEN, State { meter: until, reopened, in_flight, trial, ..fresh }),
    };
    State { stamp: Stamp::new(phase, generation), ..state }
}

fn assert_packs<M: PackedMeter + PartialEq + core::fmt::Debug>(state: State<M>) {
    let (head, tail) = state.pack();
    assert_eq!(State::unpack(head, tail), state);
    assert_eq!(head >> 63, 0, "bit 63 is the cell's own: {state:?}");
    let has_tail = matches!(state.kind(), StateKind::Open | StateKind::HalfOpen);
    assert_eq!(State::<M>::has_tail(head), has_tail, "{state:?}");
    assert!(tail == 0 || has_tail, "a tail where there should be none: {state:?}");
}

fn assert_any_state_packs<M: PackedMeter + PartialEq + core::fmt::Debug>(seed: u64) {
    let mut random = Rng::new(seed);
    for _ in 0..20_000 {
        assert_packs(any_state::<M>(&mut random));
    }
}

#[test]
fn any_state_survives_packing_and_leaves_the_cells_bit_clear() {
    assert_any_state_packs::<Consecutive>(1);
    assert_any_state_packs::<Ring>(2);
    assert_any_state_packs::<Drained>(3);
    assert_any_state_packs::<PackedPair>(4);
}

#[cfg(target_pointer_width = "64")]
#[test]
fn nothing_grows_unnoticed() {
    assert_eq!(size_of::<State<Consecutive>>(), 16);
    assert_eq!(size_of::<State<Ring>>(), 16);
    assert_eq!(size_of::<State<Drained>>(), 16);
    assert_eq!(size_of::<State<(Ring, Drained)>>(), 24);
    assert_eq!(size_of::<Config>(), 40);
    assert_eq!(size_of::<CircuitBreaker<Local>>(), 56);
    assert_eq!(size_of::<CircuitBreaker<Local, FailureRate>>(), 64);
    assert_eq!(size_of::<CircuitBreaker<Local, FailureMeter>>(), 64);
    assert_eq!(size_of::<Permit<'_, Local, ConsecutiveFailures, (), &ManualClock>>(), 32);
    assert_eq!(size_of::<Rejected>(), 16);
    assert_eq!(size_of::<Transition>(), 40);
}

// Configuration

fn refused<T: Copy + Trip>(config: Config<T>) -> &'static str {
    config.validate().err().map_or("nothing", |error| error.field())
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused_by_the_field_at_fault() {
    let good = Config::new();
    assert_eq!(refused(good), "nothing");
    assert_eq!(refused(good.with_probes(0)), "successes");
    assert_eq!(refused(good.with_trials(0, 5)), "successes");
    assert_eq!(refused(good.with_trials(6, 5)), "successes");
    assert_eq!(refused(good.with_trials(1, 0)), "successes");
    assert_eq!(refused(good.with_probes(256)), "trials");
    assert_eq!(refused(good.with_trials(1, u32::MAX)), "trials");
    assert_eq!(refused(good.with_probes(255)), "nothing");
    assert_eq!(refused(good.with_probes_at_once(0)), "probes");
    assert_eq!(refused(good.with_probes_at_once(4)), "probes");
    assert_eq!(refused(good.with_half_open_for(Duration::ZERO)), "half_open_for");
    assert_eq!(refused(good.with_open_for(Duration::ZERO)), "open_for");
    assert_eq!(refused(good.with_open_for(Duration::ZERO).with_half_open_for(SECOND)), "nothing");
    assert_eq!(refused(good.with_open_for(Duration::ZERO).without_half_open_deadline()), "nothing");
    assert_eq!(refused(good.with_open_for(Duration::MAX).without_half_open_deadline()), "nothing");
    assert_eq!(refused(good.with_open_for(Duration::from_nanos(1))), "nothing");
}

#[test]
fn growing_open_periods_that_make_no_sense_are_refused_by_the_field_at_fault() {
    let refused = |periods| match Config::new().with_open_backoff(periods, 0) {
        Ok(config) => refused(config),
        Err(error) => error.field(),
    };
    assert_eq!(refused(Backoff::new()), "nothing");
    assert_eq!(refused(Backoff::none()), "open_for");
    assert_eq!(refused(Backoff::table(&[])), "table");
    assert_eq!(refused(Backoff::table(&[Duration::ZERO, SECOND])), "open_for");
    assert_eq!(refused(Backoff::constant(Duration::ZERO)), "base");
    assert_eq!(refused(Backoff::constant(HOUR).with_cap(SECOND)), "cap");
    assert_eq!(refused(Backoff::new().with_jitter(Jitter::Proportional(Ratio::percent(101)))), "jitter");
    assert_eq!(refused(Backoff::new().with_factor(Ratio::percent(99))), "factor");
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let breaker = breaker(Config::default());
    for failures in 0..5 {
        assert_eq!((breaker.state(), breaker.snapshot(&at(0)).counts.failures), (StateKind::Closed, failures));
        breaker.try_acquire(at(0)).expect("closed").failure();
    }
    assert_eq!((breaker.state(), breaker.snapshot(&at(0)).until), (StateKind::Open, Some(at(60))));
    let probes: Vec<_> = (0..10).filter_map(|_| breaker.try_acquire(at(60)).ok()).collect();
    assert_eq!((probes.len(), breaker.snapshot(&at(60)).until), (3, Some(at(120))));
    drop(probes);
    assert_eq!(breaker.state(), StateKind::HalfOpen, "abandoned probes are neutral");
    for successes in 0..3 {
        assert_eq!((breaker.state(), breaker.snapshot(&at(60)).counts.calls), (StateKind::HalfOpen, successes));
        breaker.try_acquire(at(60)).expect("a probe").success();
    }
    assert_eq!(breaker.state(), StateKind::Closed);
}

#[test]
fn a_breaker_is_built_at_compile_time() {
    const TRIP: (ConsecutiveFailures, FailureRate) =
        (ConsecutiveFailures::DEFAULT, valid!(valid!(FailureRate::new(Ratio::percent(50), 20)).with_minimum_calls(10)));
    const PERIODS: Backoff = Backoff::exponential(SECOND).with_cap(HOUR);
    let breaker: CircuitBreaker<Local, Growing<(ConsecutiveFailures, FailureRate)>> = const {
        CircuitBreaker::new(valid!(
            valid!(Config::new().with_trip(TRIP).with_open_backoff(PERIODS, 7))
                .with_half_open_for(SECOND)
                .with_abandoned(Abandoned::FailureAfter(SECOND))
                .validate()
        ))
    };
    trip(&breaker, at(0));
}

#[cfg(feature = "critical-section")]
#[test]
fn a_breaker_in_a_static_is_shared_by_threads() {
    use crate::cell::CriticalSection;

    static BREAKER: CircuitBreaker<CriticalSection> =
        CircuitBreaker::new(valid!(Config::new().with_trip(valid!(ConsecutiveFailures::new(400))).validate()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..100).for_each(|_| BREAKER.try_acquire(at(0)).expect("closed").failure()));
        }
    });
    assert_eq!(BREAKER.state(), StateKind::Open, "no failure was lost");
}

#[test]
fn a_report_after_the_half_open_deadline_is_late_whether_or_not_anybody_noticed_the_deadline() {
    let clock = ManualClock::new();
    let breaker =
        CircuitBreaker::<Local>::new(valid!(Config::new().with_half_open_for(Duration::from_secs(10)).validate()));
    breaker.open_until(Instant::START);
    let probe = breaker.try_acquire(&clock).expect("a probe");
    clock.advance(Duration::from_secs(10));
    probe.success();
    assert_eq!(breaker.state(), StateKind::Open);
    assert_eq!(breaker.poll_timeout(), Some(Instant::START.saturating_add(Duration::from_secs(10) + OPEN_FOR)));
}

#[test]
fn what_would_have_opened_is_told_once_for_as_long_as_the_meter_is_full() {
    let (clock, events) = (ManualClock::new(), Recorder::<Transition, 8>::new());
    let meter = valid!(FailureMeter::new(2, Duration::from_secs(10)));
    let config = Config::new().with_trip(meter).validate().expect("it makes sense");
    let breaker = CircuitBreaker::<Local, _, _>::with_observer(config, &events);
    breaker.observe_only();
    events.take().for_each(drop);
    for _ in 0..6 {
        breaker.try_acquire(&clock).expect("all pass").failure();
        breaker.try_acquire(&clock).expect("all pass").success();
    }
    assert_eq!(events.take().count(), 1);
}

#[test]
fn totals_count_every_call_and_hand_transitions_on() {
    let (clock, events) = (ManualClock::new(), Recorder::<Transition, 8>::new());
    let config = valid!(Config::new().with_trip(valid!(ConsecutiveFailures::new(2))).validate());
    let breaker = CircuitBreaker::<Local, _, _>::with_observer(config, Totals::<Local, _>::new(&events));
    let held: Vec<_> = (0..5).map(|_| breaker.try_acquire(&clock).expect("it is closed")).collect();
    for (index, permit) in held.into_iter().enumerate() {
        match index {
            0 | 1 => permit.failure(), // opens
            2 => permit.success(),
            3 => permit.failure(),
            _ => drop(permit),
        }
    }
    assert!((0..3).all(|_| breaker.try_acquire(&clock).is_err()));
    let totals = breaker.observer();
    assert_eq!((totals.admitted(), totals.rejected(), totals.late()), (5, 3, 2));
    assert_eq!((totals.successes(), totals.failures(), totals.ignored(), totals.abandoned()), (0, 2, 0, 1));
    assert_eq!(events.take().map(|event| event.to).collect::<Vec<_>>(), [StateKind::Open]);
}

#[test]
fn every_call_admitted_is_told_once_as_what_became_of_it() {
    let (clock, mut random) = (ManualClock::new(), Rng::new(6));
    let config = touchy().with_abandoned(Abandoned::FailureAfter(SECOND)).validate().expect("good");
    let breaker = CircuitBreaker::<Local, _, _>::with_observer(config, Totals::<Local, _>::new(()));
    let (mut held, mut asked, mut over) = (Vec::new(), 0, 0);
    for _ in 0..20_000 {
        clock.advance(Duration::from_millis((random.next() % 900).into()));
        if held.len() < 8 {
            asked += 1;
            held.extend(breaker.try_acquire(&clock));
        }
        if held.is_empty() {
            breaker.reset();
        }
        if held.is_empty() || held.len() < 8 && random.next().is_multiple_of(2) {
            continue;
        }
        let permit: Permit<'_, _, _, _, _> = held.swap_remove(random.next() as usize % held.len());
        match random.next() % 16 {
            0 => drop(permit),
            1 => permit.ignore(),
            2 => permit.failure(),
            3 => breaker.isolate(),
            _ => permit.success(),
        }
        over += 1;
    }
    let totals = breaker.observer();
    let ended = [totals.successes(), totals.failures(), totals.ignored(), totals.abandoned(), totals.late()];
    assert!(ended.iter().all(|count| *count > 10), "{totals:?}");
    assert_eq!(ended.iter().sum::<u64>(), over);
    assert_eq!(totals.admitted(), over + held.len() as u64);
    assert_eq!(totals.admitted() + totals.rejected(), asked);
    // Switched off, it tells of nothing.
    breaker.disable();
    breaker.try_acquire(&clock).expect("disabled").success();
    assert_eq!(totals.successes(), ended[0]);
}
