use core::cell::Cell;
use core::future::Future;
use core::task::{Context, Waker};
use std::boxed::Box;
use std::format;
use std::string::ToString;
use std::vec::Vec;

use super::*;
use crate::Ratio;
use crate::backoff::{Backoff, Jitter};
use crate::cell::Local;
use crate::failure::Reason;
use crate::outcome::Verdict;
use crate::pipeline::{Pipeline, Standard};
use crate::queue::LocalQueue;
use crate::retry::{self, RetryPolicy};
use crate::rng::Rng;
use crate::testing::{ManualClock, Recorder, Script, Step, VirtualExecutor};
use crate::timeout::Timeout;
use crate::valid;

mod faults;

type Test = Result<(), Box<dyn core::error::Error>>;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// An algorithm on its own.
struct Alone<A: Algorithm> {
    config: Config<A>,
    learned: Remembered<A::Memory>,
}

impl<A: Algorithm> Alone<A> {
    fn new(algorithm: Result<Valid<A>, ConfigError>, (min, initial, max): (u32, u32, u32)) -> Self {
        let config = Config::new(algorithm.expect("valid")).with_limits(min, initial, max);
        Self { config: config.validate().expect("valid").get(), learned: Remembered::FRESH }
    }

    fn record(&mut self, sample: Sample) -> u32 {
        let Config { algorithm, limits, .. } = self.config;
        self.learned.advance(&self.config, |memory, limit| algorithm.record(memory, limit, &sample, &limits)).to
    }

    /// A call of so many milliseconds that ended a second after the one before.
    fn took(&mut self, millis: u64, in_flight: u32) -> u32 {
        self.took_at(0, millis, in_flight)
    }

    fn took_at(&mut self, ended: u64, millis: u64, in_flight: u32) -> u32 {
        let ended = Instant::from_millis(1_000_000 + ended);
        self.record(Sample { latency: Span::of(ms(millis)), in_flight, dropped: false, ended })
    }

    fn dropped(&mut self, millis: u64, in_flight: u32) -> u32 {
        let ended = Instant::from_millis(1_000_000);
        self.record(Sample { latency: Span::of(ms(millis)), in_flight, dropped: true, ended })
    }

    fn timeout_at(&mut self, at: u64) -> u32 {
        let Config { algorithm, limits, .. } = self.config;
        let now = Instant::from_millis(1_000_000 + at);
        self.learned.advance(&self.config, |memory, limit| algorithm.handle_timeout(memory, limit, &limits, now)).to
    }

    fn memory(&self) -> &A::Memory {
        &self.learned.memory
    }
}

#[test]
fn aimd_rises_by_one_while_half_is_in_use_and_falls_by_a_share_when_a_call_is_dropped() {
    let mut aimd = Alone::new(Aimd::new().validate(), (20, 20, 22));
    assert_eq!(aimd.took(1, 9), 20, "less than half of it is in use");
    assert_eq!([aimd.took(1, 10), aimd.took(1, 11), aimd.took(1, 11)], [21, 22, 22]);
    assert_eq!([aimd.dropped(0, 0), aimd.dropped(0, 0)], [20, 20], "rounded down to 19, and not below 20");
    let mut aimd = Alone::new(Aimd::new().with_timeout(ms(100)).validate(), (1, 30, 200));
    assert_eq!([aimd.took(100, 30), aimd.took(101, 30)], [31, 27], "what takes too long counts as dropped");
}

fn fixed_vegas() -> Vegas {
    Vegas::new().with_alpha(Amount::Fixed(3)).with_beta(Amount::Fixed(6))
}

#[test]
fn vegas_goes_by_how_many_calls_wait() {
    for (latency, in_flight, next) in [
        (10, 10, 16), // nobody waits: up by all of beta
        (12, 10, 11), // two: up by one
        (14, 14, 10), // three: just right
        (25, 10, 10), // six
        (26, 10, 9),  // seven: down by one
        (10, 4, 10),  // less than half of the limit is in use: who could tell
    ] {
        let mut vegas = Alone::new(fixed_vegas().validate(), (1, 10, 20));
        assert_eq!(vegas.took(10, in_flight), 10, "the first is the latency without load");
        assert_eq!(vegas.took(latency, in_flight), next, "{latency} ms");
    }
    let mut vegas = Alone::new(Vegas::new().validate(), (1, 10_000, 20_000));
    assert_eq!([vegas.took(10_000, 5_000), vegas.took(10_000, 6_000)], [10_000, 10_024], "six times log₁₀");
    let half = Vegas::new().with_smoothing(Ratio::percent(50)).with_decrease(Amount::Share(Ratio::percent(50)));
    let mut vegas = Alone::new(half.validate(), (1, 100, 200));
    assert_eq!([vegas.took(10, 100), vegas.took(20, 100), vegas.took(20, 100)], [100, 75, 56]);
    assert_eq!(vegas.dropped(10, 0), 42, "a drop needs no load to be believed");
}

#[test]
fn vegas_measures_the_latency_without_load_anew() {
    let mut vegas = Alone::new(fixed_vegas().with_probe_multiplier(2).validate(), (1, 10, 10));
    assert_eq!(vegas.took(10, 10), 10);
    let limits: Vec<u32> = (0..40).map(|_| vegas.took(100, 10)).collect();
    let lowest = *limits.iter().min().expect("forty");
    assert!(lowest < 10, "it seems overloaded: {limits:?}");
    assert_eq!(limits.last(), Some(&10), "until the latency is found to be what it is now: {limits:?}");
}

#[test]
fn gradient2_rises_by_its_queue_smoothed_and_never_falls_by_more_than_half() {
    let mut gradient = Alone::new(Gradient2::new().validate(), (20, 20, 200));
    // Four times a fifth is 0.8.
    let rising: Vec<u32> = (0..5).map(|_| gradient.took(10, 20)).collect();
    assert_eq!(rising, [20, 21, 22, 23, 24]);
    assert_eq!(gradient.took(15, 24), 24, "within the tolerance: still up");
    assert_eq!(gradient.took(10_000, 11), 24, "less than half of it is in use");
    // The long average is still far below: 24.8 · ½ + 4, a fifth of the way.
    assert_eq!(gradient.took(1_000_000, 25), 23);
}

#[test]
fn gradient2_comes_down_from_a_long_overload_faster_than_its_average() {
    let mut gradient = Alone::new(Gradient2::new().validate(), (1, 20, 200));
    for _ in 0..10 {
        gradient.took(100, 0);
    }
    let long = gradient.memory().average().as_nanos();
    gradient.took(10, 0);
    let lowered = gradient.memory().average().as_nanos();
    // The average alone would lose 0.3 %.
    assert!(lowered < long * 91 / 100, "{long} to {lowered}");
}

