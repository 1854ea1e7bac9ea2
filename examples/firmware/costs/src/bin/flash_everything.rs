//! A breaker with everything there is: two trip conditions, open periods that grow, an observer, and every operation.

#![no_std]
#![no_main]

use core::hint::black_box;
use core::time::Duration;

use costs::{EVERYTHING, Ending, call};
use failsoft_embassy::circuit_breaker::{FailureMeter, FailureRate, Growing, Transition};
use failsoft_embassy::{CircuitBreaker, Instant, Verdict};

type Breaker = CircuitBreaker<Growing<(FailureRate, FailureMeter)>, fn(&Transition)>;

static BREAKER: Breaker = Breaker::with_observer(EVERYTHING, observe);

fn observe(transition: &Transition) {
    black_box(transition);
}

fn everything(breaker: &Breaker, now: Instant) {
    black_box(call(breaker, black_box(Ending::Success), now));
    if let Ok(permit) = breaker.try_acquire(now) {
        permit.record(black_box(Verdict::TRANSIENT).with_retry_after(black_box(Duration::ZERO)));
    }
    breaker.isolate();
    breaker.disable();
    breaker.observe_only();
    breaker.reset();
    breaker.open_until(now);
    black_box(breaker.poll_timeout());
    breaker.handle_timeout(&now);
    black_box(breaker.snapshot(&now));
}

costs::flash_image!(everything(black_box(&BREAKER), black_box(Instant::START)));
