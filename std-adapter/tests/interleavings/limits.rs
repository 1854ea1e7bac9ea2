//! What counts in one word: the rate limiter, and the budget of retries in flight.

use core::time::Duration;
use std::sync::Arc;

use failsoft_tokio::budget::{ConcurrentConfig, QuotaConfig, RetryBudget, RetryThrottleConfig};
use failsoft_tokio::rate_limiter::Config;
use failsoft_tokio::{ConcurrentBudget, Instant, QuotaBudget, RateLimiter, RetryThrottle, Verdict};

use crate::model::{Inside, check, check_many, thread};

/// The checkers want what threads share to be made before they are.
fn touched(limiter: RateLimiter) -> RateLimiter {
    limiter.available(&Instant::START);
    limiter
}

#[test]
fn a_quota_is_not_exceeded_by_those_who_come_at_once() {
    check_many("rate limiter, three at once", || {
        let config = Config::new(2, Duration::from_secs(1)).validate().expect("it makes sense");
        let rig = Arc::new((touched(RateLimiter::new(config)), Inside::default()));
        let come = |rig: Arc<(RateLimiter, Inside)>| {
            if rig.0.try_acquire(&Instant::START).is_ok() {
                rig.1.enter(2);
            }
        };
        let others = [rig.clone(), rig.clone()].map(|rig| thread::spawn(move || come(rig)));
        come(rig.clone());
        for other in others {
            other.join().expect("it doesn't panic");
        }
        assert_eq!(rig.1.ever(), 2);
    });
}

#[test]
fn a_reservation_that_is_returned_is_there_for_another() {
    check("rate limiter, a reservation returned", || {
        let config = Config::new(1, Duration::from_secs(1)).validate().expect("it makes sense");
        let limiter = Arc::new(touched(RateLimiter::new(config)));
        let other = {
            let limiter = limiter.clone();
            thread::spawn(move || drop(limiter.reserve(1, Duration::ZERO, &Instant::START)))
        };
        drop(limiter.reserve(1, Duration::ZERO, &Instant::START));
        other.join().expect("it doesn't panic");
        assert_eq!(limiter.available(&Instant::START), 1);
    });
}

#[test]
fn retries_in_flight_stay_within_their_share_and_come_back() {
    check("budget, retries at once", || {
        let config = ConcurrentConfig::new().with_minimum_concurrency(1).validate().expect("it makes sense");
        let rig = Arc::new((ConcurrentBudget::new(config), Inside::default()));
        rig.0.in_flight();
        let call = |rig: Arc<(ConcurrentBudget, Inside)>| {
            let mut spent = rig.0.begin(&Instant::START);
            if rig.0.try_retry(&mut spent, Verdict::TRANSIENT, &Instant::START) {
                rig.1.enter(1);
                rig.1.leave();
            }
            rig.0.end(spent, failsoft_tokio::Outcome::Failure);
        };
        let other = {
            let rig = rig.clone();
            thread::spawn(move || call(rig))
        };
        call(rig.clone());
        other.join().expect("it doesn't panic");
        assert_eq!((rig.0.in_flight().calls, rig.0.in_flight().retries), (0, 0));
    });
}

#[test]
fn a_quota_of_retries_is_neither_overdrawn_nor_filled_above_its_capacity() {
    check_many("budget, two withdrawals and a deposit", || {
        let config = QuotaConfig::new().with_capacity(5).validate().expect("it makes sense");
        let rig = Arc::new((QuotaBudget::new(config), Inside::default()));
        rig.0.balance();
        let withdraw = |rig: Arc<(QuotaBudget, Inside)>| {
            if rig.0.try_withdraw(5) {
                rig.1.enter(2);
            }
        };
        let others = [rig.clone(), rig.clone()].map(|rig| thread::spawn(move || withdraw(rig)));
        rig.0.deposit(5);
        for other in others {
            other.join().expect("it doesn't panic");
        }
        // A deposit that finds it full is nothing.
        let ends = (rig.1.ever(), rig.0.balance());
        assert!([(1, 0), (1, 5), (2, 0)].contains(&ends), "withdrawals, and what is left: {ends:?}");
    });
}

#[test]
fn a_throttle_of_retries_loses_no_outcome() {
    check_many("retry throttle, two failures and a success", || {
        let config = RetryThrottleConfig::new().with_max_tokens(2).with_token_ratio(500).validate();
        let throttle = Arc::new(RetryThrottle::new(config.expect("it makes sense")));
        throttle.thousandths();
        let others = [throttle.clone(), throttle.clone()].map(|throttle| thread::spawn(move || throttle.failure()));
        throttle.success();
        for other in others {
            other.join().expect("it doesn't panic");
        }
        // The success that comes first finds it full.
        let left = throttle.thousandths();
        assert!([0, 500].contains(&left), "{left} thousandths are left");
    });
}

#[test]
fn clocks_that_differ_bring_no_more_than_their_difference() {
    check_many("rate limiter, clocks three nanoseconds apart", || {
        let config = Config::new(1, Duration::from_nanos(2)).validate().expect("it makes sense");
        let rig = Arc::new((touched(RateLimiter::new(config)), Inside::default()));
        let come = |rig: Arc<(RateLimiter, Inside)>, at: u64| {
            if rig.0.try_acquire(&Instant::from_nanos(at)).is_ok() {
                // One, and what three nanoseconds bring.
                rig.1.enter(2);
            }
        };
        let others = [(rig.clone(), 3), (rig.clone(), 0)].map(|(rig, at)| thread::spawn(move || come(rig, at)));
        come(rig.clone(), 0);
        for other in others {
            other.join().expect("it doesn't panic");
        }
        assert!(rig.1.ever() >= 1);
    });
}
