//! A breaker over a window of 64 calls: calls through it, however they end.

#![no_std]
#![no_main]

use core::hint::black_box;
use costs::{Ending, call};
use failsoft_embassy::circuit_breaker::{Config, CountBased};
use failsoft_embassy::{CircuitBreaker, Instant, Ratio, valid};

const HALF: CountBased<2> = valid!(CountBased::new(Ratio::percent(50), 64));

static BREAKER: CircuitBreaker<CountBased<2>> = CircuitBreaker::new(valid!(Config::new().with_trip(HALF).validate()));

costs::flash_image!(black_box(call(black_box(&BREAKER), black_box(Ending::Success), black_box(Instant::START))));
