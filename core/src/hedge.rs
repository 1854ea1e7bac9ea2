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
//! let replicas = [Script::new(&[Step::Hang]), Script::new(&[Step::SucceedAfter(ms(8))]), Script::new(&[])];
//! let result = executor.run(pipeline.call(|attempt| replicas[attempt.hedge() as usize].call(&executor)))?;
//! assert_eq!(result, Ok(1));
//! assert_eq!(executor.elapsed(), ms(50 + 8));
//! assert_eq!(replicas.map(|replica| (replica.calls(), replica.in_flight())), [(1, 0), (1, 0), (0, 0)]);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! A few slow answers make the tail of the latencies, and the tail is what callers of many services meet. A second try is rarely
//! slow too, so that a few per cent more load cut the tail.
//!
//! # Only what is idempotent
//! Several tries run at once, and those that lose are dropped at their current await, with what they had done by then done.
//! [`Hedge::new`] takes [`Idempotent`], by which the caller declares that this does no harm.
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
//! The failure tells the number of tries that were made, and as [`Stop`] why there was no further one.
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
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;

use crate::cell::{CellKind, Fresh, StateCell};
use crate::config::Valid;
use crate::executor::Executor;
use crate::failure::{Failure, Stop};
use crate::observe::Observer;
use crate::outcome::{Outcome, Verdict};
use crate::pipeline::{Answer, Layer, Next, Part, Role, Scope};
use crate::time::{Clock, Instant, Span};
use crate::timeout::poll_deadline;

mod delay;
mod tries;

pub use delay::{AveragePlus, Delay, Ended, FixedDelay, Latest, MINIMUM, Quantile, Unknown, WINDOW};
pub use tries::{Chain, End, Hedges, Room, Tries};

/// The declaration that what is hedged is idempotent. Whoever writes it vouches for this:
///
/// * The operation may run several times, also at the same time and at different replicas, and the world is then as if
///   it had run once. Reading is; "set to 5" is, as long as nobody else sets it; "add 5", "append" and "pay" are not, unless the
///   dependency recognises a repetition, by a key say.
/// * It may be dropped at any of its awaits, when another try has won, and do no harm by what it had done by then.
/// * Any of its answers is as good as another.
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

/// A hedge of up to `N` further tries: the delay, what is known of the latencies, and who is told.
///
/// `K` says how the latencies are shared, `D` when a try is slow; the adapters have aliases that choose `K`.
pub struct Hedge<K, const N: usize = 1, D = FixedDelay, O = ()>
where
    D: Delay,
    K: CellKind<D::Latencies>,
{
    delay: D,
    latencies: K::Cell,
    observer: O,
}

impl<K, const N: usize, D, O> fmt::Debug for Hedge<K, N, D, O>
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
        Self { delay: delay.get(), latencies: K::Cell::NEW, observer }
    }
}

impl<K, const N: usize, D, O> Hedge<K, N, D, O>
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

/// How far a call has come: the machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
struct Progress {
    // Tries so far; 0 is before the first.
    started: u32,
    // How many of them a policy within rejected.
    rejected: u32,
    // When the first one started, where latencies are looked at.
    begun: Option<Instant>,
    // When the next one starts: the clock's start is at once, its end never.
    due: Option<Instant>,
    // Why no further one starts.
    stop: Option<Stop>,
}

impl Progress {
    const IDLE: Self = Self { started: 0, rejected: 0, begun: None, due: None, stop: None };

    /// The next try starts after this delay, and never at or after the deadline.
    fn schedule<X: Executor>(&mut self, delay: Span, scope: Scope<'_, X>) {
        if delay.is_zero() {
            // Without a clock, and without a timer, which would take a tick for it.
            self.due = Some(Instant::START);
            return;
        }
        let now = scope.executor().now();
        let due = now.after(delay);
        self.due = Some(if due < scope.deadline().from(now) { due } else { Instant::MAX });
    }

    /// Whether the verdict over a failed try changes when the next one starts.
    fn heed<X: Executor>(&mut self, verdict: Verdict, scope: Scope<'_, X>) -> bool {
        let delay = match (verdict.exact_delay(), verdict.hint()) {
            (Some(delay), _) => delay,
            (None, Some(hint)) if self.due.is_some_and(|due| due < scope.executor().now().after(hint)) => hint,
            _ => return false,
        };
        self.schedule(delay, scope);
        true
    }

    fn stopped(&self) -> Option<Stop> {
        self.stop.or_else(|| (self.due == Some(Instant::MAX)).then_some(Stop::Deadline))
    }
}

