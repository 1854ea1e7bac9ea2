//! An adaptive limit that goes by the average latency of windows.

#![no_std]
#![no_main]

use core::hint::black_box;

use costs::{Tiny, operation};
use failsoft_embassy::adaptive::{Config, Gradient2, Windowed};
use failsoft_embassy::{AdaptiveLimit, Pipeline, valid};

static LIMIT: AdaptiveLimit<Windowed<Gradient2>> = AdaptiveLimit::new(valid!(
    Config::new(valid!(Windowed::new(valid!(Gradient2::new().validate())).validate())).with_limits(1, 2, 8).validate()
));

costs::flash_image!({
    let pipeline = Pipeline::new(Tiny).layer(black_box(&LIMIT));
    let _ = black_box(Tiny.run(pipeline.call(|_| operation())));
});
