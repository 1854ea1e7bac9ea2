//! One script through every policy and any kind of cell.
//!
//! [`replay`] draws a script from a seed, runs it in virtual time, and writes down every answer and every event. The same
//! seed gives the same log to the byte, whatever cell holds the states and whatever machine runs it: that is what the tests and the firmware
//! images compare.

#![no_std]

use core::fmt::{self, Write};
use core::time::Duration;

use failsoft_core::adaptive::{Measured, MovingAverage, NoLoad, NoMemory, Remembered, Spread, Sum, Trending, Window};
use failsoft_core::backoff::{Backoff, Jitter};
use failsoft_core::budget::{InFlight, Tokens, Used};
use failsoft_core::bulkhead::{self, Bulkhead, LocalQueue, Slots, Tally};
use failsoft_core::cell::CellKind;
use failsoft_core::chaos::{self, Chaos, Fault, Hit, Injected, Latency};
use failsoft_core::circuit_breaker::{
    Abandoned, AverageOfCalls, CircuitBreaker, Config, ConsecutiveFailures, CountBased, Counts, FailureMeter,
    FailureRate, Permit, State, TimeBased, Transition, Trip,
    trip::{CallsAverage, Consecutive, Drained, Ring},
};
use failsoft_core::degradation::{self, Criticality, Degradation, DegradationLevel, Health, LevelChange, Service};
use failsoft_core::fallback::Fallback;
use failsoft_core::last_good::{self, KeyedLastGood, Memories, Served};
use failsoft_core::quantile::Sketch;
use failsoft_core::rate_limiter::{Arrival, Arrivals};
use failsoft_core::retry::{self, RetryPolicy, Retrying};
use failsoft_core::testing::{ManualClock, Recorder, Script, Step, VirtualExecutor};
use failsoft_core::throttle;
use failsoft_core::timeout::Timeout;
use failsoft_core::window::{CountWindow, TimeWindow};
use failsoft_core::{Failure, Pipeline, Ratio, Rng, Verdict, adaptive_rate, valid};

mod limits;

pub use limits::KEYS;

/// The seed of the script that the host and the chips compare.
pub const SEED: u64 = 0x5EED;
/// Its steps, for each policy: enough to visit every state, few enough for a chip's log.
pub const STEPS: u32 = 600;

/// A way to share the states that fit two words.
pub trait Words:
    CellKind<State<Consecutive>>
    + CellKind<State<Ring>>
    + CellKind<State<Drained>>
    + CellKind<State<CallsAverage>>
    + CellKind<Slots>
    + CellKind<Tally>
    + CellKind<chaos::Progress>
    + CellKind<Arrival>
    + CellKind<Used>
    + CellKind<InFlight>
{
}

impl<K> Words for K where
    K: CellKind<State<Consecutive>>
        + CellKind<State<Ring>>
        + CellKind<State<Drained>>
        + CellKind<State<CallsAverage>>
        + CellKind<Slots>
        + CellKind<Tally>
        + CellKind<chaos::Progress>
        + CellKind<Arrival>
        + CellKind<Used>
        + CellKind<InFlight>
{
}

/// A way to share the larger states.
pub trait Tables:
    CellKind<Health<(), 3>>
    + CellKind<State<CountWindow<2>>>
    + CellKind<State<TimeWindow<Counts, 5>>>
    + CellKind<Arrivals<u32, KEYS>>
    + CellKind<throttle::Window>
    + CellKind<Tokens>
    + CellKind<Sketch>
    + CellKind<adaptive_rate::State>
    + CellKind<Memories<u32, u32, KEYS>>
    + CellKind<Remembered<NoMemory>>
    + CellKind<Remembered<NoLoad>>
    + CellKind<Remembered<Measured>>
    + CellKind<Remembered<Window<MovingAverage, Sum>>>
    + CellKind<Remembered<Window<Trending, Spread>>>
{
}

impl<K> Tables for K where
    K: CellKind<Health<(), 3>>
        + CellKind<State<CountWindow<2>>>
        + CellKind<State<TimeWindow<Counts, 5>>>
        + CellKind<Arrivals<u32, KEYS>>
        + CellKind<throttle::Window>
        + CellKind<Tokens>
        + CellKind<Sketch>
        + CellKind<adaptive_rate::State>
        + CellKind<Memories<u32, u32, KEYS>>
        + CellKind<Memories<u32, u32, KEYS>>
        + CellKind<Remembered<NoMemory>>
        + CellKind<Remembered<NoLoad>>
        + CellKind<Remembered<NoLoad>>
        + CellKind<Remembered<Measured>>
        + CellKind<Remembered<Window<MovingAverage, Sum>>>
        + CellKind<Remembered<Window<Trending, Spread>>>
{
}

