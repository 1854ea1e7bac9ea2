//! The protected side: the same client, behind failsoft.
//!
//! ```text
//! fallback ▸ total timeout ▸ retry ▸ bulkhead ▸ breaker ▸ health ▸ attempt timeout ▸ client
//! ```

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use failsoft_tokio::circuit_breaker::{FailureRate, Growing, StateKind, Transition};
use failsoft_tokio::degradation::{Criticality, DegradationLevel, Service};
use failsoft_tokio::{
    Backoff, Bulkhead, CircuitBreaker, Degradation, Fallback, Jitter, Pipeline, RetryPolicy, Timeout,
};
use failsoft_tokio::{ConfigError, Failure, Observer, Ratio, Tokio, Valid, Verdict};
use failsoft_tokio::{bulkhead, circuit_breaker, degradation, retry};

use crate::client::{CallError, Client};
use crate::copies::Copies;
use crate::script::Pace;
use crate::side::{Served, Side, Substitute, Vitals};

/// Far more than a healthy upstream takes, far less than people are willing to wait.
const ATTEMPT: Duration = Duration::from_millis(300);
/// For all attempts and what lies between them: who asks has some answer by then.
const TOTAL: Duration = Duration::from_secs(1);
/// Before the second attempt; twice that before the third.
const BACKOFF: Duration = Duration::from_millis(50);
/// A healthy upstream frees a permit every few milliseconds: who waits longer than this waits for a sick one.
const QUEUE: Duration = Duration::from_millis(50);
/// Longer than an attempt, because the probes, too, get as long for their verdict; doubled when they fail.
const OPEN: Duration = Duration::from_millis(400);
/// Bounds how late a recovery is noticed.
const OPEN_AT_MOST: Duration = Duration::from_millis(800);
/// How long copies last that nobody refreshes: from then on a placeholder is the more honest answer.
const COPIES_LAST: Duration = Duration::from_secs(8);
/// Time without trouble before the level rises by one.
const DWELL: Duration = Duration::from_millis(500);

/// The names of the services whose health decides the level.
const UPSTREAM: &str = "upstream";
const COPIES: &str = "copies";

/// The client behind policies. Those that share state between calls live here.
#[derive(Debug)]
pub(crate) struct Protected {
    client: Client,
    pace: Pace,
    retry: Valid<retry::Config>,
    bulkhead: Bulkhead,
    breaker: CircuitBreaker<Growing<FailureRate>, Openings>,
    degradation: Degradation<2>,
    copies: Copies,
    retries: AtomicU64,
    rejected: AtomicU64,
}

impl Protected {
    /// A caller behind policies whose spans keep the script's pace and whose breaker's jitter comes from the seed.
    pub(crate) fn new(client: Client, pace: Pace, seed: u64) -> Result<Self, ConfigError> {
        let backoff = Backoff::exponential(pace.of(BACKOFF)).with_jitter(Jitter::Equal);
        let periods = Backoff::exponential(pace.of(OPEN)).with_cap(pace.of(OPEN_AT_MOST));
        // One probe at a time: what has just got up again is not run over.
        let breaker = circuit_breaker::Config::new()
            .with_trip(FailureRate::new(Ratio::percent(50), 20)?.with_minimum_calls(10)?)
            .with_open_backoff(periods, seed)?
            .with_probes(3)
            .with_probes_at_once(1);
        let degradation = Degradation::new(degradation::Config::new().with_dwell(pace.of(DWELL)).validate()?);
        // Without the upstream there are still copies of its answers; without those, only the minimum is left.
        degradation.register(UPSTREAM, Service::new(Criticality::Important))?;
        degradation.register(COPIES, Service::new(Criticality::Critical))?;
        Ok(Self {
            client,
            pace,
            retry: retry::Config::new().with_max_attempts(3).with_backoff(backoff).validate()?,
            bulkhead: Bulkhead::new(bulkhead::Config::new(16).with_queue(16, pace.of(QUEUE)).validate()?),
            breaker: CircuitBreaker::with_observer(breaker.validate()?, Openings::default()),
            degradation,
            copies: Copies::default(),
            retries: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
        })
    }

