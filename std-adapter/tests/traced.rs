//! Events through the `tracing` facade, as a subscriber sees them.

#![cfg(feature = "tracing")]
#![expect(clippy::unwrap_used, reason = "a test may end with a panic")]

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::sync::{Arc, Mutex};

use failsoft_tokio::adaptive::Aimd;
use failsoft_tokio::chaos::{self, Fault, Latency};
use failsoft_tokio::circuit_breaker::{ConsecutiveFailures, Transition};
use failsoft_tokio::degradation::{Criticality, Service};
use failsoft_tokio::hedge::FixedDelay;
use failsoft_tokio::supervisor::Task;
use failsoft_tokio::{
    AdaptiveLimit, AdaptiveRate, Backoff, Chaos, CircuitBreaker, Degradation, Hedge, Idempotent, Instant, Jitter,
    LastGood, Pipeline, Ratio, RetryPolicy, Supervisor, Tokio, Tracing, Valid, adaptive, adaptive_rate,
    circuit_breaker, degradation, last_good, retry, supervisor, valid,
};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

/// Writes events down, and has no use for spans.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<(Level, String)>>>);

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }
}

impl Subscriber for Notes {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("failsoft")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        self.0.lock().unwrap().push((*event.metadata().level(), fields.0.trim_end().to_owned()));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// What is written down while `f` runs.
fn notes(f: impl FnOnce()) -> Vec<(Level, String)> {
    let notes = Notes::default();
    tracing::subscriber::with_default(notes.clone(), f);
    let mut notes = notes.0.lock().unwrap();
    core::mem::take(&mut *notes)
}

const fn at(secs: u64) -> Instant {
    Instant::from_millis(secs * 1_000)
}

#[test]
fn each_transition_of_a_breaker_is_one_event_at_the_level_of_what_it_means() {
    let trip = valid!(ConsecutiveFailures::new(2));
    let config = circuit_breaker::Config::new().with_trip(trip).with_open_for(Duration::from_secs(10)).with_probes(1);
    let breaker: CircuitBreaker<_, _> =
        CircuitBreaker::with_observer(config.validate().unwrap(), Tracing::new("payments"));
    let seen = notes(|| {
        breaker.try_acquire(at(0)).unwrap().success();
        breaker.try_acquire(at(1)).unwrap().failure();
        breaker.try_acquire(at(1)).unwrap().failure();
        assert!(breaker.try_acquire(at(2)).is_err());
        breaker.try_acquire(at(11)).unwrap().success();
        breaker.isolate();
        breaker.reset();
    });
    let expected = [
        (
            Level::WARN,
            "message=circuit breaker name=\"payments\" from=Closed to=Open generation=1 reopened=0 calls=2 failures=2 slow=0 until=11000000000",
        ),
        (
            Level::INFO,
            "message=circuit breaker name=\"payments\" from=Open to=HalfOpen generation=2 reopened=0 calls=0 failures=0 slow=0 until=21000000000",
        ),
        (
            Level::INFO,
            "message=circuit breaker name=\"payments\" from=HalfOpen to=Closed generation=3 reopened=0 calls=1 failures=0 slow=0",
        ),
        (
            Level::WARN,
            "message=circuit breaker name=\"payments\" from=Closed to=Isolated generation=4 reopened=0 calls=0 failures=0 slow=0",
        ),
        (
            Level::INFO,
            "message=circuit breaker name=\"payments\" from=Isolated to=Closed generation=5 reopened=0 calls=0 failures=0 slow=0",
        ),
    ];
    assert_eq!(seen, expected.map(|(level, text)| (level, text.to_owned())));
}

#[test]
fn each_retry_is_one_debug_event() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let backoff = Backoff::constant(Duration::from_secs(1)).with_jitter(Jitter::None);
    let config = retry::Config::new().with_backoff(backoff).validate().unwrap();
    let pipeline = Pipeline::new(Tokio).layer(RetryPolicy::with_observer(config, Tracing::new("mail")));
    let seen = notes(|| {
        assert!(runtime.block_on(pipeline.call(async |_| Err::<(), _>("down"))).is_err());
    });
    let starts: Vec<_> = seen.iter().map(|(_, text)| text.split(" at=").next().unwrap()).collect();
    assert_eq!(starts, ["message=retry name=\"mail\" attempt=1", "message=retry name=\"mail\" attempt=2"]);
    assert!(seen.iter().all(|(level, _)| *level == Level::DEBUG));
}

#[test]
fn each_hedge_and_the_winner_is_one_debug_event() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let hedge: Hedge<1, _, _> =
        Hedge::with_observer(FixedDelay::new(Duration::from_secs(1)), Idempotent, Tracing::new("search"));
    let pipeline = Pipeline::new(Tokio).layer(&hedge);
    let seen = notes(|| {
        let call = pipeline.call(async |attempt| match attempt.hedge() {
            0 => core::future::pending().await,
            _ => Ok::<_, &str>(()),
        });
        runtime.block_on(call).unwrap();
    });
    let expected = [
        (Level::DEBUG, "message=hedge started name=\"search\" attempt=1 hedge=1"),
        (Level::DEBUG, "message=hedge won name=\"search\" attempt=1 hedge=1"),
    ];
    assert_eq!(seen, expected.map(|(level, text)| (level, text.to_owned())));
}

