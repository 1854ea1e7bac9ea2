//! Exhaustive tests: every state that a machine can reach, the shortest ways first, and from each of them a way home.
//!
//! A system says what can be done and does it, with the real machine; what must hold it asserts. When an assertion fails,
//! the shortest script that leads there is printed.

#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, clippy::indexing_slicing, reason = "tests")]

use core::fmt::Debug;
use core::hash::Hash;
use core::iter::successors;
use std::collections::HashMap;
use std::thread::panicking;
use std::vec::Vec;
use std::{eprintln, println};

/// A machine in use, small enough to be explored as a whole.
pub(crate) trait System {
    /// The machine, those who use it, and the time.
    type State;
    /// What tells states apart: those of one key have one future. Where that is what makes the states finite, the system
    /// says why it may be so.
    type Key: Eq + Hash;
    /// One thing that can be done.
    type Step: Copy + Debug;

    fn start(&self) -> Self::State;

    fn key(&self, state: &Self::State) -> Self::Key;

    /// What may be done in a state.
    fn steps(&self, state: &Self::State) -> Vec<Self::Step>;

    /// Does it, and asserts that it did what it promises.
    fn step(&self, state: &Self::State, step: Self::Step) -> Self::State;

    /// Asserts what holds in every state.
    fn check(&self, _: &Self::State) {}

    /// Whether this is where every state must find back to: in full health, nothing taken.
    fn is_home(&self, state: &Self::State) -> bool;

    /// Whether the step may be a part of the way back: nothing that takes luck, and nobody's hand.
    fn leads_home(&self, step: Self::Step) -> bool;
}

/// How much there was to see.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Explored {
    pub(crate) states: usize,
    pub(crate) steps: usize,
    pub(crate) deepest: usize,
}

/// A state that was reached, from where, and by what.
struct Reached<S: System> {
    state: S::State,
    from: Option<(usize, S::Step)>,
    depth: usize,
    /// The states from which a step of the way back leads here.
    before: Vec<usize>,
}

/// The shortest script to a state.
fn script<S: System>(reached: &[Reached<S>], to: usize) -> Vec<S::Step> {
    let mut script: Vec<_> =
        successors(reached[to].from, |&(from, _)| reached[from].from).map(|(_, step)| step).collect();
    script.reverse();
    script
}

/// Tells, should a step panic, how to get there.
struct OnPanic<'r, S: System> {
    reached: &'r [Reached<S>],
    at: usize,
    step: Option<S::Step>,
}

impl<S: System> Drop for OnPanic<'_, S> {
    fn drop(&mut self) {
        if panicking() {
            let mut script = script(self.reached, self.at);
            script.extend(self.step);
            eprintln!("the shortest script to it: {script:?}");
        }
    }
}

/// Takes every step from every state, each state once; then looks back from home. Prints how much that was, and fails if it
/// was less than `least` states: what is not reached is not checked either.
pub(crate) fn explore<S: System>(name: &str, least: usize, system: &S) -> Explored {
    let reached = reach(system);
    if let Some(stranded) = stranded(system, &reached) {
        unreachable!("{name}: no way home after {:?}", script(&reached, stranded));
    }
    let explored = Explored {
        states: reached.len(),
        steps: reached.iter().map(|reached| system.steps(&reached.state).len()).sum(),
        deepest: reached.iter().map(|reached| reached.depth).max().unwrap_or(0),
    };
    let Explored { states, steps, deepest } = explored;
    println!("exhaustive {name}: {states} states, {steps} steps, deepest {deepest}");
    assert!(states >= least, "{name}: {states} states are fewer than {least}: what has become out of reach?");
    explored
}

/// Breadth first: whatever is reached, is reached by the fewest steps.
fn reach<S: System>(system: &S) -> Vec<Reached<S>> {
    let start = system.start();
    let mut places = HashMap::from([(system.key(&start), 0)]);
    let mut reached = std::vec![Reached { state: start, from: None, depth: 0, before: Vec::new() }];
    let mut at = 0;
    while at < reached.len() {
        let mut on_panic = OnPanic { reached: &reached, at, step: None };
        system.check(&reached[at].state);
        let mut found = Vec::new();
        for step in system.steps(&reached[at].state) {
            on_panic.step = Some(step);
            let state = system.step(&reached[at].state, step);
            found.push((step, system.key(&state), state));
        }
        drop(on_panic);
        for (step, key, state) in found {
            let new = reached.len();
            let to = *places.entry(key).or_insert(new);
            if to == new {
                let depth = reached[at].depth + 1;
                reached.push(Reached { state, from: Some((at, step)), depth, before: Vec::new() });
            }
            if system.leads_home(step) {
                reached[to].before.push(at);
            }
        }
        at += 1;
    }
    reached
}

/// The first state from which no way leads home.
fn stranded<S: System>(system: &S, reached: &[Reached<S>]) -> Option<usize> {
    let mut leads_home: Vec<bool> = reached.iter().map(|reached| system.is_home(&reached.state)).collect();
    let mut homes: Vec<usize> = (0..reached.len()).filter(|&place| leads_home[place]).collect();
    while let Some(home) = homes.pop() {
        for &before in &reached[home].before {
            if !leads_home[before] {
                leads_home[before] = true;
                homes.push(before);
            }
        }
    }
    leads_home.iter().position(|leads_home| !leads_home)
}

/// A counter from which one can fall into a pit.
struct Counter {
    most: u8,
    pit: Option<u8>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Move {
    Up,
    Back,
}

impl System for Counter {
    type State = u8;
    type Key = u8;
    type Step = Move;

    fn start(&self) -> u8 {
        0
    }

    fn key(&self, state: &u8) -> u8 {
        *state
    }

    fn steps(&self, state: &u8) -> Vec<Move> {
        if self.pit == Some(*state) { Vec::new() } else { Vec::from([Move::Up, Move::Back]) }
    }

    fn step(&self, state: &u8, step: Move) -> u8 {
        match step {
            Move::Up => (*state + 1) % 6,
            Move::Back => 0,
        }
    }

    fn check(&self, state: &u8) {
        assert!(*state <= self.most, "too high");
    }

    fn is_home(&self, state: &u8) -> bool {
        *state == 0
    }

    fn leads_home(&self, step: Move) -> bool {
        step == Move::Back
    }
}

#[test]
fn an_exploration_reaches_each_state_once_and_takes_each_step_of_it() {
    let explored = explore("counter", 6, &Counter { most: 5, pit: None });
    assert_eq!(explored, Explored { states: 6, steps: 12, deepest: 5 });
    assert_eq!(script(&reach(&Counter { most: 5, pit: None }), 3), [Move::Up; 3]);
}

#[test]
#[should_panic(expected = "too high")]
fn an_exploration_finds_what_must_not_be() {
    explore("counter", 0, &Counter { most: 4, pit: None });
}

#[test]
#[should_panic(expected = "no way home after [Up, Up, Up, Up]")]
fn an_exploration_finds_a_dead_end() {
    explore("counter", 0, &Counter { most: 5, pit: Some(4) });
}

#[test]
#[should_panic(expected = "6 states are fewer than 7")]
fn an_exploration_that_collapses_fails() {
    explore("counter", 7, &Counter { most: 5, pit: None });
}
