#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, reason = "tests")]

use std::string::ToString;
use std::vec::Vec;

use super::*;
use crate::Pipeline;
use crate::cell::{Live, Local};
use crate::executor::Executor as _;
use crate::rng::Rng;
use crate::testing::tests::ms;
use crate::testing::{ManualClock, Script, Step, VirtualExecutor};
use crate::timeout::Timeout;
use crate::valid;

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

    /// Fills; a clock that stepped back finds no less than what the longest wait could have left.
    fn fill(&mut self, now: u64) {
        let passed = i128::from(now) - i128::from(self.at);
        self.level = (self.level + passed).clamp(-self.longest_wait, self.burst);
        self.at = now;
    }

    /// When so many can be used, and whether that is soon enough: then they are taken.
    fn take(&mut self, permits: u32, wait: i128, now: u64) -> Result<u64, u64> {
        self.fill(now);
        let left = self.level - self.interval * i128::from(permits);
        let usable = (i128::from(now) + (-left).max(0)) as u64;
        if -left > wait {
            return Err(usable);
        }
        self.level = left;
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
        let config = config.with_burst(burst).with_longest_wait(Duration::from_nanos(wait));
        let (limiter, mut bucket, mut now) = (limiter(config), Bucket::new(permits, period, burst, wait), 0_u64);
        for step in 0..3_000 {
            let what = std::format!("seed {seed}, step {step}");
            now = match rng.next() % 12 {
                0 => now.saturating_sub(u64::from(rng.next()) % 20_000),
                1 => now + u64::from(rng.next()) % 100_000,
                2..6 => now,
                _ => now + u64::from(rng.next()) % (period / u64::from(permits) + 2),
            };
            let (count, clock) = (rng.next() % 4, nanos(now));
            if rng.next() % 2 == 0 {
                let found = limiter.try_acquire_many(count, &clock);
                if count > burst {
                    assert_eq!(found.map_err(|rejected| rejected.reason()), Err(Reason::TooHeavy), "{what}");
                } else if count == 0 {
                    let taken = bucket.take(1, 0, now);
                    bucket.level = if taken.is_ok() { bucket.level + bucket.interval } else { bucket.level };
                    assert_eq!(found.is_ok(), taken.is_ok(), "{what}");
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
                        if rng.next() % 3 == 0 {
                            drop(reservation);
                            bucket.level += bucket.interval * i128::from(count);
                        } else {
                            reservation.commit();
                        }
                    }
                    (Err(rejected), Err(at)) => assert_eq!(rejected.retry_at(), Some(nanos(at)), "{what}"),
                    (found, expected) => panic!("{what}: {found:?}, not {expected:?}"),
                }
            }
            bucket.fill(now);
            let available = bucket.level.div_euclid(bucket.interval) as i64;
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
}

#[test]
fn the_end_of_time_overflows_nothing() {
    let limiter = limiter(Config::new(1, Duration::from_secs(1)).with_longest_wait(Duration::MAX));
    for _ in 0..10 {
        let _ = limiter.reserve(u32::MAX, Duration::MAX, &Instant::MAX).map(Reservation::commit);
        let _ = limiter.try_acquire(&Instant::MAX);
        let _ = (limiter.available(&Instant::MAX), limiter.available(&Instant::START));
    }
    assert_eq!(Arrival::FRESH.pack(), (0, 0));
    assert!(limiter.arrival.borrow().0 <= Arrival::LAST);
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
    let limiter = limiter(Config::new(1, ms(100)).with_longest_wait(ms(150)));
    let pipeline = Pipeline::new(&executor).layer(&limiter);
    assert_eq!(pipeline.to_string(), "rate limiter: 1 per 100ms, 1 at once, waits up to 150ms");
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
    let limiter = limiter(Config::new(1, ms(100)).with_longest_wait(ms(1_000)));
    let pipeline = Pipeline::new(&executor).layer(Timeout::new(ms(50))).layer(&limiter);
    let service = Script::new(&[Step::Succeed]);
    limiter.try_acquire(&&executor).expect("the first");
    let before = limiter.available_at(1, &&executor);
    let failure = executor.run(pipeline.call(|_| service.call(&executor))).expect("it ends").expect_err("no time");
    // The limiter knows the deadline only once the timeout has been armed: either way nothing is lost.
    assert!(failure.is_timed_out() || failure.is_rejected());
    assert_eq!((limiter.available_at(1, &&executor), service.calls()), (before, 0));
    let waiting = Pipeline::new(&executor).layer(&limiter);
    let mut call = std::boxed::Box::pin(waiting.call(|_| service.call(&executor)));
    assert!(crate::testing::tests::poll_once(call.as_mut()).is_pending());
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
