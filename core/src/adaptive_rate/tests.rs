#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, clippy::float_arithmetic, reason = "tests")]

use core::cell::{Cell, RefCell};
use std::boxed::Box;
use std::string::ToString;
use std::vec::Vec;

use super::*;
use crate::backoff::{Backoff, Jitter};
use crate::cell::Local;
use crate::outcome::Verdict;
use crate::retry::{self, RetryPolicy};
use crate::rng::Rng;
use crate::testing::tests::{Rig, at, ms, poll_once};
use crate::testing::{ManualClock, Recorder, Script, Step, VirtualExecutor, never};
use crate::timeout::Timeout;
use crate::{Pipeline, valid};

fn limiter(config: Config) -> AdaptiveRate<Local> {
    AdaptiveRate::new(config.validate().expect("it makes sense"))
}

/// What a rate is in calls per second.
fn calls(rate: Rate) -> f64 {
    rate.as_millionths() as f64 / 1e6
}

/// A limiter that was throttled at this time, and lets so many calls a second pass since.
fn cut_to(rate: Rate, config: Config, now: Instant) -> AdaptiveRate<Local> {
    let limiter = limiter(config.with_lowest(rate));
    limiter.record(true, &now);
    assert_eq!(limiter.snapshot().limit, Some(rate));
    limiter
}

mod rates {
    use super::*;

    #[test]
    fn they_round_to_the_nearest_millionth_saturate_and_are_printed_as_decimals() {
        for (calls, millis, text) in [
            (1, 2_000, "0.5 per second"),
            (1, 3_000, "0.333333 per second"),
            (2, 3_000, "0.666667 per second"),
            (7, 1_000, "7 per second"),
            (1, 1_000_000_000, "0.000001 per second"),
            (0, 1_000, "0 per second"),
            (1, 0, "1000000 per second"),
            (u32::MAX, 1, "1000000 per second"),
        ] {
            assert_eq!(Rate::of(calls, ms(millis)).to_string(), text);
        }
        assert_eq!(Rate::of(1, Duration::MAX), Rate::ZERO);
        assert_eq!(Rate::per_second(u32::MAX), Rate::MAX);
        assert_eq!(Rate::from_millionths(u64::MAX), Rate::MAX);
        assert_eq!(LOWEST, Rate::from_millionths(500_000));
    }
}

mod meter {
    use super::*;

    fn measured(millis: impl IntoIterator<Item = u64>) -> f64 {
        let (config, mut meter) = (Config::new(), RateMeter::FRESH);
        for millis in millis {
            meter.record(&config, at(millis));
        }
        calls(meter.rate())
    }

    #[test]
    fn it_is_the_smoothed_rate_of_the_buckets_that_have_ended() {
        assert!(measured([]) == 0.0);
        assert!(measured([1_000]) == 0.8);
        assert!(measured([100, 200, 300, 400, 490]) == 0.0, "the first bucket has not ended");
        assert!(measured([100, 200, 300, 400, 490, 500]) == 9.6, "six calls in half a second");
        assert!(measured((1..=20).map(|second| second * 1_000)) == 1.0);
        assert!(measured([1_000, 1_000, 1_000, 2_000, 3_000]) >= 1.0);
        let two_a_second = [1_000, 1_500, 2_000, 2_500, 3_000, 3_500, 4_000];
        assert!((1.99..=2.0).contains(&measured(two_a_second)));
        assert!((0.1..=2.0).contains(&measured(two_a_second.into_iter().chain([14_000]))));
    }

    #[test]
    fn it_is_what_the_same_sums_give_in_floating_point() {
        for seed in 0..50 {
            let mut rng = Rng::new(seed);
            let (bucket, weight) = (1 + rng.next() % 10_000, 1 + rng.next() % 10_000);
            let config = Config::new().with_meter(ms(bucket.into()), Ratio::basis_points(weight));
            let weight = f64::from(weight) / 10_000.0;
            let bucket = u64::from(bucket) * 1_000_000;
            let (mut meter, mut now, mut begun, mut count, mut exact) = (RateMeter::FRESH, 0_u64, 0_u64, 0.0, 0.0_f64);
            for _ in 0..2_000 {
                now += u64::from(rng.next()) >> (rng.next() % 20) << 2;
                count += 1.0;
                if now / bucket > begun {
                    let seconds = (now / bucket - begun) as f64 * bucket as f64 / 1e9;
                    exact = weight * count / seconds + (1.0 - weight) * exact;
                    (begun, count) = (now / bucket, 0.0);
                }
                let found = calls(meter.record(&config, Instant::from_nanos(now)));
                // Half a millionth at each bucket's end, of which the weight decides how much is carried on.
                assert!((found - exact).abs() < 2e-6 / weight, "seed {seed}: {found} for {exact}");
            }
        }
    }

