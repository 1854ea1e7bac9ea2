//! Calls at the same time that share one execution: who drives it, who is left when somebody goes, and what is left when all have gone.

#![expect(clippy::unwrap_used, reason = "a test may end with a panic")]

use core::future::{Future, pending, poll_fn};
use core::panic::AssertUnwindSafe;
use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::task::Wake;

use failsoft_tokio::bulkhead::{self, Bulkhead as CoreBulkhead};
use failsoft_tokio::coalesce::{Coalesce, MAX_KEYS};
use failsoft_tokio::pipeline::Call;
use failsoft_tokio::{
    Atomic, Backoff, Bulkhead, Cause, Failure, Pipeline, RetryPolicy, Rng, Stop, ThreadQueue, Tokio, retry, valid,
};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What runs and has run: each execution is in flight until it is dropped, ended or not.
#[derive(Default)]
struct Upstream {
    started: AtomicUsize,
    in_flight: AtomicI32,
    ended: AtomicUsize,
}

struct Busy(Arc<Upstream>);

impl Busy {
    fn new(upstream: &Arc<Upstream>) -> Self {
        upstream.in_flight.fetch_add(1, SeqCst);
        Self(upstream.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, SeqCst);
    }
}

impl Upstream {
    /// An execution that takes so long, and comes to its number.
    fn run(self: &Arc<Self>, takes: Duration) -> impl Future<Output = usize> + Send + use<> {
        let (number, busy) = (self.started.fetch_add(1, SeqCst) + 1, Busy::new(self));
        async move {
            sleep(takes).await;
            busy.0.ended.fetch_add(1, SeqCst);
            number
        }
    }

    /// Started, still there, ended.
    fn counts(&self) -> (usize, i32, usize) {
        (self.started.load(SeqCst), self.in_flight.load(SeqCst), self.ended.load(SeqCst))
    }
}

/// Counts how often it was woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// A waker, and how often it was woken.
fn waker() -> (Arc<Wakes>, Waker) {
    let wakes = Arc::new(Wakes::default());
    (wakes.clone(), Waker::from(wakes))
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(waker))
}

fn explode<T>() -> T {
    // By the hook, which would only fill the log.
    resume_unwind(Box::new("boom"))
}

/// A gate that executions wait at, with the wakers of those who do.
#[derive(Clone, Default)]
struct Gate(Arc<Mutex<(bool, Option<Waker>)>>);

impl Gate {
    fn pass(&self) -> impl Future<Output = u32> + Send + use<> {
        let gate = self.clone();
        poll_fn(move |cx| {
            let mut gate = gate.0.lock().unwrap();
            if gate.0 {
                return Poll::Ready(1);
            }
            gate.1 = Some(cx.waker().clone());
            Poll::Pending
        })
    }

    fn wake(&self) {
        let waker = self.0.lock().unwrap().1.take();
        waker.unwrap().wake();
    }

