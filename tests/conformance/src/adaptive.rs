//! Adaptive limits: which algorithm a dialect and a kind mean, and one walk for all of them.

use core::time::Duration;

use failsoft_core::adaptive::{
    AdaptiveLimit, Aimd, Algorithm, Amount, Config, Gradient, Gradient2, Measured, MovingAverage, NoLoad, NoMemory,
    Percentile, Permit, Remembered, Sample, Spread, Trend, Trending, Vegas, Window, Windowed,
};
use failsoft_core::bulkhead::NoQueue;
use failsoft_core::cell::{CellKind, Local};
use failsoft_core::testing::ManualClock;
use failsoft_core::{Clock, Instant, Ratio, Span, Valid};

use crate::checks::{Actual, Checks};
use crate::number::Quantity;
use crate::tape::{Object, Value};
use crate::vector::{Result, Step, Unsupported, Vector};

/// Calls at once.
const CALLS: usize = 64;

/// The time at which a vector's own begins: no call began before the clock did.
const BEGIN: Duration = Duration::from_secs(42 * 3_600);

#[inline(never)]
pub(crate) fn run<'a>(vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    if vector.dialect() == "aws" {
        return crate::adaptive_rate::run(vector, checks);
    }
    let kind = vector.config.needed("kind", vector.config.text("kind"))?;
    match (vector.dialect(), kind) {
        ("envoy", "gradient") => drive(vector, checks, gradient(vector.config)?),
        ("failsafe", "vegas_like") => drive(vector, checks, trend(vector.config)?),
        ("netflix", "aimd") => drive(vector, checks, aimd(vector.config)?),
        ("netflix", "gradient2") => drive(vector, checks, gradient2(vector.config)?),
        ("netflix", "vegas") => drive(vector, checks, vegas(vector.config)?),
        ("envoy" | "failsafe" | "netflix", _) => Err(Unsupported::Value { key: "kind", problem: "is not known" }),
        (dialect, _) => Err(Unsupported::Dialect(dialect)),
    }
}

/// What a dialect has for the lowest, the initial and the highest limit where nothing is said.
fn limits<'a, A: Copy>(
    config: Object<'a>,
    algorithm: Valid<A>,
    (min, initial, max): (u32, u32, u32),
) -> Result<'a, Valid<Config<A>>> {
    let initial = config.count("initial")?.unwrap_or(initial);
    // A default gives way to what was said; and at least one call is always let through.
    let (min, max) = (min.min(initial), max.max(initial));
    let min = config.count("min")?.unwrap_or(min).max(1);
    let max = config.count("max")?.unwrap_or(max);
    Ok(Config::new(algorithm).with_limits(min, initial, max).validate()?)
}

