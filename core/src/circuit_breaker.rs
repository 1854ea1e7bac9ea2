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
//!              a trip condition is met                    by hand, from any state:
//!   ┌────────┐ ─────────────────────────▶ ┌──────┐          Isolated     rejects all
//!   │ Closed │                            │ Open │          Disabled     admits all, records nothing
//!   └────────┘      ┌──────────┐ ◀─────── └──────┘          MetricsOnly  admits all, records, reports
//!        ▲──────────│ HalfOpen │  open period is over
//!   enough successes└──────────┘ ────────────▲
//!                        too many failures, or its deadline
//! ```
//!
//! # Defaults
//!
//! | what | default | range | at the extremes |
//! | --- | --- | --- | --- |
//! | trip condition | 5 consecutive failures | see [`trip`] | |
//! | open period | [`OPEN_FOR`] (60 s) | above zero | `Duration::MAX` stays open until changed by hand |
//! | successes to close | [`PROBES`] (3) of as many trials | 1 to 255 | |
//! | probes at once | as many as trials | 1 to trials | |
//! | half-open deadline | as long as the open period | above zero | [`Config::without_half_open_deadline`]: waits for its probes for ever |
//! | abandoned permit | [`Abandoned::Ignored`] | | |
//!
//! # When not to use it
//! For one's own overload (use a bulkhead or a rate limiter), and around things that fail one by one, such as a user's bad
//! input: the breaker is for a dependency that fails as a whole.
//!
//! # Source
//! Michael Nygard, "Release It!", 2007. Permits that carry a generation are as in gobreaker; the half-open verdict "as
//! soon as it is certain" and the failure meter are ours.

use core::time::Duration;

use crate::backoff::{Backoff, Jitter};
use crate::cell::{CellKind, Fresh, Packed, StateCell, update_timed};
use crate::config::{ConfigError, Valid, refuse};
use crate::failure::{Policy, Reason, Rejected};
use crate::observe::Observer;
use crate::outcome::{Outcome, Verdict};
use crate::rng::Rng;
use crate::time::{Clock, Instant, Span};

mod layer;
pub mod trip;

pub use layer::BreakerState;
pub use trip::{ConsecutiveFailures, Counts, FailureMeter, FailureRate, PackedMeter, Trip};

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
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Config<T = ConsecutiveFailures> {
    trip: T,
    open_for: Backoff,
    seed: u64,
    successes: u32,
    trials: u32,
    probes: u32,
    // `None`: as long as the open period.
    half_open_for: Option<Span>,
    abandoned: Abandoned,
}

