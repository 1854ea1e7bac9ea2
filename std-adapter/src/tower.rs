//! Tower: a pipeline as a layer around a service, among the other layers of a stack.
//!
//! ```
//! use core::time::Duration;
//! use std::sync::Arc;
//!
//! use failsoft_tokio::{CircuitBreaker, Pipeline, PipelineLayer, RetryPolicy, Timeout, Tokio, circuit_breaker, retry};
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn core::error::Error>> {
//! let pipeline = Pipeline::new(Tokio)
//!     .layer(RetryPolicy::new(retry::Config::new().validate()?))
//!     .layer(CircuitBreaker::new(circuit_breaker::Config::new().validate()?))
//!     .layer(Timeout::new(Duration::from_secs(1))); // per attempt
//!
//! let service = ServiceBuilder::new()
//!     .layer(PipelineLayer::new(Arc::new(pipeline)))
//!     .concurrency_limit(64)
//!     .service_fn(async |name: &str| Ok::<_, std::io::Error>(format!("hello, {name}")));
//!
//! assert_eq!(service.oneshot("tower").await?, "hello, tower");
//! # Ok(())
//! # }
//! ```
//!
//! All services of a [`PipelineLayer`], and their clones, share its pipeline by an `Arc` or a
//! `&'static` reference: one breaker, one bulkhead for all of them. Nothing is boxed, and nothing is allocated but by the service.
//!
//! # A policy alone
//! is a pipeline of one. The layers of each have a name, and are made of the policy:
//!
//! ```
//! use core::time::Duration;
//! use failsoft_tokio::tower::{BulkheadLayer, CircuitBreakerLayer, RetryLayer, TimeoutLayer};
//! use failsoft_tokio::{Bulkhead, CircuitBreaker, RetryPolicy, Timeout, bulkhead, circuit_breaker, retry, valid};
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let service = ServiceBuilder::new()
//!     .layer(BulkheadLayer::of(Bulkhead::new(valid!(bulkhead::Config::new(64).validate()))))
//!     .layer(RetryLayer::of(RetryPolicy::new(valid!(retry::Config::new().validate()))))
//!     .layer(CircuitBreakerLayer::of(CircuitBreaker::new(valid!(circuit_breaker::Config::new().validate()))))
//!     .layer(TimeoutLayer::of(Timeout::new(Duration::from_secs(1))))
//!     .service_fn(async |name: &str| Ok::<_, std::io::Error>(format!("hello, {name}")));
//!
//! assert_eq!(service.oneshot("tower").await.ok().as_deref(), Some("hello, tower"));
//! # }
//! ```
//!
//! Several policies are better one pipeline: there the errors are of one kind (here they are nested: `Failure<Failure<…>>`, each classified
//! by itself, so that a rejection counts as a failure for the policies around), the deadline is passed down, and the order is checked. Who
//! wants to look at a policy later, or to change it, lays a `&'static` reference to it: [`PolicyLayer`]`<&'static CircuitBreaker>`.
//!
//! # What becomes of the request
//!
//! | constructor | request | pipeline | each attempt gets |
//! | --- | --- | --- | --- |
//! | [`PipelineLayer::new`] | `Clone` | any | the request, or a clone of it |
//! | [`PipelineLayer::once`] | any | without retry and hedge, or it doesn't compile | the request itself |
//! | [`PipelineLayer::with_requests`] | any | any | what [`Requests`] says: where it has none to send again, there is no further attempt |
//!
//! Feature `http` has [`HttpRequests`](crate::http::HttpRequests): what is idempotent and can be sent again is. A closure says it for a request of one's
//! own:
//!
//! ```
//! use std::sync::Arc;
//! use failsoft_tokio::{Pipeline, PipelineLayer, RetryPolicy, Stop, Tokio, retry, valid};
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! #[derive(Clone)]
//! enum Order {
//!     Read(u32),
//!     Pay(u32),
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let retry = RetryPolicy::new(valid!(retry::Config::new().validate()));
//! let reads = |order: &Order| matches!(order, Order::Read(_)).then(|| order.clone());
//! let service = ServiceBuilder::new()
//!     .layer(PipelineLayer::with_requests(Arc::new(Pipeline::new(Tokio).layer(retry)), reads))
//!     .service_fn(async |_: Order| Err::<(), _>("timed out"));
//!
//! let attempts = async |order| service.clone().oneshot(order).await.map_err(|failure| (failure.attempts, failure.stop));
//! assert_eq!(attempts(Order::Read(7)).await, Err((3, Some(Stop::Attempts))));
//! assert_eq!(attempts(Order::Pay(7)).await, Err((1, Some(Stop::NotRetryable))));
//! # }
//! ```
//!
//! ```compile_fail
//! use std::sync::Arc;
//! use failsoft_tokio::{Pipeline, PipelineLayer, RetryPolicy, Tokio, retry, valid};
//!
//! // error: a retry or a hedge takes a request for every attempt: `PipelineLayer::new` clones it
//! let retry = RetryPolicy::new(valid!(retry::Config::new().validate()));
//! let layer = PipelineLayer::once(Arc::new(Pipeline::new(Tokio).layer(retry)));
//! ```
//!
//! # How it goes
//! `poll_ready` is the service's own: back-pressure passes through, and the policies have no say in it. `call` takes the service that was
//! ready along and leaves a clone of it behind, as tower has it. It starts nothing: that the response future does, when it is
//! first polled.
//!
//! | what happens | what the service sees |
//! | --- | --- |
//! | the first attempt that the policies let through | a call of the service that was ready |
//! | a further attempt, or a hedge | a fresh clone, polled until it is ready and then called |
//! | a policy rejects | nothing. What it had reserved when it was ready (a permit, a slot) is free again once the response future is dropped |
//! | an attempt times out, or a hedge has been overtaken | its future is dropped, and with it a clone that was not ready yet |
//! | the response future is dropped | the same, and every permit of the pipeline comes back |
//!
//! The wait of a further attempt for its clone is a part of the attempt: its timeout ends it, and a service that fails while it gets ready
//! has failed for the breaker. The wait before the first attempt is not: it is over before the pipeline begins.
//!
//! # Errors
//! [`Failure`] with the service's error as its inner one; also from `poll_ready`, where the service fails before there is a call.
//!
//! Where the service's error is a box, as that of tower's own timeout or buffer, the `Failure` of it is no [`Error`](core::error::Error),
//! because a box of one is none. Layers further out that want an error then need a `map_err` between, which says what to keep:
//!
//! ```
//! use std::sync::Arc;
//!
//! use failsoft_tokio::{Failure, Pipeline, PipelineLayer, Tokio};
//! use tower::{BoxError, ServiceBuilder, ServiceExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let service = ServiceBuilder::new()
//!     .map_err(|failure: Failure<BoxError>| BoxError::from(failure.to_string()))
//!     .layer(PipelineLayer::new(Arc::new(Pipeline::new(Tokio))))
//!     .service_fn(async |_: ()| Err::<(), _>(BoxError::from("down")));
//!
//! assert!(service.oneshot(()).await.is_err_and(|error| error.to_string() == "down"));
//! # }
//! ```
//!
//! # Cancel safety
//! Dropping the response future at any point drops the service's future and returns every permit. A reservation of the service is held
//! from `poll_ready` to the first attempt: so don't keep a response future without polling it, and where a service within
//! reserves what is scarce, let the pipeline reject rather than queue.
//!
//! # When not to use it
//! Without a stack of services: [`Pipeline::call`] needs no clone of a service, and its operation knows the attempt. With requests
//! whose bodies are streams, retries need something that can be replayed: buffer the body, or use [`once`](PipelineLayer::once). A layer of
//! one's own that starts what lies within it several times must ask whether it [is repeatable](failsoft_core::pipeline::Next::is_repeatable):
//! an attempt without a request is rejected, and so is a response that is polled again after its end.
//!
//! # Source
//! The contract of [`tower_service::Service`], on readiness and clones above all.

use core::fmt;
use core::future::Future;
use core::mem;
use core::ops::Deref;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::sync::Arc;

use failsoft_core::circuit_breaker::ConsecutiveFailures;
use failsoft_core::hedge::FixedDelay;
use failsoft_core::pipeline::{Attempt, Bare, Call, Layer, Operation, Part, Role, Stack};
use failsoft_core::retry::RetryPolicy;
use failsoft_core::timeout::Timeout;
use failsoft_core::{Cause, Classify, ErrIsFailure, Executor, Failure, Pipeline};
use tower_service::Service;

use crate::{AdaptiveLimit, AdaptiveRate, Bulkhead, CircuitBreaker, Hedge, RateLimiter, Throttle, Tokio};

/// What becomes of a request: whether another one like it may be sent, for another attempt.
///
/// [`Cloned`] and [`Once`] are; so is any `Fn(&Req) -> Option<Req>`.
pub trait Requests<Req> {
    /// Whether there is never another one, of no request: then nothing is made ready for it.
    const NEVER: bool = false;

    /// Another request like this one, for an attempt that may follow, or `None`, where it must not be sent a second time or can't be.
    fn again(&self, request: &Req) -> Option<Req>;
}

/// Each attempt gets a clone of the request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cloned;

impl<Req: Clone> Requests<Req> for Cloned {
    #[inline]
    fn again(&self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }
}

/// There is one attempt.
#[derive(Clone, Copy, Debug, Default)]
pub struct Once;

impl<Req> Requests<Req> for Once {
    const NEVER: bool = true;

    #[inline]
    fn again(&self, _: &Req) -> Option<Req> {
        None
    }
}

impl<Req, F: Fn(&Req) -> Option<Req>> Requests<Req> for F {
    #[inline]
    fn again(&self, request: &Req) -> Option<Req> {
        self(request)
    }
}

/// Which pipeline a request goes through.
///
/// A pointer to a pipeline chooses that one, whatever the request. Feature `registry` has [`PerKey`](crate::registry::PerKey): one for each host, tenant
/// or route.
pub trait Choose<Req> {
    /// Points to the pipeline.
    type Pointer;

    /// The pipeline for this request.
    fn choose(&self, request: &Req) -> Self::Pointer;
}

impl<Req, H, X, L, C> Choose<Req> for H
where
    H: Deref<Target = Pipeline<X, L, C>> + Clone,
{
    type Pointer = Self;

    #[inline]
    fn choose(&self, _: &Req) -> Self {
        self.clone()
    }
}

/// Puts a pipeline around services; see the [module](self).
#[derive(Clone, Copy, Debug)]
pub struct PipelineLayer<H, R = Cloned> {
    pipeline: H,
    requests: R,
}

impl<H> PipelineLayer<H> {
    /// The pipeline that `pipeline` points to, around services whose requests can be cloned: there is a clone for each further attempt.
    #[must_use]
    pub const fn new(pipeline: H) -> Self {
        Self::with_requests(pipeline, Cloned)
    }
}

impl<H, R> PipelineLayer<H, R> {
    /// The pipeline that `pipeline` points to, where `requests` says which requests may be sent again: what may not has a single attempt,
    /// whatever the pipeline's retries and hedges would do.
    #[must_use]
    pub const fn with_requests(pipeline: H, requests: R) -> Self {
        Self { pipeline, requests }
    }
}

impl<H> PipelineLayer<H, Once> {
    /// The pipeline that `pipeline` points to, around services with any requests: there is a single attempt, which gets the request as it
    /// is. A pipeline with a retry or a hedge does not compile with this.
    #[must_use]
    pub const fn once<X, L, C>(pipeline: H) -> Self
    where
        H: Deref<Target = Pipeline<X, L, C>>,
        L: Part,
    {
        const {
            assert!(
                !L::ROLES.has(Role::Retry) && !L::ROLES.has(Role::Hedge),
                "a retry or a hedge takes a request for every attempt: `PipelineLayer::new` clones it"
            );
        }
        Self::with_requests(pipeline, Once)
    }
}

/// A policy alone, as a layer: a pipeline of one. See the [module](self#a-policy-alone).
pub type PolicyLayer<P, R = Once, C = ErrIsFailure> = PipelineLayer<Arc<Pipeline<Tokio, Stack<Bare, P>, C>>, R>;

/// An adaptive limit alone, as a layer.
pub type AdaptiveLimitLayer<A, O = (), C = ErrIsFailure> = PolicyLayer<AdaptiveLimit<A, O>, Once, C>;
/// An adaptive rate alone, as a layer.
pub type AdaptiveRateLayer<O = (), C = ErrIsFailure> = PolicyLayer<AdaptiveRate<O>, Once, C>;
/// A bulkhead alone, as a layer.
pub type BulkheadLayer = PolicyLayer<Bulkhead>;
/// A circuit breaker alone, as a layer.
pub type CircuitBreakerLayer<T = ConsecutiveFailures, O = (), C = ErrIsFailure> =
    PolicyLayer<CircuitBreaker<T, O>, Once, C>;
/// A hedge alone, as a layer.
pub type HedgeLayer<const N: usize = 1, D = FixedDelay, C = ErrIsFailure> = PolicyLayer<Hedge<N, D>, Cloned, C>;
/// A rate limiter alone, as a layer.
pub type RateLimiterLayer = PolicyLayer<RateLimiter>;
/// A retry alone, as a layer.
pub type RetryLayer<C = ErrIsFailure> = PolicyLayer<RetryPolicy, Cloned, C>;
/// A client-side throttle alone, as a layer.
pub type ThrottleLayer<C = ErrIsFailure> = PolicyLayer<Throttle, Once, C>;
/// A timeout alone, as a layer.
pub type TimeoutLayer = PolicyLayer<Timeout>;

impl<P: Part> PolicyLayer<P> {
    /// This policy around services with any requests. A retry or a hedge does not compile with this: [`RetryLayer`] and [`HedgeLayer`] clone
    /// the request.
    #[must_use]
    pub fn of(policy: P) -> Self {
        Self::classified(policy, ErrIsFailure)
    }
}

impl<P: Part, C> PolicyLayer<P, Once, C> {
    /// This policy around services with any requests, which goes by this classifier.
    #[must_use]
    pub fn classified(policy: P, classify: C) -> Self {
        Self::once(Arc::new(Pipeline::new(Tokio).layer(policy).classify(classify)))
    }
}

impl<P: Part> PolicyLayer<P, Cloned> {
    /// This policy around services whose requests can be cloned.
    #[must_use]
    pub fn of(policy: P) -> Self {
        Self::new(Arc::new(Pipeline::new(Tokio).layer(policy)))
    }
}

impl<P: Part, R, C> PolicyLayer<P, R, C> {
    /// This policy, which goes by this classifier, where `requests` says which requests may be sent again.
    #[must_use]
    pub fn of_requests(policy: P, requests: R, classify: C) -> Self {
        Self::with_requests(Arc::new(Pipeline::new(Tokio).layer(policy).classify(classify)), requests)
    }
}

impl<S, H: Clone, R: Clone> tower_layer::Layer<S> for PipelineLayer<H, R> {
    type Service = PipelineService<S, H, R>;

    fn layer(&self, inner: S) -> Self::Service {
        PipelineService { inner, pipeline: self.pipeline.clone(), requests: self.requests.clone() }
    }
}

/// A service within a pipeline; see the [module](self).
#[derive(Clone, Copy, Debug)]
pub struct PipelineService<S, H, R = Cloned> {
    inner: S,
    pipeline: H,
    requests: R,
}

impl<S, Req, P, H, R, X, L, C> Service<Req> for PipelineService<S, P, R>
where
    S: Service<Req> + Clone,
    P: Choose<Req, Pointer = H>,
    H: Deref<Target = Pipeline<X, L, C>>,
    R: Requests<Req> + Clone,
    X: Executor,
    L: Layer<S::Response, S::Error, X>,
    C: Classify<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = Failure<S::Error>;
    type Future = ResponseFuture<S, Req, S::Response, S::Error, S::Future, H, R, X, L, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(|error| Failure::new(Cause::Inner(error)))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        // The one that was polled ready is the one to be called: a clone of it need not be.
        let next = self.inner.clone();
        let service = mem::replace(&mut self.inner, next);
        let pipeline = self.pipeline.choose(&request);
        let attempts = Attempts { service, held: Held::Ready(request), requests: self.requests.clone() };
        ResponseFuture { call: Call::of(pipeline, attempts) }
    }
}

