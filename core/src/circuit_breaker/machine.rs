//! The machine: a breaker's state, and its transitions as plain functions of the state, the configuration and the time.
//!
//! Written for small chips: the state is a few words and its phase a number, so that a transition is a handful of stores;
//! every answer is a scalar; what an observer is told is written in one place, and nowhere if nobody listens.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "a packed word's fields are shifted and cut, by constant widths"
)]

use super::trip::{self, Counts, Meter, Opening, PackedMeter, Sample, Trip};
use super::{Config, FULL_TRIAL, HALF_OPEN_AS_OPEN, StateKind, Transition};
use crate::cell::{Fresh, Home, Packed, Stored};
use crate::failure::Reason;
use crate::outcome::{Outcome, Verdict};
use crate::time::{Instant, Span};

/// What a permit remembers. Two scalars, so that it travels in registers; in this order, in as few as there are.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(C)]
pub(super) struct Ticket {
    stamp: Stamp,
    started: Instant,
}

impl Ticket {
    /// The start of a call that nobody times: however late it is, the call has taken no time.
    pub(super) const UNTIMED: Instant = Instant::MAX;

    #[inline]
    pub(super) const fn new(stamp: Stamp, started: Instant) -> Self {
        Self { started, stamp }
    }

    #[inline]
    pub(super) const fn is_probe(self) -> bool {
        self.stamp.phase().0 == Phase::HALF_OPEN.0
    }

    #[inline]
    pub(super) const fn stamp(self) -> Stamp {
        self.stamp
    }

    /// How long the call has taken; zero where it is not timed.
    #[inline]
    pub(super) const fn took(self, now: Instant) -> Span {
        Span::from_nanos(now.as_nanos().saturating_sub(self.started.as_nanos()))
    }
}

/// What the conditions count, unless the outcome is to be ignored.
#[inline]
fn sample(verdict: &Verdict, took: Span) -> Option<Sample> {
    match verdict.outcome() {
        Outcome::Ignored => None,
        outcome => Some(Sample { failed: outcome == Outcome::Failure, slow: verdict.is_slow(), took }),
    }
}

/// What is told of a call.
// Handed on by reference: many arguments are many copies on a small chip.
pub(super) struct Report<'a> {
    pub(super) stamp: Stamp,
    pub(super) verdict: &'a Verdict,
    /// How long the call took; zero where that does not matter.
    pub(super) took: Span,
    /// The time, where it is known.
    pub(super) now: Option<Instant>,
}

/// A request to a breaker that does not admit all, and what has become of it.
pub(super) struct Entry {
    /// The time, and of a rejection, when to come back.
    pub(super) at: Instant,
    /// The permit's.
    pub(super) stamp: Stamp,
    pub(super) rejected: Option<Reason>,
}

/// What a breaker does with calls, in an order in which one comparison answers the questions asked on every call.
#[derive(Clone, Copy, Debug, Eq, PartialEq, PartialOrd)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) struct Phase(u16);

impl Phase {
    pub(super) const CLOSED: Self = Self(0);
    /// A dry run.
    pub(super) const METRICS_ONLY: Self = Self(1);
    /// A dry run in which the condition is met, until the meter says something else.
    pub(super) const METRICS_ONLY_MET: Self = Self(2);
    /// A dry run in which an outcome would have opened the breaker by itself, until the next one that would not.
    pub(super) const METRICS_ONLY_OPENED: Self = Self(3);
    pub(super) const DISABLED: Self = Self(4);
    pub(super) const ISOLATED: Self = Self(5);
    pub(super) const OPEN: Self = Self(6);
    pub(super) const HALF_OPEN: Self = Self(7);

    #[inline]
    const fn counts(self) -> bool {
        self.0 <= Self::METRICS_ONLY_OPENED.0
    }

    #[inline]
    const fn has_deadline(self) -> bool {
        self.0 >= Self::OPEN.0
    }

    const fn kind(self) -> StateKind {
        match self {
            Self::CLOSED => StateKind::Closed,
            Self::OPEN => StateKind::Open,
            Self::HALF_OPEN => StateKind::HalfOpen,
            Self::ISOLATED => StateKind::Isolated,
            Self::DISABLED => StateKind::Disabled,
            _ => StateKind::MetricsOnly,
        }
    }
}

/// Generations have 12 bits. A late report would be taken for a current one only if its call outlasted a multiple of 4,096
/// changes, half of them open periods.
const GENERATION: u32 = 12;
pub(super) const GENERATIONS: u16 = 1 << GENERATION;

/// The phase and its generation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) struct Stamp(u16);