impl Config {
    /// The defaults, as in the [module's table](self#defaults).
    #[must_use]
    pub const fn new() -> Self {
        Self {
            trip: ConsecutiveFailures::DEFAULT,
            open_for: Backoff::constant(OPEN_FOR).with_jitter(Jitter::None),
            seed: 0,
            successes: PROBES,
            trials: PROBES,
            probes: PROBES,
            half_open_for: None,
            abandoned: Abandoned::Ignored,
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
        let Self { trip: _, open_for, seed, successes, trials, probes, half_open_for, abandoned } = self;
        Config { trip, open_for, seed, successes, trials, probes, half_open_for, abandoned }
    }

    /// Stays open for this long, each time.
    #[must_use]
    pub const fn with_open_for(self, period: Duration) -> Self {
        self.with_open_backoff(Backoff::constant(period).with_cap(period).with_jitter(Jitter::None))
    }

    /// Stays open for longer each time it reopens without having closed in between. The jitter, if any, comes from
    /// [`with_seed`](Self::with_seed) and the time of the opening.
    #[must_use]
    pub const fn with_open_backoff(mut self, periods: Backoff) -> Self {
        self.open_for = periods;
        self
    }

    /// The seed of the open period's jitter: entropy, or the device's own number.
    #[must_use]
    pub const fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Closes after `successes` successful probes; the first failed one opens again.
    #[must_use]
    pub const fn with_probes(self, successes: u32) -> Self {
        self.with_trials(successes, successes)
    }

    /// Closes after `successes` out of `trials` probes; opens again as soon as that is out of reach. All `trials` may be out
    /// at once, unless [`with_probes_at_once`](Self::with_probes_at_once) says less.
    #[must_use]
    pub const fn with_trials(mut self, successes: u32, trials: u32) -> Self {
        self.successes = successes;
        self.trials = trials;
        self.probes = trials;
        self
    }

    /// At most so many probes at once.
    #[must_use]
    pub const fn with_probes_at_once(mut self, probes: u32) -> Self {
        self.probes = probes;
        self
    }

    /// Opens again when no verdict was reached after this long in half-open.
    #[must_use]
    pub const fn with_half_open_for(mut self, deadline: Duration) -> Self {
        self.half_open_for = Some(Span::of(deadline));
        self
    }

    /// Waits for the probes' verdict for ever. A probe that never returns then holds its slot for ever too.
    #[must_use]
    pub const fn without_half_open_deadline(self) -> Self {
        self.with_half_open_for(Duration::MAX)
    }

    /// What a permit that was dropped unspent counts as.
    #[must_use]
    pub const fn with_abandoned(mut self, abandoned: Abandoned) -> Self {
        self.abandoned = abandoned;
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
        if self.successes == 0 {
            return Err(refuse!("successes", "is zero: half-open could never close"));
        }
        if self.trials > u8::MAX as u32 {
            return Err(refuse!("trials", "is above 255, the most the counter holds"));
        }
        if self.successes > self.trials {
            return Err(refuse!("successes", "is above the trials: half-open could never close"));
        }
        if self.probes == 0 || self.probes > self.trials {
            return Err(refuse!("probes", "is zero or above the trials"));
        }
        if matches!(self.half_open_for, Some(Span::ZERO)) {
            return Err(refuse!("half_open_for", "is zero: no probe could ever report"));
        }
        if self.open_for.delay(1).is_zero() {
            return Err(refuse!("open_for", "is zero"));
        }
        self.open_for.check()
    }

    /// How long the opening number `reopened + 1` in a row lasts, or longer where the failure itself asked for it.
    fn open_span(&self, reopened: u8, hint: Option<Span>, now: Instant) -> Span {
        let time = now.as_nanos();
        let random = Rng::new(self.seed).at((time ^ (time >> 32)) as u32);
        let span = self.open_for.jittered_span(u32::from(reopened) + 1, Span::ZERO, random);
        hint.map_or(span, |hint| hint.max(span))
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
    /// What had been counted before the change, the outcome that caused it included.
    pub counts: Counts,
    /// When the new state ends by itself: the end of the open period or the half-open deadline.
    pub until: Option<Instant>,
}

/// What a breaker can tell about itself.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Snapshot {
    /// The state, as it was left by the last call. An open breaker whose period is over becomes half-open with the next call.
    pub state: StateKind,
    /// The generation of the state.
    pub generation: u16,
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
    T: Trip,
    K: CellKind<State<T::Meter>>,
{
    config: Config<T>,
    cell: K::Cell,
    observer: O,
}

impl<K, T, O> core::fmt::Debug for CircuitBreaker<K, T, O>
where
    T: Trip,
    K: CellKind<State<T::Meter>>,
{
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("CircuitBreaker").field("state", &self.peek().kind()).finish_non_exhaustive()
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
        Self { config: config.get(), cell: K::Cell::NEW, observer }
    }
}

impl<K, T, O> CircuitBreaker<K, T, O>
where
    T: Copy + Trip,
    K: CellKind<State<T::Meter>>,
    O: Observer<Transition>,
{
    /// Asks to make a call. A closed breaker does not read the clock.
    ///
    /// # Errors
    /// The rejection, with the time to come back where it is known.
    #[inline]
    pub fn try_acquire<C: Clock>(&self, clock: C) -> Result<Permit<'_, K, T, O, C>, Rejected> {
        let ticket = self.admit(&clock)?;
        Ok(Permit { breaker: self, ticket, clock })
    }

