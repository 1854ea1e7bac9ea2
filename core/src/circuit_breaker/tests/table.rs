//! Every state of the machine × every event, as one table to read.

use core::fmt::Write;
use core::mem::ManuallyDrop;
use core::time::Duration;
use std::format;
use std::string::{String, ToString};

use super::{at, seconds};
use crate::cell::Local;
use crate::circuit_breaker::{CircuitBreaker, Config, ConsecutiveFailures, Permit, StateKind, Transition};
use crate::outcome::Verdict;
use crate::testing::{ManualClock, Recorder};
use crate::{Clock, Instant, Valid, valid};

type Events = Recorder<Transition, 8>;
type Breaker<'a> = CircuitBreaker<Local, ConsecutiveFailures, &'a Events>;
type Held<'a> = Permit<'a, Local, ConsecutiveFailures, &'a Events, &'a ManualClock>;

/// Opens after 3 failures in a row, for 10 s; closes after 2 good ones of 3 probes, 2 at once, within 20 s.
const CONFIG: Valid<Config> = valid!(
    Config::new()
        .with_trip(valid!(ConsecutiveFailures::new(3)))
        .with_open_for(Duration::from_secs(10))
        .with_trials(2, 3)
        .with_probes_at_once(2)
        .with_half_open_for(Duration::from_secs(20))
        .validate()
);

/// Brings a freshly reset breaker into a state, and takes a permit there where there is one to take.
type Setup = for<'a> fn(&'a Breaker<'a>, &'a ManualClock) -> Option<Held<'a>>;

const SETUPS: [Setup; 13] = [
    closed,
    closed_one_short,
    open,
    open_period_over,
    half_open_with_a_free_probe,
    half_open_with_all_probes_out,
    half_open_one_short_of_either_verdict,
    half_open_deadline_passed,
    half_open_deadline_and_open_period_passed,
    isolated,
    disabled,
    metrics_only,
    metrics_only_tripped,
];

#[derive(Clone, Copy)]
enum Event {
    TryAcquire,
    Settle(Verdict),
    Drop,
    LateSettle(Verdict),
    LateDrop,
    HandleTimeout,
    Isolate,
    Disable,
    ObserveOnly,
    Reset,
    OpenUntil(u64),
}

const HINT: Duration = Duration::from_secs(60);

const EVENTS: [(&str, Event); 17] = [
    ("try_acquire", Event::TryAcquire),
    ("success", Event::Settle(Verdict::SUCCESS)),
    ("failure", Event::Settle(Verdict::TRANSIENT)),
    ("failure, 60 s", Event::Settle(Verdict::TRANSIENT.with_retry_after(HINT))),
    ("ignore", Event::Settle(Verdict::IGNORED)),
    ("drop", Event::Drop),
    ("late success", Event::LateSettle(Verdict::SUCCESS)),
    ("late failure", Event::LateSettle(Verdict::TRANSIENT)),
    ("late ignore", Event::LateSettle(Verdict::IGNORED)),
    ("late drop", Event::LateDrop),
    ("handle_timeout", Event::HandleTimeout),
    ("isolate", Event::Isolate),
    ("disable", Event::Disable),
    ("observe_only", Event::ObserveOnly),
    ("reset", Event::Reset),
    ("open_until 99", Event::OpenUntil(99)),
    ("open_until 0", Event::OpenUntil(0)),
];

fn fail<'a>(breaker: &'a Breaker<'a>, clock: &'a ManualClock, times: u32) {
    for _ in 0..times {
        breaker.try_acquire(clock).expect("admits").failure();
    }
}

fn closed<'a>(breaker: &'a Breaker<'a>, clock: &'a ManualClock) -> Option<Held<'a>> {
    fail(breaker, clock, 1);
    breaker.try_acquire(clock).ok()
}

fn closed_one_short<'a>(breaker: &'a Breaker<'a>, clock: &'a ManualClock) -> Option<Held<'a>> {
    fail(breaker, clock, 2);
    breaker.try_acquire(clock).ok()
}

fn open<'a>(breaker: &'a Breaker<'a>, clock: &'a ManualClock) -> Option<Held<'a>> {
    fail(breaker, clock, 3);
    clock.set(at(10 - 1));
    None
}

fn open_period_over<'a>(breaker: &'a Breaker<'a>, clock: &'a ManualClock) -> Option<Held<'a>> {
    fail(breaker, clock, 3);
    clock.set(at(10));
    None
}

fn half_open_with_a_free_probe<'a>(breaker: &'a Breaker<'a>, clock: &'a ManualClock) -> Option<Held<'a>> {
    open_period_over(breaker, clock);
    breaker.try_acquire(clock).ok()
}

