//! Chaos on purpose: faults, latency, outcomes and behaviour injected into calls by a seeded plan, to see whether the policies
//! around them hold.
//!
//! ```
//! use failsoft_core::{Pipeline, Ratio, cell::Local, chaos::{Chaos, Config, Fault}, testing::VirtualExecutor};
//!
//! let config = Config::new(7).with_rate(Ratio::percent(20)).validate()?;
//! let chaos: Chaos<Local, _> = Chaos::new(config, Fault::new(|_| "injected"));
//! let executor = VirtualExecutor::new();
//! let pipeline = Pipeline::new(&executor).layer(&chaos); // the last layer named: innermost
//!
//! let fails = || executor.run(pipeline.call(async |_| Ok(()))).expect("it ends").is_err();
//! let hit: Vec<_> = (1..=20).filter(|_| fails()).collect();
//! assert_eq!(hit, [6, 11, 14, 17, 18, 19]); // on every machine
//!
//! chaos.set_rate(Ratio::ONE)?;
//! assert!(fails());
//! chaos.set_enabled(false);
//! assert!(!fails());
//! # Ok::<(), failsoft_core::ConfigError>(())
//! ```
//!
//! # The plan
//! Whether a call is hit follows from the [seed](Config::new), the number of the call and the rate in force, and from nothing else: the
//! same on a chip and on a server, whatever the rate was before and whoever calls at the same time. So what a run brought to
//! light can be replayed from its seed. A higher rate hits the same calls and others. The numbers go round after 2^32 calls.
//!
//! A call is whatever reaches the layer: within a retry, each attempt is one. While chaos is switched off calls pass uncounted, at the
//! price of one look at the cell; switched on again, the plan goes on where it stood.
//!
//! # What is injected
//!
//! | kind | what happens | the operation |
//! | --- | --- | --- |
//! | [`Fault`] | the call fails with an error that a function makes | is not started |
//! | [`Latency`] | the call waits, for a constant time or one that the plan draws from a range | runs then |
//! | [`Fake`] | the call ends with an outcome, `Ok` or `Err`, that a function makes | is not started |
//! | [`Behaviour`] | a future runs to its end: that restarts the peer, say | runs then |
//!
//! Functions get the [`Hit`], with a random number of the plan's to choose by. Named last in a pipeline, the layer stands
//! innermost, and the policies around it take what it does for the dependency's doing: the pipeline's own classifier judges what is
//! injected, and a timeout cuts a latency short. Several layers may follow each other, each with its own plan: give each its own
//! seed, lest they hit the same calls.
//!
//! # Defaults
//!
//! | what | default | range | at the extremes |
//! | --- | --- | --- | --- |
//! | seed | none: say which | any | |
//! | rate | [`RATE`] (0.1 % of the calls) | up to 100 % | zero: none, and calls are counted; 100 %: all |
//! | switch | on | on, off | |
//!
//! A call that is not hit reads no clock and arms no timer.
//!
//! # When not to use it
//! Where nobody watches: an experiment needs a hypothesis, someone who looks at the outcome, and a hand at the switch. And outside the
//! policies that it is to put to the test: those within it would never meet what it does.
//!
//! # Source
//! Basiri et al., "Chaos Engineering", IEEE Software 33(3), 2016; the kinds and their place in a pipeline are those of Polly's
//! chaos strategies, which were Simmy. The plan is ours: theirs draw anew in each run.

use core::cell::Cell;
use core::fmt;

use crate::cell::{CellKind, Fresh, Packed, StateCell, Stored};
use crate::config::{ConfigError, Valid, refuse};
use crate::ratio::Ratio;
use crate::rng::{Rng, share};

mod injection;
mod layer;

pub use injection::{Behaviour, Delayed, Fake, Fault, Injection, Kind, Latency};
pub use layer::ChaosState;

/// The share of the calls that is hit, unless said otherwise: low, since it may be a system that people use.
pub const RATE: Ratio = Ratio::basis_points(10);

/// The settings of chaos.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Config {
    plan: Plan,
    rate: Ratio,
    enabled: bool,
}

impl Config {
    /// The plan of this seed, and the defaults as in the [module's table](self#defaults).
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { plan: Plan::new(seed), rate: RATE, enabled: true }
    }

    /// Hits this share of the calls, until [set](Chaos::set_rate) to another.
    #[must_use]
    pub const fn with_rate(mut self, rate: Ratio) -> Self {
        self.rate = rate;
        self
    }

    /// Switched on or off, until [set](Chaos::set_enabled) otherwise.
    #[must_use]
    pub const fn with_enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Whether the settings make sense.
    ///
    /// # Errors
    /// The first field that doesn't, and why.
    pub const fn validate(self) -> Result<Valid<Self>, ConfigError> {
        match check_rate(self.rate) {
            Ok(()) => Ok(Valid::vouched(self)),
            Err(error) => Err(error),
        }
    }
}

const fn check_rate(rate: Ratio) -> Result<(), ConfigError> {
    if rate.is_share() { Ok(()) } else { Err(refuse!("rate", "is above 1")) }
}

/// Which calls are hit: a function of the seed, the number of the call, and the rate.
///
/// ```
/// use failsoft_core::{Ratio, chaos::Plan};
///
/// let first = |rate| (1..).find(|&call| Plan::new(1).hit(call, rate).is_some());
/// assert_eq!(first(Ratio::percent(1)), Some(21));
/// assert_eq!(first(Ratio::percent(10)), Some(6));
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Plan {
    seed: u64,
}

/// A call that is hit, and what the plan has drawn for it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Hit {
    /// The number of the call; the first is 1.
    pub call: u32,
    /// Evenly distributed over all its values: for choosing one of several errors, say. The rate has no influence on it.
    pub random: u32,
}

