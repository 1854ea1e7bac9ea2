use std::string::{String, ToString};
use std::vec::Vec;

use super::*;
use crate::bulkhead::{self, Bulkhead};
use crate::cell::Local;
use crate::circuit_breaker::{self, CircuitBreaker};
use crate::failure::Failure;
use crate::fallback::Fallback;
use crate::retry::{self, RetryPolicy};
use crate::testing::tests::ms;
use crate::testing::{Script, Scripted, Step, VirtualExecutor};
use crate::timeout::Timeout;
use crate::valid;

fn retry() -> RetryPolicy {
    RetryPolicy::new(valid!(retry::Config::new().with_max_attempts(2).validate()))
}

fn breaker() -> CircuitBreaker<Local> {
    CircuitBreaker::new(valid!(circuit_breaker::Config::new().validate()))
}

fn bulkhead() -> Bulkhead<Local> {
    Bulkhead::new(valid!(bulkhead::Config::new(1).validate()))
}

fn fallback() -> Fallback<impl Fn(Failure<Scripted>) -> Result<u32, Failure<Scripted>>> {
    Fallback::new(|_: Failure<Scripted>| Ok(99))
}

fn parts(pipeline: impl ToString) -> Vec<String> {
    pipeline.to_string().lines().map(Into::into).collect()
}

const ALL: [&str; 6] = [
    "fallback: a value",
    "timeout: 900ms",
    "retry: 2 attempts, exponential from 1s by 200 %, at most 60s, ± 10 %",
    "bulkhead: 1 permits",
    "circuit breaker: ConsecutiveFailures { threshold: 5 }, open for 60s, 3 of 3 probes close it",
    "timeout: 100ms",
];

#[test]
fn the_parts_end_up_in_the_standard_order_whatever_order_they_are_named_in() {
    let one = Standard::new()
        .with_fallback(fallback())
        .with_total_timeout(Timeout::new(ms(900)))
        .with_retry(retry())
        .with_bulkhead(bulkhead())
        .with_breaker(breaker())
        .with_attempt_timeout(Timeout::new(ms(100)));
    let other = Standard::new()
        .with_attempt_timeout(Timeout::new(ms(100)))
        .with_breaker(breaker())
        .with_retry(retry())
        .with_total_timeout(Timeout::new(ms(900)))
        .with_bulkhead(bulkhead())
        .with_fallback(fallback());
    assert_eq!(parts(one.on(())), ALL);
    assert_eq!(parts(other.on(())), ALL);
}

#[test]
fn a_part_that_is_not_named_is_not_there() {
    assert_eq!(parts(Standard::new().on(())), Vec::<String>::new());
    let one = Standard::new().with_breaker(breaker()).with_fallback(fallback()).on(());
    assert_eq!(parts(one), [ALL[0], ALL[4]]);
}

#[test]
fn the_standard_pipeline_does_what_its_parts_do() {
    let executor = VirtualExecutor::new();
    let service = Script::new(&[Step::Hang, Step::Fail, Step::Succeed]);
    let pipeline = Standard::new()
        .with_breaker(breaker())
        .with_retry(RetryPolicy::new(valid!(retry::Config::new().validate())))
        .with_attempt_timeout(Timeout::new(ms(100)))
        .on(&executor);
    assert_eq!(executor.run(pipeline.call(|_| service.call(&executor))), Ok(Ok(3)), "timed out, failed, succeeded");
    assert_eq!(service.calls(), 3);
}
