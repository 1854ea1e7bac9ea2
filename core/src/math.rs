//! Integer arithmetic that the core library leaves to routines which a small chip would have to carry.

/// `a / b`, rounded down; `u64::MAX` where nothing is divided by.
///
/// Where the machine divides 64 bits it does that. Elsewhere bit by bit, in a few instructions of code: the compiler's own routine takes
/// half a kilobyte on a Cortex-M0, and what divides here does so once for many calls.
#[cfg(target_pointer_width = "64")]
pub(crate) const fn divide(a: u64, b: u64) -> u64 {
    match a.checked_div(b) {
        Some(quotient) => quotient,
        None => u64::MAX,
    }
}

#[cfg(not(target_pointer_width = "64"))]
pub(crate) const fn divide(a: u64, b: u64) -> u64 {
    divide_by_bits(a, b)
}

/// The same on any machine.
#[cfg(any(test, not(target_pointer_width = "64")))]
const fn divide_by_bits(a: u64, b: u64) -> u64 {
    if b == 0 {
        return u64::MAX;
    }
    // From where the highest bits of both meet.
    let mut bit = b.leading_zeros().saturating_sub(a.leading_zeros());
    let (mut rest, mut quotient) = (a, 0_u64);
    loop {
        // Not so far that a bit of `b` leaves the word.
        let part = b.unbounded_shl(bit);
        if rest >= part {
            rest = rest.wrapping_sub(part);
            quotient |= 1_u64.unbounded_shl(bit);
        }
        match bit.checked_sub(1) {
            Some(next) => bit = next,
            None => return quotient,
        }
    }
}

/// `value · by / over`, rounded down and saturating: exact where both fit 32 bits, else to the upper 32 bits of the larger one.
#[expect(clippy::cast_possible_truncation, reason = "looked at just before")]
pub(crate) const fn scale(value: u32, by: u64, over: u64) -> u32 {
    if value == 0 {
        return 0;
    }
    let excess = 32_u32.saturating_sub((by | over).leading_zeros());
    let scaled = divide((value as u64).saturating_mul(by.unbounded_shr(excess)), over.unbounded_shr(excess));
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

    #[test]
    fn a_division_by_bits_is_a_division() {
        let mut rng = Rng::new(3);
        for _ in 0..20_000 {
            let mut draw = || (u64::from(rng.next()) << 32 | u64::from(rng.next())) >> (rng.next() % 64);
            let (a, b) = (draw(), draw().max(1));
            assert_eq!(divide_by_bits(a, b), a / b, "{a} / {b}");
        }
        for (a, b) in [(0, 1), (u64::MAX, 1), (u64::MAX, u64::MAX), (1, u64::MAX), (1 << 63, 3)] {
            assert_eq!((divide_by_bits(a, b), divide(a, b)), (a / b, a / b), "{a} / {b}");
        }
        assert_eq!((divide_by_bits(1, 0), divide(0, 0)), (u64::MAX, u64::MAX));
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
