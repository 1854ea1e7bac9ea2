use core::fmt::Write as _;
use core::pin::Pin;
use core::sync::atomic::{AtomicU32, Ordering};
use std::boxed::Box;
use std::collections::VecDeque;
use std::string::String;
use std::sync::Arc;
use std::thread;
use std::thread_local;
use std::vec::Vec;

use super::*;
use crate::cell::Local;
use crate::rng::Rng;
use crate::scripts::play;
use crate::testing::tests::{Endless, OnWake, Rig, Threaded, ThreadedQueue, Wakes, block_on, ms, poll_once};
use crate::testing::{Script, Step, VirtualExecutor};
use crate::time::Clock as _;
use crate::timeout::Timeout;
use crate::{Instant, Pipeline, valid};

mod exhaustive;

type Queued<const N: usize> = Bulkhead<Local, LocalQueue<N>>;
type Held<'b, const N: usize> = Permit<&'b Queued<N>, Local, LocalQueue<N>>;
type Wait<'b, const N: usize> = Pin<Box<Acquire<'b, Local, LocalQueue<N>, &'b Rig>>>;

/// Everybody waits for up to 100 ms.
/// Room for so many waiters, however heavy, as far as the storage goes.
fn queued<const N: usize>(permits: u32, waiters: u32) -> Queued<N> {
    let queue = permits.saturating_mul(waiters).min(MOST);
    Bulkhead::new(Config::new(permits).with_queue(queue, ms(100)).validate().expect("it makes sense"))
}

fn reason<T>(result: Result<T, Rejected>) -> Option<Reason> {
    result.err().map(|rejected| rejected.reason())
}

fn in_use_and_queued<K, Q>(bulkhead: &Bulkhead<K, Q>) -> (u32, u32)
where
    K: CellKind<Slots> + CellKind<Tally>,
    Q: WaitQueue,
{
    let Snapshot { in_use, queued, .. } = bulkhead.snapshot();
    (in_use, queued)
}

/// A bulkhead of 2 permits and 2 places in its queue, with those who hold and those who wait.
struct Scene<'b> {
    bulkhead: &'b Queued<2>,
    rig: &'b Rig,
    held: Vec<Held<'b, 2>>,
    waiting: Vec<(Arc<Wakes>, Wait<'b, 2>)>,
}

impl Scene<'_> {
    /// Does what a row or a column of the table says, and tells what came of it.
    fn apply(&mut self, event: &str) -> String {
        let (name, number) = event.split_once(' ').unwrap_or((event, "1"));
        let number = number.parse().expect("a number");
        match name {
            "take" => self.take(number),
            "wait" => self.wait(number),
            "release" => self.release(),
            "resize" => describe(&self.bulkhead.resize(number).map_err(|error| error.problem())),
            "cancel" => self.cancel(),
            "late" => self.late(),
            _ => unreachable!("{event}"),
        }
    }

    fn take(&mut self, weight: u32) -> String {
        match self.bulkhead.try_acquire_many(weight) {
            Ok(permit) => {
                self.held.push(permit);
                "taken".into()
            }
            Err(rejected) => describe(&rejected.reason()),
        }
    }

    fn wait(&mut self, weight: u32) -> String {
        let (wakes, waker) = Wakes::new();
        let mut acquire = Box::pin(self.bulkhead.acquire(weight, self.rig));
        match acquire.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(Ok(permit)) => {
                self.held.push(permit);
                "taken".into()
            }
            Poll::Ready(Err(rejected)) => describe(&rejected.reason()),
            Poll::Pending => {
                self.waiting.push((wakes, acquire));
                "waits".into()
            }
        }
    }

    fn release(&mut self) -> String {
        if self.held.is_empty() {
            return "-".into();
        }
        drop(self.held.remove(0));
        "released".into()
    }

    fn cancel(&mut self) -> String {
        if self.waiting.is_empty() {
            return "-".into();
        }
        drop(self.waiting.remove(0));
        "cancelled".into()
    }

    /// The longest wait is over, and everybody looks.
    fn late(&mut self) -> String {
        self.rig.advance(ms(100));
        let mut answers = Vec::new();
        for (_, mut acquire) in self.waiting.drain(..) {
            answers.push(match poll_once(acquire.as_mut()) {
                Poll::Ready(Ok(permit)) => {
                    self.held.push(permit);
                    "taken".into()
                }
                Poll::Ready(Err(rejected)) => describe(&rejected.reason()),
                Poll::Pending => String::from("waits"),
            });
        }
        if answers.is_empty() { "-".into() } else { answers.join(", ") }
    }
}

fn describe(value: &impl core::fmt::Debug) -> String {
    std::format!("{value:?}")
}

const STATES: [(&str, &[&str]); 8] = [
    ("empty", &[]),
    ("one in use", &["take"]),
    ("full", &["take", "take"]),
    ("one waits", &["take", "take", "wait"]),
    ("two wait", &["take", "take", "wait", "wait"]),
    ("granted, unpolled", &["take", "take", "wait", "release"]),
    ("heavy waits", &["take", "wait 2", "wait"]),
    ("shrunk below use", &["take", "take", "resize 1"]),
];

const EVENTS: [&str; 9] = ["take", "take 0", "take 3", "wait", "release", "cancel", "late", "resize 3", "resize 1"];

fn table() -> String {
    let mut text = String::new();
    for (state, script) in STATES {
        for event in EVENTS {
            let (bulkhead, rig) = (queued::<2>(2, 2), Rig::new());
            let mut scene = Scene { bulkhead: &bulkhead, rig: &rig, held: Vec::new(), waiting: Vec::new() };
            for step in script {
                scene.apply(step);
            }
            let before: Vec<_> = scene.waiting.iter().map(|(wakes, _)| (wakes.clone(), wakes.count())).collect();
            let answer = scene.apply(event);
            let woken = before.iter().filter(|(wakes, before)| wakes.count() > *before).count();
            let Snapshot { permits, in_use, queued, .. } = bulkhead.snapshot();
            let after = std::format!("{in_use} of {permits} in use, {queued} wait, {woken} woken");
            writeln!(text, "{state:<17} | {event:<8} | {answer:<26} | {after}").expect("a string takes it");
            drop(scene);
            assert_eq!(in_use_and_queued(&bulkhead), (0, 0), "{state}, {event}: something leaks");
            assert_eq!(rig.live(), 0, "{state}, {event}: a timer is left");
        }
    }
    text
}

#[test]
fn every_event_in_every_state_does_what_the_table_says() {
    let table = table();
    assert!(table.trim() == TABLE.trim(), "the table is now:\n{table}");
}

