//! Events as counters.

use core::fmt;
use core::time::Duration;
use std::sync::OnceLock;

use failsoft_core::adaptive::LimitChange;
use failsoft_core::adaptive_rate::RateCut;
use failsoft_core::chaos::{Injected, Kind};
use failsoft_core::circuit_breaker::{StateKind, Transition};
use failsoft_core::degradation::{Level, LevelChange};
use failsoft_core::hedge::Hedged;
use failsoft_core::last_good::Served;
use failsoft_core::retry::Retrying;
use failsoft_core::supervisor::TaskChange;
use failsoft_core::{Called, Observer, Outcome};
use metrics::{Counter, counter};

use super::{STATES, names};

/// An observer for every policy: it counts events, under the name of the policy's instance; see the [module](super).
///
/// The counters of a kind of event are made with the first of that kind, from zero, and kept: from then on an event is one addition,
/// without an allocation or a lock of ours. A circuit breaker also tells of each call, which is an addition per call. Where
/// [`Metered`](super::Metered) counts the calls already, a closure leaves them out:
///
/// ```
/// use failsoft_tokio::circuit_breaker::{Config, Transition};
/// use failsoft_tokio::{CircuitBreaker, Metrics, Observer};
///
/// let metrics = Metrics::new("payments");
/// let changes = move |event: &Transition| metrics.observe(event);
/// let breaker: CircuitBreaker<_, _> = CircuitBreaker::with_observer(Config::new().validate()?, changes);
/// # assert!(breaker.try_acquire(failsoft_tokio::Instant::START).is_ok());
/// # Ok::<(), failsoft_tokio::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Metrics<N = &'static str> {
    name: N,
    breaker: OnceLock<Breaker>,
    retries: OnceLock<Counter>,
    hedges: OnceLock<Hedges>,
    limits: OnceLock<[Counter; 2]>,
    rate_cuts: OnceLock<Counter>,
    injections: OnceLock<[Counter; 4]>,
    served: OnceLock<[Counter; 2]>,
    levels: OnceLock<[Counter; 2]>,
    tasks: OnceLock<[Counter; 2]>,
}

#[derive(Clone)]
struct Breaker {
    would_open: Counter,
    to: [Counter; 6],
    calls: [Counter; 6],
}

#[derive(Clone)]
struct Hedges {
    started: Counter,
    won: [Counter; 2],
}

impl<N> Metrics<N> {
    /// Counters under this name: a `&'static str`, or an owned string that comes from a file, say.
    #[must_use]
    pub const fn new(name: N) -> Self {
        Self {
            name,
            breaker: OnceLock::new(),
            retries: OnceLock::new(),
            hedges: OnceLock::new(),
            limits: OnceLock::new(),
            rate_cuts: OnceLock::new(),
            injections: OnceLock::new(),
            served: OnceLock::new(),
            levels: OnceLock::new(),
            tasks: OnceLock::new(),
        }
    }
}

impl<N: AsRef<str>> fmt::Debug for Metrics<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("name", &self.name.as_ref()).finish_non_exhaustive()
    }
}

/// What becomes of a breaker's calls.
const RESULTS: [(Called, &str); 6] = [
    (Called::Recorded(Outcome::Success), "success"),
    (Called::Recorded(Outcome::Failure), "failure"),
    (Called::Recorded(Outcome::Ignored), "ignored"),
    (Called::Rejected, "rejected"),
    (Called::Abandoned, "abandoned"),
    (Called::Late, "late"),
];

impl<N: AsRef<str>> Metrics<N> {
    fn one(&self, metric: &'static str) -> Counter {
        counter!(metric, "name" => self.name.as_ref().to_owned())
    }

