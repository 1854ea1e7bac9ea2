//! Failure accrual: conditions of a breaker, each with open periods of its own.

use core::time::Duration;

use failsoft_core::backoff::{Backoff, Jitter};
use failsoft_core::cell::CellKind;
use failsoft_core::cell::Local;
use failsoft_core::circuit_breaker::{
    CircuitBreaker, Config, ConsecutiveFailures, Growing, Permit, State, StateKind, Trip,
};
use failsoft_core::testing::ManualClock;

use crate::checks::{Actual, Checks};
use crate::number::Quantity;
use crate::tape::Object;
use crate::vector::{Result, Unsupported, Vector};

#[inline(never)]
pub(crate) fn run<'a>(vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    let known = ["dialect", "consecutive_failures", "backoff_ms", "any_of"];
    let config = vector.config.only(&known)?;
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

fn condition<'a>(config: Object<'a>) -> Result<'a, Growing<ConsecutiveFailures>> {
    let failures = config.needed("consecutive_failures", config.count("consecutive_failures"))?;
    let text = config.needed("backoff_ms", config.text("backoff_ms"))?;
    let millis = text.strip_prefix("const ").or_else(|| text.strip_prefix("first value "));
    let Some(millis) = millis.and_then(|millis| millis.parse().ok()) else {
        return Err(Unsupported::Value { key: "backoff_ms", problem: "is not understood" });
    };
    let periods = Backoff::constant(Duration::from_millis(millis)).with_jitter(Jitter::None);
    Ok(Growing::new(ConsecutiveFailures::new(failures)?, periods, 0)?)
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
