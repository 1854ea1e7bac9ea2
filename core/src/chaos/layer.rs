//! Chaos as a part of a pipeline.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use super::{Chaos, Injected, Injection, Progress};
use crate::cell::CellKind;
use crate::executor::Executor;
use crate::observe::Observer;
use crate::pipeline::{Answer, Layer, Next, Part, Role, Scope};

pin_project_lite::pin_project! {
    /// Chaos's progress within a call: not counted yet, then at what is injected, then past it.
    #[derive(Debug)]
    #[cfg_attr(feature = "defmt", derive(defmt::Format))]
    pub struct ChaosState<B, I> {
        passed: bool,
        #[pin]
        before: Option<B>,
        #[pin]
        inner: I,
    }
}

impl<K: CellKind<Progress>, I: fmt::Display, O> Part for Chaos<K, I, O> {
    const ROLE: Role = Role::Other;

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chaos: {} in {} of the calls", self.injection, self.rate())?;
        if self.is_enabled() { Ok(()) } else { f.write_str(", switched off") }
    }
}

impl<T, E, X, K, I, O> Layer<T, E, X> for Chaos<K, I, O>
where
    X: Executor,
    K: CellKind<Progress>,
    I: Injection<T, E, X>,
    O: Observer<Injected>,
{
    type State<S> = ChaosState<I::Before, S>;

    fn idle<S>(&self, inner: S) -> Self::State<S> {
        ChaosState { passed: false, before: None, inner }
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
            if this.before.is_none()
                && let Some(hit) = self.next_call()
            {
                self.observer.observe(&Injected { call: hit.call, kind: self.injection.kind(hit) });
                this.before.set(Some(self.injection.begin(hit, executor)));
            }
            if let Some(before) = this.before.as_mut().as_pin_mut() {
                let instead = ready!(self.injection.poll(before, executor, cx));
                this.before.set(None);
                if let Some(result) = instead {
                    let verdict = next.judge(result.as_ref());
                    return Poll::Ready(Answer::of(result, verdict));
                }
            }
            *this.passed = true;
        }
        let answer = ready!(next.poll(this.inner, scope, cx));
        *this.passed = false;
        Poll::Ready(answer)
    }

    fn reset<N: Next<T, E, X>>(&self, state: Pin<&mut Self::State<N::State>>, next: &mut N, executor: &X) {
        let mut this = state.project();
        *this.passed = false;
        this.before.set(None);
        next.reset(this.inner, executor);
    }
}
