//! Coalescing: calls at the same time for the same key share one execution, and each gets a clone of what it came to.
//!
//! ```
//! use std::sync::Arc;
//! use failsoft_tokio::coalesce::Coalesce;
//! use failsoft_tokio::pipeline::Call;
//! use failsoft_tokio::{Failure, Pipeline, RetryPolicy, Tokio, retry};
//!
//! type Page = Result<Arc<str>, Failure<&'static str>>;
//! static PAGES: Coalesce<u32, Page> = Coalesce::new();
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn core::error::Error>> {
//! let pipeline = &Arc::new(Pipeline::new(Tokio).layer(RetryPolicy::new(retry::Config::new().validate()?)));
//! let page = |id| PAGES.call(id, move || Call::new(pipeline.clone(), move |_| fetch(id)));
//!
//! let (one, other) = tokio::join!(page(7), page(7)); // fetched once
//! assert!(matches!((one, other), (Ok(one), Ok(other)) if Arc::ptr_eq(&one, &other)));
//! # Ok(())
//! # }
//!
//! async fn fetch(id: u32) -> Result<Arc<str>, &'static str> {
//!     tokio::time::sleep(core::time::Duration::from_millis(20)).await;
//!     Ok(format!("page {id}").into())
//! }
//! ```
//!
//! When what everybody wants is not at hand (a cache entry has expired, an upstream is back), everybody asks for it at once. This
//! lets one of them ask. Around a pipeline it saves the policies within as well: one permit, one call for the breaker to count.
//!
//! # How it goes
//! Nothing is spawned. The first caller's operation becomes the shared execution; any of its callers drives it on when polled,
//! so that it goes on while at least one of them is, and every caller is woken when there is something to do. It runs in the
//! task of whoever polls it: what belongs to a task (task-local values, tracing spans) differs from poll to poll.
//!
//! | what happens | what follows |
//! | --- | --- |
//! | the execution ends | all its callers get a clone; a call from then on starts anew: nothing is cached |
//! | a caller is dropped, be it the first | the others go on with the same execution |
//! | all its callers are dropped | so is the execution, at once, and its permits come back |
//! | it panics | so does the caller that was polling it, and that one alone; the others start anew, as if it had never been |
//! | more keys than [`MAX_KEYS`] are under way | calls for other keys run alone |
//!
//! So a panic never leaves anybody waiting, and an operation that always panics does so once for each caller, as it would
//! without coalescing.
//!
//! An operation must not make a call of its own key, nor wait for somebody who does: it would wait for itself.
//!
//! An execution takes a handful of small allocations, and its future is boxed; to join one takes room for a waker.
//! Each time an execution can go on all its callers are woken, of which one drives it: an operation that waits many times costs
//! that many wake-ups of each caller.
//!
//! # Defaults
//!
//! | what | default | range | at the extremes |
//! | --- | --- | --- | --- |
//! | keys under way | at most [`MAX_KEYS`] (10,000) | any | zero: every call runs alone |
//!
//! # When not to use it
//! For what changes something: two orders are two orders. Where each caller needs an answer that was asked for after its own call: those who
//! join get the answer to a question that was put before, unless [`forget`](Coalesce::forget) has come between. And where callers have
//! deadlines of their own, put these around the shared call, not within it.
//!
//! # Source
//! Go's `golang.org/x/sync/singleflight`; for HTTP, the collapsed requests of RFC 9111, section 4, which nginx has as
//! `proxy_cache_lock`.

use core::fmt;
use core::future::{Future, poll_fn};
use core::hash::Hash;
use core::mem;
use core::pin::Pin;
use core::ptr;
use core::task::{Context, Poll, Waker, ready};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock, PoisonError, Weak};
use std::task::Wake;

use crate::sync::{Mutex, MutexGuard};

/// The most keys that are under way at once, unless said otherwise: far more than a server should have waiting for answers, and with
/// some hundred bytes each a few megabytes at most.
pub const MAX_KEYS: usize = 10_000;

/// What is under way, by key. The flights belong to their callers.
type Flights<Key, T> = HashMap<Key, Weak<Flight<T>>>;

/// Coalesces calls of equal keys; `T` is what an execution comes to, a `Result` as a rule.
pub struct Coalesce<Key, T> {
    max_keys: usize,
    // Made with the first call, so that this can stand in a `static`.
    flights: Mutex<Option<Flights<Key, T>>>,
}

impl<Key, T> fmt::Debug for Coalesce<Key, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coalesce").field("max_keys", &self.max_keys).finish_non_exhaustive()
    }
}

impl<Key, T> Default for Coalesce<Key, T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<Key, T> Coalesce<Key, T> {
    /// Nothing under way yet; at most [`MAX_KEYS`] keys at once.
    #[must_use]
    pub const fn new() -> Self {
        Self::with_max_keys(MAX_KEYS)
    }

