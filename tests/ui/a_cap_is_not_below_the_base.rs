use core::time::Duration;
use failsoft_core::backoff::Backoff;
use failsoft_core::retry::Config;
use failsoft_core::{Valid, valid};

const BACKOFF: Backoff = Backoff::exponential(Duration::from_secs(2)).with_cap(Duration::from_secs(1));
const CONFIG: Valid<Config> = valid!(Config::new().with_backoff(BACKOFF).validate());

fn main() {}
