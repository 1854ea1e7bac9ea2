//! HTTP: what an answer counts as, when the server wants us back, which requests may be sent again, and how a rejection is answered.
//!
//! ```
//! use core::time::Duration;
//! use std::sync::Arc;
//!
//! use failsoft_tokio::http::{HttpRequests, HttpStatus};
//! use failsoft_tokio::{CircuitBreaker, Pipeline, PipelineLayer, RetryPolicy, Timeout, Tokio, circuit_breaker, retry};
//! use http::{Request, Response, StatusCode};
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn core::error::Error>> {
//! let pipeline = Pipeline::new(Tokio)
//!     .layer(RetryPolicy::new(retry::Config::new().validate()?))
//!     .layer(CircuitBreaker::new(circuit_breaker::Config::new().validate()?))
//!     .layer(Timeout::new(Duration::from_secs(1)))
//!     .classify(HttpStatus);
//!
//! // Any client that is a service: hyper's, here one that is always overloaded.
//! let client = tower::service_fn(async |_: Request<&str>| {
//!     Response::builder().status(StatusCode::SERVICE_UNAVAILABLE).header("retry-after", "2").body(())
//! });
//! let client = ServiceBuilder::new()
//!     .layer(PipelineLayer::with_requests(Arc::new(pipeline), HttpRequests))
//!     .service(client);
//!
//! let begun = tokio::time::Instant::now();
//! assert_eq!(client.clone().oneshot(Request::post("/").body("not idempotent: sent once")?).await?.status(), 503);
//! assert!(begun.elapsed() < Duration::from_secs(1));
//! assert_eq!(client.oneshot(Request::put("/").body("sent three times, two seconds apart")?).await?.status(), 503);
//! assert!(begun.elapsed() >= Duration::from_secs(4));
//! # Ok(())
//! # }
//! ```
//!
//! | for | there is |
//! | --- | --- |
//! | what an answer counts as | [`HttpStatus`], [`GrpcHeaders`] |
//! | when the server wants us back | [`retry_after`], [`Pushback`], which these heed |
//! | which requests may be sent again | [`HttpRequests`], and [`Repeat`] for one request; [`Buffered`] bodies |
//! | a server's answer to what it rejects | [`ShedLayer`] |
//!
//! # Defaults
//!
//! | what | default | otherwise |
//! | --- | --- | --- |
//! | what an answer counts as | by the table of [`HttpStatus`] | a closure around it |
//! | sent again | what is idempotent and has its whole body | [`Repeat`] for one request, a closure instead of [`HttpRequests`] for all |
//! | the longest Retry-After that is heeded | [`LONGEST_RETRY_AFTER`] (an hour) | a closure around the classifier |
//! | how much of a body is kept to be sent again | none: say it to [`Buffered::read`], in bytes | |
//! | status of what is shed | 429 of a rate limiter, 503 of all others, 504 of a timeout | [`ShedLayer::with_timed_out`] |
//! | Retry-After of what is shed | seconds, where the policy knows | [`ShedLayer::with_retry_after`] |
//!
//! # When not to use it
//! Around a client that retries by itself: the attempts multiply. With a client that has few connections for a host: what a retry may have to
//! return, the last answer with its unread body, keeps its connection until the next attempt's is there. For the bodies of responses: an answer counts when its headers are there,
//! and a body that breaks off later is for its reader to notice.
//!
//! # Source
//! RFC 9110, HTTP semantics; each item names the section.

mod body;
mod grpc;
mod requests;
mod retry_after;
mod shed;
mod status;

pub use body::{Buffered, Replay};
pub use grpc::{GrpcHeaders, Pushback, grpc_verdict};
pub use requests::{HttpRequests, Repeat};
pub use retry_after::retry_after;
pub use shed::{Shed, ShedFuture, ShedLayer, status};
pub use status::{HttpStatus, LONGEST_RETRY_AFTER};
