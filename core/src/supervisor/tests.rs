use std::collections::BTreeMap;
use std::vec::Vec;

use super::*;
use crate::cell::Local;
use crate::degradation::DegradationLevel::{Degraded, Full, Minimal};
use crate::rng::Rng;
use crate::testing::Recorder;
use crate::testing::tests::{Rig, at, ms, until};
use crate::{degradation, valid};

type Changes = Recorder<TaskChange, 32>;
type Hub = Degradation<Local, 4>;
type Told<'r, const N: usize> = Supervisor<Local, N, (), &'r Changes>;

const CONFIG: Valid<Config> = valid!(Config::new().with_feed_interval(ms(50)).validate());
const QUICK: Valid<degradation::Config> = valid!(degradation::Config::new().with_dwell(ms(100)).validate());

/// Which task, whether it is stalled, and since when.
fn told(changes: &Changes) -> Vec<(&'static str, bool, Instant)> {
    assert_eq!(changes.missed(), 0);
    changes.take().map(|change| (change.task, change.stalled, change.at)).collect()
}

#[test]
fn a_critical_task_is_stalled_from_its_deadline_on_and_back_when_it_checks_in() {
    let changes = Changes::new();
    let tasks = Told::<2>::with_observer(CONFIG, (), &changes);
    let control = tasks.register("control", Task::critical(ms(100)), &at(10)).expect("there is room");
    tasks.handle_timeout(&Instant::from_nanos(at(110).as_nanos() - 1));
    assert_eq!((tasks.is_alive(), tasks.stalled(), tasks.poll_timeout()), (true, None, Some(at(110))));
    tasks.handle_timeout(&at(110));
    tasks.handle_timeout(&at(120));
    assert_eq!((tasks.is_alive(), tasks.stalled(), tasks.poll_timeout()), (false, Some("control"), None));
    control.check_in(&at(130));
    assert_eq!((tasks.is_alive(), tasks.stalled(), tasks.poll_timeout()), (true, None, Some(at(230))));
    let critical: Vec<bool> = changes.take().map(|change| change.critical).collect();
    assert_eq!(critical, [true, true]);
}

#[test]
fn changes_are_told_in_the_order_of_the_deadlines_and_as_of_them() {
    let changes = Changes::new();
    let tasks = Told::<3>::with_observer(CONFIG, (), &changes);
    for (name, deadline) in [("slow", 300), ("quick", 100), ("middling", 200)] {
        tasks.register(name, Task::optional(ms(deadline)), &at(0)).expect("there is room");
    }
    tasks.handle_timeout(&at(250));
    assert_eq!(told(&changes), [("quick", true, at(100)), ("middling", true, at(200))]);
    assert_eq!((tasks.poll_timeout(), tasks.is_alive(), tasks.stalled()), (Some(at(300)), true, Some("quick")));
}

#[test]
fn a_deadline_that_only_the_late_task_itself_notices_is_told_too() {
    let changes = Changes::new();
    let tasks = Told::<1>::with_observer(CONFIG, (), &changes);
    let control = tasks.register("control", Task::critical(ms(100)), &at(0)).expect("there is room");
    control.check_in(&at(100));
    assert_eq!(told(&changes), [("control", true, at(100)), ("control", false, at(100))]);
    control.check_in(&at(199));
    assert_eq!(told(&changes), []);
}

#[test]
fn a_stalled_critical_task_comes_before_optional_ones_that_have_been_so_for_longer() {
    let tasks = Supervisor::<Local, 3>::new(CONFIG);
    tasks.register("display", Task::optional(ms(1)), &at(0)).expect("there is room");
    tasks.register("radio", Task::critical(ms(9)), &at(0)).expect("there is room");
    tasks.register("control", Task::critical(ms(5)), &at(0)).expect("there is room");
    for (millis, stalled) in [(0, None), (1, Some("display")), (5, Some("control")), (9, Some("control"))] {
        tasks.handle_timeout(&at(millis));
        assert_eq!(tasks.stalled(), stalled, "at {millis} ms");
    }
}

