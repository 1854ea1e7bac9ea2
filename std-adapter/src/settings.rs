//! Settings: policies out of files and of the environment, checked before they take effect, and replaced while they are in use.
//!
//! ```
//! use failsoft_tokio::settings::{Policies, Settings};
//! use failsoft_tokio::{Pipeline, Tokio};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn core::error::Error>> {
//! let file = r#"
//!     [default] # what every policy inherits
//!     timeout = "10s"
//!     retry = { attempts = 3, delay = "100ms", budget = "10%" }
//!
//!     [policies.payments]
//!     bulkhead = { permits = 64, queue = 256, max_wait = "100ms" }
//!     circuit_breaker = { failure_rate = "50%", window = "10s" }
//!     attempt_timeout = "1s"
//! "#;
//! let policies = Policies::new(&Settings::from_toml(file, "settings.toml")?); // or Settings::read("settings.toml")?
//! let pipeline = Pipeline::new(Tokio).layer(policies.get("payments")?);
//! assert_eq!(pipeline.call(async |_| Ok::<_, std::io::Error>("hello")).await?, "hello");
//!
//! // Later, while calls are under way: what has been counted stays.
//! let changes = policies.reload(&Settings::from_toml(&file.replace("64", "100"), "settings.toml")?, &Tokio);
//! assert_eq!(changes.to_string(), "changed: payments");
//!
//! // What is wrong is refused, and nothing changes.
//! let refused = Settings::from_toml(&file.replace("attempts", "atempts"), "settings.toml").unwrap_err();
//! assert!(refused.to_string().starts_with("settings.toml:4: default.retry.atempts: is no key; valid: `attempts`, "));
//! # Ok(())
//! # }
//! ```
//!
//! A [`PolicySet`] is one layer, whose parts are in the [standard order](failsoft_core::pipeline::Standard): total timeout, retry, rate
//! limiter, bulkhead, circuit breaker, attempt timeout. What the settings don't name is left out. Other layers, a fallback say, go
//! around it or within it. A [limit of a call's own](failsoft_core::pipeline::Call::with_timeout) replaces `timeout`; where the settings
//! have none, `attempt_timeout`; and where they have neither, it does nothing.
//!
//! # Keys
//! A file has a table `default` and a table `policies`, in which each policy has a table under its name, all with these keys.
//! Nothing else is taken: a key that there is not is refused, with the one that may be meant. For sections of somebody else's in the
//! same file there is [`Loader::beside`].
//!
//! | key | takes | default | what it says |
//! | --- | --- | --- | --- |
//! | `inherits` | the name of another policy | none | that one's keys hold where this one says nothing; not in `default` |
//! | `timeout` | a duration such as "250ms", "1.5s" or "1h30m", or false | `false` | the call takes no longer, in all |
//! | `attempt_timeout` | a duration such as "250ms", "1.5s" or "1h30m", or false | `false` | an attempt takes no longer |
//! | `retry` | a table, or true or false | `false` | further attempts after a failure |
//! | `retry.attempts` | a whole number, 1 to 4,294,967,295 | `3` | at most so many, the first included; the largest is limited by time alone |
//! | `retry.delay` | a duration such as "250ms", "1.5s" or "1h30m" | `"1s"` | before the second attempt; zero: each follows at once |
//! | `retry.factor` | a factor of 1 or more such as 2 or "1.5" | `2` | each delay is so many times the one before |
//! | `retry.max_delay` | a duration such as "250ms", "1.5s" or "1h30m" | `"60s"` | no delay is longer; where `delay` is longer, that is the default |
//! | `retry.jitter` | "none", "full", "equal", "decorrelated", or a percentage up to 100 such as "10%" | `"10%"` | how delays are scattered, see [`Jitter`](failsoft_core::backoff::Jitter) |
//! | `retry.total_time` | a duration above zero such as "250ms", "1.5s" or "1h30m", or false | `false` | no attempt starts later than this |
//! | `retry.budget` | a percentage from 0 to 100 such as "50%" or "12.5%", or false | `false` | each call deposits so much of a retry, see [`TokenBudget`](crate::TokenBudget) |
//! | `retry.min_retries_per_second` | a whole number, 0 to 1,000,000 | 10 with a `budget` | so many are there without any deposit |
//! | `rate_limit` | a table, or true or false | `false` | a limit of calls per time |
//! | `rate_limit.calls` | a whole number, 1 to 4,294,967,295 | has to be said | so many pass in a period |
//! | `rate_limit.per` | a duration above zero such as "250ms", "1.5s" or "1h30m" | `"1s"` | the period |
//! | `rate_limit.burst` | a whole number, 1 to 4,294,967,295 | as `calls` | at most so many at once |
//! | `rate_limit.queue` | a whole number, 0 to 4,294,967,295 | `0` | so many may wait; comes with `max_wait` |
//! | `rate_limit.max_wait` | a duration such as "250ms", "1.5s" or "1h30m" | none | nobody waits longer; comes with `queue` |
//! | `bulkhead` | a table, or true or false | `false` | a limit of calls at once |
//! | `bulkhead.permits` | a whole number, 1 to 2,097,151 | has to be said | so many calls at once |
//! | `bulkhead.queue` | a whole number, 0 to 2,097,151 | `0` | so many may wait; comes with `max_wait` |
//! | `bulkhead.max_wait` | a duration such as "250ms", "1.5s" or "1h30m" | none | nobody waits longer; comes with `queue` |
//! | `bulkhead.newest_first` | true or false | `false` | who came last is served first |
//! | `circuit_breaker` | a table, or true or false | `false` | no calls of what fails, until probes say that it is back |
//! | `circuit_breaker.failures` | a whole number, 1 to 65,535 | `5` | opens after so many in a row; not beside the six that follow |
//! | `circuit_breaker.failure_rate` | a percentage above 0 and up to 100 such as "50%" or "12.5%" | none | opens at this share of failures, of the last `calls` or of the last `window` |
//! | `circuit_breaker.slow_rate` | a percentage above 0 and up to 100 such as "50%" or "12.5%" | none | opens at this share of slow calls too, or alone; comes with `slow_call` |
//! | `circuit_breaker.slow_call` | a duration such as "250ms", "1.5s" or "1h30m" | none | what takes longer is slow |
//! | `circuit_breaker.calls` | a whole number, 1 to 1,024 | none | the rates are those of the last so many calls |
//! | `circuit_breaker.window` | a duration above zero such as "250ms", "1.5s" or "1h30m" | none | the rates are those of the last so long; not beside `calls` |
//! | `circuit_breaker.min_calls` | a whole number, 1 to 4,294,967,295 | all `calls`, or 10 in a `window` | while there are fewer, no rate is judged |
//! | `circuit_breaker.open_for` | a duration above zero such as "250ms", "1.5s" or "1h30m" | `"60s"` | so long it stays open |
//! | `circuit_breaker.half_open_for` | a duration above zero such as "250ms", "1.5s" or "1h30m" | as `open_for` | so long the probes have to close it |
//! | `circuit_breaker.probes` | a whole number, 1 to 255 | `3` | so many good ones close it; the first bad one opens it again |
//!
//! A duration has the units `d`, `h`, `m`, `s`, `ms`, `us` (or `µs`) and `ns`, each at most once and the longest first. All values are
//! exact: what is finer than a nanosecond, or than a hundredth of a percent, is refused and not rounded. Numbers with a
//! fraction are texts for that reason, in quotes.
//!
//! # Who goes before whom
//! For each key, the first of these that says it:
//!
//! 1. the environment, of the policy itself;
//! 2. the file, of the policy itself;
//! 3. the same two of the policy that it `inherits` from, and so on: no circles;
//! 4. the same two of `default`;
//! 5. the defaults of the table above.
//!
//! A policy is there once its table is, be it empty, or `true`. `false` switches an inherited one off, and what it had
//! inherited is forgotten. Who says one of two keys that can't stand beside each other doesn't inherit the other: `failures` put
//! an inherited `failure_rate` and all that belongs to it out of force, and the other way round.
//!
//! # The environment
//! [`Loader::with_environment`] takes variables of the form `PREFIX_POLICY__KEY` or `PREFIX_POLICY__TABLE__KEY`:
//! `FAILSOFT_PAYMENTS__RETRY__ATTEMPTS=5`, `FAILSOFT_DEFAULT__TIMEOUT=2s`, `FAILSOFT_PAYMENTS__CIRCUIT_BREAKER=false`. A policy's name is
//! in capitals, with `_` for whatever is neither letter nor digit. The policy has to be in the file: a variable of no policy is refused,
//! as is one of no key. Variables without `__` behind the prefix are somebody else's.
//!
//! # What stays
//! [`Policies::reload`] changes what calls that begin from then on go by. A call that is under way keeps the policies, timeouts,
//! attempts and delays that it began with. Of what they share:
//!
//! | what | when its settings change |
//! | --- | --- |
//! | circuit breaker | stays as it is, open or not, with what has been counted, and is [judged anew](failsoft_core::circuit_breaker::CircuitBreaker::reconfigure); when it goes from one of `failures`, `calls` and `window` to another, it begins anew: closed, or held open by hand where it was |
//! | rate limiter | what has been taken [stays taken](failsoft_core::rate_limiter::RateLimiter::reconfigure) |
//! | bulkhead | permits in use stay in use, and a surplus [drains](failsoft_core::bulkhead::Bulkhead::resize); with other settings than `permits` it begins anew, and calls under way count in the old one until they end |
//! | budget of retries | goes on with [no more](failsoft_core::budget::TokenBudget::restore) than it had, and no less where its settings stay |
//! | any of them, switched off and on again | begins anew |
//! | a policy that is no longer there | who holds it keeps it as it was; [`Policies::get`] finds it no more. When its name comes back it is the same again, for as long as somebody holds it |
//!
//! [`Policies::watch`] reads a file again and again, and reloads when it has changed.
//!
//! # Telemetry
//! [`Policies::with_observers`] makes an observer for each policy of its name, and with the feature `metrics` a [`PolicySet`] can be
//! asked for its gauges, under whatever settings it is:
//!
//! ```
//! # #[cfg(all(feature = "metrics", feature = "tracing"))] {
//! use failsoft_tokio::settings::{Policies, Settings};
//! use failsoft_tokio::{Gauges, Metrics, Tracing};
//!
//! static GAUGES: Gauges = Gauges::new();
//!
//! let settings = Settings::from_toml("policies.payments.circuit_breaker = true", "settings.toml")?;
//! let policies = Policies::with_observers(&settings, |name| (Tracing::new(name.to_owned()), Metrics::new(name.to_owned())));
//! for name in policies.names() {
//!     GAUGES.register(name.clone(), policies.get(&name)?); // and after a reload those that are added, while those removed go
//! }
//! # }
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # What is wrong
//! [`SettingsError`] has all that is wrong, each with the file (or the variable), the line where the format gives one, the key, the reason,
//! and what would be valid. Each value is looked at by itself first, and what doesn't make sense together only when all do.
//! Nothing is in force of settings that are wrong in anything.
//!
//! # Defaults
//! Those of the keys are above. A file is at most [`MAX_BYTES`] (1 MiB) long.
//!
//! # When not to use it
//! Where settings never change without a new build: `const` ones are [checked by the compiler](failsoft_core::valid). For policies that
//! take a key, a hedge or a classifier: those are code; put them around the set. And where nanoseconds count: a set
//! costs each call some 100 ns more than the same layers in code do, because what it consists of is known at run time only.
//!
//! # Source
//! The keys are ours. Sections that inherit and a default as in Resilience4j's `configs` and `instances`, variables as in
//! twelve-factor apps (Wiggins, "The Twelve-Factor App", III).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

