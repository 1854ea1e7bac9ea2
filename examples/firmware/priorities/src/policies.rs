//! What is shared.

use core::cell::Cell;
use core::time::Duration;

use critical_section::Mutex;
use failsoft_embassy::backoff::Backoff;
use failsoft_embassy::circuit_breaker::{self, ConsecutiveFailures, Totals, Transition};
use failsoft_embassy::degradation::{self, DegradationLevel, LevelChange, Service};
use failsoft_embassy::retry::Retrying;
use failsoft_embassy::{
    Bulkhead, CircuitBreaker, CriticalSection, Degradation, Embassy, QuotaBudget, RateLimiter, RetryPolicy, budget,
    bulkhead, rate_limiter, retry, valid,
};

use crate::side::{self, Priority};

/// Permits of either bulkhead: a task takes one or two of them.
pub(crate) const PERMITS: u32 = 2;
/// Less than the tasks of both priorities want at once.
const QUEUE: u32 = 3;
/// Often too short.
const LONGEST_WAIT: Duration = Duration::from_micros(400);
/// Less than all ask for together.
pub(crate) const QUOTA: u32 = 20_000;
/// A retry brings the budget closer to its end, and a success brings back no more than its last retry took: all is
/// accounted for exactly.
pub(crate) const CAPACITY: u32 = 500;
pub(crate) const RETRY_COST: u16 = 5;
/// After so many the breaker's numbers start over.
pub(crate) const GENERATIONS: u32 = 4_096;

/// Its seed is for the jitter of retries alone.
pub(crate) static DEVICE: Embassy = Embassy::new(1);

/// For which nobody waits long.
pub(crate) static BUS: Bulkhead =
    Bulkhead::new(valid!(bulkhead::Config::new(PERMITS).with_queue(QUEUE, LONGEST_WAIT).validate()));
/// For which everybody waits until it is woken: by nothing else, or not at all.
pub(crate) static LINE: Bulkhead<8> =
    Bulkhead::new(valid!(bulkhead::Config::new(PERMITS).with_queue(bulkhead::MOST, Duration::MAX).validate()));

// Open for no time: the next call is a probe, and all states come round.
const RESTLESS: circuit_breaker::Config =
    circuit_breaker::Config::new().with_open_for(Duration::ZERO).with_half_open_for(Duration::from_secs(1));
pub(crate) static BREAKER: CircuitBreaker<ConsecutiveFailures, Totals<CriticalSection, fn(&Transition)>> =
    CircuitBreaker::with_observer(valid!(RESTLESS.validate()), Totals::new(|_| count(&TRANSITIONS, 1)));

// None comes back while the image runs.
pub(crate) static LIMITER: RateLimiter =
    RateLimiter::new(valid!(rate_limiter::Config::new(1, Duration::from_secs(3_600)).with_burst(QUOTA).validate()));

pub(crate) static HUB: Degradation<6, DegradationLevel, (), fn(&LevelChange)> = Degradation::with_observer(
    valid!(degradation::Config::new().with_dwell(Duration::ZERO).with_recovery(1).validate()),
    |change| count(&STEPS, change.to as i32 - change.from as i32),
);

pub(crate) static BUDGET: QuotaBudget = QuotaBudget::new(valid!(
    budget::QuotaConfig::new().with_capacity(CAPACITY).with_retry_cost(RETRY_COST).with_no_retry_refund(0).validate()
));
pub(crate) static RETRY: RetryPolicy<fn(&Retrying), &QuotaBudget> = RetryPolicy::with_budget(
    valid!(retry::Config::new().with_backoff(Backoff::constant(Duration::from_micros(50))).validate()),
    |_| count(&RETRIES, 1),
    &BUDGET,
);

/// What the observers have been told: changes of the breaker, steps down of the degradation less those up, and retries.
pub(crate) static TRANSITIONS: Mutex<Cell<i32>> = Mutex::new(Cell::new(0));
pub(crate) static STEPS: Mutex<Cell<i32>> = Mutex::new(Cell::new(0));
pub(crate) static RETRIES: Mutex<Cell<i32>> = Mutex::new(Cell::new(0));

fn count(told: &Mutex<Cell<i32>>, more: i32) {
    critical_section::with(|cs| told.borrow(cs).set(told.borrow(cs).get() + more));
}

pub(crate) fn told(told: &Mutex<Cell<i32>>) -> i32 {
    critical_section::with(|cs| told.borrow(cs).get())
}

/// The names of all services, and whose they are.
pub(crate) fn services() -> impl Iterator<Item = (&'static str, Priority)> {
    let all = [(&side::HIGH[..], Priority::High), (&side::LOW, Priority::Low), (&[side::HANDLER], Priority::Handler)];
    all.into_iter().flat_map(|(names, priority)| names.iter().map(move |&name| (name, priority)))
}

pub(crate) fn register() {
    for (name, priority) in services() {
        HUB.register(name, Service::new(priority.criticality())).expect("there is a place for each");
    }
}
