//! Pipelines: calls of a scripted service through all policies at once, in virtual time.

use core::cell::Cell;
use core::time::Duration;

use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use failsoft_core::budget::{QuotaBudget, QuotaConfig, Used};
use failsoft_core::bulkhead::{self, Bulkhead, LocalQueue, Slots, Tally, WaitQueue};
use failsoft_core::cell::{CellKind, CriticalSection, Local};
use failsoft_core::circuit_breaker::{self, CircuitBreaker, ConsecutiveFailures, State, Transition, trip::Consecutive};
use failsoft_core::fallback::Fallback;
use failsoft_core::hedge::{Hedge, Hedged, Idempotent, Quantile};
use failsoft_core::last_good::{self, LastGood, Memory};
use failsoft_core::quantile::Sketch;
use failsoft_core::rate_limiter::{self, Arrival, RateLimiter};
use failsoft_core::retry::{self, RetryPolicy, Retrying};
use failsoft_core::testing::{Recorder, Script, Scripted, Step, VirtualExecutor};
use failsoft_core::timeout::Timeout;
use failsoft_core::{Clock, Failure, Instant, Pipeline, Ratio, Stop, Valid};
use failsoft_embassy::{Raw, RawQueue};
use failsoft_tokio::{Atomic, Locked, ThreadQueue};

use crate::bytes::{Bytes, accepted};
use crate::cells::same;

/// Further tries beside the first.
const HEDGES: usize = 1;
/// Calls of one input: each takes some dozen polls.
const CALLS: usize = 24;

/// Decodes and plays one input.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let Some(settings) = settings(&mut bytes) else { return };
    let mut calls = Vec::new();
    while !bytes.is_empty() && calls.len() < CALLS {
        let script = [step(&mut bytes), step(&mut bytes), step(&mut bytes)];
        calls.push(Call { script, pause: bytes.pause() });
    }
    let answers = play::<Local, Local, LocalQueue<4>>(&settings, &calls);
    let answers_of = play::<CriticalSection, CriticalSection, RawQueue<NoopRawMutex, 4>>(&settings, &calls);
    same("critical section", &answers, &answers_of);
    let answers_of = play::<Raw<NoopRawMutex>, Raw<NoopRawMutex>, RawQueue<NoopRawMutex, 4>>(&settings, &calls);
    same("embassy mutex", &answers, &answers_of);
    same("atomic words and a std mutex", &answers, &play::<Atomic, Locked, ThreadQueue>(&settings, &calls));
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    attempts: u32,
    retry: Valid<retry::Config>,
    quota: Valid<QuotaConfig>,
    breaker: Valid<circuit_breaker::Config>,
    bulkhead: Valid<bulkhead::Config>,
    limiter: Valid<rate_limiter::Config>,
    last_good: Valid<last_good::Config>,
    hedge: Valid<Quantile>,
    total: Duration,
    each: Duration,
    seed: u64,
}

fn settings(bytes: &mut Bytes<'_>) -> Option<Settings> {
    // Not for ever: an input has to come to its end.
    let attempts = u32::from(bytes.below(5));
    let flags = bytes.byte();
    let backoff = if flags & 1 == 0 { failsoft_core::backoff::Backoff::new() } else { bytes.backoff() };
    let retry = retry::Config::new().with_max_attempts(attempts).with_backoff(backoff);
    let retry = if flags & 2 == 0 { retry } else { retry.with_total_time(bytes.span()) };
    let retry = if flags & 4 == 0 { retry } else { retry.with_rejections() };
    let breaker = circuit_breaker::Config::new().with_open_for(bytes.pause()).with_probes(bytes.below(4).into());
    let breaker = breaker.with_trip(accepted(ConsecutiveFailures::new(bytes.below(6).into()))?);
    let bulkhead = bulkhead::Config::new(bytes.below(4).into()).with_queue(bytes.count(), bytes.pause());
    let limiter = rate_limiter::Config::new(bytes.count(), bytes.pause()).with_queue(bytes.count(), bytes.pause());
    let hedge = Quantile::new(Ratio::percent(80), bytes.pause()).with_window(8).with_minimum(bytes.below(5).into());
    let quota = QuotaConfig::new().with_capacity(bytes.count()).with_retry_cost(bytes.short());
    let last_good = last_good::Config::new().with_max_age(bytes.span());
    Some(Settings {
        attempts,
        retry: accepted(retry.validate())?,
        quota: accepted(quota.validate())?,
        breaker: accepted(breaker.validate())?,
        bulkhead: accepted(bulkhead.validate())?,
        limiter: accepted(limiter.validate())?,
        last_good: accepted(last_good.validate())?,
        hedge: accepted(hedge.validate())?,
        total: bytes.span(),
        each: if flags & 8 == 0 { Duration::from_secs(1) } else { bytes.span() },
        seed: bytes.word(),
    })
}

