//! A client-side throttle: asks for a call, and records what became of it.

#![no_std]
#![no_main]

use core::hint::black_box;
use failsoft_embassy::throttle::{Config, Throttle};
use failsoft_embassy::{CriticalSection, Instant, valid};

static THROTTLE: Throttle<CriticalSection> = Throttle::new(valid!(Config::new().validate()));

fn throttled(throttle: &Throttle<CriticalSection>, now: Instant) {
    black_box(throttle.try_acquire(&now, black_box(0)).is_ok());
    throttle.record(black_box(true), &now);
}

costs::flash_image!(throttled(black_box(&THROTTLE), black_box(Instant::START)));
