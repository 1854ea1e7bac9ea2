use core::cell::{Cell, RefCell};
use core::fmt;
use core::future::poll_fn;
use core::pin::{Pin, pin};
use core::task::{Context, Poll};
use std::boxed::Box;
use std::vec::Vec;

use super::*;
use crate::backoff::{Backoff, Jitter};
use crate::budget::RetryBudget;
use crate::bulkhead::{self, Bulkhead};
use crate::cell::Local;
use crate::circuit_breaker::{self, Abandoned, CircuitBreaker};
use crate::executor::Executor;
use crate::failure::{Cause, Failure, Reason, Stop};
use crate::outcome::{Outcome, Verdict};
use crate::pipeline::{Answer, Attempt, Layer, Next, Part, Role, Scope};
use crate::ratio::Ratio;
use crate::retry::{self, RetryPolicy};
use crate::testing::tests::{Rig, at, explode, explodes, ms, poll_once};
use crate::testing::{Recorder, Script, Scripted, Step};
use crate::time::Clock;
use crate::timeout::Timeout;
use crate::{Pipeline, valid};

const fn after<const N: usize>(delay: Duration) -> Hedge<Local, N>
where
    Hedges<N>: Room,
{
    Hedge::new(FixedDelay::new(delay), Idempotent)
}

fn quantile(percent: u32, initial: Duration) -> Hedge<Local, 1, Quantile> {
    let quantile = Quantile::new(Ratio::percent(percent), initial).validate();
    Hedge::new(quantile.expect("it makes sense"), Idempotent)
}

/// How a try fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fails {
    /// Another try may mend it.
    Transient(u32),
    /// No other will.
    Fatal(u32),
    /// Another one may after so many milliseconds, exactly.
    Delay(u64),
    /// Another one may, not before so many milliseconds.
    Hint(u64),
}

fn verdict(result: Result<&u32, &Fails>) -> Verdict {
    match result {
        Ok(_) => Verdict::SUCCESS,
        Err(Fails::Transient(_)) => Verdict::TRANSIENT,
        Err(Fails::Fatal(_)) => Verdict::PERMANENT,
        Err(Fails::Delay(u64::MAX)) => Verdict::TRANSIENT.with_delay(Duration::MAX),
        Err(Fails::Delay(millis)) => Verdict::TRANSIENT.with_delay(ms(*millis)),
        Err(Fails::Hint(millis)) => Verdict::TRANSIENT.with_retry_after(ms(*millis)),
    }
}

/// A dependency whose tries answer when the test says so.
#[derive(Default)]
struct Desk {
    answers: [Cell<Option<Result<u32, Fails>>>; 8],
    started: Cell<usize>,
    // Those that were dropped unanswered, in order.
    dropped: RefCell<Vec<u32>>,
}

struct Asked<'d>(&'d Desk, u32, bool);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if !self.2 {
            self.0.dropped.borrow_mut().push(self.1);
        }
    }
}

impl Desk {
    async fn ask(&self, attempt: Attempt) -> Result<u32, Fails> {
        let hedge = attempt.hedge();
        self.started.set(self.started.get() + 1);
        let mut asked = Asked(self, hedge, false);
        let answer = poll_fn(|_| self.answers[hedge as usize].take().map_or(Poll::Pending, Poll::Ready)).await;
        asked.2 = true;
        answer
    }

    fn answer(&self, hedge: usize, answer: Result<u32, Fails>) {
        self.answers[hedge].set(Some(answer));
    }
}

type Ending = Poll<Result<u32, Failure<Fails>>>;

fn failed(error: Fails, attempts: u32, stop: Stop) -> Ending {
    Poll::Ready(Err(Failure { cause: Cause::Inner(error), attempts, stop: Some(stop) }))
}

/// A call under a hedge of so many, polled by hand: it is told the time and an answer, and says how the call stands, how many
/// tries have started, and how many timers there are.
macro_rules! by_hand {
    ($rig:ident, $desk:ident, $hedge:expr, $step:ident) => {
        let ($rig, $desk) = (Rig::new(), Desk::default());
        let pipeline = Pipeline::new(&$rig).layer($hedge).classify(verdict);
        let mut call = pin!(pipeline.call(|attempt| $desk.ask(attempt)));
        let mut $step = |millis: u64, answer: Option<(usize, Result<u32, Fails>)>| {
            $rig.set(at(millis));
            if let Some((hedge, answer)) = answer {
                $desk.answer(hedge, answer);
            }
            (poll_once(call.as_mut()), $desk.started.get(), $rig.live())
        };
    };
}

