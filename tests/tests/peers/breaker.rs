//! A breaker that is closed or open: what it counts, when it opens, for how long, and what old calls may do to it.

use core::time::Duration;

use allocation_counter::measure;
use failsoft_core::cell::{CellKind, Local};
use failsoft_core::circuit_breaker::{
    AverageOfCalls, AverageOverTime, CircuitBreaker, Config, ConsecutiveFailures, CountBased, FailureMeter,
    FailureRate, State, StateKind, TimeBased, Totals, Trip,
};
use failsoft_core::testing::ManualClock;
use failsoft_core::{Clock, Instant, Ratio};
use failsoft_tokio::{Atomic, Backoff, Jitter, Locked, Tokio};

use crate::{SECOND, failures_to_open, panic_now, panics};

const HALF: Ratio = Ratio::percent(50);

fn breaker<K, T>(trip: T) -> CircuitBreaker<K, T>
where
    T: Copy + Trip,
    K: CellKind<State<T::Meter>>,
{
    CircuitBreaker::new(Config::new().with_trip(trip).validate().expect("valid"))
}

// 1: tower-resilience-circuitbreaker 0.14.0: its counters run since the last change of state, so what it calls a window is
// the whole life. Fails if successes were kept beyond the window.
#[test]
fn the_count_window_slides_after_100_000_successes() {
    for (successes, expected) in [(0, [100, 40]), (1_000, [50, 20]), (10_000, [50, 20]), (100_000, [50, 20])] {
        let large = breaker::<Locked, _>(CountBased::<4>::new(HALF, 100).expect("valid"));
        let packed = breaker::<Atomic, _>(FailureRate::new(HALF, 40).expect("valid"));
        for _ in 0..successes {
            large.try_acquire(Instant::START).expect("closed").success();
            packed.try_acquire(Instant::START).expect("closed").success();
        }
        let took =
            [failures_to_open(&large, &Instant::START, 1_000), failures_to_open(&packed, &Instant::START, 1_000)];
        assert_eq!(took, expected, "after {successes} successes");
    }
}

// 2: recloser 1.4.0: leaks its old state at each transition, and its last one when it is dropped. Fails at the first
// allocation, or at a byte that stays.
#[test]
fn ten_thousand_breakers_and_ten_thousand_trips_leave_nothing_on_the_heap() {
    let trip_and_recover = |breaker: &CircuitBreaker<Atomic, FailureRate>, clock: &ManualClock| {
        while let Ok(permit) = breaker.try_acquire(clock) {
            permit.failure();
        }
        clock.advance(SECOND);
        breaker.try_acquire(clock).expect("a probe").success();
        assert_eq!(breaker.state(), StateKind::Closed);
    };
    let trip = FailureRate::new(HALF, 2).expect("valid");
    let config = Config::new().with_trip(trip).with_open_for(SECOND).with_probes(1).validate().expect("valid");
    let clock = ManualClock::new();
    let heap = measure(|| {
        for _ in 0..10_000 {
            trip_and_recover(&CircuitBreaker::new(config), &clock);
        }
        let one = CircuitBreaker::new(config);
        for _ in 0..10_000 {
            trip_and_recover(&one, &clock);
        }
    });
    assert_eq!((heap.count_total, heap.bytes_current), (0, 0), "{heap:?}");
}

// 4: recloser 1.4.0: takes a window of no calls; its first call panics with a spin lock held, and all others spin for
// ever. Fails if a constructor takes what it can't work with.
#[test]
fn a_window_of_no_calls_is_refused() {
    let refused = [
        FailureRate::new(HALF, 0).err(),
        CountBased::<1>::new(HALF, 0).err(),
        CountBased::<1>::of_failures(0, 10).err(),
        CountBased::<1>::of_slow(HALF, SECOND, 0).err(),
        TimeBased::<4>::new(HALF, Duration::ZERO).err(),
        ConsecutiveFailures::new(0).err(),
        FailureMeter::new(0, SECOND).err(),
        AverageOfCalls::new(HALF, 0).err(),
        AverageOverTime::new(HALF, Duration::ZERO).err(),
    ];
    for (index, error) in refused.into_iter().enumerate() {
        assert!(error.is_some(), "number {index} was taken");
    }
    // The smallest that makes sense works.
    assert_eq!(
        failures_to_open(&breaker::<Atomic, _>(FailureRate::new(HALF, 1).expect("valid")), &Instant::START, 9),
        1
    );
}

