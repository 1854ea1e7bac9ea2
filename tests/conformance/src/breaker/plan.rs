//! What a dialect's configuration means here.

use core::time::Duration;

use failsoft_core::circuit_breaker::{Config, Counts, StateKind};
use failsoft_core::{Ratio, Verdict};

use super::any::{AnyTrip, Periods, Settings};
use crate::delay::{Fields, Shape};
use crate::tape::{List, Object, Value};
use crate::vector::{Result, Unsupported, Vector};

/// Whose rules apply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Dialect {
    Failsafe,
    Finagle,
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

    pub(crate) const fn name(self, state: StateKind) -> &'static str {
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

/// A breaker that means the same here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'a> {
    pub(super) dialect: Dialect,
    pub(super) trip: AnyTrip<'a>,
    pub(crate) open_for: Duration,
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
    /// The length of a bucket of the window that counts are kept for, in a dialect that tells more than conditions look at.
    pub(super) bucket: Option<Duration>,
    /// The length of that window.
    pub(super) interval: Option<Duration>,
    /// The decimals that a share of one is rounded to; `None` where it is told exactly.
    pub(super) decimals: Option<u32>,
}

impl<'a> Plan<'a> {
    pub(super) fn of(vector: &Vector<'a>) -> Result<'a, Self> {
        Self::by(vector.dialect(), vector.config)
    }

    /// The same of settings that do not say whose rules apply.
    pub(crate) fn by(dialect: &'a str, config: Object<'a>) -> Result<'a, Self> {
        match dialect {
            "failsafe" => Self::failsafe(config),
            "gobreaker" => Self::gobreaker(config),
            "polly8" => Self::polly(config),
            "r4j" => Self::r4j(config),
            "sentinel" => Self::sentinel(config),
            dialect => Err(Unsupported::Dialect(dialect)),
        }
    }

    pub(crate) const fn new(dialect: Dialect, trip: AnyTrip<'a>, open_for: Duration, trials: (u32, u32)) -> Self {
        Self {
            dialect,
            trip,
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
            decimals: None,
        }
    }

