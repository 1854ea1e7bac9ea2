//! Breakers of failsoft, by what opens them.

use core::time::Duration;

use failsoft_measure::subjects;
use failsoft_tokio::cell::CellKind;
use failsoft_tokio::circuit_breaker::{
    CircuitBreaker, Config, ConsecutiveFailures, FailureMeter, FailureRate, State, TimeBased, Trip,
};
use failsoft_tokio::pipeline::{Bare, Stack};
use failsoft_tokio::{Atomic, Locked, Pipeline, Ratio, Tokio};

use super::{Breaker, Made};

const HOUR: Duration = Duration::from_secs(3_600);

/// What opens a breaker, and where it keeps that.
pub(crate) trait Rule: Copy + Trip {
    const NAME: &'static str;
    const NEVER_TOUCHY: Option<&'static str> = None;
    type Kind: CellKind<State<Self::Meter>>;

    fn rule(made: Made) -> Self;
}

/// A breaker with such a rule.
pub(crate) struct Ours<T: Rule>(CircuitBreaker<T::Kind, T>);

impl<T: Rule> Ours<T> {
    /// A steady one alone as a pipeline.
    pub(super) fn pipeline() -> Pipeline<Tokio, Stack<Bare, CircuitBreaker<T::Kind, T>>> {
        Pipeline::new(Tokio).layer(breaker(Made::Steady))
    }
}

fn breaker<T: Rule>(made: Made) -> CircuitBreaker<T::Kind, T> {
    let open_for = if made == Made::Touchy { Duration::ZERO } else { HOUR };
    let config = Config::new().with_open_for(open_for).with_half_open_for(HOUR).with_probes(1);
    CircuitBreaker::new(config.with_trip(T::rule(made)).validate().expect("valid"))
}

impl Rule for ConsecutiveFailures {
    const NAME: &'static str = "failsoft, consecutive";
    type Kind = Atomic;

    fn rule(made: Made) -> Self {
        let threshold = match made {
            Made::Steady => 65_535,
            Made::Sensitive => 5,
            Made::Touchy => 1,
        };
        Self::new(threshold).expect("valid")
    }
}

impl Rule for FailureRate {
    const NAME: &'static str = "failsoft, window of calls";
    type Kind = Atomic;

    fn rule(made: Made) -> Self {
        Self::new(Ratio::percent(100), if made == Made::Touchy { 1 } else { 40 }).expect("valid")
    }
}

impl Rule for TimeBased<10> {
    const NAME: &'static str = "failsoft, window of time";
    type Kind = Locked;

    fn rule(made: Made) -> Self {
        let window = Self::new(Ratio::percent(100), Duration::from_secs(30)).expect("valid");
        window.with_minimum_calls(if made == Made::Touchy { 1 } else { 40 }).expect("valid")
    }
}

impl Rule for FailureMeter {
    const NAME: &'static str = "failsoft, failure meter";
    const NEVER_TOUCHY: Option<&'static str> = Some("the second failure is the first to open it");
    type Kind = Atomic;

    fn rule(made: Made) -> Self {
        // The failures of a steady one are too few to fill its bucket, and in an hour hardly any drains.
        Self::new(if made == Made::Steady { u32::MAX } else { 5 }, 80 * HOUR).expect("valid")
    }
}

impl<T: Rule> Breaker for Ours<T>
where
    CircuitBreaker<T::Kind, T>: Sync,
{
    const NAME: &'static str = T::NAME;
    const LIKE: &'static str = T::NAME;
    const NEVER_TOUCHY: Option<&'static str> = T::NEVER_TOUCHY;

    fn make(made: Made) -> Self {
        Self(breaker(made))
    }

    #[inline]
    fn call(&mut self, good: bool) -> bool {
        subjects::call(&self.0, good)
    }

    fn view(&self) -> impl FnMut(bool) -> bool + Send {
        |good| subjects::call(&self.0, good)
    }

    fn probe(&mut self) {
        core::mem::forget(self.0.try_acquire(Tokio));
    }
}
