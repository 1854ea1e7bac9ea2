//! Pipelines around tower's services: who is called, ready or not, and what is left when a call is rejected or dropped.

#![cfg(feature = "tower")]
#![expect(clippy::unwrap_used, reason = "a test may end with a panic")]

use core::fmt;
use core::future::{Future, pending, poll_fn};
use core::marker::PhantomData;
use core::mem;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker, ready};
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::{Arc, LazyLock, Mutex};

use failsoft_tokio::circuit_breaker::ConsecutiveFailures;
use failsoft_tokio::fallback::Fallback;
use failsoft_tokio::hedge::FixedDelay;
use failsoft_tokio::pipeline::{Bare, Stack, Standard};
use failsoft_tokio::tower::{
    AdaptiveLimitLayer, AdaptiveRateLayer, BulkheadLayer, CircuitBreakerLayer, HedgeLayer, PolicyLayer,
    RateLimiterLayer, RetryLayer, ThrottleLayer, TimeoutLayer,
};
use failsoft_tokio::{
    Backoff, Bulkhead, Cause, CircuitBreaker, Failure, Hedge, Idempotent, Jitter, Pipeline, PipelineLayer, Reason,
    RetryPolicy, Stop, Timeout, Tokio, bulkhead, circuit_breaker, retry, valid,
};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep};
use tower::limit::{ConcurrencyLimit, GlobalConcurrencyLimitLayer};
use tower::timeout::error::Elapsed;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The service's own error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Down(&'static str);

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for Down {}

type Answer = Result<&'static str, Down>;

/// How a service behaves, and what it has seen.
struct Plan {
    start: Instant,
    /// What each call comes to, in turn; when there is none left, the call hangs.
    answers: Mutex<VecDeque<Answer>>,
    takes: Duration,
    /// How long a clone takes to get ready.
    warm_up: Duration,
    /// Whether clones fail instead.
    breaks: bool,
    calls: Mutex<Vec<(String, Duration)>>,
}

impl Plan {
    fn new(answers: &[Answer]) -> Self {
        Self {
            start: Instant::now(),
            answers: Mutex::new(answers.iter().copied().collect()),
            takes: Duration::ZERO,
            warm_up: Duration::ZERO,
            breaks: false,
            calls: Mutex::default(),
        }
    }

    /// The requests, each with the milliseconds since the start.
    fn calls(&self) -> Vec<(String, u128)> {
        self.calls.lock().unwrap().iter().map(|(request, at)| (request.clone(), at.as_millis())).collect()
    }
}

/// A service that insists on being called when it is ready, and only then. As with tower's own, a clone is not.
struct Upstream<Req = &'static str> {
    plan: Arc<Plan>,
    warm_up: Option<Pin<Box<Sleep>>>,
    is_clone: bool,
    is_ready: bool,
    requests: PhantomData<fn(Req)>,
}

impl<Req: AsRef<str>> Upstream<Req> {
    fn new(plan: Plan) -> (Arc<Plan>, Self) {
        let plan = Arc::new(plan);
        (plan.clone(), Self { plan, warm_up: None, is_clone: false, is_ready: false, requests: PhantomData })
    }

    /// With a limit of tower's around it, which reserves a permit as soon as it is ready.
    fn limited(plan: Plan, permits: usize) -> (Arc<Plan>, Arc<Semaphore>, ConcurrencyLimit<Self>) {
        let ((plan, upstream), semaphore) = (Self::new(plan), Arc::new(Semaphore::new(permits)));
        (plan, semaphore.clone(), GlobalConcurrencyLimitLayer::with_semaphore(semaphore).layer(upstream))
    }
}

impl<Req> Clone for Upstream<Req> {
    fn clone(&self) -> Self {
        Self { plan: self.plan.clone(), warm_up: None, is_clone: true, is_ready: false, requests: PhantomData }
    }
}

