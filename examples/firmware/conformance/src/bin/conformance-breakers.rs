//! The scenarios of breakers.

#![no_std]
#![no_main]

use failsoft_conformance::BREAKERS;

#[board::entry]
fn main() -> ! {
    conformance::run(&BREAKERS, include_bytes!(concat!(env!("OUT_DIR"), "/breakers.tape")))
}
