//! The circuit breaker, with every trip condition.

use core::time::Duration;

use failsoft_core::cell::{CellKind, Live, LiveKind, Local};
use failsoft_core::circuit_breaker::{
    Abandoned, AverageOfCalls, AverageOverTime, CircuitBreaker, Config, ConsecutiveFailures, CountBased, FailureMeter,
    FailureRate, Opening, PackedMeter, Permit, Snapshot, State, StateKind, TimeBased, Totals, Transition, Trip,
};
use failsoft_core::testing::{ManualClock, Recorder};
use failsoft_core::{ConfigError, Instant, Outcome, Policy, Reason, Rejected, Valid, Verdict};

use crate::bytes::{Bytes, accepted};
use crate::cells::{any_cell, same, word_cell};

/// Calls that overlap, at the most.
const CALLS: usize = 8;

/// Decodes and plays one input.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let kind = bytes.below(16);
    let bytes = &mut bytes;
    match kind {
        0 => words(bytes, consecutive, Ok),
        1 => words(bytes, |b| FailureRate::new(b.ratio(), b.count())?.with_minimum_calls(b.count()), Ok),
        2 => words(bytes, |b| FailureRate::new(b.ratio(), b.count()), Ok),
        3 => words(bytes, |b| FailureMeter::new(b.count(), b.span()), Ok),
        4 => words(bytes, average, Ok),
        5 => words(bytes, |b| Ok((consecutive(b)?, consecutive(b)?)), Ok),
        6 => {
            let growing = growing(bytes);
            words(bytes, consecutive, growing);
        }
        7 => {
            let growing = growing(bytes);
            words(bytes, |b| FailureMeter::new(b.count(), b.span()), growing);
        }
        8 => {
            let open_time = OPEN_TIMES[bytes.place::<4>()];
            words(bytes, consecutive, move |config| Ok(config.with_open_time(open_time)));
        }
        9 => {
            let open_time = OPEN_TIMES[bytes.place::<4>()];
            tables(bytes, last_calls, move |config| Ok(config.with_open_time(open_time)));
        }
        10 => tables(bytes, last_calls, Ok),
        11 => tables(bytes, lately, Ok),
        12 => {
            let growing = growing(bytes);
            tables(bytes, lately, growing);
        }
        13 => tables(bytes, |b| Ok(AverageOverTime::new(b.ratio(), b.span())?.with_minimum_calls(b.count())), Ok),
        14 => tables(bytes, |b| Ok((average(b)?, FailureMeter::new(b.count(), b.span())?)), Ok),
        _ => tables(bytes, |b| Ok((last_calls(b)?, lately(b)?)), Ok),
    }
}

fn consecutive(bytes: &mut Bytes<'_>) -> Result<ConsecutiveFailures, ConfigError> {
    ConsecutiveFailures::new(bytes.count())
}

fn average(bytes: &mut Bytes<'_>) -> Result<AverageOfCalls, ConfigError> {
    Ok(AverageOfCalls::new(bytes.ratio(), bytes.count())?.with_minimum_calls(bytes.short()))
}

fn last_calls(bytes: &mut Bytes<'_>) -> Result<CountBased<2>, ConfigError> {
    let trip = match bytes.below(3) {
        0 => CountBased::new(bytes.ratio(), bytes.count()),
        1 => CountBased::of_failures(bytes.count(), bytes.count()),
        _ => CountBased::of_slow(bytes.ratio(), bytes.pause(), bytes.count()),
    }?;
    match bytes.below(8) {
        0 => trip.with_failure_rate(bytes.ratio()),
        1 => trip.with_failures(bytes.count()),
        2 => trip.with_slow_rate(bytes.ratio(), bytes.pause()),
        3 | 4 => trip.with_minimum_calls(bytes.count()),
        _ => Ok(trip),
    }
}

fn lately(bytes: &mut Bytes<'_>) -> Result<TimeBased<5>, ConfigError> {
    let trip = match bytes.below(3) {
        0 => TimeBased::new(bytes.ratio(), bytes.span()),
        1 => TimeBased::of_failures(bytes.count(), bytes.span()),
        _ => TimeBased::of_slow(bytes.ratio(), bytes.pause(), bytes.span()),
    }?;
    match bytes.below(8) {
        0 => trip.with_failure_rate(bytes.ratio()),
        1 => trip.with_failures(bytes.count()),
        2 => trip.with_slow_rate(bytes.ratio(), bytes.pause()),
        3 | 4 => trip.with_minimum_calls(bytes.count()),
        _ => Ok(trip),
    }
}

