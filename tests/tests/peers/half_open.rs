//! A breaker that is half-open: how many it lets through, whom it believes, and how it gets out again.

use core::pin::pin;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Barrier;

use failsoft_core::cell::{CellKind, Local};
use failsoft_core::circuit_breaker::{
    Abandoned, CircuitBreaker, Config, ConsecutiveFailures, CountBased, FailureRate, Snapshot, State, StateKind,
    TimeBased, Totals, Trip,
};
use failsoft_core::testing::{ManualClock, VirtualExecutor, never};
use failsoft_core::{Instant, Pipeline, Ratio, Reason};
use failsoft_tokio::{Atomic, Locked};

use crate::{SECOND, admitted_at_once, failures_to_open, panic_now, panics, poll_once};

const HALF: Ratio = Ratio::percent(50);
/// When a breaker that opened at the start lets its probes through.
const LATER: Instant = Instant::from_millis(60_000);

fn open() -> CircuitBreaker<Atomic> {
    opened(Config::new())
}

fn opened(config: Config) -> CircuitBreaker<Atomic> {
    let breaker = CircuitBreaker::new(config.validate().expect("valid"));
    failures_to_open(&breaker, &Instant::START, 9);
    breaker
}

// 3: recloser 1.4.0: half-open lets everyone through until enough have reported, which against a hanging backend is never.
// Fails if a probe were not counted when it goes out.
#[test]
fn half_open_lets_5_of_200_calls_through_at_once() {
    let breaker = opened(Config::new().with_probes(5));
    assert_eq!(admitted_at_once(&breaker, &LATER, 200), 5);

    let trip = FailureRate::new(HALF, 10).expect("valid");
    let config = Config::new().with_trip(trip).with_trials(5, 8).with_probes_at_once(5);
    let breaker = CircuitBreaker::<Atomic, _>::new(config.validate().expect("valid"));
    failures_to_open(&breaker, &Instant::START, 99);
    assert_eq!(admitted_at_once(&breaker, &LATER, 200), 5);
}

// Of the closing list: no more than its trials in one visit either, in whatever order they report. Fails if a probe that has
// reported, or one that is still out, made room for another one beyond those.
#[test]
fn half_open_judges_no_more_than_its_trials() {
    let config = Config::new().with_trials(3, 5).with_probes_at_once(2).with_full_trial();
    for reports in 0..32_u32 {
        let breaker = opened(config);
        let (mut out, mut probes, mut judged, mut most_at_once) = (VecDeque::new(), 0, 0, 0);
        loop {
            while breaker.state() != StateKind::Closed
                && let Ok(permit) = breaker.try_acquire(LATER)
            {
                out.push_back(permit);
                probes += 1;
            }
            most_at_once = most_at_once.max(out.len());
            let Some(permit) = out.pop_front() else { break };
            if reports >> judged & 1 == 0 {
                permit.failure();
            } else {
                permit.success();
            }
            judged += 1;
        }
        assert_eq!((probes, judged, most_at_once), (5, 5, 2), "{reports:05b}");
        let expected = if reports.count_ones() >= 3 { StateKind::Closed } else { StateKind::Open };
        assert_eq!(breaker.state(), expected, "{reports:05b}");
    }
}

// 6: recloser 1.4.0: failures of calls from before the trip count as those of probes, and open the breaker again. Fails
// if a report were not held against the state that had admitted it.
#[test]
fn old_failures_do_not_reopen_a_recovering_breaker() {
    type Watched = CircuitBreaker<Atomic, ConsecutiveFailures, Totals<Atomic>>;
    let config = Config::new().with_probes(2).validate().expect("valid");
    let breaker = Watched::with_observer(config, Totals::new(()));
    let old = [(); 2].map(|()| breaker.try_acquire(Instant::START).expect("closed"));
    failures_to_open(&breaker, &Instant::START, 9);
    breaker.try_acquire(LATER).expect("a probe").success();
    old.into_iter().for_each(|permit| permit.failure());
    assert_eq!(breaker.observer().late(), 2);
    breaker.try_acquire(LATER).expect("still half-open").success();
    assert_eq!(breaker.state(), StateKind::Closed);
}

// 7: failsafe 1.3.0: `is_call_permitted` asks, and makes the breaker half-open. Fails if looking changed anything.
#[test]
fn asking_changes_nothing() {
    let breaker = open();
    let before = breaker.snapshot(&Instant::START);
    for now in [Instant::START, LATER, Instant::MAX] {
        assert_eq!((breaker.state(), breaker.poll_timeout()), (StateKind::Open, Some(LATER)));
        assert_eq!(breaker.snapshot(&now), before);
        assert!(!format!("{breaker:?}").is_empty());
    }
}

