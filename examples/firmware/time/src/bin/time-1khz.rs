//! At ticks of 1 kHz.

#![no_std]
#![no_main]

#[board::entry]
fn main() -> ! {
    timekeeping::run::<1_000>()
}
