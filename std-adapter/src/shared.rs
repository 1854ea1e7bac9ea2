//! A policy behind an `Arc`, as a layer.

use core::fmt;
use core::ops::Deref;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::sync::Arc;

use failsoft_core::budget::RetryBudget;
use failsoft_core::pipeline::order::Roles;
use failsoft_core::pipeline::{Answer, Layer, Next, Part, Role, Scope};
use failsoft_core::{Clock, Executor, Outcome, Verdict};

/// A policy, or a budget of retries, that several pipelines share by an [`Arc`]: for those that are made at run time and have no `static`
/// to stand in.
///
/// ```
/// use failsoft_tokio::{CircuitBreaker, Pipeline, Shared, Tokio, circuit_breaker};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), failsoft_tokio::ConfigError> {
/// let breaker = Shared::new(CircuitBreaker::new(circuit_breaker::Config::new().validate()?));
/// let reads = Pipeline::new(Tokio).layer(breaker.clone());
/// let writes = Pipeline::new(Tokio).layer(breaker);
/// # let _ = (reads.call(async |_| Ok::<_, ()>(7)).await, writes.call(async |_| Ok::<_, ()>(7)).await);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Shared<L>(Arc<L>);

impl<L> Shared<L> {
    /// Shares this.
    #[must_use]
    pub fn new(policy: L) -> Self {
        Self(Arc::new(policy))
    }
}

impl<L> From<Arc<L>> for Shared<L> {
    fn from(policy: Arc<L>) -> Self {
        Self(policy)
    }
}

impl<L> Clone for Shared<L> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<L> Deref for Shared<L> {
    type Target = L;

    fn deref(&self) -> &L {
        &self.0
    }
}

impl<L: Part> Part for Shared<L> {
    const ROLE: Role = L::ROLE;
    const ROLES: Roles = L::ROLES;

    fn is_absent(&self) -> bool {
        self.0.is_absent()
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.describe(f)
    }
}

impl<T, E, X: Executor, L: Layer<T, E, X>> Layer<T, E, X> for Shared<L> {
    type State<I> = L::State<I>;

    fn idle<I>(&self, inner: I) -> Self::State<I> {
        (*self.0).idle(inner)
    }

    #[inline]
    fn poll<N: Next<T, E, X>>(
        &self,
        state: Pin<&mut Self::State<N::State>>,
        next: &mut N,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        (*self.0).poll(state, next, scope, cx)
    }

    fn reset<N: Next<T, E, X>>(&self, state: Pin<&mut Self::State<N::State>>, next: &mut N, executor: &X) {
        (*self.0).reset(state, next, executor);
    }
}

impl<B: RetryBudget> RetryBudget for Shared<B> {
    type Spent = B::Spent;

    fn begin(&self, clock: &impl Clock) -> B::Spent {
        self.0.begin(clock)
    }

    fn join(&self, clock: &impl Clock) -> B::Spent {
        self.0.join(clock)
    }

    fn try_retry(&self, spent: &mut B::Spent, verdict: Verdict, clock: &impl Clock) -> bool {
        self.0.try_retry(spent, verdict, clock)
    }

    fn end(&self, spent: B::Spent, outcome: Outcome) {
        self.0.end(spent, outcome);
    }

    fn id(&self) -> usize {
        self.0.id()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bulkhead, Pipeline, RetryPolicy, TokenBudget, Tokio, budget, bulkhead, retry, valid};

    #[tokio::test]
    async fn pipelines_with_clones_of_it_share_one_policy() {
        let bulkhead = Shared::new(Bulkhead::new(valid!(bulkhead::Config::new(1).validate())));
        let (one, other) = (Pipeline::new(Tokio).layer(bulkhead.clone()), Pipeline::new(Tokio).layer(bulkhead.clone()));
        let within = one.call(async |_| other.call(async |_| Ok::<_, ()>(7)).await.map_err(|full| full.is_rejected()));
        assert_eq!(within.await.map_err(|failure| failure.into_inner()), Err(Some(true)));
        assert_eq!((one.to_string(), bulkhead.snapshot().in_use), ("bulkhead: 1 permits".into(), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_budget_is_the_same_one_in_all_its_clones() {
        let config = valid!(budget::TokenConfig::new().with_minimum_per_second(0).validate());
        let shared = Shared::new(TokenBudget::new(config));
        shared.deposit(10, &Tokio);
        assert_eq!((shared.id(), shared.balance(&Tokio)), (shared.clone().id(), 2));
        let retry = RetryPolicy::with_budget(valid!(retry::Config::new().validate()), (), shared.clone());
        assert!(Pipeline::new(Tokio).layer(retry).call(async |_| Err::<(), _>(())).await.is_err());
        assert_eq!(shared.balance(&Tokio), 0);
    }
}
