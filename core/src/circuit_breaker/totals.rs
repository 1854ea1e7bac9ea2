//! How many calls there were in all, for those who want to know: it takes a write per call.

use core::cell::Cell;

use super::Transition;
use crate::cell::{CellKind, Fresh, Packed, StateCell, Stored};
use crate::observe::{Called, Observer};
use crate::outcome::Outcome;

/// An observer that counts a breaker's calls, and hands its transitions on to another one.
///
/// Unless the breaker was disabled meanwhile, the calls admitted are those that succeeded, failed, were ignored, were
/// abandoned or came late, and those under way.
///
/// ```
/// use failsoft_core::{Instant, cell::Local};
/// use failsoft_core::circuit_breaker::{CircuitBreaker, Config, ConsecutiveFailures, Totals};
///
/// type Counted = CircuitBreaker<Local, ConsecutiveFailures, Totals<Local>>;
/// let breaker = Counted::with_observer(Config::new().validate()?, Totals::new(()));
/// breaker.try_acquire(Instant::START)?.success();
/// let late = breaker.try_acquire(Instant::START)?;
/// breaker.isolate();
/// late.failure();
/// assert!(breaker.try_acquire(Instant::START).is_err());
///
/// let totals = breaker.observer();
/// assert_eq!((totals.admitted(), totals.rejected()), (2, 1));
/// assert_eq!((totals.successes(), totals.failures(), totals.late()), (1, 0, 1));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub struct Totals<K: CellKind<Count>, O = ()> {
    admitted: K::Cell,
    rejected: K::Cell,
    successes: K::Cell,
    failures: K::Cell,
    ignored: K::Cell,
    abandoned: K::Cell,
    late: K::Cell,
    observer: O,
}

impl<K: CellKind<Count>, O> Totals<K, O> {
    /// Counts from zero, and hands transitions on.
    #[must_use]
    pub const fn new(observer: O) -> Self {
        Self {
            admitted: K::Cell::NEW,
            rejected: K::Cell::NEW,
            successes: K::Cell::NEW,
            failures: K::Cell::NEW,
            ignored: K::Cell::NEW,
            abandoned: K::Cell::NEW,
            late: K::Cell::NEW,
            observer,
        }
    }

    /// Calls let through, saturating.
    pub fn admitted(&self) -> u64 {
        self.admitted.read(|count| count.0)
    }

    /// Calls rejected, saturating.
    pub fn rejected(&self) -> u64 {
        self.rejected.read(|count| count.0)
    }

    /// Calls that succeeded, saturating.
    pub fn successes(&self) -> u64 {
        self.successes.read(|count| count.0)
    }

    /// Calls that failed, and abandoned ones that count as failures, saturating.
    pub fn failures(&self) -> u64 {
        self.failures.read(|count| count.0)
    }

    /// Calls that were reported to say nothing, saturating.
    pub fn ignored(&self) -> u64 {
        self.ignored.read(|count| count.0)
    }

    /// Calls whose permit was dropped unspent and that count as nothing, saturating.
    pub fn abandoned(&self) -> u64 {
        self.abandoned.read(|count| count.0)
    }

    /// Outcomes that came after the state which had admitted their call, saturating.
    pub fn late(&self) -> u64 {
        self.late.read(|count| count.0)
    }
}

impl<K: CellKind<Count>, O> core::fmt::Debug for Totals<K, O> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Totals")
            .field("admitted", &self.admitted())
            .field("rejected", &self.rejected())
            .field("successes", &self.successes())
            .field("failures", &self.failures())
            .field("ignored", &self.ignored())
            .field("abandoned", &self.abandoned())
            .field("late", &self.late())
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<K: CellKind<Count>, O> defmt::Format for Totals<K, O> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(
            f,
            "Totals {{ admitted: {}, rejected: {}, successes: {}, failures: {}, ignored: {}, abandoned: {}, late: {} }}",
            self.admitted(),
            self.rejected(),
            self.successes(),
            self.failures(),
            self.ignored(),
            self.abandoned(),
            self.late()
        );
    }
}

impl<K: CellKind<Count>, O: Observer<Transition>> Observer<Transition> for Totals<K, O> {
    fn observe(&self, event: &Transition) {
        self.observer.observe(event);
    }

    #[inline]
    fn listens(&self) -> bool {
        self.observer.listens()
    }

    fn called(&self, called: Called) {
        let count = match called {
            Called::Admitted => &self.admitted,
            Called::Rejected => &self.rejected,
            Called::Recorded(Outcome::Success) => &self.successes,
            Called::Recorded(Outcome::Failure) => &self.failures,
            Called::Recorded(Outcome::Ignored) => &self.ignored,
            Called::Abandoned => &self.abandoned,
            Called::Late => &self.late,
        };
        count.update(|count| count.0 = count.0.saturating_add(1).min(Count::MOST));
        self.observer.called(called);
    }
}

/// A number of calls.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Count(u64);

impl Count {
    /// One bit less than the type has: the packed word's highest is the cell's.
    const MOST: u64 = u64::MAX >> 1;
}

impl Fresh for Count {
    const FRESH: Self = Self(0);
}

impl Stored for Count {
    type Cell = Cell<Self>;
}

impl Packed for Count {
    #[inline]
    fn pack(self) -> (u64, u64) {
        (self.0, 0)
    }

    #[inline]
    fn unpack(head: u64, _: u64) -> Self {
        Self(head)
    }

    #[inline]
    fn has_tail(_: u64) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_saturate_below_the_bit_that_is_the_cells() {
        let totals = Totals::<crate::cell::Local>::new(());
        StateCell::update(&totals.late, |count| *count = Count(Count::MOST));
        totals.called(Called::Late);
        assert_eq!(totals.late(), Count::MOST);
        assert_eq!(Count::MOST, i64::MAX as u64, "all bits but the cell's");
    }

    #[test]
    fn counts_survive_packing() {
        for count in [0, 1, 1 << 32, Count::MOST] {
            let (head, tail) = Count(count).pack();
            assert_eq!((Count::unpack(head, tail), tail, Count::has_tail(head)), (Count(count), 0, false));
        }
    }

    #[test]
    fn totals_listen_to_changes_where_what_is_behind_them_does() {
        type Behind = fn(&Transition);
        assert!(!Totals::<crate::cell::Local>::new(()).listens());
        assert!(Totals::<crate::cell::Local, Behind>::new(|_| ()).listens());
    }
}
