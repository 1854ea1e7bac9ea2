#![allow(clippy::arithmetic_side_effects, reason = "tests")]

use core::cell::{Cell, RefCell};
use core::future::{Ready, ready};
use core::pin::pin;
use core::time::Duration;
use std::string::ToString;
use std::thread;
use std::vec::Vec;

use super::*;
use crate::backoff::{Backoff, Jitter};
use crate::cell::{Live, Local};
use crate::circuit_breaker::{self, CircuitBreaker, StateKind};
use crate::executor::Executor as _;
use crate::failure::{Cause, Failure, Stop};
use crate::outcome::{Classify, ErrIsFailure, Verdict};
use crate::pipeline::{Layer, Pipeline};
use crate::retry::{self, RetryPolicy};
use crate::testing::tests::{Rig, Threaded, at, explode, explodes, ms, poll_once};
use crate::testing::{Recorder, Script, Scripted, Step, VirtualExecutor, never};
use crate::time::{Clock as _, Instant};
use crate::timeout::Timeout;
use crate::valid;

const SEED: u64 = 0x5EED;
/// The calls among the first 200 that are hit at 10 %. Worked out by another program: a promise, as is all that follows from a seed.
const HIT: [u32; 15] = [36, 54, 56, 79, 93, 97, 109, 141, 145, 150, 157, 168, 180, 188, 189];
/// The numbers drawn for the first five of them.
const DRAWN: [u32; 5] = [3_407_919_521, 1_126_188_269, 3_465_390_921, 2_601_349_436, 640_287_693];

/// Every call is hit.
const ALWAYS: Valid<Config> = valid!(Config::new(SEED).with_rate(Ratio::ONE).validate());
const NEVER: Valid<Config> = valid!(Config::new(SEED).with_rate(Ratio::ZERO).validate());
const TENTH: Valid<Config> = valid!(Config::new(SEED).with_rate(Ratio::percent(10)).validate());

/// Chaos of which only the plan is looked at.
type Planned<K> = Chaos<K, Latency>;

fn planned<K: CellKind<Progress>>(config: Valid<Config>) -> Planned<K> {
    Chaos::new(config, Latency::new(Duration::ZERO))
}

/// The numbers of the calls that are hit, of the next so many.
fn hits<K: CellKind<Progress>>(chaos: &Planned<K>, calls: u32) -> Vec<u32> {
    (0..calls).filter_map(|_| chaos.next_call()).map(|hit| hit.call).collect()
}

/// The plan, asked from outside.
fn plan(rate: Ratio, calls: core::ops::RangeInclusive<u32>) -> Vec<u32> {
    calls.filter(|&call| Plan::new(SEED).hit(call, rate).is_some()).collect()
}

#[test]
fn the_plan_is_the_same_in_every_cell_and_in_every_version() {
    assert_eq!(hits(&planned::<Local>(TENTH), 200), HIT);
    assert_eq!(hits(&planned::<Live<Local>>(TENTH), 200), HIT);
    assert_eq!(hits(&planned::<Threaded>(TENTH), 200), HIT);
    #[cfg(feature = "critical-section")]
    assert_eq!(hits(&planned::<crate::cell::CriticalSection>(TENTH), 200), HIT);
    let drawn = HIT.iter().filter_map(|&call| Plan::new(SEED).hit(call, Ratio::percent(10)));
    assert!(drawn.map(|hit| hit.random).take(5).eq(DRAWN));
}

#[test]
fn a_plan_is_a_function_of_seed_number_and_rate_whatever_came_before() {
    let chaos = planned::<Local>(TENTH);
    let rates = [30, 0, 100, 1, 10].map(Ratio::percent);
    for (first, rate) in (1..).step_by(100).zip(rates) {
        assert_eq!(chaos.set_rate(rate), Ok(()));
        assert_eq!(hits(&chaos, 100), plan(rate, first..=first + 99), "{rate} from call {first}");
    }
}

#[test]
fn a_higher_rate_hits_the_same_calls_and_others_and_draws_the_same_for_them() {
    for call in 0..10_000 {
        let hit = |percent| Plan::new(SEED).hit(call, Ratio::percent(percent));
        let lowest = (0..=100).find(|&percent| hit(percent).is_some()).expect("all are hit at 100 %");
        assert!(lowest > 0 && (lowest..=100).all(|percent| hit(percent) == hit(100)), "call {call}");
    }
}

