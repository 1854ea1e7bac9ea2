//! The list of faults, `tests/faults.md`, against the tests: what it names is there, and what nothing covers says why.

use std::collections::BTreeSet;
use std::path::Path;

/// Whether the file has this test, as a function or a step of a script, or is one by itself: a program that must not compile.
fn exists(test: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (file, name) = test.split_once("::").unwrap_or((test, ""));
    let Ok(text) = std::fs::read_to_string(root.join(file)) else { return false };
    name.is_empty() || text.contains(&format!("fn {name}(")) || text.contains(&format!("\n{name}() {{"))
}

#[test]
fn every_fault_has_its_tests_or_says_what_is_missing() {
    let list = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("faults.md")).expect("the list");
    let rows = list.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let rows: Vec<Vec<&str>> = rows.map(|row| row.split(" | ").map(str::trim).collect()).collect();
    let rows = rows.iter().filter(|row| row[0] != "id" && !row[0].starts_with("---"));
    let (mut ids, mut counts) = (BTreeSet::new(), [0_u32; 4]);
    for row in rows {
        assert_eq!(row.len(), 5, "five cells: {row:?}");
        let [id, fault, state, tests, remark] = row[..] else { continue };
        assert!(ids.insert(id) && !fault.is_empty(), "{id} is said twice, or of nothing");
        let tests: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        for test in &tests {
            assert!(exists(test), "{id}: there is no test `{test}`");
        }
        let place = ["covered", "partly", "open", "not here"].iter().position(|known| *known == state);
        let place = place.expect(state);
        assert_eq!(place < 2, !tests.is_empty(), "{id}: {state}, and {tests:?}");
        assert!(place == 0 || !remark.is_empty(), "{id}: {state}, and nothing says why");
        counts[place] += 1;
    }
    assert!(ids.len() > 100, "the list is {} rows", ids.len());
    let [covered, partly, open, not_here] = counts;
    println!("faults covered: {covered} rows, {partly} in part, {open} open, {not_here} not here");
}
