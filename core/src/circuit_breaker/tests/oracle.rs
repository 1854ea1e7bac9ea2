//! A breaker written as plainly as possible, which shares no code with the real one, and follows it through random scripts.
//!
//! It keeps every outcome since its state began and judges the whole list each time; its times are `u128` nanoseconds. Where
//! the real breaker draws jitter, the oracle checks the bounds and takes over the value.

use core::cell::{Cell, RefCell};
use core::time::Duration;
use std::boxed::Box;
use std::collections::VecDeque;
use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

use super::{CENTURY, HOUR, SECOND, SlowInARow, assert_packs, verdict};
use crate::backoff::{Backoff, Jitter};
use crate::cell::{Live, Local};
use crate::circuit_breaker::{
    Abandoned, CircuitBreaker, Config, ConsecutiveFailures, Counts, FailureMeter, FailureRate, Growing, OpenTime,
    Opening, PackedMeter, Permit, State, StateKind, Transition, Trip,
};
use crate::config::Valid;
use crate::outcome::{Outcome, Verdict};
use crate::scripts::play;
use crate::testing::{ManualClock, Recorder};
use crate::{Called, Clock, Instant, Observer, Ratio, Reason, Rng, Span};

/// A trip condition in the oracle's own words.
#[derive(Clone, Debug, PartialEq)]
enum Rule {
    Consecutive { threshold: usize },
    Slow { threshold: usize, limit: Duration },
    Rate { percent: usize, window: usize, minimum: usize },
    Meter { failures: u128, period: Duration },
    Either(Box<Self>, Box<Self>),
}

/// The meter's unit of time, to which it rounds down.
const UNIT: u128 = 1 << 16;

/// One outcome: what it was, how long it took, and when it came.
#[derive(Clone, Copy, Debug)]
struct Seen {
    failed: bool,
    said_slow: bool,
    took: u128,
    at: u128,
}

impl Seen {
    fn slow(&self, limit: Option<Duration>) -> bool {
        self.said_slow || limit.is_some_and(|limit| self.took > limit.as_nanos())
    }
}

/// All that has been heard since the state began.
#[derive(Debug, Default)]
struct Heard {
    outcomes: Vec<Seen>,
    /// For a meter: its level, and when it was that, by settings that have been replaced since.
    carried: (u128, u128),
}

/// Calls, failures and slow calls.
type Tally = (usize, usize, usize);

impl Rule {
    fn is_met(&self, heard: &Heard) -> bool {
        match *self {
            Self::Consecutive { threshold } => trailing(heard, |seen| seen.failed) >= threshold,
            Self::Slow { threshold, limit } => trailing(heard, |seen| seen.slow(Some(limit))) >= threshold,
            Self::Rate { percent, window, minimum } => {
                let last = last(heard, window);
                last.len() >= minimum && failures(last) * 100 >= percent * last.len()
            }
            // A success says nothing to it, and so finds nothing.
            Self::Meter { failures, .. } => match heard.outcomes.last() {
                Some(&Seen { failed: true, at, .. }) => self.level(heard, at) > failures * self.interval(),
                _ => false,
            },
            Self::Either(ref one, ref other) => one.is_met(heard) || other.is_met(heard),
        }
    }

    fn ignores_success(&self) -> bool {
        match *self {
            Self::Consecutive { .. } | Self::Slow { .. } | Self::Rate { .. } => false,
            Self::Meter { .. } => true,
            Self::Either(ref one, ref other) => one.ignores_success() && other.ignores_success(),
        }
    }

    /// Above this a call is slow.
    fn limit(&self) -> Option<Duration> {
        match *self {
            Self::Consecutive { .. } | Self::Rate { .. } | Self::Meter { .. } => None,
            Self::Slow { limit, .. } => Some(limit),
            Self::Either(ref one, ref other) => one.limit().into_iter().chain(other.limit()).min(),
        }
    }

