//! The script of the outage: what the upstream does, and for how long.

use core::time::Duration;

/// How the upstream behaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Condition {
    /// Answers within a few milliseconds.
    Healthy,
    /// Answers, but late.
    Slow,
    /// Answers 503 with Retry-After.
    Unavailable,
    /// Takes the request, then resets the connection.
    Resetting,
    /// Doesn't listen: connects are refused.
    Refusing,
    /// Takes the request and never answers it.
    Mute,
    /// Healthy again; requests lost while it was mute stay lost.
    Recovered,
}

impl Condition {
    /// One word for a timeline.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Slow => "slow",
            Self::Unavailable => "503",
            Self::Resetting => "resets",
            Self::Refusing => "refuses",
            Self::Mute => "mute",
            Self::Recovered => "recovered",
        }
    }

    /// One line for a legend.
    pub(crate) const fn explanation(self) -> &'static str {
        match self {
            Self::Healthy => "answers within a few milliseconds",
            Self::Slow => "answers, but late",
            Self::Unavailable => "answers 503 with Retry-After",
            Self::Resetting => "takes the request, then resets the connection",
            Self::Refusing => "doesn't listen, connects are refused",
            Self::Mute => "takes the request and never answers",
            Self::Recovered => "healthy again; the requests it lost stay lost",
        }
    }

    /// Whether no call can succeed. A slow upstream is not down: its answers are good.
    pub(crate) const fn is_down(self) -> bool {
        matches!(self, Self::Unavailable | Self::Resetting | Self::Refusing | Self::Mute)
    }
}

/// One part of the script.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Phase {
    /// What the upstream does.
    pub(crate) condition: Condition,
    /// For how long.
    pub(crate) lasts: Duration,
}

const fn phase(condition: Condition, lasts_ms: u64) -> Phase {
    Phase { condition, lasts: Duration::from_millis(lasts_ms) }
}

/// The script at its own pace. The last phase outlasts the plain client's timeout, so that its recovery is seen, too.
const PHASES: [Phase; 7] = [
    phase(Condition::Healthy, 2_500),
    phase(Condition::Slow, 2_000),
    phase(Condition::Unavailable, 2_500),
    phase(Condition::Resetting, 2_000),
    phase(Condition::Refusing, 2_500),
    phase(Condition::Mute, 3_500),
    phase(Condition::Recovered, 9_000),
];

/// How long the script takes at its own pace, in seconds.
pub(crate) const NATURAL_SECONDS: f64 = 24.0;

/// The script's pace: all its spans are stretched by one factor, so that a short run shows the same picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pace(f64);

impl Pace {
    /// The pace at which the whole script takes `seconds`.
    pub(crate) fn whole_script_in(seconds: f64) -> Self {
        Self(seconds / NATURAL_SECONDS)
    }

    /// A span of the script's own pace, at this pace.
    pub(crate) fn of(self, span: Duration) -> Duration {
        span.mul_f64(self.0)
    }

    /// The phases at this pace.
    pub(crate) fn phases(self) -> [Phase; PHASES.len()] {
        PHASES.map(|phase| Phase { condition: phase.condition, lasts: self.of(phase.lasts) })
    }

    /// How long the script takes.
    pub(crate) fn total(self) -> Duration {
        self.phases().iter().map(|phase| phase.lasts).sum()
    }

    /// How late a slow upstream answers.
    pub(crate) fn slowness(self) -> Duration {
        self.of(Duration::from_millis(900))
    }

    /// What the upstream asks for with its 503, in the header's whole seconds.
    pub(crate) fn retry_after(self) -> u64 {
        let exact = self.of(Duration::from_secs(1));
        exact.as_secs() + u64::from(exact.subsec_nanos() > 0)
    }

    /// How long everybody who asks must be served in full before service counts as full.
    pub(crate) fn proof_of_service(self) -> Duration {
        self.of(Duration::from_millis(500))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_takes_as_long_as_asked() {
        for seconds in [2.0, NATURAL_SECONDS, 50.0] {
            let total = Pace::whole_script_in(seconds).total();
            assert!((total.as_secs_f64() - seconds).abs() < 1e-6, "{total:?}");
        }
    }
}
