//! Shows that policies keep their times at any tick rate, and while the counter of ticks wraps: a breaker, a limiter, retries, timeouts, a
//! deadline, a bulkhead's queue and a degradation go through nine seconds, and what they decide and when is [as it is to be](expected).
//!
//! On stdout is their log, and nothing else: the same to the byte whatever the rate, and wherever the clock starts. On stderr is how exact
//! it was. The argument `ticks` says where the clock starts.

#![no_std]

mod expected;
mod log;
mod tasks;

use core::fmt::{self, Write};

use board::Text;
use embassy_executor::Spawner;
use embassy_time::{Duration, Instant, TICK_HZ, Timer};
use log::Findings;

/// The clock's first wrap.
const WRAP: u64 = 1 << 32;
/// Between the start of the clock and that of the tasks: whole ticks at each rate.
const LEAD: Duration = Duration::from_millis(125);
/// From then on: longer than all that there is to do.
const LENGTH: Duration = Duration::from_secs(9);
/// Thousandths of the time in which it may sleep that the image is to be asleep at least.
const ASLEEP: u64 = 980;

#[embassy_executor::task]
async fn watch(spawner: Spawner, booted: u32) {
    let start = Instant::from_ticks(booted.into()) + LEAD;
    log::start(start);
    let all_run = tasks::spawn(spawner, start).is_ok();

    Timer::at(start + LENGTH).await;
    let may_sleep = LEAD + LENGTH - Duration::from_millis(tasks::AWAKE.end - tasks::AWAKE.start);
    let asleep = board::asleep().as_ticks() * 1_000 / may_sleep.as_ticks();
    let end = Instant::now();
    let wraps = (start.as_ticks()..end.as_ticks()).contains(&WRAP);
    let wrap = (booted != 0).then(|| WRAP.saturating_sub(start.as_ticks()));
    let right = log::finish().is_ok_and(|(right, findings)| {
        let written = figures(&findings, asleep, wrap).is_ok();
        right && written && findings.are_exact() && asleep >= ASLEEP
    });
    let right = right && all_run && wraps == wrap.is_some();
    board::exit(u8::from(!right))
}

fn figures(findings: &Findings, asleep: u64, wrap: Option<u64>) -> fmt::Result {
    let mut text = Text::on_stderr().ok_or(fmt::Error)?;
    write!(text, "{TICK_HZ} ticks a second\n{findings}")?;
    writeln!(text, "asleep for {}.{} % of the time in which it may be", asleep / 10, asleep % 10)?;
    if let Some(ticks) = wrap {
        writeln!(text, "the counter of 32 bits was to wrap {} ms after the start", ticks * 1_000 / TICK_HZ)?;
    }
    text.flush()
}

/// The image, at a tick rate that it has been built for.
pub fn run<const HZ: u64>() -> ! {
    const { assert!(HZ == TICK_HZ, "the image's name says another tick rate than its features") };
    let booted = board::argument("ticks").unwrap_or_default();
    board::run_from(booted, |spawner| {
        // The first of its kind: there is room for it.
        if let Ok(task) = watch(spawner, booted) {
            spawner.spawn(task);
        }
    })
}
