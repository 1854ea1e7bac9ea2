//! Tracing: the events of policies and the spans of calls, through the `tracing` facade.
//!
//! ```
//! use failsoft_tokio::{Pipeline, RetryPolicy, Tokio, Traced, Tracing, retry};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn core::error::Error>> {
//! let pipeline = Pipeline::new(Tokio)
//!     .layer(Traced::calls("payments"))
//!     .layer(RetryPolicy::with_observer(retry::Config::new().validate()?, Tracing::new("payments")))
//!     .layer(Traced::attempts("payments"));
//! pipeline.call(async |attempt| if attempt.number() == 1 { Err(core::fmt::Error) } else { Ok(()) }).await?;
//! # Ok(())
//! # }
//! ```
//!
//! To a subscriber that hands spans on to OpenTelemetry, as the crate `tracing-opentelemetry` does, this is one trace: a span of the call,
//! in it two of its attempts, and between these the event of the retry.
//!
//! | type | what it is |
//! | --- | --- |
//! | [`Tracing`] | an observer of policies: one event per event |
//! | [`Traced`] | a layer of a pipeline: one span per call, or per attempt |
//!
//! A policy has one observer; a pair of them is one: `(Tracing::new("payments"), Metrics::new("payments"))`.
//!
//! # Spans
//!
//! They are of level `INFO`, and their target begins with `failsoft_tokio`, for filters. What a call does by itself (its operation's
//! own spans and events, the policies' events) is within its span. Fields:
//!
//! | field | in | set to | when |
//! | --- | --- | --- | --- |
//! | `failsoft.name` | both | the name | at once |
//! | `otel.name` | calls | the name, which becomes the span's in OpenTelemetry | at once |
//! | `http.request.resend_count` | attempts | the number of attempts before it | at once, in all but the first attempt |
//! | `failsoft.hedge` | attempts | which hedge it is | at once, in hedges |
//! | `failsoft.outcome` | both | `success`, `failure`, `ignored`, `rejected`, `timed_out`, `abandoned` | at its end |
//! | `failsoft.attempts` | calls | how many attempts, or tries, there were | at its end, where a retry or a hedge gave up |
//! | `failsoft.policy`, `failsoft.reason` | both | who rejected, and why: [`Policy::as_str`](crate::Policy::as_str), [`Reason::as_str`](crate::Reason::as_str) | at its end, where it was rejected |
//! | `error.type` | both | `timeout`, `rejected`, the error's type, or `_OTHER` where an answer is the failure | at its end, where it failed, was rejected or timed out |
//! | `otel.status_code` | both | `ERROR` | likewise |
//!
//! A result that the classifier ignores is no error; nor is a call that was abandoned: dropped before its end, by a caller that has gone, a
//! timeout or a hedge around it, or a panic. No field holds an error's text.
//!
//! # Defaults
//!
//! | what | default | otherwise |
//! | --- | --- | --- |
//! | whether there are spans | as the subscriber says | where it wants none of them, a call looks at one flag in memory and goes on |
//! | the parent | the span in which the call is first polled | |
//!
//! # When not to use it
//! To count: events and spans are sampled and dropped, and counters are not (`Metrics`, feature `metrics`). Within a shared execution
//! of [`Coalesce`](crate::Coalesce), a span's parent is that of whoever polled it first.
//!
//! # Source
//! OpenTelemetry's semantic conventions: `error.type` as for any operation, `http.request.resend_count` as for clients of HTTP.

use failsoft_core::adaptive::LimitChange;
use failsoft_core::adaptive_rate::{Rate, RateCut};
use failsoft_core::chaos::Injected;
use failsoft_core::circuit_breaker::{StateKind, Transition};
use failsoft_core::degradation::{Level, LevelChange};
use failsoft_core::hedge::Hedged;
use failsoft_core::last_good::Served;
use failsoft_core::retry::Retrying;
use failsoft_core::supervisor::TaskChange;
use failsoft_core::{Instant, Observer};

mod spans;

pub use spans::{Traced, TracedState};