// 4 as well, however the panic comes about. Fails if a lock or a slot were held over the call.
#[test]
fn a_call_that_panics_locks_nobody_out() {
    fn check<K: CellKind<State<<ConsecutiveFailures as Trip>::Meter>>>() {
        let breaker = breaker::<K, _>(ConsecutiveFailures::new(5).expect("valid"));
        assert!(panics(|| {
            let _permit = breaker.try_acquire(Instant::START).expect("closed");
            panic_now();
        }));
        assert_eq!(failures_to_open(&breaker, &Instant::START, 9), 5, "answers, and counts as before");
    }
    check::<Atomic>();
    check::<Locked>();
}

// 5: recloser 1.4.0 and failsafe 1.3.0: an open period of `Duration::MAX` overflows when the breaker trips. Fails if
// anything here were added without saturating.
#[test]
fn an_endless_open_period_opens_for_ever() {
    let endless =
        Config::new().with_open_for(Duration::MAX).with_half_open_for(Duration::MAX).validate().expect("valid");
    let backoff = Backoff::exponential(Duration::MAX).with_jitter(Jitter::Full).with_cap(Duration::MAX);
    let growing = Config::new().with_open_backoff(backoff.with_jitter(Jitter::None), 7).expect("valid");
    for at in [Instant::START, Instant::from_millis(1), Instant::MAX] {
        let breaker = CircuitBreaker::<Atomic>::new(endless);
        assert_eq!(failures_to_open(&breaker, &at, 9), 5);
        let rejected = breaker.try_acquire(Instant::MAX).expect_err("open");
        assert_eq!(rejected.retry_at(), None, "never by itself");

        let breaker = CircuitBreaker::<Locked, _>::new(growing.validate().expect("valid"));
        assert_eq!(failures_to_open(&breaker, &at, 9), 5);
        assert!(breaker.try_acquire(Instant::MAX).is_err());
    }
    // On the clock of a real runtime too.
    let breaker = CircuitBreaker::<Atomic>::new(endless);
    assert_eq!(failures_to_open(&breaker, &Tokio, 9), 5);
    assert!(breaker.try_acquire(Tokio).is_err());
}

// 8: failsafe 1.3.0: windows are cut to whole seconds, so that one of 900 ms is the last call alone, and one below 5 ms
// divides by zero. Fails if a period were rounded to anything coarser than its buckets.
#[test]
fn a_window_below_a_second_holds_all_its_calls() {
    let clock = ManualClock::new();
    let tenth = Ratio::percent(10);
    let breaker = breaker::<Locked, _>(TimeBased::<9>::new(tenth, Duration::from_millis(900)).expect("valid"));
    // One a 50 µs: they fill half of the window.
    for _ in 0..10_000 {
        breaker.try_acquire(&clock).expect("closed").success();
        clock.advance(Duration::from_micros(50));
    }
    breaker.try_acquire(&clock).expect("closed").failure();
    assert_eq!(breaker.state(), StateKind::Closed, "one failure of 10,001 calls");
    assert_eq!(breaker.snapshot(&clock).counts.calls, 10_001);
    // And it does open: a tenth of all calls, the failures included.
    assert_eq!(1 + failures_to_open(&breaker, &clock, 2_000), 1_112);

    let breaker = self::breaker::<Locked, _>(TimeBased::<4>::new(HALF, Duration::from_millis(4)).expect("valid"));
    assert_eq!(failures_to_open(&breaker, &clock, 99), 10, "the minimum of calls");
    assert!(TimeBased::<8>::new(HALF, Duration::from_nanos(7)).is_err(), "less than a nanosecond a bucket");
}

