//! A breaker over a window of 64 calls: calls through it, however they end.

#![no_std]
#![no_main]

use core::hint::black_box;

use costs::{COUNT_WINDOW, Ending, call};
use failsoft_embassy::circuit_breaker::CountBased;
use failsoft_embassy::{CircuitBreaker, Instant};

static BREAKER: CircuitBreaker<CountBased<2>> = CircuitBreaker::new(COUNT_WINDOW);

costs::flash_image!(black_box(call(black_box(&BREAKER), black_box(Ending::Success), black_box(Instant::START))));
