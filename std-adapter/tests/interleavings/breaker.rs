//! A circuit breaker in the lock-free cell.

use core::time::Duration;
use std::sync::Arc;

use failsoft_tokio::circuit_breaker::{Config, ConsecutiveFailures, StateKind};
use failsoft_tokio::{CircuitBreaker, Instant};

use crate::model::{Inside, Log, check, thread};

const PERIOD: Duration = Duration::from_nanos(10);
/// The open period is over.
const OVER: Instant = Instant::from_nanos(10);

/// A breaker that opens with the first failure and closes with the first good probe, and who looks on.
struct Rig {
    breaker: CircuitBreaker<ConsecutiveFailures, &'static Log>,
    log: &'static Log,
    inside: Inside,
}

impl Rig {
    fn closed() -> Self {
        Self::opening_at(1)
    }

    fn opening_at(failures: u32) -> Self {
        // It outlives the model's threads, and there are not many orders.
        let log: &'static Log = Box::leak(Box::default());
        let config = Config::new()
            .with_trip(ConsecutiveFailures::new(failures).expect("it makes sense"))
            .with_open_for(PERIOD)
            .with_trials(1, 1)
            .validate()
            .expect("it makes sense");
        let breaker = CircuitBreaker::with_observer(config, log);
        // Touches both words: the checkers want them to be made before the threads are.
        breaker.open_until(OVER);
        breaker.reset();
        log.clear();
        Self { breaker, log, inside: Inside::default() }
    }

    fn open() -> Arc<Self> {
        let rig = Self::closed();
        rig.breaker.try_acquire(Instant::START).expect("closed").failure();
        Arc::new(rig)
    }

