//! Calls as spans.

use core::any::type_name;
use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use failsoft_core::pipeline::{Answer, Layer, Next, Part, Role, Scope};
use failsoft_core::{Executor, Failure, Rejected};
use tracing::Span;
use tracing::field::Empty;

use crate::ended::Ended;

/// A layer that opens a span for what passes through it: calls, or attempts; see the [module](super).
///
/// | constructor | where it belongs | a span for |
/// | --- | --- | --- |
/// | [`calls`](Self::calls) | outermost | each call, with all its attempts and the waits between |
/// | [`attempts`](Self::attempts) | directly within the retry or the hedge | each attempt and each hedge; those that a policy within rejects or ends, too |
///
/// Within the policies that reject, innermost, the spans are those of attempts that were really made.
///
/// # Cancel safety
/// The span of a call that is dropped before its end says that it was abandoned, and ends.
#[derive(Clone, Copy, Debug)]
pub struct Traced<N = &'static str> {
    name: N,
    attempts: bool,
}

impl<N> Traced<N> {
    /// A span for each call, under this name: a `&'static str`, or an owned string that comes from a file, say.
    #[must_use]
    pub const fn calls(name: N) -> Self {
        Self { name, attempts: false }
    }

    /// A span for each attempt, under this name.
    #[must_use]
    pub const fn attempts(name: N) -> Self {
        Self { name, attempts: true }
    }
}

impl<N: AsRef<str>> Traced<N> {
    /// Opens a span, where somebody wants it. In its place, since to move what is not there costs more than to find out.
    #[inline(never)]
    fn open<X>(&self, scope: &Scope<'_, X>, place: &mut Option<Span>) {
        let name = self.name.as_ref();
        let span = if self.attempts {
            tracing::info_span!(
                "attempt",
                failsoft.name = name,
                http.request.resend_count = above_zero(scope.attempt().saturating_sub(1)),
                failsoft.hedge = above_zero(scope.hedge()),
                failsoft.outcome = Empty,
                failsoft.policy = Empty,
                failsoft.reason = Empty,
                "error.type" = Empty,
                otel.status_code = Empty,
            )
        } else {
            tracing::info_span!(
                "call",
                failsoft.name = name,
                otel.name = name,
                failsoft.outcome = Empty,
                failsoft.attempts = Empty,
                failsoft.policy = Empty,
                failsoft.reason = Empty,
                "error.type" = Empty,
                otel.status_code = Empty,
            )
        };
        if !span.is_disabled() {
            *place = Some(span);
        }
    }
}

/// A field that is not there when it is zero.
const fn above_zero(number: u32) -> Option<u32> {
    if number == 0 { None } else { Some(number) }
}

/// What a span tells at its end. By value, so that the answer itself need not be in memory for it.
struct Told {
    ended: Ended,
    attempts: u32,
    rejected: Option<Rejected>,
    /// The class of error, of which there are as many as types.
    error: Option<&'static str>,
}

impl Told {
    #[inline]
    fn by<T, E>(answer: &Answer<T, E>) -> Self {
        let (ended, failure) = (Ended::with(answer), answer.result.as_ref().err());
        let error = match ended {
            Ended::TimedOut => Some("timeout"),
            Ended::Rejected => Some("rejected"),
            Ended::Failure => Some(failure.map_or("_OTHER", |_| type_name::<E>())),
            Ended::Success | Ended::Ignored | Ended::Abandoned => None,
        };
        let attempts = failure.map_or(0, |failure| failure.attempts);
        Self { ended, attempts, rejected: failure.and_then(Failure::rejected), error }
    }

    #[cold]
    fn end(&self, place: &mut Option<Span>) {
        let Some(span) = place.take() else { return };
        span.record("failsoft.outcome", self.ended.as_str());
        // Of an attempt it is no field.
        if self.attempts > 0 {
            span.record("failsoft.attempts", self.attempts);
        }
        if let Some(rejected) = self.rejected {
            span.record("failsoft.policy", rejected.policy().as_str());
            span.record("failsoft.reason", rejected.reason().as_str());
        }
        if let Some(error) = self.error {
            span.record("error.type", error);
            span.record("otel.status_code", "ERROR");
        }
    }
}

pin_project_lite::pin_project! {
    /// A traced call's progress: its span.
    #[derive(Debug)]
    pub struct TracedState<I> {
        begun: bool,
        // Where somebody wants it.
        span: Option<Span>,
        #[pin]
        inner: I,
    }
}

impl<N: AsRef<str>> Part for Traced<N> {
    const ROLE: Role = Role::Other;

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spans: {} of {}", if self.attempts { "attempts" } else { "calls" }, self.name.as_ref())
    }
}

impl<T, E, X: Executor, N: AsRef<str>> Layer<T, E, X> for Traced<N> {
    type State<I> = TracedState<I>;

    fn idle<I>(&self, inner: I) -> TracedState<I> {
        TracedState { begun: false, span: None, inner }
    }

    #[inline]
    fn poll<M: Next<T, E, X>>(
        &self,
        state: Pin<&mut TracedState<M::State>>,
        next: &mut M,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        let this = state.project();
        if !*this.begun {
            *this.begun = true;
            self.open(&scope, this.span);
        }
        let entered = this.span.as_ref().map(Span::enter);
        let polled = next.poll(this.inner, scope, cx);
        drop(entered);
        let answer = ready!(polled);
        *this.begun = false;
        if this.span.is_some() {
            Told::by(&answer).end(this.span);
        }
        Poll::Ready(answer)
    }

    fn reset<M: Next<T, E, X>>(&self, state: Pin<&mut TracedState<M::State>>, next: &mut M, executor: &X) {
        let this = state.project();
        *this.begun = false;
        // Taken, so that it ends even if the operation's future panics while it is dropped.
        let Some(span) = this.span.take() else { return next.reset(this.inner, executor) };
        span.record("failsoft.outcome", Ended::Abandoned.as_str());
        span.in_scope(|| next.reset(this.inner, executor));
    }
}
