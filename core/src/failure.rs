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
            Reason::QueueFull => "rejected: the bulkhead's queue is full",
            Reason::QueueTimeout => "rejected: no permit of the bulkhead came free in time",
            Reason::TooHeavy => "rejected: more permits asked for than the bulkhead has",
            Reason::LevelTooLow => "rejected: the degradation level is too low for this feature",
            Reason::RateExceeded => "rejected: the rate limit is exceeded",
            Reason::Evicted => "rejected: a later caller took the last place in the queue",
            Reason::LimitReached => "rejected: the limit of calls at once is reached",
            Reason::PriorityTooLow => "rejected: the call's priority is too low for the load",
            Reason::Throttled => "rejected: the dependency rejects too much of what it is sent",
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
