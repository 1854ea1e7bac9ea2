//! Runs scenarios of other systems' tests against failsoft, and says which passed. See `--help`.

use core::fmt::Write as _;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;

use failsoft_conformance::checks::Checks;
use failsoft_conformance::encode::{self, Json};
use failsoft_conformance::tape::Tape;
use failsoft_conformance::vector::Vector;
use failsoft_conformance::{ALL, Totals, Verdict, judge, report, write_verdict};

const HELP: &str = "\
Run scenarios of other systems' tests against failsoft.

usage: conformance [--verbose | --plain | --tape OUT] FILE.jsonl

  FILE.jsonl   a vector a line; tests/vectors/README.md says what one may hold
  --verbose    list all vectors, not only those that did not pass
  --plain      only a line a vector and the totals: what a chip writes, to the byte
  --tape OUT   run nothing: write the vectors in the form that a chip reads
  -h, --help   this text

A vector has passed, failed, or is skipped: failsoft differs there on purpose, and the
reason is given. A line that is no vector counts as failed; the others run all the same.

exit status   0 none failed; 1 some did; 2 bad argument, or a file that can't be read or
              has a line that is no vector
";

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("conformance: {message}");
            ExitCode::from(2)
        }
    }
}

#[derive(Default)]
struct Arguments {
    file: Option<String>,
    tape: Option<String>,
    verbose: bool,
    plain: bool,
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let mut arguments = Arguments::default();
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "-h" | "--help" => return Ok(None),
            "--verbose" => arguments.verbose = true,
            "--plain" => arguments.plain = true,
            "--tape" => arguments.tape = Some(given.next().ok_or("--tape needs a file; see --help")?),
            _ if argument.starts_with('-') || arguments.file.is_some() => {
                return Err(format!("unknown argument '{argument}'; see --help"));
            }
            _ => arguments.file = Some(argument),
        }
    }
    Ok(Some(arguments))
}

fn run(given: impl Iterator<Item = String>) -> Result<ExitCode, String> {
    let Some(arguments) = arguments(given)? else {
        print(HELP)?;
        return Ok(ExitCode::SUCCESS);
    };
    let file = arguments.file.ok_or("no file given; see --help")?;
    let text = std::fs::read_to_string(&file).map_err(|error| format!("can't read {file}: {error}"))?;
    let (vectors, malformed) = read(&file, &text);
    let tape = encode::tape(&vectors);
    if let Some(out) = arguments.tape {
        if !malformed.is_empty() {
            return Err(malformed.join("\nconformance: "));
        }
        std::fs::write(&out, tape).map_err(|error| format!("can't write {out}: {error}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let tape = Tape::open(&tape).map_err(|error| format!("{file}: {error}"))?;
    let mut out = String::new();
    let totals = if arguments.plain {
        report(ALL, tape, &mut out).map_err(|error| error.to_string())?
    } else {
        show(tape, &malformed, arguments.verbose, &mut out).map_err(|error| error.to_string())?
    };
    print(&out)?;
    Ok(match (malformed.is_empty(), totals.failed) {
        (false, _) => ExitCode::from(2),
        (true, 0) => ExitCode::SUCCESS,
        (true, _) => ExitCode::from(1),
    })
}

/// The vectors of a file, and what is wrong with the lines that are none.
fn read(file: &str, text: &str) -> (Vec<Json>, Vec<String>) {
    let (mut vectors, mut malformed) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        match encode::vector(line) {
            Ok(vector) => vectors.push(vector),
            Err(error) => malformed.push(format!("{file}, line {number}: {error}")),
        }
    }
    (vectors, malformed)
}

/// Runs all: what did not pass, a row a pattern, and the totals last.
fn show(tape: Tape<'_>, malformed: &[String], verbose: bool, out: &mut String) -> Result<Totals, core::fmt::Error> {
    let mut patterns = BTreeMap::<&str, Totals>::new();
    let mut skipped = BTreeMap::<&str, Vec<&str>>::new();
    let (mut totals, mut checks) = (Totals::default(), Checks::new());
    for value in tape.values().iter() {
        let vector = Vector::of(value);
        let verdict = judge(ALL, &vector, &mut checks);
        totals.add(verdict);
        patterns.entry(vector.pattern).or_default().add(verdict);
        match verdict {
            _ if verbose => write_verdict(&vector, verdict, &checks, out)?,
            Verdict::Failed => write_verdict(&vector, verdict, &checks, out)?,
            Verdict::Skipped(reason) => skipped.entry(reason).or_default().push(vector.id),
            Verdict::Passed => {}
        }
    }
    for line in malformed {
        writeln!(out, "FAILED   {line}")?;
        totals.failed += 1;
    }
    for (reason, ids) in skipped {
        writeln!(out, "skipped  {}: {reason}", ids.join(", "))?;
    }
    writeln!(out, "\n{:<24} {:>7} {:>7} {:>7}", "pattern", "passed", "failed", "skipped")?;
    for (pattern, Totals { passed, failed, skipped }) in patterns {
        writeln!(out, "{pattern:<24} {passed:>7} {failed:>7} {skipped:>7}")?;
    }
    writeln!(out, "\n{totals}")?;
    Ok(totals)
}

/// To standard output; a reader that has seen enough is no error.
fn print(text: &str) -> Result<(), String> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(format!("can't write: {error}")),
        _ => Ok(()),
    }
}