    /// A probe, if it is let in.
    fn probe(&self, end: fn(Permit<'_>)) {
        if let Ok(permit) = self.breaker.try_acquire(OVER) {
            if permit.is_probe() {
                self.inside.enter(1);
                // Before: once the permit is spent, the next one may come in.
                self.inside.leave();
            }
            end(permit);
        }
    }
}

type Permit<'a> =
    failsoft_tokio::circuit_breaker::Permit<'a, failsoft_tokio::Atomic, ConsecutiveFailures, &'static Log, Instant>;

#[test]
fn of_failures_that_are_reported_at_once_each_counts() {
    check("breaker, two that report failures", || {
        let rig = Arc::new(Rig::opening_at(3));
        let fail = |rig: &Rig| rig.breaker.try_acquire(Instant::START).expect("closed").failure();
        let other = {
            let rig = rig.clone();
            thread::spawn(move || fail(&rig))
        };
        fail(&rig);
        fail(&rig);
        other.join().expect("it doesn't panic");
        assert_eq!(rig.log.path(), [StateKind::Closed, StateKind::Open]);
    });
}

#[test]
fn a_failure_is_counted_by_the_state_that_let_it_in_or_not_at_all() {
    check("breaker, a failure beside a change by hand", || {
        let rig = Arc::new(Rig::opening_at(9));
        let permit = rig.breaker.try_acquire(Instant::START).expect("closed");
        let other = {
            let rig = rig.clone();
            thread::spawn(move || {
                rig.breaker.open_until(OVER);
                rig.breaker.reset();
            })
        };
        permit.failure();
        other.join().expect("it doesn't panic");
        let now = rig.breaker.snapshot(&Instant::START);
        assert_eq!((now.state, now.counts.failures), (StateKind::Closed, 0));
    });
}

#[test]
fn of_all_that_come_as_the_open_period_ends_one_is_the_probe() {
    check("breaker, two at the end of the open period", || {
        let rig = Rig::open();
        let come = |rig: Arc<Rig>| {
            if let Ok(permit) = rig.breaker.try_acquire(OVER) {
                rig.inside.enter(1);
                // Held for good: as long as the probe is out, nobody else comes in.
                core::mem::forget(permit);
            }
        };
        let other = {
            let rig = rig.clone();
            thread::spawn(move || come(rig))
        };
        come(rig.clone());
        other.join().expect("it doesn't panic");
        assert_eq!(rig.inside.ever(), 1);
        assert_eq!(rig.log.path(), [StateKind::Closed, StateKind::Open, StateKind::HalfOpen]);
    });
}

#[test]
fn a_slot_comes_back_from_a_probe_that_is_given_up() {
    check("breaker, a probe given up", || {
        let rig = Rig::open();
        let held = rig.breaker.try_acquire(OVER).expect("the first probe");
        let other = {
            let rig = rig.clone();
            thread::spawn(move || rig.probe(|permit| drop(permit)))
        };
        drop(held);
        other.join().expect("it doesn't panic");
        assert_eq!(rig.breaker.snapshot(&OVER).probes, 0);
        assert!(rig.breaker.try_acquire(OVER).is_ok_and(|permit| permit.is_probe()));
        assert_eq!(rig.log.path(), [StateKind::Closed, StateKind::Open, StateKind::HalfOpen]);
    });
}

#[test]
fn a_late_report_changes_nothing_in_whatever_order_it_comes() {
    check("breaker, a late report", || {
        // For good, so that a permit can go to another thread. There are few orders.
        let rig: &'static Rig = Box::leak(Box::new(Rig::closed()));
        // Admitted while it is closed, reported when it is open, half-open or closed again.
        let late = rig.breaker.try_acquire(Instant::START).expect("closed");
        rig.breaker.try_acquire(Instant::START).expect("closed").failure();
        let other = thread::spawn(move || late.failure());
        rig.probe(|permit| permit.success());
        other.join().expect("it doesn't panic");
        let closed_again = [StateKind::Closed, StateKind::Open, StateKind::HalfOpen, StateKind::Closed];
        assert_eq!(rig.log.path(), closed_again);
    });
}

#[test]
fn failures_at_once_open_it_once() {
    check("breaker, failures at once", || {
        let rig = Arc::new(Rig::closed());
        let first = rig.clone();
        let other = thread::spawn(move || {
            if let Ok(permit) = first.breaker.try_acquire(Instant::START) {
                permit.failure();
            }
        });
        if let Ok(permit) = rig.breaker.try_acquire(Instant::START) {
            permit.failure();
        }
        other.join().expect("it doesn't panic");
        assert_eq!(rig.log.path(), [StateKind::Closed, StateKind::Open]);
        let rejected = rig.breaker.try_acquire(Instant::START).expect_err("open");
        assert_eq!(rejected.retry_at(), Some(OVER));
    });
}

#[test]
fn a_change_by_hand_and_a_probe_do_not_get_into_each_others_way() {
    check("breaker, reset while a probe reports", || {
        let rig = Rig::open();
        let prober = {
            let rig = rig.clone();
            thread::spawn(move || rig.probe(|permit| permit.failure()))
        };
        rig.breaker.reset();
        prober.join().expect("it doesn't panic");
        // Every change was told of, and the state is the last one.
        assert_eq!(rig.log.path().last(), Some(&rig.breaker.state()));
    });
}

#[test]
fn as_the_open_period_ends_for_the_clock_that_is_ahead_one_is_the_probe() {
    check("breaker, half-open by clocks three nanoseconds apart", || {
        let rig = Rig::open();
        // For one of them it is over, and for the other not yet: it is let in only where the first has made it half-open, and then alone.
        let come = |rig: Arc<Rig>, at: u64| {
            if let Ok(permit) = rig.breaker.try_acquire(Instant::from_nanos(at)) {
                assert!(permit.is_probe(), "admitted at {at} ns");
                rig.inside.enter(1);
                core::mem::forget(permit);
            }
        };
        let other = {
            let rig = rig.clone();
            thread::spawn(move || come(rig, 9))
        };
        come(rig.clone(), 12);
        other.join().expect("it doesn't panic");
        assert_eq!(rig.inside.ever(), 1);
        assert_eq!(rig.log.path(), [StateKind::Closed, StateKind::Open, StateKind::HalfOpen]);
    });
}

#[test]
fn of_two_failures_by_clocks_that_differ_one_opens_and_for_its_whole_period() {
    check("breaker, opened by clocks three nanoseconds apart", || {
        let rig = Arc::new(Rig::closed());
        let fail = |rig: Arc<Rig>, at: u64| {
            if let Ok(permit) = rig.breaker.try_acquire(Instant::from_nanos(at)) {
                assert!(!permit.is_probe());
                permit.failure();
            }
        };
        let other = {
            let rig = rig.clone();
            thread::spawn(move || fail(rig, 3))
        };
        fail(rig.clone(), 0);
        other.join().expect("it doesn't panic");
        assert_eq!(rig.log.path(), [StateKind::Closed, StateKind::Open]);
        let until = rig.breaker.poll_timeout();
        assert!([10, 13].map(|at| Some(Instant::from_nanos(at))).contains(&until), "until {until:?}");
    });
}
