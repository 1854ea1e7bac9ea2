//! Sections: read by the keys there are, and laid over one another.

use std::collections::BTreeMap;

use super::error::{Place, ProblemKind, Problems};
use super::keys::{GROUPS, Group, Key, Leaf, TOP};
use super::text::{self, nearest};
use super::tree::{Node, Table, Value};

/// A value, and where it was said.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) leaf: Leaf,
    pub(super) place: Place,
    pub(super) path: String,
}

/// What was said of one group of keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    /// Whether there is such a policy, and where that was said last.
    pub(super) switch: Option<(bool, Place)>,
    pub(super) found: BTreeMap<&'static str, Found>,
}

/// What was said of one policy, or of the default: by group.
#[derive(Clone, Debug, Default)]
pub(super) struct Section {
    pub(super) parts: [Part; GROUPS.len()],
}

impl Section {
    /// What a table says. `path` is that of the table.
    pub(super) fn read(table: &Table, path: &str, problems: &mut Problems) -> Self {
        let mut section = Self::default();
        for (name, node) in table {
            let path = format!("{path}.{}", text::key(name));
            let group = GROUPS.iter().position(|group| !group.name.is_empty() && group.name == name);
            if let Some(index) = group {
                section.parts[index] = Part::read(&GROUPS[index], node, &path, problems);
            } else {
                section.parts[TOP].read_key(&GROUPS[TOP], name, node, &path, problems);
            }
        }
        for (part, group) in section.parts.iter().zip(&GROUPS) {
            part.check_together(group, problems);
        }
        section
    }

    /// Lays what another one says over this.
    pub(super) fn overlay(&mut self, over: &Self) {
        for ((part, over), group) in self.parts.iter_mut().zip(&over.parts).zip(&GROUPS) {
            part.overlay(over, group);
        }
    }
}

impl Part {
    fn read(group: &Group, node: &Node, path: &str, problems: &mut Problems) -> Self {
        let mut part = Self::default();
        match &node.value {
            Value::Flag(on) => part.switch = Some((*on, node.place.clone())),
            Value::Table(table) => {
                part.switch = Some((true, node.place.clone()));
                for (name, node) in table {
                    part.read_key(group, name, node, &format!("{path}.{}", text::key(name)), problems);
                }
            }
            other => {
                let reason = format!("is {}", other.describe());
                problems.add(ProblemKind::Value, &node.place, path, reason, "a table, or true or false");
            }
        }
        part
    }

    fn read_key(&mut self, group: &Group, name: &str, node: &Node, path: &str, problems: &mut Problems) {
        let Some(key) = group.keys.iter().find(|key| key.name == name) else {
            let groups =
                GROUPS.iter().map(|other| other.name).filter(|other| group.name.is_empty() && !other.is_empty());
            unknown(name, group.keys.iter().map(|key| key.name).chain(groups), &node.place, path, problems);
            return;
        };
        match key.read(&node.value) {
            Ok(leaf) => {
                let found = Found { leaf, place: node.place.clone(), path: path.into() };
                self.found.insert(key.name, found);
            }
            Err(reason) => problems.add(ProblemKind::Value, &node.place, path, reason, key.valid()),
        }
    }

    /// Of two that exclude each other, one may be said.
    fn check_together(&self, group: &Group, problems: &mut Problems) {
        for key in group.keys {
            let Some(found) = self.found.get(key.name) else { continue };
            for other in key.excludes.iter().filter(|other| self.found.contains_key(*other)) {
                // Each pair is told once, by the one that comes first.
                if position(group, key.name) < position(group, other) {
                    let reason = format!("can't be said beside `{other}`");
                    problems.add(ProblemKind::Together, &found.place, &found.path, reason, "one of the two");
                }
            }
        }
    }

    fn overlay(&mut self, over: &Self, group: &Group) {
        if let Some((on, place)) = &over.switch {
            self.switch = Some((*on, place.clone()));
            if !on {
                self.found.clear();
            }
        }
        for key in group.keys {
            if let Some(found) = over.found.get(key.name) {
                self.found.retain(|name, _| !key.excludes.contains(name));
                self.found.insert(key.name, found.clone());
            }
        }
    }
}

fn position(group: &Group, name: &str) -> Option<usize> {
    group.keys.iter().position(|key: &Key| key.name == name)
}

/// Adds that there is no such key, which there are, and which may be meant.
pub(super) fn unknown<'n>(
    name: &str,
    known: impl Iterator<Item = &'n str> + Clone,
    place: &Place,
    path: &str,
    problems: &mut Problems,
) {
    problems.add(ProblemKind::UnknownKey, place, path, "is no key", choice(name, known));
}

/// The names there are, and the one that may be meant.
pub(super) fn choice<'n>(name: &str, known: impl Iterator<Item = &'n str> + Clone) -> String {
    let list = known.clone().map(|known| format!("`{known}`")).collect::<Vec<_>>().join(", ");
    match nearest(name, known) {
        Some(near) => format!("{list} (did you mean `{near}`?)"),
        None => list,
    }
}
