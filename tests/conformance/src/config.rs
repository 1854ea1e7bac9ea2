//! Configurations: what is refused, and what a configuration that says little has for the rest.

use core::time::Duration;

use failsoft_core::backoff::{Backoff, Jitter};
use failsoft_core::cell::{Fresh, Local};
use failsoft_core::circuit_breaker::{self, CircuitBreaker, Sample, TimeBased, Trip};
use failsoft_core::{Instant, bulkhead, rate_limiter};

use crate::breaker::plan::Plan;
use crate::checks::{Actual, Checks};
use crate::number::{Decimal, Quantity};
use crate::tape::{Object, Value};
use crate::vector::{Result, Step, Unsupported, Vector};

/// The most probes that this pattern counts.
const PROBES: usize = 32;

#[inline(never)]
pub(crate) fn run<'a>(vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    for step in vector.steps() {
        checks.begin(&step);
        for _ in 0..step.repeat()? {
            match vector.dialect() {
                "envoy" => crate::adaptive::settings(vector.config, &step, checks)?,
                "gobreaker" => breaker(vector.config, &step, checks)?,
                "failsafe" | "polly8" | "r4j" => refusals(vector, &step, checks)?,
                dialect => return Err(Unsupported::Dialect(dialect)),
            }
        }
    }
    Ok(())
}

/// Which settings are refused, whether they are all vectors' or this step's own.
fn refusals<'a>(vector: &Vector<'a>, step: &Step<'a>, checks: &mut Checks) -> Result<'a, ()> {
    let refused = match step.op {
        "build" => match step.arg {
            Value::Null => refused(vector.dialect(), vector.config)?,
            _ => {
                vector.config.only(&["dialect"])?;
                refused(vector.dialect(), step.args()?)?
            }
        },
        "delay" => {
            let args = step.args()?.only_args(&["attempt"])?;
            // It has no way to fail.
            let _: Duration = Backoff::new().delay(args.needed("attempt", args.count("attempt"))?);
            false
        }
        op => return Err(Unsupported::Op(op)),
    };
    checks.expect(step, &mut |key| (key == "error").then_some(Actual::Bool(refused)))
}

/// Whose settings these are, by one that only it has; otherwise they are a backoff's.
const BREAKER: [&str; 16] = [
    "break_ms",
    "failure",
    "failure_rate",
    "failure_ratio",
    "half_open_calls",
    "half_open_max_wait_ms",
    "min_calls",
    "min_throughput",
    "open_ms",
    "sampling_ms",
    "slow_call_ms",
    "slow_rate",
    "success",
    "window",
    "window_s",
    "window_size",
];
const RETRY: [&str; 2] = ["max_attempts", "max_retries"];
const LIMITER: [&str; 2] = ["cycle_ms", "limit"];
const BULKHEAD: [&str; 1] = ["max_concurrent"];

/// Whether the library refuses these settings, or its types can't even say them: below zero.
fn refused<'a>(dialect: &'a str, settings: Object<'a>) -> Result<'a, bool> {
    let has = |keys: &[&str]| settings.iter().any(|(key, _)| keys.contains(&key));
    let negative = |(key, value): (&str, Value<'_>)| {
        // As many attempts as it takes, there.
        let unlimited = dialect == "failsafe" && RETRY.contains(&key);
        !unlimited && value.number().is_some_and(|number| number.mantissa < 0)
    };
    if settings.iter().any(negative) {
        return Ok(true);
    }
    let built = if has(&BREAKER) {
        Plan::by(dialect, settings).and_then(|plan| Ok(plan.config().validate().map(drop)?))
    } else if has(&LIMITER) {
        limiter(settings)
    } else if has(&BULKHEAD) {
        let bulkhead = settings.only(&["dialect", "max_concurrent", "max_wait_ms"])?;
        let permits = bulkhead.needed("max_concurrent", bulkhead.count("max_concurrent"))?;
        bulkhead::Config::new(permits).validate().map(drop).map_err(Unsupported::from)
    } else if has(&RETRY) {
        crate::retry::settings(dialect, settings).and_then(|settings| Ok(settings.validate().map(drop)?))
    } else {
        settings.only_args(&["dialect", "base_ms", "max_ms", "factor", "jitter_factor"])?;
        return Ok(backoff(settings)?.is_none_or(|backoff| backoff.check().is_err()));
    };
    match built {
        Ok(()) => Ok(false),
        Err(Unsupported::Refused(_)) => Ok(true),
        Err(unsupported) => Err(unsupported),
    }
}

