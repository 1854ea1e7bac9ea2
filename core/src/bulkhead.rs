//! A bulkhead: at most so many calls at once, so that one slow dependency can't take every task or buffer there is.
//!
//! ```
//! use failsoft_core::{bulkhead::{Bulkhead, Config}, cell::Local};
//!
//! let bulkhead: Bulkhead<Local> = Bulkhead::new(Config::new(2).validate()?);
//! let first = bulkhead.try_acquire()?;
//! let _second = bulkhead.try_acquire()?;
//! assert!(bulkhead.try_acquire().is_err());
//! drop(first);
//! assert!(bulkhead.try_acquire().is_ok());
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # Waiting
//! With a [`WaitQueue`] a caller may wait, in order of arrival, in a bounded queue and for a bounded time. Nobody
//! overtakes: while someone waits, newcomers queue behind, a light one behind a heavy one too. A waiter that is dropped
//! leaves no trace. One that has been given its permits keeps them until it is polled or dropped.
//!
//! Or [the newest first](Config::with_newest_first): under lasting overload everyone waits for the longest wait when the
//! oldest is served first, and most of them in vain. The newest has a caller that is still there; a full queue rejects the
//! oldest in favour of a newcomer.
//!
//! # Priorities
//! Where some calls matter less, they can leave the last permits to others: a call of a [`Priority`] passes only while no more
//! than its share of the permits is in use, and is rejected at once otherwise. So the unimportant is the first to go under
//! load, and the important still finds a permit.
//!
//! ```
//! use failsoft_core::{Reason, bulkhead::{Bulkhead, Config, Priority}, cell::Local};
//!
//! let bulkhead: Bulkhead<Local> = Bulkhead::new(Config::new(4).validate()?);
//! let _busy = bulkhead.try_acquire_many(2)?;
//! let prefetch = bulkhead.try_acquire_at(1, Priority::LOW);
//! assert_eq!(prefetch.err().map(|rejected| rejected.reason()), Some(Reason::PriorityTooLow));
//! assert!(bulkhead.try_acquire_at(1, Priority::HIGH).is_ok());
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # Defaults
//!
//! | what | default | range | at the extremes |
//! | --- | --- | --- | --- |
//! | permits | none: say how many | 1 to [`MOST`] | |
//! | queue | none: a full bulkhead rejects at once | 0 to [`MOST`] permits waited for, and as many callers as the queue's storage holds | |
//! | order | the oldest first | or the newest first | |
//! | longest wait | comes with the queue | any | zero rejects at once, `Duration::MAX` waits for ever |
//! | priority of a call | [`Priority::CRITICAL`] (100 %) | above 0 to 100 % of the permits | a share of less than one permit is one |
//!
//! # When not to use it
//! To limit calls per time: that is a rate limiter's work.
//!
//! # Source
//! Nygard, "Release It!", 2007. The newest first: Maurer, "Fail at Scale", ACM Queue 13(8), 2015. Priorities: the criticality
//! levels of "Handling Overload", chapter 21 of "Site Reliability Engineering", O'Reilly 2016.

use core::cell::Cell;
use core::ops::Deref;
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use crate::cell::{CellKind, Fresh, Packed, StateCell, Stored};
use crate::config::{ConfigError, Valid, refuse};
use crate::executor::Executor;
use crate::failure::{Policy, Reason, Rejected};
use crate::time::Span;

mod acquire;
mod compartments;
mod layer;
mod priority;

use acquire::Waiting;

pub use crate::queue::{Line, LocalQueue, NoQueue, VecLine, WaitQueue, Waiter};
pub use acquire::Acquire;
pub use compartments::{Compartments, UnknownCompartment};
pub use layer::{BulkheadState, Weighted};
pub use priority::Priority;

/// The most permits or waiters that the counters hold.
pub const MOST: u32 = (1 << BITS) - 1;

/// Three counters share one word.
const BITS: u32 = 21;

/// The settings of a bulkhead.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Config {
    permits: u32,
    queue: u32,
    longest_wait: Span,
    newest_first: bool,
    // In whose name calls are rejected.
    policy: Policy,
}

impl Config {
    /// So many permits, and no queue.
    #[must_use]
    pub const fn new(permits: u32) -> Self {
        Self { permits, queue: 0, longest_wait: Span::ZERO, newest_first: false, policy: Policy::Bulkhead }
    }

    /// Lets callers wait for up to `permits` permits in all, each for up to `longest_wait`.
    #[must_use]
    pub const fn with_queue(mut self, permits: u32, longest_wait: Duration) -> Self {
        (self.queue, self.longest_wait) = (permits, Span::of(longest_wait));
        self
    }

