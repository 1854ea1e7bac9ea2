//! Promises 5 and 7, counted: no policy allocates, in any state, and a server's memory is flat however often it fails.

use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use allocation_counter::measure;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use failsoft_core::cell::{CriticalSection, Local};
use failsoft_core::chaos::{self, Behaviour, Chaos, Fake, Fault, Latency};
use failsoft_core::circuit_breaker::{
    CircuitBreaker, Config, ConsecutiveFailures, FailureMeter, FailureRate, StateKind, Transition, Trip,
};
use failsoft_core::degradation::{Criticality, Degradation, DegradationLevel, LevelChange, Service};
use failsoft_core::retry::Retrying;
use failsoft_core::testing::{ManualClock, Recorder, Script, Step, VirtualExecutor};
use failsoft_core::{Failure, Observer, Pipeline, Ratio, Reason, bulkhead, circuit_breaker, degradation, retry, valid};
use failsoft_embassy::Events;
use failsoft_tokio::settings::{Policies, Settings};
use failsoft_tokio::{Atomic, Backoff, Bulkhead, Fallback, Jitter, Locked, RetryPolicy, Timeout, Tokio, block_on};

/// Runs `f`, which must not allocate. Once before, so that what the standard library sets up only once is there.
fn none(what: &str, mut f: impl FnMut()) {
    f();
    let info = measure(&mut f);
    assert_eq!((info.count_total, info.bytes_current), (0, 0), "{what}: {info:?}");
}

/// Every state of a breaker and every answer it gives, many times over.
fn trip_and_recover<K, T>(trip: T, rounds: u32)
where
    T: Copy + Trip,
    K: failsoft_core::cell::CellKind<circuit_breaker::State<T::Meter>>,
{
    let clock = ManualClock::new();
    let events = Recorder::<Transition, 8>::new();
    let config = Config::new().with_trip(trip).with_probes(1).with_open_for(Duration::from_secs(1));
    let breaker = CircuitBreaker::<K, T, _>::with_observer(config.validate().expect("valid"), &events);
    for _ in 0..rounds {
        while let Ok(permit) = breaker.try_acquire(&clock) {
            permit.failure();
        }
        let rejected = breaker.try_acquire(&clock).expect_err("open");
        assert_eq!(rejected.reason(), Reason::Open);
        clock.advance(Duration::from_secs(1));
        let probe = breaker.try_acquire(&clock).expect("a probe");
        assert!(breaker.try_acquire(&clock).is_err());
        probe.success();
        breaker.try_acquire(&clock).expect("closed").success();
        drop(breaker.try_acquire(&clock).expect("closed"));
        breaker.try_acquire(&clock).expect("closed").ignore();
        assert_eq!(events.take().count(), 3);
        assert_eq!(breaker.snapshot(&clock).state, StateKind::Closed);
    }
    breaker.isolate();
    assert!(breaker.try_acquire(&clock).is_err());
    breaker.disable();
    breaker.observe_only();
    breaker.try_acquire(&clock).expect("admits all").failure();
    breaker.reset();
}

#[test]
fn ten_thousand_trips_and_recoveries_allocate_nothing_in_any_cell() {
    const ROUNDS: u32 = 10_000;
    let consecutive = ConsecutiveFailures::DEFAULT;
    let rate = valid!(FailureRate::new(Ratio::percent(50), 20));
    let meter = valid!(FailureMeter::new(3, Duration::from_millis(100)));
    none("one thread", || trip_and_recover::<Local, _>(consecutive, ROUNDS));
    none("critical section", || trip_and_recover::<CriticalSection, _>(consecutive, ROUNDS));
    none("atomic words", || trip_and_recover::<Atomic, _>(consecutive, ROUNDS));
    none("mutex", || trip_and_recover::<Locked, _>(consecutive, ROUNDS));
    none("embassy", || trip_and_recover::<failsoft_embassy::Raw<CriticalSectionRawMutex>, _>(consecutive, ROUNDS));
    none("failure rate", || trip_and_recover::<Atomic, _>(rate, ROUNDS / 10));
    none("failure meter", || trip_and_recover::<Atomic, _>(meter, ROUNDS / 10));
    none("two conditions", || trip_and_recover::<Locked, _>((consecutive, rate), ROUNDS / 10));
}

#[test]
fn taking_permits_giving_them_back_and_being_rejected_allocates_nothing() {
    let bulkhead = Bulkhead::new(valid!(bulkhead::Config::new(3).validate()));
    none("a bulkhead without a queue", || {
        for _ in 0..10_000 {
            let one = bulkhead.try_acquire().expect("free");
            let two = bulkhead.try_acquire_many(2).expect("free");
            assert_eq!(bulkhead.try_acquire().expect_err("full").reason(), Reason::Full);
            assert_eq!(bulkhead.try_acquire_many(9).expect_err("too much").reason(), Reason::TooHeavy);
            drop((one, two));
        }
        assert!(bulkhead.resize(4).is_ok() && bulkhead.resize(3).is_ok());
        assert_eq!(bulkhead.snapshot().in_use, 0);
    });
}

