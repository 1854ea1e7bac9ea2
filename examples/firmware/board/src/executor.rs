//! An executor that sleeps by WFI.

use core::cell::Cell;
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};

use critical_section::Mutex;
use embassy_executor::{Spawner, raw};
use embassy_time::{Duration, Instant};
use static_cell::StaticCell;

use crate::{arch, chip, clock, interrupt_executor, paint_stack};

/// Whether a task has been woken since the last poll.
static WOKEN: AtomicBool = AtomicBool::new(false);

/// The time asleep so far.
static ASLEEP: Mutex<Cell<Duration>> = Mutex::new(Cell::new(Duration::MIN));

/// For how long the image has been asleep since it began to [`run`]: the core stood still, and waited for an interrupt.
pub fn asleep() -> Duration {
    critical_section::with(|cs| ASLEEP.borrow(cs).get())
}

/// All executors have this one: they are told apart by what they were made with, which is null for that of [`run`].
#[unsafe(export_name = "__pender")]
fn pend(context: *mut ()) {
    if context.is_null() || !interrupt_executor::pend() {
        WOKEN.store(true, Ordering::Release);
    }
}

/// Starts the board, lets `init` spawn the first tasks, and runs them for ever.
///
/// embassy's own executor for Cortex-M waits by WFE, on which QEMU spins. This one waits by WFI, so an idle image costs the
/// host nothing, and the instruction counter can skip the wait.
///
/// # Panics
///
/// When called twice.
pub fn run(init: impl FnOnce(Spawner)) -> ! {
    run_from(0, init)
}

/// [`run`], with a clock that starts as if so many ticks had passed already.
///
/// # Panics
///
/// When called twice.
pub fn run_from(ticks: u32, init: impl FnOnce(Spawner)) -> ! {
    static EXECUTOR: StaticCell<raw::Executor> = StaticCell::new();

    paint_stack();
    chip::start();
    clock::start(ticks);
    let executor = EXECUTOR.init(raw::Executor::new(ptr::null_mut()));
    init(executor.spawner());
    loop {
        // SAFETY: polled here only, and no task can call `run` a second time.
        unsafe { executor.poll() };
        // Interrupts are masked: one that comes between the question and WFI is still pending then, and ends the WFI.
        critical_section::with(|cs| {
            if WOKEN.load(Ordering::Acquire) {
                WOKEN.store(false, Ordering::Release);
            } else {
                let since = Instant::now();
                arch::sleep();
                ASLEEP.borrow(cs).set(ASLEEP.borrow(cs).get() + since.elapsed());
            }
        });
    }
}
