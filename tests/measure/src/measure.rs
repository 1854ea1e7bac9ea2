//! How long a call takes, measured plainly. Each figure is the fastest or the middle one of many batches, since the machine may be shared.

use core::hint::black_box;
use std::time::Instant;

use crate::race::alone;

/// Nanoseconds per call of `work`, in the fastest of so many batches of so many calls.
pub fn fastest<R>(batches: u32, calls: u32, mut work: impl FnMut(u32) -> R) -> f64 {
    let best = alone(batches.into(), calls.into(), &mut 0, |call| work(black_box(call)));
    best.as_secs_f64() * 1e9 / f64::from(calls)
}

/// Seconds for so many calls.
pub fn batch<R>(calls: u32, mut work: impl FnMut(u32) -> R) -> f64 {
    let start = Instant::now();
    for call in 0..calls {
        black_box(work(black_box(call)));
    }
    start.elapsed().as_secs_f64()
}

/// The middle one.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The slope of the straight line that fits points best where both axes are logarithmic: 0 where nothing grows, 1 where `y` is in
/// proportion to `x`, 2 where it is to its square. NaN where all points have one `x`.
pub fn growth_exponent(points: &[(f64, f64)]) -> f64 {
    let logs = || points.iter().map(|(x, y)| (x.ln(), y.ln()));
    let count = points.len() as f64;
    let mean_x = logs().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = logs().map(|(_, y)| y).sum::<f64>() / count;
    let spread: f64 = logs().map(|(x, _)| (x - mean_x).powi(2)).sum();
    logs().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>() / spread
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponent_is_that_of_the_power_the_points_follow() {
        for power in [-1, 0, 1, 2] {
            let points = [1.0_f64, 10.0, 100.0, 1_000.0].map(|x| (x, 7.0 * x.powi(power)));
            assert!((growth_exponent(&points) - f64::from(power)).abs() < 1e-9, "{power}");
        }
        assert!(growth_exponent(&[(1.0, 1.0), (1.0, 2.0)]).is_nan());
    }

    #[test]
    fn the_median_is_the_middle_one_in_order() {
        assert_eq!(median(vec![9.0, 1.0, 3.0]).to_bits(), 3.0_f64.to_bits());
    }
}
