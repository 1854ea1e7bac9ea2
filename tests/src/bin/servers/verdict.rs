//! What must hold of an outage.

use core::time::Duration;

use failsoft_tokio::circuit_breaker::StateKind;
use tokio::time::Instant;

use crate::guard::{PERMITS, QUEUE, Settings};
use crate::load::{Call, Ending};
use crate::outage::{MARGIN, Story};
use crate::table::{Criterion, share};

/// What differs between outages.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Of the breaker, from the beginning of the fault on.
    pub(crate) open_within: Duration,
    /// Of the breaker, from the end of the fault on.
    pub(crate) closed_within: Duration,
    /// Attempts while the breaker was not closed: how many probes there is time for, and what was let in as it opened.
    pub(crate) probes: usize,
    /// From a call to its answer, whatever it is.
    pub(crate) longest: Duration,
}

/// Who is rejected by an open breaker is so at once.
const REJECTED_WITHIN: Duration = Duration::from_millis(5);
/// A few attempts at the beginning, and probes. With retries and without a breaker it would be more than one.
const ATTEMPTS: f64 = 0.5;

impl Story {
    fn first(&self, to: StateKind, after: Instant) -> Option<Instant> {
        self.changes.iter().find(|(at, change)| change.to == to && *at >= after).map(|(at, _)| *at)
    }

    /// When the breaker opened because of the fault, if it has.
    fn opened(&self) -> Option<Instant> {
        self.first(StateKind::Open, self.begins)
    }

    /// When it closed because of the fault's end, if it has.
    fn closed(&self) -> Option<Instant> {
        self.first(StateKind::Closed, self.ends)
    }

    pub(crate) fn count(&self, ending: Ending) -> usize {
        self.calls.iter().filter(|call| call.ending == ending).count()
    }

    /// The share of the calls that came between these instants that were served.
    pub(crate) fn served(&self, from: Instant, until: Instant) -> f64 {
        let came = || self.calls.iter().filter(|call| (from..until).contains(&call.due));
        share(came().filter(|call| call.ending == Ending::Served).count(), came().count())
    }

    /// What counts as nearly all of the calls that came then: 99 of a hundred, or all but two where there are few.
    fn nearly_all(&self, from: Instant, until: Instant) -> f64 {
        let came = self.calls.iter().filter(|call| (from..until).contains(&call.due)).count();
        (1.0 - share(2, came)).min(0.99)
    }

    /// Those that were served while the fault was there.
    pub(crate) fn served_while_down(&self) -> f64 {
        self.served(self.began, self.ends)
    }

    fn attempts_between(&self, from: Instant, until: Instant) -> usize {
        self.attempts.iter().filter(|at| (from..until).contains(at)).count()
    }

    /// The attempts for each call that came while the fault was there.
    pub(crate) fn attempts_while_down(&self) -> f64 {
        let calls = self.calls.iter().filter(|call| (self.began..self.ends).contains(&call.due)).count();
        share(self.attempts_between(self.began, self.ends), calls)
    }

    /// What 99 of a hundred calls took at most that came while the breaker was open, and were rejected.
    fn rejections(&self, opened: Instant, closed: Instant) -> Option<Duration> {
        // By then nobody waits in the bulkhead's line who has come before.
        let came = opened + QUEUE.1..closed;
        let rejected = self.calls.iter().filter(|call| call.ending == Ending::Rejected && came.contains(&call.due));
        let mut took: Vec<_> = rejected.map(|call| call.took).collect();
        took.sort();
        took.get(took.len().saturating_sub(1) * 99 / 100).copied()
    }

    /// What must hold after every run with policies.
    pub(crate) fn nothing_is_left(&self) -> Vec<Criterion> {
        let permits = self.at_rest.map_or(usize::MAX, |bulkhead| (bulkhead.in_use + bulkhead.queued) as usize);
        let [at_the_end, soon_after, at_rest] = self.connections;
        vec![
            Criterion::no_more("attempts at once, of the bulkhead's permits", self.most as usize, PERMITS as usize),
            // A server that was stopped has not heard yet of those that were given up: one for each permit, and one for each probe.
            Criterion::no_more(
                "connections as the fault ends, by the server's count",
                at_the_end,
                2 * PERMITS as usize,
            ),
            Criterion::no_more("connections soon after", soon_after, PERMITS as usize),
            Criterion::no_more("connections left", at_rest, 0),
            Criterion::no_more("answers to another's question", self.count(Ending::Wrong), 0),
            Criterion::no_more("permits and places in the line that are left", permits, 0),
            Criterion::no_more("tasks left", self.tasks, 0),
        ]
    }

