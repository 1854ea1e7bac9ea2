//! What stands between the device and its server: the standard pipeline.

use core::cell::{Cell, RefCell};
use core::time::Duration;

use embassy_sync::blocking_mutex::Mutex;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_time::Instant;
use failsoft_embassy::backoff::{Backoff, Jitter};
use failsoft_embassy::circuit_breaker::{self, ConsecutiveFailures, StateKind, Transition};
use failsoft_embassy::pipeline::Standard;
use failsoft_embassy::{
    Bulkhead, CircuitBreaker, Embassy, Failure, Observer, RetryPolicy, Timeout, bulkhead, retry, valid,
};
use sensor_protocol::uplink::{FAILURES, LEFT_ALONE, Reply, Request};

use crate::link::{Link, LinkError};

/// There is one connection, and two who want it.
static CONNECTION: Bulkhead<1> =
    Bulkhead::new(valid!(bulkhead::Config::new(1).with_queue(1, Duration::from_millis(500)).validate()));

/// Good attempts in a row that close the breaker.
const PROBES: u32 = 2;
static SERVER: CircuitBreaker<ConsecutiveFailures, &Watch> = CircuitBreaker::with_observer(
    valid!(
        circuit_breaker::Config::new()
            .with_trip(valid!(ConsecutiveFailures::new(FAILURES)))
            .with_open_for(LEFT_ALONE)
            .with_probes(PROBES)
            .validate()
    ),
    &WATCH,
);

/// A connection that broke is worth another try, soon at first. All devices lose their server at once, and shall not
/// come back at once.
static RETRY: RetryPolicy = RetryPolicy::new(valid!(
    retry::Config::new()
        .with_max_attempts(3)
        .with_backoff(Backoff::exponential(Duration::from_millis(40)).with_jitter(Jitter::Equal))
        .validate()
));

/// To connect, to send and to be answered takes some milliseconds.
const PATIENCE: Timeout = Timeout::new(Duration::from_millis(300));
/// All attempts with their delays, and the wait for the connection.
const IN_ALL: Timeout = Timeout::new(Duration::from_millis(1_200));

/// What the attempts came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attempts {
    pub(crate) begun: u32,
    pub(crate) answered: u32,
    pub(crate) refused: u32,
    pub(crate) reset: u32,
    pub(crate) closed: u32,
    pub(crate) cut: u32,
    pub(crate) unexpected: u32,
    pub(crate) shared: u32,
    /// Those that were answered after others of the same call had failed.
    pub(crate) rescued: u32,
    /// Those that were let through while the breaker was not closed.
    pub(crate) probes: u32,
}

impl Attempts {
    /// Those that were given up.
    pub(crate) fn timed_out(&self) -> u32 {
        let Self { begun, answered, refused, reset, closed, cut, unexpected, shared, .. } = self;
        begun - (answered + refused + reset + closed + cut + unexpected + shared)
    }

    fn count(&mut self, result: &Result<Reply, LinkError>) {
        *match result {
            Ok(_) => &mut self.answered,
            Err(LinkError::Refused) => &mut self.refused,
            Err(LinkError::Reset) => &mut self.reset,
            Err(LinkError::Closed) => &mut self.closed,
            Err(LinkError::Cut) => &mut self.cut,
            Err(LinkError::Unexpected) => &mut self.unexpected,
            Err(LinkError::Shared) => &mut self.shared,
        } += 1;
    }
}

/// The server, behind its policies.
pub(crate) struct Server {
    link: RefCell<Link>,
    device: &'static Embassy,
    attempts: Cell<Attempts>,
}

impl Server {
    pub(crate) fn new(link: Link, device: &'static Embassy) -> Self {
        Self { link: RefCell::new(link), device, attempts: Cell::new(Attempts::default()) }
    }

    /// What the server replies, or why that was not to be.
    pub(crate) async fn ask(&self, request: &Request<'_>) -> Result<Reply, Failure<LinkError>> {
        let pipeline = Standard::new()
            .with_total_timeout(IN_ALL)
            .with_retry(&RETRY)
            .with_bulkhead(&CONNECTION)
            .with_breaker(&SERVER)
            .with_attempt_timeout(PATIENCE)
            .on(self.device);
        pipeline.call(async |attempt| self.attempt(attempt.number(), request).await).await
    }

    async fn attempt(&self, number: u32, request: &Request<'_>) -> Result<Reply, LinkError> {
        self.note(|attempts| {
            attempts.begun += 1;
            attempts.probes += u32::from(SERVER.state() != StateKind::Closed);
        });
        let result = match self.link.try_borrow_mut() {
            Ok(mut link) => link.exchange(request).await,
            // The bulkhead's one permit is the right to be here: this would be a permit given twice.
            Err(_) => Err(LinkError::Shared),
        };
        self.note(|attempts| {
            attempts.count(&result);
            attempts.rescued += u32::from(number > 1 && result.is_ok());
        });
        result
    }

    fn note(&self, change: impl FnOnce(&mut Attempts)) {
        let mut attempts = self.attempts.get();
        change(&mut attempts);
        self.attempts.set(attempts);
    }

    pub(crate) fn attempts(&self) -> Attempts {
        self.attempts.get()
    }

    /// Closes the connection, once nobody uses it any more.
    pub(crate) async fn close(&self) {
        if let Ok(mut link) = self.link.try_borrow_mut() {
            link.close().await;
        }
    }

    /// Whether every permit is back and the connection closed.
    pub(crate) fn is_at_rest(&self) -> bool {
        let closed = self.link.try_borrow().is_ok_and(|link| link.is_closed());
        closed && CONNECTION.snapshot().in_use == 0 && CONNECTION.snapshot().queued == 0
    }
}

/// What the breaker did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Breaking {
    pub(crate) opened: u32,
    pub(crate) closed: u32,
    /// For how long it was not closed, until it closed last.
    lasted: embassy_time::Duration,
    since: Option<Instant>,
}

impl Breaking {
    /// How many probes there may have been: between two rounds of them lies an open period.
    pub(crate) fn most_probes(&self) -> u64 {
        let open_for = u64::try_from(LEFT_ALONE.as_micros()).unwrap_or(u64::MAX);
        self.lasted.as_micros() / open_for * u64::from(PROBES)
    }
}

/// Logs the breaker's changes, and keeps the time.
struct Watch(Mutex<CriticalSectionRawMutex, Cell<Breaking>>);

static WATCH: Watch =
    Watch(Mutex::new(Cell::new(Breaking { opened: 0, closed: 0, lasted: embassy_time::Duration::MIN, since: None })));

impl Observer<Transition> for &Watch {
    fn observe(&self, event: &Transition) {
        defmt::warn!("server: {} after {}", event.to, event.from);
        let now = Instant::now();
        self.0.lock(|cell| {
            let mut breaking = cell.get();
            match event.to {
                StateKind::Open => {
                    breaking.opened += 1;
                    breaking.since.get_or_insert(now);
                }
                StateKind::Closed => {
                    breaking.closed += 1;
                    breaking.lasted += breaking.since.take().map_or(embassy_time::Duration::MIN, |since| now - since);
                }
                _ => {}
            }
            cell.set(breaking);
        });
    }
}

/// What the breaker did so far.
pub(crate) fn breaking() -> Breaking {
    WATCH.0.lock(Cell::get)
}

/// Whether the server is trusted.
pub(crate) fn is_trusted() -> bool {
    SERVER.state() == StateKind::Closed
}
