//! Hedges: tries of one call, each of which ends when a step says so; and delays that follow the latencies.

use core::cell::{Cell, RefCell};
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use failsoft_core::budget::{RetryBudget, RetryThrottle, SpentTokens};
use failsoft_core::cell::Local;
use failsoft_core::hedge::{self, AveragePlus, FixedDelay, Hedge, Hedged, Hedges, Idempotent, Room};
use failsoft_core::testing::{VirtualExecutor, VirtualSleep};
use failsoft_core::{Clock, Executor, Instant, Observer, Outcome, Pipeline, Verdict};

use crate::budget::throttle_settings;
use crate::checks::{Actual, Checks};
use crate::number::{Decimal, Quantity};
use crate::tape::Object;
use crate::vector::{Result, Step, Unsupported, Vector};

/// Tries of one call.
const TRIES: usize = 6;

#[inline(never)]
pub(crate) fn run<'a>(vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    match (vector.dialect(), vector.config.text("kind")?) {
        ("grpc", None) => tries(vector, checks),
        ("r4j", Some("average_plus")) => latencies(vector, checks),
        (_, Some(_)) => Err(Unsupported::Value { key: "kind", problem: "is not known" }),
        (dialect, None) => Err(Unsupported::Dialect(dialect)),
    }
}

fn tries<'a>(vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    let config = vector.config.only(&["dialect", "max_attempts", "delay_ms", "budget"])?;
    let budget = match config.object("budget")? {
        Some(budget) => {
            let budget = budget.only(&["max_tokens", "token_ratio"])?;
            Throttled(Some(RetryThrottle::new(throttle_settings(budget)?.validate()?)))
        }
        None => Throttled(None),
    };
    // Without a delay, all are sent at once.
    let delay = config.span("delay_ms")?.unwrap_or(Duration::ZERO);
    // As a type says how many there are, each number of them is code of its own.
    match config.needed("max_attempts", config.count("max_attempts"))? {
        2 => walk::<1>(vector, delay, &budget, checks),
        3 => walk::<2>(vector, delay, &budget, checks),
        4 => walk::<3>(vector, delay, &budget, checks),
        5 => walk::<4>(vector, delay, &budget, checks),
        6 => walk::<5>(vector, delay, &budget, checks),
        _ => Err(Unsupported::Value { key: "max_attempts", problem: "is not between 2 and 6" }),
    }
}

/// A throttle, where there is one.
struct Throttled(Option<RetryThrottle<Local>>);

impl Throttled {
    fn allows(&self) -> bool {
        self.0.as_ref().is_none_or(RetryThrottle::allows)
    }
}

impl RetryBudget for Throttled {
    type Spent = Option<SpentTokens>;

    fn begin(&self, clock: &impl Clock) -> Option<SpentTokens> {
        self.0.as_ref().map(|throttle| throttle.begin(clock))
    }

    fn join(&self, clock: &impl Clock) -> Option<SpentTokens> {
        self.0.as_ref().map(|throttle| throttle.join(clock))
    }

    fn try_retry(&self, spent: &mut Option<SpentTokens>, verdict: Verdict, clock: &impl Clock) -> bool {
        let both = self.0.as_ref().zip(spent.as_mut());
        both.is_none_or(|(throttle, spent)| throttle.try_retry(spent, verdict, clock))
    }

    fn end(&self, spent: Option<SpentTokens>, outcome: Outcome) {
        if let Some((throttle, spent)) = self.0.as_ref().zip(spent) {
            throttle.end(spent, outcome);
        }
    }
}

/// The tries of the call under way, as their operations see it.
#[derive(Default)]
struct Tries {
    started: Cell<u32>,
    /// How a try is to end, by its place.
    ends: [Cell<Option<End>>; TRIES],
    /// Tries that were dropped before they ended.
    cancelled: RefCell<heapless::Vec<u32, TRIES>>,
    winner: Cell<Option<u32>>,
}

/// How a try ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Answer,
    /// With what the server says about the next try.
    Failure(Option<Pushback>),
    Fatal,
}

/// When a server wants to be asked again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Pushback {
    After(Duration),
    Never,
}

/// One try, from its start until it ends or is dropped.
struct Try<'t> {
    tries: &'t Tries,
    number: u32,
    ended: Cell<bool>,
}

impl Try<'_> {
    fn end(&self) -> Option<End> {
        let place = usize::try_from(self.number).ok()?.checked_sub(1)?;
        let end = self.tries.ends.get(place)?.get();
        self.ended.set(end.is_some());
        end
    }
}

