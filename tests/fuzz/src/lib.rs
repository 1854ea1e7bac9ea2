//! Scripts from bytes, through every policy and every kind of cell.
//!
//! Each module decodes bytes into settings and a script of steps on a virtual clock, plays the script through every kind of cell, and
//! looks at the answers: they must be the same in all cells, and they must keep the promises whatever the script was. Settings are
//! made of raw values by the public constructors, so that those that make no sense have to come back as an error.
//!
//! `run` of a module, which panics where a promise is broken, is all there is to a fuzz target. `tests/fuzz/run` has them explored, and `cargo test` replays the corpus.

pub mod adaptive;
pub mod breaker;
pub mod budgets;
pub mod bulkhead;
pub mod delays;
pub mod health;
pub mod pipeline;
pub mod rates;

mod bytes;
mod cells;

/// A target: its name, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 8] = [
    ("adaptive", adaptive::run),
    ("breaker", breaker::run),
    ("budgets", budgets::run),
    ("bulkhead", bulkhead::run),
    ("delays", delays::run),
    ("health", health::run),
    ("pipeline", pipeline::run),
    ("rates", rates::run),
];
