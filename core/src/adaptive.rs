//! An adaptive limit: a bulkhead that finds out by itself how many calls at once the dependency bears.
//!
//! ```
//! use core::time::Duration;
//! use failsoft_core::{Instant, cell::Local};
//! use failsoft_core::adaptive::{AdaptiveLimit, Aimd, Config};
//! use failsoft_core::bulkhead::NoQueue;
//!
//! let config = Config::new(Aimd::new().validate()?).with_limits(1, 4, 100).validate()?;
//! let limit: AdaptiveLimit<Local, Local, Aimd, NoQueue> = AdaptiveLimit::new(config);
//! for _ in 0..10 {
//!     let (one, two) = (limit.try_acquire(Instant::START)?, limit.try_acquire(Instant::START)?);
//!     one.success();
//!     two.success();
//! }
//! assert_eq!(limit.limit(), 5); // it rises while half of it is in use
//! limit.try_acquire(Instant::START)?.dropped();
//! assert_eq!(limit.limit(), 4);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! A fixed limit is right for one dependency on one day. This one is worked out from what the calls meet: how long they take,
//! how many are in flight, and whether they are dropped. All else is the [bulkhead]'s: the queue, the priorities,
//! permits that can't leak. It stands where a bulkhead does in a pipeline.
//!
//! # Algorithms
//!
//! | algorithm | what it goes by | for |
//! | --- | --- | --- |
//! | [`Aimd`] | calls that are dropped or take longer than a limit | where a good latency is not known, and for small chips: it remembers nothing |
//! | [`Vegas`] | latencies against the lowest one | steady latencies |
//! | [`Gradient2`] in [`Windowed`] | latencies against their long average | mixed work; what to begin with |
//! | [`Trend`] in [`Windowed`] | the same, by small steps, within reach of what is in use | loads that vary: the limit comes down with them |
//! | [`Gradient`] | latencies against those at the lowest limit, measured from time to time | where a measurement at low load can be afforded |
//!
//! Choose the highest limit with care: [`Vegas`], [`Gradient2`] and [`Trend`] take for normal what they have met for long enough, and under
//! lasting saturation rise to it within minutes. [`Aimd`] and [`Gradient`] don't.
//!
//! # What counts
//! A success is a latency. A failure, a timeout within included, counts as *dropped*, whatever time it took: a sign of overload (but for
//! [`Gradient`], which goes by latencies alone). Failures that say nothing about the load, [ignored](crate::Outcome::Ignored) by the classifier,
//! count as nothing; so does what is cancelled or rejected within.
//!
//! A limit rises only while at least half of it is in use (but for [`Trend`] and [`Gradient`]). Calls of a [`Priority`] below that, on their
//! own, can't raise it.
//!
//! # Defaults
//!
//! | what | default | range | at the extremes |
//! | --- | --- | --- | --- |
//! | initial limit | [`INITIAL`] (20 calls) | within the lowest and the highest | |
//! | lowest limit | [`LOWEST`] (3) | 1 or more | |
//! | highest limit | [`HIGHEST`] (1,000) | up to [`MOST`] | |
//! | queue, order, longest wait | as the [bulkhead's](crate::bulkhead#defaults): none | | |
//! | [`Aimd`]: what is left after a drop | [`BACKOFF`] (90 %) | below 100 % | 0 % falls to the lowest at once |
//! | [`Aimd`]: longest latency | [`TIMEOUT`] (5 s) | any | |
//! | [`Vegas`]: alpha, beta | 3 and 6 times log₁₀ of the limit | [`Amount`] | |
//! | [`Vegas`]: threshold, increase, decrease | log₁₀ of the limit | [`Amount`] | |
//! | [`Vegas`]: smoothing | 100 % | above zero | |
//! | [`Vegas`]: calls between measurements | [`PROBE_MULTIPLIER`] (30) times the limit | 2 or more | |
//! | [`Gradient2`]: long window | [`LONG_WINDOW`] (600 latencies) | 1 or more | |
//! | [`Gradient2`]: tolerance | [`TOLERANCE`] (150 %) | 100 % or more | |
//! | [`Gradient2`]: queue size, smoothing | [`QUEUE_SIZE`] (4 calls), [`SMOOTHING`] (20 %) | | |
//! | [`Trend`]: baseline, its window | none: the first latencies; [`BASELINE_WINDOW`] (10 latencies) | 1 or more | |
//! | [`Trend`]: headroom, stabilisation | [`HEADROOM`] (500 % of what is in use), none | 100 % or more | |
//! | [`Gradient`]: update interval | [`UPDATE_INTERVAL`] (100 ms) | above zero | |
//! | [`Gradient`]: measurements | every [`MEASURE_INTERVAL`] (60 s) and [`JITTER`] (up to 15 %) more, [`MEASURED_CALLS`] (50 calls) | | |
//! | [`Gradient`]: buffer, percentile | [`BUFFER`] (25 %), the median | | |
//! | [`Windowed`]: summary | [`Average`] | or [`Percentile`] | |
//! | [`Windowed`]: counts as dropped | from [`DROPPED_SHARE`] (10 %) of its calls on | above zero to 100 % | |
//! | [`Windowed`]: window | [`SHORTEST_WINDOW`] (1 s) to [`LONGEST_WINDOW`] (30 s), [`MINIMUM_SAMPLES`] (10 calls) or more | | |
//!
//! # What it costs
//! Two readings of the clock for each call, and one update of a cell at its end: a lock on servers, since what most algorithms remember does
//! not fit a word. Only integers.
//!
//! # When not to use it
//! Where the right limit is known: a pool of connections, a bus. With few calls: there is nothing to learn from. And for latencies that say nothing
//! about load, as those of a queue or of long polls.
//!
//! # Source
//! Each algorithm names its own. The whole follows Netflix's concurrency-limits: "Performance under load", Netflix technology blog, 2018.