    /// What is shown of the counts; a meter's are not known without the time.
    fn counts(&self, heard: &Heard, now: Option<u128>) -> Tally {
        match *self {
            Self::Consecutive { .. } => {
                let failures = trailing(heard, |seen| seen.failed);
                (failures, failures, 0)
            }
            Self::Slow { limit, .. } => {
                let slow = trailing(heard, |seen| seen.slow(Some(limit)));
                (slow, 0, slow)
            }
            Self::Rate { window, .. } => {
                let last = last(heard, window);
                (last.len(), failures(last), 0)
            }
            Self::Meter { failures, .. } => {
                let level = now.map_or(0, |now| self.level(heard, now).div_ceil(self.interval()).min(failures + 1));
                (level as usize, level as usize, 0)
            }
            Self::Either(ref one, _) => one.counts(heard, now),
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
    fn level(&self, heard: &Heard, now: u128) -> u128 {
        let Self::Meter { failures, .. } = self else { return 0 };
        let full = failures * self.interval();
        let (mut level, mut last) = heard.carried;
        for seen in heard.outcomes.iter().filter(|seen| seen.failed) {
            level = drained(level, last, seen.at / UNIT).min(full) + self.interval();
            last = seen.at / UNIT;
        }
        drained(level, last, now / UNIT)
    }

    /// Makes of what was heard under this rule what another one would know of it.
    fn carry_over(&self, heard: &mut Heard, to: &Self, now: u128) {
        match (self, to) {
            (Self::Rate { window, .. }, Self::Rate { .. }) => {
                let known = last(heard, *window).to_vec();
                heard.outcomes = known;
            }
            (Self::Meter { .. }, Self::Meter { .. }) if self.interval() != to.interval() => {
                let (failures, ..) = self.counts(heard, Some(now));
                *heard = Heard { outcomes: Vec::new(), carried: (failures as u128 * to.interval(), now / UNIT) };
            }
            _ => {}
        }
    }
}

/// What is left of a level; where the clock went back, the time to drain is as much longer.
fn drained(level: u128, last: u128, now: u128) -> u128 {
    if now < last { level + (last - now) } else { level.saturating_sub(now - last) }
}

fn last(heard: &Heard, window: usize) -> &[Seen] {
    &heard.outcomes[heard.outcomes.len().saturating_sub(window)..]
}

fn failures(outcomes: &[Seen]) -> usize {
    outcomes.iter().filter(|seen| seen.failed).count()
}

fn trailing(heard: &Heard, bad: impl Fn(&Seen) -> bool) -> usize {
    heard.outcomes.iter().rev().take_while(|seen| bad(seen)).count()
}

/// The rest of the configuration.
#[derive(Clone, Debug)]
struct Knobs {
    successes: u32,
    trials: u32,
    probes: u32,
    full_trial: bool,
    half_open_for: Option<Duration>,
    period: Duration,
    doubling_up_to: Duration,
    jitter_percent: u128,
    /// Whether the open time depends on the counts too.
    computed: bool,
    abandoned: Abandoned,
}

/// Longer by what was counted.
fn by_counts(opening: &Opening) -> Duration {
    let Opening { configured, reopened, counts, .. } = opening;
    configured.duration() + extra(counts.failures, counts.slow, (*reopened).into())
}

fn extra(failures: u32, slow: u32, reopened: u32) -> Duration {
    failures * SECOND + slow * Duration::from_millis(300) + reopened * Duration::from_millis(10)
}

impl Knobs {
    /// Closes after one of one probe; open and half-open for 10 s.
    const PLAIN: Self = Self {
        successes: 1,
        trials: 1,
        probes: 1,
        full_trial: false,
        half_open_for: None,
        period: Duration::from_secs(10),
        doubling_up_to: Duration::from_secs(10),
        jitter_percent: 0,
        computed: false,
        abandoned: Abandoned::Ignored,
    };

    fn times_calls(&self, rule: &Rule) -> bool {
        let limited = matches!(self.abandoned, Abandoned::FailureAfter(limit) if !limit.is_zero());
        limited || rule.limit().is_some()
    }

    fn config<T: Copy + Trip>(&self, trip: T, seed: u64) -> Valid<Config<OpenTime<Growing<T>>>> {
        let jitter = match self.jitter_percent {
            0 => Jitter::None,
            percent => Jitter::Proportional(Ratio::percent(percent as u32)),
        };
        let periods = match self.period {
            Duration::ZERO => Backoff::none(),
            period => Backoff::exponential(period).with_cap(self.doubling_up_to).with_jitter(jitter),
        };
        let config = Config::new()
            .with_trip(trip)
            .with_trials(self.successes, self.trials)
            .with_probes_at_once(self.probes)
            .with_abandoned(self.abandoned)
            .with_open_backoff(periods, seed)
            .expect("good periods")
            .with_open_time(if self.computed { by_counts } else { |opening| opening.configured.duration() });
        let config = if self.full_trial { config.with_full_trial() } else { config };
        let config = self.half_open_for.map_or(config, |deadline| config.with_half_open_for(deadline));
        config.validate().expect("a good configuration")
    }
}

/// What the breaker is expected to tell.
#[derive(Debug, Eq, PartialEq)]
struct Told {
    from: StateKind,
    to: StateKind,
    generation: u64,
    reopened: u32,
    counts: Tally,
    until: Option<u128>,
}

/// What the oracle keeps of a permit.
#[derive(Clone, Copy, Debug)]
struct Slip {
    generation: u64,
    probe: bool,
    /// When it began, where that was looked at.
    since: Option<u128>,
}

/// What is told of a permit.
#[derive(Clone, Copy, Debug)]
struct Word {
    failed: Option<bool>,
    slow: bool,
    opens: bool,
    hint: Option<Duration>,
}

struct Oracle {
    rule: Rule,
    knobs: Knobs,
    state: StateKind,
    generation: u64,
    heard: Heard,
    /// In metrics only: whether the last outcome met the condition, or would have opened the breaker by itself.
    met: bool,
    opened: bool,
    /// In open and half-open; `None` is "never".
    until: Option<u128>,
    reopened: u32,
    out: u32,
    told: Vec<Told>,
    /// What is told of the call, once it is over.
    called: Option<Called>,
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
            heard: Heard::default(),
            met: false,
            opened: false,
            until: None,
            reopened: 0,
            out: 0,
            told: Vec::new(),
            called: None,
            changes: Vec::new(),
            announced: VecDeque::new(),
        }
    }

