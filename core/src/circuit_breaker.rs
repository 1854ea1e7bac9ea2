//! A circuit breaker: stops calling a dependency that fails, and finds out by a few probes when it is back.
//!
//! ```
//! use core::time::Duration;
//! use failsoft_core::{Instant, cell::Local};
//! use failsoft_core::circuit_breaker::{CircuitBreaker, Config, StateKind};
//!
//! let breaker: CircuitBreaker<Local> =
//!     CircuitBreaker::new(Config::new().with_open_for(Duration::from_secs(10)).validate()?);
//! for _ in 0..5 {
//!     breaker.try_acquire(Instant::START)?.failure();
//! }
//! let rejected = breaker.try_acquire(Instant::from_millis(9_999)).err().ok_or("open")?;
//! assert_eq!(rejected.retry_at(), Some(Instant::from_millis(10_000)));
//! breaker.try_acquire(Instant::from_millis(10_000))?.success();
//! assert_eq!(breaker.state(), StateKind::HalfOpen);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # States
//!
//! ```text
//!              a trip condition is met,                   by hand, from any state:
//!              or a verdict opens                           isolate       Isolated     rejects all
//!   ┌────────┐ ─────────────────────────▶ ┌──────┐          disable       Disabled     admits all, records nothing
//!   │ Closed │                            │ Open │          observe_only  MetricsOnly  admits all, records, reports
//!   └────────┘      ┌──────────┐ ◀─────── └──────┘          reset         Closed       nothing counted
//!        ▲──────────│ HalfOpen │  open period is over       open_until    Open         until then
//!    enough good    └──────────┘ ────────────▲              half_open     HalfOpen     all probes to come
//!      probes            too many bad probes, a verdict that opens, or its deadline
//! ```
//!
//! A change by hand from one state into the same one begins it anew, and what was admitted before is late.
//!
//! # Defaults
//!
//! | what | default | range | at the extremes |
//! | --- | --- | --- | --- |
//! | trip condition | 5 consecutive failures | see [`trip`] | |
//! | slow calls | not timed | the condition's own, see [`Trip::slow_after`] | zero: every call that takes any time |
//! | open period | [`OPEN_FOR`] (60 s) | 0 to `Duration::MAX` | `Duration::MAX`: until changed by hand; 0: the next call is a probe, and half-open needs a deadline of its own |
//! | growth of the open period | none | [`with_open_backoff`](Config::with_open_backoff), [`with_open_time`](Config::with_open_time) | |
//! | good probes to close | [`PROBES`] (3) of as many trials | 1 to 255 | |
//! | probes at once | as many as trials | 1 to trials | |
//! | half-open verdict | as soon as it is certain | [`with_full_trial`](Config::with_full_trial): when all trials are in | |
//! | half-open deadline | as long as the open period | above zero | [`Config::without_half_open_deadline`]: waits for its probes for ever |
//! | abandoned permit | [`Abandoned::Ignored`] | | |
//!
//! # Slow calls
//! A call is slow when its verdict [says so](Verdict::with_slow), or when it takes longer than the limit of a
//! condition that counts slow calls. Then every call is timed, which costs two readings of the clock; other
//! conditions time nothing. A slow probe is as bad as a failed one, whatever the condition:
//!
//! ```
//! use failsoft_core::{Instant, Verdict, cell::Local};
//! use failsoft_core::circuit_breaker::{CircuitBreaker, Config, StateKind};
//!
//! let breaker = CircuitBreaker::<Local>::new(Config::new().with_trials(2, 3).validate()?);
//! breaker.half_open(&Instant::START);
//! for _ in 0..2 {
//!     breaker.try_acquire(Instant::START)?.record(Verdict::SUCCESS.with_slow());
//! }
//! assert_eq!(breaker.state(), StateKind::Open);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # How long it stays open
//! For the configured period; or one that grows with each reopening ([`Growing`]); or what a function makes of the
//! counts, of the reopenings and of the time ([`OpenTime`]). The outcome that opens may ask for longer, by its
//! retry-after hint, and a verdict [may open](Verdict::with_opening) the breaker by itself: the caller has been
//! banned for an hour, say.
//!
//! ```
//! use core::time::Duration;
//! use failsoft_core::{Instant, Verdict, cell::Local};
//! use failsoft_core::circuit_breaker::{CircuitBreaker, Config};
//!
//! let breaker = CircuitBreaker::<Local>::new(Config::new().validate()?);
//! let banned = Verdict::PERMANENT.with_opening().with_retry_after(Duration::from_secs(3_600));
//! breaker.try_acquire(Instant::START)?.record(banned);
//! let rejected = breaker.try_acquire(Instant::START).err().ok_or("open")?;
//! assert_eq!(rejected.retry_at(), Some(Instant::from_millis(3_600_000)));
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # Other settings while it is in use
//! A breaker of kind [`Live`](crate::cell::Live) takes other settings of the same type at any time, and keeps what it
//! has counted, an open period under way, and its probes: see [`reconfigure`](CircuitBreaker::reconfigure). Other
//! kinds pay nothing for it.
//!
//! ```
//! use failsoft_core::{Instant, cell::{Live, Local}};
//! use failsoft_core::circuit_breaker::{CircuitBreaker, Config, ConsecutiveFailures, StateKind};
//!
//! let breaker = CircuitBreaker::<Live<Local>>::new(Config::new().validate()?);
//! for _ in 0..3 {
//!     breaker.try_acquire(Instant::START)?.failure();
//! }
//! let stricter = Config::new().with_trip(ConsecutiveFailures::new(4)?).validate()?;
//! breaker.reconfigure(stricter, &Instant::START);
//! breaker.try_acquire(Instant::START)?.failure();
//! assert_eq!(breaker.state(), StateKind::Open);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # Dry run
//! [`observe_only`](CircuitBreaker::observe_only) tries settings out on real traffic without rejecting any: each time
//! that the breaker would have opened, it tells of one [`Transition`] from `MetricsOnly` to `Open`, with the counts,
//! and stays as it is. It tells again after a recovery, once the condition was not met in between; and of other settings, which it
//! [may be given](self#other-settings-while-it-is-in-use) meanwhile.
//!
//! ```
//! use failsoft_core::{Instant, cell::Local};
//! use failsoft_core::circuit_breaker::{CircuitBreaker, Config, StateKind, Transition};
//!
//! let would_open = core::cell::Cell::new(0);
//! let count = |event: &Transition| {
//!     if (event.from, event.to) == (StateKind::MetricsOnly, StateKind::Open) {
//!         would_open.set(would_open.get() + event.counts.failures);
//!     }
//! };
//! let breaker = CircuitBreaker::<Local, _, _>::with_observer(Config::new().validate()?, count);
//! breaker.observe_only();
//! for _ in 0..20 {
//!     breaker.try_acquire(Instant::START)?.failure();
//! }
//! assert_eq!(would_open.get(), 5);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # When not to use it
//! For one's own overload (use a bulkhead or a rate limiter), and around things that fail one by one, such as a user's bad
//! input: the breaker is for a dependency that fails as a whole.
//!
//! # Source
//! Michael Nygard, "Release It!", 2007. Permits that carry a generation are as in gobreaker, the full trial and slow
//! calls as in Resilience4j; the half-open verdict "as soon as it is certain" and the failure meter are ours.

