//! A breaker written as plainly as possible, which shares no code with the real one, and follows it through random scripts.
//!
//! It keeps every outcome since its state began and judges the whole list each time; its times are `u128` nanoseconds. Where
//! the real breaker draws jitter, the oracle checks the bounds and takes over the value.

use core::time::Duration;
use std::boxed::Box;
use std::collections::VecDeque;
use std::format;
use std::string::String;
use std::vec::Vec;

use super::{CENTURY, HOUR, SECOND, assert_packs, verdict};
use crate::backoff::{Backoff, Jitter};
use crate::cell::Local;
use crate::circuit_breaker::{
    Abandoned, CircuitBreaker, Config, ConsecutiveFailures, FailureMeter, FailureRate, Growing, PackedMeter, Permit,
    State, StateKind, Transition, Trip,
};
use crate::outcome::Verdict;
use crate::testing::{ManualClock, Recorder};
use crate::{Clock, Instant, Ratio, Reason, Rng};

/// A trip condition in the oracle's own words.
#[derive(Clone, Debug)]
enum Rule {
    Consecutive { threshold: usize },
    Rate { percent: usize, window: usize, minimum: usize },
    Meter { failures: u128, period: Duration },
    Either(Box<Self>, Box<Self>),
}

/// The meter's unit of time, to which it rounds down.
const UNIT: u128 = 1 << 16;

/// Failed or not, and when.
type Outcomes = [(bool, u128)];

impl Rule {
    fn is_met(&self, outcomes: &Outcomes) -> bool {
        match *self {
            Self::Consecutive { threshold } => trailing_failures(outcomes) >= threshold,
            Self::Rate { percent, window, minimum } => {
                let last = &outcomes[outcomes.len().saturating_sub(window)..];
                last.len() >= minimum && failures(last) * 100 >= percent * last.len()
            }
            // A success says nothing to it, and so finds nothing.
            Self::Meter { failures, .. } => match outcomes.last() {
                Some(&(true, now)) => self.level(outcomes, now) > failures * self.interval(),
                _ => false,
            },
            Self::Either(ref one, ref other) => one.is_met(outcomes) || other.is_met(outcomes),
        }
    }

    fn ignores_success(&self) -> bool {
        match *self {
            Self::Consecutive { .. } | Self::Rate { .. } => false,
            Self::Meter { .. } => true,
            Self::Either(ref one, ref other) => one.ignores_success() && other.ignores_success(),
        }
    }

    /// Calls and failures, as they are shown; a meter's are not known without the time.
    fn counts(&self, outcomes: &Outcomes, now: Option<u128>) -> (usize, usize) {
        match *self {
            Self::Consecutive { .. } => (trailing_failures(outcomes), trailing_failures(outcomes)),
            Self::Rate { window, .. } => {
                let last = &outcomes[outcomes.len().saturating_sub(window)..];
                (last.len(), failures(last))
            }
            Self::Meter { failures, .. } => {
                let level = now.map_or(0, |now| self.level(outcomes, now).div_ceil(self.interval()).min(failures + 1));
                (level as usize, level as usize)
            }
            Self::Either(ref one, _) => one.counts(outcomes, now),
        }
    }

    /// The time that one failure takes to drain, in units.
    fn interval(&self) -> u128 {
        match self {
            Self::Meter { failures, period } => period.as_nanos() / UNIT / failures,
            _ => unreachable!("only a meter has one"),
        }
    }

    /// How full the bucket of failures is at this time, in units of time that it will take to drain.
    fn level(&self, outcomes: &Outcomes, now: u128) -> u128 {
        let Self::Meter { failures, .. } = self else { return 0 };
        let full = failures * self.interval();
        let (mut level, mut last) = (0, 0);
        for &(failed, time) in outcomes {
            if failed {
                level = drained(level, last, time / UNIT).min(full) + self.interval();
                last = time / UNIT;
            }
        }
        drained(level, last, now / UNIT)
    }
}

/// What is left of a level; where the clock went back, the time to drain is as much longer.
fn drained(level: u128, last: u128, now: u128) -> u128 {
    if now < last { level + (last - now) } else { level.saturating_sub(now - last) }
}

