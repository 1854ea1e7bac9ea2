//! Breakers that are closed or open.

use core::time::Duration;
use std::sync::{Arc, Mutex, OnceLock};

use allocation_counter::measure;
use circuitbreaker_rs::{
    BreakerError, BreakerPolicy, CircuitBreaker, DefaultPolicy, HookRegistry, MetricSink, State, TimeBasedPolicy,
};
use failsafe::{backoff, failure_policy};
use recloser::{AsyncRecloser, Recloser};
use tower::{Layer, Service};
use tower_resilience_circuitbreaker::{CircuitBreakerLayer, SlidingWindowType};

use crate::{Answer, Ask, Backend, HOUR, Tower, at_once, call, panics, poll_once, still_shows, tick};

fn fail(breaker: &Recloser) {
    let _ = breaker.call(|| Err::<(), ()>(()));
}

// 1
#[test]
fn the_count_window_of_tower_resilience_never_slides() {
    let layer = CircuitBreakerLayer::builder()
        .sliding_window_size(100)
        .minimum_number_of_calls(100)
        .failure_rate_threshold(0.5)
        .wait_duration_in_open(HOUR)
        .build()
        .expect("valid");
    let mut service = layer.layer(Backend::default());
    for _ in 0..20_000 {
        let _: Answer = at_once(call(&mut service, Ask::Succeed));
    }
    let mut failures = 0;
    while !service.is_open() && failures < 30_000 {
        failures += 1;
        let _: Answer = at_once(call(&mut service, Ask::Fail));
    }
    still_shows(failures == 20_000, "it takes as many failures to open as there were successes before");
}

// 2
#[test]
fn recloser_leaks_at_each_drop_and_at_each_transition() {
    let heap = measure(|| {
        for _ in 0..1_000 {
            drop(Recloser::custom().build());
        }
    });
    still_shows(heap.bytes_current >= 1_000 * 100, "a breaker that is dropped leaves its ring of 100 calls behind");

    let breaker = Recloser::custom().closed_len(1).half_open_len(1).open_wait(Duration::ZERO).build();
    let heap = measure(|| {
        for _ in 0..10_000 {
            fail(&breaker);
            fail(&breaker);
            tick();
            let _ = breaker.call(|| Ok::<(), ()>(()));
            let _ = breaker.call(|| Ok::<(), ()>(()));
        }
    });
    still_shows(heap.bytes_current >= 10_000 * 100, "each trip and recovery leaves three states behind");
}

// 4: the second call would spin for ever, and so on a core of this machine: it is left out.
#[test]
fn recloser_takes_a_window_of_no_calls_and_panics() {
    let breaker = Recloser::custom().closed_len(0).build();
    still_shows(panics(|| fail(&breaker)), "the first call panics");
}

// 5
#[test]
fn an_endless_open_period_panics_in_recloser_and_failsafe() {
    let breaker = Recloser::custom().closed_len(1).open_wait(Duration::MAX).build();
    fail(&breaker);
    still_shows(panics(|| fail(&breaker)), "recloser adds to an `Instant`");

    let policy = failure_policy::consecutive_failures(1, backoff::constant(Duration::MAX));
    let breaker = failsafe::Config::new().failure_policy(policy).build();
    still_shows(panics(|| breaker.on_error()), "failsafe adds to an `Instant`");
}

// 8
#[test]
fn failsafe_cuts_windows_and_backoffs_to_whole_seconds() {
    let with_window = |window| {
        let policy = failure_policy::success_rate_over_time_window(0.1, 1, window, backoff::constant(HOUR));
        failsafe::Config::new().failure_policy(policy).build()
    };
    let breaker = with_window(Duration::from_millis(900));
    for _ in 0..10_000 {
        breaker.on_success();
    }
    breaker.on_error();
    still_shows(!breaker.is_call_permitted(), "one failure of 10,001 calls opens, though one success in ten would do");

    let breaker = with_window(Duration::from_millis(4));
    still_shows(panics(|| breaker.on_success()), "a window of 4 ms divides by zero");
    still_shows(
        panics(|| {
            let _ = backoff::exponential(Duration::from_millis(500), HOUR);
        }),
        "a backoff of half a second panics",
    );
    let first = backoff::exponential(Duration::from_millis(1_900), HOUR).next();
    still_shows(first == Some(Duration::from_secs(1)), "1.9 s are one");
}

/// For a breaker with a policy of one's own: its builder takes none but the default.
struct Nowhere;

impl MetricSink for Nowhere {
    fn record_call(&self, _: bool, _: Duration) {}

    fn record_state_transition(&self, _: &str, _: &str) {}

    fn record_probe_attempt(&self, _: bool) {}

    fn record_error_rate(&self, _: f64) {}
}