#[test]
fn the_share_of_the_calls_that_is_hit_is_the_rate() {
    const CALLS: u32 = 100_000;
    for seed in [0, 1, 2, 7, u64::MAX, 1 << 32, SEED] {
        for points in [10, 100, 1_000, 5_000, 9_990] {
            let rate = Ratio::basis_points(points);
            let hit = (1..=CALLS).filter(|&call| Plan::new(seed).hit(call, rate).is_some()).count();
            // Binomial: the expectation, and six standard deviations.
            let (hit, expected) = (i64::try_from(hit).expect("it fits"), i64::from(points) * 10);
            let variance = expected * (10_000 - i64::from(points)) / 10_000;
            assert!((hit - expected).pow(2) < 36 * variance, "seed {seed}, {rate}: {hit}");
        }
    }
}

#[test]
fn what_is_drawn_for_a_hit_is_spread_evenly_and_knows_nothing_of_the_plan() {
    // Of the calls that are hit at 1 %, all have a low number in the sequence that decides.
    for seed in [0, 1, SEED, u64::MAX] {
        let mut bins = [0_u32; 10];
        for hit in (0..=1_000_000).filter_map(|call| Plan::new(seed).hit(call, Ratio::percent(1))) {
            bins[usize::try_from(share(10, hit.random)).expect("below ten")] += 1;
        }
        let expected = bins.iter().sum::<u32>() / 10;
        assert!(expected > 900, "{bins:?}");
        // chi-square with 9 degrees of freedom: 27.9 is the 0.1 % point
        let chi: u64 = bins.iter().map(|&n| u64::from(n.abs_diff(expected)).pow(2)).sum::<u64>() / u64::from(expected);
        assert!(chi < 28, "seed {seed}: {bins:?}");
    }
}

#[test]
fn two_plans_hit_the_same_call_no_more_often_than_chance_has_it() {
    let hit = |seed, call| Plan::new(seed).hit(call, Ratio::percent(10)).is_some();
    for (one, other) in [(0, 1), (1, 2), (SEED, SEED + 1), (1, 1 << 32), (7, !7)] {
        let both = (1..=100_000).filter(|&call| hit(one, call) && hit(other, call)).count();
        // 1,000 expected; six standard deviations.
        assert!(both.abs_diff(1_000) < 190, "seeds {one} and {other}: {both}");
    }
}

#[test]
fn threads_share_one_plan_and_each_number_is_given_once() {
    let chaos = planned::<Threaded>(valid!(Config::new(SEED).with_rate(Ratio::percent(30)).validate()));
    let mut hit: Vec<u32> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| hits(&chaos, 500))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("it does not panic")).collect()
    });
    hit.sort_unstable();
    assert_eq!(hit, plan(Ratio::percent(30), 1..=2_000));
    assert_eq!(chaos.calls(), 2_000);
}

#[test]
fn switched_off_calls_pass_uncounted_and_the_plan_goes_on_where_it_stood() {
    for initially in [true, false] {
        let config = Config::new(SEED).with_rate(Ratio::percent(10)).with_enabled(initially);
        let chaos = planned::<Local>(config.validate().expect("it makes sense"));
        assert_eq!(chaos.is_enabled(), initially);
        chaos.set_enabled(true);
        assert_eq!(hits(&chaos, 100), HIT[..6]);
        chaos.set_enabled(false);
        chaos.set_enabled(false);
        assert_eq!((hits(&chaos, 1_000), chaos.calls(), chaos.is_enabled()), (Vec::new(), 100, false));
        chaos.set_enabled(true);
        assert_eq!(hits(&chaos, 100), HIT[6..]);
    }
}

#[test]
fn begun_again_a_plan_is_the_same_and_what_was_set_stays() {
    let chaos = planned::<Local>(NEVER);
    assert_eq!((hits(&chaos, 77), chaos.calls()), (Vec::new(), 77), "counted all the same");
    chaos.set_rate(Ratio::percent(10)).expect("it is a share");
    chaos.restart();
    assert_eq!((chaos.calls(), chaos.rate(), chaos.is_enabled()), (0, Ratio::percent(10), true));
    assert_eq!(hits(&chaos, 200), HIT);
}

