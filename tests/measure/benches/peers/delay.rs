//! The delay before the next attempt: exponential, with jitter.

use core::time::Duration;

use backon::BackoffBuilder as _;
use failsoft_measure::subjects;
use failsoft_tokio::{Executor, Tokio};
use tower::retry::backoff::{Backoff as _, ExponentialBackoffMaker, MakeBackoff as _};
use tower::util::rng::HasherRng;
use tower_resilience_retry::{ExponentialRandomBackoff, IntervalFunction as _};

use crate::floor;
use crate::harness::{Bench, ONE};
use crate::table::Subject;

const OURS: &str = "failsoft, random number given";
const OURS_DRAWN: &str = "failsoft, random number drawn";
const BASE: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(30);

/// Some attempt or other.
const fn attempt(call: u32) -> u32 {
    call % 8 + 1
}

const fn given(call: u32) -> u32 {
    call.wrapping_mul(0x9E37_79B9)
}

pub(crate) fn measure(bench: &mut Bench) {
    bench.section("next retry delay with jitter", floor::LOAD);
    let subject = |name, like| Subject { name, like };
    bench.one(ONE, subject(OURS, OURS), || {
        let backoff = subjects::backoff();
        move |call| backoff.jittered(attempt(call), Duration::ZERO, given(call)) <= LONGEST
    });
    bench.one(ONE, subject("reliakit, random number given", OURS), || {
        let backoff = reliakit_backoff::Backoff::exponential(BASE, 2).with_max_delay(LONGEST);
        move |call| {
            let delay = backoff.delay(attempt(call));
            delay.is_some_and(|delay| reliakit_backoff::full_jitter(delay, given(call)) <= LONGEST)
        }
    });
    bench.one(ONE, subject(OURS_DRAWN, OURS_DRAWN), || {
        let backoff = subjects::backoff();
        move |call| backoff.jittered(attempt(call), Duration::ZERO, Tokio.random()) <= LONGEST
    });
    bench.one(ONE, subject("backon", OURS_DRAWN), || {
        let builder = backon::ExponentialBuilder::new().with_min_delay(BASE).with_max_delay(LONGEST).with_jitter();
        let mut delays = builder.without_max_times().build();
        // It adds its jitter on top of the longest delay.
        move |_| delays.next().is_some_and(|delay| delay <= 2 * LONGEST)
    });
    bench.one(ONE, subject("tower-resilience", OURS_DRAWN), || {
        let backoff = ExponentialRandomBackoff::new(BASE, 0.5).expect("valid").max_interval(LONGEST);
        move |call| backoff.next_interval(attempt(call) as usize) <= 2 * LONGEST
    });
    bench.one(ONE, subject("tower, as a Sleep", OURS_DRAWN), || {
        let maker = ExponentialBackoffMaker::new(BASE, LONGEST, 1.0, HasherRng::new());
        let mut backoff = maker.expect("valid").make_backoff();
        move |_| !backoff.next_backoff().is_elapsed()
    });
    for (name, reason) in [
        ("execution-policy", "its delays are private: they are in the pipeline only"),
        ("seatbelt", "its delays are private: they are in the pipeline only"),
    ] {
        bench.unfit(ONE, subject(name, OURS_DRAWN), reason);
    }
}