    fn open(&self) {
        self.0.lock().unwrap().0 = true;
        self.wake();
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_callers_share_one_execution_and_the_next_one_starts_anew() {
    static PAGES: Coalesce<&str, usize> = Coalesce::new();
    let (upstream, start) = (Arc::new(Upstream::default()), Instant::now());
    for round in 1..=2 {
        let calls = (0..100).map(|_| {
            let upstream = upstream.clone();
            tokio::spawn(async move { PAGES.call("home", || upstream.run(ms(20))).await })
        });
        for call in calls.collect::<Vec<_>>() {
            assert_eq!(call.await.unwrap(), round);
        }
        assert_eq!(start.elapsed(), ms(20) * u32::try_from(round).unwrap());
        assert_eq!((upstream.counts(), PAGES.in_flight()), ((round, 0, round), 0), "nothing is kept");
    }
}

#[tokio::test(start_paused = true)]
async fn each_key_has_an_execution_of_its_own() {
    let (coalesce, upstream) = (Coalesce::new(), Arc::new(Upstream::default()));
    let call = |key: String| coalesce.call(key, || upstream.run(ms(20)));
    let [a, b, c] = ["a", "b", "a"].map(str::to_owned);
    let (first, second, third, under_way) = tokio::join!(call(a), call(b), call(c), async { coalesce.in_flight() });
    assert_eq!((first, second, third, under_way), (1, 2, 1, 2));
    assert_eq!((upstream.counts(), coalesce.in_flight()), ((2, 0, 2), 0));
}

#[tokio::test(start_paused = true)]
async fn nothing_happens_before_the_first_poll() {
    let (coalesce, upstream) = (Coalesce::new(), Arc::new(Upstream::default()));
    drop(coalesce.call(1, || upstream.run(ms(20))));
    assert_eq!((upstream.counts(), coalesce.in_flight()), ((0, 0, 0), 0));
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_runs_once_for_all_and_its_failure_is_everybodys() {
    type Shared = Coalesce<u8, Result<u32, Failure<&'static str>>>;
    let (shared, attempts) = (Arc::new(Shared::new()), Arc::new(AtomicUsize::new(0)));
    let pipeline = Arc::new(
        Pipeline::new(Tokio)
            .layer(RetryPolicy::new(valid!(retry::Config::new().with_backoff(Backoff::none()).validate())))
            .layer(Bulkhead::new(valid!(bulkhead::Config::new(1).validate()))),
    );
    let calls = (0..100).map(|_| {
        let (shared, pipeline, attempts) = (shared.clone(), pipeline.clone(), attempts.clone());
        tokio::spawn(async move {
            let call = || {
                let attempts = attempts.clone();
                Call::new(pipeline.clone(), move |_| {
                    attempts.fetch_add(1, SeqCst);
                    async {
                        yield_now().await;
                        Err("down")
                    }
                })
            };
            shared.call(1, call).await
        })
    });
    let expected = Failure { cause: Cause::Inner("down"), attempts: 3, stop: Some(Stop::Attempts) };
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap(), Err(expected), "with one permit for a hundred callers");
    }
    assert_eq!((attempts.load(SeqCst), shared.in_flight()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn when_the_first_caller_goes_the_others_go_on_with_what_it_began() {
    let (coalesce, upstream, start) = (Coalesce::new(), Arc::new(Upstream::default()), Instant::now());
    let call = || coalesce.call((), || upstream.run(ms(20)));
    let (first, others) = (timeout(ms(15), call()), async { tokio::join!(call(), timeout(ms(10), call()), call()) });
    let (first, (second, third, fourth)) = tokio::join!(first, others);
    assert!(first.is_err() && third.is_err());
    assert_eq!((second, fourth, start.elapsed()), (1, 1, ms(20)));
    assert_eq!((upstream.counts(), coalesce.in_flight()), ((1, 0, 1), 0));
}

#[tokio::test(start_paused = true)]
async fn when_all_callers_go_the_execution_is_dropped_at_once_with_its_permits() {
    let bulkhead: Arc<CoreBulkhead<Atomic, ThreadQueue>> =
        Arc::new(Bulkhead::new(valid!(bulkhead::Config::new(1).validate())));
    let (coalesce, upstream) = (Arc::new(Coalesce::new()), Arc::new(Upstream::default()));
    let calls = (0..10).map(|_| {
        let (coalesce, bulkhead, upstream) = (coalesce.clone(), bulkhead.clone(), upstream.clone());
        tokio::spawn(async move {
            let operation = || {
                let (bulkhead, run) = (bulkhead.clone(), upstream.run(ms(20)));
                async move {
                    let _permit = bulkhead.try_acquire().unwrap();
                    run.await
                }
            };
            coalesce.call("key", operation).await
        })
    });
    let calls: Vec<_> = calls.collect();
    sleep(ms(1)).await;
    assert_eq!((bulkhead.snapshot().in_use, coalesce.in_flight()), (1, 1));
    for call in calls {
        assert_eq!((bulkhead.snapshot().in_use, upstream.counts()), (1, (1, 1, 0)));
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
    }
    assert_eq!((bulkhead.snapshot().in_use, upstream.counts(), coalesce.in_flight()), (0, (1, 0, 0), 0));
    assert_eq!(coalesce.call("key", || upstream.run(ms(20))).await, 2, "a call after that starts anew");
}

#[tokio::test(start_paused = true)]
async fn the_execution_is_gone_before_anybody_hears_of_its_end() {
    let (coalesce, upstream) = (Coalesce::new(), Arc::new(Upstream::default()));
    let call = async || {
        let result = coalesce.call(1, || upstream.run(ms(20))).await;
        (result, upstream.counts().1, coalesce.in_flight())
    };
    assert_eq!(tokio::join!(call(), call()), ((1, 0, 0), (1, 0, 0)));
}

#[test]
fn a_panic_is_the_pollers_alone_and_the_others_start_anew() {
    let (coalesce, gate, runs) = (Coalesce::new(), Gate::default(), AtomicUsize::new(0));
    let operation = || {
        let (pass, run) = (gate.pass(), runs.fetch_add(1, SeqCst));
        async move { if run == 0 { pass.await + explode::<u32>() } else { 7 } }
    };
    let (mut first, mut second) = (pin!(coalesce.call(1, operation)), pin!(coalesce.call(1, operation)));
    let mut third = Box::pin(coalesce.call(1, operation));
    let [(_, waker), (second_wakes, second_waker), (third_wakes, third_waker)] = [(); 3].map(|()| waker());
    assert!(poll(first.as_mut(), &waker).is_pending());
    assert!(poll(second.as_mut(), &second_waker).is_pending());
    assert!(poll(third.as_mut(), &third_waker).is_pending());
    gate.open();
    let woken = second_wakes.0.load(SeqCst);
    // The second polls it, and not the first, whose operation it was.
    assert!(catch_unwind(AssertUnwindSafe(|| poll(second.as_mut(), &second_waker))).is_err());
    assert_eq!((coalesce.in_flight(), woken, third_wakes.0.load(SeqCst)), (0, 1, 1), "those who wait were woken");
    assert_eq!(poll(third.as_mut(), &third_waker), Poll::Ready(7), "a second execution");
    assert_eq!(poll(first.as_mut(), &waker), Poll::Ready(7), "its own operation runs once more");
    assert_eq!((runs.load(SeqCst), coalesce.in_flight()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_always_panics_does_so_once_for_each_caller_and_nobody_hangs() {
    for early in [false, true] {
        let (coalesce, upstream) = (Arc::new(Coalesce::<u8, usize>::new()), Arc::new(Upstream::default()));
        let calls = (0..20).map(|_| {
            let (coalesce, upstream) = (coalesce.clone(), upstream.clone());
            tokio::spawn(async move {
                let operation = || {
                    let run = upstream.run(ms(20));
                    // Before there is a future, or in the midst of it.
                    if early { explode() } else { async { run.await + explode::<usize>() } }
                };
                coalesce.call(1, operation).await
            })
        });
        for call in calls.collect::<Vec<_>>() {
            assert!(call.await.unwrap_err().is_panic());
        }
        let (started, in_flight, _) = upstream.counts();
        assert_eq!((started, in_flight, coalesce.in_flight()), (20, 0, 0), "early: {early}");
    }
}

#[test]
fn an_execution_whose_drop_panics_leaves_no_key_behind() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                explode::<()>();
            }
        }
    }
    // Dropped with its last caller, and at its end.
    for ends in [false, true] {
        let coalesce = Coalesce::new();
        let operation = || {
            let bomb = Bomb;
            poll_fn(move |_| {
                let _ = &bomb;
                if ends { Poll::Ready(1) } else { Poll::Pending }
            })
        };
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let mut call = Box::pin(coalesce.call(1, operation));
            poll(call.as_mut(), Waker::noop())
        }));
        assert!(panicked.is_err());
        assert_eq!(coalesce.in_flight(), 0, "it ended: {ends}");
        let mut call = pin!(coalesce.call(1, || async { 2 }));
        assert_eq!(poll(call.as_mut(), Waker::noop()), Poll::Ready(2));
    }
}

