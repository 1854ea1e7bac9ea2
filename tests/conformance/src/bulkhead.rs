//! Bulkheads: `max_concurrent` permits, and a queue where there is one.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use failsoft_core::bulkhead::{Acquire, Bulkhead, Config, LocalQueue, MOST, Permit};
use failsoft_core::cell::Local;
use failsoft_core::testing::VirtualExecutor;
use failsoft_core::{Reason, Rejected};

use crate::checks::{Actual, Checks};
use crate::number::Decimal;
use crate::tape::Object;
use crate::vector::{Result, Step, Unsupported, Vector};

/// Callers that wait at once.
const CALLERS: usize = 16;
/// Callers that have permits at once.
const HOLDERS: usize = 64;

type Queue = LocalQueue<CALLERS>;
type Held<'b> = Permit<&'b Bulkhead<Local, Queue>, Local, Queue>;
type Asking<'b> = Acquire<'b, Local, Queue, &'b VirtualExecutor<CALLERS>>;

/// What a step brought about, as names.
type Names<'a> = heapless::Vec<&'a str, CALLERS>;

#[derive(Default)]
struct Found<'a> {
    permit: Option<core::result::Result<(), Rejected>>,
    error: bool,
    granted: Names<'a>,
    evicted: Names<'a>,
    /// Those who gave up waiting.
    timed_out: Names<'a>,
    cancelled: Names<'a>,
}

struct Callers<'a, 'b> {
    bulkhead: &'b Bulkhead<Local, Queue>,
    executor: &'b VirtualExecutor<CALLERS>,
    bypass: Option<&'a str>,
    /// Names and permits, those first that have been held for longest.
    holding: heapless::Vec<(Option<&'a str>, Held<'b>), HOLDERS>,
    /// In order of arrival.
    waiting: heapless::Vec<(Option<&'a str>, Asking<'b>), CALLERS>,
}

#[inline(never)]
pub(crate) fn run<'a>(vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    let config =
        vector.config.only(&["dialect", "max_concurrent", "queue_limit", "order", "bypass_key", "max_wait_ms"])?;
    let permits = match config.count("max_concurrent")? {
        None if vector.dialect() == "r4j" => 25,
        permits => config.needed("max_concurrent", Ok(permits))?,
    };
    let (queue, wait) = (config.count("queue_limit")?, config.span("max_wait_ms")?);
    let settings = match (queue, wait) {
        (None, None | Some(Duration::ZERO)) => Config::new(permits),
        // Whoever names a longest wait alone has a queue without end.
        (queue, wait) => {
            Config::new(permits).with_queue(queue.unwrap_or(MOST).min(MOST), wait.unwrap_or(Duration::MAX))
        }
    };
    let settings = match config.text("order")? {
        None | Some("oldest_first") => settings,
        Some("newest_first") => settings.with_newest_first(),
        Some(_) => return Err(Unsupported::Value { key: "order", problem: "is not known" }),
    };
    let executor = VirtualExecutor::seeded(0);
    let bulkhead = Bulkhead::new(settings.validate()?);
    let bypass = config.text("bypass_key")?;
    let (holding, waiting) = (heapless::Vec::new(), heapless::Vec::new());
    let mut callers = Callers { bulkhead: &bulkhead, executor: &executor, bypass, holding, waiting };
    for step in vector.steps() {
        checks.begin(&step);
        if let Some(at) = step.at()? {
            executor.jump_to(at);
        }
        for _ in 0..step.repeat()? {
            callers.take(&step, checks)?;
        }
    }
    Ok(())
}

impl<'a, 'b> Callers<'a, 'b> {
    fn take(&mut self, step: &Step<'a>, checks: &mut Checks) -> Result<'a, ()> {
        let mut found = Found::default();
        match step.op {
            "acquire" => self.acquire(step, &mut found)?,
            "acquire_wait" => self.acquire_wait(step, &mut found)?,
            "release" => self.release(step.args()?.only_args(&["token"])?.text("token")?),
            "cancel" => {
                let args = step.args()?.only_args(&["token"])?;
                let token = args.needed("token", args.text("token"))?;
                self.waiting.retain(|(name, _)| *name != Some(token));
                let _ = found.cancelled.push(token);
            }
            "resize" => self.bulkhead.resize(step.count()?)?,
            "tick" | "snapshot" => step.no_args()?,
            op => return Err(Unsupported::Op(op)),
        }
        self.poll_waiting(&mut found)?;
        self.judge(step, &found, checks)
    }

    fn acquire(&mut self, step: &Step<'a>, found: &mut Found<'a>) -> Result<'a, ()> {
        let permits = step.amount("permits", &["key", "token"])?;
        let args = step.arg.object().unwrap_or(Object::EMPTY);
        // Whoever may always pass takes no permit.
        let bypasses = self.bypass.is_some() && args.text("key")? == self.bypass;
        let weight = if bypasses { Some(0) } else { weight(permits) };
        let Some(weight) = weight else {
            found.error = true;
            return Ok(());
        };
        match self.bulkhead.try_acquire_many(weight) {
            Ok(permit) => {
                found.permit = Some(Ok(()));
                // The permits of those who pass anyway are nobody's.
                if !bypasses {
                    self.hold(args.text("token")?, permit)?;
                }
            }
            Err(rejected) => found.reject(rejected),
        }
        Ok(())
    }