    fn counts(&self, now: Option<u128>) -> Tally {
        match self.state {
            StateKind::Closed | StateKind::MetricsOnly => self.rule.counts(&self.heard, now),
            StateKind::HalfOpen => {
                let probes = &self.heard.outcomes;
                (probes.len(), failures(probes), probes.iter().filter(|seen| self.is_slow(seen)).count())
            }
            StateKind::Open | StateKind::Isolated | StateKind::Disabled => (0, 0, 0),
        }
    }

    fn is_slow(&self, seen: &Seen) -> bool {
        seen.slow(self.rule.limit())
    }

    const fn reopened(&self) -> u32 {
        match self.state {
            StateKind::Open | StateKind::HalfOpen => self.reopened,
            _ => 0,
        }
    }

    fn enter(&mut self, state: StateKind, reopened: u32, until: Option<u128>, now: Option<u128>) {
        let (from, counts) = (self.state, self.counts(now));
        self.generation += 1;
        self.told.push(Told { from, to: state, generation: self.generation % 4_096, reopened, counts, until });
        (self.state, self.until, self.reopened) = (state, until, reopened);
        self.heard = Heard::default();
        (self.met, self.opened, self.out) = (false, false, 0);
    }

    /// The end of a period that begins now: the announced one, when it is within the bounds.
    fn end_of_period(
        &mut self,
        reopened: u32,
        (_, failures, slow): Tally,
        hint: Option<Duration>,
        from: u128,
    ) -> Option<u128> {
        let mut period = self.knobs.period.as_nanos();
        let cap = self.knobs.doubling_up_to.as_nanos();
        for _ in 0..reopened {
            period = (period * 2).min(cap);
        }
        let extra = if self.knobs.computed { extra(failures as u32, slow as u32, reopened).as_nanos() } else { 0 };
        let spread = period * self.knobs.jitter_percent / 100;
        let hint = hint.map_or(0, |hint| hint.as_nanos());
        let earliest = from + (period - spread + extra).max(hint);
        let latest = from + ((period + spread).min(cap) + extra).max(hint);
        let announced = self.announced.pop_front().flatten();
        let end = announced.filter(|end| (earliest..=latest).contains(end)).unwrap_or(earliest);
        (end < u128::from(u64::MAX)).then_some(end)
    }

