//! One waiter or ten thousand in a bulkhead's queue, and in tokio's semaphore.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::time::Instant;

use failsoft_tokio::{Bulkhead, Tokio, bulkhead};
use tokio::sync::Semaphore;

use crate::Effort;
use crate::plot::{Content, Curve, Plot, Reading, Section, grouped, times};

const LENGTHS: [u32; 5] = [1, 10, 100, 1_000, 10_000];
/// Waiters in all queues together: always as many, so that only the length of a queue changes.
const WAITERS: u32 = 10_000;

/// Where it is waited.
trait Queue {
    type Permit<'q>
    where
        Self: 'q;
    /// With a single permit.
    fn new() -> Result<Self, String>
    where
        Self: Sized;
    fn try_acquire(&self) -> Option<Self::Permit<'_>>;
    fn acquire(&self) -> impl Future<Output = Option<Self::Permit<'_>>>;
}

impl Queue for Bulkhead {
    type Permit<'q> = bulkhead::Permit<&'q Self, failsoft_tokio::Atomic, failsoft_tokio::ThreadQueue>;

    fn new() -> Result<Self, String> {
        // Nobody is told to give up, so that no timer is measured.
        let config = bulkhead::Config::new(1).with_queue(WAITERS, Duration::MAX);
        config.validate().map(Self::new).map_err(|error| error.to_string())
    }

    fn try_acquire(&self) -> Option<Self::Permit<'_>> {
        self.try_acquire().ok()
    }

    async fn acquire(&self) -> Option<Self::Permit<'_>> {
        self.acquire(1, Tokio).await.ok()
    }
}

impl Queue for Semaphore {
    type Permit<'q> = tokio::sync::SemaphorePermit<'q>;

    fn new() -> Result<Self, String> {
        Ok(Self::new(1))
    }

    fn try_acquire(&self) -> Option<Self::Permit<'_>> {
        self.try_acquire().ok()
    }

    async fn acquire(&self) -> Option<Self::Permit<'_>> {
        self.acquire().await.ok()
    }
}

/// The places of one queue's waiters, there before anything is measured.
type Line<F> = Vec<Pin<Box<Option<F>>>>;

fn poll<F: Future>(waiter: &mut Pin<Box<Option<F>>>) -> Poll<F::Output> {
    match waiter.as_mut().as_pin_mut() {
        Some(waiter) => waiter.poll(&mut Context::from_waker(Waker::noop())),
        None => Poll::Pending,
    }
}

/// Fills the queues; how many seconds that took.
fn join<'q, Q, F: Future>(queues: &'q [Q], lines: &mut [Line<F>], acquire: impl Fn(&'q Q) -> F) -> Result<f64, String> {
    for (queue, line) in queues.iter().zip(&mut *lines) {
        line.iter_mut().for_each(|waiter| waiter.as_mut().set(Some(acquire(queue))));
    }
    let start = Instant::now();
    if lines.iter_mut().flatten().all(|waiter| poll(waiter).is_pending()) {
        Ok(start.elapsed().as_secs_f64())
    } else {
        Err(String::from("somebody did not have to wait"))
    }
}

/// Hands the permit on from one waiter to the next, through all the queues; how many seconds that took.
fn hand_over<P, F: Future<Output = Option<P>>>(held: Vec<P>, lines: &mut [Line<F>]) -> Result<f64, String> {
    let start = Instant::now();
    for (line, permit) in lines.iter_mut().zip(held) {
        let mut held = Some(permit);
        for waiter in line {
            // It is given back before the next can have it.
            drop(held.take());
            let Poll::Ready(Some(permit)) = poll(waiter) else {
                return Err(String::from("the next in the queue was not served"));
            };
            held = Some(permit);
        }
    }
    Ok(start.elapsed().as_secs_f64())
}

/// Lets all waiters leave, the middle one of those who are left first; how many seconds that took.
fn leave<F>(lines: &mut [Line<F>]) -> f64 {
    let start = Instant::now();
    for line in lines {
        for index in from_the_middle(line.len()) {
            if let Some(waiter) = line.get_mut(index) {
                waiter.as_mut().set(None);
            }
        }
    }
    start.elapsed().as_secs_f64()
}

/// The middle one, the next, the one before, and so on outwards.
fn from_the_middle(length: usize) -> impl Iterator<Item = usize> {
    let middle = length.saturating_sub(1) / 2;
    (0..length).map(move |turn| {
        let far = turn.div_ceil(2);
        if turn % 2 == 1 { middle + far } else { middle - far }
    })
}

/// Nanoseconds to join, to be handed the permit and to leave from the middle, in queues as long as that: for one waiter, in the fastest
/// batch.
fn at<Q: Queue>(batches: u32, length: u32) -> Result<[f64; 3], String> {
    let queues: Vec<Q> = (0..WAITERS / length).map(|_| Q::new()).collect::<Result<_, _>>()?;
    let mut lines: Vec<Line<_>> = queues.iter().map(|_| (0..length).map(|_| Box::pin(None)).collect()).collect();
    let hold =
        || queues.iter().map(|queue| queue.try_acquire().ok_or_else(|| String::from("an empty queue gave nothing")));
    let mut best = [f64::MAX; 3];
    for _ in 0..batches {
        let held = hold().collect::<Result<Vec<_>, _>>()?;
        let joined = join(&queues, &mut lines, Q::acquire)?;
        let handed_over = hand_over(held, &mut lines)?;
        let held = hold().collect::<Result<Vec<_>, _>>()?;
        join(&queues, &mut lines, Q::acquire)?;
        let left = leave(&mut lines);
        drop(held);
        for (best, seconds) in best.iter_mut().zip([joined, handed_over, left]) {
            *best = best.min(seconds * 1e9 / f64::from(WAITERS));
        }
    }
    Ok(best)
}

pub(crate) fn measure(effort: Effort) -> Result<Section, String> {
    let mut curves = [
        Curve::ours("bulkhead, join"),
        Curve::ours("bulkhead, hand over"),
        Curve::ours("bulkhead, leave from the middle"),
        Curve::floor("tokio's semaphore, join"),
        Curve::floor("tokio's semaphore, hand over"),
        Curve::floor("tokio's semaphore, leave"),
    ];
    for length in LENGTHS {
        let figures = [at::<Bulkhead>(effort.batches, length)?, at::<Semaphore>(effort.batches, length)?];
        for (curve, figure) in curves.iter_mut().zip(figures.concat()) {
            curve.push(length, figure);
        }
    }
    let (ours, theirs) = curves.split_at(3);
    let reading = ours.iter().zip(theirs).map(|(ours, theirs)| {
        let text = format!(
            "for one waiter it {}; {} {}. In the longest queue ours takes {} of theirs.",
            ours.course(),
            theirs.name,
            theirs.course(),
            times(ours.last() / theirs.last()),
        );
        Reading::new(&ours.name, text)
    });
    let reading = reading.collect();
    let plot = Plot { x: "waiters in a queue", y: "ns per waiter", curves: curves.into() };
    Ok(Section {
        title: "From one waiter to ten thousand",
        about: format!(
            "A bulkhead of one permit, whose queue may hold up to {}; {} waiters in as many queues as that takes, so that only \
             the length of a queue changes. Nobody else is at work.",
            grouped(bulkhead::MOST.into()),
            grouped(WAITERS.into()),
        ),
        content: Content::Plot(plot),
        reading,
    })
}
