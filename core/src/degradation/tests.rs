use core::cell::Cell;
use core::fmt::Write as _;
use core::sync::atomic::{AtomicU32, Ordering};
use std::string::String;
use std::vec::Vec;

use super::DegradationLevel::{Degraded, Full, Minimal};
use super::*;
use crate::cell::Local;
use crate::retry::{self, RetryPolicy};
use crate::rng::Rng;
use crate::testing::tests::{Rig, Threaded, at, explode, explodes, ms, poll_once, until};
use crate::testing::{ManualClock, Recorder, Script, Step, never};
use crate::timeout::Timeout;
use crate::{Failure, Pipeline, valid};

mod exhaustive;

type Changes = Recorder<LevelChange, 16>;
type Hub<'r, const N: usize = 4> = Degradation<Local, N, DegradationLevel, (), &'r Changes>;

/// A dwell of 100 ms, and two good results to be healthy again.
const QUICK: Valid<Config> = valid!(Config::new().with_dwell(ms(100)).with_recovery(2).validate());

/// A service that nobody checks.
fn unchecked(criticality: Criticality) -> Service {
    Service::new(criticality).with_check_interval(Duration::MAX)
}

/// A hub with one service of each criticality.
fn hub(changes: &Changes) -> Hub<'_> {
    let hub = Hub::with_observer(QUICK, changes);
    hub.register("critical", unchecked(Criticality::Critical)).expect("there is room");
    hub.register("important", unchecked(Criticality::Important)).expect("there is room");
    hub.register("optional", unchecked(Criticality::Optional)).expect("there is room");
    hub
}

fn fails(hub: &Hub<'_>, name: &'static str, now: Instant) {
    assert_eq!(hub.report(name, false, &now), Ok(()));
}

fn recovers(hub: &Hub<'_>, name: &'static str, now: Instant) {
    for _ in 0..2 {
        assert_eq!(hub.report(name, true, &now), Ok(()));
    }
}

fn told(changes: &Changes) -> Vec<(DegradationLevel, DegradationLevel, Instant)> {
    assert_eq!(changes.missed(), 0);
    changes.take().map(|LevelChange { from, to, at }| (from, to, at)).collect()
}

/// What the columns and rows of the table do, at the clock's time.
fn apply(hub: &Hub<'_>, clock: &ManualClock, event: &str) {
    let now = clock.now();
    match event.split_once(' ') {
        Some(("wait", millis)) => clock.advance(ms(millis.parse().expect("a number"))),
        Some((name, "fails")) => hub.report(name, false, &now).expect("it is registered in the static table"),
        Some((name, "is well")) => hub.report(name, true, &now).expect("it is registered in the static table"),
        _ => clock.set(Instant::START),
    }
    hub.handle_timeout(clock);
}

const STATES: [(&str, &[&str]); 7] = [
    ("full", &[]),
    ("degraded", &["important fails"]),
    ("degraded, climbing", &["important fails", "important is well", "important is well", "wait 40"]),
    ("minimal", &["critical fails"]),
    ("minimal to degraded", &["critical fails", "important fails", "critical is well", "critical is well", "wait 40"]),
    ("minimal to full", &["critical fails", "critical is well", "critical is well", "wait 40"]),
    ("climbed a step", &["critical fails", "critical is well", "critical is well", "wait 140"]),
];

const EVENTS: [&str; 9] = [
    "critical fails",
    "important fails",
    "optional fails",
    "critical is well",
    "important is well",
    "wait 59",
    "wait 60",
    "wait 1000",
    "the clock starts anew",
];

fn table() -> String {
    let mut text = String::new();
    for (state, script) in STATES {
        for event in EVENTS {
            let (changes, clock) = (Changes::new(), ManualClock::new());
            let hub = hub(&changes);
            script.iter().for_each(|step| apply(&hub, &clock, step));
            let _ = told(&changes);
            apply(&hub, &clock, event);
            let level = std::format!("{:?}", hub.level(&clock));
            let rises =
                hub.poll_timeout().map_or_else(|| "-".into(), |at| std::format!("{}", at.as_nanos() / 1_000_000));
            let told: Vec<_> = told(&changes)
                .into_iter()
                .map(|(from, to, at)| std::format!("{from:?} to {to:?} at {}", at.as_nanos() / 1_000_000))
                .collect();
            let told = told.join(", ");
            write!(text, "{state:<19} | {event:<21} | {level:<8} | {rises:>4} | {told}").expect("a string takes it");
            text = text.trim_end().into();
            text.push('\n');
        }
    }
    text
}

#[test]
fn every_event_in_every_state_does_what_the_table_says() {
    let table = table();
    assert!(table.trim() == TABLE.trim(), "the table is now:\n{table}");
}

