//! Measurements: those against goals are the program `numbers`, those beside other crates the benchmark `peers`, and how costs grow the
//! benchmark `growth`. Here is what they share.

pub mod measure;
pub mod race;
pub mod subjects;
