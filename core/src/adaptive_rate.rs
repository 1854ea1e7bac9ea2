//! An adaptive rate: calls as fast as they come until the dependency says "too many requests", and from then on as fast as it takes them.
//!
//! ```
//! use failsoft_core::{Instant, adaptive_rate::{AdaptiveRate, Config}, cell::Local};
//!
//! let limiter: AdaptiveRate<Local> = AdaptiveRate::new(Config::new().validate()?);
//! // Ten calls a second go well: nothing is limited.
//! for call in 1..=20 {
//!     let now = Instant::from_millis(call * 100);
//!     limiter.try_acquire(&now)?;
//!     limiter.record(false, &now);
//! }
//! assert_eq!(limiter.snapshot().limit, None);
//! // The next one is throttled: 70 % of the measured rate, which then rises again.
//! let now = Instant::from_millis(2_100);
//! limiter.record(true, &now);
//! assert_eq!(limiter.snapshot().limit.map(|rate| rate.to_string()), Some("6.9888 per second".into()));
//! assert!(limiter.try_acquire(&now).is_err_and(|rejected| rejected.retry_at() > Some(now)));
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # How it works
//! Three parts, of which the first two can be used by themselves:
//!
//! * A [meter](RateMeter) of the calls per second that are answered, whatever the answer, smoothed over buckets of half a second.
//! * A [curve](Cubic), from the last time that the dependency throttled a call: the rate falls to [`BETA`] times what it was, is soon close to
//!   that again, stays there for a while, and then rises faster and faster.
//! * A bucket of tokens, a token a call, which fills at the rate and holds what comes in a second. After each answer the rate is that of the
//!   curve, but at most [`HEADROOM`] times what is measured: a limit far above what is called would not protect anyone.
//!
//! | answer | before the first throttling | after it |
//! | --- | --- | --- |
//! | throttled | the bucket begins, empty, at `beta` times the measured rate | `beta` times the measured rate or the limit, whichever is lower |
//! | any other | | the curve goes on |
//!
//! Which answers are throttled is for the classifier to say, by [`Verdict::with_throttled`](crate::Verdict::with_throttled). Failures of other
//! kinds let the rate rise like successes. A call that is dropped without an answer, or that a policy within has rejected, is not counted.
//!
//! Before the first bucket has ended nothing has been measured, and a throttled answer cuts to the lowest rate. Each
//! throttled answer cuts the rate, so that a crowd of calls that is throttled together cuts it several times. With a
//! [settling time](Config::with_settling), those that come so soon after a cut answer calls from before it, and change nothing.
//!
//! In a pipeline it stands within the retry, so that each attempt takes a token.
//!
//! # Waiting
//! Whoever finds the bucket empty takes a token that is not there yet, and waits for its turn: for at most the longest wait, in a pipeline also
//! no longer than its deadline. When the rate has been cut meanwhile, the turn comes later, or the call is rejected where that is too late; when
//! the rate has risen, whoever waits does so for as long as it was told, and those who come then may go first.
//!
//! # Defaults
//!
//! | what | default | range | at the extremes |
//! | --- | --- | --- | --- |
//! | beta | [`BETA`] (70 %) | below 100 % | small: far down at once; 0 goes down to the lowest |
//! | scale | [`SCALE`] (0.4 calls per second, per cubic second) | above 0, up to [`STEEPEST`] (50) | large: soon throttled again; small: minutes until it is back |
//! | headroom | [`HEADROOM`] (200 %) | above 100 % | small: slow to follow a growing load |
//! | lowest rate | [`LOWEST`] (a call in two seconds) | above zero | high: it can't fall as far as it would have to |
//! | settling time | none | any | long: too slow to fall while the dependency takes less and less |
//! | longest wait | [`LONGEST_WAIT`] (10 s) | any | zero rejects at once |
//! | meter: bucket | [`BUCKET`] (0.5 s) | 1 ms to 10 s | short: unsteady; long: slow to follow |
//! | meter: smoothing | [`SMOOTHING`] (80 %) | above 0, up to 100 % | the weight of the latest bucket: 100 % forgets all before it |
//!
//! # What it costs
//! Each answer is an update of the cell and a reading of the clock. A call asks neither for the time nor changes anything as long as nothing is
//! limited. The state is 96 bytes.
//!
//! # When not to use it
//! For a quota that is known: a [rate limiter](crate::rate_limiter) keeps it from the first call on. For calls to several resources that are
//! throttled apart: the busiest would slow down all, so give each its own. For calls that come in bursts, or that can't wait: the limit follows
//! what was called lately. And where the dependency rejects for other reasons than the number of calls: a
//! [throttler](crate::throttle) or a circuit breaker then.
//!
//! # Source
//! The client-side rate limiting of the "adaptive" retry mode that the AWS SDKs share, as botocore has it (`retries/adaptive.py`,
//! `throttling.py`, `bucket.py`), there without settling time and longest wait. Its curve is that of CUBIC, RFC 9438, section 4.2.

