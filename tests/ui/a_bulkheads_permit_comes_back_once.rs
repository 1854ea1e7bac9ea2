use failsoft_core::bulkhead::Config;
use failsoft_core::valid;
use failsoft_tokio::Bulkhead;

static BULKHEAD: Bulkhead = Bulkhead::new(valid!(Config::new(1).validate()));

fn main() {
    let permit = BULKHEAD.try_acquire().unwrap();
    drop(permit);
    drop(permit);
}