/// Runs the script of `seed`, with `steps` steps for each policy, and writes its log.
///
/// # Errors
/// Only what `log` returns.
pub fn replay<W: Words, T: Tables>(seed: u64, steps: u32, log: &mut impl Write) -> fmt::Result {
    breakers::<W, T>(seed, steps, log)?;
    bulkhead::<W>(seed, steps, log)?;
    degradation::<T>(seed, steps, log)?;
    pipeline::<W>(seed, steps, log)?;
    chaos::<W>(seed, steps, log)?;
    limits::rate_limiter::<W>(seed, steps, log)?;
    limits::keyed::<T>(seed, steps, log)?;
    limits::throttle::<T>(seed, steps, log)?;
    limits::budgets::<W, T>(seed, steps / 2, log)?;
    limits::hedge::<T>(seed, steps / 4, log)?;
    limits::adaptives::<W, T>(seed, steps, log)?;
    limits::adaptive_rate::<T>(seed, steps, log)?;
    last_good::<T>(seed, steps, log)
}

fn breakers<W: Words, T: Tables>(seed: u64, steps: u32, log: &mut impl Write) -> fmt::Result {
    let common = Config::new()
        .with_open_for(Duration::from_millis(300))
        .with_trials(2, 4)
        .with_probes_at_once(3)
        .with_abandoned(Abandoned::FailureAfter(Duration::from_millis(250)));
    let growing =
        Backoff::exponential(Duration::from_millis(100)).with_cap(Duration::from_secs(2)).with_jitter(Jitter::Equal);
    let consecutive = valid!(ConsecutiveFailures::new(3));
    let rate = valid!(FailureRate::new(Ratio::percent(40), 20));
    let meter = valid!(FailureMeter::new(4, Duration::from_secs(2)));
    breaker::<W, _>("consecutive", common.with_trip(consecutive), seed, steps, log)?;
    breaker::<W, _>("rate", common.with_trip(rate), seed, steps, log)?;
    breaker::<W, _>(
        "meter",
        common.with_trip(meter).with_open_backoff(growing, seed).map_err(|_| fmt::Error)?,
        seed,
        steps,
        log,
    )?;
    let average = valid!(AverageOfCalls::new(Ratio::percent(60), 20));
    breaker::<W, _>("average", common.with_trip(average.with_minimum_calls(5)), seed, steps, log)?;
    let half = Ratio::percent(50);
    let slow = Duration::from_millis(200);
    let calls = CountBased::<2>::new(half, 40).and_then(|trip| trip.with_slow_rate(half, slow)?.with_minimum_calls(10));
    breaker::<T, _>("last calls", common.with_trip(calls.map_err(|_| fmt::Error)?), seed, steps, log)?;
    let lately = TimeBased::<5>::of_slow(half, slow, Duration::from_secs(5));
    breaker::<T, _>("last seconds", common.with_trip(lately.map_err(|_| fmt::Error)?), seed, steps, log)
}

/// Draws of one policy's script.
struct Draws(Rng);

impl Draws {
    fn new(seed: u64, policy: u64) -> Self {
        Self(Rng::new(seed ^ (policy << 56)))
    }

    const fn below(&mut self, bound: u32) -> u32 {
        self.0.next() % bound
    }

    /// Mostly short, now and then long, sometimes none.
    fn pause(&mut self) -> Duration {
        match self.below(10) {
            0..=3 => Duration::ZERO,
            4..=8 => Duration::from_micros(self.below(90_000).into()),
            _ => Duration::from_millis(self.below(3_000).into()),
        }
    }
}