#[test]
fn a_caller_whose_clone_panics_is_the_only_one_to_suffer() {
    struct Fragile(Arc<AtomicUsize>);
    impl Clone for Fragile {
        fn clone(&self) -> Self {
            if self.0.fetch_add(1, SeqCst) == 0 { explode() } else { Self(self.0.clone()) }
        }
    }
    let (coalesce, gate, clones) = (Coalesce::new(), Gate::default(), Arc::new(AtomicUsize::new(0)));
    let operation = || {
        let (pass, clones) = (gate.pass(), clones.clone());
        async move {
            pass.await;
            Fragile(clones)
        }
    };
    let (mut first, mut second) = (pin!(coalesce.call(1, operation)), pin!(coalesce.call(1, operation)));
    assert!(poll(first.as_mut(), Waker::noop()).is_pending());
    assert!(poll(second.as_mut(), Waker::noop()).is_pending());
    gate.open();
    assert!(catch_unwind(AssertUnwindSafe(|| poll(first.as_mut(), Waker::noop()))).is_err());
    assert!(poll(second.as_mut(), Waker::noop()).is_ready());
    assert_eq!(coalesce.in_flight(), 0);
}

#[test]
fn a_caller_that_is_polled_no_more_holds_up_nobody() {
    let (coalesce, gate) = (Coalesce::new(), Gate::default());
    let (mut first, mut second) = (pin!(coalesce.call(1, || gate.pass())), pin!(coalesce.call(1, || gate.pass())));
    let ((first_wakes, first_waker), (second_wakes, second_waker)) = (waker(), waker());
    assert!(poll(first.as_mut(), &first_waker).is_pending());
    assert!(poll(second.as_mut(), &second_waker).is_pending());
    gate.open();
    assert_eq!((first_wakes.0.load(SeqCst), second_wakes.0.load(SeqCst)), (1, 1));
    assert_eq!(poll(second.as_mut(), &second_waker), Poll::Ready(1), "though the first began it and is still there");
    assert_eq!(coalesce.in_flight(), 0);

    // What it began is over: a later call has nothing to do with it, nor it with the later one.
    let next = Gate::default();
    let mut later = pin!(coalesce.call(1, || next.pass()));
    assert!(poll(later.as_mut(), Waker::noop()).is_pending());
    assert_eq!(poll(first.as_mut(), &first_waker), Poll::Ready(1), "its own result, late");
    assert_eq!(coalesce.in_flight(), 1, "the later one is under way");
    next.open();
    assert_eq!(poll(later.as_mut(), Waker::noop()), Poll::Ready(1));
}