#[test]
fn a_stalled_task_takes_the_level_down_and_its_return_brings_it_back_after_the_dwell() {
    let hub = Hub::new(QUICK);
    let tasks: Supervisor<Local, 3, _> = Supervisor::with_levels(CONFIG, &hub);
    let display = tasks.register("display", Task::optional(ms(100)), &at(0)).expect("there is room");
    let minimal = Task::optional(ms(200)).falling_to(Minimal);
    let radio = tasks.register("radio", minimal, &at(0)).expect("there is room");
    let control = tasks.register("control", Task::critical(ms(300)), &at(0)).expect("there is room");
    let levels_at = |millis, expected: DegradationLevel| {
        tasks.handle_timeout(&at(millis));
        assert_eq!(hub.level(&at(millis)), expected, "at {millis} ms");
    };
    levels_at(99, Full);
    levels_at(100, Degraded);
    levels_at(200, Minimal);
    radio.check_in(&at(250));
    levels_at(299, Minimal);
    control.check_in(&at(299));
    levels_at(300, Degraded); // as far as the display lets it
    display.check_in(&at(360));
    radio.check_in(&at(380));
    levels_at(399, Degraded); // not before it has been in force for the dwell
    levels_at(400, Full);
    display.check_in(&at(459));
    assert!(tasks.is_alive());
    display.check_in(&at(550));
    radio.check_in(&at(550));
    levels_at(599, Minimal); // the control hangs: it is critical
    assert!(!tasks.is_alive());
}

#[test]
fn the_watchdog_is_fed_at_its_interval_while_all_critical_tasks_are_alive() {
    let (changes, rig) = (Changes::new(), Rig::new());
    let tasks = Told::<2>::with_observer(CONFIG, (), &changes);
    let control = tasks.register("control", Task::critical(ms(120)), &&rig).expect("there is room");
    tasks.register("display", Task::optional(ms(30)), &&rig).expect("there is room");
    let mut fed = Vec::new();
    let feeding = tasks.run(&rig, || fed.push(rig.elapsed().as_millis()));
    let work = async {
        // Silent for too long before the last.
        for millis in [100, 200, 390] {
            (&rig).sleep_until(at(millis)).await;
            control.check_in(&&rig);
        }
        (&rig).sleep_until(at(470)).await;
    };
    rig.run(until(feeding, work));
    // Also the display's deadline and the control's have woken it, at 30 and 320 ms: that is no time to feed. When the control is
    // back, it is high time.
    assert_eq!(fed, [0, 50, 100, 150, 200, 250, 300, 393, 443]);
    assert_eq!(told(&changes), [("display", true, at(30)), ("control", true, at(320)), ("control", false, at(390))]);
}

#[test]
fn an_executor_that_stalls_does_not_feed_and_then_feeds_once() {
    let rig = Rig::new();
    let tasks = Supervisor::<Local, 1>::new(CONFIG);
    let mut fed = Vec::new();
    let feeding = tasks.run(&rig, || fed.push(rig.elapsed().as_millis()));
    let work = async {
        (&rig).sleep_until(at(60)).await;
        rig.stall(ms(500));
        (&rig).sleep_until(at(700)).await;
    };
    rig.run(until(feeding, work));
    assert_eq!(fed, [0, 50, 600, 650, 700]);
}

