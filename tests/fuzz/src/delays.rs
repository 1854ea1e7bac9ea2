//! Delays between attempts, what a retry decides, and the moving quantile.

use core::time::Duration;

use failsoft_core::backoff::Backoff;
use failsoft_core::cell::Fresh;
use failsoft_core::hedge::{AveragePlus, Ended, FixedDelay, Hedge, Idempotent, Quantile};
use failsoft_core::quantile::Sketch;
use failsoft_core::retry::{self, Decision, RetryPolicy};
use failsoft_core::{Instant, Ratio, Rng, Stop};

use crate::bytes::{Bytes, accepted};
use crate::cells::any_cell;

/// Decodes and plays one input.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    match bytes.below(4) {
        0 => backoffs(&mut bytes),
        1 => decisions(&mut bytes),
        2 => sketch(&mut bytes),
        _ => hedges(&mut bytes),
    }
}

fn backoffs(bytes: &mut Bytes<'_>) {
    let backoff = bytes.backoff();
    let valid = accepted(backoff.check()).is_some();
    let text = backoff.to_string();
    assert!(!text.is_empty());
    assert_eq!(backoff.delay(0), Duration::ZERO, "{text}: before the first attempt");
    let mut rng = Rng::new(bytes.word());
    // A cap of our own below whatever it has, so that it is known.
    let cap = bytes.span().min(Duration::from_nanos(u64::MAX));
    let capped = backoff.with_cap(cap);
    let capped_valid = accepted(capped.check()).is_some();
    let table = text.contains("table");
    let decorrelated = text.contains("decorrelated");
    let (mut attempt, mut before, mut previous) = (0, Duration::ZERO, Duration::ZERO);
    while !bytes.is_empty() {
        let later = u32::saturating_add(attempt, bytes.count());
        let (delay, random) = (backoff.delay(later), rng.next());
        let edges = [0, u32::MAX, random].map(|random| backoff.jittered(later, previous, random));
        for random in [0, u32::MAX, random] {
            let jittered = capped.jittered(later, bytes.span(), random);
            assert!(!capped_valid || jittered <= cap, "{capped}: {jittered:?} is beyond the cap");
        }
        attempt = later;
        // Settings that make no sense promise nothing but to come to an end.
        if !valid {
            continue;
        }
        assert!(table || delay >= before, "{text}: shorter after attempt {later}: {delay:?} after {before:?}");
        let [least, longest, between] = edges;
        assert!(least <= between && between <= longest, "{text}: {edges:?} is out of order");
        if decorrelated {
            let bound = previous.max(backoff.delay(1)).saturating_mul(3);
            assert!(longest <= bound, "{text}: {longest:?} is beyond {bound:?}");
        } else {
            assert!(longest <= delay.saturating_mul(2), "{text}: {longest:?} of {delay:?}");
        }
        (before, previous) = (delay, between);
    }
    exact(backoff, valid);
}

/// The same numbers, plainly: in 128 bits, step by step.
fn exact(backoff: Backoff, valid: bool) {
    let text = backoff.to_string();
    if !valid || !text.starts_with("linear") {
        return;
    }
    let nanos = |n| backoff.delay(n).as_nanos();
    let (step, cap) = (nanos(2).saturating_sub(nanos(1)), nanos(u32::MAX));
    for n in [3_u32, 4, 10, 1_000] {
        let expected = nanos(1) + step * u128::from(n - 1);
        // The step is not known where the second delay is the cap already.
        assert!(nanos(n) == expected.min(cap) || nanos(2) >= cap || step == 0, "{text}: attempt {n}");
    }
}

