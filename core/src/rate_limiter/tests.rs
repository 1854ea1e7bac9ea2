#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, reason = "tests")]

use std::boxed::Box;
use std::string::ToString;
use std::vec::Vec;

use super::*;
use crate::Pipeline;
use crate::bulkhead::{self, Bulkhead, NoQueue};
use crate::cell::{Live, Local};
use crate::rng::Rng;
use crate::testing::tests::{Rig, ms, poll_once};
use crate::testing::{ManualClock, Script, Step, VirtualExecutor};
use crate::timeout::Timeout;
use crate::valid;

mod exhaustive;
mod faults;

fn limiter(config: Config) -> RateLimiter<Local> {
    RateLimiter::new(config.validate().expect("it makes sense"))
}

fn nanos(nanos: u64) -> Instant {
    Instant::from_nanos(nanos)
}

/// The same in 128 bits, said another way: a bucket of tokens, in fractions of which one is an interval long, that fills with time.
struct Bucket {
    level: i128,
    at: u64,
    interval: i128,
    burst: i128,
    longest_wait: i128,
}

impl Bucket {
    fn new(permits: u32, period: u64, burst: u32, wait: u64) -> Self {
        let interval = i128::from(period.div_ceil(permits.into()));
        let burst = interval * i128::from(burst);
        Self { level: burst, at: 0, interval, burst, longest_wait: wait.into() }
    }

    /// What is in it now. A clock that stepped back by more than a second finds no less than what a full queue could have left.
    fn level(&self, now: u64) -> i128 {
        let level = self.level + i128::from(now) - i128::from(self.at);
        if level <= -self.longest_wait - (1 << 30) { -self.longest_wait } else { level.min(self.burst) }
    }

    /// When so many can be used, or whether that is too late. None at all wait for one.
    fn asked(&self, permits: u32, wait: i128, now: u64) -> Result<u64, u64> {
        let short = (self.interval * i128::from(permits.max(1)) - self.level(now)).max(0);
        let usable = (i128::from(now) + short) as u64;
        if short > wait { Err(usable) } else { Ok(usable) }
    }

    fn take(&mut self, permits: u32, wait: i128, now: u64) -> Result<u64, u64> {
        // A step of the clock is over once a caller has met it.
        if self.level(now) > self.level + i128::from(now) - i128::from(self.at) && now < self.at {
            (self.level, self.at) = (self.level(now), now);
        }
        let usable = self.asked(permits, wait, now)?;
        if permits > 0 {
            (self.level, self.at) = (self.level(now) - self.interval * i128::from(permits), now);
        }
        Ok(usable)
    }
}

#[test]
fn every_answer_is_that_of_a_bucket_that_fills_with_time_whatever_the_clock_does() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let (permits, burst) = (1 + rng.next() % 20, 1 + rng.next() % 20);
        let (period, wait) = (u64::from(1 + rng.next() % 10_000), u64::from(rng.next() % 5_000));
        let config = Config::new(permits, Duration::from_nanos(period));
        let config = config.with_burst(burst).with_queue(u32::MAX, Duration::from_nanos(wait));
        let (limiter, mut bucket, mut now) = (limiter(config), Bucket::new(permits, period, burst, wait), 1_u64 << 40);
        for step in 0..3_000 {
            let what = std::format!("seed {seed}, step {step}");
            now = match rng.next() % 12 {
                0 if rng.next().is_multiple_of(16) => now.saturating_sub(u64::from(rng.next())),
                0 => now.saturating_sub(u64::from(rng.next()) % 20_000),
                1 => now + u64::from(rng.next()) % 100_000,
                2..6 => now,
                _ => now + u64::from(rng.next()) % (period / u64::from(permits) + 2),
            };
            let (count, clock) = (rng.next() % 4, nanos(now));
            if rng.next().is_multiple_of(2) {
                let found = limiter.try_acquire_many(count, &clock);
                if count > burst {
                    assert_eq!(found.map_err(|rejected| rejected.reason()), Err(Reason::TooHeavy), "{what}");
                } else {
                    let expected = bucket.take(count, 0, now).map(drop).map_err(|at| Some(nanos(at)));
                    assert_eq!(found.map_err(|rejected| rejected.retry_at()), expected, "{what}");
                }
            } else {
                let asked = u64::from(rng.next() % 6_000);
                let found = limiter.reserve(count, Duration::from_nanos(asked), &clock);
                let expected = bucket.take(count, i128::from(asked.min(wait)), now);
                match (found, expected) {
                    (Ok(reservation), Ok(at)) => {
                        assert_eq!(reservation.at(), nanos(at), "{what}");
                        if rng.next().is_multiple_of(3) {
                            drop(reservation);
                            bucket.level += bucket.interval * i128::from(count);
                        } else {
                            reservation.commit();
                        }
                    }
                    (Err(rejected), Err(at)) => assert_eq!(rejected.retry_at(), Some(nanos(at)), "{what}"),
                    (found, expected) => assert_eq!(found.is_ok(), expected.is_ok(), "{what}"),
                }
            }
            let available = bucket.level(now).div_euclid(bucket.interval) as i64;
            assert_eq!(limiter.available(&clock), available, "{what}");
        }
    }
}