use core::mem::ManuallyDrop;
use core::time::Duration;

use crate::backoff::Backoff;
use crate::cell::{CellKind, Home, Replaceable, SettingsCell, StateCell, update_timed};
use crate::config::{ConfigError, Valid, refuse};
use crate::failure::{Policy, Reason, Rejected};
use crate::observe::{Called, Observer};
use crate::outcome::{Outcome, Verdict};
use crate::time::{Clock, Instant, Span};

mod layer;
mod machine;
mod saved;
mod totals;
pub mod trip;

use machine::{Entry, Phase, Report, Settled, Stamp, Ticket, Told};

pub use layer::BreakerState;
pub use machine::State;
pub use saved::Saved;
pub use totals::{Count, Totals};
pub use trip::{
    AverageOfCalls, AverageOverTime, ConsecutiveFailures, CountBased, Counts, FailureMeter, FailureRate, Growing,
    Meter, OpenTime, Opening, PackedMeter, Sample, TimeBased, Trip,
};

/// How long a breaker stays open, unless said otherwise.
pub const OPEN_FOR: Duration = Duration::from_secs(60);
/// Successful probes that close a half-open breaker, unless said otherwise.
pub const PROBES: u32 = 3;

/// What a permit that was dropped unspent counts as: the caller was cancelled, returned early or panicked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Abandoned {
    /// Nothing: the slot comes back and no more (the default).
    Ignored,
    /// A failure.
    Failure,
    /// A failure, once the call had run for longer than this: a dependency that hangs behind an outer timeout then trips
    /// the breaker. It costs a reading of the clock per admitted call.
    FailureAfter(Duration),
}

