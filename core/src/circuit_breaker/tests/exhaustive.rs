//! Every state that a small breaker can reach, with its permits out and time going by, by way of its public operations.
//!
//! What makes the states finite, and takes nothing from them:
//!
//! * Time goes in ticks and counts from now: nobody sees how late it is. A deadline that has passed by longer than anything takes
//!   has passed, however long ago.
//! * Generations count from the newest. That one is always the last before they wrap: each change of state has the wrap in it. All
//!   older ones are late, whether by one change or by two.
//! * A breaker that has reopened twice or more often has done so twice: no period here grows beyond that.

use core::cell::{Cell, RefCell};
use core::fmt::Debug;
use core::mem::forget;
use core::time::Duration;
use std::vec::Vec;

use crate::backoff::Backoff;
use crate::cell::{Fresh, Live, Local, StateCell};
use crate::circuit_breaker::machine::{GENERATIONS, Phase, Stamp, State, Ticket, Trial};
use crate::circuit_breaker::{
    Abandoned, CircuitBreaker, Config, ConsecutiveFailures, CountBased, Counts, FailureMeter, FailureRate, Meter,
    Permit, StateKind, TimeBased, Transition,
};
use crate::explore::{System, explore};
use crate::outcome::{Outcome, Verdict};
use crate::{Called, Clock, Instant, Observer, Ratio, Valid, valid};

mod conditions;
mod promises;

use conditions::{Call, Finite};
use promises::Done;

/// A tick: whole units of time for a failure meter.
const TICK: u64 = 1 << 20;
/// Now, before each step.
const NOW: u64 = 1_000 * TICK;
/// What is longer ago than so many ticks might as well have been for ever: nothing here takes longer.
const LONG_AGO: u64 = 6;
/// The generation now, before each step.
const NEWEST: u16 = GENERATIONS - 1;

const PHASES: [Phase; 8] = [
    Phase::CLOSED,
    Phase::METRICS_ONLY,
    Phase::METRICS_ONLY_MET,
    Phase::METRICS_ONLY_OPENED,
    Phase::DISABLED,
    Phase::ISOLATED,
    Phase::OPEN,
    Phase::HALF_OPEN,
];

const fn ticks(ticks: u64) -> Duration {
    Duration::from_nanos(ticks * TICK)
}

/// What is reported of a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Told {
    Success,
    Failure,
    Ignore,
    SlowSuccess,
    SlowFailure,
    /// Come back in 3 ticks.
    RetryAfter,
    /// Banned for 3 ticks.
    Ban,
    /// Neither good nor bad, but it opens.
    IgnoreAndOpen,
}

impl Told {
    const fn verdict(self) -> Verdict {
        match self {
            Self::Success => Verdict::SUCCESS,
            Self::Failure => Verdict::TRANSIENT,
            Self::Ignore => Verdict::IGNORED,
            Self::SlowSuccess => Verdict::SUCCESS.with_slow(),
            Self::SlowFailure => Verdict::TRANSIENT.with_slow(),
            Self::RetryAfter => Verdict::TRANSIENT.with_retry_after(ticks(3)),
            Self::Ban => Verdict::PERMANENT.with_opening().with_retry_after(ticks(3)),
            Self::IgnoreAndOpen => Verdict::IGNORED.with_opening(),
        }
    }
}

/// Permits are told apart by their place in line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    Acquire,
    Report(usize, Told),
    Drop(usize),
    /// Never comes back: the permit is leaked, its future is held for ever, its task is gone.
    Forget(usize),
    Wait,
    HandleTimeout,
    Isolate,
    Disable,
    ObserveOnly,
    Reset,
    /// In so many ticks.
    OpenUntil(u64),
    OpenForEver,
    HalfOpen,
    Reconfigure(usize),
    /// Asks, or reports, and while it reads the clock another one does something by hand.
    AcquireDuring(Hand),
    ReportDuring(usize, Told, Hand),
}