    /// Serves the newest in the queue first. A newcomer that finds the queue full takes the place of the oldest, which is
    /// rejected as [evicted](Reason::Evicted). In a queue of fixed storage, whoever has been served keeps its place until
    /// it notices.
    #[must_use]
    pub const fn with_newest_first(mut self) -> Self {
        self.newest_first = true;
        self
    }

    /// As a part of another policy.
    pub(crate) const fn serving(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    /// The first field that doesn't, and why.
    pub const fn validate(self) -> Result<Valid<Self>, ConfigError> {
        match self.check() {
            Ok(()) => Ok(Valid::vouched(self)),
            Err(error) => Err(error),
        }
    }

    const fn check(&self) -> Result<(), ConfigError> {
        if let Err(error) = check_permits(self.permits) {
            return Err(error);
        }
        if self.queue > MOST {
            return Err(refuse!("queue", "is above 2,097,151, the most the counter holds"));
        }
        Ok(())
    }
}

const fn check_permits(permits: u32) -> Result<(), ConfigError> {
    match permits {
        0 => Err(refuse!("permits", "is zero: nothing could ever pass")),
        1..=MOST => Ok(()),
        _ => Err(refuse!("permits", "is above 2,097,151, the most the counter holds")),
    }
}

/// What a bulkhead can tell about itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Snapshot {
    /// Permits there are.
    pub permits: u32,
    /// Permits in use; after a shrink it may be more than there are, until the surplus has drained.
    pub in_use: u32,
    /// Permits that callers wait for.
    pub queued: u32,
    /// The most permits that were in use at once.
    pub high_water: u32,
    /// Calls rejected so far, saturating.
    pub rejected: u32,
}

/// A bulkhead: settings, shared counters, and where its waiters queue.
///
/// `K` says how the counters are shared, `Q` where callers wait; the adapters have aliases that choose both.
pub struct Bulkhead<K, Q = NoQueue>
where
    K: CellKind<Slots> + CellKind<Tally>,
{
    config: Config,
    slots: <K as CellKind<Slots>>::Cell,
    tally: <K as CellKind<Tally>>::Cell,
    queue: Q,
}

impl<K, Q> core::fmt::Debug for Bulkhead<K, Q>
where
    K: CellKind<Slots> + CellKind<Tally>,
{
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Bulkhead").field("slots", &self.slots.update(|slots| *slots)).finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<K, Q> defmt::Format for Bulkhead<K, Q>
where
    K: CellKind<Slots> + CellKind<Tally>,
{
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Bulkhead {{ slots: {} }}", self.slots.update(|slots| *slots));
    }
}

