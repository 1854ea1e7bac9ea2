//! A rate limiter: at most so many calls per time, with room for a burst, and no cycles at whose border twice as many pass.
//!
//! ```
//! use core::time::Duration;
//! use failsoft_core::{Instant, cell::Local, rate_limiter::{Config, RateLimiter}};
//!
//! // Ten a second, at most two of them at once.
//! let limiter: RateLimiter<Local> = RateLimiter::new(Config::new(10, Duration::from_secs(1)).with_burst(2).validate()?);
//! limiter.try_acquire(&Instant::START)?;
//! limiter.try_acquire(&Instant::START)?;
//! let rejected = limiter.try_acquire(&Instant::START).expect_err("the burst is over");
//! assert_eq!(rejected.retry_at(), Some(Instant::from_millis(100)));
//! limiter.try_acquire(&Instant::from_millis(100))?;
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # How it counts
//! It keeps one instant: the *theoretical arrival time*, at which the next call would come if all came evenly spaced. Each
//! call moves it on by the interval between calls; a call passes while it is no further ahead of the clock than the burst
//! allows. So the permits come back one by one, a rejection knows the exact instant at which the same call would pass,
//! and a check is a few additions on one word. The interval is rounded up to a nanosecond: never more than the quota
//! passes.
//!
//! # Waiting
//! With a [queue](Config::with_queue), callers take permits that are not there yet, and wait until they are. Each has its own
//! instant, so the line needs neither storage nor a lock: the arrival time is the line. First come, first served; nobody
//! overtakes, since whoever comes later gets a later instant. [`acquire`](RateLimiter::acquire) waits,
//! [`reserve`](RateLimiter::reserve) says for how long and lets the caller do so.
//!
//! What the last in line gives back, by no longer waiting or by dropping its reservation, goes to whoever asks next. Those
//! who came later keep the instants they were given: what others before them give back can't be had again without letting
//! too many through at once, and their place stays empty.
//!
//! # Defaults
//!
//! | what | default | range | at the extremes |
//! | --- | --- | --- | --- |
//! | quota | none: say how many per period | 1 or more, in at most 36 years | at most one a nanosecond |
//! | burst | the whole quota | 1 or more | 1 spaces the calls evenly |
//! | queue | none: rejects at once | any number of permits | |
//! | longest wait | comes with the queue | any | zero rejects at once |
//!
//! # When not to use it
//! To limit calls at once: that is a bulkhead's work. To react to a dependency in trouble: a rate is a promise, not a measurement.
//!
//! # Source
//! The generic cell rate algorithm, virtual scheduling form: ITU-T I.371 (03/2004), annex A.

use core::cell::Cell;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;

use crate::cell::{CellKind, Fresh, Packed, Replaceable, SettingsCell, StateCell, Stored};
use crate::config::{ConfigError, Valid, refuse};
use crate::executor::Executor;
use crate::failure::{Policy, Reason, Rejected};
use crate::math::{divide_wide, times};
use crate::time::{Clock, Instant, Span, is_step_back};
use crate::timeout::poll_deadline;

mod keyed;
mod layer;

pub use keyed::{Arrivals, KeyedRateLimiter, OfKey, OfKeyState};
pub use layer::{LimiterState, Weighted};

/// The settings of a rate limiter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Config {
    permits: u32,
    period: Span,
    burst: u32,
    queue: u32,
    longest_wait: Span,
    // Worked out from these: nothing is multiplied or divided when a call asks for one.
    interval: Span,
    tolerance: Span,
    patience: Span,
}

impl Config {
    /// So many permits per period, all of which may be taken at once.
    #[must_use]
    pub const fn new(permits: u32, period: Duration) -> Self {
        let (zero, period) = (Span::ZERO, Span::of(period));
        let queue = 0;
        let config = Self {
            permits,
            period,
            burst: permits,
            queue,
            longest_wait: zero,
            interval: zero,
            tolerance: zero,
            patience: zero,
        };
        config.prepared()
    }

