//! A rejection as an answer over HTTP.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;

use failsoft_core::{Cause, Clock as _, Failure, Instant, Policy, Rejected};
use http::header::{HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use tower_layer::Layer;
use tower_service::Service;

use crate::Tokio;

/// The status of an answer to a call that a policy rejected: 429 where the caller sends too much, 503 for everything else.
#[must_use]
pub const fn status(rejected: &Rejected) -> StatusCode {
    match rejected.policy() {
        Policy::RateLimiter => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Answers, instead of failing, where a policy within rejected the request or timed it out: load shedding as HTTP has it.
///
/// | what ended the call | status | Retry-After |
/// | --- | --- | --- |
/// | a rate limiter | 429 Too Many Requests | whole seconds until the request would pass, at least 1 |
/// | any other policy | 503 Service Unavailable | whole seconds until then where it is known (the breaker knows), else the [default](Self::with_retry_after) if one is set |
/// | a timeout | 504 Gateway Timeout | none |
/// | the service's own error | stays an error | |
///
/// The body is the response's default: empty. It lies around a [`PipelineLayer`](crate::PipelineLayer), and where the service within can't fail,
/// as an axum router can't, neither can the whole:
///
/// ```
/// use core::convert::Infallible;
/// use core::time::Duration;
/// use failsoft_tokio::http::ShedLayer;
/// use failsoft_tokio::tower::RateLimiterLayer;
/// use failsoft_tokio::{RateLimiter, rate_limiter::Config, valid};
/// use http::{Request, Response, header::RETRY_AFTER};
/// use tower::{ServiceBuilder, ServiceExt};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Infallible> {
/// let limiter = RateLimiter::new(valid!(Config::new(1, Duration::from_secs(60)).validate()));
/// let service = ServiceBuilder::new()
///     .layer(ShedLayer::new())
///     .layer(RateLimiterLayer::of(limiter))
///     .service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(String::from("hello"))));
///
/// assert_eq!(service.clone().oneshot(Request::new(())).await?.status(), 200);
/// let shed = service.oneshot(Request::new(())).await?;
/// assert_eq!((shed.status().as_u16(), shed.headers()[RETRY_AFTER].as_bytes()), (429, &b"60"[..]));
/// # Ok(())
/// # }
/// ```
///
/// # Source
/// RFC 9110, sections 15.6.4, 15.6.5 and 10.2.3; RFC 6585, section 4.
#[derive(Clone, Copy, Debug)]
pub struct ShedLayer {
    timed_out: StatusCode,
    retry_after: Option<Duration>,
}

impl Default for ShedLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl ShedLayer {
    /// Answers as in the table.
    #[must_use]
    pub const fn new() -> Self {
        Self { timed_out: StatusCode::GATEWAY_TIMEOUT, retry_after: None }
    }

    /// Answers a timeout with another status than 504.
    #[must_use]
    pub const fn with_timed_out(mut self, status: StatusCode) -> Self {
        self.timed_out = status;
        self
    }

    /// Asks to come back after this long where the policy that rejected can't tell: a full bulkhead, say. In whole seconds, at least 1.
    #[must_use]
    pub const fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The answer to a call that ended with this failure, at this time.
    ///
    /// # Errors
    /// The service's own error, which is none of ours.
    pub fn answer<B: Default, E>(&self, failure: Failure<E>, now: Instant) -> Result<Response<B>, E> {
        let mut response = Response::new(B::default());
        match failure.cause {
            Cause::Rejected(rejected) => {
                *response.status_mut() = status(&rejected);
                let until = rejected.retry_at().map(|at| at.saturating_duration_since(now));
                response.headers_mut().extend(until.or(self.retry_after).map(|wait| (RETRY_AFTER, seconds(wait))));
                Ok(response)
            }
            Cause::TimedOut(_) => {
                *response.status_mut() = self.timed_out;
                Ok(response)
            }
            Cause::Inner(error) => Err(error),
            // There are no others yet.
            _ => {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                Ok(response)
            }
        }
    }
}

/// In whole seconds, none of which is too early: "0" would be an invitation to come back at once.
fn seconds(wait: Duration) -> HeaderValue {
    let begun = u64::from(wait.subsec_nanos() > 0);
    HeaderValue::from(wait.as_secs().saturating_add(begun).max(1))
}

impl<S> Layer<S> for ShedLayer {
    type Service = Shed<S>;

    fn layer(&self, inner: S) -> Shed<S> {
        Shed { inner, answers: *self }
    }
}

/// A service that answers where a policy rejected; see [`ShedLayer`].
#[derive(Clone, Copy, Debug)]
pub struct Shed<S> {
    inner: S,
    answers: ShedLayer,
}

impl<S, Req, B, E> Service<Req> for Shed<S>
where
    S: Service<Req, Response = Response<B>, Error = Failure<E>>,
    B: Default,
{
    type Response = Response<B>;
    type Error = E;
    type Future = ShedFuture<S::Future>;

    /// A policy never rejects here, but in the call: what comes is the service's own error.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        match ready!(self.inner.poll_ready(cx)) {
            Err(Failure { cause: Cause::Inner(error), .. }) => Poll::Ready(Err(error)),
            // One of a service between: it is asked by a call, and answers there.
            Ok(()) | Err(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: Req) -> Self::Future {
        ShedFuture { call: self.inner.call(request), answers: self.answers }
    }
}

pin_project_lite::pin_project! {
    /// The response of a [`Shed`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ShedFuture<F> {
        #[pin]
        call: F,
        answers: ShedLayer,
    }
}

impl<F, B, E> Future for ShedFuture<F>
where
    F: Future<Output = Result<Response<B>, Failure<E>>>,
    B: Default,
{
    type Output = Result<Response<B>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        Poll::Ready(ready!(this.call.poll(cx)).or_else(|failure| this.answers.answer(failure, Tokio.now())))
    }
}
