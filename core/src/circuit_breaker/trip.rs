//! What opens a breaker: the trip conditions.
//!
//! A condition is a type of its own, chosen at compile time: who counts consecutive failures carries no window, in memory or
//! in code. A pair of conditions is one too, and trips when either does.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "windows, thresholds and periods are bounded where they are made, so that nothing here overflows"
)]

use core::fmt::Debug;
use core::num::NonZeroU32;
use core::time::Duration;

use crate::backoff::Backoff;
use crate::cell::{Copied, Fresh, Home};
use crate::config::{ConfigError, refuse};
use crate::math::divide;
use crate::ratio::Ratio;
use crate::rng::Rng;
use crate::time::{Instant, Span};

mod average;
mod windows;

pub use average::{AverageOfCalls, AverageOverTime, CallsAverage, TimeAverage};
pub use windows::{CountBased, MINIMUM_CALLS, TimeBased};

/// Consecutive failures that open a breaker, unless said otherwise.
pub const THRESHOLD: u32 = 5;

/// What a breaker has counted.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Counts {
    /// Outcomes that the condition looks at: for consecutive failures and the failure meter, only failures.
    pub calls: u32,
    /// Failures among them.
    pub failures: u32,
    /// Calls among them that took too long, whether they failed or not. Zero where nobody measures that.
    pub slow: u32,
}

impl Counts {
    /// The failures among the calls, rounded down to hundredths of a percent. `None` when there were no calls.
    #[must_use]
    pub const fn failure_rate(&self) -> Option<Ratio> {
        share(self.failures, self.calls)
    }

    /// The slow calls among the calls, rounded down to hundredths of a percent. `None` when there were no calls.
    #[must_use]
    pub const fn slow_rate(&self) -> Option<Ratio> {
        share(self.slow, self.calls)
    }
}

/// For the eyes: conditions compare without dividing, see [`Ratio`].
const fn share(part: u32, whole: u32) -> Option<Ratio> {
    if whole == 0 {
        return None;
    }
    let (points, _) = divide((part as u64).saturating_mul(Ratio::ONE.as_basis_points() as u64), whole);
    Some(Ratio::basis_points(if points > u32::MAX as u64 { u32::MAX } else { points as u32 }))
}

/// One outcome as a condition sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Sample {
    /// Whether the call failed.
    pub failed: bool,
    /// Whether the classifier called it slow.
    pub slow: bool,
    /// How long it took; zero where no condition asked for it (see [`Trip::slow_after`]).
    pub took: Span,
}

impl Sample {
    /// An outcome of which nothing is known but whether it was a failure.
    #[must_use]
    pub const fn of(failed: bool) -> Self {
        Self { failed, slow: false, took: Span::ZERO }
    }
}

/// A breaker that is about to open, as whoever decides for how long sees it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Opening {
    /// The open period that the configuration says.
    pub configured: Span,
    /// How often in a row the breaker has reopened without closing in between, this time included: zero when it opens
    /// for the first time. It stops at 255.
    pub reopened: u8,
    /// What had been counted in the state before, the outcome that opens included: by the condition, or of the probes.
    pub counts: Counts,
    /// When it opens.
    pub at: Instant,
}

/// A reason to open.
pub trait Trip: Debug {
    /// What is counted while the breaker is closed.
    type Meter: Meter;

    /// Takes one outcome into account and says whether the condition is met now. `None`, with the meter untouched, when
    /// it can't say without the time. So too, of a meter that is kept [`InPlace`](crate::cell::InPlace), when the condition would
    /// be met: such a meter is not copied, what has been recorded stays recorded, and what opens has a time.
    fn record(&self, meter: &mut Self::Meter, sample: Sample, now: Option<Instant>) -> Option<bool>;

    /// Whether the meter is one that a success leaves as it is, so that the success need not be recorded at all. It may say no
    /// when in doubt.
    fn is_healthy(&self, meter: &Self::Meter) -> bool;

    /// What has been counted. The failure meter needs the time for it.
    fn counts(&self, meter: &Self::Meter, now: Option<Instant>) -> Counts;

    /// The duration above which the condition wants to know how long a call took: it costs two readings of the clock a call.
    /// [`Span::MAX`], the default, is never. A half-open probe that takes longer is a bad one.
    #[inline]
    fn slow_after(&self) -> Span {
        Span::MAX
    }

