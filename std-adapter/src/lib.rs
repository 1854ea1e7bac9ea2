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
//! Windows of time and limits for slow calls read the clock on each call: `CoarseClock` (feature `coarse`) is a cheap one for them.
//!
//! `PipelineLayer` (feature `tower`) puts a pipeline around a service of tower's, among other layers.
//!
//! For those who watch: `Metered` counts calls, `Metrics` counts events and `Gauges` shows states (feature `metrics`, for Prometheus
//! and OpenTelemetry); `Traced` makes spans of calls and `Tracing` logs events (feature `tracing`, for OpenTelemetry).
//! [`Shared`] is a policy behind an `Arc`. `settings` (feature `settings`) makes policies of files and of the environment, and reloads
//! them while they are in use.
//! `Registry` (feature `registry`) has a policy for each host, tenant or route, in bounded memory.
//!
//! All of core is re-exported; the aliases here choose how states are shared: [`Atomic`] cells, without locks, where the state
//! fits two words, and [`Locked`] ones elsewhere.

mod atomic;
mod blocking;
pub mod coalesce;
#[cfg(feature = "coarse")]
mod coarse;
#[cfg(any(feature = "metrics", feature = "tracing"))]
mod ended;
mod executor;
#[cfg(feature = "tonic")]
pub mod grpc;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "metrics")]
pub mod metrics;
mod mutex;
#[cfg(feature = "registry")]
pub mod registry;
#[cfg(feature = "reqwest")]
pub mod reqwest;
#[cfg(feature = "settings")]
pub mod settings;
mod shared;
mod sync;
#[cfg(feature = "tower")]
pub mod tower;
#[cfg(feature = "tracing")]
pub mod trace;
mod wait;

pub use failsoft_core::{
    Called, Cause, Classify, Clock, ConfigError, ErrIsFailure, Executor, Failure, Instant, Observer, Outcome, Pipeline,
    Policy, Ratio, Reason, Rejected, Rng, Span, Stop, TimedOut, Valid, Verdict, compartments, valid,
};
pub use failsoft_core::{
    adaptive, adaptive_rate, backoff, boot_loop, budget, bulkhead, cell, chaos, circuit_breaker, degradation, fallback,
    hedge, last_good, pipeline, quantile, queue, rate_limiter, retained, retry, supervisor, throttle, timeout, window,
};

pub use failsoft_core::backoff::{Backoff, Jitter};
pub use failsoft_core::fallback::{Fallback, FallbackTo};
pub use failsoft_core::hedge::Idempotent;
pub use failsoft_core::retry::RetryPolicy;
pub use failsoft_core::timeout::Timeout;

#[cfg(feature = "metrics")]
pub use self::metrics::{Gauges, Metered, Metrics};
#[cfg(feature = "tower")]
pub use self::tower::{PipelineLayer, PipelineService};
pub use atomic::{Atomic, AtomicCell, Swapped};
pub use blocking::{ThreadSleep, Threads, block_on, call_blocking};
pub use coalesce::Coalesce;
#[cfg(feature = "coarse")]
pub use coarse::CoarseClock;
pub use executor::Tokio;
pub use mutex::{Locked, MutexCell};
#[cfg(feature = "registry")]
pub use registry::Registry;
#[cfg(feature = "settings")]
pub use settings::{Policies, Settings};
pub use shared::Shared;
#[cfg(feature = "tracing")]
pub use trace::{Traced, Tracing};
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

/// A supervisor of up to `N` tasks, shared by threads. Its [`Watchdog`](supervisor::Watchdog) may be the one of the operating system:
/// `systemd`'s, say, that is fed by `WATCHDOG=1`.
pub type Supervisor<const N: usize, D = (), O = ()> = supervisor::Supervisor<Locked, N, D, O>;

/// A hedge of up to `N` further tries. What is known of the latencies is shared by threads through a mutex, which a fixed delay never
/// takes.
pub type Hedge<const N: usize = 1, D = hedge::FixedDelay, O = (), B = ()> = hedge::Hedge<Locked, N, D, O, B>;

/// A rate limiter shared by threads, without a lock.
///
/// ```
/// use core::time::Duration;
/// use failsoft_tokio::{RateLimiter, Tokio, rate_limiter::Config, valid};
///
/// static MAILS: RateLimiter = RateLimiter::new(valid!(Config::new(100, Duration::from_secs(60)).validate()));
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// assert!(MAILS.try_acquire(&Tokio).is_ok());
/// # }
/// ```
pub type RateLimiter = rate_limiter::RateLimiter<Atomic>;

/// A rate limiter shared by threads, whose quota can be replaced while it is in use.
pub type LiveRateLimiter = rate_limiter::RateLimiter<cell::Live<Atomic>>;

/// A rate limiter for each of up to `N` keys (a power of two, two or more), shared by threads through a mutex.
pub type KeyedRateLimiter<Key, const N: usize> = rate_limiter::KeyedRateLimiter<Locked, Key, N>;

/// A client-side throttler, shared by threads through a mutex.
pub type Throttle = throttle::Throttle<Locked>;

/// A limit of calls at once that follows the algorithm `A`: its counters are shared by threads without a lock, what was learned
/// through a mutex that each call takes once, at its end.
///
/// ```
/// use core::time::Duration;
/// use failsoft_tokio::adaptive::{Config, Gradient2, Windowed};
/// use failsoft_tokio::{AdaptiveLimit, Pipeline, Tokio, valid};
///
/// static LIMIT: AdaptiveLimit<Windowed<Gradient2>> = AdaptiveLimit::new(valid!(
///     Config::new(valid!(Windowed::new(valid!(Gradient2::new().validate())).validate()))
///         .with_queue(100, Duration::from_millis(50))
///         .validate()
/// ));
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let pipeline = Pipeline::new(Tokio).layer(&LIMIT);
/// assert!(pipeline.call(async |_| Ok::<_, ()>(7)).await.is_ok());
/// # }
/// ```
pub type AdaptiveLimit<A, O = ()> = adaptive::AdaptiveLimit<Atomic, Locked, A, ThreadQueue, O>;

/// A budget of retries to which each call deposits a part of one, shared by threads through a mutex.
pub type TokenBudget = budget::TokenBudget<Locked>;

/// A budget of so many tokens in all, shared by threads without a lock.
pub type QuotaBudget = budget::QuotaBudget<Atomic>;

/// A budget that failures empty and successes fill, shared by threads without a lock.
pub type RetryThrottle = budget::RetryThrottle<Atomic>;

/// A budget by the calls in flight, shared by threads without a lock.
pub type ConcurrentBudget = budget::ConcurrentBudget<Atomic>;

/// Chaos of one kind, whose plan is shared by threads, without a lock.
pub type Chaos<I, O = ()> = chaos::Chaos<Atomic, I, O>;

/// An adaptive rate shared by threads, through a mutex.
pub type AdaptiveRate<O = ()> = adaptive_rate::AdaptiveRate<Locked, O>;

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

/// The last good value of each of up to `N` keys (a power of two, two or more), shared by threads through a mutex.
pub type KeyedLastGood<Key, T, const N: usize, O = ()> = last_good::KeyedLastGood<Locked, Key, T, N, O>;