use core::cell::RefCell;
use core::fmt::{self, Debug};
use core::time::Duration;

use crate::bulkhead::{self, Bulkhead, MOST, NoQueue, Priority, Slots, Tally, WaitQueue};
use crate::cell::{CellKind, Fresh, StateCell, Stored};
use crate::config::{ConfigError, Valid, refuse};
use crate::failure::{Policy, Rejected};
use crate::observe::Observer;
use crate::outcome::Outcome;
use crate::time::{Clock, Instant, Span};

mod aimd;
mod estimate;
mod gradient;
mod gradient2;
mod layer;
mod summary;
mod trend;
mod vegas;
mod windowed;

pub use aimd::{Aimd, BACKOFF, NoMemory, TIMEOUT};
pub use estimate::{Amount, Estimate, MovingAverage};
pub use gradient::{BUFFER, Gradient, JITTER, MEASURE_INTERVAL, MEASURED_CALLS, Measured, UPDATE_INTERVAL};
pub use gradient2::{Gradient2, LONG_WINDOW, QUEUE_SIZE, SMOOTHING, TOLERANCE};
pub use layer::{Prioritised, TimingState};
pub use summary::{Average, Percentile, Spread, Sum, Summary};
pub use trend::{BASELINE_WINDOW, HEADROOM, Trend, Trending};
pub use vegas::{NoLoad, PROBE_MULTIPLIER, Vegas};
pub use windowed::{DROPPED_SHARE, LONGEST_WINDOW, MINIMUM_SAMPLES, SHORTEST_WINDOW, Window, Windowed};

/// The limit to begin with, unless said otherwise.
pub const INITIAL: u32 = 20;
/// The lowest limit, unless said otherwise.
pub const LOWEST: u32 = 3;
/// The highest limit, unless said otherwise.
pub const HIGHEST: u32 = 1_000;

/// The settings of an adaptive limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Config<A> {
    algorithm: A,
    limits: Limits,
    initial: u32,
    queue: u32,
    longest_wait: Span,
    newest_first: bool,
}

/// The lowest and the highest limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Limits {
    min: u32,
    max: u32,
}

impl Limits {
    /// The lowest.
    #[must_use]
    pub const fn min(&self) -> u32 {
        self.min
    }

    /// The highest.
    #[must_use]
    pub const fn max(&self) -> u32 {
        self.max
    }

    fn clamp(&self, estimate: Estimate) -> Estimate {
        estimate.within(Estimate::of(self.min), Estimate::of(self.max))
    }
}

impl<A: Copy> Config<A> {
    /// This algorithm, with the defaults of the [module's table](self#defaults).
    #[must_use]
    pub const fn new(algorithm: Valid<A>) -> Self {
        Self {
            algorithm: algorithm.get(),
            limits: Limits { min: LOWEST, max: HIGHEST },
            initial: INITIAL,
            queue: 0,
            longest_wait: Span::ZERO,
            newest_first: false,
        }
    }

    /// Begins with `initial` calls at once, and stays between `min` and `max`.
    #[must_use]
    pub const fn with_limits(mut self, min: u32, initial: u32, max: u32) -> Self {
        (self.limits, self.initial) = (Limits { min, max }, initial);
        self
    }