impl<K, Q> Bulkhead<K, Q>
where
    K: CellKind<Slots> + CellKind<Tally>,
    Q: WaitQueue,
{
    /// An empty bulkhead.
    #[must_use]
    pub const fn new(config: Valid<Config>) -> Self {
        Self {
            config: config.get(),
            slots: <K as CellKind<Slots>>::Cell::NEW,
            tally: <K as CellKind<Tally>>::Cell::NEW,
            queue: Q::NEW,
        }
    }

    /// Takes one permit now or not at all.
    ///
    /// # Errors
    /// The rejection.
    #[inline]
    pub fn try_acquire(&self) -> Result<Permit<&Self, K, Q>, Rejected> {
        Permit::try_acquire(self, 1)
    }

    /// Takes `weight` permits now or not at all. A weight of zero always passes.
    ///
    /// # Errors
    /// The rejection.
    pub fn try_acquire_many(&self, weight: u32) -> Result<Permit<&Self, K, Q>, Rejected> {
        Permit::try_acquire(self, weight)
    }

    /// Takes `weight` permits now or not at all, and not while more than the priority's share of them would be in use.
    ///
    /// # Errors
    /// The rejection.
    pub fn try_acquire_at(&self, weight: u32, priority: Priority) -> Result<Permit<&Self, K, Q>, Rejected> {
        match self.take(weight, priority) {
            Ok(_) => Ok(Permit { bulkhead: self, weight }),
            Err(reason) => Err(self.reject(reason)),
        }
    }

    /// Takes `weight` permits, waiting in the queue for them as long as the configuration allows.
    ///
    /// # Errors
    /// The rejection: the queue is full, the longest wait is over, or there are not so many permits.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the queue, and gives permits back that had just been granted. The place in the queue is lost.
    ///
    /// # Fairness
    /// First come, first served.
    pub const fn acquire<X: Executor>(&self, weight: u32, executor: X) -> Acquire<'_, K, Q, X> {
        Acquire::new(self, weight, executor)
    }

    /// Changes the number of permits, at once and without blocking anyone. After a shrink the surplus drains as its permits come back.
    ///
    /// # Errors
    /// Zero, or more than the counter holds; the old number stays.
    pub fn resize(&self, permits: u32) -> Result<(), ConfigError> {
        check_permits(permits)?;
        self.slots.update(|slots| slots.resized = permits);
        self.serve();
        // Whoever is now too heavy can never be served: it wakes up to find that out. From the end of the line, since one
        // that is woken may leave at once and let those behind it move up.
        let mut end = usize::MAX;
        while let Some((index, waker)) = self.last_above(permits, end) {
            waker.wake();
            end = index;
        }
        Ok(())
    }

    /// Everything there is to know, without disturbing it.
    pub fn snapshot(&self) -> Snapshot {
        let (slots, tally) = (self.slots.update(|slots| *slots), self.tally.update(|tally| *tally));
        let Slots { in_use, queued, .. } = slots;
        Snapshot {
            permits: slots.permits(&self.config),
            in_use,
            queued,
            high_water: tally.high_water,
            rejected: tally.rejected,
        }
    }

    pub(crate) fn in_use(&self) -> u32 {
        self.slots.read(|slots| slots.in_use)
    }

    /// Takes permits; says how many are then in use.
    #[inline]
    fn take(&self, weight: u32, priority: Priority) -> Result<u32, Reason> {
        let in_use = self.slots.update(|slots| slots.take(&self.config, weight, priority))?;
        self.note_in_use(in_use);
        Ok(in_use)
    }

    #[inline]
    fn note_in_use(&self, in_use: u32) {
        self.tally.update(|tally| tally.high_water = tally.high_water.max(in_use));
    }

    fn reject(&self, reason: Reason) -> Rejected {
        self.tally.update(|tally| tally.rejected = tally.rejected.saturating_add(1).min(Tally::MOST_REJECTED));
        match (self.config.policy, reason) {
            (policy @ Policy::AdaptiveLimit, Reason::Full) => Rejected::new(policy, Reason::LimitReached),
            (policy, _) => Rejected::new(policy, reason),
        }
    }

    #[inline]
    fn give_back(&self, weight: u32) {
        let someone_waits = self.slots.update(|slots| {
            slots.in_use = slots.in_use.saturating_sub(weight);
            slots.queued > 0
        });
        if someone_waits {
            self.serve();
        }
    }

    /// Hands free permits to those who wait, in order, and wakes them: one at a time, outside the lock.
    fn serve(&self) {
        loop {
            let served = self.queue.lock(|line| {
                let &Waiter { id, weight, .. } = self.next(line)?;
                let in_use = self.slots.update(|slots| slots.take_queued(&self.config, weight))?;
                let waker = if self.config.newest_first {
                    // Marked: whoever is no longer in line has been evicted.
                    let waiter = line.find(id)?;
                    waiter.served = true;
                    waiter.waker.clone()
                } else {
                    line.remove(id)?.waker
                };
                Some((in_use, waker))
            });
            let Some((in_use, waker)) = served else { return };
            self.note_in_use(in_use);
            waker.wake();
        }
    }

    /// Whose turn it is.
    fn next<'l>(&self, line: &'l Q::Line) -> Option<&'l Waiter> {
        if self.config.newest_first { line.iter().rev().find(|waiter| !waiter.served) } else { line.iter().next() }
    }

    /// The last waiter before place `end` that wants more than so many permits: its place and its waker.
    fn last_above(&self, permits: u32, end: usize) -> Option<(usize, Waker)> {
        self.queue.lock(|line| {
            let heavy =
                line.iter().enumerate().take(end).filter(|(_, waiter)| waiter.weight > permits && !waiter.served);
            heavy.last().map(|(index, waiter)| (index, waiter.waker.clone()))
        })
    }

    /// Joins the queue, unless permits are free or there is no place. `Ok(None)`: the permits are taken.
    fn join(&self, weight: u32, priority: Priority, waker: &Waker) -> Result<Option<u32>, Rejected> {
        loop {
            match self.queue.lock(|line| self.join_line(line, weight, priority, waker)) {
                Joined::Taken { in_use } => {
                    self.note_in_use(in_use);
                    return Ok(None);
                }
                Joined::Waits { id } => return Ok(Some(id)),
                Joined::Rejected(reason) => return Err(self.reject(reason)),
                // Outside the lock; then there may be room.
                Joined::Evicted(evicted) => evicted.waker.wake(),
            }
        }
    }

    /// Under the queue's lock, the counters too: whoever gives back permits either sees us waiting or left them for us.
    fn join_line(&self, line: &mut Q::Line, weight: u32, priority: Priority, waker: &Waker) -> Joined {
        match self.slots.update(|slots| slots.take_or_queue(&self.config, weight, priority)) {
            Ok(Some(in_use)) => return Joined::Taken { in_use },
            Ok(None) => {
                if let Some(id) = line.push_back(weight, waker.clone()) {
                    return Joined::Waits { id };
                }
                self.slots.update(|slots| slots.unqueue(weight));
            }
            Err(Reason::QueueFull) => {}
            Err(reason) => return Joined::Rejected(reason),
        }
        // Too large for the whole queue, it would evict everyone for nothing.
        if self.config.newest_first && weight <= self.config.queue {
            let oldest = line.iter().find(|waiter| !waiter.served).map(Waiter::id);
            if let Some(evicted) = oldest.and_then(|id| line.remove(id)) {
                self.slots.update(|slots| slots.unqueue(evicted.weight));
                return Joined::Evicted(evicted);
            }
        }
        Joined::Rejected(Reason::QueueFull)
    }

    /// Whether the waiter has been served or evicted; leaves its waker otherwise.
    fn poll_served(&self, id: u32, weight: u32, cx: &Context<'_>) -> Poll<Result<(), Rejected>> {
        let newest_first = self.config.newest_first;
        let replaced = self.queue.lock(|line| match line.find(id) {
            Some(waiter) if waiter.served => Err((Ok(()), line.remove(id))),
            // Only being served or evicted, or leaving by itself, takes a waiter out of the line.
            None if newest_first => Err((Err(Reason::Evicted), None)),
            None => Err((Ok(()), None)),
            Some(waiter) if waiter.waker.will_wake(cx.waker()) => Ok(None),
            Some(waiter) => Ok(Some(core::mem::replace(&mut waiter.waker, cx.waker().clone()))),
        });
        // Asked only now: a shrink before this is seen here, one after it wakes the new waker.
        let permits = self.slots.update(|slots| slots.permits(&self.config));
        // The old waker is dropped here, outside the lock.
        match replaced {
            Err((ended, _)) => Poll::Ready(ended.map_err(|reason| self.reject(reason))),
            Ok(_) if weight > permits => {
                self.leave(id, weight);
                Poll::Ready(Err(self.reject(Reason::TooHeavy)))
            }
            Ok(_) => Poll::Pending,
        }
    }

    /// Leaves the queue, or gives back what had just been granted.
    fn leave(&self, id: u32, weight: u32) {
        let left = self.queue.lock(|line| {
            let waiter = line.remove(id);
            if waiter.as_ref().is_some_and(|waiter| !waiter.served) {
                self.slots.update(|slots| slots.unqueue(weight));
            }
            waiter
        });
        match left {
            Some(waiter) if waiter.served => self.give_back(weight),
            // Somebody lighter may have waited behind us.
            Some(_) => self.serve(),
            None if self.config.newest_first => {}
            None => self.give_back(weight),
        }
    }
}

