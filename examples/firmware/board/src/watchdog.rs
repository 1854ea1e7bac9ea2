//! Watchdogs: one that ends the image, and one that resets the chip.

use core::cell::Cell;

use critical_section::{CriticalSection, Mutex};
use embassy_time::{Duration, Instant};

use crate::{chip, clock, exit, exit_code};

/// Ends the image with [`exit_code::WATCHDOG`] unless it is fed in time: for images in which that is a failure.
///
/// It lives in the clock's interrupt, as a real one lives in its own circuit: a task that never yields doesn't escape it.
#[derive(Debug, defmt::Format)]
pub struct Watchdog {
    period: Duration,
    fed_at: Instant,
    longest_gap: Duration,
}

impl Watchdog {
    /// Starts it; from now on it must be [fed](Self::feed) once per `period`. As on a chip, nothing stops it again.
    pub fn start(period: Duration) -> Self {
        software::start_with(period, || exit(exit_code::WATCHDOG));
        Self { period, fed_at: Instant::now(), longest_gap: Duration::MIN }
    }

    /// Grants another period.
    pub fn feed(&mut self) {
        let now = Instant::now();
        software::feed(self.period);
        self.longest_gap = self.longest_gap.max(now - self.fed_at);
        self.fed_at = now;
    }

    /// The longest time it went unfed.
    pub fn longest_gap(&self) -> Duration {
        self.longest_gap
    }
}

/// Resets the chip unless it is fed in time: the chip's own watchdog where the emulator has it, and else one in the clock's interrupt.
#[derive(Debug, defmt::Format)]
pub struct ResetWatchdog {
    period: Duration,
}

impl ResetWatchdog {
    /// Whether it is the chip's own, which also ends what masks interrupts for ever.
    pub const IS_HARDWARE: bool = chip::watchdog::IS_HARDWARE;

    /// Starts it; from now on it must be [fed](Self::feed) once per `period`, up to two minutes. Nothing but a reset stops it again.
    pub fn start(period: Duration) -> Self {
        chip::watchdog::start(period);
        Self { period }
    }

    /// Grants another period.
    pub fn feed(&mut self) {
        chip::watchdog::feed(self.period);
    }
}

/// A watchdog in the clock's interrupt.
pub(crate) mod software {
    use super::{Cell, CriticalSection, Duration, Instant, Mutex, clock};

    #[cfg(not(feature = "lm3s6965"))]
    pub(crate) const IS_HARDWARE: bool = false;

    /// When it bites, in ticks, and how.
    static DUE: Mutex<Cell<u64>> = Mutex::new(Cell::new(u64::MAX));
    static BITE: Mutex<Cell<fn() -> !>> = Mutex::new(Cell::new(|| crate::reset()));

    pub(super) fn start_with(period: Duration, bite: fn() -> !) {
        critical_section::with(|cs| {
            BITE.borrow(cs).set(bite);
            DUE.borrow(cs).set((Instant::now() + period).as_ticks());
            clock::rearm(cs);
        });
    }

    #[cfg(not(feature = "lm3s6965"))]
    pub(crate) fn start(period: Duration) {
        start_with(period, || crate::reset());
    }

    /// No need to re-arm: the interrupt at the old deadline finds a later one.
    pub(crate) fn feed(period: Duration) {
        critical_section::with(|cs| DUE.borrow(cs).set((Instant::now() + period).as_ticks()));
    }

    pub(crate) fn due(cs: CriticalSection<'_>) -> u64 {
        DUE.borrow(cs).get()
    }

    pub(crate) fn check(cs: CriticalSection<'_>, now: u64) {
        if now >= due(cs) {
            defmt::error!("watchdog: not fed in time");
            BITE.borrow(cs).get()()
        }
    }
}

pub(crate) use software::{check, due};
