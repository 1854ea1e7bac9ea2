//! Adaptive limits shared by threads: nothing leaks, the limit in force is the one that was learned, and each change is told once.

use core::sync::atomic::{AtomicI64, Ordering};
use core::time::Duration;
use std::thread;

use failsoft_tokio::adaptive::{Aimd, Config, Gradient, Gradient2, LimitChange, Windowed};
use failsoft_tokio::bulkhead::Priority;
use failsoft_tokio::{AdaptiveLimit, Pipeline, Ratio, Rng, Tokio, valid};

const ROUNDS: u32 = 20_000;

#[test]
fn threads_that_change_the_limit_at_once_leave_the_latest_in_force() {
    static SUM: AtomicI64 = AtomicI64::new(0);
    fn told(change: &LimitChange) {
        SUM.fetch_add(i64::from(change.to) - i64::from(change.from), Ordering::Relaxed);
    }
    let aimd = Aimd::new().with_backoff(Ratio::percent(80)).validate().expect("valid");
    let config = Config::new(aimd).with_limits(2, 20, 400).validate().expect("valid");
    let limit: AdaptiveLimit<Aimd, fn(&LimitChange)> = AdaptiveLimit::with_observer(config, told);
    thread::scope(|scope| {
        for seed in 0..4 {
            let limit = &limit;
            scope.spawn(move || {
                let mut rng = Rng::new(seed);
                let mut held = Vec::new();
                for _ in 0..ROUNDS {
                    let priority = if rng.next().is_multiple_of(4) { Priority::LOW } else { Priority::CRITICAL };
                    held.extend(limit.try_acquire_at(priority, &Tokio));
                    let ends = held.len() > 40 || rng.next().is_multiple_of(3);
                    let Some(permit) = held.pop_if(|_| ends) else { continue };
                    match rng.next() % 20 {
                        0 => permit.dropped(),
                        1 => permit.ignore(),
                        2 => drop(permit),
                        _ => permit.success(),
                    }
                }
            });
        }
    });
    let snapshot = limit.snapshot();
    assert_eq!(snapshot.in_use, 0);
    assert_eq!(snapshot.permits, limit.limit());
    assert_eq!(i64::from(limit.limit()) - 20, SUM.load(Ordering::Relaxed), "every change was told, and told once");
    assert!(snapshot.high_water <= 400);
}

#[tokio::test(start_paused = true)]
async fn a_limit_in_a_pipeline_follows_the_latencies_of_its_calls() {
    static LIMIT: AdaptiveLimit<Windowed<Gradient2>> = AdaptiveLimit::new(valid!(
        Config::new(valid!(
            Windowed::new(valid!(Gradient2::new().validate())).with_window(Duration::ZERO, Duration::ZERO).validate()
        ))
        .with_limits(2, 10, 50)
        .with_queue(1_000, Duration::from_secs(3_600))
        .validate()
    ));
    let run = async |latency: u64| {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..400 {
            calls.spawn(async move {
                let work = async |_| {
                    tokio::time::sleep(Duration::from_millis(latency)).await;
                    Ok::<_, ()>(())
                };
                Pipeline::new(Tokio).layer(&LIMIT).call(work).await
            });
        }
        assert!(calls.join_all().await.iter().all(Result::is_ok));
        LIMIT.limit()
    };
    let well = run(10).await;
    assert!(well > 20, "{well}");
    let ill = run(200).await;
    assert!(ill < well, "{ill}, after {well}");
    assert_eq!((LIMIT.snapshot().in_use, LIMIT.snapshot().queued), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_aborted_give_their_places_back() {
    static LIMIT: AdaptiveLimit<Gradient> = AdaptiveLimit::new(valid!(
        Config::new(valid!(Gradient::new(7).validate())).with_queue(64, Duration::from_secs(60)).validate()
    ));
    let mut rng = Rng::new(11);
    let mut calls = Vec::new();
    for _ in 0..500 {
        let (millis, aborted) = (u64::from(rng.next() % 50), rng.next().is_multiple_of(2));
        let call = tokio::spawn(async move {
            let work = async |_| {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                if millis.is_multiple_of(7) { Err("failed") } else { Ok(()) }
            };
            let _ = Pipeline::new(Tokio).layer(&LIMIT).call(work).await;
        });
        tokio::time::sleep(Duration::from_millis(u64::from(rng.next() % 3))).await;
        if aborted {
            call.abort();
        }
        calls.push(call);
    }
    for call in calls {
        let _ = call.await;
    }
    let snapshot = LIMIT.snapshot();
    assert_eq!((snapshot.in_use, snapshot.queued, snapshot.permits), (0, 0, LIMIT.limit()));
}
