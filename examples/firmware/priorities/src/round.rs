//! What a side does again and again.

use core::future::{Future, poll_fn};
use core::pin::pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_time::{Instant, Timer, with_timeout};
use failsoft_embassy::bulkhead::{self, Acquire};
use failsoft_embassy::pipeline::Attempt;
use failsoft_embassy::{Cause, CriticalSection, Embassy, Failure, Pipeline, Policy, RawQueue, Stop, Timeout};

use crate::ROUNDS;
use crate::ledger::{self, Count};
use crate::policies::{BREAKER, BUDGET, BUS, DEVICE, HUB, LIMITER, LINE, PERMITS, RETRY, RETRY_COST};
use crate::side::{self, Priority, Side};

/// A limit for each attempt, shorter than some of them take.
const ATTEMPT: Duration = Duration::from_micros(100);

/// Between two rounds, of either priority: up to so many microseconds more than the first. Tasks of high priority
/// leave time for the others.
const PAUSES: [(u32, u32); 2] = [(0, 1 << 6), (1 << 7, 1 << 10)];

/// Permits are held, and waits and calls are cancelled, after less microseconds than that.
const A_WHILE: u32 = 1 << 9;

/// What whoever finds the budget empty brings back: if all did at once, it would still be less than what is gone.
const DEPOSIT: u32 = 50;

static ENOUGH: AtomicBool = AtomicBool::new(false);

/// Whether each priority has done its rounds.
pub(crate) fn enough() -> bool {
    Priority::ALL.iter().all(|&priority| ledger::of(priority, Count::Rounds) >= ROUNDS)
}

/// Nobody begins another round.
pub(crate) fn end() {
    ENOUGH.store(true, Ordering::Relaxed);
}

pub(crate) fn has_ended() -> bool {
    ENOUGH.load(Ordering::Relaxed)
}

/// A task's rounds.
pub(crate) async fn rounds(side: &Side) {
    let (pause, more) = PAUSES[side.priority as usize];
    while !has_ended() {
        Timer::after(side.moment(more) + embassy_time::Duration::from_micros(pause.into())).await;
        side.begin_round();
        look(side);
        touch(side);
        match side.dice() % 8 {
            0 | 1 => hold(side, BUS.acquire(weight(side), &DEVICE), Count::LongestWait).await,
            2 => hold(side, LINE.acquire(weight(side), &DEVICE), Count::LongestPatience).await,
            3 => cancel(side, BUS.acquire(weight(side), &DEVICE)).await,
            4 => cancel(side, LINE.acquire(weight(side), &DEVICE)).await,
            5 | 6 => call(side).await,
            _ => cancel_call(side).await,
        }
    }
}

/// Whoever is first in line must have what it wants as soon as that is there. From below one can tell: whoever
/// preempts is done by now.
fn look(side: &Side) {
    let forgotten = |bulkhead: bulkhead::Snapshot| {
        bulkhead.queued > 0 && (bulkhead.in_use == 0 || bulkhead.in_use + bulkhead.queued <= PERMITS)
    };
    if side.priority == Priority::Low && (forgotten(BUS.snapshot()) || forgotten(LINE.snapshot())) {
        side.note(Count::Forgotten);
    }
}

fn weight(side: &Side) -> u32 {
    1 + side.dice() % 2
}

/// Reports to all policies that are about no more than a moment, and works meanwhile.
pub(crate) fn touch(side: &Side) {
    let dice = side.dice();
    let call = BREAKER.try_acquire(&DEVICE);
    report(side, dice & 1 == 0);
    if dice & 2 == 0 {
        side.note(Count::QuotaAsked);
        side.add(Count::QuotaGiven, LIMITER.try_acquire(&DEVICE).is_ok().into());
    }
    let withdrawn = BUDGET.try_withdraw(RETRY_COST.into());
    side.work();
    match call {
        Ok(call) => {
            side.note(Count::Admitted);
            match dice >> 2 & 7 {
                0 => {
                    side.note(Count::Ignored);
                    call.ignore();
                }
                1 => {
                    side.note(Count::Abandoned);
                    drop(call);
                }
                2 | 3 => {
                    side.note(Count::Succeeded);
                    call.success();
                }
                _ => {
                    side.note(Count::Failed);
                    call.failure();
                }
            }
        }
        Err(_) => side.note(Count::NotAdmitted),
    }
    if withdrawn {
        BUDGET.deposit(RETRY_COST.into());
    }
}

fn report(side: &Side, good: bool) {
    let known = HUB.report(side.name, good, &DEVICE).is_ok()
        && HUB.is_healthy(side.name) == Ok(good)
        && (good || HUB.level(&DEVICE) >= side.priority.criticality().into());
    side.add(Count::Lost, u32::from(!known));
}

