//! Failure accrual: conditions of a breaker, each with open periods of its own.

use core::time::Duration;

use failsoft_core::Ratio;
use failsoft_core::backoff::{Backoff, Jitter};
use failsoft_core::cell::CellKind;
use failsoft_core::cell::Local;
use failsoft_core::circuit_breaker::{
    AverageOfCalls, AverageOverTime, CircuitBreaker, Config, ConsecutiveFailures, Growing, Permit, State, StateKind,
    Trip,
};
use failsoft_core::testing::ManualClock;

use crate::checks::{Actual, Checks};
use crate::number::Quantity;
use crate::tape::Object;
use crate::vector::{Result, Unsupported, Vector};

#[inline(never)]
pub(crate) fn run<'a>(vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    let known = [
        "dialect",
        "consecutive_failures",
        "backoff_ms",
        "any_of",
        "success_rate",
        "ema_window_requests",
        "ema_window_ms",
        "min_requests",
    ];
    let config = vector.config.only(&known)?;
    if let Some(rate) = config.share("success_rate")? {
        return by_rate(vector, checks, config, rate);
    }
    let conditions = config.list("any_of")?;
    match (conditions.get(0), conditions.get(1), conditions.get(2)) {
        (None, ..) => walk(vector, checks, condition(config)?),
        (Some(first), Some(second), None) => {
            let object = |value: crate::tape::Value<'a>| value.object().unwrap_or(Object::EMPTY);
            walk(vector, checks, (condition(object(first))?, condition(object(second))?))
        }
        _ => Err(Unsupported::Room("conditions other than two")),
    }
}

/// By the average of successes: of the last requests, or over the last so long.
fn by_rate<'a>(vector: &Vector<'a>, checks: &mut Checks, config: Object<'a>, rate: Ratio) -> Result<'a, ()> {
    let least = config.count("min_requests")?;
    match (config.count("ema_window_requests")?, config.span("ema_window_ms")?) {
        (Some(requests), None) => {
            let average = AverageOfCalls::new(rate, requests)?;
            let least = u16::try_from(least.unwrap_or(0)).unwrap_or(u16::MAX);
            walk(vector, checks, growing(config, average.with_minimum_calls(least))?)
        }
        (None, Some(period)) => {
            let average = AverageOverTime::new(rate, period)?;
            walk(vector, checks, growing(config, average.with_minimum_calls(least.unwrap_or(0)))?)
        }
        _ => Err(Unsupported::Value { key: "success_rate", problem: "needs one window" }),
    }
}

fn condition<'a>(config: Object<'a>) -> Result<'a, Growing<ConsecutiveFailures>> {
    let failures = config.needed("consecutive_failures", config.count("consecutive_failures"))?;
    growing(config, ConsecutiveFailures::new(failures)?)
}

fn growing<'a, T: Copy + Trip>(config: Object<'a>, trip: T) -> Result<'a, Growing<T>> {
    let text = config.needed("backoff_ms", config.text("backoff_ms"))?;
    let millis = text.strip_prefix("const ").or_else(|| text.strip_prefix("first value "));
    let Some(millis) = millis.and_then(|millis| millis.parse().ok()) else {
        return Err(Unsupported::Value { key: "backoff_ms", problem: "is not understood" });
    };
    let periods = Backoff::constant(Duration::from_millis(millis)).with_jitter(Jitter::None);
    Ok(Growing::new(trip, periods, 0)?)
}

fn walk<'a, T>(vector: &Vector<'a>, checks: &mut Checks, trip: T) -> Result<'a, ()>
where
    T: Copy + Trip,
    Local: CellKind<State<T::Meter>>,
{
    let clock = ManualClock::new();
    let breaker = CircuitBreaker::<Local, T>::new(Config::new().with_trip(trip).validate()?);
    for step in vector.steps() {
        checks.begin(&step);
        if let Some(at) = step.at()? {
            clock.set(at);
        }
        step.no_args()?;
        for _ in 0..step.repeat()? {
            let was = breaker.state();
            let permit = breaker.try_acquire(&clock);
            match step.op {
                "success" => drop(permit.map(Permit::success)),
                "failure" => drop(permit.map(Permit::failure)),
                op => return Err(Unsupported::Op(op)),
            }
            let snapshot = breaker.snapshot(&&clock);
            let opened = was != StateKind::Open && snapshot.state == StateKind::Open;
            let dead = snapshot.until.filter(|_| opened);
            checks.expect(&step, &mut |key| match key {
                "mark_dead_ms" => {
                    Some(Actual::maybe(dead.map(|until| Quantity::until(failsoft_core::Clock::now(&clock), until))))
                }
                _ => None,
            })?;
        }
    }
    Ok(())
}
