//! Limits of calls at once and per time, and how they stop a call.

use core::num::NonZeroU32;
use core::pin::pin;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use core::task::Poll;
use core::time::Duration;
use std::sync::Arc;

use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::semaphore::{FairSemaphore, Semaphore};
use governor::clock::Clock;
use governor::nanos::Nanos;
use governor::{Quota, RateLimiter};

use crate::{Woken, at_once, poll_once, still_shows};

/// A clock that goes wherever it is told.
#[derive(Clone, Default)]
struct Wayward(Arc<AtomicU64>);

impl Wayward {
    fn set(&self, now: Duration) {
        self.0.store(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Clock for Wayward {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(self.0.load(Ordering::Relaxed))
    }
}

// 24
#[test]
fn a_clock_that_steps_back_shuts_governor_for_the_step() {
    let clock = Wayward::default();
    let ten = NonZeroU32::new(10).expect("not zero");
    // It counts from where it was made.
    let limiter = RateLimiter::direct_with_clock(Quota::per_second(ten), clock.clone());
    clock.set(Duration::from_secs(10));
    assert!(limiter.check().is_ok(), "one of a burst of ten");
    let passed = (0..40).filter(|tenths| {
        clock.set(Duration::from_secs(5) + Duration::from_millis(100) * *tenths);
        limiter.check().is_ok()
    });
    still_shows(passed.count() == 0, "for 4 s, one call each 100 ms, none passes");
}

// 25
#[test]
fn a_cancelled_waiter_of_embassy_sync_leaves_the_next_asleep() {
    let semaphore = FairSemaphore::<NoopRawMutex, 4>::new(1);
    let (head, behind) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
    let mut second = Box::pin(semaphore.acquire(1));
    {
        let mut first = Box::pin(semaphore.acquire(2));
        assert!(head.poll(first.as_mut()).is_pending());
        assert!(behind.poll(second.as_mut()).is_pending());
    }
    still_shows(behind.times() == 0, "a permit is free, and the one who wants it is not woken");
    assert!(matches!(behind.poll(second.as_mut()), Poll::Ready(Ok(_))), "though it would get it");
}

// 26
#[test]
fn cancelled_calls_keep_their_places_in_the_bulkhead_of_reliakit() {
    let bulkhead = core::cell::RefCell::new(reliakit_bulkhead::Bulkhead::new(4));
    for _ in 0..4 {
        // As an async function would: take a place, call, give the place back.
        let mut call = pin!(async {
            assert!(bulkhead.borrow_mut().try_acquire_one());
            core::future::pending::<()>().await;
            bulkhead.borrow_mut().release_one();
        });
        assert!(poll_once(call.as_mut()).is_pending());
    }
    still_shows(bulkhead.borrow().in_flight() == 4, "four cancelled calls are in flight for ever");
}

/// What the pipeline of resilient asks of an error.
#[derive(Debug)]
struct Failed;

impl From<resilient::timeout::TimeoutError> for Failed {
    fn from(_: resilient::timeout::TimeoutError) -> Self {
        Self
    }
}

// 27
#[test]
fn an_open_breaker_and_a_full_bulkhead_of_resilient_call_all_the_same() {
    let calls = AtomicU32::new(0);
    let breaker = resilient::BreakerPolicy::default().with_failure_threshold(2);
    let pipeline = resilient::pipeline::Pipeline::new().with_circuit_breaker(breaker);
    for _ in 0..50 {
        let answer = at_once(pipeline.run(|| async {
            calls.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>(Failed)
        }));
        assert!(answer.is_err());
    }
    still_shows(calls.load(Ordering::Relaxed) == 50, "50 of 50 calls reach the backend behind an open breaker");

    let pipeline = resilient::pipeline::Pipeline::new().with_bulkhead(resilient::Bulkhead::new(1));
    let in_flight = AtomicU32::new(0);
    let hang = || async {
        in_flight.fetch_add(1, Ordering::Relaxed);
        core::future::pending::<Result<(), Failed>>().await
    };
    let mut calls: Vec<_> = (0..10).map(|_| Box::pin(pipeline.run(hang))).collect();
    assert!(calls.iter_mut().all(|call| poll_once(call.as_mut()).is_pending()));
    still_shows(in_flight.load(Ordering::Relaxed) == 10, "ten calls are within a bulkhead of one");
}
