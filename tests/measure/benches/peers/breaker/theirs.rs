//! Breakers of other crates.

use core::hint::black_box;
use core::time::Duration;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use execution_policy::{DefaultCore, ExecutionPolicyBuilder, Retry};
use failsafe::backoff::{Constant, constant};
use failsafe::failure_policy::{self, ConsecutiveFailures, SuccessRateOverTimeWindow};
use failsafe::{FailurePolicy, StateMachine};
use failsoft_measure::subjects::{call_failsafe, call_recloser, work};
use failsoft_tokio::circuit_breaker::{ConsecutiveFailures as Consecutive, FailureRate, TimeBased};
use layered::Layer as _;
use recloser::Recloser;
use seatbelt::ResilienceContext;
use seatbelt::breaker::HalfOpenMode;
use tower_resilience_circuitbreaker::{CircuitBreakerLayer, DefaultClassifier};

use super::ours::Rule as _;
use super::{Breaker, Made};
use crate::harness::answer;
use crate::service::{self, Answer, Ask, Backend, Why};

const HOUR: Duration = Duration::from_secs(3_600);
const UNBOUNDED: &str = "half-open lets everyone through";

const fn open_for(made: Made) -> Duration {
    if matches!(made, Made::Touchy) { Duration::ZERO } else { HOUR }
}

impl Breaker for Recloser {
    const NAME: &'static str = "recloser";
    const LIKE: &'static str = FailureRate::NAME;
    const NEVER_TOUCHY: Option<&'static str> =
        Some("each change of state leaks memory: a gigabyte in a second of this");
    const NEVER_PROBED: Option<&'static str> = Some(UNBOUNDED);

    fn make(made: Made) -> Self {
        Self::custom().error_rate(1.0).closed_len(40).open_wait(open_for(made)).build()
    }

    #[inline]
    fn call(&mut self, good: bool) -> bool {
        call_recloser(self, good)
    }

    fn view(&self) -> impl FnMut(bool) -> bool + Send {
        |good| call_recloser(self, good)
    }
}

fn failsafe<P: FailurePolicy>(policy: P) -> StateMachine<P, ()> {
    failsafe::Config::new().failure_policy(policy).build()
}

pub(crate) type FailsafeConsecutive = StateMachine<ConsecutiveFailures<Constant>, ()>;

impl Breaker for FailsafeConsecutive {
    const NAME: &'static str = "failsafe, consecutive";
    const LIKE: &'static str = Consecutive::NAME;
    const NEVER_PROBED: Option<&'static str> = Some(UNBOUNDED);

    fn make(made: Made) -> Self {
        let threshold = match made {
            Made::Steady => u32::MAX,
            Made::Sensitive => 5,
            Made::Touchy => 1,
        };
        failsafe(failure_policy::consecutive_failures(threshold, constant(open_for(made))))
    }

    #[inline]
    fn call(&mut self, good: bool) -> bool {
        call_failsafe(self, good)
    }

    fn view(&self) -> impl FnMut(bool) -> bool + Send {
        |good| call_failsafe(self, good)
    }
}

pub(crate) type FailsafeOverTime = StateMachine<SuccessRateOverTimeWindow<Constant>, ()>;

impl Breaker for FailsafeOverTime {
    const NAME: &'static str = "failsafe, window of time";
    const LIKE: &'static str = TimeBased::<10>::NAME;
    const NEVER_PROBED: Option<&'static str> = Some(UNBOUNDED);

    fn make(made: Made) -> Self {
        // A window below a second is none to it: the last call decides, so that it can open at once.
        let (rate, window) = match made {
            Made::Steady => (0.0, Duration::from_secs(30)),
            Made::Sensitive | Made::Touchy => (0.5, Duration::from_millis(900)),
        };
        failsafe(failure_policy::success_rate_over_time_window(rate, 1, window, constant(open_for(made))))
    }

    #[inline]
    fn call(&mut self, good: bool) -> bool {
        call_failsafe(self, good)
    }

    fn view(&self) -> impl FnMut(bool) -> bool + Send {
        |good| call_failsafe(self, good)
    }
}

/// For a single owner, who brings the time along: here it costs nothing.
pub(crate) struct Reliakit(reliakit_circuit::CircuitBreaker);

fn reliakit(made: Made) -> reliakit_circuit::CircuitBreaker {
    match made {
        Made::Steady => reliakit_circuit::CircuitBreaker::new(u32::MAX, u64::MAX),
        Made::Sensitive => reliakit_circuit::CircuitBreaker::new(5, u64::MAX),
        Made::Touchy => reliakit_circuit::CircuitBreaker::new(1, 0),
    }
}

impl Breaker for Reliakit {
    const NAME: &'static str = "reliakit, &mut, time given";
    const LIKE: &'static str = Consecutive::NAME;
    const ALONE: Option<&'static str> = Some("it has a single owner");
    const NEVER_PROBED: Option<&'static str> = Some(UNBOUNDED);

    fn make(made: Made) -> Self {
        Self(reliakit(made))
    }

    #[inline]
    fn call(&mut self, good: bool) -> bool {
        let now = black_box(1);
        if !self.0.allow(now) {
            return false;
        }
        match work(good) {
            Ok(()) => self.0.on_success(),
            Err(()) => self.0.on_failure(now),
        }
        true
    }

    fn view(&self) -> impl FnMut(bool) -> bool + Send {
        |_| false
    }
}

/// The same as threads share it: in a mutex, with the standard library's clock.
pub(crate) struct LockedReliakit {
    breaker: Mutex<reliakit_circuit::CircuitBreaker>,
    origin: Instant,
}

