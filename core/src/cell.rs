//! Where a state lives, and how it changes: one trait with one method.
//!
//! A policy is written once, against [`StateCell`]; each world chooses how its states are shared with a [`CellKind`]:
//! [`Local`] for one thread, `CriticalSection` (feature `critical-section`) for any chip with its interrupts, and the
//! adapters' own for threads and for embassy's mutexes.

use core::cell::Cell;

use crate::time::{Clock, Instant};

/// A value with a state to start from, known at compile time, so that everything can be built in a `static`.
pub trait Fresh {
    /// The state to start from.
    const FRESH: Self;
}

/// A place for a state that several callers share.
pub trait StateCell<S> {
    /// A cell that holds the fresh state.
    const NEW: Self;

    /// Applies `f` to the state and returns what it returns.
    ///
    /// The contract: `f` is pure but for the state it is handed, and it may run again when another caller was faster. It
    /// must not touch this cell. An update that changes nothing writes nothing.
    fn update<R>(&self, f: impl FnMut(&mut S) -> R) -> R;
}

/// A way to share states: maps a state to the cell that holds it.
pub trait CellKind<S> {
    /// The cell.
    type Cell: StateCell<S>;
}

/// A state that packs into one or two 64-bit words, for lock-free cells.
///
/// Invariant: the fresh state packs to zeroes. Bit 63 of the head stays clear: it is the cell's own.
pub trait Packed: Copy + Fresh {
    /// The state as words. The tail is zero where [`has_tail`](Self::has_tail) says that there is none.
    fn pack(self) -> (u64, u64);

    /// The state from its words.
    fn unpack(head: u64, tail: u64) -> Self;

    /// Whether a state with this head has anything in its tail. A tail may change only together with the head.
    fn has_tail(head: u64) -> bool;
}

/// One thread, no synchronisation: a plain [`Cell`].
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Local;

impl<S: Fresh> CellKind<S> for Local {
    type Cell = Cell<S>;
}

impl<S: Fresh> StateCell<S> for Cell<S> {
    const NEW: Self = Self::new(S::FRESH);

    fn update<R>(&self, mut f: impl FnMut(&mut S) -> R) -> R {
        let mut state = self.replace(S::FRESH);
        let result = f(&mut state);
        self.set(state);
        result
    }
}

/// Any chip, interrupts included: each update is one short critical section.
#[cfg(feature = "critical-section")]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CriticalSection;

#[cfg(feature = "critical-section")]
impl<S: Fresh> CellKind<S> for CriticalSection {
    type Cell = critical_section::Mutex<Cell<S>>;
}

#[cfg(feature = "critical-section")]
impl<S: Fresh> StateCell<S> for critical_section::Mutex<Cell<S>> {
    const NEW: Self = Self::new(Cell::new(S::FRESH));

    fn update<R>(&self, f: impl FnMut(&mut S) -> R) -> R {
        critical_section::with(|section| StateCell::update(self.borrow(section), f))
    }
}

/// Updates a cell with a transition that may need the time.
///
/// `f` gets `None` first and answers `None`, with the state untouched, when it can't go on without the time. Only then
/// the clock is read, once and outside the cell, and `f` runs again.
pub(crate) fn update_timed<S, R>(
    cell: &impl StateCell<S>,
    clock: &impl Clock,
    mut f: impl FnMut(&mut S, Option<Instant>) -> Option<R>,
) -> R {
    let mut now = None;
    loop {
        if let Some(result) = cell.update(|state| f(state, now)) {
            return result;
        }
        now = Some(clock.now());
    }
}