// After the macro, which they use.
mod budget;
mod exhaustive;
mod latencies;
mod oracle;

// grpc/grpc-java, RetriableStreamTest: hedging_everythingDrained_oneHedgeReceivesNonFatal_oneHedgeReceivesFatalStatus.
#[test]
fn a_fatal_failure_ends_the_call_and_drops_the_others() {
    by_hand!(rig, desk, after::<5>(ms(100_000)), step);
    assert_eq!(step(0, None), (Poll::Pending, 1, 1));
    assert_eq!(step(99_000, None), (Poll::Pending, 1, 1));
    assert_eq!(step(100_000, None), (Poll::Pending, 2, 1));
    assert_eq!(step(200_000, None), (Poll::Pending, 3, 1));
    assert_eq!(step(200_000, Some((2, Err(Fails::Transient(3))))), (Poll::Pending, 3, 1));
    assert_eq!(step(300_000, None), (Poll::Pending, 4, 1));
    let ended = failed(Fails::Fatal(2), 4, Stop::NotRetryable);
    assert_eq!(step(300_000, Some((1, Err(Fails::Fatal(2))))), (ended, 4, 0));
    assert_eq!(*desk.dropped.borrow(), [0, 3]);
}

// grpc/grpc-java, RetriableStreamTest: hedging_maxAttempts.
#[test]
fn there_are_no_more_tries_than_allowed_and_the_last_one_standing_may_win() {
    by_hand!(rig, desk, after::<5>(ms(100_000)), step);
    for (millis, started) in [(0, 1), (100_000, 2), (200_000, 3), (300_000, 4)] {
        assert_eq!(step(millis, None), (Poll::Pending, started, 1));
    }
    assert_eq!(step(300_000, Some((1, Err(Fails::Transient(2))))), (Poll::Pending, 4, 1));
    assert_eq!(step(400_000, None), (Poll::Pending, 5, 1));
    assert_eq!(step(500_000, None), (Poll::Pending, 6, 0));
    assert_eq!(step(600_000, None), (Poll::Pending, 6, 0));
    for hedge in [0, 3, 4, 5] {
        assert_eq!(step(600_000, Some((hedge, Err(Fails::Transient(0))))), (Poll::Pending, 6, 0));
    }
    assert_eq!(step(600_000, Some((2, Ok(3)))), (Poll::Ready(Ok(3)), 6, 0));
    assert!(desk.dropped.borrow().is_empty());
}

// grpc/grpc-java, RetriableStreamTest: hedging_pushback_positive, up to the fatal end.
#[test]
fn a_delay_of_the_classifiers_replaces_that_before_the_next_try_alone() {
    by_hand!(rig, desk, after::<5>(ms(100_000)), step);
    assert_eq!(step(0, None), (Poll::Pending, 1, 1));
    assert_eq!(step(100_000, None), (Poll::Pending, 2, 1));
    assert_eq!(step(100_000, Some((0, Err(Fails::Delay(101_000))))), (Poll::Pending, 2, 1));
    assert_eq!(step(200_000, None), (Poll::Pending, 2, 1));
    assert_eq!(step(201_000, None), (Poll::Pending, 3, 1));
    assert_eq!(step(201_000, Some((1, Err(Fails::Delay(99_000))))), (Poll::Pending, 3, 1));
    assert_eq!(step(300_000, None), (Poll::Pending, 4, 1));
    assert_eq!(step(399_999, None), (Poll::Pending, 4, 1));
    assert_eq!(step(400_000, None), (Poll::Pending, 5, 1));
    let ended = failed(Fails::Fatal(4), 5, Stop::NotRetryable);
    assert_eq!(step(400_000, Some((3, Err(Fails::Fatal(4))))), (ended, 5, 0));
    assert_eq!(*desk.dropped.borrow(), [2, 4]);
}

// grpc/grpc-java, RetriableStreamTest: hedging_pushback_negative, and what follows.
#[test]
fn a_delay_for_ever_starts_no_further_try() {
    by_hand!(rig, desk, after::<5>(ms(100_000)), step);
    for (millis, started) in [(0, 1), (100_000, 2), (200_000, 3)] {
        assert_eq!(step(millis, None), (Poll::Pending, started, 1));
    }
    assert_eq!(step(200_000, Some((1, Err(Fails::Delay(u64::MAX))))), (Poll::Pending, 3, 0));
    assert_eq!(step(300_000, None), (Poll::Pending, 3, 0));
    assert_eq!(step(300_000, Some((0, Err(Fails::Transient(1))))), (Poll::Pending, 3, 0));
    let ended = failed(Fails::Transient(3), 3, Stop::Deadline);
    assert_eq!(step(300_000, Some((2, Err(Fails::Transient(3))))), (ended, 3, 0));
}