    fn open(&mut self, reopened: u32, hint: Option<Duration>, from: u128, now: u128) {
        let until = self.end_of_period(reopened, self.counts(Some(from)), hint, from);
        self.enter(StateKind::Open, reopened, until, Some(now));
    }

    fn half_open(&mut self, now: u128) {
        let reopened = self.reopened();
        let until = match self.knobs.half_open_for {
            Some(span) => Some(now + span.as_nanos()).filter(|end| *end < u128::from(u64::MAX)),
            None => self.end_of_period(reopened, (0, 0, 0), None, now),
        };
        self.enter(StateKind::HalfOpen, reopened, until, Some(now));
    }

    fn time_passes(&mut self, now: u128) {
        let Some(until) = self.until.filter(|until| now >= *until) else { return };
        match self.state {
            StateKind::Open => self.half_open(now),
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
                if self.out >= self.knobs.probes || self.out + self.heard.outcomes.len() as u32 >= self.knobs.trials {
                    return Err((Reason::ProbesOut, self.until));
                }
                self.out += 1;
                true
            }
        };
        let since = (probe || self.knobs.times_calls(&self.rule)).then_some(now);
        Ok(Slip { generation: self.generation, probe, since })
    }

    /// What is told of a call that says this, if it counts.
    fn settle(&mut self, slip: Slip, word: Word, called: Called, now: u128) {
        self.called = Some(called);
        let late = if word.failed.is_some() { Called::Late } else { called };
        if slip.generation != self.generation {
            self.called = Some(late);
            return;
        }
        if slip.probe {
            self.out -= 1;
        }
        if word.failed.is_none() && !word.opens && self.state != StateKind::Disabled {
            return;
        }
        if self.state == StateKind::HalfOpen && self.until.is_some_and(|until| now >= until) {
            self.called = Some(late);
            self.time_passes(now);
            return;
        }
        let took = slip.since.map_or(0, |since| now.saturating_sub(since));
        let before = self.heard.outcomes.len();
        self.heard.outcomes.extend(word.failed.map(|failed| Seen { failed, said_slow: word.slow, took, at: now }));
        let counted = self.heard.outcomes.len() > before;
        match self.state {
            StateKind::Closed => {
                if word.opens || counted && self.rule.is_met(&self.heard) {
                    self.open(0, word.hint, now, now);
                }
            }
            StateKind::HalfOpen if word.opens => self.open(self.reopened + 1, word.hint, now, now),
            StateKind::HalfOpen => self.judge(word.hint, now),
            StateKind::MetricsOnly => self.observe(word, counted, now),
            StateKind::Disabled => {
                self.heard.outcomes.clear();
                self.called = None;
            }
            StateKind::Open | StateKind::Isolated => unreachable!("they admit nothing"),
        }
    }

    fn judge(&mut self, hint: Option<Duration>, now: u128) {
        let probes = &self.heard.outcomes;
        let bad = probes.iter().filter(|seen| seen.failed || self.is_slow(seen)).count() as u32;
        let judged = probes.len() as u32;
        if self.knobs.full_trial && judged < self.knobs.trials {
            return;
        }
        if judged - bad >= self.knobs.successes {
            self.enter(StateKind::Closed, 0, None, Some(now));
        } else if bad + self.knobs.successes > self.knobs.trials {
            self.open(self.reopened + 1, hint, now, now);
        }
    }

    fn observe(&mut self, word: Word, counted: bool, now: u128) {
        let would = self.met || self.opened;
        // What says nothing to the rule does not change what it has said.
        if counted && !(word.failed == Some(false) && self.rule.ignores_success()) {
            self.met = self.rule.is_met(&self.heard);
        }
        if counted || word.opens {
            self.opened = word.opens && !self.met;
        }
        if !would && (self.met || self.opened) {
            let (generation, counts) = (self.generation % 4_096, self.counts(Some(now)));
            self.told.push(Told {
                from: self.state,
                to: StateKind::Open,
                generation,
                reopened: 0,
                counts,
                until: None,
            });
        }
    }

    fn abandon(&mut self, slip: Slip, now: u128) {
        let failed = match self.knobs.abandoned {
            Abandoned::Ignored => false,
            Abandoned::Failure => true,
            Abandoned::FailureAfter(limit) => slip.since.is_some_and(|since| now > since + limit.as_nanos()),
        };
        let called = if failed { Called::Recorded(Outcome::Failure) } else { Called::Abandoned };
        let word = Word { failed: failed.then_some(true), slow: false, opens: false, hint: None };
        self.settle(slip, word, called, now);
    }

    fn force(&mut self, state: StateKind, until: Option<u128>) {
        self.enter(state, 0, until, None);
    }

    fn reconfigure(&mut self, rule: Rule, knobs: Knobs, now: u128) {
        let half_open = self.state == StateKind::HalfOpen;
        if half_open || self.rule != rule {
            // Which call was slow has been decided, by the limit of its time.
            let limit = self.rule.limit();
            for seen in &mut self.heard.outcomes {
                (seen.said_slow, seen.took) = (seen.slow(limit), 0);
            }
        }
        if !half_open {
            self.rule.carry_over(&mut self.heard, &rule, now);
        }
        (self.rule, self.knobs) = (rule, knobs);
        // A dry run is one of the settings.
        (self.met, self.opened) = (false, false);
        if self.state == StateKind::HalfOpen {
            self.time_passes(now);
        }
        if self.state == StateKind::HalfOpen {
            self.judge(None, now);
        }
    }
}

