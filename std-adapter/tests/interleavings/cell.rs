//! The cell by itself, with a state that has a tail in every other generation.

use std::sync::Arc;

use failsoft_tokio::AtomicCell;
use failsoft_tokio::cell::{Fresh, Packed, StateCell};

use crate::model::{check, thread};

/// A count whose odd values have a tail, which follows from the count.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Count {
    count: u64,
    tail: u64,
}

impl Count {
    const fn of(count: u64) -> Self {
        Self { count, tail: if count % 2 == 1 { count * 1_000 + 1 } else { 0 } }
    }

    fn next(&mut self) {
        assert_eq!(*self, Self::of(self.count), "the tail of another head");
        *self = Self::of(self.count + 1);
    }
}

impl Fresh for Count {
    const FRESH: Self = Self::of(0);
}

impl Packed for Count {
    fn pack(self) -> (u64, u64) {
        (self.count, self.tail)
    }

    fn unpack(head: u64, tail: u64) -> Self {
        Self { count: head, tail }
    }

    fn has_tail(head: u64) -> bool {
        // Or the cell is being changed.
        head % 2 == 1 || head >> 63 == 1
    }
}

/// A cell that has counted to three: both words have been used, as the checkers want them to be before there are threads.
fn cell() -> Arc<AtomicCell<Count>> {
    let cell = <AtomicCell<Count> as StateCell<Count>>::NEW;
    for _ in 0..3 {
        cell.update(Count::next);
    }
    Arc::new(cell)
}

#[test]
fn no_tail_is_read_with_the_head_of_another() {
    check("cell, one that writes and one that reads", || {
        let cell = cell();
        let reader = {
            let cell = cell.clone();
            thread::spawn(move || {
                let first = cell.read(|state| *state);
                let second = cell.read(|state| *state);
                assert_eq!((first, second), (Count::of(first.count), Count::of(second.count)), "torn");
                assert!(first.count <= second.count, "back in time");
            })
        };
        cell.update(Count::next);
        cell.update(Count::next);
        reader.join().expect("it doesn't panic");
        assert_eq!(cell.read(|state| *state), Count::of(5));
    });
}

#[test]
fn of_updates_at_once_none_is_lost() {
    check("cell, two that write", || {
        let cell = cell();
        let other = {
            let cell = cell.clone();
            thread::spawn(move || cell.update(Count::next))
        };
        cell.update(Count::next);
        other.join().expect("it doesn't panic");
        assert_eq!(cell.read(|state| *state), Count::of(5));
    });
}

/// A step of two, which needs no tail where there was none, if it can be made within the word.
fn try_two(cell: &AtomicCell<Count>) -> bool {
    let two = |state: &mut Count| (!Count::has_tail(state.count)).then(|| *state = Count::of(state.count + 2));
    cell.try_update(two).is_some()
}

#[test]
fn of_changes_within_the_word_none_is_lost_beside_one_that_needs_both() {
    check("cell, one that tries and one that writes", || {
        let cell = cell();
        cell.update(Count::next);
        let other = {
            let cell = cell.clone();
            thread::spawn(move || [try_two(&cell), try_two(&cell)])
        };
        cell.update(Count::next);
        cell.update(Count::next);
        let made = other.join().expect("it doesn't panic").into_iter().filter(|made| *made).count();
        assert_eq!(cell.read(|state| *state), Count::of(6 + 2 * u64::try_from(made).expect("two at most")));
    });
}

#[test]
fn of_changes_within_the_word_none_fails_or_is_lost_beside_its_like() {
    check("cell, two that try", || {
        let cell = cell();
        cell.update(Count::next);
        let other = {
            let cell = cell.clone();
            thread::spawn(move || [try_two(&cell), try_two(&cell)])
        };
        assert!(try_two(&cell));
        assert_eq!(other.join().expect("it doesn't panic"), [true; 2]);
        assert_eq!(cell.read(|state| *state), Count::of(10));
    });
}
