//! A part that may be left out at run time.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};

use super::order::{Part, Role, Roles};
use super::{Answer, Layer, Next, Scope};
use crate::executor::Executor;

pin_project_lite::pin_project! {
    /// The progress of a part that may be left out: its own, or that of what lies within.
    #[derive(Debug)]
    #[cfg_attr(feature = "defmt", derive(defmt::Format))]
    pub struct OptionalState<S, I> {
        #[pin]
        progress: Progress<S, I>,
    }
}

pin_project_lite::pin_project! {
    #[derive(Debug)]
    #[cfg_attr(feature = "defmt", derive(defmt::Format))]
    #[project = Projected]
    enum Progress<S, I> {
        Present { #[pin] state: S },
        Absent { #[pin] inner: I },
    }
}

/// What is left out writes no line, but keeps its role: the order of the parts is looked at as if it were there.
impl<P: Part> Part for Option<P> {
    const ROLE: Role = P::ROLE;
    const ROLES: Roles = P::ROLES;

    fn is_absent(&self) -> bool {
        self.as_ref().is_none_or(Part::is_absent)
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().map_or(Ok(()), |part| part.describe(f))
    }
}

/// A policy that may be left out at run time, by a file of settings say: `None` costs a comparison. A timeout that is left out
/// leaves the [limit of a call's own](crate::pipeline::Call::with_timeout) to the next one within.
///
/// ```
/// use core::time::Duration;
/// use failsoft_core::{Pipeline, testing::VirtualExecutor, timeout::Timeout};
///
/// let executor = VirtualExecutor::new();
/// let limit: Option<Duration> = None;
/// let pipeline = Pipeline::new(&executor).layer(limit.map(Timeout::new));
/// assert_eq!(executor.run(pipeline.call(async |_| Ok::<_, ()>(7))), Ok(Ok(7)));
/// ```
impl<T, E, X: Executor, L: Layer<T, E, X>> Layer<T, E, X> for Option<L> {
    type State<I> = OptionalState<L::State<I>, I>;

    fn idle<I>(&self, inner: I) -> Self::State<I> {
        let progress = match self {
            Some(layer) => Progress::Present { state: layer.idle(inner) },
            None => Progress::Absent { inner },
        };
        OptionalState { progress }
    }

    #[inline]
    fn poll<N: Next<T, E, X>>(
        &self,
        state: Pin<&mut Self::State<N::State>>,
        next: &mut N,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        match (self, state.project().progress.project()) {
            (Some(layer), Projected::Present { state }) => layer.poll(state, next, scope, cx),
            (_, Projected::Absent { inner }) => next.poll(inner, scope, cx),
            // Nobody takes a part out of a pipeline whose calls are under way.
            (None, Projected::Present { .. }) => Poll::Pending,
        }
    }

    fn reset<N: Next<T, E, X>>(&self, state: Pin<&mut Self::State<N::State>>, next: &mut N, executor: &X) {
        match (self, state.project().progress.project()) {
            (Some(layer), Projected::Present { state }) => layer.reset(state, next, executor),
            (_, Projected::Absent { inner }) => next.reset(inner, executor),
            (None, Projected::Present { .. }) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;
    use core::time::Duration;
    use std::string::ToString;

    use super::*;
    use crate::backoff::Backoff;
    use crate::budget::{QuotaBudget, QuotaConfig};
    use crate::bulkhead::{self, Bulkhead};
    use crate::cell::Local;
    use crate::circuit_breaker::{self, CircuitBreaker};
    use crate::failure::Stop;
    use crate::pipeline::{Pipeline, Standard};
    use crate::retry::{self, RetryPolicy};
    use crate::testing::tests::{Rig, ms, poll_once};
    use crate::testing::{Script, Scripted, Step, never};
    use crate::timeout::Timeout;
    use crate::valid;

    fn twice() -> RetryPolicy {
        RetryPolicy::new(valid!(retry::Config::new().with_max_attempts(2).with_backoff(Backoff::none()).validate()))
    }

    fn one_at_once() -> Bulkhead<Local> {
        Bulkhead::new(valid!(bulkhead::Config::new(1).validate()))
    }

    #[test]
    fn what_is_there_acts_and_what_is_left_out_does_not() {
        for (retry, result) in [(Some(twice()), Ok(2)), (None, Err(()))] {
            let (rig, service) = (Rig::new(), Script::new(&[Step::Fail, Step::Succeed]));
            let pipeline = Pipeline::new(&rig).layer(retry);
            let called = rig.run(pipeline.call(|_| service.call(&rig)));
            assert_eq!(called.map_err(drop), result);
        }
    }

    #[test]
    fn each_part_is_there_or_not_by_itself() {
        let (rig, bulkhead) = (Rig::new(), one_at_once());
        for (first, second) in [(true, true), (true, false), (false, true), (false, false)] {
            let pipeline =
                Pipeline::new(&rig).layer(first.then(|| Timeout::new(ms(10)))).layer(second.then_some(&bulkhead));
            let holds = Cell::new(0);
            let call = pipeline.call(|_| {
                holds.set(bulkhead.snapshot().in_use);
                async { Ok::<_, &str>(7) }
            });
            assert_eq!(rig.run(call), Ok(7));
            assert_eq!((holds.get(), bulkhead.snapshot().in_use), (second.into(), 0));
            let hangs = rig.run(
                Pipeline::new(&rig)
                    .layer(Timeout::new(ms(50)))
                    .layer(pipeline.layers)
                    .call(|_| never::<Result<(), &str>>()),
            );
            let limit = if first { 10 } else { 50 };
            assert_eq!(hangs.map_err(|failure| failure.to_string()), Err(std::format!("timed out after {limit}ms")));
            assert_eq!((bulkhead.snapshot().in_use, rig.live()), (0, 0), "what is given up comes back");
        }
    }

    #[test]
    fn a_call_that_is_dropped_gives_back_what_lies_within_a_part_that_is_left_out() {
        let (rig, bulkhead) = (Rig::new(), one_at_once());
        let pipeline = Pipeline::new(&rig).layer(None::<Timeout>).layer(&bulkhead);
        let mut call = std::boxed::Box::pin(pipeline.call(|_| never::<Result<(), &str>>()));
        assert!(poll_once(call.as_mut()).is_pending());
        assert_eq!(bulkhead.snapshot().in_use, 1);
        drop(call);
        assert_eq!(bulkhead.snapshot().in_use, 0);
    }

    #[test]
    fn what_is_left_out_writes_no_line_wherever_it_stands() {
        let breaker = CircuitBreaker::<Local>::new(valid!(circuit_breaker::Config::new().validate()));
        let there = |present: bool| present.then(|| Timeout::new(Duration::from_secs(1)));
        for bits in 0..16_u8 {
            let [first, second, third, fourth] = [1, 2, 4, 8].map(|bit| there(bits & bit != 0));
            let within = Pipeline::new(()).layer(third).layer(fourth).layers;
            let pipeline = Pipeline::new(()).layer(first).layer(second).layer(within);
            let lines = ["timeout: 1s"; 4];
            let expected =
                lines.iter().take(bits.count_ones() as usize).copied().collect::<std::vec::Vec<_>>().join("\n");
            assert_eq!(pipeline.to_string(), expected, "{bits:04b}");
        }
        let text = Pipeline::new(()).layer(Some(None::<Timeout>)).layer(&None::<Timeout>).layer(&breaker).to_string();
        assert_eq!(text.lines().count(), 1, "{text}");
    }

    #[test]
    fn the_standard_parts_are_a_layer_by_themselves() {
        let rig = Rig::new();
        let layers = Standard::new().with_retry(Some(twice())).with_total_timeout(None::<Timeout>).layers();
        let pipeline = Pipeline::new(&rig).layer(layers);
        assert_eq!(pipeline.to_string(), "retry: 2 attempts, at once");
        let service = Script::new(&[Step::Fail, Step::Succeed]);
        assert_eq!(rig.run(pipeline.call(|_| service.call(&rig))), Ok(2));
    }

    #[test]
    fn a_budget_that_is_left_out_allows_everything_and_one_that_is_there_does_not() {
        let budget = QuotaBudget::<Local>::new(valid!(QuotaConfig::new().with_capacity(5).validate()));
        let config = valid!(retry::Config::new().with_max_attempts(4).with_backoff(Backoff::none()).validate());
        let cases = [(None, (4, Some(Stop::Attempts)), 5), (Some(&budget), (2, Some(Stop::Budget)), 0)];
        for (budget_of_it, (attempts, stop), left) in cases {
            let (rig, service) = (Rig::new(), Script::new(&[Step::Fail]));
            let pipeline = Pipeline::new(&rig).layer(RetryPolicy::with_budget(config, (), budget_of_it));
            assert_eq!(pipeline.to_string().ends_with("on a budget"), budget_of_it.is_some());
            let failure =
                rig.run(pipeline.call(|_| service.call(&rig))).map_err(|failure| (failure.attempts, failure.stop));
            assert_eq!((failure, budget.balance()), (Err::<u32, _>((attempts, stop)), left));
        }
    }

    #[test]
    fn the_progress_of_a_part_that_may_be_left_out_is_as_large_as_its_own_or_hardly_larger() {
        let own = size_of::<<Timeout as Layer<u32, Scripted, &Rig>>::State<u64>>();
        let optional = size_of::<<Option<Timeout> as Layer<u32, Scripted, &Rig>>::State<u64>>();
        assert!(optional <= own.saturating_add(8), "{own} and {optional}");
    }
}
