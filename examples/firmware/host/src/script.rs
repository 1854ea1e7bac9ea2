//! What the line and the sensor do to each request. The same seed has the same faults for the n-th request of a phase.

use std::time::{Duration, Instant};

use fastrand::Rng;
use sensor_protocol::sensor::{Fate, Line};

/// A stretch of the run.
pub(crate) struct Phase {
    pub(crate) name: &'static str,
    pub(crate) length: Duration,
    line: Line,
}

/// From good to bad and back.
const PHASES: [Phase; 5] = [
    Phase { name: "healthy", length: Duration::from_secs(3), line: Line::Faults(0) },
    Phase { name: "flaky", length: Duration::from_secs(5), line: Line::Faults(30) },
    Phase { name: "dead", length: Duration::from_secs(4), line: Line::Dead },
    Phase { name: "recovering", length: Duration::from_secs(3), line: Line::Faults(15) },
    Phase { name: "healthy again", length: Duration::from_secs(3), line: Line::Faults(0) },
];

/// Where the script is.
pub(crate) enum Progress {
    /// In the phase of the request before.
    Same,
    /// At the start of this one.
    Next(&'static Phase),
    /// Past the last one.
    Over,
}

/// The script of one run. It begins with the first request.
pub(crate) struct Script {
    seed: u64,
    rng: Rng,
    started: Option<Instant>,
    phase: Option<usize>,
}

impl Script {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, rng: Rng::with_seed(seed), started: None, phase: None }
    }

    /// Where the script is, at this request.
    pub(crate) fn proceed(&mut self, now: Instant) -> Progress {
        let mut into = now - *self.started.get_or_insert(now);
        let phase = PHASES.iter().position(|phase| match into.checked_sub(phase.length) {
            Some(rest) => {
                into = rest;
                false
            }
            None => true,
        });
        let Some(phase) = phase else { return Progress::Over };
        if self.phase == Some(phase) {
            return Progress::Same;
        }
        self.phase = Some(phase);
        // Each phase draws from the start, so that a request more or less in one doesn't change the next.
        self.rng = Rng::with_seed(self.seed ^ (phase as u64) << 32);
        Progress::Next(&PHASES[phase])
    }

    /// What happens to the next request.
    pub(crate) fn fate(&mut self) -> Fate {
        self.phase.map_or(Line::Faults(0), |phase| PHASES[phase].line).fate(&mut self.rng)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fates of a hundred requests in each phase.
    fn fates(seed: u64) -> Vec<Vec<Fate>> {
        let mut script = Script::new(seed);
        let mut now = Instant::now();
        PHASES
            .iter()
            .map(|phase| {
                assert!(matches!(script.proceed(now), Progress::Next(next) if next.name == phase.name));
                now += phase.length;
                (0..100).map(|_| script.fate()).collect()
            })
            .collect()
    }

    #[test]
    fn the_seed_is_the_script() {
        assert_eq!(fates(7), fates(7));
        assert_ne!(fates(7), fates(8));
    }

    #[test]
    fn the_line_goes_from_good_to_bad_and_back() {
        let faults =
            fates(7).iter().map(|fates| fates.iter().filter(|fate| **fate != Fate::Answer).count()).collect::<Vec<_>>();
        assert!(matches!(faults[..], [0, 20..40, 100, 5..25, 0]), "{faults:?}");
    }

    #[test]
    fn the_script_ends_with_its_last_phase() {
        let mut script = Script::new(7);
        let start = Instant::now();
        script.proceed(start);
        let length: Duration = PHASES.iter().map(|phase| phase.length).sum();
        assert!(matches!(script.proceed(start + length), Progress::Over));
    }
}
