//! A quota for each key, in bounded memory.

use core::cell::RefCell;
use core::fmt;
use core::hash::Hash;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use heapless::index_map::FnvIndexMap;

use super::{Arrival, Config, exceeded};
use crate::cell::{CellKind, Fresh, Replaceable, SettingsCell, StateCell, Stored};
use crate::config::Valid;
use crate::executor::Executor;
use crate::failure::{Policy, Reason, Rejected};
use crate::pipeline::{Answer, Layer, Next, Part, REJECTED, Role, Scope};
use crate::time::{Clock, Instant, Span};

/// What a limiter for keys keeps: an arrival time for each key that has used some of its quota, and one for all others.
pub struct Arrivals<Key, const N: usize> {
    of: FnvIndexMap<Key, Arrival, N>,
    others: Arrival,
    // No key has its whole burst back before this: until then there is no place to be found.
    full_until: u64,
}

impl<Key, const N: usize> fmt::Debug for Arrivals<Key, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrivals").field("others", &self.others).finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<Key, const N: usize> defmt::Format for Arrivals<Key, N> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Arrivals {{ others: {} }}", self.others);
    }
}

impl<Key, const N: usize> Fresh for Arrivals<Key, N> {
    const FRESH: Self = Self { of: FnvIndexMap::new(), others: Arrival::FRESH, full_until: 0 };
}

impl<Key, const N: usize> Stored for Arrivals<Key, N> {
    type Cell = RefCell<Self>;
}

impl<Key: Clone + Eq + Hash, const N: usize> Arrivals<Key, N> {
    /// The key's own arrival time, or the one of all keys that have no place.
    fn find(&self, key: &Key, now: u64) -> Arrival {
        match self.of.get(key) {
            Some(arrival) => *arrival,
            None if self.of.len() < N || self.of.values().any(|arrival| arrival.0 <= now) => Arrival::FRESH,
            None => self.others,
        }
    }

    /// The key's own place, given one where there is none yet and that is possible. A key that has its whole burst back
    /// needs no place: without one it is as good as new.
    fn own(&mut self, config: &Config, key: &Key, now: Instant) -> Option<&mut Arrival> {
        if !self.of.contains_key(key) {
            // Further ahead than any arrival: the clock has stepped back.
            let stepped_back = self.full_until > now.after(config.horizon()).as_nanos();
            if self.of.len() == N && (now.as_nanos() >= self.full_until || stepped_back) {
                self.of.retain(|_, arrival| {
                    arrival.0 = arrival.at(config, now);
                    arrival.0 > now.as_nanos()
                });
                self.full_until = self.of.values().map(|arrival| arrival.0).min().unwrap_or(u64::MAX);
            }
            self.of.insert(key.clone(), Arrival::FRESH).ok()?;
        }
        self.of.get_mut(key)
    }

    fn take(&mut self, config: &Config, key: &Key, permits: u32, now: Instant) -> Result<(), Rejected> {
        // One call for both, so that a chip has its code once.
        let own = self.own(config, key, now);
        let is_own = own.is_some();
        let arrival = match own {
            Some(own) => own,
            None => &mut self.others,
        };
        let taken = arrival.take(config, permits, Span::ZERO, now);
        if is_own {
            let whole_again = arrival.0;
            self.full_until = self.full_until.min(whole_again);
        }
        taken.map(drop).map_err(exceeded)
    }
}

/// A rate limiter with a quota for each of many keys (callers, addresses, tenants), of which it remembers at most `N` (a
/// power of two, two or more).
///
/// ```
/// use core::time::Duration;
/// use failsoft_core::{Instant, cell::Local, rate_limiter::{Config, KeyedRateLimiter}};
///
/// let config = Config::new(2, Duration::from_secs(1)).validate()?;
/// let limiter: KeyedRateLimiter<Local, &str, 64> = KeyedRateLimiter::new(config);
/// limiter.try_acquire_many(&"ada", 2, &Instant::START)?;
/// assert!(limiter.try_acquire(&"ada", &Instant::START).is_err());
/// limiter.try_acquire(&"grace", &Instant::START)?;
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
///
/// # Bounded memory
/// A key needs a place only while some of its burst is used up: with the whole burst back, it is as good as new. When more
/// than `N` keys have used some of theirs at once, as under a flood of made-up keys, those that come last share *one*
/// quota, until places are free. So a flood gets no more than one quota beyond its places, what others have used stays
/// used, and those known before keep their own.
///
/// Keys are found by a hash without a secret, so that a chip needs no entropy for it. Whoever can choose keys may make them collide: then
/// looking for one is looking through all `N` places, in the cell. A reason not to have thousands.
///
/// There is no queue: a configuration's queue is left aside.
pub struct KeyedRateLimiter<K: CellKind<Arrivals<Key, N>>, Key, const N: usize> {
    first: Config,
    settings: K::Settings<Config>,
    arrivals: K::Cell,
}