/// The settings of a circuit breaker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Config<T = ConsecutiveFailures> {
    trip: T,
    open_for: Span,
    half_open_for: Span,
    /// An abandoned call that ran for longer than this counts as a failure.
    abandoned_after: Span,
    // More than a byte, so that too many are found out; see `counted`.
    successes: u16,
    trials: u16,
    probes: u16,
    flags: u8,
}

/// Half-open takes as long as the open period.
const HALF_OPEN_AS_OPEN: u8 = 1;
/// Half-open waits for all its trials before it decides.
const FULL_TRIAL: u8 = 1 << 1;
/// Some abandoned calls count as failures and some don't, so that it matters how long each takes.
const ABANDONED_TIMED: u8 = 1 << 2;

/// A number of probes as the settings keep it: what is above the range of the type stays above that of the counter.
#[expect(clippy::cast_possible_truncation, reason = "looked at just before")]
const fn counted(probes: u32) -> u16 {
    if probes > u16::MAX as u32 { u16::MAX } else { probes as u16 }
}

impl Config {
    /// The defaults, as in the [module's table](self#defaults).
    #[must_use]
    pub const fn new() -> Self {
        Self {
            trip: ConsecutiveFailures::DEFAULT,
            open_for: Span::of(OPEN_FOR),
            half_open_for: Span::MAX,
            abandoned_after: Span::MAX,
            successes: counted(PROBES),
            trials: counted(PROBES),
            probes: counted(PROBES),
            flags: HALF_OPEN_AS_OPEN,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy> Config<T> {
    /// With another trip condition.
    #[must_use]
    pub const fn with_trip<U: Copy>(self, trip: U) -> Config<U> {
        let Self { trip: _, open_for, half_open_for, abandoned_after, successes, trials, probes, flags } = self;
        Config { trip, open_for, half_open_for, abandoned_after, successes, trials, probes, flags }
    }

    /// Stays open for this long. Zero is for breakers with a half-open deadline of their own: the next call after the
    /// opening is a probe.
    #[must_use]
    pub const fn with_open_for(mut self, period: Duration) -> Self {
        self.open_for = Span::of(period);
        self
    }

    /// Stays open for a period that depends on how often in a row the breaker has opened; see [`Growing`].
    ///
    /// # Errors
    /// The field of the backoff that makes no sense, and why.
    pub const fn with_open_backoff(self, periods: Backoff, seed: u64) -> Result<Config<Growing<T>>, ConfigError> {
        match Growing::new(self.trip, periods, seed) {
            Ok(trip) => Ok(self.with_open_for(periods.delay(1)).with_trip(trip)),
            Err(error) => Err(error),
        }
    }

    /// Stays open for as long as a function says, given the counts and how often in a row the breaker has reopened; see
    /// [`OpenTime`]. A failure's retry-after hint still makes it longer.
    ///
    /// ```
    /// use core::time::Duration;
    /// use failsoft_core::circuit_breaker::{Config, Opening, OpenTime};
    ///
    /// /// A second, and one more for each failure that was counted.
    /// fn by_failures(opening: &Opening) -> Duration {
    ///     Duration::from_secs(u64::from(opening.counts.failures) + 1)
    /// }
    /// let config = Config::new().with_open_time(by_failures).with_half_open_for(Duration::from_secs(5)).validate()?;
    /// # let _ = config;
    /// # Ok::<(), failsoft_core::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn with_open_time(self, open_time: fn(&Opening) -> Duration) -> Config<OpenTime<T>> {
        let trip = OpenTime::new(self.trip, open_time);
        self.with_trip(trip)
    }

    /// Closes after `successes` good probes, which neither failed nor were slow; the first bad one opens again.
    #[must_use]
    pub const fn with_probes(self, successes: u32) -> Self {
        self.with_trials(successes, successes)
    }

    /// Closes after `successes` good ones out of `trials` probes; opens again as soon as that is out of reach. All
    /// `trials` may be out at once, unless [`with_probes_at_once`](Self::with_probes_at_once) says less.
    #[must_use]
    pub const fn with_trials(mut self, successes: u32, trials: u32) -> Self {
        (self.successes, self.trials, self.probes) = (counted(successes), counted(trials), counted(trials));
        self
    }

    /// Waits until all trials have reported before it decides, instead of deciding as soon as the verdict is certain.
    /// An ignored or abandoned probe makes room for another one.
    #[must_use]
    pub const fn with_full_trial(self) -> Self {
        self.flagged(FULL_TRIAL, true)
    }

    const fn flagged(mut self, flag: u8, set: bool) -> Self {
        self.flags = if set { self.flags | flag } else { self.flags & !flag };
        self
    }

    /// At most so many probes at once.
    #[must_use]
    pub const fn with_probes_at_once(mut self, probes: u32) -> Self {
        self.probes = counted(probes);
        self
    }

    /// Opens again when no verdict was reached after this long in half-open.
    #[must_use]
    pub const fn with_half_open_for(mut self, deadline: Duration) -> Self {
        self.half_open_for = Span::of(deadline);
        self.flagged(HALF_OPEN_AS_OPEN, false)
    }

    /// Waits for the probes' verdict for ever. A probe that never returns then holds its slot for ever too.
    #[must_use]
    pub const fn without_half_open_deadline(self) -> Self {
        self.with_half_open_for(Duration::MAX)
    }

    /// What a permit that was dropped unspent counts as.
    #[must_use]
    pub const fn with_abandoned(mut self, abandoned: Abandoned) -> Self {
        self.abandoned_after = match abandoned {
            Abandoned::Ignored => Span::MAX,
            Abandoned::Failure => Span::ZERO,
            Abandoned::FailureAfter(limit) => Span::of(limit),
        };
        let timed = !self.abandoned_after.is_zero() && !self.abandoned_after.is_max();
        self.flagged(ABANDONED_TIMED, timed)
    }
}

impl<T: Copy + Trip> Config<T> {
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
        if self.successes == 0 {
            return Err(refuse!("successes", "is zero: half-open could never close"));
        }
        if self.trials > u8::MAX as u16 {
            return Err(refuse!("trials", "is above 255, the most the counter holds"));
        }
        if self.successes > self.trials {
            return Err(refuse!("successes", "is above the trials: half-open could never close"));
        }
        if self.probes == 0 || self.probes > self.trials {
            return Err(refuse!("probes", "is zero or above the trials"));
        }
        if self.half_open_for.is_zero() {
            return Err(refuse!("half_open_for", "is zero: no probe could ever report"));
        }
        if self.open_for.is_zero() && self.is(HALF_OPEN_AS_OPEN) {
            return Err(refuse!(
                "open_for",
                "is zero, and with it half-open, which lasts as long: no probe could ever report"
            ));
        }
        Ok(())
    }

    const fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether it matters how long a call takes.
    fn is_timed(&self) -> bool {
        self.is(ABANDONED_TIMED) || self.trip.slow_after() != Span::MAX
    }
}

/// What a breaker does with calls.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum StateKind {
    /// Admits all and counts.
    Closed,
    /// Rejects all until its period is over.
    Open,
    /// Admits a few probes.
    HalfOpen,
    /// Rejects all until told otherwise: held open by hand.
    Isolated,
    /// Admits all, records nothing: switched off by hand.
    Disabled,
    /// Admits all and counts, but never opens; reports when it would have.
    MetricsOnly,
}

