//! What goes wrong around budgets, as far as the other tests do not have it: see `tests/faults.md`.

use core::future::ready;

use super::*;
use crate::hedge;

const SECOND: u64 = 1_000;

/// Attempts in each tenth of a second, for 100 calls a second that all fail and would be tried five times.
fn attempts_under_load(budget: &impl RetryBudget, seconds: u64) -> Vec<u64> {
    let executor = VirtualExecutor::new();
    let pipeline = Pipeline::new(&executor).layer(RetryPolicy::with_budget(retries(5), (), budget));
    let mut attempts = Vec::new();
    for tenth in 0..seconds * 10 {
        executor.jump_to(Instant::from_millis(tenth * 100));
        let mut count = 0;
        for _ in 0..10 {
            let call = pipeline.call(|_| {
                count += 1;
                ready(Err::<(), _>(()))
            });
            assert!(executor.run(call).expect("it ends").is_err());
        }
        attempts.push(count);
    }
    attempts
}

#[test]
fn where_everything_fails_the_retries_stay_within_the_share_and_the_floor() {
    let config = TokenConfig::new().with_deposit(Ratio::percent(20)).with_minimum_per_second(2);
    let budget = Tokened::new(config.validate().expect("it makes sense"));
    let attempts = attempts_under_load(&budget, 120);
    // Deposits last for 10 s. No stretch of that length has more retries than a fifth of the calls of the stretch and of the time
    // before it in which what it spends was deposited, and the floor.
    for stretch in attempts.windows(100) {
        let all = stretch.iter().sum::<u64>();
        assert!(all <= 1_000 + 2 * 200 + 2 * 20, "{all} attempts of 1,000 calls in 10 s");
    }
    // And in the long run, no more than a fifth and the floor.
    let all = attempts.iter().skip(200).sum::<u64>();
    let most = 10_000 + 2_000 + 100 * 2;
    assert!((most * 9 / 10..=most + 40).contains(&all), "{all} attempts of 10,000 calls");
}

#[test]
fn budgets_without_a_clock_allow_nothing_once_everything_fails() {
    let quota = Quota::new(valid!(QuotaConfig::new().validate()));
    let attempts = attempts_under_load(&quota, 120);
    assert_eq!(attempts.iter().sum::<u64>(), 12_000 + 500 / 5, "what there was, once");

    let throttle = Throttle::new(valid!(RetryThrottleConfig::new().validate()));
    let attempts = attempts_under_load(&throttle, 120);
    assert!((12_000..=12_000 + 10).contains(&attempts.iter().sum::<u64>()));

    // One call at a time has as many retries in flight as the floor: this budget limits those of calls at the same time.
    let concurrent = Concurrent::new(valid!(ConcurrentConfig::new().with_minimum_concurrency(0).validate()));
    let attempts = attempts_under_load(&concurrent, 120);
    assert_eq!(attempts.iter().sum::<u64>(), 12_000, "a fifth of one call is none");
}

#[test]
fn after_days_of_silence_a_crowd_finds_the_floor_and_its_own_deposits() {
    let config = TokenConfig::new().with_deposit(Ratio::percent(20)).with_minimum_per_second(10);
    let budget = Tokened::new(config.validate().expect("it makes sense"));
    for _ in 0..1_000 {
        budget.begin(&Instant::START);
    }
    assert_eq!(budget.balance(&Instant::START), 200 + 100);
    let later = Instant::START.saturating_add(Duration::from_secs(3 * 86_400));
    assert_eq!(budget.balance(&later), 100, "the floor of ten seconds");
    let mut retries = 0;
    for call in 0..1_000 {
        let clock = later.saturating_add(ms(call));
        budget.begin(&clock);
        while budget.try_retry(&mut (), MENDABLE, &clock) {
            retries += 1;
        }
    }
    assert_eq!(retries, 200 + 100);

    let quota = Quota::new(valid!(QuotaConfig::new().with_capacity(50).validate()));
    let [throttle, fresh] = [(); 2].map(|()| Throttle::new(valid!(RetryThrottleConfig::new().validate())));
    for _ in 0..1_000_000 {
        quota.end(quota.begin(&Instant::START), Outcome::Success);
        throttle.end(throttle.begin(&Instant::START), Outcome::Success);
    }
    let retries = |throttle: &Throttle| {
        let mut spent = throttle.begin(&Instant::START);
        (0..1_000).take_while(|_| throttle.try_retry(&mut spent, MENDABLE, &Instant::START)).count()
    };
    assert_eq!((quota.balance(), retries(&throttle)), (50, retries(&fresh)));
    assert_eq!(retries(&fresh), 0, "what there was is spent");
}

