//! What each step of a breaker promises.

use super::conditions::{Call, Finite};
use super::{Moment, Step, Visit, ticks};
use crate::cell::Fresh;
use crate::circuit_breaker::machine::{GENERATIONS, Phase, Ticket};
use crate::circuit_breaker::{
    ABANDONED_TIMED, Config, Counts, FULL_TRIAL, HALF_OPEN_AS_OPEN, Opening, Sample, StateKind, Transition, Trip,
};
use crate::failure::{Reason, Rejected};
use crate::outcome::{Outcome, Verdict};
use crate::{Called, Instant, Span};

/// A step, what it was done to, and what came of it.
pub(super) struct Done<'d, T: Finite> {
    pub(super) config: &'d Config<T>,
    pub(super) before: &'d Moment<T::Meter>,
    pub(super) step: Step,
    pub(super) after: &'d Moment<T::Meter>,
    pub(super) events: &'d [Transition],
    pub(super) called: &'d [Called],
}

impl<T: Copy + Trip> Config<T> {
    /// No more probes than are configured.
    pub(super) fn check_probes(&self, out: u32, reported: u32) {
        assert!(out <= self.probes.into(), "{out} probes at once");
        assert!(out + reported <= self.trials.into(), "{out} probes, and {reported} before them");
    }

    /// Whether the probes' verdict is certain, and which.
    fn verdict(&self, visit: &Visit) -> StateKind {
        let (trials, calls) = (u32::from(self.trials), visit.reported.calls);
        let left = trials.saturating_sub(calls);
        let (best, worst) = (visit.good + left, visit.good);
        if self.is(FULL_TRIAL) && left > 0 {
            StateKind::HalfOpen
        } else if worst >= self.successes.into() {
            StateKind::Closed
        } else if best < self.successes.into() {
            StateKind::Open
        } else {
            StateKind::HalfOpen
        }
    }

    /// How long a state lasts by itself.
    fn span(&self, event: &Transition, at: Instant) -> Span {
        let (configured, reopened) = (self.open_for, event.reopened);
        match event.to {
            StateKind::Open => self.trip.open_span(&Opening { configured, reopened, counts: event.counts, at }),
            StateKind::HalfOpen if self.is(HALF_OPEN_AS_OPEN) => {
                self.trip.open_span(&Opening { configured, reopened, counts: Counts::default(), at })
            }
            StateKind::HalfOpen => self.half_open_for,
            _ => Span::MAX,
        }
    }

    pub(super) const fn waits_for_ever(&self) -> bool {
        !self.is(HALF_OPEN_AS_OPEN) && self.half_open_for.is_max()
    }
}

