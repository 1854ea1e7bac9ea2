//! A bucket of tokens, a token a call, that fills at a rate which may change at any time.
//!
//! Not the rate limiter's arrival time: that counts in time, so that each change of the rate would have to divide what has
//! been taken by the one rate and multiply it by the other, and whoever waits would keep an instant that is no longer right. This counts
//! in calls: another rate only makes it fill at another pace, and a turn is a place among the calls, for which the instant can be
//! worked out anew.

use super::Rate;
use crate::math::{divide, divide_wide};
use crate::time::{Instant, Span};

/// A call, in millionths of a millionth: what a rate in millionths brings in microseconds. 2^63 of these are nine million calls.
const CALL: u64 = 1_000_000_000_000;
/// In nanoseconds.
const MICROSECOND: u64 = 1_000;
const SECOND: Span = Span::from_nanos(1_000_000_000);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) struct Bucket {
    rate: Rate,
    /// What is in it; below zero, what those who wait have taken beyond that.
    left: i64,
    /// What was ever taken, modulo 2^64.
    taken: u64,
    /// What was given back from within the line, behind somebody who still waits: it counts for whoever comes next, and not for
    /// those ahead.
    returned: u64,
    /// Filled up to here.
    at: Instant,
}

/// A call's place among all: the tokens that had been taken with its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) struct Ticket(u64);

impl Bucket {
    pub(super) const fn empty(rate: Rate, now: Instant) -> Self {
        Self { rate, left: 0, taken: 0, returned: 0, at: now }
    }

    pub(super) const fn rate(&self) -> Rate {
        self.rate
    }

    /// What fills in a second, but at least one call.
    fn capacity(&self) -> i64 {
        signed(self.rate.as_millionths().saturating_mul(1_000_000).max(CALL))
    }

    fn fill(&mut self, now: Instant) {
        // A clock that stepped back by more is not waited for until it has caught up.
        let at = self.at.min(now.after(SECOND));
        let passed = now.as_nanos().saturating_sub(at.as_nanos());
        let (micros, _) = divide(passed, 1_000);
        let filled = signed(micros.saturating_mul(self.rate.as_millionths()));
        self.left = self.left.saturating_add(filled).min(self.capacity());
        self.at = at.after(Span::from_nanos(micros.saturating_mul(MICROSECOND)));
    }

    /// Fills at this rate from now on.
    pub(super) fn set_rate(&mut self, rate: Rate, now: Instant) {
        self.fill(now);
        self.rate = rate;
        self.left = self.left.min(self.capacity());
    }

    /// Takes a token whose turn comes by `until`, or says when it would.
    pub(super) fn take(&mut self, until: Instant, now: Instant) -> Result<(Ticket, Instant), Instant> {
        self.fill(now);
        if self.left >= 0 {
            // Nobody waits.
            self.returned = 0;
        }
        let left = self.left.saturating_sub_unsigned(CALL);
        let at = self.when(left, now);
        if at > until {
            return Err(at);
        }
        (self.left, self.taken) = (left, self.taken.wrapping_add(CALL));
        Ok((Ticket(self.taken), at))
    }

    /// When it is this one's turn, as the rate is now; `now` where it is.
    pub(super) fn turn(&mut self, ticket: Ticket, now: Instant) -> Instant {
        self.fill(now);
        // As if those behind it had taken nothing, nor given anything back.
        let behind = self.taken.wrapping_sub(ticket.0);
        let behind_still = behind.saturating_sub(self.returned);
        let turn = self.when(self.left.saturating_add_unsigned(behind_still), now);
        if turn <= now {
            // Whoever left ahead of it is of no account any more.
            self.returned = self.returned.min(behind);
        }
        turn
    }

    /// Gives a token back, for whoever comes next. Those who wait keep their turns.
    pub(super) fn give_back(&mut self, ticket: Ticket) {
        self.left = self.left.saturating_add_unsigned(CALL);
        if self.taken == ticket.0 {
            self.taken = self.taken.wrapping_sub(CALL);
        } else {
            self.returned = self.returned.saturating_add(CALL);
        }
    }

    /// When what is below zero has filled.
    fn when(&self, left: i64, now: Instant) -> Instant {
        if left >= 0 {
            return now;
        }
        // The rate is never zero: the lowest isn't.
        let (micros, rest) = divide_wide(left.unsigned_abs(), self.rate.as_millionths().max(1));
        let micros = micros.saturating_add(u64::from(rest > 0));
        self.at.after(Span::from_nanos(micros.saturating_mul(MICROSECOND)))
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
