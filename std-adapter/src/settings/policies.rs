//! What a program has of its settings: policies by name, whose settings are replaced while they are in use.

use core::fmt;
use core::pin::Pin;
#[cfg(feature = "metrics")]
use core::sync::atomic::AtomicBool;
use core::task::{Context, Poll};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, Weak};

use arc_swap::ArcSwap;
use failsoft_core::circuit_breaker::{StateKind, Transition};
use failsoft_core::pipeline::order::Roles;
use failsoft_core::pipeline::{Answer, Bare, Layer, Next, Part, Role, Scope, Standard, StandardLayers};
use failsoft_core::retry::{RetryPolicy, Retrying};
use failsoft_core::timeout::Timeout;
use failsoft_core::{Clock, Executor, Observer};

use super::Settings;
use super::breaker::Breaker;
use super::build::{PolicySettings, RetrySettings};
use super::section::choice;
use crate::shared::Shared;
use crate::sync::Mutex;
use crate::{Bulkhead, LiveRateLimiter, TokenBudget};

/// The parts of a [`PolicySet`], each of which may be left out: total timeout, retry, rate limiter, bulkhead, circuit breaker, attempt
/// timeout.
pub type PolicyLayers<O = ()> = StandardLayers<
    Bare,
    Option<Timeout>,
    Option<RetryPolicy<O, Option<Shared<TokenBudget>>>>,
    Option<Shared<LiveRateLimiter>>,
    Option<Shared<Bulkhead>>,
    Option<Shared<Breaker<O>>>,
    Option<Timeout>,
>;

/// A policy that the settings don't have.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct UnknownPolicy {
    name: String,
    choice: String,
}

impl UnknownPolicy {
    /// The name that was asked for.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no policy `{}` in the settings; valid: {}", self.name, self.choice)
    }
}

impl core::error::Error for UnknownPolicy {}

/// What other settings have changed: the names of policies.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Changes {
    added: Vec<String>,
    changed: Vec<String>,
    removed: Vec<String>,
}

impl Changes {
    /// Policies that were not there before.
    #[must_use]
    pub fn added(&self) -> &[String] {
        &self.added
    }

    /// Policies with other settings than before.
    #[must_use]
    pub fn changed(&self) -> &[String] {
        &self.changed
    }

    /// Policies that are no longer there.
    #[must_use]
    pub fn removed(&self) -> &[String] {
        &self.removed
    }

    /// Whether nothing has changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

/// `added: a, b; changed: c`.
impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = [("added", &self.added), ("changed", &self.changed), ("removed", &self.removed)];
        let lists = lists.iter().filter(|(_, names)| !names.is_empty());
        let lists: Vec<_> = lists.map(|(what, names)| format!("{what}: {}", names.join(", "))).collect();
        f.write_str(if lists.is_empty() { "nothing changed" } else { "" })?;
        f.write_str(&lists.join("; "))
    }
}

/// Policies by name, made of [`Settings`]; see the [module](super).
pub struct Policies<O = ()> {
    sets: ArcSwap<BTreeMap<String, PolicySet<O>>>,
    observe: Box<dyn Fn(&str) -> O + Send + Sync>,
    // Held while settings are replaced. Of names that are gone, the sets that somebody still has.
    gone: Mutex<BTreeMap<String, Weak<Inner<O>>>>,
}

impl<O> fmt::Debug for Policies<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policies").field("names", &self.names()).finish_non_exhaustive()
    }
}

impl Policies {
    /// The policies of these settings.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self::with_observers(settings, |_| ())
    }
}

impl<O> Policies<O> {
    /// The names there are, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.sets.load().keys().cloned().collect()
    }

    /// The policy of this name: a layer for pipelines, which may be kept. It takes part in reloads, but for the time that its name is
    /// not in the settings.
    ///
    /// # Errors
    /// The name is not in the settings.
    pub fn get(&self, name: &str) -> Result<PolicySet<O>, UnknownPolicy> {
        let sets = self.sets.load();
        let unknown = || UnknownPolicy { name: name.into(), choice: choice(name, sets.keys().map(String::as_str)) };
        sets.get(name).cloned().ok_or_else(unknown)
    }
}

impl<O: Clone + Observer<Retrying> + Observer<Transition>> Policies<O> {
    /// The policies of these settings, and who is told of the transitions and retries of each: `observe` makes that of a name.
    #[must_use]
    pub fn with_observers(settings: &Settings, observe: impl Fn(&str) -> O + Send + Sync + 'static) -> Self {
        let made =
            settings.policies.iter().map(|(name, settings)| (name.clone(), PolicySet::new(settings, observe(name))));
        let sets = ArcSwap::from_pointee(made.collect());
        Self { sets, observe: Box::new(observe), gone: Mutex::default() }
    }

