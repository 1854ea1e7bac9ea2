use std::vec::Vec;

use super::*;
use crate::backoff::Jitter;
use crate::bulkhead::{self, Bulkhead};
use crate::cell::Local;
use crate::circuit_breaker::{self, CircuitBreaker};
use crate::failure::{Policy, Reason};
use crate::testing::tests::{Rig, at, ms, poll_once};
use crate::testing::{Recorder, Script, Scripted, Step, VirtualExecutor, never};
use crate::timeout::Timeout;
use crate::{Pipeline, valid};

mod faults;

type Observed<'r> = RetryPolicy<&'r Recorder<Retrying, 16>>;

/// 10 ms, 20 ms, 40 ms, …, and three attempts.
const PLAIN: Config = Config::new().with_backoff(Backoff::exponential(ms(10)).with_jitter(Jitter::None));

fn policy(config: Config) -> RetryPolicy {
    RetryPolicy::new(config.validate().expect("it makes sense"))
}

fn watched<'r>(config: Config, events: &'r Recorder<Retrying, 16>) -> Observed<'r> {
    RetryPolicy::with_observer(config.validate().expect("it makes sense"), events)
}

/// How a call ended, after how many calls of the service, and when.
type Ending = (Result<u32, (u32, u32, Option<Stop>)>, u32, Duration);