fn aimd(config: Object<'_>) -> Result<'_, Valid<Config<Aimd>>> {
    let config = config.only(&["dialect", "kind", "initial", "min", "max", "backoff", "timeout_ms"])?;
    let mut aimd = Aimd::new();
    if let Some(backoff) = config.share("backoff")? {
        aimd = aimd.with_backoff(backoff);
    }
    if let Some(timeout) = config.span("timeout_ms")? {
        aimd = aimd.with_timeout(timeout);
    }
    limits(config, aimd.validate()?, (20, 20, 200))
}

fn vegas(config: Object<'_>) -> Result<'_, Valid<Config<Vegas>>> {
    let known = [
        "dialect",
        "kind",
        "initial",
        "min",
        "max",
        "alpha",
        "beta",
        "threshold",
        "step",
        "increase",
        "decrease",
        "smoothing",
        "probe_multiplier",
    ];
    let config = config.only(&known)?;
    let mut vegas = Vegas::new();
    if let Some(alpha) = amount(config, "alpha")? {
        vegas = vegas.with_alpha(alpha);
    }
    if let Some(beta) = amount(config, "beta")? {
        vegas = vegas.with_beta(beta);
    }
    if let Some(threshold) = amount(config, "threshold")? {
        vegas = vegas.with_threshold(threshold);
    }
    let step = amount(config, "step")?;
    if let Some(increase) = amount(config, "increase")?.or(step) {
        vegas = vegas.with_increase(increase);
    }
    if let Some(decrease) = amount(config, "decrease")?.or(step) {
        vegas = vegas.with_decrease(decrease);
    }
    if let Some(smoothing) = config.share("smoothing")? {
        vegas = vegas.with_smoothing(smoothing);
    }
    if let Some(multiplier) = config.count("probe_multiplier")? {
        vegas = vegas.with_probe_multiplier(multiplier);
    }
    limits(config, vegas.validate()?, (1, 20, 1_000))
}

/// A number, `log10(limit)`, so many times that, or a part of the limit.
fn amount<'a>(config: Object<'a>, key: &'static str) -> Result<'a, Option<Amount>> {
    let text = match config.get(key) {
        None => return Ok(None),
        Some(Value::Text(text)) => text,
        Some(_) => return Ok(config.count(key)?.map(Amount::Fixed)),
    };
    let unknown = Unsupported::Value { key, problem: "is not understood" };
    let (first, second) = text.split_once(['*', '/']).unwrap_or(("1", text));
    let number = |text: &str| text.trim().parse::<u32>().map_err(|_| unknown);
    if first.trim() == "limit" {
        let percent = 100_u32.checked_div(number(second)?).ok_or(unknown)?;
        return Ok(Some(Amount::Share(Ratio::percent(percent))));
    }
    match second.trim() {
        "log10" | "log10(limit)" => Ok(Some(Amount::Log10(number(first)?))),
        _ => Err(unknown),
    }
}

fn gradient2(config: Object<'_>) -> Result<'_, Valid<Config<Gradient2>>> {
    let known = ["dialect", "kind", "initial", "min", "max", "smoothing", "queue_size", "rtt_tolerance", "long_window"];
    let config = config.only(&known)?;
    let mut gradient = Gradient2::new();
    if let Some(smoothing) = config.share("smoothing")? {
        gradient = gradient.with_smoothing(smoothing);
    }
    if let Some(calls) = config.count("queue_size")? {
        gradient = gradient.with_queue_size(calls);
    }
    if let Some(tolerance) = config.share("rtt_tolerance")? {
        gradient = gradient.with_tolerance(tolerance);
    }
    if let Some(window) = config.count("long_window")? {
        let window = u16::try_from(window);
        let above = |_| Unsupported::Value { key: "long_window", problem: "is above 65,535" };
        gradient = gradient.with_long_window(window.map_err(above)?);
    }
    limits(config, gradient.validate()?, (20, 20, 200))
}

fn trend(config: Object<'_>) -> Result<'_, Valid<Config<Windowed<Trend, Percentile>>>> {
    let known = [
        "dialect",
        "kind",
        "initial",
        "min",
        "max",
        "baseline_rtt_ms",
        "baseline_window",
        "recent_window_ms",
        "recent_window_max_ms",
        "recent_quantile",
        "min_samples",
        "max_limit_factor",
        "stabilisation_ms",
    ];
    let config = config.only(&known)?;
    let mut trend = Trend::new();
    if let Some(baseline) = config.span("baseline_rtt_ms")? {
        trend = trend.with_baseline(baseline);
    }
    if let Some(window) = config.count("baseline_window")? {
        trend = trend.with_baseline_window(u16::try_from(window).unwrap_or(u16::MAX));
    }
    if let Some(factor) = config.share("max_limit_factor")? {
        trend = trend.with_headroom(factor);
    }
    if let Some(window) = config.span("stabilisation_ms")? {
        trend = trend.with_stabilisation(window);
    }
    let quantile = config.share("recent_quantile")?.unwrap_or(Ratio::percent(90));
    let mut windows = Windowed::new(trend.validate()?).with_summary(Percentile::new(quantile)?);
    let shortest = config.span("recent_window_ms")?;
    if let Some(shortest) = shortest {
        windows = windows.with_window(shortest, config.span("recent_window_max_ms")?.unwrap_or(shortest));
    }
    windows = windows.with_minimum_samples(config.count("min_samples")?.unwrap_or(50));
    limits(config, windows.validate()?, (1, 20, 200))
}

/// Envoy's names for the settings of a gradient; it begins at the lowest limit.
pub(crate) fn gradient(config: Object<'_>) -> Result<'_, Valid<Config<Gradient>>> {
    let known = [
        "dialect",
        "kind",
        "max_limit",
        "min_concurrency",
        "request_count",
        "percentile",
        "jitter",
        "buffer",
        "update_ms",
        "min_rtt_interval_ms",
    ];
    let config = config.only(&known)?;
    let mut gradient = Gradient::new(0);
    if let Some(calls) = config.count("request_count")? {
        gradient = gradient.with_measured_calls(calls);
    }
    if let Some(percentile) = config.percent("percentile")? {
        gradient = gradient.with_percentile(Percentile::new(percentile)?);
    }
    if let Some(jitter) = config.percent("jitter")? {
        gradient = gradient.with_jitter(jitter);
    }
    if let Some(buffer) = config.percent("buffer")? {
        gradient = gradient.with_buffer(buffer);
    }
    if let Some(interval) = config.span("update_ms")? {
        gradient = gradient.with_update_interval(interval);
    }
    if let Some(interval) = config.span("min_rtt_interval_ms")? {
        gradient = gradient.with_measure_interval(interval);
    }
    let settings = Config::new(gradient.validate()?);
    let (min, max) = (settings.min(), settings.max());
    let min = config.count("min_concurrency")?.unwrap_or(min);
    let max = config.count("max_limit")?.unwrap_or(max);
    Ok(settings.with_limits(min, min, max).validate()?)
}

/// What only some algorithms can tell.
trait Told {
    fn told(&self, _: &str) -> Option<Actual<'static>> {
        None
    }
}

impl Told for MovingAverage {}
impl Told for NoLoad {}
impl Told for NoMemory {}

impl Told for Window<Trending, Spread> {
    fn told(&self, key: &str) -> Option<Actual<'static>> {
        match key {
            "queue" => Some(Actual::whole(self.memory().waiting())),
            "max_in_flight" => Some(Actual::whole(self.memory().most_in_flight())),
            _ => None,
        }
    }
}

impl Told for Measured {
    fn told(&self, key: &str) -> Option<Actual<'static>> {
        match key {
            // In whole milliseconds, as Envoy tells it.
            "min_rtt_ms" => Some(Actual::whole(i128::try_from(self.without_load().as_millis()).unwrap_or(i128::MAX))),
            "measuring" => Some(Actual::Bool(self.is_measuring())),
            _ => None,
        }
    }
}

type Limit<A> = AdaptiveLimit<Local, Local, A>;

/// A limit with the calls that are under way, whatever its algorithm.
trait Limiting {
    fn tick(&self, clock: &ManualClock);
    /// Whether a call was let through.
    fn acquire(&mut self, clock: &ManualClock) -> bool;
    /// The oldest call ends.
    fn release(&mut self);
    fn record(&self, sample: &Sample);
    fn limit(&self) -> u32;
    fn in_flight(&self) -> u32;
    fn told(&self, key: &str) -> Option<Actual<'static>>;
}

struct Calls<'l, A>
where
    A: Algorithm,
    Local: CellKind<Remembered<A::Memory>>,
{
    limit: &'l Limit<A>,
    held: heapless::Deque<Permit<'l, Local, Local, A, NoQueue, (), Instant>, CALLS>,
}

impl<A> Limiting for Calls<'_, A>
where
    A: Algorithm,
    A::Memory: Told,
    Local: CellKind<Remembered<A::Memory>>,
{
    fn tick(&self, clock: &ManualClock) {
        self.limit.handle_timeout(&clock);
    }

    fn acquire(&mut self, clock: &ManualClock) -> bool {
        self.limit.try_acquire(clock.now()).is_ok_and(|permit| self.held.push_back(permit).is_ok())
    }

    fn release(&mut self) {
        drop(self.held.pop_front());
    }

    fn record(&self, sample: &Sample) {
        self.limit.record(sample);
    }

    fn limit(&self) -> u32 {
        self.limit.limit()
    }

    fn in_flight(&self) -> u32 {
        self.limit.snapshot().in_use
    }

    fn told(&self, key: &str) -> Option<Actual<'static>> {
        self.limit.memory().told(key)
    }
}

#[inline(never)]
fn drive<'a, A>(vector: &Vector<'a>, checks: &mut Checks, config: Valid<Config<A>>) -> Result<'a, ()>
where
    A: Algorithm,
    A::Memory: Told,
    Local: CellKind<Remembered<A::Memory>>,
{
    let limit = Limit::<A>::new(config);
    walk(vector, checks, &mut Calls { limit: &limit, held: heapless::Deque::new() })
}

