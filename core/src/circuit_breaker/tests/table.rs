//! Every state of the machine × every event, as one table to read.

use core::cell::Cell;
use core::fmt::Write;
use core::mem::ManuallyDrop;
use core::time::Duration;
use std::format;
use std::string::{String, ToString};

use super::{at, seconds};
use crate::cell::{Live, Local};
use crate::circuit_breaker::{CircuitBreaker, Config, ConsecutiveFailures, Counts, Permit, StateKind, Transition};
use crate::outcome::{Outcome, Verdict};
use crate::testing::{ManualClock, Recorder};
use crate::{Called, Clock, Instant, Observer, Valid, valid};

type Breaker<'a> = CircuitBreaker<Live<Local>, ConsecutiveFailures, &'a Log>;
type Held<'a> = Permit<'a, Live<Local>, ConsecutiveFailures, &'a Log, &'a ManualClock>;

/// Takes down the transitions, and what was told last of a call.
#[derive(Default)]
struct Log {
    transitions: Recorder<Transition, 8>,
    called: Cell<Option<Called>>,
}

impl Observer<Transition> for &Log {
    fn observe(&self, event: &Transition) {
        (&self.transitions).observe(event);
    }

    fn called(&self, called: Called) {
        self.called.set(Some(called));
    }
}

/// Opens after 3 failures in a row, for 10 s; closes after 2 good ones of 3 probes, 2 at once, within 20 s.
const CONFIG: Valid<Config> = valid!(base().validate());
/// The same, but waits for all 3 probes.
const FULL_TRIAL: Valid<Config> = valid!(base().with_full_trial().validate());
/// Settings that replace others: opens after 2 failures in a row, for 5 s; closes after one good probe of one.
const STRICT: Valid<Config> = valid!(
    Config::new()
        .with_trip(valid!(ConsecutiveFailures::new(2)))
        .with_open_for(Duration::from_secs(5))
        .with_probes(1)
        .validate()
);

const fn base() -> Config {
    Config::new()
        .with_trip(valid!(ConsecutiveFailures::new(3)))
        .with_open_for(Duration::from_secs(10))
        .with_trials(2, 3)
        .with_probes_at_once(2)
        .with_half_open_for(Duration::from_secs(20))
}

/// Brings a freshly reset breaker into a state, and takes a permit there where there is one to take.
type Setup = for<'a> fn(&'a Breaker<'a>, &'a ManualClock) -> Option<Held<'a>>;

const SETUPS: [Setup; 16] = [
    closed,
    closed_one_short,
    open,
    open_period_over,
    half_open_with_a_free_probe,
    half_open_with_all_probes_out,
    half_open_one_short_of_either_verdict,
    half_open_certain_but_not_full,
    half_open_reopened,
    half_open_deadline_passed,
    half_open_deadline_and_open_period_passed,
    isolated,
    disabled,
    metrics_only,
    metrics_only_tripped,
    metrics_only_opened,
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
    HalfOpen,
    Reconfigure(Valid<Config>),
}

const HINT: Duration = Duration::from_secs(60);

const EVENTS: [(&str, Event); 24] = [
    ("try_acquire", Event::TryAcquire),
    ("success", Event::Settle(Verdict::SUCCESS)),
    ("failure", Event::Settle(Verdict::TRANSIENT)),
    ("failure, 60 s", Event::Settle(Verdict::TRANSIENT.with_retry_after(HINT))),
    ("slow success", Event::Settle(Verdict::SUCCESS.with_slow())),
    ("slow failure", Event::Settle(Verdict::TRANSIENT.with_slow())),
    ("ban, 60 s", Event::Settle(Verdict::PERMANENT.with_opening().with_retry_after(HINT))),
    ("good, opens", Event::Settle(Verdict::SUCCESS.with_opening())),
    ("ignore", Event::Settle(Verdict::IGNORED)),
    ("ignore, opens", Event::Settle(Verdict::IGNORED.with_opening())),
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
    ("half_open", Event::HalfOpen),
    ("reconfigure", Event::Reconfigure(STRICT)),
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

fn half_open_certain_but_not_full<'a>(breaker: &'a Breaker<'a>, clock: &'a ManualClock) -> Option<Held<'a>> {
    breaker.reconfigure(FULL_TRIAL, clock);
    open_period_over(breaker, clock);
    breaker.try_acquire(clock).expect("a probe").success();
    breaker.try_acquire(clock).expect("a probe").success();
    breaker.try_acquire(clock).ok()
}

