//! Every state that a small bulkhead can reach, with those who hold permits, those who wait for them, and their wakers.
//!
//! Futures can't be copied: each state is a script, and every step begins with a new bulkhead and plays the script again. States
//! are told apart by what is in the bulkhead and in line, who has been woken, and how long the callers still wait; not by the
//! names that waiters have in line, of which only the order matters.

use std::boxed::Box;
use std::sync::Arc;
use std::vec::Vec;

use super::*;
use crate::explore::{System, explore};

/// Storage for so many waiters, fewer than the queue would hold by its permits.
const PLACES: usize = 3;

type Small = Bulkhead<Local, LocalQueue<PLACES>>;
type Granted<'b> = Permit<&'b Small, Local, LocalQueue<PLACES>>;
type Asking<'b> = Pin<Box<Acquire<'b, Local, LocalQueue<PLACES>, &'b VirtualExecutor>>>;

const TICK: Duration = ms(1);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Move {
    Take(u32),
    /// As what matters less.
    TakeLow(u32),
    /// Joins the queue, unless there are permits.
    Ask(u32),
    /// Polls a caller that has been woken.
    Poll(usize),
    /// Polls one that has not.
    PollUnasked(usize),
    GiveUp(usize),
    /// Gives back the first permit of this weight.
    Release(u32),
    Resize(u32),
    Tick,
}

/// A bulkhead in use, and what is done with it.
struct InUse {
    config: Valid<Config>,
    /// The most callers that hold permits or wait for them.
    callers: usize,
    weights: &'static [u32],
    more: &'static [Move],
}

/// One that waits.
struct Caller<'b> {
    id: u32,
    weight: u32,
    until: Instant,
    wakes: Arc<Wakes>,
    /// How often it had been woken when it was polled last.
    noticed: usize,
    future: Asking<'b>,
}

impl Caller<'_> {
    fn is_woken(&self) -> bool {
        self.wakes.count() > self.noticed
    }
}

struct World<'b> {
    bulkhead: &'b Small,
    executor: &'b VirtualExecutor,
    held: Vec<Granted<'b>>,
    waiting: Vec<Caller<'b>>,
    rejected: u32,
}

/// What there is to see of a state.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Seen {
    slots: (u32, u32, u32),
    held: Vec<u32>,
    waiting: Vec<SeenCaller>,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct SeenCaller {
    weight: u32,
    /// Its place in line, if it has one, and whether it has been served.
    place: Option<(usize, bool)>,
    woken: bool,
    left: Duration,
}

impl<'b> World<'b> {
    fn line(&self) -> Vec<(u32, bool)> {
        self.bulkhead.queue.lock(|line| line.iter().map(|waiter| (waiter.id, waiter.served)).collect())
    }

    fn slots(&self) -> Slots {
        self.bulkhead.slots.read(|slots| *slots)
    }

