//! A rate limiter: one more call, now or not at all.

#![no_std]
#![no_main]

use core::hint::black_box;
use core::time::Duration;

use failsoft_embassy::rate_limiter::{Config, RateLimiter};
use failsoft_embassy::{CriticalSection, Instant, valid};

static LIMITER: RateLimiter<CriticalSection> =
    RateLimiter::new(valid!(Config::new(10, Duration::from_secs(1)).validate()));

costs::flash_image!(black_box(black_box(&LIMITER).try_acquire(&black_box(Instant::START)).is_ok()));
