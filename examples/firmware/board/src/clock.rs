//! embassy's clock on the core's own timer, without a periodic tick: `SysTick` interrupts when the next alarm is due, or
//! once per 2²⁴ cycles. Under QEMU's instruction counter every run is the same to the byte. In real time the clock stands still while
//! the host doesn't let QEMU run, as soon as that takes more than the running period.

use core::cell::RefCell;
use core::task::Waker;

use cortex_m::peripheral::syst::SystClkSource;
use cortex_m::peripheral::{SCB, SYST};
use cortex_m_rt::exception;
use critical_section::{CriticalSection, Mutex};
use embassy_time_driver::{Driver, TICK_HZ, time_driver_impl};
use embassy_time_queue_utils::Queue;

use crate::{chip, interrupt, watchdog};

/// A whole number, so that the time needs no 64-bit division, which takes 400 instructions on a Cortex-M0.
const CYCLES_PER_TICK: u32 = chip::CORE_HZ / 1_000_000;
const _: () = assert!(TICK_HZ == 1_000_000 && chip::CORE_HZ.is_multiple_of(1_000_000));

/// `SysTick` counts 24 bits.
const LONGEST: u32 = (1 << 24) / CYCLES_PER_TICK;
/// QEMU stretches timer periods below 10 µs.
const SHORTEST: u32 = 10;

struct Clock {
    /// The time when the running period began: whole ticks, and the cycles beyond them.
    ticks: u64,
    cycles: u32,
    /// The length of the running period, in cycles.
    period: u32,
    queue: Queue,
}

impl Clock {
    /// Cycles since [`ticks`](Self::ticks).
    fn elapsed(&self) -> u32 {
        let before = SYST::get_current();
        // A wrap between the two reads shows up here; one already seen by the handler does not.
        let (periods, left) = if SCB::is_pendst_pending() { (2, SYST::get_current()) } else { (1, before) };
        self.cycles + periods * self.period - 1 - left
    }

    fn now(&self) -> u64 {
        self.ticks + u64::from(self.elapsed() / CYCLES_PER_TICK)
    }

    /// Wakes who is due, and starts a period that ends with the next alarm.
    fn proceed(&mut self, cs: CriticalSection<'_>) {
        let now = self.now();
        let alarm = self.queue.next_expiration(now).min(watchdog::due(cs));
        let ticks = u32::try_from(alarm.saturating_sub(now)).unwrap_or(LONGEST).clamp(SHORTEST, LONGEST);

        let elapsed = self.elapsed();
        self.ticks += u64::from(elapsed / CYCLES_PER_TICK);
        self.cycles = elapsed % CYCLES_PER_TICK;
        self.start_period(ticks * CYCLES_PER_TICK);
    }

    fn start_period(&mut self, period: u32) {
        self.period = period;
        let mut timer = timer();
        timer.set_reload(period - 1);
        timer.clear_current();
        // A wrap of the period before: it has been counted by now.
        SCB::clear_pendst();
        timer.enable_counter();
        // The counter takes the new value at its next cycle; until then it would read as the end of the period.
        while SYST::get_current() == 0 {}
    }
}

/// The core's timer.
pub(crate) fn timer() -> SYST {
    // SAFETY: this module alone uses SysTick, or `interrupt` does where no tasks run.
    unsafe { cortex_m::Peripherals::steal() }.SYST
}

struct SysTickDriver(Mutex<RefCell<Clock>>);

time_driver_impl!(static DRIVER: SysTickDriver =
    SysTickDriver(Mutex::new(RefCell::new(Clock { ticks: 0, cycles: 0, period: 1, queue: Queue::new() }))));

impl Driver for SysTickDriver {
    fn now(&self) -> u64 {
        critical_section::with(|cs| self.0.borrow_ref(cs).now())
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        critical_section::with(|cs| {
            let mut clock = self.0.borrow_ref_mut(cs);
            if clock.queue.schedule_wake(at, waker) {
                clock.proceed(cs);
            }
        });
    }
}

/// Starts the clock at zero.
pub(crate) fn start() {
    critical_section::with(|cs| {
        let mut timer = timer();
        timer.set_clock_source(SystClkSource::Core);
        timer.enable_interrupt();
        DRIVER.0.borrow_ref_mut(cs).start_period(LONGEST * CYCLES_PER_TICK);
    });
}

/// Takes a changed [`watchdog::due`] into account.
pub(crate) fn rearm(cs: CriticalSection<'_>) {
    DRIVER.0.borrow_ref_mut(cs).proceed(cs);
}

#[exception]
fn SysTick() {
    if interrupt::on_timer() {
        return;
    }
    critical_section::with(|cs| {
        let mut clock = DRIVER.0.borrow_ref_mut(cs);
        // The wrap that brought us here is no longer pending, so it has to be counted.
        clock.cycles += clock.period;
        clock.proceed(cs);
        let now = clock.now();
        // The watchdog's last words carry a timestamp.
        drop(clock);
        watchdog::check(cs, now);
    });
}
