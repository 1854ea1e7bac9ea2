//! Policies composed around an operation: one future, polled in the caller's task, nothing boxed.
//!
//! A [`Pipeline`] is a list of policies, the first named outermost, and an executor. [`Pipeline::call`] runs an operation
//! through it. One call is one [`Call`]: a struct with the operation in the middle and every policy's progress
//! around it, as large as its parts and no larger.
//!
//! # How it is driven
//! Every policy is a [`Layer`]. It keeps its progress in a plain `State` wrapped around the state of what lies within, and when
//! polled it is handed [`Next`]: the rest of the pipeline, which it can start, poll and reset as often as it likes. So a retry
//! starts the whole inside again by polling it once more, and nobody owns anybody: the operation and the policies are owned
//! once, at the root.
//!
//! Two promises hold between a layer and what lies within. `Ready` leaves the state idle, as new. And a state that is
//! not idle is never dropped silently but [`reset`](Layer::reset), from the outside in, so that its permits come back:
//! also when the caller drops the call, at any await, or the operation panics.

use core::fmt;
use core::future::Future;
use core::ops::Deref;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;

use crate::executor::Executor;
use crate::failure::{Cause, Failure, Policy, Reason, Rejected};
use crate::outcome::{Classify, ErrIsFailure, Verdict};
use crate::time::{Instant, Span};

mod optional;
pub mod order;
mod standard;

pub use optional::OptionalState;
pub use order::{Part, Role};
pub use standard::{Standard, StandardLayers};

/// What an attempt came to: the result for the caller, and the verdict for the policies around it.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Answer<T, E> {
    /// For the caller.
    pub result: Result<T, Failure<E>>,
    /// For the policies.
    pub verdict: Verdict,
}

impl<T, E> Answer<T, E> {
    /// What the operation came to, or something in its place, with the classifier's verdict.
    pub fn of(result: Result<T, E>, verdict: Verdict) -> Self {
        Self { result: result.map_err(|error| Failure::new(Cause::Inner(error))), verdict }
    }

    /// A policy's own answer, with the verdict that the policies around it act on.
    pub fn ended(failure: impl Into<Failure<E>>, verdict: Verdict) -> Self {
        Self { result: Err(failure.into()), verdict }
    }
}

/// What a layer knows of the call it is part of: the executor, the attempt, and the deadline that is passed down.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Scope<'x, X> {
    executor: &'x X,
    attempt: u32,
    hedge: u32,
    // The budget of the retry around, by its number; 0 is none.
    budget: usize,
    limit: Option<Span>,
    deadline: Deadline,
}

impl<X> Clone for Scope<'_, X> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<X> Copy for Scope<'_, X> {}

impl<'x, X> Scope<'x, X> {
    /// The executor.
    pub const fn executor(&self) -> &'x X {
        self.executor
    }

    /// The attempt's number; the first is 1.
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    pub(crate) const fn with_attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// Which hedge this is; 0 is the first try.
    pub const fn hedge(&self) -> u32 {
        self.hedge
    }

    pub(crate) const fn with_hedge(mut self, hedge: u32) -> Self {
        self.hedge = hedge;
        self
    }

    /// Whether the policy around has begun this call with this budget already.
    pub(crate) const fn has_begun(&self, budget: usize) -> bool {
        self.budget == budget
    }

    /// For what lies within a policy that has begun the call with the [budget](crate::budget::RetryBudget) of this number:
    /// it may share the budget, and does not begin with it again.
    #[must_use]
    pub const fn with_begun(mut self, budget: usize) -> Self {
        if budget != 0 {
            self.budget = budget;
        }
        self
    }

    pub(crate) const fn deadline(&self) -> Deadline {
        self.deadline
    }

    pub(crate) const fn with_deadline(mut self, deadline: Deadline) -> Self {
        self.deadline = deadline;
        self
    }

    /// The limit that the caller set for this call alone, which replaces the outermost timeout's.
    pub(crate) const fn take_limit(mut self) -> (Option<Span>, Self) {
        let limit = self.limit;
        self.limit = None;
        (limit, self)
    }
}

/// A deadline that may not have been worked out yet, because working it out takes a reading of the clock.
///
/// `at` is the earliest of those that have been; `within` is the shortest span of those that start with the next reading.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct Deadline {
    at: Instant,
    within: Span,
}

impl Deadline {
    pub(crate) const NEVER: Self = Self { at: Instant::MAX, within: Span::MAX };

    pub(crate) fn and_at(self, at: Instant) -> Self {
        Self { at: self.at.min(at), ..self }
    }

