//! A kit for tests of policies and of the applications that use them: virtual time, scripted services, recorded events.
//! No heap, no threads, no sleeping: a test of an hour takes microseconds, and runs the same on a chip.
//!
//! ```
//! use core::time::Duration;
//! use failsoft_core::testing::{Recorder, Script, Step, VirtualExecutor};
//! use failsoft_core::{Pipeline, cell::Local, circuit_breaker::{self, CircuitBreaker, StateKind, Transition}, timeout::Timeout};
//!
//! // A service that answers once and then hangs.
//! let service = Script::new(&[Step::Succeed, Step::Hang]);
//! let executor = VirtualExecutor::new();
//! let events = Recorder::<Transition, 8>::new();
//! let breaker = CircuitBreaker::<Local, _, _>::with_observer(circuit_breaker::Config::new().validate()?, &events);
//! let pipeline = Pipeline::new(&executor).layer(&breaker).layer(Timeout::new(Duration::from_millis(250)));
//!
//! for _ in 0..7 {
//!     let _ = executor.run(pipeline.call(|_| service.call(&executor)))?;
//! }
//! assert_eq!(service.calls(), 6); // one good, five that hung; the seventh was rejected
//! assert_eq!(executor.elapsed(), Duration::from_millis(5 * 250));
//! assert_eq!(events.take().map(|event| event.to).collect::<Vec<_>>(), [StateKind::Open]);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```

use core::cell::{Cell, RefCell};
use core::fmt;
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use crate::executor::Executor;
use crate::observe::Observer;
use crate::rng::Rng;
use crate::time::{Clock, Instant};

/// A clock that moves only by hand.
#[derive(Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ManualClock(Cell<Instant>);

impl ManualClock {
    /// A clock at its start.
    #[must_use]
    pub const fn new() -> Self {
        Self(Cell::new(Instant::START))
    }

    /// Moves forward, saturating.
    pub fn advance(&self, span: Duration) {
        self.0.set(self.0.get().saturating_add(span));
    }

    /// Jumps, forward or back.
    pub fn set(&self, now: Instant) {
        self.0.set(now);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.0.get()
    }
}

/// An executor for one future (joined of as many as you like) in virtual time: when everything waits, the clock jumps to
/// the next deadline. Up to `N` sleeps at once are kept; further ones are polled again at every step, which is only slower.
#[derive(Debug)]
pub struct VirtualExecutor<const N: usize = 32> {
    now: Cell<Instant>,
    rng: Cell<Rng>,
    timers: RefCell<heapless::Vec<Timer, N>>,
    next_id: Cell<u32>,
}

#[derive(Debug)]
struct Timer {
    id: u32,
    at: Instant,
    waker: Waker,
}

/// The future waits for something that no timer will bring: the test has a deadlock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Stalled;

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("everything waits, and no deadline is left that could end it")
    }
}

impl core::error::Error for Stalled {}

/// How often the future is polled before the clock jumps. Whoever wakes itself to be polled again gets its turn, and all others
/// are shown polls they did not ask for, which must be harmless.
const POLLS_PER_STEP: usize = 4;

impl VirtualExecutor {
    /// An executor at the clock's start, with seed 0.
    #[must_use]
    pub const fn new() -> Self {
        Self::seeded(0)
    }
}

impl Default for VirtualExecutor {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> VirtualExecutor<N> {
    /// An executor whose random numbers come from this seed.
    #[must_use]
    pub const fn seeded(seed: u64) -> Self {
        Self {
            now: Cell::new(Instant::START),
            rng: Cell::new(Rng::new(seed)),
            timers: RefCell::new(heapless::Vec::new()),
            next_id: Cell::new(0),
        }
    }

    /// Runs a future to its end.
    ///
    /// # Errors
    /// [`Stalled`] when it can't end: everything waits and there is no deadline to jump to.
    pub fn run<F: Future>(&self, future: F) -> Result<F::Output, Stalled> {
        let mut future = pin!(future);
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            for _ in 0..POLLS_PER_STEP {
                if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                    return Ok(output);
                }
            }
            let next = self.timers.borrow().iter().map(|timer| timer.at).min().ok_or(Stalled)?;
            self.jump_to(next);
        }
    }

    /// Moves the clock forward and wakes whoever waited for that. The clock never goes back.
    pub fn jump_to(&self, at: Instant) {
        self.now.set(self.now.get().max(at));
        while let Some(timer) = self.due() {
            timer.waker.wake();
        }
    }

    /// Virtual time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.now.get().saturating_duration_since(Instant::START)
    }

    /// Keeps a timer until it is due or dropped.
    fn keep(&self, timer: Timer) {
        let turned_away = self.place(timer);
        // Outside the borrow. Polled again, it asks for a place again.
        if let Some(timer) = turned_away {
            timer.waker.wake();
        }
    }

    /// Where there is no place left the earliest stay, so that the clock never jumps past one; answers who has to go.
    fn place(&self, timer: Timer) -> Option<Timer> {
        let mut timers = self.timers.borrow_mut();
        if let Some(kept) = timers.iter_mut().find(|kept| kept.id == timer.id) {
            *kept = timer;
            return None;
        }
        let timer = timers.push(timer).err()?;
        match timers.iter_mut().max_by_key(|kept| kept.at) {
            Some(latest) if latest.at > timer.at => Some(core::mem::replace(latest, timer)),
            _ => Some(timer),
        }
    }

    fn due(&self) -> Option<Timer> {
        let mut timers = self.timers.borrow_mut();
        let index = timers.iter().position(|timer| timer.at <= self.now.get())?;
        Some(timers.swap_remove(index))
    }
}