impl StateKind {
    /// Its name in snake case, as it stands in labels and fields of telemetry: `half_open`, say. It is kept from version to version.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::Isolated => "isolated",
            Self::Disabled => "disabled",
            Self::MetricsOnly => "metrics_only",
        }
    }
}

/// One change of state. Every change gives exactly one, after it has happened.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Transition {
    /// The state before.
    pub from: StateKind,
    /// The state now. In [`StateKind::MetricsOnly`] a transition to `Open` is only what would have happened.
    pub to: StateKind,
    /// The generation that the change began; it wraps after 4,096.
    pub generation: u16,
    /// How often in a row the breaker has reopened without closing in between: zero when it opens for the first time,
    /// and wherever it neither is open nor half-open. It stops at 255.
    pub reopened: u8,
    /// What had been counted before the change, the outcome that caused it included. A failure meter can't be read without the
    /// time, which a change by hand does not take: there it shows zero.
    pub counts: Counts,
    /// When the new state ends by itself: the end of the open period or the half-open deadline.
    pub until: Option<Instant>,
}

/// What a breaker can tell about itself. The number of all calls is not among it: see [`Totals`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Snapshot {
    /// The state, as it was left by the last call. An open breaker whose period is over becomes half-open with the next call.
    pub state: StateKind,
    /// The generation of the state.
    pub generation: u16,
    /// How often in a row the breaker has reopened without closing in between, as in [`Transition::reopened`].
    pub reopened: u8,
    /// What has been counted in this state.
    pub counts: Counts,
    /// Probes that are out.
    pub probes: u32,
    /// When the state ends by itself.
    pub until: Option<Instant>,
}

