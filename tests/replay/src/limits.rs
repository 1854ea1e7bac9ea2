//! The script's parts about limits: of calls per time, of calls at once, of retries and of hedges.

use core::fmt::{self, Debug, Write};
use core::time::Duration;

use failsoft_core::adaptive::{
    self, AdaptiveLimit, Aimd, Algorithm, Gradient, Gradient2, LimitChange, Measured, MovingAverage, NoLoad, NoMemory,
    Percentile, Remembered, Spread, Sum, Trend, Trending, Vegas, Window, Windowed,
};
use failsoft_core::adaptive_rate::{self, AdaptiveRate, RateCut};
use failsoft_core::budget::{
    ConcurrentBudget, ConcurrentConfig, InFlight, QuotaBudget, QuotaConfig, RetryBudget, RetryThrottle,
    RetryThrottleConfig, TokenBudget, TokenConfig, Tokens, Used,
};
use failsoft_core::bulkhead::{NoQueue, Priority, Slots, Tally};
use failsoft_core::cell::CellKind;
use failsoft_core::hedge::{Hedge, Hedged, Idempotent, Quantile};
use failsoft_core::quantile::Sketch;
use failsoft_core::rate_limiter::{self, Arrival, Arrivals, KeyedRateLimiter, RateLimiter};
use failsoft_core::testing::{ManualClock, Recorder, Script, Step, VirtualExecutor};
use failsoft_core::throttle::{self, Throttle};
use failsoft_core::{ConfigError, Outcome, Pipeline, Ratio, Valid, Verdict, valid};

use crate::Draws;

/// The keys that a keyed limiter has places for.
pub const KEYS: usize = 4;

const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn rate_limiter<K: CellKind<Arrival>>(seed: u64, steps: u32, log: &mut impl Write) -> fmt::Result {
    let config = valid!(rate_limiter::Config::new(10, SECOND).with_burst(3).with_queue(4, SECOND).validate());
    let (clock, limiter) = (ManualClock::new(), RateLimiter::<K>::new(config));
    let mut draws = Draws::new(seed, 6);
    let mut reserved = [const { None }; 4];
    writeln!(log, "# rate limiter")?;
    for step in 0..steps {
        clock.advance(draws.pause() / 8);
        let permits = draws.below(5);
        let Some(place) = reserved.get_mut(draws.below(4) as usize) else { continue };
        match (place.take(), draws.below(4)) {
            (Some(reservation), 0..3) => drop(reservation),
            (Some(reservation), _) => rate_limiter::Reservation::commit(reservation),
            (None, 0) => match limiter.reserve(permits, SECOND, &clock) {
                Ok(reservation) => {
                    write!(log, "{step} {permits} at {:?} ", reservation.at())?;
                    *place = Some(reservation);
                }
                Err(rejected) => write!(log, "{step} {permits} {rejected:?} ")?,
            },
            (None, _) => write!(log, "{step} {permits} {:?} ", limiter.try_acquire_many(permits, &clock))?,
        }
        writeln!(log, "{} {:?}", limiter.available(&clock), limiter.available_at(2, &clock))?;
    }
    Ok(())
}

pub(crate) fn keyed<K>(seed: u64, steps: u32, log: &mut impl Write) -> fmt::Result
where
    K: CellKind<Arrivals<u32, KEYS>>,
{
    let config = valid!(rate_limiter::Config::new(4, SECOND).validate());
    let (clock, limiter) = (ManualClock::new(), KeyedRateLimiter::<K, u32, KEYS>::new(config));
    let mut draws = Draws::new(seed, 7);
    writeln!(log, "# rate limiter for keys")?;
    for step in 0..steps {
        clock.advance(draws.pause() / 16);
        // Now and then a flood of keys.
        let key = if draws.below(8) == 0 { draws.below(1_000) } else { draws.below(3) };
        let taken = limiter.try_acquire_many(&key, draws.below(4), &clock);
        writeln!(log, "{step} {key} {taken:?} {} {}", limiter.available(&key, &clock), limiter.keys())?;
    }
    Ok(())
}

pub(crate) fn throttle<K: CellKind<throttle::Window>>(seed: u64, steps: u32, log: &mut impl Write) -> fmt::Result {
    let config = throttle::Config::new().with_period(10 * SECOND).with_minimum_requests(5).with_aggression(2);
    let config = config.validate().map_err(|_| fmt::Error)?;
    let (clock, throttle) = (ManualClock::new(), Throttle::<K>::new(config));
    let mut draws = Draws::new(seed, 8);
    writeln!(log, "# throttle")?;
    for step in 0..steps {
        clock.advance(draws.pause() / 4);
        let sick = (step / 64) % 2 == 0;
        let random = draws.below(u32::MAX);
        match throttle.try_acquire(&clock, random) {
            Ok(()) => throttle.record(!sick || draws.below(4) == 0, &clock),
            Err(rejected) => write!(log, "{rejected:?} ")?,
        }
        writeln!(log, "{step} {} {:?}", throttle.probability(&clock), throttle.requests(&clock))?;
    }
    Ok(())
}

