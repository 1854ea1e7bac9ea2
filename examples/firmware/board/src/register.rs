//! Access to memory-mapped registers.

use core::marker::PhantomData;

/// A register of the chip: a word, where nothing else is said.
pub(crate) struct Register<T = u32>(usize, PhantomData<T>);

impl<T> Register<T> {
    /// The register at `address`, which must be one of the chip's, and of this width.
    pub(crate) const fn at(address: usize) -> Self {
        Self(address, PhantomData)
    }

    pub(crate) fn read(&self) -> T {
        // SAFETY: an aligned register of this chip, by the contract of `at`.
        unsafe { (self.0 as *const T).read_volatile() }
    }

    pub(crate) fn write(&self, value: T) {
        // SAFETY: as above; the boards' modules write no register that could break memory safety.
        unsafe { (self.0 as *mut T).write_volatile(value) }
    }
}
