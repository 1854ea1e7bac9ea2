//! How long a retry waits: never longer than the longest delay, never the same as its neighbour, and without overflow.

use core::time::Duration;

use failsoft_core::retry::{Config, Decision, RetryPolicy};
use failsoft_core::testing::{Script, Step, VirtualExecutor};
use failsoft_core::{Executor, Instant, Pipeline, Ratio, Rng, Stop, Verdict};
use failsoft_embassy::Embassy;
use failsoft_tokio::{Backoff, Jitter};

use crate::SECOND;

static TABLE: [Duration; 3] = [SECOND, Duration::from_secs(3_600), Duration::MAX];

/// Every shape, from a second on.
fn shapes() -> [Backoff; 7] {
    [
        Backoff::none(),
        Backoff::constant(SECOND),
        Backoff::linear(SECOND),
        Backoff::exponential(SECOND),
        // The largest factor there is.
        Backoff::exponential(SECOND).with_factor(Ratio::basis_points(u32::MAX)),
        Backoff::fibonacci(SECOND),
        Backoff::table(&TABLE),
    ]
}

fn jitters() -> [Jitter; 6] {
    let proportional = [10, 100].map(|percent| Jitter::Proportional(Ratio::percent(percent)));
    [Jitter::None, proportional[0], proportional[1], Jitter::Full, Jitter::Equal, Jitter::Decorrelated]
}

// 19: backon 1.6.0 without std: its seed is a constant, so that all devices and all boots have the same delays, and come
// back at the same instant. Fails if a seed did not matter, or if there were a default one: `Embassy` has none.
#[test]
fn two_devices_do_not_share_their_jitter() {
    fn delays(device: &impl Executor) -> [Duration; 8] {
        let backoff = Backoff::exponential(SECOND).with_jitter(Jitter::Full);
        [1, 2, 3, 4, 5, 6, 7, 8].map(|attempt| backoff.jittered(attempt, Duration::ZERO, device.random()))
    }
    let [first, second] = [1, 2].map(|number| delays(&Embassy::new(number)));
    assert_ne!(first, second, "devices that differ by a bit");
    assert!(first.iter().zip(second).filter(|(first, second)| *first == second).count() <= 1, "{first:?} {second:?}");
    assert_eq!(first, delays(&Embassy::new(1)), "and yet a seed is repeatable");
    let [first, second] = [1, 2].map(|seed| delays(&&VirtualExecutor::<4>::seeded(seed)));
    assert_ne!(first, second);
}

// 20: backon 1.6.0, backoff 0.4.0 and tower-resilience-retry 0.14.0: add the jitter to what they have capped, so that up to
// twice the longest delay comes out. Fails at the first delay above it, by a nanosecond.
#[test]
fn a_longest_delay_holds_whatever_the_jitter() {
    let mut rng = Rng::new(20);
    for backoff in shapes() {
        for jitter in jitters() {
            let backoff = backoff.with_jitter(jitter).with_cap(SECOND);
            let mut previous = Duration::ZERO;
            for attempt in 1..=100 {
                for random in [0, rng.next(), u32::MAX] {
                    let delay = backoff.jittered(attempt, previous, random);
                    assert!(delay <= SECOND, "{delay:?} after attempt {attempt} of {backoff}");
                    previous = delay;
                }
            }
        }
    }
}

// 21: exponential-backoff 2.1.1: takes a jitter of half a percent, and a longest delay below the shortest, and panics when it
// is to work either of them out. Fails if either were taken and didn't work.
#[test]
fn a_backoff_that_makes_no_sense_is_refused_and_others_work() {
    let refused = |backoff: Backoff, field| {
        assert_eq!(backoff.check().expect_err(field).field(), field);
        let error = Config::new().with_backoff(backoff).validate().expect_err("the policy refuses it too");
        assert_eq!(error.field(), field);
    };
    refused(Backoff::exponential(SECOND * 10).with_cap(SECOND), "cap");
    refused(Backoff::exponential(Duration::ZERO), "base");
    refused(Backoff::exponential(SECOND).with_factor(Ratio::basis_points(9_999)), "factor");
    refused(Backoff::exponential(SECOND).with_jitter(Jitter::Proportional(Ratio::basis_points(10_001))), "jitter");
    refused(Backoff::table(&[]), "table");
    let tiny = Backoff::exponential(Duration::from_nanos(1)).with_jitter(Jitter::Proportional(Ratio::basis_points(50)));
    assert_eq!(tiny.check(), Ok(()));
    for random in [0, u32::MAX] {
        assert!(
            tiny.jittered(10, Duration::ZERO, random).abs_diff(Duration::from_nanos(512)) <= Duration::from_nanos(2)
        );
    }
}

