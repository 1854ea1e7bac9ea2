//! Events through `defmt`.

use defmt::{Format, warn};
use failsoft_core::Observer;

/// An observer for every policy: logs each event as a warning, under the name of the policy's instance.
#[derive(Clone, Copy, Debug, Format)]
pub struct Log {
    name: &'static str,
}

impl Log {
    /// Events under this name.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name }
    }
}

impl<E: Format> Observer<E> for Log {
    fn observe(&self, event: &E) {
        warn!("{=str}: {}", self.name, event);
    }
}
