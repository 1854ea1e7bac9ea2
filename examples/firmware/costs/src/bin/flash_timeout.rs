//! A timeout around an operation.

#![no_std]
#![no_main]

use core::hint::black_box;
use core::time::Duration;

use costs::{Tiny, operation};
use failsoft_embassy::{Pipeline, Timeout};

static TIMEOUT: Timeout = Timeout::new(Duration::from_secs(2));

costs::flash_image!({
    let pipeline = Pipeline::new(Tiny).layer(black_box(&TIMEOUT));
    let _ = black_box(Tiny.run(pipeline.call(|_| operation())));
});
