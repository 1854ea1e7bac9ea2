use failsoft_core::circuit_breaker::Config;
use failsoft_core::{Valid, valid};

const CONFIG: Valid<Config> = valid!(Config::new().with_probes(256).validate());

fn main() {}
