//! Graceful degradation: what still works goes on, at a level that follows from which services are healthy.
//!
//! ```
//! use core::time::Duration;
//! use failsoft_core::{Instant, cell::Local};
//! use failsoft_core::degradation::{Config, Criticality, Degradation, DegradationLevel, Service};
//!
//! let hub: Degradation<Local, 4> =
//!     Degradation::new(Config::new().with_dwell(Duration::from_secs(5)).validate()?);
//! hub.register("sensor", Service::new(Criticality::Critical))?;
//! hub.register("display", Service::new(Criticality::Important))?;
//!
//! hub.report("display", false, &Instant::START)?; // a failed call: down at once
//! assert_eq!(hub.level(&Instant::START), DegradationLevel::Degraded);
//! for second in 1..=3 {
//!     hub.report("display", true, &Instant::from_millis(second * 1_000))?;
//! }
//! assert_eq!(hub.level(&Instant::from_millis(4_999)), DegradationLevel::Degraded); // up only after the dwell
//! assert_eq!(hub.level(&Instant::from_millis(5_000)), DegradationLevel::Full);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # Levels
//!
//! ```text
//!   Full ──────────▶ Degraded ──────────▶ Minimal      down: at once, any number of steps, when a service fails
//!   Full ◀────────── Degraded ◀────────── Minimal      up: one step per dwell, once no service holds it down
//! ```
//!
//! Each service says how far its failure takes the whole down ([`Criticality`], or a [`Level`] type of your own); the worst one
//! decides. A failed call or health check marks its service unhealthy at once; a number of good ones in a row brings it back.
//!
//! # Defaults
//!
//! | what | default | range | at the extremes |
//! | --- | --- | --- | --- |
//! | dwell before a rise | [`DWELL`] (10 s) | any | zero rises at once, and flaps |
//! | good results to be healthy again | [`RECOVERY`] (3) | 1 to 255 | 1 believes the first |
//! | health check interval | [`CHECK_INTERVAL`] (30 s) | above zero | `Duration::MAX` is never checked |
//!
//! # When not to use it
//! For a single dependency with a single fallback: a pipeline with a fallback does that alone.
//!
//! # Source
//! J. Herlihy and J. Wing, "Specifying graceful degradation", IEEE TPDS 2(1), 1991, for levels as what is still promised; the dwell is the usual
//! hysteresis of control engineering.

use core::cell::RefCell;
use core::fmt;
use core::time::Duration;

use heapless::Vec;

use crate::cell::{CellKind, Fresh, StateCell, Stored};
use crate::config::{ConfigError, Valid, refuse};
use crate::executor::Executor;
use crate::failure::{Policy, Reason, Rejected};
use crate::observe::Observer;
use crate::time::{Clock, Instant, Span};

mod layer;

pub use layer::{Feature, FeatureState, Monitored};

/// How long a level is held before it may rise, unless said otherwise.
pub const DWELL: Duration = Duration::from_secs(10);
/// Good results in a row that make a service healthy again, unless said otherwise.
pub const RECOVERY: u8 = 3;
/// Time between two health checks of a service, unless said otherwise.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// A scale of levels, from everything works (step 0) downwards.
pub trait Level: Copy + fmt::Debug + Eq {
    /// The lowest step.
    const LOWEST: u8;

    /// How many steps below full this level is.
    fn step(self) -> u8;

    /// The level so many steps below full; the lowest one for steps below it.
    fn from_step(step: u8) -> Self;
}

/// The usual levels. Better ones are smaller.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum DegradationLevel {
    /// Everything works.
    Full,
    /// The essentials work; the rest answers with less.
    Degraded,
    /// Only what must never stop.
    Minimal,
}

impl Level for DegradationLevel {
    const LOWEST: u8 = 2;

    fn step(self) -> u8 {
        self as u8
    }

    fn from_step(step: u8) -> Self {
        match step {
            0 => Self::Full,
            1 => Self::Degraded,
            _ => Self::Minimal,
        }
    }
}

/// How far a service's failure takes the whole down.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Criticality {
    /// Nothing but the minimum works without it.
    Critical,
    /// The whole is degraded without it.
    Important,
    /// Nobody else notices.
    Optional,
}

impl From<Criticality> for DegradationLevel {
    fn from(criticality: Criticality) -> Self {
        match criticality {
            Criticality::Critical => Self::Minimal,
            Criticality::Important => Self::Degraded,
            Criticality::Optional => Self::Full,
        }
    }
}

/// The settings of a degradation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Config {
    dwell: Span,
    recovery: u8,
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

impl Config {
    /// The defaults, as in the [module's table](self#defaults).
    #[must_use]
    pub const fn new() -> Self {
        Self { dwell: Span::of(DWELL), recovery: RECOVERY }
    }