/// The published formulas in floating point, step by step from where ours stands.
#[test]
fn vegas_and_gradient2_follow_their_formulas_in_floating_point() {
    fn at<A: Algorithm>(alone: &Alone<A>) -> f64 {
        f64::from(alone.learned.estimate(&alone.config).parts()) / 1_024.0
    }
    for seed in 0..20 {
        let mut rng = Rng::new(seed);
        let smoothing = Ratio::percent(20 + 10 * (rng.next() % 9));
        let s = f64::from(smoothing.as_basis_points()) / 10_000.0;
        let vegas = Vegas::new().with_smoothing(smoothing).with_probe_multiplier(u32::MAX);
        let mut vegas = Alone::new(vegas.validate(), (1, 50, 1_000));
        let mut gradient = Alone::new(Gradient2::new().with_smoothing(smoothing).validate(), (10, 50, 1_000));
        let (mut without_load, mut long, mut count) = (0.0_f64, 0.0_f64, 0.0_f64);
        for step in 0..2_000 {
            let (v, g) = (at(&vegas), at(&gradient));
            let millis = u64::from(10 + rng.next() % 40) * if (step / 100) % 3 == 0 { 1 } else { 2 };
            let (took, in_flight) = (millis as f64, rng.next() % 120);
            vegas.took(millis, in_flight);
            gradient.took(millis, in_flight);

            let mut next = v;
            if without_load == 0.0 || took < without_load {
                without_load = took;
            } else if f64::from(in_flight) * 2.0 >= v {
                let log = v.log10().floor().max(1.0);
                let waiting = (v * (1.0 - without_load / took) - 1e-9).ceil();
                let wanted = match waiting {
                    _ if waiting <= log => v + 6.0 * log,
                    _ if waiting < 3.0 * log => v + log,
                    _ if waiting > 6.0 * log => v - log,
                    _ => v,
                };
                next = v * (1.0 - s) + wanted.clamp(1.0, 1_000.0) * s;
            }
            assert!((at(&vegas) - next).abs() < 0.002, "vegas, seed {seed}, step {step}: {}, not {next}", at(&vegas));

            count += 1.0;
            long += if count <= 10.0 { (took - long) / count } else { (took - long) * 2.0 / 601.0 };
            let mut next = g;
            if f64::from(in_flight) * 2.0 >= g.floor() {
                let wanted = g * (1.5 * long / took).clamp(0.5, 1.0) + 4.0;
                next = (g * (1.0 - s) + wanted * s).clamp(10.0, 1_000.0);
            }
            assert!(
                (at(&gradient) - next).abs() < 0.005,
                "gradient2, seed {seed}, step {step}: {}, not {next}",
                at(&gradient)
            );
            if long / took > 2.0 {
                long *= 0.9;
            }
        }
    }
}

#[test]
fn a_window_is_one_call_to_the_algorithm_within() {
    let windows = Windowed::new(Aimd::new().validate().expect("valid")).with_minimum_samples(3);
    let mut aimd = Alone::new(windows.validate(), (1, 10, 20));
    assert_eq!([aimd.took_at(0, 5, 5), aimd.took_at(1, 5, 2)], [10, 10], "two are no window");
    assert_eq!(aimd.took_at(2, 5, 1), 11, "the most that were in flight: 5");
    // Within the second after.
    assert_eq!([3, 4, 5, 6].map(|at| aimd.took_at(at, 5, 11)), [11; 4]);
    assert_eq!([1_001, 1_002].map(|at| aimd.took_at(at, 5, 11)), [11, 12]);
    aimd.dropped(5, 1);
    assert_eq!([2_100, 2_200].map(|at| aimd.took_at(at, 5, 11)), [12, 10], "one of three was dropped");
    let few = windows.with_dropped_share(Ratio::percent(50));
    let mut aimd = Alone::new(few.validate(), (1, 10, 20));
    aimd.dropped(5, 5);
    assert_eq!([0, 0].map(|at| aimd.took_at(at, 5, 5)), [10, 11], "a third is less than half");
}

#[test]
fn a_window_lasts_for_twice_the_shortest_latency_within_bounds() {
    let windows = Windowed::new(Aimd::new().validate().expect("valid")).with_minimum_samples(1);
    let windows = windows.with_window(ms(100), ms(1_000));
    for (latency, lasts) in [(10, 100), (80, 160), (300, 600), (700, 1_000)] {
        let mut aimd = Alone::new(windows.validate(), (1, 10, 20));
        assert_eq!(aimd.took_at(0, latency, 10), 11);
        assert_eq!(aimd.took_at(0, latency, 11), 11, "the clock stands still");
        assert_eq!(aimd.took_at(lasts - 1, latency, 11), 11, "{latency} ms");
        assert_eq!(aimd.took_at(lasts, latency, 11), 12, "{latency} ms");
    }
}

#[test]
fn a_percentile_is_exact_where_all_are_the_same_and_near_elsewhere() {
    let median = Percentile::MEDIAN;
    let mut latencies = Spread::FRESH;
    assert_eq!(median.of(&latencies), Span::ZERO);
    for _ in 0..50 {
        median.add(&mut latencies, Span::of(ms(13)));
    }
    assert_eq!(median.of(&latencies), Span::of(ms(13)));
    let mut latencies = Spread::FRESH;
    for millis in 1..=1_000 {
        median.add(&mut latencies, Span::of(ms(millis)));
    }
    let found = median.of(&latencies).duration().as_millis();
    assert!((469..=531).contains(&found), "{found} ms");
}

fn gradient() -> Gradient {
    seeded(1)
}

fn seeded(seed: u64) -> Gradient {
    let measures = Gradient::new(seed).with_measured_calls(5).with_measure_interval(ms(30_000));
    measures.with_jitter(Ratio::ZERO).with_buffer(Ratio::ZERO)
}

/// A gradient that has measured `millis`; the time then is zero.
fn measured(gradient: Gradient, limits: (u32, u32, u32), millis: u64) -> Alone<Gradient> {
    let mut alone = Alone::new(gradient.validate(), limits);
    for call in 1..=5 {
        assert!(alone.memory().is_measuring());
        let limit = if call < 5 { limits.0 } else { limits.1 };
        assert_eq!(alone.took_at(0, millis, 1), limit, "the lowest limit while it measures");
    }
    assert!(!alone.memory().is_measuring());
    assert_eq!(alone.memory().without_load(), ms(millis));
    alone
}

