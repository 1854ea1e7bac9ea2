use failsoft_core::Instant;
use failsoft_core::circuit_breaker::Config;
use failsoft_core::valid;
use failsoft_tokio::CircuitBreaker;

static BREAKER: CircuitBreaker = CircuitBreaker::new(valid!(Config::new().validate()));

fn main() {
    let permit = BREAKER.try_acquire(Instant::START).unwrap();
    permit.success();
    permit.failure();
}
