//! Tests and measurements across the crates: see `tests/` beside this package's manifest, and its binaries.