    /// One attempt. What it brings is kept, for worse times.
    async fn fetch(&self, item: u32) -> Result<Served, CallError> {
        let body = self.client.get(item).await?.body;
        self.copies.keep(item, body);
        self.report(COPIES, true);
        Ok(Served::Fresh)
    }

    /// The answer when all else has failed: the level decides what it is made of.
    fn instead(&self, item: u32, failure: Failure<CallError>) -> Result<Served, Failure<CallError>> {
        self.rejected.fetch_add(failure.is_rejected().into(), Ordering::Relaxed);
        if failure.inner().is_some_and(is_the_callers_fault) {
            return Err(failure);
        }
        self.report(COPIES, self.copies.were_fed_within(self.pace.of(COPIES_LAST)));
        Ok(Served::Degraded(match self.degradation.level(&Tokio) {
            DegradationLevel::Full | DegradationLevel::Degraded if self.copies.contain(item) => Substitute::Stale,
            _ => Substitute::Placeholder,
        }))
    }

    fn report(&self, service: &'static str, good: bool) {
        self.degradation.report(service, good, &Tokio).expect("it is registered");
    }
}

impl Side for Protected {
    async fn ask(&self, item: u32) -> Served {
        // Put together for each call, which costs next to nothing: so the fallback knows what it stands in for.
        let pipeline = Pipeline::new(Tokio)
            .classify(judge)
            .layer(Fallback::new(|failure| self.instead(item, failure)))
            .layer(Timeout::new(self.pace.of(TOTAL)))
            .layer(RetryPolicy::with_observer(self.retry, |_: &retry::Retrying| {
                self.retries.fetch_add(1, Ordering::Relaxed);
            }))
            .layer(&self.bulkhead)
            .layer(&self.breaker)
            .layer(self.degradation.monitor(UPSTREAM).expect("it is registered"))
            .layer(Timeout::new(self.pace.of(ATTEMPT)));
        pipeline.call(|_| self.fetch(item)).await.unwrap_or_else(|failure| Served::Failed(failure.into()))
    }

    fn vitals(&self) -> Option<Vitals> {
        Some(Vitals {
            breaker: self.breaker.state().into(),
            level: self.degradation.level(&Tokio).into(),
            openings: self.breaker.observer().0.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
        })
    }
}

/// What an attempt's result says about the upstream, and whether and when another attempt makes sense.
fn judge(result: Result<&Served, &CallError>) -> Verdict {
    match result {
        Ok(_) => Verdict::SUCCESS,
        Err(error) if is_the_callers_fault(error) => Verdict::IGNORED,
        Err(CallError::Status { retry_after: Some(wait), .. }) => Verdict::TRANSIENT.with_retry_after(*wait),
        Err(_) => Verdict::TRANSIENT,
    }
}

/// A 404 is an answer, if not the one hoped for: no breaker should open over it, and no old copy should hide it.
fn is_the_callers_fault(error: &CallError) -> bool {
    matches!(error, CallError::Status { code: 400..=499, retry_after: None })
}

/// How often the breaker has opened.
#[derive(Debug, Default)]
struct Openings(AtomicU64);

impl Observer<Transition> for Openings {
    fn observe(&self, change: &Transition) {
        self.0.fetch_add((change.to == StateKind::Open).into(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, SocketAddr};

    use failsoft_tokio::Outcome;

    use super::*;
    use crate::side::SideName;

    #[test]
    fn the_settings_make_sense_at_every_pace() {
        let nowhere = Client::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), SideName::Protected);
        for seconds in [2.0, 24.0, 50.0] {
            let protected = Protected::new(nowhere.clone(), Pace::whole_script_in(seconds), 42);
            assert_eq!(protected.err(), None, "{seconds} s");
        }
    }

    #[test]
    fn what_the_caller_did_wrong_is_not_held_against_the_upstream() {
        let status = |code, retry_after| judge(Err(&CallError::Status { code, retry_after }));
        let wait = Some(Duration::from_secs(1));
        assert_eq!(status(404, None), Verdict::IGNORED);
        assert_eq!(status(429, wait), Verdict::TRANSIENT.with_retry_after(Duration::from_secs(1)));
        assert_eq!(status(503, wait).outcome(), Outcome::Failure);
        assert!(judge(Err(&CallError::Refused)).is_retryable());
    }
}