impl Drop for Try<'_> {
    fn drop(&mut self) {
        if !self.ended.get() {
            let _ = self.tries.cancelled.borrow_mut().push(self.number);
        }
    }
}

impl Observer<Hedged> for &Tries {
    fn observe(&self, event: &Hedged) {
        if let Hedged::Won { hedge, .. } = event {
            self.winner.set(Some(hedge.saturating_add(1)));
        }
    }
}

/// Virtual time, and how many timers are waited for.
#[derive(Clone, Copy)]
struct Timers<'x> {
    executor: &'x VirtualExecutor<TRIES>,
    armed: &'x Cell<u32>,
}

impl Clock for Timers<'_> {
    fn now(&self) -> Instant {
        self.executor.now()
    }
}

impl<'x> Executor for Timers<'x> {
    type Sleep = Timer<'x>;

    fn sleep_until(&self, at: Instant) -> Timer<'x> {
        self.armed.set(self.armed.get().saturating_add(1));
        Timer { sleep: self.executor.sleep_until(at), armed: self.armed }
    }

    fn random(&self) -> u32 {
        self.executor.random()
    }
}

struct Timer<'x> {
    sleep: VirtualSleep<'x, TRIES>,
    armed: &'x Cell<u32>,
}

impl Future for Timer<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.sleep).poll(cx)
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        self.armed.set(self.armed.get().saturating_sub(1));
    }
}

fn walk<'a, const N: usize>(
    vector: &Vector<'a>,
    delay: Duration,
    budget: &Throttled,
    checks: &mut Checks,
) -> Result<'a, ()>
where
    Hedges<N>: Room,
{
    let (executor, armed, tries) = (VirtualExecutor::seeded(0), Cell::new(0), Tries::default());
    let timers = Timers { executor: &executor, armed: &armed };
    let hedge = Hedge::<Local, N, _, _, _>::with_budget(FixedDelay::new(delay), Idempotent, &tries, budget);
    let pipeline =
        Pipeline::new(timers).layer(&hedge).classify(|result: core::result::Result<&u32, &End>| match result {
            Ok(_) => Verdict::SUCCESS,
            Err(End::Fatal) => Verdict::PERMANENT,
            Err(End::Failure(Some(Pushback::After(wait)))) => Verdict::TRANSIENT.with_delay(*wait),
            Err(End::Failure(Some(Pushback::Never))) => Verdict::TRANSIENT.with_delay(Duration::MAX),
            Err(_) => Verdict::TRANSIENT,
        });
    let call = pin!(Some(pipeline.call(|attempt| {
        let made = Try { tries: &tries, number: attempt.hedge().saturating_add(1), ended: Cell::new(false) };
        tries.started.set(tries.started.get().saturating_add(1));
        poll_fn(move |_| match made.end() {
            None => Poll::Pending,
            Some(End::Answer) => Poll::Ready(Ok(made.number)),
            Some(end) => Poll::Ready(Err(end)),
        })
    })));
    progress(vector, (&tries, budget), timers, call, checks)
}

/// What a call comes to.
type Ended = core::result::Result<u32, failsoft_core::Failure<End>>;

/// A call that may be given up.
trait Underway {
    fn poll(self: Pin<&mut Self>) -> Poll<Ended>;
    fn cancel(self: Pin<&mut Self>);
}

impl<F: Future<Output = Ended>> Underway for Option<F> {
    fn poll(self: Pin<&mut Self>) -> Poll<Ended> {
        let cx = &mut Context::from_waker(Waker::noop());
        self.as_pin_mut().map_or(Poll::Pending, |call| call.poll(cx))
    }

    fn cancel(mut self: Pin<&mut Self>) {
        self.set(None);
    }
}

