//! failsoft for firmware: the policies of [`failsoft_core`] on embassy, without a heap.
//!
//! ```
//! use core::time::Duration;
//! use failsoft_embassy::{Bulkhead, CircuitBreaker, Embassy, Pipeline, RetryPolicy, Timeout};
//! use failsoft_embassy::{bulkhead, circuit_breaker, retry, valid};
//!
//! static BUS: Bulkhead = Bulkhead::new(valid!(bulkhead::Config::new(1).validate()));
//! static SENSOR: CircuitBreaker = CircuitBreaker::new(valid!(circuit_breaker::Config::new().validate()));
//! static RETRY: RetryPolicy = RetryPolicy::new(valid!(retry::Config::new().with_max_attempts(2).validate()));
//!
//! // `device` is `Embassy::new(the chip's own number)`, made once, in a `StaticCell` say.
//! async fn poll_sensor(device: &Embassy) -> Option<u16> {
//!     let pipeline = Pipeline::new(device)
//!         .layer(&RETRY)
//!         .layer(&BUS)
//!         .layer(&SENSOR)
//!         .layer(Timeout::new(Duration::from_millis(50)));
//!     pipeline.call(async |_| read_register().await).await.ok()
//! }
//! # struct BusError;
//! # async fn read_register() -> Result<u16, BusError> { Ok(7) }
//! # let _ = poll_sensor;
//! ```
//!
//! [`Embassy`] is the executor: embassy-time's clock and timers, and jitter from the device's own seed.
//!
//! The guide "failsoft in firmware", `examples/firmware/GUIDE.md` in the sources, goes in small steps from `cargo new` to an image that runs: with
//! levels, a supervisor, state that survives a reset, tests on the host, and a table of what each policy costs.
//!
//! All of core is re-exported. The aliases here share states by critical sections, which works on any chip, also with interrupts and without
//! compare-and-swap; [`Raw`] shares them by any [`RawMutex`](embassy_sync::blocking_mutex::raw::RawMutex) instead.

#![no_std]

mod events;
mod executor;
#[cfg(feature = "defmt")]
mod log;
mod mutex;
mod wait;

pub use failsoft_core::{
    Cause, Classify, Clock, ConfigError, ErrIsFailure, Executor, Failure, Instant, Observer, Outcome, Pipeline, Policy,
    Ratio, Reason, Rejected, Rng, Span, Stop, TimedOut, Valid, Verdict, compartments, valid,
};
pub use failsoft_core::{
    adaptive, adaptive_rate, backoff, boot_loop, budget, bulkhead, cell, chaos, circuit_breaker, degradation, fallback,
    hedge, last_good, pipeline, quantile, queue, rate_limiter, retained, retry, supervisor, throttle, timeout, window,
};

pub use failsoft_core::backoff::{Backoff, Jitter};
pub use failsoft_core::cell::CriticalSection;
pub use failsoft_core::fallback::{Fallback, FallbackTo};
pub use failsoft_core::hedge::Idempotent;
pub use failsoft_core::retry::RetryPolicy;
pub use failsoft_core::timeout::Timeout;

pub use events::Events;
pub use executor::Embassy;
#[cfg(feature = "defmt")]
pub use log::Log;
pub use mutex::{Raw, RawCell};
pub use wait::RawQueue;

use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;

/// A circuit breaker for tasks and interrupts alike.
pub type CircuitBreaker<T = circuit_breaker::ConsecutiveFailures, O = ()> =
    circuit_breaker::CircuitBreaker<CriticalSection, T, O>;

/// A bulkhead for tasks and interrupts alike; its queue holds up to `N` waiters. Where nobody is to wait, zero saves what a queue takes of
/// the flash.
pub type Bulkhead<const N: usize = 4> = bulkhead::Bulkhead<CriticalSection, RawQueue<CriticalSectionRawMutex, N>>;

/// Degradation for tasks and interrupts alike, for up to `N` services.
pub type Degradation<const N: usize, L = degradation::DegradationLevel, R = (), O = ()> =
    degradation::Degradation<CriticalSection, N, L, R, O>;

