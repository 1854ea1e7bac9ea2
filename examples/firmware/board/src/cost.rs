//! What a piece of code costs, to the instruction.

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, Ordering};

use critical_section::Mutex;

use crate::arch::{self, instructions};
use crate::{chip, interrupt, stack};

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

    /// The most instructions by which a call holds an interrupt off: its longest critical section, beyond an interrupt's own way in.
    ///
    /// Found as an interrupt finds it, to within two instructions: the timer's comes some hundred times and more at random moments of the
    /// call, and looks how late it is. Before each call, `prepare` brings things to where it starts. A section longer than the timer's
    /// shortest period, 8,192 cycles, would not be told from a shorter one.
    pub fn held_off(&self, prepare: &dyn Fn(), work: &mut dyn FnMut()) -> u32 {
        let longest = latest(prepare, work).saturating_sub(latest(&|| {}, &mut || {}));
        // The two share a timer.
        instructions::start();
        longest
    }
}

/// Whether it is the call that is interrupted.
static AT_WORK: AtomicBool = AtomicBool::new(false);
static SEEN: Mutex<Cell<Seen>> = Mutex::new(Cell::new(Seen { interrupts: 0, latest: 0, random: 1 }));

#[derive(Clone, Copy)]
struct Seen {
    /// Those that came in a call.
    interrupts: u32,
    /// In cycles of the timer.
    latest: u32,
    random: u32,
}

/// The periods of the timer, in its cycles: the shortest is longer than any critical section.
const SHORTEST: u32 = 1 << 13;
const LONGER: u32 = 1 << 12;
/// Interrupts that are seen for each instruction of the call, about; at least and, of a call that takes long, at most.
const FOR_EACH: u32 = 4;
const AT_LEAST: u32 = 200;
const AT_MOST: u32 = 10_000;

fn on_interrupt() -> u32 {
    let late = arch::late();
    critical_section::with(|cs| {
        let mut seen = SEEN.borrow(cs).get();
        if AT_WORK.load(Ordering::Relaxed) {
            seen.interrupts += 1;
            seen.latest = seen.latest.max(late);
        }
        // Knuth, The Art of Computer Programming, volume 2, 3.3.4: good in its upper bits.
        seen.random = seen.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        SEEN.borrow(cs).set(seen);
        SHORTEST + (seen.random >> 16) % LONGER
    })
}

/// How late an interrupt comes at most, in instructions.
fn latest(prepare: &dyn Fn(), work: &mut dyn FnMut()) -> u32 {
    prepare();
    let wanted = (counted(work) * FOR_EACH + AT_LEAST).min(AT_MOST);
    critical_section::with(|cs| SEEN.borrow(cs).set(Seen { interrupts: 0, latest: 0, random: 1 }));
    interrupt(on_interrupt);
    while critical_section::with(|cs| SEEN.borrow(cs).get().interrupts) < wanted {
        prepare();
        AT_WORK.store(true, Ordering::Relaxed);
        work();
        AT_WORK.store(false, Ordering::Relaxed);
    }
    arch::stop_interrupts();
    instructions::start();
    instructions::of_cycles(critical_section::with(|cs| SEEN.borrow(cs).get().latest))
}

// Never inlined, so that the empty call is measured by the same instructions.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) -> u32 {
    let before = instructions::read();
    work();
    instructions::between(before, instructions::read())
}
