//! A registry: a policy for each host, tenant or route, made when its key first comes, in bounded memory.
//!
//! ```
//! use std::sync::LazyLock;
//! use failsoft_tokio::registry::{Config, Registry};
//! use failsoft_tokio::{Bulkhead, CircuitBreaker, Failure, Pipeline, Tokio, bulkhead, circuit_breaker, valid};
//!
//! static UPSTREAMS: LazyLock<Registry<Box<str>, (Bulkhead, CircuitBreaker)>> = LazyLock::new(|| {
//!     Registry::new(valid!(Config::new(10_000)), |_host| {
//!         let bulkhead = Bulkhead::new(valid!(bulkhead::Config::new(64).validate()));
//!         (bulkhead, CircuitBreaker::new(valid!(circuit_breaker::Config::new().validate())))
//!     })
//! });
//!
//! async fn fetch(host: &str) -> Result<String, Failure<std::io::Error>> {
//!     let upstream = UPSTREAMS.get(host);
//!     let (bulkhead, breaker) = &*upstream;
//!     Pipeline::new(Tokio).layer(bulkhead).layer(breaker).call(async |_| Ok(format!("hello from {host}"))).await
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! assert!(fetch("one.example").await.is_ok());
//! assert!(fetch("other.example").await.is_ok());
//! assert_eq!(UPSTREAMS.snapshot().len, 2);
//! # }
//! ```
//!
//! One breaker for many hosts opens for all of them when one is down, and a limit for all tenants is used up by the busiest. With a policy
//! for each, what one does is its own affair. Whoever has a key holds its policy for as long as the call takes, as an [`Arc`]; who
//! makes many calls may hold it for longer, and pays for the look-up once.
//!
//! # Who goes
//! There are never more than so many. When a further key comes, another one goes. A hand goes round all keys, and takes the first that was
//! not used again since it last came by: nearly the least recently used one, and keys that come only once go before all others. What is in
//! use never goes, whatever comes:
//!
//! | what | stays while |
//! | --- | --- |
//! | any policy | somebody holds its [`Arc`], as all who have a permit of it do |
//! | a circuit breaker | it is open or half-open and its time is not over; isolated, disabled or on a dry run by hand: for good |
//! | a rate limiter | its burst is not all there again: nobody gets a new one by pushing it out |
//! | a bulkhead | permits are in use, or waited for |
//! | a pair of policies, or more of them | one of them stays |
//! | a whole [`Pipeline`] | one of its policies stays |
//! | a policy that is [`Shared`], or referred to | never: it has a life of its own |
//! | another type | its [`Idle`] says so, or the rule given to [`Registry::with_rule`] |
//!
//! What goes is forgotten, and when its key comes back, its policy is made anew: without the failures that a closed breaker has counted, the
//! growth of the open period of one that was open, and what was changed by hand, such as a bulkhead's size. The time of an
//! open breaker runs out without a call too, so that hosts that are gone for good don't keep their places.
//!
//! When none may go of those that the hand finds (it looks at [`LOOKS`] policies at most, so that a further key never costs more than that), the
//! new key shares the *overflow policy* with all others that find no place, until there is one. Who makes up keys and has
//! all their breakers open gains nothing but a share of that one, and memory stays as it is. [`Snapshot::overflowed`] counts
//! how often: anything but zero says that the capacity is too small, or that somebody makes up keys.
//!
//! # Idle ones
//! [`sweep`](Registry::sweep) lets go of what was not used since the sweep before, and is not in use: called at an interval, of what has
//! been idle for one to two of them. Without it the registry fills up, and then stays full.
//!
//! ```
//! # use core::time::Duration;
//! # use std::sync::Arc;
//! # use failsoft_tokio::{CircuitBreaker, Registry};
//! # async fn f(breakers: Arc<Registry<u64, CircuitBreaker>>) {
//! let mut interval = tokio::time::interval(Duration::from_secs(300));
//! tokio::spawn(async move {
//!     loop {
//!         interval.tick().await;
//!         breakers.sweep();
//!     }
//! });
//! # }
//! ```
//!
//! # Keys
//! Keys are compared as they are. Bring them into one form before: a host's name in lower case and without a dot at its end, an
//! address parsed. What clients choose freely, and can choose anew for each call, makes no key.
//!
//! The hasher has a secret of its own for each registry, so that nobody can choose keys that share one hash. With another one
//! ([`with_hasher`](Registry::with_hasher)) that has none, such keys are told apart too, but slowly. A key that hands more bytes to the
//! hasher than [`LONGEST_KEY`] shares the overflow policy.
//!
//! # What it costs
//! A breaker for each of a million hosts, with names of 20 characters as `Box<str>`, takes 126 MB of the heap in all, of which 34 are the
//! tables; a test holds it to 150 MB. What goes leaves its place in the table, of 24 bytes, to others.
//!
//! To get a policy that is there hashes the key, takes a lock as one of its readers and counts the [`Arc`]. It reads no clock, and
//! writes nothing but these two counts, and a bit where it isn't set. That takes about as long as a look-up in a map behind a lock, 30 to 40 ns,
//! and two to three times as long where two threads are at the same key all the time: there hold the [`Arc`].
//!
//! There are up to 16 locks, or one for every 1,536 keys where that makes more of them. Nothing holds one for longer than it takes to move
//! these keys to another table, some 40 µs, which one in a thousand new keys has to do where keys come and go.
//!
//! # Defaults
//!
//! | what | default | range | at the extremes |
//! | --- | --- | --- | --- |
//! | capacity | none: say how many keys | 1 to [`MOST`] | 1: a key has a policy of its own while nobody else needs it |
//! | longest key | [`LONGEST_KEY`] (1 KiB) | any | zero: all keys share one policy, but those that are mere bytes |
//! | clock | [`Tokio`] | [`with_clock`](Registry::with_clock) | |
//! | hasher | [`RandomState`] | any [`BuildHasher`] | |
//!
//! # When not to use it
//! For keys that are known when the program starts: hold their policies in fields, or in an array. For a rate alone, and few keys:
//! [`KeyedRateLimiter`](crate::KeyedRateLimiter) has its fixed number of places in line. And not as a cache of what can be had again:
//! what is in use is not pushed out here.
//!
//! # Source
//! The clock algorithm: Corbató, "A Paging Experiment with the Multics System", 1968. That what is in use stays is the pinning of
//! database buffers.

