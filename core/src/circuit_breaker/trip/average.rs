//! Conditions over exponentially weighted averages: what is long past counts less and less, and nothing is kept of it.

use core::time::Duration;

use super::{BITS, Counts, MINIMUM_CALLS, Meter, PackedMeter, Sample, Trip};
use crate::cell::{Copied, Fresh};
use crate::config::{ConfigError, refuse};
use crate::ratio::Ratio;
use crate::time::{Instant, Span, is_step_back};

/// Shares and weights are fractions of 2^32.
const WHOLE: u64 = 1 << 32;

/// `a · b`, of fractions up to one.
const fn scaled(a: u64, b: u64) -> u64 {
    // Only where both are whole, this would overflow.
    if b >= WHOLE { a } else { (a * b) >> 32 }
}

/// e^−x, for `x` in 2^−32.
const fn decay(x: u64) -> u64 {
    // 1/k in 2^−32.
    const INVERSE: [u64; 13] = [
        WHOLE,
        WHOLE,
        WHOLE / 2,
        WHOLE / 3,
        WHOLE / 4,
        WHOLE / 5,
        WHOLE / 6,
        WHOLE / 7,
        WHOLE / 8,
        WHOLE / 9,
        WHOLE / 10,
        WHOLE / 11,
        WHOLE / 12,
    ];
    /// e^−1.
    const INVERSE_E: u64 = 1_580_030_169;
    // Below 2^−32 from here on.
    const LONGEST: u64 = 23;
    let (mut whole, fraction) = (x >> 32, x & (WHOLE - 1));
    if whole >= LONGEST {
        return 0;
    }
    // The series of e^−fraction, from its end: 1 − f(1 − f/2(1 − f/3(…))).
    let (mut sum, mut terms): (u64, &[u64]) = (WHOLE, &INVERSE);
    while let [rest @ .., inverse] = terms {
        if rest.is_empty() {
            break;
        }
        sum = WHOLE - scaled(scaled(fraction, sum), *inverse);
        terms = rest;
    }
    while whole > 0 {
        sum = scaled(INVERSE_E, sum);
        whole -= 1;
    }
    sum
}

/// The share of failures above which the successes are below `rate`.
const fn failures_beyond(rate: Ratio) -> Result<u32, ConfigError> {
    if rate.as_basis_points() == 0 {
        return Err(refuse!("success_rate", "is zero: the breaker would never open"));
    }
    if !rate.is_share() {
        return Err(refuse!("success_rate", "is above 1"));
    }
    let share = (Ratio::ONE.as_basis_points() - rate.as_basis_points()) as u64 * WHOLE;
    Ok((share / Ratio::ONE.as_basis_points() as u64) as u32)
}

/// The average after one more call, of which all that came before weighs so much.
const fn averaged(failing: u32, failed: bool, weight: u64) -> u32 {
    let after = scaled(failing as u64, weight) + if failed { WHOLE - weight } else { 0 };
    if after >= WHOLE { u32::MAX } else { after as u32 }
}

/// So many calls, the share of them failures, to the nearest.
const fn counts(calls: u32, failing: u32) -> Counts {
    let failures = ((calls as u64 * failing as u64) + WHOLE / 2) >> 32;
    Counts { calls, failures: failures as u32, slow: 0 }
}

/// Opens when the average of the successes falls below a rate; a call weighs less with every further call, so that after
/// `calls` of them it weighs 1/e of what it did.
///
/// It fits a lock-free word and reads no clock, whatever the number of calls; a window of that size would remember each of
/// them. The minimum of calls is [`MINIMUM_CALLS`] (10). The average starts with the first call.
///
/// Source: an exponentially weighted moving average, as Finagle's failure accrual by success rate uses it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct AverageOfCalls {
    beyond: u32,
    weight: u32,
    minimum_calls: u16,
}

impl AverageOfCalls {
    /// Opens when fewer than `success_rate` of the last calls succeeded, averaged over about `calls` of them.
    ///
    /// # Errors
    /// A rate of zero or above 1; no calls.
    pub const fn new(success_rate: Ratio, calls: u32) -> Result<Self, ConfigError> {
        if calls == 0 {
            return Err(refuse!("calls", "is zero"));
        }
        match failures_beyond(success_rate) {
            Ok(beyond) => {
                let weight = decay(WHOLE / calls as u64) as u32;
                Ok(Self { beyond, weight, minimum_calls: MINIMUM_CALLS as u16 })
            }
            Err(error) => Err(error),
        }
    }

    /// Judges from so many calls on: 65,535 at most. Until that many have come, the breaker never opens.
    #[must_use]
    pub const fn with_minimum_calls(mut self, calls: u16) -> Self {
        self.minimum_calls = calls;
        self
    }
}

/// An average over calls: the share of failures, and how many calls there were, as far as that matters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CallsAverage {
    failing: u32,
    calls: u32,
}

impl Fresh for CallsAverage {
    const FRESH: Self = Self { failing: 0, calls: 0 };
}

impl Meter for CallsAverage {
    type Home = Copied;

    fn keep(&mut self, until: Instant) {
        let nanos = until.as_nanos();
        *self = Self { failing: nanos as u32, calls: (nanos >> 32) as u32 };
    }

    fn kept(&self) -> Instant {
        Instant::from_nanos(u64::from(self.calls) << 32 | u64::from(self.failing))
    }
}

impl Trip for AverageOfCalls {
    type Meter = CallsAverage;

