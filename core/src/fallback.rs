//! A fallback: another answer when the call has failed.
//!
//! ```
//! use failsoft_core::{Failure, Pipeline, fallback::Fallback, testing::VirtualExecutor};
//!
//! let executor = VirtualExecutor::new();
//! let pipeline = Pipeline::new(&executor).layer(Fallback::new(|failure: Failure<&'static str>| match failure.inner() {
//!     Some(&"offline") => Ok(20),  // degrees: a safe default
//!     _ => Err(failure),
//! }));
//! assert_eq!(executor.run(pipeline.call(async |_| Err("offline"))), Ok(Ok(20)));
//! assert!(executor.run(pipeline.call(async |_| Err::<i32, _>("on fire"))).expect("it ends").is_err());
//! ```
//!
//! The reason is in hand: the fallback gets the failure and may hand it back, so the first error is not lost. Several in a row
//! form a chain: the outer one sees what the inner one gave back. An `Ok` that the classifier calls a failure is an answer all
//! the same and passes.
//!
//! # Defaults
//! None: what to answer is the application's to say. A fallback has no settings, keeps no state and allocates nothing.
//!
//! # When not to use it
//! Where a made-up answer is worse than none; and within a retry or a breaker, from which it would hide every failure: a
//! pipeline refuses that order.
//!
//! # Source
//! Nygard, "Release It!", 2007. Jacob Gabrielson, "Avoiding fallback in distributed systems", Amazon Builders' Library, tells
//! why one that is exercised only in an outage is to be distrusted: test yours.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use crate::executor::Executor;
use crate::failure::Failure;
use crate::outcome::Verdict;
use crate::pipeline::{Answer, Layer, Next, Part, Role, Scope};

/// A fallback that is a value, or worked out at once: `F` is `Fn(Failure<E>) -> Result<T, Failure<E>>`.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Fallback<F> {
    instead: F,
}

impl<F> Fallback<F> {
    /// What to answer instead.
    #[must_use]
    pub const fn new(instead: F) -> Self {
        Self { instead }
    }
}

impl<F> Part for Fallback<F> {
    const ROLE: Role = Role::Fallback;

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fallback: a value")
    }
}

impl<T, E, X, F> Layer<T, E, X> for Fallback<F>
where
    X: Executor,
    F: Fn(Failure<E>) -> Result<T, Failure<E>>,
{
    type State<I> = I;

    fn idle<I>(&self, inner: I) -> I {
        inner
    }

    #[inline]
    fn poll<N: Next<T, E, X>>(
        &self,
        state: Pin<&mut N::State>,
        next: &mut N,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        let answer = ready!(next.poll(state, scope, cx));
        Poll::Ready(match answer.result {
            Ok(_) => answer,
            Err(failure) => instead((self.instead)(failure)),
        })
    }

    fn reset<N: Next<T, E, X>>(&self, state: Pin<&mut N::State>, next: &mut N, executor: &X) {
        next.reset(state, executor);
    }
}

/// A fallback that is another operation: `F` is `Fn(Failure<E>) -> impl Future<Output = Result<T, Failure<E>>>`.
///
/// It runs under the limits of the policies around it only; give it a timeout of its own where it may hang.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct FallbackTo<F> {
    instead: F,
}

impl<F> FallbackTo<F> {
    /// What to do instead.
    #[must_use]
    pub const fn new(instead: F) -> Self {
        Self { instead }
    }
}

pin_project_lite::pin_project! {
    /// A fallback's progress within a call.
    #[derive(Debug)]
    #[cfg_attr(feature = "defmt", derive(defmt::Format))]
    pub struct FallbackState<G, I> {
        #[pin]
        instead: Option<G>,
        #[pin]
        inner: I,
    }
}

impl<F> Part for FallbackTo<F> {
    const ROLE: Role = Role::Fallback;

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fallback: another operation")
    }
}

impl<T, E, X, F, G> Layer<T, E, X> for FallbackTo<F>
where
    X: Executor,
    F: Fn(Failure<E>) -> G,
    G: Future<Output = Result<T, Failure<E>>>,
{
    type State<I> = FallbackState<G, I>;

    fn idle<I>(&self, inner: I) -> Self::State<I> {
        FallbackState { instead: None, inner }
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
        loop {
            if let Some(future) = this.instead.as_mut().as_pin_mut() {
                let result = ready!(future.poll(cx));
                this.instead.set(None);
                return Poll::Ready(instead(result));
            }
            let answer = ready!(next.poll(this.inner.as_mut(), scope, cx));
            match answer.result {
                Ok(_) => return Poll::Ready(answer),
                Err(failure) => this.instead.set(Some((self.instead)(failure))),
            }
        }
    }

    fn reset<N: Next<T, E, X>>(&self, state: Pin<&mut Self::State<N::State>>, next: &mut N, executor: &X) {
        let mut this = state.project();
        this.instead.set(None);
        next.reset(this.inner, executor);
    }
}

/// A fallback's answer is final: a policy around it has nothing to retry.
fn instead<T, E>(result: Result<T, Failure<E>>) -> Answer<T, E> {
    let verdict = if result.is_ok() { Verdict::SUCCESS } else { Verdict::PERMANENT };
    Answer { result, verdict }
}

#[cfg(test)]
mod tests;
