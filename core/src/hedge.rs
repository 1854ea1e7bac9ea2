//! A hedge: another try when the first is slow, and whichever succeeds first is the answer.
//!
//! ```
//! use core::time::Duration;
//! use failsoft_core::{Pipeline, cell::Local, hedge::{FixedDelay, Hedge, Idempotent}};
//! use failsoft_core::testing::{Script, Step, VirtualExecutor};
//!
//! let ms = Duration::from_millis;
//! let executor = VirtualExecutor::new();
//! let hedge: Hedge<Local, 2> = Hedge::new(FixedDelay::new(ms(50)), Idempotent);
//! let pipeline = Pipeline::new(&executor).layer(&hedge);
//!
//! // The first replica hangs, the second answers.
//! let (hangs, answers) = ([Step::Hang], [Step::SucceedAfter(ms(8))]);
//! let replicas = [Script::new(&hangs), Script::new(&answers), Script::new(&[])];
//! let result = executor.run(pipeline.call(|attempt| replicas[attempt.hedge() as usize].call(&executor)))?;
//! assert_eq!(result, Ok(1));
//! assert_eq!(executor.elapsed(), ms(50 + 8));
//! assert_eq!(replicas.each_ref().map(|replica| (replica.calls(), replica.in_flight())), [(1, 0), (1, 0), (0, 0)]);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! A few slow answers make the tail of the latencies, and the tail is what callers of many services meet. A second try is rarely
//! slow too, so that a few per cent more load cut the tail.
//!
//! # Only what is idempotent
//! Several tries run at once, and those that lose are dropped at their current await, with what they had done by then done.
//! [`Hedge::new`] takes [`Idempotent`], by which the caller declares that this does no harm. They are dropped before the answer is given:
//! what is slow to drop delays it, and what panics when it is dropped takes it along.
//!
//! # How it goes
//! The first try starts at once, the others each a [delay](Delay) after the one before it. All tries are polled in the order in
//! which they were started, in the caller's task, and are everything within the hedge once more: each has its own permits and its own
//! timeouts. The operation learns [which try it is](crate::pipeline::Attempt::hedge), and can ask another replica.
//!
//! | what happens | what follows |
//! | --- | --- |
//! | a try succeeds | that is the answer; the others are dropped, in the order in which they were started |
//! | a try fails, and the verdict is retryable | nothing: the next try starts when it is due, no sooner, also where no other is under way |
//! | … and the classifier gave a delay | the next try is due after that delay instead; `Duration::MAX` is never |
//! | … and the server gave a hint | the next try is due no sooner than that |
//! | a try fails, and the verdict is not retryable | that is the answer, at once; the others are dropped |
//! | a policy within rejects a try | no further try starts; those that are under way go on |
//! | the budget refuses | likewise |
//! | the next try would start at or after the deadline | likewise |
//! | no try is under way, and no further one starts | the last failure is the answer, a rejection only where there is no other |
//!
//! So a breaker that is open within a hedge fails the call at once, and a bulkhead that is full costs no more than the hedges. A
//! rejection is no failure of the dependency: its verdict says so to the policies around. To go on after one's own rejections,
//! put the policies that reject around the operation itself, and let the classifier decide.
//!
//! The [budget](crate::budget::RetryBudget) is charged one for each further try: when it starts because those before it are slow; or when one of
//! those fails and others may follow, and then the next try is paid for. A budget that refuses stops further hedges. Retries
//! may share it: a hedge within a retry of the same budget does not deposit anything of its own.
//!
//! The failure tells the number of tries that were made, and as [`Stop`](crate::Stop) why there was no further one.
//!
//! # Defaults
//!
//! | what | default | range | at the extremes |
//! | --- | --- | --- | --- |
//! | hedges | 1 (`Hedge<K, N>`) | 1 to 7 | each takes the room of everything within the hedge |
//! | delay | none: say which | any | zero starts all tries at once; `Duration::MAX` starts no other |
//! | [quantile](Quantile): window | [`WINDOW`] (500 latencies) | twice the minimum or more | few: unsteady; many: slow to follow |
//! | quantile: minimum | [`MINIMUM`] (20 latencies) | 1 or more | until then its initial delay holds |
//! | [average plus](AveragePlus): percentage | 100 % | any | 0 % leaves the constant alone |
//!
//! # What it costs
//! An operation that is ready at once reads no clock and arms no timer when the delay is fixed. A delay that follows the latencies
//! costs two readings of the clock per call, at the beginning and at the end, and one update of the cell; and one look at it for each
//! try that is not ready at once.
//!
//! # When not to use it
//! For what is not idempotent. And where the dependency is slow because it is saturated: hedges are more load for it, most of it
//! when it can bear it least. A delay near the 95 % quantile and a budget bound that load to a few per cent.
//!
//! # Source
//! Dean and Barroso, "The Tail at Scale", 2013; the rules are those of gRPC's proposal A6 as grpc-java implements it; "average plus"
//! is from Resilience4j.