    /// Whether [`record`](Self::record) wants the time of an outcome like this: then the clock is read before, which saves asking for it.
    /// `false`, the default, is never wrong.
    #[inline]
    fn wants_time(&self, failed: bool) -> bool {
        let _ = failed;
        false
    }

    /// Carries a meter over from the settings `from`, which these replace, so that what was counted stays.
    fn adapt(&self, meter: &mut Self::Meter, from: &Self, now: Instant) {
        let _ = (meter, from, now);
    }

    /// How long the breaker stays open: the configured period, always. A half-open deadline that is as long as the
    /// open period asks too, with no counts.
    fn open_span(&self, opening: &Opening) -> Span {
        opening.configured
    }
}

/// What a condition counts, in a place that is also good for an instant.
///
/// A closed breaker counts and has no deadline, an open one has a deadline and counts nothing: so they share their memory.
pub trait Meter: Copy + Debug + Fresh + PartialEq {
    /// [`Copied`] if it is of a few words, else [`InPlace`](crate::cell::InPlace): how a breaker with it is kept where there is
    /// only one thread or a lock around it.
    type Home: Home;

    /// Keeps an instant, in place of what was counted.
    fn keep(&mut self, until: Instant);
    /// The instant that it was told to keep. A meter that was not, may answer anything.
    fn kept(&self) -> Instant;
}

/// A meter small enough for a lock-free cell: at most [`BITS`] bits, all zero when fresh. The cell has another word for the
/// deadline.
pub trait PackedMeter: Meter {
    /// How many bits it takes.
    const BITS: u32;
    /// The meter as bits.
    fn to_bits(self) -> u64;
    /// The meter from its bits.
    fn from_bits(bits: u64) -> Self;
    /// The meter on a clock that reads `to` where this one reads `from`. One that keeps no times is the same.
    #[must_use]
    fn moved(self, from: Instant, to: Instant) -> Self {
        let _ = (from, to);
        self
    }
}

/// The bits that a word has for the meter, beside the breaker's state and its generation.
pub const BITS: u32 = 48;

/// Opens after so many failures in a row.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ConsecutiveFailures {
    threshold: u16,
}

impl ConsecutiveFailures {
    /// Opens after [`THRESHOLD`] (5) failures in a row.
    pub const DEFAULT: Self = Self { threshold: THRESHOLD as u16 };

    /// Opens after `threshold` failures in a row: 1 to 65,535.
    ///
    /// # Errors
    /// A threshold of zero, or above what the counter holds.
    pub const fn new(threshold: u32) -> Result<Self, ConfigError> {
        match threshold {
            0 => Err(refuse!("threshold", "is zero: the breaker would open without a failure")),
            1..=0xFFFF => Ok(Self { threshold: threshold as u16 }),
            _ => Err(refuse!("threshold", "is above 65,535, the most the counter holds")),
        }
    }
}

/// Failures since the last success.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Consecutive {
    failures: u32,
    /// The higher half of a deadline.
    high: u32,
}

impl Fresh for Consecutive {
    const FRESH: Self = Self { failures: 0, high: 0 };
}

impl Meter for Consecutive {
    type Home = Copied;

    #[inline]
    fn keep(&mut self, until: Instant) {
        let nanos = until.as_nanos();
        *self = Self { failures: nanos as u32, high: (nanos >> 32) as u32 };
    }

    #[inline]
    fn kept(&self) -> Instant {
        Instant::from_nanos(u64::from(self.high) << 32 | u64::from(self.failures))
    }
}

impl Trip for ConsecutiveFailures {
    type Meter = Consecutive;

    #[inline]
    fn record(&self, meter: &mut Consecutive, sample: Sample, _: Option<Instant>) -> Option<bool> {
        // Saturates at 65,535: one more than that loses one.
        let more = meter.failures + 1;
        meter.failures = if sample.failed { more - (more >> 16) } else { 0 };
        Some(meter.failures >= self.threshold.into())
    }

    #[inline]
    fn is_healthy(&self, meter: &Consecutive) -> bool {
        meter.failures == 0
    }

    fn counts(&self, meter: &Consecutive, _: Option<Instant>) -> Counts {
        Counts { calls: meter.failures, failures: meter.failures, slow: 0 }
    }
}

impl PackedMeter for Consecutive {
    const BITS: u32 = 16;

    #[inline]
    fn to_bits(self) -> u64 {
        self.failures.into()
    }

