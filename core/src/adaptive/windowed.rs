//! An algorithm that looks at windows of calls and not at each one.

use core::time::Duration;

use super::{Algorithm, Average, Estimate, Limits, Sample, Summary};
use crate::cell::Fresh;
use crate::config::{ConfigError, Valid, refuse};
use crate::ratio::Ratio;
use crate::time::{Instant, Span};

/// The shortest window, unless said otherwise.
pub const SHORTEST_WINDOW: Duration = Duration::from_secs(1);
/// The longest window, unless said otherwise.
pub const LONGEST_WINDOW: Duration = Duration::from_secs(30);
/// Calls that a window has at the least, unless said otherwise.
pub const MINIMUM_SAMPLES: u32 = 10;
/// The share of a window's calls that must have been dropped for the window to count as dropped, unless said otherwise.
pub const DROPPED_SHARE: Ratio = Ratio::percent(10);

/// Another algorithm, to which a window of calls is one: the average latency of those that went well (or what `S` makes of them), the most
/// that were in flight, and whether many were dropped.
///
/// A window lasts for twice the shortest latency of the one before, within bounds, and until it has enough calls. So one call moves
/// little, and the limit moves no more often than its effect can be seen.
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
/// Source: Netflix's `WindowedLimit`; that a window waits for enough calls is from failsafe-go. There one call that was dropped is enough for
/// the whole window, and a window lasts for a second.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Windowed<A, S = Average> {
    algorithm: A,
    summary: S,
    shortest: Span,
    longest: Span,
    minimum: u32,
    dropped: Ratio,
}

impl<A: Algorithm> Windowed<A> {
    /// Windows for this algorithm, with the defaults of the [module's table](super#defaults). One that has windows of its own, as
    /// [`Gradient`](super::Gradient), does not compile.
    #[must_use]
    pub const fn new(algorithm: Valid<A>) -> Self {
        const { assert!(!A::TIMED, "this algorithm has windows of its own") }
        Self {
            algorithm: algorithm.get(),
            summary: Average,
            shortest: Span::of(SHORTEST_WINDOW),
            longest: Span::of(LONGEST_WINDOW),
            minimum: MINIMUM_SAMPLES,
            dropped: DROPPED_SHARE,
        }
    }
}

impl<A: Copy, S: Copy> Windowed<A, S> {
    /// With another latency than their average.
    #[must_use]
    pub const fn with_summary<T: Copy>(self, summary: Valid<T>) -> Windowed<A, T> {
        let Self { algorithm, summary: _, shortest, longest, minimum, dropped } = self;
        Windowed { algorithm, summary: summary.get(), shortest, longest, minimum, dropped }
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

    /// A window counts as dropped when this share of its calls was.
    #[must_use]
    pub const fn with_dropped_share(mut self, share: Ratio) -> Self {
        self.dropped = share;
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
        if self.dropped.as_basis_points() == 0 || !self.dropped.is_share() {
            return Err(refuse!("dropped_share", "is zero or above 1"));
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
    dropped: u32,
    ends: Instant,
}

impl<M: Fresh, L: Fresh> Fresh for Window<M, L> {
    const FRESH: Self = Self {
        memory: M::FRESH,
        latencies: L::FRESH,
        calls: 0,
        shortest: Span::MAX,
        most_in_flight: 0,
        dropped: 0,
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

    fn record(&self, window: &mut Self::Memory, limit: Estimate, sample: &Sample, limits: &Limits) -> Estimate {
        if sample.dropped {
            // How long it took says nothing: it may have failed at once.
            window.dropped = window.dropped.saturating_add(1);
        } else {
            let latency = sample.latency();
            self.summary.add(&mut window.latencies, latency);
            window.shortest = window.shortest.min(latency);
        }
        window.calls = window.calls.saturating_add(1);
        window.most_in_flight = window.most_in_flight.max(sample.in_flight);
        // Further ahead than any window lasts: the clock has stepped back.
        let over = sample.ended >= window.ends || window.ends > sample.ended.after(self.longest);
        if !over || window.calls < self.minimum {
            return limit;
        }
        let all = Sample {
            latency: self.summary.of(&window.latencies),
            in_flight: window.most_in_flight,
            // Where all were, there is no latency.
            dropped: self.dropped.reached_by(window.dropped, window.calls),
            ended: sample.ended,
        };
        let lasts = match window.shortest {
            Span::MAX => self.shortest,
            shortest => Span::from_nanos(shortest.as_nanos().saturating_mul(2)),
        };
        let ends = sample.ended.after(lasts.max(self.shortest).min(self.longest));
        *window = Window { memory: window.memory, ends, ..Fresh::FRESH };
        self.algorithm.record(&mut window.memory, limit, &all, limits)
    }
}
