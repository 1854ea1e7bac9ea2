//! A client-side throttler: sends less to a dependency that rejects or fails much of what it gets, in proportion.
//!
//! Each call is dropped on the client's own side with the probability `(requests − K · accepts) / (requests + 1)`, over the last
//! so long. While the dependency accepts more than 1 / K of the calls, all are sent; when it accepts none, one in a
//! hundred or so still is, and finds out when it is back. Unlike a circuit breaker it never closes the door altogether.
//!
//! ```
//! use failsoft_core::{Instant, cell::Local, throttle::{Config, Throttle}};
//!
//! let throttle: Throttle<Local> = Throttle::new(Config::new().with_minimum_requests(1).validate()?);
//! for _ in 0..100 {
//!     throttle.record(false, &Instant::START); // a hundred calls, none accepted
//! }
//! assert_eq!(throttle.probability(&Instant::START).to_string(), "99 %");
//! assert!(throttle.try_acquire(&Instant::START, 0).is_err());
//! # Ok::<(), failsoft_core::ConfigError>(())
//! ```
//!
//! # Defaults
//!
//! | what | default | range | at the extremes |
//! | --- | --- | --- | --- |
//! | multiplier K | [`MULTIPLIER`] (2) | 1 or more | 1 throttles at the first call that isn't accepted |
//! | period | [`PERIOD`] (120 s), in [`BUCKETS`] (10) steps | above zero | |
//! | minimum of requests in the period | [`MINIMUM_REQUESTS`] (100) | any | below it all are sent |
//! | most rejected | [`MOST`] (100 %) | up to 100 % | less keeps more probes going |
//! | aggression | 1 | 1 to 8 | `n` takes the n-th root of the probability: rejects earlier |
//!
//! # When not to use it
//! With a handful of calls a minute: there is nothing to take a share of. And where a call must be made however unlikely its success.
//!
//! # Source
//! "Handling Overload", chapter 21 of Beyer, Jones, Petoff and Murphy (editors), "Site Reliability Engineering", O'Reilly 2016,
//! section "Client-Side Throttling". The limits and the aggression are those of Envoy's admission control.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;

use crate::cell::{CellKind, Fresh, StateCell};
use crate::config::{ConfigError, Valid, refuse};
use crate::executor::Executor;
use crate::failure::{Policy, Reason, Rejected};
use crate::math::divide;
use crate::outcome::Outcome;
use crate::pipeline::{Answer, Layer, Next, Part, REJECTED, Role, Scope};
use crate::ratio::Ratio;
use crate::time::{Clock, Instant, Span};
use crate::window::{Accumulate, TimeWindow};

/// How many times more than the dependency accepts is sent to it, unless said otherwise.
pub const MULTIPLIER: Ratio = Ratio::percent(200);
/// How long a call counts, unless said otherwise.
pub const PERIOD: Duration = Duration::from_secs(120);
/// The steps in which the period moves on.
pub const BUCKETS: usize = 10;
/// Requests in the period below which all are sent, unless said otherwise.
pub const MINIMUM_REQUESTS: u32 = 100;
/// The largest share that is rejected, unless said otherwise.
pub const MOST: Ratio = Ratio::ONE;

/// The settings of a throttler.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Config {
    multiplier: Ratio,
    bucket: Span,
    minimum: u32,
    most: Ratio,
    aggression: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

impl Config {
    /// The defaults, as in the [module's table](self#defaults).
    #[must_use]
    pub const fn new() -> Self {
        let settings =
            Self { multiplier: MULTIPLIER, bucket: Span::ZERO, minimum: MINIMUM_REQUESTS, most: MOST, aggression: 1 };
        settings.with_period(PERIOD)
    }

    /// Sends this many times more than the dependency accepts; the inverse of the share of accepted calls below which throttling begins.
    #[must_use]
    pub const fn with_multiplier(mut self, multiplier: Ratio) -> Self {
        self.multiplier = multiplier;
        self
    }

    /// Looks back this far.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "ten buckets")]
    pub const fn with_period(mut self, period: Duration) -> Self {
        self.bucket = Span::from_nanos(divide(Span::of(period).as_nanos(), BUCKETS as u32).0);
        self
    }

