//! Retry: another attempt after a failure, a little later each time.
//!
//! ```
//! use core::time::Duration;
//! use failsoft_core::{Pipeline, Stop, retry::{Config, RetryPolicy}, testing::{Script, Step, VirtualExecutor}};
//!
//! let executor = VirtualExecutor::new();
//! let retry = RetryPolicy::new(Config::new().with_max_attempts(4).validate()?);
//! let pipeline = Pipeline::new(&executor).layer(retry);
//!
//! let service = Script::new(&[Step::Fail, Step::Fail, Step::Succeed]);
//! assert_eq!(executor.run(pipeline.call(|_| service.call(&executor))), Ok(Ok(3)));
//!
//! let service = Script::new(&[Step::Fail]);
//! let failure = executor.run(pipeline.call(|_| service.call(&executor))).expect("it ends").unwrap_err();
//! assert_eq!((failure.attempts, failure.stop), (4, Some(Stop::Attempts)));
//! # Ok::<(), failsoft_core::ConfigError>(())
//! ```
//!
//! The caller always gets the last attempt's own error, inside ours, with the number of attempts and why there was no
//! further one. Where a policy within rejects a further attempt (the breaker has opened meanwhile), that is the error of the
//! last attempt that was made.
//!
//! A [budget](crate::budget), shared with other policies and with hedges, keeps the retries of all callers together from
//! multiplying the load. It is asked last: only for a retry that would be made.
//!
//! # Defaults
//!
//! | what | default | range | at the extremes |
//! | --- | --- | --- | --- |
//! | attempts | [`ATTEMPTS`] (3), the first included | 1 or more | 1 never retries; `u32::MAX` is limited by time alone |
//! | delays | 1 s, doubling, at most 60 s, ± 10 % | see [`backoff`](crate::backoff) | |
//! | total time | none | above zero | no sleep that would outlast it: gives up at once. An attempt may begin just before its end |
//! | a server's hint | at least that long | any | nothing but the total time and timeouts around bounds it: have one of them |
//! | rejections by one's own policies | not retried | | |
//! | budget | none | see [`budget`](crate::budget) | |
//!
//! # When not to use it
//! For operations that are not idempotent: any error is retried, unless a classifier calls it permanent, or the operation itself says that
//! it [may not be repeated](crate::pipeline::Operation::is_repeatable). And at more than one level of a call chain, since the attempts multiply.
//!
//! # Source
//! Brooker, "Timeouts, retries and backoff with jitter", Amazon Builders' Library; Retry-After as in RFC 9110, section 10.2.3.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;

use crate::backoff::Backoff;
use crate::budget::{Open, RetryBudget};
use crate::config::{ConfigError, Valid, refuse};
use crate::executor::Executor;
use crate::failure::{Failure, Rejected, Stop};
use crate::observe::Observer;
use crate::outcome::{Outcome, Verdict};
use crate::pipeline::{Answer, Deadline, Layer, Next, Part, Role, Scope};
use crate::time::{Clock, Instant, Span};
use crate::timeout::poll_deadline;

/// The most attempts, the first included, unless said otherwise.
pub const ATTEMPTS: u32 = 3;

/// The settings of a retry policy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Config {
    max_attempts: u32,
    backoff: Backoff,
    total: Span,
    rejections: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

impl Config {
    /// The defaults, as in the [module's table](self#defaults).
    #[must_use]
    pub const fn new() -> Self {
        Self { max_attempts: ATTEMPTS, backoff: Backoff::new(), total: Span::MAX, rejections: false }
    }

    /// At most so many attempts, the first included.
    #[must_use]
    pub const fn with_max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// With these delays.
    #[must_use]
    pub const fn with_backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Starts no attempt later than this after the call had first to wait or failed.
    #[must_use]
    pub const fn with_total_time(mut self, total: Duration) -> Self {
        self.total = Span::of(total);
        self
    }

    /// Retries the rejections of the policies within too, not before they say that it makes sense.
    #[must_use]
    pub const fn with_rejections(mut self) -> Self {
        self.rejections = true;
        self
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    /// The first field that doesn't, and why.
    pub const fn validate(self) -> Result<Valid<Self>, ConfigError> {
        match self.check() {
            Ok(()) => Ok(Valid::vouched(self)),
            Err(error) => Err(error),
        }
    }

    const fn check(&self) -> Result<(), ConfigError> {
        if self.max_attempts == 0 {
            return Err(refuse!("max_attempts", "is zero: the operation would never run"));
        }
        if self.total.is_zero() {
            return Err(refuse!("total_time", "is zero"));
        }
        self.backoff.check()
    }
}

/// What a retry is about to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Retrying {
    /// The attempt that failed.
    pub attempt: u32,
    /// When the next one starts.
    pub at: Instant,
}

