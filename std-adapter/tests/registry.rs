//! A policy per key: one for each, never more than there are places, and never without what it has in use.

#![expect(clippy::unwrap_used, reason = "a test may end with a panic")]

use core::hash::{BuildHasher, Hasher};
use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use core::time::Duration;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::{catch_unwind, resume_unwind};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use failsoft_tokio::circuit_breaker::{ConsecutiveFailures, StateKind};
use failsoft_tokio::registry::{Config, Idle, LONGEST_KEY, LOOKS, MOST, Registry, Snapshot};
use failsoft_tokio::{
    Bulkhead, CircuitBreaker, Clock, Instant, LiveRateLimiter, LockedCircuitBreaker, Pipeline, RateLimiter,
    RetryPolicy, Rng, Shared, Timeout, Tokio, Valid, bulkhead, circuit_breaker, rate_limiter, retry, valid,
};
use tokio::task::yield_now;
use tokio::time::advance;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Opens with one failure, for a minute.
const TOUCHY: Valid<circuit_breaker::Config> =
    valid!(circuit_breaker::Config::new().with_trip(valid!(ConsecutiveFailures::new(1))).with_probes(1).validate());

type Breakers<K> = Registry<K, CircuitBreaker>;

fn breakers<K>(capacity: usize) -> Breakers<K> {
    Registry::new(Config::new(capacity).unwrap(), |_| CircuitBreaker::new(TOUCHY))
}

fn fail(breaker: &CircuitBreaker) {
    breaker.try_acquire(Tokio).unwrap().failure();
}

/// Brings so many keys that nobody has brought before, and lets go of their policies.
fn flood<P>(registry: &Registry<u64, P>, keys: u64) {
    static NEXT: AtomicU64 = AtomicU64::new(1 << 32);
    for key in NEXT.fetch_add(keys, SeqCst)..NEXT.load(SeqCst) {
        registry.get(&key);
    }
}

/// A policy that is there to be looked at: which one it is, and whether it is busy.
#[derive(Debug, Default)]
struct Mark {
    number: u64,
    busy: AtomicBool,
}

impl Idle for Mark {
    fn is_idle(&self, _: Instant) -> bool {
        !self.busy.load(SeqCst)
    }
}

/// A registry of marks, which are numbered as they are made, from 1: the overflow policy is 0.
fn marks<K>(capacity: usize) -> Registry<K, Mark> {
    let next = AtomicU64::new(0);
    Registry::new(Config::new(capacity).unwrap(), move |_| Mark {
        number: next.fetch_add(1, SeqCst),
        busy: AtomicBool::new(false),
    })
}

fn is_conserved(snapshot: &Snapshot) -> bool {
    let Snapshot { len, capacity, created, evicted, swept, removed, .. } = *snapshot;
    len <= capacity && created == len as u64 + evicted + swept + removed
}

#[test]
fn each_key_has_a_policy_of_its_own_made_with_it_at_hand() {
    let made = Arc::new(Mutex::new(Vec::new()));
    let log = made.clone();
    let registry: Registry<Box<str>, CircuitBreaker> = Registry::new(Config::new(10).unwrap(), move |key| {
        log.lock().unwrap().push(key.map(ToString::to_string));
        CircuitBreaker::new(TOUCHY)
    });
    let (a, b) = (registry.get("a"), registry.get("b"));
    assert!(Arc::ptr_eq(&a, &registry.get("a")) && !Arc::ptr_eq(&a, &b));
    fail(&a);
    assert_eq!((a.state(), b.state()), (StateKind::Open, StateKind::Closed));
    let expected = [None, Some("a".to_owned()), Some("b".to_owned())];
    assert_eq!(*made.lock().unwrap(), expected, "the overflow policy first");
    assert!(registry.peek("c").is_none() && registry.peek("a").is_some_and(|peeked| Arc::ptr_eq(&peeked, &a)));
    assert!(format!("{registry:?}").contains("len: 2"));
}

