//! What goes wrong around retries, as far as the other tests do not have it: see `tests/faults.md`.

use core::cell::Cell;
use core::future::ready;
use std::boxed::Box;

use super::*;
use crate::backoff::JITTER;
use crate::budget::{ConcurrentBudget, InFlight, TokenBudget, TokenConfig};
use crate::executor::Executor;
use crate::pipeline::Attempt;
use crate::ratio::Ratio;
use crate::testing::tests::{RigSleep, explode, explodes};
use crate::time::Clock;

/// An executor whose randomness always says the same.
#[derive(Clone, Copy)]
struct Loaded<'r>(&'r Rig, u32);

impl Clock for Loaded<'_> {
    fn now(&self) -> Instant {
        self.0.now()
    }
}

impl<'r> Executor for Loaded<'r> {
    type Sleep = RigSleep<'r>;

    fn sleep_until(&self, at: Instant) -> RigSleep<'r> {
        self.0.sleep_until(at)
    }

    fn random(&self) -> u32 {
        self.1
    }
}

/// The delays in milliseconds of a call that fails four times, where randomness always says so.
fn delays(random: u32, jitter: Jitter) -> Vec<u128> {
    let (rig, events) = (Rig::new(), Recorder::new());
    let backoff = Backoff::exponential(ms(100)).with_jitter(jitter);
    let pipeline =
        Pipeline::new(Loaded(&rig, random)).layer(watched(PLAIN.with_max_attempts(4).with_backoff(backoff), &events));
    let failure = rig.run(pipeline.call(async |_| Err::<(), _>(()))).expect_err("it always fails");
    assert_eq!((failure.attempts, failure.stop), (4, Some(Stop::Attempts)), "{jitter:?}");
    let mut last = at(0);
    let delay =
        |event: Retrying| event.at.saturating_duration_since(core::mem::replace(&mut last, event.at)).as_millis();
    events.take().map(delay).collect()
}

#[test]
fn randomness_that_always_says_the_same_gives_the_bounds_and_an_end() {
    let both = |jitter| [delays(0, jitter), delays(u32::MAX, jitter)];
    assert_eq!(both(Jitter::None), [[100, 200, 400], [100, 200, 400]]);
    assert_eq!(both(JITTER), [[90, 180, 360], [110, 220, 440]]);
    assert_eq!(both(Jitter::Full), [[0, 0, 0], [100, 200, 400]], "at its lowest, without any delay");
    assert_eq!(both(Jitter::Equal), [[50, 100, 200], [100, 200, 400]]);
    assert_eq!(both(Jitter::Decorrelated), [[100, 100, 100], [300, 900, 2_700]]);
}

/// Panics when it is polled, or when it is dropped.
struct Bomb {
    when_dropped: bool,
}

impl Future for Bomb {
    type Output = Result<(), ()>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
        if self.when_dropped { Poll::Ready(Err(())) } else { explode() }
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.when_dropped && !std::thread::panicking() {
            explode();
        }
    }
}

#[test]
fn a_panic_in_any_attempt_leaves_nothing_of_the_call_in_the_budget() {
    for fatal in 1..=3 {
        for when_dropped in [false, true] {
            let rig = Rig::new();
            let budget = ConcurrentBudget::<Local>::new(valid!(crate::budget::ConcurrentConfig::new().validate()));
            let retry = RetryPolicy::with_budget(valid!(PLAIN.validate()), (), &budget);
            let pipeline = Pipeline::new(&rig).layer(retry);
            let call = pipeline.call(|attempt: Attempt| async move {
                if attempt.number() == fatal { Bomb { when_dropped }.await } else { Err(()) }
            });
            assert!(explodes(|| rig.run(call)), "attempt {fatal}");
            assert_eq!(budget.in_flight(), InFlight::default(), "attempt {fatal}, dropped: {when_dropped}");
            assert_eq!(rig.live(), 0);
        }
    }
}

