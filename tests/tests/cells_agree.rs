//! Promise 10, on the host: the same script through every kind of cell gives the same events to the byte.

use embassy_sync::blocking_mutex::raw::{CriticalSectionRawMutex, NoopRawMutex};
use failsoft_core::cell::{CellKind, CriticalSection, Local};
use failsoft_core::chaos::{Chaos, Config, Fault, Progress};
use failsoft_core::{Ratio, valid};
use failsoft_embassy::Raw;
use failsoft_replay::replay;
use failsoft_tokio::{Atomic, Locked};

const STEPS: u32 = 2_000;

/// The log of one seed through a kind of cell for words and one for tables.
macro_rules! log {
    ($words:ty, $tables:ty, $seed:expr) => {{
        let mut log = String::new();
        replay::<$words, $tables>($seed, STEPS, &mut log).expect("a string takes everything");
        log
    }};
}

#[test]
fn every_cell_gives_the_same_log() {
    for seed in [0, 1, 0x5EED, u64::MAX] {
        let reference = log!(Local, Local, seed);
        for (name, log) in [
            ("critical section", log!(CriticalSection, CriticalSection, seed)),
            ("embassy, no mutex", log!(Raw<NoopRawMutex>, Raw<NoopRawMutex>, seed)),
            ("embassy, critical section", log!(Raw<CriticalSectionRawMutex>, Raw<CriticalSectionRawMutex>, seed)),
            ("std mutex", log!(Locked, Locked, seed)),
            ("atomic words", log!(Atomic, Locked, seed)),
        ] {
            let differs = reference.lines().zip(log.lines()).position(|(a, b)| a != b);
            assert_eq!(differs, None, "seed {seed}, {name}: first different line");
            assert_eq!(reference.len(), log.len(), "seed {seed}, {name}: length");
        }
    }
}

#[test]
fn the_script_visits_every_state_and_every_kind_of_answer() {
    let log = log!(Local, Local, 1);
    for word in [
        "state: Closed",
        "state: Open",
        "state: HalfOpen",
        "state: Isolated",
        "state: MetricsOnly",
        "probe=true",
        "reason: Open",
        "reason: ProbesOut",
        "reason: Isolated",
        "reason: Full",
        "reason: TooHeavy",
        "to: Minimal",
        "to: Degraded",
        "to: Full",
        "UnknownService",
        "TimedOut",
        "Some(Attempts)",
        "Retrying",
        "ConfigError",
        "Fault",
        "Latency(",
        "reason: RateExceeded",
        "reason: Throttled",
        "reason: LimitReached",
        "reason: PriorityTooLow",
        "retry false",
        "Started",
        "Won",
        "LimitChange",
        "RateCut",
        "stale: true",
        "stale: false",
    ] {
        assert!(log.contains(word), "the script never shows `{word}`");
    }
}

/// The calls among the first hundred that chaos hits.
fn hit<K: CellKind<Progress>>() -> Vec<u32> {
    let config = valid!(Config::new(0x5EED).with_rate(Ratio::percent(10)).validate());
    let chaos = Chaos::<K, _>::new(config, Fault::new(|_| ()));
    (0..100).filter_map(|_| chaos.next_call()).map(|hit| hit.call).collect()
}

#[test]
fn chaos_hits_the_same_calls_in_every_cell() {
    const HIT: [u32; 6] = [36, 54, 56, 79, 93, 97];
    assert_eq!(hit::<Local>(), HIT);
    assert_eq!(hit::<CriticalSection>(), HIT);
    assert_eq!(hit::<Raw<NoopRawMutex>>(), HIT);
    assert_eq!(hit::<Raw<CriticalSectionRawMutex>>(), HIT);
    assert_eq!(hit::<Locked>(), HIT);
    assert_eq!(hit::<Atomic>(), HIT);
}
