//! From what a policy's sections say together to the configurations of core.

use core::time::Duration;

use failsoft_core::backoff::{self, Backoff, Jitter};
use failsoft_core::budget::TokenConfig;
use failsoft_core::circuit_breaker::{self, ConsecutiveFailures, CountBased, TimeBased, trip};
use failsoft_core::{ConfigError, Ratio, Valid, bulkhead, rate_limiter, retry};

use super::error::{Place, ProblemKind, Problems};
use super::keys::{BREAKER, BULKHEAD, GROUPS, Group, Key, Leaf, RATE_LIMIT, RETRY, TOP, WORDS};
use super::section::{Found, Part, Section};
use super::text;

/// The steps in which a window of time moves on.
pub(super) const STEPS: usize = 10;

/// What one policy consists of: checked by core.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct PolicySettings {
    pub(super) timeout: Option<Duration>,
    pub(super) retry: Option<RetrySettings>,
    pub(super) rate_limit: Option<Valid<rate_limiter::Config>>,
    pub(super) bulkhead: Option<BulkheadSettings>,
    pub(super) breaker: Option<BreakerSettings>,
    pub(super) attempt_timeout: Option<Duration>,
}

impl PolicySettings {
    pub(super) fn budget(&self) -> Option<Valid<TokenConfig>> {
        self.retry.and_then(|retry| retry.budget)
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct RetrySettings {
    pub(super) config: Valid<retry::Config>,
    pub(super) budget: Option<Valid<TokenConfig>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct BulkheadSettings {
    pub(super) config: Valid<bulkhead::Config>,
    pub(super) permits: u32,
    pub(super) waiting: Waiting,
}

/// How callers wait for a bulkhead: what can't be changed in place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Waiting {
    queue: u32,
    longest: Duration,
    newest_first: bool,
}

/// By the kind of the trip condition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum BreakerSettings {
    Consecutive(Valid<circuit_breaker::Config<ConsecutiveFailures>>),
    Calls(Valid<circuit_breaker::Config<CountBased<WORDS>>>),
    Time(Valid<circuit_breaker::Config<TimeBased<STEPS>>>),
}

/// Builds one policy. What is wrong is added to the problems, and the part is left out.
pub(super) fn build(name: &str, place: &Place, section: &Section, problems: &mut Problems) -> PolicySettings {
    let mut reader = Reader { policy: name, place, part: &section.parts[TOP], group: &GROUPS[TOP], problems };
    let (timeout, attempt_timeout) = (reader.duration("timeout"), reader.duration("attempt_timeout"));
    PolicySettings {
        timeout,
        retry: reader.when_on(RETRY, section, Reader::retry),
        rate_limit: reader.when_on(RATE_LIMIT, section, Reader::rate_limit),
        bulkhead: reader.when_on(BULKHEAD, section, Reader::bulkhead),
        breaker: reader.when_on(BREAKER, section, Reader::breaker),
        attempt_timeout,
    }
}

/// Reads the values of one part.
struct Reader<'r> {
    policy: &'r str,
    place: &'r Place,
    part: &'r Part,
    group: &'static Group,
    problems: &'r mut Problems,
}

impl<'r> Reader<'r> {
    fn when_on<R>(
        &mut self,
        index: usize,
        section: &'r Section,
        build: impl FnOnce(&mut Self) -> Option<R>,
    ) -> Option<R> {
        (self.part, self.group) = (&section.parts[index], &GROUPS[index]);
        let on = self.part.switch.as_ref().is_some_and(|(on, _)| *on);
        if on { build(self) } else { None }
    }

    fn found(&self, key: &str) -> Option<&Found> {
        self.part.found.get(key)
    }

    fn duration(&self, key: &str) -> Option<Duration> {
        self.found(key).and_then(|found| if let Leaf::Duration(span) = found.leaf { Some(span) } else { None })
    }

    fn number(&self, key: &str) -> Option<u32> {
        self.found(key).and_then(|found| if let Leaf::Number(number) = found.leaf { Some(number) } else { None })
    }

    fn ratio(&self, key: &str) -> Option<Ratio> {
        self.found(key).and_then(|found| if let Leaf::Ratio(ratio) = found.leaf { Some(ratio) } else { None })
    }

