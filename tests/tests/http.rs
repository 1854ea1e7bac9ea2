//! HTTP with real servers and clients on loopback: what is sent again, when, and how a rejection is answered.

#![expect(clippy::unwrap_used, reason = "a test may end with a panic")]

#[path = "http/grpc.rs"]
mod grpc;
#[path = "http/server.rs"]
mod server;

use core::convert::Infallible;
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::routing::get;
use failsoft_tokio::backoff::Backoff;
use failsoft_tokio::http::{Buffered, HttpRequests, HttpStatus, Repeat, ShedLayer};
use failsoft_tokio::pipeline::{Bare, Stack};
use failsoft_tokio::registry::{self, PerKey, Registry};
use failsoft_tokio::reqwest::{PipelineMiddleware, failure_of};
use failsoft_tokio::tower::{RateLimiterLayer, TimeoutLayer};
use failsoft_tokio::{
    Bulkhead, CircuitBreaker, Pipeline, PipelineLayer, Policy, RateLimiter, RetryPolicy, Stop, Timeout, Tokio,
    bulkhead, circuit_breaker, rate_limiter, retry, valid,
};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use server::{Answer, Upstream};
use tower::{ServiceBuilder, ServiceExt};

const RETRY: RetryPolicy = RetryPolicy::new(valid!(
    retry::Config::new().with_backoff(Backoff::constant(Duration::from_millis(1))).with_max_attempts(3).validate()
));

type Retried = Pipeline<Tokio, Stack<Bare, RetryPolicy>, HttpStatus>;

fn retried() -> Arc<Retried> {
    Arc::new(Pipeline::new(Tokio).layer(RETRY).classify(HttpStatus))
}

fn plain() -> reqwest::Client {
    reqwest::Client::builder().retry(reqwest::retry::never()).no_proxy().build().unwrap()
}

fn client() -> ClientWithMiddleware {
    ClientBuilder::new(plain()).with(PipelineMiddleware::new(retried())).build()
}

