//! The limit of calls at once that adapts, with every algorithm.

use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use failsoft_core::adaptive::{
    self, AdaptiveLimit, Aimd, Algorithm, Amount, Gradient, Gradient2, LimitChange, Percentile, Permit, Remembered,
    Trend, Vegas, Windowed,
};
use failsoft_core::bulkhead::{NoQueue, Priority, Slots, Snapshot, Tally};
use failsoft_core::cell::{CellKind, CriticalSection, Local};
use failsoft_core::testing::{ManualClock, Recorder};
use failsoft_core::{ConfigError, Instant, Policy, Rejected, Valid};
use failsoft_embassy::Raw;
use failsoft_tokio::{Atomic, Locked};

use crate::bytes::{Bytes, accepted};
use crate::cells::same;

/// Calls at once, at the most.
const CALLS: usize = 12;

/// Decodes and plays one input.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let bytes = &mut bytes;
    match bytes.below(8) {
        0 => {
            let algorithm = aimd(bytes);
            algorithms(bytes, algorithm);
        }
        1 => {
            let algorithm = vegas(bytes);
            algorithms(bytes, algorithm);
        }
        2 => {
            let algorithm = gradient2(bytes);
            algorithms(bytes, algorithm);
        }
        3 => {
            let algorithm = trend(bytes);
            algorithms(bytes, algorithm);
        }
        4 => {
            let algorithm = gradient(bytes);
            algorithms(bytes, algorithm);
        }
        5 => {
            let algorithm = gradient2(bytes).and_then(|algorithm| windowed(bytes, algorithm)?.validate());
            algorithms(bytes, algorithm);
        }
        6 => {
            let algorithm = trend(bytes).and_then(|algorithm| {
                let windowed = windowed(bytes, algorithm)?;
                windowed.with_summary(Percentile::new(bytes.ratio())?).validate()
            });
            algorithms(bytes, algorithm);
        }
        _ => {
            let algorithm = vegas(bytes).and_then(|algorithm| windowed(bytes, algorithm)?.validate());
            algorithms(bytes, algorithm);
        }
    }
}

fn aimd(bytes: &mut Bytes<'_>) -> Result<Valid<Aimd>, ConfigError> {
    let algorithm = Aimd::new().with_timeout(bytes.span());
    if bytes.flag() { algorithm.with_backoff(bytes.ratio()).validate() } else { algorithm.validate() }
}

fn amount(bytes: &mut Bytes<'_>) -> Amount {
    match bytes.below(3) {
        0 => Amount::Fixed(bytes.count()),
        1 => Amount::Log10(bytes.count()),
        _ => Amount::Share(bytes.ratio()),
    }
}

fn vegas(bytes: &mut Bytes<'_>) -> Result<Valid<Vegas>, ConfigError> {
    let (mut algorithm, flags) = (Vegas::new(), bytes.byte());
    if flags & 1 != 0 {
        algorithm = algorithm.with_alpha(amount(bytes)).with_beta(amount(bytes)).with_threshold(amount(bytes));
    }
    if flags & 2 != 0 {
        algorithm = algorithm.with_increase(amount(bytes)).with_decrease(amount(bytes));
    }
    if flags & 4 != 0 {
        algorithm = algorithm.with_smoothing(bytes.ratio());
    }
    if flags & 8 != 0 {
        algorithm = algorithm.with_probe_multiplier(bytes.count());
    }
    algorithm.validate()
}

fn gradient2(bytes: &mut Bytes<'_>) -> Result<Valid<Gradient2>, ConfigError> {
    let (mut algorithm, flags) = (Gradient2::new(), bytes.byte());
    if flags & 1 != 0 {
        algorithm = algorithm.with_long_window(bytes.short());
    }
    if flags & 2 != 0 {
        algorithm = algorithm.with_tolerance(bytes.ratio());
    }
    if flags & 4 != 0 {
        algorithm = algorithm.with_queue_size(bytes.count()).with_smoothing(bytes.ratio());
    }
    algorithm.validate()
}

fn trend(bytes: &mut Bytes<'_>) -> Result<Valid<Trend>, ConfigError> {
    let (mut algorithm, flags) = (Trend::new(), bytes.byte());
    if flags & 1 != 0 {
        algorithm = algorithm.with_baseline(bytes.span());
    }
    if flags & 2 != 0 {
        algorithm = algorithm.with_baseline_window(bytes.short());
    }
    if flags & 4 != 0 {
        algorithm = algorithm.with_headroom(bytes.ratio());
    }
    if flags & 8 != 0 {
        algorithm = algorithm.with_stabilisation(bytes.span());
    }
    algorithm.validate()
}

fn gradient(bytes: &mut Bytes<'_>) -> Result<Valid<Gradient>, ConfigError> {
    let (mut algorithm, flags) = (Gradient::new(bytes.word()), bytes.byte());
    if flags & 1 != 0 {
        algorithm = algorithm.with_update_interval(bytes.pause());
    }
    if flags & 2 != 0 {
        algorithm = algorithm.with_measure_interval(bytes.pause());
    }
    if flags & 4 != 0 {
        algorithm = algorithm.with_measured_calls(bytes.count());
    }
    if flags & 8 != 0 {
        algorithm = algorithm.with_jitter(bytes.ratio()).with_buffer(bytes.ratio());
    }
    if flags & 16 != 0 {
        algorithm = algorithm.with_percentile(Percentile::new(bytes.ratio())?);
    }
    algorithm.validate()
}

