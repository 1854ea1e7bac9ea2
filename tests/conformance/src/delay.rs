//! Delays between attempts: shapes, caps and jitters, one delay at a time.

use core::time::Duration;

use failsoft_core::backoff::{Backoff, Jitter};
use failsoft_core::retry::{Config, Decision, RetryPolicy};
use failsoft_core::{Instant, Ratio, Rng, Verdict};

use crate::checks::{Actual, Checks};
use crate::number::{Decimal, Quantity};
use crate::tape::{List, Object, Value};
use crate::vector::{Result, Step, Unsupported, Vector};

const CONFIG: [&str; 20] = [
    "dialect",
    "backoff",
    "base_ms",
    "base_range_ms",
    "factor",
    "step_ms",
    "max_ms",
    "jitter",
    "jitter_factor",
    "kind",
    "min_ms",
    "attempts_from",
    "random",
    "rounding",
    "take",
    "concat",
    "take_until_total_ms",
    "any_random",
    "delays_ms",
    "jitter_ms",
];

/// Draws for "any random number", the extremes not counted.
const DRAWS: u32 = 62;

/// The last delay, which a decorrelated jitter starts from.
struct Sequence {
    attempt: u32,
    previous: Duration,
}

#[inline(never)]
pub(crate) fn run<'a>(vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    let config = vector.config.only(&CONFIG)?;
    let mut sequence = Sequence { attempt: 0, previous: Duration::ZERO };
    for step in vector.steps() {
        checks.begin(&step);
        for _ in 0..step.repeat()? {
            take(config, &step, &mut sequence, checks)?;
        }
    }
    Ok(())
}

fn take<'a>(config: Object<'a>, step: &Step<'a>, sequence: &mut Sequence, checks: &mut Checks) -> Result<'a, ()> {
    let args = step.args()?.only_args(&[
        "attempt",
        "random",
        "any_random",
        "backoff",
        "base_ms",
        "factor",
        "step_ms",
        "max_ms",
        "min_ms",
        "jitter",
        "jitter_factor",
        "jitter_ms",
        "retry_after_ms",
    ])?;
    let attempt = match step.op {
        "delay" => first(config)?.saturating_add(args.needed("attempt", args.count("attempt"))?),
        "next_delay" => sequence.attempt.saturating_add(1),
        op => return Err(Unsupported::Op(op)),
    };
    sequence.attempt = attempt;
    let random = match args.random("random")? {
        None => config.random("random")?,
        random => random,
    };
    let look = Look { config, args, attempt, truncates: truncates(config)? };
    if args.flag("any_random")? || config.flag("any_random")? {
        let mut rng = Rng::new(attempt.into());
        for random in [0, u32::MAX].into_iter().chain((0..DRAWS).map(|_| rng.next())) {
            for base in bases(config)? {
                look.judge(step, base, Some(random), sequence, checks)?;
            }
        }
        return Ok(());
    }
    for base in bases(config)? {
        look.judge(step, base, random, sequence, checks)?;
    }
    Ok(())
}

/// What to add to an attempt's number to have the first one, after which the base is waited, as 1.
fn first<'a>(config: Object<'a>) -> Result<'a, u32> {
    let from = match (config.count("attempts_from")?, config.text("dialect")?.unwrap_or("")) {
        (Some(from), _) => from,
        (None, "failsafe" | "grpc" | "r4j" | "aws" | "aws2026") => 1,
        (None, "aws-blog" | "failsafe-java" | "finagle" | "polly8") => 0,
        (None, dialect) => return Err(Unsupported::Dialect(dialect)),
    };
    match from {
        0 => Ok(1),
        1 => Ok(0),
        _ => Err(Unsupported::Value { key: "attempts_from", problem: "is neither 0 nor 1" }),
    }
}

fn truncates<'a>(config: Object<'a>) -> Result<'a, bool> {
    match config.text("rounding")? {
        None => Ok(false),
        Some("truncate") => Ok(true),
        Some(_) => Err(Unsupported::Value { key: "rounding", problem: "is not known" }),
    }
}