impl<K: CellKind<Arrivals<Key, N>>, Key, const N: usize> fmt::Debug for KeyedRateLimiter<K, Key, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedRateLimiter").finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<K: CellKind<Arrivals<Key, N>>, Key, const N: usize> defmt::Format for KeyedRateLimiter<K, Key, N> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "KeyedRateLimiter");
    }
}

impl<K: CellKind<Arrivals<Key, N>>, Key: Clone + Eq + Hash, const N: usize> KeyedRateLimiter<K, Key, N> {
    /// A limiter that knows no key yet: each has its whole burst.
    #[must_use]
    pub const fn new(config: Valid<Config>) -> Self {
        Self { first: config.get(), settings: K::Settings::NEW, arrivals: K::Cell::NEW }
    }

    /// Takes one of the key's permits now or not at all.
    ///
    /// # Errors
    /// The rejection, with the instant at which one would pass.
    pub fn try_acquire(&self, key: &Key, clock: &impl Clock) -> Result<(), Rejected> {
        self.try_acquire_many(key, 1, clock)
    }

    /// Takes so many of the key's permits now, all or none. None at all takes nothing, and passes when one would.
    ///
    /// # Errors
    /// The rejection, with the instant at which so many would pass; without one where there never are so many at once.
    pub fn try_acquire_many(&self, key: &Key, permits: u32, clock: &impl Clock) -> Result<(), Rejected> {
        let now = clock.now();
        self.settings.with(&self.first, |config| {
            if permits > config.burst {
                return Err(Rejected::new(Policy::RateLimiter, Reason::TooHeavy));
            }
            self.arrivals.update(|arrivals| arrivals.take(config, key, permits, now))
        })
    }

    /// The key's permits that could be taken now.
    pub fn available(&self, key: &Key, clock: &impl Clock) -> u32 {
        let now = clock.now();
        let find =
            |config: &Config| self.arrivals.read(|arrivals| arrivals.find(key, now.as_nanos()).available(config, now));
        u32::try_from(self.settings.with(&self.first, find)).unwrap_or(0)
    }

    /// Keys that have a place of their own.
    pub fn keys(&self) -> usize {
        self.arrivals.read(|arrivals| arrivals.of.len())
    }

    /// Puts other settings in force, for all keys. What each has taken stays taken, in permits, up to a whole burst.
    pub fn reconfigure(&self, config: Valid<Config>, clock: &impl Clock)
    where
        K::Settings<Config>: Replaceable<Config>,
    {
        let (now, new) = (clock.now(), config.get());
        self.settings.replace(&self.first, new, |old| {
            self.arrivals.update(|arrivals| {
                for arrival in arrivals.of.values_mut() {
                    arrival.carry(old, &new, now);
                }
                arrivals.others.carry(old, &new, now);
                arrivals.full_until = 0;
            });
        });
    }

    /// The limit of one key, as a layer: each call takes one of its permits, or is rejected.
    pub const fn of(&self, key: Key) -> OfKey<'_, K, Key, N> {
        OfKey { limiter: self, key }
    }
}

/// One key's part of a limiter, as a layer of a pipeline.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct OfKey<'l, K: CellKind<Arrivals<Key, N>>, Key, const N: usize> {
    limiter: &'l KeyedRateLimiter<K, Key, N>,
    key: Key,
}

pin_project_lite::pin_project! {
    /// The progress within a call: whether it has passed.
    #[derive(Debug)]
    #[cfg_attr(feature = "defmt", derive(defmt::Format))]
    pub struct OfKeyState<I> {
        passed: bool,
        #[pin]
        inner: I,
    }
}

impl<K: CellKind<Arrivals<Key, N>>, Key, const N: usize> Part for OfKey<'_, K, Key, N> {
    const ROLE: Role = Role::RateLimiter;

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.limiter.settings.with(&self.limiter.first, |config| *config);
        write!(f, "rate limiter: {config}, for each key")
    }
}

impl<T, E, X, K, Key, const N: usize> Layer<T, E, X> for OfKey<'_, K, Key, N>
where
    X: Executor,
    K: CellKind<Arrivals<Key, N>>,
    Key: Clone + Eq + Hash,
{
    type State<I> = OfKeyState<I>;

    fn idle<I>(&self, inner: I) -> OfKeyState<I> {
        OfKeyState { passed: false, inner }
    }

    fn poll<Nx: Next<T, E, X>>(
        &self,
        state: Pin<&mut OfKeyState<Nx::State>>,
        next: &mut Nx,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        let this = state.project();
        if !*this.passed {
            if let Err(rejected) = self.limiter.try_acquire(&self.key, scope.executor()) {
                return Poll::Ready(Answer::ended(rejected, REJECTED));
            }
            *this.passed = true;
        }
        let answer = ready!(next.poll(this.inner, scope, cx));
        *this.passed = false;
        Poll::Ready(answer)
    }

    fn reset<Nx: Next<T, E, X>>(&self, state: Pin<&mut OfKeyState<Nx::State>>, next: &mut Nx, executor: &X) {
        let this = state.project();
        *this.passed = false;
        next.reset(this.inner, executor);
    }
}
