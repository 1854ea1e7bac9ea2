//! What is measured in time and memory on this machine.

use core::future::{Ready, ready};
use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::{Context, Poll};
use core::time::Duration;
use std::sync::Arc;

use backon::BackoffBuilder;
use failsoft_measure::measure::fastest;
use failsoft_measure::race::race;
use failsoft_measure::subjects::{self, Still};
use failsoft_tokio::{CircuitBreaker, Clock, Pipeline, PipelineLayer, Tokio};
use tower::Layer as _;
use tower_resilience_bulkhead::BulkheadLayer;
use tower_resilience_circuitbreaker::CircuitBreakerLayer;
use tower_resilience_retry::RetryLayer;
use tower_resilience_timelimiter::TimeLimiterLayer;

use crate::{NOT_MEASURED, Row};

/// Calls in a batch: long enough for the clock, short enough to fall between two interruptions.
const BATCH: u32 = 100_000;
/// Batches of which the fastest counts.
const BATCHES: u32 = 40;

/// Nanoseconds per call of `work`, in the fastest of many batches.
fn nanos<R>(work: impl FnMut(u32) -> R) -> f64 {
    fastest(BATCHES, BATCH, work)
}

/// How often it is tried to run two threads at once, and how long after each time that others had a core.
const TRIES: u32 = 30;
const PAUSE: Duration = Duration::from_secs(2);

/// The same with two threads at once, each doing a whole batch of its own work: the median. Nothing where the machine is too busy for that.
fn nanos_of_two<R>(works: [&(impl Fn(u32) -> R + Sync); 2]) -> Option<f64> {
    let measured = (1..=TRIES).find_map(|attempt| {
        let workers = works.map(|work| move |call| work(black_box(call)));
        let measured = race(BATCHES.into(), BATCH.into(), workers, || ());
        if measured.is_none() {
            eprintln!("numbers: others have one of the cores: try {attempt} of {TRIES} came to nothing");
            std::thread::sleep(PAUSE);
        }
        measured
    });
    Some(measured?.as_secs_f64() * 1e9 / f64::from(BATCH))
}

fn ns(figure: f64) -> String {
    format!("{figure:.2} ns")
}

/// A time to reach, on the machine that the goals are from: there `peer` took `there` nanoseconds for the same work. On another machine it
/// is as many times longer or shorter as that crate takes longer or shorter.
#[derive(Clone, Copy)]
struct Goal {
    nanos: f64,
    peer: &'static str,
    there: f64,
}

const SUCCESS: Goal = Goal { nanos: 1.5, peer: "recloser", there: 8.5 };
const DELAY: Goal = Goal { nanos: 3.0, peer: "backon", there: 13.0 };
const LIMITER: Goal = Goal { nanos: 4.0, peer: "governor", there: 3.6 };
const BULKHEAD: Goal = Goal { nanos: 5.0, peer: "tokio Semaphore", there: 8.6 };
// Of the same work, with another crate's policies, the peers' benchmark tells; here it is a call of a breaker that stands for the machine.
const PIPELINE: Goal = Goal { nanos: 20.0, ..SUCCESS };
const TOWER: Goal = Goal { nanos: 5.0, ..SUCCESS };

impl Goal {
    /// The time to reach on this machine, where the peer takes `theirs`.
    fn here(self, theirs: f64) -> f64 {
        self.nanos * theirs / self.there
    }

    fn explained(self, theirs: f64) -> String {
        let Self { nanos, peer, there } = self;
        format!("{peer} {}, where {nanos} ns are to be reached {there}: so {} here", ns(theirs), ns(self.here(theirs)))
    }
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = vec![];
    closed(&mut rows);
    mixed(&mut rows);
    open(&mut rows);
    others(&mut rows);
    tower(&mut rows);
    tower_stack(&mut rows);
    memory(&mut rows);
    rows
}

/// In a cache line of its own.
#[repr(align(128))]
struct Apart<T>(T);