    /// Holds each level at least this long before it rises.
    #[must_use]
    pub const fn with_dwell(mut self, dwell: Duration) -> Self {
        self.dwell = Span::of(dwell);
        self
    }

    /// Takes so many good results in a row to call a service healthy again.
    #[must_use]
    pub const fn with_recovery(mut self, results: u8) -> Self {
        self.recovery = results;
        self
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    /// The first field that doesn't, and why.
    pub const fn validate(self) -> Result<Valid<Self>, ConfigError> {
        match self.recovery {
            0 => Err(refuse!("recovery", "is zero: a service would be healthy again before anything went well")),
            _ => Ok(Valid::vouched(self)),
        }
    }
}

/// A service as it is registered: how critical it is, how often it is checked, and what stands in for it. `R` is the type of its answers.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Service<R = ()> {
    falls_to: u8,
    interval: Span,
    fallback: Option<fn() -> Option<R>>,
    response: Option<R>,
}

impl<R> Service<R> {
    /// A service that nobody checks, whose failure takes the whole down so many steps.
    pub(crate) const fn unchecked(falls_to: u8) -> Self {
        Self { falls_to, interval: Span::MAX, fallback: None, response: None }
    }
}

impl<R: Copy> Service<R> {
    /// A service of this criticality, checked every 30 s, with nothing to stand in for it.
    #[must_use]
    pub fn new(criticality: Criticality) -> Self {
        Self::falling_to(DegradationLevel::from(criticality))
    }

    /// A service whose failure takes the whole down to `level`.
    #[must_use]
    pub fn falling_to(level: impl Level) -> Self {
        Self { falls_to: level.step(), interval: Span::of(CHECK_INTERVAL), fallback: None, response: None }
    }

    /// With another time between health checks.
    #[must_use]
    pub const fn with_check_interval(mut self, interval: Duration) -> Self {
        self.interval = Span::of(interval);
        self
    }

    /// With something to ask instead while it is unhealthy.
    #[must_use]
    pub const fn with_fallback(mut self, fallback: fn() -> Option<R>) -> Self {
        self.fallback = Some(fallback);
        self
    }

    /// With a fixed answer for when the fallback has none.
    #[must_use]
    pub const fn with_response(mut self, response: R) -> Self {
        self.response = Some(response);
        self
    }
}

/// There is no service of this name.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct UnknownService<'n>(pub &'n str);

impl fmt::Display for UnknownService<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no service `{}`", self.0)
    }
}

impl core::error::Error for UnknownService<'_> {}

/// The level in force has changed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LevelChange<L = DegradationLevel> {
    /// The level before.
    pub from: L,
    /// The level now.
    pub to: L,
    /// Since when.
    pub at: Instant,
}

/// Services, their health, and the level that follows from it.
///
/// `K` says how the state is shared, `N` is the most services there can be, `L` the scale of levels, `R` what stands in for a service, `O`
/// who is told of the changes.
pub struct Degradation<K, const N: usize, L = DegradationLevel, R = (), O = ()>
where
    K: CellKind<Health<R, N>>,
{
    config: Config,
    cell: K::Cell,
    observer: O,
    levels: core::marker::PhantomData<fn() -> L>,
}

impl<K, const N: usize, L, R, O> fmt::Debug for Degradation<K, N, L, R, O>
where
    K: CellKind<Health<R, N>>,
    L: Level,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Degradation").field("level", &self.level_now()).finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<K, const N: usize, L, R, O> defmt::Format for Degradation<K, N, L, R, O>
where
    K: CellKind<Health<R, N>>,
    L: defmt::Format + Level,
{
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Degradation {{ level: {} }}", self.level_now());
    }
}

impl<K, const N: usize, L, R> Degradation<K, N, L, R>
where
    K: CellKind<Health<R, N>>,
    L: Level,
{
    /// Full service, with no service registered yet.
    #[must_use]
    pub const fn new(config: Valid<Config>) -> Self {
        Self::with_observer(config, ())
    }
}

impl<K, const N: usize, L, R, O> Degradation<K, N, L, R, O>
where
    K: CellKind<Health<R, N>>,
    L: Level,
{
    fn level_now(&self) -> L {
        L::from_step(self.cell.read(|health| health.step))
    }

    /// Full service, with no service registered yet, and who is told of the changes of level.
    #[must_use]
    pub const fn with_observer(config: Valid<Config>, observer: O) -> Self {
        Self { config: config.get(), cell: K::Cell::NEW, observer, levels: core::marker::PhantomData }
    }
}

