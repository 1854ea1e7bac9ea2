//! The metrics' names, in one place, and what a recorder is told of each.

use metrics::{Unit as Measured, describe_counter, describe_gauge, describe_histogram};

/// What a [`Metered`](super::Metered) counts, and the names of its metrics.
pub(super) struct Unit {
    pub(super) plural: &'static str,
    pub(super) total: &'static str,
    pub(super) rejections: &'static str,
    pub(super) in_flight: &'static str,
    pub(super) seconds: &'static str,
}

pub(super) static CALLS: Unit = Unit {
    plural: "calls",
    total: "failsoft_calls_total",
    rejections: "failsoft_call_rejections_total",
    in_flight: "failsoft_calls_in_flight",
    seconds: "failsoft_call_duration_seconds",
};

pub(super) static ATTEMPTS: Unit = Unit {
    plural: "attempts",
    total: "failsoft_attempts_total",
    rejections: "failsoft_attempt_rejections_total",
    in_flight: "failsoft_attempts_in_flight",
    seconds: "failsoft_attempt_duration_seconds",
};

macro_rules! names {
    ($($name:ident = $metric:literal, $kind:ident: $text:literal;)+) => {
        $(pub(super) const $name: &str = $metric;)+
        const ALL: &[(&str, Kind, &str)] = &[$(($name, Kind::$kind, $text)),+];
    };
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

names! {
    TRANSITIONS = "failsoft_circuit_breaker_transitions_total", Counter: "Changes of state, by the state they led to.";
    WOULD_OPEN = "failsoft_circuit_breaker_would_open_total", Counter: "Openings there would have been, had it not only observed.";
    BREAKER_CALLS = "failsoft_circuit_breaker_calls_total", Counter: "Calls by what the breaker counted them as, once over.";
    RETRIES = "failsoft_retries_total", Counter: "Further attempts that were decided on.";
    HEDGES = "failsoft_hedges_total", Counter: "Further tries that were started beside a slow one.";
    HEDGES_WON = "failsoft_hedged_calls_won_total", Counter: "Hedged calls that succeeded, by which try.";
    LIMIT_CHANGES = "failsoft_adaptive_limit_changes_total", Counter: "Changes of the limit of calls at once.";
    RATE_CUTS = "failsoft_adaptive_rate_cuts_total", Counter: "Cuts of the rate of calls.";
    INJECTIONS = "failsoft_chaos_injections_total", Counter: "Injections on purpose, by kind.";
    SERVED = "failsoft_last_good_served_total", Counter: "Answers out of memory, by whether they were fresh.";
    LEVEL_CHANGES = "failsoft_degradation_level_changes_total", Counter: "Changes of the level, down being worse.";
    TASK_CHANGES = "failsoft_supervisor_task_changes_total", Counter: "Tasks that stalled or came back.";
    STATE = "failsoft_circuit_breaker_state", Gauge: "1 for the state it is in, 0 for the others.";
    STATE_NUMBER = "failsoft_circuit_breaker_state_number", Gauge:
        "0 closed, 1 open, 2 half-open, 3 isolated, 4 disabled, 5 metrics only.";
    REOPENED = "failsoft_circuit_breaker_reopened", Gauge: "Reopenings in a row without closing in between.";
    COUNTED = "failsoft_circuit_breaker_counted_calls", Gauge: "Calls counted in this state.";
    COUNTED_FAILURES = "failsoft_circuit_breaker_counted_failures", Gauge: "Failures counted in this state.";
    PROBES = "failsoft_circuit_breaker_probes", Gauge: "Probes that are out.";
    PERMITS = "failsoft_bulkhead_permits", Gauge: "Permits there are.";
    IN_USE = "failsoft_bulkhead_in_use", Gauge: "Permits in use.";
    QUEUED = "failsoft_bulkhead_queued", Gauge: "Permits that callers wait for.";
    HIGH_WATER = "failsoft_bulkhead_high_water", Gauge: "The most permits that were in use at once.";
    LIMIT = "failsoft_adaptive_limit", Gauge: "Calls at once that are let through.";
    LIMIT_IN_USE = "failsoft_adaptive_limit_in_use", Gauge: "Calls under way.";
    LIMIT_QUEUED = "failsoft_adaptive_limit_queued", Gauge: "Callers that wait.";
    AVAILABLE = "failsoft_rate_limiter_available", Gauge: "Permits that could be taken now; below zero, those taken ahead.";
    RATE = "failsoft_adaptive_rate_per_second", Gauge: "Calls a second that are let through; infinite while nothing is limited.";
    RATE_MEASURED = "failsoft_adaptive_rate_measured_per_second", Gauge: "Calls a second that were measured.";
    LEVEL = "failsoft_degradation_level", Gauge: "Steps below full.";
    THROTTLED = "failsoft_throttle_rejection_ratio", Gauge: "Probability with which the next call is rejected, 0 to 1.";
    BALANCE = "failsoft_retry_budget_balance", Gauge: "What the budget has left, in its own unit.";
    COALESCED = "failsoft_coalesce_in_flight", Gauge: "Keys that are under way.";
}

/// Tells the recorder what each metric means, which Prometheus shows as its `HELP`. For once, after the recorder has been installed.
pub fn describe() {
    for &(name, kind, text) in ALL {
        match kind {
            Kind::Counter => describe_counter!(name, Measured::Count, text),
            Kind::Gauge => describe_gauge!(name, Measured::Count, text),
        }
    }
    for Unit { plural, total, rejections, in_flight, seconds } in [&CALLS, &ATTEMPTS] {
        describe_counter!(*total, Measured::Count, format!("Finished {plural} by what became of them."));
        describe_counter!(*rejections, Measured::Count, format!("Rejected {plural} by the policy and its reason."));
        describe_gauge!(*in_flight, Measured::Count, format!("Unfinished {plural}."));
        describe_histogram!(*seconds, Measured::Seconds, format!("How long {plural} took, by what became of them."));
    }
}
