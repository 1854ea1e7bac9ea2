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
//! It keeps one instant: the *theoretical arrival time*, at which the next call would come if all came evenly spaced. Each call moves
//! it on by the interval between calls; a call passes while it is no further ahead of the clock than the burst allows. So the
//! permits come back one by one, a rejection knows the exact instant at which the same call would pass, and a check is a
//! few additions on one word. The interval is rounded up to a nanosecond: never more than the quota passes.
//!
//! # Reservations
//! [`reserve`](RateLimiter::reserve) takes permits that are not there yet, and says when they will be; a reservation that is dropped
//! before it was used gives them back, to whoever asks next. Those who had reserved behind it keep the instants they were given.
//!
//! # Defaults
//!
//! | what | default | range | at the extremes |
//! | --- | --- | --- | --- |
//! | quota | none: say how many per period | 1 or more, in at most 584 years | at most one a nanosecond |
//! | burst | the whole quota | 1 or more | 1 spaces the calls evenly |
//! | longest wait | none: rejects at once | any | `Duration::MAX` reserves without end |
//!
//! # When not to use it
//! To limit calls at once: that is a bulkhead's work. To react to a dependency in trouble: a rate is a promise, not a measurement.
//!
//! # Source
//! The generic cell rate algorithm, virtual scheduling form: ITU-T I.371 (03/2004), annex A.

use core::fmt;
use core::time::Duration;

use crate::cell::{CellKind, Fresh, Packed, Replaceable, SettingsCell, StateCell};
use crate::config::{ConfigError, Valid, refuse};
use crate::failure::{Policy, Reason, Rejected};
use crate::time::{Clock, Instant, Span};

mod layer;

pub use layer::{LimiterState, Weighted};

/// The settings of a rate limiter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Config {
    permits: u32,
    period: Span,
    burst: u32,
    longest_wait: Span,
    // Worked out from these: nothing is multiplied or divided when a call asks.
    interval: Span,
    tolerance: Span,
}

impl Config {
    /// So many permits per period, all of which may be taken at once.
    #[must_use]
    pub const fn new(permits: u32, period: Duration) -> Self {
        let period = Span::of(period);
        Self { permits, period, burst: permits, longest_wait: Span::ZERO, interval: Span::ZERO, tolerance: Span::ZERO }
            .prepared()
    }

    /// At most so many at once.
    #[must_use]
    pub const fn with_burst(mut self, burst: u32) -> Self {
        self.burst = burst;
        self.prepared()
    }

    /// Lets calls wait this long for their permits.
    #[must_use]
    pub const fn with_longest_wait(mut self, wait: Duration) -> Self {
        self.longest_wait = Span::of(wait);
        self
    }

    const fn prepared(mut self) -> Self {
        let interval = match self.permits {
            0 => u64::MAX,
            permits => self.period.as_nanos().div_ceil(permits as u64),
        };
        self.interval = Span::from_nanos(interval);
        self.tolerance = Span::from_nanos(interval.saturating_mul(self.burst as u64));
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
        if self.tolerance.as_nanos() > u64::MAX / 4 {
            return Err(refuse!("burst", "takes longer than a century to come back"));
        }
        Ok(Valid::vouched(self))
    }

    fn times(&self, permits: u32) -> Span {
        Span::from_nanos(self.interval.as_nanos().saturating_mul(permits.into()))
    }

    /// How far ahead of the clock the arrival time may be: a full burst taken, and those that wait for longest. A clock that stepped back
    /// finds it further ahead, and brings it back here.
    const fn horizon(&self) -> Span {
        Span::from_nanos(self.tolerance.as_nanos().saturating_add(self.longest_wait.as_nanos()))
    }
}

/// What a limiter keeps: the theoretical arrival time of the next call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Arrival(u64);

impl Fresh for Arrival {
    const FRESH: Self = Self(0);
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

impl Arrival {
    /// The word's highest bit is the cell's own: 292 years are left.
    const LAST: u64 = u64::MAX >> 1;

    /// Not before now, and not beyond what the settings allow.
    #[inline]
    fn at(self, config: &Config, now: Instant) -> u64 {
        self.0.max(now.as_nanos()).min(now.after(config.horizon()).as_nanos())
    }

    /// Takes permits that can be used within `wait` and says when, or when they could be.
    #[inline]
    fn take(&mut self, config: &Config, permits: u32, wait: Span, now: Instant) -> Result<Instant, Instant> {
        let next = self.at(config, now).saturating_add(config.times(permits).as_nanos());
        let usable = Instant::from_nanos(next.saturating_sub(config.tolerance.as_nanos()).max(now.as_nanos()));
        if usable > now.after(wait) || next > Self::LAST {
            return Err(usable);
        }
        self.0 = next;
        Ok(usable)
    }

