//! A circuit breaker whose kind of trip condition is known at run time.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};

use failsoft_core::circuit_breaker::{
    self, BreakerState, ConsecutiveFailures, CountBased, Snapshot, StateKind, TimeBased, Transition,
};
use failsoft_core::pipeline::{Answer, Layer, Next, Part, Role, Scope};
use failsoft_core::{Clock, Executor, Observer, cell};

use super::build::{BreakerSettings, STEPS};
use super::keys::WORDS;
use crate::mutex::Locked;

/// A circuit breaker as settings have it: one of three, by what opens it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Breaker<O = ()> {
    /// Opens after `failures` in a row: without a lock.
    Consecutive(crate::LiveCircuitBreaker<ConsecutiveFailures, O>),
    /// Opens at the rates of the last `calls`, counted behind a mutex.
    Calls(circuit_breaker::CircuitBreaker<cell::Live<Locked>, CountBased<WORDS>, O>),
    /// Opens at the rates of the last `window`, counted behind a mutex.
    Time(circuit_breaker::CircuitBreaker<cell::Live<Locked>, TimeBased<STEPS>, O>),
}

macro_rules! each {
    ($self:ident, $breaker:ident => $what:expr) => {
        match $self {
            Self::Consecutive($breaker) => $what,
            Self::Calls($breaker) => $what,
            Self::Time($breaker) => $what,
        }
    };
}

impl<O: Observer<Transition>> Breaker<O> {
    pub(super) fn new(settings: &BreakerSettings, observer: O) -> Self {
        use circuit_breaker::CircuitBreaker as Of;
        match settings {
            BreakerSettings::Consecutive(config) => Self::Consecutive(Of::with_observer(*config, observer)),
            BreakerSettings::Calls(config) => Self::Calls(Of::with_observer(*config, observer)),
            BreakerSettings::Time(config) => Self::Time(Of::with_observer(*config, observer)),
        }
    }

    /// Whether settings are of its kind.
    pub(super) const fn takes(&self, settings: &BreakerSettings) -> bool {
        matches!(
            (self, settings),
            (Self::Consecutive(_), BreakerSettings::Consecutive(_))
                | (Self::Calls(_), BreakerSettings::Calls(_))
                | (Self::Time(_), BreakerSettings::Time(_))
        )
    }

    /// Takes other settings, if they are of its kind.
    pub(super) fn reconfigure(&self, settings: &BreakerSettings, clock: &impl Clock) {
        match (self, settings) {
            (Self::Consecutive(breaker), BreakerSettings::Consecutive(config)) => breaker.reconfigure(*config, clock),
            (Self::Calls(breaker), BreakerSettings::Calls(config)) => breaker.reconfigure(*config, clock),
            (Self::Time(breaker), BreakerSettings::Time(config)) => breaker.reconfigure(*config, clock),
            _ => {}
        }
    }

    /// The state as the last call left it.
    pub fn state(&self) -> StateKind {
        each!(self, breaker => breaker.state())
    }

    /// Everything there is to know, without disturbing it.
    pub fn snapshot(&self, clock: &impl Clock) -> Snapshot {
        each!(self, breaker => breaker.snapshot(clock))
    }

    /// Holds it open until another state is chosen by hand.
    pub fn isolate(&self) {
        each!(self, breaker => breaker.isolate());
    }

    /// Closes it and forgets what was counted.
    pub fn reset(&self) {
        each!(self, breaker => breaker.reset());
    }
}

impl<O> Part for Breaker<O> {
    const ROLE: Role = Role::CircuitBreaker;

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        each!(self, breaker => breaker.describe(f))
    }
}

impl<T, E, X: Executor, O: Observer<Transition>> Layer<T, E, X> for Breaker<O> {
    type State<I> = BreakerState<I>;

    fn idle<I>(&self, inner: I) -> BreakerState<I> {
        each!(self, breaker => Layer::<T, E, X>::idle(breaker, inner))
    }

    #[inline]
    fn poll<N: Next<T, E, X>>(
        &self,
        state: Pin<&mut BreakerState<N::State>>,
        next: &mut N,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        each!(self, breaker => breaker.poll(state, next, scope, cx))
    }

    fn reset<N: Next<T, E, X>>(&self, state: Pin<&mut BreakerState<N::State>>, next: &mut N, executor: &X) {
        each!(self, breaker => Layer::<T, E, X>::reset(breaker, state, next, executor));
    }
}
