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
use crate::cell::{Fresh, Live, Local, Packed, StateCell};
use crate::circuit_breaker::machine::{GENERATIONS, Phase, Stamp, State, Ticket, Trial};
use crate::circuit_breaker::trip::{Consecutive, Drained, Ring};
use crate::circuit_breaker::{
    ABANDONED_TIMED, Abandoned, CircuitBreaker, Config, ConsecutiveFailures, CountBased, Counts, FULL_TRIAL,
    FailureMeter, FailureRate, Growing, HALF_OPEN_AS_OPEN, Meter, Opening, PackedMeter, Permit, Sample, StateKind,
    TimeBased, Transition, Trip,
};
use crate::explore::{System, explore};
use crate::failure::{Reason, Rejected};
use crate::outcome::{Outcome, Verdict};
use crate::window::{CountWindow, TimeWindow};
use crate::{Called, Clock, Instant, Observer, Ratio, Span, Valid, valid};

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

/// A condition whose meter is finite, counted from now.
trait Finite: Copy + Trip {
    /// After how much time the clock looks the same to the meter.
    const PERIOD: u64 = TICK;

    /// The meter at `now`, as it looks so much earlier.
    fn earlier(meter: Self::Meter, _by: u64, _now: Instant) -> Self::Meter {
        meter
    }

    fn words(meter: &Self::Meter) -> Vec<u64>;

    /// Whether it may be told of another call: what it counts without end is cut off here.
    fn has_room(_: &Self::Meter, _failed: bool) -> bool {
        true
    }

    /// The calls that count now, the oldest first, and what they come to: said without a meter. `None` where the meter knows
    /// no calls.
    fn count(_: &mut Vec<Call>, _now: Instant) -> Option<Counts> {
        None
    }

    /// Whether a state survives being packed, where it can be.
    fn check_packing(_: State<Self::Meter>) {}
}

/// A call that was reported to a state that counts.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Call {
    at: Instant,
    failed: bool,
    slow: bool,
}

/// The sum of the last so many calls that are to be counted.
fn sum_of_last(most: usize, calls: &mut Vec<Call>) -> Option<Counts> {
    calls.drain(..calls.len().saturating_sub(most));
    let sum = |of: fn(&Call) -> bool| calls.iter().filter(|call| of(call)).count() as u32;
    Some(Counts { calls: sum(|_| true), failures: sum(|call| call.failed), slow: sum(|call| call.slow) })
}

fn survives_packing<M: PackedMeter>(state: State<M>) {
    let (head, tail) = state.pack();
    assert_eq!(State::unpack(head, tail), state, "packed and unpacked");
    assert_eq!(head >> 63, 0, "the cell's own bit");
    assert!(tail == 0 || State::<M>::has_tail(head), "a tail that nobody looks for");
    assert_eq!(State::<M>::FRESH.pack(), (0, 0), "a fresh state packs to zeroes");
}

impl Finite for ConsecutiveFailures {
    fn words(meter: &Consecutive) -> Vec<u64> {
        [meter.to_bits()].into()
    }

    /// A dry run goes on counting.
    fn has_room(meter: &Consecutive, failed: bool) -> bool {
        !failed || meter.to_bits() <= 2
    }

    /// The failures since the last success.
    fn count(calls: &mut Vec<Call>, _: Instant) -> Option<Counts> {
        calls.drain(..calls.iter().rposition(|call| !call.failed).map_or(0, |last| last + 1));
        sum_of_last(usize::MAX, calls).map(|counts| Counts { slow: 0, ..counts })
    }

    fn check_packing(state: State<Consecutive>) {
        survives_packing(state);
    }
}

impl Finite for FailureRate {
    fn words(meter: &Ring) -> Vec<u64> {
        [meter.to_bits()].into()
    }

    /// Of the last 3 calls.
    fn count(calls: &mut Vec<Call>, _: Instant) -> Option<Counts> {
        sum_of_last(3, calls).map(|counts| Counts { slow: 0, ..counts })
    }

    fn check_packing(state: State<Ring>) {
        survives_packing(state);
    }
}

