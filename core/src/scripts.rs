//! Random scripts for tests: what fails is made as short as can be before it is shown.

use core::cell::Cell;
use core::ops::Range;
use std::vec::Vec;

use proptest::collection::vec;
use proptest::num::u64::ANY;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use crate::Rng;

/// Plays a script for each seed: `steps` steps on average, each with a random word of its own, from which it draws what it does. A
/// step that proptest leaves out of a failing script changes nothing about the others.
///
/// The same seed plays the same script. Prints how many steps there were.
pub(crate) fn play(name: &str, seeds: Range<u64>, steps: usize, script: impl Fn(u64, Vec<Rng>)) {
    let played = Cell::new(0);
    for seed in seeds {
        let config = Config {
            cases: 1,
            rng_seed: RngSeed::Fixed(seed),
            failure_persistence: None,
            max_shrink_iters: 20_000,
            ..Config::default()
        };
        let script = |words: Vec<u64>| {
            played.set(played.get() + words.len());
            script(seed, words.into_iter().map(Rng::new).collect());
            Ok(())
        };
        let outcome = TestRunner::new(config).run(&vec(ANY.no_shrink(), 0..=steps.saturating_mul(2)), script);
        assert!(outcome.is_ok(), "{name}, seed {seed}: {outcome:?}");
    }
    std::println!("oracle {name}: {} steps", played.get());
}
