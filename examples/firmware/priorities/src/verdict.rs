//! Whether all that the sides have been told agrees with what the policies say.

use core::fmt::{self, Write};
use core::time::Duration;

use board::Text;
use embassy_time::Instant;
use failsoft_embassy::degradation::DegradationLevel;

use crate::ledger::{Count, of, sum};
use crate::policies::{
    self, BREAKER, BUDGET, BUS, CAPACITY, DEVICE, GENERATIONS, HUB, LIMITER, LINE, PERMITS, QUOTA, RETRIES, RETRY_COST,
    STEPS, TRANSITIONS, told,
};
use crate::side::{self, Priority};
use crate::{ROUNDS, exit_code};

/// Nobody waits for longer, the less so where waits are limited: that is time enough for all who may go first, be it
/// in line or because they preempt.
const LONGEST: Duration = Duration::from_millis(20);

/// Whether all tasks have come to their end, and the interrupt.
pub(crate) fn all_ended() -> bool {
    let sides = [(Priority::High, side::HIGH.len()), (Priority::Low, side::LOW.len()), (Priority::Handler, 1)];
    sides.iter().all(|&(priority, count)| usize::try_from(of(priority, Count::Ended)) == Ok(count))
}

pub(crate) fn exit_code() -> u8 {
    let Some(mut text) = Text::new() else { return exit_code::WRONG };
    match judge(&mut text) {
        _ if !all_ended() => exit_code::STUCK,
        Ok(true) => exit_code::RIGHT,
        _ => exit_code::WRONG,
    }
}

fn judge(text: &mut Text) -> Result<bool, fmt::Error> {
    let parts = [
        ("rounds", rounds(text)?),
        ("bulkheads", permits(text)?),
        ("waits", waits(text)?),
        ("breaker", breaker(text)?),
        ("rejections", rejections(text)?),
        ("limiter", quota(text)?),
        ("budget", budget(text)?),
        ("pipeline", calls(text)?),
        ("degradation", reports(text)?),
        ("ends", all_ended()),
    ];
    for (what, right) in parts {
        if !right {
            writeln!(text, "{what}: WRONG")?;
        }
    }
    text.flush()?;
    Ok(parts.iter().all(|(_, right)| *right))
}

/// A count of the tasks, low and high.
fn of_tasks(count: Count) -> [u32; 2] {
    [Priority::Low, Priority::High].map(|priority| of(priority, count))
}

fn rounds(text: &mut Text) -> Result<bool, fmt::Error> {
    let [low, high, handler] = Priority::ALL.map(|priority| of(priority, Count::Rounds));
    let took = Instant::now().as_millis();
    writeln!(text, "rounds: {low} low, {high} high, {handler} of the interrupt, in {took} ms")?;
    let amid = [
        of(Priority::High, Count::AmidLow),
        of(Priority::Handler, Count::AmidLow),
        of(Priority::Handler, Count::AmidHigh),
    ];
    writeln!(
        text,
        "of high priority amid calls of low: {}; of the interrupt {}, and {} of high",
        amid[0], amid[1], amid[2]
    )?;
    Ok([low, high, handler].iter().all(|&rounds| rounds >= ROUNDS)
        && amid[0] >= high / 4
        && amid[1] >= handler / 4
        && amid[2] >= handler / 8)
}

fn permits(text: &mut Text) -> Result<bool, fmt::Error> {
    let bulkheads = [BUS.snapshot(), LINE.snapshot()];
    let in_use = bulkheads.map(|bulkhead| bulkhead.in_use + bulkhead.queued);
    let [asked, given, rejected, cancelled] =
        [Count::Asked, Count::Given, Count::Rejected, Count::Cancelled].map(|count| sum(&[count]));
    writeln!(text, "bulkheads: {in_use:?} in use, {given} given, {rejected} rejected, {cancelled} cancelled")?;
    Ok(in_use == [0; 2]
        && bulkheads.iter().all(|bulkhead| bulkhead.high_water == PERMITS)
        && asked == given + rejected + cancelled)
}

fn waits(text: &mut Text) -> Result<bool, fmt::Error> {
    let handed = [Count::LeftByLow, Count::LeftByHigh, Count::LeftByHandler].map(of_tasks);
    let ended = [Count::InVain, Count::Cancelled].map(of_tasks);
    let longest = [Count::LongestWait, Count::LongestPatience].map(of_tasks);
    writeln!(
        text,
        "waits of [low, high]: permits left by low {:?}, high {:?}, interrupt {:?}",
        handed[0], handed[1], handed[2]
    )?;
    let forgotten = sum(&[Count::Forgotten]);
    writeln!(text, "in vain {:?}, cancelled {:?}, forgotten {forgotten}", ended[0], ended[1])?;
    writeln!(text, "the longest {:?} µs where waits are limited, {:?} µs elsewhere", longest[0], longest[1])?;
    Ok(forgotten == 0
        && handed.iter().chain(&ended).flatten().all(|&count| count >= ROUNDS / 100)
        && longest.iter().flatten().all(|&wait| Duration::from_micros(wait.into()) <= LONGEST))
}