    #[inline]
    pub(crate) fn admit(&self, clock: &impl Clock) -> Result<Ticket, Rejected> {
        loop {
            let (admission, transition) = update_timed(&self.cell, clock, |state, now| state.admit(&self.config, now));
            self.tell(transition);
            match admission {
                Admission::Admitted { generation, probe } => {
                    let started = match self.config.abandoned {
                        Abandoned::FailureAfter(_) => clock.now(),
                        Abandoned::Ignored | Abandoned::Failure => Instant::START,
                    };
                    return Ok(Ticket { generation, probe, started });
                }
                Admission::Rejected(rejected) => return Err(rejected),
                Admission::Again => {}
            }
        }
    }

    #[inline]
    pub(crate) fn settle(&self, ticket: Ticket, verdict: Verdict, clock: &impl Clock) {
        let transition = update_timed(&self.cell, clock, |state, now| state.settle(&self.config, ticket, verdict, now));
        self.tell(transition);
    }

    /// Reports for a ticket whose call was cancelled, panicked or was forgotten.
    pub(crate) fn abandon(&self, ticket: Ticket, clock: &impl Clock) {
        let failed = match self.config.abandoned {
            Abandoned::Ignored => false,
            Abandoned::Failure => true,
            Abandoned::FailureAfter(limit) => clock.now() > ticket.started.saturating_add(limit),
        };
        self.settle(ticket, if failed { Verdict::TRANSIENT } else { Verdict::IGNORED }, clock);
    }

    /// Moves on if the state's own time is over: to half-open after the open period, to open after the half-open deadline.
    /// Calls do this by themselves; this is for those who want the event on time. Early and extra calls are harmless.
    pub fn handle_timeout(&self, clock: &impl Clock) {
        let transition = update_timed(&self.cell, clock, |state, now| state.expire(&self.config, now));
        self.tell(transition);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.peek().until()
    }

    /// Holds the breaker open until another state is chosen by hand.
    pub fn isolate(&self) {
        self.force(Phase::Isolated);
    }

    /// Switches the breaker off: everything passes and nothing is counted.
    pub fn disable(&self) {
        self.force(Phase::Disabled);
    }

    /// Lets everything pass but keeps counting, and reports when the breaker would have opened.
    pub fn observe_only(&self) {
        self.force(Phase::MetricsOnly { meter: T::Meter::FRESH, tripped: false });
    }

    /// Closes the breaker and forgets what was counted.
    pub fn reset(&self) {
        self.force(Phase::Closed { meter: T::Meter::FRESH });
    }

    /// Opens the breaker until the given instant.
    pub fn open_until(&self, until: Instant) {
        self.force(Phase::Open { until, reopened: 0 });
    }

    /// The state as the last call left it.
    pub fn state(&self) -> StateKind {
        self.peek().kind()
    }

    /// Everything there is to know, without disturbing it.
    pub fn snapshot(&self, clock: &impl Clock) -> Snapshot {
        let state = self.peek();
        Snapshot {
            state: state.kind(),
            generation: state.generation,
            counts: state.counts(&self.config, Some(clock.now())),
            probes: state.in_flight(),
            until: state.until(),
        }
    }

    /// Who is told of the transitions.
    pub const fn observer(&self) -> &O {
        &self.observer
    }