#[test]
fn a_queue_on_a_server_allocates_only_until_it_has_grown() {
    let bulkhead = Bulkhead::new(valid!(bulkhead::Config::new(1).with_queue(64, Duration::MAX).validate()));
    let executor = VirtualExecutor::new();
    none("waiting, leaving and being served", || {
        for _ in 0..1_000 {
            let held = bulkhead.try_acquire().expect("free");
            let mut waiters: [_; 64] = core::array::from_fn(|_| Some(bulkhead.acquire(1, &executor)));
            let mut cx = Context::from_waker(Waker::noop());
            for waiter in waiters.iter_mut().flatten() {
                assert!(Pin::new(waiter).poll(&mut cx).is_pending());
            }
            assert!(bulkhead.try_acquire().is_err());
            waiters[30] = None;
            drop(held);
            assert!(waiters[0].as_mut().is_some_and(|first| Pin::new(first).poll(&mut cx).is_ready()));
            drop(waiters);
            assert_eq!((bulkhead.snapshot().in_use, bulkhead.snapshot().queued), (0, 0));
        }
    });
}

#[test]
fn a_full_queue_turns_away_without_allocating() {
    for config in [bulkhead::Config::new(1), bulkhead::Config::new(1).with_newest_first()] {
        let config = config.with_queue(64, Duration::MAX).validate().expect("valid");
        let (bulkhead, executor) = (Bulkhead::new(config), VirtualExecutor::new());
        let held = bulkhead.try_acquire().expect("free");
        let mut waiters: [_; 64] = core::array::from_fn(|_| bulkhead.acquire(1, &executor));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waiters.iter_mut().all(|waiter| Pin::new(waiter).poll(&mut cx).is_pending()));
        let (mut rejected, mut turn) = (0, 0);
        // Whoever comes last is turned away, or whoever came first: it has its turn as it is polled again.
        none("a full queue", || {
            for _ in 0..1_000 {
                let mut newcomer = bulkhead.acquire(1, &executor);
                let turned_away = match Pin::new(&mut newcomer).poll(&mut cx) {
                    Poll::Pending => core::mem::replace(&mut waiters[turn], newcomer),
                    Poll::Ready(Err(rejection)) => {
                        assert_eq!(rejection.reason(), Reason::QueueFull);
                        rejected += 1;
                        continue;
                    }
                    Poll::Ready(Ok(_)) => unreachable!("there is no permit"),
                };
                let Poll::Ready(Err(rejection)) = pin!(turned_away).poll(&mut cx) else {
                    unreachable!("it still waits")
                };
                assert_eq!(rejection.reason(), Reason::Evicted);
                (rejected, turn) = (rejected + 1, (turn + 1) % 64);
            }
        });
        assert_eq!((rejected, bulkhead.snapshot().queued), (2_000, 64));
        drop((waiters, held));
        assert_eq!((bulkhead.snapshot().in_use, bulkhead.snapshot().queued), (0, 0));
    }
}

/// The recommended pipeline around whatever the script does, on an executor in virtual time.
fn standard(steps: &[Step], calls: u32) {
    let executor = VirtualExecutor::new();
    let retries = Recorder::<Retrying, 64>::new();
    let breaker = CircuitBreaker::<Atomic, FailureRate>::new(valid!(
        Config::new().with_trip(valid!(FailureRate::new(Ratio::percent(90), 30))).validate()
    ));
    let bulkhead = bulkhead::Bulkhead::<Atomic>::new(valid!(bulkhead::Config::new(4).validate()));
    let backoff = Backoff::exponential(Duration::from_millis(100)).with_jitter(Jitter::Decorrelated);
    let config = retry::Config::new().with_backoff(backoff).validate().expect("valid");
    let pipeline = Pipeline::new(&executor)
        .layer(Fallback::new(|failure: Failure<_>| if failure.is_rejected() { Ok(0) } else { Err(failure) }))
        .layer(Timeout::new(Duration::from_secs(10)))
        .layer(RetryPolicy::with_observer(config, &retries))
        .layer(&bulkhead)
        .layer(&breaker)
        .layer(Timeout::new(Duration::from_secs(1)));
    let service = Script::new(steps);
    for _ in 0..calls {
        let _ = executor.run(pipeline.call(|_| service.call(&executor))).expect("it ends");
        retries.take().for_each(drop);
    }
    assert!(service.calls() > 0);
}

