//! A clock that is cheap to read, and moves in steps.

use core::time::Duration;

use failsoft_core::{Clock, Executor, Instant};

use crate::blocking::Threads;
use crate::executor::{Tokio, random};

/// The kernel's coarse clock, where it has one: a fraction of the fine clock's price, and some milliseconds behind.
///
/// It is `CLOCK_MONOTONIC_COARSE` of Linux, which the kernel itself moves on with each of its ticks: every 1 to 10 ms, as it was built
/// ([`resolution`](Self::resolution)). No task or thread has to keep it going, so that it doesn't stand still when a runtime is blocked or
/// stopped. It never goes back, and it is never ahead. Elsewhere it is the fine clock, as [`Threads`] has it.
///
/// It shares its time line with [`Tokio`] and [`Threads`]: one policy may be asked by one clock and told by another, and an [`Instant`]
/// of this one is at most the [`resolution`](Self::resolution) behind one that [`Tokio`] read at the same time; more only where the kernel
/// is late with its tick, as on a virtual machine that is not let run.
///
/// ```
/// use core::time::Duration;
/// use failsoft_tokio::circuit_breaker::{Config, TimeBased};
/// use failsoft_tokio::{CoarseClock, LockedCircuitBreaker, Ratio, valid};
///
/// // Half of the calls of the last ten seconds.
/// static PAYMENTS: LockedCircuitBreaker<TimeBased<10>> = LockedCircuitBreaker::new(valid!(
///     Config::new().with_trip(valid!(TimeBased::new(Ratio::percent(50), Duration::from_secs(10)))).validate()
/// ));
///
/// // Each call reads the clock once.
/// let permit = PAYMENTS.try_acquire(CoarseClock)?;
/// permit.success();
/// # Ok::<(), failsoft_tokio::Rejected>(())
/// ```
///
/// # What it is good for
/// Windows of time, waits of an open breaker, and limits for slow calls, where a step matters little: each far above the
/// resolution (a span is measured to within one step of it), a second as against 4 ms. `cargo bench -p failsoft-measure --bench growth`
/// measures what it buys.
///
/// # When not to use it
/// * For slow calls, latencies or limits of a few milliseconds: they would be zero or a whole step.
/// * For a rate limiter of a thousand a second and more without a burst of several steps' worth: all that comes within one step comes at
///   once to it, and what has been regained shows a step late. It never lets through more than its quota.
/// * In tests: `tokio::time::pause` and `advance` don't govern it. Make what uses it generic over [`Clock`] (a permit) or [`Executor`]
///   (a pipeline), and give it [`Tokio`] there.
///
/// # As an executor
/// In `Pipeline::new(CoarseClock)` every layer reads it, and sleeps by tokio's timers until it shows the time slept for: timeouts and
/// delays end up to the resolution later than with [`Tokio`], and never early.
#[derive(Clone, Copy, Debug, Default)]
pub struct CoarseClock;

impl CoarseClock {
    /// How far a reading may be behind: the step in which this clock moves. Zero where it is the fine one.
    #[must_use]
    pub fn resolution(self) -> Duration {
        kernel::resolution().unwrap_or_default()
    }
}

impl Clock for CoarseClock {
    #[inline]
    fn now(&self) -> Instant {
        kernel::now().unwrap_or_else(|| Threads.now())
    }
}

impl Executor for CoarseClock {
    type Sleep = tokio::time::Sleep;

    fn sleep_until(&self, at: Instant) -> tokio::time::Sleep {
        // Before that, this clock may not show `at`, and the sleeper would have to sleep again.
        Tokio.sleep_until(at.saturating_add(self.resolution()))
    }

    fn random(&self) -> u32 {
        random()
    }
}

#[cfg(target_os = "linux")]
mod kernel {
    use core::time::Duration;
    use std::sync::OnceLock;

    use failsoft_core::{Clock, Instant};
    use rustix::time::{ClockId, DynamicClockId, Timespec, clock_getres, clock_gettime, clock_gettime_dynamic};

    use crate::blocking::Threads;

    /// How the kernel's time is told in ours.
    #[derive(Clone, Copy)]
    struct Line {
        /// The kernel's time where ours starts, in nanoseconds. The kernel's starts with the machine, which may be after that.
        start: i64,
        resolution: Duration,
    }

    impl Line {
        /// `None` where the kernel has no coarse clock.
        fn find() -> Option<Self> {
            read_coarse()?;
            // The fine clock is the same one. The kernel's reading comes second, so that what passes in between makes us late and
            // never early; the least of a few, since a thread may be held up in between.
            let start = (0..16).map(|_| start(Threads.now(), nanos(clock_gettime(ClockId::Monotonic)))).min()?;
            Some(Self { start, resolution: clock_getres(ClockId::MonotonicCoarse).try_into().ok()? })
        }

        #[inline]
        fn tell(self, kernel: i64) -> Instant {
            Instant::from_nanos(u64::try_from(kernel.saturating_sub(self.start)).unwrap_or(0))
        }
    }

    /// Where our time starts, if it is now `ours`, or was shortly before the kernel's was `kernel`.
    fn start(ours: Instant, kernel: i64) -> i64 {
        kernel.saturating_sub(i64::try_from(ours.as_nanos()).unwrap_or(i64::MAX))
    }

    #[inline]
    fn nanos(Timespec { tv_sec, tv_nsec }: Timespec) -> i64 {
        #[allow(clippy::useless_conversion, reason = "it is an `i64` on most systems only")]
        tv_sec.saturating_mul(1_000_000_000).saturating_add(tv_nsec.into())
    }

    #[inline]
    fn read_coarse() -> Option<i64> {
        // Dynamic, since a kernel may be built without this clock, and then it is a failure and not a panic.
        clock_gettime_dynamic(DynamicClockId::Known(ClockId::MonotonicCoarse)).ok().map(nanos)
    }

    fn line() -> Option<&'static Line> {
        static LINE: OnceLock<Option<Line>> = OnceLock::new();
        LINE.get_or_init(Line::find).as_ref()
    }

    #[inline]
    pub(super) fn now() -> Option<Instant> {
        Some(line()?.tell(read_coarse()?))
    }

    pub(super) fn resolution() -> Option<Duration> {
        Some(line()?.resolution)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_kernels_time_is_told_in_ours_on_a_machine_that_started_before_or_after_it() {
            for kernel in [5_000, 5] {
                let line = Line { start: start(Instant::from_nanos(100), kernel), resolution: Duration::ZERO };
                assert_eq!(line.tell(kernel), Instant::from_nanos(100));
                assert_eq!(line.tell(kernel + 7), Instant::from_nanos(107));
                assert_eq!(line.tell(kernel - 101), Instant::START, "what was before is the start");
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod kernel {
    use core::time::Duration;

    use failsoft_core::Instant;

    pub(super) const fn now() -> Option<Instant> {
        None
    }

    pub(super) const fn resolution() -> Option<Duration> {
        None
    }
}
