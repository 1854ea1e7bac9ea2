//! The rate limiter as a part of a pipeline.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use super::{Arrival, RateLimiter, Taken};
use crate::cell::CellKind;
use crate::executor::Executor;
use crate::pipeline::{Answer, Layer, Next, Part, REJECTED, Role, Scope};
use crate::time::Span;

pin_project_lite::pin_project! {
    /// A limiter's progress within a call: waiting for its permits, then past it.
    #[derive(Debug)]
    #[cfg_attr(feature = "defmt", derive(defmt::Format))]
    pub struct LimiterState<S, I> {
        // The permits that were taken, until they may be used.
        taken: Option<Taken>,
        passed: bool,
        #[pin]
        sleep: Option<S>,
        #[pin]
        inner: I,
    }
}

/// A limiter of which each call takes several permits.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Weighted<'l, K: CellKind<Arrival>> {
    limiter: &'l RateLimiter<K>,
    weight: u32,
}

impl<K: CellKind<Arrival>> RateLimiter<K> {
    /// This limiter as a layer whose calls take `weight` permits each.
    pub const fn weighing(&self, weight: u32) -> Weighted<'_, K> {
        Weighted { limiter: self, weight }
    }
}

impl<K: CellKind<Arrival>> Part for Weighted<'_, K> {
    const ROLE: Role = Role::RateLimiter;

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.limiter.describe(f)?;
        write!(f, ", {} for each call", self.weight)
    }
}

impl<K: CellKind<Arrival>> Part for RateLimiter<K> {
    const ROLE: Role = Role::RateLimiter;

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.config();
        write!(f, "rate limiter: {config}")?;
        match config.queue {
            0 => Ok(()),
            queue => write!(f, ", {queue} may wait for {:?}", config.longest_wait.duration()),
        }
    }
}

impl<T, E, X: Executor, K: CellKind<Arrival>> Layer<T, E, X> for Weighted<'_, K> {
    type State<I> = LimiterState<X::Sleep, I>;

    fn idle<I>(&self, inner: I) -> Self::State<I> {
        LimiterState { taken: None, passed: false, sleep: None, inner }
    }

    #[inline]
    fn poll<N: Next<T, E, X>>(
        &self,
        state: Pin<&mut Self::State<N::State>>,
        next: &mut N,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        let mut this = state.project();
        let executor = scope.executor();
        if !*this.passed {
            // Nobody waits beyond the deadline: that would only use up permits.
            let left = |now| Span::from_nanos(scope.deadline().from(now).as_nanos().saturating_sub(now.as_nanos()));
            let passed = self.limiter.poll_taken(self.weight, left, this.taken, this.sleep.as_mut(), executor, cx);
            if let Err(rejected) = ready!(passed) {
                return Poll::Ready(Answer::ended(rejected, REJECTED));
            }
            *this.passed = true;
        }
        let answer = ready!(next.poll(this.inner, scope, cx));
        *this.passed = false;
        Poll::Ready(answer)
    }

    fn reset<N: Next<T, E, X>>(&self, state: Pin<&mut Self::State<N::State>>, next: &mut N, executor: &X) {
        let mut this = state.project();
        this.sleep.set(None);
        if let Some(taken) = this.taken.take() {
            self.limiter.give_back(self.weight, taken);
        }
        *this.passed = false;
        next.reset(this.inner, executor);
    }
}

impl<T, E, X: Executor, K: CellKind<Arrival>> Layer<T, E, X> for RateLimiter<K> {
    type State<I> = LimiterState<X::Sleep, I>;

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