    pub(crate) fn and_within(self, within: Span) -> Self {
        Self { within: self.within.min(within), ..self }
    }

    /// The instant, given the time; [`Instant::MAX`] is none.
    pub(crate) fn from(self, now: Instant) -> Instant {
        self.at.min(now.after(self.within))
    }
}

/// What lies within a layer: the rest of the pipeline, down to the operation.
pub trait Next<T, E, X: Executor> {
    /// Its progress.
    type State;

    /// The progress before anything has started.
    fn idle(&self) -> Self::State;

    /// Starts it if it is idle, and drives it on. `Ready` leaves the state idle.
    fn poll(&mut self, state: Pin<&mut Self::State>, scope: Scope<'_, X>, cx: &mut Context<'_>) -> Poll<Answer<T, E>>;

    /// Gives up what is under way, if anything: drops the operation's future, returns the permits. The state is idle afterwards.
    fn reset(&mut self, state: Pin<&mut Self::State>, executor: &X);

    /// The classifier's verdict over a result that a layer puts in place of the operation's.
    fn judge(&self, result: Result<&T, &E>) -> Verdict;

    /// Whether the operation may be started once more; see [`Operation::is_repeatable`].
    fn is_repeatable(&self) -> bool;
}

/// A policy as a part of a pipeline, for operations that return `Result<T, E>`.
pub trait Layer<T, E, X: Executor>: Part {
    /// The policy's progress within one call, around the state `I` of what lies within.
    type State<I>;

    /// The progress before anything has started.
    fn idle<I>(&self, inner: I) -> Self::State<I>;

    /// Drives the policy on; see [`Next::poll`].
    fn poll<N: Next<T, E, X>>(
        &self,
        state: Pin<&mut Self::State<N::State>>,
        next: &mut N,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>>;

    /// Gives up what is under way; see [`Next::reset`].
    fn reset<N: Next<T, E, X>>(&self, state: Pin<&mut Self::State<N::State>>, next: &mut N, executor: &X);
}

/// A layer may be used by reference: a policy in a `static` can be part of many pipelines.
impl<T, E, X: Executor, L: Layer<T, E, X>> Layer<T, E, X> for &L {
    type State<I> = L::State<I>;

    fn idle<I>(&self, inner: I) -> Self::State<I> {
        (**self).idle(inner)
    }

    #[inline]
    fn poll<N: Next<T, E, X>>(
        &self,
        state: Pin<&mut Self::State<N::State>>,
        next: &mut N,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        (**self).poll(state, next, scope, cx)
    }

    fn reset<N: Next<T, E, X>>(&self, state: Pin<&mut Self::State<N::State>>, next: &mut N, executor: &X) {
        (**self).reset(state, next, executor);
    }
}

/// No policy at all.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Bare;

impl<T, E, X: Executor> Layer<T, E, X> for Bare {
    type State<I> = I;

    fn idle<I>(&self, inner: I) -> I {
        inner
    }

    #[inline]
    fn poll<N: Next<T, E, X>>(
        &self,
        state: Pin<&mut N::State>,
        next: &mut N,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        next.poll(state, scope, cx)
    }

    fn reset<N: Next<T, E, X>>(&self, state: Pin<&mut N::State>, next: &mut N, executor: &X) {
        next.reset(state, executor);
    }
}

/// One layer around another.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Stack<A, B> {
    outer: A,
    inner: B,
}

impl<A, B> Stack<A, B> {
    /// The layer around.
    pub const fn outer(&self) -> &A {
        &self.outer
    }

    /// The layer within.
    pub const fn inner(&self) -> &B {
        &self.inner
    }
}

impl<T, E, X: Executor, A: Layer<T, E, X>, B: Layer<T, E, X>> Layer<T, E, X> for Stack<A, B> {
    type State<I> = A::State<B::State<I>>;

    fn idle<I>(&self, inner: I) -> Self::State<I> {
        self.outer.idle(self.inner.idle(inner))
    }

    #[inline]
    fn poll<N: Next<T, E, X>>(
        &self,
        state: Pin<&mut Self::State<N::State>>,
        next: &mut N,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        self.outer.poll(state, &mut Through { layer: &self.inner, next }, scope, cx)
    }

    fn reset<N: Next<T, E, X>>(&self, state: Pin<&mut Self::State<N::State>>, next: &mut N, executor: &X) {
        self.outer.reset(state, &mut Through { layer: &self.inner, next }, executor);
    }
}

/// A layer with what lies within it, seen from outside.
pub(crate) struct Through<'n, L, N> {
    pub(crate) layer: &'n L,
    pub(crate) next: &'n mut N,
}

