//! Every state that a hedged call can reach: its tries, what they answer and when, and the budget that pays for them.
//!
//! Futures can't be copied: each state is a script, and every step begins with a new call and plays the script again. States are
//! told apart by what each try has done, by whether the call has been woken, by what is left in the budget, and by how long it
//! is until the next try may start; not by the time that has passed.

#![allow(clippy::cast_possible_truncation, reason = "tests")]

use super::*;
use crate::budget::{ConcurrentBudget, ConcurrentConfig, InFlight};
use crate::explore::{System, explore};
use crate::testing::tests::Wakes;

/// Until the next try starts, in milliseconds.
const DELAY: u64 = 2;
const HEDGES: usize = 2;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Move {
    Poll,
    Answer(usize, Said),
    Tick,
    /// The caller gives up.
    Drop,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Said {
    Good,
    Transient,
    Fatal,
}

impl Said {
    const fn result(self, hedge: usize) -> Result<u32, Fails> {
        match self {
            Self::Good => Ok(hedge as u32),
            Self::Transient => Err(Fails::Transient(hedge as u32)),
            Self::Fatal => Err(Fails::Fatal(hedge as u32)),
        }
    }
}

/// A try that has started.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Try {
    Runs,
    /// And the call has not looked yet.
    Said(Said),
    Failed,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Seen {
    tries: Vec<Try>,
    over: bool,
    woken: bool,
    /// How long ago the last try started, or that it does not matter any more.
    since: u64,
    timers: usize,
    in_flight: (u32, u32),
}

#[derive(Clone)]
struct Reached {
    script: Vec<Move>,
    seen: Seen,
}

/// A call, and whether a budget pays for one further try only.
struct Call {
    tight: bool,
}

impl Call {
    /// What the call should come to when it looks at its tries: the first good or fatal answer, in order of the tries; or the last
    /// failure, if no try is under way and no other starts.
    fn ending(tries: &[Try]) -> Option<Said> {
        tries.iter().find_map(|state| match state {
            Try::Said(said @ (Said::Good | Said::Fatal)) => Some(*said),
            _ => None,
        })
    }

    fn play(&self, script: Vec<Move>) -> Reached {
        let (rig, desk) = (Rig::new(), Desk::default());
        let floor = if self.tight { 1 } else { HEDGES as u32 };
        let config = ConcurrentConfig::new().with_share(Ratio::ZERO).with_minimum_concurrency(floor);
        let budget = ConcurrentBudget::<Local>::new(config.validate().expect("it makes sense"));
        let hedge: Hedge<Local, HEDGES, _, _, _> =
            Hedge::with_budget(FixedDelay::new(ms(DELAY)), Idempotent, (), &budget);
        let pipeline = Pipeline::new(&rig).layer(hedge).classify(verdict);
        let mut call = Some(Box::pin(pipeline.call(|attempt| desk.ask(attempt))));
        let (wakes, waker) = Wakes::new();
        let (mut tries, mut last_start, mut noticed, mut over) = (Vec::new(), 0, 0, false);
        for step in &script {
            let now = rig.elapsed().as_millis() as u64;
            match *step {
                Move::Tick => rig.advance(ms(1)),
                Move::Answer(place, said) => {
                    desk.answer(place, said.result(place));
                    tries[place] = Try::Said(said);
                    // As the dependency's own future would.
                    waker.wake_by_ref();
                }
                Move::Drop => (call, over) = (None, true),
                Move::Poll => {
                    let woken = wakes.count() > noticed || tries.is_empty();
                    noticed = wakes.count();
                    let future = call.as_mut().expect("it is not over");
                    let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
                    assert!(woken || polled.is_pending(), "over, and nobody woke it");
                    let started = desk.started.get();
                    let more = started - tries.len();
                    assert!(woken || more == 0, "another try, and nobody woke the call");
                    assert!(more <= 1, "several tries at once");
                    let due = tries.is_empty() || now >= last_start + DELAY;
                    assert!(more == 0 || due, "a try before its time");
                    let ending = Self::ending(&tries);
                    // The call looks no further than to what ends it.
                    let looks = |state: &&mut Try| !matches!(state, Try::Said(Said::Good | Said::Fatal));
                    for state in tries.iter_mut().take_while(looks) {
                        if *state == Try::Said(Said::Transient) {
                            *state = Try::Failed;
                        }
                    }
                    if more > 0 {
                        assert!(ending.is_none(), "another try beside the answer");
                        last_start = now;
                        tries.push(Try::Runs);
                    }
                    match (polled, ending) {
                        (Poll::Pending, None) => {
                            let waits = rig.live() > 0 || tries.contains(&Try::Runs);
                            assert!(waits, "nothing that it could wait for");
                        }
                        (Poll::Ready(Ok(_)), Some(Said::Good)) => over = true,
                        (Poll::Ready(Err(failure)), ending) => {
                            self.check_failure(&failure, ending, &tries);
                            over = true;
                        }
                        (polled, ending) => unreachable!("{polled:?} rather than {ending:?}"),
                    }
                }
            }
            assert!(desk.started.get() <= 1 + HEDGES, "more tries than allowed");
        }
        if over {
            // Also before the call is dropped.
            assert_eq!(budget.in_flight(), InFlight::default(), "what the budget paid for is over");
            assert_eq!(rig.live(), 0, "a timer that nobody waits for");
            let answered = |(place, state): &(usize, &Try)| match state {
                Try::Runs => false,
                Try::Said(_) => desk.answers[*place].take().is_none(),
                Try::Failed => true,
            };
            let answered = tries.iter().enumerate().filter(answered).count();
            assert_eq!(desk.dropped.borrow().len() + answered, tries.len(), "a try that goes on");
        }
        let InFlight { calls, retries } = budget.in_flight();
        let since = (rig.elapsed().as_millis() as u64 - last_start).min(DELAY);
        let woken = wakes.count() > noticed;
        let seen = Seen { over, woken, since, timers: rig.live(), in_flight: (calls, retries), tries };
        Reached { script, seen }
    }

    fn check_failure(&self, failure: &Failure<Fails>, ending: Option<Said>, tries: &[Try]) {
        let Failure { cause: Cause::Inner(error), attempts, stop } = failure else { unreachable!("{failure:?}") };
        assert_eq!(*attempts as usize, tries.len(), "the tries that were made");
        match (error, ending) {
            (Fails::Fatal(_), Some(Said::Fatal)) => assert_eq!(*stop, Some(Stop::NotRetryable)),
            (Fails::Transient(_), None) => {
                assert!(tries.iter().all(|state| *state == Try::Failed), "given up while a try goes on");
                let expected = if tries.len() > HEDGES { Stop::Attempts } else { Stop::Budget };
                assert_eq!(*stop, Some(expected));
                assert!(self.tight || expected == Stop::Attempts, "a budget that is not used up");
            }
            other => unreachable!("{other:?}"),
        }
    }
}

impl System for Call {
    type State = Reached;
    type Key = Seen;
    type Step = Move;

    fn start(&self) -> Reached {
        self.play(Vec::new())
    }

    fn key(&self, state: &Reached) -> Seen {
        state.seen.clone()
    }

    fn steps(&self, state: &Reached) -> Vec<Move> {
        if state.seen.over {
            return Vec::new();
        }
        let runs = state.seen.tries.iter().enumerate().filter(|(_, state)| **state == Try::Runs);
        let answers = runs
            .flat_map(|(place, _)| [Said::Good, Said::Transient, Said::Fatal].map(|said| Move::Answer(place, said)));
        answers.chain([Move::Poll, Move::Tick, Move::Drop]).collect()
    }

    fn step(&self, state: &Reached, step: Move) -> Reached {
        self.play([&state.script[..], &[step]].concat())
    }

    fn is_home(&self, state: &Reached) -> bool {
        state.seen.over
    }

    /// If its tries answer, or fail and are followed by others, a call comes to an end without being given up.
    fn leads_home(&self, step: Move) -> bool {
        matches!(step, Move::Poll | Move::Tick | Move::Answer(_, Said::Transient))
    }
}

#[test]
fn one_call() {
    explore("hedge", 1_300, &Call { tight: false });
}

#[test]
fn one_call_with_a_tight_budget() {
    explore("hedge, tight budget", 600, &Call { tight: true });
}