#[test]
fn the_whole_pipeline_allocates_nothing_whatever_the_operation_does() {
    const WHILE: Duration = Duration::from_millis(20);
    none("ready at once", || standard(&[Step::Succeed], 1_000));
    none("pending", || standard(&[Step::SucceedAfter(WHILE)], 1_000));
    none("failing, retried, rejected", || standard(&[Step::Fail, Step::FailAfter(WHILE)], 1_000));
    none("hanging, timed out, rejected", || standard(&[Step::Hang], 1_000));
}

#[test]
fn chaos_of_every_kind_allocates_nothing() {
    const HALF: Ratio = Ratio::percent(50);
    none("four kinds in a row", || {
        let executor = VirtualExecutor::new();
        let plan = |seed| chaos::Config::new(seed).with_rate(HALF).validate().expect("valid");
        let pipeline = Pipeline::new(&executor)
            .layer(Chaos::<Atomic, _>::new(plan(1), Latency::new(Duration::from_millis(5))))
            .layer(Chaos::<Atomic, _>::new(plan(2), Behaviour::new(async |_| {})))
            .layer(Chaos::<Locked, _>::new(plan(3), Fake::new(|_| Ok(0))))
            .layer(Chaos::<Atomic, _>::new(plan(4), Fault::new(|_| "injected")));
        let failed = (0..1_000).filter(|_| executor.run(pipeline.call(async |_| Ok(1))).expect("it ends").is_err());
        assert!((200..300).contains(&failed.count()));
    });
}

#[test]
fn dropping_calls_halfway_allocates_nothing() {
    none("dropped", || {
        let executor = VirtualExecutor::new();
        let breaker = CircuitBreaker::<Atomic>::new(valid!(Config::new().validate()));
        let bulkhead = Bulkhead::new(valid!(bulkhead::Config::new(4).validate()));
        let pipeline =
            Pipeline::new(&executor).layer(Timeout::new(Duration::from_secs(1))).layer(&bulkhead).layer(&breaker);
        let service = Script::new(&[Step::Hang]);
        for _ in 0..1_000 {
            let mut call = pin!(pipeline.call(|_| service.call(&executor)));
            assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert_eq!(bulkhead.snapshot().in_use, 1);
        }
    });
}

/// Polls a future with every poll measured, and so without what the runtime does in between.
async fn measured<F: Future>(future: F) -> (F::Output, u64) {
    let (mut future, mut count) = (pin!(future), 0);
    let output = poll_fn(|cx| {
        let mut poll = Poll::Pending;
        count += measure(|| poll = future.as_mut().poll(cx)).count_total;
        poll
    })
    .await;
    (output, count)
}

#[test]
fn the_pipeline_on_tokio_allocates_nothing_of_its_own() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let breaker = CircuitBreaker::<Atomic>::new(valid!(Config::new().validate()));
    let bulkhead = Bulkhead::new(valid!(bulkhead::Config::new(4).with_queue(4, Duration::from_secs(1)).validate()));
    let config = retry::Config::new().with_max_attempts(2).validate().expect("valid");
    let pipeline = Pipeline::new(Tokio)
        .layer(Timeout::new(Duration::from_secs(10)))
        .layer(RetryPolicy::new(config))
        .layer(&bulkhead)
        .layer(&breaker)
        .layer(Timeout::new(Duration::from_secs(1)));
    let nap = || tokio::time::sleep(Duration::from_millis(5));
    runtime.block_on(async {
        // The first timer of all may set something up.
        nap().await;
        let ((), sleeping) = measured(nap()).await;
        assert_eq!(sleeping, 0, "tokio's own sleep: nothing can be said about ours");

        let (answer, ready) = measured(pipeline.call(async |_| Ok::<_, ()>(1))).await;
        assert_eq!((answer, ready), (Ok(1), 0));
        let slow = async |_| {
            nap().await;
            Ok::<_, ()>(2)
        };
        let (answer, pending) = measured(pipeline.call(slow)).await;
        assert_eq!((answer, pending), (Ok(2), 0));
        let twice = async |attempt: failsoft_core::pipeline::Attempt| {
            nap().await;
            if attempt.number() == 1 { Err(()) } else { Ok(3) }
        };
        let (answer, retried) = measured(pipeline.call(twice)).await;
        assert_eq!((answer, retried), (Ok(3), 0));
        let (answer, timed_out) = measured(pipeline.call(|_| core::future::pending::<Result<i32, ()>>())).await;
        assert!(answer.is_err_and(|failure| failure.is_timed_out()));
        assert_eq!(timed_out, 0);
        breaker.isolate();
        let (answer, rejected) = measured(pipeline.call(async |_| Ok::<_, ()>(4))).await;
        assert!(answer.is_err_and(|failure| failure.is_rejected()));
        assert_eq!(rejected, 0);
    });
}

