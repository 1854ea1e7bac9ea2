//! failsoft for servers: the policies of [`failsoft_core`] on tokio, lock-free and shared between threads.
//!
//! ```
//! use core::time::Duration;
//! use failsoft_tokio::{Bulkhead, CircuitBreaker, Pipeline, RetryPolicy, Timeout, Tokio};
//! use failsoft_tokio::{bulkhead, circuit_breaker, retry};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn core::error::Error>> {
//! let pipeline = Pipeline::new(Tokio)
//!     .layer(Timeout::new(Duration::from_secs(10))) // in all
//!     .layer(RetryPolicy::new(retry::Config::new().validate()?))
//!     .layer(Bulkhead::new(bulkhead::Config::new(64).with_queue(256, Duration::from_millis(100)).validate()?))
//!     .layer(CircuitBreaker::new(circuit_breaker::Config::new().validate()?))
//!     .layer(Timeout::new(Duration::from_secs(1))); // per attempt
//!
//! let answer = pipeline.call(async |_| Ok::<_, std::io::Error>("hello")).await?;
//! # assert_eq!(answer, "hello");
//! # Ok(())
//! # }
//! ```
//!
//! [`Tokio`] is the executor: tokio's clock and timers, so that `tokio::time::pause` governs everything. From plain threads, without a
//! runtime, [`call_blocking`] runs a pipeline on [`Threads`]. [`Coalesce`] lets calls for the same thing at the same time share one run of it.
//!
//! All of core is re-exported; the aliases here choose how states are shared: [`Atomic`] cells, without locks, where the state
//! fits two words, and [`Locked`] ones elsewhere.

mod atomic;
mod blocking;
pub mod coalesce;
mod executor;
mod mutex;
#[cfg(feature = "tracing")]
mod trace;
mod wait;

pub use failsoft_core::{
    Cause, Classify, Clock, ConfigError, ErrIsFailure, Executor, Failure, Instant, Observer, Outcome, Pipeline, Policy,
    Ratio, Reason, Rejected, Rng, Stop, TimedOut, Valid, Verdict, compartments, valid,
};
pub use failsoft_core::{
    backoff, budget, bulkhead, cell, circuit_breaker, degradation, fallback, hedge, last_good, pipeline, quantile,
    retry, timeout,
};

pub use failsoft_core::backoff::{Backoff, Jitter};
pub use failsoft_core::fallback::{Fallback, FallbackTo};
pub use failsoft_core::hedge::Idempotent;
pub use failsoft_core::retry::RetryPolicy;
pub use failsoft_core::timeout::Timeout;

pub use atomic::{Atomic, AtomicCell, Swapped};
pub use blocking::{ThreadSleep, Threads, block_on, call_blocking};
pub use coalesce::Coalesce;
pub use executor::Tokio;
pub use mutex::{Locked, MutexCell};
#[cfg(feature = "tracing")]
pub use trace::Tracing;
pub use wait::{DequeLine, ThreadQueue};

/// A circuit breaker shared by threads, without a lock.
pub type CircuitBreaker<T = circuit_breaker::ConsecutiveFailures, O = ()> =
    circuit_breaker::CircuitBreaker<Atomic, T, O>;

/// A circuit breaker shared by threads, whose settings can be replaced while it is in use.
///
/// ```
/// use failsoft_tokio::circuit_breaker::{Config, ConsecutiveFailures};
/// use failsoft_tokio::{LiveCircuitBreaker, Tokio, valid};
///
/// static PAYMENTS: LiveCircuitBreaker = LiveCircuitBreaker::new(valid!(Config::new().validate()));
///
/// // New settings have come: what has been counted stays.
/// let trip = ConsecutiveFailures::new(10)?;
/// PAYMENTS.reconfigure(Config::new().with_trip(trip).validate()?, &Tokio);
/// # Ok::<(), failsoft_tokio::ConfigError>(())
/// ```
pub type LiveCircuitBreaker<T = circuit_breaker::ConsecutiveFailures, O = ()> =
    circuit_breaker::CircuitBreaker<cell::Live<Atomic>, T, O>;

/// A circuit breaker whose trip condition doesn't fit a word, shared by threads through a mutex.
pub type LockedCircuitBreaker<T, O = ()> = circuit_breaker::CircuitBreaker<Locked, T, O>;

/// A bulkhead shared by threads: its counters without a lock, its queue behind one that only those who wait take.
pub type Bulkhead = bulkhead::Bulkhead<Atomic, ThreadQueue>;

/// Degradation shared by threads, for up to `N` services.
pub type Degradation<const N: usize, L = degradation::DegradationLevel, R = (), O = ()> =
    degradation::Degradation<Locked, N, L, R, O>;

/// A hedge of up to `N` further tries. What is known of the latencies is shared by threads through a mutex, which a fixed delay never
/// takes.
pub type Hedge<const N: usize = 1, D = hedge::FixedDelay, O = (), B = ()> = hedge::Hedge<Locked, N, D, O, B>;

/// The last good value of one thing, shared by threads through a mutex. What is served is cloned while it is held: an `Arc` of
/// what is large.
///
/// ```
/// use failsoft_tokio::last_good::Config;
/// use failsoft_tokio::{LastGood, Tokio, valid};
///
/// static RATES: LastGood<std::sync::Arc<str>> = LastGood::new(valid!(Config::new().validate()));
///
/// # fn f(body: std::sync::Arc<str>) {
/// RATES.remember(&body, &Tokio);
/// # }
/// ```
pub type LastGood<T, O = ()> = last_good::LastGood<Locked, T, O>;

/// The last good value of each of up to `N` keys, a power of two, shared by threads through a mutex.
pub type KeyedLastGood<Key, T, const N: usize, O = ()> = last_good::KeyedLastGood<Locked, Key, T, N, O>;
