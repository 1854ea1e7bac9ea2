//! Bugs that other Rust crates have, each as a test that failsoft passes: all in virtual time, with fixed seeds, by the public API.
//!
//! `tests/peers-bugs.md` says which test stands for which bug. `peers_fail` runs the same programs on the crates that have them.

mod breaker;
mod composition;
mod delay;
mod half_open;
mod limits;
mod list;

use core::cell::Cell;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Wake;

use failsoft_core::cell::CellKind;
use failsoft_core::circuit_breaker::{CircuitBreaker, State, StateKind, Transition, Trip};
use failsoft_core::{Clock, Observer};

const SECOND: Duration = Duration::from_secs(1);

/// Offers so many calls at once, which stay out, and says how many were let through.
fn admitted_at_once<K, T, O>(breaker: &CircuitBreaker<K, T, O>, clock: &impl Clock, calls: usize) -> usize
where
    T: Copy + Trip,
    K: CellKind<State<T::Meter>>,
    O: Observer<Transition>,
{
    let permits: Vec<_> = (0..calls).filter_map(|_| breaker.try_acquire(clock).ok()).collect();
    permits.len()
}

/// Fails until the breaker opens, and says how many failures that took.
fn failures_to_open<K, T, O>(breaker: &CircuitBreaker<K, T, O>, clock: &impl Clock, at_most: u32) -> u32
where
    T: Copy + Trip,
    K: CellKind<State<T::Meter>>,
    O: Observer<Transition>,
{
    for failures in 0..at_most {
        match breaker.try_acquire(clock) {
            Ok(permit) => permit.failure(),
            Err(_) => return failures,
        }
    }
    assert_eq!(breaker.state(), StateKind::Open, "not even after {at_most} failures");
    at_most
}

/// Polls once.
fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A waker that counts.
#[derive(Default)]
struct Woken(AtomicU32);

impl Woken {
    fn times(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    fn poll<F: Future>(self: &Arc<Self>, future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(&Waker::from(self.clone())))
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs `f`, which is to panic, without a word on the console.
fn panics(f: impl FnOnce()) -> bool {
    thread_local!(static QUIET: Cell<bool> = const { Cell::new(false) });
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info);
            }
        }));
    });
    QUIET.set(true);
    let panicked = std::panic::catch_unwind(core::panic::AssertUnwindSafe(f)).is_err();
    QUIET.set(false);
    panicked
}