// 7 and 15: failsafe 1.3.0 and tower-resilience-circuitbreaker 0.14.0: the success of a call from before the trip closes a
// half-open breaker while its probe is still out. Fails if a report were not held against the state that had admitted it.
#[test]
fn an_old_success_does_not_close_a_half_open_breaker() {
    fn check<T: Copy + Trip>(trip: T)
    where
        Locked: CellKind<State<T::Meter>>,
    {
        let config = Config::new().with_trip(trip).with_probes(1).validate().expect("valid");
        let breaker = CircuitBreaker::<Locked, _>::new(config);
        let old = [(); 3].map(|()| breaker.try_acquire(Instant::START).expect("closed"));
        failures_to_open(&breaker, &Instant::START, 99);
        let probe = breaker.try_acquire(LATER).expect("a probe");
        old.into_iter().for_each(|permit| permit.success());
        let Snapshot { state, probes, counts, .. } = breaker.snapshot(&LATER);
        assert_eq!((state, probes, counts.calls), (StateKind::HalfOpen, 1, 0));
        probe.failure();
        assert_eq!(breaker.state(), StateKind::Open);
    }
    check(ConsecutiveFailures::new(5).expect("valid"));
    check(CountBased::<1>::new(HALF, 10).expect("valid"));
    check(TimeBased::<10>::new(HALF, SECOND).expect("valid"));
}

// 9: circuitbreaker-rs 0.1.1: a probe that is cancelled or panics never gives its place back, and half-open has no other
// way out. Fails if a permit's end were not its release.
#[test]
fn probes_that_are_cancelled_or_panic_give_their_places_back() {
    let breaker = open();
    for _ in 0..6 {
        drop(breaker.try_acquire(LATER).expect("a probe"));
        assert!(panics(|| {
            let _permit = breaker.try_acquire(LATER).expect("a probe");
            panic_now();
        }));
    }
    for _ in 0..50 {
        breaker.try_acquire(LATER).expect("healthy again").success();
    }
    assert_eq!(breaker.state(), StateKind::Closed);
}

// Of the closing list: whatever happens to its probes, half-open ends. Fails if a default were without its deadline.
#[test]
fn half_open_ends_even_if_no_probe_is_ever_heard_of_again() {
    let breaker = open();
    let mut now = LATER;
    for visit in 1..=10 {
        while let Ok(permit) = breaker.try_acquire(now) {
            // Worse than dropped: leaked.
            core::mem::forget(permit);
        }
        let rejected = breaker.try_acquire(now).expect_err("all probes are out");
        assert_eq!(rejected.reason(), Reason::ProbesOut);
        // First the deadline of half-open, then the end of the open period that follows it.
        let deadline = rejected.retry_at().expect("an end");
        let rejected = breaker.try_acquire(deadline).expect_err("open again");
        assert_eq!(rejected.reason(), Reason::Open, "visit {visit}");
        now = rejected.retry_at().expect("an end");
    }
    for _ in 0..3 {
        breaker.try_acquire(now).expect("a probe").success();
    }
    assert_eq!(breaker.state(), StateKind::Closed);
}

// 10: circuitbreaker-rs 0.1.1: looks at its counter of probes and then takes one off, so that two threads take the last
// one both, and the counter wraps. By hand, as two threads would: fails if a place were given out twice.
#[test]
fn the_last_probe_is_given_out_once() {
    let breaker = opened(Config::new().with_probes(1));
    let probe = breaker.try_acquire(LATER).expect("a probe");
    for _ in 0..100 {
        assert_eq!(breaker.try_acquire(LATER).expect_err("it is out").reason(), Reason::ProbesOut);
    }
    drop(probe);
    let again = breaker.try_acquire(LATER).expect("it came back");
    assert!(breaker.try_acquire(LATER).is_err(), "once");
    again.success();
    assert_eq!(breaker.state(), StateKind::Closed);
}

// 10 as well, on two threads. Fails in the first of the rounds in which both get through, or neither.
#[test]
fn two_threads_cannot_both_take_the_last_probe() {
    const ROUNDS: u32 = 3_000;
    let breaker = opened(Config::new().with_probes(1));
    let (admitted, start, end) = (AtomicU32::new(0), Barrier::new(2), Barrier::new(2));
    let race = |is_first: bool| {
        let mut wrong = 0;
        for _ in 0..ROUNDS {
            if is_first {
                breaker.half_open(&LATER);
                admitted.store(0, Ordering::Relaxed);
            }
            start.wait();
            let probe = breaker.try_acquire(LATER);
            admitted.fetch_add(probe.is_ok().into(), Ordering::Relaxed);
            end.wait();
            wrong += u32::from(admitted.load(Ordering::Relaxed) != 1);
            // Both have looked before the next round begins.
            start.wait();
            drop(probe);
        }
        wrong
    };
    let wrong = std::thread::scope(|scope| {
        let other = scope.spawn(|| race(false));
        race(true) + other.join().expect("no panic")
    });
    assert_eq!(wrong, 0, "of {ROUNDS} rounds");
}