/// A circuit breaker: settings, a shared state, and a sink for its [`Transition`]s.
///
/// `K` says how the state is shared, `T` what opens it, `O` who is told; the adapters have aliases that choose `K`.
pub struct CircuitBreaker<K, T = ConsecutiveFailures, O = ()>
where
    T: Copy + Trip,
    K: CellKind<State<T::Meter>>,
{
    config: Config<T>,
    /// The settings in force, where they have been replaced.
    settings: K::Settings<Config<T>>,
    cell: K::Cell,
    observer: O,
}

impl<K, T, O> core::fmt::Debug for CircuitBreaker<K, T, O>
where
    T: Copy + Trip,
    K: CellKind<State<T::Meter>>,
{
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("CircuitBreaker").field("state", &self.cell.read(State::kind)).finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<K, T, O> defmt::Format for CircuitBreaker<K, T, O>
where
    T: Copy + Trip,
    K: CellKind<State<T::Meter>>,
{
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "CircuitBreaker {{ state: {} }}", self.cell.read(State::kind));
    }
}

impl<K, T> CircuitBreaker<K, T>
where
    T: Copy + Trip,
    K: CellKind<State<T::Meter>>,
{
    /// A closed breaker.
    #[must_use]
    pub const fn new(config: Valid<Config<T>>) -> Self {
        Self::with_observer(config, ())
    }
}

impl<K, T, O> CircuitBreaker<K, T, O>
where
    T: Copy + Trip,
    K: CellKind<State<T::Meter>>,
{
    /// A closed breaker, and who is told of its transitions.
    #[must_use]
    pub const fn with_observer(config: Valid<Config<T>>, observer: O) -> Self {
        Self { config: config.get(), settings: SettingsCell::NEW, cell: K::Cell::NEW, observer }
    }
}

