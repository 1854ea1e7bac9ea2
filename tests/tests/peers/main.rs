//! Bugs that other Rust crates have, each as a test that failsoft passes: all in virtual time, with fixed seeds, by the public API.
//!
//! `tests/peers-bugs.md` says which test stands for which bug. `peers_fail` runs the same programs on the crates that have them.

mod breaker;
mod composition;
mod delay;
mod half_open;
mod limits;
mod list;
mod support;

use core::time::Duration;

use failsoft_core::cell::CellKind;
use failsoft_core::circuit_breaker::{CircuitBreaker, State, StateKind, Transition, Trip};
use failsoft_core::{Clock, Observer};

use support::{Woken, panic_now, panics, poll_once};

const SECOND: Duration = Duration::from_secs(1);

/// Offers so many calls at once, which stay out, and says how many were let through.
fn admitted_at_once<K, T, O>(breaker: &CircuitBreaker<K, T, O>, clock: &impl Clock, calls: usize) -> usize
where
    T: Copy + Trip,
    K: CellKind<State<T::Meter>>,
    O: Observer<Transition>,
{
    let permits: Vec<_> = (0..calls).filter_map(|_| breaker.try_acquire(clock).ok()).collect();
    permits.len()
}

/// Fails until the breaker opens, and says how many failures that took.
fn failures_to_open<K, T, O>(breaker: &CircuitBreaker<K, T, O>, clock: &impl Clock, at_most: u32) -> u32
where
    T: Copy + Trip,
    K: CellKind<State<T::Meter>>,
    O: Observer<Transition>,
{
    for failures in 0..at_most {
        match breaker.try_acquire(clock) {
            Ok(permit) => permit.failure(),
            Err(_) => return failures,
        }
    }
    assert_eq!(breaker.state(), StateKind::Open, "not even after {at_most} failures");
    at_most
}
