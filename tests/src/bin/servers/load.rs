//! The load: calls come at a fixed rate, whether or not earlier ones have been answered.

use core::future::Future;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use core::time::Duration;
use std::sync::{Arc, Mutex, PoisonError};

use failsoft_tokio::{Cause, Failure, Rng};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::guard::Guard;

/// How a call ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ending {
    /// With the right answer.
    Served,
    /// With the answer to another question.
    Wrong,
    /// Without an attempt: a policy said no.
    Rejected,
    /// Out of time.
    TimedOut,
    /// With an error.
    Failed,
    /// Not at all, until the load's end.
    Never,
}

impl<E> From<&Failure<E>> for Ending {
    fn from(failure: &Failure<E>) -> Self {
        match failure.cause {
            Cause::Rejected(_) => Self::Rejected,
            Cause::TimedOut(_) => Self::TimedOut,
            _ => Self::Failed,
        }
    }
}

/// A call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// When it came.
    pub(crate) due: Instant,
    /// How long it took from when it was begun.
    pub(crate) took: Duration,
    pub(crate) ending: Ending,
}

/// What a client notes of its attempts.
#[derive(Default)]
pub(crate) struct Attempts {
    begun: Mutex<Vec<Instant>>,
    under_way: AtomicU32,
    most: AtomicU32,
}

/// An attempt, for as long as it lasts.
pub(crate) struct UnderWay<'a>(&'a AtomicU32);

impl Attempts {
    /// Another one.
    pub(crate) fn enter(&self) -> UnderWay<'_> {
        let under_way = self.under_way.fetch_add(1, Relaxed) + 1;
        self.most.fetch_max(under_way, Relaxed);
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        UnderWay(&self.under_way)
    }

    /// When each was begun.
    pub(crate) fn begun(&self) -> Vec<Instant> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The most at once.
    pub(crate) fn most(&self) -> u32 {
        self.most.load(Relaxed)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A client of some server, with its connections.
pub(crate) trait Client: Send + Sync + Sized + 'static {
    /// A call within all policies.
    fn guarded(&self, guard: &'static Guard, number: u32) -> impl Future<Output = Ending> + Send;

    /// An attempt without any.
    fn bare(&self, number: u32) -> impl Future<Output = Ending> + Send;

    fn attempts(&self) -> &Attempts;
}

/// What somebody without policies does: up to three attempts, each for as long as it takes.
async fn naive(client: &impl Client, number: u32) -> Ending {
    for _ in 0..2 {
        match client.bare(number).await {
            Ending::Failed => tokio::time::sleep(Duration::from_millis(10)).await,
            ending => return ending,
        }
    }
    client.bare(number).await
}

/// When calls come.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// So many a second.
    pub(crate) rate: u32,
    pub(crate) lasts: Duration,
    /// So many more, at once, then.
    pub(crate) burst: (u32, Duration),
    pub(crate) seed: u64,
}

impl Load {
    /// Evenly, but for half of the gap; the same for the same seed.
    fn due(self) -> Vec<Duration> {
        let mut rng = Rng::new(self.seed);
        let gap = Duration::from_secs(1) / self.rate;
        let calls = self.lasts.as_nanos().div_ceil(gap.as_nanos());
        let steady = (0..u32::try_from(calls).unwrap_or(0)).map(|call| gap * call + gap / 200 * (rng.next() % 100));
        let mut due: Vec<_> = steady.chain((0..self.burst.0).map(|_| self.burst.1)).collect();
        due.sort();
        due
    }

    /// Puts it on the client; whoever has no answer `grace` after the last call gets none.
    pub(crate) async fn put<C: Client>(
        self,
        client: &Arc<C>,
        guard: Option<&'static Guard>,
        start: Instant,
        grace: Duration,
    ) -> Vec<Call> {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        for (number, due) in (0..).zip(self.due()) {
            sleep_until(start + due).await;
            while tasks.try_join_next().is_some() {}
            tasks.spawn(one(Arc::clone(client), guard, number, start + due, Arc::clone(&calls)));
        }
        let all = async { while tasks.join_next().await.is_some() {} };
        let _ = timeout(grace, all).await;
        tasks.shutdown().await;
        let mut calls = calls.lock().unwrap_or_else(PoisonError::into_inner);
        core::mem::take(&mut *calls)
    }
}

async fn one<C: Client>(
    client: Arc<C>,
    guard: Option<&'static Guard>,
    number: u32,
    due: Instant,
    calls: Arc<Mutex<Vec<Call>>>,
) {
    let mut note =
        Note { calls, call: Call { due, took: Duration::ZERO, ending: Ending::Never }, begun: Instant::now() };
    note.call.ending = match guard {
        Some(guard) => client.guarded(guard, number).await,
        None => naive(&*client, number).await,
    };
}

/// Taken of each call, however it ends.
struct Note {
    calls: Arc<Mutex<Vec<Call>>>,
    call: Call,
    begun: Instant,
}

impl Drop for Note {
    fn drop(&mut self) {
        self.call.took = self.begun.elapsed();
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(self.call);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_keeps_its_rate_and_a_seed_repeats_it() {
        let second = Duration::from_secs(1);
        let due = |seed| Load { rate: 200, lasts: 5 * second, burst: (40, second), seed }.due();
        assert_eq!((due(7).len(), due(7)), (1_040, due(7)));
        assert_ne!(due(7), due(8));
        assert!(due(7).is_sorted() && due(7).iter().all(|due| *due < 5 * second));
        assert!(due(7).iter().filter(|due| **due == second).count() >= 40);
    }

    #[test]
    fn of_attempts_the_most_at_once_is_kept() {
        let attempts = Attempts::default();
        let two = (attempts.enter(), attempts.enter());
        drop(two);
        drop(attempts.enter());
        assert_eq!((attempts.most(), attempts.begun().len()), (2, 3));
    }
}
