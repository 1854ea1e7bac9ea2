//! How deep the stack has been.

use core::ptr;

use crate::arch::stack::{bottom, pointer, top};

const PATTERN: u32 = 0xCCCC_CCCC;

/// Paints a pattern over the stack that is free, in an image that has no interrupts yet: from then on [`stack_used`] knows how deep it has
/// been.
#[inline(never)]
pub fn paint_stack() {
    let mut word = bottom();
    while word.addr() < pointer() {
        // SAFETY: RAM below the stack pointer holds nothing alive.
        unsafe { ptr::write_volatile(word, PATTERN) };
        word = word.wrapping_add(1);
    }
}

/// The most bytes of stack in use since it was painted, be it by [`paint_stack`] or by [`run`](crate::run).
pub fn stack_used() -> usize {
    below(top())
}

/// The bytes of stack that a call takes, from a fresh pattern below this function's own.
#[inline(never)]
pub(crate) fn used_by(work: &mut dyn FnMut()) -> usize {
    let top = ptr::with_exposed_provenance_mut::<u32>(pointer());
    paint_stack();
    work();
    below(top)
}

/// The bytes from `top` down to the deepest word that doesn't hold the pattern any more.
fn below(top: *mut u32) -> usize {
    let mut deepest = bottom();
    // SAFETY: all words from the stack's end up to a place in it are RAM.
    while deepest < top && unsafe { ptr::read_volatile(deepest) } == PATTERN {
        deepest = deepest.wrapping_add(1);
    }
    top.addr() - deepest.addr()
}