    /// At most so many at once.
    #[must_use]
    pub const fn with_burst(mut self, burst: u32) -> Self {
        self.burst = burst;
        self.prepared()
    }

    /// Lets callers wait for up to so many permits in all, each for up to `longest_wait`.
    #[must_use]
    pub const fn with_queue(mut self, permits: u32, longest_wait: Duration) -> Self {
        (self.queue, self.longest_wait) = (permits, Span::of(longest_wait));
        self.prepared()
    }

    /// Permits per period.
    #[must_use]
    pub const fn permits(&self) -> u32 {
        self.permits
    }

    /// The period.
    #[must_use]
    pub const fn period(&self) -> Duration {
        self.period.duration()
    }

    /// The most permits at once.
    #[must_use]
    pub const fn burst(&self) -> u32 {
        self.burst
    }

    const fn prepared(mut self) -> Self {
        let interval = match self.permits {
            0 => u64::MAX,
            permits => self.period.as_nanos().div_ceil(permits as u64),
        };
        self.interval = Span::from_nanos(interval);
        self.tolerance = self.times(self.burst);
        // The last in a full queue waits for all of it.
        let queue = self.times(self.queue);
        self.patience = if queue.as_nanos() < self.longest_wait.as_nanos() { queue } else { self.longest_wait };
        self
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    /// The first field that doesn't, and why.
    pub const fn validate(self) -> Result<Valid<Self>, ConfigError> {
        if self.permits == 0 {
            return Err(refuse!("permits", "is zero: nothing could ever pass"));
        }
        if self.period.is_zero() {
            return Err(refuse!("period", "is zero: that limits nothing"));
        }
        if self.burst == 0 {
            return Err(refuse!("burst", "is zero: nothing could ever pass"));
        }
        if self.tolerance.as_nanos() > Arrival::LAST / 4 {
            return Err(refuse!("burst", "takes more than 36 years to come back"));
        }
        Ok(Valid::vouched(self))
    }

    const fn times(&self, permits: u32) -> Span {
        Span::from_nanos(times(self.interval.as_nanos(), permits))
    }

    /// How far ahead of the clock the arrival time may be: a full burst taken, and a full queue. A clock that stepped back
    /// finds it further ahead.
    const fn horizon(&self) -> Span {
        Span::from_nanos(self.tolerance.as_nanos().saturating_add(self.patience.as_nanos()))
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} per {:?}, {} at once", self.permits, self.period.duration(), self.burst)
    }
}

/// What a limiter keeps: the theoretical arrival time of the next call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Arrival(u64);

impl Fresh for Arrival {
    const FRESH: Self = Self(0);
}

impl Stored for Arrival {
    type Cell = Cell<Self>;
}

impl Packed for Arrival {
    #[inline]
    fn pack(self) -> (u64, u64) {
        (self.0, 0)
    }

    #[inline]
    fn unpack(head: u64, _: u64) -> Self {
        Self(head)
    }

    #[inline]
    fn has_tail(_: u64) -> bool {
        false
    }
}

/// Permits that were taken: from when on they may be used, and the arrival time right after them.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
struct Taken {
    at: Instant,
    next: u64,
}

impl Arrival {
    /// The word's highest bit is the cell's own: 292 years are left.
    const LAST: u64 = u64::MAX >> 1;

    /// Not before now, and not beyond what the settings allow once the clock has stepped back.
    #[inline]
    fn at(self, config: &Config, now: Instant) -> u64 {
        let furthest = now.after(config.horizon()).as_nanos();
        if is_step_back(self.0.saturating_sub(furthest)) { furthest } else { self.0.max(now.as_nanos()) }
    }

