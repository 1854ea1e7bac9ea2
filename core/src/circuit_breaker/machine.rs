//! The machine: a breaker's state, and its transitions as plain functions of the state, the configuration and the time.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "a packed word's fields are shifted and cut, by constant widths"
)]

use super::trip::{self, Counts, PackedMeter, Sample, Trip};
use super::{Config, StateKind, Transition};
use crate::cell::{Fresh, Packed};
use crate::failure::{Policy, Reason, Rejected};
use crate::outcome::{Outcome, Verdict};
use crate::time::{Instant, Span};

/// What a permit remembers. Two scalars, so that it travels in registers.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) struct Ticket {
    // Only for `Abandoned::FailureAfter`.
    pub(super) started: Instant,
    stamp: u32,
}

impl Ticket {
    const PROBE: u32 = 1 << 16;

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
    Closed { meter: M },
    Open { until: Instant, reopened: u8 },
    HalfOpen { until: Instant, reopened: u8, in_flight: u8, successes: u8, failures: u8 },
    Isolated,
    Disabled,
    MetricsOnly { meter: M, tripped: bool },
}

/// How far a report could be settled at once.
pub(super) enum Settled {
    Done,
    /// The state that admitted the call has ended.
    Late,
    NotYet,
}

pub(super) enum Admission {
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
    /// The generation, if everything passes and nothing changes by it.
    #[inline]
    pub(super) fn admits_all(&self) -> Option<u16> {
        matches!(self.phase, Phase::Closed { .. } | Phase::Disabled | Phase::MetricsOnly { .. })
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

    /// Whether a success changes nothing: a breaker that counts, in full health.
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
        outcome: Outcome,
    ) -> Settled {
        if ticket.generation() != self.generation {
            return Settled::Late;
        }
        match (&mut self.phase, outcome) {
            (Phase::Closed { .. }, Outcome::Ignored) => Settled::Done,
            (Phase::Closed { meter }, Outcome::Success | Outcome::Failure) => {
                let mut counted = *meter;
                if config.trip.record(&mut counted, Sample::of(outcome == Outcome::Failure), None) != Some(false) {
                    return Settled::NotYet;
                }
                *meter = counted;
                Settled::Done
            }
            _ => Settled::NotYet,
        }
    }