/// What came of a call under this policy.
fn run(config: Config, steps: &[Step]) -> Ending {
    let (rig, service) = (Rig::new(), Script::new(steps));
    let pipeline = Pipeline::new(&rig).layer(policy(config));
    let result = rig.run(pipeline.call(|_| service.call(&rig)));
    assert_eq!((rig.live(), service.in_flight()), (0, 0));
    let result = result.map_err(|failure| {
        (failure.inner().map_or(0, |scripted: &Scripted| scripted.call), failure.attempts, failure.stop)
    });
    (result, service.calls(), rig.elapsed())
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused() {
    let field = |config: Config| config.validate().err().map(|error| error.field());
    assert_eq!(field(Config::new()), None);
    assert_eq!(field(PLAIN.with_max_attempts(0)), Some("max_attempts"));
    assert_eq!(field(PLAIN.with_total_time(Duration::ZERO)), Some("total_time"));
    assert_eq!(field(PLAIN.with_backoff(Backoff::constant(Duration::ZERO))), Some("base"));
}

#[test]
fn it_stops_at_the_limit_of_attempts_with_the_last_error() {
    for (limit, elapsed) in [(1, 0), (2, 10), (3, 30), (5, 150)] {
        let expected = (Err((limit, limit, Some(Stop::Attempts))), limit, ms(elapsed));
        assert_eq!(run(PLAIN.with_max_attempts(limit), &[Step::Fail]), expected);
    }
}

#[test]
fn without_a_limit_of_attempts_it_goes_on_until_it_works() {
    let steps: Vec<_> = (0..1_000).map(|_| Step::Fail).chain([Step::Succeed]).collect();
    let config = PLAIN.with_max_attempts(u32::MAX).with_backoff(Backoff::constant(ms(1)).with_jitter(Jitter::None));
    assert_eq!(run(config, &steps), (Ok(1_001), 1_001, Duration::from_secs(1)));
}

#[test]
fn a_million_attempts_without_delay_need_no_stack() {
    let config = PLAIN.with_max_attempts(1_000_000).with_backoff(Backoff::none());
    let expected = (Err((1_000_000, 1_000_000, Some(Stop::Attempts))), 1_000_000, Duration::ZERO);
    assert_eq!(run(config, &[Step::Fail]), expected);
}

#[test]
fn the_attempts_saturate() {
    let policy = policy(PLAIN.with_max_attempts(u32::MAX));
    let decision = policy.decide(u32::MAX, Verdict::TRANSIENT, Duration::MAX, 0, at(0), Instant::MAX);
    assert_eq!(decision, Decision::RetryAfter(Duration::from_secs(60)));
}

#[test]
fn the_delays_are_exactly_those_configured() {
    static TABLE: [Duration; 3] = [ms(7), ms(1), ms(3)];
    let none = Jitter::None;
    let shapes = [
        (Backoff::none(), [0, 0, 0, 0]),
        (Backoff::constant(ms(10)).with_jitter(none), [10, 20, 30, 40]),
        (Backoff::linear(ms(10)).with_jitter(none), [10, 30, 60, 100]),
        (Backoff::exponential(ms(10)).with_jitter(none), [10, 30, 70, 150]),
        (Backoff::exponential(ms(10)).with_jitter(none).with_cap(ms(25)), [10, 30, 55, 80]),
        (Backoff::fibonacci(ms(10)).with_jitter(none), [10, 20, 40, 70]),
        (Backoff::table(&TABLE), [7, 8, 11, 14]),
    ];
    for (backoff, expected) in shapes {
        let (rig, events) = (Rig::new(), Recorder::new());
        let pipeline = Pipeline::new(&rig).layer(watched(PLAIN.with_backoff(backoff).with_max_attempts(5), &events));
        assert!(rig.run(pipeline.call(async |_| Err::<(), _>(()))).is_err());
        let starts: Vec<_> = events.take().map(|event| event.at).collect();
        assert_eq!(starts, expected.map(at), "{backoff:?}");
    }
}

#[test]
fn each_retry_is_told_of_before_its_delay() {
    let (rig, events) = (Rig::new(), Recorder::new());
    let service = Script::new(&[Step::Fail, Step::Fail, Step::Succeed]);
    let pipeline = Pipeline::new(&rig).layer(watched(PLAIN, &events));
    let mut call = core::pin::pin!(pipeline.call(|_| service.call(&rig)));
    for (attempt, resumes) in [(1, 10), (2, 30)] {
        assert!(poll_once(call.as_mut()).is_pending());
        assert_eq!(events.take().collect::<Vec<_>>(), [Retrying { attempt, at: at(resumes) }]);
        assert!(poll_once(call.as_mut()).is_pending());
        assert_eq!((events.take().count(), service.calls()), (0, attempt), "a poll too many changes nothing");
        assert!(rig.jump());
    }
    assert_eq!(poll_once(call.as_mut()), Poll::Ready(Ok(3)));
    assert_eq!(events.take().count(), 0);
}

#[test]
fn giving_up_is_not_told_of_as_a_retry() {
    let (rig, events) = (Rig::new(), Recorder::new());
    let pipeline = Pipeline::new(&rig).layer(watched(PLAIN.with_max_attempts(1), &events));
    assert!(rig.run(pipeline.call(async |_| Err::<(), _>(()))).is_err());
    assert_eq!((events.take().count(), rig.sleeps()), (0, 0));
}

/// Runs with a classifier that asks to come back after `hint`, and says when it ended and why.
fn run_with_hint(config: Config, hint: Duration) -> (Option<Stop>, u32, Duration) {
    let rig = Rig::new();
    let pipeline = Pipeline::new(&rig).layer(policy(config)).classify(move |result: Result<&(), &()>| match result {
        Ok(()) => Verdict::SUCCESS,
        Err(()) => Verdict::TRANSIENT.with_retry_after(hint),
    });
    let failure = rig.run(pipeline.call(async |_| Err(()))).expect_err("it always fails");
    (failure.stop, failure.attempts, rig.elapsed())
}

#[test]
fn a_servers_hint_replaces_a_shorter_delay_and_no_longer_one() {
    for (hint, elapsed) in [(0, 10 + 20), (5, 10 + 20), (15, 15 + 20), (1_000, 2_000)] {
        assert_eq!(run_with_hint(PLAIN, ms(hint)), (Some(Stop::Attempts), 3, ms(elapsed)), "{hint} ms");
    }
}

#[test]
fn a_hint_beyond_the_deadline_ends_the_retry_at_once() {
    let config = PLAIN.with_total_time(ms(100));
    assert_eq!(run_with_hint(config, ms(99)), (Some(Stop::Deadline), 2, ms(99)));
    assert_eq!(run_with_hint(config, ms(100)), (Some(Stop::Deadline), 1, ms(0)));
    assert_eq!(run_with_hint(config, Duration::MAX), (Some(Stop::Attempts), 3, ms(30)), "that is none");
    let ages = Duration::from_nanos(u64::MAX - 1);
    assert_eq!(run_with_hint(config, ages), (Some(Stop::Deadline), 1, ms(0)));
    assert_eq!(run_with_hint(PLAIN, ages), (Some(Stop::Deadline), 2, ages), "without a deadline it waits that long");
}

#[test]
fn no_sleep_outlasts_the_total_time() {
    for (total, attempts, elapsed) in [(10, 1, 0), (11, 2, 10), (30, 2, 10), (31, 3, 30)] {
        let config = PLAIN.with_max_attempts(9).with_total_time(ms(total));
        assert_eq!(run(config, &[Step::Fail]).0, Err((attempts, attempts, Some(Stop::Deadline))), "{total} ms");
        assert_eq!(run(config, &[Step::Fail]).2, ms(elapsed), "{total} ms");
    }
}

#[test]
fn the_total_time_counts_the_attempts_too() {
    let config = PLAIN.with_max_attempts(9).with_total_time(ms(100));
    // 40 of work, 10 of delay, 40 of work: no room for a delay of 20.
    assert_eq!(run(config, &[Step::FailAfter(ms(40))]), (Err((2, 2, Some(Stop::Deadline))), 2, ms(90)));
}

#[test]
fn an_attempt_under_way_is_not_cut_short_by_the_total_time() {
    let config = PLAIN.with_total_time(ms(20));
    assert_eq!(run(config, &[Step::SucceedAfter(ms(50))]), (Ok(1), 1, ms(50)));
    assert_eq!(run(config, &[Step::FailAfter(ms(50))]), (Err((1, 1, Some(Stop::Deadline))), 1, ms(50)));
}

#[test]
fn no_sleep_outlasts_the_deadline_of_a_timeout_around_it() {
    for (step, limit, attempts, elapsed) in [
        (Step::Fail, 30, 2, 10),
        (Step::Fail, 31, 3, 30),
        (Step::FailAfter(ms(10)), 30, 1 + 1, 30),
        (Step::FailAfter(ms(10)), 50, 2, 30),
    ] {
        let (rig, steps) = (Rig::new(), [step]);
        let service = Script::new(&steps);
        let pipeline = Pipeline::new(&rig).layer(Timeout::new(ms(limit))).layer(policy(PLAIN.with_max_attempts(9)));
        let failure = rig.run(pipeline.call(|_| service.call(&rig))).expect_err("it always fails");
        assert_eq!((failure.stop, failure.attempts), (Some(Stop::Deadline), attempts), "{step:?}, {limit} ms");
        assert_eq!((rig.elapsed(), rig.live()), (ms(elapsed), 0), "{step:?}, {limit} ms");
        assert_eq!(failure.inner().map(|scripted| scripted.call), Some(attempts), "the last error");
    }
}

#[test]
fn a_sleep_that_ends_after_the_deadline_gives_the_last_error_and_no_further_attempt() {
    let (rig, service) = (Rig::new(), Script::new(&[Step::Fail]));
    let pipeline = Pipeline::new(&rig).layer(policy(PLAIN.with_total_time(ms(15))));
    rig.stall(ms(5));
    let failure = rig.run(pipeline.call(|_| service.call(&rig))).expect_err("it always fails");
    assert_eq!((failure.stop, failure.attempts), (Some(Stop::Deadline), 1));
    assert_eq!(failure.inner(), Some(&Scripted { call: 1 }));
    assert_eq!((service.calls(), rig.elapsed()), (1, ms(15)));
}

#[test]
fn a_sleep_that_ends_after_the_deadline_of_a_timeout_around_it_gives_the_last_error_too() {
    let (rig, service) = (Rig::new(), Script::new(&[Step::Fail]));
    let pipeline = Pipeline::new(&rig).layer(Timeout::new(ms(15))).layer(policy(PLAIN));
    rig.stall(ms(20));
    let failure = rig.run(pipeline.call(|_| service.call(&rig))).expect_err("it always fails");
    assert_eq!((failure.stop, failure.attempts), (Some(Stop::Deadline), 1));
    assert_eq!((failure.inner(), service.calls()), (Some(&Scripted { call: 1 }), 1));
}

#[test]
fn a_sleep_that_ends_late_but_in_time_is_not_made_up_for() {
    let (rig, events) = (Rig::new(), Recorder::new());
    let pipeline = Pipeline::new(&rig).layer(watched(PLAIN, &events));
    rig.stall(Duration::from_secs(10));
    assert!(rig.run(pipeline.call(async |_| Err::<(), _>(()))).is_err());
    let starts: Vec<_> = events.take().map(|event| event.at).collect();
    assert_eq!(starts, [at(10), at(10 + 10_000 + 20)], "the second delay is as long as ever");
}

#[test]
fn a_sleep_that_ends_early_is_slept_to_its_end() {
    let rig = Rig::new();
    let pipeline = Pipeline::new(&rig).layer(policy(PLAIN.with_max_attempts(2)));
    rig.fire_early(ms(9));
    assert!(rig.run(pipeline.call(async |_| Err::<(), _>(()))).is_err());
    assert_eq!((rig.elapsed(), rig.sleeps()), (ms(10), 2));
}

#[test]
fn a_clock_that_steps_back_only_prolongs_the_delay() {
    let (rig, service) = (Rig::new(), Script::new(&[Step::Fail, Step::Succeed]));
    rig.set(at(1_000));
    let pipeline = Pipeline::new(&rig).layer(policy(PLAIN.with_total_time(ms(50))));
    let mut call = core::pin::pin!(pipeline.call(|_| service.call(&rig)));
    assert!(poll_once(call.as_mut()).is_pending());
    rig.set(at(0));
    assert!(poll_once(call.as_mut()).is_pending());
    assert_eq!(rig.run(call), Ok(2));
    assert_eq!(rig.elapsed(), ms(1_010));
}

#[test]
fn near_the_end_of_time_it_gives_up_instead_of_overflowing() {
    let rig = Rig::new();
    rig.set(Instant::from_nanos(u64::MAX - 1));
    let pipeline = Pipeline::new(&rig).layer(policy(PLAIN.with_max_attempts(u32::MAX)));
    let failure = rig.run(pipeline.call(async |_| Err::<(), _>(()))).expect_err("it always fails");
    assert_eq!((failure.stop, failure.attempts), (Some(Stop::Deadline), 1));
}

#[test]
fn a_permanent_or_ignored_error_is_not_retried() {
    for verdict in [Verdict::PERMANENT, Verdict::IGNORED] {
        let rig = Rig::new();
        let pipeline = Pipeline::new(&rig).layer(policy(PLAIN)).classify(move |_: Result<&(), &&str>| verdict);
        let failure = rig.run(pipeline.call(async |_| Err("no"))).expect_err("it fails");
        assert_eq!((failure.stop, failure.attempts), (Some(Stop::NotRetryable), 1));
        assert_eq!((failure.inner(), rig.reads(), rig.sleeps()), (Some(&"no"), 0, 0));
    }
}

#[test]
fn an_ignored_error_is_retried_where_the_classifier_says_so() {
    let rig = Rig::new();
    let again = Verdict::IGNORED.with_retryable(true);
    let pipeline = Pipeline::new(&rig).layer(policy(PLAIN)).classify(move |_: Result<&(), &()>| again);
    let failure = rig.run(pipeline.call(async |_| Err(()))).expect_err("it fails");
    assert_eq!((failure.stop, failure.attempts), (Some(Stop::Attempts), 3));
}

#[test]
fn an_ok_that_counts_as_a_failure_is_retried_and_at_last_returned_as_ok() {
    let rig = Rig::new();
    let mut calls = 0;
    let busy = |result: Result<&u32, &()>| match result {
        Ok(503) => Verdict::TRANSIENT,
        Ok(_) => Verdict::SUCCESS,
        Err(()) => Verdict::PERMANENT,
    };
    let pipeline = Pipeline::new(&rig).layer(policy(PLAIN)).classify(busy);
    let answer = rig.run(pipeline.call(|_| {
        calls += 1;
        core::future::ready(Ok(503))
    }));
    assert_eq!((answer, calls, rig.elapsed()), (Ok(503), 3, ms(30)));
    let answer = rig.run(pipeline.call(async |attempt| Ok(if attempt.number() < 2 { 503 } else { 200 })));
    assert_eq!(answer, Ok(200));
}

#[test]
fn an_ignored_ok_is_an_answer() {
    let rig = Rig::new();
    let pipeline = Pipeline::new(&rig).layer(policy(PLAIN)).classify(|_: Result<&u32, &()>| Verdict::IGNORED);
    assert_eq!(rig.run(pipeline.call(async |_| Ok(404))), Ok(404));
    assert_eq!(rig.sleeps(), 0);
}

#[test]
fn a_timed_out_attempt_is_retried() {
    let rig = Rig::new();
    let service = Script::new(&[Step::Hang, Step::Hang, Step::Succeed]);
    let pipeline = Pipeline::new(&rig).layer(policy(PLAIN)).layer(Timeout::new(ms(50)));
    assert_eq!(rig.run(pipeline.call(|_| service.call(&rig))), Ok(3));
    assert_eq!((rig.elapsed(), service.in_flight()), (ms(50 + 10 + 50 + 20), 0));
}

/// The numbers of the attempts of an inner retry within an outer one, when the second of each round hangs or fails.
fn inner_attempts(inner: Config, limit: Duration, hangs: bool) -> Vec<u32> {
    let rig = Rig::new();
    let mut seen = Vec::new();
    let pipeline =
        Pipeline::new(&rig).layer(policy(PLAIN)).layer(Timeout::new(limit)).layer_in_any_order(policy(inner));
    let result = rig.run(pipeline.call(|attempt| {
        seen.push(attempt.number());
        async move {
            if hangs && attempt.number() == 2 {
                return never().await;
            }
            Err::<(), _>(())
        }
    }));
    assert_eq!(result.map_err(|failure| failure.attempts), Err(3));
    seen
}

#[test]
fn a_retry_that_was_cut_short_starts_afresh() {
    assert_eq!(inner_attempts(PLAIN, ms(15), true), [1, 2, 1, 2, 1, 2]);
}

#[test]
fn a_retry_that_gave_up_starts_afresh_with_a_total_time_of_its_own() {
    assert_eq!(inner_attempts(PLAIN.with_total_time(ms(25)), Duration::MAX, false), [1, 2, 1, 2, 1, 2]);
}

#[test]
fn a_retry_that_succeeded_starts_afresh() {
    let rig = Rig::new();
    let mut seen = Vec::new();
    let pipeline = Pipeline::new(&rig).layer(policy(PLAIN));
    let mut call = std::boxed::Box::pin(pipeline.call(|attempt| {
        seen.push(attempt.number());
        core::future::ready(if attempt.number() == 2 { Ok(()) } else { Err(()) })
    }));
    for _ in 0..2 {
        assert_eq!(rig.run(call.as_mut()), Ok(()));
    }
    drop(call);
    assert_eq!(seen, [1, 2, 1, 2]);
}

fn open_until(until: Instant) -> CircuitBreaker<Local> {
    let breaker = CircuitBreaker::new(valid!(circuit_breaker::Config::new().validate()));
    breaker.open_until(until);
    breaker
}

#[test]
fn the_rejections_of_ones_own_policies_are_not_retried() {
    let (rig, breaker) = (Rig::new(), open_until(at(5)));
    let pipeline = Pipeline::new(&rig).layer(policy(PLAIN)).layer(&breaker);
    let failure = rig.run(pipeline.call(async |_| Ok::<(), ()>(()))).expect_err("it is open");
    let rejected = failure.rejected().expect("it is a rejection");
    assert_eq!((rejected.policy(), rejected.reason()), (Policy::CircuitBreaker, Reason::Open));
    assert_eq!((failure.stop, failure.attempts, rig.sleeps()), (Some(Stop::Rejected), 1, 0));
}

#[test]
fn rejections_are_retried_on_demand_and_not_before_the_time_they_name() {
    for (opens, starts) in [(5, 10), (10, 10), (700, 700)] {
        let (rig, breaker) = (Rig::new(), open_until(at(opens)));
        let pipeline = Pipeline::new(&rig).layer(policy(PLAIN.with_rejections())).layer(&breaker);
        assert_eq!(rig.run(pipeline.call(async |attempt| Ok::<_, ()>(attempt.number()))), Ok(2));
        assert_eq!((rig.elapsed(), breaker.snapshot(&rig).probes), (ms(starts), 0), "open until {opens} ms");
    }
}

#[test]
fn a_rejection_that_names_a_time_beyond_the_deadline_ends_the_retry_at_once() {
    let (rig, breaker) = (Rig::new(), open_until(at(100)));
    let config = PLAIN.with_rejections().with_total_time(ms(100));
    let pipeline = Pipeline::new(&rig).layer(policy(config)).layer(&breaker);
    let failure = rig.run(pipeline.call(async |_| Ok::<(), ()>(()))).expect_err("it is open");
    assert_eq!((failure.stop, failure.attempts, rig.elapsed()), (Some(Stop::Deadline), 1, ms(0)));
    assert!(failure.is_rejected());
}

#[test]
fn a_rejection_that_names_no_time_is_retried_after_the_usual_delay() {
    let rig = Rig::new();
    let bulkhead: Bulkhead<Local> = Bulkhead::new(valid!(bulkhead::Config::new(1).validate()));
    let _held = bulkhead.try_acquire();
    for (config, stop, attempts) in [(PLAIN, Stop::Rejected, 1), (PLAIN.with_rejections(), Stop::Attempts, 3)] {
        let pipeline = Pipeline::new(&rig).layer(policy(config)).layer(&bulkhead);
        let failure = rig.run(pipeline.call(async |_| Ok::<(), ()>(()))).expect_err("it is full");
        assert_eq!(failure.rejected().map(|rejected| rejected.reason()), Some(Reason::Full));
        assert_eq!((failure.stop, failure.attempts), (Some(stop), attempts));
    }
    assert_eq!(rig.elapsed(), ms(30));
}

#[test]
fn asked_to_retry_rejections_it_still_does_not_retry_permanent_errors() {
    let rig = Rig::new();
    let pipeline =
        Pipeline::new(&rig).layer(policy(PLAIN.with_rejections())).classify(|_: Result<&(), &()>| Verdict::PERMANENT);
    let failure = rig.run(pipeline.call(async |_| Err(()))).expect_err("it fails");
    assert_eq!(failure.stop, Some(Stop::NotRetryable));
}

/// When each of ten retries starts.
fn jittered(seed: u64, jitter: Jitter) -> Vec<Instant> {
    let (executor, events) = (VirtualExecutor::<4>::seeded(seed), Recorder::new());
    let backoff = Backoff::constant(ms(100)).with_cap(ms(400)).with_jitter(jitter);
    let pipeline = Pipeline::new(&executor).layer(watched(PLAIN.with_max_attempts(11).with_backoff(backoff), &events));
    let result = executor.run(pipeline.call(async |_| Err::<(), _>(()))).expect("it ends");
    assert_eq!(result.map_err(|failure| failure.attempts), Err(11));
    events.take().map(|event| event.at).collect()
}

#[test]
fn a_jittered_run_repeats_with_its_seed_and_differs_with_another() {
    for jitter in [crate::backoff::JITTER, Jitter::Full, Jitter::Equal, Jitter::Decorrelated] {
        assert_eq!(jittered(1, jitter), jittered(1, jitter), "{jitter:?}");
        assert_ne!(jittered(1, jitter), jittered(2, jitter), "{jitter:?}");
    }
}

#[test]
fn a_decorrelated_delay_follows_from_the_one_before() {
    let starts = jittered(3, Jitter::Decorrelated);
    let delays: Vec<_> =
        [at(0)].iter().chain(&starts).zip(&starts).map(|(a, b)| b.saturating_duration_since(*a)).collect();
    assert!(delays.iter().all(|delay| (ms(100)..=ms(400)).contains(delay)), "{delays:?}");
    assert!(delays.windows(2).all(|pair| pair[1] <= pair[0] * 3), "{delays:?}");
    assert!(delays.iter().any(|delay| *delay > ms(300)), "it grows beyond three times the base: {delays:?}");
}

#[test]
fn each_event_follows_from_attempt_and_verdict_as_the_driver_decides() {
    let policy = policy(PLAIN);
    let decide = |attempt, verdict, deadline| policy.decide(attempt, verdict, Duration::ZERO, 0, at(0), deadline);
    let (retry, stop) = (|delay| Decision::RetryAfter(ms(delay)), Decision::Stop);
    assert_eq!(decide(1, Verdict::TRANSIENT, Instant::MAX), retry(10));
    assert_eq!(decide(2, Verdict::TRANSIENT, Instant::MAX), retry(20));
    assert_eq!(decide(3, Verdict::TRANSIENT, Instant::MAX), stop(Stop::Attempts));
    assert_eq!(decide(1, Verdict::PERMANENT, Instant::MAX), stop(Stop::NotRetryable));
    assert_eq!(decide(1, Verdict::SUCCESS, Instant::MAX), stop(Stop::NotRetryable));
    assert_eq!(decide(1, Verdict::TRANSIENT, at(10)), stop(Stop::Deadline));
    assert_eq!(decide(1, Verdict::TRANSIENT, at(11)), retry(10));
    assert_eq!(decide(1, Verdict::TRANSIENT.with_retry_after(ms(50)), Instant::MAX), retry(50));
}

#[test]
fn a_dropped_call_leaves_no_timer_wherever_it_was() {
    let steps = [Step::FailAfter(ms(5))];
    for polls in 0..6 {
        let (rig, service) = (Rig::new(), Script::new(&steps));
        let pipeline = Pipeline::new(&rig).layer(policy(PLAIN));
        let mut call = std::boxed::Box::pin(pipeline.call(|_| service.call(&rig)));
        for _ in 0..polls {
            let _ = poll_once(call.as_mut());
            rig.jump();
        }
        drop(call);
        assert_eq!((rig.live(), service.in_flight()), (0, 0), "after {polls} polls");
    }
}

#[test]
fn a_policy_and_its_progress_within_a_call_are_a_few_words() {
    assert_eq!((size_of::<Config>(), size_of::<RetryPolicy>()), (64, 64));
    // Sleep and inside are of no size here.
    assert_eq!(size_of::<RetryState<u32, (), (), (), ()>>(), 104);
}

#[test]
fn when_a_further_attempt_is_rejected_the_caller_gets_the_error_of_the_last_one_made() {
    let rig = Rig::new();
    let config = valid!(
        circuit_breaker::Config::new().with_trip(valid!(circuit_breaker::ConsecutiveFailures::new(2))).validate()
    );
    let breaker = CircuitBreaker::<Local>::new(config);
    let service = Script::new(&[Step::Fail]);
    let pipeline = Pipeline::new(&rig).layer(policy(PLAIN.with_max_attempts(5))).layer(&breaker);
    let failure = rig.run(pipeline.call(|_| service.call(&rig))).expect_err("it fails");
    assert_eq!((failure.attempts, failure.stop, service.calls()), (2, Some(Stop::Rejected), 2));
    assert_eq!(failure.into_inner(), Some(Scripted { call: 2 }));
    // With no attempt made there is nothing but the rejection to tell.
    let failure = rig.run(pipeline.call(|_| service.call(&rig))).expect_err("it is rejected");
    assert_eq!((failure.attempts, failure.is_rejected()), (1, true));
}

#[test]
fn the_error_of_the_dependency_survives_rejections_that_were_retried() {
    let rig = Rig::new();
    let trip = valid!(circuit_breaker::ConsecutiveFailures::new(1));
    let config = circuit_breaker::Config::new().with_trip(trip).validate().expect("it makes sense");
    let breaker = CircuitBreaker::<Local>::new(config);
    let service = Script::new(&[Step::Fail]);
    let pipeline = Pipeline::new(&rig).layer(policy(PLAIN.with_rejections().with_total_time(ms(10)))).layer(&breaker);
    let failure = rig.run(pipeline.call(|_| service.call(&rig))).expect_err("it fails");
    assert_eq!((failure.stop, service.calls()), (Some(Stop::Deadline), 1), "open for a minute");
    assert_eq!(failure.into_inner(), Some(Scripted { call: 1 }));
}

#[test]
fn without_a_delay_the_next_attempt_follows_without_a_timer() {
    let rig = Rig::new();
    let service = Script::new(&[Step::Fail, Step::Fail, Step::Succeed]);
    let pipeline = Pipeline::new(&rig).layer(policy(PLAIN.with_backoff(Backoff::none())));
    assert_eq!(rig.run(pipeline.call(|_| service.call(&rig))), Ok(3));
    assert_eq!(rig.sleeps(), 0);
}