/// State, event, level afterwards, when it may rise, and what the observer was told.
const TABLE: &str = "
full                | critical fails        | Minimal  |    - | Full to Minimal at 0
full                | important fails       | Degraded |    - | Full to Degraded at 0
full                | optional fails        | Full     |    - |
full                | critical is well      | Full     |    - |
full                | important is well     | Full     |    - |
full                | wait 59               | Full     |    - |
full                | wait 60               | Full     |    - |
full                | wait 1000             | Full     |    - |
full                | the clock starts anew | Full     |    - |
degraded            | critical fails        | Minimal  |    - | Degraded to Minimal at 0
degraded            | important fails       | Degraded |    - |
degraded            | optional fails        | Degraded |    - |
degraded            | critical is well      | Degraded |    - |
degraded            | important is well     | Degraded |    - |
degraded            | wait 59               | Degraded |    - |
degraded            | wait 60               | Degraded |    - |
degraded            | wait 1000             | Degraded |    - |
degraded            | the clock starts anew | Degraded |    - |
degraded, climbing  | critical fails        | Minimal  |    - | Degraded to Minimal at 40
degraded, climbing  | important fails       | Degraded |    - |
degraded, climbing  | optional fails        | Degraded |  100 |
degraded, climbing  | critical is well      | Degraded |  100 |
degraded, climbing  | important is well     | Degraded |  100 |
degraded, climbing  | wait 59               | Degraded |  100 |
degraded, climbing  | wait 60               | Full     |    - | Degraded to Full at 100
degraded, climbing  | wait 1000             | Full     |    - | Degraded to Full at 100
degraded, climbing  | the clock starts anew | Degraded |  100 |
minimal             | critical fails        | Minimal  |    - |
minimal             | important fails       | Minimal  |    - |
minimal             | optional fails        | Minimal  |    - |
minimal             | critical is well      | Minimal  |    - |
minimal             | important is well     | Minimal  |    - |
minimal             | wait 59               | Minimal  |    - |
minimal             | wait 60               | Minimal  |    - |
minimal             | wait 1000             | Minimal  |    - |
minimal             | the clock starts anew | Minimal  |    - |
minimal to degraded | critical fails        | Minimal  |    - |
minimal to degraded | important fails       | Minimal  |  140 |
minimal to degraded | optional fails        | Minimal  |  100 |
minimal to degraded | critical is well      | Minimal  |  100 |
minimal to degraded | important is well     | Minimal  |  100 |
minimal to degraded | wait 59               | Minimal  |  100 |
minimal to degraded | wait 60               | Degraded |    - | Minimal to Degraded at 100
minimal to degraded | wait 1000             | Degraded |    - | Minimal to Degraded at 100
minimal to degraded | the clock starts anew | Minimal  |  100 |
minimal to full     | critical fails        | Minimal  |    - |
minimal to full     | important fails       | Minimal  |  140 |
minimal to full     | optional fails        | Minimal  |  100 |
minimal to full     | critical is well      | Minimal  |  100 |
minimal to full     | important is well     | Minimal  |  100 |
minimal to full     | wait 59               | Minimal  |  100 |
minimal to full     | wait 60               | Degraded |  200 | Minimal to Degraded at 100
minimal to full     | wait 1000             | Full     |    - | Minimal to Degraded at 100, Degraded to Full at 200
minimal to full     | the clock starts anew | Minimal  |  100 |
climbed a step      | critical fails        | Minimal  |    - | Degraded to Minimal at 140
climbed a step      | important fails       | Degraded |    - |
climbed a step      | optional fails        | Degraded |  200 |
climbed a step      | critical is well      | Degraded |  200 |
climbed a step      | important is well     | Degraded |  200 |
climbed a step      | wait 59               | Degraded |  200 |
climbed a step      | wait 60               | Full     |    - | Degraded to Full at 200
climbed a step      | wait 1000             | Full     |    - | Degraded to Full at 200
climbed a step      | the clock starts anew | Degraded |  200 |
";

#[test]
fn a_configuration_that_makes_no_sense_is_refused() {
    assert_eq!(Config::new().with_recovery(0).validate().err().map(|error| error.field()), Some("recovery"));
    assert!(Config::new().with_recovery(255).with_dwell(Duration::MAX).validate().is_ok());
    let hub = Degradation::<Local, 1>::new(QUICK);
    let never_checked = Service::new(Criticality::Optional).with_check_interval(Duration::ZERO);
    assert_eq!(hub.register("x", never_checked).map_err(|error| error.field()), Err("check_interval"));
    assert!(hub.is_healthy("x").is_err());
}

#[test]
fn there_are_no_more_services_than_places_and_a_name_keeps_its_place() {
    let hub = Degradation::<Local, 1>::new(QUICK);
    assert_eq!(hub.register("a", Service::new(Criticality::Optional)), Ok(()));
    let full = hub.register("b", Service::new(Criticality::Optional));
    assert_eq!(full.map_err(|error| error.field()), Err("services"));
    assert_eq!(hub.register("a", Service::new(Criticality::Critical)), Ok(()));
    assert_eq!(hub.report("a", false, &at(0)), Ok(()));
    assert_eq!(hub.level(&at(0)), Minimal, "the new settings count");
}

