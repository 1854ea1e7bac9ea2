//! What the hub still promises: a fresh value, the last good one, or a safe default.

use core::time::Duration;

use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use failsoft_embassy::degradation::{Config, Criticality, DegradationLevel, LevelChange, Service};
use failsoft_embassy::{Degradation, Embassy, Events, Failure, Instant, valid};

use crate::bus::BusError;

/// What to heat by when nothing is known: it freezes nobody and burns nothing down.
const SAFE_DEFAULT: u16 = 200;
/// An older value is not a measurement any more.
const STALE: Duration = Duration::from_millis(1_500);

/// The polls go wrong: the hub is degraded.
const POLLS: &str = "polls";
/// There is no recent value: the hub is down to its minimum.
const VALUE: &str = "value";

static CHANGES: Events<CriticalSectionRawMutex, LevelChange, 8> = Events::new();
static LEVEL: Degradation<2, DegradationLevel, (), &Events<CriticalSectionRawMutex, LevelChange, 8>> =
    Degradation::with_observer(valid!(Config::new().with_dwell(Duration::from_millis(400)).validate()), &CHANGES);

/// The temperature for whoever asks, in tenths of a degree.
#[derive(Clone, Copy, Debug, Eq, PartialEq, defmt::Format)]
pub(crate) enum Answer {
    Fresh(u16),
    LastGood(u16),
    SafeDefault(u16),
}

/// Follows the polls, and has an answer whatever comes of them.
pub(crate) struct Health {
    device: &'static Embassy,
    last_good: Option<(u16, Instant)>,
    fell: u32,
    rose: u32,
    lowest: DegradationLevel,
    level: DegradationLevel,
    since: Instant,
}

impl Health {
    pub(crate) fn new(device: &'static Embassy) -> Self {
        defmt::unwrap!(LEVEL.register(POLLS, Service::new(Criticality::Important)));
        defmt::unwrap!(LEVEL.register(VALUE, Service::new(Criticality::Critical)));
        let level = DegradationLevel::Full;
        Self { device, last_good: None, fell: 0, rose: 0, lowest: level, level, since: Instant::START }
    }

    /// Takes a poll into account and answers at the level that it leaves.
    pub(crate) fn answer(&mut self, now: Instant, polled: &Result<u16, Failure<BusError>>) -> Answer {
        if let Ok(value) = *polled {
            self.last_good = Some((value, now));
        }
        let recent = self.last_good.filter(|(_, at)| now.saturating_duration_since(*at) < STALE);
        defmt::unwrap!(LEVEL.report(POLLS, polled.is_ok(), &now));
        defmt::unwrap!(LEVEL.report(VALUE, recent.is_some(), &now));
        self.level = LEVEL.level(&now);
        self.note_changes();
        match (self.level, polled, recent) {
            (DegradationLevel::Full, Ok(value), _) => Answer::Fresh(*value),
            (DegradationLevel::Full | DegradationLevel::Degraded, _, Some((value, _))) => Answer::LastGood(value),
            _ => Answer::SafeDefault(SAFE_DEFAULT),
        }
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
            self.since = change.at;
        }
    }

    /// The level that the last answer was given at, and since when it had been in force.
    pub(crate) fn in_force(&self) -> (DegradationLevel, Instant) {
        (self.level, self.since)
    }

    /// How often the level has fallen.
    pub(crate) fn fell(&self) -> u32 {
        self.fell
    }

    /// Whether the hub has been down to its minimum and is back at full service, with no event lost.
    pub(crate) fn went_down_and_came_back(&self) -> bool {
        let full = LEVEL.level(self.device) == DegradationLevel::Full;
        full && self.lowest == DegradationLevel::Minimal && CHANGES.missed() == 0
    }

    pub(crate) fn log(&self) {
        defmt::info!(
            "the level fell {=u32} times, at most to {}, and rose {=u32} times",
            self.fell,
            self.lowest,
            self.rose
        );
    }
}