#[test]
fn keys_of_any_kind_are_asked_for_by_what_they_borrow_as() {
    let (own, shared, number, pair) =
        (marks::<String>(9), marks::<Arc<str>>(9), marks::<u8>(9), marks::<(u16, u16)>(9));
    let bytes = marks::<Box<[u8]>>(9);
    assert_eq!((own.get("a").number, own.get(&"a".to_owned()).number), (1, 1));
    assert_eq!((shared.get("a").number, shared.get("a").number), (1, 1));
    assert_eq!((number.get(&7).number, number.get(&8).number, number.get(&7).number), (1, 2, 1));
    assert_eq!((pair.get(&(1, 2)).number, pair.get(&(2, 1)).number), (1, 2));
    assert_eq!((bytes.get(&[1, 2][..]).number, bytes.get(&[1][..]).number), (1, 2));
}

#[test]
fn a_capacity_bounds_something() {
    let refused = |capacity| Config::new(capacity).unwrap_err().to_string();
    assert_eq!(refused(0), "`capacity` is zero: all keys would share one policy");
    assert_eq!(refused(MOST + 1), "`capacity` is above 1,073,741,824: that bounds nothing");
    assert!(Config::new(1).is_ok() && Config::new(MOST).is_ok());
}

#[test]
fn of_threads_that_bring_a_new_key_at_once_one_makes_the_policy_and_all_get_it() {
    const THREADS: usize = 8;
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let registry = Registry::with_rule(
        Config::new(1_000).unwrap(),
        move |key: Option<&u32>| count.fetch_add(usize::from(key.is_some()), SeqCst),
        |_, _| true,
    );
    let barrier = Barrier::new(THREADS);
    let got = thread::scope(|scope| {
        let bring = || {
            let bring = |key| {
                barrier.wait();
                registry.get(&key)
            };
            (0..500).map(bring).collect::<Vec<_>>()
        };
        let threads = [(); THREADS].map(|()| scope.spawn(bring));
        threads.map(|thread| thread.join().unwrap())
    });
    for (key, first) in got[0].iter().enumerate() {
        assert!(got.iter().all(|policies| Arc::ptr_eq(&policies[key], first)), "key {key}");
    }
    assert_eq!((made.load(SeqCst), registry.snapshot().created), (500, 500));
}

#[test]
fn a_flood_of_keys_takes_no_more_places_than_there_are_and_hot_keys_keep_theirs() {
    for capacity in [1, 2, 50, 1_000, 5_000] {
        let registry = marks::<u64>(capacity);
        let hot = || (0..capacity as u64 / 10).map(|key| registry.get(&key).number).collect::<Vec<_>>();
        let (mut before, mut lost) = (hot(), 0);
        for _ in 0..50 {
            flood(&registry, capacity as u64 / 4 + 1);
            let now = hot();
            lost += before.iter().zip(&now).filter(|(before, now)| before != now).count();
            before = now;
            let snapshot = registry.snapshot();
            assert!(is_conserved(&snapshot), "{snapshot:?}");
        }
        let Snapshot { len, evicted, overflowed, .. } = registry.snapshot();
        assert_eq!((len, overflowed), (capacity, 0));
        assert!(evicted >= 10 * capacity as u64);
        // The hand may meet a key again that has just moved with its table: rarely, and in small tables only.
        let looks = 50 * before.len();
        assert!(lost * 200 <= looks + 1_000, "{lost} of {looks} looks at capacity {capacity}");
    }
}