impl Stamp {
    #[inline]
    pub(super) const fn new(phase: Phase, generation: u16) -> Self {
        Self(phase.0 << GENERATION | generation)
    }

    #[inline]
    pub(super) const fn phase(self) -> Phase {
        Phase(self.0 >> GENERATION)
    }

    #[inline]
    pub(super) const fn generation(self) -> u16 {
        self.0 % GENERATIONS
    }

    #[inline]
    pub(super) const fn admits_all(self) -> bool {
        self.0 < Self::new(Phase::ISOLATED, 0).0
    }

    /// Whether it is another generation. The phase alone may change within one: in a dry run.
    #[inline]
    const fn is_late(self, now: Self) -> bool {
        (self.0 ^ now.0) & (GENERATIONS - 1) != 0
    }
}

/// What a breaker keeps in its cell.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct State<M> {
    /// What is counted, or where that is nothing, the instant at which the phase ends.
    pub(super) meter: M,
    pub(super) stamp: Stamp,
    /// How often in a row it has reopened; zero unless it has a deadline.
    pub(super) reopened: u8,
    /// Probes that are out.
    pub(super) in_flight: u8,
    pub(super) trial: Trial,
}

/// What has come of the probes of a half-open breaker that have reported: counts of eight bits, in one word that is added to
/// in one go. None overflows: with the last of the trials, of which there are 255 at most, the breaker is half-open no more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) struct Trial(pub(super) u32);

impl Trial {
    pub(super) const FRESH: Self = Self(0);

    /// One more.
    #[inline]
    pub(super) const fn judge(&mut self, failed: bool, slow: bool) {
        let bad = failed || slow;
        let one = (1 << 8) | !bad as u32 | (failed as u32) << 16 | (slow as u32) << 24;
        self.0 = self.0.wrapping_add(one);
    }

    /// Those that neither failed nor were slow.
    const fn good(self) -> u32 {
        self.0 & 0xFF
    }

    const fn judged(self) -> u32 {
        (self.0 >> 8) & 0xFF
    }

    const fn failures(self) -> u32 {
        (self.0 >> 16) & 0xFF
    }

    /// Those that were slow, whether they failed or not.
    const fn slow(self) -> u32 {
        self.0 >> 24
    }

    /// Where the breaker goes from half-open: nowhere, until that can be said. When all trials are in, it can.
    fn leads_to<T: Copy + Trip>(self, config: &Config<T>) -> Phase {
        let (trials, successes) = (u32::from(config.trials), u32::from(config.successes));
        if config.is(FULL_TRIAL) && self.judged() < trials {
            Phase::HALF_OPEN
        } else if self.good() >= successes {
            Phase::CLOSED
        } else if self.judged() - self.good() > trials - successes {
            Phase::OPEN
        } else {
            Phase::HALF_OPEN
        }
    }
}

/// Where a transition is told, if anybody listens.
pub(super) type Told<'a> = Option<&'a mut Option<Transition>>;

/// What has become of a report.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Settled {
    Done,
    /// The state that admitted the call has ended.
    Late,
    /// The breaker is switched off.
    Unrecorded,
}

impl<M: Meter> Fresh for State<M> {
    const FRESH: Self =
        Self { meter: M::FRESH, stamp: Stamp::new(Phase::CLOSED, 0), reopened: 0, in_flight: 0, trial: Trial::FRESH };
}

impl<M: Meter> Stored for State<M> {
    type Cell = <M::Home as Home>::Cell<Self>;
}

/// The transitions. Those that may need the time take it as an `Option`, and answer `None` with the state untouched when
/// they can't go on without it.
impl<M: Meter> State<M> {
    #[inline]
    pub(super) const fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Whether a success that was not slow changes nothing: a breaker that counts, in full health.
    #[inline]
    pub(super) fn is_unmoved_by_success<T: Copy + Trip<Meter = M>>(&self, config: &Config<T>, ticket: Ticket) -> bool {
        // The phase first: the lock-free cell has looked at it too, and then that is one comparison. Within a dry run it may have
        // changed since. That takes the longer way, and no harm is done.
        self.stamp.phase() <= Phase::METRICS_ONLY_MET
            && ticket.stamp == self.stamp
            && config.trip.is_healthy(&self.meter)
    }