fn half_open_with_all_probes_out<'a>(breaker: &'a Breaker<'a>, clock: &'a ManualClock) -> Option<Held<'a>> {
    let probe = half_open_with_a_free_probe(breaker, clock);
    core::mem::forget(breaker.try_acquire(clock));
    probe
}

fn half_open_one_short_of_either_verdict<'a>(breaker: &'a Breaker<'a>, clock: &'a ManualClock) -> Option<Held<'a>> {
    open_period_over(breaker, clock);
    breaker.try_acquire(clock).expect("a probe").success();
    breaker.try_acquire(clock).expect("a probe").failure();
    breaker.try_acquire(clock).ok()
}

fn half_open_deadline_passed<'a>(breaker: &'a Breaker<'a>, clock: &'a ManualClock) -> Option<Held<'a>> {
    let probe = half_open_one_short_of_either_verdict(breaker, clock);
    clock.set(at(30));
    probe
}

fn half_open_deadline_and_open_period_passed<'a>(breaker: &'a Breaker<'a>, clock: &'a ManualClock) -> Option<Held<'a>> {
    let probe = half_open_with_a_free_probe(breaker, clock);
    clock.set(at(45));
    probe
}

fn isolated<'a>(breaker: &'a Breaker<'a>, _: &'a ManualClock) -> Option<Held<'a>> {
    breaker.isolate();
    None
}

fn disabled<'a>(breaker: &'a Breaker<'a>, clock: &'a ManualClock) -> Option<Held<'a>> {
    breaker.disable();
    breaker.try_acquire(clock).ok()
}

fn metrics_only<'a>(breaker: &'a Breaker<'a>, clock: &'a ManualClock) -> Option<Held<'a>> {
    breaker.observe_only();
    closed_one_short(breaker, clock)
}

fn metrics_only_tripped<'a>(breaker: &'a Breaker<'a>, clock: &'a ManualClock) -> Option<Held<'a>> {
    breaker.observe_only();
    fail(breaker, clock, 3);
    breaker.try_acquire(clock).ok()
}

/// The event's answer, or `None` where the state gives out no permit that could be reported.
fn apply<'a>(
    event: Event,
    breaker: &'a Breaker<'a>,
    clock: &'a ManualClock,
    late: Held<'a>,
    current: Option<Held<'a>>,
) -> Option<String> {
    // What the event does not touch stays out: dropping it would be an event of its own.
    let mut current = ManuallyDrop::new(current);
    let mut answer = String::new();
    match event {
        Event::TryAcquire => answer = acquired(breaker, clock),
        Event::Settle(verdict) => current.take()?.record(verdict),
        Event::Drop => drop(current.take()?),
        Event::LateSettle(verdict) => late.record(verdict),
        Event::LateDrop => drop(late),
        Event::HandleTimeout => breaker.handle_timeout(clock),
        Event::Isolate => breaker.isolate(),
        Event::Disable => breaker.disable(),
        Event::ObserveOnly => breaker.observe_only(),
        Event::Reset => breaker.reset(),
        Event::OpenUntil(instant) => breaker.open_until(at(instant)),
    }
    Some(answer)
}

fn acquired(breaker: &Breaker<'_>, clock: &ManualClock) -> String {
    match breaker.try_acquire(clock) {
        Ok(permit) => {
            let answer = if permit.is_probe() { "probe" } else { "admitted" };
            core::mem::forget(permit);
            answer.to_string()
        }
        Err(rejected) => format!("{:?}{}", rejected.reason(), until(rejected.retry_at())),
    }
}

fn until(instant: Option<Instant>) -> String {
    instant.map_or_else(String::new, |instant| format!(" until {}", seconds(instant)))
}

fn state(breaker: &Breaker<'_>, clock: &ManualClock) -> String {
    let now = breaker.snapshot(&clock);
    let mut text = format!("{:?}", now.state);
    match now.state {
        StateKind::Closed | StateKind::MetricsOnly => write!(text, " -{}", now.counts.failures),
        StateKind::HalfOpen => {
            let good = now.counts.calls - now.counts.failures;
            write!(text, " +{good} -{} out {}", now.counts.failures, now.probes)
        }
        _ => Ok(()),
    }
    .expect("a string takes it");
    text + &until(now.until)
}

fn told(event: &Transition) -> String {
    let Transition { from, to, generation, counts, until: end } = event;
    let counts = format!("{} of {}", counts.failures, counts.calls);
    format!("{from:?}>{to:?} #{generation} {counts}{}", until(*end))
}