    #[inline]
    fn record(&self, meter: &mut CallsAverage, sample: Sample, _: Option<Instant>) -> Option<bool> {
        let weight = if meter.calls == 0 { 0 } else { self.weight };
        meter.failing = averaged(meter.failing, sample.failed, weight.into());
        meter.calls = meter.calls.saturating_add(1).min(self.minimum_calls.max(1).into());
        Some(meter.calls >= self.minimum_calls.into() && meter.failing > self.beyond)
    }

    /// As many calls as matter, without a failure that still weighs: a success changes nothing.
    #[inline]
    fn is_healthy(&self, meter: &CallsAverage) -> bool {
        meter.failing == 0 && meter.calls >= self.minimum_calls.max(1).into()
    }

    /// As if of the calls that the minimum asks for.
    fn counts(&self, meter: &CallsAverage, _: Option<Instant>) -> Counts {
        counts(meter.calls, meter.failing)
    }

    fn adapt(&self, meter: &mut CallsAverage, _: &Self, _: Instant) {
        meter.calls = meter.calls.min(self.minimum_calls.max(1).into());
    }
}

impl PackedMeter for CallsAverage {
    const BITS: u32 = BITS;

    #[inline]
    fn to_bits(self) -> u64 {
        u64::from(self.failing) | u64::from(self.calls) << 32
    }

    #[inline]
    fn from_bits(bits: u64) -> Self {
        Self { failing: bits as u32, calls: (bits >> 32) as u32 }
    }
}

/// Opens when the average of the successes falls below a rate; a call weighs less with time, so that after `period` it
/// weighs 1/e of what it did.
///
/// Calls that come together weigh little together: of what came at one instant, the first counts. The minimum of calls is
/// [`MINIMUM_CALLS`] (10), each as far as it still weighs.
///
/// Source: an exponentially weighted moving average, as Finagle's failure accrual by success rate uses it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct AverageOverTime {
    beyond: u32,
    // 2^64 / period in nanoseconds: times are multiplied, not divided.
    per_nano: u64,
    minimum_calls: u32,
}

impl AverageOverTime {
    /// Opens when fewer than `success_rate` of the calls succeeded, averaged over about `period`.
    ///
    /// # Errors
    /// A rate of zero or above 1; a period of zero.
    pub const fn new(success_rate: Ratio, period: Duration) -> Result<Self, ConfigError> {
        let period = Span::of(period).as_nanos();
        if period == 0 {
            return Err(refuse!("period", "is zero"));
        }
        match failures_beyond(success_rate) {
            Ok(beyond) => Ok(Self { beyond, per_nano: u64::MAX / period, minimum_calls: MINIMUM_CALLS }),
            Err(error) => Err(error),
        }
    }

    /// Judges from so many calls on, of those that still weigh. With a minimum above what comes in the time, the breaker never opens.
    #[must_use]
    pub const fn with_minimum_calls(mut self, calls: u32) -> Self {
        self.minimum_calls = calls;
        self
    }

    /// What a call weighs after so long. Clocks that step back let no time pass.
    fn weight(&self, from: Instant, now: Instant) -> u64 {
        let passed = u128::from(now.as_nanos().saturating_sub(from.as_nanos()));
        let periods = (passed * u128::from(self.per_nano)) >> 32;
        u64::try_from(periods).map_or(0, decay)
    }

    fn calls(meter: &TimeAverage, weight: u64) -> u64 {
        // The whole part and the fraction apart, neither of which overflows.
        let (whole, fraction) = (meter.calls >> 32, meter.calls & (WHOLE - 1));
        whole.saturating_mul(weight).saturating_add(scaled(fraction, weight))
    }
}

/// An average over time: the share of failures, what the calls weigh together, and when the last one came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct TimeAverage {
    failing: u32,
    calls: u64,
    last: Instant,
}

impl Fresh for TimeAverage {
    const FRESH: Self = Self { failing: 0, calls: 0, last: Instant::START };
}

impl Meter for TimeAverage {
    type Home = Copied;

    fn keep(&mut self, until: Instant) {
        self.last = until;
    }

    fn kept(&self) -> Instant {
        self.last
    }
}

impl Trip for AverageOverTime {
    type Meter = TimeAverage;

    fn record(&self, meter: &mut TimeAverage, sample: Sample, now: Option<Instant>) -> Option<bool> {
        let now = now?;
        let weight = self.weight(meter.last, now);
        let first = meter.calls == 0;
        meter.failing = averaged(meter.failing, sample.failed, if first { 0 } else { weight });
        meter.calls = Self::calls(meter, weight).saturating_add(WHOLE);
        // A clock that stepped back is not waited for: until it had caught up, no outcome would weigh anything.
        let stepped_back = is_step_back(meter.last.as_nanos().saturating_sub(now.as_nanos()));
        meter.last = if stepped_back { now } else { meter.last.max(now) };
        Some(meter.calls >> 32 >= u64::from(self.minimum_calls) && meter.failing > self.beyond)
    }

    /// Time makes every call count.
    fn is_healthy(&self, _: &TimeAverage) -> bool {
        false
    }

    #[inline]
    fn wants_time(&self, _: bool) -> bool {
        true
    }

    /// The calls that still weigh, rounded down.
    fn counts(&self, meter: &TimeAverage, now: Option<Instant>) -> Counts {
        let weight = now.map_or(WHOLE, |now| self.weight(meter.last, now));
        counts((Self::calls(meter, weight) >> 32) as u32, meter.failing)
    }
}

#[cfg(test)]
mod tests;
