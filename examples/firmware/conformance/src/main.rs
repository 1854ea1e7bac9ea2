//! The scenarios of other systems' tests, on the chip: a verdict a line and nothing else, in virtual time: the same bytes as on a host.

#![no_std]
#![no_main]

use core::fmt::{self, Write};

use board::Text;
use failsoft_conformance::{report, tape::Tape};

static TAPE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/peers.tape"));

/// The smaller chip's RAM, less what is static and a reserve: a stack that has been deeper may have run over.
const STACK: usize = 15 * 1024;

fn write_verdicts() -> fmt::Result {
    let mut out = Text::new().ok_or(fmt::Error)?;
    let tape = Tape::open(TAPE).map_err(|_| fmt::Error)?;
    report(tape, &mut out)?;
    let used = board::stack_used();
    if used > STACK {
        writeln!(out, "the stack is too small: it took {used} bytes")?;
    }
    out.flush()
}

#[board::entry]
fn main() -> ! {
    board::exit(u8::from(write_verdicts().is_err()))
}
