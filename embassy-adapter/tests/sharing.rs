//! Cells in statics, queues of fixed size, and channels of events.

#![expect(clippy::unwrap_used, reason = "a test may end with a panic")]

mod bench;

use core::future::Future;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::sync::Arc;

use bench::{Bench, Flag};
use embassy_sync::blocking_mutex::raw::{CriticalSectionRawMutex, NoopRawMutex};
use failsoft_embassy::circuit_breaker::{ConsecutiveFailures, FailureRate, StateKind, Transition};
use failsoft_embassy::degradation::{Criticality, DegradationLevel, LevelChange, Service};
use failsoft_embassy::retry::Retrying;
use failsoft_embassy::{
    Backoff, Bulkhead, CircuitBreaker, Clock, Embassy, Events, Instant, Jitter, Pipeline, Ratio, Raw, RawQueue, Reason,
    RetryPolicy, bulkhead, circuit_breaker, degradation, retry, valid,
};

static EXECUTOR: Embassy = Embassy::new(7);

/// Polls once, with a waker of its own.
fn poll<F: Future>(future: Pin<&mut F>, flag: &Arc<Flag>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&Waker::from(flag.clone())))
}

#[test]
fn who_waits_for_a_permit_is_served_in_turn_and_woken_once() {
    static BUS: Bulkhead<3> =
        Bulkhead::new(valid!(bulkhead::Config::new(1).with_queue(3, Duration::from_secs(1)).validate()));
    let _bench = Bench::take();
    let held = BUS.try_acquire().unwrap();
    let mut waiters: Vec<_> =
        (0..3).map(|_| (Box::pin(BUS.acquire(1, &EXECUTOR)), Arc::new(Flag::default()))).collect();
    for (future, flag) in &mut waiters {
        assert!(poll(future.as_mut(), flag).is_pending());
    }
    assert_eq!(BUS.snapshot().queued, 3);
    let mut held = Some(held);
    for turn in 0..3 {
        drop(held.take());
        let woken: Vec<_> = waiters.iter().map(|(_, flag)| flag.take()).collect();
        assert_eq!(woken, core::array::from_fn::<_, 3, _>(|index| index == turn), "turn {turn}");
        let (future, flag) = &mut waiters[turn];
        let Poll::Ready(permit) = poll(future.as_mut(), flag) else { unreachable!("woken, but not served") };
        held = Some(permit.unwrap());
    }
    drop(held);
    assert_eq!((BUS.snapshot().in_use, BUS.snapshot().queued), (0, 0));
}

#[test]
fn a_full_storage_rejects_even_where_the_configuration_allows_more() {
    static BUS: Bulkhead<2> = Bulkhead::new(valid!(bulkhead::Config::new(1).with_queue(100, Duration::MAX).validate()));
    let bench = Bench::take();
    let held = BUS.try_acquire().unwrap();
    let flag = Arc::new(Flag::default());
    let (mut first, mut second) = (pin!(BUS.acquire(1, &EXECUTOR)), pin!(BUS.acquire(1, &EXECUTOR)));
    assert!(poll(first.as_mut(), &flag).is_pending() && poll(second.as_mut(), &flag).is_pending());
    let (third, took) = bench.run(BUS.acquire(1, &EXECUTOR));
    assert_eq!((third.unwrap_err().reason(), took), (Reason::QueueFull, 0));
    let snapshot = BUS.snapshot();
    assert_eq!((snapshot.queued, snapshot.rejected), (2, 1), "the one turned away leaves no trace");
    drop(held);
    assert!(poll(first.as_mut(), &flag).is_ready());
    assert!(poll(second.as_mut(), &flag).is_ready());
    assert_eq!((BUS.snapshot().in_use, BUS.snapshot().queued), (0, 0));
}

#[test]
fn nobody_waits_where_there_is_no_place_for_it() {
    static BUS: Bulkhead<0> = Bulkhead::new(valid!(bulkhead::Config::new(1).with_queue(1, Duration::MAX).validate()));
    let bench = Bench::take();
    let held = BUS.try_acquire().unwrap();
    let (second, took) = bench.run(BUS.acquire(1, &EXECUTOR));
    assert_eq!((second.unwrap_err().reason(), took), (Reason::QueueFull, 0));
    assert_eq!((BUS.snapshot().in_use, BUS.snapshot().queued), (1, 0));
    drop(held);
    assert!(bench.run(BUS.acquire(1, &EXECUTOR)).0.is_ok());
    assert_eq!((BUS.snapshot().in_use, BUS.snapshot().queued), (0, 0));
}