fn half_open_reopened<'a>(breaker: &'a Breaker<'a>, clock: &'a ManualClock) -> Option<Held<'a>> {
    open_period_over(breaker, clock);
    fail(breaker, clock, 2);
    clock.set(at(20));
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

fn metrics_only_opened<'a>(breaker: &'a Breaker<'a>, clock: &'a ManualClock) -> Option<Held<'a>> {
    breaker.observe_only();
    breaker.try_acquire(clock).expect("admits").record(Verdict::IGNORED.with_opening());
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
        Event::HalfOpen => breaker.half_open(clock),
        Event::Reconfigure(config) => breaker.reconfigure(config, clock),
    }
    Some(answer + called(breaker.observer().called.take()))
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

/// What was told of a call: admissions and rejections are seen anyway.
const fn called(called: Option<Called>) -> &'static str {
    match called {
        Some(Called::Recorded(Outcome::Success)) => "a success",
        Some(Called::Recorded(Outcome::Failure)) => "a failure",
        Some(Called::Recorded(Outcome::Ignored)) => "ignored",
        Some(Called::Abandoned) => "abandoned",
        Some(Called::Late) => "late",
        Some(Called::Admitted | Called::Rejected) | None => "",
    }
}

fn until(instant: Option<Instant>) -> String {
    instant.map_or_else(String::new, |instant| format!(" until {}", seconds(instant)))
}

fn state(breaker: &Breaker<'_>, clock: &ManualClock) -> String {
    let now = breaker.snapshot(&clock);
    let mut text = format!("{:?}", now.state);
    match now.state {
        StateKind::Closed | StateKind::MetricsOnly => write!(text, " {}", counted(now.counts)),
        StateKind::HalfOpen => write!(text, " {} out {}", counted(now.counts), now.probes),
        _ => Ok(()),
    }
    .expect("a string takes it");
    text + &again(now.reopened) + &until(now.until)
}

fn counted(counts: Counts) -> String {
    let slow = if counts.slow == 0 { String::new() } else { format!(" ~{}", counts.slow) };
    format!("{}/{}{slow}", counts.failures, counts.calls)
}

fn again(reopened: u8) -> String {
    if reopened == 0 { String::new() } else { format!(" +{reopened}") }
}

fn told(event: &Transition) -> String {
    let Transition { from, to, generation, reopened, counts, until: end } = event;
    format!("{from:?}>{to:?} #{generation} {}{}{}", counted(*counts), again(*reopened), until(*end))
}

fn line(setup: Setup, name: &str, event: Event) -> Option<String> {
    let (clock, log) = (ManualClock::new(), Log::default());
    let breaker = Breaker::with_observer(CONFIG, &log);
    let late = breaker.try_acquire(&clock).expect("closed");
    breaker.reset();
    let current = setup(&breaker, &clock);
    let before = state(&breaker, &clock);
    log.transitions.take().for_each(drop);
    log.called.set(None);

    let answer = apply(event, &breaker, &clock, late, current)?;
    let after = state(&breaker, &clock);
    let after = if after == before { "" } else { after.as_str() };
    let told =
        log.transitions.take().map(|event| told(&event)).reduce(|all, next| all + ", " + &next).unwrap_or_default();
    Some(format!("  {name:<14} {answer:<18} {after:<36} {told}").trim_end().to_string())
}

