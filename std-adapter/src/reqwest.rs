//! The HTTP client `reqwest`: as a service within a pipeline, or with a pipeline as its middleware.
//!
//! ```no_run
//! use core::time::Duration;
//! use std::sync::Arc;
//!
//! use failsoft_tokio::http::{HttpRequests, HttpStatus};
//! use failsoft_tokio::reqwest::PipelineMiddleware;
//! use failsoft_tokio::{CircuitBreaker, Pipeline, PipelineLayer, RetryPolicy, Timeout, Tokio, circuit_breaker, retry};
//! use tower::{Service, ServiceBuilder, ServiceExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn core::error::Error>> {
//! let pipeline = Arc::new(
//!     Pipeline::new(Tokio)
//!         .layer(RetryPolicy::new(retry::Config::new().validate()?))
//!         .layer(CircuitBreaker::new(circuit_breaker::Config::new().validate()?))
//!         .layer(Timeout::new(Duration::from_secs(1)))
//!         .classify(HttpStatus),
//! );
//! let client = reqwest::Client::builder().retry(reqwest::retry::never()).build()?;
//!
//! // With a middleware: requests are made as ever.
//! let with_middleware =
//!     reqwest_middleware::ClientBuilder::new(client.clone()).with(PipelineMiddleware::new(pipeline.clone())).build();
//! let response = with_middleware.get("http://localhost:8080/").send().await?;
//!
//! // As a service: without a box, and the error says which policy ended the call.
//! let mut service = ServiceBuilder::new().layer(PipelineLayer::with_requests(pipeline, HttpRequests)).service(client);
//! let request = reqwest::Request::new(reqwest::Method::GET, "http://localhost:8080/".parse()?);
//! let response = service.ready().await?.call(request).await?;
//! # let _ = response;
//! # Ok(())
//! # }
//! ```
//!
//! Answers are classified by [`HttpStatus`]; the client's errors as follows:
//!
//! | error | outcome | retried |
//! | --- | --- | --- |
//! | of the request: no connection, a timeout, one that broke off | failure | yes |
//! | of a status, by `error_for_status` | as of the response, without its headers | as that |
//! | of the body or its decoding | failure | no |
//! | of the builder or of a redirect: the request is wrong | ignored | no |
//! | of a middleware further in | ignored | no |
//!
//! Requests may be sent again as [`HttpRequests`] says, when their body can be: `reqwest` knows. Its requests carry no
//! extensions; the middleware takes [`Repeat`] from `with_extension` of its request builder.
//!
//! # Errors
//! A policy that ended the call is an error of the middleware's, `reqwest_middleware::Error::Middleware`, around the [`Failure`], whose
//! inner error is what `failure_of` finds. The client's own error stays what it is.
//!
//! # Cancel safety
//! Dropping the call drops its attempts and returns every permit.
//!
//! # When not to use it
//! With the client's own retries switched on, which they are at first: the attempts multiply, though by little. Switch them off, as above.
//!
//! # Source
//! `reqwest-middleware`'s way of layering; its own `reqwest-retry` heeds no Retry-After and has no breaker.

use core::future::{Future, pending};
use core::mem;
use core::ops::Deref;
use core::pin::Pin;

use failsoft_core::pipeline::{self, Call, Layer, Operation};
use failsoft_core::{Cause, Classify, Executor, Failure, Pipeline, Verdict};
use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next};

use crate::http::{HttpRequests, HttpStatus, Repeat};
use crate::tower::{Choose, Requests};

impl Requests<Request> for HttpRequests {
    fn again(&self, request: &Request) -> Option<Request> {
        again(request, None)
    }
}

fn again(request: &Request, repeat: Option<&Repeat>) -> Option<Request> {
    if HttpRequests::allows(request.method(), repeat) { request.try_clone() } else { None }
}

impl Classify<Response, reqwest::Error> for HttpStatus {
    fn classify(&self, result: Result<&Response, &reqwest::Error>) -> Verdict {
        result.map_or_else(transport, of_response)
    }
}

impl Classify<Response, Error> for HttpStatus {
    fn classify(&self, result: Result<&Response, &Error>) -> Verdict {
        match result {
            Ok(response) => of_response(response),
            Err(Error::Reqwest(error)) => transport(error),
            Err(Error::Middleware(_)) => Verdict::IGNORED,
        }
    }
}

fn of_response(response: &Response) -> Verdict {
    HttpStatus::verdict(response.status(), response.headers())
}

fn transport(error: &reqwest::Error) -> Verdict {
    if let Some(status) = error.status() {
        HttpStatus::verdict(status, &http::HeaderMap::new())
    } else if error.is_builder() || error.is_redirect() {
        Verdict::IGNORED
    } else if error.is_body() || error.is_decode() {
        Verdict::PERMANENT
    } else {
        Verdict::TRANSIENT
    }
}

/// A pipeline around all requests of a client; see the [module](self).
#[derive(Clone, Copy, Debug)]
pub struct PipelineMiddleware<H> {
    pipeline: H,
}

impl<H> PipelineMiddleware<H> {
    /// The pipeline that `pipeline` points to, or [chooses](Choose), around a client's requests.
    #[must_use]
    pub const fn new(pipeline: H) -> Self {
        Self { pipeline }
    }
}

/// The failure in an error of a client with a [`PipelineMiddleware`], where a policy ended the call.
#[must_use]
pub fn failure_of(error: &Error) -> Option<&Failure<Error>> {
    match error {
        Error::Middleware(error) => error.downcast_ref(),
        Error::Reqwest(_) => None,
    }
}

type Attempt<'a> = Pin<Box<dyn Future<Output = reqwest_middleware::Result<Response>> + Send + 'a>>;

/// The attempts of one request, as the operation of its pipeline.
struct Attempts<'a> {
    // For the next attempt, if there may be one.
    request: Option<Request>,
    extensions: &'a Extensions,
    next: Next<'a>,
}

impl<'a> Operation<Response, Error> for Attempts<'a> {
    type Future = Attempt<'a>;

    fn start(&mut self, _: pipeline::Attempt) -> Attempt<'a> {
        let again = self.request.as_ref().and_then(|request| again(request, self.extensions.get()));
        let Some(request) = mem::replace(&mut self.request, again) else { return Box::pin(pending()) };
        let (next, mut extensions) = (self.next.clone(), self.extensions.clone());
        Box::pin(async move { next.run(request, &mut extensions).await })
    }

    fn is_repeatable(&self) -> bool {
        self.request.is_some()
    }
}

#[async_trait::async_trait]
impl<P, H, X, L, C> Middleware for PipelineMiddleware<P>
where
    P: Choose<Request, Pointer = H> + Send + Sync + 'static,
    H: Deref<Target = Pipeline<X, L, C>> + Send,
    X: Executor + 'static,
    L: Layer<Response, Error, X> + 'static,
    C: Classify<Response, Error> + 'static,
    for<'a> L::State<Option<Attempt<'a>>>: Send,
{
    /// Each attempt gets a clone of the extensions: what a middleware further in puts there is for that attempt alone.
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let pipeline = self.pipeline.choose(&request);
        let attempts = Attempts { request: Some(request), extensions, next };
        Call::of(pipeline, attempts).await.map_err(|failure| match failure.cause {
            Cause::Inner(error) => error,
            _ => Error::middleware(failure),
        })
    }
}
