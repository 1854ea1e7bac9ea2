//! Sliding windows: what happened lately, by number of calls or by time, in bounded memory.
//!
//! Plain machines without a clock: the conditions [`CountBased`](crate::circuit_breaker::CountBased) and
//! [`TimeBased`](crate::circuit_breaker::TimeBased) of a circuit breaker are made of them.
//!
//! ```
//! use failsoft_core::window::{CountWindow, TimeWindow};
//! use failsoft_core::{Instant, Span, circuit_breaker::Counts};
//!
//! let mut calls = CountWindow::<1>::new(); // room for 32 calls
//! for failed in [true, false, false, true] {
//!     calls.push(3, failed, false);
//! }
//! assert_eq!((calls.counts().calls, calls.counts().failures), (3, 1)); // the first has left a window of three
//!
//! let second = Span::of(core::time::Duration::from_secs(1));
//! let mut lately = TimeWindow::<Counts, 10>::new(); // ten buckets
//! lately.add(&Counts { calls: 1, failures: 1, slow: 0 }, second, Instant::from_millis(500));
//! assert_eq!(lately.sum(second, Instant::from_millis(9_999)).failures, 1);
//! assert_eq!(lately.sum(second, Instant::from_millis(10_000)).failures, 0);
//! ```

use core::cell::RefCell;
use core::fmt;

use crate::cell::{Fresh, InPlace, Stored};
use crate::circuit_breaker::{Counts, Meter};
use crate::math::divide_wide;
use crate::time::{Instant, Span};

/// The last calls, two bits each: whether it failed, and whether it was slow. `WORDS` words of 32 calls are the most it holds.
///
/// How many of them count is said with each push, and may change: a smaller window keeps the newest, a larger one all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CountWindow<const WORDS: usize> {
    failed: [u32; WORDS],
    slow: [u32; WORDS],
    /// Where the next call goes.
    next: u32,
    counts: Counts,
}

impl<const WORDS: usize> CountWindow<WORDS> {
    /// The most calls that fit.
    #[expect(clippy::cast_possible_truncation, reason = "a window of 2^32 calls would take a gigabyte")]
    pub const CAPACITY: u32 = (WORDS as u32).saturating_mul(32);

    /// An empty window.
    #[must_use]
    pub const fn new() -> Self {
        Self { failed: [0; WORDS], slow: [0; WORDS], next: 0, counts: Counts { calls: 0, failures: 0, slow: 0 } }
    }

    /// Takes in a call; those beyond the last `size` (1 to [`CAPACITY`](Self::CAPACITY)) leave.
    pub fn push(&mut self, size: u32, failed: bool, slow: bool) {
        self.accept(failed, slow, self.counts_with(size, failed, slow));
    }

    /// What would be in the window with one more call.
    pub(crate) fn counts_with(&self, size: u32, failed: bool, slow: bool) -> Counts {
        let size = size.min(Self::CAPACITY).max(1);
        let mut counts = self.counts;
        while counts.calls >= size {
            counts = self.without_oldest(counts);
        }
        counts.add(&Counts { calls: 1, failures: failed.into(), slow: slow.into() });
        counts
    }

    /// Takes in a call; these are the counts with it.
    pub(crate) fn accept(&mut self, failed: bool, slow: bool, counts: Counts) {
        set(&mut self.failed, self.next, failed);
        set(&mut self.slow, self.next, slow);
        self.counts = counts;
        let next = self.next.saturating_add(1);
        self.next = if next >= Self::CAPACITY { 0 } else { next };
    }

    fn without_oldest(&self, Counts { calls, failures, slow }: Counts) -> Counts {
        let oldest = match self.next.checked_sub(calls) {
            Some(oldest) => oldest,
            None => self.next.saturating_add(Self::CAPACITY).saturating_sub(calls),
        };
        Counts {
            calls: calls.saturating_sub(1),
            failures: failures.saturating_sub(get(&self.failed, oldest).into()),
            slow: slow.saturating_sub(get(&self.slow, oldest).into()),
        }
    }

    /// What is in the window.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether there are `size` calls, all good: another good one would change nothing that can be seen.
    #[must_use]
    pub const fn is_spotless(&self, size: u32) -> bool {
        self.counts.calls == size && self.counts.failures == 0 && self.counts.slow == 0
    }
}

impl<const WORDS: usize> Default for CountWindow<WORDS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const WORDS: usize> Fresh for CountWindow<WORDS> {
    const FRESH: Self = Self::new();
}

/// The instant takes the place of two of the counts.
impl<const WORDS: usize> Meter for CountWindow<WORDS> {
    type Home = InPlace;

    #[expect(clippy::cast_possible_truncation, reason = "cut into halves")]
    fn keep(&mut self, until: Instant) {
        let nanos = until.as_nanos();
        self.counts = Counts { calls: nanos as u32, failures: (nanos >> 32) as u32, slow: 0 };
    }

    fn kept(&self) -> Instant {
        Instant::from_nanos(u64::from(self.counts.failures) << 32 | u64::from(self.counts.calls))
    }
}

const fn place(index: u32) -> (usize, u32) {
    ((index >> 5) as usize, 1 << (index & 31))
}

fn set(plane: &mut [u32], index: u32, value: bool) {
    let (word, bit) = place(index);
    if let Some(word) = plane.get_mut(word) {
        *word = if value { *word | bit } else { *word & !bit };
    }
}

fn get(plane: &[u32], index: u32) -> bool {
    let (word, bit) = place(index);
    plane.get(word).is_some_and(|word| word & bit != 0)
}

