//! From a counter that wraps to time that doesn't.

/// The time in 64 bits, of which the hardware counts only the lower `BITS`.
///
/// It knows the time of its last look, and takes the counter for what has passed since. So it may see a wrap before, at or after any other
/// event, and late; only it has to look at least once in half of the counter's range. A counter that has stepped back since the last look
/// shows no time that has passed.
#[derive(Clone, Copy, Debug)]
pub struct Extended<const BITS: u32> {
    seen: u64,
}

impl<const BITS: u32> Extended<BITS> {
    const MASK: u64 = u64::MAX >> (u64::BITS - BITS);
    const HALF: u64 = 1 << (BITS - 1);
    /// Whoever sets an alarm no further ahead than this, and looks when it comes, has as long again to be late.
    pub const QUARTER: u64 = Self::HALF / 2;

    /// At a time that is known.
    pub const fn new(time: u64) -> Self {
        Self { seen: time }
    }

    /// The time, at which the counter reads `counter`.
    pub const fn at(self, counter: u32) -> u64 {
        let ahead = (counter as u64).wrapping_sub(self.seen) & Self::MASK;
        if ahead < Self::HALF { self.seen + ahead } else { self.seen }
    }

    /// The time, as [`at`](Self::at) has it, from now on the one of the last look.
    pub const fn look(&mut self, counter: u32) -> u64 {
        self.seen = self.at(counter);
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the hardware shows of a time.
    fn counter<const BITS: u32>(time: u64) -> u32 {
        u32::try_from(time % (1 << BITS)).expect("cut to its bits")
    }

    /// Every place in three ranges for the last look, and each time within half a range before and after it.
    fn agrees<const BITS: u32>(beginning: u64) {
        let (range, half) = (1 << BITS, Extended::<BITS>::HALF);
        for seen in beginning..beginning + 3 * range {
            let known = Extended::<BITS>::new(seen);
            for time in seen..seen + half {
                assert_eq!(known.at(counter::<BITS>(time)), time, "{BITS} bits, last seen at {seen}");
            }
            for back in (seen.saturating_sub(half)..seen).chain([seen + half]) {
                assert_eq!(
                    known.at(counter::<BITS>(back)),
                    seen,
                    "{BITS} bits, back from {seen} to {back}, or too late"
                );
            }
        }
    }

    #[test]
    fn a_counter_is_extended_wherever_the_wrap_falls_and_however_late_it_is_seen() {
        for beginning in [0, (1 << 32) - 1_000, (1 << 40) - 5] {
            agrees::<1>(beginning);
            agrees::<2>(beginning);
            agrees::<3>(beginning);
            agrees::<8>(beginning);
        }
    }

    #[test]
    fn all_widths_of_real_chips_are_extended_around_their_wraps() {
        fn around<const BITS: u32>() {
            let range = 1 << BITS;
            for wrap in [range, 7 * range, range << 20] {
                for seen in [wrap - range + 1, wrap - range / 2, wrap - 1, wrap, wrap + 1] {
                    for time in [seen, seen + 1, seen + range / 4, seen + range / 2 - 1] {
                        assert_eq!(Extended::<BITS>::new(seen).at(counter::<BITS>(time)), time, "{BITS} bits");
                    }
                }
            }
        }
        around::<16>();
        around::<24>();
        around::<32>();
    }

    #[test]
    fn looks_never_go_back_whatever_the_counter_does() {
        let mut extended = Extended::<8>::new(1_000);
        let (mut step, mut before, mut stood) = (1_u32, 0, 0);
        for _ in 0..10_000 {
            step = step.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let now = extended.look(step >> 24);
            assert!(now >= before, "{now} after {before}");
            stood += u32::from(now == before);
            before = now;
        }
        assert!(stood > 1_000, "the counter has stepped back often enough: {stood}");
    }

    #[test]
    fn looks_that_are_a_quarter_of_a_range_and_as_much_lateness_apart_never_lose_a_wrap() {
        let mut extended = Extended::<8>::new(0);
        let (mut time, mut step) = (0_u64, 1_u32);
        for _ in 0..100_000 {
            step = step.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // An alarm at most a quarter of the range ahead, which is served up to almost a quarter late.
            time += u64::from(step >> 24) % Extended::<8>::QUARTER + u64::from(step >> 16) % Extended::<8>::QUARTER;
            assert_eq!(extended.at(counter::<8>(time)), time);
            assert_eq!(extended.look(counter::<8>(time)), time);
        }
        assert!(time >> 8 > 5_000, "that many wraps");
    }
}
