//! All five patterns composed, with a bulkhead in which callers wait for each other.

#![no_std]
#![no_main]

use core::hint::black_box;
use core::time::Duration;

use failsoft_embassy::{Bulkhead, bulkhead, valid};

static BULKHEAD: Bulkhead =
    Bulkhead::new(valid!(bulkhead::Config::new(1).with_queue(4, Duration::from_millis(200)).validate()));

costs::flash_image!(costs::all_five(black_box(&BULKHEAD)));