use core::borrow::Borrow;
use core::fmt;
use core::hash::{BuildHasher, Hash, Hasher};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::hash::RandomState;
use std::sync::Arc;

use failsoft_core::bulkhead::{Bulkhead, Slots, Tally, WaitQueue};
use failsoft_core::cell::CellKind;
use failsoft_core::circuit_breaker::{CircuitBreaker, State, StateKind, Transition, Trip};
use failsoft_core::fallback::{Fallback, FallbackTo};
use failsoft_core::pipeline::{Bare, Stack};
use failsoft_core::rate_limiter::{Arrival, RateLimiter};
use failsoft_core::retry::RetryPolicy;
use failsoft_core::timeout::Timeout;
use failsoft_core::{Clock, ConfigError, Instant, Observer, Pipeline};

use crate::Shared;
use crate::executor::Tokio;

#[cfg(feature = "tower")]
mod per_key;
mod places;

#[cfg(feature = "tower")]
pub use per_key::PerKey;
use places::{Shard, Slot};

/// The most keys that a registry can be made for.
pub const MOST: usize = 1 << 30;
/// The longest key that has a policy of its own, in bytes, unless said otherwise: four times the longest name of a host.
pub const LONGEST_KEY: usize = 1_024;
/// At how many keys the hand looks for one that may go, before the new one shares the overflow policy. Where nine of ten are in use, it finds none
/// three times in a hundred.
pub const LOOKS: usize = 32;

