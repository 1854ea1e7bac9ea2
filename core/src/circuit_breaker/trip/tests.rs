//! The trip conditions by themselves, each against the plainest statement of what it means.

#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, clippy::indexing_slicing, reason = "tests")]

use std::vec::Vec;

use super::*;
use crate::window::CountWindow;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// One unit of the failure meter.
const TICK: Duration = Duration::from_nanos(1 << UNIT);

fn consecutive(threshold: u32) -> ConsecutiveFailures {
    ConsecutiveFailures::new(threshold).expect("a good threshold")
}

fn rate(percent: u32, window: u32, minimum: u32) -> FailureRate {
    let rate = FailureRate::new(Ratio::percent(percent), window).expect("a good rate");
    rate.with_minimum_calls(minimum).expect("a good minimum")
}

fn meter(failures: u32, period: Duration) -> FailureMeter {
    FailureMeter::new(failures, period).expect("a good meter")
}

fn after(span: Duration) -> Instant {
    Instant::START.saturating_add(span)
}

/// Feeds outcomes (failed or not) without a clock, and returns the last answer.
fn feed<T: Trip>(trip: &T, meter: &mut T::Meter, outcomes: impl IntoIterator<Item = bool>) -> bool {
    outcomes.into_iter().map(|failed| trip.record(meter, Sample::of(failed), None).expect("no need of the time")).last()
        == Some(true)
}

fn feed_fresh<T: Trip>(trip: &T, outcomes: impl IntoIterator<Item = bool>) -> bool {
    let mut meter = Fresh::FRESH;
    feed(trip, &mut meter, outcomes)
}

/// Fails at an instant, and says whether that trips.
fn fails(trip: &FailureMeter, meter: &mut Drained, now: Instant) -> bool {
    trip.record(meter, Sample::of(true), Some(now)).expect("it has the time")
}

fn refused<T>(result: Result<T, ConfigError>) -> &'static str {
    result.err().map_or("nothing", |error| error.field())
}

/// Whether it wants the time of a success, and of a failure.
fn wants<T: Trip>(trip: &T) -> [bool; 2] {
    [false, true].map(|failed| trip.wants_time(failed))
}

#[test]
fn only_what_goes_by_the_time_wants_it() {
    let (failures, half) = (meter(5, HOUR), Ratio::percent(50));
    assert_eq!([wants(&consecutive(5)), wants(&rate(50, 40, 10))], [[false; 2]; 2]);
    assert_eq!(wants(&CountBased::<1>::new(half, 10).expect("a good window")), [false; 2]);
    assert_eq!(wants(&AverageOfCalls::new(half, 10).expect("a good average")), [false; 2]);
    assert_eq!(wants(&failures), [false, true]);
    assert_eq!(wants(&TimeBased::<2>::new(half, HOUR).expect("a good window")), [true; 2]);
    assert_eq!(wants(&AverageOverTime::new(half, HOUR).expect("a good average")), [true; 2]);
    assert_eq!([wants(&(failures, consecutive(5))), wants(&(consecutive(5), failures))], [[false, true]; 2]);
    let growing = Growing::new(failures, Backoff::constant(SECOND), 0).expect("good periods");
    assert_eq!([wants(&growing), wants(&OpenTime::new(failures, |_| SECOND))], [[false, true]; 2]);
}

// Counts

#[test]
fn rates_are_shares_of_the_calls_and_none_without_any() {
    let rates = |calls, failures, slow| {
        let counts = Counts { calls, failures, slow };
        (counts.failure_rate(), counts.slow_rate())
    };
    assert_eq!(rates(0, 0, 0), (None, None));
    assert_eq!(rates(0, 1, 1), (None, None));
    assert_eq!(rates(4, 1, 3), (Some(Ratio::percent(25)), Some(Ratio::percent(75))));
    assert_eq!(rates(3, 1, 2), (Some(Ratio::basis_points(3_333)), Some(Ratio::basis_points(6_666))));
    assert_eq!(rates(u32::MAX, u32::MAX, 0), (Some(Ratio::ONE), Some(Ratio::ZERO)));
    assert_eq!(rates(1, u32::MAX, 0).0, Some(Ratio::basis_points(u32::MAX)));
}

