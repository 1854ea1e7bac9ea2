//! At ticks of 1 MHz.

#![no_std]
#![no_main]

#[board::entry]
fn main() -> ! {
    timekeeping::run::<1_000_000>()
}