/// Keys behind one lock, on average. A table for 2,048 holds 1,792: room for as many more as come by chance (the square root of this, four
/// times) and for those that come and go. It is also what a sweep looks through at a time.
const SHARE: usize = 1_536;
/// So many locks keep threads out of each other's way, where there are enough keys behind each for the hand to choose from.
const LOCKS: usize = 16;
/// Enough.
const CHOICE: usize = 4 * LOOKS;

/// The settings of a registry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Config {
    capacity: usize,
    longest_key: usize,
}

impl Config {
    /// At most so many keys with a policy of their own.
    ///
    /// # Errors
    /// Zero, or more than [`MOST`].
    pub const fn new(capacity: usize) -> Result<Self, ConfigError> {
        match capacity {
            0 => Err(ConfigError::new(
                "capacity",
                "is zero: all keys would share one policy",
                "`capacity` is zero: all keys would share one policy",
            )),
            1..=MOST => Ok(Self { capacity, longest_key: LONGEST_KEY }),
            _ => Err(ConfigError::new(
                "capacity",
                "is above 1,073,741,824: that bounds nothing",
                "`capacity` is above 1,073,741,824: that bounds nothing",
            )),
        }
    }

    /// Keys of more than so many bytes share the overflow policy: of bytes that the key hands to the hasher, which for a text are its own.
    #[must_use]
    pub const fn with_longest_key(mut self, bytes: usize) -> Self {
        self.longest_key = bytes;
        self
    }

    fn locks(&self) -> usize {
        let few = self.capacity / CHOICE;
        few.min(LOCKS).max(self.capacity.div_ceil(SHARE))
    }

    fn shards<K, P>(&self) -> Box<[Shard<K, P>]> {
        (0..self.locks()).map(|_| Shard::new()).collect()
    }
}

/// Whether a policy may go when another key needs its place.
///
/// ```
/// use failsoft_tokio::registry::Idle;
/// use failsoft_tokio::{CircuitBreaker, Instant, RetryPolicy};
///
/// struct Upstream {
///     retry: RetryPolicy, // keeps nothing between calls
///     breaker: CircuitBreaker,
/// }
///
/// impl Idle for Upstream {
///     fn is_idle(&self, now: Instant) -> bool {
///         self.breaker.is_idle(now)
///     }
/// }
/// # fn f(upstream: Upstream) { let _ = upstream.retry; }
/// ```
pub trait Idle {
    /// Whether one made anew would do as well. It is asked of a policy that nobody holds, while a part of the registry is locked:
    /// it must not use the registry.
    fn is_idle(&self, now: Instant) -> bool;
}

/// Idle while all of its policies are.
impl<X, L: Idle, C> Idle for Pipeline<X, L, C> {
    fn is_idle(&self, now: Instant) -> bool {
        self.layers().is_idle(now)
    }
}

impl<A: Idle, B: Idle> Idle for Stack<A, B> {
    fn is_idle(&self, now: Instant) -> bool {
        self.outer().is_idle(now) && self.inner().is_idle(now)
    }
}

impl<P: Idle> Idle for Option<P> {
    fn is_idle(&self, now: Instant) -> bool {
        self.as_ref().is_none_or(|policy| policy.is_idle(now))
    }
}

/// It has a life of its own: whoever comes next shares it just so.
impl<P> Idle for Shared<P> {
    fn is_idle(&self, _: Instant) -> bool {
        true
    }
}

/// The same.
impl<P> Idle for &P {
    fn is_idle(&self, _: Instant) -> bool {
        true
    }
}

macro_rules! always_idle {
    ($([$($parameter:ident)?] $policy:ty),*) => {
        $(
            /// Always: it remembers nothing.
            impl$(<$parameter>)? Idle for $policy {
                fn is_idle(&self, _: Instant) -> bool {
                    true
                }
            }
        )*
    };
}
always_idle!([] Bare, [] Timeout, [O] RetryPolicy<O>, [F] Fallback<F>, [F] FallbackTo<F>);

