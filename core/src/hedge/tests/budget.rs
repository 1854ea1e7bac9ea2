//! Budgets that are shared.

use super::*;

/// What a budget was asked for, in order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Asked {
    Begin,
    Join,
    /// A retry: for a failure, or for a try that is slow.
    Retry(Outcome),
    End(Outcome),
}

/// Writes down what it is asked for, and refuses after so many.
struct Ledger {
    allows: Cell<u32>,
    asked: RefCell<Vec<Asked>>,
    open: Cell<i32>,
}

impl Ledger {
    fn new(allows: u32) -> Self {
        Self { allows: Cell::new(allows), asked: RefCell::default(), open: Cell::new(0) }
    }

    fn note(&self, asked: Asked) {
        self.asked.borrow_mut().push(asked);
    }

    fn hedge<const N: usize>(&self, delay: Duration) -> Hedge<Local, N, FixedDelay, (), &Self>
    where
        Hedges<N>: Room,
    {
        Hedge::with_budget(FixedDelay::new(delay), Idempotent, (), self)
    }
}

impl RetryBudget for Ledger {
    type Spent = ();

    fn begin(&self, _: &impl Clock) {
        self.note(Asked::Begin);
        self.open.set(self.open.get() + 1);
    }

    fn join(&self, _: &impl Clock) {
        self.note(Asked::Join);
        self.open.set(self.open.get() + 1);
    }

    fn try_retry(&self, (): &mut (), verdict: Verdict, _: &impl Clock) -> bool {
        self.note(Asked::Retry(verdict.outcome()));
        assert!(verdict.is_retryable());
        let left = self.allows.get().checked_sub(1);
        self.allows.set(left.unwrap_or(0));
        left.is_some()
    }

    fn end(&self, (): (), outcome: Outcome) {
        self.note(Asked::End(outcome));
        self.open.set(self.open.get() - 1);
    }
}

/// gRPC's throttle: a failure takes a token, a retry none; there are retries while more than half of the tokens are left.
struct Throttle(Cell<u32>);

impl RetryBudget for Throttle {
    type Spent = ();

    fn begin(&self, _: &impl Clock) {}

    fn join(&self, _: &impl Clock) {}

    fn try_retry(&self, (): &mut (), verdict: Verdict, _: &impl Clock) -> bool {
        let failed = verdict.outcome() == Outcome::Failure;
        self.0.set(self.0.get() - u32::from(failed));
        self.0.get() > 2
    }

    fn end(&self, (): (), _: Outcome) {}
}

// grpc/grpc-java, RetriableStreamTest: hedging_throttledByHedgingStreams.
#[test]
fn the_calls_own_failures_may_end_it() {
    let throttle = Throttle(Cell::new(4));
    let hedge = Hedge::<Local, 5, _, _, _>::with_budget(FixedDelay::new(ms(100_000)), Idempotent, (), &throttle);
    by_hand!(rig, desk, hedge, step);
    assert_eq!(step(0, None), (Poll::Pending, 1, 1));
    assert_eq!(step(100_000, None), (Poll::Pending, 2, 1));
    assert_eq!(step(100_000, Some((0, Err(Fails::Transient(1))))), (Poll::Pending, 2, 1));
    assert_eq!(throttle.0.get(), 3);
    let ended = failed(Fails::Transient(2), 2, Stop::Budget);
    assert_eq!(step(100_000, Some((1, Err(Fails::Transient(2))))), (ended, 2, 0));
}

#[test]
fn each_hedge_is_charged_once_whether_the_try_before_was_slow_or_failed() {
    let ledger = Ledger::new(9);
    by_hand!(rig, desk, ledger.hedge::<3>(ms(10)), step);
    assert_eq!(step(0, None).1, 1);
    assert_eq!(step(5, Some((0, Err(Fails::Transient(0))))).1, 1);
    assert_eq!([step(10, None).1, step(20, None).1], [2, 3]);
    assert_eq!(step(25, Some((1, Ok(1)))).0, Poll::Ready(Ok(1)));
    let [failed, slow] = [Outcome::Failure, Outcome::Ignored].map(Asked::Retry);
    assert_eq!(*ledger.asked.borrow(), [Asked::Begin, failed, slow, Asked::End(Outcome::Success)]);
}

#[test]
fn a_budget_that_refuses_stops_further_hedges_and_leaves_those_under_way_alone() {
    let ledger = Ledger::new(1);
    by_hand!(rig, desk, ledger.hedge::<3>(ms(10)), step);
    assert_eq!(step(0, None), (Poll::Pending, 1, 1));
    assert_eq!(step(10, None), (Poll::Pending, 2, 1));
    assert_eq!(step(20, None), (Poll::Pending, 2, 0));
    assert_eq!(step(500, Some((0, Err(Fails::Transient(0))))), (Poll::Pending, 2, 0));
    let ended = failed(Fails::Transient(1), 2, Stop::Budget);
    assert_eq!(step(600, Some((1, Err(Fails::Transient(1))))), (ended, 2, 0));
    // Once it has refused it is not asked again.
    let slow = Asked::Retry(Outcome::Ignored);
    assert_eq!(*ledger.asked.borrow(), [Asked::Begin, slow, slow, Asked::End(Outcome::Failure)]);
}

