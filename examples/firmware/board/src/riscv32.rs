//! RISC-V, a core of 32 bits, and what QEMU's machine has around it as all such chips do: a timer and an interrupt controller.

use core::cell::Cell;

use ::riscv::asm;
use ::riscv::interrupt::Interrupt;
use ::riscv::register::mstatus::{self, MPP};
use ::riscv::register::{mcause, mepc, mie};
use critical_section::Mutex;
use riscv_rt::{TrapFrame, core_interrupt};

pub use riscv_rt::entry;

use crate::register::Register;
use crate::{chip, clock, exit, exit_code, interrupt, interrupt_executor, uart};

type Counter = ticks::Counter<{ chip::TIMER_HZ }, { clock::HZ }>;

/// An alarm comes at the latest then, in counts: those since the one before fit 32 bits, also when it is late.
const LONGEST: u32 = u32::MAX / 2;

const COUNT: [Register; 2] = [Register::at(0x0200_BFF8), Register::at(0x0200_BFFC)];
const COMPARE: [Register; 2] = [Register::at(0x0200_4000), Register::at(0x0200_4004)];

fn count() -> u64 {
    loop {
        let high = COUNT[1].read();
        let low = COUNT[0].read();
        if high == COUNT[1].read() {
            return u64::from(high) << 32 | u64::from(low);
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "cut into halves")]
fn interrupt_at(count: u64) {
    // What is there in between may be in the past: then the interrupt comes too early, which is harmless. A time that is never reached
    // would not be: after a reset QEMU can jump to whatever is next.
    COMPARE[0].write(count as u32);
    COMPARE[1].write((count >> 32) as u32);
}

/// A counter of ticks, of 32 bits.
pub(crate) struct Timer {
    /// What it was, and the machine's count that it belongs to: so that what has passed since takes no 64-bit division.
    seen: Counter,
    count: u64,
}

impl Timer {
    pub(crate) const fn new() -> Self {
        Self { seen: Counter::new(0), count: 0 }
    }

    /// Starts the counter at `ticks`.
    pub(crate) fn start(&mut self, ticks: u32) {
        *self = Self { seen: Counter::new(ticks), count: count() };
        interrupt_at(self.count + u64::from(LONGEST));
        start_timer_interrupt();
    }

    /// The counter.
    pub(crate) fn now(&self) -> u32 {
        self.seen.after(self.elapsed()).ticks()
    }

    /// Interrupts when the counter gets to `alarm`, or earlier; at once if it has been there in the last half of its range.
    pub(crate) fn set_alarm(&mut self, alarm: u32) {
        let elapsed = self.elapsed();
        self.seen = self.seen.after(elapsed);
        self.count += u64::from(elapsed);
        interrupt_at(self.count + u64::from(self.seen.cycles_until(alarm).min(LONGEST)));
    }

    /// The next alarm ends the interrupt.
    pub(crate) fn on_interrupt(&mut self) {}

    /// Counts since [`count`](Self::count).
    fn elapsed(&self) -> u32 {
        u32::try_from(count() - self.count).unwrap_or(u32::MAX)
    }
}

fn start_timer_interrupt() {
    // SAFETY: no critical section relies on interrupts being masked here.
    unsafe {
        mie::set_mtimer();
        mstatus::set_mie();
    }
}

/// When the image's own interrupt is due, and how many counts it has until the one after.
static PERIODS: Mutex<Cell<(u64, u32)>> = Mutex::new(Cell::new((0, 0)));

/// Interrupts once after `first` counts of the timer, and then as [`next_interrupt`] says.
pub(crate) fn start_interrupts(first: u32) {
    let due = count() + u64::from(first);
    critical_section::with(|cs| PERIODS.borrow(cs).set((due, first)));
    interrupt_at(due);
    start_timer_interrupt();
}

/// How many counts the period after the one that begins now has.
pub(crate) fn next_interrupt(counts: u32) {
    critical_section::with(|cs| {
        let (due, running) = PERIODS.borrow(cs).get();
        let due = due + u64::from(running);
        PERIODS.borrow(cs).set((due, counts));
        interrupt_at(due);
    });
}

pub(crate) fn stop_interrupts() {
    // SAFETY: no critical section relies on it.
    unsafe { mie::clear_mtimer() };
}

/// In the interrupt, before the next period is set: how many counts ago it was due.
pub(crate) fn late() -> u32 {
    let now = count();
    let (due, _) = critical_section::with(|cs| PERIODS.borrow(cs).get());
    u32::try_from(now.saturating_sub(due)).unwrap_or(u32::MAX)
}

/// Counts instructions, under an emulator that takes 256 ns for each: there, cycles are nanoseconds.
pub(crate) mod instructions {
    use ::riscv::register::{mcycle, mstatus};

    /// With interrupts on, as they are in use: a critical section then has them to restore.
    pub(crate) fn start() {
        // SAFETY: no critical section relies on it.
        unsafe { mstatus::set_mie() };
    }

    #[inline(always)]
    pub(crate) fn read() -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "four seconds and more are beyond any call")]
        let low = mcycle::read() as u32;
        low
    }

    /// From one reading to the next.
    pub(crate) fn between(before: u32, after: u32) -> u32 {
        after.wrapping_sub(before) >> 8
    }

    /// In so many counts of the timer.
    pub(crate) fn of_cycles(counts: u32) -> u32 {
        let nanos = u64::from(counts) * u64::from(1_000_000_000 / super::chip::TIMER_HZ);
        u32::try_from((nanos + (1 << 7)) >> 8).unwrap_or(u32::MAX)
    }
}