#[test]
fn a_rate_above_one_is_refused_and_the_old_one_stays() {
    let refused = Config::new(1).with_rate(Ratio::basis_points(10_001)).validate().expect_err("above one");
    assert_eq!((refused.field(), refused.problem()), ("rate", "is above 1"));
    let chaos = planned::<Local>(TENTH);
    assert_eq!(chaos.set_rate(Ratio::percent(101)), Err(refused));
    assert_eq!(chaos.rate(), Ratio::percent(10));
    assert_eq!(Config::new(1).rate, RATE);
    assert_eq!(Latency::between(ms(2), ms(1)).expect_err("upside down").field(), "latency");
}

#[test]
fn the_numbers_go_round() {
    let chaos = planned::<Local>(ALWAYS);
    StateCell::update(&chaos.progress, |progress| progress.calls = u32::MAX - 1);
    assert_eq!(hits(&chaos, 4), [u32::MAX, 0, 1, 2]);
}

#[test]
fn the_progress_fits_a_word_and_packs_to_zero_when_fresh() {
    assert_eq!(Progress::FRESH.pack(), (0, 0));
    let mut rng = Rng::new(3);
    for _ in 0..10_000 {
        let (first, set) = (rng.next() % 10_001, rng.next() % 10_001);
        let progress = Progress { calls: rng.next(), rate: first ^ set, toggled: rng.next().is_multiple_of(2) };
        let (head, tail) = progress.pack();
        assert_eq!((head >> 63, tail, Progress::has_tail(head)), (0, 0, false));
        assert_eq!(Progress::unpack(head, tail), progress);
        assert_eq!(progress.rate(&Config::new(1).with_rate(Ratio::basis_points(first))), Ratio::basis_points(set));
    }
    assert_eq!(size_of::<Chaos<Local, Fault<fn(Hit) -> u8>>>(), 40);
}

#[test]
fn a_fault_comes_in_place_of_the_operation_and_knows_its_hit() {
    let (rig, events) = (Rig::new(), Recorder::<Injected, 32>::new());
    let chaos = Chaos::<Local, _, _>::with_observer(TENTH, Fault::new(|hit| hit), &events);
    let pipeline = Pipeline::new(&rig).layer(&chaos);
    let started = Cell::new(0);
    let hit: Vec<_> = (0..200)
        .filter_map(|_| {
            let answer = rig.run(pipeline.call(async |_| {
                started.set(started.get() + 1);
                Ok::<_, Hit>(())
            }));
            answer.err()
        })
        .map(|failure| failure.into_inner().expect("an error like the operation's own"))
        .collect();
    assert!(hit.iter().map(|hit| hit.call).eq(HIT));
    assert!(hit.iter().map(|hit| hit.random).take(5).eq(DRAWN));
    assert_eq!((started.get(), rig.reads(), rig.sleeps()), (185, 0, 0));
    assert!(events.take().eq(HIT.map(|call| Injected { call, kind: Kind::Fault })));
}

#[test]
fn a_breaker_counts_faults_as_the_dependencys() {
    let rig = Rig::new();
    let breaker: CircuitBreaker<Local> = CircuitBreaker::new(valid!(circuit_breaker::Config::new().validate()));
    let chaos = Chaos::<Local, _>::new(ALWAYS, Fault::new(|_| "injected"));
    let pipeline = Pipeline::new(&rig).layer(&breaker).layer(&chaos);
    for _ in 0..5 {
        assert_eq!(breaker.snapshot(&&rig).state, StateKind::Closed);
        assert_eq!(rig.run(pipeline.call(async |_| Ok(()))), Err(Failure::new(Cause::Inner("injected"))));
    }
    assert_eq!(breaker.snapshot(&&rig).state, StateKind::Open);
    assert!(rig.run(pipeline.call(async |_| Ok(()))).expect_err("it is open").is_rejected());
    assert_eq!(chaos.calls(), 5, "what is rejected does not reach it");
}