    pub(crate) fn failsafe(config: Object<'a>) -> Result<'a, Self> {
        config.only(&["dialect", "failure", "success", "delay_ms", "rate_rounding"])?;
        let (mut count, mut of, mut trip, mut full_trial) = (1, 1, AnyTrip::failures(1, 1)?, false);
        if let Some(failure) = config.object("failure")? {
            failure.only(&["count", "of", "period_ms", "rate", "min_calls"])?;
            let period = failure.span("period_ms")?;
            // No minimum at all is one that a single call meets.
            let minimum = failure.count("min_calls")?.unwrap_or(1).max(1);
            if let Some(rate) = failure.percent("rate")? {
                // As many trials as a rate takes, and all of them.
                (count, of, full_trial) = (failures_at(rate, minimum), minimum, true);
                let window = failure.needed("period_ms", Ok(period))?;
                trip = in_tenths(&Settings { window, failures: None, rate: Some(rate), slow: None, minimum })?;
            } else {
                count = failure.needed("count", failure.count("count"))?;
                of = failure.count("of")?.unwrap_or(count);
                trip = match period {
                    Some(window) => {
                        in_tenths(&Settings { window, failures: Some(count), rate: None, slow: None, minimum })?
                    }
                    None => AnyTrip::failures(count, of)?,
                };
            }
        }
        let trials = match config.object("success")? {
            None => (of.saturating_sub(count).saturating_add(1), of),
            Some(success) => {
                success.only(&["count", "of"])?;
                full_trial = false;
                let count = success.needed("count", success.count("count"))?;
                (count, success.count("of")?.unwrap_or(count))
            }
        };
        let open_for = config.span("delay_ms")?.unwrap_or(Duration::from_secs(60));
        let mut plan = Self::new(Dialect::Failsafe, trip, open_for, trials);
        // Its rates are rounded.
        (plan.full_trial, plan.decimals) = (full_trial, Some(decimals(config)?.unwrap_or(2)));
        Ok(plan)
    }

    fn gobreaker(config: Object<'a>) -> Result<'a, Self> {
        // How successes are told is in the calls themselves.
        config.only(&["dialect", "half_open_max", "interval_ms", "open_ms", "trip", "is_successful", "bucket_ms"])?;
        let interval = config.span("interval_ms")?.filter(|interval| !interval.is_zero());
        let bucket = config.span("bucket_ms")?.filter(|bucket| !bucket.is_zero());
        let trip = match config.object("trip")? {
            None => AnyTrip::consecutive(6)?,
            Some(trip) => {
                let known = ["consecutive_failures_gt", "consecutive_failures_ge", "min_requests", "failure_ratio_ge"];
                trip.only(&known)?;
                let consecutive = match trip.count("consecutive_failures_gt")? {
                    Some(failures) => Some(failures.saturating_add(1)),
                    None => trip.count("consecutive_failures_ge")?,
                };
                match (consecutive, trip.share("failure_ratio_ge")?) {
                    (Some(failures), None) => AnyTrip::consecutive(failures)?,
                    (None, Some(rate)) => {
                        let window = interval.unwrap_or(Duration::MAX);
                        let minimum = trip.count("min_requests")?.unwrap_or(1).max(1);
                        let settings = Settings { window, failures: None, rate: Some(rate), slow: None, minimum };
                        AnyTrip::over_time(&settings, bucket)?
                    }
                    _ => return Err(Unsupported::Value { key: "trip", problem: "is not known" }),
                }
            }
        };
        let open_for = config.span("open_ms")?.filter(|span| !span.is_zero()).unwrap_or(Duration::from_secs(60));
        let probes = config.count("half_open_max")?.unwrap_or(1).max(1);
        let mut plan = Self::new(Dialect::Gobreaker, trip, open_for, (probes, probes));
        (plan.bucket, plan.interval) = (bucket, interval);
        Ok(plan)
    }

    fn polly(config: Object<'a>) -> Result<'a, Self> {
        config.only(&["dialect", "failure_ratio", "min_throughput", "sampling_ms", "break_ms", "break_generator"])?;
        let window = config.span("sampling_ms")?.unwrap_or(Duration::from_secs(30));
        let settings = Settings {
            window,
            failures: None,
            rate: Some(config.share("failure_ratio")?.unwrap_or(Ratio::percent(10))),
            slow: None,
            minimum: config.count("min_throughput")?.unwrap_or(100),
        };
        // Shorter windows than this are not divided.
        let bucket = (window >= Duration::from_millis(200)).then_some(window / 10);
        let mut trip = AnyTrip::over_time(&settings, bucket)?;
        if let Some(text) = config.text("break_generator")? {
            let problem = Unsupported::Value { key: "break_generator", problem: "is not understood" };
            trip.periods = opening(text).ok_or(problem)?;
        }
        let open_for = config.span("break_ms")?.unwrap_or(Duration::from_secs(5));
        let mut plan = Self::new(Dialect::Polly, trip, open_for, (1, 1));
        // A probe that does not come back does not hold its place for longer.
        plan.half_open_for = Some(open_for).filter(|span| !span.is_zero());
        Ok(plan)
    }

    fn sentinel(config: Object<'a>) -> Result<'a, Self> {
        config.only(&[
            "dialect",
            "strategy",
            "threshold",
            "slow_call_ms",
            "stat_interval_ms",
            "min_requests",
            "recovery_ms",
        ])?;
        let window = config.span("stat_interval_ms")?.unwrap_or(Duration::from_secs(1));
        let minimum = config.count("min_requests")?.unwrap_or(5).max(1);
        let mut settings = Settings { window, failures: None, rate: None, slow: None, minimum };
        // There, only what is above a threshold opens, unless nothing can be above it.
        let above = |rate: Ratio| match rate {
            Ratio::ONE => rate,
            rate => Ratio::basis_points(rate.as_basis_points().saturating_add(1)),
        };
        match config.text("strategy")? {
            None | Some("error_ratio") => {
                settings.rate = Some(above(config.needed("threshold", config.share("threshold"))?));
            }
            Some("error_count") => {
                settings.failures = Some(config.needed("threshold", config.count("threshold"))?.saturating_add(1));
            }
            Some("slow_ratio") => {
                let after = config.needed("slow_call_ms", config.span("slow_call_ms"))?;
                settings.slow = Some((above(config.share("threshold")?.unwrap_or(Ratio::ONE)), after));
            }
            Some(_) => return Err(Unsupported::Value { key: "strategy", problem: "is not known" }),
        }
        let open_for = config.needed("recovery_ms", config.span("recovery_ms"))?;
        Ok(Self::new(Dialect::Sentinel, AnyTrip::over_time(&settings, None)?, open_for, (1, 1)))
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
        let slow_after = config.span("slow_call_ms")?.unwrap_or(Duration::from_secs(60));
        let mut minimum = config.count("min_calls")?.unwrap_or(100);
        // Calls, or seconds.
        let size = config.count("window_size")?.unwrap_or(100);
        let trip = match config.text("window")? {
            None | Some("count") => {
                minimum = minimum.min(size);
                AnyTrip::rate(rate, size, minimum, (slow_rate, slow_after))?
            }
            Some("time") => {
                let window = Duration::from_secs(config.count("window_s")?.unwrap_or(size).into());
                let slow = Some((slow_rate, slow_after));
                let settings = Settings { window, failures: None, rate: Some(rate), slow, minimum };
                AnyTrip::over_time(&settings, Some(Duration::from_secs(1)))?
            }
            Some(_) => return Err(Unsupported::Value { key: "window", problem: "is not known" }),
        };
        let trials = config.count("half_open_calls")?.unwrap_or(10);
        let judged = trials.min(minimum);
        // As many failures as stay below the rate.
        let failures = failures_at(rate, judged).saturating_sub(1);
        let mut plan = Self::new(Dialect::R4j, trip, Duration::ZERO, (judged.saturating_sub(failures), judged));
        plan.open_for = match config.get("open_ms") {
            None => Duration::from_secs(60),
            Some(Value::Object(growing)) => {
                let periods = Shape::of(Fields(growing, config), None)?.backoff;
                plan.trip.periods = Periods::Growing(periods);
                periods.delay(1)
            }
            Some(_) => config.needed("open_ms", config.span("open_ms"))?,
        };
        plan.half_open_for = config.span("half_open_max_wait_ms")?.filter(|span| !span.is_zero());
        plan.slow_after = Some(slow_after);
        plan.rates = (rate, slow_rate);
        plan.full_trial = true;
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

    /// The breaker's settings.
    pub(crate) fn config(&self) -> Config<AnyTrip<'a>> {
        let (successes, trials) = self.trials;
        let config = Config::new().with_trip(self.trip).with_open_for(self.open_for).with_trials(successes, trials);
        let config = match self.half_open_for {
            None => config.without_half_open_deadline(),
            Some(deadline) => config.with_half_open_for(deadline),
        };
        if self.full_trial { config.with_full_trial() } else { config }
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

/// A window of time in ten steps.
fn in_tenths<'a, 'e>(settings: &Settings) -> Result<'e, AnyTrip<'a>> {
    AnyTrip::over_time(settings, Some(settings.window / 10))
}

/// The fewest failures of so many calls that reach a rate.
const fn failures_at(rate: Ratio, calls: u32) -> u32 {
    rate.as_basis_points().saturating_mul(calls).div_ceil(10_000)
}

/// `2 decimals, …`.
pub(crate) fn decimals<'a>(config: Object<'a>) -> Result<'a, Option<u32>> {
    let problem = Unsupported::Value { key: "rate_rounding", problem: "is not understood" };
    let Some(text) = config.text("rate_rounding")? else { return Ok(None) };
    let decimals = text.split(' ').next().and_then(|number| number.parse().ok());
    decimals.map(Some).ok_or(problem)
}

/// Whether so many of so many are as much as a rate, or more.
pub(super) fn reaches(rate: Ratio, part: u32, whole: u32) -> bool {
    whole > 0 && u64::from(part) * 10_000 >= u64::from(rate.as_basis_points()) * u64::from(whole)
}

/// `failure_count=1,failure_ratio=0.5 -> 42 min`.
fn opening<'a>(text: &str) -> Option<Periods<'a>> {
    let (when, period) = text.split_once(" -> ")?;
    let (count, ratio) = when.split_once(',')?;
    let failures = count.strip_prefix("failure_count=")?.parse().ok()?;
    let hundredths = ratio.strip_prefix("failure_ratio=0.")?;
    let digits = u32::try_from(hundredths.len()).ok()?;
    let points = hundredths.parse::<u32>().ok()?.checked_mul(10_u32.checked_pow(4_u32.checked_sub(digits)?)?)?;
    let minutes: u64 = period.strip_suffix(" min")?.parse().ok()?;
    Some(Periods::Generated(failures, Ratio::basis_points(points), Duration::from_secs(minutes.checked_mul(60)?)))
}

pub(crate) fn holds(names: List<'_>, name: &str) -> bool {
    names.iter().any(|value| value.text() == Some(name))
}
