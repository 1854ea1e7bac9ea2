//! Replays the committed corpus, and every input that once was a finding.

use std::fs;
use std::path::{Path, PathBuf};

use failsoft_fuzz::TARGETS;

/// The inputs of a target in a folder beside the manifest.
fn inputs(folder: &str, target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(target);
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_input_keeps_the_promises() {
    for (target, run) in TARGETS {
        let corpus = inputs("corpus", target);
        assert!(!corpus.is_empty(), "{target} has no corpus");
        for path in corpus.into_iter().chain(inputs("findings", target)) {
            // Shown when it fails.
            println!("{}", path.display());
            run(&fs::read(&path).expect("a readable input"));
        }
    }
}

#[test]
fn there_is_a_target_of_each_module_and_it_is_in_the_manifest() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).expect("the manifest");
    for (target, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{target}\"")), "{target} is not in the manifest");
    }
}

#[test]
fn an_empty_input_and_a_monotonous_one_come_to_an_end() {
    for (_, run) in TARGETS {
        run(&[]);
        for byte in 0..=u8::MAX {
            run(&[byte; 257]);
        }
    }
}
