//! The command line.

use core::ops::RangeInclusive;
use core::time::Duration;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::script::{NATURAL_SECONDS, Pace};

/// How long a run may take, in seconds: long enough to see anything, short enough to end within a minute.
const SECONDS: RangeInclusive<f64> = 2.0..=50.0;

/// Half of the script's mute phase.
const MUTE_BACKLOG: Duration = Duration::from_millis(1_750);

/// By default; leaves a process with 1024 files open its room.
const MOST_OUTSTANDING: u16 = 400;

/// The same load on the same failing upstream, twice at once: by a plain HTTP client, and by one behind failsoft.
#[derive(Debug, Parser)]
#[command(name = "outage", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// Requests per second on each side
    #[arg(long, value_name = "N", default_value_t = 150, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rate: u32,

    /// How long the scripted outage takes, 2 to 50 seconds; all its spans and timeouts are scaled
    #[arg(long, value_name = "SECONDS", default_value_t = NATURAL_SECONDS, value_parser = seconds)]
    pub(crate) duration: f64,

    /// Requests each side may have under way at once, any more are dropped by the caller [default: half of what arrives
    /// while the upstream is mute, at most 400]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    outstanding: Option<u16>,

    /// Decides arrivals, items and jitter; the same seed gives the same load
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub(crate) seed: u64,

    /// Where the picture goes
    #[arg(long, value_name = "FILE", default_value = "target/outage.html")]
    pub(crate) report: PathBuf,

    #[command(subcommand)]
    pub(crate) role: Option<Role>,
}

/// What this process is, when it isn't the one that the user started.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// Be the upstream; started by the program itself
    #[command(hide = true)]
    Upstream {
        #[arg(long, value_parser = seconds)]
        duration: f64,
        #[arg(long)]
        seed: u64,
    },
}

impl Args {
    /// The script's pace.
    pub(crate) fn pace(&self) -> Pace {
        Pace::whole_script_in(self.duration)
    }

    /// Requests that each side may have under way at once. Scaled like the spans, so that a short run, too, shows what a
    /// mute upstream does to a caller without a shorter timeout: all its room is taken.
    pub(crate) fn outstanding(&self) -> u16 {
        let arrivals = u128::from(self.rate) * self.pace().of(MUTE_BACKLOG).as_millis() / 1_000;
        let fitting = || u16::try_from(arrivals).unwrap_or(MOST_OUTSTANDING).clamp(1, MOST_OUTSTANDING);
        self.outstanding.unwrap_or_else(fitting)
    }

    /// The arguments that make this program the upstream of the run.
    pub(crate) fn for_upstream(&self) -> Vec<String> {
        let arguments =
            ["upstream".to_owned(), format!("--duration={}", self.duration), format!("--seed={}", self.seed)];
        arguments.into()
    }

    /// The command that repeats the run.
    pub(crate) fn to_repeat(&self) -> String {
        format!(
            "outage --rate {} --duration {} --outstanding {} --seed {}",
            self.rate,
            self.duration,
            self.outstanding(),
            self.seed
        )
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if SECONDS.contains(&seconds) {
        Ok(seconds)
    } else {
        Err(format!("not from {} to {} seconds", SECONDS.start(), SECONDS.end()))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_upstream_gets_arguments_it_understands() {
        let mut line = vec!["outage".to_owned()];
        line.extend(Args::parse_from(["outage", "--duration", "2.5"]).for_upstream());
        let role = Args::try_parse_from(line).map(|args| args.role);
        assert!(matches!(role, Ok(Some(Role::Upstream { duration: 2.5, seed: 42 }))));
    }

    #[test]
    fn spans_out_of_range_are_refused() {
        for bad in ["0", "51", "-3", "NaN", "inf", "soon"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