    #[inline]
    fn from_bits(bits: u64) -> Self {
        Self { failures: bits as u32, high: 0 }
    }
}

/// Opens when the failures among the last calls reach a rate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct FailureRate {
    rate: Ratio,
    window: u8,
    minimum_calls: u8,
    /// How many failures in a full window reach the rate.
    failures: u8,
    /// A full window without a failure: what most calls are compared with.
    healthy: Ring,
}

impl FailureRate {
    /// The largest window: what fits a word beside state and generation.
    pub const MAX_WINDOW: u32 = BITS - 1;

    /// Opens when at least `rate` of the last `window` calls (1 to 47) failed. It takes a full window to say so, unless
    /// [`with_minimum_calls`](Self::with_minimum_calls) says less.
    ///
    /// # Errors
    /// A rate of zero or above 1; an empty or a too large window.
    pub const fn new(rate: Ratio, window: u32) -> Result<Self, ConfigError> {
        if rate.as_basis_points() == 0 {
            return Err(refuse!("rate", "is zero: the breaker would open without a failure"));
        }
        if !rate.is_share() {
            return Err(refuse!("rate", "is above 1"));
        }
        match window {
            0 => Err(refuse!("window", "is empty")),
            1..=Self::MAX_WINDOW => {
                let window = window as u8;
                let failures = (rate.as_basis_points() * window as u32).div_ceil(Ratio::ONE.as_basis_points()) as u8;
                Ok(Self { rate, window, minimum_calls: window, failures, healthy: Ring(1 << window) })
            }
            _ => Err(refuse!("window", "is above 47 calls, the most that one word holds")),
        }
    }

    /// Judges from so many calls on, while the window is not full yet.
    ///
    /// # Errors
    /// Zero, or more than the window holds: the breaker would never open.
    pub const fn with_minimum_calls(mut self, calls: u32) -> Result<Self, ConfigError> {
        if calls == 0 {
            return Err(refuse!("minimum_calls", "is zero"));
        }
        if calls > self.window as u32 {
            return Err(refuse!("minimum_calls", "is above the window: the breaker would never open"));
        }
        self.minimum_calls = calls as u8;
        Ok(self)
    }
}

/// The last calls, one bit each, newest lowest; a one above the oldest marks the length.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Ring(u64);

impl Fresh for Ring {
    const FRESH: Self = Self(1);
}

impl Meter for Ring {
    type Home = Copied;

    #[inline]
    fn keep(&mut self, until: Instant) {
        self.0 = until.as_nanos();
    }

    #[inline]
    fn kept(&self) -> Instant {
        Instant::from_nanos(self.0)
    }
}

impl Ring {
    /// Whatever is beyond the mark of a window that is full leaves it.
    #[inline]
    const fn push(self, failed: bool, mark: u64) -> Self {
        let longer = self.0 << 1 | failed as u64;
        Self(if self.0 >= mark { longer & (mark - 1) | mark } else { longer })
    }

    const fn calls(self) -> u32 {
        // The mark is always there, so this does not underflow.
        63_u32.saturating_sub(self.0.leading_zeros())
    }

    const fn failures(self) -> u32 {
        ones(self.0).saturating_sub(1)
    }
}

/// How many bits are set.
#[inline]
const fn ones(word: u64) -> u32 {
    if usize::BITS < u64::BITS { ones_by_halves(word) } else { word.count_ones() }
}

/// Sums of ever more bits side by side (Warren, "Hacker's Delight", 5-1), of both halves together as soon as they fit.
const fn ones_by_halves(word: u64) -> u32 {
    const fn of_four(mut half: u32) -> u32 {
        half -= (half >> 1) & 0x5555_5555;
        (half & 0x3333_3333) + ((half >> 2) & 0x3333_3333)
    }
    let fours = of_four(word as u32) + of_four((word >> 32) as u32);
    let eights = (fours & 0x0F0F_0F0F) + ((fours >> 4) & 0x0F0F_0F0F);
    eights.wrapping_mul(0x0101_0101) >> 24
}

impl Trip for FailureRate {
    type Meter = Ring;

    // A chip has it once: it is called at several places.
    #[cfg_attr(target_pointer_width = "64", inline)]
    #[cfg_attr(not(target_pointer_width = "64"), inline(never))]
    fn record(&self, meter: &mut Ring, sample: Sample, _: Option<Instant>) -> Option<bool> {
        *meter = meter.push(sample.failed, self.healthy.0);
        if meter.0 >= self.healthy.0 {
            // One bit more than there are failures: the mark.
            return Some(ones(meter.0) > self.failures.into());
        }
        let calls = meter.calls();
        Some(calls >= self.minimum_calls.into() && self.rate.reached_by_few(meter.failures(), calls))
    }

