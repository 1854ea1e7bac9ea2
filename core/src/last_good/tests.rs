use core::cell::{Cell, RefCell};
use core::mem::ManuallyDrop;
use core::pin::pin;
use std::collections::BTreeMap;
use std::string::ToString;
use std::vec::Vec;

use super::*;
use crate::backoff::Backoff;
use crate::cell::{Fixed, Local, SettingsKind};
use crate::circuit_breaker::{self, CircuitBreaker, ConsecutiveFailures};
use crate::failure::{Cause, Failure, Policy, Reason, Rejected, Stop};
use crate::fallback::Fallback;
use crate::outcome::Verdict;
use crate::pipeline::Standard;
use crate::retry::{self, RetryPolicy};
use crate::rng::Rng;
use crate::testing::tests::{Rig, Threaded, at, explode, explodes, ms, poll_once};
use crate::testing::{ManualClock, Recorder, Script, Scripted, Step, never};
use crate::timeout::Timeout;
use crate::{Pipeline, valid};

const FIVE_TO_SIXTY: Valid<Config> =
    valid!(Config::new().with_fresh_for(Duration::from_secs(5)).with_max_age(Duration::from_secs(60)).validate());

const REUSED: Valid<Config> = valid!(Config::new().with_fresh_for(Duration::from_secs(5)).with_reuse().validate());

fn memory<T: Clone>() -> LastGood<Local, T> {
    LastGood::new(FIVE_TO_SIXTY)
}

fn nanos(nanos: u64) -> Instant {
    Instant::from_nanos(nanos)
}

fn served(age: Duration, stale: bool) -> Served {
    Served { age: Span::of(age), stale }
}

fn good<T>(value: T, age: Duration, stale: bool) -> Good<T> {
    Good { value, served: served(age, stale) }
}

fn value<T>(good: Option<Good<T>>) -> Option<T> {
    good.map(|good| good.value)
}

#[test]
fn a_value_is_fresh_then_stale_then_too_old_each_to_the_nanosecond() {
    let memory = memory();
    assert_eq!((memory.get(&Instant::MAX), memory.age(&Instant::MAX)), (None, None));
    memory.remember(&21, &at(1_000));
    let (fresh, stale) = (5_000_000_000, 60_000_000_000);
    for (age, expected) in
        [(0, Some(false)), (fresh - 1, Some(false)), (fresh, Some(true)), (stale, Some(true)), (stale + 1, None)]
    {
        let now = nanos(1_000_000_000 + age);
        let (span, age) = (Duration::from_nanos(age), memory.age(&now));
        assert_eq!(memory.get(&now), expected.map(|stale| good(21, span, stale)));
        assert_eq!(age, Some(span), "also when it is too old");
    }
    memory.remember(&22, &at(100_000));
    assert_eq!(memory.get(&at(100_001)), Some(good(22, ms(1), false)));
}

#[test]
fn by_default_all_that_is_served_is_stale_and_no_older_than_two_minutes() {
    let memory: LastGood<Local, u8> = LastGood::new(valid!(Config::new().validate()));
    memory.remember(&1, &Instant::START);
    let seen = [0, 1, 120_000, 120_001].map(|now| memory.get(&at(now)).map(|good| good.is_stale()));
    assert_eq!(seen, [Some(true), Some(true), Some(true), None]);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let refused = |config: Config| config.validate().err().map(|error| error.message());
    assert_eq!(refused(Config::new().with_max_age(ms(0))), Some("`max_age` is zero: nothing would be served"));
    let longer = Config::new().with_max_age(ms(1)).with_fresh_for(ms(2));
    assert_eq!(refused(longer), Some("`fresh_for` is longer than the age limit"));
    assert_eq!(refused(Config::new().with_reuse()), Some("`fresh_for` is zero: no value would be reused"));
    assert_eq!(refused(Config::new().with_max_age(ms(1)).with_fresh_for(ms(1))), None);
    assert_eq!(refused(Config::new().with_fresh_for(ms(0))), None);
    assert_eq!(refused(Config::new().with_fresh_for(ms(1)).with_reuse()), None);
}