#[test]
fn an_unknown_service_is_an_error_everywhere() {
    let hub = Degradation::<Local, 1>::new(QUICK);
    assert_eq!(hub.report("ghost", true, &at(0)), Err(UnknownService("ghost")));
    assert_eq!(hub.is_healthy("ghost"), Err(UnknownService("ghost")));
    assert_eq!(hub.instead_of("ghost"), Err(UnknownService("ghost")));
    assert_eq!(hub.monitor("ghost").err(), Some(UnknownService("ghost")));
    assert_eq!(std::format!("{}", UnknownService("ghost")), "there is no service `ghost`");
}

#[test]
fn without_services_everything_is_well() {
    let hub = Degradation::<Local, 0>::new(QUICK);
    assert_eq!((hub.level(&at(0)), hub.poll_timeout(), hub.take_due_check(&at(0))), (Full, None, None));
    assert!(hub.register("a", Service::new(Criticality::Critical)).is_err());
}

#[test]
fn at_full_service_the_level_costs_no_look_at_the_clock() {
    let (rig, changes) = (Rig::new(), Changes::new());
    let hub = hub(&changes);
    assert_eq!((hub.level(&rig), hub.check(Full, &rig)), (Full, Ok(())));
    assert_eq!(rig.reads(), 0);
}

#[test]
fn the_worst_service_decides_whatever_the_order() {
    let names = ["critical", "important", "optional"];
    for (a, b, c) in [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)] {
        let changes = Changes::new();
        let hub = hub(&changes);
        for index in [a, b, c] {
            fails(&hub, names[index], at(0));
        }
        assert_eq!(hub.level(&at(0)), Minimal, "{a}{b}{c}");
        recovers(&hub, names[a], at(0));
        recovers(&hub, names[b], at(0));
        let last = [Minimal, Degraded, Full][c];
        assert_eq!(hub.level(&at(10_000)), last, "only {} is left", names[c]);
    }
}

#[test]
fn it_falls_any_number_of_steps_at_once_and_climbs_one_per_dwell() {
    let changes = Changes::new();
    let hub = hub(&changes);
    fails(&hub, "critical", at(7));
    recovers(&hub, "critical", at(7));
    let seen: Vec<_> = [7, 106, 107, 206, 207].map(|now| hub.level(&at(now))).into();
    assert_eq!(seen, [Minimal, Minimal, Degraded, Degraded, Full]);
    assert_eq!(told(&changes), [(Full, Minimal, at(7)), (Minimal, Degraded, at(107)), (Degraded, Full, at(207))]);
}

#[test]
fn as_many_good_results_in_a_row_as_configured_make_a_service_healthy() {
    for recovery in [1, 3, 255] {
        let config = Config::new().with_recovery(recovery).validate().expect("it makes sense");
        let hub = Degradation::<Local, 1>::new(config);
        hub.register("a", Service::new(Criticality::Optional)).expect("there is room");
        let report = |good| hub.report("a", good, &at(0)).expect("it is registered");
        report(false);
        (1..recovery).for_each(|_| report(true));
        assert_eq!(hub.is_healthy("a"), Ok(false));
        report(false);
        (1..recovery).for_each(|_| report(true));
        assert_eq!(hub.is_healthy("a"), Ok(false), "a failure in between starts the count anew");
        report(true);
        assert_eq!(hub.is_healthy("a"), Ok(true));
    }
}

#[test]
fn an_optional_service_never_changes_the_level_nor_holds_up_a_rise() {
    let changes = Changes::new();
    let hub = hub(&changes);
    fails(&hub, "important", at(0));
    recovers(&hub, "important", at(0));
    for now in [10, 50, 99] {
        fails(&hub, "optional", at(now));
    }
    recovers(&hub, "optional", at(99));
    assert_eq!(hub.level(&at(100)), Full);
}

#[test]
fn a_level_that_flaps_stays_down() {
    let changes = Changes::new();
    let hub = hub(&changes);
    for round in 0..50 {
        fails(&hub, "important", at(round * 20));
        recovers(&hub, "important", at(round * 20 + 10));
    }
    assert_eq!(told(&changes), [(Full, Degraded, at(0))]);
    assert_eq!(hub.level(&at(49 * 20 + 100)), Full);
}

#[test]
fn a_quiet_system_climbs_as_fast_as_a_busy_one() {
    let changes = Changes::new();
    let hub = hub(&changes);
    fails(&hub, "critical", at(0));
    recovers(&hub, "critical", at(0));
    assert_eq!(hub.level(&at(250)), Full);
    assert_eq!(told(&changes), [(Full, Minimal, at(0)), (Minimal, Degraded, at(100)), (Degraded, Full, at(200))]);
}

#[test]
fn a_failure_after_a_long_silence_finds_the_level_where_it_had_climbed_to() {
    let changes = Changes::new();
    let hub = hub(&changes);
    fails(&hub, "critical", at(0));
    recovers(&hub, "critical", at(0));
    fails(&hub, "important", at(1_000));
    assert_eq!(hub.level(&at(1_000)), Degraded, "full since 200 ms, degraded since 1 s");
    let expected =
        [(Full, Minimal, at(0)), (Minimal, Degraded, at(100)), (Degraded, Full, at(200)), (Full, Degraded, at(1_000))];
    assert_eq!(told(&changes), expected);
}