    /// Nothing under way yet; at most so many keys at once.
    #[must_use]
    pub const fn with_max_keys(keys: usize) -> Self {
        Self { max_keys: keys, flights: Mutex::new(None) }
    }

    /// Keys that are under way.
    pub fn in_flight(&self) -> usize {
        lock(&self.flights).as_ref().map_or(0, HashMap::len)
    }
}

impl<Key: Eq + Hash, T> Coalesce<Key, T> {
    /// Leaves what is under way for this key to those who wait for it: the next call starts anew. For after a write, say, when
    /// what is being read may already be wrong.
    pub fn forget(&self, key: &Key) {
        self.remove_if(key, |_| true);
    }

    fn remove_if(&self, key: &Key, condition: impl Fn(&Weak<Flight<T>>) -> bool) {
        let mut flights = lock(&self.flights);
        let Some(known) = flights.as_mut() else { return };
        let removed = if known.get(key).is_some_and(condition) { known.remove_entry(key) } else { None };
        // Outside the lock.
        drop(flights);
        drop(removed);
    }
}

impl<Key: Clone + Eq + Hash, T: Clone> Coalesce<Key, T> {
    /// Makes a call, or joins the one that is under way for this key.
    ///
    /// `operation` runs where there is none to join; a second time only when what it had begun has panicked in another
    /// caller's hands.
    ///
    /// # Panics
    /// Where the operation does, in the caller that happens to be polling it.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the execution to the other callers. With the last of them it is dropped, at its current await; what
    /// it had done by then stays done.
    pub async fn call<F, Fut>(&self, key: Key, mut operation: F) -> T
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = T> + Send + 'static,
    {
        while let Some(mut seat) = self.join(&key) {
            if let Some(result) = poll_fn(|cx| seat.poll(&mut operation, cx)).await {
                return result;
            }
        }
        // Boxed, because this is rare: room for it would make the calls of all who share larger.
        Box::pin(operation()).await
    }

    /// A seat in the flight of this key, in a new one where there is none; `None` when there are too many already.
    fn join<'c>(&'c self, key: &'c Key) -> Option<Seat<'c, Key, T>> {
        let mut flights = lock(&self.flights);
        let known = flights.get_or_insert_default();
        let flight = match known.get(key).map(Weak::upgrade) {
            Some(Some(flight)) => flight,
            None if known.len() >= self.max_keys => return None,
            // One that is there without callers is about to be swept away.
            Some(None) | None => {
                let flight = Arc::new(Flight::new());
                known.insert(key.clone(), Arc::downgrade(&flight));
                flight
            }
        };
        Some(Seat { place: None, flight, sweep: Sweep { coalesce: self, key } })
    }
}

/// An execution that callers share.
///
/// Not `futures_util::future::Shared`: there a panic leaves the others unwoken, and a wake-up during a poll is lost when the caller that
/// polls is dropped (rust-lang/futures-rs#2706).
struct Flight<T> {
    // While nobody polls it; none before its start and after its end.
    future: Mutex<Option<Pin<Box<dyn Future<Output = T> + Send>>>>,
    result: OnceLock<T>,
    // Apart, so that a waker that the future keeps does not keep the future.
    bell: Arc<Bell>,
}

impl<T> Flight<T> {
    fn new() -> Self {
        let crowd = Crowd { stage: Stage::Idle, woken: true, wakers: BTreeMap::new(), next_place: 0 };
        Self { future: Mutex::new(None), result: OnceLock::new(), bell: Arc::new(Bell(Mutex::new(crowd))) }
    }
}

/// How far an execution is.
///
/// ```text
///            turn              end
///    Idle ──────────▶ Driven ──────────▶ Over
///      ▲                │
///      └────────────────┘
///        end, not ready yet
/// ```
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    /// Nobody polls the future. When it was woken, everybody who waits has been woken too: the first one to come polls it.
    Idle,
    /// Somebody polls it.
    Driven,
    /// It has a result, or has panicked.
    Over,
}

/// What a caller that is polled has to do.
enum Turn {
    Wait,
    Drive,
    Over,
}

/// Those who wait for an execution.
struct Crowd {
    stage: Stage,
    // Whether the future has to be polled, at first or since it was last polled.
    woken: bool,
    // In the order in which the callers came.
    wakers: BTreeMap<u64, Waker>,
    next_place: u64,
}

/// Wakes the crowd: the waker that the future is polled with.
struct Bell(Mutex<Crowd>);

impl Bell {
    /// Asks for a turn, and leaves a waker for when there is one.
    fn turn(&self, place: &mut Option<u64>, waker: &Waker) -> Turn {
        // Dropped after the lock: with a waker goes its task, where it was the last to know it.
        let _replaced;
        let mut crowd = lock(&self.0);
        if crowd.stage == Stage::Over {
            return Turn::Over;
        }
        let place = *place.get_or_insert_with(|| {
            crowd.next_place = crowd.next_place.wrapping_add(1);
            crowd.next_place
        });
        if !crowd.wakers.get(&place).is_some_and(|kept| kept.will_wake(waker)) {
            _replaced = crowd.wakers.insert(place, waker.clone());
        }
        if crowd.stage == Stage::Driven || !crowd.woken {
            return Turn::Wait;
        }
        (crowd.stage, crowd.woken) = (Stage::Driven, false);
        Turn::Drive
    }