impl<T: Finite> Done<'_, T> {
    /// What was reported, and of which call.
    fn report(&self) -> Option<(Ticket, Verdict)> {
        match self.step {
            Step::Report(place, told) => Some((self.before.out[place], told.verdict())),
            Step::Drop(place) => {
                let (ticket, limit) = (self.before.out[place], self.config.abandoned_after);
                let failed = if self.config.is(ABANDONED_TIMED) {
                    ticket.took(self.before.now) > limit
                } else {
                    limit.is_zero()
                };
                Some((ticket, if failed { Verdict::TRANSIENT } else { Verdict::IGNORED }))
            }
            _ => None,
        }
    }

    /// What the condition sees of a report that is not late.
    fn sample(&self) -> Option<Sample> {
        let (ticket, verdict) = self.report().filter(|(ticket, _)| self.before.is_current(*ticket))?;
        let limit = self.config.trip.slow_after();
        let took = if limit == Span::MAX { Span::ZERO } else { ticket.took(self.before.now) };
        let failed = verdict.outcome() == Outcome::Failure;
        (verdict.outcome() != Outcome::Ignored).then_some(Sample { failed, slow: verdict.is_slow(), took })
    }

    fn is_slow(&self, sample: Sample) -> bool {
        sample.slow || sample.took > self.config.trip.slow_after()
    }

    fn is_good(&self, sample: Sample) -> bool {
        !sample.failed && !self.is_slow(sample)
    }

    /// The visit as it goes on, the report included.
    fn visit_reported(&self) -> Visit {
        let mut visit = self.before.visit;
        if let Some(sample) = self.sample() {
            visit.reported.calls += 1;
            visit.reported.failures += u32::from(sample.failed);
            visit.reported.slow += u32::from(self.is_slow(sample));
            visit.good += u32::from(self.is_good(sample));
        }
        visit
    }

    /// A call that counts.
    pub(super) fn call(&self) -> Option<Call> {
        let counts = matches!(self.after.breaker.kind(), StateKind::Closed | StateKind::MetricsOnly);
        let sample = self.sample().filter(|_| counts && self.after.generation() == self.before.generation())?;
        Some(Call { at: self.before.now, failed: sample.failed, slow: self.is_slow(sample) })
    }

    /// The visit after the step.
    pub(super) fn visit(&self) -> Visit {
        let stays = self.after.generation() == self.before.generation();
        if stays && self.after.breaker.kind() == StateKind::HalfOpen {
            Visit { leaked: self.after.visit.leaked, ..self.visit_reported() }
        } else {
            Visit::default()
        }
    }

    /// What had been counted when the state first changed.
    fn counted(&self) -> Counts {
        let Moment { breaker, now, visit, .. } = self.before;
        match breaker.kind() {
            StateKind::HalfOpen if self.before.is_over() => visit.reported,
            StateKind::HalfOpen => self.visit_reported().reported,
            StateKind::Closed | StateKind::MetricsOnly => {
                let mut meter = breaker.meter;
                if let Some(sample) = self.sample() {
                    self.config.trip.record(&mut meter, sample, Some(*now));
                }
                // Nobody reads the clock for what is done by hand, but for half-open, which has a deadline.
                let timed = !self.step.is_by_hand() || self.step == Step::HalfOpen;
                self.config.trip.counts(&meter, timed.then_some(*now))
            }
            _ => Counts::default(),
        }
    }

    /// Each change gives exactly one event, in order, and none gives none.
    pub(super) fn check_events(&self) {
        let (mut from, mut generation) = (self.before.breaker.kind(), self.before.generation());
        let (mut reopened, mut counts) = (self.before.breaker.reopened, self.counted());
        for event in self.events {
            assert_eq!((event.from, event.counts), (from, counts), "{event:?}");
            assert!(self.may_lead(event), "{event:?} after {:?}", self.step);
            if (event.from, event.to) == (StateKind::MetricsOnly, StateKind::Open) && !self.step.is_by_hand() {
                // Only what would have happened.
                assert_eq!((event.generation, event.reopened, event.until), (generation, 0, None));
                continue;
            }
            generation = (generation + 1) % GENERATIONS;
            reopened = match (event.from, event.to) {
                (StateKind::HalfOpen, StateKind::Open) if !self.step.is_by_hand() => reopened.saturating_add(1),
                (_, StateKind::HalfOpen) => reopened,
                _ => 0,
            };
            assert_eq!((event.generation, event.reopened), (generation, reopened), "{event:?}");
            assert_eq!(event.until, self.end(event), "{event:?}");
            (from, counts) = (event.to, Counts::default());
        }
        assert_eq!(
            (from, generation),
            (self.after.breaker.kind(), self.after.generation()),
            "a change without an event"
        );
        if let Some(last) = self.events.last().filter(|last| last.to == from) {
            let breaker = &self.after.breaker;
            assert_eq!((last.reopened, last.until), (breaker.reopened, breaker.until()));
            let counts = !matches!(from, StateKind::Open | StateKind::HalfOpen);
            assert!(!counts || breaker.meter == T::Meter::FRESH, "nothing counted yet");
        }
    }

    /// When the state that begins with the event ends by itself.
    fn end(&self, event: &Transition) -> Option<Instant> {
        let Moment { breaker, now, .. } = self.before;
        let passed = breaker.kind() == StateKind::HalfOpen && self.before.is_over();
        let end = match (self.step, self.report()) {
            (Step::OpenUntil(left), _) => now.saturating_add(ticks(left)),
            (Step::OpenForEver, _) => Instant::MAX,
            // An open period that follows a half-open deadline begins with it.
            _ if passed && event.to == StateKind::Open => breaker.end().after(self.config.span(event, breaker.end())),
            (_, Some((_, verdict))) => now.after(self.config.span(event, *now).max(verdict.hint_or_zero())),
            _ => now.after(self.config.span(event, *now)),
        };
        Some(end).filter(|&end| end != Instant::MAX)
    }

    /// Whether the step may lead from one state to the other.
    fn may_lead(&self, event: &Transition) -> bool {
        use StateKind::*;
        let (first, over) = (event.from == self.before.breaker.kind(), self.before.is_over());
        match (self.step, event.from, event.to) {
            (Step::Acquire, Open, HalfOpen) | (Step::Acquire, HalfOpen, Open) => over,
            (Step::HandleTimeout, Open, HalfOpen) | (Step::HandleTimeout, HalfOpen, Open) => over && first,
            (Step::Report(..) | Step::Drop(_), Closed | HalfOpen | MetricsOnly, Open) => first,
            (Step::Report(..), HalfOpen, Closed) => first,
            // Judged anew by other settings.
            (Step::Reconfigure(_), HalfOpen, Closed | Open) => first,
            (Step::Isolate, _, Isolated) | (Step::Disable, _, Disabled) | (Step::ObserveOnly, _, MetricsOnly) => true,
            (Step::Reset, _, Closed) | (Step::OpenUntil(_) | Step::OpenForEver, _, Open) => true,
            (Step::HalfOpen, _, HalfOpen) => true,
            _ => false,
        }
    }

    pub(super) fn check_acquired(&self, rejected: Option<Rejected>) {
        let Self { before, after, .. } = self;
        let Visit { reported, .. } = self.visit();
        let (kind, out) = (after.breaker.kind(), u32::from(after.breaker.in_flight));
        let Some(rejected) = rejected else {
            assert_eq!(self.called, [Called::Admitted]);
            let ticket = after.out.last().expect("a permit");
            assert_eq!(ticket.stamp(), after.breaker.stamp(), "a permit of another state");
            assert_eq!(ticket.is_probe(), kind == StateKind::HalfOpen);
            match kind {
                StateKind::HalfOpen => {
                    let others = if self.events.is_empty() { before.breaker.in_flight.into() } else { 0 };
                    assert_eq!(out, others + 1);
                    assert!(after.breaker.end() > before.now, "admitted after the deadline");
                    self.config.check_probes(out, reported.calls);
                }
                StateKind::Open | StateKind::Isolated => unreachable!("admitted while {kind:?}"),
                _ => assert!(after.breaker == before.breaker, "admitting is no change"),
            }
            return;
        };
        assert_eq!(self.called, [Called::Rejected]);
        assert_eq!(rejected.retry_at(), after.breaker.until());
        assert!(self.events.is_empty() || kind == StateKind::Open, "a call that opens half-open is its first probe");
        assert!(!self.events.is_empty() || after.breaker == before.breaker, "rejecting is no change");
        let reason = match kind {
            StateKind::Open => Reason::Open,
            StateKind::Isolated => Reason::Isolated,
            StateKind::HalfOpen => {
                let (probes, trials) = (self.config.probes.into(), u32::from(self.config.trials));
                assert!(out >= probes || out + reported.calls >= trials, "a probe that could be made");
                Reason::ProbesOut
            }
            _ => unreachable!("rejected while {kind:?}"),
        };
        assert_eq!(rejected.reason(), reason);
        assert!(rejected.retry_at().is_some() || after.is_held_by_hand() || self.config.waits_for_ever());
    }

    pub(super) fn check_report(&self) {
        let Self { before, after, .. } = self;
        let Some((ticket, verdict)) = self.report() else { return };
        let (outcome, kind) = (verdict.outcome(), after.breaker.kind());
        let (neutral, opens) = (outcome == Outcome::Ignored, verdict.opens());
        let abandoned = neutral && matches!(self.step, Step::Drop(_));
        let called = if abandoned { Called::Abandoned } else { Called::Recorded(outcome) };
        let is_unchanged = after.breaker == before.breaker && self.events.is_empty();
        let is_late = !before.is_current(ticket);
        // A report after the deadline is late too, whether or not anybody has noticed.
        let is_late_now = before.breaker.kind() == StateKind::HalfOpen && before.is_over() && (!neutral || opens);
        match before.breaker.kind() {
            _ if is_late => assert!(is_unchanged, "a late report changes a newer state"),
            StateKind::Disabled => assert!(is_unchanged, "a report that nobody counts"),
            StateKind::HalfOpen if is_late_now => assert_eq!(kind, StateKind::Open),
            StateKind::HalfOpen => {
                let expected = if opens { StateKind::Open } else { self.config.verdict(&self.visit_reported()) };
                assert_eq!(kind, expected, "the probes' verdict");
                if expected == StateKind::HalfOpen {
                    assert_eq!(after.breaker.in_flight, before.breaker.in_flight - 1, "the slot comes back");
                    assert_eq!(after.breaker.end(), before.breaker.end(), "the deadline stays");
                }
            }
            StateKind::Closed | StateKind::MetricsOnly => self.check_counted(opens),
            StateKind::Open | StateKind::Isolated => unreachable!("a permit of a state that gives none"),
        }
        let called = match called {
            _ if before.breaker.kind() == StateKind::Disabled && !is_late => None,
            _ if (is_late || is_late_now) && !neutral => Some(Called::Late),
            called => Some(called),
        };
        assert_eq!(self.called, called.as_slice(), "what was told of the call");
    }

    /// A report to a breaker that counts.
    fn check_counted(&self, opens: bool) {
        let Self { before, after, .. } = self;
        let (trip, mut meter) = (&self.config.trip, before.breaker.meter);
        let met = self.sample().map(|sample| trip.record(&mut meter, sample, Some(before.now)));
        let met = met.map(|met| met.expect("it was given the time"));
        if self.sample().is_some_and(|sample| self.is_good(sample)) && trip.is_healthy(&before.breaker.meter) {
            // Then nothing is written, and nobody can see that.
            let counts = |meter| trip.counts(meter, Some(before.now));
            assert_eq!((counts(&meter), met), (counts(&before.breaker.meter), Some(false)), "a success in full health");
            meter = before.breaker.meter;
        }
        if before.breaker.kind() == StateKind::Closed {
            let trips = opens || met == Some(true);
            assert_eq!(after.breaker.kind() == StateKind::Open, trips, "the condition");
            assert!(trips || after.breaker.meter == meter, "what was counted");
            return;
        }
        assert_eq!(after.breaker.kind(), StateKind::MetricsOnly, "a dry run stays one");
        assert_eq!(after.breaker.meter, meter, "what was counted");
        let (was, is) = (before.breaker.stamp().phase(), after.breaker.stamp().phase());
        let unsaid = met.is_none() && !opens;
        let expected = match met {
            _ if unsaid => was,
            Some(true) => Phase::METRICS_ONLY_MET,
            _ if was == Phase::METRICS_ONLY_MET && meter == before.breaker.meter => was,
            _ if opens => Phase::METRICS_ONLY_OPENED,
            _ => Phase::METRICS_ONLY,
        };
        assert_eq!(is, expected, "what a dry run would have done");
        let edge = was == Phase::METRICS_ONLY && is != was;
        assert_eq!(self.events.len(), usize::from(edge), "a dry run tells of each time that it would have opened");
    }
}
