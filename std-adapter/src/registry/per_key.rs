//! A pipeline for each key of the requests.

use core::borrow::Borrow;
use core::fmt;
use core::hash::{BuildHasher, Hash};
use std::hash::RandomState;
use std::sync::Arc;

use failsoft_core::Pipeline;

use super::Registry;
use crate::tower::Choose;

/// The pipeline of a request's key: its host, its tenant, its route. It stands where a pointer to a pipeline would, in a
/// [`PipelineLayer`](crate::PipelineLayer) or a middleware of `reqwest`.
///
/// ```
/// use std::sync::Arc;
/// use failsoft_tokio::registry::{Config, PerKey, Registry};
/// use failsoft_tokio::{CircuitBreaker, Pipeline, PipelineLayer, Tokio, circuit_breaker, valid};
/// use tower::{ServiceBuilder, ServiceExt};
///
/// struct Order {
///     tenant: Box<str>,
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let make = |_: Option<&Box<str>>| {
///     Pipeline::new(Tokio).layer(CircuitBreaker::new(valid!(circuit_breaker::Config::new().validate())))
/// };
/// let tenants = Arc::new(Registry::new(valid!(Config::new(10_000)), make));
///
/// let service = ServiceBuilder::new()
///     .layer(PipelineLayer::with_requests(PerKey::new(tenants.clone(), |order: &Order| &*order.tenant), failsoft_tokio::tower::Once))
///     .service_fn(async |order: Order| Ok::<_, std::io::Error>(format!("served {}", order.tenant)));
///
/// assert_eq!(service.oneshot(Order { tenant: "one".into() }).await.ok().as_deref(), Some("served one"));
/// assert!(tenants.peek("one").is_some());
/// # }
/// ```
pub struct PerKey<Req, Q: ?Sized, K, P, S = RandomState> {
    registry: Arc<Registry<K, P, S>>,
    key: fn(&Req) -> &Q,
}

impl<Req, Q: ?Sized, K, P, S> PerKey<Req, Q, K, P, S> {
    /// The pipelines of this registry, by what `key` says of a request.
    #[must_use]
    pub const fn new(registry: Arc<Registry<K, P, S>>, key: fn(&Req) -> &Q) -> Self {
        Self { registry, key }
    }
}

impl<Req, Q: ?Sized, K, P, S> Clone for PerKey<Req, Q, K, P, S> {
    fn clone(&self) -> Self {
        Self { registry: self.registry.clone(), key: self.key }
    }
}

impl<Req, Q: ?Sized, K, P, S> fmt::Debug for PerKey<Req, Q, K, P, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerKey").field("registry", &self.registry).finish_non_exhaustive()
    }
}

impl<Req, Q, K, X, L, C, S> Choose<Req> for PerKey<Req, Q, K, Pipeline<X, L, C>, S>
where
    K: Borrow<Q> + Eq + Hash,
    Q: Eq + Hash + ToOwned<Owned: Into<K>> + ?Sized,
    S: BuildHasher,
{
    type Pointer = Arc<Pipeline<X, L, C>>;

    fn choose(&self, request: &Req) -> Self::Pointer {
        self.registry.get((self.key)(request))
    }
}
