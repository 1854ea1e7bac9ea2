//! What configured policies have to say when their gauges are asked for.

use failsoft_core::circuit_breaker::Transition;
use failsoft_core::{Instant, Observer};

use super::{Breaker, PolicySet};
use crate::metrics::{Measure, Sheet};

impl<O: Observer<Transition>> Measure for Breaker<O> {
    fn measure(&self, now: Instant, sheet: &Sheet<'_>) {
        match self {
            Self::Consecutive(breaker) => breaker.measure(now, sheet),
            Self::Calls(breaker) => breaker.measure(now, sheet),
            Self::Time(breaker) => breaker.measure(now, sheet),
        }
    }
}

/// All of its policies that have a state, as they are by the settings in force.
impl<O: Observer<Transition>> Measure for PolicySet<O> {
    fn measure(&self, now: Instant, sheet: &Sheet<'_>) {
        fn ask(policy: Option<impl Measure>, now: Instant, sheet: &Sheet<'_>) {
            if let Some(policy) = policy {
                policy.measure(now, sheet);
            }
        }
        ask(self.budget(), now, sheet);
        ask(self.rate_limiter(), now, sheet);
        ask(self.bulkhead(), now, sheet);
        ask(self.circuit_breaker(), now, sheet);
    }
}
