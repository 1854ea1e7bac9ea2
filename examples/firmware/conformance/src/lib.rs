//! The scenarios of other systems' tests, on the chip: a verdict a line and nothing else, in virtual time: the same bytes as on a host.

#![no_std]

use core::fmt::{self, Write};

use board::Text;
use failsoft_conformance::{Part, report, tape::Tape};

/// The smaller chip's RAM, less what is static and a reserve: a stack that has been deeper may have run over.
const STACK: usize = 15 * 1024;

/// Runs a part's vectors, writes the verdicts, and ends.
pub fn run(part: &Part, tape: &[u8]) -> ! {
    board::exit(u8::from(write_verdicts(part, tape).is_err()))
}

fn write_verdicts(part: &Part, tape: &[u8]) -> fmt::Result {
    board::paint_stack();
    let mut out = Text::new().ok_or(fmt::Error)?;
    let tape = Tape::open(tape).map_err(|_| fmt::Error)?;
    report(&[part], tape, &mut out)?;
    let used = board::stack_used();
    if used > STACK {
        writeln!(out, "the stack is too small: it took {used} bytes")?;
    }
    out.flush()
}
