//! Every policy under tokio's paused clock: what takes time takes exactly so much of it, and none really passes.

#![expect(clippy::unwrap_used, reason = "a test may end with a panic")]

use core::cell::Cell;
use core::future::pending;
use core::time::Duration;
use std::sync::Mutex;

use failsoft_tokio::circuit_breaker::{StateKind, Transition};
use failsoft_tokio::degradation::{Criticality, DegradationLevel, LevelChange, Service};
use failsoft_tokio::retry::Retrying;
use failsoft_tokio::{
    Backoff, Bulkhead, CircuitBreaker, Clock, Degradation, Failure, Fallback, FallbackTo, Jitter, Pipeline, Reason,
    RetryPolicy, Stop, Timeout, Tokio, Verdict, bulkhead, circuit_breaker, degradation, retry, valid,
};
use tokio::time::{Instant, advance, sleep};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// 100 ms, doubling, up to 1 s, without jitter.
const PLAIN: Backoff = Backoff::exponential(ms(100)).with_cap(secs(1)).with_jitter(Jitter::None);

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_ends_at_its_limit_exactly() {
    let start = Instant::now();
    let pipeline = Pipeline::new(Tokio).layer(Timeout::new(ms(1_500)));
    let failure = pipeline.call(|_| pending::<Result<(), &str>>()).await.unwrap_err();
    assert!(failure.is_timed_out());
    assert_eq!(start.elapsed(), ms(1_500));
}

#[tokio::test(start_paused = true)]
async fn at_the_limit_itself_the_operation_wins_and_a_moment_later_the_timeout() {
    let pipeline = Pipeline::new(Tokio).layer(Timeout::new(secs(1)));
    let after = async |span| {
        sleep(span).await;
        Ok::<_, &str>(7)
    };
    assert_eq!(pipeline.call(|_| after(secs(1))).await, Ok(7));
    assert!(pipeline.call(|_| after(ms(1_001))).await.unwrap_err().is_timed_out());
}

