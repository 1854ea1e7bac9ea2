use super::*;
use crate::rng::Rng;
use crate::testing::tests::ms;

const HALF: Ratio = Ratio::percent(50);

#[test]
fn weights_are_those_of_the_exponential_function() {
    for x in (0..30_000).map(|thousandth| f64::from(thousandth) / 1_000.0) {
        let weight = decay((x * WHOLE as f64) as u64) as f64 / WHOLE as f64;
        assert!((weight - (-x).exp()).abs() < 2e-9, "e^-{x} is not {weight}");
    }
    assert_eq!((decay(0), decay(u64::MAX)), (WHOLE, 0));
}

/// The same in floating point.
struct Average {
    failing: Option<f64>,
    calls: f64,
    last: f64,
}

impl Average {
    const NEW: Self = Self { failing: None, calls: 0.0, last: 0.0 };

    fn record(&mut self, failed: bool, at: f64) {
        let (x, weight) = (f64::from(u8::from(failed)), (-(at - self.last).max(0.0)).exp());
        self.failing = Some(self.failing.map_or(x, |failing| failing * weight + x * (1.0 - weight)));
        (self.calls, self.last) = (self.calls * weight + 1.0, self.last.max(at));
    }

    /// Whether it is below the rate; nothing where that is too close to tell.
    fn trips(&self, rate: Ratio, minimum: f64) -> Option<bool> {
        let beyond = 1.0 - f64::from(rate.as_basis_points()) / 10_000.0;
        let by = self.failing.unwrap_or(0.0) - beyond;
        (by.abs() > 1e-6 && (self.calls - minimum).abs() > 1e-6).then_some(by > 0.0 && self.calls > minimum)
    }
}

#[test]
fn an_average_of_calls_is_that_of_floating_point() {
    let mut compared = 0;
    for seed in 0..100 {
        let mut rng = Rng::new(seed);
        let (calls, rate) = (1 + rng.next() % 200, Ratio::basis_points(1 + rng.next() % 10_000));
        let trip = AverageOfCalls::new(rate, calls).expect("it makes sense").with_minimum_calls(3);
        let (mut meter, mut average) = (CallsAverage::FRESH, Average::NEW);
        for call in 1..=2_000_u32 {
            let failed = rng.next() % 100 < seed as u32;
            let found = trip.record(&mut meter, Sample::of(failed), None);
            average.record(failed, f64::from(call) / f64::from(calls));
            if let Some(expected) = average.trips(rate, 0.5) {
                assert_eq!(found, Some(expected && call >= 3), "seed {seed}, call {call}");
                compared += 1;
            }
            assert_eq!(CallsAverage::from_bits(meter.to_bits()), meter);
        }
    }
    assert!(compared > 190_000, "{compared}");
}

#[test]
fn an_average_over_time_is_that_of_floating_point() {
    let mut compared = 0;
    for seed in 0..100 {
        let mut rng = Rng::new(seed);
        let (period, rate) = (1 + u64::from(rng.next() % 1_000_000), Ratio::basis_points(1 + rng.next() % 10_000));
        let trip = AverageOverTime::new(rate, Duration::from_nanos(period)).expect("it makes sense");
        let trip = trip.with_minimum_calls(3);
        let (mut meter, mut average, mut now) = (TimeAverage::FRESH, Average::NEW, 0_u64);
        for call in 0..2_000 {
            now += u64::from(rng.next()) % (period / 20 + 2);
            let failed = rng.next() % 100 < seed as u32;
            let found = trip.record(&mut meter, Sample::of(failed), Some(Instant::from_nanos(now)));
            average.record(failed, now as f64 / period as f64);
            if let Some(expected) = average.trips(rate, 3.0) {
                assert_eq!(found, Some(expected), "seed {seed}, call {call}");
                compared += 1;
            }
        }
    }
    assert!(compared > 190_000, "{compared}");
}

#[test]
fn of_two_hundred_calls_without_failure_seventy_failures_halve_an_average_of_a_hundred() {
    let trip = AverageOfCalls::new(HALF, 100).expect("it makes sense");
    let mut meter = CallsAverage::FRESH;
    for _ in 0..200 {
        assert_eq!(trip.record(&mut meter, Sample::of(false), None), Some(false));
    }
    assert!(trip.is_healthy(&meter));
    let failures = (1..).find(|_| trip.record(&mut meter, Sample::of(true), None) == Some(true));
    // 100 · ln 2, rounded up.
    assert_eq!(failures, Some(70));
    // Sooner or later nothing is left of them.
    let successes = (1..).find(|_| {
        let _ = trip.record(&mut meter, Sample::of(false), None);
        trip.is_healthy(&meter)
    });
    assert!(successes.is_some_and(|successes| successes < 2_500), "{successes:?}");
}

