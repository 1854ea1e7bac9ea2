#![expect(clippy::panic, reason = "a test may end with a panic")]

use core::fmt::Write as _;
use std::collections::BTreeMap;

use failsoft_core::Rng;

use super::keys::GROUPS;
use super::*;

const PAGE: &str = include_str!("../settings.rs");

/// The rows of the page's table of keys: key, what it takes, default.
fn rows() -> impl Iterator<Item = [&'static str; 3]> {
    let table = PAGE.split("//! # Keys\n").nth(1).unwrap_or_default().split("//! # ").next().unwrap_or_default();
    table.lines().filter_map(|line| {
        let cells: Vec<_> = line.strip_prefix("//! | `")?.split(" | ").collect();
        Some([cells[0].trim_end_matches('`'), cells[1], cells[2]])
    })
}

fn all_keys() -> impl Iterator<Item = (String, &'static keys::Key)> {
    GROUPS.iter().flat_map(|group| {
        let dot = if group.name.is_empty() { "" } else { "." };
        group.keys.iter().map(move |key| (format!("{}{dot}{}", group.name, key.name), key))
    })
}

/// What has to be said beside a key for a policy to be whole.
fn beside(key: &str) -> &'static [&'static str] {
    match key {
        "retry.min_retries_per_second" => &["retry.budget = '10%'"],
        "rate_limit.queue" => &["rate_limit.calls = 7", "rate_limit.max_wait = '1s'"],
        "rate_limit.max_wait" => &["rate_limit.calls = 7", "rate_limit.queue = 3"],
        "bulkhead.queue" => &["bulkhead.permits = 7", "bulkhead.max_wait = '1s'"],
        "bulkhead.max_wait" => &["bulkhead.permits = 7", "bulkhead.queue = 3"],
        "rate_limit.calls" | "bulkhead.permits" => &[],
        key if key.starts_with("rate_limit.") => &["rate_limit.calls = 7"],
        key if key.starts_with("bulkhead.") => &["bulkhead.permits = 7"],
        "circuit_breaker.failure_rate" => &["circuit_breaker.calls = 100"],
        "circuit_breaker.slow_rate" => &["circuit_breaker.calls = 100", "circuit_breaker.slow_call = '1s'"],
        "circuit_breaker.slow_call" => &["circuit_breaker.calls = 100", "circuit_breaker.slow_rate = '50%'"],
        "circuit_breaker.calls" | "circuit_breaker.window" => &["circuit_breaker.failure_rate = '50%'"],
        "circuit_breaker.min_calls" => &["circuit_breaker.failure_rate = '50%'", "circuit_breaker.calls = 100"],
        _ => &[],
    }
}

/// A policy with this key, and what has to be beside it; without the key where there is no value.
fn policy(key: &str, value: Option<&str>) -> Result<Settings, SettingsError> {
    let mut text = String::from("[policies.p]\n");
    beside(key).iter().for_each(|line| text.extend([line, "\n"]));
    match (value, key.split_once('.')) {
        (Some(value), _) => text.extend([key, " = ", value, "\n"]),
        (None, Some((group, _))) if beside(key).is_empty() => text.extend([group, " = true\n"]),
        (None, _) => {}
    }
    Settings::from_toml(&text, "f.toml")
}