use core::cell::RefCell;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;

use crate::cell::{CellKind, Fresh, StateCell, Stored, update_timed};
use crate::config::{ConfigError, Valid, refuse};
use crate::executor::Executor;
use crate::failure::{Policy, Reason, Rejected};
use crate::math::divide;
use crate::observe::Observer;
use crate::ratio::Ratio;
use crate::time::{Clock, Instant, Span};
use crate::timeout::poll_deadline;

mod bucket;
mod cubic;
mod layer;
mod meter;
mod rate;

use bucket::{Bucket, Ticket};
pub use cubic::Cubic;
pub use layer::AdaptiveRateState;
pub use meter::RateMeter;
pub use rate::Rate;

/// The share of the rate that is left after a cut, unless said otherwise.
pub const BETA: Ratio = Ratio::percent(70);
/// How steep the curve is, unless said otherwise: calls per second, per cubic second.
pub const SCALE: Ratio = Ratio::percent(40);
/// The steepest curve: a second after the peak it is 50 calls per second above it.
pub const STEEPEST: Ratio = Ratio::percent(5_000);
/// The limit is at most this many times what is measured, unless said otherwise.
pub const HEADROOM: Ratio = Ratio::percent(200);
/// The lowest limit, unless said otherwise: a call in two seconds.
pub const LOWEST: Rate = Rate::of(1, Duration::from_secs(2));
/// The longest that a call waits for its turn, unless said otherwise: time for five at the lowest rate.
pub const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How long calls are counted together, unless said otherwise.
pub const BUCKET: Duration = Duration::from_millis(500);
/// The weight of the latest bucket in the measured rate, unless said otherwise.
pub const SMOOTHING: Ratio = Ratio::percent(80);