    /// Answers a request in `entry`, unless the state changes under it: then true, ask again. `live` says whether the settings
    /// may have been replaced meanwhile.
    #[inline]
    pub(super) fn admit<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        now: Instant,
        entry: &mut Entry,
        live: bool,
        mut told: Told<'_>,
    ) -> bool {
        *entry = Entry { at: now, stamp: self.stamp, rejected: None };
        if self.expire(config, now, told.as_deref_mut()) {
            return true;
        }
        let reason = match self.stamp.phase() {
            Phase::HALF_OPEN => {
                let out = u32::from(self.in_flight);
                if out < u32::from(config.probes) && out + self.trial.judged() < u32::from(config.trials) {
                    self.in_flight = self.in_flight.saturating_add(1);
                    return false;
                }
                // Only where the last report was judged by settings that have been replaced since.
                let next = if live { self.trial.leads_to(config) } else { Phase::HALF_OPEN };
                if next != Phase::HALF_OPEN {
                    self.pass(next, now, Span::ZERO, config, told);
                    return true;
                }
                Reason::ProbesOut
            }
            Phase::OPEN => Reason::Open,
            Phase::ISOLATED => Reason::Isolated,
            _ => return false,
        };
        (entry.rejected, entry.at) = (Some(reason), self.end());
        false
    }

    /// Leaves a state whose own time is over.
    #[inline]
    pub(super) fn expire<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        now: Instant,
        told: Told<'_>,
    ) -> bool {
        let until = self.end();
        // `Instant::MAX` is "never", and stays so when the clock itself saturates.
        let is_over = now >= until && until != Instant::MAX;
        if is_over {
            self.pass_on(config, now, told);
        }
        is_over
    }

    #[inline(never)]
    fn pass_on<T: Copy + Trip<Meter = M>>(&mut self, config: &Config<T>, now: Instant, told: Told<'_>) {
        // The open period is over with whoever notices; the half-open deadline, whenever somebody does.
        let (next, from) =
            if self.stamp.phase() == Phase::OPEN { (Phase::HALF_OPEN, now) } else { (Phase::OPEN, self.meter.kept()) };
        self.pass(next, from, Span::ZERO, config, told);
    }

    /// Into one of the phases that follow from each other, for as long as the settings say, or open for at least so long.
    // One function for all, and not inlined: these are rare, and a chip has it once.
    #[inline(never)]
    pub(super) fn pass<T: Copy + Trip<Meter = M>>(
        &mut self,
        next: Phase,
        at: Instant,
        least: Span,
        config: &Config<T>,
        told: Told<'_>,
    ) {
        let counted = self.counts(config, Some(at));
        if next == Phase::CLOSED {
            return self.enter(next, 0, Instant::MAX, counted, told);
        }
        let (mut reopened, mut counts, mut least) = (self.reopened, counted, least);
        if next == Phase::HALF_OPEN {
            // Never zero, as full jitter, a table or a function may have the open period: half-open would be over before its
            // first probe, and so on in circles.
            (counts, least) = (Counts::default(), Span::from_nanos(1));
        } else if self.stamp.phase() == Phase::HALF_OPEN {
            reopened = reopened.saturating_add(1);
        }
        let span = if next == Phase::HALF_OPEN && !config.is(HALF_OPEN_AS_OPEN) {
            config.half_open_for
        } else {
            config.trip.open_span(&Opening { configured: config.open_for, reopened, counts, at })
        };
        self.enter(next, reopened, at.after(span.max(least)), counted, told);
    }

    /// Into another phase by hand. The time is not read for it, so what can't be counted without it is not.
    pub(super) fn force<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        next: Phase,
        until: Instant,
        told: Told<'_>,
    ) {
        let counts = self.counts(config, None);
        self.enter(next, 0, until, counts, told);
    }

    /// The one way into another phase: a new generation, and the event that tells of it, with what had been counted
    /// before.
    fn enter(&mut self, next: Phase, reopened: u8, until: Instant, counts: Counts, told: Told<'_>) {
        let from = self.stamp.phase();
        let generation = self.stamp.generation().wrapping_add(1) % GENERATIONS;
        if next.has_deadline() {
            self.meter.keep(until);
        } else {
            self.meter = M::FRESH;
        }
        self.stamp = Stamp::new(next, generation);
        (self.reopened, self.in_flight, self.trial) = (reopened, 0, Trial::FRESH);
        if let Some(told) = told {
            let (from, to) = (from.kind(), next.kind());
            *told = Some(Transition { from, to, generation, reopened, counts, until: self.until() });
        }
    }

    /// Settles what needs no event, and no time but what has been read already: most often, a breaker is closed and stays so. For
    /// meters that are copied: what doesn't settle here has not been counted.
    #[inline]
    pub(super) fn settle_closed<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        report: &Report<'_>,
    ) -> Option<()> {
        if self.stamp.phase() != Phase::CLOSED || self.stamp != report.stamp || report.verdict.opens() {
            return None;
        }
        if let Some(sample) = sample(report.verdict, report.took) {
            let mut meter = self.meter;
            if config.trip.record(&mut meter, sample, report.now)? {
                return None;
            }
            self.meter = meter;
        }
        Some(())
    }

    /// Counts a report.
    pub(super) fn settle<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        report: &Report<'_>,
        told: Told<'_>,
    ) -> Option<Settled> {
        // A late report can't touch a newer state.
        if report.stamp.is_late(self.stamp) {
            return Some(Settled::Late);
        }
        let (phase, sample) = (self.stamp.phase(), sample(report.verdict, report.took));
        if phase == Phase::HALF_OPEN {
            return self.settle_probe(config, report, sample, told);
        }
        if !phase.counts() {
            return Some(Settled::Unrecorded);
        }
        let (trips, moved) = match sample {
            Some(sample) => self.count(config, sample, report)?,
            None => (false, false),
        };
        let opens = report.verdict.opens();
        if phase != Phase::CLOSED {
            if sample.is_some() || opens {
                self.settle_dry(config, trips, moved, report, told)?;
            }
        } else if opens || trips {
            // What has been counted has it.
            let now = report.now?;
            self.pass(Phase::OPEN, now, report.verdict.hint_or_zero(), config, told);
        }
        Some(Settled::Done)
    }

    /// Counts an outcome, unless it opens and the time isn't known: whether the condition is met then, and whether the meter is
    /// another one.
    #[inline]
    fn count<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        sample: Sample,
        report: &Report<'_>,
    ) -> Option<(bool, bool)> {
        if M::Home::LARGE {
            if report.verdict.opens() {
                report.now?;
            }
            // A window takes every outcome in.
            return Some((config.trip.record(&mut self.meter, sample, report.now)?, true));
        }
        let mut meter = self.meter;
        let trips = config.trip.record(&mut meter, sample, report.now)?;
        if trips || report.verdict.opens() {
            report.now?;
        }
        let moved = meter != self.meter;
        self.meter = meter;
        Some((trips, moved))
    }

    fn settle_probe<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        report: &Report<'_>,
        sample: Option<Sample>,
        mut told: Told<'_>,
    ) -> Option<Settled> {
        if sample.is_none() && !report.verdict.opens() {
            self.in_flight = self.in_flight.saturating_sub(1);
            return Some(Settled::Done);
        }
        let now = report.now?;
        // A report after the deadline is late, whether or not anybody has noticed the deadline before.
        if self.expire(config, now, told.as_deref_mut()) {
            return Some(Settled::Late);
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(sample) = sample {
            self.trial.judge(sample.failed, sample.slow || sample.took > config.trip.slow_after());
        }
        let next = if report.verdict.opens() { Phase::OPEN } else { self.trial.leads_to(config) };
        if next != Phase::HALF_OPEN {
            self.pass(next, now, report.verdict.hint_or_zero(), config, told);
        }
        Some(Settled::Done)
    }

    /// In metrics only: whether the condition is met.
    fn settle_dry<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        trips: bool,
        moved: bool,
        report: &Report<'_>,
        told: Told<'_>,
    ) -> Option<()> {
        let phase = self.stamp.phase();
        let next = if trips || phase == Phase::METRICS_ONLY_MET && !moved {
            // What the meter does not take in does not change what it has said: successes, for a failure meter.
            Phase::METRICS_ONLY_MET
        } else if report.verdict.opens() {
            Phase::METRICS_ONLY_OPENED
        } else {
            Phase::METRICS_ONLY
        };
        let generation = self.stamp.generation();
        // Only the edge is reported, and nothing has changed but our word for it.
        if let (Phase::METRICS_ONLY, true, Some(told)) = (phase, next != phase, told) {
            let counts = config.trip.counts(&self.meter, Some(report.now?));
            let (from, to) = (StateKind::MetricsOnly, StateKind::Open);
            *told = Some(Transition { from, to, generation, reopened: 0, counts, until: None });
        }
        self.stamp = Stamp::new(next, generation);
        Some(())
    }

    /// Carries what has been counted over to other settings. Half-open, which may be decided by them, has to be
    /// judged anew: no further report may come.
    pub(super) fn reconfigure<T: Copy + Trip<Meter = M>>(
        &mut self,
        from: &Config<T>,
        to: &Config<T>,
        now: Instant,
        mut told: Told<'_>,
    ) {
        let phase = self.stamp.phase();
        if phase.counts() {
            to.trip.adapt(&mut self.meter, &from.trip, now);
            if phase != Phase::CLOSED {
                // What the other settings had said of a dry run is not what these say.
                self.stamp = Stamp::new(Phase::METRICS_ONLY, self.stamp.generation());
            }
        } else if phase == Phase::HALF_OPEN && !self.expire(to, now, told.as_deref_mut()) {
            let next = self.trial.leads_to(to);
            if next != Phase::HALF_OPEN {
                self.pass(next, now, Span::ZERO, to, told);
            }
        }
    }

    pub(super) const fn kind(&self) -> StateKind {
        self.stamp.phase().kind()
    }

    pub(super) fn until(&self) -> Option<Instant> {
        Some(self.end()).filter(|&at| at != Instant::MAX)
    }

    /// When the state ends by itself; `Instant::MAX` is "never".
    pub(super) fn end(&self) -> Instant {
        if self.stamp.phase().has_deadline() { self.meter.kept() } else { Instant::MAX }
    }

    pub(super) const fn reopened(&self) -> u8 {
        self.reopened
    }

    pub(super) const fn in_flight(&self) -> u32 {
        self.in_flight as u32
    }

    pub(super) fn counts<T: Trip<Meter = M>>(&self, config: &Config<T>, now: Option<Instant>) -> Counts {
        if self.stamp.phase().counts() {
            return config.trip.counts(&self.meter, now);
        }
        // Nothing unless it is half-open.
        Counts { calls: self.trial.judged(), failures: self.trial.failures(), slow: self.trial.slow() }
    }
}

