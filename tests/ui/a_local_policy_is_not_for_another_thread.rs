use failsoft_core::cell::Local;
use failsoft_core::circuit_breaker::CircuitBreaker;

fn for_other_threads<T: Sync>() {}

fn main() {
    for_other_threads::<CircuitBreaker<Local>>();
}