// 13: execution-policy 0.0.6 and rskit-resilience 0.2.0-alpha.3: one probe that is cancelled while it waits, and the breaker
// rejects for ever. Fails if dropping the future of a call did not drop its permit.
#[test]
fn a_call_that_is_cancelled_while_it_probes_gives_its_place_back() {
    let executor = VirtualExecutor::new();
    let breaker = opened(Config::new().with_probes(1));
    executor.jump_to(LATER);
    let pipeline = Pipeline::new(&executor).layer(&breaker);
    {
        let mut probe = pin!(pipeline.call(|_| never::<Result<(), ()>>()));
        assert!(poll_once(probe.as_mut()).is_pending());
        assert_eq!(breaker.snapshot(&executor).probes, 1);
    }
    for call in 0..50 {
        let result = executor.run(pipeline.call(async |_| Ok::<_, ()>(()))).expect("it ends");
        assert!(result.is_ok(), "call {call}: {result:?}");
    }
    assert_eq!(breaker.state(), StateKind::Closed);
}

// 14: tower-resilience-circuitbreaker 0.14.0: with a window of time, successes of probes fall out of it while their places
// stay taken. Fails if the probes were counted in the window.
#[test]
fn probes_count_however_far_apart_they_come() {
    let trip = TimeBased::<10>::new(HALF, Duration::from_millis(200)).expect("valid");
    let config = Config::new().with_trip(trip).with_open_for(SECOND).with_probes(3).validate().expect("valid");
    let (breaker, clock) = (CircuitBreaker::<Locked, _>::new(config), ManualClock::new());
    failures_to_open(&breaker, &clock, 99);
    clock.advance(SECOND);
    for _ in 0..3 {
        breaker.try_acquire(&clock).expect("a probe").success();
        clock.advance(Duration::from_millis(120));
    }
    assert_eq!(breaker.state(), StateKind::Closed);
}

// 14 as well: tower-resilience-circuitbreaker 0.14.0: takes 0 probes, and never recovers. Fails if that were taken.
#[test]
fn half_open_without_probes_is_refused() {
    assert!(Config::new().with_probes(0).validate().is_err());
    assert!(Config::new().with_trials(0, 5).validate().is_err());
    assert!(Config::new().with_probes_at_once(0).validate().is_err());
}

// 26: reliakit 1.1.0: half-open lets everyone through. Here what it is meant for: the smallest breaker of a small chip. Fails
// if a probe were not counted when it goes out.
#[test]
fn the_smallest_breaker_lets_3_of_1000_calls_through_at_once() {
    let config = Config::new().validate().expect("valid");
    let on_a_chip = failsoft_embassy::CircuitBreaker::<ConsecutiveFailures>::new(config);
    let alone = CircuitBreaker::<Local>::new(config);
    failures_to_open(&on_a_chip, &Instant::START, 9);
    failures_to_open(&alone, &Instant::START, 9);
    assert_eq!((admitted_at_once(&on_a_chip, &LATER, 1_000), admitted_at_once(&alone, &LATER, 1_000)), (3, 3));
}

// Of the closing list: a permit that is dropped, panicked over or never used comes back, and counts as the settings say. Fails if
// one of the ways were told from another, or a place were lost.
#[test]
fn an_abandoned_probe_counts_as_the_settings_say_and_gives_its_place_back() {
    let long = Duration::from_secs(2);
    let cases = [
        (Abandoned::Ignored, Duration::ZERO, StateKind::HalfOpen),
        (Abandoned::Ignored, long, StateKind::HalfOpen),
        (Abandoned::Failure, Duration::ZERO, StateKind::Open),
        (Abandoned::FailureAfter(SECOND), Duration::ZERO, StateKind::HalfOpen),
        (Abandoned::FailureAfter(SECOND), SECOND, StateKind::HalfOpen),
        (Abandoned::FailureAfter(SECOND), long, StateKind::Open),
    ];
    for (abandoned, after, expected) in cases {
        for way in ["dropped", "panicked", "never polled", "cancelled"] {
            let executor = VirtualExecutor::new();
            let breaker = opened(Config::new().with_probes(1).with_abandoned(abandoned));
            executor.jump_to(LATER);
            let pass = || executor.jump_to(LATER.saturating_add(after));
            let pipeline = Pipeline::new(&executor).layer(&breaker);
            let mut expected = expected;
            match way {
                "dropped" => {
                    let permit = breaker.try_acquire(&executor).expect("a probe");
                    pass();
                    drop(permit);
                }
                "panicked" => assert!(panics(|| {
                    let _permit = breaker.try_acquire(&executor).expect("a probe");
                    pass();
                    panic_now();
                })),
                "never polled" => {
                    // A future that nobody polls has asked for nothing yet.
                    let call = pipeline.call(|_| never::<Result<(), ()>>());
                    pass();
                    drop(call);
                    expected = StateKind::Open;
                    assert_eq!(breaker.snapshot(&executor).probes, 0);
                }
                _ => {
                    let mut call = Box::pin(pipeline.call(|_| never::<Result<(), ()>>()));
                    assert!(poll_once(call.as_mut()).is_pending());
                    pass();
                }
            }
            let Snapshot { state, probes, .. } = breaker.snapshot(&executor);
            assert_eq!((state, probes), (expected, 0), "{way}, {abandoned:?} after {after:?}");
        }
    }
}