// Consecutive failures

#[test]
fn so_many_failures_in_a_row_trip_and_a_success_starts_the_count_over() {
    let (trip, mut meter) = (consecutive(3), Consecutive::FRESH);
    assert!(!feed(&trip, &mut meter, [true, true, false, true, true]));
    assert_eq!(trip.counts(&meter, None), Counts { calls: 2, failures: 2, slow: 0 });
    assert!(feed(&trip, &mut meter, [true]));
    assert!(feed_fresh(&consecutive(1), [true]));
}

#[test]
fn the_count_of_consecutive_failures_reaches_its_largest_threshold_and_stops_there() {
    let (trip, mut meter) = (consecutive(65_535), Consecutive::FRESH);
    assert!(!feed(&trip, &mut meter, (0..65_534).map(|_| true)));
    assert!(feed(&trip, &mut meter, [true]));
    assert!(feed(&trip, &mut meter, (0..100_000).map(|_| true)));
    assert_eq!(trip.counts(&meter, None).failures, 65_535);
}

#[test]
fn thresholds_that_the_counter_cannot_reach_are_refused() {
    for threshold in [0, 65_536, u32::MAX] {
        assert_eq!(refused(ConsecutiveFailures::new(threshold)), "threshold");
    }
    assert_eq!(ConsecutiveFailures::new(5), Ok(ConsecutiveFailures::DEFAULT));
}

// Failure rates

#[test]
fn a_rate_trips_exactly_at_its_value_and_not_one_call_below() {
    assert!(feed_fresh(&rate(30, 10, 10), [true, true, true, false, false, false, false, false, false, false]));
    assert!(!feed_fresh(&rate(31, 10, 10), [true, true, true, false, false, false, false, false, false, false]));
    assert!(feed_fresh(&rate(100, 47, 47), [true; 47]));
    assert!(!feed_fresh(&rate(100, 47, 47), (0..47).map(|call| call != 46)));
    let third = FailureRate::new(Ratio::basis_points(3_333), 3).expect("a good rate");
    assert!(feed_fresh(&third, [true, false, false]));
    let more = FailureRate::new(Ratio::basis_points(3_334), 3).expect("a good rate");
    assert!(!feed_fresh(&more, [true, false, false]));
}

#[test]
fn nothing_trips_before_the_minimum_of_calls_and_the_call_that_completes_it_may() {
    let (trip, mut meter) = (rate(50, 10, 4), Ring::FRESH);
    assert!(!feed(&trip, &mut meter, [true, true, true]));
    // A success can be the one that trips: three of four failed.
    assert!(feed(&trip, &mut meter, [false]));
}

#[test]
fn every_window_of_every_short_script_counts_what_a_list_of_its_last_calls_does() {
    for window in 1..=5_u32 {
        for minimum in 1..=window {
            let trip = rate(50, window, minimum);
            for script in 0..1_u32 << 12 {
                let calls: Vec<bool> = (0..12).map(|call| script >> call & 1 == 1).collect();
                assert_window(&trip, &calls, window as usize, minimum as usize);
            }
        }
    }
}

#[test]
fn the_largest_window_counts_what_a_list_of_its_last_calls_does() {
    let mut random = Rng::new(47);
    let calls: Vec<bool> = (0..10_000).map(|_| random.next().is_multiple_of(2)).collect();
    assert_window(&rate(50, 47, 20), &calls, 47, 20);
}

