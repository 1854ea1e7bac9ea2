//! How long to wait before the next attempt.
//!
//! ```
//! use core::time::Duration;
//! use failsoft_core::backoff::{Backoff, Jitter};
//!
//! let backoff = Backoff::exponential(Duration::from_millis(100)).with_cap(Duration::from_secs(1));
//! assert_eq!(backoff.delay(3), Duration::from_millis(400));
//! assert_eq!(backoff.delay(u32::MAX), Duration::from_secs(1));
//! assert!(backoff.with_jitter(Jitter::Full).jittered(3, Duration::ZERO, 12_345) <= Duration::from_millis(400));
//! ```
//!
//! # Defaults
//!
//! | what | default | range | at the extremes |
//! | --- | --- | --- | --- |
//! | shape | exponential | none, constant, linear, exponential, Fibonacci, table | |
//! | base | [`BASE`] (1 s) | above zero | zero is refused: say [`Backoff::none`] for "at once" |
//! | factor | [`FACTOR`] (2) | 1 or more | below 1 is refused |
//! | step, of a linear shape | the base | any | zero is a constant shape |
//! | cap | [`CAP`] (60 s) | the base or more | `Duration::MAX` never caps |
//! | jitter | [`JITTER`] (± 10 %) | share up to 1 | none: all who failed together come back together |
//!
//! # When not to use it
//! Where the caller has no time to wait: give up and fall back instead.
//!
//! # Source
//! The jitters are those of Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015. Here the cap
//! holds after the jitter too.

use core::fmt;
use core::time::Duration;

use crate::config::{ConfigError, refuse};
use crate::math::times;
use crate::ratio::Ratio;
use crate::rng::share;
use crate::time::Span;

/// The delay before the second attempt, unless said otherwise.
pub const BASE: Duration = Duration::from_secs(1);
/// How much longer each delay is than the one before.
pub const FACTOR: Ratio = Ratio::percent(200);
/// The longest delay: a minute keeps a recovered server from idling.
pub const CAP: Duration = Duration::from_secs(60);
/// Enough to part callers that failed together, little enough to keep the delays recognisable.
pub const JITTER: Jitter = Jitter::Proportional(Ratio::percent(10));

/// How the delay grows with the attempts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Shape {
    /// No delay at all.
    None,
    /// Always the base.
    Constant,
    /// `base + step · (n−1)`.
    Linear {
        /// How much longer each delay is than the one before.
        step: Span,
    },
    /// `base · factor^(n−1)`.
    Exponential {
        /// How much longer each delay is than the one before; 1 or more.
        factor: Ratio,
    },
    /// `base ·` 1, 1, 2, 3, 5, 8, …
    Fibonacci,
    /// These delays in turn; the last one repeats.
    Table(&'static [Duration]),
}

/// How the delay is scattered, so that those who failed together don't come back together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Jitter {
    /// Not at all.
    None,
    /// Evenly over `d ± ratio · d`.
    Proportional(Ratio),
    /// Evenly over `0 … d`: at its lowest, no delay at all.
    Full,
    /// Evenly over `d/2 … d`.
    Equal,
    /// Evenly over `base … 3 · previous delay`, whatever the shape says.
    Decorrelated,
}

/// Delays between attempts: a shape, a base, a cap and a jitter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Backoff {
    shape: Shape,
    base: Span,
    cap: Span,
    jitter: Jitter,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

impl Backoff {
    /// The defaults: 1 s, doubling, at most 60 s, ± 10 %.
    #[must_use]
    pub const fn new() -> Self {
        Self::exponential(BASE)
    }

    /// Doubling from `base`, at most 60 s (or the base, where that is longer), ± 10 %.
    #[must_use]
    pub const fn exponential(base: Duration) -> Self {
        Self::shaped(Shape::Exponential { factor: FACTOR }, base)
    }

    /// Always `base`, ± 10 %.
    #[must_use]
    pub const fn constant(base: Duration) -> Self {
        Self::shaped(Shape::Constant, base)
    }

    /// `base`, twice `base`, three times `base`, …, ± 10 %.
    #[must_use]
    pub const fn linear(base: Duration) -> Self {
        Self::shaped(Shape::Linear { step: Span::of(base) }, base)
    }