#[test]
fn a_clock_that_steps_back_makes_the_age_zero_and_ages_saturate() {
    let memory = memory();
    memory.remember(&1, &at(90_000));
    assert_eq!(memory.get(&at(10)), Some(good(1, ms(0), false)));
    memory.remember(&2, &at(10));
    assert_eq!(
        memory.get(&at(60_010)).map(|good| (good.value, good.is_stale())),
        Some((2, true)),
        "its age is its own"
    );
    assert_eq!(memory.get(&at(60_011)), None);

    let config = Config::new().with_max_age(Duration::MAX).with_fresh_for(Duration::MAX).validate();
    let ever: LastGood<Local, u8> = LastGood::new(config.expect("it makes sense"));
    ever.remember(&3, &Instant::START);
    assert_eq!(value(ever.get(&Instant::MAX)), Some(3), "served for ever");
}

#[test]
fn what_is_forgotten_is_not_served_until_there_is_another() {
    let memory = memory();
    memory.remember(&1, &Instant::START);
    memory.forget();
    assert_eq!((memory.get(&Instant::START), memory.age(&Instant::START)), (None, None));
    memory.remember(&2, &Instant::START);
    assert_eq!(value(memory.get(&Instant::START)), Some(2));
}

#[test]
fn a_failure_is_answered_from_memory_and_passes_where_there_is_nothing() {
    let rig = Rig::new();
    let memory = memory();
    let pipeline = Pipeline::new(&rig).layer(&memory);
    let fails = || rig.run(pipeline.call(async |_| Err("down")));
    assert_eq!(fails(), Err(Failure::new(Cause::Inner("down"))), "nothing is remembered yet");
    assert_eq!(rig.run(pipeline.call(async |_| Ok::<_, &str>(21))), Ok(21));
    rig.advance(ms(60_000));
    assert_eq!((fails(), fails()), (Ok(21), Ok(21)), "a served value is not remembered anew");
    rig.advance(Duration::from_nanos(1));
    assert_eq!(fails(), Err(Failure::new(Cause::Inner("down"))));
    assert_eq!(rig.reads(), 5, "once for each");
}

/// How a call may end, as the layer sees it.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Ok,
    Err,
    Rejected,
    TimedOut,
}

#[test]
fn the_verdict_decides_what_is_remembered_and_what_is_replaced() {
    let verdicts = [
        Verdict::SUCCESS,
        Verdict::TRANSIENT,
        Verdict::PERMANENT,
        Verdict::TRANSIENT.with_retry_after(ms(1)),
        Verdict::IGNORED,
    ];
    let endings = [Ending::Ok, Ending::Err, Ending::Rejected, Ending::TimedOut];
    let table: Vec<_> = endings.iter().map(|&ending| verdicts.map(|verdict| what_follows(ending, verdict))).collect();
    assert_eq!(
        table,
        [
            ["remembered", "replaced", "replaced", "replaced", "passes"],
            ["passes", "replaced", "replaced", "replaced", "passes"],
            // Its verdict is the policy's own, not the classifier's.
            ["replaced"; 5],
            ["replaced"; 5],
        ]
    );
}