fn windowed<A: Algorithm>(bytes: &mut Bytes<'_>, algorithm: Valid<A>) -> Result<Windowed<A>, ConfigError> {
    let (mut algorithm, flags) = (Windowed::new(algorithm), bytes.byte());
    if flags & 1 == 0 {
        algorithm = algorithm.with_window(bytes.pause(), bytes.span());
    }
    if flags & 2 == 0 {
        algorithm = algorithm.with_minimum_samples(bytes.count());
    }
    if flags & 4 != 0 {
        algorithm = algorithm.with_dropped_share(bytes.ratio());
    }
    Ok(algorithm)
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Acquire(usize, Priority),
    Success(usize),
    Dropped(usize),
    Ignore(usize),
    Drop(usize),
    HandleTimeout,
}

fn op(bytes: &mut Bytes<'_>) -> Op {
    let place = Bytes::place::<CALLS>;
    match bytes.byte() {
        0..=99 => Op::Acquire(place(bytes), Priority::CRITICAL),
        100..=119 => Op::Acquire(place(bytes), bytes.priority()),
        120..=199 => Op::Success(place(bytes)),
        200..=219 => Op::Dropped(place(bytes)),
        220..=229 => Op::Ignore(place(bytes)),
        230..=239 => Op::Drop(place(bytes)),
        _ => Op::HandleTimeout,
    }
}

type Steps = Vec<(Instant, Option<Op>)>;

#[derive(Debug, PartialEq)]
struct Answer {
    acquired: Option<Result<(), Rejected>>,
    events: Vec<LimitChange>,
    snapshot: Snapshot,
    limit: u32,
    timeout: Option<Instant>,
    held: u32,
}

fn algorithms<A: Algorithm>(bytes: &mut Bytes<'_>, algorithm: Result<Valid<A>, ConfigError>) {
    let Some(algorithm) = accepted(algorithm) else { return };
    let mut config = adaptive::Config::new(algorithm);
    let (min, max) = if bytes.below(4) == 0 { (bytes.count(), bytes.count()) } else { (1, CALLS as u32) };
    let initial = if bytes.below(4) == 0 { bytes.count() } else { min.midpoint(max) };
    config = config.with_limits(min, initial, max);
    let Some(config) = accepted(config.validate()) else { return };
    let steps = bytes.script(false, op);
    let answers = play::<Local, Local, A>(config, &steps);
    same("critical section", &answers, &play::<CriticalSection, CriticalSection, A>(config, &steps));
    same("embassy mutex", &answers, &play::<Raw<NoopRawMutex>, Raw<NoopRawMutex>, A>(config, &steps));
    same("atomic words and a std mutex", &answers, &play::<Atomic, Locked, A>(config, &steps));
    check((min, initial, max), &steps, &answers);
}

fn play<K, M, A>(config: Valid<adaptive::Config<A>>, steps: &Steps) -> Vec<Answer>
where
    A: Algorithm,
    K: CellKind<Slots> + CellKind<Tally>,
    M: CellKind<Remembered<A::Memory>>,
{
    let (clock, events) = (ManualClock::new(), Recorder::<LimitChange, 4>::new());
    let limit = AdaptiveLimit::<K, M, A, NoQueue, _>::with_observer(config, &events);
    let mut held = [const { None }; CALLS];
    let play = |(now, op): &(Instant, Option<Op>)| {
        clock.set(*now);
        let mut acquired = None;
        match *op {
            Some(Op::Acquire(place, priority)) if held[place].is_none() => {
                let taken = limit.try_acquire_at(priority, &clock);
                acquired = Some(taken.as_ref().map(|_| ()).map_err(|rejected| *rejected));
                held[place] = taken.ok();
            }
            Some(Op::Success(place)) => held[place].take().map_or((), Permit::success),
            Some(Op::Dropped(place)) => held[place].take().map_or((), Permit::dropped),
            Some(Op::Ignore(place)) => held[place].take().map_or((), Permit::ignore),
            Some(Op::Drop(place)) => held[place] = None,
            Some(Op::HandleTimeout) => limit.handle_timeout(&clock),
            Some(Op::Acquire(..)) | None => {}
        }
        Answer {
            acquired,
            events: events.take().collect(),
            snapshot: limit.snapshot(),
            limit: limit.limit(),
            timeout: limit.poll_timeout(),
            held: held.iter().flatten().map(|_| 1).sum(),
        }
    };
    let answers = steps.iter().map(play).collect();
    assert_eq!(events.missed(), 0, "more events than a step can have");
    drop(held);
    assert_eq!(limit.snapshot().in_use, 0, "all have come back");
    // What it has learned can be shown, whatever that is.
    let _ = format!("{:?}", limit.memory());
    answers
}

fn check((min, initial, max): (u32, u32, u32), steps: &Steps, answers: &[Answer]) {
    let (mut limit, mut in_use) = (initial, 0);
    for ((now, op), answer) in steps.iter().zip(answers) {
        let at = || format!("{op:?} at {now:?}, {min} to {max}: {answer:?}, after a limit of {limit}");
        let mut latest = limit;
        for change in &answer.events {
            assert!(change.from == latest && change.to != latest, "{}", at());
            latest = change.to;
        }
        assert_eq!(latest, answer.limit, "a change without an event: {}", at());
        assert!((min..=max).contains(&latest), "out of bounds: {}", at());
        assert_eq!(answer.snapshot.permits, latest, "{}", at());
        assert_eq!(answer.snapshot.in_use, answer.held, "a permit was lost or found: {}", at());
        assert!(answer.held <= latest || answer.held <= in_use, "above the limit: {}", at());
        if let Some(Err(rejected)) = answer.acquired {
            assert_eq!(rejected.policy(), Policy::AdaptiveLimit, "{}", at());
        }
        (limit, in_use) = (latest, answer.held);
    }
}
