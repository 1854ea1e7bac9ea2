//! The scenarios of limits.

#![no_std]
#![no_main]

use failsoft_conformance::LIMITS;

#[board::entry]
fn main() -> ! {
    conformance::run(&LIMITS, include_bytes!(concat!(env!("OUT_DIR"), "/limits.tape")))
}