/// Calls that overlap, on a budget.
fn budget<B: RetryBudget>(
    name: &str,
    budget: &B,
    balance: impl Fn(&ManualClock) -> u32,
    (seed, steps): (u64, u32),
    log: &mut impl Write,
) -> fmt::Result {
    let clock = ManualClock::new();
    let mut draws = Draws::new(seed, 9);
    let mut open: [Option<B::Spent>; 6] = [const { None }; 6];
    writeln!(log, "# budget: {name}")?;
    for step in 0..steps {
        clock.advance(draws.pause() / 8);
        let Some(place) = open.get_mut(draws.below(6) as usize) else { continue };
        let cost = u16::try_from(draws.below(4)).unwrap_or(0);
        match (place.take(), draws.below(8)) {
            (None, 0) => *place = Some(budget.join(&&clock)),
            (None, _) => *place = Some(budget.begin(&&clock)),
            (Some(spent), 0) => budget.end(spent, Outcome::Success),
            (Some(spent), 1) => budget.end(spent, Outcome::Failure),
            (Some(spent), 2) => budget.end(spent, Outcome::Ignored),
            (Some(mut spent), _) => {
                let paid = budget.try_retry(&mut spent, Verdict::TRANSIENT.with_cost(cost), &&clock);
                write!(log, "retry {paid} ")?;
                *place = Some(spent);
            }
        }
        writeln!(log, "{step} {}", balance(&clock))?;
    }
    Ok(())
}

pub(crate) fn budgets<W, T>(seed: u64, steps: u32, log: &mut impl Write) -> fmt::Result
where
    W: CellKind<Used> + CellKind<InFlight>,
    T: CellKind<Tokens>,
{
    let tokens = TokenBudget::<T>::new(valid!(TokenConfig::new().with_minimum_per_second(1).validate()));
    budget("tokens", &tokens, |clock| tokens.balance(&clock), (seed, steps), log)?;
    let quota = QuotaBudget::<W>::new(valid!(QuotaConfig::new().with_capacity(20).validate()));
    budget("quota", &quota, |_| quota.balance(), (seed, steps), log)?;
    let throttle = RetryThrottle::<W>::new(valid!(RetryThrottleConfig::new().validate()));
    budget("throttle", &throttle, |_| throttle.thousandths(), (seed, steps), log)?;
    let in_flight = ConcurrentBudget::<W>::new(valid!(ConcurrentConfig::new().with_minimum_concurrency(1).validate()));
    budget("in flight", &in_flight, |_| in_flight.in_flight().retries, (seed, steps), log)
}

pub(crate) fn hedge<T>(seed: u64, steps: u32, log: &mut impl Write) -> fmt::Result
where
    T: CellKind<Sketch> + CellKind<Tokens>,
{
    let delay = Quantile::new(Ratio::percent(80), Duration::from_millis(50)).with_window(40).with_minimum(5);
    let delay = delay.validate().map_err(|_| fmt::Error)?;
    let budget = TokenBudget::<T>::new(valid!(TokenConfig::new().validate()));
    let events = Recorder::<Hedged, 8>::new();
    let hedge = Hedge::<T, 2, _, _, _>::with_budget(delay, Idempotent, &events, &budget);
    let executor = VirtualExecutor::<8>::seeded(seed);
    let pipeline = Pipeline::new(&executor).layer(&hedge);
    let mut draws = Draws::new(seed, 10);
    writeln!(log, "# hedge")?;
    for call in 0..steps {
        let mut step = || match draws.below(8) {
            0 => Step::Fail,
            1 => Step::FailAfter(Duration::from_millis(draws.below(200).into())),
            2 => Step::SucceedAfter(Duration::from_millis(draws.below(900).into())),
            _ => Step::SucceedAfter(Duration::from_millis(draws.below(40).into())),
        };
        let script = [step(), step(), step()];
        let service = Script::new(&script);
        let result = executor.run(pipeline.call(|_| service.call(&executor)));
        writeln!(log, "{call} {result:?} after {:?}, {:?} from now on", executor.elapsed(), hedge.delay())?;
        for event in events.take() {
            writeln!(log, "  {event:?}")?;
        }
    }
    Ok(())
}

