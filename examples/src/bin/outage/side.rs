//! The seam: what a side of the comparison is, and what it tells about itself.

use core::fmt;

use failsoft_tokio::circuit_breaker::StateKind;
use failsoft_tokio::degradation::DegradationLevel;
use failsoft_tokio::{Cause, Failure};

use crate::client::CallError;

/// A side of the comparison: something that is asked for items and serves them as well as it can.
pub(crate) trait Side: Send + Sync + 'static {
    /// Serves one request. May be dropped at any await, when the run ends.
    fn ask(&self, item: u32) -> impl Future<Output = Served> + Send;

    /// How it is doing now; nothing for a side without policies. Called every few milliseconds, so it must be cheap.
    fn vitals(&self) -> Option<Vitals> {
        None
    }
}

/// Which side.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SideName {
    /// The client and its timeout, nothing else.
    Naked,
    /// The same client behind policies.
    Protected,
}

impl SideName {
    /// Both, in the order of every table and picture.
    pub(crate) const ALL: [Self; 2] = [Self::Naked, Self::Protected];

    /// The name: on the wire, in tables and in pictures.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Naked => "naked",
            Self::Protected => "protected",
        }
    }

    /// The side of that name.
    pub(crate) fn named(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|side| side.label() == label)
    }
}

/// What the one who asked was given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Served {
    /// The upstream's own answer.
    Fresh,
    /// A lesser answer, given at once.
    Degraded(Substitute),
    /// An error.
    Failed(Reason),
}

/// What a degraded answer is made of.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Substitute {
    /// The last good answer for the same item.
    Stale,
    /// A fixed answer without content.
    Placeholder,
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Reason {
    /// No answer within the timeout.
    TimedOut,
    /// The upstream answered with this status.
    Status(u16),
    /// The connection broke before the answer came.
    Broken,
    /// The upstream refused the connection.
    Refused,
    /// A policy rejected the call and there was nothing to serve instead.
    Rejected,
    /// Something else went wrong in the client.
    Other,
    /// The caller had no room for another outstanding request and dropped it.
    NoRoom,
    /// The run ended before the answer came.
    Unanswered,
}

impl From<&CallError> for Reason {
    fn from(error: &CallError) -> Self {
        match error {
            CallError::TimedOut => Self::TimedOut,
            CallError::Status { code, .. } => Self::Status(*code),
            CallError::Broken => Self::Broken,
            CallError::Refused => Self::Refused,
            CallError::Http(_) | CallError::Body(_) => Self::Other,
        }
    }
}

impl From<Failure<CallError>> for Reason {
    fn from(failure: Failure<CallError>) -> Self {
        match failure.cause {
            Cause::Inner(error) => Self::from(&error),
            Cause::TimedOut(_) => Self::TimedOut,
            Cause::Rejected(_) => Self::Rejected,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("timed out"),
            Self::Status(code) => write!(f, "status {code}"),
            Self::Broken => f.write_str("connection broken"),
            Self::Refused => f.write_str("connection refused"),
            Self::Rejected => f.write_str("rejected"),
            Self::Other => f.write_str("other"),
            Self::NoRoom => f.write_str("no room to ask"),
            Self::Unanswered => f.write_str("unanswered at the end"),
        }
    }
}

impl fmt::Display for Substitute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stale => "stale",
            Self::Placeholder => "placeholder",
        })
    }
}

/// How a protected side is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Vitals {
    /// What the breaker does.
    pub(crate) breaker: Breaker,
    /// What is served.
    pub(crate) level: Level,
    /// How often the breaker has opened, since the start.
    pub(crate) openings: u64,
    /// Attempts beyond the first, since the start, whether or not a policy then let them through.
    pub(crate) retries: u64,
    /// Calls that a policy kept from the upstream, since the start.
    pub(crate) rejected: u64,
}

/// The breaker's state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Breaker {
    /// Calls pass.
    Closed,
    /// Calls are rejected.
    Open,
    /// A few probes pass.
    HalfOpen,
}

impl Breaker {
    /// All of them, for legends.
    pub(crate) const ALL: [Self; 3] = [Self::Closed, Self::HalfOpen, Self::Open];

    /// The state's name.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

impl From<StateKind> for Breaker {
    fn from(state: StateKind) -> Self {
        match state {
            StateKind::Closed | StateKind::Disabled | StateKind::MetricsOnly => Self::Closed,
            StateKind::Open | StateKind::Isolated => Self::Open,
            StateKind::HalfOpen => Self::HalfOpen,
        }
    }
}

/// The degradation level.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Level {
    /// Everything is served.
    Full,
    /// Lesser answers are served.
    Degraded,
    /// Only the least is served.
    Minimal,
}

impl Level {
    /// All of them, for legends.
    pub(crate) const ALL: [Self; 3] = [Self::Full, Self::Degraded, Self::Minimal];

    /// The level's name.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Degraded => "degraded",
            Self::Minimal => "minimal",
        }
    }
}

impl From<DegradationLevel> for Level {
    fn from(level: DegradationLevel) -> Self {
        match level {
            DegradationLevel::Full => Self::Full,
            DegradationLevel::Degraded => Self::Degraded,
            DegradationLevel::Minimal => Self::Minimal,
        }
    }
}
