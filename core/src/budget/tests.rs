use core::time::Duration;
use std::boxed::Box;
use std::string::ToString;
use std::vec::Vec;

use super::*;
use crate::cell::Fresh;
use crate::cell::{Local, Packed};
use crate::config::Valid;
use crate::hedge::{FixedDelay, Hedge, Idempotent};
use crate::pipeline::Pipeline;
use crate::retry::{Config, RetryPolicy};
use crate::rng::Rng;
use crate::testing::tests::{ms, poll_once};
use crate::testing::{ManualClock, Script, Step, VirtualExecutor};
use crate::{Instant, Ratio, Stop, valid};

mod exhaustive;
mod faults;

type Tokened = TokenBudget<Local>;
type Quota = QuotaBudget<Local>;
type Throttle = RetryThrottle<Local>;
type Concurrent = ConcurrentBudget<Local>;

const MENDABLE: Verdict = Verdict::TRANSIENT;

fn retries(attempts: u32) -> Valid<Config> {
    let config = Config::new().with_max_attempts(attempts).with_backoff(crate::backoff::Backoff::none());
    config.validate().expect("it makes sense")
}

#[test]
fn deposits_last_for_their_time_and_the_floor_always() {
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let (ttl, floor) = (1_000 + 10 * u64::from(rng.next() % 100), rng.next() % 4);
        let share = Ratio::basis_points(rng.next() % 15_000);
        let config = TokenConfig::new().with_deposit(share).with_minimum_per_second(floor).with_ttl(ms(ttl));
        let budget = Tokened::new(config.validate().expect("it makes sense"));
        // Every movement, with the slice it was in.
        let (mut moved, mut now, slice) = (Vec::new(), 0, ttl / 10);
        for step in 0..2_000 {
            now += u64::from(rng.next()) % (slice / 2);
            let clock = Instant::from_millis(now);
            let alive = |moved: &[(u64, i64)]| -> i64 {
                moved.iter().filter(|(when, _)| when + 10 > now / slice).map(|(_, amount)| amount).sum()
            };
            let least = i64::from(floor) * 10_000 * i64::try_from(ttl).expect("small") / 1_000;
            let balance = alive(&moved) + least;
            assert_eq!(i64::from(budget.balance(&clock)), balance.max(0) / 10_000, "seed {seed}, step {step}");
            if rng.next().is_multiple_of(3) {
                let paid = budget.try_retry(&mut (), MENDABLE, &clock);
                assert_eq!(paid, balance >= 10_000, "seed {seed}, step {step}");
                moved.extend(paid.then_some((now / slice, -10_000)));
            } else {
                budget.begin(&clock);
                moved.push((now / slice, i64::from(share.as_basis_points())));
            }
        }
    }
}

#[test]
fn a_retry_takes_from_the_quota_what_its_failure_costs_and_success_brings_the_last_one_back() {
    let budget = Quota::new(valid!(QuotaConfig::new().with_capacity(50).validate()));
    let clock = ManualClock::new();
    let mut call = budget.begin(&&clock);
    assert!(budget.try_retry(&mut call, MENDABLE.with_cost(10), &&clock));
    assert!(budget.try_retry(&mut call, MENDABLE, &&clock));
    assert_eq!(budget.balance(), 35);
    budget.end(call, Outcome::Success);
    assert_eq!(budget.balance(), 40, "the last one's");
    let joined = budget.join(&&clock);
    budget.end(joined, Outcome::Success);
    assert_eq!(budget.balance(), 40, "it is not a call of its own");
    for expected in 41..=50 {
        budget.end(budget.begin(&&clock), Outcome::Success);
        assert_eq!(budget.balance(), expected);
    }
    budget.end(budget.begin(&&clock), Outcome::Success);
    assert_eq!(budget.balance(), 50, "no more than there is room for");
    let mut call = budget.begin(&&clock);
    assert!(!budget.try_retry(&mut call, MENDABLE.with_cost(51), &&clock));
    assert_eq!((budget.balance(), call.last), (50, None));
    for outcome in [Outcome::Failure, Outcome::Ignored] {
        let mut call = budget.begin(&&clock);
        assert!(budget.try_retry(&mut call, MENDABLE, &&clock));
        budget.end(call, outcome);
    }
    assert_eq!(budget.balance(), 40, "neither brings anything back");
}