#[test]
fn a_task_that_is_back_as_its_deadline_is_noticed_leaves_the_level_as_it_was() {
    // Whoever is told of the stall stands for a task of a higher priority, which checks in just then.
    type Back<'a> = RefCell<Option<Supervised<'a, Local, 1, &'a Hub, &'a dyn Fn(&TaskChange)>>>;
    let (hub, back) = (Hub::new(QUICK), Back::default());
    let check_in = |change: &TaskChange| {
        if change.stalled {
            let alive = back.borrow();
            alive.as_ref().expect("it is registered").check_in(&at(100));
        }
    };
    let tasks = Supervisor::<Local, 1, &Hub, &dyn Fn(&TaskChange)>::with_observer(CONFIG, &hub, &check_in);
    let display = tasks.register("display", Task::optional(ms(100)), &at(0)).expect("there is room");
    back.replace(Some(display));
    tasks.handle_timeout(&at(100));
    assert_eq!((tasks.stalled(), hub.level(&at(100))), (None, Full));
}

#[test]
fn a_watchdog_may_be_a_value_too() {
    struct Counting<'a>(&'a core::cell::Cell<u32>);
    impl Watchdog for Counting<'_> {
        fn feed(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    let (fed, rig) = (core::cell::Cell::new(0), Rig::new());
    let tasks = Supervisor::<Local, 1>::new(Config::default().validate().expect("they make sense"));
    rig.run(until(tasks.run(&rig, Counting(&fed)), (&rig).sleep_until(at(1_400))));
    assert_eq!(fed.get(), 3, "every half second");
}

#[test]
fn a_name_that_is_registered_again_has_checked_in_with_its_new_settings() {
    let changes = Changes::new();
    let tasks = Told::<1>::with_observer(CONFIG, (), &changes);
    tasks.register("control", Task::critical(ms(100)), &at(0)).expect("there is room");
    tasks.handle_timeout(&at(100));
    tasks.register("control", Task::optional(ms(500)), &at(150)).expect("it has its place");
    assert_eq!((tasks.is_alive(), tasks.poll_timeout()), (true, Some(at(650))));
    assert_eq!(told(&changes), [("control", true, at(100)), ("control", false, at(150))]);
    tasks.handle_timeout(&at(650));
    assert!(tasks.is_alive(), "optional now");
}

#[test]
fn what_can_not_be_supervised_is_refused() {
    let field = |error: ConfigError| error.field();
    let hub: Degradation<Local, 1> = Degradation::new(QUICK);
    let tasks: Supervisor<Local, 2, _> = Supervisor::with_levels(CONFIG, &hub);
    let register = |name, deadline| tasks.register(name, Task::critical(deadline), &at(0)).map(drop).map_err(field);
    assert_eq!(register("zero", Duration::ZERO), Err("deadline"));
    assert_eq!(register("one", ms(1)), Ok(()));
    assert_eq!(register("two", ms(1)), Err("services"), "no place for its level");
    let alone = Supervisor::<Local, 1>::new(CONFIG);
    alone.register("one", Task::critical(ms(1)), &at(0)).expect("there is room");
    assert_eq!(alone.register("two", Task::critical(ms(1)), &at(0)).map(drop).map_err(field), Err("tasks"));
    assert_eq!(Config::new().with_feed_interval(Duration::ZERO).validate().map_err(field), Err("feed_interval"));
}

#[test]
fn the_longest_deadline_is_never_missed_and_the_last_instant_is_none() {
    let tasks = Supervisor::<Local, 2>::new(CONFIG);
    tasks.register("idle", Task::critical(Duration::MAX), &at(5)).expect("there is room");
    tasks.register("late", Task::critical(ms(10)), &Instant::MAX).expect("there is room");
    tasks.handle_timeout(&Instant::MAX);
    assert_eq!((tasks.is_alive(), tasks.poll_timeout()), (true, None));
}

#[test]
fn after_a_clock_that_steps_back_a_task_is_watched_from_its_next_check_in() {
    let tasks = Supervisor::<Local, 1>::new(CONFIG);
    let control = tasks.register("control", Task::critical(ms(100)), &at(3_600_000)).expect("there is room");
    control.check_in(&at(50));
    tasks.handle_timeout(&at(149));
    assert!(tasks.is_alive());
    tasks.handle_timeout(&at(150));
    assert!(!tasks.is_alive());
}

