//! Numbers without floating point: a vector's, which are decimals, and ours, which are fractions.

use core::cmp::Ordering;
use core::fmt;
use core::time::Duration;

use failsoft_core::{Instant, Ratio};

/// `mantissa · 10^exponent`, exactly what a JSON number says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Decimal {
    /// The digits, with their sign.
    pub mantissa: i64,
    /// The power of ten.
    pub exponent: i8,
}

impl Decimal {
    /// Nothing.
    pub const ZERO: Self = Self { mantissa: 0, exponent: 0 };
    /// A millionth of a millisecond's thousandfold: 1 µs, in milliseconds.
    pub const MICROSECOND: Self = Self { mantissa: 1, exponent: -3 };

    /// A millionth.
    pub const MILLIONTH: Self = Self { mantissa: 1, exponent: -6 };

    /// `self · 10^power`, where that is a whole number of 128 bits.
    fn shifted(self, power: i32) -> Option<i128> {
        let power = power.saturating_add(self.exponent.into());
        let mantissa = i128::from(self.mantissa);
        match u32::try_from(power) {
            _ if mantissa == 0 => Some(0),
            Ok(power) => times(mantissa, ten(power)?),
            Err(_) => match divided(mantissa, ten(power.unsigned_abs())?) {
                (quotient, 0) => Some(quotient),
                _ => None,
            },
        }
    }

    /// As a whole number, where it is one.
    #[must_use]
    pub fn whole(self) -> Option<i128> {
        self.shifted(0)
    }

    /// In thousandths, rounded towards zero.
    #[must_use]
    pub fn thousandths(self) -> Option<i128> {
        match self.shifted(3) {
            Some(thousandths) => Some(thousandths),
            None => {
                let below = ten(u32::from(self.exponent.unsigned_abs()).checked_sub(3)?)?;
                Some(divided(self.mantissa.into(), below).0)
            }
        }
    }

    /// In millionths, rounded to whole ones; `None` below zero and above 64 bits.
    #[must_use]
    pub fn millionths(self) -> Option<u64> {
        let millionths = match self.shifted(6) {
            Some(millionths) => millionths,
            // A part of a millionth: to the nearest one.
            None => {
                let below = ten(u32::from(self.exponent.unsigned_abs()).checked_sub(6)?)?;
                rounded(self.mantissa.into(), below)?
            }
        };
        u64::try_from(millionths).ok()
    }

    /// So many milliseconds, rounded to whole nanoseconds; `None` below zero and above 584 years.
    #[must_use]
    pub fn nanos(self) -> Option<u64> {
        self.millionths()
    }

    /// As a share of one, where it is a whole number of hundredths of a percent.
    #[must_use]
    pub fn share(self) -> Option<Ratio> {
        self.shifted(4).and_then(|points| u32::try_from(points).ok()).map(Ratio::basis_points)
    }

    /// As percent, where it is a whole number of hundredths of one.
    #[must_use]
    pub fn percent(self) -> Option<Ratio> {
        self.shifted(2).and_then(|points| u32::try_from(points).ok()).map(Ratio::basis_points)
    }

    /// A random number of 0 to 1 as the library takes them: evenly spread over 32 bits. One itself is the highest.
    #[must_use]
    pub fn random(self) -> Option<u32> {
        // From 0 to 1: there is no power of ten above the first.
        let below = ten(u32::from(self.exponent.min(0).unsigned_abs()))?;
        let scale = ten(u32::from(self.exponent.max(0).unsigned_abs()))?;
        let random = rounded(times(i128::from(self.mantissa) << 32, scale)?, below)?;
        (0..=1 << 32).contains(&random).then(|| u32::try_from(random).unwrap_or(u32::MAX))
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Quantity::from_decimal(*self) {
            Some(quantity) if self.exponent < 16 => quantity.fmt(f),
            _ => write!(f, "{}e{}", self.mantissa, self.exponent),
        }
    }
}

/// A number that the library gave: a fraction, so that rates and milliseconds are exact.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Quantity {
    numerator: i128,
    denominator: u64,
}

