//! Delays against `u128` arithmetic, and jitter against its bounds.

#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, clippy::indexing_slicing, reason = "tests")]

use std::string::ToString;
use std::vec::Vec;

use super::*;
use crate::rng::Rng;
use crate::valid;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// Attempts at which implementations like to break.
const ATTEMPTS: [u32; 15] = [0, 1, 2, 3, 31, 32, 33, 63, 64, 65, 94, 100, 1_024, u32::MAX - 1, u32::MAX];
const BASES: [Duration; 6] = [
    Duration::from_nanos(1),
    Duration::from_nanos(999),
    MILLISECOND,
    SECOND,
    Duration::from_secs(86_400),
    Duration::MAX,
];
const FACTORS: [Ratio; 6] = [
    Ratio::ONE,
    Ratio::percent(110),
    Ratio::percent(150),
    FACTOR,
    Ratio::percent(1_000),
    Ratio::basis_points(u32::MAX),
];

/// What a [`Duration`] is within this crate: nanoseconds, at most `u64::MAX` of them.
fn nanos(span: Duration) -> u128 {
    span.as_nanos().min(u64::MAX.into())
}

/// `base · factor^n` with every step rounded down, stopped once it is beyond what a `u64` holds.
fn power(base: u128, factor: Ratio, n: u32) -> u128 {
    let mut delay = base;
    for _ in 0..n {
        let next = delay * u128::from(factor.as_basis_points()) / 10_000;
        if next == delay || delay > u64::MAX.into() {
            break;
        }
        delay = next;
    }
    delay
}

fn fibonacci_number(n: u32) -> u128 {
    let (mut previous, mut current) = (0, 1);
    // The 100th is beyond a `u64` already.
    for _ in 1..n.min(100) {
        (previous, current) = (current, previous + current);
    }
    current
}

/// Every shape, with a base from the list.
fn shapes() -> Vec<Backoff> {
    let of_base = |base| {
        let exponentials = FACTORS.map(|factor| Backoff::exponential(base).with_factor(factor));
        [Backoff::constant(base), Backoff::linear(base), Backoff::fibonacci(base)].into_iter().chain(exponentials)
    };
    BASES.into_iter().flat_map(of_base).collect()
}

fn jitters() -> [Jitter; 8] {
    [
        Jitter::None,
        Jitter::Proportional(Ratio::ZERO),
        JITTER,
        Jitter::Proportional(Ratio::percent(50)),
        Jitter::Proportional(Ratio::ONE),
        Jitter::Full,
        Jitter::Equal,
        Jitter::Decorrelated,
    ]
}

/// The same backoff with caps from the base to none.
fn with_caps(backoff: Backoff) -> [Backoff; 3] {
    let base = backoff.base.duration();
    [base, base.saturating_mul(10), Duration::MAX].map(|cap| backoff.with_cap(cap))
}

// Before jitter

