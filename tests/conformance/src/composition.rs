//! Policies around one operation, in virtual time.
//!
//! A pipeline's type says what is in it and in which order. So there is one for each order of all policies, in which those that a
//! vector doesn't name do nothing.

use core::time::Duration;

use failsoft_core::backoff::{Backoff, Jitter};
use failsoft_core::bulkhead::{self, Bulkhead, MOST};
use failsoft_core::cell::Local;
use failsoft_core::circuit_breaker::StateKind;
use failsoft_core::fallback::Fallback;
use failsoft_core::pipeline::Layer;
use failsoft_core::rate_limiter::{self, RateLimiter};
use failsoft_core::retry::{self, RetryPolicy};
use failsoft_core::testing::{ManualClock, Script, Scripted, Step as Behaviour, VirtualExecutor};
use failsoft_core::timeout::Timeout;
use failsoft_core::{Clock, Failure, Pipeline, Reason};

use crate::breaker::plan::{Dialect, Plan};
use crate::breaker::rig::{Breaker, Log};
use crate::checks::{Actual, Checks};
use crate::tape::{Object, Value};
use crate::vector::{Result, Step, Unsupported, Vector};

/// Timers at once: few, to be small.
type Executor = VirtualExecutor<4>;

/// What a fallback answers; operations answer with the number of their call.
const INSTEAD: u32 = u32::MAX;

/// Calls of an operation that a script tells apart.
const CALLS: usize = 32;

/// The policies that a breaker stands within, and those within it.
const BREAKER_WITHIN: [&str; 6] = ["fallback", "retry", "rate_limiter", "bulkhead", "circuit_breaker", "timeout"];
const BREAKER_AROUND: [&str; 6] = ["fallback", "circuit_breaker", "retry", "rate_limiter", "bulkhead", "timeout"];

#[inline(never)]
pub(crate) fn run<'a>(vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    let config = vector.config.only(&[
        "dialect",
        "order_outer_to_inner",
        "fallback",
        "retry",
        "rate_limiter",
        "bulkhead",
        "circuit_breaker",
        "timeout",
    ])?;
    match vector.dialect() {
        "failsafe" => {}
        dialect => return Err(Unsupported::Dialect(dialect)),
    }
    let (executor, clock) = (Executor::seeded(0), ManualClock::new());
    let plan = Plan::failsafe(config.object("circuit_breaker")?.unwrap_or(Object::EMPTY))?;
    let log = Log::new(&plan, &clock)?;
    let breaker = Breaker::with_observer(plan.config().validate()?, &log);
    if config.get("circuit_breaker").is_none() {
        breaker.disable();
    }
    let falls_back = config.get("fallback").is_some();
    let fallback = Fallback::new(|failure| if falls_back { Ok(INSTEAD) } else { Err(failure) });
    let retry = RetryPolicy::new(retrying(config)?.validate()?);
    let limiter = RateLimiter::<Local>::new(limiting(config)?.validate()?);
    let bulkhead = Bulkhead::<Local>::new(bulkhead::Config::new(permits(config)?).validate()?);
    let timeout = Timeout::new(limit(config)?);
    let within = is_order(config, &BREAKER_WITHIN)?;
    if !within && !is_order(config, &BREAKER_AROUND)? {
        return Err(Unsupported::Value { key: "order_outer_to_inner", problem: "is not known" });
    }
    for step in vector.steps() {
        checks.begin(&step);
        if let Some(at) = step.at()? {
            executor.jump_to(at);
        }
        for _ in 0..step.repeat()? {
            let outermost = Pipeline::new(&executor).layer(&fallback);
            let made = match (step.op, within) {
                ("force", _) => {
                    match step.text()? {
                        "open" => breaker.open_until(executor.now().saturating_add(plan.open_for)),
                        "closed" => breaker.reset(),
                        "half_open" => breaker.half_open(&executor),
                        _ => return Err(Unsupported::Value { key: "force", problem: "is not a state" }),
                    }
                    Made { result: Ok(0), calls: 0 }
                }
                ("execute", true) => {
                    let inner = outermost.layer(&retry).layer(&limiter).layer(&bulkhead).layer(&breaker);
                    execute(&inner.layer(&timeout), &step)?
                }
                ("execute", false) => {
                    let inner = outermost.layer(&breaker).layer_in_any_order(&retry).layer_in_any_order(&limiter);
                    execute(&inner.layer(&bulkhead).layer(&timeout), &step)?
                }
                (op, _) => return Err(Unsupported::Op(op)),
            };
            made.judge(&step, &breaker, &executor, checks)?;
        }
    }
    Ok(())
}

/// Whether the policies that are named come in this order.
fn is_order<'a>(config: Object<'a>, order: &[&str]) -> Result<'a, bool> {
    let mut rest = order.iter();
    Ok(config.list("order_outer_to_inner")?.iter().all(|named| rest.any(|policy| named.text() == Some(*policy))))
}

