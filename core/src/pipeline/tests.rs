use std::boxed::Box;
use std::rc::Rc;
use std::string::String;
use std::sync::Arc;
use std::thread;
use std::vec::Vec;

use super::*;
use crate::backoff::{Backoff, Jitter};
use crate::budget::{QuotaBudget, QuotaConfig};
use crate::bulkhead::{self, Bulkhead, LocalQueue};
use crate::cell::Local;
use crate::circuit_breaker::{self, CircuitBreaker, StateKind};
use crate::degradation::{self, Criticality, Degradation, DegradationLevel, Service};
use crate::failure::{Reason, Stop};
use crate::fallback::FallbackTo;
use crate::hedge::{FixedDelay, Hedge, Idempotent};
use crate::rate_limiter::{self, RateLimiter};
use crate::retry::{self, RetryPolicy};
use crate::testing::tests::{Endless, Rig, Threaded, ThreadedQueue, at, block_on, explode, explodes, ms, poll_once};
use crate::testing::{Script, Scripted, Step, VirtualExecutor};
use crate::time::Clock as _;
use crate::timeout::Timeout;
use crate::valid;

mod parts;
mod repeatable;

const FALLBACK: u32 = 99;

/// 10 ms, 20 ms, …
const DELAYS: Backoff = Backoff::exponential(ms(10)).with_jitter(Jitter::None);

type Calling<'w> = Pin<Box<dyn Future<Output = Result<u32, Failure<Scripted>>> + 'w>>;

/// Every policy there is, around a service, in the recommended order.
///
/// The breaker starts half-open, so that every call is a probe whose loss would show.
struct World {
    rig: Rig,
    bulkhead: Bulkhead<Local, LocalQueue<4>>,
    breaker: CircuitBreaker<Local>,
    hub: Degradation<Local, 1>,
    service: Script<'static>,
}

impl World {
    fn new(steps: &'static [Step]) -> Self {
        let world = Self {
            rig: Rig::new(),
            bulkhead: Bulkhead::new(valid!(bulkhead::Config::new(1).with_queue(4, ms(40)).validate())),
            breaker: CircuitBreaker::new(valid!(circuit_breaker::Config::new().with_trials(1, 3).validate())),
            hub: Degradation::new(valid!(degradation::Config::new().validate())),
            service: Script::new(steps),
        };
        world.breaker.open_until(Instant::START);
        world.hub.register("service", Service::new(Criticality::Important)).expect("there is room");
        world
    }

    fn pipeline(&self) -> Pipeline<&Rig, impl Layer<u32, Scripted, &Rig>> {
        let retry = retry::Config::new().with_backoff(DELAYS).with_max_attempts(3);
        let rig = &self.rig;
        Pipeline::new(rig)
            .layer(FallbackTo::new(move |failure: Failure<Scripted>| async move {
                rig.sleep_until(rig.now().saturating_add(ms(7))).await;
                if failure.attempts == 3 { Ok(FALLBACK) } else { Err(failure) }
            }))
            .layer(Timeout::new(ms(500)))
            .layer(RetryPolicy::new(retry.validate().expect("it makes sense")))
            .layer(self.hub.feature(DegradationLevel::Degraded))
            .layer(&self.bulkhead)
            .layer(&self.breaker)
            .layer(self.hub.monitor("service").expect("it is registered"))
            .layer(Timeout::new(ms(50)))
    }

    fn call(&self) -> Calling<'_> {
        self.call_with(|_| self.service.call(&self.rig))
    }

    fn call_with<'w, F, Fut>(&'w self, operation: F) -> Calling<'w>
    where
        F: FnMut(Attempt) -> Fut + 'w,
        Fut: Future<Output = Result<u32, Scripted>> + 'w,
    {
        Box::pin(Call::new(Rc::new(self.pipeline()), operation))
    }

    /// Nothing is held any more, by anybody.
    fn assert_clean(&self, when: &str) {
        let bulkhead::Snapshot { in_use, queued, .. } = self.bulkhead.snapshot();
        assert_eq!((in_use, queued), (0, 0), "{when}: permits");
        assert_eq!(self.breaker.snapshot(&self.rig).probes, 0, "{when}: probes");
        assert_eq!(self.service.in_flight(), 0, "{when}: calls in the service");
        assert_eq!(self.rig.live(), 0, "{when}: timers");
    }

    fn assert_usable(&self) {
        self.breaker.reset();
        assert_eq!(self.rig.run(self.call_with(async |_| Ok(1))), Ok(1));
        self.assert_clean("afterwards");
    }

    /// Where a call stands that is under way.
    fn stands(&self) -> &'static str {
        match (self.bulkhead.snapshot().queued, self.service.in_flight(), self.service.calls()) {
            (0, 0, 0) => "not polled",
            (1, ..) => "in the queue",
            (_, 1, _) => "in the service",
            (_, _, 3) => "in the fallback",
            _ => "before a retry",
        }
    }
}