/// Takes the steps; `call` is the one under way.
fn progress<'a>(
    vector: &Vector<'a>,
    (tries, budget): (&Tries, &Throttled),
    timers: Timers<'_>,
    mut call: Pin<&mut dyn Underway>,
    checks: &mut Checks,
) -> Result<'a, ()> {
    let (mut begun, mut answer) = (false, None);
    for step in vector.steps() {
        checks.begin(&step);
        if let Some(at) = step.at()? {
            timers.executor.jump_to(at);
        }
        for _ in 0..step.repeat()? {
            match step.op {
                "start" => {
                    step.no_args()?;
                    begun = true;
                }
                "snapshot" | "tick" => step.no_args()?,
                "response" => end(tries, &step, End::Answer)?,
                "non_fatal_failure" => end(tries, &step, End::Failure(pushback(&step)?))?,
                "cancel" => {
                    step.no_args()?;
                    call.as_mut().cancel();
                }
                "fatal_failure" => end(tries, &step, End::Fatal)?,
                op => return Err(Unsupported::Op(op)),
            }
            if begun && answer.is_none() {
                answer = match call.as_mut().poll() {
                    Poll::Ready(result) => Some(result),
                    Poll::Pending => None,
                };
            }
            let cancelled: heapless::Vec<Quantity, TRIES> =
                tries.cancelled.borrow().iter().map(|number| Quantity::whole(*number)).collect();
            checks.expect(&step, &mut |key| {
                Some(match key {
                    "started" => Actual::whole(tries.started.get()),
                    "allowed" => Actual::Bool(budget.allows()),
                    "finished" => Actual::Bool(answer.is_some()),
                    "cancelled" => Actual::Numbers(&cancelled),
                    "timer_pending" => Actual::Bool(timers.armed.get() > 0),
                    // The first one wins without an event: there was nothing to choose from.
                    "winner" => match &answer {
                        Some(Ok(number)) => Actual::whole(tries.winner.get().unwrap_or(*number)),
                        _ => Actual::Nothing,
                    },
                    _ => return None,
                })
            })?;
        }
    }
    Ok(())
}

fn end<'a>(tries: &Tries, step: &Step<'a>, end: End) -> Result<'a, ()> {
    let args = step.args()?.only_args(&["attempt", "server_delay_ms"])?;
    let number = args.needed("attempt", args.count("attempt"))?;
    let place = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    match place.and_then(|place| tries.ends.get(place)) {
        Some(place) if number <= tries.started.get() => {
            place.set(Some(end));
            Ok(())
        }
        _ => Err(Unsupported::Value { key: "attempt", problem: "has not been started" }),
    }
}

/// Below zero, or what is no number, is never.
fn pushback<'a>(step: &Step<'a>) -> Result<'a, Option<Pushback>> {
    Ok(step.args()?.get("server_delay_ms").map(|delay| {
        let after = delay.number().and_then(Decimal::nanos).map(Duration::from_nanos);
        after.map_or(Pushback::Never, Pushback::After)
    }))
}

/// Latencies that a mean is taken of.
const WINDOW: usize = 100;

fn latencies<'a>(vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    let config = vector.config.only(&["dialect", "kind", "window", "add_ms", "percent", "measure_errors"])?;
    if config.count("window")?.is_some_and(|window| usize::try_from(window) != Ok(WINDOW)) {
        return Err(Unsupported::Value { key: "window", problem: "is not 100, the only one that this runner has" });
    }
    let mut hedge = None;
    for step in vector.steps() {
        checks.begin(&step);
        for _ in 0..step.repeat()? {
            let args = step.args()?.only_args(&["duration_ms", "measure_errors"])?;
            // Such a step has an estimator of its own.
            let op = step.op.strip_prefix("new_");
            if op.is_some() || hedge.is_none() {
                hedge = Some(estimator(config, args.flag("measure_errors")? || config.flag("measure_errors")?)?);
            }
            let took = args.needed("duration_ms", args.span("duration_ms"))?;
            let Some(hedge) = &hedge else { continue };
            match op.unwrap_or(step.op) {
                "primary_success" => hedge.record(hedge::Ended::Success, took),
                "primary_failure" => hedge.record(hedge::Ended::Failure, took),
                // Only first tries are measured.
                "secondary_success" | "secondary_failure" => {}
                _ => return Err(Unsupported::Op(step.op)),
            }
            checks.expect(&step, &mut |key| {
                (key == "hedge_delay_ms").then(|| Actual::Number(Quantity::millis(hedge.delay())))
            })?;
        }
    }
    Ok(())
}

type Averaged = Hedge<Local, 1, AveragePlus<WINDOW>>;

fn estimator(config: Object<'_>, failures: bool) -> Result<'_, Averaged> {
    let mut delay = AveragePlus::new(config.span("add_ms")?.unwrap_or(Duration::ZERO));
    if let Some(percent) = config.percent("percent")? {
        delay = delay.with_percent(percent);
    }
    if failures {
        delay = delay.with_failures();
    }
    Ok(Hedge::new(delay.validate()?, Idempotent))
}
