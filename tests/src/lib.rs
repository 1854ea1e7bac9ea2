//! Tests and measurements across the crates: the tests are in `tests/` beside this package's manifest, the measurements are its binaries.

pub mod measure;

/// The front page, so that its code is compiled and run.
#[doc = include_str!("../../README.md")]
#[cfg(doctest)]
pub struct Readme;
