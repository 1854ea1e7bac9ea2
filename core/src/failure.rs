//! How a call ends badly: the rejection, the timeout, and the one error type of everything composed.

use core::{fmt, time::Duration};

use crate::time::{Instant, Span};

/// The policy that rejected a call.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Policy {
    /// The circuit breaker.
    CircuitBreaker,
    /// The bulkhead.
    Bulkhead,
    /// Graceful degradation: the level in force doesn't run this feature.
    Degradation,
    /// The rate limiter.
    RateLimiter,
    /// The adaptive concurrency limit.
    AdaptiveLimit,
    /// The client-side throttler.
    Throttle,
    /// The adaptive rate.
    AdaptiveRate,
    /// The pipeline itself.
    Pipeline,
}

impl Policy {
    /// Its name in snake case, as it stands in labels and fields of telemetry: `circuit_breaker`, say. It is kept from version to version.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CircuitBreaker => "circuit_breaker",
            Self::Bulkhead => "bulkhead",
            Self::Degradation => "degradation",
            Self::RateLimiter => "rate_limiter",
            Self::AdaptiveLimit => "adaptive_limit",
            Self::Throttle => "throttle",
            Self::AdaptiveRate => "adaptive_rate",
            Self::Pipeline => "pipeline",
        }
    }
}

/// Why a call was rejected.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Reason {
    /// The breaker is open.
    Open,
    /// The breaker is half-open and all its probes are out.
    ProbesOut,
    /// The breaker is held open by hand.
    Isolated,
    /// All permits of the bulkhead are in use.
    Full,
    /// All permits are in use and the queue is full too.
    QueueFull,
    /// No permit came free within the longest wait.
    QueueTimeout,
    /// More permits were asked for than the bulkhead has.
    TooHeavy,
    /// The degradation level in force is too low for this feature.
    LevelTooLow,
    /// The quota is used up for now.
    RateExceeded,
    /// A later caller took the last place in the queue.
    Evicted,
    /// The limit of calls at once is reached.
    LimitReached,
    /// The call's priority is too low for the load.
    PriorityTooLow,
    /// The dependency rejects so much that this call was not even sent.
    Throttled,
    /// The operation may not be started once more: a request that is not idempotent, say, of which a try is under way.
    NotRepeatable,
}

impl Reason {
    /// Its name in snake case, as it stands in labels and fields of telemetry: `queue_full`, say. It is kept from version to version.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::ProbesOut => "probes_out",
            Self::Isolated => "isolated",
            Self::Full => "full",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::TooHeavy => "too_heavy",
            Self::LevelTooLow => "level_too_low",
            Self::RateExceeded => "rate_exceeded",
            Self::Evicted => "evicted",
            Self::LimitReached => "limit_reached",
            Self::PriorityTooLow => "priority_too_low",
            Self::Throttled => "throttled",
            Self::NotRepeatable => "not_repeatable",
        }
    }
}

/// A call that was not let through: who rejected it, why, and when to come back. Nothing was allocated for it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Rejected {
    policy: Policy,
    reason: Reason,
    // `Instant::MAX` stands for "not known".
    retry_at: Instant,
}

impl Rejected {
    pub(crate) const fn new(policy: Policy, reason: Reason) -> Self {
        Self { policy, reason, retry_at: Instant::MAX }
    }

    pub(crate) const fn until(policy: Policy, reason: Reason, retry_at: Instant) -> Self {
        Self { policy, reason, retry_at }
    }

    /// Who rejected.
    #[must_use]
    pub const fn policy(&self) -> Policy {
        self.policy
    }

    /// Why.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// When the same call has a chance again, where that is known.
    #[must_use]
    pub const fn retry_at(&self) -> Option<Instant> {
        if self.retry_at.as_nanos() == Instant::MAX.as_nanos() { None } else { Some(self.retry_at) }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.reason {
            Reason::Open => "rejected: the circuit breaker is open",
            Reason::ProbesOut => "rejected: the circuit breaker is half-open and all its probes are out",
            Reason::Isolated => "rejected: the circuit breaker is held open",
            Reason::Full => "rejected: all permits of the bulkhead are in use",
            Reason::QueueFull => "rejected: the queue is full",
            Reason::QueueTimeout => "rejected: no permit came free in time",
            Reason::TooHeavy => "rejected: more permits asked for than there are",
            Reason::LevelTooLow => "rejected: the degradation level is too low for this feature",
            Reason::RateExceeded => "rejected: the rate limit is exceeded",
            Reason::Evicted => "rejected: a later caller took the last place in the queue",
            Reason::LimitReached => "rejected: the limit of calls at once is reached",
            Reason::PriorityTooLow => "rejected: the call's priority is too low for the load",
            Reason::Throttled => "rejected: the dependency rejects too much of what it is sent",
            Reason::NotRepeatable => "rejected: the operation may not be started once more",
        })
    }
}

