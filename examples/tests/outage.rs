//! The outage example from outside: what it prints, what it leaves behind, and how it ends.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

const OUTAGE: &str = env!("CARGO_BIN_EXE_outage");

fn report(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

#[test]
fn a_short_run_ends_well_and_leaves_its_picture() {
    let file = report("short.html");
    let output = Command::new(OUTAGE).args(["--duration", "2", "--report"]).arg(&file).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    for row in ["served fresh", "served degraded", "failed", "while it was down", "full service"] {
        assert!(text.contains(row), "no {row:?} in {text}");
    }
    let page = fs::read_to_string(file).expect("the picture is there");
    for part in ["<svg", "breaker", "recovered", "</html>"] {
        assert!(page.contains(part), "no {part:?}");
    }
    assert!(!page.contains("src=") && !page.contains("href="), "the page wants something from elsewhere");
}

/// The leading numbers of a row's cells: naked, protected.
fn row(table: &str, label: &str) -> [u64; 2] {
    let line = table.lines().find(|line| line.starts_with(label)).expect("the row is there");
    let cells = line[label.len()..].split("  ").map(str::trim).filter(|cell| !cell.is_empty());
    let number = |cell: &str| cell.split(' ').next()?.parse().ok();
    let numbers: Vec<u64> = cells.map(|cell| number(cell).unwrap_or_default()).collect();
    numbers.try_into().expect("a row has a cell for each side")
}

#[test]
fn behind_the_policies_hardly_anyone_notices_and_the_upstream_is_left_alone() {
    let output = Command::new(OUTAGE).args(["--duration", "6", "--report"]).arg(report("both.html")).output();
    let output = output.expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let [_, requests] = row(&text, "requests");
    let [lost_naked, lost] = row(&text, "failed");
    let [reached_naked, reached] = row(&text, "calls that reached the upstream while it was down");
    // Far from what is usual (none, and one in forty), so that a machine with other things to do passes too.
    assert!(lost * 20 <= requests && lost < lost_naked, "{text}");
    assert!(reached * 4 <= reached_naked, "{text}");
    for label in ["served fresh", "served degraded", "kept from the upstream by a policy", "openings of the breaker"] {
        assert!(row(&text, label)[1] > 0, "no {label:?} in {text}");
    }
}

#[test]
fn a_bad_argument_is_refused() {
    for bad in [["--duration", "0"], ["--rate", "many"], ["--seed", "-1"], ["--colour", "red"]] {
        let output = Command::new(OUTAGE).args(bad).output().expect("it starts");
        assert_eq!(output.status.code(), Some(2), "{bad:?}");
        assert!(!output.stderr.is_empty(), "{bad:?}");
    }
}

#[test]
fn a_report_that_cannot_be_written_is_said_at_once() {
    let output = Command::new(OUTAGE).args(["--report", env!("CARGO_TARGET_TMPDIR")]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("can't write the report"));
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_reports_what_it_saw() {
    let file = report("interrupted.html");
    let mut child = Command::new(OUTAGE).arg("--report").arg(&file).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    // The second line is the first progress: by then, interrupts are listened to.
    lines.by_ref().take(2).for_each(drop);
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill starts");
    assert!(killed.success());
    let rest = lines.map_while(Result::ok).collect::<Vec<_>>().join("\n");
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert!(rest.contains("served fresh"), "{rest}");
    assert!(fs::read_to_string(file).expect("the picture is there").contains("interrupted"));
}
