//! The last good value as a part of a pipeline.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use super::{Config, Good, LastGood, Memory, Served};
use crate::cell::CellKind;
use crate::executor::Executor;
use crate::failure::Failure;
use crate::observe::Observer;
use crate::outcome::{Outcome, Verdict};
use crate::pipeline::{Answer, Layer, Next, Part, Role, Scope};
use crate::time::Clock;

/// What the layer asks of a memory: of the only value it has, or of one key's.
pub(super) trait Remembers<T> {
    fn config(&self) -> &Config;

    fn remember(&self, value: &T, clock: &impl Clock);

    fn find(&self, clock: &impl Clock, wanted: impl Fn(&Served) -> bool) -> Option<Good<T>>;

    /// Tells the observer.
    fn served(&self, served: &Served);
}

impl<K: CellKind<Memory<T>>, T: Clone, O: Observer<Served>> Remembers<T> for LastGood<K, T, O> {
    fn config(&self) -> &Config {
        &self.config
    }

    fn remember(&self, value: &T, clock: &impl Clock) {
        self.remember(value, clock);
    }

    fn find(&self, clock: &impl Clock, wanted: impl Fn(&Served) -> bool) -> Option<Good<T>> {
        self.find(clock, wanted)
    }

    fn served(&self, served: &Served) {
        self.observer.observe(served);
    }
}

pin_project_lite::pin_project! {
    /// The progress within a call: whether it is made, or was answered from memory.
    #[derive(Debug)]
    #[cfg_attr(feature = "defmt", derive(defmt::Format))]
    pub struct LastGoodState<I> {
        called: bool,
        #[pin]
        inner: I,
    }
}

impl<I> LastGoodState<I> {
    pub(super) const fn new(inner: I) -> Self {
        Self { called: false, inner }
    }
}

/// Answers from memory; a policy around has nothing to retry.
fn serve<T, E>(
    memory: &impl Remembers<T>,
    clock: &impl Clock,
    wanted: impl Fn(&Served) -> bool,
) -> Option<Answer<T, E>> {
    let Good { value, served } = memory.find(clock, wanted)?;
    memory.served(&served);
    Some(Answer { result: Ok(value), verdict: Verdict::SUCCESS })
}

pub(super) fn poll<T, E, X: Executor, N: Next<T, E, X>>(
    memory: &impl Remembers<T>,
    state: Pin<&mut LastGoodState<N::State>>,
    next: &mut N,
    scope: Scope<'_, X>,
    cx: &mut Context<'_>,
) -> Poll<Answer<T, E>> {
    let this = state.project();
    let executor = scope.executor();
    if !*this.called
        && memory.config().reuse
        && let Some(answer) = serve(memory, executor, |served| !served.stale)
    {
        return Poll::Ready(answer);
    }
    *this.called = true;
    let answer = ready!(next.poll(this.inner, scope, cx));
    *this.called = false;
    let outcome = answer.verdict.outcome();
    if outcome == Outcome::Failure || answer.result.as_ref().is_err_and(Failure::is_rejected) {
        return Poll::Ready(serve(memory, executor, |_| true).unwrap_or(answer));
    }
    if let (Ok(value), Outcome::Success) = (&answer.result, outcome) {
        memory.remember(value, executor);
    }
    Poll::Ready(answer)
}

pub(super) fn reset<T, E, X: Executor, N: Next<T, E, X>>(
    state: Pin<&mut LastGoodState<N::State>>,
    next: &mut N,
    executor: &X,
) {
    let this = state.project();
    *this.called = false;
    next.reset(this.inner, executor);
}

impl<K: CellKind<Memory<T>>, T, O> Part for LastGood<K, T, O> {
    const ROLE: Role = Role::Fallback;

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fallback: the last good value, {}", self.config)
    }
}

impl<T, E, X, K, O> Layer<T, E, X> for LastGood<K, T, O>
where
    T: Clone,
    X: Executor,
    K: CellKind<Memory<T>>,
    O: Observer<Served>,
{
    type State<I> = LastGoodState<I>;

    fn idle<I>(&self, inner: I) -> LastGoodState<I> {
        LastGoodState::new(inner)
    }

    #[inline]
    fn poll<N: Next<T, E, X>>(
        &self,
        state: Pin<&mut LastGoodState<N::State>>,
        next: &mut N,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        poll(self, state, next, scope, cx)
    }

    fn reset<N: Next<T, E, X>>(&self, state: Pin<&mut LastGoodState<N::State>>, next: &mut N, executor: &X) {
        reset(state, next, executor);
    }
}
