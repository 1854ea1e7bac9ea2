//! Rates: the limiter with its reservations, the limiter for keys, and the rate that adapts.

use core::time::Duration;

use failsoft_core::adaptive_rate::{self, AdaptiveRate, Rate, RateCut};
use failsoft_core::cell::{CellKind, Live, LiveKind, Local};
use failsoft_core::rate_limiter::{Arrival, Arrivals, Config, KeyedRateLimiter, RateLimiter, Reservation};
use failsoft_core::testing::{ManualClock, Recorder};
use failsoft_core::{ConfigError, Instant, Policy, Reason, Rejected, Valid};

use crate::bytes::{Bytes, accepted};
use crate::cells::{any_cell, same, word_cell};

/// Reservations that are held, at the most.
const RESERVED: usize = 4;
/// Keys that have a place.
const KEYS: usize = 4;

/// Decodes and plays one input.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    match bytes.below(4) {
        0 | 1 => limiter(&mut bytes),
        2 => keyed(&mut bytes),
        _ => adaptive(&mut bytes),
    }
}

fn config(bytes: &mut Bytes<'_>) -> Result<Valid<Config>, ConfigError> {
    let period = if bytes.flag() { Duration::from_millis(bytes.count().into()) } else { bytes.span() };
    let mut config = Config::new(bytes.count(), period);
    if bytes.flag() {
        config = config.with_burst(bytes.count());
    }
    if bytes.flag() {
        config = config.with_queue(bytes.count(), bytes.span());
    }
    assert!(!config.to_string().is_empty());
    config.validate()
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Take(u32),
    Reserve(usize, u32, Duration),
    Commit(usize),
    GiveBack(usize),
    Reconfigure(Valid<Config>),
}

type Steps = Vec<(Instant, Option<Op>)>;

#[derive(Debug, PartialEq)]
struct Answer {
    /// From when on the permits may be used.
    taken: Option<Result<Instant, Rejected>>,
    available: i64,
    /// Of a rejection that says when to come back: what is there then, and just before.
    then: Option<(i64, i64)>,
    settings: Config,
    at: [Option<Instant>; 2],
}

fn limiter(bytes: &mut Bytes<'_>) {
    let Some(first) = accepted(config(bytes)) else { return };
    // One whose clock never steps back and whose settings stay, is looked at more closely.
    let steady = bytes.flag();
    let steps = bytes.script(steady, |bytes| {
        let permits = |bytes: &mut Bytes<'_>| if bytes.below(3) == 0 { bytes.count() } else { 1 };
        match bytes.byte() {
            0..=119 => Op::Take(permits(bytes)),
            120..=179 => Op::Reserve(bytes.place::<RESERVED>(), permits(bytes), bytes.span()),
            180..=204 => Op::Commit(bytes.place::<RESERVED>()),
            205..=229 => Op::GiveBack(bytes.place::<RESERVED>()),
            _ if steady => Op::Take(1),
            _ => accepted(config(bytes)).map_or(Op::Take(0), Op::Reconfigure),
        }
    });
    let answers = word_cell!(Kind => play::<Kind>(first, &steps));
    if steady {
        let found = play_with::<Local>(first, &steps, |_, _, _| {});
        same("settings that stay", &answers, &found);
    }
    check(&steps, &answers);
    if steady {
        within_quota(first.get(), &uses(&steps, &answers));
    }
}

fn play<K: CellKind<Arrival> + LiveKind>(config: Valid<Config>, steps: &Steps) -> Vec<Answer> {
    play_with::<Live<K>>(config, steps, |limiter, config, clock| limiter.reconfigure(config, clock))
}