    /// Ends a turn. When there is more to do, whoever waits is woken, and not only the one whose turn it was: that one may be dropped.
    fn end(&self, stage: Stage) {
        let mut crowd = lock(&self.0);
        crowd.stage = stage;
        let woken = if stage == Stage::Over || crowd.woken { mem::take(&mut crowd.wakers) } else { BTreeMap::new() };
        drop(crowd);
        woken.into_values().for_each(Waker::wake);
    }

    fn leave(&self, place: u64) {
        let waker = lock(&self.0).wakers.remove(&place);
        // Outside the lock.
        drop(waker);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut crowd = lock(&self.0);
        crowd.woken = true;
        // While it is polled nobody else can; the end of the turn wakes them.
        let woken = if crowd.stage == Stage::Driven { BTreeMap::new() } else { mem::take(&mut crowd.wakers) };
        drop(crowd);
        woken.into_values().for_each(Waker::wake);
    }
}

/// A caller's part in a flight.
struct Seat<'c, Key: Eq + Hash, T> {
    // Once it has been polled.
    place: Option<u64>,
    flight: Arc<Flight<T>>,
    // Last, so that it comes after the flight: also where its future panics when it is dropped with its last caller.
    sweep: Sweep<'c, Key, T>,
}

impl<Key: Eq + Hash, T> Seat<'_, Key, T> {
    fn leave(&self) {
        if let Some(place) = self.place {
            self.flight.bell.leave(place);
        }
    }

    /// Polls the future, which is started where it isn't yet.
    fn drive<F, Fut>(&self, operation: &mut F) -> Poll<()>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = T> + Send + 'static,
    {
        let mut turn = OwnTurn { seat: self, stage: Stage::Over, result: None };
        let idle = lock(&self.flight.future).take();
        let mut future = idle.unwrap_or_else(|| Box::pin(operation()));
        let waker = Waker::from(self.flight.bell.clone());
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => {
                *lock(&self.flight.future) = Some(future);
                turn.stage = Stage::Idle;
                Poll::Pending
            }
            Poll::Ready(result) => {
                // Its permits are back before anybody learns that it has ended.
                drop(future);
                turn.result = Some(result);
                Poll::Ready(())
            }
        }
    }
}

impl<Key: Eq + Hash, T: Clone> Seat<'_, Key, T> {
    /// The result, or `None` when it is over without one.
    fn poll<F, Fut>(&mut self, operation: &mut F, cx: &mut Context<'_>) -> Poll<Option<T>>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = T> + Send + 'static,
    {
        match self.flight.bell.turn(&mut self.place, cx.waker()) {
            Turn::Wait => return Poll::Pending,
            Turn::Drive => ready!(self.drive(operation)),
            Turn::Over => {}
        }
        Poll::Ready(self.flight.result.get().cloned())
    }
}

impl<Key: Eq + Hash, T> Drop for Seat<'_, Key, T> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A caller's turn to poll the future. It always ends, so that others get theirs: with a panic, the flight is over.
struct OwnTurn<'s, 'c, Key: Eq + Hash, T> {
    seat: &'s Seat<'c, Key, T>,
    stage: Stage,
    result: Option<T>,
}

impl<Key: Eq + Hash, T> Drop for OwnTurn<'_, '_, Key, T> {
    fn drop(&mut self) {
        let Seat { flight, sweep, .. } = self.seat;
        if self.stage == Stage::Over {
            // First, so that nobody joins who has not called before its end.
            sweep.coalesce.remove_if(sweep.key, |known| ptr::eq(known.as_ptr(), Arc::as_ptr(flight)));
            self.seat.leave();
        }
        if let Some(result) = self.result.take() {
            // There was none: this is the only turn that ends with one.
            let _ = flight.result.set(result);
        }
        flight.bell.end(self.stage);
    }
}

/// Takes the key of a flight without callers out of what is under way.
struct Sweep<'c, Key: Eq + Hash, T> {
    coalesce: &'c Coalesce<Key, T>,
    key: &'c Key,
}

impl<Key: Eq + Hash, T> Drop for Sweep<'_, Key, T> {
    fn drop(&mut self) {
        self.coalesce.remove_if(self.key, |known| known.strong_count() == 0);
    }
}

/// What is behind a lock is whole also after a panic: of others' code only what keys and wakers do to be compared and cloned runs
/// while it is held, and before anything is changed.
fn lock<S>(mutex: &Mutex<S>) -> MutexGuard<'_, S> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
