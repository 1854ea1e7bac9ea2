//! What is asked of a run on the simulated line beyond the usual: in virtual time nothing is left to the host's mood.

use embassy_time::Duration;
use sensor_protocol::endurance::SHARE;
use sensor_protocol::sensor::Counts;

use crate::health::Health;
use crate::policies::{LONGEST_CALL, Line};
use crate::tally::exit_code;
use crate::{LONGEST_RUN, PERIOD};

/// The answer itself, in virtual time.
const MOMENT: Duration = Duration::from_millis(5);
/// A line that is dead takes longer for an exchange, but it is dead for a small part of the time only.
const LONGEST_EXCHANGE: Duration = Duration::from_millis(500);
/// The level has to fall at least once in so many exchanges, for the run to show anything.
const STEADY: u32 = 100;

/// A run of so many exchanges: requests that reach the line.
#[derive(Clone, Copy)]
pub(crate) struct Endurance {
    pub(crate) exchanges: u32,
}

impl Endurance {
    pub(crate) fn longest_run(self) -> Duration {
        LONGEST_RUN + LONGEST_EXCHANGE * self.exchanges
    }

    /// The exit code that the run has earned, from what nobody else looks at.
    pub(crate) fn verdict(self, line: &Line, health: &Health, longest_gap: Duration) -> u8 {
        let Some(counts) = line.counts() else { return exit_code::NOT_AT_REST };
        log(&counts);
        let longest_call = Duration::from_micros(u64::try_from(LONGEST_CALL.as_micros()).unwrap_or(u64::MAX));
        if counts.requests != self.exchanges {
            exit_code::EXCHANGES
        } else if !(SHARE.start * counts.requests..SHARE.end * counts.requests).contains(&(100 * counts.faults())) {
            exit_code::SHARE_OF_FAULTS
        } else if health.fell() < self.exchanges / STEADY {
            exit_code::STEADY
        } else if longest_gap > longest_call + PERIOD + MOMENT {
            exit_code::FED_LATE
        } else {
            exit_code::OK
        }
    }
}

fn log(counts: &Counts) {
    let per_mille = (1_000 * counts.faults()).checked_div(counts.requests).unwrap_or_default();
    defmt::info!(
        "sensor: {=u32} requests, {=u32}.{=u32} % of them with a fault; {=u32} dropped, {=u32} delayed, {=u32} corrupted, \
         {=u32} truncated, {=u32} exceptions, {=u32} stuttered, {=u32} repeated, {=u32} withheld",
        counts.requests,
        per_mille / 10,
        per_mille % 10,
        counts.dropped,
        counts.delayed,
        counts.corrupted,
        counts.truncated,
        counts.exceptions,
        counts.stuttered,
        counts.repeated,
        counts.withheld
    );
}
