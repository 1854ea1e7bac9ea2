//! The bulkhead: weights, priorities, a queue of waiters, and a number of permits that changes.

use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use std::sync::Arc;
use std::task::Wake;

use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use failsoft_core::bulkhead::{
    Acquire, Bulkhead, Config, LocalQueue, NoQueue, Permit, Priority, Slots, Snapshot, Tally, WaitQueue,
};
use failsoft_core::cell::{CellKind, CriticalSection, Local};
use failsoft_core::testing::VirtualExecutor;
use failsoft_core::{Clock, Instant, Policy, Reason, Rejected, Valid};
use failsoft_embassy::{Raw, RawQueue};
use failsoft_tokio::{Atomic, Locked, ThreadQueue};

use crate::bytes::{Bytes, accepted};
use crate::cells::same;

/// Calls that hold permits, at the most.
const HELD: usize = 8;
/// Callers that wait: as many as the storage of a queue holds, since one of them has more.
const WAITING: usize = 4;

/// Decodes and plays one input.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let (permits, flags) = (bytes.count(), bytes.byte());
    let mut config = Config::new(permits);
    if flags & 3 != 0 {
        config = config.with_queue(bytes.count(), bytes.span());
    }
    if flags & 12 == 4 {
        config = config.with_newest_first();
    }
    let Some(config) = accepted(config.validate()) else { return };
    let newest_first = flags & 12 == 4;
    let steps = bytes.script(true, op);
    let answers = play::<Local, LocalQueue<WAITING>>(config, &steps);
    same("critical section", &answers, &play::<CriticalSection, RawQueue<NoopRawMutex, WAITING>>(config, &steps));
    same("std mutex", &answers, &play::<Locked, ThreadQueue>(config, &steps));
    same("embassy mutex", &answers, &play::<Raw<NoopRawMutex>, RawQueue<NoopRawMutex, WAITING>>(config, &steps));
    same("atomic words", &answers, &play::<Atomic, ThreadQueue>(config, &steps));
    check(permits, newest_first, &steps, &answers);
    if !steps.iter().any(|(_, op)| matches!(op, Some(Op::Wait(..)))) {
        same("no queue", &answers, &play::<Local, NoQueue>(config, &steps));
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Take(usize, u32, Priority),
    GiveBack(usize),
    /// Begins to wait, as far as it has to.
    Wait(usize, u32, Priority),
    Poll(usize),
    Cancel(usize),
    Resize(u32),
}

fn op(bytes: &mut Bytes<'_>) -> Op {
    let weight = |bytes: &mut Bytes<'_>| if bytes.below(3) == 0 { bytes.count() } else { 1 };
    match bytes.byte() {
        0..=69 => Op::Take(bytes.place::<HELD>(), weight(bytes), bytes.priority()),
        70..=119 => Op::GiveBack(bytes.place::<HELD>()),
        120..=169 => Op::Wait(bytes.place::<WAITING>(), weight(bytes), bytes.priority()),
        170..=209 => Op::Poll(bytes.place::<WAITING>()),
        210..=229 => Op::Cancel(bytes.place::<WAITING>()),
        _ => Op::Resize(bytes.count()),
    }
}

type Steps = Vec<(Instant, Option<Op>)>;

#[derive(Debug, PartialEq)]
struct Answer {
    /// Of an attempt, or of a wait that has come to its end.
    acquired: Option<Result<(), Rejected>>,
    resized: Option<bool>,
    snapshot: Snapshot,
    /// What is held by permits that somebody has.
    held: u64,
    woken: [bool; WAITING],
}

#[derive(Debug, Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

type Executor = VirtualExecutor<WAITING>;

type Held<'b, K, Q> = Permit<&'b Bulkhead<K, Q>, K, Q>;

/// A caller that waits, and whether it has been woken since it was last polled.
struct Waiting<'b, K, Q>
where
    K: CellKind<Slots> + CellKind<Tally>,
    Q: WaitQueue,
{
    acquire: Pin<Box<Acquire<'b, K, Q, &'b Executor>>>,
    weight: u32,
    woken: Arc<Flag>,
}