#[test]
fn time_is_needed_for_an_average_over_time_and_may_step_back_or_stand_still() {
    let trip = AverageOverTime::new(Ratio::ONE, ms(1_000)).expect("it makes sense").with_minimum_calls(5);
    let mut meter = TimeAverage::FRESH;
    assert_eq!((trip.record(&mut meter, Sample::of(true), None), meter), (None, TimeAverage::FRESH));
    let now = Some(Instant::from_millis(30_000));
    for call in 1..=5 {
        assert_eq!(trip.record(&mut meter, Sample::of(true), now), Some(call == 5), "call {call}");
    }
    assert_eq!(trip.counts(&meter, now), Counts { calls: 5, failures: 5, slow: 0 });
    assert_eq!(trip.record(&mut meter, Sample::of(false), Some(Instant::START)), Some(true), "it is still as it was");
    assert_eq!(trip.record(&mut meter, Sample::of(false), Some(Instant::MAX)), Some(false));
    assert_eq!(trip.counts(&meter, Some(Instant::MAX)), Counts { calls: 1, failures: 0, slow: 0 });
}

#[test]
fn an_average_that_makes_no_sense_is_refused() {
    let field = |error: ConfigError| error.field();
    assert_eq!(AverageOfCalls::new(Ratio::ZERO, 9).map_err(field).err(), Some("success_rate"));
    assert_eq!(AverageOfCalls::new(Ratio::percent(101), 9).map_err(field).err(), Some("success_rate"));
    assert_eq!(AverageOfCalls::new(HALF, 0).map_err(field).err(), Some("calls"));
    assert_eq!(AverageOverTime::new(HALF, Duration::ZERO).map_err(field).err(), Some("period"));
    assert!(AverageOverTime::new(HALF, Duration::MAX).is_ok() && AverageOfCalls::new(HALF, u32::MAX).is_ok());
}

#[test]
fn an_average_keeps_an_instant_in_place_of_what_it_counted() {
    fn keeps(mut meter: impl Meter) {
        for until in [0, 1, u64::from(u32::MAX), 1 << 32, 0x1234_5678_9ABC_DEF0, u64::MAX].map(Instant::from_nanos) {
            meter.keep(until);
            assert_eq!(meter.kept(), until);
        }
    }
    keeps(CallsAverage::FRESH);
    keeps(TimeAverage::FRESH);
}

#[test]
fn without_a_failure_no_average_trips_whatever_the_rate() {
    let (calls, time) = (AverageOfCalls::new(Ratio::ONE, 10), AverageOverTime::new(Ratio::ONE, ms(10)));
    let (calls, time) = (calls.expect("it makes sense"), time.expect("it makes sense"));
    let (mut counted, mut timed) = (CallsAverage::FRESH, TimeAverage::FRESH);
    for call in 0..100 {
        let now = Some(Instant::from_millis(call));
        assert_eq!(calls.record(&mut counted, Sample::of(false), None), Some(false));
        assert_eq!(time.record(&mut timed, Sample::of(false), now), Some(false));
        assert!(!time.is_healthy(&timed), "time makes every call count");
    }
}

#[test]
fn an_average_of_calls_is_healthy_when_a_further_success_changes_nothing() {
    let trip = AverageOfCalls::new(HALF, 5).expect("it makes sense");
    let mut meter = CallsAverage::FRESH;
    let mut record = |failed| {
        trip.record(&mut meter, Sample::of(failed), None);
        let (mut after, healthy) = (meter, trip.is_healthy(&meter));
        trip.record(&mut after, Sample::of(false), None);
        assert_eq!(healthy, after == meter);
        healthy
    };
    assert!(!trip.is_healthy(&CallsAverage::FRESH));
    assert!((1..10).all(|_| !record(false)) && record(false), "from the minimum of calls on");
    assert!(!record(true));
    assert!((0..1_000).any(|_| record(false)), "once the failure weighs nothing any more");
}

#[test]
fn an_average_shows_its_calls_as_far_as_they_matter() {
    let trip = AverageOfCalls::new(HALF, 5).expect("it makes sense");
    let mut meter = CallsAverage::FRESH;
    for calls in 1..=20 {
        trip.record(&mut meter, Sample::of(true), None);
        let calls = calls.min(MINIMUM_CALLS);
        assert_eq!(trip.counts(&meter, None), Counts { calls, failures: calls, slow: 0 });
    }
    let fewer = trip.with_minimum_calls(4);
    fewer.adapt(&mut meter, &trip, Instant::START);
    assert_eq!(fewer.counts(&meter, None), Counts { calls: 4, failures: 4, slow: 0 });
}
