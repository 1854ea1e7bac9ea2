//! When a try counts as slow: after a fixed delay, or after one that follows the latencies.

use core::cell::{Cell, RefCell};
use core::fmt::{self, Debug};
use core::time::Duration;

use crate::cell::{Fresh, Stored};
use crate::config::{ConfigError, Valid, refuse};
use crate::math::divide;
use crate::quantile::Sketch;
use crate::ratio::Ratio;
use crate::time::Span;

/// Latencies that a quantile counts at the most, unless said otherwise.
pub const WINDOW: u16 = 500;
/// Latencies that a quantile must know before it is used, unless said otherwise.
pub const MINIMUM: u16 = 20;

/// How the first try of a call ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Ended {
    /// It succeeded.
    Success,
    /// It failed.
    Failure,
    /// It was dropped because a hedge was faster: it would have taken longer than it had.
    Overtaken,
}

/// How long a try may take before the next one starts.
pub trait Delay: Copy + Debug {
    /// What is known of the latencies.
    type Latencies: Fresh;

    /// Whether latencies are looked at. It costs two readings of the clock for each call.
    const TIMED: bool;

    /// The delay now. [`Span::MAX`] is never.
    fn delay(&self, latencies: &Self::Latencies) -> Span;

    /// Whether the latency of a first try that ended so is taken into account.
    fn counts(&self, ended: Ended) -> bool;

    /// Takes a latency into account.
    fn record(&self, latencies: &mut Self::Latencies, took: Span);

    /// Writes it as a part of one line: `after 50ms`.
    ///
    /// # Errors
    /// Only what the formatter returns.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// Nothing is known of the latencies, and nothing needs to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Unknown;

impl Fresh for Unknown {
    const FRESH: Self = Self;
}

impl Stored for Unknown {
    type Cell = Cell<Self>;
}

/// Always the same delay. Zero starts all tries at once, `Duration::MAX` never starts another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct FixedDelay {
    delay: Span,
}

impl FixedDelay {
    /// This delay. Any makes sense.
    #[must_use]
    pub const fn new(delay: Duration) -> Valid<Self> {
        Valid::vouched(Self { delay: Span::of(delay) })
    }
}

impl Delay for FixedDelay {
    type Latencies = Unknown;

    const TIMED: bool = false;

    fn delay(&self, _: &Unknown) -> Span {
        self.delay
    }

    fn counts(&self, _: Ended) -> bool {
        false
    }

    fn record(&self, _: &mut Unknown, _: Span) {}

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {:?}", self.delay.duration())
    }
}

/// A quantile of the latencies: with 95 %, about one call in twenty is hedged.
///
/// It counts the latency of each call's first try that succeeded; and of one that was overtaken by a hedge, the time that it had
/// had. That is less than it would have taken, but more than the delay, and the quantile needs to know no more: without it,
/// each slow try that is cut off would lower the quantile, which would cut off more. A first try that failed, or was dropped with
/// the whole call, is not counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Quantile {
    quantile: Ratio,
    initial: Span,
    window: u16,
    minimum: u16,
}

impl Quantile {
    /// This quantile of the latencies; and a delay to begin with, until enough of them are known.
    #[must_use]
    pub const fn new(quantile: Ratio, initial: Duration) -> Self {
        Self { quantile, initial: Span::of(initial), window: WINDOW, minimum: MINIMUM }
    }

    /// Counts so many latencies at the most, and half of them at the least. Fewer follow a change faster; more are steadier: a
    /// 99 % quantile of 100 is the slowest but one.
    #[must_use]
    pub const fn with_window(mut self, latencies: u16) -> Self {
        self.window = latencies;
        self
    }

    /// Uses the quantile once so many latencies are known.
    #[must_use]
    pub const fn with_minimum(mut self, latencies: u16) -> Self {
        self.minimum = latencies;
        self
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    /// The first field that doesn't, and why.
    pub const fn validate(self) -> Result<Valid<Self>, ConfigError> {
        let points = self.quantile.as_basis_points();
        if points == 0 || points >= Ratio::ONE.as_basis_points() {
            return Err(refuse!("quantile", "is not between 0 and 100 %"));
        }
        if self.minimum == 0 {
            return Err(refuse!("minimum", "is zero: there would be nothing to go by"));
        }
        if self.window / 2 < self.minimum {
            return Err(refuse!("window", "is below twice the minimum: it would have to start over again and again"));
        }
        Ok(Valid::vouched(self))
    }
}

impl Delay for Quantile {
    type Latencies = Sketch;