/// A supervisor of up to `N` tasks, on executors of any priority and in interrupts alike.
///
/// ```
/// use core::time::Duration;
/// use failsoft_embassy::supervisor::{self, Task};
/// use failsoft_embassy::{Degradation, Embassy, Supervised, Supervisor, degradation, valid};
///
/// static HUB: Degradation<4> = Degradation::new(valid!(degradation::Config::new().validate()));
/// static TASKS: Supervisor<4, &Degradation<4>> =
///     Supervisor::with_levels(valid!(supervisor::Config::new().validate()), &HUB);
///
/// // In `main`, for the task: `TASKS.register("control", Task::critical(Duration::from_millis(200)), device)?`.
/// async fn control(alive: Supervised<4, &'static Degradation<4>>, device: &Embassy) {
///     loop {
///         move_the_motor().await;
///         alive.check_in(device);
///     }
/// }
///
/// // In a task of the lowest priority, with the chip's own watchdog.
/// async fn supervise(device: &Embassy, mut watchdog: Watchdog) -> ! {
///     TASKS.run(device, || watchdog.pet()).await
/// }
/// # struct Watchdog;
/// # impl Watchdog {
/// #     fn pet(&mut self) {}
/// # }
/// # async fn move_the_motor() {}
/// # let _ = (control, supervise);
/// # TASKS.register("control", Task::critical(Duration::from_millis(200)), &Embassy::new(1))?;
/// # Ok::<(), failsoft_embassy::ConfigError>(())
/// ```
pub type Supervisor<const N: usize, D = (), O = ()> = supervisor::Supervisor<CriticalSection, N, D, O>;

/// A task of a [`Supervisor`] in a `static`, by which it checks in.
pub type Supervised<const N: usize, D = (), O = ()> = supervisor::Supervised<'static, CriticalSection, N, D, O>;

/// A hedge of up to `N` further tries, for tasks and interrupts alike.
pub type Hedge<const N: usize = 1, D = hedge::FixedDelay, O = (), B = ()> = hedge::Hedge<CriticalSection, N, D, O, B>;

/// A rate limiter for tasks and interrupts alike.
pub type RateLimiter = rate_limiter::RateLimiter<CriticalSection>;

/// A rate limiter for each of up to `N` keys (a power of two, two or more), for tasks and interrupts alike.
pub type KeyedRateLimiter<Key, const N: usize> = rate_limiter::KeyedRateLimiter<CriticalSection, Key, N>;

/// A client-side throttler, for tasks and interrupts alike.
pub type Throttle = throttle::Throttle<CriticalSection>;

/// A limit of calls at once that follows the algorithm `A`, for tasks and interrupts alike; up to `N` may wait.
pub type AdaptiveLimit<A, const N: usize = 4, O = ()> =
    adaptive::AdaptiveLimit<CriticalSection, CriticalSection, A, RawQueue<CriticalSectionRawMutex, N>, O>;

/// A budget of retries to which each call deposits a part of one, for tasks and interrupts alike.
pub type TokenBudget = budget::TokenBudget<CriticalSection>;

/// A budget of so many tokens in all, for tasks and interrupts alike.
pub type QuotaBudget = budget::QuotaBudget<CriticalSection>;

/// A budget that failures empty and successes fill, for tasks and interrupts alike.
pub type RetryThrottle = budget::RetryThrottle<CriticalSection>;

/// A budget by the calls in flight, for tasks and interrupts alike.
pub type ConcurrentBudget = budget::ConcurrentBudget<CriticalSection>;

/// Chaos of one kind, whose plan is for tasks and interrupts alike.
pub type Chaos<I, O = ()> = chaos::Chaos<CriticalSection, I, O>;

/// An adaptive rate for tasks and interrupts alike.
pub type AdaptiveRate<O = ()> = adaptive_rate::AdaptiveRate<CriticalSection, O>;

/// The last good value of one thing, for tasks and interrupts alike. What is served is cloned in the critical section: a few words.
///
/// ```
/// use core::time::Duration;
/// use failsoft_embassy::{Embassy, LastGood, Pipeline, last_good, valid};
///
/// // Fresh for 5 s; while the sensor fails it stands in, until it is 60 s old.
/// const READING: last_good::Config =
///     last_good::Config::new().with_fresh_for(Duration::from_secs(5)).with_max_age(Duration::from_secs(60));
/// static TEMPERATURE: LastGood<i16> = LastGood::new(valid!(READING.validate()));
///
/// async fn temperature(device: &Embassy) -> Option<i16> {
///     Pipeline::new(device).layer(&TEMPERATURE).call(async |_| read_register().await).await.ok()
/// }
///
/// fn is_stale(device: &Embassy) -> bool {
///     TEMPERATURE.get(device).is_none_or(|good| good.is_stale())
/// }
/// # struct BusError;
/// # async fn read_register() -> Result<i16, BusError> { Ok(7) }
/// # let _ = (temperature, is_stale);
/// ```
pub type LastGood<T, O = ()> = last_good::LastGood<CriticalSection, T, O>;

/// The last good value of each of up to `N` keys (a power of two, two or more), for tasks and interrupts alike.
pub type KeyedLastGood<Key, T, const N: usize, O = ()> = last_good::KeyedLastGood<CriticalSection, Key, T, N, O>;