/// Polls a call so many times while the time goes by, then drops it. Says where it stood, or that it had ended.
fn cancelled_after(polls: u32, world: &World) -> &'static str {
    let mut other = world.bulkhead.try_acquire().ok();
    let mut call = world.call();
    for poll in 1..=polls {
        if poll_once(call.as_mut()).is_ready() {
            return "ended";
        }
        // Every other poll is one that nothing asked for.
        if poll % 2 == 0 {
            world.rig.advance(ms(5));
        }
        if world.rig.elapsed() >= ms(15) {
            other = None;
        }
    }
    let place = world.stands();
    drop(other);
    place
}

fn places_of_cancellation(steps: &'static [Step]) -> Vec<&'static str> {
    let mut seen = Vec::new();
    for polls in 0.. {
        let world = World::new(steps);
        let place = cancelled_after(polls, &world);
        world.assert_clean(&std::format!("dropped after {polls} polls, {place}"));
        if seen.last() != Some(&place) {
            seen.push(place);
        }
        if place == "ended" {
            break;
        }
    }
    seen
}

#[test]
fn a_call_dropped_at_any_await_leaves_nothing_behind() {
    static STEPS: [Step; 3] = [Step::FailAfter(ms(10)), Step::Hang, Step::SucceedAfter(ms(20))];
    let seen = places_of_cancellation(&STEPS);
    let expected = [
        "not polled",
        "in the queue",
        // … since it was granted its permit.
        "not polled",
        "in the service",
        "before a retry",
        "in the service",
        "before a retry",
        "in the service",
        "ended",
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_call_dropped_in_its_fallback_leaves_nothing_behind() {
    static STEPS: [Step; 1] = [Step::FailAfter(ms(10))];
    let seen = places_of_cancellation(&STEPS);
    assert_eq!(seen[seen.len() - 2..], ["in the fallback", "ended"]);
}

#[test]
fn everything_composed_waits_retries_and_answers() {
    static STEPS: [Step; 3] = [Step::FailAfter(ms(10)), Step::Hang, Step::SucceedAfter(ms(20))];
    let world = World::new(&STEPS);
    assert_eq!(world.rig.run(world.call()), Ok(3));
    assert_eq!(world.rig.elapsed(), ms(10 + 10 + 50 + 20 + 20));
    assert_eq!(world.breaker.state(), StateKind::Closed);
    assert_eq!(world.hub.is_healthy("service"), Ok(false), "two failures, one good call");
    world.assert_clean("at the end");
}

#[test]
fn everything_composed_falls_back_when_it_gives_up() {
    static STEPS: [Step; 1] = [Step::FailAfter(ms(10))];
    let world = World::new(&STEPS);
    assert_eq!(world.rig.run(world.call()), Ok(FALLBACK));
    assert_eq!(world.rig.elapsed(), ms(10 + 10 + 10 + 20 + 10 + 7));
    assert_eq!(world.breaker.state(), StateKind::Open);
    let failure = world.rig.run(world.call()).expect_err("the fallback hands it back");
    assert_eq!(failure.rejected().map(|rejected| rejected.reason()), Some(Reason::Open));
    assert_eq!((failure.attempts, failure.stop, world.service.calls()), (1, Some(Stop::Rejected), 3));
    world.assert_clean("at the end");
}

#[test]
fn an_operation_that_is_ready_at_once_costs_neither_clock_nor_timer() {
    let rig = Rig::new();
    let bulkhead: Bulkhead<Local> = Bulkhead::new(valid!(bulkhead::Config::new(1).validate()));
    let breaker: CircuitBreaker<Local> = CircuitBreaker::new(valid!(circuit_breaker::Config::new().validate()));
    let pipeline = Pipeline::new(&rig)
        .layer(Timeout::new(ms(500)))
        .layer(RetryPolicy::new(valid!(retry::Config::new().with_total_time(ms(900)).validate())))
        .layer(&bulkhead)
        .layer(&breaker)
        .layer(Timeout::new(ms(50)));
    assert_eq!(rig.run(pipeline.call(async |_| Ok::<_, ()>(1))), Ok(1));
    assert_eq!((rig.reads(), rig.sleeps()), (0, 0));
}

#[test]
fn polls_that_nothing_asked_for_have_no_effect() {
    static STEPS: [Step; 3] = [Step::FailAfter(ms(10)), Step::Hang, Step::SucceedAfter(ms(20))];
    let [calm, noisy] = [1, 1_000].map(|polls| {
        let world = World::new(&STEPS);
        let mut call = world.call();
        let result = loop {
            let polled = (0..polls).map(|_| poll_once(call.as_mut())).find(Poll::is_ready);
            match polled {
                Some(result) => break result,
                None => assert!(world.rig.jump(), "it waits for nothing"),
            }
        };
        let (tally, elapsed) = (world.bulkhead.snapshot(), world.rig.elapsed());
        (result, tally, elapsed, world.service.calls(), world.rig.sleeps(), world.rig.reads(), (&world.rig).random())
    });
    assert_eq!(calm, noisy);
}

#[test]
fn polls_that_nothing_asked_for_take_nothing_from_a_budget_nor_from_a_quota() {
    static STEPS: [Step; 3] = [Step::FailAfter(ms(10)), Step::FailAfter(ms(10)), Step::SucceedAfter(ms(20))];
    let [calm, noisy] = [1, 1_000].map(|polls| {
        let rig = Rig::new();
        let budget = QuotaBudget::<Local>::new(valid!(QuotaConfig::new().validate()));
        let quota =
            rate_limiter::Config::new(10, Duration::from_secs(1)).with_burst(1).with_queue(4, Duration::from_secs(9));
        let limiter = RateLimiter::<Local>::new(quota.validate().expect("it makes sense"));
        let hedge: Hedge<Local, 1, FixedDelay, (), &QuotaBudget<Local>> =
            Hedge::with_budget(FixedDelay::new(ms(5)), Idempotent, (), &budget);
        let retry = retry::Config::new().with_backoff(Backoff::constant(ms(7))).validate().expect("it makes sense");
        let pipeline =
            Pipeline::new(&rig).layer(RetryPolicy::with_budget(retry, (), &budget)).layer(&hedge).layer(&limiter);
        let service = Script::new(&STEPS);
        // Once to use up what may pass at once: the one after it has to wait.
        limiter.try_acquire(&rig).expect("the first");
        let mut call = Box::pin(pipeline.call(|_| service.call(&rig)));
        let result = loop {
            match (0..polls).map(|_| poll_once(call.as_mut())).find(Poll::is_ready) {
                Some(result) => break result,
                None => assert!(rig.jump(), "it waits for nothing"),
            }
        };
        (result, budget.balance(), limiter.available(&rig), service.calls(), rig.elapsed())
    });
    assert_eq!(calm, noisy);
    assert!(calm.3 > 2, "hedged and retried: {calm:?}");
}

#[test]
fn a_panic_of_the_operation_at_any_attempt_gives_everything_back() {
    for fatal in [1, 2, 3] {
        let world = World::new(&[]);
        let rig = &world.rig;
        let panics = explodes(|| {
            rig.run(world.call_with(|attempt| async move {
                rig.sleep_until(rig.now().saturating_add(ms(1))).await;
                if attempt.number() == fatal { explode() } else { Err(Scripted { call: 0 }) }
            }))
        });
        assert!(panics, "attempt {fatal}");
        world.assert_clean(&std::format!("panic in attempt {fatal}"));
        world.assert_usable();
    }
}

#[test]
fn a_panic_before_there_is_a_future_gives_everything_back() {
    for fatal in [1, 2, 3] {
        let world = World::new(&[]);
        let operation = |attempt: Attempt| {
            if attempt.number() == fatal { explode() } else { core::future::ready(Err(Scripted { call: 0 })) }
        };
        assert!(explodes(|| world.rig.run(world.call_with(operation))), "attempt {fatal}");
        world.assert_clean(&std::format!("panic in attempt {fatal}"));
        world.assert_usable();
    }
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !thread::panicking() {
            explode();
        }
    }
}

#[test]
fn a_panic_in_the_drop_of_the_operations_future_gives_everything_back() {
    static SLOW: [Step; 1] = [Step::SucceedAfter(ms(20))];
    static ENDLESS: [Step; 1] = [Step::Hang];
    for (steps, when) in [(&SLOW, "it has answered"), (&ENDLESS, "it has timed out")] {
        let world = World::new(steps);
        let armed = |_| async {
            let _bomb = Bomb;
            let answer = world.service.call(&world.rig).await;
            core::mem::forget(_bomb);
            let _bomb = Bomb;
            answer
        };
        assert!(explodes(|| world.rig.run(world.call_with(armed))), "{when}");
        world.assert_clean(when);
        world.assert_usable();
    }
}

#[test]
fn a_panic_in_the_drop_of_a_cancelled_operation_gives_everything_back() {
    let world = World::new(&[Step::Hang]);
    let mut call = world.call_with(|_| async {
        let _bomb = Bomb;
        world.service.call(&world.rig).await
    });
    assert!(poll_once(call.as_mut()).is_pending());
    assert_eq!((world.bulkhead.snapshot().in_use, world.breaker.snapshot(&world.rig).probes), (1, 1));
    assert!(explodes(move || drop(call)));
    world.assert_clean("cancelled");
    world.assert_usable();
}

#[test]
fn a_panic_of_the_classifier_gives_everything_back() {
    let rig = Rig::new();
    let bulkhead: Bulkhead<Local> = Bulkhead::new(valid!(bulkhead::Config::new(1).validate()));
    let fussy = |_: Result<&u32, &()>| explode();
    let pipeline = Pipeline::new(&rig).layer(&bulkhead).classify(fussy);
    assert!(explodes(|| rig.run(pipeline.call(async |_| Ok(1)))));
    assert_eq!(bulkhead.snapshot().in_use, 0);
}

#[test]
fn the_callers_own_error_comes_back_inside_whatever_it_is() {
    /// Neither `Clone` nor `Error`.
    #[derive(Debug, Eq, PartialEq)]
    struct Mine(String);
    let rig = Rig::new();
    let bulkhead: Bulkhead<Local> = Bulkhead::new(valid!(bulkhead::Config::new(1).validate()));
    let breaker: CircuitBreaker<Local> = CircuitBreaker::new(valid!(circuit_breaker::Config::new().validate()));
    let pipeline = Pipeline::new(&rig)
        .layer(FallbackTo::new(async |failure| Err(failure)))
        .layer(Timeout::new(ms(500)))
        .layer(RetryPolicy::new(retry::Config::new().with_backoff(DELAYS).validate().expect("it makes sense")))
        .layer(&bulkhead)
        .layer(&breaker)
        .layer(Timeout::new(ms(50)));
    let failure = rig
        .run(pipeline.call(async |attempt: Attempt| Err::<(), _>(Mine(std::format!("no. {}", attempt.number())))))
        .expect_err("it always fails");
    assert_eq!((failure.attempts, failure.stop), (3, Some(Stop::Attempts)));
    assert_eq!(failure.into_inner(), Some(Mine("no. 3".into())));
}

#[test]
fn an_attempt_knows_its_number_and_the_deadline_once_it_is_known() {
    let rig = Rig::new();
    let retry = RetryPolicy::new(retry::Config::new().with_backoff(DELAYS).validate().expect("it makes sense"));
    let pipeline = Pipeline::new(&rig).layer(Timeout::new(ms(500))).layer(retry);
    let mut seen = Vec::new();
    let result = rig.run(pipeline.call(|attempt| {
        seen.push((attempt.number(), attempt.deadline()));
        core::future::ready(Err::<(), _>(()))
    }));
    assert!(result.is_err());
    assert_eq!(seen, [(1, None), (2, Some(at(500))), (3, Some(at(500)))]);
}

#[test]
fn nested_retries_multiply_and_the_outer_one_has_the_last_word() {
    let world = World::new(&[Step::Fail]);
    let attempts = |attempts| {
        let config = retry::Config::new().with_max_attempts(attempts).with_backoff(DELAYS);
        RetryPolicy::new(config.validate().expect("it makes sense"))
    };
    let pipeline =
        Pipeline::new(&world.rig).layer(attempts(2)).layer_in_any_order(attempts(4)).layer_in_any_order(attempts(3));
    let failure = world.rig.run(pipeline.call(|_| world.service.call(&world.rig))).expect_err("it always fails");
    assert_eq!((failure.attempts, failure.stop), (2, Some(Stop::Attempts)));
    assert_eq!(failure.inner(), Some(&Scripted { call: 2 * 4 * 3 }));
    assert_eq!(world.rig.live(), 0);
}

#[test]
fn each_call_of_a_pipeline_starts_afresh() {
    let world = World::new(&[Step::Fail]);
    let retry = retry::Config::new().with_backoff(DELAYS).with_total_time(ms(100));
    let pipeline = Pipeline::new(&world.rig).layer(RetryPolicy::new(retry.validate().expect("it makes sense")));
    for began in [0, 30, 60, 90] {
        assert_eq!(world.rig.elapsed(), ms(began));
        let failure = world.rig.run(pipeline.call(|_| world.service.call(&world.rig))).expect_err("it always fails");
        assert_eq!((failure.attempts, failure.stop), (3, Some(Stop::Attempts)));
    }
}

#[test]
fn a_call_that_is_polled_after_its_end_starts_afresh() {
    static STEPS: [Step; 3] = [Step::FailAfter(ms(10)), Step::Hang, Step::SucceedAfter(ms(20))];
    let world = World::new(&STEPS);
    let mut call = world.call();
    for (service_calls, lasts) in [(3, 110), (4, 20)] {
        let began = world.rig.elapsed();
        assert_eq!(world.rig.run(call.as_mut()), Ok(service_calls));
        assert_eq!(world.rig.elapsed(), began + ms(lasts));
        world.assert_clean("after its end");
    }
}

#[test]
fn without_policies_the_operation_runs_once_and_bare() {
    let rig = Rig::new();
    let pipeline = Pipeline::new(&rig);
    assert_eq!(rig.run(pipeline.call(async |attempt: Attempt| Ok::<_, ()>(attempt.number()))), Ok(1));
    let failure = rig.run(pipeline.call(async |_| Err::<(), _>("no"))).expect_err("it fails");
    assert_eq!((failure.inner(), failure.attempts, failure.stop), (Some(&"no"), 0, None));
}

static BULKHEAD: Bulkhead<Threaded, ThreadedQueue<4>> =
    Bulkhead::new(valid!(bulkhead::Config::new(2).with_queue(4, Duration::MAX).validate()));
static BREAKER: CircuitBreaker<Threaded> = CircuitBreaker::new(valid!(circuit_breaker::Config::new().validate()));
static HUB: Degradation<Threaded, 1> = Degradation::new(valid!(degradation::Config::new().validate()));

#[test]
fn a_pipeline_of_references_to_statics_is_static_and_its_calls_may_be_sent() {
    fn is_static<T: Send + Sync + 'static>(value: T) -> T {
        value
    }
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let pipeline = Pipeline::new(Endless)
        .layer(Timeout::default())
        .layer(RetryPolicy::new(valid!(retry::Config::new().validate())))
        .layer(&BULKHEAD)
        .layer(&BREAKER)
        .layer(HUB.feature(DegradationLevel::Full))
        .layer(Timeout::new(ms(50)));
    let pipeline = Arc::new(is_static(pipeline));
    let calls: Vec<_> = (0..4)
        .map(|number| Call::new(Arc::clone(&pipeline), move |_| core::future::ready(Ok::<u32, String>(number))))
        .map(|call| thread::spawn(|| block_on(is_send(call))))
        .collect();
    let answers: Vec<_> = calls.into_iter().map(|call| call.join().expect("it does not panic")).collect();
    assert_eq!(answers, [Ok(0), Ok(1), Ok(2), Ok(3)]);
    assert_eq!(BULKHEAD.snapshot().in_use, 0);
}

/// Of a task the compiler knows types without their lifetimes: what a call is made of must not depend on them.
#[test]
fn a_task_with_a_call_may_be_sent_whose_error_borrows() {
    fn is_send<T: Send>(task: T) -> T {
        task
    }
    async fn ask() -> Result<u32, &'static str> {
        Err("down")
    }
    // Its sleeps never end, so that there is to be none.
    let once = valid!(retry::Config::new().with_max_attempts(1).validate());
    let pipeline = Pipeline::new(Endless).layer(RetryPolicy::new(once));
    let failure = block_on(is_send(async move { pipeline.call(|_| ask()).await })).expect_err("it always fails");
    assert_eq!((failure.inner(), failure.attempts), (Some(&"down"), 1));
}

#[test]
fn a_call_is_as_large_as_its_parts() {
    fn size<X: Executor>(executor: X) -> usize {
        let bulkhead: Bulkhead<Local> = Bulkhead::new(valid!(bulkhead::Config::new(1).validate()));
        let breaker: CircuitBreaker<Local> = CircuitBreaker::new(valid!(circuit_breaker::Config::new().validate()));
        let pipeline = Pipeline::new(executor)
            .layer(Timeout::default())
            .layer(RetryPolicy::new(valid!(retry::Config::new().validate())))
            .layer(&bulkhead)
            .layer(&breaker)
            .layer(Timeout::default());
        size_of_val(&pipeline.call(|_| core::future::ready(Ok::<u32, ()>(1))))
    }
    // The first has sleeps of no size, the second of three words.
    assert_eq!([size(Endless), size(&VirtualExecutor::new())], [240, 320]);
}
