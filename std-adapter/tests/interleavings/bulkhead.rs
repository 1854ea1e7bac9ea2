//! A bulkhead whose callers wait.

use core::pin::pin;
use core::sync::atomic::Ordering;
use core::time::Duration;
use std::sync::Arc;

use failsoft_tokio::Bulkhead;
use failsoft_tokio::bulkhead::Config;

use crate::model::{Inside, Modelled, Still, block_on, check, check_many, poll_once, thread};

struct Rig {
    bulkhead: Bulkhead,
    inside: Inside,
    // What a single permit guards. Without order of its own: who comes in sees what was done before only if the permit orders it.
    turns: Modelled,
}

impl Rig {
    fn new(permits: u32) -> Arc<Self> {
        let config = Config::new(permits).with_queue(4, Duration::MAX).validate().expect("it makes sense");
        let rig = Self { bulkhead: Bulkhead::new(config), inside: Inside::default(), turns: Modelled::new(0) };
        // Touches what threads will share: the checkers want it to be made before they are.
        rig.assert_idle();
        Arc::new(rig)
    }

    /// Waits for its turn, however long that takes: one that is forgotten is a deadlock, which the checker reports.
    fn turn(&self, most: usize) {
        let permit = block_on(self.bulkhead.acquire(1, Still)).expect("there is room to wait");
        self.within(most);
        drop(permit);
    }

    fn within(&self, most: usize) {
        self.inside.enter(most);
        if most == 1 {
            self.turns.store(self.turns.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        self.inside.leave();
    }

    fn assert_idle(&self) {
        let now = self.bulkhead.snapshot();
        assert_eq!((now.in_use, now.queued), (0, 0), "all has been given back");
    }
}

fn in_thread(rig: &Arc<Rig>, work: impl FnOnce(&Rig) + Send + 'static) -> thread::JoinHandle<()> {
    let rig = rig.clone();
    thread::spawn(move || work(&rig))
}

#[test]
fn everybody_gets_a_turn_and_never_two_at_once() {
    check_many("bulkhead, three take turns", || {
        let rig = Rig::new(1);
        let others = [in_thread(&rig, |rig| rig.turn(1)), in_thread(&rig, |rig| rig.turn(1))];
        rig.turn(1);
        for other in others {
            other.join().expect("it doesn't panic");
        }
        assert_eq!((rig.inside.ever(), rig.turns.load(Ordering::Relaxed)), (3, 3), "each sees those before it");
        rig.assert_idle();
    });
}

#[test]
fn one_that_gives_up_waiting_passes_on_what_it_was_given() {
    check_many("bulkhead, one gives up", || {
        let rig = Rig::new(1);
        let held = rig.bulkhead.try_acquire().expect("nobody else is there");
        let impatient = in_thread(&rig, |rig| {
            // First in line or second, served or not: it leaves without a trace.
            let mut waiting = pin!(rig.bulkhead.acquire(1, Still));
            drop(poll_once(waiting.as_mut()));
        });
        let patient = in_thread(&rig, |rig| rig.turn(1));
        drop(held);
        impatient.join().expect("it doesn't panic");
        patient.join().expect("it doesn't panic");
        rig.assert_idle();
    });
}

#[test]
fn more_room_is_for_those_who_wait() {
    check_many("bulkhead, made larger under those who wait", || {
        let rig = Rig::new(1);
        let held = rig.bulkhead.try_acquire().expect("nobody else is there");
        let others = [in_thread(&rig, |rig| rig.turn(2)), in_thread(&rig, |rig| rig.turn(2))];
        rig.bulkhead.resize(3).expect("more than none");
        for other in others {
            other.join().expect("it doesn't panic");
        }
        drop(held);
        rig.assert_idle();
    });
}

#[test]
fn one_that_does_not_wait_takes_no_permit_from_those_who_do() {
    check("bulkhead, one that waits and one that does not", || {
        let rig = Rig::new(1);
        let waiting = in_thread(&rig, |rig| rig.turn(1));
        if let Ok(permit) = rig.bulkhead.try_acquire() {
            rig.within(1);
            drop(permit);
        }
        waiting.join().expect("it doesn't panic");
        assert_eq!(rig.turns.load(Ordering::Relaxed), rig.inside.ever(), "each sees those before it");
        rig.assert_idle();
    });
}