/// The bases to look at: the ends and the middle of a range, or what the configuration says.
fn bases<'a>(config: Object<'a>) -> Result<'a, heapless::Vec<Option<Duration>, 3>> {
    let mut bases = heapless::Vec::new();
    let range = config.list("base_range_ms")?;
    let end = |index| range.get(index).and_then(Value::number).and_then(Decimal::nanos);
    match (end(0), end(1)) {
        (Some(low), Some(high)) => {
            for nanos in [low, low.midpoint(high), high] {
                let _ = bases.push(Some(Duration::from_nanos(nanos)));
            }
        }
        _ => {
            let _ = bases.push(None);
        }
    }
    Ok(bases)
}

/// One look at a delay.
struct Look<'a> {
    config: Object<'a>,
    args: Object<'a>,
    attempt: u32,
    truncates: bool,
}

impl<'a> Look<'a> {
    fn judge(
        &self,
        step: &Step<'a>,
        base: Option<Duration>,
        random: Option<u32>,
        sequence: &mut Sequence,
        checks: &mut Checks,
    ) -> Result<'a, ()> {
        let delay = self.delay(base, random, sequence)?;
        sequence.previous = delay.unwrap_or(Duration::ZERO);
        let shown = delay.map(|delay| if self.truncates { truncated(delay) } else { delay });
        let base = match base {
            None => Fields(self.config, self.args).span("base_ms")?,
            base => base,
        };
        let mut actual = |key: &str| {
            Some(match key {
                "delay_ms" => Actual::maybe(shown.map(Quantity::millis)),
                "delay_over_base" => {
                    let base = base.and_then(|base| u64::try_from(base.as_nanos()).ok());
                    let nanos = delay.and_then(|delay| i128::try_from(delay.as_nanos()).ok());
                    Actual::maybe(nanos.zip(base).and_then(|(nanos, base)| Quantity::fraction(nanos, base)))
                }
                "exhausted" => Actual::Bool(delay.is_none()),
                _ => return None,
            })
        };
        if random.is_some() { checks.expect_random(step, &mut actual) } else { checks.expect(step, &mut actual) }
    }

    /// The delay after the attempt; `None` when there is no further one.
    fn delay(&self, base: Option<Duration>, random: Option<u32>, sequence: &Sequence) -> Result<'a, Option<Duration>> {
        let concat = self.config.list("concat")?;
        if concat.iter().next().is_some() {
            return concatenated(concat, self.attempt);
        }
        let listed = self.config.list("delays_ms")?;
        if listed.iter().next().is_some() {
            return Ok(self.listed(listed));
        }
        if self.config.text("backoff")? == Some("empty") {
            return Ok(None);
        }
        if self.config.count("take")?.is_some_and(|take| self.attempt > take) {
            return Ok(None);
        }
        let fields = Fields(self.config, self.args);
        let shape = Shape::of(fields, base)?;
        if let Some(total) = self.config.span("take_until_total_ms")? {
            // Here a delay that would end at the limit, or after it, is not slept at all.
            let slept = (1..=self.attempt).map(|attempt| shape.delay(attempt, Duration::ZERO, 0));
            if slept.fold(Duration::ZERO, Duration::saturating_add) >= total {
                return Ok(None);
            }
        }
        // A jitter that counts down from the longest delay: the mirror image of ours.
        let mirrored = matches!(fields.text("kind")?, Some("factor" | "duration"));
        let random = random.unwrap_or(0);
        let random = if mirrored { u32::MAX - random.saturating_sub(1) } else { random };
        // The first delay of a range goes up to its end; see `shape`.
        let previous = shape.previous.unwrap_or(sequence.previous);
        let Some(hint) = self.args.get("retry_after_ms") else {
            return Ok(Some(shape.delay(self.attempt, previous, random)));
        };
        // What is no span says nothing.
        let hint = hint.number().and_then(Decimal::nanos).map(Duration::from_nanos);
        let verdict = hint.map_or(Verdict::TRANSIENT, |hint| Verdict::TRANSIENT.with_retry_after(hint));
        let retry = RetryPolicy::new(Config::new().with_max_attempts(u32::MAX).with_backoff(shape.backoff).validate()?);
        Ok(match retry.decide(self.attempt, verdict, previous, random, Instant::START, Instant::MAX) {
            Decision::RetryAfter(delay) => Some(delay),
            Decision::Stop(_) => None,
        })
    }

    /// One of these delays, each for one attempt.
    fn listed(&self, delays: List<'a>) -> Option<Duration> {
        let place = usize::try_from(self.attempt).ok()?.checked_sub(1)?;
        let base = delays.get(place).and_then(Value::number).and_then(Decimal::nanos).map(Duration::from_nanos)?;
        Some(Backoff::constant(base).with_cap(Duration::MAX).with_jitter(Jitter::None).delay(self.attempt))
    }
}

