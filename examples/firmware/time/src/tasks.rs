//! The policies in their tasks. All spans are whole ticks at each rate, but for those of the [timers](timers).

use core::convert::Infallible;
use core::future::{pending, poll_fn};
use core::ops::Range;
use core::task::Poll;
use core::time::Duration;

use embassy_executor::{SpawnError, Spawner};
use embassy_time::TICK_HZ;
use failsoft_embassy::circuit_breaker::{self, ConsecutiveFailures, StateKind};
use failsoft_embassy::degradation::{self, Criticality, DegradationLevel, Service};
use failsoft_embassy::{
    Backoff, Bulkhead, CircuitBreaker, Clock, Degradation, Embassy, Executor, Failure, Instant, Jitter, Pipeline,
    RateLimiter, Reason, RetryPolicy, Rng, Stop, Timeout, bulkhead, rate_limiter, retry, valid,
};

use crate::log;

static EXECUTOR: Embassy = Embassy::new(1);

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// An instant of embassy's as one of failsoft's. Only whole ticks of all rates come here, and they are whole nanoseconds.
fn instant(at: embassy_time::Instant) -> Instant {
    let ticks = at.as_ticks();
    let (seconds, rest) = (ticks / TICK_HZ, ticks % TICK_HZ);
    Instant::from_nanos(seconds * 1_000_000_000 + rest * 1_000_000_000 / TICK_HZ)
}

/// When the tasks started.
#[derive(Clone, Copy)]
struct Start(Instant);

impl Start {
    async fn wait(self, millis: u64) {
        EXECUTOR.sleep_until(self.0.saturating_add(ms(millis))).await;
    }
}

pub(crate) fn spawn(spawner: Spawner, start: embassy_time::Instant) -> Result<(), SpawnError> {
    let start = Start(instant(start));
    spawner.spawn(breaker(start)?);
    spawner.spawn(limiter(start)?);
    spawner.spawn(retries(start)?);
    spawner.spawn(timeouts(start)?);
    spawner.spawn(deadline(start)?);
    spawner.spawn(holder(start)?);
    spawner.spawn(waiter(start)?);
    spawner.spawn(levels(start)?);
    spawner.spawn(timers(start)?);
    spawner.spawn(insomnia(start)?);
    Ok(())
}

/// Until a millisecond before, in whole ticks.
async fn almost(due: Instant) {
    let before = 1_000_000_000 / TICK_HZ * (TICK_HZ / 1_000);
    EXECUTOR.sleep_until(Instant::from_nanos(due.as_nanos().saturating_sub(before))).await;
}

#[embassy_executor::task]
async fn breaker(start: Start) {
    const CONFIG: circuit_breaker::Config = circuit_breaker::Config::new().with_open_for(ms(2_000)).with_probes(1);
    static BREAKER: CircuitBreaker =
        CircuitBreaker::new(valid!(CONFIG.with_trip(valid!(ConsecutiveFailures::new(2))).validate()));
    let pipeline = Pipeline::new(&EXECUTOR).layer(&BREAKER);
    let call = async |good: bool| pipeline.call(async |_| good.then_some(()).ok_or(())).await;

    for at in [125, 250] {
        start.wait(at).await;
        let failed = matches!(call(false).await, Err(failure) if !failure.is_rejected());
        match BREAKER.state() {
            StateKind::Closed if failed => log::event("breaker", "call fails"),
            StateKind::Open if failed => log::event("breaker", "call fails: open"),
            _ => log::event("breaker", "WRONG"),
        }
    }
    for good in [false, true] {
        let Some(due) = BREAKER.poll_timeout() else { return };
        almost(due).await;
        match call(good).await.err().and_then(|failure| failure.rejected()) {
            Some(rejected) if rejected.retry_at() == Some(due) => log::event("breaker", "rejected"),
            _ => log::event("breaker", "NOT rejected"),
        }
        EXECUTOR.sleep_until(due).await;
        let _ = call(good).await;
        match BREAKER.state() {
            StateKind::Open => log::event("breaker", "probe fails: open"),
            StateKind::Closed => log::event("breaker", "probe succeeds: closed"),
            _ => log::event("breaker", "NO probe"),
        }
    }
}

#[embassy_executor::task]
async fn limiter(start: Start) {
    static LIMITER: RateLimiter =
        RateLimiter::new(valid!(rate_limiter::Config::new(1, ms(1_000)).with_burst(2).validate()));
    let take = || LIMITER.try_acquire(&EXECUTOR);

    start.wait(0).await;
    if take().is_ok() && take().is_ok() && take().is_err() {
        log::event("limiter", "two permits, and no third");
    }
    for _ in 0..6 {
        let Err(rejected) = take() else { return log::event("limiter", "a permit too many") };
        let due = rejected.retry_at().unwrap_or(Instant::MAX);
        almost(due).await;
        if take().is_ok() {
            log::event("limiter", "a permit too early");
        }
        EXECUTOR.sleep_until(due).await;
        if take().is_ok() {
            log::event("limiter", "a permit");
        }
    }
}

const ATTEMPTS: [&str; 8] =
    ["attempt 1", "attempt 2", "attempt 3", "attempt 4", "attempt 5", "attempt 6", "attempt 7", "attempts without end"];

fn attempt(who: &'static str, number: u32) {
    let place = usize::try_from(number).unwrap_or(ATTEMPTS.len()).saturating_sub(1);
    log::event(who, ATTEMPTS[place.min(ATTEMPTS.len() - 1)]);
}

