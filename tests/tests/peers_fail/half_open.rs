//! Breakers that are half-open.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use core::task::Poll;
use core::time::Duration;
use std::sync::Arc;

use circuitbreaker_rs::{BreakerError, CircuitBreaker, DefaultPolicy, State};
use execution_policy::core::{ManualClock, TestCore};
use execution_policy::{BreakerState, ExecutionPolicyBuilder, Retry};
use failsafe::{backoff, failure_policy};
use recloser::{AsyncRecloser, Error, Recloser};
use tower::Layer;
use tower_resilience_circuitbreaker::{CircuitBreakerError, CircuitBreakerLayer, CircuitState, SlidingWindowType};

use crate::{Answer, Ask, Backend, HOUR, at_once, call, panic_now, panics, poll_once, still_shows, tick};

fn failing() -> core::future::Ready<Result<(), ()>> {
    core::future::ready(Err(()))
}

// 3
#[test]
fn half_open_of_recloser_lets_everyone_through() {
    let builder = Recloser::custom().closed_len(1).half_open_len(5).open_wait(Duration::ZERO);
    let breaker = AsyncRecloser::from(builder.build());
    for _ in 0..2 {
        let _ = at_once(breaker.call(failing()));
    }
    tick();
    let mut calls: Vec<_> =
        (0..200).map(|_| Box::pin(breaker.call(core::future::pending::<Result<(), ()>>()))).collect();
    let in_flight = calls.iter_mut().map(|call| poll_once(call.as_mut())).filter(Poll::is_pending).count();
    still_shows(in_flight == 200, "200 of 200 calls are in flight at once where five would do");
}

// 6
#[test]
fn old_failures_reopen_a_recovering_recloser() {
    let builder = Recloser::custom().closed_len(1).half_open_len(1).open_wait(Duration::ZERO);
    let builder = builder.open_wait_strategy(|_: u32, _: Duration| HOUR);
    let breaker = AsyncRecloser::from(builder.build());
    let told = Arc::new(AtomicBool::new(false));
    let old = || {
        let told = told.clone();
        let slow = core::future::poll_fn(move |_| {
            if told.load(Ordering::Relaxed) { Poll::Ready(Err::<(), ()>(())) } else { Poll::Pending }
        });
        Box::pin(breaker.call(slow))
    };
    let mut old = [old(), old()];
    assert!(old.iter_mut().all(|call| poll_once(call.as_mut()).is_pending()));
    for _ in 0..2 {
        let _ = at_once(breaker.call(failing()));
    }
    tick();
    assert!(at_once(breaker.call(core::future::ready(Ok::<(), ()>(())))).is_ok(), "the probe");
    told.store(true, Ordering::Relaxed);
    for call in old {
        let _ = at_once(call);
    }
    let next = at_once(breaker.call(core::future::ready(Ok::<(), ()>(()))));
    still_shows(matches!(next, Err(Error::Rejected)), "the next call is rejected");
}

/// What a breaker of failsafe has gone through last.
#[derive(Clone, Default)]
struct Watch(Arc<AtomicU32>);

const OPEN: u32 = 1;
const HALF_OPEN: u32 = 2;
const CLOSED: u32 = 3;