fn line(setup: Setup, name: &str, event: Event) -> Option<String> {
    let (clock, events) = (ManualClock::new(), Events::new());
    let breaker = Breaker::with_observer(CONFIG, &events);
    let late = breaker.try_acquire(&clock).expect("closed");
    breaker.reset();
    let current = setup(&breaker, &clock);
    let before = state(&breaker, &clock);
    events.take().for_each(drop);

    let answer = apply(event, &breaker, &clock, late, current)?;
    let after = state(&breaker, &clock);
    let after = if after == before { "" } else { after.as_str() };
    let told = events.take().map(|event| told(&event)).reduce(|all, next| all + ", " + &next).unwrap_or_default();
    Some(format!("  {name:<14} {answer:<18} {after:<32} {told}").trim_end().to_string())
}

fn heading(setup: Setup) -> String {
    let (clock, events) = (ManualClock::new(), Events::new());
    let breaker = Breaker::with_observer(CONFIG, &events);
    breaker.reset();
    let _current = ManuallyDrop::new(setup(&breaker, &clock));
    format!("{} at {}", state(&breaker, &clock), seconds(clock.now()))
}

#[test]
fn every_state_answers_every_event_as_the_table_says() {
    let mut table = String::from("\n");
    for setup in SETUPS {
        table += &heading(setup);
        for (name, event) in EVENTS {
            if let Some(line) = line(setup, name, event) {
                table = table + "\n" + &line;
            }
        }
        table += "\n\n";
    }
    let difference = table.lines().zip(TABLE.lines()).find(|(actual, expected)| actual != expected);
    assert_eq!(difference, None, "(actual, expected) line of the table:\n{table}");
    assert_eq!(table.lines().count(), TABLE.lines().count(), "lines of the table:\n{table}");
}

/// What each event does in each state: its answer, the state after it where it is another, and the transitions told.
/// `Closed -2` has counted 2 failures; `HalfOpen +1 -0 out 2` one success, no failure and 2 probes on their way. Instants are
/// in seconds; `#` is the generation; `3 of 3` are the failures among the calls that had been counted.
const TABLE: &str = "
Closed -1 at 0
  try_acquire    admitted
  success                           Closed -0
  failure                           Closed -2
  failure, 60 s                     Closed -2
  ignore
  drop
  late success
  late failure
  late ignore
  late drop
  handle_timeout
  isolate                           Isolated                         Closed>Isolated #2 1 of 1
  disable                           Disabled                         Closed>Disabled #2 1 of 1
  observe_only                      MetricsOnly -0                   Closed>MetricsOnly #2 1 of 1
  reset                             Closed -0                        Closed>Closed #2 1 of 1
  open_until 99                     Open until 99                    Closed>Open #2 1 of 1 until 99
  open_until 0                      Open until 0                     Closed>Open #2 1 of 1 until 0

Closed -2 at 0
  try_acquire    admitted
  success                           Closed -0
  failure                           Open until 10                    Closed>Open #2 3 of 3 until 10
  failure, 60 s                     Open until 60                    Closed>Open #2 3 of 3 until 60
  ignore
  drop
  late success
  late failure
  late ignore
  late drop
  handle_timeout
  isolate                           Isolated                         Closed>Isolated #2 2 of 2
  disable                           Disabled                         Closed>Disabled #2 2 of 2
  observe_only                      MetricsOnly -0                   Closed>MetricsOnly #2 2 of 2
  reset                             Closed -0                        Closed>Closed #2 2 of 2
  open_until 99                     Open until 99                    Closed>Open #2 2 of 2 until 99
  open_until 0                      Open until 0                     Closed>Open #2 2 of 2 until 0

Open until 10 at 9
  try_acquire    Open until 10
  late success
  late failure
  late ignore
  late drop
  handle_timeout
  isolate                           Isolated                         Open>Isolated #3 0 of 0
  disable                           Disabled                         Open>Disabled #3 0 of 0
  observe_only                      MetricsOnly -0                   Open>MetricsOnly #3 0 of 0
  reset                             Closed -0                        Open>Closed #3 0 of 0
  open_until 99                     Open until 99                    Open>Open #3 0 of 0 until 99
  open_until 0                      Open until 0                     Open>Open #3 0 of 0 until 0

