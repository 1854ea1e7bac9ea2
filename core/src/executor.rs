//! What the async driver needs from its surroundings: the time, a way to sleep, and randomness.

use crate::time::{Clock, Instant};

/// The abstract executor: an adapter implements it once, and every policy runs on it.
///
/// There is no `spawn`: policies are polled in the caller's own task, so nothing outlives the call and nothing is
/// allocated.
pub trait Executor: Clock {
    /// Completes when the clock has reached a given instant: with the first poll from then on, whatever has become of its alarm. Who
    /// waits asks the sleep, and reads the clock only when it has completed. Only a runtime that can lose no alarm may have sleeps that
    /// complete no sooner than it has rung.
    type Sleep: Future<Output = ()>;

    /// Sleeps until `at`. An instant that is past completes at the first poll; waking early or late is harmless, since
    /// whoever waits reads the clock again.
    fn sleep_until(&self, at: Instant) -> Self::Sleep;

    /// The next random number, for jitter. Two devices, or two boots, must not share the sequence.
    fn random(&self) -> u32;
}

impl<X: Executor + ?Sized> Executor for &X {
    type Sleep = X::Sleep;

    fn sleep_until(&self, at: Instant) -> Self::Sleep {
        (**self).sleep_until(at)
    }

    fn random(&self) -> u32 {
        (**self).random()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::VirtualExecutor;

    #[test]
    fn behind_a_reference_it_is_the_same_executor() {
        fn draw<X: Executor>(executor: &X) -> [u32; 3] {
            [(); 3].map(|()| executor.random())
        }
        let [one, other] = [(); 2].map(|()| VirtualExecutor::<1>::seeded(1));
        let (executor, reference) = (&other, &&one);
        assert_eq!(draw(&reference), draw(&executor));
    }
}
