//! Conditions over sliding windows of any size: rates of failures and of slow calls, and plain numbers of failures.

use core::time::Duration;

use super::{Counts, Sample, Trip};
use crate::config::{ConfigError, refuse};
use crate::ratio::Ratio;
use crate::time::{Instant, Span};
use crate::window::{CountWindow, TimeWindow};

/// Calls that a time window must hold before a rate is judged, unless said otherwise: below that, a rate is an accident.
pub const MINIMUM_CALLS: u32 = 10;

/// What a window is judged by. Zero stands for "not by this".
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
struct Thresholds {
    failure_rate: Ratio,
    failures: u32,
    slow_rate: Ratio,
    slow_after: Span,
    minimum_calls: u32,
}

impl Thresholds {
    const NONE: Self = Self {
        failure_rate: Ratio::ZERO,
        failures: 0,
        slow_rate: Ratio::ZERO,
        slow_after: Span::MAX,
        minimum_calls: MINIMUM_CALLS,
    };

    const fn with_failure_rate(mut self, rate: Ratio) -> Result<Self, ConfigError> {
        if rate.as_basis_points() == 0 {
            return Err(refuse!("failure_rate", "is zero: the breaker would open without a failure"));
        }
        if !rate.is_share() {
            return Err(refuse!("failure_rate", "is above 1"));
        }
        self.failure_rate = rate;
        Ok(self)
    }

    const fn with_failures(mut self, failures: u32) -> Result<Self, ConfigError> {
        if failures == 0 {
            return Err(refuse!("failures", "is zero: the breaker would open without a failure"));
        }
        self.failures = failures;
        Ok(self)
    }

    const fn with_slow_rate(mut self, rate: Ratio, after: Duration) -> Result<Self, ConfigError> {
        if rate.as_basis_points() == 0 {
            return Err(refuse!("slow_rate", "is zero: the breaker would open without a slow call"));
        }
        if !rate.is_share() {
            return Err(refuse!("slow_rate", "is above 1"));
        }
        (self.slow_rate, self.slow_after) = (rate, Span::of(after));
        Ok(self)
    }

    const fn is_slow(&self, sample: Sample) -> bool {
        sample.slow || sample.took.as_nanos() > self.slow_after.as_nanos()
    }

    fn reached_by(&self, counts: Counts) -> bool {
        let by_number = self.failures != 0 && counts.failures >= self.failures;
        let of = |rate: Ratio, part| rate != Ratio::ZERO && rate.reached_by(part, counts.calls);
        by_number
            || counts.calls >= self.minimum_calls
                && (of(self.failure_rate, counts.failures) || of(self.slow_rate, counts.slow))
    }
}

/// The methods that add one more threshold, the same for both kinds of window.
macro_rules! thresholds {
    () => {
        /// Opens at this rate of failures too: at least `rate` of the calls in the window.
        ///
        /// # Errors
        /// A rate of zero or above 1.
        pub const fn with_failure_rate(mut self, rate: Ratio) -> Result<Self, ConfigError> {
            match self.thresholds.with_failure_rate(rate) {
                Ok(thresholds) => self.thresholds = thresholds,
                Err(error) => return Err(error),
            }
            Ok(self)
        }

        /// Opens at so many failures in the window too, whatever the minimum of calls.
        ///
        /// # Errors
        /// Zero, or more than the window holds.
        pub const fn with_failures(mut self, failures: u32) -> Result<Self, ConfigError> {
            if failures > self.most() {
                return Err(refuse!("failures", "is above the window: the breaker would never open"));
            }
            match self.thresholds.with_failures(failures) {
                Ok(thresholds) => self.thresholds = thresholds,
                Err(error) => return Err(error),
            }
            Ok(self)
        }

        /// Opens at this rate of slow calls too: calls that took longer than `after`, or that the classifier calls slow. Every call
        /// then takes two readings of the clock.
        ///
        /// # Errors
        /// A rate of zero or above 1.
        pub const fn with_slow_rate(mut self, rate: Ratio, after: Duration) -> Result<Self, ConfigError> {
            match self.thresholds.with_slow_rate(rate, after) {
                Ok(thresholds) => self.thresholds = thresholds,
                Err(error) => return Err(error),
            }
            Ok(self)
        }
    };
}