#[test]
fn the_pages_table_has_every_key_with_what_it_takes() {
    let groups = GROUPS.iter().filter(|group| !group.name.is_empty());
    let mut expected: Vec<_> = all_keys().map(|(name, key)| (name, key.valid())).collect();
    expected.extend(groups.map(|group| (group.name.into(), "a table, or true or false".into())));
    let mut found: Vec<_> = rows().map(|[key, takes, _]| (key.to_owned(), takes.to_owned())).collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn the_pages_defaults_are_what_holds_where_a_key_is_not_said() {
    let mut literal = 0;
    for [key, _, default] in rows() {
        let Some(value) = default.strip_prefix('`').and_then(|value| value.strip_suffix('`')) else { continue };
        let value = value.replace('"', "'");
        // With no queue there is no longest wait either.
        let comparable = value != "0";
        let (said, unsaid) = (policy(key, Some(&value)), policy(key, None));
        assert!(said.is_ok(), "{key}: {said:?}");
        if comparable {
            assert_eq!(said, unsaid, "{key}");
            literal += 1;
        }
    }
    assert!(literal > 12, "{literal}");
    let same = |one: &str, other: &str| {
        let of =
            |text: &str| Settings::from_toml(&format!("[policies.p]\n{text}"), "").map_err(|error| error.to_string());
        assert_eq!(of(one), of(other));
        assert!(of(one).is_ok(), "{one}");
    };
    same("retry.budget = '5%'", "retry = { budget = '5%', min_retries_per_second = 10 }");
    same("rate_limit.calls = 9", "rate_limit = { calls = 9, burst = 9 }");
    same("bulkhead = { permits = 1, queue = 0 }", "bulkhead.permits = 1");
    same("rate_limit = { calls = 1, queue = 0 }", "rate_limit.calls = 1");
    same("circuit_breaker.open_for = '5s'", "circuit_breaker = { open_for = '5s' }");
    same(
        "circuit_breaker = { failure_rate = '1%', calls = 9 }",
        "circuit_breaker = { failure_rate = '1%', calls = 9, min_calls = 9 }",
    );
    same(
        "circuit_breaker = { slow_rate = '1%', slow_call = '1s', window = '9s' }",
        "circuit_breaker = { slow_rate = '1%', slow_call = '1s', window = '9s', min_calls = 10 }",
    );
    same("retry.delay = '90s'", "retry = { delay = '90s', max_delay = '90s' }");
}

/// For each key, what is wrong with wrong values of it, in full but for what would be valid: that is in the page's table.
#[test]
fn every_key_refuses_what_it_does_not_take() {
    let wrong = |takes: &str| -> &'static [(&'static str, &'static str)] {
        match takes.split(['0', '1', '2', '3', '4', '5', '6', '7', '8', '9']).next().unwrap_or_default() {
            takes if takes.starts_with("a duration above zero") => {
                &[("'0s'", "\"0s\" is out of range"), ("5", "5 has no unit"), ("true", "is true")]
            }
            takes if takes.starts_with("a duration") => &[
                ("'10'", "\"10\" has no unit"),
                ("'soon'", "\"soon\" is no duration"),
                ("1.5", "is a number with a fraction: write it as a text, in quotes"),
                ("true", "is true"),
            ],
            takes if takes.starts_with("a whole number") => &[
                ("-1", "-1 is out of range"),
                ("4294967296", "4294967296 is out of range"),
                ("'5'", "is the text \"5\""),
                ("1.0", "is a number with a fraction: write it as a text, in quotes"),
                ("99999999999999999999", "is a number that is too large"),
                ("{}", "is a table"),
            ],
            takes if takes.starts_with("a percentage") => &[
                ("'100.01%'", "\"100.01%\" is out of range"),
                ("'0.001%'", "\"0.001%\" is finer than a hundredth of a percent"),
                ("'50'", "\"50\" is no percentage"),
                ("50", "is the number 50"),
            ],
            takes if takes.starts_with("a factor") => &[
                ("'0.5'", "\"0.5\" is out of range"),
                ("0", "0 is out of range"),
                ("'twice'", "\"twice\" is no number"),
                ("false", "is false"),
            ],
            takes if takes.starts_with("\"none\"") => {
                &[("'ful'", "\"ful\" is no jitter"), ("'101%'", "\"101%\" is out of range"), ("true", "is true")]
            }
            takes if takes.starts_with("true or false") => {
                &[("1", "is the number 1"), ("'yes'", "is the text \"yes\"")]
            }
            takes if takes.starts_with("the name") => &[("false", "is false"), ("['a']", "is a list")],
            takes if takes.starts_with("a table") => {
                &[("5", "is the number 5"), ("'on'", "is the text \"on\""), ("1979-05-27", "is a date")]
            }
            other => panic!("nothing is known of {other}"),
        }
    };
    let mut cases = 0;
    for [key, takes, _] in rows() {
        let line = beside(key).len() + 2;
        for (value, reason) in wrong(takes) {
            let refused = policy(key, Some(value)).map_err(|error| error.to_string());
            assert_eq!(refused, Err(format!("f.toml:{line}: policies.p.{key}: {reason}; valid: {takes}")));
            cases += 1;
        }
    }
    assert!(cases > 100, "{cases}");
}

