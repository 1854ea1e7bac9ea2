//! What happened to every request of one side.

use core::time::Duration;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::side::{Reason, Served};

/// Buckets along a timeline. A number with many divisors: narrow terminals merge buckets.
pub(crate) const BUCKETS: usize = 96;

/// One request that has ended. Times count from the start of the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// When it was due. Not when it was sent: a late load generator must not flatter anyone.
    pub(crate) due: Duration,
    /// When its outcome was known.
    pub(crate) ended: Duration,
    /// The outcome.
    pub(crate) served: Served,
}

impl Sample {
    /// How long the one who asked had to wait.
    pub(crate) fn latency(&self) -> Duration {
        self.ended.saturating_sub(self.due)
    }

    /// Whether the request was made at all.
    pub(crate) fn was_sent(&self) -> bool {
        self.served != Served::Failed(Reason::NoRoom)
    }
}

/// The requests due in one bucket, by what became of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Still without an outcome.
    pub(crate) waiting: u32,
    /// Served with the upstream's own answer.
    pub(crate) fresh: u32,
    /// Served with a lesser answer.
    pub(crate) degraded: u32,
    /// Failed.
    pub(crate) failed: u32,
}

impl Tally {
    /// All requests.
    pub(crate) fn all(&self) -> u32 {
        self.waiting + self.fresh + self.degraded + self.failed
    }

    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            waiting: self.waiting + other.waiting,
            fresh: self.fresh + other.fresh,
            degraded: self.degraded + other.degraded,
            failed: self.failed + other.failed,
        }
    }

    fn count(&mut self, served: Served) {
        match served {
            Served::Fresh => self.fresh += 1,
            Served::Degraded(_) => self.degraded += 1,
            Served::Failed(_) => self.failed += 1,
        }
    }
}

/// One side's requests. Its memory is bounded by rate and duration, both bounded by the arguments.
#[derive(Debug)]
pub(crate) struct Record {
    start: Instant,
    bucket: Duration,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    samples: Vec<Sample>,
    buckets: [Tally; BUCKETS],
}

impl Record {
    /// An empty record of a run from `start` that lasts `total`.
    pub(crate) fn new(start: Instant, total: Duration) -> Arc<Self> {
        let kept = Kept { samples: Vec::new(), buckets: [Tally::default(); BUCKETS] };
        Arc::new(Self { start, bucket: bucket_span(total), kept: Mutex::new(kept) })
    }

    /// Notes a request that is due at `due`. Spend the ticket with its outcome.
    pub(crate) fn open(self: &Arc<Self>, due: Duration) -> Ticket {
        let bucket = bucket_of(due, self.bucket);
        self.kept().buckets[bucket].waiting += 1;
        Ticket { record: Arc::clone(self), due, bucket, served: Served::Failed(Reason::Unanswered) }
    }

    /// The requests so far, in buckets by when they were due.
    pub(crate) fn buckets(&self) -> [Tally; BUCKETS] {
        self.kept().buckets
    }

    /// The requests that have ended, in the order they were due.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let mut samples = self.kept().samples.clone();
        samples.sort_by_key(|sample| sample.due);
        samples
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request under way. Dropped without an outcome it counts as unanswered, so that the sums always add up.
#[derive(Debug)]
pub(crate) struct Ticket {
    record: Arc<Record>,
    due: Duration,
    bucket: usize,
    served: Served,
}

impl Ticket {
    /// Notes the outcome.
    pub(crate) fn close(mut self, served: Served) {
        self.served = served;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let ended = self.record.start.elapsed();
        let mut kept = self.record.kept();
        kept.buckets[self.bucket].waiting -= 1;
        kept.buckets[self.bucket].count(self.served);
        kept.samples.push(Sample { due: self.due, ended, served: self.served });
    }
}

/// How long one bucket of a run lasts.
pub(crate) fn bucket_span(total: Duration) -> Duration {
    total.div_f64(BUCKETS as f64)
}

/// The bucket in which `at` lies.
pub(crate) fn bucket_of(at: Duration, bucket: Duration) -> usize {
    let index = at.as_nanos() / bucket.as_nanos().max(1);
    usize::try_from(index).map_or(BUCKETS - 1, |index| index.min(BUCKETS - 1))
}
