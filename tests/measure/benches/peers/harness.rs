//! How subjects are proven and measured: criterion measures, and its medians are what the table shows.

use core::cell::Cell;
use core::future::Future;
use core::hint::black_box;
use core::pin::pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::LazyLock;
use std::time::Instant;

use criterion::measurement::WallTime;
use criterion::{Bencher, BenchmarkId, Criterion};
use failsoft_measure::race::{alone, race};
use tokio::runtime::Runtime;

use crate::memory::Weight;
use crate::service::{Ask, call};
use crate::table::{Section, Subject};

pub(crate) const ONE: &str = "1 thread";
pub(crate) const TWO: &str = "2 threads";

/// Calls that must all turn out as they should before a subject is measured, and as many after it.
const PROOF: u32 = 1_000;

/// Timers and clocks of tokio's for those who want a runtime. Nothing that is measured runs on its thread.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_time().build().expect("tokio's runtime starts")
});

/// The answer of a future, polled until it is there: at once, unless two threads meet.
#[inline]
pub(crate) fn answer<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        core::hint::spin_loop();
    }
}

/// Batches in each of criterion's samples.
const BATCHES: u64 = 64;
/// So often two threads try to be at work at once.
const TRIES: u32 = 5;
/// Samples that are long enough for that. Shorter ones only find out how many calls to make.
const LONG: Duration = Duration::from_millis(5);

/// How many batches of how many calls make so many calls.
fn batches(calls: u64) -> (u64, u64) {
    (BATCHES.min(calls), (calls / BATCHES).max(1))
}

/// A sample of so many calls, by how long a batch of it takes.
fn whole(calls: u64, batch: Duration) -> Duration {
    batch.mul_f64(calls as f64 / batches(calls).1 as f64)
}

/// Two workers, and how often each is called.
#[derive(Clone, Copy)]
pub(crate) struct Race<'a> {
    calls: u64,
    /// Where they are to be proven, not measured: what becomes false when a call turned out wrong.
    right: Option<&'a AtomicBool>,
}

impl Race<'_> {
    /// How long they take; nothing where the machine did not let them run at the same time.
    pub(crate) fn run<W: FnMut(u32) -> bool + Send>(self, workers: [W; 2]) -> Option<Duration> {
        let enter = || RUNTIME.enter();
        match self.right {
            None => {
                let (batches, calls) = batches(self.calls);
                Some(whole(self.calls, race(batches, calls, workers, enter)?))
            }
            Some(right) => {
                let prove = |mut work: W| move |call| right.fetch_and(work(call), Ordering::Relaxed);
                race(1, self.calls, workers.map(prove), enter)
            }
        }
    }
}

/// What is measured, and what has been found.
pub(crate) struct Bench {
    criterion: Criterion,
    folder: PathBuf,
    sections: Vec<Section>,
    /// Who ran and has no figure.
    without: Vec<String>,
}

impl Bench {
    /// Criterion's files are below `folder`.
    pub(crate) fn new(criterion: Criterion, folder: &Path) -> Self {
        Self {
            criterion: criterion.output_directory(folder),
            folder: folder.to_owned(),
            sections: vec![],
            without: vec![],
        }
    }

    /// What follows is one table, its figures beside the floor of that name.
    pub(crate) fn section(&mut self, title: &'static str, floor: &'static str) {
        self.sections.push(Section::new(title, floor));
    }

    /// The tables that have figures, and who should be in them and is not.
    pub(crate) fn results(mut self) -> (Vec<Section>, Vec<String>) {
        self.sections.retain(|section| section.figures() > 0);
        (self.sections, self.without)
    }

    /// A subject that can't be measured.
    pub(crate) fn unfit(&mut self, column: &'static str, subject: Subject, reason: &'static str) {
        if let Some(section) = self.sections.last_mut() {
            section.unfit(column, subject, reason);
        }
    }

    /// A subject that one thread works with: told how many calls it has done, it does one more, and says whether that turned out as it
    /// should.
    pub(crate) fn one<W: FnMut(u32) -> bool>(&mut self, column: &'static str, subject: Subject, make: impl Fn() -> W) {
        let _entered = RUNTIME.enter();
        let prove = |(count, work): &mut (u32, W)| {
            (0..PROOF).all(|_| {
                *count = count.wrapping_add(1);
                work(*count)
            })
        };
        self.measure(
            column,
            subject,
            || (0, make()),
            prove,
            |(count, work), bencher| {
                // As if it were known elsewhere: or else the compiler might keep in registers what is in memory.
                let work = black_box(work);
                bencher.iter_custom(|calls| {
                    let (batches, in_batch) = batches(calls);
                    whole(calls, alone(batches, in_batch, count, &mut *work))
                });
            },
        );
    }