#[test]
fn what_makes_no_sense_together_is_told_by_the_keys_that_are_meant() {
    for (text, expected) in [
        ("bulkhead = {}", "f:2: policies.p.bulkhead.permits: is missing; valid: a whole number, 1 to 2,097,151"),
        (
            "rate_limit = true",
            "f:2: policies.p.rate_limit.calls: is missing; valid: a whole number, 1 to 4,294,967,295",
        ),
        (
            "bulkhead = { permits = 1, queue = 2 }",
            "f:2: policies.p.bulkhead.max_wait: is missing: `queue` needs it; valid: a duration such as \"250ms\", \"1.5s\" or \"1h30m\"",
        ),
        (
            "rate_limit = { calls = 1, max_wait = '2s' }",
            "f:2: policies.p.rate_limit.queue: is missing: `max_wait` needs it; valid: a whole number, 0 to 4,294,967,295",
        ),
        (
            "retry = { min_retries_per_second = 2 }",
            "f:2: policies.p.retry.budget: is missing: `min_retries_per_second` needs it; valid: a percentage from 0 to 100 such as \"50%\" or \"12.5%\", or false",
        ),
        (
            "retry = { delay = '2s', max_delay = '1s' }",
            "f:2: policies.p.retry.max_delay: is below the `delay` of 2s; valid: a duration such as \"250ms\", \"1.5s\" or \"1h30m\"",
        ),
        (
            "circuit_breaker = { failures = 5, window = '9s' }",
            "f:2: policies.p.circuit_breaker.failures: can't be said beside `window`; valid: one of the two",
        ),
        (
            "circuit_breaker = { failure_rate = '9%', window = '9s', calls = 5 }",
            "f:2: policies.p.circuit_breaker.calls: can't be said beside `window`; valid: one of the two",
        ),
        (
            "circuit_breaker.failure_rate = '50%'",
            "f:2: policies.p.circuit_breaker.calls: is missing, and so is `window`; valid: a whole number, 1 to 1,024",
        ),
        (
            "circuit_breaker.window = '50s'",
            "f:2: policies.p.circuit_breaker.failure_rate: is missing: `window` needs it; valid: a percentage above 0 and up to 100 such as \"50%\" or \"12.5%\"",
        ),
        (
            "circuit_breaker = { calls = 20, slow_call = '1s' }",
            "f:2: policies.p.circuit_breaker.slow_rate: is missing: `slow_call` needs it; valid: a percentage above 0 and up to 100 such as \"50%\" or \"12.5%\"",
        ),
        // These are core's own.
        (
            "circuit_breaker = { failure_rate = '9%', calls = 5, min_calls = 6 }",
            "f:2: policies.p.circuit_breaker.min_calls: is above the window: the breaker would never open; valid: a whole number, 1 to 4,294,967,295",
        ),
        (
            "circuit_breaker = { failure_rate = '9%', window = '9ns' }",
            "f:2: policies.p.circuit_breaker.window: is below a nanosecond a bucket; valid: a duration above zero such as \"250ms\", \"1.5s\" or \"1h30m\"",
        ),
        (
            "rate_limit = { calls = 1, per = '1h', burst = 4000000 }",
            "f:2: policies.p.rate_limit.burst: takes more than 36 years to come back; valid: a whole number, 1 to 4,294,967,295",
        ),
    ] {
        let refused = Settings::from_toml(&format!("[policies.p]\n{text}"), "f").map_err(|error| error.to_string());
        assert_eq!(refused, Err(expected.into()), "{text}");
    }
}

/// A policy of random keys: each with a value that it takes, in TOML and in JSON.
fn random(rng: &mut Rng) -> Vec<(String, String)> {
    let mut of = |number: u32| rng.next() % number;
    let mut keys: Vec<(&str, String)> = Vec::new();
    let span = |n: u32| ["1ns", "250ms", "1.5s", "1h 30m", "0.25h", "7us", "2m3s4ms", "1d"][n as usize % 8];
    for key in ["timeout", "attempt_timeout", "retry.total_time"] {
        match of(3) {
            0 => keys.push((key, format!("\"{}\"", span(of(8))))),
            1 => keys.push((key, "false".into())),
            _ => {}
        }
    }
    let mut number = |keys: &mut Vec<_>, key, most: u32| {
        if of(2) == 0 {
            keys.push((key, (1 + of(most)).to_string()));
        }
    };
    number(&mut keys, "retry.attempts", 9);
    number(&mut keys, "retry.factor", 4);
    number(&mut keys, "circuit_breaker.probes", 255);
    number(&mut keys, "rate_limit.burst", 99);
    keys.push(("rate_limit.calls", (1 + of(1_000_000)).to_string()));
    keys.push(("bulkhead.permits", (1 + of(1_000_000)).to_string()));
    if of(2) == 0 {
        keys.push(("retry.delay", format!("\"{}ms\"", of(60_000))));
        keys.push((
            "retry.jitter",
            ["\"none\"", "\"full\"", "\"equal\"", "\"decorrelated\"", "\"12.25 %\""][of(5) as usize].into(),
        ));
        keys.push(("retry.budget", format!("\"{}.5%\"", of(100))));
        keys.push(("bulkhead.queue", of(9).to_string()));
        keys.push(("bulkhead.max_wait", format!("\"{}\"", span(of(8)))));
        keys.push(("bulkhead.newest_first", (of(2) == 0).to_string()));
    }
    match of(3) {
        0 => keys.push(("circuit_breaker.failures", (1 + of(65_535)).to_string())),
        kind => {
            keys.push(("circuit_breaker.failure_rate", format!("\"{}.01%\"", of(100))));
            let size = 1 + of(1_024);
            let window = if kind == 1 {
                ("circuit_breaker.calls", size.to_string())
            } else {
                ("circuit_breaker.window", format!("\"{size}s\""))
            };
            keys.extend([window, ("circuit_breaker.min_calls", (1 + of(size)).to_string())]);
        }
    }
    keys.into_iter().map(|(key, value)| (key.into(), value)).collect()
}

