use failsoft_core::retry::{Config, RetryPolicy};
use failsoft_core::valid;

static RETRY: RetryPolicy = RetryPolicy::new(valid!(Config::new().with_max_attempts(0).validate()));

fn main() {}