impl<T, E, X: Executor, L: Layer<T, E, X>, N: Next<T, E, X>> Next<T, E, X> for Through<'_, L, N> {
    type State = L::State<N::State>;

    fn idle(&self) -> Self::State {
        self.layer.idle(self.next.idle())
    }

    #[inline]
    fn poll(&mut self, state: Pin<&mut Self::State>, scope: Scope<'_, X>, cx: &mut Context<'_>) -> Poll<Answer<T, E>> {
        self.layer.poll(state, self.next, scope, cx)
    }

    fn reset(&mut self, state: Pin<&mut Self::State>, executor: &X) {
        self.layer.reset(state, self.next, executor);
    }

    #[inline]
    fn judge(&self, result: Result<&T, &E>) -> Verdict {
        self.next.judge(result)
    }

    #[inline]
    fn is_repeatable(&self) -> bool {
        self.next.is_repeatable()
    }
}

/// What the operation may know of the attempt it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Attempt {
    number: u32,
    hedge: u32,
    deadline: Instant,
}

impl Attempt {
    /// The first attempt is 1.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Which hedge this is: 0 is the first try, and all there is without a [`Hedge`](crate::hedge::Hedge). Of each attempt there
    /// may be several tries at once, so that each can ask another replica.
    #[must_use]
    pub const fn hedge(&self) -> u32 {
        self.hedge
    }

    /// When the timeouts around this attempt end it, as far as the clock has been read for them yet; a first attempt is
    /// usually ahead of that.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        if self.deadline.as_nanos() == Instant::MAX.as_nanos() { None } else { Some(self.deadline) }
    }
}

/// What a pipeline is around: started anew for every attempt.
///
/// Closures from an [`Attempt`] to a future are operations. A type of one's own is one where the [`Call`] has to have a name, which a
/// closure's type has not: as the future of a service, or in a `struct`.
///
/// ```
/// use core::future::{Ready, ready};
/// use failsoft_core::pipeline::{Attempt, Bare, Call, Operation, Pipeline};
/// use failsoft_core::{ErrIsFailure, testing::VirtualExecutor};
///
/// struct Double(u32);
/// type Doubled = Ready<Result<u32, ()>>;
///
/// impl Operation<u32, ()> for Double {
///     type Future = Doubled;
///
///     fn start(&mut self, _: Attempt) -> Doubled {
///         ready(Ok(2 * self.0))
///     }
/// }
///
/// type Virtual<'x> = &'x VirtualExecutor;
///
/// struct Job<'x> {
///     call: Call<&'x Pipeline<Virtual<'x>>, u32, (), Virtual<'x>, Bare, ErrIsFailure, Double, Doubled>,
/// }
///
/// let executor = VirtualExecutor::new();
/// let pipeline = Pipeline::new(&executor);
/// let job = Job { call: Call::of(&pipeline, Double(21)) };
/// assert_eq!(executor.run(job.call), Ok(Ok(42)));
/// ```
pub trait Operation<T, E> {
    /// One attempt.
    type Future: Future<Output = Result<T, E>>;

    /// Starts an attempt: the future does the work, when polled.
    fn start(&mut self, attempt: Attempt) -> Self::Future;

    /// Whether it may be started once more. By default it always may.
    ///
    /// An operation of which it turns out call by call says so here: a request that was sent, and is not idempotent or has a body that
    /// is spent. Then no retry starts it again and no hedge starts it beside itself, whatever the verdict; a failure's
    /// [`Stop`](crate::Stop) is `NotRetryable`. Before its first start it may: a call that was rejected has not been made. An attempt of a
    /// layer that does not ask is [rejected](Reason::NotRepeatable).
    #[inline]
    fn is_repeatable(&self) -> bool {
        true
    }
}

impl<T, E, F, Fut> Operation<T, E> for F
where
    F: FnMut(Attempt) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    type Future = Fut;

    #[inline]
    fn start(&mut self, attempt: Attempt) -> Fut {
        self(attempt)
    }
}

/// The operation with the classifier of its results: the innermost of all.
struct Innermost<'o, F, C> {
    operation: &'o mut F,
    classify: &'o C,
}