    const TIMED: bool = true;

    fn delay(&self, latencies: &Sketch) -> Span {
        match latencies.quantile_span(self.quantile) {
            Some(slow) if latencies.len() >= self.minimum => slow,
            _ => self.initial,
        }
    }

    fn counts(&self, ended: Ended) -> bool {
        matches!(ended, Ended::Success | Ended::Overtaken)
    }

    fn record(&self, latencies: &mut Sketch, took: Span) {
        latencies.record_span(took, self.quantile, self.window);
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "when slower than {} of the calls, {:?} at first", self.quantile, self.initial.duration())
    }
}

/// The mean of the last `W` latencies, times a percentage, plus a constant: "average plus".
///
/// It counts the latency of each call's first try that succeeded, and on request that of one that failed. One that a hedge
/// overtook is not counted: the mean tells nothing of the slow ones then, so that the constant or the percentage has to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct AveragePlus<const W: usize> {
    percent: Ratio,
    plus: Span,
    initial: Option<Span>,
    failures: bool,
}

impl<const W: usize> AveragePlus<W> {
    /// The mean of the last `W` latencies plus this; and this alone until there is one.
    #[must_use]
    pub const fn new(plus: Duration) -> Self {
        Self { percent: Ratio::ONE, plus: Span::of(plus), initial: None, failures: false }
    }

    /// With so much of the mean: 200 % is twice.
    #[must_use]
    pub const fn with_percent(mut self, percent: Ratio) -> Self {
        self.percent = percent;
        self
    }

    /// With this delay until a latency is known.
    #[must_use]
    pub const fn with_initial(mut self, delay: Duration) -> Self {
        self.initial = Some(Span::of(delay));
        self
    }

    /// Counts the latencies of failures too.
    #[must_use]
    pub const fn with_failures(mut self) -> Self {
        self.failures = true;
        self
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    /// The first field that doesn't, and why.
    pub const fn validate(self) -> Result<Valid<Self>, ConfigError> {
        if W == 0 || W > MOST {
            return Err(refuse!("window", "is zero or above 65,535, the most the counter holds"));
        }
        Ok(Valid::vouched(self))
    }
}

/// The most latencies that a mean is taken of.
const MOST: usize = u16::MAX as usize;

impl<const W: usize> Delay for AveragePlus<W> {
    type Latencies = Latest<W>;

    const TIMED: bool = true;

    fn delay(&self, latencies: &Latest<W>) -> Span {
        match (latencies.known, self.initial) {
            (0, Some(initial)) => initial,
            _ => {
                let share = self.percent.of(latencies.mean());
                Span::from_nanos(share.saturating_add(self.plus.as_nanos()))
            }
        }
    }

    fn counts(&self, ended: Ended) -> bool {
        ended == Ended::Success || (ended == Ended::Failure && self.failures)
    }

    fn record(&self, latencies: &mut Latest<W>, took: Span) {
        latencies.push(took.as_nanos());
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} of the mean of {W} latencies", self.percent)?;
        if self.plus.is_zero() { Ok(()) } else { write!(f, " plus {:?}", self.plus.duration()) }
    }
}

/// The last `W` latencies: 8 bytes each, and 16 more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Latest<const W: usize> {
    // A ring.
    nanos: [u64; W],
    sum: u64,
    next: u16,
    known: u16,
}

impl<const W: usize> Fresh for Latest<W> {
    const FRESH: Self = Self { nanos: [0; W], sum: 0, next: 0, known: 0 };
}

impl<const W: usize> Stored for Latest<W> {
    type Cell = RefCell<Self>;
}

impl<const W: usize> Latest<W> {
    /// So large, the sum of all doesn't overflow: 78 hours for the largest ring there is, and longer for all others.
    const LONGEST: u64 = if W == 0 { 0 } else { u64::MAX / (W as u64) };

    fn push(&mut self, nanos: u64) {
        let nanos = nanos.min(Self::LONGEST);
        let place = usize::from(self.next);
        let Some(oldest) = self.nanos.get_mut(place) else { return };
        // The sum is that of the ring, always: neither saturates.
        self.sum = self.sum.saturating_sub(*oldest).saturating_add(nanos);
        *oldest = nanos;
        let next = self.next.saturating_add(1);
        self.known = self.known.max(next);
        self.next = if usize::from(next) < W { next } else { 0 };
    }

    /// The mean, rounded down; zero where nothing is known.
    const fn mean(&self) -> u64 {
        if self.known == 0 { 0 } else { divide(self.sum, self.known as u32).0 }
    }
}
