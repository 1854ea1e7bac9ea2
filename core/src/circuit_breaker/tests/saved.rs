//! A breaker goes on after a reset as if there had been none, on a clock that starts anew.

use super::*;
use crate::circuit_breaker::trip::{AverageOfCalls, FailureMeter, PackedMeter};
use crate::retained::Retained;

/// Saved at `then`, over a reset, and restored at `now` in a breaker like the first one.
fn reset<T>(
    config: Config<T>,
    before: &CircuitBreaker<Local, T>,
    then: Instant,
    now: Instant,
) -> CircuitBreaker<Local, T>
where
    T: Copy + Trip,
    T::Meter: PackedMeter,
{
    let memory = Retained::<Saved>::new();
    memory.store(before.save(&then));
    let after = breaker(config);
    after.restore(memory.load().expect("it was stored"), &now);
    after
}

#[test]
fn an_open_breaker_has_as_long_to_go_as_it_had() {
    let before = breaker(touchy());
    trip(&before, at(100));
    let after = reset(touchy(), &before, at(104), at(1));
    assert_eq!((after.state(), after.poll_timeout()), (StateKind::Open, Some(at(7))));
    assert!(after.try_acquire(at(6)).is_err());
    after.try_acquire(at(7)).expect("a probe").success();
    assert_eq!(after.state(), StateKind::Closed);
}

#[test]
fn an_open_period_that_is_over_or_endless_stays_so() {
    let before = breaker(touchy());
    trip(&before, at(100));
    let after = reset(touchy(), &before, at(500), at(3));
    assert_eq!((after.state(), after.poll_timeout()), (StateKind::Open, Some(at(3))));
    assert!(after.try_acquire(at(3)).is_ok());
    before.open_until(Instant::MAX);
    let after = reset(touchy(), &before, at(500), at(3));
    assert_eq!((after.state(), after.poll_timeout()), (StateKind::Open, None));
}

#[test]
fn failures_before_the_reset_count_after_it() {
    let config = Config::new();
    let before = breaker(config);
    (0..4).for_each(|_| before.try_acquire(at(9)).expect("closed").failure());
    let after = reset(config, &before, at(9), at(0));
    after.try_acquire(at(0)).expect("closed").failure();
    assert_eq!(after.state(), StateKind::Open, "the fifth in a row");
}

#[test]
fn a_failure_meter_goes_on_draining_from_where_it_was() {
    let config = Config::new().with_trip(FailureMeter::new(3, Duration::from_secs(30)).expect("a good meter"));
    let fail = |breaker: &CircuitBreaker<Local, FailureMeter>, now| {
        breaker.try_acquire(now).expect("closed").failure();
        breaker.state()
    };
    let before = breaker(config);
    assert_eq!(fail(&before, at(1_000)), StateKind::Closed);
    assert_eq!(fail(&before, at(1_000)), StateKind::Closed);
    assert_eq!(before.snapshot(&at(1_000)).counts.failures, 2);
    // Ten seconds drain one of them, wherever they pass.
    for (then, now, left) in [(1_000, 5, 2), (1_010, 5, 1), (1_005, 0, 2), (1_020, 700, 0), (9_999, 0, 0)] {
        let after = reset(config, &before, at(then), at(now));
        assert_eq!(after.snapshot(&at(now)).counts.failures, left, "saved at {then} s");
        assert_eq!(after.snapshot(&at(now + 10)).counts.failures, left.saturating_sub(1));
    }
    let after = reset(config, &before, at(1_000), at(2));
    assert_eq!(fail(&after, at(2)), StateKind::Closed);
    assert_eq!(fail(&after, at(2)), StateKind::Open, "the fourth within the period");
}

#[test]
fn a_half_open_breaker_begins_anew_with_its_probes_by_the_settings_in_force() {
    let settings = |trials| touchy().with_trials(trials, trials).with_half_open_for(5 * SECOND);
    let before = breaker(settings(5).without_half_open_deadline());
    before.half_open(&at(50));
    (0..4).for_each(|_| before.try_acquire(at(51)).expect("a probe").success());
    forget(before.try_acquire(at(51)).expect("a probe"));
    let after = reset(settings(2), &before, at(52), at(1));
    let snapshot = after.snapshot(&at(1));
    assert_eq!((snapshot.state, snapshot.probes, snapshot.until), (StateKind::HalfOpen, 0, Some(at(6))));
    after.try_acquire(at(2)).expect("a probe").success();
    assert_eq!(after.state(), StateKind::HalfOpen);
    after.try_acquire(at(2)).expect("a probe").success();
    assert_eq!(after.state(), StateKind::Closed);
}

