//! Where a state lives, and how it changes: one trait, of which a cell has to write one method.
//!
//! A policy is written once, against [`StateCell`]; each world chooses how its states are shared with a [`CellKind`]:
//! [`Local`] for one thread, `CriticalSection` (feature `critical-section`) for any chip with its interrupts, and the
//! adapters' own for threads and for embassy's mutexes.

use core::cell::{Cell, RefCell};
use core::marker::PhantomData;

use crate::time::{Clock, Instant};

/// A value with a state to start from, known at compile time, so that everything can be built in a `static`.
pub trait Fresh {
    /// The state to start from.
    const FRESH: Self;
}

macro_rules! fresh_tuples {
    ($($($part:ident)+,)+) => {
        $(impl<$($part: Fresh),+> Fresh for ($($part,)+) {
            const FRESH: Self = ($($part::FRESH,)+);
        })+
    };
}
fresh_tuples!(A B, A B C, A B C D,);

/// A place for a state that several callers share.
pub trait StateCell<S> {
    /// A cell that holds the fresh state.
    const NEW: Self;

    /// Applies `f` to the state and returns what it returns.
    ///
    /// The contract: `f` is pure but for the state it is handed, and it may run again when another caller was faster. It
    /// must not touch this cell. An update that changes nothing writes nothing.
    fn update<R>(&self, f: impl FnMut(&mut S) -> R) -> R;

    /// Looks at the state: an update that changes nothing, for cells that know a cheaper way to do that.
    #[inline]
    fn read<R>(&self, f: impl Fn(&S) -> R) -> R {
        self.update(|state| f(state))
    }

    /// Looks at the state for an answer that one can do without: `None` if `f` gives none, and where it would take more than one
    /// look at this moment. `f` may be shown a state that has never been, and then its answer is dropped.
    #[inline]
    fn glimpse<R>(&self, f: impl Fn(&S) -> Option<R>) -> Option<R> {
        self.read(f)
    }

    /// Makes a change that one can do without, or make by [`update`](Self::update): `None`, with the state as it was, if `f` gives none
    /// (it must leave the state untouched then), and where the change would take more than one step at this moment. As with
    /// [`glimpse`](Self::glimpse), `f` may be shown a state that has never been, and then its answer is dropped.
    #[inline]
    fn try_update<R>(&self, f: impl FnMut(&mut S) -> Option<R>) -> Option<R> {
        self.update(f)
    }
}

/// A way to share states: maps a state to the cell that holds it, and says whether settings may be replaced meanwhile.
pub trait CellKind<S>: SettingsKind {
    /// The cell.
    type Cell: StateCell<S>;
}

/// Whether a policy's settings stay as they are ([`Fixed`], and then they cost nothing) or may be replaced while it is in use
/// ([`Live`]).
pub trait SettingsKind {
    /// Where settings that replace the first ones are kept.
    type Settings<C: Copy>: SettingsCell<C>;
}

/// A place for settings that replace the first ones.
pub trait SettingsCell<C: Copy> {
    /// A cell in which nothing has been replaced yet.
    const NEW: Self;

    /// Whether the settings may be others than the first ones.
    const LIVE: bool;

    /// Looks at the settings in force, given the first ones. `f` runs outside any lock: it may do anything, replacing
    /// them included.
    fn with<R>(&self, first: &C, f: impl FnOnce(&C) -> R) -> R;
}

/// A place whose settings can be replaced.
pub trait Replaceable<C: Copy>: SettingsCell<C> {
    /// Puts these settings in force, and lets `carry` see the ones before, given the first ones. Replacements happen
    /// one after the other, each with its `carry`.
    fn replace(&self, first: &C, settings: C, carry: impl FnOnce(&C));
}

/// Settings that stay as they are.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Fixed;

impl<C: Copy> SettingsCell<C> for Fixed {
    const NEW: Self = Self;
    const LIVE: bool = false;

    #[inline]
    fn with<R>(&self, first: &C, f: impl FnOnce(&C) -> R) -> R {
        f(first)
    }
}

/// States shared as `K` shares them, with settings that can be replaced while the policy is in use.
///
/// ```
/// use failsoft_core::cell::{Live, Local};
/// use failsoft_core::circuit_breaker::CircuitBreaker;
///
/// type Breaker = CircuitBreaker<Live<Local>>;
/// # fn f(_: &Breaker) {}
/// ```
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Live<K>(PhantomData<K>);