    /// A full window without a failure: pushing a success onto it changes nothing.
    #[inline]
    fn is_healthy(&self, meter: &Ring) -> bool {
        *meter == self.healthy
    }

    fn counts(&self, meter: &Ring, _: Option<Instant>) -> Counts {
        Counts { calls: meter.calls(), failures: meter.failures(), slow: 0 }
    }

    /// A smaller window forgets the oldest calls; a larger one fills up from what there is.
    fn adapt(&self, meter: &mut Ring, _: &Self, _: Instant) {
        if meter.calls() > self.window.into() {
            let mark = self.healthy.0;
            meter.0 = meter.0 & (mark - 1) | mark;
        }
    }
}

impl PackedMeter for Ring {
    const BITS: u32 = BITS;

    #[inline]
    fn to_bits(self) -> u64 {
        self.0 ^ 1
    }

    #[inline]
    fn from_bits(bits: u64) -> Self {
        Self(bits ^ 1)
    }
}

/// Opens at more than so many failures per period, however many calls succeed meanwhile.
///
/// A leaky bucket of failures: each failure fills it by one, and it drains at `failures` per `period`. A success never
/// writes and never reads the clock, in any health. It is the generic cell rate algorithm (ITU-T I.371) turned on failures.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct FailureMeter {
    failures: u32,
    interval: NonZeroU32,
    /// How far ahead of the time a bucket is that is full.
    limit: u64,
}

/// The meter's unit of time is 2^16 ns: with it, 48 bits cover the clock's whole range.
const UNIT: u32 = 16;

impl FailureMeter {
    /// Opens at more than `failures` per `period`. The period is rounded to whole intervals of 66 µs between failures.
    ///
    /// # Errors
    /// No failures, or a period too short (below 66 µs a failure) or too long (above 78 hours a failure) to be measured.
    pub const fn new(failures: u32, period: Duration) -> Result<Self, ConfigError> {
        if failures == 0 {
            return Err(refuse!("failures", "is zero: the breaker would open without a failure"));
        }
        let interval = (Span::of(period).as_nanos() >> UNIT) / failures as u64;
        if interval > u32::MAX as u64 {
            return Err(refuse!("period", "is above 78 hours a failure"));
        }
        match NonZeroU32::new(interval as u32) {
            Some(interval) => Ok(Self { failures, interval, limit: failures as u64 * interval.get() as u64 }),
            None => Err(refuse!("period", "is below 66 µs a failure")),
        }
    }
}

/// When the bucket of failures will have drained, in units of 2^16 ns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Drained(u64);

impl Fresh for Drained {
    const FRESH: Self = Self(0);
}

impl Meter for Drained {
    type Home = Copied;

    #[inline]
    fn keep(&mut self, until: Instant) {
        self.0 = until.as_nanos();
    }

    #[inline]
    fn kept(&self) -> Instant {
        Instant::from_nanos(self.0)
    }
}

impl Trip for FailureMeter {
    type Meter = Drained;

    #[inline]
    fn record(&self, meter: &mut Drained, sample: Sample, now: Option<Instant>) -> Option<bool> {
        if !sample.failed {
            return Some(false);
        }
        let now = now?.as_nanos() >> UNIT;
        let (from, full) = (meter.0.max(now), now + self.limit);
        let filled = |from: u64| (from + u64::from(self.interval.get())).min((1 << BITS) - 1);
        let trips = filled(from) > full;
        // A clock that stepped back finds the bucket drained far ahead: no further than full, or it would stay so.
        meter.0 = if trips { filled(from.min(full)) } else { filled(from) };
        Some(trips)
    }

    #[inline]
    fn is_healthy(&self, _: &Drained) -> bool {
        true
    }

    fn counts(&self, meter: &Drained, now: Option<Instant>) -> Counts {
        let level = now.map_or(0, |now| meter.0.saturating_sub(now.as_nanos() >> UNIT));
        // Never more than full and the one that tripped, which a clock that stepped back would make it.
        let failures = div_ceil(level, self.interval).min(self.failures.saturating_add(1));
        Counts { calls: failures, failures, slow: 0 }
    }

