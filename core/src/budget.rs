//! A budget of retries: what keeps retries and hedges from multiplying the load of a dependency that is in trouble.

use core::ptr;

use crate::outcome::{Outcome, Verdict};
use crate::time::Clock;

/// A budget that retries and hedges, of many calls at once, are paid from.
///
/// `()` is none: it allows everything. A reference to a budget is one, so that several policies share it.
pub trait RetryBudget {
    /// What one call has of it until it ends.
    type Spent;

    /// A call begins: its first attempt may deposit something.
    fn begin(&self, clock: &impl Clock) -> Self::Spent;

    /// A call begins within one that has already begun with this budget: nothing more is deposited for it.
    fn join(&self, clock: &impl Clock) -> Self::Spent;

    /// Whether there may be another attempt, which it is then charged for. `verdict` is that over the attempt that failed; a hedge,
    /// for which nothing has failed yet, asks with one that is [ignored](Outcome::Ignored).
    fn try_retry(&self, spent: &mut Self::Spent, verdict: Verdict, clock: &impl Clock) -> bool;

    /// The call has ended so; [ignored](Outcome::Ignored) where it was dropped.
    fn end(&self, spent: Self::Spent, outcome: Outcome);

    /// Which budget it is: two references to the same one have the same number.
    fn id(&self) -> usize {
        ptr::from_ref(self).addr()
    }
}

impl RetryBudget for () {
    type Spent = ();

    fn begin(&self, _: &impl Clock) {}

    fn join(&self, _: &impl Clock) {}

    fn try_retry(&self, (): &mut (), _: Verdict, _: &impl Clock) -> bool {
        true
    }

    fn end(&self, (): (), _: Outcome) {}

    fn id(&self) -> usize {
        0
    }
}

impl<B: RetryBudget> RetryBudget for &B {
    type Spent = B::Spent;

    fn begin(&self, clock: &impl Clock) -> B::Spent {
        (**self).begin(clock)
    }

    fn join(&self, clock: &impl Clock) -> B::Spent {
        (**self).join(clock)
    }

    fn try_retry(&self, spent: &mut B::Spent, verdict: Verdict, clock: &impl Clock) -> bool {
        (**self).try_retry(spent, verdict, clock)
    }

    fn end(&self, spent: B::Spent, outcome: Outcome) {
        (**self).end(spent, outcome);
    }

    fn id(&self) -> usize {
        (**self).id()
    }
}