#[test]
fn who_leaves_late_takes_nothing_from_those_who_came_after() {
    let (coalesce, gates) = (Coalesce::new(), [Gate::default(), Gate::default()]);
    let mut first = Box::pin(coalesce.call(1, || gates[0].pass()));
    let mut second = pin!(coalesce.call(1, || gates[0].pass()));
    assert!(poll(first.as_mut(), Waker::noop()).is_pending());
    assert!(poll(second.as_mut(), Waker::noop()).is_pending());
    gates[0].open();
    assert!(poll(second.as_mut(), Waker::noop()).is_ready());
    let mut third = pin!(coalesce.call(1, || gates[1].pass()));
    assert!(poll(third.as_mut(), Waker::noop()).is_pending());
    drop(first);
    assert_eq!(coalesce.in_flight(), 1);
    let mut fourth = pin!(coalesce.call(1, || async { 9 }));
    assert!(poll(fourth.as_mut(), Waker::noop()).is_pending(), "it joins the third");
    gates[1].open();
    assert_eq!(poll(fourth.as_mut(), Waker::noop()), Poll::Ready(1));
    assert_eq!(poll(third.as_mut(), Waker::noop()), Poll::Ready(1));
}

#[test]
fn what_is_forgotten_goes_on_and_is_joined_no_more() {
    let (coalesce, gates) = (Coalesce::new(), [Gate::default(), Gate::default()]);
    let mut read = pin!(coalesce.call(1, || gates[0].pass()));
    coalesce.forget(&1);
    assert!(poll(read.as_mut(), Waker::noop()).is_pending());
    coalesce.forget(&2);
    assert_eq!(coalesce.in_flight(), 1);
    coalesce.forget(&1);
    assert_eq!(coalesce.in_flight(), 0);
    let mut reread = pin!(coalesce.call(1, || gates[1].pass()));
    assert!(poll(reread.as_mut(), Waker::noop()).is_pending());
    gates[0].open();
    assert_eq!(poll(read.as_mut(), Waker::noop()), Poll::Ready(1));
    assert_eq!(coalesce.in_flight(), 1, "the one that was begun after");
    assert!(poll(reread.as_mut(), Waker::noop()).is_pending());
}