#[test]
fn the_instant_that_a_rejection_names_is_the_first_at_which_the_call_passes() {
    let limiter = limiter(Config::new(3, ms(10)).with_burst(2));
    limiter.try_acquire_many(2, &Instant::START).expect("the burst");
    let at = limiter.try_acquire(&nanos(5)).expect_err("it is over").retry_at().expect("it is known");
    assert_eq!(at, nanos(3_333_334));
    assert_eq!(limiter.available_at(1, &nanos(5)), Some(at));
    assert!(limiter.try_acquire(&nanos(at.as_nanos() - 1)).is_err());
    assert!(limiter.try_acquire(&at).is_ok());
}

/// Found by the fuzzer: every rejection named an instant a little later, until the clock had caught up.
#[test]
fn a_clock_that_steps_back_an_hour_does_not_block_the_limiter_for_an_hour() {
    let limiter = limiter(Config::new(10, Duration::from_secs(1)).with_burst(2));
    let hour = Duration::from_secs(3_600);
    limiter.try_acquire_many(2, &Instant::START.saturating_add(hour)).expect("the burst");
    let at = limiter.try_acquire(&Instant::START).expect_err("as after a whole burst").retry_at();
    assert_eq!(at, Some(Instant::from_millis(100)));
    limiter.try_acquire(&Instant::from_millis(100)).expect("the instant that the rejection named");
}

#[test]
fn after_a_change_to_a_smaller_burst_a_rejection_names_the_instant_all_the_same() {
    let limiter = RateLimiter::<Live<Local>>::new(valid!(Config::new(10, Duration::from_secs(1)).validate()));
    limiter.try_acquire_many(10, &Instant::START).expect("the burst");
    let smaller = Config::new(10, Duration::from_secs(1)).with_burst(1).validate().expect("it makes sense");
    limiter.reconfigure(smaller, &Instant::START);
    let at = limiter.try_acquire(&Instant::START).expect_err("it is taken").retry_at().expect("it is known");
    assert_eq!(at, Instant::from_millis(100));
    limiter.try_acquire(&at).expect("the instant that the rejection named");
}

/// As a thread that was held up after it had read the clock: it must not find permits that the others have taken.
#[test]
fn a_clock_that_steps_back_a_moment_brings_nothing_back() {
    let limiter = limiter(Config::new(10, Duration::from_secs(1)).with_burst(2));
    limiter.try_acquire_many(2, &Instant::from_millis(2_000)).expect("the burst");
    for millis in [1_000, 1_500, 1_999] {
        let rejected = limiter.try_acquire(&Instant::from_millis(millis)).expect_err("it is taken");
        assert_eq!(rejected.retry_at(), Some(Instant::from_millis(2_100)));
    }
}

