//! Hedges on tokio: to the millisecond on its paused clock, and thousands of tasks that are aborted, panic, fail and hang.

#![expect(clippy::unwrap_used, reason = "a test may end with a panic")]

use core::future::pending;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};

use failsoft_tokio::circuit_breaker::{ConsecutiveFailures, StateKind};
use failsoft_tokio::hedge::{FixedDelay, Hedged, Quantile};
use failsoft_tokio::pipeline::{Attempt, Call};
use failsoft_tokio::{
    Bulkhead, CircuitBreaker, Hedge, Idempotent, Pipeline, Ratio, Rng, Timeout, Tokio, bulkhead, circuit_breaker, valid,
};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

static STATIC: Hedge<3, Quantile> =
    Hedge::new(valid!(Quantile::new(Ratio::percent(95), ms(20)).validate()), Idempotent);

#[tokio::test(start_paused = true)]
async fn a_slow_replica_is_hedged_and_the_faster_one_answers() {
    let (start, asked) = (Instant::now(), Mutex::new(Vec::new()));
    let events = Mutex::new(Vec::new());
    let note = |event: &Hedged| events.lock().unwrap().push(*event);
    let hedge: Hedge<2, _, _> = Hedge::with_observer(FixedDelay::new(ms(50)), Idempotent, note);
    let pipeline = Pipeline::new(Tokio).layer(Timeout::new(ms(1_000))).layer(&hedge);
    let answer = pipeline.call(async |attempt| {
        asked.lock().unwrap().push((attempt.hedge(), start.elapsed()));
        sleep([ms(700), ms(400), ms(8)][attempt.hedge() as usize]).await;
        Ok::<_, &str>(attempt.hedge())
    });
    assert_eq!(answer.await, Ok(2));
    assert_eq!(start.elapsed(), ms(108));
    assert_eq!(*asked.lock().unwrap(), [(0, ms(0)), (1, ms(50)), (2, ms(100))]);
    let [one, two] = [1, 2].map(|hedge| Hedged::Started { hedge, attempt: 1 });
    assert_eq!(*events.lock().unwrap(), [one, two, Hedged::Won { hedge: 2, attempt: 1 }]);
}

#[tokio::test(start_paused = true)]
async fn a_storm_in_paused_time_leaves_nothing_behind() {
    const TASKS: u32 = 2_000;
    let bulkhead = Arc::new(Bulkhead::new(valid!(bulkhead::Config::new(64).with_queue(256, ms(40)).validate())));
    let tries = Arc::new(AtomicU32::new(0));
    let mut rng = Rng::new(2);
    let mut tasks = Vec::new();
    for task in 0..TASKS {
        let (bulkhead, tries) = (bulkhead.clone(), tries.clone());
        tasks.push(tokio::spawn(async move {
            let pipeline = Pipeline::new(Tokio).layer(Timeout::new(ms(200))).layer(&STATIC).layer(&*bulkhead);
            let call = pipeline.call(|attempt| {
                tries.fetch_add(1, Ordering::Relaxed);
                misbehave(Rng::new(u64::from(task) << 8 | u64::from(attempt.hedge())))
            });
            call.await.is_ok()
        }));
        if rng.next().is_multiple_of(4) {
            tasks[usize::try_from(rng.next()).unwrap() % tasks.len()].abort();
        }
        if rng.next().is_multiple_of(8) {
            sleep(ms(u64::from(rng.next() % 4))).await;
        }
    }
    let mut done = 0;
    for task in tasks {
        done += u32::from(task.await.unwrap_or(false));
    }
    assert!(done > TASKS / 2, "{done} of {TASKS}");
    assert!(tries.load(Ordering::Relaxed) > TASKS, "somebody was hedged");
    let snapshot = bulkhead.snapshot();
    assert_eq!((snapshot.in_use, snapshot.queued), (0, 0), "{snapshot:?}");
}

/// What an operation does to those around it. A panic goes by the hook, which would only fill the log.
async fn misbehave(mut rng: Rng) -> Result<(), &'static str> {
    for _ in 0..rng.next() % 4 {
        yield_now().await;
    }
    match rng.next() % 16 {
        0 => resume_unwind(Box::new("the operation panics")),
        1 | 2 => Err("down"),
        3 => pending().await,
        4 | 5 => {
            sleep(ms(u64::from(rng.next() % 90))).await;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// One call of the storm on several threads.
type Storm = (Bulkhead, CircuitBreaker, Hedge<2, Quantile>);

async fn call(task: u32, policies: Arc<Storm>) -> bool {
    let (bulkhead, breaker, hedge) = &*policies;
    let pipeline = Pipeline::new(Tokio)
        .layer(Timeout::new(ms(30)))
        .layer(hedge)
        .layer(bulkhead)
        .layer(breaker)
        .layer(Timeout::new(ms(9)));
    let operation = |attempt: Attempt| misbehave(Rng::new(u64::from(task) << 8 | u64::from(attempt.hedge())));
    pipeline.call(operation).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_storm_of_aborts_and_panics_everything_is_as_new() {
    const TASKS: u32 = 4_000;
    let quantile = Quantile::new(Ratio::percent(80), ms(2));
    let policies = Arc::new((
        Bulkhead::new(valid!(bulkhead::Config::new(16).with_queue(512, ms(20)).validate())),
        CircuitBreaker::new(valid!(
            circuit_breaker::Config::new()
                .with_trip(valid!(ConsecutiveFailures::new(4)))
                .with_open_for(ms(1))
                .with_half_open_for(ms(500))
                .with_probes(2)
                .validate()
        )),
        Hedge::new(quantile.validate().unwrap(), Idempotent),
    ));
    let mut rng = Rng::new(1);
    let mut tasks = Vec::new();
    for task in 0..TASKS {
        tasks.push(tokio::spawn(call(task, policies.clone())));
        if rng.next().is_multiple_of(3) {
            tasks[usize::try_from(rng.next()).unwrap() % tasks.len()].abort();
        }
        if rng.next().is_multiple_of(16) {
            yield_now().await;
        }
    }
    let (mut done, mut cancelled, mut panicked) = (0, 0, 0);
    for task in tasks {
        match task.await {
            Ok(good) => done += u32::from(good),
            Err(error) if error.is_cancelled() => cancelled += 1,
            Err(_) => panicked += 1,
        }
    }
    assert!([done, cancelled, panicked].iter().all(|&count| count > 0), "{done}, {cancelled}, {panicked}");
    let (bulkhead, breaker, _) = &*policies;
    let snapshot = bulkhead.snapshot();
    assert_eq!((snapshot.in_use, snapshot.queued), (0, 0), "{snapshot:?}");
    assert!(snapshot.high_water <= 16, "{snapshot:?}");
    // Whatever state it is in, it still works: it lets probes through and closes.
    for _ in 0..5_000 {
        if let Ok(permit) = breaker.try_acquire(Tokio) {
            permit.success();
        }
        if breaker.state() == StateKind::Closed {
            break;
        }
        sleep(ms(1)).await;
    }
    assert_eq!((breaker.state(), breaker.snapshot(&Tokio).probes), (StateKind::Closed, 0));
}

#[test]
fn a_call_with_a_hedge_may_be_sent() {
    fn is_send<T: Send>(_: &T) {}
    let pipeline = Arc::new(Pipeline::new(Tokio).layer(&STATIC));
    is_send(&Call::new(pipeline, |_| async { Ok::<_, String>(1) }));
}
