//! The same work in failsoft and elsewhere: what is measured, apart from how. What builds a policy is inlined, as in a real caller: what it is
//! made of is then known where it is used.

use core::future::{Future, Ready, ready};
use core::num::NonZeroU32;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use failsoft_tokio::cell::CellKind;
use failsoft_tokio::circuit_breaker::{self, FailureRate, State, Trip};
use failsoft_tokio::pipeline::{Attempt, Bare, Layer, Part, Stack};
use failsoft_tokio::tower::{Once, PipelineLayer, PipelineService};
use failsoft_tokio::{
    Backoff, Bulkhead, CircuitBreaker, Jitter, Pipeline, RateLimiter, Ratio, RetryPolicy, Timeout, Tokio, bulkhead,
    rate_limiter, retry, valid,
};
use governor::Quota;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use tower_layer::Layer as _;
use tower_service::Service;

/// The work of a call: it does nothing, and succeeds or fails.
#[inline]
#[expect(clippy::result_unit_err, reason = "nothing is to be known of a failure")]
pub fn work(good: bool) -> Result<(), ()> {
    if core::hint::black_box(good) { Ok(()) } else { Err(()) }
}

/// A breaker with everything at its default: consecutive failures.
#[inline]
pub fn consecutive() -> CircuitBreaker {
    CircuitBreaker::new(valid!(circuit_breaker::Config::new().validate()))
}

/// A breaker over a window of calls, as most peers have it. It opens at 90 %, so that a mixed load keeps it closed.
#[inline]
pub fn window() -> CircuitBreaker<FailureRate> {
    const RATE: FailureRate = valid!(FailureRate::new(Ratio::percent(90), 40));
    CircuitBreaker::new(valid!(circuit_breaker::Config::new().with_trip(RATE).validate()))
}

/// The same window in `recloser`.
pub fn recloser() -> recloser::Recloser {
    recloser::Recloser::custom().error_rate(0.9).closed_len(40).open_wait(Duration::from_secs(60)).build()
}

/// Consecutive failures in `failsafe`.
pub fn failsafe()
-> failsafe::StateMachine<failsafe::failure_policy::ConsecutiveFailures<failsafe::backoff::Constant>, ()> {
    let policy =
        failsafe::failure_policy::consecutive_failures(5, failsafe::backoff::constant(Duration::from_secs(60)));
    failsafe::Config::new().failure_policy(policy).build()
}

/// One call through a breaker of ours; whether it was let through.
// Inlined as in a real caller: what counts is the policy, not a function around it.
#[inline(always)]
pub fn call<K, T>(breaker: &circuit_breaker::CircuitBreaker<K, T>, good: bool) -> bool
where
    T: Copy + Trip,
    K: CellKind<State<T::Meter>>,
{
    match breaker.try_acquire(Tokio) {
        Ok(permit) => {
            match work(good) {
                Ok(()) => permit.success(),
                Err(()) => permit.failure(),
            }
            true
        }
        Err(_) => false,
    }
}

/// One call through `recloser`; whether it was let through.
// Inlined as in a real caller: what counts is the policy, not a function around it.
#[inline(always)]
pub fn call_recloser(breaker: &recloser::Recloser, good: bool) -> bool {
    !matches!(breaker.call(|| work(good)), Err(recloser::Error::Rejected))
}

/// One call through `failsafe`; whether it was let through.
// Inlined as in a real caller: what counts is the policy, not a function around it.
#[inline(always)]
pub fn call_failsafe(breaker: &impl failsafe::CircuitBreaker, good: bool) -> bool {
    !matches!(breaker.call(|| work(good)), Err(failsafe::Error::Rejected))
}

/// A limiter that lets all through, at any time.
#[inline]
pub fn limiter() -> RateLimiter {
    RateLimiter::new(valid!(rate_limiter::Config::new(u32::MAX, Duration::from_millis(1)).validate()))
}