    /// A counter for each value of the label.
    fn each<const M: usize>(
        &self,
        metric: &'static str,
        label: &'static str,
        values: [&'static str; M],
    ) -> [Counter; M] {
        values.map(|value| counter!(metric, "name" => self.name.as_ref().to_owned(), label => value))
    }

    fn breaker(&self) -> &Breaker {
        self.breaker.get_or_init(|| Breaker {
            would_open: self.one(names::WOULD_OPEN),
            to: self.each(names::TRANSITIONS, "to", STATES.map(StateKind::as_str)),
            calls: self.each(names::BREAKER_CALLS, "result", RESULTS.map(|(_, name)| name)),
        })
    }
}

impl<N: AsRef<str>> Observer<Transition> for Metrics<N> {
    fn observe(&self, event: &Transition) {
        let Breaker { would_open, to, .. } = self.breaker();
        if (event.from, event.to) == (StateKind::MetricsOnly, StateKind::Open) {
            return would_open.increment(1);
        }
        // There is one for each state.
        let _ = STATES.iter().zip(to).find(|(state, _)| **state == event.to).map(|(_, to)| to.increment(1));
    }

    #[inline]
    fn called(&self, called: Called) {
        // All but those that are under way are counted by their end.
        let calls = &self.breaker().calls;
        let _ =
            RESULTS.iter().zip(calls).find(|((result, _), _)| *result == called).map(|(_, count)| count.increment(1));
    }
}

impl<N: AsRef<str>> Observer<Retrying> for Metrics<N> {
    fn observe(&self, _: &Retrying) {
        self.retries.get_or_init(|| self.one(names::RETRIES)).increment(1);
    }
}

impl<N: AsRef<str>> Observer<Hedged> for Metrics<N> {
    fn observe(&self, event: &Hedged) {
        let Hedges { started, won: [by_first, by_hedge] } = self.hedges.get_or_init(|| Hedges {
            started: self.one(names::HEDGES),
            won: self.each(names::HEDGES_WON, "by", ["first", "hedge"]),
        });
        match event {
            Hedged::Started { .. } => started.increment(1),
            Hedged::Won { hedge: 0, .. } => by_first.increment(1),
            Hedged::Won { .. } => by_hedge.increment(1),
        }
    }
}

impl<N: AsRef<str>> Observer<LimitChange> for Metrics<N> {
    fn observe(&self, event: &LimitChange) {
        let [down, up] = self.limits.get_or_init(|| self.each(names::LIMIT_CHANGES, "direction", ["down", "up"]));
        if event.to < event.from { down } else { up }.increment(1);
    }
}

impl<N: AsRef<str>> Observer<RateCut> for Metrics<N> {
    fn observe(&self, _: &RateCut) {
        self.rate_cuts.get_or_init(|| self.one(names::RATE_CUTS)).increment(1);
    }
}

impl<N: AsRef<str>> Observer<Injected> for Metrics<N> {
    fn observe(&self, event: &Injected) {
        const KINDS: [&str; 4] = [
            Kind::Fault.as_str(),
            Kind::Latency(Duration::ZERO).as_str(),
            Kind::Fake.as_str(),
            Kind::Behaviour.as_str(),
        ];
        let counters = self.injections.get_or_init(|| self.each(names::INJECTIONS, "kind", KINDS));
        let kind = event.kind.as_str();
        let _ = KINDS.iter().zip(counters).find(|(name, _)| **name == kind).map(|(_, count)| count.increment(1));
    }
}

impl<N: AsRef<str>> Observer<Served> for Metrics<N> {
    fn observe(&self, event: &Served) {
        let [fresh, stale] = self.served.get_or_init(|| self.each(names::SERVED, "age", ["fresh", "stale"]));
        if event.is_stale() { stale } else { fresh }.increment(1);
    }
}

impl<N: AsRef<str>, L: Level> Observer<LevelChange<L>> for Metrics<N> {
    fn observe(&self, event: &LevelChange<L>) {
        let [down, up] = self.levels.get_or_init(|| self.each(names::LEVEL_CHANGES, "direction", ["down", "up"]));
        if event.to.step() > event.from.step() { down } else { up }.increment(1);
    }
}

/// Under the supervisor's name, not the task's.
impl<N: AsRef<str>> Observer<TaskChange> for Metrics<N> {
    fn observe(&self, event: &TaskChange) {
        let [back, stalled] = self.tasks.get_or_init(|| self.each(names::TASK_CHANGES, "to", ["alive", "stalled"]));
        if event.stalled { stalled } else { back }.increment(1);
    }
}