    /// Sends everything while there are fewer requests than this in the period.
    #[must_use]
    pub const fn with_minimum_requests(mut self, requests: u32) -> Self {
        self.minimum = requests;
        self
    }

    /// Never rejects a larger share than this.
    #[must_use]
    pub const fn with_most_rejected(mut self, most: Ratio) -> Self {
        self.most = most;
        self
    }

    /// Rejects earlier: the probability's root of this degree.
    #[must_use]
    pub const fn with_aggression(mut self, degree: u32) -> Self {
        self.aggression = degree;
        self
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    /// The first field that doesn't, and why.
    pub const fn validate(self) -> Result<Valid<Self>, ConfigError> {
        if self.multiplier.as_basis_points() < Ratio::ONE.as_basis_points() {
            return Err(refuse!("multiplier", "is below 1: a dependency in full health would be throttled"));
        }
        if self.bucket.is_zero() {
            return Err(refuse!("period", "is zero"));
        }
        if !self.most.is_share() {
            return Err(refuse!("most_rejected", "is above 1"));
        }
        if self.aggression == 0 || self.aggression > 8 {
            return Err(refuse!("aggression", "is not between 1 and 8"));
        }
        Ok(Valid::vouched(self))
    }

    /// The probability with which a call is rejected when so many requests were made lately, and so many of them accepted.
    #[must_use]
    pub fn probability(&self, requests: u32, accepts: u32) -> Ratio {
        let whole = u64::from(Ratio::ONE.as_basis_points());
        // So that there is one more.
        let requests = requests.min(u32::MAX.saturating_sub(1));
        // In hundredths of a percent of a call: 2^32 of them times 10,000 fit.
        let sent = u64::from(requests).saturating_mul(whole);
        let accepted = self.multiplier.of(u64::from(accepts).saturating_mul(whole));
        let (share, _) = divide(sent.saturating_sub(accepted), requests.saturating_add(1));
        let share = u32::try_from(share).unwrap_or(u32::MAX);
        Ratio::basis_points(root(share, self.aggression).min(self.most.as_basis_points()))
    }
}

/// The root of a share in hundredths of a percent, of a degree between 1 and 8, rounded down.
fn root(share: u32, degree: u32) -> u32 {
    let whole = u128::from(Ratio::ONE.as_basis_points());
    // x^n ≤ share · 10,000^(n−1), for the largest such x: at most 14 steps.
    let bound = u128::from(share).saturating_mul(whole.saturating_pow(degree.saturating_sub(1)));
    let (mut low, mut high) = (0_u32, Ratio::ONE.as_basis_points());
    while low < high {
        let middle = low.saturating_add(high).saturating_add(1) / 2;
        if u128::from(middle).saturating_pow(degree) <= bound {
            low = middle;
        } else {
            high = middle.saturating_sub(1);
        }
    }
    low
}

/// Requests, and those of them that were accepted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Requests {
    /// Calls, those included that were rejected here.
    pub requests: u32,
    /// Calls that the dependency accepted.
    pub accepts: u32,
}

impl Fresh for Requests {
    const FRESH: Self = Self { requests: 0, accepts: 0 };
}

impl Accumulate for Requests {
    fn add(&mut self, other: &Self) -> bool {
        let requests = self.requests.checked_add(other.requests);
        let (Some(requests), Some(accepts)) = (requests, self.accepts.checked_add(other.accepts)) else { return false };
        *self = Self { requests, accepts };
        true
    }

    fn subtract(&mut self, other: &Self) {
        self.requests = self.requests.saturating_sub(other.requests);
        self.accepts = self.accepts.saturating_sub(other.accepts);
    }
}

/// What a throttler keeps.
pub type Window = TimeWindow<Requests, BUCKETS>;

/// A client-side throttler: settings, and the calls of the last so long.
pub struct Throttle<K: CellKind<Window>> {
    config: Config,
    window: K::Cell,
}