fn closed(rows: &mut Vec<Row>) {
    let (consecutive, window) = (subjects::consecutive(), subjects::window());
    let (recloser, failsafe) = (subjects::recloser(), subjects::failsafe());
    let one = nanos(|_| subjects::call(&consecutive, true));
    let ring = nanos(|_| subjects::call(&window, true));
    let theirs = nanos(|_| subjects::call_recloser(&recloser, true));
    let others = nanos(|_| subjects::call_failsafe(&failsafe, true));
    rows.push(Row {
        what: "closed breaker, success, 1 thread",
        figure: format!("{} ({} with a window)", ns(one), ns(ring)),
        reach: "≤ 1.5 ns, 5 × faster than recloser",
        reached: Some(one <= SUCCESS.here(theirs) && theirs >= 5.0 * ring),
        elsewhere: format!("{} ({:.1} ×), failsafe {}", SUCCESS.explained(theirs), theirs / ring, ns(others)),
    });
    let call_ours = |_| subjects::call(&window, true);
    let call_recloser = |_| subjects::call_recloser(&recloser, true);
    let two = nanos_of_two([&call_ours, &call_ours]);
    let theirs = nanos_of_two([&call_recloser, &call_recloser]);
    // On some machines two threads slow each other down though they share nothing.
    let own = [Apart(subjects::window()), Apart(subjects::window())];
    let [first, second] = &own;
    let call_own = [first, second].map(|breaker| move |_| subjects::call(&breaker.0, true));
    let [first, second] = &call_own;
    let apart = nanos_of_two([first, second]);
    let (figure, reached, elsewhere) = match (two, apart, theirs) {
        (Some(two), Some(apart), Some(theirs)) => {
            let reached = two <= 1.3 * ring.max(apart) && theirs >= 50.0 * two;
            let elsewhere = format!(
                "with a breaker for each thread {}; recloser {} ({:.0} ×)",
                ns(apart),
                ns(theirs),
                theirs / two
            );
            (ns(two), reached, elsewhere)
        }
        _ => (String::from(NOT_MEASURED), false, String::from("the machine is too busy to run two threads at once")),
    };
    rows.push(Row {
        what: "closed breaker, success, 2 threads",
        figure,
        reach: "≤ 1.3 × one thread, or two that share nothing; 50 × faster than recloser",
        reached: Some(reached),
        elsewhere,
    });
}

/// What a success of recloser's closed breaker takes, right now.
fn recloser() -> f64 {
    let recloser = subjects::recloser();
    nanos(|_| subjects::call_recloser(&recloser, true))
}

fn mixed(rows: &mut Vec<Row>) {
    let (window, recloser) = (subjects::window(), subjects::recloser());
    let ours = nanos(|call| subjects::call(&window, call % 10 != 0));
    let theirs = nanos(|call| subjects::call_recloser(&recloser, call % 10 != 0));
    rows.push(Row {
        what: "closed breaker, 10 % failures, 1 thread",
        figure: ns(ours),
        reach: "no slower than recloser",
        reached: Some(ours <= theirs),
        elsewhere: format!("recloser {} ({:.1} ×)", ns(theirs), theirs / ours),
    });
}

fn open(rows: &mut Vec<Row>) {
    let (breaker, recloser) = (subjects::consecutive(), subjects::recloser());
    for _ in 0..100 {
        subjects::call(&breaker, false);
        subjects::call_recloser(&recloser, false);
    }
    let ours = nanos(|_| subjects::call(&breaker, true));
    let theirs = nanos(|_| subjects::call_recloser(&recloser, true));
    let clock = nanos(|_| Tokio.now());
    rows.push(Row {
        what: "open breaker, rejected",
        figure: format!("{} ({:.2} × the clock)", ns(ours), ours / clock),
        reach: "≤ 1.2 × reading the clock",
        reached: Some(ours <= 1.2 * clock),
        elsewhere: format!("the clock {}, recloser {}", ns(clock), ns(theirs)),
    });
}