// 8 as well: failsafe 1.3.0: backoffs below 1 s panic when they are to be jittered, and 1.9 s are one. Fails if a period
// lost its nanoseconds.
#[test]
fn an_open_period_below_a_second_is_kept_to_the_nanosecond() {
    let period = Duration::from_millis(1_900);
    let breaker = CircuitBreaker::<Atomic>::new(Config::new().with_open_for(period).validate().expect("valid"));
    failures_to_open(&breaker, &Instant::START, 9);
    let at = Instant::from_nanos(1_900_000_000);
    assert_eq!(breaker.try_acquire(Instant::START).expect_err("open").retry_at(), Some(at));
    assert!(breaker.try_acquire(Instant::from_nanos(1_899_999_999)).is_err());
    assert!(breaker.try_acquire(at).is_ok());

    let backoff = Backoff::exponential(Duration::from_millis(100)).with_jitter(Jitter::None);
    let config = Config::new().with_open_backoff(backoff, 7).expect("valid").with_probes(1);
    let breaker = CircuitBreaker::<Locked, _>::new(config.validate().expect("valid"));
    failures_to_open(&breaker, &Instant::START, 9);
    let mut now = Instant::START;
    for millis in [100, 200, 400, 800] {
        let until = breaker.try_acquire(now).expect_err("open").retry_at().expect("a time");
        assert_eq!(until.saturating_duration_since(now), Duration::from_millis(millis));
        breaker.try_acquire(until).expect("a probe").failure();
        now = until;
    }
}

/// How many failures in a row open a breaker that has had so many successes; one call a millisecond.
fn after_successes<T: Copy + Trip>(trip: T, successes: u32) -> u32
where
    Local: CellKind<State<T::Meter>>,
{
    let (breaker, clock) = (breaker::<Local, _>(trip), ManualClock::new());
    for _ in 0..successes {
        breaker.try_acquire(&clock).expect("closed").success();
        clock.advance(Duration::from_millis(1));
    }
    for failures in 0..100_000 {
        let Ok(permit) = breaker.try_acquire(&clock) else { return failures };
        permit.failure();
        clock.advance(Duration::from_millis(1));
    }
    100_000
}

// 11: circuitbreaker-rs 0.1.1: two of its three policies are never told of any outcome, and the third has a rate over
// its whole life. Fails if a condition were not fed, or never forgot.
#[test]
fn every_condition_is_told_of_every_outcome_and_forgets_old_ones() {
    for successes in [0, 10_000] {
        let took = [
            after_successes(ConsecutiveFailures::new(10).expect("valid"), successes),
            after_successes(FailureRate::new(HALF, 40).expect("valid"), successes),
            after_successes(CountBased::<4>::new(HALF, 100).expect("valid"), successes),
            after_successes(CountBased::<4>::of_failures(60, 100).expect("valid"), successes),
            after_successes(TimeBased::<10>::new(HALF, SECOND).expect("valid"), successes),
            after_successes(TimeBased::<10>::of_failures(60, SECOND).expect("valid"), successes),
            after_successes(FailureMeter::new(60, SECOND).expect("valid"), successes),
            after_successes(AverageOfCalls::new(HALF, 100).expect("valid"), successes),
            after_successes(AverageOverTime::new(HALF, SECOND).expect("valid"), successes),
        ];
        // A second's calls, and a little for averages, which never forget at once.
        assert!(took.iter().all(|&failures| failures <= 1_000), "after {successes}: {took:?}");
    }
}

// 11 as well: circuitbreaker-rs 0.1.1: with more successes needed than probes granted, it never closes. Fails if such
// settings were taken, or if few probes at once meant few in all.
#[test]
fn more_successes_than_trials_are_refused_and_fewer_probes_at_once_do_not_matter() {
    let error = Config::new().with_trials(6, 5).validate().expect_err("half-open could never close");
    assert_eq!(error.field(), "successes");
    let config = Config::new().with_trials(5, 5).with_probes_at_once(1).validate().expect("valid");
    let breaker = CircuitBreaker::<Atomic>::new(config);
    breaker.half_open(&Instant::START);
    for _ in 0..5 {
        breaker.try_acquire(Instant::START).expect("a probe").success();
    }
    assert_eq!(breaker.state(), StateKind::Closed);
}