#[test]
fn a_servers_hint_delays_the_next_try_and_never_hastens_it() {
    for (hint, due) in [(0, 100), (80, 100), (130, 140)] {
        by_hand!(rig, desk, after::<1>(ms(100)), step);
        assert_eq!(step(0, None), (Poll::Pending, 1, 1));
        assert_eq!(step(10, Some((0, Err(Fails::Hint(hint))))), (Poll::Pending, 1, 1));
        assert_eq!(step(due - 1, None), (Poll::Pending, 1, 1), "a hint of {hint} ms");
        assert_eq!(step(due, None), (Poll::Pending, 2, 0), "a hint of {hint} ms");
    }
}

#[test]
fn a_delay_of_zero_starts_the_next_try_at_once() {
    by_hand!(rig, desk, after::<2>(Duration::MAX), step);
    assert_eq!(step(0, None), (Poll::Pending, 1, 0), "it never hedges by itself");
    assert_eq!(step(7, Some((0, Err(Fails::Delay(0))))), (Poll::Pending, 2, 0));
    assert_eq!(step(9, Some((1, Ok(2)))), (Poll::Ready(Ok(2)), 2, 0));
}

#[test]
fn a_failure_is_waited_out_when_further_tries_are_to_come_and_is_the_answer_when_not() {
    by_hand!(rig, desk, after::<1>(ms(100)), step);
    assert_eq!(step(0, Some((0, Err(Fails::Transient(1))))), (Poll::Pending, 1, 1));
    assert_eq!(step(99, None), (Poll::Pending, 1, 1));
    assert_eq!(step(100, None), (Poll::Pending, 2, 0));
    let ended = failed(Fails::Transient(2), 2, Stop::Attempts);
    assert_eq!(step(130, Some((1, Err(Fails::Transient(2))))), (ended, 2, 0));
}

#[test]
fn the_last_failure_is_the_answer_in_order_of_time() {
    by_hand!(rig, desk, after::<2>(Duration::ZERO), step);
    assert_eq!(step(0, None), (Poll::Pending, 3, 0));
    assert_eq!(step(1, Some((2, Err(Fails::Transient(2))))), (Poll::Pending, 3, 0));
    assert_eq!(step(1, Some((0, Err(Fails::Transient(0))))), (Poll::Pending, 3, 0));
    let ended = failed(Fails::Transient(1), 3, Stop::Attempts);
    assert_eq!(step(2, Some((1, Err(Fails::Transient(1))))), (ended, 3, 0));
}

#[test]
fn of_two_that_succeed_at_once_the_earlier_try_wins() {
    by_hand!(rig, desk, after::<2>(ms(10)), step);
    for (millis, started) in [(0, 1), (10, 2)] {
        assert_eq!(step(millis, None), (Poll::Pending, started, 1));
    }
    desk.answer(1, Ok(2));
    assert_eq!(step(15, Some((0, Ok(1)))), (Poll::Ready(Ok(1)), 2, 0));
    assert_eq!(*desk.dropped.borrow(), [1]);
}

#[test]
fn a_success_at_the_instant_another_try_is_due_needs_no_other() {
    by_hand!(rig, desk, after::<1>(ms(10)), step);
    assert_eq!(step(0, None), (Poll::Pending, 1, 1));
    assert_eq!(step(10, Some((0, Ok(1)))), (Poll::Ready(Ok(1)), 1, 0));
}

#[test]
fn the_losers_are_dropped_in_the_order_in_which_they_were_started() {
    by_hand!(rig, desk, after::<7>(ms(1)), step);
    for (millis, started) in (0..8).zip(1..) {
        assert_eq!(step(millis, None).1, started);
    }
    assert_eq!(step(8, Some((4, Ok(5)))), (Poll::Ready(Ok(5)), 8, 0));
    assert_eq!(*desk.dropped.borrow(), [0, 1, 2, 3, 5, 6, 7]);
}

#[test]
fn a_stalled_executor_starts_one_try_and_not_all_that_were_due_meanwhile() {
    by_hand!(rig, desk, after::<3>(ms(10)), step);
    assert_eq!(step(0, None), (Poll::Pending, 1, 1));
    assert_eq!(step(35, None), (Poll::Pending, 2, 1));
    assert_eq!(step(44, None), (Poll::Pending, 2, 1));
    assert_eq!(step(45, None), (Poll::Pending, 3, 1));
}