fn what_follows(ending: Ending, verdict: Verdict) -> &'static str {
    let rig = Rig::new();
    let breaker: CircuitBreaker<Local> = CircuitBreaker::new(valid!(circuit_breaker::Config::new().validate()));
    if let Ending::Rejected = ending {
        breaker.isolate();
    }
    let memory = memory();
    let outer = Pipeline::new(&rig).layer(&memory).layer(Timeout::new(ms(1))).layer(&breaker);
    let pipeline = outer.classify(move |_: Result<&u32, &()>| verdict);
    let call = || {
        rig.run(pipeline.call(async |_| match ending {
            Ending::Ok => Ok(2),
            Ending::Err => Err(()),
            Ending::Rejected | Ending::TimedOut => never().await,
        }))
    };
    let alone = call();
    let learned = value(memory.get(&&rig));
    memory.remember(&1, &&rig);
    let answer = call();
    match (learned, answer) {
        (Some(2), Ok(2)) => "remembered",
        (None, Ok(1)) if alone != Ok(1) => "replaced",
        (None, answer) if answer == alone => "passes",
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn an_open_breaker_is_bridged_with_what_was_good_before() {
    let rig = Rig::new();
    let service = Script::new(&[Step::Succeed, Step::Fail]);
    let config = circuit_breaker::Config::new().with_trip(valid!(ConsecutiveFailures::new(2)));
    let breaker: CircuitBreaker<Local> = CircuitBreaker::new(config.validate().expect("it makes sense"));
    let memory: LastGood<Local, u32> = LastGood::new(valid!(Config::new().validate()));
    let pipeline = Pipeline::new(&rig).layer(&memory).layer(&breaker);
    for _ in 0..10 {
        assert_eq!(rig.run(pipeline.call(|_| service.call(&rig))), Ok(1));
    }
    assert_eq!(service.calls(), 3, "the breaker saw the failures behind the answers");
}

#[test]
fn a_failure_passes_with_all_that_the_policies_within_say_of_it() {
    let rig = Rig::new();
    let retry = RetryPolicy::new(valid!(retry::Config::new().with_backoff(Backoff::none()).validate()));
    let memory = memory();
    let service = Script::new(&[Step::Fail]);
    let pipeline = Pipeline::new(&rig).layer(&memory).layer(retry);
    let failure = rig.run(pipeline.call(|_| service.call(&rig))).expect_err("there is nothing to serve");
    let expected = Failure { cause: Cause::Inner(Scripted { call: 3 }), attempts: 3, stop: Some(Stop::Attempts) };
    assert_eq!(failure, expected);
}

#[test]
fn policies_around_see_a_served_value_as_a_success_and_a_failure_as_it_was() {
    let rig = Rig::new();
    let retry = RetryPolicy::new(valid!(retry::Config::new().with_backoff(Backoff::none()).validate()));
    let memory = memory();
    let pipeline = Pipeline::new(&rig).layer(retry).layer_in_any_order(&memory);
    let service = Script::new(&[Step::Fail]);
    assert!(rig.run(pipeline.call(|_| service.call(&rig))).is_err());
    assert_eq!(service.calls(), 3, "with nothing to serve there is something to retry");
    memory.remember(&0, &&rig);
    assert_eq!(rig.run(pipeline.call(|_| service.call(&rig))), Ok(0));
    assert_eq!(service.calls(), 4);
}

#[test]
fn each_value_that_is_served_is_one_event_and_nothing_else_is() {
    let rig = Rig::new();
    let events = Recorder::<Served, 8>::new();
    let memory: LastGood<Local, _, _> = LastGood::with_observer(FIVE_TO_SIXTY, &events);
    let pipeline = Pipeline::new(&rig).layer(&memory);
    let call = |result: Result<u32, ()>| rig.run(pipeline.call(async |_| result));
    assert!(call(Err(())).is_err());
    assert_eq!(call(Ok(1)), Ok(1));
    assert_eq!(value(memory.get(&&rig)), Some(1), "whoever asks knows");
    assert_eq!(events.take().next(), None);
    for (wait, stale) in [(4_999, false), (1, true), (55_000, true)] {
        rig.advance(ms(wait));
        assert_eq!(call(Err(())), Ok(1));
        assert_eq!(events.take().collect::<Vec<_>>(), [served(rig.elapsed(), stale)]);
    }
    rig.advance(ms(1));
    assert!(call(Err(())).is_err());
    assert_eq!(events.take().next(), None);
}

#[test]
fn the_observer_is_told_outside_the_cell() {
    std::thread_local! {
        static SEEN: Cell<Option<u32>> = const { Cell::new(None) };
        static MEMORY: LastGood<Local, u32, fn(&Served)> = const { LastGood::with_observer(FIVE_TO_SIXTY, look) };
    }
    fn look(_: &Served) {
        SEEN.set(MEMORY.with(|memory| value(memory.get(&Instant::START))));
        MEMORY.with(|memory| memory.remember(&8, &Instant::START));
    }
    let rig = Rig::new();
    MEMORY.with(|memory| {
        memory.remember(&7, &Instant::START);
        let pipeline = Pipeline::new(&rig).layer(memory);
        assert_eq!(rig.run(pipeline.call(async |_| Err(()))), Ok(7));
        assert_eq!((SEEN.get(), value(memory.get(&Instant::START))), (Some(7), Some(8)));
    });
}

#[test]
fn a_fresh_value_is_reused_and_a_stale_one_only_when_the_call_fails() {
    let rig = Rig::new();
    let events = Recorder::<Served, 8>::new();
    let memory: LastGood<Local, _, _> = LastGood::with_observer(REUSED, &events);
    let pipeline = Pipeline::new(&rig).layer(&memory);
    let steps = [Step::Succeed, Step::Fail, Step::SucceedAfter(ms(10))];
    let service = Script::new(&steps);
    let call = || (rig.run(pipeline.call(|_| service.call(&rig))), service.calls());
    assert_eq!(call(), (Ok(1), 1));
    rig.advance(ms(4_999));
    assert_eq!(call(), (Ok(1), 1), "no call is made");
    rig.advance(ms(1));
    assert_eq!(call(), (Ok(1), 2), "one is made, and fails");
    let ages = [(ms(4_999), false), (ms(5_000), true)].map(|(age, stale)| served(age, stale));
    assert_eq!(events.take().collect::<Vec<_>>(), ages);
    assert_eq!(call(), (Ok(3), 3));
    assert_eq!(events.take().next(), None);
}

#[test]
fn a_call_that_has_begun_is_not_answered_by_what_another_remembers_meanwhile() {
    let rig = Rig::new();
    let memory: LastGood<Local, u32> = LastGood::new(REUSED);
    let steps = [Step::SucceedAfter(ms(10)), Step::SucceedAfter(ms(20))];
    let service = Script::new(&steps);
    let pipeline = Pipeline::new(&rig).layer(Timeout::new(ms(15))).layer_in_any_order(&memory);
    let mut first = pin!(pipeline.call(|_| service.call(&rig)));
    assert!(poll_once(first.as_mut()).is_pending());
    memory.remember(&9, &&rig);
    assert!(poll_once(first.as_mut()).is_pending());
    assert_eq!(rig.run(first.as_mut()), Ok(1), "its own answer");
    // Given up, and polled once more, it begins anew.
    memory.forget();
    assert!(rig.run(pipeline.call(|_| service.call(&rig))).is_err_and(|failure| failure.is_timed_out()));
    assert_eq!((service.calls(), service.in_flight()), (2, 0));
    memory.remember(&9, &&rig);
    assert_eq!(rig.run(pipeline.call(|_| service.call(&rig))), Ok(9));
    assert_eq!(service.calls(), 2);
}

#[test]
fn within_a_retry_each_attempt_may_be_answered_from_memory() {
    for first in [Step::Fail, Step::Hang] {
        let rig = Rig::new();
        let memory: LastGood<Local, u32> = LastGood::new(REUSED);
        let retry = retry::Config::new().with_backoff(Backoff::constant(ms(7))).validate().expect("it makes sense");
        let pipeline =
            Pipeline::new(&rig).layer(RetryPolicy::new(retry)).layer(Timeout::new(ms(10))).layer_in_any_order(&memory);
        let steps = [first];
        let service = Script::new(&steps);
        let mut call = pin!(pipeline.call(|_| service.call(&rig)));
        assert!(poll_once(call.as_mut()).is_pending(), "it failed and waits for the second attempt, or hangs");
        memory.remember(&5, &&rig);
        assert_eq!(rig.run(call), Ok(5));
        assert_eq!((service.calls(), service.in_flight()), (1, 0), "no second call: {first:?}");
    }
}

#[test]
fn a_call_that_is_dropped_or_panics_remembers_nothing_and_leaves_what_was() {
    let rig = Rig::new();
    let memory = memory();
    memory.remember(&1, &&rig);
    let pipeline = Pipeline::new(&rig).layer(&memory);
    {
        let mut call = pin!(pipeline.call(|_| never::<Result<u32, ()>>()));
        assert!(poll_once(call.as_mut()).is_pending());
    }
    assert!(explodes(|| rig.run(pipeline.call(async |_| -> Result<u32, ()> { explode() }))));
    assert_eq!(value(memory.get(&&rig)), Some(1));
}

#[test]
fn what_passes_needs_no_clock() {
    let rig = Rig::new();
    let memory = memory();
    let pipeline = Pipeline::new(&rig).layer(&memory).classify(|_: Result<&u32, &()>| Verdict::IGNORED);
    assert_eq!(rig.run(pipeline.call(async |_| Ok(1))), Ok(1));
    assert!(rig.run(pipeline.call(async |_| Err(()))).is_err());
    assert_eq!((rig.reads(), memory.age(&Instant::START)), (0, None));
}

#[test]
fn a_constant_outside_answers_when_nothing_good_is_left() {
    let rig = Rig::new();
    let memory = memory();
    let pipeline = Pipeline::new(&rig).layer(Fallback::new(|_: Failure<&str>| Ok(-1))).layer(&memory);
    let call = |result: Result<i32, &'static str>| rig.run(pipeline.call(async |_| result));
    assert_eq!(call(Err("down")), Ok(-1));
    assert_eq!((call(Ok(21)), call(Err("down"))), (Ok(21), Ok(21)), "the constant was not remembered");
    rig.advance(ms(60_001));
    assert_eq!(call(Err("down")), Ok(-1));
}

#[test]
fn it_is_the_fallback_of_a_standard_pipeline() {
    let rig = Rig::new();
    let memory: LastGood<Local, u32> = LastGood::new(REUSED);
    let keyed: KeyedLastGood<Local, u8, u32, 4> = KeyedLastGood::new(FIVE_TO_SIXTY);
    let service = Script::new(&[Step::Succeed, Step::Hang]);
    let standard = || Standard::new().with_attempt_timeout(Timeout::new(ms(10)));
    let one = standard().with_fallback(&memory).on(&rig);
    let lines = "fallback: the last good value, up to 120s old, fresh for 5s, reused while fresh\ntimeout: 10ms";
    assert_eq!(one.to_string(), lines);
    let other = standard().with_fallback(keyed.of(1)).on(&rig);
    let lines = "fallback: the last good value, up to 60s old, fresh for 5s, for each key\ntimeout: 10ms";
    assert_eq!(other.to_string(), lines);
    assert_eq!(rig.run(other.call(|_| service.call(&rig))), Ok(1));
    assert_eq!(rig.run(other.call(|_| service.call(&rig))), Ok(1), "in time");
    assert!(rig.run(one.call(|_| service.call(&rig))).is_err_and(|failure| failure.is_timed_out()));
    assert_eq!(rig.elapsed(), ms(20));
}

/// Cells that run each update on a state of no use first, as one does that finds another caller was faster.
struct Again;

struct AgainCell<S>(RefCell<S>);

impl<S: Fresh> CellKind<S> for Again {
    type Cell = AgainCell<S>;
}

impl SettingsKind for Again {
    type Settings<C: Copy> = Fixed;
}

impl<S: Fresh> StateCell<S> for AgainCell<S> {
    const NEW: Self = Self(RefCell::new(S::FRESH));

    fn update<R>(&self, mut f: impl FnMut(&mut S) -> R) -> R {
        drop(f(&mut { S::FRESH }));
        f(&mut self.0.borrow_mut())
    }
}

#[test]
fn an_update_that_runs_again_loses_nothing() {
    let one: LastGood<Again, std::string::String> = LastGood::new(FIVE_TO_SIXTY);
    one.remember(&"good".into(), &Instant::START);
    assert_eq!(value(one.get(&Instant::START)).as_deref(), Some("good"));
    let many: KeyedLastGood<Again, u8, std::string::String, 2> = KeyedLastGood::new(FIVE_TO_SIXTY);
    for key in 0..3 {
        many.remember(&key, &key.to_string(), &at(key.into()));
    }
    let kept = [0, 1, 2].map(|key| value(many.get(&key, &at(2))));
    assert_eq!(kept, [None, Some("1".into()), Some("2".into())]);
}

#[test]
fn a_value_is_cloned_and_dropped_outside_the_cell_to_be_remembered() {
    std::thread_local! {
        static MEMORY: LastGood<Local, Touchy> = const { LastGood::new(FIVE_TO_SIXTY) };
        static MANY: KeyedLastGood<Local, u8, Touchy, 2> = const { KeyedLastGood::new(FIVE_TO_SIXTY) };
        static OUTSIDE: RefCell<Vec<bool>> = const { RefCell::new(Vec::new()) };
    }
    /// Notes whether its memory can be looked into: while the cell is being changed, it looks empty.
    #[derive(Debug)]
    struct Touchy;
    impl Touchy {
        fn note(&self) {
            // At the thread's end, should an assertion fail, there is nothing to look into.
            let Ok(outside) = MEMORY.try_with(|memory| memory.age(&Instant::START).is_some()) else { return };
            let Ok(outside_too) = MANY.try_with(|many| many.keys() > 0) else { return };
            let _ = OUTSIDE.try_with(|noted| noted.borrow_mut().push(outside && outside_too));
        }
    }
    impl Clone for Touchy {
        fn clone(&self) -> Self {
            self.note();
            Self
        }
    }
    impl Drop for Touchy {
        fn drop(&mut self) {
            self.note();
        }
    }
    let noted = || OUTSIDE.take();
    let touchy = ManuallyDrop::new(Touchy);
    MEMORY.with(|memory| memory.remember(&touchy, &Instant::START));
    MANY.with(|many| (0..2).for_each(|key| many.remember(&key, &touchy, &at(key.into()))));
    assert_eq!(noted().len(), 3, "there was nothing to look into yet");
    MEMORY.with(|memory| memory.remember(&touchy, &Instant::START));
    assert_eq!(noted(), [true; 2], "cloned the new, dropped the old");
    MANY.with(|many| (1..3).for_each(|key| many.remember(&key, &touchy, &at(5))));
    assert_eq!(noted(), [true; 4], "replaced one, and made room for the other");
    MANY.with(|many| many.forget(&1));
    assert_eq!(noted(), [true], "dropped");
    let good = MEMORY.with(|memory| memory.get(&Instant::START));
    assert_eq!(noted().len(), 1, "served a clone");
    drop(good);
    MEMORY.with(LastGood::forget);
    assert_eq!(noted(), [true, false], "there is nothing left to look into");
}

#[test]
fn a_value_that_is_no_copy_is_shared_by_threads() {
    static MEMORY: LastGood<Threaded, std::string::String> = LastGood::new(FIVE_TO_SIXTY);
    std::thread::scope(|scope| {
        for thread in 0..2_u8 {
            scope.spawn(move || {
                for _ in 0..1_000 {
                    MEMORY.remember(&thread.to_string(), &Instant::START);
                    let seen = value(MEMORY.get(&Instant::START));
                    assert!(matches!(seen.as_deref(), Some("0" | "1")), "{seen:?}");
                }
            });
        }
    });
}

mod keyed {
    use super::*;

    type Memories<const N: usize> = KeyedLastGood<Local, u32, u32, N>;

    #[test]
    fn with_places_for_all_each_key_has_a_memory_of_its_own() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let (keyed, mut alone, mut now) = (Memories::<64>::new(FIVE_TO_SIXTY), BTreeMap::new(), 0_u64);
            for step in 0..3_000 {
                now += u64::from(rng.next()) % 2_000;
                let (key, kept) = (rng.next() % 64, rng.next());
                let alone = alone.entry(key).or_insert_with(memory);
                match rng.next() % 8 {
                    0 => {
                        keyed.remember(&key, &kept, &at(now));
                        alone.remember(&kept, &at(now));
                    }
                    1 => {
                        keyed.forget(&key);
                        alone.forget();
                    }
                    _ => {}
                }
                assert_eq!(keyed.get(&key, &at(now)), alone.get(&at(now)), "seed {seed}, step {step}");
                assert_eq!(keyed.age(&key, &at(now)), alone.age(&at(now)), "seed {seed}, step {step}");
            }
        }
    }

    #[test]
    fn when_all_places_are_taken_the_least_recently_refreshed_makes_room() {
        for seed in 0..20 {
            let (mut rng, keyed) = (Rng::new(seed), Memories::<8>::new(FIVE_TO_SIXTY));
            // The oracle: keys in the order in which they were refreshed.
            let mut order: Vec<u32> = Vec::new();
            for now in 1..2_000_u32 {
                let key = rng.next() % 12;
                if rng.next().is_multiple_of(9) {
                    keyed.forget(&key);
                    order.retain(|&kept| kept != key);
                } else {
                    keyed.remember(&key, &now, &at(now.into()));
                    order.retain(|&kept| kept != key);
                    order.push(key);
                    if order.len() > 8 {
                        order.remove(0);
                    }
                }
                let kept: Vec<_> = (0..12).filter(|key| keyed.age(key, &at(now.into())).is_some()).collect();
                let mut expected = order.clone();
                expected.sort_unstable();
                assert_eq!((kept, keyed.keys()), (expected, order.len()), "seed {seed}, step {now}");
            }
        }
    }

    #[test]
    fn a_flood_of_keys_does_not_grow_it_and_one_whose_calls_fail_displaces_nobody() {
        let rig = Rig::new();
        let keyed = Memories::<8>::new(FIVE_TO_SIXTY);
        (0..8).for_each(|key| keyed.remember(&key, &key, &&rig));
        for key in 100..1_000 {
            let pipeline = Pipeline::new(&rig).layer(keyed.of(key));
            assert!(rig.run(pipeline.call(async |_| Err::<u32, _>("no such key"))).is_err());
        }
        assert_eq!((0..8).filter(|key| value(keyed.get(key, &&rig)) == Some(*key)).count(), 8);
        for key in 100..1_000 {
            rig.advance(ms(1));
            let pipeline = Pipeline::new(&rig).layer(keyed.of(key));
            assert_eq!(rig.run(pipeline.call(async |_| Ok::<_, &str>(key))), Ok(key));
            // One that keeps being refreshed stays.
            keyed.remember(&0, &0, &&rig);
        }
        assert_eq!((keyed.keys(), value(keyed.get(&0, &&rig))), (8, Some(0)));
    }

    #[test]
    fn one_key_is_a_layer_and_is_never_served_anothers_value() {
        let (rig, events) = (Rig::new(), Recorder::<Served, 8>::new());
        let keyed: KeyedLastGood<Local, &str, u32, 4, _> = KeyedLastGood::with_observer(FIVE_TO_SIXTY, &events);
        let call =
            |key, result: Result<u32, ()>| rig.run(Pipeline::new(&rig).layer(keyed.of(key)).call(async |_| result));
        assert_eq!(call("a", Ok(1)), Ok(1));
        assert!(call("b", Err(())).is_err());
        assert_eq!(events.take().next(), None);
        rig.advance(ms(7));
        assert_eq!(call("a", Err(())), Ok(1));
        assert_eq!(events.take().collect::<Vec<_>>(), [served(ms(7), false)]);
    }

    #[test]
    fn one_key_reuses_its_fresh_value() {
        let (rig, keyed) = (Rig::new(), Memories::<4>::new(REUSED));
        keyed.remember(&1, &11, &&rig);
        let service = Script::new(&[Step::Hang]);
        let pipeline = |key| Pipeline::new(&rig).layer(keyed.of(key));
        assert_eq!(rig.run(pipeline(1).call(|_| service.call(&rig))), Ok(11));
        let other = pipeline(2);
        let mut call = pin!(other.call(|_| service.call(&rig)));
        assert!(poll_once(call.as_mut()).is_pending());
        assert_eq!(service.calls(), 1);
    }
}

