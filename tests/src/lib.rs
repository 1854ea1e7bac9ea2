//! Tests and measurements across the crates: the tests are in `tests/` beside this package's manifest, the measurements are its
//! binaries and, beside other crates, its benchmark `peers`.

pub mod race;
pub mod subjects;

pub mod measure;

/// The front page, so that its code is compiled and run.
#[doc = include_str!("../../README.md")]
#[cfg(doctest)]
pub struct Readme;