fn failures(outcomes: &Outcomes) -> usize {
    outcomes.iter().filter(|(failed, _)| *failed).count()
}

fn trailing_failures(outcomes: &Outcomes) -> usize {
    outcomes.iter().rev().take_while(|(failed, _)| *failed).count()
}

/// The rest of the configuration.
#[derive(Clone, Debug)]
struct Knobs {
    successes: u32,
    trials: u32,
    probes: u32,
    half_open_for: Option<Duration>,
    period: Duration,
    doubling_up_to: Duration,
    jitter_percent: u128,
    abandoned: Abandoned,
}

impl Knobs {
    /// Closes after one of one probe; open and half-open for 10 s.
    const PLAIN: Self = Self {
        successes: 1,
        trials: 1,
        probes: 1,
        half_open_for: None,
        period: Duration::from_secs(10),
        doubling_up_to: Duration::from_secs(10),
        jitter_percent: 0,
        abandoned: Abandoned::Ignored,
    };

    fn config<T: Copy + Trip>(&self, trip: T, seed: u64) -> Config<Growing<T>> {
        let jitter = match self.jitter_percent {
            0 => Jitter::None,
            percent => Jitter::Proportional(Ratio::percent(percent as u32)),
        };
        let periods = Backoff::exponential(self.period).with_cap(self.doubling_up_to).with_jitter(jitter);
        let config = Config::new()
            .with_trip(trip)
            .with_trials(self.successes, self.trials)
            .with_probes_at_once(self.probes)
            .with_abandoned(self.abandoned)
            .with_open_backoff(periods, seed)
            .expect("good periods");
        self.half_open_for.map_or(config, |deadline| config.with_half_open_for(deadline))
    }
}

/// What the breaker is expected to tell.
#[derive(Debug, Eq, PartialEq)]
struct Told {
    from: StateKind,
    to: StateKind,
    generation: u64,
    counts: (usize, usize),
    until: Option<u128>,
}

/// What the oracle keeps of a permit.
#[derive(Clone, Copy, Debug)]
struct Slip {
    generation: u64,
    probe: bool,
    since: u128,
}

struct Oracle {
    rule: Rule,
    knobs: Knobs,
    state: StateKind,
    generation: u64,
    outcomes: Vec<(bool, u128)>,
    /// In metrics only: whether the last outcome met the condition.
    met: bool,
    /// In open and half-open; `None` is "never".
    until: Option<u128>,
    reopened: u32,
    out: u32,
    told: Vec<Told>,
    /// All that has been told so far.
    changes: Vec<(StateKind, StateKind)>,
    /// The ends of the periods that the real breaker has announced, for the jitter in them.
    announced: VecDeque<Option<u128>>,
}

impl Oracle {
    fn new(rule: Rule, knobs: Knobs) -> Self {
        Self {
            rule,
            knobs,
            state: StateKind::Closed,
            generation: 0,
            outcomes: Vec::new(),
            met: false,
            until: None,
            reopened: 0,
            out: 0,
            told: Vec::new(),
            changes: Vec::new(),
            announced: VecDeque::new(),
        }
    }

    fn counts(&self, now: Option<u128>) -> (usize, usize) {
        match self.state {
            StateKind::Closed | StateKind::MetricsOnly => self.rule.counts(&self.outcomes, now),
            StateKind::HalfOpen => (self.outcomes.len(), failures(&self.outcomes)),
            StateKind::Open | StateKind::Isolated | StateKind::Disabled => (0, 0),
        }
    }

    fn enter(&mut self, state: StateKind, until: Option<u128>, now: Option<u128>) {
        let (from, counts) = (self.state, self.counts(now));
        self.generation += 1;
        self.told.push(Told { from, to: state, generation: self.generation % 4_096, counts, until });
        (self.state, self.until) = (state, until);
        self.outcomes.clear();
        (self.met, self.out) = (false, 0);
    }