fn play_with<K: CellKind<Arrival>>(
    config: Valid<Config>,
    steps: &Steps,
    reconfigure: impl Fn(&RateLimiter<K>, Valid<Config>, &ManualClock),
) -> Vec<Answer> {
    let (clock, limiter) = (ManualClock::new(), RateLimiter::<K>::new(config));
    let mut reserved: [Option<Reservation<'_, K>>; RESERVED] = [const { None }; RESERVED];
    let play = |(now, op): &(Instant, Option<Op>)| {
        clock.set(*now);
        let (mut taken, mut then) = (None, None);
        match *op {
            Some(Op::Take(permits)) => {
                let answer = limiter.try_acquire_many(permits, &clock);
                if let Some(again) = answer.err().and_then(|rejected| rejected.retry_at()) {
                    let before = Instant::from_nanos(again.as_nanos() - 1);
                    then = Some((limiter.available(&again), limiter.available(&before)));
                }
                taken = Some(answer.map(|()| *now));
            }
            Some(Op::Reserve(place, permits, wait)) if reserved[place].is_none() => {
                let answer = limiter.reserve(permits, wait, &clock);
                taken = Some(answer.as_ref().map(Reservation::at).map_err(|rejected| *rejected));
                reserved[place] = answer.ok();
            }
            Some(Op::Commit(place)) => {
                if let Some(reservation) = reserved[place].take() {
                    reservation.commit();
                }
            }
            Some(Op::GiveBack(place)) => reserved[place] = None,
            Some(Op::Reconfigure(config)) => reconfigure(&limiter, config, &clock),
            Some(Op::Reserve(..)) | None => {}
        }
        let available = limiter.available(&clock);
        let at = [1, 3].map(|permits| limiter.available_at(permits, &clock));
        Answer { taken, available, then, settings: limiter.config(), at }
    };
    steps.iter().map(play).collect()
}

fn check(steps: &Steps, answers: &[Answer]) {
    // From then on a limiter's word can't hold the times any more, and nothing passes.
    let end = Instant::from_nanos(1 << 62);
    for (index, ((now, op), answer)) in steps.iter().zip(answers).enumerate() {
        let at = || format!("step {index}, {op:?} at {now:?}: {answer:?}");
        let burst = answer.settings.burst();
        assert!(answer.available <= burst.into(), "more than a burst: {}", at());
        assert!(answer.at.iter().flatten().all(|later| later >= now), "{}", at());
        let Some(taken) = answer.taken else { continue };
        let rejected = match taken {
            Ok(from) => {
                assert!(from >= *now, "{}", at());
                continue;
            }
            Err(rejected) => rejected,
        };
        assert_eq!(rejected.policy(), Policy::RateLimiter, "{}", at());
        match (op, rejected.retry_at()) {
            (Some(Op::Take(permits)), None) if rejected.reason() == Reason::TooHeavy => {
                assert!(*permits > burst, "{}", at());
            }
            (Some(Op::Take(permits)), Some(again)) => {
                let wanted = i64::from(*permits).max(1);
                assert!(*permits <= burst, "{}", at());
                let (then, before) = answer.then.unwrap_or_default();
                let told = *now < end && again < end;
                assert!(!told || again > *now, "{}", at());
                assert!(!told || then >= wanted, "too soon: {}", at());
                assert!(!told || before < wanted, "too late: {}", at());
            }
            _ => {}
        }
    }
}

/// When permits were used: at once, or by reservations that were not given back.
fn uses(steps: &Steps, answers: &[Answer]) -> Vec<(Instant, u32)> {
    let mut uses: Vec<(Instant, u32)> = Vec::new();
    let mut reserved = [None; RESERVED];
    for ((_, op), answer) in steps.iter().zip(answers) {
        match (op, answer.taken) {
            (Some(Op::Take(permits)), Some(Ok(at))) => uses.push((at, *permits)),
            (Some(Op::Reserve(place, permits, _)), Some(Ok(at))) => {
                reserved[*place] = Some(uses.len());
                uses.push((at, *permits));
            }
            (Some(Op::Commit(place)), _) => reserved[*place] = None,
            (Some(Op::GiveBack(place)), _) => {
                if let Some(index) = reserved[*place].take() {
                    uses[index].1 = 0;
                }
            }
            _ => {}
        }
    }
    uses.retain(|(_, permits)| *permits > 0);
    uses.sort();
    uses
}

/// Never over quota, in any window of time: a burst, and what has come back since.
fn within_quota(config: Config, uses: &[(Instant, u32)]) {
    let (period, quota) = (config.period().as_nanos(), u128::from(config.permits()));
    for (index, &(from, first)) in uses.iter().enumerate() {
        let mut sum = 0_u128;
        for &(until, permits) in &uses[index..] {
            sum += u128::from(permits);
            let passed = u128::from(until.as_nanos() - from.as_nanos());
            // More than a burst can be reserved; that is waited for, and all used at once.
            let most = u128::from(config.burst().max(first)) + passed * quota / period;
            assert!(sum <= most, "{sum} permits from {from:?} to {until:?}, of {config}: {uses:?}");
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Request {
    key: u32,
    permits: u32,
}

fn keyed(bytes: &mut Bytes<'_>) {
    let Some(first) = accepted(config(bytes)) else { return };
    let steady = bytes.flag();
    let steps = bytes.script(steady, |bytes| {
        let key = if bytes.below(6) == 0 { bytes.count() } else { bytes.below(6).into() };
        Request { key, permits: if bytes.below(3) == 0 { bytes.count() } else { 1 } }
    });
    // Two more settings, put in force after so many steps.
    let changes = if steady { None } else { accepted(config(bytes)) };
    let answers = any_cell!(Kind => play_keys::<Kind>(first, changes, &steps));
    let burst = first.get().burst();
    let mut uses = Vec::new();
    for ((now, request), (taken, available, keys)) in steps.iter().zip(&answers) {
        assert!(*keys <= KEYS, "{keys} keys in {KEYS} places");
        assert!(changes.is_some() || *available <= burst, "{available} of {burst}");
        if let (Some(request), Some(Ok(()))) = (request, taken) {
            uses.push((*now, request.permits));
        }
    }
    if changes.is_none() && steady {
        // However many keys there are: the quotas of all places, and one for all others.
        let config = first.get();
        let (period, quotas) = (config.period().as_nanos(), (KEYS + 1) as u128);
        for (first, &(from, _)) in uses.iter().enumerate() {
            let mut sum = 0_u128;
            for &(until, permits) in &uses[first..] {
                sum += u128::from(permits);
                let passed = u128::from(until.as_nanos() - from.as_nanos());
                let most = quotas * (u128::from(burst) + passed * u128::from(config.permits()) / period + 1);
                assert!(sum <= most, "{sum} permits from {from:?} to {until:?}, of {config} for each key");
            }
        }
    }
}

type OfKeys = (Option<Result<(), Rejected>>, u32, usize);

fn play_keys<K>(
    first: Valid<Config>,
    second: Option<Valid<Config>>,
    steps: &[(Instant, Option<Request>)],
) -> Vec<OfKeys>
where
    K: CellKind<Arrivals<u32, KEYS>> + LiveKind,
{
    let (clock, limiter) = (ManualClock::new(), KeyedRateLimiter::<Live<K>, u32, KEYS>::new(first));
    let play = |(index, (now, request)): (usize, &(Instant, Option<Request>))| {
        clock.set(*now);
        if let (Some(config), true) = (second, index % 16 == 15) {
            limiter.reconfigure(if index % 32 == 15 { config } else { first }, &clock);
        }
        let Some(Request { key, permits }) = *request else { return (None, 0, limiter.keys()) };
        let taken = limiter.try_acquire_many(&key, permits, &clock);
        (Some(taken), limiter.available(&key, &clock), limiter.keys())
    };
    steps.iter().enumerate().map(play).collect()
}

fn adaptive(bytes: &mut Bytes<'_>) {
    let rate = |bytes: &mut Bytes<'_>| match bytes.below(3) {
        0 => Rate::per_second(bytes.count()),
        1 => Rate::of(bytes.count(), bytes.span()),
        _ => Rate::from_millionths(bytes.word()),
    };
    let flags = bytes.byte();
    let lowest = if flags & 1 == 0 { adaptive_rate::LOWEST } else { rate(bytes) };
    let mut config = adaptive_rate::Config::new().with_lowest(lowest);
    if flags & 2 != 0 {
        config = config.with_beta(bytes.ratio()).with_scale(bytes.ratio());
    }
    if flags & 4 != 0 {
        config = config.with_headroom(bytes.ratio());
    }
    if flags & 8 != 0 {
        config = config.with_settling(bytes.pause()).with_longest_wait(bytes.span());
    }
    if flags & 16 != 0 {
        config = config.with_meter(bytes.pause(), bytes.ratio());
    }
    assert!(!config.to_string().is_empty());
    let Some(config) = accepted(config.validate()) else { return };
    let steps = bytes.script(false, |bytes| match bytes.byte() {
        0..=127 => None,
        byte => Some(byte > 220),
    });
    type Answer = (Option<Result<(), Rejected>>, Vec<RateCut>, adaptive_rate::Snapshot);
    let answers = any_cell!(Kind => {
        let (clock, events) = (ManualClock::new(), Recorder::<RateCut, 4>::new());
        let limiter = AdaptiveRate::<Kind, _>::with_observer(config, &events);
        let play = |(now, op): &(Instant, Option<Option<bool>>)| {
            clock.set(*now);
            let mut taken = None;
            match *op {
                Some(None) => taken = Some(limiter.try_acquire(&clock)),
                Some(Some(throttled)) => limiter.record(throttled, &clock),
                None => {}
            }
            (taken, events.take().collect(), limiter.snapshot())
        };
        steps.iter().map(play).collect::<Vec<Answer>>()
    });
    let mut before = None;
    for ((now, op), (taken, events, after)) in steps.iter().zip(answers) {
        assert!(after.limit.is_none_or(|limit| limit >= lowest), "{after:?} is below {lowest}");
        assert!(!after.measured.to_string().is_empty());
        match events.as_slice() {
            [] => assert!(op == &Some(Some(false)) || after.limit == before, "{before:?} to {after:?} without a cut"),
            [cut] => {
                assert_eq!((cut.from, Some(cut.to), cut.at), (before, after.limit, *now), "{after:?}");
                assert_eq!(op, &Some(Some(true)));
            }
            more => panic!("{more:?} are too many for one report"),
        }
        if let Some(Err(rejected)) = taken {
            assert_eq!((rejected.policy(), rejected.reason()), (Policy::AdaptiveRate, Reason::RateExceeded));
            assert!(rejected.retry_at().is_none_or(|again| again > *now), "{rejected:?} at {now:?}");
        }
        before = after.limit;
    }
}