#[test]
fn a_service_that_was_down_for_long_does_not_bring_the_level_up_by_two_steps_at_once() {
    let changes = Changes::new();
    let hub = hub(&changes);
    fails(&hub, "critical", at(0));
    recovers(&hub, "critical", at(1_000));
    assert_eq!(hub.level(&at(1_000)), Degraded, "the dwell of the lowest level is long over");
    assert_eq!(hub.level(&at(1_099)), Degraded, "but that of this one has just begun");
    assert_eq!(hub.level(&at(1_100)), Full);
    let expected = [(Full, Minimal, at(0)), (Minimal, Degraded, at(1_000)), (Degraded, Full, at(1_100))];
    assert_eq!(told(&changes), expected);
}

#[test]
fn a_jump_of_a_century_climbs_to_the_top_step_by_step() {
    let changes = Changes::new();
    let hub = hub(&changes);
    fails(&hub, "critical", at(0));
    recovers(&hub, "critical", at(0));
    assert_eq!(hub.level(&Instant::from_millis(100 * 365 * 24 * 3_600_000)), Full);
    assert_eq!(told(&changes).len(), 3);
}

#[test]
fn a_clock_that_stands_still_neither_rises_nor_hangs() {
    let changes = Changes::new();
    let hub = hub(&changes);
    fails(&hub, "critical", at(0));
    recovers(&hub, "critical", at(0));
    for _ in 0..1_000 {
        hub.handle_timeout(&at(0));
        assert_eq!(hub.level(&at(0)), Minimal);
    }
    assert_eq!(told(&changes).len(), 1);
}

#[test]
fn a_clock_that_steps_back_only_prolongs_the_dwell() {
    let changes = Changes::new();
    let hub = hub(&changes);
    fails(&hub, "important", at(1_000));
    fails(&hub, "important", at(10));
    recovers(&hub, "important", at(10));
    assert_eq!(hub.level(&at(1_099)), Degraded);
    assert_eq!(hub.level(&at(1_100)), Full);
}

#[test]
fn the_dwell_saturates() {
    let config = valid!(Config::new().with_dwell(Duration::MAX).with_recovery(1).validate());
    let hub = Degradation::<Local, 1>::new(config);
    hub.register("a", unchecked(Criticality::Critical)).expect("there is room");
    for good in [false, true] {
        hub.report("a", good, &at(5)).expect("it is registered");
    }
    assert_eq!(hub.level(&Instant::from_nanos(u64::MAX - 1)), Minimal);
    assert_eq!(hub.poll_timeout(), None, "never");
}

#[test]
fn a_dwell_of_zero_rises_at_once() {
    let hub =
        Degradation::<Local, 1>::new(valid!(Config::new().with_dwell(Duration::ZERO).with_recovery(1).validate()));
    hub.register("a", Service::new(Criticality::Critical)).expect("there is room");
    for (good, level) in [(false, Minimal), (true, Full)] {
        hub.report("a", good, &at(5)).expect("it is registered");
        assert_eq!(hub.level(&at(5)), level);
    }
}

#[test]
fn timeouts_are_named_in_time_and_handled_exactly_then() {
    let changes = Changes::new();
    let hub = hub(&changes);
    assert_eq!(hub.poll_timeout(), None);
    fails(&hub, "critical", at(0));
    assert_eq!(hub.poll_timeout(), None, "something holds it down");
    recovers(&hub, "critical", at(30));
    for (rises, level) in [(100, Degraded), (200, Full)] {
        assert_eq!(hub.poll_timeout(), Some(at(rises)));
        hub.handle_timeout(&at(rises - 1));
        assert_ne!(hub.level_now(), level);
        hub.handle_timeout(&at(rises));
        assert_eq!(hub.level_now(), level);
    }
    assert_eq!(hub.poll_timeout(), None);
}

#[test]
fn an_observer_may_come_back_into_the_hub() {
    type Talkative = Degradation<Threaded, 1, DegradationLevel, (), fn(&LevelChange)>;
    static SEEN: AtomicU32 = AtomicU32::new(0);
    static HUB: Talkative = Degradation::with_observer(QUICK, |change| {
        assert_eq!((HUB.level(&change.at), HUB.is_healthy("a")), (change.to, Ok(false)));
        SEEN.fetch_add(1, Ordering::SeqCst);
    });
    HUB.register("a", Service::new(Criticality::Important)).expect("there is room");
    HUB.report("a", false, &at(0)).expect("it is registered");
    assert_eq!(SEEN.load(Ordering::SeqCst), 1);
}

#[test]
fn a_panic_of_the_observer_leaves_the_hub_as_it_should_be() {
    let hub = Degradation::<Local, 1, _, (), _>::with_observer(QUICK, |change: &LevelChange| {
        if change.to != Full {
            explode();
        }
    });
    hub.register("a", unchecked(Criticality::Critical)).expect("there is room");
    assert!(explodes(|| hub.report("a", false, &at(0))));
    assert_eq!((hub.level_now(), hub.is_healthy("a")), (Minimal, Ok(false)));
    (0..2).for_each(|_| hub.report("a", true, &at(0)).expect("it is registered"));
    assert!(explodes(|| hub.level(&at(200))));
    assert_eq!((hub.level_now(), hub.level(&at(200))), (Degraded, Full), "the change that was due is made later");
}

