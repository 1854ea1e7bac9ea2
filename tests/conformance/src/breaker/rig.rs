//! A breaker of any condition behind one face, with the calls that are out.

use core::cell::{Cell, RefCell};
use core::time::Duration;

use failsoft_core::cell::{CellKind, Fresh, Local};
use failsoft_core::circuit_breaker::{
    CircuitBreaker, Config, ConsecutiveFailures, CountBased, Counts, Opening, Permit, Sample, Snapshot, State,
    StateKind, TimeBased, Totals, Transition, Trip,
};
use failsoft_core::testing::ManualClock;
use failsoft_core::window::{Accumulate, TimeWindow};
use failsoft_core::{Called, Clock, Instant, Observer, Outcome, Ratio, Rejected, Span, Verdict};

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
    fn log(&self) -> &Log<'_>;
}

/// What became of calls.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
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
    fn add(&mut self, other: &Self) {
        self.each(other, u32::saturating_add);
    }

    fn subtract(&mut self, other: &Self) {
        self.each(other, u32::saturating_sub);
    }
}

/// A tally that forgets: never, all at once after each interval, or a tenth of it after the other.
#[derive(Clone, Copy)]
enum Lately {
    Whole(TimeWindow<Tally, 1>, Span),
    Tenths(TimeWindow<Tally, 10>, Span),
}

impl Lately {
    fn of(plan: &Plan<'_>) -> Self {
        match plan.bucket {
            Some(bucket) => Self::Tenths(TimeWindow::new(), Span::of(bucket)),
            None => Self::Whole(TimeWindow::new(), plan.interval.map_or(Span::MAX, Span::of)),
        }
    }

    fn clear(&mut self) {
        match self {
            Self::Whole(window, _) => *window = TimeWindow::new(),
            Self::Tenths(window, _) => *window = TimeWindow::new(),
        }
    }

    fn add(&mut self, tally: &Tally, now: Instant) {
        match self {
            Self::Whole(window, length) => window.add(tally, *length, now),
            Self::Tenths(window, length) => window.add(tally, *length, now),
        }
    }

    fn sum(&self, now: Instant) -> Tally {
        match self {
            Self::Whole(window, length) => window.sum(*length, now),
            Self::Tenths(window, length) => window.sum(*length, now),
        }
    }
}

/// What the breaker told its observer.
pub(super) struct Log<'c> {
    clock: &'c ManualClock,
    lately: RefCell<Lately>,
    /// Successes and failures in a row.
    in_a_row: Cell<(u32, u32)>,
    rates: (Ratio, Ratio),
    totals: Totals<Local>,
    last: Cell<Option<Transition>>,
    // Rejections before the last change.
    rejected_before: Cell<u64>,
    exceeded: Cell<(u32, u32)>,
}

impl<'c> Log<'c> {
    fn new(plan: &Plan<'_>, clock: &'c ManualClock) -> Self {
        Self {
            clock,
            lately: RefCell::new(Lately::of(plan)),
            in_a_row: Cell::new((0, 0)),
            rates: plan.rates,
            totals: Totals::new(()),
            last: Cell::new(None),
            rejected_before: Cell::new(0),
            exceeded: Cell::new((0, 0)),
        }
    }

    /// What became of the calls of this state, as far back as the dialect looks.
    pub(super) fn tally(&self) -> Tally {
        self.lately.borrow().sum(self.clock.now())
    }

