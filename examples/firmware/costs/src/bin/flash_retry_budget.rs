//! Retries on a token budget, around an operation.

#![no_std]
#![no_main]

use core::hint::black_box;
use costs::{THREE_ATTEMPTS, Tiny, operation};
use failsoft_embassy::budget::{TokenBudget, TokenConfig};
use failsoft_embassy::{CriticalSection, Pipeline, RetryPolicy, valid};

type Budget = TokenBudget<CriticalSection>;

static BUDGET: Budget = TokenBudget::new(valid!(TokenConfig::new().validate()));
static RETRY: RetryPolicy<(), &Budget> = RetryPolicy::with_budget(THREE_ATTEMPTS, (), &BUDGET);

costs::flash_image!({
    let pipeline = Pipeline::new(Tiny).layer(black_box(&RETRY));
    let _ = black_box(Tiny.run(pipeline.call(|_| operation())));
});