/// What a classifier of HTTP codes makes of one that is injected, three attempts allowed.
fn attempts_with_code<L>(chaos: L, classify: impl Classify<u16, u16>) -> Failure<u16>
where
    L: for<'r> Layer<u16, u16, &'r Rig>,
{
    let rig = Rig::new();
    let retry = retry::Config::new().with_backoff(Backoff::none()).validate().expect("it makes sense");
    let pipeline = Pipeline::new(&rig).layer(RetryPolicy::new(retry)).layer(chaos).classify(classify);
    match rig.run(pipeline.call(async |_| Err(0))) {
        Ok(code) => Failure { cause: Cause::Inner(code), attempts: 1, stop: None },
        Err(failure) => failure,
    }
}

#[test]
fn the_pipelines_own_classifier_judges_what_is_injected() {
    let fault = |code| Chaos::<Local, _>::new(ALWAYS, Fault::new(move |_| code));
    let by_code = |result: Result<&u16, &u16>| match result {
        Ok(200) => Verdict::SUCCESS,
        Ok(503) | Err(503) => Verdict::TRANSIENT,
        _ => Verdict::PERMANENT,
    };
    let gave_up = |code, attempts, stop| Failure { cause: Cause::Inner(code), attempts, stop };
    assert_eq!(attempts_with_code(fault(404), ErrIsFailure), gave_up(404, 3, Some(Stop::Attempts)));
    assert_eq!(attempts_with_code(fault(404), by_code), gave_up(404, 1, Some(Stop::NotRetryable)));
    assert_eq!(attempts_with_code(fault(503), by_code), gave_up(503, 3, Some(Stop::Attempts)));
    // Through another layer as well.
    let within = Chaos::<Local, _>::new(NEVER, Latency::new(ms(1)));
    let rig = Rig::new();
    let pipeline = Pipeline::new(&rig).layer(fault(404)).layer(within).classify(by_code);
    assert_eq!(rig.run(pipeline.call(async |_| Ok(200))), Err(gave_up(404, 0, None)));
}

#[test]
fn a_fake_is_an_answer_of_either_kind_and_may_count_as_a_failure_though_it_is_ok() {
    let rig = Rig::new();
    let fakes = |hit: Hit| match hit.call {
        1 => Ok(503),
        2 => Err("broken"),
        _ => Ok(200),
    };
    let events = Recorder::<Injected, 4>::new();
    let chaos = Chaos::<Local, _, _>::with_observer(ALWAYS, Fake::new(fakes), &events);
    let retry = RetryPolicy::new(valid!(retry::Config::new().with_backoff(Backoff::none()).validate()));
    let pipeline =
        Pipeline::new(&rig).layer(retry).layer(&chaos).classify(|result: Result<&u16, &&str>| match result {
            Ok(503) | Err(_) => Verdict::TRANSIENT,
            Ok(_) => Verdict::SUCCESS,
        });
    let service = Cell::new(0);
    let answer = rig.run(pipeline.call(async |_| {
        service.set(service.get() + 1);
        Ok(0)
    }));
    assert_eq!((answer, service.get(), chaos.calls()), (Ok(200), 0, 3), "the third attempt");
    assert!(events.take().eq([1, 2, 3].map(|call| Injected { call, kind: Kind::Fake })));
}

#[test]
fn a_latency_delays_the_operation_and_then_it_runs() {
    let (rig, events) = (Rig::new(), Recorder::<Injected, 4>::new());
    let chaos = Chaos::<Local, _, _>::with_observer(ALWAYS, Latency::new(ms(40)), &events);
    let pipeline = Pipeline::new(&rig).layer(&chaos);
    let steps = [Step::SucceedAfter(ms(2)), Step::Fail];
    let service = Script::new(&steps);
    assert_eq!((rig.run(pipeline.call(|_| service.call(&rig))), rig.elapsed()), (Ok(1), ms(42)));
    let failure = Failure::new(Cause::Inner(Scripted { call: 2 }));
    assert_eq!((rig.run(pipeline.call(|_| service.call(&rig))), rig.elapsed()), (Err(failure), ms(82)));
    assert!(events.take().eq([1, 2].map(|call| Injected { call, kind: Kind::Latency(ms(40)) })));
    assert_eq!(rig.live(), 0);
}

