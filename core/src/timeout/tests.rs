use core::future::{pending, poll_fn, ready};
use core::pin::pin;

use super::*;
use crate::Pipeline;
use crate::failure::Failure;
use crate::testing::tests::{Rig, Wakes, at, ms, poll_once};
use crate::testing::{Script, Step, never};

mod faults;

/// The limit and the deadline of the timeout that ended the call.
fn timed_out<T: fmt::Debug>(result: Result<T, Failure<()>>) -> Option<(Duration, Instant)> {
    match result.expect_err("it times out").cause {
        crate::Cause::TimedOut(timed_out) => Some((timed_out.limit(), timed_out.deadline())),
        _ => None,
    }
}

/// An operation that is done at this instant, and looks only when it is polled.
async fn done_at(rig: &Rig, done: Instant) -> Result<u32, ()> {
    poll_fn(|_| if rig.elapsed() >= done.saturating_duration_since(at(0)) { Poll::Ready(Ok(1)) } else { Poll::Pending })
        .await
}

#[test]
fn the_limit_is_half_a_minute_unless_said_otherwise() {
    let rig = Rig::new();
    let pipeline = Pipeline::new(&rig).layer(Timeout::default());
    let result = rig.run(pipeline.call(|_| never::<Result<(), ()>>()));
    assert_eq!(timed_out(result), Some((LIMIT, at(30_000))));
    assert_eq!((rig.elapsed(), rig.live()), (Duration::from_secs(30), 0));
}

#[test]
fn the_time_starts_with_the_first_poll_that_has_to_wait() {
    let rig = Rig::new();
    rig.set(at(1_000));
    let pipeline = Pipeline::new(&rig).layer(Timeout::new(ms(50)));
    let call = pipeline.call(|_| never::<Result<(), ()>>());
    rig.set(at(2_000));
    assert_eq!(timed_out(rig.run(call)), Some((ms(50), at(2_050))));
}

#[test]
fn zero_is_already_over_and_the_operation_is_not_started() {
    let rig = Rig::new();
    rig.set(at(7));
    let service = Script::new(&[Step::Succeed]);
    let pipeline = Pipeline::new(&rig).layer(Timeout::new(Duration::ZERO));
    let result = rig.run(pipeline.call(|_| {
        let answer = service.call(&rig);
        async { answer.await.map_err(|_| ()) }
    }));
    assert_eq!(timed_out(result), Some((Duration::ZERO, at(7))));
    assert_eq!((service.calls(), rig.sleeps()), (0, 0));
}

#[test]
fn the_longest_limit_arms_no_timer_and_never_ends() {
    for limit in [Duration::MAX, Duration::from_nanos(u64::MAX)] {
        let rig = Rig::new();
        let pipeline = Pipeline::new(&rig).layer(Timeout::new(limit));
        let mut call = pin!(pipeline.call(|_| never::<Result<(), ()>>()));
        for now in [at(0), at(1), Instant::MAX] {
            rig.set(now);
            assert!(poll_once(call.as_mut()).is_pending());
        }
        assert_eq!(rig.sleeps(), 0);
    }
}

#[test]
fn a_deadline_beyond_the_end_of_time_is_never() {
    let rig = Rig::new();
    rig.set(at(1));
    let pipeline = Pipeline::new(&rig).layer(Timeout::new(Duration::from_nanos(u64::MAX - 1)));
    let mut call = pin!(pipeline.call(|_| never::<Result<(), ()>>()));
    assert!(poll_once(call.as_mut()).is_pending());
    assert_eq!(rig.sleeps(), 0);
}

#[test]
fn the_last_limit_before_the_longest_is_an_ordinary_one() {
    let rig = Rig::new();
    let limit = Duration::from_nanos(u64::MAX - 1);
    let pipeline = Pipeline::new(&rig).layer(Timeout::new(limit));
    let result = rig.run(pipeline.call(|_| never::<Result<(), ()>>()));
    assert_eq!(timed_out(result), Some((limit, Instant::from_nanos(u64::MAX - 1))));
}

#[test]
fn an_operation_that_is_ready_at_once_costs_neither_clock_nor_timer() {
    let rig = Rig::new();
    let pipeline = Pipeline::new(&rig).layer(Timeout::new(ms(50))).layer(Timeout::new(ms(20)));
    assert_eq!(rig.run(pipeline.call(|_| ready(Ok::<_, ()>(1)))), Ok(1));
    assert!(rig.run(pipeline.call(|_| ready(Err::<(), _>(())))).is_err());
    assert_eq!((rig.reads(), rig.sleeps()), (0, 0));
}