fn nanos(instant: Instant) -> u128 {
    instant.as_nanos().into()
}

const fn tally(counts: Counts) -> Tally {
    (counts.calls as usize, counts.failures as usize, counts.slow as usize)
}

fn told(event: &Transition) -> Told {
    Told {
        from: event.from,
        to: event.to,
        generation: event.generation.into(),
        reopened: event.reopened.into(),
        counts: tally(event.counts),
        until: event.until.map(nanos),
    }
}

const STEPS: usize = 4_000;
const SEEDS: u64 = 5;
/// Permits that are kept open at once, to be spent late.
const HELD: usize = 12;

type Breaker<'a, T> = CircuitBreaker<Live<Local>, OpenTime<Growing<T>>, &'a Log>;
type Held<'a, T> = Permit<'a, Live<Local>, OpenTime<Growing<T>>, &'a Log, &'a ManualClock>;

/// Takes down the transitions, and what was told last of a call.
#[derive(Default)]
struct Log {
    transitions: Recorder<Transition, 8>,
    called: Cell<Option<Called>>,
}

impl Observer<Transition> for &Log {
    fn observe(&self, event: &Transition) {
        (&self.transitions).observe(event);
    }

    fn called(&self, called: Called) {
        self.called.set(Some(called));
    }
}

/// Breaker and oracle side by side.
struct Run<'a, T: Copy + Trip> {
    breaker: &'a Breaker<'a, T>,
    clock: &'a ManualClock,
    log: &'a Log,
    oracle: Oracle,
    /// Conditions that may replace the first.
    rules: &'a [(Rule, T)],
    held: Vec<(Held<'a, T>, Slip)>,
    /// The current step's.
    random: Rng,
    /// The failures among 100 calls, for the time being.
    failing: u32,
    told: Vec<Told>,
    seed: u64,
    step: usize,
}