#[test]
fn every_failure_takes_one_token_of_a_throttle_however_its_call_goes_on() {
    let budget = Throttle::new(valid!(RetryThrottleConfig::new().with_max_tokens(4).with_token_ratio(800).validate()));
    let clock = ManualClock::new();
    let mut call = budget.begin(&&clock);
    assert!(budget.try_retry(&mut call, MENDABLE, &&clock));
    assert!(!budget.try_retry(&mut call, MENDABLE, &&clock));
    budget.end(call, Outcome::Failure);
    assert_eq!(budget.thousandths(), 2_000, "two failed");
    budget.end(budget.begin(&&clock), Outcome::Failure);
    assert_eq!((budget.thousandths(), budget.allows()), (1_000, false));
    // The retry that was allowed fails too.
    let other = Throttle::new(valid!(RetryThrottleConfig::new().with_max_tokens(4).with_token_ratio(800).validate()));
    let mut call = other.begin(&&clock);
    assert!(other.try_retry(&mut call, MENDABLE, &&clock));
    other.end(call, Outcome::Failure);
    assert_eq!(other.thousandths(), 2_000);
    budget.end(budget.begin(&&clock), Outcome::Ignored);
    budget.end(budget.join(&&clock), Outcome::Failure);
    assert_eq!(budget.thousandths(), 1_000);
    for expected in [1_800, 2_600, 3_400, 4_000] {
        budget.end(budget.begin(&&clock), Outcome::Success);
        assert_eq!(budget.thousandths(), expected);
    }
    // A slow try is no failure.
    assert!(budget.try_retry(&mut budget.begin(&&clock), Verdict::IGNORED, &&clock));
    assert_eq!(budget.thousandths(), 4_000);
    (0..9).for_each(|_| budget.failure());
    assert_eq!(budget.thousandths(), 0);
}

#[test]
fn a_call_that_another_attempt_could_have_mended_counts_as_a_failure_and_any_other_as_nothing() {
    let tokens = |attempts, verdict: Verdict| {
        let budget = Throttle::new(valid!(RetryThrottleConfig::new().with_max_tokens(9).validate()));
        let executor = VirtualExecutor::new();
        let pipeline = Pipeline::new(&executor)
            .layer(RetryPolicy::with_budget(retries(attempts), (), &budget))
            .classify(move |_: Result<&(), &()>| verdict);
        assert_eq!(executor.run(pipeline.call(async |_| Err(()))).map(|result| result.is_err()), Ok(true));
        budget.thousandths() / 1_000
    };
    assert_eq!([1, 2, 3].map(|attempts| tokens(attempts, MENDABLE)), [8, 7, 6], "each attempt");
    assert_eq!(tokens(3, Verdict::PERMANENT), 9);
}

#[test]
fn of_the_calls_in_flight_so_many_may_be_retries_and_all_counts_come_back() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let (share, minimum) = (rng.next() % 101, rng.next() % 4);
        let config = ConcurrentConfig::new().with_share(Ratio::percent(share)).with_minimum_concurrency(minimum);
        let (budget, clock) = (Concurrent::new(config.validate().expect("it makes sense")), ManualClock::new());
        // What each has: whether it is a call of its own, and its retries.
        let mut calls = Vec::<(SpentRetries, u32, u32)>::new();
        for step in 0..1_000 {
            let (own, retries) = calls.iter().fold((0, 0), |(own, all), call| (own + call.1, all + call.2));
            let found = (budget.in_flight(), budget.limit());
            let most = (own * share / 100).max(minimum);
            assert_eq!(found, (InFlight { calls: own, retries }, most), "seed {seed}, step {step}");
            let index = rng.next() as usize % calls.len().max(1);
            match (rng.next() % 5, calls.get_mut(index)) {
                (0 | 1, _) => calls.push((budget.begin(&&clock), 1, 0)),
                (2, Some((spent, _, of_call))) => {
                    let sequential = rng.next().is_multiple_of(2);
                    let over = u32::from(sequential && *of_call > 0);
                    let verdict = if sequential { MENDABLE } else { Verdict::IGNORED };
                    let allowed = budget.try_retry(spent, verdict, &&clock);
                    assert_eq!(allowed, retries - over < most, "seed {seed}, step {step}");
                    *of_call = *of_call - over + u32::from(allowed);
                }
                (3, Some(_)) => {
                    let (spent, ..) = calls.swap_remove(index);
                    budget.end(spent, Outcome::Ignored);
                }
                _ => calls.push((budget.join(&&clock), 0, 0)),
            }
        }
        calls.into_iter().for_each(|(spent, ..)| budget.end(spent, Outcome::Success));
        assert_eq!(budget.in_flight(), InFlight::FRESH);
    }
}

