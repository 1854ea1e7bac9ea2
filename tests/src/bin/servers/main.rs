//! Real servers that are killed, stopped, mute and slow, and failsoft in front of them. See `--help`.

mod guard;
mod http;
mod lab;
mod limited;
mod load;
mod nginx;
mod outage;
mod pool;
mod postgres;
mod proxy;
mod redis;
mod scenarios;
mod server;
mod table;
mod unavailable;
mod verdict;

use core::error::Error;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

use lab::Lab;
use scenarios::{ALL, Scenario};
use server::Programs;
use table::{Criterion, table};

const HELP: &str = "\
Put failsoft between a client and real servers (Redis, nginx, PostgreSQL) that are killed, stopped, mute, slow, and back again.

usage: servers [--seed N] [SCENARIO...]

  --seed N     where the random numbers start; default: 42. The same seed makes the same calls.
  --list       the scenarios, and what happens in each
  -h, --help   this text

Each scenario puts calls at a fixed rate on a server of its own, within all policies, and the same calls on another one without any, as
a control. What is counted by the client and by the server is compared with limits, in one table; what the control does without policies
must be bad, or the scenario would prove nothing. Without names, all scenarios run. Servers get free ports of the loopback interface, and
their files, with what they say, are in target/servers, PostgreSQL's data in the folder for temporary
files. `tests/setup-servers` installs the programs.

exit status   0 all passed; 1 a criterion failed, or a scenario could not be run; 2 bad argument; 3 something is missing; 130 interrupted
";

/// Scenarios at a time: they mostly wait.
const AT_ONCE: usize = 3;
/// What a shell expects of a program that was ended by Ctrl-C.
const INTERRUPTED: u8 = 130;

/// A result whose error is for reading.
pub(crate) type Result<T> = core::result::Result<T, Box<dyn Error + Send + Sync>>;

enum Wanted {
    Help,
    List,
    Run { seed: u64, scenarios: Vec<Scenario> },
}

fn arguments(mut given: impl Iterator<Item = String>) -> core::result::Result<Wanted, String> {
    let (mut seed, mut scenarios) = (42, Vec::new());
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "-h" | "--help" => return Ok(Wanted::Help),
            "--list" => return Ok(Wanted::List),
            "--seed" => {
                let number = given.next().and_then(|number| number.parse().ok());
                seed = number.ok_or("--seed needs a number; see --help")?;
            }
            name => {
                let scenario = ALL.into_iter().find(|scenario| scenario.name == name);
                scenarios.push(scenario.ok_or_else(|| format!("unknown argument '{name}'; see --help and --list"))?);
            }
        }
    }
    Ok(Wanted::Run { seed, scenarios: if scenarios.is_empty() { ALL.into() } else { scenarios } })
}

fn main() -> ExitCode {
    let (seed, scenarios) = match arguments(std::env::args().skip(1)) {
        Ok(Wanted::Run { seed, scenarios }) => (seed, scenarios),
        Ok(Wanted::Help) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(Wanted::List) => {
            ALL.iter().for_each(|Scenario { name, about, .. }| println!("{name:<12}{about}"));
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("servers: {message}");
            return ExitCode::from(2);
        }
    };
    let programs = match Programs::find() {
        Ok(programs) => programs,
        Err(missing) => {
            eprintln!("servers: missing: {missing}. tests/setup-servers installs them, or says how");
            return ExitCode::from(3);
        }
    };
    let stop = interrupts();
    let lab = files().map(|folder| Lab { programs, folder, seed, stop: stop.clone() });
    let (criteria, failed) = match lab {
        Ok(lab) => run(&lab, &scenarios),
        Err(why) => (Vec::new(), vec![why.to_string()]),
    };
    if *stop.borrow() {
        return ExitCode::from(INTERRUPTED);
    }
    print!("{}", table(&criteria));
    failed.iter().for_each(|why| eprintln!("servers: FAILED with seed {seed}: {why}"));
    let passed = criteria.iter().filter(|(_, criterion)| criterion.passed()).count();
    println!("servers: {passed} of {} criteria passed in {} scenarios, seed {seed}", criteria.len(), scenarios.len());
    if failed.is_empty() && passed == criteria.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The folder beside the one where this program is: in `target`.
fn files() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    Ok(program.ancestors().nth(2).ok_or("a program in no folder")?.join("servers"))
}

/// Becomes true when somebody wants us to end. Servers have process groups of their own: it is for us to end them.
fn interrupts() -> watch::Receiver<bool> {
    let (stop, stopped) = watch::channel(false);
    thread::spawn(move || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
            let [mut interrupt, mut terminate, mut hangup] = kinds.map(signal);
            let (Ok(interrupt), Ok(terminate), Ok(hangup)) = (&mut interrupt, &mut terminate, &mut hangup) else {
                return core::future::pending().await;
            };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        stop.send_replace(true);
        // As long as there is a sender, nobody takes its absence for a wish.
        loop {
            thread::park();
        }
    });
    stopped
}

type Outcome = (Vec<(&'static str, Criterion)>, Vec<String>);

/// All of them, some at a time: their criteria, and why those that could not be run could not.
fn run(lab: &Lab, scenarios: &[Scenario]) -> Outcome {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while !*lab.stop.borrow() {
            let place = next.fetch_add(1, Relaxed);
            let Some(scenario) = scenarios.get(place) else { break };
            // What panics is caught, so that the others are still told of.
            let ran = thread::scope(|scope| scope.spawn(|| one(lab, scenario)).join());
            done.push((place, ran.unwrap_or_else(|_| Err("it panicked".into()))));
        }
        done
    };
    let mut done: Vec<_> = thread::scope(|scope| {
        let workers = [(); AT_ONCE].map(|()| scope.spawn(work));
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    done.sort_by_key(|(place, _)| *place);
    let mut outcome = Outcome::default();
    for (place, ran) in done {
        let name = scenarios[place].name;
        match ran {
            Ok(criteria) => outcome.0.extend(criteria.into_iter().map(|criterion| (name, criterion))),
            Err(why) => outcome.1.push(format!("{name}: {why}")),
        }
    }
    outcome
}

fn one(lab: &Lab, scenario: &Scenario) -> Result<Vec<Criterion>> {
    let Scenario { name, about, run } = scenario;
    eprintln!("servers: {name}: {about}");
    let begun = Instant::now();
    let criteria = run(lab)?;
    let passed = criteria.iter().filter(|criterion| criterion.passed()).count();
    let seconds = begun.elapsed().as_secs_f64();
    eprintln!("servers: {name}: {passed} of {} criteria passed, in {seconds:.1} s", criteria.len());
    Ok(criteria)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> core::result::Result<Wanted, String> {
        arguments(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn scenarios_are_chosen_by_name_and_all_of_them_without_any() {
        let chosen = |line| match asked(line) {
            Ok(Wanted::Run { seed, scenarios }) => (seed, scenarios.iter().map(|scenario| scenario.name).collect()),
            _ => (0, Vec::new()),
        };
        assert_eq!(chosen("killed --seed 7 stopped"), (7, vec!["killed", "stopped"]));
        assert_eq!(chosen("").1.len(), ALL.len());
        assert!(matches!((asked("--help"), asked("--list")), (Ok(Wanted::Help), Ok(Wanted::List))));
        for bad in ["nonsense", "--seed", "--seed x", "--all"] {
            assert!(asked(bad).is_err(), "{bad}");
        }
    }
}
