//! How many calls per second there are, smoothed.

use super::{Config, Rate};
use crate::cell::Fresh;
use crate::math::divide_wide;
use crate::time::{Instant, Span};

/// Measures the rate of calls: counts them in buckets of time, and smooths the rates of the buckets exponentially.
///
/// ```
/// use failsoft_core::adaptive_rate::{Config, Rate, RateMeter};
/// use failsoft_core::{Instant, cell::Fresh};
///
/// let (config, mut meter) = (Config::new(), RateMeter::FRESH);
/// for call in 1..=50 {
///     meter.record(&config, Instant::from_millis(call * 100));
/// }
/// assert_eq!(meter.rate(), Rate::from_millionths(9_999_999));
/// ```
///
/// A bucket ends with the first call after its time, which still counts in it; without calls, the time counts up to the one in which
/// the next call comes. So the rate is up to one bucket old, and stays as it is while nothing is called. The first bucket
/// begins at the clock's start.
///
/// Within a bucket, a call is a comparison and an addition. A clock that steps back begins another bucket where it stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RateMeter {
    rate: Rate,
    begun: Instant,
    calls: u32,
}

impl Fresh for RateMeter {
    const FRESH: Self = Self { rate: Rate::ZERO, begun: Instant::START, calls: 0 };
}

impl RateMeter {
    /// Counts a call, and answers with the rate.
    pub fn record(&mut self, config: &Config, now: Instant) -> Rate {
        self.calls = self.calls.saturating_add(1);
        let passed = now.as_nanos().saturating_sub(self.begun.as_nanos());
        if passed >= config.bucket.as_nanos() {
            self.close(config, passed);
        } else if self.begun > now.after(config.bucket) {
            self.begun = now;
        }
        self.rate
    }

    /// Takes the rate of the bucket into account, so long after it began, and begins the one that it is now.
    fn close(&mut self, config: &Config, passed: u64) {
        let (_, into) = divide_wide(passed, config.bucket.as_nanos());
        let buckets = Span::from_nanos(passed.saturating_sub(into));
        let latest = Rate::of(self.calls, buckets.duration());
        *self = Self { rate: config.smoothed(self.rate, latest), begun: self.begun.after(buckets), calls: 0 };
    }

    /// The rate, as of the last call.
    #[must_use]
    pub const fn rate(&self) -> Rate {
        self.rate
    }
}
