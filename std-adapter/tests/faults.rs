//! What goes wrong around shared policies, as far as the other tests do not have it: see `tests/faults.md`.

#![expect(clippy::unwrap_used, reason = "a test may end with a panic")]

use core::cell::RefCell;
use core::hash::{Hash, Hasher};
use core::panic::AssertUnwindSafe;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Waker};
use core::time::Duration;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};
use std::task::Wake;
use std::thread;

use failsoft_tokio::budget::TokenConfig;
use failsoft_tokio::bulkhead::{self, Permit};
use failsoft_tokio::cell::{CellKind, Local};
use failsoft_tokio::circuit_breaker::{self, ConsecutiveFailures, State, StateKind, Trip};
use failsoft_tokio::{
    Atomic, Bulkhead, CircuitBreaker, Coalesce, Instant, KeyedRateLimiter, LastGood, Locked, Pipeline, Ratio, Rejected,
    ThreadQueue, Threads, TokenBudget, Tokio, Verdict, block_on, last_good, rate_limiter, valid,
};

/// What `f` comes to, in a thread of its own: a deadlock fails the test instead of hanging it.
fn finishes<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, result) = channel();
    let worker = thread::spawn(move || done.send(f()));
    let result = result.recv_timeout(Duration::from_secs(60));
    result.unwrap_or_else(|_| match worker.is_finished() {
        true => resume_unwind(worker.join().unwrap_err()),
        false => unreachable!("a deadlock"),
    })
}

fn panics<R>(f: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

const TOUCHY: failsoft_tokio::Valid<circuit_breaker::Config> =
    valid!(circuit_breaker::Config::new().with_trip(valid!(ConsecutiveFailures::new(1))).with_probes(1).validate());

/// A classifier that asks its own breaker, and isolates it, while the call that it judges is the probe.
fn judged_by_a_meddler<K: CellKind<State<<ConsecutiveFailures as Trip>::Meter>>>() {
    let breaker = circuit_breaker::CircuitBreaker::<K>::new(TOUCHY);
    breaker.half_open(&Threads);
    let meddling = |_: Result<&u32, &()>| {
        assert_eq!(breaker.state(), StateKind::HalfOpen);
        assert!(breaker.try_acquire(Threads).is_err(), "the only probe is out");
        breaker.isolate();
        Verdict::SUCCESS
    };
    let pipeline = Pipeline::new(Threads).layer(&breaker).classify(meddling);
    assert_eq!(block_on(pipeline.call(async |_| Ok(1))), Ok(1));
    let snapshot = breaker.snapshot(&Threads);
    assert_eq!((snapshot.state, snapshot.probes), (StateKind::Isolated, 0), "the probe is late");
    breaker.reset();
    breaker.try_acquire(Threads).unwrap().success();
}

#[test]
fn a_classifier_may_use_the_breaker_that_it_judges_for() {
    finishes(judged_by_a_meddler::<Local>);
    finishes(judged_by_a_meddler::<Locked>);
    finishes(judged_by_a_meddler::<Atomic>);
}

#[test]
fn one_breaker_serves_two_runtimes_and_a_plain_thread() {
    static BREAKER: CircuitBreaker = CircuitBreaker::new(TOUCHY);
    async fn ask() -> Result<(), Rejected> {
        BREAKER.try_acquire(Tokio).map(drop)
    }
    fn in_a_runtime<R: Send + 'static>(f: impl AsyncFnOnce() -> R + Send + 'static) -> R {
        let run = move || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(f());
        thread::spawn(run).join().unwrap()
    }
    in_a_runtime(async || BREAKER.try_acquire(Tokio).unwrap().failure());
    let rejected = [in_a_runtime(ask), in_a_runtime(ask), block_on(async { BREAKER.try_acquire(Threads).map(drop) })]
        .map(|result| result.unwrap_err().retry_at().unwrap());
    assert_eq!(rejected, [BREAKER.snapshot(&Threads).until.unwrap(); 3]);
}

/// A key or value with code of its own, which panics while it is told to.
#[derive(Debug, Eq, PartialEq)]
struct Rude(u32);

static PANICS: AtomicBool = AtomicBool::new(false);