/// What another one may do meanwhile.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Hand {
    Reset,
    HalfOpen,
    Isolate,
}

impl Hand {
    const fn step(self) -> Step {
        match self {
            Self::Reset => Step::Reset,
            Self::HalfOpen => Step::HalfOpen,
            Self::Isolate => Step::Isolate,
        }
    }
}

impl Step {
    const fn is_by_hand(self) -> bool {
        use Step::*;
        matches!(self, Isolate | Disable | ObserveOnly | Reset | OpenUntil(_) | OpenForEver | HalfOpen)
    }
}

const PLAIN: &[Told] = &[Told::Success, Told::Failure, Told::Ignore];
const ALL: &[Told] = &[
    Told::Success,
    Told::Failure,
    Told::Ignore,
    Told::SlowSuccess,
    Told::SlowFailure,
    Told::RetryAfter,
    Told::Ban,
    Told::IgnoreAndOpen,
];
const HANDS: &[Step] = &[
    Step::Isolate,
    Step::Disable,
    Step::ObserveOnly,
    Step::Reset,
    Step::OpenUntil(0),
    Step::OpenUntil(2),
    Step::OpenForEver,
    Step::HalfOpen,
];

/// A breaker, and what is done to it.
struct InUse<T: 'static> {
    /// Where there are several, they replace each other.
    settings: &'static [Valid<Config<T>>],
    /// The most permits out at once, late ones included.
    permits: usize,
    /// Whether permits may be leaked.
    leaks: bool,
    told: &'static [Told],
    by_hand: &'static [Step],
    /// What another one may do by hand just then.
    meanwhile: &'static [Hand],
}

/// What has become of the probes of one visit to half-open, as those who make them see it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Visit {
    reported: Counts,
    good: u32,
    leaked: u32,
}

#[derive(Clone)]
struct Moment<M> {
    breaker: State<M>,
    settings: usize,
    now: Instant,
    out: Vec<Ticket>,
    visit: Visit,
    /// Those that count.
    calls: Vec<Call>,
}

impl<M: Meter> Moment<M> {
    /// Whether the state's own time is over.
    fn is_over(&self) -> bool {
        self.breaker.until().is_some_and(|until| self.now >= until)
    }

    fn generation(&self) -> u16 {
        self.breaker.stamp().generation()
    }

    fn is_current(&self, ticket: Ticket) -> bool {
        ticket.stamp().generation() == self.generation()
    }

    fn probes_out(&self) -> u32 {
        self.out.iter().filter(|ticket| self.is_current(**ticket) && ticket.is_probe()).count() as u32
    }

    fn is_held_by_hand(&self) -> bool {
        use StateKind::*;
        match self.breaker.kind() {
            Isolated | Disabled | MetricsOnly => true,
            Open => self.breaker.until().is_none(),
            Closed | HalfOpen => false,
        }
    }
}

/// Takes down everything that it is told.
#[derive(Default)]
struct Log {
    events: RefCell<Vec<Transition>>,
    called: RefCell<Vec<Called>>,
}

impl Observer<Transition> for &Log {
    fn observe(&self, event: &Transition) {
        self.events.borrow_mut().push(*event);
    }

    fn called(&self, called: Called) {
        self.called.borrow_mut().push(called);
    }
}

/// A clock that whoever reads it first finds another one at work.
struct Meddling<'b, 'l, T: Finite> {
    now: Instant,
    breaker: &'b Breaker<'l, T>,
    hand: Cell<Option<Hand>>,
}

impl<T: Finite> Clock for Meddling<'_, '_, T> {
    fn now(&self) -> Instant {
        if let Some(hand) = self.hand.take() {
            do_by_hand(self.breaker, hand.step(), self.now);
        }
        self.now
    }
}