fn assert_window(trip: &FailureRate, calls: &[bool], window: usize, minimum: usize) {
    let mut meter = Ring::FRESH;
    for end in 1..=calls.len() {
        let last = &calls[end.saturating_sub(window)..end];
        let failures = last.iter().filter(|failed| **failed).count();
        let met = feed(trip, &mut meter, [calls[end - 1]]);
        let expected = last.len() >= minimum && failures * 2 >= last.len();
        let counts = Counts { calls: last.len() as u32, failures: failures as u32, slow: 0 };
        assert_eq!((met, trip.counts(&meter, None)), (expected, counts), "{trip:?} after {end} of {calls:?}");
    }
}

#[test]
fn rates_and_windows_that_make_no_sense_are_refused_by_the_field_at_fault() {
    let half = Ratio::percent(50);
    assert_eq!(refused(FailureRate::new(Ratio::ZERO, 10)), "rate");
    assert_eq!(refused(FailureRate::new(Ratio::basis_points(10_001), 10)), "rate");
    assert_eq!(refused(FailureRate::new(Ratio::percent(u32::MAX), 10)), "rate");
    assert_eq!(refused(FailureRate::new(half, 0)), "window");
    assert_eq!(refused(FailureRate::new(half, 48)), "window");
    assert_eq!(refused(FailureRate::new(half, 256 + 5)), "window");
    assert_eq!(refused(FailureRate::new(Ratio::ONE, 47)), "nothing");
    let good = FailureRate::new(half, 10).expect("a good rate");
    assert_eq!(refused(good.with_minimum_calls(0)), "minimum_calls");
    assert_eq!(refused(good.with_minimum_calls(11)), "minimum_calls");
    assert_eq!(refused(good.with_minimum_calls(256 + 5)), "minimum_calls");
    assert_eq!(refused(good.with_minimum_calls(10)), "nothing");
}

#[test]
fn a_smaller_window_forgets_the_oldest_calls_and_a_larger_one_fills_up_from_what_there_is() {
    let mut random = Rng::new(5);
    for _ in 0..2_000 {
        let [from, to] = [(); 2].map(|()| 1 + random.next() % 47);
        let calls: Vec<bool> = (0..random.next() % 100).map(|_| random.next().is_multiple_of(2)).collect();
        let (first, next) = (rate(50, from, from), rate(50, to, to));
        let mut meter = Ring::FRESH;
        feed(&first, &mut meter, calls.iter().copied());
        next.adapt(&mut meter, &first, Instant::START);
        let mut known = calls[calls.len().saturating_sub(from as usize)..].to_vec();
        let same = |meter: &Ring, known: &[bool]| {
            let last = &known[known.len().saturating_sub(to as usize)..];
            let failures = last.iter().filter(|failed| **failed).count() as u32;
            let counts = Counts { calls: last.len() as u32, failures, slow: 0 };
            assert_eq!(next.counts(meter, None), counts, "from {from} to {to}, {calls:?}");
        };
        same(&meter, &known);
        for _ in 0..50 {
            known.push(random.next().is_multiple_of(2));
            feed(&next, &mut meter, known.last().copied());
            same(&meter, &known);
        }
    }
}

#[test]
fn a_call_counted_by_a_larger_window_just_replaced_does_no_harm() {
    let (large, small) = (rate(50, 40, 40), rate(50, 4, 4));
    let mut meter = Ring::FRESH;
    feed(&large, &mut meter, [true; 30]);
    small.adapt(&mut meter, &large, Instant::START);
    feed(&large, &mut meter, [false; 3]);
    assert!(!small.is_healthy(&meter));
    assert!(!feed(&small, &mut meter, [false]));
    assert_eq!(small.counts(&meter, None), Counts { calls: 4, failures: 0, slow: 0 });
    assert!(small.is_healthy(&meter));
}

// The failure meter