// 12: ninelives 0.2.0: any success closes the breaker, also that of a slow call from before it opened. Fails if a late
// report were looked at.
#[test]
fn an_old_success_does_not_close_an_open_breaker() {
    let breaker = CircuitBreaker::<Atomic>::new(Config::new().validate().expect("valid"));
    let slow = breaker.try_acquire(Instant::START).expect("closed");
    failures_to_open(&breaker, &Instant::START, 9);
    slow.success();
    assert_eq!(breaker.state(), StateKind::Open);
    assert!(breaker.try_acquire(Instant::START).is_err(), "the next call does not reach the dead backend");
}

// 16: tower-resilience-circuitbreaker 0.14.0: its window of time keeps a record of each call, and goes through them all
// on every call. Fails if memory grew with the calls; with memory that does not, neither can the work.
#[test]
fn a_time_window_is_of_one_size_however_many_calls_it_holds() {
    let clock = Instant::from_millis(500);
    let breaker = breaker::<Locked, _>(TimeBased::<10>::new(HALF, SECOND).expect("valid"));
    assert!(size_of_val(&breaker) <= 512, "{} bytes", size_of_val(&breaker));
    let heap = measure(|| {
        for _ in 0..200_000 {
            breaker.try_acquire(clock).expect("closed").success();
        }
    });
    assert_eq!((heap.count_total, breaker.snapshot(&clock).counts.calls), (0, 200_000));
}

// Of the closing list: the generation of the admission is checked in every state. Fails if a late report changed a state, a
// count or a slot, whichever the report.
#[test]
fn a_late_outcome_changes_nothing_in_any_state() {
    type Watched = CircuitBreaker<Local, ConsecutiveFailures, Totals<Local>>;
    type Enter = fn(&Watched);
    let states: [(StateKind, Enter); 6] = [
        (StateKind::Closed, Watched::reset),
        (StateKind::Open, |breaker| breaker.open_until(Instant::from_millis(9_000))),
        (StateKind::HalfOpen, |breaker| breaker.half_open(&Instant::START)),
        (StateKind::Isolated, Watched::isolate),
        (StateKind::Disabled, Watched::disable),
        (StateKind::MetricsOnly, Watched::observe_only),
    ];
    for (from, enter_first) in states {
        for (to, enter) in states {
            let config = Config::new().with_trip(ConsecutiveFailures::new(1).expect("valid")).with_probes(1);
            let breaker = Watched::with_observer(config.validate().expect("valid"), Totals::new(()));
            enter_first(&breaker);
            let old: Vec<_> = (0..3).filter_map(|_| breaker.try_acquire(Instant::START).ok()).collect();
            enter(&breaker);
            let before = breaker.snapshot(&Instant::START);
            let late = old.len();
            for (index, permit) in old.into_iter().enumerate() {
                match index {
                    0 => permit.failure(),
                    1 => permit.success(),
                    _ => drop(permit),
                }
            }
            assert_eq!(breaker.snapshot(&Instant::START), before, "{late} of {from:?} in {to:?}");
            assert_eq!(before.state, to);
            assert_eq!(breaker.observer().late(), late.min(2) as u64, "{from:?} in {to:?}");
        }
    }
}