impl<M: PackedMeter> State<M> {
    /// As it is on a clock that reads `to` where this one reads `from`, with no probe out.
    pub(super) fn moved(mut self, from: Instant, to: Instant) -> Self {
        self.in_flight = 0;
        if !self.stamp.phase().has_deadline() {
            self.meter = self.meter.moved(from, to);
        } else if self.meter.kept() != Instant::MAX {
            self.meter.keep(self.meter.kept().moved(from, to));
        }
        self
    }

    /// Becomes the state of another breaker, in a generation of its own, as far as the settings can hold what that has counted.
    pub(super) fn replace<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        by: Self,
        now: Instant,
        told: Told<'_>,
    ) {
        if by.stamp.phase() == Phase::HALF_OPEN {
            // Anew, by the settings in force: what its probes have said may not fit them.
            self.reopened = by.reopened;
            return self.pass(Phase::HALF_OPEN, now, Span::ZERO, config, told);
        }
        let (from, counts) = (self.kind(), self.counts(config, None));
        let generation = self.stamp.generation().wrapping_add(1) % GENERATIONS;
        *self = Self { stamp: Stamp::new(by.stamp.phase(), generation), ..by };
        if by.stamp.phase().counts() {
            config.trip.adapt(&mut self.meter, &config.trip, now);
        }
        if let Some(told) = told.filter(|_| self.kind() != from) {
            let (to, reopened) = (self.kind(), self.reopened);
            *told = Some(Transition { from, to, generation, reopened, counts, until: self.until() });
        }
    }
}

