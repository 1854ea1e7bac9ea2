//! Client-side throttlers, whose dialects differ in how they say the same formula.

use core::time::Duration;

use failsoft_core::Ratio;
use failsoft_core::cell::Local;
use failsoft_core::testing::ManualClock;
use failsoft_core::throttle::{Config, Throttle};

use crate::checks::{Actual, Checks};
use crate::number::Quantity;
use crate::tape::Object;
use crate::vector::{Result, Step, Unsupported, Vector};

/// An average of requests per second is told for this long.
const RATED: u32 = 10;

#[inline(never)]
pub(crate) fn run<'a>(vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    let known = [
        "dialect",
        "success_threshold",
        "aggression",
        "max_rejection",
        "window_ms",
        "k",
        "min_requests",
        "min_rps",
        "formula",
    ];
    let config = vector.config.only(&known)?;
    let clock = ManualClock::new();
    let settings = settings(defaults(vector)?, config)?;
    let throttle = Throttle::<Local>::new(settings.validate()?);
    let mut previous = Ratio::ZERO;
    for step in vector.steps() {
        checks.begin(&step);
        if let Some(at) = step.at()? {
            clock.set(at);
        }
        let (mut permit, mut probability) = (true, Ratio::ZERO);
        match step.op {
            "success" | "failure" => {
                step.no_args()?;
                for _ in 0..step.repeat()? {
                    throttle.record(step.op == "success", &&clock);
                }
                probability = throttle.probability(&&clock);
            }
            "acquire" => permit = acquire(&step, &throttle, &clock, settings)?,
            "compute" => {
                let args = step.args()?.only_args(&["requests", "successes", "success_threshold", "max_rejection"])?;
                let requests = args.needed("requests", args.count("requests"))?;
                let successes = args.needed("successes", args.count("successes"))?;
                probability = self::settings(settings, args)?.validate()?.get().probability(requests, successes);
            }
            "snapshot" | "tick" => {
                step.no_args()?;
                probability = throttle.probability(&&clock);
            }
            op => return Err(Unsupported::Op(op)),
        }
        checks.expect(&step, &mut |key| {
            Some(match key {
                "permit" => Actual::Bool(permit),
                "probability" => Actual::Number(Quantity::share(probability)),
                "greater_than_previous" => Actual::Bool(probability > previous),
                _ => return None,
            })
        })?;
        previous = probability;
    }
    Ok(())
}

/// What holds where a configuration says nothing.
fn defaults<'a>(vector: &Vector<'a>) -> Result<'a, Config> {
    let settings = Config::new().with_minimum_requests(0);
    let seconds = Duration::from_secs;
    Ok(match vector.dialect() {
        "envoy" => {
            multiplied(settings, Ratio::percent(95)).with_most_rejected(Ratio::percent(80)).with_period(seconds(30))
        }
        "failsafe" => {
            multiplied(settings, Ratio::percent(90)).with_most_rejected(Ratio::percent(90)).with_period(seconds(60))
        }
        "sre" => multiplied(settings, Ratio::percent(60)).with_minimum_requests(100).with_period(seconds(3)),
        dialect => return Err(Unsupported::Dialect(dialect)),
    })
}

/// With the share of successes below which calls are rejected.
fn multiplied(settings: Config, threshold: Ratio) -> Config {
    // One is the other's inverse; the nearest that hundredths of a percent can say, so as not to throttle at the threshold.
    let points = 100_000_000_u32.checked_div(threshold.as_basis_points()).unwrap_or(u32::MAX);
    let inexact = u32::from(!100_000_000_u32.is_multiple_of(threshold.as_basis_points().max(1)));
    settings.with_multiplier(Ratio::basis_points(points.saturating_add(inexact)))
}

/// What a configuration, or a step's argument, says.
fn settings<'a>(mut settings: Config, config: Object<'a>) -> Result<'a, Config> {
    if let Some(threshold) = config.share("success_threshold")? {
        settings = multiplied(settings, threshold);
    }
    if let Some(k) = config.share("k")? {
        settings = settings.with_multiplier(k);
    }
    if let Some(most) = config.share("max_rejection")? {
        settings = settings.with_most_rejected(most);
    }
    if let Some(window) = config.span("window_ms")? {
        settings = settings.with_period(window);
    }
    if let Some(requests) = config.count("min_requests")? {
        settings = settings.with_minimum_requests(requests);
    }
    if let Some(aggression) = config.number("aggression")? {
        let degree = aggression.whole().and_then(|degree| u32::try_from(degree).ok());
        settings = settings.with_aggression(degree.unwrap_or(0));
    }
    if let Some(rate) = config.count("min_rps")? {
        let period = Duration::from_secs(RATED.into());
        settings = settings.with_period(period).with_minimum_requests(rate.saturating_mul(RATED));
    }
    Ok(settings)
}

fn acquire<'a>(step: &Step<'a>, throttle: &Throttle<Local>, clock: &ManualClock, settings: Config) -> Result<'a, bool> {
    let args = step.args()?.only_args(&["random", "average_rps", "requests", "successes"])?;
    // Where none is given, the draw that is rejected last.
    let random = args.random("random")?.unwrap_or(u32::MAX);
    let (rate, of) = (args.count("average_rps")?, args.count("requests")?);
    let Some(requests) = rate.map(|rate| rate.saturating_mul(RATED)).or(of) else {
        return Ok(throttle.try_acquire(&clock, random).is_ok());
    };
    // A load of its own, of which so many requests in all succeeded.
    let loaded = Throttle::<Local>::new(settings.validate()?);
    let successes = args.count("successes")?.unwrap_or(0);
    let of = of.unwrap_or(requests).max(1);
    let successes = u64::from(requests) * u64::from(successes) / u64::from(of);
    for request in 0..requests {
        loaded.record(u64::from(request) < successes, &clock);
    }
    Ok(loaded.try_acquire(&clock, random).is_ok())
}
