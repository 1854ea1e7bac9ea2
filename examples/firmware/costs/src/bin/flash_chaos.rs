//! Chaos: faults injected into an operation.

#![no_std]
#![no_main]

use core::hint::black_box;

use costs::{Tiny, operation};
use failsoft_embassy::chaos::{Config, Fault, Hit};
use failsoft_embassy::{Chaos, Pipeline, valid};

static CHAOS: Chaos<Fault<fn(Hit) -> u32>> = Chaos::new(valid!(Config::new(1).validate()), Fault::new(|hit| hit.call));

costs::flash_image!({
    let pipeline = Pipeline::new(Tiny).layer(black_box(&CHAOS));
    let _ = black_box(Tiny.run(pipeline.call(|_| operation())));
});