impl<K, const N: usize, L, R, O> Degradation<K, N, L, R, O>
where
    K: CellKind<Health<R, N>>,
    L: Level,
    R: Copy,
    O: Observer<LevelChange<L>>,
{
    /// Registers a service as healthy, to be checked at once. A name that is there already gets the new settings and
    /// keeps its health.
    ///
    /// # Errors
    /// All `N` places are taken, or its check interval is zero.
    pub fn register(&self, name: &'static str, service: Service<R>) -> Result<(), ConfigError> {
        if service.interval.is_zero() {
            return Err(refuse!("check_interval", "is zero"));
        }
        let next_check = if service.interval == Span::MAX { Instant::MAX } else { Instant::START };
        let registered = self.cell.update(|health| {
            if let Some(entry) = health.services.iter_mut().find(|entry| entry.name == name) {
                (entry.service, entry.next_check) = (service, next_check);
                return true;
            }
            health.services.push(Entry { name, service, healthy: true, streak: 0, next_check }).is_ok()
        });
        if registered { Ok(()) } else { Err(refuse!("services", "are more than there are places")) }
    }

    /// Takes note of how a call of a service, or a health check, went.
    ///
    /// # Errors
    /// There is no service of this name.
    pub fn report<'n>(&self, name: &'n str, good: bool, clock: &impl Clock) -> Result<(), UnknownService<'n>> {
        self.report_at(self.place(name)?, good, clock);
        Ok(())
    }

    /// Makes a service healthy or unhealthy at once, whatever its results were: for whoever knows, and need not conclude it from them.
    ///
    /// # Errors
    /// There is no service of this name.
    pub fn set_healthy<'n>(&self, name: &'n str, healthy: bool, clock: &impl Clock) -> Result<(), UnknownService<'n>> {
        self.note(self.place(name)?, healthy, 1, clock);
        Ok(())
    }

    /// Where a service is: it stays there, so that calls of it need not compare names.
    fn place<'n>(&self, name: &'n str) -> Result<usize, UnknownService<'n>> {
        self.cell
            .update(|health| health.services.iter().position(|entry| entry.name == name))
            .ok_or(UnknownService(name))
    }

    fn report_at(&self, place: usize, good: bool, clock: &impl Clock) {
        self.note(place, good, self.config.recovery, clock);
    }

    /// Takes note of a result, of which so many good ones in a row make the service healthy again.
    fn note(&self, place: usize, good: bool, recovery: u8, clock: &impl Clock) {
        let now = clock.now();
        // The rises that are due come first: a report changes nothing about the time before it.
        self.settle(now);
        self.cell.update(|health| health.report(&self.config, place, good, recovery, now));
        self.settle(now);
    }

    /// The level in force.
    pub fn level(&self, clock: &impl Clock) -> L {
        // Already full: the time can't change that, so it is not asked for.
        if self.cell.read(|health| health.step) != 0 {
            self.settle(clock.now());
        }
        self.level_now()
    }

    /// Whether a feature that needs at least `level` may run.
    ///
    /// # Errors
    /// The rejection, with the earliest time at which the level could rise.
    pub fn check(&self, level: L, clock: &impl Clock) -> Result<(), Rejected> {
        if self.level(clock).step() <= level.step() {
            return Ok(());
        }
        let retry_at = self.cell.update(|health| health.rises_at(&self.config)).unwrap_or(Instant::MAX);
        Err(Rejected::until(Policy::Degradation, Reason::LevelTooLow, retry_at))
    }

    /// Whether a service is healthy.
    ///
    /// # Errors
    /// There is no service of this name.
    pub fn is_healthy<'n>(&self, name: &'n str) -> Result<bool, UnknownService<'n>> {
        self.cell.read(|health| Some(health.named(name)?.healthy)).ok_or(UnknownService(name))
    }

    /// What stands in for a service: its fallback's answer, else its fixed response.
    ///
    /// # Errors
    /// There is no service of this name.
    pub fn instead_of<'n>(&self, name: &'n str) -> Result<Option<R>, UnknownService<'n>> {
        let service = self.cell.read(|health| Some(health.named(name)?.service)).ok_or(UnknownService(name))?;
        // Outside the cell: the fallback is the user's code.
        Ok(service.fallback.and_then(|fallback| fallback()).or(service.response))
    }

    /// The service whose health check has been due the longest, if one is due; its next check is then an interval away.
    pub fn take_due_check(&self, clock: &impl Clock) -> Option<&'static str> {
        let now = clock.now();
        self.cell.update(|health| health.take_due(now))
    }

    /// When [`take_due_check`](Self::take_due_check) or [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.cell.update(|health| {
            let check = health.services.iter().map(|entry| entry.next_check).min();
            [check, health.rises_at(&self.config)].into_iter().flatten().min().filter(|&at| at != Instant::MAX)
        })
    }

    /// Lets the level rise if its dwell is over. Early and extra calls are harmless.
    pub fn handle_timeout(&self, clock: &impl Clock) {
        self.settle(clock.now());
    }

    /// Checks the services' health, each at its interval, and lets the level rise: for ever, in a task of its own.
    ///
    /// `check` says whether a service is well. Give it a timeout: while one hangs, no other is made. And a service of which nobody
    /// reports anything any more stays as healthy as it was: where silence is a failure, check whether it has spoken lately.
    ///
    /// # Cancel safety
    /// Dropping the future drops the check under way; that service is checked again an interval later.
    pub async fn run_checks<X: Executor>(&self, executor: X, mut check: impl AsyncFnMut(&'static str) -> bool) -> ! {
        loop {
            while let Some(name) = self.take_due_check(&executor) {
                let good = check(name).await;
                // Known: services are never taken out.
                let _ = self.report(name, good, &executor);
            }
            self.handle_timeout(&executor);
            let wake = self.poll_timeout().unwrap_or(Instant::MAX);
            // A service may be registered, or fail, while nothing is due: look again within a second.
            let soon = executor.now().saturating_add(Duration::from_secs(1));
            executor.sleep_until(wake.min(soon)).await;
        }
    }

    /// Moves the level to where it belongs, one change and one event at a time.
    fn settle(&self, now: Instant) {
        while let Some((from, to, at)) = self.cell.update(|health| health.settle(&self.config, L::LOWEST, now)) {
            self.observer.observe(&LevelChange { from: L::from_step(from), to: L::from_step(to), at });
        }
    }
}

