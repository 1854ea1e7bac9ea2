//! Sliding windows by themselves: by time, with counters of the caller's own, and by number of calls.

use core::time::Duration;

use failsoft_core::cell::Fresh;
use failsoft_core::circuit_breaker::Counts;
use failsoft_core::window::{Accumulate, CountWindow, TimeWindow};
use failsoft_core::{Instant, Span};

use crate::breaker::plan::decimals;
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
    fn add(&mut self, other: &Self) -> bool {
        let Some(took) = self.took.checked_add(other.took) else { return false };
        if !self.counts.add(&other.counts) {
            return false;
        }
        self.took = took;
        // There are no more than calls.
        self.slow_failures = self.slow_failures.saturating_add(other.slow_failures);
        true
    }

    fn subtract(&mut self, other: &Self) {
        self.counts.subtract(&other.counts);
        self.slow_failures = self.slow_failures.saturating_sub(other.slow_failures);
        self.took = self.took.saturating_sub(other.took);
    }
}

/// A window of any kind.
trait Window {
    fn clear(&mut self);
    fn add(&mut self, call: &Calls, now: Instant);
    fn sum(&self, now: Instant) -> Calls;
}

struct Timed<const BUCKETS: usize> {
    window: TimeWindow<Calls, BUCKETS>,
    bucket: Span,
}

impl<const BUCKETS: usize> Window for Timed<BUCKETS> {
    fn clear(&mut self) {
        self.window = TimeWindow::new();
    }

    fn add(&mut self, call: &Calls, now: Instant) {
        self.window.add(call, self.bucket, now);
    }

    fn sum(&self, now: Instant) -> Calls {
        self.window.sum(self.bucket, now)
    }
}

/// Calls that a window of them holds at most.
const CALLS: usize = 128;
const WORDS: usize = CALLS / 32;

/// The last calls: the window that breakers use, one more for the slow failures, and how long the calls took.
struct Counted {
    size: u32,
    calls: CountWindow<WORDS>,
    slow_failures: CountWindow<WORDS>,
    took: heapless::Deque<Duration, CALLS>,
}

impl Window for Counted {
    fn clear(&mut self) {
        (self.calls, self.slow_failures) = (CountWindow::new(), CountWindow::new());
        self.took.clear();
    }

    fn add(&mut self, call: &Calls, _: Instant) {
        let slow_failure = call.slow_failures > 0;
        self.calls.push(self.size, call.counts.failures > 0, call.counts.slow > 0);
        self.slow_failures.push(self.size, slow_failure, slow_failure);
        while u32::try_from(self.took.len()).is_ok_and(|length| length >= self.size) {
            let _: Option<Duration> = self.took.pop_front();
        }
        let _ = self.took.push_back(call.took);
    }

    fn sum(&self, _: Instant) -> Calls {
        let took = self.took.iter().fold(Duration::ZERO, |sum, took| sum.saturating_add(*took));
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
            if usize::try_from(size).is_ok_and(|size| size == 0 || size > CALLS) {
                return Err(Unsupported::Room("a window of so many calls"));
            }
            return counted(size, vector, checks);
        }
        Some(_) => return Err(Unsupported::Value { key: "type", problem: "is not known" }),
    };
    macro_rules! timed {
        ($($buckets:literal),*) => {
            match buckets {
                $($buckets => timed::<$buckets>(bucket, vector, checks),)*
                _ => Err(Unsupported::Room("a window of so many buckets")),
            }
        };
    }
    timed!(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 16, 20, 30, 60, 100)
}

#[inline(never)]
fn timed<'a, const BUCKETS: usize>(bucket: Duration, vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    walk(vector, checks, &mut Timed::<BUCKETS> { window: TimeWindow::new(), bucket: Span::of(bucket) })
}

#[inline(never)]
fn counted<'a>(size: u32, vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    let (calls, slow_failures, took) = (CountWindow::new(), CountWindow::new(), heapless::Deque::new());
    walk(vector, checks, &mut Counted { size, calls, slow_failures, took })
}

fn walk<'a>(vector: &Vector<'a>, checks: &mut Checks, window: &mut dyn Window) -> Result<'a, ()> {
    let mut now = Instant::START;
    // Where a source rounds its ratios, it says to how many decimals.
    let decimals = match decimals(vector.config)? {
        None if vector.dialect() == "failsafe" => Some(2),
        decimals => decimals,
    };
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
        "reset" => {
            window.clear();
            return step.no_args();
        }
        "snapshot" | "tick" | "expire" => return step.no_args(),
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
    // The calls that succeed: of each so many, the first.
    let each = match args.needed("pattern", args.text("pattern"))? {
        "success" => 1,
        "failure" => u32::MAX,
        pattern => {
            let each = pattern.strip_prefix("success when i%").and_then(|rest| rest.strip_suffix("==0 else failure"));
            let problem = Unsupported::Value { key: "pattern", problem: "is not known" };
            each.and_then(|each| each.parse().ok()).filter(|each| *each > 0).ok_or(problem)?
        }
    };
    let succeeds = |index: u32| each != u32::MAX && index.is_multiple_of(each);
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
            "total" | "throughput" | "buffered" => Actual::whole(calls),
            "failed" => Actual::whole(failures),
            "succeeded" => Actual::whole(successes),
            "slow" => Actual::whole(slow),
            "slow_failed" => Actual::whole(sum.slow_failures),
            "slow_succeeded" => Actual::whole(slow.saturating_sub(sum.slow_failures)),
            "failure_ratio" => ratio(failures),
            "success_ratio" => ratio(successes),
            "failure_rate" => percent(failures),
            "success_rate" => percent(successes),
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
