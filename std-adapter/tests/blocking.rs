//! Policies on plain threads. Here time really passes, so there is as little of it as possible.

#![expect(clippy::unwrap_used, reason = "a test may end with a panic")]

use core::future::{Future, poll_fn};
use core::pin::pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::sync::{Arc, mpsc};
use std::task::Wake;
use std::thread;
use std::time::Instant;

use failsoft_tokio::circuit_breaker::{ConsecutiveFailures, StateKind};
use failsoft_tokio::{
    Backoff, Bulkhead, CircuitBreaker, Clock, Executor, Jitter, Pipeline, Reason, RetryPolicy, Stop, Threads, Timeout,
    block_on, bulkhead, call_blocking, circuit_breaker, retry, valid,
};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const QUICK: Backoff = Backoff::constant(ms(4)).with_jitter(Jitter::None);

#[test]
fn a_retry_really_waits_its_delays() {
    let config = valid!(retry::Config::new().with_max_attempts(4).with_backoff(QUICK).validate());
    let pipeline = Pipeline::new(Threads).layer(RetryPolicy::new(config));
    let start = Instant::now();
    let mut attempts = Vec::new();
    let failure = call_blocking(&pipeline, |attempt| {
        attempts.push(attempt.number());
        Err::<(), _>("down")
    })
    .unwrap_err();
    assert!(start.elapsed() >= ms(12), "only {:?}", start.elapsed());
    assert_eq!(attempts, [1, 2, 3, 4]);
    assert_eq!((failure.attempts, failure.stop, failure.into_inner()), (4, Some(Stop::Attempts), Some("down")));
}

#[test]
fn the_sleeping_thread_is_woken_by_the_permit_that_another_thread_returns() {
    let bulkhead = Bulkhead::new(valid!(bulkhead::Config::new(1).with_queue(1, Duration::from_secs(60)).validate()));
    let held = bulkhead.try_acquire().unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let pipeline = Pipeline::new(Threads).layer(&bulkhead);
            call_blocking(&pipeline, |_| Ok::<_, &str>("served"))
        });
        while bulkhead.snapshot().queued == 0 {
            thread::yield_now();
        }
        drop(held);
        assert_eq!(waiter.join().unwrap(), Ok("served"));
    });
    assert_eq!(bulkhead.snapshot().in_use, 0);
}

#[test]
fn a_wait_for_a_permit_ends_when_it_has_been_too_long() {
    let bulkhead = Bulkhead::new(valid!(bulkhead::Config::new(1).with_queue(1, ms(5)).validate()));
    let _held = bulkhead.try_acquire().unwrap();
    let start = Instant::now();
    let pipeline = Pipeline::new(Threads).layer(&bulkhead);
    let failure = call_blocking(&pipeline, |_| Ok::<_, &str>("served")).unwrap_err();
    assert_eq!(failure.rejected().unwrap().reason(), Reason::QueueTimeout);
    assert!(start.elapsed() >= ms(5));
    assert_eq!(bulkhead.snapshot().queued, 0);
}

#[test]
fn many_threads_share_few_permits_and_all_get_one() {
    let bulkhead = Bulkhead::new(valid!(bulkhead::Config::new(2).with_queue(16, Duration::MAX).validate()));
    thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let pipeline = Pipeline::new(Threads).layer(&bulkhead);
                    for _ in 0..200 {
                        call_blocking(&pipeline, |_| {
                            thread::yield_now();
                            Ok::<_, &str>(())
                        })
                        .unwrap();
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    });
    let snapshot = bulkhead.snapshot();
    assert_eq!((snapshot.in_use, snapshot.queued, snapshot.rejected, snapshot.high_water), (0, 0, 0, 2));
}

#[test]
fn a_blocking_operation_that_took_too_long_is_reported_when_it_returns() {
    let pipeline = Pipeline::new(Threads).layer(Timeout::new(ms(3)));
    let start = Instant::now();
    let failure = call_blocking(&pipeline, |_| {
        thread::sleep(ms(8));
        Ok::<_, &str>("late")
    })
    .unwrap_err();
    assert!(failure.is_timed_out());
    assert!(start.elapsed() >= ms(8), "it can't be cut short");
    let patient = Pipeline::new(Threads).layer(Timeout::new(Duration::from_secs(60)));
    assert_eq!(call_blocking(&patient, |_| Ok::<_, &str>("in time")), Ok("in time"));
}

#[test]
fn a_breaker_around_the_timeout_counts_blocking_operations_that_took_too_long() {
    let trip = valid!(ConsecutiveFailures::new(1));
    let breaker: CircuitBreaker =
        CircuitBreaker::new(circuit_breaker::Config::new().with_trip(trip).validate().unwrap());
    let pipeline = Pipeline::new(Threads).layer(&breaker).layer(Timeout::new(ms(1)));
    let slow = |_| {
        thread::sleep(ms(3));
        Ok::<_, &str>(())
    };
    assert!(call_blocking(&pipeline, slow).unwrap_err().is_timed_out());
    assert_eq!(breaker.state(), StateKind::Open);
    assert!(call_blocking(&pipeline, slow).unwrap_err().is_rejected());
}