impl Quantity {
    /// A whole number.
    pub fn whole(number: impl Into<i128>) -> Self {
        Self { numerator: number.into(), denominator: 1 }
    }

    /// `part / whole`; `None` for an empty whole.
    pub fn fraction(part: impl Into<i128>, whole: u64) -> Option<Self> {
        (whole != 0).then(|| Self { numerator: part.into(), denominator: whole })
    }

    /// `part / whole` in percent, or −1, which stands for "not known", for an empty whole.
    #[must_use]
    pub fn percent(part: u32, whole: u32) -> Self {
        Self::fraction(i128::from(part) * 100, whole.into()).unwrap_or_else(|| Self::whole(-1))
    }

    /// A ratio as a share of one.
    #[must_use]
    pub fn share(ratio: Ratio) -> Self {
        Self { numerator: ratio.as_basis_points().into(), denominator: 10_000 }
    }

    /// So many nanoseconds, in milliseconds.
    #[must_use]
    pub fn nanos(nanos: u64) -> Self {
        Self { numerator: nanos.into(), denominator: 1_000_000 }
    }

    /// A span in milliseconds.
    #[must_use]
    pub fn millis(span: Duration) -> Self {
        Self { numerator: i128::try_from(span.as_nanos()).unwrap_or(i128::MAX), denominator: 1_000_000 }
    }

    /// From `now` until `then` in milliseconds; nothing when that is over.
    #[must_use]
    pub fn until(now: Instant, then: Instant) -> Self {
        Self::millis(then.saturating_duration_since(now))
    }

    /// Rounded to so many decimals, halves away from zero.
    #[must_use]
    pub fn rounded(self, decimals: u32) -> Self {
        let scale = 10_u64.saturating_pow(decimals);
        let scaled = self.numerator.saturating_mul(scale.into());
        let denominator = i128::from(self.denominator);
        let half = if scaled < 0 { -(denominator / 2) } else { denominator / 2 };
        Self { numerator: divided(scaled.saturating_add(half), denominator).0, denominator: scale }
    }

    fn from_decimal(decimal: Decimal) -> Option<Self> {
        match decimal.whole() {
            Some(whole) => Some(Self::whole(whole)),
            None => Self::fraction(decimal.mantissa, u64::try_from(ten(decimal.exponent.unsigned_abs().into())?).ok()?),
        }
    }

    /// How it compares with a decimal, of which `tolerance` more or less are the same. `None`: too far apart in scale to tell.
    #[must_use]
    pub fn compare(self, expected: Decimal, tolerance: Decimal) -> Option<Ordering> {
        let places = |decimal: Decimal| decimal.exponent.min(0).unsigned_abs();
        let places = places(expected).max(places(tolerance));
        let (power, denominator) = (i32::from(places), i128::from(self.denominator));
        let actual = times(self.numerator, ten(places.into())?)?;
        let expected = times(expected.shifted(power)?, denominator)?;
        let tolerance = times(tolerance.shifted(power)?, denominator)?;
        if actual.checked_sub(expected)?.abs() <= tolerance {
            return Some(Ordering::Equal);
        }
        Some(actual.cmp(&expected))
    }
}

/// As a decimal of up to nine places.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let denominator = i128::from(self.denominator);
        let (whole, mut rest) = divided(self.numerator.saturating_abs(), denominator);
        let sign = if self.numerator < 0 { "-" } else { "" };
        match u64::try_from(whole) {
            Ok(whole) => write!(f, "{sign}{whole}")?,
            Err(_) => return write!(f, "{sign}(more than 2^64)"),
        }
        let mut places = 0;
        if rest != 0 {
            f.write_str(".")?;
        }
        while rest != 0 && places < 9 {
            let (digit, left) = divided(rest * 10, denominator);
            write!(f, "{}", u8::try_from(digit).unwrap_or(9))?;
            (rest, places) = (left, places + 1);
        }
        if rest != 0 { f.write_str("…") } else { Ok(()) }
    }
}

// 128-bit arithmetic is long on a chip: each of it is there once.

#[inline(never)]
fn ten(power: u32) -> Option<i128> {
    let mut product = 1;
    for _ in 0..power {
        product = times(product, 10)?;
    }
    Some(product)
}