#[test]
fn a_timer_that_fires_early_starts_no_try_early() {
    let (rig, desk) = (Rig::new(), Desk::default());
    let pipeline = Pipeline::new(&rig).layer(after::<1>(ms(100))).classify(verdict);
    let mut call = pin!(pipeline.call(|attempt| desk.ask(attempt)));
    rig.fire_early(ms(30));
    assert!(poll_once(call.as_mut()).is_pending());
    rig.set(at(70));
    // The early timer is gone, and the next poll, which it has asked for, arms another.
    for timers in [0, 1, 1] {
        assert!(poll_once(call.as_mut()).is_pending());
        assert_eq!((desk.started.get(), rig.live()), (1, timers));
    }
    rig.set(at(100));
    assert!(poll_once(call.as_mut()).is_pending());
    assert_eq!((desk.started.get(), rig.live()), (2, 0));
}

#[test]
fn a_clock_that_steps_back_only_makes_the_next_try_later() {
    by_hand!(rig, desk, after::<1>(ms(10)), step);
    assert_eq!(step(1_000, None), (Poll::Pending, 1, 1));
    assert_eq!(step(5, None), (Poll::Pending, 1, 1));
    assert_eq!(step(1_010, None), (Poll::Pending, 2, 0));
    assert_eq!(step(0, Some((0, Ok(1)))), (Poll::Ready(Ok(1)), 2, 0));
}

#[test]
fn an_operation_that_is_ready_at_once_costs_neither_clock_nor_timer() {
    let rig = Rig::new();
    let pipeline = Pipeline::new(&rig).layer(after::<3>(ms(10)));
    assert_eq!(rig.run(pipeline.call(async |_| Ok::<_, ()>(1))), Ok(1));
    assert_eq!((rig.reads(), rig.sleeps()), (0, 0));
}

#[test]
fn all_tries_at_once_cost_neither_clock_nor_timer() {
    by_hand!(rig, desk, after::<2>(Duration::ZERO), step);
    assert_eq!(step(0, None), (Poll::Pending, 3, 0));
    assert_eq!(step(0, Some((1, Ok(2)))), (Poll::Ready(Ok(2)), 3, 0));
    assert_eq!((rig.reads(), rig.sleeps()), (0, 0));
}

#[test]
fn a_delay_that_follows_the_latencies_costs_two_readings_of_the_clock() {
    let (rig, hedge) = (Rig::new(), quantile(95, ms(10)));
    let pipeline = Pipeline::new(&rig).layer(&hedge);
    assert_eq!(rig.run(pipeline.call(async |_| Ok::<_, ()>(1))), Ok(1));
    assert_eq!((rig.reads(), rig.sleeps()), (2, 0));
}

#[test]
fn a_call_that_is_polled_after_its_end_starts_afresh() {
    by_hand!(rig, desk, after::<1>(ms(10)), step);
    assert_eq!(step(0, None), (Poll::Pending, 1, 1));
    assert_eq!(step(10, None), (Poll::Pending, 2, 0));
    assert_eq!(step(11, Some((1, Ok(1)))), (Poll::Ready(Ok(1)), 2, 0));
    assert_eq!(step(100, None), (Poll::Pending, 3, 1));
    assert_eq!(step(109, None), (Poll::Pending, 3, 1));
    assert_eq!(step(110, None), (Poll::Pending, 4, 0));
}

#[test]
fn polls_that_nothing_asked_for_have_no_effect() {
    let [calm, noisy] = [1, 100].map(|polls| {
        static STEPS: [Step; 3] = [Step::FailAfter(ms(25)), Step::Hang, Step::SucceedAfter(ms(7))];
        let (rig, service) = (Rig::new(), Script::new(&STEPS));
        let pipeline = Pipeline::new(&rig).layer(after::<3>(ms(10)));
        let mut call = pin!(pipeline.call(|_| service.call(&rig)));
        let result = loop {
            if let Some(result) = (0..polls).map(|_| poll_once(call.as_mut())).find(Poll::is_ready) {
                break result;
            }
            assert!(rig.jump(), "it waits for nothing");
        };
        (result, rig.elapsed(), rig.reads(), rig.sleeps(), service.calls())
    });
    assert_eq!(calm, noisy);
    assert_eq!(calm.0, Poll::Ready(Ok(3)));
}

// Other policies.