/// The settings of an adaptive rate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Config {
    beta: Ratio,
    scale: Ratio,
    headroom: Ratio,
    lowest: Rate,
    settling: Span,
    longest_wait: Span,
    bucket: Span,
    smoothing: Ratio,
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
        Self {
            beta: BETA,
            scale: SCALE,
            headroom: HEADROOM,
            lowest: LOWEST,
            settling: Span::ZERO,
            longest_wait: Span::of(LONGEST_WAIT),
            bucket: Span::of(BUCKET),
            smoothing: SMOOTHING,
        }
    }

    /// Leaves this share of the rate after a cut.
    #[must_use]
    pub const fn with_beta(mut self, beta: Ratio) -> Self {
        self.beta = beta;
        self
    }

    /// Rises this steeply: `t` seconds after the peak by `scale · t³` calls per second.
    #[must_use]
    pub const fn with_scale(mut self, scale: Ratio) -> Self {
        self.scale = scale;
        self
    }

    /// Limits to at most this many times what is measured.
    #[must_use]
    pub const fn with_headroom(mut self, headroom: Ratio) -> Self {
        self.headroom = headroom;
        self
    }

    /// Never limits to less than this.
    #[must_use]
    pub const fn with_lowest(mut self, lowest: Rate) -> Self {
        self.lowest = lowest;
        self
    }

    /// Takes throttled answers that come this soon after a cut for answers to calls from before it. About the time that a call takes is
    /// right.
    #[must_use]
    pub const fn with_settling(mut self, settling: Duration) -> Self {
        self.settling = Span::of(settling);
        self
    }

    /// Lets a call wait for its turn for up to this long.
    #[must_use]
    pub const fn with_longest_wait(mut self, wait: Duration) -> Self {
        self.longest_wait = Span::of(wait);
        self
    }

    /// Measures in buckets of this length, of which the latest has the weight `smoothing`.
    #[must_use]
    pub const fn with_meter(mut self, bucket: Duration, smoothing: Ratio) -> Self {
        (self.bucket, self.smoothing) = (Span::of(bucket), smoothing);
        self
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    /// The first field that doesn't, and why.
    pub const fn validate(self) -> Result<Valid<Self>, ConfigError> {
        let one = Ratio::ONE.as_basis_points();
        if self.beta.as_basis_points() >= one {
            return Err(refuse!("beta", "is not below 1: nothing would be cut"));
        }
        if self.scale.as_basis_points() == 0 {
            return Err(refuse!("scale", "is zero: the rate would never rise again"));
        }
        if self.scale.as_basis_points() > STEEPEST.as_basis_points() {
            return Err(refuse!("scale", "is above 50 calls per second, per cubic second"));
        }
        if self.headroom.as_basis_points() <= one {
            return Err(refuse!("headroom", "is not above 1: the rate could never rise again"));
        }
        if self.lowest.as_millionths() == 0 {
            return Err(refuse!("lowest", "is zero: nothing could ever pass again"));
        }
        if self.bucket.as_nanos() < 1_000_000 || self.bucket.as_nanos() > 10_000_000_000 {
            return Err(refuse!("bucket", "is not between a millisecond and ten seconds"));
        }
        if self.smoothing.as_basis_points() == 0 || !self.smoothing.is_share() {
            return Err(refuse!("smoothing", "is zero or above 1"));
        }
        Ok(Valid::vouched(self))
    }

    /// The limit, given what the curve allows and what is measured.
    #[must_use]
    pub fn limit(&self, calculated: Rate, measured: Rate) -> Rate {
        calculated.min(measured.times(self.headroom)).max(self.lowest)
    }

    /// The average of the latest rate and those before it, to the nearest.
    fn smoothed(&self, before: Rate, latest: Rate) -> Rate {
        const WHOLE: u32 = Ratio::ONE.as_basis_points();
        let weight = self.smoothing.as_basis_points();
        let latest = latest.as_millionths().saturating_mul(weight.into());
        let before = before.as_millionths().saturating_mul(WHOLE.saturating_sub(weight).into());
        Rate::from_millionths(divide(latest.saturating_add(before).saturating_add(u64::from(WHOLE / 2)), WHOLE).0)
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { beta, lowest, longest_wait, .. } = self;
        write!(f, "{beta} when throttled, {lowest} at least, waits {:?} at most", longest_wait.duration())
    }
}

/// The rate was cut, because the dependency throttled a call.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RateCut {
    /// The limit before; `None` where there was none.
    pub from: Option<Rate>,
    /// The limit from now on.
    pub to: Rate,
    /// What was measured.
    pub measured: Rate,
    /// When.
    pub at: Instant,
}

/// What an adaptive rate is doing, as of the last call.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Snapshot {
    /// The limit; `None` as long as nothing is limited.
    pub limit: Option<Rate>,
    /// The measured rate of calls.
    pub measured: Rate,
}

/// What an adaptive rate keeps: the meter, and once a call has been throttled, the curve and the bucket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct State {
    meter: RateMeter,
    limit: Option<Limit>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
struct Limit {
    curve: Cubic,
    bucket: Bucket,
}

impl Fresh for State {
    const FRESH: Self = Self { meter: RateMeter::FRESH, limit: None };
}

impl Stored for State {
    type Cell = RefCell<Self>;
}

