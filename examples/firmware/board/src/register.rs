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

/// A register of 8 bits, in a chip whose registers are no words.
#[cfg(feature = "virt")]
pub(crate) struct ByteRegister(usize);

#[cfg(feature = "virt")]
impl ByteRegister {
    /// The register at `address`, which must be one of the chip's.
    pub(crate) const fn at(address: usize) -> Self {
        Self(address)
    }

    pub(crate) fn read(&self) -> u8 {
        // SAFETY: a register of this chip, by the contract of `at`.
        unsafe { (self.0 as *const u8).read_volatile() }
    }

    pub(crate) fn write(&self, value: u8) {
        // SAFETY: as above; the boards' modules write no register that could break memory safety.
        unsafe { (self.0 as *mut u8).write_volatile(value) }
    }
}
