//! What goes wrong around time limits, as far as the other tests do not have it: see `tests/faults.md`.

use std::boxed::Box;
use std::vec::Vec;

use super::*;
use crate::cell::Local;
use crate::circuit_breaker::{self, CircuitBreaker, StateKind, Totals, Transition};
use crate::fallback::FallbackTo;
use crate::rate_limiter::{self, RateLimiter};
use crate::testing::{Recorder, Scripted};
use crate::valid;

#[test]
fn an_operation_that_keeps_the_thread_is_found_out_when_it_lets_go() {
    // Ready at the end of it: there is an answer, however late.
    let rig = Rig::new();
    let pipeline = Pipeline::new(&rig).layer(Timeout::new(ms(50)));
    let answer = pipeline.call(|_| {
        rig.advance(ms(400));
        ready(Ok::<_, ()>(1))
    });
    assert_eq!(rig.run(answer), Ok(1));
    // Pending at the end of it: its time starts only now, since the clock is read with the first poll that has to wait.
    let mut kept = false;
    let call = pipeline.call(|_| {
        let rig = &rig;
        poll_fn(move |_| -> Poll<Result<u32, ()>> {
            if !core::mem::replace(&mut kept, true) {
                rig.advance(ms(400));
            }
            Poll::Pending
        })
    });
    assert_eq!(timed_out(rig.run(call)), Some((ms(50), at(850))));
    // Within its time it is found out at once.
    let blocked = pipeline.call(|_| {
        let (rig, mut polls) = (&rig, 0);
        poll_fn(move |cx| -> Poll<Result<u32, ()>> {
            polls += 1;
            if polls == 2 {
                rig.advance(ms(400));
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    });
    assert_eq!(timed_out(rig.run(blocked)), Some((ms(50), at(900))));
    assert_eq!(rig.elapsed(), ms(1_250), "as soon as it was polled again");
}

type Calling<'a> = Pin<Box<dyn Future<Output = Result<u32, Failure<Scripted>>> + 'a>>;

/// A hundred calls, all begun.
fn under_way<'a, L: Layer<u32, Scripted, &'a Rig>>(
    pipeline: &'a Pipeline<&'a Rig, L>,
    service: &'a Script<'a>,
    rig: &'a Rig,
) -> Vec<Calling<'a>> {
    let mut calls: Vec<_> = (0..100).map(|_| Box::pin(pipeline.call(move |_| service.call(rig))) as _).collect();
    for call in &mut calls {
        assert!(poll_once(Pin::as_mut(call)).is_pending());
    }
    calls
}

#[test]
fn a_machine_that_sleeps_for_eight_hours_times_out_each_call_once_and_starts_none() {
    let (rig, service) = (Rig::new(), Script::new(&[Step::Hang]));
    let pipeline = Pipeline::new(&rig).layer(Timeout::new(ms(50)));
    let calls = under_way(&pipeline, &service, &rig);
    rig.advance(Duration::from_secs(8 * 3_600));
    for call in calls {
        assert!(rig.run(call).expect_err("its time is over").is_timed_out());
    }
    assert_eq!((service.calls(), service.in_flight(), rig.live()), (100, 0, 0));
}

#[test]
fn an_executor_that_stalls_counts_as_failures_only_the_calls_that_were_not_done_meanwhile() {
    let (rig, events) = (Rig::new(), Recorder::<Transition, 8>::new());
    let breaker = CircuitBreaker::<Local, _, _>::with_observer(
        valid!(circuit_breaker::Config::new().validate()),
        Totals::<Local, _>::new(&events),
    );
    let pipeline = Pipeline::new(&rig).layer(&breaker).layer(Timeout::new(ms(500)));
    // Every other one is done in the middle of the stall.
    let steps: Vec<_> = (0..100).map(|n| if n % 2 == 0 { Step::SucceedAfter(ms(2_000)) } else { Step::Hang }).collect();
    let service = Script::new(&steps);
    let calls = under_way(&pipeline, &service, &rig);
    rig.advance(ms(5_000));
    let done = calls.into_iter().map(|call| rig.run(call)).filter(Result::is_ok).count();
    assert_eq!((done, service.calls()), (50, 100));
    let totals = breaker.observer();
    // A success comes between any two failures: it stays closed.
    assert_eq!((totals.successes(), totals.failures(), totals.late()), (50, 50, 0));
    assert_eq!((breaker.state(), events.take().count()), (StateKind::Closed, 0));
}

#[test]
fn a_wait_for_the_rate_is_part_of_the_time() {
    let run = |operation: u64, behind: u64| {
        let rig = Rig::new();
        let limiter: RateLimiter<Local> = RateLimiter::new(
            rate_limiter::Config::new(1, ms(behind)).with_queue(10, ms(1_000)).validate().expect("it makes sense"),
        );
        assert!(limiter.try_acquire(&&rig).is_ok());
        let steps = [Step::SucceedAfter(ms(operation))];
        let service = Script::new(&steps);
        let pipeline = Pipeline::new(&rig).layer(Timeout::new(ms(100))).layer(&limiter);
        let result = rig.run(pipeline.call(|_| service.call(&rig)));
        let result = result.map_err(|failure| failure.is_timed_out());
        (result, rig.elapsed(), service.calls(), service.in_flight(), limiter.available(&&rig))
    };
    assert_eq!(run(30, 60), (Ok(1), ms(90), 1, 0, 0));
    assert_eq!(run(50, 60), (Err(true), ms(100), 1, 0, 0), "with the operation under way");
    let (result, elapsed, calls, _, available) = run(30, 150);
    assert!(result.is_err() && elapsed <= ms(100), "{result:?} after {elapsed:?}");
    assert_eq!((calls, available), (0, 0), "and its token is back: the next one comes 50 ms later");
}

#[test]
fn a_fallback_with_a_time_limit_of_its_own_hands_the_first_failure_back_when_it_hangs() {
    let rig = Rig::new();
    let fails = [Step::FailAfter(ms(30))];
    let (main, copy) = (Script::new(&fails), Script::new(&[Step::Hang]));
    let other = Pipeline::new(&rig).layer(Timeout::new(ms(20)));
    let pipeline = Pipeline::new(&rig).layer(FallbackTo::new(async |failure: Failure<Scripted>| {
        other.call(|_| copy.call(&rig)).await.map_err(|_| failure)
    }));
    let failure = rig.run(pipeline.call(|_| main.call(&rig))).expect_err("both fail");
    assert_eq!((failure.inner(), rig.elapsed()), (Some(&Scripted { call: 1 }), ms(50)));
    assert_eq!((copy.calls(), copy.in_flight(), rig.live()), (1, 0, 0));
}
