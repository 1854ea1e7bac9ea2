//! How deep the stack has been.

use core::ptr;

unsafe extern "C" {
    /// The linker's: where the stack begins, and how far down it may grow.
    static _stack_start: u32;
    static _stack_end: u32;
}

/// The most bytes of stack in use since reset, from the pattern that start-up painted over it.
pub fn stack_used() -> usize {
    let top = &raw const _stack_start;
    let mut deepest = &raw const _stack_end;
    // SAFETY: all words between the two symbols are RAM, and the read goes no further than the top.
    while deepest < top && unsafe { ptr::read_volatile(deepest) } == cortex_m_rt::STACK_PAINT_VALUE {
        deepest = deepest.wrapping_add(1);
    }
    top.addr() - deepest.addr()
}
