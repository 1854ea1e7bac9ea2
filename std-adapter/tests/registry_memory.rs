//! What a registry takes of the heap, counted: with a million keys, and under a flood of more.

use core::fmt::Write;
use std::alloc::System;

use cap::Cap;
use failsoft_tokio::registry::{Config, Registry};
use failsoft_tokio::{CircuitBreaker, Rng, circuit_breaker, valid};

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

const KEYS: usize = 1_000_000;
/// A hundred thousand keys each: ten million in all, and a tenth of them where nothing is optimized.
const WAVES: u32 = if cfg!(debug_assertions) { 10 } else { 100 };

/// The name of a host, of 20 characters.
fn name(host: &mut String, number: u32) -> &str {
    host.clear();
    write!(host, "{number:010}.name.test").expect("there is room");
    assert_eq!(host.len(), 20);
    host
}

/// What the system counts, which rounds up.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.map_or_else(|| "unknown".to_owned(), |line| line.trim().to_owned())
}

#[test]
fn a_million_breakers_fit_in_150_mb_and_a_flood_of_others_takes_no_more() {
    let before = HEAP.allocated();
    let taken = || HEAP.allocated().saturating_sub(before);
    let make = |_: Option<&Box<str>>| CircuitBreaker::new(valid!(circuit_breaker::Config::new().validate()));
    let breakers = Registry::new(valid!(Config::new(KEYS)), make);
    let mut host = String::with_capacity(32);
    for number in 0..1_000_000 {
        breakers.get(name(&mut host, number));
    }
    let (full, snapshot) = (taken(), breakers.snapshot());
    println!("a million keys: {full} B on the heap, {} resident", resident());
    assert_eq!((snapshot.len, snapshot.created, snapshot.evicted), (KEYS, 1_000_000, 0));
    assert!(full <= 150_000_000, "{full} B");

    let (mut rng, mut most) = (Rng::new(14), full);
    for _ in 0..WAVES {
        for _ in 0..100_000 {
            breakers.get(name(&mut host, rng.next()));
        }
        most = most.max(taken());
    }
    let snapshot = breakers.snapshot();
    println!("a flood of {} more: at most {most} B on the heap, {} resident", snapshot.evicted, resident());
    assert_eq!((snapshot.len, snapshot.overflowed), (KEYS, 0));
    assert!(snapshot.evicted > u64::from(WAVES) * 99_000, "{snapshot:?}");
    assert!(most <= full + full / 20, "{most} B after {full} B");
}
