//! The adaptive rate as a part of a pipeline.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use super::{AdaptiveRate, RateCut, State, Taken};
use crate::cell::CellKind;
use crate::executor::Executor;
use crate::failure::Failure;
use crate::observe::Observer;
use crate::pipeline::order::Roles;
use crate::pipeline::{Answer, Layer, Next, Part, REJECTED, Role, Scope};
use crate::time::Span;

pin_project_lite::pin_project! {
    /// An adaptive rate's progress within a call: waiting for its turn, then past it.
    #[derive(Debug)]
    #[cfg_attr(feature = "defmt", derive(defmt::Format))]
    pub struct AdaptiveRateState<S, I> {
        // The token that was taken, until it may be used.
        taken: Option<Taken>,
        passed: bool,
        #[pin]
        sleep: Option<S>,
        #[pin]
        inner: I,
    }
}

impl<K: CellKind<State>, O> Part for AdaptiveRate<K, O> {
    const ROLE: Role = Role::RateLimiter;
    const ROLES: Roles = Roles::of(Role::RateLimiter).and(Roles::of(Role::Adaptive));

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "adaptive rate: {}", self.config)
    }
}

/// Every answer is reported, but for the rejections of the policies within: those calls have not been made.
impl<T, E, X: Executor, K: CellKind<State>, O: Observer<RateCut>> Layer<T, E, X> for AdaptiveRate<K, O> {
    type State<I> = AdaptiveRateState<X::Sleep, I>;

    fn idle<I>(&self, inner: I) -> Self::State<I> {
        AdaptiveRateState { taken: None, passed: false, sleep: None, inner }
    }

    fn poll<N: Next<T, E, X>>(
        &self,
        state: Pin<&mut Self::State<N::State>>,
        next: &mut N,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        let this = state.project();
        let executor = scope.executor();
        if !*this.passed {
            // Nobody waits beyond the deadline: that would only use up tokens.
            let left = |now| Span::from_nanos(scope.deadline().from(now).as_nanos().saturating_sub(now.as_nanos()));
            if let Err(rejected) = ready!(self.poll_turn(left, this.taken, this.sleep, executor, cx)) {
                return Poll::Ready(Answer::ended(rejected, REJECTED));
            }
            *this.passed = true;
        }
        let answer = ready!(next.poll(this.inner, scope, cx));
        *this.passed = false;
        if !answer.result.as_ref().is_err_and(Failure::is_rejected) {
            self.record(answer.verdict.is_throttled(), executor);
        }
        Poll::Ready(answer)
    }

    fn reset<N: Next<T, E, X>>(&self, state: Pin<&mut Self::State<N::State>>, next: &mut N, executor: &X) {
        let mut this = state.project();
        this.sleep.set(None);
        self.give_back(this.taken);
        *this.passed = false;
        next.reset(this.inner, executor);
    }
}
