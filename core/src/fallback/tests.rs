use core::cell::Cell;
use core::pin::pin;
use core::time::Duration;
use std::string::ToString;

use super::*;
use crate::backoff::Backoff;
use crate::bulkhead::{self, Bulkhead};
use crate::cell::Local;
use crate::failure::{Cause, Reason, Stop};
use crate::retry::{self, RetryPolicy};
use crate::testing::tests::{Rig, explode, explodes, ms, poll_once};
use crate::testing::{Script, Scripted, Step, never};
use crate::timeout::Timeout;
use crate::{Pipeline, valid};

#[test]
fn a_value_stands_in_for_a_failure_and_for_nothing_else() {
    let rig = Rig::new();
    let pipeline = Pipeline::new(&rig).layer(Fallback::new(|_: Failure<&str>| Ok(20)));
    assert_eq!(rig.run(pipeline.call(async |_| Err("offline"))), Ok(20));
    assert_eq!(rig.run(pipeline.call(async |_| Ok::<_, &str>(21))), Ok(21));
    assert_eq!((rig.reads(), rig.sleeps()), (0, 0));
}

#[test]
fn the_reason_is_in_hand_and_may_be_handed_back_unharmed() {
    let rig = Rig::new();
    let retry = RetryPolicy::new(valid!(retry::Config::new().with_backoff(Backoff::none()).validate()));
    let pipeline = Pipeline::new(&rig)
        .layer(Fallback::new(|failure: Failure<Scripted>| match failure.stop {
            Some(Stop::Attempts) => Err(failure),
            _ => Ok(0),
        }))
        .layer(retry);
    let service = Script::new(&[Step::Fail]);
    let failure = rig.run(pipeline.call(|_| service.call(&rig))).expect_err("it is handed back");
    let expected = Failure { cause: Cause::Inner(Scripted { call: 3 }), attempts: 3, stop: Some(Stop::Attempts) };
    assert_eq!(failure, expected);
}

#[test]
fn a_pipeline_names_its_fallbacks() {
    let instead = |_: Failure<()>| Ok::<(), Failure<()>>(());
    assert!(Pipeline::new(Rig::new()).layer(Fallback::new(instead)).to_string().contains("fallback: a value"));
    let instead = async |_: Failure<()>| Ok::<(), Failure<()>>(());
    let text = Pipeline::new(Rig::new()).layer(FallbackTo::new(instead)).to_string();
    assert!(text.contains("fallback: another operation"), "{text}");
}

#[test]
fn it_stands_in_for_rejections_and_timeouts_too() {
    let rig = Rig::new();
    let bulkhead: Bulkhead<Local> = Bulkhead::new(valid!(bulkhead::Config::new(1).validate()));
    let why = |failure: Failure<()>| match failure.cause {
        Cause::Rejected(rejected) if rejected.reason() == Reason::Full => Ok("full"),
        Cause::TimedOut(_) => Ok("late"),
        _ => Err(failure),
    };
    let pipeline = Pipeline::new(&rig).layer(Fallback::new(why)).layer(&bulkhead).layer(Timeout::new(ms(10)));
    assert_eq!(rig.run(pipeline.call(|_| never::<Result<_, ()>>())), Ok("late"));
    let _held = bulkhead.try_acquire();
    assert_eq!(rig.run(pipeline.call(async |_| Ok("through"))), Ok("full"));
}

#[test]
fn several_form_a_chain_from_the_inside_out() {
    let rig = Rig::new();
    let pipeline = Pipeline::new(&rig)
        .layer(Fallback::new(|failure: Failure<u32>| match failure.into_inner() {
            Some(3) => Ok("the last resort"),
            _ => Ok("wrong"),
        }))
        .layer(FallbackTo::new(async |failure: Failure<u32>| match failure.inner() {
            Some(1) => Ok("the copy"),
            _ => Err(Failure::new(Cause::Inner(3))),
        }))
        .layer(Fallback::new(|failure: Failure<u32>| match failure.inner() {
            Some(0) => Ok("the cache"),
            _ => Err(failure),
        }));
    let ask = |error| rig.run(pipeline.call(async |_| Err(error)));
    assert_eq!([ask(0), ask(1), ask(2)], [Ok("the cache"), Ok("the copy"), Ok("the last resort")]);
}

#[test]
fn an_ok_that_counts_as_a_failure_is_an_answer_all_the_same() {
    let rig = Rig::new();
    let pipeline = Pipeline::new(&rig)
        .layer(Fallback::new(|_| Ok(0)))
        .layer(FallbackTo::new(async |_| Ok(0)))
        .classify(|_: Result<&u32, &()>| Verdict::TRANSIENT);
    assert_eq!(rig.run(pipeline.call(async |_| Ok(503))), Ok(503));
    assert_eq!(rig.run(pipeline.call(async |_| Err(()))), Ok(0));
}

#[test]
fn a_fallback_within_a_retry_has_the_last_word() {
    let rig = Rig::new();
    let service = Script::new(&[Step::Fail]);
    let retry = RetryPolicy::new(valid!(retry::Config::new().validate()));
    for helps in [true, false] {
        let pipeline = Pipeline::new(&rig)
            .layer(retry)
            .layer_in_any_order(Fallback::new(|failure: Failure<Scripted>| if helps { Ok(0) } else { Err(failure) }));
        let calls = service.calls();
        let result = rig.run(pipeline.call(|_| service.call(&rig)));
        let stop = result.err().and_then(|failure| failure.stop);
        assert_eq!((service.calls() - calls, stop), (1, (!helps).then_some(Stop::NotRetryable)));
    }
}

