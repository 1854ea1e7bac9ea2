//! All five patterns composed, with a bulkhead that rejects when it is full.

#![no_std]
#![no_main]

use core::hint::black_box;

use failsoft_embassy::{Bulkhead, bulkhead, valid};

static BULKHEAD: Bulkhead<0> = Bulkhead::new(valid!(bulkhead::Config::new(1).validate()));

costs::flash_image!(costs::all_five(black_box(&BULKHEAD)));