#[test]
fn who_stops_waiting_leaves_no_trace_wherever_they_stood() {
    static BUS: Bulkhead<4> = Bulkhead::new(valid!(bulkhead::Config::new(1).with_queue(4, Duration::MAX).validate()));
    let _bench = Bench::take();
    for leaves in 0..3 {
        let held = BUS.try_acquire().unwrap();
        let mut waiters: Vec<_> =
            (0..3).map(|_| Some((Box::pin(BUS.acquire(1, &EXECUTOR)), Arc::new(Flag::default())))).collect();
        for (future, flag) in waiters.iter_mut().flatten() {
            assert!(poll(future.as_mut(), flag).is_pending());
        }
        waiters[leaves] = None;
        assert_eq!(BUS.snapshot().queued, 2);
        drop(held);
        for (future, flag) in waiters.iter_mut().flatten() {
            assert!(flag.take(), "the next in line was not woken");
            assert!(matches!(poll(future.as_mut(), flag), Poll::Ready(Ok(_))));
        }
        assert_eq!((BUS.snapshot().in_use, BUS.snapshot().queued), (0, 0));
    }
}

#[test]
fn who_was_served_and_leaves_before_noticing_passes_the_permit_on() {
    static BUS: Bulkhead<2> = Bulkhead::new(valid!(bulkhead::Config::new(1).with_queue(2, Duration::MAX).validate()));
    let _bench = Bench::take();
    let held = BUS.try_acquire().unwrap();
    let (flag, next) = (Arc::new(Flag::default()), Arc::new(Flag::default()));
    let mut first = Box::pin(BUS.acquire(1, &EXECUTOR));
    let mut second = pin!(BUS.acquire(1, &EXECUTOR));
    assert!(poll(first.as_mut(), &flag).is_pending() && poll(second.as_mut(), &next).is_pending());
    drop(held);
    assert!(flag.take() && !next.take());
    drop(first);
    assert!(next.take(), "the permit went nowhere");
    assert!(poll(second.as_mut(), &next).is_ready());
}

#[test]
fn a_wait_that_takes_too_long_ends_at_its_tick() {
    static BUS: Bulkhead<2> =
        Bulkhead::new(valid!(bulkhead::Config::new(1).with_queue(2, Duration::from_micros(750)).validate()));
    let bench = Bench::take();
    let _held = BUS.try_acquire().unwrap();
    let pipeline = Pipeline::new(&EXECUTOR).layer(&BUS);
    let (result, took) = bench.run(pipeline.call(async |_| Ok::<_, ()>(())));
    assert_eq!((result.unwrap_err().rejected().unwrap().reason(), took), (Reason::QueueTimeout, 750));
    assert_eq!(BUS.snapshot().queued, 0);
}

#[test]
fn threads_stand_in_for_tasks_and_interrupts_and_never_exceed_the_permits() {
    static BUS: Bulkhead<4> = Bulkhead::new(valid!(bulkhead::Config::new(2).validate()));
    static BREAKER: CircuitBreaker<FailureRate> = CircuitBreaker::new(valid!(
        circuit_breaker::Config::new().with_trip(valid!(FailureRate::new(Ratio::ONE, 10))).validate()
    ));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    let Ok(_permit) = BUS.try_acquire() else { continue };
                    BREAKER.try_acquire(Instant::START).unwrap().success();
                }
            });
        }
    });
    let snapshot = BUS.snapshot();
    assert_eq!((snapshot.in_use, snapshot.queued), (0, 0));
    assert!((1..=2).contains(&snapshot.high_water), "{snapshot:?}");
    assert_eq!(BREAKER.snapshot(&Instant::START).counts.calls, 10);
}

#[test]
fn policies_over_any_raw_mutex_can_be_statics() {
    type OneExecutor = Raw<NoopRawMutex>;
    type Everywhere = Raw<CriticalSectionRawMutex>;
    static SHARED: circuit_breaker::CircuitBreaker<Everywhere> =
        circuit_breaker::CircuitBreaker::new(valid!(circuit_breaker::Config::new().validate()));
    static BUS: bulkhead::Bulkhead<Everywhere, RawQueue<CriticalSectionRawMutex, 2>> =
        bulkhead::Bulkhead::new(valid!(bulkhead::Config::new(1).validate()));
    static HUB: degradation::Degradation<Everywhere, 2> =
        degradation::Degradation::new(valid!(degradation::Config::new().validate()));
    // One that knows no threads is a static of one thread only.
    thread_local! {
        static OWN: circuit_breaker::CircuitBreaker<OneExecutor> =
            const { circuit_breaker::CircuitBreaker::new(valid!(circuit_breaker::Config::new().validate())) };
        static OWN_BUS: bulkhead::Bulkhead<OneExecutor, RawQueue<NoopRawMutex, 2>> =
            const { bulkhead::Bulkhead::new(valid!(bulkhead::Config::new(1).validate())) };
    }
    for _ in 0..5 {
        SHARED.try_acquire(Instant::START).unwrap().failure();
        OWN.with(|own| own.try_acquire(Instant::START).unwrap().failure());
    }
    assert_eq!(SHARED.state(), StateKind::Open);
    assert_eq!(OWN.with(circuit_breaker::CircuitBreaker::state), StateKind::Open);
    assert!(BUS.try_acquire().is_ok());
    assert!(OWN_BUS.with(|bus| bus.try_acquire().is_ok()));
    HUB.register("radio", Service::new(Criticality::Critical)).unwrap();
    HUB.report("radio", false, &Instant::START).unwrap();
    assert_eq!(HUB.level(&Instant::START), DegradationLevel::Minimal);
}

