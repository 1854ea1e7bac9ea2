//! The sections of a file and of the environment, put together: who inherits what.

use std::collections::BTreeMap;

use super::build::{self, PolicySettings};
use super::environment::Variable;
use super::error::{Place, ProblemKind, Problems};
use super::keys::{Leaf, TOP};
use super::section::{Found, Section, choice, unknown};
use super::text;
use super::tree::{Node, Table, Value};

/// The section that all inherit from.
const DEFAULT: &str = "default";
/// The key of whom a policy inherits from.
const INHERITS: &str = "inherits";

/// The sections of the file, and those of the environment that lie over them.
pub(super) struct Sections {
    default: [Section; 2],
    policies: BTreeMap<String, (Place, [Section; 2])>,
}

impl Sections {
    pub(super) fn read(tree: &Table, variables: &[Variable], problems: &mut Problems) -> Self {
        let mut sections = Self { default: Default::default(), policies: BTreeMap::new() };
        for (name, node) in tree {
            match (name.as_str(), table(node, &text::key(name), problems)) {
                (_, None) => {}
                (DEFAULT, Some(table)) => sections.default[0] = Section::read(table, DEFAULT, problems),
                ("policies", Some(policies)) => sections.read_policies(policies, problems),
                _ => unknown(name, [DEFAULT, "policies"].into_iter(), &node.place, &text::key(name), problems),
            }
        }
        sections.read_environment(variables, problems);
        sections.refuse_inheritance_of_the_default(problems);
        sections
    }

    fn read_policies(&mut self, policies: &Table, problems: &mut Problems) {
        for (name, node) in policies {
            let path = path(name);
            if let Some(table) = table(node, &path, problems) {
                let section = Section::read(table, &path, problems);
                self.policies.insert(name.clone(), (node.place.clone(), [section, Section::default()]));
            }
        }
    }

    fn read_environment(&mut self, variables: &[Variable], problems: &mut Problems) {
        // The default's has no name.
        let mut trees: BTreeMap<Option<String>, Table> = BTreeMap::new();
        for variable in variables {
            let names = self.policies.keys().map(Some).chain([None]);
            let mut fitting: Vec<(Option<&String>, Vec<String>)> = names
                .filter_map(|name| Some((name, variable.keys_of(name.map_or(DEFAULT, String::as_str))?)))
                .collect();
            match (fitting.pop(), fitting.pop()) {
                (Some((name, keys)), None) => {
                    let tree = trees.entry(name.cloned()).or_default();
                    variable.insert(tree, &keys, problems);
                }
                (None, _) => {
                    let names = self.policies.keys().map(String::as_str).chain([DEFAULT]);
                    variable.refuse(
                        ProblemKind::UnknownKey,
                        "is of no policy",
                        choice(&variable.spelt(), names),
                        problems,
                    );
                }
                (Some(_), Some(_)) => {
                    variable.refuse(
                        ProblemKind::UnknownKey,
                        "may be of several policies",
                        "names that differ in more",
                        problems,
                    );
                }
            }
        }
        for (name, tree) in &trees {
            let path = name.as_deref().map_or_else(|| DEFAULT.into(), path);
            let section = Section::read(tree, &path, problems);
            match name.as_ref().map(|name| self.policies.get_mut(name)) {
                Some(Some((_, sections))) => sections[1] = section,
                Some(None) => {}
                None => self.default[1] = section,
            }
        }
    }

    fn refuse_inheritance_of_the_default(&self, problems: &mut Problems) {
        for Found { place, path, .. } in
            self.default.iter().filter_map(|section| section.parts[TOP].found.get(INHERITS))
        {
            let reason = "is not for the default, which all inherit from";
            problems.add(ProblemKind::Inheritance, place, path, reason, "");
        }
    }

    /// What each policy comes to.
    pub(super) fn resolve(&self, problems: &mut Problems) -> BTreeMap<String, PolicySettings> {
        let mut resolved = BTreeMap::new();
        for (name, (place, _)) in &self.policies {
            let Some(line) = self.line(name, problems) else { continue };
            let ancestors = line.iter().rev().filter_map(|name| self.policies.get(*name)).flat_map(|(_, both)| both);
            let mut whole = Section::default();
            self.default.iter().chain(ancestors).for_each(|section| whole.overlay(section));
            resolved.insert(name.clone(), build::build(name, place, &whole, problems));
        }
        resolved
    }

    /// A policy and those whom it inherits from, the nearest first.
    fn line<'s>(&'s self, name: &'s str, problems: &mut Problems) -> Option<Vec<&'s str>> {
        let (mut line, mut last) = (vec![name], name);
        loop {
            let (_, both) = self.policies.get(last)?;
            // That of the environment, if there is one.
            let found = both.iter().rev().find_map(|section| section.parts[TOP].found.get(INHERITS));
            let Some(Found { leaf: Leaf::Name(parent), place, path }) = found else { return Some(line) };
            if line.contains(&parent.as_str()) {
                // Told once: by the first of those in the circle.
                if parent == name && line.iter().all(|other| *other >= name) {
                    let reason = format!("leads back to itself: {} → {name}", line.join(" → "));
                    problems.add(ProblemKind::Inheritance, place, path, reason, "");
                }
                return None;
            }
            let Some((parent, _)) = self.policies.get_key_value(parent) else {
                let names = self.policies.keys().map(String::as_str);
                let reason = format!("there is no policy `{}`", text::cut(parent));
                problems.add(ProblemKind::Inheritance, place, path, reason, choice(parent, names));
                return None;
            };
            line.push(parent);
            last = parent;
        }
    }
}

fn path(policy: &str) -> String {
    format!("policies.{}", text::key(policy))
}

/// The table that a node has to be.
fn table<'n>(node: &'n Node, path: &str, problems: &mut Problems) -> Option<&'n Table> {
    if let Value::Table(table) = &node.value {
        return Some(table);
    }
    problems.add(ProblemKind::Value, &node.place, path, format!("is {}", node.value.describe()), "a table");
    None
}