fn do_by_hand<T: Finite>(breaker: &Breaker<'_, T>, step: Step, now: Instant) {
    match step {
        Step::Isolate => breaker.isolate(),
        Step::Disable => breaker.disable(),
        Step::ObserveOnly => breaker.observe_only(),
        Step::Reset => breaker.reset(),
        Step::OpenUntil(left) => breaker.open_until(now.saturating_add(ticks(left))),
        Step::OpenForEver => breaker.open_until(Instant::MAX),
        Step::HalfOpen => breaker.half_open(&now),
        _ => unreachable!("{step:?} is nothing by hand"),
    }
}

type Breaker<'l, T> = CircuitBreaker<Live<Local>, T, &'l Log>;

impl<T: Finite> InUse<T> {
    fn config(&self, settings: usize) -> Config<T> {
        self.settings[settings].get()
    }

    fn breaker<'l>(&self, moment: &Moment<T::Meter>, log: &'l Log) -> Breaker<'l, T> {
        let breaker = Breaker::with_observer(self.settings[moment.settings], log);
        breaker.cell.update(|state| *state = moment.breaker);
        breaker
    }

    /// Counts time and generations from now again.
    fn canonical(&self, mut moment: Moment<T::Meter>) -> Moment<T::Meter> {
        let Moment { breaker, now, out, calls, .. } = &mut moment;
        if T::count(calls, *now).is_none() {
            calls.clear();
        }
        let by = (now.as_nanos() - NOW) / T::PERIOD * T::PERIOD;
        let earliest = now.as_nanos() - LONG_AGO * TICK;
        let earlier = |at: Instant| match at {
            Instant::MAX => at,
            at => Instant::from_nanos(at.as_nanos().max(earliest) - by),
        };
        let (phase, generation) = (breaker.stamp().phase(), breaker.stamp().generation());
        let timed = self.config(0).is_timed();
        if matches!(phase, Phase::OPEN | Phase::HALF_OPEN) {
            let until = earlier(breaker.end());
            breaker.meter = T::Meter::FRESH;
            breaker.meter.keep(until);
        } else {
            breaker.meter = T::earlier(breaker.meter, by, *now);
        }
        breaker.reopened = breaker.reopened.min(2);
        breaker.stamp = Stamp::new(phase, NEWEST);
        for ticket in out.iter_mut() {
            let age = if ticket.stamp().generation() == generation { 0 } else { 1 };
            // Where nobody asks how long a call took, it doesn't matter when it began.
            let started = if timed { u64::MAX - ticket.took(Instant::MAX).as_nanos() } else { u64::MAX };
            *ticket =
                Ticket::new(Stamp::new(ticket.stamp().phase(), NEWEST - age), earlier(Instant::from_nanos(started)));
        }
        for call in calls {
            // Where it matters when it was, it is not long ago.
            call.at = if T::PERIOD == TICK { Instant::START } else { earlier(call.at) };
        }
        *now = Instant::from_nanos(now.as_nanos() - by);
        out.sort_by_key(|ticket| ticket_words(*ticket));
        moment
    }
}

fn place(phase: Phase) -> u64 {
    PHASES.iter().position(|&other| other == phase).expect("it is one of them") as u64
}

fn ticket_words(ticket: Ticket) -> [u64; 3] {
    let stamp = ticket.stamp();
    [place(stamp.phase()), stamp.generation().into(), ticket.took(Instant::MAX).as_nanos()]
}

impl<T: Finite> System for InUse<T> {
    type State = Moment<T::Meter>;
    type Key = (Vec<u64>, Vec<Call>);
    type Step = Step;

    fn start(&self) -> Self::State {
        let (breaker, now) = (State::FRESH, Instant::from_nanos(NOW));
        self.canonical(Moment {
            breaker,
            settings: 0,
            now,
            out: Vec::new(),
            visit: Visit::default(),
            calls: Vec::new(),
        })
    }

