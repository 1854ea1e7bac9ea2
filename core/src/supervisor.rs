//! A supervisor of tasks, for a watchdog that means something: it is fed only while every critical task is alive.
//!
//! A watchdog that is fed from a timer shows that the timer works. Here each task checks in before its deadline, and says by that that it
//! has made progress. When a critical task doesn't, the watchdog is not fed and the device resets. When an optional one doesn't, the
//! [degradation](crate::degradation) level falls, and the device goes on without it.
//!
//! ```
//! use core::time::Duration;
//! use failsoft_core::{Instant, cell::Local};
//! use failsoft_core::degradation::{self, Degradation, DegradationLevel};
//! use failsoft_core::supervisor::{Config, Supervisor, Task};
//!
//! let hub: Degradation<Local, 4> = Degradation::new(degradation::Config::new().validate()?);
//! let tasks: Supervisor<Local, 4, _> = Supervisor::with_levels(Config::new().validate()?, &hub);
//! let control = tasks.register("control", Task::critical(Duration::from_millis(200)), &Instant::START)?;
//! let display = tasks.register("display", Task::optional(Duration::from_millis(500)), &Instant::START)?;
//!
//! let now = Instant::from_millis(150);
//! control.check_in(&now); // in its loop, whenever it has done its work once more
//! display.check_in(&now);
//! assert_eq!(tasks.poll_timeout(), Some(Instant::from_millis(350)));
//!
//! control.check_in(&Instant::from_millis(349));
//! control.check_in(&Instant::from_millis(548));
//! tasks.handle_timeout(&Instant::from_millis(650)); // the display hangs: the level falls,
//! assert_eq!(hub.level(&Instant::from_millis(650)), DegradationLevel::Degraded);
//! assert!(tasks.is_alive()); // and the watchdog is fed
//!
//! tasks.handle_timeout(&Instant::from_millis(748)); // the control hangs too
//! assert!(!tasks.is_alive()); // nobody feeds the watchdog: it resets the device
//! # Ok::<(), failsoft_core::ConfigError>(())
//! ```
//!
//! [`run`](Supervisor::run) does all of this in a task of its own. Put it where nothing can starve it unnoticed: in the executor of the lowest
//! priority. If that executor hangs, the watchdog is not fed either.
//!
//! # Defaults
//!
//! | what | default | range | at the extremes |
//! | --- | --- | --- | --- |
//! | feed interval | [`FEED_INTERVAL`] (500 ms) | above zero | keep it well below the watchdog's own period |
//! | a task's deadline | none: it is asked for | above zero | `Duration::MAX` is never missed |
//! | an optional task's level | [`Degraded`](DegradationLevel::Degraded) | any | |
//!
//! From the moment at which a critical task should have checked in, the reset comes within a watchdog's period. A task that checks in again
//! before that has been late, and is told as such; the device goes on, with a feeding within an eighth of the interval if one is overdue.
//!
//! Changes are told outside every lock. Where a task checks in at the very moment at which its deadline is noticed, an observer may hear of
//! its return first; the level follows what holds in the end.
//!
//! # When not to use it
//! For what takes as long as it takes, and for what nobody misses: a task that can't promise when it checks in next can't be supervised.
//! Whether a *device* or a *service* is well is the matter of circuit breakers and of degradation: a task that gets an error and goes on is
//! alive.
//!
//! # Source
//! N. Murphy and M. Barr, "Watchdog Timers", Embedded Systems Programming, October 2001, for several tasks that one watchdog watches, by
//! flags that each of them sets; "let it crash" and supervision as such are J. Armstrong's, "Making reliable distributed systems in the
//! presence of software errors", 2003.

use core::cell::RefCell;
use core::fmt;
use core::time::Duration;

use heapless::Vec;

use crate::cell::{CellKind, Fresh, StateCell, Stored};
use crate::config::{ConfigError, Valid, refuse};
use crate::degradation::{Degradation, DegradationLevel, Health, Level, LevelChange, Service};
use crate::executor::Executor;
use crate::observe::Observer;
use crate::time::{Clock, Instant, Span};

/// Time between two feedings of the watchdog, unless said otherwise.
pub const FEED_INTERVAL: Duration = Duration::from_millis(500);

