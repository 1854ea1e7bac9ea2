//! The machine: a breaker's state, and its transitions as plain functions of the state, the configuration and the time.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "a packed word's fields are shifted and cut, by constant widths"
)]

use super::trip::{self, Counts, Opening, PackedMeter, Sample, Trip};
use super::{Config, StateKind, Transition};
use crate::cell::{Fresh, Packed};
use crate::failure::{Policy, Reason, Rejected};
use crate::outcome::{Outcome, Verdict};
use crate::time::{Instant, Span};

/// What a permit remembers. Two scalars, so that it travels in registers.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) struct Ticket {
    started: Instant,
    stamp: u32,
}

impl Ticket {
    const PROBE: u32 = 1 << 16;
    /// The start of a call that nobody times: however late it is, the call has taken no time.
    pub(super) const UNTIMED: Instant = Instant::MAX;

    #[inline]
    pub(super) fn new(generation: u16, probe: bool, started: Instant) -> Self {
        Self { started, stamp: u32::from(generation) | if probe { Self::PROBE } else { 0 } }
    }

    #[inline]
    pub(super) const fn generation(self) -> u16 {
        self.stamp as u16
    }

    #[inline]
    pub(super) const fn is_probe(self) -> bool {
        self.stamp & Self::PROBE != 0
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

/// What a breaker keeps in its cell: the phase and its generation.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct State<M> {
    pub(super) phase: Phase<M>,
    pub(super) generation: u16,
}

/// Generations have 12 bits. A late report would be taken for a current one only if its call outlasted a multiple of 4,096
/// changes, half of them open periods.
pub(super) const GENERATIONS: u16 = 1 << 12;

#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) enum Phase<M> {
    Closed {
        meter: M,
    },
    Open {
        until: Instant,
        reopened: u8,
    },
    HalfOpen {
        until: Instant,
        reopened: u8,
        trial: Trial,
    },
    Isolated,
    Disabled,
    /// A dry run; `tripped` once the condition is met, until the meter says something else.
    MetricsOnly {
        meter: M,
        tripped: bool,
    },
    /// A dry run in which an outcome would have opened the breaker by itself, until the next one that would not.
    MetricsOnlyOpened {
        meter: M,
    },
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
        out < config.probes && out.saturating_add(self.judged.into()) < config.trials
    }

    fn release(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    fn judge(&mut self, failed: bool, slow: bool) {
        self.judged = self.judged.saturating_add(1);
        self.good = self.good.saturating_add(u8::from(!failed && !slow));
        self.failures = self.failures.saturating_add(failed.into());
        self.slow = self.slow.saturating_add(slow.into());
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

/// A transition on its way out of the cell, in as few words as there are: a small chip copies it byte by byte.
#[derive(Clone, Copy)]
pub(super) struct Change {
    until: Instant,
    counts: Counts,
    generation: u16,
    reopened: u8,
    from: StateKind,
    to: StateKind,
    /// Whether the report that made it came too late to count.
    late: bool,
}

impl From<Change> for Transition {
    fn from(change: Change) -> Self {
        let Change { until, counts, generation, reopened, from, to, late: _ } = change;
        Self { from, to, generation, reopened, counts, until: Some(until).filter(|&at| at != Instant::MAX) }
    }
}

/// What has become of a report at first sight.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Glance {
    Done,
    /// The state that admitted the call has ended.
    Late,
    NotYet,
}

/// What has become of a report.
#[derive(Clone, Copy)]
pub(super) enum Settled {
    Done,
    /// The state that admitted the call has ended.
    Late,
    /// The breaker is switched off.
    Unrecorded,
    Changed(Change),
}

impl Settled {
    pub(super) const fn is_late(&self) -> bool {
        matches!(self, Self::Late | Self::Changed(Change { late: true, .. }))
    }
}

pub(super) enum Admission {
    Admitted {
        generation: u16,
        probe: bool,
    },
    Rejected(Rejected),
    /// The state changed under the caller: ask again.
    Again(Change),
}

impl<M: Fresh> Fresh for State<M> {
    const FRESH: Self = Self { phase: Phase::Closed { meter: M::FRESH }, generation: 0 };
}

/// The transitions. Those that may need the time take it as an `Option`, and answer `None` with the state untouched when
/// they can't go on without it.
impl<M: Copy + Fresh + PartialEq> State<M> {
    /// The generation, if everything passes and nothing changes by it.
    #[inline]
    pub(super) fn admits_all(&self) -> Option<u16> {
        matches!(
            self.phase,
            Phase::Closed { .. } | Phase::Disabled | Phase::MetricsOnly { .. } | Phase::MetricsOnlyOpened { .. }
        )
        .then_some(self.generation)
    }

    /// The rejection, if the breaker is open and stays so.
    pub(super) fn still_open(&self, now: Instant) -> Option<Rejected> {
        match self.phase {
            Phase::Open { until, .. } if now < until || until == Instant::MAX => {
                Some(Rejected::until(Policy::CircuitBreaker, Reason::Open, until))
            }
            _ => None,
        }
    }

    /// Whether a success that was not slow changes nothing: a breaker that counts, in full health.
    #[inline]
    pub(super) fn is_unmoved_by_success<T: Copy + Trip<Meter = M>>(&self, config: &Config<T>, ticket: Ticket) -> bool {
        match &self.phase {
            Phase::Closed { meter } | Phase::MetricsOnly { meter, .. } => {
                ticket.generation() == self.generation && config.trip.is_healthy(meter)
            }
            _ => false,
        }
    }

    /// Settles what needs neither the time nor an event: most often, a breaker that is closed and stays so.
    #[inline]
    pub(super) fn settle_closed<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        ticket: Ticket,
        report: Report,
    ) -> Glance {
        if ticket.generation() != self.generation {
            return Glance::Late;
        }
        let Phase::Closed { meter } = &mut self.phase else { return Glance::NotYet };
        if report.verdict.opens() {
            return Glance::NotYet;
        }
        if let Some(sample) = report.sample() {
            let mut counted = *meter;
            if config.trip.record(&mut counted, sample, None) != Some(false) {
                return Glance::NotYet;
            }
            *meter = counted;
        }
        Glance::Done
    }

    pub(super) fn admit<T: Copy + Trip<Meter = M>>(&mut self, config: &Config<T>, now: Instant) -> Admission {
        let rejected = |reason, until| Admission::Rejected(Rejected::until(Policy::CircuitBreaker, reason, until));
        if let Some(change) = self.expire(config, now) {
            return Admission::Again(change);
        }
        match &mut self.phase {
            Phase::Isolated => rejected(Reason::Isolated, Instant::MAX),
            Phase::Open { until, .. } => rejected(Reason::Open, *until),
            Phase::HalfOpen { trial, until, .. } => {
                if trial.admits(config) {
                    trial.in_flight = trial.in_flight.saturating_add(1);
                    Admission::Admitted { generation: self.generation, probe: true }
                } else if let Some(closes) = trial.verdict(config) {
                    // Only where the last report was judged by settings that have been replaced since.
                    Admission::Again(self.decide(config, closes, None, now))
                } else {
                    rejected(Reason::ProbesOut, *until)
                }
            }
            Phase::Closed { .. } | Phase::Disabled | Phase::MetricsOnly { .. } | Phase::MetricsOnlyOpened { .. } => {
                Admission::Admitted { generation: self.generation, probe: false }
            }
        }
    }

    /// Leaves a state whose own time is over.
    pub(super) fn expire<T: Copy + Trip<Meter = M>>(&mut self, config: &Config<T>, now: Instant) -> Option<Change> {
        let (Phase::Open { until, reopened } | Phase::HalfOpen { until, reopened, .. }) = self.phase else {
            return None;
        };
        // `Instant::MAX` is "never", and stays so when the clock itself saturates.
        if now < until || until == Instant::MAX {
            return None;
        }
        Some(if let Phase::Open { .. } = self.phase {
            self.half_open(config, now)
        } else {
            // Counted from the deadline, not from whenever somebody noticed.
            self.open(config, reopened.saturating_add(1), None, until)
        })
    }

    /// Half-open from now on, with all probes to come.
    pub(super) fn half_open<T: Copy + Trip<Meter = M>>(&mut self, config: &Config<T>, now: Instant) -> Change {
        let reopened = self.reopened();
        let until = now.after(config.half_open_span(reopened, now));
        let counts = self.counts(config, Some(now));
        self.enter(Phase::HalfOpen { until, reopened, trial: Trial::FRESH }, counts)
    }

    /// Opens from an instant on, with what this state has counted as the reason.
    fn open<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        reopened: u8,
        hint: Option<Span>,
        at: Instant,
    ) -> Change {
        let counts = self.counts(config, Some(at));
        let span = config.open_span(&Opening { configured: config.open_for, reopened, counts, at });
        let until = at.after(hint.map_or(span, |hint| hint.max(span)));
        self.enter(Phase::Open { until, reopened }, counts)
    }

    #[inline]
    pub(super) fn settle<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        ticket: Ticket,
        report: Report,
        now: Option<Instant>,
    ) -> Option<Settled> {
        // A late report can't touch a newer state.
        if ticket.generation() != self.generation {
            return Some(Settled::Late);
        }
        let Phase::Closed { mut meter } = self.phase else { return self.settle_elsewhere(config, report, now) };
        let opens = Self::count(config, &mut meter, report, now)? || report.verdict.opens();
        let now = if opens { now? } else { Instant::START };
        self.phase = Phase::Closed { meter };
        if !opens {
            return Some(Settled::Done);
        }
        Some(Settled::Changed(self.open(config, 0, report.verdict.hint(), now)))
    }

    /// Whether the condition is met, once it has counted this report.
    #[inline]
    fn count<T: Copy + Trip<Meter = M>>(
        config: &Config<T>,
        meter: &mut M,
        report: Report,
        now: Option<Instant>,
    ) -> Option<bool> {
        report.sample().map_or(Some(false), |sample| config.trip.record(meter, sample, now))
    }

    fn settle_elsewhere<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        report: Report,
        now: Option<Instant>,
    ) -> Option<Settled> {
        match self.phase {
            Phase::HalfOpen { trial, .. } => self.settle_probe(config, trial, report, now),
            Phase::MetricsOnly { meter, tripped } => self.settle_dry(config, meter, (tripped, false), report, now),
            Phase::MetricsOnlyOpened { meter } => self.settle_dry(config, meter, (false, true), report, now),
            _ => Some(Settled::Unrecorded),
        }
    }

    /// In metrics only. `met` and `opened` say whether the condition was met, or an outcome would have opened the
    /// breaker by itself.
    fn settle_dry<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        mut meter: M,
        (met, opened): (bool, bool),
        report: Report,
        now: Option<Instant>,
    ) -> Option<Settled> {
        let (before, opens) = (meter, report.verdict.opens());
        let trips = Self::count(config, &mut meter, report, now)?;
        // Only the edge is reported, and nothing has changed but our word for it.
        let edge = (trips || opens) && !met && !opened;
        let now = if edge { Some(now?) } else { now };
        // What the meter does not take in does not change what it has said: successes, for a failure meter.
        let met = trips || met && meter == before;
        let opened = !met && (opens || opened && report.sample().is_none());
        self.phase =
            if opened { Phase::MetricsOnlyOpened { meter } } else { Phase::MetricsOnly { meter, tripped: met } };
        if !edge {
            return Some(Settled::Done);
        }
        Some(Settled::Changed(Change {
            from: StateKind::MetricsOnly,
            to: StateKind::Open,
            generation: self.generation,
            reopened: 0,
            counts: self.counts(config, now),
            until: Instant::MAX,
            late: false,
        }))
    }

    fn settle_probe<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        mut trial: Trial,
        report: Report,
        now: Option<Instant>,
    ) -> Option<Settled> {
        trial.release();
        let sample = report.sample();
        if let (None, false) = (sample, report.verdict.opens()) {
            self.try_on(trial);
            return Some(Settled::Done);
        }
        let now = now?;
        // A report after the deadline is late, whether or not anybody has noticed the deadline before.
        if let Some(change) = self.expire(config, now) {
            return Some(Settled::Changed(Change { late: true, ..change }));
        }
        if let Some(sample) = sample {
            trial.judge(sample.failed, sample.slow || sample.took > config.trip.slow_after());
        }
        self.try_on(trial);
        let closes = if report.verdict.opens() { Some(false) } else { trial.verdict(config) };
        Some(
            closes.map_or(Settled::Done, |closes| {
                Settled::Changed(self.decide(config, closes, report.verdict.hint(), now))
            }),
        )
    }

    /// The verdict over the probes: closed, or open again.
    fn decide<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        closes: bool,
        hint: Option<Span>,
        now: Instant,
    ) -> Change {
        if closes {
            let counts = self.counts(config, Some(now));
            self.enter(Phase::Closed { meter: M::FRESH }, counts)
        } else {
            self.open(config, self.reopened().saturating_add(1), hint, now)
        }
    }

    /// What has come of the probes, while the breaker is half-open.
    fn try_on(&mut self, tried: Trial) {
        if let Phase::HalfOpen { trial, .. } = &mut self.phase {
            *trial = tried;
        }
    }

    /// Carries what has been counted over to other settings. Half-open, which may be decided by them, has to be
    /// judged anew: no further report may come.
    pub(super) fn reconfigure<T: Copy + Trip<Meter = M>>(
        &mut self,
        from: &Config<T>,
        to: &Config<T>,
        now: Instant,
    ) -> Option<Change> {
        match &mut self.phase {
            Phase::Closed { meter } | Phase::MetricsOnly { meter, .. } | Phase::MetricsOnlyOpened { meter } => {
                to.trip.adapt(meter, &from.trip, now);
                None
            }
            Phase::HalfOpen { trial, .. } => {
                let closes = trial.verdict(to);
                self.expire(to, now).or_else(|| closes.map(|closes| self.decide(to, closes, None, now)))
            }
            Phase::Open { .. } | Phase::Isolated | Phase::Disabled => None,
        }
    }

    /// The one way into another phase: a new generation, and the event that tells of it, with what had been counted
    /// before.
    pub(super) fn enter(&mut self, next: Phase<M>, counts: Counts) -> Change {
        let from = self.kind();
        *self = Self { phase: next, generation: self.generation.wrapping_add(1) % GENERATIONS };
        Change {
            from,
            to: self.kind(),
            generation: self.generation,
            reopened: self.reopened(),
            counts,
            until: self.end(),
            late: false,
        }
    }
}

