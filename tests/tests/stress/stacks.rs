//! Stacks of policies made up at random, and calls that are given up anywhere: in the end everything is back.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Waker};
use core::time::Duration;

use failsoft_core::budget::{ConcurrentBudget, ConcurrentConfig};
use failsoft_core::bulkhead::{self, Bulkhead, LocalQueue};
use failsoft_core::cell::Local;
use failsoft_core::circuit_breaker::{self, CircuitBreaker, StateKind};
use failsoft_core::fallback::Fallback;
use failsoft_core::hedge::{FixedDelay, Hedge, Idempotent};
use failsoft_core::rate_limiter::{self, RateLimiter};
use failsoft_core::retry::{self, RetryPolicy};
use failsoft_core::testing::{Script, Scripted, Stalled, Step, VirtualExecutor, never};
use failsoft_core::throttle::{self, Throttle};
use failsoft_core::timeout::Timeout;
use failsoft_core::{Clock, Failure, Pipeline, Rng};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const PERMITS: u32 = 2;
const BURST: u32 = 4;

type Budget = ConcurrentBudget<Local>;

/// One of each policy, and what runs them.
struct World {
    executor: VirtualExecutor<64>,
    budget: Budget,
    bulkhead: Bulkhead<Local, LocalQueue<4>>,
    breaker: CircuitBreaker<Local>,
    limiter: RateLimiter<Local>,
    throttle: Throttle<Local>,
}

impl World {
    fn new(seed: u64) -> Self {
        let queue = bulkhead::Config::new(PERMITS).with_queue(4, ms(300));
        let queue = if seed.is_multiple_of(2) { queue } else { queue.with_newest_first() };
        let breaker = circuit_breaker::Config::new().with_open_for(ms(100)).with_half_open_for(ms(500));
        let limiter = rate_limiter::Config::new(BURST, ms(100)).with_queue(4, ms(200));
        let budget = ConcurrentConfig::new().with_minimum_concurrency(3);
        Self {
            executor: VirtualExecutor::seeded(seed),
            budget: ConcurrentBudget::new(budget.validate().expect("it makes sense")),
            bulkhead: Bulkhead::new(queue.validate().expect("it makes sense")),
            breaker: CircuitBreaker::new(breaker.validate().expect("it makes sense")),
            limiter: RateLimiter::new(limiter.validate().expect("it makes sense")),
            throttle: Throttle::new(throttle::Config::new().validate().expect("it makes sense")),
        }
    }

    fn retry(&self) -> RetryPolicy<(), &Budget> {
        let config = retry::Config::new().with_max_attempts(3).with_rejections().validate();
        RetryPolicy::with_budget(config.expect("it makes sense"), (), &self.budget)
    }

    fn hedge(&self) -> Hedge<Local, 2, FixedDelay, (), &Budget> {
        Hedge::with_budget(FixedDelay::new(ms(20)), Idempotent, (), &self.budget)
    }

    fn timeout(&self) -> Timeout {
        Timeout::new(ms(150))
    }

    fn fallback(&self) -> Fallback<impl Fn(Failure<Scripted>) -> Result<u32, Failure<Scripted>> + Copy> {
        Fallback::new(|failure: Failure<Scripted>| if failure.is_rejected() { Ok(0) } else { Err(failure) })
    }

    fn bulkhead(&self) -> &Bulkhead<Local, LocalQueue<4>> {
        &self.bulkhead
    }

    fn breaker(&self) -> &CircuitBreaker<Local> {
        &self.breaker
    }

    fn limiter(&self) -> &RateLimiter<Local> {
        &self.limiter
    }

    fn throttle(&self) -> &Throttle<Local> {
        &self.throttle
    }

    /// Everything is as if there had never been a call.
    fn is_as_new(&self, stack: &str) {
        let bulkhead = self.bulkhead.snapshot();
        assert_eq!((bulkhead.in_use, bulkhead.queued), (0, 0), "{stack}");
        assert!(bulkhead.high_water <= PERMITS, "{stack}: {bulkhead:?}");
        assert_eq!(self.breaker.snapshot(&self.executor).probes, 0, "{stack}");
        let in_flight = self.budget.in_flight();
        assert_eq!((in_flight.calls, in_flight.retries), (0, 0), "{stack}");
        assert_eq!(self.executor.run(never::<()>()), Err(Stalled), "{stack}: a timer is left");
        // After a while the limiter has its burst back, and the breaker closes.
        self.executor.jump_to(self.executor.now().saturating_add(ms(60_000)));
        assert_eq!(self.limiter.available(&self.executor), i64::from(BURST), "{stack}");
        while self.breaker.state() != StateKind::Closed {
            self.breaker.try_acquire(&self.executor).expect("a probe").success();
        }
    }
}

