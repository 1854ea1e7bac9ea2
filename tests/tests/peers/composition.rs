//! Policies around a call: a rejection is an answer, it comes at once, and it stops the call.

use core::cell::Cell;
use core::future::Pending;
use core::pin::pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::Poll;
use core::time::Duration;

use failsoft_core::bulkhead::{self, NoQueue};
use failsoft_core::cell::CellKind;
use failsoft_core::circuit_breaker::{Abandoned, CircuitBreaker, Config, ConsecutiveFailures, State, StateKind, Trip};
use failsoft_core::testing::{Script, Step, VirtualExecutor, never};
use failsoft_core::timeout::Timeout;
use failsoft_core::{Clock, Executor, Failure, Instant, Pipeline, Reason, Rejected};
use failsoft_tokio::{Atomic, Bulkhead, Locked};

use crate::{SECOND, failures_to_open, poll_once};

fn bulkhead(permits: u32) -> Bulkhead {
    Bulkhead::new(bulkhead::Config::new(permits).validate().expect("valid"))
}

fn breaker(config: Config) -> CircuitBreaker<Atomic> {
    CircuitBreaker::new(config.validate().expect("valid"))
}

fn reason<T, E>(answer: Poll<Result<T, Failure<E>>>) -> Option<Reason> {
    match answer {
        Poll::Ready(Err(failure)) => failure.rejected().map(|rejected: Rejected| rejected.reason()),
        _ => None,
    }
}

// 12: ninelives 0.2.0: calls a clone of the service within that has never been asked whether it is ready; a limit of calls in
// there panics. Fails if a full limit within a breaker were anything but a rejection.
#[test]
fn a_full_limit_within_a_breaker_is_a_rejection() {
    let (executor, breaker, full) = (VirtualExecutor::new(), breaker(Config::new()), bulkhead(1));
    let pipeline = Pipeline::new(&executor).layer_in_any_order(&breaker).layer_in_any_order(&full);
    let mut first = pin!(pipeline.call(|_| never::<Result<(), ()>>()));
    assert!(poll_once(first.as_mut()).is_pending());
    for _ in 0..100 {
        let second = pin!(pipeline.call(async |_| Ok::<_, ()>(())));
        assert_eq!(reason(poll_once(second)), Some(Reason::Full));
    }
    assert_eq!(breaker.state(), StateKind::Closed, "a full limit says nothing about the dependency");
}

/// A clock that stands still, and timers that are counted and never end.
#[derive(Default)]
struct Still(Cell<u32>);

impl Clock for Still {
    fn now(&self) -> Instant {
        Instant::START
    }
}

impl Executor for &Still {
    type Sleep = Pending<()>;

    fn sleep_until(&self, _: Instant) -> Pending<()> {
        self.0.set(self.0.get() + 1);
        core::future::pending()
    }

    fn random(&self) -> u32 {
        0
    }
}

// 17: tower-resilience-circuitbreaker 0.14.0: sleeps for a millisecond when another task has its lock, also to say no. Fails
// at the first rejection that is not there on the first poll, or that sets a timer, while another thread contends.
#[test]
fn a_rejection_never_waits() {
    const CALLS: u32 = 20_000;
    fn check<K>()
    where
        K: CellKind<State<<ConsecutiveFailures as Trip>::Meter>>,
        CircuitBreaker<K>: Sync,
    {
        let (still, contended, over) = (Still::default(), AtomicBool::new(false), AtomicBool::new(false));
        let breaker = CircuitBreaker::<K>::new(Config::new().validate().expect("valid"));
        failures_to_open(&breaker, &Instant::START, 9);
        let pipeline = Pipeline::new(&still).layer(&breaker);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    assert!(breaker.try_acquire(Instant::START).is_err());
                    breaker.handle_timeout(&Instant::START);
                    contended.store(true, Ordering::Relaxed);
                }
            });
            while !contended.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            let late = (0..CALLS).filter(|_| {
                let call = pin!(pipeline.call(async |_| Ok::<_, ()>(())));
                reason(poll_once(call)) != Some(Reason::Open)
            });
            let late = late.count();
            over.store(true, Ordering::Relaxed);
            assert_eq!((late, still.0.get()), (0, 0), "of {CALLS}");
        });
    }
    check::<Atomic>();
    check::<Locked>();
    // A full bulkhead without a queue, and a full queue, answer at once too.
    let (still, full) = (
        Still::default(),
        bulkhead::Bulkhead::<Atomic, NoQueue>::new(bulkhead::Config::new(1).validate().expect("valid")),
    );
    let _held = full.try_acquire().expect("free");
    let pipeline = Pipeline::new(&still).layer(&full);
    assert_eq!(reason(poll_once(pin!(pipeline.call(async |_| Ok::<_, ()>(()))))), Some(Reason::Full));
    assert_eq!(still.0.get(), 0);
}