    #[test]
    fn a_clock_that_stands_still_or_steps_back_and_the_end_of_time_are_harmless() {
        let (config, mut meter) = (Config::new(), RateMeter::FRESH);
        for _ in 0..1_000 {
            assert_eq!(meter.record(&config, at(100)), Rate::ZERO);
        }
        let fast = meter.record(&config, at(500));
        assert_eq!(fast, Rate::of(1_001 * 4, ms(2_500)));
        // Far ahead, then back where it was: from there on it measures as before.
        meter.record(&config, at(10_000_000));
        let slow = meter.record(&config, at(1_000));
        assert!(slow < Rate::per_second(700));
        for call in 1..=100 {
            meter.record(&config, at(1_000 + call * 100));
        }
        assert!((calls(meter.rate()) - 10.0).abs() < 0.01, "{}", meter.rate());
        meter.record(&config, Instant::MAX);
        assert!(meter.record(&config, Instant::MAX) < Rate::per_second(10));
    }
}

mod curve {
    use super::*;

    fn curve(peak: u32, config: &Config, now: Instant) -> Cubic {
        Cubic::new(config, Rate::per_second(peak), now)
    }

    #[test]
    fn it_begins_at_beta_is_back_at_the_peak_when_it_says_and_rises_on() {
        let config = Config::new();
        let mut ten = curve(10, &config, at(5_000));
        assert_eq!(ten.recovery(), Duration::from_nanos(1_957_433_821));
        for (second, millionths) in [
            (5, 7_000_000),
            (6, 9_648_936),
            (7, 10_000_031),
            (8, 10_453_285),
            (9, 13_408_697),
            (10, 21_266_268),
            (11, 36_425_999),
        ] {
            assert_eq!(ten.rate(&config, at(second * 1_000)).as_millionths(), millionths, "after {second} s");
        }
        assert_eq!(ten.rate(&config, at(5_000).saturating_add(ten.recovery())), Rate::per_second(10));
        assert_eq!((ten.peak(), ten.since()), (Rate::per_second(10), at(5_000)));
        let mut eight = curve(8, &config, at(1_000));
        assert_eq!(eight.recovery(), Duration::from_nanos(1_817_120_593));
        assert_eq!(eight.rate(&config, at(1_000)).as_millionths(), 5_600_000);
        let config = config.with_beta(Ratio::percent(60));
        assert_eq!(curve(10, &config, at(1_000)).rate(&config, at(1_000)), Rate::per_second(6));
    }

    #[test]
    fn it_is_the_formula_as_exactly_as_its_times_are() {
        let mut rng = Rng::new(3);
        for _ in 0..50_000 {
            let (beta, scale) = (rng.next() % 10_000, (1 + rng.next() % 500_000) >> (rng.next() % 19));
            let config =
                Config::new().with_beta(Ratio::basis_points(beta)).with_scale(Ratio::basis_points(scale.max(1)));
            assert!(config.validate().is_ok());
            let peak = Rate::from_millionths((u64::from(rng.next()) * 300) >> (rng.next() % 40));
            let passed = (u64::from(rng.next()) * 100) >> (rng.next() % 38);
            let mut curve = Cubic::new(&config, peak, at(7));
            let (beta, scale) = (f64::from(beta) / 1e4, f64::from(scale.max(1)) / 1e4);
            let k = (calls(peak) * (1.0 - beta) / scale).cbrt();
            let found = curve.recovery().as_secs_f64();
            // Its cube is rounded to half a billionth of a cubic second: what that makes of the root is less than a nanosecond from half a
            // second on.
            assert!((found.powi(3) - k.powi(3)).abs() < 6e-10 + 3e-9 * k * k, "{config:?}, {peak}: {found} s for {k}");
            let exact = (scale * (passed as f64 / 1e9 - k).powi(3) + calls(peak)).clamp(0.0, 1e6);
            let found = calls(curve.rate(&config, at(7).saturating_add(Duration::from_nanos(passed))));
            let steep = 3.0 * scale * (passed as f64 / 1e9 - k).powi(2);
            let inexact = 2e-9 + 2e-10 / k.max(1e-4).powi(2);
            assert!(
                (found - exact).abs() < 1e-6 + steep * inexact,
                "{config:?}, {peak}, {passed} ns: {found} for {exact}"
            );
        }
    }

    #[test]
    fn a_cube_root_is_the_largest_whole_number_whose_cube_is_no_larger() {
        let mut rng = Rng::new(11);
        for _ in 0..20_000 {
            let root = u128::from(rng.next()) << 10 >> (rng.next() % 42);
            let (cube, next) = (root.pow(3), (root + 1).pow(3));
            let between = cube + u128::from(rng.next()) % (next - cube);
            assert_eq!([cube, between, next - 1].map(cubic::cube_root).map(u128::from), [root; 3]);
        }
    }

