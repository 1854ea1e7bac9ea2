#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, reason = "tests")]

use core::time::Duration;
use std::vec::Vec;

use super::*;
use crate::rng::Rng;

const SECOND: Span = Span::of(Duration::from_secs(1));

fn counts(calls: u32, failures: u32, slow: u32) -> Counts {
    Counts { calls, failures, slow }
}

#[test]
fn a_count_window_is_what_its_last_calls_were_whatever_its_size_does_meanwhile() {
    for seed in 0..4 {
        let mut rng = Rng::new(seed);
        let mut window = CountWindow::<3>::new();
        let (mut size, mut last) = (rng.next() % 96 + 1, Vec::<(bool, bool)>::new());
        for step in 0..20_000 {
            if rng.next().is_multiple_of(200) {
                // Sizes beyond the memory, and none at all, are brought into its range.
                size = rng.next() % 110;
            }
            let (failed, slow) = (rng.next().is_multiple_of(3), rng.next().is_multiple_of(5));
            window.push(size, failed, slow);
            last.push((failed, slow));
            let keep = size.clamp(1, 96) as usize;
            last.drain(..last.len().saturating_sub(keep));
            let naive = counts(
                last.len() as u32,
                last.iter().filter(|call| call.0).count() as u32,
                last.iter().filter(|call| call.1).count() as u32,
            );
            assert_eq!(window.counts(), naive, "seed {seed}, step {step}, size {size}");
            let spotless = last.len() as u32 == size && last.iter().all(|call| !call.0 && !call.1);
            assert_eq!(window.is_spotless(size), spotless, "seed {seed}, step {step}, size {size}");
        }
    }
}

/// Every call with its bucket, counted anew each time.
#[derive(Default)]
struct Naive {
    calls: Vec<(i64, bool)>,
    newest: i64,
}

impl Naive {
    fn add(&mut self, failed: bool, length: u64, now: u64) {
        let bucket = (now / length).cast_signed();
        // A clock that stepped back: the newest bucket is the current one, and the others as many before it as they were.
        let back = (self.newest - bucket).max(0);
        self.calls.iter_mut().for_each(|call| call.0 -= back);
        self.newest = bucket;
        self.calls.push((bucket, failed));
    }

    fn sum<const BUCKETS: u64>(&self, length: u64, now: u64) -> Counts {
        let at = self.newest.max((now / length).cast_signed());
        let live = self.calls.iter().filter(|call| call.0 + BUCKETS.cast_signed() > at);
        counts(live.clone().count() as u32, live.filter(|call| call.1).count() as u32, 0)
    }
}

fn compare<const N: usize, const BUCKETS: u64>(seed: u64) {
    let mut rng = Rng::new(seed);
    let length = 1 + u64::from(rng.next() % 1_000);
    let span = Span::from_nanos(length);
    let (mut window, mut naive, mut now) = (TimeWindow::<Counts, N>::new(), Naive::default(), 0_u64);
    for step in 0..2_000 {
        now = match rng.next() % 20 {
            0 => now + u64::from(rng.next()) % (length * BUCKETS * 3),
            1 => now.saturating_sub(u64::from(rng.next()) % (length * 2)),
            2 => (now / length + 1) * length,
            3 => ((now / length + 1) * length).saturating_sub(1),
            4..10 => now,
            _ => now + u64::from(rng.next()) % length,
        };
        let failed = rng.next().is_multiple_of(2);
        let before = window;
        assert_eq!(window.sum(span, Instant::from_nanos(now)), naive.sum::<BUCKETS>(length, now), "{seed}, {step}");
        assert_eq!(window, before, "to look changes nothing");
        window.add(&counts(1, failed.into(), 0), span, Instant::from_nanos(now));
        naive.add(failed, length, now);
        assert_eq!(window.sum(span, Instant::from_nanos(now)), naive.sum::<BUCKETS>(length, now), "{seed}, {step}");
    }
}

#[test]
fn a_time_window_is_the_sum_of_its_buckets_whatever_the_clock_does() {
    for seed in 0..10 {
        compare::<1, 1>(seed);
        compare::<2, 2>(seed);
        compare::<10, 10>(seed);
    }
}

