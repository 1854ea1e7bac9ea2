//! The runner of scenarios: what it prints and how it ends, whatever it is given.

use std::path::PathBuf;
use std::process::{Command, Output};

const GOOD: &str = r#"{"id": "good", "pattern": "bulkhead", "config": {"max_concurrent": 1}, "steps": [{"at_ms": 0, "op": "acquire", "expect": {"permit": true}}]}"#;
const WRONG: &str = r#"{"id": "wrong", "pattern": "bulkhead", "config": {"max_concurrent": 2}, "steps": [{"at_ms": 0, "op": "acquire", "repeat": 2, "expect": {"permit": true}}, {"at_ms": 0, "op": "acquire", "expect": {"permit": true, "available_lt": 0}}]}"#;

/// Runs the runner over a file of these lines.
fn conformance(name: &str, lines: &[&str], options: &[&str]) -> Output {
    let file = write(name, lines.join("\n").as_bytes());
    run(options.iter().map(ToString::to_string).chain([file]))
}

fn write(name: &str, bytes: &[u8]) -> String {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.jsonl"));
    std::fs::write(&file, bytes).expect("a writable directory");
    file.display().to_string()
}

fn run(arguments: impl IntoIterator<Item = String>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_conformance")).args(arguments).output().expect("the runner starts")
}

fn text(output: &Output) -> (Option<i32>, String, String) {
    let utf8 = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), utf8(&output.stdout), utf8(&output.stderr))
}

fn last_line(stdout: &str) -> &str {
    stdout.lines().last().unwrap_or("")
}

/// The scenarios that are kept here.
fn own_copies() -> [String; 2] {
    ["peers", "more"].map(|name| format!("{}/vectors/{name}.jsonl", env!("CARGO_MANIFEST_DIR")))
}

#[test]
fn a_wrong_expectation_fails_and_says_where() {
    let (code, stdout, _) = text(&conformance("wrong", &[GOOD, WRONG], &[]));
    assert_eq!(code, Some(1));
    let told = "FAILED   bulkhead wrong: step 2 (acquire): `available` should be less than 0, came 0 (and 1 more)\n";
    assert!(stdout.contains(told), "{stdout}");
    assert_eq!(last_line(&stdout), "1 passed, 1 failed, 0 skipped");
}