impl<T, E, X, F, C> Next<T, E, X> for Innermost<'_, F, C>
where
    X: Executor,
    F: Operation<T, E>,
    C: Classify<T, E>,
{
    type State = Option<F::Future>;

    fn idle(&self) -> Option<F::Future> {
        None
    }

    #[inline]
    fn poll(
        &mut self,
        mut state: Pin<&mut Option<F::Future>>,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        if state.is_none() {
            // Asked here, whoever starts it: a hedge's try may have waited for a permit while another one was made.
            if !self.operation.is_repeatable() {
                return Poll::Ready(Answer::ended(NOT_REPEATABLE, REJECTED));
            }
            let attempt = Attempt { number: scope.attempt, hedge: scope.hedge, deadline: scope.deadline.at };
            state.set(Some(self.operation.start(attempt)));
        }
        let Some(future) = state.as_mut().as_pin_mut() else { return Poll::Pending };
        let result = ready!(future.poll(cx));
        state.set(None);
        let verdict = self.classify.classify(result.as_ref());
        Poll::Ready(Answer::of(result, verdict))
    }

    fn reset(&mut self, mut state: Pin<&mut Option<F::Future>>, _: &X) {
        state.set(None);
    }

    #[inline]
    fn judge(&self, result: Result<&T, &E>) -> Verdict {
        self.classify.classify(result)
    }

    #[inline]
    fn is_repeatable(&self) -> bool {
        self.operation.is_repeatable()
    }
}

/// Policies in order, the first named outermost, with the executor that they run on and the classifier of the results.
///
/// The recommended order is fallback, total timeout, retry, bulkhead, circuit breaker, attempt timeout: so that a timed-out
/// attempt counts as a failure for the breaker and can be retried, a rejection costs nothing, and the whole has one end.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Pipeline<X, L = Bare, C = ErrIsFailure> {
    executor: X,
    layers: L,
    classify: C,
}

impl<X> Pipeline<X> {
    /// An operation without policies, on this executor.
    #[must_use]
    pub const fn new(executor: X) -> Self {
        Self { executor, layers: Bare, classify: ErrIsFailure }
    }
}

impl<X, L, C> Pipeline<X, L, C> {
    /// Adds a layer within those named before.
    ///
    /// An order that defeats itself does not compile: see [`order`].
    #[must_use]
    pub fn layer<P: Part>(self, layer: P) -> Pipeline<X, Stack<L, P>, C>
    where
        L: Part,
    {
        const { order::check::<L, P>() };
        self.layer_in_any_order(layer)
    }

    /// Adds a layer within those named before, whatever their order may defeat.
    #[must_use]
    pub fn layer_in_any_order<P>(self, layer: P) -> Pipeline<X, Stack<L, P>, C> {
        let Self { executor, layers, classify } = self;
        Pipeline { executor, layers: Stack { outer: layers, inner: layer }, classify }
    }

    /// Judges results with another classifier than "`Err` is a failure".
    #[must_use]
    pub fn classify<D>(self, classify: D) -> Pipeline<X, L, D> {
        Pipeline { executor: self.executor, layers: self.layers, classify }
    }

    /// The executor.
    pub const fn executor(&self) -> &X {
        &self.executor
    }

    /// Its layers, to look at what they have come to.
    pub const fn layers(&self) -> &L {
        &self.layers
    }

    /// Runs an operation through the pipeline: the operation is started anew for every attempt.
    ///
    /// # Errors
    /// The operation's own error, or the policy that ended the call; see [`Failure`].
    ///
    /// # Cancel safety
    /// Dropping the future at any point drops the operation's future and returns every permit. What the operation had
    /// done by then stays done.
    pub fn call<T, E, F, Fut>(&self, operation: F) -> Call<&Self, T, E, X, L, C, F, Fut>
    where
        X: Executor,
        L: Layer<T, E, X>,
        C: Classify<T, E>,
        F: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        Call::new(self, operation)
    }
}

pin_project_lite::pin_project! {
    /// One call through a pipeline: a future.
    ///
    /// `H` points to the pipeline: a reference, or an `Arc` for a call that is spawned. Polled again after its end, it starts
    /// the operation anew.
    ///
    /// `Fut` is the operation's future. It follows from the operation, but for a task that is sent the compiler forgets lifetimes, and with
    /// an error like `&'static str` could not tell any more.
    #[must_use = "futures do nothing unless polled"]
    pub struct Call<H, T, E, X, L, C, F, Fut>
    where
        H: Deref<Target = Pipeline<X, L, C>>,
        X: Executor,
        L: Layer<T, E, X>,
        C: Classify<T, E>,
        F: Operation<T, E, Future = Fut>,
        Fut: Future<Output = Result<T, E>>,
    {
        pipeline: H,
        operation: F,
        limit: Option<Span>,
        // Whether anything is under way, that dropping the call would have to give up.
        under_way: bool,
        #[pin]
        state: L::State<Option<Fut>>,
    }

    impl<H, T, E, X, L, C, F, Fut> PinnedDrop for Call<H, T, E, X, L, C, F, Fut>
    where
        H: Deref<Target = Pipeline<X, L, C>>,
        X: Executor,
        L: Layer<T, E, X>,
        C: Classify<T, E>,
        F: Operation<T, E, Future = Fut>,
        Fut: Future<Output = Result<T, E>>,
    {
        fn drop(this: Pin<&mut Self>) {
            if this.under_way {
                this.give_up();
            }
        }
    }
}

