//! The last good value of each key, in bounded memory.

use core::cell::RefCell;
use core::fmt;
use core::hash::Hash;
use core::mem;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;

use heapless::index_map::FnvIndexMap;

use super::layer::{self, Remembers};
use super::{Config, Entry, Good, LastGoodState, Served, remember};
use crate::cell::{CellKind, Fresh, StateCell, Stored};
use crate::config::Valid;
use crate::executor::Executor;
use crate::observe::Observer;
use crate::pipeline::{Answer, Layer, Next, Part, Role, Scope};
use crate::time::{Clock, Instant, Span};

/// What is remembered of many things, each under its key.
pub struct Memories<Key, T, const N: usize> {
    of: FnvIndexMap<Key, Entry<T>, N>,
}

impl<Key, T, const N: usize> fmt::Debug for Memories<Key, T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memories").finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<Key, T, const N: usize> defmt::Format for Memories<Key, T, N> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Memories");
    }
}

impl<Key, T, const N: usize> Fresh for Memories<Key, T, N> {
    const FRESH: Self = Self { of: FnvIndexMap::new() };
}

impl<Key, T, const N: usize> Stored for Memories<Key, T, N> {
    type Cell = RefCell<Self>;
}

impl<Key: Clone + Eq + Hash, T, const N: usize> Memories<Key, T, N> {
    /// Keeps an entry in the key's own place; in a free one, or the oldest's, where it has none. Returns what had to go.
    fn keep(&mut self, key: &Key, entry: Entry<T>) -> Option<Entry<T>> {
        if let Some(own) = self.of.get_mut(key) {
            return Some(mem::replace(own, entry));
        }
        let gone = if self.of.len() < N { None } else { self.remove_oldest(entry.at) };
        match self.of.insert(key.clone(), entry) {
            Ok(_) => gone,
            // There is a place; but where there were none it would not be remembered.
            Err((_, entry)) => Some(entry),
        }
    }

    fn remove_oldest(&mut self, now: Instant) -> Option<Entry<T>> {
        // Those from before the clock stepped back would stay the newest.
        self.of.values_mut().for_each(|entry| entry.settle(now));
        let (oldest, _) = self.of.iter().min_by_key(|(_, entry)| entry.at)?;
        let oldest = oldest.clone();
        self.of.swap_remove(&oldest)
    }
}

/// The last good value of each of many keys (sensors, upstreams, tenants), of which it remembers at most `N` (a power of
/// two, two or more).
///
/// ```
/// use failsoft_core::{Instant, cell::Local, last_good::{Config, KeyedLastGood}};
///
/// let prices: KeyedLastGood<Local, &str, u32, 64> = KeyedLastGood::new(Config::new().validate()?);
/// prices.remember(&"apples", &120, &Instant::START);
/// let good = prices.get(&"apples", &Instant::from_millis(30_000)).expect("it is 30 s old");
/// assert_eq!((good.value, good.age().as_secs(), good.is_stale()), (120, 30, true));
/// assert_eq!(prices.get(&"pears", &Instant::START), None);
/// # Ok::<(), failsoft_core::ConfigError>(())
/// ```
///
/// # Bounded memory
/// A key gets its place with its first good value. When all are taken, the one whose value is the oldest makes room: keys that keep being
/// refreshed stay, and a flood of made-up ones gets no place at all where their calls fail. To find the oldest is to look
/// through them all, in the cell: a reason not to have thousands. So is that keys are found by a hash without a secret, which whoever
/// can choose keys may make collide.
///
/// A key is cloned in the cell when it gets its place. For the values, see the [module](super#copies).
pub struct KeyedLastGood<K: CellKind<Memories<Key, T, N>>, Key, T, const N: usize, O = ()> {
    config: Config,
    memories: K::Cell,
    observer: O,
}

impl<K: CellKind<Memories<Key, T, N>>, Key, T, const N: usize, O> fmt::Debug for KeyedLastGood<K, Key, T, N, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedLastGood").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<K: CellKind<Memories<Key, T, N>>, Key, T, const N: usize, O> defmt::Format for KeyedLastGood<K, Key, T, N, O> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "KeyedLastGood {{ config: {} }}", self.config);
    }
}

impl<K: CellKind<Memories<Key, T, N>>, Key, T, const N: usize> KeyedLastGood<K, Key, T, N> {
    /// A memory of nothing yet.
    #[must_use]
    pub const fn new(config: Valid<Config>) -> Self {
        Self::with_observer(config, ())
    }
}

