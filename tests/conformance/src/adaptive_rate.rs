//! Adaptive rates: the meter, the curve, and the limiter that puts them together.

use failsoft_core::adaptive_rate::{AdaptiveRate, Config, Cubic, Rate, RateMeter};
use failsoft_core::cell::{Fresh, Local};
use failsoft_core::testing::ManualClock;
use failsoft_core::{Clock, Instant, Valid};

use crate::checks::{Actual, Checks};
use crate::number::{Decimal, Quantity};
use crate::tape::{Object, Value};
use crate::vector::{Result, Step, Unsupported, Vector};

#[inline(never)]
pub(crate) fn run<'a>(vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    if vector.dialect() != "aws" {
        return Err(Unsupported::Dialect(vector.dialect()));
    }
    let known = ["dialect", "kind", "start_rate", "beta", "scale", "min_rate_per_s", "bucket_ms", "smoothing"];
    let config = vector.config.only(&known)?;
    let settings = settings(config)?;
    let start = rate(config, "start_rate")?.unwrap_or(Rate::ZERO);
    match config.text("kind")?.unwrap_or(vector.pattern) {
        "rate_meter" => walk(vector, checks, &mut Meter(settings.get(), RateMeter::FRESH)),
        "cubic" => {
            let curve = Cubic::new(&settings.get(), start, Instant::START);
            walk(vector, checks, &mut Curve(settings.get(), curve))
        }
        "client_rate_limiter" => walk(vector, checks, &mut Limiter(settings.get(), AdaptiveRate::new(settings))),
        _ => Err(Unsupported::Value { key: "kind", problem: "is not known" }),
    }
}

fn settings<'a>(config: Object<'a>) -> Result<'a, Valid<Config>> {
    let mut settings = Config::new();
    if let Some(beta) = config.share("beta")? {
        settings = settings.with_beta(beta);
    }
    if let Some(scale) = config.share("scale")? {
        settings = settings.with_scale(scale);
    }
    if let Some(lowest) = rate(config, "min_rate_per_s")? {
        settings = settings.with_lowest(lowest);
    }
    let (bucket, smoothing) = (config.span("bucket_ms")?, config.share("smoothing")?);
    if bucket.is_some() || smoothing.is_some() {
        use failsoft_core::adaptive_rate::{BUCKET, SMOOTHING};
        settings = settings.with_meter(bucket.unwrap_or(BUCKET), smoothing.unwrap_or(SMOOTHING));
    }
    Ok(settings.validate()?)
}

/// What is found after a step. A rate is null where there is none.
#[derive(Default)]
struct Found {
    rate: Option<Rate>,
    measured: Option<Rate>,
    curve: Option<Cubic>,
    permit: bool,
    limiting: bool,
}

/// A part, or the whole of them.
trait Machine {
    fn take<'a>(&mut self, step: &Step<'a>, now: Instant) -> Result<'a, Found>;
}

fn walk<'a>(vector: &Vector<'a>, checks: &mut Checks, machine: &mut dyn Machine) -> Result<'a, ()> {
    let clock = ManualClock::new();
    for step in vector.steps() {
        checks.begin(&step);
        if let Some(at) = step.at()? {
            clock.set(at);
        }
        for _ in 0..step.repeat()? {
            let found = machine.take(&step, clock.now())?;
            checks.expect_root(&step, &mut |key| {
                let seconds = |nanos: u128| Quantity::fraction(i128::try_from(nanos).ok()?, 1_000_000_000);
                let curve = found.curve;
                Some(match key {
                    "rate" | "max_rate" => Actual::maybe(found.rate.and_then(per_second)),
                    "measured_rate" => Actual::maybe(found.measured.and_then(per_second)),
                    "k_s" => Actual::maybe(curve.and_then(|curve| seconds(curve.recovery().as_nanos()))),
                    "w_max" => Actual::maybe(curve.and_then(|curve| per_second(curve.peak()))),
                    "last_fail_ms" => Actual::maybe(curve.map(|curve| Quantity::nanos(curve.since().as_nanos()))),
                    "permit" => Actual::Bool(found.permit),
                    "enabled" | "limiting" => Actual::Bool(found.limiting),
                    _ => return None,
                })
            })?;
        }
    }
    Ok(())
}

struct Meter(Config, RateMeter);

impl Machine for Meter {
    fn take<'a>(&mut self, step: &Step<'a>, now: Instant) -> Result<'a, Found> {
        let Self(settings, meter) = self;
        step.no_args()?;
        match step.op {
            "record" => {
                meter.record(settings, now);
            }
            "snapshot" => {}
            op => return Err(Unsupported::Op(op)),
        }
        let rate = Some(meter.rate());
        Ok(Found { rate, measured: rate, ..Found::default() })
    }
}

struct Curve(Config, Cubic);

impl Machine for Curve {
    fn take<'a>(&mut self, step: &Step<'a>, now: Instant) -> Result<'a, Found> {
        let Self(settings, curve) = self;
        match step.op {
            "success" | "snapshot" => step.no_args()?,
            "error" | "throttled" => {
                // At the rate that is said, or that of the curve.
                let peak = match step.arg {
                    Value::Number(number) => Some(known_rate(step.op, number)?),
                    _ => {
                        let args = step.args()?.only_args(&["rate", "current_rate"])?;
                        rate(args, "rate")?.or(rate(args, "current_rate")?)
                    }
                };
                let peak = peak.unwrap_or_else(|| curve.rate(settings, now));
                *curve = Cubic::new(settings, peak, now);
            }
            op => return Err(Unsupported::Op(op)),
        }
        // A look at the settings does not take part in what happens.
        let rate = Some(curve.rate(settings, now));
        Ok(Found { rate, curve: Some(*curve), ..Found::default() })
    }
}

struct Limiter(Config, AdaptiveRate<Local>);

impl Machine for Limiter {
    fn take<'a>(&mut self, step: &Step<'a>, now: Instant) -> Result<'a, Found> {
        let Self(settings, limiter) = self;
        let mut found = Found::default();
        match step.op {
            "response_ok" | "success" | "response_throttled" | "throttled" | "error" => {
                let args = step.args()?.only_args(&["measured_rate", "calculated_rate"])?;
                limiter.record(matches!(step.op, "response_throttled" | "throttled" | "error"), &now);
                // What the parts would have said is given: only how they are put together counts.
                if let Some(measured) = rate(args, "measured_rate")? {
                    let calculated = args.needed("calculated_rate", rate(args, "calculated_rate"))?;
                    found.rate = Some(settings.limit(calculated, measured));
                    found.measured = Some(measured);
                }
            }
            "acquire" => {
                step.no_args()?;
                found.permit = limiter.try_acquire(&now).is_ok();
            }
            "snapshot" => step.no_args()?,
            op => return Err(Unsupported::Op(op)),
        }
        let snapshot = limiter.snapshot();
        found.rate = found.rate.or(snapshot.limit);
        found.measured = found.measured.or(Some(snapshot.measured));
        found.limiting = snapshot.limit.is_some();
        Ok(found)
    }
}

fn rate<'a>(object: Object<'a>, key: &'a str) -> Result<'a, Option<Rate>> {
    object.number(key)?.map(|number| known_rate(key, number)).transpose()
}

fn known_rate<'a>(key: &'a str, number: Decimal) -> Result<'a, Rate> {
    let rate = number.millionths().map(Rate::from_millionths);
    rate.ok_or(Unsupported::Value { key, problem: "is no rate" })
}

fn per_second(rate: Rate) -> Option<Quantity> {
    Quantity::fraction(rate.as_millionths(), 1_000_000)
}
