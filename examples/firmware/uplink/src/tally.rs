//! What happened in a run, and whether it was right.

use failsoft_embassy::{Cause, Failure};
use sensor_protocol::uplink::{Books, Reply};

use crate::health::Health;
use crate::link::LinkError;
use crate::policies::{self, Server};
use crate::store::Store;

/// Exit codes of this image, by what went wrong. The board has some more of its own.
pub(crate) mod exit_code {
    pub(crate) const OK: u8 = 0;
    /// The server's script did not come to its end, or the server took no leave.
    pub(crate) const NO_END: u8 = 10;
    /// A reading was neither handed over nor dropped, or was both.
    pub(crate) const DOES_NOT_ADD_UP: u8 = 11;
    /// A reading was handed over twice.
    pub(crate) const REPEATED: u8 = 12;
    /// The server knows nothing of a reading that was handed over.
    pub(crate) const LOST: u8 = 13;
    /// One of the server's faults was not met, or no reading had to be dropped: this run has shown nothing.
    pub(crate) const NO_FAULT: u8 = 14;
    /// No call was rescued by a retry, although the server failed every other time.
    pub(crate) const NO_RETRY: u8 = 15;
    /// The breaker never opened, or did not close again.
    pub(crate) const BREAKER: u8 = 16;
    /// The server was called more often than the breaker allows while it isn't closed.
    pub(crate) const NOT_LEFT_ALONE: u8 = 17;
    /// The device was never down to its minimum, or did not come back to full service.
    pub(crate) const LEVEL: u8 = 18;
    /// It came back, and took too long.
    pub(crate) const RECOVERY: u8 = 19;
    /// A permit is missing, or a connection is still there.
    pub(crate) const NOT_AT_REST: u8 = 20;
    /// Two tasks had the connection at once.
    pub(crate) const SHARED: u8 = 21;
}

/// Counts the calls of one run by how they ended.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    answered: u32,
    rejected: u32,
    timed_out: u32,
    failed: u32,
}

impl Tally {
    pub(crate) fn count(&mut self, result: &Result<Reply, Failure<LinkError>>) {
        *match result {
            Ok(_) => &mut self.answered,
            Err(failure) => match failure.cause {
                Cause::Rejected(_) => &mut self.rejected,
                Cause::TimedOut(_) => &mut self.timed_out,
                _ => &mut self.failed,
            },
        } += 1;
    }

    pub(crate) fn log(&self, store: &Store, server: &Server) {
        let Self { answered, rejected, timed_out, failed } = self;
        defmt::info!(
            "calls: {=u32} answered, {=u32} rejected, {=u32} timed out, {=u32} failed",
            answered,
            rejected,
            timed_out,
            failed
        );
        let attempts = server.attempts();
        defmt::info!(
            "attempts: {=u32}; {=u32} refused, {=u32} reset, {=u32} closed early, {=u32} cut off, {=u32} timed out",
            attempts.begun,
            attempts.refused,
            attempts.reset,
            attempts.closed,
            attempts.cut,
            attempts.timed_out()
        );
        defmt::info!("{=u32} calls were rescued by a retry", attempts.rescued);
        let breaking = policies::breaking();
        defmt::info!(
            "the breaker opened {=u32} times and closed {=u32} times; {=u32} probes, of {=u64} at most",
            breaking.opened,
            breaking.closed,
            attempts.probes,
            breaking.most_probes()
        );
        defmt::info!(
            "readings: {=u32} taken, {=u32} handed over, {=u32} dropped",
            store.taken(),
            store.books().acknowledged.len(),
            store.dropped()
        );
    }

    /// The exit code that this run has earned; `books` are the server's.
    pub(crate) fn verdict(store: &Store, server: &Server, health: &mut Health, books: Option<Books>) -> u8 {
        let (attempts, breaking) = (server.attempts(), policies::breaking());
        let faults = [attempts.refused, attempts.reset, attempts.closed, attempts.cut, attempts.timed_out()];
        let Some(books) = books else { return exit_code::NO_END };
        if store.repeated() > 0 {
            exit_code::REPEATED
        } else if !store.adds_up() {
            exit_code::DOES_NOT_ADD_UP
        } else if !store.books().acknowledged.is_subset(&books.acknowledged) {
            exit_code::LOST
        } else if attempts.shared > 0 {
            exit_code::SHARED
        } else if faults.contains(&0) || store.dropped() == 0 {
            exit_code::NO_FAULT
        } else if attempts.rescued == 0 {
            exit_code::NO_RETRY
        } else if breaking.opened == 0 || breaking.closed == 0 || !policies::is_trusted() {
            exit_code::BREAKER
        } else if u64::from(attempts.probes) > breaking.most_probes() {
            exit_code::NOT_LEFT_ALONE
        } else if !health.went_down_and_came_back() {
            exit_code::LEVEL
        } else if !health.came_back_in_time() {
            exit_code::RECOVERY
        } else if !server.is_at_rest() {
            exit_code::NOT_AT_REST
        } else {
            exit_code::OK
        }
    }
}