/// A retry policy, who is told of the retries, and the [budget](RetryBudget) that they are paid from.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RetryPolicy<O = (), B = ()> {
    config: Config,
    observer: O,
    budget: B,
}

impl RetryPolicy {
    /// A policy of these settings.
    #[must_use]
    pub const fn new(config: Valid<Config>) -> Self {
        Self::with_observer(config, ())
    }
}

impl<O> RetryPolicy<O> {
    /// A policy of these settings, and who is told of each retry before its delay.
    #[must_use]
    pub const fn with_observer(config: Valid<Config>, observer: O) -> Self {
        Self::with_budget(config, observer, ())
    }
}

impl<O, B> RetryPolicy<O, B> {
    /// A policy of these settings, who is told of each retry before its delay, and the budget that pays for them.
    #[must_use]
    pub const fn with_budget(config: Valid<Config>, observer: O, budget: B) -> Self {
        Self { config: config.get(), observer, budget }
    }
}

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Decision {
    /// Another attempt, after this delay.
    RetryAfter(Duration),
    /// No further attempt.
    Stop(Stop),
}

impl<O, B> RetryPolicy<O, B> {
    /// What follows attempt number `attempt` with this verdict, when it ended at `now` and everything ends at `deadline`.
    /// `previous` is the delay before that attempt, `random` is evenly distributed.
    ///
    /// The driver asks this; it is public for those who keep their own loop. It does not ask the budget.
    #[must_use]
    pub fn decide(
        &self,
        attempt: u32,
        verdict: Verdict,
        previous: Duration,
        random: u32,
        now: Instant,
        deadline: Instant,
    ) -> Decision {
        if let Some(stop) = self.stops(attempt, verdict) {
            return Decision::Stop(stop);
        }
        match self.next_delay(attempt, verdict, Span::of(previous), random) {
            delay if now.after(delay) >= deadline => Decision::Stop(Stop::Deadline),
            delay => Decision::RetryAfter(delay.duration()),
        }
    }

    /// Why there is no further attempt, as far as that can be said without the time.
    #[inline]
    fn stops(&self, attempt: u32, verdict: Verdict) -> Option<Stop> {
        if !verdict.is_retryable() {
            Some(Stop::NotRetryable)
        } else if attempt >= self.config.max_attempts && self.config.max_attempts != u32::MAX {
            Some(Stop::Attempts)
        } else {
            None
        }
    }

    /// The delay after an attempt: the classifier's, where it gave one, or the backoff's; the server's own hint where that is
    /// longer.
    fn next_delay(&self, attempt: u32, verdict: Verdict, previous: Span, random: u32) -> Span {
        if let Some(delay) = verdict.exact_delay() {
            return delay;
        }
        let delay = self.config.backoff.jittered_span(attempt, previous, random);
        verdict.hint().map_or(delay, |hint| hint.max(delay))
    }
}

pin_project_lite::pin_project! {
    /// A retry's progress within a call.
    #[derive(Debug)]
    #[cfg_attr(feature = "defmt", derive(defmt::Format))]
    pub struct RetryState<T, E, S, P, I> {
        progress: Progress,
        // What the call has of the budget.
        spent: Option<P>,
        deadline: Option<Instant>,
        // Kept over the delay: should it end too late for another attempt, this is what the caller gets.
        last: Option<Answer<T, E>>,
        #[pin]
        sleep: Option<S>,
        #[pin]
        inner: I,
    }
}

#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
struct Progress {
    attempt: u32,
    previous: Span,
    // While waiting: when the next attempt starts.
    resume: Option<Instant>,
}

impl Progress {
    // A function: a constant would be copied, what a `None` has no value for included.
    const fn first() -> Self {
        Self { attempt: 1, previous: Span::ZERO, resume: None }
    }
}

