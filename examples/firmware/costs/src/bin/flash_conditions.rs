//! The two trip conditions and the growing open periods of `everything`, without a breaker around them: no breaker that has them takes
//! less than they do and its own states.

#![no_std]
#![no_main]

use core::hint::black_box;

use costs::{HALF, PERIODS, TEN_A_MINUTE};
use failsoft_embassy::cell::Fresh;
use failsoft_embassy::circuit_breaker::{FailureMeter, FailureRate, Growing, Opening, Sample, Trip};
use failsoft_embassy::{Instant, Span, valid};

type Conditions = Growing<(FailureRate, FailureMeter)>;

static CONDITIONS: Conditions = valid!(Growing::new((HALF, TEN_A_MINUTE), PERIODS, 1));

fn conditions(trip: &Conditions, now: Instant) {
    let mut meter = black_box(<Conditions as Trip>::Meter::FRESH);
    black_box(trip.record(&mut meter, Sample::of(black_box(true)), black_box(Some(now))));
    black_box(trip.is_healthy(&meter));
    let counts = trip.counts(&meter, Some(now));
    black_box(trip.open_span(&Opening { configured: Span::ZERO, reopened: black_box(0), counts, at: now }));
}

costs::flash_image!(conditions(black_box(&CONDITIONS), black_box(Instant::START)));
