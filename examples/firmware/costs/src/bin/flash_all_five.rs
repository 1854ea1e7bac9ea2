//! All five patterns composed: degradation, retry, a bulkhead with a queue, a circuit breaker and a timeout, around an
//! operation that may wait, succeed or fail.

#![no_std]
#![no_main]

use core::hint::black_box;
use core::time::Duration;

use costs::{CONSECUTIVE, THREE_ATTEMPTS, Tiny, operation};
use failsoft_embassy::degradation::{self, Criticality, Service};
use failsoft_embassy::{Bulkhead, CircuitBreaker, Degradation, Pipeline, RetryPolicy, Timeout, bulkhead, valid};

static HEALTH: Degradation<3> = Degradation::new(valid!(degradation::Config::new().validate()));
static RETRY: RetryPolicy = RetryPolicy::new(THREE_ATTEMPTS);
static BULKHEAD: Bulkhead =
    Bulkhead::new(valid!(bulkhead::Config::new(1).with_queue(4, Duration::from_millis(200)).validate()));
static BREAKER: CircuitBreaker = CircuitBreaker::new(CONSECUTIVE);
static TIMEOUT: Timeout = Timeout::new(Duration::from_millis(250));

fn call() {
    let _ = black_box(HEALTH.register("sensor", Service::new(black_box(Criticality::Critical))));
    let Ok(monitor) = HEALTH.monitor("sensor") else { return };
    let pipeline = Pipeline::new(Tiny)
        .layer(monitor)
        .layer(black_box(&RETRY))
        .layer(black_box(&BULKHEAD))
        .layer(black_box(&BREAKER))
        .layer(black_box(&TIMEOUT));
    let _ = black_box(Tiny.run(pipeline.call(|_| operation())));
}

costs::flash_image!(call());
