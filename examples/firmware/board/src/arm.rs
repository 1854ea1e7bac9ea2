//! Cortex-M: what the cores have in common, whatever chip they are in.

use core::cell::Cell;
use core::hint::black_box;

use ::cortex_m::interrupt::InterruptNumber;
use ::cortex_m::peripheral::scb::SystemHandler;
use ::cortex_m::peripheral::syst::SystClkSource;
use ::cortex_m::peripheral::{NVIC, SCB, SYST};
use ::cortex_m::{Peripherals, asm, register::msp};
use cortex_m_rt::{ExceptionFrame, exception};
use critical_section::Mutex;

pub use cortex_m_rt::entry;

#[cfg(feature = "lm3s6965")]
use crate::ethernet;
use crate::{chip, clock, exit, exit_code, interrupt, interrupt_executor, uart};

type Counter = ticks::Counter<{ chip::CORE_HZ }, { clock::HZ }>;

/// `SysTick` counts down, in 24 bits: its longest period, in cycles.
const COUNTS: u32 = 1 << 24;
/// QEMU stretches timer periods below 10 µs.
const SHORTEST: u32 = chip::CORE_HZ / 100_000;

/// A counter of ticks, of 32 bits, on the core's own timer and without a periodic tick: `SysTick` interrupts when the alarm is due, or once
/// per 2²⁴ cycles.
///
/// To set an alarm restarts `SysTick`, and some instructions pass between its last reading and that: the counter loses these. And of two
/// wraps within one critical section it sees one: then it steps back by a period, of 10 µs at least.
pub(crate) struct Timer {
    /// When the running period began.
    began: Counter,
    /// The length of the running period, in cycles; zero until the counter is started.
    period: u32,
}

impl Timer {
    pub(crate) const fn new() -> Self {
        Self { began: Counter::new(0), period: 0 }
    }

    /// Starts the counter at `ticks`.
    pub(crate) fn start(&mut self, ticks: u32) {
        (self.began, self.period) = (Counter::new(ticks), COUNTS);
        let mut timer = systick();
        timer.set_clock_source(SystClkSource::Core);
        timer.enable_interrupt();
        start_period(self.period);
        timer.enable_counter();
        await_reload();
        SCB::clear_pendst();
    }

    /// The counter.
    pub(crate) fn now(&self) -> u32 {
        self.began.after(self.elapsed()).ticks()
    }

    /// Interrupts when the counter gets to `alarm`, or earlier; at once if it has been there in the last half of its range.
    pub(crate) fn set_alarm(&mut self, alarm: u32) {
        let asked = self.elapsed();
        // No division between the last reading and the restart, on either side of them.
        let until = black_box(self.began.after(asked).cycles_until(alarm));
        let elapsed = self.elapsed();
        let period = until.saturating_sub(elapsed.saturating_sub(asked)).clamp(SHORTEST, COUNTS);
        start_period(period);
        self.began = self.began.after(black_box(elapsed));
        self.period = period;
        await_reload();
        // A wrap of the period before: it is in what has elapsed.
        SCB::clear_pendst();
    }

    /// The wrap that brought us here is no longer pending, so it has to be counted.
    pub(crate) fn on_interrupt(&mut self) {
        self.began = self.began.after(self.period);
        await_reload();
    }

    /// Cycles since the running period [began](Self::began).
    fn elapsed(&self) -> u32 {
        let before = SYST::get_current();
        // A wrap between the two reads shows up here; one already seen by the handler does not.
        match (SCB::is_pendst_pending(), SYST::get_current()) {
            (false, _) => self.period - before,
            // The counter stays at zero for the first cycle.
            (true, 0) => self.period,
            (true, left) => 2 * self.period - left,
        }
    }
}

/// Ends the running period, and lets one of so many cycles begin.
#[inline(always)]
fn start_period(cycles: u32) {
    let mut timer = systick();
    timer.set_reload(cycles - 1);
    timer.clear_current();
}

/// At the beginning of a period the counter stays at zero for a cycle, which reads as the end of the period.
fn await_reload() {
    while SYST::get_current() == 0 {}
}

/// The core's timer.
fn systick() -> SYST {
    // SAFETY: it is used by the clock, or where no tasks run, by a gauge or the image's own interrupt.
    unsafe { Peripherals::steal() }.SYST
}

/// The length of the period after the running one, in cycles.
static NEXT: Mutex<Cell<u32>> = Mutex::new(Cell::new(0));

/// Interrupts once after `first` cycles, and then as [`next_interrupt`] says.
pub(crate) fn start_interrupts(first: u32) {
    let mut timer = systick();
    timer.set_clock_source(SystClkSource::Core);
    next_interrupt(first);
    timer.clear_current();
    timer.enable_interrupt();
    timer.enable_counter();
}

/// How many cycles the period after the running one has.
pub(crate) fn next_interrupt(cycles: u32) {
    critical_section::with(|cs| NEXT.borrow(cs).set(cycles));
    systick().set_reload(cycles.saturating_sub(1));
}

pub(crate) fn stop_interrupts() {
    systick().disable_interrupt();
    SCB::clear_pendst();
}