    fn jitter(&self) -> Jitter {
        self.found("jitter").map_or(backoff::JITTER, |found| {
            if let Leaf::Jitter(jitter) = found.leaf { jitter } else { backoff::JITTER }
        })
    }

    fn flag(&self, key: &str) -> bool {
        self.found(key).is_some_and(|found| matches!(found.leaf, Leaf::Flag(true)))
    }

    /// Adds a problem with a key that was said, or should have been.
    fn wrong(&mut self, kind: ProblemKind, key: &str, reason: String) {
        let valid = self.group.keys.iter().find(|known| known.name == key).map(Key::valid);
        let said = self.part.switch.as_ref().map_or(self.place, |(_, place)| place);
        let (place, path) = match self.found(key) {
            Some(found) => (found.place.clone(), found.path.clone()),
            None => (said.clone(), format!("policies.{}.{}.{key}", text::key(self.policy), self.group.name)),
        };
        // Where it is with what another section says that this makes no sense, whose policy it is has to be said.
        let of = |path: &str| path.rsplit_once('.').map(|(section, _)| section.to_owned());
        let mixed = self.found(key).is_some() && self.part.found.values().any(|found| of(&found.path) != of(&path));
        let reason = if mixed { format!("{reason} (in `{}`)", text::cut(self.policy)) } else { reason };
        self.problems.add(kind, &place, path, reason, valid.unwrap_or_default());
    }

    /// What core has checked, or its problem with the key that is meant: `keys` are those that have other names there.
    fn checked<R>(&mut self, checked: Result<R, ConfigError>, keys: &[(&str, &str)]) -> Option<R> {
        let refused = |error: ConfigError| {
            let field = error.field();
            let key = keys.iter().find(|(other, _)| *other == field).map_or(field, |(_, key)| key);
            self.wrong(ProblemKind::Together, key, error.problem().into());
        };
        checked.map_err(refused).ok()
    }

    /// Whether this key was said, which has to be.
    fn needs<R>(&mut self, value: Option<R>, key: &str) -> Option<R> {
        if value.is_none() {
            self.wrong(ProblemKind::Missing, key, "is missing".into());
        }
        value
    }

    /// Whether a key is there if another one is.
    fn comes_with(&mut self, key: &str, other: &str) -> Option<()> {
        if self.found(key).is_some() && self.found(other).is_none() {
            self.wrong(ProblemKind::Missing, other, format!("is missing: `{key}` needs it"));
            return None;
        }
        Some(())
    }

    fn retry(&mut self) -> Option<RetrySettings> {
        let mut config = retry::Config::new().with_max_attempts(self.number("attempts").unwrap_or(retry::ATTEMPTS));
        let delay = self.duration("delay").unwrap_or(backoff::BASE);
        let mut delays = Backoff::exponential(delay).with_jitter(self.jitter());
        if let Some(factor) = self.ratio("factor") {
            delays = delays.with_factor(factor);
        }
        if let Some(most) = self.duration("max_delay") {
            if most < delay {
                self.wrong(ProblemKind::Together, "max_delay", format!("is below the `delay` of {delay:?}"));
                return None;
            }
            delays = delays.with_cap(most);
        }
        config = config.with_backoff(if delay.is_zero() { Backoff::none() } else { delays });
        if let Some(total) = self.duration("total_time") {
            config = config.with_total_time(total);
        }
        let names = [("max_attempts", "attempts"), ("base", "delay"), ("cap", "max_delay")];
        self.comes_with("min_retries_per_second", "budget")?;
        let budget = self.budget();
        Some(RetrySettings { config: self.checked(config.validate(), &names)?, budget })
    }

    fn budget(&mut self) -> Option<Valid<TokenConfig>> {
        let mut config = TokenConfig::new().with_deposit(self.ratio("budget")?);
        if let Some(least) = self.number("min_retries_per_second") {
            config = config.with_minimum_per_second(least);
        }
        self.checked(config.validate(), &[("deposit", "budget")])
    }

    /// The queue and the longest wait, which come together.
    fn queue(&mut self) -> Option<(u32, Duration)> {
        let queue = self.number("queue");
        if queue != Some(0) {
            let (both, either) = (self.comes_with("queue", "max_wait"), self.comes_with("max_wait", "queue"));
            both.and(either)?;
        }
        let queue = queue.unwrap_or(0);
        // Without a queue there is no wait, and another one is no other setting.
        let longest = self.duration("max_wait").filter(|_| queue > 0);
        Some((queue, longest.unwrap_or(Duration::ZERO)))
    }