pin_project_lite::pin_project! {
    /// A hedge's progress within a call, around room for its tries.
    #[derive(Debug)]
    #[cfg_attr(feature = "defmt", derive(defmt::Format))]
    pub struct HedgeState<T, E, S, H> {
        progress: Progress,
        // Should no try succeed, this is what the caller gets.
        last: Option<Answer<T, E>>,
        #[pin]
        sleep: Option<S>,
        #[pin]
        tries: H,
    }
}

impl<T, E, S, H> HedgeState<T, E, S, H> {
    /// Gives up all tries, the first one first; the state is as new again.
    fn reset<X, N>(self: Pin<&mut Self>, next: &mut N, executor: &X)
    where
        X: Executor<Sleep = S>,
        N: Next<T, E, X>,
        H: Tries<N::State>,
    {
        let mut this = self.project();
        // First, so that their permits come back even if dropping the last answer panics.
        this.tries.reset(next, executor);
        this.sleep.set(None);
        (*this.progress, *this.last) = (Progress::IDLE, None);
    }

    /// Makes room for another try, and counts it.
    fn start<X, N>(self: Pin<&mut Self>, next: &N)
    where
        X: Executor<Sleep = S>,
        N: Next<T, E, X>,
        H: Tries<N::State>,
    {
        let this = self.project();
        if let Some(mut place) = this.tries.place(this.progress.started) {
            place.set(Some(next.idle()));
        }
        this.progress.started = this.progress.started.saturating_add(1);
        this.progress.due = None;
    }

    /// Drives a try on; `None` where it is over.
    fn poll_try<X, N>(
        self: Pin<&mut Self>,
        hedge: u32,
        next: &mut N,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Option<Poll<Answer<T, E>>>
    where
        X: Executor<Sleep = S>,
        N: Next<T, E, X>,
        H: Tries<N::State>,
    {
        let mut place = self.project().tries.place(hedge)?;
        let polled = next.poll(place.as_mut().as_pin_mut()?, scope.with_hedge(hedge), cx);
        if polled.is_ready() {
            place.set(None);
        }
        Some(polled)
    }

    /// Waits until the next try is due.
    fn poll_due<X: Executor<Sleep = S>>(self: Pin<&mut Self>, scope: Scope<'_, X>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let due = this.progress.due.unwrap_or(Instant::MAX);
        if due == Instant::START {
            return Poll::Ready(());
        }
        ready!(poll_deadline(this.sleep, due, scope.executor(), cx));
        // The timer may have been late.
        let now = scope.executor().now();
        if now >= scope.deadline().from(now) {
            this.progress.due = Some(Instant::MAX);
        }
        Poll::Ready(())
    }
}

impl<K, const N: usize, D, O> Part for Hedge<K, N, D, O>
where
    D: Delay,
    K: CellKind<D::Latencies>,
{
    const ROLE: Role = Role::Hedge;

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hedge: up to {N} more, each ")?;
        self.delay.describe(f)
    }
}

impl<T, E, X, K, const N: usize, D, O> Layer<T, E, X> for Hedge<K, N, D, O>
where
    X: Executor,
    D: Delay,
    K: CellKind<D::Latencies>,
    O: Observer<Hedged>,
    Hedges<N>: Room,
{
    type State<I> = HedgeState<T, E, X::Sleep, <Hedges<N> as Room>::Tries<I>>;

    fn idle<I>(&self, _: I) -> Self::State<I> {
        // Each try's state is made when the try starts.
        HedgeState { progress: Progress::IDLE, last: None, sleep: None, tries: Tries::NONE }
    }

    #[inline]
    fn poll<M: Next<T, E, X>>(
        &self,
        mut state: Pin<&mut Self::State<M::State>>,
        next: &mut M,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        if state.progress.started == 0 {
            if D::TIMED {
                state.as_mut().project().progress.begun = Some(scope.executor().now());
            }
            state.as_mut().start(next);
        }
        let (mut hedge, mut running) = (0, false);
        loop {
            while hedge < state.progress.started {
                match state.as_mut().poll_try(hedge, next, scope, cx) {
                    Some(Poll::Ready(answer)) => {
                        if let Some(answer) = self.judge(state.as_mut(), hedge, answer, next, scope) {
                            return Poll::Ready(answer);
                        }
                    }
                    Some(Poll::Pending) => running = true,
                    None => {}
                }
                hedge = hedge.saturating_add(1);
            }
            self.plan(state.as_mut().project().progress, scope);
            if let Some(stop) = state.progress.stopped() {
                let mut this = state.as_mut().project();
                this.sleep.set(None);
                return match this.last.take_if(|_| !running) {
                    Some(last) => Poll::Ready(finish(state, last, stop, next, scope)),
                    None => Poll::Pending,
                };
            }
            ready!(state.as_mut().poll_due(scope, cx));
            if state.progress.stopped().is_none() {
                self.observer.observe(&Hedged::Started { hedge, attempt: scope.attempt() });
                state.as_mut().start(next);
            }
        }
    }

    fn reset<M: Next<T, E, X>>(&self, state: Pin<&mut Self::State<M::State>>, next: &mut M, executor: &X) {
        state.reset(next, executor);
    }
}

