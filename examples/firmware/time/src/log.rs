//! What has been decided, and when: by the clock, and by a second counter of the chip's.

use core::cell::RefCell;
use core::fmt::{self, Write};

use board::{Reference, Text};
use embassy_sync::blocking_mutex::Mutex;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_time::{Instant, TICK_HZ};

use crate::expected::EVENTS;

/// What goes wrong has room too.
const ROOM: usize = EVENTS.len() + 8;
/// A tick, rounded up.
const TICK: u64 = 1_000_000_000_u64.div_ceil(TICK_HZ);
/// How late a timer may be seen, beyond a tick: several tasks are due at once, and one that waits again and again is later each time.
const MARGIN: u64 = 1_000_000;
/// How late the second counter may have been started.
const TOLERANCE: u64 = 20_000;

static LOG: Mutex<CriticalSectionRawMutex, RefCell<Log>> = Mutex::new(RefCell::new(Log {
    start: Instant::MIN,
    events: [Event { ticks: 0, by_reference: None, who: "", what: "" }; ROOM],
    len: 0,
    reference: None,
    findings: Findings { by_clock: Timers::NONE, by_reference: Timers::NONE },
}));

struct Log {
    start: Instant,
    events: [Event; ROOM],
    len: usize,
    /// The second counter, and when it was started, in nanoseconds.
    reference: Option<(u64, Reference)>,
    findings: Findings,
}

#[derive(Clone, Copy)]
struct Event {
    /// Since the start.
    ticks: u64,
    /// The same by the second counter, in nanoseconds, if that runs.
    by_reference: Option<u64>,
    who: &'static str,
    what: &'static str,
}

impl Event {
    /// As the table of those [expected](EVENTS) has it.
    fn row(&self) -> (u64, &'static str, &'static str) {
        (self.ticks * 1_000 / TICK_HZ, self.who, self.what)
    }
}

/// How exact it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Findings {
    by_clock: Timers,
    by_reference: Timers,
}

/// Timers, as one clock has seen them.
#[derive(Clone, Copy, Debug)]
struct Timers {
    number: u32,
    early: u32,
    /// The most that one was late, in nanoseconds.
    latest: u64,
}

impl Timers {
    const NONE: Self = Self { number: 0, early: 0, latest: 0 };

    fn note(&mut self, due: u64, now: u64, tolerance: u64) {
        self.number += 1;
        self.early += u32::from(now + tolerance < due);
        self.latest = self.latest.max(now.saturating_sub(due));
    }

    fn are_exact(self) -> bool {
        self.number > 0 && self.early == 0 && self.latest <= TICK + MARGIN
    }
}

impl Findings {
    pub(crate) fn are_exact(&self) -> bool {
        self.by_clock.are_exact() && self.by_reference.are_exact()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, timers) in [("the clock", self.by_clock), ("the chip's second counter", self.by_reference)] {
            let Timers { number, early, latest } = timers;
            writeln!(f, "by {name}: {number} timers, {early} early, at most {} us late", latest / 1_000)?;
        }
        Ok(())
    }
}

impl Log {
    /// Takes down what happens now: little, since what comes next would be late by that.
    fn event(&mut self, who: &'static str, what: &'static str) -> Event {
        let ticks = (Instant::now() - self.start).as_ticks();
        let by_reference = self.reference.as_mut().map(|(since, reference)| *since + reference.nanos());
        Event { ticks, by_reference, who, what }
    }

    fn add(&mut self, event: Event) {
        if let Some(place) = self.events.get_mut(self.len) {
            *place = event;
            self.len += 1;
        }
    }

    /// Takes note of a timer that was set to `due` nanoseconds from the start.
    fn note(&mut self, due: u64, event: &Event) {
        self.findings.by_clock.note(due, event.ticks * 1_000_000_000 / TICK_HZ, 0);
        if let Some(by_reference) = event.by_reference {
            self.findings.by_reference.note(due, by_reference, TOLERANCE);
        }
    }
}

fn with<T>(work: impl FnOnce(&mut Log) -> T) -> T {
    LOG.lock(|log| work(&mut log.borrow_mut()))
}

/// Starts the log.
pub(crate) fn start(start: Instant) {
    with(|log| log.start = start);
}

/// Has a second counter check the timers from now on, which is `since` nanoseconds from the start.
pub(crate) fn start_reference(since: u64) {
    with(|log| log.reference = Some((since, Reference::start())));
}

pub(crate) fn stop_reference() {
    with(|log| log.reference = None);
}

/// Something has been decided, right now.
pub(crate) fn event(who: &'static str, what: &'static str) {
    with(|log| {
        let event = log.event(who, what);
        log.add(event);
    });
}

/// A timer has fired, right now, that was set to `due` nanoseconds from the start.
pub(crate) fn timer(due: u64) {
    with(|log| {
        let event = log.event("", "");
        log.note(due, &event);
    });
}

/// Writes the log; says whether it is the expected one, and how exact the timers were.
pub(crate) fn finish() -> Result<(bool, Findings), fmt::Error> {
    let mut text = Text::new().ok_or(fmt::Error)?;
    with(|log| {
        let Log { mut events, len, .. } = *log;
        let events = &mut events[..len];
        // Tasks that are due at once come in any order, so within a millisecond by name; what one task does keeps its order.
        for end in 1..events.len() {
            let key = |event: &Event| (event.row().0, event.who);
            let place = events[..end].partition_point(|event| key(event) <= key(&events[end]));
            events[place..=end].rotate_right(1);
        }
        for event in &*events {
            let (millis, who, what) = event.row();
            writeln!(text, "{millis:5} ms  {who:<12} {what}")?;
        }
        let same = events.iter().zip(&EVENTS).take_while(|(event, expected)| event.row() == **expected).count();
        let right = same == EVENTS.len() && events.len() == EVENTS.len();
        if !right {
            writeln!(text, "WRONG: line {} is to be {:?}", same + 1, EVENTS.get(same))?;
        }
        text.flush()?;
        for event in &events[..same] {
            log.note(event.row().0 * 1_000_000, event);
        }
        Ok((right, log.findings))
    })
}
