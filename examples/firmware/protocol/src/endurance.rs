//! A script without a clock: so many requests on a line that gets better and worse, by the request and not by the second. The same seed is
//! the same fate for the n-th request, on any machine.

use core::ops::Range;

use fastrand::Rng;

use crate::sensor::{Counts, Fate, Line};

/// A stretch of the line, as long as the seed says.
struct Stretch {
    line: Line,
    requests: Range<u16>,
}

const fn faults(percent: u8, requests: Range<u16>) -> Stretch {
    Stretch { line: Line::Faults(percent), requests }
}

/// Over and over. In all, about [`SHARE`] of the requests meet a fault.
const STRETCHES: [Stretch; 6] = [
    faults(14, 15..60),
    faults(45, 20..60),
    faults(14, 15..60),
    // A burst.
    faults(90, 4..10),
    faults(14, 15..60),
    // For long enough that the last good value gets stale: the breaker lets few requests through.
    Stretch { line: Line::Dead, requests: 8..16 },
];

/// How many of a hundred requests meet a fault, in a long run.
pub const SHARE: Range<u32> = 27..34;

/// After the last of the requests so many are answered: all can recover.
const RECOVERY: u32 = 50;

/// The script of one run.
#[derive(Debug)]
pub struct Script {
    rng: Rng,
    stretch: usize,
    left_of_stretch: u16,
    left: u32,
    left_to_recover: u32,
    counts: Counts,
}

impl Script {
    /// A script of so many requests.
    #[must_use]
    pub fn new(seed: u64, requests: u32) -> Self {
        let mut rng = Rng::with_seed(seed);
        let left_of_stretch = rng.u16(STRETCHES[0].requests.clone());
        Self { rng, stretch: 0, left_of_stretch, left: requests, left_to_recover: RECOVERY, counts: Counts::default() }
    }

    /// What happens to the next request; nothing any more at the script's end.
    pub fn next_fate(&mut self) -> Option<Fate> {
        if self.left == 0 {
            self.left_to_recover = self.left_to_recover.checked_sub(1)?;
            return Some(Fate::Answer);
        }
        self.left -= 1;
        if self.left_of_stretch == 0 {
            self.stretch = (self.stretch + 1) % STRETCHES.len();
            self.left_of_stretch = self.rng.u16(STRETCHES[self.stretch].requests.clone());
        }
        self.left_of_stretch -= 1;
        let fate = STRETCHES[self.stretch].line.fate(&mut self.rng);
        self.counts.count(fate);
        Some(fate)
    }

    /// The requests so far, without those that recovery takes.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn play(seed: u64, requests: u32) -> (usize, Counts) {
        let mut script = Script::new(seed, requests);
        let fates = core::iter::from_fn(|| script.next_fate()).count();
        (fates, script.counts())
    }

    #[test]
    fn a_long_run_has_its_share_of_faults_whatever_the_seed() {
        for seed in 0..1_000 {
            let (fates, counts) = play(seed, 10_000);
            assert_eq!((fates, counts.requests), (10_050, 10_000));
            assert!(SHARE.contains(&(counts.faults() / 100)), "seed {seed}: {counts}");
        }
    }

    #[test]
    fn the_seed_is_the_script() {
        assert_eq!(play(7, 1_000), play(7, 1_000));
        assert_ne!(play(7, 1_000), play(8, 1_000));
    }

    #[test]
    fn a_run_ends_by_answers_alone() {
        let mut script = Script::new(7, 100);
        let last = core::iter::from_fn(|| script.next_fate()).skip(100);
        assert!(last.eq(core::iter::repeat_n(Fate::Answer, 50)));
    }
}