type Calls<'w> = Vec<Pin<Box<dyn Future<Output = ()> + 'w>>>;

/// Polls the calls in any order, and gives about half of them up after a few polls.
fn play(world: &World, rng: &mut Rng, mut calls: Calls<'_>) {
    let mut polls: Vec<_> =
        calls.iter().map(|_| if rng.next().is_multiple_of(2) { rng.next() % 12 } else { u32::MAX }).collect();
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..400 {
        if calls.is_empty() {
            return;
        }
        let index = usize::try_from(rng.next()).expect("64 bits") % calls.len();
        if polls[index] == 0 || calls[index].as_mut().poll(&mut cx).is_ready() {
            drop(calls.swap_remove(index));
            polls.swap_remove(index);
        } else {
            polls[index] = polls[index].saturating_sub(1);
        }
        if rng.next().is_multiple_of(3) {
            world.executor.jump_to(world.executor.now().saturating_add(ms(u64::from(rng.next() % 40))));
        }
    }
    // Whoever is left then is given up.
}

fn any_step(rng: &mut Rng) -> Step {
    let span = ms(u64::from(rng.next() % 200));
    match rng.next() % 6 {
        0 => Step::Succeed,
        1 => Step::Fail,
        2 => Step::SucceedAfter(span),
        3 | 4 => Step::FailAfter(span),
        _ => Step::Hang,
    }
}

macro_rules! stacks {
    ($([$($layer:ident)+])*) => {
        &[$((stringify!($($layer)+), |world: &World, rng: &mut Rng| {
            let steps: [_; 8] = core::array::from_fn(|_| any_step(rng));
            let service = Script::new(&steps);
            let pipeline = Pipeline::new(&world.executor)$(.layer(world.$layer()))+;
            let call = || async { _ = pipeline.call(|_| service.call(&world.executor)).await };
            let calls: Calls<'_> = (0..1 + rng.next() % 12).map(|_| Box::pin(call()) as _).collect();
            play(world, rng, calls);
            assert_eq!(service.in_flight(), 0, "a call is left in the service");
        })),*]
    };
}

type Stack = (&'static str, fn(&World, &mut Rng));

/// Subsets and orders, the outermost first; what defeats itself doesn't compile.
const STACKS: &[Stack] = stacks![
    [retry] [hedge] [timeout] [bulkhead] [breaker] [limiter] [throttle]
    [retry bulkhead] [bulkhead retry] [bulkhead breaker] [breaker bulkhead] [retry breaker] [breaker hedge]
    [hedge limiter] [limiter breaker] [breaker limiter] [timeout retry] [retry timeout] [bulkhead limiter]
    [limiter bulkhead breaker] [breaker limiter bulkhead] [hedge breaker bulkhead] [hedge bulkhead timeout]
    [retry hedge bulkhead] [hedge retry breaker] [fallback retry breaker] [bulkhead fallback timeout retry]
    [retry throttle breaker] [throttle bulkhead limiter] [bulkhead throttle breaker]
    [retry timeout hedge limiter breaker] [timeout bulkhead retry limiter breaker]
    [fallback throttle limiter bulkhead breaker] [hedge throttle breaker bulkhead timeout]
    [timeout retry timeout bulkhead breaker] [timeout retry hedge timeout breaker bulkhead timeout]
    [fallback timeout retry hedge limiter bulkhead breaker timeout]
    [bulkhead timeout fallback retry timeout throttle limiter breaker]
];

#[test]
fn whatever_the_stack_and_wherever_its_calls_are_given_up_everything_comes_back() {
    for (name, run) in STACKS {
        for seed in 0..100 {
            let (world, mut rng) = (World::new(seed), Rng::new(seed));
            // More than once: what one batch leaves the next one finds.
            for _ in 0..3 {
                run(&world, &mut rng);
                world.is_as_new(name);
            }
        }
    }
}