    #[inline]
    fn wants_time(&self, failed: bool) -> bool {
        failed
    }

    /// As many failures as there were, each with the new time to drain.
    fn adapt(&self, meter: &mut Drained, from: &Self, now: Instant) {
        if self.interval != from.interval {
            let failures = u64::from(from.counts(meter, Some(now)).failures);
            let level = failures.saturating_mul(self.interval.get().into());
            meter.0 = (now.as_nanos() >> UNIT).saturating_add(level).min((1 << BITS) - 1);
        }
    }
}

/// `level / interval`, rounded up, saturating. In place, so that the compiler can leave it out where nobody looks at the counts.
const fn div_ceil(level: u64, interval: NonZeroU32) -> u32 {
    // No more bits than the quotient can have, of which there are few, most often: the compiler still sees that they come to an end.
    let excess = (u64::BITS + 1 - level.leading_zeros()).saturating_sub(u32::BITS - interval.leading_zeros());
    let (mut rest, mut quotient, mut bit) = (level, 0_u32, if excess < u32::BITS { excess } else { u32::BITS });
    while bit != 0 {
        bit = bit.saturating_sub(1);
        let part = (interval.get() as u64) << bit;
        if part <= rest {
            rest = rest.saturating_sub(part);
            quotient |= 1 << bit;
        }
    }
    quotient.saturating_add((rest != 0) as u32)
}

impl PackedMeter for Drained {
    const BITS: u32 = BITS;

    #[inline]
    fn to_bits(self) -> u64 {
        self.0
    }

    #[inline]
    fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    fn moved(self, from: Instant, to: Instant) -> Self {
        match self.0.saturating_sub(from.as_nanos() >> UNIT) {
            0 => Self::FRESH,
            level => Self(((to.as_nanos() >> UNIT) + level).min((1 << BITS) - 1)),
        }
    }
}

/// Another trip condition, with open periods that grow each time the breaker reopens without having closed in between.
///
/// A type of its own, so that who keeps to one period carries no arithmetic of delays.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Growing<T> {
    trip: T,
    periods: Backoff,
    rng: Rng,
}

impl<T> Growing<T> {
    /// Periods in place of the configured one: the first is `periods.delay(1)`. Their jitter comes from `seed` (entropy, or the device's own
    /// number) and the time of the opening.
    ///
    /// # Errors
    /// The field of the backoff that makes no sense, and why.
    pub const fn new(trip: T, periods: Backoff, seed: u64) -> Result<Self, ConfigError>
    where
        T: Copy,
    {
        match periods.check() {
            Ok(()) if periods.is_decorrelated() => {
                Err(refuse!("jitter", "is decorrelated: it grows from delay to delay, and a breaker keeps none"))
            }
            Ok(()) => Ok(Self { trip, periods, rng: Rng::new(seed) }),
            Err(error) => Err(error),
        }
    }
}

impl<T: Trip> Trip for Growing<T> {
    type Meter = T::Meter;

    #[inline]
    fn record(&self, meter: &mut Self::Meter, sample: Sample, now: Option<Instant>) -> Option<bool> {
        self.trip.record(meter, sample, now)
    }

    #[inline]
    fn is_healthy(&self, meter: &Self::Meter) -> bool {
        self.trip.is_healthy(meter)
    }

    fn counts(&self, meter: &Self::Meter, now: Option<Instant>) -> Counts {
        self.trip.counts(meter, now)
    }

    #[inline]
    fn slow_after(&self) -> Span {
        self.trip.slow_after()
    }

    #[inline]
    fn wants_time(&self, failed: bool) -> bool {
        self.trip.wants_time(failed)
    }

    fn adapt(&self, meter: &mut Self::Meter, from: &Self, now: Instant) {
        self.trip.adapt(meter, &from.trip, now);
    }

    fn open_span(&self, opening: &Opening) -> Span {
        let time = opening.at.as_nanos();
        let random = self.rng.at((time ^ (time >> 32)) as u32);
        self.periods.jittered_span(u32::from(opening.reopened).saturating_add(1), Span::ZERO, random)
    }
}

/// Another trip condition, with open periods that a function computes.
#[derive(Clone, Copy, Debug)]
pub struct OpenTime<T> {
    trip: T,
    open_time: fn(&Opening) -> Duration,
}

