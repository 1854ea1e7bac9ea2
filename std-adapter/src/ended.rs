//! What became of a call, for those who count and trace calls.

use failsoft_core::Outcome;
use failsoft_core::pipeline::Answer;

/// What a call, or an attempt, came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ended {
    Success,
    Failure,
    Ignored,
    Rejected,
    TimedOut,
    /// Dropped before its end.
    Abandoned,
}

impl Ended {
    #[cfg(feature = "metrics")]
    pub(crate) const ALL: [Self; 6] =
        [Self::Success, Self::Failure, Self::Ignored, Self::Rejected, Self::TimedOut, Self::Abandoned];

    /// One that came to its end. What a policy ended is that, whatever its verdict tells the policies around.
    #[inline]
    pub(crate) const fn with<T, E>(answer: &Answer<T, E>) -> Self {
        match (&answer.result, answer.verdict.outcome()) {
            (Err(failure), _) if failure.is_rejected() => Self::Rejected,
            (Err(failure), _) if failure.is_timed_out() => Self::TimedOut,
            (_, Outcome::Success) => Self::Success,
            (_, Outcome::Failure) => Self::Failure,
            (_, Outcome::Ignored) => Self::Ignored,
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Ignored => "ignored",
            Self::Rejected => "rejected",
            Self::TimedOut => "timed_out",
            Self::Abandoned => "abandoned",
        }
    }
}
