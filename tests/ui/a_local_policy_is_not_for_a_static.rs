use failsoft_core::cell::Local;
use failsoft_core::circuit_breaker::{CircuitBreaker, Config};
use failsoft_core::valid;

static BREAKER: CircuitBreaker<Local> = CircuitBreaker::new(valid!(Config::new().validate()));

fn main() {}