#[tokio::test(start_paused = true)]
async fn beyond_the_keys_that_it_holds_a_call_runs_alone() {
    let (coalesce, upstream) = (Coalesce::with_max_keys(2), Arc::new(Upstream::default()));
    let call = |key: u8| coalesce.call(key, || upstream.run(ms(20)));
    let under_way = async { coalesce.in_flight() };
    let all = tokio::join!(call(1), call(2), call(3), call(3), call(1), under_way);
    assert_eq!(all, (1, 2, 3, 4, 1, 2));
    assert_eq!((upstream.counts(), coalesce.in_flight()), ((4, 0, 4), 0));
    assert_eq!(tokio::join!(call(3), call(3)), (5, 5), "there are places again");

    let none = Coalesce::with_max_keys(0);
    let alone = || none.call(1, || upstream.run(ms(20)));
    assert_eq!((tokio::join!(alone(), alone()), none.in_flight()), ((6, 7), 0));
    assert_eq!(format!("{:?}", Coalesce::<u8, u8>::default()), format!("Coalesce {{ max_keys: {MAX_KEYS}, .. }}"));
}

#[test]
fn a_wake_up_is_one_poll_of_the_execution_however_many_wait() {
    let (coalesce, gate, polls) = (Coalesce::new(), Gate::default(), Arc::new(AtomicUsize::new(0)));
    let operation = || {
        let (mut pass, polls) = (Box::pin(gate.pass()), polls.clone());
        poll_fn(move |cx| {
            polls.fetch_add(1, SeqCst);
            pass.as_mut().poll(cx)
        })
    };
    let mut calls: Vec<_> = (0..10).map(|_| (Box::pin(coalesce.call(1, operation)), waker())).collect();
    let mut poll_all = || {
        calls.iter_mut().map(|(call, (_, waker))| usize::from(poll(call.as_mut(), waker).is_pending())).sum::<usize>()
    };
    assert_eq!((poll_all(), poll_all()), (10, 10));
    assert_eq!(polls.load(SeqCst), 1, "those who join, and polls that nobody asked for, poll nothing");
    for round in 2..5 {
        gate.wake();
        assert_eq!((poll_all(), polls.load(SeqCst)), (10, round));
    }
    gate.open();
    assert_eq!((poll_all(), polls.load(SeqCst)), (0, 5));
    // Once for each wake-up, and once more for nobody: when it ended, all had been woken, and the first had its result.
    assert!(calls.iter().all(|(_, (wakes, _))| wakes.0.load(SeqCst) == 4));
}

/// A call on the heap that anybody may poll.
type Shared = Arc<Mutex<Pin<Box<dyn Future<Output = u32> + Send>>>>;

#[test]
fn a_wake_up_during_a_poll_is_not_lost_with_the_caller_that_polls() {
    let coalesce = Arc::new(Coalesce::<u8, u32>::new());
    let call = |operation: Pin<Box<dyn Future<Output = u32> + Send>>| -> Shared {
        let (coalesce, mut operation) = (coalesce.clone(), Some(operation));
        Arc::new(Mutex::new(Box::pin(async move { coalesce.call(1, || operation.take().unwrap()).await })))
    };
    let (wakes, second_waker) = waker();
    let second = call(Box::pin(pending()));
    let mut polls = 0;
    let (other, other_waker) = (second.clone(), second_waker.clone());
    let first = call(Box::pin(poll_fn(move |cx| {
        polls += 1;
        if polls == 2 {
            return Poll::Ready(polls);
        }
        // Woken while it is polled; another caller comes meanwhile, and can only wait.
        cx.waker().wake_by_ref();
        assert!(poll(other.lock().unwrap().as_mut(), &other_waker).is_pending());
        Poll::Pending
    })));
    assert!(poll(first.lock().unwrap().as_mut(), Waker::noop()).is_pending());
    // The first was woken too, and goes before it is polled again.
    drop(first);
    assert_eq!(wakes.0.load(SeqCst), 1, "the other one is to poll it");
    assert_eq!(poll(second.lock().unwrap().as_mut(), &second_waker), Poll::Ready(2));
    assert_eq!(coalesce.in_flight(), 0);
}