#[test]
fn a_gradient_measures_then_follows_the_latency_and_has_a_root_of_headroom() {
    let mut alone = measured(gradient(), (3, 9, 1_000), 5);
    assert_eq!(alone.timeout_at(100), 9, "no calls, no change");
    alone.took_at(150, 5, 9);
    assert_eq!(alone.timeout_at(199), 9);
    assert_eq!(alone.timeout_at(200), 12, "9 · 1 + √9");
    alone.took_at(250, 1, 9);
    assert_eq!(alone.timeout_at(300), 28, "12 · 2 + √24: not five times as much");
    alone.took_at(350, 500, 9);
    assert_eq!(alone.timeout_at(400), 17, "28 · ½ + √14: not a hundredth");
    alone.took_at(450, 5, 9);
    assert_eq!(alone.took_at(501, 5, 9), 21, "a call is as good as the time: 17 + √17");
}

#[test]
fn a_gradient_measures_at_the_lowest_limit_and_goes_back_to_where_it_was() {
    let mut alone = measured(gradient(), (3, 9, 1_000), 5);
    alone.took_at(50, 5, 9);
    assert_eq!(alone.timeout_at(200), 12);
    assert_eq!(alone.timeout_at(29_999), 12);
    assert_eq!(alone.timeout_at(30_000), 3, "the interval is over");
    assert!(alone.memory().is_measuring());
    // Calls that began before, when more were in flight.
    for _ in 0..20 {
        assert_eq!(alone.took_at(30_010, 11, 12), 3);
    }
    assert!(alone.memory().is_measuring(), "they say nothing about the latency at the lowest limit");
    let limits: Vec<u32> = (0..5).map(|_| alone.took_at(30_020, 13, 3)).collect();
    assert_eq!(limits, [3, 3, 3, 3, 12]);
    assert_eq!(alone.memory().without_load(), ms(13));
}

#[test]
fn a_gradient_that_stays_at_the_lowest_limit_doubts_its_measurement() {
    let mut alone = measured(gradient(), (7, 7, 1_000), 5);
    for window in 1..=4 {
        alone.took_at(window * 101, 20, 7);
        assert_eq!(alone.timeout_at(window * 101 + 100), 7);
        assert!(!alone.memory().is_measuring());
    }
    alone.took_at(700, 20, 7);
    assert_eq!(alone.timeout_at(900), 7);
    assert!(alone.memory().is_measuring(), "the fifth time in a row");
    for _ in 0..5 {
        alone.took_at(1_000, 20, 7);
    }
    assert_eq!(alone.memory().without_load(), ms(20));
}

#[test]
fn the_jitter_of_a_gradient_only_makes_intervals_longer_and_differs_by_seed() {
    let interval = |seed| {
        let alone = measured(seeded(seed).with_jitter(JITTER), (3, 3, 10), 5);
        alone.memory().measure_at.saturating_duration_since(Instant::from_millis(1_000_000))
    };
    let intervals: Vec<_> = (0..100).map(interval).collect();
    assert!(intervals.iter().all(|at| (ms(30_000)..=ms(34_500)).contains(at)), "{intervals:?}");
    let distinct: std::collections::HashSet<_> = intervals.iter().collect();
    assert!(distinct.len() > 90);
}

#[test]
fn a_trend_moves_by_small_steps_and_is_not_moved_by_an_outlier() {
    let trend = Trend::new().with_baseline(ms(1_000));
    for (latency, limits) in [(1_000, [21, 22]), (2_000, [19, 18]), (1_300, [20, 20])] {
        let mut alone = Alone::new(trend.validate(), (1, 20, 200));
        assert_eq!([0, 0].map(|_| alone.took(latency, 10)), limits, "{latency} ms");
    }
    let mut alone = Alone::new(trend.validate(), (1, 20, 200));
    for _ in 0..5 {
        alone.took(1_000, 10);
    }
    assert_eq!([alone.took(60_000, 10), alone.took(1_000, 10)], [26, 27], "the median of five knows better");
    let mut alone = Alone::new(Trend::new().validate(), (1, 20, 200));
    for latency in [100, 300, 200, 200, 250] {
        alone.took(latency, 10);
    }
    assert_eq!(alone.memory().latency(), ms(200), "100, 300, 200, 200, 200 on average");
    let before = alone.took(100, 10);
    assert_eq!(alone.dropped(100, 10), before - 1, "a call that was dropped says enough");
}

#[test]
fn a_trend_stays_within_reach_of_what_is_in_use_and_of_what_was_lately() {
    let trend =
        |window| Trend::new().with_baseline(ms(1_000)).with_headroom(Ratio::percent(150)).with_stabilisation(window);
    let mut alone = Alone::new(trend(Duration::ZERO).validate(), (1, 20, 200));
    assert_eq!([alone.took_at(2_000, 1_000, 20), alone.took_at(4_000, 1_000, 5)], [21, 20], "7.5 is far below");
    let mut alone = Alone::new(trend(ms(10_000)).validate(), (1, 20, 200));
    let limits = [(2_000, 20), (4_000, 5), (12_000, 6), (12_001, 7), (14_001, 8)];
    let limits = limits.map(|(at, in_flight)| (alone.took_at(at, 1_000, in_flight), alone.memory().most_in_flight()));
    assert_eq!(limits, [(21, 20), (22, 20), (23, 20), (22, 7), (21, 8)]);
    let mut alone = Alone::new(trend(Duration::ZERO).validate(), (1, 7, 200));
    assert_eq!([alone.took(1_000, 5), alone.took(1_000, 5)], [7, 7], "up to 7.5 at once, and no further");
}