mod breaker;
mod build;
mod environment;
mod error;
mod keys;
#[cfg(feature = "metrics")]
mod measured;
mod policies;
mod section;
mod sections;
mod text;
mod tree;
mod watch;

pub use breaker::Breaker;
pub use error::{Problem, ProblemKind, SettingsError};
pub use policies::{Changes, Policies, PolicyLayers, PolicySet, SetState, UnknownPolicy};

use build::PolicySettings;
use environment::Variable;
use error::{Place, Problems};
use sections::Sections;
use tree::Table;

/// The largest file that is read: a thousand times what a file of settings should have.
pub const MAX_BYTES: u64 = 1 << 20;

/// Settings that have been found to make sense: what [`Policies`] are made of.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Settings {
    policies: BTreeMap<String, PolicySettings>,
}

impl Settings {
    /// Reads a file, in the format that the end of its name says: `.toml` or `.json`.
    ///
    /// # Errors
    /// The file can't be read, or everything that is wrong with it.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, SettingsError> {
        Loader::new().read(path)
    }

    /// Settings in TOML. Errors say that they are of `name`.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn from_toml(text: &str, name: &str) -> Result<Self, SettingsError> {
        Loader::new().toml(text, name)
    }

    /// Settings in JSON. Errors say that they are of `name`.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn from_json(text: &str, name: &str) -> Result<Self, SettingsError> {
        Loader::new().json(text, name)
    }

    /// The names of the policies, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.policies.keys().map(String::as_str)
    }
}

