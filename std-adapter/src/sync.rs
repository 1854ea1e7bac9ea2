//! What threads share, in one place, so that a model checker can put its own in: `tests/verify` builds with
//! `--cfg failsoft_loom` or `--cfg failsoft_shuttle`, and no other build does.

#[cfg(not(any(failsoft_loom, failsoft_shuttle)))]
pub(crate) use core::{hint::spin_loop, sync::atomic::AtomicU64};
#[cfg(not(any(failsoft_loom, failsoft_shuttle)))]
pub(crate) use std::{
    sync::{Mutex, MutexGuard},
    thread::yield_now,
};

#[cfg(all(feature = "registry", not(any(failsoft_loom, failsoft_shuttle))))]
pub(crate) use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

#[cfg(any(failsoft_loom, failsoft_shuttle))]
pub(crate) use model::{AtomicU64, Mutex, MutexGuard, spin_loop, yield_now};
#[cfg(all(feature = "registry", any(failsoft_loom, failsoft_shuttle)))]
pub(crate) use model::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The checkers' own can't be made at compile time, as a cell must be: they are made when they are first used.
#[cfg(any(failsoft_loom, failsoft_shuttle))]
mod model {
    use core::fmt;
    use core::sync::atomic::Ordering;
    use std::sync::{LockResult, OnceLock};

    #[cfg(failsoft_loom)]
    use loom as checker;
    #[cfg(failsoft_shuttle)]
    use shuttle as checker;

    pub(crate) use checker::sync::MutexGuard;
    // Never in a `static`, so that the checkers' own will do.
    #[cfg(feature = "registry")]
    pub(crate) use checker::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
    // Whoever spins waits for another thread: nothing is learned from trying again before that one has run.
    pub(crate) use checker::thread::{yield_now, yield_now as spin_loop};

    pub(crate) struct AtomicU64 {
        first: u64,
        inner: OnceLock<checker::sync::atomic::AtomicU64>,
    }

    impl AtomicU64 {
        pub(crate) const fn new(first: u64) -> Self {
            Self { first, inner: OnceLock::new() }
        }

        fn inner(&self) -> &checker::sync::atomic::AtomicU64 {
            self.inner.get_or_init(|| checker::sync::atomic::AtomicU64::new(self.first))
        }

        pub(crate) fn load(&self, order: Ordering) -> u64 {
            self.inner().load(order)
        }

        pub(crate) fn store(&self, value: u64, order: Ordering) {
            self.inner().store(value, order);
        }

        pub(crate) fn compare_exchange_weak(
            &self,
            current: u64,
            new: u64,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u64, u64> {
            self.inner().compare_exchange_weak(current, new, success, failure)
        }
    }

    impl fmt::Debug for AtomicU64 {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("AtomicU64").finish_non_exhaustive()
        }
    }

    pub(crate) struct Mutex<T> {
        first: std::sync::Mutex<Option<T>>,
        inner: OnceLock<checker::sync::Mutex<T>>,
    }

    impl<T> Mutex<T> {
        pub(crate) const fn new(first: T) -> Self {
            Self { first: std::sync::Mutex::new(Some(first)), inner: OnceLock::new() }
        }

        pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
            let first = || self.first.lock().expect("it is whole").take().expect("it is made once");
            self.inner.get_or_init(|| checker::sync::Mutex::new(first())).lock()
        }
    }

    impl<T> fmt::Debug for Mutex<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Mutex").finish_non_exhaustive()
        }
    }
}
