//! Gradient: the latency of late against one that is measured without load from time to time.

use core::time::Duration;

use super::{Algorithm, Estimate, Limits, Percentile, Sample, Summary};
use crate::cell::Fresh;
use crate::config::{ConfigError, Valid, refuse};
use crate::ratio::Ratio;
use crate::rng::{Rng, share};
use crate::time::{Instant, Span};

/// How often the limit is worked out, unless said otherwise.
pub const UPDATE_INTERVAL: Duration = Duration::from_millis(100);
/// How often the latency without load is measured, unless said otherwise.
pub const MEASURE_INTERVAL: Duration = Duration::from_secs(60);
/// Calls that a measurement takes, unless said otherwise.
pub const MEASURED_CALLS: u32 = 50;
/// By how much that interval is longer at the most, unless said otherwise.
pub const JITTER: Ratio = Ratio::percent(15);
/// How much higher than without load a latency may be, unless said otherwise.
pub const BUFFER: Ratio = Ratio::percent(25);

/// Windows in a row at the lowest limit after which the latency without load is doubted.
const DOUBTED_AFTER: u8 = 5;

/// From time to time, and at first, the limit goes down to the lowest for a number of calls, and their latency is taken for that without load.
/// Otherwise the limit is multiplied at each update by the gradient, the latency without load over that of late, between a half
/// and two, and has its square root more than that as headroom.
///
/// It knows what the dependency does when left alone, and pays for it: while it measures, the lowest limit is in force, which should be one
/// that the dependency always bears. Where there are too few calls, a measurement ends after as long as there is between two.
///
/// Source: the gradient controller of Envoy's adaptive concurrency filter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Gradient {
    update_interval: Span,
    measure_interval: Span,
    measured_calls: u32,
    jitter: Ratio,
    buffer: Ratio,
    percentile: Percentile,
    rng: Rng,
}

impl Gradient {
    /// The defaults, as in the [module's table](super#defaults). The jitter comes from `seed` (entropy, or the device's own number) and the
    /// time.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            update_interval: Span::of(UPDATE_INTERVAL),
            measure_interval: Span::of(MEASURE_INTERVAL),
            measured_calls: MEASURED_CALLS,
            jitter: JITTER,
            buffer: BUFFER,
            percentile: Percentile::MEDIAN,
            rng: Rng::new(seed),
        }
    }

    /// Works the limit out this often, where there were calls.
    #[must_use]
    pub const fn with_update_interval(mut self, interval: Duration) -> Self {
        self.update_interval = Span::of(interval);
        self
    }

    /// Measures the latency without load this often.
    #[must_use]
    pub const fn with_measure_interval(mut self, interval: Duration) -> Self {
        self.measure_interval = Span::of(interval);
        self
    }

    /// Measures with so many calls.
    #[must_use]
    pub const fn with_measured_calls(mut self, calls: u32) -> Self {
        self.measured_calls = calls;
        self
    }

    /// Measures up to this share of the interval later, so that not all instances do at the same time.
    #[must_use]
    pub const fn with_jitter(mut self, jitter: Ratio) -> Self {
        self.jitter = jitter;
        self
    }

    /// A latency of up to this much more than without load is no sign of overload.
    #[must_use]
    pub const fn with_buffer(mut self, buffer: Ratio) -> Self {
        self.buffer = buffer;
        self
    }

    /// Which of the latencies of an interval, or of a measurement, stands for all.
    #[must_use]
    pub const fn with_percentile(mut self, percentile: Valid<Percentile>) -> Self {
        self.percentile = percentile.get();
        self
    }

    /// The interval between two updates.
    #[must_use]
    pub const fn update_interval(&self) -> Duration {
        self.update_interval.duration()
    }

    /// The interval between two measurements, without jitter.
    #[must_use]
    pub const fn measure_interval(&self) -> Duration {
        self.measure_interval.duration()
    }

    /// Calls that a measurement takes.
    #[must_use]
    pub const fn measured_calls(&self) -> u32 {
        self.measured_calls
    }

    /// The jitter.
    #[must_use]
    pub const fn jitter(&self) -> Ratio {
        self.jitter
    }

    /// The buffer.
    #[must_use]
    pub const fn buffer(&self) -> Ratio {
        self.buffer
    }

    /// Which of the latencies stands for all.
    #[must_use]
    pub const fn percentile(&self) -> Percentile {
        self.percentile
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    /// The first field that doesn't, and why.
    pub const fn validate(self) -> Result<Valid<Self>, ConfigError> {
        if self.update_interval.is_zero() {
            return Err(refuse!("update_interval", "is zero"));
        }
        if self.measure_interval.as_nanos() < self.update_interval.as_nanos() {
            return Err(refuse!(
                "measure_interval",
                "is below the update interval: there would be nothing but measuring"
            ));
        }
        if self.measured_calls == 0 {
            return Err(refuse!("measured_calls", "is zero: nothing would be measured"));
        }
        if !self.jitter.is_share() {
            return Err(refuse!("jitter", "is above 1"));
        }
        Ok(Valid::vouched(self))
    }

    fn begin(&self, memory: &mut Measured, limit: Estimate, limits: &Limits, now: Instant) -> Estimate {
        let measure_at = now.after(self.measure_interval);
        *memory =
            Measured { without_load: memory.without_load, since: now, before: limit, measure_at, ..Measured::FRESH };
        Estimate::of(limits.min())
    }

    fn end(&self, memory: &mut Measured, now: Instant) -> Estimate {
        let jitter = share(self.jitter.of(self.measure_interval.as_nanos()), self.random(now));
        let interval = Span::from_nanos(self.measure_interval.as_nanos().saturating_add(jitter));
        let before = memory.before;
        *memory = Measured {
            without_load: if memory.calls == 0 { memory.without_load } else { self.percentile.of(&memory.latencies) },
            since: memory.since,
            measuring: false,
            measure_at: now.after(interval),
            update_at: now.after(self.update_interval),
            ..Measured::FRESH
        };
        before
    }

    #[expect(clippy::cast_possible_truncation, reason = "both halves count")]
    const fn random(&self, now: Instant) -> u32 {
        let nanos = now.as_nanos();
        self.rng.at((nanos ^ (nanos >> 32)) as u32)
    }

    fn update(&self, memory: &mut Measured, limit: Estimate, limits: &Limits, now: Instant) -> Estimate {
        memory.update_at = now.after(self.update_interval);
        if memory.calls == 0 {
            return limit;
        }
        let late = self.percentile.of(&memory.latencies);
        (memory.latencies, memory.calls) = (Fresh::FRESH, 0);
        let borne = memory.without_load.as_nanos();
        let borne = Span::from_nanos(borne.saturating_add(self.buffer.of(borne)));
        let gradual = limit.times(borne, late).within(limit.share(Ratio::percent(50)), limit.plus(limit));
        let next = limits.clamp(Estimate::of(gradual.plus(gradual.root()).whole()));
        let lowest = limit.whole() == limits.min() && next.whole() == limits.min();
        memory.at_lowest = if lowest { memory.at_lowest.saturating_add(1) } else { 0 };
        // So low for so long: rather what was measured is wrong.
        if memory.at_lowest >= DOUBTED_AFTER { self.begin(memory, next, limits, now) } else { next }
    }
}