const OPEN_TIMES: [fn(&Opening) -> Duration; 4] = [
    |opening| Duration::from_millis(opening.counts.failures.into()),
    |opening| Duration::from_secs(opening.reopened.into()),
    |_| Duration::MAX,
    |opening| if opening.reopened % 2 == 0 { Duration::ZERO } else { opening.configured.duration() },
];

type GrowingConfig<T> = Config<failsoft_core::circuit_breaker::Growing<T>>;

fn growing<T: Copy>(bytes: &mut Bytes<'_>) -> impl Fn(Config<T>) -> Result<GrowingConfig<T>, ConfigError> + use<T> {
    let (periods, seed) = (bytes.backoff(), bytes.word());
    move |config| config.with_open_backoff(periods, seed)
}

/// What the checks need to know of the settings, which keep it to themselves.
#[derive(Clone, Copy, Debug)]
struct Known {
    successes: u32,
    trials: u32,
    probes: u32,
    full_trial: bool,
    half_open_for: Option<Duration>,
}

type Settings<T> = (Valid<Config<T>>, Known);

fn settings<T, U>(
    bytes: &mut Bytes<'_>,
    trip: impl Fn(&mut Bytes<'_>) -> Result<U, ConfigError>,
    finish: impl Fn(Config<U>) -> Result<Config<T>, ConfigError>,
) -> Result<Settings<T>, ConfigError>
where
    T: Copy + Trip,
    U: Copy,
{
    let trials = if bytes.below(16) == 0 { bytes.count() } else { u32::from(bytes.below(4)) + 1 };
    let part = |bytes: &mut Bytes<'_>| if bytes.below(16) == 0 { bytes.count() } else { trials - trials.min(1) };
    let (successes, probes) = match bytes.below(4) {
        0 => (trials, trials),
        1 => (part(bytes), trials),
        2 => (trials, part(bytes)),
        _ => (part(bytes), part(bytes)),
    };
    let flags = bytes.byte();
    let mut config = Config::new().with_trials(successes, trials).with_probes_at_once(probes);
    if flags & 1 != 0 {
        config = config.with_full_trial();
    }
    let half_open_for = match flags & 6 {
        0 => Some(bytes.pause()),
        2 => Some(Duration::MAX),
        _ => None,
    };
    if let Some(deadline) = half_open_for {
        config = config.with_half_open_for(deadline);
    }
    config = match flags & 24 {
        8 => config.with_abandoned(Abandoned::Failure),
        16 => config.with_abandoned(Abandoned::FailureAfter(bytes.pause())),
        _ => config,
    };
    if flags & 32 == 0 {
        config = config.with_open_for(bytes.pause());
    }
    let config = finish(config.with_trip(trip(bytes)?))?.validate()?;
    Ok((config, Known { successes, trials, probes, full_trial: flags & 1 != 0, half_open_for }))
}

#[derive(Clone, Copy, Debug)]
enum Op<T> {
    Acquire(usize),
    Settle(usize, Verdict),
    Drop(usize),
    HandleTimeout,
    Isolate,
    Disable,
    ObserveOnly,
    Reset,
    OpenUntil(Instant),
    HalfOpen,
    Reconfigure(Settings<T>),
}

fn op<T>(bytes: &mut Bytes<'_>, settings: impl Fn(&mut Bytes<'_>) -> Option<Settings<T>>) -> Op<T> {
    match bytes.byte() {
        0..=79 => Op::Acquire(bytes.place::<CALLS>()),
        80..=109 => Op::Settle(bytes.place::<CALLS>(), Verdict::SUCCESS),
        110..=169 => Op::Settle(bytes.place::<CALLS>(), Verdict::TRANSIENT),
        170..=199 => Op::Settle(bytes.place::<CALLS>(), bytes.verdict()),
        200..=219 => Op::Drop(bytes.place::<CALLS>()),
        220..=229 => Op::HandleTimeout,
        230 | 231 => Op::Isolate,
        232 => Op::Disable,
        233..=237 => Op::ObserveOnly,
        238 | 239 => Op::Reset,
        240..=242 => Op::OpenUntil(Instant::START.saturating_add(bytes.span())),
        243..=246 => Op::HalfOpen,
        _ => settings(bytes).map_or(Op::HandleTimeout, Op::Reconfigure),
    }
}

type Steps<T> = Vec<(Instant, Option<Op<T>>)>;

