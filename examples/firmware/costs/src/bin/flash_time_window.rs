//! A breaker over a window of time, in ten steps: calls through it, however they end.

#![no_std]
#![no_main]

use core::hint::black_box;
use core::time::Duration;

use costs::{Ending, call};
use failsoft_embassy::circuit_breaker::{Config, TimeBased};
use failsoft_embassy::{CircuitBreaker, Instant, Ratio, valid};

const HALF: TimeBased<10> = valid!(TimeBased::new(Ratio::percent(50), Duration::from_secs(60)));

static BREAKER: CircuitBreaker<TimeBased<10>> = CircuitBreaker::new(valid!(Config::new().with_trip(HALF).validate()));

costs::flash_image!(black_box(call(black_box(&BREAKER), black_box(Ending::Success), black_box(Instant::START))));