    /// Successes, and failures, in a row.
    pub(super) const fn in_a_row(&self) -> (u32, u32) {
        self.in_a_row.get()
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

impl Observer<Transition> for &Log<'_> {
    fn observe(&self, event: &Transition) {
        self.lately.borrow_mut().clear();
        self.in_a_row.set((0, 0));
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
        let mut tally = Tally::default();
        let (successes, failures) = self.in_a_row.get();
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

type Walk<'w, 'a> = &'w mut dyn FnMut(&mut dyn Rig<'a>) -> Result<'a, ()>;

/// Builds the breaker of a plan and hands it to `walk`.
pub(super) fn with<'a>(plan: &Plan<'a>, clock: &ManualClock, walk: Walk<'_, 'a>) -> Result<'a, ()> {
    let (successes, trials) = plan.trials;
    let config = Config::new().with_open_for(plan.open_for).with_trials(successes, trials);
    let config = match plan.half_open_for {
        None => config.without_half_open_deadline(),
        Some(deadline) => config.with_half_open_for(deadline),
    };
    let config = if plan.full_trial { config.with_full_trial() } else { config };
    match plan.condition {
        Condition::Consecutive(failures) => {
            build(plan, config.with_trip(ConsecutiveFailures::new(failures)?), clock, walk)
        }
        Condition::Rate { rate, window, minimum } => {
            let trip = CountBased::<WORDS>::new(rate, window)?.with_minimum_calls(minimum)?;
            let trip = match plan.slow_after {
                Some(limit) => trip.with_slow_rate(plan.rates.1, limit)?,
                None => trip,
            };
            build(plan, config.with_trip(trip), clock, walk)
        }
        Condition::Failures { count, of } => {
            build(plan, config.with_trip(CountBased::<WORDS>::of_failures(count, of)?), clock, walk)
        }
        Condition::TimedFailures { count, window } => {
            build(plan, config.with_trip(TimeBased::<10>::of_failures(count, window)?), clock, walk)
        }
        Condition::TimedRate { rate, window, minimum } => {
            let window = if window.is_zero() { Duration::MAX } else { window };
            let buckets = plan.bucket.map_or(1, |bucket| window.as_nanos() / bucket.as_nanos().max(1));
            match buckets {
                1 => timed::<1>(plan, config, rate, window, minimum, clock, walk),
                5 => timed::<5>(plan, config, rate, window, minimum, clock, walk),
                10 => timed::<10>(plan, config, rate, window, minimum, clock, walk),
                20 => timed::<20>(plan, config, rate, window, minimum, clock, walk),
                60 => timed::<60>(plan, config, rate, window, minimum, clock, walk),
                _ => Err(Unsupported::Room("a window of so many buckets")),
            }
        }
    }
}

/// Memory of the windows of calls: 1,024 of them.
const WORDS: usize = 32;

#[inline(never)]
fn timed<'a, const BUCKETS: usize>(
    plan: &Plan<'a>,
    config: Config,
    rate: Ratio,
    window: Duration,
    minimum: u32,
    clock: &ManualClock,
    walk: Walk<'_, 'a>,
) -> Result<'a, ()> {
    let trip = TimeBased::<BUCKETS>::new(rate, window)?.with_minimum_calls(minimum)?;
    let trip = match plan.slow_after {
        Some(limit) => trip.with_slow_rate(plan.rates.1, limit)?,
        None => trip,
    };
    match plan.opening {
        Some(opening) => build(plan, config.with_trip(Generated { trip, opening }), clock, walk),
        None => build(plan, config.with_trip(trip), clock, walk),
    }
}

/// A condition whose open period depends on what opened the breaker.
#[derive(Clone, Copy, Debug)]
struct Generated<T> {
    trip: T,
    opening: (u32, Ratio, Duration),
}

impl<T: Trip> Trip for Generated<T> {
    type Meter = T::Meter;

    fn record(&self, meter: &mut T::Meter, sample: Sample, now: Option<Instant>) -> Option<bool> {
        self.trip.record(meter, sample, now)
    }

    fn is_healthy(&self, meter: &T::Meter) -> bool {
        self.trip.is_healthy(meter)
    }

    fn counts(&self, meter: &T::Meter, now: Option<Instant>) -> Counts {
        self.trip.counts(meter, now)
    }

    fn slow_after(&self) -> Span {
        self.trip.slow_after()
    }

    fn open_span(&self, opening: &Opening) -> Span {
        let (failures, ratio, period) = self.opening;
        let fits = opening.counts.failures == failures && opening.counts.failure_rate() == Some(ratio);
        if fits { Span::of(period) } else { opening.configured }
    }
}

fn build<'a, T>(plan: &Plan<'a>, config: Config<T>, clock: &ManualClock, walk: Walk<'_, 'a>) -> Result<'a, ()>
where
    T: Copy + Trip,
    Local: CellKind<State<T::Meter>>,
{
    let log = Log::new(plan, clock);
    let breaker = CircuitBreaker::<Local, T, _>::with_observer(config.validate()?, &log);
    walk(&mut Built { breaker: &breaker, clock, out: heapless::Vec::new() })
}

type Out<'a, 'b, T> = (&'a str, u16, Permit<'b, Local, T, &'b Log<'b>, &'b ManualClock>);

struct Built<'a, 'b, T>
where
    T: Copy + Trip,
    Local: CellKind<State<T::Meter>>,
{
    breaker: &'b CircuitBreaker<Local, T, &'b Log<'b>>,
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
            Hand::HalfOpen => self.breaker.half_open(&self.clock),
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

    fn log(&self) -> &Log<'_> {
        self.breaker.observer()
    }
}
