//! What the server does, and for how long. A phase ends when it has lasted long enough and the device has met it often
//! enough, so a slow machine makes the run longer and not different.

use std::time::{Duration, Instant};

use sensor_protocol::uplink::{FAILURES, LEFT_ALONE};

/// How the server treats the device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Conduct {
    /// It takes the readings and acknowledges them.
    Answer,
    /// It resets connections, some as soon as they are there.
    Reset,
    /// It closes where an answer is due, every other time.
    Close,
    /// It sends a part of the answer, and closes, every other time.
    Cut,
    /// It takes its time.
    Slow,
    /// It never answers.
    Silent,
    /// Nobody listens.
    Refuse,
}

impl Conduct {
    /// Whether every attempt fails, and the server sees it.
    fn is_failure(self) -> bool {
        matches!(self, Self::Reset | Self::Silent)
    }
}

/// A stretch of the run.
#[derive(Debug)]
pub(crate) struct Phase {
    pub(crate) name: &'static str,
    pub(crate) conduct: Conduct,
    /// It lasts so long at least.
    length: Duration,
    /// And until the device has met it so often. Who refuses doesn't see how often.
    least: u32,
}

const PHASES: [Phase; 8] = [
    phase("healthy", Conduct::Answer, 1_500, 5),
    phase("closes early", Conduct::Close, 1_500, 4),
    phase("sends half an answer", Conduct::Cut, 1_500, 4),
    phase("is slow", Conduct::Slow, 2_000, 4),
    phase("resets connections", Conduct::Reset, 1_500, 4),
    phase("never answers", Conduct::Silent, 2_000, 3),
    phase("refuses", Conduct::Refuse, 2_000, 0),
    phase("healthy again", Conduct::Answer, 3_000, 5),
];

const fn phase(name: &'static str, conduct: Conduct, millis: u64, least: u32) -> Phase {
    Phase { name, conduct, length: Duration::from_millis(millis), least }
}

/// After so long, a device that hasn't recovered never will.
pub(crate) const RECOVERY: Duration = Duration::from_secs(10);

/// A phase as it was played.
#[derive(Debug)]
pub(crate) struct Stay {
    pub(crate) phase: &'static Phase,
    pub(crate) lasted: Duration,
    /// How often the device met it: the requests, and the connections that came to none.
    pub(crate) met: u32,
}

impl Stay {
    /// How often a device may meet a phase in which every attempt fails: until its breaker opens, and then once in a
    /// while. It may be on its way when the phase begins.
    pub(crate) fn most(&self) -> Option<u32> {
        let periods = self.lasted.as_millis() / LEFT_ALONE.as_millis();
        self.phase
            .conduct
            .is_failure()
            .then(|| FAILURES + 1 + u32::try_from(periods).unwrap_or(u32::MAX - FAILURES - 1))
    }
}

/// Where the server is.
#[derive(Debug, Default)]
pub(crate) struct Phases {
    now: Option<(usize, Instant)>,
    met: u32,
    recovered: bool,
    pub(crate) stays: Vec<Stay>,
}

impl Phases {
    /// Goes on to the next phase when it is time for it, and returns that. The last one stays.
    pub(crate) fn proceed(&mut self, now: Instant) -> Option<&'static Phase> {
        let next = match self.now {
            None => 0,
            Some((place, since)) => {
                let phase = &PHASES[place];
                if now - since < phase.length || self.met < phase.least || place + 1 == PHASES.len() {
                    return None;
                }
                self.end(now);
                place + 1
            }
        };
        self.now = Some((next, now));
        Some(&PHASES[next])
    }

    /// Takes note of how the phase was.
    pub(crate) fn end(&mut self, now: Instant) {
        if let Some((place, since)) = self.now.take() {
            self.stays.push(Stay { phase: &PHASES[place], lasted: now - since, met: self.met });
            self.met = 0;
        }
    }

    pub(crate) fn conduct(&self) -> Conduct {
        self.now.map_or(Conduct::Refuse, |(place, _)| PHASES[place].conduct)
    }

    /// The device has met the phase.
    pub(crate) fn meet(&mut self) {
        self.met += 1;
    }

    /// Whether this is one of every other time that the device meets the phase.
    pub(crate) fn is_other_time(&self) -> bool {
        self.met % 2 == 1
    }

    fn last(&self) -> Option<Instant> {
        self.now.filter(|(place, _)| place + 1 == PHASES.len()).map(|(_, since)| since)
    }

    /// Returns how long it took the device to get back to full service, when that is what this request shows.
    pub(crate) fn note_level(&mut self, level: u8, now: Instant) -> Option<Duration> {
        let since = self.last().filter(|_| level == 0 && !self.recovered)?;
        self.recovered = true;
        Some(now - since)
    }

    /// Whether the device may go: it has recovered, or has had all the time to.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.last().is_some_and(|since| {
            let phase = &PHASES[PHASES.len() - 1];
            let done = now - since >= phase.length && self.met >= phase.least && self.recovered;
            done || now - since >= RECOVERY
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_waits_for_the_device() {
        let mut phases = Phases::default();
        let start = Instant::now();
        assert!(phases.proceed(start).is_some());
        let later = start + Duration::from_secs(60);
        assert!(phases.proceed(later).is_none());
        (0..PHASES[0].least).for_each(|_| phases.meet());
        assert!(phases.proceed(start).is_none());
        assert_eq!(phases.proceed(later).map(|phase| phase.name), Some(PHASES[1].name));
    }

    #[test]
    fn the_last_phase_is_over_when_the_device_has_recovered_or_never_will() {
        let (mut phases, mut now) = (Phases::default(), Instant::now());
        let since = loop {
            phases.proceed(now);
            (0..100).for_each(|_| phases.meet());
            if let Some(since) = phases.last() {
                break since;
            }
            now += Duration::from_secs(60);
        };
        let early = since + Duration::from_secs(4);
        assert!(!phases.is_over(early));
        assert!(phases.is_over(since + RECOVERY));
        assert_eq!(phases.note_level(1, early), None);
        assert_eq!(phases.note_level(0, early), Some(Duration::from_secs(4)));
        assert!(phases.is_over(early));
    }
}