use core::fmt;
use core::time::Duration;

use crate::cell::{CellKind, Fresh, StateCell};
use crate::config::Valid;
use crate::time::Span;

mod delay;
mod layer;
mod tries;

pub use delay::{AveragePlus, Delay, Ended, FixedDelay, Latest, MINIMUM, Quantile, Unknown, WINDOW};
pub use layer::HedgeState;
pub use tries::{Chain, End, Hedges, Room, Tries};

/// The declaration that what is hedged is idempotent. Whoever writes it vouches for this:
///
/// * The operation may run several times, also at the same time and at different replicas, and the world is then as if
///   it had run once. Reading is; "set to 5" is, as long as nobody else sets it; "add 5", "append" and "pay" are not, unless the
///   dependency recognises a repetition, by a key say.
/// * It may be dropped at any of its awaits, when another try has won, and do no harm by what it had done by then.
/// * Any of its answers is as good as another.
///
/// ```compile_fail
/// use core::time::Duration;
/// use failsoft_core::{cell::Local, hedge::{FixedDelay, Hedge}};
///
/// // error: this function takes 2 arguments
/// let hedge: Hedge<Local> = Hedge::new(FixedDelay::new(Duration::from_millis(50)));
/// ```
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Idempotent;

/// What a hedge does.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Hedged {
    /// The tries before were slow: another one starts.
    Started {
        /// Which hedge it is; the first is 1.
        hedge: u32,
        /// The attempt that is hedged: more than 1 within a retry.
        attempt: u32,
    },
    /// A call that had been hedged succeeded, and the other tries are dropped.
    Won {
        /// By which hedge; 0 is the first try.
        hedge: u32,
        /// The attempt that was hedged.
        attempt: u32,
    },
}

/// A hedge of up to `N` further tries: the delay, what is known of the latencies, who is told, and what it is paid from.
///
/// `K` says how the latencies are shared, `D` when a try is slow, `B` is a [budget](crate::budget::RetryBudget); the adapters have aliases that choose `K`.
pub struct Hedge<K, const N: usize = 1, D = FixedDelay, O = (), B = ()>
where
    D: Delay,
    K: CellKind<D::Latencies>,
{
    delay: D,
    latencies: K::Cell,
    observer: O,
    budget: B,
}

impl<K, const N: usize, D, O, B> fmt::Debug for Hedge<K, N, D, O, B>
where
    D: Delay,
    K: CellKind<D::Latencies>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hedge").field("delay", &self.delay).finish_non_exhaustive()
    }
}

impl<K, const N: usize, D> Hedge<K, N, D>
where
    D: Delay,
    K: CellKind<D::Latencies>,
    Hedges<N>: Room,
{
    /// A hedge of operations that are [declared idempotent](Idempotent).
    #[must_use]
    pub const fn new(delay: Valid<D>, idempotent: Idempotent) -> Self {
        Self::with_observer(delay, idempotent, ())
    }
}

impl<K, const N: usize, D, O> Hedge<K, N, D, O>
where
    D: Delay,
    K: CellKind<D::Latencies>,
    Hedges<N>: Room,
{
    /// A hedge of operations that are [declared idempotent](Idempotent), and who is told of each further try and of
    /// the winner.
    #[must_use]
    pub const fn with_observer(delay: Valid<D>, _: Idempotent, observer: O) -> Self {
        Self { delay: delay.get(), latencies: K::Cell::NEW, observer, budget: () }
    }
}

impl<K, const N: usize, D, O, B> Hedge<K, N, D, O, B>
where
    D: Delay,
    K: CellKind<D::Latencies>,
    Hedges<N>: Room,
{
    /// A hedge of operations that are [declared idempotent](Idempotent), who is told, and the budget, which retries may share, that
    /// is charged for each further try.
    #[must_use]
    pub const fn with_budget(delay: Valid<D>, _: Idempotent, observer: O, budget: B) -> Self {
        Self { delay: delay.get(), latencies: K::Cell::NEW, observer, budget }
    }
}

impl<K, const N: usize, D, O, B> Hedge<K, N, D, O, B>
where
    D: Delay,
    K: CellKind<D::Latencies>,
{
    /// How long a try may take now before the next one starts.
    pub fn delay(&self) -> Duration {
        self.delay_span().duration()
    }

    /// Takes the latency of a first try into account. The driver does that; it is public for those who keep their own loop.
    pub fn record(&self, ended: Ended, took: Duration) {
        if D::TIMED && self.delay.counts(ended) {
            self.latencies.update(|latencies| self.delay.record(latencies, Span::of(took)));
        }
    }

    fn delay_span(&self) -> Span {
        // Where no latencies are looked at the cell isn't either.
        if D::TIMED {
            self.latencies.read(|latencies| self.delay.delay(latencies))
        } else {
            self.delay.delay(&D::Latencies::FRESH)
        }
    }
}

#[cfg(test)]
mod tests;