#[test]
fn an_operation_that_waits_costs_one_timer_and_one_look_at_the_clock() {
    let rig = Rig::new();
    let pipeline = Pipeline::new(&rig).layer(Timeout::new(ms(50)));
    let mut call = pin!(pipeline.call(|_| done_at(&rig, at(30))));
    for _ in 0..1_000 {
        assert!(poll_once(call.as_mut()).is_pending());
    }
    assert_eq!((rig.reads(), rig.sleeps(), rig.live()), (1, 1, 1));
    rig.set(at(30));
    assert_eq!(poll_once(call.as_mut()), Poll::Ready(Ok(1)));
    assert_eq!((rig.reads(), rig.live()), (1, 0), "the timer goes with the answer, not with the call");
}

#[test]
fn in_the_same_poll_the_operation_wins() {
    let rig = Rig::new();
    let pipeline = Pipeline::new(&rig).layer(Timeout::new(ms(50)));
    let mut call = pin!(pipeline.call(|_| done_at(&rig, at(50))));
    assert!(poll_once(call.as_mut()).is_pending());
    rig.set(at(5_000));
    assert_eq!(poll_once(call.as_mut()), Poll::Ready(Ok(1)));
    assert_eq!(rig.live(), 0);
}

#[test]
fn the_operation_is_dropped_when_its_time_is_over() {
    let rig = Rig::new();
    let service = Script::new(&[Step::Hang]);
    let pipeline = Pipeline::new(&rig).layer(Timeout::new(ms(50)));
    let mut call = pin!(pipeline.call(|_| service.call(&rig)));
    assert!(poll_once(call.as_mut()).is_pending());
    assert_eq!(service.in_flight(), 1);
    rig.set(at(50));
    assert!(poll_once(call.as_mut()).is_ready());
    assert_eq!((service.in_flight(), rig.live()), (0, 0), "dropped by the timeout, not with the call");
}

#[test]
fn it_never_fires_before_the_deadline_even_if_the_timer_does() {
    let rig = Rig::new();
    let pipeline = Pipeline::new(&rig).layer(Timeout::new(ms(50)));
    rig.fire_early(ms(20));
    let (wakes, waker) = Wakes::new();
    let mut call = pin!(pipeline.call(|_| never::<Result<(), ()>>()));
    assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    rig.set(at(30));
    assert_eq!(wakes.count(), 1);
    assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!(wakes.count(), 2, "it asks to be polled again, to arm another timer");
    assert_eq!(timed_out(rig.run(call)), Some((ms(50), at(50))));
    assert_eq!((rig.elapsed(), rig.sleeps()), (ms(50), 2));
}

#[test]
fn a_timer_that_fires_late_gives_the_deadline_that_was_meant() {
    let rig = Rig::new();
    let pipeline = Pipeline::new(&rig).layer(Timeout::new(ms(50)));
    rig.stall(Duration::from_secs(8 * 3_600));
    assert_eq!(timed_out(rig.run(pipeline.call(|_| never::<Result<(), ()>>()))), Some((ms(50), at(50))));
}

#[test]
fn a_clock_that_steps_back_only_prolongs_it() {
    let rig = Rig::new();
    rig.set(at(1_000));
    let pipeline = Pipeline::new(&rig).layer(Timeout::new(ms(50)));
    let mut call = pin!(pipeline.call(|_| never::<Result<(), ()>>()));
    assert!(poll_once(call.as_mut()).is_pending());
    rig.set(at(0));
    assert!(poll_once(call.as_mut()).is_pending());
    assert_eq!(timed_out(rig.run(call)), Some((ms(50), at(1_050))));
}

#[test]
fn a_clock_that_stands_still_makes_it_wait_and_not_spin() {
    /// Its timers fire at once, and its clock never gets there.
    struct Stuck;
    impl Clock for Stuck {
        fn now(&self) -> Instant {
            Instant::START
        }
    }
    impl Executor for Stuck {
        type Sleep = core::future::Ready<()>;
        fn sleep_until(&self, _: Instant) -> Self::Sleep {
            ready(())
        }
        fn random(&self) -> u32 {
            0
        }
    }
    let pipeline = Pipeline::new(Stuck).layer(Timeout::new(ms(50)));
    let (wakes, waker) = Wakes::new();
    let mut call = pin!(pipeline.call(|_| pending::<Result<(), ()>>()));
    for polls in 1..10 {
        assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(wakes.count(), polls, "every poll returns, and asks for another one");
    }
}