#[test]
fn whatever_comes_the_limit_stays_within_its_bounds() {
    fn storm<A: Algorithm>(name: &str, algorithm: Result<Valid<A>, ConfigError>, seed: u64) {
        let mut alone = Alone::new(algorithm, (2, 5, MOST));
        let mut rng = Rng::new(seed);
        for step in 0..5_000 {
            let mut extreme = || match rng.next() % 6 {
                0 => 0,
                1 => u64::MAX,
                2 => u64::from(rng.next()) << 32,
                _ => u64::from(rng.next() >> (rng.next() % 32)),
            };
            let (latency, ended) = (Span::from_nanos(extreme()), Instant::from_nanos(extreme()));
            let in_flight = u32::try_from(extreme()).unwrap_or(u32::MAX);
            let dropped = rng.next().is_multiple_of(50);
            let limit = alone.record(Sample { latency, in_flight, dropped, ended });
            assert!((2..=MOST).contains(&limit), "{name}, seed {seed}, step {step}: {limit}");
        }
    }
    for seed in 0..10 {
        storm("aimd", Aimd::new().validate(), seed);
        storm("vegas", Vegas::new().with_increase(Amount::Fixed(u32::MAX)).validate(), seed);
        storm("gradient2", Gradient2::new().with_queue_size(u32::MAX).validate(), seed);
        storm("gradient", Gradient::new(seed).validate(), seed);
        storm("trend", Trend::new().with_headroom(Ratio::basis_points(u32::MAX)).validate(), seed);
        let median = Percentile::new(Ratio::ONE).expect("valid");
        let windows = Windowed::new(Gradient2::new().validate().expect("valid")).with_summary(median);
        storm("windowed", windows.validate(), seed);
    }
}

/// The limit, half of the time below and half above, in front of a dependency that does eight calls at once, and shares itself between
/// more.
fn settles<A: Algorithm>(algorithm: Result<Valid<A>, ConfigError>, initial: u32) -> u32 {
    const CAPACITY: u64 = 8;
    let mut alone = Alone::new(algorithm, (1, initial, 200));
    let (mut now, mut limits) = (0_u64, Vec::new());
    for round in 0..20_000_u64 {
        let limit = alone.learned.estimate(&alone.config).whole();
        // As many callers as may, and 50 ms of work; a little unsteady, and now and then there is less to do.
        let in_flight = if round % 500 < 50 { limit.min(4) } else { limit };
        let latency = 50 * u64::from(in_flight).max(CAPACITY) / CAPACITY + round % 3;
        now += latency / u64::from(in_flight) + 1;
        alone.timeout_at(now);
        let limit = alone.took_at(now, latency, in_flight);
        if round > 10_000 {
            limits.push(limit);
        }
    }
    limits.sort_unstable();
    limits[limits.len() / 2]
}

#[test]
fn every_algorithm_finds_what_the_dependency_bears_from_below_and_from_above() {
    let windows = |algorithm| Windowed::new(algorithm).with_window(ms(200), ms(1_000)).validate();
    for initial in [2, 100] {
        let found = [
            ("aimd", settles(Aimd::new().with_timeout(ms(80)).validate(), initial)),
            ("vegas", settles(Vegas::new().validate(), initial)),
            ("gradient2", settles(Gradient2::new().validate().and_then(windows), initial)),
            ("trend", settles(Trend::new().with_baseline(ms(51)).with_baseline_window(600).validate(), initial)),
            ("gradient", settles(Gradient::new(1).validate(), initial)),
        ];
        // Some let a few wait, none starves it.
        assert!(found.iter().all(|(_, limit)| (8..=40).contains(limit)), "from {initial}: {found:?}");
    }
}

type Limit<'e, const N: usize = 4> = AdaptiveLimit<Local, Local, Aimd, LocalQueue<N>, &'e Recorder<LimitChange, 8>>;

fn aimd(min: u32, initial: u32, max: u32) -> Config<Aimd> {
    Config::new(Aimd::new().with_backoff(Ratio::percent(50)).validate().expect("valid")).with_limits(min, initial, max)
}

#[test]
fn a_limit_rejects_in_its_own_name_and_tells_of_each_change_once() -> Test {
    let events = Recorder::new();
    let limit = Limit::<4>::with_observer(aimd(1, 2, 10).validate()?, &events);
    let clock = ManualClock::new();
    let (one, two) = (limit.try_acquire(&clock)?, limit.try_acquire(&clock)?);
    let rejected = limit.try_acquire(&clock).err().ok_or("full")?;
    assert_eq!((rejected.policy(), rejected.reason()), (Policy::AdaptiveLimit, Reason::LimitReached));
    one.success();
    assert_eq!((limit.limit(), limit.snapshot().permits, limit.snapshot().in_use), (3, 3, 1));
    two.dropped();
    limit.try_acquire(&clock)?.ignore();
    drop(limit.try_acquire(&clock)?);
    assert_eq!((limit.limit(), limit.snapshot().permits, limit.snapshot().in_use), (1, 1, 0));
    let changes: Vec<_> = events.take().map(|LimitChange { from, to }| (from, to)).collect();
    assert_eq!(changes, [(2, 3), (3, 1)]);
    assert_eq!(format!("{limit:?}"), "AdaptiveLimit { limit: 1, .. }");
    Ok(())
}

#[test]
fn the_unimportant_goes_first() -> Test {
    let limit = AdaptiveLimit::<Local, Local, Aimd>::new(aimd(1, 10, 10).validate()?);
    let hold = |priority| {
        let mut held = Vec::new();
        while let Ok(permit) = limit.try_acquire_at(priority, Instant::START) {
            held.push(permit);
        }
        held
    };
    let all = [Priority::LOW, Priority::NORMAL, Priority::HIGH, Priority::CRITICAL].map(hold);
    assert_eq!(all.each_ref().map(Vec::len), [5, 3, 1, 1], "up to 5, to 8 (7.5), to 9, to 10");
    let reason = |priority| limit.try_acquire_at(priority, Instant::START).err().map(|rejected| rejected.reason());
    assert_eq!(reason(Priority::HIGH), Some(Reason::PriorityTooLow));
    assert_eq!(reason(Priority::CRITICAL), Some(Reason::LimitReached));
    Ok(())
}

#[test]
fn who_waits_is_served_as_soon_as_the_limit_rises() -> Test {
    let events = Recorder::new();
    let limit = Limit::<4>::with_observer(aimd(1, 1, 10).with_queue(4, ms(1_000)).validate()?, &events);
    let executor = VirtualExecutor::new();
    let pipeline = Pipeline::new(&executor).layer(&limit);
    let service = Script::new(&[Step::Hang]);
    let busy = limit.try_acquire(&executor)?;
    let mut cx = Context::from_waker(Waker::noop());
    let mut waiting = [(); 2].map(|()| Box::pin(pipeline.call(|_| service.call(&executor))));
    for call in &mut waiting {
        assert!(call.as_mut().poll(&mut cx).is_pending());
    }
    assert_eq!((limit.snapshot().queued, service.calls()), (2, 0));
    busy.success();
    for call in &mut waiting {
        assert!(call.as_mut().poll(&mut cx).is_pending());
    }
    assert_eq!(
        (limit.limit(), limit.snapshot().queued, service.in_flight()),
        (2, 0, 2),
        "one for each of the two permits"
    );
    Ok(())
}