impl Finite for FailureMeter {
    /// A bucket that has drained is a fresh one.
    fn earlier(meter: Drained, by: u64, now: Instant) -> Drained {
        let unit = |nanos: u64| nanos >> 16;
        let drained = meter.to_bits();
        if drained <= unit(now.as_nanos()) { Drained::FRESH } else { Drained::from_bits(drained - unit(by)) }
    }

    fn words(meter: &Drained) -> Vec<u64> {
        [meter.to_bits()].into()
    }

    fn check_packing(state: State<Drained>) {
        survives_packing(state);
    }
}

impl<const WORDS: usize> Finite for CountBased<WORDS> {
    fn earlier(meter: CountWindow<WORDS>, _: u64, _: Instant) -> CountWindow<WORDS> {
        meter.without_the_forgotten()
    }

    fn words(meter: &CountWindow<WORDS>) -> Vec<u64> {
        meter.words()
    }

    /// Of the last 2 calls.
    fn count(calls: &mut Vec<Call>, _: Instant) -> Option<Counts> {
        sum_of_last(2, calls)
    }
}

impl Finite for TimeBased<2> {
    /// A bucket.
    const PERIOD: u64 = 2 * TICK;

    fn earlier(meter: TimeWindow<Counts, 2>, by: u64, now: Instant) -> TimeWindow<Counts, 2> {
        meter.earlier(Span::from_nanos(Self::PERIOD), by, now)
    }

    fn words(meter: &TimeWindow<Counts, 2>) -> Vec<u64> {
        meter.words(|counts| [counts.calls, counts.failures, counts.slow].into())
    }

    fn has_room(meter: &TimeWindow<Counts, 2>, _: bool) -> bool {
        meter.total().calls < 3
    }

    /// Of this bucket and the one before.
    fn count(calls: &mut Vec<Call>, now: Instant) -> Option<Counts> {
        let bucket = |at: Instant| at.as_nanos() / Self::PERIOD;
        calls.retain(|call| bucket(call.at) + 1 >= bucket(now));
        sum_of_last(usize::MAX, calls)
    }
}

impl Finite for Growing<ConsecutiveFailures> {
    fn words(meter: &Consecutive) -> Vec<u64> {
        ConsecutiveFailures::words(meter)
    }

    fn count(calls: &mut Vec<Call>, now: Instant) -> Option<Counts> {
        ConsecutiveFailures::count(calls, now)
    }

    fn check_packing(state: State<Consecutive>) {
        survives_packing(state);
    }
}

impl Finite for (ConsecutiveFailures, FailureMeter) {
    fn earlier((first, second): Self::Meter, by: u64, now: Instant) -> Self::Meter {
        (first, FailureMeter::earlier(second, by, now))
    }

    fn words((first, second): &Self::Meter) -> Vec<u64> {
        [ConsecutiveFailures::words(first), FailureMeter::words(second)].concat()
    }

    fn has_room((first, _): &Self::Meter, failed: bool) -> bool {
        ConsecutiveFailures::has_room(first, failed)
    }

    fn count(calls: &mut Vec<Call>, now: Instant) -> Option<Counts> {
        ConsecutiveFailures::count(calls, now)
    }
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

/// A step, what it was done to, and what came of it.
struct Done<'d, T: Finite> {
    config: &'d Config<T>,
    before: &'d Moment<T::Meter>,
    step: Step,
    after: &'d Moment<T::Meter>,
    events: &'d [Transition],
    called: &'d [Called],
}

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

impl<T: Copy + Trip> Config<T> {
    /// No more probes than are configured.
    fn check_probes(&self, out: u32, reported: u32) {
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

    const fn waits_for_ever(&self) -> bool {
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
    fn call(&self) -> Option<Call> {
        let counts = matches!(self.after.breaker.kind(), StateKind::Closed | StateKind::MetricsOnly);
        let sample = self.sample().filter(|_| counts && self.after.generation() == self.before.generation())?;
        Some(Call { at: self.before.now, failed: sample.failed, slow: self.is_slow(sample) })
    }

    /// The visit after the step.
    fn visit(&self) -> Visit {
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
    fn check_events(&self) {
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

    fn check_acquired(&self, rejected: Option<Rejected>) {
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

    fn check_report(&self) {
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
