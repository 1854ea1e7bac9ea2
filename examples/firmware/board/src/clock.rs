//! embassy's clock on the core's own timer, without a periodic tick. Under QEMU's instruction counter every run is the same to the byte. In
//! real time a Cortex-M's clock stands still while the host doesn't let QEMU run, as soon as that takes more than the running period.

use core::cell::RefCell;
use core::task::Waker;

use critical_section::{CriticalSection, Mutex};
use embassy_time_driver::{Driver, TICK_HZ, time_driver_impl};
use embassy_time_queue_utils::Queue;

use crate::arch::{self, Timer};
use crate::{interrupt, watchdog};

const _: () = assert!(TICK_HZ == 1_000_000, "the timers count microseconds");

struct Clock {
    timer: Timer,
    queue: Queue,
}

impl Clock {
    /// Wakes who is due, and sets the next alarm.
    fn proceed(&mut self, cs: CriticalSection<'_>) {
        let alarm = self.queue.next_expiration(self.timer.now()).min(watchdog::due(cs)).min(interrupt::due(cs));
        self.timer.set_alarm(alarm);
    }
}

struct TimerDriver(Mutex<RefCell<Clock>>);

time_driver_impl!(static DRIVER: TimerDriver =
    TimerDriver(Mutex::new(RefCell::new(Clock { timer: Timer::new(), queue: Queue::new() }))));

impl Driver for TimerDriver {
    fn now(&self) -> u64 {
        critical_section::with(|cs| self.0.borrow_ref(cs).timer.now())
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
    critical_section::with(|cs| DRIVER.0.borrow_ref_mut(cs).timer.start());
}

/// Takes a changed [`watchdog::due`] into account.
pub(crate) fn rearm(cs: CriticalSection<'_>) {
    DRIVER.0.borrow_ref_mut(cs).proceed(cs);
}

/// Serves the timer's interrupt.
pub(crate) fn on_interrupt() {
    if interrupt::on_timer() {
        return;
    }
    let alarm = critical_section::with(|cs| {
        let mut clock = DRIVER.0.borrow_ref_mut(cs);
        clock.timer.on_interrupt();
        // Before the next alarm is set, or it would be this one again.
        let alarm = interrupt::take_due(cs, || clock.timer.now());
        clock.proceed(cs);
        let now = clock.timer.now();
        // The watchdog's last words carry a timestamp.
        drop(clock);
        watchdog::check(cs, now);
        alarm
    });
    if alarm {
        arch::on_alarm();
    }
}