#[test]
fn in_a_pipeline_a_success_counts_a_timeout_is_a_drop_and_the_rest_is_nothing() -> Test {
    let events = Recorder::new();
    let limit = Limit::<4>::with_observer(aimd(1, 8, 10).validate()?, &events);
    let executor = VirtualExecutor::new();
    let steps = [Step::Hang, Step::Fail, Step::Succeed, Step::SucceedAfter(ms(6_000))];
    let service = Script::new(&steps);
    let ignoring = |result: Result<&u32, &crate::testing::Scripted>| match result {
        Ok(_) => Verdict::SUCCESS,
        Err(_) => Verdict::IGNORED,
    };
    let pipeline = Pipeline::new(&executor).layer(&limit).layer(Timeout::new(ms(10_000))).classify(ignoring);
    let mut limits = Vec::new();
    for _ in 0..4 {
        let _ = executor.run(pipeline.call(|_| service.call(&executor)))?;
        limits.push(limit.limit());
    }
    assert_eq!(limits, [4, 4, 4, 2], "a timeout; ignored; too little load to rise; above five seconds");
    assert_eq!(limit.snapshot().in_use, 0);
    Ok(())
}

#[test]
fn a_call_that_is_cancelled_gives_its_place_back_and_counts_as_nothing() -> Test {
    let events = Recorder::new();
    let limit = Limit::<4>::with_observer(aimd(1, 1, 10).with_queue(4, ms(1_000)).validate()?, &events);
    let executor = VirtualExecutor::new();
    let pipeline = Pipeline::new(&executor).layer(limit.with_priority(Priority::CRITICAL));
    let service = Script::new(&[Step::Hang]);
    let mut cx = Context::from_waker(Waker::noop());
    let mut first = Box::pin(pipeline.call(|_| service.call(&executor)));
    let mut second = Box::pin(pipeline.call(|_| service.call(&executor)));
    assert!(first.as_mut().poll(&mut cx).is_pending());
    assert!(second.as_mut().poll(&mut cx).is_pending());
    assert_eq!((limit.snapshot().in_use, limit.snapshot().queued, service.calls()), (1, 1, 1));
    drop(first);
    assert!(second.as_mut().poll(&mut cx).is_pending());
    assert_eq!((limit.snapshot().in_use, limit.snapshot().queued, service.calls()), (1, 0, 2));
    drop(second);
    assert_eq!((limit.snapshot().in_use, limit.limit(), events.take().count()), (0, 1, 0));
    Ok(())
}

#[test]
fn an_unimportant_call_does_not_wait_in_the_queue() -> Test {
    let events = Recorder::new();
    let limit = Limit::<4>::with_observer(aimd(1, 1, 10).with_queue(4, ms(1_000)).validate()?, &events);
    let executor = VirtualExecutor::new();
    let _busy = limit.try_acquire(&executor)?;
    let pipeline = Pipeline::new(&executor).layer(limit.with_priority(Priority::NORMAL));
    let service = Script::new(&[Step::Succeed]);
    let failure = executor.run(pipeline.call(|_| service.call(&executor)))?.err().ok_or("rejected")?;
    assert_eq!(failure.rejected().map(|rejected| rejected.reason()), Some(Reason::PriorityTooLow));
    assert_eq!(executor.elapsed(), Duration::ZERO);
    Ok(())
}

#[test]
fn an_adaptive_limit_stands_where_a_bulkhead_does_and_prints_itself() -> Test {
    let limit = AdaptiveLimit::<Local, Local, Aimd>::new(aimd(1, 8, 100).with_queue(5, ms(20)).validate()?);
    let pipeline = Standard::new().with_bulkhead(&limit).on(VirtualExecutor::new());
    assert_eq!(pipeline.to_string(), "adaptive limit: 1 to 100 calls at once, 8 now, 5 may wait for 20ms");
    let pipeline = Pipeline::new(VirtualExecutor::new()).layer(limit.with_priority(Priority::LOW));
    assert!(pipeline.to_string().ends_with(", up to 50 % of it"), "{pipeline}");
    Ok(())
}

std::thread_local! {
    /// What happens as soon as somebody has looked at a meddled cell, once.
    static MEDDLING: Cell<Option<fn()>> = const { Cell::new(None) };
    static MEDDLED: AdaptiveLimit<Local, Meddled, Aimd> = const {
        AdaptiveLimit::new(valid!(Config::new(valid!(Aimd::new().validate())).with_limits(1, 8, 100).validate()))
    };
}

/// Cells of one thread in which another caller gets its turn after a look.
struct Meddled;

impl<S: Fresh> CellKind<S> for Meddled {
    type Cell = MeddledCell<S>;
}

impl crate::cell::SettingsKind for Meddled {
    type Settings<C: Copy> = crate::cell::Fixed;
}

struct MeddledCell<S>(RefCell<S>);

impl<S: Fresh> StateCell<S> for MeddledCell<S> {
    const NEW: Self = Self(StateCell::NEW);

    fn update<R>(&self, f: impl FnMut(&mut S) -> R) -> R {
        StateCell::update(&self.0, f)
    }

    fn read<R>(&self, f: impl Fn(&S) -> R) -> R {
        let result = self.0.read(f);
        if let Some(meddle) = MEDDLING.take() {
            meddle();
        }
        result
    }
}

fn grow() {
    let sample = Sample { latency: Span::ZERO, in_flight: 8, dropped: false, ended: Instant::START };
    MEDDLED.with(|limit| limit.record(&sample));
}

#[test]
fn of_two_changes_at_once_the_later_one_stays_in_force() {
    // After the first one has looked up the limit that it is about to put in force.
    MEDDLING.set(Some(grow));
    grow();
    MEDDLED.with(|limit| assert_eq!((limit.limit(), limit.snapshot().permits), (10, 10)));
}

