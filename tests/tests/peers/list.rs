//! The list of the bugs, `tests/peers-bugs.md`, against the tests: it can't name what is not there, nor leave anything out.

use std::collections::BTreeSet;
use std::path::Path;

fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect(file)
}

/// The names of the tests of a target.
fn tests(target: &str) -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(target);
    let files = std::fs::read_dir(folder).expect(target).map(|entry| entry.expect(target).path());
    let mut names = BTreeSet::new();
    for file in files.filter(|file| !file.ends_with("list.rs")) {
        let text = std::fs::read_to_string(&file).expect(target);
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if !line.starts_with("#[test]") && !line.starts_with("#[tokio::test") {
                continue;
            }
            let name = lines.next().and_then(|line| line.split_once("fn ")?.1.split_once('('));
            names.insert(name.expect("a function follows").0.to_owned());
        }
    }
    assert!(names.len() > 20, "{target}: {names:?}");
    names
}

/// The cells of each row of the tables under a heading.
fn rows(text: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, section) = text.split_once(heading).expect(heading);
    let section = section.split("\n## ").next().unwrap_or(section);
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    // Without the headings, and the line below them.
    rows.skip(2).map(|row| row.split(" | ").map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// What is in `backticks`.
fn quoted(cell: &str) -> impl Iterator<Item = String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned)
}

#[test]
fn the_list_names_each_bug_each_test_and_each_version_as_it_is() {
    let list = read("peers-bugs.md");
    let (bugs, rules) = (rows(&list, "## The bugs"), rows(&list, "## What they come down to"));
    let numbers: Vec<_> = bugs.iter().map(|row| row[0].parse::<u32>().expect("a number")).collect();
    assert_eq!(numbers, (1..=27).collect::<Vec<_>>());
    assert!(bugs.iter().all(|row| row.len() == 5) && rules.iter().all(|row| row.len() == 2), "no cell is missing");

    let (ours, theirs) = (tests("peers"), tests("peers_fail"));
    let named: Vec<Vec<_>> = bugs.iter().map(|row| quoted(&row[3]).collect()).collect();
    let named = named.into_iter().chain(rules.iter().map(|row| quoted(&row[1]).collect()));
    let mut left_out = ours.clone();
    for (row, names) in named.enumerate() {
        assert!(!names.is_empty(), "row {row} has no test");
        for name in names {
            assert!(ours.contains(&name), "row {row}: there is no test `{name}` in `peers`");
            left_out.remove(&name);
        }
    }
    assert!(left_out.is_empty(), "tests in `peers` that the list leaves out: {left_out:#?}");

    let lock = read("../Cargo.lock");
    let mut left_out = theirs.clone();
    for row in &bugs {
        let (number, crates, shown) = (&row[0], &row[1], quoted(&row[4]).collect::<Vec<_>>());
        assert!(
            !shown.is_empty() || row[4].strip_prefix("no: ").is_some_and(|why| why.len() > 9),
            "{number}: why not?"
        );
        for name in &shown {
            assert!(theirs.contains(name), "{number}: there is no test `{name}` in `peers_fail`");
            left_out.remove(name);
        }
        let mut run = 0;
        for named in crates.split(", ") {
            let (name, version) = named.split_once(' ').expect("a name and a version");
            let entry = format!("name = \"{name}\"\nversion = \"");
            if let Some((_, locked)) = lock.split_once(&entry) {
                assert_eq!(locked.split('"').next(), Some(version), "{number}: {name} is run in another version");
                run += 1;
            }
        }
        assert!(shown.is_empty() || run > 0, "{number}: shown, but on what?");
    }
    assert!(left_out.is_empty(), "tests in `peers_fail` that the list leaves out: {left_out:#?}");
}