#[test]
fn what_nobody_knows_fails_and_is_never_ignored() {
    let vector = |pattern: &str, config: &str, step: &str| {
        format!(
            r#"{{"id": "x", "pattern": "{pattern}", "config": {{"max_concurrent": 1{config}}}, "steps": [{{"at_ms": 0, {step}}}]}}"#
        )
    };
    let acquire = r#""op": "acquire""#;
    for (name, line, told) in [
        ("pattern", vector("crystal_ball", "", acquire), "unknown pattern `crystal_ball`"),
        ("config", vector("bulkhead", r#", "colour": 1"#, acquire), "unknown configuration `colour`"),
        ("op", vector("bulkhead", "", r#""op": "sing""#), "step 1 (sing): unknown operation `sing`"),
        (
            "arg",
            vector("bulkhead", "", r#""op": "acquire", "arg": {"hue": 1}"#),
            "step 1 (acquire): unknown argument `hue`",
        ),
        (
            "expect",
            vector("bulkhead", "", r#""op": "acquire", "expect": {"mood_ge": 1}"#),
            "step 1 (acquire): unknown expectation `mood_ge`",
        ),
        (
            "value",
            vector("bulkhead", r#", "queue_limit": "two""#, acquire),
            "`queue_limit` is not a number of 0 to 4,294,967,295",
        ),
    ] {
        let (code, stdout, _) = text(&conformance(name, &[&line], &[]));
        assert_eq!(code, Some(1), "{name}");
        assert!(stdout.contains(&format!(": {told}\n")), "{name}: {stdout}");
    }
}

#[test]
fn a_malformed_line_counts_as_failed_and_the_others_run_all_the_same() {
    let (code, stdout, _) = text(&conformance("malformed", &[GOOD, "{\"id\": 1", "", GOOD, "[]"], &[]));
    assert_eq!(code, Some(2));
    assert!(stdout.contains("malformed.jsonl, line 2: EOF while parsing an object at column 8\n"), "{stdout}");
    assert!(stdout.contains("malformed.jsonl, line 5: not an object\n"), "{stdout}");
    assert_eq!(last_line(&stdout), "2 passed, 2 failed, 0 skipped");
}

#[test]
fn a_line_that_is_no_vector_says_why_wherever_it_is() {
    let step = |step: &str| format!(r#"{{"id": "x", "pattern": "bulkhead", "config": {{}}, "steps": [{step}]}}"#);
    let nested =
        format!(r#"{{"id": "x", "pattern": "bulkhead", "config": {}{}, "steps": []}}"#, "[".repeat(99), "]".repeat(99));
    for (line, told) in [
        (r#"{"pattern": "bulkhead"}"#.to_owned(), "`id` is missing, or not a string"),
        (r#"{"id": "x", "pattern": 5}"#.to_owned(), "`pattern` is missing, or not a string"),
        (r#"{"id": "x", "pattern": "bulkhead", "config": 1}"#.to_owned(), "`config` is missing, or not an object"),
        (r#"{"id": "x", "pattern": "bulkhead", "config": {}}"#.to_owned(), "`steps` is missing, or not a list"),
        (GOOD.replace("\"steps\"", "\"stairs\""), "the vector has an unknown member `stairs`"),
        (step("1"), "step 1: not an object"),
        (step("{}"), "step 1: `op` is missing, or not a string"),
        (step(r#"{"op": "acquire", "at": 0}"#), "step 1: a step has an unknown member `at`"),
        (step(r#"{"op": "acquire", "at_ms": 1e999}"#), "1e999 has too many digits"),
        (nested, "nested deeper than 8 levels"),
    ] {
        let (code, stdout, _) = text(&conformance("unusable", &[GOOD, &line], &[]));
        assert_eq!(code, Some(2), "{line}");
        assert!(stdout.contains(&format!("unusable.jsonl, line 2: {told}\n")), "{line}: {stdout}");
        assert_eq!(last_line(&stdout), "1 passed, 1 failed, 0 skipped");
    }
}

#[test]
fn bytes_that_are_no_text_are_a_line_that_is_no_vector() {
    let lines = [b"\xef\xbb\xbf".as_slice(), GOOD.as_bytes(), b"\r\n\xff\xfe\n\r\n", GOOD.as_bytes()].concat();
    let (code, stdout, _) = text(&run([write("bytes", &lines)]));
    assert_eq!(code, Some(2));
    assert!(stdout.contains("bytes.jsonl, line 2: not UTF-8\n"), "{stdout}");
    assert_eq!(last_line(&stdout), "2 passed, 1 failed, 0 skipped", "the mark at a file's start is no part of it");
}

#[test]
fn the_lines_that_a_chip_would_write_have_none_about_the_file() {
    let (code, stdout, stderr) = text(&conformance("aside", &[GOOD, "{"], &["--plain"]));
    assert_eq!((code, stdout.as_str()), (Some(2), "passed   bulkhead good\n1 passed, 0 failed, 0 skipped\n"));
    assert!(stderr.contains("aside.jsonl, line 2: EOF while parsing an object at column 1\n"), "{stderr}");
}

#[test]
fn several_files_are_taken_as_one() {
    let files = [write("first", GOOD.as_bytes()), write("second", [WRONG, "[]"].join("\n").as_bytes())];
    let (code, stdout, _) = text(&run(files.clone()));
    assert_eq!(code, Some(2));
    assert!(stdout.contains("second.jsonl, line 2: not an object\n"), "{stdout}");
    assert_eq!(last_line(&stdout), "1 passed, 2 failed, 0 skipped");
    let (code, stdout, stderr) = text(&run(files.into_iter().chain(["/nowhere/at/all".to_owned()])));
    let told = "conformance: can't read /nowhere/at/all: No such file or directory (os error 2)\n";
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(2), "", told), "all are read before one is run");
}

#[test]
fn numbers_beyond_all_measure_are_refused() {
    let vector = |config: &str, step: &str| {
        format!(r#"{{"id": "x", "pattern": "bulkhead", "config": {{{config}}}, "steps": [{{"op": "acquire"{step}}}]}}"#)
    };
    let one = r#""max_concurrent": 1"#;
    for (line, told) in [
        (vector(r#""max_concurrent": 4294967296"#, ""), "`max_concurrent` is not a number of 0 to 4,294,967,295"),
        (vector(r#""max_concurrent": 0.5"#, ""), "`max_concurrent` is not a number of 0 to 4,294,967,295"),
        (vector(one, r#", "at_ms": 1e30"#), "step 1 (acquire): `at_ms` is no time on a clock"),
        (vector(one, r#", "at_ms": -1"#), "step 1 (acquire): `at_ms` is no time on a clock"),
        (vector(one, r#", "repeat": -1"#), "step 1 (acquire): `repeat` is not a number of 0 to 10,000,000"),
        (vector(one, r#", "repeat": 4294967295"#), "step 1 (acquire): `repeat` is not a number of 0 to 10,000,000"),
    ] {
        let (code, stdout, _) = text(&conformance("huge", &[&line], &[]));
        assert_eq!(code, Some(1), "{line}");
        assert!(stdout.contains(&format!(": {told}\n")), "{line}: {stdout}");
    }
}

#[test]
fn what_is_kept_here_passes_and_little_of_it_is_otherwise_on_purpose() {
    for file in own_copies() {
        let (code, stdout, _) = text(&run(["--plain".to_owned(), file.clone()]));
        let count = |verdict: &str| stdout.lines().filter(|line| line.starts_with(verdict)).count();
        assert_eq!(code, Some(0), "{file}: {stdout}");
        assert!(count("passed ") > 100, "{file}");
        assert!(count("skipped ") * 10 <= stdout.lines().count(), "{file}");
    }
}

#[test]
fn the_parts_have_all_patterns_between_them() {
    let ended = |options: &[&str]| {
        let (code, stdout, _) = text(&run(options.iter().map(ToString::to_string).chain(own_copies())));
        assert_eq!(code, Some(0));
        stdout.lines().filter(|line| line.starts_with("passed") || line.starts_with("skipped")).count()
    };
    let (breakers, limits) = (ended(&["--plain", "--part", "breakers"]), ended(&["--plain", "--part", "limits"]));
    assert!(breakers > 0 && limits > 0);
    assert_eq!(breakers + limits, ended(&["--plain"]));
}

#[test]
fn what_a_configuration_leaves_out_is_as_its_own_library_has_it() {
    let vector = |pattern: &str, config: &str, steps: &str| {
        format!(r#"{{"id": "x", "pattern": "{pattern}", "config": {{{config}}}, "steps": [{steps}]}}"#)
    };
    for line in [
        // 100 seconds.
        vector(
            "circuit_breaker",
            r#""dialect": "r4j", "window": "time", "min_calls": 2"#,
            r#"{"at_ms": 0, "op": "failure"}, {"at_ms": 99999, "op": "snapshot", "expect": {"buffered": 1}}, {"at_ms": 100000, "op": "snapshot", "expect": {"buffered": 0}}"#,
        ),
        // 6 failures in a row, and 60 seconds.
        vector(
            "circuit_breaker",
            r#""dialect": "gobreaker""#,
            r#"{"at_ms": 0, "op": "failure", "repeat": 5, "expect": {"state": "closed"}}, {"at_ms": 0, "op": "failure", "expect": {"state": "open", "remaining_delay_ms": 60000}}"#,
        ),
        // 1 failure of 1.
        vector(
            "circuit_breaker",
            r#""dialect": "failsafe""#,
            r#"{"at_ms": 0, "op": "failure", "expect": {"state": "open", "remaining_delay_ms": 60000}}"#,
        ),
        // 100 calls, a tenth of which fail.
        vector(
            "circuit_breaker",
            r#""dialect": "polly8""#,
            r#"{"at_ms": 0, "op": "success", "repeat": 90}, {"at_ms": 0, "op": "failure", "repeat": 9, "expect": {"state": "closed"}}, {"at_ms": 0, "op": "failure", "expect": {"state": "open", "remaining_delay_ms": 5000}}"#,
        ),
        // 25 calls at once.
        vector("bulkhead", r#""dialect": "r4j""#, r#"{"op": "snapshot", "expect": {"available": 25}}"#),
    ] {
        let (code, stdout, _) = text(&conformance("defaults", &[&line], &[]));
        assert_eq!(code, Some(0), "{line}: {stdout}");
    }
}

#[test]
fn a_bad_argument_or_file_says_so() {
    for (arguments, told) in [
        (&["--loud", "x"][..], "conformance: unknown argument '--loud'; see --help\n"),
        (&[], "conformance: no file given; see --help\n"),
        (&["--tape"], "conformance: --tape needs a file; see --help\n"),
        (&["--part"], "conformance: --part needs a name; see --help\n"),
        (&["--part", "x", "y"], "conformance: no part 'x'; see --help\n"),
        (&["/"], "conformance: can't read /: Is a directory (os error 21)\n"),
        (&["/nowhere/at/all"], "conformance: can't read /nowhere/at/all: No such file or directory (os error 2)\n"),
    ] {
        let (code, stdout, stderr) = text(&run(arguments.iter().map(ToString::to_string)));
        assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(2), "", told));
    }
    let (code, stdout, _) = text(&run(["--help".to_owned()]));
    assert_eq!(code, Some(0));
    assert!(stdout.starts_with("Run scenarios"), "{stdout}");
}

#[test]
fn nothing_at_all_passes() {
    let (code, stdout, _) = text(&conformance("empty", &[], &[]));
    assert_eq!((code, last_line(&stdout)), (Some(0), "0 passed, 0 failed, 0 skipped"));
}

#[test]
fn a_line_per_vector_is_what_a_tape_gives() {
    let (plain, stdout, _) = text(&run(["--plain".to_owned()].into_iter().chain(own_copies())));
    let tape = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("own.tape");
    let (code, ..) = text(&run(["--tape".to_owned(), tape.display().to_string()].into_iter().chain(own_copies())));
    assert_eq!(code, Some(0));
    let bytes = std::fs::read(&tape).expect("a tape");
    let tape = failsoft_conformance::tape::Tape::open(&bytes).expect("a whole tape");
    let mut report = String::new();
    let totals =
        failsoft_conformance::report(failsoft_conformance::ALL, tape, &mut report).expect("a string takes everything");
    assert_eq!(report, stdout);
    assert_eq!(plain, Some(i32::from(totals.failed > 0)));
}

#[test]
fn every_difference_on_purpose_is_one_that_a_scenario_shows() {
    let (_, stdout, _) = text(&run(["--plain".to_owned()].into_iter().chain(own_copies())));
    for reason in failsoft_conformance::rules::reasons() {
        assert!(stdout.contains(&format!(": {reason}\n")), "no scenario is skipped because {reason}");
    }
}

#[test]
fn a_rule_excuses_only_what_it_is_about() {
    let vector = |attempt: u32, millis: u32| {
        format!(
            r#"{{"id": "x", "pattern": "retry_delay", "config": {{"dialect": "finagle", "backoff": "linear", "base_ms": 10, "take_until_total_ms": 100}},
                "steps": [{{"op": "delay", "arg": {{"attempt": {attempt}}}, "expect": {{"delay_ms": {millis}}}}}]}}"#
        )
        .replace('\n', " ")
    };
    let ended = |line: &str| last_line(&text(&conformance("rule", &[line], &[])).1).to_owned();
    assert_eq!(ended(&vector(0, 10)), "1 passed, 0 failed, 0 skipped", "what passes is not skipped");
    assert_eq!(ended(&vector(0, 11)), "0 passed, 0 failed, 1 skipped");
    let other = vector(0, 10).replace("\"attempt\"", "\"colour\"");
    assert_eq!(ended(&other), "0 passed, 1 failed, 0 skipped", "another difference than the rule's");
}

#[test]
fn a_root_is_compared_to_a_millionth_and_no_further() {
    let vector = |seconds: &str| {
        format!(
            r#"{{"id": "x", "pattern": "adaptive_concurrency", "config": {{"dialect": "aws", "kind": "cubic", "start_rate": 10}}, "steps": [{{"op": "snapshot", "expect": {{"k_s": {seconds}}}}}]}}"#
        )
    };
    let ended = |seconds| last_line(&text(&conformance("root", &[&vector(seconds)], &[])).1).to_owned();
    assert_eq!(ended("1.9574338205844317"), "1 passed, 0 failed, 0 skipped");
    assert_eq!(ended("1.957434820"), "1 passed, 0 failed, 0 skipped");
    assert_eq!(ended("1.957434822"), "0 passed, 1 failed, 0 skipped");
}
