//! Settings from files and the environment, as policies that are replaced while they are in use.

#![expect(clippy::unwrap_used, reason = "a test may end with a panic")]

use core::future::pending;
use core::time::Duration;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use failsoft_tokio::circuit_breaker::{StateKind, Transition};
use failsoft_tokio::pipeline::Call;
use failsoft_tokio::retry::Retrying;
use failsoft_tokio::settings::{Loader, Policies, PolicySet, ProblemKind, Settings};
use failsoft_tokio::{Clock, Failure, Instant, Observer, Pipeline, Policy, Stop, Tokio};
use tokio::time::sleep;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn settings(text: &str) -> Settings {
    Settings::from_toml(text, "test.toml").unwrap()
}

fn refused(text: &str) -> String {
    Settings::from_toml(text, "test.toml").unwrap_err().to_string()
}

/// What a policy of these settings consists of, a part a line.
fn described(settings: &Settings, name: &str) -> String {
    Pipeline::new(Tokio).layer(Policies::new(settings).get(name).unwrap()).to_string()
}

/// One call that fails, or what rejects it.
async fn fail<O>(set: &PolicySet<O>) -> Failure<&'static str>
where
    O: Clone + Observer<Retrying> + Observer<Transition>,
{
    Pipeline::new(Tokio).layer(set.clone()).call(async |_| Err::<(), _>("down")).await.unwrap_err()
}

async fn succeeds(set: &PolicySet) -> bool {
    Pipeline::new(Tokio).layer(set.clone()).call(async |_| Ok::<_, ()>(())).await.is_ok()
}

#[test]
fn a_policy_has_what_the_settings_name_in_the_standard_order() {
    let all = settings(
        "
        [default]
        timeout = '10s'
        retry = { attempts = 4, delay = '100ms', factor = '1.5', max_delay = '2s', jitter = 'full', total_time = '8s', budget = '10%' }
        [policies.payments]
        attempt_timeout = '1s'
        rate_limit = { calls = 100, per = '1s', burst = 20, queue = 5, max_wait = '250ms' }
        bulkhead = { permits = 64, queue = 256, max_wait = '100ms', newest_first = true }
        circuit_breaker = { failures = 7, open_for = '30s', probes = 2 }
        [policies.bare]
        timeout = false
        retry = false
        ",
    );
    assert_eq!(all.names().collect::<Vec<_>>(), ["bare", "payments"]);
    assert_eq!(
        described(&all, "payments"),
        "timeout: 10s
retry: 4 attempts, exponential from 100ms by 150 %, at most 2s, full jitter, 8s in all, on a budget
rate limiter: 100 per 1s, 20 at once, 5 may wait for 250ms
bulkhead: 64 permits, 256 may wait for 100ms, the newest first
circuit breaker: ConsecutiveFailures { threshold: 7 }, open for 30s, 2 of 2 probes close it
timeout: 1s"
    );
    assert_eq!(described(&all, "bare"), "");
    assert_eq!(described(&settings("[policies.p]\nretry.delay = '0s'"), "p"), "retry: 3 attempts, at once");
}

/// A timeout in each of the places that there are, the last to be looked at first; and what holds when those before say nothing.
#[test]
fn the_environment_goes_before_the_file_before_inheritance_before_the_default() {
    let places = [
        ("file", "default"),
        ("environment", "DEFAULT"),
        ("file", "policies.base"),
        ("environment", "BASE"),
        ("file", "policies.user-db"),
        ("environment", "USER_DB"),
    ];
    for set in 0..64_u32 {
        let mut text = String::from("policies.user-db.inherits = 'base'\npolicies.base = {}\n");
        if set & 0b01_0100 != 0 {
            text = "policies.user-db.inherits = 'base'\n".into();
            text += if set & 0b100 == 0 { "policies.base = {}\n" } else { "" };
        }
        let (mut variables, mut expected) = (Vec::new(), String::new());
        for (index, (kind, name)) in places.iter().enumerate().filter(|(index, _)| set >> index & 1 == 1) {
            let value = format!("{}s", index + 1);
            match *kind {
                "file" => text += &format!("{name}.timeout = '{value}'\n"),
                _ => variables.push((format!("APP_{name}__TIMEOUT"), value.clone())),
            }
            expected = format!("timeout: {value}");
        }
        let settings = Loader::new().with_environment("APP", variables).toml(&text, "test.toml").unwrap();
        assert_eq!(described(&settings, "user-db"), expected, "{set:06b}: {text}");
    }
}

