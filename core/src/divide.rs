//! Division and multiplication of wide numbers, for chips that have neither.
//!
//! A Cortex-M0 takes a routine of 900 bytes for a 64-bit division, and another for a 32-bit one: here is one for both.

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

/// The rest of `value / by`; none over nothing.
pub(crate) const fn rest(value: u64, by: u64) -> u64 {
    if usize::BITS < u64::BITS {
        rest_by_hand(value, by)
    } else {
        match value.checked_rem(by) {
            Some(rest) => rest,
            None => 0,
        }
    }
}

#[inline(never)]
const fn rest_by_hand(value: u64, by: u64) -> u64 {
    if by == 0 {
        return 0;
    }
    let (mut value, mut rest, mut left) = (value, 0_u64, u64::BITS);
    while left != 0 {
        let carry = rest >> 63 != 0;
        rest = rest << 1 | value >> 63;
        value <<= 1;
        if carry || rest >= by {
            rest = rest.wrapping_sub(by);
        }
        left = left.wrapping_sub(1);
    }
    rest
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
    fn a_rest_by_hand_is_the_rest() {
        let mut rng = Rng::new(2);
        for (value, by) in pairs() {
            let by = u64::from(by) << (rng.next() % 33);
            assert_eq!((rest_by_hand(value, by), rest(value, by)), (value % by, value % by), "{value} % {by}");
        }
        assert_eq!((rest_by_hand(7, 0), rest(7, 0)), (0, 0));
        assert_eq!(rest_by_hand(u64::MAX, u64::MAX - 1), 1);
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
}
