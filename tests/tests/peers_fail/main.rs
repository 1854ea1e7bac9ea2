//! The bugs of `tests/peers-bugs.md`, shown on the very versions of the crates that have them: the programs of `peers`, as far as they
//! are quick and need no luck. None of this tests failsoft; it keeps true what is said of others.
//!
//! A test that fails here is good news: that crate has mended it. Then the list is to say so.

mod breaker;
mod delay;
mod half_open;
mod limits;
#[path = "../peers/support.rs"]
mod support;

use core::future::poll_fn;
use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use core::task::Poll;
use core::time::Duration;
use std::sync::Arc;

use tower::Service;
use tower_resilience_circuitbreaker::CircuitBreakerError;

use support::{Woken, panic_now, panics, poll_once};

/// Fails when a crate does not show its bug any more.
#[track_caller]
fn still_shows(shown: bool, bug: &str) {
    assert!(shown, "mended, it seems: {bug}. The list in tests/peers-bugs.md is to say so");
}

/// Waits, for a nanosecond or so, until the clock of the standard library has moved on: some compare with `>`.
fn tick() {
    let start = std::time::Instant::now();
    while std::time::Instant::now() <= start {
        core::hint::spin_loop();
    }
}

/// The answer of a future that has it at once.
#[track_caller]
fn at_once<F: Future>(future: F) -> F::Output {
    match poll_once(pin!(future)) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("it waits"),
    }
}

/// What a backend is asked to do.
#[derive(Clone)]
enum Ask {
    Succeed,
    Fail,
    /// Succeeds once it is told to.
    SucceedWhen(Arc<AtomicBool>),
}

impl Ask {
    fn hang() -> Self {
        Self::SucceedWhen(Arc::default())
    }
}

/// A backend that counts its calls.
#[derive(Clone, Default)]
struct Backend(Arc<AtomicU32>);

impl Backend {
    fn calls(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Service<Ask> for Backend {
    type Response = ();
    type Error = &'static str;
    type Future = Pin<Box<dyn Future<Output = Result<(), &'static str>> + Send>>;

    fn poll_ready(&mut self, _: &mut core::task::Context<'_>) -> Poll<Result<(), &'static str>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, ask: Ask) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(poll_fn(move |_| match &ask {
            Ask::Succeed => Poll::Ready(Ok(())),
            Ask::Fail => Poll::Ready(Err("failed")),
            Ask::SucceedWhen(told) if told.load(Ordering::Relaxed) => Poll::Ready(Ok(())),
            Ask::SucceedWhen(_) => Poll::Pending,
        }))
    }
}

/// A breaker around it.
type Tower<C> = tower_resilience_circuitbreaker::CircuitBreaker<Backend, C>;
type Answer = Result<(), CircuitBreakerError<&'static str>>;

/// Asks whether the service is ready, and calls it.
fn call<S: Service<Ask, Response = (), Error = CircuitBreakerError<&'static str>>>(
    service: &mut S,
    ask: Ask,
) -> Pin<Box<S::Future>> {
    at_once(poll_fn(|cx| service.poll_ready(cx))).expect("always ready");
    Box::pin(service.call(ask))
}

const HOUR: Duration = Duration::from_secs(3_600);
