//! What the hub has to answer, said a second time: in other words, and with nothing of the library's. It knows the polls' results alone.

use crate::health::Answer;

// Nanoseconds.
const DWELL: u64 = 400_000_000;
const STALE: u64 = 1_500_000_000;

const FULL: u8 = 0;
const DEGRADED: u8 = 1;
const MINIMAL: u8 = 2;

/// So many in a row make up for all that was before.
const RECOVERY: u32 = 3;
const SAFE_DEFAULT: u16 = 200;

/// What is right after a poll.
#[derive(PartialEq, defmt::Format)]
pub(crate) struct Right {
    /// The level in force; full service is zero.
    pub(crate) level: u8,
    /// Since when, in nanoseconds.
    pub(crate) since: u64,
    pub(crate) answer: Answer,
}

/// Follows the polls of one run.
pub(crate) struct Oracle {
    level: u8,
    since: u64,
    /// The latest of: a failed poll, a change of level.
    unsettled_at: u64,
    /// Polls in a row that gave a value.
    good: u32,
    /// Polls in a row that left a value behind that was not stale.
    recent: u32,
    value: (u16, Option<u64>),
}

impl Oracle {
    /// As if all had been well until now.
    pub(crate) fn new() -> Self {
        Self { level: FULL, since: 0, unsettled_at: 0, good: RECOVERY, recent: RECOVERY, value: (0, None) }
    }

    /// What is right after this poll, at this nanosecond.
    pub(crate) fn expect(&mut self, now: u64, polled: Option<u16>) -> Right {
        // Whatever comes of this poll, it changes nothing about the time before.
        self.rise(now);
        let floor_before = self.floor();
        match polled {
            Some(value) => {
                self.good += 1;
                self.value = (value, Some(now));
            }
            None => {
                self.good = 0;
                self.unsettled_at = now;
            }
        }
        let is_recent = matches!(self.value, (_, Some(at)) if now - at < STALE);
        self.recent = if is_recent { self.recent + 1 } else { 0 };

        if self.floor() > self.level {
            (self.level, self.since) = (self.floor(), now);
        }
        if self.floor() < floor_before {
            // Only now the level may rise: not as if that had been so for long.
            self.unsettled_at = self.unsettled_at.max(now.saturating_sub(DWELL));
        }
        self.rise(now);
        let answer = match self.level {
            FULL => Answer::Fresh(self.value.0),
            DEGRADED => Answer::LastGood(self.value.0),
            _ => Answer::SafeDefault(SAFE_DEFAULT),
        };
        Right { level: self.level, since: self.since, answer }
    }

    /// The best level that the polls allow.
    fn floor(&self) -> u8 {
        if self.recent < RECOVERY {
            MINIMAL
        } else if self.good < RECOVERY {
            DEGRADED
        } else {
            FULL
        }
    }

    /// One step per dwell.
    fn rise(&mut self, now: u64) {
        while self.level > self.floor() && now - self.unsettled_at >= DWELL {
            self.level -= 1;
            self.unsettled_at += DWELL;
            self.since = self.unsettled_at;
        }
    }
}