/// Idle while it is closed, or when the time of its state is over and nobody has called since.
impl<K, T, O> Idle for CircuitBreaker<K, T, O>
where
    T: Copy + Trip,
    K: CellKind<State<T::Meter>>,
    O: Observer<Transition>,
{
    fn is_idle(&self, now: Instant) -> bool {
        self.state() == StateKind::Closed || self.poll_timeout().is_some_and(|until| until <= now)
    }
}

/// Idle when its whole burst is there.
impl<K: CellKind<Arrival>> Idle for RateLimiter<K> {
    fn is_idle(&self, now: Instant) -> bool {
        self.available(&now) >= i64::from(self.config().burst())
    }
}

/// Idle when no permit is in use or waited for.
impl<K, Q> Idle for Bulkhead<K, Q>
where
    K: CellKind<Slots> + CellKind<Tally>,
    Q: WaitQueue,
{
    fn is_idle(&self, _: Instant) -> bool {
        let snapshot = self.snapshot();
        snapshot.in_use == 0 && snapshot.queued == 0
    }
}

macro_rules! idle_tuples {
    ($($($part:ident $index:tt)+,)+) => {
        $(
            /// Idle when all of them are.
            impl<$($part: Idle),+> Idle for ($($part,)+) {
                fn is_idle(&self, now: Instant) -> bool {
                    $(self.$index.is_idle(now))&&+
                }
            }
        )+
    };
}
idle_tuples!(A 0 B 1, A 0 B 1 C 2, A 0 B 1 C 2 D 3,);

/// What a registry can tell about itself. What was created is there, or has been evicted, swept or removed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Snapshot {
    /// Keys with a policy of their own.
    pub len: usize,
    /// The most that there can be.
    pub capacity: usize,
    /// Policies made so far, without the overflow policy.
    pub created: u64,
    /// Those that have gone because another key needed the place.
    pub evicted: u64,
    /// Those that have gone in a sweep.
    pub swept: u64,
    /// Those that were removed by hand.
    pub removed: u64,
    /// How often somebody got the overflow policy.
    pub overflowed: u64,
}

/// The counters, apart from what every call reads.
#[derive(Default)]
#[repr(align(64))]
struct Counters {
    len: AtomicUsize,
    created: AtomicU64,
    evicted: AtomicU64,
    swept: AtomicU64,
    removed: AtomicU64,
    overflowed: AtomicU64,
}

/// Makes the policy for a key, or the one that all others share.
type Make<K, P> = Box<dyn Fn(Option<&K>) -> P + Send + Sync>;
/// Whether a policy may go.
type Rule<P> = Box<dyn Fn(&P, Instant) -> bool + Send + Sync>;

/// A policy `P` for each key; see the [module](self).
pub struct Registry<K, P, S = RandomState> {
    config: Config,
    shards: Box<[Shard<K, P>]>,
    hasher: S,
    make: Make<K, P>,
    may_go: Rule<P>,
    clock: Box<dyn Clock + Send + Sync>,
    overflow: Arc<P>,
    counters: Counters,
}

impl<K, P, S> fmt::Debug for Registry<K, P, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("snapshot", &self.snapshot()).finish_non_exhaustive()
    }
}

impl<K, P> Registry<K, P> {
    /// An empty registry. `make` makes the policy for a key, and the overflow policy, for which there is none.
    ///
    /// `make` runs once for each key that comes, also when several threads bring it at the same time, and while a part of the registry is
    /// locked: it must not use the registry. When it panics, nothing has changed, but that another policy may have gone.
    pub fn new(config: Config, make: impl Fn(Option<&K>) -> P + Send + Sync + 'static) -> Self
    where
        P: Idle + 'static,
    {
        Self::with_rule(config, make, P::is_idle)
    }

    /// The same, for policies of any type: `may_go` says whether one may go, as [`Idle::is_idle`] does.
    ///
    /// ```
    /// use failsoft_tokio::registry::{Config, Registry};
    /// use failsoft_tokio::{Throttle, throttle, valid};
    ///
    /// // What a throttle has seen is worth little after a while.
    /// let make = |_: Option<&u64>| Throttle::new(valid!(throttle::Config::new().validate()));
    /// let throttles = Registry::with_rule(valid!(Config::new(1_000)), make, |_, _| true);
    /// # let _ = throttles.get(&7);
    /// ```
    pub fn with_rule(
        config: Config,
        make: impl Fn(Option<&K>) -> P + Send + Sync + 'static,
        may_go: impl Fn(&P, Instant) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            config,
            shards: config.shards(),
            hasher: RandomState::new(),
            overflow: Arc::new(make(None)),
            make: Box::new(make),
            may_go: Box::new(may_go),
            clock: Box::new(Tokio),
            counters: Counters::default(),
        }
    }
}

