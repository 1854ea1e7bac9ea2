//! An outage, lived through twice at once.
//!
//! A real HTTP upstream, in a process of its own, becomes slow, answers 503, resets connections, refuses them, falls mute
//! and recovers. The same load is put on it by a plain HTTP client and by the same client behind failsoft. The terminal
//! shows both timelines as they happen; a table and a picture (`target/outage.html`) sum them up.
//!
//! All traffic stays on the loopback interface.
//!
//! ```text
//! cargo run --release -p failsoft-examples --bin outage
//! ```

mod args;
mod bands;
mod chart;
mod child;
mod client;
mod copies;
mod load;
mod naked;
mod news;
mod protected;
mod record;
mod report;
mod run;
mod script;
mod side;
mod summary;
mod svg;
mod upstream;
mod view;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use tokio::runtime::{Builder, Runtime};

use crate::args::{Args, Role};
use crate::run::Story;
use crate::script::Pace;
use crate::summary::Summary;
use crate::view::View;

/// What a shell expects of a program that was ended by Ctrl-C.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.role {
        Some(Role::Upstream { duration, seed }) => be_upstream(duration, seed),
        None => compare(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("outage: {error:#}");
        ExitCode::FAILURE
    })
}

fn be_upstream(duration: f64, seed: u64) -> Result<ExitCode> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(upstream::run(Pace::whole_script_in(duration), seed));
    // Reading standard input holds a thread that nobody needs to wait for.
    runtime.shutdown_background();
    result.context("the upstream failed")?;
    Ok(ExitCode::SUCCESS)
}

fn compare(args: &Args) -> Result<ExitCode> {
    let file = args.report.display();
    report::prepare(&args.report).with_context(|| format!("can't write the report to {file}"))?;
    view::print_line(&args.to_repeat())?;
    let story = {
        let mut view = View::fitting();
        Runtime::new()?.block_on(run::run(args, &mut view))?
    };
    sum_up(args, &story)?;
    view::print_line(&format!("\nThe picture: {file}"))?;
    Ok(if story.interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

fn sum_up(args: &Args, story: &Story) -> Result<()> {
    let summaries = story.sides.each_ref().map(|side| Summary::of(story, side));
    let rows = summary::table(&summaries);
    view::print_table(&rows, &summary::NOTES)?;
    report::write(&args.report, args, story, &summaries, &rows)
        .with_context(|| format!("can't write the report to {}", args.report.display()))
}