/// Polls its call, or drops it, as soon as it is woken, within whoever wakes it.
struct Inline {
    call: Mutex<Option<Pin<Box<dyn Future<Output = u32> + Send>>>>,
    polls: bool,
    wakes: AtomicUsize,
}

impl Inline {
    fn new(polls: bool, call: impl Future<Output = u32> + Send + 'static) -> Arc<Self> {
        Arc::new(Self { call: Mutex::new(Some(Box::pin(call))), polls, wakes: AtomicUsize::new(0) })
    }

    fn poll(self: &Arc<Self>) {
        // Outside the lock: within this poll it may be woken.
        let call = self.call.lock().unwrap().take();
        if let Some(mut call) = call
            && poll(call.as_mut(), &Waker::from(self.clone())).is_pending()
        {
            *self.call.lock().unwrap() = Some(call);
        }
    }
}

impl Wake for Inline {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, SeqCst);
        if self.polls {
            self.poll();
        } else {
            drop(self.call.lock().unwrap().take());
        }
    }
}

#[test]
fn whoever_is_woken_may_poll_its_call_or_drop_it_at_once() {
    for polls in [false, true] {
        let (coalesce, gate) = (Arc::new(Coalesce::<u8, u32>::new()), Gate::default());
        let inline = [(); 3].map(|()| {
            let (coalesce, gate) = (coalesce.clone(), gate.clone());
            Inline::new(polls, async move { coalesce.call(1, || gate.pass()).await })
        });
        inline.iter().for_each(Inline::poll);
        // With a lock held while waking, this would be for ever.
        gate.open();
        assert!(inline.iter().all(|inline| inline.wakes.load(SeqCst) == 1 && inline.call.lock().unwrap().is_none()));
        assert_eq!(coalesce.in_flight(), 0);
    }
}

