//! Trend: late latencies against their long average, within reach of what is in use.

use core::time::Duration;

use super::estimate::MovingAverage;
use super::{Algorithm, Amount, Estimate, Limits, Sample};
use crate::cell::Fresh;
use crate::config::{ConfigError, Valid, refuse};
use crate::ratio::Ratio;
use crate::time::{Instant, Span};

/// Latencies that the baseline looks back on, unless said otherwise.
pub const BASELINE_WINDOW: u16 = 10;
/// How many times what is in use the limit may be, unless said otherwise.
pub const HEADROOM: Ratio = Ratio::percent(500);

/// Latencies of which the median is taken.
const FILTERED: usize = 5;
/// Medians that the smoothed latency looks back on.
const SMOOTHED: u16 = 5;

/// Like [`Vegas`](super::Vegas), with a moving average in place of the lowest latency: how many calls wait is estimated from how far late
/// latencies are above it. The limit rises by a little while few wait, falls by a little when many do, and stays within reach of what is in use.
///
/// Late latencies go through a median of five and a short average first, so that one outlier moves nothing. Give it windows: see
/// [`Windowed`](super::Windowed).
///
/// Source: the `AdaptiveLimiter` of failsafe-go, without its correlations of load, latency and throughput, which there slow the rise under
/// saturation. It has limits of 1, 20 and 200 calls, and windows of 50 calls of which it takes the 90 % quantile.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Trend {
    baseline: Span,
    baseline_window: u16,
    headroom: Ratio,
    stabilisation: Span,
}

impl Default for Trend {
    fn default() -> Self {
        Self::new()
    }
}

impl Trend {
    const ALPHA: Amount = Amount::Log10(3);
    const BETA: Amount = Amount::Log10(6);
    const STEP: Amount = Amount::Log10(1);

    /// The defaults, as in the [module's table](super#defaults).
    #[must_use]
    pub const fn new() -> Self {
        Self { baseline: Span::ZERO, baseline_window: BASELINE_WINDOW, headroom: HEADROOM, stabilisation: Span::ZERO }
    }

    /// A latency that is known to be normal, to start from; without one, the first latencies are taken to be.
    #[must_use]
    pub const fn with_baseline(mut self, latency: Duration) -> Self {
        self.baseline = Span::of(latency);
        self
    }

    /// The baseline looks back on so many latencies, the latest the most.
    #[must_use]
    pub const fn with_baseline_window(mut self, latencies: u16) -> Self {
        self.baseline_window = latencies;
        self
    }

    /// Falls gradually to so many times the calls that were in flight at once.
    #[must_use]
    pub const fn with_headroom(mut self, times: Ratio) -> Self {
        self.headroom = times;
        self
    }

    /// Goes by the most that were in flight at once in this long, so that a dip in the load does not lower the limit.
    #[must_use]
    pub const fn with_stabilisation(mut self, window: Duration) -> Self {
        self.stabilisation = Span::of(window);
        self
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    /// The first field that doesn't, and why.
    pub const fn validate(self) -> Result<Valid<Self>, ConfigError> {
        if self.baseline_window == 0 {
            return Err(refuse!("baseline_window", "is empty"));
        }
        if self.headroom.as_basis_points() < Ratio::ONE.as_basis_points() {
            return Err(refuse!("headroom", "is below 1: the limit would fall below what is in use"));
        }
        Ok(Valid::vouched(self))
    }
}

/// What a trend remembers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Trending {
    // The latest first.
    latest: [Span; FILTERED],
    known: u8,
    smoothed: MovingAverage,
    baseline: MovingAverage,
    waiting: u32,
    peak: Peak,
}

impl Fresh for Trending {
    const FRESH: Self = Self {
        latest: [Span::ZERO; FILTERED],
        known: 0,
        smoothed: MovingAverage::FRESH,
        baseline: MovingAverage::FRESH,
        waiting: 0,
        peak: Peak::FRESH,
    };
}

impl Trending {
    /// Calls that were found to wait, at the last look.
    #[must_use]
    pub const fn waiting(&self) -> u32 {
        self.waiting
    }

    /// The most calls in flight at once that the limit is measured by.
    #[must_use]
    pub const fn most_in_flight(&self) -> u32 {
        self.peak.most
    }

    /// The smoothed latency, of late.
    #[must_use]
    pub const fn latency(&self) -> Duration {
        self.smoothed.average()
    }

    /// The long average.
    #[must_use]
    pub const fn baseline(&self) -> Duration {
        self.baseline.average()
    }

    /// The median of the latest few, the higher of two.
    fn filtered(&mut self, latency: Span) -> Span {
        let mut newer = latency;
        for place in &mut self.latest {
            newer = core::mem::replace(place, newer);
        }
        let known = usize::from(self.known).saturating_add(1).min(FILTERED);
        self.known = self.known.saturating_add(1).min(5);
        let latest = || self.latest.iter().take(known);
        // The one that as many are below as half of them.
        let lower = |one: &Span| latest().filter(|other| *other < one).count();
        let not_higher = |one: &Span| latest().filter(|other| *other <= one).count();
        let middle = known / 2;
        latest().copied().find(|one| lower(one) <= middle && middle < not_higher(one)).unwrap_or(latency)
    }
}

/// About the most of something within a time: it, and the most since then, which follows it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
struct Peak {
    most: u32,
    at: Instant,
    next: u32,
    next_at: Instant,
}

impl Peak {
    const FRESH: Self = Self { most: 0, at: Instant::START, next: 0, next_at: Instant::START };

    fn add(&mut self, value: u32, now: Instant, window: Span) -> u32 {
        // From a clock that jumped ahead and came back.
        (self.at, self.next_at) = (self.at.min(now), self.next_at.min(now));
        if now > self.at.after(window) {
            (self.most, self.at) = (self.next, self.next_at);
            self.next = 0;
        }
        if value >= self.most || now > self.at.after(window) {
            (self.most, self.at, self.next) = (value, now, 0);
        } else if value >= self.next {
            (self.next, self.next_at) = (value, now);
        }
        self.most
    }
}

impl Algorithm for Trend {
    type Memory = Trending;

    fn record(&self, memory: &mut Trending, limit: Estimate, sample: &Sample, limits: &Limits) -> Estimate {
        if sample.dropped {
            // How long it took says nothing: it may have failed at once.
            return limits.clamp(limit.minus(Self::STEP.at(limit)));
        }
        if memory.baseline.is_empty() && !self.baseline.is_zero() {
            memory.baseline = MovingAverage::known(self.baseline);
        }
        let median = memory.filtered(sample.latency());
        let latency = memory.smoothed.add(median, SMOOTHED);
        let baseline = memory.baseline.add(latency, self.baseline_window);
        memory.waiting = limit.minus(limit.times(baseline, latency)).rounded_up();
        let waiting = Estimate::of(memory.waiting);
        let step = Self::STEP.at(limit);
        let next = if waiting > Self::BETA.at(limit) {
            limit.minus(step)
        } else if waiting < Self::ALPHA.at(limit) {
            limit.plus(step)
        } else {
            limit
        };
        let in_flight = memory.peak.add(sample.in_flight, sample.ended, self.stabilisation);
        let within_reach = Estimate::of(in_flight).share(self.headroom);
        limits.clamp(if next <= within_reach {
            next
        } else if limit > within_reach {
            // Gradually, since the load may only be changing.
            limit.minus(step)
        } else {
            within_reach
        })
    }
}
