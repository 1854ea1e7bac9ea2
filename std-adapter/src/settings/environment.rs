//! The environment: settings in the names of variables.

use std::ffi::OsString;

use super::error::{Place, ProblemKind, Problems};
use super::tree::{Node, Table, Value};

/// What parts the keys in a variable's name.
const SEPARATOR: &str = "__";

/// A variable that says something of a policy.
#[derive(Clone, Debug)]
pub(super) struct Variable {
    place: Place,
    /// What follows the prefix.
    pub(super) rest: String,
    /// None where it is no Unicode.
    value: Option<String>,
}

impl Variable {
    /// What this is of ours: its name begins with the prefix and has two keys at least.
    pub(super) fn of(prefix: &str, name: OsString, value: OsString) -> Option<Self> {
        let name = name.into_string().ok()?;
        let rest = name.strip_prefix(prefix)?.strip_prefix('_').filter(|rest| rest.contains(SEPARATOR))?;
        let place = Place { source: format!("environment variable {name}").into(), line: None };
        Some(Self { place, rest: rest.into(), value: value.into_string().ok() })
    }

    /// The keys that it says of this policy, if it is one of its.
    pub(super) fn keys_of(&self, policy: &str) -> Option<Vec<String>> {
        let keys = self.rest.strip_prefix(&spelt(policy))?.strip_prefix(SEPARATOR)?;
        Some(keys.split(SEPARATOR).map(str::to_lowercase).collect())
    }

    /// The policy that may be meant, as a file would say it.
    pub(super) fn spelt(&self) -> String {
        self.rest.split(SEPARATOR).next().unwrap_or_default().to_lowercase()
    }

    /// Whether it is of the section of this name.
    pub(super) fn is_of(&self, section: &str) -> bool {
        self.rest.split(SEPARATOR).next() == Some(&*spelt(section))
    }

    pub(super) fn insert(&self, table: &mut Table, keys: &[String], problems: &mut Problems) {
        let Some((first, rest)) = keys.split_first() else { return };
        if !rest.is_empty() {
            let empty = || Node { place: self.place.clone(), value: Value::Table(Table::new()) };
            match &mut table.entry(first.clone()).or_insert_with(empty).value {
                Value::Table(within) => self.insert(within, rest, problems),
                other => {
                    let reason = format!("is for a part of what another variable says is {}", other.describe());
                    self.refuse(ProblemKind::Together, reason, "one of the two", problems);
                }
            }
        } else if let Some(value) = &self.value {
            let node = Node { place: self.place.clone(), value: Value::of_text(value) };
            if table.insert(first.clone(), node).is_some() {
                self.refuse(
                    ProblemKind::Together,
                    "is said twice, in capitals and in small letters",
                    "one of the two",
                    problems,
                );
            }
        } else {
            self.refuse(ProblemKind::Value, "has a value that is no Unicode", "", problems);
        }
    }

    pub(super) fn refuse(
        &self,
        kind: ProblemKind,
        reason: impl Into<String>,
        valid: impl Into<String>,
        problems: &mut Problems,
    ) {
        problems.add(kind, &self.place, "", reason, valid);
    }
}

/// The name of a policy as variables have it: in capitals, with `_` for what they can't have.
fn spelt(policy: &str) -> String {
    policy.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).flat_map(char::to_uppercase).collect()
}