#[test]
fn a_failure_says_that_there_is_too_much_and_nothing_about_latencies() {
    // Failures take no time at all, successes a tenth of a second, and nothing waits.
    let mut vegas = Alone::new(Vegas::new().validate(), (1, 20, 1_000));
    let mut least = u32::MAX;
    for call in 0..3_000 {
        let limit = if call % 20 == 0 { vegas.dropped(0, 1_000) } else { vegas.took(100, 1_000) };
        least = if call > 500 { least.min(limit) } else { least };
    }
    assert!(least > 100, "{least}");
    assert_eq!(vegas.memory().latency(), ms(100));

    // A minute of refused connections, then well again.
    let windows = Windowed::new(Gradient2::new().validate().expect("valid"));
    let mut gradient = Alone::new(windows.validate(), (1, 100, 200));
    let (mut at, mut lowest) = (0, u32::MAX);
    for call in 0..24_000 {
        at += 10;
        let limit = if (6_000..12_000).contains(&call) {
            let ended = Instant::from_millis(1_000_000 + at);
            gradient.record(Sample { latency: Span::of(ms(1)), in_flight: 200, dropped: true, ended })
        } else {
            gradient.took_at(at, 100, 200)
        };
        lowest = if call > 12_000 { lowest.min(limit) } else { lowest };
    }
    assert_eq!(gradient.memory().memory().average(), ms(100));
    let back = gradient.learned.estimate(&gradient.config).whole();
    assert!(back > 90, "{back} after two minutes, from {lowest}");

    let mut alone = measured(gradient_of(5), (3, 9, 1_000), 5);
    let sample =
        Sample { latency: Span::of(ms(1)), in_flight: 9, dropped: true, ended: Instant::from_millis(1_000_050) };
    alone.record(sample);
    assert_eq!(alone.timeout_at(100), 9, "no call that went well, no change");
}

#[test]
fn a_few_failures_of_many_do_not_bring_a_windowed_limit_down() {
    for (name, limit) in [
        ("trend", background(Trend::new().validate())),
        ("aimd", background(Aimd::new().validate())),
        ("gradient2", background(Gradient2::new().validate())),
    ] {
        assert!(limit >= 100, "{name}: {limit}");
    }
}

/// The limit after five minutes in which one of 200 calls fails, whatever the load.
fn background<A: Algorithm>(algorithm: Result<Valid<A>, ConfigError>) -> u32 {
    let windows = algorithm.and_then(|algorithm| Windowed::new(algorithm).validate());
    let mut alone = Alone::new(windows, (3, 100, 1_000));
    let mut limit = 0;
    for call in 0..300_000 {
        let ended = Instant::from_millis(1_000_000 + call);
        let (latency, dropped) = (Span::of(ms(50)), call % 200 == 0);
        limit = alone.record(Sample { latency, in_flight: 1_000, dropped, ended });
    }
    limit
}

fn gradient_of(calls: u32) -> Gradient {
    gradient().with_measured_calls(calls)
}

#[test]
fn a_measurement_ends_at_the_latest_when_the_next_one_would_begin() {
    let mut alone = measured(gradient_of(5), (3, 9, 1_000), 5);
    assert_eq!(alone.timeout_at(30_000), 3, "measuring");
    for _ in 0..4 {
        alone.took_at(30_100, 8, 3);
    }
    assert_eq!(gradient().poll_timeout(alone.memory()), Some(Instant::from_millis(1_060_000)));
    assert_eq!(alone.timeout_at(59_999), 3);
    assert_eq!(alone.timeout_at(60_000), 9, "four calls have to do");
    assert_eq!(alone.memory().without_load(), ms(8));
    assert_eq!(alone.timeout_at(90_000), 3);
    assert_eq!(alone.timeout_at(120_000), 9, "without any call, what was known is kept");
    assert_eq!(alone.memory().without_load(), ms(8));
    // Before anything is known there is nothing to go back to: the lowest limit is that.
    let mut alone = Alone::new(gradient_of(5).validate(), (3, 9, 1_000));
    alone.dropped(5, 1);
    assert_eq!([30_000, 60_000].map(|at| alone.timeout_at(at)), [3, 3]);
    for _ in 0..5 {
        alone.took_at(61_000, 7, 3);
    }
    assert_eq!((alone.memory().without_load(), alone.timeout_at(61_000)), (ms(7), 9));
}

#[test]
fn a_clock_that_jumps_ahead_and_comes_back_stops_nothing() {
    let ahead = Sample { latency: Span::of(ms(5)), in_flight: 10, dropped: false, ended: Instant::MAX };
    let windows = Windowed::new(Aimd::new().validate().expect("valid")).with_minimum_samples(1);
    let mut alone = Alone::new(windows.validate(), (1, 10, 50));
    alone.record(ahead);
    assert_eq!([0, 1_000, 2_000].map(|at| alone.took_at(at, 5, 50)), [12, 13, 14]);

    for ended in [Instant::MAX, Instant::from_millis(100_000_000)] {
        let mut alone = measured(gradient_of(5), (3, 9, 1_000), 5);
        alone.record(Sample { ended, ..ahead });
        let limits: Vec<u32> = (0..2_000).map(|call| alone.took_at(call * 100, 5, 9)).collect();
        assert!(limits.iter().any(|limit| *limit > 100), "it goes on to rise");
        assert!(!alone.memory().is_measuring() || alone.memory().measure_at < Instant::from_millis(1_300_000));
    }

    let trend = Trend::new().with_stabilisation(ms(1_000)).with_baseline(ms(5));
    let mut alone = Alone::new(trend.validate(), (1, 10, 50));
    alone.record(Sample { in_flight: 40, ..ahead });
    alone.took_at(0, 5, 4);
    alone.took_at(1_001, 5, 4);
    assert_eq!(alone.memory().most_in_flight(), 4, "the peak is over");
}

#[test]
fn what_was_measured_is_not_mixed_with_calls_from_before() {
    let mut alone = measured(gradient_of(5), (3, 9, 1_000), 5);
    assert_eq!(alone.timeout_at(30_000), 3);
    for _ in 0..5 {
        alone.took_at(30_100, 5, 3);
    }
    assert!(!alone.memory().is_measuring());
    // It began a minute ago, when more were in flight.
    alone.took_at(30_150, 60_000, 9);
    assert_eq!(alone.timeout_at(30_300), 9, "left aside: no calls, no change");
}

#[test]
fn only_windows_in_a_row_at_the_lowest_limit_raise_a_doubt() {
    let mut alone = measured(gradient(), (7, 7, 1_000), 5);
    let mut window = 0;
    let mut next = |alone: &mut Alone<Gradient>, millis| {
        window += 1;
        alone.took_at(window * 101, millis, 7);
        alone.timeout_at(window * 101 + 100)
    };
    for _ in 0..4 {
        assert_eq!(next(&mut alone, 20), 7);
    }
    assert!(next(&mut alone, 5) > 7, "one that is well");
    while next(&mut alone, 50) > 7 {}
    for _ in 0..4 {
        assert!(!alone.memory().is_measuring());
        next(&mut alone, 20);
    }
}

