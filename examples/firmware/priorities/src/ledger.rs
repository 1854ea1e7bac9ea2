//! What the sides have been told, each by priority: what the policies say of themselves must agree with it.

use core::cell::Cell;

use critical_section::Mutex;

use crate::side::Priority;

/// What is counted.
#[derive(Clone, Copy)]
pub(crate) enum Count {
    /// Tasks that have come to their end.
    Ended,
    Rounds,
    /// Rounds that began while a task of low priority was amid a call, or one of high priority.
    AmidLow,
    AmidHigh,

    /// Permits of a bulkhead asked for, and what became of that: they were given, rejected, or nobody waited for them
    /// any more.
    Asked,
    Given,
    Rejected,
    Cancelled,
    /// Of those given, those that had been waited for and that the handler, or a task of this or that priority, has
    /// left.
    LeftByHandler,
    LeftByHigh,
    LeftByLow,
    /// Of those rejected, those that had been waited for in vain.
    InVain,
    /// Times that somebody was found waiting for permits that were there.
    Forgotten,
    /// The longest wait for a permit of each bulkhead, in microseconds.
    LongestWait,
    LongestPatience,

    /// Calls of the breaker alone.
    Admitted,
    NotAdmitted,
    Succeeded,
    Failed,
    Ignored,
    Abandoned,

    /// Permits of the limiter, asked for and given, be it alone or by a call through the pipeline.
    QuotaAsked,
    QuotaGiven,

    /// Reports that the degradation did not know of right after.
    Lost,

    /// Tokens of the budget brought back: by calls that succeeded after a retry, and by whoever found too few.
    BroughtBack,

    /// Calls through the pipeline, and how each of them ended.
    Calls,
    CallSucceeded,
    CallFailed,
    CallTimedOut,
    CallCancelled,
    /// By the limiter, the bulkhead, the breaker.
    CallNotInQuota,
    CallFull,
    CallBroken,
    /// Of those that failed or timed out: a further attempt was rejected, by the bulkhead or the breaker.
    RetryRejected,
    /// Operations started in the pipeline, and what they came to, unless they were dropped.
    Started,
    OperationSucceeded,
    OperationFailed,
}

const COUNTS: usize = Count::OperationFailed as usize + 1;

struct Ledger(Mutex<[Cell<u32>; COUNTS]>);

static LEDGERS: [Ledger; Priority::ALL.len()] =
    [const { Ledger(Mutex::new([const { Cell::new(0) }; COUNTS])) }; Priority::ALL.len()];

fn update(priority: Priority, count: Count, change: impl FnOnce(u32) -> u32) {
    critical_section::with(|cs| {
        let cell = &LEDGERS[priority as usize].0.borrow(cs)[count as usize];
        cell.set(change(cell.get()));
    });
}

pub(crate) fn add(priority: Priority, count: Count, more: u32) {
    update(priority, count, |before| before + more);
}

pub(crate) fn raise(priority: Priority, count: Count, to: u32) {
    update(priority, count, |before| before.max(to));
}

/// Of one priority.
pub(crate) fn of(priority: Priority, count: Count) -> u32 {
    critical_section::with(|cs| LEDGERS[priority as usize].0.borrow(cs)[count as usize].get())
}

/// Of all together.
pub(crate) fn sum(counts: &[Count]) -> u32 {
    counts.iter().flat_map(|&count| Priority::ALL.map(|priority| of(priority, count))).sum()
}
