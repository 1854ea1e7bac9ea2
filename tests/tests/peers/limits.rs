//! Limits of calls at once and per time: nobody starves by a clock that steps back, and nobody is forgotten in a queue.

use core::pin::pin;
use core::task::Poll;
use core::time::Duration;
use std::sync::Arc;

use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use failsoft_core::Instant;
use failsoft_core::Pipeline;
use failsoft_core::bulkhead::{self, LocalQueue, Slots, Tally, WaitQueue};
use failsoft_core::cell::{CellKind, Local};
use failsoft_core::rate_limiter::{self, RateLimiter};
use failsoft_core::testing::{ManualClock, VirtualExecutor, never};
use failsoft_embassy::{CriticalSection, RawQueue};
use failsoft_tokio::{Atomic, ThreadQueue};

use crate::{SECOND, Woken, poll_once};

// 24: governor 0.10.4: a clock that steps back by 5 s shuts a limiter for 4 s, though no more than a cell of its burst had been
// used. What was free before the step can't be known after it; fails if the step cost more than one interval.
#[test]
fn a_clock_that_steps_back_shuts_a_limiter_for_no_more_than_an_interval() {
    let limiter = RateLimiter::<Atomic>::new(rate_limiter::Config::new(10, SECOND).validate().expect("valid"));
    let clock = ManualClock::new();
    clock.set(Instant::from_millis(10_000));
    limiter.try_acquire(&clock).expect("the burst is free");
    clock.set(Instant::from_millis(5_000));
    let interval = Duration::from_millis(100);
    match limiter.try_acquire(&clock) {
        Ok(()) => {}
        Err(rejected) => assert!(rejected.retry_at().expect("a time") <= Instant::from_millis(5_100), "{rejected:?}"),
    }
    // From there on the quota, and the whole burst once it has been left alone for so long.
    for call in 0..10 {
        clock.advance(interval);
        assert!(limiter.try_acquire(&clock).is_ok(), "call {call}");
    }
    clock.advance(SECOND);
    assert_eq!(limiter.available(&clock), 10);
}

// 24 as well: a clock that stands still, and one at its end. Fails if either gave more than the burst, or panicked.
#[test]
fn a_limiter_on_a_clock_that_stands_still_gives_its_burst_and_no_more() {
    let config = rate_limiter::Config::new(10, SECOND).validate().expect("valid");
    for (now, expected) in [(Instant::START, 10), (Instant::from_millis(1_000), 10), (Instant::MAX, 0)] {
        let limiter = RateLimiter::<Atomic>::new(config);
        let passed = (0..1_000).filter(|_| limiter.try_acquire(&now).is_ok()).count();
        assert_eq!(passed, expected, "at {now:?}");
    }
}

type Bulkhead<K, Q> = bulkhead::Bulkhead<K, Q>;

fn bulkhead<K, Q>(permits: u32) -> Bulkhead<K, Q>
where
    K: CellKind<Slots> + CellKind<Tally>,
    Q: WaitQueue,
{
    Bulkhead::new(bulkhead::Config::new(permits).with_queue(8, Duration::MAX).validate().expect("valid"))
}

/// The head of the line wants 2, the one behind it wants the 1 that is free, and the head is cancelled.
fn the_one_behind_moves_up<K, Q>()
where
    K: CellKind<Slots> + CellKind<Tally>,
    Q: WaitQueue,
{
    let (executor, bulkhead) = (VirtualExecutor::new(), bulkhead::<K, Q>(2));
    let held = bulkhead.try_acquire().expect("free");
    let (head, behind) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
    let mut second = pin!(bulkhead.acquire(1, &executor));
    {
        let mut first = pin!(bulkhead.acquire(2, &executor));
        assert!(head.poll(first.as_mut()).is_pending());
        assert!(behind.poll(second.as_mut()).is_pending(), "first come, first served");
    }
    assert_eq!((head.times(), behind.times()), (0, 1));
    assert!(matches!(behind.poll(second.as_mut()), Poll::Ready(Ok(_))));
    drop(held);
    assert_eq!((bulkhead.snapshot().in_use, bulkhead.snapshot().queued), (0, 0));
}

// 25: embassy-sync 0.8.0: when the head of a fair semaphore's line is cancelled, the one behind, for whom there would be enough,
// is not woken. Fails if leaving the line did not serve it.
#[test]
fn a_cancelled_waiter_wakes_the_next() {
    the_one_behind_moves_up::<Local, LocalQueue<8>>();
    the_one_behind_moves_up::<Atomic, ThreadQueue>();
    the_one_behind_moves_up::<CriticalSection, RawQueue<CriticalSectionRawMutex, 8>>();
}

// 25 as well: a waiter that is cancelled between being woken and being polled. Fails if the permit went with it.
#[test]
fn a_waiter_that_is_cancelled_with_its_permit_hands_it_on() {
    fn check<K: CellKind<Slots> + CellKind<Tally>, Q: WaitQueue>() {
        let (executor, bulkhead) = (VirtualExecutor::new(), bulkhead::<K, Q>(1));
        let held = bulkhead.try_acquire().expect("free");
        let (head, behind) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
        let mut first = Box::pin(bulkhead.acquire(1, &executor));
        let mut second = pin!(bulkhead.acquire(1, &executor));
        assert!(head.poll(first.as_mut()).is_pending() && behind.poll(second.as_mut()).is_pending());
        drop(held);
        assert_eq!((head.times(), behind.times()), (1, 0));
        drop(first);
        assert_eq!((head.times(), behind.times()), (1, 1));
        assert!(matches!(behind.poll(second.as_mut()), Poll::Ready(Ok(_))));
    }
    check::<Local, LocalQueue<8>>();
    check::<Atomic, ThreadQueue>();
    check::<CriticalSection, RawQueue<CriticalSectionRawMutex, 8>>();
}

// 26: reliakit 1.1.0: its bulkhead has no guard, so that a call that is cancelled keeps its place for ever. Fails if a place
// outlived its call.
#[test]
fn cancelled_calls_give_their_places_back() {
    let (executor, bulkhead) = (VirtualExecutor::new(), bulkhead::<Atomic, ThreadQueue>(4));
    let pipeline = Pipeline::new(&executor).layer(&bulkhead);
    {
        let mut calls: Vec<_> = (0..6).map(|_| Box::pin(pipeline.call(|_| never::<Result<(), ()>>()))).collect();
        for call in &mut calls {
            assert!(poll_once(call.as_mut()).is_pending());
        }
        assert_eq!((bulkhead.snapshot().in_use, bulkhead.snapshot().queued), (4, 2));
    }
    assert_eq!((bulkhead.snapshot().in_use, bulkhead.snapshot().queued), (0, 0));
}