Open until 10 at 10
  try_acquire    probe              HalfOpen +0 -0 out 1 until 30    Open>HalfOpen #3 0 of 0 until 30
  late success
  late failure
  late ignore
  late drop
  handle_timeout                    HalfOpen +0 -0 out 0 until 30    Open>HalfOpen #3 0 of 0 until 30
  isolate                           Isolated                         Open>Isolated #3 0 of 0
  disable                           Disabled                         Open>Disabled #3 0 of 0
  observe_only                      MetricsOnly -0                   Open>MetricsOnly #3 0 of 0
  reset                             Closed -0                        Open>Closed #3 0 of 0
  open_until 99                     Open until 99                    Open>Open #3 0 of 0 until 99
  open_until 0                      Open until 0                     Open>Open #3 0 of 0 until 0

HalfOpen +0 -0 out 1 until 30 at 10
  try_acquire    probe              HalfOpen +0 -0 out 2 until 30
  success                           HalfOpen +1 -0 out 0 until 30
  failure                           HalfOpen +0 -1 out 0 until 30
  failure, 60 s                     HalfOpen +0 -1 out 0 until 30
  ignore                            HalfOpen +0 -0 out 0 until 30
  drop                              HalfOpen +0 -0 out 0 until 30
  late success
  late failure
  late ignore
  late drop
  handle_timeout
  isolate                           Isolated                         HalfOpen>Isolated #4 0 of 0
  disable                           Disabled                         HalfOpen>Disabled #4 0 of 0
  observe_only                      MetricsOnly -0                   HalfOpen>MetricsOnly #4 0 of 0
  reset                             Closed -0                        HalfOpen>Closed #4 0 of 0
  open_until 99                     Open until 99                    HalfOpen>Open #4 0 of 0 until 99
  open_until 0                      Open until 0                     HalfOpen>Open #4 0 of 0 until 0

HalfOpen +0 -0 out 2 until 30 at 10
  try_acquire    ProbesOut until 30
  success                           HalfOpen +1 -0 out 1 until 30
  failure                           HalfOpen +0 -1 out 1 until 30
  failure, 60 s                     HalfOpen +0 -1 out 1 until 30
  ignore                            HalfOpen +0 -0 out 1 until 30
  drop                              HalfOpen +0 -0 out 1 until 30
  late success
  late failure
  late ignore
  late drop
  handle_timeout
  isolate                           Isolated                         HalfOpen>Isolated #4 0 of 0
  disable                           Disabled                         HalfOpen>Disabled #4 0 of 0
  observe_only                      MetricsOnly -0                   HalfOpen>MetricsOnly #4 0 of 0
  reset                             Closed -0                        HalfOpen>Closed #4 0 of 0
  open_until 99                     Open until 99                    HalfOpen>Open #4 0 of 0 until 99
  open_until 0                      Open until 0                     HalfOpen>Open #4 0 of 0 until 0

HalfOpen +1 -1 out 1 until 30 at 10
  try_acquire    ProbesOut until 30
  success                           Closed -0                        HalfOpen>Closed #4 1 of 3
  failure                           Open until 20                    HalfOpen>Open #4 2 of 3 until 20
  failure, 60 s                     Open until 70                    HalfOpen>Open #4 2 of 3 until 70
  ignore                            HalfOpen +1 -1 out 0 until 30
  drop                              HalfOpen +1 -1 out 0 until 30
  late success
  late failure
  late ignore
  late drop
  handle_timeout
  isolate                           Isolated                         HalfOpen>Isolated #4 1 of 2
  disable                           Disabled                         HalfOpen>Disabled #4 1 of 2
  observe_only                      MetricsOnly -0                   HalfOpen>MetricsOnly #4 1 of 2
  reset                             Closed -0                        HalfOpen>Closed #4 1 of 2
  open_until 99                     Open until 99                    HalfOpen>Open #4 1 of 2 until 99
  open_until 0                      Open until 0                     HalfOpen>Open #4 1 of 2 until 0

HalfOpen +1 -1 out 1 until 30 at 30
  try_acquire    Open until 40      Open until 40                    HalfOpen>Open #4 1 of 2 until 40
  success                           Open until 40                    HalfOpen>Open #4 1 of 2 until 40
  failure                           Open until 40                    HalfOpen>Open #4 1 of 2 until 40
  failure, 60 s                     Open until 40                    HalfOpen>Open #4 1 of 2 until 40
  ignore                            HalfOpen +1 -1 out 0 until 30
  drop                              HalfOpen +1 -1 out 0 until 30
  late success
  late failure
  late ignore
  late drop
  handle_timeout                    Open until 40                    HalfOpen>Open #4 1 of 2 until 40
  isolate                           Isolated                         HalfOpen>Isolated #4 1 of 2
  disable                           Disabled                         HalfOpen>Disabled #4 1 of 2
  observe_only                      MetricsOnly -0                   HalfOpen>MetricsOnly #4 1 of 2
  reset                             Closed -0                        HalfOpen>Closed #4 1 of 2
  open_until 99                     Open until 99                    HalfOpen>Open #4 1 of 2 until 99
  open_until 0                      Open until 0                     HalfOpen>Open #4 1 of 2 until 0

