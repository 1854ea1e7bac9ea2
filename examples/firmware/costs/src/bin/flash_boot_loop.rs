//! Boots that are counted in retained memory, with a hold-off and a safe mode.

#![no_std]
#![no_main]

use core::hint::black_box;

use failsoft_embassy::boot_loop::{Boot, Config};
use failsoft_embassy::retained::Retained;
use failsoft_embassy::valid;

static BOOTS: Retained<u32> = Retained::new();

fn boot(boots: &'static Retained<u32>) {
    let boot = Boot::count(valid!(Config::new().validate()), boots);
    black_box(boot.hold_off());
    black_box(boot.is_safe_mode());
}

costs::flash_image!(boot(black_box(&BOOTS)));