    /// Puts other settings in force, for all calls that begin from now on; see [what stays](super#what-stays). Settings have been
    /// checked when they were read, so nothing here can go wrong. An observer that is told of what this brings about must not reload.
    pub fn reload(&self, settings: &Settings, clock: &impl Clock) -> Changes {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        gone.retain(|_, set| set.strong_count() > 0);
        let before = self.sets.load_full();
        let mut changes = Changes::default();
        let mut sets = BTreeMap::new();
        // All that are new first: to make them is the user's code in part.
        for (name, settings) in &settings.policies {
            let set = before.get(name).cloned().unwrap_or_else(|| {
                changes.added.push(name.clone());
                let kept = gone.get(name).and_then(Weak::upgrade).map(PolicySet);
                kept.unwrap_or_else(|| PolicySet::new(settings, (self.observe)(name)))
            });
            sets.insert(name.clone(), set);
        }
        for (name, set) in &sets {
            gone.remove(name);
            let other = settings.policies.get(name).is_some_and(|settings| set.reload(settings, clock));
            if other && before.contains_key(name) {
                changes.changed.push(name.clone());
            }
        }
        for (name, set) in before.iter().filter(|(name, _)| !sets.contains_key(*name)) {
            gone.insert(name.clone(), Arc::downgrade(&set.0));
            changes.removed.push(name.clone());
        }
        self.sets.store(Arc::new(sets));
        changes
    }
}

/// All policies of one name, as one layer of a pipeline; a handle that is cheap to clone.
///
/// A call goes by the settings that are in force when it is made: other settings that come meanwhile are for later calls.
pub struct PolicySet<O = ()>(pub(super) Arc<Inner<O>>);

pub(super) struct Inner<O> {
    version: ArcSwap<Version<O>>,
    observer: O,
    /// Whether there was a breaker when its gauges were last asked for.
    #[cfg(feature = "metrics")]
    pub(super) has_breaker: AtomicBool,
}

impl<O> Clone for PolicySet<O> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<O> fmt::Debug for PolicySet<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicySet").field("settings", &self.0.version.load().settings).finish_non_exhaustive()
    }
}

impl<O> PolicySet<O> {
    /// Whether these are the same policies: handles of one set are.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The budget of the retries, if there is one.
    #[must_use]
    pub fn budget(&self) -> Option<Shared<TokenBudget>> {
        self.0.version.load().parts.budget.clone()
    }

    /// The rate limiter, if there is one.
    #[must_use]
    pub fn rate_limiter(&self) -> Option<Shared<LiveRateLimiter>> {
        self.0.version.load().parts.limiter.clone()
    }

    /// The bulkhead, if there is one.
    #[must_use]
    pub fn bulkhead(&self) -> Option<Shared<Bulkhead>> {
        self.0.version.load().parts.bulkhead.clone()
    }

    /// The circuit breaker, if there is one.
    #[must_use]
    pub fn circuit_breaker(&self) -> Option<Shared<Breaker<O>>> {
        self.0.version.load().parts.breaker.clone()
    }
}

impl<O: Clone + Observer<Retrying> + Observer<Transition>> PolicySet<O> {
    fn new(settings: &PolicySettings, observer: O) -> Self {
        let parts = Parts::new(settings, &observer);
        let version = ArcSwap::from_pointee(Version::new(settings.clone(), parts, &observer));
        Self(Arc::new(Inner {
            version,
            observer,
            #[cfg(feature = "metrics")]
            has_breaker: AtomicBool::new(false),
        }))
    }

    /// Puts these settings in force; whether they are others than before.
    fn reload(&self, settings: &PolicySettings, clock: &impl Clock) -> bool {
        let before = self.0.version.load_full();
        if before.settings == *settings {
            return false;
        }
        let parts = before.parts.carried(&before.settings, settings, &self.0.observer, clock);
        let breaker = parts.breaker.clone();
        self.0.version.store(Arc::new(Version::new(settings.clone(), parts, &self.0.observer)));
        // Last, since it may tell the observer, who finds all else in force.
        if let (Some(breaker), Some(config)) = (breaker, settings.breaker) {
            breaker.reconfigure(&config, clock);
            // By hand it was held open, and by hand it will be closed: also where its kind has changed.
            let held = before.parts.breaker.as_ref().is_some_and(|old| old.state() == StateKind::Isolated);
            if held && breaker.state() != StateKind::Isolated {
                breaker.isolate();
            }
        }
        true
    }
}

/// Settings, and what is in force by them.
struct Version<O> {
    settings: PolicySettings,
    parts: Parts<O>,
    layers: PolicyLayers<O>,
}

