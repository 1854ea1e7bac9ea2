//! A breaker of any condition behind one face, with the calls that are out.

use core::cell::Cell;

use failsoft_core::cell::{CellKind, Local};
use failsoft_core::circuit_breaker::{
    CircuitBreaker, Config, ConsecutiveFailures, FailureRate, Permit, Snapshot, State, StateKind, Totals, Transition,
    Trip,
};
use failsoft_core::testing::ManualClock;
use failsoft_core::{Called, Instant, Observer, Ratio, Rejected, Verdict};

use super::plan::{Condition, Plan, reaches};
use crate::vector::{Result, Unsupported};

/// Calls that are out at once.
const CALLS: usize = 32;

/// A change by hand.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hand {
    Close,
    OpenUntil(Instant),
    HalfOpen,
    Isolate,
    Disable,
    ObserveOnly,
}

/// A breaker.
pub(super) trait Rig<'a> {
    /// Asks for a call, which is then out under this name; the empty one is nobody's.
    fn acquire(&mut self, token: &'a str) -> Result<'a, core::result::Result<(), Rejected>>;
    /// Reports for the call of this name.
    fn end(&mut self, token: &str, verdict: Verdict);
    /// Reports for the call without a name that has been out for longest, or else for one that is asked for now.
    fn record(&mut self, verdict: Verdict) -> Result<'a, ()>;
    /// Gives up the call without a name that has been out for longest.
    fn release(&mut self);
    fn by_hand(&mut self, hand: Hand) -> Result<'a, ()>;
    fn handle_timeout(&mut self);
    fn snapshot(&self) -> Snapshot;
    fn poll_timeout(&self) -> Option<Instant>;
    fn log(&self) -> &Log;
}

/// What the breaker told its observer.
pub(super) struct Log {
    rates: (Ratio, Ratio),
    totals: Totals<Local>,
    last: Cell<Option<Transition>>,
    // Rejections before the last change.
    rejected_before: Cell<u64>,
    exceeded: Cell<(u32, u32)>,
}

impl Log {
    const fn new(rates: (Ratio, Ratio)) -> Self {
        Self {
            rates,
            totals: Totals::new(()),
            last: Cell::new(None),
            rejected_before: Cell::new(0),
            exceeded: Cell::new((0, 0)),
        }
    }

    /// The last change.
    pub(super) const fn last(&self) -> Option<Transition> {
        self.last.get()
    }

    /// Rejections since then.
    pub(super) fn rejected(&self) -> u64 {
        self.totals.rejected().saturating_sub(self.rejected_before.get())
    }

    /// How often the breaker opened because of its failure rate, and because of its slow calls.
    pub(super) const fn exceeded(&self) -> (u32, u32) {
        self.exceeded.get()
    }

    /// Counts a rejection without a breaker that rejects.
    pub(super) fn reject(&self) {
        self.totals.called(Called::Rejected);
    }
}

impl Observer<Transition> for &Log {
    fn observe(&self, event: &Transition) {
        self.last.set(Some(*event));
        self.rejected_before.set(self.totals.rejected());
        if event.to == StateKind::Open {
            let counts = event.counts;
            let (failures, slow) = self.exceeded.get();
            let counted = |before: u32, rate, part| before.saturating_add(reaches(rate, part, counts.calls).into());
            self.exceeded
                .set((counted(failures, self.rates.0, counts.failures), counted(slow, self.rates.1, counts.slow)));
        }
    }

    fn called(&self, called: Called) {
        self.totals.called(called);
    }
}

type Walk<'w, 'a> = &'w mut dyn FnMut(&mut dyn Rig<'a>) -> Result<'a, ()>;