#[test]
fn it_says_what_it_is() {
    let tasks = Supervisor::<Local, 1>::new(CONFIG);
    let control = tasks.register("control", Task::critical(ms(1)), &at(0)).expect("there is room");
    assert_eq!(std::format!("{tasks:?} {control:?}"), "Supervisor { alive: true, .. } Supervised { place: 0, .. }");
    tasks.handle_timeout(&at(1));
    assert_eq!(std::format!("{tasks:?}"), "Supervisor { alive: false, .. }");
}

/// What the supervisor must say, from nothing but when each task has checked in.
#[derive(Default)]
struct Model(BTreeMap<&'static str, (Task, Vec<u64>)>);

impl Model {
    /// Whether a task is stalled, and its last deadline.
    fn state(&self, name: &str, now: u64) -> (bool, u64) {
        let (task, times) = &self.0[name];
        let deadline = times.last().expect("registering is one") + task.deadline.as_nanos() / 1_000_000;
        (now >= deadline, deadline)
    }

    /// Every change so far, by the time at which it happened.
    fn changes(&self, now: u64) -> Vec<(u64, bool, &'static str)> {
        let mut changes = Vec::new();
        for (name, (task, times)) in &self.0 {
            let span = task.deadline.as_nanos() / 1_000_000;
            let ends = times.iter().skip(1).map(|&time| (time, true)).chain([(now, false)]);
            for (from, (to, back)) in times.iter().zip(ends) {
                if to >= from + span {
                    changes.push((from + span, true, *name));
                    if back {
                        changes.push((to, false, *name));
                    }
                }
            }
        }
        changes.sort_unstable();
        changes
    }
}

#[test]
fn it_says_what_follows_from_the_check_ins_and_nothing_else() {
    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let mut draw = |below: u32| rng.next() % below;
        let recorded = Recorder::<TaskChange, 400>::new();
        let tasks: Supervisor<Local, 4, (), &Recorder<TaskChange, 400>> =
            Supervisor::with_observer(CONFIG, (), &recorded);
        let (mut model, mut now) = (Model::default(), 0);
        let supervised = NAMES.map(|name| {
            let deadline = ms(u64::from(1 + draw(30)));
            let task = if draw(2) == 0 { Task::critical(deadline) } else { Task::optional(deadline) };
            model.0.insert(name, (task, std::vec![0]));
            tasks.register(name, task, &at(0)).expect("there is room")
        });
        for step in 0..80 {
            now += u64::from(draw(12));
            let place = draw(8) as usize;
            match NAMES.get(place) {
                Some(name) => {
                    supervised[place].check_in(&at(now));
                    model.0.get_mut(name).expect("it is registered").1.push(now);
                }
                None => {
                    tasks.handle_timeout(&at(now));
                    let states = NAMES.map(|name| model.state(name, now));
                    let of_critical =
                        |&(place, &(stalled, _)): &(usize, &(bool, u64))| stalled && model.0[NAMES[place]].0.critical;
                    let dead = states.iter().enumerate().any(|state| of_critical(&state));
                    assert_eq!(tasks.is_alive(), !dead, "seed {seed}, step {step}");
                    let next = states.iter().filter(|(stalled, _)| !stalled).map(|&(_, deadline)| at(deadline)).min();
                    assert_eq!(tasks.poll_timeout(), next, "seed {seed}, step {step}");
                    let stalled = states.iter().any(|(stalled, _)| *stalled);
                    assert_eq!(tasks.stalled().is_some(), stalled, "seed {seed}, step {step}");
                }
            }
        }
        tasks.handle_timeout(&at(now));
        let mut changes: Vec<_> =
            recorded.take().map(|change| (change.at.as_nanos() / 1_000_000, change.stalled, change.task)).collect();
        assert_eq!(recorded.missed(), 0);
        changes.sort_unstable();
        assert_eq!(changes, model.changes(now), "seed {seed}");
    }
}