/// The same keys in each way to write them, in any order: all come to the same.
#[test]
fn however_the_same_settings_are_written_they_are_the_same() {
    let mut rng = Rng::new(7);
    for round in 0..500 {
        let mut keys = random(&mut rng);
        let (mut dotted, mut tables, mut variables) = (String::from("[policies.p]\n"), String::new(), Vec::new());
        let mut objects: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, value) in &keys {
            let (group, name) = key.split_once('.').unwrap_or(("", key));
            objects.entry(group.into()).or_default().push(format!("\"{name}\": {value}"));
            variables
                .push((format!("X_P__{}", key.to_uppercase().replace('.', "__")), value.trim_matches('"').to_owned()));
        }
        for at in (1..keys.len()).rev() {
            keys.swap(at, rng.next() as usize % (at + 1));
        }
        for (key, value) in &keys {
            let _ = writeln!(dotted, "{key} = {value}");
        }
        let mut json: Vec<String> = Vec::new();
        for (group, lines) in &objects {
            if group.is_empty() {
                json.extend(lines.iter().cloned());
                let _ = writeln!(tables, "[policies.p]\n{}", lines.join("\n").replace("\": ", "\" = "));
            } else {
                json.push(format!("\"{group}\": {{ {} }}", lines.join(", ")));
                let _ = writeln!(tables, "[policies.p.{group}]\n{}", lines.join("\n").replace("\": ", "\" = "));
            }
        }
        let json = format!("{{ \"policies\": {{ \"p\": {{ {} }} }} }}", json.join(", "));
        let expected = Settings::from_toml(&dotted, "").unwrap_or_else(|error| panic!("{round}: {error}\n{dotted}"));
        assert_eq!(Settings::from_toml(&tables, ""), Ok(expected.clone()), "{round}: {tables}");
        assert_eq!(Settings::from_json(&json, ""), Ok(expected.clone()), "{round}: {json}");
        let by_environment = Loader::new().with_environment("X", variables.clone()).toml("[policies.p]", "");
        assert_eq!(by_environment, Ok(expected), "{round}: {variables:?}");
    }
}

/// Random bytes, and good files with a few bytes changed: accepted or refused, and each refusal says where.
#[test]
fn whatever_is_read_is_accepted_or_refused_and_never_panics() {
    let mut rng = Rng::new(11);
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..1_500_u32 {
        let mut bytes: Vec<u8> = if round % 3 == 0 {
            (0..rng.next() % 200).map(|_| rng.next().to_le_bytes()[0] & 0x7F).collect()
        } else {
            let keys = random(&mut rng);
            let lines = keys.iter().map(|(key, value)| format!("{key} = {value}\n"));
            format!("[default]\nretry.attempts = 3\n[policies.p]\n{}", lines.collect::<String>()).into_bytes()
        };
        for _ in 0..rng.next() % 4 {
            let at = rng.next() as usize % (bytes.len() + 1);
            match (rng.next() % 3, bytes.get_mut(at)) {
                (0, Some(byte)) => *byte = rng.next().to_le_bytes()[0],
                (1, Some(_)) => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"=.[]{}\"'\n#0a%_-"[rng.next() as usize % 15]),
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        for settings in [Settings::from_toml(&text, "f"), Settings::from_json(&text, "f")] {
            match settings {
                Ok(settings) => {
                    let _ = Policies::new(&settings);
                    accepted += 1;
                }
                Err(error) => {
                    assert!(error.problems().iter().all(|problem| !problem.reason().is_empty()), "{error:?}");
                    assert!(error.to_string().lines().all(|line| line.len() < 2_000), "{error}");
                    refused += 1;
                }
            }
        }
        let name: String = text.chars().filter(|c| *c != '\0').collect();
        let _ = Loader::new()
            .with_environment("X", [(format!("X_P__{name}"), name.clone()), ("X_P__RETRY".into(), name)])
            .toml("[policies.p]", "f");
    }
    assert!(accepted > 150 && refused > 1_500, "{accepted} and {refused}");
}