    /// The end of a period that begins now: the announced one, when it is within the bounds.
    fn end_of_period(&mut self, reopened: u32, hint: Option<Duration>, from: u128) -> Option<u128> {
        let mut period = self.knobs.period.as_nanos();
        let cap = self.knobs.doubling_up_to.as_nanos();
        for _ in 0..reopened {
            period = (period * 2).min(cap);
        }
        let spread = period * self.knobs.jitter_percent / 100;
        let hint = hint.map_or(0, |hint| hint.as_nanos());
        let earliest = from + (period - spread).max(hint);
        let latest = from + (period + spread).min(cap).max(hint);
        let announced = self.announced.pop_front().flatten();
        let end = announced.filter(|end| (earliest..=latest).contains(end)).unwrap_or(earliest);
        (end < u128::from(u64::MAX)).then_some(end)
    }

    fn open(&mut self, reopened: u32, hint: Option<Duration>, from: u128, now: u128) {
        let until = self.end_of_period(reopened, hint, from);
        self.enter(StateKind::Open, until, Some(now));
        self.reopened = reopened;
    }

    fn time_passes(&mut self, now: u128) {
        let Some(until) = self.until.filter(|until| now >= *until) else { return };
        match self.state {
            StateKind::Open => {
                let until = match self.knobs.half_open_for {
                    Some(span) => Some(now + span.as_nanos()).filter(|end| *end < u128::from(u64::MAX)),
                    None => self.end_of_period(self.reopened, None, now),
                };
                self.enter(StateKind::HalfOpen, until, Some(now));
            }
            StateKind::HalfOpen => self.open(self.reopened + 1, None, until, now),
            _ => {}
        }
    }

    fn acquire(&mut self, now: u128) -> Result<Slip, (Reason, Option<u128>)> {
        // A deadline long past leads to open and, when that is over too, to half-open.
        self.time_passes(now);
        self.time_passes(now);
        let probe = match self.state {
            StateKind::Closed | StateKind::Disabled | StateKind::MetricsOnly => false,
            StateKind::Isolated => return Err((Reason::Isolated, None)),
            StateKind::Open => return Err((Reason::Open, self.until)),
            StateKind::HalfOpen => {
                if self.out == self.knobs.probes || self.out + self.outcomes.len() as u32 == self.knobs.trials {
                    return Err((Reason::ProbesOut, self.until));
                }
                self.out += 1;
                true
            }
        };
        Ok(Slip { generation: self.generation, probe, since: now })
    }

    fn settle(&mut self, slip: Slip, failed: Option<bool>, hint: Option<Duration>, now: u128) {
        if slip.generation != self.generation {
            return;
        }
        if slip.probe {
            self.out -= 1;
        }
        let Some(failed) = failed else { return };
        if self.state == StateKind::HalfOpen && self.until.is_some_and(|until| now >= until) {
            self.time_passes(now);
            return;
        }
        match self.state {
            StateKind::Closed => {
                self.outcomes.push((failed, now));
                if self.rule.is_met(&self.outcomes) {
                    self.open(0, hint, now, now);
                }
            }
            StateKind::HalfOpen => {
                self.outcomes.push((failed, now));
                let bad = failures(&self.outcomes) as u32;
                if self.outcomes.len() as u32 - bad >= self.knobs.successes {
                    self.enter(StateKind::Closed, None, Some(now));
                } else if self.knobs.trials - bad < self.knobs.successes {
                    self.open(self.reopened + 1, hint, now, now);
                }
            }
            // What says nothing to the rule does not change what it has said.
            StateKind::MetricsOnly if !failed && self.rule.ignores_success() => {}
            StateKind::MetricsOnly => {
                self.outcomes.push((failed, now));
                let (before, after) = (self.met, self.rule.is_met(&self.outcomes));
                if after && !before {
                    let (generation, counts) = (self.generation % 4_096, self.counts(Some(now)));
                    self.told.push(Told { from: self.state, to: StateKind::Open, generation, counts, until: None });
                }
                self.met = after;
            }
            StateKind::Open | StateKind::Isolated | StateKind::Disabled => {}
        }
    }

