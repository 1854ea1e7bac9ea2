//! embassy as an executor: its clock and timers, and jitter from the device's own seed.

use core::sync::atomic::{AtomicU32, Ordering};

use embassy_time::{TICK_HZ, Timer};
use failsoft_core::{Clock, Executor, Instant, Rng};

/// The executor for embassy tasks. It is meant for a `static`; policies take it by reference.
///
/// embassy's tick rate bounds the precision: deadlines are rounded up to a tick, so that a timer never fires early.
///
/// Whether the clock goes on while the chip sleeps deeply is up to its time driver. If it stands still, time limits and open periods last
/// longer by the sleep; if it goes on, all that was due meanwhile is due at once, and each call under way times out once.
#[derive(Debug)]
pub struct Embassy {
    rng: Rng,
    // Only loaded and stored, never exchanged: some chips can't. Two who draw at the same instant may draw the same
    // number, which is harmless.
    draws: AtomicU32,
}

impl Embassy {
    /// An executor whose jitter comes from `seed`: the device's unique number, an entropy source, a counter of boots, or all of these
    /// [in one](Rng::seed). There is no default, because devices that share their seed come back all at the same time.
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
        Instant::from_nanos(Ticks::<TICK_HZ>::to_nanos(embassy_time::Instant::now().as_ticks()))
    }
}

impl Executor for Embassy {
    type Sleep = Timer;

    fn sleep_until(&self, at: Instant) -> Timer {
        Timer::at(embassy_time::Instant::from_ticks(Ticks::<TICK_HZ>::from_nanos(at.as_nanos())))
    }

    fn random(&self) -> u32 {
        let draw = self.draws.load(Ordering::Relaxed);
        self.draws.store(draw.wrapping_add(1), Ordering::Relaxed);
        self.rng.at(draw)
    }
}

/// Ticks of which there are `HZ` a second, and nanoseconds.
struct Ticks<const HZ: u64>;

impl<const HZ: u64> Ticks<HZ> {
    /// `TICKS` ticks are `NANOS` nanoseconds, in lowest terms.
    const NANOS: u64 = 1_000_000_000 / common(1_000_000_000, HZ);
    const TICKS: u64 = HZ / common(1_000_000_000, HZ);

    /// Whole periods first, so that nothing overflows before the result does.
    const fn to_nanos(ticks: u64) -> u64 {
        let whole = ticks / Self::TICKS;
        let rest = ticks - whole * Self::TICKS;
        whole.saturating_mul(Self::NANOS).saturating_add(rest * Self::NANOS / Self::TICKS)
    }

    const fn from_nanos(nanos: u64) -> u64 {
        let whole = nanos / Self::NANOS;
        let rest = nanos - whole * Self::NANOS;
        whole.saturating_mul(Self::TICKS).saturating_add((rest * Self::TICKS).div_ceil(Self::NANOS))
    }
}

const fn common(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways against arithmetic that can't overflow, at a rate.
    fn agrees<const HZ: u64>() {
        let mut rng = Rng::new(HZ);
        let mut draw = || u64::from(rng.next()) << 32 | u64::from(rng.next());
        let any = core::iter::from_fn(|| Some(draw() >> (draw() % 64)));
        for value in
            [0, 1, HZ - 1, HZ, HZ + 1, 1_000_000_000, u64::MAX - 1, u64::MAX].into_iter().chain(any.take(10_000))
        {
            let wide = u128::from(value);
            let nanos = wide * 1_000_000_000 / u128::from(HZ);
            assert_eq!(
                u128::from(Ticks::<HZ>::to_nanos(value)),
                nanos.min(u64::MAX.into()),
                "{value} ticks at {HZ} Hz"
            );
            let ticks = (wide * u128::from(HZ)).div_ceil(1_000_000_000);
            assert_eq!(u128::from(Ticks::<HZ>::from_nanos(value)), ticks.min(u64::MAX.into()), "{value} ns at {HZ} Hz");
            if nanos <= u64::MAX.into() {
                assert_eq!(Ticks::<HZ>::from_nanos(Ticks::<HZ>::to_nanos(value)), value, "there and back at {HZ} Hz");
            }
        }
    }

    #[test]
    fn ticks_of_any_rate_are_converted_exactly_and_deadlines_rounded_up() {
        agrees::<1>();
        agrees::<100>();
        agrees::<1_000>();
        agrees::<32_768>();
        agrees::<1_000_000>();
        agrees::<16_000_000>();
        // Nothing to shorten.
        agrees::<999_999_937>();
        agrees::<1_000_000_000>();
    }
}