#[test]
fn reopenings_in_a_row_go_on_too() {
    let config = growing(Backoff::exponential(SECOND), 1);
    let before = breaker(config);
    trip(&before, at(0));
    for _ in 0..3 {
        let end = before.poll_timeout().expect("it is open");
        before.try_acquire(end).expect("a probe").failure();
    }
    assert_eq!(before.snapshot(&at(0)).reopened, 3);
    let after = reset(config, &before, at(0), at(0));
    assert_eq!(after.snapshot(&at(0)).reopened, 3);
    assert_eq!(after.poll_timeout(), before.poll_timeout());
}

#[test]
fn what_was_chosen_by_hand_stays_chosen() {
    let before = breaker(touchy());
    for (choose, kind) in [
        (CircuitBreaker::isolate as fn(&CircuitBreaker<Local>), StateKind::Isolated),
        (CircuitBreaker::disable, StateKind::Disabled),
        (CircuitBreaker::observe_only, StateKind::MetricsOnly),
        (CircuitBreaker::reset, StateKind::Closed),
    ] {
        choose(&before);
        assert_eq!(reset(touchy(), &before, at(9), at(0)).state(), kind);
    }
}

#[test]
fn only_another_state_is_told_and_calls_under_way_report_too_late() {
    let (events, open) = (Events::new(), breaker(touchy()));
    trip(&open, at(100));
    let after = observed(touchy(), &events);
    after.restore(breaker(touchy()).save(&at(3)), &at(0));
    assert_eq!(events.take().count(), 0, "closed as it was");
    let early = after.try_acquire(at(0)).expect("closed");
    after.restore(open.save(&at(100)), &at(0));
    let told = events.take().next().expect("it is told");
    assert_eq!((told.from, told.to, told.until), (StateKind::Closed, StateKind::Open, Some(at(10))));
    assert_eq!(told.generation, after.snapshot(&at(0)).generation);
    after.reset();
    let closed = after.save(&at(0));
    after.restore(closed, &at(0));
    early.failure();
    assert_eq!(after.state(), StateKind::Closed, "a failure would have opened it");
}

#[test]
fn a_call_under_way_is_late_also_where_nothing_else_has_changed() {
    let after = breaker(touchy());
    let early = after.try_acquire(at(0)).expect("closed");
    after.restore(breaker(touchy()).save(&at(3)), &at(0));
    early.failure();
    assert_eq!(after.state(), StateKind::Closed, "a failure would have opened it");
}

#[test]
fn at_the_end_of_time_a_meter_still_fits_its_bits() {
    use crate::circuit_breaker::trip::Drained;
    let full = (1 << Drained::BITS) - 1;
    assert_eq!(Drained::from_bits(5).moved(Instant::START, Instant::MAX).to_bits(), full);
    assert_eq!(Drained::from_bits(full).moved(Instant::START, at(1)).to_bits(), full);
}

#[test]
fn averages_and_pairs_of_conditions_are_kept_too() {
    let average = AverageOfCalls::new(Ratio::percent(50), 4).expect("a good average");
    let config = Config::new().with_trip(average);
    let before = breaker(config);
    before.try_acquire(at(0)).expect("closed").failure();
    let after = reset(config, &before, at(1), at(0));
    assert_eq!(after.snapshot(&at(0)).counts, before.snapshot(&at(0)).counts);

    let pair = (ConsecutiveFailures::new(3).expect("good"), ConsecutiveFailures::new(9).expect("good"));
    let config = Config::new().with_trip(pair);
    let before = breaker(config);
    before.try_acquire(at(0)).expect("closed").failure();
    before.try_acquire(at(0)).expect("closed").failure();
    let after = reset(config, &before, at(1), at(0));
    after.try_acquire(at(0)).expect("closed").failure();
    assert_eq!(after.state(), StateKind::Open);
}

#[test]
fn a_condition_with_a_smaller_window_than_before_takes_what_fits_it() {
    let rate = |window| FailureRate::new(Ratio::percent(50), window).expect("a good window");
    let before = breaker(Config::new().with_trip(rate(40)));
    for n in 0..40 {
        let permit = before.try_acquire(at(0)).expect("closed");
        if n < 15 { permit.failure() } else { permit.success() }
    }
    let after = reset(Config::new().with_trip(rate(20)), &before, at(1), at(0));
    assert_eq!(after.snapshot(&at(0)).counts, Counts { calls: 20, failures: 0, slow: 0 });
}
