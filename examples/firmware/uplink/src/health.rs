//! What the device still promises: each reading at once, all of them later, or as many as it can keep.

use core::time::Duration;

use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use failsoft_embassy::degradation::{Config, Criticality, DegradationLevel, LevelChange, Service};
use failsoft_embassy::{Clock, Degradation, Embassy, Events, Instant, valid};

/// After so long without an answer there is nobody to send to.
const SILENCE: Duration = Duration::from_millis(1_000);
/// From the first answer after an outage to full service it takes three in a row and two rises, some two seconds.
const RECOVERY: Duration = Duration::from_secs(8);

/// Calls go wrong: the device is degraded.
const CALLS: &str = "calls";
/// Nobody answers at all: the device is down to its minimum.
const ANSWERS: &str = "answers";

static CHANGES: Events<CriticalSectionRawMutex, LevelChange, 8> = Events::new();
static LEVEL: Degradation<2, DegradationLevel, (), &Events<CriticalSectionRawMutex, LevelChange, 8>> =
    Degradation::with_observer(valid!(Config::new().with_dwell(Duration::from_millis(400)).validate()), &CHANGES);

/// Follows the calls.
pub(crate) struct Health {
    device: &'static Embassy,
    last_answer: Instant,
    /// Since when each call has been answered, below full service.
    rising_since: Option<Instant>,
    longest_rise: Duration,
    fell: u32,
    rose: u32,
    lowest: DegradationLevel,
}

impl Health {
    pub(crate) fn new(device: &'static Embassy) -> Self {
        defmt::unwrap!(LEVEL.register(CALLS, Service::new(Criticality::Important)));
        defmt::unwrap!(LEVEL.register(ANSWERS, Service::new(Criticality::Critical)));
        Self {
            device,
            last_answer: device.now(),
            rising_since: None,
            longest_rise: Duration::ZERO,
            fell: 0,
            rose: 0,
            lowest: DegradationLevel::Full,
        }
    }

    pub(crate) fn level(&mut self) -> DegradationLevel {
        let level = LEVEL.level(self.device);
        self.note_changes();
        if level == DegradationLevel::Full {
            if let Some(since) = self.rising_since.take() {
                self.longest_rise = self.longest_rise.max(self.device.now().saturating_duration_since(since));
            }
        }
        level
    }

    /// Takes a call into account.
    pub(crate) fn report(&mut self, answered: bool) {
        let now = self.device.now();
        if answered {
            self.last_answer = now;
        }
        let silent = now.saturating_duration_since(self.last_answer) >= SILENCE;
        defmt::unwrap!(LEVEL.report(CALLS, answered, &now));
        defmt::unwrap!(LEVEL.report(ANSWERS, !silent, &now));
        if !answered {
            self.rising_since = None;
        } else if self.level() != DegradationLevel::Full {
            self.rising_since.get_or_insert(now);
        }
        self.note_changes();
    }

    fn note_changes(&mut self) {
        while let Some(change) = CHANGES.try_next() {
            defmt::warn!("{}", change);
            if change.to > change.from {
                self.fell += 1
            } else {
                self.rose += 1
            }
            self.lowest = self.lowest.max(change.to);
        }
    }

    /// Whether the device has been down to its minimum and is back at full service, with no event lost.
    pub(crate) fn went_down_and_came_back(&mut self) -> bool {
        let full = self.level() == DegradationLevel::Full;
        full && self.lowest == DegradationLevel::Minimal && CHANGES.missed() == 0
    }

    pub(crate) fn came_back_in_time(&self) -> bool {
        self.longest_rise > Duration::ZERO && self.longest_rise <= RECOVERY
    }

    pub(crate) fn log(&self) {
        defmt::info!(
            "the level fell {=u32} times, at most to {}, and rose {=u32} times, in {=u64:us} s at most",
            self.fell,
            self.lowest,
            self.rose,
            u64::try_from(self.longest_rise.as_micros()).unwrap_or(u64::MAX)
        );
    }
}