/// Calls a backend that hangs, 50 times, each for a second; says how many calls reached it. `timeout` is within the
/// breaker; who calls gives up by itself otherwise.
fn reached(breaker: &CircuitBreaker<Atomic>, timeout: Option<Duration>) -> u32 {
    let (executor, backend) = (VirtualExecutor::new(), Script::new(&[Step::Hang]));
    let pipeline = Pipeline::new(&executor).layer(breaker).layer(Timeout::new(timeout.unwrap_or(Duration::MAX)));
    for _ in 0..50 {
        let mut call = Box::pin(pipeline.call(|_| backend.call(&executor)));
        let given_up = executor.now().saturating_add(SECOND);
        if poll_once(call.as_mut()).is_pending() {
            executor.jump_to(given_up);
            let _ = timeout.map(|_| poll_once(call.as_mut()));
        }
    }
    backend.calls()
}

// 18: recloser 1.4.0 and tower-resilience-circuitbreaker 0.14.0: a call that somebody's timeout around the breaker drops is
// no outcome, so a backend that hangs is called for ever. Fails if more than a threshold of calls reached it.
#[test]
fn a_backend_that_hangs_opens_the_breaker_wherever_the_timeout_is() {
    // Within, as in the documented order: the timeout is a failure.
    assert_eq!(reached(&breaker(Config::new()), Some(SECOND)), 5);
    // Around it, somebody else's: an abandoned call counts, if it had run for long.
    let patience = Duration::from_millis(500);
    assert_eq!(reached(&breaker(Config::new().with_abandoned(Abandoned::FailureAfter(patience))), None), 5);
    assert_eq!(reached(&breaker(Config::new().with_abandoned(Abandoned::Failure)), None), 5);
    // Left to the default, nothing is made of it: one who hangs up says nothing about the other end.
    assert_eq!(reached(&breaker(Config::new()), None), 50);
}

// 27: resilient 0.1.0: in its pipeline an open breaker calls all the same, and so does a full bulkhead. Fails if a call got
// through.
#[test]
fn an_open_breaker_and_a_full_bulkhead_stop_the_call() {
    let (executor, backend) = (VirtualExecutor::new(), Script::new(&[Step::Fail]));
    let threshold = ConsecutiveFailures::new(2).expect("valid");
    let pipeline = Pipeline::new(&executor).layer(breaker(Config::new().with_trip(threshold)));
    for _ in 0..50 {
        let _ = executor.run(pipeline.call(|_| backend.call(&executor))).expect("it ends");
    }
    assert_eq!(backend.calls(), 2);

    let backend = Script::new(&[Step::SucceedAfter(SECOND)]);
    let pipeline = Pipeline::new(&executor).layer(bulkhead(1));
    let mut calls: Vec<_> = (0..10).map(|_| Box::pin(pipeline.call(|_| backend.call(&executor)))).collect();
    let answers: Vec<_> = calls.iter_mut().map(|call| poll_once(call.as_mut())).collect();
    assert_eq!((backend.high_water(), backend.calls()), (1, 1));
    assert_eq!(answers.iter().filter(|answer| answer.is_pending()).count(), 1);
    assert!(answers.into_iter().skip(1).all(|answer| reason(answer) == Some(Reason::Full)));
}
