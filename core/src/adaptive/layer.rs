//! The adaptive limit as a part of a pipeline: its bulkhead, and within it a layer that times the calls.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use super::{AdaptiveLimit, Algorithm, LimitChange, Remembered, Timed};
use crate::bulkhead::{BulkheadState, Priority, Slots, Tally, WaitQueue};
use crate::cell::CellKind;
use crate::executor::Executor;
use crate::observe::Observer;
use crate::pipeline::order::Roles;
use crate::pipeline::{Answer, Layer, Next, Part, Role, Scope, Through};

/// An adaptive limit for calls of one priority.
pub struct Prioritised<'l, K, M, A, Q, O>
where
    A: Algorithm,
    K: CellKind<Slots> + CellKind<Tally>,
    M: CellKind<Remembered<A::Memory>>,
{
    limit: &'l AdaptiveLimit<K, M, A, Q, O>,
    priority: Priority,
}

impl<K, M, A, Q, O> fmt::Debug for Prioritised<'_, K, M, A, Q, O>
where
    A: Algorithm,
    K: CellKind<Slots> + CellKind<Tally>,
    M: CellKind<Remembered<A::Memory>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prioritised").field("priority", &self.priority).finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<K, M, A, Q, O> defmt::Format for Prioritised<'_, K, M, A, Q, O>
where
    A: Algorithm,
    K: CellKind<Slots> + CellKind<Tally>,
    M: CellKind<Remembered<A::Memory>>,
{
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Prioritised {{ priority: {} }}", self.priority);
    }
}

impl<K, M, A, Q, O> AdaptiveLimit<K, M, A, Q, O>
where
    A: Algorithm,
    K: CellKind<Slots> + CellKind<Tally>,
    M: CellKind<Remembered<A::Memory>>,
{
    /// This limit as a layer whose calls have a priority.
    pub const fn with_priority(&self, priority: Priority) -> Prioritised<'_, K, M, A, Q, O> {
        Prioritised { limit: self, priority }
    }
}

/// Times the calls that the bulkhead let through.
struct Timing<'l, K, M, A, Q, O>(&'l AdaptiveLimit<K, M, A, Q, O>)
where
    A: Algorithm,
    K: CellKind<Slots> + CellKind<Tally>,
    M: CellKind<Remembered<A::Memory>>;

pin_project_lite::pin_project! {
    /// The progress of a call that is timed.
    #[derive(Debug)]
    #[cfg_attr(feature = "defmt", derive(defmt::Format))]
    pub struct TimingState<I> {
        // Once it has begun.
        timed: Option<Timed>,
        #[pin]
        inner: I,
    }
}

