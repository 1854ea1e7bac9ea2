//! What has to be asked rather than told.

use core::fmt;
use std::borrow::Cow;
use std::sync::{Arc, PoisonError};

use failsoft_core::adaptive::{AdaptiveLimit, Algorithm, Remembered};
use failsoft_core::adaptive_rate::{self, AdaptiveRate, Rate};
use failsoft_core::budget::{ConcurrentBudget, InFlight, QuotaBudget, RetryThrottle, TokenBudget, Tokens, Used};
use failsoft_core::bulkhead::{Bulkhead, Slots, Tally, WaitQueue};
use failsoft_core::cell::CellKind;
use failsoft_core::circuit_breaker::{self, CircuitBreaker, Transition, Trip};
use failsoft_core::degradation::{Degradation, Health, Level, LevelChange};
use failsoft_core::rate_limiter::{Arrival, RateLimiter};
use failsoft_core::throttle::{Throttle, Window};
use failsoft_core::{Clock, Instant, Observer};
use metrics::gauge;

use super::{STATES, names};
use crate::Shared;
use crate::coalesce::Coalesce;
use crate::sync::{Mutex, MutexGuard};

/// Something whose state can be asked for: all policies that have one, references to them, and what one writes oneself.
///
/// ```
/// use failsoft_tokio::Instant;
/// use failsoft_tokio::metrics::{Gauges, Measure, Sheet};
///
/// struct Connections(u32);
///
/// impl Measure for Connections {
///     fn measure(&self, _: Instant, sheet: &Sheet<'_>) {
///         sheet.set("pool_connections", self.0);
///     }
/// }
///
/// static GAUGES: Gauges = Gauges::new();
/// GAUGES.register("orders", Connections(5)); // pool_connections{name="orders"} 5
/// ```
pub trait Measure {
    /// Writes its gauges. No lock of [`Gauges`] is held meanwhile.
    fn measure(&self, now: Instant, sheet: &Sheet<'_>);
}

/// Where a policy writes its gauges, under its name.
#[derive(Clone, Copy, Debug)]
pub struct Sheet<'n> {
    name: &'n str,
}

impl Sheet<'_> {
    /// Sets a gauge.
    pub fn set(&self, metric: &'static str, value: impl Into<f64>) {
        gauge!(metric, "name" => self.name.to_owned()).set(value.into());
    }

    /// Sets the gauge that has this value of a label; there should be few, and all of them known.
    pub fn set_of(&self, metric: &'static str, (label, of): (&'static str, &'static str), value: impl Into<f64>) {
        gauge!(metric, "name" => self.name.to_owned(), label => of).set(value.into());
    }
}

type Measured = (Cow<'static, str>, Arc<dyn Measure + Send + Sync>);

/// Policies that are asked for their state whenever somebody wants to know; see the [module](super).
///
/// Two policies of one kind under one name would write the same gauges: give each its own name.
pub struct Gauges {
    measured: Mutex<Vec<Measured>>,
}

impl Default for Gauges {
    fn default() -> Self {
        Self::new()
    }
}

impl Gauges {
    /// Without any policy yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { measured: Mutex::new(Vec::new()) }
    }

    /// Asks this policy too from now on: a `&'static` reference, an `Arc`, or the policy itself.
    pub fn register(&self, name: impl Into<Cow<'static, str>>, policy: impl Measure + Send + Sync + 'static) {
        self.lock().push((name.into(), Arc::new(policy)));
    }

    /// Asks whatever has this name no more. What it has written stays as it is.
    pub fn remove(&self, name: &str) {
        let removed: Vec<Measured> = self.lock().extract_if(.., |(known, _)| known == name).collect();
        // Outside the lock: with a policy may go what else its owner has.
        drop(removed);
    }

    /// Asks all policies, and sets their gauges: before each scrape, or from an interval that is no longer than that of the scrapes.
    pub fn collect(&self, clock: &impl Clock) {
        let measured = self.lock().clone();
        let now = clock.now();
        for (name, policy) in &measured {
            policy.measure(now, &Sheet { name });
        }
    }

    /// A list is whole also after a panic: no code of others runs while it is held.
    fn lock(&self) -> MutexGuard<'_, Vec<Measured>> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lock().iter().map(|(name, _)| name)).finish()
    }
}

impl<M: Measure + ?Sized> Measure for &M {
    fn measure(&self, now: Instant, sheet: &Sheet<'_>) {
        (**self).measure(now, sheet);
    }
}

impl<M: Measure + ?Sized> Measure for Arc<M> {
    fn measure(&self, now: Instant, sheet: &Sheet<'_>) {
        (**self).measure(now, sheet);
    }
}

impl<M: Measure> Measure for Shared<M> {
    fn measure(&self, now: Instant, sheet: &Sheet<'_>) {
        (**self).measure(now, sheet);
    }
}

/// What was a breaker's name has none any more: it is in no state.
#[cfg(feature = "settings")]
pub(crate) fn without_breaker(sheet: &Sheet<'_>) {
    for state in STATES {
        sheet.set_of(names::STATE, ("state", state.as_str()), 0);
    }
}