#[test]
fn the_limit_moves_with_the_time_before_a_call_asks_directly_or_in_a_pipeline() -> Test {
    let config = Config::new(gradient_of(1).validate()?).with_limits(3, 3, 100).validate()?;
    let executor = VirtualExecutor::new();
    for in_a_pipeline in [false, true] {
        let limit = AdaptiveLimit::<Local, Local, Gradient>::new(config);
        let sample = Sample { latency: Span::of(ms(1)), in_flight: 3, dropped: false, ended: executor.now() };
        // One is the measurement, the other one goes by it.
        limit.record(&sample);
        limit.record(&sample);
        let held = [(); 3].map(|()| limit.try_acquire(&executor));
        assert!(held.iter().all(Result::is_ok) && limit.try_acquire(&executor).is_err());
        executor.jump_to(executor.now().saturating_add(ms(100)));
        let passes = if in_a_pipeline {
            executor.run(Pipeline::new(&executor).layer(&limit).call(async |_| Ok::<_, ()>(())))?.is_ok()
        } else {
            limit.try_acquire(&executor).is_ok()
        };
        assert!(passes && limit.limit() > 3, "pipeline: {in_a_pipeline}");
    }
    Ok(())
}

#[test]
fn a_place_that_comes_free_goes_by_the_limit_that_follows() -> Test {
    let events = Recorder::new();
    let limit = Limit::<4>::with_observer(aimd(1, 2, 10).with_queue(4, ms(1_000)).validate()?, &events);
    let executor = VirtualExecutor::new();
    let (one, _two) = (limit.try_acquire(&executor)?, limit.try_acquire(&executor)?);
    let pipeline = Pipeline::new(&executor).layer(&limit);
    let service = Script::new(&[Step::Hang]);
    let mut waiting = Box::pin(pipeline.call(|_| service.call(&executor)));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(waiting.as_mut().poll(&mut cx).is_pending());
    one.dropped();
    assert!(waiting.as_mut().poll(&mut cx).is_pending());
    assert_eq!(
        (limit.limit(), limit.snapshot().in_use, service.calls()),
        (1, 1, 0),
        "there is no second place any more"
    );
    Ok(())
}

#[test]
fn an_attempt_is_timed_from_its_own_beginning() -> Test {
    let events = Recorder::new();
    let config = Config::new(Aimd::new().with_timeout(ms(500)).validate()?).with_limits(1, 1, 10).validate()?;
    let limit = Limit::<4>::with_observer(config, &events);
    let executor = VirtualExecutor::new();
    let backoff = Backoff::constant(ms(1)).with_jitter(Jitter::None);
    let retry = RetryPolicy::new(retry::Config::new().with_max_attempts(2).with_backoff(backoff).validate()?);
    let pipeline = Pipeline::new(&executor).layer(retry).layer(Timeout::new(ms(1_000))).layer(&limit);
    let steps = [Step::Hang, Step::SucceedAfter(ms(10))];
    let service = Script::new(&steps);
    assert_eq!(executor.run(pipeline.call(|_| service.call(&executor)))?, Ok(2));
    assert_eq!(limit.limit(), 2, "ten milliseconds, not a thousand and ten");
    Ok(())
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let refused = |result: Result<(), ConfigError>| result.err().map(|error| error.field());
    fn check<T>(result: Result<Valid<T>, ConfigError>) -> Result<(), ConfigError> {
        result.map(drop)
    }
    for (result, field) in [
        (check(aimd(0, 1, 10).validate()), "min"),
        (check(aimd(2, 1, 10).validate()), "initial"),
        (check(aimd(2, 11, 10).validate()), "initial"),
        (check(aimd(1, 1, MOST + 1).validate()), "max"),
        (check(aimd(1, 1, 2).with_queue(MOST + 1, ms(1)).validate()), "queue"),
        (check(Aimd::new().with_backoff(Ratio::ONE).validate()), "backoff"),
        (check(Vegas::new().with_smoothing(Ratio::ZERO).validate()), "smoothing"),
        (check(Vegas::new().with_decrease(Amount::Share(Ratio::percent(101))).validate()), "amount"),
        (check(Vegas::new().with_probe_multiplier(1).validate()), "probe_multiplier"),
        (check(Gradient2::new().with_long_window(0).validate()), "long_window"),
        (check(Gradient2::new().with_tolerance(Ratio::percent(99)).validate()), "tolerance"),
        (check(Gradient2::new().with_smoothing(Ratio::percent(101)).validate()), "smoothing"),
        (check(Trend::new().with_baseline_window(0).validate()), "baseline_window"),
        (check(Trend::new().with_headroom(Ratio::percent(99)).validate()), "headroom"),
        (check(gradient().with_update_interval(Duration::ZERO).validate()), "update_interval"),
        (check(gradient().with_measure_interval(ms(1)).validate()), "measure_interval"),
        (check(gradient().with_measured_calls(0).validate()), "measured_calls"),
        (check(gradient().with_jitter(Ratio::percent(101)).validate()), "jitter"),
        (check(Percentile::new(Ratio::ZERO)), "quantile"),
        (check(Windowed::new(Aimd::new().validate().expect("valid")).with_window(ms(2), ms(1)).validate()), "window"),
        (
            check(Windowed::new(Aimd::new().validate().expect("valid")).with_dropped_share(Ratio::ZERO).validate()),
            "dropped_share",
        ),
        (Priority::new(Ratio::ZERO).map(drop), "priority"),
        (Priority::new(Ratio::percent(101)).map(drop), "priority"),
    ] {
        assert_eq!(refused(result), Some(field));
    }
    for result in [
        check(Gradient2::new().with_tolerance(Ratio::ONE).validate()),
        check(Trend::new().with_headroom(Ratio::ONE).validate()),
        check(gradient().with_update_interval(ms(7)).with_measure_interval(ms(7)).validate()),
        check(Windowed::new(Aimd::new().validate().expect("valid")).with_window(ms(2), ms(2)).validate()),
    ] {
        assert_eq!(refused(result), None);
    }
}

#[test]
fn a_configuration_says_what_it_was_given() {
    let config = aimd(2, 5, 9);
    assert_eq!((config.min(), config.initial(), config.max()), (2, 5, 9));
    assert_eq!((config.limits.min(), config.limits.max()), (2, 9), "an algorithm is told the same");
    assert_eq!(*config.algorithm(), Aimd::new().with_backoff(Ratio::percent(50)));
    let percentile = Percentile::new(Ratio::percent(90)).expect("valid");
    let gradient = gradient().with_update_interval(ms(50)).with_percentile(percentile);
    assert_eq!((gradient.update_interval(), gradient.measure_interval()), (ms(50), ms(30_000)));
    assert_eq!((gradient.measured_calls(), gradient.jitter(), gradient.buffer()), (5, Ratio::ZERO, Ratio::ZERO));
    assert_eq!(gradient.percentile(), percentile.get());
}

