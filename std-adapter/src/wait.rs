//! Where callers wait for a bulkhead: a deque behind a mutex that only those who wait, and those who hand over to them, take.

use core::task::Waker;
use std::collections::VecDeque;
use std::sync::PoisonError;

use failsoft_core::bulkhead::{Line, WaitQueue, Waiter};

use crate::sync::Mutex;

/// A queue shared by threads; the bulkhead's configuration bounds its length.
#[derive(Debug)]
pub struct ThreadQueue(Mutex<DequeLine>);

impl WaitQueue for ThreadQueue {
    type Line = DequeLine;

    const NEW: Self = Self(Mutex::new(DequeLine { waiters: VecDeque::new(), next_id: 0 }));

    fn lock<R>(&self, f: impl FnOnce(&mut DequeLine) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A line that grows as needed. Its ids count up, so that a waiter is found by halving.
#[derive(Debug)]
pub struct DequeLine {
    waiters: VecDeque<Waiter>,
    next_id: u32,
}

impl DequeLine {
    fn position(&self, id: u32) -> Option<usize> {
        let first = self.waiters.front()?.id();
        // Counted from the first in line, so that it does not matter when the ids wrap.
        self.waiters.binary_search_by_key(&id.wrapping_sub(first), |waiter| waiter.id().wrapping_sub(first)).ok()
    }
}

impl Line for DequeLine {
    fn iter(&self) -> impl DoubleEndedIterator<Item = &Waiter> {
        self.waiters.iter()
    }

    fn push_back(&mut self, weight: u32, waker: Waker) -> Option<u32> {
        let id = self.next_id;
        self.waiters.push_back(Waiter::new(id, weight, waker));
        self.next_id = id.wrapping_add(1);
        Some(id)
    }

    fn find(&mut self, id: u32) -> Option<&mut Waiter> {
        let position = self.position(id)?;
        self.waiters.get_mut(position)
    }

    fn remove(&mut self, id: u32) -> Option<Waiter> {
        let position = self.position(id)?;
        self.waiters.remove(position)
    }
}
