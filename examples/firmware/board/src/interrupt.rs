//! An interrupt of the image's own.

use core::cell::Cell;

use critical_section::Mutex;

use crate::{arch, chip};

/// The first period, in cycles of the timer.
const FIRST: u32 = 1 << 12;

static WORK: Mutex<Cell<Option<fn() -> u32>>> = Mutex::new(Cell::new(None));

/// Calls `work` in the interrupt of the core's timer, for ever, in an image that doesn't [`run`](crate::run) tasks: their clock has the
/// same timer. It says how many cycles of the timer the period after the running one has, up to 2²⁴.
pub fn interrupt(work: fn() -> u32) {
    chip::start();
    critical_section::with(|cs| WORK.borrow(cs).set(Some(work)));
    arch::start_interrupts(FIRST);
}

/// Serves the timer's interrupt if it is the image's own.
pub(crate) fn on_timer() -> bool {
    // Outside the critical section: `work` is to be as any interrupt is.
    let Some(work) = critical_section::with(|cs| WORK.borrow(cs).get()) else { return false };
    arch::next_interrupt(work());
    true
}