/// As the last call left it: an open breaker whose period is over becomes half-open with the next call.
impl<K, T, O> Measure for CircuitBreaker<K, T, O>
where
    T: Copy + Trip,
    K: CellKind<circuit_breaker::State<T::Meter>>,
    O: Observer<Transition>,
{
    fn measure(&self, now: Instant, sheet: &Sheet<'_>) {
        let it = self.snapshot(&now);
        for (state, number) in STATES.into_iter().zip(0_u8..) {
            sheet.set_of(names::STATE, ("state", state.as_str()), u8::from(state == it.state));
            if state == it.state {
                sheet.set(names::STATE_NUMBER, number);
            }
        }
        sheet.set(names::REOPENED, it.reopened);
        sheet.set(names::COUNTED, it.counts.calls);
        sheet.set(names::COUNTED_FAILURES, it.counts.failures);
        sheet.set(names::PROBES, it.probes);
    }
}

impl<K, Q> Measure for Bulkhead<K, Q>
where
    K: CellKind<Slots> + CellKind<Tally>,
    Q: WaitQueue,
{
    fn measure(&self, _: Instant, sheet: &Sheet<'_>) {
        let it = self.snapshot();
        sheet.set(names::PERMITS, it.permits);
        sheet.set(names::IN_USE, it.in_use);
        sheet.set(names::QUEUED, it.queued);
        sheet.set(names::HIGH_WATER, it.high_water);
    }
}

impl<K, M, A, Q, O> Measure for AdaptiveLimit<K, M, A, Q, O>
where
    A: Algorithm,
    K: CellKind<Slots> + CellKind<Tally>,
    M: CellKind<Remembered<A::Memory>>,
    Q: WaitQueue,
{
    fn measure(&self, _: Instant, sheet: &Sheet<'_>) {
        let it = self.snapshot();
        sheet.set(names::LIMIT, self.limit());
        sheet.set(names::LIMIT_IN_USE, it.in_use);
        sheet.set(names::LIMIT_QUEUED, it.queued);
    }
}

impl<K: CellKind<Arrival>> Measure for RateLimiter<K> {
    fn measure(&self, now: Instant, sheet: &Sheet<'_>) {
        sheet.set(names::AVAILABLE, rounded(self.available(&now)));
    }
}

impl<K: CellKind<adaptive_rate::State>, O> Measure for AdaptiveRate<K, O> {
    fn measure(&self, _: Instant, sheet: &Sheet<'_>) {
        let it = self.snapshot();
        sheet.set(names::RATE, it.limit.map_or(f64::INFINITY, per_second));
        sheet.set(names::RATE_MEASURED, per_second(it.measured));
    }
}

impl<K, const N: usize, L, R, O> Measure for Degradation<K, N, L, R, O>
where
    K: CellKind<Health<R, N>>,
    L: Level,
    R: Copy,
    O: Observer<LevelChange<L>>,
{
    fn measure(&self, now: Instant, sheet: &Sheet<'_>) {
        sheet.set(names::LEVEL, self.level(&now).step());
    }
}

impl<K: CellKind<Window>> Measure for Throttle<K> {
    fn measure(&self, now: Instant, sheet: &Sheet<'_>) {
        sheet.set(names::THROTTLED, f64::from(self.probability(&now).as_basis_points()) / 10_000.0);
    }
}

/// Retries that could be taken now.
impl<K: CellKind<Tokens>> Measure for TokenBudget<K> {
    fn measure(&self, now: Instant, sheet: &Sheet<'_>) {
        sheet.set(names::BALANCE, self.balance(&now));
    }
}

/// Tokens.
impl<K: CellKind<Used>> Measure for QuotaBudget<K> {
    fn measure(&self, _: Instant, sheet: &Sheet<'_>) {
        sheet.set(names::BALANCE, self.balance());
    }
}

/// Tokens, in parts.
impl<K: CellKind<Used>> Measure for RetryThrottle<K> {
    fn measure(&self, _: Instant, sheet: &Sheet<'_>) {
        sheet.set(names::BALANCE, f64::from(self.thousandths()) / 1_000.0);
    }
}

/// Retries that may start now.
impl<K: CellKind<InFlight>> Measure for ConcurrentBudget<K> {
    fn measure(&self, _: Instant, sheet: &Sheet<'_>) {
        sheet.set(names::BALANCE, self.limit().saturating_sub(self.in_flight().retries));
    }
}

impl<Key, T> Measure for Coalesce<Key, T> {
    fn measure(&self, _: Instant, sheet: &Sheet<'_>) {
        sheet.set(names::COALESCED, rounded(i64::try_from(self.in_flight()).unwrap_or(i64::MAX)));
    }
}

fn per_second(rate: Rate) -> f64 {
    rounded(i64::try_from(rate.as_millionths()).unwrap_or(i64::MAX)) / 1_000_000.0
}

#[expect(clippy::as_conversions, reason = "beyond 2^53 a gauge is not exact")]
const fn rounded(whole: i64) -> f64 {
    whole as f64
}
