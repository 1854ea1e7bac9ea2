//! An adaptive rate: ask for a turn, and report the answer.

#![no_std]
#![no_main]

use core::hint::black_box;

use failsoft_embassy::adaptive_rate::Config;
use failsoft_embassy::{AdaptiveRate, Instant, valid};

static LIMITER: AdaptiveRate = AdaptiveRate::new(valid!(Config::new().validate()));

fn adapt(limiter: &'static AdaptiveRate, now: Instant) {
    black_box(limiter.try_acquire(&now).is_ok());
    limiter.record(black_box(false), &now);
}

costs::flash_image!(adapt(black_box(&LIMITER), black_box(Instant::START)));
