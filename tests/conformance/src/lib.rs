//! Scenarios out of other systems' own test suites, run against failsoft under the configuration that means the same here.
//!
//! A [vector](vector::Vector) is a configuration and a list of steps, each with what is expected then. Vectors are read from a [tape]: no heap, no floating
//! point, so that a chip runs the same ones as a host and comes to the same verdicts, to the byte. What a vector may say is in
//! `tests/vectors/README.md`.
//!
//! # Verdicts
//! A vector has [passed](Verdict::Passed) or failed. Where failsoft differs on purpose, [a rule](rules) says so, by dialect and feature and
//! with its reason: a vector that failed and falls under a rule is skipped. A rule never hides a vector that passes, nor a difference in
//! anything but what the rule is about.
//!
//! # Adding a pattern
//! A module per pattern, with one function, which one of the [parts](Part) names:
//!
//! ```
//! use failsoft_conformance::checks::{Actual, Checks};
//! use failsoft_conformance::vector::{Result, Unsupported, Vector};
//! use failsoft_core::{Clock, testing::ManualClock};
//!
//! pub fn run<'a>(vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
//!     // What the module does not know is an error, never ignored.
//!     let config = vector.config.only(&["dialect", "limit"])?;
//!     let limit = config.needed("limit", config.count("limit"))?;
//!     let (clock, mut used) = (ManualClock::new(), 0_u32);
//!     for step in vector.steps() {
//!         checks.begin(&step);
//!         if let Some(at) = step.at()? {
//!             clock.set(at);
//!         }
//!         for _ in 0..step.repeat()? {
//!             let permit = match step.op {
//!                 "acquire" => {
//!                     step.no_args()?;
//!                     used += 1;
//!                     used <= limit
//!                 }
//!                 op => return Err(Unsupported::Op(op)),
//!             };
//!             checks.expect(&step, &mut |key| match key {
//!                 "permit" => Some(Actual::Bool(permit)),
//!                 "available" => Some(Actual::whole(i128::from(limit) - i128::from(used))),
//!                 _ => None,
//!             })?;
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! Keep what is large (policies, queues, permits) in that function and its callees: one vector's state at a time has to fit a stack of a few
//! kilobytes. Behind a `dyn` trait, a walk over the steps is compiled once for all kinds of a policy.

#![no_std]

use core::fmt::{self, Write};

mod accrual;
mod adaptive;
mod adaptive_rate;
mod breaker;
mod budget;
mod bulkhead;
pub mod checks;
mod composition;
mod config;
mod delay;
#[cfg(feature = "encode")]
pub mod encode;
mod hedging;
mod limiter;
pub mod number;
mod retry;
pub mod rules;
pub mod tape;
mod throttle;
pub mod vector;
mod window;

use checks::{Checks, Difference};
use tape::Tape;
use vector::{Result, Unsupported, Vector};

/// What became of a vector.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Everything came as expected.
    Passed,
    /// Something came otherwise, and no rule says that it should.
    Failed,
    /// Something came otherwise on purpose: the rule's reason.
    Skipped(&'static str),
}

/// How a pattern's vectors are run. Apart from the others, so that one pattern's state is off the stack before the next one's is
/// on it.
type Run = for<'a> fn(&Vector<'a>, &mut Checks) -> Result<'a, ()>;

/// The patterns that run in one image: a small chip's flash does not hold the code of all.
pub struct Part {
    /// Its name.
    pub name: &'static str,
    patterns: &'static [(&'static str, Run)],
}

/// Circuit breakers, what they count with, what they are composed with, and the configurations of all.
pub static BREAKERS: Part = Part {
    name: "breakers",
    patterns: &[
        ("breaker_metrics", breaker::run),
        ("circuit_breaker", breaker::run),
        ("composition", composition::run),
        ("config", config::run),
        ("failure_accrual", accrual::run),
        ("window", window::run),
    ],
};