impl State {
    /// Takes an answer into account.
    fn record(&mut self, config: &Config, throttled: bool, now: Instant) -> Option<RateCut> {
        let measured = self.meter.record(config, now);
        if !throttled {
            if let Some(limit) = &mut self.limit {
                let rate = config.limit(limit.curve.rate(config, now), measured);
                limit.bucket.set_rate(rate, now);
            }
            return None;
        }
        if self.limit.as_mut().is_some_and(|limit| limit.curve.passed(now) < config.settling) {
            return None;
        }
        let from = self.limit.map(|limit| limit.bucket.rate());
        let mut curve = Cubic::new(config, from.unwrap_or(measured).min(measured), now);
        let to = config.limit(curve.rate(config, now), measured);
        let mut bucket = self.limit.map_or_else(|| Bucket::empty(to, now), |limit| limit.bucket);
        bucket.set_rate(to, now);
        self.limit = Some(Limit { curve, bucket });
        (from != Some(to)).then_some(RateCut { from, to, measured, at: now })
    }

    /// Takes a token whose turn comes within `wait`; `None` where that is now, or nothing is limited.
    fn take(&mut self, wait: Span, now: Instant) -> Result<Option<Taken>, Rejected> {
        let Some(limit) = &mut self.limit else { return Ok(None) };
        let until = now.after(wait);
        let (ticket, at) = limit.bucket.take(until, now).map_err(exceeded)?;
        Ok((at > now).then_some(Taken { ticket, at, until }))
    }

    /// When it is this one's turn, as the rate is now; `now` where it is.
    fn turn(&mut self, ticket: Ticket, now: Instant) -> Instant {
        self.limit.as_mut().map_or(now, |limit| limit.bucket.turn(ticket, now))
    }

    fn give_back(&mut self, ticket: Ticket) {
        if let Some(limit) = &mut self.limit {
            limit.bucket.give_back(ticket);
        }
    }
}

/// A token that was taken: from when on it may be used as far as that is known, and until when that is soon enough.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
struct Taken {
    ticket: Ticket,
    at: Instant,
    until: Instant,
}

fn exceeded(at: Instant) -> Rejected {
    Rejected::until(Policy::AdaptiveRate, Reason::RateExceeded, at)
}

/// An adaptive rate: settings, and what it knows of the calls.
pub struct AdaptiveRate<K: CellKind<State>, O = ()> {
    config: Config,
    state: K::Cell,
    observer: O,
}

impl<K: CellKind<State>, O> fmt::Debug for AdaptiveRate<K, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdaptiveRate").field("snapshot", &self.snapshot()).finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<K: CellKind<State>, O> defmt::Format for AdaptiveRate<K, O> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "AdaptiveRate {{ snapshot: {} }}", self.snapshot());
    }
}

impl<K: CellKind<State>> AdaptiveRate<K> {
    /// An adaptive rate that limits nothing yet.
    #[must_use]
    pub const fn new(config: Valid<Config>) -> Self {
        Self::with_observer(config, ())
    }
}

impl<K: CellKind<State>, O> AdaptiveRate<K, O> {
    /// The same, with an observer that is told when the rate is cut.
    #[must_use]
    pub const fn with_observer(config: Valid<Config>, observer: O) -> Self {
        Self { config: config.get(), state: K::Cell::NEW, observer }
    }

    /// Takes a token now or not at all. Report the answer of the call with [`record`](Self::record).
    ///
    /// # Errors
    /// The rejection, with the instant at which the same call would pass at the rate as it is now.
    pub fn try_acquire(&self, clock: &impl Clock) -> Result<(), Rejected> {
        self.take(|_| Span::ZERO, clock).map(drop)
    }

