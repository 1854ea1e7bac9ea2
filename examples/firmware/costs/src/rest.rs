//! The policies other than breakers, bulkheads and what is composed of them; in the cells that an interrupt shares.

use core::fmt;
use core::future::{Future, ready};
use core::hint::black_box;
use core::time::Duration;

use costs::{CONSECUTIVE, COUNT_WINDOW, EVERYTHING, Ending, SLOTS, THREE_ATTEMPTS, TIME_WINDOW, Tiny, WINDOW, call};
use failsoft_embassy::adaptive::{self, Aimd, Gradient2};
use failsoft_embassy::budget::{ConcurrentConfig, QuotaConfig, RetryBudget, RetryThrottleConfig, TokenConfig};
use failsoft_embassy::cell::CellKind;
use failsoft_embassy::chaos::{self, Fault, Hit};
use failsoft_embassy::circuit_breaker::{Config, Saved, State, Trip};
use failsoft_embassy::hedge::{FixedDelay, Idempotent, Quantile};
use failsoft_embassy::retained::{Retain, Retained};
use failsoft_embassy::supervisor::{self, Task};
use failsoft_embassy::{
    AdaptiveLimit, AdaptiveRate, Chaos, CircuitBreaker, ConcurrentBudget, CriticalSection, Failure, Fallback, Hedge,
    Instant, LastGood, Outcome, Pipeline, QuotaBudget, RateLimiter, Ratio, RetryPolicy, RetryThrottle, Supervisor,
    Throttle, Timeout, TokenBudget, Valid, Verdict, adaptive_rate, last_good, rate_limiter, throttle, valid,
};

use crate::{NAMES, NOW, SHARED, Subject};

/// A second after [`NOW`].
const LATER: Instant = Instant::from_millis(1_005);

/// A call that succeeds, or doesn't.
fn answer(good: bool) -> impl Future<Output = Result<u32, u32>> {
    ready(black_box(if good { Ok(1) } else { Err(2) }))
}

/// A call through a pipeline of one layer.
macro_rules! through {
    ($layer:expr, $good:expr) => {{
        let pipeline = Pipeline::new(Tiny).layer($layer);
        move || {
            let pipeline = black_box(&pipeline);
            black_box(Tiny.run(pipeline.call(|_| answer($good))).is_ok());
        }
    }};
}

