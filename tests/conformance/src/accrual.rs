//! Failure accrual: conditions of a breaker, each with open periods of its own.

use core::time::Duration;

use failsoft_core::Clock;
use failsoft_core::backoff::{Backoff, Jitter};
use failsoft_core::circuit_breaker::{AverageOfCalls, AverageOverTime, StateKind};
use failsoft_core::testing::ManualClock;
use failsoft_core::{Instant, Verdict};

use crate::breaker::any::{AnyTrip, Periods};
use crate::breaker::plan::{Dialect, Plan};
use crate::breaker::rig::{self, Hand, Rig};
use crate::checks::{Actual, Checks};
use crate::delay::{Fields, Shape};
use crate::number::Quantity;
use crate::tape::{Object, Value};
use crate::vector::{Result, Unsupported, Vector};

const KNOWN: [&str; 7] = [
    "dialect",
    "consecutive_failures",
    "backoff_ms",
    "success_rate",
    "ema_window_requests",
    "ema_window_ms",
    "min_requests",
];

/// Where a list of periods is at its end.
const LONGEST: Duration = Duration::from_secs(300);

#[inline(never)]
pub(crate) fn run<'a>(vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    let conditions = vector.config.list("any_of")?;
    let object = |value: Value<'a>| value.object().unwrap_or(Object::EMPTY);
    let trip = match (conditions.get(0), conditions.get(1), conditions.get(2)) {
        (None, ..) => condition(vector.config)?,
        (Some(first), Some(second), None) => {
            vector.config.only(&["dialect", "any_of"])?;
            condition(object(first))?.either(condition(object(second))?)?
        }
        _ => return Err(Unsupported::Room("conditions other than two")),
    };
    let plan = Plan::new(Dialect::Finagle, trip, LONGEST, (1, 1));
    let clock = ManualClock::new();
    rig::with(&plan, &clock, &mut |rig| walk(vector, checks, rig, &clock))
}

fn condition<'a>(config: Object<'a>) -> Result<'a, AnyTrip<'a>> {
    config.only(&KNOWN)?;
    let mut trip = match config.share("success_rate")? {
        None => AnyTrip::consecutive(config.count("consecutive_failures")?.unwrap_or(5))?,
        Some(rate) => {
            let least = config.count("min_requests")?;
            match (config.count("ema_window_requests")?, config.span("ema_window_ms")?) {
                // Unless it says otherwise, as many as the average is about.
                (Some(requests), None) => {
                    let least = u16::try_from(least.unwrap_or(requests)).unwrap_or(u16::MAX);
                    AnyTrip::average(AverageOfCalls::new(rate, requests)?.with_minimum_calls(least))
                }
                (None, Some(period)) => {
                    let average = AverageOverTime::new(rate, period)?;
                    AnyTrip::average_in_time(average.with_minimum_calls(least.unwrap_or(0)))
                }
                _ => return Err(Unsupported::Value { key: "success_rate", problem: "needs one window" }),
            }
        }
    };
    trip.periods = periods(config)?;
    Ok(trip)
}

/// One period, a list of them, a backoff's, or one in words: `const 5000`.
fn periods<'a>(config: Object<'a>) -> Result<'a, Periods<'a>> {
    let problem = Unsupported::Value { key: "backoff_ms", problem: "is not understood" };
    let one = |span| Periods::Growing(Backoff::constant(span).with_jitter(Jitter::None));
    match config.get("backoff_ms") {
        None => Err(Unsupported::Value { key: "backoff_ms", problem: "is missing" }),
        Some(Value::List(list)) => Ok(Periods::Listed(list)),
        Some(Value::Object(backoff)) => Ok(Periods::Growing(Shape::of(Fields(backoff, config), None)?.backoff)),
        Some(Value::Text(text)) => {
            let millis = text.strip_prefix("const ").or_else(|| text.strip_prefix("first value "));
            millis
                .and_then(|millis| millis.parse().ok())
                .map(|millis| one(Duration::from_millis(millis)))
                .ok_or(problem)
        }
        Some(_) => Ok(one(config.needed("backoff_ms", config.span("backoff_ms"))?)),
    }
}

fn walk<'a>(vector: &Vector<'a>, checks: &mut Checks, rig: &mut Rig<'a, '_>, clock: &ManualClock) -> Result<'a, ()> {
    for step in vector.steps() {
        checks.begin(&step);
        if let Some(at) = step.at()? {
            clock.set(at);
        }
        step.no_args()?;
        for _ in 0..step.repeat()? {
            // Calls of a node that is taken for dead are probes.
            if rig.snapshot().state == StateKind::Open && matches!(step.op, "success" | "failure") {
                rig.by_hand(Hand::HalfOpen);
            }
            match step.op {
                "success" => rig.record(Verdict::SUCCESS)?,
                "failure" => rig.record(Verdict::TRANSIENT)?,
                "revived" => rig.by_hand(Hand::Close),
                "tick" | "snapshot" => {}
                op => return Err(Unsupported::Op(op)),
            }
            let snapshot = rig.snapshot();
            let dead = snapshot.until.filter(|_| snapshot.state == StateKind::Open);
            checks.expect(&step, &mut |key| match key {
                "mark_dead_ms" => Some(Actual::maybe(dead.map(|until: Instant| Quantity::until(clock.now(), until)))),
                _ => None,
            })?;
        }
    }
    Ok(())
}