#[test]
fn a_latency_of_a_range_is_drawn_by_the_plan() {
    // Worked out by another program, as is the plan.
    const DRAWN_LATENCIES: [u64; 5] = [25_869_362, 15_244_223, 26_136_984, 22_113_477, 12_981_572];
    let (rig, events) = (Rig::new(), Recorder::<Injected, 32>::new());
    let range = Latency::between(ms(10), ms(30)).expect("it is one");
    let chaos = Chaos::<Local, _, _>::with_observer(TENTH, range, &events);
    let pipeline = Pipeline::new(&rig).layer(&chaos);
    let mut taken = Vec::new();
    for _ in 0..200 {
        let before = rig.elapsed();
        assert_eq!(rig.run(pipeline.call(async |_| Ok::<_, ()>(1))), Ok(1));
        taken.push(rig.elapsed() - before);
    }
    taken.retain(|latency| !latency.is_zero());
    let latencies = DRAWN_LATENCIES.map(Duration::from_nanos);
    assert_eq!(taken[..5], latencies);
    let expected = HIT.into_iter().zip(taken).map(|(call, took)| Injected { call, kind: Kind::Latency(took) });
    assert!(events.take().eq(expected));
}

#[test]
fn a_range_is_reached_at_both_ends_and_left_at_none() {
    let hit = |random| Hit { call: 1, random };
    let latency = |range: Result<Latency, ConfigError>, random| range.expect("it is one").of(hit(random));
    assert_eq!(latency(Latency::between(ms(7), ms(7)), u32::MAX), ms(7));
    let few = || Latency::between(Duration::from_nanos(3), Duration::from_nanos(6));
    assert_eq!([0, u32::MAX].map(|random| latency(few(), random).as_nanos()), [3, 6]);
    let all = || Latency::between(Duration::ZERO, Duration::MAX);
    assert_eq!(latency(all(), 0), Duration::ZERO);
    assert!(latency(all(), u32::MAX) > Duration::from_secs(500 * 365 * 86_400));
    assert_eq!(Latency::new(Duration::MAX).of(hit(u32::MAX)), Duration::from_nanos(u64::MAX));
}

#[test]
fn a_call_that_is_not_hit_reads_no_clock_and_arms_no_timer() {
    let rig = Rig::new();
    let off = Config::new(SEED).with_rate(Ratio::ONE).with_enabled(false).validate().expect("it makes sense");
    for config in [NEVER, off] {
        let pipeline = Pipeline::new(&rig)
            .layer(Chaos::<Local, _>::new(config, Latency::new(ms(9))))
            .layer(Chaos::<Local, _>::new(config, Behaviour::new(|_| never())))
            .layer(Chaos::<Local, _>::new(config, Fault::new(|_| ())))
            .layer(Chaos::<Local, _>::new(config, Fake::new(|_| Ok(0))));
        for _ in 0..100 {
            assert_eq!(rig.run(pipeline.call(async |_| Ok(1))), Ok(1));
        }
    }
    // A wait of no length is none.
    let nothing = Pipeline::new(&rig).layer(Chaos::<Local, _>::new(ALWAYS, Latency::new(Duration::ZERO)));
    assert_eq!(rig.run(nothing.call(async |_| Ok::<_, ()>(1))), Ok(1));
    assert_eq!((rig.reads(), rig.sleeps()), (0, 0));
}

#[test]
fn a_timeout_around_cuts_a_latency_short_and_the_next_attempt_is_another_call() {
    let rig = Rig::new();
    let retry =
        RetryPolicy::new(valid!(retry::Config::new().with_backoff(Backoff::none()).with_max_attempts(2).validate()));
    let chaos = Chaos::<Local, _>::new(ALWAYS, Latency::new(Duration::MAX));
    let pipeline = Pipeline::new(&rig).layer(retry).layer(Timeout::new(ms(25))).layer(&chaos);
    let service = Script::new(&[Step::Succeed]);
    let failure = rig.run(pipeline.call(|_| service.call(&rig))).expect_err("it hangs");
    assert!(failure.is_timed_out() && failure.attempts == 2, "{failure:?}");
    assert_eq!((chaos.calls(), service.calls(), rig.elapsed(), rig.live()), (2, 0, ms(50), 0));
}