/// What became of a caller that would wait.
enum Joined {
    Taken {
        in_use: u32,
    },
    Waits {
        id: u32,
    },
    Rejected(Reason),
    /// Nothing yet: this one had to make room first.
    Evicted(Waiter),
}

/// Permits held. Dropping it gives them back. `B` points to the bulkhead: a reference, or an `Arc` for a permit that moves into
/// other work.
///
/// Leaking it (`mem::forget`) loses its permits for good; [`Bulkhead::snapshot`] shows them in use.
#[derive(Debug)]
#[must_use = "a permit that is dropped at once limits nothing"]
pub struct Permit<B, K, Q>
where
    B: Deref<Target = Bulkhead<K, Q>>,
    K: CellKind<Slots> + CellKind<Tally>,
    Q: WaitQueue,
{
    bulkhead: B,
    weight: u32,
}

#[cfg(feature = "defmt")]
impl<B, K, Q> defmt::Format for Permit<B, K, Q>
where
    B: Deref<Target = Bulkhead<K, Q>>,
    K: CellKind<Slots> + CellKind<Tally>,
    Q: WaitQueue,
{
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Permit {{ weight: {} }}", self.weight);
    }
}

impl<B, K, Q> Permit<B, K, Q>
where
    B: Deref<Target = Bulkhead<K, Q>>,
    K: CellKind<Slots> + CellKind<Tally>,
    Q: WaitQueue,
{
    /// Takes `weight` permits of the bulkhead that `bulkhead` points to, now or not at all.
    ///
    /// # Errors
    /// The rejection.
    #[inline]
    pub fn try_acquire(bulkhead: B, weight: u32) -> Result<Self, Rejected> {
        match bulkhead.take(weight, Priority::CRITICAL) {
            Ok(_) => Ok(Self { bulkhead, weight }),
            Err(reason) => Err(bulkhead.reject(reason)),
        }
    }
}

