//! The breaker's log, replayed: each transition follows from the one before it, and its counts and times say why it was.

use core::time::Duration;

use failsoft_tokio::Instant;
use failsoft_tokio::circuit_breaker::{StateKind, Transition};

use StateKind::{Closed, HalfOpen, Isolated, Open};

/// What the breaker whose log it is was set to.
pub(crate) struct Rules {
    /// Failures in a row that open it.
    pub(crate) failures: u32,
    /// Good probes that close it; the first bad one opens it again.
    pub(crate) probes: u32,
    pub(crate) open_for: Duration,
    pub(crate) half_open_for: Duration,
}

/// What became of a log that was explained.
#[derive(Clone, Copy, Default)]
pub(crate) struct Explained {
    /// Opened by failures in a row.
    pub(crate) opened: u64,
    /// Opened again by a bad probe.
    pub(crate) reopened: u64,
    /// Opened again by the half-open deadline.
    pub(crate) overdue: u64,
    pub(crate) half_open: u64,
    /// Closed by good probes.
    pub(crate) closed: u64,
    pub(crate) isolated: u64,
    pub(crate) reset: u64,
}

impl Explained {
    pub(crate) fn counts(&self) -> [(&'static str, u64); 7] {
        [
            ("opened by failures", self.opened),
            ("reopened by a bad probe", self.reopened),
            ("reopened by the half-open deadline", self.overdue),
            ("half-open after the open period", self.half_open),
            ("closed by good probes", self.closed),
            ("isolated by hand", self.isolated),
            ("reset by hand", self.reset),
        ]
    }

    pub(crate) fn all(&self) -> u64 {
        self.counts().iter().map(|(_, count)| count).sum()
    }
}

/// Where a replay has come to.
pub(crate) struct Replay {
    rules: Rules,
    state: StateKind,
    generation: u16,
    reopened: u8,
    /// When the state was entered; for one that has no end, when the one before it was.
    since: Instant,
    until: Option<Instant>,
    pub(crate) explained: Explained,
}

/// The generation wraps after so many.
const GENERATIONS: u16 = 4_096;

impl Replay {
    /// From a new breaker on.
    pub(crate) fn new(rules: Rules) -> Self {
        let explained = Explained::default();
        Self { rules, state: Closed, generation: 0, reopened: 0, since: Instant::START, until: None, explained }
    }

    /// Goes through what was told since the last time. Threads tell of their changes after them, so that two may tell in another
    /// order: the generation says which was first.
    pub(crate) fn go_on(&mut self, mut told: Vec<Transition>) -> Result<(), String> {
        if told.len() >= GENERATIONS.into() {
            return Err(format!("{} transitions at a time: their generations wrap", told.len()));
        }
        told.sort_by_key(|transition| self.ahead(transition));
        told.iter().try_for_each(|transition| {
            self.step(transition).map_err(|why| {
                format!("{why}: {transition:?} after {:?} of generation {}", self.state, self.generation)
            })
        })
    }

    fn ahead(&self, transition: &Transition) -> u16 {
        transition.generation.wrapping_sub(self.generation) % GENERATIONS
    }

