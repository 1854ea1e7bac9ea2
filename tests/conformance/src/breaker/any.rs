//! Any trip condition in one type, so that the breaker around it is compiled once for all dialects: a chip has room for that.

use core::time::Duration;

use failsoft_core::Instant;
use failsoft_core::backoff::Backoff;
use failsoft_core::cell::{Fresh, InPlace};
use failsoft_core::circuit_breaker::{
    self, AverageOfCalls, AverageOverTime, ConsecutiveFailures, CountBased, Counts, Growing, Opening, Sample,
    TimeBased, Trip,
};
use failsoft_core::{Ratio, Span};

use crate::number::Decimal;
use crate::tape::{List, Value};
use crate::vector::{Result, Unsupported};

/// Memory of the windows of calls: 1,024 of them.
const WORDS: usize = 32;

type Both<A, B> = (Growing<A>, Growing<B>);

/// The conditions by name and type, and how a window of so many buckets becomes one of them.
macro_rules! conditions {
    ([$($name:ident: $condition:ty),* $(,)?] [$($(#[$whether:meta])* $window:ident: $buckets:literal),* $(,)?]) => {
        /// A condition of the library's.
        #[derive(Clone, Copy, Debug)]
        enum Condition {
            $($name($condition),)*
            $($(#[$whether])* $window(TimeBased<$buckets>),)*
        }

        /// What it counts.
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[expect(clippy::large_enum_variant, reason = "there is one at a time, and no heap")]
        pub(crate) enum Meter {
            /// Which condition it is for turns out with the first call.
            Unused,
            /// The breaker is not closed: its deadline.
            Kept(Instant),
            $($name(<$condition as Trip>::Meter),)*
            $($(#[$whether])* $window(<TimeBased<$buckets> as Trip>::Meter),)*
        }

        impl Condition {
            /// Records with the condition's own meter, which an unused one becomes.
            fn record(&self, meter: &mut Meter, sample: Sample, now: Option<Instant>) -> Option<bool> {
                match self {
                    $(Self::$name(condition) => {
                        if !matches!(meter, Meter::$name(_)) {
                            *meter = Meter::$name(Fresh::FRESH);
                        }
                        let Meter::$name(own) = meter else { return None };
                        condition.record(own, sample, now)
                    })*
                    $($(#[$whether])* Self::$window(condition) => {
                        if !matches!(meter, Meter::$window(_)) {
                            *meter = Meter::$window(Fresh::FRESH);
                        }
                        let Meter::$window(own) = meter else { return None };
                        condition.record(own, sample, now)
                    })*
                }
            }

            /// Looks at the condition with its own meter; `None` with one that is unused.
            fn look<R>(&self, meter: &Meter, look: impl Look<R>) -> Option<R> {
                match (self, meter) {
                    $((Self::$name(condition), Meter::$name(own)) => Some(look.at(condition, own)),)*
                    $($(#[$whether])* (Self::$window(condition), Meter::$window(own)) => Some(look.at(condition, own)),)*
                    _ => None,
                }
            }

            /// Asks the condition what has nothing to do with a meter.
            fn ask<R>(&self, ask: impl Ask<R>) -> R {
                match self {
                    $(Self::$name(condition) => ask.of(condition),)*
                    $($(#[$whether])* Self::$window(condition) => ask.of(condition),)*
                }
            }

            fn over_time<'a>(buckets: u128, settings: &Settings) -> Result<'a, Self> {
                match buckets {
                    $($(#[$whether])* $buckets => settings.over::<$buckets>().map(Self::$window),)*
                    _ => Err(Unsupported::Room("a window of so many buckets")),
                }
            }
        }
    };
}

conditions! {
    [
        Consecutive: ConsecutiveFailures,
        Calls: CountBased<WORDS>,
        Average: AverageOfCalls,
        AverageInTime: AverageOverTime,
        ConsecutiveBoth: Both<ConsecutiveFailures, ConsecutiveFailures>,
        ConsecutiveOrAverage: Both<ConsecutiveFailures, AverageOfCalls>,
        ConsecutiveOrAverageInTime: Both<ConsecutiveFailures, AverageOverTime>,
    ]
    [
        Time1: 1, Time2: 2, Time3: 3, Time4: 4, Time5: 5, Time6: 6, Time7: 7, Time8: 8, Time9: 9, Time10: 10, Time12: 12,
        Time15: 15, Time20: 20, Time30: 30, Time60: 60,
        // A chip's stack has no room for more.
        #[cfg(feature = "encode")] Time100: 100,
        #[cfg(feature = "encode")] Time120: 120,
    ]
}

impl Fresh for Meter {
    const FRESH: Self = Self::Unused;
}

impl circuit_breaker::Meter for Meter {
    type Home = InPlace;

    fn keep(&mut self, until: Instant) {
        *self = Self::Kept(until);
    }

    fn kept(&self) -> Instant {
        match self {
            Self::Kept(until) => *until,
            _ => Instant::START,
        }
    }
}

/// What is asked of a condition, whichever it is.
trait Look<R> {
    fn at<T: Trip>(self, condition: &T, meter: &T::Meter) -> R;
}

struct Healthy;

impl Look<bool> for Healthy {
    fn at<T: Trip>(self, condition: &T, meter: &T::Meter) -> bool {
        condition.is_healthy(meter)
    }
}

struct Count(Option<Instant>);

impl Look<Counts> for Count {
    fn at<T: Trip>(self, condition: &T, meter: &T::Meter) -> Counts {
        condition.counts(meter, self.0)
    }
}

/// The same without a meter.
trait Ask<R> {
    fn of<T: Trip>(self, condition: &T) -> R;
}

struct SlowAfter;

impl Ask<Span> for SlowAfter {
    fn of<T: Trip>(self, condition: &T) -> Span {
        condition.slow_after()
    }
}

struct OpenSpan<'o>(&'o Opening);

impl Ask<Span> for OpenSpan<'_> {
    fn of<T: Trip>(self, condition: &T) -> Span {
        condition.open_span(self.0)
    }
}

/// What a window is judged by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) window: Duration,
    /// Failures in it; otherwise the rate counts.
    pub(crate) failures: Option<u32>,
    pub(crate) rate: Option<Ratio>,
    pub(crate) slow: Option<(Ratio, Duration)>,
    pub(crate) minimum: u32,
}

impl Settings {
    #[inline(never)]
    fn over<'a, const BUCKETS: usize>(&self) -> Result<'a, TimeBased<BUCKETS>> {
        let condition = match (self.failures, self.rate, self.slow) {
            (Some(failures), ..) => TimeBased::of_failures(failures, self.window)?,
            (None, Some(rate), _) => TimeBased::new(rate, self.window)?,
            (None, None, Some((rate, after))) => TimeBased::of_slow(rate, after, self.window)?,
            (None, None, None) => return Err(Unsupported::Room("a window that nothing is judged by")),
        };
        let condition = condition.with_minimum_calls(self.minimum)?;
        Ok(match self.slow {
            Some((rate, after)) => condition.with_slow_rate(rate, after)?,
            None => condition,
        })
    }
}

/// How long the breaker opens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Periods<'a> {
    /// As the condition says.
    Own,
    /// So long when so many failures, that are such a share of the calls, opened it.
    Generated(u32, Ratio, Duration),
    /// Longer each time that it reopens.
    Growing(Backoff),
    /// Milliseconds, one after the other; then the configured period.
    Listed(List<'a>),
}

/// Any condition, with open periods of any kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AnyTrip<'a> {
    condition: Condition,
    pub(crate) periods: Periods<'a>,
}

impl AnyTrip<'_> {
    const fn of(condition: Condition) -> Self {
        Self { condition, periods: Periods::Own }
    }

    pub(crate) fn consecutive<'e>(failures: u32) -> Result<'e, Self> {
        Ok(Self::of(Condition::Consecutive(ConsecutiveFailures::new(failures)?)))
    }

    /// So many of the last so many calls.
    pub(crate) fn failures<'e>(count: u32, of: u32) -> Result<'e, Self> {
        Ok(Self::of(Condition::Calls(CountBased::of_failures(count, of)?)))
    }

    /// A share of the last so many calls, and one of slow ones.
    pub(crate) fn rate<'e>(
        rate: Ratio,
        size: u32,
        minimum: u32,
        (slow_rate, after): (Ratio, Duration),
    ) -> Result<'e, Self> {
        let condition = CountBased::new(rate, size)?.with_minimum_calls(minimum)?.with_slow_rate(slow_rate, after)?;
        Ok(Self::of(Condition::Calls(condition)))
    }

    /// What came of the calls of the last so long, in steps of `bucket`, or all at once.
    pub(crate) fn over_time<'e>(settings: &Settings, bucket: Option<Duration>) -> Result<'e, Self> {
        let buckets = bucket.map_or(1, |bucket| settings.window.as_nanos() / bucket.as_nanos().max(1));
        Condition::over_time(buckets, settings).map(Self::of)
    }

    pub(crate) const fn average(condition: AverageOfCalls) -> Self {
        Self::of(Condition::Average(condition))
    }

    pub(crate) const fn average_in_time(condition: AverageOverTime) -> Self {
        Self::of(Condition::AverageInTime(condition))
    }

    /// Either of two conditions, each with periods of its own, in any order.
    pub(crate) fn either<'e>(self, other: Self) -> Result<'e, Self> {
        if matches!(other.condition, Condition::Consecutive(_)) && !matches!(self.condition, Condition::Consecutive(_))
        {
            return other.either(self);
        }
        let (Periods::Growing(first), Periods::Growing(second)) = (self.periods, other.periods) else {
            return Err(Unsupported::Value { key: "any_of", problem: "takes conditions with one period each" });
        };
        Ok(Self::of(match (self.condition, other.condition) {
            (Condition::Consecutive(a), Condition::Consecutive(b)) => {
                Condition::ConsecutiveBoth((Growing::new(a, first, 0)?, Growing::new(b, second, 0)?))
            }
            (Condition::Consecutive(a), Condition::Average(b)) => {
                Condition::ConsecutiveOrAverage((Growing::new(a, first, 0)?, Growing::new(b, second, 0)?))
            }
            (Condition::Consecutive(a), Condition::AverageInTime(b)) => {
                Condition::ConsecutiveOrAverageInTime((Growing::new(a, first, 0)?, Growing::new(b, second, 0)?))
            }
            _ => return Err(Unsupported::Room("such a pair of conditions")),
        }))
    }
}

/// As the library's own growing periods have it, whatever the condition.
fn grown(periods: Backoff, opening: &Opening) -> Span {
    Growing::new(ConsecutiveFailures::DEFAULT, periods, 0)
        .map_or(opening.configured, |growing| growing.open_span(opening))
}

impl Trip for AnyTrip<'_> {
    type Meter = Meter;

    #[inline(never)]
    fn record(&self, meter: &mut Meter, sample: Sample, now: Option<Instant>) -> Option<bool> {
        // It is kept in place, and any of them may open.
        now?;
        self.condition.record(meter, sample, now)
    }

    #[inline(never)]
    fn is_healthy(&self, meter: &Meter) -> bool {
        self.condition.look(meter, Healthy).unwrap_or(false)
    }

    #[inline(never)]
    fn counts(&self, meter: &Meter, now: Option<Instant>) -> Counts {
        self.condition.look(meter, Count(now)).unwrap_or(Counts { calls: 0, failures: 0, slow: 0 })
    }

    #[inline(never)]
    fn slow_after(&self) -> Span {
        self.condition.ask(SlowAfter)
    }

    #[inline(never)]
    fn open_span(&self, opening: &Opening) -> Span {
        match self.periods {
            Periods::Own => self.condition.ask(OpenSpan(opening)),
            Periods::Generated(failures, ratio, period) => {
                let fits = opening.counts.failures == failures && opening.counts.failure_rate() == Some(ratio);
                if fits { Span::of(period) } else { opening.configured }
            }
            Periods::Growing(periods) => grown(periods, opening),
            Periods::Listed(list) => {
                let nanos = list.get(opening.reopened.into()).and_then(Value::number).and_then(Decimal::nanos);
                nanos.map_or(opening.configured, |nanos| Span::of(Duration::from_nanos(nanos)))
            }
        }
    }
}