impl Watch {
    fn last(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl failsafe::Instrument for Watch {
    fn on_call_rejected(&self) {}

    fn on_open(&self) {
        self.0.store(OPEN, Ordering::Relaxed);
    }

    fn on_half_open(&self) {
        self.0.store(HALF_OPEN, Ordering::Relaxed);
    }

    fn on_closed(&self) {
        self.0.store(CLOSED, Ordering::Relaxed);
    }
}

// 7
#[test]
fn half_open_of_failsafe_is_unbounded_and_a_question_or_an_old_success_changes_the_state() {
    let watch = Watch::default();
    let policy = failure_policy::consecutive_failures(1, backoff::constant(Duration::ZERO));
    let breaker = failsafe::Config::new().failure_policy(policy).instrument(watch.clone()).build();
    breaker.on_error();
    tick();
    assert_eq!(watch.last(), OPEN);
    let permitted = (0..200).filter(|_| breaker.is_call_permitted()).count();
    still_shows(watch.last() == HALF_OPEN, "asking makes it half-open");
    still_shows(permitted == 200, "200 of 200 calls are let through at once");
    // Of a call from before the trip: there is nothing by which it could be told from a probe's.
    breaker.on_success();
    still_shows(watch.last() == CLOSED, "an old success closes it");
}

// 9
#[test]
fn circuitbreaker_rs_rejects_for_ever_after_probes_that_panicked() {
    let builder =
        CircuitBreaker::<DefaultPolicy, std::io::Error>::builder().consecutive_failures(1).cooldown(Duration::ZERO);
    let breaker = builder.probe_interval(5).build();
    let _ = breaker.call(|| Err::<(), _>(std::io::ErrorKind::Other.into()));
    for _ in 0..6 {
        assert!(panics(|| {
            let _ = breaker.call(|| -> Result<(), std::io::Error> { panic_now() });
        }));
    }
    let rejected = (0..50).filter(|_| matches!(breaker.call(|| Ok(())), Err(BreakerError::Open))).count();
    still_shows((rejected, breaker.current_state()) == (50, State::HalfOpen), "50 of 50 calls are rejected");
}

// 13
#[test]
fn execution_policy_rejects_for_ever_after_a_probe_that_was_cancelled() {
    let clock = ManualClock::new();
    let breaker = execution_policy::CircuitBreaker::consecutive_failures(1);
    let breaker = breaker.open_for(Duration::from_secs(5)).half_open_max_calls(1);
    let builder = ExecutionPolicyBuilder::<(), &str>::new().retry(Retry::none()).circuit_breaker(breaker);
    let policy = builder.build_with(TestCore::new(clock.clone()));
    assert!(at_once(policy.execute(async |_| Err("failed"))).is_err());
    clock.advance(Duration::from_secs(6));
    {
        let mut probe = Box::pin(policy.execute(async |_| core::future::pending().await));
        assert!(poll_once(probe.as_mut()).is_pending());
    }
    clock.advance(HOUR);
    let rejected = (0..50).filter(|_| at_once(policy.execute(async |_| Ok(()))).is_err()).count();
    still_shows(rejected == 50, "50 of 50 calls are rejected");
    still_shows(policy.circuit_state() == Some(BreakerState::HalfOpen), "it stays half-open");
}

// 14: here the window is a nanosecond long, so that probes are always further apart than that.
#[test]
fn half_open_of_tower_resilience_forgets_successes_but_not_places_and_takes_no_probes_at_all() {
    let builder = CircuitBreakerLayer::builder()
        .sliding_window_type(SlidingWindowType::TimeBased)
        .sliding_window_duration(Duration::from_nanos(1))
        .consecutive_failures(1)
        .wait_duration_in_open(Duration::ZERO)
        .permitted_calls_in_half_open(3);
    let mut service = builder.build().expect("valid").layer(Backend::default());
    let _: Answer = at_once(call(&mut service, Ask::Fail));
    let answers: Vec<Answer> = (0..100).map(|_| at_once(call(&mut service, Ask::Succeed))).collect();
    still_shows(answers.iter().take(3).all(Result::is_ok), "three probes succeed");
    still_shows(answers.iter().skip(3).all(Result::is_err), "and then all calls are rejected");

    let builder = CircuitBreakerLayer::builder().consecutive_failures(1).wait_duration_in_open(Duration::ZERO);
    let layer = builder.permitted_calls_in_half_open(0).build();
    still_shows(layer.is_ok(), "no probes are taken for a valid setting");
    let mut service = layer.expect("valid").layer(Backend::default());
    let _: Answer = at_once(call(&mut service, Ask::Fail));
    let rejected = (0..100).filter(|_| {
        let answer: Answer = at_once(call(&mut service, Ask::Succeed));
        matches!(answer, Err(CircuitBreakerError::OpenCircuit))
    });
    still_shows(rejected.count() == 100, "100 of 100 calls are rejected");
}

// 15
#[test]
fn an_old_success_closes_a_half_open_tower_resilience() {
    let builder = CircuitBreakerLayer::builder().consecutive_failures(1).wait_duration_in_open(Duration::ZERO);
    let mut service = builder.permitted_calls_in_half_open(1).build().expect("valid").layer(Backend::default());
    let told = Arc::new(AtomicBool::new(false));
    let mut old = call(&mut service, Ask::SucceedWhen(told.clone()));
    assert!(poll_once(old.as_mut()).is_pending());
    let _: Answer = at_once(call(&mut service, Ask::Fail));
    let mut probe = call(&mut service, Ask::hang());
    assert!(poll_once(probe.as_mut()).is_pending());
    assert_eq!(service.state_sync(), CircuitState::HalfOpen);
    told.store(true, Ordering::Relaxed);
    let _: Answer = at_once(old);
    still_shows(service.state_sync() == CircuitState::Closed, "it closes while its probe is out");
}

// 26
#[test]
fn half_open_of_reliakit_lets_everyone_through() {
    let mut breaker = reliakit_circuit::CircuitBreaker::new(1, 10);
    breaker.on_failure(0);
    let allowed = (0..1_000).filter(|_| breaker.allow(10)).count();
    still_shows(allowed == 1_000, "1,000 of 1,000 calls are allowed");
    assert_eq!(breaker.state(), reliakit_circuit::State::HalfOpen);
}