impl<S, K: CellKind<S> + LiveKind> CellKind<S> for Live<K> {
    type Cell = K::Cell;
}

impl<K: LiveKind> SettingsKind for Live<K> {
    type Settings<C: Copy> = K::Live<C>;
}

/// A way to share that knows how to share settings too.
pub trait LiveKind {
    /// Where the settings are.
    type Live<C: Copy>: Replaceable<C>;
}

/// Settings that replace the first ones, if any.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Replaced<C>(Option<C>);

impl<C> Fresh for Replaced<C> {
    const FRESH: Self = Self(None);
}

impl<C: Copy> Stored for Replaced<C> {
    type Cell = Cell<Self>;
}

/// Any cell of states is one of settings too.
impl<C: Copy, T: StateCell<Replaced<C>>> SettingsCell<C> for T {
    const NEW: Self = <T as StateCell<Replaced<C>>>::NEW;
    const LIVE: bool = true;

    /// On a copy, so that `f` runs outside the cell.
    fn with<R>(&self, first: &C, f: impl FnOnce(&C) -> R) -> R {
        f(&self.read(|replaced| replaced.0).unwrap_or(*first))
    }
}

impl<C: Copy, T: StateCell<Replaced<C>>> Replaceable<C> for T {
    fn replace(&self, first: &C, settings: C, carry: impl FnOnce(&C)) {
        // Within the update, so that two replacements don't mix. A cell that runs it again finds that it has been
        // carried.
        let mut carry = Some(carry);
        self.update(|replaced| {
            if let Some(carry) = carry.take() {
                carry(&replaced.0.unwrap_or(*first));
            }
            replaced.0 = Some(settings);
        });
    }
}

/// A state that packs into one or two 64-bit words, for lock-free cells.
///
/// Invariant: the fresh state packs to zeroes. Bit 63 of the head stays clear: it is the cell's own.
pub trait Packed: Copy + Fresh {
    /// The state as words. The tail is zero where [`has_tail`](Self::has_tail) says that there is none.
    fn pack(self) -> (u64, u64);

    /// The state from its words. It takes any, since a lock-free cell may see the head of one state and have no tail for it.
    fn unpack(head: u64, tail: u64) -> Self;

    /// Whether a state with this head has anything in its tail. A tail may change only together with the head. Where states have
    /// tails, a head with bit 63 set is to be one of them: then the cell is being changed.
    fn has_tail(head: u64) -> bool;
}

/// A state that lives in a cell of its own, and which cell suits it where there is only one thread or a lock around it.
///
/// A state of a few words is copied out of a [`Cell`] and in again: on a Cortex-M0 that takes a third less code and time than to look
/// after a borrow. A window of thousands of calls stays where it is, in a [`RefCell`].
pub trait Stored: Fresh + Sized {
    /// `Cell<Self>` or `RefCell<Self>`, unless it has one of its own.
    type Cell: StateCell<Self>;
}

/// Which of the two suits a state with a part that somebody else defines: [`Copied`] or [`InPlace`].
pub trait Home {
    /// Whether the state may be too large to be copied in passing.
    const LARGE: bool;
    /// The cell of a state with such a part.
    type Cell<S: Fresh + Copy>: StateCell<S>;
    /// That of a state with two parts.
    type With<H: Home>: Home;
}

/// Of a few words, and copied.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Copied;

impl Home for Copied {
    const LARGE: bool = false;
    type Cell<S: Fresh + Copy> = Cell<S>;
    type With<H: Home> = H;
}

/// Of any size, and never moved.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct InPlace;

impl Home for InPlace {
    const LARGE: bool = true;
    type Cell<S: Fresh + Copy> = RefCell<S>;
    type With<H: Home> = Self;
}

/// One thread, no synchronisation.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Local;

impl<S: Stored> CellKind<S> for Local {
    type Cell = S::Cell;
}

impl SettingsKind for Local {
    type Settings<C: Copy> = Fixed;
}

impl LiveKind for Local {
    type Live<C: Copy> = Cell<Replaced<C>>;
}

