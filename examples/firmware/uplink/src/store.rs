//! The readings that are still to be handed over, and what has become of the others.

use heapless::{Deque, Vec};
use sensor_protocol::uplink::{BATCH, Books, Set};

/// How many readings are kept: less than the server's longest outage brings.
const KEPT: usize = 64;

/// Consecutive readings on their way to the server.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) first: u32,
    pub(crate) values: Vec<[u8; 2], BATCH>,
}

/// Keeps readings until the server has acknowledged them; of too many, the newest.
#[derive(Debug)]
pub(crate) struct Store {
    kept: Deque<[u8; 2], KEPT>,
    taken: u32,
    /// The sequence number of the oldest one that is kept.
    oldest: u32,
    dropped: u32,
    acknowledged: Set,
    repeated: u32,
}

impl Store {
    pub(crate) const fn new() -> Self {
        Self { kept: Deque::new(), taken: 0, oldest: 0, dropped: 0, acknowledged: Set::new(), repeated: 0 }
    }

    /// Keeps a reading, if need be in place of the oldest one.
    pub(crate) fn keep(&mut self, reading: u16) {
        if self.kept.is_full() {
            self.forget_oldest();
            self.dropped += 1;
        }
        // There is room now.
        let _ = self.kept.push_back(reading.to_be_bytes());
        self.taken += 1;
    }

    fn forget_oldest(&mut self) {
        if self.kept.pop_front().is_some() {
            self.oldest += 1;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The oldest readings, at most as many as one request takes. They are kept all the same.
    pub(crate) fn batch(&self) -> Batch {
        Batch { first: self.oldest, values: self.kept.iter().take(BATCH).copied().collect() }
    }

    /// The server has taken these.
    pub(crate) fn acknowledge(&mut self, batch: &Batch) {
        for (reading, _) in (batch.first..).zip(&batch.values) {
            if !self.acknowledged.insert(reading) {
                self.repeated += 1;
            } else if reading < self.oldest {
                // It was dropped while it was on its way.
                self.dropped -= 1;
            } else {
                self.forget_oldest();
            }
        }
    }

    /// All readings that there were.
    pub(crate) fn taken(&self) -> u32 {
        self.taken
    }

    pub(crate) fn dropped(&self) -> u32 {
        self.dropped
    }

    /// Readings that were handed over although they had been before.
    pub(crate) fn repeated(&self) -> u32 {
        self.repeated
    }

    pub(crate) fn books(&self) -> Books {
        Books { taken: self.taken, acknowledged: self.acknowledged }
    }

    /// Whether each reading was either handed over or dropped.
    pub(crate) fn adds_up(&self) -> bool {
        self.is_empty() && self.taken == self.acknowledged.len() + self.dropped
    }
}