/// Reads settings, with those of the environment over them.
///
/// ```
/// use failsoft_tokio::settings::Loader;
///
/// let loader = Loader::new().with_environment("FAILSOFT", [("FAILSOFT_PAYMENTS__TIMEOUT", "2s")]); // std::env::vars_os()
/// let settings = loader.toml("policies.payments.timeout = '10s'", "settings.toml")?;
/// # let policies = failsoft_tokio::settings::Policies::new(&settings);
/// # let pipeline = failsoft_tokio::Pipeline::new(failsoft_tokio::Tokio).layer(policies.get("payments").unwrap());
/// # assert_eq!(pipeline.to_string(), "timeout: 2s");
/// # Ok::<(), failsoft_tokio::settings::SettingsError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Loader {
    variables: Vec<Variable>,
    beside: Vec<String>,
}

impl Loader {
    /// Without an environment.
    #[must_use]
    pub const fn new() -> Self {
        Self { variables: Vec::new(), beside: Vec::new() }
    }

    /// With sections beside `default` and `policies` that are somebody else's: they may be there, in the file and in the environment, and are
    /// not looked at.
    ///
    /// ```
    /// use failsoft_tokio::settings::Loader;
    ///
    /// let text = "[policies.payments]\n[routes]\npayments = '/payments'";
    /// assert!(Loader::new().toml(text, "gateway.toml").is_err());
    /// assert!(Loader::new().beside(["routes"]).toml(text, "gateway.toml").is_ok());
    /// ```
    #[must_use]
    pub fn beside<N: Into<String>>(mut self, sections: impl IntoIterator<Item = N>) -> Self {
        self.beside.extend(sections.into_iter().map(Into::into));
        self
    }

