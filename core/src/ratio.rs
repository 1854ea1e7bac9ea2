//! Ratios without floating point.

use core::fmt;

use crate::math::{divide, times};

/// A ratio in hundredths of a percent (1 / 10,000).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Ratio(u32);

impl Ratio {
    /// Parts that make one whole.
    const WHOLE: u32 = 10_000;

    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The whole.
    pub const ONE: Self = Self(Self::WHOLE);

    /// So many percent, saturating. Above 100 it is a number all the same; whoever takes it as a share refuses it.
    #[must_use]
    pub const fn percent(percent: u32) -> Self {
        Self(percent.saturating_mul(100))
    }

    /// So many hundredths of a percent.
    #[must_use]
    pub const fn basis_points(points: u32) -> Self {
        Self(points)
    }

    /// In hundredths of a percent.
    #[must_use]
    pub const fn as_basis_points(self) -> u32 {
        self.0
    }

    /// `value` times this ratio, rounded down, saturating.
    ///
    /// Exact: the whole parts and the rest apart.
    pub(crate) const fn of(self, value: u64) -> u64 {
        let (whole, rest) = divide(value, Self::WHOLE);
        // A rest is below 2^14, so that its product fits.
        let (part, _) = divide((rest as u64).saturating_mul(self.0 as u64), Self::WHOLE);
        times(whole, self.0).saturating_add(part)
    }

    pub(crate) const fn is_share(self) -> bool {
        self.0 <= Self::WHOLE
    }

    /// The same for a share of a few, up to 65,535 and at least one: the products fit 32 bits.
    pub(crate) const fn reached_by_few(self, part: u32, whole: u32) -> bool {
        debug_assert!(self.is_share() && part <= 0xFFFF && whole <= 0xFFFF, "it is for a share of few");
        part.wrapping_mul(Self::WHOLE) >= self.0.wrapping_mul(whole)
    }

    /// `part / whole >= self`, exactly; false for an empty whole.
    pub(crate) const fn reached_by(self, part: u32, whole: u32) -> bool {
        whole != 0 && (part as u64).saturating_mul(Self::WHOLE as u64) >= (self.0 as u64).saturating_mul(whole as u64)
    }
}

/// In percent: `12.5 %`.
impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (percent, rest) = (self.0 / 100, self.0 % 100);
        match rest {
            0 => write!(f, "{percent} %"),
            _ if rest % 10 == 0 => write!(f, "{percent}.{} %", rest / 10),
            _ => write!(f, "{percent}.{rest:02} %"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn a_ratio_is_reached_at_its_value_and_never_by_nothing() {
        assert!(Ratio::percent(50).reached_by(1, 2));
        assert!(!Ratio::percent(50).reached_by(49, 99));
        assert!(Ratio::basis_points(3333).reached_by(1, 3));
        assert!(!Ratio::basis_points(3334).reached_by(1, 3));
        assert!(!Ratio::ZERO.reached_by(0, 0));
        assert!(Ratio::ONE.reached_by(u32::MAX, u32::MAX));
    }

    #[test]
    fn a_ratio_is_so_many_hundredths_of_a_percent_and_a_share_up_to_the_whole() {
        let ratios =
            [Ratio::ZERO, Ratio::percent(37), Ratio::ONE, Ratio::basis_points(10_001), Ratio::percent(u32::MAX)];
        let seen = ratios.map(|ratio| (ratio.as_basis_points(), ratio.is_share()));
        assert_eq!(seen, [(0, true), (3_700, true), (10_000, true), (10_001, false), (u32::MAX, false)]);
    }

    #[test]
    fn a_ratio_is_printed_in_percent_with_as_many_places_as_it_has() {
        let texts = [0, 1, 10, 100, 1_250, 1_225, 1_205, 10_000, 25_000].map(|points| Ratio(points).to_string());
        assert_eq!(texts, ["0 %", "0.01 %", "0.1 %", "1 %", "12.5 %", "12.25 %", "12.05 %", "100 %", "250 %"]);
    }

    #[test]
    fn of_a_few_it_is_reached_as_of_many() {
        let mut rng = crate::rng::Rng::new(3);
        for _ in 0..10_000 {
            let (ratio, whole) = (Ratio(rng.next() % 10_001), rng.next() % 0xFFFF + 1);
            let part = if rng.next() & 1 == 0 { rng.next() % (whole + 1) } else { whole * ratio.0 / 10_000 };
            assert_eq!(ratio.reached_by_few(part, whole), ratio.reached_by(part, whole), "{part} of {whole}");
        }
    }

    #[test]
    fn a_ratio_of_a_value_is_exact_and_saturates() {
        let mut rng = crate::rng::Rng::new(1);
        for _ in 0..10_000 {
            let value = (u64::from(rng.next()) << 32 | u64::from(rng.next())) >> (rng.next() % 64);
            let points = rng.next() >> (rng.next() % 32);
            let exact = u128::from(value) * u128::from(points) / 10_000;
            let exact = u64::try_from(exact).unwrap_or(u64::MAX);
            assert_eq!(Ratio::basis_points(points).of(value), exact, "{points} of {value}");
        }
    }
}
