//! Degradation, the last good value, and chaos.

use core::time::Duration;

use failsoft_core::cell::CellKind;
use failsoft_core::chaos::{self, Chaos, Fault, Hit, Plan, Progress};
use failsoft_core::degradation::{
    self, Criticality, Degradation, DegradationLevel, Health, Level, LevelChange, Service,
};
use failsoft_core::last_good::{self, Good, KeyedLastGood, LastGood, Memories, Memory};
use failsoft_core::testing::{ManualClock, Recorder};
use failsoft_core::{Instant, Policy, Ratio, Rejected, Valid};

use crate::bytes::{Bytes, accepted};
use crate::cells::{any_cell, word_cell};

/// Places for services, one fewer than there are names; and for values of keys.
const PLACES: usize = 4;

/// Decodes and plays one input.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    match bytes.below(4) {
        0 | 1 => degradation(&mut bytes),
        2 => last_good(&mut bytes),
        _ => chaos(&mut bytes),
    }
}

const NAMES: [&str; PLACES + 2] = ["a", "b", "c", "d", "e", "f"];
const LEVELS: [DegradationLevel; 3] = [DegradationLevel::Full, DegradationLevel::Degraded, DegradationLevel::Minimal];

#[derive(Clone, Copy, Debug)]
enum Op {
    Register(usize, Criticality, Duration),
    Report(usize, bool),
    Check(usize),
    TakeDue,
    HandleTimeout,
}

type Steps<T> = Vec<(Instant, Option<T>)>;

#[derive(Debug, PartialEq)]
struct Answer {
    known: Option<bool>,
    rejected: Option<Rejected>,
    due: Option<&'static str>,
    healthy: [Option<bool>; NAMES.len()],
    level: DegradationLevel,
    timeout: Option<Instant>,
    events: Vec<LevelChange>,
}

fn degradation(bytes: &mut Bytes<'_>) {
    let dwell = bytes.pause();
    let config = degradation::Config::new().with_dwell(dwell).with_recovery(bytes.below(5));
    let Some(config) = accepted(config.validate()) else { return };
    let steady = bytes.flag();
    let steps = bytes.script(steady, |bytes| {
        let name = Bytes::place::<{ NAMES.len() }>;
        match bytes.byte() {
            0..=49 => {
                let all = [Criticality::Critical, Criticality::Important, Criticality::Optional];
                Op::Register(name(bytes), all[bytes.place::<3>()], bytes.span())
            }
            50..=129 => Op::Report(name(bytes), false),
            130..=209 => Op::Report(name(bytes), true),
            210..=229 => Op::Check(bytes.place::<3>()),
            230..=244 => Op::TakeDue,
            _ => Op::HandleTimeout,
        }
    });
    let answers = any_cell!(Kind => play_services::<Kind>(config, &steps));
    let mut level = DegradationLevel::Full;
    let mut last_fall = Instant::START;
    for ((now, op), answer) in steps.iter().zip(&answers) {
        let at = || format!("{op:?} at {now:?}: {answer:?}, after {level:?}");
        let mut latest = level;
        for event in &answer.events {
            assert!(event.from == latest && event.to != latest, "{}", at());
            if event.to.step() < latest.step() {
                // Up by one level at a time, and only after the dwell.
                assert_eq!(latest.step() - event.to.step(), 1, "{}", at());
                let dwelt = event.at.saturating_duration_since(last_fall) >= dwell || event.at == Instant::MAX;
                assert!(!steady || dwelt, "it flaps: {}", at());
            }
            // From either on, a dwell has to pass.
            last_fall = event.at;
            latest = event.to;
        }
        assert_eq!(latest, answer.level, "a change without an event: {}", at());
        if let Some(rejected) = answer.rejected {
            assert_eq!(rejected.policy(), Policy::Degradation, "{}", at());
            assert!(rejected.retry_at().is_none_or(|again| again > *now), "{}", at());
        }
        if let Some(Op::Check(wanted)) = op {
            assert_eq!(answer.rejected.is_some(), latest.step() > LEVELS[*wanted].step(), "{}", at());
        }
        let services = answer.healthy.iter().flatten().count();
        assert!(services <= PLACES, "{}", at());
        if steady && answer.healthy.iter().flatten().all(|healthy| *healthy) && latest != DegradationLevel::Full {
            let far = now.as_nanos() > u64::MAX / 2 || dwell > Duration::from_nanos(u64::MAX / 2);
            assert!(far || answer.timeout.is_some(), "it would stay degraded for ever: {}", at());
        }
        level = latest;
    }
}