#[test]
fn a_call_counts_those_that_are_in_flight_when_it_begins_and_itself() -> Test {
    let events = Recorder::new();
    let limit = Limit::<4>::with_observer(aimd(1, 4, 10).validate()?, &events);
    let (one, two) = (limit.try_acquire(Instant::START)?, limit.try_acquire(Instant::START)?);
    one.success();
    assert_eq!(limit.limit(), 4, "one of four is less than half");
    two.success();
    assert_eq!(limit.limit(), 5, "it was the second of four");
    Ok(())
}

#[test]
fn only_a_limit_that_moves_with_the_time_has_something_to_wait_for() -> Test {
    let events = Recorder::new();
    assert_eq!(Limit::<4>::with_observer(aimd(1, 2, 10).validate()?, &events).poll_timeout(), None);
    let limit = AdaptiveLimit::<Local, Local, Gradient>::new(Config::new(gradient().validate()?).validate()?);
    assert_eq!(limit.poll_timeout(), None, "nothing has been measured yet");
    let now = Instant::from_millis(1_000_000);
    limit.record(&Sample { latency: Span::of(ms(1)), in_flight: 1, dropped: false, ended: now });
    assert!(limit.poll_timeout().is_some_and(|at| at > now));
    Ok(())
}

#[test]
fn an_estimate_holds_no_more_than_the_counter_does() {
    for calls in [0, 1, MOST - 1, MOST] {
        assert_eq!((Estimate::of(calls).whole(), Estimate::of_parts(calls << 10)), (calls, Estimate::of(calls)));
    }
    assert_eq!([MOST + 1, u32::MAX].map(|calls| Estimate::of(calls).whole()), [MOST; 2]);
    assert_eq!([(MOST << 10) + 1, u32::MAX].map(Estimate::of_parts), [Estimate::of(MOST); 2]);
    assert_eq!(Estimate::of_parts(1_023).parts(), 1_023);
}

#[test]
fn an_amount_that_goes_by_the_logarithm_is_one_more_for_each_digit() {
    let limits = [1, 9, 10, 99, 100, 999, 1_000, 9_999, 10_000, 99_999, 100_000, 999_999, 1_000_000, MOST];
    let amounts = limits.map(|limit| Amount::Log10(3).at(Estimate::of(limit)).whole());
    assert_eq!(amounts, [3, 3, 3, 3, 6, 6, 9, 9, 12, 12, 15, 15, 18, 18]);
}

#[test]
fn a_trend_stays_where_it_is_from_three_that_wait_to_six() {
    for (latency, waiting, limit) in [(1_080, 2, 21), (1_150, 3, 20), (1_390, 6, 20), (1_480, 7, 19)] {
        let trend = Trend::new().with_baseline(ms(1_000)).with_baseline_window(u16::MAX);
        let mut alone = Alone::new(trend.validate(), (1, 20, 200));
        assert_eq!((alone.took(latency, 20), alone.memory().waiting()), (limit, waiting), "{latency} ms");
    }
}

#[test]
fn a_trend_starts_from_the_latency_that_is_known_or_else_from_the_first() {
    let trend = Trend::new().with_baseline_window(10);
    let mut known = Alone::new(trend.with_baseline(ms(1_000)).validate(), (1, 20, 200));
    known.took(2_000, 10);
    assert!(known.memory().baseline() < ms(1_200), "{:?}", known.memory().baseline());
    for _ in 0..100 {
        known.took(2_000, 10);
    }
    assert_eq!(known.memory().baseline(), ms(2_000), "it moves on from there");
    let mut unknown = Alone::new(trend.validate(), (1, 20, 200));
    unknown.took(2_000, 10);
    assert_eq!(unknown.memory().baseline(), ms(2_000));
}

#[test]
fn a_trend_takes_the_median_of_five_whatever_their_order() {
    let mut alone = Alone::new(Trend::new().validate(), (1, 20, 200));
    for latency in [100, 500, 400, 300, 200] {
        alone.took(latency, 10);
    }
    assert_eq!(alone.memory().latency().as_millis(), 340, "100, 500, 400, 400, 300 on average");
}

#[test]
fn when_the_most_in_flight_is_long_ago_the_most_since_then_takes_its_place() {
    let trend = Trend::new().with_baseline(ms(1_000)).with_stabilisation(ms(10_000));
    let mut alone = Alone::new(trend.validate(), (1, 20, 200));
    let most = [(2_000, 20), (4_000, 9), (12_000, 6), (12_001, 3), (14_001, 3)].map(|(at, in_flight)| {
        alone.took_at(at, 1_000, in_flight);
        alone.memory().most_in_flight()
    });
    assert_eq!(most, [20, 20, 20, 9, 3]);
}

#[test]
fn the_first_update_of_a_gradient_is_an_interval_after_its_measurement() {
    let mut alone = measured(gradient(), (3, 9, 1_000), 5);
    alone.took_at(50, 5, 9);
    assert_eq!([99, 100].map(|at| alone.timeout_at(at)), [9, 12]);
}

#[test]
fn the_jitter_of_a_gradient_goes_by_all_of_the_time() {
    let interval = |nanos: u64| {
        let gradient = gradient().with_measured_calls(1).with_jitter(Ratio::ONE);
        let mut alone = Alone::new(gradient.validate(), (1, 2, 3));
        let ended = Instant::from_nanos(nanos);
        alone.record(Sample { latency: Span::ZERO, in_flight: 1, dropped: false, ended });
        assert!(!alone.memory().is_measuring());
        alone.memory().measure_at.saturating_duration_since(ended)
    };
    for shift in [0, 32] {
        let mut intervals: Vec<_> = (1_u64..=20).map(|part| interval(part << shift)).collect();
        intervals.sort();
        intervals.dedup();
        assert_eq!(intervals.len(), 20, "of bits {shift} and above");
    }
}

#[test]
fn a_gradient_goes_on_to_follow_the_calls_when_the_clock_has_stepped_back() {
    let mut alone = measured(gradient(), (3, 9, 1_000), 5);
    assert_eq!(alone.timeout_at(10_000), 9);
    alone.took_at(100, 5, 9);
    assert_eq!(alone.timeout_at(200), 12, "not in ten seconds only");
}