fn concatenated<'a>(parts: List<'a>, attempt: u32) -> Result<'a, Option<Duration>> {
    let mut left = attempt;
    for part in parts.iter().filter_map(Value::object) {
        part.only(&["backoff", "base_ms", "factor", "step_ms", "max_ms", "take"])?;
        if part.text("backoff")? == Some("empty") {
            continue;
        }
        let take = part.count("take")?.unwrap_or(u32::MAX);
        if left <= take {
            return Ok(Some(Shape::of(Fields(part, Object::EMPTY), None)?.delay(left, Duration::ZERO, 0)));
        }
        left = left.saturating_sub(take);
    }
    Ok(None)
}

/// Down to whole milliseconds. What a random number of 32 bits falls short by is added first, so that a delay which should be a whole
/// number of them stays one.
fn truncated(delay: Duration) -> Duration {
    let short = Duration::from_nanos(2).saturating_add(delay / (1 << 31));
    let millis = delay.saturating_add(short).as_millis();
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// A configuration, and what a step says in its place.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a>(pub(crate) Object<'a>, pub(crate) Object<'a>);

impl<'a> Fields<'a> {
    fn get(self, key: &str) -> Option<Value<'a>> {
        self.1.get(key).or_else(|| self.0.get(key))
    }

    fn either<T>(self, look: impl Fn(Object<'a>) -> Result<'a, Option<T>>) -> Result<'a, Option<T>> {
        match look(self.1)? {
            None => look(self.0),
            found => Ok(found),
        }
    }

    fn span(self, key: &'a str) -> Result<'a, Option<Duration>> {
        self.either(|object| object.span(key))
    }

    fn text(self, key: &'a str) -> Result<'a, Option<&'a str>> {
        self.either(|object| object.text(key))
    }

    fn share(self, key: &'a str) -> Result<'a, Option<Ratio>> {
        self.either(|object| object.share(key))
    }

    /// The factor of an exponential backoff.
    fn factor(self) -> Result<'a, Option<Ratio>> {
        self.share("factor")
    }
}

/// A backoff that means the same here.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) backoff: Backoff,
    /// The delay before, where that is part of the configuration.
    previous: Option<Duration>,
}

impl Shape {
    const fn plain(backoff: Backoff) -> Self {
        Self { backoff, previous: None }
    }

    fn delay(&self, attempt: u32, previous: Duration, random: u32) -> Duration {
        self.backoff.jittered(attempt, previous, random)
    }