    #[test]
    fn nothing_overflows_and_a_clock_that_steps_back_begins_it_anew() {
        for beta in [0, 9_999] {
            for scale in [Ratio::basis_points(1), STEEPEST] {
                let config = Config::new().with_beta(Ratio::basis_points(beta)).with_scale(scale);
                for peak in [Rate::ZERO, Rate::MAX] {
                    let mut curve = Cubic::new(&config, peak, Instant::START);
                    assert!(curve.rate(&config, Instant::START) <= peak);
                    assert_eq!(curve.rate(&config, Instant::MAX), Rate::MAX);
                }
            }
        }
        let config = Config::new();
        let mut curve = curve(10, &config, at(1_000_000));
        assert_eq!(curve.rate(&config, at(1_000)), Rate::per_second(7));
        assert_eq!(curve.rate(&config, at(2_000)).as_millionths(), 9_648_936);
    }
}

/// The bucket against the sums in 128 bits, in absolute numbers: what has filled, and what has been taken.
mod bucket {
    use super::*;

    /// A call: a millionth of a microsecond's worth.
    const CALL: i128 = 1_000_000_000_000;

    struct Model {
        filled: i128,
        taken: i128,
        rate: i128,
        micros: i128,
        /// All that has ever come in, as if nothing had been lost to a full bucket.
        brought: i128,
    }

    impl Model {
        fn fill(&mut self, micros: i128) {
            let came = (micros - self.micros) * self.rate;
            let capacity = (self.rate * 1_000_000).max(CALL);
            (self.filled, self.micros) = ((self.filled + came).min(self.taken + capacity), micros);
            self.brought += came;
        }

        /// The microsecond in which the token of this number is there.
        fn when(&self, number: i128) -> i128 {
            self.micros + ((number - self.filled).max(0) + self.rate - 1) / self.rate
        }
    }

    #[test]
    fn every_turn_is_when_its_token_is_there_at_whatever_rates_and_no_more_pass_than_come_in() {
        for seed in 0..60 {
            let mut rng = Rng::new(seed);
            let start = u64::from(rng.next());
            let rate = |rng: &mut Rng| Rate::from_millionths(1 + (u64::from(rng.next()) >> (rng.next() % 32)));
            let (first, mut now) = (rate(&mut rng), start);
            let mut bucket = Bucket::empty(first, Instant::from_nanos(start));
            let mut model = Model { filled: 0, taken: 0, rate: first.as_millionths().into(), micros: 0, brought: 0 };
            let (mut waiting, mut passed) = (Vec::<(Ticket, i128)>::new(), 0_i128);
            // Whether anybody has left the line since it was empty, with others behind.
            let mut left = false;
            for step in 0..2_000 {
                now += u64::from(rng.next()) >> (rng.next() % 32);
                let clock = Instant::from_nanos(now);
                model.fill(i128::from((now - start) / 1_000));
                let instant = |micros: i128| {
                    let at = Instant::from_nanos(start + u64::try_from(micros).expect("in time") * 1_000);
                    at.max(clock)
                };
                match rng.next() % 8 {
                    0 => {
                        let next = rate(&mut rng);
                        bucket.set_rate(next, clock);
                        model.rate = next.as_millionths().into();
                        model.fill(model.micros);
                    }
                    1 if !waiting.is_empty() => {
                        let (ticket, number) = waiting.remove(rng.next() as usize % waiting.len());
                        bucket.give_back(ticket);
                        left |= waiting.last().is_some_and(|(_, last)| *last >= number);
                        model.taken -= CALL;
                    }
                    _ => {
                        let wait = Span::from_nanos(u64::from(rng.next()));
                        let number = model.taken + CALL;
                        let expected = instant(model.when(number));
                        match bucket.take(clock.after(wait), clock) {
                            Ok((ticket, at)) => {
                                assert_eq!(at, expected, "seed {seed}, step {step}");
                                assert!(at <= clock.after(wait));
                                model.taken = number;
                                if at > clock { waiting.push((ticket, number)) } else { passed += CALL }
                            }
                            Err(at) => assert!(at == expected && at > clock.after(wait), "seed {seed}, step {step}"),
                        }
                    }
                }
                let mut ahead = passed;
                waiting.retain(|(ticket, number)| {
                    let turn = bucket.turn(*ticket, clock);
                    ahead += CALL;
                    let place = instant(model.when(ahead));
                    assert!(turn >= place || !left, "seed {seed}, step {step}: before those ahead of it");
                    assert!(turn == instant(model.when(*number)) || left, "seed {seed}, step {step}");
                    passed += if turn <= clock { CALL } else { 0 };
                    turn > clock
                });
                left &= !waiting.is_empty();
                assert!(passed <= model.brought, "seed {seed}, step {step}");
            }
            assert!(passed > 0 && model.taken > 0, "seed {seed}");
        }
    }

    #[test]
    fn it_holds_what_comes_in_a_second_and_at_least_one_call() {
        for (rate, calls) in [(Rate::per_second(10), 10), (Rate::of(1, ms(2_000)), 1), (Rate::MAX, 1_000_000)] {
            let mut bucket = Bucket::empty(rate, Instant::START);
            let taken = (0..2_000_000).take_while(|_| bucket.take(at(1_000_000), at(1_000_000)).is_ok());
            assert_eq!(taken.count(), calls, "{rate}");
        }
    }