/// Opens by what the last calls came to: at a rate of failures, at a number of failures, at a rate of slow calls, or at any of
/// these.
///
/// `WORDS` is its memory: 8 bytes for every 32 calls. For up to 47 calls and failures alone,
/// [`FailureRate`](super::FailureRate) fits a lock-free word.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CountBased<const WORDS: usize> {
    size: u32,
    thresholds: Thresholds,
}

impl<const WORDS: usize> CountBased<WORDS> {
    /// Opens when at least `rate` of the last `size` calls (1 to 32 · `WORDS`) failed. It takes a full window to say so, unless
    /// [`with_minimum_calls`](Self::with_minimum_calls) says less.
    ///
    /// # Errors
    /// A rate of zero or above 1; an empty or a too large window.
    pub const fn new(rate: Ratio, size: u32) -> Result<Self, ConfigError> {
        match Self::sized(size) {
            Ok(window) => window.with_failure_rate(rate),
            Err(error) => Err(error),
        }
    }

    /// Opens when `failures` of the last `size` calls failed, as soon as they have.
    ///
    /// # Errors
    /// No failures, or more than the window holds; an empty or a too large window.
    pub const fn of_failures(failures: u32, size: u32) -> Result<Self, ConfigError> {
        match Self::sized(size) {
            Ok(window) => window.with_failures(failures),
            Err(error) => Err(error),
        }
    }

    /// The calls that the window holds.
    const fn most(&self) -> u32 {
        self.size
    }

    /// Opens when at least `rate` of the last `size` calls took longer than `after`.
    ///
    /// # Errors
    /// A rate of zero or above 1; an empty or a too large window.
    pub const fn of_slow(rate: Ratio, after: Duration, size: u32) -> Result<Self, ConfigError> {
        match Self::sized(size) {
            Ok(window) => window.with_slow_rate(rate, after),
            Err(error) => Err(error),
        }
    }

    const fn sized(size: u32) -> Result<Self, ConfigError> {
        if size == 0 {
            return Err(refuse!("window", "is empty"));
        }
        if size > CountWindow::<WORDS>::CAPACITY {
            return Err(refuse!("window", "is above 32 calls a word: say more words"));
        }
        Ok(Self { size, thresholds: Thresholds { minimum_calls: size, ..Thresholds::NONE } })
    }

    thresholds!();

    /// Judges rates from so many calls on, while the window is not full yet.
    ///
    /// # Errors
    /// Zero, or more than the window holds: the breaker would never open.
    pub const fn with_minimum_calls(mut self, calls: u32) -> Result<Self, ConfigError> {
        if calls == 0 {
            return Err(refuse!("minimum_calls", "is zero"));
        }
        if calls > self.size {
            return Err(refuse!("minimum_calls", "is above the window: the breaker would never open"));
        }
        self.thresholds.minimum_calls = calls;
        Ok(self)
    }
}

impl<const WORDS: usize> Trip for CountBased<WORDS> {
    type Meter = CountWindow<WORDS>;

    fn record(&self, meter: &mut Self::Meter, sample: Sample, now: Option<Instant>) -> Option<bool> {
        let slow = self.thresholds.is_slow(sample);
        let counts = meter.counts_with(self.size, sample.failed, slow);
        let trips = self.thresholds.reached_by(counts);
        if trips && now.is_none() {
            return None;
        }
        meter.accept(sample.failed, slow, counts);
        Some(trips)
    }

    #[inline]
    fn is_healthy(&self, meter: &Self::Meter) -> bool {
        meter.is_spotless(self.size)
    }

    fn counts(&self, meter: &Self::Meter, _: Option<Instant>) -> Counts {
        meter.counts()
    }

    fn slow_after(&self) -> Span {
        self.thresholds.slow_after
    }
}