impl<K: CellKind<Window>> fmt::Debug for Throttle<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<K: CellKind<Window>> defmt::Format for Throttle<K> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Throttle {{ config: {} }}", self.config);
    }
}

impl<K: CellKind<Window>> Throttle<K> {
    /// A throttler that has seen no calls yet.
    #[must_use]
    pub const fn new(config: Valid<Config>) -> Self {
        Self { config: config.get(), window: K::Cell::NEW }
    }

    /// Asks to make a call; `random` is evenly distributed over all its values. Report the outcome of a call that is let through with
    /// [`record`](Self::record). One that isn't counts as a request all the same.
    ///
    /// # Errors
    /// The rejection. When to come back is not known: the next call may have more luck.
    pub fn try_acquire(&self, clock: &impl Clock, random: u32) -> Result<(), Rejected> {
        let now = clock.now();
        let probability = self.probability(&now);
        // Below the probability's share of all random numbers.
        let drawn = (u64::from(random).wrapping_mul(Ratio::ONE.as_basis_points().into())) >> 32;
        if drawn >= u64::from(probability.as_basis_points()) {
            return Ok(());
        }
        self.count(Requests { requests: 1, accepts: 0 }, now);
        Err(Rejected::new(Policy::Throttle, Reason::Throttled))
    }

    /// Reports a call: whether the dependency accepted it.
    pub fn record(&self, accepted: bool, clock: &impl Clock) {
        self.count(Requests { requests: 1, accepts: accepted.into() }, clock.now());
    }

    fn count(&self, requests: Requests, now: Instant) {
        self.window.update(|window| window.add(&requests, self.config.bucket, now));
    }

    /// The probability with which the next call is rejected.
    pub fn probability(&self, clock: &impl Clock) -> Ratio {
        let Requests { requests, accepts } = self.requests(clock);
        if requests < self.config.minimum { Ratio::ZERO } else { self.config.probability(requests, accepts) }
    }

    /// The calls of the last so long.
    pub fn requests(&self, clock: &impl Clock) -> Requests {
        let now = clock.now();
        self.window.read(|window| window.sum(self.config.bucket, now))
    }
}

pin_project_lite::pin_project! {
    /// A throttler's progress within a call: whether it has let it through.
    #[derive(Debug)]
    #[cfg_attr(feature = "defmt", derive(defmt::Format))]
    pub struct ThrottleState<I> {
        sent: bool,
        #[pin]
        inner: I,
    }
}

impl<K: CellKind<Window>> Part for Throttle<K> {
    const ROLE: Role = Role::Adaptive;

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = Span::from_nanos(self.config.bucket.as_nanos().saturating_mul(BUCKETS as u64)).duration();
        write!(f, "throttle: beyond {} of what is accepted, over {period:?}", self.config.multiplier)
    }
}

/// A failure counts as not accepted, an ignored outcome or a dropped call as nothing.
impl<T, E, X: Executor, K: CellKind<Window>> Layer<T, E, X> for Throttle<K> {
    type State<I> = ThrottleState<I>;

    fn idle<I>(&self, inner: I) -> ThrottleState<I> {
        ThrottleState { sent: false, inner }
    }

    fn poll<N: Next<T, E, X>>(
        &self,
        state: Pin<&mut ThrottleState<N::State>>,
        next: &mut N,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        let this = state.project();
        let executor = scope.executor();
        if !*this.sent {
            if let Err(rejected) = self.try_acquire(executor, executor.random()) {
                return Poll::Ready(Answer::ended(rejected, REJECTED));
            }
            *this.sent = true;
        }
        let answer = ready!(next.poll(this.inner, scope, cx));
        *this.sent = false;
        match answer.verdict.outcome() {
            Outcome::Success => self.record(true, executor),
            Outcome::Failure => self.record(false, executor),
            Outcome::Ignored => {}
        }
        Poll::Ready(answer)
    }

    fn reset<N: Next<T, E, X>>(&self, state: Pin<&mut ThrottleState<N::State>>, next: &mut N, executor: &X) {
        let this = state.project();
        *this.sent = false;
        next.reset(this.inner, executor);
    }
}

#[cfg(test)]
mod tests;
