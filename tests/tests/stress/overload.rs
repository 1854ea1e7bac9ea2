//! Overload that outlives what brought it about: a server that hangs for a while, and clients whose retries may keep it down.

use core::cell::RefCell;
use core::time::Duration;
use std::collections::{BinaryHeap, VecDeque};
use std::rc::Rc;

use core::cmp::Reverse;
use failsoft_core::budget::{RetryBudget, TokenConfig};
use failsoft_core::{Rng, retry};
use failsoft_tokio::{Backoff, Jitter, Pipeline, RetryPolicy, Timeout, TokenBudget, Tokio};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, sleep_until};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const WORKERS: usize = 20;
/// What a request takes a worker: together they serve 200 a second.
const SERVICE: Duration = ms(100);
/// The longest line: two seconds of work. A client's patience is half of that.
const LINE: usize = 400;
const PATIENCE: Duration = ms(1_000);
/// Between two calls, on average: 80 % of what the workers can do.
const BETWEEN: Duration = Duration::from_micros(6_250);

const HANGS_AFTER: Duration = ms(60_000);
const HANGS_FOR: Duration = ms(30_000);

/// Workers and a line before them, first come first served. It does not know whose client has left: their requests cost what the
/// others do.
struct Server {
    began: Instant,
    /// When each worker is free.
    free: BinaryHeap<Reverse<Duration>>,
    /// When the work on those in line begins.
    line: VecDeque<Duration>,
}

impl Server {
    fn new(began: Instant) -> Self {
        Self { began, free: vec![Reverse(Duration::ZERO); WORKERS].into(), line: VecDeque::new() }
    }

    /// Takes a request on, and says when it will be answered; `None` with the line full.
    fn take(&mut self) -> Option<Instant> {
        let now = self.began.elapsed();
        while self.line.front().is_some_and(|begins| *begins <= now) {
            self.line.pop_front();
        }
        if self.line.len() >= LINE {
            return None;
        }
        let begins = self.free.pop()?.0.max(now);
        // No work is done while the server hangs.
        let hangs_until = HANGS_AFTER + HANGS_FOR;
        let left = (begins + SERVICE).saturating_sub(HANGS_AFTER.max(begins));
        let ends = if begins >= hangs_until || left.is_zero() { begins + SERVICE } else { hangs_until + left };
        self.free.push(Reverse(ends));
        self.line.push_back(begins);
        Some(self.began + ends)
    }
}

/// Calls a second that succeeded: before the server hangs, and in the last ten seconds of the minute after it has come back.
fn goodput(budget: impl RetryBudget + 'static) -> (u32, u32) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let began = Instant::now();
        let server = Rc::new(RefCell::new(Server::new(began)));
        let backoff = Backoff::exponential(ms(100)).with_jitter(Jitter::None);
        let config =
            retry::Config::new().with_max_attempts(3).with_backoff(backoff).validate().expect("it makes sense");
        let pipeline = Rc::new(
            Pipeline::new(Tokio).layer(RetryPolicy::with_budget(config, (), budget)).layer(Timeout::new(PATIENCE)),
        );
        let good = Rc::new(RefCell::new(Vec::new()));
        let mut rng = Rng::new(1);
        let end = HANGS_AFTER + HANGS_FOR + ms(60_000);
        while began.elapsed() < end {
            let (server, pipeline, good) = (server.clone(), pipeline.clone(), good.clone());
            let call = async move || {
                let answered = server.borrow_mut().take().ok_or("the line is full")?;
                sleep_until(answered).await;
                Ok::<_, &str>(())
            };
            tokio::task::spawn_local(async move {
                if pipeline.call(|_| call()).await.is_ok() {
                    good.borrow_mut().push(began.elapsed());
                }
            });
            sleep(BETWEEN * (rng.next() % 21) / 10).await;
        }
        let within = |from: Duration, to: Duration| {
            let calls = good.borrow().iter().filter(|at| (from..to).contains(*at)).count();
            u32::try_from(calls).expect("not so many") / u32::try_from((to - from).as_secs()).expect("not so long")
        };
        (within(ms(10_000), HANGS_AFTER), within(end - ms(10_000), end))
    })
}

#[test]
fn with_a_budget_of_retries_an_overload_ends_with_what_brought_it_about() {
    let config = TokenConfig::new().with_deposit(failsoft_core::Ratio::percent(10)).validate();
    let (before, after) = goodput(TokenBudget::new(config.expect("it makes sense")));
    assert!(before > 140 && after * 10 >= before * 9, "{before} calls a second before, {after} after");
}

#[test]
fn without_a_budget_retries_keep_the_overload_up() {
    let (before, after) = goodput(());
    assert!(before > 140 && after * 2 < before, "the control: {before} calls a second before, {after} after");
}