    /// `base` times the Fibonacci numbers, ± 10 %.
    #[must_use]
    pub const fn fibonacci(base: Duration) -> Self {
        Self::shaped(Shape::Fibonacci, base)
    }

    /// The delays of a table, the last one repeating, without jitter.
    #[must_use]
    pub const fn table(delays: &'static [Duration]) -> Self {
        Self::shaped(Shape::Table(delays), Duration::ZERO).with_cap(Duration::MAX).with_jitter(Jitter::None)
    }

    /// No delay at all: the next attempt follows at once.
    #[must_use]
    pub const fn none() -> Self {
        Self::shaped(Shape::None, Duration::ZERO).with_jitter(Jitter::None)
    }

    const fn shaped(shape: Shape, base: Duration) -> Self {
        let (base, cap) = (Span::of(base), Span::of(CAP));
        let cap = if base.as_nanos() > cap.as_nanos() { base } else { cap };
        Self { shape, base, cap, jitter: JITTER }
    }

    /// With another factor; it makes the shape exponential.
    #[must_use]
    pub const fn with_factor(mut self, factor: Ratio) -> Self {
        self.shape = Shape::Exponential { factor };
        self
    }

    /// With another step between delays; it makes the shape linear.
    #[must_use]
    pub const fn with_step(mut self, step: Duration) -> Self {
        self.shape = Shape::Linear { step: Span::of(step) };
        self
    }

    /// With another longest delay. It holds after the jitter too.
    #[must_use]
    pub const fn with_cap(mut self, cap: Duration) -> Self {
        self.cap = Span::of(cap);
        self
    }

    /// With another jitter.
    #[must_use]
    pub const fn with_jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    /// The field that doesn't: a cap below the base, a base of zero, a factor below 1, a jitter above the whole, an empty
    /// table, or a table with [`Jitter::Decorrelated`], which needs a base.
    pub const fn check(&self) -> Result<(), ConfigError> {
        if matches!(self.shape, Shape::None) {
            return Ok(());
        }
        match self.shape {
            Shape::Table([]) => return Err(refuse!("table", "is empty")),
            Shape::Exponential { factor } if factor.as_basis_points() < Ratio::ONE.as_basis_points() => {
                return Err(refuse!("factor", "is below 1"));
            }
            _ => {}
        }
        match self.jitter {
            Jitter::Proportional(ratio) if !ratio.is_share() => Err(refuse!("jitter", "is above 1")),
            Jitter::Decorrelated if matches!(self.shape, Shape::Table(_)) => {
                Err(refuse!("jitter", "is decorrelated: a table has no base for it to start from"))
            }
            _ if matches!(self.shape, Shape::Table(_)) => Ok(()),
            _ if self.base.is_zero() => Err(refuse!("base", "is zero (`Backoff::none` retries at once)")),
            _ if self.cap.as_nanos() < self.base.as_nanos() => Err(refuse!("cap", "is below the base")),
            _ => Ok(()),
        }
    }

    /// The delay after attempt number `attempt` (the first is 1), before jitter; zero for attempt 0.
    #[must_use]
    pub const fn delay(&self, attempt: u32) -> Duration {
        self.span(attempt).duration()
    }

    /// The delay after attempt number `attempt`, with jitter. `previous` is the delay before that one (zero for the
    /// first), which only [`Jitter::Decorrelated`] looks at; `random` is evenly distributed over all its values.
    #[must_use]
    pub const fn jittered(&self, attempt: u32, previous: Duration, random: u32) -> Duration {
        self.jittered_span(attempt, Span::of(previous), random).duration()
    }

    pub(crate) const fn is_decorrelated(&self) -> bool {
        matches!(self.jitter, Jitter::Decorrelated)
    }

    const fn span(&self, attempt: u32) -> Span {
        if attempt == 0 {
            return Span::ZERO;
        }
        let (base, n) = (self.base.as_nanos(), attempt.saturating_sub(1));
        let delay = match self.shape {
            Shape::None => 0,
            Shape::Constant => base,
            Shape::Linear { step } => base.saturating_add(times(step.as_nanos(), n)),
            Shape::Exponential { factor } => exponential(base, factor, n, self.cap.as_nanos()),
            Shape::Fibonacci => fibonacci(base, n, self.cap.as_nanos()),
            Shape::Table(delays) => table(delays, n),
        };
        self.capped(delay)
    }

