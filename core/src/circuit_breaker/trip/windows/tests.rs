use super::*;
use crate::cell::{Fresh as _, Local};
use crate::circuit_breaker::{CircuitBreaker, Config, ConsecutiveFailures, StateKind};
use crate::outcome::Verdict;
use crate::testing::ManualClock;
use crate::valid;

const HALF: Ratio = Ratio::percent(50);
const TEN_SECONDS: Duration = Duration::from_secs(10);

fn at(millis: u64) -> Option<Instant> {
    Some(Instant::from_millis(millis))
}

fn slow() -> Sample {
    Sample { slow: true, ..Sample::of(false) }
}

/// The last answer of a condition over these outcomes.
fn run<T: Trip>(trip: &T, samples: &[(u64, Sample)]) -> (bool, Counts) {
    let mut meter = <T::Meter as crate::cell::Fresh>::FRESH;
    let mut tripped = false;
    for &(millis, sample) in samples {
        tripped = trip.record(&mut meter, sample, at(millis)).expect("it has the time");
    }
    (tripped, trip.counts(&meter, samples.last().and_then(|last| at(last.0))))
}

#[test]
fn a_rate_waits_for_its_minimum_and_a_success_may_be_what_reaches_it() {
    let (bad, good) = (Sample::of(true), Sample::of(false));
    let calls = valid!(CountBased::<4>::new(HALF, 100));
    let calls = calls.with_minimum_calls(5).expect("a good minimum");
    let time = valid!(TimeBased::<10>::new(HALF, TEN_SECONDS)).with_minimum_calls(5).expect("a good minimum");
    let samples = [(0, bad), (1, bad), (2, bad), (3, good), (4, good)];
    let (before, after) = (samples.get(..4).expect("four"), &samples);
    let counts = Counts { calls: 5, failures: 3, slow: 0 };
    assert!(!run(&calls, before).0 && !run(&time, before).0);
    assert_eq!((run(&calls, after), run(&time, after)), ((true, counts), (true, counts)));
}

#[test]
fn a_number_of_failures_trips_at_once_and_only_while_they_are_in_the_window() {
    let (bad, good) = (Sample::of(true), Sample::of(false));
    let calls = valid!(CountBased::<1>::of_failures(3, 5));
    assert!(run(&calls, &[(0, bad), (0, bad), (0, bad)]).0, "no minimum");
    assert!(!run(&calls, &[(0, bad), (0, bad), (0, good), (0, good), (0, good), (0, bad)]).0, "the first has left");
    let time = valid!(TimeBased::<2>::of_failures(2, Duration::from_secs(2)));
    assert!(run(&time, &[(0, bad), (1_999, bad)]).0);
    assert!(!run(&time, &[(0, bad), (2_000, bad)]).0, "the first has left");
}

#[test]
fn a_call_is_slow_above_its_limit_or_when_the_classifier_says_so() {
    let limit = Duration::from_millis(100);
    let calls = valid!(CountBased::<1>::of_slow(HALF, Duration::from_millis(100), 2));
    let took = |nanos| Sample { took: Span::from_nanos(nanos), ..Sample::of(false) };
    let at_most = Span::of(limit).as_nanos();
    assert_eq!(run(&calls, &[(0, took(at_most)), (0, took(at_most))]).1.slow, 0, "at the limit is not above it");
    let tripped = (true, Counts { calls: 2, failures: 0, slow: 1 });
    assert_eq!(run(&calls, &[(0, took(at_most)), (0, took(at_most + 1))]), tripped);
    assert_eq!(run(&calls, &[(0, took(0)), (0, slow())]), tripped);
    let time = valid!(TimeBased::<10>::new(HALF, TEN_SECONDS)).with_slow_rate(HALF, limit).expect("a good rate");
    assert_eq!((calls.slow_after(), time.slow_after()), (Span::of(limit), Span::of(limit)));
    assert_eq!(
        valid!(TimeBased::<10>::new(HALF, TEN_SECONDS)).slow_after(),
        Span::MAX,
        "no clock for who does not ask"
    );
}

#[test]
fn what_makes_no_sense_is_refused() {
    let field = |error: Option<ConfigError>| error.map(|error| error.field());
    assert_eq!(field(CountBased::<1>::new(Ratio::ZERO, 5).err()), Some("failure_rate"));
    assert_eq!(field(CountBased::<1>::new(Ratio::percent(101), 5).err()), Some("failure_rate"));
    assert_eq!(field(CountBased::<1>::new(HALF, 0).err()), Some("window"));
    assert_eq!(field(CountBased::<1>::new(HALF, 33).err()), Some("window"));
    assert_eq!(field(CountBased::<1>::of_failures(0, 5).err()), Some("failures"));
    assert_eq!(field(CountBased::<1>::of_failures(6, 5).err()), Some("failures"));
    let window = CountBased::<1>::new(Ratio::percent(50), 5).expect("it makes sense");
    assert_eq!(field(window.with_failures(6).err()), Some("failures"));
    assert_eq!(field(CountBased::<1>::of_slow(Ratio::ZERO, TEN_SECONDS, 5).err()), Some("slow_rate"));
    let calls = valid!(CountBased::<1>::new(HALF, 5));
    assert_eq!(field(calls.with_minimum_calls(0).err()), Some("minimum_calls"));
    assert_eq!(field(calls.with_minimum_calls(6).err()), Some("minimum_calls"));
    assert_eq!(field(TimeBased::<10>::new(HALF, Duration::from_nanos(9)).err()), Some("period"));
    assert_eq!(field(TimeBased::<10>::of_failures(0, TEN_SECONDS).err()), Some("failures"));
    let time = valid!(TimeBased::<10>::new(HALF, TEN_SECONDS));
    assert_eq!(field(time.with_minimum_calls(0).err()), Some("minimum_calls"));
    // At their bounds.
    assert!(CountBased::<1>::new(HALF, 32).is_ok() && CountBased::<1>::of_failures(5, 5).is_ok());
    assert!(calls.with_minimum_calls(5).is_ok() && TimeBased::<10>::of_failures(u32::MAX, TEN_SECONDS).is_ok());
}

