//! Six words in retained memory.

#![no_std]
#![no_main]

use core::hint::black_box;

use failsoft_embassy::retained::Retained;

type State = (u32, u64, [u32; 3]);

static STATE: Retained<State> = Retained::new();

fn keep(state: &'static Retained<State>) {
    state.store(black_box((1, 2, [3; 3])));
    black_box(state.load());
}

costs::flash_image!(keep(black_box(&STATE)));