impl core::error::Error for Rejected {}

/// A call that took too long and was dropped.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct TimedOut {
    limit: Span,
    deadline: Instant,
}

impl TimedOut {
    pub(crate) const fn new(limit: Span, deadline: Instant) -> Self {
        Self { limit, deadline }
    }

    /// The limit of the timeout that ended the call.
    #[must_use]
    pub const fn limit(&self) -> Duration {
        self.limit.duration()
    }

    /// The deadline that passed.
    #[must_use]
    pub const fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "timed out after {:?}", self.limit())
    }
}

impl core::error::Error for TimedOut {}

/// Why a retry made no further attempt.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Stop {
    /// The limit of attempts was reached.
    Attempts,
    /// The next attempt would have started at or after the deadline.
    Deadline,
    /// The classifier called the failure permanent.
    NotRetryable,
    /// One of one's own policies rejected the attempt.
    Rejected,
    /// The budget of retries was empty.
    Budget,
}

/// What ended a call: a policy, or the operation's own error.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Cause<E> {
    /// The operation ran and returned this error.
    Inner(E),
    /// A policy did not let the call through.
    Rejected(Rejected),
    /// The call took too long.
    TimedOut(TimedOut),
}

/// The one error of everything composed: what ended the call, after how many attempts, and why there was no further.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Failure<E> {
    /// What ended the call; for a retried call, its last attempt.
    pub cause: Cause<E>,
    /// How many attempts were made under a retry policy; 0 where there was none.
    pub attempts: u32,
    /// Why the retry policy made no further attempt; `None` where there was none.
    pub stop: Option<Stop>,
}

impl<E> Failure<E> {
    /// A failure outside any retry.
    pub const fn new(cause: Cause<E>) -> Self {
        Self { cause, attempts: 0, stop: None }
    }

    /// The operation's own error, where the operation ran and failed.
    pub fn into_inner(self) -> Option<E> {
        match self.cause {
            Cause::Inner(error) => Some(error),
            Cause::Rejected(_) | Cause::TimedOut(_) => None,
        }
    }

    /// The operation's own error, by reference.
    pub const fn inner(&self) -> Option<&E> {
        match &self.cause {
            Cause::Inner(error) => Some(error),
            Cause::Rejected(_) | Cause::TimedOut(_) => None,
        }
    }

    /// The rejection, where a policy rejected.
    pub const fn rejected(&self) -> Option<Rejected> {
        match self.cause {
            Cause::Rejected(rejected) => Some(rejected),
            Cause::Inner(_) | Cause::TimedOut(_) => None,
        }
    }

    /// Whether a policy rejected the call.
    pub const fn is_rejected(&self) -> bool {
        matches!(self.cause, Cause::Rejected(_))
    }

    /// Whether the call timed out.
    pub const fn is_timed_out(&self) -> bool {
        matches!(self.cause, Cause::TimedOut(_))
    }
}

impl<E> From<Rejected> for Failure<E> {
    fn from(rejected: Rejected) -> Self {
        Self::new(Cause::Rejected(rejected))
    }
}

impl<E> From<TimedOut> for Failure<E> {
    fn from(timed_out: TimedOut) -> Self {
        Self::new(Cause::TimedOut(timed_out))
    }
}

impl<E: fmt::Display> fmt::Display for Failure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Inner(error) => write!(f, "{error}")?,
            Cause::Rejected(rejected) => write!(f, "{rejected}")?,
            Cause::TimedOut(timed_out) => write!(f, "{timed_out}")?,
        }
        match self.stop {
            Some(Stop::Attempts) => write!(f, " (gave up after {} attempts)", self.attempts),
            Some(Stop::Deadline) => write!(f, " (out of time after {} attempts)", self.attempts),
            Some(Stop::Rejected) if !self.is_rejected() => {
                write!(f, " (not tried again after {} attempts: rejected)", self.attempts)
            }
            Some(Stop::Budget) => write!(f, " (no budget for a retry after {} attempts)", self.attempts),
            Some(Stop::NotRetryable | Stop::Rejected) | None => Ok(()),
        }
    }
}