impl<K, T, O> CircuitBreaker<K, T, O>
where
    T: Copy + Trip,
    K: CellKind<State<T::Meter>>,
    O: Observer<Transition>,
{
    /// Asks to make a call. A closed breaker does not read the clock, unless it matters how long calls take. The
    /// permit keeps the clock for its report: pass a reference to one that is not `Copy`.
    ///
    /// # Errors
    /// The rejection, with the time to come back where it is known.
    #[inline]
    pub fn try_acquire<C: Clock + Copy>(&self, clock: C) -> Result<Permit<'_, K, T, O, C>, Rejected> {
        let ticket = self.admit(&clock)?;
        let permit = Permit { breaker: self, ticket, clock };
        // After there is a permit: it gives the slot back should the observer panic.
        self.observer.called(Called::Admitted);
        Ok(permit)
    }

    /// Lets a call in, of which the observer has not been told yet.
    #[inline]
    fn admit(&self, clock: &impl Clock) -> Result<Ticket, Rejected> {
        // The healthy path only reads: one load, no clock.
        if let Some(stamp) = self.cell.glimpse(|state| state.stamp().admits_all().then_some(state.stamp())) {
            return Ok(Ticket::new(stamp, self.start(clock)));
        }
        // In parts, so that the healthy path's ticket needs no place in memory and stays in registers.
        let Entry { at, stamp, rejected } = self.admit_restricted(clock);
        if let Some(reason) = rejected {
            self.observer.called(Called::Rejected);
            return Err(Rejected::until(Policy::CircuitBreaker, reason, at));
        }
        Ok(Ticket::new(stamp, at))
    }

    // Apart from the healthy path, which stays small enough to be inlined into its caller.
    #[inline(never)]
    fn admit_restricted(&self, clock: &impl Clock) -> Entry {
        let (stamp, until) = self.cell.read(|state| (state.stamp(), state.end()));
        if stamp.phase() == Phase::ISOLATED {
            return Entry { at: until, stamp, rejected: Some(Reason::Isolated) };
        }
        let now = clock.now();
        // An open one rejects too, and stays as it is, until its time is over. `Instant::MAX` is "never".
        if stamp.phase() == Phase::OPEN && (now < until || until == Instant::MAX) {
            return Entry { at: until, stamp, rejected: Some(Reason::Open) };
        }
        self.admit_by_change(now)
    }

    /// Answers where the state may change: admits a probe or says that all are out, or leaves a state whose time is over.
    // By itself, so that for an open breaker's rejection nothing is made ready for what is rarer.
    #[cfg_attr(target_pointer_width = "64", cold, inline(never))]
    #[cfg_attr(not(target_pointer_width = "64"), inline)]
    fn admit_by_change(&self, now: Instant) -> Entry {
        let mut entry = Entry { at: now, stamp: Stamp::new(Phase::CLOSED, 0), rejected: None };
        let live = <K::Settings<Config<T>> as SettingsCell<Config<T>>>::LIVE;
        loop {
            let mut transition = None;
            let again = self.configured(|config| {
                self.cell.update(|state| state.admit(config, now, &mut entry, live, self.told(&mut transition)))
            });
            if !again {
                return entry;
            }
            self.tell(transition);
        }
    }

    /// When a call begins, where that matters.
    #[inline]
    fn start(&self, clock: &impl Clock) -> Instant {
        if self.configured(Config::is_timed) { clock.now() } else { Ticket::UNTIMED }
    }

    #[inline]
    fn settle(&self, ticket: Ticket, verdict: &Verdict, clock: &impl Clock) {
        let (good, unmoved, now) = self.configured(|config| {
            let limit = config.trip.slow_after();
            let now = (limit != Span::MAX).then(|| clock.now());
            let slow = verdict.is_slow() || now.is_some_and(|now| ticket.took(now) > limit);
            let good = verdict.outcome() == Outcome::Success && !slow && !verdict.opens();
            // Most often there is nothing to write: a success changes nothing while all is well, but where time makes it count.
            let unmoved = |state: &State<T::Meter>| state.is_unmoved_by_success(config, ticket).then_some(());
            let look = good && !config.trip.wants_time(false);
            (good, look && self.cell.glimpse(unmoved).is_some(), now)
        });
        if unmoved {
            self.observer.called(Called::Recorded(Outcome::Success));
        } else if good {
            self.settle_success(ticket, verdict, now, clock);
        } else {
            self.settle_at(ticket, verdict, now, clock);
        }
    }

    /// A success that changes something.
    // By itself, so that where a success is reported nothing is made ready for what it most often isn't.
    #[cfg_attr(target_pointer_width = "64", cold, inline(never))]
    #[cfg_attr(not(target_pointer_width = "64"), inline)]
    fn settle_success(&self, ticket: Ticket, verdict: &Verdict, now: Option<Instant>, clock: &impl Clock) {
        self.settle_at(ticket, verdict, now, clock);
    }

    /// `now` is the time, where it has been read.
    #[inline]
    fn settle_at(&self, ticket: Ticket, verdict: &Verdict, now: Option<Instant>, clock: &impl Clock) {
        let called = Called::Recorded(verdict.outcome());
        match now {
            Some(now) => self.record(ticket, verdict, called, &now),
            None => self.record(ticket, verdict, called, clock),
        }
    }

    /// `called` is what the observer is told of a report that counts. Where the clock has been read, it is an instant: any
    /// clock will do, so that a chip has the code once.
    #[inline(never)]
    fn record(&self, ticket: Ticket, verdict: &Verdict, called: Called, clock: &impl Clock) {
        self.configured(|config| {
            let timed = config.trip.slow_after() != Span::MAX;
            let counts = verdict.outcome() != Outcome::Ignored;
            let wanted = counts && (timed || config.trip.wants_time(verdict.outcome() == Outcome::Failure));
            let now = wanted.then(|| clock.now());
            let took = now.filter(|_| timed).map_or(Span::ZERO, |now| ticket.took(now));
            let report = Report { stamp: ticket.stamp(), verdict, took, now };
            // A large meter is counted where it is, once: so at once with all that may follow.
            let large = <<T::Meter as Meter>::Home as Home>::LARGE;
            if !large && self.cell.try_update(|state| state.settle_closed(config, &report)).is_some() {
                self.observer.called(called);
            } else {
                self.record_change(ticket.stamp(), verdict, took, now, called, clock);
            }
        });
    }

    /// Records what [`State::settle_closed`] has not settled, and whatever a large meter counts.
    // Apart, so that what happens most often needs little of the stack.
    #[inline(never)]
    fn record_change(
        &self,
        stamp: Stamp,
        verdict: &Verdict,
        took: Span,
        now: Option<Instant>,
        called: Called,
        clock: &impl Clock,
    ) {
        let mut transition = None;
        let mut report = Report { stamp, verdict, took, now };
        let settled = self.configured(|config| {
            update_timed(&self.cell, now, clock, |state, now| {
                report.now = now;
                state.settle(config, &report, self.told(&mut transition))
            })
        });
        match settled {
            Settled::Unrecorded => {}
            // Giving up late is no outcome.
            Settled::Late if verdict.outcome() != Outcome::Ignored => self.observer.called(Called::Late),
            _ => self.observer.called(called),
        }
        self.tell(transition);
    }

    /// Reports for a ticket whose call was cancelled, panicked or was forgotten.
    fn abandon(&self, ticket: Ticket, clock: &impl Clock) {
        let (limit, timed) = self.configured(|config| (config.abandoned_after, config.is(ABANDONED_TIMED)));
        if timed {
            let now = clock.now();
            self.give_up(ticket, ticket.took(now) > limit, &now);
        } else {
            self.give_up(ticket, limit.is_zero(), clock);
        }
    }

    #[inline]
    fn give_up(&self, ticket: Ticket, failed: bool, clock: &impl Clock) {
        if failed {
            self.record(ticket, &Verdict::TRANSIENT, Called::Recorded(Outcome::Failure), clock);
        } else {
            self.record(ticket, &Verdict::IGNORED, Called::Abandoned, clock);
        }
    }

    /// Moves on if the state's own time is over: to half-open after the open period, to open after the half-open deadline.
    /// Calls do this by themselves; this is for those who want the event on time. Early and extra calls are harmless.
    pub fn handle_timeout(&self, clock: &impl Clock) {
        if self.poll_timeout().is_none() {
            return;
        }
        let now = clock.now();
        self.change(|state, config, told| {
            state.expire(config, now, told);
        });
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.cell.read(State::until)
    }

    /// Holds the breaker open until another state is chosen by hand.
    pub fn isolate(&self) {
        self.force(Phase::ISOLATED, Instant::MAX);
    }

    /// Switches the breaker off: everything passes and nothing is counted.
    pub fn disable(&self) {
        self.force(Phase::DISABLED, Instant::MAX);
    }

    /// Lets everything pass but keeps counting, and reports when the breaker would have opened: a [dry
    /// run](self#dry-run).
    pub fn observe_only(&self) {
        self.force(Phase::METRICS_ONLY, Instant::MAX);
    }

    /// Closes the breaker and forgets what was counted.
    pub fn reset(&self) {
        self.force(Phase::CLOSED, Instant::MAX);
    }

    /// Opens the breaker until the given instant.
    pub fn open_until(&self, until: Instant) {
        self.force(Phase::OPEN, until);
    }

    /// Makes the breaker half-open with all its probes to come, whatever state it is in. The half-open deadline
    /// counts from now; how often in a row it has reopened stays.
    pub fn half_open(&self, clock: &impl Clock) {
        let now = clock.now();
        self.change(|state, config, told| state.pass(Phase::HALF_OPEN, now, Span::ZERO, config, told));
    }

    /// The state as the last call left it.
    pub fn state(&self) -> StateKind {
        self.cell.read(State::kind)
    }

    /// Everything there is to know, without disturbing it.
    pub fn snapshot(&self, clock: &impl Clock) -> Snapshot {
        let now = Some(clock.now());
        self.configured(|config| {
            self.cell.read(|state| Snapshot {
                state: state.kind(),
                generation: state.stamp().generation(),
                reopened: state.reopened(),
                counts: state.counts(config, now),
                probes: state.in_flight(),
                until: state.until(),
            })
        })
    }

    /// Who is told of the transitions.
    pub const fn observer(&self) -> &O {
        &self.observer
    }

    fn force(&self, phase: Phase, until: Instant) {
        self.change(|state, config, told| state.force(config, phase, until, told));
    }

    /// Changes the state, perhaps, and tells of it.
    #[inline]
    fn change(&self, f: impl Fn(&mut State<T::Meter>, &Config<T>, Told<'_>)) {
        let mut transition = None;
        self.configured(|config| self.cell.update(|state| f(state, config, self.told(&mut transition))));
        self.tell(transition);
    }

    /// Where the machine tells of a transition, if anybody listens. The cell may run an update again, which then has changed
    /// nothing yet.
    #[inline]
    fn told<'a>(&self, transition: &'a mut Option<Transition>) -> Told<'a> {
        if !self.observer.listens() {
            return None;
        }
        *transition = None;
        Some(transition)
    }

    #[inline]
    fn tell(&self, transition: Option<Transition>) {
        if let Some(transition) = transition {
            self.observer.observe(&transition);
        }
    }
}