#[test]
fn a_bucket_is_gone_exactly_when_the_whole_window_has_passed_since_its_start() {
    let mut window = TimeWindow::<Counts, 10>::new();
    window.add(&counts(1, 0, 0), SECOND, Instant::from_millis(999));
    assert_eq!(window.sum(SECOND, Instant::from_nanos(9_999_999_999)).calls, 1);
    assert_eq!(window.sum(SECOND, Instant::from_millis(10_000)).calls, 0);
}

#[test]
fn another_length_keeps_each_bucket_as_many_buckets_old_as_it_was() {
    let mut window = TimeWindow::<Counts, 3>::new();
    window.add(&counts(1, 1, 0), SECOND, Instant::from_millis(500));
    window.add(&counts(2, 0, 0), SECOND, Instant::from_millis(1_500));
    let double = Span::of(Duration::from_secs(2));
    window.rescale(SECOND, double, Instant::from_millis(1_600));
    // In the second bucket of two seconds from 0 s: the older one leaves when two more have begun.
    assert_eq!(window.sum(double, Instant::from_millis(1_600)), counts(3, 1, 0));
    assert_eq!(window.sum(double, Instant::from_millis(3_999)), counts(3, 1, 0));
    assert_eq!(window.sum(double, Instant::from_millis(4_000)), counts(2, 0, 0));
    assert_eq!(window.sum(double, Instant::from_millis(6_000)), counts(0, 0, 0));
}

#[test]
fn another_length_begins_a_bucket_of_that_length() {
    let (mut window, five) = (TimeWindow::<Counts, 2>::new(), Span::of(Duration::from_secs(5)));
    window.add(&counts(1, 0, 0), SECOND, Instant::from_millis(1_500));
    window.rescale(SECOND, five, Instant::from_millis(1_600));
    assert_eq!(window.sum(five, Instant::from_millis(9_999)), counts(1, 0, 0));
    assert_eq!(window.sum(five, Instant::from_millis(10_000)), counts(0, 0, 0));
}

#[test]
fn an_open_breakers_meter_keeps_an_instant_in_place_of_its_counts() {
    fn keeps(mut meter: impl Meter) {
        for until in [0, 1, u64::from(u32::MAX), 1 << 32, 0x1234_5678_9ABC_DEF0, u64::MAX].map(Instant::from_nanos) {
            meter.keep(until);
            assert_eq!(meter.kept(), until);
        }
    }
    keeps(CountWindow::<1>::new());
    keeps(TimeWindow::<Counts, 2>::new());
}

#[test]
fn the_end_of_time_and_a_bucket_as_long_are_no_trouble() {
    let mut window = TimeWindow::<Counts, 2>::new();
    window.add(&counts(1, 0, 0), Span::MAX, Instant::START);
    assert_eq!(window.sum(Span::MAX, Instant::from_nanos(u64::MAX - 1)).calls, 1);
    let mut window = TimeWindow::<Counts, 2>::new();
    window.add(&counts(1, 0, 0), SECOND, Instant::MAX);
    window.add(&counts(1, 0, 0), SECOND, Instant::MAX);
    assert_eq!(window.sum(SECOND, Instant::MAX).calls, 2, "where the clock stands still for good, nothing gets older");
}

#[test]
fn the_windows_take_what_they_say() {
    assert_eq!(size_of::<CountWindow<4>>(), 4 * 8 + 16);
    assert_eq!(size_of::<CountWindow<313>>(), 313 * 8 + 16, "10,000 calls");
    assert_eq!(size_of::<TimeWindow<Counts, 10>>(), 10 * 12 + 12 + 4 + 8 + 8);
}

// Windows as exhaustive tests of their users see them.

impl<const WORDS: usize> CountWindow<WORDS> {
    /// The same calls at the same places, without what is left of those that have been forgotten.
    pub(crate) fn without_the_forgotten(self) -> Self {
        let calls = self.counts.calls;
        let first = (self.next + Self::CAPACITY - calls) % Self::CAPACITY;
        let mut same = Self { next: first, ..Self::new() };
        for call in 0..calls {
            let place = (first + call) % Self::CAPACITY;
            same.push(calls, get(&self.failed, place), get(&self.slow, place));
        }
        assert_eq!(same.counts, self.counts, "the counts are those of the calls");
        same
    }

