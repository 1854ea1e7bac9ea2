//! What happened in a run, and whether it was right.

use failsoft_embassy::{Cause, Failure};
use sensor_protocol::PLAUSIBLE;

use crate::bus::BusError;
use crate::health::{Answer, Health};
use crate::policies;

/// Exit codes of this image, by what went wrong. The board has some more of its own.
pub(crate) mod exit_code {
    pub(crate) const OK: u8 = 0;
    /// A value that the sensor can't have measured was given as an answer.
    pub(crate) const IMPLAUSIBLE: u8 = 10;
    /// No answer was fresh.
    pub(crate) const NO_READING: u8 = 11;
    /// The sensor never failed: this run has shown nothing.
    pub(crate) const NO_FAULT: u8 = 12;
    /// The sensor's script did not come to its end.
    pub(crate) const NO_END: u8 = 13;
    /// The hub was never down to its minimum, or did not come back to full service.
    pub(crate) const LEVEL: u8 = 14;
    /// A permit is missing, or the breaker is still open.
    pub(crate) const NOT_AT_REST: u8 = 15;
    /// Two tasks were on the line at once.
    pub(crate) const SHARED: u8 = 16;
    /// A permit did not come back, or there was one too many.
    pub(crate) const PERMITS: u8 = 17;
    /// The level or the answer was another one than the oracle's.
    pub(crate) const WRONG_ANSWER: u8 = 18;
    /// The simulated sensor saw another number of requests than it was to see.
    pub(crate) const EXCHANGES: u8 = 19;
    /// Too few of the requests met a fault, or too many.
    pub(crate) const SHARE_OF_FAULTS: u8 = 20;
    /// The level fell too rarely to show anything.
    pub(crate) const STEADY: u8 = 21;
    /// The watchdog was fed later than the policies' limits allow.
    pub(crate) const FED_LATE: u8 = 22;
}

/// Counts the polls of one run by how they ended, and the answers by what they were.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    fresh: u32,
    last_good: u32,
    safe_default: u32,
    implausible: u32,
    rejected: u32,
    timed_out: u32,
    failed: u32,
    shared: u32,
}

impl Tally {
    pub(crate) fn count(&mut self, polled: &Result<u16, Failure<BusError>>, answer: Answer) {
        match polled {
            Ok(_) => {}
            Err(failure) => match failure.cause {
                Cause::Inner(BusError::Shared) => self.shared += 1,
                Cause::Rejected(_) => self.rejected += 1,
                Cause::TimedOut(_) => self.timed_out += 1,
                _ => self.failed += 1,
            },
        }
        let (count, value) = match answer {
            Answer::Fresh(value) => (&mut self.fresh, value),
            Answer::LastGood(value) => (&mut self.last_good, value),
            Answer::SafeDefault(value) => (&mut self.safe_default, value),
        };
        *count += 1;
        if !PLAUSIBLE.contains(&value) {
            self.implausible += 1;
        }
    }

    pub(crate) fn log(&self) {
        defmt::info!(
            "answers: {=u32} fresh, {=u32} last good, {=u32} safe default; the oracle has the same",
            self.fresh,
            self.last_good,
            self.safe_default
        );
        defmt::info!(
            "polls that came to nothing: {=u32} rejected, {=u32} timed out, {=u32} failed",
            self.rejected,
            self.timed_out,
            self.failed
        );
    }

    /// The exit code that this run has earned.
    pub(crate) fn verdict(&self, health: &Health, ended: bool) -> u8 {
        if !policies::permits_are_back() {
            exit_code::PERMITS
        } else if !ended {
            exit_code::NO_END
        } else if self.implausible > 0 {
            exit_code::IMPLAUSIBLE
        } else if self.shared > 0 {
            exit_code::SHARED
        } else if self.fresh == 0 {
            exit_code::NO_READING
        } else if self.rejected + self.timed_out + self.failed == 0 {
            exit_code::NO_FAULT
        } else if !health.went_down_and_came_back() {
            exit_code::LEVEL
        } else if !policies::at_rest() {
            exit_code::NOT_AT_REST
        } else {
            exit_code::OK
        }
    }
}