pin_project_lite::pin_project! {
    /// The response of a [`PipelineService`]: one call through its pipeline.
    ///
    /// The service's answer, error and future (`T`, `E` and `F`) are parameters, though they follow from the service and the request: for
    /// a task that is sent the compiler forgets lifetimes, and could not tell them any more.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Req, T, E, F, H, R, X, L, C>
    where
        S: Service<Req, Response = T, Error = E, Future = F>,
        S: Clone,
        F: Future<Output = Result<T, E>>,
        H: Deref<Target = Pipeline<X, L, C>>,
        R: Requests<Req>,
        X: Executor,
        L: Layer<T, E, X>,
        C: Classify<T, E>,
    {
        #[pin]
        call: Call<H, T, E, X, L, C, Attempts<S, Req, R>, AttemptFuture<S, Req, F>>,
    }
}

impl<S, Req, T, E, F, H, R, X, L, C> Future for ResponseFuture<S, Req, T, E, F, H, R, X, L, C>
where
    S: Service<Req, Response = T, Error = E, Future = F> + Clone,
    F: Future<Output = Result<T, E>>,
    H: Deref<Target = Pipeline<X, L, C>>,
    R: Requests<Req>,
    X: Executor,
    L: Layer<T, E, X>,
    C: Classify<T, E>,
{
    type Output = Result<T, Failure<E>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().call.poll(cx)
    }
}

