//! The kit's own tests, and the instruments that the other modules' tests share.

use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::boxed::Box;
use std::collections::BTreeMap;
use std::panic::{catch_unwind, resume_unwind};
use std::string::ToString;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Wake;
use std::thread;
use std::vec::Vec;

use super::*;
use crate::bulkhead::{VecLine, WaitQueue};
use crate::cell::{CellKind, Fixed, Fresh, SettingsKind, StateCell};

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) const fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

/// Counts how often it was woken.
#[derive(Debug, Default)]
pub(crate) struct Wakes(AtomicUsize);

impl Wakes {
    pub(crate) fn new() -> (Arc<Self>, Waker) {
        let wakes = Arc::new(Self::default());
        (wakes.clone(), Waker::from(wakes))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    fn take(&self) -> usize {
        self.0.swap(0, Ordering::SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Does something when it is woken.
pub(crate) struct OnWake<F>(pub(crate) F);

impl<F: Fn() + Send + Sync + 'static> Wake for OnWake<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

/// An executor that counts what is asked of it, and whose clock and timers misbehave on demand.
#[derive(Debug)]
pub(crate) struct Rig {
    now: Cell<Instant>,
    reads: Cell<u32>,
    sleeps: Cell<u32>,
    early: Cell<Duration>,
    late: Cell<Duration>,
    timers: RefCell<BTreeMap<u32, (Instant, Option<Waker>)>>,
    rng: Cell<Rng>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::seeded(0)
    }

    pub(crate) fn seeded(seed: u64) -> Self {
        Self {
            now: Cell::new(Instant::START),
            reads: Cell::new(0),
            sleeps: Cell::new(0),
            early: Cell::new(Duration::ZERO),
            late: Cell::new(Duration::ZERO),
            timers: RefCell::new(BTreeMap::new()),
            rng: Cell::new(Rng::new(seed)),
        }
    }

    /// How often the clock has been read.
    pub(crate) fn reads(&self) -> u32 {
        self.reads.get()
    }

    /// How many sleeps have ever been asked for.
    pub(crate) fn sleeps(&self) -> u32 {
        self.sleeps.get()
    }

    /// How many sleeps there are now: timers that would still fire.
    pub(crate) fn live(&self) -> usize {
        self.timers.borrow().len()
    }

    /// The next timer to be armed fires so much too early.
    pub(crate) fn fire_early(&self, by: Duration) {
        self.early.set(by);
    }

    /// The executor stalls: the next jump ends so much too late.
    pub(crate) fn stall(&self, by: Duration) {
        self.late.set(by);
    }

    /// Sets the clock, forward or back, and wakes whoever waited for that.
    pub(crate) fn set(&self, now: Instant) {
        self.now.set(now);
        let due: Vec<Waker> = self
            .timers
            .borrow_mut()
            .values_mut()
            .filter(|(at, _)| *at <= now)
            .filter_map(|(_, waker)| waker.take())
            .collect();
        due.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn advance(&self, span: Duration) {
        self.set(self.now.get().saturating_add(span));
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now.get().saturating_duration_since(Instant::START)
    }

    /// Jumps to the next timer; false when there is none.
    pub(crate) fn jump(&self) -> bool {
        let next = self.timers.borrow().values().map(|(at, _)| *at).min();
        if let Some(next) = next {
            self.set(self.now.get().max(next).saturating_add(self.late.take()));
        }
        next.is_some()
    }

    /// Runs a future to its end, polling it only when it has been woken: a lost wake-up stalls it.
    pub(crate) fn run<F: Future>(&self, future: F) -> F::Output {
        let (wakes, waker) = Wakes::new();
        let (mut future, mut cx) = (pin!(future), Context::from_waker(&waker));
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                return output;
            }
            while wakes.take() == 0 {
                assert!(self.jump(), "everything waits, and no timer is left");
            }
        }
    }
}

impl Clock for Rig {
    fn now(&self) -> Instant {
        self.reads.set(self.reads.get() + 1);
        self.now.get()
    }
}

impl<'r> Executor for &'r Rig {
    type Sleep = RigSleep<'r>;

    fn sleep_until(&self, at: Instant) -> RigSleep<'r> {
        let id = self.sleeps.get();
        self.sleeps.set(id + 1);
        let early = at.saturating_duration_since(Instant::START).saturating_sub(self.early.take());
        let at = Instant::START.saturating_add(early);
        self.timers.borrow_mut().insert(id, (at, None));
        RigSleep { rig: self, id, at }
    }

    fn random(&self) -> u32 {
        let mut rng = self.rng.get();
        let random = rng.next();
        self.rng.set(rng);
        random
    }
}

#[derive(Debug)]
pub(crate) struct RigSleep<'r> {
    rig: &'r Rig,
    id: u32,
    at: Instant,
}

impl Future for RigSleep<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.rig.now.get() >= self.at {
            return Poll::Ready(());
        }
        self.rig.timers.borrow_mut().insert(self.id, (self.at, Some(cx.waker().clone())));
        Poll::Pending
    }
}