    fn abandon(&mut self, slip: Slip, now: u128) {
        let failed = match self.knobs.abandoned {
            Abandoned::Ignored => false,
            Abandoned::Failure => true,
            Abandoned::FailureAfter(limit) => now > slip.since + limit.as_nanos(),
        };
        self.settle(slip, failed.then_some(true), None, now);
    }

    fn force(&mut self, state: StateKind, until: Option<u128>) {
        self.enter(state, until, None);
        self.reopened = 0;
    }
}

fn nanos(instant: Instant) -> u128 {
    instant.as_nanos().into()
}

fn told(event: &Transition) -> Told {
    Told {
        from: event.from,
        to: event.to,
        generation: event.generation.into(),
        counts: (event.counts.calls as usize, event.counts.failures as usize),
        until: event.until.map(nanos),
    }
}

const STEPS: u32 = 4_000;
const SEEDS: u64 = 5;
/// Permits that are kept open at once, to be spent late.
const HELD: usize = 12;

type Events = Recorder<Transition, 8>;
type Breaker<'a, T> = CircuitBreaker<Local, Growing<T>, &'a Events>;
type Held<'a, T> = Permit<'a, Local, Growing<T>, &'a Events, &'a ManualClock>;

/// Breaker and oracle side by side.
struct Run<'a, T: Copy + Trip> {
    breaker: &'a Breaker<'a, T>,
    clock: &'a ManualClock,
    events: &'a Events,
    oracle: Oracle,
    held: Vec<(Held<'a, T>, Slip)>,
    random: Rng,
    /// The failures among 100 calls, for the time being.
    failing: u32,
    told: Vec<Told>,
    seed: u64,
    step: u32,
}

/// Runs breaker and oracle side by side through random scripts. `check` sees the states before and after each step.
fn compare<T: Copy + Trip>(rule: &Rule, trip: T, knobs: &Knobs, check: fn(State<T::Meter>, State<T::Meter>)) {
    let mut changes = Vec::new();
    for seed in 0..SEEDS {
        let (clock, events) = (ManualClock::new(), Events::new());
        let config = knobs.config(trip, seed).validate().expect("a good configuration");
        let breaker = Breaker::with_observer(config, &events);
        let mut run = Run {
            breaker: &breaker,
            clock: &clock,
            events: &events,
            oracle: Oracle::new(rule.clone(), knobs.clone()),
            held: Vec::new(),
            random: Rng::new(seed),
            failing: 0,
            told: Vec::new(),
            seed,
            step: 0,
        };
        for step in 0..STEPS {
            let before = breaker.peek();
            run.step(step);
            check(before, breaker.peek());
        }
        changes.append(&mut run.oracle.changes);
    }
    // Scripts that never got anywhere have tested nothing.
    use StateKind::{Closed, HalfOpen, MetricsOnly, Open};
    for change in [(Closed, Open), (Open, HalfOpen), (HalfOpen, Closed), (HalfOpen, Open), (MetricsOnly, Open)] {
        assert!(changes.contains(&change), "{change:?} never happened: {rule:?}, {knobs:?}");
    }
}