fn adaptive<W, T, A>(
    name: &str,
    algorithm: Result<Valid<A>, ConfigError>,
    (seed, steps): (u64, u32),
    log: &mut impl Write,
) -> fmt::Result
where
    A: Algorithm,
    A::Memory: Debug,
    W: CellKind<Slots> + CellKind<Tally>,
    T: CellKind<Remembered<A::Memory>>,
{
    let settings = algorithm.and_then(|algorithm| adaptive::Config::new(algorithm).with_limits(1, 4, 12).validate());
    let Ok(settings) = settings else { return writeln!(log, "{name}: refused") };
    let (clock, events) = (ManualClock::new(), Recorder::<LimitChange, 4>::new());
    let limit = AdaptiveLimit::<W, T, A, NoQueue, _>::with_observer(settings, &events);
    let mut draws = Draws::new(seed, 11);
    let mut held = [const { None }; 12];
    writeln!(log, "# adaptive limit: {name}")?;
    for step in 0..steps {
        // Fast for a while, slow for a while.
        let slow = (step / 128) % 2;
        clock.advance(Duration::from_millis(u64::from(draws.below(4 + slow * 40))));
        let Some(place) = held.get_mut(draws.below(12) as usize) else { continue };
        match (place.take(), draws.below(16)) {
            (Some(permit), 0) => adaptive::Permit::dropped(permit),
            (Some(permit), 1) => permit.ignore(),
            (Some(permit), 2) => drop(permit),
            (Some(permit), _) => permit.success(),
            (None, draw) => {
                let priority = if draw < 4 { Priority::LOW } else { Priority::CRITICAL };
                match limit.try_acquire_at(priority, &clock) {
                    Ok(permit) => *place = Some(permit),
                    Err(rejected) => write!(log, "{rejected:?} ")?,
                }
            }
        }
        writeln!(log, "{step} {} of {}", limit.snapshot().in_use, limit.limit())?;
        for event in events.take() {
            writeln!(log, "  {event:?}")?;
        }
    }
    writeln!(log, "{:?}", limit.memory())
}

pub(crate) fn adaptives<W, T>(seed: u64, steps: u32, log: &mut impl Write) -> fmt::Result
where
    W: CellKind<Slots> + CellKind<Tally>,
    T: CellKind<Remembered<NoMemory>>
        + CellKind<Remembered<NoLoad>>
        + CellKind<Remembered<Measured>>
        + CellKind<Remembered<Window<MovingAverage, Sum>>>
        + CellKind<Remembered<Window<Trending, Spread>>>,
{
    let aimd = Aimd::new().with_timeout(Duration::from_millis(120));
    adaptive::<W, T, _>("AIMD", aimd.validate(), (seed, steps), log)?;
    adaptive::<W, T, _>("Vegas", Vegas::new().with_probe_multiplier(4).validate(), (seed, steps), log)?;
    let window = |shortest: u64| (Duration::from_millis(shortest), SECOND);
    let (shortest, longest) = window(50);
    let gradient2 = Gradient2::new().validate().and_then(|algorithm| {
        Windowed::new(algorithm).with_window(shortest, longest).with_minimum_samples(4).validate()
    });
    adaptive::<W, T, _>("Gradient2 in windows", gradient2, (seed, steps), log)?;
    let quantile = Percentile::new(Ratio::percent(90)).map_err(|_| fmt::Error)?;
    let trend = Trend::new().with_stabilisation(SECOND).validate().and_then(|algorithm| {
        let windows = Windowed::new(algorithm).with_summary(quantile);
        windows.with_window(shortest, longest).with_minimum_samples(2).validate()
    });
    adaptive::<W, T, _>("trend in windows", trend, (seed, steps), log)?;
    let gradient = Gradient::new(seed).with_measured_calls(8).with_measure_interval(2 * SECOND);
    adaptive::<W, T, _>("gradient", gradient.validate(), (seed, steps), log)
}

pub(crate) fn adaptive_rate<T: CellKind<adaptive_rate::State>>(
    seed: u64,
    steps: u32,
    log: &mut impl Write,
) -> fmt::Result {
    let config = valid!(adaptive_rate::Config::new().with_settling(Duration::from_millis(100)).validate());
    let (clock, events) = (ManualClock::new(), Recorder::<RateCut, 4>::new());
    let limiter = AdaptiveRate::<T, _>::with_observer(config, &events);
    let mut draws = Draws::new(seed, 12);
    writeln!(log, "# adaptive rate")?;
    for step in 0..steps {
        clock.advance(draws.pause() / 4);
        match limiter.try_acquire(&clock) {
            Ok(()) => limiter.record(draws.below(24) == 0, &clock),
            Err(rejected) => write!(log, "{rejected:?} ")?,
        }
        writeln!(log, "{step} {:?}", limiter.snapshot())?;
        for event in events.take() {
            writeln!(log, "  {event:?}")?;
        }
    }
    Ok(())
}
