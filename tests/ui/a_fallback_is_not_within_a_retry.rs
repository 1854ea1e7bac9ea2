//! An order that defeats itself: whatever fails, the fallback has answered before the retry hears of it.

use failsoft_core::fallback::Fallback;
use failsoft_core::retry::{Config, RetryPolicy};
use failsoft_core::testing::VirtualExecutor;
use failsoft_core::{Failure, Pipeline, valid};

fn main() {
    let executor = VirtualExecutor::new();
    let _ = Pipeline::new(&executor)
        .layer(RetryPolicy::new(valid!(Config::new().validate())))
        .layer(Fallback::new(|_: Failure<()>| Ok(20)));
}
