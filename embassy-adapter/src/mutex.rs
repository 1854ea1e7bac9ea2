//! States behind any of embassy's mutexes.

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;

use embassy_sync::blocking_mutex::Mutex;
use embassy_sync::blocking_mutex::raw::RawMutex;
use failsoft_core::cell::{CellKind, Fixed, LiveKind, Replaced, SettingsKind, StateCell, Stored};

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

impl<M: RawMutex, S: Stored> CellKind<S> for Raw<M> {
    type Cell = RawCell<M, S::Cell>;
}

impl<M: RawMutex> SettingsKind for Raw<M> {
    type Settings<C: Copy> = Fixed;
}

impl<M: RawMutex> LiveKind for Raw<M> {
    type Live<C: Copy> = RawCell<M, Cell<Replaced<C>>>;
}

/// One thread's cell behind a [`RawMutex`].
pub struct RawCell<M: RawMutex, C>(Mutex<M, C>);

impl<M: RawMutex, C> fmt::Debug for RawCell<M, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawCell").finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<M: RawMutex, C> defmt::Format for RawCell<M, C> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "RawCell");
    }
}

impl<M: RawMutex, S, C: StateCell<S>> StateCell<S> for RawCell<M, C> {
    const NEW: Self = Self(Mutex::new(C::NEW));

    fn update<R>(&self, mut f: impl FnMut(&mut S) -> R) -> R {
        self.0.lock(|cell| cell.update(&mut f))
    }
}