impl<B, K, Q> Drop for Permit<B, K, Q>
where
    B: Deref<Target = Bulkhead<K, Q>>,
    K: CellKind<Slots> + CellKind<Tally>,
    Q: WaitQueue,
{
    #[inline]
    fn drop(&mut self) {
        self.bulkhead.give_back(self.weight);
    }
}

/// The machine: what is in use, who waits, and how many permits there are since the last resize (0: as configured).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Slots {
    in_use: u32,
    queued: u32,
    resized: u32,
}

impl Fresh for Slots {
    const FRESH: Self = Self { in_use: 0, queued: 0, resized: 0 };
}

impl Stored for Slots {
    type Cell = Cell<Self>;
}

impl Slots {
    #[inline]
    const fn permits(&self, config: &Config) -> u32 {
        if self.resized == 0 { config.permits } else { self.resized }
    }

    /// Takes permits, unless others wait for them; says how many are then in use.
    #[inline]
    const fn take(&mut self, config: &Config, weight: u32, priority: Priority) -> Result<u32, Reason> {
        let permits = self.permits(config);
        let in_use = self.in_use.saturating_add(weight);
        // Whom newcomers may overtake: nobody, but that the newest goes first, and then not to what matters less.
        let first = self.queued == 0 || (config.newest_first && priority.is_highest());
        if weight == 0 || (in_use <= priority.of(permits) && first) {
            self.in_use = in_use;
            Ok(in_use)
        } else if weight > priority.of(permits) {
            Err(Reason::TooHeavy)
        } else if !priority.is_highest() {
            // Whatever it is that is in the way: it does not wait for it.
            Err(Reason::PriorityTooLow)
        } else {
            Err(Reason::Full)
        }
    }

    /// Takes permits, or a place in the queue (`None`).
    const fn take_or_queue(&mut self, config: &Config, weight: u32, priority: Priority) -> Result<Option<u32>, Reason> {
        match self.take(config, weight, priority) {
            Ok(in_use) => Ok(Some(in_use)),
            Err(Reason::Full) if config.queue == 0 || config.longest_wait.is_zero() => Err(Reason::Full),
            Err(Reason::Full) => {
                let queued = self.queued.saturating_add(weight);
                if queued > config.queue {
                    return Err(Reason::QueueFull);
                }
                self.queued = queued;
                Ok(None)
            }
            Err(reason) => Err(reason),
        }
    }

    /// Takes permits for the next in the queue, if they are free.
    const fn take_queued(&mut self, config: &Config, weight: u32) -> Option<u32> {
        let in_use = self.in_use.saturating_add(weight);
        if in_use > self.permits(config) {
            return None;
        }
        self.in_use = in_use;
        self.unqueue(weight);
        Some(in_use)
    }

    const fn unqueue(&mut self, weight: u32) {
        self.queued = self.queued.saturating_sub(weight);
    }
}

#[expect(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "fields are shifted and cut, by constant widths"
)]
impl Packed for Slots {
    #[inline]
    fn pack(self) -> (u64, u64) {
        let Self { in_use, queued, resized } = self;
        (u64::from(in_use) | u64::from(queued) << BITS | u64::from(resized) << (2 * BITS), 0)
    }

    #[inline]
    fn unpack(head: u64, _: u64) -> Self {
        let part = |index: u32| (head >> (index * BITS)) as u32 & MOST;
        Self { in_use: part(0), queued: part(1), resized: part(2) }
    }

    #[inline]
    fn has_tail(_: u64) -> bool {
        false
    }
}

/// What is remembered beside the machine: it decides nothing, so it need not change together with it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Tally {
    high_water: u32,
    rejected: u32,
}

impl Tally {
    /// One bit less than the type has: the packed word's highest is the cell's.
    const MOST_REJECTED: u32 = u32::MAX >> 1;
}

impl Fresh for Tally {
    const FRESH: Self = Self { high_water: 0, rejected: 0 };
}

impl Stored for Tally {
    type Cell = Cell<Self>;
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half of the word is meant")]
impl Packed for Tally {
    #[inline]
    fn pack(self) -> (u64, u64) {
        (u64::from(self.rejected) << 32 | u64::from(self.high_water), 0)
    }

    #[inline]
    fn unpack(head: u64, _: u64) -> Self {
        Self { high_water: head as u32, rejected: (head >> 32) as u32 }
    }

    #[inline]
    fn has_tail(_: u64) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;
