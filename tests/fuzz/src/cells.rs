//! The same script through every kind of cell.

use core::fmt::Debug;

/// Finds the first answer that differs.
#[track_caller]
pub(crate) fn same<A: Debug + PartialEq>(kind: &str, reference: &[A], answers: &[A]) {
    for (step, (expected, found)) in reference.iter().zip(answers).enumerate() {
        assert!(expected == found, "step {step}, {kind}:\n  one thread: {expected:?}\n  here:       {found:?}");
    }
    assert_eq!(reference.len(), answers.len(), "{kind}: steps");
}

/// Plays a script through each kind of cell that takes any state, with `$kind` as its name: the answers, all the same.
macro_rules! any_cell {
    ($kind:ident => $play:expr) => {{
        use embassy_sync::blocking_mutex::raw::NoopRawMutex;
        use failsoft_core::cell::{CriticalSection, Local};
        let reference = {
            type $kind = Local;
            $play
        };
        crate::cells::same("critical section", &reference, &{
            type $kind = CriticalSection;
            $play
        });
        crate::cells::same("std mutex", &reference, &{
            type $kind = failsoft_tokio::Locked;
            $play
        });
        crate::cells::same("embassy mutex", &reference, &{
            type $kind = failsoft_embassy::Raw<NoopRawMutex>;
            $play
        });
        reference
    }};
}

/// The same for states of a word or two: through the lock-free cell too.
macro_rules! word_cell {
    ($kind:ident => $play:expr) => {{
        let reference = crate::cells::any_cell!($kind => $play);
        crate::cells::same("atomic words", &reference, &{
            type $kind = failsoft_tokio::Atomic;
            $play
        });
        reference
    }};
}

pub(crate) use {any_cell, word_cell};
