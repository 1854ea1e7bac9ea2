//! What a dialect's configuration means here.

use core::time::Duration;

use failsoft_core::circuit_breaker::{Counts, StateKind};
use failsoft_core::{Ratio, Verdict};

use crate::tape::{List, Object, Value};
use crate::vector::{Result, Unsupported, Vector};

/// Whose rules apply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Dialect {
    Failsafe,
    Gobreaker,
    Polly,
    R4j,
    Sentinel,
}

impl Dialect {
    /// Whether a state whose time is over is left without a call: elsewhere the next call does that.
    pub(super) const fn changes_by_itself(self) -> bool {
        matches!(self, Self::Gobreaker)
    }

    pub(super) const fn name(self, state: StateKind) -> &'static str {
        match state {
            StateKind::Closed => "closed",
            StateKind::Open => "open",
            StateKind::HalfOpen => "half_open",
            StateKind::Isolated if matches!(self, Self::R4j) => "forced_open",
            StateKind::Isolated => "isolated",
            StateKind::Disabled => "disabled",
            StateKind::MetricsOnly => "metrics_only",
        }
    }
}

/// What opens the breaker.
#[derive(Clone, Copy, Debug)]
pub(super) enum Condition {
    Consecutive(u32),
    /// A share of the last so many calls, of a number of them at least.
    Rate {
        rate: Ratio,
        window: u32,
        minimum: u32,
    },
    /// So many of the last so many calls.
    Failures {
        count: u32,
        of: u32,
    },
    /// A share of the calls of a time, of a number of them at least.
    TimedRate {
        rate: Ratio,
        window: Duration,
        minimum: u32,
    },
    /// So many failures in a time.
    TimedFailures {
        count: u32,
        window: Duration,
    },
}

/// A breaker that means the same here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan<'a> {
    pub(super) dialect: Dialect,
    pub(super) condition: Condition,
    pub(super) open_for: Duration,
    pub(super) half_open_for: Option<Duration>,
    /// Successes that close, of trials.
    pub(super) trials: (u32, u32),
    pub(super) slow_after: Option<Duration>,
    /// Rates in percent from which on a closed breaker opens, for failures and for slow calls, and the calls it takes to have one.
    pub(super) rates: (Ratio, Ratio),
    minimum: u32,
    half_open_minimum: u32,
    failure_results: List<'a>,
    record_only: Option<List<'a>>,
    ignored: List<'a>,
    open_on: Option<&'a str>,
    /// Whether half-open waits for all its trials.
    pub(super) full_trial: bool,
    /// The length of a bucket of a window of time that moves.
    pub(super) bucket: Option<Duration>,
    /// The length of a window of time that counts are kept for, in a dialect that tells more than conditions look at.
    pub(super) interval: Option<Duration>,
    /// How long the breaker opens when so many failures, that are such a share of the calls, opened it.
    pub(super) opening: Option<(u32, Ratio, Duration)>,
}

