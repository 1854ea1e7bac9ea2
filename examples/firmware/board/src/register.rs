//! Access to memory-mapped registers.

/// A 32-bit register of the chip.
pub(crate) struct Register(usize);

impl Register {
    /// The register at `address`, which must be one of the chip's.
    pub(crate) const fn at(address: usize) -> Self {
        Self(address)
    }

    pub(crate) fn read(&self) -> u32 {
        // SAFETY: an aligned register of this chip, by the contract of `at`.
        unsafe { (self.0 as *const u32).read_volatile() }
    }

    pub(crate) fn write(&self, value: u32) {
        // SAFETY: as above; the boards' modules write no register that could break memory safety.
        unsafe { (self.0 as *mut u32).write_volatile(value) }
    }
}
