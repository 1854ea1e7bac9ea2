//! What became of an attempt, and who decides what counts as a failure.

use core::time::Duration;

use crate::time::Span;

/// What an attempt counts as.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Outcome {
    /// The dependency did its work.
    Success,
    /// The dependency failed.
    Failure,
    /// Says nothing about the dependency's health: the caller's own mistake, say.
    Ignored,
}

/// A classifier's answer: what the attempt counts as, whether another one makes sense, and when.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Verdict {
    outcome: Outcome,
    retryable: bool,
    // `Span::MAX` stands for "no hint": it keeps the verdict in a few words, and a hint of 584 years is none.
    retry_after: Span,
}

impl Verdict {
    /// A success.
    pub const SUCCESS: Self = Self::of(Outcome::Success, false);
    /// A failure that another attempt may mend.
    pub const TRANSIENT: Self = Self::of(Outcome::Failure, true);
    /// A failure that no further attempt will mend.
    pub const PERMANENT: Self = Self::of(Outcome::Failure, false);
    /// Neither success nor failure of the dependency; not retried.
    pub const IGNORED: Self = Self::of(Outcome::Ignored, false);

    const fn of(outcome: Outcome, retryable: bool) -> Self {
        Self { outcome, retryable, retry_after: Span::MAX }
    }

    /// The same verdict with the server's hint when to come back (`Retry-After`).
    #[must_use]
    pub const fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Span::of(wait);
        self
    }

    /// The same verdict, retryable or not.
    #[must_use]
    pub const fn with_retryable(mut self, retryable: bool) -> Self {
        self.retryable = retryable;
        self
    }

    /// What the attempt counts as.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Whether another attempt makes sense.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// When the server asked to come back, if it did.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self.hint() {
            Some(span) => Some(span.duration()),
            None => None,
        }
    }

    pub(crate) const fn hint(&self) -> Option<Span> {
        if self.retry_after.as_nanos() == Span::MAX.as_nanos() { None } else { Some(self.retry_after) }
    }
}

/// Decides what a result counts as. Any `Fn(Result<&T, &E>) -> Verdict` is a classifier.
///
/// It runs once per attempt, outside every lock. A result of `Ok` can be a failure too (an HTTP 503, say).
pub trait Classify<T, E> {
    /// The verdict over one result.
    fn classify(&self, result: Result<&T, &E>) -> Verdict;
}

/// The default classifier: `Ok` is a success, `Err` a failure that another attempt may mend.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ErrIsFailure;

impl<T, E> Classify<T, E> for ErrIsFailure {
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        match result {
            Ok(_) => Verdict::SUCCESS,
            Err(_) => Verdict::TRANSIENT,
        }
    }
}

impl<T, E, F: Fn(Result<&T, &E>) -> Verdict> Classify<T, E> for F {
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        self(result)
    }
}