    /// Takes permits that can be used within `wait`, which is no longer than the queue allows, or says when they could be. None
    /// at all wait for one, and take nothing.
    #[inline]
    fn take(&mut self, config: &Config, permits: u32, wait: Span, now: Instant) -> Result<Taken, Instant> {
        debug_assert!(wait <= config.patience, "nobody waits for longer than the queue allows");
        let needed = if permits <= 1 { config.interval } else { config.times(permits) };
        let free = |next: u64| Instant::from_nanos(next.saturating_sub(config.tolerance.as_nanos()));
        if let Some(next) = self.0.max(now.as_nanos()).checked_add(needed.as_nanos()).filter(|&next| next <= Self::LAST)
            && free(next) <= now.after(wait)
        {
            if permits > 0 {
                self.0 = next;
            }
            return Ok(Taken { at: free(next).max(now), next });
        }
        let (arrival, at) = self.refuse(config, needed, now);
        *self = arrival;
        Err(at)
    }

    /// What a rejection leaves, and when so much could be used.
    ///
    /// Whatever can be taken is within what the settings allow, so only here it matters whether the clock has stepped back. Then this
    /// brings the arrival back: or else all would be rejected until the clock has caught up.
    // Apart and by value, so that the arrival of a call that passes stays in a register.
    #[cold]
    #[cfg_attr(target_pointer_width = "64", inline(never))]
    fn refuse(self, config: &Config, needed: Span, now: Instant) -> (Self, Instant) {
        let from = self.at(config, now);
        let next = from.saturating_add(needed.as_nanos());
        let at = Instant::from_nanos(next.saturating_sub(config.tolerance.as_nanos())).max(now);
        (Self(self.0.min(from)), at)
    }

    /// Gives permits back if they are the last that were taken. Otherwise nobody can say what they have become: those who came
    /// later may rely on them, or they may have come back by themselves meanwhile.
    fn give_back(&mut self, config: &Config, permits: u32, taken: Taken) {
        if self.0 == taken.next {
            self.0 = self.0.saturating_sub(config.times(permits).as_nanos());
        }
    }

    /// Carries what was taken over to other settings, in permits: as many as the old ones and the new ones can owe.
    fn carry(&mut self, old: &Config, new: &Config, now: Instant) {
        let ahead = self.0.saturating_sub(now.as_nanos()).min(old.horizon().as_nanos());
        let ahead = u128::from(ahead).saturating_mul(new.interval.as_nanos().into());
        let ahead = ahead.checked_div(old.interval.as_nanos().into()).unwrap_or(0);
        let ahead = u64::try_from(ahead).unwrap_or(u64::MAX).min(new.horizon().as_nanos());
        self.0 = now.as_nanos().saturating_add(ahead).min(Self::LAST);
    }

    /// Permits that could be taken now; below zero, those that are taken beyond what there is.
    fn available(self, config: &Config, now: Instant) -> i64 {
        let ahead = self.at(config, now).saturating_sub(now.as_nanos());
        let (tolerance, interval) = (config.tolerance.as_nanos(), config.interval.as_nanos().max(1));
        let permits = |permits: u64| i64::try_from(permits).unwrap_or(i64::MAX);
        match tolerance.checked_sub(ahead) {
            Some(left) => permits(divide_wide(left, interval).0),
            None => {
                let beyond = ahead.saturating_sub(tolerance).saturating_add(interval).saturating_sub(1);
                permits(divide_wide(beyond, interval).0).saturating_neg()
            }
        }
    }
}

/// A rate limiter: settings, and the arrival time in one shared word.
///
/// With [`Live`](crate::cell::Live) cells its quota can be [replaced](Self::reconfigure) while it is in use.
pub struct RateLimiter<K: CellKind<Arrival>> {
    first: Config,
    settings: K::Settings<Config>,
    arrival: K::Cell,
}

impl<K: CellKind<Arrival>> fmt::Debug for RateLimiter<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter").field("arrival", &self.arrival.read(|arrival| *arrival)).finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<K: CellKind<Arrival>> defmt::Format for RateLimiter<K> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "RateLimiter {{ arrival: {} }}", self.arrival.read(|arrival| *arrival));
    }
}

impl<K: CellKind<Arrival>> RateLimiter<K> {
    /// A limiter with its whole burst.
    #[must_use]
    pub const fn new(config: Valid<Config>) -> Self {
        Self { first: config.get(), settings: K::Settings::NEW, arrival: K::Cell::NEW }
    }