/// The settings of a supervisor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Config {
    feed_interval: Span,
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
        Self { feed_interval: Span::of(FEED_INTERVAL) }
    }

    /// Feeds the watchdog so often.
    #[must_use]
    pub const fn with_feed_interval(mut self, interval: Duration) -> Self {
        self.feed_interval = Span::of(interval);
        self
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    /// The first field that doesn't, and why.
    pub const fn validate(self) -> Result<Valid<Self>, ConfigError> {
        if self.feed_interval.is_zero() {
            return Err(refuse!("feed_interval", "is zero: there would be nothing but feeding"));
        }
        Ok(Valid::vouched(self))
    }
}

/// A task as it is registered: how long it may go without checking in, and what follows if it does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Task {
    deadline: Span,
    critical: bool,
    falls_to: u8,
}

impl Task {
    /// A task without which the device is better reset: the watchdog is not fed while it is stalled. Until the reset, or until the task is
    /// back, the level is the lowest.
    #[must_use]
    pub const fn critical(deadline: Duration) -> Self {
        Self { deadline: Span::of(deadline), critical: true, falls_to: u8::MAX }
    }

    /// A task that the device can do without: while it is stalled the level is [`Degraded`](DegradationLevel::Degraded), or that of
    /// [`falling_to`](Self::falling_to).
    #[must_use]
    pub const fn optional(deadline: Duration) -> Self {
        Self { deadline: Span::of(deadline), critical: false, falls_to: DegradationLevel::Degraded as u8 }
    }

    /// Takes the level down to this one while it is stalled.
    #[must_use]
    pub fn falling_to(mut self, level: impl Level) -> Self {
        self.falls_to = level.step();
        self
    }
}

/// A task is stalled, or back.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct TaskChange {
    /// Which.
    pub task: &'static str,
    /// Whether the device resets if it stays so.
    pub critical: bool,
    /// Whether it is stalled now.
    pub stalled: bool,
    /// Since when: the deadline that it missed, or the time at which it checked in again.
    pub at: Instant,
}

/// The hardware's watchdog, or the operating system's: it resets the device unless it is fed in time.
///
/// Any closure is one: `|| watchdog.pet()`.
pub trait Watchdog {
    /// Grants another period.
    fn feed(&mut self);
}

impl<F: FnMut()> Watchdog for F {
    fn feed(&mut self) {
        self();
    }
}

