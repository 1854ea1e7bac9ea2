//! An adaptive limit that goes by what is dropped.

#![no_std]
#![no_main]

use core::hint::black_box;

use costs::{Tiny, operation};
use failsoft_embassy::adaptive::{Aimd, Config};
use failsoft_embassy::{AdaptiveLimit, Pipeline, valid};

static LIMIT: AdaptiveLimit<Aimd> =
    AdaptiveLimit::new(valid!(Config::new(valid!(Aimd::new().validate())).with_limits(1, 2, 8).validate()));

costs::flash_image!({
    let pipeline = Pipeline::new(Tiny).layer(black_box(&LIMIT));
    let _ = black_box(Tiny.run(pipeline.call(|_| operation())));
});
