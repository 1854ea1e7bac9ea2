//! Sliding windows by themselves: by time, with counters of the caller's own, and by number of calls.

use core::time::Duration;

use failsoft_core::cell::Fresh;
use failsoft_core::circuit_breaker::Counts;
use failsoft_core::window::{Accumulate, CountWindow, TimeWindow};
use failsoft_core::{Instant, Span};

use crate::checks::{Actual, Checks};
use crate::number::Quantity;
use crate::vector::{Result, Step, Unsupported, Vector};

/// What calls came to, with how long they took: a window sums up whatever it is given.
#[derive(Clone, Copy, Default)]
struct Calls {
    counts: Counts,
    slow_failures: u32,
    took: Duration,
}

impl Fresh for Calls {
    const FRESH: Self =
        Self { counts: Counts { calls: 0, failures: 0, slow: 0 }, slow_failures: 0, took: Duration::ZERO };
}

impl Accumulate for Calls {
    fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        self.slow_failures = self.slow_failures.saturating_add(other.slow_failures);
        self.took = self.took.saturating_add(other.took);
    }

    fn subtract(&mut self, other: &Self) {
        self.counts.subtract(&other.counts);
        self.slow_failures = self.slow_failures.saturating_sub(other.slow_failures);
        self.took = self.took.saturating_sub(other.took);
    }
}

/// A window of any kind.
trait Window {
    fn add(&mut self, call: &Calls, now: Instant);
    fn sum(&self, now: Instant) -> Calls;
}

struct Timed<const BUCKETS: usize> {
    window: TimeWindow<Calls, BUCKETS>,
    bucket: Span,
}

impl<const BUCKETS: usize> Window for Timed<BUCKETS> {
    fn add(&mut self, call: &Calls, now: Instant) {
        self.window.add(call, self.bucket, now);
    }

    fn sum(&self, now: Instant) -> Calls {
        self.window.sum(self.bucket, now)
    }
}

/// The last calls: the window that breakers use, one more for the slow failures, and a window of time for how long calls took, in which
/// each call is a bucket of its own.
struct Counted<const SIZE: usize> {
    size: u32,
    calls: CountWindow<4>,
    slow_failures: CountWindow<4>,
    took: TimeWindow<Calls, SIZE>,
    number: u64,
}

const CALL: Span = Span::of(Duration::from_nanos(1));

impl<const SIZE: usize> Window for Counted<SIZE> {
    fn add(&mut self, call: &Calls, _: Instant) {
        self.number = self.number.saturating_add(1);
        let slow_failure = call.slow_failures > 0;
        self.calls.push(self.size, call.counts.failures > 0, call.counts.slow > 0);
        self.slow_failures.push(self.size, slow_failure, slow_failure);
        self.took.add(call, CALL, Instant::from_nanos(self.number));
    }

    fn sum(&self, _: Instant) -> Calls {
        let took = self.took.sum(CALL, Instant::from_nanos(self.number)).took;
        Calls { counts: self.calls.counts(), slow_failures: self.slow_failures.counts().failures, took }
    }
}

#[inline(never)]
pub(crate) fn run<'a>(vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    let known =
        ["dialect", "type", "buckets", "bucket_ms", "sampling_ms", "windows", "size", "aligned_to", "rate_rounding"];
    let config = vector.config.only(&known)?;
    let (buckets, bucket) = match config.text("type")? {
        // Only to choose one.
        None => (1, Duration::from_secs(1)),
        Some("time") => {
            let bucket = config.needed("bucket_ms", config.span("bucket_ms"))?;
            (config.needed("buckets", config.count("buckets"))?, bucket)
        }
        Some("rolling") => {
            let windows = config.needed("windows", config.count("windows"))?;
            let whole = config.needed("sampling_ms", config.span("sampling_ms"))?;
            (windows, whole.checked_div(windows).unwrap_or(whole))
        }
        Some("single") => (1, config.needed("sampling_ms", config.span("sampling_ms"))?),
        Some("count") => {
            let size = config.needed("size", config.count("size"))?;
            return match size {
                5 => counted::<5>(size, vector, checks),
                10 => counted::<10>(size, vector, checks),
                20 => counted::<20>(size, vector, checks),
                _ => Err(Unsupported::Room("a window of so many calls")),
            };
        }
        Some(_) => return Err(Unsupported::Value { key: "type", problem: "is not known" }),
    };
    match buckets {
        1 => timed::<1>(bucket, vector, checks),
        4 => timed::<4>(bucket, vector, checks),
        5 => timed::<5>(bucket, vector, checks),
        10 => timed::<10>(bucket, vector, checks),
        20 => timed::<20>(bucket, vector, checks),
        _ => Err(Unsupported::Room("a window of so many buckets")),
    }
}

