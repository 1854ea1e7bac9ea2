//! Events through the `tracing` facade.

use failsoft_core::adaptive::LimitChange;
use failsoft_core::adaptive_rate::{Rate, RateCut};
use failsoft_core::chaos::Injected;
use failsoft_core::circuit_breaker::{StateKind, Transition};
use failsoft_core::degradation::{Level, LevelChange};
use failsoft_core::hedge::Hedged;
use failsoft_core::last_good::Served;
use failsoft_core::retry::Retrying;
use failsoft_core::{Instant, Observer};

/// An observer for every policy: one `tracing` event per event, under the name of the policy's instance.
///
/// What takes function away is a warning, and so is an answer that is stale; what brings it back or is injected on purpose is information; a
/// retry, a hedge or an answer that is fresh is for debugging.
#[derive(Clone, Copy, Debug)]
pub struct Tracing {
    name: &'static str,
}

impl Tracing {
    /// Events under this name.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name }
    }
}

impl Observer<Transition> for Tracing {
    fn observe(&self, event: &Transition) {
        let Transition { from, to, generation, reopened, counts, until } = *event;
        let (name, until) = (self.name, until.map(Instant::as_nanos));
        let (calls, failures, slow) = (counts.calls, counts.failures, counts.slow);
        if matches!(to, StateKind::Open | StateKind::Isolated) {
            tracing::warn!(name, ?from, ?to, generation, reopened, calls, failures, slow, until, "circuit breaker");
        } else {
            tracing::info!(name, ?from, ?to, generation, reopened, calls, failures, slow, until, "circuit breaker");
        }
    }
}

impl Observer<Retrying> for Tracing {
    fn observe(&self, event: &Retrying) {
        tracing::debug!(name = self.name, attempt = event.attempt, at = event.at.as_nanos(), "retry");
    }
}

impl Observer<Hedged> for Tracing {
    fn observe(&self, event: &Hedged) {
        match *event {
            Hedged::Started { hedge, attempt } => tracing::debug!(name = self.name, attempt, hedge, "hedge started"),
            Hedged::Won { hedge, attempt } => tracing::debug!(name = self.name, attempt, hedge, "hedge won"),
        }
    }
}

impl Observer<LimitChange> for Tracing {
    fn observe(&self, event: &LimitChange) {
        let LimitChange { from, to } = *event;
        tracing::debug!(name = self.name, from, to, "adaptive limit");
    }
}

impl Observer<Injected> for Tracing {
    fn observe(&self, event: &Injected) {
        tracing::info!(name = self.name, call = event.call, kind = ?event.kind, "chaos injected");
    }
}

/// Rates in millionths of a call per second.
impl Observer<RateCut> for Tracing {
    fn observe(&self, event: &RateCut) {
        let RateCut { from, to, measured, at } = *event;
        let (from, to, measured) = (from.map(Rate::as_millionths), to.as_millionths(), measured.as_millionths());
        tracing::warn!(name = self.name, from, to, measured, at = at.as_nanos(), "adaptive rate");
    }
}

impl Observer<Served> for Tracing {
    fn observe(&self, event: &Served) {
        let (age, stale) = (event.age(), event.is_stale());
        if stale {
            tracing::warn!(name = self.name, ?age, stale, "last good value");
        } else {
            tracing::debug!(name = self.name, ?age, stale, "last good value");
        }
    }
}

impl<L: Level> Observer<LevelChange<L>> for Tracing {
    fn observe(&self, event: &LevelChange<L>) {
        let LevelChange { from, to, at } = *event;
        let (name, at) = (self.name, at.as_nanos());
        if to.step() > from.step() {
            tracing::warn!(name, ?from, ?to, at, "degradation level");
        } else {
            tracing::info!(name, ?from, ?to, at, "degradation level");
        }
    }
}