#[test]
fn retries_stacked_three_deep_on_one_budget_stay_within_it() {
    let rig = Rig::new();
    let config = TokenConfig::new().with_deposit(Ratio::percent(20)).with_minimum_per_second(0);
    let budget = TokenBudget::<Local>::new(config.validate().expect("it makes sense"));
    let retry = || {
        let config = Config::new().with_max_attempts(4).with_backoff(Backoff::none()).validate();
        RetryPolicy::with_budget(config.expect("it makes sense"), (), &budget)
    };
    let pipeline = Pipeline::new(&rig).layer(retry()).layer_in_any_order(retry()).layer_in_any_order(retry());
    let attempts = Cell::new(0);
    for _ in 0..1_000 {
        let call = pipeline.call(|_| {
            attempts.set(attempts.get() + 1);
            ready(Err::<(), _>(()))
        });
        assert!(rig.run(call).is_err());
    }
    assert_eq!(attempts.get(), 1_200, "one retry for five calls, and not 64 attempts for each");
}

#[test]
fn a_budget_within_another_one_within_the_first_is_begun_with_again() {
    let rig = Rig::new();
    let budget = || {
        let config = TokenConfig::new().with_deposit(Ratio::ONE).with_minimum_per_second(0);
        TokenBudget::<Local>::new(config.validate().expect("it makes sense"))
    };
    let (one, other) = (budget(), budget());
    let retry = |budget| {
        let config = Config::new().with_max_attempts(2).with_backoff(Backoff::none()).validate();
        RetryPolicy::with_budget(config.expect("it makes sense"), (), budget)
    };
    let stack =
        Pipeline::new(&rig).layer(retry(&one)).layer_in_any_order(retry(&other)).layer_in_any_order(retry(&one));
    assert_eq!(rig.run(stack.call(|_| ready(Ok::<_, ()>(7)))), Ok(7));
    assert_eq!((one.balance(&rig), other.balance(&rig)), (2, 1));
}

#[test]
fn calls_of_one_policy_at_the_same_time_keep_their_own_delays() {
    // Each delay follows from the one before it, so that a mixed up one would show.
    let backoff = Backoff::constant(ms(100)).with_cap(ms(60_000)).with_jitter(Jitter::Decorrelated);
    let config = PLAIN.with_max_attempts(5).with_backoff(backoff);
    let when = |call: usize, calls: usize| {
        let rig = Rig::new();
        let executor = Loaded(&rig, u32::MAX / 2);
        let pipeline = Pipeline::new(executor).layer(policy(config));
        let seen: Vec<_> = (0..calls).map(|_| Cell::new(Vec::new())).collect();
        let start = |number: usize| {
            let (pipeline, seen, rig) = (&pipeline, seen.get(number).expect("one of them"), &rig);
            Box::pin(async move {
                // They begin at different times.
                let begins = 37 * number as u64;
                rig.sleep_until(at(begins)).await;
                let call = pipeline.call(|_| {
                    let mut times = seen.take();
                    times.push(rig.elapsed() - ms(begins));
                    seen.set(times);
                    ready(Err::<(), _>(()))
                });
                assert!(call.await.is_err());
            })
        };
        let mut running: Vec<_> = (0..calls).map(start).collect();
        rig.run(core::future::poll_fn(|cx| {
            running.retain_mut(|call| call.as_mut().poll(cx).is_pending());
            if running.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        }));
        seen.get(call).expect("one of them").take()
    };
    let alone = when(0, 1);
    assert_eq!(alone.len(), 5);
    for call in 0..3 {
        assert_eq!(when(call, 3), alone, "call {call}");
    }
}

#[test]
fn a_call_that_is_polled_again_after_its_end_starts_with_the_first_delay() {
    let backoff = Backoff::exponential(ms(100)).with_jitter(Jitter::None);
    let (rig, events) = (Rig::new(), Recorder::new());
    let pipeline = Pipeline::new(&rig).layer(watched(PLAIN.with_backoff(backoff), &events));
    let mut call = Box::pin(pipeline.call(|_| ready(Err::<(), _>(()))));
    assert!(rig.run(call.as_mut()).is_err());
    assert!(rig.run(call.as_mut()).is_err());
    let times: Vec<_> = events.take().map(|event| event.at).collect();
    assert_eq!(times, [at(100), at(300), at(400), at(600)]);
}
