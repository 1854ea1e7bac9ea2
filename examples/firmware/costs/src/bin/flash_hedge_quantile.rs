//! A hedge after a quantile of the latencies, around an operation.

#![no_std]
#![no_main]

use core::hint::black_box;
use core::time::Duration;

use costs::{Tiny, operation};
use failsoft_embassy::hedge::{Idempotent, Quantile};
use failsoft_embassy::{Hedge, Pipeline, Ratio, valid};

static HEDGE: Hedge<1, Quantile> =
    Hedge::new(valid!(Quantile::new(Ratio::percent(95), Duration::from_millis(50)).validate()), Idempotent);

costs::flash_image!({
    let pipeline = Pipeline::new(Tiny).layer(black_box(&HEDGE));
    let _ = black_box(Tiny.run(pipeline.call(|_| operation())));
});