    /// Gives permits back.
    fn give_back(&mut self, config: &Config, permits: u32) {
        self.0 = self.0.saturating_sub(config.times(permits).as_nanos());
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
            let taken = self.arrival.update(|arrival| {
                let mut after = *arrival;
                let taken = after.take(config, permits.max(1), Span::ZERO, now);
                if permits > 0 && taken.is_ok() {
                    *arrival = after;
                }
                taken
            });
            taken.map(drop).map_err(exceeded)
        })
    }

    /// Takes so many permits now and says when they may be used, at the latest after `wait` or after the longest wait of the settings,
    /// whichever is shorter. More than the burst take longer.
    ///
    /// # Errors
    /// The rejection, with the instant at which they could be used, when that is too late. It takes nothing.
    pub fn reserve(&self, permits: u32, wait: Duration, clock: &impl Clock) -> Result<Reservation<'_, K>, Rejected> {
        let at = self.take_later(permits, Span::of(wait), clock.now())?;
        Ok(Reservation { limiter: self, permits, at })
    }

    fn take_later(&self, permits: u32, wait: Span, now: Instant) -> Result<Instant, Rejected> {
        self.with(|config| {
            let wait = wait.min(config.longest_wait);
            self.arrival.update(|arrival| arrival.take(config, permits, wait, now)).map_err(exceeded)
        })
    }

    fn give_back(&self, permits: u32) {
        self.with(|config| self.arrival.update(|arrival| arrival.give_back(config, permits)));
    }

    /// Permits that could be taken now; below zero, those that are reserved beyond what there is.
    pub fn available(&self, clock: &impl Clock) -> i64 {
        let now = clock.now();
        self.with(|config| {
            let ahead = self.arrival.read(|arrival| arrival.at(config, now)).saturating_sub(now.as_nanos());
            let (tolerance, interval) = (config.tolerance.as_nanos(), config.interval.as_nanos().max(1));
            let permits = |span: u64| i64::try_from(span.checked_div(interval).unwrap_or(0)).unwrap_or(i64::MAX);
            match tolerance.checked_sub(ahead) {
                Some(left) => permits(left),
                None => {
                    permits(ahead.saturating_sub(tolerance).saturating_add(interval).saturating_sub(1)).saturating_neg()
                }
            }
        })
    }

    /// When so many permits can be taken at once, as things are; now, where they can. `None` where there never are so many.
    pub fn available_at(&self, permits: u32, clock: &impl Clock) -> Option<Instant> {
        let now = clock.now();
        self.with(|config| {
            let mut arrival = self.arrival.read(|arrival| *arrival);
            let at = arrival.take(config, permits.max(1), Span::ZERO, now).unwrap_or_else(|later| later);
            (permits <= config.burst).then_some(at)
        })
    }

    /// The settings in force.
    pub fn config(&self) -> Config {
        self.with(|config| *config)
    }

    /// Puts other settings in force, for all calls from now on. What has been taken stays taken, in permits, up to a whole burst and
    /// what may wait.
    pub fn reconfigure(&self, config: Valid<Config>, clock: &impl Clock)
    where
        K::Settings<Config>: Replaceable<Config>,
    {
        let (now, new) = (clock.now(), config.get());
        self.settings.replace(&self.first, new, |old| {
            self.arrival.update(|arrival| {
                let ahead = u128::from(arrival.at(old, now).saturating_sub(now.as_nanos()));
                let scaled = ahead.saturating_mul(new.interval.as_nanos().into());
                let scaled = scaled.checked_div(old.interval.as_nanos().into()).unwrap_or(0);
                let ahead = u64::try_from(scaled).unwrap_or(u64::MAX);
                arrival.0 = now.as_nanos().saturating_add(ahead).min(Arrival::LAST);
            });
        });
    }
}

fn exceeded(at: Instant) -> Rejected {
    Rejected::until(Policy::RateLimiter, Reason::RateExceeded, at)
}

/// Permits that are taken, and may be used from an instant on. Dropped, they go back; [`commit`](Self::commit) uses them.
#[derive(Debug)]
#[must_use = "a reservation that is dropped at once reserves nothing"]
pub struct Reservation<'l, K: CellKind<Arrival>> {
    limiter: &'l RateLimiter<K>,
    permits: u32,
    at: Instant,
}

#[cfg(feature = "defmt")]
impl<K: CellKind<Arrival>> defmt::Format for Reservation<'_, K> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Reservation {{ permits: {}, at: {} }}", self.permits, self.at);
    }
}

impl<K: CellKind<Arrival>> Reservation<'_, K> {
    /// From when on the permits may be used.
    #[must_use]
    pub const fn at(&self) -> Instant {
        self.at
    }

    /// Uses the permits: they don't go back any more.
    pub fn commit(self) {
        let _ = core::mem::ManuallyDrop::new(self);
    }
}

impl<K: CellKind<Arrival>> Drop for Reservation<'_, K> {
    fn drop(&mut self) {
        self.limiter.give_back(self.permits);
    }
}

#[cfg(test)]
mod tests;
