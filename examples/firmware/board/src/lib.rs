//! The boards that QEMU emulates, as far as the images here need them.
//!
//! | feature | machine | core | clock | flash | RAM | UART |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | `microbit` | `microbit` | Cortex-M0 | 16 MHz | 256 KiB | 16 KiB | nRF51 |
//! | `lm3s6965` | `lm3s6965evb` | Cortex-M3, or an M4F or M33 in its place | 20 MHz | 256 KiB | 64 KiB | PL011 |
//!
//! An image gets embassy's clock, an [executor that sleeps](run), a [`Uart`] and a [`Watchdog`]. It logs by defmt through semihosting, or
//! writes [`Text`] there, and its [exit code](exit) is the emulator's. An image without tasks can measure what code costs by a [`Gauge`],
//! or have an [`interrupt`](fn@interrupt) of its own.

#![no_std]
#![expect(unsafe_code, reason = "registers, and the executor's promise to be polled in one place")]

#[cfg(not(any(feature = "microbit", feature = "lm3s6965")))]
compile_error!("choose a board by feature: `microbit` or `lm3s6965`");
#[cfg(all(feature = "microbit", feature = "lm3s6965"))]
compile_error!("choose one board only: `microbit` or `lm3s6965`");

mod clock;
mod cost;
mod executor;
mod fault;
mod host;
mod interrupt;
mod register;
mod stack;
mod text;
mod uart;
mod watchdog;

#[cfg(feature = "lm3s6965")]
mod lm3s6965;
#[cfg(feature = "lm3s6965")]
use lm3s6965 as chip;
#[cfg(feature = "microbit")]
mod microbit;
#[cfg(feature = "microbit")]
use microbit as chip;

pub use cortex_m_rt::entry;
pub use cost::Gauge;
pub use executor::run;
pub use host::{argument, exit, exit_code};
pub use interrupt::interrupt;
pub use stack::stack_used;
pub use text::Text;
pub use uart::{Uart, UartError};
pub use watchdog::Watchdog;

// The global logger: linked for its side effect.
use defmt_semihosting as _;