impl<K, const N: usize, D, O> Hedge<K, N, D, O>
where
    D: Delay,
    K: CellKind<D::Latencies>,
    Hedges<N>: Room,
{
    /// Works out when the next try starts, where that is open.
    fn plan<X: Executor>(&self, progress: &mut Progress, scope: Scope<'_, X>) {
        if progress.started > Hedges::<N>::HEDGES {
            progress.stop = progress.stop.or(Some(Stop::Attempts));
        } else if progress.stop.is_none() && progress.due.is_none() {
            progress.schedule(self.delay_span(), scope);
        }
    }

    /// What a try's answer means for the call: it ends with it, or goes on.
    fn judge<T, E, X, M, H>(
        &self,
        mut state: Pin<&mut HedgeState<T, E, X::Sleep, H>>,
        hedge: u32,
        answer: Answer<T, E>,
        next: &mut M,
        scope: Scope<'_, X>,
    ) -> Option<Answer<T, E>>
    where
        X: Executor,
        O: Observer<Hedged>,
        M: Next<T, E, X>,
        H: Tries<M::State>,
    {
        if answer.verdict.outcome() == Outcome::Success {
            return Some(self.won(state, hedge, answer, next, scope));
        }
        let rejected = answer.result.as_ref().is_err_and(Failure::is_rejected);
        if hedge == 0 && !rejected {
            self.time(Ended::Failure, state.progress, scope.executor());
        }
        let mut this = state.as_mut().project();
        if rejected {
            this.progress.rejected = this.progress.rejected.saturating_add(1);
            this.progress.stop = this.progress.stop.or(Some(Stop::Rejected));
        } else if !answer.verdict.is_retryable() {
            return Some(finish(state, answer, Stop::NotRetryable, next, scope));
        } else {
            self.plan(this.progress, scope);
            if this.progress.stop.is_none() && this.progress.heed(answer.verdict, scope) {
                this.sleep.set(None);
            }
        }
        // What the dependency said is worth more than that it was not asked.
        if !rejected || this.last.is_none() {
            *this.last = Some(answer);
        }
        None
    }

    /// A try succeeded: the call ends.
    fn won<T, E, X, M, H>(
        &self,
        mut state: Pin<&mut HedgeState<T, E, X::Sleep, H>>,
        hedge: u32,
        answer: Answer<T, E>,
        next: &mut M,
        scope: Scope<'_, X>,
    ) -> Answer<T, E>
    where
        X: Executor,
        O: Observer<Hedged>,
        M: Next<T, E, X>,
        H: Tries<M::State>,
    {
        let progress = state.progress;
        if hedge == 0 {
            self.time(Ended::Success, progress, scope.executor());
        } else if state.as_mut().project().tries.place(0).is_some_and(|first| first.is_some()) {
            self.time(Ended::Overtaken, progress, scope.executor());
        }
        state.reset(next, scope.executor());
        if progress.started > 1 {
            self.observer.observe(&Hedged::Won { hedge, attempt: scope.attempt() });
        }
        answer
    }

    /// Takes the first try's latency into account, if anybody wants it.
    fn time(&self, ended: Ended, progress: Progress, clock: &impl Clock) {
        if let Some(begun) = progress.begun
            && self.delay.counts(ended)
        {
            self.record(ended, clock.now().saturating_duration_since(begun));
        }
    }
}

/// The answer of a call in which no try succeeded, with what the hedge has to say about it.
fn finish<T, E, X, M, H>(
    state: Pin<&mut HedgeState<T, E, X::Sleep, H>>,
    mut answer: Answer<T, E>,
    stop: Stop,
    next: &mut M,
    scope: Scope<'_, X>,
) -> Answer<T, E>
where
    X: Executor,
    M: Next<T, E, X>,
    H: Tries<M::State>,
{
    let Progress { started, rejected, .. } = state.progress;
    if let Err(failure) = &mut answer.result {
        // A try that was rejected was none, unless there is nothing else.
        failure.attempts = if failure.is_rejected() { started } else { started.saturating_sub(rejected) };
        failure.stop = Some(stop);
    }
    state.reset(next, scope.executor());
    answer
}

#[cfg(test)]
mod tests;