#[test]
fn a_clock_that_jumps_about_never_brings_more_than_was_deposited_lately_and_the_floor() {
    const HOUR: u64 = 3_600 * SECOND;
    for seed in 0..20 {
        let config = TokenConfig::new().with_deposit(Ratio::percent(50)).with_minimum_per_second(1).with_ttl(ms(2_000));
        let budget = Tokened::new(config.validate().expect("it makes sense"));
        let (mut rng, mut now, mut deposits) = (Rng::new(seed), 24 * HOUR, 0_u32);
        for step in 0..5_000 {
            let before = budget.balance(&Instant::from_millis(now));
            let back = match rng.next() % 8 {
                0 => HOUR,
                1 => u64::from(rng.next() % 3_000),
                _ => 0,
            };
            now = now.saturating_sub(back);
            let clock = Instant::from_millis(now);
            let after = budget.balance(&clock);
            assert!(after <= before.max(2), "seed {seed}, step {step}: {before} and {after}, {back} ms back");
            match rng.next() % 8 {
                0 => (now, deposits) = (now + 30 * 24 * HOUR, 0),
                1 => now += u64::from(rng.next() % 500),
                2..=4 => {
                    let _ = budget.try_retry(&mut (), MENDABLE, &clock);
                }
                _ => {
                    budget.begin(&clock);
                    deposits += 1;
                }
            }
            let balance = budget.balance(&Instant::from_millis(now));
            assert!(balance <= deposits / 2 + 2, "seed {seed}, step {step}: {balance} of {deposits} deposits");
        }
    }
}

#[test]
fn without_deposit_and_floor_there_is_not_one_retry() {
    let config = TokenConfig::new().with_deposit(Ratio::percent(0)).with_minimum_per_second(0);
    let budget = Tokened::new(config.validate().expect("it makes sense"));
    assert_eq!(attempts_under_load(&budget, 10).iter().sum::<u64>(), 1_000);
}

#[test]
fn where_every_answer_is_slow_the_hedges_stay_within_their_budget() {
    let executor = VirtualExecutor::new();
    let config = TokenConfig::new().with_deposit(Ratio::percent(5)).with_minimum_per_second(0);
    let budget = Tokened::new(config.validate().expect("it makes sense"));
    let hedge = Hedge::<Local, 1, FixedDelay, (), _>::with_budget(FixedDelay::new(ms(10)), Idempotent, (), &budget);
    let steps = [Step::SucceedAfter(ms(50))];
    let service = Script::new(&steps);
    let pipeline = Pipeline::new(&executor).layer(&hedge);
    for _ in 0..10_000 {
        assert!(executor.run(pipeline.call(|_| service.call(&executor))).expect("it ends").is_ok());
    }
    assert!((10_400..=10_500).contains(&service.calls()), "{} calls of the service", service.calls());

    // A delay that follows the latencies becomes slow with them: of a tenfold latency, those are hedged that come until it is known.
    let quantile = valid!(hedge::Quantile::new(Ratio::percent(95), ms(30)).with_window(100).validate());
    let hedge = Hedge::<Local, 1, _>::new(quantile, Idempotent);
    let pipeline = Pipeline::new(&executor).layer(&hedge);
    let mut rng = Rng::new(6);
    for scale in [1, 10] {
        // 10 to 30 ms, hardly any two of them alike: a hedge that is due at the very moment of the answer is started.
        let latency = |random: u32| Duration::from_micros(scale * (10_000 + u64::from(random % 20_001)));
        let steps: Vec<_> = (0..9_000).map(|_| Step::SucceedAfter(latency(rng.next()))).collect();
        let service = Script::new(&steps);
        for _ in 0..8_000 {
            assert!(executor.run(pipeline.call(|_| service.call(&executor))).expect("it ends").is_ok());
        }
        assert!(
            (8_200..=8_800).contains(&service.calls()),
            "{} calls of the service, {scale} times as slow",
            service.calls()
        );
    }
}

#[test]
fn a_deposit_above_one_pays_for_that_many_retries_of_each_call() {
    let config = TokenConfig::new().with_deposit(Ratio::percent(300)).with_minimum_per_second(0);
    let budget = TokenBudget::<Local>::new(config.validate().expect("it makes sense"));
    budget.begin(&Instant::START);
    let retries = (0..9).take_while(|_| budget.try_retry(&mut (), Verdict::TRANSIENT, &Instant::START)).count();
    assert_eq!(retries, 3);
}
