//! An algorithm that looks at windows of calls and not at each one.

use core::time::Duration;

use super::{Algorithm, Average, Estimate, Limits, Sample, Summary};
use crate::cell::Fresh;
use crate::config::{ConfigError, Valid, refuse};
use crate::time::{Instant, Span};

/// The shortest window, unless said otherwise.
pub const SHORTEST_WINDOW: Duration = Duration::from_secs(1);
/// The longest window, unless said otherwise.
pub const LONGEST_WINDOW: Duration = Duration::from_secs(30);
/// Calls that a window has at the least, unless said otherwise.
pub const MINIMUM_SAMPLES: u32 = 10;

/// Another algorithm, to which a window of calls is one: their average latency (or what `S` makes of them), the most that were in
/// flight, and whether any was dropped.
///
/// A window lasts for twice the shortest latency of the one before, within bounds, and until it has enough calls. So one slow call
/// moves nothing, and the limit moves no more often than its effect can be seen.
///
/// ```
/// use core::time::Duration;
/// use failsoft_core::adaptive::{Gradient2, Percentile, Windowed};
/// use failsoft_core::Ratio;
///
/// let median = Percentile::new(Ratio::percent(50))?;
/// let second = Duration::from_secs(1);
/// let windows = Windowed::new(Gradient2::new().validate()?).with_summary(median).with_window(second, second).validate()?;
/// # let _ = windows;
/// # Ok::<(), failsoft_core::ConfigError>(())
/// ```
///
/// Source: Netflix's `WindowedLimit`; that a window waits for enough calls is from failsafe-go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Windowed<A, S = Average> {
    algorithm: A,
    summary: S,
    shortest: Span,
    longest: Span,
    minimum: u32,
}

impl<A: Copy> Windowed<A> {
    /// Windows for this algorithm, with the defaults of the [module's table](super#defaults).
    #[must_use]
    pub const fn new(algorithm: Valid<A>) -> Self {
        Self {
            algorithm: algorithm.get(),
            summary: Average,
            shortest: Span::of(SHORTEST_WINDOW),
            longest: Span::of(LONGEST_WINDOW),
            minimum: MINIMUM_SAMPLES,
        }
    }
}

impl<A: Copy, S: Copy> Windowed<A, S> {
    /// With another latency than their average.
    #[must_use]
    pub const fn with_summary<T: Copy>(self, summary: Valid<T>) -> Windowed<A, T> {
        let Self { algorithm, summary: _, shortest, longest, minimum } = self;
        Windowed { algorithm, summary: summary.get(), shortest, longest, minimum }
    }

    /// Windows of `shortest` to `longest`.
    #[must_use]
    pub const fn with_window(mut self, shortest: Duration, longest: Duration) -> Self {
        (self.shortest, self.longest) = (Span::of(shortest), Span::of(longest));
        self
    }

    /// So many calls at the least.
    #[must_use]
    pub const fn with_minimum_samples(mut self, calls: u32) -> Self {
        self.minimum = calls;
        self
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    /// The first field that doesn't, and why.
    pub const fn validate(self) -> Result<Valid<Self>, ConfigError> {
        if self.shortest.as_nanos() > self.longest.as_nanos() {
            return Err(refuse!("window", "has a shortest span above the longest"));
        }
        Ok(Valid::vouched(self))
    }
}

/// The window under way, around what the algorithm itself remembers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Window<M, L> {
    memory: M,
    latencies: L,
    calls: u32,
    shortest: Span,
    most_in_flight: u32,
    dropped: bool,
    ends: Instant,
}

impl<M: Fresh, L: Fresh> Fresh for Window<M, L> {
    const FRESH: Self = Self {
        memory: M::FRESH,
        latencies: L::FRESH,
        calls: 0,
        shortest: Span::MAX,
        most_in_flight: 0,
        dropped: false,
        ends: Instant::START,
    };
}

impl<M, L> Window<M, L> {
    /// What the algorithm remembers.
    pub const fn memory(&self) -> &M {
        &self.memory
    }
}

impl<A: Algorithm, S: Summary> Algorithm for Windowed<A, S> {
    type Memory = Window<A::Memory, S::Latencies>;

    const TIMED: bool = A::TIMED;

    fn record(&self, window: &mut Self::Memory, limit: Estimate, sample: &Sample, limits: &Limits) -> Estimate {
        let latency = sample.latency();
        self.summary.add(&mut window.latencies, latency);
        window.calls = window.calls.saturating_add(1);
        window.shortest = window.shortest.min(latency);
        window.most_in_flight = window.most_in_flight.max(sample.in_flight);
        window.dropped |= sample.dropped;
        if sample.ended < window.ends || window.calls < self.minimum {
            return limit;
        }
        let all = Sample {
            latency: self.summary.of(&window.latencies),
            in_flight: window.most_in_flight,
            dropped: window.dropped,
            ended: sample.ended,
        };
        let lasts = Span::from_nanos(window.shortest.as_nanos().saturating_mul(2));
        let ends = sample.ended.after(lasts.max(self.shortest).min(self.longest));
        *window = Window { memory: window.memory, ends, ..Fresh::FRESH };
        self.algorithm.record(&mut window.memory, limit, &all, limits)
    }

    fn poll_timeout(&self, window: &Self::Memory) -> Option<Instant> {
        self.algorithm.poll_timeout(&window.memory)
    }

    fn handle_timeout(&self, window: &mut Self::Memory, limit: Estimate, limits: &Limits, now: Instant) -> Estimate {
        self.algorithm.handle_timeout(&mut window.memory, limit, limits, now)
    }
}