#[test]
fn counters_saturate_and_pack_without_loss() {
    for in_flight in [InFlight::FRESH, InFlight { calls: u32::MAX, retries: u32::MAX >> 1 }] {
        let (head, tail) = in_flight.pack();
        assert_eq!(
            (InFlight::unpack(head, tail), head >> 63, tail, InFlight::has_tail(head)),
            (in_flight, 0, 0, false)
        );
    }
    for used in [0, 1, u64::from(u32::MAX)] {
        assert_eq!((Used::unpack(used, 0).pack(), Used::has_tail(used)), ((used, 0), false));
    }
    assert_eq!((InFlight::FRESH.pack(), Used::FRESH.pack()), ((0, 0), (0, 0)));
    let quota = Quota::new(valid!(QuotaConfig::new().with_capacity(u32::MAX).validate()));
    assert!(quota.try_withdraw(u32::MAX) && quota.try_withdraw(0));
    quota.deposit(u32::MAX);
    assert_eq!(quota.balance(), u32::MAX);
    // Found by the fuzzer: a sum beyond the counter was taken for one within the capacity.
    assert!(quota.try_withdraw(10) && !quota.try_withdraw(u32::MAX));
    assert_eq!(quota.balance(), u32::MAX - 10);
    let generous = TokenConfig::new().with_minimum_per_second(u32::MAX).with_ttl(Duration::from_secs(60));
    let tokens = Tokened::new(generous.validate().expect("it makes sense"));
    (0..9).for_each(|_| tokens.deposit(u32::MAX, &Instant::MAX));
    assert_eq!(tokens.balance(&Instant::MAX), u32::MAX);
    assert!(tokens.try_withdraw(u32::MAX, &Instant::START), "a clock that steps back");
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let ttl = |ttl| TokenConfig::new().with_ttl(ttl).validate().map_err(|error| error.field()).err();
    assert_eq!([ms(999), ms(1_000), ms(60_000), ms(60_001)].map(ttl), [Some("ttl"), None, None, Some("ttl")]);
    let short = TokenConfig::new().with_ttl(ms(999)).validate().map_err(|error| error.problem());
    assert_eq!(short.err(), Some("is below 1 s"));
    let quota = |quota: QuotaConfig| quota.validate().map_err(|error| error.field()).err();
    assert_eq!(quota(QuotaConfig::new().with_capacity(0)), Some("capacity"));
    assert_eq!(quota(QuotaConfig::new().with_retry_cost(0)), Some("retry_cost"));
    let throttle = |tokens, ratio| {
        let config = RetryThrottleConfig::new().with_max_tokens(tokens).with_token_ratio(ratio);
        config.validate().map_err(|error| error.field()).err()
    };
    assert_eq!(
        [throttle(0, 1), throttle(1_001, 1), throttle(1_000, 0), throttle(1_000, 1)],
        [Some("max_tokens"), Some("max_tokens"), Some("token_ratio"), None]
    );
    let share = ConcurrentConfig::new().with_share(Ratio::percent(101)).validate();
    assert_eq!(share.map_err(|error| error.field()).err(), Some("share"));
}

#[test]
fn a_retry_that_the_budget_refuses_ends_with_the_last_error_and_says_so() {
    let executor = VirtualExecutor::new();
    let budget = Quota::new(valid!(QuotaConfig::new().with_capacity(17).validate()));
    let pipeline = Pipeline::new(&executor).layer(RetryPolicy::with_budget(retries(9), (), &budget));
    assert_eq!(pipeline.to_string(), "retry: 9 attempts, at once, on a budget");
    let service = Script::new(&[Step::Fail]);
    let failure = executor.run(pipeline.call(|_| service.call(&executor))).expect("it ends").expect_err("it fails");
    assert_eq!((failure.attempts, failure.stop, budget.balance()), (4, Some(Stop::Budget), 2));
    let failure = executor.run(pipeline.call(|_| service.call(&executor))).expect("it ends").expect_err("it fails");
    assert_eq!((failure.attempts, failure.stop, service.calls()), (1, Some(Stop::Budget), 5));
}

#[test]
fn a_budget_is_asked_only_for_a_retry_that_would_be_made() {
    let executor = VirtualExecutor::new();
    let budget = Quota::new(valid!(QuotaConfig::new().validate()));
    let run = |config: Config, step| {
        let retry = RetryPolicy::with_budget(config.validate().expect("it makes sense"), (), &budget);
        let steps = [step];
        let service = Script::new(&steps);
        let failure = executor.run(Pipeline::new(&executor).layer(retry).call(|_| service.call(&executor)));
        (failure.expect("it ends").expect_err("it fails").stop, budget.balance())
    };
    assert_eq!(run(Config::new().with_max_attempts(1), Step::Fail), (Some(Stop::Attempts), 500));
    assert_eq!(run(Config::new().with_total_time(ms(1)), Step::Fail), (Some(Stop::Deadline), 500));
}

