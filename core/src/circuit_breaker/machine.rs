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
use super::{Config, StateKind, Transition};
use crate::cell::{Fresh, Packed};
use crate::failure::Reason;
use crate::outcome::{Outcome, Verdict};
use crate::time::{Instant, Span};

/// What a permit remembers. Two scalars, so that it travels in registers.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) struct Ticket {
    started: Instant,
    stamp: Stamp,
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

    /// How long the call has taken; zero where it is not timed.
    #[inline]
    pub(super) const fn took(self, now: Instant) -> Span {
        Span::from_nanos(now.as_nanos().saturating_sub(self.started.as_nanos()))
    }
}

/// What is told of a call: the verdict, and how long it took where that was measured.
#[derive(Clone, Copy)]
pub(super) struct Report {
    pub(super) verdict: Verdict,
    pub(super) took: Span,
}

impl Report {
    /// What the conditions count, unless the outcome is to be ignored.
    #[inline]
    const fn sample(&self) -> Option<Sample> {
        let failed = match self.verdict.outcome() {
            Outcome::Success => false,
            Outcome::Failure => true,
            Outcome::Ignored => return None,
        };
        Some(Sample { failed, slow: self.verdict.is_slow(), took: self.took })
    }
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
        (self.0 ^ now.0) % GENERATIONS != 0
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
    pub(super) trial: Trial,
}

/// What has come of the probes of a half-open breaker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) struct Trial {
    pub(super) in_flight: u8,
    /// Probes that have reported.
    pub(super) judged: u8,
    /// Those that neither failed nor were slow.
    pub(super) good: u8,
    pub(super) failures: u8,
    /// Those that were slow, whether they failed or not.
    pub(super) slow: u8,
}

impl Trial {
    pub(super) const FRESH: Self = Self { in_flight: 0, judged: 0, good: 0, failures: 0, slow: 0 };

    fn admits<T>(&self, config: &Config<T>) -> bool {
        let out = u16::from(self.in_flight);
        out < config.probes && out + u16::from(self.judged) < config.trials
    }

    /// Nothing overflows: those out and those judged are together no more than the trials, which fit.
    fn judge(&mut self, failed: bool, slow: bool) {
        self.judged = self.judged.wrapping_add(1);
        self.good = self.good.wrapping_add(u8::from(!failed && !slow));
        self.failures = self.failures.wrapping_add(failed.into());
        self.slow = self.slow.wrapping_add(slow.into());
    }

    /// Whether the breaker closes, if that can be said already. When all trials are in, it can.
    fn verdict<T>(&self, config: &Config<T>) -> Option<bool> {
        let (good, judged) = (u16::from(self.good), u16::from(self.judged));
        if config.full_trial && judged < config.trials {
            None
        } else if good >= config.successes {
            Some(true)
        } else if judged.saturating_sub(good) > config.trials.saturating_sub(config.successes) {
            Some(false)
        } else {
            None
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

/// What has become of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Admission {
    Admitted,
    Rejected(Reason),
    /// The state changed under the caller: ask again.
    Again,
}

impl<M: Meter> Fresh for State<M> {
    const FRESH: Self =
        Self { meter: M::FRESH, stamp: Stamp::new(Phase::CLOSED, 0), reopened: 0, trial: Trial::FRESH };
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
        !ticket.stamp.is_late(self.stamp)
            && self.stamp.phase() <= Phase::METRICS_ONLY_MET
            && config.trip.is_healthy(&self.meter)
    }

    /// Whether a call may be made at `now`. `live` says whether the settings may have been replaced meanwhile.
    #[inline]
    pub(super) fn admit<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        now: Instant,
        live: bool,
        mut told: Told<'_>,
    ) -> Admission {
        if self.expire(config, now, told.as_deref_mut()) {
            return Admission::Again;
        }
        match self.stamp.phase() {
            Phase::HALF_OPEN => {
                if self.trial.admits(config) {
                    self.trial.in_flight = self.trial.in_flight.saturating_add(1);
                    return Admission::Admitted;
                }
                // Only where the last report was judged by settings that have been replaced since.
                if live && let Some(closes) = self.trial.verdict(config) {
                    self.decide(config, closes, Span::ZERO, now, told);
                    return Admission::Again;
                }
                Admission::Rejected(Reason::ProbesOut)
            }
            Phase::OPEN => Admission::Rejected(Reason::Open),
            Phase::ISOLATED => Admission::Rejected(Reason::Isolated),
            _ => Admission::Admitted,
        }
    }