    /// Lets up to `callers` wait in a pipeline, each for up to `longest_wait`; see [`bulkhead::Config::with_queue`].
    #[must_use]
    pub const fn with_queue(mut self, callers: u32, longest_wait: Duration) -> Self {
        (self.queue, self.longest_wait) = (callers, Span::of(longest_wait));
        self
    }

    /// Serves the newest in the queue first; see [`bulkhead::Config::with_newest_first`].
    #[must_use]
    pub const fn with_newest_first(mut self) -> Self {
        self.newest_first = true;
        self
    }

    /// The algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> &A {
        &self.algorithm
    }

    /// The limit to begin with.
    #[must_use]
    pub const fn initial(&self) -> u32 {
        self.initial
    }

    /// The lowest limit.
    #[must_use]
    pub const fn min(&self) -> u32 {
        self.limits.min
    }

    /// The highest limit.
    #[must_use]
    pub const fn max(&self) -> u32 {
        self.limits.max
    }

    const fn bulkhead(&self) -> bulkhead::Config {
        let config = bulkhead::Config::new(self.initial).with_queue(self.queue, self.longest_wait.duration());
        let config = if self.newest_first { config.with_newest_first() } else { config };
        config.serving(Policy::AdaptiveLimit)
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    /// The first field that doesn't, and why.
    pub const fn validate(self) -> Result<Valid<Self>, ConfigError> {
        let Limits { min, max } = self.limits;
        if min == 0 {
            return Err(refuse!("min", "is zero: nothing could pass, and so nothing be learned"));
        }
        if max > MOST {
            return Err(refuse!("max", "is above 2,097,151, the most the counter holds"));
        }
        if self.initial < min || self.initial > max {
            return Err(refuse!("initial", "is not between the lowest and the highest limit"));
        }
        match self.bulkhead().validate() {
            Ok(_) => Ok(Valid::vouched(self)),
            Err(error) => Err(error),
        }
    }
}

/// One call, or what a window of them comes to, as an algorithm sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Sample {
    /// How long it took.
    pub latency: Span,
    /// Calls in flight when it began, itself included.
    pub in_flight: u32,
    /// Whether it was dropped: it failed or timed out.
    pub dropped: bool,
    /// When it ended.
    pub ended: Instant,
}

impl Sample {
    /// At least a nanosecond, so that it can be divided by.
    fn latency(&self) -> Span {
        self.latency.max(Span::from_nanos(1))
    }

    /// When it began.
    const fn started(&self) -> Instant {
        Instant::from_nanos(self.ended.as_nanos().saturating_sub(self.latency.as_nanos()))
    }
}

/// How a limit follows the calls.
pub trait Algorithm: Copy + Debug {
    /// What it remembers.
    type Memory: Copy + Debug + Fresh;

    /// Whether the limit may change by time alone. It costs a look at the memory for each call.
    const TIMED: bool = false;

    /// Takes a call into account and says the next limit; the caller keeps it within the limits.
    fn record(&self, memory: &mut Self::Memory, limit: Estimate, sample: &Sample, limits: &Limits) -> Estimate;

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    fn poll_timeout(&self, memory: &Self::Memory) -> Option<Instant> {
        let _ = memory;
        None
    }

    /// Takes the time into account and says the next limit. Early and extra calls are harmless.
    fn handle_timeout(&self, memory: &mut Self::Memory, limit: Estimate, limits: &Limits, now: Instant) -> Estimate {
        let _ = (memory, limits, now);
        limit
    }
}

/// The limit that was worked out, and what the algorithm remembers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Remembered<M> {
    // Zero: the initial one still.
    estimate: Estimate,
    memory: M,
}

impl<M: Fresh> Fresh for Remembered<M> {
    const FRESH: Self = Self { estimate: Estimate::of(0), memory: M::FRESH };
}

impl<M: Fresh> Stored for Remembered<M> {
    type Cell = RefCell<Self>;
}

impl<M: Copy> Remembered<M> {
    const fn estimate<A: Copy>(&self, config: &Config<A>) -> Estimate {
        if self.estimate.whole() == 0 { Estimate::of(config.initial) } else { self.estimate }
    }

    /// Moves on to what `next` makes of the limit; the change, if it is one.
    fn advance<A: Copy>(&mut self, config: &Config<A>, next: impl FnOnce(&mut M, Estimate) -> Estimate) -> LimitChange {
        let before = self.estimate(config);
        self.estimate = config.limits.clamp(next(&mut self.memory, before));
        LimitChange { from: before.whole(), to: self.estimate.whole() }
    }
}

