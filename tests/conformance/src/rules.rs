//! Differences on purpose: the one table of what failsoft does otherwise than the system a vector comes from, and why.
//!
//! A rule goes by dialect and by features of the configuration or the steps, never by a vector's name, and only excuses differences in
//! the keys that it is about.

use crate::number::Decimal;
use crate::tape::{List, Object, Value};
use crate::vector::{Step, Vector};

/// One difference on purpose.
struct Rule {
    pattern: &'static str,
    /// The keys in which the first difference may be.
    keys: &'static [&'static str],
    applies: fn(&Vector<'_>) -> bool,
    reason: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        pattern: "bulkhead",
        keys: &["permits"],
        applies: |vector| more_than(vector, "max_concurrent", failsoft_core::bulkhead::MOST),
        reason: "a bulkhead counts to 2,097,151 permits, since its counters share one word; more are refused when it is configured",
    },
    Rule {
        pattern: "bulkhead",
        keys: &["permits"],
        applies: |vector| is_nothing(vector, "max_concurrent"),
        reason: "a bulkhead through which nothing could ever pass is refused when it is configured",
    },
    Rule {
        pattern: "bulkhead",
        keys: &["granted", "pending", "permit"],
        applies: |vector| vector.steps().any(|step| asks_for_nothing(&step)),
        reason: "whoever asks for no permit at all passes, also where none is left",
    },
    Rule {
        pattern: "circuit_breaker",
        keys: &["permit", "state"],
        applies: |vector| matches!(vector.dialect(), "gobreaker" | "polly8") && succeeds_after_failing(vector),
        reason: "a rate is judged with each outcome: the success that completes the minimum of calls opens too",
    },
    Rule {
        pattern: "circuit_breaker",
        keys: &["counts.consecutive_successes", "counts.requests", "counts.successes"],
        applies: |vector| vector.dialect() == "gobreaker" && vector.has_op("end"),
        reason: "only a change of state begins a generation: when a window of time passes, calls that overlap its end still count",
    },
    Rule {
        pattern: "circuit_breaker",
        keys: &["not_permitted", "permit", "state"],
        applies: |vector| vector.dialect() == "r4j" && asks_when_the_time_is_up(vector),
        reason: "an open period of so long ends when so long has passed, not with the first moment after that",
    },
    Rule {
        pattern: "circuit_breaker",
        keys: &["error", "state"],
        applies: |vector| vector.dialect() == "r4j" && vector.steps().any(|step| step.op == "force" && fails(&step)),
        reason: "by hand, any state may follow any other: an operator who wants probes now need not open the breaker first",
    },
    Rule {
        pattern: "composition",
        keys: &["attempts", "breaker_failed", "final", "inner_calls", "retries"],
        applies: |vector| vector.dialect() == "failsafe" && retries_rejections(vector),
        reason: "the rejections of one's own policies are not retried before these admit calls again: they would only use up attempts",
    },
    Rule {
        pattern: "config",
        keys: &["error"],
        applies: |vector| builds_with(vector, &["break_ms", "open_ms", "slow_call_ms"], is_short),
        reason: "a period may be as short as one likes, and even none: what is only unwise is not refused",
    },
    Rule {
        pattern: "config",
        keys: &["error"],
        applies: |vector| builds_with(vector, &["max_concurrent"], |permits| permits == Decimal::ZERO),
        reason: "a bulkhead through which nothing could ever pass is refused when it is configured",
    },
    Rule {
        pattern: "config",
        keys: &["failure_rate", "failure_ratio", "slow_rate"],
        applies: |vector| builds_with(vector, &["failure_rate", "failure_ratio", "slow_rate"], |_| true),
        reason: "shares are whole hundredths of a percent, so that they need no floating point",
    },
    Rule {
        pattern: "config",
        keys: &["half_open_max"],
        applies: |vector| vector.dialect() == "gobreaker",
        reason: "the default is failsoft's own: three successes close the breaker, one proves little",
    },
    Rule {
        pattern: "config",
        keys: &["error"],
        applies: |vector| vector.dialect() == "r4j" && vector.has_op("delay"),
        reason: "asking for the delay before the first attempt is no error but gives zero: there is nothing to wait for",
    },
    Rule {
        pattern: "failure_accrual",
        keys: &["mark_dead_ms"],
        applies: averages_over_time,
        reason: "an average over time judges from its minimum of calls on, and does not wait for a whole window first",
    },
    Rule {
        pattern: "rate_limiter",
        keys: &["permits"],
        applies: |vector| is_nothing(vector, "rate_per_s"),
        reason: "a limiter through which nothing could ever pass is refused when it is configured",
    },
    Rule {
        pattern: "rate_limiter",
        keys: &["ok"],
        applies: |vector| is(vector, "kind", &["leaky_bucket"]) && more_than(vector, "reserve", 0),
        reason: "what was taken is over after its time to live, however often somebody looked in between",
    },
    Rule {
        pattern: "rate_limiter",
        keys: &["available", "granted", "next_permit_in_ms", "permit"],
        applies: |vector| vector.dialect() == "r4j" && vector.has_op("set_limit"),
        reason: "another quota holds at once, and not from the next cycle on",
    },
    Rule {
        pattern: "rate_limiter",
        keys: &["available", "granted", "pending"],
        applies: |vector| {
            is(vector, "kind", &["token_bucket"]) && more_than(vector, "capacity", 1) && vector.has_op("acquire_wait")
        },
        reason: "whoever waits takes what comes as it comes: no token is lost meanwhile because the bucket is full",
    },
    Rule {
        pattern: "rate_limiter",
        keys: &["retry_after_ms"],
        applies: |vector| is(vector, "kind", &["token_bucket"]) && more_than(vector, "tokens_per_period", 1),
        reason: "tokens come one by one, evenly: not all of a period's at its end",
    },
    Rule {
        pattern: "rate_limiter",
        keys: &["available", "next_permit_in_ms"],
        applies: |vector| vector.dialect() == "r4j" && vector.has_op("cancel"),
        reason: "whoever stops waiting gives its reservation back: it would be lost for everyone",
    },
    Rule {
        pattern: "rate_limiter",
        keys: &["available", "granted", "next_permit_in_ms", "pending", "permit", "wait_ms"],
        applies: |vector| {
            is(vector, "kind", &["bursty", "fixed_cycle", "fixed_window", "sliding_window"])
                && more_than(vector, "limit", 1)
        },
        reason: "permits come back one by one, evenly: where a whole cycle's come back at its border, twice as many pass around it",
    },
    Rule {
        pattern: "rate_limiter",
        keys: &["available", "permit", "wait_ms"],
        applies: |vector| is(vector, "kind", &["smooth"]),
        reason: "an interval runs from one call to the next, not on a grid, on which two calls can be as good as together",
    },
    Rule {
        pattern: "rate_limiter",
        keys: &["available", "evicted", "granted", "pending", "permit"],
        applies: |vector| is(vector, "order", &["newest_first"]),
        reason: "whoever waits for a rate limiter has been told when its turn comes, and keeps it: the newest does not go first",
    },
    Rule {
        pattern: "rate_limiter",
        keys: &["warm_up"],
        applies: |vector| is(vector, "kind", &["warm_up"]),
        reason: "a quota is a promise: it does not shrink while calls are few (a load that a cold service can't take is a limit of calls at once)",
    },
    Rule {
        pattern: "retry",
        keys: &["delays_ms", "slept_ms"],
        applies: |vector| vector.dialect() == "grpc" && vector.steps().any(|step| is_pushed_back(&step)),
        reason: "a delay follows from the attempt's number: one that the server gave does not start the backoff over",
    },
    Rule {
        pattern: "retry_budget",
        keys: &["capacity"],
        applies: |vector| is_nothing(vector, "quota"),
        reason: "a budget without a single retry is refused when it is configured",
    },
    Rule {
        pattern: "retry_budget",
        keys: &["ok"],
        applies: |vector| vector.dialect() == "failsafe" && vector.config.get("max_rate").is_some(),
        reason: "a share of the calls in flight is a limit: the retry that would go beyond it is refused, not the one after it",
    },
    Rule {
        pattern: "retry_delay",
        keys: &["delay_ms"],
        applies: |vector| vector.steps().any(|step| step.expect.object().is_some_and(outlasts_the_clock)),
        reason: "times and delays end after 584 years",
    },
    Rule {
        pattern: "retry_delay",
        keys: &["delay_ms"],
        applies: |vector| vector.dialect() == "aws2026" && vector.steps().any(|step| has_hint(&step)),
        reason: "a server that says when to come back is believed, however long that is, up to the deadline",
    },
    Rule {
        pattern: "retry_delay",
        keys: &["delay_ms", "exhausted"],
        applies: |vector| vector.config.get("take_until_total_ms").is_some(),
        reason: "no delay outlasts the total time: failsoft gives up at once rather than sleep past the limit once more",
    },
    Rule {
        pattern: "window",
        keys: &["type"],
        applies: |vector| vector.has_op("choose"),
        reason: "how many buckets a window has is part of its type, so that its memory is known: nothing chooses at run time",
    },
];

