//! Where events go: one static sink per policy.

/// Receives a policy's events, after the change, outside any lock, exactly once each.
///
/// `()` receives nothing and costs nothing. A closure or function is a sink too, so that a `static` can name one:
///
/// ```
/// use failsoft_core::{cell::Local, circuit_breaker::{CircuitBreaker, ConsecutiveFailures, Config, Transition}};
///
/// fn log(event: &Transition) {
///     println!("{:?} -> {:?}", event.from, event.to);
/// }
/// type Breaker = CircuitBreaker<Local, ConsecutiveFailures, fn(&Transition)>;
/// let breaker: Breaker = CircuitBreaker::new(Config::new())?.with_observer(log);
/// # let _ = breaker;
/// # Ok::<(), failsoft_core::ConfigError>(())
/// ```
pub trait Observer<Event> {
    /// Takes note of an event. It must not block; it may call back into the policy.
    fn observe(&self, event: &Event);
}

impl<Event> Observer<Event> for () {
    fn observe(&self, _: &Event) {}
}

impl<Event, F: Fn(&Event)> Observer<Event> for F {
    fn observe(&self, event: &Event) {
        self(event);
    }
}
