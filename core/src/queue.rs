//! Where callers wait: core decides who is next, an adapter owns the storage and the lock.

use core::cell::Cell;
use core::fmt;
use core::task::Waker;

/// One that waits.
#[derive(Clone, Debug)]
pub struct Waiter {
    pub(crate) id: u32,
    pub(crate) weight: u32,
    // It has what it waited for, and has not noticed yet.
    pub(crate) served: bool,
    pub(crate) waker: Waker,
}

#[cfg(feature = "defmt")]
impl defmt::Format for Waiter {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Waiter {{ id: {}, weight: {} }}", self.id, self.weight);
    }
}

impl Waiter {
    /// A waiter with an id that is unique in its line.
    #[must_use]
    pub const fn new(id: u32, weight: u32, waker: Waker) -> Self {
        Self { id, weight, served: false, waker }
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }
}

/// Those who wait, first come first.
pub trait Line {
    /// The waiters, the first in line first.
    fn iter(&self) -> impl DoubleEndedIterator<Item = &Waiter>;

    /// Joins at the end and gets an id, unique among those who wait; `None` when the storage is full.
    fn push_back(&mut self, weight: u32, waker: Waker) -> Option<u32>;

    /// The waiter with this id.
    fn find(&mut self, id: u32) -> Option<&mut Waiter>;

    /// Takes out the waiter with this id, wherever it stands.
    fn remove(&mut self, id: u32) -> Option<Waiter>;
}

/// A line behind a lock.
pub trait WaitQueue {
    /// The line.
    type Line: Line;

    /// An empty queue, for a `static`.
    const NEW: Self;

    /// Runs `f` with everyone else shut out. `f` is short, calls no waker and does not come back here.
    fn lock<R>(&self, f: impl FnOnce(&mut Self::Line) -> R) -> R;
}

/// No queue: a full bulkhead rejects.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct NoQueue;

impl WaitQueue for NoQueue {
    type Line = VecLine<0>;

    const NEW: Self = Self;

    fn lock<R>(&self, f: impl FnOnce(&mut VecLine<0>) -> R) -> R {
        f(&mut VecLine::new())
    }
}

/// A line of at most `N` waiters, without a heap.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct VecLine<const N: usize> {
    waiters: heapless::Vec<Waiter, N>,
    next_id: u32,
}

impl<const N: usize> VecLine<N> {
    /// An empty line.
    #[must_use]
    pub const fn new() -> Self {
        Self { waiters: heapless::Vec::new(), next_id: 0 }
    }
}

impl<const N: usize> Default for VecLine<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Line for VecLine<N> {
    fn iter(&self) -> impl DoubleEndedIterator<Item = &Waiter> {
        self.waiters.iter()
    }

    fn push_back(&mut self, weight: u32, waker: Waker) -> Option<u32> {
        let id = self.next_id;
        self.waiters.push(Waiter::new(id, weight, waker)).ok()?;
        self.next_id = id.wrapping_add(1);
        Some(id)
    }

    fn find(&mut self, id: u32) -> Option<&mut Waiter> {
        self.waiters.iter_mut().find(|waiter| waiter.id == id)
    }

    fn remove(&mut self, id: u32) -> Option<Waiter> {
        let mut found = None;
        // `retain` keeps the order and, unlike `remove`, has no index that could be out of range.
        self.waiters.retain_mut(|waiter| {
            let keep = waiter.id != id;
            if !keep {
                found = Some(waiter.clone());
            }
            keep
        });
        found
    }
}

/// A queue of at most `N` waiters for one thread.
pub struct LocalQueue<const N: usize>(Cell<VecLine<N>>);

impl<const N: usize> fmt::Debug for LocalQueue<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalQueue").finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<const N: usize> defmt::Format for LocalQueue<N> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "LocalQueue");
    }
}

impl<const N: usize> WaitQueue for LocalQueue<N> {
    type Line = VecLine<N>;

    const NEW: Self = Self(Cell::new(VecLine::new()));

    fn lock<R>(&self, f: impl FnOnce(&mut VecLine<N>) -> R) -> R {
        let mut line = self.0.take();
        let result = f(&mut line);
        self.0.set(line);
        result
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn ids(line: &VecLine<3>) -> Vec<(u32, u32)> {
        line.iter().map(|waiter| (waiter.id(), waiter.weight)).collect()
    }

    #[test]
    fn who_comes_joins_at_the_end_and_is_found_and_taken_out_by_an_id_of_its_own_until_there_is_no_room() {
        let mut line = VecLine::<3>::new();
        let join = |line: &mut VecLine<3>, weight| line.push_back(weight, Waker::noop().clone());
        assert_eq!([5, 6, 7, 8].map(|weight| join(&mut line, weight)), [Some(0), Some(1), Some(2), None]);
        assert_eq!(line.find(1).map(|waiter| waiter.weight), Some(6));
        assert_eq!(line.remove(1).map(|waiter| waiter.id()), Some(1));
        assert!(line.find(1).is_none() && line.remove(1).is_none());
        assert_eq!(ids(&line), [(0, 5), (2, 7)]);
        assert_eq!(join(&mut line, 9), Some(3), "who left has had its id, and who found no room had none");
        assert_eq!(ids(&line), [(0, 5), (2, 7), (3, 9)]);
    }
}