impl<E: core::error::Error + 'static> core::error::Error for Failure<E> {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match &self.cause {
            // Displayed as ourselves: the chain goes on below it, so that nothing is said twice.
            Cause::Inner(error) => error.source(),
            Cause::Rejected(_) | Cause::TimedOut(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use core::error::Error;
    use std::io;
    use std::string::{String, ToString};

    use super::*;
    use crate::chaos::Kind;
    use crate::circuit_breaker::StateKind;
    use crate::outcome::Outcome;

    const REJECTED: Rejected = Rejected::new(Policy::Bulkhead, Reason::Full);
    const LATE: TimedOut = TimedOut::new(Span::from_nanos(1_000_000_000), Instant::START);

    fn failure(cause: Cause<&'static str>, stop: Stop) -> Failure<&'static str> {
        Failure { cause, attempts: 3, stop: Some(stop) }
    }

    #[test]
    fn a_failure_says_what_happened_and_why_it_was_not_tried_again() {
        let text = |stop| failure(Cause::Inner("no route"), stop).to_string();
        assert_eq!(text(Stop::Attempts), "no route (gave up after 3 attempts)");
        assert_eq!(text(Stop::Deadline), "no route (out of time after 3 attempts)");
        assert_eq!(text(Stop::Budget), "no route (no budget for a retry after 3 attempts)");
        assert_eq!(text(Stop::Rejected), "no route (not tried again after 3 attempts: rejected)");
        assert_eq!(text(Stop::NotRetryable), "no route");
        let full = "rejected: all permits of the bulkhead are in use";
        assert_eq!(failure(Cause::Rejected(REJECTED), Stop::Rejected).to_string(), full, "not said twice");
        assert_eq!(Failure::<&str>::from(REJECTED).to_string(), full);
        assert_eq!(Failure::<&str>::from(LATE).to_string(), "timed out after 1s");
    }

    /// The variant's name, in snake case.
    fn snake_case(variant: impl fmt::Debug) -> String {
        let mut name = String::new();
        for letter in std::format!("{variant:?}").chars().take_while(|letter| letter.is_alphabetic()) {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.extend(letter.to_lowercase());
        }
        name
    }

    #[test]
    fn names_in_telemetry_are_those_of_the_variants_in_snake_case() {
        macro_rules! check {
            ($($of:ident: $($variant:expr),+;)+) => {
                $($({
                    use $of::*;
                    assert_eq!($variant.as_str(), snake_case($variant));
                })+)+
            };
        }
        check! {
            Policy: CircuitBreaker, Bulkhead, Degradation, RateLimiter, AdaptiveLimit, Throttle, AdaptiveRate, Pipeline;
            Reason: Open, ProbesOut, Isolated, Full, QueueFull, QueueTimeout, TooHeavy, LevelTooLow, RateExceeded, Evicted,
                LimitReached, PriorityTooLow, Throttled, NotRepeatable;
            StateKind: Closed, Open, HalfOpen, Isolated, Disabled, MetricsOnly;
            Outcome: Success, Failure, Ignored;
            Kind: Fault, Latency(Duration::ZERO), Fake, Behaviour;
        }
    }

    #[test]
    fn a_rejection_says_who_rejected_and_why() {
        let text = |policy, reason| Rejected::new(policy, reason).to_string();
        assert_eq!(text(Policy::CircuitBreaker, Reason::Open), "rejected: the circuit breaker is open");
        assert_eq!(text(Policy::RateLimiter, Reason::RateExceeded), "rejected: the rate limit is exceeded");
    }

    #[test]
    fn the_chain_of_errors_goes_on_below_the_operations_own() {
        #[derive(Debug)]
        struct Outer(io::Error);
        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("outer")
            }
        }
        impl Error for Outer {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&self.0)
            }
        }
        let failure = Failure::new(Cause::Inner(Outer(io::ErrorKind::NotFound.into())));
        assert_eq!(failure.source().map(ToString::to_string), Some("entity not found".into()));
        assert!(Failure::<Outer>::from(REJECTED).source().is_none());
    }

    #[test]
    fn a_failure_is_one_of_three() {
        let of = |failure: &Failure<&str>| (failure.inner().is_some(), failure.is_rejected(), failure.is_timed_out());
        assert_eq!(of(&Failure::new(Cause::Inner("no route"))), (true, false, false));
        assert_eq!(of(&REJECTED.into()), (false, true, false));
        assert_eq!(of(&LATE.into()), (false, false, true));
    }
}
