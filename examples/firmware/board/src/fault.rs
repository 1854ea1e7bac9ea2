//! Whatever must not happen ends the image, with a line in the log and an exit code of its own.

use core::panic::PanicInfo;

use cortex_m_rt::{ExceptionFrame, exception};

use crate::{exit, exit_code, uart};

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    // The place without the message: formatting one costs kilobytes of flash.
    if let Some(place) = info.location() {
        defmt::error!("panic at {=str}:{=u32}", place.file(), place.line());
    }
    exit(exit_code::PANIC)
}

/// defmt has logged the message already.
#[defmt::panic_handler]
fn panic_after_log() -> ! {
    exit(exit_code::PANIC)
}

#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    defmt::error!("hard fault at {=u32:#010x}", frame.pc());
    exit(exit_code::FAULT)
}

/// Every interrupt without a vector of its own, also the UART's.
#[exception]
unsafe fn DefaultHandler(interrupt: i16) {
    if !uart::on_interrupt(interrupt) {
        defmt::error!("unexpected interrupt {=i16}", interrupt);
        exit(exit_code::FAULT)
    }
}
