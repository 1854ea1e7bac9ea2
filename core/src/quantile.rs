//! A moving quantile: what only so few of the latest values exceed, in integers and in 104 bytes.
//!
//! ```
//! use core::time::Duration;
//! use failsoft_core::{Ratio, cell::Fresh, quantile::Sketch};
//!
//! let p90 = Ratio::percent(90);
//! let mut latencies = Sketch::FRESH;
//! for millis in 1..=100 {
//!     latencies.record(Duration::from_millis(millis), p90, 500);
//! }
//! let slow = latencies.quantile(p90).ok_or("recorded")?;
//! assert!(slow > Duration::from_millis(84) && slow < Duration::from_millis(96));
//! # Ok::<(), &str>(())
//! ```
//!
//! # How it works
//! Values are counted in buckets, eight to an octave, so that the middle of a bucket is within 6.25 % of all that is in it: that
//! is the error. The sketch follows one quantile, and keeps [`BUCKETS`] buckets, six octaves, around it. What lies below and above
//! them is only counted. So it spans all of [`Span`], and every quantile that lies within the buckets is exact to that error.
//!
//! The window moves by decay: when as many values as it holds have been counted, all counts are halved. Rounding is carried
//! from bucket to bucket, so that no rank is ever off by more than one value, and the latest half to all of the window's values count.
//!
//! # When the values change
//! A larger quantile shows as soon as enough large values came: with a window of 500, the 95 % quantile after 25. A smaller one
//! shows when the old values have decayed, after four to five windows. Where the quantile leaves the buckets they are moved
//! by half their width, eightfold; while that goes on, their edge is the answer. Upwards that takes as many values again for
//! each step, downwards one.
//!
//! # Source
//! The buckets are those of `HdrHistogram` (Gil Tene); the moving frame and the halving that keeps ranks are ours.

use core::cell::RefCell;
use core::time::Duration;

use crate::cell::{Fresh, Stored};
use crate::math::divide;
use crate::ratio::Ratio;
use crate::time::Span;

/// Buckets around the quantile: six octaves of eight.
pub const BUCKETS: usize = 48;

/// By how many buckets the frame is moved.
const STEP: usize = BUCKETS / 2;
/// The same as numbers of buckets.
const WIDTH: u16 = 48;
const HALF_WIDTH: u16 = 24;

/// The latest values, as far as one quantile of them needs it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Sketch {
    counts: [u16; BUCKETS],
    below: u16,
    above: u16,
    total: u16,
    // The first bucket that is counted by itself.
    base: u16,
}

impl Fresh for Sketch {
    const FRESH: Self = Self { counts: [0; BUCKETS], below: 0, above: 0, total: 0, base: 0 };
}

impl Stored for Sketch {
    type Cell = RefCell<Self>;
}

impl Sketch {
    /// Takes a value into account. `quantile` is the one that is followed, and `window` how many values count, at the most.
    pub fn record(&mut self, value: Duration, quantile: Ratio, window: u16) {
        self.record_span(Span::of(value), quantile, window);
    }

    pub(crate) fn record_span(&mut self, value: Span, quantile: Ratio, window: u16) {
        let bucket = bucket_of(value.as_nanos());
        if self.total == 0 {
            self.base = bucket.saturating_sub(HALF_WIDTH);
        }
        self.total = self.total.saturating_add(1);
        match bucket.checked_sub(self.base) {
            None => {
                self.below = self.below.saturating_add(1);
                if self.total.saturating_sub(self.below) <= self.allowed(quantile) {
                    self.move_down();
                }
            }
            Some(place) => match self.counts.get_mut(usize::from(place)) {
                Some(count) => *count = count.saturating_add(1),
                None => {
                    self.above = self.above.saturating_add(1);
                    if self.above > self.allowed(quantile) {
                        self.move_up();
                    }
                }
            },
        }
        if self.total >= window {
            self.halve();
        }
    }

