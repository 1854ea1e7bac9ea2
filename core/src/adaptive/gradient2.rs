//! Gradient2: the latency of late against that of long.

use super::estimate::MovingAverage;
use super::{Algorithm, Estimate, Limits, Sample};
use crate::config::{ConfigError, Valid, refuse};
use crate::ratio::Ratio;
use crate::time::Span;

/// Latencies that the long average looks back on, unless said otherwise.
pub const LONG_WINDOW: u16 = 600;
/// How much higher than the long average a latency may be, unless said otherwise.
pub const TOLERANCE: Ratio = Ratio::percent(150);
/// Calls that may wait, unless said otherwise.
pub const QUEUE_SIZE: u32 = 4;
/// What a change leaves of the limit at the least, before it is smoothed.
const STEEPEST: Ratio = Ratio::percent(50);
/// How much of each change is made, unless said otherwise.
pub const SMOOTHING: Ratio = Ratio::percent(20);

/// A long average of the latency is compared with the latest one: the limit follows their quotient, the gradient, between a half and
/// one, and has a few calls more than that, so that it can rise.
///
/// A call that was dropped, or a window in which many were, counts as the steepest gradient. The long average is no minimum, so that what is slow by nature is not taken for overload; and it follows the latency, so that a lasting
/// overload becomes the new normal in time. Give it windows: see [`Windowed`](super::Windowed).
///
/// Source: Netflix's `Gradient2Limit`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Gradient2 {
    long_window: u16,
    tolerance: Ratio,
    queue_size: u32,
    smoothing: Ratio,
}

impl Default for Gradient2 {
    fn default() -> Self {
        Self::new()
    }
}

impl Gradient2 {
    /// The defaults, as in the [module's table](super#defaults).
    #[must_use]
    pub const fn new() -> Self {
        Self { long_window: LONG_WINDOW, tolerance: TOLERANCE, queue_size: QUEUE_SIZE, smoothing: SMOOTHING }
    }

    /// The long average looks back on so many latencies, the latest the most.
    #[must_use]
    pub const fn with_long_window(mut self, latencies: u16) -> Self {
        self.long_window = latencies;
        self
    }

    /// A latency of up to this many times the long average is no sign of overload.
    #[must_use]
    pub const fn with_tolerance(mut self, tolerance: Ratio) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// So many calls may wait: by so many, smoothed, the limit rises at a time.
    #[must_use]
    pub const fn with_queue_size(mut self, calls: u32) -> Self {
        self.queue_size = calls;
        self
    }

    /// How much of each change is made: above zero to 1.
    #[must_use]
    pub const fn with_smoothing(mut self, smoothing: Ratio) -> Self {
        self.smoothing = smoothing;
        self
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    /// The first field that doesn't, and why.
    pub const fn validate(self) -> Result<Valid<Self>, ConfigError> {
        if self.long_window == 0 {
            return Err(refuse!("long_window", "is empty"));
        }
        if self.tolerance.as_basis_points() < Ratio::ONE.as_basis_points() {
            return Err(refuse!("tolerance", "is below 1: the limit would fall while nothing changes"));
        }
        if self.smoothing.as_basis_points() == 0 || !self.smoothing.is_share() {
            return Err(refuse!("smoothing", "is zero or above 1"));
        }
        Ok(Valid::vouched(self))
    }
}

impl Algorithm for Gradient2 {
    type Memory = MovingAverage;

    fn record(&self, memory: &mut MovingAverage, limit: Estimate, sample: &Sample, limits: &Limits) -> Estimate {
        if sample.dropped {
            // How long it took says nothing: it may have failed at once. The steepest gradient there is, and nobody waits.
            return limits.clamp(limit.towards(limit.share(STEEPEST), self.smoothing));
        }
        let latest = sample.latency();
        let long = memory.add(latest, self.long_window);
        if long.as_nanos() >> 1 > latest.as_nanos() {
            // Back to normal after a long overload: faster than the average would by itself.
            memory.lower(Ratio::percent(90));
        }
        // Nobody could say whether more would be too many.
        if sample.in_flight.saturating_mul(2) < limit.whole() {
            return limit;
        }
        let tolerated = Span::from_nanos(self.tolerance.of(long.as_nanos()));
        let gradual = limit.times(tolerated, latest).within(limit.share(STEEPEST), limit);
        let next = limit.towards(gradual.plus(Estimate::of(self.queue_size)), self.smoothing);
        limits.clamp(next)
    }
}
