//! What a pipeline consists of: the roles of its parts, the orders that defeat themselves, and how it is printed.
//!
//! # Orders that don't compile
//! [`Pipeline::layer`](super::Pipeline::layer) refuses, at compile time, to put
//!
//! | within | a | because |
//! | --- | --- | --- |
//! | a retry, a hedge, a circuit breaker, whatever adapts | fallback | its answer is a success: nothing would be left to retry, to hedge or to count |
//! | a retry | retry | the attempts multiply |
//! | a circuit breaker | retry | an open breaker would not stop the attempts of the calls under way |
//! | a rate limiter, whatever adapts | retry, hedge | further attempts would pass without being counted |
//! | a bulkhead | hedge | further tries would run beside the one that holds the permit |
//!
//! ```compile_fail
//! use failsoft_core::{Failure, Pipeline, fallback::Fallback, retry::{Config, RetryPolicy}, testing::VirtualExecutor, valid};
//!
//! // error: a fallback within a retry: its answer is a success, so nothing would ever be retried
//! let pipeline = Pipeline::new(VirtualExecutor::new())
//!     .layer(RetryPolicy::new(valid!(Config::new().validate())))
//!     .layer(Fallback::new(|_: Failure<()>| Ok(20)));
//! ```
//!
//! What adapts is a throttle, an adaptive limit or an adaptive rate: it goes by what becomes of the calls.
//!
//! Who wants such an order all the same says so with
//! [`layer_in_any_order`](super::Pipeline::layer_in_any_order).

use core::fmt;

use super::{Bare, Pipeline, Stack};

/// What a part of a pipeline does, as far as the order of the parts depends on it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Role {
    /// Anything that may stand anywhere.
    Other,
    /// Answers instead when the call has failed.
    Fallback,
    /// Ends what takes too long.
    Timeout,
    /// Tries again.
    Retry,
    /// Tries another time when the first is slow.
    Hedge,
    /// Limits the calls per time.
    RateLimiter,
    /// Limits the calls at once.
    Bulkhead,
    /// Stops calling what fails.
    CircuitBreaker,
    /// Goes by what becomes of the calls: a throttle, an adaptive limit or rate.
    Adaptive,
}

/// Several roles: a bit each.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Roles(u16);

impl Roles {
    /// No part, and so no role.
    pub const NONE: Self = Self(0);

    /// This role alone.
    #[must_use]
    pub const fn of(role: Role) -> Self {
        Self(1 << role as u16)
    }

    /// These and those.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether this role is among them.
    #[must_use]
    pub const fn has(self, role: Role) -> bool {
        self.0 & Self::of(role).0 != 0
    }

    /// Whether there is no part at all.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// Something that a pipeline consists of: its role, and how it is printed.
pub trait Part {
    /// Its role.
    const ROLE: Role;

    /// The roles of everything in it.
    const ROLES: Roles = Roles::of(Self::ROLE);

    /// Whether it is left out, and writes nothing.
    fn is_absent(&self) -> bool {
        Self::ROLES.is_none()
    }

    /// Writes one line about itself, with its settings: `retry: 3 attempts, …`.
    ///
    /// # Errors
    /// Only what the formatter returns.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

impl<P: Part> Part for &P {
    const ROLE: Role = P::ROLE;
    const ROLES: Roles = P::ROLES;

    fn is_absent(&self) -> bool {
        (**self).is_absent()
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).describe(f)
    }
}

impl Part for Bare {
    const ROLE: Role = Role::Other;
    const ROLES: Roles = Roles::NONE;