#[inline(never)]
fn walk<'a>(vector: &Vector<'a>, checks: &mut Checks, calls: &mut dyn Limiting) -> Result<'a, ()> {
    let clock = ManualClock::new();
    clock.advance(BEGIN);
    for step in vector.steps() {
        checks.begin(&step);
        if let Some(at) = step.at()? {
            clock.set(at.saturating_add(BEGIN));
        }
        for _ in 0..step.repeat()? {
            calls.tick(&clock);
            let before = calls.limit();
            let permit = take(vector, &step, calls, &clock)?;
            checks.expect(&step, &mut |key| {
                Some(match key {
                    "permit" => Actual::Bool(permit),
                    "limit" => Actual::whole(calls.limit()),
                    "limit_before" => Actual::whole(before),
                    "in_flight" => Actual::whole(calls.in_flight()),
                    // There is no queue here.
                    "queued" => Actual::whole(0),
                    key => return calls.told(key),
                })
            })?;
        }
    }
    Ok(())
}

/// Takes a step; whether a call that it asks for was let through.
fn take<'a>(vector: &Vector<'a>, step: &Step<'a>, calls: &mut dyn Limiting, clock: &ManualClock) -> Result<'a, bool> {
    let sample = |latency: Duration, in_flight, dropped| Sample {
        latency: Span::of(latency),
        in_flight,
        dropped,
        ended: clock.now(),
    };
    match step.op {
        "acquire" => {
            step.no_args()?;
            return Ok(calls.acquire(clock));
        }
        // A call that says nothing.
        "cancel" | "release" | "ignore" => {
            step.no_args()?;
            calls.release();
        }
        "acquire_complete" | "complete" => {
            let args = step.args()?.only_args(&["rtt_ms"])?;
            let latency = args.needed("rtt_ms", args.span("rtt_ms"))?;
            if step.op == "acquire_complete" && !calls.acquire(clock) {
                return Ok(false);
            }
            let in_flight = calls.in_flight();
            calls.release();
            calls.record(&sample(latency, in_flight, false));
        }
        "sample" => {
            let args = step.args()?.only_args(&["rtt_ms", "in_flight", "dropped"])?;
            let latency = args.needed("rtt_ms", args.span("rtt_ms"))?;
            let in_flight = args.needed("in_flight", args.count("in_flight"))?;
            let dropped = args.flag("dropped")?;
            // There, a call that was dropped is left aside.
            if !(dropped && vector.dialect() == "failsafe") {
                calls.record(&sample(latency, in_flight, dropped));
            }
        }
        "snapshot" | "tick" => step.no_args()?,
        op => return Err(Unsupported::Op(op)),
    }
    Ok(true)
}

/// A gradient's settings, as the pattern of configurations asks for them.
pub(crate) fn settings<'a>(config: Object<'a>, step: &Step<'a>, checks: &mut Checks) -> Result<'a, ()> {
    step.no_args()?;
    if step.op != "build" {
        return Err(Unsupported::Op(step.op));
    }
    let config = gradient(config)?.get();
    let gradient = config.algorithm();
    checks.expect(step, &mut |key| {
        Some(match key {
            "max_limit" => Actual::whole(config.max()),
            "min_concurrency" => Actual::whole(config.min()),
            "request_count" => Actual::whole(gradient.measured_calls()),
            "percentile" => Actual::Number(Quantity::share(gradient.percentile().quantile())),
            "jitter" => Actual::Number(Quantity::share(gradient.jitter())),
            "buffer" => Actual::Number(Quantity::share(gradient.buffer())),
            "update_ms" => Actual::Number(Quantity::millis(gradient.update_interval())),
            "min_rtt_interval_ms" => Actual::Number(Quantity::millis(gradient.measure_interval())),
            _ => return None,
        })
    })
}
