//! One task or sixteen at one instance.

use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use failsoft_tests::measure::median;
use failsoft_tokio::circuit_breaker::{self, FailureRate};
use failsoft_tokio::{Bulkhead, CircuitBreaker, RateLimiter, Ratio, Threads, bulkhead, rate_limiter, valid};
use tokio::runtime::{Builder, Runtime};

use crate::Effort;
use crate::plot::{Content, Curve, Plot, Reading, Section, ns, times};

const WORKERS: usize = 2;
const TASKS: [u32; 5] = [1, 2, 4, 8, 16];
/// Calls after which a task lets the others run.
const TURN: u32 = 128;

fn breaker() -> CircuitBreaker<FailureRate> {
    // It opens at 90 %, so that one failure in ten keeps it closed.
    const RATE: FailureRate = valid!(FailureRate::new(Ratio::percent(90), 40));
    CircuitBreaker::new(valid!(circuit_breaker::Config::new().with_trip(RATE).validate()))
}

fn call(breaker: &CircuitBreaker<FailureRate>, good: bool) {
    match breaker.try_acquire(Threads) {
        Ok(permit) if good => permit.success(),
        Ok(permit) => permit.failure(),
        Err(_) => {}
    }
}

/// Seconds until so many tasks together have made so many calls.
fn seconds<R, F: Fn(u32) -> R + Send + Sync + 'static>(
    runtime: &Runtime,
    work: &Arc<F>,
    tasks: u32,
    calls: u32,
) -> Result<f64, String> {
    let start = Instant::now();
    let handles: Vec<_> = (0..tasks)
        .map(|_| {
            let work = Arc::clone(work);
            runtime.spawn(async move {
                for call in 0..calls / tasks {
                    black_box(work(black_box(call)));
                    if call % TURN == TURN - 1 {
                        tokio::task::yield_now().await;
                    }
                }
            })
        })
        .collect();
    for handle in handles {
        runtime.block_on(handle).map_err(|error| error.to_string())?;
    }
    Ok(start.elapsed().as_secs_f64())
}

/// The curve of one instance's `work`: of all calls together, so that two workers that don't disturb each other take half as long.
fn curve<R, F: Fn(u32) -> R + Send + Sync + 'static>(
    effort: Effort,
    runtime: &Runtime,
    mut curve: Curve,
    work: F,
) -> Result<Curve, String> {
    let work = Arc::new(work);
    // Longer than elsewhere, for the tasks to meet.
    let longer = Effort { seconds: effort.seconds * 8.0, ..effort };
    let calls = longer.calls(|calls| seconds(runtime, &work, 1, calls).unwrap_or(f64::MAX));
    for tasks in TASKS {
        let batches: Result<Vec<_>, _> = (0..effort.batches).map(|_| seconds(runtime, &work, tasks, calls)).collect();
        curve.push(tasks, median(batches?) * 1e9 / f64::from(calls));
    }
    Ok(curve)
}

pub(crate) fn measure(effort: Effort) -> Result<Section, String> {
    let runtime = Builder::new_multi_thread().worker_threads(WORKERS).build().map_err(|error| error.to_string())?;
    let (healthy, mixed) = (breaker(), breaker());
    let compartment = Bulkhead::new(valid!(bulkhead::Config::new(64).validate()));
    let limiter = RateLimiter::new(valid!(rate_limiter::Config::new(u32::MAX, Duration::from_millis(1)).validate()));
    let (loaded, added) = (AtomicU64::new(0), AtomicU64::new(0));
    let curves = vec![
        curve(effort, &runtime, Curve::ours("breaker, success"), move |_| call(&healthy, true))?,
        curve(effort, &runtime, Curve::ours("breaker, 1 of 10 fails"), move |index| call(&mixed, index % 10 != 0))?,
        curve(effort, &runtime, Curve::ours("bulkhead, acquire and release"), move |_| {
            compartment.try_acquire().is_ok()
        })?,
        curve(effort, &runtime, Curve::ours("rate limiter, check"), move |_| limiter.try_acquire(&Threads).is_ok())?,
        curve(effort, &runtime, Curve::floor("one atomic load"), move |_| loaded.load(Ordering::Acquire))?,
        curve(effort, &runtime, Curve::floor("one atomic addition"), move |_| added.fetch_add(1, Ordering::AcqRel))?,
    ];
    let [.., load, add] = curves.as_slice() else { return Err(String::from("no curves")) };
    let bare = |floor: &Curve| {
        format!("{} goes from {} to {} ({})", floor.name, ns(floor.first()), ns(floor.last()), times(floor.growth()))
    };
    let mut reading = vec![Reading::new("with no policy at all", format!("{}, {}.", bare(load), bare(add)))];
    for curve in curves.iter().filter(|curve| !curve.is_floor) {
        let far = |floor: &Curve| (curve.growth() / floor.growth()).ln().abs();
        let like = if far(load) < far(add) { load } else { add };
        let text = format!(
            "from {} with one task to {} with the most ({}), which is more like {} ({}).",
            ns(curve.first()),
            ns(curve.last()),
            times(curve.growth()),
            like.name,
            times(like.growth()),
        );
        reading.push(Reading::new(&curve.name, text));
    }
    let plot = Plot { x: "tasks on two workers", y: "ns per call, all tasks together", curves };
    Ok(Section {
        title: "From one task to sixteen at one instance",
        about: format!(
            "A tokio runtime of {WORKERS} workers; each task lets the others run after {TURN} calls. The time until all calls are \
             made, by their number: half of one task's where two workers don't disturb each other."
        ),
        content: Content::Plot(plot),
        reading,
    })
}
