//! A budget to which calls deposit.

use core::fmt;
use core::time::Duration;

use super::RetryBudget;
use crate::cell::{CellKind, Fresh, StateCell};
use crate::config::{ConfigError, Valid, refuse};
use crate::math::divide;
use crate::outcome::{Outcome, Verdict};
use crate::ratio::Ratio;
use crate::time::{Clock, Span};
use crate::window::{Accumulate, TimeWindow};

/// Retries that each call deposits, unless said otherwise: one in five calls may be retried.
pub const DEPOSIT: Ratio = Ratio::percent(20);
/// How long a deposit lasts, unless said otherwise.
pub const TTL: Duration = Duration::from_secs(10);
/// Retries that are there each second without any deposit, unless said otherwise: enough for a client that calls rarely.
pub const MINIMUM_PER_SECOND: u32 = 10;
/// The steps in which deposits end.
pub const SLICES: usize = 10;

/// The settings of a token budget.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct TokenConfig {
    deposit: Ratio,
    ttl: Span,
    minimum_per_second: u32,
}

impl Default for TokenConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl TokenConfig {
    /// The defaults, as in the [module's table](super#defaults).
    #[must_use]
    pub const fn new() -> Self {
        Self { deposit: DEPOSIT, ttl: Span::of(TTL), minimum_per_second: MINIMUM_PER_SECOND }
    }

    /// So much of a retry is deposited by each call. Above 100 % each pays for more than one: the load may then multiply by that.
    #[must_use]
    pub const fn with_deposit(mut self, deposit: Ratio) -> Self {
        self.deposit = deposit;
        self
    }

    /// Deposits last this long, less a tenth at most.
    #[must_use]
    pub const fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Span::of(ttl);
        self
    }

    /// So many retries are there each second without any deposit.
    #[must_use]
    pub const fn with_minimum_per_second(mut self, retries: u32) -> Self {
        self.minimum_per_second = retries;
        self
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    /// The first field that doesn't, and why.
    pub const fn validate(self) -> Result<Valid<Self>, ConfigError> {
        match self.ttl.as_nanos() {
            0..1_000_000_000 => Err(refuse!("ttl", "is below 1 s")),
            1_000_000_000..=60_000_000_000 => Ok(Valid::vouched(self)),
            _ => Err(refuse!("ttl", "is above 60 s: what was deposited so long ago says little about now")),
        }
    }

    /// What is always there, over the time that deposits last.
    fn floor(&self) -> i64 {
        // Below 2^46, and the time below 2^16: their product fits.
        let a_second = u64::from(self.minimum_per_second).saturating_mul(RETRY.unsigned_abs());
        let (millis, _) = divide(self.ttl.as_nanos(), 1_000_000);
        divide(a_second.saturating_mul(millis), 1_000).0.cast_signed()
    }

    #[expect(clippy::cast_possible_truncation, reason = "ten of them")]
    const fn slice(&self) -> Span {
        Span::from_nanos(divide(self.ttl.as_nanos(), SLICES as u32).0)
    }
}

/// A retry, in hundredths of a percent of one.
const RETRY: i64 = Ratio::ONE.as_basis_points() as i64;

/// What was deposited, less what was taken, in hundredths of a percent of a retry.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Deposits(i64);

impl Fresh for Deposits {
    const FRESH: Self = Self(0);
}

impl Accumulate for Deposits {
    fn add(&mut self, other: &Self) -> bool {
        let sum = self.0.checked_add(other.0);
        self.0 = sum.unwrap_or(self.0);
        sum.is_some()
    }

    fn subtract(&mut self, other: &Self) {
        self.0 = self.0.saturating_sub(other.0);
    }
}

/// What a token budget keeps.
pub type Tokens = TimeWindow<Deposits, SLICES>;

/// A budget to which each call deposits a part of a retry, which lasts for a time; and so many a second are always there.
///
/// Source: `RetryBudget` of Finagle (Twitter).
pub struct TokenBudget<K: CellKind<Tokens>> {
    config: TokenConfig,
    tokens: K::Cell,
}

impl<K: CellKind<Tokens>> fmt::Debug for TokenBudget<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenBudget").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<K: CellKind<Tokens>> defmt::Format for TokenBudget<K> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "TokenBudget {{ config: {} }}", self.config);
    }
}

impl<K: CellKind<Tokens>> TokenBudget<K> {
    /// A budget without deposits yet.
    #[must_use]
    pub const fn new(config: Valid<TokenConfig>) -> Self {
        Self { config: config.get(), tokens: K::Cell::NEW }
    }

    /// Deposits what so many calls do.
    pub fn deposit(&self, calls: u32, clock: &impl Clock) {
        let amount = i64::from(self.config.deposit.as_basis_points()).saturating_mul(calls.into());
        let now = clock.now();
        self.tokens.update(|tokens| tokens.add(&Deposits(amount), self.config.slice(), now));
    }

    /// Takes so many retries, all or none; whether they were there.
    pub fn try_withdraw(&self, retries: u32, clock: &impl Clock) -> bool {
        let (cost, slice, now) = (i64::from(retries).saturating_mul(RETRY), self.config.slice(), clock.now());
        self.tokens.update(|tokens| {
            tokens.advance(slice, now);
            let balance = tokens.sum(slice, now).0.saturating_add(self.config.floor());
            let enough = balance >= cost;
            if enough {
                tokens.add(&Deposits(cost.saturating_neg()), slice, now);
            }
            enough
        })
    }

    /// Retries that could be taken now.
    pub fn balance(&self, clock: &impl Clock) -> u32 {
        let now = clock.now();
        let tokens = self.tokens.read(|tokens| tokens.sum(self.config.slice(), now));
        let tokens = tokens.0.saturating_add(self.config.floor()).max(0).unsigned_abs();
        u32::try_from(divide(tokens, Ratio::ONE.as_basis_points()).0).unwrap_or(u32::MAX)
    }
}

impl<K: CellKind<Tokens>> TokenBudget<K> {
    /// Goes on with no more than so many retries: the [`balance`](Self::balance) from before a [reset](crate::retained). What was
    /// deposited then is not deposited again, so there may be fewer.
    pub fn restore(&self, balance: u32, clock: &impl Clock) {
        let (kept, slice, now) = (i64::from(balance).saturating_mul(RETRY), self.config.slice(), clock.now());
        self.tokens.update(|tokens| {
            tokens.advance(slice, now);
            let there = tokens.sum(slice, now).0.saturating_add(self.config.floor());
            if there > kept {
                tokens.add(&Deposits(kept.saturating_sub(there)), slice, now);
            }
        });
    }
}

impl<K: CellKind<Tokens>> RetryBudget for TokenBudget<K> {
    type Spent = ();

    fn begin(&self, clock: &impl Clock) {
        self.deposit(1, clock);
    }

    fn join(&self, _: &impl Clock) {}

    fn try_retry(&self, (): &mut (), _: Verdict, clock: &impl Clock) -> bool {
        self.try_withdraw(1, clock)
    }

    fn end(&self, (): (), _: Outcome) {}
}
