//! A bulkhead: take a permit, now or not at all, and give it back.

#![no_std]
#![no_main]

use core::hint::black_box;

use costs::COMPARTMENT;
use failsoft_embassy::CriticalSection;
use failsoft_embassy::bulkhead::Bulkhead;

static BULKHEAD: Bulkhead<CriticalSection> = Bulkhead::new(COMPARTMENT);

costs::flash_image!(black_box(black_box(&BULKHEAD).try_acquire().is_ok()));
