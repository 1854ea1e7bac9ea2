//! Who takes part: tasks of two priorities, and the interrupt above them.

use core::cell::Cell;
use core::hint;
use core::sync::atomic::{AtomicU8, Ordering};

use embassy_time::Duration;
use failsoft_embassy::Rng;
use failsoft_embassy::degradation::Criticality;

use crate::ledger::{self, Count};

/// The tasks of either priority: a service each.
pub(crate) const HIGH: [&str; 2] = ["high 0", "high 1"];
pub(crate) const LOW: [&str; 3] = ["low 0", "low 1", "low 2"];
pub(crate) const HANDLER: &str = "handler";

/// The lowest first.
#[derive(Clone, Copy, Eq, PartialEq, PartialOrd)]
pub(crate) enum Priority {
    Low,
    High,
    Handler,
}

/// What the processor does at a priority, as whoever preempts it finds it.
#[derive(Clone, Copy)]
pub(crate) enum Doing {
    /// Nothing: all its tasks wait.
    Nothing,
    /// It works for itself.
    Works,
    /// It is amid a call of a policy, or on its way from one to the next.
    Calls,
}

static DOING: [AtomicU8; Priority::ALL.len()] = [const { AtomicU8::new(Doing::Nothing as u8) }; Priority::ALL.len()];

/// Who left a permit last.
static LEFT_BY: AtomicU8 = AtomicU8::new(Priority::Low as u8);

impl Priority {
    pub(crate) const ALL: [Self; 3] = [Self::Low, Self::High, Self::Handler];

    /// Does something, and lets those above see what it is.
    pub(crate) fn doing<R>(self, doing: Doing, work: impl FnOnce() -> R) -> R {
        let own = &DOING[self as usize];
        let before = own.load(Ordering::Relaxed);
        own.store(doing as u8, Ordering::Relaxed);
        let result = work();
        own.store(before, Ordering::Relaxed);
        result
    }

    /// How far the level falls when one of its services is not well.
    pub(crate) const fn criticality(self) -> Criticality {
        match self {
            Self::Low => Criticality::Important,
            Self::High | Self::Handler => Criticality::Critical,
        }
    }

    fn is_amid_a_call(self) -> bool {
        DOING[self as usize].load(Ordering::Relaxed) == Doing::Calls as u8
    }

    /// Says that it is about to leave a permit.
    pub(crate) fn leaves(self) {
        LEFT_BY.store(self as u8, Ordering::Relaxed);
    }
}

/// What was left by whoever left a permit last.
pub(crate) fn left() -> Count {
    match LEFT_BY.load(Ordering::Relaxed) {
        by if by == Priority::Low as u8 => Count::LeftByLow,
        by if by == Priority::High as u8 => Count::LeftByHigh,
        _ => Count::LeftByHandler,
    }
}

/// A task, or the interrupt.
pub(crate) struct Side {
    pub(crate) priority: Priority,
    /// Its service in the degradation.
    pub(crate) name: &'static str,
    rng: Cell<Rng>,
}

impl Side {
    pub(crate) const fn new(priority: Priority, name: &'static str, rng: Rng) -> Self {
        Self { priority, name, rng: Cell::new(rng) }
    }

    /// What its dice come from, for another time.
    pub(crate) fn rng(&self) -> Rng {
        self.rng.get()
    }

    pub(crate) fn dice(&self) -> u32 {
        let mut rng = self.rng.get();
        let number = rng.next();
        self.rng.set(rng);
        number
    }

    /// Some microseconds below `bound`, a power of two.
    pub(crate) fn moment(&self, bound: u32) -> Duration {
        Duration::from_micros((self.dice() % bound).into())
    }

    /// Works for a random time, so that whatever follows is met at another instruction each time.
    pub(crate) fn work(&self) {
        let turns = self.dice() % if self.priority == Priority::Handler { 1 << 5 } else { 1 << 9 };
        self.priority.doing(Doing::Works, || (0..turns).for_each(|turn| _ = hint::black_box(turn)));
    }

    pub(crate) fn begin_round(&self) {
        self.note(Count::Rounds);
        for (below, amid) in [(Priority::Low, Count::AmidLow), (Priority::High, Count::AmidHigh)] {
            if self.priority > below && below.is_amid_a_call() {
                self.note(amid);
            }
        }
    }

    pub(crate) fn note(&self, count: Count) {
        self.add(count, 1);
    }

    pub(crate) fn add(&self, count: Count, more: u32) {
        ledger::add(self.priority, count, more);
    }
}