    /// What must hold of a run with policies through an outage.
    pub(crate) fn judge(&self, limits: &Limits) -> Vec<Criterion> {
        let mut criteria = self.answers(limits);
        criteria.extend(self.breaker(limits));
        criteria.extend(self.requests.map(|requests| self.counted(requests)));
        criteria.extend(self.nothing_is_left());
        criteria
    }

    /// What callers get.
    fn answers(&self, limits: &Limits) -> Vec<Criterion> {
        let end = self.start + self.lasted;
        let in_time = |call: &&Call| call.ending != Ending::Never && call.took <= limits.longest;
        let in_time = share(self.calls.iter().filter(in_time).count(), self.calls.len());
        let down = (self.ended - self.began) + limits.closed_within;
        let up = 1.0 - down.as_secs_f64() / self.lasted.as_secs_f64();
        // What is under way when the fault begins is lost.
        let calm = self.begins - MARGIN;
        let before = self.served(self.start, calm);
        let (after, enough) =
            self.closed().map_or((0.0, 0.99), |closed| (self.served(closed, end), self.nearly_all(closed, end)));
        vec![
            Criterion::share("calls served, or failed, in time", in_time, 0.99),
            Criterion::share("calls served, of the whole run", self.served(self.start, end), 0.97 * up),
            Criterion::share("calls served before the fault", before, self.nearly_all(self.start, calm)),
            Criterion::share("calls served after the breaker has closed", after, enough),
        ]
    }

    /// What the breaker does, and what that spares the server.
    fn breaker(&self, limits: &Limits) -> Vec<Criterion> {
        let (opened, closed) = (self.opened(), self.closed());
        let open = opened.zip(closed);
        let opens = opened.map(|at| at.saturating_duration_since(self.began));
        let closes = closed.map(|at| at.saturating_duration_since(self.ended));
        let probes = open.map_or(usize::MAX, |(from, until)| self.attempts_between(from, until));
        let rejections = open.and_then(|(from, until)| self.rejections(from, until));
        vec![
            Criterion::within("breaker open after the fault's beginning", opens, limits.open_within),
            Criterion::within("breaker closed after the fault's end", closes, limits.closed_within),
            Criterion::no_more("attempts while the breaker was not closed", probes, limits.probes),
            Criterion::at_most("attempts for a call while the server was down", self.attempts_while_down(), ATTEMPTS),
            Criterion::within("p99 of the open breaker's rejections", rejections, REJECTED_WITHIN),
        ]
    }

    /// The server's count of requests: all that were served, and none that was not sent.
    fn counted(&self, requests: usize) -> Criterion {
        let unsent = requests.saturating_sub(self.attempts.len());
        let uncounted = self.count(Ending::Served).saturating_sub(requests);
        Criterion::no_more("requests by the server's count that can't be", unsent + uncounted, 0)
    }

    /// What retries do without any policy.
    pub(crate) fn amplifies(&self) -> Criterion {
        Criterion::at_least("CONTROL: attempts for a call while the server was down", self.attempts_while_down(), 2.0)
    }

    /// What an answer that never comes does without any policy: to the server, and to who waits for it.
    pub(crate) fn piles_up(&self) -> [Criterion; 2] {
        let took = self.calls.iter().map(|call| call.took).max();
        [
            Criterion::at_least("CONTROL: attempts at once", self.most.into(), 5.0 * f64::from(PERMITS)),
            Criterion::at_least("CONTROL: seconds that a call took", took.unwrap_or_default().as_secs_f64(), 1.5),
        ]
    }
}

/// The longest that a call may take with these settings.
pub(crate) const fn longest(settings: Settings) -> Duration {
    settings.total.saturating_add(MARGIN)
}