    fn describe(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// One line after the other.
impl<A: Part, B: Part> Part for Stack<A, B> {
    const ROLE: Role = Role::Other;
    const ROLES: Roles = A::ROLES.and(B::ROLES);

    fn is_absent(&self) -> bool {
        self.outer.is_absent() && self.inner.is_absent()
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.outer.describe(f)?;
        if !self.outer.is_absent() && !self.inner.is_absent() {
            f.write_str("\n")?;
        }
        self.inner.describe(f)
    }
}

/// What the pipeline consists of, a part a line, the outermost first.
///
/// ```
/// use core::time::Duration;
/// use failsoft_core::{Pipeline, testing::VirtualExecutor, timeout::Timeout, retry::{Config, RetryPolicy}, valid};
///
/// let pipeline = Pipeline::new(VirtualExecutor::new())
///     .layer(Timeout::new(Duration::from_secs(5)))
///     .layer(RetryPolicy::new(valid!(Config::new().validate())));
/// let lines = "timeout: 5s\nretry: 3 attempts, exponential from 1s by 200 %, at most 60s, ± 10 %";
/// assert_eq!(pipeline.to_string(), lines);
/// ```
impl<X, L: Part, C> fmt::Display for Pipeline<X, L, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.layers.describe(f)
    }
}

/// Refuses, at compile time, to put `inner` within `outer` where that defeats one of them.
pub(super) const fn check<Outer: Part, Inner: Part>() {
    let (outer, inner) = (Outer::ROLES, Inner::ROLES);
    if inner.has(Role::Fallback) {
        assert!(
            !outer.has(Role::Retry),
            "a fallback within a retry: its answer is a success, so nothing would ever be retried"
        );
        assert!(
            !outer.has(Role::Hedge),
            "a fallback within a hedge: its answer is a success, so the first try would always win"
        );
        assert!(
            !outer.has(Role::CircuitBreaker),
            "a fallback within a circuit breaker: its answer is a success, so the breaker would never open"
        );
        assert!(
            !outer.has(Role::Adaptive),
            "a fallback within what adapts to its calls: its answer is a success, so nothing else would ever be seen"
        );
    }
    if inner.has(Role::Retry) {
        assert!(!outer.has(Role::Retry), "a retry within a retry: their attempts multiply");
        assert!(
            !outer.has(Role::CircuitBreaker),
            "a retry within a circuit breaker: once open, it would not stop the attempts of the calls under way"
        );
        assert!(
            !outer.has(Role::RateLimiter),
            "a retry within a rate limiter: further attempts would pass without being counted"
        );
        assert!(
            !outer.has(Role::Adaptive),
            "a retry within what adapts to its calls: further attempts would pass without being counted"
        );
    }
    if inner.has(Role::Hedge) {
        assert!(
            !outer.has(Role::RateLimiter),
            "a hedge within a rate limiter: further tries would pass without being counted"
        );
        assert!(
            !outer.has(Role::Adaptive),
            "a hedge within what adapts to its calls: further tries would pass without being counted"
        );
        assert!(
            !outer.has(Role::Bulkhead),
            "a hedge within a bulkhead: further tries would run beside the one that holds the permit"
        );
    }
}

#[cfg(test)]
mod tests {
    use core::panic::AssertUnwindSafe;
    use std::panic::catch_unwind;
    use std::vec::Vec;

    use super::*;

    const ROLES: [Role; 9] = [
        Role::Other,
        Role::Fallback,
        Role::Timeout,
        Role::Retry,
        Role::Hedge,
        Role::RateLimiter,
        Role::Bulkhead,
        Role::CircuitBreaker,
        Role::Adaptive,
    ];

    /// A part of the role at this place.
    struct Of<const PLACE: usize>;

    impl<const PLACE: usize> Part for Of<PLACE> {
        const ROLE: Role = ROLES[PLACE];

        fn describe(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            Ok(())
        }
    }

    /// The roles that may not stand within this one, which may be several layers further out.
    fn refused<const OUTER: usize>() -> Vec<Role> {
        macro_rules! within {
            ($($inner:literal)*) => {[$(
                (ROLES[$inner], catch_unwind(AssertUnwindSafe(check::<Stack<Stack<Bare, Of<OUTER>>, Of<2>>, Of<$inner>>)).is_err())
            ),*]};
        }
        let all = within!(0 1 2 3 4 5 6 7 8);
        all.into_iter().filter_map(|(role, refused)| refused.then_some(role)).collect()
    }

    #[test]
    fn the_orders_that_are_refused_are_those_of_the_table_and_no_others() {
        use Role::{Fallback, Hedge, Retry};
        let table: [(Vec<Role>, &[Role]); 9] = [
            (refused::<0>(), &[]),
            (refused::<1>(), &[]),
            (refused::<2>(), &[]),
            (refused::<3>(), &[Fallback, Retry]),
            (refused::<4>(), &[Fallback]),
            (refused::<5>(), &[Retry, Hedge]),
            (refused::<6>(), &[Hedge]),
            (refused::<7>(), &[Fallback, Retry]),
            (refused::<8>(), &[Fallback, Retry, Hedge]),
        ];
        for (outer, (found, expected)) in ROLES.iter().zip(table) {
            assert_eq!(found, expected, "within {outer:?}");
        }
        let twice = check::<Stack<Stack<Bare, Of<6>>, Of<6>>, Of<4>>;
        assert!(catch_unwind(AssertUnwindSafe(twice)).is_err(), "a hedge within two bulkheads");
    }
}