#[test]
fn a_rejection_is_replaced_whoever_rejects() {
    // As a layer of somebody's own may.
    let rig = Rig::new();
    let memory = memory();
    memory.remember(&1, &&rig);
    let inner = Fallback::new(|_: Failure<()>| Err(Rejected::new(Policy::Throttle, Reason::Throttled).into()));
    let pipeline = Pipeline::new(&rig).layer(&memory).layer(inner);
    assert_eq!(rig.run(pipeline.call(async |_| Err(()))), Ok(1));
}

#[test]
fn a_script_of_readings_gives_what_a_naive_memory_gives() {
    for seed in 0..50 {
        let (mut rng, clock, memory) = (Rng::new(seed), ManualClock::new(), memory());
        let mut naive: Option<(u64, u32)> = None;
        let mut now = 0;
        for step in 0..500 {
            now = if rng.next().is_multiple_of(20) { now / 2 } else { now + u64::from(rng.next()) % 9_000 };
            clock.set(at(now));
            if rng.next().is_multiple_of(10) {
                memory.remember(&step, &&clock);
                naive = Some((now, step));
            }
            // From before a clock that stepped back: known since now.
            naive = naive.map(|(then, value)| (then.min(now), value));
            let expected = naive.map(|(then, value)| (now - then, value)).filter(|(age, _)| *age <= 60_000);
            let expected = expected.map(|(age, value)| good(value, ms(age), age >= 5_000));
            assert_eq!(memory.get(&&clock), expected, "seed {seed}, step {step}");
        }
    }
}

