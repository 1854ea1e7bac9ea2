//! The guides for those who come from elsewhere, and the front page: every link leads somewhere, and every guide has its parts.

use core::time::Duration;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use failsoft_core::{Ratio, backoff, budget, chaos, circuit_breaker, hedge, retry, timeout};

/// The parts of a guide, in their order. The first is a table, and the code after shows what it does.
const PARTS: [&str; 5] =
    ["Equivalents", "Before", "After", "What is otherwise, on purpose", "What failsoft doesn't have"];
const FOLDER: &str = "examples/guides";
/// A guide is to be read in one go.
const MOST_LINES: usize = 120;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).expect(file)
}

/// The guides by their file names, without the list of them.
fn guides() -> BTreeSet<String> {
    let folder = std::fs::read_dir(root().join(FOLDER)).expect("there are guides");
    let names = folder.map(|entry| entry.expect("a file").file_name().into_string().expect("plain"));
    names.filter(|name| name != "README.md").collect()
}

/// The lines outside blocks of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        let fence = line.starts_with("```");
        code ^= fence;
        !fence && !code
    })
}

/// What stands between each `open` and the `close` that follows.
fn between<'t>(line: &'t str, open: &'static str, close: char) -> impl Iterator<Item = &'t str> {
    line.split(open).skip(1).filter_map(move |rest| Some(rest.split_once(close)?.0))
}

/// The name and the target, where the line says what a name links to.
fn definition(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix('[')?.split_once("]: ")
}

#[test]
fn every_link_of_the_guides_and_of_the_front_page_leads_somewhere() {
    let pages = guides().into_iter().map(|name| format!("{FOLDER}/{name}"));
    let pages = pages.chain([format!("{FOLDER}/README.md"), "README.md".to_owned()]);
    let (mut followed, mut dead) = (0, Vec::new());
    for page in pages {
        let text = read(&page);
        let defined: BTreeSet<_> = prose(&text).filter_map(definition).map(|(name, _)| name).collect();
        let used: BTreeSet<_> = prose(&text).flat_map(|line| between(line, "][", ']')).collect();
        assert_eq!(used, defined, "{page}: names of links, used and defined");

        let inline = prose(&text).flat_map(|line| between(line, "](", ')'));
        let targets = inline.chain(prose(&text).filter_map(definition).map(|(_, target)| target));
        for target in targets.filter(|target| !target.contains("://")) {
            followed += 1;
            if !root().join(&page).with_file_name(target).exists() {
                dead.push(format!("{page}: {target}"));
            }
        }
    }
    assert!(followed > 50, "only {followed} links were found");
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn every_guide_has_its_parts_and_is_short_listed_and_compiled() {
    let list = read(&format!("{FOLDER}/README.md"));
    let compiled = read("tests/src/lib.rs");
    let guides = guides();
    assert_eq!(guides.len(), 7, "{guides:?}");
    for name in guides {
        let text = read(&format!("{FOLDER}/{name}"));
        assert!(text.lines().count() <= MOST_LINES, "{name} is longer than {MOST_LINES} lines");
        assert!(list.contains(&format!("]({name})")), "{name} is not listed");
        assert!(compiled.contains(&format!("guides/{name}\")]")), "{name} is not compiled");

        let sections: Vec<_> = text.split("\n## ").skip(1).filter_map(|part| part.split_once('\n')).collect();
        assert_eq!(sections.iter().map(|(heading, _)| *heading).collect::<Vec<_>>(), PARTS, "{name}");
        let [table, before, after, differences, _] = [0, 1, 2, 3, 4].map(|part| sections[part].1);
        let rows: Vec<_> = table.lines().filter(|line| line.starts_with('|')).collect();
        assert!(rows.len() > 10, "{name}: {} rows", rows.len());
        let columns = |row: &str| row.replace("\\|", "").matches('|').count();
        assert!(rows.iter().all(|row| columns(row) == 5), "{name}: four columns in each row");
        assert!(before.contains("\n```"), "{name}: the code before");
        assert!(after.contains("\n```rust\n") && after.contains("assert"), "{name}: the code after shows what it does");
        assert!(differences.lines().filter(|line| line.starts_with("* ")).count() >= 4, "{name}: the differences");
    }
}

#[test]
fn the_defaults_that_the_guides_name_are_ours() {
    let seconds = Duration::from_secs;
    assert_eq!((circuit_breaker::trip::THRESHOLD, circuit_breaker::PROBES), (5, 3));
    assert_eq!((circuit_breaker::OPEN_FOR, circuit_breaker::trip::MINIMUM_CALLS), (seconds(60), 10));
    assert_eq!((retry::ATTEMPTS, timeout::LIMIT), (3, seconds(30)));
    assert_eq!((backoff::BASE, backoff::FACTOR, backoff::CAP), (seconds(1), Ratio::percent(200), seconds(60)));
    assert_eq!(backoff::JITTER, backoff::Jitter::Proportional(Ratio::percent(10)));
    assert_eq!((budget::DEPOSIT, budget::TTL, budget::MINIMUM_PER_SECOND), (Ratio::percent(20), seconds(10), 10));
    assert_eq!((hedge::WINDOW, hedge::MINIMUM), (500, 20));
    assert_eq!(chaos::RATE, Ratio::basis_points(10));
    assert_eq!(circuit_breaker::FailureRate::MAX_WINDOW, 47);
}