    fn acquire_wait(&mut self, step: &Step<'a>, found: &mut Found<'a>) -> Result<'a, ()> {
        let permits = step.amount("permits", &["key", "token"])?;
        let token = step.arg.object().unwrap_or(Object::EMPTY).text("token")?;
        let Some(weight) = weight(permits) else {
            found.error = true;
            return Ok(());
        };
        let mut asking = self.bulkhead.acquire(weight, self.executor);
        match poll(&mut asking) {
            Poll::Ready(Ok(permit)) => {
                found.permit = Some(Ok(()));
                self.hold(token, permit)?;
            }
            Poll::Ready(Err(rejected)) => found.reject(rejected),
            Poll::Pending => {
                self.waiting.push((token, asking)).map_err(|_| Unsupported::Room("so many callers that wait"))?;
            }
        }
        Ok(())
    }

    fn hold(&mut self, token: Option<&'a str>, permit: Held<'b>) -> Result<'a, ()> {
        self.holding.push((token, permit)).map_err(|_| Unsupported::Room("so many callers"))
    }

    /// The caller of this name gives its permit back; without a name, the one who has held one for longest.
    fn release(&mut self, token: Option<&str>) {
        let place = self.holding.iter().position(|(name, _)| token.is_none() || *name == token);
        // Giving back what nobody holds changes nothing: there is no such call here.
        if let Some(place) = place {
            drop(self.holding.remove(place));
        }
    }

    /// Whoever waits looks whether it has been served, the first first.
    fn poll_waiting(&mut self, found: &mut Found<'a>) -> Result<'a, ()> {
        let mut place = 0;
        while let Some((token, asking)) = self.waiting.get_mut(place) {
            let (token, name) = (*token, token.unwrap_or(""));
            match poll(asking) {
                Poll::Pending => {
                    place = place.saturating_add(1);
                    continue;
                }
                Poll::Ready(Ok(permit)) => {
                    let _ = found.granted.push(name);
                    self.hold(token, permit)?;
                }
                Poll::Ready(Err(rejected)) => {
                    let evicted = rejected.reason() == Reason::Evicted;
                    let names = if evicted { &mut found.evicted } else { &mut found.timed_out };
                    let _ = names.push(name);
                }
            }
            drop(self.waiting.remove(place));
        }
        Ok(())
    }

    fn judge(&self, step: &Step<'a>, found: &Found<'a>, checks: &mut Checks) -> Result<'a, ()> {
        let waiting: Names<'a> = self.waiting.iter().filter_map(|(token, _)| *token).collect();
        let snapshot = self.bulkhead.snapshot();
        let asked = step.op.starts_with("acquire");
        // Outside of a request, somebody else's wait has ended.
        let (permit, token) = match found.permit {
            Some(permit) => (permit.is_ok(), None),
            None => (!found.granted.is_empty(), found.granted.first().or_else(|| found.timed_out.first()).copied()),
        };
        let args = step.arg.object().unwrap_or(Object::EMPTY);
        let token = if asked { args.text("token")? } else { token };
        checks.expect(step, &mut |key| {
            Some(match key {
                "permit" => Actual::Bool(permit),
                "pending" if asked => Actual::Bool(token.is_some_and(|token| waiting.contains(&token))),
                "pending" => Actual::Texts(&waiting),
                "granted" => Actual::Texts(&found.granted),
                "evicted" => Actual::Texts(&found.evicted),
                "cancelled" => Actual::Texts(&found.cancelled),
                "token" => token.map_or(Actual::Nothing, Actual::Text),
                "error" if found.error => Actual::Text("out_of_range"),
                "error" => Actual::Nothing,
                // Below nothing while the surplus of a shrink drains.
                "available" => Actual::whole(i128::from(snapshot.permits) - i128::from(snapshot.in_use)),
                "in_use" | "in_flight" => Actual::whole(snapshot.in_use),
                "queued" => Actual::whole(snapshot.queued),
                "rejected" => Actual::whole(snapshot.rejected),
                "high_water" => Actual::whole(snapshot.high_water),
                "limit" | "max_concurrent" => Actual::whole(snapshot.permits),
                _ => return None,
            })
        })
    }
}

impl Found<'_> {
    fn reject(&mut self, rejected: Rejected) {
        self.permit = Some(Err(rejected));
        // More than there are: other systems call that a mistake of the caller.
        self.error = rejected.reason() == Reason::TooHeavy;
    }
}

/// Permits asked for: one, unless said otherwise; `None` for fewer than none, which can't be asked for here.
fn weight(permits: Option<Decimal>) -> Option<u32> {
    permits.map_or(Some(1), |permits| permits.whole().and_then(|permits| u32::try_from(permits).ok()))
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}
