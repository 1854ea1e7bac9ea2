//! The load: requests arrive when they arrive, whether or not earlier ones have been answered.

use core::time::Duration;
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::record::{Record, Ticket};
use crate::side::{Reason, Served, Side};

/// Items that are asked for.
const CATALOGUE: u32 = 64;

/// How the load looks. Both sides get the same requests at the same moments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Requests per second, on average.
    pub(crate) rate: u32,
    /// Requests under way at once; further ones are dropped by the caller.
    pub(crate) outstanding: usize,
    /// For how long requests arrive.
    pub(crate) lasts: Duration,
    /// How long the last ones may take.
    pub(crate) grace: Duration,
    /// Decides arrivals and items.
    pub(crate) seed: u64,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Arrival {
    due: Duration,
    item: u32,
}

impl Load {
    /// The requests: a Poisson process, as from many independent callers.
    fn arrivals(self) -> impl Iterator<Item = Arrival> {
        let mut random = fastrand::Rng::with_seed(self.seed);
        let mut due = Duration::ZERO;
        core::iter::from_fn(move || {
            // 1 - f64() lies in (0, 1]: its logarithm is finite.
            let gap = -(1.0 - random.f64()).ln() / f64::from(self.rate);
            due += Duration::from_secs_f64(gap);
            let item = random.u32(..CATALOGUE);
            (due < self.lasts).then_some(Arrival { due, item })
        })
    }

    /// Puts the load on a side and waits for the outcomes, until `stop` is told.
    pub(crate) async fn drive(
        self,
        side: Arc<impl Side>,
        record: Arc<Record>,
        start: Instant,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut calls = JoinSet::new();
        tokio::select! {
            () = self.run(&mut calls, side, record, start) => {}
            // An error means that nobody is left who could stop it: as good as a stop.
            _ = stop.wait_for(|stopped| *stopped) => {}
        }
        calls.shutdown().await;
    }

    async fn run(self, calls: &mut JoinSet<()>, side: Arc<impl Side>, record: Arc<Record>, start: Instant) {
        let room = Arc::new(Semaphore::new(self.outstanding));
        for arrival in self.arrivals() {
            tokio::time::sleep_until(start + arrival.due).await;
            while calls.try_join_next().is_some() {}
            let ticket = record.open(arrival.due);
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                ticket.close(Served::Failed(Reason::NoRoom));
                continue;
            };
            let side = Arc::clone(&side);
            calls.spawn(async move {
                call(&*side, arrival.item, ticket).await;
                drop(permit);
            });
        }
        // Whoever is late loses: the rest is dropped, and recorded as unanswered.
        let all = async { while calls.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(self.grace, all).await;
    }
}

async fn call(side: &impl Side, item: u32, ticket: Ticket) {
    let served = side.ask(item).await;
    ticket.close(served);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(seed: u64) -> Load {
        Load { rate: 100, outstanding: 1, lasts: Duration::from_secs(20), grace: Duration::ZERO, seed }
    }

    #[test]
    fn a_seed_repeats_the_same_load() {
        let arrivals = |seed| load(seed).arrivals().collect::<Vec<_>>();
        assert_eq!(arrivals(7), arrivals(7));
        assert_ne!(arrivals(7), arrivals(8));
    }

    #[test]
    fn the_load_keeps_its_rate() {
        let count = load(7).arrivals().count();
        assert!((1_800..2_200).contains(&count), "{count}");
    }
}
