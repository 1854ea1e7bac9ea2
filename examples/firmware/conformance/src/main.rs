//! The scenarios of other systems' tests, on the chip: a verdict a line and nothing else, in virtual time: the same bytes as on a host.

#![no_std]
#![no_main]

use core::fmt;

use board::Text;
use failsoft_conformance::{report, tape::Tape};

static TAPE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/peers.tape"));

fn write_verdicts() -> fmt::Result {
    let mut out = Text::new().ok_or(fmt::Error)?;
    let tape = Tape::open(TAPE).map_err(|_| fmt::Error)?;
    report(tape, &mut out)?;
    out.flush()
}

#[board::entry]
fn main() -> ! {
    board::exit(u8::from(write_verdicts().is_err()))
}
