//! Faults of the dependency and of the clock, one after the other, for every algorithm.

use super::*;

/// Calls that end ten milliseconds after each other, all of them dropped or good, with as many in flight as the limit or one.
fn run<A: Algorithm>(alone: &mut Alone<A>, calls: core::ops::Range<u64>, dropped: bool, full: bool) -> u32 {
    for call in calls {
        let ended = Instant::from_millis(1_000_000 + 10 * call);
        alone.timeout_at(10 * call);
        let in_flight = if full { alone.learned.estimate(&alone.config).whole() } else { 1 };
        alone.record(Sample { latency: Span::of(ms(50)), in_flight, dropped, ended });
    }
    alone.learned.estimate(&alone.config).whole()
}

fn windows<A: Algorithm>(algorithm: Valid<A>) -> Result<Valid<Windowed<A>>, ConfigError> {
    Windowed::new(algorithm).with_window(ms(200), ms(1_000)).validate()
}

#[test]
fn when_nothing_succeeds_any_more_a_limit_falls_to_the_lowest_and_no_further_and_rises_again_with_the_first_successes()
{
    /// After so many drops, and after as many successes since.
    fn limits<A: Algorithm>(algorithm: Result<Valid<A>, ConfigError>) -> (u32, bool) {
        let mut alone = Alone::new(algorithm, (2, 20, 200));
        let lowest = run(&mut alone, 0..10_000, true, true);
        (lowest, run(&mut alone, 10_000..20_000, false, true) > lowest)
    }
    let found = [
        ("aimd", limits(Aimd::new().validate())),
        ("vegas", limits(Vegas::new().validate())),
        ("gradient2", limits(Gradient2::new().validate())),
        ("trend", limits(Trend::new().validate())),
        ("windowed aimd", limits(Aimd::new().validate().and_then(windows))),
        ("windowed vegas", limits(Vegas::new().validate().and_then(windows))),
        ("windowed gradient2", limits(Gradient2::new().validate().and_then(windows))),
        ("windowed trend", limits(Trend::new().validate().and_then(windows))),
    ];
    assert!(found.iter().all(|(_, limits)| *limits == (2, true)), "{found:?}");
    // This one goes by latencies alone, of which there are none: what it had begun to measure goes on when there are.
    let mut gradient = Alone::new(Gradient::new(1).validate(), (2, 20, 200));
    let without = run(&mut gradient, 0..10_000, true, true);
    assert!(without >= 2 && run(&mut gradient, 10_000..20_000, false, true) > 20, "{without}");
}

#[test]
fn where_little_is_in_use_nothing_is_learned() {
    fn limit<A: Algorithm>(algorithm: Result<Valid<A>, ConfigError>) -> u32 {
        run(&mut Alone::new(algorithm, (2, 20, 200)), 0..10_000, false, false)
    }
    let found = [
        limit(Aimd::new().validate()),
        limit(Vegas::new().validate()),
        limit(Gradient2::new().validate()),
        limit(Aimd::new().validate().and_then(windows)),
        limit(Vegas::new().validate().and_then(windows)),
        limit(Gradient2::new().validate().and_then(windows)),
    ];
    assert_eq!(found, [20; 6]);
    // Within reach of what is in use: five times one.
    assert_eq!([limit(Trend::new().validate()), limit(Trend::new().validate().and_then(windows))], [5, 5]);
    // By latencies alone, and these are as good as they can be: up to the highest.
    assert!(limit(Gradient::new(1).validate()) > 20);
}

#[test]
fn latencies_of_zero_from_a_coarse_clock_or_one_that_stepped_back_are_latencies() {
    fn limit<A: Algorithm>(algorithm: Result<Valid<A>, ConfigError>, every: u64) -> u32 {
        let mut alone = Alone::new(algorithm, (2, 20, 200));
        for call in 0..1_000 {
            let ended = Instant::from_millis(1_000_000 + 10 * call);
            let latency = if call % every == 1 { Span::ZERO } else { Span::of(ms(50)) };
            let in_flight = alone.learned.estimate(&alone.config).whole();
            alone.record(Sample { latency, in_flight, dropped: false, ended });
        }
        alone.learned.estimate(&alone.config).whole()
    }
    for every in [1, 50] {
        let found = [
            ("aimd", limit(Aimd::new().validate(), every)),
            ("vegas", limit(Vegas::new().validate(), every)),
            ("gradient2", limit(Gradient2::new().validate(), every)),
            ("trend", limit(Trend::new().validate(), every)),
            ("gradient", limit(Gradient::new(1).validate(), every)),
        ];
        // Each finds room, as it would without them; more slowly, where it goes by an average of all.
        assert!(found.iter().all(|(_, limit)| *limit > 40), "one in {every}: {found:?}");
    }
}

/// The limit of a dependency whose capacity changes, at the end of each phase.
fn follows<A: Algorithm>(algorithm: Result<Valid<A>, ConfigError>, capacities: [u64; 3]) -> [u32; 3] {
    let mut alone = Alone::new(algorithm, (1, 20, 1_000));
    let mut now = 0;
    capacities.map(|capacity| {
        let mut limits = Vec::new();
        for round in 0..20_000 {
            let in_flight = alone.learned.estimate(&alone.config).whole();
            let latency = 50 * u64::from(in_flight).max(capacity) / capacity + round % 3;
            now += latency / u64::from(in_flight) + 1;
            alone.timeout_at(now);
            let limit = alone.took_at(now, latency, in_flight);
            if round > 15_000 {
                limits.push(limit);
            }
        }
        limits.sort_unstable();
        limits[limits.len() / 2]
    })
}

#[test]
fn a_limit_follows_a_dependency_that_bears_a_tenth_for_a_while_and_then_all_again() {
    let capacities = [100, 10, 100];
    // The most that it lets through of what bears ten: these two take for normal, in part, what they have met for long.
    let found = [
        (40, follows(Aimd::new().with_timeout(ms(80)).validate(), capacities)),
        (40, follows(Gradient::new(1).validate(), capacities)),
        (60, follows(Gradient2::new().validate().and_then(windows), capacities)),
        (120, follows(Vegas::new().validate(), capacities)),
    ];
    let within = |most, [full, tenth, again]: [u32; 3]| {
        (60..=300).contains(&full) && (8..=most).contains(&tenth) && tenth < full && (60..=300).contains(&again)
    };
    assert!(found.iter().all(|&(most, limits)| within(most, limits)), "{found:?}");
}

#[test]
fn a_dependency_that_is_slower_for_good_is_taken_for_normal_in_the_end() {
    fn limit<A: Algorithm>(algorithm: Result<Valid<A>, ConfigError>) -> [u32; 2] {
        let mut alone = Alone::new(algorithm, (2, 20, 40));
        let mut limits = [u32::MAX, 0];
        for call in 0..100_000_u64 {
            let latency = if call < 5_000 { 10 } else { 100 };
            let limit = alone.took_at(10 * call, latency, alone.learned.estimate(&alone.config).whole());
            limits = if call < 5_000 { limits } else { [limits[0].min(limit), limit] };
        }
        limits
    }
    let gradient2 = limit(Gradient2::new().validate().and_then(windows));
    let trend = limit(Trend::new().validate().and_then(windows));
    for [lowest, last] in [gradient2, trend] {
        assert!(lowest < 40 && last == 40, "{lowest} at first, {last} in the end");
    }
}