    fn step(&mut self, transition: &Transition) -> Result<(), &'static str> {
        let Transition { from, to, generation, reopened, counts, until } = *transition;
        if self.ahead(transition) != 1 {
            return Err("is not the next generation");
        }
        if from != self.state {
            return Err("does not begin where the last one ended");
        }
        let span = match to {
            Open => self.rules.open_for,
            HalfOpen => self.rules.half_open_for,
            _ => Duration::ZERO,
        };
        // Within one clock, whoever reports was admitted after the state began.
        let since = match until {
            Some(until) => {
                let span = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
                Instant::from_nanos(until.as_nanos().checked_sub(span).ok_or("ends before it can have begun")?)
            }
            None => self.since,
        };
        if since < self.since {
            return Err("goes back in time");
        }
        let over = self.until.is_some_and(|until| since >= until);
        let counter = match (from, to) {
            (Closed, Open) if counts.failures != self.rules.failures => {
                return Err("opened by another number of failures");
            }
            (Closed, Open) if reopened != 0 => return Err("a first opening is no reopening"),
            (Closed, Open) => &mut self.explained.opened,
            (Open, HalfOpen) if !over => return Err("half-open before the open period was over"),
            (Open, HalfOpen) => &mut self.explained.half_open,
            (HalfOpen, Closed) if counts.calls < self.rules.probes || counts.failures > 0 => {
                return Err("closed without enough good probes");
            }
            (HalfOpen, Closed) => &mut self.explained.closed,
            (HalfOpen, Open) if reopened != self.reopened.saturating_add(1) => return Err("reopenings are miscounted"),
            (HalfOpen, Open) if counts.failures > 0 => &mut self.explained.reopened,
            (HalfOpen, Open) if !over => return Err("reopened without a bad probe and before the deadline"),
            (HalfOpen, Open) => &mut self.explained.overdue,
            (Closed | Open | HalfOpen, Isolated) => &mut self.explained.isolated,
            (Isolated, Closed) => &mut self.explained.reset,
            _ => return Err("there is no such transition"),
        };
        *counter += 1;
        (self.state, self.generation, self.reopened) = (to, generation, reopened);
        (self.since, self.until) = (since, until);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use failsoft_tokio::circuit_breaker::Counts;

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn replay() -> Replay {
        let rules = Rules { failures: 3, probes: 2, open_for: MS(10), half_open_for: MS(40) };
        Replay { generation: 4_094, ..Replay::new(rules) }
    }

    fn transition(from: StateKind, to: StateKind, generation: u16, until: Option<u64>) -> Transition {
        let counts = match (from, to) {
            (Closed, Open) => Counts { calls: 3, failures: 3, slow: 0 },
            (HalfOpen, Closed) => Counts { calls: 2, failures: 0, slow: 0 },
            _ => Counts::default(),
        };
        let reopened = u8::from((from, to) == (HalfOpen, Open));
        Transition { from, to, generation, reopened, counts, until: until.map(Instant::from_millis) }
    }

    /// Through all states, over the end of the generations.
    fn log() -> Vec<Transition> {
        vec![
            transition(Closed, Open, 4_095, Some(110)),
            transition(Open, HalfOpen, 0, Some(160)),
            transition(HalfOpen, Open, 1, Some(170)), // by the deadline
            transition(Open, HalfOpen, 2, Some(250)),
            transition(HalfOpen, Closed, 3, None),
            transition(Closed, Isolated, 4, None),
            transition(Isolated, Closed, 5, None),
        ]
    }

    #[test]
    fn a_log_is_explained_in_whatever_order_threads_tell_it() {
        let mut told = log();
        told.reverse();
        let mut replay = replay();
        assert_eq!(replay.go_on(told), Ok(()));
        let Explained { opened, reopened, overdue, half_open, closed, isolated, reset } = replay.explained;
        assert_eq!([opened, reopened, overdue, half_open, closed, isolated, reset], [1, 0, 1, 2, 1, 1, 1]);
        assert_eq!(replay.explained.all(), 7);
    }

    #[test]
    fn whatever_is_wrong_with_one_transition_is_found() {
        type Spoil = fn(&mut Transition);
        let wrong: [(usize, Spoil); 10] = [
            (0, |first| first.counts.failures = 2),
            (0, |first| first.reopened = 1),
            (1, |half_open| half_open.generation = 7),
            (1, |half_open| half_open.until = Some(Instant::from_millis(149))),
            (2, |reopened| reopened.reopened = 0),
            (2, |reopened| reopened.until = Some(Instant::from_millis(169))),
            (3, |half_open| half_open.to = Closed),
            (3, |half_open| half_open.until = Some(Instant::from_millis(39))),
            (4, |closed| closed.counts.calls = 1),
            (5, |isolated| isolated.from = Open),
        ];
        for (place, spoil) in wrong {
            let mut told = log();
            spoil(&mut told[place]);
            assert!(replay().go_on(told).is_err(), "{place}");
        }
        for missing in 0..log().len() - 1 {
            let mut told = log();
            told.remove(missing);
            assert!(replay().go_on(told).is_err(), "without {missing}");
        }
    }
}
