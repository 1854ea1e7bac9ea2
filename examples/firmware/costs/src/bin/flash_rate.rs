//! A breaker for a rate of failures: calls through it, however they end.

#![no_std]
#![no_main]

use core::hint::black_box;

use costs::{Ending, RATE, call};
use failsoft_embassy::{CircuitBreaker, Instant, circuit_breaker::FailureRate};

static BREAKER: CircuitBreaker<FailureRate> = CircuitBreaker::new(RATE);

costs::flash_image!(black_box(call(black_box(&BREAKER), black_box(Ending::Success), black_box(Instant::START))));