const TABLE: &str = "
empty             | take     | taken                      | 1 of 2 in use, 0 wait, 0 woken
empty             | take 0   | taken                      | 0 of 2 in use, 0 wait, 0 woken
empty             | take 3   | TooHeavy                   | 0 of 2 in use, 0 wait, 0 woken
empty             | wait     | taken                      | 1 of 2 in use, 0 wait, 0 woken
empty             | release  | -                          | 0 of 2 in use, 0 wait, 0 woken
empty             | cancel   | -                          | 0 of 2 in use, 0 wait, 0 woken
empty             | late     | -                          | 0 of 2 in use, 0 wait, 0 woken
empty             | resize 3 | Ok(())                     | 0 of 3 in use, 0 wait, 0 woken
empty             | resize 1 | Ok(())                     | 0 of 1 in use, 0 wait, 0 woken
one in use        | take     | taken                      | 2 of 2 in use, 0 wait, 0 woken
one in use        | take 0   | taken                      | 1 of 2 in use, 0 wait, 0 woken
one in use        | take 3   | TooHeavy                   | 1 of 2 in use, 0 wait, 0 woken
one in use        | wait     | taken                      | 2 of 2 in use, 0 wait, 0 woken
one in use        | release  | released                   | 0 of 2 in use, 0 wait, 0 woken
one in use        | cancel   | -                          | 1 of 2 in use, 0 wait, 0 woken
one in use        | late     | -                          | 1 of 2 in use, 0 wait, 0 woken
one in use        | resize 3 | Ok(())                     | 1 of 3 in use, 0 wait, 0 woken
one in use        | resize 1 | Ok(())                     | 1 of 1 in use, 0 wait, 0 woken
full              | take     | Full                       | 2 of 2 in use, 0 wait, 0 woken
full              | take 0   | taken                      | 2 of 2 in use, 0 wait, 0 woken
full              | take 3   | TooHeavy                   | 2 of 2 in use, 0 wait, 0 woken
full              | wait     | waits                      | 2 of 2 in use, 1 wait, 0 woken
full              | release  | released                   | 1 of 2 in use, 0 wait, 0 woken
full              | cancel   | -                          | 2 of 2 in use, 0 wait, 0 woken
full              | late     | -                          | 2 of 2 in use, 0 wait, 0 woken
full              | resize 3 | Ok(())                     | 2 of 3 in use, 0 wait, 0 woken
full              | resize 1 | Ok(())                     | 2 of 1 in use, 0 wait, 0 woken
one waits         | take     | Full                       | 2 of 2 in use, 1 wait, 0 woken
one waits         | take 0   | taken                      | 2 of 2 in use, 1 wait, 0 woken
one waits         | take 3   | TooHeavy                   | 2 of 2 in use, 1 wait, 0 woken
one waits         | wait     | waits                      | 2 of 2 in use, 2 wait, 0 woken
one waits         | release  | released                   | 2 of 2 in use, 0 wait, 1 woken
one waits         | cancel   | cancelled                  | 2 of 2 in use, 0 wait, 0 woken
one waits         | late     | QueueTimeout               | 2 of 2 in use, 0 wait, 1 woken
one waits         | resize 3 | Ok(())                     | 3 of 3 in use, 0 wait, 1 woken
one waits         | resize 1 | Ok(())                     | 2 of 1 in use, 1 wait, 0 woken
two wait          | take     | Full                       | 2 of 2 in use, 2 wait, 0 woken
two wait          | take 0   | taken                      | 2 of 2 in use, 2 wait, 0 woken
two wait          | take 3   | TooHeavy                   | 2 of 2 in use, 2 wait, 0 woken
two wait          | wait     | QueueFull                  | 2 of 2 in use, 2 wait, 0 woken
two wait          | release  | released                   | 2 of 2 in use, 1 wait, 1 woken
two wait          | cancel   | cancelled                  | 2 of 2 in use, 1 wait, 0 woken
two wait          | late     | QueueTimeout, QueueTimeout | 2 of 2 in use, 0 wait, 2 woken
two wait          | resize 3 | Ok(())                     | 3 of 3 in use, 1 wait, 1 woken
two wait          | resize 1 | Ok(())                     | 2 of 1 in use, 2 wait, 0 woken
granted, unpolled | take     | Full                       | 2 of 2 in use, 0 wait, 0 woken
granted, unpolled | take 0   | taken                      | 2 of 2 in use, 0 wait, 0 woken
granted, unpolled | take 3   | TooHeavy                   | 2 of 2 in use, 0 wait, 0 woken
granted, unpolled | wait     | waits                      | 2 of 2 in use, 1 wait, 0 woken
granted, unpolled | release  | released                   | 1 of 2 in use, 0 wait, 0 woken
granted, unpolled | cancel   | cancelled                  | 1 of 2 in use, 0 wait, 0 woken
granted, unpolled | late     | taken                      | 2 of 2 in use, 0 wait, 1 woken
granted, unpolled | resize 3 | Ok(())                     | 2 of 3 in use, 0 wait, 0 woken
granted, unpolled | resize 1 | Ok(())                     | 2 of 1 in use, 0 wait, 0 woken
heavy waits       | take     | Full                       | 1 of 2 in use, 3 wait, 0 woken
heavy waits       | take 0   | taken                      | 1 of 2 in use, 3 wait, 0 woken
heavy waits       | take 3   | TooHeavy                   | 1 of 2 in use, 3 wait, 0 woken
heavy waits       | wait     | QueueFull                  | 1 of 2 in use, 3 wait, 0 woken
heavy waits       | release  | released                   | 2 of 2 in use, 1 wait, 1 woken
heavy waits       | cancel   | cancelled                  | 2 of 2 in use, 0 wait, 1 woken
heavy waits       | late     | QueueTimeout, taken        | 2 of 2 in use, 0 wait, 2 woken
heavy waits       | resize 3 | Ok(())                     | 3 of 3 in use, 1 wait, 1 woken
heavy waits       | resize 1 | Ok(())                     | 1 of 1 in use, 3 wait, 1 woken
shrunk below use  | take     | Full                       | 2 of 1 in use, 0 wait, 0 woken
shrunk below use  | take 0   | taken                      | 2 of 1 in use, 0 wait, 0 woken
shrunk below use  | take 3   | TooHeavy                   | 2 of 1 in use, 0 wait, 0 woken
shrunk below use  | wait     | waits                      | 2 of 1 in use, 1 wait, 0 woken
shrunk below use  | release  | released                   | 1 of 1 in use, 0 wait, 0 woken
shrunk below use  | cancel   | -                          | 2 of 1 in use, 0 wait, 0 woken
shrunk below use  | late     | -                          | 2 of 1 in use, 0 wait, 0 woken
shrunk below use  | resize 3 | Ok(())                     | 2 of 3 in use, 0 wait, 0 woken
shrunk below use  | resize 1 | Ok(())                     | 2 of 1 in use, 0 wait, 0 woken
";

#[test]
fn a_configuration_that_makes_no_sense_is_refused() {
    let field = |config: Config| config.validate().err().map(|error| error.field());
    assert_eq!(field(Config::new(0)), Some("permits"));
    assert_eq!(field(Config::new(MOST)), None);
    assert_eq!(field(Config::new(MOST + 1)), Some("permits"));
    assert_eq!(field(Config::new(u32::MAX)), Some("permits"));
    let zero = Config::new(0).validate().err().map(|error| error.problem());
    assert_eq!(zero, Some("is zero: nothing could ever pass"));
    assert_eq!(field(Config::new(1).with_queue(MOST, Duration::MAX)), None);
    assert_eq!(field(Config::new(1).with_queue(MOST + 1, Duration::ZERO)), Some("queue"));
}

