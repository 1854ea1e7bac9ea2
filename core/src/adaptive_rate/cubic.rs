//! The curve along which a rate rises after it was cut.

use core::time::Duration;

use super::{Config, Rate};
use crate::math::divide;
use crate::ratio::Ratio;
use crate::time::{Instant, Span};

/// A rate after a cut: it begins at `beta` times what it was, rises fast at first and slowly close to what it was, stays near that for a
/// while, and then rises faster and faster.
///
/// ```
/// use core::time::Duration;
/// use failsoft_core::Instant;
/// use failsoft_core::adaptive_rate::{Config, Cubic, Rate};
///
/// let config = Config::new();
/// let mut curve = Cubic::new(&config, Rate::per_second(10), Instant::START);
/// assert_eq!(curve.rate(&config, Instant::START), Rate::per_second(7));
/// assert_eq!(curve.recovery(), Duration::from_nanos(1_957_433_821));
/// let [soon, late] = [1, 5].map(|second| curve.rate(&config, Instant::from_millis(second * 1_000)));
/// assert_eq!((soon.to_string(), late.to_string()), ("9.648936 per second".into(), "21.266268 per second".into()));
/// ```
///
/// After `t` seconds it is `scale · (t − k)³ + peak`, where `k = ∛(peak · (1 − beta) / scale)` is when it is back at the peak.
///
/// It is three multiplications, and no division; a cube root is taken once, when it begins. Times are in nanoseconds: what that makes of
/// the rate shows in its last digit, the millionths, only where the curve is steep.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Cubic {
    peak: Rate,
    recovery: Span,
    since: Instant,
}

impl Cubic {
    /// How far from the peak's time anything differs, in nanoseconds: an hour and more, at which the flattest curve has passed the highest
    /// rate. Its cube has 126 bits.
    const FARTHEST: u64 = (1 << 42) - 1;

    /// 2^124 / 10^25: from cubic nanoseconds times hundredths of a percent to millionths of a call, in steps of 60 and 64 bits.
    const UNIT: u64 = 2_126_764_793_256;

    /// The curve from now on of a rate that is cut at `peak`.
    #[must_use]
    pub fn new(config: &Config, peak: Rate, now: Instant) -> Self {
        let cut = Ratio::ONE.as_basis_points().saturating_sub(config.beta.as_basis_points());
        // k³, in units of 10^18 cubic nanoseconds: 10^12 · 10^4 · 10^3 fit in 64 bits.
        let cube = peak.as_millionths().saturating_mul(cut.into()).saturating_mul(1_000);
        let scale = config.scale.as_basis_points();
        let (cube, _) = divide(cube.saturating_add(u64::from(scale / 2)), scale);
        // Of eight times as much the root is twice as large: its last bit rounds.
        let twice = cube_root(u128::from(cube).saturating_mul(8_000_000_000_000_000_000));
        Self { peak, recovery: Span::from_nanos(twice.saturating_add(1) / 2), since: now }
    }

    /// For how long it has risen. A clock that stepped back begins the curve where it stands.
    pub(super) fn passed(&mut self, now: Instant) -> Span {
        self.since = self.since.min(now);
        Span::from_nanos(now.as_nanos().saturating_sub(self.since.as_nanos()))
    }

    /// The rate at this time. A clock that stepped back begins the curve where it stands.
    pub fn rate(&mut self, config: &Config, now: Instant) -> Rate {
        let (passed, recovery) = (self.passed(now).as_nanos(), self.recovery.as_nanos());
        let distance = u128::from(passed.abs_diff(recovery).min(Self::FARTHEST));
        // None of these overflows: 126 bits, of which 66 are left; times 60; and 62 of that.
        let cube = distance.wrapping_mul(distance).wrapping_mul(distance) >> 60;
        let scale = u64::from(config.scale.as_basis_points()).saturating_mul(Self::UNIT);
        let change = cube.wrapping_mul(scale.into()).wrapping_add(1 << 63) >> 64;
        let change = u64::try_from(change).unwrap_or(u64::MAX);
        if passed < recovery { self.peak.minus(change) } else { self.peak.plus(change) }
    }

    /// The rate at which it was cut.
    #[must_use]
    pub const fn peak(&self) -> Rate {
        self.peak
    }

    /// How long it takes until it is back there.
    #[must_use]
    pub const fn recovery(&self) -> Duration {
        self.recovery.duration()
    }

    /// When it was cut.
    #[must_use]
    pub const fn since(&self) -> Instant {
        self.since
    }
}

/// The cube root, rounded down: a bit of it for each three of the number, from the top.
pub(super) fn cube_root(number: u128) -> u64 {
    let (mut rest, mut root) = (number, 0_u128);
    for shift in (0..=126_u8).step_by(3).rev() {
        root <<= 1;
        // (root + 1)³ − root³, at this place: at most 88 bits, and where it fits, no more than the rest with its zeroes.
        let next = root.wrapping_mul(root.wrapping_add(1)).wrapping_mul(3).wrapping_add(1);
        if rest >> shift >= next {
            rest = rest.wrapping_sub(next << shift);
            root |= 1;
        }
    }
    u64::try_from(root).unwrap_or(u64::MAX)
}
