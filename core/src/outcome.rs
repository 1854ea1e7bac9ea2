//! What became of an attempt, and who decides what counts as a failure.

use core::fmt;
use core::time::Duration;

use crate::time::Span;

/// What an attempt counts as.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Outcome {
    /// The dependency did its work.
    Success,
    /// The dependency failed.
    Failure,
    /// Says nothing about the dependency's health: the caller's own mistake, say.
    Ignored,
}

impl Outcome {
    /// Its name in snake case, as it stands in labels and fields of telemetry: `success`, say. It is kept from version to version.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Ignored => "ignored",
        }
    }
}

/// A classifier's answer: what the attempt counts as, whether another one makes sense, and when.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Verdict {
    // Outcome, flags and what a retry costs a quota that has several prices (0 is the quota's own). One word for them, and a verdict
    // travels in registers.
    word: u32,
    // Zero where there is none.
    hint: Span,
}

/// The lowest byte, which a small chip takes out without a mask.
const OUTCOME: u32 = 0xFF;
const FAILURE: u32 = 1;
const IGNORED: u32 = 2;
const RETRYABLE: u32 = 1 << 8;
const SLOW: u32 = 1 << 9;
const OPENS: u32 = 1 << 10;
/// The hint is the delay, and not only a lower bound of it.
const EXACT: u32 = 1 << 11;
const THROTTLED: u32 = 1 << 12;
/// There is a hint, and it is a lower bound.
const HINTED: u32 = 1 << 13;
/// Above the rest: what a retry costs.
const COST: u32 = 16;

impl Verdict {
    /// A success.
    pub const SUCCESS: Self = Self::of(0);
    /// A failure that another attempt may mend.
    pub const TRANSIENT: Self = Self::of(FAILURE | RETRYABLE);
    /// A failure that no further attempt will mend.
    pub const PERMANENT: Self = Self::of(FAILURE);
    /// Neither success nor failure of the dependency; not retried.
    pub const IGNORED: Self = Self::of(IGNORED);

    const fn of(word: u32) -> Self {
        Self { word, hint: Span::ZERO }
    }

    const fn flagged(mut self, flag: u32, set: bool) -> Self {
        self.word = if set { self.word | flag } else { self.word & !flag };
        self
    }

    /// The same verdict with the server's hint when to come back (`Retry-After`): a lower bound of a retry's delay and of a
    /// breaker's open period.
    #[must_use]
    pub const fn with_retry_after(self, wait: Duration) -> Self {
        // A hint of 584 years is none.
        match Span::of(wait) {
            Span::MAX => self.hinted(Span::ZERO, 0),
            wait => self.hinted(wait, HINTED),
        }
    }

    /// The same verdict with the delay before the next attempt, in place of the backoff's.
    #[must_use]
    pub const fn with_delay(self, delay: Duration) -> Self {
        self.hinted(Span::of(delay), EXACT)
    }

    const fn hinted(self, hint: Span, flag: u32) -> Self {
        Self { word: self.word & !(EXACT | HINTED) | flag, hint }
    }

    /// The same verdict, retryable or not.
    #[must_use]
    pub const fn with_retryable(self, retryable: bool) -> Self {
        self.flagged(RETRYABLE, retryable)
    }

    /// The same verdict over a call that took too long, whatever the clock says: for conditions that count slow calls.
    #[must_use]
    pub const fn with_slow(self) -> Self {
        self.flagged(SLOW, true)
    }

    /// The same verdict, which alone opens a circuit breaker whatever its condition says: the caller has been banned, say.
    /// With [`with_retry_after`](Self::with_retry_after) it stays open for at least that long.
    #[must_use]
    pub const fn with_opening(self) -> Self {
        self.flagged(OPENS, true)
    }

    /// The same verdict over a call of which the dependency said "too many requests" (an HTTP 429, say): for those that adapt to what
    /// it can take, as [`AdaptiveRate`](crate::adaptive_rate::AdaptiveRate) does.
    #[must_use]
    pub const fn with_throttled(self) -> Self {
        self.flagged(THROTTLED, true)
    }

    /// The same verdict with what a retry after it costs a [quota](crate::budget) that charges by the kind of error. Zero, the
    /// default, is the quota's own price.
    #[must_use]
    pub const fn with_cost(mut self, cost: u16) -> Self {
        self.word = self.word & ((1 << COST) - 1) | (cost as u32) << COST;
        self
    }

    /// What the attempt counts as.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self.word & OUTCOME {
            0 => Outcome::Success,
            FAILURE => Outcome::Failure,
            _ => Outcome::Ignored,
        }
    }

    /// Whether another attempt makes sense.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        self.word & RETRYABLE != 0
    }

    /// Whether the classifier called the call slow.
    #[must_use]
    pub const fn is_slow(&self) -> bool {
        self.word & SLOW != 0
    }

    /// Whether it opens a circuit breaker by itself.
    #[must_use]
    pub const fn opens(&self) -> bool {
        self.word & OPENS != 0
    }

    /// Whether the dependency said that there are too many requests.
    #[must_use]
    pub const fn is_throttled(&self) -> bool {
        self.word & THROTTLED != 0
    }

    /// What a retry costs, where the classifier said so.
    #[must_use]
    pub const fn cost(&self) -> Option<u16> {
        match (self.word >> COST) as u16 {
            0 => None,
            cost => Some(cost),
        }
    }

    /// The delay before the next attempt, where the classifier said exactly that.
    #[must_use]
    pub const fn delay(&self) -> Option<Duration> {
        match self.exact_delay() {
            Some(span) => Some(span.duration()),
            None => None,
        }
    }

    pub(crate) const fn exact_delay(&self) -> Option<Span> {
        if self.word & EXACT != 0 { Some(self.hint) } else { None }
    }

    /// When the server asked to come back, if it did.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self.hint() {
            Some(span) => Some(span.duration()),
            None => None,
        }
    }

    pub(crate) const fn hint(&self) -> Option<Span> {
        if self.word & HINTED != 0 { Some(self.hint) } else { None }
    }

    /// The lower bound that the server asked for; zero where it did not.
    #[inline]
    pub(crate) const fn hint_or_zero(&self) -> Span {
        if self.word & EXACT != 0 { Span::ZERO } else { self.hint }
    }
}

