//! What holds for every policy as a part of a pipeline.

use core::cell::RefCell;
use std::string::ToString;

use super::*;
use crate::Ratio;
use crate::adaptive::{self, AdaptiveLimit, Aimd};
use crate::adaptive_rate::{self, AdaptiveRate};
use crate::bulkhead::Priority;
use crate::chaos::{self, Chaos, Fault};
use crate::fallback::Fallback;
use crate::hedge::{FixedDelay, Hedge, Idempotent};
use crate::last_good::{self, KeyedLastGood, LastGood};
use crate::rate_limiter::{self, KeyedRateLimiter, RateLimiter};
use crate::throttle::{self, Throttle};

type Injected = fn(chaos::Hit) -> Scripted;

/// One of each, around nothing.
struct Policies {
    retry: RetryPolicy,
    bulkhead: Bulkhead<Local, LocalQueue<4>>,
    breaker: CircuitBreaker<Local>,
    hub: Degradation<Local, 1>,
    limiter: RateLimiter<Local>,
    keyed: KeyedRateLimiter<Local, u32, 2>,
    adaptive: AdaptiveLimit<Local, Local, Aimd, LocalQueue<4>>,
    rate: AdaptiveRate<Local>,
    throttle: Throttle<Local>,
    hedge: Hedge<Local, 1>,
    last: LastGood<Local, u32>,
    last_of: KeyedLastGood<Local, u32, u32, 2>,
    chaos: Chaos<Local, Fault<Injected>>,
}

impl Policies {
    fn new() -> Self {
        let retry = retry::Config::new().with_max_attempts(2).with_backoff(Backoff::none());
        let queued = bulkhead::Config::new(3).with_queue(2, ms(40)).with_newest_first();
        let limits = adaptive::Config::new(valid!(Aimd::new().validate())).with_limits(1, 5, 10);
        let quota = rate_limiter::Config::new(10, ms(1_000)).with_queue(2, ms(500));
        let hub = Degradation::new(valid!(degradation::Config::new().validate()));
        hub.register("service", Service::new(Criticality::Important)).expect("there is room");
        Self {
            retry: RetryPolicy::new(retry.validate().expect("it makes sense")),
            bulkhead: Bulkhead::new(queued.validate().expect("it makes sense")),
            breaker: CircuitBreaker::new(valid!(circuit_breaker::Config::new().validate())),
            hub,
            limiter: RateLimiter::new(quota.validate().expect("it makes sense")),
            keyed: KeyedRateLimiter::new(valid!(rate_limiter::Config::new(10, ms(1_000)).validate())),
            adaptive: AdaptiveLimit::new(
                limits.with_queue(4, ms(40)).with_newest_first().validate().expect("it makes sense"),
            ),
            rate: AdaptiveRate::new(valid!(adaptive_rate::Config::new().validate())),
            throttle: Throttle::new(valid!(throttle::Config::new().validate())),
            hedge: Hedge::new(FixedDelay::new(ms(1_000)), Idempotent),
            last: LastGood::new(valid!(last_good::Config::new().validate())),
            last_of: KeyedLastGood::new(valid!(last_good::Config::new().validate())),
            chaos: Chaos::new(
                valid!(chaos::Config::new(1).with_rate(Ratio::ZERO).validate()),
                Fault::new(|_| Scripted { call: 0 }),
            ),
        }
    }
}

/// The first attempt hangs within the layer until a timeout gives it up, the second one succeeds.
fn starts_afresh<'r, L: Layer<u32, Scripted, &'r Rig>>(rig: &'r Rig, policies: &Policies, layer: L) {
    let steps = [Step::Hang, Step::Succeed];
    let service = Script::new(&steps);
    let name = Pipeline::new(rig).layer(&layer).to_string();
    let pipeline = Pipeline::new(rig).layer(&policies.retry).layer(Timeout::new(ms(40))).layer_in_any_order(&layer);
    assert_eq!(rig.run(pipeline.call(|_| service.call(rig))), Ok(2), "{name}");
    assert_eq!((service.calls(), service.in_flight(), rig.live()), (2, 0, 0), "{name}");
}

#[test]
fn an_attempt_that_is_given_up_leaves_nothing_behind_for_the_next_one() {
    let (rig, policies) = (Rig::new(), Policies::new());
    let of = &policies;
    starts_afresh(&rig, of, Bare);
    starts_afresh(&rig, of, Timeout::new(ms(1_000)));
    starts_afresh(&rig, of, &of.breaker);
    starts_afresh(&rig, of, &of.bulkhead);
    starts_afresh(&rig, of, of.bulkhead.weighing(2));
    starts_afresh(&rig, of, &of.limiter);
    starts_afresh(&rig, of, of.limiter.weighing(2));
    starts_afresh(&rig, of, of.keyed.of(1));
    starts_afresh(&rig, of, &of.adaptive);
    starts_afresh(&rig, of, of.adaptive.with_priority(Priority::HIGH));
    starts_afresh(&rig, of, &of.rate);
    starts_afresh(&rig, of, &of.throttle);
    starts_afresh(&rig, of, of.hub.feature(DegradationLevel::Degraded));
    starts_afresh(&rig, of, of.hub.monitor("service").expect("it is registered"));
    starts_afresh(&rig, of, &of.hedge);
    starts_afresh(&rig, of, &of.last);
    starts_afresh(&rig, of, of.last_of.of(1));
    starts_afresh(&rig, of, Fallback::new(Err));
    starts_afresh(&rig, of, FallbackTo::new(async |failure| Err(failure)));
    starts_afresh(&rig, of, &of.chaos);
    assert_eq!((of.bulkhead.snapshot().in_use, of.adaptive.snapshot().in_use), (0, 0));
}