    fn seen(&self) -> Seen {
        let (line, slots) = (self.line(), self.slots());
        let now = self.executor.now();
        let caller = |caller: &Caller<'_>| SeenCaller {
            weight: caller.weight,
            place: line.iter().position(|waiter| waiter.0 == caller.id).map(|place| (place, line[place].1)),
            woken: caller.is_woken(),
            left: caller.until.saturating_duration_since(now).min(ms(1_000)),
        };
        let mut held: Vec<_> = self.held.iter().map(|permit| permit.weight).collect();
        held.sort_unstable();
        let slots = (slots.in_use, slots.queued, slots.resized);
        Seen { slots, held, waiting: self.waiting.iter().map(caller).collect() }
    }

    fn apply(&mut self, step: Move) {
        match step {
            Move::Take(weight) => self.take(weight, Priority::CRITICAL),
            Move::TakeLow(weight) => self.take(weight, Priority::LOW),
            Move::Ask(weight) => self.ask(weight),
            Move::Poll(caller) | Move::PollUnasked(caller) => self.poll(caller),
            Move::GiveUp(caller) => drop(self.waiting.remove(caller)),
            Move::Release(weight) => {
                let place = self.held.iter().position(|permit| permit.weight == weight).expect("one is held");
                drop(self.held.remove(place));
            }
            Move::Resize(permits) => self.bulkhead.resize(permits).expect("it makes sense"),
            Move::Tick => self.executor.jump_to(self.executor.now().saturating_add(TICK)),
        }
    }

    fn take(&mut self, weight: u32, priority: Priority) {
        let Snapshot { permits, in_use, queued, .. } = self.bulkhead.snapshot();
        let most = priority.of(permits);
        let overtakes = self.bulkhead.config.newest_first && priority.is_highest();
        let passes = in_use + weight <= most && (queued == 0 || overtakes);
        match self.bulkhead.try_acquire_at(weight, priority) {
            Ok(permit) => {
                assert!(passes, "{weight} of {permits} beside {in_use}, with {queued} queued");
                self.held.push(permit);
            }
            Err(rejected) => {
                let reason = match () {
                    () if weight > most => Reason::TooHeavy,
                    () if priority.is_highest() => Reason::Full,
                    () => Reason::PriorityTooLow,
                };
                assert_eq!((passes, rejected.reason()), (false, reason));
                self.rejected += 1;
            }
        }
    }

    fn ask(&mut self, weight: u32) {
        let (wakes, waker) = Wakes::new();
        let mut future: Asking<'b> = Box::pin(self.bulkhead.acquire(weight, self.executor));
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(Ok(permit)) => self.held.push(permit),
            Poll::Ready(Err(_)) => self.rejected += 1,
            Poll::Pending => {
                let (id, _) = *self.line().last().expect("it has joined the line");
                let until = self.executor.now().after(self.bulkhead.config.longest_wait);
                self.waiting.push(Caller { id, weight, until, wakes, noticed: 0, future });
            }
        }
    }

    fn poll(&mut self, caller: usize) {
        let (permits, line) = (self.bulkhead.snapshot().permits, self.line());
        let Caller { id, weight, until, wakes, noticed, future } = &mut self.waiting[caller];
        let was_woken = wakes.count() > *noticed;
        *noticed = wakes.count();
        let in_line = line.iter().find(|waiter| waiter.0 == *id).map(|waiter| waiter.1);
        let served = if self.bulkhead.config.newest_first { in_line == Some(true) } else { in_line.is_none() };
        let expected = match in_line {
            _ if served => Poll::Ready(None),
            None => Poll::Ready(Some(Reason::Evicted)),
            Some(_) if *weight > permits => Poll::Ready(Some(Reason::TooHeavy)),
            Some(_) if *until <= self.executor.now() => Poll::Ready(Some(Reason::QueueTimeout)),
            Some(_) => Poll::Pending,
        };
        // Again with another waker, as a task that moves from one executor to another would have it.
        let (again, waker) = Wakes::new();
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        let answer = polled.map(|result| match result {
            Ok(permit) => {
                self.held.push(permit);
                None
            }
            Err(rejected) => {
                self.rejected += 1;
                Some(rejected.reason())
            }
        });
        assert_eq!(answer, expected, "a caller that waits");
        if answer.is_ready() {
            assert!(was_woken, "ready, and nobody woke it");
            let id = self.waiting[caller].id;
            assert!(!self.line().iter().any(|waiter| waiter.0 == id), "answered, and still in line");
            drop(self.waiting.remove(caller));
        } else {
            (*wakes, *noticed) = (again, 0);
        }
    }

    /// What holds at any time.
    fn check(&self) {
        let (line, slots) = (self.line(), self.slots());
        let (newest_first, permits) = (self.bulkhead.config.newest_first, slots.permits(&self.bulkhead.config));
        let place = |caller: &Caller<'_>| line.iter().find(|waiter| waiter.0 == caller.id).map(|waiter| waiter.1);
        let has_been_served = |caller: &Caller<'_>| match place(caller) {
            Some(served) => served,
            None => !newest_first,
        };
        let weights = |callers: &mut dyn Iterator<Item = &Caller<'_>>| callers.map(|caller| caller.weight).sum::<u32>();
        let held = self.held.iter().map(|permit| permit.weight).sum::<u32>();
        let served = weights(&mut self.waiting.iter().filter(|caller| has_been_served(caller)));
        let queued = weights(&mut self.waiting.iter().filter(|caller| place(caller) == Some(false)));
        assert_eq!((slots.in_use, slots.queued), (held + served, queued), "permits in use and queued");
        assert!(line.iter().all(|waiter| self.waiting.iter().any(|caller| caller.id == waiter.0)), "a trace in line");
        assert!(line.is_sorted(), "the line is in order of arrival");
        assert!(queued <= self.bulkhead.config.queue, "more in line than may be");
        let unserved = |waiter: &&(u32, bool)| !waiter.1;
        let next = if newest_first { line.iter().rev().find(unserved) } else { line.first() };
        if let Some(next) = next {
            let caller = self.waiting.iter().find(|caller| caller.id == next.0).expect("it waits");
            assert!(caller.weight > permits.saturating_sub(slots.in_use), "someone waits while permits are free");
        }
        for caller in &self.waiting {
            let waits = place(caller) == Some(false) && caller.weight <= permits;
            let is_over = caller.until <= self.executor.now();
            assert!(caller.is_woken() || (waits && !is_over), "someone sleeps who should know: {:?}", self.seen());
        }
        let Snapshot { high_water, rejected, .. } = self.bulkhead.snapshot();
        assert!(high_water >= slots.in_use && rejected == self.rejected);
        assert_eq!(Slots::unpack(slots.pack().0, 0), slots, "packed and unpacked");
    }

    /// What holds of a step: nobody takes what is not there, and nobody overtakes.
    fn check_step(&self, before: &(Slots, Vec<(u32, bool)>), step: Move) {
        let (slots, line) = (self.slots(), self.line());
        let permits = slots.permits(&self.bulkhead.config);
        assert!(slots.in_use <= before.0.in_use || slots.in_use <= permits, "more in use than there are");
        if self.bulkhead.config.newest_first || matches!(step, Move::GiveUp(_) | Move::Poll(_) | Move::PollUnasked(_)) {
            return;
        }
        // Those who have left the line stood before all who are still in it.
        let stays = |waiter: &(u32, bool)| line.contains(waiter);
        let left = before.1.iter().take_while(|waiter| !stays(waiter)).count();
        assert!(before.1[left..].iter().all(stays), "served out of turn");
    }
}