/// Another limit is in force.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LimitChange {
    /// The limit before.
    pub from: u32,
    /// The limit now.
    pub to: u32,
}

/// A call that has begun, as far as it is timed.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct Timed {
    started: Instant,
    in_flight: u32,
}

/// An adaptive limit: settings, a bulkhead, and what was learned.
///
/// `K` says how the bulkhead's counters are shared, `M` how the memory of the algorithm `A` is, `Q` where callers wait, `O` who is told; the
/// adapters have aliases that choose the first two.
pub struct AdaptiveLimit<K, M, A, Q = NoQueue, O = ()>
where
    A: Algorithm,
    K: CellKind<Slots> + CellKind<Tally>,
    M: CellKind<Remembered<A::Memory>>,
{
    config: Config<A>,
    bulkhead: Bulkhead<K, Q>,
    learned: M::Cell,
    observer: O,
}

impl<K, M, A, Q, O> Debug for AdaptiveLimit<K, M, A, Q, O>
where
    A: Algorithm,
    K: CellKind<Slots> + CellKind<Tally>,
    M: CellKind<Remembered<A::Memory>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdaptiveLimit").field("limit", &self.limit()).finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<K, M, A, Q, O> defmt::Format for AdaptiveLimit<K, M, A, Q, O>
where
    A: Algorithm,
    K: CellKind<Slots> + CellKind<Tally>,
    M: CellKind<Remembered<A::Memory>>,
{
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "AdaptiveLimit {{ limit: {} }}", self.limit());
    }
}

impl<K, M, A, Q> AdaptiveLimit<K, M, A, Q>
where
    A: Algorithm,
    K: CellKind<Slots> + CellKind<Tally>,
    M: CellKind<Remembered<A::Memory>>,
    Q: WaitQueue,
{
    /// A limit that has learned nothing yet.
    #[must_use]
    pub const fn new(config: Valid<Config<A>>) -> Self {
        Self::with_observer(config, ())
    }
}

impl<K, M, A, Q, O> AdaptiveLimit<K, M, A, Q, O>
where
    A: Algorithm,
    K: CellKind<Slots> + CellKind<Tally>,
    M: CellKind<Remembered<A::Memory>>,
    Q: WaitQueue,
{
    /// A limit that has learned nothing yet, and who is told of its changes.
    #[must_use]
    pub const fn with_observer(config: Valid<Config<A>>, observer: O) -> Self {
        let config = config.get();
        // Its settings were looked at together with ours.
        let bulkhead = Bulkhead::new(Valid::vouched(config.bulkhead()));
        Self { config, bulkhead, learned: M::Cell::NEW, observer }
    }

    /// What is in use, what waits, what was rejected; the permits are the limit.
    pub fn snapshot(&self) -> bulkhead::Snapshot {
        self.bulkhead.snapshot()
    }
}

impl<K, M, A, Q, O> AdaptiveLimit<K, M, A, Q, O>
where
    A: Algorithm,
    K: CellKind<Slots> + CellKind<Tally>,
    M: CellKind<Remembered<A::Memory>>,
{
    /// The limit in force.
    pub fn limit(&self) -> u32 {
        self.learned.read(|learned| learned.estimate(&self.config).whole())
    }

    /// What the algorithm remembers.
    pub fn memory(&self) -> A::Memory {
        self.learned.read(|learned| learned.memory)
    }
}

