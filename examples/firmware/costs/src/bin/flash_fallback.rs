//! A fallback around an operation.

#![no_std]
#![no_main]

use core::hint::black_box;
use costs::{Tiny, operation};
use failsoft_embassy::{Failure, Fallback, Pipeline};

costs::flash_image!({
    let instead = Fallback::new(|failure: Failure<u32>| if black_box(true) { Ok(7) } else { Err(failure) });
    let pipeline = Pipeline::new(Tiny).layer(instead);
    let _ = black_box(Tiny.run(pipeline.call(|_| operation())));
});
