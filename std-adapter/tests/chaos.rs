//! Chaos on a server: threads that share a plan without a lock, and latencies on tokio's paused clock.

#![expect(clippy::unwrap_used, reason = "a test may end with a panic")]

use core::time::Duration;
use std::sync::Mutex;
use std::thread;

use failsoft_tokio::chaos::{Config, Fault, Injected, Kind, Latency, Plan};
use failsoft_tokio::{Atomic, Chaos, Locked, Pipeline, Ratio, Timeout, Tokio, cell::CellKind, chaos, valid};
use tokio::time::Instant;

const SEED: u64 = 0x5EED;

/// The calls that are hit when four threads make five thousand each, and the rate and the switch are set all the while.
fn hit_by_threads<K>() -> Vec<u32>
where
    K: CellKind<chaos::Progress>,
    K::Cell: Sync,
{
    let config = Config::new(SEED).with_rate(Ratio::percent(20)).validate().unwrap();
    let chaos = chaos::Chaos::<K, _>::new(config, Fault::new(|_| ()));
    let call = || (0..5_000).filter_map(|_| chaos.next_call()).map(|hit| hit.call).collect::<Vec<_>>();
    let mut hit: Vec<_> = thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..5_000 {
                chaos.set_rate(Ratio::percent(20)).unwrap();
                chaos.set_enabled(true);
            }
        });
        let threads = [(); 4].map(|()| scope.spawn(call));
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(chaos.calls(), 20_000);
    hit.sort_unstable();
    hit
}

#[test]
fn threads_together_go_by_the_plan_and_each_number_is_given_once() {
    let plan: Vec<_> = (1..=20_000).filter(|&call| Plan::new(SEED).hit(call, Ratio::percent(20)).is_some()).collect();
    assert!(hit_by_threads::<Atomic>() == plan, "atomic words");
    assert!(hit_by_threads::<Locked>() == plan, "mutex");
}

static EVENTS: Mutex<Vec<Injected>> = Mutex::new(Vec::new());

fn note(event: &Injected) {
    EVENTS.lock().unwrap().push(*event);
}

static SLOW: Chaos<Latency, fn(&Injected)> = Chaos::with_observer(
    valid!(Config::new(SEED).with_rate(Ratio::ONE).with_enabled(false).validate()),
    Latency::new(Duration::from_millis(300)),
    note,
);

#[tokio::test(start_paused = true)]
async fn a_latency_is_switched_on_and_off_while_the_pipeline_is_in_use() {
    let start = Instant::now();
    let pipeline = Pipeline::new(Tokio).layer(Timeout::new(Duration::from_millis(200))).layer(&SLOW);
    let call = || pipeline.call(async |_| Ok::<_, ()>("well"));
    assert_eq!((call().await, start.elapsed()), (Ok("well"), Duration::ZERO));
    SLOW.set_enabled(true);
    assert!(call().await.is_err_and(|failure| failure.is_timed_out()));
    assert_eq!(start.elapsed(), Duration::from_millis(200));
    SLOW.set_enabled(false);
    assert_eq!((call().await, start.elapsed()), (Ok("well"), Duration::from_millis(200)));
    let injected = Injected { call: 1, kind: Kind::Latency(Duration::from_millis(300)) };
    assert_eq!(*EVENTS.lock().unwrap(), [injected]);
}