impl<T: Copy + Trip> Run<'_, T> {
    fn below(&mut self, limit: u32) -> u32 {
        self.random.next() % limit
    }

    fn now(&self) -> u128 {
        nanos(self.clock.now())
    }

    fn place(&self) -> String {
        format!("seed {}, step {}, {:?}, {:?}", self.seed, self.step, self.oracle.rule, self.oracle.knobs)
    }

    fn step(&mut self, step: u32) {
        self.step = step;
        if step.is_multiple_of(100) {
            self.failing = [2, 20, 50, 95][self.below(4) as usize];
        }
        self.let_time_pass(step);
        match self.below(1_000) {
            0..450 if self.held.len() < HELD => self.acquire(),
            0..920 if !self.held.is_empty() => self.settle(),
            920..985 => self.handle_timeout(),
            985.. => self.change_by_hand(),
            _ => {}
        }
        self.assert_same();
    }

    /// Mostly a little, often to where something is due, now and then far, and seldom back.
    fn let_time_pass(&mut self, step: u32) {
        let nanos = u64::from(self.random.next());
        let due = self.oracle.until.and_then(|until| u64::try_from(until).ok()).unwrap_or(0);
        match self.below(1_000) {
            0..300 => {}
            300..700 => self.clock.advance(Duration::from_nanos(nanos / 8)),
            700..860 => self.clock.advance(Duration::from_nanos(nanos * 2)),
            860..920 if due > self.clock.now().as_nanos() => self.clock.set(Instant::from_nanos(due - 1)),
            920..985 if due > self.clock.now().as_nanos() => self.clock.set(Instant::from_nanos(due)),
            985..990 => self.clock.advance(HOUR),
            990..992 => self.clock.set(Instant::from_nanos(self.clock.now().as_nanos().saturating_sub(nanos * 1_000))),
            _ if step == STEPS / 2 => self.clock.advance(CENTURY),
            _ => {}
        }
    }

    /// The breaker has acted: its events are kept, and the oracle learns what came of its jitter.
    fn breaker_has_acted(&mut self) {
        self.told = self.events.take().map(|event| told(&event)).collect();
        self.oracle.announced = self.told.iter().filter(|told| told.to != told.from).map(|told| told.until).collect();
    }

    fn acquire(&mut self) {
        let permit = self.breaker.try_acquire(self.clock);
        self.breaker_has_acted();
        let expected = self.oracle.acquire(self.now());
        let actual = match &permit {
            Ok(permit) => Ok(permit.is_probe()),
            Err(rejected) => Err((rejected.reason(), rejected.retry_at().map(nanos))),
        };
        assert_eq!(actual, expected.map(|slip| slip.probe), "admission, {}", self.place());
        self.held.extend(permit.ok().zip(expected.ok()));
    }

    fn settle(&mut self) {
        let choice = self.below(self.held.len() as u32) as usize;
        let (permit, slip) = self.held.swap_remove(choice);
        let hint = [None, None, Some(SECOND), Some(25 * SECOND)][self.below(4) as usize];
        let hinted = |verdict: Verdict| hint.map_or(verdict, |hint| verdict.with_retry_after(hint));
        let now = self.now();
        match self.below(100) {
            0..6 => {
                drop(permit);
                self.breaker_has_acted();
                self.oracle.abandon(slip, now);
            }
            6..10 => {
                permit.record(hinted(Verdict::IGNORED));
                self.breaker_has_acted();
                self.oracle.settle(slip, None, hint, now);
            }
            _ => {
                let failed = self.below(100) < self.failing;
                permit.record(hinted(verdict(failed)));
                self.breaker_has_acted();
                self.oracle.settle(slip, Some(failed), hint, now);
            }
        }
    }

    fn handle_timeout(&mut self) {
        self.breaker.handle_timeout(self.clock);
        self.breaker_has_acted();
        self.oracle.time_passes(self.now());
    }

    fn change_by_hand(&mut self) {
        let (state, until) = match self.below(8) {
            0 => (StateKind::Isolated, None),
            1 => (StateKind::Disabled, None),
            2 => (StateKind::MetricsOnly, None),
            3 => (StateKind::Open, Some(self.now() + u128::from(self.random.next()))),
            _ => (StateKind::Closed, None),
        };
        match (state, until) {
            (StateKind::Isolated, _) => self.breaker.isolate(),
            (StateKind::Disabled, _) => self.breaker.disable(),
            (StateKind::MetricsOnly, _) => self.breaker.observe_only(),
            (_, Some(until)) => self.breaker.open_until(Instant::from_nanos(until as u64)),
            _ => self.breaker.reset(),
        }
        self.breaker_has_acted();
        self.oracle.force(state, until);
    }

    fn assert_same(&mut self) {
        let (actual, oracle) = (self.breaker.snapshot(self.clock), &self.oracle);
        let counts = (actual.counts.calls as usize, actual.counts.failures as usize);
        assert_eq!(self.told, oracle.told, "events, {}", self.place());
        assert_eq!(actual.state, oracle.state, "state, {}", self.place());
        assert_eq!(u64::from(actual.generation), oracle.generation % 4_096, "generation, {}", self.place());
        assert_eq!(actual.until.map(nanos), oracle.until, "until, {}", self.place());
        assert_eq!(actual.probes, oracle.out, "probes, {}", self.place());
        assert_eq!(counts, oracle.counts(Some(self.now())), "counts, {}", self.place());
        for told in self.oracle.told.drain(..) {
            self.oracle.changes.push((told.from, told.to));
        }
        self.told.clear();
    }
}

