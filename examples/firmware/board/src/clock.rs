//! embassy's clock on the core's own timer, without a periodic tick, at a rate that a feature chooses. Of the timer it takes a counter of
//! ticks of 32 bits, as many chips have one in hardware, and extends it.
//!
//! Under QEMU's instruction counter every run is the same to the byte. There a Cortex-M's sleep takes the emulator twice as long as `SysTick`
//! tells: the timer's reload, when the alarm is due, makes it skip the next period too, before the core wakes. In real time a Cortex-M's
//! clock stands still while the host doesn't let QEMU run, as soon as that takes more than the running period.

use core::cell::RefCell;
use core::task::Waker;

use critical_section::{CriticalSection, Mutex};
use embassy_time_driver::{Driver, TICK_HZ, time_driver_impl};
use embassy_time_queue_utils::Queue;
use ticks::Extended;

use crate::arch::{self, Timer};
use crate::{interrupt, watchdog};

/// Ticks a second.
#[expect(clippy::cast_possible_truncation, reason = "the rates that there are features for fit")]
pub(crate) const HZ: u32 = TICK_HZ as u32;

struct Clock {
    timer: Timer,
    time: Extended<32>,
    queue: Queue,
}

impl Clock {
    /// What has been told is not taken back, even if the counter steps back.
    fn now(&mut self) -> u64 {
        self.time.look(self.timer.now())
    }

    /// Wakes who is due, and sets the next alarm.
    #[expect(clippy::cast_possible_truncation, reason = "the alarm is set by the counter's 32 bits")]
    fn proceed(&mut self, cs: CriticalSection<'_>) {
        let now = self.now();
        let alarm = self.queue.next_expiration(now).min(watchdog::due(cs)).min(interrupt::due(cs));
        // A far one in parts, so that no wrap goes unseen.
        self.timer.set_alarm(alarm.clamp(now, now + Extended::<32>::QUARTER) as u32);
    }
}

struct TimerDriver(Mutex<RefCell<Clock>>);

time_driver_impl!(static DRIVER: TimerDriver =
TimerDriver(Mutex::new(RefCell::new(Clock {
    timer: Timer::new(),
    time: Extended::new(0),
    queue: Queue::new(),
}))));

impl Driver for TimerDriver {
    fn now(&self) -> u64 {
        critical_section::with(|cs| self.0.borrow_ref_mut(cs).now())
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

/// Starts the clock at a time.
pub(crate) fn start(ticks: u32) {
    critical_section::with(|cs| {
        let mut clock = DRIVER.0.borrow_ref_mut(cs);
        clock.timer.start(ticks);
        clock.time = Extended::new(ticks.into());
    });
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
        let alarm = interrupt::take_due(cs, || clock.now());
        clock.proceed(cs);
        let now = clock.now();
        // The watchdog's last words carry a timestamp.
        drop(clock);
        watchdog::check(cs, now);
        alarm
    });
    if alarm {
        arch::on_alarm();
    }
}
