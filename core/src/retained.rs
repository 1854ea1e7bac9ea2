//! State that survives a reset: in memory that start-up leaves alone, with a checksum and a version.
//!
//! A chip that is reset by its watchdog starts over with everything forgotten, also why. What must not be forgotten goes to RAM that
//! nobody initialises: how often in a row it was [reset](crate::boot_loop), that the breaker of a dead device is
//! [open](crate::circuit_breaker::CircuitBreaker::save), how much is left of a retry budget.
//!
//! ```
//! use failsoft_core::{Instant, cell::Local, circuit_breaker::{CircuitBreaker, Config, Saved, StateKind}, retained::Retained};
//!
//! // On a chip, in a section that start-up leaves alone: `#[unsafe(link_section = ".uninit.sensor")]`.
//! static SENSOR: Retained<Saved> = Retained::new();
//!
//! let breaker: CircuitBreaker<Local> = CircuitBreaker::new(Config::new().validate()?);
//! breaker.open_until(Instant::from_millis(90_000));
//! SENSOR.store(breaker.save(&Instant::from_millis(60_000)));
//!
//! // Here the chip is reset, and its clock starts anew. The breaker has 30 s to go.
//! let breaker: CircuitBreaker<Local> = CircuitBreaker::new(Config::new().validate()?);
//! if let Some(saved) = SENSOR.load() {
//!     breaker.restore(saved, &Instant::START);
//! }
//! assert_eq!((breaker.state(), breaker.poll_timeout()), (StateKind::Open, Some(Instant::from_millis(30_000))));
//! # Ok::<(), failsoft_core::ConfigError>(())
//! ```
//!
//! # What is believed
//! * After a power loss the memory holds anything. A checksum over all of it tells: of four billion kinds of garbage, one passes.
//! * A firmware of another layout gives it another version, and what is left of the other one is ignored. The version is a part of the
//!   type, `Retained<State, 2>`, for it must not lie in the memory itself.
//! * There are two copies, written in turns: a reset in the middle of a [`store`](Retained::store) leaves the one before.
//! * Writes that a data cache holds back are lost with a reset: on a chip that has one, the section must not be cached.
//!
//! # Defaults
//!
//! | what | default | range | at the extremes |
//! | --- | --- | --- | --- |
//! | version of the layout | 1 | any | never changed: what another layout has left is taken for a value |
//!
//! # When not to use it
//! For what must survive a power loss: that belongs into flash. And for what can be found out again: it may have changed meanwhile.
//!
//! # What can be kept
//! Numbers, [breakers](crate::circuit_breaker::Saved), tuples and arrays of them, and whatever type of yours implements [`Retain`] by way
//! of these.
//!
//! # Source
//! The checksum is `MurmurHash3_x86_32` by A. Appleby (2011, in the public domain), over whole words. Two copies in turns, the newer one
//! by its number, are as old as disks: B. Lampson and H. Sturgis, "Crash recovery in a distributed data storage system", 1979.

use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::cell::Fresh;

/// A value that can be kept over a reset, word by word.
///
/// ```
/// use failsoft_core::retained::{Reader, Retain, Writer};
///
/// #[derive(Clone, Copy)]
/// struct Uptime {
///     boots: u32,
///     seconds: u64,
/// }
///
/// impl Retain for Uptime {
///     type Memory = <(u32, u64) as Retain>::Memory;
///
///     fn write(self, memory: &Self::Memory, writer: &mut Writer) {
///         (self.boots, self.seconds).write(memory, writer);
///     }
///
///     fn read(memory: &Self::Memory, reader: &mut Reader) -> Self {
///         let (boots, seconds) = Retain::read(memory, reader);
///         Self { boots, seconds }
///     }
/// }
/// ```
pub trait Retain: Copy {
    /// Where it is kept: words, of which any content is valid.
    type Memory: Fresh;

    /// Writes it there.
    fn write(self, memory: &Self::Memory, writer: &mut Writer);

    /// Reads it from there. The memory may hold anything; then what is read is dropped.
    fn read(memory: &Self::Memory, reader: &mut Reader) -> Self;
}

/// Writes words, and sums them up.
#[derive(Debug)]
pub struct Writer(Checksum);

/// Reads words, and sums them up.
#[derive(Debug)]
pub struct Reader(Checksum);

impl Fresh for AtomicU32 {
    const FRESH: Self = Self::new(0);
}

impl<T: Fresh, const N: usize> Fresh for [T; N] {
    const FRESH: Self = [T::FRESH; N];
}

impl Retain for u32 {
    type Memory = AtomicU32;

    fn write(self, memory: &AtomicU32, Writer(checksum): &mut Writer) {
        checksum.add(self);
        memory.store(self, Relaxed);
    }

    fn read(memory: &AtomicU32, Reader(checksum): &mut Reader) -> Self {
        let word = memory.load(Relaxed);
        checksum.add(word);
        word
    }
}

/// The lower half first.
impl Retain for u64 {
    type Memory = <(u32, u32) as Retain>::Memory;

    #[expect(clippy::cast_possible_truncation, reason = "the halves are meant")]
    fn write(self, memory: &Self::Memory, writer: &mut Writer) {
        (self as u32, (self >> u32::BITS) as u32).write(memory, writer);
    }

    fn read(memory: &Self::Memory, reader: &mut Reader) -> Self {
        let (low, high) = <(u32, u32)>::read(memory, reader);
        Self::from(high) << u32::BITS | Self::from(low)
    }
}

