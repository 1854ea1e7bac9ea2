//! What configured policies have to say when their gauges are asked for.

use core::sync::atomic::Ordering::Relaxed;

use failsoft_core::circuit_breaker::Transition;
use failsoft_core::{Instant, Observer};

use super::{Breaker, PolicySet};
use crate::metrics::{Measure, Sheet, without_breaker};

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
        let breaker = self.circuit_breaker();
        let had = self.0.has_breaker.swap(breaker.is_some(), Relaxed);
        if had && breaker.is_none() {
            // It is switched off, and in no state: else whoever watches for an open one would see it open for ever.
            without_breaker(sheet);
        }
        ask(breaker, now, sheet);
    }
}