impl<K, T, O> CircuitBreaker<K, T, O>
where
    T: Copy + Trip,
    K: CellKind<State<T::Meter>>,
    K::Settings<Config<T>>: Replaceable<Config<T>>,
    O: Observer<Transition>,
{
    /// Replaces the settings while the breaker is in use. What has been counted stays, as far as the new condition
    /// can hold it; so do an open period or a half-open deadline under way, and the probes that are out.
    ///
    /// A half-open breaker is judged anew, and that may give an event; everything else is judged with the next
    /// outcome. A call that is being counted at this very moment counts by the settings that it began with.
    pub fn reconfigure(&self, config: Valid<Config<T>>, clock: &impl Clock) {
        let (config, now) = (config.get(), clock.now());
        let mut transition = None;
        self.settings.replace(&self.config, config, |from| {
            self.cell.update(|state| state.reconfigure(from, &config, now, self.told(&mut transition)));
        });
        self.tell(transition);
    }
}

impl<K, T, O> CircuitBreaker<K, T, O>
where
    T: Copy + Trip,
    K: CellKind<State<T::Meter>>,
{
    /// Looks at the settings in force.
    #[inline]
    fn configured<R>(&self, f: impl FnOnce(&Config<T>) -> R) -> R {
        self.settings.with(&self.config, f)
    }
}

