//! Drives futures on embassy's mock driver, one tick at a time.

#![allow(dead_code, reason = "not every test needs everything")]

use core::future::Future;
use core::pin::pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Wake;

use embassy_time::MockDriver;

/// One tick, in ticks.
pub(crate) const TICK: u64 = 1;

/// The mock driver, which all tests of a process share: one at a time has it, with the clock at its start.
pub(crate) struct Bench {
    _turn: MutexGuard<'static, ()>,
}

/// A waker that remembers that it was called.
#[derive(Default)]
pub(crate) struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Flag {
    /// Whether it was called since the last time.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }
}

impl Bench {
    pub(crate) fn take() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        MockDriver::get().reset();
        Self { _turn: turn }
    }

    /// Lets so many ticks pass.
    pub(crate) fn advance(&self, ticks: u64) {
        MockDriver::get().advance(embassy_time::Duration::from_ticks(ticks));
    }

    /// Runs a future to its end, and says how many ticks that took.
    pub(crate) fn run<F: Future>(&self, future: F) -> (F::Output, u64) {
        self.run_for(10_000_000, future).expect("it ends")
    }

    /// Runs a future for so many ticks; `None` if it has not ended by then. It is polled only when its waker was called.
    pub(crate) fn run_for<F: Future>(&self, ticks: u64, future: F) -> Option<(F::Output, u64)> {
        let mut future = pin!(future);
        let flag = Arc::new(Flag::default());
        let waker = Waker::from(flag.clone());
        let mut woken = true;
        for tick in 0..=ticks {
            let mut polls = 0;
            while woken {
                if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return Some((output, tick));
                }
                woken = flag.take();
                polls += 1;
                assert!(polls < 100, "it wakes itself without end while the clock stands still");
            }
            self.advance(TICK);
            woken = flag.take();
        }
        None
    }
}
