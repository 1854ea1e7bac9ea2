//! A watchdog in software, since QEMU emulates none for every board here.

use core::cell::Cell;

use critical_section::{CriticalSection, Mutex};
use embassy_time::{Duration, Instant};

use crate::{clock, exit, exit_code};

/// When it bites, in ticks.
static DUE: Mutex<Cell<u64>> = Mutex::new(Cell::new(u64::MAX));

/// Ends the image with [`exit_code::WATCHDOG`] unless it is fed in time.
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
        let now = Instant::now();
        critical_section::with(|cs| {
            DUE.borrow(cs).set((now + period).as_ticks());
            clock::rearm(cs);
        });
        Self { period, fed_at: now, longest_gap: Duration::MIN }
    }

    /// Grants another period.
    pub fn feed(&mut self) {
        let now = Instant::now();
        // No need to re-arm: the interrupt at the old deadline finds a later one.
        critical_section::with(|cs| DUE.borrow(cs).set((now + self.period).as_ticks()));
        self.longest_gap = self.longest_gap.max(now - self.fed_at);
        self.fed_at = now;
    }

    /// The longest time it went unfed.
    pub fn longest_gap(&self) -> Duration {
        self.longest_gap
    }
}

pub(crate) fn due(cs: CriticalSection<'_>) -> u64 {
    DUE.borrow(cs).get()
}

pub(crate) fn check(cs: CriticalSection<'_>, now: u64) {
    if now >= due(cs) {
        defmt::error!("watchdog: not fed in time");
        exit(exit_code::WATCHDOG)
    }
}