    fn key(&self, moment: &Self::State) -> Self::Key {
        let Moment { breaker, settings, now, out, visit, calls } = moment;
        let mut key = if breaker.end() == Instant::MAX { T::words(&breaker.meter) } else { Vec::new() };
        key.extend([place(breaker.stamp().phase()), breaker.end().as_nanos(), breaker.reopened.into()]);
        key.extend([u64::from(breaker.in_flight), breaker.trial.0.into(), *settings as u64, now.as_nanos()]);
        key.extend([u64::from(visit.leaked), visit.good.into()]);
        key.extend(out.iter().flat_map(|ticket| ticket_words(*ticket)));
        (key, calls.clone())
    }

    fn steps(&self, moment: &Self::State) -> Vec<Step> {
        let mut steps = Vec::from([Step::Wait, Step::HandleTimeout]);
        if moment.out.len() < self.permits {
            steps.push(Step::Acquire);
        }
        for (place, ticket) in moment.out.iter().enumerate() {
            if place > 0 && ticket_words(*ticket) == ticket_words(moment.out[place - 1]) {
                continue;
            }
            let counts = moment.is_current(*ticket) && moment.breaker.stamp().phase() < Phase::DISABLED;
            let has_room = |failed| !counts || T::has_room(&moment.breaker.meter, failed);
            let told = self.told.iter().filter(|told| match told.verdict().outcome() {
                Outcome::Ignored => true,
                outcome => has_room(outcome == Outcome::Failure),
            });
            steps.extend(told.map(|told| Step::Report(place, *told)));
            if has_room(true) {
                steps.push(Step::Drop(place));
            }
            if self.leaks {
                steps.push(Step::Forget(place));
            }
        }
        for &hand in self.meanwhile {
            let during = |step: &Step| match *step {
                Step::Acquire => Some(Step::AcquireDuring(hand)),
                Step::Report(place, told) => Some(Step::ReportDuring(place, told, hand)),
                _ => None,
            };
            let more: Vec<_> = steps.iter().filter_map(during).collect();
            steps.extend(more);
        }
        steps.extend(self.by_hand);
        steps.extend((0..self.settings.len()).filter(|&to| to != moment.settings).map(Step::Reconfigure));
        steps
    }

    fn step(&self, before: &Self::State, step: Step) -> Self::State {
        let (log, mut after, mut rejected) = (Log::default(), before.clone(), None);
        let breaker = self.breaker(before, &log);
        let now = before.now;
        let permit = |ticket: Ticket| Permit { breaker: &breaker, ticket, clock: now };
        match step {
            Step::Acquire => match breaker.try_acquire(now) {
                Ok(permit) => {
                    after.out.push(permit.ticket);
                    forget(permit);
                }
                Err(because) => rejected = Some(because),
            },
            Step::Report(place, told) => permit(after.out.remove(place)).record(told.verdict()),
            Step::Drop(place) => drop(permit(after.out.remove(place))),
            Step::Forget(place) => {
                let ticket = after.out.remove(place);
                after.visit.leaked += u32::from(before.is_current(ticket) && ticket.is_probe());
            }
            Step::Wait => after.now = Instant::from_nanos(now.as_nanos() + TICK),
            Step::HandleTimeout => breaker.handle_timeout(&now),
            Step::Reconfigure(to) => {
                breaker.reconfigure(self.settings[to], &now);
                after.settings = to;
            }
            Step::AcquireDuring(hand) => return self.race(before, Step::Acquire, hand),
            Step::ReportDuring(place, told, hand) => return self.race(before, Step::Report(place, told), hand),
            step => do_by_hand(&breaker, step, now),
        }
        after.breaker = breaker.peek();
        if after.generation() != before.generation() {
            after.visit = Visit::default();
            after.calls.clear();
        }
        let (events, called) = (log.events.take(), log.called.take());
        let config = self.config(after.settings);
        let done = Done { config: &config, before, step, after: &after, events: &events, called: &called };
        let visit = done.visit();
        done.check_events();
        match step {
            Step::Acquire => {
                done.check_acquired(rejected);
                if let Some(at) = rejected.and_then(|rejected| rejected.retry_at()) {
                    self.check_retry_at(&after, at);
                }
            }
            Step::Report(..) | Step::Drop(_) => done.check_report(),
            Step::Forget(_) | Step::Wait => {
                assert!(after.breaker == before.breaker && events.is_empty());
            }
            _ => {}
        }
        let call = done.call();
        (after.visit, after.calls) = (visit, [after.calls, call.into_iter().collect()].concat());
        self.canonical(after)
    }

