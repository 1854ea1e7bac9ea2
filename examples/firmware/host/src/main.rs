//! Runs an image in QEMU, prints its log or its text, and ends with its exit code. With `--sensor` it also plays the flaky
//! sensor at the other end of the image's UART, with `--server` the flaky server in the image's network.

mod emulator;
mod log;
mod script;
mod sensor;
mod server;

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;
use std::{fs, thread};

use anyhow::Context;
use clap::Parser;
use defmt_decoder::Table;
use emulator::{Chip, Emulator, Link, Verdict};
use server::{Server, Summary};

/// Run an image in QEMU, print its log or its text, and end with its exit code.
#[derive(Debug, Parser)]
#[command(
    after_help = "Exit status: the image's own; 2 for a bad argument, 123 where the server's books don't agree with it, \
                  124 for a run over its limit, 125 when the emulator failed."
)]
struct Args {
    /// The chip it was built for.
    #[arg(long)]
    chip: Chip,
    /// Play the flaky sensor on the image's UART, in real time. Without it, time is virtual: a run repeats to the byte.
    #[arg(long)]
    sensor: bool,
    /// Play the flaky server in the image's network, in real time.
    #[arg(long, conflicts_with = "sensor")]
    server: bool,
    /// The image writes text and no log: pass it on as it is.
    #[arg(long)]
    text: bool,
    /// An instruction takes 2^SHIFT ns of virtual time.
    #[arg(long, default_value_t = 5, conflicts_with_all = ["sensor", "server"])]
    shift: u8,
    /// The sensor's or the server's faults, and the image's random numbers.
    #[arg(long, default_value_t = 1)]
    seed: u32,
    /// One more argument for the image.
    #[arg(long = "argument", value_name = "NAME=NUMBER", value_parser = image_argument)]
    arguments: Vec<String>,
    /// The longest run, in seconds of real time.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    limit: u64,
    /// The image, an ELF file; with defmt's messages unless it writes text.
    #[arg(value_parser = existing_file)]
    image: PathBuf,
}

fn existing_file(path: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(path);
    if path.is_file() { Ok(path) } else { Err("no such file".into()) }
}

/// Nothing that QEMU would read as an option of its own.
fn image_argument(argument: &str) -> Result<String, String> {
    match argument.split_once('=') {
        Some((name, number)) if name.bytes().all(|byte| byte.is_ascii_lowercase()) && number.parse::<u32>().is_ok() => {
            Ok(argument.into())
        }
        _ => Err("no name in small letters, = and a number of 32 bits".into()),
    }
}

const SERVER_DISAGREES: u8 = 123;
/// As `timeout(1)` has it.
const LIMIT_REACHED: u8 = 124;
const EMULATOR_FAILED: u8 = 125;

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(Verdict::Exited(code)) => code.into(),
        Ok(Verdict::LimitReached) => {
            eprintln!("error: no end after {} s", args.limit);
            LIMIT_REACHED.into()
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            EMULATOR_FAILED.into()
        }
    }
}

fn run(args: &Args) -> anyhow::Result<Verdict> {
    let table = if args.text { None } else { Some(messages(&args.image)?) };

    let folder = tempfile::tempdir().context("a folder for the UART's socket")?;
    let socket = folder.path().join("uart");
    let (report, summary) = mpsc::channel();
    let server = args.server.then(|| Server::start(args.seed.into())).transpose()?;
    let link = if args.sensor {
        let listener = UnixListener::bind(&socket).context("the UART's socket")?;
        let seed = args.seed.into();
        thread::spawn(move || report.send(sensor::play(&listener, seed)));
        Link::Socket(&socket)
    } else {
        drop(report);
        match &server {
            Some(server) => Link::Network { port: server.port() },
            None => Link::None { shift: args.shift },
        }
    };

    let mut emulator = Emulator::start(args.chip, &args.image, args.seed, &args.arguments, link)?;
    let verdict = thread::scope(|scope| {
        let output = emulator.take_output();
        let printer = scope.spawn(|| match &table {
            Some(table) => log::print(table, output),
            None => log::copy(output),
        });
        let verdict = emulator.wait(Duration::from_secs(args.limit));
        // The output ends with the emulator.
        match printer.join() {
            Ok(Ok(())) => verdict,
            Ok(Err(error)) => Err(error),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;

    // The sensor ends with the emulator too, unless nobody ever connected to it.
    if let Ok(summary) = summary.recv_timeout(Duration::from_secs(1)) {
        println!("{}", summary?);
    }
    match server {
        Some(server) => Ok(judge(&server.end()?, verdict)),
        None => Ok(verdict),
    }
}

/// The verdict, once the server has been asked too.
fn judge(summary: &Summary, verdict: Verdict) -> Verdict {
    println!("{summary}");
    let complaints = summary.complaints();
    for complaint in &complaints {
        eprintln!("error: server: {complaint}");
    }
    match verdict {
        Verdict::Exited(0) if !complaints.is_empty() => Verdict::Exited(SERVER_DISAGREES),
        verdict => verdict,
    }
}

/// What the image's log is decoded by.
fn messages(image: &Path) -> anyhow::Result<Table> {
    let elf = fs::read(image).with_context(|| format!("reading {}", image.display()))?;
    Table::parse(&elf)?.context("the image has no defmt messages: link it with -Tdefmt.x")
}