/// The machine: the services with their health, the level in force, and since when.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Health<R, const N: usize> {
    services: Vec<Entry<R>, N>,
    step: u8,
    since: Instant,
}

#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
struct Entry<R> {
    name: &'static str,
    service: Service<R>,
    healthy: bool,
    // Good results in a row while unhealthy.
    streak: u8,
    next_check: Instant,
}

impl<R, const N: usize> Fresh for Health<R, N> {
    const FRESH: Self = Self { services: Vec::new(), step: 0, since: Instant::START };
}

impl<R, const N: usize> Stored for Health<R, N> {
    type Cell = RefCell<Self>;
}

impl<R: Copy, const N: usize> Health<R, N> {
    fn report(&mut self, config: &Config, place: usize, good: bool, recovery: u8, now: Instant) {
        let Some(entry) = self.services.get_mut(place) else { return };
        if !good {
            (entry.healthy, entry.streak) = (false, 0);
        } else if !entry.healthy {
            entry.streak = entry.streak.saturating_add(1);
            entry.healthy = entry.streak >= recovery;
            if entry.healthy {
                // It may have held the level down until now: no dwell can have ended before.
                let dwelt = now.as_nanos().saturating_sub(config.dwell.as_nanos());
                self.since = self.since.max(Instant::from_nanos(dwelt));
            }
        }
        // While a service fails the dwell runs anew: it is time without trouble that counts.
        if !good && entry.service.falls_to.min(self.step) > 0 {
            self.since = self.since.max(now);
        }
    }

    fn named(&self, name: &str) -> Option<&Entry<R>> {
        self.services.iter().find(|entry| entry.name == name)
    }

    /// The step that the services' health allows.
    fn allowed(&self) -> u8 {
        let mut allowed = 0;
        // A plain loop: the iterator's own counts its steps first, and links a division for it.
        for entry in &self.services {
            if !entry.healthy {
                allowed = allowed.max(entry.service.falls_to);
            }
        }
        allowed
    }

    /// One change of level, if one is due: from, to, and when.
    fn settle(&mut self, config: &Config, lowest: u8, now: Instant) -> Option<(u8, u8, Instant)> {
        let (from, allowed) = (self.step, self.allowed().min(lowest));
        if allowed > from {
            (self.step, self.since) = (allowed, now);
        } else {
            let rises_at = self.rises_at(config)?;
            if now < rises_at {
                return None;
            }
            // From the end of the dwell, not from whenever somebody noticed, so that a quiet system climbs as fast as a busy one.
            (self.step, self.since) = (from.saturating_sub(1), rises_at);
        }
        Some((from, self.step, self.since))
    }

    /// When the level may rise, if nothing holds it down.
    fn rises_at(&self, config: &Config) -> Option<Instant> {
        (self.allowed() < self.step).then(|| self.since.after(config.dwell))
    }

    fn take_due(&mut self, now: Instant) -> Option<&'static str> {
        let entry = self.services.iter_mut().min_by_key(|entry| entry.next_check)?;
        if entry.next_check > now || entry.next_check == Instant::MAX {
            return None;
        }
        entry.next_check = now.after(entry.service.interval);
        Some(entry.name)
    }
}

#[cfg(test)]
mod tests;
