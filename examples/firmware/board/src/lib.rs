//! The boards that QEMU emulates, as far as the images here need them.
//!
//! | feature | machine | core | clock | flash | RAM | UART |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | `microbit` | `microbit` | Cortex-M0 | 16 MHz | 256 KiB | 16 KiB | nRF51 |
//! | `lm3s6965` | `lm3s6965evb` | Cortex-M3, or an M4F or M33 in its place | 20 MHz | 256 KiB | 64 KiB | PL011 |
//! | `virt` | `virt` | RISC-V, RV32IMC: no compare-and-swap | timer 10 MHz | 512 KiB | 64 KiB | 16550 |
//!
//! An image gets embassy's clock, of 1 MHz unless the feature `tick-1khz` or `tick-32khz` is chosen, an [executor that sleeps](run), a
//! [`Uart`], a [`Watchdog`], a [`ResetWatchdog`] and memory that a reset [leaves alone](retained!). It logs by defmt through semihosting, or
//! writes [`Text`] there, and its [exit code](exit) is the emulator's. An image without tasks can measure what code costs by a [`Gauge`],
//! or have an [`interrupt`](fn@interrupt) of its own. `lm3s6965` has Ethernet besides.
//!
//! An image may have tasks of two priorities: those of an [`interrupt_executor`](fn@interrupt_executor) preempt those
//! of [`run`]. Above both are the interrupts: the clock's, the UART's, and an [`alarm`] of the image's own.

#![no_std]
#![expect(unsafe_code, reason = "registers, and the executor's promise to be polled in one place")]

#[cfg(not(any(feature = "lm3s6965", feature = "microbit", feature = "virt")))]
compile_error!("choose a board by feature: `lm3s6965`, `microbit` or `virt`");
#[cfg(any(
    all(feature = "lm3s6965", feature = "microbit"),
    all(feature = "lm3s6965", feature = "virt"),
    all(feature = "microbit", feature = "virt")
))]
compile_error!("choose one board only: `lm3s6965`, `microbit` or `virt`");

mod clock;
mod cost;
#[cfg(feature = "lm3s6965")]
mod ethernet;
mod executor;
mod fault;
mod host;
mod interrupt;
mod interrupt_executor;
mod reference;
mod register;
mod retained;
mod stack;
mod text;
mod uart;
mod watchdog;

#[cfg(target_arch = "arm")]
#[path = "arm.rs"]
mod arch;
#[cfg(target_arch = "riscv32")]
#[path = "riscv32.rs"]
mod arch;

#[cfg(feature = "lm3s6965")]
#[path = "lm3s6965.rs"]
mod chip;
#[cfg(feature = "microbit")]
#[path = "microbit.rs"]
mod chip;
#[cfg(feature = "virt")]
#[path = "virt.rs"]
mod chip;

pub use arch::{entry, reset};
pub use cost::Gauge;
#[cfg(feature = "lm3s6965")]
pub use ethernet::{Ethernet, Received, ToSend};
pub use executor::{asleep, run, run_from};
pub use host::{argument, exit, exit_code};
pub use interrupt::{alarm, interrupt};
pub use interrupt_executor::interrupt_executor;
pub use reference::Reference;
pub use retained::lose_power;
pub use stack::{paint_stack, stack_used};
pub use text::Text;
pub use uart::{Uart, UartError};
pub use watchdog::{ResetWatchdog, Watchdog};

// The global logger: linked for its side effect.
use defmt_semihosting as _;