/// An `f` that comes back to the cell it runs in, against the contract, finds the state as it was, and is overruled.
impl<S: Fresh + Copy> StateCell<S> for Cell<S> {
    const NEW: Self = Self::new(S::FRESH);

    #[inline]
    fn update<R>(&self, mut f: impl FnMut(&mut S) -> R) -> R {
        let mut state = self.get();
        let result = f(&mut state);
        self.set(state);
        result
    }

    #[inline]
    fn read<R>(&self, f: impl Fn(&S) -> R) -> R {
        f(&self.get())
    }

    // Where `f` gives no answer nothing is written: the copy is dropped.
    #[inline]
    fn try_update<R>(&self, mut f: impl FnMut(&mut S) -> Option<R>) -> Option<R> {
        let mut state = self.get();
        let result = f(&mut state)?;
        self.set(state);
        Some(result)
    }
}

/// An `f` that comes back to the cell it runs in, against the contract, finds a fresh state of its own.
impl<S: Fresh> StateCell<S> for RefCell<S> {
    const NEW: Self = Self::new(S::FRESH);

    #[inline]
    fn update<R>(&self, mut f: impl FnMut(&mut S) -> R) -> R {
        let mut borrowed = self.try_borrow_mut();
        if size_of::<S>() > SPARE {
            return match borrowed.as_deref_mut() {
                Ok(state) => f(state),
                Err(_) => apart(&mut f),
            };
        }
        // One call of `f` for both, so that a chip has its code once.
        let mut own = None;
        f(borrowed.as_deref_mut().unwrap_or_else(|_| astray(&mut own)))
    }

    #[inline]
    fn read<R>(&self, f: impl Fn(&S) -> R) -> R {
        match self.try_borrow() {
            Ok(state) => f(&state),
            Err(_) => f(&S::FRESH),
        }
    }
}

/// How large a state may be for each update to keep room on the stack for a second one, which it hardly ever needs: the code is then
/// up to a fifth smaller.
const SPARE: usize = 128;

// Opaque, or the compiler would make two copies after all.
#[cold]
#[inline(never)]
fn astray<S: Fresh>(own: &mut Option<S>) -> &mut S {
    own.insert(S::FRESH)
}

// The room is here, where nobody comes.
#[cold]
#[inline(never)]
fn apart<S: Fresh, R>(f: &mut dyn FnMut(&mut S) -> R) -> R {
    let mut own = S::FRESH;
    f(&mut own)
}

/// Any chip, interrupts included: each update is one short critical section.
#[cfg(feature = "critical-section")]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CriticalSection;

#[cfg(feature = "critical-section")]
impl<S: Stored> CellKind<S> for CriticalSection {
    type Cell = critical_section::Mutex<S::Cell>;
}

#[cfg(feature = "critical-section")]
impl SettingsKind for CriticalSection {
    type Settings<C: Copy> = Fixed;
}

#[cfg(feature = "critical-section")]
impl LiveKind for CriticalSection {
    type Live<C: Copy> = critical_section::Mutex<Cell<Replaced<C>>>;
}

/// One thread's cell, with interrupts held off around it.
#[cfg(feature = "critical-section")]
impl<S, C: StateCell<S>> StateCell<S> for critical_section::Mutex<C> {
    const NEW: Self = Self::new(C::NEW);

    #[inline]
    fn update<R>(&self, f: impl FnMut(&mut S) -> R) -> R {
        critical_section::with(|section| self.borrow(section).update(f))
    }

    #[inline]
    fn read<R>(&self, f: impl Fn(&S) -> R) -> R {
        critical_section::with(|section| self.borrow(section).read(f))
    }

    #[inline]
    fn try_update<R>(&self, f: impl FnMut(&mut S) -> Option<R>) -> Option<R> {
        critical_section::with(|section| self.borrow(section).try_update(f))
    }
}

