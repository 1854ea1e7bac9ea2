//! States behind any of embassy's mutexes.

use core::cell::RefCell;
use core::fmt;
use core::marker::PhantomData;

use embassy_sync::blocking_mutex::Mutex;
use embassy_sync::blocking_mutex::raw::RawMutex;
use failsoft_core::cell::{CellKind, Fixed, Fresh, LiveKind, Replaced, SettingsKind, StateCell};

/// States behind a [`RawMutex`]: `NoopRawMutex` for one executor, `ThreadModeRawMutex` for thread mode, `CriticalSectionRawMutex` for
/// everything.
#[derive(Clone, Copy, Debug)]
pub struct Raw<M>(PhantomData<fn() -> M>);

#[cfg(feature = "defmt")]
impl<M> defmt::Format for Raw<M> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Raw");
    }
}

impl<M: RawMutex, S: Fresh> CellKind<S> for Raw<M> {
    type Cell = RawCell<M, S>;
}

impl<M: RawMutex> SettingsKind for Raw<M> {
    type Settings<C: Copy> = Fixed;
}

impl<M: RawMutex> LiveKind for Raw<M> {
    type Live<C: Copy> = RawCell<M, Replaced<C>>;
}

/// A state behind a [`RawMutex`].
pub struct RawCell<M: RawMutex, S>(Mutex<M, RefCell<S>>);

impl<M: RawMutex, S> fmt::Debug for RawCell<M, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawCell").finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<M: RawMutex, S> defmt::Format for RawCell<M, S> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "RawCell");
    }
}

impl<M: RawMutex, S: Fresh> StateCell<S> for RawCell<M, S> {
    const NEW: Self = Self(Mutex::new(RefCell::new(S::FRESH)));

    fn update<R>(&self, mut f: impl FnMut(&mut S) -> R) -> R {
        self.0.lock(|cell| StateCell::update(cell, &mut f))
    }
}
