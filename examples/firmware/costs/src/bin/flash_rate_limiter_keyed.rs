//! A rate limiter with a quota for each of eight keys.

#![no_std]
#![no_main]

use core::hint::black_box;
use core::time::Duration;

use failsoft_embassy::rate_limiter::{Config, KeyedRateLimiter};
use failsoft_embassy::{CriticalSection, Instant, valid};

static LIMITER: KeyedRateLimiter<CriticalSection, u8, 8> =
    KeyedRateLimiter::new(valid!(Config::new(10, Duration::from_secs(1)).validate()));

costs::flash_image!(black_box(black_box(&LIMITER).try_acquire(&black_box(3), &black_box(Instant::START)).is_ok()));