#[test]
fn a_table_is_inherited_key_by_key_and_switched_off_as_a_whole() {
    let all = settings(
        "
        [default.retry]
        attempts = 9
        delay = '5ms'
        jitter = 'none'
        [policies.a.retry]
        attempts = 2
        [policies.b]
        inherits = 'a'
        retry.delay = '7ms'
        [policies.c]
        inherits = 'b'
        retry = false
        [policies.d]
        inherits = 'c'
        retry = { jitter = 'equal' }
        ",
    );
    assert_eq!(described(&all, "a"), "retry: 2 attempts, exponential from 5ms by 200 %, at most 60s");
    assert_eq!(described(&all, "b"), "retry: 2 attempts, exponential from 7ms by 200 %, at most 60s");
    assert_eq!(described(&all, "c"), "");
    let anew = "retry: 3 attempts, exponential from 1s by 200 %, at most 60s, equal jitter";
    assert_eq!(described(&all, "d"), anew, "what was switched off is forgotten");
}

#[test]
fn who_says_one_condition_does_not_inherit_the_other() {
    let all = settings(
        "
        [default.circuit_breaker]
        failures = 4
        open_for = '9s'
        [policies.rate.circuit_breaker]
        failure_rate = '50%'
        calls = 20
        [policies.window]
        inherits = 'rate'
        circuit_breaker.window = '5s'
        [policies.count]
        inherits = 'window'
        circuit_breaker.failures = 8
        ",
    );
    let starts = |name, start: &str| {
        let text = described(&all, name);
        assert!(text.starts_with(start) && text.contains("open for 9s"), "{text}");
    };
    starts("rate", "circuit breaker: CountBased { size: 20");
    starts("window", "circuit breaker: TimeBased { bucket: Span(500000000)");
    starts("count", "circuit breaker: ConsecutiveFailures { threshold: 8 }");
}

#[test]
fn all_that_is_wrong_is_told_at_once_with_file_line_key_and_what_would_be_valid() {
    let error = Settings::from_toml(
        "
[default]
timout = '10s'
[policies.payments]
bulkhead = { permits = 0 }
rety = true

[policies.payments.retry]
jitter = 'some'
[polices.other]
",
        "test.toml",
    )
    .unwrap_err();
    let lines: Vec<_> = error.to_string().lines().map(str::to_owned).collect();
    assert_eq!(
        lines,
        [
            "test.toml:3: default.timout: is no key; valid: `inherits`, `timeout`, `attempt_timeout`, `retry`, `rate_limit`, `bulkhead`, `circuit_breaker` (did you mean `timeout`?)",
            "test.toml:5: policies.payments.bulkhead.permits: 0 is out of range; valid: a whole number, 1 to 2,097,151",
            "test.toml:6: policies.payments.rety: is no key; valid: `inherits`, `timeout`, `attempt_timeout`, `retry`, `rate_limit`, `bulkhead`, `circuit_breaker` (did you mean `retry`?)",
            "test.toml:9: policies.payments.retry.jitter: \"some\" is no jitter; valid: \"none\", \"full\", \"equal\", \"decorrelated\", or a percentage up to 100 such as \"10%\"",
            "test.toml:10: polices: is no key; valid: `default`, `policies` (did you mean `policies`?)",
        ]
    );
    let jitter = &error.problems()[3];
    assert_eq!((jitter.kind(), jitter.source(), jitter.line()), (ProblemKind::Value, "test.toml", Some(9)));
    assert_eq!((jitter.key(), jitter.reason()), ("policies.payments.retry.jitter", "\"some\" is no jitter"));
    assert!(jitter.valid().contains("full"));
    assert_eq!(error.problems()[0].kind(), ProblemKind::UnknownKey);
}

#[test]
fn what_many_inherit_is_wrong_once_where_it_is_written() {
    let text = "[default.retry]\ndelay = '2s'\nmax_delay = '1s'\n[policies]\na = {}\nb = {}\nc = {}";
    let expected = "test.toml:3: default.retry.max_delay: is below the `delay` of 2s; valid: a duration such as \"250ms\", \"1.5s\" or \"1h30m\"";
    assert_eq!(refused(text), expected);
}

#[test]
fn what_makes_no_sense_with_what_is_inherited_says_in_which_policy() {
    let text = "[default.circuit_breaker]\nfailure_rate = '50%'\nmin_calls = 20\ncalls = 50\n[policies]\nfine = {}\nrare.circuit_breaker.calls = 10";
    let expected = "test.toml:3: default.circuit_breaker.min_calls: is above the window: the breaker would never open (in `rare`); valid: a whole number, 1 to 4,294,967,295";
    assert_eq!(refused(text), expected);
}