impl Drop for RigSleep<'_> {
    fn drop(&mut self) {
        self.rig.timers.borrow_mut().remove(&self.id);
    }
}

/// Polls once, with a waker that does nothing.
pub(crate) fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Runs both in the same task, until the second one ends.
pub(crate) async fn until<A: Future, B: Future>(background: A, bounded: B) -> B::Output {
    let (mut background, mut bounded) = (pin!(background), pin!(bounded));
    poll_fn(|cx| {
        let _ = background.as_mut().poll(cx);
        bounded.as_mut().poll(cx)
    })
    .await
}

/// Panics without a word on the terminal.
pub(crate) fn explode() -> ! {
    resume_unwind(Box::new("boom"))
}

/// Whether `f` panics with what [`explode`] throws.
pub(crate) fn explodes<R>(f: impl FnOnce() -> R) -> bool {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(_) => false,
        Err(payload) => match payload.downcast_ref::<&str>() {
            Some(&"boom") => true,
            _ => resume_unwind(payload),
        },
    }
}

/// An executor for any thread, whose clock stands still and whose sleeps never end.
#[derive(Debug)]
pub(crate) struct Endless;

impl Clock for Endless {
    fn now(&self) -> Instant {
        Instant::START
    }
}

impl Executor for Endless {
    type Sleep = core::future::Pending<()>;

    fn sleep_until(&self, _: Instant) -> Self::Sleep {
        core::future::pending()
    }

    fn random(&self) -> u32 {
        0
    }
}

