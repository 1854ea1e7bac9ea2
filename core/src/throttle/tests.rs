#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, reason = "tests")]

use std::string::ToString;

use super::*;
use crate::cell::Local;
use crate::pipeline::{Pipeline, Standard};
use crate::rng::Rng;
use crate::testing::{ManualClock, Script, Step, VirtualExecutor, never};
use crate::valid;

fn throttle(config: Config) -> Throttle<Local> {
    Throttle::new(config.validate().expect("it makes sense"))
}

#[test]
fn the_probability_is_that_of_the_formula() {
    let mut rng = Rng::new(5);
    for _ in 0..20_000 {
        let requests = rng.next() >> (rng.next() % 32);
        let accepts = ((u64::from(requests) * u64::from(rng.next())) >> 32) as u32;
        let (multiplier, degree) = (10_000 + rng.next() % 40_000, 1 + rng.next() % 8);
        let most = rng.next() % 10_001;
        let config = Config::new()
            .with_multiplier(Ratio::basis_points(multiplier))
            .with_most_rejected(Ratio::basis_points(most))
            .with_aggression(degree);
        let (sent, accepted) = (f64::from(requests), f64::from(accepts) * f64::from(multiplier) / 10_000.0);
        let exact = ((sent - accepted) / (sent + 1.0)).max(0.0).powf(1.0 / f64::from(degree)) * 10_000.0;
        let found = f64::from(config.probability(requests, accepts).as_basis_points());
        // Rounded down before the root is taken: the smaller the share, the more that shows.
        let lowest =
            ((exact / 10_000.0).powi(degree as i32) - 0.000_1).max(0.0).powf(1.0 / f64::from(degree)) * 10_000.0;
        let most = f64::from(most);
        assert!(
            (lowest - 1.0).min(most) <= found && found <= (exact + 0.01).min(most),
            "{requests} requests, {accepts} accepted, {multiplier}, root {degree}: {found} for {exact}"
        );
    }
}

#[test]
fn below_the_minimum_everything_is_sent_and_above_it_the_probability_decides() {
    let throttle = throttle(Config::new());
    for _ in 0..99 {
        throttle.record(false, &Instant::START);
    }
    assert_eq!(throttle.try_acquire(&Instant::START, 0), Ok(()));
    throttle.record(false, &Instant::START);
    // 100 of 101: the share of all random numbers from which on the call is sent.
    assert_eq!(throttle.probability(&Instant::START), Ratio::basis_points(9_900));
    let rejected = throttle.try_acquire(&Instant::START, 0).expect_err("it is unlikely to work");
    assert_eq!(
        (rejected.policy(), rejected.reason(), rejected.retry_at()),
        (Policy::Throttle, Reason::Throttled, None)
    );
    assert_eq!(throttle.try_acquire(&Instant::START, u32::MAX), Ok(()));
    assert_eq!(
        throttle.requests(&Instant::START),
        Requests { requests: 101, accepts: 0 },
        "what is rejected was wanted"
    );
}

#[test]
fn what_is_rejected_is_the_share_that_the_probability_says() {
    let (throttle, mut rng) = (throttle(Config::new()), Rng::new(9));
    for call in 0..1_000 {
        throttle.record(call % 4 == 0, &Instant::START);
    }
    // Half of twice what is accepted: about one half. Each draw from the same state.
    let share = throttle.probability(&Instant::START);
    let config = throttle.config;
    let rejected = (0..10_000).filter(|_| {
        let one = Throttle::<Local>::new(config.validate().expect("it was valid"));
        one.count(Requests { requests: 1_000, accepts: 250 }, Instant::START);
        one.try_acquire(&Instant::START, rng.next()).is_err()
    });
    let rejected = rejected.count() as u32;
    assert!(rejected.abs_diff(share.as_basis_points()) < 200, "{rejected} of 10,000 for {share}");
}

#[test]
fn it_forgets_what_is_older_than_its_period() {
    let (throttle, clock) = (throttle(Config::new().with_period(Duration::from_secs(1))), ManualClock::new());
    for _ in 0..1_000 {
        throttle.record(false, &&clock);
    }
    assert!(throttle.try_acquire(&&clock, 0).is_err());
    clock.advance(Duration::from_millis(999));
    assert!(throttle.try_acquire(&&clock, 0).is_err());
    clock.advance(Duration::from_millis(1));
    assert_eq!(throttle.try_acquire(&&clock, 0), Ok(()));
}

#[test]
fn the_counters_saturate() {
    let throttle = throttle(Config::new());
    throttle.count(Requests { requests: u32::MAX, accepts: 0 }, Instant::MAX);
    throttle.record(false, &Instant::MAX);
    assert_eq!(throttle.requests(&Instant::MAX).requests, u32::MAX);
    assert_eq!(throttle.probability(&Instant::MAX), Ratio::basis_points(9_999));
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let field = |config: Config| config.validate().err().map(|error| error.field());
    assert_eq!(field(Config::new().with_multiplier(Ratio::basis_points(9_999))), Some("multiplier"));
    assert_eq!(field(Config::new().with_period(Duration::ZERO)), Some("period"));
    assert_eq!(field(Config::new().with_most_rejected(Ratio::percent(101))), Some("most_rejected"));
    assert_eq!(field(Config::new().with_aggression(0)), Some("aggression"));
    assert_eq!(field(Config::new().with_aggression(9)), Some("aggression"));
    let extremes = Config::new().with_multiplier(Ratio::ONE).with_most_rejected(Ratio::ONE);
    assert_eq!([1, 8].map(|degree| field(extremes.with_aggression(degree))), [None, None]);
}

#[test]
fn in_a_pipeline_it_sends_a_trickle_to_what_fails_and_everything_once_that_is_well() {
    let executor = VirtualExecutor::new();
    let throttle = throttle(Config::new().with_period(Duration::from_secs(10)));
    // Where a bulkhead stands.
    let pipeline = Standard::new().with_bulkhead(&throttle).on(&executor);
    assert_eq!(pipeline.to_string(), "throttle: beyond 200 % of what is accepted, over 10s");
    let sick = Script::new(&[Step::Fail]);
    let mut rejected = 0;
    for _ in 0..1_000 {
        let result = executor.run(pipeline.call(|_| sick.call(&executor))).expect("it ends");
        rejected += u32::from(result.is_err_and(|failure| failure.is_rejected()));
    }
    assert_eq!(sick.calls() + rejected, 1_000);
    assert!((100..200).contains(&sick.calls()), "{} calls reached it", sick.calls());
    let well = Script::new(&[Step::Succeed]);
    let later = executor.now().saturating_add(Duration::from_secs(10));
    assert_eq!(executor.run((&executor).sleep_until(later)), Ok(()));
    for _ in 0..1_000 {
        assert!(executor.run(pipeline.call(|_| well.call(&executor))).expect("it ends").is_ok());
    }
}

#[test]
fn a_call_that_is_dropped_counts_as_nothing() {
    let executor = VirtualExecutor::new();
    let throttle = throttle(Config::new());
    let pipeline = Pipeline::new(&executor).layer(&throttle);
    let call = pipeline.call(|_| never::<Result<u32, ()>>());
    assert!(executor.run(call).is_err(), "it hangs");
    assert_eq!(throttle.requests(&&executor), Requests::default());
}

#[test]
fn it_stands_in_a_static() {
    const CONFIG: Valid<Config> = valid!(Config::new().validate());
    std::thread_local! {
        static THROTTLE: Throttle<Local> = const { Throttle::new(CONFIG) };
    }
    THROTTLE.with(|throttle| assert_eq!(throttle.probability(&Instant::START), Ratio::ZERO));
}