/// What so many changes of a word take that nobody else touches, and what that means for a number to reach.
fn floor(changes: u32, reach: f64) -> String {
    let word = AtomicU64::new(0);
    let least = nanos(|_| {
        for _ in 0..changes {
            let seen = word.load(Ordering::Relaxed);
            let _ = word.compare_exchange(seen, seen.wrapping_add(1), Ordering::AcqRel, Ordering::Acquire);
        }
    });
    let verdict = if least > reach { ", more than is to be reached" } else { "" };
    let what = if changes == 1 { "its compare-exchange alone" } else { "its compare-exchanges alone" };
    format!("; {what} {}{verdict}", ns(least))
}

fn others(rows: &mut Vec<Row>) {
    let backoff = subjects::backoff();
    let ours = nanos(|call| backoff.jittered(call % 8 + 1, Duration::ZERO, call.wrapping_mul(7919)));
    let mut delays = backon::ExponentialBuilder::default().with_jitter().without_max_times().build();
    let theirs = nanos(|_| delays.next());
    rows.push(Row {
        what: "next retry delay with jitter",
        figure: ns(ours),
        reach: "≤ 3 ns",
        reached: Some(ours <= DELAY.here(theirs)),
        elsewhere: DELAY.explained(theirs),
    });
    let (limiter, governor, now) = (subjects::limiter(), subjects::governor(Still), Tokio.now());
    let ours = nanos(|_| limiter.try_acquire(&black_box(now)));
    let theirs = nanos(|_| governor.check());
    rows.push(Row {
        what: "rate limiter check, time given",
        figure: ns(ours),
        reach: "≤ 4 ns",
        reached: Some(ours <= LIMITER.here(theirs)),
        elsewhere: format!("{}{}", LIMITER.explained(theirs), floor(1, LIMITER.here(theirs))),
    });
    let (bulkhead, semaphore) = (subjects::compartment(), tokio::sync::Semaphore::new(64));
    let ours = nanos(|_| bulkhead.try_acquire());
    let theirs = nanos(|_| semaphore.try_acquire());
    rows.push(Row {
        what: "bulkhead, acquire and release",
        figure: ns(ours),
        reach: "≤ 5 ns",
        reached: Some(ours <= BULKHEAD.here(theirs)),
        elsewhere: format!("{}{}", BULKHEAD.explained(theirs), floor(2, BULKHEAD.here(theirs))),
    });
    let breaker = subjects::consecutive();
    let pipeline = subjects::pipeline(&bulkhead, &breaker);
    let ours = nanos(|_| subjects::call_pipeline(&pipeline, |_| ready(subjects::work(true))));
    let by_hand = nanos(|_| subjects::call_by_hand(&bulkhead, &breaker));
    let recloser = recloser();
    let allocated = allocation_counter::measure(|| {
        for _ in 0..1_000 {
            black_box(subjects::call_pipeline(&pipeline, |_| ready(subjects::work(true))));
        }
    });
    rows.push(Row {
        what: "pipeline: timeout, retry, bulkhead, breaker, ready future",
        figure: format!("{}, {} allocations in 1,000 calls", ns(ours), allocated.count_total),
        reach: "≤ 20 ns, 0 allocations",
        reached: Some(ours <= PIPELINE.here(recloser) && allocated.count_total == 0),
        elsewhere: format!(
            "{}; bulkhead and breaker by hand, without a future, timeout and retry, {}{}",
            PIPELINE.explained(recloser),
            ns(by_hand),
            floor(2, PIPELINE.here(recloser)).replace("its", "the bulkhead's")
        ),
    });
}