#[test]
fn a_feature_may_run_at_its_level_and_above() {
    let changes = Changes::new();
    let hub = hub(&changes);
    let may = || [Full, Degraded, Minimal].map(|level| hub.check(level, &at(50)).is_ok());
    assert_eq!(may(), [true, true, true]);
    fails(&hub, "important", at(0));
    assert_eq!(may(), [false, true, true]);
    let rejected = hub.check(Full, &at(50)).expect_err("it is degraded");
    assert_eq!((rejected.policy(), rejected.reason()), (Policy::Degradation, Reason::LevelTooLow));
    assert_eq!(rejected.retry_at(), None, "nobody knows when the service comes back");
    recovers(&hub, "important", at(50));
    assert_eq!(hub.check(Full, &at(50)).err().and_then(|rejected| rejected.retry_at()), Some(at(100)));
    fails(&hub, "critical", at(50));
    assert_eq!(may(), [false, false, true]);
}

/// Four levels, as a ship might have them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ship {
    Cruise,
    Slow,
    Drift,
    Abandon,
}

impl Level for Ship {
    const LOWEST: u8 = 3;

    fn step(self) -> u8 {
        self as u8
    }

    fn from_step(step: u8) -> Self {
        [Self::Cruise, Self::Slow, Self::Drift, Self::Abandon][usize::from(step.min(Self::LOWEST))]
    }
}

#[test]
fn a_scale_of_ones_own_has_as_many_levels_as_it_likes() {
    let changes = Recorder::<LevelChange<Ship>, 16>::new();
    let hub = Degradation::<Local, 4, Ship, (), _>::with_observer(QUICK, &changes);
    for (name, level) in
        [("radio", Ship::Cruise), ("engine", Ship::Slow), ("rudder", Ship::Drift), ("hull", Ship::Abandon)]
    {
        let service = Service::falling_to(level).with_check_interval(Duration::MAX);
        hub.register(name, service).expect("there is room");
    }
    let seen = ["radio", "engine", "rudder", "hull"].map(|name| {
        hub.report(name, false, &at(0)).expect("it is registered");
        hub.level(&at(0))
    });
    assert_eq!(seen, [Ship::Cruise, Ship::Slow, Ship::Drift, Ship::Abandon]);
    for name in ["radio", "engine", "rudder", "hull"] {
        (0..2).for_each(|_| hub.report(name, true, &at(0)).expect("it is registered"));
    }
    let seen = [99, 100, 200, 300].map(|now| hub.level(&at(now)));
    assert_eq!(seen, [Ship::Abandon, Ship::Drift, Ship::Slow, Ship::Cruise]);
    assert_eq!(changes.take().count(), 6);
}

#[test]
fn a_step_below_the_lowest_is_the_lowest() {
    let hub = Degradation::<Local, 1>::new(QUICK);
    hub.register("hull", Service::falling_to(Ship::Abandon)).expect("there is room");
    hub.report("hull", false, &at(0)).expect("it is registered");
    assert_eq!(hub.level(&at(0)), Minimal);
    (0..2).for_each(|_| hub.report("hull", true, &at(0)).expect("it is registered"));
    assert_eq!(hub.level(&at(200)), Full);
}

/// What a hub should do, told by looking at it in every single millisecond.
struct Oracle {
    dwell: u64,
    recovery: u8,
    services: Vec<(u8, bool, u8)>,
    step: u8,
    since: u64,
    now: u64,
    changes: Vec<(u8, u8, Instant)>,
}

impl Oracle {
    fn advance(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now += 1;
            self.look();
        }
    }

    fn look(&mut self) {
        let held = self.services.iter().filter(|(_, healthy, _)| !healthy).map(|(falls_to, ..)| *falls_to).max();
        let allowed = held.unwrap_or(0);
        let next = match () {
            () if allowed > self.step => allowed,
            () if allowed < self.step && self.now >= self.since + self.dwell => self.step - 1,
            () => return,
        };
        self.changes.push((self.step, next, at(self.now)));
        (self.step, self.since) = (next, self.now);
    }

    fn report(&mut self, index: usize, good: bool) {
        let (falls_to, healthy, streak) = &mut self.services[index];
        if !good {
            (*healthy, *streak) = (false, 0);
            if *falls_to > 0 && self.step > 0 {
                self.since = self.now;
            }
        } else if !*healthy {
            *streak += 1;
            *healthy = *streak == self.recovery;
        }
        self.look();
    }
}

