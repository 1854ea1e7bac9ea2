//! One script through every policy, on the chip. It writes the log and nothing else, in virtual time: the same bytes as on a host.

#![no_std]
#![no_main]

use core::fmt;

use board::Text;
use failsoft_core::cell::CriticalSection;
use failsoft_replay::{SEED, STEPS, replay};

fn write_log() -> fmt::Result {
    let mut log = Text::new().ok_or(fmt::Error)?;
    replay::<CriticalSection, CriticalSection>(SEED, STEPS, &mut log)?;
    log.flush()
}

#[board::entry]
fn main() -> ! {
    board::exit(u8::from(write_log().is_err()))
}