/// What the gradient remembers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Measured {
    without_load: Span,
    latencies: <Percentile as Summary>::Latencies,
    calls: u32,
    measuring: bool,
    at_lowest: u8,
    /// Calls that began before are not looked at.
    since: Instant,
    /// The limit before the measurement.
    before: Estimate,
    pub(super) measure_at: Instant,
    update_at: Instant,
}

impl Fresh for Measured {
    const FRESH: Self = Self {
        without_load: Span::ZERO,
        latencies: Fresh::FRESH,
        calls: 0,
        measuring: true,
        at_lowest: 0,
        since: Instant::START,
        before: Estimate::of(0),
        measure_at: Instant::MAX,
        update_at: Instant::MAX,
    };
}

impl Measured {
    /// Whether the latency without load is being measured.
    #[must_use]
    pub const fn is_measuring(&self) -> bool {
        self.measuring
    }

    /// The latency without load; zero before the first measurement is over.
    #[must_use]
    pub const fn without_load(&self) -> Duration {
        self.without_load.duration()
    }
}

impl Algorithm for Gradient {
    type Memory = Measured;

    const TIMED: bool = true;

    /// A call that was dropped says nothing.
    fn record(&self, memory: &mut Measured, limit: Estimate, sample: &Sample, limits: &Limits) -> Estimate {
        let now = sample.ended;
        let limit = if memory.measure_at == Instant::MAX {
            // The first call there is: the first measurement has begun.
            *memory = Measured { before: limit, measure_at: now.after(self.measure_interval), ..Measured::FRESH };
            Estimate::of(limits.min())
        } else {
            self.handle_timeout(memory, limit, limits, now)
        };
        if sample.dropped || sample.started() < memory.since {
            return limit;
        }
        self.percentile.add(&mut memory.latencies, sample.latency());
        memory.calls = memory.calls.saturating_add(1);
        if memory.measuring && memory.calls >= self.measured_calls { self.end(memory, now) } else { limit }
    }

    fn poll_timeout(&self, memory: &Measured) -> Option<Instant> {
        Some(memory.update_at.min(memory.measure_at)).filter(|at| *at != Instant::MAX)
    }

    fn handle_timeout(&self, memory: &mut Measured, limit: Estimate, limits: &Limits, now: Instant) -> Estimate {
        // Further ahead than they are ever set: the clock has stepped back.
        memory.since = memory.since.min(now);
        let longest = Span::from_nanos(self.measure_interval.as_nanos().saturating_mul(2));
        let due = |at: Instant, longest: Span| now >= at || at > now.after(longest);
        let mut limit = limit;
        if memory.measuring {
            if memory.measure_at != Instant::MAX && due(memory.measure_at, longest) {
                if memory.calls == 0 && memory.without_load.is_zero() {
                    // Nothing is known at all: it goes on.
                    memory.measure_at = now.after(self.measure_interval);
                } else {
                    limit = self.end(memory, now);
                }
            }
            return limit;
        }
        if due(memory.update_at, self.update_interval) {
            limit = self.update(memory, limit, limits, now);
        }
        if !memory.measuring && due(memory.measure_at, longest) {
            limit = self.begin(memory, limit, limits, now);
        }
        limit
    }
}
