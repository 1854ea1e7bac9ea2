//! A small seedable source of jitter: 32-bit arithmetic only, the same numbers on every machine.

/// A counter hashed under a 64-bit key.
///
/// Each draw is the finaliser of `MurmurHash3` (Austin Appleby, 2008: full avalanche in two multiplications) over the
/// counter, once under each half of the key. The counter is the whole state: it fits a word, and sources of different keys do not
/// walk the same cycle at different places, as a plain 32-bit generator would.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Rng {
    key: [u32; 2],
    counter: u32,
}

impl Rng {
    /// A source for this seed: entropy, or a device's own number. Two devices must not share it; see [`seed`](Self::seed).
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = seed.to_le_bytes();
        Self { key: [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])], counter: 0 }
    }

    /// One seed of several numbers that may each be little by itself: a device's unique number, a counter of its boots, what noise
    /// there is. Any of them that differs makes another seed.
    ///
    /// ```
    /// use failsoft_core::Rng;
    ///
    /// let [unique, boots, noise] = [0x0045_0021, 17, 0x3F2];
    /// assert_ne!(Rng::seed(&[unique, boots, noise]), Rng::seed(&[unique, boots + 1, noise]));
    /// ```
    #[must_use]
    pub const fn seed(mut parts: &[u32]) -> u64 {
        let (mut low, mut high) = (0_u32, 0_u32);
        while let [part, rest @ ..] = parts {
            // The counter keeps parts of zero from leaving everything at zero.
            low = mix(low.wrapping_add(0x9E37_79B9) ^ *part);
            high = mix(high.wrapping_add(0x9E37_79B9) ^ low);
            parts = rest;
        }
        (high as u64) << 32 | low as u64
    }

    /// The next number.
    #[must_use]
    pub const fn next(&mut self) -> u32 {
        self.counter = self.counter.wrapping_add(1);
        self.at(self.counter)
    }

    /// The number at a place of the sequence, for callers who keep the counter elsewhere.
    #[must_use]
    pub const fn at(&self, counter: u32) -> u32 {
        let [low, high] = self.key;
        mix(mix(counter.wrapping_mul(0x9E37_79B9) ^ low).wrapping_add(high))
    }
}

const fn mix(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x85EB_CA6B);
    x ^= x >> 13;
    x = x.wrapping_mul(0xC2B2_AE35);
    x ^ (x >> 16)
}

/// `value * random / 2^32`: a uniform share of `value`, by multiply and shift.
pub(crate) const fn share(value: u64, random: u32) -> u64 {
    // Split so that nothing wider than 64 bits is needed, which a small chip would have to call a routine for.
    let (high, low) = (value >> 32, value & 0xFFFF_FFFF);
    // Two halves of 32 bits by one: neither product overflows, nor does their sum.
    high.wrapping_mul(random as u64).wrapping_add(low.wrapping_mul(random as u64) >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_everywhere_and_another_seed_others() {
        let draw = |seed| {
            let mut rng = Rng::new(seed);
            [rng.next(), rng.next(), rng.next()]
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert_ne!(draw(7), draw(7 << 32));
        assert_eq!(draw(1), EXPECTED, "the sequence is a promise: it may not change between versions");
    }
    const EXPECTED: [u32; 3] = [2_571_226_413, 3_155_512_302, 2_152_064_658];

    /// A part's new number among its neighbours changes each bit of the seed about half of the time: no part is lost, nor its place.
    #[test]
    fn each_part_of_a_seed_and_its_place_changes_all_of_it() {
        for parts in [[0, 0, 0], [0x0045_0021, 17, 0x3F2], [u32::MAX; 3]] {
            for place in 0..3 {
                let mut flips = [0_u32; 64];
                for step in 1..=1_000 {
                    let mut others = parts;
                    others[place] = others[place].wrapping_add(step);
                    let changed = Rng::seed(&parts) ^ Rng::seed(&others);
                    (0_u32..).zip(&mut flips).for_each(|(bit, flips)| *flips += u32::from(changed >> bit & 1 == 1));
                }
                // Of a thousand fair throws, six standard deviations.
                assert!(flips.iter().all(|flips| (405..=595).contains(flips)), "{parts:?}, part {place}: {flips:?}");
            }
        }
        assert_ne!(Rng::seed(&[1, 2]), Rng::seed(&[2, 1]));
        assert_ne!(Rng::seed(&[0]), Rng::seed(&[0, 0]));
        assert_eq!(
            Rng::seed(&[0x0045_0021, 17, 0x3F2]),
            16_926_112_311_876_583_956,
            "a device's jitter may not change between versions"
        );
    }

    #[test]
    fn shares_stay_below_the_value_and_spread_evenly() {
        assert_eq!(share(u64::MAX, u32::MAX), u64::MAX - (1 << 32));
        assert_eq!(share(1_000, 0), 0);
        let mut rng = Rng::new(42);
        let mut bins = [0_u32; 10];
        for _ in 0..100_000 {
            bins[usize::try_from(share(10, rng.next())).expect("below ten")] += 1;
        }
        // chi-square with 9 degrees of freedom: 27.9 is the 0.1 % point
        let chi: u64 = bins.iter().map(|&n| u64::from(n.abs_diff(10_000)).pow(2)).sum::<u64>() / 10_000;
        assert!(chi < 28, "{bins:?}");
    }

    /// How far a hundred thousand draws below a range, in 64 bins, are from even; above 103.4 once in a thousand times (chi-square with
    /// 63 degrees of freedom).
    fn unevenness(range: u64, mut draw: impl FnMut(u32) -> u32) -> f64 {
        let (mut bins, mut expected) = ([0_u32; 64], [0_f64; 64]);
        (0..range).for_each(|value| expected[usize::try_from(value * 64 / range).expect("a bin")] += 100_000.0);
        for number in 0..100_000 {
            let value = share(range, draw(number));
            bins[usize::try_from(value * 64 / range).expect("a bin")] += 1;
        }
        bins.iter().zip(expected.map(|sum| sum / range as f64)).map(|(&n, e)| (f64::from(n) - e).powi(2) / e).sum()
    }

    #[test]
    fn ranges_that_are_no_powers_of_two_prefer_no_value_neither_in_one_sequence_nor_over_the_first_draws_of_many_seeds()
    {
        let mut highest = 0_f64;
        for range in [100, 1_000, 60_000] {
            for seed in 0..10 {
                let mut rng = Rng::new(seed);
                highest = highest.max(unevenness(range, |_| rng.next()));
                // Devices that are numbered one after the other, and draw once.
                let first = u64::from(u32::MAX) * seed;
                highest = highest.max(unevenness(range, |device| Rng::new(first + u64::from(device)).next()));
            }
        }
        // Of sixty, once in a thousand times each.
        assert!(highest < 115.0, "{highest}");
    }
}