#[test]
fn a_meter_keeps_its_number_of_failures_by_other_settings() {
    let settings =
        [(4, SECOND), (10, HOUR), (1, SECOND), (10, 300 * HOUR), (20, 60 * SECOND), (u32::MAX, Duration::MAX)];
    for (from, to) in settings.iter().flat_map(|from| settings.iter().map(move |to| (from, to))) {
        let (first, next) = (meter(from.0, from.1), meter(to.0, to.1));
        for failures in 0..=from.0.min(12) {
            let mut level = Drained::FRESH;
            (0..failures).for_each(|_| assert!(!fails(&first, &mut level, after(HOUR))));
            next.adapt(&mut level, &first, after(HOUR));
            let shown = next.counts(&level, Some(after(HOUR))).failures;
            assert_eq!(shown, failures.min(to.0 + u32::from(to.0 < u32::MAX)), "{failures} from {from:?} to {to:?}");
            assert_eq!(fails(&next, &mut level, after(HOUR)), failures >= to.0, "{failures} from {from:?} to {to:?}");
        }
    }
}

#[test]
fn a_meter_drains_by_its_new_settings_and_stays_as_it_is_by_the_same() {
    let (first, next) = (meter(4, 4 * HOUR), meter(4, 4 * SECOND));
    let mut level = Drained::FRESH;
    (0..4).for_each(|_| assert!(!fails(&first, &mut level, after(HOUR))));
    let before = level;
    first.adapt(&mut level, &first, after(HOUR + SECOND));
    assert_eq!(level, before);
    next.adapt(&mut level, &first, after(HOUR));
    assert_eq!(next.counts(&level, Some(after(HOUR + 2 * SECOND))).failures, 2);
    assert_eq!(next.counts(&level, Some(after(HOUR + 4 * SECOND))).failures, 0);
    let mut end = Drained::FRESH;
    fails(&first, &mut end, Instant::MAX);
    meter(1, 78 * HOUR).adapt(&mut end, &first, Instant::MAX);
    assert_eq!(end.to_bits() >> BITS, 0);
}

#[test]
fn a_burst_of_as_many_failures_as_the_meter_allows_passes_and_one_more_trips() {
    for failures in [1, 2, 10, 1_000] {
        let (trip, mut meter) = (meter(failures, HOUR), Drained::FRESH);
        for failure in 1..=failures {
            assert!(!fails(&trip, &mut meter, after(HOUR)), "failure {failure} of {failures}");
        }
        assert!(fails(&trip, &mut meter, after(HOUR)));
    }
}

#[test]
fn a_full_meter_takes_another_failure_when_one_has_drained_and_not_a_tick_before() {
    // 4 failures in 400 ticks: one drains in 100.
    let trip = meter(4, 400 * TICK);
    let full_after = |wait: Duration| {
        let mut meter = Drained::FRESH;
        (0..4).for_each(|_| assert!(!fails(&trip, &mut meter, after(HOUR))));
        fails(&trip, &mut meter, after(HOUR + wait))
    };
    assert!(full_after(98 * TICK));
    assert!(!full_after(101 * TICK));
}

#[test]
fn failures_at_the_allowed_pace_never_trip_and_at_a_faster_one_do() {
    let trip = meter(4, 400 * TICK);
    let trips_at = |pace: u32| {
        let mut meter = Drained::FRESH;
        (1..=10_000_u32).position(|failure| fails(&trip, &mut meter, after(failure * pace * TICK)))
    };
    assert_eq!(trips_at(100), None);
    // It fills by one tick a failure, and is over the full 400 once it had 300 left for the last one.
    assert_eq!(trips_at(99), Some(301));
}

#[test]
fn successes_leave_the_meter_as_it_is_and_need_no_time() {
    let (trip, mut meter) = (meter(2, HOUR), Drained::FRESH);
    assert!(!fails(&trip, &mut meter, after(HOUR)));
    let before = meter;
    assert_eq!(trip.record(&mut meter, Sample::of(false), None), Some(false));
    assert_eq!(trip.record(&mut meter, Sample::of(true), None), None, "a failure does need it");
    assert_eq!(meter, before);
}