    #[test]
    fn a_clock_that_stands_still_fills_nothing_and_one_that_steps_back_is_waited_for_a_second_at_most() {
        let mut bucket = Bucket::empty(Rate::per_second(10), at(3_600_000));
        let now = at(3_600_000);
        assert_eq!(bucket.take(now, now), Err(at(3_600_100)));
        assert_eq!(bucket.take(now, now), Err(at(3_600_100)));
        let back = at(1_000);
        assert_eq!(bucket.take(back, back), Err(at(2_100)));
        assert!(bucket.take(at(2_100), at(2_100)).is_ok());
        let end = Instant::MAX;
        assert!(bucket.take(end, end).is_ok());
    }
}

#[test]
fn nothing_is_limited_and_no_clock_read_for_it_until_a_call_is_throttled() {
    struct Read(Cell<u32>);
    impl Clock for Read {
        fn now(&self) -> Instant {
            self.0.set(self.0.get() + 1);
            at(1_000)
        }
    }
    let (limiter, clock) = (limiter(Config::new()), Read(Cell::new(0)));
    for _ in 0..10_000 {
        assert_eq!(limiter.try_acquire(&clock), Ok(()));
    }
    assert_eq!(clock.0.get(), 0);
    limiter.record(false, &clock);
    assert_eq!((limiter.snapshot().limit, limiter.snapshot().measured), (None, Rate::from_millionths(800_000)));
    assert_eq!(clock.0.get(), 1);
    limiter.record(true, &clock);
    assert!(limiter.try_acquire(&clock).is_err());
    assert_eq!(clock.0.get(), 3);
}

#[test]
fn the_limit_follows_the_answers_as_in_the_systems_it_comes_from() {
    let cuts = Recorder::<RateCut, 4>::new();
    let config = Config::new().validate().expect("it makes sense");
    let limiter: AdaptiveRate<Local, _> = AdaptiveRate::with_observer(config, &cuts);
    let (ok, throttled) = (false, true);
    // Milliseconds, the answer, what is measured then, and the limit.
    let steps = [
        (200, ok, 0.0, None),
        (400, ok, 0.0, None),
        (600, ok, 4.8, None),
        (800, ok, 4.8, None),
        (1_000, ok, 4.16, None),
        (1_200, ok, 4.16, None),
        (1_400, ok, 4.16, None),
        (1_600, ok, 5.632, None),
        (1_800, ok, 5.632, None),
        (2_000, throttled, 4.3264, Some(3.028_48)),
        (2_200, ok, 4.3264, Some(3.486_639_173)),
        (2_400, ok, 4.3264, Some(3.821_874_416)),
        (2_600, ok, 5.665_28, Some(4.053_385_728)),
        (2_800, ok, 5.665_28, Some(4.200_373_108)),
        (3_000, ok, 4.333_056, Some(4.282_036_558)),
        (3_200, throttled, 4.333_056, Some(2.997_425_591)),
        (3_400, ok, 4.333_056, Some(3.452_226_394)),
    ];
    for (millis, answer, measured, limit) in steps {
        limiter.record(answer, &at(millis));
        let found = limiter.snapshot();
        assert!((calls(found.measured) - measured).abs() < 1e-6, "at {millis} ms: {found:?}");
        match (found.limit, limit) {
            (Some(found), Some(limit)) => assert!((calls(found) - limit).abs() < 1e-6, "at {millis} ms: {found}"),
            (found, limit) => assert!(found.is_none() && limit.is_none(), "at {millis} ms: {found:?}"),
        }
    }
    let cuts: Vec<_> = cuts.take().map(|cut| (cut.from.is_some(), cut.at, cut.to, cut.measured)).collect();
    let millionths = Rate::from_millionths;
    assert_eq!(cuts[0], (false, at(2_000), millionths(3_028_480), millionths(4_326_400)));
    assert_eq!(cuts[1], (true, at(3_200), millionths(2_997_426), millionths(4_333_056)));
    assert_eq!(cuts.len(), 2);
}

#[test]
fn the_limit_is_at_most_twice_what_is_measured_and_never_below_the_lowest() {
    let config = Config::new();
    let limit = |calculated, measured| config.limit(Rate::per_second(calculated), Rate::per_second(measured));
    assert_eq!(limit(100, 20), Rate::per_second(40));
    assert_eq!(limit(20, 21), Rate::per_second(20));
    assert_eq!(limit(0, 20), LOWEST);
    assert_eq!(limit(20, 0), LOWEST);
}

