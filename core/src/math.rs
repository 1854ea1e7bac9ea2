//! Integer arithmetic that the core library leaves to the compiler's routines, for chips that would have to carry them.
//!
//! A Cortex-M0 takes a routine of 900 bytes for a 64-bit division, and another for a 32-bit one: here is one for both. Where the machine
//! divides 64 bits, it does.

/// `value / by` and the rest of it; everything over nothing is the most there is.
pub(crate) const fn divide(value: u64, by: u32) -> (u64, u32) {
    // One instruction, where there is one.
    if usize::BITS < u64::BITS {
        by_hand(value, by)
    } else if by == 0 {
        (u64::MAX, 0)
    } else {
        native(value, by)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a rest is below the divisor")]
#[inline]
const fn native(value: u64, by: u32) -> (u64, u32) {
    match (value.checked_div(by as u64), value.checked_rem(by as u64)) {
        (Some(quotient), Some(rest)) => (quotient, rest as u32),
        _ => (u64::MAX, 0),
    }
}

/// Bit by bit, as on paper: from the highest bit of the quotient on, of which there are few, most often.
#[expect(clippy::cast_possible_truncation, reason = "a rest is below the divisor")]
#[inline(never)]
const fn by_hand(value: u64, by: u32) -> (u64, u32) {
    if by == 0 {
        return (u64::MAX, 0);
    }
    let (mut rest, mut part, mut left, mut quotient) = (value, by as u64, 0_u32, 0_u64);
    // Not beyond the value, so that nothing overflows.
    while part <= value >> 1 {
        part <<= 1;
        left = left.wrapping_add(1);
    }
    loop {
        quotient <<= 1;
        if part <= rest {
            rest = rest.wrapping_sub(part);
            quotient |= 1;
        }
        if left == 0 {
            return (quotient, rest as u32);
        }
        part >>= 1;
        left = left.wrapping_sub(1);
    }
}

/// The same for a divisor of 64 bits.
pub(crate) const fn divide_wide(value: u64, by: u64) -> (u64, u64) {
    if usize::BITS < u64::BITS {
        wide_by_hand(value, by)
    } else {
        match (value.checked_div(by), value.checked_rem(by)) {
            (Some(quotient), Some(rest)) => (quotient, rest),
            _ => (u64::MAX, 0),
        }
    }
}

#[inline(never)]
const fn wide_by_hand(value: u64, by: u64) -> (u64, u64) {
    if by == 0 {
        return (u64::MAX, 0);
    }
    let (mut value, mut rest, mut left) = (value, 0_u64, u64::BITS);
    while left != 0 {
        let carry = rest >> 63 != 0;
        rest = rest << 1 | value >> 63;
        value <<= 1;
        if carry || rest >= by {
            rest = rest.wrapping_sub(by);
            value |= 1;
        }
        left = left.wrapping_sub(1);
    }
    (value, rest)
}

/// `value · by`, saturating.
#[inline]
pub(crate) const fn times(value: u64, by: u32) -> u64 {
    if usize::BITS < u64::BITS { times_by_hand(value, by) } else { value.saturating_mul(by as u64) }
}

/// By halves of 32 bits, of which none overflows.
#[inline(never)]
const fn times_by_hand(value: u64, by: u32) -> u64 {
    let low = (value & 0xFFFF_FFFF).wrapping_mul(by as u64);
    let high = (value >> 32).wrapping_mul(by as u64).wrapping_add(low >> 32);
    if high >> 32 == 0 { high << 32 | low & 0xFFFF_FFFF } else { u64::MAX }
}

/// `value · by / over`, rounded down and saturating: exact where both fit 32 bits, else to the upper 32 bits of the larger one.
#[expect(clippy::cast_possible_truncation, reason = "looked at just before")]
pub(crate) const fn scale(value: u32, by: u64, over: u64) -> u32 {
    if value == 0 {
        return 0;
    }
    let excess = 32_u32.saturating_sub((by | over).leading_zeros());
    let scaled = divide_wide((value as u64).saturating_mul(by.unbounded_shr(excess)), over.unbounded_shr(excess)).0;
    if scaled > u32::MAX as u64 { u32::MAX } else { scaled as u32 }
}

/// The square root, rounded down.
pub(crate) const fn square_root(value: u32) -> u32 {
    let (mut rest, mut root, mut bit) = (value, 0_u32, 1_u32 << 30);
    while bit != 0 {
        let tried = root | bit;
        root >>= 1;
        if rest >= tried {
            rest = rest.wrapping_sub(tried);
            root |= bit;
        }
        bit >>= 2;
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn pairs() -> impl Iterator<Item = (u64, u32)> {
        let mut rng = Rng::new(1);
        let edges =
            [(0, 1), (1, 1), (u64::MAX, 1), (u64::MAX, u32::MAX), (1 << 32, u32::MAX), ((1 << 32) - 1, u32::MAX)];
        edges.into_iter().chain((0..20_000).map(move |_| {
            let value = (u64::from(rng.next()) << 32 | u64::from(rng.next())) >> (rng.next() % 64);
            (value, (rng.next() >> (rng.next() % 32)).max(1))
        }))
    }

    #[test]
    fn a_division_by_hand_is_as_good_as_any() {
        for (value, by) in pairs() {
            let expected = (value / u64::from(by), u32::try_from(value % u64::from(by)).expect("below the divisor"));
            assert_eq!((by_hand(value, by), divide(value, by)), (expected, expected), "{value} / {by}");
        }
    }

    #[test]
    fn a_wide_division_by_hand_is_as_good_as_any() {
        let mut rng = Rng::new(2);
        for (value, by) in pairs() {
            let by = u64::from(by) << (rng.next() % 33);
            assert_eq!(
                (wide_by_hand(value, by), divide_wide(value, by)),
                ((value / by, value % by), (value / by, value % by)),
                "{value} / {by}"
            );
        }
        assert_eq!((wide_by_hand(7, 0), divide_wide(7, 0)), ((u64::MAX, 0), (u64::MAX, 0)));
        assert_eq!(wide_by_hand(u64::MAX, u64::MAX - 1), (1, 1));
    }

    #[test]
    fn nothing_divides_into_the_most_there_is() {
        assert_eq!([divide(5, 0).0, by_hand(5, 0).0, by_hand(u64::MAX, 0).0], [u64::MAX; 3]);
    }

    #[test]
    fn a_multiplication_by_hand_saturates_too() {
        for (value, by) in pairs() {
            let expected = value.saturating_mul(by.into());
            assert_eq!((times_by_hand(value, by), times(value, by)), (expected, expected), "{value} * {by}");
        }
    }

    #[test]
    fn a_value_is_scaled_exactly_by_a_fraction_of_32_bits_and_saturates() {
        let mut rng = Rng::new(4);
        for _ in 0..20_000 {
            let (value, by, over) = (rng.next() >> (rng.next() % 32), u64::from(rng.next()), u64::from(rng.next()) | 1);
            let exact = u128::from(value) * u128::from(by) / u128::from(over);
            assert_eq!(scale(value, by, over), u32::try_from(exact).unwrap_or(u32::MAX), "{value} · {by} / {over}");
        }
        assert_eq!(scale(1_000, 10_000_000_000, 50_000_000_000), 200, "above 32 bits, where nothing is lost");
        assert_eq!(scale(u32::MAX, 1 << 40, 1 << 50), u32::MAX >> 10);
        assert_eq!((scale(1, 1, 0), scale(0, u64::MAX, 1), scale(7, u64::MAX, u64::MAX)), (u32::MAX, 0, 7));
    }

    #[test]
    fn a_square_root_is_the_largest_whose_square_fits() {
        let mut rng = Rng::new(5);
        for _ in 0..20_000 {
            let value = rng.next() >> (rng.next() % 32);
            assert_eq!(square_root(value), value.isqrt(), "{value}");
        }
        assert_eq!((square_root(0), square_root(u32::MAX)), (0, 65_535));
    }
}