fn breaker<K, T>(name: &str, config: Config<T>, seed: u64, steps: u32, log: &mut impl Write) -> fmt::Result
where
    T: Copy + Trip,
    K: CellKind<State<T::Meter>>,
{
    let Ok(config) = config.validate() else { return writeln!(log, "{name}: refused") };
    let (clock, events) = (ManualClock::new(), Recorder::<Transition, 4>::new());
    let breaker = CircuitBreaker::<K, T, _>::with_observer(config, &events);
    let mut draws = Draws::new(seed, 1);
    // Calls that overlap: settled or dropped later, perhaps in another state.
    let mut open: [Option<Permit<'_, K, T, _, &ManualClock>>; 6] = [const { None }; 6];
    writeln!(log, "# breaker: {name}")?;
    for step in 0..steps {
        clock.advance(draws.pause());
        // Sick for a while, well for a while.
        let sick = (step / 64) % 2 == 0;
        let slot = draws.below(6) as usize;
        let taken = open.get_mut(slot).and_then(Option::take);
        match (taken, draws.below(100)) {
            (_, 0) => breaker.isolate(),
            (_, 1) => breaker.observe_only(),
            (_, 2..=4) => breaker.reset(),
            (_, 5) => breaker.handle_timeout(&&clock),
            (Some(permit), 6..=15) => drop(permit),
            (Some(permit), 16..=20) => permit.ignore(),
            (Some(permit), 21..=25) => {
                permit.record(Verdict::TRANSIENT.with_retry_after(Duration::from_millis(700)));
            }
            (Some(permit), draw) if sick && draw > 40 => permit.failure(),
            (Some(permit), _) => permit.success(),
            (None, _) => match breaker.try_acquire(&clock) {
                Ok(permit) => {
                    write!(log, "{step} probe={} ", permit.is_probe())?;
                    if let Some(place) = open.get_mut(slot) {
                        *place = Some(permit);
                    }
                }
                Err(rejected) => write!(log, "{step} {rejected:?} ")?,
            },
        }
        writeln!(log, "{:?}", breaker.snapshot(&clock))?;
        for event in events.take() {
            writeln!(log, "  {event:?}")?;
        }
    }
    Ok(())
}

fn bulkhead<K: CellKind<Slots> + CellKind<Tally>>(seed: u64, steps: u32, log: &mut impl Write) -> fmt::Result {
    let bulkhead = Bulkhead::<K>::new(valid!(bulkhead::Config::new(5).validate()));
    let mut draws = Draws::new(seed, 2);
    let mut held = [const { None }; 8];
    writeln!(log, "# bulkhead")?;
    for step in 0..steps {
        let slot = draws.below(8) as usize;
        let Some(place) = held.get_mut(slot) else { continue };
        if place.is_some() {
            *place = None;
        } else if draws.below(12) == 0 {
            let permits = draws.below(8);
            writeln!(log, "{step} resize({permits}) {:?}", bulkhead.resize(permits))?;
        } else {
            let weight = draws.below(4);
            match bulkhead.try_acquire_many(weight) {
                Ok(permit) => *place = Some(permit),
                Err(rejected) => writeln!(log, "{step} {weight} {rejected:?}")?,
            }
        }
        writeln!(log, "{step} {:?}", bulkhead.snapshot())?;
    }
    Ok(())
}

fn degradation<K: CellKind<Health<(), 3>>>(seed: u64, steps: u32, log: &mut impl Write) -> fmt::Result {
    const NAMES: [(&str, Criticality); 3] =
        [("sensor", Criticality::Critical), ("display", Criticality::Important), ("logger", Criticality::Optional)];
    let (clock, events) = (ManualClock::new(), Recorder::<LevelChange, 4>::new());
    let degradation = Degradation::<K, 3, DegradationLevel, (), _>::with_observer(
        valid!(degradation::Config::new().with_dwell(Duration::from_secs(2)).validate()),
        &events,
    );
    writeln!(log, "# degradation")?;
    for (name, criticality) in NAMES {
        writeln!(log, "{name} {:?}", degradation.register(name, Service::new(criticality)))?;
    }
    let mut draws = Draws::new(seed, 3);
    for step in 0..steps {
        clock.advance(draws.pause());
        let (name, _) = NAMES[draws.below(3) as usize];
        match draws.below(10) {
            0 => writeln!(log, "{step} due {:?}", degradation.take_due_check(&clock))?,
            1 => writeln!(log, "{step} {:?}", degradation.report("stranger", true, &clock))?,
            draw => writeln!(log, "{step} {name} {:?}", degradation.report(name, draw > 2, &clock))?,
        }
        writeln!(log, "{:?} {:?}", degradation.level(&clock), degradation.poll_timeout())?;
        for event in events.take() {
            writeln!(log, "  {event:?}")?;
        }
    }
    Ok(())
}

fn pipeline<K>(seed: u64, steps: u32, log: &mut impl Write) -> fmt::Result
where
    K: CellKind<State<Consecutive>> + CellKind<Slots> + CellKind<Tally>,
{
    let mut draws = Draws::new(seed, 4);
    let executor = VirtualExecutor::<8>::seeded(seed);
    let (transitions, retries) = (Recorder::<Transition, 8>::new(), Recorder::<Retrying, 16>::new());
    let breaker = CircuitBreaker::<K, ConsecutiveFailures, _>::with_observer(
        valid!(Config::new().with_open_for(Duration::from_secs(5)).validate()),
        &transitions,
    );
    let queue = valid!(bulkhead::Config::new(1).with_queue(2, Duration::from_millis(200)).validate());
    let bulkhead = Bulkhead::<K, LocalQueue<2>>::new(queue);
    let retry = RetryPolicy::with_observer(
        valid!(
            retry::Config::new()
                .with_backoff(Backoff::exponential(Duration::from_millis(100)).with_jitter(Jitter::Full))
                .validate()
        ),
        &retries,
    );
    let pipeline = Pipeline::new(&executor)
        .layer(Fallback::new(|failure: Failure<_>| if failure.is_rejected() { Ok(0) } else { Err(failure) }))
        .layer(Timeout::new(Duration::from_secs(2)))
        .layer(retry)
        .layer(&bulkhead)
        .layer(&breaker)
        .layer(Timeout::new(Duration::from_millis(250)));
    writeln!(log, "# pipeline")?;
    for call in 0..steps / 4 {
        let late = Duration::from_millis(draws.below(400).into());
        let sick = (call / 8) % 2 == 0;
        let script = match draws.below(6) {
            0 if sick => [Step::Hang, Step::Fail],
            1 | 2 if sick => [Step::Fail, Step::FailAfter(late)],
            3 => [Step::SucceedAfter(late), Step::Succeed],
            _ => [Step::Succeed, Step::Succeed],
        };
        let service = Script::new(&script);
        let result = executor.run(pipeline.call(|_| service.call(&executor)));
        writeln!(log, "{call} {result:?} after {:?}, {} calls", executor.elapsed(), service.calls())?;
        for event in retries.take() {
            writeln!(log, "  {event:?}")?;
        }
        for event in transitions.take() {
            writeln!(log, "  {event:?}")?;
        }
        executor.jump_to(failsoft_core::Clock::now(&executor).saturating_add(draws.pause()));
    }
    writeln!(log, "{:?}", bulkhead.snapshot())
}

fn chaos<K: CellKind<chaos::Progress>>(seed: u64, steps: u32, log: &mut impl Write) -> fmt::Result {
    let config = |seed, rate| chaos::Config::new(seed).with_rate(rate).validate().map_err(|_| fmt::Error);
    let (faults, delays) = (config(seed, Ratio::percent(20))?, config(!seed, Ratio::percent(50))?);
    let latency = valid!(Latency::between(Duration::from_millis(1), Duration::from_millis(50)));
    let events = Recorder::<Injected, 4>::new();
    let faults = Chaos::<K, _, _>::with_observer(faults, Fault::new(|hit: Hit| hit), &events);
    let delays = Chaos::<K, _, _>::with_observer(delays, latency, &events);
    let executor = VirtualExecutor::<8>::seeded(seed);
    let pipeline = Pipeline::new(&executor).layer(&faults).layer(&delays);
    let mut draws = Draws::new(seed, 5);
    writeln!(log, "# chaos")?;
    for step in 0..steps {
        match draws.below(20) {
            0 => delays.set_enabled(!delays.is_enabled()),
            1 => writeln!(log, "{step} {:?}", delays.set_rate(Ratio::basis_points(draws.below(12_000))))?,
            2 => writeln!(log, "{step} {faults:?} {delays:?}")?,
            _ => {
                let result = executor.run(pipeline.call(async |_| Ok(())));
                writeln!(log, "{step} {result:?} after {:?}", executor.elapsed())?;
            }
        }
        for event in events.take() {
            writeln!(log, "  {event:?}")?;
        }
    }
    Ok(())
}

fn last_good<K: CellKind<Memories<u32, u32, KEYS>>>(seed: u64, steps: u32, log: &mut impl Write) -> fmt::Result {
    let config =
        last_good::Config::new().with_fresh_for(Duration::from_millis(500)).with_max_age(Duration::from_secs(4));
    let (executor, events) = (VirtualExecutor::<8>::seeded(seed), Recorder::<Served, 4>::new());
    let config = config.validate().map_err(|_| fmt::Error)?;
    let memory = KeyedLastGood::<K, u32, u32, KEYS, _>::with_observer(config, &events);
    let mut draws = Draws::new(seed, 13);
    writeln!(log, "# last good")?;
    for step in 0..steps {
        let (key, fails) = (draws.below(6), draws.below(3) != 0);
        let pipeline = Pipeline::new(&executor).layer(memory.of(key));
        let result = executor.run(pipeline.call(async |_| if fails { Err(key) } else { Ok(step) }));
        writeln!(log, "{step} {key} {result:?}, {} keys", memory.keys())?;
        for event in events.take() {
            writeln!(log, "  {event:?}")?;
        }
        executor.jump_to(failsoft_core::Clock::now(&executor).saturating_add(draws.pause()));
    }
    Ok(())
}
