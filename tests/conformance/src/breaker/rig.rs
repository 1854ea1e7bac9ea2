//! A breaker of any condition, with the calls that are out.

use core::cell::{Cell, RefCell};

use failsoft_core::cell::{Fresh, Local};
use failsoft_core::circuit_breaker::{CircuitBreaker, Opening, Permit, Snapshot, StateKind, Totals, Transition, Trip};
use failsoft_core::testing::ManualClock;
use failsoft_core::window::{Accumulate, TimeWindow};
use failsoft_core::{Called, Clock, Instant, Observer, Outcome, Ratio, Rejected, Span, Verdict};

use super::any::AnyTrip;
use super::plan::{Plan, reaches};
use crate::vector::{Result, Unsupported};

/// Calls that are out at once.
const CALLS: usize = 32;

/// A change by hand.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hand {
    Close,
    /// For its period.
    Open,
    OpenUntil(Instant),
    HalfOpen,
    Isolate,
    Disable,
    ObserveOnly,
}

/// What became of calls.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(super) requests: u32,
    pub(super) successes: u32,
    pub(super) failures: u32,
    pub(super) exclusions: u32,
}

impl Fresh for Tally {
    const FRESH: Self = Self { requests: 0, successes: 0, failures: 0, exclusions: 0 };
}

impl Tally {
    fn each(&mut self, other: &Self, f: fn(u32, u32) -> u32) {
        self.requests = f(self.requests, other.requests);
        self.successes = f(self.successes, other.successes);
        self.failures = f(self.failures, other.failures);
        self.exclusions = f(self.exclusions, other.exclusions);
    }
}

impl Accumulate for Tally {
    fn add(&mut self, other: &Self) -> bool {
        // It always fits: a scenario has a few calls.
        self.each(other, u32::saturating_add);
        true
    }

    fn subtract(&mut self, other: &Self) {
        self.each(other, u32::saturating_sub);
    }
}

/// A tally that forgets: never, all at once after each interval, or a bucket of it after the other.
macro_rules! lately {
    ($($name:ident: $buckets:literal),* $(,)?) => {
        #[derive(Clone, Copy)]
        enum Lately {
            $($name(TimeWindow<Tally, $buckets>, Span),)*
        }

        impl Lately {
            fn in_buckets<'a>(buckets: u128, length: Span) -> Result<'a, Self> {
                match buckets {
                    $($buckets => Ok(Self::$name(TimeWindow::new(), length)),)*
                    _ => Err(Unsupported::Room("counts in so many buckets")),
                }
            }

            fn clear(&mut self) {
                match self {
                    $(Self::$name(window, _) => *window = TimeWindow::new(),)*
                }
            }

            fn add(&mut self, tally: &Tally, now: Instant) {
                match self {
                    $(Self::$name(window, length) => window.add(tally, *length, now),)*
                }
            }

            fn sum(&self, now: Instant) -> Tally {
                match self {
                    $(Self::$name(window, length) => window.sum(*length, now),)*
                }
            }
        }
    };
}

lately!(Whole: 1, In2: 2, In3: 3, In4: 4, In5: 5, In6: 6, In10: 10, In20: 20);

impl Lately {
    fn of<'a>(plan: &Plan<'a>) -> Result<'a, Self> {
        match (plan.bucket, plan.interval) {
            (Some(bucket), Some(interval)) => {
                Self::in_buckets(interval.as_nanos() / bucket.as_nanos().max(1), Span::of(bucket))
            }
            (_, interval) => Self::in_buckets(1, interval.map_or(Span::MAX, Span::of)),
        }
    }
}

/// What the breaker told its observer.
pub(crate) struct Log<'c> {
    clock: &'c ManualClock,
    lately: RefCell<Lately>,
    /// Successes and failures in a row, and the interval that they are of, where all counts begin anew with each.
    in_a_row: Cell<(u32, u32)>,
    of_interval: Cell<u64>,
    interval: u64,
    rates: (Ratio, Ratio),
    totals: Totals<Local>,
    last: Cell<Option<Transition>>,
    // Rejections before the last change.
    rejected_before: Cell<u64>,
    exceeded: Cell<(u32, u32)>,
    changes: Cell<u32>,
}

impl<'c> Log<'c> {
    pub(crate) fn new<'a>(plan: &Plan<'a>, clock: &'c ManualClock) -> Result<'a, Self> {
        Ok(Self {
            clock,
            lately: RefCell::new(Lately::of(plan)?),
            in_a_row: Cell::new((0, 0)),
            of_interval: Cell::new(0),
            interval: match (plan.interval, plan.bucket) {
                (Some(interval), None) => u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX),
                _ => u64::MAX,
            },
            rates: plan.rates,
            totals: Totals::new(()),
            last: Cell::new(None),
            rejected_before: Cell::new(0),
            exceeded: Cell::new((0, 0)),
            changes: Cell::new(0),
        })
    }

    /// What became of the calls of this state, as far back as the dialect looks.
    pub(super) fn tally(&self) -> Tally {
        self.lately.borrow().sum(self.clock.now())
    }

    /// Successes, and failures, in a row.
    pub(super) fn in_a_row(&self) -> (u32, u32) {
        let current = self.clock.now().as_nanos() / self.interval.max(1);
        if self.of_interval.replace(current) != current {
            self.in_a_row.set((0, 0));
        }
        self.in_a_row.get()
    }

    /// The last change.
    pub(crate) const fn last(&self) -> Option<Transition> {
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

    /// Changes from one state to another.
    pub(super) const fn changes(&self) -> u32 {
        self.changes.get()
    }

    /// What became of all calls.
    pub(super) const fn totals(&self) -> &Totals<Local> {
        &self.totals
    }

    /// Counts a rejection without a breaker that rejects.
    pub(super) fn reject(&self) {
        self.totals.called(Called::Rejected);
    }
}