impl Subject<'_> {
    /// One more policy, of this size.
    fn policy<P>(&mut self, policy: &'static str) -> fmt::Result {
        (self.policy, self.cell) = (policy, SHARED);
        self.figure("ram", "", size_of::<P>())
    }

    /// The calls that are most often made through a breaker whose state takes long to prepare.
    fn large_breaker<T: Copy + Trip>(&mut self, policy: &'static str, config: Valid<Config<T>>) -> fmt::Result
    where
        CriticalSection: CellKind<State<T::Meter>>,
    {
        self.policy::<CircuitBreaker<T>>(policy)?;
        let breaker = CircuitBreaker::<T>::new(config);
        let breaker = black_box(&breaker);
        let call = |ending| {
            black_box(call(black_box(breaker), ending, black_box(NOW)));
        };
        let well = || {
            breaker.reset();
            (0..WINDOW).for_each(|_| call(Ending::Success));
        };
        well();
        self.operation("closed-success", &|| {}, &mut || call(Ending::Success))?;
        self.operation("closed-failure", &well, &mut || call(Ending::Failure))?;
        breaker.isolate();
        self.operation("open-rejected", &|| {}, &mut || call(Ending::Success))
    }

    fn limiter(&mut self) -> fmt::Result {
        const EVERY_SECOND: rate_limiter::Config = rate_limiter::Config::new(1, Duration::from_secs(1));
        self.policy::<RateLimiter>("limiter")?;
        let one = RateLimiter::new(valid!(EVERY_SECOND.validate()));
        let many = RateLimiter::new(valid!(EVERY_SECOND.with_burst(1_000_000).validate()));
        let take = |limiter: &RateLimiter| {
            black_box(black_box(limiter).try_acquire(&black_box(NOW)).is_ok());
        };
        self.operation("permitted", &|| {}, &mut || take(&many))?;
        take(&one);
        self.operation("rejected", &|| {}, &mut || take(&one))
    }

    fn throttle(&mut self) -> fmt::Result {
        self.policy::<Throttle>("throttle")?;
        let throttle = Throttle::new(valid!(throttle::Config::new().with_minimum_requests(1).validate()));
        let throttle = black_box(&throttle);
        for _ in 0..9 {
            throttle.record(false, &NOW);
        }
        self.operation("asked", &|| {}, &mut || {
            black_box(throttle.try_acquire(&NOW, black_box(0)).is_ok());
        })?;
        self.operation("recorded", &|| {}, &mut || throttle.record(black_box(true), &NOW))
    }

    /// A call that is retried once, as a budget sees it.
    fn budget<B: RetryBudget>(&mut self, policy: &'static str, budget: &B) -> fmt::Result {
        self.policy::<B>(policy)?;
        self.operation("call-retried-once", &|| {}, &mut || {
            let budget = black_box(budget);
            let mut spent = budget.begin(&NOW);
            black_box(budget.try_retry(&mut spent, Verdict::TRANSIENT, &NOW));
            budget.end(spent, Outcome::Success);
        })
    }

    fn budgets(&mut self) -> fmt::Result {
        self.budget("token-budget", &TokenBudget::new(valid!(TokenConfig::new().validate())))?;
        self.budget("quota-budget", &QuotaBudget::new(valid!(QuotaConfig::new().validate())))?;
        self.budget("retry-throttle", &RetryThrottle::new(valid!(RetryThrottleConfig::new().validate())))?;
        self.budget("concurrent-budget", &ConcurrentBudget::new(valid!(ConcurrentConfig::new().validate())))
    }

    fn layers(&mut self) -> fmt::Result {
        self.policy::<Timeout>("timeout")?;
        self.operation("call", &|| {}, &mut through!(Timeout::new(Duration::from_secs(2)), true))?;

        self.policy::<RetryPolicy>("retry-layer")?;
        self.operation("call", &|| {}, &mut through!(RetryPolicy::new(THREE_ATTEMPTS), true))?;
        self.operation("call-that-fails", &|| {}, &mut through!(RetryPolicy::new(THREE_ATTEMPTS), false))?;

        self.policy::<Hedge>("hedge")?;
        let hedge = Hedge::<1>::new(FixedDelay::new(Duration::from_millis(50)), Idempotent);
        self.operation("call", &|| {}, &mut through!(&hedge, true))?;

        self.policy::<Hedge<1, Quantile>>("hedge-quantile")?;
        let ninety_five = valid!(Quantile::new(Ratio::percent(95), Duration::from_millis(50)).validate());
        let hedge = Hedge::<1, Quantile>::new(ninety_five, Idempotent);
        self.operation("call", &|| {}, &mut through!(&hedge, true))?;

        self.policy::<()>("fallback")?;
        let instead = || Fallback::new(|_: Failure<u32>| Ok(7));
        self.operation("call", &|| {}, &mut through!(instead(), true))?;
        self.operation("call-that-fails", &|| {}, &mut through!(instead(), false))?;

        self.policy::<Chaos<Fault<fn(Hit) -> u32>>>("chaos")?;
        let settings = valid!(chaos::Config::new(1).validate());
        let chaos: Chaos<Fault<fn(Hit) -> u32>> = Chaos::new(settings, Fault::new(|hit| hit.call));
        self.operation("call", &|| {}, &mut through!(&chaos, true))
    }

    fn last_good(&mut self) -> fmt::Result {
        self.policy::<LastGood<u32>>("last-good")?;
        let up_to_a_minute =
            last_good::Config::new().with_fresh_for(Duration::from_secs(5)).with_max_age(Duration::from_secs(60));
        let reading = LastGood::<u32>::new(up_to_a_minute.validate().map_err(|_| fmt::Error)?);
        let reading = black_box(&reading);
        self.operation("remembered", &|| {}, &mut || reading.remember(&black_box(21), &NOW))?;
        self.operation("served", &|| {}, &mut || {
            black_box(reading.get(&black_box(NOW)));
        })
    }

    fn adaptive(&mut self) -> fmt::Result {
        const AIMD: Valid<Aimd> = valid!(Aimd::new().validate());
        const GRADIENT: Valid<Gradient2> = valid!(Gradient2::new().validate());
        self.policy::<AdaptiveLimit<Aimd, 0>>("aimd")?;
        let limit: AdaptiveLimit<Aimd, 0> =
            AdaptiveLimit::new(valid!(adaptive::Config::new(AIMD).with_limits(1, SLOTS, 8).validate()));
        self.operation("call", &|| {}, &mut through!(&limit, true))?;

        self.policy::<AdaptiveLimit<Gradient2, 0>>("gradient2")?;
        let limit: AdaptiveLimit<Gradient2, 0> =
            AdaptiveLimit::new(valid!(adaptive::Config::new(GRADIENT).with_limits(1, SLOTS, 8).validate()));
        self.operation("call", &|| {}, &mut through!(&limit, true))?;

        self.policy::<AdaptiveRate>("adaptive-rate")?;
        let rate = AdaptiveRate::new(valid!(adaptive_rate::Config::new().validate()));
        let rate = black_box(&rate);
        self.operation("asked", &|| {}, &mut || {
            black_box(rate.try_acquire(&NOW).is_ok());
        })?;
        self.operation("recorded", &|| {}, &mut || rate.record(black_box(true), &NOW))
    }

    /// The last of the tasks checks in.
    fn supervisor<const N: usize>(&mut self, policy: &'static str) -> fmt::Result {
        self.policy::<Supervisor<N>>(policy)?;
        let tasks = Supervisor::<N>::new(valid!(supervisor::Config::new().validate()));
        let tasks = black_box(&tasks);
        let mut last = None;
        for name in NAMES.iter().take(N) {
            let task = tasks.register(name, Task::critical(Duration::from_millis(100)), &NOW);
            last = Some(task.map_err(|_| fmt::Error)?);
        }
        let last = last.ok_or(fmt::Error)?;
        let last = black_box(&last);
        self.operation("check-in", &|| last.check_in(&NOW), &mut || last.check_in(&black_box(NOW)))?;
        self.operation("check-in-too-late", &|| last.check_in(&NOW), &mut || last.check_in(&black_box(LATER)))?;
        self.operation("nothing-due", &|| last.check_in(&NOW), &mut || {
            tasks.handle_timeout(&black_box(NOW));
            black_box(tasks.is_alive());
        })
    }

    fn retained<T: Retain>(&mut self, policy: &'static str, value: T) -> fmt::Result {
        self.policy::<Retained<T>>(policy)?;
        let memory = Retained::<T>::new();
        let memory = black_box(&memory);
        self.operation("stored", &|| memory.store(value), &mut || memory.store(black_box(value)))?;
        self.operation("loaded", &|| {}, &mut || {
            black_box(memory.load().is_some());
        })
    }

    fn saved(&mut self) -> fmt::Result {
        self.policy::<Saved>("saved-breaker")?;
        let breaker: CircuitBreaker = CircuitBreaker::new(CONSECUTIVE);
        let breaker = black_box(&breaker);
        breaker.open_until(LATER);
        let saved = breaker.save(&NOW);
        self.operation("saved", &|| {}, &mut || {
            black_box(breaker.save(&black_box(NOW)));
        })?;
        self.operation("restored", &|| {}, &mut || breaker.restore(black_box(saved), &black_box(NOW)))
    }

    /// All of them.
    pub(crate) fn rest(&mut self) -> fmt::Result {
        self.large_breaker("count-window", COUNT_WINDOW)?;
        self.large_breaker("time-window", TIME_WINDOW)?;
        self.large_breaker("everything", EVERYTHING)?;
        self.limiter()?;
        self.throttle()?;
        self.budgets()?;
        self.layers()?;
        self.last_good()?;
        self.adaptive()?;
        self.supervisor::<2>("supervisor-2")?;
        self.supervisor::<8>("supervisor-8")?;
        self.retained("retained-1-word", 7_u32)?;
        self.retained("retained-6-words", (7_u32, 7_u64, [7_u32; 3]))?;
        self.saved()
    }
}
