//! At ticks of 32.768 kHz.

#![no_std]
#![no_main]

#[board::entry]
fn main() -> ! {
    timekeeping::run::<32_768>()
}
