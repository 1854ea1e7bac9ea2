//! Operations that may be started only so often.

use super::*;
use crate::config::Valid;

struct Limited<'w> {
    service: &'w Script<'static>,
    rig: &'w Rig,
    starts: u32,
}

impl<'w> Operation<u32, Scripted> for Limited<'w> {
    type Future = Pin<Box<dyn Future<Output = Result<u32, Scripted>> + 'w>>;

    fn start(&mut self, _: Attempt) -> Self::Future {
        self.starts -= 1;
        Box::pin(self.service.call(self.rig))
    }

    fn is_repeatable(&self) -> bool {
        self.starts > 0
    }
}

const RETRY: RetryPolicy = RetryPolicy::new(valid!(
    retry::Config::new().with_backoff(DELAYS).with_max_attempts(9).with_rejections().validate()
));
const DELAY: Valid<FixedDelay> = FixedDelay::new(ms(20));

/// Runs an operation that may be started so often, through these layers: how it ends, and how many calls reach the service.
fn run<L>(starts: u32, steps: &'static [Step], layers: impl FnOnce(&Rig) -> L) -> (Option<Stop>, u32, u32)
where
    L: for<'r> Layer<u32, Scripted, &'r Rig>,
{
    let (rig, service) = (Rig::new(), Script::new(steps));
    let layers = layers(&rig);
    let pipeline = Pipeline::new(&rig).layer_in_any_order(&layers);
    let ended = rig.run(Call::of(&pipeline, Limited { service: &service, rig: &rig, starts }));
    let (stop, attempts) = ended.map_or_else(|failure| (failure.stop, failure.attempts), |_| (None, 0));
    (stop, attempts, service.calls())
}

#[test]
fn a_retry_starts_nothing_once_more_that_may_not_be() {
    let ends = [1, 2, 8, 9].map(|starts| run(starts, &[Step::Fail], |_| RETRY));
    let not = Some(Stop::NotRetryable);
    assert_eq!(ends, [(not, 1, 1), (not, 2, 2), (not, 8, 8), (not, 9, 9)]);
    assert_eq!(run(10, &[Step::Fail], |_| RETRY), (Some(Stop::Attempts), 9, 9));
}

#[test]
fn an_attempt_that_timed_out_has_been_made_all_the_same() {
    let layers = |_: &Rig| Stack { outer: RETRY, inner: Timeout::new(ms(5)) };
    assert_eq!(run(1, &[Step::Hang, Step::Succeed], layers), (Some(Stop::NotRetryable), 1, 1));
    assert_eq!(run(2, &[Step::Hang, Step::Succeed], layers), (None, 0, 2));
}

#[test]
fn a_call_that_was_rejected_has_not_been_made() {
    let open = |rig: &Rig| {
        let breaker = CircuitBreaker::<Local>::new(valid!(circuit_breaker::Config::new().validate()));
        breaker.open_until(rig.now().saturating_add(ms(30)));
        Stack { outer: RETRY, inner: breaker }
    };
    assert_eq!(run(1, &[Step::Succeed], open), (None, 0, 1));
}

#[test]
fn a_hedge_starts_nothing_beside_it_that_may_not_be() {
    const SLOW: &[Step] = &[Step::SucceedAfter(ms(50))];
    const FAILS: &[Step] = &[Step::FailAfter(ms(50))];
    let hedge = |_: &Rig| Hedge::<Local, 2>::new(DELAY, Idempotent);
    assert_eq!([1, 2, 3].map(|starts| run(starts, SLOW, hedge)), [(None, 0, 1), (None, 0, 2), (None, 0, 3)]);
    assert_eq!(run(1, FAILS, hedge), (Some(Stop::NotRetryable), 1, 1));
    assert_eq!(run(1, &[Step::Fail], hedge), (Some(Stop::NotRetryable), 1, 1));
    assert_eq!(run(4, &[Step::Fail], hedge), (Some(Stop::Attempts), 3, 3));
}

#[test]
fn what_a_hedge_did_not_start_again_no_retry_around_it_does() {
    let layers = |_: &Rig| Stack { outer: RETRY, inner: Hedge::<Local, 1>::new(DELAY, Idempotent) };
    assert_eq!(run(1, &[Step::Fail], layers), (Some(Stop::NotRetryable), 1, 1));
}