// 11
#[test]
fn conditions_of_circuitbreaker_rs_are_not_told_and_never_forget() {
    fn fail<P: BreakerPolicy>(breaker: &CircuitBreaker<P, std::io::Error>) {
        let _ = breaker.call(|| Err::<(), _>(std::io::ErrorKind::Other.into()));
    }
    let policy = TimeBasedPolicy::new(Duration::from_secs(60), 6, 0.5, 1, Duration::ZERO, 1);
    let breaker = CircuitBreaker::new(policy, HOUR, 5, Arc::new(Nowhere), Arc::new(HookRegistry::new()));
    for _ in 0..100_000 {
        fail(&breaker);
    }
    still_shows(breaker.current_state() == State::Closed, "100,000 failures in a row leave a window of time closed");

    let builder = CircuitBreaker::<DefaultPolicy, std::io::Error>::builder().cooldown(HOUR);
    let breaker = builder.consecutive_failures(u64::MAX).build();
    for _ in 0..10_000 {
        let _ = breaker.call(|| Ok(()));
    }
    let mut failures = 0;
    while breaker.current_state() == State::Closed && failures < 20_000 {
        fail(&breaker);
        failures += 1;
    }
    still_shows(failures == 10_000, "the rate is that of its whole life");

    let builder = CircuitBreaker::<DefaultPolicy, std::io::Error>::builder().cooldown(Duration::ZERO);
    let breaker = builder.consecutive_failures(1).consecutive_successes(10).probe_interval(5).build();
    fail(&breaker);
    let answers: Vec<_> = (0..100).map(|_| breaker.call(|| Ok(()))).collect();
    let rejected = answers.iter().filter(|answer| matches!(answer, Err(BreakerError::Open))).count();
    still_shows(rejected == 94, "with more successes to reach than probes to reach them it rejects for ever");
}

// 16: the time that it takes to go through them is too noisy to show; what they take in memory is not.
#[test]
fn the_time_window_of_tower_resilience_keeps_a_record_of_each_call() {
    let layer = CircuitBreakerLayer::builder()
        .sliding_window_type(SlidingWindowType::TimeBased)
        .sliding_window_duration(HOUR)
        .minimum_number_of_calls(usize::MAX)
        .build()
        .expect("valid");
    let mut service = layer.layer(Backend::default());
    let kept = |service: &mut Tower<_>, calls: u64| {
        let heap = measure(|| {
            for _ in 0..calls {
                let _: Answer = at_once(call(service, Ask::Succeed));
            }
        });
        u64::try_from(heap.bytes_current).unwrap_or(0)
    };
    still_shows(kept(&mut service, 2_000) >= 2_000 * 16, "16 bytes a call, at least");
}

// 17
#[tokio::test(start_paused = true)]
async fn a_rejection_of_tower_resilience_sleeps_when_the_lock_is_taken() {
    static OTHER: OnceLock<Mutex<Tower<tower_resilience_circuitbreaker::DefaultClassifier>>> = OnceLock::new();
    static WAITED: Mutex<Option<bool>> = Mutex::new(None);
    let layer = CircuitBreakerLayer::builder()
        .consecutive_failures(1)
        .wait_duration_in_open(HOUR)
        // Who listens is told while the lock is held, as another task's call would hold it.
        .on_call_rejected(|| {
            let mut other = OTHER.get().expect("set").lock().expect("not poisoned");
            let ready = poll_once(core::pin::pin!(core::future::poll_fn(|cx| other.poll_ready(cx))));
            *WAITED.lock().expect("not poisoned") = Some(ready.is_pending());
        })
        .build()
        .expect("valid");
    let mut service = layer.layer(Backend::default());
    assert!(OTHER.set(Mutex::new(service.clone())).is_ok());
    let _: Answer = at_once(call(&mut service, Ask::Fail));
    let rejected: Answer = at_once(call(&mut service, Ask::Succeed));
    assert!(rejected.is_err());
    still_shows(*WAITED.lock().expect("not poisoned") == Some(true), "readiness of an open breaker waits for its lock");
}

// 18
#[test]
fn a_hanging_backend_never_opens_recloser_and_tower_resilience() {
    let backend = Backend::default();
    let layer = CircuitBreakerLayer::builder().consecutive_failures(5).wait_duration_in_open(HOUR).build();
    let mut service = layer.expect("valid").layer(backend.clone());
    for _ in 0..50 {
        // Somebody's timeout around it drops the call.
        assert!(poll_once(call(&mut service, Ask::hang()).as_mut()).is_pending());
    }
    still_shows(backend.calls() == 50, "50 of 50 calls that hang reach the backend through tower-resilience");

    let breaker = AsyncRecloser::from(Recloser::custom().closed_len(5).open_wait(HOUR).build());
    let reached = (0..50).filter(|_| {
        let hang = Box::pin(breaker.call(core::future::pending::<Result<(), ()>>()));
        poll_once(core::pin::pin!(hang)).is_pending()
    });
    still_shows(reached.count() == 50, "50 of 50 calls that hang reach the backend through recloser");
}
