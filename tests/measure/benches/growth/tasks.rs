//! One task or sixteen at one instance.

use core::fmt::Write as _;
use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use failsoft_measure::measure::median;
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

/// The seconds until so many tasks have made so many calls.
type Seconds = dyn Fn(&Runtime, u32, u32) -> Result<f64, String>;

/// A curve, and what is measured for it.
struct Subject {
    curve: Curve,
    seconds: Box<Seconds>,
}

/// All tasks call `work` of the one instance.
fn subject<R, F: Fn(u32) -> R + Send + Sync + 'static>(curve: Curve, work: F) -> Subject {
    let work = Arc::new(work);
    Subject { curve, seconds: Box::new(move |runtime, tasks, calls| seconds(runtime, &work, tasks, calls)) }
}

fn subjects() -> [Subject; 6] {
    let (healthy, mixed) = (breaker(), breaker());
    let compartment = Bulkhead::new(valid!(bulkhead::Config::new(64).validate()));
    let limiter = RateLimiter::new(valid!(rate_limiter::Config::new(u32::MAX, Duration::from_millis(1)).validate()));
    let (loaded, added) = (AtomicU64::new(0), AtomicU64::new(0));
    [
        subject(Curve::ours("breaker, success"), move |_| call(&healthy, true)),
        subject(Curve::ours("breaker, 1 of 10 fails"), move |index| call(&mixed, index % 10 != 0)),
        subject(Curve::ours("bulkhead, acquire and release"), move |_| compartment.try_acquire().is_ok()),
        subject(Curve::ours("rate limiter, check"), move |_| limiter.try_acquire(&Threads).is_ok()),
        subject(Curve::floor("one atomic load"), move |_| loaded.load(Ordering::Acquire)),
        subject(Curve::floor("one atomic addition"), move |_| added.fetch_add(1, Ordering::AcqRel)),
    ]
}

pub(crate) fn measure(effort: Effort) -> Result<Section, String> {
    let runtime = Builder::new_multi_thread().worker_threads(WORKERS).build().map_err(|error| error.to_string())?;
    // Longer than elsewhere, for the tasks to meet.
    let longer = Effort { seconds: effort.seconds * 8.0, ..effort };
    let mut subjects = subjects().map(|subject| {
        let calls = longer.calls(|calls| (subject.seconds)(&runtime, 1, calls).unwrap_or(f64::MAX));
        (subject, calls)
    });
    for tasks in TASKS {
        // By turns, so that what else the machine has to do meets all alike.
        let mut batches = [const { Vec::new() }; 6];
        for _ in 0..effort.batches {
            for ((subject, calls), batches) in subjects.iter().zip(&mut batches) {
                batches.push((subject.seconds)(&runtime, tasks, *calls)?);
            }
        }
        for ((subject, calls), batches) in subjects.iter_mut().zip(batches) {
            subject.curve.push(tasks, median(batches) * 1e9 / f64::from(*calls));
        }
    }
    let curves = subjects.map(|(subject, _)| subject.curve);
    let [.., add] = &curves;
    let reading = curves.iter().map(|curve| {
        let mut text = format!(
            "from {} with one task to {} with the most, {}",
            ns(curve.first()),
            ns(curve.last()),
            times(curve.growth())
        );
        if !curve.is_floor {
            let (first, last) = (times(curve.first() / add.first()), times(curve.last() / add.last()));
            let _ = write!(text, "; {first} of {} with one task, {last} with the most", add.name);
        }
        Reading::new(&curve.name, text + ".")
    });
    let reading = reading.collect();
    let plot = Plot { x: "tasks on two workers", y: "ns per call, all tasks together", curves: curves.into() };
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
