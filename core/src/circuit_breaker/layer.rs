//! The breaker as a part of a pipeline.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use super::machine::{State, Ticket};
use super::{CircuitBreaker, Permit, Transition, Trip};
use crate::cell::CellKind;
use crate::executor::Executor;
use crate::observe::{Called, Observer};
use crate::pipeline::{Answer, Layer, Next, Part, REJECTED, Role, Scope};

pin_project_lite::pin_project! {
    /// A breaker's progress within a call: the permit, while the inside runs.
    #[derive(Debug)]
    #[cfg_attr(feature = "defmt", derive(defmt::Format))]
    pub struct BreakerState<I> {
        ticket: Option<Ticket>,
        #[pin]
        inner: I,
    }
}

impl<K, R, O> Part for CircuitBreaker<K, R, O>
where
    R: Copy + Trip,
    K: CellKind<State<R::Meter>>,
{
    const ROLE: Role = Role::CircuitBreaker;

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.configured(|config| {
            write!(f, "circuit breaker: {:?}, open for {:?}", config.trip, config.open_for.duration())?;
            write!(f, ", {} of {} probes close it", config.successes, config.trials)
        })
    }
}

impl<T, E, X, K, R, O> Layer<T, E, X> for CircuitBreaker<K, R, O>
where
    X: Executor,
    R: Copy + Trip,
    K: CellKind<State<R::Meter>>,
    O: Observer<Transition>,
{
    type State<I> = BreakerState<I>;

    fn idle<I>(&self, inner: I) -> BreakerState<I> {
        BreakerState { ticket: None, inner }
    }

    #[inline]
    fn poll<N: Next<T, E, X>>(
        &self,
        state: Pin<&mut BreakerState<N::State>>,
        next: &mut N,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        let this = state.project();
        if this.ticket.is_none() {
            match self.admit(scope.executor()) {
                Ok(ticket) => {
                    *this.ticket = Some(ticket);
                    // After it is kept: the call gives the slot back should the observer panic.
                    self.observer.called(Called::Admitted);
                }
                Err(rejected) => return Poll::Ready(Answer::ended(rejected, REJECTED)),
            }
        }
        let answer = ready!(next.poll(this.inner, scope, cx));
        if let Some(ticket) = this.ticket.take() {
            // Of a copy, so that the answer itself need not be in memory.
            self.settle(ticket, &{ answer.verdict }, scope.executor());
        }
        Poll::Ready(answer)
    }

    fn reset<N: Next<T, E, X>>(&self, state: Pin<&mut BreakerState<N::State>>, next: &mut N, executor: &X) {
        let this = state.project();
        // A guard, so that the permit comes back even if the operation's future panics while it is dropped.
        let _permit = this.ticket.take().map(|ticket| Permit { breaker: self, ticket, clock: executor });
        next.reset(this.inner, executor);
    }
}
