//! The policies, and what is done to them: calls that are aborted, dropped, panic, fail, hang and share each other's runs.

use core::array;
use core::future::{Future as _, pending, poll_fn};
use core::mem;
use core::pin::pin;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use core::task::Poll;
use core::time::Duration;
use std::panic::resume_unwind;
use std::sync::{LazyLock, Mutex, PoisonError};

use failsoft_tokio::budget::ConcurrentConfig;
use failsoft_tokio::circuit_breaker::{ConsecutiveFailures, StateKind, Totals, Transition};
use failsoft_tokio::hedge::FixedDelay;
use failsoft_tokio::pipeline::Attempt;
use failsoft_tokio::{
    Atomic, Backoff, Bulkhead, Cause, CircuitBreaker, Coalesce, ConcurrentBudget, Failure, Hedge, Idempotent, Jitter,
    Pipeline, Policy, RateLimiter, RetryPolicy, Rng, Timeout, Tokio, bulkhead, circuit_breaker, rate_limiter, retry,
    valid,
};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use crate::log::Rules;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const PERMITS: u32 = 32;
const RATE: u32 = 40_000;
const BURST: u32 = 400;
const LONGEST_WAIT: Duration = ms(20);
const KEYS: u32 = 512;
// Half-open ends before a probe that hangs is timed out, so that its deadline is met too.
pub(crate) const RULES: Rules = Rules { failures: 5, probes: 2, open_for: ms(5), half_open_for: ms(8) };

static TOTAL: Timeout = Timeout::new(ms(150));
static BUDGET: ConcurrentBudget = ConcurrentBudget::new(valid!(ConcurrentConfig::new().validate()));
static RETRY: RetryPolicy<(), &ConcurrentBudget> = RetryPolicy::with_budget(
    valid!(
        retry::Config::new()
            .with_max_attempts(4)
            .with_backoff(Backoff::constant(ms(2)).with_jitter(Jitter::Full))
            .validate()
    ),
    (),
    &BUDGET,
);
static HEDGE: Hedge<1, FixedDelay, (), &ConcurrentBudget> =
    Hedge::with_budget(FixedDelay::new(ms(3)), Idempotent, (), &BUDGET);
static LIMITER: RateLimiter = RateLimiter::new(valid!(
    rate_limiter::Config::new(RATE, Duration::from_secs(1)).with_burst(BURST).with_queue(400, LONGEST_WAIT).validate()
));
static BULKHEAD: Bulkhead =
    Bulkhead::new(valid!(bulkhead::Config::new(PERMITS).with_queue(1_000, LONGEST_WAIT).validate()));
type Log = Totals<Atomic, fn(&Transition)>;
static BREAKER: CircuitBreaker<ConsecutiveFailures, Log> = CircuitBreaker::with_observer(
    valid!(
        circuit_breaker::Config::new()
            .with_trip(valid!(ConsecutiveFailures::new(RULES.failures)))
            .with_open_for(RULES.open_for)
            .with_half_open_for(RULES.half_open_for)
            .with_probes(RULES.probes)
            .validate()
    ),
    Totals::new(|transition| TOLD.lock().unwrap_or_else(PoisonError::into_inner).push(*transition)),
);
static ATTEMPT: Timeout = Timeout::new(ms(10));
static SHARED: Coalesce<u32, Result<u32, Failure<&'static str>>> = Coalesce::new();

static TOLD: Mutex<Vec<Transition>> = Mutex::new(Vec::new());
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What is counted of the storm.
#[derive(Clone, Copy)]
enum Met {
    /// A call that succeeded.
    Done,
    Failed,
    TimedOut,
    OverRate,
    BulkheadFull,
    BreakerOpen,
    /// Its task was aborted.
    Aborted,
    /// Dropped by who was polling it.
    Dropped,
    Panicked,
    Operation,
    Retry,
    Hedge,
    Isolation,
}

const NAMES: [&str; 13] = [
    "calls that succeeded",
    "calls that failed",
    "calls that timed out",
    "calls that the limiter rejected",
    "calls that the bulkhead rejected",
    "calls that the breaker rejected",
    "calls that were aborted",
    "calls that were dropped",
    "calls that panicked",
    "operations",
    "retries",
    "hedges",
    "isolations by hand",
];
/// The first of them are the ways in which a call ends.
const ENDINGS: usize = 9;