impl<M: Copy> State<M> {
    pub(super) const fn kind(&self) -> StateKind {
        match self.phase {
            Phase::Closed { .. } => StateKind::Closed,
            Phase::Open { .. } => StateKind::Open,
            Phase::HalfOpen { .. } => StateKind::HalfOpen,
            Phase::Isolated => StateKind::Isolated,
            Phase::Disabled => StateKind::Disabled,
            Phase::MetricsOnly { .. } | Phase::MetricsOnlyOpened { .. } => StateKind::MetricsOnly,
        }
    }

    pub(super) fn until(&self) -> Option<Instant> {
        Some(self.end()).filter(|&at| at != Instant::MAX)
    }

    /// When the state ends by itself; `Instant::MAX` is "never".
    const fn end(&self) -> Instant {
        match self.phase {
            Phase::Open { until, .. } | Phase::HalfOpen { until, .. } => until,
            _ => Instant::MAX,
        }
    }

    pub(super) const fn reopened(&self) -> u8 {
        match self.phase {
            Phase::Open { reopened, .. } | Phase::HalfOpen { reopened, .. } => reopened,
            _ => 0,
        }
    }

    pub(super) fn in_flight(&self) -> u32 {
        if let Phase::HalfOpen { trial, .. } = self.phase { trial.in_flight.into() } else { 0 }
    }

