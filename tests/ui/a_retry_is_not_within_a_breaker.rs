//! An order that defeats itself, found through other layers too.

use core::time::Duration;

use failsoft_core::cell::Local;
use failsoft_core::circuit_breaker::{self, CircuitBreaker};
use failsoft_core::retry::{self, RetryPolicy};
use failsoft_core::testing::VirtualExecutor;
use failsoft_core::timeout::Timeout;
use failsoft_core::{Pipeline, valid};

fn main() {
    let executor = VirtualExecutor::new();
    let breaker = CircuitBreaker::<Local>::new(valid!(circuit_breaker::Config::new().validate()));
    let _ = Pipeline::new(&executor)
        .layer(&breaker)
        .layer(Timeout::new(Duration::from_secs(1)))
        .layer(RetryPolicy::new(valid!(retry::Config::new().validate())));
}