    pub(crate) const fn jittered_span(&self, attempt: u32, previous: Span, random: u32) -> Span {
        let (low, high) = match self.jitter {
            Jitter::Decorrelated if attempt == 0 => (0, 0),
            Jitter::Decorrelated => {
                let base = self.base.as_nanos();
                let before = if previous.as_nanos() > base { previous.as_nanos() } else { base };
                (base, times(before, 3))
            }
            _ => {
                let delay = self.span(attempt).as_nanos();
                let spread = match self.jitter {
                    Jitter::Proportional(ratio) => ratio.of(delay),
                    _ => 0,
                };
                let low = match self.jitter {
                    Jitter::Full => 0,
                    Jitter::Equal => delay / 2,
                    _ => delay.saturating_sub(spread),
                };
                (low, delay.saturating_add(spread))
            }
        };
        self.capped(between(low, high, random))
    }

    const fn capped(&self, delay: u64) -> Span {
        Span::from_nanos(if delay < self.cap.as_nanos() { delay } else { self.cap.as_nanos() })
    }
}

/// What it does, in a few words: `exponential from 1s by 200 %, at most 60s, ± 10 %`.
impl fmt::Display for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = self.base.duration();
        match self.shape {
            Shape::None => return f.write_str("at once"),
            _ if self.is_decorrelated() => write!(f, "decorrelated from {base:?}")?,
            Shape::Constant => write!(f, "always {base:?}")?,
            Shape::Linear { step } => write!(f, "linear from {base:?} by {:?}", step.duration())?,
            Shape::Exponential { factor } => write!(f, "exponential from {base:?} by {factor}")?,
            Shape::Fibonacci => write!(f, "Fibonacci from {base:?}")?,
            Shape::Table(delays) => write!(f, "a table of {} delays", delays.len())?,
        }
        if self.cap != Span::MAX {
            write!(f, ", at most {:?}", self.cap.duration())?;
        }
        match self.jitter {
            Jitter::None | Jitter::Decorrelated => Ok(()),
            Jitter::Proportional(ratio) => write!(f, ", ± {ratio}"),
            Jitter::Full => f.write_str(", full jitter"),
            Jitter::Equal => f.write_str(", equal jitter"),
        }
    }
}

/// Evenly between two bounds, both reached.
const fn between(low: u64, high: u64, random: u32) -> u64 {
    low.saturating_add(share(high.saturating_sub(low).saturating_add(1), random))
}

const fn exponential(base: u64, factor: Ratio, n: u32, cap: u64) -> u64 {
    // Where a shift of 64 bits is one instruction, and not a routine.
    if usize::BITS >= u64::BITS && factor.as_basis_points() == FACTOR.as_basis_points() {
        return if n <= base.leading_zeros() { base.unbounded_shl(n) } else { u64::MAX };
    }
    step_by_step(base, factor, n, cap)
}

/// At most until the cap is reached; a factor of 1 never gets there, and never gets anywhere else either.
const fn step_by_step(base: u64, factor: Ratio, n: u32, cap: u64) -> u64 {
    let doubles = factor.as_basis_points() == FACTOR.as_basis_points();
    let (mut delay, mut left) = (base, n);
    while left > 0 && delay < cap {
        let next = if doubles { delay.saturating_add(delay) } else { factor.of(delay) };
        if next == delay {
            break;
        }
        delay = next;
        left = left.saturating_sub(1);
    }
    delay
}

/// At most until the cap is reached, which a base of zero never does.
const fn fibonacci(base: u64, n: u32, cap: u64) -> u64 {
    let (mut previous, mut current, mut left) = (0_u64, base, n);
    while left > 0 && 0 < current && current < cap {
        (previous, current) = (current, current.saturating_add(previous));
        left = left.saturating_sub(1);
    }
    current
}

const fn table(delays: &'static [Duration], n: u32) -> u64 {
    match delays {
        [] => 0,
        [.., last] => {
            // Walked by hand: indexing would link a panic that can't happen.
            let (mut rest, mut left) = (delays, n);
            while let [first, tail @ ..] = rest {
                if left == 0 {
                    return Span::of(*first).as_nanos();
                }
                (rest, left) = (tail, left.saturating_sub(1));
            }
            Span::of(*last).as_nanos()
        }
    }
}

#[cfg(test)]
mod tests;