impl<T> OpenTime<T> {
    /// Periods in place of the configured one. The function runs inside the cell's update, perhaps more than once: it
    /// must depend on nothing but what it is handed.
    pub const fn new(trip: T, open_time: fn(&Opening) -> Duration) -> Self {
        Self { trip, open_time }
    }
}

#[cfg(feature = "defmt")]
impl<T: defmt::Format> defmt::Format for OpenTime<T> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "OpenTime {{ trip: {} }}", self.trip);
    }
}

impl<T: Trip> Trip for OpenTime<T> {
    type Meter = T::Meter;

    #[inline]
    fn record(&self, meter: &mut Self::Meter, sample: Sample, now: Option<Instant>) -> Option<bool> {
        self.trip.record(meter, sample, now)
    }

    #[inline]
    fn is_healthy(&self, meter: &Self::Meter) -> bool {
        self.trip.is_healthy(meter)
    }

    fn counts(&self, meter: &Self::Meter, now: Option<Instant>) -> Counts {
        self.trip.counts(meter, now)
    }

    #[inline]
    fn slow_after(&self) -> Span {
        self.trip.slow_after()
    }

    #[inline]
    fn wants_time(&self, failed: bool) -> bool {
        self.trip.wants_time(failed)
    }

    fn adapt(&self, meter: &mut Self::Meter, from: &Self, now: Instant) {
        self.trip.adapt(meter, &from.trip, now);
    }

    fn open_span(&self, opening: &Opening) -> Span {
        let configured = self.trip.open_span(opening);
        Span::of((self.open_time)(&Opening { configured, ..*opening }))
    }
}

/// Two meters side by side.
impl<A: Meter, B: Meter> Meter for (A, B) {
    type Home = <A::Home as Home>::With<B::Home>;

    fn keep(&mut self, until: Instant) {
        self.0.keep(until);
        self.1 = B::FRESH;
    }

    fn kept(&self) -> Instant {
        self.0.kept()
    }
}

impl<A: Trip, B: Trip> Trip for (A, B) {
    type Meter = (A::Meter, B::Meter);

    fn record(&self, meter: &mut Self::Meter, sample: Sample, now: Option<Instant>) -> Option<bool> {
        if <<Self::Meter as Meter>::Home as Home>::LARGE {
            // With the time, neither can answer that it can't say: nothing would be left half recorded.
            now?;
            let trips = (self.0.record(&mut meter.0, sample, now)?, self.1.record(&mut meter.1, sample, now)?);
            return Some(trips.0 || trips.1);
        }
        let (mut first, mut second) = *meter;
        let trips = (self.0.record(&mut first, sample, now)?, self.1.record(&mut second, sample, now)?);
        *meter = (first, second);
        Some(trips.0 || trips.1)
    }

    #[inline]
    fn is_healthy(&self, meter: &Self::Meter) -> bool {
        self.0.is_healthy(&meter.0) && self.1.is_healthy(&meter.1)
    }

    /// The smaller limit. Each condition judges by its own.
    #[inline]
    fn slow_after(&self) -> Span {
        self.0.slow_after().min(self.1.slow_after())
    }

    #[inline]
    fn wants_time(&self, failed: bool) -> bool {
        self.0.wants_time(failed) || self.1.wants_time(failed)
    }

    fn adapt(&self, meter: &mut Self::Meter, from: &Self, now: Instant) {
        self.0.adapt(&mut meter.0, &from.0, now);
        self.1.adapt(&mut meter.1, &from.1, now);
    }

    fn open_span(&self, opening: &Opening) -> Span {
        self.0.open_span(opening).max(self.1.open_span(opening))
    }

    /// The counts of the first condition.
    fn counts(&self, meter: &Self::Meter, now: Option<Instant>) -> Counts {
        self.0.counts(&meter.0, now)
    }
}

impl<A: PackedMeter, B: PackedMeter> PackedMeter for (A, B) {
    const BITS: u32 = A::BITS + B::BITS;

    #[inline]
    fn to_bits(self) -> u64 {
        self.0.to_bits() << B::BITS | self.1.to_bits()
    }

    #[inline]
    fn from_bits(bits: u64) -> Self {
        (A::from_bits(bits >> B::BITS), B::from_bits(bits & ((1 << B::BITS) - 1)))
    }

    fn moved(self, from: Instant, to: Instant) -> Self {
        (self.0.moved(from, to), self.1.moved(from, to))
    }
}

#[cfg(test)]
mod tests;
