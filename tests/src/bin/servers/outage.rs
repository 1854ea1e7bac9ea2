//! A server's outage, and all that is noted of it.

use core::time::Duration;
use std::sync::Arc;

use failsoft_tokio::bulkhead::Snapshot;
use failsoft_tokio::circuit_breaker::Transition;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::Result;
use crate::guard::{Guard, Settings};
use crate::load::{Call, Client, Load};

/// What may be done to a process.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Fault {
    /// Killed without a word, and started anew.
    Killed,
    /// Stopped: its connections are accepted, and never answered.
    Stopped,
    /// Stopped, and its backlog is full: who wants to connect hears nothing at all, as where packets are lost.
    Unanswered,
}

/// A server that can be made to fail.
pub(crate) trait Subject {
    type Client: Client;

    /// A client of it, with connections of its own.
    fn client(&self) -> Result<Self::Client>;

    /// The fault begins, and has begun.
    async fn begin(&mut self) -> Result<()>;

    /// The fault ends; the server serves again.
    async fn end(&mut self) -> Result<()>;

    /// Connections of clients, as the server counts them.
    async fn connections(&mut self) -> Result<usize>;

    /// Requests, as the server counts them, if it does.
    async fn requests(&mut self) -> Result<Option<usize>>;
}

/// When the fault is, and what is asked meanwhile.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) load: Load,
    pub(crate) begin: Duration,
    pub(crate) end: Duration,
}

impl Plan {
    /// A second before, two of the fault, two afterwards.
    pub(crate) const fn new(seed: u64) -> Self {
        let load = Load { rate: 200, lasts: Duration::from_secs(5), burst: (0, Duration::ZERO), seed };
        Self { load, begin: Duration::from_secs(1), end: Duration::from_secs(3) }
    }
}

/// What became of it.
pub(crate) struct Story {
    pub(crate) start: Instant,
    pub(crate) calls: Vec<Call>,
    pub(crate) attempts: Vec<Instant>,
    pub(crate) most: u32,
    pub(crate) changes: Vec<(Instant, Transition)>,
    /// When the fault was brought about, and when it was there.
    pub(crate) begins: Instant,
    pub(crate) began: Instant,
    /// When it was done away with, and when the server served again.
    pub(crate) ends: Instant,
    pub(crate) ended: Instant,
    /// For how long calls came.
    pub(crate) lasted: Duration,
    pub(crate) at_rest: Option<Snapshot>,
    /// Of clients, by the server's count: when the fault has ended, soon after, and when there is no client any more.
    pub(crate) connections: [usize; 3],
    pub(crate) requests: Option<usize>,
    /// Tasks beyond those before.
    pub(crate) tasks: usize,
}

/// When a server that is well again has heard of the connections that were given up.
const SOON: Duration = Duration::from_millis(500);
/// How long what closes connections may take.
const REST: Duration = Duration::from_secs(2);
/// On a machine that others use, too.
pub(crate) const MARGIN: Duration = Duration::from_millis(400);
/// How long calls without policies may go on after the last has come.
const GRACE: Duration = Duration::from_secs(1);

/// Puts the load on the server, and has it fail meanwhile.
pub(crate) async fn live(subject: &mut impl Subject, plan: Plan, settings: Option<Settings>) -> Result<Story> {
    let guard = settings.map(Guard::new).transpose()?;
    let grace = settings.map_or(GRACE, |settings| settings.total + MARGIN);
    let tasks = alive();
    let client = Arc::new(subject.client()?);
    let start = Instant::now();
    let load = {
        let client = Arc::clone(&client);
        // Whatever goes wrong meanwhile, it ends with its handle.
        Aborted(tokio::spawn(async move { plan.load.put(&client, guard, start, grace).await }))
    };
    let [begins, began, ends, ended] = fail(subject, plan, start).await?;
    let at_the_end = subject.connections().await?;
    sleep(SOON).await;
    let soon_after = subject.connections().await?;
    let calls = load.join().await?;
    let (attempts, most) = (client.attempts().begun(), client.attempts().most());
    drop(client);
    rest(subject, tasks).await?;
    Ok(Story {
        start,
        calls,
        attempts,
        most,
        changes: guard.map(|guard| guard.breaker.observer().read()).unwrap_or_default(),
        begins,
        began,
        ends,
        ended,
        lasted: plan.load.lasts,
        at_rest: guard.map(|guard| guard.bulkhead.snapshot()),
        connections: [at_the_end, soon_after, subject.connections().await?],
        requests: subject.requests().await?,
        tasks: alive().saturating_sub(tasks),
    })
}

/// The fault, when its time has come: when it was brought about, when it was there, when it was done away with, and when it was over.
async fn fail(subject: &mut impl Subject, plan: Plan, start: Instant) -> Result<[Instant; 4]> {
    sleep_until(start + plan.begin).await;
    let begins = Instant::now();
    subject.begin().await?;
    let began = Instant::now();
    sleep_until(start + plan.end).await;
    let ends = Instant::now();
    subject.end().await?;
    Ok([begins, began, ends, Instant::now()])
}

/// Tasks of this runtime.
fn alive() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// Waits until nothing is left but these tasks, for a while.
async fn rest(subject: &mut impl Subject, tasks: usize) -> Result<()> {
    let until = Instant::now() + REST;
    while Instant::now() < until && (alive() > tasks || subject.connections().await? > 0) {
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// A task that ends with its handle.
struct Aborted<T>(tokio::task::JoinHandle<T>);

impl<T> Aborted<T> {
    async fn join(mut self) -> Result<T> {
        Ok((&mut self.0).await?)
    }
}

impl<T> Drop for Aborted<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
