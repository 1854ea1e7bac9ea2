//! The last good value as a fallback: while calls fail, the answer is the last one that was right, if it is not too old.
//!
//! ```
//! use core::time::Duration;
//! use failsoft_core::{Pipeline, cell::Local, testing::VirtualExecutor};
//! use failsoft_core::last_good::{Config, LastGood, Served};
//!
//! // Fresh for 5 s; while the sensor fails it stands in, marked as stale, until it is 60 s old.
//! let config = Config::new().with_fresh_for(Duration::from_secs(5)).with_max_age(Duration::from_secs(60));
//! let stale = |served: &Served| println!("{:?} old, stale: {}", served.age(), served.is_stale());
//! let reading: LastGood<Local, i32, _> = LastGood::with_observer(config.validate()?, stale);
//!
//! let executor = VirtualExecutor::new();
//! let pipeline = Pipeline::new(&executor).layer(&reading);
//! assert_eq!(executor.run(pipeline.call(async |_| Ok::<_, &str>(21)))?, Ok(21));
//! executor.jump_to(failsoft_core::Instant::from_millis(60_000));
//! assert_eq!(executor.run(pipeline.call(async |_| Err("no answer")))?, Ok(21));
//! executor.jump_to(failsoft_core::Instant::from_millis(60_001));
//! assert!(executor.run(pipeline.call(async |_| Err("no answer")))?.is_err()); // too old: the failure itself
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! Those who keep their own loop use [`remember`](LastGood::remember) and [`get`](LastGood::get), which tells how old the value is and
//! whether it is stale:
//!
//! ```
//! use failsoft_core::{Clock, Instant, cell::Local, last_good::{Config, LastGood}, valid};
//!
//! fn display(result: Result<i32, &str>, last: &LastGood<Local, i32>, clock: &impl Clock) -> String {
//!     if let Ok(degrees) = &result {
//!         last.remember(degrees, clock);
//!     }
//!     match last.get(clock) {
//!         Some(good) if good.is_stale() => format!("{}?", good.value),
//!         Some(good) => format!("{}", good.value),
//!         None => "--".into(),
//!     }
//! }
//!
//! let last = LastGood::new(valid!(Config::new().validate()));
//! assert_eq!(display(Err("no answer"), &last, &Instant::START), "--");
//! assert_eq!(display(Ok(21), &last, &Instant::from_millis(1)), "21?"); // by default nothing remembered is fresh
//! ```
//!
//! # What is good, and what is replaced
//! The classifier's verdict decides.
//!
//! | how the call ends | what follows |
//! | --- | --- |
//! | `Ok`, a success | it is remembered, and the answer |
//! | a failure, by whatever cause; an `Ok` that the classifier calls one (an HTTP 503) too | the last good value is the answer |
//! | a rejection by a policy within: an open breaker, a full bulkhead | likewise |
//! | anything else: an outcome that is ignored, an `Err` that counts as a success | it passes, and nothing is remembered |
//!
//! Where there is no good value, or only one that is too old, the call ends as it did, untouched. A failure that must reach the
//! caller, "not found" say, is one for the classifier to ignore: it says nothing about the dependency's health, and an old answer
//! in its place would be wrong. [`forget`](LastGood::forget) takes back what is known to be wrong from now on.
//!
//! The age counts from the end of the call that brought the value. To the policies around, a served value is a success; the
//! [`Observer`](crate::Observer) learns of each one, with its age, so that nobody lives on old data unknowingly.
//!
//! Within a fallback of another kind, as in `layer(Fallback::new(…)).layer(&last_good)`, the made-up answer comes when there is no
//! good one any more. The other way round it would be remembered as good.
//!
//! # Copies
//! A value is cloned outside the cell to be remembered, and *within* it to be served: in a critical section on a chip, behind a lock
//! that all callers share on a server. Let it be cheap to clone: a few words, or an `Arc` of what is large. Each success reads the clock
//! and writes, so where most calls succeed a server pays for a lock on each.
//!
//! # Defaults
//!
//! | what | default | range | at the extremes |
//! | --- | --- | --- | --- |
//! | fresh for | [`FRESH_FOR`] (0) | up to the age limit | zero: every value that is served is marked as stale |
//! | age limit | [`MAX_AGE`] (120 s) | above zero | `Duration::MAX`: served for ever |
//! | reuse of a fresh value, instead of a call | off | needs a time for which values are fresh | |
//!
//! A value is fresh while its age is below the first, and is served up to and including the second. A value from a time that a
//! clock which stepped back has yet to reach counts as new at that moment, and ages from there.
//!
//! # When not to use it
//! Where an old answer does more harm than none: a balance, a permission, an actuator's end position. And for large values of many
//! keys: that is a cache's work.
//!
//! # Source
//! `stale-if-error` in Nottingham, "HTTP Cache-Control Extensions for Stale Content", RFC 5861, section 4, which counts from the end of
//! freshness: the age limit here is HTTP's `max-age` plus its `stale-if-error`. Freshness is that of RFC 9111, section 4.2.