/// The right to make one call. Spend it with [`success`](Self::success), [`failure`](Self::failure),
/// [`ignore`](Self::ignore) or [`record`](Self::record); dropping it unspent gives the slot back and counts as the configuration's
/// [`Abandoned`] says.
///
/// Leaking it (`mem::forget`) occupies a half-open slot until the half-open deadline.
///
/// A permit that was given in a state before the present one is late, and its report changes nothing; unless meanwhile there have been
/// exactly 4,096 changes, or a multiple, since the [generation](Transition::generation) wraps. With the default periods that takes a day
/// and a half of one call.
#[must_use = "a permit that is dropped at once is an abandoned call"]
pub struct Permit<'a, K, T, O, C>
where
    T: Copy + Trip,
    K: CellKind<State<T::Meter>>,
    O: Observer<Transition>,
    C: Clock + Copy,
{
    breaker: &'a CircuitBreaker<K, T, O>,
    ticket: Ticket,
    clock: C,
}

impl<K, T, O, C> core::fmt::Debug for Permit<'_, K, T, O, C>
where
    T: Copy + Trip,
    K: CellKind<State<T::Meter>>,
    O: Observer<Transition>,
    C: Clock + Copy,
{
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Permit").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<K, T, O, C> defmt::Format for Permit<'_, K, T, O, C>
where
    T: Copy + Trip,
    K: CellKind<State<T::Meter>>,
    O: Observer<Transition>,
    C: Clock + Copy,
{
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Permit {{ probe: {} }}", self.is_probe());
    }
}

impl<K, T, O, C> Permit<'_, K, T, O, C>
where
    T: Copy + Trip,
    K: CellKind<State<T::Meter>>,
    O: Observer<Transition>,
    C: Clock + Copy,
{
    /// The call succeeded.
    #[inline]
    pub fn success(self) {
        self.spend(&Verdict::SUCCESS);
    }

    /// The call failed.
    #[inline]
    pub fn failure(self) {
        self.spend(&Verdict::TRANSIENT);
    }

    /// The call says nothing about the dependency: the slot comes back and nothing is counted.
    #[inline]
    pub fn ignore(self) {
        self.spend(&Verdict::IGNORED);
    }

    /// Reports a classifier's verdict. A retry-after hint makes the open period that it begins at least that long,
    /// and a verdict that [opens](Verdict::opens) begins one whatever the condition says.
    #[inline]
    pub fn record(self, verdict: Verdict) {
        self.spend(&verdict);
    }

    // By reference: those above are constants, and need no place on the stack.
    #[inline]
    fn spend(self, verdict: &Verdict) {
        // Spent: there is nothing left to drop.
        let permit = ManuallyDrop::new(self);
        permit.breaker.settle(permit.ticket, verdict, &permit.clock);
    }

    /// Whether the call is a half-open probe.
    #[must_use]
    pub const fn is_probe(&self) -> bool {
        self.ticket.is_probe()
    }
}

impl<K, T, O, C> Drop for Permit<'_, K, T, O, C>
where
    T: Copy + Trip,
    K: CellKind<State<T::Meter>>,
    O: Observer<Transition>,
    C: Clock + Copy,
{
    #[inline]
    fn drop(&mut self) {
        self.breaker.abandon(self.ticket, &self.clock);
    }
}

#[cfg(test)]
mod tests;
