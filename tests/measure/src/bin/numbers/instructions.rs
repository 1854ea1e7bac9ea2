//! Exact instruction counts: this program again, as callgrind's child.

use core::cell::Cell;
use core::future::ready;
use core::hint::black_box;
use core::time::Duration;
use std::process::Command;

use failsoft_measure::subjects;
use failsoft_tokio::{Instant, Pipeline, Timeout, Tokio};

use crate::{NOT_MEASURED, Row};

/// Calls in the shorter of the two runs whose difference counts.
const CALLS: u64 = 1_000;

/// The loops whose counts are in the budget: what is done in each call.
pub(crate) const LOOPS: [&str; 10] = [
    "consecutive",
    "window",
    "consecutive-mixed",
    "window-mixed",
    "rejected",
    "limiter",
    "bulkhead",
    "delay",
    "pipeline",
    "tower",
];

/// Runs a named loop; false for a name or a count that there is not.
pub(crate) fn run_loop(name: &str, count: &str) -> bool {
    let Ok(count) = count.parse::<u64>() else { return false };
    let breaker = subjects::consecutive();
    let window = subjects::window();
    let (recloser, failsafe) = (subjects::recloser(), subjects::failsafe());
    let bulkhead = subjects::compartment();
    let pipeline = subjects::pipeline(&bulkhead, &breaker);
    let (bare, timed) = (Pipeline::new(Tokio), Pipeline::new(Tokio).layer(Timeout::default()));
    let (retried, bounded) = (subjects::retried(), subjects::retried().layer(&bulkhead));
    let alone = Box::leak(Box::new(Pipeline::new(Tokio).layer(subjects::consecutive())));
    let (mut no_op, mut layered) = (subjects::NoOp, subjects::breaker_layer(alone));
    let (limiter, backoff, calls) = (subjects::limiter(), subjects::backoff(), Cell::new(0_u32));
    // One call in ten fails.
    let mixed = || {
        calls.set(calls.get().wrapping_add(1));
        !calls.get().is_multiple_of(10)
    };
    match name {
        "nothing" => repeat(count, || subjects::work(true).is_ok()),
        "consecutive" => repeat(count, || subjects::call(&breaker, true)),
        "window" => repeat(count, || subjects::call(&window, true)),
        "recloser" => repeat(count, || subjects::call_recloser(&recloser, true)),
        "failsafe" => repeat(count, || subjects::call_failsafe(&failsafe, true)),
        "consecutive-mixed" => repeat(count, || subjects::call(&breaker, mixed())),
        "window-mixed" => repeat(count, || subjects::call(&window, mixed())),
        "rejected" => {
            breaker.open_until(Instant::MAX);
            repeat(count, || breaker.try_acquire(black_box(Instant::START)).is_err());
        }
        "limiter" => repeat(count, || limiter.try_acquire(&black_box(Instant::START)).is_ok()),
        "bulkhead" => repeat(count, || bulkhead.try_acquire().is_ok()),
        "delay" => repeat(count, || !backoff.jittered(3, Duration::ZERO, black_box(7_919)).is_zero()),
        "bare" => repeat(count, || subjects::call_pipeline(&bare, |_| ready(subjects::work(true)))),
        "timeout" => repeat(count, || subjects::call_pipeline(&timed, |_| ready(subjects::work(true)))),
        "timeout-retry" => repeat(count, || subjects::call_pipeline(&retried, |_| ready(subjects::work(true)))),
        "timeout-retry-bulkhead" => {
            repeat(count, || subjects::call_pipeline(&bounded, |_| ready(subjects::work(true))));
        }
        "pipeline" => repeat(count, || subjects::call_pipeline(&pipeline, |_| ready(subjects::work(true)))),
        "no-op-service" => repeat(count, || subjects::call_service(&mut no_op)),
        "tower" => repeat(count, || subjects::call_service(&mut layered)),
        _ => return false,
    }
    true
}

/// A loop of its own for each, so that the call is a part of it, as it is a part of a real caller: what would be counted besides, of a
/// function around it, is not the policy's.
#[inline(always)]
fn repeat(count: u64, mut work: impl FnMut() -> bool) {
    // Both windows are full before it counts.
    for _ in 0..count.saturating_add(100) {
        black_box(work());
    }
}

/// Instructions per call: the difference of two runs, so that neither start nor end counts.
pub(crate) fn per_call(name: &str) -> Result<u64, String> {
    let (short, long) = (total(name, CALLS)?, total(name, 2 * CALLS)?);
    Ok(long.saturating_sub(short) / CALLS)
}

fn total(name: &str, count: u64) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["--loop", name, &count.to_string()])
        .output()
        .map_err(|error| format!("valgrind does not start ({error}): install it"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find(|line| line.contains("Collected :"));
    line.and_then(|line| line.split_whitespace().last()?.parse().ok())
        .ok_or_else(|| format!("callgrind said no count:\n{text}"))
}

pub(crate) fn rows() -> Vec<Row> {
    vec![closed(), pipeline()]
}

fn closed() -> Row {
    let counted = (|| {
        let nothing = per_call("nothing")?;
        let of = |name| per_call(name).map(|count| count.saturating_sub(nothing));
        Ok::<_, String>((of("consecutive")?, of("window")?, of("recloser")?, of("failsafe")?))
    })();
    let (figure, reached, elsewhere) = match counted {
        Ok((consecutive, window, recloser, failsafe)) => (
            format!("{consecutive} instructions ({window} with a window)"),
            consecutive <= 20,
            format!("recloser {recloser}, failsafe {failsafe}"),
        ),
        Err(problem) => (String::from(NOT_MEASURED), false, problem),
    };
    Row { what: "closed breaker, success", figure, reach: "≤ 20 instructions", reached: Some(reached), elsewhere }
}

/// The whole, and what each of its layers adds.
fn pipeline() -> Row {
    let counted = (|| {
        let [nothing, bare, timeout, retry, bulkhead, whole] =
            ["nothing", "bare", "timeout", "timeout-retry", "timeout-retry-bulkhead", "pipeline"].map(per_call);
        let (nothing, bare, timeout, retry, bulkhead, whole) = (nothing?, bare?, timeout?, retry?, bulkhead?, whole?);
        let more = [(nothing, bare), (bare, timeout), (timeout, retry), (retry, bulkhead), (bulkhead, whole)];
        Ok::<_, String>((whole.saturating_sub(nothing), more.map(|(less, more)| more.saturating_sub(less))))
    })();
    let (figure, elsewhere) = match counted {
        Ok((whole, [bare, timeout, retry, bulkhead, breaker])) => (
            format!("{whole} instructions"),
            format!(
                "without policies {bare}; timeout {timeout} more, retry {retry}, bulkhead {bulkhead}, breaker {breaker}"
            ),
        ),
        Err(problem) => (String::from(NOT_MEASURED), problem),
    };
    Row { what: "pipeline around a ready future", figure, reach: "", reached: None, elsewhere }
}
