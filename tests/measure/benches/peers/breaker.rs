//! Circuit breakers: closed, open and half-open; by one thread, by two, and one after the other of many; and as layers of tower's.

mod layer;
mod ours;
mod theirs;

use failsoft_tokio::Rng;
use failsoft_tokio::circuit_breaker::{ConsecutiveFailures, FailureMeter, FailureRate, TimeBased};

use crate::floor;
use crate::harness::{Bench, ONE, TWO};
use crate::table::Subject;

use ours::Ours;
use theirs::{
    ExecutionPolicy, FailsafeConsecutive, FailsafeOverTime, LockedReliakit, Reliakit, Seatbelt, TowerResilience,
};

/// A prime, so that those which fail are not always the same.
const INSTANCES: u32 = 10_007;
const MANY: &str = "10,007 instances";

/// What a breaker is made for.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Made {
    /// To stay closed in all that is done here.
    Steady,
    /// To open after a few failures, for an hour.
    Sensitive,
    /// To open at the first failure and to be half-open at once, until a single probe has succeeded.
    Touchy,
}

/// A breaker as its users have it, around [`work`](failsoft_measure::subjects::work).
pub(crate) trait Breaker: Sized + Sync {
    const NAME: &'static str;
    /// The subject of failsoft with a rule of the same kind.
    const LIKE: &'static str;
    /// Why it has no figure for calls of two threads.
    const ALONE: Option<&'static str> = None;
    /// Why it has no figure for a probe after an open period without length.
    const NEVER_TOUCHY: Option<&'static str> = None;
    /// Why it has no figure for calls beside a probe.
    const NEVER_PROBED: Option<&'static str> = Self::NEVER_TOUCHY;

    fn make(made: Made) -> Self;

    /// One call that succeeds or fails; whether it was let through.
    fn call(&mut self, good: bool) -> bool;

    /// The same for one of several threads.
    fn view(&self) -> impl FnMut(bool) -> bool + Send;

    /// Half-open, with a probe out that never comes back.
    fn probed() -> Self {
        let mut breaker = Self::make(Made::Touchy);
        breaker.call(false);
        breaker.probe();
        breaker
    }

    /// Lets a probe out that never comes back.
    fn probe(&mut self) {}
}

const fn subject<B: Breaker>() -> Subject {
    Subject { name: B::NAME, like: B::LIKE }
}

/// Something to do with every breaker.
trait Scene {
    fn run<B: Breaker>(&self, bench: &mut Bench);
}

fn all(bench: &mut Bench, scene: &impl Scene) {
    scene.run::<Ours<ConsecutiveFailures>>(bench);
    scene.run::<FailsafeConsecutive>(bench);
    scene.run::<ExecutionPolicy>(bench);
    scene.run::<Reliakit>(bench);
    scene.run::<LockedReliakit>(bench);
    scene.run::<Ours<FailureRate>>(bench);
    scene.run::<recloser::Recloser>(bench);
    scene.run::<TowerResilience>(bench);
    scene.run::<Ours<TimeBased<10>>>(bench);
    scene.run::<FailsafeOverTime>(bench);
    scene.run::<Seatbelt>(bench);
    scene.run::<Ours<FailureMeter>>(bench);
}

/// All calls are let through, and `good` says which succeed.
struct Closed<G>(G);

impl<G: Fn(u32) -> bool + Copy + Send> Scene for Closed<G> {
    fn run<B: Breaker>(&self, bench: &mut Bench) {
        let good = self.0;
        alike::<B>(bench, || B::make(Made::Steady), good, true);
        many::<B>(bench, || B::make(Made::Steady), good, true);
    }
}

/// What it takes in memory.
struct Weight;

impl Scene for Weight {
    fn run<B: Breaker>(&self, bench: &mut Bench) {
        bench.weigh(subject::<B>(), || B::make(Made::Steady), |breaker| breaker.call(true));
    }
}

/// No call is let through.
struct Open;

impl Scene for Open {
    fn run<B: Breaker>(&self, bench: &mut Bench) {
        let make = || {
            let mut breaker = B::make(Made::Sensitive);
            for _ in 0..100 {
                breaker.call(false);
            }
            breaker
        };
        alike::<B>(bench, make, |_| true, false);
        many::<B>(bench, make, |_| true, false);
    }
}

/// No call is let through, because a probe is out.
struct Probed;

impl Scene for Probed {
    fn run<B: Breaker>(&self, bench: &mut Bench) {
        match B::NEVER_PROBED {
            Some(reason) => [ONE, TWO].into_iter().for_each(|column| bench.unfit(column, subject::<B>(), reason)),
            None => alike::<B>(bench, B::probed, |_| true, false),
        }
    }
}

/// A call fails and opens, the next one is the probe and closes: two calls in one.
struct Round;

impl Scene for Round {
    fn run<B: Breaker>(&self, bench: &mut Bench) {
        match B::NEVER_TOUCHY {
            Some(reason) => bench.unfit(ONE, subject::<B>(), reason),
            None => bench.one(ONE, subject::<B>(), || {
                let mut breaker = B::make(Made::Touchy);
                move |_| breaker.call(false) & breaker.call(true)
            }),
        }
    }
}

/// One breaker, by one thread and by two; whether calls are let through is to be as `admitted` says.
fn alike<B: Breaker>(
    bench: &mut Bench,
    make: impl Fn() -> B,
    good: impl Fn(u32) -> bool + Copy + Send,
    admitted: bool,
) {
    bench.one(ONE, subject::<B>(), || {
        let mut breaker = make();
        move |call| breaker.call(good(call)) == admitted
    });
    match B::ALONE {
        Some(reason) => bench.unfit(TWO, subject::<B>(), reason),
        None => bench.two(subject::<B>(), make, |breaker, race| {
            race.run([breaker.view(), breaker.view()].map(|mut view| move |call| view(good(call)) == admitted))
        }),
    }
}

/// Many breakers, one after the other, in an order that no cache foresees.
fn many<B: Breaker>(bench: &mut Bench, make: impl Fn() -> B, good: impl Fn(u32) -> bool + Copy, admitted: bool) {
    bench.one(MANY, subject::<B>(), || {
        let mut breakers: Vec<B> = (0..INSTANCES).map(|_| make()).collect();
        let order = shuffled();
        move |call| {
            let at = order[(call % INSTANCES) as usize];
            breakers[at as usize].call(good(call)) == admitted
        }
    });
}

fn shuffled() -> Vec<u32> {
    let (mut order, mut rng) = ((0..INSTANCES).collect::<Vec<_>>(), Rng::new(7));
    for last in (1..order.len()).rev() {
        order.swap(last, rng.next() as usize % (last + 1));
    }
    order
}

pub(crate) fn measure(bench: &mut Bench) {
    bench.section("breaker closed, success", floor::LOAD);
    all(bench, &Weight);
    all(bench, &Closed(|_| true));
    bench.section("breaker closed, 1 of 10 calls fails", floor::EXCHANGE);
    all(bench, &Closed(|call| call % 10 != 0));
    bench.section("breaker closed, 15 of 16 calls fail", floor::EXCHANGE);
    all(bench, &Closed(|call| call % 16 == 0));
    bench.section("breaker open, rejected", floor::CLOCK);
    all(bench, &Open);
    bench.section("breaker half-open, rejected beside a probe", floor::CLOCK);
    all(bench, &Probed);
    bench.section("breaker opens, probes and closes", floor::CLOCK);
    all(bench, &Round);
    layer::measure(bench);
}
