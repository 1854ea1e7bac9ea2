//! What goes wrong around rates, as far as the other tests do not have it: see `tests/faults.md`.

use core::hash::{Hash, Hasher};
use std::vec::Vec;

use super::*;
use crate::circuit_breaker::{CircuitBreaker, FailureMeter, StateKind};

/// How many of a limit's calls pass when it is asked so often, in nanoseconds.
fn passed(config: Config, step: u64, span: u64) -> u64 {
    let limiter = limiter(config);
    (0..=span / step).map(|tick| u64::from(limiter.try_acquire(&nanos(tick * step)).is_ok())).sum()
}

#[test]
fn asked_at_each_tick_a_rate_that_is_no_whole_number_of_ticks_is_kept_to_a_thousandth() {
    const SECOND: u64 = 1_000_000_000;
    for (permits, period) in [(7, 1), (333, 1), (999, 1), (1, 3)] {
        // A millisecond for 1,000 s, and a microsecond for 2 s.
        for (step, span) in [(SECOND / 1_000, 1_000), (SECOND / 1_000_000, 2)] {
            let config = Config::new(permits, Duration::from_secs(period)).with_burst(2);
            let passed = passed(config, step, span * SECOND);
            let expected = u64::from(permits) * span / period;
            // The burst comes on top, at the start. Of a burst of one nothing could be kept until the next tick.
            let slack = expected / 1_000 + 2;
            assert!(passed.abs_diff(expected) <= slack, "{passed} of {permits} in {period} s, for {span} s");
        }
    }
}

#[test]
fn a_clock_of_coarse_steps_keeps_the_rate_and_starves_nobody() {
    // 10 ms, and the 64 a second of some systems.
    for step in [10_000_000, 15_625_000_u64] {
        // Shorter and longer than a step are the intervals.
        for permits in [7, 64, 99, 100, 333, 1_000] {
            let limiter = limiter(Config::new(permits, Duration::from_secs(1)));
            let seconds = 100;
            let mut passed = Vec::new();
            for tick in 0..seconds * 1_000_000_000 / step {
                // Asked several times while the clock stands.
                passed.push((0..2_000).take_while(|_| limiter.try_acquire(&nanos(tick * step)).is_ok()).count() as u64);
            }
            let (all, most) = (passed.iter().sum::<u64>(), u64::from(permits) * (seconds + 1));
            assert!(
                (most - u64::from(permits) - most / 1_000 - 1..=most).contains(&all),
                "{all} of {permits} a second"
            );
            // After the burst, no more at a time than a step's worth, rounded up.
            let a_step = (u64::from(permits) * step).div_ceil(1_000_000_000);
            assert!(passed.iter().skip(1).all(|count| *count <= a_step), "{permits} a second by steps of {step}");
        }
    }
}

#[test]
fn a_clock_of_coarse_steps_leaves_a_failure_meter_its_rate() {
    for step in [10_000_000, 15_625_000_u64] {
        let meter = FailureMeter::new(10, Duration::from_secs(1)).expect("a good meter");
        let opens = |per_second: u64| {
            let config = crate::circuit_breaker::Config::new().with_trip(meter).validate().expect("it makes sense");
            let breaker = CircuitBreaker::<Local, _>::new(config);
            for failure in 0..per_second * 60 {
                // When it happens, as the clock shows it.
                let shown = failure * 1_000_000_000 / per_second / step * step;
                if let Ok(permit) = breaker.try_acquire(nanos(shown)) {
                    permit.failure();
                }
            }
            breaker.state() != StateKind::Closed
        };
        assert!(!opens(9), "below its rate, by steps of {step}");
        assert!(opens(12), "above its rate, by steps of {step}");
    }
}

#[test]
fn after_a_year_one_burst_is_there_and_no_more() {
    let limiter = limiter(Config::new(100, Duration::from_secs(1)).with_burst(20));
    let drain = |now| (0..1_000).take_while(|_| limiter.try_acquire(&now).is_ok()).count();
    assert_eq!(drain(nanos(0)), 20);
    let year = Instant::START.saturating_add(Duration::from_secs(365 * 86_400));
    assert_eq!((limiter.available(&year), drain(year), drain(year)), (20, 20, 0));
}

/// A key that an attacker has chosen: all have one hash.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Chosen(u32);

impl Hash for Chosen {
    fn hash<H: Hasher>(&self, state: &mut H) {
        0_u32.hash(state);
    }
}

#[test]
fn keys_chosen_to_have_one_hash_are_told_apart_all_the_same() {
    let config = Config::new(2, Duration::from_secs(1)).validate().expect("it makes sense");
    let chosen = KeyedRateLimiter::<Local, Chosen, 64>::new(config);
    let plain = KeyedRateLimiter::<Local, u32, 64>::new(config);
    let (mut rng, mut now) = (Rng::new(3), 0);
    // Up to as many keys as there are places, and then beyond them.
    for most in [64, 200] {
        for step in 0..20_000 {
            now += u64::from(rng.next()) % 40_000_000;
            let key = rng.next() % most;
            let expected = plain.try_acquire(&key, &nanos(now));
            assert_eq!(chosen.try_acquire(&Chosen(key), &nanos(now)), expected, "{most} keys, step {step}");
            assert_eq!(chosen.keys(), plain.keys(), "{most} keys, step {step}");
        }
    }
}
