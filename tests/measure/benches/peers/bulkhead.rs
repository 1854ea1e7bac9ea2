//! Bulkheads with room for 64: a permit is taken and comes back.

use std::sync::{Mutex, PoisonError};

use execution_policy::{ConcurrencyLimit, ExecutionPolicy, ExecutionPolicyBuilder, Retry};
use failsoft_measure::subjects::{self, work};
use tokio::sync::Semaphore;
use tower::limit::ConcurrencyLimit as TowerLimit;
use tower_resilience_bulkhead::BulkheadLayer;

use crate::floor;
use crate::harness::{Bench, answer};
use crate::service::{Backend, Why};
use crate::table::Subject;

const PERMITS: usize = 64;

const fn like(name: &'static str) -> Subject {
    Subject { name, like: "failsoft" }
}

const fn reliakit() -> reliakit_bulkhead::Bulkhead {
    reliakit_bulkhead::Bulkhead::new(PERMITS)
}

fn execution_policy() -> ExecutionPolicy<execution_policy::DefaultCore, (), Why> {
    let limit = ConcurrencyLimit::operations(PERMITS).reject();
    ExecutionPolicyBuilder::new().retry(Retry::none()).concurrency_limit(limit).build()
}

fn tower_resilience() -> tower_resilience_bulkhead::Bulkhead<Backend> {
    let layer = BulkheadLayer::builder().max_concurrent_calls(PERMITS).reject_when_full();
    tower::Layer::layer(&layer.build().expect("valid"), Backend)
}

pub(crate) fn measure(bench: &mut Bench) {
    bench.section("bulkhead, acquire and release", floor::ADD);
    bench.shared(like("failsoft"), subjects::compartment, |bulkhead| bulkhead.try_acquire().is_ok());
    let semaphore = || Semaphore::new(PERMITS);
    bench.shared(like("tokio Semaphore"), semaphore, |semaphore| semaphore.try_acquire().is_ok());
    bench.owned(like("reliakit, &mut"), reliakit, |bulkhead| {
        let admitted = bulkhead.try_acquire_one();
        // As if the caller did something in between.
        core::hint::black_box(bulkhead).release_one();
        admitted
    });
    bench.shared(
        like("reliakit, in a Mutex"),
        || Mutex::new(reliakit()),
        |bulkhead| {
            let lock = || bulkhead.lock().unwrap_or_else(PoisonError::into_inner);
            let admitted = lock().try_acquire_one();
            lock().release_one();
            admitted
        },
    );
    bench.shared(like("execution-policy"), execution_policy, |policy| {
        answer(policy.execute(async |_| work(true).map_err(|()| Why::Failed))).is_ok()
    });
    bench.service(like("tower"), || TowerLimit::new(Backend, PERMITS));
    bench.service(like("tower-resilience"), tower_resilience);
}