impl Observer<Transition> for &Log<'_> {
    fn observe(&self, event: &Transition) {
        self.lately.borrow_mut().clear();
        self.in_a_row.set((0, 0));
        self.last.set(Some(*event));
        self.rejected_before.set(self.totals.rejected());
        // Neither one from a state into itself, nor one that would have happened.
        if event.from != event.to && (event.from, event.to) != (StateKind::MetricsOnly, StateKind::Open) {
            self.changes.set(self.changes.get().saturating_add(1));
        }
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
        let mut tally = Tally::default();
        let (successes, failures) = self.in_a_row();
        match called {
            Called::Admitted => tally.requests = 1,
            Called::Recorded(Outcome::Success) => {
                tally.successes = 1;
                self.in_a_row.set((successes.saturating_add(1), 0));
            }
            Called::Recorded(Outcome::Failure) => {
                tally.failures = 1;
                self.in_a_row.set((0, failures.saturating_add(1)));
            }
            Called::Recorded(Outcome::Ignored) => tally.exclusions = 1,
            Called::Rejected | Called::Abandoned | Called::Late => return,
        }
        self.lately.borrow_mut().add(&tally, self.clock.now());
    }
}

pub(crate) type Breaker<'a, 'c> = CircuitBreaker<Local, AnyTrip<'a>, &'c Log<'c>>;

/// A call that is out: its name, the generation that let it out, and its permit.
type Out<'a, 'c> = (&'a str, u16, Permit<'c, Local, AnyTrip<'a>, &'c Log<'c>, &'c ManualClock>);

/// A breaker, and the calls that are out.
pub(crate) struct Rig<'a, 'c> {
    breaker: &'c Breaker<'a, 'c>,
    plan: &'c Plan<'a>,
    clock: &'c ManualClock,
    out: heapless::Vec<Out<'a, 'c>, CALLS>,
}

/// Builds the breaker of a plan and hands it to `walk`.
pub(crate) fn with<'a>(
    plan: &Plan<'a>,
    clock: &ManualClock,
    walk: &mut dyn FnMut(&mut Rig<'a, '_>) -> Result<'a, ()>,
) -> Result<'a, ()> {
    let log = Log::new(plan, clock)?;
    let breaker = Breaker::with_observer(plan.config().validate()?, &log);
    walk(&mut Rig { breaker: &breaker, plan, clock, out: heapless::Vec::new() })
}

impl<'a, 'c> Rig<'a, 'c> {
    fn take(&mut self, fits: impl Fn(&str, u16) -> bool) -> Option<Out<'a, 'c>> {
        let place = self.out.iter().position(|(token, generation, _)| fits(token, *generation))?;
        Some(self.out.remove(place))
    }

    /// Asks for a call, which is then out under this name; the empty one is nobody's.
    pub(crate) fn acquire(&mut self, token: &'a str) -> Result<'a, core::result::Result<(), Rejected>> {
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

    /// Reports for the call of this name.
    pub(crate) fn end(&mut self, token: &str, verdict: Verdict) {
        if let Some((.., permit)) = self.take(|other, _| other == token) {
            permit.record(verdict);
        }
    }

    /// Reports for the call without a name that has been out for longest, or else for one that is asked for now.
    pub(crate) fn record(&mut self, verdict: Verdict) -> Result<'a, ()> {
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

    /// Gives up the call of this name that has been out for longest.
    pub(crate) fn release(&mut self, token: &str) {
        drop(self.take(|other, _| other == token));
    }

    pub(crate) fn by_hand(&mut self, hand: Hand) {
        match hand {
            Hand::Close => self.breaker.reset(),
            Hand::Open => {
                // By hand, periods grow only if somebody makes them.
                let Snapshot { state, reopened, counts, .. } = self.snapshot();
                let reopened = if state == StateKind::HalfOpen { reopened.saturating_add(1) } else { 0 };
                let at = self.clock.now();
                let opening = Opening { configured: Span::of(self.plan.open_for), reopened, counts, at };
                let period = self.plan.trip.open_span(&opening);
                self.breaker.open_until(at.saturating_add(period.duration()));
            }
            Hand::OpenUntil(until) => self.breaker.open_until(until),
            Hand::HalfOpen => self.breaker.half_open(&self.clock),
            Hand::Isolate => self.breaker.isolate(),
            Hand::Disable => self.breaker.disable(),
            Hand::ObserveOnly => self.breaker.observe_only(),
        }
    }

    pub(crate) fn handle_timeout(&mut self) {
        self.breaker.handle_timeout(&self.clock);
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.breaker.snapshot(&self.clock)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.breaker.poll_timeout()
    }

    pub(crate) const fn log(&self) -> &Log<'_> {
        self.breaker.observer()
    }
}
