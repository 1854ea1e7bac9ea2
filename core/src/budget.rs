//! Budgets of retries: what keeps retries and hedges from multiplying the load of a dependency that is in trouble.
//!
//! Three attempts for each call are three times the load, at the very moment when the dependency can bear it least. A budget
//! is shared by all who call it, retries and [hedges](crate::hedge) alike, and lets through no more of them than a share of the
//! calls. What it refuses ends the retry with the last real error and [`Stop::Budget`](crate::Stop::Budget).
//!
//! ```
//! use failsoft_core::{Pipeline, Stop, budget::{QuotaBudget, QuotaConfig}, cell::Local, retry::{Config, RetryPolicy}};
//! use failsoft_core::testing::{Script, Step, VirtualExecutor};
//!
//! let executor = VirtualExecutor::new();
//! let budget = QuotaBudget::<Local>::new(QuotaConfig::new().with_capacity(12).validate()?);
//! let retry = RetryPolicy::with_budget(Config::new().with_max_attempts(9).validate()?, (), &budget);
//! let pipeline = Pipeline::new(&executor).layer(retry);
//!
//! let service = Script::new(&[Step::Fail]);
//! let failure = executor.run(pipeline.call(|_| service.call(&executor))).expect("it ends").unwrap_err();
//! assert_eq!((failure.attempts, failure.stop), (3, Some(Stop::Budget))); // two retries, five tokens each
//! assert_eq!(budget.balance(), 2);
//! # Ok::<(), failsoft_core::ConfigError>(())
//! ```
//!
//! # Which one
//! * [`TokenBudget`]: each call deposits a part of a retry, for a time; so many a second are always there. The one to
//!   begin with. It needs the time of each call.
//! * [`QuotaBudget`]: so many tokens in all; a retry takes some, by the kind of error, and a success brings them back.
//! * [`RetryThrottle`]: failures empty a small bucket, successes fill it; no retries while it is less than half full.
//! * [`ConcurrentBudget`]: of the calls in flight, so many may be retries.
//!
//! All but the first fit a lock-free word and read no clock.
//!
//! A call begins with a budget once, in however many retries and hedges it meets it one within the other; unless another budget is between
//! them, and then again.
//!
//! # Defaults
//!
//! | what | default | range | at the extremes |
//! | --- | --- | --- | --- |
//! | token budget: deposit of a call | [`DEPOSIT`] (20 % of a retry) | any | zero leaves the floor alone |
//! | token budget: how long it lasts | [`TTL`] (10 s) | 1 to 60 s | |
//! | token budget: floor | [`MINIMUM_PER_SECOND`] (10 retries a second) | any | zero: no retries where there are no calls |
//! | quota: capacity | [`CAPACITY`] (500 tokens) | 1 or more | below the cost of a retry: none at all |
//! | quota: cost of a retry | [`RETRY_COST`] (5 tokens), or the [verdict's](Verdict::with_cost) | 1 or more | |
//! | quota: refund for a call without retries | [`NO_RETRY_REFUND`] (1 token) | any | |
//! | retry throttle: tokens | [`MAX_TOKENS`] (10) | 1 to 1,000 | |
//! | retry throttle: refill of a success | [`TOKEN_RATIO`] (0.1 tokens) | above zero, in thousandths | |
//! | concurrent: share of the calls in flight | [`RETRIES_IN_FLIGHT`] (20 %) | up to 100 % | |
//! | concurrent: floor | [`MINIMUM_CONCURRENCY`] (3 retries) | any | zero: none at all where few calls are in flight |
//!
//! # When not to use it
//! Where calls are rare: a budget that has seen no calls allows little but its floor, and a limit of attempts is enough.
//! And a budget is no circuit breaker: it stops the retries, not the calls. What it lets through may be all that an overload needs to
//! stay: a dependency that is at 80 % of what it bears in good times has no room for 20 % of retries and the floor on top. A smaller
//! deposit, or a breaker within, is for those.
//!
//! # Source
//! Each kind names its own. The idea: "Handling Overload", chapter 21 of Beyer, Jones, Petoff and Murphy (editors), "Site
//! Reliability Engineering", O'Reilly 2016, section "Deciding to Retry".

use core::ptr;

use crate::outcome::{Outcome, Verdict};
use crate::time::Clock;

mod concurrent;
mod quota;
mod throttle;
mod tokens;