#[tokio::test(start_paused = true)]
async fn the_deadlines_extremes_are_ordinary_values() {
    let zero = Pipeline::new(Tokio).layer(Timeout::new(Duration::ZERO));
    assert!(zero.call(async |_| Ok::<_, &str>(1)).await.unwrap_err().is_timed_out());
    for endless in [Duration::MAX, secs(u64::MAX / 2_000_000_000), secs(100 * 365 * 24 * 3_600)] {
        let start = Instant::now();
        let endless = Pipeline::new(Tokio).layer(Timeout::new(endless));
        let slow = async |_| {
            sleep(secs(24 * 3_600)).await;
            Ok::<_, &str>(1)
        };
        assert_eq!(endless.call(slow).await, Ok(1));
        assert_eq!(start.elapsed(), secs(24 * 3_600));
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_ones_own_replaces_the_outermost_timeout_for_one_call() {
    let start = Instant::now();
    let pipeline = Pipeline::new(Tokio).layer(Timeout::new(secs(30))).layer(Timeout::new(secs(20)));
    let call = pipeline.call(|_| pending::<Result<(), &str>>()).with_timeout(ms(250));
    assert!(call.await.unwrap_err().is_timed_out());
    assert_eq!(start.elapsed(), ms(250));
}

#[tokio::test(start_paused = true)]
async fn retries_wait_exactly_their_delays_and_announce_each() {
    let start = Instant::now();
    let (begin, announced) = (Tokio.now(), Mutex::new(Vec::new()));
    let config = valid!(retry::Config::new().with_max_attempts(6).with_backoff(PLAIN).validate());
    let note = |event: &Retrying| {
        announced.lock().unwrap().push((event.attempt, event.at.saturating_duration_since(begin)));
    };
    let pipeline = Pipeline::new(Tokio).layer(RetryPolicy::with_observer(config, note));
    let started = Mutex::new(Vec::new());
    let failure = pipeline
        .call(async |attempt| {
            started.lock().unwrap().push((attempt.number(), start.elapsed()));
            Err::<(), _>("down")
        })
        .await
        .unwrap_err();
    assert_eq!((failure.attempts, failure.stop, failure.into_inner()), (6, Some(Stop::Attempts), Some("down")));
    let expected = [(1, ms(0)), (2, ms(100)), (3, ms(300)), (4, ms(700)), (5, ms(1_500)), (6, ms(2_500))];
    assert_eq!(*started.lock().unwrap(), expected);
    let retries: Vec<_> = expected.windows(2).map(|pair| (pair[0].0, pair[1].1)).collect();
    assert_eq!(*announced.lock().unwrap(), retries);
    assert_eq!(start.elapsed(), ms(2_500));
}

#[tokio::test(start_paused = true)]
async fn a_servers_hint_makes_a_delay_longer_but_never_shorter() {
    let config = valid!(retry::Config::new().with_max_attempts(2).with_backoff(PLAIN).validate());
    for (hint, waited) in [(ms(30), ms(100)), (secs(7), secs(7))] {
        let start = Instant::now();
        let pipeline = Pipeline::new(Tokio).layer(RetryPolicy::new(config)).classify(
            move |result: Result<&(), &&str>| match result {
                Ok(()) => Verdict::SUCCESS,
                Err(_) => Verdict::TRANSIENT.with_retry_after(hint),
            },
        );
        assert!(pipeline.call(async |_| Err("busy")).await.is_err());
        assert_eq!(start.elapsed(), waited);
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_would_outlast_the_total_time_gives_up_at_once() {
    let start = Instant::now();
    let config =
        valid!(retry::Config::new().with_max_attempts(9).with_backoff(PLAIN).with_total_time(ms(700)).validate());
    let pipeline = Pipeline::new(Tokio).layer(RetryPolicy::new(config));
    let failure = pipeline.call(async |_| Err::<(), _>("down")).await.unwrap_err();
    // At 0, 100 and 300 ms; the next would start at 700 ms, which is the end itself.
    assert_eq!((failure.attempts, failure.stop), (3, Some(Stop::Deadline)));
    assert_eq!(start.elapsed(), ms(300));
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_for_a_permit_is_served_the_instant_it_comes_free_or_rejected_when_its_wait_is_over() {
    let start = Instant::now();
    let bulkhead = Bulkhead::new(valid!(bulkhead::Config::new(1).with_queue(2, ms(300)).validate()));
    let hold = async |span| {
        let permit = bulkhead.acquire(1, Tokio).await.map_err(|rejected| (rejected.reason(), start.elapsed()))?;
        let served = start.elapsed();
        sleep(span).await;
        drop(permit);
        Ok::<_, (Reason, Duration)>(served)
    };
    let (first, second, third, fourth) =
        tokio::join!(hold(ms(200)), hold(ms(150)), hold(ms(1)), async { hold(ms(1)).await });
    assert_eq!(first, Ok(ms(0)));
    assert_eq!(second, Ok(ms(200)));
    assert_eq!(third, Err((Reason::QueueTimeout, ms(300))));
    assert_eq!(fourth, Err((Reason::QueueFull, ms(0))));
    let snapshot = bulkhead.snapshot();
    assert_eq!((snapshot.in_use, snapshot.queued, snapshot.rejected), (0, 0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_around_the_queue_counts_the_waiting_and_leaves_no_trace() {
    let start = Instant::now();
    let bulkhead = Bulkhead::new(valid!(bulkhead::Config::new(1).with_queue(8, secs(60)).validate()));
    let held = bulkhead.try_acquire().unwrap();
    let pipeline = Pipeline::new(Tokio).layer(Timeout::new(ms(250))).layer(&bulkhead);
    let call = pipeline.call(async |_| Ok::<_, &str>(()));
    assert!(call.await.unwrap_err().is_timed_out());
    assert_eq!(start.elapsed(), ms(250));
    assert_eq!(bulkhead.snapshot().queued, 0);
    drop(held);
    assert!(pipeline.call(async |_| Ok::<_, &str>(())).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_breaker_stays_open_for_exactly_its_period() {
    let events = Mutex::new(Vec::new());
    let config = valid!(circuit_breaker::Config::new().with_open_for(secs(30)).with_probes(1).validate());
    let breaker: CircuitBreaker<_, _> =
        CircuitBreaker::with_observer(config, |event: &Transition| events.lock().unwrap().push(*event));
    let pipeline = Pipeline::new(Tokio).layer(&breaker);
    for _ in 0..5 {
        assert!(pipeline.call(async |_| Err::<(), _>("down")).await.is_err());
    }
    let opened = Tokio.now();
    let rejected = pipeline.call(async |_| Ok::<_, &str>(())).await.unwrap_err().rejected().unwrap();
    assert_eq!((rejected.reason(), rejected.retry_at()), (Reason::Open, Some(opened.saturating_add(secs(30)))));
    advance(ms(29_999)).await;
    assert!(pipeline.call(async |_| Ok::<_, &str>(())).await.unwrap_err().is_rejected());
    advance(ms(1)).await;
    assert_eq!(pipeline.call(async |_| Ok::<_, &str>(())).await, Ok(()));
    let path: Vec<_> = events.lock().unwrap().iter().map(|event| event.to).collect();
    assert_eq!(path, [StateKind::Open, StateKind::HalfOpen, StateKind::Closed]);
}

#[tokio::test(start_paused = true)]
async fn a_task_may_drive_the_breakers_own_time() {
    let breaker: CircuitBreaker = CircuitBreaker::new(valid!(circuit_breaker::Config::new().validate()));
    breaker.open_until(Tokio.now().saturating_add(secs(5)));
    let start = Instant::now();
    while let Some(at) = breaker.poll_timeout() {
        if breaker.state() == StateKind::HalfOpen {
            break;
        }
        failsoft_tokio::Executor::sleep_until(&Tokio, at).await;
        breaker.handle_timeout(&Tokio);
    }
    assert_eq!((breaker.state(), start.elapsed()), (StateKind::HalfOpen, secs(5)));
}

#[tokio::test(start_paused = true)]
async fn fallbacks_answer_when_everything_within_has_given_up() {
    let start = Instant::now();
    let config = valid!(retry::Config::new().with_max_attempts(2).with_backoff(PLAIN).validate());
    let cache = async |failure: Failure<&'static str>| {
        sleep(ms(50)).await;
        if failure.attempts == 2 { Ok("cached") } else { Err(failure) }
    };
    let pipeline = Pipeline::new(Tokio)
        .layer(Fallback::new(|_: Failure<&'static str>| Ok("constant")))
        .layer(FallbackTo::new(cache))
        .layer(RetryPolicy::new(config))
        .layer(Timeout::new(secs(1)));
    assert_eq!(pipeline.call(|_| pending()).await, Ok("cached"));
    assert_eq!(start.elapsed(), ms(1_000 + 100 + 1_000 + 50));
}

#[tokio::test(start_paused = true)]
async fn checks_bring_the_level_down_at_once_and_up_after_its_dwell() {
    let start = Instant::now();
    let begin = Tokio.now();
    let changes = Mutex::new(Vec::new());
    let note = |change: &LevelChange| {
        changes.lock().unwrap().push((change.to, change.at.saturating_duration_since(begin)));
    };
    let config = valid!(degradation::Config::new().with_dwell(secs(10)).with_recovery(2).validate());
    let hub = Degradation::<2, _, (), _>::with_observer(config, note);
    hub.register("database", Service::new(Criticality::Critical).with_check_interval(secs(5))).unwrap();
    hub.register("mail", Service::new(Criticality::Optional).with_check_interval(secs(60))).unwrap();
    let checks = Cell::new(0);
    // Down from 12 s to 31 s.
    let well = async |name: &str| {
        checks.set(checks.get() + 1);
        name != "database" || !(secs(12)..secs(31)).contains(&start.elapsed())
    };
    let watched = tokio::time::timeout(secs(100), hub.run_checks(Tokio, well)).await;
    assert!(watched.is_err(), "checks never end");
    use DegradationLevel::{Degraded, Full, Minimal};
    // Checks at 0, 5, 10, …: 15, 20, 25 and 30 fail, 35 and 40 are good.
    assert_eq!(*changes.lock().unwrap(), [(Minimal, secs(15)), (Degraded, secs(40)), (Full, secs(50))]);
    // The 101st second is not over: 20 checks at 0, 5, … 95, perhaps that of 100 s, and two of the mail.
    assert!((22..=23).contains(&checks.get()), "{} checks", checks.get());
}

/// The outage of a dependency behind the recommended pipeline, to the millisecond.
#[tokio::test(start_paused = true)]
async fn the_standard_pipeline_rides_out_an_outage_on_schedule() {
    let start = Instant::now();
    let breaker: CircuitBreaker =
        CircuitBreaker::new(valid!(circuit_breaker::Config::new().with_open_for(secs(10)).with_probes(2).validate()));
    let bulkhead = Bulkhead::new(valid!(bulkhead::Config::new(4).with_queue(4, ms(100)).validate()));
    let pipeline = Pipeline::new(Tokio)
        .layer(Fallback::new(|failure: Failure<&'static str>| if failure.is_rejected() { Ok(0) } else { Err(failure) }))
        .layer(Timeout::new(secs(10)))
        .layer(RetryPolicy::new(valid!(retry::Config::new().with_backoff(PLAIN).validate())))
        .layer(&bulkhead)
        .layer(&breaker)
        .layer(Timeout::new(secs(1)));
    // It hangs for its first six calls, and answers after 20 ms from then on.
    let calls = Cell::new(0_u32);
    let call = || {
        pipeline.call(async |_| {
            calls.set(calls.get() + 1);
            if calls.get() <= 6 {
                pending::<()>().await;
            }
            sleep(ms(20)).await;
            Ok(calls.get())
        })
    };
    // Three attempts of a second each, after 100 and 200 ms.
    let failure = call().await.unwrap_err();
    assert!(failure.is_timed_out());
    assert_eq!((failure.attempts, failure.stop), (3, Some(Stop::Attempts)));
    assert_eq!(start.elapsed(), ms(3_300));
    // The fifth failure in a row opens: the attempt after it is rejected, and the caller gets the last real error.
    let ended = |failure: Failure<_>| (failure.is_timed_out(), failure.attempts, failure.stop);
    assert_eq!(ended(call().await.unwrap_err()), (true, 2, Some(Stop::Rejected)));
    assert_eq!((start.elapsed(), calls.get(), breaker.state()), (ms(5_400 + 200), 5, StateKind::Open));
    // What comes then is rejected at once, not retried, and answered by the fallback.
    assert_eq!(call().await, Ok(0));
    assert_eq!(start.elapsed(), ms(5_600), "a rejection takes no time");
    // Open since 5.4 s: the sixth call is a probe, hangs, and opens again.
    sleep(ms(9_800)).await;
    assert_eq!(ended(call().await.unwrap_err()), (true, 1, Some(Stop::Rejected)));
    assert_eq!((start.elapsed(), calls.get(), breaker.state()), (ms(15_400 + 1_000 + 100), 6, StateKind::Open));
    // Back in health: two probes close.
    sleep(ms(9_900)).await;
    assert_eq!(call().await, Ok(7));
    assert_eq!(call().await, Ok(8));
    assert_eq!((start.elapsed(), breaker.state()), (ms(26_400 + 40), StateKind::Closed));
    let snapshot = bulkhead.snapshot();
    assert_eq!((snapshot.in_use, snapshot.queued, snapshot.high_water), (0, 0, 1));
}