    /// Leaves a state whose own time is over.
    pub(super) fn expire<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        now: Instant,
        told: Told<'_>,
    ) -> bool {
        let until = self.end();
        // `Instant::MAX` is "never", and stays so when the clock itself saturates.
        if now < until || until == Instant::MAX {
            return false;
        }
        // The open period is over with whoever notices; the half-open deadline, whenever somebody does.
        let (next, from) =
            if self.stamp.phase() == Phase::OPEN { (Phase::HALF_OPEN, now) } else { (Phase::OPEN, until) };
        self.pass(config, next, Span::ZERO, from, told);
        true
    }

    /// The verdict over the probes: closed, or open again.
    fn decide<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        closes: bool,
        hint: Span,
        now: Instant,
        told: Told<'_>,
    ) {
        self.pass(config, if closes { Phase::CLOSED } else { Phase::OPEN }, hint, now, told);
    }

    /// Into one of the phases that follow from each other, for as long as the settings say or the hint, whichever is longer.
    // One function for all, and not inlined: these are rare, and a chip has it once.
    #[inline(never)]
    pub(super) fn pass<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        next: Phase,
        hint: Span,
        at: Instant,
        told: Told<'_>,
    ) {
        let counts = self.counts(config, Some(at));
        let mut reopened = self.reopened;
        let mut until = Instant::MAX;
        if next == Phase::CLOSED {
            reopened = 0;
        } else if next == Phase::OPEN {
            reopened = reopened.saturating_add(u8::from(self.stamp.phase() == Phase::HALF_OPEN));
            let span = config.open_span(&Opening { configured: config.open_for, reopened, counts, at });
            until = at.after(span.max(hint));
        } else {
            until = at.after(config.half_open_span(reopened, at));
        }
        self.enter(next, reopened, until, counts, told);
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
        self.reopened = reopened;
        self.trial = Trial::FRESH;
        if let Some(told) = told {
            let (from, to) = (from.kind(), next.kind());
            *told = Some(Transition { from, to, generation, reopened, counts, until: self.until() });
        }
    }

    #[inline]
    pub(super) fn settle<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        ticket: Ticket,
        report: &Report,
        now: Option<Instant>,
        told: Told<'_>,
    ) -> Option<Settled> {
        // A late report can't touch a newer state.
        if ticket.stamp.is_late(self.stamp) {
            return Some(Settled::Late);
        }
        let phase = self.stamp.phase();
        if phase == Phase::HALF_OPEN {
            return self.settle_probe(config, report, now, told);
        }
        if !phase.counts() {
            return Some(Settled::Unrecorded);
        }
        let before = self.meter;
        let mut meter = before;
        let trips = match report.sample() {
            Some(sample) => config.trip.record(&mut meter, sample, now)?,
            None => false,
        };
        if phase != Phase::CLOSED {
            return self.settle_dry(config, meter, trips, report, now, told);
        }
        if !trips && !report.verdict.opens() {
            self.meter = meter;
            return Some(Settled::Done);
        }
        let now = now?;
        self.meter = meter;
        self.pass(config, Phase::OPEN, report.verdict.hint().unwrap_or(Span::ZERO), now, told);
        Some(Settled::Done)
    }

    /// In metrics only: what the meter has come to, and whether the condition is met.
    fn settle_dry<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        meter: M,
        trips: bool,
        report: &Report,
        now: Option<Instant>,
        told: Told<'_>,
    ) -> Option<Settled> {
        let (phase, opens) = (self.stamp.phase(), report.verdict.opens());
        // Only the edge is reported, and nothing has changed but our word for it.
        let edge = (trips || opens) && phase == Phase::METRICS_ONLY;
        if edge && now.is_none() {
            return None;
        }
        // What the meter does not take in does not change what it has said: successes, for a failure meter.
        let next = if trips || phase == Phase::METRICS_ONLY_MET && meter == self.meter {
            Phase::METRICS_ONLY_MET
        } else if opens || phase == Phase::METRICS_ONLY_OPENED && report.sample().is_none() {
            Phase::METRICS_ONLY_OPENED
        } else {
            Phase::METRICS_ONLY
        };
        let generation = self.stamp.generation();
        (self.meter, self.stamp) = (meter, Stamp::new(next, generation));
        if let (true, Some(told)) = (edge, told) {
            let (from, to) = (StateKind::MetricsOnly, StateKind::Open);
            let counts = self.counts(config, now);
            *told = Some(Transition { from, to, generation, reopened: 0, counts, until: None });
        }
        Some(Settled::Done)
    }

    fn settle_probe<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        report: &Report,
        now: Option<Instant>,
        mut told: Told<'_>,
    ) -> Option<Settled> {
        let (sample, opens) = (report.sample(), report.verdict.opens());
        if sample.is_some() || opens {
            // A report after the deadline is late, whether or not anybody has noticed the deadline before.
            if self.expire(config, now?, told.as_deref_mut()) {
                return Some(Settled::Late);
            }
        }
        self.trial.in_flight = self.trial.in_flight.saturating_sub(1);
        if let Some(sample) = sample {
            self.trial.judge(sample.failed, sample.slow || sample.took > config.trip.slow_after());
        } else if !opens {
            return Some(Settled::Done);
        }
        let closes = if opens { Some(false) } else { self.trial.verdict(config) };
        if let (Some(closes), Some(now)) = (closes, now) {
            self.decide(config, closes, report.verdict.hint().unwrap_or(Span::ZERO), now, told);
        }
        Some(Settled::Done)
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
        } else if phase == Phase::HALF_OPEN && !self.expire(to, now, told.as_deref_mut()) {
            if let Some(closes) = self.trial.verdict(to) {
                self.decide(to, closes, Span::ZERO, now, told);
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
        self.trial.in_flight as u32
    }

    pub(super) fn counts<T: Trip<Meter = M>>(&self, config: &Config<T>, now: Option<Instant>) -> Counts {
        if self.stamp.phase().counts() {
            return config.trip.counts(&self.meter, now);
        }
        // Nothing unless it is half-open.
        let Trial { judged, failures, slow, .. } = self.trial;
        Counts { calls: judged.into(), failures: failures.into(), slow: slow.into() }
    }
}