/// Where the level falls while a task is stalled: in a [`Degradation`], by reference, or with `()` nowhere.
pub trait Levels {
    /// Makes a task known, which takes the level so many steps down while it is stalled.
    ///
    /// # Errors
    /// There is no place for another one.
    fn register(&self, task: &'static str, steps: u8) -> Result<(), ConfigError>;

    /// The task is back, or stalled.
    fn set_healthy(&self, task: &'static str, healthy: bool, at: Instant);
}

impl Levels for () {
    fn register(&self, _: &'static str, _: u8) -> Result<(), ConfigError> {
        Ok(())
    }

    fn set_healthy(&self, _: &'static str, _: bool, _: Instant) {}
}

impl<K, const N: usize, L, R, O> Levels for &Degradation<K, N, L, R, O>
where
    K: CellKind<Health<R, N>>,
    L: Level,
    R: Copy,
    O: Observer<LevelChange<L>>,
{
    /// As a service of this name, which nobody checks.
    fn register(&self, task: &'static str, steps: u8) -> Result<(), ConfigError> {
        Degradation::register(self, task, Service::unchecked(steps))
    }

    fn set_healthy(&self, task: &'static str, healthy: bool, at: Instant) {
        // Known: it has been registered, and services are never taken out.
        let _ = Degradation::set_healthy(self, task, healthy, &at);
    }
}

/// Tasks, and which of them are alive.
///
/// `K` says how the state is shared, `N` is the most tasks there can be, `D` where the [level](Levels) falls, `O` who is told of the changes.
pub struct Supervisor<K, const N: usize, D = (), O = ()>
where
    K: CellKind<Tasks<N>>,
{
    config: Config,
    cell: K::Cell,
    levels: D,
    observer: O,
}

impl<K, const N: usize, D, O> fmt::Debug for Supervisor<K, N, D, O>
where
    K: CellKind<Tasks<N>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor").field("alive", &self.cell.read(Tasks::are_alive)).finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<K, const N: usize, D, O> defmt::Format for Supervisor<K, N, D, O>
where
    K: CellKind<Tasks<N>>,
{
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Supervisor {{ alive: {} }}", self.cell.read(Tasks::are_alive));
    }
}

impl<K, const N: usize> Supervisor<K, N>
where
    K: CellKind<Tasks<N>>,
{
    /// No task yet, and no levels: for the watchdog alone.
    #[must_use]
    pub const fn new(config: Valid<Config>) -> Self {
        Self::with_levels(config, ())
    }
}

impl<K, const N: usize, D> Supervisor<K, N, D>
where
    K: CellKind<Tasks<N>>,
{
    /// No task yet, and where the level falls while one is stalled.
    #[must_use]
    pub const fn with_levels(config: Valid<Config>, levels: D) -> Self {
        Self::with_observer(config, levels, ())
    }
}

impl<K, const N: usize, D, O> Supervisor<K, N, D, O>
where
    K: CellKind<Tasks<N>>,
{
    /// No task yet, where the level falls while one is stalled, and who is told of it.
    #[must_use]
    pub const fn with_observer(config: Valid<Config>, levels: D, observer: O) -> Self {
        Self { config: config.get(), cell: K::Cell::NEW, levels, observer }
    }

    /// Whether every critical task is alive, as far as has been [noticed](Self::handle_timeout).
    pub fn is_alive(&self) -> bool {
        self.cell.read(Tasks::are_alive)
    }

    /// A task that is stalled, as far as has been noticed: a critical one before all others, and then the one that has been so the
    /// longest. What to remember for the time after the reset.
    pub fn stalled(&self) -> Option<&'static str> {
        self.cell.read(Tasks::first_stalled)
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do: the earliest deadline of a task that is alive.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.cell.read(Tasks::next_deadline)
    }
}

impl<K, const N: usize, D, O> Supervisor<K, N, D, O>
where
    K: CellKind<Tasks<N>>,
    D: Levels,
    O: Observer<TaskChange>,
{
    /// Registers a task. Its first deadline counts from now. A name that is there already gets the new settings, and has checked in: it
    /// was started anew.
    ///
    /// # Errors
    /// All `N` places are taken, or those for [levels](Levels) are; or the deadline is zero.
    pub fn register(
        &self,
        name: &'static str,
        task: Task,
        clock: &impl Clock,
    ) -> Result<Supervised<'_, K, N, D, O>, ConfigError> {
        if task.deadline.is_zero() {
            return Err(refuse!("deadline", "is zero"));
        }
        self.levels.register(name, task.falls_to)?;
        let place = self.cell.update(|tasks| tasks.place(name, task));
        let place = place.ok_or(refuse!("tasks", "are more than there are places"))?;
        let supervised = Supervised { supervisor: self, place };
        supervised.check_in(clock);
        Ok(supervised)
    }

    /// Takes note of every deadline that has been missed. Early and extra calls are harmless.
    pub fn handle_timeout(&self, clock: &impl Clock) {
        let now = clock.now();
        while let Some((place, change)) = self.cell.update(|tasks| tasks.take_missed(now)) {
            self.tell(place, &change, now);
        }
    }

    /// Feeds the watchdog at its interval while every critical task is alive, and takes note of deadlines as they are missed: for ever,
    /// in a task of its own. The first feeding is at once.
    ///
    /// # Cancel safety
    /// Dropping the future ends the feeding.
    pub async fn run<X: Executor>(&self, executor: X, mut watchdog: impl Watchdog) -> ! {
        let mut feed_at = executor.now();
        let soon = Span::from_nanos((self.config.feed_interval.as_nanos() >> 3).max(1));
        loop {
            let now = executor.now();
            self.handle_timeout(&now);
            if now >= feed_at && self.is_alive() {
                watchdog.feed();
                feed_at = now.after(self.config.feed_interval);
            }
            // Feeding that is overdue is made up for soon after the task is back.
            let look_at = if now >= feed_at { now.after(soon) } else { feed_at };
            executor.sleep_until(self.poll_timeout().unwrap_or(look_at).min(look_at)).await;
        }
    }

    fn tell(&self, place: usize, change: &TaskChange, now: Instant) {
        self.observer.observe(change);
        // Meanwhile somebody else may have told of the next change: the last word is what holds now.
        loop {
            let stalled = self.is_stalled(place);
            self.levels.set_healthy(change.task, !stalled, now);
            if self.is_stalled(place) == stalled {
                break;
            }
        }
    }

    fn is_stalled(&self, place: usize) -> bool {
        self.cell.read(|tasks| tasks.entries.get(place).is_some_and(|entry| entry.stalled))
    }
}

/// A registered task, by which it checks in.
pub struct Supervised<'a, K, const N: usize, D = (), O = ()>
where
    K: CellKind<Tasks<N>>,
{
    supervisor: &'a Supervisor<K, N, D, O>,
    place: usize,
}