/// Opens by what came of the calls of the last so long: at a rate of failures, at a number of failures, at a rate of slow calls, or
/// at any of these.
///
/// The window moves in `BUCKETS` steps, aligned to the clock; with one it starts over each time. Every outcome takes a
/// reading of the clock: a [`FailureMeter`](super::FailureMeter) does without, for successes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct TimeBased<const BUCKETS: usize> {
    bucket: Span,
    thresholds: Thresholds,
}

impl<const BUCKETS: usize> TimeBased<BUCKETS> {
    /// Opens when at least `rate` of the calls of the last `period` failed, [`MINIMUM_CALLS`] (10) or more unless
    /// [`with_minimum_calls`](Self::with_minimum_calls) says otherwise.
    ///
    /// # Errors
    /// A rate of zero or above 1; a period too short for its buckets.
    pub const fn new(rate: Ratio, period: Duration) -> Result<Self, ConfigError> {
        match Self::over(period) {
            Ok(window) => window.with_failure_rate(rate),
            Err(error) => Err(error),
        }
    }

    /// Opens when `failures` calls of the last `period` failed.
    ///
    /// # Errors
    /// No failures; a period too short for its buckets.
    pub const fn of_failures(failures: u32, period: Duration) -> Result<Self, ConfigError> {
        match Self::over(period) {
            Ok(window) => window.with_failures(failures),
            Err(error) => Err(error),
        }
    }

    /// As many calls as come.
    #[expect(clippy::unused_self, reason = "asked of any window")]
    const fn most(&self) -> u32 {
        u32::MAX
    }

    /// Opens when at least `rate` of the calls of the last `period` took longer than `after`.
    ///
    /// # Errors
    /// A rate of zero or above 1; a period too short for its buckets.
    pub const fn of_slow(rate: Ratio, after: Duration, period: Duration) -> Result<Self, ConfigError> {
        match Self::over(period) {
            Ok(window) => window.with_slow_rate(rate, after),
            Err(error) => Err(error),
        }
    }

    const fn over(period: Duration) -> Result<Self, ConfigError> {
        match Span::of(period).as_nanos().checked_div(BUCKETS as u64) {
            None | Some(0) => Err(refuse!("period", "is below a nanosecond a bucket")),
            Some(bucket) => Ok(Self { bucket: Span::from_nanos(bucket), thresholds: Thresholds::NONE }),
        }
    }

    thresholds!();

    /// Judges rates from so many calls on. With a minimum above what comes within the period, the breaker never opens.
    ///
    /// # Errors
    /// Zero.
    pub const fn with_minimum_calls(mut self, calls: u32) -> Result<Self, ConfigError> {
        if calls == 0 {
            return Err(refuse!("minimum_calls", "is zero"));
        }
        self.thresholds.minimum_calls = calls;
        Ok(self)
    }
}

impl<const BUCKETS: usize> Trip for TimeBased<BUCKETS> {
    type Meter = TimeWindow<Counts, BUCKETS>;

    fn record(&self, meter: &mut Self::Meter, sample: Sample, now: Option<Instant>) -> Option<bool> {
        let now = now?;
        let slow = self.thresholds.is_slow(sample);
        meter.add(&Counts { calls: 1, failures: sample.failed.into(), slow: slow.into() }, self.bucket, now);
        Some(self.thresholds.reached_by(meter.sum(self.bucket, now)))
    }

    /// Successes count in a window of time: they push failures out of it.
    #[inline]
    fn is_healthy(&self, _: &Self::Meter) -> bool {
        false
    }

    /// Without the time, nothing.
    fn counts(&self, meter: &Self::Meter, now: Option<Instant>) -> Counts {
        now.map_or_else(Counts::default, |now| meter.sum(self.bucket, now))
    }

    fn slow_after(&self) -> Span {
        self.thresholds.slow_after
    }

    #[inline]
    fn wants_time(&self, _: bool) -> bool {
        true
    }

    fn adapt(&self, meter: &mut Self::Meter, from: &Self, now: Instant) {
        if from.bucket != self.bucket {
            meter.rescale(from.bucket, self.bucket, now);
        }
    }
}

#[cfg(test)]
mod tests;
