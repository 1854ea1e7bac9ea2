//! Rate limiters that let everyone through: a permit a nanosecond, and four billion at once.

use core::hint::black_box;
use core::time::Duration;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use failsoft_measure::subjects::{self, Still};
use failsoft_tokio::{Clock, Tokio};
use governor::clock::MonotonicClock;
use tower::limit::rate::{Rate, RateLimit};
use tower_resilience_ratelimiter::RateLimiterLayer;

use crate::floor;
use crate::harness::Bench;
use crate::service::{Ask, Backend, call};
use crate::table::Subject;

const OURS: Subject = like("failsoft");

const fn like(name: &'static str) -> Subject {
    Subject { name, like: "failsoft" }
}

fn reliakit() -> reliakit_ratelimit::RateLimiter {
    reliakit_ratelimit::RateLimiter::new(u64::from(u32::MAX), 1, 1)
}

fn tower() -> RateLimit<Backend> {
    RateLimit::new(Backend, Rate::new(u64::MAX, Duration::from_secs(1)))
}

fn tower_resilience() -> impl tower::Service<Ask> + Clone + Send + Sync {
    let layer = RateLimiterLayer::builder().limit_for_period(usize::MAX >> 3).refresh_period(Duration::from_secs(1));
    tower::Layer::layer(&layer.build().expect("valid"), Backend)
}

pub(crate) fn measure(bench: &mut Bench) {
    bench.section("rate limiter, time given", floor::EXCHANGE);
    let now = Tokio.now();
    bench.shared(OURS, subjects::limiter, |limiter| limiter.try_acquire(&black_box(now)).is_ok());
    bench.shared(like("governor"), || subjects::governor(Still), |limiter| limiter.check().is_ok());
    bench.owned(like("reliakit, &mut"), reliakit, |limiter| limiter.try_acquire_one(black_box(1)));

    bench.section("rate limiter, with its clock", floor::CLOCK);
    bench.shared(OURS, subjects::limiter, |limiter| limiter.try_acquire(&Tokio).is_ok());
    bench.shared(like("governor"), || subjects::governor(MonotonicClock), |limiter| limiter.check().is_ok());
    let origin = Instant::now();
    bench.shared(
        like("reliakit, in a Mutex"),
        || Mutex::new(reliakit()),
        |limiter| {
            let now = u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
            limiter.lock().unwrap_or_else(PoisonError::into_inner).try_acquire_one(now)
        },
    );
    bench.owned(like("tower"), tower, |service| call(service, Ask::Succeed).is_ok());
    bench.service(like("tower-resilience"), tower_resilience);
}
