//! What subjects take in memory, and what their calls allocate. Exact: the allocator counts.

use core::hint::black_box;

use allocation_counter::measure;

const INSTANCES: u32 = 1_000;
const CALLS: u32 = 10_000;

pub(crate) struct Weight {
    in_place: usize,
    heap: f64,
    allocations: f64,
    allocations_a_call: f64,
    bytes_a_call: f64,
}

impl Weight {
    pub(crate) fn of<S>(make: impl Fn() -> S, call: impl Fn(&mut S) -> bool) -> Self {
        // What is set up once for all is none's.
        let mut one = make();
        let mut all = Vec::with_capacity(INSTANCES as usize);
        let made = measure(|| all.extend((0..INSTANCES).map(|_| make())));
        drop(all);
        let mut calls = || {
            for _ in 0..CALLS {
                black_box(call(&mut one));
            }
        };
        calls();
        let called = measure(calls);
        let share = |total: u64, of: u32| total as f64 / f64::from(of);
        let kept = |total: i64| share(u64::try_from(total).unwrap_or(0), INSTANCES);
        Self {
            in_place: size_of::<S>(),
            heap: kept(made.bytes_current),
            allocations: kept(made.count_current),
            allocations_a_call: share(called.count_total, CALLS),
            bytes_a_call: share(called.bytes_total, CALLS),
        }
    }

    pub(crate) fn cells(&self) -> [String; 5] {
        [
            self.in_place.to_string(),
            figure(self.heap),
            figure(self.allocations),
            figure(self.allocations_a_call),
            figure(self.bytes_a_call),
        ]
    }
}

/// Whole numbers as such.
fn figure(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value}") } else { format!("{value:.1}") }
}
