//! Policies in each other around a future that is ready at once.

use core::future::{Ready, ready};
use core::time::Duration;
use std::sync::Arc;

use execution_policy::{CircuitBreaker, ConcurrencyLimit, DefaultCore, ExecutionPolicy, ExecutionPolicyBuilder, Retry};
use failsoft_measure::subjects::{self, work};
use failsoft_tokio::PipelineLayer;
use layered::{Layer as _, Service as _};
use seatbelt::ResilienceContext;
use tower::ServiceBuilder;
use tower_resilience_bulkhead::BulkheadLayer;
use tower_resilience_circuitbreaker::CircuitBreakerLayer;
use tower_resilience_retry::RetryLayer;
use tower_resilience_timelimiter::TimeLimiterLayer;

use crate::floor;
use crate::harness::{Bench, answer};
use crate::service::{self, Answer, Ask, Backend, Why};
use crate::table::Subject;

const OURS: &str = "failsoft, timeout + retry + bulkhead + breaker";

const LIMIT: Duration = Duration::from_secs(30);
const PERMITS: usize = 64;

const fn like(name: &'static str) -> Subject {
    Subject { name, like: OURS }
}

/// Retries what failed, three times.
#[derive(Clone)]
struct Again(u32);

impl<E> tower::retry::Policy<Ask, (), E> for Again {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Ask, result: &mut Result<(), E>) -> Option<Ready<()>> {
        result.as_ref().err()?;
        self.0 = self.0.checked_sub(1)?;
        Some(ready(()))
    }

    fn clone_request(&mut self, ask: &Ask) -> Option<Ask> {
        Some(*ask)
    }
}

fn tower() -> impl tower::Service<Ask> + Clone + Send + Sync {
    let layers = ServiceBuilder::new().timeout(LIMIT).retry(Again(3)).concurrency_limit(PERMITS);
    layers.service(Backend)
}

fn tower_resilience() -> impl tower::Service<Ask> + Clone + Send + Sync {
    let bulkhead = BulkheadLayer::builder().max_concurrent_calls(PERMITS).reject_when_full().build().expect("valid");
    let breaker = CircuitBreakerLayer::builder().consecutive_failures(5).build().expect("valid");
    let layers = ServiceBuilder::new()
        .layer(TimeLimiterLayer::builder().timeout_duration(LIMIT).build())
        .layer(RetryLayer::builder().max_attempts(3).exponential_backoff(Duration::from_millis(100)).build())
        .layer(bulkhead)
        .layer(breaker);
    layers.service(Backend)
}

fn seatbelt() -> impl layered::Service<Ask, Out = Answer> {
    let context = ResilienceContext::new(&*service::TICK);
    let breaker = seatbelt::breaker::Breaker::layer("breaker", &context)
        .recovery_with(|answer, _| service::recovery(answer))
        .rejected_input_error(|_, _| Why::Rejected);
    let retry = seatbelt::retry::Retry::layer("retry", &context)
        .clone_input()
        .recovery_with(|answer, _| service::recovery(answer));
    let timeout =
        seatbelt::timeout::Timeout::layer("timeout", &context).timeout(LIMIT).timeout_error(|_| Why::TimedOut);
    timeout.layer(retry.layer(breaker.layer(Backend)))
}

fn execution_policy() -> ExecutionPolicy<DefaultCore, (), Why> {
    ExecutionPolicyBuilder::new()
        .total_timeout(LIMIT)
        .retry(Retry::exponential().max_attempts(3))
        .concurrency_limit(ConcurrencyLimit::operations(PERMITS).reject())
        .circuit_breaker(CircuitBreaker::consecutive_failures(5))
        .build()
}

pub(crate) fn measure(bench: &mut Bench) {
    bench.section("pipeline around a ready future", floor::CLOCK);
    bench.service(like("no policy at all"), || Backend);
    let ours = || subjects::pipeline(subjects::compartment(), subjects::consecutive());
    bench.shared(like(OURS), ours, |pipeline| subjects::call_pipeline(pipeline, |_| ready(work(true))));
    bench.service(like("failsoft, the same as a layer of tower's"), || {
        PipelineLayer::new(Arc::new(subjects::pipeline(subjects::compartment(), subjects::consecutive())))
            .layer(Backend)
    });
    bench.service(like("tower, timeout + retry + limit"), tower);
    bench.shared(like("seatbelt, timeout + retry + breaker"), seatbelt, |service| {
        answer(service.execute(Ask::Succeed)).is_ok()
    });
    bench.shared(like("execution-policy, timeout + retry + limit + breaker"), execution_policy, |policy| {
        answer(policy.execute(async |_| work(true).map_err(|()| Why::Failed))).is_ok()
    });
    bench.service(like("tower-resilience, timeout + retry + bulkhead + breaker"), tower_resilience);
}