/// Head: 4 bits of phase, 12 of generation, 48 of the phase's own; tail: the instant at which the phase ends.
impl<M: PackedMeter> Packed for State<M> {
    #[inline]
    fn pack(self) -> (u64, u64) {
        const { assert!(M::BITS <= trip::BITS, "what is counted doesn't fit one word: share it through a mutex") }
        let phase = self.stamp.phase();
        let body = if phase.counts() {
            self.meter.to_bits()
        } else {
            let Trial { in_flight, judged, good, failures, slow } = self.trial;
            u64::from_le_bytes([self.reopened, in_flight, judged, good, failures, slow, 0, 0])
        };
        let tail = if phase.has_deadline() { self.meter.kept().as_nanos() } else { 0 };
        (u64::from(self.stamp.0) << trip::BITS | body, tail)
    }

    #[inline]
    fn unpack(head: u64, tail: u64) -> Self {
        let (stamp, body) = (Stamp((head >> trip::BITS) as u16), head & ((1 << trip::BITS) - 1));
        if stamp.phase().counts() {
            return Self { meter: M::from_bits(body), stamp, reopened: 0, trial: Trial::FRESH };
        }
        let [reopened, in_flight, judged, good, failures, slow, ..] = body.to_le_bytes();
        let mut meter = M::FRESH;
        if stamp.phase().has_deadline() {
            meter.keep(Instant::from_nanos(tail));
        }
        Self { meter, stamp, reopened, trial: Trial { in_flight, judged, good, failures, slow } }
    }

    #[inline]
    fn has_tail(head: u64) -> bool {
        head >> (trip::BITS + GENERATION) >= u64::from(Phase::OPEN.0)
    }
}