#[test]
fn every_part_says_what_it_is_and_how_it_is_set() {
    let (rig, policies) = (Rig::new(), Policies::new());
    let of = &policies;
    let pipeline = Pipeline::new(&rig)
        .layer(Fallback::new(Err::<u32, Failure<Scripted>>))
        .layer(FallbackTo::new(async |failure: Failure<Scripted>| Err::<u32, _>(failure)))
        .layer(&of.last)
        .layer(of.last_of.of(1))
        .layer(Timeout::new(ms(1_000)))
        .layer(&of.retry)
        .layer(of.hub.feature(DegradationLevel::Degraded))
        .layer(&of.hedge)
        .layer(&of.limiter)
        .layer(of.limiter.weighing(2))
        .layer(of.keyed.of(1))
        .layer(&of.adaptive)
        .layer(of.adaptive.with_priority(Priority::HIGH))
        .layer(&of.rate)
        .layer(&of.throttle)
        .layer(&of.bulkhead)
        .layer(of.bulkhead.weighing(2))
        .layer(of.bulkhead.weighing(2).with_priority(Priority::HIGH))
        .layer(&of.breaker)
        .layer(of.hub.monitor("service").expect("it is registered"))
        .layer(&of.chaos);
    let expected = "fallback: a value
fallback: another operation
fallback: the last good value, up to 120s old
fallback: the last good value, up to 120s old, for each key
timeout: 1s
retry: 2 attempts, at once
degradation: runs at Degraded or better
hedge: up to 1 more, each after 1s
rate limiter: 10 per 1s, 10 at once, 2 may wait for 500ms
rate limiter: 10 per 1s, 10 at once, 2 may wait for 500ms, 2 for each call
rate limiter: 10 per 1s, 10 at once, for each key
adaptive limit: 1 to 10 calls at once, 5 now, 4 may wait for 40ms, the newest first
adaptive limit: 1 to 10 calls at once, 5 now, 4 may wait for 40ms, the newest first, up to 90 % of it
adaptive rate: 70 % when throttled, 0.5 per second at least, waits 10s at most
throttle: beyond 200 % of what is accepted, over 120s
bulkhead: 3 permits, 2 may wait for 40ms, the newest first
bulkhead: 3 permits, 2 may wait for 40ms, the newest first, 2 for each call
bulkhead: 3 permits, 2 may wait for 40ms, the newest first, 2 for each call, up to 90 % of them
circuit breaker: ConsecutiveFailures { threshold: 5 }, open for 60s, 3 of 3 probes close it
degradation: reports the health of service
chaos: a fault in 0 % of the calls";
    assert_eq!(pipeline.to_string(), expected);
    assert_eq!(Pipeline::new(&rig).to_string(), "", "no part, no line");
}

/// Tells which attempt and which hedge it is asked for.
struct Spy<'s>(&'s RefCell<Vec<(u32, u32)>>);

impl Part for Spy<'_> {
    const ROLE: Role = Role::Other;

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("spy")
    }
}

impl<T, E, X: Executor> Layer<T, E, X> for Spy<'_> {
    type State<I> = I;

    fn idle<I>(&self, inner: I) -> I {
        inner
    }

    fn poll<N: Next<T, E, X>>(
        &self,
        state: Pin<&mut N::State>,
        next: &mut N,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        self.0.borrow_mut().push((scope.attempt(), scope.hedge()));
        next.poll(state, scope, cx)
    }

    fn reset<N: Next<T, E, X>>(&self, state: Pin<&mut N::State>, next: &mut N, executor: &X) {
        next.reset(state, executor);
    }
}

#[test]
fn a_layer_learns_which_attempt_and_which_hedge_it_is_asked_for() {
    let (rig, policies, seen) = (Rig::new(), Policies::new(), RefCell::new(Vec::new()));
    let hedge: Hedge<Local, 2> = Hedge::new(FixedDelay::new(Duration::ZERO), Idempotent);
    let pipeline = Pipeline::new(&rig).layer(&policies.retry).layer(hedge).layer(Spy(&seen));
    let service = Script::new(&[Step::Fail]);
    assert!(rig.run(pipeline.call(|_| service.call(&rig))).is_err());
    let mut seen = seen.into_inner();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]);
}
