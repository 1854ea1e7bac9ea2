//! What nothing that does its work can go below.

use core::sync::atomic::{AtomicU64, Ordering};

use failsoft_tokio::{Clock, Tokio};

use crate::harness::{Bench, ONE};
use crate::table::Subject;

pub(crate) const TITLE: &str = "the floor";
pub(crate) const LOAD: &str = "atomic load";
pub(crate) const ADD: &str = "fetch_add";
pub(crate) const EXCHANGE: &str = "compare-exchange";
pub(crate) const CLOCK: &str = "tokio clock";

pub(crate) fn measure(bench: &mut Bench) {
    bench.section(TITLE, LOAD);
    atomic(bench, LOAD, |word| word.load(Ordering::Acquire) < u64::MAX);
    atomic(bench, ADD, |word| word.fetch_add(1, Ordering::AcqRel) < u64::MAX);
    atomic(bench, EXCHANGE, |word| {
        let seen = word.load(Ordering::Relaxed);
        // With two threads one of them may have been faster.
        let _ = word.compare_exchange(seen, seen + 1, Ordering::AcqRel, Ordering::Acquire);
        true
    });
    let origin = (std::time::Instant::now(), Tokio.now());
    bench.one(ONE, itself("std clock"), || move |_| std::time::Instant::now() >= origin.0);
    bench.one(ONE, itself(CLOCK), || move |_| Tokio.now() >= origin.1);
}

fn atomic(bench: &mut Bench, name: &'static str, step: impl Fn(&AtomicU64) -> bool + Copy + Send) {
    bench.one(ONE, itself(name), || {
        let word = AtomicU64::new(0);
        move |_| step(&word)
    });
    bench.two(itself(name), || AtomicU64::new(0), |word, race| race.run([(); 2].map(|()| move |_| step(word))));
}

const fn itself(name: &'static str) -> Subject {
    Subject { name, like: LOAD }
}