#[test]
fn each_try_knows_which_it_is_and_can_ask_another_replica() {
    let rig = Rig::new();
    let retry =
        retry::Config::new().with_max_attempts(2).with_backoff(Backoff::constant(ms(100)).with_jitter(Jitter::None));
    let pipeline = Pipeline::new(&rig)
        .layer(RetryPolicy::new(retry.validate().expect("it makes sense")))
        .layer(after::<2>(ms(10)))
        .layer(Timeout::new(ms(50)));
    let asked = RefCell::new(Vec::new());
    let failure = rig.run(pipeline.call(|attempt: Attempt| {
        asked.borrow_mut().push((attempt.number(), attempt.hedge(), rig.elapsed()));
        crate::testing::never::<Result<(), ()>>()
    }));
    assert!(failure.is_err_and(|failure| failure.is_timed_out() && failure.attempts == 2));
    let first = [(1, 0, ms(0)), (1, 1, ms(10)), (1, 2, ms(20))];
    // All three time out by 70 ms.
    let second = [(2, 0, ms(170)), (2, 1, ms(180)), (2, 2, ms(190))];
    assert_eq!(*asked.borrow(), [first, second].concat());
}

#[test]
fn a_retry_within_runs_in_each_try() {
    let rig = Rig::new();
    let retry =
        retry::Config::new().with_max_attempts(2).with_backoff(Backoff::constant(ms(4)).with_jitter(Jitter::None));
    let pipeline = Pipeline::new(&rig)
        .layer(after::<1>(ms(10)))
        .layer(RetryPolicy::new(retry.validate().expect("it makes sense")));
    let asked = RefCell::new(Vec::new());
    let failure = rig
        .run(pipeline.call(|attempt: Attempt| {
            asked.borrow_mut().push((attempt.number(), attempt.hedge(), rig.elapsed()));
            core::future::ready(Err::<(), _>(attempt.hedge()))
        }))
        .expect_err("it always fails");
    assert_eq!(*asked.borrow(), [(1, 0, ms(0)), (2, 0, ms(4)), (1, 1, ms(10)), (2, 1, ms(14))]);
    let expected = Failure { cause: Cause::Inner(1), attempts: 2, stop: Some(Stop::Attempts) };
    assert_eq!(failure, expected, "the outer one has the last word");
}

#[test]
fn a_timeout_around_ends_all_tries() {
    let (rig, service) = (Rig::new(), Script::new(&[Step::Hang]));
    let pipeline = Pipeline::new(&rig).layer(Timeout::new(ms(25))).layer(after::<7>(ms(10)));
    let failure = rig.run(pipeline.call(|_| service.call(&rig))).expect_err("it hangs");
    assert!(failure.is_timed_out());
    assert_eq!((rig.elapsed(), rig.live(), service.calls(), service.in_flight()), (ms(25), 0, 3, 0));
}

#[test]
fn a_timeout_within_ends_each_try_by_itself() {
    static STEPS: [Step; 3] = [Step::Hang, Step::Hang, Step::SucceedAfter(ms(9))];
    let (rig, service) = (Rig::new(), Script::new(&STEPS));
    let pipeline = Pipeline::new(&rig).layer(after::<2>(ms(10))).layer(Timeout::new(ms(15)));
    assert_eq!(rig.run(pipeline.call(|_| service.call(&rig))), Ok(3));
    assert_eq!((rig.elapsed(), rig.live(), service.high_water()), (ms(29), 0, 2));
}

#[test]
fn no_try_starts_at_or_after_the_deadline_and_nothing_waits_for_it() {
    // A failure at once; the next try would start when it is all over.
    let (rig, service) = (Rig::new(), Script::new(&[Step::Fail]));
    let pipeline = Pipeline::new(&rig).layer(Timeout::new(ms(20))).layer(after::<3>(ms(20)));
    let failure = rig.run(pipeline.call(|_| service.call(&rig))).expect_err("it fails");
    assert_eq!(
        (failure.attempts, failure.stop, failure.into_inner()),
        (1, Some(Stop::Deadline), Some(Scripted { call: 1 }))
    );
    assert_eq!((rig.elapsed(), rig.sleeps()), (ms(0), 0));
    // One that hangs arms the timer of the timeout alone.
    let service = Script::new(&[Step::Hang]);
    assert!(rig.run(pipeline.call(|_| service.call(&rig))).is_err_and(|failure| failure.is_timed_out()));
    assert_eq!((rig.elapsed(), rig.sleeps(), service.calls()), (ms(20), 1, 1));
}

#[test]
fn an_executor_that_stalls_beyond_the_deadline_starts_no_try() {
    let (rig, service) = (Rig::new(), Script::new(&[Step::Hang]));
    let pipeline = Pipeline::new(&rig).layer(Timeout::new(ms(20))).layer(after::<3>(ms(10)));
    rig.stall(ms(15));
    assert!(rig.run(pipeline.call(|_| service.call(&rig))).is_err_and(|failure| failure.is_timed_out()));
    assert_eq!((rig.elapsed(), service.calls()), (ms(25), 1));
}