    fn force(&self, phase: Phase<T::Meter>) {
        let transition = self.cell.update(|state| Some(state.enter(&self.config, phase, None)));
        self.tell(transition);
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
    T: Trip,
    K: CellKind<State<T::Meter>>,
{
    fn peek(&self) -> State<T::Meter> {
        self.cell.update(|state| *state)
    }
}

/// The right to make one call. Spend it with [`success`](Self::success), [`failure`](Self::failure),
/// [`ignore`](Self::ignore) or [`record`](Self::record); dropping it unspent gives the slot back and counts as the configuration's
/// [`Abandoned`] says.
///
/// Leaking it (`mem::forget`) occupies a half-open slot until the half-open deadline.
#[must_use = "a permit that is dropped at once is an abandoned call"]
pub struct Permit<'a, K, T, O, C>
where
    T: Copy + Trip,
    K: CellKind<State<T::Meter>>,
    O: Observer<Transition>,
    C: Clock,
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
    C: Clock,
{
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Permit").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

impl<K, T, O, C> Permit<'_, K, T, O, C>
where
    T: Copy + Trip,
    K: CellKind<State<T::Meter>>,
    O: Observer<Transition>,
    C: Clock,
{
    /// The call succeeded.
    #[inline]
    pub fn success(self) {
        self.record(Verdict::SUCCESS);
    }

    /// The call failed.
    #[inline]
    pub fn failure(self) {
        self.record(Verdict::TRANSIENT);
    }

    /// The call says nothing about the dependency: the slot comes back and nothing is counted.
    #[inline]
    pub fn ignore(self) {
        self.record(Verdict::IGNORED);
    }

    /// Reports a classifier's verdict. A failure's retry-after hint makes the open period at least that long.
    #[inline]
    pub fn record(mut self, verdict: Verdict) {
        // Spent: what is left to drop is a ticket of no generation.
        let ticket = core::mem::replace(&mut self.ticket, Ticket::SPENT);
        self.breaker.settle(ticket, verdict, &self.clock);
    }

    /// Whether the call is a half-open probe.
    #[must_use]
    pub const fn is_probe(&self) -> bool {
        self.ticket.probe
    }
}

impl<K, T, O, C> Drop for Permit<'_, K, T, O, C>
where
    T: Copy + Trip,
    K: CellKind<State<T::Meter>>,
    O: Observer<Transition>,
    C: Clock,
{
    #[inline]
    fn drop(&mut self) {
        if self.ticket.generation != Ticket::SPENT.generation {
            self.breaker.abandon(self.ticket, &self.clock);
        }
    }
}

/// What a permit remembers.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct Ticket {
    generation: u16,
    probe: bool,
    // Only for `Abandoned::FailureAfter`.
    started: Instant,
}

impl Ticket {
    /// Of no generation: real ones have 12 bits.
    const SPENT: Self = Self { generation: u16::MAX, probe: false, started: Instant::START };
}

/// What a breaker keeps in its cell: the phase and its generation.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct State<M> {
    phase: Phase<M>,
    generation: u16,
}

/// Generations have 12 bits. A late report would be taken for a current one only if its call outlasted a multiple of 4,096
/// changes, half of them open periods.
const GENERATIONS: u16 = 1 << 12;

#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
enum Phase<M> {
    Closed { meter: M },
    Open { until: Instant, reopened: u8 },
    HalfOpen { until: Instant, reopened: u8, in_flight: u8, successes: u8, failures: u8 },
    Isolated,
    Disabled,
    MetricsOnly { meter: M, tripped: bool },
}

enum Admission {
    Admitted {
        generation: u16,
        probe: bool,
    },
    Rejected(Rejected),
    /// The state changed under the caller: ask again.
    Again,
}

impl<M: Fresh> Fresh for State<M> {
    const FRESH: Self = Self { phase: Phase::Closed { meter: M::FRESH }, generation: 0 };
}

/// The transitions. Those that may need the time take it as an `Option`, and answer `None` with the state untouched when
/// they can't go on without it.
impl<M: Copy + Fresh> State<M> {
    #[inline]
    fn admit<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        now: Option<Instant>,
    ) -> Option<(Admission, Option<Transition>)> {
        let admitted = Admission::Admitted { generation: self.generation, probe: false };
        match self.phase {
            Phase::Closed { .. } | Phase::Disabled | Phase::MetricsOnly { .. } => Some((admitted, None)),
            _ => self.admit_restricted(config, now),
        }
    }