#[test]
fn a_clock_that_steps_back_an_hour_neither_blinds_the_meter_nor_trips_it_by_itself() {
    let (trip, mut meter) = (meter(4, SECOND), Drained::FRESH);
    (0..4).for_each(|_| assert!(!fails(&trip, &mut meter, after(HOUR))));
    assert_eq!(
        trip.counts(&meter, Some(after(SECOND))),
        Counts { calls: 5, failures: 5, slow: 0 },
        "no more than full and one"
    );
    // It was full, and so it is: the first failure is one too many, and a second later none is left.
    assert!(fails(&trip, &mut meter, after(SECOND)));
    assert!(!fails(&trip, &mut meter, after(2 * SECOND + SECOND / 2)));
    assert_eq!(trip.counts(&meter, Some(after(10 * SECOND))), Counts::default());
}

#[test]
fn after_a_century_without_failures_the_meter_is_empty() {
    let (trip, mut meter) = (meter(4, SECOND), Drained::FRESH);
    (0..4).for_each(|_| assert!(!fails(&trip, &mut meter, after(SECOND))));
    let century = Instant::from_millis(100 * 365 * 86_400 * 1_000);
    assert_eq!(trip.counts(&meter, Some(century)), Counts::default());
    (0..4).for_each(|_| assert!(!fails(&trip, &mut meter, century)));
    assert!(fails(&trip, &mut meter, century));
}

#[test]
fn the_meter_shows_how_many_failures_it_holds_however_long_its_period() {
    for period in [SECOND, HOUR, 24 * HOUR, 300 * HOUR, 700 * HOUR] {
        let (trip, mut meter) = (meter(10, period), Drained::FRESH);
        for failures in 1..=11 {
            fails(&trip, &mut meter, after(HOUR));
            assert_eq!(
                trip.counts(&meter, Some(after(HOUR))),
                Counts { calls: failures, failures, slow: 0 },
                "{period:?}"
            );
        }
        assert_eq!(trip.counts(&meter, None), Counts::default(), "unknown without the time");
    }
}

#[test]
fn meters_that_cannot_be_measured_are_refused_by_the_field_at_fault() {
    let longest = TICK * u32::MAX;
    assert_eq!(refused(FailureMeter::new(0, SECOND)), "failures");
    assert_eq!(refused(FailureMeter::new(1, Duration::ZERO)), "period");
    assert_eq!(refused(FailureMeter::new(1, TICK - Duration::from_nanos(1))), "period");
    assert_eq!(refused(FailureMeter::new(1, TICK)), "nothing");
    assert_eq!(refused(FailureMeter::new(100, 99 * TICK)), "period");
    assert_eq!(refused(FailureMeter::new(1, longest)), "nothing");
    assert_eq!(refused(FailureMeter::new(1, longest + TICK)), "period");
    assert_eq!(refused(FailureMeter::new(1, Duration::MAX)), "period");
    assert_eq!(refused(FailureMeter::new(u32::MAX, Duration::MAX)), "nothing");
}

#[test]
fn the_largest_meter_at_the_clocks_end_overflows_nowhere() {
    let (trip, mut meter) = (meter(u32::MAX, Duration::MAX), Drained::FRESH);
    for now in [Instant::START, Instant::MAX, Instant::from_nanos(u64::MAX - 1), Instant::START] {
        fails(&trip, &mut meter, now);
        assert_eq!(meter.to_bits() >> BITS, 0);
    }
}

#[test]
fn division_by_hand_is_division() {
    let mut random = Rng::new(3);
    for _ in 0..20_000 {
        let level = (u64::from(random.next()) << 32 | u64::from(random.next())) >> (random.next() % 64);
        let interval = NonZeroU32::new(random.next() >> (random.next() % 32)).unwrap_or(NonZeroU32::MIN);
        let exact = level.div_ceil(u64::from(interval.get()));
        assert_eq!(div_ceil(level, interval), u32::try_from(exact).unwrap_or(u32::MAX), "{level} / {interval}");
    }
}

// Pairs

