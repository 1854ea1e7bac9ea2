//! The hedge as a part of a pipeline.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use super::{Delay, Ended, Hedge, Hedged, Hedges, Room, Tries};
use crate::budget::RetryBudget;
use crate::cell::CellKind;
use crate::executor::Executor;
use crate::failure::{Failure, Stop};
use crate::observe::Observer;
use crate::outcome::{Outcome, Verdict};
use crate::pipeline::{Answer, Layer, Next, Part, Role, Scope};
use crate::time::{Clock, Instant, Span};
use crate::timeout::poll_deadline;

/// What the budget is told of a try that is slow: nothing has failed.
const SLOW: Verdict = Verdict::IGNORED.with_retryable(true);

/// How far a call has come: the machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
struct Progress {
    // Tries so far; 0 is before the first.
    started: u32,
    // How many of them a policy within rejected.
    rejected: u32,
    // Tries that are paid for, and not started yet.
    paid: u32,
    // When the first one started, where latencies are looked at.
    begun: Option<Instant>,
    // When the next one starts: the clock's start is at once, its end never.
    due: Option<Instant>,
    // Why no further one starts.
    stop: Option<Stop>,
}

impl Progress {
    const IDLE: Self = Self { started: 0, rejected: 0, paid: 0, begun: None, due: None, stop: None };

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
    pub struct HedgeState<T, E, S, P, H> {
        progress: Progress,
        // What the call has of the budget.
        spent: Option<P>,
        // Should no try succeed, this is what the caller gets.
        last: Option<Answer<T, E>>,
        #[pin]
        sleep: Option<S>,
        #[pin]
        tries: H,
    }
}

/// The state of a call on the executor `X`.
type Held<'s, T, E, X, P, H> = Pin<&'s mut HedgeState<T, E, <X as Executor>::Sleep, P, H>>;

impl<T, E, S, P, H> HedgeState<T, E, S, P, H> {
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
        let this = self.project();
        let mut place = this.tries.place(hedge)?;
        let polled = next.poll(place.as_mut().as_pin_mut()?, scope.with_hedge(hedge), cx);
        if !next.is_repeatable() {
            this.progress.stop = this.progress.stop.or(Some(Stop::NotRetryable));
        }
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

impl<K, const N: usize, D, O, B> Part for Hedge<K, N, D, O, B>
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

impl<T, E, X, K, const N: usize, D, O, B> Layer<T, E, X> for Hedge<K, N, D, O, B>
where
    X: Executor,
    D: Delay,
    K: CellKind<D::Latencies>,
    O: Observer<Hedged>,
    B: RetryBudget,
    Hedges<N>: Room,
{
    type State<I> = HedgeState<T, E, X::Sleep, B::Spent, <Hedges<N> as Room>::Tries<I>>;

    fn idle<I>(&self, _: I) -> Self::State<I> {
        // Each try's state is made when the try starts.
        HedgeState { progress: Progress::IDLE, spent: None, last: None, sleep: None, tries: Tries::NONE }
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
            self.begin(state.as_mut(), scope);
            state.as_mut().start(next);
        }
        let scope = scope.with_begun(self.budget.id());
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
                    Some(last) => Poll::Ready(self.finish(state, last, stop, next, scope)),
                    None => Poll::Pending,
                };
            }
            ready!(state.as_mut().poll_due(scope, cx));
            if self.pays(state.as_mut(), scope) {
                self.observer.observe(&Hedged::Started { hedge, attempt: scope.attempt() });
                state.as_mut().start(next);
            }
        }
    }

    fn reset<M: Next<T, E, X>>(&self, state: Pin<&mut Self::State<M::State>>, next: &mut M, executor: &X) {
        self.end(state, Outcome::Ignored, next, executor);
    }
}

impl<K, const N: usize, D, O, B> Hedge<K, N, D, O, B>
where
    D: Delay,
    K: CellKind<D::Latencies>,
    B: RetryBudget,
    Hedges<N>: Room,
{
    /// A call begins.
    fn begin<T, E, X: Executor, H>(&self, state: Held<'_, T, E, X, B::Spent, H>, scope: Scope<'_, X>) {
        let (this, executor) = (state.project(), scope.executor());
        if D::TIMED {
            this.progress.begun = Some(executor.now());
        }
        let begun = scope.has_begun(self.budget.id());
        *this.spent = Some(if begun { self.budget.join(executor) } else { self.budget.begin(executor) });
    }

    /// Whether the next try, which is due, is paid for: by a failure before it, or now.
    fn pays<T, E, X: Executor, H>(&self, state: Held<'_, T, E, X, B::Spent, H>, scope: Scope<'_, X>) -> bool {
        let this = state.project();
        if this.progress.stopped().is_some() {
            return false;
        }
        if let Some(left) = this.progress.paid.checked_sub(1) {
            this.progress.paid = left;
            return true;
        }
        self.charge(this.progress, this.spent, SLOW, scope)
    }

    /// Asks the budget for another try.
    fn charge<X: Executor>(
        &self,
        progress: &mut Progress,
        spent: &mut Option<B::Spent>,
        verdict: Verdict,
        scope: Scope<'_, X>,
    ) -> bool {
        let allowed = spent.as_mut().is_none_or(|spent| self.budget.try_retry(spent, verdict, scope.executor()));
        if !allowed {
            progress.stop = progress.stop.or(Some(Stop::Budget));
        }
        allowed
    }

    /// The call has ended so: gives everything up.
    fn end<T, E, X, M, H>(
        &self,
        mut state: Held<'_, T, E, X, B::Spent, H>,
        outcome: Outcome,
        next: &mut M,
        executor: &X,
    ) where
        X: Executor,
        M: Next<T, E, X>,
        H: Tries<M::State>,
    {
        // First, so that it is done even if giving up a try panics.
        if let Some(spent) = state.as_mut().project().spent.take() {
            self.budget.end(spent, outcome);
        }
        state.reset(next, executor);
    }

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
        mut state: Held<'_, T, E, X, B::Spent, H>,
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
            return Some(self.finish(state, answer, Stop::NotRetryable, next, scope));
        } else {
            self.plan(this.progress, scope);
            // The failure pays for the try that is to follow, while there is one: so the budget learns of it.
            if this.progress.stop.is_none() && self.charge(this.progress, this.spent, answer.verdict, scope) {
                this.progress.paid = this.progress.paid.saturating_add(1);
                if this.progress.heed(answer.verdict, scope) {
                    this.sleep.set(None);
                }
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
        mut state: Held<'_, T, E, X, B::Spent, H>,
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
        self.end(state, Outcome::Success, next, scope.executor());
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

    /// The answer of a call in which no try succeeded, with what the hedge has to say about it.
    fn finish<T, E, X, M, H>(
        &self,
        state: Held<'_, T, E, X, B::Spent, H>,
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
        self.end(state, answer.verdict.outcome(), next, scope.executor());
        answer
    }
}
