//! The standard pipeline: every policy in its place, however they are named.

use super::order::{Part, Role};
use super::{Bare, Pipeline, Stack};

/// The layers of a [`Standard`] pipeline, in its order.
pub type StandardLayers<F, T, R, L, B, C, A> =
    Stack<Stack<Stack<Stack<Stack<Stack<Stack<Bare, F>, T>, R>, L>, B>, C>, A>;

/// The standard pipeline: fallback, total timeout, retry, rate limiter, bulkhead, circuit breaker, attempt timeout,
/// operation. Whatever order the parts are named in, they end up in this one; those not named are left out and cost nothing.
///
/// ```
/// use core::time::Duration;
/// use failsoft_core::{cell::Local, pipeline::Standard, testing::VirtualExecutor, timeout::Timeout, valid};
/// use failsoft_core::{circuit_breaker::{self, CircuitBreaker}, retry::{self, RetryPolicy}};
///
/// let executor = VirtualExecutor::new();
/// let pipeline = Standard::new()
///     .with_breaker(CircuitBreaker::<Local>::new(valid!(circuit_breaker::Config::new().validate())))
///     .with_retry(RetryPolicy::new(valid!(retry::Config::new().validate())))
///     .with_attempt_timeout(Timeout::new(Duration::from_secs(1)))
///     .with_total_timeout(Timeout::new(Duration::from_secs(5)))
///     .on(&executor);
/// let roles: Vec<_> = pipeline.to_string().lines().map(|line| line.split(':').next().unwrap().to_owned()).collect();
/// assert_eq!(roles, ["timeout", "retry", "circuit breaker", "timeout"]);
/// assert_eq!(executor.run(pipeline.call(async |_| Ok::<_, ()>(7))), Ok(Ok(7)));
/// ```
///
/// # Why this order
/// A timed-out attempt counts as a failure for the breaker and can be retried; a rejection by the breaker or a limit costs
/// nothing and is not retried; a retry waits without holding a permit; one end bounds the whole; and the fallback answers for all of it.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Standard<F = Bare, T = Bare, R = Bare, L = Bare, B = Bare, C = Bare, A = Bare> {
    fallback: F,
    total_timeout: T,
    retry: R,
    rate_limiter: L,
    bulkhead: B,
    breaker: C,
    attempt_timeout: A,
}

impl Standard {
    /// No parts yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            fallback: Bare,
            total_timeout: Bare,
            retry: Bare,
            rate_limiter: Bare,
            bulkhead: Bare,
            breaker: Bare,
            attempt_timeout: Bare,
        }
    }
}

impl Default for Standard {
    fn default() -> Self {
        Self::new()
    }
}

/// A method that names one part, which must have one of these roles; the others are kept.
macro_rules! with_part {
    ($(#[$doc:meta])* $name:ident, $field:ident: $($role:ident)|+, [$($kept:ident),*], $result:ty) => {
        $(#[$doc])*
        #[must_use]
        pub fn $name<P: Part>(self, part: P) -> $result {
            const { assert!($(P::ROLES.has(Role::$role))||+, concat!("not a part for `", stringify!($field), "`")) }
            let Self { $field: _, $($kept),* } = self;
            Standard { $field: part, $($kept),* }
        }
    };
}

impl<F: Part, T: Part, R: Part, L: Part, B: Part, C: Part, A: Part> Standard<F, T, R, L, B, C, A> {
    with_part! {
        /// What answers when everything else has failed.
        with_fallback, fallback: Fallback, [total_timeout, retry, rate_limiter, bulkhead, breaker, attempt_timeout],
        Standard<P, T, R, L, B, C, A>
    }
    with_part! {
        /// The end of the whole call, all attempts and delays included.
        with_total_timeout, total_timeout: Timeout, [fallback, retry, rate_limiter, bulkhead, breaker, attempt_timeout],
        Standard<F, P, R, L, B, C, A>
    }
    with_part! {
        /// The retry, or a hedge.
        with_retry, retry: Retry | Hedge, [fallback, total_timeout, rate_limiter, bulkhead, breaker, attempt_timeout],
        Standard<F, T, P, L, B, C, A>
    }
    with_part! {
        /// The limit of calls per time.
        with_rate_limiter, rate_limiter: RateLimiter, [fallback, total_timeout, retry, bulkhead, breaker, attempt_timeout],
        Standard<F, T, R, P, B, C, A>
    }
    with_part! {
        /// The limit of calls at once: a bulkhead or an adaptive limit; or a throttle.
        with_bulkhead, bulkhead: Bulkhead | Adaptive, [fallback, total_timeout, retry, rate_limiter, breaker, attempt_timeout],
        Standard<F, T, R, L, P, C, A>
    }
    with_part! {
        /// The circuit breaker.
        with_breaker, breaker: CircuitBreaker, [fallback, total_timeout, retry, rate_limiter, bulkhead, attempt_timeout],
        Standard<F, T, R, L, B, P, A>
    }
    with_part! {
        /// The end of each attempt.
        with_attempt_timeout, attempt_timeout: Timeout, [fallback, total_timeout, retry, rate_limiter, bulkhead, breaker],
        Standard<F, T, R, L, B, C, P>
    }

    /// The pipeline of these parts, on this executor.
    #[must_use]
    #[expect(clippy::type_complexity, reason = "one parameter for each part, in a type that has a name")]
    pub fn on<X>(self, executor: X) -> Pipeline<X, StandardLayers<F, T, R, L, B, C, A>> {
        let Self { fallback, total_timeout, retry, rate_limiter, bulkhead, breaker, attempt_timeout } = self;
        Pipeline::new(executor)
            .layer(fallback)
            .layer(total_timeout)
            .layer(retry)
            .layer(rate_limiter)
            .layer(bulkhead)
            .layer(breaker)
            .layer(attempt_timeout)
    }

    /// These parts as one layer, for a pipeline or a policy of one's own.
    #[must_use]
    pub fn layers(self) -> StandardLayers<F, T, R, L, B, C, A> {
        self.on(()).layers
    }
}

#[cfg(test)]
mod tests;
