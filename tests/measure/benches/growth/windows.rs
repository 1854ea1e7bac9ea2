//! Windows of ten calls or ten thousand.

use core::time::Duration;

use failsoft_tokio::cell::CellKind;
use failsoft_tokio::circuit_breaker::{Config, CountBased, Trip};
use failsoft_tokio::circuit_breaker::{State, TimeBased};
use failsoft_tokio::{Instant, Locked, LockedCircuitBreaker, Ratio};

use crate::Effort;
use crate::plot::{Content, Curve, Plot, Reading, Section, ns};

/// Of this many calls one succeeds, where most fail: less than all, and so no window opens its breaker.
const MIX: u32 = 8;

/// Between two calls, by the clock that is passed along, and so costs nothing.
const STEP: u64 = 1_000;
/// Of a window over time.
const BUCKET: Duration = Duration::from_millis(1);

fn call<T: Copy + Trip>(breaker: &LockedCircuitBreaker<T>, now: Instant, good: bool) -> bool
where
    Locked: CellKind<State<T::Meter>>,
{
    match breaker.try_acquire(now) {
        Ok(permit) if good => permit.success(),
        Ok(permit) => permit.failure(),
        Err(_) => return false,
    }
    true
}

/// Nanoseconds per call of a breaker with this condition, which calls lead through and whose clock goes on by `step` with each.
fn nanos<T: Copy + Trip>(effort: Effort, trip: T, size: u32, step: u64, is_good: fn(u32) -> bool) -> Result<f64, String>
where
    Locked: CellKind<State<T::Meter>>,
{
    let config = Config::new().with_trip(trip).validate().map_err(|error| error.to_string())?;
    // Not on the stack: the largest takes hundreds of kilobytes.
    let breaker = Box::new(LockedCircuitBreaker::new(config));
    let (mut calls, mut nanos) = (0_u32, 0);
    let mut next = || {
        (calls, nanos) = (calls.wrapping_add(1), nanos + step);
        call(&breaker, Instant::from_nanos(nanos), is_good(calls))
    };
    // The window is full before it counts.
    for _ in 0..size {
        next();
    }
    let figure = effort.nanos(|_| next());
    if next() { Ok(figure) } else { Err(String::from("a breaker that should have stayed closed is open")) }
}

const GOOD: fn(u32) -> bool = |_| true;
const MOSTLY_BAD: fn(u32) -> bool = |call| call.is_multiple_of(MIX);

/// Both kinds of windows at one size, one after the other: successes, failures; successes, failures, after a pause.
fn at<const WORDS: usize, const BUCKETS: usize>(effort: Effort, size: u32) -> Result<[f64; 5], String> {
    let all = Ratio::percent(100);
    let count = CountBased::<WORDS>::new(all, size).map_err(|error| error.to_string())?;
    let period = BUCKET * size;
    let time = TimeBased::<BUCKETS>::new(all, period).map_err(|error| error.to_string())?;
    // Two windows long, so that everything has to go, each time.
    let pause = STEP * 2_000 * u64::from(size);
    Ok([
        nanos(effort, count, size, STEP, GOOD)?,
        nanos(effort, count, size, STEP, MOSTLY_BAD)?,
        nanos(effort, time, size, STEP, GOOD)?,
        nanos(effort, time, size, STEP, MOSTLY_BAD)?,
        nanos(effort, time, size, pause, GOOD)?,
    ])
}

pub(crate) fn measure(effort: Effort) -> Result<Section, String> {
    let mut curves = [
        Curve::ours("last calls, success"),
        Curve::ours("last calls, 7 of 8 fail"),
        Curve::ours("over time, success"),
        Curve::ours("over time, 7 of 8 fail"),
        Curve::ours("over time, after a pause of two windows"),
    ];
    let measured = [
        (10, at::<1, 10>(effort, 10)?),
        (32, at::<1, 32>(effort, 32)?),
        (100, at::<4, 100>(effort, 100)?),
        (320, at::<10, 320>(effort, 320)?),
        (1_000, at::<32, 1_000>(effort, 1_000)?),
        (3_200, at::<100, 3_200>(effort, 3_200)?),
        (10_000, at::<313, 10_000>(effort, 10_000)?),
    ];
    for (size, figures) in measured {
        for (curve, figure) in curves.iter_mut().zip(figures) {
            curve.push(size, figure);
        }
    }
    let [in_time @ .., pause] = &curves;
    let mut reading: Vec<_> =
        in_time.iter().map(|curve| Reading::new(&curve.name, format!("a call {}.", curve.course()))).collect();
    let buckets = f64::from(pause.points.last().map_or(0, |point| point.x));
    let all = format!(
        "a call {}. It has to empty all buckets: {} for each of the largest window's.",
        pause.course(),
        ns(pause.last() / buckets)
    );
    reading.push(Reading::new(&pause.name, all));
    let plot = Plot { x: "calls, or buckets of time, in the window", y: "ns per call", curves: curves.into() };
    Ok(Section {
        title: "From a window of ten to ten thousand",
        about: String::from(
            "One breaker behind a mutex. The clock is passed along and costs nothing here; buckets of 1 ms, a thousand calls in each.",
        ),
        content: Content::Plot(plot),
        reading,
    })
}