#[derive(Clone)]
struct Reached {
    script: Vec<Move>,
    seen: Seen,
}

impl InUse {
    fn play(&self, script: Vec<Move>) -> Reached {
        let (bulkhead, executor) = (Small::new(self.config), VirtualExecutor::new());
        let (held, waiting) = (Vec::new(), Vec::new());
        let mut world = World { bulkhead: &bulkhead, executor: &executor, held, waiting, rejected: 0 };
        if let Some((last, before)) = script.split_last() {
            for step in before {
                world.apply(*step);
            }
            let before = (world.slots(), world.line());
            world.apply(*last);
            world.check_step(&before, *last);
        }
        world.check();
        Reached { seen: world.seen(), script }
    }
}

impl System for InUse {
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
        let Seen { held, waiting, .. } = &state.seen;
        let mut steps = self.more.to_vec();
        if held.len() + waiting.len() < self.callers {
            steps.extend(self.weights.iter().flat_map(|&weight| [Move::Take(weight), Move::Ask(weight)]));
        }
        let mut weights = held.clone();
        weights.dedup();
        steps.extend(weights.into_iter().map(Move::Release));
        for (place, caller) in waiting.iter().enumerate() {
            let poll = if caller.woken { Move::Poll(place) } else { Move::PollUnasked(place) };
            steps.extend([poll, Move::GiveUp(place)]);
        }
        steps.retain(|step| !matches!(step, Move::TakeLow(_)) || held.len() + waiting.len() < self.callers);
        steps
    }

    fn step(&self, state: &Reached, step: Move) -> Reached {
        self.play([&state.script[..], &[step]].concat())
    }

    fn is_home(&self, state: &Reached) -> bool {
        let Seen { slots: (in_use, queued, _), held, waiting } = &state.seen;
        (*in_use, *queued) == (0, 0) && held.is_empty() && waiting.is_empty()
    }

    /// Whoever waits is served by what the others give back, without giving up and without being polled unasked.
    fn leads_home(&self, step: Move) -> bool {
        matches!(step, Move::Release(_) | Move::Poll(_))
    }
}

const RESIZES: &[Move] = &[Move::Resize(1), Move::Resize(2), Move::Resize(3)];

/// 2 permits, and up to 4 waited for without end.
const fn base() -> Config {
    Config::new(2).with_queue(4, Duration::MAX)
}

#[test]
fn oldest_first() {
    let config = valid!(base().validate());
    explore("bulkhead, oldest first", 710, &InUse { config, callers: 5, weights: &[1, 2], more: RESIZES });
}

#[test]
fn newest_first() {
    let config = valid!(base().with_newest_first().validate());
    explore("bulkhead, newest first", 5_600, &InUse { config, callers: 5, weights: &[1, 2], more: RESIZES });
}

#[test]
fn for_a_limited_time() {
    let config = valid!(Config::new(1).with_queue(4, ms(2)).validate());
    explore("bulkhead, limited waits", 55, &InUse { config, callers: 5, weights: &[1], more: &[Move::Tick] });
}

#[test]
fn newest_first_for_a_limited_time() {
    let config = valid!(Config::new(1).with_queue(2, ms(2)).with_newest_first().validate());
    explore(
        "bulkhead, newest first, limited waits",
        360,
        &InUse { config, callers: 5, weights: &[1], more: &[Move::Tick] },
    );
}

#[test]
fn priorities() {
    let config = valid!(Config::new(3).with_queue(2, Duration::MAX).validate());
    let more = &[Move::TakeLow(1), Move::TakeLow(2), Move::TakeLow(3), Move::Resize(2), Move::Resize(3)];
    explore("bulkhead, priorities", 92, &InUse { config, callers: 5, weights: &[1, 3], more });
}