impl<K, M, A, Q, O> Part for Timing<'_, K, M, A, Q, O>
where
    A: Algorithm,
    K: CellKind<Slots> + CellKind<Tally>,
    M: CellKind<Remembered<A::Memory>>,
{
    const ROLE: Role = Role::Other;

    fn describe(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl<T, E, X, K, M, A, Q, O> Layer<T, E, X> for Timing<'_, K, M, A, Q, O>
where
    X: Executor,
    A: Algorithm,
    K: CellKind<Slots> + CellKind<Tally>,
    M: CellKind<Remembered<A::Memory>>,
    Q: WaitQueue,
    O: Observer<LimitChange>,
{
    type State<I> = TimingState<I>;

    fn idle<I>(&self, inner: I) -> TimingState<I> {
        TimingState { timed: None, inner }
    }

    #[inline]
    fn poll<N: Next<T, E, X>>(
        &self,
        state: Pin<&mut TimingState<N::State>>,
        next: &mut N,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        let this = state.project();
        let timed = *this.timed.get_or_insert_with(|| self.0.begin(scope.executor().now()));
        let answer = ready!(next.poll(this.inner, scope, cx));
        *this.timed = None;
        self.0.end(timed, answer.verdict.outcome(), scope.executor());
        Poll::Ready(answer)
    }

    fn reset<N: Next<T, E, X>>(&self, state: Pin<&mut TimingState<N::State>>, next: &mut N, executor: &X) {
        let this = state.project();
        *this.timed = None;
        next.reset(this.inner, executor);
    }
}

impl<K, M, A, Q, O> Part for Prioritised<'_, K, M, A, Q, O>
where
    A: Algorithm,
    K: CellKind<Slots> + CellKind<Tally>,
    M: CellKind<Remembered<A::Memory>>,
    Q: WaitQueue,
{
    const ROLE: Role = Role::Bulkhead;
    const ROLES: Roles = Roles::of(Role::Bulkhead).and(Roles::of(Role::Adaptive));

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.limit.describe(f)?;
        if self.priority == Priority::CRITICAL { Ok(()) } else { write!(f, ", up to {} of it", self.priority.share()) }
    }
}

impl<K, M, A, Q, O> Part for AdaptiveLimit<K, M, A, Q, O>
where
    A: Algorithm,
    K: CellKind<Slots> + CellKind<Tally>,
    M: CellKind<Remembered<A::Memory>>,
    Q: WaitQueue,
{
    const ROLE: Role = Role::Bulkhead;
    const ROLES: Roles = Roles::of(Role::Bulkhead).and(Roles::of(Role::Adaptive));

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.config;
        write!(f, "adaptive limit: {} to {} calls at once, {} now", config.min(), config.max(), self.limit())?;
        match config.queue {
            0 => Ok(()),
            queue => write!(f, ", {queue} may wait for {:?}", config.longest_wait.duration()),
        }?;
        if config.newest_first { f.write_str(", the newest first") } else { Ok(()) }
    }
}

impl<T, E, X, K, M, A, Q, O> Layer<T, E, X> for Prioritised<'_, K, M, A, Q, O>
where
    X: Executor,
    A: Algorithm,
    K: CellKind<Slots> + CellKind<Tally>,
    M: CellKind<Remembered<A::Memory>>,
    Q: WaitQueue,
    O: Observer<LimitChange>,
{
    type State<I> = BulkheadState<X::Sleep, TimingState<I>>;

    fn idle<I>(&self, inner: I) -> Self::State<I> {
        let inner = Layer::<T, E, X>::idle(&Timing(self.limit), inner);
        Layer::<T, E, X>::idle(&self.limit.bulkhead, inner)
    }

    #[inline]
    fn poll<N: Next<T, E, X>>(
        &self,
        state: Pin<&mut Self::State<N::State>>,
        next: &mut N,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        if A::TIMED {
            self.limit.handle_timeout(scope.executor());
        }
        let bulkhead = self.limit.bulkhead.weighing(1).with_priority(self.priority);
        bulkhead.poll(state, &mut Through { layer: &Timing(self.limit), next }, scope, cx)
    }

    fn reset<N: Next<T, E, X>>(&self, state: Pin<&mut Self::State<N::State>>, next: &mut N, executor: &X) {
        self.limit.bulkhead.reset(state, &mut Through { layer: &Timing(self.limit), next }, executor);
    }
}

impl<T, E, X, K, M, A, Q, O> Layer<T, E, X> for AdaptiveLimit<K, M, A, Q, O>
where
    X: Executor,
    A: Algorithm,
    K: CellKind<Slots> + CellKind<Tally>,
    M: CellKind<Remembered<A::Memory>>,
    Q: WaitQueue,
    O: Observer<LimitChange>,
{
    type State<I> = BulkheadState<X::Sleep, TimingState<I>>;

    fn idle<I>(&self, inner: I) -> Self::State<I> {
        Layer::<T, E, X>::idle(&self.with_priority(Priority::CRITICAL), inner)
    }

    #[inline]
    fn poll<N: Next<T, E, X>>(
        &self,
        state: Pin<&mut Self::State<N::State>>,
        next: &mut N,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        self.with_priority(Priority::CRITICAL).poll(state, next, scope, cx)
    }

    fn reset<N: Next<T, E, X>>(&self, state: Pin<&mut Self::State<N::State>>, next: &mut N, executor: &X) {
        self.with_priority(Priority::CRITICAL).reset(state, next, executor);
    }
}
