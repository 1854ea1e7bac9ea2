//! The stack under test, and what it notes of itself.
//!
//! ```text
//! total timeout ▸ retry with a budget ▸ bulkhead ▸ breaker ▸ attempt timeout ▸ client
//! ```

use core::time::Duration;
use std::sync::{Mutex, PoisonError};

use failsoft_tokio::budget::TokenConfig;
use failsoft_tokio::circuit_breaker::{Abandoned, ConsecutiveFailures, Transition};
use failsoft_tokio::pipeline::{Bare, Stack};
use failsoft_tokio::{
    Backoff, Bulkhead, CircuitBreaker, ConfigError, Observer, Pipeline, Ratio, RetryPolicy, Timeout, TokenBudget,
    Tokio, bulkhead, circuit_breaker, retry, valid,
};
use tokio::time::Instant;

/// Calls at once.
pub(crate) const PERMITS: u32 = 16;
/// Callers that wait for one of them, and for how long.
pub(crate) const QUEUE: (u32, Duration) = (64, Duration::from_millis(50));
/// Failures in a row that open the breaker.
const THRESHOLD: u32 = 5;
/// How long it stays open.
pub(crate) const OPEN_FOR: Duration = Duration::from_millis(300);
/// Good probes that close it, one at a time.
const PROBES: u32 = 2;

/// What differs between scenarios.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    /// For a call.
    pub(crate) total: Duration,
    /// For an attempt of it.
    pub(crate) attempt: Duration,
    /// Failures in a row that open the breaker.
    pub(crate) threshold: u32,
    /// What an attempt that the total timeout ends says to the breaker.
    pub(crate) abandoned: Abandoned,
}

impl Settings {
    pub(crate) const DEFAULT: Self = Self {
        total: Duration::from_millis(600),
        attempt: Duration::from_millis(150),
        threshold: THRESHOLD,
        abandoned: Abandoned::Ignored,
    };
}

/// What the breaker told, and when.
#[derive(Default)]
pub(crate) struct Log(Mutex<Vec<(Instant, Transition)>>);

impl Log {
    pub(crate) fn read(&self) -> Vec<(Instant, Transition)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Observer<Transition> for Log {
    fn observe(&self, change: &Transition) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), *change));
    }
}

type Retry = RetryPolicy<(), TokenBudget>;
type Breaker = CircuitBreaker<ConsecutiveFailures, Log>;
type In<A, B> = Stack<A, &'static B>;
/// The pipeline of a guard, which lives as long as the program.
pub(crate) type Guarded<C> = Pipeline<Tokio, In<In<In<In<In<Bare, Timeout>, Retry>, Bulkhead>, Breaker>, Timeout>, C>;

/// The policies.
pub(crate) struct Guard {
    total: Timeout,
    retry: Retry,
    pub(crate) bulkhead: Bulkhead,
    pub(crate) breaker: Breaker,
    attempt: Timeout,
}

impl Guard {
    /// Policies for the rest of the program, as a server's are, which is what a layer of tower's can hold.
    pub(crate) fn new(settings: Settings) -> Result<&'static Self, ConfigError> {
        let retry = retry::Config::new().with_backoff(Backoff::exponential(Duration::from_millis(20)));
        // A retry for ten calls, and two a second.
        let budget = TokenConfig::new().with_deposit(Ratio::percent(10)).with_minimum_per_second(2);
        let breaker = circuit_breaker::Config::new()
            .with_trip(ConsecutiveFailures::new(settings.threshold)?)
            .with_open_for(OPEN_FOR)
            .with_probes(PROBES)
            .with_probes_at_once(1)
            // So that the slowest probe can still report.
            .with_half_open_for(settings.total * 2)
            .with_abandoned(settings.abandoned);
        Ok(Box::leak(Box::new(Self {
            total: Timeout::new(settings.total),
            retry: RetryPolicy::with_budget(retry.validate()?, (), TokenBudget::new(budget.validate()?)),
            bulkhead: Bulkhead::new(valid!(bulkhead::Config::new(PERMITS).with_queue(QUEUE.0, QUEUE.1).validate())),
            breaker: CircuitBreaker::with_observer(breaker.validate()?, Log::default()),
            attempt: Timeout::new(settings.attempt),
        })))
    }

    /// All of them, with this classifier.
    pub(crate) fn pipeline<C>(&'static self, classify: C) -> Guarded<C> {
        Pipeline::new(Tokio)
            .layer(&self.total)
            .layer(&self.retry)
            .layer(&self.bulkhead)
            .layer(&self.breaker)
            .layer(&self.attempt)
            .classify(classify)
    }
}