#[test]
fn until_it_is_full_nobody_goes() {
    for capacity in [1, 63, 64, 129, 1_000, 20_000] {
        let registry = marks::<u64>(capacity);
        flood(&registry, capacity as u64);
        let Snapshot { len, created, evicted, .. } = registry.snapshot();
        assert_eq!((len, created, evicted), (capacity, capacity as u64, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_stays_whatever_keys_come_until_its_time_is_over() {
    let registry = breakers::<u64>(200);
    fail(&registry.get(&1));
    registry.get(&2).isolate();
    for _ in 0..50 {
        flood(&registry, 1_000);
        assert_eq!(registry.get(&1).state(), StateKind::Open);
        registry.sweep();
    }
    // Nobody asks any more, and still.
    flood(&registry, 10_000);
    registry.sweep();
    assert!(registry.peek(&1).is_some() && registry.peek(&2).is_some());

    // A host that is gone for good keeps no place.
    advance(secs(60)).await;
    flood(&registry, 10_000);
    assert!(registry.peek(&1).is_none(), "as a new one it is closed");
    assert_eq!(registry.peek(&2).unwrap().state(), StateKind::Isolated, "by hand, so for good");
    assert!(is_conserved(&registry.snapshot()));
}

#[tokio::test(start_paused = true)]
async fn a_breaker_is_idle_when_closed_or_when_its_time_is_over() {
    let breaker = CircuitBreaker::new(TOUCHY);
    let idle = || breaker.is_idle(Tokio.now());
    assert!(idle());
    fail(&breaker);
    assert!(!idle());
    advance(secs(60)).await;
    assert!(idle(), "the next call is a probe");
    let probe = breaker.try_acquire(Tokio).unwrap();
    assert_eq!((breaker.state(), idle()), (StateKind::HalfOpen, false));
    advance(secs(60)).await;
    assert!(idle(), "the probe is lost");
    probe.success();
    breaker.disable();
    assert!(!idle());
    breaker.observe_only();
    assert!(!idle());
    breaker.reset();
    assert!(idle());
}

#[tokio::test(start_paused = true)]
async fn who_has_every_breaker_opened_gets_one_more_and_no_memory() {
    let registry = breakers::<u64>(64);
    for key in 0..64 {
        fail(&registry.get(&key));
    }
    let (overflow, full) = (registry.overflow().clone(), registry.snapshot());
    for key in 1_000..2_000 {
        assert!(Arc::ptr_eq(&registry.get(&key), &overflow));
    }
    assert_eq!(registry.snapshot(), Snapshot { overflowed: 1_000, ..full });
    // Those that have a place keep it.
    assert!((0..64).all(|key| registry.get(&key).state() == StateKind::Open));
    assert_eq!(registry.sweep(), 0);

    advance(secs(60)).await;
    assert!(!Arc::ptr_eq(&registry.get(&1_000), &overflow), "there are places again");
    assert_eq!((registry.snapshot().evicted, registry.snapshot().len), (1, 64));
}

#[tokio::test(start_paused = true)]
async fn nobody_gets_a_new_burst_by_pushing_a_limiter_out() {
    let config = valid!(rate_limiter::Config::new(10, secs(10)).validate());
    let registry: Registry<u64, RateLimiter> =
        Registry::new(Config::new(100).unwrap(), move |_| RateLimiter::new(config));
    let take = |key| registry.get(&key).try_acquire(&Tokio).is_ok();
    assert_eq!((0..11).filter(|_| take(1)).count(), 10);
    for passed in 0..10 {
        flood(&registry, 1_000);
        registry.sweep();
        let limiter = registry.peek(&1).unwrap();
        assert!(!limiter.is_idle(Tokio.now()));
        assert_eq!(limiter.available(&Tokio), passed, "second {passed}");
        drop(limiter);
        advance(secs(1)).await;
    }
    flood(&registry, 1_000);
    assert!(registry.peek(&1).is_none(), "its burst was all there");
    assert!(LiveRateLimiter::new(config).is_idle(Tokio.now()));
}

#[tokio::test(start_paused = true)]
async fn a_bulkhead_stays_while_permits_are_in_use_or_waited_for() {
    let config = valid!(bulkhead::Config::new(1).with_queue(1, secs(1)).validate());
    let bulkhead = Arc::new(Bulkhead::new(config));
    let permit = bulkhead.try_acquire().unwrap();
    assert!(!bulkhead.is_idle(Instant::START));
    let waiter = tokio::spawn({
        let bulkhead = bulkhead.clone();
        async move { bulkhead.acquire(1, Tokio).await.map(drop) }
    });
    yield_now().await;
    assert!(!bulkhead.is_idle(Instant::START));
    drop(permit);
    waiter.await.unwrap().unwrap();
    assert!(bulkhead.is_idle(Instant::START));
}

#[test]
fn policies_together_stay_while_one_of_them_does() {
    let breaker = || LockedCircuitBreaker::new(TOUCHY);
    let idle = |policies: &(LockedCircuitBreaker<_>, LockedCircuitBreaker<_>)| policies.is_idle(Instant::START);
    let policies = (breaker(), breaker());
    assert!(idle(&policies));
    policies.1.isolate();
    assert!(!idle(&policies));
    policies.0.isolate();
    policies.1.reset();
    assert!(!idle(&policies));
    let mark = Mark::default;
    assert!(
        (mark(), mark(), mark()).is_idle(Instant::START) && (mark(), mark(), mark(), mark()).is_idle(Instant::START)
    );
}

/// All keys have one hash.
#[derive(Clone, Copy)]
struct Flat;

impl BuildHasher for Flat {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        *self
    }
}

impl Hasher for Flat {
    fn write(&mut self, _: &[u8]) {}

    fn finish(&self) -> u64 {
        7
    }
}

#[test]
fn keys_chosen_to_have_one_hash_are_told_apart_all_the_same() {
    let registry = marks::<u64>(500).with_hasher(Flat);
    let numbers: Vec<_> = (0..500).map(|key| registry.get(&key).number).collect();
    assert_eq!(numbers.iter().collect::<HashSet<_>>().len(), 500);
    assert!((0..500).all(|key| registry.get(&key).number == numbers[usize::try_from(key).unwrap()]));
    for key in 500..2_000 {
        registry.get(&key);
    }
    let snapshot = registry.snapshot();
    assert!(is_conserved(&snapshot) && snapshot.len == 500, "{snapshot:?}");
}

/// For nothing but numbers, which it returns as they are.
#[derive(Clone, Copy, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn write(&mut self, _: &[u8]) {
        unreachable!("it is for numbers");
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[test]
fn a_hasher_that_is_for_numbers_alone_gets_numbers() {
    let registry = marks::<u64>(10_000).with_hasher(core::hash::BuildHasherDefault::<Identity>::default());
    for key in 0..10_000 {
        registry.get(&key);
    }
    let snapshot = registry.snapshot();
    assert!(snapshot.len > 9_000, "they spread over the locks: {snapshot:?}");
}

#[test]
fn two_registries_have_two_secrets() {
    // Who goes first in one of them says nothing about the other.
    let order = || {
        let registry = marks::<u64>(64);
        (0..64).for_each(|key| drop(registry.get(&key)));
        let mut keys = Vec::new();
        registry.for_each(|key, _| keys.push(*key));
        keys
    };
    assert_ne!(order(), order());
}

#[test]
fn what_is_held_never_goes_by_itself_and_a_permit_outlives_its_removal() {
    let config = valid!(bulkhead::Config::new(2).validate());
    let registry: Registry<u64, Bulkhead> = Registry::new(Config::new(10).unwrap(), move |_| Bulkhead::new(config));
    let held = registry.get(&1);
    let permit = held.try_acquire().unwrap();
    flood(&registry, 1_000);
    registry.sweep();
    registry.sweep();
    assert!(Arc::ptr_eq(&registry.get(&1), &held), "one policy for one key");

    let removed = registry.remove(&1).unwrap();
    assert!(Arc::ptr_eq(&removed, &held) && registry.peek(&1).is_none() && registry.remove(&1).is_none());
    let second = removed.try_acquire().unwrap();
    assert!(held.try_acquire().is_err(), "it counts as before");
    let next = registry.get(&1);
    assert_eq!((next.snapshot().in_use, held.snapshot().in_use), (0, 2));
    drop((permit, second));
    assert_eq!((next.snapshot().in_use, held.snapshot().in_use), (0, 0));
    assert!(is_conserved(&registry.snapshot()));
}

#[test]
fn a_weak_handle_counts_as_held_too() {
    let registry = marks::<u64>(1);
    let weak = Arc::downgrade(&registry.get(&1));
    assert_eq!(registry.get(&2).number, 0, "the overflow policy");
    assert_eq!(weak.upgrade().unwrap().number, registry.get(&1).number);
    drop(weak);
    assert_eq!(registry.get(&2).number, 2);
}

#[test]
fn odd_keys_are_keys_and_very_long_ones_share() {
    let registry = marks::<Box<str>>(100);
    let long = "x".repeat(LONGEST_KEY);
    let odd = ["", " ", "\0", "A.example", "a.example", "a.example.", "xn--mnchen-3ya.example", "münchen.example"];
    let addresses = ["::1", "[::1]", "0:0:0:0:0:0:0:1", "fe80::1%eth0", "fe80::1%25eth0", long.as_str()];
    let numbers: HashSet<_> = odd.iter().chain(&addresses).map(|key| registry.get(*key).number).collect();
    assert_eq!((numbers.len(), numbers.contains(&0)), (14, false), "as they are: nobody makes two of them one");

    let huge = "x".repeat(64 * 1_024);
    for key in [format!("{long}x"), huge] {
        assert_eq!(registry.get(key.as_str()).number, 0);
        assert!(registry.peek(key.as_str()).is_none());
    }
    assert_eq!((registry.snapshot().len, registry.snapshot().overflowed), (14, 2));

    // Whatever the key is made of.
    let make = |key: Option<&(String, u64)>| Mark { number: key.map_or(0, |key| key.1), ..Mark::default() };
    let pairs = Registry::new(Config::new(9).unwrap().with_longest_key(16), make);
    assert_eq!(pairs.get(&("12345678".to_owned(), 1)).number, 1);
    assert_eq!(pairs.get(&("123456789".to_owned(), 1)).number, 0);
}

#[test]
fn a_sweep_takes_what_was_not_used_since_the_one_before_and_is_not_busy() {
    let registry = marks::<u64>(100);
    for key in 0..10 {
        registry.get(&key);
    }
    registry.get(&8).busy.store(true, SeqCst);
    let held = registry.get(&9);
    assert_eq!(registry.sweep(), 0, "all are new");
    registry.get(&1);
    registry.peek(&2);
    assert_eq!(registry.sweep(), 7, "to look at one does not use it");
    let left = |registry: &Registry<u64, Mark>| {
        let mut keys = Vec::new();
        registry.for_each(|key, mark| keys.push((*key, mark.number)));
        keys.sort_unstable();
        keys
    };
    assert_eq!(left(&registry), [(1, 2), (8, 9), (9, 10)]);
    held.busy.store(false, SeqCst);
    drop(held);
    assert_eq!((registry.sweep(), left(&registry)), (2, vec![(8, 9)]));
    let Snapshot { len, created, swept, evicted, .. } = registry.snapshot();
    assert_eq!((len, created, swept, evicted), (1, 10, 9, 0));
}

#[test]
fn those_that_are_shown_may_be_removed_and_others_asked_for_meanwhile() {
    let registry = marks::<u64>(1_000);
    for key in 0..500 {
        registry.get(&key);
    }
    let mut shown = 0;
    registry.for_each(|key, mark| {
        assert!(registry.remove(key).is_some_and(|removed| Arc::ptr_eq(&removed, mark)));
        registry.get(&(1_000 + key));
        shown += usize::from(*key < 1_000);
    });
    assert!(shown == 500 && is_conserved(&registry.snapshot()));
}

/// What panics: when it makes a policy, and when it judges one.
#[derive(Default)]
struct Fuses {
    make: AtomicBool,
    judge: AtomicBool,
}

impl Fuses {
    fn set(&self, make: bool, judge: bool) {
        self.make.store(make, SeqCst);
        self.judge.store(judge, SeqCst);
    }
}

fn blow(fuse: &AtomicBool) {
    if fuse.load(SeqCst) {
        // By the hook, which would only fill the log.
        resume_unwind(Box::new("boom"));
    }
}

fn panics<R>(f: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

#[test]
fn user_code_that_panics_leaves_the_registry_to_the_others() {
    let fuses = Arc::new(Fuses::default());
    let (made, judged) = (fuses.clone(), fuses.clone());
    let may_go = move |(): &(), _| {
        blow(&judged.judge);
        true
    };
    let registry = Registry::with_rule(Config::new(3).unwrap(), move |_: Option<&u64>| blow(&made.make), may_go);
    let len = || registry.snapshot().len;

    fuses.set(true, false);
    assert!(panics(|| registry.get(&1)) && len() == 0);
    fuses.set(false, false);
    for key in 1..=3 {
        registry.get(&key);
    }
    fuses.set(false, true);
    assert!(panics(|| registry.get(&4)) && len() == 3, "nobody has gone");
    // In the second one there is something to judge.
    assert!(panics(|| (registry.sweep(), registry.sweep())) && len() == 3);
    fuses.set(true, false);
    assert!(panics(|| registry.get(&4)) && len() == 2, "one had gone by then");
    fuses.set(false, false);
    for key in 4..=6 {
        registry.get(&key);
    }
    let snapshot = registry.snapshot();
    assert!(snapshot.len == 3 && snapshot.overflowed == 0 && is_conserved(&snapshot), "{snapshot:?}");
}

#[test]
fn eight_threads_with_more_keys_than_places_never_have_two_policies_for_one_key() {
    const KEYS: u32 = 300;
    let registry = marks::<u32>(200);
    let in_use: Mutex<HashMap<u32, (u64, u32)>> = Mutex::new(HashMap::new());
    let work = |thread: u32| {
        let mut rng = Rng::new(thread.into());
        for _ in 0..5_000 {
            let key = rng.next() % KEYS;
            let mark = registry.get(&key);
            if mark.number > 0 {
                let mut in_use = in_use.lock().unwrap();
                let (number, users) = in_use.entry(key).or_insert((mark.number, 0));
                assert_eq!(*number, mark.number, "key {key}");
                *users += 1;
            }
            if rng.next().is_multiple_of(4) {
                thread::yield_now();
            }
            if mark.number > 0 {
                let mut in_use = in_use.lock().unwrap();
                let (_, users) = in_use.get_mut(&key).unwrap();
                *users -= 1;
                if *users == 0 {
                    in_use.remove(&key);
                }
            }
            drop(mark);
            if rng.next().is_multiple_of(500) {
                registry.sweep();
            }
        }
    };
    thread::scope(|scope| (0..8).for_each(|thread| drop(scope.spawn(move || work(thread)))));
    let snapshot = registry.snapshot();
    assert!(is_conserved(&snapshot) && snapshot.evicted > 100, "{snapshot:?}");
}

#[test]
fn a_whole_pipeline_stays_while_one_of_its_policies_does() {
    let make = |_: Option<&u64>| {
        Pipeline::new(Tokio)
            .layer(Some(Timeout::new(secs(1))))
            .layer(RetryPolicy::new(valid!(retry::Config::new().validate())))
            .layer(CircuitBreaker::new(TOUCHY))
    };
    let registry = Registry::new(valid!(Config::new(1)), make);
    assert!(registry.get(&1).layers().inner().state() == StateKind::Closed && registry.get(&2).is_idle(Tokio.now()));
    assert!(registry.peek(&1).is_none(), "it was idle, and another key came");
    fail(registry.get(&2).layers().inner());
    registry.get(&3);
    assert!(registry.peek(&2).is_some() && registry.peek(&3).is_none(), "it is open, and the other one shares");

    // What is shared, or referred to, may go: it lives on by itself.
    static OPEN: CircuitBreaker = CircuitBreaker::new(TOUCHY);
    fail(&OPEN);
    let now = Tokio.now();
    assert!(
        !OPEN.is_idle(now) && Some(CircuitBreaker::new(TOUCHY)).is_idle(now) && None::<CircuitBreaker>.is_idle(now)
    );
    let (referred, shared) = (Pipeline::new(Tokio).layer(&OPEN), Pipeline::new(Tokio).layer(Shared::new(&OPEN)));
    assert!(referred.is_idle(now) && shared.is_idle(now));
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_runs_around_the_policies_of_its_host() {
    let registry: Registry<Box<str>, (Bulkhead, CircuitBreaker)> = Registry::new(Config::new(10).unwrap(), |_| {
        (Bulkhead::new(valid!(bulkhead::Config::new(1).validate())), CircuitBreaker::new(TOUCHY))
    });
    let call = async |host: &str, result: Result<u32, &'static str>| {
        let upstream = registry.get(host);
        let (bulkhead, breaker) = &*upstream;
        Pipeline::new(Tokio).layer(bulkhead).layer(breaker).call(async |_| result).await.ok()
    };
    assert_eq!(call("down.example", Err("down")).await, None);
    assert_eq!(call("down.example", Ok(1)).await, None, "its breaker is open");
    assert_eq!(call("up.example", Ok(1)).await, Some(1));
}

/// What is known of a key with a policy of its own.
struct Known {
    number: u64,
    busy: bool,
    used: bool,
    held: Vec<Arc<Mark>>,
}

impl Known {
    fn may_go(&self) -> bool {
        !self.busy && self.held.is_empty()
    }
}

/// A registry with one shard, in which the hand sees everybody, and what must be true of it.
struct Model {
    registry: Registry<u64, Mark>,
    capacity: usize,
    known: BTreeMap<u64, Known>,
    overflowed: u64,
}

impl Model {
    fn get(&mut self, key: u64, hold: bool) {
        let mark = self.registry.get(&key);
        let full = self.known.len() == self.capacity;
        if let Some(known) = self.known.get_mut(&key) {
            assert_eq!(known.number, mark.number, "the same policy while it is there");
            known.used = true;
        } else if full && !self.known.values().any(Known::may_go) {
            assert_eq!(mark.number, 0, "nobody may go");
            self.overflowed += 1;
            return;
        } else {
            assert_ne!(mark.number, 0, "somebody may go, or there is a place");
            if full {
                self.forget_one();
            }
            self.known.insert(key, Known { number: mark.number, busy: false, used: true, held: Vec::new() });
        }
        if let Some(known) = self.known.get_mut(&key).filter(|_| hold) {
            known.held.push(mark);
        }
    }

    /// One has gone, and it was one that might.
    fn forget_one(&mut self) {
        let gone = self.gone();
        assert_eq!(gone.len(), 1);
        assert!(self.known.remove(&gone[0]).unwrap().may_go());
    }

    fn gone(&self) -> Vec<u64> {
        self.known.keys().copied().filter(|key| self.registry.peek(key).is_none()).collect()
    }

    fn sweep(&mut self) {
        let swept = self.registry.sweep();
        let gone = self.gone();
        assert_eq!(swept, gone.len());
        for (key, known) in &self.known {
            match (gone.contains(key), known.used) {
                (true, used) => assert!(known.may_go() && !used, "{key} was swept"),
                (false, used) => assert!(!known.may_go() || used, "{key} was not swept"),
            }
        }
        self.known.retain(|key, _| !gone.contains(key));
        self.known.values_mut().for_each(|known| known.used = false);
    }

    fn set_busy(&mut self, key: u64, busy: bool) {
        if let Some(known) = self.known.get_mut(&key) {
            known.busy = busy;
            self.registry.peek(&key).unwrap().busy.store(busy, SeqCst);
        }
    }

    fn step(&mut self, rng: &mut Rng) {
        let key = u64::from(rng.next() % 24);
        match rng.next() % 16 {
            0..=7 => self.get(key, false),
            8 | 9 => self.get(key, true),
            10 | 11 => drop(self.known.get_mut(&key).map(|known| known.held.pop())),
            12 => self.set_busy(key, true),
            13 | 14 => self.set_busy(key, false),
            _ if rng.next().is_multiple_of(2) => self.sweep(),
            _ => {
                let removed = self.registry.remove(&key).map(|mark| mark.number);
                assert_eq!(removed, self.known.remove(&key).map(|known| known.number));
            }
        }
        let snapshot = self.registry.snapshot();
        assert!(is_conserved(&snapshot), "{snapshot:?}");
        assert_eq!((snapshot.len, snapshot.overflowed), (self.known.len(), self.overflowed));
    }
}

#[test]
fn random_scripts_come_to_what_a_plain_map_says() {
    let mut overflowed = 0;
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let capacity = 1 + rng.next() as usize % (LOOKS / 2);
        let mut model = Model { registry: marks(capacity), capacity, known: BTreeMap::new(), overflowed: 0 };
        for _ in 0..500 {
            model.step(&mut rng);
        }
        overflowed += model.overflowed;
    }
    assert!(overflowed > 1_000, "the scripts get that far: {overflowed}");
}
