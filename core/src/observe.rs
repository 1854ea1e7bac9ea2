//! Where events go: one static sink per policy.

use crate::outcome::Outcome;

/// Receives a policy's events, after the change, outside any lock, exactly once each.
///
/// One that panics takes the call along, and is told nothing more of what that call brought about. The policy has changed by then, and
/// nothing is held.
///
/// `()` receives nothing and costs nothing. A pair of observers is one: first the first is told, then the second. A closure or function is
/// a sink too, so that a `static` can name one:
///
/// ```
/// use failsoft_core::{cell::CriticalSection, valid, circuit_breaker::{CircuitBreaker, ConsecutiveFailures, Config, Transition}};
///
/// fn log(event: &Transition) {
///     println!("{:?} -> {:?}", event.from, event.to);
/// }
/// type Breaker = CircuitBreaker<CriticalSection, ConsecutiveFailures, fn(&Transition)>;
/// static BREAKER: Breaker = CircuitBreaker::with_observer(valid!(Config::new().validate()), log);
/// # let _ = BREAKER.state();
/// ```
pub trait Observer<Event> {
    /// Takes note of an event. It must not block; it may call back into the policy.
    fn observe(&self, event: &Event);

    /// Whether it takes note of events at all: where it never does, none need be made. By default it does.
    #[inline]
    fn listens(&self) -> bool {
        true
    }

    /// Takes note of a call that passed through a circuit breaker, or did not. By default it doesn't, and that costs nothing: to
    /// count every call is to write for every call.
    fn called(&self, _: Called) {}
}

/// What a circuit breaker did with one call: one of the first two, and for each that was admitted one of the others
/// once it is over. While the breaker is disabled, no outcome is told.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Called {
    /// It let the call through.
    Admitted,
    /// It rejected the call.
    Rejected,
    /// The call was reported, or was abandoned and counts as a failure.
    Recorded(Outcome),
    /// The call was abandoned and counts as nothing: its permit was dropped unspent.
    Abandoned,
    /// The outcome came too late to count: the state that admitted the call had ended.
    Late,
}

impl<Event> Observer<Event> for () {
    fn observe(&self, _: &Event) {}

    #[inline]
    fn listens(&self) -> bool {
        false
    }
}

impl<Event, F: Fn(&Event)> Observer<Event> for F {
    fn observe(&self, event: &Event) {
        self(event);
    }
}

impl<Event, A: Observer<Event>, B: Observer<Event>> Observer<Event> for (A, B) {
    #[inline]
    fn observe(&self, event: &Event) {
        self.0.observe(event);
        self.1.observe(event);
    }

    #[inline]
    fn listens(&self) -> bool {
        self.0.listens() || self.1.listens()
    }

    #[inline]
    fn called(&self, called: Called) {
        self.0.called(called);
        self.1.called(called);
    }
}

#[cfg(test)]
mod tests {
    use core::cell::RefCell;
    use std::vec::Vec;

    use super::*;

    /// Writes down who was told what.
    struct Diary<'d>(&'static str, &'d RefCell<Vec<(&'static str, u32)>>);

    impl Observer<u32> for Diary<'_> {
        fn observe(&self, event: &u32) {
            self.1.borrow_mut().push((self.0, *event));
        }

        fn called(&self, called: Called) {
            self.1.borrow_mut().push((self.0, if called == Called::Rejected { 100 } else { 0 }));
        }
    }

    #[test]
    fn of_a_pair_first_the_first_is_told_and_then_the_second_of_events_and_of_calls() {
        let diary = RefCell::new(Vec::new());
        let pair = (Diary("a", &diary), (Diary("b", &diary), ()));
        pair.observe(&7);
        pair.called(Called::Rejected);
        assert_eq!(diary.into_inner(), [("a", 7), ("b", 7), ("a", 100), ("b", 100)]);
    }

    #[test]
    fn a_pair_listens_if_either_does() {
        let ear = |_: &u32| ();
        assert!(!Observer::<u32>::listens(&((), ())));
        assert!(Observer::<u32>::listens(&(ear, ())));
        assert!(Observer::<u32>::listens(&((), ear)));
        assert!(Observer::<u32>::listens(&(ear, ear)));
    }

    #[test]
    fn nobody_takes_no_note_and_whoever_says_nothing_does() {
        assert!(!Observer::<u32>::listens(&()));
        assert!(Observer::<u32>::listens(&|_: &u32| ()));
    }
}
