//! Runs scenarios of other systems' tests against failsoft, and says which passed. See `--help`.

use core::fmt::Write as _;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use failsoft_conformance::checks::Checks;
use failsoft_conformance::encode::{self, Json};
use failsoft_conformance::tape::Tape;
use failsoft_conformance::vector::Vector;
use failsoft_conformance::{ALL, Part, Totals, Verdict, judge, report, write_verdict};

const HELP: &str = "\
Run scenarios of other systems' tests against failsoft.

usage: conformance [--verbose | --plain | --tape OUT] [--part NAME] FILE.jsonl…

  FILE.jsonl   a vector a line; tests/vectors/README.md says what one may hold;
               several are taken as one
  --verbose    list all vectors, not only those that did not pass
  --plain      only a line a vector and the totals: what a chip writes, to the byte
  --tape OUT   run nothing: write the vectors in the form that a chip reads
  --part NAME  only the vectors that one image on a chip runs: breakers or limits
  -h, --help   this text

A vector has passed, failed, or is skipped: failsoft differs there on purpose, and the
reason is given. A line that is no vector counts as failed; the others run all the same.

exit status   0 none failed; 1 some did; 2 bad argument, or a file that can't be read or
              has a line that is no vector
";

fn main() -> ExitCode {
    match run(std::env::args_os().skip(1)) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("conformance: {message}");
            ExitCode::from(2)
        }
    }
}

#[derive(Default)]
struct Arguments {
    files: Vec<PathBuf>,
    tape: Option<PathBuf>,
    part: Option<&'static Part>,
    verbose: bool,
    plain: bool,
}

fn arguments(mut given: impl Iterator<Item = OsString>) -> Result<Option<Arguments>, String> {
    let mut arguments = Arguments::default();
    while let Some(argument) = given.next() {
        match argument.to_string_lossy().as_ref() {
            "-h" | "--help" => return Ok(None),
            "--verbose" => arguments.verbose = true,
            "--plain" => arguments.plain = true,
            "--tape" => arguments.tape = Some(given.next().ok_or("--tape needs a file; see --help")?.into()),
            "--part" => {
                let name = given.next().ok_or("--part needs a name; see --help")?;
                let part = ALL.iter().find(|part| name == part.name);
                arguments.part = Some(part.ok_or_else(|| format!("no part '{}'; see --help", name.display()))?);
            }
            other if other.starts_with('-') => return Err(format!("unknown argument '{other}'; see --help")),
            _ => arguments.files.push(argument.into()),
        }
    }
    if arguments.files.is_empty() {
        return Err("no file given; see --help".to_owned());
    }
    Ok(Some(arguments))
}

fn run(given: impl Iterator<Item = OsString>) -> Result<ExitCode, String> {
    let Some(arguments) = arguments(given)? else {
        print(HELP)?;
        return Ok(ExitCode::SUCCESS);
    };
    let (mut vectors, mut malformed) = (Vec::new(), Vec::new());
    for file in &arguments.files {
        let bytes = std::fs::read(file).map_err(|error| format!("can't read {}: {error}", file.display()))?;
        read(file, &bytes, &mut vectors, &mut malformed);
    }
    let part = |vector: &&Json| arguments.part.is_none_or(|part| part.has(vector.pattern()));
    let tape = encode::tape(vectors.iter().filter(part));
    if let Some(out) = arguments.tape {
        if !malformed.is_empty() {
            return Err(malformed.join("\nconformance: "));
        }
        std::fs::write(&out, tape).map_err(|error| format!("can't write {}: {error}", out.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let tape = Tape::open(&tape).map_err(|error| format!("the vectors make no tape: {error}"))?;
    let mut out = String::new();
    let totals = if arguments.plain {
        // Only what a chip says goes where that is compared.
        for line in &malformed {
            eprintln!("conformance: {line}");
        }
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
fn read(file: &Path, bytes: &[u8], vectors: &mut Vec<Json>, malformed: &mut Vec<String>) {
    // Some editors begin a file with a mark that says that it is UTF-8.
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let vector = match core::str::from_utf8(line) {
            Ok(line) if line.trim().is_empty() => continue,
            Ok(line) => encode::vector(line).map_err(|error| error.to_string()),
            Err(_) => Err("not UTF-8".to_owned()),
        };
        match vector {
            Ok(vector) => vectors.push(vector),
            Err(error) => malformed.push(format!("{}, line {number}: {error}", file.display())),
        }
    }
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
