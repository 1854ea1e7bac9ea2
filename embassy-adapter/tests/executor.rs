//! Policies on embassy's clock and timers, by its mock driver: exact to the tick, which is a microsecond here.

#![expect(clippy::unwrap_used, reason = "a test may end with a panic")]

mod bench;

use core::future::pending;
use core::time::Duration;

use bench::{Bench, TICK};
use failsoft_embassy::circuit_breaker::StateKind;
use failsoft_embassy::{
    Backoff, CircuitBreaker, Clock, Embassy, Executor, Instant, Jitter, Pipeline, Reason, RetryPolicy, Rng, Stop,
    Timeout, circuit_breaker, retry, valid,
};

static EXECUTOR: Embassy = Embassy::new(7);

const fn us(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

#[test]
fn the_clock_is_embassys_own() {
    let bench = Bench::take();
    assert_eq!(EXECUTOR.now(), Instant::START);
    bench.advance(1);
    assert_eq!(EXECUTOR.now(), Instant::from_nanos(1_000));
    bench.advance(3_600_000_000);
    assert_eq!(EXECUTOR.now(), Instant::from_nanos(3_600_000_001_000));
}

#[test]
fn a_sleep_ends_at_the_first_tick_that_is_not_before_its_deadline() {
    let bench = Bench::take();
    for (nanos, ticks) in
        [(0, 0), (1, 1), (999, 1), (1_000, 1), (1_001, 2), (1_500, 2), (2_000, 2), (10_000_001, 10_001)]
    {
        let deadline = EXECUTOR.now().saturating_add(Duration::from_nanos(nanos));
        let ((), took) = bench.run(EXECUTOR.sleep_until(deadline));
        assert_eq!(took, ticks, "{nanos} ns");
        assert!(EXECUTOR.now() >= deadline, "early by {:?}", deadline.saturating_duration_since(EXECUTOR.now()));
    }
}

#[test]
fn deadlines_at_the_end_of_time_are_ordinary_values() {
    let bench = Bench::take();
    bench.advance(1_000);
    for never in [Instant::MAX, Instant::from_nanos(u64::MAX - 1)] {
        assert!(bench.run_for(100, EXECUTOR.sleep_until(never)).is_none());
    }
    let ((), took) = bench.run(EXECUTOR.sleep_until(Instant::START));
    assert_eq!(took, 0, "one that is past is over at once");
    let pipeline = Pipeline::new(&EXECUTOR).layer(Timeout::new(Duration::MAX));
    assert!(bench.run_for(100, pipeline.call(|_| pending::<Result<(), ()>>())).is_none());
}

#[test]
fn a_call_that_hangs_ends_at_its_limit_rounded_up_to_a_tick() {
    let bench = Bench::take();
    for (limit, ticks) in [(us(20_000), 20_000), (Duration::from_nanos(20_000_001), 20_001)] {
        let pipeline = Pipeline::new(&EXECUTOR).layer(Timeout::new(limit));
        let (result, took) = bench.run(pipeline.call(|_| pending::<Result<(), ()>>()));
        assert!(result.unwrap_err().is_timed_out());
        assert_eq!(took, ticks);
    }
}

#[test]
fn at_the_limits_own_tick_the_operation_wins() {
    let bench = Bench::take();
    let pipeline = Pipeline::new(&EXECUTOR).layer(Timeout::new(us(500)));
    let answer_after = |span| {
        pipeline.call(move |_| async move {
            EXECUTOR.sleep_until(EXECUTOR.now().saturating_add(span)).await;
            Ok::<_, ()>(7)
        })
    };
    assert_eq!(bench.run(answer_after(us(500))), (Ok(7), 500));
    let (late, took) = bench.run(answer_after(us(501)));
    assert!(late.unwrap_err().is_timed_out());
    assert_eq!(took, 500);
}

#[test]
fn retries_wait_exactly_their_delays() {
    let bench = Bench::take();
    let backoff = Backoff::exponential(us(1_000)).with_cap(us(3_000)).with_jitter(Jitter::None);
    let config = retry::Config::new().with_max_attempts(5).with_backoff(backoff).validate().unwrap();
    let pipeline = Pipeline::new(&EXECUTOR).layer(RetryPolicy::new(config));
    let (result, took) = bench.run(pipeline.call(async |attempt| Err::<(), _>(attempt.number())));
    let failure = result.unwrap_err();
    assert_eq!((failure.attempts, failure.stop, failure.into_inner()), (5, Some(Stop::Attempts), Some(5)));
    assert_eq!(took, 1_000 + 2_000 + 3_000 + 3_000);
}

#[test]
fn a_breaker_in_a_static_is_open_for_exactly_its_period() {
    static BREAKER: CircuitBreaker = CircuitBreaker::new(valid!(
        circuit_breaker::Config::new().with_open_for(Duration::from_millis(30)).with_probes(1).validate()
    ));
    let bench = Bench::take();
    let pipeline = Pipeline::new(&EXECUTOR).layer(&BREAKER).layer(Timeout::new(us(100)));
    for _ in 0..5 {
        let (result, _) = bench.run(pipeline.call(|_| pending::<Result<(), ()>>()));
        assert!(result.unwrap_err().is_timed_out());
    }
    let retry_at = EXECUTOR.now().saturating_add(Duration::from_millis(30));
    bench.advance(29_999);
    let (result, took) = bench.run(pipeline.call(async |_| Ok::<_, ()>(())));
    let rejected = result.unwrap_err().rejected().unwrap();
    assert_eq!((rejected.reason(), rejected.retry_at(), took), (Reason::Open, Some(retry_at), 0));
    bench.advance(1);
    assert_eq!(bench.run(pipeline.call(async |_| Ok::<_, ()>(()))), (Ok(()), 0));
    assert_eq!(BREAKER.state(), StateKind::Closed);
}

#[test]
fn dropping_a_call_at_any_tick_returns_what_it_held() {
    static BREAKER: CircuitBreaker =
        CircuitBreaker::new(valid!(circuit_breaker::Config::new().with_probes(1).validate()));
    let bench = Bench::take();
    let pipeline = Pipeline::new(&EXECUTOR).layer(Timeout::new(us(50))).layer(&BREAKER);
    for ticks in 0..50 {
        BREAKER.open_until(EXECUTOR.now());
        assert!(bench.run_for(ticks, pipeline.call(|_| pending::<Result<(), ()>>())).is_none());
        assert_eq!(BREAKER.snapshot(&EXECUTOR).probes, 0, "dropped after {ticks} ticks");
        assert_eq!(BREAKER.state(), StateKind::HalfOpen);
        BREAKER.reset();
    }
}

#[test]
fn two_devices_never_share_their_jitter_and_one_device_repeats_its_own() {
    let draws = |seed| {
        let executor = Embassy::new(seed);
        core::array::from_fn::<u32, 32, _>(|_| executor.random())
    };
    assert_eq!(draws(1), draws(1));
    for other in [2, 3, 1 << 32, 1 << 63, u64::MAX] {
        let same = draws(1).iter().zip(draws(other)).filter(|(a, b)| **a == *b).count();
        assert_eq!(same, 0, "seeds 1 and {other}");
    }
    let distinct: std::collections::HashSet<_> = draws(1).into_iter().collect();
    assert_eq!(distinct.len(), 32, "an executor that repeats itself");
}

#[test]
fn devices_that_failed_together_come_back_apart() {
    let bench = Bench::take();
    let backoff = Backoff::constant(us(10_000)).with_jitter(Jitter::Full);
    let config = retry::Config::new().with_max_attempts(2).with_backoff(backoff).validate().unwrap();
    let comes_back = |seed| {
        let executor = Embassy::new(seed);
        let pipeline = Pipeline::new(&executor).layer(RetryPolicy::new(config));
        let (_, took) = bench.run(pipeline.call(async |_| Err::<(), _>(())));
        took
    };
    let ticks: Vec<_> = (0..8).map(comes_back).collect();
    assert!(ticks.iter().all(|&ticks| ticks <= 10_000 * TICK), "{ticks:?}");
    let distinct: std::collections::HashSet<_> = ticks.iter().collect();
    assert!(distinct.len() >= 7, "{ticks:?}");
    assert_eq!(comes_back(3), ticks[3]);
}

/// Of 1,000 devices that fail at the same instant, the most that come back within the same 10 ms of the second they have.
fn at_once(seed: impl Fn(u32) -> u64) -> u32 {
    let backoff = Backoff::constant(us(1_000_000)).with_jitter(Jitter::Full);
    let mut comes_back = [0; 101];
    for device in 0..1_000 {
        let random = Embassy::new(seed(device)).random();
        let delay = backoff.jittered(1, Duration::ZERO, random);
        comes_back[usize::try_from(delay.as_millis() / 10).unwrap()] += 1;
    }
    comes_back.into_iter().max().unwrap()
}

#[test]
fn a_fleet_of_one_seed_comes_back_at_once_and_one_of_mixed_seeds_apart() {
    assert_eq!(at_once(|_| 7), 1_000, "the control: it is the seed that keeps them apart");
    // Numbers in a row, a common number of boots, and boots of one device: ten in 10 ms are the mean, and 30 are beyond any chance.
    for most in [
        at_once(|device| Rng::seed(&[device])),
        at_once(|device| Rng::seed(&[0x0045_0021, device, 1])),
        at_once(|device| Rng::seed(&[device << 16, 0x3230_3631, 1])),
        at_once(|device| Rng::seed(&[0x0045_0021, 0x3230_3631, device])),
    ] {
        assert!(most <= 30, "{most} of 1,000 within 10 ms");
    }
    // Nor do two parts make up for each other.
    let seeds: std::collections::HashSet<_> =
        (0..100_000).map(|number: u32| Rng::seed(&[number / 1_000, number % 1_000])).collect();
    assert_eq!(seeds.len(), 100_000);
}
