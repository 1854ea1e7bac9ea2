//! A timeout: a call that takes too long is dropped.
//!
//! ```
//! use core::time::Duration;
//! use failsoft_core::{Pipeline, testing::{VirtualExecutor, never}, timeout::Timeout};
//!
//! let executor = VirtualExecutor::new();
//! let pipeline = Pipeline::new(&executor).layer(Timeout::new(Duration::from_secs(2)));
//! let result = executor.run(pipeline.call(|_| never::<Result<(), &str>>())).expect("it ends");
//! assert!(result.unwrap_err().is_timed_out());
//! assert_eq!(executor.elapsed(), Duration::from_secs(2));
//! ```
//!
//! Cancellation is cooperative: the operation's future is dropped at its current await. What blocks without awaiting can't be
//! cut short: the timeout shows once it has to wait, and not at all if it is then ready, however late.
//!
//! The deadline is worked out when the operation first has to wait. One that is ready at once costs neither a timer nor a
//! reading of the clock. When operation and deadline are ready in the same poll, the operation wins. A deadline passes down: an
//! inner timeout never outlasts an outer one.
//!
//! # Defaults
//!
//! | what | default | range | at the extremes |
//! | --- | --- | --- | --- |
//! | limit | [`LIMIT`] (30 s) | any | zero is already over: the operation isn't started; `Duration::MAX` never ends |
//!
//! # When not to use it
//! Around an operation that must not stop halfway: cancel it by a flag of its own instead.
//!
//! # Source
//! Nygard, "Release It!", 2007; deadlines that pass down as in gRPC.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;

use crate::executor::Executor;
use crate::failure::TimedOut;
use crate::outcome::Verdict;
use crate::pipeline::{Answer, Layer, Next, Part, Role, Scope};
use crate::time::{Clock, Instant, Span};

/// The longest a call may take, unless said otherwise.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A limit on the time that what lies within may take. Outside a retry it is the total, within one it is per attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Timeout {
    limit: Span,
}

impl Default for Timeout {
    fn default() -> Self {
        Self::new(LIMIT)
    }
}

impl Timeout {
    /// A timeout of this limit.
    #[must_use]
    pub const fn new(limit: Duration) -> Self {
        Self { limit: Span::of(limit) }
    }

    /// The limit.
    #[must_use]
    pub const fn limit(&self) -> Duration {
        self.limit.duration()
    }
}

pin_project_lite::pin_project! {
    /// A timeout's progress within a call: the deadline, once the inside had to wait.
    #[derive(Debug)]
    #[cfg_attr(feature = "defmt", derive(defmt::Format))]
    pub struct TimeoutState<S, I> {
        armed: Option<Instant>,
        #[pin]
        sleep: Option<S>,
        #[pin]
        inner: I,
    }
}

impl Part for Timeout {
    const ROLE: Role = Role::Timeout;

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "timeout: {:?}", self.limit.duration())
    }
}

impl<T, E, X: Executor> Layer<T, E, X> for Timeout {
    type State<I> = TimeoutState<X::Sleep, I>;

    fn idle<I>(&self, inner: I) -> Self::State<I> {
        TimeoutState { armed: None, sleep: None, inner }
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
        let (replaced, scope) = scope.take_limit();
        let limit = replaced.unwrap_or(self.limit);
        if limit.is_zero() {
            return Poll::Ready(Answer::ended(expired(limit, scope.executor()), Verdict::TRANSIENT));
        }
        let inside = match *this.armed {
            Some(deadline) => scope.with_deadline(scope.deadline().and_at(deadline)),
            None => scope.with_deadline(scope.deadline().and_within(limit)),
        };
        if let Poll::Ready(answer) = next.poll(this.inner.as_mut(), inside, cx) {
            if this.armed.is_some() {
                disarm::<X>(this.armed, this.sleep);
            }
            return Poll::Ready(answer);
        }
        let timed_out = ready!(wait::<X>(limit, this.armed, this.sleep, scope, cx));
        next.reset(this.inner, scope.executor());
        Poll::Ready(Answer::ended(timed_out, Verdict::TRANSIENT))
    }

    fn reset<N: Next<T, E, X>>(&self, state: Pin<&mut Self::State<N::State>>, next: &mut N, executor: &X) {
        let this = state.project();
        disarm::<X>(this.armed, this.sleep);
        next.reset(this.inner, executor);
    }
}

// These are apart from those who need not wait, so that their call is a short one.

#[cfg_attr(target_pointer_width = "64", cold, inline(never))]
fn expired(limit: Span, clock: &impl Clock) -> TimedOut {
    TimedOut::new(limit, clock.now())
}

/// Waits for the deadline, which it sets the first time. Then all is as new.
#[cfg_attr(target_pointer_width = "64", cold, inline(never))]
fn wait<X: Executor>(
    limit: Span,
    armed: &mut Option<Instant>,
    sleep: Pin<&mut Option<X::Sleep>>,
    scope: Scope<'_, X>,
    cx: &mut Context<'_>,
) -> Poll<TimedOut> {
    let deadline = match *armed {
        Some(deadline) => deadline,
        None => {
            let now = scope.executor().now();
            let deadline = now.after(limit);
            // Where an outer deadline comes first it needs no timer of ours: that timeout will drop us.
            let outer = scope.deadline().from(now);
            *armed.insert(if outer < deadline { Instant::MAX } else { deadline })
        }
    };
    ready!(poll_deadline(sleep, deadline, scope.executor(), cx));
    *armed = None;
    Poll::Ready(TimedOut::new(limit, deadline))
}

#[cfg_attr(target_pointer_width = "64", cold, inline(never))]
fn disarm<X: Executor>(armed: &mut Option<Instant>, mut sleep: Pin<&mut Option<X::Sleep>>) {
    *armed = None;
    sleep.set(None);
}

/// Waits for a deadline: arms the timer at the first call, and reads the clock again when the timer fires, since a timer may
/// be early. No timer is left at its end. [`Instant::MAX`] is never and arms nothing.
// One for all who wait.
#[cfg_attr(target_pointer_width = "64", cold, inline(never))]
pub(crate) fn poll_deadline<X: Executor>(
    mut sleep: Pin<&mut Option<X::Sleep>>,
    deadline: Instant,
    executor: &X,
    cx: &mut Context<'_>,
) -> Poll<()> {
    if deadline == Instant::MAX {
        return Poll::Pending;
    }
    if sleep.is_none() {
        sleep.set(Some(executor.sleep_until(deadline)));
    }
    let Some(timer) = sleep.as_mut().as_pin_mut() else { return Poll::Pending };
    ready!(timer.poll(cx));
    sleep.set(None);
    if executor.now() >= deadline {
        return Poll::Ready(());
    }
    // Too early: the next poll arms it again. Asking for that poll, instead of going round here, lets other tasks run
    // even where the clock stands still.
    cx.waker().wake_by_ref();
    Poll::Pending
}

#[cfg(test)]
mod tests;