/// Updates a cell with a transition that may need the time.
///
/// `now` is the time, where it has been read. Without it `f` gets `None` first and answers `None`, with the state untouched, when it can't go on without the time. Only then
/// the clock is read, once and outside the cell, and `f` runs again.
#[inline]
pub(crate) fn update_timed<S, R>(
    cell: &impl StateCell<S>,
    mut now: Option<Instant>,
    clock: &(impl Clock + ?Sized),
    mut f: impl FnMut(&mut S, Option<Instant>) -> Option<R>,
) -> R {
    loop {
        if let Some(result) = cell.update(|state| f(state, now)) {
            return result;
        }
        now = Some(clock.now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Count(u32);

    impl Fresh for Count {
        const FRESH: Self = Self(0);
    }

    /// A clock that changes the cell while it is read, as another caller may.
    struct Meddling<'a>(&'a RefCell<Count>, Cell<u32>);

    impl Clock for Meddling<'_> {
        fn now(&self) -> Instant {
            self.1.set(self.1.get().saturating_add(1));
            StateCell::update(self.0, |state| *state = Count(10));
            Instant::from_nanos(7)
        }
    }

    #[test]
    fn an_update_that_never_asks_for_the_time_does_not_read_the_clock() {
        let cell = <RefCell<Count> as StateCell<Count>>::NEW;
        let clock = Meddling(&cell, Cell::new(0));
        let result = update_timed(&cell, None, &clock, |state, _| {
            *state = Count(3);
            Some("done")
        });
        assert_eq!((result, *cell.borrow(), clock.1.get()), ("done", Count(3), 0));
    }

    #[test]
    fn an_update_that_needs_the_time_reads_it_once_outside_the_cell_and_starts_again_from_what_it_finds() {
        let cell = <RefCell<Count> as StateCell<Count>>::NEW;
        let clock = Meddling(&cell, Cell::new(0));
        let result = update_timed(&cell, None, &clock, |state, now| {
            let now = now?;
            state.0 = state.0.saturating_add(1);
            Some(now)
        });
        assert_eq!((result, *cell.borrow(), clock.1.get()), (Instant::from_nanos(7), Count(11), 1));
    }

    #[test]
    fn a_change_that_one_can_do_without_is_made_where_there_is_an_answer() {
        fn tried<C: StateCell<Count>>() -> [(Option<u32>, u32); 2] {
            let cell = C::NEW;
            [true, false].map(|wanted| {
                let answer = cell.try_update(|state| {
                    wanted.then(|| {
                        state.0 = state.0.saturating_add(1);
                        state.0
                    })
                });
                (answer, cell.read(|state| state.0))
            })
        }
        let expected = [(Some(1), 1), (None, 1)];
        assert_eq!((tried::<Cell<_>>(), tried::<RefCell<_>>()), (expected, expected));
        #[cfg(feature = "critical-section")]
        assert_eq!(tried::<critical_section::Mutex<Cell<_>>>(), expected);
    }

    /// Too large to keep room for another.
    struct Large([u32; SPARE]);

    impl Fresh for Large {
        const FRESH: Self = Self([0; SPARE]);
    }

    impl AsMut<u32> for Count {
        fn as_mut(&mut self) -> &mut u32 {
            &mut self.0
        }
    }

    impl AsMut<u32> for Large {
        fn as_mut(&mut self) -> &mut u32 {
            &mut self.0[0]
        }
    }

    /// What an update that adds one finds, in an update of the same cell that adds ten, and what both leave.
    fn entered_twice<S: AsMut<u32>, C: StateCell<S>>() -> (u32, u32) {
        let cell = C::NEW;
        let add = |more| {
            move |state: &mut S| {
                let count = state.as_mut();
                *count = count.saturating_add(more);
                *count
            }
        };
        cell.update(add(2));
        let within = cell.update(|state| {
            let within = cell.update(add(1));
            add(10)(state);
            within
        });
        (within, cell.update(add(0)))
    }

    #[test]
    fn an_update_within_an_update_against_the_contract_does_no_harm() {
        assert_eq!(entered_twice::<Count, Cell<_>>(), (3, 12));
        assert_eq!(entered_twice::<Count, RefCell<_>>(), (1, 12));
        assert_eq!(entered_twice::<Large, RefCell<_>>(), (1, 12));
    }

    #[test]
    fn reading_leaves_the_state_as_it_is() {
        let cell = <RefCell<Count> as StateCell<Count>>::NEW;
        StateCell::update(&cell, |state| *state = Count(5));
        assert_eq!((cell.read(|state| *state), *cell.borrow()), (Count(5), Count(5)));
        assert_eq!((cell.glimpse(|state| Some(*state)), cell.glimpse(|_| None::<Count>)), (Some(Count(5)), None));
    }
}
