//! Retries: scripted operations under a retry policy, in virtual time.

use core::cell::{Cell, RefCell};
use core::time::Duration;

use failsoft_core::backoff::Backoff;
use failsoft_core::retry::{Config, RetryPolicy, Retrying};
use failsoft_core::testing::VirtualExecutor;
use failsoft_core::{Clock, Executor, Failure, Observer, Pipeline, Stop, Verdict};

use crate::breaker::plan::holds;
use crate::checks::{Actual, Checks};
use crate::delay::{Fields, Shape};
use crate::number::{Decimal, Quantity};
use crate::tape::{List, Object, Value};
use crate::vector::{Result, Step, Unsupported, Vector};

/// Delays that the runner keeps.
const DELAYS: usize = 32;

/// The most calls of one run: a retry without an end would never come back.
const CALLS: u32 = 10_000;

#[inline(never)]
pub(crate) fn run<'a>(vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    let config = vector.config.only(&[
        "dialect",
        "max_attempts",
        "max_retries",
        "backoff",
        "base_ms",
        "factor",
        "max_ms",
        "jitter",
        "jitter_factor",
        "random",
        "max_duration_ms",
        "step_ms",
        "retry_on_result",
        "retry_on",
        "ignored",
        "delay_from_result",
    ])?;
    for step in vector.steps() {
        checks.begin(&step);
        for _ in 0..step.repeat()? {
            match step.op {
                "run" => run_once(config, &step, checks)?,
                op => return Err(Unsupported::Op(op)),
            }
        }
    }
    Ok(())
}

fn run_once<'a>(config: Object<'a>, step: &Step<'a>, checks: &mut Checks) -> Result<'a, ()> {
    // An object says how the policy differs for this run, whose operation always fails.
    let (args, script) = match step.arg {
        Value::Object(object) => {
            (object.only_args(&["generator_ms", "base_ms", "max_retries", "outcomes"])?, Value::Null)
        }
        script => (Object::EMPTY, script),
    };
    let script = args.get("outcomes").unwrap_or(script);
    let fields = Fields(config, args);
    let policy = policy(config, args, fields)?;
    let log = Log {
        executor: VirtualExecutor::seeded(0),
        delays: RefCell::new(heapless::Vec::new()),
        total: Cell::new(Duration::ZERO),
    };
    let clock = Fixed { executor: &log.executor, random: config.random("random")?.unwrap_or(1 << 31) };
    let rules = Rules {
        generated: args.span("generator_ms")?,
        retry_on: needle(config)?,
        delays: config.object("delay_from_result")?,
        named: config.get("retry_on").and_then(Value::list),
        ignored: config.list("ignored")?,
    };
    let calls = Cell::new(0_u32);
    let retry = RetryPolicy::with_observer(policy.validate()?, &log);
    let pipeline =
        Pipeline::new(clock).layer(retry).classify(|result: core::result::Result<&Value<'a>, &Value<'a>>| {
            let (Ok(value) | Err(value)) = result;
            rules.verdict(*value, result.is_err())
        });
    let ran = log.executor.run(pipeline.call(|_| {
        calls.set(calls.get().saturating_add(1));
        serve(script, calls.get(), clock)
    }));
    let Ok(result) = ran else {
        return Err(Unsupported::Value { key: "run", problem: "never ended" });
    };
    if calls.get() > CALLS {
        return Err(Unsupported::Room("so many calls"));
    }
    let delays = log.delays.borrow();
    checks.expect(step, &mut |key| {
        Some(match key {
            "calls" | "attempts" => Actual::whole(calls.get()),
            "retries" => Actual::whole(calls.get().saturating_sub(1)),
            "slept_ms" => Actual::Number(Quantity::millis(log.total.get())),
            "delays_ms" => Actual::Numbers(&delays),
            "result" => Actual::Text(match &result {
                Ok(value) => said(*value),
                Err(_) => "failure",
            }),
            "final" => Actual::Text(end(&result)),
            _ => return None,
        })
    })
}

/// The settings alone.
pub(crate) fn settings<'a>(dialect: &'a str, config: Object<'a>) -> Result<'a, Config> {
    let config = config.only(&["dialect", "max_attempts", "max_retries", "base_ms", "max_duration_ms"])?;
    let backoff = match config.span("base_ms")? {
        None | Some(Duration::ZERO) => Backoff::none(),
        Some(base) => Backoff::constant(base),
    };
    limited(dialect, config, Object::EMPTY, Config::new().with_backoff(backoff))
}

fn policy<'a>(config: Object<'a>, args: Object<'a>, fields: Fields<'a>) -> Result<'a, Config> {
    let dialect = config.text("dialect")?.unwrap_or("");
    limited(dialect, config, args, Config::new().with_backoff(Shape::of(fields, None)?.backoff))
}

/// With as many attempts, in as much time, as the configuration says.
fn limited<'a>(dialect: &'a str, config: Object<'a>, args: Object<'a>, policy: Config) -> Result<'a, Config> {
    let retries = match args.count("max_retries")? {
        None => config.number("max_retries")?,
        Some(retries) => Some(Decimal { mantissa: retries.into(), exponent: 0 }),
    };
    let unlimited = |number: Decimal| number.mantissa < 0;
    let attempts = match (config.number("max_attempts")?, retries) {
        (Some(number), _) | (_, Some(number)) if unlimited(number) => u32::MAX,
        (Some(_), _) => config.needed("max_attempts", config.count("max_attempts"))?,
        // The first call is no retry.
        (None, Some(retries)) => match retries.whole().and_then(|retries| u32::try_from(retries).ok()) {
            Some(retries) => retries.saturating_add(1),
            None => return Err(Unsupported::Value { key: "max_retries", problem: "is not a number of retries" }),
        },
        (None, None) => match dialect {
            "failsafe" | "failsafe-java" | "r4j" => 3,
            "polly8" => 4,
            "grpc" => 5,
            dialect if dialect.starts_with("aws") => 3,
            _ => return Err(Unsupported::Value { key: "max_attempts", problem: "is missing" }),
        },
    };
    let policy = policy.with_max_attempts(attempts);
    Ok(match config.span("max_duration_ms")? {
        None => policy,
        Some(total) => policy.with_total_time(total),
    })
}

