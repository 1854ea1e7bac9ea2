//! What is measured: the policies with common settings, and the least that the images need around them.

#![no_std]

use core::future::{Future, poll_fn};
use core::hint::black_box;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use failsoft_embassy::cell::CellKind;
use failsoft_embassy::circuit_breaker::{
    self, CountBased, FailureMeter, FailureRate, Growing, State, TimeBased, Transition, Trip,
};
use failsoft_embassy::degradation::{self, Criticality, Service};
use failsoft_embassy::{
    Backoff, Bulkhead, CircuitBreaker, Clock, Degradation, Executor, Instant, Jitter, Observer, Pipeline, Ratio,
    RetryPolicy, Timeout, Valid, bulkhead, retry, valid,
};

// What the macro `flash_image` names; the critical section comes with the first.
#[cfg(target_arch = "arm")]
#[doc(hidden)]
pub use {cortex_m as _core, cortex_m_rt as _runtime};
#[cfg(target_arch = "riscv32")]
#[doc(hidden)]
pub use {riscv as _core, riscv_rt as _runtime};

/// Calls in the window of [`RATE`].
pub const WINDOW: u32 = 20;

/// Five consecutive failures: all defaults.
pub const CONSECUTIVE: Valid<circuit_breaker::Config> = valid!(circuit_breaker::Config::new().validate());

/// Half of the last calls.
pub const HALF: FailureRate = valid!(FailureRate::new(Ratio::percent(50), WINDOW));
/// More than ten failures a minute.
pub const TEN_A_MINUTE: FailureMeter = valid!(FailureMeter::new(10, Duration::from_secs(60)));

/// A breaker that opens at [`HALF`].
pub const RATE: Valid<circuit_breaker::Config<FailureRate>> =
    valid!(circuit_breaker::Config::new().with_trip(HALF).validate());

/// A breaker that opens at [`TEN_A_MINUTE`].
pub const METER: Valid<circuit_breaker::Config<FailureMeter>> =
    valid!(circuit_breaker::Config::new().with_trip(TEN_A_MINUTE).validate());

/// Half of the last 64 calls.
pub const OF_64: CountBased<2> = valid!(CountBased::new(Ratio::percent(50), 64));
/// Half of the calls of the last minute.
pub const OF_A_MINUTE: TimeBased<10> = valid!(match TimeBased::new(Ratio::percent(50), Duration::from_secs(60)) {
    Ok(of_a_minute) => of_a_minute.with_minimum_calls(WINDOW),
    Err(error) => Err(error),
});

/// A breaker that opens at [`OF_64`].
pub const COUNT_WINDOW: Valid<circuit_breaker::Config<CountBased<2>>> =
    valid!(circuit_breaker::Config::new().with_trip(OF_64).validate());

/// A breaker that opens at [`OF_A_MINUTE`].
pub const TIME_WINDOW: Valid<circuit_breaker::Config<TimeBased<10>>> =
    valid!(circuit_breaker::Config::new().with_trip(OF_A_MINUTE).validate());

/// Open periods that grow.
pub const PERIODS: Backoff = Backoff::exponential(Duration::from_secs(1)).with_jitter(Jitter::Full);

/// A breaker that opens at either of the two, for ever longer.
pub const EVERYTHING: Valid<circuit_breaker::Config<Growing<(FailureRate, FailureMeter)>>> =
    valid!(match circuit_breaker::Config::new().with_trip((HALF, TEN_A_MINUTE)).with_open_backoff(PERIODS, 1) {
        Ok(config) => config.validate(),
        Err(error) => Err(error),
    });

/// Calls at once in [`COMPARTMENT`].
pub const SLOTS: u32 = 4;

/// A few calls at once, and no queue.
pub const COMPARTMENT: Valid<bulkhead::Config> = valid!(bulkhead::Config::new(SLOTS).validate());

/// Three attempts, exponential delays with full jitter.
pub const THREE_ATTEMPTS: Valid<retry::Config> = valid!(
    retry::Config::new()
        .with_backoff(Backoff::exponential(Duration::from_millis(100)).with_jitter(Jitter::Full))
        .validate()
);

/// How a call ends.
#[derive(Clone, Copy, Debug)]
pub enum Ending {
    /// It succeeds.
    Success,
    /// It fails.
    Failure,
    /// It is given up.
    Dropped,
}

/// A call through a breaker; whether it was let through.
pub fn call<K, T, O>(breaker: &circuit_breaker::CircuitBreaker<K, T, O>, ending: Ending, now: Instant) -> bool
where
    T: Copy + Trip,
    K: CellKind<State<T::Meter>>,
    O: Observer<Transition>,
{
    let Ok(permit) = breaker.try_acquire(now) else { return false };
    match ending {
        Ending::Success => permit.success(),
        Ending::Failure => permit.failure(),
        Ending::Dropped => drop(permit),
    }
    true
}

/// The least of an executor: of its clock, timers and random numbers the compiler knows nothing, and it polls for ever.
#[derive(Clone, Copy, Debug)]
pub struct Tiny;

impl Tiny {
    /// Polls a future to its end.
    pub fn run<F: Future>(self, future: F) -> F::Output {
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return output;
            }
        }
    }
}

impl Clock for Tiny {
    fn now(&self) -> Instant {
        black_box(Instant::START)
    }
}

impl Executor for Tiny {
    type Sleep = Sleep;

    fn sleep_until(&self, at: Instant) -> Sleep {
        Sleep(at)
    }

    fn random(&self) -> u32 {
        black_box(0)
    }
}

/// A sleep until an instant, as large as one.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Sleep(Instant);

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if Tiny.now() >= self.0 { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// An operation of which the compiler can't tell whether it waits, succeeds or fails.
///
/// No `async fn`: that links a panic of its own, for whoever polls it once too often.
pub fn operation() -> impl Future<Output = Result<u32, u32>> {
    poll_fn(|_| match black_box(0) {
        0 => Poll::Ready(Ok(1)),
        1 => Poll::Ready(Err(2)),
        _ => Poll::Pending,
    })
}

static HEALTH: Degradation<3> = Degradation::new(valid!(degradation::Config::new().validate()));
static RETRY: RetryPolicy = RetryPolicy::new(THREE_ATTEMPTS);
static BREAKER: CircuitBreaker = CircuitBreaker::new(CONSECUTIVE);
static TIMEOUT: Timeout = Timeout::new(Duration::from_millis(250));

/// All five patterns composed: degradation, retry, this bulkhead, a circuit breaker and a timeout, around an operation that may
/// wait, succeed or fail.
pub fn all_five<const N: usize>(bulkhead: &Bulkhead<N>) {
    let _ = black_box(HEALTH.register("sensor", Service::new(black_box(Criticality::Critical))));
    let Ok(monitor) = HEALTH.monitor("sensor") else { return };
    let pipeline = Pipeline::new(Tiny)
        .layer(monitor)
        .layer(black_box(&RETRY))
        .layer(bulkhead)
        .layer(black_box(&BREAKER))
        .layer(black_box(&TIMEOUT));
    let _ = black_box(Tiny.run(pipeline.call(|_| operation())));
}

/// An image that does this and nothing else, without a board, a log or a message for a panic.
#[macro_export]
macro_rules! flash_image {
    ($work:expr) => {
        use $crate::_core as _;

        // With work of its own, so that a panic which is linked stays among the symbols.
        #[panic_handler]
        fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
            loop {
                core::hint::black_box(info);
            }
        }

        #[$crate::_runtime::entry]
        fn main() -> ! {
            $work;
            loop {
                core::hint::black_box(());
            }
        }
    };
}