#[test]
fn over_any_stretch_of_time_no_more_pass_than_the_quota_and_one_burst() {
    let mut rng = Rng::new(3);
    let limiter = limiter(Config::new(7, Duration::from_secs(1)).with_burst(4));
    let (mut now, mut passed) = (0_u64, Vec::new());
    for _ in 0..20_000 {
        now += u64::from(rng.next()) % 200_000_000;
        if limiter.try_acquire(&nanos(now)).is_ok() {
            passed.push(now);
        }
    }
    for (index, start) in passed.iter().enumerate() {
        for (more, end) in passed.iter().enumerate().skip(index).take(40) {
            let most = 4 + (end - start) * 7 / 1_000_000_000;
            assert!((more - index + 1) as u64 <= most, "{} in {} ns", more - index + 1, end - start);
        }
    }
    // And in the long run not less, where there is always one more to pass.
    let rate = passed.len() as u64 * 1_000_000_000 / now;
    assert!((6..=7).contains(&rate), "{rate} a second");
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let field = |config: Config| config.validate().err().map(|error| error.field());
    assert_eq!(field(Config::new(0, ms(1))), Some("permits"));
    assert_eq!(field(Config::new(1, Duration::ZERO)), Some("period"));
    assert_eq!(field(Config::new(1, ms(1)).with_burst(0)), Some("burst"));
    assert_eq!(field(Config::new(1, Duration::MAX)), Some("burst"));
    assert_eq!(field(Config::new(u32::MAX, Duration::from_nanos(1))), None, "rounded up to one a nanosecond");
    let longest = Duration::from_nanos(u64::MAX / 8);
    assert_eq!(field(Config::new(1, longest)), None, "36 years");
    assert_eq!(field(Config::new(1, longest + Duration::from_nanos(1))), Some("burst"));
}

#[test]
fn a_configuration_says_what_it_was_given() {
    let config = Config::new(7, ms(100)).with_burst(3);
    assert_eq!((config.permits(), config.period(), config.burst()), (7, ms(100), 3));
    assert_eq!(Config::new(7, ms(100)).burst(), 7, "all of a period's at once");
}

#[test]
fn an_arrival_survives_packing_and_leaves_the_cells_bit_alone() {
    for nanos in [0, 1, 1 << 32, Arrival::LAST - 1, Arrival::LAST] {
        let (head, tail) = Arrival(nanos).pack();
        assert_eq!(
            (Arrival::unpack(head, tail), head >> 63, tail, Arrival::has_tail(head)),
            (Arrival(nanos), 0, 0, false)
        );
    }
    assert_eq!(Arrival::LAST, i64::MAX as u64, "all bits but the cell's");
}

#[test]
fn permits_that_are_there_cost_one_look_at_the_clock_and_no_timer() {
    let (limiter, rig) = (limiter(Config::new(1, ms(100)).with_queue(1, ms(100))), Rig::new());
    assert!(matches!(poll_once(Box::pin(limiter.acquire(1, &rig)).as_mut()), Poll::Ready(Ok(()))));
    assert_eq!((rig.reads(), rig.sleeps()), (1, 0));
}

#[test]
fn the_end_of_time_overflows_nothing() {
    let limiter = limiter(Config::new(1, Duration::from_secs(1)).with_queue(u32::MAX, Duration::MAX));
    for _ in 0..10 {
        let _ = limiter.reserve(u32::MAX, Duration::MAX, &Instant::MAX).map(Reservation::commit);
        let _ = limiter.try_acquire(&Instant::MAX);
        let _ = (limiter.available(&Instant::MAX), limiter.available(&Instant::START));
    }
    let last = Instant::from_nanos(Arrival::LAST - 1_000_000_000);
    assert!(self::limiter(Config::new(1, Duration::from_secs(1))).try_acquire(&last).is_ok(), "the last call there is");
    assert_eq!(Arrival::FRESH.pack(), (0, 0));
    assert!(limiter.arrival.get().0 <= Arrival::LAST);
}