#[test]
fn each_event_goes_through_the_channel_once_and_those_without_room_are_counted() {
    static EVENTS: Events<CriticalSectionRawMutex, Transition, 2> = Events::new();
    static BREAKER: CircuitBreaker<ConsecutiveFailures, &Events<CriticalSectionRawMutex, Transition, 2>> =
        CircuitBreaker::with_observer(valid!(circuit_breaker::Config::new().validate()), &EVENTS);
    let bench = Bench::take();
    assert!(EVENTS.try_next().is_none());
    // A listener that gives up waiting takes nothing away.
    assert!(bench.run_for(3, EVENTS.next()).is_none());
    BREAKER.isolate();
    let (event, _) = bench.run(EVENTS.next());
    assert_eq!((event.from, event.to, event.generation), (StateKind::Closed, StateKind::Isolated, 1));
    assert!(EVENTS.try_next().is_none());
    assert_eq!(EVENTS.missed(), 0);
    for _ in 0..5 {
        BREAKER.reset();
    }
    assert_eq!(EVENTS.missed(), 3);
    // The oldest are kept.
    let kept: Vec<_> = core::iter::from_fn(|| EVENTS.try_next()).map(|event| event.generation).collect();
    assert_eq!(kept, [2, 3]);
    BREAKER.isolate();
    assert_eq!(EVENTS.try_next().map(|event| event.generation), Some(7));
    assert_eq!(EVENTS.missed(), 3);
}

#[test]
fn a_task_that_waits_for_events_is_woken_by_each() {
    let events = Events::<NoopRawMutex, Transition, 4>::new();
    let breaker = circuit_breaker::CircuitBreaker::<Raw<NoopRawMutex>, _, _>::with_observer(
        valid!(circuit_breaker::Config::new().validate()),
        &events,
    );
    let flag = Arc::new(Flag::default());
    for to in [StateKind::Isolated, StateKind::Closed] {
        let mut next = pin!(events.next());
        assert!(poll(next.as_mut(), &flag).is_pending());
        if to == StateKind::Isolated {
            breaker.isolate();
        } else {
            breaker.reset();
        }
        assert!(flag.take());
        assert!(matches!(poll(next.as_mut(), &flag), Poll::Ready(event) if event.to == to));
    }
}

#[test]
fn retries_and_levels_go_through_channels_too() {
    let bench = Bench::take();
    let retries = Events::<NoopRawMutex, Retrying, 4>::new();
    let backoff = Backoff::constant(Duration::from_micros(40)).with_jitter(Jitter::None);
    let config = retry::Config::new().with_backoff(backoff).validate().unwrap();
    let pipeline = Pipeline::new(&EXECUTOR).layer(RetryPolicy::with_observer(config, &retries));
    let (_, took) = bench.run(pipeline.call(async |_| Err::<(), _>(())));
    let seen: Vec<_> =
        core::iter::from_fn(|| retries.try_next()).map(|event| (event.attempt, event.at.as_nanos())).collect();
    assert_eq!((seen, took), (vec![(1, 40_000), (2, 80_000)], 80));

    let levels = Events::<NoopRawMutex, LevelChange, 4>::new();
    let hub = degradation::Degradation::<Raw<NoopRawMutex>, 1, DegradationLevel, (), _>::with_observer(
        valid!(degradation::Config::new().validate()),
        &levels,
    );
    hub.register("radio", Service::new(Criticality::Important)).unwrap();
    hub.report("radio", false, &EXECUTOR).unwrap();
    hub.report("radio", false, &EXECUTOR).unwrap();
    let seen: Vec<_> = core::iter::from_fn(|| levels.try_next()).collect();
    let at = EXECUTOR.now();
    assert_eq!(seen, [LevelChange { from: DegradationLevel::Full, to: DegradationLevel::Degraded, at }]);
}