#[test]
fn each_shape_grows_as_its_name_says() {
    let delays = |backoff: Backoff| (0..=8).map(|attempt| backoff.delay(attempt).as_millis()).collect::<Vec<_>>();
    let backoffs = [
        (Backoff::none(), [0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (Backoff::constant(SECOND), [0, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000]),
        (Backoff::linear(SECOND), [0, 1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 7_000, 8_000]),
        (Backoff::exponential(SECOND), [0, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]),
        (Backoff::fibonacci(SECOND), [0, 1_000, 1_000, 2_000, 3_000, 5_000, 8_000, 13_000, 21_000]),
        (Backoff::table(&[SECOND, MILLISECOND, SECOND]), [0, 1_000, 1, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000]),
        (Backoff::linear(SECOND).with_step(SECOND / 4), [0, 1_000, 1_250, 1_500, 1_750, 2_000, 2_250, 2_500, 2_750]),
        (Backoff::linear(SECOND).with_cap(3 * SECOND), [0, 1_000, 2_000, 3_000, 3_000, 3_000, 3_000, 3_000, 3_000]),
    ];
    for (backoff, expected) in backoffs {
        assert_eq!(delays(backoff), expected, "{backoff:?}");
    }
}

#[test]
fn constant_and_linear_delays_are_what_wide_arithmetic_gives() {
    for base in BASES {
        for attempt in ATTEMPTS {
            for (backoff, times) in [(Backoff::constant(base), attempt.min(1)), (Backoff::linear(base), attempt)] {
                let expected = nanos(base).saturating_mul(times.into()).min(u64::MAX.into());
                assert_eq!(
                    backoff.with_cap(Duration::MAX).delay(attempt).as_nanos(),
                    expected,
                    "{backoff:?}, {attempt}"
                );
            }
        }
    }
}

#[test]
fn exponential_delays_are_what_wide_arithmetic_gives_whatever_the_factor() {
    for (base, factor) in BASES.into_iter().flat_map(|base| FACTORS.map(|factor| (base, factor))) {
        for backoff in with_caps(Backoff::exponential(base).with_factor(factor)) {
            for attempt in ATTEMPTS.into_iter().skip(1).chain(4..=120) {
                let expected = power(nanos(base), factor, attempt - 1).min(nanos(backoff.cap.duration()));
                assert_eq!(backoff.delay(attempt).as_nanos(), expected, "{backoff:?}, {attempt}");
            }
        }
    }
}

#[test]
fn factors_with_a_fraction_stay_exact_and_rounding_does_not_add_up() {
    let backoff = |factor| Backoff::exponential(MILLISECOND).with_factor(factor).with_cap(Duration::MAX);
    let (one_and_a_half, one_and_a_tenth) = (backoff(Ratio::percent(150)), backoff(Ratio::percent(110)));
    // 1 ms · 1.5^6 is exact in nanoseconds, 1 ms · 1.1^6 too.
    assert_eq!(one_and_a_half.delay(7), Duration::from_nanos(11_390_625));
    assert_eq!(one_and_a_tenth.delay(7), Duration::from_nanos(1_771_561));
    for n in 0..30_u32 {
        let exact = |numerator: u128, denominator: u128| 1_000_000 * numerator.pow(n) / denominator.pow(n);
        for (backoff, exact) in [(one_and_a_half, exact(3, 2)), (one_and_a_tenth, exact(11, 10))] {
            let error = exact - backoff.delay(n + 1).as_nanos();
            assert!(error * 100_000 <= exact, "{error} ns of {exact} ns, {backoff:?}, {n}");
        }
    }
}

#[test]
fn fibonacci_delays_are_what_wide_arithmetic_gives() {
    for base in BASES {
        for backoff in with_caps(Backoff::fibonacci(base)) {
            for attempt in ATTEMPTS.into_iter().skip(1).chain(4..=120) {
                let exact = nanos(base).saturating_mul(fibonacci_number(attempt));
                let expected = exact.min(nanos(backoff.cap.duration()));
                assert_eq!(backoff.delay(attempt).as_nanos(), expected, "{backoff:?}, {attempt}");
            }
        }
    }
}

#[test]
fn a_table_gives_its_delays_in_turn_and_repeats_the_last() {
    const TABLE: &[Duration] = &[SECOND, Duration::ZERO, Duration::MAX, MILLISECOND];
    let backoff = Backoff::table(TABLE);
    for (attempt, expected) in (1..).zip(TABLE) {
        assert_eq!(backoff.delay(attempt).as_nanos(), nanos(*expected));
        assert_eq!(backoff.jittered(attempt, Duration::MAX, u32::MAX), backoff.delay(attempt), "no jitter of its own");
    }
    for attempt in ATTEMPTS.into_iter().filter(|attempt| *attempt > 4) {
        assert_eq!(backoff.delay(attempt), MILLISECOND);
    }
    assert_eq!(backoff.with_cap(2 * SECOND).delay(3), 2 * SECOND, "a cap holds for tables too");
}

#[test]
fn delays_never_shrink_with_the_attempts_and_never_pass_the_cap() {
    for backoff in shapes().into_iter().flat_map(with_caps) {
        let mut before = Duration::ZERO;
        for attempt in (0..=200).chain(ATTEMPTS.into_iter().filter(|attempt| *attempt > 200)) {
            let delay = backoff.delay(attempt);
            assert!(delay >= before && delay <= backoff.cap.duration(), "{backoff:?}, {attempt}: {delay:?}");
            before = delay;
        }
        assert!(before >= backoff.base.duration(), "{backoff:?}");
    }
}

#[test]
fn a_delay_wraps_neither_to_zero_nor_to_anything_small() {
    for backoff in shapes() {
        for attempt in ATTEMPTS.into_iter().skip(1) {
            let delay = backoff.with_cap(Duration::MAX).delay(attempt);
            assert!(delay >= backoff.base.duration(), "{backoff:?}, {attempt}: {delay:?}");
        }
    }
}

// Jitter

#[test]
fn the_lowest_and_the_highest_random_number_give_the_bounds_themselves() {
    let backoff = Backoff::constant(SECOND);
    let bounds =
        |jitter| [0, u32::MAX].map(|random| backoff.with_jitter(jitter).jittered(1, SECOND, random).as_millis());
    assert_eq!(bounds(Jitter::None), [1_000, 1_000]);
    assert_eq!(bounds(JITTER), [900, 1_100]);
    assert_eq!(bounds(Jitter::Proportional(Ratio::ONE)), [0, 2_000]);
    assert_eq!(bounds(Jitter::Full), [0, 1_000]);
    assert_eq!(bounds(Jitter::Equal), [500, 1_000]);
    assert_eq!(bounds(Jitter::Decorrelated), [1_000, 3_000]);
}

/// The bounds of a jittered delay by the definitions, without the cap.
fn bounds(backoff: &Backoff, jitter: Jitter, attempt: u32, previous: Duration) -> (u128, u128) {
    let (delay, base) = (nanos(backoff.delay(attempt)), nanos(backoff.base.duration()));
    match jitter {
        Jitter::None => (delay, delay),
        Jitter::Proportional(ratio) => {
            let spread = delay * u128::from(ratio.as_basis_points()) / 10_000;
            (delay - spread, delay + spread)
        }
        Jitter::Full => (0, delay),
        Jitter::Equal => (delay / 2, delay),
        Jitter::Decorrelated if attempt == 0 => (0, 0),
        Jitter::Decorrelated => (base, 3 * base.max(nanos(previous))),
    }
}

#[test]
fn a_jittered_delay_keeps_within_its_bounds_and_under_the_cap() {
    let mut random = Rng::new(11);
    for backoff in shapes().into_iter().flat_map(with_caps) {
        for (jitter, attempt) in jitters().into_iter().flat_map(|jitter| ATTEMPTS.map(|attempt| (jitter, attempt))) {
            for previous in [Duration::ZERO, MILLISECOND, backoff.base.duration(), Duration::MAX] {
                let (low, high) = bounds(&backoff, jitter, attempt, previous);
                let cap = nanos(backoff.cap.duration());
                for random in [0, 1, random.next(), u32::MAX - 1, u32::MAX] {
                    let delay = backoff.with_jitter(jitter).jittered(attempt, previous, random).as_nanos();
                    let place = (backoff, jitter, attempt, previous, random);
                    assert!((low.min(cap)..=high.min(cap)).contains(&delay), "{delay} ns: {place:?}");
                }
            }
        }
    }
}

#[test]
fn attempt_zero_waits_for_nothing_whatever_the_jitter() {
    for backoff in shapes() {
        for jitter in jitters() {
            assert_eq!(backoff.with_jitter(jitter).jittered(0, SECOND, u32::MAX), Duration::ZERO, "{backoff:?}");
        }
    }
}

#[test]
fn the_maximum_is_a_maximum_after_jitter_too() {
    let backoff = Backoff::exponential(SECOND).with_cap(10 * SECOND);
    for jitter in jitters() {
        let delay = backoff.with_jitter(jitter).jittered(20, 10 * SECOND, u32::MAX);
        assert!(delay <= 10 * SECOND, "{jitter:?}: {delay:?}");
    }
    assert_eq!(backoff.jittered(20, Duration::ZERO, u32::MAX), 10 * SECOND);
    assert_eq!(backoff.jittered(20, Duration::ZERO, 0), 9 * SECOND);
}

#[test]
fn decorrelated_delays_lie_between_the_base_and_three_times_the_one_before() {
    let backoff = Backoff::exponential(SECOND).with_cap(20 * SECOND).with_jitter(Jitter::Decorrelated);
    let (mut random, mut previous, mut capped) = (Rng::new(5), Duration::ZERO, 0);
    for attempt in 1..=10_000 {
        let delay = backoff.jittered(attempt, previous, random.next());
        let highest = (3 * previous.max(SECOND)).min(20 * SECOND);
        assert!((SECOND..=highest).contains(&delay), "{attempt}: {delay:?} after {previous:?}");
        capped += u32::from(delay == 20 * SECOND);
        previous = delay;
    }
    assert!((1..10_000).contains(&capped), "it reaches the cap, and leaves it again: {capped}");
}

#[test]
fn jitter_spreads_evenly_over_its_range() {
    let backoff = Backoff::constant(SECOND).with_jitter(Jitter::Full);
    let (mut random, mut bins) = (Rng::new(6), [0_u32; 10]);
    for _ in 0..100_000 {
        let delay = backoff.jittered(1, Duration::ZERO, random.next());
        bins[(delay.as_millis() as usize / 100).min(9)] += 1;
    }
    // chi-square with 9 degrees of freedom: 27.9 is the 0.1 % point
    let chi: u64 = bins.iter().map(|&n| u64::from(n.abs_diff(10_000)).pow(2)).sum::<u64>() / 10_000;
    assert!(chi < 28, "{bins:?}");
}

#[test]
fn two_devices_that_failed_together_come_back_apart() {
    let delays = |seed| {
        let mut random = Rng::new(seed);
        [1, 2, 3].map(|attempt| Backoff::new().jittered(attempt, Duration::ZERO, random.next()))
    };
    assert_eq!(delays(1), delays(1));
    for seed in 2..1_000 {
        assert_ne!(delays(1), delays(seed));
    }
}

// Extremes

#[test]
fn a_backoff_of_none_never_waits() {
    for (attempt, random) in ATTEMPTS.into_iter().flat_map(|attempt| [0, u32::MAX].map(|random| (attempt, random))) {
        assert_eq!(Backoff::none().jittered(attempt, SECOND, random), Duration::ZERO);
    }
}

#[test]
fn a_factor_just_above_one_ends_at_the_cap_or_where_rounding_holds_it() {
    let slow = |base| Backoff::exponential(base).with_factor(Ratio::basis_points(10_001)).with_cap(Duration::MAX);
    assert_eq!(slow(SECOND).delay(2), Duration::from_micros(1_000_100));
    assert_eq!(slow(SECOND).delay(u32::MAX).as_nanos(), u64::MAX.into());
    // A ten-thousandth of it is less than a nanosecond.
    assert_eq!(slow(Duration::from_nanos(9_999)).delay(u32::MAX), Duration::from_nanos(9_999));
}

#[test]
fn settings_that_are_refused_neither_panic_nor_go_on_for_ever_before_that() {
    assert_eq!(Backoff::table(&[]).delay(5), Duration::ZERO);
    assert_eq!(Backoff::fibonacci(Duration::ZERO).delay(u32::MAX), Duration::ZERO);
}

// Configuration

fn refused(backoff: Backoff) -> &'static str {
    backoff.check().err().map_or("nothing", |error| error.field())
}

#[test]
fn settings_that_make_no_sense_are_refused_by_the_field_at_fault() {
    let good = Backoff::new();
    assert_eq!(refused(good), "nothing");
    assert_eq!(refused(Backoff::exponential(Duration::ZERO)), "base");
    assert_eq!(refused(Backoff::constant(Duration::ZERO)), "base");
    assert_eq!(refused(good.with_cap(SECOND - Duration::from_nanos(1))), "cap");
    assert_eq!(refused(good.with_cap(Duration::ZERO)), "cap");
    assert_eq!(refused(good.with_factor(Ratio::basis_points(9_999))), "factor");
    assert_eq!(refused(good.with_factor(Ratio::ZERO)), "factor");
    assert_eq!(refused(good.with_jitter(Jitter::Proportional(Ratio::basis_points(10_001)))), "jitter");
    assert_eq!(refused(Backoff::table(&[])), "table");
}

#[test]
fn settings_at_their_limits_are_accepted() {
    let good = Backoff::new();
    assert_eq!(refused(good.with_cap(SECOND)), "nothing");
    assert_eq!(refused(good.with_factor(Ratio::ONE)), "nothing");
    assert_eq!(refused(good.with_jitter(Jitter::Proportional(Ratio::ONE))), "nothing");
    assert_eq!(refused(Backoff::constant(Duration::MAX)), "nothing");
    assert_eq!(refused(Backoff::constant(Duration::from_nanos(1))), "nothing");
    assert_eq!(refused(Backoff::table(&[Duration::ZERO]).with_cap(SECOND)), "nothing");
    assert_eq!(refused(Backoff::none()), "nothing");
}

#[test]
fn a_table_has_no_base_for_a_jitter_or_a_shape_to_build_on() {
    let table = Backoff::table(&[SECOND]);
    assert_eq!(refused(table.with_jitter(Jitter::Decorrelated)), "jitter");
    assert_eq!(refused(table.with_factor(FACTOR)), "base");
    assert_eq!(refused(table.with_jitter(Jitter::Full)), "nothing");
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let backoff = Backoff::default();
    let delays: Vec<_> = (1..=8).map(|attempt| backoff.delay(attempt).as_secs()).collect();
    assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
    let bounds = [0, u32::MAX].map(|random| backoff.jittered(1, Duration::ZERO, random).as_millis());
    assert_eq!(bounds, [900, 1_100]);
    assert_eq!(Backoff::exponential(90 * SECOND).delay(2), 90 * SECOND, "a longer base is its own cap");
}

#[test]
fn a_backoff_is_built_and_asked_at_compile_time() {
    const BACKOFF: Backoff = Backoff::fibonacci(SECOND).with_cap(Duration::from_secs(7)).with_jitter(Jitter::Equal);
    const FIFTH: Duration = BACKOFF.delay(5);
    const SIXTH: Duration = BACKOFF.jittered(6, FIFTH, u32::MAX);
    valid!(BACKOFF.check());
    assert_eq!((FIFTH, SIXTH.as_millis()), (5 * SECOND, 7_000));
}

#[test]
fn doubling_by_steps_gives_the_same_as_by_a_shift() {
    for base in BASES.map(|base| Span::of(base).as_nanos()) {
        for n in ATTEMPTS {
            for cap in [1, 1_000_000, u64::MAX] {
                let (steps, shift) = (step_by_step(base, FACTOR, n, cap), exponential(base, FACTOR, n, cap));
                assert_eq!(steps.min(cap), shift.min(cap), "{base} doubled {n} times, at most {cap}");
            }
        }
    }
}

#[test]
fn a_backoff_says_what_it_does_in_a_few_words() {
    let text = |backoff: Backoff| backoff.to_string();
    assert_eq!(text(Backoff::none()), "at once");
    assert_eq!(text(Backoff::new()), "exponential from 1s by 200 %, at most 60s, ± 10 %");
    assert_eq!(text(Backoff::new().with_jitter(Jitter::Decorrelated).with_cap(Duration::MAX)), "decorrelated from 1s");
    assert_eq!(text(Backoff::constant(SECOND).with_cap(SECOND).with_jitter(Jitter::None)), "always 1s, at most 1s");
    let linear = Backoff::linear(SECOND).with_step(MILLISECOND).with_jitter(Jitter::Full);
    assert_eq!(text(linear), "linear from 1s by 1ms, at most 60s, full jitter");
    let fibonacci = Backoff::fibonacci(MILLISECOND).with_jitter(Jitter::Equal);
    assert_eq!(text(fibonacci), "Fibonacci from 1ms, at most 60s, equal jitter");
    assert_eq!(text(Backoff::table(&[SECOND, SECOND]).with_cap(Duration::MAX)), "a table of 2 delays");
}
