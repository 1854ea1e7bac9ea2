//! Calls as a layer of a pipeline sees them.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::sync::OnceLock;

use failsoft_core::pipeline::{Answer, Layer, Next, Part, Role, Scope};
use failsoft_core::{Clock, Executor, Instant, Policy, Reason, Rejected};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::names::{self, Unit};
use crate::ended::Ended;

/// A layer that counts what passes through it: calls, or attempts; see the [module](super).
///
/// | constructor | where it belongs | what it counts |
/// | --- | --- | --- |
/// | [`calls`](Self::calls) | outermost | calls, each once however often it is tried |
/// | [`attempts`](Self::attempts) | directly within the retry or the hedge | each attempt and each hedge; those that a policy within rejects or ends, too |
///
/// It takes a few additions per call to shared counters, and nothing else: it allocates nothing, and reads no clock unless it
/// [measures durations](Self::with_durations). The first call through it makes its counters and gauges: install the recorder
/// before that. Clones share their numbers.
///
/// # Cancel safety
/// A call that is dropped before its end is counted as abandoned, and is in flight no more.
#[derive(Clone)]
pub struct Metered<N = &'static str> {
    name: N,
    unit: &'static Unit,
    durations: bool,
    handles: OnceLock<Handles>,
}

impl<N> Metered<N> {
    /// Counts calls under this name: a `&'static str`, or an owned string that comes from a file, say.
    #[must_use]
    pub const fn calls(name: N) -> Self {
        Self { name, unit: &names::CALLS, durations: false, handles: OnceLock::new() }
    }

    /// Counts attempts under this name.
    #[must_use]
    pub const fn attempts(name: N) -> Self {
        Self { name, unit: &names::ATTEMPTS, durations: false, handles: OnceLock::new() }
    }

    /// Also measures how long they take, by the pipeline's executor: two readings of the clock each, and whatever the recorder does
    /// with a value of a histogram.
    #[must_use]
    pub const fn with_durations(mut self) -> Self {
        self.durations = true;
        self
    }
}

impl<N: AsRef<str>> fmt::Debug for Metered<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metered")
            .field("name", &self.name.as_ref())
            .field("unit", &self.unit.plural)
            .field("durations", &self.durations)
            .finish_non_exhaustive()
    }
}

/// Every rejection that there is.
const REJECTIONS: [(Policy, Reason); 22] = [
    (Policy::CircuitBreaker, Reason::Open),
    (Policy::CircuitBreaker, Reason::ProbesOut),
    (Policy::CircuitBreaker, Reason::Isolated),
    (Policy::Bulkhead, Reason::Full),
    (Policy::Bulkhead, Reason::QueueFull),
    (Policy::Bulkhead, Reason::QueueTimeout),
    (Policy::Bulkhead, Reason::TooHeavy),
    (Policy::Bulkhead, Reason::PriorityTooLow),
    (Policy::Bulkhead, Reason::Evicted),
    (Policy::AdaptiveLimit, Reason::LimitReached),
    (Policy::AdaptiveLimit, Reason::QueueFull),
    (Policy::AdaptiveLimit, Reason::QueueTimeout),
    (Policy::AdaptiveLimit, Reason::TooHeavy),
    (Policy::AdaptiveLimit, Reason::PriorityTooLow),
    (Policy::AdaptiveLimit, Reason::Evicted),
    (Policy::RateLimiter, Reason::RateExceeded),
    (Policy::RateLimiter, Reason::QueueFull),
    (Policy::RateLimiter, Reason::TooHeavy),
    (Policy::AdaptiveRate, Reason::RateExceeded),
    (Policy::Throttle, Reason::Throttled),
    (Policy::Pipeline, Reason::NotRepeatable),
    (Policy::Degradation, Reason::LevelTooLow),
];

/// What is counted with, made once.
#[derive(Clone)]
struct Handles {
    in_flight: Gauge,
    ended: [Counter; Ended::ALL.len()],
    // Where they are measured.
    seconds: Option<[Histogram; Ended::ALL.len()]>,
    // Each with the first of its kind: most pipelines know but a few.
    rejections: [OnceLock<Counter>; REJECTIONS.len()],
}