/// What the operation does when it is called for the `call`th time: the last entry of a list repeats.
async fn serve<'a>(script: Value<'a>, call: u32, executor: Fixed<'_>) -> core::result::Result<Value<'a>, Value<'a>> {
    let entry = match script {
        Value::List(list) => {
            let place = usize::try_from(call).unwrap_or(usize::MAX).saturating_sub(1);
            list.get(place).or_else(|| list.iter().last()).unwrap_or(Value::Null)
        }
        entry => entry,
    };
    if call > CALLS {
        return Ok(entry);
    }
    let span = entry.object().and_then(|entry| entry.span("duration_ms").ok().flatten()).unwrap_or(Duration::ZERO);
    if !span.is_zero() {
        executor.sleep_until(executor.now().saturating_add(span)).await;
    }
    match said(entry) {
        "failure" | "always_failure" | "error" => Err(entry),
        said if said.ends_with("_error") => Err(entry),
        _ => Ok(entry),
    }
}

/// An outcome's name: a string is one, an object has one; nothing at all is a failure.
fn said(entry: Value<'_>) -> &str {
    let outcome = entry.object().and_then(|entry| entry.get("outcome")).unwrap_or(entry);
    outcome.text().unwrap_or("failure")
}

fn end<'a>(result: &core::result::Result<Value<'a>, Failure<Value<'a>>>) -> &'static str {
    match result {
        Ok(_) => "success",
        Err(failure) => match failure.stop {
            Some(Stop::Attempts | Stop::Deadline) => "retries_exceeded",
            Some(Stop::NotRetryable) => "not_retryable",
            Some(Stop::Budget) => "budget_exceeded",
            _ => "rejected",
        },
    }
}

/// `contains 'X'`: the X.
fn needle<'a>(config: Object<'a>) -> Result<'a, Option<&'a str>> {
    let Some(text) = config.text("retry_on_result")? else { return Ok(None) };
    match text.strip_prefix("contains '").and_then(|text| text.strip_suffix('\'')) {
        Some(needle) => Ok(Some(needle)),
        None => Err(Unsupported::Value { key: "retry_on_result", problem: "is not known" }),
    }
}

/// What a result counts as, and what it says about the next delay.
struct Rules<'a> {
    generated: Option<Duration>,
    retry_on: Option<&'a str>,
    delays: Option<Object<'a>>,
    /// Kinds of errors: those that are retried, where it is not all of them, and those that are not.
    named: Option<List<'a>>,
    ignored: List<'a>,
}

impl<'a> Rules<'a> {
    fn verdict(&self, entry: Value<'a>, failed: bool) -> Verdict {
        let said = said(entry);
        let wanted = self.retry_on.is_some_and(|needle| said.contains(needle));
        if !failed && !wanted {
            return Verdict::SUCCESS;
        }
        let kind = entry.object().and_then(|entry| entry.get("kind")).and_then(Value::text).unwrap_or(said);
        if failed && (holds(self.ignored, kind) || self.named.is_some_and(|named| !holds(named, kind))) {
            return Verdict::PERMANENT;
        }
        let delay = match self.generated {
            None => self
                .delays
                .and_then(|delays| delays.iter().find(|(result, _)| *result == said))
                .and_then(|(_, delay)| millis(delay)),
            generated => generated,
        };
        // A server that names no time it could be called at again does not want to be.
        match entry.object().and_then(|entry| entry.get("server_delay_ms")) {
            Some(pushback) => millis(pushback).map_or(Verdict::PERMANENT, |wait| Verdict::TRANSIENT.with_delay(wait)),
            None => delay.map_or(Verdict::TRANSIENT, |delay| Verdict::TRANSIENT.with_delay(delay)),
        }
    }
}

fn millis(value: Value<'_>) -> Option<Duration> {
    value.number().and_then(Decimal::nanos).map(Duration::from_nanos)
}

/// Keeps the delays.
struct Log {
    executor: VirtualExecutor,
    delays: RefCell<heapless::Vec<Quantity, DELAYS>>,
    total: Cell<Duration>,
}

impl Observer<Retrying> for &Log {
    fn observe(&self, event: &Retrying) {
        let delay = event.at.saturating_duration_since(self.executor.now());
        self.total.set(self.total.get().saturating_add(delay));
        let _ = self.delays.borrow_mut().push(Quantity::millis(delay));
    }
}

/// Virtual time, and always the same random number.
#[derive(Clone, Copy)]
struct Fixed<'x> {
    executor: &'x VirtualExecutor,
    random: u32,
}

impl Clock for Fixed<'_> {
    fn now(&self) -> failsoft_core::Instant {
        self.executor.now()
    }
}

impl<'x> Executor for Fixed<'x> {
    type Sleep = <&'x VirtualExecutor as Executor>::Sleep;

    fn sleep_until(&self, at: failsoft_core::Instant) -> Self::Sleep {
        self.executor.sleep_until(at)
    }

    fn random(&self) -> u32 {
        self.random
    }
}
