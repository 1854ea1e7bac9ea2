//! Degradation as a part of a pipeline: reporting a service's health, and gating a feature.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use super::{Degradation, Health, Level, LevelChange, UnknownService};
use crate::cell::CellKind;
use crate::executor::Executor;
use crate::observe::Observer;
use crate::outcome::Outcome;
use crate::pipeline::{Answer, Layer, Next, Part, REJECTED, Role, Scope};

/// Reports the outcome of every call to its service's health.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Monitored<'d, D> {
    degradation: &'d D,
    name: &'static str,
    place: usize,
}

/// Lets calls through only while the level is good enough.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Feature<'d, D, L> {
    degradation: &'d D,
    level: L,
}

impl<K, const N: usize, L, R, O> Degradation<K, N, L, R, O>
where
    K: CellKind<Health<R, N>>,
    L: Level,
    R: Copy,
    O: Observer<LevelChange<L>>,
{
    /// A layer that reports how the calls of a service went. A rejected call says nothing about the service.
    ///
    /// # Errors
    /// There is no service of this name.
    pub fn monitor(&self, name: &'static str) -> Result<Monitored<'_, Self>, UnknownService<'static>> {
        self.place(name).map(|place| Monitored { degradation: self, name, place })
    }

    /// A layer that rejects calls while the level is below `level`.
    pub const fn feature(&self, level: L) -> Feature<'_, Self, L> {
        Feature { degradation: self, level }
    }
}

impl<D> Part for Monitored<'_, D> {
    const ROLE: Role = Role::Other;

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "degradation: reports the health of {}", self.name)
    }
}

impl<T, E, X, K, const N: usize, L, R, O> Layer<T, E, X> for Monitored<'_, Degradation<K, N, L, R, O>>
where
    X: Executor,
    K: CellKind<Health<R, N>>,
    L: Level,
    R: Copy,
    O: Observer<LevelChange<L>>,
{
    type State<I> = I;

    fn idle<I>(&self, inner: I) -> I {
        inner
    }

    fn poll<M: Next<T, E, X>>(
        &self,
        state: Pin<&mut M::State>,
        next: &mut M,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        let answer = ready!(next.poll(state, scope, cx));
        let good = match answer.verdict.outcome() {
            Outcome::Success => true,
            Outcome::Failure => false,
            Outcome::Ignored => return Poll::Ready(answer),
        };
        self.degradation.report_at(self.place, good, scope.executor());
        Poll::Ready(answer)
    }

    fn reset<M: Next<T, E, X>>(&self, state: Pin<&mut M::State>, next: &mut M, executor: &X) {
        next.reset(state, executor);
    }
}

pin_project_lite::pin_project! {
    /// A feature's progress within a call: whether it was let through.
    #[derive(Debug)]
    #[cfg_attr(feature = "defmt", derive(defmt::Format))]
    pub struct FeatureState<I> {
        admitted: bool,
        #[pin]
        inner: I,
    }
}

impl<D, L: Level> Part for Feature<'_, D, L> {
    const ROLE: Role = Role::Other;

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "degradation: runs at {:?} or better", self.level)
    }
}

impl<T, E, X, K, const N: usize, L, R, O> Layer<T, E, X> for Feature<'_, Degradation<K, N, L, R, O>, L>
where
    X: Executor,
    K: CellKind<Health<R, N>>,
    L: Level,
    R: Copy,
    O: Observer<LevelChange<L>>,
{
    type State<I> = FeatureState<I>;

    fn idle<I>(&self, inner: I) -> FeatureState<I> {
        FeatureState { admitted: false, inner }
    }

    fn poll<M: Next<T, E, X>>(
        &self,
        state: Pin<&mut FeatureState<M::State>>,
        next: &mut M,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        let this = state.project();
        if !*this.admitted {
            if let Err(rejected) = self.degradation.check(self.level, scope.executor()) {
                return Poll::Ready(Answer::ended(rejected, REJECTED));
            }
            *this.admitted = true;
        }
        let answer = ready!(next.poll(this.inner, scope, cx));
        *this.admitted = false;
        Poll::Ready(answer)
    }

    fn reset<M: Next<T, E, X>>(&self, state: Pin<&mut FeatureState<M::State>>, next: &mut M, executor: &X) {
        let this = state.project();
        *this.admitted = false;
        next.reset(this.inner, executor);
    }
}