#[test]
fn a_clock_that_jumped_ahead_and_came_back_keeps_nothing_fresh() {
    let memory: LastGood<Local, u8> = LastGood::new(REUSED);
    memory.remember(&1, &at(3_600_000));
    assert_eq!(memory.get(&at(1_000)).map(|good| good.is_stale()), Some(false), "how old it is can't be told");
    assert_eq!(memory.get(&at(1_801_000)), None, "half an hour by now, at least");
    let keyed: KeyedLastGood<Local, u32, u32, 4> = KeyedLastGood::new(FIVE_TO_SIXTY);
    (0..3).for_each(|key| keyed.remember(&key, &key, &at(3_600_000)));
    for second in 1..10 {
        let now = at(second * 1_000);
        keyed.remember(&10, &1, &now);
        keyed.remember(&11, &1, &now);
        assert!(keyed.get(&10, &now).is_some() && keyed.get(&11, &now).is_some(), "after {second} s");
    }
}

/// A key that somebody has chosen: all have one hash.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Chosen(u32);

impl core::hash::Hash for Chosen {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        0_u32.hash(state);
    }
}

#[test]
fn keys_chosen_to_have_one_hash_are_told_apart_all_the_same() {
    let chosen: KeyedLastGood<Local, Chosen, u32, 16> = KeyedLastGood::new(FIVE_TO_SIXTY);
    let plain: KeyedLastGood<Local, u32, u32, 16> = KeyedLastGood::new(FIVE_TO_SIXTY);
    let (mut rng, mut now) = (Rng::new(5), 0);
    // Up to as many keys as there are places, and then beyond them.
    for most in [16, 50] {
        for step in 0..5_000 {
            now += u64::from(rng.next()) % 2_000;
            let (key, kept) = (rng.next() % most, rng.next());
            if rng.next().is_multiple_of(4) {
                chosen.remember(&Chosen(key), &kept, &at(now));
                plain.remember(&key, &kept, &at(now));
            }
            assert_eq!(chosen.get(&Chosen(key), &at(now)), plain.get(&key, &at(now)), "{most} keys, step {step}");
        }
    }
}