impl fmt::Debug for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Verdict");
        debug.field("outcome", &self.outcome()).field("retryable", &self.is_retryable());
        debug.field("slow", &self.is_slow()).field("opens", &self.opens()).field("throttled", &self.is_throttled());
        debug
            .field("cost", &self.cost())
            .field("delay", &self.delay())
            .field("retry_after", &self.retry_after())
            .finish()
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for Verdict {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(
            f,
            "Verdict {{ outcome: {}, retryable: {}, slow: {}, opens: {}, throttled: {}, cost: {}, delay: {}, retry_after: {} }}",
            self.outcome(),
            self.is_retryable(),
            self.is_slow(),
            self.opens(),
            self.is_throttled(),
            self.cost(),
            self.exact_delay(),
            self.hint(),
        );
    }
}

/// Decides what a result counts as. Any `Fn(Result<&T, &E>) -> Verdict` is a classifier.
///
/// It runs once per attempt, outside every lock. A result of `Ok` can be a failure too (an HTTP 503, say).
pub trait Classify<T, E> {
    /// The verdict over one result.
    fn classify(&self, result: Result<&T, &E>) -> Verdict;
}

/// The default classifier: `Ok` is a success, `Err` a failure that another attempt may mend.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ErrIsFailure;

impl<T, E> Classify<T, E> for ErrIsFailure {
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        match result {
            Ok(_) => Verdict::SUCCESS,
            Err(_) => Verdict::TRANSIENT,
        }
    }
}

impl<T, E, F: Fn(Result<&T, &E>) -> Verdict> Classify<T, E> for F {
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        self(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn flags(verdict: Verdict) -> [bool; 4] {
        [verdict.is_retryable(), verdict.is_slow(), verdict.opens(), verdict.is_throttled()]
    }

    #[test]
    fn what_is_said_twice_holds_as_if_said_once() {
        let once = Verdict::SUCCESS.with_slow().with_throttled();
        assert_eq!(once.with_slow().with_throttled(), once);
        assert_eq!(flags(once), [false, true, false, true]);
    }

    fn waits(verdict: Verdict) -> [Option<Duration>; 2] {
        [verdict.delay(), verdict.retry_after()]
    }

    #[test]
    fn each_thing_said_of_a_verdict_leaves_the_others_as_they_are() {
        assert_eq!(flags(Verdict::SUCCESS), [false; 4]);
        assert_eq!(flags(Verdict::SUCCESS.with_retryable(true)), [true, false, false, false]);
        assert_eq!(flags(Verdict::SUCCESS.with_slow()), [false, true, false, false]);
        assert_eq!(flags(Verdict::SUCCESS.with_opening()), [false, false, true, false]);
        assert_eq!(flags(Verdict::SUCCESS.with_throttled()), [false, false, false, true]);
        assert_eq!(flags(Verdict::PERMANENT.with_retryable(false)), [false; 4]);
        let all = Verdict::TRANSIENT.with_slow().with_opening().with_throttled().with_retry_after(SECOND).with_cost(7);
        assert_eq!((flags(all), waits(all), all.cost()), ([true; 4], [None, Some(SECOND)], Some(7)));
        let permanent = all.with_retryable(false);
        assert_eq!((flags(permanent), waits(permanent)), ([false, true, true, true], [None, Some(SECOND)]));
        assert_eq!((permanent.outcome(), permanent.cost()), (Outcome::Failure, Some(7)));
    }

    #[test]
    fn each_verdict_counts_as_what_it_says() {
        let outcomes =
            [Verdict::SUCCESS, Verdict::TRANSIENT, Verdict::PERMANENT, Verdict::IGNORED].map(|it| it.outcome());
        assert_eq!(outcomes, [Outcome::Success, Outcome::Failure, Outcome::Failure, Outcome::Ignored]);
    }

    #[test]
    fn of_a_delay_and_a_hint_the_last_counts() {
        let (delay, hint) = (SECOND, SECOND * 2);
        let verdict = Verdict::PERMANENT.with_slow();
        assert_eq!(waits(verdict), [None, None]);
        for (verdict, expected, least) in [
            (verdict.with_delay(delay), [Some(delay), None], Span::ZERO),
            (verdict.with_retry_after(hint), [None, Some(hint)], Span::of(hint)),
            (verdict.with_retry_after(hint).with_delay(delay), [Some(delay), None], Span::ZERO),
            (verdict.with_delay(delay).with_retry_after(hint), [None, Some(hint)], Span::of(hint)),
            (verdict.with_delay(delay).with_retry_after(Duration::MAX), [None, None], Span::ZERO),
            (verdict.with_delay(Duration::ZERO), [Some(Duration::ZERO), None], Span::ZERO),
            (verdict.with_retry_after(Duration::ZERO), [None, Some(Duration::ZERO)], Span::ZERO),
        ] {
            assert_eq!((waits(verdict), verdict.hint_or_zero()), (expected, least));
            assert_eq!(flags(verdict), [false, true, false, false]);
        }
    }
}