#[test]
fn another_quota_leaves_taken_what_was_taken() {
    let limiter = RateLimiter::<Live<Local>>::new(valid!(Config::new(10, Duration::from_secs(1)).validate()));
    limiter.try_acquire_many(6, &Instant::START).expect("there are ten");
    limiter.reconfigure(valid!(Config::new(100, Duration::from_secs(1)).validate()), &Instant::START);
    assert_eq!(limiter.available(&Instant::START), 94);
    limiter.reconfigure(valid!(Config::new(5, Duration::from_secs(1)).validate()), &Instant::START);
    assert_eq!(limiter.available(&Instant::START), 0, "no more is owed than one burst");
    assert_eq!(limiter.config(), Config::new(5, Duration::from_secs(1)));
}

#[test]
fn in_a_pipeline_calls_wait_for_their_turn_and_are_rejected_when_that_is_too_far_off() {
    let executor = VirtualExecutor::new();
    let limiter = limiter(Config::new(1, ms(100)).with_queue(9, ms(150)));
    let pipeline = Pipeline::new(&executor).layer(&limiter);
    assert_eq!(pipeline.to_string(), "rate limiter: 1 per 100ms, 1 at once, 9 may wait for 150ms");
    let service = Script::new(&[Step::Succeed]);
    for expected in [0, 100, 200] {
        assert!(executor.run(pipeline.call(|_| service.call(&executor))).expect("it ends").is_ok());
        assert_eq!(executor.elapsed(), ms(expected));
    }
    limiter.reserve(1, ms(100), &&executor).expect("the next one").commit();
    let failure = executor.run(pipeline.call(|_| service.call(&executor))).expect("it ends").expect_err("too far off");
    let rejected = failure.rejected().expect("it was rejected");
    assert_eq!((rejected.policy(), rejected.reason()), (Policy::RateLimiter, Reason::RateExceeded));
    assert_eq!(executor.elapsed(), ms(200), "at once");
}

#[test]
fn a_call_that_gives_up_waiting_gives_its_turn_back() {
    let executor = VirtualExecutor::new();
    let limiter = limiter(Config::new(1, ms(100)).with_queue(9, ms(1_000)));
    let pipeline = Pipeline::new(&executor).layer(Timeout::new(ms(50))).layer(&limiter);
    let service = Script::new(&[Step::Succeed]);
    limiter.try_acquire(&&executor).expect("the first");
    let before = limiter.available_at(1, &&executor);
    let failure = executor.run(pipeline.call(|_| service.call(&executor))).expect("it ends").expect_err("no time");
    // The limiter knows the deadline only once the timeout has been armed: either way nothing is lost.
    assert!(failure.is_timed_out() || failure.is_rejected());
    assert_eq!((limiter.available_at(1, &&executor), service.calls()), (before, 0));
    let waiting = Pipeline::new(&executor).layer(&limiter);
    let mut call = Box::pin(waiting.call(|_| service.call(&executor)));
    assert!(poll_once(call.as_mut()).is_pending());
    assert_ne!(limiter.available_at(1, &&executor), before);
    drop(call);
    assert_eq!(limiter.available_at(1, &&executor), before);
    assert_eq!(executor.run((&executor).sleep_until(Instant::from_millis(100))), Ok(()));
    assert!(executor.run(waiting.call(|_| service.call(&executor))).expect("it ends").is_ok());
    assert_eq!(executor.elapsed(), ms(100));
}

#[test]
fn it_takes_one_word_beside_its_settings_and_stands_in_a_static() {
    const CONFIG: Valid<Config> = valid!(Config::new(5, Duration::from_secs(1)).validate());
    std::thread_local! {
        static LIMITER: RateLimiter<Local> = const { RateLimiter::new(CONFIG) };
    }
    LIMITER.with(|limiter| assert_eq!(limiter.available(&ManualClock::new()), 5));
    assert_eq!(size_of::<Arrival>(), 8);
}