    /// A subject that two threads work with at once.
    pub(crate) fn two<S>(
        &mut self,
        subject: Subject,
        make: impl Fn() -> S,
        run: impl Fn(&S, Race<'_>) -> Option<Duration>,
    ) {
        let _entered = RUNTIME.enter();
        let prove = |shared: &mut S| {
            let right = AtomicBool::new(true);
            run(shared, Race { calls: PROOF.into(), right: Some(&right) });
            right.into_inner()
        };
        let (ran, missed, a_call) = (Cell::new(0), Cell::new(0), Cell::new(None));
        self.measure(TWO, subject, make, prove, |shared, bencher| {
            bencher.iter_custom(|calls| {
                let start = Instant::now();
                let time = (0..TRIES).find_map(|_| run(shared, Race { calls, right: None }));
                let elapsed = start.elapsed();
                if elapsed >= LONG {
                    let counter = if time.is_some() { &ran } else { &missed };
                    counter.set(counter.get() + 1);
                }
                if let Some(time) = time {
                    a_call.set(Some(time.as_secs_f64() / calls as f64));
                }
                // A sample that could not be had is as the one before.
                time.or_else(|| Some(Duration::from_secs_f64(a_call.get()? * calls as f64))).unwrap_or(elapsed)
            });
        });
        if let Some(section) = self.sections.last_mut().filter(|_| missed.get() > ran.get()) {
            section.spoil(TWO, subject, "the machine is too busy to run two threads at once");
        }
    }

    /// A subject that threads share as it is: by one, by two, and weighed.
    pub(crate) fn shared<S: Sync>(
        &mut self,
        subject: Subject,
        make: impl Fn() -> S,
        pass: impl Fn(&S) -> bool + Copy + Send,
    ) {
        self.weigh(subject, &make, |shared| pass(shared));
        self.one(ONE, subject, || {
            let shared = make();
            move |_| pass(&shared)
        });
        self.two(subject, make, |shared, race| race.run([(); 2].map(|()| move |_| pass(shared))));
    }

    /// A service, of which each thread has a clone: by one, by two, and weighed.
    pub(crate) fn service<S>(&mut self, subject: Subject, make: impl Fn() -> S)
    where
        S: tower::Service<Ask> + Clone + Send + Sync,
    {
        let pass = |service: &mut S| call(service, Ask::Succeed).is_ok();
        self.weigh(subject, &make, pass);
        self.one(ONE, subject, || {
            let mut service = make();
            move |_| pass(&mut service)
        });
        self.two(subject, make, |service, race| {
            race.run([(); 2].map(|()| {
                let mut service = service.clone();
                move |_| pass(&mut service)
            }))
        });
    }

    /// A subject that has a single owner: by one thread, and weighed.
    pub(crate) fn owned<S>(&mut self, subject: Subject, make: impl Fn() -> S, pass: impl Fn(&mut S) -> bool + Copy) {
        self.weigh(subject, &make, pass);
        self.one(ONE, subject, || {
            let mut owned = make();
            move |_| pass(&mut owned)
        });
        self.unfit(TWO, subject, "it has a single owner");
    }

    /// What a subject takes in memory, and what calls allocate.
    pub(crate) fn weigh<S>(&mut self, subject: Subject, make: impl Fn() -> S, call: impl Fn(&mut S) -> bool) {
        let _entered = RUNTIME.enter();
        if let Some(section) = self.sections.last_mut() {
            section.weight(subject, Weight::of(make, call));
        }
    }

    fn measure<S>(
        &mut self,
        column: &'static str,
        subject: Subject,
        make: impl Fn() -> S,
        prove: impl Fn(&mut S) -> bool,
        run: impl Fn(&mut S, &mut Bencher<'_, WallTime>),
    ) {
        let Some(section) = self.sections.last_mut() else { return };
        let title = section.title();
        let result = self.folder.join(title).join(subject.name).join(column).join("new/estimates.json");
        let prove = |state: &mut S, when| {
            if !prove(state) {
                eprintln!("peers: {title}, {}, {column}: NOT as it should be {when} it was measured", subject.name);
                exit(1);
            }
        };
        // Criterion calls this many times, or not at all when its filter says so.
        let state = Cell::new(None);
        let mut group = self.criterion.benchmark_group(title);
        group.bench_function(BenchmarkId::new(subject.name, column), |bencher| {
            let mut made = state.take().unwrap_or_else(|| {
                // What an earlier run left is no figure of this one.
                let _ = fs::remove_file(&result);
                let mut made = make();
                prove(&mut made, "before");
                made
            });
            run(&mut made, bencher);
            state.set(Some(made));
        });
        group.finish();
        if let Some(mut state) = state.take() {
            prove(&mut state, "after");
            match median(&result) {
                Some(figure) => section.figure(column, subject, figure),
                // As it is when criterion only tries things out; where others have a figure, the run fails.
                None => self.without.push(format!("{title}, {}, {column}", subject.name)),
            }
        }
    }
}

/// Nanoseconds per call as criterion wrote them down; nothing where it only tried things out.
fn median(result: &Path) -> Option<f64> {
    let estimates: serde_json::Value = serde_json::from_str(&fs::read_to_string(result).ok()?).ok()?;
    estimates.get("median")?.get("point_estimate")?.as_f64()
}