/// A clock for `governor` that stands still: for what a limiter does when the time is there already.
#[derive(Clone, Copy, Debug)]
pub struct Still;

impl governor::clock::Clock for Still {
    type Instant = Nanos;

    #[inline]
    fn now(&self) -> Nanos {
        Nanos::new(core::hint::black_box(1))
    }
}

/// The same in `governor`: a permit a nanosecond, and four billion at once.
pub fn governor<C: governor::clock::Clock>(
    clock: C,
) -> governor::RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<C::Instant>> {
    let quota = Quota::with_period(Duration::from_nanos(1)).expect("not zero").allow_burst(NonZeroU32::MAX);
    governor::RateLimiter::direct_with_clock(quota, clock)
}

/// Exponential delays with full jitter.
#[inline]
pub fn backoff() -> Backoff {
    Backoff::exponential(Duration::from_millis(10)).with_jitter(Jitter::Full)
}

/// The policies of [`pipeline`].
pub type Standard<B, C> = Stack<Stack<Stack<Stack<Bare, Timeout>, RetryPolicy>, B>, C>;

/// Timeout and retry around an operation.
#[inline]
pub fn retried() -> Pipeline<Tokio, Stack<Stack<Bare, Timeout>, RetryPolicy>> {
    Pipeline::new(Tokio).layer(Timeout::default()).layer(RetryPolicy::new(valid!(retry::Config::new().validate())))
}

/// Timeout, retry, bulkhead and breaker around an operation.
#[inline]
pub fn pipeline<B: Part, C: Part>(bulkhead: B, breaker: C) -> Pipeline<Tokio, Standard<B, C>> {
    retried().layer(bulkhead).layer(breaker)
}

/// A bulkhead with room.
#[inline]
pub fn compartment() -> Bulkhead {
    Bulkhead::new(valid!(bulkhead::Config::new(64).validate()))
}

/// One call through a pipeline around an operation, which is ready at once.
// Inlined, and with an operation that is the caller's own, as in a real caller: what counts is the policy, not a function around it.
#[inline(always)]
pub fn call_pipeline<L, F>(pipeline: &Pipeline<Tokio, L>, operation: F) -> bool
where
    L: Layer<(), (), Tokio>,
    F: FnMut(Attempt) -> Ready<Result<(), ()>>,
{
    let call = pin!(pipeline.call(operation));
    matches!(call.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())))
}

/// The same work with a permit of the bulkhead and one of the breaker, taken by hand: no future, no timeout and no retry.
#[inline(always)]
pub fn call_by_hand(bulkhead: &Bulkhead, breaker: &CircuitBreaker) -> bool {
    let Ok(_slot) = bulkhead.try_acquire() else { return false };
    call(breaker, true)
}

/// A service of tower's that does the work, at once.
#[derive(Clone, Copy, Debug)]
pub struct NoOp;

impl Service<bool> for NoOp {
    type Response = ();
    type Error = ();
    type Future = Ready<Result<(), ()>>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, good: bool) -> Self::Future {
        ready(work(good))
    }
}

/// A pipeline of a breaker alone.
pub type BreakerAlone = Pipeline<Tokio, Stack<Bare, CircuitBreaker>>;

/// A breaker as a layer of tower's around [`NoOp`].
#[inline]
pub fn breaker_layer(pipeline: &'static BreakerAlone) -> PipelineService<NoOp, &'static BreakerAlone, Once> {
    PipelineLayer::once(pipeline).layer(NoOp)
}

/// One call of a service that is ready, and answers, at once.
// Inlined as in a real caller: what counts is the policy, not a function around it.
#[inline(always)]
pub fn call_service<S: Service<bool>>(service: &mut S) -> bool {
    let context = &mut Context::from_waker(Waker::noop());
    if !matches!(service.poll_ready(context), Poll::Ready(Ok(()))) {
        return false;
    }
    let response = pin!(service.call(true));
    matches!(response.poll(context), Poll::Ready(Ok(_)))
}
