//! Keys that come and go while others ask for them.

use core::hash::{BuildHasherDefault, Hasher};
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::Arc;

use failsoft_tokio::registry::{Config, Registry};

use crate::model::{check, thread};

/// The same in every run, as a checker needs it.
#[derive(Default)]
struct Sum(u64);

impl Hasher for Sum {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |sum, byte| sum.wrapping_add(u64::from(*byte)));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type Rig = Arc<Registry<u32, u32, BuildHasherDefault<Sum>>>;

/// Policies that are numbered as they are made; the overflow policy is 0.
fn rig(capacity: usize) -> Rig {
    let next = AtomicU32::new(0);
    let make = move |_: Option<&u32>| next.fetch_add(1, SeqCst);
    let config = Config::new(capacity).expect("it is above zero");
    Arc::new(Registry::with_rule(config, make, |_, _| true).with_hasher(BuildHasherDefault::new()))
}

fn conserved(rig: &Rig) -> usize {
    let snapshot = rig.snapshot();
    assert_eq!(snapshot.created, snapshot.len as u64 + snapshot.evicted + snapshot.swept + snapshot.removed);
    assert!(snapshot.len <= snapshot.capacity);
    snapshot.len
}

#[test]
fn of_those_who_bring_a_new_key_one_makes_the_policy() {
    check("registry, one new key", || {
        let rig = rig(2);
        let other = {
            let rig = rig.clone();
            thread::spawn(move || rig.get(&1))
        };
        let (mine, others) = (rig.get(&1), other.join().expect("it doesn't panic"));
        assert!(Arc::ptr_eq(&mine, &others));
        assert_eq!((rig.snapshot().created, conserved(&rig)), (1, 1));
    });
}

#[test]
fn who_holds_a_policy_holds_that_of_its_key_whoever_needs_the_place() {
    check("registry, one place", || {
        let rig = rig(1);
        let use_it = |rig: &Rig, key: u32| {
            let held = rig.get(&key);
            if *held > 0 {
                assert!(rig.peek(&key).is_some_and(|known| Arc::ptr_eq(&known, &held)));
            }
        };
        let other = {
            let rig = rig.clone();
            thread::spawn(move || {
                use_it(&rig, 1);
                rig.sweep();
            })
        };
        use_it(&rig, 2);
        use_it(&rig, 1);
        other.join().expect("it doesn't panic");
        conserved(&rig);
    });
}

#[test]
fn places_that_come_free_by_hand_are_there_for_others() {
    check("registry, removed", || {
        let rig = rig(1);
        let held = rig.get(&1);
        let other = {
            let rig = rig.clone();
            thread::spawn(move || *rig.get(&2))
        };
        let removed = rig.remove(&1).expect("what is held does not go");
        assert!(Arc::ptr_eq(&removed, &held));
        let number = other.join().expect("it doesn't panic");
        // It came before that, or after.
        assert_eq!(conserved(&rig), usize::from(number > 0));
    });
}