fn retrying(config: Object<'_>) -> Result<'_, retry::Config> {
    let Some(fields) = config.object("retry")? else { return Ok(retry::Config::new().with_max_attempts(1)) };
    let fields = fields.only(&["max_attempts", "max_retries", "delay_ms"])?;
    let backoff = match fields.span("delay_ms")? {
        None | Some(Duration::ZERO) => Backoff::none(),
        Some(delay) => Backoff::constant(delay).with_jitter(Jitter::None),
    };
    let attempts = match (fields.number("max_attempts")?, fields.number("max_retries")?) {
        (Some(number), _) | (_, Some(number)) if number.mantissa < 0 => u32::MAX,
        (None, None) => 3,
        (None, Some(_)) => fields.count("max_retries")?.unwrap_or(2).saturating_add(1),
        (Some(_), _) => fields.count("max_attempts")?.unwrap_or(3),
    };
    // There, a retry takes a rejection for any other error.
    Ok(retry::Config::new().with_max_attempts(attempts).with_backoff(backoff).with_rejections())
}

fn limiting(config: Object<'_>) -> Result<'_, rate_limiter::Config> {
    let Some(fields) = config.object("rate_limiter")? else {
        return Ok(rate_limiter::Config::new(1_000_000, Duration::from_millis(1)));
    };
    let fields = fields.only(&["kind", "limit", "cycle_ms"])?;
    let limit = fields.needed("limit", fields.count("limit"))?;
    Ok(rate_limiter::Config::new(limit, fields.needed("cycle_ms", fields.span("cycle_ms"))?))
}

fn permits(config: Object<'_>) -> Result<'_, u32> {
    let Some(fields) = config.object("bulkhead")? else { return Ok(MOST) };
    let fields = fields.only(&["max_concurrent"])?;
    fields.needed("max_concurrent", fields.count("max_concurrent"))
}

fn limit(config: Object<'_>) -> Result<'_, Duration> {
    let Some(fields) = config.object("timeout")? else { return Ok(Duration::MAX) };
    let fields = fields.only(&["timeout_ms"])?;
    fields.needed("timeout_ms", fields.span("timeout_ms"))
}

/// What one execution came to.
struct Made {
    result: core::result::Result<u32, Failure<Scripted>>,
    calls: u32,
}

#[inline(never)]
fn execute<'a, 'x, L>(pipeline: &Pipeline<&'x Executor, L>, step: &Step<'a>) -> Result<'a, Made>
where
    L: Layer<u32, Scripted, &'x Executor>,
{
    let script = script(step.arg)?;
    let service = Script::new(&script);
    let executor = *pipeline.executor();
    match executor.run(pipeline.call(|_| service.call(executor))) {
        Ok(result) => Ok(Made { result, calls: service.calls() }),
        Err(_) => Err(Unsupported::Value { key: "execute", problem: "never ended" }),
    }
}

/// What the operation does, call by call; the last one repeats.
fn script<'a>(script: Value<'a>) -> Result<'a, heapless::Vec<Behaviour, CALLS>> {
    let mut steps = heapless::Vec::new();
    match script {
        Value::List(list) => {
            for entry in list.iter() {
                steps.push(behaviour(entry)?).map_err(|_| Unsupported::Room("so many calls"))?;
            }
        }
        entry => {
            let _ = steps.push(behaviour(entry)?);
        }
    }
    Ok(steps)
}

fn behaviour<'a>(entry: Value<'a>) -> Result<'a, Behaviour> {
    let (outcome, took) = match entry {
        Value::Object(entry) => {
            let entry = entry.only_args(&["outcome", "duration_ms"])?;
            (entry.text("outcome")?, entry.span("duration_ms")?.unwrap_or(Duration::ZERO))
        }
        entry => (entry.text(), Duration::ZERO),
    };
    Ok(match (outcome, took) {
        (Some("always_failure" | "failure"), Duration::ZERO) => Behaviour::Fail,
        (Some("always_success" | "success"), Duration::ZERO) => Behaviour::Succeed,
        (Some("failure"), took) => Behaviour::FailAfter(took),
        (Some("success"), took) => Behaviour::SucceedAfter(took),
        _ => return Err(Unsupported::Value { key: "execute", problem: "is not known" }),
    })
}

impl Made {
    fn judge<'a>(
        &self,
        step: &Step<'a>,
        breaker: &Breaker<'_, '_>,
        executor: &Executor,
        checks: &mut Checks,
    ) -> Result<'a, ()> {
        let attempts = match &self.result {
            // Outside of a retry nobody counts: there was one.
            Err(failure) => failure.attempts.max(1),
            Ok(_) => self.calls.max(1),
        };
        let end = match &self.result {
            Ok(INSTEAD) => "fallback",
            Ok(_) => "success",
            Err(failure) if failure.is_timed_out() => "timeout",
            Err(failure) => match failure.rejected().map(|rejected| rejected.reason()) {
                None => "failure",
                Some(Reason::Open | Reason::ProbesOut) => "rejected_open",
                Some(Reason::RateExceeded) => "rejected_limited",
                Some(Reason::Full) => "rejected_full",
                Some(_) => "rejected",
            },
        };
        let state = breaker.state();
        // An open breaker counts nothing: what counts is what opened it.
        let counts = match breaker.observer().last() {
            Some(last) if state == StateKind::Open => last.counts,
            _ => breaker.snapshot(executor).counts,
        };
        checks.expect(step, &mut |key| {
            Some(match key {
                "attempts" => Actual::whole(attempts),
                "retries" => Actual::whole(attempts.saturating_sub(1)),
                "inner_calls" | "calls" => Actual::whole(self.calls),
                "final" => Actual::Text(end),
                "breaker_failed" => Actual::whole(counts.failures),
                "breaker_succeeded" => Actual::whole(counts.calls.saturating_sub(counts.failures)),
                "breaker_state" | "state" => Actual::Text(Dialect::Failsafe.name(state)),
                _ => return None,
            })
        })
    }
}