#[test]
fn what_is_given_back_never_lets_more_through_than_the_quota() {
    let limiter = limiter(Config::new(1, ms(100)).with_queue(10, Duration::MAX));
    let reserve = || limiter.reserve(1, Duration::MAX, &Instant::START).expect("there is room");
    reserve().commit();
    let (middle, last) = (reserve(), reserve());
    assert_eq!((middle.at(), last.at()), (Instant::from_millis(100), Instant::from_millis(200)));
    // Were it given back, the next one would come at 200 ms too.
    drop(middle);
    assert_eq!(limiter.available(&Instant::START), -2);
    drop(last);
    assert_eq!(limiter.available(&Instant::START), -1);
}

#[test]
fn what_is_given_back_after_its_time_does_not_come_back_twice() {
    let at = Instant::from_millis;
    let limiter = limiter(Config::new(10, ms(1_000)));
    let all = limiter.reserve(10, Duration::ZERO, &at(0)).expect("a whole burst is there");
    // Nine have come back by themselves meanwhile; four of these are used.
    limiter.try_acquire_many(4, &at(900)).expect("they are there");
    drop(all);
    assert_eq!(limiter.available(&at(900)), 5, "with those four, no more than a burst");
}

#[test]
fn a_queue_holds_so_many_permits_and_nobody_for_longer_than_the_longest_wait() {
    let reason = |wait: u64| {
        let limiter = limiter(Config::new(1, ms(100)).with_queue(2, ms(wait)));
        let reserve = |permits| limiter.reserve(permits, Duration::MAX, &Instant::START).map(Reservation::commit);
        let _ = (reserve(1), reserve(1), reserve(1));
        reserve(1).map_err(|rejected| (rejected.reason(), rejected.retry_at()))
    };
    assert_eq!(reason(1_000), Err((Reason::QueueFull, Some(Instant::from_millis(300)))));
    assert_eq!(reason(300), Err((Reason::QueueFull, Some(Instant::from_millis(300)))), "in time, were there a place");
    assert_eq!(reason(299), Err((Reason::RateExceeded, Some(Instant::from_millis(300)))));
    assert_eq!(reason(150), Err((Reason::RateExceeded, Some(Instant::from_millis(200)))));
    assert_eq!(reason(0), Err((Reason::RateExceeded, Some(Instant::from_millis(100)))));
    // There is a place, but whoever asks would not wait so long.
    let limiter = limiter(Config::new(1, ms(100)).with_queue(2, ms(1_000)));
    limiter.reserve(1, Duration::ZERO, &Instant::START).map(Reservation::commit).expect("it is there");
    let rejected = limiter.reserve(1, ms(99), &Instant::START).map(drop).expect_err("a millisecond later");
    assert_eq!((rejected.reason(), rejected.retry_at()), (Reason::RateExceeded, Some(Instant::from_millis(100))));
    // The last place, and none at all.
    for places in [1, 0] {
        let limiter = self::limiter(Config::new(1, ms(100)).with_queue(places, ms(1_000)));
        limiter.reserve(1, Duration::ZERO, &Instant::START).map(Reservation::commit).expect("it is there");
        let rejected = limiter.reserve(1, ms(99), &Instant::START).map(drop).expect_err("a millisecond later");
        assert_eq!(rejected.reason(), Reason::RateExceeded, "{places} places");
    }
}

