use failsoft_core::bulkhead::Config;
use failsoft_tokio::Bulkhead;

failsoft_core::compartments! {
    struct Buses of Bulkhead;
    enum Bus {
        Sensors = Config::new(0),
    }
}

fn main() {
    let _ = Buses::new().get(Bus::Sensors);
}
