//! A part of the standard pipeline that is none of its kind.

use core::time::Duration;

use failsoft_core::pipeline::Standard;
use failsoft_core::timeout::Timeout;

fn main() {
    let _ = Standard::new().with_breaker(Timeout::new(Duration::from_secs(1)));
}