#[test]
fn circles_and_names_that_there_are_not_are_refused() {
    let circle = "[policies]\na.inherits = 'b'\nb.inherits = 'c'\nc.inherits = 'a'\nd.inherits = 'b'";
    assert_eq!(refused(circle), "test.toml:4: policies.c.inherits: leads back to itself: a → b → c → a");
    let itself = "[policies]\nb.inherits = 'b'";
    assert_eq!(refused(itself), "test.toml:2: policies.b.inherits: leads back to itself: b → b");
    let unknown = "[policies.strict]\n[policies.payments]\ninherits = 'strct'";
    let expected = "test.toml:3: policies.payments.inherits: there is no policy `strct`; valid: `payments`, `strict` (did you mean `strict`?)";
    assert_eq!(refused(unknown), expected);
    let default = "[default]\ninherits = 'a'\n[policies.a]";
    assert_eq!(refused(default), "test.toml:2: default.inherits: is not for the default, which all inherit from");
    let policies = Policies::new(&settings("[policies.payments]"));
    let unknown = policies.get("paymets").unwrap_err();
    assert_eq!(unknown.name(), "paymets");
    let expected = "there is no policy `paymets` in the settings; valid: `payments` (did you mean `payments`?)";
    assert_eq!(unknown.to_string(), expected);
}

#[test]
fn what_is_no_toml_or_no_json_is_refused_with_its_line() {
    let toml = refused("[default]\ntimeout = \n");
    assert!(toml.starts_with("test.toml:2: is no TOML: "), "{toml}");
    let twice = refused("[default]\ntimeout = '1s'\ntimeout = '2s'");
    assert!(twice.starts_with("test.toml:3: is no TOML: duplicate key"), "{twice}");
    let json = |text: &str| Settings::from_json(text, "test.json").unwrap_err().to_string();
    assert!(json("{\n\"default\": }").starts_with("test.json:2: is no JSON: expected value"));
    assert!(json("{}\n{}").starts_with("test.json:2: is no JSON: trailing characters"));
    let twice = json("{\"default\": {\n\"timeout\": \"1s\",\n\"timeout\": \"2s\"}}");
    assert!(twice.starts_with("test.json:3: is no JSON: duplicate key `timeout`"), "{twice}");
    assert_eq!(json("[]"), "test.json: is a list; valid: an object of `default` and `policies`");
    let deep = json(&"{\"default\":".repeat(200));
    assert!(deep.contains("recursion limit"), "{deep}");
    let value = json("{\"policies\": {\"p\": {\"bulkhead\": {\"permits\": null, \"queue\": 1.5}}}}");
    let expected = "test.json: policies.p.bulkhead.permits: is null; valid: a whole number, 1 to 2,097,151\n\
        test.json: policies.p.bulkhead.queue: is a number with a fraction: write it as a text, in quotes; valid: a whole number, 0 to 2,097,151";
    assert_eq!(value, expected);
}

#[test]
fn variables_that_are_wrong_are_refused_by_their_names_and_others_are_left_alone() {
    let with = |name: &str, value: &str| {
        let text = "[policies.payments]\n[policies.user-db]\n[policies.user_db]\n[policies.'a.b']";
        let loader = Loader::new().with_environment("APP", [(name, value)]);
        loader
            .toml(text, "test.toml")
            .map(|settings| described(&settings, "payments"))
            .map_err(|error| error.to_string())
    };
    for (name, value, expected) in [
        (
            "APP_PAYMENTS__RETRY__ATTEMPTS",
            "0",
            "environment variable APP_PAYMENTS__RETRY__ATTEMPTS: policies.payments.retry.attempts: 0 is out of range; valid: a whole number, 1 to 4,294,967,295",
        ),
        (
            "APP_PAYMENTS__RETRY__ATEMPTS",
            "1",
            "environment variable APP_PAYMENTS__RETRY__ATEMPTS: policies.payments.retry.atempts: is no key; valid: `attempts`, `delay`, `factor`, `max_delay`, `jitter`, `total_time`, `budget`, `min_retries_per_second` (did you mean `attempts`?)",
        ),
        (
            "APP_PAYMENT__TIMEOUT",
            "1s",
            "environment variable APP_PAYMENT__TIMEOUT: is of no policy; valid: `a.b`, `payments`, `user-db`, `user_db`, `default` (did you mean `payments`?)",
        ),
        (
            "APP_USER_DB__TIMEOUT",
            "1s",
            "environment variable APP_USER_DB__TIMEOUT: may be of several policies; valid: names that differ in more",
        ),
        (
            "APP_A_B__TIMEOUT",
            "soon",
            "environment variable APP_A_B__TIMEOUT: policies.\"a.b\".timeout: \"soon\" is no duration; valid: a duration such as \"250ms\", \"1.5s\" or \"1h30m\", or false",
        ),
        (
            "APP_DEFAULT__",
            "",
            "environment variable APP_DEFAULT__: default.\"\": is no key; valid: `inherits`, `timeout`, `attempt_timeout`, `retry`, `rate_limit`, `bulkhead`, `circuit_breaker`",
        ),
    ] {
        assert_eq!(with(name, value), Err(expected.into()));
    }
    for (name, value) in
        [("APP_LOG", "debug"), ("APPLE_PAYMENTS__TIMEOUT", "x"), ("PAYMENTS__TIMEOUT", "x"), ("APP", "x")]
    {
        assert_eq!(with(name, value), Ok(String::new()), "{name}");
    }
    assert_eq!(with("APP_PAYMENTS__TIMEOUT", " 2s "), Ok("timeout: 2s".into()));
    let both = [("APP_P__RETRY", "false"), ("APP_P__RETRY__ATTEMPTS", "5")];
    let both = Loader::new().with_environment("APP", both).toml("[policies.p]", "test.toml").unwrap_err();
    let expected = "environment variable APP_P__RETRY__ATTEMPTS: is for a part of what another variable says is false; valid: one of the two";
    assert_eq!(both.to_string(), expected);
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_no_unicode_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let value = std::ffi::OsString::from_vec(vec![0xFF]);
    let loader = Loader::new().with_environment("APP", [("APP_P__TIMEOUT", value)]);
    let error = loader.toml("[policies.p]", "test.toml").unwrap_err();
    assert_eq!(error.to_string(), "environment variable APP_P__TIMEOUT: has a value that is no Unicode");
}