#[test]
fn whoever_came_while_it_was_polled_may_do_so_too() {
    for (polls, ready) in [(false, false), (false, true), (true, false), (true, true)] {
        let coalesce = Arc::new(Coalesce::<u8, u32>::new());
        let shared = coalesce.clone();
        let other = Inline::new(polls, async move { shared.call(1, || async { 9 }).await });
        let joins = other.clone();
        let mut first = Some(poll_fn(move |cx| {
            joins.poll();
            if ready {
                return Poll::Ready(1);
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
        let mut call = Box::pin(coalesce.call(1, || first.take().unwrap()));
        assert_eq!(poll(call.as_mut(), Waker::noop()).is_ready(), ready);
        assert!(other.wakes.load(SeqCst) >= 1, "polls: {polls}, ready: {ready}");
        drop(call);
        drop(other.call.lock().unwrap().take());
        assert_eq!(coalesce.in_flight(), 0);
    }
}

#[test]
fn who_leaves_takes_its_waker_along_and_who_comes_with_another_one_replaces_it() {
    let (coalesce, gate) = (Coalesce::new(), Gate::default());
    let (mut first, mut second) = (Box::pin(coalesce.call(1, || gate.pass())), pin!(coalesce.call(1, || gate.pass())));
    let ([(wakes, waker), (later_wakes, later_waker)], (_, second_waker)) = ([(); 2].map(|()| waker()), waker());
    assert!(poll(first.as_mut(), &waker).is_pending());
    assert!(poll(second.as_mut(), &second_waker).is_pending());
    drop(waker);
    assert_eq!(Arc::strong_count(&wakes), 2, "it is kept");
    assert!(poll(first.as_mut(), &later_waker).is_pending());
    assert_eq!((Arc::strong_count(&wakes), Arc::strong_count(&later_wakes)), (1, 3));
    drop((first, later_waker));
    assert_eq!(Arc::strong_count(&later_wakes), 1);
}

#[test]
fn a_waker_that_the_operation_keeps_does_not_keep_the_operation() {
    let (coalesce, upstream, gate) = (Coalesce::new(), Arc::new(Upstream::default()), Gate::default());
    let operation = || {
        let (busy, pass) = (Busy::new(&upstream), gate.pass());
        async move {
            let _busy = busy;
            pass.await
        }
    };
    let mut call = Box::pin(coalesce.call(1, operation));
    assert!(poll(call.as_mut(), Waker::noop()).is_pending());
    assert_eq!(upstream.counts().1, 1);
    drop(call);
    assert_eq!((upstream.counts().1, coalesce.in_flight()), (0, 0));
    // Nobody is left to be woken.
    gate.wake();
}

#[test]
fn a_shared_call_may_be_sent() {
    fn is_send<T: Send>(_: &T) {}
    fn is_shared<T: Send + Sync>(_: &T) {}
    let coalesce = Coalesce::<String, Result<Arc<str>, Failure<String>>>::new();
    is_shared(&coalesce);
    is_send(&coalesce.call("key".into(), || async { Ok("value".into()) }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_storm_of_aborts_and_panics_nothing_is_under_way() {
    const TASKS: u32 = 8_000;
    /// What an operation does to those around it.
    async fn misbehave(busy: Busy, mut rng: Rng) -> Result<u32, &'static str> {
        for _ in 0..rng.next() % 6 {
            yield_now().await;
        }
        busy.0.ended.fetch_add(1, SeqCst);
        match rng.next() % 16 {
            0 => explode(),
            1..=3 => Err("down"),
            4 => {
                sleep(Duration::from_micros(u64::from(rng.next() % 500))).await;
                Ok(1)
            }
            5 => {
                // Woken from a thread of its own, also while it is polled.
                let (sender, receiver) = tokio::sync::oneshot::channel();
                tokio::task::spawn_blocking(move || sender.send(2));
                receiver.await.map_err(|_| "gone")
            }
            _ => Ok(3),
        }
    }
    let (coalesce, upstream) = (Arc::new(Coalesce::with_max_keys(6)), Arc::new(Upstream::default()));
    let mut rng = Rng::new(1);
    let mut tasks = Vec::new();
    for task in 0..TASKS {
        let (coalesce, upstream, key) = (coalesce.clone(), upstream.clone(), rng.next() % 8);
        tasks.push(tokio::spawn(async move {
            let mut seed = Rng::new(task.into());
            let operation = || {
                upstream.started.fetch_add(1, SeqCst);
                misbehave(Busy::new(&upstream), Rng::new(seed.next().into()))
            };
            if task % 64 == 0 {
                coalesce.forget(&key);
            }
            coalesce.call(key, operation).await
        }));
        if rng.next().is_multiple_of(3) {
            tasks[usize::try_from(rng.next()).unwrap() % tasks.len()].abort();
        }
        if rng.next().is_multiple_of(16) {
            yield_now().await;
        }
    }
    let (mut done, mut failed, mut cancelled, mut panicked) = (0, 0, 0, 0);
    for task in tasks {
        // Nobody waits for ever.
        match timeout(Duration::from_secs(60), task).await.unwrap() {
            Ok(Ok(_)) => done += 1,
            Ok(Err(_)) => failed += 1,
            Err(error) if error.is_cancelled() => cancelled += 1,
            Err(_) => panicked += 1,
        }
    }
    let endings = [done, failed, cancelled, panicked];
    assert!(endings.iter().all(|&count| count > 0), "not every ending was met: {endings:?}");
    let (started, in_flight, _) = upstream.counts();
    assert_eq!((in_flight, coalesce.in_flight()), (0, 0));
    assert!(started < done + failed + cancelled + panicked, "some were shared: {started} of {endings:?}");
    assert_eq!(coalesce.call(1, || async { Ok(4) }).await, Ok(4));
}