/// One round of a degradation: down and up again, with all that it tells and answers.
fn down_and_up<K, O>(observer: O)
where
    K: failsoft_core::cell::CellKind<degradation::Health<u32, 3>>,
    O: Observer<LevelChange>,
{
    let clock = ManualClock::new();
    let hub = Degradation::<K, 3, DegradationLevel, u32, O>::with_observer(
        valid!(degradation::Config::new().with_dwell(Duration::from_secs(1)).validate()),
        observer,
    );
    for (name, criticality) in
        [("sensor", Criticality::Critical), ("display", Criticality::Important), ("log", Criticality::Optional)]
    {
        hub.register(name, Service::new(criticality).with_response(7)).expect("a place");
    }
    assert!(hub.register("one too many", Service::new(Criticality::Optional)).is_err());
    for _ in 0..1_000 {
        hub.report("sensor", false, &clock).expect("known");
        assert_eq!(hub.level(&clock), DegradationLevel::Minimal);
        assert!(hub.check(DegradationLevel::Full, &clock).is_err());
        assert_eq!(hub.instead_of("sensor"), Ok(Some(7)));
        assert!(hub.report("stranger", true, &clock).is_err());
        for _ in 0..3 {
            hub.report("sensor", true, &clock).expect("known");
        }
        clock.advance(Duration::from_secs(2));
        assert_eq!(hub.level(&clock), DegradationLevel::Full);
        while hub.take_due_check(&clock).is_some() {}
    }
}

#[test]
fn reports_of_health_and_changes_of_level_allocate_nothing() {
    none("one thread", || down_and_up::<Local, _>(()));
    none("critical section", || down_and_up::<CriticalSection, _>(()));
    none("mutex", || down_and_up::<Locked, _>(()));
}

#[test]
fn telling_of_events_allocates_nothing_whether_there_is_room_or_not() {
    none("a recorder that overflows", || {
        let recorder = Recorder::<LevelChange, 4>::new();
        down_and_up::<Local, _>(&recorder);
        assert!(recorder.missed() > 0);
    });
    none("a channel that overflows", || {
        let channel = Events::<CriticalSectionRawMutex, LevelChange, 4>::new();
        down_and_up::<Locked, _>(&channel);
        assert!(channel.missed() > 0);
        assert!(channel.try_next().is_some());
    });
    none("a function", || down_and_up::<Local, _>(|change: &LevelChange| assert_ne!(change.from, change.to)));
}

#[test]
fn running_on_a_plain_thread_allocates_the_same_each_time_and_keeps_nothing() {
    // The waker that unparks the thread is shared, and so on the heap.
    let call = || assert_eq!(block_on(async { 1 }), 1);
    call();
    let (first, second) = (measure(call), measure(call));
    assert_eq!(first, second);
    assert_eq!((first.count_total, first.bytes_current), (1, 0));
}

#[test]
fn calls_through_policies_from_settings_allocate_nothing() {
    let text = "
        [policies.p]
        timeout = '10s'
        retry = { delay = '100ms', budget = '10%' }
        rate_limit.calls = 1000
        bulkhead.permits = 64
        circuit_breaker = { failure_rate = '90%', calls = 100 }
        attempt_timeout = '1s'";
    let executor = VirtualExecutor::new();
    let policies = Policies::new(&Settings::from_toml(text, "settings").expect("they make sense"));
    let pipeline = Pipeline::new(&executor).layer(policies.get("p").expect("it is there"));
    none("at once, and with retries", || {
        assert_eq!(executor.run(pipeline.call(async |_| Ok::<_, ()>(7))), Ok(Ok(7)));
        let service = Script::new(&[Step::Fail, Step::Fail, Step::Succeed]);
        assert_eq!(executor.run(pipeline.call(|_| service.call(&executor))), Ok(Ok(3)));
    });
}

/// Takes everything and keeps nothing.
struct Nothing;

impl core::fmt::Write for Nothing {
    fn write_str(&mut self, _: &str) -> core::fmt::Result {
        Ok(())
    }
}

#[test]
fn the_script_through_every_policy_allocates_nothing_in_any_cell() {
    use failsoft_replay::replay;
    let done = |result: core::fmt::Result| assert!(result.is_ok());
    none("one thread", || done(replay::<Local, Local>(1, 500, &mut Nothing)));
    none("critical sections", || done(replay::<CriticalSection, CriticalSection>(1, 500, &mut Nothing)));
    none("atomic words and mutexes", || done(replay::<Atomic, Locked>(1, 500, &mut Nothing)));
}