/// An observer for every policy: one `tracing` event per event, under the name of the policy's instance.
///
/// What takes function away is a warning, and so is an answer that is stale; what brings it back or is injected on purpose is information; a
/// retry, a hedge or an answer that is fresh is for debugging.
#[derive(Clone, Copy, Debug)]
pub struct Tracing<N = &'static str> {
    name: N,
}

impl<N> Tracing<N> {
    /// Events under this name: a `&'static str`, or an owned string that comes from a file, say.
    #[must_use]
    pub const fn new(name: N) -> Self {
        Self { name }
    }
}

impl<N: AsRef<str>> Observer<Transition> for Tracing<N> {
    fn observe(&self, event: &Transition) {
        let Transition { from, to, generation, reopened, counts, until } = *event;
        let (name, until) = (self.name.as_ref(), until.map(Instant::as_nanos));
        let (calls, failures, slow) = (counts.calls, counts.failures, counts.slow);
        if matches!(to, StateKind::Open | StateKind::Isolated) {
            tracing::warn!(name, ?from, ?to, generation, reopened, calls, failures, slow, until, "circuit breaker");
        } else {
            tracing::info!(name, ?from, ?to, generation, reopened, calls, failures, slow, until, "circuit breaker");
        }
    }
}

impl<N: AsRef<str>> Observer<Retrying> for Tracing<N> {
    fn observe(&self, event: &Retrying) {
        tracing::debug!(name = self.name.as_ref(), attempt = event.attempt, at = event.at.as_nanos(), "retry");
    }
}

impl<N: AsRef<str>> Observer<Hedged> for Tracing<N> {
    fn observe(&self, event: &Hedged) {
        let name = self.name.as_ref();
        match *event {
            Hedged::Started { hedge, attempt } => tracing::debug!(name, attempt, hedge, "hedge started"),
            Hedged::Won { hedge, attempt } => tracing::debug!(name, attempt, hedge, "hedge won"),
        }
    }
}

impl<N: AsRef<str>> Observer<LimitChange> for Tracing<N> {
    fn observe(&self, event: &LimitChange) {
        let LimitChange { from, to } = *event;
        tracing::debug!(name = self.name.as_ref(), from, to, "adaptive limit");
    }
}

impl<N: AsRef<str>> Observer<Injected> for Tracing<N> {
    fn observe(&self, event: &Injected) {
        tracing::info!(name = self.name.as_ref(), call = event.call, kind = ?event.kind, "chaos injected");
    }
}

/// Rates in millionths of a call per second.
impl<N: AsRef<str>> Observer<RateCut> for Tracing<N> {
    fn observe(&self, event: &RateCut) {
        let RateCut { from, to, measured, at } = *event;
        let (from, to, measured) = (from.map(Rate::as_millionths), to.as_millionths(), measured.as_millionths());
        tracing::warn!(name = self.name.as_ref(), from, to, measured, at = at.as_nanos(), "adaptive rate");
    }
}

impl<N: AsRef<str>> Observer<Served> for Tracing<N> {
    fn observe(&self, event: &Served) {
        let (age, stale) = (event.age(), event.is_stale());
        if stale {
            tracing::warn!(name = self.name.as_ref(), ?age, stale, "last good value");
        } else {
            tracing::debug!(name = self.name.as_ref(), ?age, stale, "last good value");
        }
    }
}

impl<N: AsRef<str>, L: Level> Observer<LevelChange<L>> for Tracing<N> {
    fn observe(&self, event: &LevelChange<L>) {
        let LevelChange { from, to, at } = *event;
        let (name, at) = (self.name.as_ref(), at.as_nanos());
        if to.step() > from.step() {
            tracing::warn!(name, ?from, ?to, at, "degradation level");
        } else {
            tracing::info!(name, ?from, ?to, at, "degradation level");
        }
    }
}

/// Under the supervisor's name, with the task's.
impl<N: AsRef<str>> Observer<TaskChange> for Tracing<N> {
    fn observe(&self, event: &TaskChange) {
        let TaskChange { task, critical, stalled, at } = *event;
        let (name, at) = (self.name.as_ref(), at.as_nanos());
        if stalled {
            tracing::warn!(name, task, critical, stalled, at, "supervised task");
        } else {
            tracing::info!(name, task, critical, stalled, at, "supervised task");
        }
    }
}