    fn admit_restricted<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        now: Option<Instant>,
    ) -> Option<(Admission, Option<Transition>)> {
        let rejected = |reason, until| Admission::Rejected(Rejected::until(Policy::CircuitBreaker, reason, until));
        if let Phase::Isolated = self.phase {
            return Some((rejected(Reason::Isolated, Instant::MAX), None));
        }
        if let Some(transition) = self.expire(config, now)? {
            return Some((Admission::Again, Some(transition)));
        }
        Some((
            match &mut self.phase {
                Phase::Open { until, .. } => rejected(Reason::Open, *until),
                Phase::HalfOpen { in_flight, successes, failures, until, .. } => {
                    let out = u32::from(*in_flight);
                    let judged = u32::from(*successes) + u32::from(*failures);
                    if out < config.probes && out + judged < config.trials {
                        *in_flight = in_flight.saturating_add(1);
                        Admission::Admitted { generation: self.generation, probe: true }
                    } else {
                        rejected(Reason::ProbesOut, *until)
                    }
                }
                _ => Admission::Again,
            },
            None,
        ))
    }

    /// Leaves a state whose own time is over.
    fn expire<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        now: Option<Instant>,
    ) -> Option<Option<Transition>> {
        let (Phase::Open { until, reopened } | Phase::HalfOpen { until, reopened, .. }) = self.phase else {
            return Some(None);
        };
        let now = now?;
        // `Instant::MAX` is "never", and stays so when the clock itself saturates.
        if now < until || until == Instant::MAX {
            return Some(None);
        }
        let next = if let Phase::Open { .. } = self.phase {
            let span = config.half_open_for.unwrap_or_else(|| config.open_span(reopened, None, now));
            Phase::HalfOpen { until: now.after(span), reopened, in_flight: 0, successes: 0, failures: 0 }
        } else {
            // Counted from the deadline, not from whenever somebody noticed.
            Self::reopen(config, reopened, None, until)
        };
        Some(Some(self.enter(config, next, Some(now))))
    }

    fn reopen<T: Copy + Trip<Meter = M>>(
        config: &Config<T>,
        reopened: u8,
        hint: Option<Span>,
        from: Instant,
    ) -> Phase<M> {
        let reopened = reopened.saturating_add(1);
        Phase::Open { until: from.after(config.open_span(reopened, hint, from)), reopened }
    }

    #[inline]
    fn settle<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        ticket: Ticket,
        verdict: Verdict,
        now: Option<Instant>,
    ) -> Option<Option<Transition>> {
        // A late report can't touch a newer state.
        if ticket.generation != self.generation {
            return Some(None);
        }
        let failed = match verdict.outcome() {
            Outcome::Success => false,
            Outcome::Failure => true,
            Outcome::Ignored if ticket.probe => return Some(self.release_probe()),
            Outcome::Ignored => return Some(None),
        };
        if let Phase::Closed { mut meter } = self.phase {
            if config.trip.record(&mut meter, failed, now)? {
                let now = now?;
                self.phase = Phase::Closed { meter };
                let until = now.after(config.open_span(0, verdict.hint(), now));
                return Some(Some(self.enter(config, Phase::Open { until, reopened: 0 }, Some(now))));
            }
            self.phase = Phase::Closed { meter };
            return Some(None);
        }
        self.settle_elsewhere(config, failed, verdict.hint(), now)
    }

    fn settle_elsewhere<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        failed: bool,
        hint: Option<Span>,
        now: Option<Instant>,
    ) -> Option<Option<Transition>> {
        match self.phase {
            Phase::HalfOpen { until, reopened, in_flight, successes, failures } => {
                let (successes, failures) =
                    (successes.saturating_add(u8::from(!failed)), failures.saturating_add(u8::from(failed)));
                let in_flight = in_flight.saturating_sub(1);
                let judged = Phase::HalfOpen { until, reopened, in_flight, successes, failures };
                let next = if u32::from(successes) >= config.successes {
                    Phase::Closed { meter: M::FRESH }
                } else if u32::from(failures) > config.trials.saturating_sub(config.successes) {
                    Self::reopen(config, reopened, hint, now?)
                } else {
                    self.phase = judged;
                    return Some(None);
                };
                self.phase = judged;
                Some(Some(self.enter(config, next, now)))
            }
            Phase::MetricsOnly { mut meter, tripped } => {
                let trips = config.trip.record(&mut meter, failed, now)?;
                self.phase = Phase::MetricsOnly { meter, tripped: trips };
                // Only the edge is reported, and nothing has changed but our word for it.
                Some((trips && !tripped).then(|| Transition {
                    from: StateKind::MetricsOnly,
                    to: StateKind::Open,
                    generation: self.generation,
                    counts: self.counts(config, now),
                    until: None,
                }))
            }
            _ => Some(None),
        }
    }

    fn release_probe(&mut self) -> Option<Transition> {
        if let Phase::HalfOpen { in_flight, .. } = &mut self.phase {
            *in_flight = in_flight.saturating_sub(1);
        }
        None
    }

    /// The one way into another phase: a new generation, and the event that tells of it.
    fn enter<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        next: Phase<M>,
        now: Option<Instant>,
    ) -> Transition {
        let (from, counts) = (self.kind(), self.counts(config, now));
        *self = Self { phase: next, generation: (self.generation + 1) % GENERATIONS };
        Transition { from, to: self.kind(), generation: self.generation, counts, until: self.until() }
    }
}