fn tower(rows: &mut Vec<Row>) {
    let pipeline = Box::leak(Box::new(Pipeline::new(Tokio).layer(subjects::consecutive())));
    let (mut bare, mut layered) = (subjects::NoOp, subjects::breaker_layer(pipeline));
    let without = nanos(|_| subjects::call_service(&mut bare));
    let with = nanos(|_| subjects::call_service(&mut layered));
    let recloser = recloser();
    let allocated = allocation_counter::measure(|| {
        for _ in 0..1_000 {
            black_box(subjects::call_service(&mut layered));
        }
    });
    rows.push(Row {
        what: "breaker as a tower layer over a no-op service",
        figure: format!("{} more, {} allocations in 1,000 calls", ns(with - without), allocated.count_total),
        reach: "≤ 5 ns more than the service, 0 allocations",
        reached: Some(with - without <= TOWER.here(recloser) && allocated.count_total == 0),
        elsewhere: format!("the service {}, with the layer {}; {}", ns(without), ns(with), TOWER.explained(recloser)),
    });
}

/// A service of tower's that does the work, at once, with an error that is one.
#[derive(Clone, Copy)]
struct Quiet;

impl tower::Service<bool> for Quiet {
    type Response = ();
    type Error = core::fmt::Error;
    type Future = Ready<Result<(), core::fmt::Error>>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), core::fmt::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, good: bool) -> Self::Future {
        ready(subjects::work(good).map_err(|()| core::fmt::Error))
    }
}

fn tower_resilience() -> impl tower::Service<bool> {
    let bulkhead = BulkheadLayer::builder().max_concurrent_calls(64).reject_when_full().build().expect("valid");
    let breaker = CircuitBreakerLayer::builder().consecutive_failures(5).build().expect("valid");
    tower::ServiceBuilder::new()
        .layer(TimeLimiterLayer::builder().timeout_duration(Duration::from_secs(30)).build())
        .layer(RetryLayer::builder().max_attempts(3).exponential_backoff(Duration::from_millis(100)).build())
        .layer(bulkhead)
        .layer(breaker)
        .service(Quiet)
}

/// The whole stack, against that of the crate that has one for tower.
fn tower_stack(rows: &mut Vec<Row>) {
    // Theirs asks tokio for a timer on each call.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("it needs nothing");
    let _entered = runtime.enter();
    let pipeline = Arc::new(subjects::pipeline(subjects::compartment(), subjects::consecutive()));
    let mut ours = PipelineLayer::new(pipeline).layer(Quiet);
    let mut theirs = tower_resilience();
    let mut works = || subjects::call_service(&mut ours) && subjects::call_service(&mut theirs);
    assert!(works(), "both let a call through");
    let (here, there) = (nanos(|_| subjects::call_service(&mut ours)), nanos(|_| subjects::call_service(&mut theirs)));
    let allocations = |call: &mut dyn FnMut() -> bool| {
        let allocated = allocation_counter::measure(|| {
            for _ in 0..1_000 {
                black_box(call());
            }
        });
        allocated.count_total
    };
    let ours_allocate = allocations(&mut || subjects::call_service(&mut ours));
    let theirs_allocate = allocations(&mut || subjects::call_service(&mut theirs));
    rows.push(Row {
        what: "timeout, retry, bulkhead, breaker as a tower layer over a no-op service",
        figure: format!("{}, {ours_allocate} allocations in 1,000 calls", ns(here)),
        reach: "≤ 1/4 of tower-resilience, 0 allocations",
        reached: Some(4.0 * here <= there && ours_allocate == 0),
        elsewhere: format!("{} ({:.0} ×), {theirs_allocate} allocations", ns(there), there / here),
    });
}

fn memory(rows: &mut Vec<Row>) {
    let ours = size_of::<CircuitBreaker>();
    let with_window = size_of_val(&subjects::window());
    let mine = allocation_counter::measure(|| {
        black_box(subjects::consecutive());
    });
    let theirs = allocation_counter::measure(|| {
        black_box(subjects::recloser());
    });
    rows.push(Row {
        what: "breaker in memory",
        figure: format!("{ours} B ({with_window} B with a window), {} allocations", mine.count_total),
        reach: "≤ 64 B, 0 allocations",
        reached: Some(ours <= 64 && mine.count_total == 0),
        elsewhere: format!(
            "recloser {} B in {} allocations",
            size_of::<recloser::Recloser>() as u64 + theirs.bytes_total,
            theirs.count_total
        ),
    });
}
