use core::time::Duration;
use failsoft_core::backoff::Backoff;
use failsoft_core::circuit_breaker::{ConsecutiveFailures, FailureMeter, FailureRate};
use failsoft_core::{Instant, Ratio, bulkhead, circuit_breaker, retry, valid};
use failsoft_tokio::{Bulkhead, CircuitBreaker, LockedCircuitBreaker, RetryPolicy};

static RETRY: RetryPolicy = RetryPolicy::new(valid!(
    retry::Config::new().with_backoff(Backoff::constant(Duration::from_secs(2)).with_cap(Duration::from_secs(2))).validate()
));
static BUS: Bulkhead = Bulkhead::new(valid!(bulkhead::Config::new(1).validate()));
static RATE: CircuitBreaker<FailureRate> = CircuitBreaker::new(valid!(
    circuit_breaker::Config::new().with_trip(valid!(FailureRate::new(Ratio::percent(100), 47))).validate()
));
static LOCKED: LockedCircuitBreaker<(FailureRate, FailureMeter)> = LockedCircuitBreaker::new(valid!(
    circuit_breaker::Config::new()
        .with_trip((
            valid!(FailureRate::new(Ratio::percent(50), 47)),
            valid!(FailureMeter::new(3, Duration::from_secs(1))),
        ))
        .with_trials(255, 255)
        .validate()
));
static PAIR: CircuitBreaker<(ConsecutiveFailures, ConsecutiveFailures)> = CircuitBreaker::new(valid!(
    circuit_breaker::Config::new().with_trip((ConsecutiveFailures::DEFAULT, ConsecutiveFailures::DEFAULT)).validate()
));

failsoft_core::compartments! {
    struct Buses of Bulkhead;
    enum Bus {
        Sensors = bulkhead::Config::new(2),
        Display = bulkhead::Config::new(1),
    }
}
static BUSES: Buses = Buses::new();

fn main() {
    let _ = &RETRY;
    RATE.try_acquire(Instant::START).unwrap().success();
    LOCKED.try_acquire(Instant::START).unwrap().failure();
    PAIR.try_acquire(Instant::START).unwrap().ignore();
    assert!(BUS.try_acquire().is_ok());
    assert!(BUSES.get(Bus::Sensors).try_acquire().is_ok());
    assert!(BUSES.get(Bus::Display).try_acquire().is_ok());
}
