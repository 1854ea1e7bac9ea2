//! An interrupt of the image's own.

use core::cell::Cell;

use cortex_m::peripheral::syst::SystClkSource;
use critical_section::Mutex;

use crate::{chip, clock};

/// The cycles of the first period.
const FIRST: u32 = 1 << 12;

static WORK: Mutex<Cell<Option<fn() -> u32>>> = Mutex::new(Cell::new(None));

/// Calls `work` in the interrupt of the core's timer, for ever, in an image that doesn't [`run`](crate::run) tasks: their clock has the
/// same timer. It says how many cycles the period after the running one has, up to 2²⁴.
pub fn interrupt(work: fn() -> u32) {
    chip::start();
    critical_section::with(|cs| WORK.borrow(cs).set(Some(work)));
    let mut timer = clock::timer();
    timer.set_clock_source(SystClkSource::Core);
    timer.set_reload(FIRST - 1);
    timer.clear_current();
    timer.enable_interrupt();
    timer.enable_counter();
}

/// Serves the timer's interrupt if it is the image's own.
pub(crate) fn on_timer() -> bool {
    // Outside the critical section: `work` is to be as any interrupt is.
    let Some(work) = critical_section::with(|cs| WORK.borrow(cs).get()) else { return false };
    clock::timer().set_reload(work().saturating_sub(1));
    true
}