impl<'a> Plan<'a> {
    pub(super) fn of(vector: &Vector<'a>) -> Result<'a, Self> {
        let config = vector.config;
        match vector.dialect() {
            "failsafe" => Self::failsafe(config),
            "gobreaker" => Self::gobreaker(config),
            "polly8" => Self::polly(config),
            "r4j" => Self::r4j(config),
            "sentinel" => Self::sentinel(config),
            dialect => Err(Unsupported::Dialect(dialect)),
        }
    }

    const fn new(dialect: Dialect, condition: Condition, open_for: Duration, trials: (u32, u32)) -> Self {
        Self {
            dialect,
            condition,
            open_for,
            half_open_for: None,
            trials,
            slow_after: None,
            rates: (Ratio::ONE, Ratio::ONE),
            minimum: 1,
            half_open_minimum: 1,
            failure_results: List::EMPTY,
            record_only: None,
            ignored: List::EMPTY,
            open_on: None,
            full_trial: false,
            bucket: None,
            interval: None,
            opening: None,
        }
    }

    fn failsafe(config: Object<'a>) -> Result<'a, Self> {
        config.only(&["dialect", "failure", "success", "delay_ms"])?;
        let (mut count, mut of, mut period) = (1, 1, None);
        if let Some(failure) = config.object("failure")? {
            failure.only(&["count", "of", "period_ms"])?;
            count = failure.needed("count", failure.count("count"))?;
            of = failure.count("of")?.unwrap_or(count);
            period = failure.span("period_ms")?;
        }
        let condition = match period {
            Some(window) => Condition::TimedFailures { count, window },
            None if count == of => Condition::Consecutive(count),
            None => Condition::Failures { count, of },
        };
        let trials = match config.object("success")? {
            None => (of.saturating_sub(count).saturating_add(1), of),
            Some(success) => {
                success.only(&["count", "of"])?;
                let count = success.needed("count", success.count("count"))?;
                (count, success.count("of")?.unwrap_or(count))
            }
        };
        let open_for = config.span("delay_ms")?.unwrap_or(Duration::from_secs(60));
        Ok(Self::new(Dialect::Failsafe, condition, open_for, trials))
    }

    fn gobreaker(config: Object<'a>) -> Result<'a, Self> {
        // How successes are told is in the calls themselves.
        config.only(&["dialect", "half_open_max", "interval_ms", "open_ms", "trip", "is_successful", "bucket_ms"])?;
        let condition = match config.object("trip")? {
            None => Condition::Consecutive(6),
            Some(trip) => {
                trip.only(&["consecutive_failures_gt", "min_requests", "failure_ratio_ge"])?;
                match (trip.count("consecutive_failures_gt")?, trip.share("failure_ratio_ge")?) {
                    (Some(failures), None) => Condition::Consecutive(failures.saturating_add(1)),
                    (None, Some(rate)) => Condition::TimedRate {
                        rate,
                        window: config.span("interval_ms")?.unwrap_or(Duration::ZERO),
                        minimum: trip.count("min_requests")?.unwrap_or(1),
                    },
                    _ => return Err(Unsupported::Value { key: "trip", problem: "is not known" }),
                }
            }
        };
        let open_for = config.span("open_ms")?.filter(|span| !span.is_zero()).unwrap_or(Duration::from_secs(60));
        let probes = config.count("half_open_max")?.unwrap_or(1).max(1);
        let mut plan = Self::new(Dialect::Gobreaker, condition, open_for, (probes, probes));
        plan.bucket = config.span("bucket_ms")?.filter(|bucket| !bucket.is_zero());
        plan.interval = config.span("interval_ms")?.filter(|interval| !interval.is_zero());
        Ok(plan)
    }

    fn polly(config: Object<'a>) -> Result<'a, Self> {
        config.only(&["dialect", "failure_ratio", "min_throughput", "sampling_ms", "break_ms", "break_generator"])?;
        let condition = Condition::TimedRate {
            rate: config.share("failure_ratio")?.unwrap_or(Ratio::percent(10)),
            window: config.span("sampling_ms")?.unwrap_or(Duration::from_secs(30)),
            minimum: config.count("min_throughput")?.unwrap_or(100),
        };
        let open_for = config.span("break_ms")?.unwrap_or(Duration::from_secs(5));
        let mut plan = Self::new(Dialect::Polly, condition, open_for, (1, 1));
        if let Some(text) = config.text("break_generator")? {
            let problem = Unsupported::Value { key: "break_generator", problem: "is not understood" };
            plan.opening = Some(opening(text).ok_or(problem)?);
        }
        // Shorter windows than this are not divided.
        let window = config.span("sampling_ms")?.unwrap_or(Duration::from_secs(30));
        plan.bucket = (window >= Duration::from_millis(200)).then_some(window / 10);
        Ok(plan)
    }

    fn sentinel(config: Object<'a>) -> Result<'a, Self> {
        config.only(&["dialect", "strategy", "threshold", "stat_interval_ms", "min_requests", "recovery_ms"])?;
        match config.text("strategy")? {
            None | Some("error_ratio") => {}
            Some(_) => return Err(Unsupported::Value { key: "strategy", problem: "is not known" }),
        }
        let condition = Condition::TimedRate {
            rate: config.needed("threshold", config.share("threshold"))?,
            window: config.span("stat_interval_ms")?.unwrap_or(Duration::from_secs(1)),
            minimum: config.count("min_requests")?.unwrap_or(5),
        };
        let open_for = config.needed("recovery_ms", config.span("recovery_ms"))?;
        Ok(Self::new(Dialect::Sentinel, condition, open_for, (1, 1)))
    }

    fn r4j(config: Object<'a>) -> Result<'a, Self> {
        config.only(&[
            "dialect",
            "window",
            "window_size",
            "window_s",
            "min_calls",
            "failure_rate",
            "slow_rate",
            "slow_call_ms",
            "half_open_calls",
            "half_open_max_wait_ms",
            "open_ms",
            "automatic_half_open",
            "ignored",
            "failure_results",
            "record_only",
            "open_on_error",
        ])?;
        let rate = config.percent("failure_rate")?.unwrap_or(Ratio::percent(50));
        let slow_rate = config.percent("slow_rate")?.unwrap_or(Ratio::percent(100));
        let mut minimum = config.count("min_calls")?.unwrap_or(100);
        let condition = match config.text("window")? {
            None | Some("count") => {
                let window = config.count("window_size")?.unwrap_or(100);
                minimum = minimum.min(window);
                Condition::Rate { rate, window, minimum }
            }
            Some("time") => {
                let seconds = config.needed("window_s", config.count("window_s"))?;
                Condition::TimedRate { rate, window: Duration::from_secs(seconds.into()), minimum }
            }
            Some(_) => return Err(Unsupported::Value { key: "window", problem: "is not known" }),
        };
        let open_for = config.span("open_ms")?.unwrap_or(Duration::from_secs(60));
        let trials = config.count("half_open_calls")?.unwrap_or(10);
        let judged = trials.min(minimum);
        // As many failures as stay below the rate.
        let failures = (rate.as_basis_points().saturating_mul(judged)).div_ceil(10_000).saturating_sub(1);
        let mut plan = Self::new(Dialect::R4j, condition, open_for, (judged.saturating_sub(failures), judged));
        plan.half_open_for = config.span("half_open_max_wait_ms")?.filter(|span| !span.is_zero());
        plan.slow_after = Some(config.span("slow_call_ms")?.unwrap_or(Duration::from_secs(60)));
        plan.rates = (rate, slow_rate);
        plan.full_trial = true;
        plan.bucket = Some(Duration::from_secs(1));
        (plan.minimum, plan.half_open_minimum) = (minimum, judged);
        plan.failure_results = config.list("failure_results")?;
        plan.record_only = config.get("record_only").and_then(Value::list);
        plan.ignored = config.list("ignored")?;
        if let Some(open_on) = config.object("open_on_error")? {
            open_on.only(&["kind", "duration_from"])?;
            if !matches!(open_on.text("duration_from")?, None | Some("error.ban_ms")) {
                return Err(Unsupported::Value { key: "duration_from", problem: "is not known" });
            }
            plan.open_on = Some(open_on.needed("kind", open_on.text("kind"))?);
        }
        // Its timer is a call of `handle_timeout` here, whoever makes it.
        config.flag("automatic_half_open")?;
        Ok(plan)
    }

    /// The calls it takes for a rate in this state.
    pub(super) const fn minimum(&self, state: StateKind) -> u32 {
        match state {
            StateKind::HalfOpen => self.half_open_minimum,
            _ => self.minimum,
        }
    }

    /// What the rates say about these counts.
    pub(super) fn opinion(&self, counts: Counts) -> &'static str {
        if counts.calls < self.minimum {
            "below_minimum"
        } else if reaches(self.rates.0, counts.failures, counts.calls)
            || reaches(self.rates.1, counts.slow, counts.calls)
        {
            "exceeded"
        } else {
            "below_threshold"
        }
    }

    /// What a result counts as.
    pub(super) fn result(&self, value: &'a str) -> Result<'a, Verdict> {
        Ok(if holds(self.failure_results, value) { Verdict::TRANSIENT } else { Verdict::SUCCESS })
    }

    /// What an error counts as.
    pub(super) fn error(&self, kind: &'a str, args: Object<'a>) -> Result<'a, Verdict> {
        if holds(self.ignored, kind) {
            return Ok(Verdict::IGNORED);
        }
        // Where some errors are named as the ones that count, the others count as successes.
        if self.record_only.is_some_and(|named| !holds(named, kind)) {
            return Ok(Verdict::SUCCESS);
        }
        if self.open_on == Some(kind) {
            let verdict = Verdict::TRANSIENT.with_opening();
            return Ok(args.span("ban_ms")?.map_or(verdict, |ban| verdict.with_retry_after(ban)));
        }
        Ok(Verdict::TRANSIENT)
    }
}

/// Whether so many of so many are as much as a rate, or more.
pub(super) fn reaches(rate: Ratio, part: u32, whole: u32) -> bool {
    whole > 0 && u64::from(part) * 10_000 >= u64::from(rate.as_basis_points()) * u64::from(whole)
}

/// `failure_count=1,failure_ratio=0.5 -> 42 min`.
fn opening(text: &str) -> Option<(u32, Ratio, Duration)> {
    let (when, period) = text.split_once(" -> ")?;
    let (count, ratio) = when.split_once(',')?;
    let failures = count.strip_prefix("failure_count=")?.parse().ok()?;
    let hundredths = ratio.strip_prefix("failure_ratio=0.")?;
    let digits = u32::try_from(hundredths.len()).ok()?;
    let points = hundredths.parse::<u32>().ok()?.checked_mul(10_u32.checked_pow(4_u32.checked_sub(digits)?)?)?;
    let minutes: u64 = period.strip_suffix(" min")?.parse().ok()?;
    Some((failures, Ratio::basis_points(points), Duration::from_secs(minutes.checked_mul(60)?)))
}

fn holds(names: List<'_>, name: &str) -> bool {
    names.iter().any(|value| value.text() == Some(name))
}