    pub(super) fn admit<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        now: Instant,
    ) -> (Admission, Option<Transition>) {
        let rejected = |reason, until| Admission::Rejected(Rejected::until(Policy::CircuitBreaker, reason, until));
        if let Some(transition) = self.expire(config, now) {
            return (Admission::Again, Some(transition));
        }
        let admission = match &mut self.phase {
            Phase::Isolated => rejected(Reason::Isolated, Instant::MAX),
            Phase::Open { until, .. } => rejected(Reason::Open, *until),
            Phase::HalfOpen { in_flight, successes, failures, until, .. } => {
                let out = u32::from(*in_flight);
                let judged = u32::from(*successes).saturating_add((*failures).into());
                if out < config.probes.into() && out.saturating_add(judged) < config.trials.into() {
                    *in_flight = in_flight.saturating_add(1);
                    Admission::Admitted { generation: self.generation, probe: true }
                } else {
                    rejected(Reason::ProbesOut, *until)
                }
            }
            Phase::Closed { .. } | Phase::Disabled | Phase::MetricsOnly { .. } => {
                Admission::Admitted { generation: self.generation, probe: false }
            }
        };
        (admission, None)
    }

    /// Leaves a state whose own time is over.
    pub(super) fn expire<T: Copy + Trip<Meter = M>>(&mut self, config: &Config<T>, now: Instant) -> Option<Transition> {
        let (Phase::Open { until, reopened } | Phase::HalfOpen { until, reopened, .. }) = self.phase else {
            return None;
        };
        // `Instant::MAX` is "never", and stays so when the clock itself saturates.
        if now < until || until == Instant::MAX {
            return None;
        }
        let next = if let Phase::Open { .. } = self.phase {
            let until = now.after(config.half_open_span(reopened, now));
            Phase::HalfOpen { until, reopened, in_flight: 0, successes: 0, failures: 0 }
        } else {
            // Counted from the deadline, not from whenever somebody noticed.
            Self::reopen(config, reopened, None, until)
        };
        Some(self.enter(config, next, Some(now)))
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
    pub(super) fn settle<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        ticket: Ticket,
        verdict: Verdict,
        now: Option<Instant>,
    ) -> Option<Option<Transition>> {
        // A late report can't touch a newer state.
        if ticket.generation() != self.generation {
            return Some(None);
        }
        let failed = match verdict.outcome() {
            Outcome::Success => false,
            Outcome::Failure => true,
            Outcome::Ignored if ticket.is_probe() => return Some(self.release_probe()),
            Outcome::Ignored => return Some(None),
        };
        if let Phase::Closed { mut meter } = self.phase {
            let trips = config.trip.record(&mut meter, Sample::of(failed), now)?;
            let now = if trips { now? } else { Instant::START };
            self.phase = Phase::Closed { meter };
            return Some(trips.then(|| {
                let until = now.after(config.open_span(0, verdict.hint(), now));
                self.enter(config, Phase::Open { until, reopened: 0 }, Some(now))
            }));
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
                // A report after the deadline is late, whether or not anybody has noticed the deadline before.
                if let Some(transition) = self.expire(config, now?) {
                    return Some(Some(transition));
                }
                let (successes, failures) =
                    (successes.saturating_add(u8::from(!failed)), failures.saturating_add(u8::from(failed)));
                let in_flight = in_flight.saturating_sub(1);
                let judged = Phase::HalfOpen { until, reopened, in_flight, successes, failures };
                let next = if u16::from(successes) >= config.successes {
                    Phase::Closed { meter: M::FRESH }
                } else if u16::from(failures) > config.trials.saturating_sub(config.successes) {
                    Self::reopen(config, reopened, hint, now?)
                } else {
                    self.phase = judged;
                    return Some(None);
                };
                self.phase = judged;
                Some(Some(self.enter(config, next, now)))
            }
            Phase::MetricsOnly { mut meter, tripped } => {
                let trips = config.trip.record(&mut meter, Sample::of(failed), now)?;
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
    pub(super) fn enter<T: Copy + Trip<Meter = M>>(
        &mut self,
        config: &Config<T>,
        next: Phase<M>,
        now: Option<Instant>,
    ) -> Transition {
        let (from, counts) = (self.kind(), self.counts(config, now));
        *self = Self { phase: next, generation: self.generation.wrapping_add(1) % GENERATIONS };
        Transition { from, to: self.kind(), generation: self.generation, counts, until: self.until() }
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
            Phase::MetricsOnly { .. } => StateKind::MetricsOnly,
        }
    }

    pub(super) fn until(&self) -> Option<Instant> {
        match self.phase {
            Phase::Open { until, .. } | Phase::HalfOpen { until, .. } => Some(until).filter(|&at| at != Instant::MAX),
            _ => None,
        }
    }

    pub(super) fn in_flight(&self) -> u32 {
        if let Phase::HalfOpen { in_flight, .. } = self.phase { in_flight.into() } else { 0 }
    }

    pub(super) fn counts<T: Trip<Meter = M>>(&self, config: &Config<T>, now: Option<Instant>) -> Counts {
        match &self.phase {
            Phase::Closed { meter } | Phase::MetricsOnly { meter, .. } => config.trip.counts(meter, now),
            Phase::HalfOpen { successes, failures, .. } => {
                Counts { calls: u32::from(*successes) + u32::from(*failures), failures: (*failures).into(), slow: 0 }
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
            Phase::Disabled => (3, 0, 0),
            Phase::Isolated => (4, 0, 0),
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
            3 => Phase::Disabled,
            4 => Phase::Isolated,
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
