//! The limit as the algorithms work on it, and averages of latencies: fixed point, saturating.

use core::time::Duration;

use crate::bulkhead::MOST;
use crate::cell::Fresh;
use crate::config::{ConfigError, refuse};
use crate::math::{divide, scale};
use crate::ratio::Ratio;
use crate::time::Span;

/// Bits after the point: with the 21 bits of the largest limit they fill a word.
const FRACTION: u32 = 10;

/// A limit with a fraction of 1/1,024, so that small changes add up.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Estimate(u32);

impl Estimate {
    /// A whole number of calls at once, up to [`MOST`].
    #[must_use]
    pub const fn of(calls: u32) -> Self {
        Self(if calls > MOST { MOST << FRACTION } else { calls << FRACTION })
    }

    /// Calls at once, without the fraction.
    #[must_use]
    pub const fn whole(self) -> u32 {
        self.0 >> FRACTION
    }

    /// So many parts of 1/1,024 of a call, up to [`MOST`] calls.
    #[must_use]
    pub const fn of_parts(parts: u32) -> Self {
        if parts > MOST << FRACTION { Self(MOST << FRACTION) } else { Self(parts) }
    }

    /// In parts of 1/1,024 of a call.
    #[must_use]
    pub const fn parts(self) -> u32 {
        self.0
    }

    /// The same with the fraction counted as a whole one.
    pub(super) const fn rounded_up(self) -> u32 {
        self.0.saturating_add((1 << FRACTION) - 1) >> FRACTION
    }

    pub(super) const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    pub(super) const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Not below one, nor above the other. Not `clamp`, which panics where they are the wrong way round.
    pub(super) fn within(self, least: Self, most: Self) -> Self {
        self.min(most).max(least)
    }

    /// Times a fraction of two spans.
    pub(super) const fn times(self, by: Span, over: Span) -> Self {
        Self(scale(self.0, by.as_nanos(), over.as_nanos()))
    }

    pub(super) fn share(self, ratio: Ratio) -> Self {
        Self(u32::try_from(ratio.of(self.0.into())).unwrap_or(u32::MAX))
    }

    /// A part of the way from here to there: all of it for a ratio of one. Rounded up, so that a small step is one.
    pub(super) fn towards(self, there: Self, part: Ratio) -> Self {
        let way = Self(there.0.abs_diff(self.0));
        let rest = Ratio::basis_points(Ratio::ONE.as_basis_points().saturating_sub(part.as_basis_points()));
        let step = way.minus(way.share(rest));
        if there > self { self.plus(step) } else { self.minus(step) }
    }

    /// The square root of it.
    pub(super) const fn root(self) -> Self {
        // The root of a number with 10 bits of fraction has 5, so five more are made up for.
        Self(crate::math::square_root(self.0) << (FRACTION / 2))
    }
}

/// An amount that a limit changes by, or is compared with, as a function of the limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Amount {
    /// Always as many calls.
    Fixed(u32),
    /// So many times the decimal logarithm of the limit, which is rounded down and at least 1.
    Log10(u32),
    /// A share of the limit.
    Share(Ratio),
}

impl Amount {
    pub(super) fn at(self, limit: Estimate) -> Estimate {
        match self {
            Self::Fixed(calls) => Estimate::of(calls),
            Self::Log10(times) => Estimate::of(log10(limit.whole()).saturating_mul(times)),
            Self::Share(ratio) => limit.share(ratio),
        }
    }

    pub(super) const fn check(self) -> Result<(), ConfigError> {
        match self {
            Self::Share(ratio) if !ratio.is_share() => Err(refuse!("amount", "is a share above 1")),
            _ => Ok(()),
        }
    }
}

/// Rounded down, at least 1. By comparisons: the limits that tell them apart are few.
const fn log10(limit: u32) -> u32 {
    match limit {
        0..100 => 1,
        100..1_000 => 2,
        1_000..10_000 => 3,
        10_000..100_000 => 4,
        100_000..1_000_000 => 5,
        _ => 6,
    }
}

/// Latencies of which the plain average is taken, before the weights come in.
const WARM_UP: u8 = 10;

/// An average of latencies in which the latest count most.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct MovingAverage {
    value: Span,
    count: u8,
}

impl Fresh for MovingAverage {
    const FRESH: Self = Self { value: Span::ZERO, count: 0 };
}

impl MovingAverage {
    /// An average that is known already.
    pub(super) const fn known(value: Span) -> Self {
        Self { value, count: WARM_UP }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The average so far; zero before the first.
    #[must_use]
    pub const fn average(&self) -> Duration {
        self.value.duration()
    }

    /// Takes one in. The weight of the newest is 2 / (`window` + 1), of each one before it so much less; the first
    /// [`WARM_UP`] weigh the same.
    pub(super) fn add(&mut self, latency: Span, window: u16) -> Span {
        self.count = self.count.saturating_add(1).min(WARM_UP.saturating_add(1));
        let parts = if self.count <= WARM_UP { u32::from(self.count) } else { u32::from(window).saturating_add(1) };
        let weight = if self.count <= WARM_UP { 1 } else { 2 };
        let (new, old) = (latency.as_nanos(), self.value.as_nanos());
        // Rounded up, so that a small difference moves it too; never further than all the way.
        let way = new.abs_diff(old).saturating_mul(weight);
        let (step, _) = divide(way.saturating_add(parts.into()).saturating_sub(1), parts);
        let step = step.min(new.abs_diff(old));
        let value = if new > old { old.saturating_add(step) } else { old.saturating_sub(step) };
        self.value = Span::from_nanos(value);
        self.value
    }

    pub(super) fn lower(&mut self, to: Ratio) {
        self.value = Span::from_nanos(to.of(self.value.as_nanos()));
    }
}
