//! The lock-free cell: a state packed into one atomic word, with a second word beside it for the few states that have a
//! deadline.
//!
//! Reading takes one load where the state has no tail, three where it has one. A change within a word is one
//! compare-exchange. A change that needs another tail, which only a new state of a circuit breaker does, claims the cell by
//! its topmost bit for the time of two stores; whoever comes by meanwhile, and can't do without, spins, and yields if the
//! claimant was preempted.
//! So "lock-free" holds for every call but those few.

use core::marker::PhantomData;
use core::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use arc_swap::ArcSwapOption;
use failsoft_core::cell::{CellKind, Fixed, LiveKind, Packed, Replaceable, SettingsCell, SettingsKind, StateCell};

use crate::sync::{AtomicU64, Mutex, spin_loop, yield_now};

/// States in lock-free cells.
#[derive(Clone, Copy, Debug)]
pub struct Atomic;

impl<S: Packed> CellKind<S> for Atomic {
    type Cell = AtomicCell<S>;
}

impl SettingsKind for Atomic {
    type Settings<C: Copy> = Fixed;
}

impl LiveKind for Atomic {
    type Live<C: Copy> = Swapped<C>;
}

/// A state in one or two atomic words.
#[derive(Debug)]
pub struct AtomicCell<S> {
    head: AtomicU64,
    tail: AtomicU64,
    // As a function's result, so that the cell is `Sync` whatever `S` is: no `S` is ever shared.
    state: PhantomData<fn() -> S>,
}

/// Set in the head while another tail is being written: never where states have none.
const CLAIMED: u64 = 1 << 63;

/// Looks at a claimed head this often before giving up the processor: the claim lasts for two stores.
const SPINS: u32 = 64;

impl<S: Packed> AtomicCell<S> {
    /// Head and tail of one state, if one look is enough: not while the cell is claimed, or is changed meanwhile.
    #[inline]
    fn look(&self) -> Option<(u64, u64)> {
        let head = self.head.load(Ordering::Acquire);
        if !S::has_tail(head) {
            return Some((head, 0));
        }
        // Acquire: if this is a later tail, the claim that came before it is seen by the second look at the head.
        let tail = self.tail.load(Ordering::Acquire);
        // The head carries the generation, so an equal head means the same state and the same tail.
        (head & CLAIMED == 0 && self.head.load(Ordering::Relaxed) == head).then_some((head, tail))
    }

    #[inline]
    fn load(&self) -> (u64, u64) {
        self.look().unwrap_or_else(|| self.wait())
    }

    #[cold]
    #[inline(never)]
    fn wait(&self) -> (u64, u64) {
        let mut spins = 0_u32;
        loop {
            spins = spins.wrapping_add(1);
            if spins.is_multiple_of(SPINS) {
                yield_now();
            } else {
                spin_loop();
            }
            if let Some(state) = self.look() {
                return state;
            }
        }
    }

    /// Replaces a state by another one, unless the head has changed meanwhile.
    #[inline]
    fn replace(&self, (head, tail): (u64, u64), (new_head, new_tail): (u64, u64)) -> bool {
        let same_tail = !S::has_tail(new_head) || (S::has_tail(head) && tail == new_tail);
        let claim = if same_tail { new_head } else { head | CLAIMED };
        if self.head.compare_exchange_weak(head, claim, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return false;
        }
        if !same_tail {
            self.tail.store(new_tail, Ordering::Release);
            self.head.store(new_head, Ordering::Release);
        }
        true
    }
}

impl<S: Packed> StateCell<S> for AtomicCell<S> {
    const NEW: Self = Self { head: AtomicU64::new(0), tail: AtomicU64::new(0), state: PhantomData };

    #[inline]
    fn update<R>(&self, mut f: impl FnMut(&mut S) -> R) -> R {
        loop {
            let (head, tail) = self.load();
            let mut state = S::unpack(head, tail);
            let result = f(&mut state);
            let packed = state.pack();
            if packed == (head, tail) || self.replace((head, tail), packed) {
                return result;
            }
        }
    }

    #[inline]
    fn read<R>(&self, f: impl Fn(&S) -> R) -> R {
        let (head, tail) = self.load();
        f(&S::unpack(head, tail))
    }

    #[inline]
    fn glimpse<R>(&self, f: impl Fn(&S) -> Option<R>) -> Option<R> {
        let head = self.head.load(Ordering::Acquire);
        // In this order: an answer most often says itself that there is no tail, and then the compiler drops the question.
        f(&S::unpack(head, 0)).filter(|_| !S::has_tail(head))
    }

    #[inline]
    fn try_update<R>(&self, mut f: impl FnMut(&mut S) -> Option<R>) -> Option<R> {
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let mut state = S::unpack(head, 0);
            let result = f(&mut state)?;
            let (new_head, _) = state.pack();
            if S::has_tail(head) || S::has_tail(new_head) {
                return None;
            }
            if new_head == head {
                return Some(result);
            }
            match self.head.compare_exchange_weak(head, new_head, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(result),
                Err(newer) => head = newer,
            }
        }
    }
}

/// Settings that can be replaced, in an [`Arc`] that is swapped.
///
/// Reading takes no lock, and two threads that read don't fight over a cache line, as they would over the count of an
/// `RwLock`'s readers: it costs some 8 ns, on any number of threads.
#[derive(Debug)]
pub struct Swapped<C> {
    settings: ArcSwapOption<C>,
    /// Held while they are replaced.
    replacing: Mutex<()>,
}

impl<C: Copy> SettingsCell<C> for Swapped<C> {
    const LIVE: bool = true;
    const NEW: Self = Self { settings: ArcSwapOption::const_empty(), replacing: Mutex::new(()) };

    #[inline]
    fn with<R>(&self, first: &C, f: impl FnOnce(&C) -> R) -> R {
        f(self.settings.load().as_deref().unwrap_or(first))
    }
}

impl<C: Copy> Replaceable<C> for Swapped<C> {
    fn replace(&self, first: &C, settings: C, carry: impl FnOnce(&C)) {
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        carry(self.settings.load().as_deref().unwrap_or(first));
        self.settings.store(Some(Arc::new(settings)));
    }
}

#[cfg(test)]
mod tests;
