//! Calls per second.

use core::fmt;
use core::time::Duration;

use crate::math::divide_wide;
use crate::ratio::Ratio;

/// A rate: calls per second, in millionths of one, at most a million.
///
/// ```
/// use core::time::Duration;
/// use failsoft_core::adaptive_rate::Rate;
///
/// assert_eq!(Rate::of(10, Duration::from_secs(4)).to_string(), "2.5 per second");
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Rate(u64);

impl Rate {
    /// Millionths of a call.
    const CALL: u64 = 1_000_000;

    /// No calls at all.
    pub const ZERO: Self = Self(0);
    /// A million calls a second: the highest rate there is here.
    pub const MAX: Self = Self(Self::CALL * Self::CALL);

    /// So many calls a second; at most [`MAX`](Self::MAX).
    #[must_use]
    pub const fn per_second(calls: u32) -> Self {
        Self::from_millionths((calls as u64).saturating_mul(Self::CALL))
    }

    /// So many calls in this time, which counts in whole microseconds; to the nearest millionth, and at most [`MAX`](Self::MAX).
    #[must_use]
    pub const fn of(calls: u32, period: Duration) -> Self {
        let micros = (period.as_secs().saturating_mul(1_000_000)).saturating_add(period.subsec_micros() as u64);
        // Millionths of a call per millionth of a second. What saturates is more than 18 million calls.
        let calls = (calls as u64).saturating_mul(Self::CALL).saturating_mul(1_000_000);
        // In no time at all, it is the most there is.
        Self::from_millionths(divide_wide(calls.saturating_add(micros / 2), micros).0)
    }

    /// So many millionths of a call per second; at most [`MAX`](Self::MAX).
    #[must_use]
    pub const fn from_millionths(millionths: u64) -> Self {
        if millionths < Self::MAX.0 { Self(millionths) } else { Self::MAX }
    }

    /// In millionths of a call per second.
    #[must_use]
    pub const fn as_millionths(self) -> u64 {
        self.0
    }

    /// So much of it, rounded down.
    pub(super) const fn times(self, ratio: Ratio) -> Self {
        Self::from_millionths(ratio.of(self.0))
    }

    pub(super) const fn plus(self, millionths: u64) -> Self {
        Self::from_millionths(self.0.saturating_add(millionths))
    }

    pub(super) const fn minus(self, millionths: u64) -> Self {
        Self(self.0.saturating_sub(millionths))
    }
}

/// As a decimal: `2.5 per second`.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (calls, mut rest, mut places) = (self.0 / Self::CALL, self.0 % Self::CALL, 6_usize);
        write!(f, "{calls}")?;
        if rest != 0 {
            while rest.is_multiple_of(10) {
                (rest, places) = (rest / 10, places.saturating_sub(1));
            }
            write!(f, ".{rest:0places$}")?;
        }
        f.write_str(" per second")
    }
}
