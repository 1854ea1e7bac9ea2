//! Small scripts on a few threads, in every order in which their steps can interleave: what the lock-free cell and the wait queues
//! promise holds in all of them.
//!
//! loom goes through all orders, the weak memory orders included (of the larger scripts, those with up to three preemptions); shuttle draws
//! many of longer scripts by chance, and prints what replays a failure. `tests/verify` builds this for each of them; any other
//! build has nothing here.
//!
//! Not modelled: what counts references (`Arc`), and the settings of a `Live` policy, which `arc-swap` keeps.

#![cfg(any(failsoft_loom, failsoft_shuttle))]

mod breaker;
mod bulkhead;
mod cell;
mod coalesce;
mod limits;
mod model;
#[cfg(feature = "registry")]
mod registry;
#[cfg(failsoft_shuttle)]
mod storm;