impl<'b, K, Q> Waiting<'b, K, Q>
where
    K: CellKind<Slots> + CellKind<Tally>,
    Q: WaitQueue,
{
    fn is_woken(&self) -> bool {
        self.woken.0.load(Ordering::Relaxed)
    }

    fn poll(&mut self) -> Poll<Result<Held<'b, K, Q>, Rejected>> {
        self.woken.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(self.woken.clone());
        self.acquire.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

fn play<K, Q>(config: Valid<Config>, steps: &Steps) -> Vec<Answer>
where
    K: CellKind<Slots> + CellKind<Tally>,
    Q: WaitQueue,
{
    let (executor, bulkhead) = (Executor::seeded(0), Bulkhead::<K, Q>::new(config));
    let mut held = [const { None }; HELD];
    let mut waiting: [Option<Waiting<'_, K, Q>>; WAITING] = [const { None }; WAITING];
    let play = |(now, op): &(Instant, Option<Op>)| {
        executor.jump_to(*now);
        let (mut acquired, mut resized) = (None, None);
        // One that has waited to its end, and where its permit goes: to any place that is free, or back at once.
        let mut polled = None;
        match *op {
            Some(Op::Take(place, weight, priority)) if held[place].is_none() => {
                let taken = bulkhead.try_acquire_at(weight, priority);
                acquired = Some(taken.as_ref().map(|_| ()).map_err(|rejected| *rejected));
                held[place] = taken.ok().map(|permit| (permit, weight));
            }
            Some(Op::GiveBack(place)) => held[place] = None,
            Some(Op::Wait(place, weight, priority)) if waiting[place].is_none() => {
                let acquire = Box::pin(bulkhead.acquire(weight, &executor).with_priority(priority));
                waiting[place] = Some(Waiting { acquire, weight, woken: Arc::default() });
                polled = Some((place, false));
            }
            Some(Op::Poll(place)) => polled = Some((place, true)),
            Some(Op::Cancel(place)) => waiting[place] = None,
            Some(Op::Resize(permits)) => resized = Some(bulkhead.resize(permits).is_ok()),
            Some(Op::Take(..) | Op::Wait(..)) | None => {}
        }
        if let Some((place, again)) = polled
            && let Some(waiter) = &mut waiting[place]
        {
            let (weight, woken) = (waiter.weight, waiter.is_woken());
            if let Poll::Ready(result) = waiter.poll() {
                assert!(woken || !again, "a waiter whose wait is over was not woken");
                waiting[place] = None;
                acquired = Some(result.as_ref().map(|_| ()).map_err(|rejected| *rejected));
                if let (Ok(permit), Some(free)) = (result, held.iter_mut().find(|place| place.is_none())) {
                    *free = Some((permit, weight));
                }
            }
        }
        let woken = waiting.each_ref().map(|waiter| waiter.as_ref().is_some_and(Waiting::is_woken));
        let weights = held.iter().flatten().map(|(_, weight)| u64::from(*weight));
        Answer { acquired, resized, snapshot: bulkhead.snapshot(), held: weights.sum(), woken }
    };
    let answers = steps.iter().map(play).collect();
    drop((held, waiting));
    let left = bulkhead.snapshot();
    assert_eq!((left.in_use, left.queued), (0, 0), "all have come back: {left:?}");
    assert!(executor.now() >= Instant::START);
    answers
}

fn check(permits: u32, newest_first: bool, steps: &Steps, answers: &[Answer]) {
    let mut before = Snapshot { permits, in_use: 0, queued: 0, high_water: 0, rejected: 0 };
    for ((now, op), answer) in steps.iter().zip(answers) {
        let after = answer.snapshot;
        let at = || format!("{op:?} at {now:?}: {answer:?}, after {before:?}");
        match (op, answer.acquired) {
            (Some(Op::Take(_, weight, priority)), Some(acquired)) => {
                taken(before, after, (*weight, *priority), acquired, newest_first, &at);
            }
            (Some(Op::Resize(permits)), _) => {
                let valid = (1..=failsoft_core::bulkhead::MOST).contains(permits);
                assert_eq!(answer.resized, Some(valid), "{}", at());
                assert_eq!(after.permits, if valid { *permits } else { before.permits }, "{}", at());
            }
            _ => {}
        }
        // More are in use only as what is left after a shrink, which drains; and then none is given.
        assert!(after.in_use <= after.permits || after.in_use <= before.in_use, "above the limit: {}", at());
        // Those who have been served and have not noticed hold the rest.
        assert!(u64::from(after.in_use) >= answer.held, "a permit is held that is not in use: {}", at());
        assert!(after.high_water >= before.high_water.max(after.in_use), "{}", at());
        let rejected = u32::from(matches!(answer.acquired, Some(Err(_))));
        assert_eq!(after.rejected, before.rejected + rejected, "each rejection counts once: {}", at());
        if let Some(Err(rejection)) = answer.acquired {
            assert_eq!(rejection.policy(), Policy::Bulkhead, "{}", at());
        }
        before = after;
    }
}

/// Now or not at all: as plain arithmetic says.
fn taken(
    before: Snapshot,
    after: Snapshot,
    (weight, priority): (u32, Priority),
    acquired: Result<(), Rejected>,
    newest_first: bool,
    at: &impl Fn() -> String,
) {
    let highest = priority == Priority::CRITICAL;
    let others = 10_000 - u64::from(priority.share().as_basis_points());
    let share = u64::from(before.permits) - u64::from(before.permits) * others / 10_000;
    let fits = u64::from(before.in_use) + u64::from(weight) <= share;
    let first = before.queued == 0 || (newest_first && highest);
    assert_eq!(acquired.is_ok(), weight == 0 || (fits && first), "{}", at());
    match acquired.map_err(|rejected| rejected.reason()) {
        Ok(()) => assert_eq!(after.in_use, before.in_use + weight, "{}", at()),
        Err(Reason::TooHeavy) => assert!(u64::from(weight) > share, "{}", at()),
        Err(Reason::PriorityTooLow) => assert!(!highest, "{}", at()),
        Err(reason) => assert_eq!(reason, Reason::Full, "{}", at()),
    }
}
