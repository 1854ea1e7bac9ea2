//! The runner of scenarios: what it prints and how it ends, whatever it is given.

use std::path::PathBuf;
use std::process::{Command, Output};

const GOOD: &str = r#"{"id": "good", "pattern": "bulkhead", "config": {"max_concurrent": 1}, "steps": [{"at_ms": 0, "op": "acquire", "expect": {"permit": true}}]}"#;
const WRONG: &str = r#"{"id": "wrong", "pattern": "bulkhead", "config": {"max_concurrent": 2}, "steps": [{"at_ms": 0, "op": "acquire", "repeat": 2, "expect": {"permit": true}}, {"at_ms": 0, "op": "acquire", "expect": {"permit": true, "available_lt": 0}}]}"#;

/// Runs the runner over a file of these lines.
fn conformance(name: &str, lines: &[&str], options: &[&str]) -> Output {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.jsonl"));
    std::fs::write(&file, lines.join("\n")).expect("a writable directory");
    run(options.iter().map(ToString::to_string).chain([file.display().to_string()]))
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
fn own_copy() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/peers.jsonl").to_owned()
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
    assert!(stdout.contains("malformed.jsonl, line 2: EOF while parsing an object at line 1 column 8\n"), "{stdout}");
    assert!(stdout.contains("malformed.jsonl, line 5: not an object\n"), "{stdout}");
    assert_eq!(last_line(&stdout), "2 passed, 2 failed, 0 skipped");
}

#[test]
fn a_bad_argument_or_file_says_so() {
    for (arguments, told) in [
        (&["--loud", "x"][..], "conformance: unknown argument '--loud'; see --help\n"),
        (&[], "conformance: no file given; see --help\n"),
        (&["--tape"], "conformance: --tape needs a file; see --help\n"),
        (&["a", "b"], "conformance: unknown argument 'b'; see --help\n"),
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
    let (plain, stdout, _) = text(&run(["--plain".to_owned(), own_copy()]));
    let tape = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("peers.tape");
    let (code, ..) = text(&run(["--tape".to_owned(), tape.display().to_string(), own_copy()]));
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
    let (_, stdout, _) = text(&run(["--plain".to_owned(), own_copy()]));
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
