//! Every state that the budgets can reach with a few calls at once.
//!
//! What a call has of a budget is the budget's own secret: each state is a script, and every step begins with a new budget and
//! plays the script again. States are told apart by what is left in the budget and what each call has of it.

use core::fmt::Debug;
use std::format;
use std::string::String;

use super::*;
use crate::explore::{System, explore};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Move {
    Begin,
    /// A call within one that has begun: a hedge within a retry.
    Join,
    /// Asks for another attempt after a failure.
    Retry(usize),
    /// After one that costs more than others.
    RetryDear(usize),
    /// Asks for another attempt while none has failed.
    Hedge(usize),
    End(usize, Outcome),
}

impl Move {
    /// Which call, and the verdict over its last attempt.
    const fn attempt(self) -> Option<(usize, Verdict)> {
        match self {
            Self::Retry(call) => Some((call, Verdict::TRANSIENT)),
            Self::RetryDear(call) => Some((call, Verdict::TRANSIENT.with_cost(DEAR))),
            Self::Hedge(call) => Some((call, Verdict::IGNORED)),
            _ => None,
        }
    }
}

const DEAR: u16 = 3;

/// What a call has done, as it sees it itself.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
struct Call {
    joined: bool,
    /// What its last attempt that was allowed cost.
    last: Option<u16>,
    /// Attempts beside the first that are under way.
    retries: u32,
    /// Whether its last failure was told of when the budget refused another attempt.
    refused: bool,
}

/// A budget whose promise can be said in a few lines.
trait Promising: RetryBudget {
    /// What is left, or under way.
    fn level(&self) -> Level;

    /// What should be left after a step, and whether an attempt should have been allowed.
    fn expected(before: Level, calls: &[Call], step: Move) -> (Level, bool);

    fn check(level: Level, calls: &[Call]);

    fn is_home(level: Level) -> bool;
}

type Level = (u32, u32);

/// The quota has 6 tokens; a retry takes 2.
impl Promising for Quota {
    fn level(&self) -> Level {
        (self.balance(), 0)
    }

    fn expected((left, _): Level, calls: &[Call], step: Move) -> (Level, bool) {
        if let Some((_, verdict)) = step.attempt() {
            let cost = u32::from(verdict.cost().unwrap_or(2));
            let allowed = left >= cost;
            return ((if allowed { left - cost } else { left }, 0), allowed);
        }
        let refund = match step {
            Move::End(call, Outcome::Success) => match &calls[call] {
                Call { last: Some(cost), .. } => u32::from(*cost),
                call => u32::from(!call.joined),
            },
            _ => 0,
        };
        (((left + refund).min(6), 0), false)
    }

    fn check((left, _): Level, _: &[Call]) {
        assert!(left <= 6);
    }

    fn is_home((left, _): Level) -> bool {
        left == 6
    }
}

/// The throttle has 3 tokens, and a success brings back half a one.
impl Promising for Throttle {
    fn level(&self) -> Level {
        (self.thousandths(), 0)
    }

    fn expected((left, _): Level, calls: &[Call], step: Move) -> (Level, bool) {
        let fewer = left.saturating_sub(1_000);
        match step {
            Move::Retry(_) | Move::RetryDear(_) => ((fewer, 0), fewer > 1_500),
            Move::Hedge(_) => ((left, 0), left > 1_500),
            Move::End(_, Outcome::Success) => (((left + 500).min(3_000), 0), false),
            // Unless it was told of already, or whoever it joined will tell.
            Move::End(call, Outcome::Failure) if !calls[call].refused => ((fewer, 0), false),
            _ => ((left, 0), false),
        }
    }

    fn check((left, _): Level, _: &[Call]) {
        assert!(left <= 3_000);
    }

    fn is_home((left, _): Level) -> bool {
        left == 3_000
    }
}

/// Half of the calls in flight may be retries, and one always.
impl Promising for Concurrent {
    fn level(&self) -> Level {
        (self.in_flight().calls, self.in_flight().retries)
    }

    fn expected((begun, retries): Level, calls: &[Call], step: Move) -> (Level, bool) {
        let Some((call, verdict)) = step.attempt() else {
            return match step {
                Move::Begin => ((begun + 1, retries), false),
                Move::End(call, _) => ((begun - u32::from(!calls[call].joined), retries - calls[call].retries), false),
                _ => ((begun, retries), false),
            };
        };
        // The retry that failed is over.
        let failed = verdict.outcome() == Outcome::Failure && calls[call].retries > 0;
        let others = retries - u32::from(failed);
        let allowed = others < (begun / 2).max(1);
        ((begun, others + u32::from(allowed)), allowed)
    }

    fn check((begun, retries): Level, calls: &[Call]) {
        assert_eq!(begun as usize, calls.iter().filter(|call| !call.joined).count(), "calls in flight");
        assert_eq!(retries, calls.iter().map(|call| call.retries).sum(), "retries in flight");
    }

    fn is_home(level: Level) -> bool {
        level == (0, 0)
    }
}

