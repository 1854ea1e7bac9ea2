//! A budget of retries in flight.

use core::cell::Cell;
use core::fmt;

use super::RetryBudget;
use crate::cell::{CellKind, Fresh, Packed, StateCell, Stored};
use crate::config::{ConfigError, Valid, refuse};
use crate::outcome::{Outcome, Verdict};
use crate::ratio::Ratio;
use crate::time::Clock;

/// The share of the calls in flight that may be retries, unless said otherwise.
pub const RETRIES_IN_FLIGHT: Ratio = Ratio::percent(20);
/// Retries that may always be in flight, unless said otherwise.
pub const MINIMUM_CONCURRENCY: u32 = 3;

/// The settings of a budget of retries in flight.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ConcurrentConfig {
    share: Ratio,
    minimum: u32,
}

impl Default for ConcurrentConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl ConcurrentConfig {
    /// The defaults, as in the [module's table](super#defaults).
    #[must_use]
    pub const fn new() -> Self {
        Self { share: RETRIES_IN_FLIGHT, minimum: MINIMUM_CONCURRENCY }
    }

    /// So many of the calls in flight may be retries.
    #[must_use]
    pub const fn with_share(mut self, share: Ratio) -> Self {
        self.share = share;
        self
    }

    /// So many retries may always be in flight.
    #[must_use]
    pub const fn with_minimum_concurrency(mut self, retries: u32) -> Self {
        self.minimum = retries;
        self
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    /// The first field that doesn't, and why.
    pub const fn validate(self) -> Result<Valid<Self>, ConfigError> {
        if !self.share.is_share() {
            return Err(refuse!("share", "is above 1"));
        }
        Ok(Valid::vouched(self))
    }

    /// The most retries in flight beside so many calls, rounded down.
    fn most(&self, calls: u32) -> u32 {
        u32::try_from(self.share.of(calls.into())).unwrap_or(u32::MAX).max(self.minimum)
    }
}

/// Calls that are under way, and their retries that are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct InFlight {
    /// Calls, retried or not.
    pub calls: u32,
    /// Those of their attempts that are retries or hedges.
    pub retries: u32,
}

impl Fresh for InFlight {
    const FRESH: Self = Self { calls: 0, retries: 0 };
}

impl Stored for InFlight {
    type Cell = Cell<Self>;
}

impl InFlight {
    /// The word's highest bit is the cell's own.
    const MOST_RETRIES: u32 = u32::MAX >> 1;

    fn retry(&mut self, config: &ConcurrentConfig) -> bool {
        let allowed = self.retries < config.most(self.calls).min(Self::MOST_RETRIES);
        self.retries = self.retries.saturating_add(allowed.into());
        allowed
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the halves of the word are meant")]
impl Packed for InFlight {
    #[inline]
    fn pack(self) -> (u64, u64) {
        (u64::from(self.retries) << 32 | u64::from(self.calls), 0)
    }

    #[inline]
    fn unpack(head: u64, _: u64) -> Self {
        Self { calls: head as u32, retries: (head >> 32) as u32 }
    }

    #[inline]
    fn has_tail(_: u64) -> bool {
        false
    }
}

/// A budget by what is in flight: of the calls under way, so many may be retries.
///
/// Source: retry budgets of Envoy's circuit breakers, and of failsafe-go.
pub struct ConcurrentBudget<K: CellKind<InFlight>> {
    config: ConcurrentConfig,
    in_flight: K::Cell,
}

impl<K: CellKind<InFlight>> fmt::Debug for ConcurrentBudget<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrentBudget").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<K: CellKind<InFlight>> defmt::Format for ConcurrentBudget<K> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "ConcurrentBudget {{ in_flight: {} }}", self.in_flight());
    }
}

impl<K: CellKind<InFlight>> ConcurrentBudget<K> {
    /// A budget with nothing in flight.
    #[must_use]
    pub const fn new(config: Valid<ConcurrentConfig>) -> Self {
        Self { config: config.get(), in_flight: K::Cell::NEW }
    }

    /// What is in flight.
    pub fn in_flight(&self) -> InFlight {
        self.in_flight.read(|in_flight| *in_flight)
    }

    /// The most retries that may be in flight now.
    pub fn limit(&self) -> u32 {
        self.config.most(self.in_flight().calls)
    }
}

/// What a call has in flight.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SpentRetries {
    calls: u32,
    retries: u32,
}

impl<K: CellKind<InFlight>> RetryBudget for ConcurrentBudget<K> {
    type Spent = SpentRetries;

    fn begin(&self, _: &impl Clock) -> SpentRetries {
        self.in_flight.update(|in_flight| in_flight.calls = in_flight.calls.saturating_add(1));
        SpentRetries { calls: 1, retries: 0 }
    }

    fn join(&self, _: &impl Clock) -> SpentRetries {
        SpentRetries { calls: 0, retries: 0 }
    }

    fn try_retry(&self, spent: &mut SpentRetries, verdict: Verdict, _: &impl Clock) -> bool {
        // A retry that failed is over; a hedge joins those that are not.
        let over = u32::from(verdict.outcome() == Outcome::Failure && spent.retries > 0);
        let allowed = self.in_flight.update(|in_flight| {
            in_flight.retries = in_flight.retries.saturating_sub(over);
            in_flight.retry(&self.config)
        });
        spent.retries = spent.retries.saturating_sub(over).saturating_add(allowed.into());
        allowed
    }

    fn end(&self, spent: SpentRetries, _: Outcome) {
        self.in_flight.update(|in_flight| {
            in_flight.calls = in_flight.calls.saturating_sub(spent.calls);
            in_flight.retries = in_flight.retries.saturating_sub(spent.retries);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_retries_in_flight_than_the_counter_holds_beside_the_cells_own_bit() {
        let config = ConcurrentConfig::new().with_share(Ratio::ONE).validate().expect("it makes sense").get();
        let mut in_flight = InFlight { calls: u32::MAX, retries: 0x7FFF_FFFE };
        assert!(in_flight.retry(&config) && !in_flight.retry(&config));
        assert_eq!(in_flight.retries, 0x7FFF_FFFF);
    }
}
