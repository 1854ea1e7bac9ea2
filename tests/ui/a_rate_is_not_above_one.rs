use failsoft_core::circuit_breaker::FailureRate;
use failsoft_core::{Ratio, valid};

const RATE: FailureRate = valid!(FailureRate::new(Ratio::percent(101), 20));

fn main() {}
