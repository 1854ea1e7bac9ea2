//! What an operation does, counted: as much with little in its way as with a flood.

use core::cell::{Cell, RefCell};
use core::hash::{Hash, Hasher};
use core::pin::pin;
use core::task::{Context, Waker};
use core::time::Duration;
use std::collections::VecDeque;

use failsoft_core::bulkhead::{self, Bulkhead, Line, WaitQueue, Waiter};
use failsoft_core::cell::Local;
use failsoft_core::rate_limiter::{Config, KeyedRateLimiter};
use failsoft_core::testing::VirtualExecutor;
use failsoft_core::{Instant, Reason};

thread_local! {
    static STEPS: Cell<u32> = const { Cell::new(0) };
}

fn step() {
    STEPS.set(STEPS.get() + 1);
}

/// The steps that an operation takes.
fn steps(operation: impl FnOnce()) -> u32 {
    STEPS.set(0);
    operation();
    STEPS.get()
}

/// A key of which each look is a step.
#[derive(Clone, Debug)]
struct Key(u32);

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        step();
        self.0 == other.0
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        step();
        self.0.hash(state);
    }
}

/// What a known key and a new one take before, during and after a flood of others.
fn flood<const N: usize>() -> [u32; 5] {
    // No place comes free meanwhile.
    let config = Config::new(1, Duration::from_secs(1)).with_burst(1_000_000).validate().expect("it makes sense");
    let limiter = KeyedRateLimiter::<Local, Key, N>::new(config);
    let mut next = 0;
    let mut others = |count: u32| {
        for _ in 0..count {
            next += 1;
            let _ = limiter.try_acquire(&Key(next), &Instant::START);
        }
    };
    let come = |key| steps(|| _ = limiter.try_acquire(&Key(key), &Instant::START));
    come(0);
    let before = come(0);
    others(50_000);
    let (during, late) = (come(0), come(u32::MAX));
    others(50_000);
    assert_eq!(limiter.keys(), N);
    [before, during, come(0), late, come(u32::MAX)]
}

#[test]
fn a_flood_of_keys_makes_no_more_work_for_a_known_one_nor_for_the_next() {
    let [before, during, after, late, last] = flood::<64>();
    assert_eq!([during, after], [before; 2]);
    assert_eq!(late, last);
    assert!((1..=10).contains(&before) && last <= 10, "{before} and {last} looks at keys");
    assert_eq!(flood::<1_024>(), flood::<64>());
}

/// A line in which each waiter that is looked at is a step.
struct Counted {
    waiters: VecDeque<Waiter>,
    next: u32,
}

impl Line for Counted {
    fn iter(&self) -> impl DoubleEndedIterator<Item = &Waiter> {
        self.waiters.iter().inspect(|_| step())
    }

    fn push_back(&mut self, weight: u32, waker: Waker) -> Option<u32> {
        step();
        self.next += 1;
        self.waiters.push_back(Waiter::new(self.next, weight, waker));
        Some(self.next)
    }

    fn find(&mut self, id: u32) -> Option<&mut Waiter> {
        step();
        self.waiters.iter_mut().find(|waiter| waiter.id() == id)
    }

    fn remove(&mut self, id: u32) -> Option<Waiter> {
        step();
        let place = self.waiters.iter().position(|waiter| waiter.id() == id)?;
        self.waiters.remove(place)
    }
}

struct CountedQueue(RefCell<Counted>);

impl WaitQueue for CountedQueue {
    type Line = Counted;

    const NEW: Self = Self(RefCell::new(Counted { waiters: VecDeque::new(), next: 0 }));

    fn lock<R>(&self, f: impl FnOnce(&mut Counted) -> R) -> R {
        f(&mut self.0.borrow_mut())
    }
}

/// What it takes to turn somebody away from a full queue so long.
fn full(length: u32, newest_first: bool) -> u32 {
    let config = bulkhead::Config::new(1).with_queue(length, Duration::MAX);
    let config = if newest_first { config.with_newest_first() } else { config };
    let bulkhead = Bulkhead::<Local, CountedQueue>::new(config.validate().expect("it makes sense"));
    let executor = VirtualExecutor::new();
    let mut cx = Context::from_waker(Waker::noop());
    let _held = bulkhead.try_acquire().expect("free");
    let mut waiters: Vec<_> = (0..length).map(|_| Box::pin(bulkhead.acquire(1, &executor))).collect();
    assert!(waiters.iter_mut().all(|waiter| waiter.as_mut().poll(&mut cx).is_pending()));
    let mut newcomer = pin!(bulkhead.acquire(1, &executor));
    steps(|| match newcomer.as_mut().poll(&mut cx) {
        core::task::Poll::Ready(Err(rejection)) => assert_eq!(rejection.reason(), Reason::QueueFull),
        other => assert!(newest_first && other.is_pending(), "it is let in"),
    })
}

#[test]
fn a_long_queue_that_is_full_turns_away_with_as_little_work_as_a_short_one() {
    for newest_first in [false, true] {
        let short = full(8, newest_first);
        assert_eq!(full(10_000, newest_first), short, "newest first: {newest_first}");
        assert!(short <= 8, "{short} looks at those who wait");
    }
}
