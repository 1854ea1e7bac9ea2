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
//! Nothing else is taken: a key that there is not is refused, with the one that may be meant.
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
//! | circuit breaker | stays as it is, open or not, with what has been counted, and is [judged anew](failsoft_core::circuit_breaker::CircuitBreaker::reconfigure); when it goes from one of `failures`, `calls` and `window` to another, it begins anew, closed |
//! | rate limiter | what has been taken [stays taken](failsoft_core::rate_limiter::RateLimiter::reconfigure) |
//! | bulkhead | permits in use stay in use, and a surplus [drains](failsoft_core::bulkhead::Bulkhead::resize); with other settings than `permits` it begins anew, and calls under way count in the old one until they end |
//! | budget of retries | goes on with [no more](failsoft_core::budget::TokenBudget::restore) than it had, and no less where its settings stay |
//! | any of them, switched off and on again | begins anew |
//! | a policy that is no longer there | who holds it keeps it as it was; [`Policies::get`] finds it no more, and one of its name that comes later is another |
//!
//! [`Policies::watch`] reads a file again and again, and reloads when it has changed.
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
//! take a key, a hedge or a classifier: those are code; put them around the set. And where nanoseconds count: a set takes a
//! count up and down for each call, and its breaker is a [live](failsoft_core::cell::Live) one.
//!
//! # Source
//! The keys are ours. Sections that inherit and a default as in Resilience4j's `configs` and `instances`, variables as in
//! twelve-factor apps (Wiggins, "The Twelve-Factor App", III).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

mod breaker;
mod build;
mod error;
mod keys;
mod policies;
mod section;
mod text;
mod tree;
mod watch;

pub use breaker::Breaker;
pub use error::{Problem, ProblemKind, SettingsError};
pub use policies::{Changes, Policies, PolicyLayers, PolicySet, SetState, UnknownPolicy};

use build::PolicySettings;
use error::{Place, Problems};
use keys::{Leaf, TOP};
use section::{Found, Section, choice, unknown};
use tree::{Node, Table, Value};

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
    /// By what follows the prefix; the values are none where they are no Unicode.
    variables: Vec<Variable>,
}

#[derive(Clone, Debug)]
struct Variable {
    place: Place,
    rest: String,
    value: Option<String>,
}

/// What parts the keys in a variable's name.
const SEPARATOR: &str = "__";

impl Loader {
    /// Without an environment.
    #[must_use]
    pub const fn new() -> Self {
        Self { variables: Vec::new() }
    }

    /// With these variables, `std::env::vars_os()` say, as far as their names are `PREFIX_POLICY__KEY`: see [the
    /// environment](self#the-environment).
    #[must_use]
    pub fn with_environment<N, V>(mut self, prefix: &str, variables: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        for (name, value) in variables {
            let Ok(name) = name.into().into_string() else { continue };
            let rest = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_'));
            if let Some(rest) = rest.filter(|rest| rest.contains(SEPARATOR)) {
                let place = Place { source: format!("environment variable {name}").into(), line: None };
                self.variables.push(Variable { place, rest: rest.into(), value: value.into().into_string().ok() });
            }
        }
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
            let mut problems = Problems::default();
            let place = Place { source: name.as_str().into(), line: None };
            problems.add(ProblemKind::Unreadable, &place, "", reason, valid);
            problems.settle().map(|()| Settings::default())
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
        let tree = parse(text, &source, &mut problems);
        // What is wrong by itself would be missing, or worse, in what follows from it.
        problems.settle()?;
        let sections = Sections::read(&tree, &self.variables, &mut problems);
        problems.settle()?;
        let policies = sections.resolve(&mut problems);
        problems.settle()?;
        Ok(Settings { policies })
    }
}

/// The text of a file, or why there is none.
fn content(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text));
    match read {
        Ok(_) if text.len() as u64 > MAX_BYTES => Err(format!("is above {MAX_BYTES} bytes")),
        Ok(_) => Ok(text),
        Err(error) => Err(error.to_string()),
    }
}

/// The section that all inherit from.
const DEFAULT: &str = "default";

/// The sections of the file, and those of the environment that lie over them.
struct Sections {
    default: [Section; 2],
    policies: BTreeMap<String, (Place, [Section; 2])>,
}

impl Sections {
    fn read(tree: &Table, variables: &[Variable], problems: &mut Problems) -> Self {
        let mut sections = Self { default: Default::default(), policies: BTreeMap::new() };
        for (name, node) in tree {
            match (name.as_str(), table(node, &text::key(name), problems)) {
                (_, None) => {}
                (DEFAULT, Some(table)) => sections.default[0] = Section::read(table, DEFAULT, problems),
                ("policies", Some(policies)) => sections.read_policies(policies, problems),
                _ => unknown(name, [DEFAULT, "policies"].into_iter(), &node.place, &text::key(name), problems),
            }
        }
        sections.read_environment(variables, problems);
        sections.refuse_inheritance_of_the_default(problems);
        sections
    }

    fn read_policies(&mut self, policies: &Table, problems: &mut Problems) {
        for (name, node) in policies {
            let path = path(name);
            if let Some(table) = table(node, &path, problems) {
                let section = Section::read(table, &path, problems);
                self.policies.insert(name.clone(), (node.place.clone(), [section, Section::default()]));
            }
        }
    }