/// What a [`TimeWindow`] sums up: any number of counters.
pub trait Accumulate: Copy + Fresh {
    /// These too; or nothing of them where they don't fit, and then false. So what is subtracted later is what was added.
    fn add(&mut self, other: &Self) -> bool;
    /// Without these, which had been added before.
    fn subtract(&mut self, other: &Self);
}

impl Fresh for Counts {
    const FRESH: Self = Self { calls: 0, failures: 0, slow: 0 };
}

impl Accumulate for Counts {
    fn add(&mut self, other: &Self) -> bool {
        let Some(calls) = self.calls.checked_add(other.calls) else { return false };
        // Of each there are no more than calls.
        self.failures = self.failures.saturating_add(other.failures);
        self.slow = self.slow.saturating_add(other.slow);
        self.calls = calls;
        true
    }

    fn subtract(&mut self, other: &Self) {
        self.calls = self.calls.saturating_sub(other.calls);
        self.failures = self.failures.saturating_sub(other.failures);
        self.slow = self.slow.saturating_sub(other.slow);
    }
}

/// What happened in the last `BUCKETS` buckets of time, aligned to the clock: the current one and those before it.
///
/// A bucket is gone as soon as `BUCKETS` times its length have passed since its start. How long one is, is said with each
/// operation. What comes with a time before the newest bucket, from a clock that stepped back, is counted in the newest, which is then the
/// current one again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct TimeWindow<A, const BUCKETS: usize> {
    buckets: [A; BUCKETS],
    total: A,
    /// Where the newest bucket is, and when it ends.
    newest: usize,
    ends: Instant,
}

impl<A: Accumulate, const BUCKETS: usize> TimeWindow<A, BUCKETS> {
    /// An empty window.
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(BUCKETS > 0, "a window has a bucket") }
        Self { buckets: [A::FRESH; BUCKETS], total: A::FRESH, newest: 0, ends: Instant::START }
    }

    /// Takes something in at `now`, where a bucket is this long. A window that is full (of four billion calls) takes in nothing
    /// more until its oldest bucket is gone, so that its rates stay those of what it has counted.
    pub fn add(&mut self, something: &A, length: Span, now: Instant) {
        self.advance(length, now);
        if self.total.add(something)
            && let Some(bucket) = self.buckets.get_mut(self.newest)
        {
            // It fits: a bucket is a part of the total.
            bucket.add(something);
        }
    }

    /// What the window at `now` holds, where a bucket is this long. It changes nothing.
    #[must_use]
    pub fn sum(&self, length: Span, now: Instant) -> A {
        let (mut sum, mut index, mut ends) = (self.total, self.newest, self.ends);
        for _ in 0..BUCKETS {
            if is_before(now, ends) {
                return sum;
            }
            index = Self::after(index);
            if let Some(bucket) = self.buckets.get(index) {
                sum.subtract(bucket);
            }
            ends = ends.after(length);
        }
        if is_before(now, ends) { sum } else { A::FRESH }
    }

    /// Carries the window over to buckets of another length: each stays as many buckets old as it is.
    pub fn rescale(&mut self, from: Span, to: Span, now: Instant) {
        self.advance(from, now);
        self.ends = end_of_bucket(to, now);
    }

    const fn after(index: usize) -> usize {
        let next = index.saturating_add(1);
        if next >= BUCKETS { 0 } else { next }
    }

    /// Begins new buckets until `now` is in the newest.
    pub(crate) fn advance(&mut self, length: Span, now: Instant) {
        if self.ends > now.after(length) && self.ends != Instant::MAX {
            // The clock has stepped back by more than a bucket: not to be waited for until it has caught up.
            self.ends = end_of_bucket(length, now);
        }
        for _ in 0..BUCKETS {
            if is_before(now, self.ends) {
                return;
            }
            self.newest = Self::after(self.newest);
            if let Some(bucket) = self.buckets.get_mut(self.newest) {
                self.total.subtract(bucket);
                *bucket = A::FRESH;
            }
            self.ends = self.ends.after(length);
        }
        if !is_before(now, self.ends) {
            // Idle for longer than the window: the only place that divides.
            self.ends = end_of_bucket(length, now);
        }
    }
}

/// Whether a bucket that ends then is still the newest. The last one never ends: the clock goes no further.
const fn is_before(now: Instant, ends: Instant) -> bool {
    now.as_nanos() < ends.as_nanos() || ends.as_nanos() == Instant::MAX.as_nanos()
}

/// When the bucket of this instant ends.
const fn end_of_bucket(length: Span, now: Instant) -> Instant {
    let (_, into) = divide_wide(now.as_nanos(), length.as_nanos());
    Instant::from_nanos(now.as_nanos().saturating_sub(into)).after(length)
}

impl<A: Accumulate, const BUCKETS: usize> Default for TimeWindow<A, BUCKETS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<A: Accumulate, const BUCKETS: usize> Fresh for TimeWindow<A, BUCKETS> {
    const FRESH: Self = Self::new();
}

impl<A: Accumulate, const BUCKETS: usize> Stored for TimeWindow<A, BUCKETS> {
    type Cell = RefCell<Self>;
}

impl<A: Accumulate + fmt::Debug + PartialEq, const BUCKETS: usize> Meter for TimeWindow<A, BUCKETS> {
    type Home = InPlace;

    fn keep(&mut self, until: Instant) {
        self.ends = until;
    }

    fn kept(&self) -> Instant {
        self.ends
    }
}

#[cfg(test)]
mod tests;