impl<T: Retain, const N: usize> Retain for [T; N] {
    type Memory = [T::Memory; N];

    fn write(self, memory: &Self::Memory, writer: &mut Writer) {
        for (value, memory) in self.into_iter().zip(memory) {
            value.write(memory, writer);
        }
    }

    fn read(memory: &Self::Memory, reader: &mut Reader) -> Self {
        memory.each_ref().map(|memory| T::read(memory, reader))
    }
}

macro_rules! tuples {
    ($($part:ident $place:tt),+) => {
        impl<$($part: Retain),+> Retain for ($($part,)+) {
            type Memory = ($($part::Memory,)+);

            fn write(self, memory: &Self::Memory, writer: &mut Writer) {
                $(self.$place.write(&memory.$place, writer);)+
            }

            fn read(memory: &Self::Memory, reader: &mut Reader) -> Self {
                ($($part::read(&memory.$place, reader),)+)
            }
        }
    };
}
tuples!(A 0, B 1);
tuples!(A 0, B 1, C 2);
tuples!(A 0, B 1, C 2, D 3);

/// A value in memory that a reset leaves alone, if the section of its `static` says so. `VERSION` is that of its layout.
///
/// It is written from one place at a time: where a task and an interrupt both store, each does so in a critical section. What two stores
/// at once leave behind is not taken for a value; the one before may be.
pub struct Retained<T: Retain, const VERSION: u32 = 1> {
    slots: [Slot<T::Memory>; 2],
}

/// A place for one of the two copies.
struct Slot<M> {
    /// How many stores there have been, wrapping.
    number: AtomicU32,
    value: M,
    checksum: AtomicU32,
}

/// For a `static`: the content is never seen.
impl<M: Fresh> Fresh for Slot<M> {
    const FRESH: Self = Self { number: Fresh::FRESH, value: M::FRESH, checksum: Fresh::FRESH };
}

impl<T: Retain, const VERSION: u32> fmt::Debug for Retained<T, VERSION> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retained").field("version", &VERSION).field("stored", &self.latest().is_some()).finish()
    }
}

#[cfg(feature = "defmt")]
impl<T: Retain, const VERSION: u32> defmt::Format for Retained<T, VERSION> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Retained {{ version: {}, stored: {} }}", VERSION, self.latest().is_some());
    }
}

impl<T: Retain, const VERSION: u32> Default for Retained<T, VERSION> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Retain, const VERSION: u32> Retained<T, VERSION> {
    /// Memory with nothing in it; where start-up leaves it alone, with whatever is there.
    #[must_use]
    pub const fn new() -> Self {
        Self { slots: Fresh::FRESH }
    }

    /// The value that was stored last; none after a power loss, by another version, or where there never was one.
    pub fn load(&self) -> Option<T> {
        self.latest().map(|(_, value, _)| value)
    }

    /// Stores a value. A reset at any moment leaves this one or the one before.
    pub fn store(&self, value: T) {
        let [first, second] = &self.slots;
        let (number, older) = match self.latest() {
            Some((number, _, true)) => (number.wrapping_add(1), second),
            Some((number, _, false)) => (number.wrapping_add(1), first),
            None => (0, first),
        };
        let mut writer = Writer(Checksum::new(VERSION));
        number.write(&older.number, &mut writer);
        value.write(&older.value, &mut writer);
        older.checksum.store(writer.0.finish(), Relaxed);
    }

    /// The newer one of what is valid: its number, and whether it is the first copy.
    fn latest(&self) -> Option<(u32, T, bool)> {
        let [first, second] = &self.slots;
        match (Self::read(first), Self::read(second)) {
            // They are written in turns, so that one is the next after the other.
            (Some((one, _)), Some((other, value))) if other == one.wrapping_add(1) => Some((other, value, false)),
            (Some((number, value)), _) => Some((number, value, true)),
            (None, Some((number, value))) => Some((number, value, false)),
            (None, None) => None,
        }
    }

    fn read(slot: &Slot<T::Memory>) -> Option<(u32, T)> {
        let mut reader = Reader(Checksum::new(VERSION));
        let (number, value) = (u32::read(&slot.number, &mut reader), T::read(&slot.value, &mut reader));
        (reader.0.finish() == slot.checksum.load(Relaxed)).then_some((number, value))
    }
}

/// `MurmurHash3_x86_32` of words, seeded with a version.
#[derive(Debug)]
struct Checksum {
    hash: u32,
    bytes: u32,
}

impl Checksum {
    const fn new(version: u32) -> Self {
        Self { hash: version, bytes: 0 }
    }

    const fn add(&mut self, word: u32) {
        let word = word.wrapping_mul(0xCC9E_2D51).rotate_left(15).wrapping_mul(0x1B87_3593);
        self.hash = (self.hash ^ word).rotate_left(13).wrapping_mul(5).wrapping_add(0xE654_6B64);
        self.bytes = self.bytes.wrapping_add(4);
    }

    const fn finish(&self) -> u32 {
        let mut hash = self.hash ^ self.bytes;
        hash = (hash ^ hash >> 16).wrapping_mul(0x85EB_CA6B);
        hash = (hash ^ hash >> 13).wrapping_mul(0xC2B2_AE35);
        hash ^ hash >> 16
    }
}

#[cfg(test)]
mod tests;