#[tokio::test]
async fn a_server_that_asks_to_come_back_is_asked_again_then_and_no_sooner() {
    let upstream = Upstream::new([Answer::after(503, "1"), Answer::status(502), Answer::status(200)]).await;
    let begun = Instant::now();
    let response = client().get(upstream.url()).send().await.unwrap();
    assert_eq!((response.status(), upstream.seen().len()), (StatusCode::OK, 3));
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_date_to_come_back_at_is_as_good_as_a_number() {
    let date = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(1000));
    let upstream = Upstream::new([Answer::after(429, &date)]).await;
    let retry = retry::Config::new().with_total_time(Duration::from_secs(900)).validate().unwrap();
    let pipeline = Arc::new(Pipeline::new(Tokio).layer(RetryPolicy::new(retry)).classify(HttpStatus));
    let client = ClientBuilder::new(plain()).with(PipelineMiddleware::new(pipeline)).build();
    let begun = Instant::now();
    // Later than the time there is: the answer that there is, at once.
    let response = client.get(upstream.url()).send().await.unwrap();
    assert_eq!((response.status(), upstream.seen().len()), (StatusCode::TOO_MANY_REQUESTS, 1));
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn what_is_not_idempotent_is_sent_once_unless_told_otherwise() {
    let answers = || [Answer::status(503), Answer::Cut, Answer::status(200)];
    for (method, repeat, sent) in [
        (Method::GET, None, 3),
        (Method::PUT, None, 3),
        (Method::POST, None, 1),
        (Method::PATCH, None, 1),
        (Method::POST, Some(Repeat::Allowed), 3),
        (Method::GET, Some(Repeat::Forbidden), 1),
    ] {
        let upstream = Upstream::new(answers()).await;
        let mut request = client().request(method.clone(), upstream.url()).body("twelve euros");
        if let Some(repeat) = repeat {
            request = request.with_extension(repeat);
        }
        let status = request.send().await.unwrap().status();
        let seen = upstream.seen();
        assert_eq!((status == StatusCode::OK, seen.len()), (sent == 3, sent), "{method} {repeat:?}");
        assert!(
            seen.iter().all(|request| request == &(method.clone(), "twelve euros".into())),
            "the whole of it each time"
        );
    }
}

#[tokio::test]
async fn a_connection_that_breaks_off_is_a_failure_that_another_attempt_mends_where_one_may_be_made() {
    for (method, sent) in [(Method::GET, 2), (Method::POST, 1)] {
        let upstream = Upstream::new([Answer::Cut, Answer::status(200)]).await;
        let ended = client().request(method, upstream.url()).send().await;
        assert_eq!((ended.is_ok(), upstream.seen().len()), (sent == 2, sent));
    }
}

#[tokio::test]
async fn a_body_that_cannot_be_sent_again_is_sent_once() {
    let upstream = Upstream::new([Answer::status(503), Answer::status(200)]).await;
    let body = reqwest::Body::wrap(Buffered::read(Full::<bytes::Bytes>::from("a stream"), 1).await.unwrap());
    let response = client().put(upstream.url()).body(body).send().await.unwrap();
    assert_eq!(
        (response.status(), upstream.seen()),
        (StatusCode::SERVICE_UNAVAILABLE, vec![(Method::PUT, "a stream".into())])
    );
}

#[tokio::test]
async fn a_refused_connection_opens_the_breaker_and_the_error_says_so() {
    let breaker = CircuitBreaker::new(valid!(
        circuit_breaker::Config::new().with_trip(valid!(circuit_breaker::ConsecutiveFailures::new(3))).validate()
    ));
    let pipeline = Arc::new(Pipeline::new(Tokio).layer(breaker).classify(HttpStatus));
    let client = ClientBuilder::new(plain()).with(PipelineMiddleware::new(pipeline)).build();
    let url = Upstream::new([]).await.gone().await;
    let mut ends = Vec::new();
    for _ in 0..5 {
        let error = client.get(&url).send().await.unwrap_err();
        ends.push((
            error.is_connect(),
            failure_of(&error).and_then(|failure| failure.rejected()).map(|it| it.policy()),
        ));
    }
    let (refused, rejected) = ((true, None), (false, Some(Policy::CircuitBreaker)));
    assert_eq!(ends, [refused, refused, refused, rejected, rejected]);
}

#[tokio::test]
async fn reqwest_is_a_service_within_a_pipeline_too() {
    let upstream = Upstream::new([Answer::status(503), Answer::status(503), Answer::status(503), Answer::Cut]).await;
    let service = ServiceBuilder::new().layer(PipelineLayer::with_requests(retried(), HttpRequests)).service(plain());
    let request = |method| reqwest::Request::new(method, upstream.url().parse().unwrap());
    // The last answer is the caller's, and an error says how it came about.
    assert_eq!(service.clone().oneshot(request(Method::GET)).await.unwrap().status(), 503);
    let failure = service.oneshot(request(Method::POST)).await.unwrap_err();
    assert_eq!((failure.attempts, failure.stop, upstream.seen().len()), (1, Some(Stop::NotRetryable), 4));
}

#[tokio::test]
async fn hypers_client_is_a_service_within_a_pipeline() {
    let upstream = Upstream::new([Answer::status(503), Answer::Cut, Answer::status(200)]).await;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<bytes::Bytes>>();
    let service = ServiceBuilder::new().layer(PipelineLayer::with_requests(retried(), HttpRequests)).service(client);
    let request = Request::put(upstream.url()).body(Full::from("twelve euros")).unwrap();
    assert_eq!((service.oneshot(request).await.unwrap().status(), upstream.seen().len()), (StatusCode::OK, 3));
}

/// Serves with axum, and tells where.
async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// Status and Retry-After.
async fn get_of(url: &str) -> (u16, Option<String>) {
    let response = plain().get(url).send().await.unwrap();
    let wait = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    (response.status().as_u16(), wait)
}

#[tokio::test]
async fn an_axum_server_answers_what_it_sheds() {
    let limiter = RateLimiter::new(valid!(rate_limiter::Config::new(1, Duration::from_secs(30)).validate()));
    let limited = Router::new()
        .route("/", get(async || "hello"))
        .layer(ServiceBuilder::new().layer(ShedLayer::new()).layer(RateLimiterLayer::of(limiter)));
    let url = serve(limited).await;
    assert_eq!(get_of(&url).await, (200, None));
    assert_eq!(get_of(&url).await, (429, Some("30".into())));

    static FULL: Bulkhead = Bulkhead::new(valid!(bulkhead::Config::new(1).validate()));
    let crowded = Router::new().route("/", get(async || "hello")).layer(
        ServiceBuilder::new()
            .layer(ShedLayer::new().with_retry_after(Duration::from_millis(1500)))
            .layer(PipelineLayer::once(Arc::new(Pipeline::new(Tokio).layer(&FULL)))),
    );
    let url = serve(crowded).await;
    let permit = FULL.try_acquire().unwrap();
    assert_eq!(get_of(&url).await, (503, Some("2".into())));
    drop(permit);
    assert_eq!(get_of(&url).await, (200, None));

    let slow = Router::new()
        .route("/", get(async || core::future::pending::<Result<(), Infallible>>().await.map_or((), |()| ())))
        .layer(
            ServiceBuilder::new()
                .layer(ShedLayer::new())
                .layer(TimeoutLayer::of(Timeout::new(Duration::from_millis(20)))),
        );
    assert_eq!(get_of(&serve(slow).await).await, (504, None));
}

#[tokio::test]
async fn each_host_has_a_breaker_of_its_own() {
    let make = |_: Option<&Box<str>>| {
        let config = circuit_breaker::Config::new().with_trip(valid!(circuit_breaker::ConsecutiveFailures::new(2)));
        Pipeline::new(Tokio).layer(CircuitBreaker::new(config.validate().unwrap())).classify(HttpStatus)
    };
    let hosts = Arc::new(Registry::new(valid!(registry::Config::new(100)), make));
    let per_host = PerKey::new(hosts.clone(), |request: &reqwest::Request| request.url().authority());
    let client = ClientBuilder::new(plain()).with(PipelineMiddleware::new(per_host.clone())).build();
    let service = ServiceBuilder::new().layer(PipelineLayer::with_requests(per_host, HttpRequests)).service(plain());
    let down = Upstream::new((0..9).map(|_| Answer::status(503))).await;
    let up = Upstream::new([]).await;
    for _ in 0..2 {
        assert_eq!(client.get(down.url()).send().await.unwrap().status(), 503);
    }
    // Open for the one, by the middleware and by the service alike, and as ever for the other.
    let error = client.get(down.url()).send().await.unwrap_err();
    assert!(failure_of(&error).is_some_and(failsoft_tokio::Failure::is_rejected), "{error}");
    let request = |url: &str| reqwest::Request::new(Method::GET, url.parse().unwrap());
    assert!(service.clone().oneshot(request(down.url())).await.unwrap_err().is_rejected());
    assert_eq!(client.get(up.url()).send().await.unwrap().status(), 200);
    assert_eq!(service.oneshot(request(up.url())).await.unwrap().status(), 200);
    assert_eq!((down.seen().len(), up.seen().len(), hosts.snapshot().len), (2, 2, 2));
}
