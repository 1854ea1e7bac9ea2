use core::pin::pin;
use std::vec::Vec;

use super::*;
use crate::testing::tests::{Rig, ms, poll_once};
use crate::valid;

const QUICK: Valid<Config> = valid!(Config::new().with_safe_mode_after(3).with_stable_after(ms(500)).validate());

fn boots(memory: &Retained<u32>, config: Valid<Config>, times: usize) -> Vec<(u32, u64, bool)> {
    let boot = || Boot::count(config, memory);
    (0..times).map(|_| boot()).map(|boot| (boot.resets(), boot.hold_off().as_secs(), boot.is_safe_mode())).collect()
}

#[test]
fn each_reset_waits_longer_and_some_lead_to_safe_mode() {
    let expected = [(0, 0, false), (1, 1, false), (2, 2, false), (3, 4, true), (4, 8, true)];
    assert_eq!(boots(&Retained::new(), QUICK, 5), expected);
    let defaults: Vec<_> = boots(&Retained::new(), Config::default().validate().expect("they make sense"), 12);
    assert_eq!(defaults[4..6], [(4, 8, false), (5, 16, true)]);
    assert_eq!(defaults[9..], [(9, 256, true), (10, 300, true), (11, 300, true)], "at most five minutes");
}

#[test]
fn a_stable_time_forgets_the_resets_and_nearly_one_does_not() {
    let (memory, rig) = (Retained::new(), Rig::new());
    boots(&memory, QUICK, 4);
    {
        let boot = Boot::count(QUICK, &memory);
        let mut stable = pin!(boot.stable(&rig));
        assert!(poll_once(stable.as_mut()).is_pending());
        rig.advance(ms(499));
        assert!(poll_once(stable.as_mut()).is_pending());
    }
    let boot = Boot::count(QUICK, &memory);
    assert_eq!(boot.resets(), 5, "the reset came just before");
    rig.fire_early(ms(100));
    rig.run(boot.stable(&rig));
    assert_eq!(rig.elapsed(), ms(999), "a sleep that ends early is slept again");
    assert_eq!(boots(&memory, QUICK, 2), [(0, 0, false), (1, 1, false)]);
}

#[test]
fn the_count_saturates() {
    let memory = Retained::new();
    memory.store(u32::MAX);
    assert_eq!(boots(&memory, QUICK, 2), [(u32::MAX, 300, true); 2]);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let refused = |config: Config| config.validate().map_err(|error| error.field());
    assert_eq!(refused(Config::new().with_safe_mode_after(0)), Err("safe_mode_after"));
    assert_eq!(refused(Config::new().with_stable_after(Duration::ZERO)), Err("stable_after"));
    assert_eq!(refused(Config::new().with_hold_off(Backoff::constant(Duration::ZERO))), Err("base"));
    assert!(refused(Config::new().with_hold_off(Backoff::none())).is_ok());
    let never = valid!(Config::new().with_safe_mode_after(u32::MAX).with_hold_off(Backoff::none()).validate());
    assert_eq!(boots(&Retained::new(), never, 9)[8], (8, 0, false));
}