static COUNTS: [AtomicU64; NAMES.len()] = [const { AtomicU64::new(0) }; NAMES.len()];

impl Met {
    fn count(self) -> &'static AtomicU64 {
        &COUNTS[self as usize]
    }

    fn once_more(self) {
        self.count().fetch_add(1, Relaxed);
    }
}

/// What was met, and how often.
pub(crate) fn counts() -> [(&'static str, u64); NAMES.len()] {
    array::from_fn(|place| (NAMES[place], COUNTS[place].load(Relaxed)))
}

/// The calls that have ended, in whatever way.
pub(crate) fn calls() -> u64 {
    COUNTS[..ENDINGS].iter().map(|count| count.load(Relaxed)).sum()
}

/// Operations under way, and the most of them at once.
static UNDER_WAY: AtomicU32 = AtomicU32::new(0);
static MOST_UNDER_WAY: AtomicU32 = AtomicU32::new(0);

/// One operation, for as long as it lives.
struct UnderWay;

impl UnderWay {
    fn new() -> Self {
        Met::Operation.once_more();
        let under_way = UNDER_WAY.fetch_add(1, Relaxed) + 1;
        MOST_UNDER_WAY.fetch_max(under_way, Relaxed);
        Self
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Relaxed);
    }
}

/// Whether the dependency is down: for about a third of the time, 100 ms at a stretch or longer.
fn is_down(seed: u64) -> bool {
    let slice = START.elapsed().as_millis() / 100;
    Rng::new(seed ^ u64::try_from(slice).unwrap_or(0) << 20).next().is_multiple_of(3)
}

async fn operate(seed: u64, mut rng: Rng) -> Result<u32, &'static str> {
    let _under_way = UnderWay::new();
    for _ in 0..rng.next() % 4 {
        yield_now().await;
    }
    // In per mille: panics, hangs, fails, takes its time.
    let [panics, hangs, fails, waits] = if is_down(seed) { [10, 150, 800, 850] } else { [5, 15, 35, 400] };
    let luck = rng.next() % 1_000;
    if luck < panics {
        // Not by the hook, which would only fill the log.
        resume_unwind(Box::new("the operation panics"));
    } else if luck < hangs {
        pending().await
    } else if luck < fails {
        Err("down")
    } else if luck < waits {
        sleep(Duration::from_micros((rng.next() % 5_000).into())).await;
        Ok(luck)
    } else {
        Ok(luck)
    }
}

async fn guarded(seed: u64, task: u64) -> Result<u32, Failure<&'static str>> {
    let pipeline = Pipeline::new(Tokio)
        .layer(&TOTAL)
        .layer(&RETRY)
        .layer(&HEDGE)
        .layer(&LIMITER)
        .layer(&BULKHEAD)
        .layer(&BREAKER)
        .layer(&ATTEMPT);
    let operation = |attempt: Attempt| {
        match (attempt.number(), attempt.hedge()) {
            (1, 0) => {}
            (_, 0) => Met::Retry.once_more(),
            _ => Met::Hedge.once_more(),
        }
        operate(seed, Rng::new(task << 8 | u64::from(attempt.number()) << 1 | u64::from(attempt.hedge())))
    };
    pipeline.call(operation).await
}