#[test]
fn a_call_that_is_dropped_while_it_waits_leaves_nothing_behind() {
    let rig = Rig::new();
    let chaos = Chaos::<Local, _>::new(ALWAYS, Latency::new(ms(40)));
    let pipeline = Pipeline::new(&rig).layer(&chaos);
    {
        let mut call = pin!(pipeline.call(async |_| Ok::<_, ()>(1)));
        assert!(poll_once(call.as_mut()).is_pending() && poll_once(call.as_mut()).is_pending());
        assert_eq!((rig.live(), chaos.calls()), (1, 1), "polls nobody asked for do no harm");
    }
    assert_eq!(rig.live(), 0);
    assert_eq!((rig.run(pipeline.call(async |_| Ok::<_, ()>(2))), chaos.calls()), (Ok(2), 2));
}

#[test]
fn timers_that_fire_early_and_clocks_that_stall_do_not_shorten_a_latency() {
    let rig = Rig::new();
    let pipeline = Pipeline::new(&rig).layer(Chaos::<Local, _>::new(ALWAYS, Latency::new(ms(40))));
    rig.fire_early(ms(15));
    let call = || rig.run(pipeline.call(async |_| Ok::<_, ()>(rig.elapsed())));
    assert_eq!(call(), Ok(ms(40)));
    rig.stall(ms(100));
    assert_eq!(call(), Ok(ms(180)));
    rig.set(Instant::MAX);
    rig.set(at(0));
    assert_eq!(call(), Ok(ms(40)));
}

#[test]
fn a_behaviour_runs_to_its_end_before_the_operation_starts() {
    let (rig, events) = (Rig::new(), Recorder::<Injected, 32>::new());
    let log = RefCell::new(Vec::new());
    let note = |what: &'static str, call| log.borrow_mut().push((what, call, rig.elapsed()));
    let act = async |hit: Hit| {
        note("begins", hit.call);
        (&rig).sleep_until(rig.now().saturating_add(ms(5))).await;
        note("ends", hit.call);
    };
    let chaos = Chaos::<Local, _, _>::with_observer(TENTH, Behaviour::new(act), &events);
    let pipeline = Pipeline::new(&rig).layer(&chaos);
    for call in 1..=60 {
        let operation = async |_| {
            note("operation", call);
            Ok::<_, ()>(call)
        };
        assert_eq!(rig.run(pipeline.call(operation)), Ok(call));
    }
    log.borrow_mut().retain(|&(what, call, _)| what != "operation" || [36, 37, 54].contains(&call));
    let expected = [
        ("begins", 36, ms(0)),
        ("ends", 36, ms(5)),
        ("operation", 36, ms(5)),
        ("operation", 37, ms(5)),
        ("begins", 54, ms(5)),
        ("ends", 54, ms(10)),
        ("operation", 54, ms(10)),
        ("begins", 56, ms(10)),
        ("ends", 56, ms(15)),
    ];
    assert_eq!(*log.borrow(), expected);
    assert!(events.take().eq([36, 54, 56].map(|call| Injected { call, kind: Kind::Behaviour })));
}

#[test]
fn a_behaviour_may_be_dropped_halfway_or_panic_and_the_next_call_is_as_good_as_new() {
    let rig = Rig::new();
    let acts = Cell::new(0);
    let act = |hit: Hit| {
        acts.set(acts.get() + 1);
        let rig = &rig;
        async move {
            match hit.call {
                1 => rig.sleep_until(at(1_000)).await,
                2 => explode(),
                _ => {}
            }
        }
    };
    let chaos = Chaos::<Local, _>::new(ALWAYS, Behaviour::new(act));
    let pipeline = Pipeline::new(&rig).layer(Timeout::new(ms(20))).layer(&chaos);
    let call = || rig.run(pipeline.call(async |_| Ok::<_, ()>(1)));
    assert!(call().expect_err("the behaviour takes too long").is_timed_out());
    assert!(explodes(call));
    assert_eq!((call(), acts.get(), rig.live()), (Ok(1), 3, 0));
    // Where it panics before there is a future.
    let sudden = Chaos::<Local, _>::new(ALWAYS, Behaviour::new(|_| -> Ready<()> { explode() }));
    let pipeline = Pipeline::new(&rig).layer(&sudden);
    let mut call = pin!(pipeline.call(async |_| Ok::<_, ()>(1)));
    assert!(explodes(|| poll_once(call.as_mut())));
    sudden.set_enabled(false);
    assert_eq!(rig.run(call), Ok(1));
}

