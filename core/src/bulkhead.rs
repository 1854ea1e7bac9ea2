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
//! With a [`WaitQueue`] a caller may wait, in order of arrival, in a bounded queue and for a bounded time. Nobody overtakes: while
//! someone waits, newcomers queue behind, a light one behind a heavy one too. A waiter that is dropped leaves no trace. One
//! that has been given its permits keeps them until it is polled or dropped.
//!
//! # Defaults
//!
//! | what | default | range | at the extremes |
//! | --- | --- | --- | --- |
//! | permits | none: say how many | 1 to [`MOST`] | |
//! | queue | none: a full bulkhead rejects at once | 0 to [`MOST`] waiters, and what the queue's storage holds | |
//! | longest wait | comes with the queue | any | zero rejects at once, `Duration::MAX` waits for ever |
//!
//! # When not to use it
//! To limit calls per time: that is a rate limiter's work.
//!
//! # Source
//! Nygard, "Release It!", 2007.

use core::ops::Deref;
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use crate::cell::{CellKind, Fresh, Packed, StateCell};
use crate::config::{ConfigError, Valid, refuse};
use crate::executor::Executor;
use crate::failure::{Policy, Reason, Rejected};
use crate::time::Span;

mod acquire;
mod compartments;
mod layer;

use acquire::Waiting;

pub use crate::queue::{Line, LocalQueue, NoQueue, VecLine, WaitQueue, Waiter};
pub use acquire::Acquire;
pub use compartments::{Compartments, UnknownCompartment};
pub use layer::{BulkheadState, Weighted};

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
}

impl Config {
    /// So many permits, and no queue.
    #[must_use]
    pub const fn new(permits: u32) -> Self {
        Self { permits, queue: 0, longest_wait: Span::ZERO }
    }

    /// Lets up to `waiters` callers wait for up to `longest_wait`.
    #[must_use]
    pub const fn with_queue(mut self, waiters: u32, longest_wait: Duration) -> Self {
        (self.queue, self.longest_wait) = (waiters, Span::of(longest_wait));
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
    /// Callers that wait.
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

    #[inline]
    fn take(&self, weight: u32) -> Result<(), Reason> {
        let in_use = self.slots.update(|slots| slots.take(&self.config, weight))?;
        self.note_in_use(in_use);
        Ok(())
    }

    #[inline]
    fn note_in_use(&self, in_use: u32) {
        self.tally.update(|tally| tally.high_water = tally.high_water.max(in_use));
    }

    fn reject(&self, reason: Reason) -> Rejected {
        self.tally.update(|tally| tally.rejected = tally.rejected.saturating_add(1).min(Tally::MOST_REJECTED));
        Rejected::new(Policy::Bulkhead, reason)
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
                let weight = line.iter().next()?.weight;
                let in_use = self.slots.update(|slots| slots.take_queued(&self.config, weight))?;
                Some((in_use, line.pop_front()?))
            });
            let Some((in_use, waiter)) = served else { return };
            self.note_in_use(in_use);
            waiter.waker.wake();
        }
    }

    /// The last waiter before place `end` that wants more than so many permits: its place and its waker.
    fn last_above(&self, permits: u32, end: usize) -> Option<(usize, Waker)> {
        self.queue.lock(|line| {
            let heavy = line.iter().enumerate().take(end).filter(|(_, waiter)| waiter.weight > permits);
            heavy.last().map(|(index, waiter)| (index, waiter.waker.clone()))
        })
    }

    /// Joins the queue, unless permits are free or there is no place. `Ok(None)`: the permits are taken.
    fn join(&self, weight: u32, waker: &Waker) -> Result<Option<u32>, Rejected> {
        let joined = self.queue.lock(|line| {
            // Counted under the queue's lock: whoever gives back permits either sees us waiting or left them for us.
            match self.slots.update(|slots| slots.take_or_queue(&self.config, weight)) {
                Ok(Some(in_use)) => Ok((None, in_use)),
                Ok(None) => match line.push_back(weight, waker.clone()) {
                    Some(id) => Ok((Some(id), 0)),
                    None => {
                        self.slots.update(|slots| slots.queued = slots.queued.saturating_sub(1));
                        Err(Reason::QueueFull)
                    }
                },
                Err(reason) => Err(reason),
            }
        });
        match joined {
            Ok((place, in_use)) => {
                self.note_in_use(in_use);
                Ok(place)
            }
            Err(reason) => Err(self.reject(reason)),
        }
    }

    /// Whether the waiter has been served; leaves its waker otherwise.
    fn poll_served(&self, id: u32, weight: u32, cx: &Context<'_>) -> Poll<Result<(), Rejected>> {
        let replaced = self.queue.lock(|line| match line.find(id) {
            // Only being served, or leaving by itself, takes a waiter out of the line.
            None => Err(()),
            Some(waiter) if waiter.waker.will_wake(cx.waker()) => Ok(None),
            Some(waiter) => Ok(Some(core::mem::replace(&mut waiter.waker, cx.waker().clone()))),
        });
        // Asked only now: a shrink before this is seen here, one after it wakes the new waker.
        let permits = self.slots.update(|slots| slots.permits(&self.config));
        // The old waker is dropped here, outside the lock.
        match replaced {
            Err(()) => Poll::Ready(Ok(())),
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
            let waiter = line.remove(id)?;
            self.slots.update(|slots| slots.queued = slots.queued.saturating_sub(1));
            Some(waiter)
        });
        match left {
            // Somebody lighter may have waited behind us.
            Some(_) => self.serve(),
            None => self.give_back(weight),
        }
    }
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
        match bulkhead.take(weight) {
            Ok(()) => Ok(Self { bulkhead, weight }),
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

impl Slots {
    #[inline]
    const fn permits(&self, config: &Config) -> u32 {
        if self.resized == 0 { config.permits } else { self.resized }
    }

    /// Takes permits, unless others wait for them; says how many are then in use.
    #[inline]
    const fn take(&mut self, config: &Config, weight: u32) -> Result<u32, Reason> {
        let permits = self.permits(config);
        let in_use = self.in_use.saturating_add(weight);
        if weight == 0 || (in_use <= permits && self.queued == 0) {
            self.in_use = in_use;
            Ok(in_use)
        } else if weight > permits {
            Err(Reason::TooHeavy)
        } else {
            Err(Reason::Full)
        }
    }

    /// Takes permits, or a place in the queue (`None`).
    const fn take_or_queue(&mut self, config: &Config, weight: u32) -> Result<Option<u32>, Reason> {
        match self.take(config, weight) {
            Ok(in_use) => Ok(Some(in_use)),
            Err(Reason::Full) if config.queue == 0 || config.longest_wait.is_zero() => Err(Reason::Full),
            Err(Reason::Full) if self.queued >= config.queue => Err(Reason::QueueFull),
            Err(Reason::Full) => {
                self.queued = self.queued.saturating_add(1);
                Ok(None)
            }
            Err(reason) => Err(reason),
        }
    }

    /// Takes permits for the first in the queue, if they are free.
    const fn take_queued(&mut self, config: &Config, weight: u32) -> Option<u32> {
        let in_use = self.in_use.saturating_add(weight);
        if in_use > self.permits(config) {
            return None;
        }
        (self.in_use, self.queued) = (in_use, self.queued.saturating_sub(1));
        Some(in_use)
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
