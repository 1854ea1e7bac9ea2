//! What a retry decides: whether there is another attempt, and when.

#![no_std]
#![no_main]

use core::hint::black_box;
use core::time::Duration;

use costs::THREE_ATTEMPTS;
use failsoft_embassy::{Instant, RetryPolicy, Verdict};

static RETRY: RetryPolicy = RetryPolicy::new(THREE_ATTEMPTS);

costs::flash_image!(black_box(black_box(&RETRY).decide(
    black_box(1),
    black_box(Verdict::TRANSIENT),
    black_box(Duration::ZERO),
    black_box(2),
    black_box(Instant::START),
    black_box(Instant::MAX),
)));