// Of the closing list: what makes no sense is refused, and what is only extreme saturates. Fails if a bad one were taken, or a
// good one refused.
#[test]
fn settings_that_make_no_sense_are_refused_and_extreme_ones_saturate() {
    let config = Config::new();
    let bad = [
        ("successes", config.with_probes(0)),
        ("successes", config.with_trials(4, 3)),
        ("trials", config.with_trials(1, 256)),
        ("probes", config.with_probes_at_once(0)),
        ("probes", config.with_trials(1, 2).with_probes_at_once(3)),
        ("half_open_for", config.with_half_open_for(Duration::ZERO)),
        ("open_for", config.with_open_for(Duration::ZERO)),
    ];
    for (field, config) in bad {
        assert_eq!(config.validate().expect_err(field).field(), field);
    }
    for extreme in [Duration::from_nanos(1), Duration::MAX] {
        let config = config.with_open_for(extreme).with_half_open_for(extreme).validate().expect("valid");
        let breaker = CircuitBreaker::<Atomic>::new(config);
        assert_eq!(failures_to_open(&breaker, &Instant::from_nanos(u64::MAX - 2), 9), 5);
    }
}

// Of the closing list: a clock may stand still, step back or come to its end. Fails if any of it overflowed, or if the
// breaker were not where it is due once the clock is there again.
#[test]
fn the_clock_may_stand_still_step_back_or_come_to_its_end() {
    let clock = ManualClock::new();
    clock.set(Instant::from_millis(100_000));
    let trip = TimeBased::<4>::new(HALF, SECOND).expect("valid").with_minimum_calls(2).expect("valid");
    let config = Config::new().with_trip(trip).with_open_for(SECOND).with_probes(1);
    let breaker = CircuitBreaker::<Locked, _>::new(config.validate().expect("valid"));
    // Stands still.
    for _ in 0..1_000 {
        breaker.try_acquire(&clock).expect("closed").success();
    }
    // Steps back while calls are counted, and while it is open.
    clock.set(Instant::from_millis(50_000));
    assert!(failures_to_open(&breaker, &clock, 2_000) <= 1_000);
    clock.set(Instant::START);
    let until = breaker.try_acquire(&clock).expect_err("open").retry_at().expect("a time");
    assert_eq!(until, Instant::from_millis(51_000), "the instant that it had said before");
    clock.set(until);
    breaker.try_acquire(&clock).expect("a probe").success();
    assert_eq!(breaker.state(), StateKind::Closed);
    // Comes to its end.
    clock.set(Instant::MAX);
    assert_eq!(clock.now(), Instant::MAX);
    assert_eq!(failures_to_open(&breaker, &clock, 9), 2);
    assert!(breaker.try_acquire(&clock).is_err());
}

// Of the closing list too: no condition goes blind, nor opens for nothing, while a clock that has stepped back has not caught up.
// Fails if one waited for the time that it had seen before.
#[test]
fn no_condition_waits_for_a_clock_that_has_stepped_back() {
    fn after_a_step<T: Copy + Trip>(trip: T) -> u32
    where
        Local: CellKind<State<T::Meter>>,
    {
        let (breaker, clock) = (breaker::<Local, _>(trip), ManualClock::new());
        clock.set(Instant::from_millis(3_600_000));
        for _ in 0..100 {
            breaker.try_acquire(&clock).expect("closed").success();
            clock.advance(Duration::from_millis(1));
        }
        clock.set(Instant::from_millis(1_000));
        for failures in 0..10_000 {
            let Ok(permit) = breaker.try_acquire(&clock) else { return failures };
            permit.failure();
            clock.advance(Duration::from_millis(1));
        }
        10_000
    }
    let took = [
        after_a_step(ConsecutiveFailures::new(10).expect("valid")),
        after_a_step(FailureRate::new(HALF, 40).expect("valid")),
        after_a_step(CountBased::<4>::new(HALF, 100).expect("valid")),
        after_a_step(TimeBased::<10>::new(HALF, SECOND).expect("valid")),
        after_a_step(TimeBased::<10>::of_failures(60, SECOND).expect("valid")),
        after_a_step(FailureMeter::new(60, SECOND).expect("valid")),
        after_a_step(AverageOfCalls::new(HALF, 100).expect("valid")),
        after_a_step(AverageOverTime::new(HALF, SECOND).expect("valid")),
    ];
    assert!(took.iter().all(|&failures| (2..=1_000).contains(&failures)), "{took:?}");
}