impl<Req: AsRef<str>> Service<Req> for Upstream<Req> {
    type Response = &'static str;
    type Error = Down;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Down>> {
        if self.is_clone && !self.is_ready {
            if self.plan.breaks {
                return Poll::Ready(Err(Down("broken")));
            }
            let plan = &self.plan;
            ready!(self.warm_up.get_or_insert_with(|| Box::pin(sleep(plan.warm_up))).as_mut().poll(cx));
        }
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        assert!(mem::take(&mut self.is_ready), "it was not ready");
        let plan = self.plan.clone();
        plan.calls.lock().unwrap().push((request.as_ref().to_owned(), plan.start.elapsed()));
        let answer = plan.answers.lock().unwrap().pop_front();
        Box::pin(async move {
            sleep(plan.takes).await;
            match answer {
                Some(answer) => answer,
                None => pending().await,
            }
        })
    }
}

fn poll_ready<S: Service<&'static str>>(service: &mut S) -> Poll<Result<(), S::Error>> {
    service.poll_ready(&mut Context::from_waker(Waker::noop()))
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

type BreakerAlone = Pipeline<Tokio, Stack<Bare, CircuitBreaker>>;

/// A breaker that opens with the first failure.
fn breaker() -> CircuitBreaker {
    const ONE: ConsecutiveFailures = valid!(ConsecutiveFailures::new(1));
    CircuitBreaker::new(valid!(circuit_breaker::Config::new().with_trip(ONE).with_open_for(ms(50)).validate()))
}

fn retry() -> RetryPolicy {
    RetryPolicy::new(valid!(
        retry::Config::new().with_backoff(Backoff::constant(ms(100)).with_jitter(Jitter::None)).validate()
    ))
}

#[tokio::test(start_paused = true)]
async fn back_pressure_passes_through_and_the_service_that_was_ready_is_called() {
    let (plan, semaphore, limited) = Upstream::limited(Plan { takes: ms(5), ..Plan::new(&[Ok("one")]) }, 1);
    let mut service = PipelineLayer::new(Arc::new(Pipeline::new(Tokio).layer(breaker()))).layer(limited);

    let busy = semaphore.clone().acquire_owned().await.unwrap();
    assert!(poll_ready(&mut service).is_pending());
    drop(busy);
    assert_eq!(poll_ready(&mut service), Poll::Ready(Ok(())));
    assert_eq!(semaphore.available_permits(), 0, "it is reserved");

    // Were it a clone that is called, it would have no permit, and both tower's limit and the service would panic.
    let response = service.call("a");
    assert!(poll_ready(&mut service).is_pending(), "the clone that is left has reserved nothing");
    assert_eq!(response.await, Ok("one"));
    assert_eq!(plan.calls(), [("a".to_owned(), 0)]);
}

