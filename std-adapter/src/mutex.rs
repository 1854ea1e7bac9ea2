//! States behind a standard mutex, for those that don't fit two words.

use std::sync::PoisonError;

use failsoft_core::cell::{CellKind, Fixed, Fresh, LiveKind, SettingsKind, StateCell};

use crate::atomic::Swapped;
use crate::sync::Mutex;

/// States behind a [`std::sync::Mutex`].
#[derive(Clone, Copy, Debug)]
pub struct Locked;

impl<S: Fresh> CellKind<S> for Locked {
    type Cell = MutexCell<S>;
}

impl SettingsKind for Locked {
    type Settings<C: Copy> = Fixed;
}

impl LiveKind for Locked {
    type Live<C: Copy> = Swapped<C>;
}

/// A state behind a mutex. A panic under it can't leave the state half changed for longer than the next update: it is taken over
/// as it is.
#[derive(Debug)]
pub struct MutexCell<S>(Mutex<S>);

impl<S: Fresh> StateCell<S> for MutexCell<S> {
    const NEW: Self = Self(Mutex::new(S::FRESH));

    fn update<R>(&self, mut f: impl FnMut(&mut S) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
