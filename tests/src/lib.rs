//! Tests across the crates: they are in `tests/` beside this package's manifest, and in its binaries. Here are those of the front page and the
//! guides, whose code is compiled and run.

/// The front page, so that its code is compiled and run.
#[doc = include_str!("../../README.md")]
#[cfg(doctest)]
pub struct Readme;

/// The guides for those who come from elsewhere: both their code before and after.
#[cfg(doctest)]
mod guides {
    #[doc = include_str!("../../examples/guides/from-backon.md")]
    struct Backon;
    #[doc = include_str!("../../examples/guides/from-failsafe.md")]
    struct Failsafe;
    #[doc = include_str!("../../examples/guides/from-polly.md")]
    struct Polly;
    #[doc = include_str!("../../examples/guides/from-recloser.md")]
    struct Recloser;
    #[doc = include_str!("../../examples/guides/from-resilience4j.md")]
    struct Resilience4j;
    #[doc = include_str!("../../examples/guides/from-tower.md")]
    struct Tower;
    #[doc = include_str!("../../examples/guides/from-tower-resilience.md")]
    struct TowerResilience;
}