#[tokio::test(start_paused = true)]
async fn nothing_starts_before_the_response_is_polled() {
    let bulkhead = Bulkhead::new(valid!(bulkhead::Config::new(2).validate()));
    let pipeline = Arc::new(Pipeline::new(Tokio).layer(bulkhead));
    let (plan, semaphore, limited) = Upstream::limited(Plan::new(&[]), 1);
    let mut service = PipelineLayer::new(pipeline).layer(limited);
    let response = service.ready().await.unwrap().call("a");
    assert_eq!((plan.calls().len(), semaphore.available_permits()), (0, 0));
    drop(response);
    assert_eq!((plan.calls().len(), semaphore.available_permits()), (0, 1), "its reservation is free");
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_never_reaches_the_service_and_leaks_no_reservation() {
    let pipeline = Arc::new(Pipeline::new(Tokio).layer(breaker()));
    let (plan, semaphore, limited) = Upstream::limited(Plan::new(&[Err(Down("down")), Ok("up")]), 1);
    let mut service = PipelineLayer::new(pipeline).layer(limited);
    assert_eq!(service.ready().await.unwrap().call("a").await, Err(Failure::new(Cause::Inner(Down("down")))));
    for _ in 0..10 {
        assert!(service.ready().await.unwrap().call("b").await.unwrap_err().is_rejected());
        assert_eq!(semaphore.available_permits(), 1);
    }
    assert_eq!(plan.calls(), [("a".to_owned(), 0)]);
    sleep(ms(50)).await;
    assert_eq!(service.ready().await.unwrap().call("c").await, Ok("up"), "the probe");
    assert_eq!(plan.calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_retry_sees_the_same_request_and_a_clone_is_ready_before_it_is_called() {
    let answers = [Err(Down("one")), Err(Down("two")), Ok("three")];
    // With a single permit the attempts would wait for each other, if one of them kept it.
    let (plan, semaphore, limited) = Upstream::limited(Plan { warm_up: ms(7), ..Plan::new(&answers) }, 1);
    let service = PipelineLayer::new(Arc::new(Pipeline::new(Tokio).layer(retry()))).layer(limited);
    assert_eq!(service.oneshot("same").await, Ok("three"));
    assert_eq!(plan.calls(), [0, 107, 214].map(|at| ("same".to_owned(), at)));
    assert_eq!(semaphore.available_permits(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_first_attempt_that_is_let_through_has_the_reservation() {
    let retry =
        retry::Config::new().with_rejections().with_backoff(Backoff::constant(ms(100)).with_jitter(Jitter::None));
    let pipeline = Pipeline::new(Tokio).layer(RetryPolicy::new(retry.validate().unwrap())).layer(breaker());
    let (plan, semaphore, limited) = Upstream::limited(Plan::new(&[Err(Down("down")), Ok("up")]), 1);
    let mut service = PipelineLayer::new(Arc::new(pipeline)).layer(limited);
    let response = service.ready().await.unwrap().call("a");
    assert_eq!(response.await, Ok("up"), "the breaker is open between the attempts, but not for as long");
    assert_eq!(plan.calls().len(), 2);

    let pipeline = Pipeline::new(Tokio).layer(RetryPolicy::new(retry.validate().unwrap())).layer(breaker());
    let pipeline = Arc::new(pipeline);
    // What opens it is a call elsewhere.
    let elsewhere = PipelineLayer::new(pipeline.clone()).layer(Upstream::new(Plan::new(&[Err(Down("down"))])).1);
    let (plan, semaphore_2, limited) = Upstream::limited(Plan::new(&[Ok("up")]), 1);
    let mut service = PipelineLayer::new(pipeline).layer(limited);
    let mut failing = pin!(elsewhere.oneshot("b"));
    assert!(poll(failing.as_mut()).is_pending(), "it has failed, and waits for its retry");
    assert_eq!(service.ready().await.unwrap().call("c").await, Ok("up"), "a clone would wait for the permit for ever");
    assert_eq!(plan.calls(), [("c".to_owned(), 100)], "not the rejected attempt");
    assert_eq!((semaphore.available_permits(), semaphore_2.available_permits()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_response_gives_everything_back() {
    let bulkhead = Bulkhead::new(valid!(bulkhead::Config::new(2).validate()));
    let bulkhead: &'static Bulkhead = Box::leak(Box::new(bulkhead));
    let pipeline = Arc::new(Pipeline::new(Tokio).layer(retry()).layer(bulkhead));
    let (plan, semaphore, limited) = Upstream::limited(Plan { warm_up: ms(7), ..Plan::new(&[Err(Down("one"))]) }, 1);
    let mut service = PipelineLayer::new(pipeline).layer(limited);
    let state = || (plan.calls().len(), bulkhead.snapshot().in_use, semaphore.available_permits());

    // At each of these it is dropped: before a retry, in a clone that is not ready yet, in the second call.
    for (at, calls, in_use, available) in [(50, 1, 0, 1), (103, 1, 1, 0), (150, 2, 1, 0)] {
        plan.calls.lock().unwrap().clear();
        *plan.answers.lock().unwrap() = [Err(Down("one"))].into();
        {
            let response = service.ready().await.unwrap().call("a");
            let mut response = pin!(tokio::time::timeout(ms(at), response));
            assert!(poll(response.as_mut()).is_pending());
            let noted = poll_fn(|cx| {
                let before = state();
                response.as_mut().poll(cx).map(|ended| ended.is_err().then_some(before))
            });
            let noted = noted.await.unwrap();
            assert_eq!(noted, (calls, in_use, available), "at {at} ms");
        }
        assert_eq!(state(), (calls, 0, 1), "after {at} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_a_clone_is_a_part_of_its_attempt() {
    let plan = Plan { warm_up: Duration::from_secs(3_600), ..Plan::new(&[Err(Down("one"))]) };
    let (plan, upstream) = Upstream::new(plan);
    let pipeline = Pipeline::new(Tokio).layer(retry()).layer(Timeout::new(ms(30)));
    let service = PipelineLayer::new(Arc::new(pipeline)).layer(upstream);
    let failure = service.oneshot("a").await.unwrap_err();
    assert!(failure.is_timed_out());
    assert_eq!((failure.attempts, failure.stop), (3, Some(Stop::Attempts)));
    assert_eq!(plan.start.elapsed(), ms(260));
    assert_eq!(plan.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_fails_before_it_is_ready_is_the_failures_inner_error() {
    let (plan, upstream) = Upstream::new(Plan { breaks: true, ..Plan::new(&[]) });
    let pipeline = Arc::new(Pipeline::new(Tokio).layer(retry()));
    let mut service = PipelineLayer::new(pipeline).layer(upstream.clone());
    assert_eq!(poll_ready(&mut service), Poll::Ready(Err(Failure::new(Cause::Inner(Down("broken"))))));
    assert_eq!(plan.calls().len(), 0);

    // What fails then is the clones for the further attempts.
    let (plan, upstream) = Upstream::new(Plan { breaks: true, ..Plan::new(&[Err(Down("one"))]) });
    let pipeline = Arc::new(Pipeline::new(Tokio).layer(retry()));
    let failure = PipelineLayer::new(pipeline).layer(upstream).oneshot("a").await.unwrap_err();
    assert_eq!((failure.inner(), failure.attempts), (Some(&Down("broken")), 3));
    assert_eq!(plan.calls().len(), 1);
}

static SHARED: LazyLock<BreakerAlone> = LazyLock::new(|| Pipeline::new(Tokio).layer(breaker()));

#[tokio::test(start_paused = true)]
async fn the_services_of_a_layer_share_its_pipeline() {
    async fn check<H>(layer: PipelineLayer<H>)
    where
        H: core::ops::Deref<Target = BreakerAlone> + Clone,
    {
        let (failing, healthy) = (Upstream::new(Plan::new(&[Err(Down("down"))])), Upstream::new(Plan::new(&[])));
        let (one, other) = (layer.layer(failing.1), layer.clone().layer(healthy.1));
        assert!(one.clone().oneshot("a").await.is_err());
        assert!(other.oneshot("b").await.unwrap_err().is_rejected(), "by the same breaker");
        assert!(one.oneshot("c").await.unwrap_err().is_rejected());
        assert_eq!((failing.0.calls().len(), healthy.0.calls().len()), (1, 0));
    }
    check(PipelineLayer::new(Arc::new(Pipeline::new(Tokio).layer(breaker())))).await;
    let pipeline: &'static BreakerAlone = &SHARED;
    check(PipelineLayer::new(pipeline)).await;
}

/// A request of which there is only one.
struct Unique(Box<str>);

impl AsRef<str> for Unique {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[tokio::test(start_paused = true)]
async fn once_hands_over_the_request_itself() {
    let (plan, upstream) = Upstream::new(Plan::new(&[Ok("one"), Err(Down("two"))]));
    let bulkhead = Bulkhead::new(valid!(bulkhead::Config::new(1).validate()));
    let pipeline = Pipeline::new(Tokio).layer(bulkhead).layer(breaker()).layer(Timeout::new(ms(30)));
    let mut service = PipelineLayer::once(Arc::new(pipeline)).layer(upstream);
    let mut send = async |request: &str| service.ready().await.unwrap().call(Unique(request.into())).await;
    assert_eq!(send("a").await, Ok("one"));
    assert_eq!(send("b").await.unwrap_err().into_inner(), Some(Down("two")));
    assert!(send("c").await.unwrap_err().is_rejected());
    assert_eq!(plan.calls(), [("a".to_owned(), 0), ("b".to_owned(), 0)]);
}

#[tokio::test(start_paused = true)]
async fn once_polled_after_its_end_there_is_no_second_call() {
    let (plan, upstream) = Upstream::new(Plan::new(&[Ok("one"), Ok("two")]));
    let mut service = PipelineLayer::once(Arc::new(Pipeline::new(Tokio).layer(breaker()))).layer(upstream);
    let mut response = pin!(service.ready().await.unwrap().call(Unique("a".into())));
    assert_eq!(response.as_mut().await, Ok("one"));
    let again = poll(response.as_mut()).map(|ended| ended.map_err(|failure| failure.rejected().map(|it| it.reason())));
    assert_eq!(again, Poll::Ready(Err(Some(Reason::NotRepeatable))));
    assert_eq!(plan.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_is_a_clone_of_its_own() {
    let plan = Plan { takes: ms(20), warm_up: ms(3), ..Plan::new(&[]) };
    *plan.answers.lock().unwrap() = VecDeque::new();
    let (plan, semaphore, limited) = Upstream::limited(plan, 2);
    let hedge: Hedge = Hedge::new(FixedDelay::new(ms(50)), Idempotent);
    let mut service = PipelineLayer::new(Arc::new(Pipeline::new(Tokio).layer(hedge))).layer(limited);
    let mut response = pin!(service.ready().await.unwrap().call("a"));
    assert!(poll(response.as_mut()).is_pending(), "the first hangs");
    plan.answers.lock().unwrap().push_back(Ok("hedge"));
    assert_eq!(response.await, Ok("hedge"));
    assert_eq!(plan.calls(), [("a".to_owned(), 0), ("a".to_owned(), 53)]);
    assert_eq!((plan.start.elapsed(), semaphore.available_permits()), (ms(73), 2), "the first is given up");
}

#[tokio::test(start_paused = true)]
async fn it_stands_among_other_layers() {
    let answers = [Err(Down("one")), Ok("two"), Err(Down("three")), Err(Down("four")), Err(Down("five"))];
    let (plan, upstream) = Upstream::new(Plan::new(&answers));
    let breaker: CircuitBreaker = CircuitBreaker::new(valid!(circuit_breaker::Config::new().validate()));
    let pipeline = Standard::new().with_retry(retry()).with_breaker(breaker).on(Tokio);
    let mut service = ServiceBuilder::new()
        .map_request(|name: &str| format!("hello, {name}"))
        .timeout(Duration::from_secs(5))
        .layer(PipelineLayer::new(Arc::new(pipeline)))
        .concurrency_limit(1)
        .service(upstream);
    assert_eq!(service.ready().await.unwrap().call("tower").await.unwrap(), "two");
    assert_eq!(plan.calls(), [0, 100].map(|at| ("hello, tower".to_owned(), at)));
    // Some of tower's layers box the errors of what they are around.
    let error = service.ready().await.unwrap().call("tower").await.unwrap_err();
    let expected = Failure { cause: Cause::Inner(Down("five")), attempts: 3, stop: Some(Stop::Attempts) };
    assert_eq!(error.downcast_ref(), Some(&expected));
    // This call hangs, and one of them ends it.
    assert!(service.ready().await.unwrap().call("tower").await.unwrap_err().is::<Elapsed>());
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_is_around_layers_that_box_their_errors() {
    let (plan, upstream) = Upstream::new(Plan::new(&[]));
    let service = ServiceBuilder::new()
        .timeout(Duration::from_secs(5))
        // A boxed error is no `Error`, and so neither is a failure with one in it: the outer timeout wants something that is.
        .map_err(|failure: Failure<BoxError>| failure.into_inner().unwrap_or_else(|| Down("rejected").into()))
        .layer(PipelineLayer::new(Arc::new(Pipeline::new(Tokio).layer(retry()))))
        .timeout(ms(30))
        .service(upstream);
    assert!(service.oneshot("a").await.unwrap_err().is::<Elapsed>());
    assert_eq!(plan.calls(), [0, 130, 260].map(|at| ("a".to_owned(), at)), "the inner timeout's, which is retried");
}

#[tokio::test(start_paused = true)]
async fn a_fallback_answers_for_a_service_that_fails() {
    let (_, upstream) = Upstream::new(Plan::new(&[Err(Down("down"))]));
    let fallback = Fallback::new(|failure: Failure<Down>| {
        failure.into_inner().map(|Down(text)| text).ok_or(Failure::new(Cause::Inner(Down("?"))))
    });
    let pipeline = Pipeline::new(Tokio).layer(fallback).layer(breaker());
    assert_eq!(PipelineLayer::new(Arc::new(pipeline)).layer(upstream).oneshot("a").await, Ok("down"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_and_responses_go_from_thread_to_thread() {
    fn is_send_and_static<T: Send + 'static>(value: T) -> T {
        value
    }
    let breaker = CircuitBreaker::new(valid!(circuit_breaker::Config::new().validate()));
    let bulkhead = Bulkhead::new(valid!(bulkhead::Config::new(4).with_queue(64, ms(60_000)).validate()));
    let pipeline = Arc::new(Pipeline::new(Tokio).layer(retry()).layer(bulkhead).layer(breaker));
    let (plan, upstream) = Upstream::new(Plan::new(&[Ok("one"); 64]));
    let service = is_send_and_static(PipelineLayer::new(pipeline)).layer(upstream);
    let mut tasks = Vec::new();
    for _ in 0..64 {
        let mut service = is_send_and_static(service.clone());
        service.ready().await.unwrap();
        tasks.push(tokio::spawn(is_send_and_static(service.call("a"))));
    }
    for task in tasks {
        assert_eq!(task.await.unwrap(), Ok("one"));
    }
    assert_eq!(plan.calls().len(), 64);
}

/// Of a task the compiler knows types without their lifetimes: what a response is made of must not depend on them.
#[tokio::test(start_paused = true)]
async fn a_task_that_calls_may_be_sent_whose_request_and_error_borrow() {
    fn is_send<T: Send>(task: T) -> T {
        task
    }
    async fn ask(request: &'static str) -> Result<&'static str, &'static str> {
        if request.is_empty() { Err("empty") } else { Ok(request) }
    }
    let mut service = PipelineLayer::new(Arc::new(Pipeline::new(Tokio).layer(retry()))).layer(tower::service_fn(ask));
    let task = is_send(async move { service.ready().await?.call("").await });
    assert_eq!(task.await.unwrap_err().into_inner(), Some("empty"));
}

/// Whether a call through the layer reaches a service that is up, and then what becomes of one to a service that hangs, within a second.
async fn alone<L>(layer: L) -> (bool, Option<bool>)
where
    L: Layer<Upstream>,
    L::Service: Service<&'static str, Response = &'static str, Error = Failure<Down>>,
{
    let (_, up) = Upstream::new(Plan { takes: ms(5), ..Plan::new(&[Ok("up")]) });
    let mut service = layer.layer(up);
    let served = service.ready().await.is_ok() && service.call("a").await == Ok("up");
    let hangs = tokio::time::timeout(ms(1_000), service.ready().await.unwrap().call("b")).await;
    (served, hangs.ok().map(|ended| ended.is_err_and(|failure| failure.is_rejected())))
}

#[tokio::test(start_paused = true)]
async fn each_policy_alone_is_a_layer() {
    use failsoft_tokio::adaptive::{self, Aimd};
    use failsoft_tokio::{AdaptiveLimit, AdaptiveRate, RateLimiter, Throttle, adaptive_rate, rate_limiter, throttle};

    let (hangs, rejects, ends) = ((true, None), (true, Some(true)), (true, Some(false)));
    let one = valid!(bulkhead::Config::new(1).validate());
    assert_eq!(alone(BulkheadLayer::of(Bulkhead::new(one))).await, hangs);
    assert_eq!(alone(CircuitBreakerLayer::of(breaker())).await, hangs);
    assert_eq!(alone(TimeoutLayer::of(Timeout::new(ms(50)))).await, ends);
    assert_eq!(alone(RetryLayer::of(retry())).await, hangs);
    let hedge = Hedge::new(FixedDelay::new(ms(10)), Idempotent);
    assert_eq!(alone(HedgeLayer::<1>::of(hedge)).await, hangs);
    let limiter = valid!(rate_limiter::Config::new(1, ms(500)).validate());
    assert_eq!(alone(RateLimiterLayer::of(RateLimiter::new(limiter))).await, rejects);
    let throttle = Throttle::new(valid!(throttle::Config::new().validate()));
    assert_eq!(alone(ThrottleLayer::of(throttle)).await, hangs);
    let limit = adaptive::Config::new(valid!(Aimd::new().validate())).validate().unwrap();
    assert_eq!(alone(AdaptiveLimitLayer::of(AdaptiveLimit::<Aimd>::new(limit))).await, hangs);
    let rate = valid!(adaptive_rate::Config::new().validate());
    assert_eq!(alone(AdaptiveRateLayer::of(AdaptiveRate::new(rate))).await, hangs);
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_is_laid_by_reference_can_be_looked_at() {
    static BREAKER: CircuitBreaker = CircuitBreaker::new(valid!(circuit_breaker::Config::new().validate()));
    let (plan, up) = Upstream::new(Plan::new(&[Ok("up")]));
    let mut service = PolicyLayer::<_>::of(&BREAKER).layer(up);
    BREAKER.isolate();
    assert!(service.ready().await.unwrap().call("a").await.unwrap_err().is_rejected());
    BREAKER.reset();
    assert_eq!((service.ready().await.unwrap().call("b").await, plan.calls().len()), (Ok("up"), 1));
}

#[tokio::test(start_paused = true)]
async fn a_request_of_which_there_is_no_other_is_sent_once_and_rejected_as_often_as_asked() {
    let only = |request: &&'static str| request.starts_with("get").then_some(*request);
    let pipeline = Arc::new(Pipeline::new(Tokio).layer(retry()));
    let (plan, down) = Upstream::new(Plan::new(&[Err(Down("down")); 4]));
    let mut service = PipelineLayer::with_requests(pipeline, only).layer(down);
    let mut ends = Vec::new();
    for request in ["post it", "get it"] {
        let failure = service.ready().await.unwrap().call(request).await.unwrap_err();
        ends.push((failure.attempts, failure.stop));
    }
    assert_eq!(ends, [(1, Some(Stop::NotRetryable)), (3, Some(Stop::Attempts))]);
    assert_eq!(plan.calls().len(), 4);

    // What was rejected has not been sent: there is a request left for when the breaker lets one through.
    let breaker = breaker();
    breaker.open_until(failsoft_tokio::Clock::now(&Tokio).saturating_add(ms(300)));
    let patient = RetryPolicy::new(valid!(retry::Config::new().with_max_attempts(9).with_rejections().validate()));
    let pipeline = Arc::new(Pipeline::new(Tokio).layer(patient).layer(breaker));
    let (plan, up) = Upstream::new(Plan::new(&[Ok("up")]));
    let mut service = PipelineLayer::with_requests(pipeline, only).layer(up);
    assert_eq!((service.ready().await.unwrap().call("post it").await, plan.calls().len()), (Ok("up"), 1));
}