#[inline(never)]
fn timed<'a, const BUCKETS: usize>(bucket: Duration, vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    walk(vector, checks, &mut Timed::<BUCKETS> { window: TimeWindow::new(), bucket: Span::of(bucket) })
}

#[inline(never)]
fn counted<'a, const SIZE: usize>(size: u32, vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    let (calls, slow_failures) = (CountWindow::new(), CountWindow::new());
    walk(vector, checks, &mut Counted::<SIZE> { size, calls, slow_failures, took: TimeWindow::new(), number: 0 })
}

fn walk<'a>(vector: &Vector<'a>, checks: &mut Checks, window: &mut dyn Window) -> Result<'a, ()> {
    let mut now = Instant::START;
    // Where a source rounds its ratios, it says to how many decimals.
    let decimals = vector.config.text("rate_rounding")?.and_then(|text| text.split(' ').next()?.parse::<u32>().ok());
    for step in vector.steps() {
        checks.begin(&step);
        now = step.at()?.unwrap_or(now);
        for _ in 0..step.repeat()? {
            take(&step, window, now)?;
            judge(&step, checks, window.sum(now), decimals)?;
        }
    }
    Ok(())
}

fn take<'a>(step: &Step<'a>, window: &mut dyn Window, now: Instant) -> Result<'a, ()> {
    let (failed, slow) = match step.op {
        "success" => (false, false),
        "failure" => (true, false),
        "slow_success" => (false, true),
        "slow_failure" => (true, true),
        "bulk" => return bulk(step, window, now),
        "snapshot" | "expire" => return step.no_args(),
        "choose" => return step.args()?.only_args(&["sampling_ms"]).map(|_| ()),
        op => return Err(Unsupported::Op(op)),
    };
    let took = step.args()?.only_args(&["duration_ms"])?.span("duration_ms")?.unwrap_or(Duration::ZERO);
    window.add(&call(failed, slow, took), now);
    Ok(())
}

fn call(failed: bool, slow: bool, took: Duration) -> Calls {
    let counts = Counts { calls: 1, failures: failed.into(), slow: slow.into() };
    Calls { counts, slow_failures: (failed && slow).into(), took }
}

fn bulk<'a>(step: &Step<'a>, window: &mut dyn Window, now: Instant) -> Result<'a, ()> {
    let args = step.args()?.only_args(&["pattern", "count"])?;
    let succeeds: fn(u32) -> bool = match args.needed("pattern", args.text("pattern"))? {
        "success" => |_| true,
        "failure" => |_| false,
        "success when i%5==0 else failure" => |index| index % 5 == 0,
        _ => return Err(Unsupported::Value { key: "pattern", problem: "is not known" }),
    };
    for index in 0..args.needed("count", args.count("count"))? {
        window.add(&call(!succeeds(index), false, Duration::ZERO), now);
    }
    Ok(())
}

fn judge<'a>(step: &Step<'a>, checks: &mut Checks, sum: Calls, decimals: Option<u32>) -> Result<'a, ()> {
    let Counts { calls, failures, slow } = sum.counts;
    let successes = calls.saturating_sub(failures);
    // Nothing is none of nothing.
    let ratio = |part: u32| {
        let exact = Quantity::fraction(part, calls.max(1).into());
        Actual::maybe(exact.map(|ratio| decimals.map_or(ratio, |decimals| ratio.rounded(decimals))))
    };
    let percent = |part| Actual::Number(Quantity::percent(part, calls.max(1)));
    checks.expect(step, &mut |key| {
        Some(match key {
            "total" | "throughput" => Actual::whole(calls),
            "failed" => Actual::whole(failures),
            "succeeded" => Actual::whole(successes),
            "slow" => Actual::whole(slow),
            "slow_failed" => Actual::whole(sum.slow_failures),
            "slow_succeeded" => Actual::whole(slow.saturating_sub(sum.slow_failures)),
            "failure_ratio" => ratio(failures),
            "success_ratio" => ratio(successes),
            "failure_rate" => percent(failures),
            "slow_rate" => percent(slow),
            "total_duration_ms" => Actual::Number(Quantity::millis(sum.took)),
            "avg_duration_ms" => {
                Actual::Number(Quantity::millis(sum.took.checked_div(calls).unwrap_or(Duration::ZERO)))
            }
            "type" => Actual::Text("rolling"),
            _ => return None,
        })
    })
}