fn decode<T, U>(
    bytes: &mut Bytes<'_>,
    trip: impl Fn(&mut Bytes<'_>) -> Result<U, ConfigError>,
    finish: impl Fn(Config<U>) -> Result<Config<T>, ConfigError>,
) -> Option<(Settings<T>, Steps<T>)>
where
    T: Copy + Trip,
    U: Copy,
{
    let first = accepted(settings(bytes, &trip, &finish))?;
    let steps = bytes.script(false, |bytes| op(bytes, |bytes| accepted(settings(bytes, &trip, &finish))));
    Some((first, steps))
}

fn words<T, U>(
    bytes: &mut Bytes<'_>,
    trip: impl Fn(&mut Bytes<'_>) -> Result<U, ConfigError>,
    finish: impl Fn(Config<U>) -> Result<Config<T>, ConfigError>,
) where
    T: Copy + Trip<Meter: PackedMeter>,
    U: Copy,
{
    let Some((first, steps)) = decode(bytes, trip, finish) else { return };
    let answers = word_cell!(Kind => play::<Kind, T>(first.0, &steps));
    check(first.1, &steps, &answers);
    fixed(first.0, &steps, &answers);
}

fn tables<T, U>(
    bytes: &mut Bytes<'_>,
    trip: impl Fn(&mut Bytes<'_>) -> Result<U, ConfigError>,
    finish: impl Fn(Config<U>) -> Result<Config<T>, ConfigError>,
) where
    T: Copy + Trip,
    U: Copy,
{
    let Some((first, steps)) = decode(bytes, trip, finish) else { return };
    let answers = any_cell!(Kind => play::<Kind, T>(first.0, &steps));
    check(first.1, &steps, &answers);
    fixed(first.0, &steps, &answers);
}

/// Whose settings are never replaced, need not be replaceable.
fn fixed<T: Copy + Trip>(config: Valid<Config<T>>, steps: &Steps<T>, answers: &[Answer]) {
    if steps.iter().any(|(_, op)| matches!(op, Some(Op::Reconfigure(_)))) {
        return;
    }
    let found = play_with::<Local, T>(config, steps, |_, _, _| {});
    same("settings that stay", answers, &found);
}

#[derive(Debug, PartialEq)]
struct Answer {
    acquired: Option<Result<bool, Rejected>>,
    events: Vec<Transition>,
    snapshot: Snapshot,
    /// Admitted, rejected, and what became of those that were admitted.
    admitted: u64,
    rejected: u64,
    ended: u64,
    timeout: Option<Instant>,
}

type Breaker<'r, K, T> = CircuitBreaker<K, T, Totals<Local, &'r Recorder<Transition, 8>>>;

fn play<K, T>(config: Valid<Config<T>>, steps: &Steps<T>) -> Vec<Answer>
where
    K: CellKind<State<T::Meter>> + LiveKind,
    T: Copy + Trip,
{
    play_with::<Live<K>, T>(config, steps, |breaker, config, clock| breaker.reconfigure(config, clock))
}

fn play_with<K, T>(
    config: Valid<Config<T>>,
    steps: &Steps<T>,
    reconfigure: impl Fn(&Breaker<'_, K, T>, Valid<Config<T>>, &ManualClock),
) -> Vec<Answer>
where
    T: Copy + Trip,
    K: CellKind<State<T::Meter>>,
{
    let (clock, events) = (ManualClock::new(), Recorder::new());
    let breaker = Breaker::<K, T>::with_observer(config, Totals::new(&events));
    let mut open: [Option<Permit<'_, K, T, _, &ManualClock>>; CALLS] = [const { None }; CALLS];
    let play = |(now, op): &(Instant, Option<Op<T>>)| {
        clock.set(*now);
        let mut acquired = None;
        match *op {
            None => {}
            Some(Op::Acquire(place)) if open[place].is_none() => {
                let taken = breaker.try_acquire(&clock);
                acquired = Some(taken.as_ref().map(Permit::is_probe).map_err(|rejected| *rejected));
                open[place] = taken.ok();
            }
            Some(Op::Acquire(_)) => {}
            Some(Op::Settle(place, verdict)) => {
                if let Some(permit) = open[place].take() {
                    permit.record(verdict);
                }
            }
            Some(Op::Drop(place)) => open[place] = None,
            Some(Op::HandleTimeout) => {
                // Twice, for both deadlines that may have passed.
                breaker.handle_timeout(&clock);
                breaker.handle_timeout(&clock);
            }
            Some(Op::Isolate) => breaker.isolate(),
            Some(Op::Disable) => breaker.disable(),
            Some(Op::ObserveOnly) => breaker.observe_only(),
            Some(Op::Reset) => breaker.reset(),
            Some(Op::OpenUntil(until)) => breaker.open_until(until),
            Some(Op::HalfOpen) => breaker.half_open(&clock),
            Some(Op::Reconfigure((config, _))) => reconfigure(&breaker, config, &clock),
        }
        let totals = breaker.observer();
        let kept = [totals.successes(), totals.failures(), totals.ignored(), totals.abandoned(), totals.late()];
        Answer {
            acquired,
            events: events.take().collect(),
            snapshot: breaker.snapshot(&clock),
            admitted: totals.admitted(),
            rejected: totals.rejected(),
            ended: kept.iter().sum(),
            timeout: breaker.poll_timeout(),
        }
    };
    let answers = steps.iter().map(play).collect();
    assert_eq!(events.missed(), 0, "more events than a step can have");
    answers
}

/// A permit that is held: the generation that gave it, and whether it is a probe.
type Held = Option<(u16, bool)>;

fn check<T>(first: Known, steps: &Steps<T>, answers: &[Answer]) {
    let (mut known, mut before, mut held) = (first, fresh(), [None::<(u16, bool)>; CALLS]);
    let (mut replaced, mut disabled) = (false, false);
    let mut rejections = 0;
    for (step, ((now, op), answer)) in steps.iter().zip(answers).enumerate() {
        let at = || format!("step {step} at {now:?}: {answer:?}, after {before:?}");
        let after = answer.snapshot;
        if let Some(Op::Reconfigure((_, new))) = op {
            (known, replaced) = (*new, true);
        }
        events_tell_all(before, answer, &at);
        match op {
            None => assert!(answer.events.is_empty(), "time alone changes nothing: {}", at()),
            Some(Op::Acquire(place)) => {
                if let Some(acquired) = answer.acquired {
                    admission(before, *now, answer, acquired, known, &at);
                    rejections += u64::from(acquired.is_err());
                    held[*place] = acquired.ok().map(|probe| (after.generation, probe));
                }
            }
            Some(Op::Settle(place, verdict)) => {
                if let Some((generation, _)) = held[*place].take() {
                    settled(before, *now, answer, generation, verdict, &at);
                }
            }
            Some(Op::Drop(place)) => {
                if let Some((generation, _)) = held[*place].take() {
                    settled(before, *now, answer, generation, &Verdict::IGNORED, &at);
                }
            }
            Some(Op::HandleTimeout) => {
                assert!(answer.timeout.is_none_or(|until| until > *now), "a deadline was left behind: {}", at());
            }
            Some(Op::Disable) => disabled = true,
            Some(_) => {}
        }
        assert_eq!(answer.timeout, after.until, "the timeout is the state's end: {}", at());
        probes_are_those_held(after, &held, &at);
        if after.state == StateKind::HalfOpen && !replaced {
            undecided(after, known, &at);
            if !answer.events.is_empty() {
                has_deadline(after, known, *now, &at);
            }
        }
        assert!(after.counts.failures <= after.counts.calls && after.counts.slow <= after.counts.calls, "{}", at());
        assert_eq!(answer.rejected, rejections, "each rejection counts once: {}", at());
        let under_way = held.iter().flatten().count() as u64;
        assert!(disabled || answer.admitted == answer.ended + under_way, "a call was lost: {}", at());
        before = after;
    }
}

/// A breaker that nothing has happened to.
fn fresh() -> Snapshot {
    let config = failsoft_core::valid!(Config::new().validate());
    CircuitBreaker::<Local>::new(config).snapshot(&Instant::START)
}

/// Promise 4: each change gives exactly one event, and the events lead from the state before to the one after.
fn events_tell_all(before: Snapshot, answer: &Answer, at: &impl Fn() -> String) {
    let (mut state, mut generation, mut until) = (before.state, before.generation, before.until);
    for event in &answer.events {
        assert_eq!(event.from, state, "an event is missing: {}", at());
        assert!(event.counts.failures <= event.counts.calls, "{}", at());
        // A dry run only says what would have been.
        if event.generation == generation {
            assert!((event.from, event.to) == (StateKind::MetricsOnly, StateKind::Open), "{}", at());
            continue;
        }
        assert_eq!(event.generation, (generation + 1) % 4_096, "{}", at());
        (state, generation, until) = (event.to, event.generation, event.until);
    }
    let after = answer.snapshot;
    assert_eq!((state, generation), (after.state, after.generation), "a change without an event: {}", at());
    assert_eq!(until, after.until, "{}", at());
}

/// Promises 3 and 5.
fn admission(
    before: Snapshot,
    now: Instant,
    answer: &Answer,
    acquired: Result<bool, Rejected>,
    known: Known,
    at: &impl Fn() -> String,
) {
    let after = answer.snapshot;
    match acquired {
        Ok(probe) => {
            assert_ne!(before.state, StateKind::Isolated, "{}", at());
            assert!(after.state != StateKind::Open, "admitted while open: {}", at());
            let open = before.state == StateKind::Open && before.until.is_none_or(|until| now < until);
            assert!(!open, "admitted before its time: {}", at());
            assert_eq!(probe, after.state == StateKind::HalfOpen, "{}", at());
            if probe {
                assert!(after.probes <= known.probes, "more probes than allowed: {}", at());
                assert!(after.probes + after.counts.calls <= known.trials, "more trials than allowed: {}", at());
            }
        }
        Err(rejected) => {
            assert_eq!(rejected.policy(), Policy::CircuitBreaker);
            let state = match rejected.reason() {
                Reason::Open => StateKind::Open,
                Reason::ProbesOut => StateKind::HalfOpen,
                Reason::Isolated => StateKind::Isolated,
                reason => panic!("{reason:?} is no breaker's reason: {}", at()),
            };
            assert_eq!(state, after.state, "{}", at());
            assert_eq!(rejected.retry_at(), after.until, "comes back at the wrong time: {}", at());
            assert!(rejected.retry_at().is_none_or(|again| again > now), "comes back too late: {}", at());
            assert!(!rejected.to_string().is_empty());
        }
    }
    if matches!(before.state, StateKind::Closed | StateKind::Disabled | StateKind::MetricsOnly) {
        assert!(acquired.is_ok() && answer.events.is_empty() && after == before, "health only reads: {}", at());
    }
}

/// Promise 2, and what a verdict asks for.
fn settled(
    before: Snapshot,
    now: Instant,
    answer: &Answer,
    generation: u16,
    verdict: &Verdict,
    at: &impl Fn() -> String,
) {
    if generation != before.generation {
        assert!(answer.events.is_empty() && answer.snapshot == before, "a late report changed something: {}", at());
        return;
    }
    let in_time = before.until.is_none_or(|until| now < until);
    if verdict.opens() && in_time && matches!(before.state, StateKind::Closed | StateKind::HalfOpen) {
        assert!(answer.events.iter().any(|event| event.to == StateKind::Open), "it had to open: {}", at());
    }
    if let (Some(event), Some(hint), true) = (answer.events.first(), verdict.retry_after(), in_time)
        && event.to == StateKind::Open
        && event.from != StateKind::MetricsOnly
    {
        let until = event.until.unwrap_or(Instant::MAX);
        assert!(until >= now.saturating_add(hint), "comes back before it is asked to: {}", at());
    }
    assert!(verdict.outcome() != Outcome::Success || answer.events.len() <= 2, "{}", at());
}

/// Promises 1 and 3: whatever became of the others, the probes that are out are those that somebody holds.
fn probes_are_those_held(after: Snapshot, held: &[Held], at: &impl Fn() -> String) {
    let out = held.iter().flatten().filter(|&&(generation, probe)| probe && generation == after.generation).count();
    let out = if after.state == StateKind::HalfOpen { out } else { 0 };
    assert_eq!(after.probes as usize, out, "a probe was lost or found: {}", at());
}

/// Promise 3: half-open lasts while the verdict is uncertain and no longer.
fn undecided(after: Snapshot, known: Known, at: &impl Fn() -> String) {
    assert!(after.counts.calls < known.trials, "all trials are in: {}", at());
    let bad = after.counts.failures.max(after.counts.slow);
    assert!(known.full_trial || bad <= known.trials - known.successes, "the verdict is certain: {}", at());
}

/// Promise 3: half-open does not last for ever. Only beyond all instants there is no deadline.
fn has_deadline(after: Snapshot, known: Known, now: Instant, at: &impl Fn() -> String) {
    let far = Duration::from_nanos(1 << 62);
    if known.half_open_for.is_some_and(|span| span < far) && now < Instant::START.saturating_add(far) {
        assert!(after.until.is_some(), "half-open has no deadline: {}", at());
    }
}