#[test]
fn callers_wait_in_the_order_in_which_they_came_and_whoever_leaves_gives_the_last_place_back() {
    let executor = VirtualExecutor::new();
    let limiter = limiter(Config::new(1, ms(100)).with_queue(3, ms(1_000)));
    let done = core::cell::RefCell::new(Vec::new());
    let ask = async |name: u32| {
        let result = limiter.acquire(1, &executor).await;
        done.borrow_mut().push((name, result.is_ok(), executor.elapsed()));
    };
    let calls = async {
        let mut all: Vec<_> = (0..5).map(|name| Box::pin(ask(name))).collect();
        core::future::poll_fn(|cx| {
            all.retain_mut(|call| call.as_mut().poll(cx).is_pending());
            // The last one has had enough.
            if executor.elapsed() == ms(100) {
                all.truncate(1);
            }
            if all.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    };
    assert_eq!(executor.run(calls), Ok(()));
    let expected = [(0, true, ms(0)), (4, false, ms(0)), (1, true, ms(100)), (2, true, ms(200))];
    assert_eq!(*done.borrow(), expected);
    assert_eq!(limiter.available_at(1, &&executor), Some(Instant::from_millis(300)), "not 400");
}

mod keyed {
    use std::collections::BTreeMap;

    use super::*;

    type Limiter<const N: usize> = KeyedRateLimiter<Local, u32, N>;

    #[test]
    fn with_places_for_all_each_key_has_a_limiter_of_its_own() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let config =
                Config::new(1 + rng.next() % 5, Duration::from_nanos(1_000)).validate().expect("it makes sense");
            let (keyed, mut alone, mut now) = (Limiter::<64>::new(config), BTreeMap::new(), 0_u64);
            for step in 0..3_000 {
                now += u64::from(rng.next()) % 100;
                let (key, permits) = (rng.next() % 64, rng.next() % 3);
                let alone = alone.entry(key).or_insert_with(|| RateLimiter::<Local>::new(config));
                let expected = alone.try_acquire_many(permits, &nanos(now));
                assert_eq!(keyed.try_acquire_many(&key, permits, &nanos(now)), expected, "seed {seed}, step {step}");
                assert_eq!(i64::from(keyed.available(&key, &nanos(now))), alone.available(&nanos(now)));
            }
        }
    }

    #[test]
    fn a_flood_of_keys_gets_one_quota_beyond_its_places_and_those_known_before_keep_theirs() {
        let keyed = Limiter::<8>::new(valid!(Config::new(2, Duration::from_secs(1)).validate()));
        assert_eq!(keyed.try_acquire(&0, &Instant::START), Ok(()));
        let passed = (1..10_000).filter(|key| keyed.try_acquire(key, &Instant::START).is_ok()).count();
        assert_eq!((passed, keyed.keys()), (7 + 2, 8));
        assert_eq!(keyed.try_acquire(&0, &Instant::START), Ok(()), "its second one");
        let rejected = keyed.try_acquire(&0, &Instant::START).expect_err("it had two");
        assert_eq!(rejected.retry_at(), Some(Instant::from_millis(500)));
        // Seven of them have their burst back: their places are free.
        let later = Instant::from_millis(500);
        let passed = (20_000..30_000).filter(|key| keyed.try_acquire(key, &later).is_ok()).count();
        assert_eq!((passed, keyed.keys()), (7 + 1, 8), "and one permit of the others'");
        assert_eq!(keyed.available(&0, &later), 1, "it still has its place");
    }

    #[test]
    fn another_quota_holds_for_all_keys_that_are_known() {
        let keyed = KeyedRateLimiter::<Live<Local>, u32, 2>::new(valid!(Config::new(4, ms(1_000)).validate()));
        for key in [1, 2, 3] {
            assert_eq!(keyed.try_acquire_many(&key, 3, &Instant::START), Ok(()));
        }
        keyed.reconfigure(valid!(Config::new(8, ms(1_000)).validate()), &Instant::START);
        assert_eq!([1, 2, 3].map(|key| keyed.available(&key, &Instant::START)), [5, 5, 5]);
    }

    #[test]
    fn one_key_is_a_layer() {
        let executor = VirtualExecutor::new();
        let keyed = Limiter::<8>::new(valid!(Config::new(1, ms(100)).validate()));
        let service = Script::new(&[Step::Succeed]);
        let call = |key| {
            let pipeline = Pipeline::new(&executor).layer(keyed.of(key));
            assert_eq!(pipeline.to_string(), "rate limiter: 1 per 100ms, 1 at once, for each key");
            executor.run(pipeline.call(|_| service.call(&executor))).expect("it ends")
        };
        assert!(call(1).is_ok() && call(2).is_ok());
        let rejected = call(1).expect_err("it had one").rejected().expect("by the limiter");
        assert_eq!(rejected.reason(), Reason::RateExceeded);
        assert_eq!(service.calls(), 2);
    }

    #[test]
    fn a_call_that_is_dropped_gives_back_what_lies_within_its_key() {
        let executor = VirtualExecutor::new();
        let keyed = Limiter::<8>::new(valid!(Config::new(1, ms(100)).validate()));
        let compartment = Bulkhead::<Local, NoQueue>::new(valid!(bulkhead::Config::new(1).validate()));
        let pipeline = Pipeline::new(&executor).layer(keyed.of(1)).layer(&compartment);
        let mut call = Box::pin(pipeline.call(|_| core::future::pending::<Result<(), ()>>()));
        assert!(poll_once(call.as_mut()).is_pending());
        assert_eq!(compartment.snapshot().in_use, 1);
        drop(call);
        assert_eq!(compartment.snapshot().in_use, 0);
    }
}