/// So many calls at once, and a budget for them.
struct Calls<B> {
    most: usize,
    budget: fn() -> B,
}

#[derive(Clone)]
struct Reached {
    script: Vec<Move>,
    level: Level,
    calls: Vec<Call>,
    spent: Vec<String>,
}

impl<B: Promising<Spent: Debug>> Calls<B> {
    fn play(&self, script: Vec<Move>) -> Reached {
        let budget = (self.budget)();
        let (mut calls, mut spent): (Vec<Call>, Vec<B::Spent>) = (Vec::new(), Vec::new());
        for step in &script {
            let (level, allowed) = B::expected(budget.level(), &calls, *step);
            match *step {
                Move::Begin => spent.push(budget.begin(&Instant::START)),
                Move::Join => spent.push(budget.join(&Instant::START)),
                Move::End(call, outcome) => {
                    calls.remove(call);
                    budget.end(spent.remove(call), outcome);
                }
                _ => {}
            }
            if matches!(step, Move::Begin | Move::Join) {
                let joined = *step == Move::Join;
                // Who joins leaves the telling to whoever began.
                calls.push(Call { joined, refused: joined, ..Call::default() });
            }
            if let Some((place, verdict)) = step.attempt() {
                assert_eq!(budget.try_retry(&mut spent[place], verdict, &Instant::START), allowed, "another attempt");
                let (call, failed) = (&mut calls[place], verdict.outcome() == Outcome::Failure);
                call.retries = call.retries - u32::from(failed && call.retries > 0) + u32::from(allowed);
                call.last = if allowed { Some(verdict.cost().unwrap_or(2)) } else { call.last };
                call.refused = failed && !allowed;
            }
            assert_eq!(budget.level(), level, "what is left");
        }
        let level = budget.level();
        B::check(level, &calls);
        // One more success shows whether anything is owed beyond what there is to see.
        let joined = [Call { joined: true, refused: true, ..Call::default() }];
        budget.end(budget.join(&Instant::START), Outcome::Success);
        assert_eq!(budget.level(), B::expected(level, &joined, Move::End(0, Outcome::Success)).0, "what is owed");
        Reached { script, level, calls, spent: spent.iter().map(|spent| format!("{spent:?}")).collect() }
    }
}

impl<B: Promising<Spent: Debug>> System for Calls<B> {
    type State = Reached;
    type Key = (Level, Vec<Call>, Vec<String>);
    type Step = Move;

    fn start(&self) -> Reached {
        self.play(Vec::new())
    }

    /// Calls are told apart by what they have done, not by which of them did it.
    fn key(&self, state: &Reached) -> Self::Key {
        let mut calls: Vec<_> = state.calls.iter().cloned().zip(state.spent.iter().cloned()).collect();
        calls.sort_by_cached_key(|call| format!("{call:?}"));
        let (calls, spent) = calls.into_iter().unzip();
        (state.level, calls, spent)
    }

    fn steps(&self, state: &Reached) -> Vec<Move> {
        let mut steps = Vec::new();
        if state.calls.len() < self.most {
            steps.extend([Move::Begin, Move::Join]);
        }
        for (place, call) in state.calls.iter().enumerate() {
            steps.push(Move::Retry(place));
            steps.push(Move::RetryDear(place));
            // The most that any hedge has under way.
            if call.retries < 3 {
                steps.push(Move::Hedge(place));
            }
            let outcomes = [Outcome::Success, Outcome::Failure, Outcome::Ignored];
            steps.extend(outcomes.map(|outcome| Move::End(place, outcome)));
        }
        steps
    }

    fn step(&self, state: &Reached, step: Move) -> Reached {
        self.play([&state.script[..], &[step]].concat())
    }

    fn is_home(&self, state: &Reached) -> bool {
        state.calls.is_empty() && B::is_home(state.level)
    }

    /// Calls that succeed without another attempt bring everything back.
    fn leads_home(&self, step: Move) -> bool {
        matches!(step, Move::Begin | Move::End(_, Outcome::Success))
    }
}

fn quota_budget() -> Quota {
    Quota::new(valid!(QuotaConfig::new().with_capacity(6).with_retry_cost(2).validate()))
}

fn throttle_budget() -> Throttle {
    Throttle::new(valid!(RetryThrottleConfig::new().with_max_tokens(3).with_token_ratio(500).validate()))
}

fn concurrent_budget() -> Concurrent {
    let config = ConcurrentConfig::new().with_share(Ratio::percent(50)).with_minimum_concurrency(1);
    Concurrent::new(config.validate().expect("it makes sense"))
}

#[test]
fn quota() {
    explore("budget, quota", 1_900, &Calls { most: 2, budget: quota_budget });
}

#[test]
fn throttle() {
    explore("budget, retry throttle", 2_800, &Calls { most: 2, budget: throttle_budget });
}

#[test]
fn concurrent() {
    explore("budget, concurrent", 1_700, &Calls { most: 4, budget: concurrent_budget });
}
