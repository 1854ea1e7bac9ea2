//! Where callers wait for a bulkhead: a line of fixed size behind one of embassy's mutexes.

use core::cell::RefCell;
use core::fmt;

use embassy_sync::blocking_mutex::Mutex;
use embassy_sync::blocking_mutex::raw::RawMutex;
use failsoft_core::bulkhead::{VecLine, WaitQueue};

/// A queue of at most `N` waiters behind a [`RawMutex`]. One for none adds nothing to the flash.
pub struct RawQueue<M: RawMutex, const N: usize>(Mutex<M, RefCell<VecLine<N>>>);

impl<M: RawMutex, const N: usize> fmt::Debug for RawQueue<M, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawQueue").finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<M: RawMutex, const N: usize> defmt::Format for RawQueue<M, N> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "RawQueue");
    }
}

impl<M: RawMutex, const N: usize> WaitQueue for RawQueue<M, N> {
    type Line = VecLine<N>;

    const NEW: Self = Self(Mutex::new(RefCell::new(VecLine::new())));

    fn lock<R>(&self, f: impl FnOnce(&mut VecLine<N>) -> R) -> R {
        if N == 0 {
            // So that the compiler sees that nobody waits, and leaves out what waiting takes.
            return f(&mut VecLine::new());
        }
        self.0.lock(|line| {
            // `f` never comes back here; if it did all the same, it would find a line of its own.
            let (mut borrowed, mut own) = (line.try_borrow_mut(), None);
            f(borrowed.as_deref_mut().unwrap_or_else(|_| own.insert(VecLine::new())))
        })
    }
}