#[test]
fn a_breaker_that_is_open_within_fails_the_call_at_once() {
    let (rig, service) = (Rig::new(), Script::new(&[Step::Hang]));
    let breaker: CircuitBreaker<Local> = CircuitBreaker::new(valid!(circuit_breaker::Config::new().validate()));
    breaker.isolate();
    let pipeline = Pipeline::new(&rig).layer(after::<3>(ms(10))).layer(&breaker);
    let failure = rig.run(pipeline.call(|_| service.call(&rig))).expect_err("it is isolated");
    assert_eq!(failure.rejected().map(|rejected| rejected.reason()), Some(Reason::Isolated));
    assert_eq!((failure.attempts, failure.stop), (1, Some(Stop::Rejected)));
    assert_eq!((rig.elapsed(), rig.sleeps(), service.calls()), (ms(0), 0, 0));
}

#[test]
fn a_rejected_hedge_leaves_the_first_try_alone_and_is_not_tried_again() {
    let bulkhead: Bulkhead<Local> = Bulkhead::new(valid!(bulkhead::Config::new(1).validate()));
    for (step, expected) in [(Step::SucceedAfter(ms(95)), Ok(1)), (Step::FailAfter(ms(95)), Err(Scripted { call: 1 }))]
    {
        let (rig, steps) = (Rig::new(), [step]);
        let service = Script::new(&steps);
        let rejected = bulkhead.snapshot().rejected;
        let pipeline = Pipeline::new(&rig).layer(after::<7>(ms(10))).layer(&bulkhead);
        let result = rig.run(pipeline.call(|_| service.call(&rig)));
        let expected = expected.map_err(|error| Failure {
            cause: Cause::Inner(error),
            // The rejected one was none.
            attempts: 1,
            stop: Some(Stop::Rejected),
        });
        assert_eq!((result, rig.elapsed(), service.calls()), (expected, ms(95), 1));
        assert_eq!((bulkhead.snapshot().rejected - rejected, rig.live()), (1, 0));
    }
}

#[test]
fn a_rejection_that_comes_after_failures_does_not_hide_them() {
    let rig = Rig::new();
    let config = circuit_breaker::Config::new().with_trip(valid!(circuit_breaker::ConsecutiveFailures::new(1)));
    let breaker: CircuitBreaker<Local> = CircuitBreaker::new(config.validate().expect("it makes sense"));
    let service = Script::new(&[Step::Fail]);
    let pipeline = Pipeline::new(&rig).layer(after::<3>(ms(10))).layer(&breaker);
    let failure = rig.run(pipeline.call(|_| service.call(&rig))).expect_err("it fails");
    let expected = Failure { cause: Cause::Inner(Scripted { call: 1 }), attempts: 1, stop: Some(Stop::Rejected) };
    assert_eq!((failure, rig.elapsed()), (expected, ms(10)));
}

#[test]
fn a_rejection_does_not_count_against_the_dependency() {
    let rig = Rig::new();
    let config = circuit_breaker::Config::new().with_trip(valid!(circuit_breaker::ConsecutiveFailures::new(1)));
    let around: CircuitBreaker<Local> = CircuitBreaker::new(config.validate().expect("it makes sense"));
    let bulkhead: Bulkhead<Local> = Bulkhead::new(valid!(bulkhead::Config::new(1).validate()));
    let _held = bulkhead.try_acquire();
    let pipeline = Pipeline::new(&rig).layer(&around).layer(after::<3>(ms(10))).layer(&bulkhead);
    assert!(rig.run(pipeline.call(async |_| Ok::<_, ()>(1))).is_err_and(|failure| failure.is_rejected()));
    assert_eq!(around.state(), circuit_breaker::StateKind::Closed);
}

// Events.

#[test]
fn each_hedge_and_the_winner_are_told_of() {
    let events = Recorder::<Hedged, 16>::new();
    static STEPS: [Step; 3] = [Step::Hang, Step::SucceedAfter(ms(15)), Step::Hang];
    let (rig, service) = (Rig::new(), Script::new(&STEPS));
    let hedge: Hedge<Local, 3, _, _> = Hedge::with_observer(FixedDelay::new(ms(10)), Idempotent, &events);
    let pipeline = Pipeline::new(&rig).layer(&hedge);
    assert_eq!(rig.run(pipeline.call(|_| service.call(&rig))), Ok(2));
    let [one, two] = [1, 2].map(|hedge| Hedged::Started { hedge, attempt: 1 });
    assert_eq!(events.take().collect::<Vec<_>>(), [one, two, Hedged::Won { hedge: 1, attempt: 1 }]);
}

