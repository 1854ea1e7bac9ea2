//! The last good answers, to be served in worse times.

use core::time::Duration;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hyper::body::Bytes;
use tokio::time::Instant;

/// One copy per item. The catalogue bounds them; a larger one would need a cache that evicts.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    answers: HashMap<u32, Bytes>,
    newest: Option<Instant>,
}

impl Copies {
    /// Keeps an answer in place of the one before.
    pub(crate) fn keep(&self, item: u32, answer: Bytes) {
        let mut kept = self.kept();
        kept.answers.insert(item, answer);
        kept.newest = Some(Instant::now());
    }

    /// Whether there is a copy of this item.
    pub(crate) fn contain(&self, item: u32) -> bool {
        self.kept().answers.contains_key(&item)
    }

    /// Whether the newest of all copies came within `span`: what is fed no longer goes out of date as a whole.
    pub(crate) fn were_fed_within(&self, span: Duration) -> bool {
        self.kept().newest.is_some_and(|at| at.elapsed() <= span)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
