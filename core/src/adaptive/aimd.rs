//! Additive increase, multiplicative decrease.

use core::time::Duration;

use super::{Algorithm, Estimate, Limits, Sample};
use crate::cell::Fresh;
use crate::config::{ConfigError, Valid, refuse};
use crate::ratio::Ratio;
use crate::time::Span;

/// What is left of the limit after a call that was dropped, unless said otherwise.
pub const BACKOFF: Ratio = Ratio::percent(90);
/// The latency above which a call counts as dropped, unless said otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// One more with each call that went well while at least half of the limit was in use; a tenth less with each that was dropped.
///
/// It needs no idea of what a good latency is, but finds the limit only by going beyond it.
///
/// Source: Chiu and Jain, "Analysis of the increase and decrease algorithms for congestion avoidance in computer networks",
/// 1989; the settings are those of Netflix's `AIMDLimit`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Aimd {
    backoff: Ratio,
    timeout: Span,
}

impl Default for Aimd {
    fn default() -> Self {
        Self::new()
    }
}

impl Aimd {
    /// The defaults, as in the [module's table](super#defaults).
    #[must_use]
    pub const fn new() -> Self {
        Self { backoff: BACKOFF, timeout: Span::of(TIMEOUT) }
    }

    /// What is left of the limit after a call that was dropped.
    #[must_use]
    pub const fn with_backoff(mut self, backoff: Ratio) -> Self {
        self.backoff = backoff;
        self
    }

    /// A call that takes longer counts as dropped.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Span::of(timeout);
        self
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    /// The first field that doesn't, and why.
    pub const fn validate(self) -> Result<Valid<Self>, ConfigError> {
        if self.backoff.as_basis_points() >= Ratio::ONE.as_basis_points() {
            return Err(refuse!("backoff", "is 1 or more: the limit would never fall"));
        }
        Ok(Valid::vouched(self))
    }
}

/// Nothing but the limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct NoMemory;

impl Fresh for NoMemory {
    const FRESH: Self = Self;
}

impl Algorithm for Aimd {
    type Memory = NoMemory;

    fn record(&self, _: &mut NoMemory, limit: Estimate, sample: &Sample, _: &Limits) -> Estimate {
        if sample.dropped || sample.latency() > self.timeout {
            // Rounded down: a limit of 9 becomes 8, not 8.1, which would take ten more to be felt.
            Estimate::of(Estimate::of(limit.whole()).share(self.backoff).whole())
        } else if sample.in_flight.saturating_mul(2) >= limit.whole() {
            limit.plus(Estimate::of(1))
        } else {
            limit
        }
    }
}