#[test]
fn a_call_that_needs_no_hedge_is_not_told_of_and_neither_is_one_that_nobody_won() {
    let events = Recorder::<Hedged, 16>::new();
    let hedge: Hedge<Local, 1, _, _> = Hedge::with_observer(FixedDelay::new(ms(10)), Idempotent, &events);
    let rig = Rig::new();
    let pipeline = Pipeline::new(&rig).layer(&hedge);
    assert_eq!(rig.run(pipeline.call(async |_| Ok::<_, ()>(1))), Ok(1));
    assert_eq!(events.take().count(), 0);
    assert!(rig.run(pipeline.call(async |_| Err::<(), _>(()))).is_err());
    assert_eq!(events.take().collect::<Vec<_>>(), [Hedged::Started { hedge: 1, attempt: 1 }]);
}

#[test]
fn it_describes_itself() {
    let rig = Rig::new();
    let fixed = Pipeline::new(&rig).layer(after::<2>(ms(50)));
    assert_eq!(std::format!("{fixed}"), "hedge: up to 2 more, each after 50ms");
    let quantile = Pipeline::new(&rig).layer(quantile(95, ms(100)));
    let expected = "hedge: up to 1 more, each when slower than 95 % of the calls, 100ms at first";
    assert_eq!(std::format!("{quantile}"), expected);
    let average = AveragePlus::<8>::new(ms(5)).with_percent(Ratio::percent(150)).validate().expect("it makes sense");
    let average = Pipeline::new(&rig).layer(Hedge::<Local, 1, _>::new(average, Idempotent));
    assert_eq!(std::format!("{average}"), "hedge: up to 1 more, each after 150 % of the mean of 8 latencies plus 5ms");
}

// Whatever happens, nothing is left behind.

/// A hedge around real policies with permits.
struct World {
    rig: Rig,
    bulkhead: Bulkhead<Local>,
    breaker: CircuitBreaker<Local>,
    service: Script<'static>,
}

impl World {
    fn new(steps: &'static [Step]) -> Self {
        let config = circuit_breaker::Config::new()
            .with_trip(valid!(circuit_breaker::ConsecutiveFailures::new(1_000)))
            .with_abandoned(Abandoned::Ignored)
            .with_trials(100, 200);
        let world = Self {
            rig: Rig::new(),
            bulkhead: Bulkhead::new(valid!(bulkhead::Config::new(4).validate())),
            breaker: CircuitBreaker::new(config.validate().expect("it makes sense")),
            service: Script::new(steps),
        };
        // Half-open, so that probes show who holds what.
        world.breaker.open_until(at(0));
        world.breaker.handle_timeout(&&world.rig);
        world
    }

    fn call<'w, F, Fut>(&'w self, operation: F) -> Pin<Box<dyn Future<Output = Result<u32, Failure<Scripted>>> + 'w>>
    where
        F: FnMut(Attempt) -> Fut + 'w,
        Fut: Future<Output = Result<u32, Scripted>> + 'w,
    {
        let pipeline = Pipeline::new(&self.rig)
            .layer(after::<3>(ms(10)))
            .layer(&self.bulkhead)
            .layer(&self.breaker)
            .layer(Timeout::new(ms(100)));
        Box::pin(async move { pipeline.call(operation).await })
    }

    fn holds(&self) -> (u32, u32, u32, usize) {
        let probes = self.breaker.snapshot(&&self.rig).probes;
        (self.bulkhead.snapshot().in_use, probes, self.service.in_flight(), self.rig.live())
    }
}

#[test]
fn a_call_dropped_at_any_await_leaves_nothing_behind() {
    static STEPS: [Step; 4] = [Step::Hang, Step::FailAfter(ms(15)), Step::Hang, Step::SucceedAfter(ms(30))];
    let mut seen = Vec::new();
    for polls in 0.. {
        let world = World::new(&STEPS);
        let mut call = world.call(|_| world.service.call(&world.rig));
        let mut ended = false;
        for _ in 0..polls {
            ended = poll_once(call.as_mut()).is_ready();
            if ended {
                break;
            }
            seen.push(world.holds());
            world.rig.jump();
        }
        drop(call);
        assert_eq!(world.holds(), (0, 0, 0, 0), "dropped after {polls} polls");
        if ended {
            break;
        }
    }
    seen.dedup();
    let most = seen.iter().map(|(in_use, ..)| *in_use).max();
    assert_eq!(most, Some(3), "{seen:?}");
    assert!(seen.iter().all(|(in_use, probes, in_flight, _)| in_use == probes && probes == in_flight), "{seen:?}");
}

