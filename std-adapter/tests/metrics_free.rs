//! A metered call allocates nothing.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test may end with a panic")]

use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use failsoft_tokio::circuit_breaker::ConsecutiveFailures;
use failsoft_tokio::{
    Backoff, CircuitBreaker, Metered, Metrics, Pipeline, RetryPolicy, Threads, circuit_breaker, retry, valid,
};

/// What comes of a call that never waits.
fn at_once<T>(call: impl Future<Output = T>) -> T {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("it waits"),
    }
}

#[test]
fn a_metered_call_allocates_nothing_whatever_becomes_of_it() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        let breaker: CircuitBreaker<ConsecutiveFailures, _> = CircuitBreaker::with_observer(
            valid!(circuit_breaker::Config::new().validate()),
            Metrics::new("free".to_owned()),
        );
        let twice = retry::Config::new().with_max_attempts(2).with_backoff(Backoff::none()).validate().unwrap();
        let pipeline = Pipeline::new(Threads)
            .layer(Metered::calls("free".to_owned()))
            .layer(RetryPolicy::with_observer(twice, Metrics::new("free")))
            .layer(Metered::attempts("free".to_owned()))
            .layer(&breaker);
        let round = || {
            breaker.reset();
            at_once(pipeline.call(async |_| Ok::<_, ()>(()))).unwrap();
            for _ in 0..3 {
                at_once(pipeline.call(async |_| Err::<(), _>(()))).unwrap_err();
            }
            assert!(at_once(pipeline.call(async |_| Ok::<_, ()>(()))).unwrap_err().is_rejected());
        };
        // What is made with the first of its kind.
        round();
        let info = allocation_counter::measure(round);
        assert_eq!(info.count_total, 0, "{info:?}");
    });
    assert!(recorder.handle().render().contains("failsoft_calls_total{name=\"free\",outcome=\"failure\"} 6\n"));
}
