//! From a timer's cycles to ticks.

/// Ticks, `HZ` a second, counted by a timer of `TIMER_HZ`: as a chip's own counter of 32 bits does, it wraps.
///
/// It is exact however the rates divide: what is beyond the last whole tick is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Counter<const TIMER_HZ: u32, const HZ: u32> {
    ticks: u32,
    /// Beyond them, in parts of which a cycle has `TICKS`, and a tick `CYCLES`.
    parts: u32,
}

impl<const TIMER_HZ: u32, const HZ: u32> Counter<TIMER_HZ, HZ> {
    /// `TICKS` ticks are `CYCLES` cycles, in lowest terms.
    const TICKS: u32 = HZ / common(TIMER_HZ, HZ);
    const CYCLES: u32 = TIMER_HZ / common(TIMER_HZ, HZ);

    /// At the beginning of a tick.
    pub const fn new(ticks: u32) -> Self {
        // Then nothing here overflows.
        const { assert!(Self::TICKS < 1 << 15 && Self::CYCLES < 1 << 17 && Self::TICKS <= Self::CYCLES) };
        Self { ticks, parts: 0 }
    }

    /// The counter itself.
    pub const fn ticks(self) -> u32 {
        self.ticks
    }

    /// So many cycles later.
    #[must_use]
    pub const fn after(self, cycles: u32) -> Self {
        // Whole periods first: they have no parts.
        let whole = cycles / Self::CYCLES * Self::TICKS;
        let parts = self.parts + cycles % Self::CYCLES * Self::TICKS;
        Self { ticks: self.ticks.wrapping_add(whole + parts / Self::CYCLES), parts: parts % Self::CYCLES }
    }

    /// The cycles until the counter gets to `at`, or fewer where these are very many; none if it has been there in the last half of its
    /// range.
    pub const fn cycles_until(self, at: u32) -> u32 {
        let ahead = at.wrapping_sub(self.ticks).cast_signed();
        if ahead <= 0 {
            return 0;
        }
        let most = u32::MAX / Self::CYCLES;
        let ahead = if ahead.cast_unsigned() < most { ahead.cast_unsigned() } else { most };
        (ahead * Self::CYCLES - self.parts).div_ceil(Self::TICKS)
    }
}

const fn common(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { common(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From some place in some second, by steps of some lengths, against arithmetic that neither rounds nor wraps.
    fn agrees<const TIMER_HZ: u32, const HZ: u32>() {
        let start = u32::MAX - HZ;
        let ticks_at = |cycles: u64| u64::from(start) + cycles * u64::from(HZ) / u64::from(TIMER_HZ);
        let wrapped = |ticks: u64| u32::try_from(ticks % (1 << 32)).expect("cut to 32 bits");
        let mut counter = Counter::<TIMER_HZ, HZ>::new(start);
        let (mut cycles, mut step) = (0_u64, 1_u32);
        for _ in 0..20_000 {
            step = step.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let length = step >> (step % 32);
            counter = counter.after(length);
            cycles += u64::from(length);
            assert_eq!(counter.ticks(), wrapped(ticks_at(cycles)), "{cycles} cycles");

            for ahead in [1, 2, 3, 127, 128, 129, 1_000, 1 + (step >> (12 + step % 16))] {
                let at = ticks_at(cycles) + u64::from(ahead);
                let until = u64::from(counter.cycles_until(wrapped(at)));
                let exact = ahead <= u32::MAX / Counter::<TIMER_HZ, HZ>::CYCLES;
                assert!(until > 0 && ticks_at(cycles + until - 1) < at, "{until} cycles until {at} are too many");
                assert_eq!(ticks_at(cycles + until) == at, exact, "{until} cycles until {at}");
            }
        }
        assert!(cycles / u64::from(TIMER_HZ) > 1_000, "far beyond the wrap");
    }

    #[test]
    fn ticks_of_every_rate_are_counted_exactly_and_none_is_told_early_by_every_boards_timer() {
        agrees::<16_000_000, 1_000>();
        agrees::<16_000_000, 32_768>();
        agrees::<16_000_000, 1_000_000>();
        agrees::<20_000_000, 1_000>();
        agrees::<20_000_000, 32_768>();
        agrees::<20_000_000, 1_000_000>();
        agrees::<10_000_000, 1_000>();
        agrees::<10_000_000, 32_768>();
        agrees::<10_000_000, 1_000_000>();
    }

    #[test]
    fn what_is_past_is_due_at_once_and_what_is_far_is_due_early() {
        let counter = Counter::<16_000_000, 1_000>::new(5);
        for past in [5, 4, 0, u32::MAX, 5_u32.wrapping_add(1 << 31)] {
            assert_eq!(counter.cycles_until(past), 0, "{past}");
        }
        assert_eq!(counter.cycles_until(6), 16_000);
        assert_eq!(counter.cycles_until(5 + i32::MAX.cast_unsigned()), u32::MAX / 16_000 * 16_000);
    }
}