#[test]
fn a_pair_trips_when_either_does_and_shows_the_counts_of_the_first() {
    let trip = (consecutive(3), rate(50, 10, 10));
    let mut meter = Fresh::FRESH;
    assert!(feed(&trip, &mut meter, [false, true, true, true]), "by three in a row");
    assert_eq!(trip.counts(&meter, None), Counts { calls: 3, failures: 3, slow: 0 });
    assert!(!feed(&trip, &mut meter, [false, true, false, true, false]));
    assert!(feed(&trip, &mut meter, [true]), "by six of the last ten");
    let nested = (consecutive(100), trip);
    assert!(feed_fresh(&nested, [true, true, true]));
}

#[test]
fn a_pair_that_lacks_the_time_for_one_leaves_both_as_they_were() {
    for swapped in [false, true] {
        let (one, other) = (consecutive(3), meter(2, HOUR));
        let (mut count, mut level) = (Consecutive::FRESH, Drained::FRESH);
        let answer = if swapped {
            let mut pair = (level, count);
            let answer = (other, one).record(&mut pair, Sample::of(true), None);
            (level, count) = pair;
            answer
        } else {
            let mut pair = (count, level);
            let answer = (one, other).record(&mut pair, Sample::of(true), None);
            (count, level) = pair;
            answer
        };
        assert_eq!((answer, count, level), (None, Consecutive::FRESH, Drained::FRESH));
    }
}

#[test]
fn a_window_that_would_open_leaves_everything_as_it_was_until_it_has_the_time() {
    fn assert_asks<T: Trip>(trip: &T) {
        let (mut meter, failure) = (T::Meter::FRESH, Sample::of(true));
        let now = Some(Instant::START);
        assert!((0..2).all(|_| trip.record(&mut meter, failure, now) == Some(false)), "{trip:?}");
        let before = meter;
        assert_eq!((trip.record(&mut meter, failure, None), meter), (None, before), "{trip:?}");
        assert_eq!(trip.record(&mut meter, failure, now), Some(true), "{trip:?}");
        assert_eq!(trip.counts(&meter, now).failures, 3, "each once: {trip:?}");
    }
    let window = CountBased::<1>::of_failures(3, 4).expect("a good window");
    let lately = TimeBased::<2>::of_failures(3, SECOND).expect("a good window");
    assert_asks(&window);
    assert_asks(&lately);
    // Within a pair, though the other needs no time.
    assert_asks(&(window, consecutive(9)));
    assert_asks(&(lately, window));
    assert_asks(&(window, (consecutive(9), lately)));

    let mut meter = CountWindow::FRESH;
    assert_eq!(window.record(&mut meter, Sample::of(true), None), Some(false), "and no time else");
    assert_eq!(meter.counts().failures, 1);
}

// What the breaker relies on

/// Runs a meter through random outcomes, mostly good.
fn wander<T: Trip>(trip: &T, seed: u64, mut check: impl FnMut(&T::Meter, Instant)) {
    let mut random = Rng::new(seed);
    let (mut meter, mut now) = (T::Meter::FRESH, Instant::START);
    for _ in 0..20_000 {
        now = now.saturating_add(TICK * (random.next() % 1_000));
        check(&meter, now);
        let failed = random.next() % 100 < 2;
        trip.record(&mut meter, Sample::of(failed), Some(now)).expect("it has the time");
    }
}

fn assert_healthy_is_fixed<T: Trip>(trip: &T, seed: u64) {
    let mut healthy = 0;
    wander(trip, seed, |meter, now| {
        let mut after = *meter;
        let tripped = trip.record(&mut after, Sample::of(false), Some(now));
        if trip.is_healthy(meter) {
            healthy += 1;
            assert_eq!((after, tripped), (*meter, Some(false)));
        }
    });
    assert!(healthy > 1_000, "a fast path that is never taken");
}

