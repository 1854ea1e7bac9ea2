//! The conditions as the exploration sees them: what tells their meters apart, and what they should have counted.

use std::vec::Vec;

use super::TICK;
use crate::cell::{Fresh, Packed};
use crate::circuit_breaker::machine::State;
use crate::circuit_breaker::trip::{Consecutive, Drained, Ring};
use crate::circuit_breaker::{
    ConsecutiveFailures, CountBased, Counts, FailureMeter, FailureRate, Growing, PackedMeter, TimeBased, Trip,
};
use crate::window::{CountWindow, TimeWindow};
use crate::{Instant, Span};

/// A condition whose meter is finite, counted from now.
pub(super) trait Finite: Copy + Trip {
    /// After how much time the clock looks the same to the meter.
    const PERIOD: u64 = TICK;

    /// The meter at `now`, as it looks so much earlier.
    fn earlier(meter: Self::Meter, _by: u64, _now: Instant) -> Self::Meter {
        meter
    }

    fn words(meter: &Self::Meter) -> Vec<u64>;

    /// Whether it may be told of another call: what it counts without end is cut off here.
    fn has_room(_: &Self::Meter, _failed: bool) -> bool {
        true
    }

    /// The calls that count now, the oldest first, and what they come to: said without a meter. `None` where the meter knows
    /// no calls.
    fn count(_: &mut Vec<Call>, _now: Instant) -> Option<Counts> {
        None
    }

    /// Whether a state survives being packed, where it can be.
    fn check_packing(_: State<Self::Meter>) {}
}

/// A call that was reported to a state that counts.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Call {
    pub(super) at: Instant,
    pub(super) failed: bool,
    pub(super) slow: bool,
}

/// The sum of the last so many calls that are to be counted.
fn sum_of_last(most: usize, calls: &mut Vec<Call>) -> Option<Counts> {
    calls.drain(..calls.len().saturating_sub(most));
    let sum = |of: fn(&Call) -> bool| calls.iter().filter(|call| of(call)).count() as u32;
    Some(Counts { calls: sum(|_| true), failures: sum(|call| call.failed), slow: sum(|call| call.slow) })
}

fn survives_packing<M: PackedMeter>(state: State<M>) {
    let (head, tail) = state.pack();
    assert_eq!(State::unpack(head, tail), state, "packed and unpacked");
    assert_eq!(head >> 63, 0, "the cell's own bit");
    assert!(tail == 0 || State::<M>::has_tail(head), "a tail that nobody looks for");
    assert_eq!(State::<M>::FRESH.pack(), (0, 0), "a fresh state packs to zeroes");
}

impl Finite for ConsecutiveFailures {
    fn words(meter: &Consecutive) -> Vec<u64> {
        [meter.to_bits()].into()
    }

    /// A dry run goes on counting.
    fn has_room(meter: &Consecutive, failed: bool) -> bool {
        !failed || meter.to_bits() <= 2
    }

    /// The failures since the last success.
    fn count(calls: &mut Vec<Call>, _: Instant) -> Option<Counts> {
        calls.drain(..calls.iter().rposition(|call| !call.failed).map_or(0, |last| last + 1));
        sum_of_last(usize::MAX, calls).map(|counts| Counts { slow: 0, ..counts })
    }

    fn check_packing(state: State<Consecutive>) {
        survives_packing(state);
    }
}

impl Finite for FailureRate {
    fn words(meter: &Ring) -> Vec<u64> {
        [meter.to_bits()].into()
    }

    /// Of the last 3 calls.
    fn count(calls: &mut Vec<Call>, _: Instant) -> Option<Counts> {
        sum_of_last(3, calls).map(|counts| Counts { slow: 0, ..counts })
    }

    fn check_packing(state: State<Ring>) {
        survives_packing(state);
    }
}

impl Finite for FailureMeter {
    /// A bucket that has drained is a fresh one.
    fn earlier(meter: Drained, by: u64, now: Instant) -> Drained {
        let unit = |nanos: u64| nanos >> 16;
        let drained = meter.to_bits();
        if drained <= unit(now.as_nanos()) { Drained::FRESH } else { Drained::from_bits(drained - unit(by)) }
    }

    fn words(meter: &Drained) -> Vec<u64> {
        [meter.to_bits()].into()
    }

    fn check_packing(state: State<Drained>) {
        survives_packing(state);
    }
}

impl<const WORDS: usize> Finite for CountBased<WORDS> {
    fn earlier(meter: CountWindow<WORDS>, _: u64, _: Instant) -> CountWindow<WORDS> {
        meter.without_the_forgotten()
    }

    fn words(meter: &CountWindow<WORDS>) -> Vec<u64> {
        meter.words()
    }

    /// Of the last 2 calls.
    fn count(calls: &mut Vec<Call>, _: Instant) -> Option<Counts> {
        sum_of_last(2, calls)
    }
}

impl Finite for TimeBased<2> {
    /// A bucket.
    const PERIOD: u64 = 2 * TICK;

    fn earlier(meter: TimeWindow<Counts, 2>, by: u64, now: Instant) -> TimeWindow<Counts, 2> {
        meter.earlier(Span::from_nanos(Self::PERIOD), by, now)
    }

    fn words(meter: &TimeWindow<Counts, 2>) -> Vec<u64> {
        meter.words(|counts| [counts.calls, counts.failures, counts.slow].into())
    }

    fn has_room(meter: &TimeWindow<Counts, 2>, _: bool) -> bool {
        meter.total().calls < 3
    }

    /// Of this bucket and the one before.
    fn count(calls: &mut Vec<Call>, now: Instant) -> Option<Counts> {
        let bucket = |at: Instant| at.as_nanos() / Self::PERIOD;
        calls.retain(|call| bucket(call.at) + 1 >= bucket(now));
        sum_of_last(usize::MAX, calls)
    }
}

impl Finite for Growing<ConsecutiveFailures> {
    fn words(meter: &Consecutive) -> Vec<u64> {
        ConsecutiveFailures::words(meter)
    }

    fn count(calls: &mut Vec<Call>, now: Instant) -> Option<Counts> {
        ConsecutiveFailures::count(calls, now)
    }

    fn check_packing(state: State<Consecutive>) {
        survives_packing(state);
    }
}

impl Finite for (ConsecutiveFailures, FailureMeter) {
    fn earlier((first, second): Self::Meter, by: u64, now: Instant) -> Self::Meter {
        (first, FailureMeter::earlier(second, by, now))
    }

    fn words((first, second): &Self::Meter) -> Vec<u64> {
        [ConsecutiveFailures::words(first), FailureMeter::words(second)].concat()
    }

    fn has_room((first, _): &Self::Meter, failed: bool) -> bool {
        ConsecutiveFailures::has_room(first, failed)
    }

    fn count(calls: &mut Vec<Call>, now: Instant) -> Option<Counts> {
        ConsecutiveFailures::count(calls, now)
    }
}