impl<N: AsRef<str>> Metered<N> {
    #[inline]
    fn handles(&self) -> &Handles {
        self.handles.get_or_init(|| self.make())
    }

    #[cold]
    fn make(&self) -> Handles {
        let name = || self.name.as_ref().to_owned();
        let Unit { total, in_flight, seconds, .. } = *self.unit;
        Handles {
            in_flight: gauge!(in_flight, "name" => name()),
            ended: Ended::ALL.map(|ended| counter!(total, "name" => name(), "outcome" => ended.as_str())),
            seconds: self
                .durations
                .then(|| Ended::ALL.map(|ended| histogram!(seconds, "name" => name(), "outcome" => ended.as_str()))),
            rejections: [const { OnceLock::new() }; REJECTIONS.len()],
        }
    }

    /// When a call begins, where that matters.
    #[inline]
    fn begin(&self, clock: &impl Clock) -> Instant {
        self.handles().in_flight.increment(1.0);
        if self.durations { clock.now() } else { Instant::START }
    }

    #[inline]
    fn end(&self, ended: Ended, began: Instant, clock: &impl Clock) {
        let handles = self.handles();
        handles.in_flight.decrement(1.0);
        // In the order of `Ended::ALL`.
        let place = ended as usize;
        if let Some(count) = handles.ended.get(place) {
            count.increment(1);
        }
        if let Some(seconds) = handles.seconds.as_ref().and_then(|seconds| seconds.get(place)) {
            seconds.record(clock.now().saturating_duration_since(began));
        }
    }

    #[cold]
    fn reject(&self, rejected: Rejected) {
        let (policy, reason) = (rejected.policy(), rejected.reason());
        let make = || {
            let name = self.name.as_ref().to_owned();
            counter!(self.unit.rejections, "name" => name, "policy" => policy.as_str(), "reason" => reason.as_str())
        };
        let known = REJECTIONS.iter().zip(&self.handles().rejections).find(|(pair, _)| **pair == (policy, reason));
        // One that a later core has come up with is looked up each time.
        known.map_or_else(make, |(_, kept)| kept.get_or_init(make).clone()).increment(1);
    }
}

pin_project_lite::pin_project! {
    /// A metered call's progress: when it began.
    #[derive(Debug)]
    pub struct MeteredState<I> {
        began: Option<Instant>,
        #[pin]
        inner: I,
    }
}

impl<N: AsRef<str>> Part for Metered<N> {
    const ROLE: Role = Role::Other;

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "metrics: {} of {}", self.unit.plural, self.name.as_ref())?;
        if self.durations { f.write_str(", with durations") } else { Ok(()) }
    }
}

impl<T, E, X: Executor, N: AsRef<str>> Layer<T, E, X> for Metered<N> {
    type State<I> = MeteredState<I>;

    fn idle<I>(&self, inner: I) -> MeteredState<I> {
        MeteredState { began: None, inner }
    }

    #[inline]
    fn poll<M: Next<T, E, X>>(
        &self,
        state: Pin<&mut MeteredState<M::State>>,
        next: &mut M,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        let this = state.project();
        let clock = scope.executor();
        this.began.get_or_insert_with(|| self.begin(clock));
        let answer = ready!(next.poll(this.inner, scope, cx));
        if let Some(began) = this.began.take() {
            self.end(Ended::with(&answer), began, clock);
        }
        if let Some(rejected) = answer.result.as_ref().err().and_then(|failure| failure.rejected()) {
            self.reject(rejected);
        }
        Poll::Ready(answer)
    }

    fn reset<M: Next<T, E, X>>(&self, state: Pin<&mut MeteredState<M::State>>, next: &mut M, executor: &X) {
        let this = state.project();
        // Before, so that it is counted even if the operation's future panics while it is dropped.
        if let Some(began) = this.began.take() {
            self.end(Ended::Abandoned, began, executor);
        }
        next.reset(this.inner, executor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_is_counted_at_its_own_place() {
        for (place, ended) in Ended::ALL.into_iter().enumerate() {
            assert_eq!(ended as usize, place);
        }
    }
}