impl<O, B: RetryBudget> Part for RetryPolicy<O, B> {
    const ROLE: Role = Role::Retry;

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.config.max_attempts {
            u32::MAX => f.write_str("retry: unlimited attempts")?,
            attempts => write!(f, "retry: {attempts} attempts")?,
        }
        write!(f, ", {}", self.config.backoff)?;
        match self.config.total {
            Span::MAX => {}
            total => write!(f, ", {:?} in all", total.duration())?,
        }
        if self.budget.id() == 0 { Ok(()) } else { f.write_str(", on a budget") }
    }
}

impl<T, E, X: Executor, O: Observer<Retrying>, B: RetryBudget> Layer<T, E, X> for RetryPolicy<O, B> {
    type State<I> = RetryState<T, E, X::Sleep, B::Spent, I>;

    fn idle<I>(&self, inner: I) -> Self::State<I> {
        RetryState { progress: Progress::first(), spent: None, deadline: None, last: None, sleep: None, inner }
    }

    #[inline]
    fn poll<N: Next<T, E, X>>(
        &self,
        state: Pin<&mut Self::State<N::State>>,
        next: &mut N,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        let mut this = state.project();
        let executor = scope.executor();
        if this.spent.is_none() {
            let begun = scope.has_begun(self.budget.id());
            *this.spent = Some(if begun { self.budget.join(executor) } else { self.budget.begin(executor) });
        }
        let scope = scope.with_begun(self.budget.id());
        loop {
            if let Some(resume) = this.progress.resume {
                let late = ready!(self.wait(
                    resume,
                    this.progress,
                    this.deadline,
                    this.sleep.as_mut(),
                    (executor, scope.deadline()),
                    cx
                ));
                if late && let Some(last) = this.last.take() {
                    self.end(this.spent, Outcome::Failure);
                    return Poll::Ready(finish(last, this.progress, this.deadline, Stop::Deadline));
                }
                this.progress.attempt = this.progress.attempt.saturating_add(1);
            }
            let Poll::Ready(answer) = next.poll(this.inner.as_mut(), scope.with_attempt(this.progress.attempt), cx)
            else {
                // The total time runs from here: a call that never waits needs no clock.
                if this.deadline.is_none() && self.config.total != Span::MAX {
                    *this.deadline = Some(self.ends(executor));
                }
                return Poll::Pending;
            };
            if answer.verdict.outcome() == Outcome::Success {
                // Without a deadline nobody has waited or tried again, and all is as new.
                if this.deadline.is_some() {
                    (*this.progress, *this.deadline, *this.last) = (Progress::first(), None, None);
                }
                self.end(this.spent, Outcome::Success);
                return Poll::Ready(answer);
            }
            if !next.is_repeatable() {
                // Whether the load is to blame is another question than whether this request may be sent again.
                let mendable = answer.verdict.is_retryable();
                self.end(this.spent, if mendable { Outcome::Failure } else { Outcome::Ignored });
                let answer = telling(answer, this.last.take());
                return Poll::Ready(finish(answer, this.progress, this.deadline, Stop::NotRetryable));
            }
            let times = (executor, scope.deadline());
            if let Some(last) = self.go_on(answer, this.progress, this.last, this.spent, this.deadline, times) {
                return Poll::Ready(last);
            }
        }
    }

    fn reset<N: Next<T, E, X>>(&self, state: Pin<&mut Self::State<N::State>>, next: &mut N, executor: &X) {
        let mut this = state.project();
        // A guard, so that the budget learns of it even if the operation's future panics while it is dropped.
        let _open = Open { budget: &self.budget, spent: this.spent.take() };
        // First, so that its permits come back even if dropping the last answer panics.
        next.reset(this.inner, executor);
        this.sleep.set(None);
        (*this.progress, *this.deadline, *this.last) = (Progress::first(), None, None);
    }
}

impl<O, B: RetryBudget> RetryPolicy<O, B> {
    #[inline]
    fn end(&self, spent: &mut Option<B::Spent>, outcome: Outcome) {
        if let Some(spent) = spent.take() {
            self.budget.end(spent, outcome);
        }
    }

    #[cfg_attr(target_pointer_width = "64", cold, inline(never))]
    fn ends(&self, clock: &impl Clock) -> Instant {
        clock.now().after(self.config.total)
    }