impl<K, M, A, Q, O> AdaptiveLimit<K, M, A, Q, O>
where
    A: Algorithm,
    K: CellKind<Slots> + CellKind<Tally>,
    M: CellKind<Remembered<A::Memory>>,
    Q: WaitQueue,
    O: Observer<LimitChange>,
{
    /// Asks to make a call now. The permit keeps the clock for its report: pass a reference to one that is not `Copy`.
    ///
    /// # Errors
    /// The rejection: as many calls as the limit allows are under way.
    pub fn try_acquire<C: Clock + Copy>(&self, clock: C) -> Result<Permit<'_, K, M, A, Q, O, C>, Rejected> {
        self.try_acquire_at(Priority::CRITICAL, clock)
    }

    /// Asks to make a call of some priority now.
    ///
    /// # Errors
    /// The rejection: as many calls as the priority's share of the limit allows are under way.
    pub fn try_acquire_at<C: Clock + Copy>(
        &self,
        priority: Priority,
        clock: C,
    ) -> Result<Permit<'_, K, M, A, Q, O, C>, Rejected> {
        let now = A::TIMED.then(|| clock.now());
        if let Some(now) = now {
            self.handle_timeout(&now);
        }
        let slot = self.bulkhead.try_acquire_at(1, priority)?;
        let timed = self.begin(now.unwrap_or_else(|| clock.now()));
        Ok(Permit { limit: self, slot, timed, clock })
    }

    /// Takes a call into account. Permits do that; it is public for those who keep their own count of calls.
    pub fn record(&self, sample: &Sample) {
        let Config { algorithm, limits, .. } = self.config;
        self.learn(|memory, limit| algorithm.record(memory, limit, sample, &limits));
    }

    /// Moves on where the limit changes by time alone. Calls do this by themselves; this is for those who want it on
    /// time. Early and extra calls are harmless.
    pub fn handle_timeout(&self, clock: &impl Clock) {
        let Some(at) = self.poll_timeout() else { return };
        let now = clock.now();
        if now >= at {
            let Config { algorithm, limits, .. } = self.config;
            self.learn(|memory, limit| algorithm.handle_timeout(memory, limit, &limits, now));
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.learned.read(|learned| self.config.algorithm.poll_timeout(&learned.memory))
    }

    fn begin(&self, started: Instant) -> Timed {
        Timed { started, in_flight: self.bulkhead.in_use() }
    }

    fn end(&self, timed: Timed, outcome: Outcome, clock: &impl Clock) {
        let dropped = match outcome {
            Outcome::Success => false,
            Outcome::Failure => true,
            Outcome::Ignored => return,
        };
        let ended = clock.now();
        let latency = Span::from_nanos(ended.as_nanos().saturating_sub(timed.started.as_nanos()));
        self.record(&Sample { latency, in_flight: timed.in_flight, dropped, ended });
    }

    fn learn(&self, next: impl Fn(&mut A::Memory, Estimate) -> Estimate) {
        let change = self.learned.update(|learned| learned.advance(&self.config, &next));
        if change.from != change.to {
            self.apply();
            self.observer.observe(&change);
        }
    }

    /// Puts the limit in force. Another one may have come meanwhile, and been put in force before this one: so the last to
    /// come here looks once more.
    fn apply(&self) {
        let mut limit = self.limit();
        loop {
            // It is within the bulkhead's range: the configuration was looked at.
            let _ = self.bulkhead.resize(limit);
            let latest = self.limit();
            if latest == limit {
                return;
            }
            limit = latest;
        }
    }
}

/// The right to make one call. Spend it with [`success`](Self::success), [`dropped`](Self::dropped) or
/// [`ignore`](Self::ignore); dropping it unspent is the last of these.
#[must_use = "a permit that is dropped at once limits nothing"]
pub struct Permit<'l, K, M, A, Q, O, C>
where
    A: Algorithm,
    K: CellKind<Slots> + CellKind<Tally>,
    M: CellKind<Remembered<A::Memory>>,
    Q: WaitQueue,
{
    limit: &'l AdaptiveLimit<K, M, A, Q, O>,
    slot: bulkhead::Permit<&'l Bulkhead<K, Q>, K, Q>,
    timed: Timed,
    clock: C,
}

impl<K, M, A, Q, O, C> Permit<'_, K, M, A, Q, O, C>
where
    A: Algorithm,
    K: CellKind<Slots> + CellKind<Tally>,
    M: CellKind<Remembered<A::Memory>>,
    Q: WaitQueue,
    O: Observer<LimitChange>,
    C: Clock,
{
    /// The call went well: its latency counts.
    pub fn success(self) {
        self.end(Outcome::Success);
    }

    /// The call failed or timed out: a sign of overload.
    pub fn dropped(self) {
        self.end(Outcome::Failure);
    }

    /// The call says nothing about the load.
    pub fn ignore(self) {
        self.end(Outcome::Ignored);
    }

    fn end(self, outcome: Outcome) {
        let Self { limit, slot, timed, clock } = self;
        limit.end(timed, outcome, &clock);
        // Afterwards, so that whoever waits is served by the limit that follows.
        drop(slot);
    }
}

impl<K, M, A, Q, O, C> Debug for Permit<'_, K, M, A, Q, O, C>
where
    A: Algorithm,
    K: CellKind<Slots> + CellKind<Tally>,
    M: CellKind<Remembered<A::Memory>>,
    Q: WaitQueue,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("timed", &self.timed).finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<K, M, A, Q, O, C> defmt::Format for Permit<'_, K, M, A, Q, O, C>
where
    A: Algorithm,
    K: CellKind<Slots> + CellKind<Tally>,
    M: CellKind<Remembered<A::Memory>>,
    Q: WaitQueue,
{
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Permit {{ timed: {} }}", self.timed);
    }
}

#[cfg(test)]
mod tests;
