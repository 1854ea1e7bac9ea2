//! What goes wrong around a breaker, as far as the other tests do not have it: see `tests/faults.md`.

use std::vec::Vec;

use super::super::machine::GENERATIONS;
use super::*;
use crate::testing::tests::{Rig, explode, explodes};

/// A half-open breaker with room for one probe, which counts an abandoned one so.
fn half_open(abandoned: Abandoned, clock: impl Clock) -> CircuitBreaker<Local> {
    let breaker = breaker(touchy().with_abandoned(abandoned));
    breaker.half_open(&clock);
    breaker
}

#[test]
fn an_operation_that_panics_as_a_probe_opens_where_the_abandoned_are_failures_and_holds_nothing() {
    let cases = [(Abandoned::Failure, StateKind::Open, 10 * SECOND), (Abandoned::Ignored, StateKind::HalfOpen, SECOND)];
    for (abandoned, state, wait) in cases {
        let rig = Rig::new();
        let breaker = half_open(abandoned, &rig);
        let pipeline = Pipeline::new(&rig).layer(&breaker);
        assert!(explodes(|| rig.run(pipeline.call(async |_| -> Result<(), ()> { explode() }))));
        let snapshot = breaker.snapshot(&rig);
        assert_eq!((snapshot.state, snapshot.probes), (state, 0), "{abandoned:?}");
        rig.advance(wait);
        assert_eq!(rig.run(pipeline.call(async |_| Ok::<_, ()>(1))), Ok(1), "{abandoned:?}");
        assert_eq!(breaker.state(), StateKind::Closed, "{abandoned:?}");
    }
}

#[test]
fn a_classifier_that_panics_over_a_probe_keeps_neither_its_slot_nor_the_breaker() {
    let rig = Rig::new();
    let breaker = half_open(Abandoned::Ignored, &rig);
    let fussy = Pipeline::new(&rig).layer(&breaker).classify(|_: Result<&u32, &()>| explode());
    for _ in 0..3 {
        assert!(explodes(|| rig.run(fussy.call(async |_| Ok(1)))));
        let snapshot = breaker.snapshot(&rig);
        assert_eq!((snapshot.state, snapshot.probes), (StateKind::HalfOpen, 0));
    }
    let pipeline = Pipeline::new(&rig).layer(&breaker);
    assert_eq!(rig.run(pipeline.call(async |_| Ok::<_, ()>(1))), Ok(1));
    assert_eq!(breaker.state(), StateKind::Closed);
}

#[test]
fn a_minimum_above_the_traffic_never_opens() {
    let rate = TimeBased::<10>::new(Ratio::percent(50), 10 * SECOND).expect("a good rate");
    let breaker = CircuitBreaker::<Local, TimeBased<10>>::new(
        Config::new()
            .with_trip(rate.with_minimum_calls(u32::MAX).expect("any minimum"))
            .validate()
            .expect("a good configuration"),
    );
    for _ in 0..10_000 {
        breaker.try_acquire(at(1)).expect("it never opens").failure();
    }
    assert_eq!(breaker.snapshot(&at(1)).counts.failures, 10_000);
}

#[test]
fn with_default_settings_a_permit_has_to_be_out_for_more_than_a_day_to_be_taken_for_a_current_one() {
    let breaker = breaker(Config::new());
    let old = breaker.try_acquire(at(0)).expect("closed");
    let clock = ManualClock::new();
    // It fails whenever it may be called, as soon as it may: the fastest way through the states.
    let mut opened = breaker.snapshot(&clock);
    while opened.generation < GENERATIONS - 1 {
        clock.set(opened.until.unwrap_or(Instant::START));
        for _ in 0..100 {
            let Ok(permit) = breaker.try_acquire(&clock) else { break };
            if breaker.state() == StateKind::HalfOpen {
                // A copy of the old report: it is late.
                Permit { breaker: &breaker, ticket: old.ticket, clock: &clock }.success();
            }
            permit.failure();
        }
        opened = breaker.snapshot(&clock);
        assert_eq!(opened.state, StateKind::Open);
    }
    let day = Duration::from_secs(86_400);
    assert!(clock.now().saturating_duration_since(Instant::START) > day, "{:?}", clock.now());
    // With the next change the numbers begin anew.
    clock.set(opened.until.expect("its period"));
    breaker.handle_timeout(&clock);
    assert_eq!((breaker.state(), breaker.snapshot(&clock).generation), (StateKind::HalfOpen, 0));
    old.failure();
    assert_eq!(breaker.state(), StateKind::Open, "taken for a probe: the price of numbers that fit a word");
}

#[test]
fn a_dependency_that_fails_half_of_the_time_for_an_hour_opens_at_most_once_an_open_period() {
    let rate = FailureRate::new(Ratio::percent(50), 20).expect("a good rate");
    let config = Config::new().with_trip(rate).with_open_for(10 * SECOND).with_probes(1);
    let cap = 60 * SECOND;
    let periods = Backoff::exponential(10 * SECOND).with_cap(cap).with_jitter(Jitter::None);
    let growing = config.with_open_backoff(periods, 0).expect("good periods");
    let steady = openings(&breaker(config));
    let fewer = openings(&breaker(growing));
    // The first one, and one for each open period that passes.
    let most = HOUR.as_secs() / 10 + 1;
    assert!((most / 4..=most).contains(&(steady.len() as u64)), "{} openings", steady.len());
    assert!(fewer.len() < steady.len(), "{} openings, {} with periods that grow", steady.len(), fewer.len());
    assert!(steady.iter().all(|period| *period == 10 * SECOND));
    assert!(fewer.iter().all(|period| *period <= cap) && fewer.contains(&(20 * SECOND)), "{fewer:?}");
}

/// How long the breaker stays open, each time in an hour of ten calls a second of which a coin decides.
fn openings<T: Copy + Trip>(breaker: &CircuitBreaker<Local, T>) -> Vec<Duration> {
    let (clock, mut coin, mut periods, mut last) = (ManualClock::new(), Rng::new(21), Vec::new(), None);
    while clock.now() < Instant::START.saturating_add(HOUR) {
        if let Ok(permit) = breaker.try_acquire(&clock) {
            if coin.next().is_multiple_of(2) { permit.failure() } else { permit.success() }
        }
        let Snapshot { state, generation, until, .. } = breaker.snapshot(&clock);
        if state == StateKind::Open && last != Some(generation) {
            last = Some(generation);
            periods.push(until.expect("its period").saturating_duration_since(clock.now()));
        }
        clock.advance(Duration::from_millis(100));
    }
    periods
}

/// Panics over the outcome that opens, or over the opening.
struct Jumpy {
    over_the_call: bool,
}

impl Observer<Transition> for Jumpy {
    fn observe(&self, _: &Transition) {
        explode();
    }

    fn called(&self, called: Called) {
        if self.over_the_call && called == Called::Recorded(Outcome::Failure) {
            explode();
        }
    }
}

#[test]
fn an_observer_that_panics_over_an_opening_leaves_the_breaker_open_all_the_same() {
    let config =
        || Config::new().with_trip(ConsecutiveFailures::new(1).expect("a threshold")).validate().expect("sense");
    for over_the_call in [true, false] {
        let clock = ManualClock::new();
        let breaker = CircuitBreaker::<Local, _, _>::with_observer(config(), Jumpy { over_the_call });
        assert!(explodes(|| breaker.try_acquire(&clock).expect("closed").failure()));
        let rejected = breaker.try_acquire(&clock).map(drop).expect_err("it is open");
        assert_eq!((rejected.reason(), breaker.state()), (Reason::Open, StateKind::Open));
    }
}