impl<O: Clone + Observer<Retrying> + Observer<Transition>> Version<O> {
    fn new(settings: PolicySettings, parts: Parts<O>, observer: &O) -> Self {
        let retry = settings.retry.map(|RetrySettings { config, .. }| {
            RetryPolicy::with_budget(config, observer.clone(), parts.budget.clone())
        });
        let layers = Standard::new()
            .with_total_timeout(settings.timeout.map(Timeout::new))
            .with_retry(retry)
            .with_rate_limiter(parts.limiter.clone())
            .with_bulkhead(parts.bulkhead.clone())
            .with_breaker(parts.breaker.clone())
            .with_attempt_timeout(settings.attempt_timeout.map(Timeout::new))
            .layers();
        Self { settings, parts, layers }
    }
}

/// The policies that have a state of their own, which outlives their settings.
struct Parts<O> {
    budget: Option<Shared<TokenBudget>>,
    limiter: Option<Shared<LiveRateLimiter>>,
    bulkhead: Option<Shared<Bulkhead>>,
    breaker: Option<Shared<Breaker<O>>>,
}

impl<O: Clone + Observer<Transition>> Parts<O> {
    fn new(settings: &PolicySettings, observer: &O) -> Self {
        Self {
            budget: settings.budget().map(|config| Shared::new(TokenBudget::new(config))),
            limiter: settings.rate_limit.map(|config| Shared::new(LiveRateLimiter::new(config))),
            bulkhead: settings.bulkhead.map(|bulkhead| Shared::new(Bulkhead::new(bulkhead.config))),
            breaker: settings.breaker.map(|config| Shared::new(Breaker::new(&config, observer.clone()))),
        }
    }

    /// These under other settings: as they are, or changed in place where that can be, or else new ones.
    fn carried(&self, before: &PolicySettings, settings: &PolicySettings, observer: &O, clock: &impl Clock) -> Self {
        let mut parts = Self::new(settings, observer);
        if before.budget() == settings.budget() {
            parts.budget.clone_from(&self.budget);
        } else if let (Some(old), Some(new)) = (&self.budget, &parts.budget) {
            new.restore(old.balance(clock), clock);
        }
        if let (Some(old), Some(config)) = (&self.limiter, settings.rate_limit) {
            if before.rate_limit != settings.rate_limit {
                old.reconfigure(config, clock);
            }
            parts.limiter = Some(old.clone());
        }
        if let (Some(old), Some(was), Some(is)) = (&self.bulkhead, before.bulkhead, settings.bulkhead)
            // In this order: a bulkhead of another queue is not resized.
            && was.waiting == is.waiting
            && (was == is || old.resize(is.permits).is_ok())
        {
            parts.bulkhead = Some(old.clone());
        }
        // It is reconfigured later.
        if let (Some(old), Some(config)) = (&self.breaker, settings.breaker)
            && old.takes(&config)
        {
            parts.breaker = Some(old.clone());
        }
        parts
    }
}

pin_project_lite::pin_project! {
    /// A set's progress within a call: that of its parts, and the settings that the call began with.
    pub struct SetState<O, S> {
        // Counted, not a guard of the swap's: of these a thread has few, and a call may last.
        version: Arc<Version<O>>,
        #[pin]
        state: S,
    }
}

impl<O, S> fmt::Debug for SetState<O, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetState").field("settings", &self.version.settings).finish_non_exhaustive()
    }
}

impl<O> Part for PolicySet<O>
where
    PolicyLayers<O>: Part,
{
    const ROLE: Role = Role::Other;
    const ROLES: Roles = <PolicyLayers<O> as Part>::ROLES;

    fn is_absent(&self) -> bool {
        self.0.version.load().layers.is_absent()
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.version.load().layers.describe(f)
    }
}

impl<T, E, X, O> Layer<T, E, X> for PolicySet<O>
where
    X: Executor,
    O: Observer<Retrying> + Observer<Transition>,
{
    type State<I> = SetState<O, <PolicyLayers<O> as Layer<T, E, X>>::State<I>>;

    fn idle<I>(&self, inner: I) -> Self::State<I> {
        let version = self.0.version.load_full();
        let state = Layer::<T, E, X>::idle(&version.layers, inner);
        SetState { version, state }
    }

    #[inline]
    fn poll<N: Next<T, E, X>>(
        &self,
        state: Pin<&mut Self::State<N::State>>,
        next: &mut N,
        scope: Scope<'_, X>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, E>> {
        let this = state.project();
        this.version.layers.poll(this.state, next, scope, cx)
    }

    fn reset<N: Next<T, E, X>>(&self, state: Pin<&mut Self::State<N::State>>, next: &mut N, executor: &X) {
        let this = state.project();
        this.version.layers.reset(this.state, next, executor);
    }
}