    fn read_environment(&mut self, variables: &[Variable], problems: &mut Problems) {
        // The default's has no name.
        let mut trees: BTreeMap<Option<String>, Table> = BTreeMap::new();
        for variable in variables {
            let names = self.policies.keys().map(Some).chain([None]);
            let mut fitting: Vec<(Option<&String>, Vec<String>)> = names
                .filter_map(|name| Some((name, variable.keys_of(name.map_or(DEFAULT, String::as_str))?)))
                .collect();
            match (fitting.pop(), fitting.pop()) {
                (Some((name, keys)), None) => {
                    let tree = trees.entry(name.cloned()).or_default();
                    variable.insert(tree, &keys, problems);
                }
                (None, _) => {
                    let names = self.policies.keys().map(String::as_str).chain([DEFAULT]);
                    variable.refuse(
                        ProblemKind::UnknownKey,
                        "is of no policy",
                        choice(&variable.spelt(), names),
                        problems,
                    );
                }
                (Some(_), Some(_)) => {
                    variable.refuse(
                        ProblemKind::UnknownKey,
                        "may be of several policies",
                        "names that differ in more",
                        problems,
                    );
                }
            }
        }
        for (name, tree) in &trees {
            let path = name.as_deref().map_or_else(|| DEFAULT.into(), path);
            let section = Section::read(tree, &path, problems);
            match name.as_ref().map(|name| self.policies.get_mut(name)) {
                Some(Some((_, sections))) => sections[1] = section,
                Some(None) => {}
                None => self.default[1] = section,
            }
        }
    }

    fn refuse_inheritance_of_the_default(&self, problems: &mut Problems) {
        for Found { place, path, .. } in
            self.default.iter().filter_map(|section| section.parts[TOP].found.get(INHERITS))
        {
            let reason = "is not for the default, which all inherit from";
            problems.add(ProblemKind::Inheritance, place, path, reason, "");
        }
    }

    /// What each policy comes to.
    fn resolve(&self, problems: &mut Problems) -> BTreeMap<String, PolicySettings> {
        let mut resolved = BTreeMap::new();
        for (name, (place, _)) in &self.policies {
            let Some(line) = self.line(name, problems) else { continue };
            let ancestors = line.iter().rev().filter_map(|name| self.policies.get(*name)).flat_map(|(_, both)| both);
            let mut whole = Section::default();
            self.default.iter().chain(ancestors).for_each(|section| whole.overlay(section));
            resolved.insert(name.clone(), build::build(name, place, &whole, problems));
        }
        resolved
    }

    /// A policy and those whom it inherits from, the nearest first.
    fn line<'s>(&'s self, name: &'s str, problems: &mut Problems) -> Option<Vec<&'s str>> {
        let (mut line, mut last) = (vec![name], name);
        loop {
            let (_, both) = self.policies.get(last)?;
            // That of the environment, if there is one.
            let found = both.iter().rev().find_map(|section| section.parts[TOP].found.get(INHERITS));
            let Some(Found { leaf: Leaf::Name(parent), place, path }) = found else { return Some(line) };
            if line.contains(&parent.as_str()) {
                // Told once: by the first of those in the circle.
                if parent == name && line.iter().all(|other| *other >= name) {
                    let reason = format!("leads back to itself: {} → {name}", line.join(" → "));
                    problems.add(ProblemKind::Inheritance, place, path, reason, "");
                }
                return None;
            }
            let Some((parent, _)) = self.policies.get_key_value(parent) else {
                let names = self.policies.keys().map(String::as_str);
                let reason = format!("there is no policy `{}`", text::cut(parent));
                problems.add(ProblemKind::Inheritance, place, path, reason, choice(parent, names));
                return None;
            };
            line.push(parent);
            last = parent;
        }
    }
}

const INHERITS: &str = "inherits";

impl Variable {
    /// The keys that it says of this policy, if it is one of its.
    fn keys_of(&self, policy: &str) -> Option<Vec<String>> {
        let keys = self.rest.strip_prefix(&spelt(policy))?.strip_prefix(SEPARATOR)?;
        Some(keys.split(SEPARATOR).map(str::to_lowercase).collect())
    }

    /// The policy that may be meant, as a file would say it.
    fn spelt(&self) -> String {
        self.rest.split(SEPARATOR).next().unwrap_or_default().to_lowercase()
    }

    fn insert(&self, table: &mut Table, keys: &[String], problems: &mut Problems) {
        let Some((first, rest)) = keys.split_first() else { return };
        if !rest.is_empty() {
            let empty = || Node { place: self.place.clone(), value: Value::Table(Table::new()) };
            match &mut table.entry(first.clone()).or_insert_with(empty).value {
                Value::Table(within) => self.insert(within, rest, problems),
                other => {
                    let reason = format!("is for a part of what another variable says is {}", other.describe());
                    self.refuse(ProblemKind::Together, reason, "one of the two", problems);
                }
            }
        } else if let Some(value) = &self.value {
            let node = Node { place: self.place.clone(), value: Value::of_text(value) };
            if table.insert(first.clone(), node).is_some() {
                self.refuse(
                    ProblemKind::Together,
                    "is said twice, in capitals and in small letters",
                    "one of the two",
                    problems,
                );
            }
        } else {
            self.refuse(ProblemKind::Value, "has a value that is no Unicode", "", problems);
        }
    }

    fn refuse(&self, kind: ProblemKind, reason: impl Into<String>, valid: impl Into<String>, problems: &mut Problems) {
        problems.add(kind, &self.place, "", reason, valid);
    }
}

/// The name of a policy as variables have it: in capitals, with `_` for what they can't have.
fn spelt(policy: &str) -> String {
    policy.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).flat_map(char::to_uppercase).collect()
}

fn path(policy: &str) -> String {
    format!("policies.{}", text::key(policy))
}

/// The table that a node has to be.
fn table<'n>(node: &'n Node, path: &str, problems: &mut Problems) -> Option<&'n Table> {
    if let Value::Table(table) = &node.value {
        return Some(table);
    }
    problems.add(ProblemKind::Value, &node.place, path, format!("is {}", node.value.describe()), "a table");
    None
}

#[cfg(test)]
mod tests;
