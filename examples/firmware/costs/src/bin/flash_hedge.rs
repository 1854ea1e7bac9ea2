//! A hedge after a fixed delay, around an operation.

#![no_std]
#![no_main]

use core::hint::black_box;
use core::time::Duration;

use costs::{Tiny, operation};
use failsoft_embassy::hedge::{FixedDelay, Idempotent};
use failsoft_embassy::{Hedge, Pipeline};

static HEDGE: Hedge = Hedge::new(FixedDelay::new(Duration::from_millis(50)), Idempotent);

costs::flash_image!({
    let pipeline = Pipeline::new(Tiny).layer(black_box(&HEDGE));
    let _ = black_box(Tiny.run(pipeline.call(|_| operation())));
});
