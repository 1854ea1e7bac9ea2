//! A budget that failures empty and successes fill.

use core::fmt;

use super::RetryBudget;
use super::quota::Used;
use crate::cell::{CellKind, StateCell};
use crate::config::{ConfigError, Valid, refuse};
use crate::outcome::{Outcome, Verdict};
use crate::time::Clock;

/// Tokens of a full bucket, unless said otherwise.
pub const MAX_TOKENS: u32 = 10;
/// What a success brings back, in thousandths of a token, unless said otherwise.
pub const TOKEN_RATIO: u32 = 100;

/// One token.
const TOKEN: u32 = 1_000;

/// The settings of a retry throttle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RetryThrottleConfig {
    max_tokens: u32,
    token_ratio: u32,
}

impl Default for RetryThrottleConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl RetryThrottleConfig {
    /// The defaults, as in the [module's table](super#defaults).
    #[must_use]
    pub const fn new() -> Self {
        Self { max_tokens: MAX_TOKENS, token_ratio: TOKEN_RATIO }
    }

    /// So many tokens in a full bucket. Each failure takes one; retries are allowed while it is more than half full.
    #[must_use]
    pub const fn with_max_tokens(mut self, tokens: u32) -> Self {
        self.max_tokens = tokens;
        self
    }

    /// Each success brings back so many thousandths of a token.
    #[must_use]
    pub const fn with_token_ratio(mut self, thousandths: u32) -> Self {
        self.token_ratio = thousandths;
        self
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    /// The first field that doesn't, and why.
    pub const fn validate(self) -> Result<Valid<Self>, ConfigError> {
        if self.max_tokens == 0 {
            return Err(refuse!("max_tokens", "is zero: there would be no retries"));
        }
        if self.max_tokens > 1_000 {
            return Err(refuse!("max_tokens", "is above 1,000"));
        }
        if self.token_ratio == 0 {
            return Err(refuse!("token_ratio", "is zero: after the first failures there would be no more retries"));
        }
        Ok(Valid::vouched(self))
    }

    const fn full(&self) -> u32 {
        self.max_tokens.saturating_mul(TOKEN)
    }
}

/// A budget that every failure empties by a token and every success fills a little; there are retries while it is more than
/// half full.
///
/// Source: retry throttling of gRPC (gRFC A6, "Throttling Retry Attempts and Hedged RPCs").
pub struct RetryThrottle<K: CellKind<Used>> {
    config: RetryThrottleConfig,
    used: K::Cell,
}

impl<K: CellKind<Used>> fmt::Debug for RetryThrottle<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryThrottle").field("thousandths", &self.thousandths()).finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<K: CellKind<Used>> defmt::Format for RetryThrottle<K> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "RetryThrottle {{ thousandths: {} }}", self.thousandths());
    }
}

impl<K: CellKind<Used>> RetryThrottle<K> {
    /// A full bucket.
    #[must_use]
    pub const fn new(config: Valid<RetryThrottleConfig>) -> Self {
        Self { config: config.get(), used: K::Cell::NEW }
    }

    /// A call failed in a way that another attempt might mend.
    pub fn failure(&self) {
        self.used.update(|used| used.0 = used.0.saturating_add(TOKEN).min(self.config.full()));
    }

    /// A call succeeded.
    pub fn success(&self) {
        self.used.update(|used| used.0 = used.0.saturating_sub(self.config.token_ratio));
    }

    /// Thousandths of tokens that are there.
    pub fn thousandths(&self) -> u32 {
        self.used.read(|used| self.config.full().saturating_sub(used.0))
    }

    /// Goes on with so many thousandths of tokens, at most a full bucket: those from before a [reset](crate::retained).
    pub fn restore(&self, thousandths: u32) {
        self.used.update(|used| used.0 = self.config.full().saturating_sub(thousandths));
    }

    /// Whether there may be retries.
    pub fn allows(&self) -> bool {
        self.thousandths() > self.config.full() / 2
    }
}

/// Whether the call's last failure has been counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SpentTokens {
    counted: bool,
}

impl<K: CellKind<Used>> RetryBudget for RetryThrottle<K> {
    type Spent = SpentTokens;

    fn begin(&self, _: &impl Clock) -> SpentTokens {
        SpentTokens { counted: false }
    }

    /// The call within which it begins tells how it ends.
    fn join(&self, _: &impl Clock) -> SpentTokens {
        SpentTokens { counted: true }
    }

    fn try_retry(&self, spent: &mut SpentTokens, verdict: Verdict, _: &impl Clock) -> bool {
        let failed = verdict.outcome() == Outcome::Failure;
        if failed {
            self.failure();
        }
        let allowed = self.allows();
        spent.counted = failed && !allowed;
        allowed
    }

    fn end(&self, spent: SpentTokens, outcome: Outcome) {
        match outcome {
            Outcome::Success => self.success(),
            Outcome::Failure if !spent.counted => self.failure(),
            Outcome::Failure | Outcome::Ignored => {}
        }
    }
}
