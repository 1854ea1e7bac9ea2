//! How the cost of a call grows: with the instances, the window, the tasks at one instance and the waiters in a queue; and what a coarse
//! clock buys. Everything is measured in this run; the page has the plots, and what they say is computed from them.
//!
//! `cargo bench -p failsoft-measure --bench growth -- --help`

mod chart;
mod clock;
mod instances;
mod page;
mod plot;
mod queue;
mod tasks;
mod windows;

// The writer of the outage's report. Not all that it can draw is drawn here.
#[path = "../../../../examples/src/bin/outage/svg.rs"]
#[allow(dead_code, unused_imports, reason = "it serves two programs")]
mod svg;

use std::path::PathBuf;
use std::process::ExitCode;

use failsoft_measure::measure::{batch, fastest};

use crate::plot::Section;

const HELP: &str = "Usage: cargo bench -p failsoft-measure --bench growth -- [--quick] [--page FILE]

Measures how the cost of a call grows with the number of instances (1 to 1,000,000), the size of the
window (10 to 10,000), the tasks at one instance (1 to 16) and the waiters in a queue (1 to 10,000),
and what a coarse clock buys. Prints the figures, and draws a page of plots with their reading.

  --quick       fewer and shorter batches: shows that it runs, and measures badly
  --page FILE   where the page goes, instead of target/growth.html
  --help        this text

exit status: 0 measured and drawn; 1 something could not be measured or written; 2 bad argument";

/// How long is measured.
#[derive(Clone, Copy)]
struct Effort {
    /// Batches of which the fastest counts.
    batches: u32,
    /// What a batch takes at least.
    seconds: f64,
}

impl Effort {
    const FULL: Self = Self { batches: 100, seconds: 0.8e-3 };
    const QUICK: Self = Self { batches: 5, seconds: 0.2e-3 };

    /// Nanoseconds per call of `work`, in the fastest batch.
    fn nanos<R>(self, mut work: impl FnMut(u32) -> R) -> f64 {
        let calls = self.calls(|calls| batch(calls, &mut work));
        fastest(self.batches, calls, work)
    }

    /// How many calls make a batch long enough, given what so many take.
    fn calls(self, mut seconds: impl FnMut(u32) -> f64) -> u32 {
        let mut calls = 32;
        // The better of two: the first may have been held up, or have started something.
        while calls < 1 << 24 && seconds(calls).min(seconds(calls)) < self.seconds {
            calls *= 2;
        }
        calls
    }
}

struct Arguments {
    effort: Effort,
    page: PathBuf,
}

/// What the arguments ask for: `None` is the help.
fn parsed(mut arguments: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/growth.html");
    let mut parsed = Arguments { effort: Effort::FULL, page: page.into() };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // Cargo says so to every benchmark.
            "--bench" => {}
            "--quick" => parsed.effort = Effort::QUICK,
            "--page" => parsed.page = arguments.next().ok_or("--page needs a file")?.into(),
            "--help" | "-h" => return Ok(None),
            _ => return Err(format!("don't understand {argument:?}")),
        }
    }
    Ok(Some(parsed))
}

fn main() -> ExitCode {
    let arguments = match parsed(std::env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("growth: {problem}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("growth: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let Arguments { effort, page } = arguments;
    let unwritable = |error: std::io::Error| format!("{}: {error}", page.display());
    // Found out before all that is measured for it; an earlier page stays until there is a new one.
    std::fs::OpenOptions::new().append(true).create(true).open(page).map_err(unwritable)?;
    let machine = page::machine();
    println!("{machine}\n");
    let warning = page::busy();
    if let Some(warning) = &warning {
        println!("{warning}\n");
    }
    let parts: [fn(Effort) -> Result<Section, String>; 5] =
        [instances::measure, windows::measure, tasks::measure, queue::measure, clock::measure];
    let mut sections = Vec::new();
    for part in parts {
        let section = part(*effort)?;
        println!("{section}");
        sections.push(section);
    }
    let text = page::page(&machine, warning.as_deref(), effort.batches < Effort::FULL.batches, &sections);
    std::fs::write(page, text).map_err(unwritable)?;
    let place = page.canonicalize().unwrap_or_else(|_| page.clone());
    println!("growth: the page is {}", place.display());
    Ok(())
}