impl<H, T, E, X, L, C, F, Fut> Call<H, T, E, X, L, C, F, Fut>
where
    H: Deref<Target = Pipeline<X, L, C>>,
    X: Executor,
    L: Layer<T, E, X>,
    C: Classify<T, E>,
    F: Operation<T, E, Future = Fut>,
    Fut: Future<Output = Result<T, E>>,
{
    /// A call through the pipeline that `pipeline` points to; [`Pipeline::call`] is the short form for a reference.
    pub fn new(pipeline: H, operation: F) -> Self
    where
        F: FnMut(Attempt) -> Fut,
    {
        // That it is an operation follows from these bounds, but from them alone the compiler infers a closure's parameter.
        Self::of(pipeline, operation)
    }

    /// The same with any [`Operation`]: for a type of one's own.
    pub fn of(pipeline: H, operation: F) -> Self {
        let state = pipeline.layers.idle(None);
        Self { pipeline, operation, limit: None, under_way: false, state }
    }

    // Apart, so that what ends by itself has little to do at its end.
    #[cfg_attr(target_pointer_width = "64", cold, inline(never))]
    fn give_up(self: Pin<&mut Self>) {
        let this = self.project();
        let pipeline: &Pipeline<X, L, C> = this.pipeline;
        let mut innermost = Innermost { operation: this.operation, classify: &pipeline.classify };
        pipeline.layers.reset(this.state, &mut innermost, &pipeline.executor);
    }

    /// Replaces the limit of the pipeline's outermost timeout, for this call alone. A pipeline without one does not compile
    /// with this.
    pub fn with_timeout(mut self, limit: Duration) -> Self {
        const { assert!(L::ROLES.has(Role::Timeout), "the pipeline has no timeout whose limit this could replace") }
        self.limit = Some(Span::of(limit));
        self
    }
}

impl<H, T, E, X, L, C, F, Fut> Future for Call<H, T, E, X, L, C, F, Fut>
where
    H: Deref<Target = Pipeline<X, L, C>>,
    X: Executor,
    L: Layer<T, E, X>,
    C: Classify<T, E>,
    F: Operation<T, E, Future = Fut>,
    Fut: Future<Output = Result<T, E>>,
{
    type Output = Result<T, Failure<E>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let pipeline: &Pipeline<X, L, C> = this.pipeline;
        let mut innermost = Innermost { operation: this.operation, classify: &pipeline.classify };
        let (executor, limit) = (&pipeline.executor, *this.limit);
        let scope = Scope { executor, attempt: 1, hedge: 0, budget: 0, limit, deadline: Deadline::NEVER };
        // Before, so that it stays so when the operation panics.
        *this.under_way = true;
        let answer = ready!(pipeline.layers.poll(this.state, &mut innermost, scope, cx));
        *this.under_way = false;
        Poll::Ready(answer.result)
    }
}

impl<H, T, E, X, L, C, F, Fut> fmt::Debug for Call<H, T, E, X, L, C, F, Fut>
where
    H: Deref<Target = Pipeline<X, L, C>>,
    X: Executor,
    L: Layer<T, E, X>,
    C: Classify<T, E>,
    F: Operation<T, E, Future = Fut>,
    Fut: Future<Output = Result<T, E>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<H, T, E, X, L, C, F, Fut> defmt::Format for Call<H, T, E, X, L, C, F, Fut>
where
    H: Deref<Target = Pipeline<X, L, C>>,
    X: Executor,
    L: Layer<T, E, X>,
    C: Classify<T, E>,
    F: Operation<T, E, Future = Fut>,
    Fut: Future<Output = Result<T, E>>,
{
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Call {{ under_way: {} }}", self.under_way);
    }
}

/// What becomes of an attempt whose operation may not be started once more.
const NOT_REPEATABLE: Rejected = Rejected::new(Policy::Pipeline, Reason::NotRepeatable);

/// The verdict over a call that a policy did not let through: it says nothing about the dependency, and is retried only by a
/// retry that was asked to.
pub(crate) const REJECTED: Verdict = Verdict::IGNORED;

#[cfg(test)]
mod tests;
