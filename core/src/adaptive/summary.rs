//! One latency that stands for many.

use core::fmt::Debug;

use crate::cell::Fresh;
use crate::config::{ConfigError, Valid, refuse};
use crate::math::divide;
use crate::quantile::Sketch;
use crate::ratio::Ratio;
use crate::time::Span;

/// What many latencies come to.
pub trait Summary: Copy + Debug {
    /// What is known of them.
    type Latencies: Copy + Debug + Fresh;

    /// Takes one in.
    fn add(&self, latencies: &mut Self::Latencies, latency: Span);

    /// What they come to; zero where there are none.
    fn of(&self, latencies: &Self::Latencies) -> Span;
}

/// Their average.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Average;

/// The sum of latencies, and how many there are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Sum {
    sum: u64,
    count: u32,
}

impl Fresh for Sum {
    const FRESH: Self = Self { sum: 0, count: 0 };
}

impl Summary for Average {
    type Latencies = Sum;

    fn add(&self, latencies: &mut Sum, latency: Span) {
        latencies.sum = latencies.sum.saturating_add(latency.as_nanos());
        latencies.count = latencies.count.saturating_add(1);
    }

    fn of(&self, latencies: &Sum) -> Span {
        Span::from_nanos(divide(latencies.sum, latencies.count.max(1)).0)
    }
}

/// A quantile of them, within 6.25 %, and exactly where they are all the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Percentile {
    quantile: Ratio,
}

impl Percentile {
    /// So many of all latencies are no higher: 50 % is the median.
    ///
    /// # Errors
    /// A share of zero, or above 1.
    pub const fn new(quantile: Ratio) -> Result<Valid<Self>, ConfigError> {
        if quantile.as_basis_points() == 0 || !quantile.is_share() {
            return Err(refuse!("quantile", "is zero or above 1"));
        }
        Ok(Valid::vouched(Self { quantile }))
    }

    /// The median.
    pub const MEDIAN: Self = Self { quantile: Ratio::percent(50) };

    /// The quantile.
    #[must_use]
    pub const fn quantile(&self) -> Ratio {
        self.quantile
    }
}

/// Latencies in buckets, and the extremes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Spread {
    sketch: Sketch,
    least: Span,
    most: Span,
}

impl Fresh for Spread {
    const FRESH: Self = Self { sketch: Sketch::FRESH, least: Span::MAX, most: Span::ZERO };
}

impl Spread {
    /// More than that, and the oldest lose weight.
    const MOST: u16 = 10_000;
}

impl Summary for Percentile {
    type Latencies = Spread;

    fn add(&self, latencies: &mut Spread, latency: Span) {
        latencies.sketch.record_span(latency, self.quantile, Spread::MOST);
        latencies.least = latencies.least.min(latency);
        latencies.most = latencies.most.max(latency);
    }

    fn of(&self, latencies: &Spread) -> Span {
        let found = latencies.sketch.quantile_span(self.quantile).unwrap_or(Span::ZERO);
        // The middle of a bucket may lie beyond all that is in it.
        found.min(latencies.most).max(latencies.least.min(latencies.most))
    }
}
