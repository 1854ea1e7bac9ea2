//! Instants, spans and the clock they are read from.
//!
//! An [`Instant`] is nanoseconds since the clock's start, in a `u64`: 584 years. Everything saturates: nothing here
//! overflows at `Duration::MAX`, and a clock that steps back only makes spans zero.

use core::time::Duration;

use crate::math::{divide, times};

const NANOS_PER_SEC: u32 = 1_000_000_000;

/// A point on a clock's own time line: nanoseconds since that clock's start.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Instant(u64);

impl Instant {
    /// The clock's start.
    pub const START: Self = Self(0);
    /// The last instant there is, 584 years after the start; as a deadline it means "never".
    pub const MAX: Self = Self(u64::MAX);

    /// The instant `nanos` nanoseconds after the clock's start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The instant `millis` milliseconds after the clock's start, saturating.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(times(millis, 1_000_000))
    }

    /// Nanoseconds since the clock's start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This instant moved forward; [`Instant::MAX`] where it would overflow.
    #[must_use]
    pub const fn saturating_add(self, span: Duration) -> Self {
        self.after(Span::of(span))
    }

    /// How long after `earlier` this instant is; zero when it is not after it.
    #[must_use]
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        Span(self.0.saturating_sub(earlier.0)).duration()
    }

    pub(crate) const fn after(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// As far ahead of `to` as it is of `from`; what is past is now.
    pub(crate) const fn moved(self, from: Self, to: Self) -> Self {
        Self(to.0.saturating_add(self.0.saturating_sub(from.0)))
    }
}

/// A [`Duration`] as nanoseconds in one word, saturating at 584 years.
///
/// Configurations keep spans in this form: it is computed once (in a `const`, at compile time), so that the paths that
/// run on every call neither multiply nor divide.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Span(u64);

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);
    /// For ever.
    pub const MAX: Self = Self(u64::MAX);

    /// This long.
    #[must_use]
    pub const fn of(span: Duration) -> Self {
        let whole = times(span.as_secs(), NANOS_PER_SEC);
        Self(whole.saturating_add(span.subsec_nanos() as u64))
    }

    pub(crate) const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub(crate) const fn as_nanos(self) -> u64 {
        self.0
    }

    /// As a [`Duration`].
    #[must_use]
    pub const fn duration(self) -> Duration {
        let (secs, nanos) = divide(self.0, NANOS_PER_SEC);
        // Always: it is a rest. Said, so that no panic is linked for it.
        if nanos < NANOS_PER_SEC { Duration::new(secs, nanos) } else { Duration::MAX }
    }

    pub(crate) const fn is_zero(self) -> bool {
        self.0 == 0
    }

    pub(crate) const fn is_max(self) -> bool {
        self.0 == u64::MAX
    }
}

/// Whether a clock has stepped back, that reads so many nanoseconds less than it must have before: a second or more (2^30 ns, which
/// a chip compares with in no time). Less is one reading overtaken by another thread's between being read and being used.
pub(crate) const fn is_step_back(nanos: u64) -> bool {
    nanos >> 30 != 0
}

/// Something that tells the time.
///
/// Operations take a clock and not an instant, because reading the time costs more than everything else they do: they
/// read it lazily, at most once, and never inside a lock. An [`Instant`] is itself a clock that stands still, for
/// callers who have already read theirs.
pub trait Clock {
    /// The time now. It should not go back; where it does, spans count as zero and nothing else happens.
    ///
    /// A counter of fewer than 64 bits goes back by its whole range when it wraps, and has to be extended.
    fn now(&self) -> Instant;
}

impl Clock for Instant {
    fn now(&self) -> Instant {
        *self
    }
}

impl<C: Clock + ?Sized> Clock for &C {
    fn now(&self) -> Instant {
        (**self).now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_instants_saturate() {
        assert_eq!(Span::of(Duration::MAX), Span::MAX);
        assert_eq!(Instant::MAX.saturating_add(Duration::MAX), Instant::MAX);
        assert_eq!(Instant::START.saturating_add(Duration::MAX), Instant::MAX);
        assert_eq!(Instant::START.saturating_duration_since(Instant::MAX), Duration::ZERO);
        assert_eq!(Span::of(Duration::new(1, 1)), Span::from_nanos(1_000_000_001));
    }

    #[test]
    fn an_instant_is_as_far_ahead_on_another_clock_and_what_is_past_is_now() {
        let moved = |at, from, to| Instant(at).moved(Instant(from), Instant(to)).0;
        assert_eq!([moved(9, 4, 0), moved(9, 4, 100), moved(4, 4, 7), moved(1, 4, 7)], [5, 105, 7, 7]);
        assert_eq!(moved(u64::MAX - 1, 0, 9), u64::MAX);
    }

    #[test]
    fn only_the_longest_span_is_for_ever_and_only_the_shortest_is_none() {
        for (nanos, is) in
            [(0, (true, false)), (1, (false, false)), (u64::MAX - 1, (false, false)), (u64::MAX, (false, true))]
        {
            let span = Span::from_nanos(nanos);
            assert_eq!((span.is_zero(), span.is_max()), is, "{nanos}");
        }
    }

    #[test]
    fn an_instant_is_its_nanoseconds_and_a_clock_that_stands_still_by_reference_too() {
        let instant = Instant::from_nanos(7);
        assert_eq!([instant, instant.now(), Clock::now(&&instant)].map(|now| now.as_nanos()), [7; 3]);
        assert_eq!(Span::of(instant.saturating_duration_since(Instant::from_nanos(4))).as_nanos(), 3);
    }

    #[test]
    fn a_second_or_more_is_a_step_back_and_less_is_a_reading_overtaken() {
        for (nanos, is) in [(0, false), (1, false), ((1 << 30) - 1, false), (1 << 30, true), (u64::MAX, true)] {
            assert_eq!(is_step_back(nanos), is, "{nanos}");
        }
    }
}