impl<K, P, S> Registry<K, P, S> {
    /// With another clock: the one that the policies are asked with.
    #[must_use]
    pub fn with_clock(self, clock: impl Clock + Send + Sync + 'static) -> Self {
        Self { clock: Box::new(clock), ..self }
    }

    /// An empty registry with another hasher. One without a secret is for keys that nobody else chooses.
    #[must_use]
    pub fn with_hasher<T>(self, hasher: T) -> Registry<K, P, T> {
        let Self { config, make, may_go, clock, overflow, .. } = self;
        let (shards, counters) = (config.shards(), Counters::default());
        Registry { config, shards, hasher, make, may_go, clock, overflow, counters }
    }

    /// The policy of all keys that find no place.
    pub const fn overflow(&self) -> &Arc<P> {
        &self.overflow
    }

    /// How full it is, and what has happened so far. Each number is right by itself.
    pub fn snapshot(&self) -> Snapshot {
        let Counters { len, created, evicted, swept, removed, overflowed } = &self.counters;
        Snapshot {
            len: len.load(Relaxed),
            capacity: self.config.capacity,
            created: created.load(Relaxed),
            evicted: evicted.load(Relaxed),
            swept: swept.load(Relaxed),
            removed: removed.load(Relaxed),
            overflowed: overflowed.load(Relaxed),
        }
    }

    /// Lets go of all policies that were not used since the last sweep and are not in use; says how many those were. Part by part: calls
    /// wait while the keys behind one lock are looked through.
    pub fn sweep(&self) -> usize {
        let now = self.clock.now();
        let sweep = |shard: &Shard<K, P>| {
            let mut places = shard.write(&self.counters.len);
            let gone = places.sweep(|policy| (self.may_go)(policy, now));
            // Others' code is dropped outside the lock.
            drop(places);
            gone.len()
        };
        let swept = self.shards.iter().map(sweep).sum();
        self.counters.swept.fetch_add(swept as u64, Relaxed);
        swept
    }

    /// Shows every key and its policy, in no order, outside all locks: while it goes on, keys may come and go.
    pub fn for_each(&self, mut f: impl FnMut(&K, &Arc<P>))
    where
        K: Clone,
    {
        for shard in &self.shards {
            let slots = shard.read().slots().map(|slot| (slot.key.clone(), slot.policy.clone())).collect::<Vec<_>>();
            slots.iter().for_each(|(key, policy)| f(key, policy));
        }
    }

    fn share(&self) -> Arc<P> {
        self.counters.overflowed.fetch_add(1, Relaxed);
        self.overflow.clone()
    }
}

impl<K: Eq + Hash, P, S: BuildHasher> Registry<K, P, S> {
    /// The policy of this key, made when it is not there yet; or the overflow policy, where there is no place.
    pub fn get<Q>(&self, key: &Q) -> Arc<P>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned: Into<K>> + ?Sized,
    {
        let hashed = self.hash(key);
        let shard = self.shard(hashed);
        let known = shard.read().get(hashed.hash, key);
        known.unwrap_or_else(|| self.create(shard, hashed, key))
    }