    /// Takes a token, and waits until it is its turn. Report the answer of the call with [`record`](Self::record).
    ///
    /// # Errors
    /// The rejection, with the instant at which the turn would come, when that is beyond the longest wait: at once, or after a wait in
    /// which the rate was cut. It takes nothing.
    ///
    /// # Cancel safety
    /// Dropping the future gives the token back, for whoever comes next; those who wait keep their turns. The place in line is lost.
    ///
    /// # Fairness
    /// First come, first served, while the rate does not rise; see [waiting](self#waiting).
    pub const fn acquire<X: Executor>(&self, executor: X) -> Acquire<'_, K, X, O> {
        Acquire { limiter: self, executor, taken: None, sleep: None }
    }

    /// Reports an answer: whether the dependency said that there were too many calls.
    pub fn record(&self, throttled: bool, clock: &impl Clock)
    where
        O: Observer<RateCut>,
    {
        let now = clock.now();
        if let Some(cut) = self.state.update(|state| state.record(&self.config, throttled, now)) {
            self.observer.observe(&cut);
        }
    }

    /// What it is doing.
    pub fn snapshot(&self) -> Snapshot {
        self.state.read(|State { meter, limit }| Snapshot {
            limit: limit.map(|limit| limit.bucket.rate()),
            measured: meter.rate(),
        })
    }

    /// Takes a token whose turn comes within `wait` and the longest wait; `None` where that is now. Where nothing is limited the clock is
    /// not read.
    fn take(&self, wait: impl Fn(Instant) -> Span, clock: &impl Clock) -> Result<Option<Taken>, Rejected> {
        update_timed(&self.state, None, clock, |state, now| {
            if state.limit.is_none() {
                return Some(Ok(None));
            }
            let now = now?;
            Some(state.take(wait(now).min(self.config.longest_wait), now))
        })
    }

    /// Takes a token, the first time, and waits for its turn.
    fn poll_turn<X: Executor>(
        &self,
        wait: impl Fn(Instant) -> Span,
        taken: &mut Option<Taken>,
        mut sleep: Pin<&mut Option<X::Sleep>>,
        executor: &X,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Rejected>> {
        if taken.is_none() {
            *taken = self.take(wait, executor)?;
        }
        let Some(Taken { ticket, mut at, until }) = *taken else { return Poll::Ready(Ok(())) };
        loop {
            ready!(poll_deadline(sleep.as_mut(), at, executor, cx));
            // The rate may have been cut meanwhile: once more, and for longer.
            let now = executor.now();
            at = self.state.update(|state| state.turn(ticket, now));
            if at <= now {
                *taken = None;
                return Poll::Ready(Ok(()));
            }
            if at > until {
                self.give_back(taken);
                return Poll::Ready(Err(exceeded(at)));
            }
            *taken = Some(Taken { ticket, at, until });
        }
    }

    fn give_back(&self, taken: &mut Option<Taken>) {
        if let Some(Taken { ticket, .. }) = taken.take() {
            self.state.update(|state| state.give_back(ticket));
        }
    }
}

pin_project_lite::pin_project! {
    /// Waits for a turn; see [`AdaptiveRate::acquire`].
    #[must_use = "futures do nothing unless polled"]
    pub struct Acquire<'l, K, X, O>
    where
        K: CellKind<State>,
        X: Executor,
    {
        limiter: &'l AdaptiveRate<K, O>,
        executor: X,
        taken: Option<Taken>,
        #[pin]
        sleep: Option<X::Sleep>,
    }

    impl<K, X, O> PinnedDrop for Acquire<'_, K, X, O>
    where
        K: CellKind<State>,
        X: Executor,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            this.limiter.give_back(this.taken);
        }
    }
}

impl<K: CellKind<State>, X: Executor, O> Future for Acquire<'_, K, X, O> {
    type Output = Result<(), Rejected>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.limiter.poll_turn(|_| Span::MAX, this.taken, this.sleep, this.executor, cx)
    }
}

impl<K: CellKind<State>, X: Executor, O> fmt::Debug for Acquire<'_, K, X, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire").field("taken", &self.taken).finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<K: CellKind<State>, X: Executor, O> defmt::Format for Acquire<'_, K, X, O> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Acquire {{ taken: {} }}", self.taken);
    }
}

#[cfg(test)]
mod tests;