/// In the interrupt, before the next period is set: how many cycles ago it was due.
pub(crate) fn late() -> u32 {
    let left = SYST::get_current();
    critical_section::with(|cs| NEXT.borrow(cs).get()).saturating_sub(1).saturating_sub(left)
}

/// Counts instructions, under an emulator that takes 256 ns for each. At most four million.
pub(crate) mod instructions {
    use super::{COUNTS, SYST, SystClkSource, chip, systick};

    /// A tick of the timer is shorter than half of it, so that rounding finds the very number.
    const NANOS: u64 = 1 << 8;
    const _: () = assert!(2 * 1_000_000_000 / NANOS < chip::CORE_HZ as u64);

    pub(crate) fn start() {
        let mut timer = systick();
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(COUNTS - 1);
        timer.clear_current();
        timer.enable_counter();
    }

    #[inline(always)]
    pub(crate) fn read() -> u32 {
        SYST::get_current()
    }

    /// From one reading to the next.
    pub(crate) fn between(before: u32, after: u32) -> u32 {
        of_cycles(before.wrapping_sub(after) % COUNTS)
    }

    /// In so many cycles of the timer.
    pub(crate) fn of_cycles(cycles: u32) -> u32 {
        let nanos = u64::from(cycles) * 1_000_000_000 / u64::from(chip::CORE_HZ);
        u32::try_from((nanos + NANOS / 2) / NANOS).unwrap_or(u32::MAX)
    }
}

/// Waits for an interrupt, while they are masked: one that is pending already ends it at once.
pub(crate) fn sleep() {
    asm::dsb();
    asm::wfi();
}

/// Resets the chip, as its watchdog would.
pub fn reset() -> ! {
    SCB::sys_reset()
}

/// An interrupt of the chip, by its number.
#[derive(Clone, Copy)]
struct Line(u16);

// SAFETY: below, it is made of the chip's own numbers only.
unsafe impl InterruptNumber for Line {
    fn number(self) -> u16 {
        self.0
    }
}

/// Lets the UART interrupt.
pub(crate) fn unmask_uart() {
    // SAFETY: no critical section relies on this interrupt being masked.
    unsafe { NVIC::unmask(Line(chip::uart::INTERRUPT)) };
}

/// Lets the Ethernet interrupt.
#[cfg(feature = "lm3s6965")]
pub(crate) fn unmask_ethernet() {
    // SAFETY: no critical section relies on this interrupt being masked.
    unsafe { NVIC::unmask(Line(chip::ethernet::INTERRUPT)) };
}

/// Priorities, where a greater number is a lower one. Those not set are 0: the timer's and the UART's. A Cortex-M0
/// has the upper two bits.
const LOW: u8 = 0x80;
const LOWEST: u8 = 0xFF;

/// Lets the core's software interrupt come, when no other wants to: all others preempt it.
pub(crate) fn start_software_interrupt() {
    // SAFETY: no critical section relies on priorities.
    unsafe { Peripherals::steal().SCB.set_priority(SystemHandler::PendSV, LOWEST) };
}

pub(crate) fn pend_software_interrupt() {
    SCB::set_pendsv();
}

/// Lets the image's own interrupt come: below the timer's, whose periods it may outlast.
pub(crate) fn start_alarm() {
    // SAFETY: no critical section relies on priorities, nor on this interrupt being masked.
    unsafe {
        Peripherals::steal().NVIC.set_priority(Line(chip::SPARE_INTERRUPT), LOW);
        NVIC::unmask(Line(chip::SPARE_INTERRUPT));
    }
}

/// In the timer's interrupt: the image's own is due.
pub(crate) fn on_alarm() {
    NVIC::pend(Line(chip::SPARE_INTERRUPT));
}

/// Where the stack is.
pub(crate) mod stack {
    use super::msp;

    unsafe extern "C" {
        /// The linker's: where the stack begins, and how far down it may grow.
        static _stack_start: u32;
        static _stack_end: u32;
    }

    pub(crate) fn top() -> *mut u32 {
        (&raw const _stack_start).cast_mut()
    }

    pub(crate) fn bottom() -> *mut u32 {
        (&raw const _stack_end).cast_mut()
    }

    /// The stack pointer.
    #[inline(always)]
    pub(crate) fn pointer() -> usize {
        msp::read() as usize
    }
}

#[exception]
fn SysTick() {
    clock::on_interrupt();
}

#[exception]
fn PendSV() {
    if let Some(executor) = interrupt_executor::running() {
        // SAFETY: polled here only, and an exception doesn't preempt itself.
        unsafe { executor.poll() };
    }
}

#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    defmt::error!("hard fault at {=u32:#010x}", frame.pc());
    exit(exit_code::FAULT)
}

/// Every interrupt without a vector of its own, also the UART's.
#[exception]
unsafe fn DefaultHandler(number: i16) {
    match u16::try_from(number) {
        Ok(chip::uart::INTERRUPT) => uart::on_interrupt(),
        #[cfg(feature = "lm3s6965")]
        Ok(chip::ethernet::INTERRUPT) => ethernet::on_interrupt(),
        Ok(chip::SPARE_INTERRUPT) if interrupt::on_alarm() => {}
        _ => {
            defmt::error!("unexpected interrupt {=i16}", number);
            exit(exit_code::FAULT)
        }
    }
}