#[test]
fn random_reports_agree_with_the_oracle_however_seldom_somebody_looks() {
    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let mut below = |limit: u32| rng.next() % limit;
        let (dwell, recovery) = (u64::from(1 + below(60)), [1, 2, 3][below(3) as usize]);
        let config = Config::new().with_dwell(ms(dwell)).with_recovery(recovery).validate().expect("it makes sense");
        let changes = Recorder::<LevelChange<Ship>, 512>::new();
        let hub = Degradation::<Local, 4, Ship, (), _>::with_observer(config, &changes);
        let mut oracle =
            Oracle { dwell, recovery, services: Vec::new(), step: 0, since: 0, now: 0, changes: Vec::new() };
        for name in NAMES {
            let level = Ship::from_step([0, 1, 2, 3][below(4) as usize]);
            hub.register(name, Service::falling_to(level)).expect("there is room");
            oracle.services.push((level.step(), true, 0));
        }
        for _ in 0..200 {
            oracle.advance(u64::from(below(2) * below(80)));
            let (index, good, now) = (below(4), below(4) != 0, at(oracle.now));
            match below(8) {
                0 => assert_eq!(hub.level(&now).step(), oracle.step, "seed {seed}"),
                1 => hub.handle_timeout(&now),
                _ => {
                    oracle.report(index as usize, good);
                    hub.report(NAMES[index as usize], good, &now).expect("it is registered");
                }
            }
        }
        assert_eq!(hub.level(&at(oracle.now)).step(), oracle.step, "seed {seed}");
        let told: Vec<_> = changes.take().map(|change| (change.from.step(), change.to.step(), change.at)).collect();
        assert_eq!(told, oracle.changes, "seed {seed}");
        for pair in told.windows(2) {
            let rise = pair[1].1 < pair[1].0;
            let apart = pair[1].2.saturating_duration_since(pair[0].2);
            assert!(!rise || apart >= ms(dwell), "seed {seed}: a rise {apart:?} after the last change");
        }
        // Whatever has happened: once all is well for long enough, everything works again.
        for name in NAMES {
            (0..3).for_each(|_| hub.report(name, true, &at(oracle.now)).expect("it is registered"));
        }
        assert_eq!(hub.level(&at(oracle.now + 3 * dwell)), Ship::Cruise, "seed {seed}");
    }
}

#[test]
fn the_check_that_is_due_the_longest_comes_first() {
    let hub = Degradation::<Local, 4>::new(QUICK);
    for (name, interval) in [("slow", 30), ("quick", 5), ("middling", 10)] {
        let service = Service::new(Criticality::Optional).with_check_interval(ms(interval));
        hub.register(name, service).expect("there is room");
    }
    hub.register("trusted", unchecked(Criticality::Optional)).expect("there is room");
    let due = |now| core::iter::from_fn(|| hub.take_due_check(&at(now))).collect::<Vec<_>>();
    assert_eq!(due(0), ["slow", "quick", "middling"], "all are checked at once, and only once");
    assert_eq!(due(4), [""; 0]);
    assert_eq!(hub.poll_timeout(), Some(at(5)));
    assert_eq!(due(5), ["quick"]);
    assert_eq!(due(40), ["quick", "middling", "slow"], "due since 10, 10 and 30; each only once");
    assert_eq!(due(45), ["quick"], "an interval after the last one, not after it was due");
    assert_eq!(due(3), [""; 0], "the clock has stepped back");
}

#[test]
fn a_service_with_the_longest_interval_is_never_checked() {
    let hub = Degradation::<Local, 1>::new(QUICK);
    hub.register("a", unchecked(Criticality::Critical)).expect("there is room");
    for now in [at(0), at(1), Instant::MAX] {
        assert_eq!(hub.take_due_check(&now), None);
    }
    assert_eq!(hub.poll_timeout(), None);
}

#[test]
fn something_stands_in_for_a_service_its_fallback_first() {
    let hub = Degradation::<Local, 4, DegradationLevel, u32>::new(QUICK);
    let service = Service::new(Criticality::Optional);
    hub.register("neither", service).expect("there is room");
    hub.register("response", service.with_response(1)).expect("there is room");
    hub.register("fallback", service.with_fallback(|| Some(2)).with_response(1)).expect("there is room");
    hub.register("helpless", service.with_fallback(|| None).with_response(1)).expect("there is room");
    let instead = ["neither", "response", "fallback", "helpless"].map(|name| hub.instead_of(name));
    assert_eq!(instead, [Ok(None), Ok(Some(1)), Ok(Some(2)), Ok(Some(1))]);
}

#[test]
fn a_fallback_may_come_back_into_the_hub() {
    static HUB: Degradation<Threaded, 1, DegradationLevel, bool> = Degradation::new(QUICK);
    let service = Service::new(Criticality::Critical).with_fallback(|| HUB.is_healthy("a").ok());
    HUB.register("a", service).expect("there is room");
    assert_eq!(HUB.instead_of("a"), Ok(Some(true)));
}

/// Runs the checks for so long, and says which were made when.
fn checks(hub: &Hub<'_>, rig: &Rig, lasts: Duration, well: impl Fn(Duration) -> bool) -> Vec<(&'static str, Duration)> {
    let mut made = Vec::new();
    let check = async |name| {
        made.push((name, rig.elapsed()));
        well(rig.elapsed())
    };
    let end = rig.now().saturating_add(lasts);
    rig.run(until(hub.run_checks(rig, check), rig.sleep_until(end)));
    made
}