#[test]
fn a_resize_that_makes_no_sense_changes_nothing() {
    let bulkhead = queued::<1>(3, 1);
    for permits in [0, MOST + 1, u32::MAX] {
        assert_eq!(bulkhead.resize(permits).map_err(|error| error.field()), Err("permits"));
    }
    assert_eq!(bulkhead.snapshot().permits, 3);
}

#[test]
fn the_most_permits_can_be_taken_and_no_more() {
    let bulkhead = queued::<1>(MOST, 0);
    let all = bulkhead.try_acquire_many(MOST).expect("all are free");
    assert_eq!(reason(bulkhead.try_acquire()), Some(Reason::Full));
    assert_eq!(reason(bulkhead.try_acquire_many(u32::MAX)), Some(Reason::TooHeavy));
    assert_eq!(bulkhead.snapshot().high_water, MOST);
    drop(all);
    assert_eq!(in_use_and_queued(&bulkhead), (0, 0));
}

#[test]
fn a_weight_of_zero_passes_a_full_bulkhead_and_those_who_wait() {
    let (bulkhead, rig) = (queued::<2>(1, 2), Rig::new());
    let _held = bulkhead.try_acquire().expect("one is free");
    let mut waiting = pin_acquire(&bulkhead, 1, &rig);
    assert!(poll_once(waiting.as_mut()).is_pending());
    assert!(bulkhead.try_acquire_many(0).is_ok());
    assert!(matches!(poll_once(pin_acquire(&bulkhead, 0, &rig).as_mut()), Poll::Ready(Ok(_))));
    assert_eq!(in_use_and_queued(&bulkhead), (1, 1));
}

fn pin_acquire<'b, const N: usize>(bulkhead: &'b Queued<N>, weight: u32, rig: &'b Rig) -> Wait<'b, N> {
    Box::pin(bulkhead.acquire(weight, rig))
}

#[test]
fn nothing_happens_before_an_acquire_is_polled() {
    let (bulkhead, rig) = (queued::<2>(1, 2), Rig::new());
    drop(pin_acquire(&bulkhead, 1, &rig));
    let _waiting = pin_acquire(&bulkhead, 1, &rig);
    assert_eq!(in_use_and_queued(&bulkhead), (0, 0));
}

#[test]
fn permits_that_are_free_cost_neither_clock_nor_timer() {
    let (bulkhead, rig) = (queued::<2>(1, 2), Rig::new());
    assert!(matches!(poll_once(pin_acquire(&bulkhead, 1, &rig).as_mut()), Poll::Ready(Ok(_))));
    assert_eq!((rig.reads(), rig.sleeps()), (0, 0));
}

#[test]
fn waiting_for_ever_arms_no_timer() {
    let rig = Rig::new();
    let bulkhead: Queued<1> = Bulkhead::new(valid!(Config::new(1).with_queue(1, Duration::MAX).validate()));
    let held = bulkhead.try_acquire().expect("one is free");
    let mut waiting = pin_acquire(&bulkhead, 1, &rig);
    assert!(poll_once(waiting.as_mut()).is_pending());
    rig.set(Instant::MAX);
    assert!(poll_once(waiting.as_mut()).is_pending());
    assert_eq!((rig.reads(), rig.sleeps()), (0, 0));
    drop(held);
    assert!(matches!(poll_once(waiting.as_mut()), Poll::Ready(Ok(_))));
}

#[test]
fn a_longest_wait_of_zero_rejects_at_once() {
    let rig = Rig::new();
    let bulkhead: Queued<1> = Bulkhead::new(valid!(Config::new(1).with_queue(1, Duration::ZERO).validate()));
    let _held = bulkhead.try_acquire().expect("one is free");
    match poll_once(pin_acquire(&bulkhead, 1, &rig).as_mut()) {
        Poll::Ready(result) => assert_eq!(reason(result), Some(Reason::Full)),
        Poll::Pending => unreachable!("it would wait"),
    }
    assert_eq!((in_use_and_queued(&bulkhead), rig.sleeps()), ((1, 0), 0), "without a timer");
}

#[test]
fn a_timer_that_fires_early_is_armed_again_and_nobody_is_rejected_before_the_time() {
    let (bulkhead, rig) = (queued::<1>(1, 1), Rig::new());
    let _held = bulkhead.try_acquire().expect("one is free");
    rig.fire_early(ms(30));
    assert_eq!(reason(rig.run(bulkhead.acquire(1, &rig))), Some(Reason::QueueTimeout));
    assert_eq!((rig.elapsed(), rig.sleeps(), rig.live()), (ms(100), 2, 0));
}

#[test]
fn permits_that_come_in_the_same_poll_as_the_timeout_win() {
    let (bulkhead, rig) = (queued::<1>(1, 1), Rig::new());
    let held = bulkhead.try_acquire().expect("one is free");
    let mut waiting = pin_acquire(&bulkhead, 1, &rig);
    assert!(poll_once(waiting.as_mut()).is_pending());
    rig.advance(ms(100));
    drop(held);
    assert!(matches!(poll_once(waiting.as_mut()), Poll::Ready(Ok(_))));
    assert_eq!(bulkhead.snapshot().rejected, 0);
}