HalfOpen +0 -0 out 1 until 30 at 45
  try_acquire    probe              HalfOpen +0 -0 out 1 until 65    HalfOpen>Open #4 0 of 0 until 40, Open>HalfOpen #5 0 of 0 until 65
  success                           Open until 40                    HalfOpen>Open #4 0 of 0 until 40
  failure                           Open until 40                    HalfOpen>Open #4 0 of 0 until 40
  failure, 60 s                     Open until 40                    HalfOpen>Open #4 0 of 0 until 40
  ignore                            HalfOpen +0 -0 out 0 until 30
  drop                              HalfOpen +0 -0 out 0 until 30
  late success
  late failure
  late ignore
  late drop
  handle_timeout                    Open until 40                    HalfOpen>Open #4 0 of 0 until 40
  isolate                           Isolated                         HalfOpen>Isolated #4 0 of 0
  disable                           Disabled                         HalfOpen>Disabled #4 0 of 0
  observe_only                      MetricsOnly -0                   HalfOpen>MetricsOnly #4 0 of 0
  reset                             Closed -0                        HalfOpen>Closed #4 0 of 0
  open_until 99                     Open until 99                    HalfOpen>Open #4 0 of 0 until 99
  open_until 0                      Open until 0                     HalfOpen>Open #4 0 of 0 until 0

Isolated at 0
  try_acquire    Isolated
  late success
  late failure
  late ignore
  late drop
  handle_timeout
  isolate                                                            Isolated>Isolated #3 0 of 0
  disable                           Disabled                         Isolated>Disabled #3 0 of 0
  observe_only                      MetricsOnly -0                   Isolated>MetricsOnly #3 0 of 0
  reset                             Closed -0                        Isolated>Closed #3 0 of 0
  open_until 99                     Open until 99                    Isolated>Open #3 0 of 0 until 99
  open_until 0                      Open until 0                     Isolated>Open #3 0 of 0 until 0

Disabled at 0
  try_acquire    admitted
  success
  failure
  failure, 60 s
  ignore
  drop
  late success
  late failure
  late ignore
  late drop
  handle_timeout
  isolate                           Isolated                         Disabled>Isolated #3 0 of 0
  disable                                                            Disabled>Disabled #3 0 of 0
  observe_only                      MetricsOnly -0                   Disabled>MetricsOnly #3 0 of 0
  reset                             Closed -0                        Disabled>Closed #3 0 of 0
  open_until 99                     Open until 99                    Disabled>Open #3 0 of 0 until 99
  open_until 0                      Open until 0                     Disabled>Open #3 0 of 0 until 0

MetricsOnly -2 at 0
  try_acquire    admitted
  success                           MetricsOnly -0
  failure                           MetricsOnly -3                   MetricsOnly>Open #2 3 of 3
  failure, 60 s                     MetricsOnly -3                   MetricsOnly>Open #2 3 of 3
  ignore
  drop
  late success
  late failure
  late ignore
  late drop
  handle_timeout
  isolate                           Isolated                         MetricsOnly>Isolated #3 2 of 2
  disable                           Disabled                         MetricsOnly>Disabled #3 2 of 2
  observe_only                      MetricsOnly -0                   MetricsOnly>MetricsOnly #3 2 of 2
  reset                             Closed -0                        MetricsOnly>Closed #3 2 of 2
  open_until 99                     Open until 99                    MetricsOnly>Open #3 2 of 2 until 99
  open_until 0                      Open until 0                     MetricsOnly>Open #3 2 of 2 until 0

MetricsOnly -3 at 0
  try_acquire    admitted
  success                           MetricsOnly -0
  failure                           MetricsOnly -4
  failure, 60 s                     MetricsOnly -4
  ignore
  drop
  late success
  late failure
  late ignore
  late drop
  handle_timeout
  isolate                           Isolated                         MetricsOnly>Isolated #3 3 of 3
  disable                           Disabled                         MetricsOnly>Disabled #3 3 of 3
  observe_only                      MetricsOnly -0                   MetricsOnly>MetricsOnly #3 3 of 3
  reset                             Closed -0                        MetricsOnly>Closed #3 3 of 3
  open_until 99                     Open until 99                    MetricsOnly>Open #3 3 of 3 until 99
  open_until 0                      Open until 0                     MetricsOnly>Open #3 3 of 3 until 0

";