impl LockedReliakit {
    fn call(&self, good: bool) -> bool {
        let now = || u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let breaker = || self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        let before = now();
        if !breaker().allow(before) {
            return false;
        }
        // Not locked during the call.
        match work(good) {
            Ok(()) => breaker().on_success(),
            Err(()) => {
                let after = now();
                breaker().on_failure(after);
            }
        }
        true
    }
}

impl Breaker for LockedReliakit {
    const NAME: &'static str = "reliakit, in a Mutex";
    const LIKE: &'static str = Consecutive::NAME;
    const NEVER_PROBED: Option<&'static str> = Some(UNBOUNDED);

    fn make(made: Made) -> Self {
        Self { breaker: Mutex::new(reliakit(made)), origin: Instant::now() }
    }

    #[inline]
    fn call(&mut self, good: bool) -> bool {
        Self::call(self, good)
    }

    fn view(&self) -> impl FnMut(bool) -> bool + Send {
        |good| Self::call(self, good)
    }
}

pub(crate) type ExecutionPolicy = execution_policy::ExecutionPolicy<DefaultCore, (), Why>;

fn call_execution_policy(policy: &ExecutionPolicy, good: bool) -> bool {
    let answer = answer(policy.execute(async |_| work(good).map_err(|()| Why::Failed)));
    !answer.is_err_and(|error| error.is_circuit_open())
}

impl Breaker for ExecutionPolicy {
    const NAME: &'static str = "execution-policy, consecutive";
    const LIKE: &'static str = Consecutive::NAME;

    fn make(made: Made) -> Self {
        let breaker = execution_policy::CircuitBreaker::consecutive_failures(match made {
            Made::Steady => u32::MAX,
            Made::Sensitive => 5,
            Made::Touchy => 1,
        });
        ExecutionPolicyBuilder::new().retry(Retry::none()).circuit_breaker(breaker.open_for(open_for(made))).build()
    }

    fn call(&mut self, good: bool) -> bool {
        call_execution_policy(self, good)
    }

    fn view(&self) -> impl FnMut(bool) -> bool + Send {
        |good| call_execution_policy(self, good)
    }

    fn probe(&mut self) {
        service::forget(self.execute(async |_| core::future::pending().await));
    }
}

pub(crate) type Seatbelt = seatbelt::breaker::Breaker<Ask, Answer, Backend>;

/// As long as its figures take, and it takes to get there.
const SEATBELT_PAUSE: Duration = Duration::from_secs(3);

fn call_seatbelt(breaker: &Seatbelt, good: bool) -> bool {
    answer(layered::Service::execute(breaker, Ask::from(good))) != Err(Why::Rejected)
}

fn seatbelt(made: Made, open_for: Duration) -> Seatbelt {
    let context = ResilienceContext::new(&*service::TICK);
    let layer = seatbelt::breaker::Breaker::layer("breaker", &context)
        .recovery_with(|answer, _| service::recovery(answer))
        .rejected_input_error(|_, _| Why::Rejected)
        .failure_threshold(1.0)
        .min_throughput(if made == Made::Touchy { 1 } else { 40 })
        .break_duration(open_for)
        .half_open_mode(HalfOpenMode::quick());
    layer.layer(Backend)
}

impl Breaker for Seatbelt {
    const NAME: &'static str = "seatbelt, window of time";
    const LIKE: &'static str = TimeBased::<10>::NAME;

    fn make(made: Made) -> Self {
        seatbelt(made, open_for(made))
    }

    fn call(&mut self, good: bool) -> bool {
        call_seatbelt(self, good)
    }

    fn view(&self) -> impl FnMut(bool) -> bool + Send {
        |good| call_seatbelt(self, good)
    }

    fn probed() -> Self {
        // It takes another probe once the first has been out for as long as it was open.
        let mut breaker = seatbelt(Made::Touchy, SEATBELT_PAUSE);
        breaker.call(false);
        std::thread::sleep(SEATBELT_PAUSE);
        breaker.probe();
        breaker
    }

    fn probe(&mut self) {
        service::forget(layered::Service::execute(self, Ask::Hang));
    }
}

pub(crate) type TowerResilience = tower_resilience_circuitbreaker::CircuitBreaker<Backend, DefaultClassifier>;

fn call_tower_resilience(service: &mut TowerResilience, good: bool) -> bool {
    let rejected = tower_resilience_circuitbreaker::CircuitBreakerError::is_circuit_open;
    !service::call(service, Ask::from(good)).is_err_and(|error| rejected(&error))
}

impl Breaker for TowerResilience {
    const NAME: &'static str = "tower-resilience, lifetime rate";
    const LIKE: &'static str = FailureRate::NAME;

    fn make(made: Made) -> Self {
        let layer =
            CircuitBreakerLayer::builder().wait_duration_in_open(open_for(made)).permitted_calls_in_half_open(1);
        let layer = match made {
            Made::Touchy => layer.consecutive_failures(1),
            Made::Steady | Made::Sensitive => {
                layer.sliding_window_size(40).minimum_number_of_calls(40).failure_rate_threshold(1.0)
            }
        };
        layer.build().expect("valid").layer(Backend)
    }

    fn call(&mut self, good: bool) -> bool {
        call_tower_resilience(self, good)
    }

    fn view(&self) -> impl FnMut(bool) -> bool + Send {
        let mut service = self.clone();
        move |good| call_tower_resilience(&mut service, good)
    }

    fn probe(&mut self) {
        service::ready(self);
        service::forget(tower::Service::call(self, Ask::Hang));
    }
}