    /// With these variables, `std::env::vars_os()` say, as far as their names are `PREFIX_POLICY__KEY`: see [the
    /// environment](self#the-environment).
    #[must_use]
    pub fn with_environment<N, V>(mut self, prefix: &str, variables: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        let ours = variables.into_iter().filter_map(|(name, value)| Variable::of(prefix, name.into(), value.into()));
        self.variables.extend(ours);
        // In an order that is always the same.
        self.variables.sort_by(|one, other| one.rest.cmp(&other.rest));
        self
    }

    /// As [`Settings::read`].
    ///
    /// # Errors
    /// The file can't be read, or everything that is wrong with it or the environment.
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Settings, SettingsError> {
        let path = path.as_ref();
        self.read_content(path, &content(path))
    }

    /// As [`Settings::from_toml`].
    ///
    /// # Errors
    /// Everything that is wrong with them or the environment.
    pub fn toml(&self, text: &str, name: &str) -> Result<Settings, SettingsError> {
        self.parse(text, name, tree::of_toml)
    }

    /// As [`Settings::from_json`].
    ///
    /// # Errors
    /// Everything that is wrong with them or the environment.
    pub fn json(&self, text: &str, name: &str) -> Result<Settings, SettingsError> {
        self.parse(text, name, tree::of_json)
    }

    /// What has been read of a file, or why it could not be.
    fn read_content(&self, path: &Path, content: &Result<String, String>) -> Result<Settings, SettingsError> {
        let name = path.display().to_string();
        let unreadable = |reason: &str, valid: &str| {
            let place = Place { source: name.as_str().into(), line: None };
            let (key, reason, valid) = (String::new(), reason.into(), valid.into());
            Err(SettingsError::new(vec![Problem { kind: ProblemKind::Unreadable, place, key, reason, valid }]))
        };
        match (content, path.extension().and_then(|extension| extension.to_str())) {
            (Err(reason), _) => unreadable(&format!("can't be read: {reason}"), ""),
            (Ok(text), Some("toml")) => self.toml(text, &name),
            (Ok(text), Some("json")) => self.json(text, &name),
            (Ok(_), _) => unreadable("is of no format that is known by its name", "a name that ends in .toml or .json"),
        }
    }

    fn parse(
        &self,
        text: &str,
        name: &str,
        parse: impl FnOnce(&str, &Arc<str>, &mut Problems) -> Table,
    ) -> Result<Settings, SettingsError> {
        let (source, mut problems) = (name.into(), Problems::default());
        let mut tree = parse(text, &source, &mut problems);
        tree.retain(|name, _| !self.beside.iter().any(|beside| beside == name));
        // What is wrong by itself would be missing, or worse, in what follows from it.
        problems.settle()?;
        let mut variables = self.variables.clone();
        variables.retain(|variable| !self.beside.iter().any(|beside| variable.is_of(beside)));
        let sections = Sections::read(&tree, &variables, &mut problems);
        problems.settle()?;
        let policies = sections.resolve(&mut problems);
        problems.settle()?;
        Ok(Settings { policies })
    }
}

/// The text of a file, or why there is none.
fn content(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("is above {MAX_BYTES} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "is no UTF-8".into())
}

#[cfg(test)]
mod tests;