#[test]
fn another_operation_stands_in_and_may_take_its_time() {
    let rig = Rig::new();
    let (main, copy) = ([Step::FailAfter(ms(5))], [Step::SucceedAfter(ms(30))]);
    let (main, copy) = (Script::new(&main), Script::new(&copy));
    let pipeline = Pipeline::new(&rig)
        .layer(FallbackTo::new(async |failure: Failure<Scripted>| copy.call(&rig).await.map_err(|_| failure)))
        // It limits the main operation only.
        .layer(Timeout::new(ms(10)));
    assert_eq!(rig.run(pipeline.call(|_| main.call(&rig))), Ok(1));
    assert_eq!((rig.elapsed(), rig.live(), main.calls(), copy.calls()), (ms(35), 0, 1, 1));
}

#[test]
fn when_the_other_operation_fails_too_the_first_error_can_be_kept() {
    let rig = Rig::new();
    let (main, copy) = (Script::new(&[Step::Fail, Step::Hang]), Script::new(&[Step::Succeed, Step::Fail]));
    assert_eq!(rig.run(copy.call(&rig)), Ok(1));
    let pipeline = Pipeline::new(&rig)
        .layer(FallbackTo::new(async |failure: Failure<Scripted>| copy.call(&rig).await.map_err(|_| failure)));
    let failure = rig.run(pipeline.call(|_| main.call(&rig))).expect_err("both fail");
    assert_eq!((failure.inner(), copy.calls()), (Some(&Scripted { call: 1 }), 2));
}

#[test]
fn a_fallback_that_hangs_is_cut_short_by_the_timeout_around_it() {
    let rig = Rig::new();
    let (main, copy) = (Script::new(&[Step::Fail]), Script::new(&[Step::Hang]));
    let retry = retry::Config::new().with_max_attempts(2).with_backoff(Backoff::none());
    let pipeline = Pipeline::new(&rig)
        .layer(RetryPolicy::new(retry.validate().expect("it makes sense")))
        .layer(Timeout::new(ms(40)))
        .layer_in_any_order(FallbackTo::new(async |failure: Failure<Scripted>| {
            copy.call(&rig).await.map_err(|_| failure)
        }));
    let failure = rig.run(pipeline.call(|_| main.call(&rig))).expect_err("it times out");
    assert!(failure.is_timed_out());
    assert_eq!((failure.attempts, main.calls(), copy.calls()), (2, 2, 2), "the second attempt starts afresh");
    assert_eq!((rig.elapsed(), rig.live(), copy.high_water(), copy.in_flight()), (ms(80), 0, 1, 0));
}

#[test]
fn behind_a_fallback_the_second_attempt_starts_afresh() {
    let (rig, steps) = (Rig::new(), [Step::Hang, Step::Succeed]);
    let main = Script::new(&steps);
    let retry = retry::Config::new().with_max_attempts(2).with_backoff(Backoff::none());
    let pipeline = Pipeline::new(&rig)
        .layer(RetryPolicy::new(retry.validate().expect("it makes sense")))
        .layer(Timeout::new(ms(40)))
        .layer_in_any_order(Fallback::new(|failure: Failure<Scripted>| Err(failure)));
    assert_eq!(rig.run(pipeline.call(|_| main.call(&rig))), Ok(2));
    assert_eq!((rig.elapsed(), main.calls(), main.in_flight()), (ms(40), 2, 0));
}

#[test]
fn the_fallback_is_asked_once_however_often_the_call_is_polled() {
    let (rig, asked) = (Rig::new(), Cell::new(0));
    let pipeline = Pipeline::new(&rig).layer(FallbackTo::new(|_: Failure<()>| {
        asked.set(asked.get() + 1);
        never::<Result<(), Failure<()>>>()
    }));
    let mut call = pin!(pipeline.call(async |_| Err(())));
    for _ in 0..1_000 {
        assert!(poll_once(call.as_mut()).is_pending());
    }
    assert_eq!(asked.get(), 1);
}

#[test]
fn a_panic_in_the_fallback_or_in_its_drop_gives_everything_back() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                explode();
            }
        }
    }
    let (rig, main) = (Rig::new(), Script::new(&[Step::Fail]));
    let bulkhead: Bulkhead<Local> = Bulkhead::new(valid!(bulkhead::Config::new(1).validate()));
    for in_drop in [false, true] {
        let pipeline = Pipeline::new(&rig).layer(Timeout::new(ms(40))).layer(&bulkhead).layer(FallbackTo::new(
            |_: Failure<Scripted>| async move {
                let _bomb = if in_drop { Bomb } else { explode() };
                never().await
            },
        ));
        assert!(explodes(|| rig.run(pipeline.call(|_| main.call(&rig)))), "in drop: {in_drop}");
        assert_eq!((bulkhead.snapshot().in_use, rig.live()), (0, 0), "in drop: {in_drop}");
    }
    assert_eq!(rig.elapsed(), Duration::from_millis(40));
}
