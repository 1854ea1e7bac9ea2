//! The four kinds of injection.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;

use super::Hit;
use crate::config::{ConfigError, refuse};
use crate::executor::Executor;
use crate::rng::share;
use crate::time::{Instant, Span};
use crate::timeout::poll_deadline;

/// What was injected into a call.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Kind {
    /// An error.
    Fault,
    /// A wait of this long.
    Latency(Duration),
    /// An outcome.
    Fake,
    /// A behaviour.
    Behaviour,
}

impl Kind {
    /// Its name in snake case, as it stands in labels and fields of telemetry: `latency`, say. It is kept from version to version.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fault => "fault",
            Self::Latency(_) => "latency",
            Self::Fake => "fake",
            Self::Behaviour => "behaviour",
        }
    }
}

/// What is done to a call that is hit, where the operation returns `Result<T, E>`. Displayed with its settings: `a latency of 50ms`.
pub trait Injection<T, E, X: Executor>: fmt::Display {
    /// Its progress.
    type Before;

    /// Which kind it is, for this hit.
    fn kind(&self, hit: Hit) -> Kind;

    /// The progress before anything has started.
    fn begin(&self, hit: Hit, executor: &X) -> Self::Before;

    /// Drives it on. `Ready` with a result ends the call with that; without one, the operation runs.
    fn poll(&self, before: Pin<&mut Self::Before>, executor: &X, cx: &mut Context<'_>) -> Poll<Option<Result<T, E>>>;
}

/// An error in place of the operation: `F` is `Fn(Hit) -> E`.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Fault<F> {
    error: F,
}

impl<F> Fault<F> {
    /// What makes the error.
    #[must_use]
    pub const fn new<E>(error: F) -> Self
    where
        F: Fn(Hit) -> E,
    {
        Self { error }
    }
}

impl<F> fmt::Display for Fault<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a fault")
    }
}

impl<T, E, X: Executor, F: Fn(Hit) -> E> Injection<T, E, X> for Fault<F> {
    type Before = Hit;

    fn kind(&self, _: Hit) -> Kind {
        Kind::Fault
    }

    fn begin(&self, hit: Hit, _: &X) -> Hit {
        hit
    }

    fn poll(&self, hit: Pin<&mut Hit>, _: &X, _: &mut Context<'_>) -> Poll<Option<Result<T, E>>> {
        Poll::Ready(Some(Err((self.error)(*hit))))
    }
}

/// A wait before the operation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Latency {
    low: Span,
    high: Span,
}

impl Latency {
    /// Always this long. Zero does nothing, `Duration::MAX` hangs.
    #[must_use]
    pub const fn new(latency: Duration) -> Self {
        Self { low: Span::of(latency), high: Span::of(latency) }
    }

    /// Evenly drawn by the plan: no shorter than `low`, no longer than `high`.
    ///
    /// # Errors
    /// The lower bound is above the upper one.
    pub const fn between(low: Duration, high: Duration) -> Result<Self, ConfigError> {
        let (low, high) = (Span::of(low), Span::of(high));
        if low.as_nanos() > high.as_nanos() {
            return Err(refuse!("latency", "has a lower bound above the upper one"));
        }
        Ok(Self { low, high })
    }

    /// How long this hit waits.
    #[must_use]
    pub const fn of(&self, hit: Hit) -> Duration {
        self.span(hit).duration()
    }

    const fn span(&self, hit: Hit) -> Span {
        let (low, high) = (self.low.as_nanos(), self.high.as_nanos());
        let drawn = share(high.saturating_sub(low).saturating_add(1), hit.random);
        Span::from_nanos(low.saturating_add(drawn))
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a latency of {:?}", self.low.duration())?;
        if self.low == self.high { Ok(()) } else { write!(f, " to {:?}", self.high.duration()) }
    }
}

pin_project_lite::pin_project! {
    /// A call that waits.
    #[derive(Debug)]
    #[cfg_attr(feature = "defmt", derive(defmt::Format))]
    pub struct Delayed<S> {
        // `None` where there is nothing to wait for.
        due: Option<Instant>,
        #[pin]
        sleep: Option<S>,
    }
}

impl<T, E, X: Executor> Injection<T, E, X> for Latency {
    type Before = Delayed<X::Sleep>;

    fn kind(&self, hit: Hit) -> Kind {
        Kind::Latency(self.of(hit))
    }

    fn begin(&self, hit: Hit, executor: &X) -> Self::Before {
        let latency = self.span(hit);
        Delayed { due: (!latency.is_zero()).then(|| executor.now().after(latency)), sleep: None }
    }

    fn poll(&self, before: Pin<&mut Self::Before>, executor: &X, cx: &mut Context<'_>) -> Poll<Option<Result<T, E>>> {
        let this = before.project();
        if let Some(due) = *this.due {
            ready!(poll_deadline(this.sleep, due, executor, cx));
        }
        Poll::Ready(None)
    }
}

/// An outcome in place of the operation: `F` is `Fn(Hit) -> Result<T, E>`.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Fake<F> {
    outcome: F,
}

impl<F> Fake<F> {
    /// What makes the outcome.
    #[must_use]
    pub const fn new<T, E>(outcome: F) -> Self
    where
        F: Fn(Hit) -> Result<T, E>,
    {
        Self { outcome }
    }
}

impl<F> fmt::Display for Fake<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a fake outcome")
    }
}

impl<T, E, X: Executor, F: Fn(Hit) -> Result<T, E>> Injection<T, E, X> for Fake<F> {
    type Before = Hit;

    fn kind(&self, _: Hit) -> Kind {
        Kind::Fake
    }

    fn begin(&self, hit: Hit, _: &X) -> Hit {
        hit
    }

    fn poll(&self, hit: Pin<&mut Hit>, _: &X, _: &mut Context<'_>) -> Poll<Option<Result<T, E>>> {
        Poll::Ready(Some((self.outcome)(*hit)))
    }
}

/// Something that is done before the operation: `F` is `Fn(Hit) -> impl Future<Output = ()>`. What is done at once returns
/// [`ready(())`](core::future::ready).
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Behaviour<F> {
    act: F,
}

impl<F> Behaviour<F> {
    /// What is done.
    #[must_use]
    pub const fn new<Fut>(act: F) -> Self
    where
        F: Fn(Hit) -> Fut,
        Fut: Future<Output = ()>,
    {
        Self { act }
    }
}

impl<F> fmt::Display for Behaviour<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a behaviour")
    }
}

impl<T, E, X, F, Fut> Injection<T, E, X> for Behaviour<F>
where
    X: Executor,
    F: Fn(Hit) -> Fut,
    Fut: Future<Output = ()>,
{
    type Before = Fut;

    fn kind(&self, _: Hit) -> Kind {
        Kind::Behaviour
    }

    fn begin(&self, hit: Hit, _: &X) -> Fut {
        (self.act)(hit)
    }

    fn poll(&self, before: Pin<&mut Fut>, _: &X, cx: &mut Context<'_>) -> Poll<Option<Result<T, E>>> {
        before.poll(cx).map(|()| None)
    }
}