/// Limits, retries and hedges.
pub static LIMITS: Part = Part {
    name: "limits",
    patterns: &[
        ("adaptive_concurrency", adaptive::run),
        ("adaptive_throttle", throttle::run),
        ("bulkhead", bulkhead::run),
        ("hedging", hedging::run),
        ("rate_limiter", limiter::run),
        ("rate_meter", adaptive_rate::run),
        ("retry", retry::run),
        ("retry_budget", budget::run),
        ("retry_delay", delay::run),
    ],
};

/// Every pattern there is.
pub const ALL: &[&Part] = &[&BREAKERS, &LIMITS];

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Part {
    fn run(&self, pattern: &str) -> Option<Run> {
        self.patterns.iter().find(|(name, _)| *name == pattern).map(|(_, run)| *run)
    }

    /// Whether it has this pattern.
    #[must_use]
    pub fn has(&self, pattern: &str) -> bool {
        self.run(pattern).is_some()
    }
}

/// Runs a vector of one of these parts and judges it; `checks` then holds the difference, if there is one.
#[must_use]
pub fn judge(parts: &[&Part], vector: &Vector<'_>, checks: &mut Checks) -> Verdict {
    *checks = Checks::new();
    let run = parts.iter().find_map(|part| part.run(vector.pattern));
    let unknown = Err(Unsupported::Pattern(vector.pattern));
    if let Err(unsupported) = run.map_or(unknown, |run| run(vector, checks)) {
        checks.differ(unsupported.key(), format_args!("{unsupported}"));
    }
    match checks.difference() {
        None => Verdict::Passed,
        Some(difference) => match rules::reason(vector, difference.key.as_str()) {
            Some(reason) => Verdict::Skipped(reason),
            None => Verdict::Failed,
        },
    }
}

/// How many there were of each verdict.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// Vectors that passed.
    pub passed: u32,
    /// Vectors that failed.
    pub failed: u32,
    /// Vectors that were skipped.
    pub skipped: u32,
}

impl Totals {
    /// Counts one more.
    pub const fn add(&mut self, verdict: Verdict) {
        let count = match verdict {
            Verdict::Passed => &mut self.passed,
            Verdict::Failed => &mut self.failed,
            Verdict::Skipped(_) => &mut self.skipped,
        };
        *count = count.saturating_add(1);
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Writes one vector's verdict as a line.
///
/// # Errors
/// Only what `out` returns.
pub fn write_verdict(vector: &Vector<'_>, verdict: Verdict, checks: &Checks, out: &mut dyn Write) -> fmt::Result {
    let Vector { id, pattern, .. } = vector;
    match (verdict, checks.difference()) {
        (Verdict::Skipped(reason), _) => writeln!(out, "skipped  {pattern} {id}: {reason}"),
        (Verdict::Failed, Some(Difference { message, count, .. })) => {
            write!(out, "FAILED   {pattern} {id}: {message}")?;
            match count {
                0 | 1 => writeln!(out),
                more => writeln!(out, " (and {} more)", more.saturating_sub(1)),
            }
        }
        (Verdict::Failed, None) => writeln!(out, "FAILED   {pattern} {id}"),
        (Verdict::Passed, _) => writeln!(out, "passed   {pattern} {id}"),
    }
}

/// Runs all vectors of a tape, which are of these parts: a line for each, and the totals last.
///
/// # Errors
/// Only what `out` returns.
pub fn report(parts: &[&Part], tape: Tape<'_>, out: &mut dyn Write) -> core::result::Result<Totals, fmt::Error> {
    let (mut totals, mut checks) = (Totals::default(), Checks::new());
    for value in tape.values().iter() {
        let vector = Vector::of(value);
        let verdict = judge(parts, &vector, &mut checks);
        totals.add(verdict);
        write_verdict(&vector, verdict, &checks, out)?;
    }
    writeln!(out, "{totals}")?;
    Ok(totals)
}