/// Waits for an interrupt, while they are masked: one that is pending already ends it at once.
pub(crate) fn sleep() {
    asm::wfi();
}

/// Resets the chip, as a watchdog would.
pub fn reset() -> ! {
    chip::reset();
    // Until it does.
    loop {
        asm::nop();
    }
}

/// The interrupt controller, as far as one source and one core need it.
mod controller {
    use crate::register::Register;

    pub(super) const PRIORITIES: usize = 0x0C00_0000;
    pub(super) const ENABLED: Register = Register::at(0x0C00_2000);
    /// Reading it claims an interrupt, writing it ends that.
    pub(super) const CLAIM: Register = Register::at(0x0C20_0004);
}

/// Lets the UART interrupt.
pub(crate) fn unmask_uart() {
    Register::at(controller::PRIORITIES + 4 * chip::uart::INTERRUPT as usize).write(1);
    controller::ENABLED.write(1 << chip::uart::INTERRUPT);
    // SAFETY: no critical section relies on this interrupt being masked.
    unsafe { mie::set_mext() };
}

/// The core's software interrupt is pending as long as this is 1.
const SOFTWARE_INTERRUPT: Register = Register::at(0x0200_0000);

/// Lets the core's software interrupt come: see [`machine_soft`].
pub(crate) fn start_software_interrupt() {
    // SAFETY: no critical section relies on this interrupt being masked.
    unsafe { mie::set_msoft() };
}

pub(crate) fn pend_software_interrupt() {
    SOFTWARE_INTERRUPT.write(1);
}

pub(crate) fn start_alarm() {}

/// In the timer's interrupt: the image's own is due. There is no other to take it, and the timer doesn't mind.
pub(crate) fn on_alarm() {
    interrupt::on_alarm();
}

/// Where the stack is.
pub(crate) mod stack {
    use core::arch::asm;

    unsafe extern "C" {
        /// The linker's: where the stack begins, and how far down it may grow.
        static __sstack: u32;
        static __estack: u32;
    }

    pub(crate) fn top() -> *mut u32 {
        (&raw const __sstack).cast_mut()
    }

    pub(crate) fn bottom() -> *mut u32 {
        (&raw const __estack).cast_mut()
    }

    /// The stack pointer.
    #[inline(always)]
    pub(crate) fn pointer() -> usize {
        let pointer;
        // SAFETY: it only reads a register.
        unsafe { asm!("mv {}, sp", out(reg) pointer, options(nomem, nostack, preserves_flags)) };
        pointer
    }
}

#[core_interrupt(Interrupt::MachineTimer)]
fn machine_timer() {
    clock::on_interrupt();
}

/// Interrupts don't nest by themselves here: the tasks in this one would hold off all others for as long as they run.
/// So it masks itself alone and lets the others in. Whoever is woken meanwhile makes it pending again.
#[core_interrupt(Interrupt::MachineSoft)]
fn machine_soft() {
    let Some(executor) = interrupt_executor::running() else { unexpected() };
    SOFTWARE_INTERRUPT.write(0);
    let interrupted = mepc::read();
    // SAFETY: in an interrupt and in no critical section. Its cause has been cleared, and as it is masked it can't
    // come within itself, so that this poll is the only one. What another interrupt overwrites is put back: all code
    // here runs in machine mode, and where interrupts come they are not masked.
    unsafe {
        mie::clear_msoft();
        mstatus::set_mie();
        executor.poll();
        mstatus::clear_mie();
        mie::set_msoft();
        mstatus::set_mpie();
        mstatus::set_mpp(MPP::Machine);
        mepc::write(interrupted);
    }
}

#[core_interrupt(Interrupt::MachineExternal)]
fn machine_external() {
    let claimed = controller::CLAIM.read();
    if claimed == u32::from(chip::uart::INTERRUPT) {
        uart::on_interrupt();
    } else {
        defmt::error!("unexpected interrupt {=u32}", claimed);
        exit(exit_code::FAULT)
    }
    controller::CLAIM.write(claimed);
}

#[unsafe(export_name = "ExceptionHandler")]
fn exception(_frame: &TrapFrame) -> ! {
    defmt::error!("exception {=usize} at {=usize:#010x}", mcause::read().code(), mepc::read());
    exit(exit_code::FAULT)
}

#[unsafe(export_name = "DefaultHandler")]
fn unexpected() -> ! {
    defmt::error!("unexpected interrupt {=usize}", mcause::read().code());
    exit(exit_code::FAULT)
}
