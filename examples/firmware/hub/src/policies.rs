//! What stands between the hub and its line: bulkhead, circuit breaker, retry and timeouts.

use core::cell::RefCell;
use core::time::Duration;

use failsoft_embassy::backoff::Backoff;
use failsoft_embassy::circuit_breaker::{self, ConsecutiveFailures, StateKind};
use failsoft_embassy::{
    Bulkhead, CircuitBreaker, Embassy, Failure, Log, Pipeline, RetryPolicy, Timeout, bulkhead, retry, valid,
};

use sensor_protocol::sensor::Counts;

use crate::bus::{Bus, BusError};
use crate::port::Port;

/// The line carries one exchange at a time; one more task may wait for it.
static LINE: Bulkhead<1> =
    Bulkhead::new(valid!(bulkhead::Config::new(1).with_queue(1, Duration::from_millis(200)).validate()));

/// A dead sensor is asked about twice a second, and not with every poll.
static SENSOR: CircuitBreaker<ConsecutiveFailures, Log> = CircuitBreaker::with_observer(
    valid!(
        circuit_breaker::Config::new()
            .with_trip(valid!(ConsecutiveFailures::new(6)))
            .with_open_for(Duration::from_millis(500))
            .with_probes(2)
            .validate()
    ),
    Log::new("sensor"),
);

/// A damaged reply is worth one more try, at once but for a little jitter.
static RETRY: RetryPolicy = RetryPolicy::new(valid!(
    retry::Config::new().with_max_attempts(2).with_backoff(Backoff::constant(Duration::from_millis(10))).validate()
));

/// A healthy sensor answers in a few milliseconds.
const PATIENCE: Timeout = Timeout::new(Duration::from_millis(100));
/// Two attempts with their delay, and the wait for the line.
pub(crate) const LONGEST_CALL: Duration = Duration::from_millis(450);
const IN_ALL: Timeout = Timeout::new(LONGEST_CALL);

/// The line to the sensor, behind its policies.
pub(crate) struct Line {
    bus: RefCell<Bus<Port>>,
    device: &'static Embassy,
}

impl Line {
    pub(crate) fn new(bus: RefCell<Bus<Port>>, device: &'static Embassy) -> Self {
        Self { bus, device }
    }

    pub(crate) fn device(&self) -> &'static Embassy {
        self.device
    }

    /// What happened to the requests so far, on a simulated line.
    pub(crate) fn counts(&self) -> Option<Counts> {
        match self.bus.try_borrow().ok()?.uart() {
            Port::Uart(_) => None,
            Port::Simulated(line) => Some(line.counts()),
        }
    }

    /// Reads a register, or says why that was not to be.
    pub(crate) async fn read(&self, register: u16) -> Result<u16, Failure<BusError>> {
        let pipeline =
            Pipeline::new(self.device).layer(IN_ALL).layer(&RETRY).layer(&LINE).layer(&SENSOR).layer(PATIENCE);
        pipeline
            .call(async |_| match self.bus.try_borrow_mut() {
                Ok(mut bus) => bus.read_register(register).await,
                // The bulkhead's one permit is the right to be here: this would be a permit given twice.
                Err(_) => Err(BusError::Shared),
            })
            .await
    }
}

/// Whether every permit is back, nobody waits for one, and there were never more of them out than there are.
pub(crate) fn permits_are_back() -> bool {
    let line = LINE.snapshot();
    line.in_use == 0 && line.queued == 0 && line.high_water <= line.permits
}

/// Whether every permit is back and the sensor is trusted again.
pub(crate) fn at_rest() -> bool {
    permits_are_back() && SENSOR.state() == StateKind::Closed
}

pub(crate) fn log() {
    defmt::info!("line: {}", LINE.snapshot());
    defmt::info!("sensor: {}", SENSOR.state());
}