/// Runs breaker and oracle side by side through random scripts, which begin with the first rule and now and then go
/// on with another one and other settings. `check` sees the states before and after each step.
fn compare<T: Copy + Trip>(rules: &[(Rule, T)], knobs: &Knobs, check: fn(State<T::Meter>, State<T::Meter>)) {
    let changes = RefCell::new(Vec::new());
    let (rule, trip) = &rules[0];
    play("circuit breaker", 0..SEEDS, STEPS, |seed, script| {
        let (clock, log) = (ManualClock::new(), Log::default());
        let breaker = Breaker::with_observer(knobs.config(*trip, seed), &log);
        let mut run = Run {
            breaker: &breaker,
            clock: &clock,
            log: &log,
            oracle: Oracle::new(rule.clone(), knobs.clone()),
            rules,
            held: Vec::new(),
            random: Rng::new(0),
            failing: 0,
            told: Vec::new(),
            seed,
            step: 0,
        };
        for (step, random) in script.into_iter().enumerate() {
            let before = breaker.peek();
            run.random = random;
            run.step(step);
            check(before, breaker.peek());
        }
        changes.borrow_mut().append(&mut run.oracle.changes);
    });
    let changes = changes.into_inner();
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

    fn step(&mut self, step: usize) {
        self.step = step;
        // By the word and not by the step's number, so that a script can be made shorter.
        if self.below(100) == 0 {
            self.failing = [2, 20, 50, 95][self.below(4) as usize];
        }
        self.let_time_pass();
        match self.below(1_000) {
            0..450 if self.held.len() < HELD => self.acquire(),
            0..920 if !self.held.is_empty() => self.settle(),
            920..985 => self.handle_timeout(),
            985..997 => self.change_by_hand(),
            997.. => self.reconfigure(),
            _ => {}
        }
        self.assert_same();
    }

    /// Mostly a little, often to where something is due, now and then far, and seldom back.
    fn let_time_pass(&mut self) {
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
            999 if self.below(STEPS as u32 / 1_000) == 0 => self.clock.advance(CENTURY),
            _ => {}
        }
    }

    /// The breaker has acted: its events are kept, and the oracle learns what came of its jitter.
    fn breaker_has_acted(&mut self) {
        self.told = self.log.transitions.take().map(|event| told(&event)).collect();
        self.oracle.announced = self.told.iter().map(|told| told.until).collect();
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
        self.log.called.set(None);
        self.held.extend(permit.ok().zip(expected.ok()));
    }

    fn settle(&mut self) {
        let choice = self.below(self.held.len() as u32) as usize;
        let (permit, slip) = self.held.swap_remove(choice);
        let hint = [None, None, Some(SECOND), Some(25 * SECOND)][self.below(4) as usize];
        let (slow, opens) = (self.below(100) < 15, self.below(100) < 2);
        let failed = match self.below(100) {
            0..6 => {
                drop(permit);
                self.breaker_has_acted();
                return self.oracle.abandon(slip, self.now());
            }
            6..10 => None,
            _ => Some(self.below(100) < self.failing),
        };
        let verdict = failed.map_or(Verdict::IGNORED, verdict);
        let verdict = hint.map_or(verdict, |hint| verdict.with_retry_after(hint));
        let verdict = if slow { verdict.with_slow() } else { verdict };
        permit.record(if opens { verdict.with_opening() } else { verdict });
        self.breaker_has_acted();
        self.oracle.settle(slip, Word { failed, slow, opens, hint }, Called::Recorded(verdict.outcome()), self.now());
    }

    fn handle_timeout(&mut self) {
        self.breaker.handle_timeout(self.clock);
        self.breaker_has_acted();
        self.oracle.time_passes(self.now());
    }

    fn change_by_hand(&mut self) {
        let (state, until) = match self.below(9) {
            0 => (StateKind::Isolated, None),
            1 => (StateKind::Disabled, None),
            2 => (StateKind::MetricsOnly, None),
            3 => (StateKind::HalfOpen, None),
            4 => (StateKind::Open, Some(self.now() + u128::from(self.random.next()))),
            _ => (StateKind::Closed, None),
        };
        match (state, until) {
            (StateKind::Isolated, _) => self.breaker.isolate(),
            (StateKind::Disabled, _) => self.breaker.disable(),
            (StateKind::MetricsOnly, _) => self.breaker.observe_only(),
            (StateKind::HalfOpen, _) => {
                self.breaker.half_open(self.clock);
                self.breaker_has_acted();
                return self.oracle.half_open(self.now());
            }
            (_, Some(until)) => self.breaker.open_until(Instant::from_nanos(until as u64)),
            _ => self.breaker.reset(),
        }
        self.breaker_has_acted();
        self.oracle.force(state, until);
    }

    fn reconfigure(&mut self) {
        let (rule, trip) = self.rules[self.below(self.rules.len() as u32) as usize].clone();
        let others = knobs();
        let knobs = others[self.below(others.len() as u32) as usize].clone();
        self.breaker.reconfigure(knobs.config(trip, self.seed), self.clock);
        self.breaker_has_acted();
        self.oracle.reconfigure(rule, knobs, self.now());
    }

    fn assert_same(&mut self) {
        let (actual, oracle) = (self.breaker.snapshot(self.clock), &self.oracle);
        let counts = tally(actual.counts);
        assert_eq!(self.told, oracle.told, "events, {}", self.place());
        assert_eq!(self.log.called.take(), oracle.called, "what is told of the call, {}", self.place());
        assert_eq!(u32::from(actual.reopened), oracle.reopened().min(255), "reopened, {}", self.place());
        assert_eq!(actual.state, oracle.state, "state, {}", self.place());
        assert_eq!(u64::from(actual.generation), oracle.generation % 4_096, "generation, {}", self.place());
        assert_eq!(actual.until.map(nanos), oracle.until, "until, {}", self.place());
        assert_eq!(actual.probes, oracle.out, "probes, {}", self.place());
        assert_eq!(counts, oracle.counts(Some(self.now())), "counts, {}", self.place());
        for told in self.oracle.told.drain(..) {
            self.oracle.changes.push((told.from, told.to));
        }
        self.told.clear();
        self.oracle.called = None;
    }
}