    #[inline]
    fn with<R>(&self, f: impl FnOnce(&Config) -> R) -> R {
        self.settings.with(&self.first, f)
    }

    /// Takes one permit now or not at all.
    ///
    /// # Errors
    /// The rejection, with the instant at which one would pass.
    #[inline]
    pub fn try_acquire(&self, clock: &impl Clock) -> Result<(), Rejected> {
        self.try_acquire_many(1, clock)
    }

    /// Takes so many permits now, all or none. None at all takes nothing, and passes when one would.
    ///
    /// # Errors
    /// The rejection, with the instant at which so many would pass; without one where there never are so many at once.
    #[inline]
    pub fn try_acquire_many(&self, permits: u32, clock: &impl Clock) -> Result<(), Rejected> {
        let now = clock.now();
        self.with(|config| {
            if permits > config.burst {
                return Err(Rejected::new(Policy::RateLimiter, Reason::TooHeavy));
            }
            // What was taken is dropped in there, so that it needs no place in memory.
            let taken = self.arrival.update(|arrival| arrival.take(config, permits, Span::ZERO, now).map(drop));
            taken.map_err(exceeded)
        })
    }

    /// Takes so many permits now and says when they may be used: at the latest after `wait`, and within what the queue
    /// allows. They may be more than the burst.
    ///
    /// # Errors
    /// The rejection, with the instant at which they could be used, when that is too late. It takes nothing.
    pub fn reserve(&self, permits: u32, wait: Duration, clock: &impl Clock) -> Result<Reservation<'_, K>, Rejected> {
        let taken = self.take(permits, Span::of(wait), clock.now())?;
        Ok(Reservation { limiter: self, permits, taken })
    }

    /// Takes so many permits, and waits until they may be used.
    ///
    /// # Errors
    /// The rejection, at once, with the instant at which they could be used: there is no queue, it is full, or the wait
    /// would outlast the longest one.
    ///
    /// # Cancel safety
    /// Dropping the future gives the permits back if nobody took any after them: a place within the line stays empty. So under
    /// lasting overload, callers that give up sooner than the longest wait can use up the whole quota; let them
    /// [reserve](Self::reserve) for no longer than they would wait, or give the pipeline a deadline. The place in line is lost.
    ///
    /// # Fairness
    /// First come, first served.
    pub const fn acquire<X: Executor>(&self, permits: u32, executor: X) -> Acquire<'_, K, X> {
        Acquire { limiter: self, permits, executor, taken: None, sleep: None }
    }

    fn take(&self, permits: u32, wait: Span, now: Instant) -> Result<Taken, Rejected> {
        self.with(|config| {
            let patience = config.patience;
            let taken = self.arrival.update(|arrival| arrival.take(config, permits, wait.min(patience), now));
            taken.map_err(|at| {
                // Soon enough for everyone but the queue.
                let full = patience > Span::ZERO && at > now.after(patience) && at <= now.after(config.longest_wait);
                let reason = if full { Reason::QueueFull } else { Reason::RateExceeded };
                Rejected::until(Policy::RateLimiter, reason, at)
            })
        })
    }

    /// Takes permits within `wait`, the first time, and waits until they may be used.
    fn poll_taken<X: Executor>(
        &self,
        permits: u32,
        wait: impl FnOnce(Instant) -> Span,
        taken: &mut Option<Taken>,
        mut sleep: Pin<&mut Option<X::Sleep>>,
        executor: &X,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Rejected>> {
        let at = match *taken {
            Some(Taken { at, .. }) => at,
            None => {
                let now = executor.now();
                match self.take(permits, wait(now), now) {
                    Ok(free) if free.at <= now => return Poll::Ready(Ok(())),
                    Ok(later) => taken.insert(later).at,
                    Err(rejected) => return Poll::Ready(Err(rejected)),
                }
            }
        };
        ready!(poll_deadline(sleep.as_mut(), at, executor, cx));
        *taken = None;
        Poll::Ready(Ok(()))
    }

    fn give_back(&self, permits: u32, taken: Taken) {
        self.with(|config| self.arrival.update(|arrival| arrival.give_back(config, permits, taken)));
    }

    /// Permits that could be taken now; below zero, those that are taken beyond what there is.
    pub fn available(&self, clock: &impl Clock) -> i64 {
        let now = clock.now();
        self.with(|config| self.arrival.read(|arrival| arrival.available(config, now)))
    }

    /// When so many permits can be taken at once, as things are; now, where they can. `None` where there never are so many.
    pub fn available_at(&self, permits: u32, clock: &impl Clock) -> Option<Instant> {
        let now = clock.now();
        self.with(|config| {
            let mut arrival = self.arrival.read(|arrival| *arrival);
            let at = arrival.take(config, permits, Span::ZERO, now).map_or_else(|later| later, |taken| taken.at);
            (permits <= config.burst).then_some(at)
        })
    }

    /// The settings in force.
    pub fn config(&self) -> Config {
        self.with(|config| *config)
    }

    /// Puts other settings in force, for all calls from now on. What has been taken stays taken, in permits, up to a whole
    /// burst and a full queue.
    pub fn reconfigure(&self, config: Valid<Config>, clock: &impl Clock)
    where
        K::Settings<Config>: Replaceable<Config>,
    {
        let (now, new) = (clock.now(), config.get());
        self.settings.replace(&self.first, new, |old| {
            self.arrival.update(|arrival| arrival.carry(old, &new, now));
        });
    }
}