#[test]
fn each_injection_is_information() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let always = chaos::Config::new(1).with_rate(Ratio::ONE).validate().unwrap();
    let slow = Latency::new(Duration::from_millis(5));
    let pipeline = Pipeline::new(Tokio)
        .layer(Chaos::with_observer(always, slow, Tracing::new("slow")))
        .layer(Chaos::with_observer(always, Fault::new(|_| "injected"), Tracing::new("faulty")));
    let seen = notes(|| {
        assert!(runtime.block_on(pipeline.call(async |_| Ok(()))).is_err());
    });
    let expected = [
        (Level::INFO, "message=chaos injected name=\"slow\" call=1 kind=Latency(5ms)"),
        (Level::INFO, "message=chaos injected name=\"faulty\" call=1 kind=Fault"),
    ];
    assert_eq!(seen, expected.map(|(level, text)| (level, text.to_owned())));
}

#[test]
fn a_stale_answer_is_a_warning_and_a_fresh_one_for_debugging() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let config = last_good::Config::new().with_fresh_for(Duration::from_secs(5)).validate().unwrap();
    let rates: LastGood<u32, _> = LastGood::with_observer(config, Tracing::new("rates"));
    let pipeline = Pipeline::new(Tokio).layer(&rates);
    let seen = notes(|| {
        runtime.block_on(async {
            pipeline.call(async |_| Ok::<_, &str>(1)).await.unwrap();
            for _ in 0..2 {
                tokio::time::advance(Duration::from_secs(4)).await;
                assert_eq!(pipeline.call(async |_| Err("down")).await, Ok(1));
            }
        });
    });
    let expected = [
        (Level::DEBUG, "message=last good value name=\"rates\" age=4s stale=false"),
        (Level::WARN, "message=last good value name=\"rates\" age=8s stale=true"),
    ];
    assert_eq!(seen, expected.map(|(level, text)| (level, text.to_owned())));
}

#[test]
fn a_level_that_falls_is_a_warning_and_one_that_rises_is_information() {
    let config = degradation::Config::new().with_dwell(Duration::from_secs(5)).with_recovery(1).validate().unwrap();
    let shop = Degradation::<1, degradation::DegradationLevel, (), _>::with_observer(config, Tracing::new("shop"));
    shop.register("stock", Service::new(Criticality::Important)).unwrap();
    let seen = notes(|| {
        shop.report("stock", false, &at(1)).unwrap();
        shop.report("stock", false, &at(2)).unwrap();
        shop.report("stock", true, &at(3)).unwrap();
        shop.handle_timeout(&at(60));
    });
    let expected = [
        (Level::WARN, "message=degradation level name=\"shop\" from=Full to=Degraded at=1000000000"),
        (Level::INFO, "message=degradation level name=\"shop\" from=Degraded to=Full at=7000000000"),
    ];
    assert_eq!(seen, expected.map(|(level, text)| (level, text.to_owned())));
}

#[test]
fn each_change_of_an_adaptive_limit_is_one_debug_event() {
    const AIMD: Valid<Aimd> = valid!(Aimd::new().validate());
    let config = valid!(adaptive::Config::new(AIMD).with_limits(1, 20, 100).validate());
    let limit: AdaptiveLimit<Aimd, _> = AdaptiveLimit::with_observer(config, Tracing::new("search"));
    let seen = notes(|| {
        limit.try_acquire(at(1)).unwrap().dropped();
        limit.try_acquire(at(1)).unwrap().success();
    });
    assert_eq!(seen, [(Level::DEBUG, "message=adaptive limit name=\"search\" from=20 to=18".to_owned())]);
}

#[test]
fn each_cut_of_a_rate_is_a_warning() {
    let config = valid!(adaptive_rate::Config::new().validate());
    let limiter: AdaptiveRate<_> = AdaptiveRate::with_observer(config, Tracing::new("tables"));
    let seen = notes(|| {
        limiter.record(false, &at(1));
        limiter.record(false, &at(2));
        limiter.record(true, &at(2));
        limiter.record(true, &at(3));
    });
    let expected = [
        (Level::WARN, "message=adaptive rate name=\"tables\" to=672000 measured=960000 at=2000000000"),
        (Level::WARN, "message=adaptive rate name=\"tables\" from=672000 to=500000 measured=1792000 at=3000000000"),
    ];
    assert_eq!(seen, expected.map(|(level, text)| (level, text.to_owned())));
}

#[test]
fn a_task_that_stalls_is_a_warning_and_one_that_is_back_is_information() {
    let config = supervisor::Config::new().validate().unwrap();
    let tasks = Supervisor::<1, (), _>::with_observer(config, (), Tracing::new("tasks"));
    let seen = notes(|| {
        let task = tasks.register("mail", Task::optional(Duration::from_secs(5)), &at(0)).unwrap();
        tasks.handle_timeout(&at(6));
        task.check_in(&at(7));
    });
    let expected = [
        (Level::WARN, "message=supervised task name=\"tasks\" task=\"mail\" critical=false stalled=true at=5000000000"),
        (
            Level::INFO,
            "message=supervised task name=\"tasks\" task=\"mail\" critical=false stalled=false at=7000000000",
        ),
    ];
    assert_eq!(seen, expected.map(|(level, text)| (level, text.to_owned())));
}

#[test]
fn a_name_may_come_from_a_file_and_an_observer_stand_beside_another_one() {
    let name = String::from_utf8(b"orders".to_vec()).unwrap();
    let count = AtomicU32::new(0);
    let counting = |_: &Transition| {
        count.fetch_add(1, Ordering::Relaxed);
    };
    let breaker: CircuitBreaker<ConsecutiveFailures, _> = CircuitBreaker::with_observer(
        circuit_breaker::Config::new().validate().unwrap(),
        (Tracing::new(name), counting),
    );
    let seen = notes(|| breaker.isolate());
    assert!(matches!(&seen[..], [(Level::WARN, text)] if text.contains("name=\"orders\"")), "{seen:?}");
    assert_eq!(count.into_inner(), 1);
}