#[test]
fn the_time_that_attempts_block_counts_towards_the_total() {
    // The delay fits into the limit, but not into what the first attempt leaves of it. Far apart, so that a busy machine
    // doesn't matter.
    let backoff = Backoff::constant(ms(9_990)).with_cap(ms(9_990)).with_jitter(Jitter::None);
    let config = retry::Config::new().with_backoff(backoff).validate().unwrap();
    let pipeline = Pipeline::new(Threads).layer(Timeout::new(ms(10_000))).layer(RetryPolicy::new(config));
    let start = Instant::now();
    let failure = call_blocking(&pipeline, |_| {
        thread::sleep(ms(15));
        Err::<(), _>("down")
    })
    .unwrap_err();
    assert_eq!((failure.attempts, failure.stop), (1, Some(Stop::Deadline)));
    assert!(start.elapsed() < ms(9_990), "it waited for an attempt that could not start");
}

#[test]
fn block_on_within_block_on_keeps_both_deadlines() {
    let nap = |span| async move { Threads.sleep_until(Threads.now().saturating_add(span)).await };
    // Should the outer deadline be lost, the thread would sleep for ever: then this wakes it.
    let (sleeper, (done, watched)) = (thread::current(), mpsc::channel::<()>());
    let watch = thread::spawn(move || {
        if watched.recv_timeout(Duration::from_secs(10)).is_err() {
            sleeper.unpark();
        }
    });
    let start = Instant::now();
    let mut outer = pin!(nap(ms(6)));
    block_on(poll_fn(|cx| {
        // The outer one has set its deadline when the inner one sets, and meets, its own.
        let poll = outer.as_mut().poll(cx);
        if poll.is_pending() {
            block_on(nap(ms(2)));
        }
        poll
    }));
    assert!((ms(6)..Duration::from_secs(10)).contains(&start.elapsed()), "{:?}", start.elapsed());
    done.send(()).unwrap();
    watch.join().unwrap();
}

#[test]
fn block_on_wakes_for_what_another_thread_brings() {
    let (send, receive) = tokio::sync::oneshot::channel();
    let sender = thread::spawn(move || send.send(42));
    assert_eq!(block_on(receive), Ok(42));
    sender.join().unwrap().unwrap();
}

#[test]
fn a_panic_in_a_blocking_operation_returns_its_permit() {
    let bulkhead = Bulkhead::new(valid!(bulkhead::Config::new(1).validate()));
    let pipeline = Pipeline::new(Threads).layer(&bulkhead);
    thread::scope(|scope| {
        let panics = scope.spawn(|| {
            call_blocking(&pipeline, |_| -> Result<(), ()> {
                std::panic::resume_unwind(Box::new("the operation panics"))
            })
        });
        assert!(panics.join().is_err());
    });
    assert_eq!(bulkhead.snapshot().in_use, 0);
    assert_eq!(call_blocking(&pipeline, |_| Ok::<_, ()>(1)), Ok(1));
}

/// Tells whether it has been woken.
#[derive(Default)]
struct Child(AtomicBool);

impl Wake for Child {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn a_block_on_within_another_does_not_swallow_what_wakes_the_outer_one() {
    let (waker_to, waker_from) = mpsc::channel::<Waker>();
    let waking = thread::spawn(move || {
        let waker = waker_from.recv().unwrap();
        thread::sleep(ms(5));
        waker.wake();
    });
    let mut polls = 0;
    let outer = poll_fn(|cx| {
        polls += 1;
        if polls == 2 {
            return Poll::Ready(());
        }
        waker_to.send(cx.waker().clone()).unwrap();
        // While this one sleeps the outer one is woken, and the thread's token is gone.
        block_on(Threads.sleep_until(Threads.now().saturating_add(ms(20))));
        Poll::Pending
    });
    block_on(outer);
    waking.join().unwrap();
    assert_eq!(polls, 2);
}

#[test]
fn a_sleep_wakes_the_future_it_is_in_and_not_only_the_outermost() {
    let child = Arc::new(Child::default());
    let waker = Waker::from(Arc::clone(&child));
    let mut sleep = pin!(Threads.sleep_until(Threads.now().saturating_add(ms(5))));
    // As combinators of many do: the child is polled under a waker of its own, and again only once that was woken.
    assert!(sleep.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let mut watched = poll_fn(|cx| {
        if child.0.load(Ordering::Acquire) {
            return sleep.as_mut().poll(&mut Context::from_waker(&waker));
        }
        // Woken by the same round of the thread's timers as the child.
        let _ = pin!(Threads.sleep_until(Threads.now().saturating_add(ms(1)))).poll(cx);
        Poll::Pending
    });
    block_on(&mut watched);
}
