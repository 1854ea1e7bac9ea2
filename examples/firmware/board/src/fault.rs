//! A panic ends the image, with a line in the log and an exit code of its own; so does a fault, of the core's own kind.

use core::panic::PanicInfo;

use crate::{exit, exit_code};

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
