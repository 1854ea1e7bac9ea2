//! How deep the stack has been.

use core::ptr;

use cortex_m::register::msp;
use cortex_m_rt::STACK_PAINT_VALUE;

unsafe extern "C" {
    /// The linker's: where the stack begins, and how far down it may grow.
    static _stack_start: u32;
    static _stack_end: u32;
}

/// The most bytes of stack in use since reset, from the pattern that start-up painted over it.
pub fn stack_used() -> usize {
    below((&raw const _stack_start).cast_mut())
}

/// The bytes of stack that a call takes, from a fresh pattern below this function's own.
#[inline(never)]
pub(crate) fn used_by(work: &mut dyn FnMut()) -> usize {
    let top = ptr::with_exposed_provenance_mut::<u32>(msp::read() as usize);
    let mut word = (&raw const _stack_end).cast_mut();
    while word < top {
        // SAFETY: RAM below the stack pointer holds nothing alive, and no interrupt uses it while this image measures.
        unsafe { ptr::write_volatile(word, STACK_PAINT_VALUE) };
        word = word.wrapping_add(1);
    }
    work();
    below(top)
}

/// The bytes from `top` down to the deepest word that doesn't hold the pattern any more.
fn below(top: *mut u32) -> usize {
    let mut deepest = (&raw const _stack_end).cast_mut();
    // SAFETY: all words from the stack's end up to a place in it are RAM.
    while deepest < top && unsafe { ptr::read_volatile(deepest) } == STACK_PAINT_VALUE {
        deepest = deepest.wrapping_add(1);
    }
    top.addr() - deepest.addr()
}
