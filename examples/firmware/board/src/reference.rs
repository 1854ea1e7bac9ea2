//! A second counter of the chip's, to check the clock by.

use crate::chip::reference;

/// A counter of the chip's that the [clock](crate::run) knows nothing of, and that is never set: what passes by the
/// clock while the core is awake has to pass by this one.
#[derive(Debug)]
pub struct Reference {
    before: u32,
    cycles: u64,
}

impl Reference {
    /// Starts at zero, in an image that [`run`](crate::run)s tasks.
    pub fn start() -> Self {
        reference::start();
        Self { before: reference::read(), cycles: 0 }
    }

    /// The nanoseconds since the start. It wants to be asked once in three minutes at least: the counter has 32 bits.
    pub fn nanos(&mut self) -> u64 {
        let now = reference::read();
        self.cycles += u64::from(now.wrapping_sub(self.before));
        self.before = now;
        self.cycles * 1_000_000_000 / u64::from(reference::HZ)
    }
}
