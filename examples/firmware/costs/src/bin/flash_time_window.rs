//! A breaker over a window of time, in ten steps: calls through it, however they end.

#![no_std]
#![no_main]

use core::hint::black_box;

use costs::{Ending, TIME_WINDOW, call};
use failsoft_embassy::circuit_breaker::TimeBased;
use failsoft_embassy::{CircuitBreaker, Instant};

static BREAKER: CircuitBreaker<TimeBased<10>> = CircuitBreaker::new(TIME_WINDOW);

costs::flash_image!(black_box(call(black_box(&BREAKER), black_box(Ending::Success), black_box(Instant::START))));
