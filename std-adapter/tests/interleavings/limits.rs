//! What counts in one word: the rate limiter, and the budget of retries in flight.

use core::time::Duration;
use std::sync::Arc;

use failsoft_tokio::budget::{ConcurrentConfig, RetryBudget};
use failsoft_tokio::rate_limiter::Config;
use failsoft_tokio::{ConcurrentBudget, Instant, RateLimiter, Verdict};

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