#[derive(Clone, Copy, Debug)]
struct Call {
    script: [Step; 3],
    pause: Duration,
}

fn step(bytes: &mut Bytes<'_>) -> Step {
    match bytes.below(8) {
        0..=2 => Step::Succeed,
        3 | 4 => Step::Fail,
        5 => Step::SucceedAfter(bytes.pause()),
        6 => Step::FailAfter(bytes.pause()),
        _ => Step::Hang,
    }
}

#[derive(Debug, PartialEq)]
struct Answer {
    /// `None` where nothing would ever happen any more: no timeout, and a service that hangs.
    result: Option<Result<u32, Failure<Scripted>>>,
    calls: u32,
    ended: Instant,
    retries: Vec<Retrying>,
    hedges: Vec<Hedged>,
    transitions: Vec<Transition>,
    breaker: circuit_breaker::Snapshot,
    tokens: u32,
    text: String,
}

fn play<W, T, Q>(settings: &Settings, calls: &[Call]) -> Vec<Answer>
where
    W: CellKind<State<Consecutive>> + CellKind<Slots> + CellKind<Tally> + CellKind<Arrival> + CellKind<Used>,
    T: CellKind<Sketch> + CellKind<Memory<u32>>,
    Q: WaitQueue,
{
    let executor = VirtualExecutor::<16>::seeded(settings.seed);
    let transitions = Recorder::<Transition, 32>::new();
    let (retries, hedges) = (Recorder::<Retrying, 16>::new(), Recorder::<Hedged, 32>::new());
    let quota = QuotaBudget::<W>::new(settings.quota);
    let breaker = CircuitBreaker::<W, ConsecutiveFailures, _>::with_observer(settings.breaker, &transitions);
    let bulkhead = Bulkhead::<W, Q>::new(settings.bulkhead);
    let limiter = RateLimiter::<W>::new(settings.limiter);
    let last_good = LastGood::<T, u32>::new(settings.last_good);
    let hedge = Hedge::<T, HEDGES, _, _, _>::with_budget(settings.hedge, Idempotent, &hedges, &quota);
    let fallen_back = Cell::new(0_u32);
    let pipeline = Pipeline::new(&executor)
        .layer(Fallback::new(|failure: Failure<Scripted>| {
            fallen_back.set(fallen_back.get() + 1);
            if failure.is_rejected() { Ok(0) } else { Err(failure) }
        }))
        .layer(&last_good)
        .layer(Timeout::new(settings.total))
        .layer(RetryPolicy::with_budget(settings.retry, &retries, &quota))
        .layer(&hedge)
        .layer(&limiter)
        .layer(&bulkhead)
        .layer(&breaker)
        .layer(Timeout::new(settings.each));
    let text = pipeline.to_string();
    assert!(!text.is_empty());
    let play = |call: &Call| {
        let (service, before) = (Script::new(&call.script), fallen_back.get());
        let began = executor.now();
        let result = executor.run(pipeline.call(|_| service.call(&executor))).ok();
        let ended = executor.now();
        // Promise 1: however it ended, nothing is left behind.
        assert_eq!(service.in_flight(), 0, "a call is left in the service: {result:?}");
        assert_eq!(bulkhead.snapshot().in_use, 0, "a permit is left: {result:?}");
        assert_eq!(breaker.snapshot(&executor).probes, 0, "a probe is left: {result:?}");
        let most = settings.attempts * (HEDGES as u32 + 1);
        assert!(service.calls() <= most, "{} calls, {most} at the most", service.calls());
        if let Some(result) = &result {
            // The clock only jumps to deadlines, so that the total is met to the nanosecond.
            assert!(ended <= began.saturating_add(settings.total), "{result:?} took until {ended:?}, from {began:?}");
            assert!(fallen_back.get() - before <= 1);
        }
        if let Some(Err(failure)) = result {
            assert!(!failure.to_string().is_empty());
            assert!(
                failure.stop != Some(Stop::Attempts) || failure.attempts >= settings.attempts.min(1),
                "{failure:?}"
            );
        }
        let answer = Answer {
            result,
            calls: service.calls(),
            ended,
            retries: retries.take().collect(),
            hedges: hedges.take().collect(),
            transitions: transitions.take().collect(),
            breaker: breaker.snapshot(&executor),
            tokens: quota.balance(),
            text: format!("{result:?}"),
        };
        executor.jump_to(ended.saturating_add(call.pause));
        answer
    };
    let answers = calls.iter().map(play).collect();
    assert_eq!(transitions.missed() + retries.missed() + hedges.missed(), 0, "more events than there can be");
    answers
}
