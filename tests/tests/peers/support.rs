//! What the tests of failsoft and those of other crates share: polling by hand, and panics that are expected.

use core::cell::Cell;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicU32, Ordering};
use core::task::{Context, Poll, Waker};
use std::sync::Arc;
use std::task::Wake;

/// Polls once.
pub(crate) fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A waker that counts.
#[derive(Default)]
pub(crate) struct Woken(AtomicU32);

impl Woken {
    pub(crate) fn times(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn poll<F: Future>(self: &Arc<Self>, future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(&Waker::from(self.clone())))
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs `f`, which is to panic, without a word on the console.
pub(crate) fn panics(f: impl FnOnce()) -> bool {
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

/// A panic that the lints of this workspace let pass.
pub(crate) fn panic_now() -> ! {
    std::panic::resume_unwind(Box::new("expected"))
}
