//! An interrupt of the image's own.

use core::cell::Cell;

use critical_section::{CriticalSection, Mutex};
use embassy_time::{Duration, Instant};

use crate::{arch, chip, clock};

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

#[derive(Clone, Copy)]
struct Alarm {
    work: fn() -> Duration,
    /// In ticks.
    due: u64,
}

static ALARM: Mutex<Cell<Option<Alarm>>> = Mutex::new(Cell::new(None));

/// Calls `work` in an interrupt, in an image that [`run`](crate::run)s tasks, and preempts all of them. It says after
/// how long it is to be called again; `Duration::MAX` is never. The clock goes on meanwhile, but on RISC-V nobody is
/// woken by it until `work` returns.
pub fn alarm(work: fn() -> Duration) {
    arch::start_alarm();
    set_alarm(work, Duration::MIN);
}

fn set_alarm(work: fn() -> Duration, after: Duration) {
    let due = Instant::now().as_ticks().saturating_add(after.as_ticks());
    critical_section::with(|cs| {
        ALARM.borrow(cs).set(Some(Alarm { work, due }));
        clock::rearm(cs);
    });
}

/// When the alarm is due, in ticks.
pub(crate) fn due(cs: CriticalSection<'_>) -> u64 {
    ALARM.borrow(cs).get().map_or(u64::MAX, |alarm| alarm.due)
}

/// Whether the alarm is due; once.
pub(crate) fn take_due(cs: CriticalSection<'_>, now: impl FnOnce() -> u64) -> bool {
    let Some(alarm) = ALARM.borrow(cs).get().filter(|alarm| alarm.due <= now()) else { return false };
    ALARM.borrow(cs).set(Some(Alarm { due: u64::MAX, ..alarm }));
    true
}

/// Serves the alarm's interrupt, if there is an alarm.
pub(crate) fn on_alarm() -> bool {
    let Some(Alarm { work, .. }) = critical_section::with(|cs| ALARM.borrow(cs).get()) else { return false };
    set_alarm(work, work());
    true
}