/// Head: the cell's own bit, 3 of phase, 12 of generation, 48 of the phase's own; tail: the instant at which the phase ends.
impl<M: PackedMeter> Packed for State<M> {
    #[inline]
    fn pack(self) -> (u64, u64) {
        const { assert!(M::BITS <= trip::BITS, "what is counted doesn't fit one word: share it through a mutex") }
        let phase = self.stamp.phase();
        let body = if !phase.has_deadline() {
            self.meter.to_bits()
        } else {
            u64::from(self.reopened) | u64::from(self.in_flight) << 8 | u64::from(self.trial.0) << 16
        };
        let tail = if phase.has_deadline() { self.meter.kept().as_nanos() } else { 0 };
        (u64::from(self.stamp.0) << trip::BITS | body, tail)
    }

    #[inline]
    fn unpack(head: u64, tail: u64) -> Self {
        let (stamp, body) = (Stamp((head >> trip::BITS) as u16), head & ((1 << trip::BITS) - 1));
        if !stamp.phase().has_deadline() {
            // Where nothing is counted the body is zero, and that is a fresh meter.
            return Self { meter: M::from_bits(body), stamp, reopened: 0, in_flight: 0, trial: Trial::FRESH };
        }
        let mut meter = M::FRESH;
        meter.keep(Instant::from_nanos(tail));
        let trial = Trial((body >> 16) as u32);
        Self { meter, stamp, reopened: body as u8, in_flight: (body >> 8) as u8, trial }
    }

    #[inline]
    fn has_tail(head: u64) -> bool {
        head >= u64::from(Stamp::new(Phase::OPEN, 0).0) << trip::BITS
    }
}