#[test]
fn a_success_changes_nothing_and_trips_nothing_where_the_meter_calls_itself_healthy() {
    assert_healthy_is_fixed(&consecutive(5), 1);
    assert_healthy_is_fixed(&rate(50, 10, 5), 2);
    assert_healthy_is_fixed(&rate(50, 47, 47), 3);
    assert_healthy_is_fixed(&rate(1, 1, 1), 4);
    assert_healthy_is_fixed(&meter(5, SECOND), 5);
    assert_healthy_is_fixed(&(consecutive(5), rate(50, 10, 5)), 6);
    assert_healthy_is_fixed(&(rate(50, 10, 5), consecutive(5)), 7);
}

#[test]
fn a_meter_keeps_an_instant_in_place_of_what_it_counted() {
    fn keeps(mut meter: impl Meter) {
        for until in [0, 1, u64::from(u32::MAX), 1 << 32, 0x1234_5678_9ABC_DEF0, u64::MAX].map(Instant::from_nanos) {
            meter.keep(until);
            assert_eq!(meter.kept(), until);
        }
    }
    keeps(Consecutive::FRESH);
    keeps(Ring::FRESH);
    keeps(Drained::FRESH);
    keeps((Consecutive::FRESH, Ring::FRESH));
    let mut pair = (Consecutive::FRESH, Consecutive { failures: 3, high: 0 });
    pair.keep(Instant::MAX);
    assert_eq!(pair.1, Consecutive::FRESH);
}

fn assert_bits_hold_it<T: Trip<Meter: PackedMeter>>(trip: &T, seed: u64) {
    assert_eq!(T::Meter::FRESH.to_bits(), 0, "fresh is zero");
    wander(trip, seed, |meter, _| {
        assert_eq!(T::Meter::from_bits(meter.to_bits()), *meter);
        assert_eq!(meter.to_bits() >> <T::Meter as PackedMeter>::BITS, 0, "within its bits: {meter:?}");
    });
}

#[test]
fn the_bits_of_a_meter_are_all_of_it_and_a_fresh_one_has_none() {
    assert_bits_hold_it(&consecutive(5), 1);
    assert_bits_hold_it(&rate(50, 10, 5), 2);
    assert_bits_hold_it(&rate(50, 47, 47), 3);
    assert_bits_hold_it(&meter(5, SECOND), 4);
    assert_bits_hold_it(&(consecutive(5), consecutive(9)), 5);
}

/// An hour is configured, and the breaker has reopened three times in a row.
fn fourth_opening() -> Opening {
    Opening { configured: Span::of(HOUR), reopened: 3, counts: Counts::default(), at: Instant::START }
}

#[test]
fn growing_periods_change_nothing_but_the_periods() {
    let (plain, periods) = (rate(50, 4, 2), Backoff::exponential(SECOND));
    let growing = Growing::new(plain, periods, 1).expect("good periods");
    let (mut one, mut other) = (Ring::FRESH, Ring::FRESH);
    let mut random = Rng::new(9);
    for _ in 0..1_000 {
        let failed = random.next().is_multiple_of(2);
        assert_eq!(
            growing.record(&mut one, Sample::of(failed), None),
            plain.record(&mut other, Sample::of(failed), None)
        );
        assert_eq!((one, growing.counts(&one, None)), (other, plain.counts(&other, None)));
        assert_eq!(growing.is_healthy(&one), plain.is_healthy(&other));
    }
    // Other settings of what is within are carried over as they are by itself.
    let smaller = rate(50, 2, 2);
    (one, other) = (Ring(0b1_0110), Ring(0b1_0110));
    Growing::new(smaller, periods, 1).expect("good periods").adapt(&mut one, &growing, Instant::START);
    smaller.adapt(&mut other, &plain, Instant::START);
    assert_eq!((one, one), (other, Ring(0b110)));
    assert_eq!(plain.open_span(&fourth_opening()), Span::of(HOUR));
    let span = growing.open_span(&fourth_opening()).duration();
    assert!((SECOND * 36 / 5..=SECOND * 44 / 5).contains(&span), "8 s, more or less a tenth: {span:?}");
}