    fn check(&self, moment: &Self::State) {
        let (log, Moment { breaker, now, visit, .. }) = (Log::default(), moment);
        let snapshot = self.breaker(moment, &log).snapshot(now);
        let (kind, until) = (breaker.kind(), breaker.until());
        assert_eq!((snapshot.state, snapshot.until), (kind, until));
        let has_deadline = matches!(kind, StateKind::Open | StateKind::HalfOpen);
        assert!(has_deadline || (until.is_none() && breaker.reopened == 0), "a deadline that is none");
        if kind == StateKind::HalfOpen {
            assert_eq!(snapshot.probes, moment.probes_out() + visit.leaked, "probes that are out");
            assert_eq!(snapshot.counts, visit.reported, "probes that have reported");
            let config = self.config(moment.settings);
            assert!(until.is_some() || config.waits_for_ever(), "half-open for ever");
            if self.settings.len() == 1 {
                config.check_probes(snapshot.probes, snapshot.counts.calls);
            }
        } else {
            assert_eq!((snapshot.probes, breaker.trial), (0, Trial::FRESH));
        }
        if matches!(kind, StateKind::Closed | StateKind::MetricsOnly)
            && let Some(counts) = T::count(&mut moment.calls.clone(), *now)
        {
            assert_eq!(snapshot.counts, counts, "what has been counted");
        }
        if matches!(kind, StateKind::Isolated | StateKind::Disabled) {
            assert_eq!(breaker.meter, T::Meter::FRESH, "counts that nobody counts");
        }
        let admits_none = matches!(kind, StateKind::Isolated | StateKind::Open);
        assert!(!admits_none || moment.out.iter().all(|ticket| !moment.is_current(*ticket)));
        T::check_packing(*breaker);
    }

    fn is_home(&self, moment: &Self::State) -> bool {
        moment.breaker.kind() == StateKind::Closed || moment.is_held_by_hand()
    }

    fn leads_home(&self, step: Step) -> bool {
        matches!(step, Step::Acquire | Step::Report(_, Told::Success) | Step::Wait)
    }
}

impl<T: Finite> InUse<T> {
    /// What another one does while a caller reads the clock, comes before or after what the caller does: nothing in between.
    fn race(&self, before: &Moment<T::Meter>, step: Step, hand: Hand) -> Moment<T::Meter> {
        let (log, mut after, now) = (Log::default(), before.clone(), before.now);
        let breaker = self.breaker(before, &log);
        let clock = Meddling { now, breaker: &breaker, hand: Cell::new(Some(hand)) };
        // By hand a new generation begins: whoever reports after that is late.
        let mut without = before.clone();
        let late = match step {
            Step::Report(place, told) => {
                let permit = Permit { breaker: &breaker, ticket: after.out.remove(place), clock: &clock };
                permit.record(told.verdict());
                without.out.remove(place);
                self.step(&without, hand.step())
            }
            _ => {
                if let Ok(permit) = breaker.try_acquire(&clock) {
                    after.out.push(permit.ticket);
                    forget(permit);
                }
                self.step(&self.step(before, hand.step()), step)
            }
        };
        // Whoever did not read it was done by then.
        clock.now();
        (after.breaker, after.visit, after.calls) = (breaker.peek(), Visit::default(), Vec::new());
        let generations = log.events.take().iter().map(|event| event.generation).collect::<Vec<_>>();
        assert!(generations.windows(2).all(|pair| (pair[0] + 1) % GENERATIONS == pair[1]), "each change, in order");
        let after = self.canonical(after);
        let in_time = self.step(&self.step(before, step), hand.step());
        let key = self.key(&after);
        assert!(key == self.key(&in_time) || key == self.key(&late), "neither before nor after the other");
        if key == self.key(&late) { late } else { in_time }
    }

