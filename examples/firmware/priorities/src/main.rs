//! Shows that tasks of two priorities and an interrupt share policies: the tasks of one executor preempt those of the
//! other, the interrupt preempts both, and each of them uses the same bulkheads, breaker, limiter, degradation and
//! budget, one by one and as a pipeline. In the end all is given back, nothing is lost, and whoever waited has been
//! woken.

#![no_std]
#![no_main]

mod handler;
mod ledger;
mod policies;
mod round;
mod side;
mod verdict;

use core::future::poll_fn;
use core::pin::pin;

use board::Watchdog;
use embassy_time::{Duration, Instant, Timer};
use failsoft_embassy::Rng;
use ledger::Count;
use side::{Doing, Priority, Side};

/// What each priority does at least.
const ROUNDS: u32 = 10_000;
/// Longer than that takes, by far.
const LONGEST_RUN: Duration = Duration::from_secs(30);
/// Between two looks at how far they are.
const PERIOD: Duration = Duration::from_millis(5);
/// Longer than any wait for a permit, once nobody begins another round.
const REST: Duration = Duration::from_secs(1);

/// The image's own exit codes.
mod exit_code {
    pub(crate) const RIGHT: u8 = 0;
    pub(crate) const WRONG: u8 = 1;
    /// A task doesn't come to its end.
    pub(crate) const STUCK: u8 = 2;
}

#[embassy_executor::task(pool_size = side::HIGH.len())]
async fn high(place: usize, seed: u64) {
    work(Side::new(Priority::High, side::HIGH[place], Rng::new(seed))).await;
}

#[embassy_executor::task(pool_size = side::LOW.len())]
async fn low(place: usize, seed: u64) {
    work(Side::new(Priority::Low, side::LOW[place], Rng::new(seed))).await;
}

/// A task's rounds, until there are enough of them on all sides.
async fn work(side: Side) {
    let mut rounds = pin!(round::rounds(&side));
    poll_fn(|context| side.priority.doing(Doing::Calls, || rounds.as_mut().poll(context))).await;
    side.note(Count::Ended);
}

/// Waits until all have done their rounds, and judges.
#[embassy_executor::task]
async fn judge() {
    // Nobody feeds it: it ends the image should the tasks of high priority leave no time for this one.
    let _watchdog = Watchdog::start(LONGEST_RUN + REST + REST);
    let start = Instant::now();
    while !round::enough() && start.elapsed() < LONGEST_RUN {
        Timer::after(PERIOD).await;
    }
    round::end();
    let end = Instant::now();
    while !verdict::all_ended() && end.elapsed() < REST {
        Timer::after(PERIOD).await;
    }
    board::exit(verdict::exit_code());
}

#[board::entry]
fn main() -> ! {
    let seed = board::argument("seed").unwrap_or_default();
    let seed = |number: usize| Rng::seed(&[seed, u32::try_from(number).unwrap_or_default()]);
    board::run(|spawner| {
        policies::register();
        let urgent = board::interrupt_executor();
        for place in 0..side::HIGH.len() {
            urgent.spawn(high(place, seed(place)).expect("as many as there are"));
        }
        for place in 0..side::LOW.len() {
            spawner.spawn(low(place, seed(side::HIGH.len() + place)).expect("as many as there are"));
        }
        spawner.spawn(judge().expect("the only one"));
        handler::start(seed(side::HIGH.len() + side::LOW.len()));
    })
}
