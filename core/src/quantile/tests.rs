use std::vec::Vec;

use super::*;
use crate::rng::Rng;

const fn p(points: u32) -> Ratio {
    Ratio::basis_points(points)
}

/// The smallest of the values that at most the rest of them exceeds.
fn exact(values: &[u64], quantile: Ratio) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let allowed = sorted.len() as u64 * u64::from(10_000 - quantile.as_basis_points()) / 10_000;
    sorted[sorted.len() - 1 - usize::try_from(allowed).expect("it fits")]
}

fn sketched(sketch: &Sketch, quantile: Ratio) -> u64 {
    sketch.quantile_span(quantile).expect("there are values").as_nanos()
}

/// Within 6.25 %, rounded up.
fn close(value: u64, exact: u64) -> bool {
    value.abs_diff(exact) <= exact.div_ceil(16)
}

#[test]
fn it_takes_104_bytes() {
    assert_eq!(size_of::<Sketch>(), 104);
}

#[test]
fn a_bucket_is_within_its_error_of_all_that_is_in_it() {
    let mut rng = Rng::new(1);
    let random = (0..100_000).map(|_| (u64::from(rng.next()) << 32 | u64::from(rng.next())) >> (rng.next() % 64));
    let edges = (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1]);
    for value in random.chain(edges).chain([0, u64::MAX]) {
        let middle = middle_of(bucket_of(value));
        assert!(middle.abs_diff(value) <= value / 16, "{value} is in the bucket around {middle}");
        assert_eq!(bucket_of(middle), bucket_of(value), "{value}");
    }
}

#[test]
fn buckets_follow_each_other_without_gaps() {
    let last = bucket_of(u64::MAX);
    let middles: Vec<_> = (bucket_of(0)..=last).map(middle_of).collect();
    assert!(middles.is_sorted_by(|a, b| a < b));
    assert_eq!(middles.len(), 496);
}

/// Distributions of latencies, in nanoseconds.
type Draw = fn(&mut Rng) -> u64;

fn evenly(rng: &mut Rng) -> u64 {
    10_000_000 + u64::from(rng.next() % 10_000_000)
}

/// A tail that halves with every 2 ms.
fn exponential(rng: &mut Rng) -> u64 {
    1_000_000 + u64::from(rng.next().leading_zeros()) * 2_000_000 + u64::from(rng.next() % 2_000_000)
}

/// One in ten takes eight times as long.
fn two_faced(rng: &mut Rng) -> u64 {
    let latency = 1_000_000 + u64::from(rng.next() % 500_000);
    if rng.next().is_multiple_of(10) { latency * 8 } else { latency }
}

/// From 1 µs to 30 s, spread evenly over the octaves.
fn over_all_octaves(rng: &mut Rng) -> u64 {
    let octave = rng.next() % 25;
    (1_000_u64 << octave) + (((u64::from(rng.next()) * 1_000) >> 32) << octave)
}

fn always_the_same(_: &mut Rng) -> u64 {
    123_456
}

const DRAWS: [Draw; 5] = [evenly, exponential, two_faced, over_all_octaves, always_the_same];

#[test]
fn until_the_window_is_full_it_is_the_exact_quantile_within_its_error() {
    // Those that stay within the frame from their first value on.
    for draw in [evenly, exponential, always_the_same] {
        for quantile in [p(5_000), p(9_000), p(9_500), p(9_900)] {
            let (mut rng, mut sketch, mut values) = (Rng::new(5), Sketch::FRESH, Vec::new());
            for _ in 0..900 {
                let value = draw(&mut rng);
                values.push(value);
                sketch.record_span(Span::from_nanos(value), quantile, 1_000);
                let (value, exact) = (sketched(&sketch, quantile), exact(&values, quantile));
                assert!(close(value, exact), "{value} for {exact} after {} values, {quantile}", values.len());
            }
        }
    }
}

#[test]
fn over_many_windows_it_stays_among_the_ranks_around_it() {
    for (number, draw) in DRAWS.into_iter().enumerate() {
        for points in [5_000, 9_000, 9_500, 9_900] {
            let (mut rng, mut sketch, mut values) = (Rng::new(9), Sketch::FRESH, Vec::new());
            for _ in 0..20_000 {
                let value = draw(&mut rng);
                values.push(value);
                sketch.record_span(Span::from_nanos(value), p(points), 500);
                if values.len() < 5_000 || !values.len().is_multiple_of(499) {
                    continue;
                }
                // The latest 250 to 500 count: five standard deviations of a rank among so many.
                let spread = [1_500, 900, 700, 100]
                    [[5_000, 9_000, 9_500, 9_900].iter().position(|p| *p == points).expect("known")];
                let recent = &values[values.len() - 5_000..];
                let low = exact(recent, p(points - spread.max(400)));
                let high = exact(recent, p((points + spread).min(9_999)));
                let value = sketched(&sketch, p(points));
                assert!(
                    value >= low - low / 16 && value <= high.saturating_add(high / 16),
                    "distribution {number}, {points}: {value} is not in {low}..={high}"
                );
            }
        }
    }
}