#[test]
fn what_observes_may_use_the_switch() {
    type Once = Chaos<Local, Fault<fn(Hit) -> u32>, fn(&Injected)>;
    let rig = Rig::new();
    std::thread_local! {
        static SWITCHED: Once =
            const { Chaos::with_observer(ALWAYS, Fault::new(|hit| hit.call), |_| SWITCHED.with(|it| it.set_enabled(false))) };
    }
    SWITCHED.with(|chaos| {
        let pipeline = Pipeline::new(&rig).layer(chaos);
        let answers = [(); 3].map(|()| rig.run(pipeline.call(async |_| Ok(7))).map_err(Failure::into_inner));
        assert_eq!(answers, [Err(Some(1)), Ok(7), Ok(7)], "one fault and no more");
    });
}

#[test]
fn several_layers_have_each_its_own_plan_and_count_what_reaches_them() {
    let rig = Rig::new();
    let outer = Chaos::<Local, _>::new(TENTH, Fault::new(|_| "fault"));
    let inner = Chaos::<Local, _>::new(
        valid!(Config::new(SEED + 1).with_rate(Ratio::percent(25)).validate()),
        Latency::new(ms(1)),
    );
    let pipeline = Pipeline::new(&rig).layer(&outer).layer(&inner);
    let failed = (0..200).filter(|_| rig.run(pipeline.call(async |_| Ok(1))).is_err()).count();
    let slow = (1..=185).filter(|&call| Plan::new(SEED + 1).hit(call, Ratio::percent(25)).is_some()).count();
    assert_eq!((failed, outer.calls(), inner.calls()), (HIT.len(), 200, 185));
    assert_eq!(rig.elapsed(), ms(u64::try_from(slow).expect("it fits")));
}

#[test]
fn it_says_what_it_is() {
    let rig = Rig::new();
    let config = valid!(Config::new(1).validate());
    let range = valid!(Latency::between(ms(50), Duration::from_secs(1)));
    let last = Chaos::<Local, _>::new(TENTH, Latency::new(ms(50)));
    let pipeline = Pipeline::new(&rig)
        .layer(Chaos::<Local, _>::new(config, Fault::new(|_| ())))
        .layer(Chaos::<Local, _>::new(config, range))
        .layer(Chaos::<Local, _>::new(config, Fake::new(|_| Ok::<_, ()>(1))))
        .layer(Chaos::<Local, _>::new(config, Behaviour::new(|_| ready(()))))
        .layer(&last);
    last.set_enabled(false);
    assert_eq!(
        pipeline.to_string(),
        "chaos: a fault in 0.1 % of the calls\n\
         chaos: a latency of 50ms to 1s in 0.1 % of the calls\n\
         chaos: a fake outcome in 0.1 % of the calls\n\
         chaos: a behaviour in 0.1 % of the calls\n\
         chaos: a latency of 50ms in 10 % of the calls, switched off"
    );
    assert_eq!(std::format!("{last:?}"), "Chaos { calls: 0, rate: Ratio(1000), enabled: false, .. }");
}

#[test]
fn each_attempt_of_a_retry_is_a_call_that_is_hit_or_not() {
    let executor = VirtualExecutor::new();
    let never = Config::new(1).with_rate(Ratio::ZERO).validate().expect("valid");
    let chaos: Chaos<Local, _> = Chaos::new(never, Latency::new(Duration::from_secs(1)));
    let backoff = Backoff::constant(Duration::from_millis(1)).with_jitter(Jitter::None);
    let retry =
        RetryPolicy::new(retry::Config::new().with_max_attempts(3).with_backoff(backoff).validate().expect("valid"));
    let pipeline = Pipeline::new(&executor).layer(retry).layer(&chaos);
    assert!(executor.run(pipeline.call(async |_| Err::<(), _>("down"))).expect("it ends").is_err());
    assert_eq!(chaos.calls(), 3);
}
