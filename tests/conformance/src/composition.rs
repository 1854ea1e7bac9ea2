//! Policies around one operation, in virtual time.

use core::cell::Cell;
use core::time::Duration;

use failsoft_core::backoff::Backoff;
use failsoft_core::cell::Local;
use failsoft_core::circuit_breaker::{CircuitBreaker, Config, ConsecutiveFailures, StateKind, Transition};
use failsoft_core::pipeline::Layer;
use failsoft_core::retry::{self, RetryPolicy};
use failsoft_core::testing::{Script, Scripted, Step as Behaviour, VirtualExecutor};
use failsoft_core::{Failure, Observer, Pipeline, Reason};

use crate::checks::{Actual, Checks};
use crate::tape::{Object, Value};
use crate::vector::{Result, Step, Unsupported, Vector};

/// Timers at once: few, to be small.
type Executor = VirtualExecutor<4>;
type Breaker<'l> = CircuitBreaker<Local, ConsecutiveFailures, &'l Opened>;

#[inline(never)]
pub(crate) fn run<'a>(vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    let config = vector.config.only(&["dialect", "order_outer_to_inner", "retry", "circuit_breaker"])?;
    match vector.dialect() {
        "failsafe" => {}
        dialect => return Err(Unsupported::Dialect(dialect)),
    }
    let executor = Executor::seeded(0);
    let opened = Opened(Cell::new(0));
    let breaker = Breaker::with_observer(breaker(config)?.validate()?, &opened);
    let retry = RetryPolicy::new(retrying(config)?.validate()?);
    let mut order = config.list("order_outer_to_inner")?.iter().map(Value::text);
    let order = (order.next().flatten(), order.next().flatten(), order.next().is_none());
    for step in vector.steps() {
        checks.begin(&step);
        if let Some(at) = step.at()? {
            executor.jump_to(at);
        }
        for _ in 0..step.repeat()? {
            let bare = Pipeline::new(&executor);
            let made = match order {
                (Some("retry"), Some("circuit_breaker"), true) => execute(&bare.layer(&retry).layer(&breaker), &step)?,
                (Some("circuit_breaker"), Some("retry"), true) => {
                    execute(&bare.layer(&breaker).layer_in_any_order(&retry), &step)?
                }
                (Some("circuit_breaker"), None, true) => execute(&bare.layer(&breaker), &step)?,
                (Some("retry"), None, true) => execute(&bare.layer(&retry), &step)?,
                _ => return Err(Unsupported::Value { key: "order_outer_to_inner", problem: "is not known" }),
            };
            made.judge(&step, &opened, checks)?;
        }
    }
    Ok(())
}

/// How often in a row the operation had failed when the breaker opened last.
struct Opened(Cell<u32>);

impl Observer<Transition> for &Opened {
    fn observe(&self, event: &Transition) {
        if event.to == StateKind::Open {
            self.0.set(event.counts.failures);
        }
    }
}

fn breaker(config: Object<'_>) -> Result<'_, Config> {
    let Some(fields) = config.object("circuit_breaker")? else { return Ok(Config::new()) };
    let fields = fields.only(&["failure", "delay_ms"])?;
    let (mut count, mut of) = (1, 1);
    if let Some(failure) = fields.object("failure")? {
        failure.only(&["count", "of"])?;
        count = failure.needed("count", failure.count("count"))?;
        of = failure.count("of")?.unwrap_or(count);
    }
    if count != of {
        return Err(Unsupported::Value { key: "failure", problem: "is not a number of failures in a row" });
    }
    let open_for = fields.span("delay_ms")?.unwrap_or(Duration::from_secs(60));
    Ok(Config::new().with_trip(ConsecutiveFailures::new(count)?).with_open_for(open_for).with_trials(1, count))
}

fn retrying(config: Object<'_>) -> Result<'_, retry::Config> {
    let Some(fields) = config.object("retry")? else { return Ok(retry::Config::new().with_max_attempts(1)) };
    let fields = fields.only(&["max_attempts", "delay_ms"])?;
    let backoff = match fields.span("delay_ms")? {
        None | Some(Duration::ZERO) => Backoff::none(),
        Some(delay) => Backoff::constant(delay).with_jitter(failsoft_core::backoff::Jitter::None),
    };
    // There, a retry takes a rejection for any other error.
    let attempts = fields.count("max_attempts")?.unwrap_or(3);
    Ok(retry::Config::new().with_max_attempts(attempts).with_backoff(backoff).with_rejections())
}

/// What one execution came to.
struct Made {
    result: core::result::Result<u32, Failure<Scripted>>,
    calls: u32,
}

fn execute<'a, 'x, L>(pipeline: &Pipeline<&'x Executor, L>, step: &Step<'a>) -> Result<'a, Made>
where
    L: Layer<u32, Scripted, &'x Executor>,
{
    let script: &[Behaviour] = match (step.op, step.text()?) {
        ("execute", "always_failure") => &[Behaviour::Fail],
        ("execute", "always_success") => &[Behaviour::Succeed],
        ("execute", _) => return Err(Unsupported::Value { key: "execute", problem: "is not known" }),
        (op, _) => return Err(Unsupported::Op(op)),
    };
    let service = Script::new(script);
    let executor = *pipeline.executor();
    match executor.run(pipeline.call(|_| service.call(executor))) {
        Ok(result) => Ok(Made { result, calls: service.calls() }),
        Err(_) => Err(Unsupported::Value { key: "execute", problem: "never ended" }),
    }
}

impl Made {
    fn judge<'a>(&self, step: &Step<'a>, opened: &Opened, checks: &mut Checks) -> Result<'a, ()> {
        let attempts = match &self.result {
            // Outside of a retry nobody counts: there was one.
            Err(failure) => failure.attempts.max(1),
            Ok(_) => self.calls,
        };
        let end = match &self.result {
            Ok(_) => "success",
            Err(failure) => match failure.rejected() {
                Some(rejected) if rejected.reason() == Reason::Open => "rejected_open",
                Some(_) => "rejected",
                None => "failure",
            },
        };
        checks.expect(step, &mut |key| {
            Some(match key {
                "attempts" => Actual::whole(attempts),
                "retries" => Actual::whole(attempts.saturating_sub(1)),
                "inner_calls" => Actual::whole(self.calls),
                "final" => Actual::Text(end),
                "breaker_failed" => Actual::whole(opened.0.get()),
                _ => return None,
            })
        })
    }
}
