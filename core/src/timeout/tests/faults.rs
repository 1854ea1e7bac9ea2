//! What goes wrong around time limits, as far as the other tests do not have it: see `tests/faults.md`.

use core::task::Waker;
use std::boxed::Box;
use std::vec::Vec;

use super::*;
use crate::backoff::{Backoff, Jitter};
use crate::cell::Local;
use crate::circuit_breaker::{self, CircuitBreaker, StateKind, Totals, Transition};
use crate::failure::Stop;
use crate::fallback::FallbackTo;
use crate::rate_limiter::{self, RateLimiter};
use crate::retry::{self, RetryPolicy};
use crate::testing::{ManualClock, Recorder, Scripted};
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

/// An executor whose alarms never ring. Its sleeps keep to what they have to, and to nothing more: a poll at the instant or later is ready.
struct Silent(ManualClock);

struct SilentSleep<'c>(&'c ManualClock, Instant);

impl Clock for Silent {
    fn now(&self) -> Instant {
        self.0.now()
    }
}

impl<'c> Executor for &'c Silent {
    type Sleep = SilentSleep<'c>;

    fn sleep_until(&self, at: Instant) -> SilentSleep<'c> {
        SilentSleep(&self.0, at)
    }

    fn random(&self) -> u32 {
        0
    }
}

impl Future for SilentSleep<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.0.now() >= self.1 { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[test]
fn an_alarm_that_never_rings_is_noticed_at_the_next_poll() {
    let executor = Silent(ManualClock::new());
    let service = Script::new(&[Step::Fail, Step::Hang]);
    let backoff = Backoff::constant(ms(10)).with_jitter(Jitter::None);
    let retry = RetryPolicy::new(retry::Config::new().with_backoff(backoff).validate().expect("it makes sense"));
    let pipeline = Pipeline::new(&executor).layer(Timeout::new(ms(50))).layer(retry);
    let mut call = pin!(pipeline.call(|_| service.call(&executor)));
    // When it is polled for some other reason, and how many attempts have been made by then.
    for (now, attempts) in [(0, 1), (9, 1), (10, 2), (49, 2)] {
        executor.0.set(at(now));
        assert!(poll_once(call.as_mut()).is_pending());
        assert_eq!(service.calls(), attempts, "at {now} ms");
    }
    executor.0.set(at(8_000));
    let Poll::Ready(Err(failure)) = poll_once(call.as_mut()) else { unreachable!("its time is over") };
    assert!(failure.is_timed_out() && service.in_flight() == 0, "{failure}");
}

/// Gives what lies within a deadline.
struct Until(Instant);

impl Part for Until {
    const ROLE: Role = Role::Timeout;

    fn describe(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl<T, E, X: Executor> Layer<T, E, X> for Until {
    type State<I> = I;

    fn idle<I>(&self, inner: I) -> I {
        inner
    }

    fn poll<N: Next<T, E, X>>(
        &self,
        state: Pin<&mut N::State>,
        next: &mut N,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        next.poll(state, scope.with_deadline(scope.deadline().and_at(self.0)), cx)
    }

    fn reset<N: Next<T, E, X>>(&self, state: Pin<&mut N::State>, next: &mut N, executor: &X) {
        next.reset(state, executor);
    }
}

#[test]
fn a_deadline_at_the_first_instant_or_the_last_but_one_is_an_ordinary_one() {
    let (nanos, last) = (Instant::from_nanos, u64::MAX - 1);
    for (deadline, now, over) in [
        (0, 0, true),
        (0, 5, true),
        (1, 0, false),
        (1, 1, true),
        (last, last - 1, false),
        (last, last, true),
        (last, u64::MAX, true),
        // The one that is never.
        (u64::MAX, u64::MAX, false),
    ] {
        let rig = Rig::new();
        rig.set(nanos(now));
        let mut sleep = pin!(None);
        let polled = poll_deadline(sleep.as_mut(), nanos(deadline), &&rig, &mut Context::from_waker(Waker::noop()));
        assert_eq!(polled.is_ready(), over, "{deadline} at {now}");
        // And for a policy within: a retry that would come a nanosecond later.
        let rig = Rig::new();
        rig.set(nanos(now));
        let backoff = Backoff::constant(Duration::from_nanos(1)).with_jitter(Jitter::None);
        let retry = retry::Config::new().with_max_attempts(2).with_backoff(backoff).validate().expect("it makes sense");
        let pipeline = Pipeline::new(&rig).layer(Until(nanos(deadline))).layer(RetryPolicy::new(retry));
        let failure = rig.run(pipeline.call(async |_| Err::<(), _>(()))).expect_err("it always fails");
        let stop = if now.saturating_add(1) >= deadline { Stop::Deadline } else { Stop::Attempts };
        assert_eq!(failure.stop, Some(stop), "{deadline} at {now}");
    }
}
