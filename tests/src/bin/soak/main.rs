//! Thousands of tasks through every policy at once, cancelled and panicking at random, for a bounded time. See `--help`.

mod log;
mod storm;

use core::fmt::Write as _;
use core::time::Duration;
use std::alloc::System;
use std::process::ExitCode;

use cap::Cap;
use tokio::time::{Instant, sleep_until};

use log::Replay;
use storm::RULES;

const HELP: &str = "\
Soak failsoft: thousands of tasks through one set of policies (timeouts, retry with budget, hedge, rate limiter and bulkhead with
lines, circuit breaker, coalescing), of which many are aborted, dropped at some poll, panic, fail and hang.

usage: soak [--seconds N] [--tasks N] [--seed N]

  --seconds N   for so long; default 30, at least 10
  --tasks N     so many callers, each with a task per call; default 4000
  --seed N      where the random numbers start; default: another one each time, which is printed. The same seed makes
                the same calls; how threads interleave and when timers fire is the machine's.
  -h, --help    this text

Every two seconds all come to rest. Then every permit must be back, every line empty, every transition of the breaker explained by the
one before it and by its counts, a good call must pass, and no more than 32 KiB of heap be in use than at the third rest.

exit status   0 all was well; 1 it was not; 2 bad argument
";

/// A round of calls, with its rest.
const ROUND: Duration = Duration::from_secs(2);
/// Rounds in which what grows once has grown: queues, maps, the runtime's own.
const WARM_UP: usize = 2;
/// What the heap may grow by from the first rest after that to any later one.
const GROWTH: usize = 32 << 10;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

struct Arguments {
    seconds: u64,
    tasks: u64,
    seed: u64,
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    let mut arguments = Arguments { seconds: 30, tasks: 4_000, seed: now.subsec_nanos().into() };
    while let Some(argument) = given.next() {
        let place = match argument.as_str() {
            "-h" | "--help" => return Ok(None),
            "--seconds" => &mut arguments.seconds,
            "--tasks" => &mut arguments.tasks,
            "--seed" => &mut arguments.seed,
            other => return Err(format!("unknown argument '{other}'; see --help")),
        };
        let number = given.next().and_then(|number| number.parse().ok());
        *place = number.ok_or_else(|| format!("{argument} needs a number; see --help"))?;
    }
    if arguments.seconds < 10 || arguments.tasks == 0 {
        return Err("too few seconds or tasks; see --help".to_owned());
    }
    Ok(Some(arguments))
}

fn main() -> ExitCode {
    let arguments = match arguments(std::env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("soak: {message}");
            return ExitCode::from(2);
        }
    };
    let Arguments { seconds, tasks, seed } = arguments;
    eprintln!("soak: {tasks} callers for {seconds} s, seed {seed}");
    // More threads than a small machine has cores, so that they are stopped anywhere.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build();
    let outcome = runtime.map_err(|error| error.to_string()).and_then(|runtime| runtime.block_on(soak(&arguments)));
    match outcome {
        Ok(table) => {
            print!("{table}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("soak: FAILED with seed {seed}: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn soak(arguments: &Arguments) -> Result<String, String> {
    let Arguments { seconds, tasks, seed } = *arguments;
    let mut replay = Replay::new(RULES);
    let mut heap = Vec::with_capacity(1_024);
    for round in 0..seconds / ROUND.as_secs() {
        let start = Instant::now();
        let until = start + ROUND * 3 / 4;
        let callers = (0..tasks).map(|number| tokio::spawn(storm::caller(seed ^ round << 16, number, until)));
        let mut callers: Vec<_> = callers.collect();
        callers.push(tokio::spawn(storm::meddler(seed ^ round << 16, until)));
        for caller in callers {
            caller.await.map_err(|error| format!("a caller ended with {error}"))?;
        }
        storm::all_is_back().await?;
        storm::still_works().await?;
        replay.go_on(storm::told())?;
        sleep_until(start + ROUND).await;
        heap.push(HEAP.allocated());
        let seconds = (round + 1) * ROUND.as_secs();
        eprintln!(
            "soak: {seconds} s, {} calls, {} transitions, {} KiB of heap at rest",
            storm::calls(),
            replay.explained.all(),
            HEAP.allocated() >> 10
        );
        flat(&heap)?;
    }
    by_hand(&replay)?;
    table(&replay, &heap)
}

/// The heap at the rests after the warm-up: the first, the least and the most.
fn rests(heap: &[usize]) -> Option<(usize, usize, usize)> {
    let rests = heap.get(WARM_UP..)?;
    Some((*rests.first()?, *rests.iter().min()?, *rests.iter().max()?))
}

fn flat(heap: &[usize]) -> Result<(), String> {
    match rests(heap) {
        Some((first, _, most)) if most > first + GROWTH => Err(format!("the heap grows: {heap:?} bytes")),
        _ => Ok(()),
    }
}

fn by_hand(replay: &Replay) -> Result<(), String> {
    let (told, done) = (replay.explained, storm::isolations());
    if (told.isolated, told.reset) == (done, done) {
        return Ok(());
    }
    Err(format!("isolated by hand {done} times, told {} and {} times", told.isolated, told.reset))
}

/// All that was counted, and that nothing was never met.
fn table(replay: &Replay, heap: &[usize]) -> Result<String, String> {
    let (first, least, most) = rests(heap).ok_or("too short for a rest after the warm-up")?;
    let (counts, explained) = (storm::counts(), replay.explained.counts());
    let mut table = String::new();
    for (what, count) in counts.iter().chain(&explained) {
        let _ = writeln!(table, "{what:<36}{count:>10}");
    }
    let _ = writeln!(table, "heap at rest, {first} bytes at first: {least} to {most}");
    let _ = writeln!(table, "soak transitions: {} explained", replay.explained.all());
    let _ = writeln!(table, "soak calls: {} calls", storm::calls());
    match counts.iter().chain(&explained).find(|(_, count)| *count == 0) {
        Some((what, _)) => Err(format!("never met: {what}\n{table}")),
        None => Ok(table),
    }
}
