//! Every state that a small degradation can reach: services that fail and recover, and the level that follows.
//!
//! Time counts from now, in ticks. A level that has been held for longer than it takes to climb the whole scale has been held for
//! ever.

use super::*;
use crate::explore::{System, explore};

const TICK: u64 = 1_000;
/// Now, before each step.
const NOW: u64 = 1_000 * TICK;
/// In ticks.
const DWELL: u64 = 2;
const LONG_AGO: u64 = DWELL * 3;
const RECOVERY: u8 = 2;
const NAMES: [&str; 3] = ["critical", "important", "optional"];
/// How far each takes the whole down.
const FALLS_TO: [u8; 3] = [2, 1, 0];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Move {
    Report(usize, bool),
    Wait,
    /// Nobody looks for so many ticks.
    WaitLonger(u64),
    HandleTimeout,
    AskLevel,
    TakeDueCheck,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Seen {
    healthy: bool,
    streak: u8,
    next_check: u64,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Moment {
    services: Vec<Seen>,
    step: u8,
    since: u64,
    now: u64,
    /// Since when nothing has been in the way of a rise: the last change of level, or the last trouble.
    quiet_since: u64,
}

struct InUse {
    services: usize,
    /// Between health checks, in ticks; 0 for none.
    interval: u64,
    steps: &'static [Move],
}

const CONFIG: Valid<Config> =
    valid!(Config::new().with_dwell(Duration::from_nanos(DWELL * TICK)).with_recovery(RECOVERY).validate());

impl InUse {
    fn hub<'c>(&self, moment: &Moment, changes: &'c Changes) -> Hub<'c> {
        let hub = Hub::with_observer(CONFIG, changes);
        let criticalities = [Criticality::Critical, Criticality::Important, Criticality::Optional];
        for (name, criticality) in NAMES.into_iter().zip(criticalities).take(self.services) {
            let interval = if self.interval == 0 { Duration::MAX } else { Duration::from_nanos(self.interval * TICK) };
            let service = Service::new(criticality).with_check_interval(interval);
            hub.register(name, service).expect("there is room");
        }
        hub.cell.update(|health| {
            (health.step, health.since) = (moment.step, Instant::from_nanos(moment.since));
            for (entry, seen) in health.services.iter_mut().zip(&moment.services) {
                (entry.healthy, entry.streak) = (seen.healthy, seen.streak);
                entry.next_check = Instant::from_nanos(seen.next_check);
            }
        });
        hub
    }

    /// Counts time from now again.
    fn canonical(mut moment: Moment) -> Moment {
        let (by, earliest) = (moment.now - NOW, moment.now - LONG_AGO * TICK);
        if moment.step == 0 {
            // There is nowhere to rise to.
            (moment.since, moment.quiet_since) = (0, 0);
        }
        let earlier = |at: u64| if at == u64::MAX { at } else { at.max(earliest) - by };
        (moment.since, moment.quiet_since) = (earlier(moment.since), earlier(moment.quiet_since));
        for service in &mut moment.services {
            // Of the checks that are due, only the order matters.
            service.next_check = earlier(service.next_check);
        }
        moment.now = NOW;
        moment
    }
}

/// How far down the services' health takes the whole.
fn allowed(moment: &Moment) -> u8 {
    let unhealthy = moment.services.iter().zip(FALLS_TO).filter(|(service, _)| !service.healthy);
    unhealthy.map(|(_, falls_to)| falls_to).max().unwrap_or(0)
}

impl System for InUse {
    type State = Moment;
    type Key = Moment;
    type Step = Move;

    fn start(&self) -> Moment {
        let next_check = if self.interval == 0 { u64::MAX } else { 0 };
        let services = std::vec![Seen { healthy: true, streak: 0, next_check }; self.services];
        Self::canonical(Moment { services, step: 0, since: 0, now: NOW, quiet_since: 0 })
    }

    fn key(&self, moment: &Moment) -> Moment {
        moment.clone()
    }

    fn steps(&self, _: &Moment) -> Vec<Move> {
        let reports =
            (0..self.services).flat_map(|service| [Move::Report(service, true), Move::Report(service, false)]);
        reports.chain(self.steps.iter().copied()).collect()
    }

    fn step(&self, before: &Moment, step: Move) -> Moment {
        let (changes, mut after) = (Changes::new(), before.clone());
        let (hub, now) = (self.hub(before, &changes), Instant::from_nanos(before.now));
        let due_at = hub.poll_timeout();
        match step {
            Move::Report(service, good) => fails_or_not(&hub, NAMES[service], good, now),
            Move::HandleTimeout => hub.handle_timeout(&now),
            Move::AskLevel => {
                let level = hub.level(&now);
                for needed in [Full, Degraded, Minimal] {
                    let rejected = hub.check(needed, &now).err();
                    assert_eq!(rejected.is_none(), level <= needed, "a feature that needs {needed:?} at {level:?}");
                    let retry_at = rejected.and_then(|rejected| rejected.retry_at());
                    assert!(retry_at.is_none_or(|at| at > now), "come back now");
                }
            }
            Move::Wait => after.now += TICK,
            Move::WaitLonger(ticks) => after.now += ticks * TICK,
            Move::TakeDueCheck => self.check_due(before, &hub),
        }
        hub.cell.update(|health| {
            (after.step, after.since) = (health.step, health.since.as_nanos());
            for (seen, entry) in after.services.iter_mut().zip(&health.services) {
                let next_check = entry.next_check.as_nanos();
                *seen = Seen { healthy: entry.healthy, streak: entry.streak, next_check };
            }
        });
        let told = told(&changes).into_iter().map(|(from, to, at)| (from as u8, to as u8, at.as_nanos()));
        let expected = expected(before, step, &after);
        assert_eq!(
            told.collect::<Vec<_>>(),
            expected.changes,
            "each change of level, once, in order, and when it was due"
        );
        assert_eq!(after.step, expected.level, "the level that they lead to");
        after.quiet_since = expected.quiet_since;
        let rise_due = due_at.is_some_and(|at| at <= now) && self.interval == 0;
        assert!(step != Move::HandleTimeout || expected.changes.is_empty() != rise_due, "a timeout, and nothing to do");
        Self::canonical(after)
    }

