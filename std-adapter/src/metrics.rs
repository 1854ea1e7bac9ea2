//! Metrics: what becomes of calls, what policies do, and in what state they are, for Prometheus or whatever else records.
//!
//! ```
//! use failsoft_tokio::{CircuitBreaker, Gauges, Metered, Metrics, Pipeline, RetryPolicy, Tokio, circuit_breaker, metrics, retry};
//! use failsoft_tokio::circuit_breaker::ConsecutiveFailures;
//! use failsoft_tokio::valid;
//!
//! type Breaker = CircuitBreaker<ConsecutiveFailures, Metrics>;
//! static PAYMENTS: Breaker =
//!     Breaker::with_observer(valid!(circuit_breaker::Config::new().validate()), Metrics::new("payments"));
//! static GAUGES: Gauges = Gauges::new();
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn core::error::Error>> {
//! let prometheus = metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder()?;
//! metrics::describe();
//! GAUGES.register("payments", &PAYMENTS);
//!
//! let pipeline = Pipeline::new(Tokio)
//!     .layer(Metered::calls("payments"))
//!     .layer(RetryPolicy::with_observer(retry::Config::new().validate()?, Metrics::new("payments")))
//!     .layer(Metered::attempts("payments"))
//!     .layer(&PAYMENTS);
//! pipeline.call(async |attempt| if attempt.number() == 1 { Err(core::fmt::Error) } else { Ok(()) }).await?;
//!
//! // What answers to `GET /metrics`.
//! GAUGES.collect(&Tokio);
//! let text = prometheus.render();
//! for line in [
//!     "failsoft_calls_total{name=\"payments\",outcome=\"success\"} 1",
//!     "failsoft_attempts_total{name=\"payments\",outcome=\"failure\"} 1",
//!     "failsoft_attempts_total{name=\"payments\",outcome=\"success\"} 1",
//!     "failsoft_retries_total{name=\"payments\"} 1",
//!     "failsoft_circuit_breaker_state{name=\"payments\",state=\"closed\"} 1",
//! ] {
//!     assert!(text.lines().any(|known| known == line), "{line}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! It goes through the facade of the crate `metrics`: without a recorder nothing is recorded, and whoever was first used without one stays
//! mute. So install the recorder first: for Prometheus that of `metrics-exporter-prometheus`, as above, for OpenTelemetry that of
//! `metrics-exporter-otel`.
//!
//! | type | what it is | costs |
//! | --- | --- | --- |
//! | [`Metered`] | a layer of a pipeline: counts calls, or attempts, by what became of them | three additions to shared counters per call |
//! | [`Metrics`] | an observer of policies: counts their events | one addition per event, and per call of a circuit breaker |
//! | [`Gauges`] | a list of policies that are asked for their state | nothing, except when asked |
//!
//! # Metrics
//!
//! Every one has the label `name`: that of the policy's instance, or of the pipeline, which their owner chose.
//!
//! | metric | type | unit | further labels | by |
//! | --- | --- | --- | --- | --- |
//! | `failsoft_calls_total` | counter | calls | `outcome` | [`Metered::calls`] |
//! | `failsoft_call_rejections_total` | counter | calls | `policy`, `reason` | |
//! | `failsoft_calls_in_flight` | gauge | calls | | |
//! | `failsoft_call_duration_seconds` | histogram | seconds | `outcome` | [`Metered::with_durations`] |
//! | `failsoft_attempts_total` | counter | attempts | `outcome` | [`Metered::attempts`] |
//! | `failsoft_attempt_rejections_total` | counter | attempts | `policy`, `reason` | |
//! | `failsoft_attempts_in_flight` | gauge | attempts | | |
//! | `failsoft_attempt_duration_seconds` | histogram | seconds | `outcome` | [`Metered::with_durations`] |
//! | `failsoft_circuit_breaker_calls_total` | counter | calls | `result` | [`Metrics`] |
//! | `failsoft_circuit_breaker_transitions_total` | counter | changes | `to` | |
//! | `failsoft_circuit_breaker_would_open_total` | counter | changes | | |
//! | `failsoft_retries_total` | counter | attempts | | |
//! | `failsoft_hedges_total` | counter | tries | | |
//! | `failsoft_hedged_calls_won_total` | counter | calls | `by` | |
//! | `failsoft_adaptive_limit_changes_total` | counter | changes | `direction` | |
//! | `failsoft_adaptive_rate_cuts_total` | counter | changes | | |
//! | `failsoft_chaos_injections_total` | counter | calls | `kind` | |
//! | `failsoft_last_good_served_total` | counter | calls | `age` | |
//! | `failsoft_degradation_level_changes_total` | counter | changes | `direction` | |
//! | `failsoft_supervisor_task_changes_total` | counter | changes | `to` | |
//! | `failsoft_circuit_breaker_state` | gauge | 0 or 1 | `state` | [`Gauges`] |
//! | `failsoft_circuit_breaker_state_number` | gauge | number of the state | | |
//! | `failsoft_circuit_breaker_reopened` | gauge | changes | | |
//! | `failsoft_circuit_breaker_counted_calls` | gauge | calls | | |
//! | `failsoft_circuit_breaker_counted_failures` | gauge | calls | | |
//! | `failsoft_circuit_breaker_probes` | gauge | calls | | |
//! | `failsoft_bulkhead_permits` | gauge | permits | | |
//! | `failsoft_bulkhead_in_use` | gauge | permits | | |
//! | `failsoft_bulkhead_queued` | gauge | permits | | |
//! | `failsoft_bulkhead_high_water` | gauge | permits | | |
//! | `failsoft_adaptive_limit` | gauge | calls | | |
//! | `failsoft_adaptive_limit_in_use` | gauge | calls | | |
//! | `failsoft_adaptive_limit_queued` | gauge | calls | | |
//! | `failsoft_rate_limiter_available` | gauge | permits | | |
//! | `failsoft_adaptive_rate_per_second` | gauge | calls a second | | |
//! | `failsoft_adaptive_rate_measured_per_second` | gauge | calls a second | | |
//! | `failsoft_degradation_level` | gauge | steps below full | | |
//! | `failsoft_throttle_rejection_ratio` | gauge | 0 to 1 | | |
//! | `failsoft_retry_budget_balance` | gauge | the budget's own | | |
//! | `failsoft_coalesce_in_flight` | gauge | keys | | |
//!
//! # Labels
//!
//! A label has a few known values, and never a key, a host or an error's text: the number of series follows from the number of names.
//!
//! | label | values |
//! | --- | --- |
//! | `outcome` | `success`, `failure`, `ignored`, `rejected`, `timed_out`, `abandoned` |
//! | `policy`, `reason` | [`Policy::as_str`](crate::Policy::as_str), [`Reason::as_str`](crate::Reason::as_str): 22 pairs, each from the first such rejection on |
//! | `result` | `success`, `failure`, `ignored`, `rejected`, `abandoned`, `late` |
//! | `state`, `to` of a circuit breaker | [`StateKind::as_str`](crate::circuit_breaker::StateKind::as_str) |
//! | `to` of a supervisor | `alive`, `stalled` |
//! | `by` | `first`, `hedge` |
//! | `direction` | `down`, `up` |
//! | `kind` | `fault`, `latency`, `fake`, `behaviour` |
//! | `age` | `fresh`, `stale` |
//!
//! Handles of counters are kept for good, so that a call takes none: a recorder that forgets what has been idle forgets them for good too.
//! Give it no idle timeout for counters, nor for gauges of what is in flight.
//!
//! The calls that a breaker let through are those of all results but `rejected`, and those under way; of a disabled one none are told.
//! `abandoned` calls were dropped before
//! their end: by a caller that has gone, a timeout or a hedge around them, or a panic.
//!
//! # Defaults
//!
//! | what | default | otherwise |
//! | --- | --- | --- |
//! | durations | not measured: it takes two readings of the clock per call | [`Metered::with_durations`] |
//! | buckets of durations | the recorder's | the recorder's settings; its quantiles can't be added up over instances, buckets can |
//! | texts that say what is counted | none | [`describe`], once |
//!
//! # When not to use it
//! On one breaker that many threads use for calls of some nanoseconds: to count every call is to write for every call. Leave the calls to
//! [`Gauges`] and the events there, as [`Metrics`] shows. With a name for each user, host or key: every name is as many series as the tables
//! say.
//!
//! # Source
//! The naming and the labels that Prometheus recommends; the state as one of several labels is the `StateSet` of `OpenMetrics`.

use failsoft_core::circuit_breaker::StateKind;

mod calls;
mod events;
mod gauges;
mod names;

pub use calls::{Metered, MeteredState};
pub use events::Metrics;
#[cfg(feature = "settings")]
pub(crate) use gauges::without_breaker;
pub use gauges::{Gauges, Measure, Sheet};
pub use names::describe;

/// In the order of their numbers.
const STATES: [StateKind; 6] = [
    StateKind::Closed,
    StateKind::Open,
    StateKind::HalfOpen,
    StateKind::Isolated,
    StateKind::Disabled,
    StateKind::MetricsOnly,
];