fn limiter(settings: Object<'_>) -> Result<'_, ()> {
    let settings = settings.only(&["dialect", "kind", "limit", "cycle_ms", "max_wait_ms"])?;
    let limit = settings.count("limit")?.unwrap_or(50);
    let cycle = settings.span("cycle_ms")?.unwrap_or(Duration::from_nanos(500));
    let wait = settings.span("max_wait_ms")?.unwrap_or(Duration::from_secs(5));
    Ok(rate_limiter::Config::new(limit, cycle).with_queue(u32::MAX, wait).validate().map(drop)?)
}

/// The backoff that the arguments ask for; `None` where its types can't even say it: below zero.
fn backoff(args: Object<'_>) -> Result<'_, Option<Backoff>> {
    let span = |number: Decimal| number.nanos().map(Duration::from_nanos);
    let base = match args.number("base_ms")? {
        None => Some(Duration::from_millis(500)),
        Some(base) => span(base),
    };
    let Some(base) = base else { return Ok(None) };
    let mut backoff = Backoff::exponential(base).with_jitter(Jitter::None);
    if let Some(cap) = args.number("max_ms")? {
        let Some(cap) = span(cap) else { return Ok(None) };
        backoff = backoff.with_cap(cap);
    }
    if let Some(factor) = args.number("factor")? {
        let Some(factor) = factor.share() else { return Ok(None) };
        backoff = backoff.with_factor(factor);
    }
    if let Some(jitter) = args.number("jitter_factor")? {
        let Some(jitter) = jitter.share() else { return Ok(None) };
        backoff = backoff.with_jitter(Jitter::Proportional(jitter));
    }
    Ok(Some(backoff))
}

/// What a breaker does where the configuration says nothing. A negative span, which can't be said here, says nothing.
fn breaker<'a>(config: Object<'a>, step: &Step<'a>, checks: &mut Checks) -> Result<'a, ()> {
    config.only(&["dialect", "interval_ms", "open_ms", "half_open_max"])?;
    step.no_args()?;
    if step.op != "build" {
        return Err(Unsupported::Op(step.op));
    }
    let said =
        |number: Option<Decimal>| number.and_then(Decimal::nanos).filter(|nanos| *nanos > 0).map(Duration::from_nanos);
    let interval = said(config.number("interval_ms")?);
    let mut settings = circuit_breaker::Config::new();
    if let Some(open_for) = said(config.number("open_ms")?) {
        settings = settings.with_open_for(open_for);
    }
    if let Some(probes) = config.count("half_open_max")?.filter(|probes| *probes > 0) {
        settings = settings.with_probes(probes);
    }
    let breaker = CircuitBreaker::<Local>::new(settings.validate()?);
    let (start, late) = (Instant::START, Instant::from_millis(365 * 24 * 3_600_000));
    breaker.try_acquire(start).map_err(|_| Unsupported::Room("a closed breaker"))?.failure();
    let interval = match interval {
        Some(interval) => counted_for(interval)?,
        // A failure that is still counted after a year: there is no interval after which the counts start again.
        None => (breaker.snapshot(&late).counts.failures == 1).then(|| Quantity::whole(0)),
    };
    let mut failures = 1_u32;
    while let Ok(permit) = breaker.try_acquire(start) {
        permit.failure();
        failures = failures.saturating_add(1);
        if failures > 1_000 {
            break;
        }
    }
    let until = breaker.poll_timeout().unwrap_or(start);
    // All that half-open lets out at once.
    let mut probes = heapless::Vec::<_, PROBES>::new();
    while let Ok(probe) = breaker.try_acquire(until) {
        if probes.push(probe).is_err() {
            break;
        }
    }
    checks.expect(step, &mut |key| {
        Some(match key {
            "interval_ms" => Actual::maybe(interval),
            "open_ms" => Actual::Number(Quantity::until(start, until)),
            "half_open_max" => Actual::whole(i128::try_from(probes.len()).unwrap_or(i128::MAX)),
            _ => return None,
        })
    })
}

/// How long a failure counts in a window of this length, where that is what it should be.
fn counted_for<'a>(interval: Duration) -> Result<'a, Option<Quantity>> {
    let condition = TimeBased::<1>::of_failures(u32::MAX, interval)?;
    let mut meter = Fresh::FRESH;
    condition.record(&mut meter, Sample::of(true), Some(Instant::START));
    let end = Instant::START.saturating_add(interval);
    let last = Instant::from_nanos(end.as_nanos().saturating_sub(1));
    let counted = [last, end].map(|now| condition.counts(&meter, Some(now)).failures);
    Ok((counted == [1, 0]).then(|| Quantity::until(Instant::START, end)))
}
