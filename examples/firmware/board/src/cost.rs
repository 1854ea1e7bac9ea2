//! What a piece of code costs, to the instruction.

use core::cell::Cell;

use critical_section::Mutex;

use crate::arch::instructions;
use crate::{chip, stack};

static TAKEN: Mutex<Cell<bool>> = Mutex::new(Cell::new(false));

/// Measures calls, in an image that doesn't [`run`](crate::run) tasks: their clock has the same timer.
#[derive(Debug)]
pub struct Gauge(());

impl Gauge {
    /// Starts the timer. There is only one: the second call gives `None`.
    pub fn take() -> Option<Self> {
        if critical_section::with(|cs| TAKEN.borrow(cs).replace(true)) {
            return None;
        }
        chip::start();
        instructions::start();
        Some(Self(()))
    }

    /// The instructions of a call beyond those of an empty one, under an emulator that takes 256 ns for each. At most four million.
    pub fn instructions(&self, work: &mut dyn FnMut()) -> u32 {
        counted(work).saturating_sub(counted(&mut || {}))
    }

    /// The bytes of stack that a call takes beyond those of an empty one.
    pub fn stack(&self, work: &mut dyn FnMut()) -> usize {
        stack::used_by(work).saturating_sub(stack::used_by(&mut || {}))
    }
}

// Never inlined, so that the empty call is measured by the same instructions.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) -> u32 {
    let before = instructions::read();
    work();
    instructions::between(before, instructions::read())
}