#[test]
fn a_crowd_that_is_throttled_together_cuts_once_where_there_is_a_settling_time() {
    let cut = |config: Config| {
        let limiter = limiter(config);
        for call in 1..=100 {
            limiter.record(false, &at(call * 100));
        }
        for call in 0..5 {
            limiter.record(true, &at(10_100 + call * 10));
        }
        limiter
    };
    assert_eq!(cut(Config::new()).snapshot().limit, Some(Rate::from_millionths(1_680_700)), "10 · 0.7⁵");
    let settling = cut(Config::new().with_settling(ms(100)));
    assert_eq!(settling.snapshot().limit, Some(Rate::per_second(7)));
    settling.record(false, &at(10_199));
    let risen = settling.snapshot().limit.expect("it is limited");
    assert!(risen > Rate::per_second(7), "answers that are well still count");
    settling.record(true, &at(10_200));
    let cut = settling.snapshot().limit.expect("it is limited");
    assert!((calls(cut) - calls(risen) * 0.7).abs() < 1e-5, "{risen}, {cut}");
}

#[test]
fn callers_wait_in_the_order_in_which_they_came_and_are_rejected_when_that_is_too_long() {
    let executor = VirtualExecutor::new();
    let limiter = cut_to(Rate::per_second(10), Config::new().with_longest_wait(ms(300)), Instant::START);
    let done = RefCell::new(Vec::new());
    let ask = async |name: u32| {
        let result = limiter.acquire(&executor).await;
        let retry_at = result.err().and_then(|rejected| rejected.retry_at());
        done.borrow_mut().push((name, retry_at, executor.elapsed()));
    };
    let calls = async {
        let mut all: Vec<_> = (0..4).map(|name| Box::pin(ask(name))).collect();
        core::future::poll_fn(|cx| {
            all.retain_mut(|call| call.as_mut().poll(cx).is_pending());
            if all.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    };
    assert_eq!(executor.run(calls), Ok(()));
    let expected = [(3, Some(at(400)), ms(0)), (0, None, ms(100)), (1, None, ms(200)), (2, None, ms(300))];
    assert_eq!(*done.borrow(), expected);
}

#[test]
fn a_cut_makes_those_who_wait_wait_longer_or_rejects_them() {
    let executor = VirtualExecutor::new();
    let slower = |longest: Duration| {
        let config = Config::new().with_longest_wait(longest);
        let limiter = limiter(config.with_meter(ms(500), Ratio::ONE));
        let begin = executor.now();
        let after = |millis| begin.saturating_add(ms(millis));
        // Ten a second are measured, and cut to seven: 143 ms a call.
        for call in 1..=20 {
            limiter.record(false, &after(call * 100));
        }
        limiter.record(true, &after(2_000));
        executor.jump_to(after(2_000));
        let mut first = Box::pin(limiter.acquire(&executor));
        let mut second = Box::pin(limiter.acquire(&executor));
        assert!(poll_once(first.as_mut()).is_pending() && poll_once(second.as_mut()).is_pending());
        // After 100 ms, cut to a tenth of that and less.
        for _ in 0..6 {
            limiter.record(true, &after(2_100));
        }
        let first = executor.run(first).expect("it ends");
        let passed = executor.now().saturating_duration_since(after(2_000));
        let second = executor.run(second).expect("it ends");
        let both = executor.now().saturating_duration_since(after(2_000));
        (limiter.snapshot().limit.map(calls), first.is_ok(), passed, second.is_ok(), both)
    };
    // 0.7 calls have come in after 100 ms; the rest of the first, and the second, at 0.823543 a second.
    let (rate, first, passed, second, both) = slower(ms(10_000));
    assert!(rate.is_some_and(|rate| (rate - 0.823_543).abs() < 1e-5), "{rate:?}");
    assert_eq!((first, passed.as_millis(), second, both.as_millis()), (true, 464, true, 1_678));
    // A turn at the very end of the longest wait is still in time.
    let nanosecond = Duration::from_nanos(1);
    assert_eq!([passed, passed - nanosecond].map(|longest| slower(longest).1), [true, false]);
    // The second finds out when its turn would have come, and that the new one is too far off.
    let (_, first, passed, second, both) = slower(ms(1_000));
    assert_eq!((first, passed.as_millis(), second, both.as_millis()), (true, 464, false, 464));
}

#[test]
fn a_token_that_is_there_costs_one_look_at_the_clock_and_no_timer() {
    let limiter = cut_to(Rate::per_second(10), Config::new(), Instant::START);
    let rig = Rig::new();
    rig.set(at(100));
    assert!(matches!(poll_once(Box::pin(limiter.acquire(&rig)).as_mut()), Poll::Ready(Ok(()))));
    assert_eq!((rig.reads(), rig.sleeps()), (1, 0));
}

#[test]
fn a_caller_that_stops_waiting_gives_its_token_back_for_whoever_comes_next() {
    let executor = VirtualExecutor::new();
    let limiter = cut_to(Rate::per_second(10), Config::new(), Instant::START);
    let next = || limiter.try_acquire(&&executor).expect_err("it is empty").retry_at();
    let wait = || {
        let mut call = Box::pin(limiter.acquire(&executor));
        assert!(poll_once(call.as_mut()).is_pending());
        call
    };
    assert_eq!(next(), Some(at(100)));
    let (middle, last) = (wait(), wait());
    assert_eq!(next(), Some(at(300)));
    drop(middle);
    assert_eq!(next(), Some(at(200)), "beside the last one, which keeps its turn: two by then");
    drop(last);
    assert_eq!(next(), Some(at(100)));
    drop(limiter.acquire(&executor));
    assert_eq!(next(), Some(at(100)), "never polled, it took nothing");
}

/// "Too many requests" is what makes it adapt; everything else is an error like any other.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Status {
    TooManyRequests,
    Unavailable,
}

fn classify<T>(result: Result<&T, &Status>) -> Verdict {
    match result {
        Ok(_) => Verdict::SUCCESS,
        Err(Status::TooManyRequests) => Verdict::TRANSIENT.with_throttled(),
        Err(Status::Unavailable) => Verdict::TRANSIENT,
    }
}

#[test]
fn in_a_pipeline_it_slows_down_to_what_a_service_takes_and_most_calls_pass() {
    let executor = VirtualExecutor::new();
    let limiter = limiter(Config::new().with_longest_wait(Duration::from_secs(60)));
    let pipeline = Pipeline::new(&executor).layer(&limiter).classify(classify::<u32>);
    assert_eq!(pipeline.to_string(), "adaptive rate: 70 % when throttled, 0.5 per second at least, waits 60s at most");
    // A service that takes 20 calls a second, and one that calls it again as soon as it has answered, 20 ms later. For each second, the calls
    // that were throttled and those that were not.
    let counts = RefCell::new([[0_u32; 2]; 60]);
    let service = async || {
        (&executor).sleep_until(executor.now().saturating_add(ms(20))).await;
        let second = executor.elapsed().as_secs() as usize;
        let mut counts = counts.borrow_mut();
        let [throttled, taken] = counts.get_mut(second).ok_or(Status::Unavailable)?;
        if *taken < 20 {
            *taken += 1;
            return Ok(1);
        }
        *throttled += 1;
        Err(Status::TooManyRequests)
    };
    while executor.elapsed() < Duration::from_secs(60) {
        let result = executor.run(pipeline.call(|_| service())).expect("it ends");
        assert!(!result.is_err_and(|failure| failure.is_rejected()));
    }
    let counts = counts.into_inner();
    let [throttled, taken] = counts[10..].iter().fold([0; 2], |[a, b], [c, d]| [a + c, b + d]);
    assert!(taken > 50 * 12, "{taken} of the 1,000 that could have been taken");
    assert!(throttled * 10 < taken, "{throttled} throttled, {taken} taken");
    assert_eq!(counts[0], [1, 20], "the first one stops it: nothing has been measured yet");
}

#[test]
fn in_a_pipeline_only_answers_count_and_only_throttled_ones_cut() {
    let executor = VirtualExecutor::new();
    let limiter = limiter(Config::new());
    let pipeline = Pipeline::new(&executor).layer(&limiter).classify(classify::<u32>);
    let answer =
        |answer: Result<u32, Status>| executor.run(pipeline.call(|_| core::future::ready(answer))).expect("it ends");
    assert_eq!(answer(Ok(5)), Ok(5));
    assert!(answer(Err(Status::Unavailable)).is_err());
    // Dropped without an answer, or not let through by a policy within.
    assert!(executor.run(pipeline.call(|_| never::<Result<u32, Status>>())).is_err(), "it hangs");
    let inner = cut_to(Rate::per_second(1), Config::new().with_longest_wait(Duration::ZERO), Instant::START);
    let rejecting = Pipeline::new(&executor).layer(&limiter).layer(&inner).classify(classify::<u32>);
    let failure = executor.run(rejecting.call(async |_| Ok(5))).expect("it ends").expect_err("the inner one is empty");
    let rejected = failure.rejected().expect("rejected");
    assert_eq!((rejected.policy(), rejected.reason()), (Policy::AdaptiveRate, Reason::RateExceeded));
    assert_eq!(limiter.snapshot().limit, None);
    // That makes three in half a second, with the weight of the first bucket.
    executor.jump_to(at(500));
    assert!(answer(Err(Status::TooManyRequests)).is_err());
    let (measured, limit) = (Rate::from_millionths(4_800_000), Rate::from_millionths(3_360_000));
    assert_eq!(limiter.snapshot(), Snapshot { limit: Some(limit), measured });
    // From here on they wait.
    assert_eq!(answer(Ok(5)), Ok(5));
    assert_eq!(executor.elapsed(), Duration::from_micros(500_000 + 297_620));
}

#[test]
fn in_a_pipeline_nobody_waits_beyond_the_deadline_and_whoever_is_dropped_gives_its_token_back() {
    let executor = VirtualExecutor::new();
    let limiter = cut_to(Rate::per_second(10), Config::new(), Instant::START);
    let next = || limiter.try_acquire(&&executor).expect_err("it is empty").retry_at();
    let service = Script::new(&[Step::Succeed]);
    let hurried = Pipeline::new(&executor).layer(Timeout::new(ms(50))).layer(&limiter);
    let failure = executor.run(hurried.call(|_| service.call(&executor))).expect("it ends").expect_err("no time");
    assert!(failure.is_rejected());
    assert_eq!((executor.elapsed(), service.calls(), next()), (ms(0), 0, Some(at(100))));
    let patient = Pipeline::new(&executor).layer(&limiter);
    let mut call = Box::pin(patient.call(|_| service.call(&executor)));
    assert!(poll_once(call.as_mut()).is_pending());
    assert_eq!(next(), Some(at(200)));
    drop(call);
    assert_eq!(next(), Some(at(100)));
    assert_eq!(executor.run(patient.call(|_| service.call(&executor))).expect("it ends"), Ok(1));
    assert_eq!(executor.elapsed(), ms(100));
}

#[test]
fn a_clock_that_steps_back_and_the_end_of_time_leave_it_at_work() {
    let (cuts, clock) = (Recorder::<RateCut, 8>::new(), ManualClock::new());
    let config = Config::new().with_settling(ms(100)).validate().expect("it makes sense");
    let limiter: AdaptiveRate<Local, _> = AdaptiveRate::with_observer(config, &cuts);
    for call in 0..=100 {
        clock.set(at(3_590_000 + call * 100));
        limiter.record(false, &&clock);
    }
    limiter.record(true, &&clock);
    clock.set(Instant::START);
    limiter.record(true, &&clock);
    assert_eq!(cuts.take().count(), 1, "it can't tell how long ago the cut was");
    clock.set(at(100));
    limiter.record(true, &&clock);
    assert_eq!(cuts.take().count(), 1);
    for call in 0..200 {
        clock.set(at(call * 100));
        limiter.record(false, &&clock);
        let _ = limiter.try_acquire(&&clock);
    }
    assert!(limiter.snapshot().limit > Some(Rate::per_second(15)), "{:?}", limiter.snapshot());
    assert!(limiter.try_acquire(&&clock).is_ok());
    clock.set(Instant::MAX);
    limiter.record(true, &&clock);
    limiter.record(false, &&clock);
    assert!(limiter.try_acquire(&&clock).is_ok());
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let field = |config: Config| config.validate().err().map(|error| error.field());
    let new = Config::new;
    assert_eq!(field(new().with_beta(Ratio::ZERO)), None);
    assert_eq!(field(new().with_beta(Ratio::ONE)), Some("beta"));
    assert_eq!(field(new().with_scale(Ratio::ZERO)), Some("scale"));
    assert_eq!(field(new().with_scale(STEEPEST)), None);
    assert_eq!(field(new().with_scale(Ratio::basis_points(500_001))), Some("scale"));
    assert_eq!(field(new().with_headroom(Ratio::ONE)), Some("headroom"));
    assert_eq!(field(new().with_lowest(Rate::ZERO)), Some("lowest"));
    assert_eq!(field(new().with_meter(Duration::from_nanos(999_999), SMOOTHING)), Some("bucket"));
    assert_eq!(field(new().with_meter(ms(10_001), SMOOTHING)), Some("bucket"));
    assert_eq!(field(new().with_meter(ms(1), SMOOTHING)), None);
    assert_eq!(field(new().with_meter(ms(10_000), SMOOTHING)), None);
    assert_eq!(field(new().with_meter(BUCKET, Ratio::ZERO)), Some("smoothing"));
    assert_eq!(field(new().with_meter(BUCKET, Ratio::percent(101))), Some("smoothing"));
    assert_eq!(field(new().with_settling(Duration::MAX).with_longest_wait(Duration::MAX)), None);
}

#[test]
fn it_stands_in_a_static_and_is_as_large_as_its_page_says() {
    const CONFIG: Valid<Config> = valid!(Config::new().validate());
    std::thread_local! {
        static LIMITER: AdaptiveRate<Local> = const { AdaptiveRate::new(CONFIG) };
    }
    LIMITER.with(|limiter| assert_eq!(limiter.snapshot(), Snapshot { limit: None, measured: Rate::ZERO }));
    assert_eq!(size_of::<State>(), 96);
}

#[test]
fn a_line_that_gave_up_after_a_cut_is_in_nobodys_way() {
    let executor: VirtualExecutor<1_024> = VirtualExecutor::seeded(1);
    let limiter = limiter(Config::new().with_meter(ms(500), Ratio::ONE));
    for call in 1..=200 {
        limiter.record(false, &at(call * 10));
    }
    limiter.record(true, &at(2_000));
    executor.jump_to(at(2_000));
    let mut line: Vec<_> = (0..600).map(|_| Box::pin(limiter.acquire(&executor))).collect();
    line.retain_mut(|call| poll_once(call.as_mut()).is_pending());
    assert_eq!(line.len(), 600);
    for _ in 0..20 {
        limiter.record(true, &at(2_001));
    }
    assert_eq!(limiter.snapshot().limit, Some(LOWEST));
    let (mut passed, mut rejected) = (0, 0);
    let all = core::future::poll_fn(|cx| {
        line.retain_mut(|call| {
            let Poll::Ready(result) = call.as_mut().poll(cx) else { return true };
            if result.is_ok() {
                passed += 1;
            } else {
                rejected += 1;
            }
            false
        });
        if line.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    });
    executor.run(all).expect("it ends");
    // Ten seconds are the longest wait.
    assert!(passed <= 6 && passed + rejected == 600, "{passed} passed");
    let before = executor.elapsed();
    assert!(executor.run(limiter.acquire(&executor)).expect("it ends").is_ok());
    assert!(executor.elapsed() <= before + ms(2_000), "{:?} after {before:?}", executor.elapsed());
}

#[test]
fn impatient_callers_leave_what_they_do_not_use_to_others() {
    let executor: VirtualExecutor<1_024> = VirtualExecutor::seeded(1);
    let limiter = cut_to(Rate::per_second(10), Config::new(), Instant::START);
    // Twice as many as may pass, each with a second's patience.
    let (mut line, mut passed) = (Vec::new(), 0);
    for tick in 0..1_200 {
        let now = at(tick * 50);
        executor.jump_to(now);
        line.push((now, Box::pin(limiter.acquire(&executor))));
        line.retain_mut(|(since, call)| match poll_once(call.as_mut()) {
            Poll::Ready(result) => {
                passed += u32::from(result.is_ok());
                false
            }
            Poll::Pending => now.saturating_duration_since(*since) < ms(1_000),
        });
    }
    assert!((500..=601).contains(&passed), "{passed} of 600");
}

#[test]
fn a_rate_that_is_as_low_as_it_gets_is_not_cut() {
    let cuts = Recorder::<RateCut, 8>::new();
    let config = Config::new().validate().expect("it makes sense");
    let limiter: AdaptiveRate<Local, _> = AdaptiveRate::with_observer(config, &cuts);
    for call in 0..5 {
        limiter.record(true, &at(call));
    }
    let cuts: Vec<_> = cuts.take().map(|cut| (cut.from, cut.to)).collect();
    assert_eq!(cuts, [(None, LOWEST)]);
}

#[test]
fn each_attempt_takes_a_token() {
    let executor = VirtualExecutor::new();
    let limiter = cut_to(Rate::per_second(10), Config::new(), Instant::START);
    let backoff = Backoff::constant(ms(1)).with_jitter(Jitter::None);
    let retry =
        RetryPolicy::new(retry::Config::new().with_max_attempts(3).with_backoff(backoff).validate().expect("valid"));
    let pipeline = Pipeline::new(&executor).layer(retry).layer(&limiter);
    let service = Script::new(&[Step::Fail]);
    assert!(executor.run(pipeline.call(|_| service.call(&executor))).expect("it ends").is_err());
    assert_eq!((service.calls(), executor.elapsed()), (3, ms(300)), "a tenth of a second each");
}

#[test]
fn a_clock_of_coarse_steps_keeps_the_rate_and_the_measurement_to_a_step() {
    for step in [10_000_000, 15_625_000, 30_000_000_u64] {
        for permits in [1, 7, 64, 99, 1_000] {
            let limiter = cut_to(Rate::per_second(permits), Config::new(), Instant::START);
            let passed: Vec<u64> = (1..=60_000_000_000 / step)
                .map(|tick| {
                    let shown = Instant::from_nanos(tick * step);
                    // Asked several times while the clock stands.
                    (0..2_000).take_while(|_| limiter.try_acquire(&shown).is_ok()).count() as u64
                })
                .collect();
            let (all, expected) = (passed.iter().sum::<u64>(), 60 * u64::from(permits));
            let a_step = (u64::from(permits) * step).div_ceil(1_000_000_000);
            // Where the bucket holds one call, what comes in before the next step is lost.
            let least = if permits > 1 { expected - a_step } else { expected * 1_000_000_000 / (1_000_000_000 + step) };
            assert!((least..=expected).contains(&all), "{all} at {permits} a second by steps of {step}");
            assert!(passed.iter().all(|count| *count <= a_step + 1), "{permits} a second by steps of {step}");
        }
        let limiter = limiter(Config::new());
        for call in 0..10_000 {
            limiter.record(false, &Instant::from_nanos(call * 1_000_000 / step * step));
        }
        let (measured, error) = (calls(limiter.snapshot().measured), step as f64 / 0.5e9);
        assert!((measured / 1_000.0 - 1.0).abs() <= error, "{measured} of 1,000 a second by steps of {step}");
    }
}