/// A call, which gives itself up after so many polls.
async fn call(seed: u64, task: u64, key: Option<u32>, polls: u32) -> Option<Result<u32, Failure<&'static str>>> {
    let mut call = pin!(async move {
        match key {
            Some(key) => SHARED.call(key, move || guarded(seed, task)).await,
            None => guarded(seed, task).await,
        }
    });
    let mut left = polls;
    poll_fn(|cx| match call.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

/// Makes one call after another until then, each a task of its own.
pub(crate) async fn caller(seed: u64, number: u64, until: Instant) {
    let mut rng = Rng::new(seed ^ number << 32);
    for turn in 0.. {
        sleep(Duration::from_micros((rng.next() % 100_000).into())).await;
        if Instant::now() >= until {
            return;
        }
        let key = rng.next().is_multiple_of(2).then(|| rng.next() % KEYS);
        let polls = if rng.next().is_multiple_of(8) { rng.next() % 8 } else { u32::MAX };
        let task = tokio::spawn(call(seed, number << 20 ^ turn ^ seed << 40, key, polls));
        if rng.next().is_multiple_of(8) {
            sleep(Duration::from_micros((rng.next() % 20_000).into())).await;
            task.abort();
        }
        let ending = match task.await {
            Ok(Some(Ok(_))) => Met::Done,
            Ok(Some(Err(failure))) => match failure.cause {
                Cause::Rejected(rejected) => match rejected.policy() {
                    Policy::RateLimiter => Met::OverRate,
                    Policy::Bulkhead => Met::BulkheadFull,
                    _ => Met::BreakerOpen,
                },
                Cause::TimedOut(_) => Met::TimedOut,
                _ => Met::Failed,
            },
            Ok(None) => Met::Dropped,
            Err(error) if error.is_cancelled() => Met::Aborted,
            Err(_) => Met::Panicked,
        };
        ending.once_more();
    }
}

/// Now and then holds the breaker open by hand.
pub(crate) async fn meddler(seed: u64, until: Instant) {
    let mut rng = Rng::new(seed ^ 0x6D65_6464);
    loop {
        sleep(Duration::from_micros((rng.next() % 400_000).into())).await;
        if Instant::now() >= until {
            return;
        }
        BREAKER.isolate();
        Met::Isolation.once_more();
        sleep(ms(2)).await;
        BREAKER.reset();
    }
}

/// What the breaker has told since the last time.
pub(crate) fn told() -> Vec<Transition> {
    mem::take(&mut *TOLD.lock().unwrap_or_else(PoisonError::into_inner))
}

/// How often the breaker was held open by hand.
pub(crate) fn isolations() -> u64 {
    Met::Isolation.count().load(Relaxed)
}

/// Once nobody calls: what has not come back.
pub(crate) async fn all_is_back() -> Result<(), String> {
    // Until the limiter's debts are paid.
    sleep(LONGEST_WAIT + Duration::from_secs(1) * BURST / RATE + ms(1)).await;
    let expect = |what: &str, is: u64, expected: u64| {
        if is == expected { Ok(()) } else { Err(format!("{what}: {is} instead of {expected}")) }
    };
    expect("operations under way", UNDER_WAY.load(Relaxed).into(), 0)?;
    let slots = BULKHEAD.snapshot();
    expect("permits of the bulkhead in use", slots.in_use.into(), 0)?;
    expect("callers in its line", slots.queued.into(), 0)?;
    let most = MOST_UNDER_WAY.load(Relaxed);
    if slots.high_water > PERMITS || most > PERMITS {
        return Err(format!("{most} operations at once, high water {}, of {PERMITS}", slots.high_water));
    }
    let in_flight = BUDGET.in_flight();
    expect("calls in the budget", in_flight.calls.into(), 0)?;
    expect("retries in the budget", in_flight.retries.into(), 0)?;
    expect("shared runs", SHARED.in_flight().try_into().unwrap_or(u64::MAX), 0)?;
    expect("permits of the limiter", LIMITER.available(&Tokio).try_into().unwrap_or(0), BURST.into())?;
    expect("probes of the breaker", BREAKER.snapshot(&Tokio).probes.into(), 0)?;
    let totals = BREAKER.observer();
    let settled = totals.successes() + totals.failures() + totals.ignored() + totals.abandoned() + totals.late();
    expect("calls that the breaker let in, by how they ended", settled, totals.admitted())
}

/// Whatever has been, it works.
pub(crate) async fn still_works() -> Result<(), String> {
    for _ in 0..1_000 {
        if let Ok(permit) = BREAKER.try_acquire(Tokio) {
            permit.success();
        }
        if BREAKER.state() == StateKind::Closed {
            let pipeline =
                Pipeline::new(Tokio).layer(&TOTAL).layer(&RETRY).layer(&LIMITER).layer(&BULKHEAD).layer(&BREAKER);
            let result = pipeline.call(async |_| Ok::<_, &str>(())).await;
            return result.map_err(|failure| format!("a good call fails afterwards: {failure}"));
        }
        sleep(ms(1)).await;
    }
    Err(format!("the breaker doesn't close: {:?}", BREAKER.snapshot(&Tokio)))
}
