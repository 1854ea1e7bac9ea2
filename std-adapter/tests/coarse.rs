//! The coarse clock beside the fine ones: one time line, some milliseconds behind.

use core::future::pending;
use core::time::Duration;

use failsoft_tokio::circuit_breaker::{self, StateKind};
use failsoft_tokio::{
    CircuitBreaker, Clock, CoarseClock, Executor, Instant, Pipeline, RateLimiter, Threads, Timeout, Tokio,
    rate_limiter, valid,
};

const HOUR: Duration = Duration::from_secs(3600);

/// More than it may be behind, on a machine that is too busy to move its clock in time.
const SECOND: Duration = Duration::from_secs(1);

fn behind(fine: Instant) -> Duration {
    fine.saturating_duration_since(CoarseClock.now())
}

#[test]
fn it_is_never_ahead_of_the_fine_clocks_and_close_behind() {
    for _ in 0..100_000 {
        let coarse = CoarseClock.now();
        assert!(coarse <= Tokio.now() && coarse <= Threads.now());
    }
    assert!(CoarseClock.resolution() < SECOND);
    // At once as a rule; the thread, or the clock, may have been held up, until it moves the next time.
    let start = Threads.now();
    while behind(Tokio.now()) > CoarseClock.resolution() {
        assert!(Threads.now().saturating_duration_since(start) < SECOND, "it stays behind");
    }
    assert!(behind(Tokio.now()) < SECOND);
}

#[test]
fn it_goes_on_by_itself_and_never_back() {
    let (start, first) = (Threads.now(), CoarseClock.now());
    let mut last = first;
    while last == first {
        let now = CoarseClock.now();
        assert!(now >= last);
        last = now;
        assert!(Threads.now().saturating_duration_since(start) < SECOND, "it stands still");
    }
}

#[test]
fn a_policy_asked_by_one_clock_may_be_told_by_the_other() {
    static CLIENT: CircuitBreaker =
        CircuitBreaker::new(valid!(circuit_breaker::Config::new().with_open_for(HOUR).validate()));
    while CLIENT.try_acquire(CoarseClock).map(|permit| permit.failure()).is_ok() {}
    let rejected = CLIENT.try_acquire(Tokio).expect_err("it is open");
    let left = rejected.retry_at().map(|at| at.saturating_duration_since(Tokio.now()));
    assert!(left.is_some_and(|left| left <= HOUR && left > HOUR - SECOND), "{left:?}");
    assert_eq!(CLIENT.state(), StateKind::Open);

    static MAILS: RateLimiter = RateLimiter::new(valid!(rate_limiter::Config::new(3, HOUR).validate()));
    assert!(
        MAILS.try_acquire(&Tokio).is_ok()
            && MAILS.try_acquire(&CoarseClock).is_ok()
            && MAILS.try_acquire(&Tokio).is_ok()
    );
    assert!(MAILS.try_acquire(&CoarseClock).is_err() && MAILS.try_acquire(&Tokio).is_err());
}

#[tokio::test]
async fn as_an_executor_it_ends_no_call_early() {
    let limit = Duration::from_millis(20);
    // By its own time: how far that is behind on a machine that is busy, the kernel does not say.
    let start = CoarseClock.now();
    let pipeline = Pipeline::new(CoarseClock).layer(Timeout::new(limit));
    let result = pipeline.call(|_| pending::<Result<(), ()>>()).await;
    assert!(result.is_err_and(|failure| failure.is_timed_out()));
    assert!(CoarseClock.now().saturating_duration_since(start) >= limit);
}

#[tokio::test]
async fn as_an_executor_it_sleeps_until_it_shows_the_time_slept_for() {
    let at = Tokio.now();
    let fine = Tokio.sleep_until(at).deadline();
    assert_eq!(CoarseClock.sleep_until(at).deadline(), fine + CoarseClock.resolution());
}
