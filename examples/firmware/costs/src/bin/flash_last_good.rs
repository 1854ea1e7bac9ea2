//! The last good value: remembered, and served while it is not too old.

#![no_std]
#![no_main]

use core::hint::black_box;
use core::time::Duration;

use failsoft_embassy::last_good::Config;
use failsoft_embassy::{Instant, LastGood, Valid, valid};

const UP_TO_A_MINUTE: Valid<Config> =
    valid!(Config::new().with_fresh_for(Duration::from_secs(5)).with_max_age(Duration::from_secs(60)).validate());

static READING: LastGood<u32> = LastGood::new(UP_TO_A_MINUTE);

fn bridge(reading: &'static LastGood<u32>, now: Instant) {
    reading.remember(&black_box(21), &now);
    black_box(reading.get(&black_box(now)));
}

costs::flash_image!(bridge(black_box(&READING), black_box(Instant::START)));
