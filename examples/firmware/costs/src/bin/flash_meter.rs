//! A breaker with a failure meter: calls through it, however they end.

#![no_std]
#![no_main]

use core::hint::black_box;

use costs::{Ending, METER, call};
use failsoft_embassy::{CircuitBreaker, Instant, circuit_breaker::FailureMeter};

static BREAKER: CircuitBreaker<FailureMeter> = CircuitBreaker::new(METER);

costs::flash_image!(black_box(call(black_box(&BREAKER), black_box(Ending::Success), black_box(Instant::START))));