/// The reasons of all rules.
pub fn reasons() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|rule| rule.reason)
}

/// The reason of the rule that a vector's first difference, which is about `key`, falls under.
#[must_use]
pub fn reason(vector: &Vector<'_>, key: &str) -> Option<&'static str> {
    let mut rules = RULES.iter().filter(|rule| rule.pattern == vector.pattern && rule.keys.contains(&key));
    rules.find(|rule| (rule.applies)(vector)).map(|rule| rule.reason)
}

fn more_than(vector: &Vector<'_>, key: &'static str, most: u32) -> bool {
    matches!(vector.config.count(key), Ok(Some(count)) if count > most)
}

fn is(vector: &Vector<'_>, key: &'static str, any_of: &[&str]) -> bool {
    matches!(vector.config.text(key), Ok(Some(text)) if any_of.contains(&text))
}

fn is_nothing(vector: &Vector<'_>, key: &'static str) -> bool {
    matches!(vector.config.count(key), Ok(Some(0)))
}

fn asks_for_nothing(step: &Step<'_>) -> bool {
    matches!(step.amount("permits", &["key", "token"]), Ok(Some(permits)) if permits == Decimal::ZERO)
}

fn outlasts_the_clock(expected: Object<'_>) -> bool {
    matches!(expected.number("delay_ms"), Ok(Some(delay)) if delay.nanos().is_none())
}

fn has_hint(step: &Step<'_>) -> bool {
    step.arg.object().is_some_and(|args| args.get("retry_after_ms").is_some())
}

/// Whether a success follows a failure, so that it can be the call that a rate begins with.
fn succeeds_after_failing(vector: &Vector<'_>) -> bool {
    vector.steps().zip(vector.steps().skip(1)).any(|(step, next)| step.op == "failure" && next.op == "success")
}

/// Whether a call is asked for exactly as long after another step as the breaker opens.
fn asks_when_the_time_is_up(vector: &Vector<'_>) -> bool {
    let Ok(Some(open_for)) = vector.config.span("open_ms") else { return false };
    let at = |step: Step<'_>| step.at().ok().flatten();
    let mut asked = vector.steps().filter(|step| matches!(step.op, "acquire" | "call")).filter_map(at);
    asked.any(|asked| vector.steps().filter_map(at).any(|opened| opened.saturating_add(open_for) == asked))
}

fn fails(step: &Step<'_>) -> bool {
    step.expect.object().is_some_and(|expected| expected.get("error").is_some())
}

/// Whether a retry is around whatever rejects calls.
fn retries_rejections(vector: &Vector<'_>) -> bool {
    let order = vector.config.list("order_outer_to_inner").unwrap_or(List::EMPTY);
    let mut names = order.iter().filter_map(Value::text);
    names.any(|policy| policy == "retry")
        && names.any(|policy| matches!(policy, "bulkhead" | "circuit_breaker" | "rate_limiter"))
}

fn averages_over_time(vector: &Vector<'_>) -> bool {
    let conditions = vector.config.list("any_of").unwrap_or(List::EMPTY);
    let mut all = conditions.iter().filter_map(Value::object).chain([vector.config]);
    all.any(|condition| condition.get("ema_window_ms").is_some())
}

/// Whether it is about the building of something with such a setting.
fn builds_with(vector: &Vector<'_>, keys: &[&'static str], fits: fn(Decimal) -> bool) -> bool {
    let has = |settings: Object<'_>| keys.iter().any(|key| settings.get(key).and_then(Value::number).is_some_and(fits));
    vector.steps().any(|step| step.op == "build" && has(step.arg.object().unwrap_or(vector.config)))
}

/// Less than half a second.
fn is_short(millis: Decimal) -> bool {
    millis.nanos().is_some_and(|nanos| nanos < 500_000_000)
}

/// Whether a server said when to come back.
fn is_pushed_back(step: &Step<'_>) -> bool {
    let outcomes = step.arg.list().unwrap_or(List::EMPTY);
    outcomes.iter().filter_map(Value::object).any(|outcome| outcome.get("server_delay_ms").is_some())
}