#[test]
fn each_service_is_checked_at_its_interval() {
    let (rig, changes) = (&Rig::new(), Changes::new());
    let hub = Hub::with_observer(QUICK, &changes);
    for (name, interval) in [("two", 2_000), ("three", 3_000), ("ages", u64::MAX)] {
        let service = Service::new(Criticality::Critical).with_check_interval(ms(interval));
        hub.register(name, service).expect("there is room");
    }
    let made = checks(&hub, rig, ms(7_000), |_| true);
    let expected = [("two", 0), ("three", 0), ("two", 2_000), ("three", 3_000), ("two", 4_000), ("two", 6_000)];
    assert_eq!(made[..6], expected.map(|(name, when)| (name, ms(when))));
    assert_eq!(made[6..], [("three", ms(6_000))]);
    assert_eq!((told(&changes).len(), rig.live()), (0, 0));
}

#[test]
fn checks_alone_take_the_level_down_and_bring_it_up_again() {
    let (rig, changes) = (&Rig::new(), Changes::new());
    let hub = Hub::with_observer(QUICK, &changes);
    let service = Service::new(Criticality::Critical).with_check_interval(ms(10));
    hub.register("a", service).expect("there is room");
    // Ill from 100 to 200 ms; then two good checks, at 200 and 210.
    checks(&hub, rig, ms(600), |now| !(ms(100)..ms(200)).contains(&now));
    let expected = [(Full, Minimal, at(100)), (Minimal, Degraded, at(290)), (Degraded, Full, at(390))];
    assert_eq!(told(&changes), expected, "the last failure was at 190");
}

#[test]
fn the_level_rises_on_time_also_when_a_service_failed_while_no_check_was_due() {
    let (rig, changes) = (&Rig::new(), Changes::new());
    let hub = hub(&changes);
    let trouble = async {
        rig.sleep_until(at(1_500)).await;
        fails(&hub, "important", at(1_500));
        recovers(&hub, "important", at(1_500));
        rig.sleep_until(at(2_600)).await;
    };
    rig.run(until(hub.run_checks(rig, async |_| true), trouble));
    assert_eq!(told(&changes), [(Full, Degraded, at(1_500)), (Degraded, Full, at(1_600))]);
}

#[test]
fn a_dropped_check_is_made_again_an_interval_later() {
    let (rig, changes) = (&Rig::new(), Changes::new());
    let hub = Hub::with_observer(QUICK, &changes);
    let service = Service::new(Criticality::Critical).with_check_interval(ms(50));
    hub.register("a", service).expect("there is room");
    rig.run(until(hub.run_checks(rig, async |_| never().await), rig.sleep_until(at(10))));
    assert_eq!(hub.poll_timeout(), Some(at(50)));
    assert_eq!(checks(&hub, rig, ms(60), |_| true), [("a", ms(50))]);
}

#[test]
fn a_monitored_call_reports_how_it_went() {
    let (rig, changes) = (Rig::new(), Changes::new());
    let hub = hub(&changes);
    let monitor = || hub.monitor("important").expect("it is registered");
    let healthy = || hub.is_healthy("important").expect("it is registered");
    let pipeline = Pipeline::new(&rig).layer(monitor()).layer(Timeout::new(ms(10)));
    assert!(rig.run(pipeline.call(|_| never::<Result<(), ()>>())).is_err());
    assert!(!healthy(), "a timeout is a failure");
    assert_eq!(hub.level(&rig), Degraded);
    for well in [false, true] {
        assert_eq!(rig.run(pipeline.call(async |_| Ok::<_, ()>(()))), Ok(()));
        assert_eq!(healthy(), well);
    }
    assert!(rig.run(pipeline.call(async |_| Err::<(), _>(()))).is_err());
    assert!(!healthy());
}

#[test]
fn a_rejected_ignored_or_cancelled_call_says_nothing_about_the_service() {
    let (rig, changes) = (Rig::new(), Changes::new());
    let hub = hub(&changes);
    let monitor = || hub.monitor("important").expect("it is registered");
    fails(&hub, "critical", at(0));
    let gated = Pipeline::new(&rig).layer(monitor()).layer(hub.feature(Full));
    assert!(rig.run(gated.call(async |_| Ok::<_, ()>(()))).expect_err("the level is too low").is_rejected());
    let lenient = Pipeline::new(&rig).layer(monitor()).classify(|_: Result<&(), &()>| crate::Verdict::IGNORED);
    assert!(rig.run(lenient.call(async |_| Err(()))).is_err());
    let pipeline = Pipeline::new(&rig).layer(monitor());
    assert!(poll_once(core::pin::pin!(pipeline.call(|_| never::<Result<(), ()>>()))).is_pending());
    assert_eq!(hub.is_healthy("important"), Ok(true));
    fails(&hub, "important", at(0));
    for _ in 0..5 {
        assert!(rig.run(lenient.call(async |_| Err(()))).is_err());
    }
    assert_eq!(hub.is_healthy("important"), Ok(false), "nor that it is well again");
}