#[test]
fn unless_told_otherwise_a_rate_waits_for_a_full_window_or_for_ten_calls() {
    let bad = [(0, Sample::of(true)); 10];
    let calls = CountBased::<1>::new(HALF, 5).expect("it makes sense");
    let time = TimeBased::<10>::new(HALF, TEN_SECONDS).expect("it makes sense");
    for count in 1..=10 {
        let bad = bad.get(..count).expect("ten");
        assert_eq!((run(&calls, bad).0, run(&time, bad).0), (count >= 5, count == 10), "{count} calls");
    }
}

#[test]
fn a_window_of_calls_is_healthy_when_it_is_full_of_good_ones() {
    let (calls, mut meter) = (CountBased::<1>::new(HALF, 3).expect("it makes sense"), CountWindow::new());
    let mut push = |failed| {
        calls.record(&mut meter, Sample::of(failed), None);
        calls.is_healthy(&meter)
    };
    assert_eq!([false, false, false].map(&mut push), [false, false, true]);
    assert_eq!([true, false, false, false].map(push), [false, false, false, true]);
}

#[test]
fn a_window_of_time_is_carried_over_to_buckets_of_another_length() {
    let windows = [1, 5].map(|seconds| TimeBased::<2>::new(HALF, Duration::from_secs(2 * seconds)));
    let [one, five] = windows.map(|window| window.expect("it makes sense"));
    let mut meter = crate::cell::Fresh::FRESH;
    one.record(&mut meter, Sample::of(true), at(1_500));
    five.adapt(&mut meter, &one, Instant::from_millis(1_600));
    let calls = |now| five.counts(&meter, at(now)).calls;
    assert_eq!([9_999, 10_000].map(calls), [1, 0]);
}

#[test]
fn without_the_time_a_time_window_leaves_its_meter_as_it_is() {
    let time = valid!(TimeBased::<10>::new(HALF, TEN_SECONDS));
    let mut meter = TimeWindow::new();
    assert_eq!(time.record(&mut meter, Sample::of(true), None), None);
    assert_eq!(meter, TimeWindow::new());
}

#[test]
fn a_breaker_opens_and_closes_again_by_a_time_window_or_another_condition() {
    let window = valid!(TimeBased::<10>::new(HALF, TEN_SECONDS)).with_minimum_calls(4).expect("a good minimum");
    let config = Config::new().with_trip((window, valid!(ConsecutiveFailures::new(3))));
    let clock = ManualClock::new();
    let breaker = CircuitBreaker::<Local, _>::new(config.validate().expect("it makes sense"));
    let call = |verdict| breaker.try_acquire(&clock).expect("it lets the call through").record(verdict);
    for verdict in [Verdict::SUCCESS, Verdict::TRANSIENT, Verdict::SUCCESS] {
        call(verdict);
        assert_eq!(breaker.state(), StateKind::Closed);
    }
    call(Verdict::TRANSIENT);
    assert_eq!(breaker.state(), StateKind::Open, "two of four");
    clock.advance(Duration::from_secs(60));
    for _ in 0..3 {
        call(Verdict::SUCCESS);
    }
    assert_eq!(breaker.state(), StateKind::Closed);
    assert_eq!(breaker.snapshot(&&clock).counts, Counts::default(), "it starts over");
}

#[test]
fn a_breaker_with_a_large_window_stands_in_a_static() {
    const CONFIG: crate::Valid<Config<CountBased<313>>> =
        valid!(Config::new().with_trip(valid!(CountBased::<313>::new(HALF, 10_000))).validate());
    std::thread_local! {
        static BREAKER: CircuitBreaker<Local, CountBased<313>> = const { CircuitBreaker::new(CONFIG) };
    }
    BREAKER.with(|breaker| {
        for call in 0..10_000_u32 {
            assert_eq!(breaker.state(), StateKind::Closed, "call {call}");
            let permit = breaker.try_acquire(Instant::START).expect("it is closed");
            if call % 2 == 0 { permit.failure() } else { permit.success() }
        }
        assert_eq!(breaker.state(), StateKind::Open);
    });
}

#[test]
fn a_clock_of_coarse_steps_leaves_a_time_window_its_number() {
    let trip = TimeBased::<10>::of_failures(10, Duration::from_secs(1)).expect("a good window");
    for step in [1, 4, 10, 100] {
        let trips = |per_second: u64| {
            let mut meter = TimeWindow::FRESH;
            (0..per_second * 60).any(|failure| {
                let shown = failure * 1_000 / per_second / step * step;
                trip.record(&mut meter, Sample::of(true), at(shown)).expect("it has the time")
            })
        };
        assert_eq!([trips(8), trips(12)], [false, true], "by steps of {step} ms");
    }
}