fn play_services<K: CellKind<Health<u8, PLACES>>>(
    config: Valid<degradation::Config>,
    steps: &Steps<Op>,
) -> Vec<Answer> {
    let (clock, events) = (ManualClock::new(), Recorder::<LevelChange, 8>::new());
    let degradation = Degradation::<K, PLACES, DegradationLevel, u8, _>::with_observer(config, &events);
    let play = |(now, op): &(Instant, Option<Op>)| {
        clock.set(*now);
        let (mut known, mut rejected, mut due) = (None, None, None);
        match *op {
            Some(Op::Register(name, criticality, interval)) => {
                let service = Service::new(criticality).with_check_interval(interval).with_response(7);
                known = Some(accepted(degradation.register(NAMES[name], service)).is_some());
            }
            Some(Op::Report(name, good)) => known = Some(degradation.report(NAMES[name], good, &clock).is_ok()),
            Some(Op::Check(level)) => rejected = degradation.check(LEVELS[level], &clock).err(),
            Some(Op::TakeDue) => due = degradation.take_due_check(&clock),
            Some(Op::HandleTimeout) => degradation.handle_timeout(&clock),
            None => {}
        }
        let healthy = NAMES.map(|name| degradation.is_healthy(name).ok());
        for (name, healthy) in NAMES.iter().zip(healthy) {
            assert_eq!(degradation.instead_of(name).ok(), healthy.map(|_| Some(7)));
        }
        let level = degradation.level(&clock);
        let timeout = degradation.poll_timeout();
        Answer { known, rejected, due, healthy, level, timeout, events: events.take().collect() }
    };
    let answers = steps.iter().map(play).collect();
    assert_eq!(events.missed(), 0, "more events than a step can have");
    answers
}

#[derive(Clone, Copy, Debug)]
enum Keep {
    Remember(u32, u32),
    Get(u32),
    Forget(u32),
}

/// What the memory of one value says, that of keys, and how many keys there are.
type Kept = (Option<Good<u32>>, Option<Good<u32>>, usize, [Option<Duration>; 2]);

fn last_good(bytes: &mut Bytes<'_>) {
    let (max_age, reuse) = (bytes.pause(), bytes.flag());
    let config = last_good::Config::new().with_max_age(max_age).with_fresh_for(bytes.pause());
    let config = if reuse { config.with_reuse() } else { config };
    assert!(!config.to_string().is_empty());
    let Some(config) = accepted(config.validate()) else { return };
    let steady = bytes.flag();
    let steps = bytes.script(steady, |bytes| {
        let key = if bytes.below(8) == 0 { bytes.count() } else { bytes.below(6).into() };
        match bytes.byte() {
            0..=119 => Keep::Remember(key, bytes.byte().into()),
            120..=239 => Keep::Get(key),
            _ => Keep::Forget(key),
        }
    });
    let answers = any_cell!(Kind => play_values::<Kind>(config, &steps));
    // The latest of all values: what a memory of one has to say.
    let mut latest: Option<(u32, Instant)> = None;
    let mut of_key = std::collections::HashMap::new();
    for ((now, op), (one, of, keys, ages)) in steps.iter().zip(&answers) {
        assert!(*keys <= PLACES, "{keys} keys in {PLACES} places");
        match *op {
            Some(Keep::Remember(key, value)) => {
                latest = Some((value, *now));
                of_key.insert(key, (value, *now));
            }
            Some(Keep::Forget(key)) => {
                latest = None;
                of_key.remove(&key);
                assert_eq!(ages, &[None, None]);
            }
            _ => {}
        }
        let (Some(Keep::Get(key)), true) = (*op, steady) else { continue };
        let good = |(value, at): (u32, Instant)| Some(value).filter(|_| now.saturating_duration_since(at) <= max_age);
        assert_eq!(one.as_ref().map(|good| good.value), latest.and_then(good), "{one:?} at {now:?}");
        // A flood of other keys may have displaced it.
        if let Some(found) = of {
            let expected = of_key.get(&key).copied().and_then(good);
            assert_eq!(Some(found.value), expected, "{found:?} at {now:?}");
            assert!(found.age() <= max_age, "{found:?} is too old");
        }
    }
}