pub use concurrent::{
    ConcurrentBudget, ConcurrentConfig, InFlight, MINIMUM_CONCURRENCY, RETRIES_IN_FLIGHT, SpentRetries,
};
pub use quota::{CAPACITY, NO_RETRY_REFUND, QuotaBudget, QuotaConfig, RETRY_COST, SpentQuota, Used};
pub use throttle::{MAX_TOKENS, RetryThrottle, RetryThrottleConfig, SpentTokens, TOKEN_RATIO};
pub use tokens::{DEPOSIT, Deposits, MINIMUM_PER_SECOND, SLICES, TTL, TokenBudget, TokenConfig, Tokens};

/// A budget that retries and hedges, of many calls at once, are paid from.
///
/// `()` is none: it allows everything. A reference to a budget is one, so that several policies share it.
pub trait RetryBudget {
    /// What one call has of it until it ends.
    type Spent;

    /// A call begins: its first attempt may deposit something.
    fn begin(&self, clock: &impl Clock) -> Self::Spent;

    /// A call begins within one that has already begun with this budget: nothing more is deposited for it.
    fn join(&self, clock: &impl Clock) -> Self::Spent;

    /// Whether there may be another attempt, which it is then charged for. `verdict` is that over the attempt that failed; a hedge,
    /// for which nothing has failed yet, asks with one that is [ignored](Outcome::Ignored).
    fn try_retry(&self, spent: &mut Self::Spent, verdict: Verdict, clock: &impl Clock) -> bool;

    /// The call has ended so; [ignored](Outcome::Ignored) where it was dropped, or where its failure says nothing about the
    /// dependency's health.
    fn end(&self, spent: Self::Spent, outcome: Outcome);

    /// Which budget it is: two references to the same one have the same number.
    fn id(&self) -> usize {
        ptr::from_ref(self).addr()
    }
}

impl RetryBudget for () {
    type Spent = ();

    fn begin(&self, _: &impl Clock) {}

    fn join(&self, _: &impl Clock) {}

    fn try_retry(&self, (): &mut (), _: Verdict, _: &impl Clock) -> bool {
        true
    }

    fn end(&self, (): (), _: Outcome) {}

    fn id(&self) -> usize {
        0
    }
}

impl<B: RetryBudget> RetryBudget for &B {
    type Spent = B::Spent;

    fn begin(&self, clock: &impl Clock) -> B::Spent {
        (**self).begin(clock)
    }

    fn join(&self, clock: &impl Clock) -> B::Spent {
        (**self).join(clock)
    }

    fn try_retry(&self, spent: &mut B::Spent, verdict: Verdict, clock: &impl Clock) -> bool {
        (**self).try_retry(spent, verdict, clock)
    }

    fn end(&self, spent: B::Spent, outcome: Outcome) {
        (**self).end(spent, outcome);
    }

    fn id(&self) -> usize {
        (**self).id()
    }
}

/// A budget that may be left out at run time: then everything is allowed.
impl<B: RetryBudget> RetryBudget for Option<B> {
    type Spent = Option<B::Spent>;

    fn begin(&self, clock: &impl Clock) -> Self::Spent {
        self.as_ref().map(|budget| budget.begin(clock))
    }

    fn join(&self, clock: &impl Clock) -> Self::Spent {
        self.as_ref().map(|budget| budget.join(clock))
    }

    fn try_retry(&self, spent: &mut Self::Spent, verdict: Verdict, clock: &impl Clock) -> bool {
        match (self, spent) {
            (Some(budget), Some(spent)) => budget.try_retry(spent, verdict, clock),
            _ => true,
        }
    }

    fn end(&self, spent: Self::Spent, outcome: Outcome) {
        if let (Some(budget), Some(spent)) = (self, spent) {
            budget.end(spent, outcome);
        }
    }

    fn id(&self) -> usize {
        self.as_ref().map_or(0, RetryBudget::id)
    }
}

/// What a call has of a budget, until it is ended: as ignored, if by nothing else than being dropped.
pub(crate) struct Open<'b, B: RetryBudget> {
    pub(crate) budget: &'b B,
    pub(crate) spent: Option<B::Spent>,
}

impl<B: RetryBudget> Drop for Open<'_, B> {
    fn drop(&mut self) {
        if let Some(spent) = self.spent.take() {
            self.budget.end(spent, Outcome::Ignored);
        }
    }
}

#[cfg(test)]
mod tests;
