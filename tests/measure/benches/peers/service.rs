//! A backend that does no work, as a service of tower and of seatbelt, and how such services are called.

use core::future::{Future, poll_fn};
use core::hint::black_box;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::sync::LazyLock;

use failsoft_measure::subjects::work;
use seatbelt::RecoveryInfo;

use crate::harness::{RUNTIME, answer};

/// What the backend is asked to do.
#[derive(Clone, Copy)]
pub(crate) enum Ask {
    Succeed,
    Fail,
    /// To answer never.
    Hang,
}

impl From<bool> for Ask {
    fn from(good: bool) -> Self {
        if good { Self::Succeed } else { Self::Fail }
    }
}

/// Why a call did not succeed.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Why {
    Failed,
    Rejected,
    TimedOut,
}

impl core::fmt::Display for Why {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl core::error::Error for Why {}

pub(crate) type Answer = Result<(), Why>;

/// The backend.
#[derive(Clone, Copy)]
pub(crate) struct Backend;

/// Its answer, there at once or never.
pub(crate) struct Work(Ask);

impl Future for Work {
    type Output = Answer;

    #[inline]
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Answer> {
        match black_box(self.0) {
            Ask::Hang => Poll::Pending,
            ask => Poll::Ready(work(matches!(ask, Ask::Succeed)).map_err(|()| Why::Failed)),
        }
    }
}

impl tower::Service<Ask> for Backend {
    type Response = ();
    type Error = Why;
    type Future = Work;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Answer> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, ask: Ask) -> Work {
        Work(ask)
    }
}

impl layered::Service<Ask> for Backend {
    type Out = Answer;

    #[inline]
    async fn execute(&self, ask: Ask) -> Answer {
        Work(ask).await
    }
}

/// The clock that seatbelt asks for.
pub(crate) static TICK: LazyLock<tick::Clock> = LazyLock::new(|| {
    let _entered = RUNTIME.enter();
    tick::Clock::new_tokio()
});

/// What seatbelt asks about an answer.
pub(crate) fn recovery(answer: &Answer) -> RecoveryInfo {
    if answer.is_ok() { RecoveryInfo::never() } else { RecoveryInfo::retry() }
}

/// Waits until a service is ready.
#[inline]
pub(crate) fn ready<S: tower::Service<Ask>>(service: &mut S) -> bool {
    answer(poll_fn(|context| service.poll_ready(context))).is_ok()
}

/// The answer of a service.
#[inline]
pub(crate) fn call<S: tower::Service<Ask>>(service: &mut S, ask: Ask) -> Result<S::Response, S::Error> {
    answer(poll_fn(|context| service.poll_ready(context)))?;
    answer(service.call(ask))
}

/// Begins a call, which then hangs for ever.
pub(crate) fn forget<F: Future>(call: F) {
    let mut call = Box::pin(call);
    let begun = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(begun.is_pending(), "a probe that is out");
    core::mem::forget(call);
}
