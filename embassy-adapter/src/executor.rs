//! embassy as an executor: its clock and timers, and jitter from the device's own seed.

use core::sync::atomic::{AtomicU32, Ordering};

use embassy_time::{TICK_HZ, Timer};
use failsoft_core::{Clock, Executor, Instant, Rng};

/// The executor for embassy tasks. It is meant for a `static`; policies take it by reference.
///
/// embassy's tick rate bounds the precision: deadlines are rounded up to a tick, so that a timer never fires early.
#[derive(Debug)]
pub struct Embassy {
    rng: Rng,
    // Only loaded and stored, never exchanged: some chips can't. Two who draw at the same instant may draw the same
    // number, which is harmless.
    draws: AtomicU32,
}

impl Embassy {
    /// An executor whose jitter comes from `seed`: the device's unique number, an entropy source, a counter of boots, or all of these
    /// hashed together. There is no default, because devices that share their seed come back all at the same time.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { rng: Rng::new(seed), draws: AtomicU32::new(0) }
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for Embassy {
    fn format(&self, f: defmt::Formatter<'_>) {
        // Not the seed: it may be a secret of the device.
        defmt::write!(f, "Embassy {{ draws: {} }}", self.draws.load(Ordering::Relaxed));
    }
}

impl Clock for Embassy {
    fn now(&self) -> Instant {
        Instant::from_nanos(to_nanos(embassy_time::Instant::now().as_ticks()))
    }
}

impl Executor for Embassy {
    type Sleep = Timer;

    fn sleep_until(&self, at: Instant) -> Timer {
        Timer::at(embassy_time::Instant::from_ticks(to_ticks(at.as_nanos())))
    }

    fn random(&self) -> u32 {
        let draw = self.draws.load(Ordering::Relaxed);
        self.draws.store(draw.wrapping_add(1), Ordering::Relaxed);
        self.rng.at(draw)
    }
}

/// `TICKS` ticks are `NANOS` nanoseconds, in lowest terms.
const NANOS: u64 = 1_000_000_000 / common(1_000_000_000, TICK_HZ);
const TICKS: u64 = TICK_HZ / common(1_000_000_000, TICK_HZ);

const fn common(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common(b, a % b) }
}

/// Whole periods first, so that nothing overflows before the result does.
const fn to_nanos(ticks: u64) -> u64 {
    let whole = ticks / TICKS;
    let rest = ticks - whole * TICKS;
    whole.saturating_mul(NANOS).saturating_add(rest * NANOS / TICKS)
}

const fn to_ticks(nanos: u64) -> u64 {
    let whole = nanos / NANOS;
    let rest = nanos - whole * NANOS;
    whole.saturating_mul(TICKS).saturating_add((rest * TICKS).div_ceil(NANOS))
}