/// How many values it takes until the quantile is near that of the new distribution, and stays.
fn follows(from: Draw, to: Draw, quantile: Ratio) -> usize {
    let (mut rng, mut sketch) = (Rng::new(2), Sketch::FRESH);
    for _ in 0..5_000 {
        sketch.record_span(Span::from_nanos(from(&mut rng)), quantile, 500);
    }
    let target = exact(&(0..10_000).map(|_| to(&mut rng)).collect::<Vec<_>>(), quantile);
    let mut last_far = 0;
    for count in 1..20_000 {
        sketch.record_span(Span::from_nanos(to(&mut rng)), quantile, 500);
        let value = sketched(&sketch, quantile);
        if value < target / 4 * 3 || value > target / 2 * 3 {
            last_far = count;
        }
    }
    last_far
}

#[test]
fn it_follows_a_change_up_within_few_values_and_down_within_a_few_windows() {
    let fast: Draw = |rng| 1_000_000 + u64::from(rng.next() % 200_000);
    let slower: Draw = |rng| 3_000_000 + u64::from(rng.next() % 600_000);
    let thousandfold: Draw = |rng| 1_000_000_000 + u64::from(rng.next() % 200_000_000);
    assert!(follows(fast, slower, p(9_500)) <= 26);
    assert!(follows(slower, fast, p(9_500)) <= 5 * 250);
    assert!(follows(fast, thousandfold, p(9_500)) <= 4 * 26);
    assert!(follows(thousandfold, fast, p(9_500)) <= 6 * 250);
}

#[test]
fn a_slow_first_value_is_soon_forgotten() {
    let mut sketch = Sketch::FRESH;
    sketch.record(Duration::from_secs(3), p(9_500), 500);
    for _ in 0..24 {
        sketch.record(Duration::from_millis(1), p(9_500), 500);
    }
    let value = sketched(&sketch, p(9_500));
    assert!(close(value, 1_000_000), "{value}");
}

#[test]
fn halving_keeps_every_rank_within_one_value() {
    let mut rng = Rng::new(4);
    for _ in 0..1_000 {
        let mut sketch = Sketch::FRESH;
        for _ in 0..400 {
            sketch.record_span(Span::from_nanos(over_all_octaves(&mut rng)), p(9_000), 1_000);
        }
        let mut halved = sketch;
        halved.halve();
        let above = |sketch: &Sketch, from: usize| sketch.above + sum(&sketch.counts[from..]);
        for from in 0..=BUCKETS {
            assert_eq!(above(&halved, from), above(&sketch, from) / 2);
        }
        assert_eq!(halved.total, sketch.total / 2);
        assert_eq!(halved.total, above(&halved, 0) + halved.below);
    }
}

#[test]
fn its_counts_are_those_of_its_values_whatever_comes() {
    for seed in 0..50 {
        let mut rng = Rng::new(seed);
        let mut sketch = Sketch::FRESH;
        let window = u16::try_from(2 + rng.next() % 700).expect("it fits");
        for step in 0..3_000 {
            let value = (u64::from(rng.next()) << 32 | u64::from(rng.next())) >> (rng.next() % 64);
            sketch.record_span(Span::from_nanos(value), p(1 + rng.next() % 9_999), window);
            let counted = sketch.above + sketch.below + sum(&sketch.counts);
            assert_eq!(sketch.total, counted, "seed {seed}, step {step}");
            assert!(sketch.total < window, "seed {seed}, step {step}");
        }
    }
}

#[test]
fn extremes_are_values_like_others() {
    for value in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        let mut sketch = Sketch::FRESH;
        assert_eq!((sketch.quantile(p(9_500)), sketch.is_empty()), (None, true));
        for _ in 0..70_000 {
            sketch.record(value, p(9_500), u16::MAX);
        }
        let quantile = sketched(&sketch, p(9_500));
        assert!(close(quantile, Span::of(value).as_nanos()), "{quantile} for {value:?}");
        assert_eq!(sketch.quantile(p(9_500)), Some(Duration::from_nanos(quantile)));
        assert!(sketch.len() > u16::MAX / 2 && !sketch.is_empty());
    }
}