impl<K, const N: usize, D, O> fmt::Debug for Supervised<'_, K, N, D, O>
where
    K: CellKind<Tasks<N>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervised").field("place", &self.place).finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<K, const N: usize, D, O> defmt::Format for Supervised<'_, K, N, D, O>
where
    K: CellKind<Tasks<N>>,
{
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Supervised {{ place: {} }}", self.place);
    }
}

impl<K, const N: usize, D, O> Supervised<'_, K, N, D, O>
where
    K: CellKind<Tasks<N>>,
    D: Levels,
    O: Observer<TaskChange>,
{
    /// The task is alive: its next deadline counts from now. A deadline that it has missed is told first, even if nobody else noticed; the
    /// level does not fall for one that is over.
    pub fn check_in(&self, clock: &impl Clock) {
        let now = clock.now();
        let (back, missed) = self.supervisor.cell.update(|tasks| tasks.check_in(self.place, now));
        if back {
            self.come_back(missed, now);
        }
    }

    // Apart, so that what happens most often needs little of the stack.
    #[inline(never)]
    fn come_back(&self, missed: Option<Instant>, now: Instant) {
        let task = self.supervisor.cell.read(|tasks| tasks.entries.get(self.place).copied());
        let Some(entry) = task else { return };
        if let Some(deadline) = missed {
            self.supervisor.tell(self.place, &entry.change(true, deadline), now);
        }
        self.supervisor.tell(self.place, &entry.change(false, now), now);
    }
}

/// The machine: the tasks, each with its next deadline.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Tasks<const N: usize> {
    entries: Vec<Entry, N>,
}

#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
struct Entry {
    name: &'static str,
    task: Task,
    /// `Instant::MAX` is never.
    due: Instant,
    stalled: bool,
}

impl Entry {
    const fn change(&self, stalled: bool, at: Instant) -> TaskChange {
        TaskChange { task: self.name, critical: self.task.critical, stalled, at }
    }

    /// Whether its deadline has passed, and nobody has noticed so far.
    fn has_missed(&self, now: Instant) -> bool {
        !self.stalled && self.due <= now && self.due != Instant::MAX
    }
}

impl<const N: usize> Fresh for Tasks<N> {
    const FRESH: Self = Self { entries: Vec::new() };
}

impl<const N: usize> Stored for Tasks<N> {
    type Cell = RefCell<Self>;
}

impl<const N: usize> Tasks<N> {
    /// The place of a task of this name, with these settings.
    fn place(&mut self, name: &'static str, task: Task) -> Option<usize> {
        if let Some(place) = self.entries.iter().position(|entry| entry.name == name) {
            if let Some(entry) = self.entries.get_mut(place) {
                entry.task = task;
            }
            return Some(place);
        }
        self.entries.push(Entry { name, task, due: Instant::MAX, stalled: false }).ok()?;
        Some(self.entries.len().saturating_sub(1))
    }

    /// Whether the task was stalled until now, and which deadline it has missed that nobody has noticed.
    fn check_in(&mut self, place: usize, now: Instant) -> (bool, Option<Instant>) {
        let Some(entry) = self.entries.get_mut(place) else { return (false, None) };
        let missed = entry.has_missed(now).then_some(entry.due);
        let back = entry.stalled || missed.is_some();
        (entry.stalled, entry.due) = (false, now.after(entry.task.deadline));
        (back, missed)
    }

    /// The earliest deadline that has been missed.
    fn take_missed(&mut self, now: Instant) -> Option<(usize, TaskChange)> {
        let missed = self.entries.iter_mut().enumerate().filter(|(_, entry)| entry.has_missed(now));
        let (place, entry) = missed.min_by_key(|(_, entry)| entry.due)?;
        entry.stalled = true;
        Some((place, entry.change(true, entry.due)))
    }

    fn next_deadline(&self) -> Option<Instant> {
        let deadlines = self.entries.iter().filter(|entry| !entry.stalled).map(|entry| entry.due);
        deadlines.min().filter(|&due| due != Instant::MAX)
    }

    fn are_alive(&self) -> bool {
        !self.entries.iter().any(|entry| entry.task.critical && entry.stalled)
    }

    fn first_stalled(&self) -> Option<&'static str> {
        let stalled = self.entries.iter().filter(|entry| entry.stalled);
        Some(stalled.min_by_key(|entry| (!entry.task.critical, entry.due))?.name)
    }
}

#[cfg(test)]
mod tests;
