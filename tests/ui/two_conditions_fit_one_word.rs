use core::time::Duration;
use failsoft_core::circuit_breaker::{Config, FailureMeter, FailureRate};
use failsoft_core::{Instant, Ratio, valid};
use failsoft_tokio::CircuitBreaker;

static BREAKER: CircuitBreaker<(FailureRate, FailureMeter)> = CircuitBreaker::new(valid!(
    Config::new()
        .with_trip((
            valid!(FailureRate::new(Ratio::percent(50), 20)),
            valid!(FailureMeter::new(3, Duration::from_secs(1))),
        ))
        .validate()
));

fn main() {
    let _ = BREAKER.try_acquire(Instant::START);
}