#[test]
fn dropped_at_any_await_a_call_leaves_nothing_in_flight() {
    let executor = VirtualExecutor::new();
    let budget = Concurrent::new(valid!(ConcurrentConfig::new().validate()));
    let retry = RetryPolicy::with_budget(valid!(Config::new().with_max_attempts(4).validate()), (), &budget);
    let pipeline = Pipeline::new(&executor).layer(&retry);
    for polls in 0..40_u64 {
        let service = Script::new(const { &[Step::FailAfter(Duration::from_millis(10))] });
        let mut call = Box::pin(pipeline.call(|_| service.call(&executor)));
        let mut done = false;
        for poll in 0..polls {
            if poll_once(call.as_mut()).is_ready() {
                done = true;
                break;
            }
            executor.jump_to(executor.now().saturating_add(ms(if poll % 2 == 0 { 10 } else { 60_000 })));
        }
        drop(call);
        assert_eq!(budget.in_flight(), InFlight::FRESH, "after {polls} polls");
        if done {
            return;
        }
    }
    unreachable!("it never ended");
}

#[test]
fn a_storm_of_failures_is_answered_with_no_more_retries_than_the_budget_holds() {
    let executor = VirtualExecutor::new();
    let budget = Tokened::new(valid!(TokenConfig::new().with_minimum_per_second(1).validate()));
    let retry = RetryPolicy::with_budget(retries(5), (), &budget);
    let pipeline = Pipeline::new(&executor).layer(&retry);
    let service = Script::new(&[Step::Fail]);
    for _ in 0..1_000 {
        let _ = executor.run(pipeline.call(|_| service.call(&executor)));
    }
    // One in five, and a floor of one a second for ten seconds.
    assert_eq!(service.calls(), 1_000 + 200 + 10);
}

#[test]
fn hedges_and_retries_that_share_a_budget_deposit_once_for_a_call() {
    let executor = VirtualExecutor::new();
    let budget =
        Tokened::new(valid!(TokenConfig::new().with_deposit(Ratio::ONE).with_minimum_per_second(0).validate()));
    let hedge = Hedge::<Local, 1, _, _, _>::with_budget(FixedDelay::new(ms(10)), Idempotent, (), &budget);
    let pipeline = Pipeline::new(&executor).layer(RetryPolicy::with_budget(retries(3), (), &budget)).layer(hedge);
    let service = Script::new(const { &[Step::SucceedAfter(Duration::from_millis(30))] });
    assert!(executor.run(pipeline.call(|_| service.call(&executor))).expect("it ends").is_ok());
    assert_eq!((service.calls(), budget.balance(&&executor)), (2, 0), "one deposit, one hedge");
}

#[test]
fn the_floor_comes_back_after_a_clock_that_jumped_ahead_and_came_back() {
    let at = Instant::from_millis;
    for deposit in [0, 1] {
        let budget = Tokened::new(valid!(TokenConfig::new().validate()));
        budget.deposit(deposit, &at(3_600_000));
        assert!(budget.try_withdraw(100, &at(1_000)), "ten a second, for ten seconds");
        assert!(!budget.try_withdraw(1, &at(1_000)));
        assert_eq!(budget.balance(&at(12_000)), 100);
    }
}

#[test]
fn after_a_reset_a_budget_goes_on_with_what_was_left() {
    let quota = || Quota::new(valid!(QuotaConfig::new().with_capacity(20).validate()));
    let before = quota();
    assert!(before.try_withdraw(13));
    for (saved, balance) in [(before.balance(), 7), (0, 0), (20, 20), (u32::MAX, 20)] {
        let after = quota();
        after.restore(saved);
        assert_eq!(after.balance(), balance);
        after.deposit(30);
        assert_eq!(after.balance(), 20, "and fills up as ever");
    }

    let throttle = || Throttle::new(valid!(RetryThrottleConfig::new().validate()));
    let before = throttle();
    (0..5).for_each(|_| before.failure());
    for (saved, thousandths, allows) in
        [(before.thousandths(), 5_000, false), (5_001, 5_001, true), (0, 0, false), (u32::MAX, 10_000, true)]
    {
        let after = throttle();
        after.restore(saved);
        assert_eq!((after.thousandths(), after.allows()), (thousandths, allows));
    }

    let config = valid!(TokenConfig::new().with_minimum_per_second(2).with_ttl(ms(10_000)).validate());
    let now = Instant::from_millis(500);
    for (saved, balance) in [(0, 0), (7, 7), (20, 20), (u32::MAX, 20)] {
        let after = Tokened::new(config);
        after.restore(saved, &now);
        assert_eq!(after.balance(&now), balance, "no more than the floor of a fresh one");
        assert_eq!(after.balance(&Instant::from_millis(11_000)), 20, "and that is there again when the time is over");
    }
}