    /// The policy of this key, if it is there. It does not count as used.
    pub fn peek<Q>(&self, key: &Q) -> Option<Arc<P>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let hashed = self.hash(key);
        let places = self.shard(hashed).read();
        places.policy(places.find(hashed.hash, key)?)
    }

    /// Takes a policy out, in use or not. Those who hold it go on with it; who comes later gets a new one.
    pub fn remove<Q>(&self, key: &Q) -> Option<Arc<P>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let hashed = self.hash(key);
        let mut places = self.shard(hashed).write(&self.counters.len);
        let place = places.find(hashed.hash, key)?;
        let removed = places.take_out(place)?;
        drop(places);
        self.counters.removed.fetch_add(1, Relaxed);
        Some(removed.policy)
    }

    // Apart from the path of a key that is there.
    #[cold]
    fn create<Q>(&self, shard: &Shard<K, P>, hashed: Hashed, key: &Q) -> Arc<P>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned: Into<K>> + ?Sized,
    {
        if hashed.bytes > self.config.longest_key {
            return self.share();
        }
        let mut places = shard.write(&self.counters.len);
        if let Some(policy) = places.get(hashed.hash, key) {
            // Another thread was faster.
            return policy;
        }
        let mut evicted = None;
        if !places.take_place(self.config.capacity) {
            let now = self.clock.now();
            evicted = places.evict(|policy| (self.may_go)(policy, now));
            if evicted.is_none() {
                drop(places);
                return self.share();
            }
            self.counters.evicted.fetch_add(1, Relaxed);
        }
        let key = key.to_owned().into();
        let policy = Arc::new((self.make)(Some(&key)));
        places.insert(hashed.hash, Slot { key, policy: policy.clone() }, |key| self.hash(key).hash);
        self.counters.created.fetch_add(1, Relaxed);
        // Others' code is dropped outside the lock.
        drop(places);
        drop(evicted);
        policy
    }

    fn hash<Q: Hash + ?Sized>(&self, key: &Q) -> Hashed {
        let mut measuring = Measuring { hasher: self.hasher.build_hasher(), bytes: 0 };
        key.hash(&mut measuring);
        Hashed { hash: measuring.finish(), bytes: measuring.bytes }
    }

    /// By bits of the hash that the table in there has no use for: it takes the lowest and the highest seven.
    #[expect(clippy::cast_possible_truncation, reason = "it is below the number of shards")]
    fn shard(&self, hashed: Hashed) -> &Shard<K, P> {
        // Spread once more: a hasher for numbers may return them as they are. (The multiplier is the golden ratio's, as Knuth has it.)
        let spread = hashed.hash.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let shards = self.shards.len() as u128;
        &self.shards[((u128::from(spread) * shards) >> 64) as usize]
    }
}

/// What a key comes to.
#[derive(Clone, Copy)]
struct Hashed {
    hash: u64,
    bytes: usize,
}

/// Counts the bytes of a key while it is hashed, whatever its type.
struct Measuring<H> {
    hasher: H,
    bytes: usize,
}

/// Numbers reach the hasher as what they are: some hashers are for nothing else.
macro_rules! measured {
    ($($write:ident: $number:ty),*) => {
        $(
            #[inline]
            fn $write(&mut self, number: $number) {
                self.bytes = self.bytes.saturating_add(size_of::<$number>());
                self.hasher.$write(number);
            }
        )*
    };
}

impl<H: Hasher> Hasher for Measuring<H> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        self.bytes = self.bytes.saturating_add(bytes.len());
        self.hasher.write(bytes);
    }

    // What ends a text is no part of it.
    #[inline]
    fn write_u8(&mut self, byte: u8) {
        self.hasher.write_u8(byte);
    }

    measured!(write_u16: u16, write_u32: u32, write_u64: u64, write_u128: u128, write_usize: usize);
    measured!(write_i16: i16, write_i32: i32, write_i64: i64, write_i128: i128, write_isize: isize);

    #[inline]
    fn finish(&self) -> u64 {
        self.hasher.finish()
    }
}