fn exceeded(at: Instant) -> Rejected {
    Rejected::until(Policy::RateLimiter, Reason::RateExceeded, at)
}

/// Permits that are taken, and may be used from an instant on. Dropped, they go back if none were taken after them;
/// [`commit`](Self::commit) uses them.
#[derive(Debug)]
#[must_use = "a reservation that is dropped at once reserves nothing"]
pub struct Reservation<'l, K: CellKind<Arrival>> {
    limiter: &'l RateLimiter<K>,
    permits: u32,
    taken: Taken,
}

#[cfg(feature = "defmt")]
impl<K: CellKind<Arrival>> defmt::Format for Reservation<'_, K> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Reservation {{ permits: {}, taken: {} }}", self.permits, self.taken);
    }
}

impl<K: CellKind<Arrival>> Reservation<'_, K> {
    /// From when on the permits may be used.
    #[must_use]
    pub const fn at(&self) -> Instant {
        self.taken.at
    }

    /// Uses the permits: they don't go back any more.
    pub fn commit(self) {
        let _ = core::mem::ManuallyDrop::new(self);
    }
}

impl<K: CellKind<Arrival>> Drop for Reservation<'_, K> {
    fn drop(&mut self) {
        self.limiter.give_back(self.permits, self.taken);
    }
}

pin_project_lite::pin_project! {
    /// Waits for permits; see [`RateLimiter::acquire`].
    #[must_use = "futures do nothing unless polled"]
    pub struct Acquire<'l, K, X>
    where
        K: CellKind<Arrival>,
        X: Executor,
    {
        limiter: &'l RateLimiter<K>,
        permits: u32,
        executor: X,
        taken: Option<Taken>,
        #[pin]
        sleep: Option<X::Sleep>,
    }

    impl<K, X> PinnedDrop for Acquire<'_, K, X>
    where
        K: CellKind<Arrival>,
        X: Executor,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(taken) = this.taken.take() {
                this.limiter.give_back(*this.permits, taken);
            }
        }
    }
}

impl<K: CellKind<Arrival>, X: Executor> Future for Acquire<'_, K, X> {
    type Output = Result<(), Rejected>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.limiter.poll_taken(*this.permits, |_| Span::MAX, this.taken, this.sleep, this.executor, cx)
    }
}

impl<K: CellKind<Arrival>, X: Executor> fmt::Debug for Acquire<'_, K, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire").field("permits", &self.permits).finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<K: CellKind<Arrival>, X: Executor> defmt::Format for Acquire<'_, K, X> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Acquire {{ permits: {} }}", self.permits);
    }
}

#[cfg(test)]
mod tests;