/// Builds the breaker of a plan and hands it to `walk`.
pub(super) fn with<'a>(plan: &Plan<'a>, clock: &ManualClock, walk: Walk<'_, 'a>) -> Result<'a, ()> {
    let (successes, trials) = plan.trials;
    let config = Config::new().with_open_for(plan.open_for).with_trials(successes, trials);
    let config = match plan.half_open_for {
        None => config.without_half_open_deadline(),
        Some(deadline) => config.with_half_open_for(deadline),
    };
    match plan.condition {
        Condition::Consecutive(failures) => {
            build(plan, config.with_trip(ConsecutiveFailures::new(failures)?), clock, walk)
        }
        Condition::Rate { rate, window, minimum } => {
            let trip = FailureRate::new(rate, window)?.with_minimum_calls(minimum)?;
            build(plan, config.with_trip(trip), clock, walk)
        }
        Condition::Failures { .. } | Condition::TimedFailures { .. } => Err(Unsupported::Config("failure")),
        Condition::TimedRate { .. } => Err(Unsupported::Config("window")),
    }
}

fn build<'a, T>(plan: &Plan<'a>, config: Config<T>, clock: &ManualClock, walk: Walk<'_, 'a>) -> Result<'a, ()>
where
    T: Copy + Trip,
    Local: CellKind<State<T::Meter>>,
{
    let log = Log::new(plan.rates);
    let breaker = CircuitBreaker::<Local, T, _>::with_observer(config.validate()?, &log);
    walk(&mut Built { breaker: &breaker, clock, out: heapless::Vec::new() })
}

type Out<'a, 'b, T> = (&'a str, u16, Permit<'b, Local, T, &'b Log, &'b ManualClock>);

struct Built<'a, 'b, T>
where
    T: Copy + Trip,
    Local: CellKind<State<T::Meter>>,
{
    breaker: &'b CircuitBreaker<Local, T, &'b Log>,
    clock: &'b ManualClock,
    out: heapless::Vec<Out<'a, 'b, T>, CALLS>,
}

impl<'a, 'b, T> Built<'a, 'b, T>
where
    T: Copy + Trip,
    Local: CellKind<State<T::Meter>>,
{
    fn take(&mut self, fits: impl Fn(&str, u16) -> bool) -> Option<Out<'a, 'b, T>> {
        let place = self.out.iter().position(|(token, generation, _)| fits(token, *generation))?;
        Some(self.out.remove(place))
    }
}

impl<'a, 'b, T> Rig<'a> for Built<'a, 'b, T>
where
    T: Copy + Trip,
    Local: CellKind<State<T::Meter>>,
{
    fn acquire(&mut self, token: &'a str) -> Result<'a, core::result::Result<(), Rejected>> {
        match self.breaker.try_acquire(self.clock) {
            Ok(permit) => {
                let generation = self.snapshot().generation;
                let out = self.out.push((token, generation, permit));
                out.map_err(|_| Unsupported::Room("so many calls at once"))?;
                Ok(Ok(()))
            }
            Err(rejected) => Ok(Err(rejected)),
        }
    }

    fn end(&mut self, token: &str, verdict: Verdict) {
        if let Some((.., permit)) = self.take(|other, _| other == token) {
            permit.record(verdict);
        }
    }

    fn record(&mut self, verdict: Verdict) -> Result<'a, ()> {
        let now = self.snapshot().generation;
        // A call of an older state is a call that nobody waits for any more.
        let call = self.take(|token, generation| token.is_empty() && generation == now);
        if call.is_none() && self.acquire("")?.is_err() {
            return Ok(());
        }
        if let Some((.., permit)) = call.or_else(|| self.out.pop()) {
            permit.record(verdict);
        }
        Ok(())
    }

    fn release(&mut self) {
        drop(self.take(|token, _| token.is_empty()));
    }

    fn by_hand(&mut self, hand: Hand) -> Result<'a, ()> {
        match hand {
            Hand::Close => self.breaker.reset(),
            Hand::OpenUntil(until) => self.breaker.open_until(until),
            Hand::HalfOpen => return Err(Unsupported::Value { key: "force", problem: "half_open is not possible" }),
            Hand::Isolate => self.breaker.isolate(),
            Hand::Disable => self.breaker.disable(),
            Hand::ObserveOnly => self.breaker.observe_only(),
        }
        Ok(())
    }

    fn handle_timeout(&mut self) {
        self.breaker.handle_timeout(&self.clock);
    }

    fn snapshot(&self) -> Snapshot {
        self.breaker.snapshot(&self.clock)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.breaker.poll_timeout()
    }

    fn log(&self) -> &Log {
        self.breaker.observer()
    }
}
