//! Vegas: as many calls as wait in a queue of a certain length.

use core::time::Duration;

use super::{Algorithm, Amount, Estimate, Limits, Sample};
use crate::cell::Fresh;
use crate::config::{ConfigError, Valid, refuse};
use crate::ratio::Ratio;
use crate::time::Span;

/// Calls per unit of the limit after which the latency without load is measured anew, unless said otherwise.
pub const PROBE_MULTIPLIER: u32 = 30;

/// How many calls wait somewhere is estimated from the latency: limit · (1 − latency without load / latency). The limit rises
/// while few wait, and falls when many do.
///
/// The latency without load is the lowest that was seen. From time to time it is forgotten, and the next one takes its place, so that a
/// dependency that has become slower for good does not keep the limit down.
///
/// Source: Brakmo and Peterson, "TCP Vegas: end to end congestion avoidance on a global Internet", 1995, as Netflix's
/// `VegasLimit` applies it; there the moment of a new measurement is drawn at random, here it is not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Vegas {
    alpha: Amount,
    beta: Amount,
    threshold: Amount,
    increase: Amount,
    decrease: Amount,
    smoothing: Ratio,
    probe_multiplier: u32,
}

impl Default for Vegas {
    fn default() -> Self {
        Self::new()
    }
}

impl Vegas {
    /// The defaults, as in the [module's table](super#defaults).
    #[must_use]
    pub const fn new() -> Self {
        Self {
            alpha: Amount::Log10(3),
            beta: Amount::Log10(6),
            threshold: Amount::Log10(1),
            increase: Amount::Log10(1),
            decrease: Amount::Log10(1),
            smoothing: Ratio::ONE,
            probe_multiplier: PROBE_MULTIPLIER,
        }
    }

    /// With fewer waiting than this, the limit rises.
    #[must_use]
    pub const fn with_alpha(mut self, alpha: Amount) -> Self {
        self.alpha = alpha;
        self
    }

    /// With more waiting than this, the limit falls.
    #[must_use]
    pub const fn with_beta(mut self, beta: Amount) -> Self {
        self.beta = beta;
        self
    }

    /// With no more waiting than this, the limit rises by all of beta.
    #[must_use]
    pub const fn with_threshold(mut self, threshold: Amount) -> Self {
        self.threshold = threshold;
        self
    }

    /// By how much it rises.
    #[must_use]
    pub const fn with_increase(mut self, increase: Amount) -> Self {
        self.increase = increase;
        self
    }

    /// By how much it falls.
    #[must_use]
    pub const fn with_decrease(mut self, decrease: Amount) -> Self {
        self.decrease = decrease;
        self
    }

    /// How much of each change is made: above zero to 1.
    #[must_use]
    pub const fn with_smoothing(mut self, smoothing: Ratio) -> Self {
        self.smoothing = smoothing;
        self
    }

    /// Measures the latency without load anew after so many calls times the limit.
    #[must_use]
    pub const fn with_probe_multiplier(mut self, multiplier: u32) -> Self {
        self.probe_multiplier = multiplier;
        self
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    /// The first field that doesn't, and why.
    pub const fn validate(self) -> Result<Valid<Self>, ConfigError> {
        let Self { alpha, beta, threshold, increase, decrease, .. } = self;
        let amounts = [alpha, beta, threshold, increase, decrease];
        let mut rest = amounts.as_slice();
        while let [amount, others @ ..] = rest {
            if let Err(error) = amount.check() {
                return Err(error);
            }
            rest = others;
        }
        if self.smoothing.as_basis_points() == 0 || !self.smoothing.is_share() {
            return Err(refuse!("smoothing", "is zero or above 1"));
        }
        if self.probe_multiplier < 2 {
            return Err(refuse!(
                "probe_multiplier",
                "is below 2: at a limit of one, every call would be taken for one without load"
            ));
        }
        Ok(Valid::vouched(self))
    }
}

/// What Vegas remembers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct NoLoad {
    // Zero: not known yet.
    latency: Span,
    // Calls since it was measured anew.
    calls: u32,
}

impl Fresh for NoLoad {
    const FRESH: Self = Self { latency: Span::ZERO, calls: 0 };
}

impl NoLoad {
    /// The latency without load; zero while it is not known.
    #[must_use]
    pub const fn latency(&self) -> Duration {
        self.latency.duration()
    }
}

impl Algorithm for Vegas {
    type Memory = NoLoad;

    fn record(&self, memory: &mut NoLoad, limit: Estimate, sample: &Sample, limits: &Limits) -> Estimate {
        if sample.dropped {
            // How long it took says nothing: it may have failed at once.
            return limit.towards(limits.clamp(limit.minus(self.decrease.at(limit))), self.smoothing);
        }
        if sample.latency.is_zero() {
            // Less than the clock can tell: as the lowest latency it would make all others look like overload.
            return limit;
        }
        let latency = sample.latency();
        memory.calls = memory.calls.saturating_add(1);
        let probes = memory.calls >= self.probe_multiplier.saturating_mul(limit.whole());
        if probes {
            memory.calls = 0;
        }
        if probes || memory.latency.is_zero() || latency < memory.latency {
            memory.latency = latency;
            return limit;
        }
        if sample.in_flight.saturating_mul(2) < limit.rounded_up() {
            // Nobody could say whether more would be too many.
            return limit;
        }
        let waiting = Estimate::of(limit.minus(limit.times(memory.latency, latency)).rounded_up());
        let next = if waiting <= self.threshold.at(limit) {
            limit.plus(self.beta.at(limit))
        } else if waiting < self.alpha.at(limit) {
            limit.plus(self.increase.at(limit))
        } else if waiting > self.beta.at(limit) {
            limit.minus(self.decrease.at(limit))
        } else {
            return limit;
        };
        // Within the limits first: the part of the way is one to where it may go.
        limit.towards(limits.clamp(next), self.smoothing)
    }
}