/// Which limit of the three ends a call that hangs, and when.
fn nested(limits: [Duration; 3]) -> (Option<(Duration, Instant)>, u32) {
    let rig = Rig::new();
    let [outer, middle, inner] = limits.map(Timeout::new);
    let pipeline = Pipeline::new(&rig).layer(outer).layer(middle).layer(inner);
    let ended = timed_out(rig.run(pipeline.call(|_| never::<Result<(), ()>>())));
    assert_eq!(rig.live(), 0);
    (ended, rig.sleeps())
}

#[test]
fn of_nested_deadlines_the_first_one_counts_wherever_it_stands() {
    let limits = [ms(10), ms(20), Duration::MAX];
    for (a, b, c) in [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)] {
        let (ended, _) = nested([limits[a], limits[b], limits[c]]);
        assert_eq!(ended, Some((ms(10), at(10))), "{a}{b}{c}");
    }
}

#[test]
fn a_deadline_that_lies_beyond_the_outer_one_arms_no_timer() {
    assert_eq!(nested([ms(10), ms(20), ms(30)]).1, 1);
    assert_eq!(nested([ms(30), ms(20), ms(10)]).1, 3);
    assert_eq!(nested([ms(10), ms(10), ms(10)]).0, Some((ms(10), at(10))));
}

#[test]
fn an_inner_zero_ends_only_its_own_part() {
    let rig = Rig::new();
    let pipeline = Pipeline::new(&rig).layer(Timeout::new(ms(10))).layer(Timeout::new(Duration::ZERO));
    assert_eq!(timed_out(rig.run(pipeline.call(|_| ready(Ok(()))))), Some((Duration::ZERO, at(0))));
}

#[test]
fn a_call_may_bring_its_own_limit_for_the_outermost_timeout_alone() {
    let rig = Rig::new();
    let pipeline = Pipeline::new(&rig).layer(Timeout::new(ms(100))).layer(Timeout::new(ms(50)));
    let ends = |limit| {
        let began = rig.elapsed();
        let result = rig.run(pipeline.call(|_| never::<Result<(), ()>>()).with_timeout(limit));
        let (limit, _) = timed_out(result).expect("it times out");
        (limit, rig.elapsed() - began)
    };
    assert_eq!(ends(ms(20)), (ms(20), ms(20)), "shorter than both");
    assert_eq!(ends(ms(70)), (ms(50), ms(50)), "the inner one stays");
    assert_eq!(ends(Duration::MAX), (ms(50), ms(50)));
    assert_eq!(ends(Duration::ZERO), (Duration::ZERO, ms(0)));
    let result = rig.run(pipeline.call(|_| never::<Result<(), ()>>()));
    assert_eq!(timed_out(result).expect("it times out").0, ms(50), "the pipeline is as it was");
}

#[test]
fn a_limit_of_the_call_may_be_longer_than_the_pipelines() {
    let rig = Rig::new();
    let pipeline = Pipeline::new(&rig).layer(Timeout::new(ms(10)));
    let slow = |_| async {
        (&rig).sleep_until(at(40)).await;
        Ok::<_, ()>(1)
    };
    assert_eq!(rig.run(pipeline.call(slow).with_timeout(ms(50))), Ok(1));
    assert_eq!(rig.live(), 0);
}

#[test]
fn the_waker_of_the_last_poll_is_woken() {
    let rig = Rig::new();
    let pipeline = Pipeline::new(&rig).layer(Timeout::new(ms(50)));
    let ((old_wakes, old), (new_wakes, new)) = (Wakes::new(), Wakes::new());
    let mut call = pin!(pipeline.call(|_| never::<Result<(), ()>>()));
    for waker in [&old, &new] {
        assert!(call.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
    }
    rig.set(at(50));
    assert_eq!((old_wakes.count(), new_wakes.count()), (0, 1));
}

#[test]
fn the_error_says_what_the_limit_was() {
    let rig = Rig::new();
    let pipeline = Pipeline::new(&rig).layer(Timeout::new(ms(1_500)));
    let failure = rig.run(pipeline.call(|_| never::<Result<(), &str>>())).expect_err("it times out");
    assert!(failure.is_timed_out());
    assert_eq!(std::format!("{failure}"), "timed out after 1.5s");
    assert_eq!(Timeout::new(Duration::MAX).limit(), Duration::from_nanos(u64::MAX));
}

#[test]
fn a_timeout_and_its_progress_within_a_call_are_a_few_words() {
    assert_eq!(size_of::<Timeout>(), 8);
    // Sleep and inside are of no size here.
    assert_eq!(size_of::<TimeoutState<(), ()>>(), 24);
}