#[test]
fn without_a_delay_all_that_the_budget_allows_starts_at_once() {
    let ledger = Ledger::new(2);
    by_hand!(rig, desk, ledger.hedge::<7>(Duration::ZERO), step);
    assert_eq!(step(0, None), (Poll::Pending, 3, 0));
    assert_eq!((rig.reads(), rig.sleeps()), (0, 0));
}

/// A retry, as far as its budget goes.
struct Around<'l>(&'l Ledger);

impl Part for Around<'_> {
    const ROLE: Role = Role::Retry;

    fn describe(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl<T, E, X: Executor> Layer<T, E, X> for Around<'_> {
    type State<I> = I;

    fn idle<I>(&self, inner: I) -> I {
        inner
    }

    fn poll<N: Next<T, E, X>>(
        &self,
        state: Pin<&mut N::State>,
        next: &mut N,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        next.poll(state, scope.with_begun(self.0.id()), cx)
    }

    fn reset<N: Next<T, E, X>>(&self, state: Pin<&mut N::State>, next: &mut N, executor: &X) {
        next.reset(state, executor);
    }
}

#[test]
fn within_a_retry_of_the_same_budget_it_begins_with_nothing_of_its_own() {
    let (rig, shared, other) = (Rig::new(), Ledger::new(0), Ledger::new(0));
    let same = Pipeline::new(&rig).layer(Around(&shared)).layer(shared.hedge::<1>(ms(10)));
    assert_eq!(rig.run(same.call(async |_| Ok::<_, ()>(1))), Ok(1));
    assert_eq!(shared.asked.take(), [Asked::Join, Asked::End(Outcome::Success)]);
    let different = Pipeline::new(&rig).layer(Around(&other)).layer(shared.hedge::<1>(ms(10)));
    assert_eq!(rig.run(different.call(async |_| Ok::<_, ()>(1))), Ok(1));
    assert_eq!(shared.asked.take(), [Asked::Begin, Asked::End(Outcome::Success)]);
}

#[test]
fn what_lies_within_a_hedge_of_the_same_budget_begins_with_nothing_of_its_own() {
    let (rig, shared) = (Rig::new(), Ledger::new(0));
    // The one in between has no budget.
    let pipeline =
        Pipeline::new(&rig).layer(shared.hedge::<1>(ms(10))).layer(after::<1>(ms(10))).layer(shared.hedge::<1>(ms(10)));
    assert_eq!(rig.run(pipeline.call(async |_| Ok::<_, ()>(1))), Ok(1));
    let end = Asked::End(Outcome::Success);
    assert_eq!(shared.asked.take(), [Asked::Begin, Asked::Join, end, end]);
}

#[test]
fn whatever_becomes_of_the_call_the_budget_learns_that_it_has_ended() {
    static STEPS: [Step; 3] = [Step::Hang, Step::FailAfter(ms(5)), Step::SucceedAfter(ms(30))];
    let ledger = Ledger::new(u32::MAX);
    for polls in 0..9 {
        let (rig, service) = (Rig::new(), Script::new(&STEPS));
        let pipeline = Pipeline::new(&rig).layer(ledger.hedge::<2>(ms(10)));
        let mut call = Box::pin(pipeline.call(|_| service.call(&rig)));
        for _ in 0..polls {
            if poll_once(call.as_mut()).is_ready() {
                break;
            }
            assert_eq!(ledger.open.get(), 1);
            rig.jump();
        }
        drop(call);
        assert_eq!(ledger.open.get(), 0, "after {polls} polls");
    }
    // And when the operation panics, at once or when it is dropped.
    for bomb in [true, false] {
        let rig = Rig::new();
        let pipeline = Pipeline::new(&rig).layer(ledger.hedge::<2>(ms(10)));
        let call = Box::pin(pipeline.call(|attempt: Attempt| async move {
            let _bomb = Bomb(bomb);
            match attempt.hedge() {
                2 if !bomb => explode(),
                _ => crate::testing::never::<Result<(), ()>>().await,
            }
        }));
        let panics = explodes(|| {
            let mut call = call;
            for _ in 0..3 {
                assert!(poll_once(call.as_mut()).is_pending());
                rig.jump();
            }
        });
        assert!(panics);
        assert_eq!(ledger.open.get(), 0, "bomb: {bomb}");
    }
}
