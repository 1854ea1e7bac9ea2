//! Events through a channel, to whichever task wants them.

use core::cell::Cell;
use core::fmt;

use embassy_sync::blocking_mutex::Mutex;
use embassy_sync::blocking_mutex::raw::RawMutex;
use embassy_sync::channel::Channel;
use failsoft_core::Observer;

/// A channel of up to `N` events; an observer by reference, so that it can be a `static`.
///
/// A policy never waits for its observer: where the channel is full the event is lost and [`missed`](Self::missed) counts it.
pub struct Events<M: RawMutex, E, const N: usize> {
    channel: Channel<M, E, N>,
    missed: Mutex<M, Cell<u32>>,
}

impl<M: RawMutex, E, const N: usize> fmt::Debug for Events<M, E, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("missed", &self.missed()).finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<M: RawMutex, E, const N: usize> defmt::Format for Events<M, E, N> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Events {{ missed: {} }}", self.missed());
    }
}

impl<M: RawMutex, E, const N: usize> Events<M, E, N> {
    /// An empty channel.
    #[must_use]
    pub const fn new() -> Self {
        Self { channel: Channel::new(), missed: Mutex::new(Cell::new(0)) }
    }

    /// The next event.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn next(&self) -> E {
        self.channel.receive().await
    }

    /// The next event, if there is one already.
    pub fn try_next(&self) -> Option<E> {
        self.channel.try_receive().ok()
    }

    /// Events for which there was no room, saturating.
    pub fn missed(&self) -> u32 {
        self.missed.lock(Cell::get)
    }
}

impl<M: RawMutex, E, const N: usize> Default for Events<M, E, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: RawMutex, E: Clone, const N: usize> Observer<E> for &Events<M, E, N> {
    fn observe(&self, event: &E) {
        if self.channel.try_send(event.clone()).is_err() {
            self.missed.lock(|missed| missed.set(missed.get().saturating_add(1)));
        }
    }
}