impl<S, Req, T, E, F, H, R, X, L, C> fmt::Debug for ResponseFuture<S, Req, T, E, F, H, R, X, L, C>
where
    S: Service<Req, Response = T, Error = E, Future = F> + Clone,
    F: Future<Output = Result<T, E>>,
    H: Deref<Target = Pipeline<X, L, C>>,
    R: Requests<Req>,
    X: Executor,
    L: Layer<T, E, X>,
    C: Classify<T, E>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// The request for the next attempt, and by whom it is made.
enum Held<Req> {
    /// By the service that was polled ready, and has not been called since.
    Ready(Req),
    /// By a clone.
    Further(Req),
    /// There is none: there may be no further attempt.
    Gone,
}

/// The attempts of one call, as the operation of its pipeline.
struct Attempts<S, Req, R> {
    service: S,
    held: Held<Req>,
    requests: R,
}

impl<S, Req, R> Operation<S::Response, S::Error> for Attempts<S, Req, R>
where
    S: Service<Req> + Clone,
    R: Requests<Req>,
{
    type Future = AttemptFuture<S, Req, S::Future>;

    #[inline]
    fn start(&mut self, _: Attempt) -> Self::Future {
        let (request, ready) = match mem::replace(&mut self.held, Held::Gone) {
            Held::Ready(request) => (request, true),
            // Where there is never one, this isn't reached: it is as if it were ready, so that nothing is decided.
            Held::Further(request) => (request, R::NEVER),
            Held::Gone => return AttemptFuture::Waiting { service: self.service.clone(), request: None },
        };
        if let Some(again) = self.requests.again(&request) {
            self.held = Held::Further(again);
        }
        if ready {
            AttemptFuture::Called { response: self.service.call(request) }
        } else {
            AttemptFuture::Waiting { service: self.service.clone(), request: Some(request) }
        }
    }

    #[inline]
    fn is_repeatable(&self) -> bool {
        !matches!(self.held, Held::Gone)
    }
}

pin_project_lite::pin_project! {
    /// One attempt: the service's own future, once the service has been called.
    #[project = Progress]
    enum AttemptFuture<S, Req, F> {
        /// A clone that has to be ready first.
        Waiting { service: S, request: Option<Req> },
        /// The service is at work.
        Called { #[pin] response: F },
    }
}

impl<S, Req> Future for AttemptFuture<S, Req, S::Future>
where
    S: Service<Req>,
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let response = match self.as_mut().project() {
                Progress::Called { response } => return response.poll(cx),
                Progress::Waiting { service, request } => {
                    if request.is_some() {
                        ready!(service.poll_ready(cx))?;
                    }
                    let Some(request) = request.take() else { return Poll::Pending };
                    service.call(request)
                }
            };
            // The clone has been called and is not needed any more.
            self.set(Self::Called { response });
        }
    }
}