#[test]
fn permits_that_come_after_the_timeout_go_to_the_next() {
    let (bulkhead, rig) = (queued::<2>(1, 2), Rig::new());
    let held = bulkhead.try_acquire().expect("one is free");
    let mut first = pin_acquire(&bulkhead, 1, &rig);
    assert!(poll_once(first.as_mut()).is_pending());
    rig.advance(ms(50));
    let (wakes, waker) = Wakes::new();
    let mut second = pin_acquire(&bulkhead, 1, &rig);
    assert!(second.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    rig.advance(ms(50));
    assert!(matches!(poll_once(first.as_mut()), Poll::Ready(Err(_))));
    drop(held);
    assert_eq!(wakes.count(), 1);
    assert!(matches!(poll_once(second.as_mut()), Poll::Ready(Ok(_))));
}

#[test]
fn a_newcomer_does_not_overtake_those_who_wait() {
    let (bulkhead, rig) = (queued::<2>(2, 2), Rig::new());
    let held = bulkhead.try_acquire().expect("it is free");
    let mut heavy = pin_acquire(&bulkhead, 2, &rig);
    assert!(poll_once(heavy.as_mut()).is_pending());
    assert_eq!(reason(bulkhead.try_acquire()), Some(Reason::Full), "one is free, but somebody waits for two");
    let mut light = pin_acquire(&bulkhead, 1, &rig);
    assert!(poll_once(light.as_mut()).is_pending());
    drop(held);
    let Poll::Ready(Ok(both)) = poll_once(heavy.as_mut()) else { unreachable!("the heavy one was first") };
    assert!(poll_once(light.as_mut()).is_pending());
    drop(both);
    assert!(matches!(poll_once(light.as_mut()), Poll::Ready(Ok(_))));
}

#[test]
fn a_heavy_waiter_that_leaves_lets_the_light_ones_behind_it_through() {
    let (bulkhead, rig) = (queued::<3>(3, 3), Rig::new());
    let _held = bulkhead.try_acquire().expect("it is free");
    let mut heavy = pin_acquire(&bulkhead, 3, &rig);
    assert!(poll_once(heavy.as_mut()).is_pending());
    let (wakes, waker) = Wakes::new();
    let mut light: Vec<_> = (0..2).map(|_| pin_acquire(&bulkhead, 1, &rig)).collect();
    for acquire in &mut light {
        assert!(acquire.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    drop(heavy);
    assert_eq!(wakes.count(), 2);
    assert!(light.iter_mut().all(|acquire| matches!(poll_once(acquire.as_mut()), Poll::Ready(Ok(_)))));
}

#[test]
fn the_waker_of_the_last_poll_is_woken_and_no_other() {
    let (bulkhead, rig) = (queued::<1>(1, 1), Rig::new());
    let held = bulkhead.try_acquire().expect("it is free");
    let ((old_wakes, old), (new_wakes, new)) = (Wakes::new(), Wakes::new());
    let mut waiting = pin_acquire(&bulkhead, 1, &rig);
    for waker in [&old, &old, &new] {
        assert!(waiting.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
    }
    drop(held);
    assert_eq!((old_wakes.count(), new_wakes.count()), (0, 1));
}

#[test]
fn a_waker_is_let_go_when_its_waiter_is_served_or_gone() {
    let (bulkhead, rig) = (queued::<2>(1, 2), Rig::new());
    let held = bulkhead.try_acquire().expect("it is free");
    let ((first_wakes, first), (second_wakes, second)) = (Wakes::new(), Wakes::new());
    let mut waiting = [pin_acquire(&bulkhead, 1, &rig), pin_acquire(&bulkhead, 1, &rig)];
    for (acquire, waker) in waiting.iter_mut().zip([first, second]) {
        assert!(acquire.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    drop(held);
    drop(waiting);
    assert_eq!((Arc::strong_count(&first_wakes), Arc::strong_count(&second_wakes)), (1, 1));
}

#[test]
fn a_waker_may_come_back_into_the_bulkhead() {
    static BULKHEAD: Bulkhead<Threaded, ThreadedQueue<2>> =
        Bulkhead::new(valid!(Config::new(1).with_queue(2, Duration::MAX).validate()));
    static SEEN: AtomicU32 = AtomicU32::new(0);
    let rig = Rig::new();
    let held = BULKHEAD.try_acquire().expect("it is free");
    let waker = Waker::from(Arc::new(OnWake(|| {
        // Every way in: a lock still held would never be given.
        let queued = BULKHEAD.snapshot().queued;
        let rejected = BULKHEAD.try_acquire().is_err();
        let resized = BULKHEAD.resize(1).is_ok();
        SEEN.store(10 * queued + u32::from(rejected && resized), Ordering::SeqCst);
    })));
    let mut waiting = [Box::pin(BULKHEAD.acquire(1, &rig)), Box::pin(BULKHEAD.acquire(1, &rig))];
    for acquire in &mut waiting {
        assert!(acquire.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    drop(held);
    assert_eq!(SEEN.load(Ordering::SeqCst), 11, "the other one still waits, and the permit is given away");
    drop(waiting);
    assert_eq!(in_use_and_queued(&BULKHEAD), (0, 0));
}

#[test]
fn growing_serves_all_who_now_fit_in_their_order() {
    let (bulkhead, rig) = (queued::<4>(1, 4), Rig::new());
    let _held = bulkhead.try_acquire().expect("it is free");
    let (wakes, waker) = Wakes::new();
    let mut waiting: Vec<_> = (0..4).map(|_| pin_acquire(&bulkhead, 1, &rig)).collect();
    for acquire in &mut waiting {
        assert!(acquire.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    bulkhead.resize(3).expect("it makes sense");
    assert_eq!((wakes.count(), in_use_and_queued(&bulkhead)), (2, (3, 2)));
    let polled: Vec<_> = waiting.iter_mut().map(|acquire| poll_once(acquire.as_mut())).collect();
    let served: Vec<_> = polled.iter().map(Poll::is_ready).collect();
    assert_eq!(served, [true, true, false, false]);
}

#[test]
fn shrinking_lets_the_surplus_drain_and_serves_nobody_meanwhile() {
    let (bulkhead, rig) = (queued::<4>(3, 4), Rig::new());
    let mut held: Vec<_> = (0..3).map(|_| bulkhead.try_acquire().expect("it is free")).collect();
    let mut waiting = pin_acquire(&bulkhead, 1, &rig);
    assert!(poll_once(waiting.as_mut()).is_pending());
    bulkhead.resize(1).expect("it makes sense");
    for left in [2, 1] {
        held.pop();
        assert_eq!(in_use_and_queued(&bulkhead), (left, 1));
    }
    held.pop();
    assert_eq!(in_use_and_queued(&bulkhead), (1, 0));
    assert!(matches!(poll_once(waiting.as_mut()), Poll::Ready(Ok(_))));
}

#[test]
fn those_who_have_become_too_heavy_are_woken_to_find_that_out() {
    let (bulkhead, rig) = (queued::<3>(2, 3), Rig::new());
    let held = bulkhead.try_acquire().expect("it is free");
    let (wakes, waker) = Wakes::new();
    let mut heavy: Vec<_> = (0..2).map(|_| pin_acquire(&bulkhead, 2, &rig)).collect();
    for acquire in &mut heavy {
        assert!(acquire.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    let mut light = pin_acquire(&bulkhead, 1, &rig);
    assert!(poll_once(light.as_mut()).is_pending());
    bulkhead.resize(1).expect("it makes sense");
    assert_eq!(wakes.count(), 2);
    drop(held);
    for acquire in &mut heavy {
        let Poll::Ready(result) = poll_once(acquire.as_mut()) else { unreachable!("it waits for ever") };
        assert_eq!(reason(result), Some(Reason::TooHeavy));
    }
    assert!(matches!(poll_once(light.as_mut()), Poll::Ready(Ok(_))));
}

/// As when they run on other threads: each leaves as soon as it is woken, before the next one is.
#[test]
fn the_too_heavy_are_all_woken_even_if_each_leaves_at_once() {
    thread_local! {
        static BULKHEAD: &'static Queued<4> = Box::leak(Box::new(queued(2, 4)));
        static RIG: &'static Rig = Box::leak(Box::new(Rig::new()));
        static HEAVY: core::cell::RefCell<Vec<Option<Wait<'static, 4>>>> = const { core::cell::RefCell::new(Vec::new()) };
    }
    let (bulkhead, rig) = (BULKHEAD.with(|it| *it), RIG.with(|it| *it));
    let _held = bulkhead.try_acquire().expect("it is free");
    for index in 0..4 {
        let leave = move || drop(HEAVY.with_borrow_mut(|heavy| heavy[index].take()));
        let mut acquire = pin_acquire(bulkhead, 2, rig);
        let waker = Waker::from(Arc::new(OnWake(leave)));
        assert!(acquire.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        HEAVY.with_borrow_mut(|heavy| heavy.push(Some(acquire)));
    }
    bulkhead.resize(1).expect("it makes sense");
    let left = HEAVY.with_borrow(|heavy| heavy.iter().flatten().count());
    assert_eq!((left, in_use_and_queued(bulkhead)), (0, (1, 0)), "somebody was not woken");
}

/// A queue that lets somebody else in just before it is locked.
struct Interrupted(LocalQueue<4>);

thread_local! {
    static BEFORE_LOCK: Cell<Option<fn()>> = const { Cell::new(None) };
    static INTERRUPTED: &'static Bulkhead<Local, Interrupted> = Box::leak(Box::new(Bulkhead::new(valid!(
        Config::new(2).with_queue(4, Duration::MAX).validate()
    ))));
}

impl WaitQueue for Interrupted {
    type Line = VecLine<4>;

    const NEW: Self = Self(LocalQueue::NEW);

    fn lock<R>(&self, f: impl FnOnce(&mut VecLine<4>) -> R) -> R {
        if let Some(interrupt) = BEFORE_LOCK.take() {
            interrupt();
        }
        self.0.lock(f)
    }
}

#[test]
fn a_shrink_during_a_poll_with_another_waker_is_not_missed() {
    let (bulkhead, rig) = (INTERRUPTED.with(|it| *it), Rig::new());
    let _held = bulkhead.try_acquire().expect("it is free");
    let mut heavy = Box::pin(bulkhead.acquire(2, &rig));
    assert!(poll_once(heavy.as_mut()).is_pending());
    BEFORE_LOCK.set(Some(|| INTERRUPTED.with(|it| it.resize(1)).expect("it makes sense")));
    let (wakes, waker) = Wakes::new();
    let polled = heavy.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(polled.is_ready() || wakes.count() > 0, "the shrink woke the old waker only");
}

#[test]
fn a_release_before_the_queue_is_locked_is_not_missed() {
    type Held = Permit<&'static Bulkhead<Local, Interrupted>, Local, Interrupted>;
    thread_local! {
        static HELD: Cell<Option<Held>> =
            const { Cell::new(None) };
    }
    let (bulkhead, rig) = (INTERRUPTED.with(|it| *it), Rig::new());
    HELD.set(bulkhead.try_acquire_many(2).ok());
    BEFORE_LOCK.set(Some(|| drop(HELD.take())));
    assert!(poll_once(Box::pin(bulkhead.acquire(1, &rig)).as_mut()).is_ready());
    HELD.set(bulkhead.try_acquire_many(2).ok());
    let mut waiting = Box::pin(bulkhead.acquire(1, &rig));
    assert!(poll_once(waiting.as_mut()).is_pending());
    BEFORE_LOCK.set(Some(|| drop(HELD.take())));
    assert!(poll_once(waiting.as_mut()).is_ready());
}

#[test]
fn a_queue_that_stores_less_than_configured_is_full_when_its_storage_is() {
    let (bulkhead, rig) = (queued::<2>(1, 100), Rig::new());
    let held = bulkhead.try_acquire().expect("it is free");
    let mut waiting: Vec<_> = (0..2).map(|_| pin_acquire(&bulkhead, 1, &rig)).collect();
    assert!(waiting.iter_mut().all(|acquire| poll_once(acquire.as_mut()).is_pending()));
    for _ in 0..3 {
        let Poll::Ready(result) = poll_once(pin_acquire(&bulkhead, 1, &rig).as_mut()) else { unreachable!("no room") };
        assert_eq!(reason(result), Some(Reason::QueueFull));
    }
    assert_eq!((in_use_and_queued(&bulkhead), bulkhead.snapshot().rejected), ((1, 2), 3));
    drop((held, waiting));
    assert_eq!(in_use_and_queued(&bulkhead), (0, 0));
}

#[test]
fn the_newest_first_leaves_a_full_queue_to_newcomers_and_rejects_the_oldest() {
    let config = valid!(Config::new(2).with_queue(2, Duration::MAX).with_newest_first().validate());
    let (bulkhead, rig) = (Queued::<2>::new(config), Rig::new());
    let held = bulkhead.try_acquire_many(2).expect("they are free");
    let mut waiting: Vec<_> = (0..3).map(|_| pin_acquire(&bulkhead, 1, &rig)).collect();
    assert!(waiting.iter_mut().all(|acquire| poll_once(acquire.as_mut()).is_pending()));
    let mut polled = waiting.iter_mut().map(|acquire| poll_once(acquire.as_mut()));
    let Some(Poll::Ready(oldest)) = polled.next() else { unreachable!("the third took its place") };
    assert_eq!((reason(oldest), polled.all(|polled| polled.is_pending())), (Some(Reason::Evicted), true));
    // As heavy as the whole queue, but not heavier.
    let mut heavy = pin_acquire(&bulkhead, 2, &rig);
    assert!(poll_once(heavy.as_mut()).is_pending());
    assert_eq!(in_use_and_queued(&bulkhead), (2, 2));
    drop(held);
    let Poll::Ready(Ok(permit)) = poll_once(heavy.as_mut()) else { unreachable!("it is the newest") };
    drop(permit);
    let evicted = waiting.iter_mut().skip(1).map(|acquire| poll_once(acquire.as_mut()));
    assert!(evicted.into_iter().all(|polled| matches!(polled, Poll::Ready(Err(_)))));
    assert_eq!(in_use_and_queued(&bulkhead), (0, 0));
}

#[test]
fn of_the_newest_first_too_whoever_leaves_gives_back_what_it_was_given_and_no_more() {
    let config = valid!(Config::new(2).with_queue(1, Duration::MAX).with_newest_first().validate());
    let (bulkhead, rig) = (Queued::<2>::new(config), Rig::new());
    let (held, other) = (bulkhead.try_acquire().expect("it is free"), bulkhead.try_acquire().expect("it is free"));
    let mut evicted = pin_acquire(&bulkhead, 1, &rig);
    let mut served = pin_acquire(&bulkhead, 1, &rig);
    assert!(poll_once(evicted.as_mut()).is_pending());
    assert!(poll_once(served.as_mut()).is_pending());
    drop(evicted);
    assert_eq!(in_use_and_queued(&bulkhead), (2, 1), "it had nothing, and had lost its place");
    drop(held);
    assert_eq!(in_use_and_queued(&bulkhead), (2, 0), "the one that waits has got it");
    drop(served);
    assert_eq!(in_use_and_queued(&bulkhead), (1, 0), "and gives it back, though it never noticed");
    drop(other);
    assert_eq!(in_use_and_queued(&bulkhead), (0, 0));
}

#[test]
fn a_bulkhead_without_a_queue_rejects_those_who_would_wait() {
    let rig = Rig::new();
    for (queue, expected) in [(0, Reason::Full), (5, Reason::QueueFull)] {
        let config = Config::new(1).with_queue(queue, Duration::MAX).validate().expect("it makes sense");
        let bulkhead: Bulkhead<Local> = Bulkhead::new(config);
        let _held = bulkhead.try_acquire().expect("it is free");
        let Poll::Ready(result) = poll_once(Box::pin(bulkhead.acquire(1, &rig)).as_mut()) else {
            unreachable!("there is nowhere to wait")
        };
        assert_eq!((reason(result), in_use_and_queued(&bulkhead)), (Some(expected), (1, 0)));
    }
}

#[test]
fn a_leaked_permit_stays_in_use_and_shows() {
    let bulkhead = queued::<1>(2, 0);
    core::mem::forget(bulkhead.try_acquire().expect("it is free"));
    assert_eq!(in_use_and_queued(&bulkhead), (1, 0));
    assert!(bulkhead.try_acquire().is_ok());
}

#[test]
fn a_permit_moves_into_other_work_with_an_arc() {
    let bulkhead = Arc::new(Bulkhead::<Threaded, ThreadedQueue<1>>::new(valid!(Config::new(1).validate())));
    let permit = Permit::try_acquire(Arc::clone(&bulkhead), 1).expect("it is free");
    let work = thread::spawn(move || drop(permit));
    work.join().expect("it ends");
    assert_eq!(in_use_and_queued(&bulkhead), (0, 0));
}

#[test]
fn the_rejected_are_counted_without_wrapping_into_the_cells_own_bit() {
    let bulkhead: Bulkhead<Local> = Bulkhead::new(valid!(Config::new(1).validate()));
    bulkhead.tally.replace(Tally { high_water: 7, rejected: Tally::MOST_REJECTED - 1 });
    for _ in 0..3 {
        assert!(bulkhead.try_acquire_many(2).is_err());
    }
    assert_eq!(bulkhead.snapshot().rejected, Tally::MOST_REJECTED);
    assert_eq!(bulkhead.snapshot().high_water, 7);
}

#[test]
fn states_survive_packing_start_as_zero_and_leave_the_cells_bit_alone() {
    assert_eq!((Slots::FRESH.pack(), Tally::FRESH.pack()), ((0, 0), (0, 0)));
    let mut rng = Rng::new(3);
    let mut part = || [0, 1, MOST, MOST - 1, rng.next() & MOST][rng.next() as usize % 5];
    for _ in 0..1_000 {
        let slots = Slots { in_use: part(), queued: part(), resized: part() };
        let (head, tail) = slots.pack();
        assert_eq!((Slots::unpack(head, tail), head >> 63, tail, Slots::has_tail(head)), (slots, 0, 0, false));
        let tally = Tally { high_water: part(), rejected: Tally::MOST_REJECTED - part() };
        let (head, tail) = tally.pack();
        assert_eq!((Tally::unpack(head, tail), head >> 63, tail, Tally::has_tail(head)), (tally, 0, 0, false));
    }
}

#[test]
fn a_state_is_a_few_words_and_a_bulkhead_hardly_more() {
    assert_eq!((size_of::<Slots>(), size_of::<Tally>(), size_of::<Config>()), (12, 8, 24));
    assert_eq!(size_of::<Bulkhead<Local>>(), 48);
}

#[test]
fn compartments_are_found_by_name_and_do_not_share_permits() {
    let one = || Bulkhead::<Local>::new(valid!(Config::new(1).validate()));
    let compartments = Compartments::new([("db", one()), ("mail", one())]).expect("the names differ");
    let db = compartments.get("db").expect("it is there");
    let _held = db.try_acquire().expect("it is free");
    assert!(db.try_acquire().is_err());
    assert!(compartments.get("mail").expect("it is there").try_acquire().is_ok());
    assert_eq!(compartments.get("fax").err(), Some(UnknownCompartment("fax")));
    assert_eq!(std::format!("{}", UnknownCompartment("fax")), "there is no compartment `fax`");
    let in_use: Vec<_> = compartments.iter().map(|(name, bulkhead)| (name, bulkhead.snapshot().in_use)).collect();
    assert_eq!(in_use, [("db", 1), ("mail", 0)]);
}

#[test]
fn a_name_that_is_there_twice_is_refused_wherever_it_stands() {
    let one = || Bulkhead::<Local>::new(valid!(Config::new(1).validate()));
    for names in [["a", "a", "b"], ["a", "b", "a"], ["b", "a", "a"]] {
        let twice = Compartments::<Local, NoQueue, 3>::new(names.map(|name| (name, one())));
        assert_eq!(twice.err().map(|error| error.field()), Some("name"));
    }
}

crate::compartments! {
    struct Buses of Bulkhead<Threaded, ThreadedQueue<1>>;
    enum Bus { Sensors = Config::new(2), Display = Config::new(1).with_queue(1, Duration::MAX) }
}

#[test]
fn compartments_named_by_an_enum_live_in_a_static() {
    static BUSES: Buses = Buses::new();
    let _held = BUSES.get(Bus::Display).try_acquire().expect("it is free");
    assert!(BUSES.get(Bus::Display).try_acquire().is_err());
    assert_eq!(BUSES.get(Bus::Sensors).snapshot().permits, 2);
}

#[test]
fn calls_in_a_pipeline_take_turns() {
    let executor = VirtualExecutor::new();
    let bulkhead = queued::<4>(2, 4);
    let steps = [Step::SucceedAfter(ms(10))];
    let service = Script::new(&steps);
    let pipeline = Pipeline::new(&executor).layer(&bulkhead);
    let mut calls: Vec<_> = (0..6).map(|_| Box::pin(pipeline.call(|_| service.call(&executor)))).collect();
    let mut ended = Vec::new();
    let all = core::future::poll_fn(|cx| {
        calls.retain_mut(|call| match call.as_mut().poll(cx) {
            Poll::Ready(result) => {
                ended.push((result.expect("it works"), executor.elapsed()));
                false
            }
            Poll::Pending => true,
        });
        if calls.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    });
    assert_eq!(executor.run(all), Ok(()));
    assert_eq!(ended, [(1, ms(10)), (2, ms(10)), (3, ms(20)), (4, ms(20)), (5, ms(30)), (6, ms(30))]);
    assert_eq!((service.high_water(), bulkhead.snapshot().high_water), (2, 2));
}

#[test]
fn a_timeout_around_a_bulkhead_takes_its_call_out_of_the_queue() {
    let (bulkhead, rig) = (queued::<2>(1, 2), Rig::new());
    let _held = bulkhead.try_acquire().expect("it is free");
    let pipeline = Pipeline::new(&rig).layer(Timeout::new(ms(30))).layer(&bulkhead);
    let mut call = core::pin::pin!(pipeline.call(async |_| Ok::<(), ()>(())));
    assert!(poll_once(call.as_mut()).is_pending());
    assert_eq!(in_use_and_queued(&bulkhead), (1, 1));
    rig.advance(ms(30));
    let Poll::Ready(result) = poll_once(call.as_mut()) else { unreachable!("the time is over") };
    assert!(result.expect_err("it times out").is_timed_out());
    assert_eq!((in_use_and_queued(&bulkhead), rig.live()), ((1, 0), 0));
}

#[test]
fn a_call_in_a_pipeline_weighs_what_it_is_told_to() {
    let rig = Rig::new();
    let bulkhead = queued::<1>(3, 0);
    let weigh = |weight| {
        let pipeline = Pipeline::new(&rig).layer(bulkhead.weighing(weight));
        rig.run(pipeline.call(async |_| Ok::<_, ()>(bulkhead.snapshot().in_use)))
    };
    assert_eq!([weigh(0), weigh(2), weigh(3)], [Ok(0), Ok(2), Ok(3)]);
    let failure = weigh(4).expect_err("there are but three");
    assert_eq!(failure.rejected().map(|rejected| rejected.reason()), Some(Reason::TooHeavy));
    assert_eq!((in_use_and_queued(&bulkhead), bulkhead.snapshot().rejected), ((0, 0), 1));
}

/// What a bulkhead should do, told as simply as possible.
#[derive(Debug, Default)]
struct Oracle {
    permits: u32,
    in_use: u32,
    /// Permits that may be waited for, by at most `STORED` callers.
    room: u32,
    newest_first: bool,
    line: VecDeque<(usize, u32)>,
    granted: Vec<usize>,
    evicted: Vec<usize>,
    high_water: u32,
    rejected: u32,
}

/// Callers that the queue under test stores.
const STORED: usize = 5;

impl Oracle {
    fn queued(&self) -> u32 {
        self.line.iter().map(|(_, weight)| weight).sum()
    }

    fn take(&mut self, weight: u32) -> Result<(), Reason> {
        let nobody_waits = self.line.is_empty() || self.newest_first;
        let fits = self.in_use + weight <= self.permits && nobody_waits;
        if weight == 0 || fits {
            self.in_use += weight;
            self.high_water = self.high_water.max(self.in_use);
            return Ok(());
        }
        Err(if weight > self.permits { Reason::TooHeavy } else { Reason::Full })
    }

    fn try_take(&mut self, weight: u32) -> Option<Reason> {
        let reason = self.take(weight).err();
        self.rejected += u32::from(reason.is_some());
        reason
    }

    /// `Ok(true)`: taken; `Ok(false)`: waits.
    fn join(&mut self, id: usize, weight: u32) -> Result<bool, Reason> {
        let full = |oracle: &Self| {
            let noticed = if oracle.newest_first { 0 } else { oracle.granted.len() };
            oracle.queued() + weight > oracle.room || oracle.line.len() + oracle.granted.len() - noticed >= STORED
        };
        let mut taken = self.take(weight);
        while taken == Err(Reason::Full) && full(self) && self.newest_first && weight <= self.room {
            let Some((oldest, _)) = self.line.pop_front() else { break };
            self.evicted.push(oldest);
            taken = self.take(weight);
        }
        let answer = match taken {
            Ok(()) => Ok(true),
            Err(Reason::Full) if full(self) => Err(Reason::QueueFull),
            Err(Reason::Full) => {
                self.line.push_back((id, weight));
                Ok(false)
            }
            Err(reason) => Err(reason),
        };
        self.rejected += u32::from(answer.is_err());
        answer
    }

    fn give_back(&mut self, weight: u32) {
        self.in_use -= weight;
        self.serve();
    }

    fn serve(&mut self) {
        while let Some(&(id, weight)) = if self.newest_first { self.line.back() } else { self.line.front() }
            && self.in_use + weight <= self.permits
        {
            self.line.retain(|(other, _)| *other != id);
            self.granted.push(id);
            self.in_use += weight;
            self.high_water = self.high_water.max(self.in_use);
        }
    }

    fn leave(&mut self, id: usize, weight: u32) {
        if self.collect(id) {
            return self.give_back(weight);
        }
        if self.evicted.contains(&id) {
            return;
        }
        self.line.retain(|(other, _)| *other != id);
        self.serve();
    }

    /// Whether the waiter had been granted its permits, which are then its own.
    fn collect(&mut self, id: usize) -> bool {
        let before = self.granted.len();
        self.granted.retain(|other| *other != id);
        self.granted.len() < before
    }

    /// What a poll of a waiter finds.
    fn poll(&mut self, id: usize, weight: u32, late: bool) -> Poll<Option<Reason>> {
        if self.collect(id) {
            return Poll::Ready(None);
        }
        let reason = match () {
            () if self.evicted.contains(&id) => Reason::Evicted,
            () if weight > self.permits => Reason::TooHeavy,
            () if late => Reason::QueueTimeout,
            () => return Poll::Pending,
        };
        self.leave(id, weight);
        self.rejected += 1;
        Poll::Ready(Some(reason))
    }
}

struct Waiting<'b> {
    id: usize,
    weight: u32,
    until: Instant,
    acquire: Wait<'b, STORED>,
    wakes: Arc<Wakes>,
    woken: usize,
}

/// A random script on a bulkhead, and the same on the oracle.
struct Game<'b> {
    bulkhead: &'b Queued<STORED>,
    rig: &'b Rig,
    rng: Rng,
    oracle: Oracle,
    held: Vec<(u32, Held<'b, STORED>)>,
    waiting: Vec<Waiting<'b>>,
    ids: usize,
}

impl<'b> Game<'b> {
    fn below(&mut self, limit: usize) -> usize {
        self.rng.next() as usize % limit
    }

    fn step(&mut self) {
        let weight = u32::try_from(self.below(5)).unwrap_or(0);
        match self.below(10) {
            0 | 1 => self.take(weight),
            2..=4 => self.join(weight),
            5 if !self.held.is_empty() => self.release(),
            6 if !self.waiting.is_empty() => self.cancel(),
            7 => self.resize(weight + 1),
            8 => self.rig.advance(ms(u64::from(self.rng.next() % 40))),
            _ if !self.waiting.is_empty() => self.poll_one(),
            _ => {}
        }
        self.compare();
    }

    fn take(&mut self, weight: u32) {
        let result = self.bulkhead.try_acquire_many(weight);
        assert_eq!(result.as_ref().err().map(Rejected::reason), self.oracle.try_take(weight));
        self.held.extend(result.ok().map(|permit| (weight, permit)));
    }

    fn join(&mut self, weight: u32) {
        self.ids += 1;
        let (id, until) = (self.ids, self.rig.now().saturating_add(ms(100)));
        let (wakes, waker) = Wakes::new();
        let mut acquire = pin_acquire(self.bulkhead, weight, self.rig);
        let polled = acquire.as_mut().poll(&mut Context::from_waker(&waker));
        match (polled, self.oracle.join(id, weight)) {
            (Poll::Ready(Ok(permit)), Ok(true)) => self.held.push((weight, permit)),
            (Poll::Ready(Err(rejected)), Err(reason)) => assert_eq!(rejected.reason(), reason),
            (Poll::Pending, Ok(false)) => {
                self.waiting.push(Waiting { id, weight, until, acquire, wakes, woken: 0 });
            }
            (polled, expected) => unreachable!("{polled:?} instead of {expected:?}"),
        }
    }

    fn release(&mut self) {
        let index = self.below(self.held.len());
        let (weight, permit) = self.held.swap_remove(index);
        drop(permit);
        self.oracle.give_back(weight);
    }

    fn cancel(&mut self) {
        let index = self.below(self.waiting.len());
        let Waiting { id, weight, acquire, .. } = self.waiting.swap_remove(index);
        drop(acquire);
        self.oracle.leave(id, weight);
    }

    fn resize(&mut self, permits: u32) {
        self.bulkhead.resize(permits).expect("it makes sense");
        self.oracle.permits = permits;
        self.oracle.serve();
    }

    /// Polls somebody, now and then from another task.
    fn poll_one(&mut self) {
        let index = self.below(self.waiting.len());
        let fresh = self.below(2) == 0;
        let late = self.rig.now() >= self.waiting[index].until;
        let waiting = &mut self.waiting[index];
        if fresh {
            waiting.wakes = Wakes::new().0;
        }
        waiting.woken = waiting.wakes.count();
        let waker = Waker::from(waiting.wakes.clone());
        let polled = waiting.acquire.as_mut().poll(&mut Context::from_waker(&waker));
        match (polled, self.oracle.poll(waiting.id, waiting.weight, late)) {
            (Poll::Pending, Poll::Pending) => {}
            (Poll::Ready(result), Poll::Ready(reason)) => {
                assert_eq!(result.as_ref().err().map(Rejected::reason), reason);
                let Waiting { weight, .. } = self.waiting.swap_remove(index);
                self.held.extend(result.ok().map(|permit| (weight, permit)));
            }
            (polled, expected) => unreachable!("{polled:?} instead of {expected:?}"),
        }
    }

    fn compare(&self) {
        let Oracle { permits, in_use, high_water, rejected, .. } = self.oracle;
        let queued = self.oracle.queued();
        assert_eq!(self.bulkhead.snapshot(), Snapshot { permits, in_use, queued, high_water, rejected });
        // Whoever would end at the next poll has been woken for it.
        for Waiting { id, weight, until, wakes, woken, .. } in &self.waiting {
            let decided = self.oracle.granted.contains(id) || self.oracle.evicted.contains(id);
            let ends = decided || *weight > permits || self.rig.now() >= *until;
            assert!(!ends || wakes.count() > *woken, "waiter {id} was not woken");
        }
    }
}

#[test]
fn random_scripts_agree_with_the_oracle() {
    play("bulkhead", 0..600, 400, |seed, script| {
        let mut rng = Rng::new(seed);
        let (permits, queue, newest_first) = (1 + rng.next() % 5, 1 + rng.next() % 8, seed % 2 == 0);
        let config = Config::new(permits).with_queue(queue, ms(100));
        let config = if newest_first { config.with_newest_first() } else { config };
        let (bulkhead, rig) = (Queued::<STORED>::new(config.validate().expect("it makes sense")), Rig::new());
        let oracle = Oracle { permits, room: queue, newest_first, ..Oracle::default() };
        let mut game =
            Game { bulkhead: &bulkhead, rig: &rig, rng, oracle, held: Vec::new(), waiting: Vec::new(), ids: 0 };
        for rng in script {
            game.rng = rng;
            game.step();
        }
        drop(game);
        assert_eq!((in_use_and_queued(&bulkhead), rig.live()), ((0, 0), 0), "seed {seed}");
    });
}

#[test]
fn threads_never_exceed_the_limit_and_all_get_their_turn() {
    const LIMIT: u32 = 3;
    let bulkhead: Bulkhead<Threaded, ThreadedQueue<8>> =
        Bulkhead::new(valid!(Config::new(LIMIT).with_queue(8 * LIMIT, Duration::MAX).validate()));
    let inside = AtomicU32::new(0);
    thread::scope(|scope| {
        for id in 0..8 {
            let (bulkhead, inside) = (&bulkhead, &inside);
            scope.spawn(move || {
                let mut rng = Rng::new(id);
                for _ in 0..500 {
                    let weight = 1 + rng.next() % LIMIT;
                    let mut acquire = Box::pin(bulkhead.acquire(weight, Endless));
                    if rng.next().is_multiple_of(4) {
                        // Cancelled, often while waiting or just after the grant.
                        let _ = poll_once(acquire.as_mut());
                        continue;
                    }
                    let permit = block_on(acquire).expect("the queue holds all threads");
                    assert!(inside.fetch_add(weight, Ordering::SeqCst) + weight <= LIMIT);
                    inside.fetch_sub(weight, Ordering::SeqCst);
                    drop(permit);
                }
            });
        }
    });
    assert_eq!(in_use_and_queued(&bulkhead), (0, 0));
    assert!(bulkhead.snapshot().high_water <= LIMIT);
}

#[test]
fn what_matters_less_neither_waits_nor_overtakes_those_who_do() {
    for newest_first in [false, true] {
        let config = Config::new(10).with_queue(20, ms(1_000));
        let config = if newest_first { config.with_newest_first() } else { config };
        let bulkhead = Bulkhead::<Local, LocalQueue<4>>::new(config.validate().expect("valid"));
        let executor = VirtualExecutor::new();
        let _held = bulkhead.try_acquire_many(2).expect("free");
        let mut heavy = core::pin::pin!(bulkhead.acquire(9, &executor));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(heavy.as_mut().poll(&mut cx).is_pending(), "nine of ten, with two in use");
        let reason =
            |weight, priority| bulkhead.try_acquire_at(weight, priority).err().map(|rejected| rejected.reason());
        assert_eq!(reason(1, Priority::LOW), Some(Reason::PriorityTooLow), "three of five, but somebody waits");
        assert_eq!(reason(6, Priority::LOW), Some(Reason::TooHeavy), "its share would never do");
        let mut low = core::pin::pin!(bulkhead.acquire(1, &executor).with_priority(Priority::LOW));
        let Poll::Ready(Err(rejected)) = low.as_mut().poll(&mut cx) else { unreachable!("it does not wait") };
        assert_eq!((rejected.reason(), bulkhead.snapshot().queued), (Reason::PriorityTooLow, 9));
    }
}

#[test]
fn permits_that_come_between_a_late_look_and_leaving_the_queue_go_to_the_next() {
    type Held = Permit<&'static Bulkhead<Local, Interrupted>, Local, Interrupted>;
    thread_local! {
        static HELD: Cell<Option<Held>> = const { Cell::new(None) };
    }
    let limited = valid!(Config::new(1).with_queue(4, ms(100)).validate());
    for config in [limited, valid!(Config::new(1).with_queue(4, ms(100)).with_newest_first().validate())] {
        // Which of the two waiters looks when its time is over.
        for looks in [0, 1] {
            let bulkhead: &'static Bulkhead<Local, Interrupted> = Box::leak(Box::new(Bulkhead::new(config)));
            let rig = Rig::new();
            HELD.set(bulkhead.try_acquire().ok());
            let mut waiting = [(); 2].map(|()| Box::pin(bulkhead.acquire(1, &rig)));
            assert!(waiting.iter_mut().all(|acquire| poll_once(acquire.as_mut()).is_pending()));
            waiting.rotate_left(looks);
            let [mut late, mut other] = waiting;
            rig.set(Instant::from_millis(100));
            // Not before the look of that poll, but before it leaves the queue.
            BEFORE_LOCK.set(Some(|| BEFORE_LOCK.set(Some(|| drop(HELD.take())))));
            let Poll::Ready(result) = poll_once(late.as_mut()) else { unreachable!("its time is over") };
            assert_eq!(reason(result), Some(Reason::QueueTimeout));
            assert!(HELD.take().is_none(), "it was released meanwhile");
            let Poll::Ready(Ok(permit)) = poll_once(other.as_mut()) else { unreachable!("it is its turn") };
            assert_eq!(in_use_and_queued(bulkhead), (1, 0));
            drop((permit, late, other));
            assert_eq!(in_use_and_queued(bulkhead), (0, 0));
        }
    }
}
