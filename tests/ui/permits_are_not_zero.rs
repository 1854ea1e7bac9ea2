use failsoft_core::bulkhead::Config;
use failsoft_core::{Valid, valid};

const NONE: Valid<Config> = valid!(Config::new(0).validate());

fn main() {}