const fn backoff(config: retry::Config, backoff: Backoff) -> retry::Config {
    config.with_backoff(backoff.with_jitter(Jitter::None))
}

#[embassy_executor::task]
async fn retries(start: Start) {
    static RETRY: RetryPolicy = RetryPolicy::new(valid!(
        backoff(retry::Config::new().with_max_attempts(5), Backoff::exponential(ms(250))).validate()
    ));
    start.wait(500).await;
    let answer = Pipeline::new(&EXECUTOR)
        .layer(&RETRY)
        .call(async |this| {
            attempt("retry", this.number());
            if this.number() == 5 { Ok(()) } else { Err(()) }
        })
        .await;
    if answer.is_ok() {
        log::event("retry", "success");
    }
}

#[embassy_executor::task]
async fn timeouts(start: Start) {
    let pipeline = Pipeline::new(&EXECUTOR).layer(Timeout::new(ms(1_500)));
    start.wait(1_000).await;
    for _ in 0..3 {
        let ended: Result<Infallible, Failure<()>> = pipeline.call(|_| pending()).await;
        if ended.is_err_and(|failure| failure.is_timed_out()) {
            log::event("timeout", "timed out");
        }
    }
}

#[embassy_executor::task]
async fn deadline(start: Start) {
    static RETRY: RetryPolicy = RetryPolicy::new(valid!(
        backoff(retry::Config::new().with_max_attempts(100), Backoff::constant(ms(500))).validate()
    ));
    start.wait(1_125).await;
    let pipeline = Pipeline::new(&EXECUTOR).layer(Timeout::new(ms(3_250))).layer(&RETRY);
    let ended = pipeline
        .call(async |this| {
            attempt("deadline", this.number());
            Err::<(), _>(())
        })
        .await;
    if ended.is_err_and(|failure| failure.stop == Some(Stop::Deadline)) {
        log::event("deadline", "too late for another");
    }
}

static BUS: Bulkhead<1> = Bulkhead::new(valid!(bulkhead::Config::new(1).with_queue(1, ms(1_500)).validate()));

#[embassy_executor::task]
async fn holder(start: Start) {
    start.wait(250).await;
    let Ok(permit) = BUS.try_acquire() else { return };
    log::event("bulkhead", "holder has its permit");
    start.wait(6_000).await;
    log::event("bulkhead", "holder gives it back");
    drop(permit);
}

#[embassy_executor::task]
async fn waiter(start: Start) {
    for at in [2_750, 4_750] {
        start.wait(at).await;
        log::event("bulkhead", "waiter in the queue");
        match BUS.acquire(1, &EXECUTOR).await {
            Ok(_permit) => log::event("bulkhead", "waiter has its permit"),
            Err(rejected) if rejected.reason() == Reason::QueueTimeout => {
                log::event("bulkhead", "waiter has waited in vain");
            }
            Err(_) => log::event("bulkhead", "waiter is turned away"),
        }
    }
}

#[embassy_executor::task]
async fn levels(start: Start) {
    static HUB: Degradation<1> =
        Degradation::new(valid!(degradation::Config::new().with_dwell(ms(2_000)).with_recovery(1).validate()));
    let service = Service::new(Criticality::Critical).with_check_interval(Duration::MAX);
    let level = || match HUB.level(&EXECUTOR) {
        DegradationLevel::Full => log::event("degradation", "full"),
        DegradationLevel::Degraded => log::event("degradation", "degraded"),
        DegradationLevel::Minimal => log::event("degradation", "minimal"),
    };
    if HUB.register("sensor", service).is_err() {
        return;
    }
    start.wait(1_500).await;
    if HUB.report("sensor", false, &EXECUTOR).is_ok() {
        level();
    }
    start.wait(2_000).await;
    if HUB.report("sensor", true, &EXECUTOR).is_ok() {
        log::event("degradation", "healthy again");
    }
    while let Some(due) = HUB.poll_timeout() {
        EXECUTOR.sleep_until(due).await;
        level();
    }
}

/// Timers of any length up to 20 ms, before the wrap and after it.
#[embassy_executor::task]
async fn timers(start: Start) {
    let mut rng = Rng::new(TICK_HZ);
    start.wait(AWAKE.start).await;
    let end = start.0.saturating_add(ms(AWAKE.end));
    while EXECUTOR.now() < end {
        let due = EXECUTOR.now().saturating_add(Duration::from_nanos((rng.next() % 20_000_000).into()));
        EXECUTOR.sleep_until(due).await;
        log::timer(due.as_nanos() - start.0.as_nanos());
    }
}

/// The milliseconds in which the core stays awake.
pub(crate) const AWAKE: Range<u64> = 2_875..5_125;

/// Keeps the core awake, and has the second counter check the clock meanwhile.
///
/// Not while it sleeps: then the emulator lets more time pass than `SysTick` tells, which is no fault of the clock's (see `board`'s clock).
#[embassy_executor::task]
async fn insomnia(start: Start) {
    let begins = start.0.saturating_add(ms(AWAKE.start));
    EXECUTOR.sleep_until(Instant::from_nanos(begins.as_nanos() - 1_000_000_000 / TICK_HZ)).await;
    // Met to within some instructions.
    while EXECUTOR.now() < begins {}
    log::start_reference(begins.as_nanos() - start.0.as_nanos());
    let end = start.0.saturating_add(ms(AWAKE.end));
    while EXECUTOR.now() < end {
        let mut polled = false;
        poll_fn(|context| {
            context.waker().wake_by_ref();
            if core::mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
    log::stop_reference();
}