    /// A rejected call that comes back when it was told to is admitted, or finds another state; before that it need not try.
    fn check_retry_at(&self, moment: &Moment<T::Meter>, at: Instant) {
        assert!(at > moment.now, "come back now");
        let comes_back = |at: u64| {
            let log = Log::default();
            let admitted = self.breaker(moment, &log).try_acquire(Instant::from_nanos(at)).map(forget).is_ok();
            admitted || !log.events.take().is_empty()
        };
        assert!(!comes_back(at.as_nanos() - 1), "a nanosecond before its time");
        assert!(comes_back(at.as_nanos()), "at its time");
    }
}

const TWICE: ConsecutiveFailures = valid!(ConsecutiveFailures::new(2));

/// Opens after 2 failures in a row, for 2 ticks; closes after 2 good ones of 3 probes, 2 at once, within 3 ticks.
const fn base() -> Config {
    Config::new()
        .with_trip(TWICE)
        .with_open_for(ticks(2))
        .with_trials(2, 3)
        .with_probes_at_once(2)
        .with_half_open_for(ticks(3))
}

#[test]
fn consecutive_failures() {
    let settings = const { &[valid!(base().validate())] };
    explore(
        "breaker, consecutive failures",
        6_400,
        &InUse { settings, permits: 4, leaks: true, told: PLAIN, by_hand: &[], meanwhile: &[] },
    );
}

#[test]
fn by_hand() {
    let settings = const { &[valid!(base().validate())] };
    explore(
        "breaker, by hand",
        15_000,
        &InUse { settings, permits: 3, leaks: true, told: PLAIN, by_hand: HANDS, meanwhile: &[] },
    );
}

#[test]
fn by_hand_meanwhile() {
    let settings = const { &[valid!(base().validate())] };
    let told = &[Told::Success, Told::Failure, Told::Ignore, Told::Ban];
    let meanwhile = &[Hand::Reset, Hand::HalfOpen, Hand::Isolate];
    explore("breaker, meanwhile", 2_100, &InUse { settings, permits: 3, leaks: false, told, by_hand: &[], meanwhile });
}

#[test]
fn every_verdict() {
    let settings = const { &[valid!(base().validate())] };
    let by_hand = &[Step::ObserveOnly, Step::Reset];
    explore(
        "breaker, every verdict",
        13_000,
        &InUse { settings, permits: 3, leaks: false, told: ALL, by_hand, meanwhile: &[] },
    );
}

#[test]
fn full_trial() {
    let settings = const { &[valid!(base().with_full_trial().validate())] };
    explore(
        "breaker, full trial",
        8_200,
        &InUse { settings, permits: 4, leaks: true, told: PLAIN, by_hand: &[], meanwhile: &[] },
    );
}

#[test]
fn half_open_as_long_as_open() {
    let settings =
        const { &[valid!(Config::new().with_trip(TWICE).with_open_for(ticks(2)).with_probes(2).validate())] };
    explore(
        "breaker, defaults",
        2_700,
        &InUse { settings, permits: 4, leaks: true, told: PLAIN, by_hand: &[], meanwhile: &[] },
    );
}

#[test]
fn no_half_open_deadline() {
    // Whoever leaks a probe then waits for ever, and is told so.
    let settings = const { &[valid!(base().without_half_open_deadline().validate())] };
    explore(
        "breaker, no deadline",
        620,
        &InUse { settings, permits: 4, leaks: false, told: PLAIN, by_hand: &[], meanwhile: &[] },
    );
}

#[test]
fn no_open_period() {
    let settings = const { &[valid!(base().with_open_for(Duration::ZERO).validate())] };
    explore(
        "breaker, no open period",
        6_300,
        &InUse { settings, permits: 4, leaks: true, told: PLAIN, by_hand: &[], meanwhile: &[] },
    );
}

