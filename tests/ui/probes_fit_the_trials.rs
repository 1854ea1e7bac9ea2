use failsoft_core::circuit_breaker::Config;
use failsoft_core::{Valid, valid};

const CONFIG: Valid<Config> = valid!(Config::new().with_trials(2, 4).with_probes_at_once(5).validate());

fn main() {}
