//! What a piece of code costs, to the instruction.

use cortex_m::Peripherals;
use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;

use crate::{chip, stack};

/// What an instruction takes under `-icount shift=8`. A tick of the timer is shorter than half of it, so that rounding finds the
/// very number.
const NANOS_PER_INSTRUCTION: u64 = 1 << 8;
const _: () = assert!(2 * 1_000_000_000 / NANOS_PER_INSTRUCTION < chip::CORE_HZ as u64);

/// `SysTick` counts down, in 24 bits.
const LONGEST: u32 = (1 << 24) - 1;

/// Measures calls, in an image that doesn't [`run`](crate::run) tasks: their clock has the same timer.
#[derive(Debug)]
pub struct Gauge(());

impl Gauge {
    /// Starts the timer. There is only one: the second call gives `None`.
    pub fn take() -> Option<Self> {
        let mut timer = Peripherals::take()?.SYST;
        chip::start();
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(LONGEST);
        timer.clear_current();
        timer.enable_counter();
        Some(Self(()))
    }

    /// The instructions of a call beyond those of an empty one, under an emulator that takes 256 ns for each. At most four million.
    pub fn instructions(&self, work: &mut dyn FnMut()) -> u32 {
        instructions(work).saturating_sub(instructions(&mut || {}))
    }

    /// The bytes of stack that a call takes beyond those of an empty one.
    pub fn stack(&self, work: &mut dyn FnMut()) -> usize {
        stack::used_by(work).saturating_sub(stack::used_by(&mut || {}))
    }
}

// Never inlined, so that the empty call is measured by the same instructions.
#[inline(never)]
fn instructions(work: &mut dyn FnMut()) -> u32 {
    let before = SYST::get_current();
    work();
    let ticks = before.wrapping_sub(SYST::get_current()) & LONGEST;
    let nanos = u64::from(ticks) * 1_000_000_000 / u64::from(chip::CORE_HZ);
    u32::try_from((nanos + NANOS_PER_INSTRUCTION / 2) / NANOS_PER_INSTRUCTION).unwrap_or(u32::MAX)
}