impl<M: Copy> State<M> {
    const fn kind(&self) -> StateKind {
        match self.phase {
            Phase::Closed { .. } => StateKind::Closed,
            Phase::Open { .. } => StateKind::Open,
            Phase::HalfOpen { .. } => StateKind::HalfOpen,
            Phase::Isolated => StateKind::Isolated,
            Phase::Disabled => StateKind::Disabled,
            Phase::MetricsOnly { .. } => StateKind::MetricsOnly,
        }
    }

    fn until(&self) -> Option<Instant> {
        match self.phase {
            Phase::Open { until, .. } | Phase::HalfOpen { until, .. } => Some(until).filter(|&at| at != Instant::MAX),
            _ => None,
        }
    }

    fn in_flight(&self) -> u32 {
        if let Phase::HalfOpen { in_flight, .. } = self.phase { in_flight.into() } else { 0 }
    }

    fn counts<T: Trip<Meter = M>>(&self, config: &Config<T>, now: Option<Instant>) -> Counts {
        match &self.phase {
            Phase::Closed { meter } | Phase::MetricsOnly { meter, .. } => config.trip.counts(meter, now),
            Phase::HalfOpen { successes, failures, .. } => {
                Counts { calls: u32::from(*successes) + u32::from(*failures), failures: (*failures).into() }
            }
            _ => Counts::default(),
        }
    }
}

/// Head: 3 bits of phase, 12 of generation, 48 of the phase's own; tail: the instant at which the phase ends.
impl<M: PackedMeter> Packed for State<M> {
    #[inline]
    fn pack(self) -> (u64, u64) {
        let (tag, body, tail) = match self.phase {
            Phase::Closed { meter } => (0, meter.to_bits(), 0),
            Phase::MetricsOnly { meter, tripped } => (1 + u64::from(tripped), meter.to_bits(), 0),
            Phase::Isolated => (3, 0, 0),
            Phase::Disabled => (4, 0, 0),
            Phase::Open { until, reopened } => (5, reopened.into(), until.as_nanos()),
            Phase::HalfOpen { until, reopened, in_flight, successes, failures } => {
                let body = u32::from_le_bytes([reopened, in_flight, successes, failures]);
                (6, body.into(), until.as_nanos())
            }
        };
        (tag << 60 | u64::from(self.generation) << trip::BITS | body, tail)
    }

    #[inline]
    fn unpack(head: u64, tail: u64) -> Self {
        let body = head & ((1 << trip::BITS) - 1);
        let [reopened, in_flight, successes, failures] = (body as u32).to_le_bytes();
        let until = Instant::from_nanos(tail);
        let phase = match head >> 60 {
            0 => Phase::Closed { meter: M::from_bits(body) },
            1 => Phase::MetricsOnly { meter: M::from_bits(body), tripped: false },
            2 => Phase::MetricsOnly { meter: M::from_bits(body), tripped: true },
            3 => Phase::Isolated,
            4 => Phase::Disabled,
            5 => Phase::Open { until, reopened },
            _ => Phase::HalfOpen { until, reopened, in_flight, successes, failures },
        };
        Self { phase, generation: (head >> trip::BITS) as u16 % GENERATIONS }
    }

    #[inline]
    fn has_tail(head: u64) -> bool {
        head >> 60 >= 5
    }
}

#[cfg(test)]
mod tests;