use core::cell::RefCell;
use core::fmt;
use core::time::Duration;

use crate::cell::{CellKind, Fresh, StateCell, Stored};
use crate::config::{ConfigError, Valid, refuse};
use crate::time::{Clock, Instant, Span};

mod keyed;
mod layer;

pub use keyed::{KeyedLastGood, Memories, OfKey};
pub use layer::LastGoodState;

/// How long a value is fresh, unless said otherwise: not at all, so that whatever is served is marked as stale.
pub const FRESH_FOR: Duration = Duration::ZERO;
/// The age up to which a value is served, unless said otherwise: the 60 s for which a circuit breaker stays open, and as long again
/// for the probes that follow.
pub const MAX_AGE: Duration = Duration::from_secs(120);

/// The settings of a memory of good values.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Config {
    fresh_for: Span,
    max_age: Span,
    reuse: bool,
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
        Self { fresh_for: Span::of(FRESH_FOR), max_age: Span::of(MAX_AGE), reuse: false }
    }

    /// Marks a value as stale from this age on.
    #[must_use]
    pub const fn with_fresh_for(mut self, age: Duration) -> Self {
        self.fresh_for = Span::of(age);
        self
    }

    /// Never serves a value that is older than this.
    #[must_use]
    pub const fn with_max_age(mut self, age: Duration) -> Self {
        self.max_age = Span::of(age);
        self
    }

    /// Answers with a value that is still fresh instead of calling. Callers who find none each call, also at once.
    #[must_use]
    pub const fn with_reuse(mut self) -> Self {
        self.reuse = true;
        self
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    /// The first field that doesn't, and why.
    pub const fn validate(self) -> Result<Valid<Self>, ConfigError> {
        if self.max_age.is_zero() {
            return Err(refuse!("max_age", "is zero: nothing would be served"));
        }
        if self.fresh_for.as_nanos() > self.max_age.as_nanos() {
            return Err(refuse!("fresh_for", "is longer than the age limit"));
        }
        if self.reuse && self.fresh_for.is_zero() {
            return Err(refuse!("fresh_for", "is zero: no value would be reused"));
        }
        Ok(Valid::vouched(self))
    }

    /// How a value of this age is served, if it is.
    const fn judge(&self, age: Span) -> Option<Served> {
        if age.as_nanos() > self.max_age.as_nanos() {
            return None;
        }
        Some(Served { age, stale: age.as_nanos() >= self.fresh_for.as_nanos() })
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "up to {:?} old", self.max_age.duration())?;
        if !self.fresh_for.is_zero() {
            write!(f, ", fresh for {:?}", self.fresh_for.duration())?;
        }
        if self.reuse { f.write_str(", reused while fresh") } else { Ok(()) }
    }
}

/// A value was served from memory: how old it is, and whether it is still fresh.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Served {
    age: Span,
    stale: bool,
}

impl Served {
    /// How long ago it was remembered.
    #[must_use]
    pub const fn age(&self) -> Duration {
        self.age.duration()
    }

    /// Whether it is no longer fresh.
    #[must_use]
    pub const fn is_stale(&self) -> bool {
        self.stale
    }
}

/// The last good value, how old it is, and whether it is still fresh.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Good<T> {
    /// The value.
    pub value: T,
    served: Served,
}

impl<T> Good<T> {
    /// How long ago it was remembered.
    #[must_use]
    pub const fn age(&self) -> Duration {
        self.served.age()
    }

    /// Whether it is no longer fresh.
    #[must_use]
    pub const fn is_stale(&self) -> bool {
        self.served.is_stale()
    }
}

/// A good value, and since when it is known.
struct Entry<T> {
    value: T,
    at: Instant,
}