#[cfg(feature = "defmt")]
impl<const N: usize> defmt::Format for VirtualExecutor<N> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "VirtualExecutor {{ now: {} }}", self.now.get());
    }
}

impl<const N: usize> Clock for VirtualExecutor<N> {
    fn now(&self) -> Instant {
        self.now.get()
    }
}

impl<'a, const N: usize> Executor for &'a VirtualExecutor<N> {
    type Sleep = VirtualSleep<'a, N>;

    fn sleep_until(&self, at: Instant) -> VirtualSleep<'a, N> {
        let id = self.next_id.get();
        self.next_id.set(id.wrapping_add(1));
        VirtualSleep { executor: self, at, id }
    }

    fn random(&self) -> u32 {
        let mut rng = self.rng.get();
        let random = rng.next();
        self.rng.set(rng);
        random
    }
}

/// Sleeps in virtual time.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct VirtualSleep<'a, const N: usize = 32> {
    executor: &'a VirtualExecutor<N>,
    at: Instant,
    id: u32,
}

#[cfg(feature = "defmt")]
impl<const N: usize> defmt::Format for VirtualSleep<'_, N> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "VirtualSleep {{ at: {} }}", self.at);
    }
}

impl<const N: usize> Future for VirtualSleep<'_, N> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.executor.now() >= self.at {
            return Poll::Ready(());
        }
        self.executor.keep(Timer { id: self.id, at: self.at, waker: cx.waker().clone() });
        Poll::Pending
    }
}

impl<const N: usize> Drop for VirtualSleep<'_, N> {
    fn drop(&mut self) {
        self.executor.timers.borrow_mut().retain(|timer| timer.id != self.id);
    }
}

/// What a scripted service does with one call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Step {
    /// Answers at once.
    Succeed,
    /// Fails at once.
    Fail,
    /// Answers after this long.
    SucceedAfter(Duration),
    /// Fails after this long.
    FailAfter(Duration),
    /// Never answers.
    Hang,
}

/// A scripted service failed as it was told to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Scripted {
    /// The number of the call; the first is 1.
    pub call: u32,
}

impl fmt::Display for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call {} failed as scripted", self.call)
    }
}

impl core::error::Error for Scripted {}

/// A service that follows a script, one step a call; the last step repeats. An empty script succeeds.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Script<'a> {
    steps: &'a [Step],
    calls: Cell<u32>,
    in_flight: Cell<u32>,
    high_water: Cell<u32>,
}

impl<'a> Script<'a> {
    /// A service that follows these steps.
    #[must_use]
    pub const fn new(steps: &'a [Step]) -> Self {
        Self { steps, calls: Cell::new(0), in_flight: Cell::new(0), high_water: Cell::new(0) }
    }

    /// Calls the service; it answers with the number of the call.
    ///
    /// # Errors
    /// What the script says.
    pub async fn call<X: Executor>(&self, executor: X) -> Result<u32, Scripted> {
        let call = self.calls.get().saturating_add(1);
        self.calls.set(call);
        let _busy = Busy::enter(self);
        let index = usize::try_from(call).unwrap_or(usize::MAX).saturating_sub(1);
        match self.steps.get(index).or_else(|| self.steps.last()).copied().unwrap_or(Step::Succeed) {
            Step::Succeed => Ok(call),
            Step::Fail => Err(Scripted { call }),
            Step::SucceedAfter(span) => {
                executor.sleep_until(executor.now().saturating_add(span)).await;
                Ok(call)
            }
            Step::FailAfter(span) => {
                executor.sleep_until(executor.now().saturating_add(span)).await;
                Err(Scripted { call })
            }
            Step::Hang => never().await,
        }
    }

    /// Calls that have reached the service.
    #[must_use]
    pub fn calls(&self) -> u32 {
        self.calls.get()
    }

    /// Calls in the service now.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    /// The most calls that were in the service at once.
    #[must_use]
    pub fn high_water(&self) -> u32 {
        self.high_water.get()
    }
}

/// Counts a call as in flight until it is dropped, finished or not.
struct Busy<'s>(&'s Cell<u32>);

impl<'s> Busy<'s> {
    fn enter(script: &'s Script<'_>) -> Self {
        let in_flight = script.in_flight.get().saturating_add(1);
        script.in_flight.set(in_flight);
        script.high_water.set(script.high_water.get().max(in_flight));
        Busy(&script.in_flight)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Never completes, whatever it would have returned.
pub async fn never<T>() -> T {
    poll_fn(|_| Poll::Pending).await
}

/// Keeps the first `N` events it is told of.
#[derive(Debug)]
pub struct Recorder<E, const N: usize> {
    events: RefCell<heapless::Vec<E, N>>,
    missed: Cell<u32>,
}

impl<E, const N: usize> Recorder<E, N> {
    /// An empty recorder.
    #[must_use]
    pub const fn new() -> Self {
        Self { events: RefCell::new(heapless::Vec::new()), missed: Cell::new(0) }
    }

    /// The events since the last time, oldest first.
    pub fn take(&self) -> impl Iterator<Item = E> + use<E, N> {
        self.events.take().into_iter()
    }

    /// Events for which there was no room.
    #[must_use]
    pub fn missed(&self) -> u32 {
        self.missed.get()
    }
}

#[cfg(feature = "defmt")]
impl<E, const N: usize> defmt::Format for Recorder<E, N> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Recorder {{ kept: {}, missed: {} }}", self.events.borrow().len(), self.missed.get());
    }
}

impl<E, const N: usize> Default for Recorder<E, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E: Clone, const N: usize> Observer<E> for &Recorder<E, N> {
    fn observe(&self, event: &E) {
        if self.events.borrow_mut().push(event.clone()).is_err() {
            self.missed.set(self.missed.get().saturating_add(1));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
