//! Thousands of tasks that are aborted, panic, fail and hang: whatever happens, every permit comes back and the queue empties.

#![expect(clippy::unwrap_used, reason = "a test may end with a panic")]

use core::future::pending;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};

use failsoft_tokio::bulkhead::Permit;
use failsoft_tokio::circuit_breaker::{ConsecutiveFailures, StateKind};
use failsoft_tokio::pipeline::Call;
use failsoft_tokio::{
    Backoff, Bulkhead, CircuitBreaker, Failure, Jitter, Pipeline, Reason, RetryPolicy, Rng, Timeout, Tokio, bulkhead,
    circuit_breaker, retry, valid,
};
use tokio::task::yield_now;
use tokio::time::sleep;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Waits until something holds, or gives up.
async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..5_000 {
        if holds() {
            return;
        }
        sleep(ms(1)).await;
    }
    unreachable!("never happened: {what}");
}

/// What an operation does to those around it. A panic goes by the hook, which would only fill the log.
async fn misbehave(mut rng: Rng) -> Result<(), &'static str> {
    for _ in 0..rng.next() % 4 {
        yield_now().await;
    }
    match rng.next() % 8 {
        0 => resume_unwind(Box::new("the operation panics")),
        1 | 2 => Err("down"),
        3 => pending().await,
        4 => {
            sleep(Duration::from_micros(u64::from(rng.next() % 3_000))).await;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// One call of the storm.
async fn call(task: u32, policies: Arc<(Bulkhead, CircuitBreaker)>) -> Result<(), Failure<&'static str>> {
    let backoff = Backoff::constant(ms(1)).with_jitter(Jitter::Full);
    let pipeline = Pipeline::new(Tokio)
        .layer(Timeout::new(ms(30)))
        .layer(RetryPolicy::new(retry::Config::new().with_backoff(backoff).validate().unwrap()))
        .layer(&policies.0)
        .layer(&policies.1)
        .layer(Timeout::new(ms(5)));
    pipeline.call(|attempt| misbehave(Rng::new(u64::from(task) << 8 | u64::from(attempt.number())))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_storm_of_aborts_and_panics_everything_is_as_new() {
    const TASKS: u32 = 4_000;
    let bulkhead = Bulkhead::new(valid!(bulkhead::Config::new(8).with_queue(512, ms(40)).validate()));
    let breaker: CircuitBreaker = CircuitBreaker::new(valid!(
        circuit_breaker::Config::new()
            .with_trip(valid!(ConsecutiveFailures::new(3)))
            .with_open_for(ms(1))
            .with_half_open_for(ms(500))
            .with_probes(2)
            .validate()
    ));
    // Kept alive, so that they can be asked afterwards.
    let policies = Arc::new((bulkhead, breaker));
    let mut rng = Rng::new(1);
    let mut tasks = Vec::new();
    for task in 0..TASKS {
        tasks.push(tokio::spawn(call(task, policies.clone())));
        if rng.next().is_multiple_of(3) {
            // At any point of its life: just spawned, in the queue, under way, over.
            let victim = usize::try_from(rng.next()).unwrap() % tasks.len();
            tasks[victim].abort();
        }
        if rng.next().is_multiple_of(16) {
            yield_now().await;
        }
    }
    let (mut done, mut failed, mut cancelled, mut panicked) = (0, 0, 0, 0);
    for task in tasks {
        match task.await {
            Ok(Ok(())) => done += 1,
            Ok(Err(_)) => failed += 1,
            Err(error) if error.is_cancelled() => cancelled += 1,
            Err(_) => panicked += 1,
        }
    }
    let endings = [done, failed, cancelled, panicked];
    assert!(endings.iter().all(|&count| count > 0), "not every ending was met: {endings:?}");

    let (bulkhead, breaker) = &*policies;
    let snapshot = bulkhead.snapshot();
    assert_eq!((snapshot.in_use, snapshot.queued), (0, 0), "{snapshot:?}");
    assert!(snapshot.high_water <= 8, "{snapshot:?}");
    // Whatever state it is in, it still works: it lets probes through and closes.
    until("the breaker closes", || {
        if let Ok(permit) = breaker.try_acquire(Tokio) {
            permit.success();
        }
        breaker.state() == StateKind::Closed
    })
    .await;
    assert_eq!(breaker.snapshot(&Tokio).probes, 0);
    let all: Vec<_> = (0..8).map(|_| bulkhead.try_acquire().unwrap()).collect();
    assert_eq!(bulkhead.try_acquire().unwrap_err().reason(), Reason::Full);
    drop(all);
    let pipeline = Pipeline::new(Tokio).layer(bulkhead).layer(breaker);
    assert_eq!(pipeline.call(async |_| Ok::<_, &str>("usable")).await, Ok("usable"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_are_served_in_the_order_of_their_arrival() {
    const TASKS: u32 = 200;
    let bulkhead =
        Arc::new(Bulkhead::new(valid!(bulkhead::Config::new(1).with_queue(1_000, Duration::MAX).validate())));
    let served = Arc::new(Mutex::new(Vec::new()));
    let held = bulkhead.try_acquire().unwrap();
    let mut tasks = Vec::new();
    for task in 0..TASKS {
        let (shared, served) = (bulkhead.clone(), served.clone());
        tasks.push(tokio::spawn(async move {
            let permit = shared.acquire(1, Tokio).await.unwrap();
            served.lock().unwrap().push(task);
            yield_now().await;
            drop(permit);
        }));
        until("the task queues", || bulkhead.snapshot().queued == task + 1).await;
        // A newcomer that would not wait can't overtake.
        assert_eq!(bulkhead.try_acquire().unwrap_err().reason(), Reason::Full);
    }
    drop(held);
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*served.lock().unwrap(), (0..TASKS).collect::<Vec<_>>());
}

#[tokio::test]
async fn ten_thousand_wait_many_leave_and_the_rest_are_served_in_order() {
    const TASKS: u32 = 10_000;
    let bulkhead =
        Arc::new(Bulkhead::new(valid!(bulkhead::Config::new(3).with_queue(TASKS, Duration::MAX).validate())));
    let served = Arc::new(Mutex::new(Vec::new()));
    let held = bulkhead.try_acquire_many(3).unwrap();
    let mut rng = Rng::new(3);
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (bulkhead, served, weight) = (bulkhead.clone(), served.clone(), 1 + rng.next() % 3);
            tokio::spawn(async move {
                let _permit = bulkhead.acquire(weight, Tokio).await.unwrap();
                served.lock().unwrap().push(task);
                yield_now().await;
            })
        })
        .collect();
    until("all wait", || bulkhead.snapshot().queued == TASKS).await;
    assert_eq!(bulkhead.acquire(1, Tokio).await.unwrap_err().reason(), Reason::QueueFull);
    // Some leave while nothing moves, the others while the line moves.
    let mut leave = |out_of: u32, tasks: &[tokio::task::JoinHandle<()>]| {
        for task in tasks {
            if rng.next().is_multiple_of(out_of) {
                task.abort();
            }
        }
    };
    leave(2, &tasks);
    drop(held);
    for _ in 0..200 {
        yield_now().await;
    }
    leave(3, &tasks);
    let mut cancelled = 0;
    for task in tasks {
        cancelled += u32::from(task.await.is_err());
    }
    let served = core::mem::take(&mut *served.lock().unwrap());
    assert!(served.is_sorted(), "somebody overtook");
    assert!(cancelled > TASKS / 3 && !served.is_empty());
    // One may be aborted after it was served.
    assert!(u32::try_from(served.len()).unwrap() + cancelled >= TASKS);
    let snapshot = bulkhead.snapshot();
    assert_eq!((snapshot.in_use, snapshot.queued, snapshot.high_water), (0, 0, 3));
}

#[tokio::test]
async fn a_permit_moves_into_blocking_work_and_outlives_its_caller() {
    let bulkhead = Arc::new(Bulkhead::new(valid!(bulkhead::Config::new(1).validate())));
    let (finish, finished) = std::sync::mpsc::channel::<()>();
    let shared = bulkhead.clone();
    let caller = tokio::spawn(async move {
        let permit = Permit::try_acquire(shared, 1).unwrap();
        let work = tokio::task::spawn_blocking(move || {
            finished.recv().unwrap();
            drop(permit);
        });
        work.await
    });
    until("the work has its permit", || bulkhead.snapshot().in_use == 1).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    // The caller is gone and the work goes on: it still counts.
    assert_eq!(bulkhead.try_acquire().unwrap_err().reason(), Reason::Full);
    finish.send(()).unwrap();
    until("the permit comes back", || bulkhead.snapshot().in_use == 0).await;
    assert!(bulkhead.try_acquire().is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_pipeline_runs_spawned_calls() {
    let calls = Arc::new(AtomicU32::new(0));
    let pipeline = Arc::new(
        Pipeline::new(Tokio)
            .layer(Timeout::new(Duration::from_secs(10)))
            .layer(RetryPolicy::new(valid!(retry::Config::new().with_backoff(Backoff::none()).validate())))
            .layer(Bulkhead::new(valid!(bulkhead::Config::new(4).with_queue(100, Duration::from_secs(10)).validate())))
            .layer(CircuitBreaker::new(valid!(circuit_breaker::Config::new().validate()))),
    );
    let tasks: Vec<_> = (0..100)
        .map(|task| {
            let calls = calls.clone();
            tokio::spawn(Call::new(pipeline.clone(), move |attempt| {
                calls.fetch_add(1, Ordering::Relaxed);
                async move {
                    yield_now().await;
                    // Every tenth fails once: never five in a row, since they end between others that succeed.
                    if task % 10 == 0 && attempt.number() == 1 { Err("once") } else { Ok(task) }
                }
            }))
        })
        .collect();
    for (expected, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.await.unwrap(), Ok(expected));
    }
    assert_eq!(calls.load(Ordering::Relaxed), 110);
}

#[test]
fn a_runtime_dropped_with_waiters_in_the_queue_leaves_none_behind() {
    let bulkhead = Arc::new(Bulkhead::new(valid!(bulkhead::Config::new(1).with_queue(100, Duration::MAX).validate())));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let held = bulkhead.try_acquire().unwrap();
    runtime.block_on(async {
        for _ in 0..100 {
            let bulkhead = bulkhead.clone();
            tokio::spawn(async move { bulkhead.acquire(1, Tokio).await.is_ok() });
        }
        yield_now().await;
        until("all wait", || bulkhead.snapshot().queued == 100).await;
    });
    drop(runtime);
    assert_eq!(bulkhead.snapshot().queued, 0);
    drop(held);
    assert!(bulkhead.try_acquire().is_ok());
    assert_eq!(Arc::strong_count(&bulkhead), 1);
}