fn play_values<K>(config: Valid<last_good::Config>, steps: &Steps<Keep>) -> Vec<Kept>
where
    K: CellKind<Memory<u32>> + CellKind<Memories<u32, u32, PLACES>>,
{
    let clock = ManualClock::new();
    let (one, of) = (LastGood::<K, u32>::new(config), KeyedLastGood::<K, u32, u32, PLACES>::new(config));
    let play = |(now, op): &(Instant, Option<Keep>)| {
        clock.set(*now);
        match *op {
            Some(Keep::Remember(key, value)) => {
                one.remember(&value, &clock);
                of.remember(&key, &value, &clock);
                (None, None, of.keys(), [one.age(&clock), of.age(&key, &clock)])
            }
            Some(Keep::Get(key)) => {
                let found = (one.get(&clock), of.get(&key, &clock));
                (found.0, found.1, of.keys(), [one.age(&clock), of.age(&key, &clock)])
            }
            Some(Keep::Forget(key)) => {
                one.forget();
                of.forget(&key);
                (None, None, of.keys(), [one.age(&clock), of.age(&key, &clock)])
            }
            None => (None, None, of.keys(), [None; 2]),
        }
    };
    steps.iter().map(play).collect()
}

#[derive(Clone, Copy, Debug)]
enum Plot {
    Call,
    SetRate(Ratio),
    SetEnabled(bool),
    Restart,
}

type Plotted = (Option<Hit>, Option<bool>, Ratio, bool, u32);

fn chaos(bytes: &mut Bytes<'_>) {
    let (seed, rate, enabled) = (bytes.word(), bytes.ratio(), bytes.flag());
    let config = chaos::Config::new(seed).with_rate(rate).with_enabled(enabled);
    let Some(config) = accepted(config.validate()) else { return };
    let steps = bytes.script(true, |bytes| match bytes.byte() {
        0..=199 => Plot::Call,
        200..=229 => Plot::SetRate(bytes.ratio()),
        230..=249 => Plot::SetEnabled(bytes.flag()),
        _ => Plot::Restart,
    });
    let answers = word_cell!(Kind => plot::<Kind>(config, &steps));
    let (mut rate, mut enabled, mut calls) = (rate, enabled, 0);
    for ((_, op), (hit, accepted, shown, on, number)) in steps.iter().zip(answers) {
        let mut expected = None;
        match *op {
            Some(Plot::Call) if enabled => {
                calls += 1;
                expected = Plan::new(seed).hit(calls, rate);
            }
            Some(Plot::SetRate(new)) if new <= Ratio::ONE => rate = new,
            Some(Plot::SetRate(_)) => assert_eq!(accepted, Some(false)),
            Some(Plot::SetEnabled(new)) => enabled = new,
            Some(Plot::Restart) => calls = 0,
            Some(Plot::Call) | None => {}
        }
        assert_eq!((hit, shown, on, number), (expected, rate, enabled, calls), "{op:?}");
    }
}

fn plot<K: CellKind<Progress>>(config: Valid<chaos::Config>, steps: &Steps<Plot>) -> Vec<Plotted> {
    let chaos = Chaos::<K, _>::new(config, Fault::new(|_| ()));
    let play = |(_, op): &(Instant, Option<Plot>)| {
        let (mut hit, mut done) = (None, None);
        match *op {
            Some(Plot::Call) => hit = chaos.next_call(),
            Some(Plot::SetRate(rate)) => done = Some(accepted(chaos.set_rate(rate)).is_some()),
            Some(Plot::SetEnabled(enabled)) => chaos.set_enabled(enabled),
            Some(Plot::Restart) => chaos.restart(),
            None => {}
        }
        (hit, done, chaos.rate(), chaos.is_enabled(), chaos.calls())
    };
    steps.iter().map(play).collect()
}