impl<K: CellKind<Memories<Key, T, N>>, Key, T, const N: usize, O> KeyedLastGood<K, Key, T, N, O> {
    /// A memory of nothing yet, and who is told of each value that a pipeline serves from it.
    #[must_use]
    pub const fn with_observer(config: Valid<Config>, observer: O) -> Self {
        Self { config: config.get(), memories: K::Cell::NEW, observer }
    }

    /// The memory of one key, as a layer.
    pub const fn of(&self, key: Key) -> OfKey<'_, K, Key, T, N, O> {
        OfKey { memories: self, key }
    }
}

impl<K, Key, T, const N: usize, O> KeyedLastGood<K, Key, T, N, O>
where
    K: CellKind<Memories<Key, T, N>>,
    Key: Clone + Eq + Hash,
    T: Clone,
{
    /// Remembers a clone of the key's good value, as of now, in place of the one before.
    pub fn remember(&self, key: &Key, value: &T, clock: &impl Clock) {
        remember(&self.memories, value, clock.now(), |memories, entry| memories.keep(key, entry));
    }

    /// The key's last good value, unless there is none or it is older than the age limit.
    pub fn get(&self, key: &Key, clock: &impl Clock) -> Option<Good<T>> {
        self.find(key, clock, |_| true)
    }

    /// How old the key's last good value is, whatever the age limit; `None` when there is none.
    pub fn age(&self, key: &Key, clock: &impl Clock) -> Option<Duration> {
        let now = clock.now();
        self.memories.read(|memories| memories.of.get(key).map(|entry| entry.age(now))).map(Span::duration)
    }

    /// Forgets the key's value: it is known to be wrong. What a call under way brings is remembered all the same.
    pub fn forget(&self, key: &Key) {
        drop(self.memories.update(|memories| memories.of.swap_remove(key)));
    }

    /// Keys of which a value is remembered, be it too old to be served.
    pub fn keys(&self) -> usize {
        self.memories.read(|memories| memories.of.len())
    }

    fn find(&self, key: &Key, clock: &impl Clock, wanted: impl Fn(&Served) -> bool) -> Option<Good<T>> {
        let now = clock.now();
        self.memories.update(|memories| {
            let entry = memories.of.get_mut(key)?;
            entry.settle(now);
            entry.recall(&self.config, now, &wanted)
        })
    }
}

/// One key's part of a memory, as a layer of a pipeline.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct OfKey<'m, K: CellKind<Memories<Key, T, N>>, Key, T, const N: usize, O = ()> {
    memories: &'m KeyedLastGood<K, Key, T, N, O>,
    key: Key,
}

impl<K, Key, T, const N: usize, O> Remembers<T> for OfKey<'_, K, Key, T, N, O>
where
    K: CellKind<Memories<Key, T, N>>,
    Key: Clone + Eq + Hash,
    T: Clone,
    O: Observer<Served>,
{
    fn config(&self) -> &Config {
        &self.memories.config
    }

    fn remember(&self, value: &T, clock: &impl Clock) {
        self.memories.remember(&self.key, value, clock);
    }

    fn find(&self, clock: &impl Clock, wanted: impl Fn(&Served) -> bool) -> Option<Good<T>> {
        self.memories.find(&self.key, clock, wanted)
    }

    fn served(&self, served: &Served) {
        self.memories.observer.observe(served);
    }
}

impl<K: CellKind<Memories<Key, T, N>>, Key, T, const N: usize, O> Part for OfKey<'_, K, Key, T, N, O> {
    const ROLE: Role = Role::Fallback;

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fallback: the last good value, {}, for each key", self.memories.config)
    }
}

impl<T, E, X, K, Key, const N: usize, O> Layer<T, E, X> for OfKey<'_, K, Key, T, N, O>
where
    T: Clone,
    X: Executor,
    K: CellKind<Memories<Key, T, N>>,
    Key: Clone + Eq + Hash,
    O: Observer<Served>,
{
    type State<I> = LastGoodState<I>;

    fn idle<I>(&self, inner: I) -> LastGoodState<I> {
        LastGoodState::new(inner)
    }

    #[inline]
    fn poll<Nx: Next<T, E, X>>(
        &self,
        state: Pin<&mut LastGoodState<Nx::State>>,
        next: &mut Nx,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        layer::poll(self, state, next, scope, cx)
    }

    fn reset<Nx: Next<T, E, X>>(&self, state: Pin<&mut LastGoodState<Nx::State>>, next: &mut Nx, executor: &X) {
        layer::reset(state, next, executor);
    }
}