    fn check(&self, moment: &Moment) {
        for service in &moment.services {
            let streak_is_over = !service.healthy && service.streak >= RECOVERY;
            assert!(!streak_is_over, "well, and not healthy");
        }
        assert!(moment.step <= 2 && allowed(moment) <= moment.step, "above what the services allow");
        let changes = Changes::new();
        let timeout = self.hub(moment, &changes).poll_timeout().map_or(u64::MAX, Instant::as_nanos);
        let check = moment.services.iter().map(|service| service.next_check).min().unwrap_or(u64::MAX);
        let rise = if allowed(moment) < moment.step { moment.quiet_since + DWELL * TICK } else { u64::MAX };
        assert_eq!(timeout, check.min(rise), "when there is something to do");
    }

    fn is_home(&self, moment: &Moment) -> bool {
        moment.step == 0 && moment.services.iter().all(|service| service.healthy)
    }

    fn leads_home(&self, step: Move) -> bool {
        matches!(step, Move::Report(_, true) | Move::Wait | Move::HandleTimeout)
    }
}

fn fails_or_not(hub: &Hub<'_>, name: &'static str, good: bool, now: Instant) {
    assert_eq!(hub.report(name, good, &now), Ok(()));
}

/// The level as it should go on, said once more: the changes that are due by the end of a step, and since when it has been quiet.
struct Expected {
    level: u8,
    quiet_since: u64,
    changes: Vec<(u8, u8, u64)>,
}

impl Expected {
    fn change(&mut self, to: u8, at: u64) {
        self.changes.push((self.level, to, at));
        (self.level, self.quiet_since) = (to, at);
    }

    /// Up by a step for each dwell of quiet.
    fn rise(&mut self, allowed: u8, now: u64) {
        while allowed < self.level && self.quiet_since + DWELL * TICK <= now {
            self.change(self.level - 1, self.quiet_since + DWELL * TICK);
        }
    }

    fn report(&mut self, before: &Moment, after: &Moment, service: usize, good: bool) {
        let (was, is) = (before.services[service], after.services[service]);
        let streak = if good && !was.healthy { was.streak + 1 } else { was.streak };
        assert_eq!(is.healthy, good && (was.healthy || streak >= RECOVERY), "enough good calls, or one bad one");
        if allowed(after) > self.level {
            // At once, and as far as it takes.
            self.change(allowed(after), before.now);
        } else if !good && FALLS_TO[service] > 0 {
            self.quiet_since = before.now;
        } else if !was.healthy && is.healthy {
            // It may have been in the way until now: no dwell had ended before.
            self.quiet_since = self.quiet_since.max(before.now - DWELL * TICK);
        }
    }
}

fn expected(before: &Moment, step: Move, after: &Moment) -> Expected {
    let Moment { step: level, quiet_since, now, .. } = *before;
    let mut expected = Expected { level, quiet_since, changes: Vec::new() };
    match step {
        Move::Report(service, good) => {
            expected.rise(allowed(before), now);
            expected.report(before, after, service, good);
            expected.rise(allowed(after), now);
        }
        Move::HandleTimeout | Move::AskLevel => expected.rise(allowed(before), now),
        Move::Wait | Move::WaitLonger(_) | Move::TakeDueCheck => {}
    }
    expected
}

impl InUse {
    /// Whose check has been due the longest is checked first, and again an interval later.
    fn check_due(&self, before: &Moment, hub: &Hub<'_>) {
        let longest = before.services.iter().map(|service| service.next_check).min().expect("a service");
        let now = Instant::from_nanos(before.now);
        let name = hub.take_due_check(&now);
        assert_eq!(name.is_some(), longest <= before.now, "a check that is due");
        if let Some(place) = name.and_then(|name| NAMES.iter().position(|&other| other == name)) {
            assert_eq!(before.services[place].next_check, longest);
            let next = hub.cell.read(|health| health.services[place].next_check);
            assert_eq!(next.as_nanos(), before.now + self.interval * TICK, "an interval later");
        }
    }
}

#[test]
fn levels() {
    let steps = &[Move::Wait, Move::WaitLonger(3), Move::HandleTimeout, Move::AskLevel];
    explore("degradation, levels", 540, &InUse { services: 3, interval: 0, steps });
}

#[test]
fn health_checks() {
    let steps = &[Move::Wait, Move::AskLevel, Move::TakeDueCheck];
    explore("degradation, health checks", 13_000, &InUse { services: 2, interval: 3, steps });
}