#[test]
fn of_a_key_what_is_available_can_be_taken_and_no_less() {
    let keyed: KeyedRateLimiter<Local, u32, 2> =
        KeyedRateLimiter::new(valid!(Config::new(10, Duration::from_secs(10)).validate()));
    for key in 0..2 {
        keyed.try_acquire(&key, &Instant::START).expect("a place");
    }
    keyed.try_acquire_many(&9, 10, &Instant::START).expect("what all others share");
    assert_eq!(keyed.available(&7, &Instant::from_millis(999)), 0);
    let later = Instant::from_millis(2_000);
    assert_eq!(keyed.available(&7, &later), 10, "places are free again");
    for _ in 0..10 {
        keyed.try_acquire(&7, &later).expect("available");
    }
    assert!(keyed.try_acquire(&7, &later).is_err());
}

#[test]
fn a_new_key_goes_by_what_all_others_share_only_while_there_is_no_place() {
    let config = valid!(Config::new(1, ms(100)).validate());
    let keyed: KeyedRateLimiter<Local, u32, 2> = KeyedRateLimiter::new(config);
    for key in 0..2 {
        keyed.try_acquire(&key, &Instant::START).expect("a place");
    }
    keyed.try_acquire(&9, &Instant::from_millis(50)).expect("what all others share");
    keyed.try_acquire(&2, &Instant::from_millis(100)).expect("a place that has come free");
    assert_eq!(keyed.available(&3, &Instant::from_millis(100)), 1, "the other one");
}

#[test]
fn a_clock_that_steps_back_far_leaves_room_for_other_keys() {
    let config = valid!(Config::new(1, ms(100)).validate());
    let keyed: KeyedRateLimiter<Local, u32, 2> = KeyedRateLimiter::new(config);
    let hour = Instant::from_millis(3_600_000);
    for key in 0..2 {
        keyed.try_acquire(&key, &hour).expect("a place");
    }
    assert!(keyed.try_acquire(&8, &hour).is_ok() && keyed.try_acquire(&8, &hour).is_err(), "what all others share");
    // What was taken is owed from now on, for no longer than a burst takes to come back.
    assert!(keyed.try_acquire(&2, &Instant::START).is_err());
    for key in 2..4 {
        keyed.try_acquire(&key, &Instant::from_millis(100)).expect("a place of its own");
    }
}

#[test]
fn places_come_free_for_one_generation_of_keys_after_the_other_and_after_a_clock_that_jumped() {
    let config = valid!(Config::new(10, Duration::from_secs(10)).validate());
    let keyed: KeyedRateLimiter<Local, u32, 2> = KeyedRateLimiter::new(config);
    for key in 0..2 {
        keyed.try_acquire(&key, &Instant::from_millis(3_600_000)).expect("ahead");
    }
    for generation in 0..20 {
        let now = Instant::from_millis(20_000 * generation);
        for key in [10, 11] {
            let key = key + 2 * u32::try_from(generation).expect("few");
            keyed.try_acquire_many(&key, if generation == 0 { 5 } else { 10 }, &now).expect("a quota of its own");
        }
    }
}