#[test]
fn an_operation_that_panics_in_any_try_leaves_nothing_held() {
    for fatal in 0..4 {
        for before in [true, false] {
            let world = World::new(&[Step::Hang]);
            let panics = explodes(|| {
                world.rig.run(world.call(|attempt| {
                    let is_fatal = attempt.hedge() == fatal;
                    if before && is_fatal {
                        explode();
                    }
                    let service = &world.service;
                    let rig = &world.rig;
                    async move {
                        if is_fatal {
                            rig.sleep_until(rig.now().saturating_add(ms(3))).await;
                            explode();
                        }
                        service.call(rig).await
                    }
                }))
            });
            assert!(panics, "try {fatal}");
            assert_eq!(world.holds(), (0, 0, 0, 0), "panic in try {fatal}, before there is a future: {before}");
        }
    }
}

/// Panics when it is dropped.
struct Bomb(bool);

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0 && !std::thread::panicking() {
            explode();
        }
    }
}

#[test]
fn a_try_that_panics_when_it_is_dropped_does_not_keep_the_others_from_it() {
    static STEPS: [Step; 4] = [Step::Hang, Step::Hang, Step::SucceedAfter(ms(5)), Step::Hang];
    for bomb in 0..2 {
        for cancelled in [true, false] {
            let world = World::new(&STEPS);
            let mut call = world.call(|attempt| {
                let world = &world;
                async move {
                    let _bomb = Bomb(attempt.hedge() == bomb);
                    world.service.call(&world.rig).await
                }
            });
            let panics = explodes(|| {
                for _ in 0..3 {
                    assert!(poll_once(call.as_mut()).is_pending());
                    world.rig.jump();
                }
                assert_eq!(world.service.in_flight(), 3);
                if cancelled {
                    drop(call);
                } else {
                    let _ = poll_once(call.as_mut());
                }
            });
            assert!(panics, "try {bomb}, cancelled: {cancelled}");
            assert_eq!(world.holds(), (0, 0, 0, 0), "try {bomb}, cancelled: {cancelled}");
        }
    }
}

#[test]
fn a_loser_is_dropped_before_the_answer_is_handed_out_and_takes_it_along_when_it_panics() {
    for bomb in [false, true] {
        let (rig, events) = (Rig::new(), Recorder::<Hedged, 4>::new());
        let hedge: Hedge<Local, 1, FixedDelay, _> = Hedge::with_observer(FixedDelay::new(ms(10)), Idempotent, &events);
        let pipeline = Pipeline::new(&rig).layer(hedge);
        let dropped = Cell::new(false);
        let mut call = Box::pin(pipeline.call(|attempt: Attempt| {
            let (rig, dropped) = (&rig, &dropped);
            async move {
                if attempt.hedge() == 1 {
                    rig.sleep_until(at(15)).await;
                    return Ok::<_, ()>(1);
                }
                let _loser = scopeguard(|| dropped.set(true));
                let _bomb = Bomb(bomb);
                crate::testing::never().await
            }
        }));
        let mut answer = Poll::Pending;
        let panics = explodes(|| {
            while answer.is_pending() {
                answer = poll_once(call.as_mut());
                rig.jump();
            }
        });
        assert_eq!((panics, dropped.get(), rig.live()), (bomb, true, 0));
        assert_eq!(answer, if bomb { Poll::Pending } else { Poll::Ready(Ok(1)) }, "the answer goes with the panic");
        let won = events.take().filter(|event| matches!(event, Hedged::Won { .. })).count();
        assert_eq!(won, usize::from(!bomb));
    }
}

/// Does something when it is dropped.
fn scopeguard(then: impl Fn()) -> impl Drop {
    struct Guard<F: Fn()>(F);
    impl<F: Fn()> Drop for Guard<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    Guard(then)
}

#[test]
fn the_state_is_as_large_as_its_tries_and_little_more() {
    fn size<const N: usize>() -> usize
    where
        Hedges<N>: Room,
    {
        let hedge: Hedge<Local, N> = after(ms(1));
        let pipeline = Pipeline::new(crate::testing::tests::Endless).layer(hedge);
        size_of_val(&pipeline.call(|_| core::future::ready(Ok::<[u64; 8], ()>([0; 8]))))
    }
    // Eight words and a discriminant for all of it.
    let sizes = [size::<1>(), size::<2>(), size::<7>()];
    assert_eq!([sizes[1] - sizes[0], (sizes[2] - sizes[0]) / 6], [72, 72], "{sizes:?}");
}
