//! The arithmetic of a tick clock: from a timer's cycles to [ticks](Counter), and from a [counter that wraps](Extended) to time that doesn't.

#![no_std]

mod counter;
mod extended;

pub use counter::Counter;
pub use extended::Extended;