impl Plan {
    /// The plan of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Whether the call of this number is hit at this rate.
    #[must_use]
    pub const fn hit(&self, call: u32, rate: Ratio) -> Option<Hit> {
        // Below the rate's share of all random numbers.
        let drawn = share(Ratio::ONE.as_basis_points() as u64, Rng::new(self.seed).at(call));
        if drawn >= rate.as_basis_points() as u64 {
            return None;
        }
        // Not the number that is known to be low, but one of another sequence.
        Some(Hit { call, random: Rng::new(!self.seed).at(call) })
    }
}

/// How far the plan has come, and which settings have been changed since.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Progress {
    // The number of the last call.
    calls: u32,
    // These two by exclusive or with the settings: nothing has been changed in a fresh state, whatever they are.
    rate: u32,
    toggled: bool,
}

impl Fresh for Progress {
    const FRESH: Self = Self { calls: 0, rate: 0, toggled: false };
}

impl Stored for Progress {
    type Cell = Cell<Self>;
}

impl Progress {
    const fn rate(self, config: &Config) -> Ratio {
        Ratio::basis_points(config.rate.as_basis_points() ^ self.rate)
    }

    const fn enabled(self, config: &Config) -> bool {
        config.enabled ^ self.toggled
    }

    /// Counts a call while switched on: its number, and the rate that it meets.
    const fn next(&mut self, config: &Config) -> Option<(u32, Ratio)> {
        if !self.enabled(config) {
            return None;
        }
        self.calls = self.calls.wrapping_add(1);
        Some((self.calls, self.rate(config)))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "parts of the word are meant")]
impl Packed for Progress {
    #[inline]
    fn pack(self) -> (u64, u64) {
        // Of two rates, none above 10,000, the exclusive or is below 2^14.
        (u64::from(self.calls) | u64::from(self.rate) << 32 | u64::from(self.toggled) << 48, 0)
    }

    #[inline]
    fn unpack(head: u64, _: u64) -> Self {
        Self { calls: head as u32, rate: u32::from((head >> 32) as u16), toggled: head >> 48 != 0 }
    }

    #[inline]
    fn has_tail(_: u64) -> bool {
        false
    }
}

/// Chaos of one kind: settings, how far the plan has come, what is injected, and who is told.
///
/// `K` says how the progress is shared, `I` is one of the [four kinds](self#what-is-injected); the adapters have aliases that
/// choose `K`.
pub struct Chaos<K: CellKind<Progress>, I, O = ()> {
    config: Config,
    progress: K::Cell,
    injection: I,
    observer: O,
}

impl<K: CellKind<Progress>, I, O> fmt::Debug for Chaos<K, I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chaos")
            .field("calls", &self.calls())
            .field("rate", &self.rate())
            .field("enabled", &self.is_enabled())
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<K: CellKind<Progress>, I, O> defmt::Format for Chaos<K, I, O> {
    fn format(&self, f: defmt::Formatter<'_>) {
        let (calls, rate, enabled) = (self.calls(), self.rate(), self.is_enabled());
        defmt::write!(f, "Chaos {{ calls: {}, rate: {}, enabled: {} }}", calls, rate, enabled);
    }
}

/// What was done to a call: told once for each that is hit, before it is done.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Injected {
    /// The number of the call; the first is 1.
    pub call: u32,
    /// What was injected.
    pub kind: Kind,
}

impl<K: CellKind<Progress>, I> Chaos<K, I> {
    /// Chaos of this kind, at the beginning of its plan.
    #[must_use]
    pub const fn new(config: Valid<Config>, injection: I) -> Self {
        Self::with_observer(config, injection, ())
    }
}

impl<K: CellKind<Progress>, I, O> Chaos<K, I, O> {
    /// Chaos of this kind, at the beginning of its plan, and who is told of each injection.
    #[must_use]
    pub const fn with_observer(config: Valid<Config>, injection: I, observer: O) -> Self {
        Self { config: config.get(), progress: K::Cell::NEW, injection, observer }
    }

    /// Counts a call, and says whether it is hit. A layer does that; it is public for those who have no pipeline. Nobody is told.
    pub fn next_call(&self) -> Option<Hit> {
        let (call, rate) = self.progress.update(|progress| progress.next(&self.config))?;
        self.config.plan.hit(call, rate)
    }

    /// Hits this share of the calls from now on.
    ///
    /// # Errors
    /// It is above 1; the old rate stays.
    pub fn set_rate(&self, rate: Ratio) -> Result<(), ConfigError> {
        check_rate(rate)?;
        let change = self.config.rate.as_basis_points() ^ rate.as_basis_points();
        self.progress.update(|progress| progress.rate = change);
        Ok(())
    }

    /// Switches it on or off for all calls from now on. What is under way goes on.
    pub fn set_enabled(&self, enabled: bool) {
        self.progress.update(|progress| progress.toggled = self.config.enabled ^ enabled);
    }

    /// Begins the plan again: the next call is number 1. Rate and switch stay as they are.
    pub fn restart(&self) {
        self.progress.update(|progress| progress.calls = 0);
    }

    /// The rate in force, switched on or off.
    pub fn rate(&self) -> Ratio {
        self.progress.read(|progress| progress.rate(&self.config))
    }

    /// Whether it is switched on.
    pub fn is_enabled(&self) -> bool {
        self.progress.read(|progress| progress.enabled(&self.config))
    }

    /// The number of the last call; 0 before the first.
    pub fn calls(&self) -> u32 {
        self.progress.read(|progress| progress.calls)
    }
}

#[cfg(test)]
mod tests;