type Waiting<const N: usize> =
    Acquire<'static, CriticalSection, RawQueue<CriticalSectionRawMutex, N>, &'static Embassy>;

/// Waits for permits, and holds them for a while.
async fn hold<const N: usize>(side: &Side, permits: Waiting<N>, longest: Count) {
    side.note(Count::Asked);
    let (asked, mut waited) = (Instant::now(), false);
    let mut permits = pin!(permits);
    let given = poll_fn(|context| {
        let given = permits.as_mut().poll(context);
        waited |= given.is_pending();
        given
    })
    .await;
    let (left, waited_for) = (side::left(), asked.elapsed().as_micros());
    if waited {
        ledger::raise(side.priority, longest, u32::try_from(waited_for).unwrap_or(u32::MAX));
        side.note(if given.is_ok() { left } else { Count::InVain });
    }
    side.note(if given.is_ok() { Count::Given } else { Count::Rejected });
    if given.is_ok() {
        side.work();
        if side.dice() % 2 == 0 {
            Timer::after(side.moment(A_WHILE)).await;
        }
        side.priority.leaves();
    }
    drop(given);
}

/// Waits for permits, but for no more than a moment.
async fn cancel<const N: usize>(side: &Side, permits: Waiting<N>) {
    side.note(Count::Asked);
    let given = with_timeout(side.moment(A_WHILE), permits).await;
    side.note(match &given {
        Ok(Ok(_)) => Count::Given,
        Ok(Err(_)) => Count::Rejected,
        Err(_) => Count::Cancelled,
    });
    side.priority.leaves();
}

/// What an operation fails with.
struct Fault;

/// Says that a permit is about to be left, however the operation ends.
struct Leaves(Priority);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.leaves();
    }
}

async fn operate(side: &Side, attempt: Attempt) -> Result<u32, Fault> {
    side.note(Count::Started);
    let _leaves = Leaves(side.priority);
    side.work();
    if side.dice() % 2 == 0 {
        Timer::after(side.moment(A_WHILE)).await;
    }
    if side.dice() % 2 == 0 {
        side.note(Count::OperationFailed);
        return Err(Fault);
    }
    side.note(Count::OperationSucceeded);
    Ok(attempt.number())
}

/// A call through all policies at once: what it came to, and after how many attempts.
async fn through_all(side: &Side) -> Result<u32, Failure<Fault>> {
    let pipeline = Pipeline::new(&DEVICE)
        .layer(HUB.monitor(side.name).expect("all are registered"))
        .layer(&LIMITER)
        // Calls are what the limiter counts here, not attempts: each then says how many of its permits it took.
        .layer_in_any_order(&RETRY)
        .layer(&BUS)
        .layer(&BREAKER)
        .layer(Timeout::new(ATTEMPT));
    pipeline.call(|attempt| operate(side, attempt)).await
}

async fn call(side: &Side) {
    let ended = through_all(side).await;
    account(side, Some(ended));
}

/// A call that its caller waits for no more than a moment.
async fn cancel_call(side: &Side) {
    let ended = with_timeout(side.moment(A_WHILE), through_all(side)).await;
    account(side, ended.ok());
}

/// Takes a call that has ended, or was cancelled, into the ledger.
fn account(side: &Side, ended: Option<Result<u32, Failure<Fault>>>) {
    side.note(Count::Calls);
    side.note(Count::QuotaAsked);
    let ended_by = match &ended {
        None => Count::CallCancelled,
        Some(Ok(_)) => Count::CallSucceeded,
        Some(Err(failure)) => match &failure.cause {
            Cause::Rejected(rejected) if rejected.policy() == Policy::RateLimiter => Count::CallNotInQuota,
            Cause::Rejected(rejected) if rejected.policy() == Policy::Bulkhead => Count::CallFull,
            Cause::Rejected(_) => Count::CallBroken,
            Cause::TimedOut(_) => Count::CallTimedOut,
            _ => Count::CallFailed,
        },
    };
    side.note(ended_by);
    // The limiter comes first, and answers at once.
    side.add(Count::QuotaGiven, u32::from(!matches!(ended_by, Count::CallNotInQuota)));
    match ended {
        Some(Ok(attempts)) if attempts > 1 => side.add(Count::BroughtBack, RETRY_COST.into()),
        Some(Err(failure)) if failure.stop == Some(Stop::Budget) => {
            BUDGET.deposit(DEPOSIT);
            side.add(Count::BroughtBack, DEPOSIT);
        }
        Some(Err(failure)) if failure.stop == Some(Stop::Rejected) && !failure.is_rejected() => {
            side.note(Count::RetryRejected);
        }
        _ => {}
    }
}