// 22: backon 1.6.0: overflows at a high attempt, at the 94th of Fibonacci and the 2nd of a large factor. Fails at a
// panic, or at a delay that is shorter than the one before.
#[test]
fn a_million_attempts_overflow_nothing() {
    let attempts = (1..=300).chain([1_000, 1_000_000, u32::MAX - 1, u32::MAX]);
    for backoff in shapes() {
        let backoff = backoff.with_jitter(Jitter::None).with_cap(Duration::MAX);
        let mut before = Duration::ZERO;
        for attempt in attempts.clone() {
            let delay = backoff.delay(attempt);
            assert!(delay >= before, "{delay:?} after attempt {attempt} of {backoff}");
            before = delay;
        }
        for jitter in jitters() {
            for random in [0, u32::MAX] {
                // The last of these is the one before, of a jitter that looks at it.
                let _ = backoff.with_jitter(jitter).jittered(u32::MAX, Duration::MAX, random);
            }
        }
    }
    // A policy that never gives up, one attempt after the other.
    let backoff = Backoff::exponential(SECOND).with_cap(Duration::MAX).with_jitter(Jitter::Full);
    let config = Config::new().with_max_attempts(u32::MAX).with_backoff(backoff).validate().expect("valid");
    let (policy, mut now, mut previous) = (RetryPolicy::new(config), Instant::START, Duration::ZERO);
    for attempt in 1..=1_000_000 {
        match policy.decide(attempt, Verdict::TRANSIENT, previous, attempt, now, Instant::MAX) {
            Decision::RetryAfter(delay) => {
                previous = delay;
                now = now.saturating_add(delay);
            }
            decision => {
                assert_eq!((decision, attempt > 20), (Decision::Stop(Stop::Deadline), true), "584 years are over");
                now = Instant::START;
            }
        }
    }
}

// 22 as well, as a whole: a factor beyond reason, and a limit on the total time. Fails at a panic, or if the call did not end.
#[test]
fn a_retry_with_a_factor_beyond_reason_and_a_total_time_ends() {
    let backoff = Backoff::exponential(SECOND).with_factor(Ratio::basis_points(u32::MAX)).with_cap(Duration::MAX);
    let config = Config::new().with_max_attempts(u32::MAX).with_backoff(backoff.with_jitter(Jitter::None));
    for (total, attempts) in [(Duration::from_secs(3_600), 2), (Duration::MAX, 3)] {
        let policy = RetryPolicy::new(config.with_total_time(total).validate().expect("valid"));
        let (executor, service) = (VirtualExecutor::new(), Script::new(&[Step::Fail]));
        let pipeline = Pipeline::new(&executor).layer(policy);
        let failure = executor.run(pipeline.call(|_| service.call(&executor))).expect("it ends").expect_err("fails");
        assert_eq!((failure.stop, service.calls()), (Some(Stop::Deadline), attempts), "within {total:?}");
    }
}

// 23: tokio-retry 0.3.2: raises its base to the power of the attempt: a second becomes a thousand seconds, and a
// millisecond stays one. Fails if the base were more than a factor.
#[test]
fn a_delay_grows_by_its_factor_and_not_by_its_base() {
    for base in [1, 1_000, 10_000].map(Duration::from_millis) {
        let backoff = Backoff::exponential(base).with_jitter(Jitter::None).with_cap(Duration::MAX);
        assert_eq!([1, 2, 3, 4].map(|attempt| backoff.delay(attempt)), [base, base * 2, base * 4, base * 8]);
        let thrice = backoff.with_factor(Ratio::percent(300));
        assert_eq!([1, 2, 3].map(|attempt| thrice.delay(attempt)), [base, base * 3, base * 9]);
    }
}
