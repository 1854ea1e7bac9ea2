//! The bulkhead as a part of a pipeline.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use super::{Bulkhead, Permit, Priority, Slots, Tally, WaitQueue, Waiting};
use crate::cell::CellKind;
use crate::executor::Executor;
use crate::pipeline::{Answer, Layer, Next, Part, REJECTED, Role, Scope};

pin_project_lite::pin_project! {
    /// A bulkhead's progress within a call: waiting, then holding permits while the inside runs.
    #[derive(Debug)]
    #[cfg_attr(feature = "defmt", derive(defmt::Format))]
    pub struct BulkheadState<S, I> {
        waiting: Waiting,
        holds: bool,
        #[pin]
        sleep: Option<S>,
        #[pin]
        inner: I,
    }
}

/// A bulkhead of which each call takes so many permits, at some priority.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Weighted<'b, K, Q>
where
    K: CellKind<Slots> + CellKind<Tally>,
{
    bulkhead: &'b Bulkhead<K, Q>,
    weight: u32,
    priority: Priority,
}

impl<K, Q> Weighted<'_, K, Q>
where
    K: CellKind<Slots> + CellKind<Tally>,
{
    /// With another priority than the highest: calls are rejected at once where they would have to wait.
    #[must_use]
    pub const fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }
}

impl<K, Q> Bulkhead<K, Q>
where
    K: CellKind<Slots> + CellKind<Tally>,
{
    /// This bulkhead as a layer whose calls take `weight` permits each.
    pub const fn weighing(&self, weight: u32) -> Weighted<'_, K, Q> {
        Weighted { bulkhead: self, weight, priority: Priority::CRITICAL }
    }
}

impl<K, Q> Part for Weighted<'_, K, Q>
where
    K: CellKind<Slots> + CellKind<Tally>,
    Q: WaitQueue,
{
    const ROLE: Role = Role::Bulkhead;

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bulkhead.describe(f)?;
        write!(f, ", {} for each call", self.weight)?;
        if self.priority.is_highest() { Ok(()) } else { write!(f, ", up to {} of them", self.priority.share()) }
    }
}

impl<T, E, X, K, Q> Layer<T, E, X> for Weighted<'_, K, Q>
where
    X: Executor,
    K: CellKind<Slots> + CellKind<Tally>,
    Q: WaitQueue,
{
    type State<I> = BulkheadState<X::Sleep, I>;

    fn idle<I>(&self, inner: I) -> Self::State<I> {
        BulkheadState { waiting: Waiting::not_yet(), holds: false, sleep: None, inner }
    }

    #[inline]
    fn poll<N: Next<T, E, X>>(
        &self,
        state: Pin<&mut Self::State<N::State>>,
        next: &mut N,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        let this = state.project();
        let Self { bulkhead, weight, priority } = *self;
        if !*this.holds {
            let executor = scope.executor();
            // The common case first: no lock and no timer.
            if this.waiting.place.is_some() || bulkhead.take(weight, priority).is_err() {
                let asked = (weight, priority);
                if let Err(rejected) = ready!(this.waiting.poll(bulkhead, asked, this.sleep, executor, cx)) {
                    return Poll::Ready(Answer::ended(rejected, REJECTED));
                }
            }
            *this.holds = true;
        }
        let answer = ready!(next.poll(this.inner, scope, cx));
        *this.holds = false;
        bulkhead.give_back(weight);
        Poll::Ready(answer)
    }

    fn reset<N: Next<T, E, X>>(&self, state: Pin<&mut Self::State<N::State>>, next: &mut N, executor: &X) {
        let mut this = state.project();
        this.waiting.cancel(self.bulkhead, self.weight);
        this.sleep.set(None);
        // A guard, so that the permits come back even if the operation's future panics while it is dropped.
        let _permit = this.holds.then(|| Permit { bulkhead: self.bulkhead, weight: self.weight });
        *this.holds = false;
        next.reset(this.inner, executor);
    }
}

impl<K, Q> Part for Bulkhead<K, Q>
where
    K: CellKind<Slots> + CellKind<Tally>,
    Q: WaitQueue,
{
    const ROLE: Role = Role::Bulkhead;

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bulkhead: {} permits", self.snapshot().permits)?;
        match self.config.queue {
            0 => Ok(()),
            queue => write!(f, ", {queue} may wait for {:?}", self.config.longest_wait.duration()),
        }?;
        if self.config.newest_first { f.write_str(", the newest first") } else { Ok(()) }
    }
}

impl<T, E, X, K, Q> Layer<T, E, X> for Bulkhead<K, Q>
where
    X: Executor,
    K: CellKind<Slots> + CellKind<Tally>,
    Q: WaitQueue,
{
    type State<I> = BulkheadState<X::Sleep, I>;

    fn idle<I>(&self, inner: I) -> Self::State<I> {
        Layer::<T, E, X>::idle(&self.weighing(1), inner)
    }

    #[inline]
    fn poll<N: Next<T, E, X>>(
        &self,
        state: Pin<&mut Self::State<N::State>>,
        next: &mut N,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        self.weighing(1).poll(state, next, scope, cx)
    }

    fn reset<N: Next<T, E, X>>(&self, state: Pin<&mut Self::State<N::State>>, next: &mut N, executor: &X) {
        self.weighing(1).reset(state, next, executor);
    }
}