#[test]
fn growing_open_periods() {
    const PERIODS: Backoff = Backoff::table(&[ticks(1), ticks(3), ticks(2)]);
    let settings = const { &[valid!(valid!(base().with_open_backoff(PERIODS, 0)).validate())] };
    let by_hand = &[Step::HalfOpen];
    explore(
        "breaker, growing periods",
        3_900,
        &InUse { settings, permits: 3, leaks: true, told: PLAIN, by_hand, meanwhile: &[] },
    );
}

#[test]
fn abandoned_calls() {
    let settings = const { &[valid!(base().with_abandoned(Abandoned::FailureAfter(ticks(1))).validate())] };
    let told = &[Told::Success, Told::Failure];
    explore(
        "breaker, abandoned calls",
        13_000,
        &InUse { settings, permits: 3, leaks: true, told, by_hand: &[], meanwhile: &[] },
    );
}

#[test]
fn other_settings() {
    const STRICT: Config = Config::new().with_trip(valid!(ConsecutiveFailures::new(1))).with_open_for(ticks(1));
    let settings = const {
        &[
            valid!(base().validate()),
            valid!(STRICT.with_probes(1).validate()),
            valid!(base().with_trials(1, 2).with_full_trial().validate()),
        ]
    };
    let by_hand = &[Step::HalfOpen];
    explore(
        "breaker, other settings",
        8_600,
        &InUse { settings, permits: 3, leaks: true, told: PLAIN, by_hand, meanwhile: &[] },
    );
}

#[test]
fn failure_rate() {
    const RATE: FailureRate = valid!(valid!(FailureRate::new(Ratio::percent(50), 3)).with_minimum_calls(2));
    let settings = const { &[valid!(base().with_trip(RATE).validate())] };
    let by_hand = &[Step::ObserveOnly, Step::Reset];
    explore(
        "breaker, failure rate",
        10_000,
        &InUse { settings, permits: 3, leaks: true, told: PLAIN, by_hand, meanwhile: &[] },
    );
}

#[test]
fn failure_meter() {
    let settings = const { &[valid!(base().with_trip(valid!(FailureMeter::new(2, ticks(4)))).validate())] };
    let by_hand = &[Step::ObserveOnly, Step::Reset];
    explore(
        "breaker, failure meter",
        10_000,
        &InUse { settings, permits: 3, leaks: true, told: PLAIN, by_hand, meanwhile: &[] },
    );
}

#[test]
fn count_based_window_with_slow_calls() {
    const WINDOW: CountBased<1> =
        valid!(valid!(CountBased::new(Ratio::ONE, 2)).with_slow_rate(Ratio::percent(50), ticks(1)));
    let settings = const { &[valid!(base().with_trip(WINDOW).validate())] };
    let told = &[Told::Success, Told::Failure];
    explore(
        "breaker, window of calls",
        12_000,
        &InUse { settings, permits: 2, leaks: false, told, by_hand: &[], meanwhile: &[] },
    );
}

#[test]
fn time_based_window() {
    const WINDOW: TimeBased<2> = valid!(valid!(TimeBased::new(Ratio::percent(60), ticks(4))).with_minimum_calls(2));
    let settings = const { &[valid!(base().with_trip(WINDOW).validate())] };
    explore(
        "breaker, window of time",
        8_100,
        &InUse { settings, permits: 3, leaks: false, told: PLAIN, by_hand: &[], meanwhile: &[] },
    );
}

#[test]
fn two_conditions() {
    const BOTH: (ConsecutiveFailures, FailureMeter) = (TWICE, valid!(FailureMeter::new(2, ticks(4))));
    let settings = const { &[valid!(base().with_trip(BOTH).validate())] };
    let by_hand = &[Step::ObserveOnly, Step::Reset];
    explore(
        "breaker, two conditions",
        11_000,
        &InUse { settings, permits: 3, leaks: true, told: PLAIN, by_hand, meanwhile: &[] },
    );
}