    pub(crate) fn words(&self) -> Vec<u64> {
        let planes = self.failed.iter().chain(&self.slow).map(|word| u64::from(*word));
        planes.chain([self.next.into(), self.counts.calls.into()]).collect()
    }
}

impl<A: Accumulate, const BUCKETS: usize> TimeWindow<A, BUCKETS> {
    /// The same at `now`, so many whole buckets earlier, with the newest in the first place; and a fresh one where all has been
    /// forgotten.
    pub(crate) fn earlier(&self, length: Span, by: u64, now: Instant) -> Self {
        let lasts = length.as_nanos() * BUCKETS as u64;
        if self.ends.as_nanos() + lasts <= now.as_nanos() {
            return Self::new();
        }
        let mut same = Self { newest: 0, ends: Instant::from_nanos(self.ends.as_nanos() - by), ..*self };
        same.buckets.rotate_left(self.newest);
        same
    }

    pub(crate) fn total(&self) -> A {
        self.total
    }

    pub(crate) fn words(&self, of: impl Fn(&A) -> Vec<u32>) -> Vec<u64> {
        let buckets = self.buckets.iter().chain([&self.total]).flat_map(of).map(u64::from);
        buckets.chain([self.ends.as_nanos()]).collect()
    }
}

#[test]
fn a_window_that_is_full_keeps_its_rates() {
    const BILLION: u32 = 1_000_000_000;
    let at = |second: u64| Instant::from_millis(second * 1_000);
    let mut window = TimeWindow::<Counts, 4>::new();
    // A failure in a hundred; the last two buckets don't fit.
    for second in 0..4 {
        window.add(&counts(2 * BILLION, BILLION / 50, 0), SECOND, at(second));
    }
    for (second, calls) in [(3, 4 * BILLION), (4, 2 * BILLION), (5, 0)] {
        let sum = window.sum(SECOND, at(second));
        assert_eq!((sum.calls, sum.failures), (calls, calls / 100), "second {second}");
    }
    let mut filled = TimeWindow::<Counts, 4>::new();
    filled.add(&counts(u32::MAX, 7, 0), SECOND, at(0));
    filled.add(&counts(1, 1, 1), SECOND, at(1));
    assert_eq!(filled.sum(SECOND, at(1)), counts(u32::MAX, 7, 0));
    assert_eq!(filled.sum(SECOND, at(4)), Counts::default());
}

#[test]
fn after_a_century_of_silence_each_bucket_is_cleared_once_and_no_more() {
    use core::cell::Cell;
    use std::thread_local;

    thread_local!(static CLEARED: Cell<u32> = const { Cell::new(0) });

    /// Counts how often something is taken away.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    struct Watched(u32);

    impl Fresh for Watched {
        const FRESH: Self = Self(0);
    }

    impl Accumulate for Watched {
        fn add(&mut self, other: &Self) -> bool {
            self.0 += other.0;
            true
        }

        fn subtract(&mut self, other: &Self) {
            CLEARED.set(CLEARED.get() + 1);
            self.0 -= other.0;
        }
    }

    // The shortest bucket there is: three billion billion of them pass.
    let bucket = Span::from_nanos(1);
    let century = Instant::from_nanos(100 * 365 * 86_400 * 1_000_000_000);
    let mut window = TimeWindow::<Watched, 10>::new();
    for nanos in 0..10 {
        window.add(&Watched(1), bucket, Instant::from_nanos(nanos));
    }
    assert_eq!(window.sum(bucket, Instant::from_nanos(9)), Watched(10));
    CLEARED.set(0);
    window.add(&Watched(3), bucket, century);
    assert_eq!(window.sum(bucket, century), Watched(3));
    assert!((1..=10).contains(&CLEARED.get()), "{} buckets were cleared", CLEARED.get());
}
