//! A budget of so many tokens in all.

use core::cell::Cell;
use core::fmt;

use super::RetryBudget;
use crate::cell::{CellKind, Fresh, Packed, StateCell, Stored};
use crate::config::{ConfigError, Valid, refuse};
use crate::outcome::{Outcome, Verdict};
use crate::time::Clock;

/// Tokens in all, unless said otherwise.
pub const CAPACITY: u32 = 500;
/// Tokens that a retry takes, unless said otherwise.
pub const RETRY_COST: u16 = 5;
/// Tokens that a call brings back that succeeded without a retry, unless said otherwise.
pub const NO_RETRY_REFUND: u16 = 1;

/// The settings of a quota.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct QuotaConfig {
    capacity: u32,
    retry_cost: u16,
    no_retry_refund: u16,
}

impl Default for QuotaConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl QuotaConfig {
    /// The defaults, as in the [module's table](super#defaults).
    #[must_use]
    pub const fn new() -> Self {
        Self { capacity: CAPACITY, retry_cost: RETRY_COST, no_retry_refund: NO_RETRY_REFUND }
    }

    /// So many tokens in all.
    #[must_use]
    pub const fn with_capacity(mut self, tokens: u32) -> Self {
        self.capacity = tokens;
        self
    }

    /// A retry takes so many, unless the classifier [says otherwise](Verdict::with_cost) about the failure: a timeout costs a
    /// dependency more than an error that it gave at once.
    #[must_use]
    pub const fn with_retry_cost(mut self, tokens: u16) -> Self {
        self.retry_cost = tokens;
        self
    }

    /// A call that succeeded without a retry brings back so many.
    #[must_use]
    pub const fn with_no_retry_refund(mut self, tokens: u16) -> Self {
        self.no_retry_refund = tokens;
        self
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    /// The first field that doesn't, and why.
    pub const fn validate(self) -> Result<Valid<Self>, ConfigError> {
        if self.capacity == 0 {
            return Err(refuse!("capacity", "is zero: there would be no retries"));
        }
        if self.retry_cost == 0 {
            return Err(refuse!("retry_cost", "is zero: that limits nothing"));
        }
        Ok(Valid::vouched(self))
    }
}

/// What a quota keeps: the tokens that are gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Used(pub(super) u32);

impl Fresh for Used {
    const FRESH: Self = Self(0);
}

impl Stored for Used {
    type Cell = Cell<Self>;
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half of the word is meant")]
impl Packed for Used {
    #[inline]
    fn pack(self) -> (u64, u64) {
        (self.0.into(), 0)
    }

    #[inline]
    fn unpack(head: u64, _: u64) -> Self {
        Self(head as u32)
    }

    #[inline]
    fn has_tail(_: u64) -> bool {
        false
    }
}

/// A budget of so many tokens: each retry takes some, by the kind of failure, and a call that succeeds in the end brings the
/// last ones back.
///
/// Source: the retry quota of the AWS SDKs' standard retry mode.
pub struct QuotaBudget<K: CellKind<Used>> {
    config: QuotaConfig,
    used: K::Cell,
}

impl<K: CellKind<Used>> fmt::Debug for QuotaBudget<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuotaBudget").field("balance", &self.balance()).finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<K: CellKind<Used>> defmt::Format for QuotaBudget<K> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "QuotaBudget {{ balance: {} }}", self.balance());
    }
}

impl<K: CellKind<Used>> QuotaBudget<K> {
    /// A full quota.
    #[must_use]
    pub const fn new(config: Valid<QuotaConfig>) -> Self {
        Self { config: config.get(), used: K::Cell::NEW }
    }

    /// Brings so many tokens back, up to the capacity.
    pub fn deposit(&self, tokens: u32) {
        self.used.update(|used| used.0 = used.0.saturating_sub(tokens));
    }

    /// Takes so many tokens, all or none; whether they were there.
    pub fn try_withdraw(&self, tokens: u32) -> bool {
        self.used.update(|used| {
            // Not saturating: a capacity of all that the counter holds would let through whatever is asked for.
            let after = used.0.checked_add(tokens).filter(|&after| after <= self.config.capacity);
            used.0 = after.unwrap_or(used.0);
            after.is_some()
        })
    }

    /// Tokens that are there.
    pub fn balance(&self) -> u32 {
        self.used.read(|used| self.config.capacity.saturating_sub(used.0))
    }

    /// Goes on with so many tokens, at most a full quota: the [`balance`](Self::balance) from before a [reset](crate::retained).
    pub fn restore(&self, balance: u32) {
        self.used.update(|used| used.0 = self.config.capacity.saturating_sub(balance));
    }
}

/// What a call took for its last retry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SpentQuota {
    pub(super) last: Option<u16>,
    joined: bool,
}

impl<K: CellKind<Used>> RetryBudget for QuotaBudget<K> {
    type Spent = SpentQuota;

    fn begin(&self, _: &impl Clock) -> SpentQuota {
        SpentQuota { last: None, joined: false }
    }

    fn join(&self, _: &impl Clock) -> SpentQuota {
        SpentQuota { last: None, joined: true }
    }

    fn try_retry(&self, spent: &mut SpentQuota, verdict: Verdict, _: &impl Clock) -> bool {
        let cost = verdict.cost().unwrap_or(self.config.retry_cost);
        let allowed = self.try_withdraw(cost.into());
        if allowed {
            spent.last = Some(cost);
        }
        allowed
    }

    fn end(&self, spent: SpentQuota, outcome: Outcome) {
        // Whoever joined only brings back what it took itself.
        let refund = spent.last.unwrap_or(if spent.joined { 0 } else { self.config.no_retry_refund });
        if outcome == Outcome::Success && refund > 0 {
            self.deposit(refund.into());
        }
    }
}