    /// The quantile: the value that at most the rest of the latest values exceeds, within 6.25 %. `None` where there are no
    /// values yet.
    #[must_use]
    pub fn quantile(&self, quantile: Ratio) -> Option<Duration> {
        self.quantile_span(quantile).map(Span::duration)
    }

    pub(crate) fn quantile_span(&self, quantile: Ratio) -> Option<Span> {
        if self.total == 0 {
            return None;
        }
        let allowed = self.allowed(quantile);
        let mut exceed = self.above;
        // From the top, since that is where the quantiles are that anyone asks for.
        let mut bucket = self.base.saturating_add(WIDTH);
        for count in self.counts.iter().rev() {
            if exceed > allowed {
                break;
            }
            bucket = bucket.saturating_sub(1);
            exceed = exceed.saturating_add(*count);
        }
        Some(Span::from_nanos(middle_of(bucket)))
    }

    /// How many values count at present.
    #[must_use]
    pub const fn len(&self) -> u16 {
        self.total
    }

    /// Whether there are no values yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// How many values may exceed the quantile: a product of 16 by 14 bits, and one division.
    fn allowed(&self, quantile: Ratio) -> u16 {
        const WHOLE: u32 = Ratio::ONE.as_basis_points();
        let exceed = u32::from(self.total).saturating_mul(WHOLE.saturating_sub(quantile.as_basis_points()));
        let (exceed, _) = divide(exceed.into(), WHOLE);
        u16::try_from(exceed).unwrap_or(u16::MAX)
    }

    /// Half the counts, carried from the top down: the number of values at or above any bucket is halved and rounded down.
    fn halve(&mut self) {
        let mut carry = 0;
        let mut total = 0_u16;
        let counts = self.counts.iter_mut().rev();
        for count in core::iter::once(&mut self.above).chain(counts).chain([&mut self.below]) {
            let sum = count.saturating_add(carry);
            (*count, carry) = (sum / 2, sum % 2);
            total = total.saturating_add(*count);
        }
        self.total = total;
    }

    /// The quantile lies above the buckets. What has been seen there is taken to be at their end: too low at worst, and then
    /// the values that follow soon tell.
    fn move_up(&mut self) {
        let (low, high) = self.counts.split_at_mut(STEP);
        self.below = self.below.saturating_add(sum(low));
        low.copy_from_slice(high);
        high.fill(0);
        if let Some(first) = high.first_mut() {
            *first = core::mem::take(&mut self.above);
        }
        self.base = self.base.saturating_add(HALF_WIDTH);
    }

    /// The quantile lies below the buckets. What has been seen there stays below: so the next value there moves them on, and
    /// if they are too low then, the values that follow soon tell.
    fn move_down(&mut self) {
        let (low, high) = self.counts.split_at_mut(STEP);
        self.above = self.above.saturating_add(sum(high));
        high.copy_from_slice(low);
        low.fill(0);
        self.base = self.base.saturating_sub(HALF_WIDTH);
    }
}

fn sum(counts: &[u16]) -> u16 {
    counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
}

/// The bucket of a value: eight to an octave, and one to a nanosecond below the first. The lowest is half a frame above zero, so
/// that a frame around it does not begin below.
#[expect(clippy::cast_possible_truncation, reason = "below 8, or 4 bits and an exponent of 6")]
const fn bucket_of(value: u64) -> u16 {
    // The exponent, as far as it is above that of 8.
    let bucket = match 60_u32.checked_sub(value.leading_zeros()) {
        Some(shift) => ((shift as u16) << 3).saturating_add(value.unbounded_shr(shift) as u16),
        None => value as u16,
    };
    bucket.saturating_add(HALF_WIDTH)
}

/// The middle of a bucket.
const fn middle_of(bucket: u16) -> u64 {
    let bucket = bucket.saturating_sub(HALF_WIDTH);
    let Some(shift) = (bucket >> 3).checked_sub(1) else { return bucket as u64 };
    let low = (8 | (bucket & 7)) as u64;
    low.unbounded_shl(shift as u32).saturating_add(1_u64.unbounded_shl(shift as u32) / 2)
}

#[cfg(test)]
mod tests;
