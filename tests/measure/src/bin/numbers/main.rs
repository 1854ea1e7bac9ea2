//! Where failsoft stands against the numbers it wants to reach: everything measured in this run, printed in one table.
//!
//! `cargo run --release -p failsoft-measure --bin numbers`
//!
//! Times are the fastest of many batches, and comparisons are ratios within this run: the machine may be shared. A time to reach is from
//! another machine, and is scaled by what a named crate took there and takes here. Instructions are counted by callgrind, flash and
//! instructions on the chip by QEMU, and are exact.

mod budget;
mod chip;
mod host;
mod instructions;

use core::fmt::Write as _;
use std::process::ExitCode;

/// One line of the table.
struct Row {
    what: &'static str,
    /// What was measured.
    figure: String,
    /// What is to be reached, in words.
    reach: &'static str,
    /// Whether it is; `None` where the row only informs.
    reached: Option<bool>,
    /// The same work elsewhere, in the same run.
    elsewhere: String,
}

/// Stands for the figure of a row that could not be measured.
const NOT_MEASURED: &str = "NOT MEASURED";

const HELP: &str = "Usage: numbers [--host | --check | --bless]

Measures failsoft against the numbers it wants to reach and prints one table. Times to reach are those
of a machine on which the named crate takes what the table says: here they are scaled by what it takes.

  --host    leave out what needs the chips' tool chain (and say so)
  --check   only count instructions, and the chip's stack and memory, and compare them with
            tests/measure/instruction-budget: nothing may take over 2 % more
  --bless   write what they are now to tests/measure/instruction-budget
  --help    this text

exit status: 0 all measured, reached or not, and nothing above its budget; 1 something could not be
measured, or is above its budget; 2 bad argument";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => report(true),
        ["--host"] => report(false),
        ["--check"] => conclude(budget::check()),
        ["--bless"] => conclude(budget::bless()),
        ["--help" | "-h"] => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
        // The child that callgrind counts.
        ["--loop", name, count] if instructions::run_loop(name, count) => ExitCode::SUCCESS,
        _ => {
            eprintln!("numbers: don't understand {arguments:?}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn conclude(outcome: Result<String, String>) -> ExitCode {
    match outcome {
        Ok(text) => {
            println!("numbers: {text}");
            ExitCode::SUCCESS
        }
        Err(text) => {
            eprintln!("numbers: {text}");
            ExitCode::FAILURE
        }
    }
}

fn report(with_chip: bool) -> ExitCode {
    let mut rows = host::rows();
    rows.extend(instructions::rows());
    if with_chip {
        rows.extend(chip::rows());
    } else {
        eprintln!("numbers: the chip's rows are LEFT OUT (--host)");
    }
    println!("{}", table(&rows));
    let (reached, judged) = (
        rows.iter().filter(|row| row.reached == Some(true)).count(),
        rows.iter().filter(|row| row.reached.is_some()).count(),
    );
    println!("{reached} of {judged} numbers reached");
    let unmeasured = rows.iter().filter(|row| row.figure.contains(NOT_MEASURED)).count();
    if unmeasured == 0 {
        return ExitCode::SUCCESS;
    }
    eprintln!("numbers: {unmeasured} rows could not be measured; the table says why");
    ExitCode::FAILURE
}

fn table(rows: &[Row]) -> String {
    let width = |column: fn(&Row) -> &str| rows.iter().map(|row| column(row).chars().count()).max().unwrap_or(0);
    let (what, figure, reach) = (width(|row| row.what), width(|row| &row.figure), width(|row| row.reach));
    let mut text = String::new();
    for row in rows {
        let mark = match row.reached {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "",
        };
        let Row { what: name, figure: measured, reach: wanted, elsewhere, .. } = row;
        let _ = writeln!(text, "{name:what$}  {measured:figure$}  {wanted:reach$}  {mark:3}  {elsewhere}");
    }
    text
}