/// Runs a future on this thread, polling it only when it has been woken.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let current = thread::current();
    let waker = Waker::from(Arc::new(OnWake(move || current.unpark())));
    let mut future = Box::pin(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// States shared by threads: a mutex.
#[derive(Debug)]
pub(crate) struct Threaded;

impl<S: Fresh> CellKind<S> for Threaded {
    type Cell = Mutex<S>;
}

impl SettingsKind for Threaded {
    type Settings<C: Copy> = Fixed;
}

impl<S: Fresh> StateCell<S> for Mutex<S> {
    const NEW: Self = Self::new(S::FRESH);

    fn update<R>(&self, mut f: impl FnMut(&mut S) -> R) -> R {
        f(&mut self.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A queue shared by threads.
#[derive(Debug)]
pub(crate) struct ThreadedQueue<const N: usize>(Mutex<VecLine<N>>);

impl<const N: usize> WaitQueue for ThreadedQueue<N> {
    type Line = VecLine<N>;

    const NEW: Self = Self(Mutex::new(VecLine::new()));

    fn lock<R>(&self, f: impl FnOnce(&mut VecLine<N>) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[test]
fn virtual_time_jumps_from_deadline_to_deadline() {
    let executor = VirtualExecutor::new();
    let asleep = async {
        (&executor).sleep_until(at(10)).await;
        assert_eq!(executor.elapsed(), ms(10));
        (&executor).sleep_until(at(3_600_000)).await;
    };
    assert_eq!(executor.run(asleep), Ok(()));
    assert_eq!(executor.elapsed(), ms(3_600_000));
    assert_eq!(executor.timers.borrow().len(), 0);
}

#[test]
fn a_sleep_into_the_past_is_over_at_once() {
    let executor = VirtualExecutor::new();
    executor.jump_to(at(5));
    executor.jump_to(at(3));
    assert_eq!(executor.run((&executor).sleep_until(at(5))), Ok(()));
    assert_eq!(executor.elapsed(), ms(5));
}

#[test]
fn a_future_that_nothing_will_wake_is_reported_as_stalled() {
    assert_eq!(VirtualExecutor::new().run(never::<()>()), Err(Stalled));
}

#[test]
fn a_dropped_sleep_leaves_no_timer() {
    let executor = VirtualExecutor::new();
    let mut sleep = Box::pin((&executor).sleep_until(at(1)));
    assert!(poll_once(sleep.as_mut()).is_pending());
    assert_eq!(executor.timers.borrow().len(), 1);
    drop(sleep);
    assert_eq!(executor.timers.borrow().len(), 0);
}

#[test]
fn a_jump_wakes_whoever_waited_for_that_and_nobody_else() {
    let executor = VirtualExecutor::new();
    let (wakes, waker) = Wakes::new();
    let (mut early, mut late) = (pin!((&executor).sleep_until(at(1))), pin!((&executor).sleep_until(at(2))));
    let mut cx = Context::from_waker(&waker);
    assert!(early.as_mut().poll(&mut cx).is_pending());
    assert!(late.as_mut().poll(&mut cx).is_pending());
    executor.jump_to(at(1));
    assert_eq!(wakes.count(), 1);
    assert!(early.as_mut().poll(&mut cx).is_ready());
    assert!(late.as_mut().poll(&mut cx).is_pending());
}

#[test]
fn more_sleeps_than_places_still_end_in_time() {
    let executor = VirtualExecutor::<2>::seeded(0);
    let naps = [50, 40, 30, 20, 10];
    let mut ended = Vec::new();
    let mut sleeps: Vec<_> = naps.iter().map(|&nap| Some(Box::pin((&executor).sleep_until(at(nap))))).collect();
    let all = poll_fn(|cx| {
        for (slot, nap) in sleeps.iter_mut().zip(naps) {
            if let Some(sleep) = slot
                && sleep.as_mut().poll(cx).is_ready()
            {
                *slot = None;
                ended.push((nap, executor.elapsed()));
            }
        }
        if sleeps.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    });
    assert_eq!(executor.run(all), Ok(()));
    assert_eq!(ended, [(10, ms(10)), (20, ms(20)), (30, ms(30)), (40, ms(40)), (50, ms(50))]);
}

#[test]
fn a_script_is_followed_step_by_step_and_its_last_step_repeats() {
    let executor = VirtualExecutor::new();
    let steps = [Step::Succeed, Step::Fail, Step::SucceedAfter(ms(5)), Step::FailAfter(ms(7))];
    let script = Script::new(&steps);
    let answers: Vec<_> = (0..5).map(|_| executor.run(script.call(&executor)).expect("it ends")).collect();
    assert_eq!(answers, [Ok(1), Err(2), Ok(3), Err(4), Err(5)].map(|answer| answer.map_err(|call| Scripted { call })));
    assert_eq!((script.calls(), executor.elapsed()), (5, ms(5 + 7 + 7)));
    assert_eq!(executor.run(Script::new(&[]).call(&executor)), Ok(Ok(1)));
}

#[test]
fn a_script_knows_who_is_in_flight_also_when_a_call_is_dropped() {
    let executor = VirtualExecutor::new();
    let script = Script::new(&[Step::Hang]);
    let (mut first, mut second) = (Box::pin(script.call(&executor)), Box::pin(script.call(&executor)));
    assert_eq!(script.calls(), 0, "nothing happens before the first poll");
    assert!(poll_once(first.as_mut()).is_pending());
    assert!(poll_once(second.as_mut()).is_pending());
    assert_eq!((script.calls(), script.in_flight(), script.high_water()), (2, 2, 2));
    drop((first, second));
    assert_eq!((script.in_flight(), script.high_water()), (0, 2));
}

#[test]
fn a_recorder_keeps_the_first_events_and_counts_the_rest() {
    let recorder = Recorder::<u8, 2>::new();
    (1..=4).for_each(|event| (&recorder).observe(&event));
    assert_eq!(recorder.take().collect::<Vec<_>>(), [1, 2]);
    assert_eq!((recorder.missed(), recorder.take().count()), (2, 0));
}

#[test]
fn the_manual_clock_goes_where_it_is_set_and_saturates() {
    let clock = ManualClock::new();
    clock.advance(ms(5));
    clock.advance(Duration::MAX);
    assert_eq!(clock.now(), Instant::MAX);
    clock.set(at(1));
    assert_eq!(clock.now(), at(1));
}

#[test]
fn the_same_seed_gives_the_same_random_numbers() {
    let draw = |seed| {
        let executor = VirtualExecutor::<1>::seeded(seed);
        [(&executor).random(), (&executor).random()]
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn a_jump_wakes_whoever_waits_for_that_time_and_nobody_else() {
    let executor = VirtualExecutor::<2>::seeded(0);
    let [(early, early_waker), (late, late_waker)] = [(); 2].map(|()| Wakes::new());
    let mut sooner = Box::pin((&executor).sleep_until(at(10)));
    let mut later = Box::pin((&executor).sleep_until(at(20)));
    assert!(sooner.as_mut().poll(&mut Context::from_waker(&early_waker)).is_pending());
    assert!(later.as_mut().poll(&mut Context::from_waker(&late_waker)).is_pending());
    executor.jump_to(at(9));
    assert_eq!((early.count(), late.count()), (0, 0));
    executor.jump_to(at(10));
    assert_eq!((early.count(), late.count()), (1, 0));
    executor.jump_to(at(30));
    assert_eq!((early.count(), late.count()), (1, 1));
}

#[test]
fn where_there_is_no_place_for_a_timer_the_latest_is_woken_to_come_again() {
    let executor = VirtualExecutor::<1>::seeded(0);
    let [(early, early_waker), (late, late_waker)] = [(); 2].map(|()| Wakes::new());
    let mut later = Box::pin((&executor).sleep_until(at(20)));
    let mut sooner = Box::pin((&executor).sleep_until(at(10)));
    assert!(later.as_mut().poll(&mut Context::from_waker(&late_waker)).is_pending());
    assert!(sooner.as_mut().poll(&mut Context::from_waker(&early_waker)).is_pending());
    assert_eq!((early.count(), late.count()), (0, 1), "the later one has lost its place");
    assert!(later.as_mut().poll(&mut Context::from_waker(&late_waker)).is_pending());
    assert_eq!((early.count(), late.count()), (0, 2), "and does not get it back");
    executor.jump_to(at(10));
    assert_eq!((early.count(), late.count()), (1, 2));
}

#[test]
fn what_goes_wrong_in_a_test_says_so() {
    assert_eq!(Stalled.to_string(), "everything waits, and no deadline is left that could end it");
    assert_eq!(Scripted { call: 3 }.to_string(), "call 3 failed as scripted");
}