    /// What the fields describe; `base` in place of theirs.
    pub(crate) fn of<'a>(fields: Fields<'a>, base: Option<Duration>) -> Result<'a, Self> {
        if fields.text("kind")? == Some("range") {
            return Self::range(fields);
        }
        let dialect = fields.text("dialect")?.unwrap_or("");
        let base = match base {
            None => fields.span("base_ms")?,
            base => base,
        };
        let base = match (base, dialect) {
            (Some(base), _) => base,
            (None, "r4j") => Duration::from_millis(500),
            (None, "polly8") => Duration::from_secs(2),
            (None, "failsafe" | "failsafe-java") => Duration::ZERO,
            (None, "aws") => Duration::from_secs(1),
            (None, "aws2026") => Duration::from_millis(50),
            (None, _) if fields.text("backoff")? == Some("none") => Duration::ZERO,
            (None, _) => return Err(Unsupported::Value { key: "base_ms", problem: "is missing" }),
        };
        if base.is_zero() {
            return Ok(Self::plain(Backoff::none()));
        }
        // A base above the cap is refused here. It means the cap.
        let cap = match fields.span("max_ms")? {
            None if dialect.starts_with("aws") && dialect != "aws-blog" => Some(Duration::from_secs(20)),
            cap => cap,
        };
        let base = base.min(cap.unwrap_or(Duration::MAX));
        let mut shape = Self::grown(fields, dialect, base)?;
        shape.backoff = shape.backoff.with_cap(cap.unwrap_or(Duration::MAX)).with_jitter(jitter(fields, base)?);
        shape.backoff.check()?;
        Ok(shape)
    }

    fn grown<'a>(fields: Fields<'a>, dialect: &str, base: Duration) -> Result<'a, Self> {
        let exponential = Self::plain(Backoff::exponential(base));
        Ok(match (fields.text("backoff")?, fields.factor()?) {
            (Some("constant"), _) => Self::plain(Backoff::constant(base)),
            (Some("linear"), _) => match fields.span("step_ms")? {
                None => Self::plain(Backoff::linear(base)),
                Some(step) => Self::plain(Backoff::linear(base).with_step(step)),
            },
            (Some("fibonacci"), _) => Self::plain(Backoff::fibonacci(base)),
            (Some("exponential") | None, Some(factor)) => Self::plain(exponential.backoff.with_factor(factor)),
            (Some("none"), _) => Self::plain(Backoff::none()),
            (Some("exponential"), None) if dialect == "r4j" => {
                Self::plain(exponential.backoff.with_factor(Ratio::percent(150)))
            }
            (Some("exponential"), None) => exponential,
            (None, None) if dialect.starts_with("aws") => exponential,
            (None, None) => Self::plain(Backoff::constant(base)),
            (Some(_), _) => return Err(Unsupported::Value { key: "backoff", problem: "is not known" }),
        })
    }

    /// Evenly from `min_ms` to `max_ms`: a decorrelated jitter after a delay of a third of that.
    fn range(fields: Fields<'_>) -> Result<'_, Self> {
        let (min, max) =
            (fields.span("min_ms")?.unwrap_or(Duration::ZERO), fields.span("max_ms")?.unwrap_or(Duration::ZERO));
        if min.is_zero() || max < min.saturating_mul(3) {
            return Err(Unsupported::Value {
                key: "min_ms",
                problem: "is zero, or above a third of the longest delay",
            });
        }
        // Rounded up; the cap takes the rest away.
        let previous = max.saturating_add(Duration::from_nanos(2)) / 3;
        let backoff = Backoff::constant(min).with_cap(max).with_jitter(Jitter::Decorrelated);
        backoff.check()?;
        Ok(Self { backoff, previous: Some(previous) })
    }
}

/// The jitter that a configuration names.
fn jitter(fields: Fields<'_>, base: Duration) -> Result<'_, Jitter> {
    if let Some(around) = fields.span("jitter_ms")? {
        let points = around.as_nanos().saturating_mul(10_000);
        let (points, rest) = (points / base.as_nanos().max(1), points % base.as_nanos().max(1));
        return match u32::try_from(points) {
            Ok(points) if rest == 0 => Ok(Jitter::Proportional(Ratio::basis_points(points))),
            _ => Err(Unsupported::Value { key: "jitter_ms", problem: "is no whole number of hundredths of a percent" }),
        };
    }
    if let Some(share) = fields.share("jitter_factor")? {
        return Ok(Jitter::Proportional(share));
    }
    let always = fields.text("dialect")?.is_some_and(|dialect| matches!(dialect, "aws" | "aws2026"));
    Ok(match fields.get("jitter") {
        // From nothing up to the whole delay, unless said otherwise.
        None if always => Jitter::Full,
        None | Some(Value::Bool(false)) => Jitter::None,
        // A quarter around the delay.
        Some(Value::Bool(true)) => Jitter::Proportional(Ratio::percent(25)),
        Some(Value::Text("none")) => Jitter::None,
        Some(Value::Text("full")) => Jitter::Full,
        // Within the bounds that its formula promises.
        Some(Value::Text("equal" | "decorrelated_v2")) => Jitter::Equal,
        Some(Value::Text("decorrelated")) => Jitter::Decorrelated,
        Some(Value::Text("multiply by 0.8 + 0.4*random")) => Jitter::Proportional(Ratio::percent(20)),
        Some(Value::Text(text)) => match text.strip_prefix("proportional ").and_then(|text| text.strip_suffix('%')) {
            Some(percent) => match percent.parse() {
                Ok(percent) => Jitter::Proportional(Ratio::percent(percent)),
                Err(_) => return Err(Unsupported::Value { key: "jitter", problem: "is not known" }),
            },
            None => return Err(Unsupported::Value { key: "jitter", problem: "is not known" }),
        },
        Some(_) => return Err(Unsupported::Value { key: "jitter", problem: "is not known" }),
    })
}