#[test]
fn a_feature_is_gated_again_at_each_attempt() {
    let (rig, changes) = (Rig::new(), Changes::new());
    let hub = hub(&changes);
    let pipeline = Pipeline::new(&rig)
        .layer(RetryPolicy::new(valid!(retry::Config::new().validate())))
        .layer(hub.feature(Full))
        .layer(hub.monitor("important").expect("it is registered"));
    let failure = rig.run(pipeline.call(async |_| Err::<(), _>(()))).expect_err("it fails");
    assert_eq!(
        (failure.attempts, failure.stop),
        (1, Some(crate::Stop::Rejected)),
        "the first failure has lowered the level"
    );
    assert_eq!(failure.into_inner(), Some(()), "and is what the caller gets");
}

#[test]
fn a_feature_is_gated_when_its_call_starts_and_not_in_the_middle_of_it() {
    let (rig, changes) = (Rig::new(), Changes::new());
    let hub = hub(&changes);
    let steps = [Step::SucceedAfter(ms(10))];
    let service = Script::new(&steps);
    let pipeline = Pipeline::new(&rig).layer(hub.feature(Full));
    let mut call = core::pin::pin!(pipeline.call(|_| service.call(&rig)));
    assert!(poll_once(call.as_mut()).is_pending());
    fails(&hub, "important", at(0));
    assert!(poll_once(call.as_mut()).is_pending());
    assert_eq!(rig.run(call), Ok(1), "it was let in");
    let failure: Failure<_> = rig.run(pipeline.call(|_| service.call(&rig))).expect_err("too low by now");
    assert_eq!(failure.rejected().map(|rejected| rejected.reason()), Some(Reason::LevelTooLow));
    assert_eq!(service.calls(), 1);
    recovers(&hub, "important", at(10));
    rig.set(at(110));
    assert_eq!(rig.run(pipeline.call(|_| service.call(&rig))), Ok(2));
}

#[test]
fn a_degraded_system_answers_with_what_stands_in() {
    let rig = Rig::new();
    let hub = Degradation::<Local, 1, DegradationLevel, u32>::new(QUICK);
    let asked = Cell::new(0);
    hub.register("prices", Service::new(Criticality::Important).with_response(9)).expect("there is room");
    let pipeline = Pipeline::new(&rig)
        .layer(crate::fallback::Fallback::new(|failure: Failure<&'static str>| {
            hub.instead_of("prices").ok().flatten().ok_or(failure)
        }))
        .layer(hub.feature(Full))
        .layer(hub.monitor("prices").expect("it is registered"));
    let ask = || {
        rig.run(pipeline.call(async |_| {
            asked.set(asked.get() + 1);
            Err("down")
        }))
    };
    assert_eq!([ask(), ask(), ask()], [Ok(9), Ok(9), Ok(9)]);
    assert_eq!(asked.get(), 1, "the service is left alone while the level is too low");
}

#[test]
fn a_hub_is_as_large_as_its_table() {
    assert_eq!(size_of::<Degradation<Local, 4>>(), 272);
}

#[test]
fn a_service_that_is_registered_again_keeps_its_health() {
    let hub: Degradation<Local, 1> = Degradation::new(valid!(Config::new().validate()));
    hub.register("a", Service::new(Criticality::Critical)).expect("there is room");
    hub.report("a", false, &at(0)).expect("it is registered");
    hub.register("a", Service::new(Criticality::Important)).expect("it has its place");
    assert_eq!(hub.is_healthy("a"), Ok(false));
}

#[test]
fn a_check_that_hangs_takes_the_level_down_once_its_timeout_is_over() {
    let (rig, changes) = (&Rig::new(), Changes::new());
    let hub: Hub<'_> = Hub::with_observer(QUICK, &changes);
    let service = Service::new(Criticality::Critical).with_check_interval(ms(50));
    hub.register("a", service).expect("there is room");
    let pipeline = &Pipeline::new(rig).layer(Timeout::new(ms(20)));
    // Well at first, then nothing is heard of it.
    let check = async |_| {
        pipeline.call(async |_| if rig.elapsed() < ms(50) { Ok::<_, ()>(()) } else { never().await }).await.is_ok()
    };
    rig.run(until(hub.run_checks(rig, check), rig.sleep_until(at(500))));
    assert_eq!(told(&changes), [(Full, Minimal, at(70))]);
}

#[test]
fn whoever_knows_makes_a_service_healthy_at_once_and_the_level_rises_after_its_dwell() {
    let changes = Changes::new();
    let hub = hub(&changes);
    assert_eq!(hub.set_healthy("critical", false, &at(10)), Ok(()));
    assert_eq!((hub.level(&at(10)), hub.is_healthy("critical")), (Minimal, Ok(false)));
    assert_eq!(hub.set_healthy("critical", true, &at(50)), Ok(()));
    assert_eq!((hub.level(&at(50)), hub.is_healthy("critical")), (Minimal, Ok(true)));
    assert_eq!((hub.level(&at(110)), hub.level(&at(210))), (Degraded, Full));
    assert_eq!(told(&changes), [(Full, Minimal, at(10)), (Minimal, Degraded, at(110)), (Degraded, Full, at(210))]);
    assert_eq!(hub.set_healthy("printer", true, &at(210)), Err(UnknownService("printer")));
}