/// A file of a test's own, removed at its end.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("failsoft-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_file_is_read_by_what_its_name_ends_in() {
    let toml = File::new("read.toml", "[policies.p]\ntimeout = '1s'");
    let json = File::new("read.json", "{\"policies\": {\"p\": {\"timeout\": \"1s\"}}}");
    assert_eq!(Settings::read(&toml.0).unwrap(), Settings::read(&json.0).unwrap());
    let told = |path: &PathBuf| {
        let error = Settings::read(path).unwrap_err();
        assert_eq!(error.problems()[0].kind(), ProblemKind::Unreadable);
        error.to_string().replace(&path.display().to_string(), "FILE")
    };
    let yaml = File::new("read.yaml", "");
    assert_eq!(
        told(&yaml.0),
        "FILE: is of no format that is known by its name; valid: a name that ends in .toml or .json"
    );
    let missing = told(&yaml.0.with_file_name("failsoft-gone.toml"));
    assert!(missing.starts_with("FILE: can't be read: ") && missing.len() > 25, "{missing}");
    toml.write(&"#".repeat((1 << 20) + 1));
    assert_eq!(told(&toml.0), "FILE: can't be read: is above 1048576 bytes");
    std::fs::write(&toml.0, [0xFF, 0xFE]).unwrap();
    assert_eq!(told(&toml.0), "FILE: can't be read: is no UTF-8");
}