impl<T> Entry<T> {
    /// Since when it is known, as far as a clock that stepped back can tell: since now. So it ages from here on.
    fn settle(&mut self, now: Instant) {
        self.at = self.at.min(now);
    }

    const fn age(&self, now: Instant) -> Span {
        // Not as a `Duration`: that takes a division.
        Span::from_nanos(now.as_nanos().saturating_sub(self.at.as_nanos()))
    }
}

impl<T: Clone> Entry<T> {
    /// A copy, when it is not too old, and `wanted` as old as it is.
    fn recall(&self, config: &Config, now: Instant, wanted: impl Fn(&Served) -> bool) -> Option<Good<T>> {
        let served = config.judge(self.age(now)).filter(wanted)?;
        Some(Good { value: self.value.clone(), served })
    }
}

/// Makes an entry of a value for `keep`, which is handed another one should it have to run again.
///
/// So the value is cloned outside the cell, and what had to go is dropped outside it too.
fn remember<T: Clone, S>(
    cell: &impl StateCell<S>,
    value: &T,
    at: Instant,
    keep: impl Fn(&mut S, Entry<T>) -> Option<Entry<T>>,
) {
    let entry = || Entry { value: value.clone(), at };
    let mut first = Some(entry());
    drop(cell.update(|state| keep(state, first.take().unwrap_or_else(entry))));
}

/// What is remembered of one thing.
pub struct Memory<T>(Option<Entry<T>>);

impl<T> fmt::Debug for Memory<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("at", &self.0.as_ref().map(|entry| entry.at)).finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<T> defmt::Format for Memory<T> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Memory {{ at: {} }}", self.0.as_ref().map(|entry| entry.at));
    }
}

impl<T> Fresh for Memory<T> {
    const FRESH: Self = Self(None);
}

impl<T> Stored for Memory<T> {
    type Cell = RefCell<Self>;
}

/// The last good value of one thing: settings, the value, and who is told of each that is served.
pub struct LastGood<K: CellKind<Memory<T>>, T, O = ()> {
    config: Config,
    memory: K::Cell,
    observer: O,
}

impl<K: CellKind<Memory<T>>, T, O> fmt::Debug for LastGood<K, T, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastGood").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<K: CellKind<Memory<T>>, T, O> defmt::Format for LastGood<K, T, O> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "LastGood {{ config: {} }}", self.config);
    }
}

impl<K: CellKind<Memory<T>>, T> LastGood<K, T> {
    /// A memory of nothing yet.
    #[must_use]
    pub const fn new(config: Valid<Config>) -> Self {
        Self::with_observer(config, ())
    }
}

impl<K: CellKind<Memory<T>>, T, O> LastGood<K, T, O> {
    /// A memory of nothing yet, and who is told of each value that a pipeline serves from it.
    #[must_use]
    pub const fn with_observer(config: Valid<Config>, observer: O) -> Self {
        Self { config: config.get(), memory: K::Cell::NEW, observer }
    }

    /// Forgets the value: it is known to be wrong. What a call under way brings is remembered all the same.
    pub fn forget(&self) {
        drop(self.memory.update(|memory| memory.0.take()));
    }
}

impl<K: CellKind<Memory<T>>, T: Clone, O> LastGood<K, T, O> {
    /// Remembers a clone of a good value, as of now, in place of the one before.
    pub fn remember(&self, value: &T, clock: &impl Clock) {
        remember(&self.memory, value, clock.now(), |memory, entry| memory.0.replace(entry));
    }

    /// The last good value, unless there is none or it is older than the age limit.
    pub fn get(&self, clock: &impl Clock) -> Option<Good<T>> {
        self.find(clock, |_| true)
    }

    /// How old the last good value is, whatever the age limit; `None` when there is none.
    pub fn age(&self, clock: &impl Clock) -> Option<Duration> {
        let now = clock.now();
        self.memory.read(|memory| memory.0.as_ref().map(|entry| entry.age(now))).map(Span::duration)
    }

    fn find(&self, clock: &impl Clock, wanted: impl Fn(&Served) -> bool) -> Option<Good<T>> {
        let now = clock.now();
        self.memory.update(|memory| {
            let entry = memory.0.as_mut()?;
            entry.settle(now);
            entry.recall(&self.config, now, &wanted)
        })
    }
}

#[cfg(test)]
mod tests;