fn breaker(text: &mut Text) -> Result<bool, fmt::Error> {
    let (totals, changes) = (BREAKER.observer(), told(&TRANSITIONS));
    let outcomes = [totals.successes(), totals.failures(), totals.ignored(), totals.abandoned(), totals.late()];
    let admitted = sum(&[Count::Admitted, Count::Started]);
    // An operation that was dropped has failed where a timeout did it, and was abandoned where its caller did.
    let dropped = sum(&[Count::Started]) - sum(&[Count::OperationSucceeded, Count::OperationFailed]);
    let most = [
        sum(&[Count::Succeeded, Count::OperationSucceeded]),
        sum(&[Count::Failed, Count::OperationFailed]) + dropped,
        sum(&[Count::Ignored]),
        sum(&[Count::Abandoned]) + dropped,
        admitted,
    ];
    writeln!(
        text,
        "breaker: {admitted} admitted, {} rejected, {} late, {changes} changes",
        totals.rejected(),
        totals.late()
    )?;
    let now = BREAKER.snapshot(&DEVICE);
    Ok(totals.admitted() == admitted.into()
        && outcomes.iter().sum::<u64>() == admitted.into()
        && outcomes.iter().zip(most).all(|(&told, most)| (1..=most.into()).contains(&told))
        && (now.probes, i64::from(now.generation)) == (0, i64::from(changes) % i64::from(GENERATIONS)))
}

/// A retry that is rejected doesn't say by whom, so that only the bulkheads' and the breaker's together are known to
/// the very number.
fn rejections(text: &mut Text) -> Result<bool, fmt::Error> {
    let (full, broken) = (u64::from(BUS.snapshot().rejected + LINE.snapshot().rejected), BREAKER.observer().rejected());
    let [of_full, of_broken] = [[Count::Rejected, Count::CallFull], [Count::NotAdmitted, Count::CallBroken]]
        .map(|counts| u64::from(sum(&counts)));
    let of_either = u64::from(sum(&[Count::RetryRejected]));
    writeln!(text, "rejections: {full} full, {broken} broken; {of_full}, {of_broken} and {of_either} of retries")?;
    Ok(full + broken == of_full + of_broken + of_either && full >= of_full && broken >= of_broken)
}

fn quota(text: &mut Text) -> Result<bool, fmt::Error> {
    let (asked, given, left) = (sum(&[Count::QuotaAsked]), sum(&[Count::QuotaGiven]), LIMITER.available(&DEVICE));
    writeln!(text, "limiter: {given} given of {QUOTA}, {asked} asked for")?;
    Ok(given == QUOTA && left == 0 && asked > QUOTA)
}

fn budget(text: &mut Text) -> Result<bool, fmt::Error> {
    let (retries, back) = (u32::try_from(told(&RETRIES)).unwrap_or(u32::MAX), sum(&[Count::BroughtBack]));
    let balance = BUDGET.balance();
    writeln!(text, "budget: {retries} retries, {back} tokens brought back, {balance} left of {CAPACITY}")?;
    Ok(retries > 0 && balance + retries * u32::from(RETRY_COST) == CAPACITY + back)
}

fn calls(text: &mut Text) -> Result<bool, fmt::Error> {
    let calls = sum(&[Count::Calls]);
    let ends = [
        Count::CallSucceeded,
        Count::CallFailed,
        Count::CallTimedOut,
        Count::CallCancelled,
        Count::CallNotInQuota,
        Count::CallFull,
        Count::CallBroken,
    ]
    .map(|count| sum(&[count]));
    let [succeeded, failed, timed_out, cancelled, not_in_quota, full, broken] = ends;
    writeln!(
        text,
        "pipeline: {calls} calls, {succeeded} succeeded, {failed} failed, {timed_out} timed out, {cancelled} cancelled,"
    )?;
    writeln!(text, "  {not_in_quota} not in quota, {full} full, {broken} broken")?;
    Ok(ends.iter().all(|&count| count > 0) && ends.iter().sum::<u32>() == calls)
}

fn reports(text: &mut Text) -> Result<bool, fmt::Error> {
    let lost = sum(&[Count::Lost]);
    let well = policies::services().all(|(name, _)| HUB.report(name, true, &DEVICE).is_ok());
    let (level, steps) = (HUB.level(&DEVICE), told(&STEPS));
    writeln!(text, "degradation: {lost} reports lost, {steps} steps below full")?;
    Ok(lost == 0 && well && level == DegradationLevel::Full && steps == 0)
}