#[inline(never)]
fn times(a: i128, b: i128) -> Option<i128> {
    a.checked_mul(b)
}

/// Quotient and remainder.
#[inline(never)]
const fn divided(number: i128, divisor: i128) -> (i128, i128) {
    match (number.checked_div(divisor), number.checked_rem(divisor)) {
        (Some(quotient), Some(rest)) => (quotient, rest),
        _ => (0, 0),
    }
}

/// To the nearest, halves up.
fn rounded(number: i128, divisor: i128) -> Option<i128> {
    let (quotient, rest) = divided(number.checked_add(divisor / 2)?, divisor);
    Some(if rest < 0 { quotient.checked_sub(1)? } else { quotient })
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::*;

    const fn decimal(mantissa: i64, exponent: i8) -> Decimal {
        Decimal { mantissa, exponent }
    }

    #[test]
    fn milliseconds_become_whole_nanoseconds() {
        assert_eq!(decimal(1, -6).nanos(), Some(1));
        assert_eq!(decimal(2, 0).nanos(), Some(2_000_000));
        assert_eq!(decimal(72, 5).nanos(), Some(7_200_000_000_000));
        assert_eq!(decimal(6_524_779_401_948_106, -13).nanos(), Some(652_477_940), "to the nearest");
        assert_eq!(decimal(15, -7).nanos(), Some(2), "half a nanosecond goes up");
        assert_eq!(decimal(-1, 0).nanos(), None);
        assert_eq!(decimal(i64::MAX, 100).nanos(), None);
        assert_eq!(decimal(1, -128).nanos(), None, "no rounding over 38 digits");
    }

    #[test]
    fn ratios_are_exact_or_none() {
        assert_eq!(decimal(6, -1).share(), Some(Ratio::percent(60)));
        assert_eq!(decimal(50, 0).percent(), Some(Ratio::percent(50)));
        assert_eq!(decimal(1, -5).share(), None);
        assert_eq!(decimal(-1, -4).share(), None);
    }

    #[test]
    fn a_random_number_of_one_is_the_highest_there_is() {
        assert_eq!(decimal(0, 0).random(), Some(0));
        assert_eq!(decimal(5, -1).random(), Some(1 << 31));
        assert_eq!(decimal(1, 0).random(), Some(u32::MAX));
        assert_eq!(decimal(11, -1).random(), None);
        assert_eq!(decimal(-1, -1).random(), None);
    }

    #[test]
    fn numbers_compare_exactly_unless_there_is_a_tolerance() {
        let third = Quantity::percent(1, 3);
        assert_eq!(third.compare(decimal(33_333, -3), Decimal::ZERO), Some(Ordering::Greater));
        assert_eq!(third.compare(decimal(33_333, -3), decimal(1, -2)), Some(Ordering::Equal));
        assert_eq!(third.rounded(2).compare(decimal(3_333, -2), Decimal::ZERO), Some(Ordering::Equal));
        assert_eq!(Quantity::nanos(1).compare(decimal(1, -6), Decimal::ZERO), Some(Ordering::Equal));
        assert_eq!(Quantity::nanos(1).compare(decimal(2, -6), Decimal::ZERO), Some(Ordering::Less));
        assert_eq!(Quantity::whole(-5).compare(decimal(-5, 0), Decimal::ZERO), Some(Ordering::Equal));
        assert_eq!(Quantity::nanos(1).compare(decimal(1, -120), Decimal::ZERO), None, "no overflow");
    }

    #[test]
    fn numbers_are_printed_as_decimals() {
        for (quantity, text) in [
            (Quantity::nanos(1_500_000), "1.5"),
            (Quantity::percent(1, 3), "33.333333333…"),
            (Quantity::percent(1, 0), "-1"),
            (Quantity::whole(-12), "-12"),
        ] {
            assert_eq!(quantity.to_string(), text);
        }
        assert_eq!(decimal(25, -4).to_string(), "0.0025");
        assert_eq!(decimal(7, 30).to_string(), "7e30");
        assert_eq!(decimal(1, -30).to_string(), "1e-30");
    }
}