fn heading(setup: Setup) -> String {
    let (clock, log) = (ManualClock::new(), Log::default());
    let breaker = Breaker::with_observer(CONFIG, &log);
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

/// What each event does in each state: its answer or what is told of the call, the state after it where it is
/// another, and the transitions told. `Closed 2/2` has counted 2 failures of 2 calls; `HalfOpen 1/2 ~1 out 1 +3 until
/// 30` a failure and a slow call (perhaps the same one) among 2 probes, has one on its way and has reopened 3 times.
/// Instants are in seconds; `#` is the generation; the counts of a transition are those from before it.
const TABLE: &str = "
Closed 1/1 at 0
  try_acquire    admitted
  success        a success          Closed 0/0
  failure        a failure          Closed 2/2
  failure, 60 s  a failure          Closed 2/2
  slow success   a success          Closed 0/0
  slow failure   a failure          Closed 2/2
  ban, 60 s      a failure          Open until 60                        Closed>Open #2 2/2 until 60
  good, opens    a success          Open until 10                        Closed>Open #2 0/0 until 10
  ignore         ignored
  ignore, opens  ignored            Open until 10                        Closed>Open #2 1/1 until 10
  drop           abandoned
  late success   late
  late failure   late
  late ignore    ignored
  late drop      abandoned
  handle_timeout
  isolate                           Isolated                             Closed>Isolated #2 1/1
  disable                           Disabled                             Closed>Disabled #2 1/1
  observe_only                      MetricsOnly 0/0                      Closed>MetricsOnly #2 1/1
  reset                             Closed 0/0                           Closed>Closed #2 1/1
  open_until 99                     Open until 99                        Closed>Open #2 1/1 until 99
  open_until 0                      Open until 0                         Closed>Open #2 1/1 until 0
  half_open                         HalfOpen 0/0 out 0 until 20          Closed>HalfOpen #2 1/1 until 20
  reconfigure

Closed 2/2 at 0
  try_acquire    admitted
  success        a success          Closed 0/0
  failure        a failure          Open until 10                        Closed>Open #2 3/3 until 10
  failure, 60 s  a failure          Open until 60                        Closed>Open #2 3/3 until 60
  slow success   a success          Closed 0/0
  slow failure   a failure          Open until 10                        Closed>Open #2 3/3 until 10
  ban, 60 s      a failure          Open until 60                        Closed>Open #2 3/3 until 60
  good, opens    a success          Open until 10                        Closed>Open #2 0/0 until 10
  ignore         ignored
  ignore, opens  ignored            Open until 10                        Closed>Open #2 2/2 until 10
  drop           abandoned
  late success   late
  late failure   late
  late ignore    ignored
  late drop      abandoned
  handle_timeout
  isolate                           Isolated                             Closed>Isolated #2 2/2
  disable                           Disabled                             Closed>Disabled #2 2/2
  observe_only                      MetricsOnly 0/0                      Closed>MetricsOnly #2 2/2
  reset                             Closed 0/0                           Closed>Closed #2 2/2
  open_until 99                     Open until 99                        Closed>Open #2 2/2 until 99
  open_until 0                      Open until 0                         Closed>Open #2 2/2 until 0
  half_open                         HalfOpen 0/0 out 0 until 20          Closed>HalfOpen #2 2/2 until 20
  reconfigure

Open until 10 at 9
  try_acquire    Open until 10
  late success   late
  late failure   late
  late ignore    ignored
  late drop      abandoned
  handle_timeout
  isolate                           Isolated                             Open>Isolated #3 0/0
  disable                           Disabled                             Open>Disabled #3 0/0
  observe_only                      MetricsOnly 0/0                      Open>MetricsOnly #3 0/0
  reset                             Closed 0/0                           Open>Closed #3 0/0
  open_until 99                     Open until 99                        Open>Open #3 0/0 until 99
  open_until 0                      Open until 0                         Open>Open #3 0/0 until 0
  half_open                         HalfOpen 0/0 out 0 until 29          Open>HalfOpen #3 0/0 until 29
  reconfigure

Open until 10 at 10
  try_acquire    probe              HalfOpen 0/0 out 1 until 30          Open>HalfOpen #3 0/0 until 30
  late success   late
  late failure   late
  late ignore    ignored
  late drop      abandoned
  handle_timeout                    HalfOpen 0/0 out 0 until 30          Open>HalfOpen #3 0/0 until 30
  isolate                           Isolated                             Open>Isolated #3 0/0
  disable                           Disabled                             Open>Disabled #3 0/0
  observe_only                      MetricsOnly 0/0                      Open>MetricsOnly #3 0/0
  reset                             Closed 0/0                           Open>Closed #3 0/0
  open_until 99                     Open until 99                        Open>Open #3 0/0 until 99
  open_until 0                      Open until 0                         Open>Open #3 0/0 until 0
  half_open                         HalfOpen 0/0 out 0 until 30          Open>HalfOpen #3 0/0 until 30
  reconfigure

HalfOpen 0/0 out 1 until 30 at 10
  try_acquire    probe              HalfOpen 0/0 out 2 until 30
  success        a success          HalfOpen 0/1 out 0 until 30
  failure        a failure          HalfOpen 1/1 out 0 until 30
  failure, 60 s  a failure          HalfOpen 1/1 out 0 until 30
  slow success   a success          HalfOpen 0/1 ~1 out 0 until 30
  slow failure   a failure          HalfOpen 1/1 ~1 out 0 until 30
  ban, 60 s      a failure          Open +1 until 70                     HalfOpen>Open #4 1/1 +1 until 70
  good, opens    a success          Open +1 until 20                     HalfOpen>Open #4 0/1 +1 until 20
  ignore         ignored            HalfOpen 0/0 out 0 until 30
  ignore, opens  ignored            Open +1 until 20                     HalfOpen>Open #4 0/0 +1 until 20
  drop           abandoned          HalfOpen 0/0 out 0 until 30
  late success   late
  late failure   late
  late ignore    ignored
  late drop      abandoned
  handle_timeout
  isolate                           Isolated                             HalfOpen>Isolated #4 0/0
  disable                           Disabled                             HalfOpen>Disabled #4 0/0
  observe_only                      MetricsOnly 0/0                      HalfOpen>MetricsOnly #4 0/0
  reset                             Closed 0/0                           HalfOpen>Closed #4 0/0
  open_until 99                     Open until 99                        HalfOpen>Open #4 0/0 until 99
  open_until 0                      Open until 0                         HalfOpen>Open #4 0/0 until 0
  half_open                         HalfOpen 0/0 out 0 until 30          HalfOpen>HalfOpen #4 0/0 until 30
  reconfigure

HalfOpen 0/0 out 2 until 30 at 10
  try_acquire    ProbesOut until 30
  success        a success          HalfOpen 0/1 out 1 until 30
  failure        a failure          HalfOpen 1/1 out 1 until 30
  failure, 60 s  a failure          HalfOpen 1/1 out 1 until 30
  slow success   a success          HalfOpen 0/1 ~1 out 1 until 30
  slow failure   a failure          HalfOpen 1/1 ~1 out 1 until 30
  ban, 60 s      a failure          Open +1 until 70                     HalfOpen>Open #4 1/1 +1 until 70
  good, opens    a success          Open +1 until 20                     HalfOpen>Open #4 0/1 +1 until 20
  ignore         ignored            HalfOpen 0/0 out 1 until 30
  ignore, opens  ignored            Open +1 until 20                     HalfOpen>Open #4 0/0 +1 until 20
  drop           abandoned          HalfOpen 0/0 out 1 until 30
  late success   late
  late failure   late
  late ignore    ignored
  late drop      abandoned
  handle_timeout
  isolate                           Isolated                             HalfOpen>Isolated #4 0/0
  disable                           Disabled                             HalfOpen>Disabled #4 0/0
  observe_only                      MetricsOnly 0/0                      HalfOpen>MetricsOnly #4 0/0
  reset                             Closed 0/0                           HalfOpen>Closed #4 0/0
  open_until 99                     Open until 99                        HalfOpen>Open #4 0/0 until 99
  open_until 0                      Open until 0                         HalfOpen>Open #4 0/0 until 0
  half_open                         HalfOpen 0/0 out 0 until 30          HalfOpen>HalfOpen #4 0/0 until 30
  reconfigure

HalfOpen 1/2 out 1 until 30 at 10
  try_acquire    ProbesOut until 30
  success        a success          Closed 0/0                           HalfOpen>Closed #4 1/3
  failure        a failure          Open +1 until 20                     HalfOpen>Open #4 2/3 +1 until 20
  failure, 60 s  a failure          Open +1 until 70                     HalfOpen>Open #4 2/3 +1 until 70
  slow success   a success          Open +1 until 20                     HalfOpen>Open #4 1/3 ~1 +1 until 20
  slow failure   a failure          Open +1 until 20                     HalfOpen>Open #4 2/3 ~1 +1 until 20
  ban, 60 s      a failure          Open +1 until 70                     HalfOpen>Open #4 2/3 +1 until 70
  good, opens    a success          Open +1 until 20                     HalfOpen>Open #4 1/3 +1 until 20
  ignore         ignored            HalfOpen 1/2 out 0 until 30
  ignore, opens  ignored            Open +1 until 20                     HalfOpen>Open #4 1/2 +1 until 20
  drop           abandoned          HalfOpen 1/2 out 0 until 30
  late success   late
  late failure   late
  late ignore    ignored
  late drop      abandoned
  handle_timeout
  isolate                           Isolated                             HalfOpen>Isolated #4 1/2
  disable                           Disabled                             HalfOpen>Disabled #4 1/2
  observe_only                      MetricsOnly 0/0                      HalfOpen>MetricsOnly #4 1/2
  reset                             Closed 0/0                           HalfOpen>Closed #4 1/2
  open_until 99                     Open until 99                        HalfOpen>Open #4 1/2 until 99
  open_until 0                      Open until 0                         HalfOpen>Open #4 1/2 until 0
  half_open                         HalfOpen 0/0 out 0 until 30          HalfOpen>HalfOpen #4 1/2 until 30
  reconfigure                       Closed 0/0                           HalfOpen>Closed #4 1/2

HalfOpen 0/2 out 1 until 30 at 10
  try_acquire    ProbesOut until 30
  success        a success          Closed 0/0                           HalfOpen>Closed #4 0/3
  failure        a failure          Closed 0/0                           HalfOpen>Closed #4 1/3
  failure, 60 s  a failure          Closed 0/0                           HalfOpen>Closed #4 1/3
  slow success   a success          Closed 0/0                           HalfOpen>Closed #4 0/3 ~1
  slow failure   a failure          Closed 0/0                           HalfOpen>Closed #4 1/3 ~1
  ban, 60 s      a failure          Open +1 until 70                     HalfOpen>Open #4 1/3 +1 until 70
  good, opens    a success          Open +1 until 20                     HalfOpen>Open #4 0/3 +1 until 20
  ignore         ignored            HalfOpen 0/2 out 0 until 30
  ignore, opens  ignored            Open +1 until 20                     HalfOpen>Open #4 0/2 +1 until 20
  drop           abandoned          HalfOpen 0/2 out 0 until 30
  late success   late
  late failure   late
  late ignore    ignored
  late drop      abandoned
  handle_timeout
  isolate                           Isolated                             HalfOpen>Isolated #4 0/2
  disable                           Disabled                             HalfOpen>Disabled #4 0/2
  observe_only                      MetricsOnly 0/0                      HalfOpen>MetricsOnly #4 0/2
  reset                             Closed 0/0                           HalfOpen>Closed #4 0/2
  open_until 99                     Open until 99                        HalfOpen>Open #4 0/2 until 99
  open_until 0                      Open until 0                         HalfOpen>Open #4 0/2 until 0
  half_open                         HalfOpen 0/0 out 0 until 30          HalfOpen>HalfOpen #4 0/2 until 30
  reconfigure                       Closed 0/0                           HalfOpen>Closed #4 0/2

HalfOpen 1/1 out 1 +1 until 40 at 20
  try_acquire    probe              HalfOpen 1/1 out 2 +1 until 40
  success        a success          HalfOpen 1/2 out 0 +1 until 40
  failure        a failure          Open +2 until 30                     HalfOpen>Open #6 2/2 +2 until 30
  failure, 60 s  a failure          Open +2 until 80                     HalfOpen>Open #6 2/2 +2 until 80
  slow success   a success          Open +2 until 30                     HalfOpen>Open #6 1/2 ~1 +2 until 30
  slow failure   a failure          Open +2 until 30                     HalfOpen>Open #6 2/2 ~1 +2 until 30
  ban, 60 s      a failure          Open +2 until 80                     HalfOpen>Open #6 2/2 +2 until 80
  good, opens    a success          Open +2 until 30                     HalfOpen>Open #6 1/2 +2 until 30
  ignore         ignored            HalfOpen 1/1 out 0 +1 until 40
  ignore, opens  ignored            Open +2 until 30                     HalfOpen>Open #6 1/1 +2 until 30
  drop           abandoned          HalfOpen 1/1 out 0 +1 until 40
  late success   late
  late failure   late
  late ignore    ignored
  late drop      abandoned
  handle_timeout
  isolate                           Isolated                             HalfOpen>Isolated #6 1/1
  disable                           Disabled                             HalfOpen>Disabled #6 1/1
  observe_only                      MetricsOnly 0/0                      HalfOpen>MetricsOnly #6 1/1
  reset                             Closed 0/0                           HalfOpen>Closed #6 1/1
  open_until 99                     Open until 99                        HalfOpen>Open #6 1/1 until 99
  open_until 0                      Open until 0                         HalfOpen>Open #6 1/1 until 0
  half_open                         HalfOpen 0/0 out 0 +1 until 40       HalfOpen>HalfOpen #6 1/1 +1 until 40
  reconfigure                       Open +2 until 25                     HalfOpen>Open #6 1/1 +2 until 25

HalfOpen 1/2 out 1 until 30 at 30
  try_acquire    Open until 40      Open +1 until 40                     HalfOpen>Open #4 1/2 +1 until 40
  success        late               Open +1 until 40                     HalfOpen>Open #4 1/2 +1 until 40
  failure        late               Open +1 until 40                     HalfOpen>Open #4 1/2 +1 until 40
  failure, 60 s  late               Open +1 until 40                     HalfOpen>Open #4 1/2 +1 until 40
  slow success   late               Open +1 until 40                     HalfOpen>Open #4 1/2 +1 until 40
  slow failure   late               Open +1 until 40                     HalfOpen>Open #4 1/2 +1 until 40
  ban, 60 s      late               Open +1 until 40                     HalfOpen>Open #4 1/2 +1 until 40
  good, opens    late               Open +1 until 40                     HalfOpen>Open #4 1/2 +1 until 40
  ignore         ignored            HalfOpen 1/2 out 0 until 30
  ignore, opens  ignored            Open +1 until 40                     HalfOpen>Open #4 1/2 +1 until 40
  drop           abandoned          HalfOpen 1/2 out 0 until 30
  late success   late
  late failure   late
  late ignore    ignored
  late drop      abandoned
  handle_timeout                    Open +1 until 40                     HalfOpen>Open #4 1/2 +1 until 40
  isolate                           Isolated                             HalfOpen>Isolated #4 1/2
  disable                           Disabled                             HalfOpen>Disabled #4 1/2
  observe_only                      MetricsOnly 0/0                      HalfOpen>MetricsOnly #4 1/2
  reset                             Closed 0/0                           HalfOpen>Closed #4 1/2
  open_until 99                     Open until 99                        HalfOpen>Open #4 1/2 until 99
  open_until 0                      Open until 0                         HalfOpen>Open #4 1/2 until 0
  half_open                         HalfOpen 0/0 out 0 until 50          HalfOpen>HalfOpen #4 1/2 until 50
  reconfigure                       Open +1 until 35                     HalfOpen>Open #4 1/2 +1 until 35

HalfOpen 0/0 out 1 until 30 at 45
  try_acquire    probe              HalfOpen 0/0 out 1 +1 until 65       HalfOpen>Open #4 0/0 +1 until 40, Open>HalfOpen #5 0/0 +1 until 65
  success        late               Open +1 until 40                     HalfOpen>Open #4 0/0 +1 until 40
  failure        late               Open +1 until 40                     HalfOpen>Open #4 0/0 +1 until 40
  failure, 60 s  late               Open +1 until 40                     HalfOpen>Open #4 0/0 +1 until 40
  slow success   late               Open +1 until 40                     HalfOpen>Open #4 0/0 +1 until 40
  slow failure   late               Open +1 until 40                     HalfOpen>Open #4 0/0 +1 until 40
  ban, 60 s      late               Open +1 until 40                     HalfOpen>Open #4 0/0 +1 until 40
  good, opens    late               Open +1 until 40                     HalfOpen>Open #4 0/0 +1 until 40
  ignore         ignored            HalfOpen 0/0 out 0 until 30
  ignore, opens  ignored            Open +1 until 40                     HalfOpen>Open #4 0/0 +1 until 40
  drop           abandoned          HalfOpen 0/0 out 0 until 30
  late success   late
  late failure   late
  late ignore    ignored
  late drop      abandoned
  handle_timeout                    Open +1 until 40                     HalfOpen>Open #4 0/0 +1 until 40
  isolate                           Isolated                             HalfOpen>Isolated #4 0/0
  disable                           Disabled                             HalfOpen>Disabled #4 0/0
  observe_only                      MetricsOnly 0/0                      HalfOpen>MetricsOnly #4 0/0
  reset                             Closed 0/0                           HalfOpen>Closed #4 0/0
  open_until 99                     Open until 99                        HalfOpen>Open #4 0/0 until 99
  open_until 0                      Open until 0                         HalfOpen>Open #4 0/0 until 0
  half_open                         HalfOpen 0/0 out 0 until 65          HalfOpen>HalfOpen #4 0/0 until 65
  reconfigure                       Open +1 until 35                     HalfOpen>Open #4 0/0 +1 until 35

Isolated at 0
  try_acquire    Isolated
  late success   late
  late failure   late
  late ignore    ignored
  late drop      abandoned
  handle_timeout
  isolate                                                                Isolated>Isolated #3 0/0
  disable                           Disabled                             Isolated>Disabled #3 0/0
  observe_only                      MetricsOnly 0/0                      Isolated>MetricsOnly #3 0/0
  reset                             Closed 0/0                           Isolated>Closed #3 0/0
  open_until 99                     Open until 99                        Isolated>Open #3 0/0 until 99
  open_until 0                      Open until 0                         Isolated>Open #3 0/0 until 0
  half_open                         HalfOpen 0/0 out 0 until 20          Isolated>HalfOpen #3 0/0 until 20
  reconfigure

Disabled at 0
  try_acquire    admitted
  success
  failure
  failure, 60 s
  slow success
  slow failure
  ban, 60 s
  good, opens
  ignore
  ignore, opens
  drop
  late success   late
  late failure   late
  late ignore    ignored
  late drop      abandoned
  handle_timeout
  isolate                           Isolated                             Disabled>Isolated #3 0/0
  disable                                                                Disabled>Disabled #3 0/0
  observe_only                      MetricsOnly 0/0                      Disabled>MetricsOnly #3 0/0
  reset                             Closed 0/0                           Disabled>Closed #3 0/0
  open_until 99                     Open until 99                        Disabled>Open #3 0/0 until 99
  open_until 0                      Open until 0                         Disabled>Open #3 0/0 until 0
  half_open                         HalfOpen 0/0 out 0 until 20          Disabled>HalfOpen #3 0/0 until 20
  reconfigure

MetricsOnly 2/2 at 0
  try_acquire    admitted
  success        a success          MetricsOnly 0/0
  failure        a failure          MetricsOnly 3/3                      MetricsOnly>Open #2 3/3
  failure, 60 s  a failure          MetricsOnly 3/3                      MetricsOnly>Open #2 3/3
  slow success   a success          MetricsOnly 0/0
  slow failure   a failure          MetricsOnly 3/3                      MetricsOnly>Open #2 3/3
  ban, 60 s      a failure          MetricsOnly 3/3                      MetricsOnly>Open #2 3/3
  good, opens    a success          MetricsOnly 0/0                      MetricsOnly>Open #2 0/0
  ignore         ignored
  ignore, opens  ignored                                                 MetricsOnly>Open #2 2/2
  drop           abandoned
  late success   late
  late failure   late
  late ignore    ignored
  late drop      abandoned
  handle_timeout
  isolate                           Isolated                             MetricsOnly>Isolated #3 2/2
  disable                           Disabled                             MetricsOnly>Disabled #3 2/2
  observe_only                      MetricsOnly 0/0                      MetricsOnly>MetricsOnly #3 2/2
  reset                             Closed 0/0                           MetricsOnly>Closed #3 2/2
  open_until 99                     Open until 99                        MetricsOnly>Open #3 2/2 until 99
  open_until 0                      Open until 0                         MetricsOnly>Open #3 2/2 until 0
  half_open                         HalfOpen 0/0 out 0 until 20          MetricsOnly>HalfOpen #3 2/2 until 20
  reconfigure

MetricsOnly 3/3 at 0
  try_acquire    admitted
  success        a success          MetricsOnly 0/0
  failure        a failure          MetricsOnly 4/4
  failure, 60 s  a failure          MetricsOnly 4/4
  slow success   a success          MetricsOnly 0/0
  slow failure   a failure          MetricsOnly 4/4
  ban, 60 s      a failure          MetricsOnly 4/4
  good, opens    a success          MetricsOnly 0/0
  ignore         ignored
  ignore, opens  ignored
  drop           abandoned
  late success   late
  late failure   late
  late ignore    ignored
  late drop      abandoned
  handle_timeout
  isolate                           Isolated                             MetricsOnly>Isolated #3 3/3
  disable                           Disabled                             MetricsOnly>Disabled #3 3/3
  observe_only                      MetricsOnly 0/0                      MetricsOnly>MetricsOnly #3 3/3
  reset                             Closed 0/0                           MetricsOnly>Closed #3 3/3
  open_until 99                     Open until 99                        MetricsOnly>Open #3 3/3 until 99
  open_until 0                      Open until 0                         MetricsOnly>Open #3 3/3 until 0
  half_open                         HalfOpen 0/0 out 0 until 20          MetricsOnly>HalfOpen #3 3/3 until 20
  reconfigure

MetricsOnly 0/0 at 0
  try_acquire    admitted
  success        a success
  failure        a failure          MetricsOnly 1/1
  failure, 60 s  a failure          MetricsOnly 1/1
  slow success   a success
  slow failure   a failure          MetricsOnly 1/1
  ban, 60 s      a failure          MetricsOnly 1/1
  good, opens    a success
  ignore         ignored
  ignore, opens  ignored
  drop           abandoned
  late success   late
  late failure   late
  late ignore    ignored
  late drop      abandoned
  handle_timeout
  isolate                           Isolated                             MetricsOnly>Isolated #3 0/0
  disable                           Disabled                             MetricsOnly>Disabled #3 0/0
  observe_only                                                           MetricsOnly>MetricsOnly #3 0/0
  reset                             Closed 0/0                           MetricsOnly>Closed #3 0/0
  open_until 99                     Open until 99                        MetricsOnly>Open #3 0/0 until 99
  open_until 0                      Open until 0                         MetricsOnly>Open #3 0/0 until 0
  half_open                         HalfOpen 0/0 out 0 until 20          MetricsOnly>HalfOpen #3 0/0 until 20
  reconfigure

";