    /// Goes on after an attempt that did not succeed: with what ends the call, or with `None` and another attempt to come.
    #[cfg_attr(target_pointer_width = "64", cold, inline(never))]
    fn go_on<T, E, X: Executor>(
        &self,
        answer: Answer<T, E>,
        progress: &mut Progress,
        last: &mut Option<Answer<T, E>>,
        spent: &mut Option<B::Spent>,
        deadline: &mut Option<Instant>,
        (executor, outer): (&X, Deadline),
    ) -> Option<Answer<T, E>>
    where
        O: Observer<Retrying>,
    {
        let before = last.take();
        let rejected = answer.result.as_ref().err().and_then(Failure::rejected);
        match self.resume_at((answer.verdict, rejected), progress, deadline, spent, (executor, outer)) {
            Ok(at) => {
                self.observer.observe(&Retrying { attempt: progress.attempt, at });
                progress.resume = Some(at);
                *last = Some(telling(answer, before));
                None
            }
            Err(stop) => {
                // An attempt that was rejected for good was none.
                let made = progress.attempt.saturating_sub((stop == Stop::Rejected && before.is_some()).into());
                progress.attempt = made;
                // What another attempt would not mend says nothing about the load.
                let mendable = !matches!(stop, Stop::NotRetryable | Stop::Rejected);
                self.end(spent, if mendable { Outcome::Failure } else { Outcome::Ignored });
                Some(finish(telling(answer, before), progress, deadline, stop))
            }
        }
    }

    /// Waits for the next attempt to begin, and says whether that is too late.
    #[cfg_attr(target_pointer_width = "64", cold, inline(never))]
    fn wait<X: Executor>(
        &self,
        resume: Instant,
        progress: &mut Progress,
        deadline: &Option<Instant>,
        sleep: Pin<&mut Option<X::Sleep>>,
        (executor, outer): (&X, Deadline),
        cx: &mut Context<'_>,
    ) -> Poll<bool> {
        // "At once" is at once: a timer would take a tick for it.
        if sleep.is_some() || executor.now() < resume {
            ready!(poll_deadline(sleep, resume, executor, cx));
        }
        progress.resume = None;
        // The sleep may have ended late.
        let ends = deadline.unwrap_or(Instant::MAX).min(outer.from(resume));
        Poll::Ready(executor.now() >= ends)
    }

    /// When the attempt after this answer starts, or why there is none.
    fn resume_at<X: Executor>(
        &self,
        (verdict, rejected): (Verdict, Option<Rejected>),
        progress: &mut Progress,
        deadline: &mut Option<Instant>,
        spent: &mut Option<B::Spent>,
        (executor, outer): (&X, Deadline),
    ) -> Result<Instant, Stop> {
        if rejected.is_some() && !self.config.rejections {
            return Err(Stop::Rejected);
        }
        let verdict = verdict.with_retryable(rejected.is_some() || verdict.is_retryable());
        if let Some(stop) = self.stops(progress.attempt, verdict) {
            return Err(stop);
        }
        let now = executor.now();
        let ends = *deadline.get_or_insert_with(|| now.after(self.config.total));
        let ends = ends.min(outer.from(now));
        progress.previous = self.next_delay(progress.attempt, verdict, progress.previous, executor.random());
        let at = now.after(progress.previous);
        let at = rejected.and_then(|rejected| rejected.retry_at()).map_or(at, |free| at.max(free));
        if at >= ends {
            return Err(Stop::Deadline);
        }
        let allowed = spent.as_mut().is_none_or(|spent| self.budget.try_retry(spent, verdict, &now));
        if allowed { Ok(at) } else { Err(Stop::Budget) }
    }
}

/// The answer that tells the caller more: what the dependency said last, rather than that it was not asked again.
fn telling<T, E>(answer: Answer<T, E>, last: Option<Answer<T, E>>) -> Answer<T, E> {
    match last {
        Some(last) if answer.result.as_ref().is_err_and(Failure::is_rejected) => last,
        _ => answer,
    }
}

/// The last attempt's answer, with what the retry has to say about it; the progress is as new again.
fn finish<T, E>(
    mut answer: Answer<T, E>,
    progress: &mut Progress,
    deadline: &mut Option<Instant>,
    stop: Stop,
) -> Answer<T, E> {
    if let Err(failure) = &mut answer.result {
        (failure.attempts, failure.stop) = (progress.attempt, Some(stop));
    }
    (*progress, *deadline) = (Progress::first(), None);
    answer
}

#[cfg(test)]
mod tests;
