//! failsoft beside its peers: the same work, measured in one run, as one table with ratios.
//!
//! ```sh
//! cargo bench -p failsoft-measure --bench peers              # all, in two and a half minutes; also in target/peers.md
//! cargo bench -p failsoft-measure --bench peers -- --quick   # rough figures, in a minute
//! cargo bench -p failsoft-measure --bench peers -- --test    # whether all subjects do their work, in seconds: no figures
//! cargo bench -p failsoft-measure --bench peers -- breaker   # what has that in its name: a kind of work, a crate, "2 threads"
//! cargo bench -p failsoft-measure --bench peers -- --help    # criterion's options: how long to measure, baselines, ...
//! ```
//!
//! Each subject is proven to do its work before it is measured, and once more after it: calls are let through or rejected as they should be,
//! or the run ends with status 1. Figures are criterion's medians, per call: of one thread those of its fastest batches of calls, of two what the
//! slower one takes in the batches in which both were at work.
//! The ratio beside a figure (×) is against failsoft's in the same column and with the same kind of rule. The machine may be shared: figures
//! are for comparison within a run. Allocations are counted all the time, which those who allocate pay a little for.

mod breaker;
mod bulkhead;
mod delay;
mod floor;
mod harness;
mod limiter;
mod memory;
mod pipeline;
mod service;
mod table;

use core::time::Duration;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use criterion::Criterion;

use harness::Bench;
use table::Section;

/// The versions that are measured.
const LOCK: &str = include_str!("../../../../Cargo.lock");
const MEASURED: [&str; 18] = [
    "backon",
    "execution-policy",
    "failsafe",
    "failsoft-tokio",
    "governor",
    "recloser",
    "reliakit-backoff",
    "reliakit-bulkhead",
    "reliakit-circuit",
    "reliakit-ratelimit",
    "seatbelt",
    "tokio",
    "tower",
    "tower-resilience-bulkhead",
    "tower-resilience-circuitbreaker",
    "tower-resilience-ratelimiter",
    "tower-resilience-retry",
    "tower-resilience-timelimiter",
];

fn main() -> ExitCode {
    let Some(target) = target() else {
        eprintln!("peers: this program is not in a target folder, where its figures would go");
        return ExitCode::FAILURE;
    };
    let criterion = Criterion::default()
        .without_plots()
        .sample_size(11)
        .nresamples(2_000)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
        .configure_from_args();
    let mut bench = Bench::new(criterion, &target.join("criterion"));
    floor::measure(&mut bench);
    breaker::measure(&mut bench);
    delay::measure(&mut bench);
    limiter::measure(&mut bench);
    bulkhead::measure(&mut bench);
    pipeline::measure(&mut bench);

    let (sections, without) = bench.results();
    if sections.is_empty() {
        println!("peers: {} subjects ran, none was measured", without.len());
        let fine = !without.is_empty() || std::env::args().any(|argument| argument == "--list");
        return if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let report = report(&sections);
    println!("{report}");
    let file = target.join("peers.md");
    if let Err(error) = std::fs::write(&file, report) {
        eprintln!("peers: {}: {error}", file.display());
        return ExitCode::FAILURE;
    }
    println!("peers: this is in {}, too", file.display());
    for who in &without {
        eprintln!("peers: NO FIGURE for {who}");
    }
    if without.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Cargo's target folder: this program is in `target/release/deps`.
fn target() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    program.ancestors().nth(3).map(Path::to_owned)
}

fn report(sections: &[Section]) -> String {
    let none = Section::new(floor::TITLE, floor::LOAD);
    let floors = sections.iter().find(|section| section.title() == floor::TITLE).unwrap_or(&none);
    let mut parts = vec![format!("# failsoft beside its peers\n\n{}\n", versions())];
    parts.extend(sections.iter().map(|section| section.markdown(floors)));
    parts.push(table::memory(sections));
    parts.join("\n")
}

/// What was measured, as the lock file has it.
fn versions() -> String {
    let lines: Vec<&str> = LOCK.lines().collect();
    let value = |line: &str, key: &str| Some(line.strip_prefix(key)?.trim_matches([' ', '=', '"']).to_owned());
    let named: BTreeMap<String, String> =
        lines.windows(2).filter_map(|pair| Some((value(pair[0], "name")?, value(pair[1], "version")?))).collect();
    let versions: Vec<String> =
        MEASURED.iter().filter_map(|name| Some(format!("{name} {}", named.get(*name)?))).collect();
    format!("Measured: {}.", versions.join(", "))
}
