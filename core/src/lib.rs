//! The core of failsoft: fault-tolerance policies as allocation-free state machines, and the driver that runs them.
//!
//! It has no heap, no clock, no runtime, no floating point and no unsafe code of its own, and it does not panic. Applications use it through
//! `failsoft-tokio` or `failsoft-embassy`, which re-export it.
//!
//! # Three layers
//!
//! 1. **Machine**: a plain value with `&mut self` transitions, in each policy's file. Configuration and time are passed in.
//! 2. **Cell** ([`cell`]): where the value lives and how callers share it: [`cell::StateCell`], one method of which has to be written. A [`cell::CellKind`] chooses it.
//! 3. **Policy**: configuration plus cell, with `&self` methods written once for every kind of cell: [`circuit_breaker`],
//!    [`retry`] with [`backoff`] and [`budget`], [`timeout`], [`hedge`], [`bulkhead`] and [`adaptive`] limits, [`rate_limiter`],
//!    [`throttle`], [`degradation`], [`fallback`] and [`last_good`]; a [`supervisor`] of tasks, for a watchdog, with [`boot_loop`] and what is
//!    [`retained`] over resets; and [`chaos`], to put them to the test.
//!
//! Above them, the [`pipeline`] composes policies around an operation into one future, polled in the caller's task and
//! driven by a [`Clock`] and an [`Executor`].
//!
//! # The driving rules
//!
//! * An operation that may need the time takes a [`Clock`] and reads it only when time matters. An [`Instant`] is a clock too.
//! * `try_acquire` asks, a permit reports; `poll_timeout` tells when a machine changes by itself, `handle_timeout` makes it
//!   do so. Extra and early calls of these are harmless.
//! * Every change of state gives one event to the policy's [`Observer`], after the change, outside every lock.
//! * Everything can be built in a `static`; [`valid!`] turns a refused configuration into a compile error.

#![no_std]
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::float_arithmetic, clippy::indexing_slicing))]

#[cfg(test)]
extern crate std;

#[cfg(test)]
mod scripts;

pub mod adaptive;
pub mod adaptive_rate;
pub mod backoff;
pub mod boot_loop;
pub mod budget;
pub mod bulkhead;
pub mod cell;
pub mod chaos;
pub mod circuit_breaker;
mod config;
pub mod degradation;
mod executor;
#[cfg(test)]
mod explore;
mod failure;
pub mod fallback;
pub mod hedge;
pub mod last_good;
mod math;
mod observe;
mod outcome;
pub mod pipeline;
pub mod quantile;
pub mod queue;
pub mod rate_limiter;
mod ratio;
pub mod retained;
pub mod retry;
mod rng;
pub mod supervisor;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod throttle;
mod time;
pub mod timeout;
pub mod window;

pub use config::{ConfigError, Valid};
pub use executor::Executor;
pub use failure::{Cause, Failure, Policy, Reason, Rejected, Stop, TimedOut};
pub use observe::{Called, Observer};
pub use outcome::{Classify, ErrIsFailure, Outcome, Verdict};
pub use pipeline::Pipeline;
pub use ratio::Ratio;
pub use rng::Rng;
pub use time::{Clock, Instant, Span};