impl Rude {
    fn act() {
        if PANICS.load(Ordering::Relaxed) {
            resume_unwind(Box::new("within a lock"));
        }
    }
}

impl Hash for Rude {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Self::act();
        self.0.hash(state);
    }
}

impl Clone for Rude {
    fn clone(&self) -> Self {
        Self::act();
        Self(self.0)
    }
}

/// Whether `f` panics with the code of [`Rude`] told to.
fn rudely<R>(f: impl FnOnce() -> R) -> bool {
    PANICS.store(true, Ordering::Relaxed);
    let panicked = panics(f);
    PANICS.store(false, Ordering::Relaxed);
    panicked
}

#[test]
fn user_code_that_panics_within_a_lock_leaves_the_policy_to_the_others() {
    finishes(|| {
        let limiter = KeyedRateLimiter::<Rude, 8>::new(valid!(
            rate_limiter::Config::new(1, Duration::from_secs(3_600)).validate()
        ));
        assert!(limiter.try_acquire(&Rude(1), &Threads).is_ok());
        assert!(rudely(|| limiter.try_acquire(&Rude(2), &Threads)));
        assert!(limiter.try_acquire(&Rude(1), &Threads).is_err(), "what was known is known");
        assert!(limiter.try_acquire(&Rude(2), &Threads).is_ok(), "nothing was taken for it");
        assert_eq!(limiter.keys(), 2);

        let shared = Coalesce::<Rude, u32>::new();
        assert!(rudely(|| block_on(shared.call(Rude(1), async || 1))));
        assert_eq!((block_on(shared.call(Rude(1), async || 2)), shared.in_flight()), (2, 0));

        let last = LastGood::<Rude>::new(valid!(last_good::Config::new().validate()));
        last.remember(&Rude(7), &Threads);
        assert!(rudely(|| last.get(&Threads)), "it is cloned within the lock");
        assert_eq!(last.get(&Threads).map(|good| good.value), Some(Rude(7)));
        assert!(rudely(|| last.remember(&Rude(8), &Threads)));
        last.remember(&Rude(9), &Threads);
        assert_eq!(last.get(&Threads).map(|good| good.value), Some(Rude(9)));
    });
}

