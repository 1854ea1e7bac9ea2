//! One way to say a script for both checkers, and an executor whose time stands still.

use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::{Context, Poll, Waker};
use std::sync::Mutex;

use failsoft_tokio::circuit_breaker::{StateKind, Transition};
use failsoft_tokio::{Clock, Executor, Instant, Observer};

#[cfg(failsoft_loom)]
pub(crate) use loom::{future::block_on, sync::atomic::AtomicUsize as Modelled, thread};
#[cfg(failsoft_shuttle)]
pub(crate) use shuttle::{future::block_on, sync::atomic::AtomicUsize as Modelled, thread};

/// Runs a script of two threads in all orders, and prints how many there are.
#[cfg(failsoft_loom)]
pub(crate) fn check(name: &str, script: impl Fn() + Send + Sync + 'static) {
    explore(name, None, script);
}

/// Runs a script of more threads in all orders in which threads are preempted at most three times: there are too many others, and most
/// faults of concurrency need no more than two.
#[cfg(failsoft_loom)]
pub(crate) fn check_many(name: &str, script: impl Fn() + Send + Sync + 'static) {
    explore(name, Some(3), script);
}

/// loom finds the orders from what conflicts with a write that has been, so a thread that only reads is to run last: it is spawned, and what
/// writes is left to the thread that spawns it.
#[cfg(failsoft_loom)]
fn explore(name: &str, preemptions: Option<usize>, script: impl Fn() + Send + Sync + 'static) {
    static ORDERS: Mutex<()> = Mutex::new(());
    // One at a time, so that the figures stand with their names.
    let _one = ORDERS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let seen = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = seen.clone();
    let mut model = loom::model::Builder::new();
    model.preemption_bound = preemptions;
    model.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        script();
    });
    println!("loom {name}: {} orders", seen.load(Ordering::Relaxed));
}

/// Orders that shuttle draws for each script.
#[cfg(failsoft_shuttle)]
const DRAWN: usize = 20_000;

/// Runs a script in many orders, and prints in how many.
#[cfg(failsoft_shuttle)]
pub(crate) fn check_many(name: &str, script: impl Fn() + Send + Sync + 'static) {
    check(name, script);
}

/// Runs a script in many orders, and prints in how many.
#[cfg(failsoft_shuttle)]
pub(crate) fn check(name: &str, script: impl Fn() + Send + Sync + 'static) {
    shuttle::check_pct(script, DRAWN, 3);
    println!("shuttle {name}: {DRAWN} orders");
}

/// An executor whose time stands still: its sleeps never end.
#[derive(Clone, Copy)]
pub(crate) struct Still;

impl Clock for Still {
    fn now(&self) -> Instant {
        Instant::START
    }
}

impl Executor for Still {
    type Sleep = Never;

    fn sleep_until(&self, _: Instant) -> Never {
        Never
    }

    fn random(&self) -> u32 {
        0
    }
}

pub(crate) struct Never;

impl Future for Never {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

/// Polls a future once, for a task that is never woken.
pub(crate) fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// How many are within at once, and how many have ever been. Outside the model: it only looks on.
#[derive(Default)]
pub(crate) struct Inside {
    now: AtomicUsize,
    ever: AtomicUsize,
}

impl Inside {
    /// Somebody comes in; there may be `most` at once.
    pub(crate) fn enter(&self, most: usize) {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(now <= most, "{now} at once, {most} allowed");
        self.ever.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn leave(&self) {
        self.now.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn ever(&self) -> usize {
        self.ever.load(Ordering::SeqCst)
    }
}

/// The transitions of a breaker that begins closed.
#[derive(Default)]
pub(crate) struct Log(Mutex<Vec<Transition>>);

impl Observer<Transition> for &Log {
    fn observe(&self, event: &Transition) {
        self.0.lock().expect("nobody panics under it").push(*event);
    }
}

impl Log {
    pub(crate) fn clear(&self) {
        self.0.lock().expect("nobody panics under it").clear();
    }

    /// The states that the breaker went through. Each change was told of once, and follows from the one before.
    pub(crate) fn path(&self) -> Vec<StateKind> {
        let mut events = self.0.lock().expect("nobody panics under it").clone();
        // Told after the change, outside any lock: perhaps in another order.
        events.sort_by_key(|event| event.generation);
        let first = events.first().map_or(0, |event| event.generation);
        let mut path = vec![StateKind::Closed];
        for (generation, event) in (first..).zip(&events) {
            assert_eq!(event.generation, generation, "each change once: {events:?}");
            assert_eq!(path.last(), Some(&event.from), "each from where the last one led: {events:?}");
            path.push(event.to);
        }
        path
    }
}