/// A tail may change only together with the head, or a lock-free cell would mix two states.
fn packs<M: PackedMeter + PartialEq + core::fmt::Debug>(before: State<M>, after: State<M>) {
    use crate::cell::Packed;
    assert_packs(after);
    let (before, after) = (before.pack(), after.pack());
    assert!(before.1 == after.1 || before.0 != after.0, "{before:?} to {after:?}");
}

fn percent(percent: usize, window: usize, minimum: usize) -> (Rule, FailureRate) {
    let rate = FailureRate::new(Ratio::percent(percent as u32), window as u32).expect("a good rate");
    let trip = rate.with_minimum_calls(minimum as u32).expect("a good minimum");
    (Rule::Rate { percent, window, minimum }, trip)
}

fn consecutive(threshold: u32) -> (Rule, ConsecutiveFailures) {
    let trip = ConsecutiveFailures::new(threshold).expect("a good threshold");
    (Rule::Consecutive { threshold: threshold as usize }, trip)
}

fn meter(failures: u32, period: Duration) -> (Rule, FailureMeter) {
    let trip = FailureMeter::new(failures, period).expect("a good meter");
    (Rule::Meter { failures: failures.into(), period }, trip)
}

/// Half-open and open periods in all their forms.
fn knobs() -> [Knobs; 5] {
    [
        Knobs::PLAIN,
        Knobs { successes: 3, trials: 3, probes: 3, ..Knobs::PLAIN },
        Knobs { successes: 2, trials: 5, probes: 2, half_open_for: Some(3 * SECOND), ..Knobs::PLAIN },
        Knobs {
            successes: 3,
            trials: 4,
            probes: 4,
            period: SECOND,
            doubling_up_to: 40 * SECOND,
            abandoned: Abandoned::Failure,
            ..Knobs::PLAIN
        },
        Knobs {
            successes: 2,
            trials: 3,
            probes: 1,
            half_open_for: Some(Duration::MAX),
            doubling_up_to: 15 * SECOND,
            jitter_percent: 20,
            abandoned: Abandoned::FailureAfter(5 * SECOND),
            ..Knobs::PLAIN
        },
    ]
}

#[test]
fn consecutive_failures_follow_the_oracle() {
    for (rule, trip) in [consecutive(1), consecutive(2), consecutive(5)] {
        knobs().iter().for_each(|knobs| compare(&rule, trip, knobs, packs));
    }
}

#[test]
fn failure_rates_follow_the_oracle() {
    let rates = [percent(100, 1, 1), percent(50, 2, 1), percent(34, 3, 2), percent(50, 10, 10), percent(10, 47, 20)];
    for (rule, trip) in rates {
        knobs().iter().for_each(|knobs| compare(&rule, trip, knobs, packs));
    }
}

#[test]
fn failure_meters_follow_the_oracle() {
    for (rule, trip) in [meter(1, SECOND), meter(3, 7 * SECOND), meter(10, HOUR), meter(4, 300 * HOUR)] {
        knobs().iter().for_each(|knobs| compare(&rule, trip, knobs, packs));
    }
}

#[test]
fn pairs_of_conditions_follow_the_oracle() {
    for knobs in knobs() {
        let (one, other) = (consecutive(3), consecutive(7));
        let rule = Rule::Either(Box::new(one.0), Box::new(other.0));
        compare(&rule, (one.1, other.1), &knobs, packs);
        let (one, other) = (percent(60, 20, 20), meter(8, 20 * SECOND));
        let rule = Rule::Either(Box::new(one.0), Box::new(other.0));
        compare(&rule, (one.1, other.1), &knobs, |_, _| {});
    }
}