fn decisions(bytes: &mut Bytes<'_>) {
    let attempts = bytes.count();
    let mut config = retry::Config::new().with_max_attempts(attempts).with_backoff(bytes.backoff());
    if bytes.flag() {
        config = config.with_total_time(bytes.span());
    }
    let Some(config) = accepted(config.validate()) else { return };
    let policy = RetryPolicy::new(config);
    let mut previous = Duration::ZERO;
    while !bytes.is_empty() {
        let (attempt, verdict, random) = (bytes.count(), bytes.verdict(), bytes.random());
        let now = Instant::START.saturating_add(bytes.span());
        let deadline = if bytes.flag() { Instant::MAX } else { now.saturating_add(bytes.span()) };
        match policy.decide(attempt, verdict, previous, random, now, deadline) {
            Decision::RetryAfter(delay) => {
                assert!(verdict.is_retryable(), "{verdict:?} is final");
                assert!(attempt < attempts || attempts == u32::MAX, "attempt {attempt} of {attempts}");
                assert!(now.saturating_add(delay) < deadline, "{delay:?} outlasts the deadline");
                assert!(verdict.retry_after().is_none_or(|hint| delay >= hint), "{delay:?} is too soon");
                assert!(verdict.delay().is_none_or(|exact| delay == exact), "{delay:?} is not what was asked for");
                previous = delay;
            }
            Decision::Stop(Stop::NotRetryable) => assert!(!verdict.is_retryable()),
            Decision::Stop(Stop::Attempts) => assert!(attempt >= attempts),
            Decision::Stop(stop) => assert_eq!(stop, Stop::Deadline),
        }
    }
}

/// Against all values, sorted, as long as none has been forgotten.
fn sketch(bytes: &mut Bytes<'_>) {
    let (quantile, window) = (bytes.ratio(), bytes.short());
    let between = Ratio::ZERO < quantile && quantile < Ratio::ONE;
    let (mut sketch, mut values) = (Sketch::FRESH, Vec::new());
    while !bytes.is_empty() {
        let (value, times) = (bytes.span(), if bytes.below(8) == 0 { 40 } else { 1 });
        for _ in 0..times {
            sketch.record(value, quantile, window);
            values.push(value.min(Duration::from_nanos(u64::MAX)));
        }
        assert!(sketch.len() <= window.max(1), "{} of a window of {window}", sketch.len());
        assert_eq!(sketch.is_empty(), sketch.quantile(quantile).is_none());
        let quantiles = [1, 5_000, 9_000, 9_999].map(|points| sketch.quantile(Ratio::basis_points(points)));
        assert!(quantiles.is_sorted(), "a higher quantile is a longer time: {quantiles:?}");
        if between && values.len() < window.into() {
            let (least, most) = (values.iter().min(), values.iter().max());
            let (Some(least), Some(most), Some(found)) = (least, most, sketch.quantile(quantile)) else { continue };
            // Within a bucket of all there is; while the buckets are being moved down, within all of them.
            let slack = *most / 15 + Duration::from_nanos(1);
            assert!(found <= most.saturating_add(slack), "{found:?} is above all of {values:?}");
            assert!(found >= *least / 64, "{found:?} is below all of {values:?}");
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Latency {
    ended: Ended,
    took: Duration,
}

fn hedges(bytes: &mut Bytes<'_>) {
    let quantile = Quantile::new(bytes.ratio(), bytes.span()).with_window(bytes.short()).with_minimum(bytes.short());
    let mut average = AveragePlus::<4>::new(bytes.span()).with_percent(bytes.ratio());
    if bytes.flag() {
        average = average.with_initial(bytes.span());
    }
    if bytes.flag() {
        average = average.with_failures();
    }
    let fixed = FixedDelay::new(bytes.span());
    let mut latencies = Vec::new();
    while !bytes.is_empty() {
        let ended = [Ended::Success, Ended::Failure, Ended::Overtaken][bytes.place::<3>()];
        latencies.push(Latency { ended, took: bytes.span() });
    }
    macro_rules! play {
        ($delay:expr) => {
            any_cell!(Kind => {
                let hedge = Hedge::<Kind, 1, _>::new($delay, Idempotent);
                let play = |latency: &Latency| {
                    hedge.record(latency.ended, latency.took);
                    hedge.delay()
                };
                latencies.iter().map(play).collect::<Vec<_>>()
            })
        };
    }
    if let Some(quantile) = accepted(quantile.validate()) {
        let _ = play!(quantile);
    }
    if let Some(average) = accepted(average.validate()) {
        let _ = play!(average);
    }
    let delays = play!(fixed);
    assert!(delays.windows(2).all(|pair| pair[0] == pair[1]), "a fixed delay stays");
}
