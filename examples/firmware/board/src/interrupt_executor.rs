//! An executor that runs in an interrupt, above that of [`run`](crate::run).

use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use embassy_executor::{SendSpawner, raw};
use static_cell::StaticCell;

use crate::arch;

/// Null in an image that has none, for which the compiler then leaves out all that belongs to it.
static RUNNING: AtomicPtr<raw::Executor> = AtomicPtr::new(ptr::null_mut());

/// Starts a second executor beside that of [`run`](crate::run), from within its `init` or later. Its tasks run in the
/// core's software interrupt: they preempt those of `run`, and are preempted by every other interrupt.
///
/// # Panics
///
/// When called twice.
pub fn interrupt_executor() -> SendSpawner {
    static EXECUTOR: StaticCell<raw::Executor> = StaticCell::new();

    // Whatever isn't null tells it from the other one.
    let context = RUNNING.as_ptr().cast();
    let executor: &'static raw::Executor = EXECUTOR.init(raw::Executor::new(context));
    RUNNING.store(ptr::from_ref(executor).cast_mut(), Ordering::Release);
    arch::start_software_interrupt();
    executor.spawner().make_send()
}

/// Has it polled soon, if there is one.
pub(crate) fn pend() -> bool {
    let exists = running().is_some();
    if exists {
        arch::pend_software_interrupt();
    }
    exists
}

/// The executor, for the software interrupt, which polls it.
pub(crate) fn running() -> Option<&'static raw::Executor> {
    // SAFETY: null or a static's, to which only shared references exist.
    unsafe { RUNNING.load(Ordering::Acquire).as_ref() }
}
