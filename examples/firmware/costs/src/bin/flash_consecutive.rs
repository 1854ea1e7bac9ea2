//! A breaker for consecutive failures: calls through it, however they end.

#![no_std]
#![no_main]

use core::hint::black_box;

use costs::{CONSECUTIVE, Ending, call};
use failsoft_embassy::{CircuitBreaker, Instant};

static BREAKER: CircuitBreaker = CircuitBreaker::new(CONSECUTIVE);

costs::flash_image!(black_box(call(black_box(&BREAKER), black_box(Ending::Success), black_box(Instant::START))));
