//! What of a breaker survives a reset.

use super::machine::State;
use super::trip::{PackedMeter, Trip};
use super::{CircuitBreaker, Transition};
use crate::cell::{CellKind, Packed, StateCell};
use crate::observe::Observer;
use crate::retained::{Reader, Retain, Writer};
use crate::time::{Clock, Instant};

/// A breaker's state apart from its clock: the times in it are those that were left when it was [saved](CircuitBreaker::save).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Saved {
    head: u64,
    tail: u64,
}

/// Four words.
impl Retain for Saved {
    type Memory = <(u64, u64) as Retain>::Memory;

    fn write(self, memory: &Self::Memory, writer: &mut Writer) {
        (self.head, self.tail).write(memory, writer);
    }

    fn read(memory: &Self::Memory, reader: &mut Reader) -> Self {
        let (head, tail) = <(u64, u64)>::read(memory, reader);
        Self { head, tail }
    }
}

impl<K, T, O> CircuitBreaker<K, T, O>
where
    T: Copy + Trip,
    T::Meter: PackedMeter,
    K: CellKind<State<T::Meter>>,
    O: Observer<Transition>,
{
    /// The state as it is now, to be [restored](Self::restore) after a reset. Windows of calls are too large for it: they don't pack.
    pub fn save(&self, clock: &impl Clock) -> Saved {
        let now = clock.now();
        let (head, tail) = self.cell.read(|state| state.moved(now, Instant::START)).pack();
        Saved { head, tail }
    }

    /// Goes on as the breaker that was saved, with what was left of its times; the time in between is not known, and counts as none. A
    /// half-open one begins anew with its probes. Calls that were under way there have ended without a report, and those under way here
    /// report too late. If that leads to another state, it is told.
    ///
    /// A breaker whose trip condition is another, or has other settings, has no use for it: that is another [version](crate::retained) of
    /// what is kept.
    pub fn restore(&self, saved: Saved, clock: &impl Clock) {
        let now = clock.now();
        let saved = State::unpack(saved.head, saved.tail).moved(Instant::START, now);
        self.change(|state, config, told| state.replace(config, saved, now, told));
    }
}