#[test]
fn a_permit_that_a_thread_takes_with_it_comes_back_to_who_waits() {
    static BULKHEAD: Bulkhead =
        Bulkhead::new(valid!(bulkhead::Config::new(1).with_queue(1, Duration::from_secs(3_600)).validate()));
    thread_local!(static KEPT: RefCell<Option<Permit<&'static Bulkhead, Atomic, ThreadQueue>>> = const { RefCell::new(None) });
    let (end, ends) = channel::<()>();
    let (taken, is_taken) = channel();
    let keeper = thread::spawn(move || {
        KEPT.set(Some(BULKHEAD.try_acquire().unwrap()));
        taken.send(()).unwrap();
        // Until the other one waits; the permit goes with the thread's own variables.
        ends.recv().unwrap();
    });
    is_taken.recv().unwrap();
    finishes(move || {
        let mut waits = Box::pin(BULKHEAD.acquire(1, Threads));
        assert!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        end.send(()).unwrap();
        assert!(block_on(waits).is_ok(), "served when the thread had ended");
    });
    keeper.join().unwrap();
    let snapshot = BULKHEAD.snapshot();
    assert_eq!((snapshot.in_use, snapshot.queued), (0, 0));
}

#[test]
fn of_threads_that_bring_the_same_new_key_at_once_the_burst_passes() {
    const BURST: u32 = 3;
    for _ in 0..50 {
        let limiter = KeyedRateLimiter::<u32, 8>::new(valid!(
            rate_limiter::Config::new(BURST, Duration::from_secs(3_600)).validate()
        ));
        let start = Barrier::new(4);
        let ask = || {
            start.wait();
            (0..2).filter(|_| limiter.try_acquire(&7, &Threads).is_ok()).count()
        };
        let passed: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((passed, limiter.keys()), (BURST.try_into().unwrap(), 1));
    }
}

#[test]
fn of_threads_that_deposit_and_withdraw_at_once_no_more_is_taken_than_was_there() {
    const EACH: u32 = 1_000;
    // One retry for four calls, and none without.
    let config = TokenConfig::new().with_deposit(Ratio::percent(25)).with_minimum_per_second(0);
    let budget = TokenBudget::new(config.validate().unwrap());
    let start = Barrier::new(4);
    // Time stands still, so that no deposit ends.
    let deposit = || {
        start.wait();
        (0..EACH).for_each(|_| budget.deposit(1, &Instant::START));
        0
    };
    let withdraw = || {
        start.wait();
        (0..EACH).map(|_| u32::from(budget.try_withdraw(1, &Instant::START))).sum()
    };
    let taken: u32 = thread::scope(|scope| {
        let threads = [scope.spawn(deposit), scope.spawn(deposit), scope.spawn(withdraw), scope.spawn(withdraw)];
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(taken + budget.balance(&Instant::START), 2 * EACH / 4, "{taken} are taken");
}

type Waiting = Pin<Box<dyn Future<Output = bool> + Send>>;

/// Drops somebody else's place in the line when it is woken.
struct Jealous(Mutex<Option<Waiting>>);

impl Wake for Jealous {
    fn wake(self: Arc<Self>) {
        let other = self.0.lock().unwrap().take();
        drop(other);
    }
}

fn wait(bulkhead: &'static Bulkhead, weight: u32) -> Waiting {
    Box::pin(async move { bulkhead.acquire(weight, Threads).await.is_ok() })
}

fn is_pending(waiting: &mut Waiting, waker: &Waker) -> bool {
    waiting.as_mut().poll(&mut Context::from_waker(waker)).is_pending()
}

/// Two wait for a permit, of whom the first drops the second when it is woken, by `cause`; then all go.
fn woken_by(bulkhead: &'static Bulkhead, cause: impl FnOnce() + Send + 'static) {
    finishes(move || {
        let [mut woken, mut other] = [1, 1].map(|weight| wait(bulkhead, weight));
        let jealous = Arc::new(Jealous(Mutex::new(None)));
        assert!(is_pending(&mut woken, &Waker::from(jealous.clone())));
        assert!(is_pending(&mut other, Waker::noop()));
        *jealous.0.lock().unwrap() = Some(other);
        cause();
        assert!(jealous.0.lock().unwrap().is_none(), "it was woken");
        drop(woken);
        let snapshot = bulkhead.snapshot();
        assert_eq!((snapshot.in_use, snapshot.queued), (0, 0));
    });
}

#[test]
fn a_waker_may_drop_another_waiter_whatever_it_is_woken_by() {
    const HOUR: Duration = Duration::from_secs(3_600);
    const CONFIG: bulkhead::Config = bulkhead::Config::new(2).with_queue(4, HOUR);
    static RELEASED: Bulkhead = Bulkhead::new(valid!(CONFIG.validate()));
    static RESIZED: Bulkhead = Bulkhead::new(valid!(CONFIG.validate()));
    static LEFT: Bulkhead = Bulkhead::new(valid!(CONFIG.validate()));
    static EVICTED: Bulkhead =
        Bulkhead::new(valid!(bulkhead::Config::new(2).with_queue(2, HOUR).with_newest_first().validate()));

    let all = RELEASED.try_acquire_many(2).unwrap();
    woken_by(&RELEASED, move || drop(all));

    let all = RESIZED.try_acquire_many(2).unwrap();
    woken_by(&RESIZED, move || {
        RESIZED.resize(3).unwrap();
        drop(all);
    });

    // A heavy one in front is all that keeps them waiting.
    let one = LEFT.try_acquire().unwrap();
    let mut heavy = wait(&LEFT, 2);
    assert!(is_pending(&mut heavy, Waker::noop()));
    woken_by(&LEFT, move || {
        drop(heavy);
        drop(one);
    });

    let all = EVICTED.try_acquire_many(2).unwrap();
    woken_by(&EVICTED, move || {
        let mut newcomer = wait(&EVICTED, 1);
        assert!(is_pending(&mut newcomer, Waker::noop()), "the oldest had to go");
        drop(newcomer);
        drop(all);
    });
}
