//! Longer scripts than loom could go through: several threads with many calls each, drawn by chance.

use core::pin::pin;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;

use failsoft_tokio::circuit_breaker::{self, ConsecutiveFailures, StateKind};
use failsoft_tokio::{Bulkhead, CircuitBreaker, Clock, Instant, bulkhead, valid};
use shuttle::rand::{Rng, thread_rng};

use crate::model::{Inside, Log, Still, block_on, check, poll_once, thread};

const THREADS: usize = 4;
const CALLS: usize = 8;

fn in_threads<S: Send + Sync + 'static>(shared: &Arc<S>, work: fn(&S)) {
    let work = |shared: Arc<S>| thread::spawn(move || (0..CALLS).for_each(|_| work(&shared)));
    let threads: Vec<_> = (0..THREADS).map(|_| work(shared.clone())).collect();
    for thread in threads {
        thread.join().expect("it doesn't panic");
    }
}

/// A clock that somebody turns on with every look at it.
#[derive(Default)]
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

#[test]
fn a_breaker_under_a_storm_tells_of_each_change_once_and_recovers() {
    type Shared = (CircuitBreaker<ConsecutiveFailures, &'static Log>, Ticking, &'static Log);
    fn call((breaker, clock, _): &Shared) {
        let Ok(permit) = breaker.try_acquire(clock) else { return };
        match thread_rng().gen_range(0..4) {
            0 => permit.success(),
            1 | 2 => permit.failure(),
            _ => drop(permit),
        }
    }
    check("breaker, a storm", || {
        let log: &'static Log = Box::leak(Box::default());
        let config = circuit_breaker::Config::new()
            .with_trip(valid!(ConsecutiveFailures::new(2)))
            .with_open_for(Duration::from_nanos(10))
            .with_trials(2, 2)
            .validate()
            .expect("it makes sense");
        let breaker = CircuitBreaker::with_observer(config, log);
        let shared: Arc<Shared> = Arc::new((breaker, Ticking::default(), log));
        in_threads(&shared, call);
        let (breaker, clock, log) = &*shared;
        assert_eq!(log.path().last(), Some(&breaker.state()));
        // Whatever it went through, two good calls in a row close it, once it lets them in.
        for _ in 0..100 {
            if let Ok(permit) = breaker.try_acquire(clock) {
                permit.success();
            }
        }
        assert_eq!(breaker.state(), StateKind::Closed);
        assert_eq!(breaker.snapshot(clock).probes, 0);
    });
}

#[test]
fn a_bulkhead_under_a_storm_never_holds_too_many_and_forgets_nobody() {
    const PERMITS: u32 = 2;
    fn call((bulkhead, inside): &(Bulkhead, Inside)) {
        match thread_rng().gen_range(0..4) {
            0 => drop(poll_once(pin!(bulkhead.acquire(1, Still)))),
            1 => drop(bulkhead.try_acquire_many(PERMITS)),
            _ => {
                let permit = block_on(bulkhead.acquire(1, Still)).expect("there is room for all threads");
                inside.enter(PERMITS as usize);
                thread::yield_now();
                inside.leave();
                drop(permit);
            }
        }
    }
    check("bulkhead, a storm", || {
        let config = bulkhead::Config::new(PERMITS).with_queue(8, Duration::MAX).validate().expect("it makes sense");
        let shared = Arc::new((Bulkhead::new(config), Inside::default()));
        in_threads(&shared, call);
        let now = shared.0.snapshot();
        assert_eq!((now.in_use, now.queued), (0, 0));
    });
}