#[test]
fn a_computed_open_time_changes_nothing_but_the_periods_and_is_handed_the_one_it_replaces() {
    fn doubled(opening: &Opening) -> Duration {
        2 * opening.configured.duration()
    }
    let (plain, periods) = (rate(50, 4, 2), Backoff::exponential(SECOND).with_jitter(crate::backoff::Jitter::None));
    let computed = OpenTime::new(Growing::new(plain, periods, 1).expect("good periods"), doubled);
    let (mut one, mut other) = (Ring::FRESH, Ring::FRESH);
    let mut random = Rng::new(9);
    for _ in 0..1_000 {
        let sample = Sample::of(random.next().is_multiple_of(2));
        assert_eq!(computed.record(&mut one, sample, None), plain.record(&mut other, sample, None));
        assert_eq!((one, computed.counts(&one, None)), (other, plain.counts(&other, None)));
        assert_eq!(computed.is_healthy(&one), plain.is_healthy(&other));
    }
    let smaller = OpenTime::new(rate(50, 2, 2), doubled);
    one = Ring(0b1_0110);
    smaller.adapt(&mut one, &OpenTime::new(plain, doubled), Instant::START);
    assert_eq!(one, Ring(0b110), "carried over as by what is within");
    assert_eq!(computed.slow_after(), Span::MAX);
    assert_eq!(computed.open_span(&fourth_opening()).duration(), 16 * SECOND);
}

#[test]
fn the_jitter_of_growing_periods_goes_by_all_of_the_time() {
    let growing = Growing::new(consecutive(1), Backoff::constant(HOUR).with_jitter(crate::backoff::Jitter::Full), 1)
        .expect("good periods");
    for shift in [0, 32] {
        let span =
            |part: u64| growing.open_span(&Opening { at: Instant::from_nanos(part << shift), ..fourth_opening() });
        let mut spans: Vec<_> = (1..=20).map(span).collect();
        spans.sort();
        spans.dedup();
        assert_eq!(spans.len(), 20, "of bits {shift} and above");
    }
}

#[test]
fn a_pair_carries_over_both() {
    let (before, after) = ((rate(50, 4, 2), rate(50, 4, 2)), (rate(50, 2, 2), rate(50, 3, 3)));
    let mut meters = (Ring(0b1_0110), Ring(0b1_0110));
    after.adapt(&mut meters, &before, Instant::START);
    assert_eq!(meters, (Ring(0b110), Ring(0b1110)));
}

#[test]
fn a_meter_carried_over_at_the_clocks_end_stays_within_its_bits() {
    let (slow, mut drained) = (meter(1, 70 * HOUR), Drained((1 << BITS) - 1));
    // Ten seconds before the end, and full.
    let now = Instant::from_nanos(u64::MAX - 10_000_000_000);
    slow.adapt(&mut drained, &meter(1_000, SECOND), now);
    assert_eq!(drained, Drained((1 << BITS) - 1));
}

#[test]
fn a_pair_stays_open_for_the_longer_of_its_periods() {
    let growing = |base| {
        let periods = Backoff::exponential(base).with_jitter(crate::backoff::Jitter::None);
        Growing::new(consecutive(1), periods, 0).expect("good periods")
    };
    let span = |pair: (Growing<_>, Growing<_>)| pair.open_span(&fourth_opening()).duration();
    assert_eq!(span((growing(SECOND), growing(3 * SECOND))), 24 * SECOND);
    assert_eq!(span((growing(3 * SECOND), growing(SECOND))), 24 * SECOND);
}

#[test]
fn bits_are_counted_by_halves_as_well() {
    let mut random = Rng::new(5);
    for _ in 0..10_000 {
        let word = (u64::from(random.next()) << 32 | u64::from(random.next())) >> (random.next() % 64);
        assert_eq!((ones_by_halves(word), ones(word)), (word.count_ones(), word.count_ones()), "{word:#x}");
    }
    assert_eq!((ones_by_halves(0), ones_by_halves(u64::MAX)), (0, 64));
}