#[tokio::test(start_paused = true)]
async fn a_reload_says_what_was_added_changed_and_removed() {
    let policies = Policies::new(&settings("[policies]\na.timeout = '1s'\nb.timeout = '1s'\nc = {}"));
    let (gone, kept) = (policies.get("b").unwrap(), policies.get("a").unwrap());
    let changes = policies.reload(&settings("[policies]\na.timeout = '2s'\nc = {}\nd = {}"), &Tokio);
    assert_eq!(
        (changes.added(), changes.changed(), changes.removed()),
        (&["d".into()][..], &["a".into()][..], &["b".into()][..])
    );
    assert_eq!((changes.to_string().as_str(), changes.is_empty()), ("added: d; changed: a; removed: b", false));
    assert_eq!(policies.names(), ["a", "c", "d"]);
    assert!(policies.get("b").is_err());
    let text = |set: &PolicySet| Pipeline::new(Tokio).layer(set.clone()).to_string();
    assert_eq!((text(&gone), text(&kept)), ("timeout: 1s".into(), "timeout: 2s".into()));
    let again = policies.reload(&settings("[policies]\na.timeout = '2s'\nc = {}\nd = {}"), &Tokio);
    assert_eq!((again.to_string().as_str(), again.is_empty()), ("nothing changed", true));
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_is_open_stays_open_and_its_counts_stay() {
    let text = "[policies.p]\ncircuit_breaker = { failures = 3, open_for = '10s' }";
    let policies = Policies::new(&settings(text));
    let set = policies.get("p").unwrap();
    fail(&set).await;
    fail(&set).await;
    // Two failures were counted: with a threshold of 4 there are two to go.
    policies.reload(&settings(&text.replace('3', "4")), &Tokio);
    fail(&set).await;
    assert_eq!(set.circuit_breaker().unwrap().state(), StateKind::Closed);
    fail(&set).await;
    assert_eq!(set.circuit_breaker().unwrap().state(), StateKind::Open);
    let until = set.circuit_breaker().unwrap().snapshot(&Tokio).until;
    policies.reload(
        &settings("[default]\ntimeout = '9s'\n[policies.p]\ncircuit_breaker = { failures = 2, open_for = '99s' }"),
        &Tokio,
    );
    let breaker = set.circuit_breaker().unwrap();
    assert_eq!((breaker.state(), breaker.snapshot(&Tokio).until), (StateKind::Open, until));
    assert_eq!(fail(&set).await.rejected().map(|rejected| rejected.policy()), Some(Policy::CircuitBreaker));
    // Another kind of condition begins anew.
    policies.reload(&settings("[policies.p]\ncircuit_breaker = { failure_rate = '50%', calls = 4 }"), &Tokio);
    assert_eq!(set.circuit_breaker().unwrap().state(), StateKind::Closed);
    for calls in 1..=4 {
        fail(&set).await;
        let state = set.circuit_breaker().unwrap().state();
        assert_eq!(state, if calls < 4 { StateKind::Closed } else { StateKind::Open });
    }
    policies.reload(&settings("[policies.p]\ncircuit_breaker = { failure_rate = '60%', calls = 9 }"), &Tokio);
    assert_eq!(set.circuit_breaker().unwrap().state(), StateKind::Open);
}

#[tokio::test(start_paused = true)]
async fn a_window_of_time_judges_what_it_holds_and_keeps_it_over_a_reload() {
    let text = "[policies.p]\ncircuit_breaker = { slow_rate = '50%', slow_call = '1s', window = '60s', min_calls = 3 }";
    let policies = Policies::new(&settings(text));
    let set = policies.get("p").unwrap();
    let slow = async || {
        let call = async |_| {
            sleep(ms(1_500)).await;
            Ok::<_, ()>(())
        };
        Pipeline::new(Tokio).layer(set.clone()).call(call).await.is_ok()
    };
    assert!(slow().await && slow().await);
    policies.reload(&settings(&text.replace("50%", "40%")), &Tokio);
    let breaker = set.circuit_breaker().unwrap();
    assert_eq!((breaker.state(), breaker.snapshot(&Tokio).counts.slow), (StateKind::Closed, 2));
    assert!(slow().await);
    assert_eq!(breaker.state(), StateKind::Open);
    breaker.reset();
    assert_eq!(breaker.state(), StateKind::Closed);
    breaker.isolate();
    assert!(!succeeds(&set).await);
}

#[test]
fn a_breaker_goes_by_each_rate_that_the_settings_name() {
    for (keys, expected) in [
        (
            "failure_rate = '40%'",
            "failure_rate: Ratio(4000), failures: 0, slow_rate: Ratio(0), slow_after: Span(18446744073709551615), minimum_calls: 7 }",
        ),
        (
            "slow_rate = '30%', slow_call = '2us'",
            "failure_rate: Ratio(0), failures: 0, slow_rate: Ratio(3000), slow_after: Span(2000), minimum_calls: 7 }",
        ),
        (
            "failure_rate = '40%', slow_rate = '30%', slow_call = '2us'",
            "failure_rate: Ratio(4000), failures: 0, slow_rate: Ratio(3000), slow_after: Span(2000), minimum_calls: 7 }",
        ),
    ] {
        for (window, size) in
            [("calls = 9", "CountBased { size: 9"), ("window = '1us'", "TimeBased { bucket: Span(100)")]
        {
            let text = format!("policies.p.circuit_breaker = {{ min_calls = 7, {keys}, {window} }}");
            let text = described(&settings(&text), "p");
            assert!(text.contains(size) && text.contains(expected), "{text}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_breaker_tries_as_many_probes_for_as_long_as_the_settings_say() {
    let text = "policies.p.circuit_breaker = { failures = 1, open_for = '10s', half_open_for = '2s', probes = 2 }";
    let set = Policies::new(&settings(text)).get("p").unwrap();
    let breaker = set.circuit_breaker().unwrap();
    fail(&set).await;
    sleep(ms(9_999)).await;
    assert!(!succeeds(&set).await);
    sleep(ms(1)).await;
    assert!(succeeds(&set).await);
    let ends = Tokio.now().saturating_add(ms(2_000));
    assert_eq!((breaker.state(), breaker.snapshot(&Tokio).until), (StateKind::HalfOpen, Some(ends)));
    assert!(succeeds(&set).await);
    assert_eq!(breaker.state(), StateKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn permits_that_are_taken_stay_taken_and_another_queue_begins_anew() {
    let text = "[policies.p]\nbulkhead.permits = 1";
    let policies = Policies::new(&settings(text));
    let set = policies.get("p").unwrap();
    let pipeline = Arc::new(Pipeline::new(Tokio).layer(set.clone()));
    let hanging = tokio::spawn(Call::new(pipeline, |_| pending::<Result<(), ()>>()));
    sleep(ms(1)).await;
    assert!(!succeeds(&set).await, "the permit is taken");
    policies.reload(&settings("[policies.p]\nbulkhead.permits = 2"), &Tokio);
    let bulkhead = set.bulkhead().unwrap();
    assert_eq!((bulkhead.snapshot().in_use, bulkhead.snapshot().permits), (1, 2));
    assert!(succeeds(&set).await);
    policies.reload(&settings(text), &Tokio);
    assert!(!succeeds(&set).await, "a surplus drains");
    policies.reload(&settings("[policies.p]\nbulkhead = { permits = 1, queue = 1, max_wait = '5ms' }"), &Tokio);
    assert!(succeeds(&set).await, "what is under way counts in the old one");
    assert_eq!((bulkhead.snapshot().in_use, set.bulkhead().unwrap().snapshot().in_use), (1, 0));
    hanging.abort();
    assert!(hanging.await.is_err());
    assert_eq!(bulkhead.snapshot().in_use, 0);
}

#[tokio::test(start_paused = true)]
async fn a_rate_that_is_half_used_up_stays_so() {
    let text = "[policies.p]\nrate_limit = { calls = 4, per = '100s' }";
    let policies = Policies::new(&settings(text));
    let set = policies.get("p").unwrap();
    assert!(succeeds(&set).await && succeeds(&set).await);
    policies.reload(&settings("[policies.p]\nrate_limit = { calls = 3, per = '100s' }"), &Tokio);
    assert!(succeeds(&set).await);
    assert!(!succeeds(&set).await);
    assert_eq!(set.rate_limiter().unwrap().config().permits(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_is_half_used_up_stays_so_and_gains_nothing_by_other_settings() {
    let text = "[policies.p]\nretry = { attempts = 2, delay = '1ms', budget = '0%', min_retries_per_second = 1 }";
    let policies = Policies::new(&settings(text));
    let set = policies.get("p").unwrap();
    assert_eq!(set.budget().unwrap().balance(&Tokio), 10, "a second's retry, for ten seconds");
    for _ in 0..5 {
        assert_eq!(fail(&set).await.stop, Some(Stop::Attempts));
    }
    let balance = || set.budget().unwrap().balance(&Tokio);
    assert_eq!(balance(), 5);
    // Other attempts, the same budget; then another budget; then a smaller one.
    policies.reload(&settings(&text.replace("'1ms'", "'2ms'")), &Tokio);
    assert_eq!(balance(), 5);
    policies.reload(&settings(&text.replace("second = 1", "second = 9")), &Tokio);
    assert_eq!(balance(), 5);
    policies.reload(&settings(&text.replace("second = 1", "second = 0")), &Tokio);
    assert_eq!(balance(), 0);
    assert_eq!(fail(&set).await.stop, Some(Stop::Budget));
    policies.reload(&settings("[policies.p]\nretry = { attempts = 2 }"), &Tokio);
    assert!(set.budget().is_none());
    assert_eq!(fail(&set).await.stop, Some(Stop::Attempts));
}

#[tokio::test(start_paused = true)]
async fn a_call_under_way_ends_under_the_settings_that_it_began_with() {
    let policies = Policies::new(&settings(
        "[policies.p]\ntimeout = '10s'\nretry = { attempts = 4, delay = '1s', factor = 1, jitter = 'none' }",
    ));
    let pipeline = Arc::new(Pipeline::new(Tokio).layer(policies.get("p").unwrap()));
    let start = tokio::time::Instant::now();
    let retried = tokio::spawn(Call::new(pipeline.clone(), async |_| Err::<(), _>("down")));
    let hanging = tokio::spawn(Call::new(pipeline.clone(), |_| pending::<Result<(), &str>>()));
    sleep(ms(500)).await;
    policies.reload(&settings("[policies.p]\ntimeout = '1s'\nattempt_timeout = '100ms'"), &Tokio);
    assert_eq!(retried.await.unwrap().unwrap_err().attempts, 4);
    assert_eq!(start.elapsed(), ms(3_000));
    let late = pipeline.call(|_| pending::<Result<(), &str>>()).await.unwrap_err();
    assert_eq!(
        (late.to_string().as_str(), start.elapsed()),
        ("timed out after 100ms", ms(3_100)),
        "of those that come later"
    );
    assert_eq!(hanging.await.unwrap().unwrap_err().to_string(), "timed out after 10s");
    assert_eq!(start.elapsed(), ms(10_000));
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_parts_are_switched_off_meanwhile_gives_back_what_it_has() {
    let policies = Policies::new(&settings("[policies.p]\nbulkhead.permits = 3\ncircuit_breaker = true"));
    let set = policies.get("p").unwrap();
    let (bulkhead, breaker) = (set.bulkhead().unwrap(), set.circuit_breaker().unwrap());
    let pipeline = Arc::new(Pipeline::new(Tokio).layer(set.clone()));
    let [ended, dropped] = [false, true].map(|hangs| {
        tokio::spawn(Call::new(pipeline.clone(), move |_| async move {
            if hangs {
                pending::<()>().await;
            }
            sleep(ms(50)).await;
            Err::<(), _>(())
        }))
    });
    sleep(ms(10)).await;
    policies.reload(&settings("[policies.p]"), &Tokio);
    assert!(set.bulkhead().is_none() && set.circuit_breaker().is_none());
    assert_eq!(bulkhead.snapshot().in_use, 2);
    assert!(ended.await.unwrap().is_err());
    dropped.abort();
    assert!(dropped.await.is_err());
    assert_eq!((bulkhead.snapshot().in_use, breaker.snapshot(&Tokio).counts.failures), (0, 1));
}

/// Notes what it is told, under a name.
#[derive(Clone)]
struct Notes(String, Arc<Mutex<Vec<String>>>);

impl Observer<Transition> for Notes {
    fn observe(&self, event: &Transition) {
        self.1.lock().unwrap().push(format!("{}: {:?}", self.0, event.to));
    }
}

impl Observer<Retrying> for Notes {
    fn observe(&self, event: &Retrying) {
        self.1.lock().unwrap().push(format!("{}: retry after {}", self.0, event.attempt));
    }
}

#[tokio::test(start_paused = true)]
async fn each_policy_tells_an_observer_of_its_own_also_after_a_reload() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let notes = told.clone();
    let text = "[default]\nretry = { attempts = 2, delay = '0s' }\ncircuit_breaker.failures = 2\n[policies.a]";
    let policies = Policies::with_observers(&settings(text), move |name| Notes(name.into(), notes.clone()));
    fail(&policies.get("a").unwrap()).await;
    policies.reload(&settings(&(text.replace("attempts = 2", "attempts = 3") + "\n[policies.b]")), &Tokio);
    fail(&policies.get("b").unwrap()).await;
    let expected = ["a: retry after 1", "a: Open", "b: retry after 1", "b: Open", "b: retry after 2"];
    assert_eq!(*told.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_changes_is_reloaded_and_a_wrong_one_is_told_once_and_changes_nothing() {
    let file = File::new("watched.toml", "[policies.p]\ntimeout = '1s'");
    let policies = Arc::new(Policies::new(&Settings::read(&file.0).unwrap()));
    let told = Arc::new(Mutex::new(Vec::new()));
    let watch = {
        let (policies, told, path) = (policies.clone(), told.clone(), file.0.clone());
        tokio::spawn(async move {
            let note = |result: Result<_, _>| {
                let text = match result {
                    Ok(changes) => failsoft_tokio::settings::Changes::to_string(&changes),
                    Err(error) => failsoft_tokio::settings::SettingsError::to_string(&error),
                };
                told.lock().unwrap().push(text.replace(&path.display().to_string(), "FILE"));
            };
            policies.watch(&Loader::new(), &path, Duration::from_secs(5), note).await
        })
    };
    let news = async || {
        sleep(Duration::from_secs(11)).await;
        core::mem::take(&mut *told.lock().unwrap())
    };
    let in_force = || Pipeline::new(Tokio).layer(policies.get("p").unwrap()).to_string();
    assert_eq!(news().await, ["nothing changed"], "of what it began with");
    assert_eq!(news().await, [""; 0]);
    file.write("[policies.p]\ntimeout = '2s'");
    assert_eq!((news().await, in_force()), (vec!["changed: p".into()], "timeout: 2s".into()));
    file.write("[policies.p]\ntimeout = '2'\n[policies.q]");
    let wrong = "FILE:2: policies.p.timeout: \"2\" has no unit; valid: a duration such as \"250ms\", \"1.5s\" or \"1h30m\", or false";
    assert_eq!((news().await, in_force()), (vec![wrong.into()], "timeout: 2s".into()));
    assert_eq!((news().await, policies.names()), (vec![], vec!["p".to_owned()]), "told once");
    std::fs::remove_file(&file.0).unwrap();
    let gone = news().await;
    assert!(gone.len() == 1 && gone[0].starts_with("FILE: can't be read: "), "{gone:?}");
    assert_eq!((news().await, in_force()), (vec![], "timeout: 2s".into()));
    file.write("[policies.p]\ntimeout = '3s'");
    assert_eq!((news().await, in_force()), (vec!["changed: p".into()], "timeout: 3s".into()));
    watch.abort();
    assert!(watch.await.is_err());
    file.write("[policies.p]\ntimeout = '4s'");
    assert_eq!((news().await, in_force()), (vec![], "timeout: 3s".into()), "a watch that is dropped has ended");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_being_written_is_not_taken() {
    let whole = "[policies.p]\ntimeout = '1s'";
    let file = File::new("half.toml", whole);
    let policies = Policies::new(&Settings::read(&file.0).unwrap());
    let mut told = 0;
    let write = async {
        // The half of it is there at one reading each time, and never at two.
        for _ in 0..10 {
            sleep(Duration::from_secs(4)).await;
            file.write("");
            sleep(Duration::from_secs(4)).await;
            file.write(whole);
            sleep(Duration::from_secs(12)).await;
        }
    };
    let loader = Loader::new();
    let watch = policies.watch(&loader, &file.0, Duration::from_secs(5), |_| told += 1);
    tokio::select! { never = watch => match never {}, () = write => {} }
    assert_eq!((told, policies.names()), (1, vec!["p".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_gone_for_a_while_comes_back_to_those_who_kept_its_policies() {
    let text = "[policies.p]\ncircuit_breaker = { failures = 1, open_for = '1h' }\n[policies.q]";
    let policies = Policies::new(&settings(text));
    let (kept, dropped) = (policies.get("p").unwrap(), policies.get("q").unwrap().circuit_breaker().is_none());
    fail(&kept).await;
    policies.reload(&settings(""), &Tokio);
    assert!(dropped && policies.get("p").is_err());
    let changes = policies.reload(&settings(&text.replace("1h", "2h")), &Tokio);
    assert_eq!(changes.to_string(), "added: p, q");
    assert!(kept.is(&policies.get("p").unwrap()), "it is the same");
    assert!(kept.circuit_breaker().unwrap().state() == StateKind::Open && !succeeds(&policies.get("p").unwrap()).await);
    policies.reload(&settings(""), &Tokio);
    drop(kept);
    policies.reload(&settings(text), &Tokio);
    assert!(succeeds(&policies.get("p").unwrap()).await, "nobody had it any more");
}

#[tokio::test(start_paused = true)]
async fn what_is_held_open_by_hand_stays_so_whatever_the_file_says() {
    let text = "[policies.p]\ncircuit_breaker.failures = 5";
    let policies = Policies::new(&settings(text));
    let set = policies.get("p").unwrap();
    set.circuit_breaker().unwrap().isolate();
    for breaker in ["failures = 7", "failure_rate = '50%'\ncircuit_breaker.calls = 10", "failures = 5"] {
        policies.reload(&settings(&text.replace("failures = 5", breaker)), &Tokio);
        assert_eq!(set.circuit_breaker().unwrap().state(), StateKind::Isolated, "{breaker}");
    }
    set.circuit_breaker().unwrap().reset();
    policies.reload(&settings(&text.replace('5', "6")), &Tokio);
    assert_eq!(set.circuit_breaker().unwrap().state(), StateKind::Closed);
}

#[test]
fn sections_beside_are_somebody_elses_in_the_environment_too() {
    let variables = [("APP_DB__URL", "postgres://"), ("APP_P__TIMEOUT", "2s")];
    let loader = Loader::new().with_environment("APP", variables);
    let text = "[policies.p]\n[db]\nurl = ''";
    assert_eq!(loader.toml(text, "app.toml").unwrap_err().problems().len(), 2, "they are ours, unless said otherwise");
    let settings = loader.beside(["db"]).toml(text, "app.toml").unwrap();
    assert_eq!(described(&settings, "p"), "timeout: 2s");
}

/// Calls on several threads while settings come and go: no call gets lost, and all comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_reloads_lose_nothing() {
    let text = |n: u32| {
        let limits = format!(
            "bulkhead.permits = {}\ncircuit_breaker = {{ failures = {}, open_for = '1ns' }}",
            1_000 + n,
            50 + n
        );
        settings(&format!("[policies.p]\ntimeout = '{}s'\n{}", n + 10, if n.is_multiple_of(3) { "" } else { &limits }))
    };
    let policies = Policies::new(&text(1));
    let pipeline = Arc::new(Pipeline::new(Tokio).layer(policies.get("p").unwrap()));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let pipeline = pipeline.clone();
            tokio::spawn(async move {
                for call in 0..2_000_u32 {
                    let result = pipeline.call(async |_| if call.is_multiple_of(7) { Err(()) } else { Ok(call) });
                    assert_eq!(
                        result.await.map_err(|failure| failure.into_inner()),
                        if call % 7 == 0 { Err(Some(())) } else { Ok(call) }
                    );
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for n in 2..200 {
        policies.reload(&text(n), &Tokio);
        tokio::task::yield_now().await;
    }
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(policies.get("p").unwrap().bulkhead().map(|bulkhead| bulkhead.snapshot().in_use), Some(0));
}

#[test]
fn an_instant_that_stands_still_is_clock_enough_for_a_reload() {
    let policies = Policies::new(&settings("[policies.p]\nrate_limit.calls = 1"));
    let changes = policies.reload(&settings("[policies.p]\nrate_limit.calls = 2"), &Instant::START.now());
    assert_eq!(changes.changed(), ["p"]);
}