    fn rate_limit(&mut self) -> Option<Valid<rate_limiter::Config>> {
        let (calls, queue) = (self.number("calls"), self.queue());
        let (calls, (queue, wait)) = (self.needs(calls, "calls")?, queue?);
        let period = self.duration("per").unwrap_or(Duration::from_secs(1));
        let burst = self.number("burst").unwrap_or(calls);
        let config = rate_limiter::Config::new(calls, period).with_burst(burst).with_queue(queue, wait);
        self.checked(config.validate(), &[("permits", "calls"), ("period", "per")])
    }

    fn bulkhead(&mut self) -> Option<BulkheadSettings> {
        let (permits, queue) = (self.number("permits"), self.queue());
        let (permits, (queue, longest)) = (self.needs(permits, "permits")?, queue?);
        let waiting = Waiting { queue, longest, newest_first: self.flag("newest_first") };
        let mut config = bulkhead::Config::new(permits).with_queue(queue, longest);
        if waiting.newest_first {
            config = config.with_newest_first();
        }
        Some(BulkheadSettings { config: self.checked(config.validate(), &[])?, permits, waiting })
    }

    fn breaker(&mut self) -> Option<BreakerSettings> {
        let (rate, slow) = (self.ratio("failure_rate"), self.slow()?);
        if rate.is_none() && slow.is_none() {
            for key in ["calls", "window", "min_calls"] {
                self.comes_with(key, "failure_rate")?;
            }
            let trip = ConsecutiveFailures::new(self.number("failures").unwrap_or(trip::THRESHOLD));
            return self.of_trip(trip).map(BreakerSettings::Consecutive);
        }
        let least = self.number("min_calls");
        if let Some(window) = self.duration("window") {
            return self.of_trip(over_time(rate, slow, window, least)).map(BreakerSettings::Time);
        }
        let Some(calls) = self.number("calls") else {
            self.wrong(ProblemKind::Missing, "calls", "is missing, and so is `window`".into());
            return None;
        };
        self.of_trip(over_calls(rate, slow, calls, least)).map(BreakerSettings::Calls)
    }

    fn slow(&mut self) -> Option<Option<(Ratio, Duration)>> {
        self.comes_with("slow_call", "slow_rate")?;
        self.comes_with("slow_rate", "slow_call")?;
        Some(self.ratio("slow_rate").zip(self.duration("slow_call")))
    }

    fn of_trip<T: Copy + trip::Trip>(
        &mut self,
        trip: Result<T, ConfigError>,
    ) -> Option<Valid<circuit_breaker::Config<T>>> {
        let counted = if self.found("window").is_some() { "window" } else { "calls" };
        let names = [
            ("threshold", "failures"),
            ("minimum_calls", "min_calls"),
            ("window", counted),
            ("period", counted),
            ("successes", "probes"),
            ("trials", "probes"),
        ];
        let trip = self.checked(trip, &names)?;
        let mut config = circuit_breaker::Config::new().with_trip(trip);
        if let Some(span) = self.duration("open_for") {
            config = config.with_open_for(span);
        }
        if let Some(span) = self.duration("half_open_for") {
            config = config.with_half_open_for(span);
        }
        if let Some(probes) = self.number("probes") {
            config = config.with_probes(probes);
        }
        self.checked(config.validate(), &names)
    }
}

/// A condition over a window, by rates of which there is one at least.
macro_rules! condition {
    ($name:ident, $window:ty, $size:ty) => {
        fn $name(
            rate: Option<Ratio>,
            slow: Option<(Ratio, Duration)>,
            size: $size,
            least: Option<u32>,
        ) -> Result<$window, ConfigError> {
            let trip = match (rate, slow) {
                (Some(rate), Some((share, after))) => <$window>::new(rate, size)?.with_slow_rate(share, after)?,
                (None, Some((share, after))) => <$window>::of_slow(share, after, size)?,
                (rate, None) => <$window>::new(rate.unwrap_or(Ratio::ZERO), size)?,
            };
            least.map_or(Ok(trip), |least| trip.with_minimum_calls(least))
        }
    };
}
condition!(over_calls, CountBased<WORDS>, u32);
condition!(over_time, TimeBased<STEPS>, Duration);