/// A tail may change only together with the head, or a lock-free cell would mix two states.
fn packs<M: PackedMeter + PartialEq + core::fmt::Debug>(before: State<M>, after: State<M>) {
    use crate::cell::Packed;
    assert_packs(after);
    let (before, after) = (before.pack(), after.pack());
    assert!(before.1 == after.1 || before.0 != after.0, "{before:?} to {after:?}");
}

fn slow(threshold: u16, limit: Duration) -> (Rule, SlowInARow) {
    let trip = SlowInARow { threshold, limit: Span::of(limit) };
    (Rule::Slow { threshold: threshold.into(), limit }, trip)
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
fn knobs() -> [Knobs; 7] {
    [
        Knobs::PLAIN,
        Knobs { successes: 3, trials: 3, probes: 3, computed: true, ..Knobs::PLAIN },
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
        Knobs { successes: 2, trials: 4, probes: 3, full_trial: true, jitter_percent: 10, ..Knobs::PLAIN },
        // Half-open with the next call.
        Knobs {
            successes: 1,
            trials: 2,
            probes: 1,
            full_trial: true,
            half_open_for: Some(20 * SECOND),
            period: Duration::ZERO,
            doubling_up_to: Duration::ZERO,
            ..Knobs::PLAIN
        },
    ]
}

fn either<A, B>((one, trip): (Rule, A), (other, second): (Rule, B)) -> (Rule, (A, B)) {
    (Rule::Either(Box::new(one), Box::new(other)), (trip, second))
}

/// Each rule in turn goes first.
fn compare_all<T: Copy + Trip<Meter: PackedMeter>>(mut rules: Vec<(Rule, T)>) {
    for _ in 0..rules.len() {
        knobs().iter().for_each(|knobs| compare(&rules, knobs, packs));
        rules.rotate_left(1);
    }
}

#[test]
fn consecutive_failures_follow_the_oracle() {
    compare_all(vec![consecutive(1), consecutive(2), consecutive(5)]);
}

#[test]
fn slow_calls_follow_the_oracle() {
    compare_all(vec![slow(1, HOUR), slow(2, SECOND), slow(3, 2 * SECOND)]);
}

#[test]
fn failure_rates_follow_the_oracle() {
    compare_all(vec![
        percent(100, 1, 1),
        percent(50, 2, 1),
        percent(34, 3, 2),
        percent(50, 10, 10),
        percent(10, 47, 20),
    ]);
}

#[test]
fn failure_meters_follow_the_oracle() {
    compare_all(vec![meter(1, SECOND), meter(3, 7 * SECOND), meter(10, HOUR), meter(4, 300 * HOUR)]);
}

#[test]
fn pairs_of_conditions_follow_the_oracle() {
    compare_all(vec![either(consecutive(3), consecutive(7)), either(consecutive(5), consecutive(4))]);
    compare_all(vec![either(consecutive(3), slow(2, 3 * SECOND)), either(consecutive(4), slow(4, SECOND))]);
    compare_all(vec![either(slow(2, 3 * SECOND), slow(4, SECOND))]);
    for knobs in knobs() {
        // Too large for a word, and each of its parts carries over in a way of its own: by one rule to the end.
        compare(&[either(percent(60, 20, 20), meter(8, 20 * SECOND))], &knobs, |_, _| {});
    }
}
