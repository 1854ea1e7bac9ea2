//! What is wrong with settings: where, why, and what would be valid.

use core::fmt;
use std::sync::Arc;

/// Settings that are refused: everything that is wrong with them, in the order of the file.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SettingsError {
    problems: Vec<Problem>,
}

impl SettingsError {
    pub(super) fn new(problems: Vec<Problem>) -> Self {
        Self { problems }
    }

    /// What is wrong: one problem at least.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

/// A problem a line.
impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "\n" })?;
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl core::error::Error for SettingsError {}

/// What kind of problem it is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The file could not be read.
    Unreadable,
    /// The text is no TOML or JSON, or says a key twice.
    Syntax,
    /// A key that there is not.
    UnknownKey,
    /// A name of a policy that there is not, or that leads back to itself.
    Inheritance,
    /// A value of another type, or out of its range.
    Value,
    /// A key that has to be there is missing.
    Missing,
    /// Values that make sense by themselves, and not together.
    Together,
}

/// Where something is written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Place {
    pub(super) source: Arc<str>,
    pub(super) line: Option<usize>,
}

/// One thing that is wrong with settings.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    pub(super) kind: ProblemKind,
    pub(super) place: Place,
    pub(super) key: String,
    pub(super) reason: String,
    pub(super) valid: String,
}

impl Problem {
    /// What kind of problem it is.
    #[must_use]
    pub const fn kind(&self) -> ProblemKind {
        self.kind
    }

    /// Where it is: the name of the file, or `environment variable` and its name.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.place.source
    }

    /// The line, from 1 on, where the format gives one: TOML always does, JSON for what is no JSON.
    #[must_use]
    pub const fn line(&self) -> Option<usize> {
        self.place.line
    }

    /// The key, from the top: `policies.payments.retry.attempts`. Empty where the whole text is meant.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Why it is refused.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// What would be valid. Empty where there is nothing to say.
    #[must_use]
    pub fn valid(&self) -> &str {
        &self.valid
    }
}

/// `file:line: key: reason; valid: what would be`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place.source)?;
        if let Some(line) = self.place.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.reason)?;
        if self.valid.is_empty() { Ok(()) } else { write!(f, "; valid: {}", self.valid) }
    }
}

/// Collects what is wrong, each thing once.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn add(
        &mut self,
        kind: ProblemKind,
        place: &Place,
        key: impl Into<String>,
        reason: impl Into<String>,
        valid: impl Into<String>,
    ) {
        let problem =
            Problem { kind, place: place.clone(), key: key.into(), reason: reason.into(), valid: valid.into() };
        // What is inherited by many is wrong once.
        if !self.0.contains(&problem) {
            self.0.push(problem);
        }
    }

    /// Goes on if nothing is wrong yet.
    pub(super) fn settle(&mut self) -> Result<(), SettingsError> {
        if self.0.is_empty() {
            return Ok(());
        }
        self.0.sort_by_key(|problem| problem.place.line);
        Err(SettingsError::new(core::mem::take(&mut self.0)))
    }
}
