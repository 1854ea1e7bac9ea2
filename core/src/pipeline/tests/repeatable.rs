//! Operations that may be started only so often.

use super::*;
use crate::budget::{RetryThrottle, RetryThrottleConfig};
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

#[test]
fn a_hedge_that_waited_for_a_permit_meanwhile_is_not_started_beside_it() {
    // The first try and the hedge both wait in the queue; the first gets its permit, and then the hedge does.
    for (step, ended) in [(Step::SucceedAfter(ms(30)), Ok(1)), (Step::FailAfter(ms(30)), Err(Some(Stop::Attempts)))] {
        let (rig, steps) = (Rig::new(), [step]);
        let service = Script::new(&steps);
        let bulkhead =
            Bulkhead::<Local, LocalQueue<4>>::new(valid!(bulkhead::Config::new(2).with_queue(4, ms(900)).validate()));
        let pipeline =
            Pipeline::new(&rig).layer(Hedge::<Local, 1>::new(DELAY, Idempotent)).layer_in_any_order(&bulkhead);
        let taken = bulkhead.try_acquire_many(2).expect("it is empty");
        let mut call = Box::pin(Call::of(&pipeline, Only { service: &service, rig: &rig, left: true }));
        assert!(poll_once(call.as_mut()).is_pending());
        rig.advance(ms(25));
        assert!(poll_once(call.as_mut()).is_pending());
        assert_eq!(bulkhead.snapshot().queued, 2, "the hedge waits too");
        drop(taken);
        let result = rig.run(call).map_err(|failure| failure.stop);
        assert_eq!((result, service.calls()), (ended, 1));
        assert_eq!((bulkhead.snapshot().in_use, bulkhead.snapshot().queued), (0, 0));
    }
}

/// May be started once.
struct Only<'w> {
    service: &'w Script<'w>,
    rig: &'w Rig,
    left: bool,
}

impl<'w> Operation<u32, Scripted> for Only<'w> {
    type Future = Pin<Box<dyn Future<Output = Result<u32, Scripted>> + 'w>>;

    fn start(&mut self, _: Attempt) -> Self::Future {
        assert!(core::mem::take(&mut self.left), "started a second time");
        Box::pin(self.service.call(self.rig))
    }

    fn is_repeatable(&self) -> bool {
        self.left
    }
}

#[test]
fn an_attempt_of_a_layer_that_does_not_ask_is_rejected() {
    let (rig, service) = (Rig::new(), Script::new(&[Step::Fail]));
    let pipeline = Pipeline::new(&rig);
    let mut call = core::pin::pin!(Call::of(&pipeline, Only { service: &service, rig: &rig, left: true }));
    assert!(matches!(poll_once(call.as_mut()), Poll::Ready(Err(failure)) if failure.inner().is_some()));
    // A call that is polled again after its end starts the operation anew.
    let again =
        poll_once(call.as_mut()).map(|result| result.map_err(|failure| failure.rejected().map(|it| it.reason())));
    assert_eq!(again, Poll::Ready(Err(Some(Reason::NotRepeatable))));
}

#[test]
fn to_a_budget_a_failure_is_one_also_where_the_request_may_not_be_repeated() {
    for (starts, left) in [(1, 9_000), (2, 8_000)] {
        let budget = RetryThrottle::<Local>::new(valid!(RetryThrottleConfig::new().validate()));
        let retry = RetryPolicy::with_budget(
            valid!(retry::Config::new().with_max_attempts(2).with_backoff(DELAYS).validate()),
            (),
            &budget,
        );
        let (rig, service) = (Rig::new(), Script::new(&[Step::Fail]));
        let pipeline = Pipeline::new(&rig).layer(retry);
        assert!(rig.run(Call::of(&pipeline, Limited { service: &service, rig: &rig, starts })).is_err());
        assert_eq!(budget.thousandths(), left, "{starts}");
    }
}
