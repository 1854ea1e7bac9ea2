//! Waiting for permits: in the queue, for a limited time.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use super::{Bulkhead, Permit, Priority, Slots, Tally, WaitQueue};
use crate::cell::CellKind;
use crate::executor::Executor;
use crate::failure::{Reason, Rejected};
use crate::time::{Instant, Span};
use crate::timeout::poll_deadline;

/// How far a caller has come in waiting.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) struct Waiting {
    pub(super) place: Option<u32>,
    until: Instant,
}

impl Waiting {
    // A function: a constant would be copied, what a `None` has no value for included.
    pub(super) const fn not_yet() -> Self {
        Self { place: None, until: Instant::MAX }
    }

    /// Takes permits or joins the queue, then waits until served. The deadline is armed once there is something to wait for, and no longer
    /// than that.
    #[cfg_attr(target_pointer_width = "64", cold, inline(never))]
    pub(super) fn poll<K, Q, X>(
        &mut self,
        bulkhead: &Bulkhead<K, Q>,
        (weight, priority): (u32, Priority),
        mut sleep: Pin<&mut Option<X::Sleep>>,
        executor: &X,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Rejected>>
    where
        K: CellKind<Slots> + CellKind<Tally>,
        Q: WaitQueue,
        X: Executor,
    {
        match self.place {
            None => match bulkhead.join(weight, priority, cx.waker()) {
                Ok(None) => return Poll::Ready(Ok(())),
                Ok(Some(id)) => {
                    let span = bulkhead.config.longest_wait;
                    let until = if span == Span::MAX { Instant::MAX } else { executor.now().after(span) };
                    *self = Self { place: Some(id), until };
                }
                Err(rejected) => return Poll::Ready(Err(rejected)),
            },
            Some(id) => {
                if let Poll::Ready(result) = bulkhead.poll_served(id, weight, cx) {
                    *self = Self::not_yet();
                    sleep.set(None);
                    return Poll::Ready(result);
                }
            }
        }
        ready!(poll_deadline(sleep, self.until, executor, cx));
        self.cancel(bulkhead, weight);
        Poll::Ready(Err(bulkhead.reject(Reason::QueueTimeout)))
    }

    pub(super) fn cancel<K, Q>(&mut self, bulkhead: &Bulkhead<K, Q>, weight: u32)
    where
        K: CellKind<Slots> + CellKind<Tally>,
        Q: WaitQueue,
    {
        if let Some(id) = core::mem::replace(self, Self::not_yet()).place {
            bulkhead.leave(id, weight);
        }
    }
}

pin_project_lite::pin_project! {
    /// Waits for permits; see [`Bulkhead::acquire`].
    #[must_use = "futures do nothing unless polled"]
    pub struct Acquire<'b, K, Q, X>
    where
        K: CellKind<Slots>,
        K: CellKind<Tally>,
        Q: WaitQueue,
        X: Executor,
    {
        bulkhead: &'b Bulkhead<K, Q>,
        weight: u32,
        priority: Priority,
        executor: X,
        waiting: Waiting,
        #[pin]
        sleep: Option<X::Sleep>,
    }

    impl<K, Q, X> PinnedDrop for Acquire<'_, K, Q, X>
    where
        K: CellKind<Slots>,
        K: CellKind<Tally>,
        Q: WaitQueue,
        X: Executor,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            this.waiting.cancel(this.bulkhead, *this.weight);
        }
    }
}

impl<'b, K, Q, X> Acquire<'b, K, Q, X>
where
    K: CellKind<Slots> + CellKind<Tally>,
    Q: WaitQueue,
    X: Executor,
{
    pub(super) const fn new(bulkhead: &'b Bulkhead<K, Q>, weight: u32, executor: X) -> Self {
        Self { bulkhead, weight, priority: Priority::CRITICAL, executor, waiting: Waiting::not_yet(), sleep: None }
    }

    /// With another priority than the highest: rejected at once where a permit would have to be waited for.
    pub const fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }
}

impl<'b, K, Q, X> Future for Acquire<'b, K, Q, X>
where
    K: CellKind<Slots> + CellKind<Tally>,
    Q: WaitQueue,
    X: Executor,
{
    type Output = Result<Permit<&'b Bulkhead<K, Q>, K, Q>, Rejected>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (bulkhead, weight): (&'b Bulkhead<K, Q>, u32) = (*this.bulkhead, *this.weight);
        let waited = ready!(this.waiting.poll(bulkhead, (weight, *this.priority), this.sleep, this.executor, cx));
        Poll::Ready(waited.map(|()| Permit { bulkhead, weight }))
    }
}

impl<K, Q, X> core::fmt::Debug for Acquire<'_, K, Q, X>
where
    K: CellKind<Slots> + CellKind<Tally>,
    Q: WaitQueue,
    X: Executor,
{
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Acquire").field("weight", &self.weight).finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<K, Q, X> defmt::Format for Acquire<'_, K, Q, X>
where
    K: CellKind<Slots> + CellKind<Tally>,
    Q: WaitQueue,
    X: Executor,
{
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Acquire {{ weight: {} }}", self.weight);
    }
}