    pub(super) fn counts<T: Trip<Meter = M>>(&self, config: &Config<T>, now: Option<Instant>) -> Counts {
        match &self.phase {
            Phase::Closed { meter } | Phase::MetricsOnly { meter, .. } | Phase::MetricsOnlyOpened { meter } => {
                config.trip.counts(meter, now)
            }
            Phase::HalfOpen { trial, .. } => {
                Counts { calls: trial.judged.into(), failures: trial.failures.into(), slow: trial.slow.into() }
            }
            _ => Counts::default(),
        }
    }
}

/// Head: 3 bits of phase, 12 of generation, 48 of the phase's own; tail: the instant at which the phase ends.
impl<M: PackedMeter> Packed for State<M> {
    #[inline]
    fn pack(self) -> (u64, u64) {
        const { assert!(M::BITS <= trip::BITS, "what is counted doesn't fit one word: share it through a mutex") }
        let (tag, body, tail) = match self.phase {
            Phase::Closed { meter } => (0, meter.to_bits(), 0),
            Phase::MetricsOnly { meter, tripped } => (1 + u64::from(tripped), meter.to_bits(), 0),
            Phase::MetricsOnlyOpened { meter } => (3, meter.to_bits(), 0),
            Phase::Disabled => (4, 0, 0),
            Phase::Isolated => (5, 0, 0),
            Phase::Open { until, reopened } => (6, reopened.into(), until.as_nanos()),
            Phase::HalfOpen { until, reopened, trial } => {
                let Trial { in_flight, judged, good, failures, slow } = trial;
                let body = u64::from_le_bytes([reopened, in_flight, judged, good, failures, slow, 0, 0]);
                (7, body, until.as_nanos())
            }
        };
        (tag << 60 | u64::from(self.generation) << trip::BITS | body, tail)
    }

    #[inline]
    fn unpack(head: u64, tail: u64) -> Self {
        let body = head & ((1 << trip::BITS) - 1);
        let [reopened, in_flight, judged, good, failures, slow, ..] = body.to_le_bytes();
        let until = Instant::from_nanos(tail);
        let phase = match head >> 60 {
            0 => Phase::Closed { meter: M::from_bits(body) },
            1 => Phase::MetricsOnly { meter: M::from_bits(body), tripped: false },
            2 => Phase::MetricsOnly { meter: M::from_bits(body), tripped: true },
            3 => Phase::MetricsOnlyOpened { meter: M::from_bits(body) },
            4 => Phase::Disabled,
            5 => Phase::Isolated,
            6 => Phase::Open { until, reopened },
            _ => Phase::HalfOpen { until, reopened, trial: Trial { in_flight, judged, good, failures, slow } },
        };
        Self { phase, generation: (head >> trip::BITS) as u16 % GENERATIONS }
    }

    #[inline]
    fn has_tail(head: u64) -> bool {
        head >> 60 >= 6
    }
}
