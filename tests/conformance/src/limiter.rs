//! Rate limiters: a quota per period, a burst, and callers that wait.
//!
//! Dialects that hand permits out by hand (`replenish`, `advance_segment`) are taken at a clock that moves by one of their
//! periods then.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use failsoft_core::cell::Local;
use failsoft_core::rate_limiter::{Acquire, Config, RateLimiter, Reservation};
use failsoft_core::testing::VirtualExecutor;
use failsoft_core::{Clock, Instant, Rejected};

use crate::checks::{Actual, Checks};
use crate::number::{Decimal, Quantity};
use crate::tape::Object;
use crate::vector::{Result, Step, Unsupported, Vector};

/// Callers at once.
const CALLERS: usize = 16;
/// What rates are about.
const PERIOD: Duration = Duration::from_secs(1);
/// How long each permit takes where periods are moved on by hand: a whole number of nanoseconds, however many there are.
const EACH: Duration = Duration::from_millis(1);

type Limiter = RateLimiter<failsoft_core::cell::Live<Local>>;
type Reserved<'l> = Reservation<'l, failsoft_core::cell::Live<Local>>;
type Asking<'l> = Acquire<'l, failsoft_core::cell::Live<Local>, &'l VirtualExecutor<CALLERS>>;
type Names<'a> = heapless::Vec<&'a str, CALLERS>;

/// What a configuration means here.
struct Settings {
    config: Config,
    /// What is taken at the start: not everyone begins with a full burst.
    taken: u32,
    /// How far one step by hand moves the clock.
    step: Duration,
}

/// One who waits for permits, or has reserved some.
struct Caller<'a, 'l> {
    token: &'a str,
    what: What<'l>,
}

enum What<'l> {
    Waits(Asking<'l>),
    Reserved { _reservation: Reserved<'l> },
}

#[derive(Default)]
struct Found<'a> {
    permit: bool,
    rejected: Option<Rejected>,
    wait: Option<Duration>,
    /// Whether the caller that has come now waits.
    pending: bool,
    equal: bool,
    /// More than there ever are at once: other systems call that a mistake of the caller.
    too_many: bool,
    granted: Names<'a>,
    cancelled: Names<'a>,
}

#[inline(never)]
pub(crate) fn run<'a>(vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    if vector.dialect() == "finagle" {
        return crate::budget::bucket(vector, checks);
    }
    let settings = settings(vector)?;
    let executor = VirtualExecutor::seeded(0);
    let limiter = Limiter::new(settings.config.validate()?);
    if settings.taken > 0 && limiter.try_acquire_many(settings.taken, &&executor).is_err() {
        return Err(Unsupported::Value { key: "initial_tokens", problem: "can't be taken" });
    }
    let mut callers =
        Callers { limiter: &limiter, executor: &executor, vector: *vector, settings, waiting: heapless::Vec::new() };
    for step in vector.steps() {
        checks.begin(&step);
        if let Some(at) = step.at()? {
            executor.jump_to(at);
        }
        for _ in 0..step.repeat()? {
            callers.take(&step, checks)?;
        }
    }
    Ok(())
}

fn settings<'a>(vector: &Vector<'a>) -> Result<'a, Settings> {
    let config = vector.config;
    let kind = config.needed("kind", config.text("kind"))?;
    match (vector.dialect(), kind) {
        ("aws", "token_bucket") => {
            let config =
                config.only(&["dialect", "kind", "rate_per_s", "min_rate_per_s", "capacity", "initial_tokens"])?;
            let settings = per_second(config, config.needed("rate_per_s", config.number("rate_per_s"))?)?;
            let initial = config.count("initial_tokens")?;
            let taken = initial.map_or(0, |initial| settings.burst().saturating_sub(initial));
            Ok(Settings { config: settings, taken, step: PERIOD })
        }
        ("dotnet", "token_bucket") => {
            let config = config.only(&[
                "dialect",
                "kind",
                "capacity",
                "tokens_per_period",
                "period_ms",
                "queue_limit",
                "order",
                "manual_advance",
            ])?;
            let burst = config.needed("capacity", config.count("capacity"))?;
            let permits = config.needed("tokens_per_period", config.count("tokens_per_period"))?;
            let queue = config.count("queue_limit")?.unwrap_or(0);
            let step = config.span("period_ms")?.unwrap_or_else(|| EACH.saturating_mul(permits));
            let config = Config::new(permits, step).with_burst(burst).with_queue(queue, Duration::MAX);
            Ok(Settings { config, taken: 0, step })
        }
        ("dotnet", "sliding_window" | "fixed_window") => {
            let known = ["dialect", "kind", "limit", "segments", "window_ms", "queue_limit", "order", "manual_advance"];
            let config = config.only(&known)?;
            let limit = config.needed("limit", config.count("limit"))?;
            let queue = config.count("queue_limit")?.unwrap_or(0);
            let segments = config.count("segments")?.unwrap_or(1).max(1);
            let window = config.span("window_ms")?;
            let window = window.unwrap_or_else(|| EACH.saturating_mul(limit).saturating_mul(segments));
            let config = Config::new(limit, window).with_queue(queue, Duration::MAX);
            Ok(Settings { config, taken: 0, step: window / segments })
        }
        ("failsafe", "smooth") => {
            let config = config.only(&["dialect", "kind", "interval_ms", "limit", "cycle_ms", "max_wait_ms"])?;
            let interval = match (config.span("interval_ms")?, config.count("limit")?, config.span("cycle_ms")?) {
                (None, Some(limit), Some(cycle)) => cycle.checked_div(limit).unwrap_or(cycle),
                (interval, ..) => config.needed("interval_ms", Ok(interval))?,
            };
            let wait = config.span("max_wait_ms")?.unwrap_or(Duration::MAX);
            Ok(Settings { config: Config::new(1, interval).with_queue(u32::MAX, wait), taken: 0, step: interval })
        }
        ("failsafe", "bursty") => {
            let config = config.only(&["dialect", "kind", "limit", "cycle_ms", "max_wait_ms"])?;
            let cycle = config.needed("cycle_ms", config.span("cycle_ms"))?;
            let limit = config.needed("limit", config.count("limit"))?;
            let wait = config.span("max_wait_ms")?.unwrap_or(Duration::MAX);
            Ok(Settings { config: Config::new(limit, cycle).with_queue(u32::MAX, wait), taken: 0, step: cycle })
        }
        ("r4j", "fixed_cycle") => {
            let config = config.only(&["dialect", "kind", "limit", "cycle_ms", "max_wait_ms", "cycles_from"])?;
            let cycle = config.span("cycle_ms")?.unwrap_or(Duration::from_nanos(500));
            let limit = config.count("limit")?.unwrap_or(50);
            let wait = config.span("max_wait_ms")?.unwrap_or(Duration::from_secs(5));
            Ok(Settings { config: Config::new(limit, cycle).with_queue(u32::MAX, wait), taken: 0, step: cycle })
        }
        ("sentinel", "throttling") => {
            let config = config.only(&["dialect", "kind", "rate_per_s", "max_wait_ms"])?;
            let rate = config.needed("rate_per_s", config.count("rate_per_s"))?;
            let wait = config.span("max_wait_ms")?.unwrap_or(Duration::from_millis(500));
            let config = Config::new(rate, PERIOD).with_burst(1).with_queue(u32::MAX, wait);
            Ok(Settings { config, taken: 0, step: PERIOD })
        }
        (_, "warm_up") => Err(Unsupported::Value { key: "warm_up", problem: "is no kind of limiter here" }),
        _ => Err(Unsupported::Value { key: "kind", problem: "is not known" }),
    }
}

/// A quota per second, not below the least, and a burst of one second.
fn per_second<'a>(config: Object<'a>, rate: Decimal) -> Result<'a, Config> {
    let whole = |rate: Decimal| {
        // A quota is a whole number.
        let known = rate.thousandths().and_then(|rate| u32::try_from(rate).ok());
        known.ok_or(Unsupported::Value { key: "rate_per_s", problem: "is not a number of thousandths" })
    };
    let least = config.number("min_rate_per_s")?.map_or(Ok(0), whole)?;
    let rate = whole(rate)?.max(least);
    let burst = match config.text("capacity")? {
        None | Some("max(rate,1)") => (rate / 1_000).max(1),
        Some(_) => return Err(Unsupported::Value { key: "capacity", problem: "is not known" }),
    };
    let (permits, period) = match rate.is_multiple_of(1_000) {
        true => (rate / 1_000, Duration::from_secs(1)),
        false => (rate, Duration::from_secs(1_000)),
    };
    // Whoever blocks does so for as long as it takes.
    Ok(Config::new(permits, period).with_burst(burst).with_queue(u32::MAX, Duration::MAX))
}

struct Callers<'a, 'l> {
    limiter: &'l Limiter,
    executor: &'l VirtualExecutor<CALLERS>,
    vector: Vector<'a>,
    settings: Settings,
    /// In order of arrival.
    waiting: heapless::Vec<Caller<'a, 'l>, CALLERS>,
}

impl<'a, 'l> Callers<'a, 'l> {
    fn take(&mut self, step: &Step<'a>, checks: &mut Checks) -> Result<'a, ()> {
        let mut found = Found::default();
        match step.op {
            "acquire" => {
                if let Some(permits) = self.permits(step, &["token", "max_wait_ms"], &mut found)? {
                    let acquired = self.limiter.try_acquire_many(permits, &self.executor);
                    found.permit = acquired.is_ok();
                    found.rejected = acquired.err();
                }
            }
            "acquire_wait" => self.acquire_wait(step, &mut found)?,
            "reserve" => self.reserve(step, &mut found)?,
            "compare" => found.equal = self.compare(step)?,
            "cancel" => {
                let args = step.args()?.only_args(&["token"])?;
                let token = args.needed("token", args.text("token"))?;
                self.waiting.retain(|caller| caller.token != token);
                let _ = found.cancelled.push(token);
            }
            // A limiter's permits are used up, not held.
            "release" => {
                step.args()?.only_args(&["token", "permits"])?;
            }
            "snapshot" | "tick" => step.no_args()?,
            "replenish" | "advance_segment" => {
                step.no_args()?;
                self.executor.jump_to(self.executor.now().saturating_add(self.settings.step));
            }
            "set_rate" => {
                let rate = step.arg.number().ok_or(Unsupported::Value { key: step.op, problem: "takes a number" })?;
                self.settings.config = per_second(self.vector.config, rate)?;
                self.limiter.reconfigure(self.settings.config.validate()?, &self.executor);
            }
            "set_limit" | "resize" => {
                let old = self.settings.config;
                let wait = self.vector.config.span("max_wait_ms")?.unwrap_or(Duration::MAX);
                self.settings.config = Config::new(step.count()?, old.period()).with_queue(u32::MAX, wait);
                self.limiter.reconfigure(self.settings.config.validate()?, &self.executor);
            }
            op => return Err(Unsupported::Op(op)),
        }
        self.poll_waiting(&mut found);
        self.judge(step, &found, checks)
    }

    /// The permits that are asked for: one, unless said otherwise. `None` where there never are so many, or fewer than none.
    fn permits(&self, step: &Step<'a>, known: &[&str], found: &mut Found<'a>) -> Result<'a, Option<u32>> {
        let permits = match step.amount("permits", known)? {
            None => Some(1),
            Some(number) => number.whole().and_then(|permits| u32::try_from(permits).ok()),
        };
        // Who takes its permits over time may take more than there ever are at once.
        let over_time = step.op == "reserve";
        let at_once = |permits: &u32| over_time || self.limiter.available_at(*permits, &self.executor).is_some();
        let permits = permits.filter(at_once);
        found.too_many = permits.is_none();
        Ok(permits)
    }

    fn acquire_wait(&mut self, step: &Step<'a>, found: &mut Found<'a>) -> Result<'a, ()> {
        let Some(permits) = self.permits(step, &["token"], found)? else { return Ok(()) };
        let token = step.args()?.text("token")?.unwrap_or("");
        let mut asking = self.limiter.acquire(permits, self.executor);
        match poll(&mut asking) {
            Poll::Ready(result) => {
                found.permit = result.is_ok();
                found.rejected = result.err();
            }
            Poll::Pending => {
                found.pending = true;
                self.enter(token, What::Waits(asking))?;
            }
        }
        Ok(())
    }

    fn reserve(&mut self, step: &Step<'a>, found: &mut Found<'a>) -> Result<'a, ()> {
        let Some(permits) = self.permits(step, &["max_wait_ms", "token"], found)? else { return Ok(()) };
        let args = step.arg.object().unwrap_or(Object::EMPTY);
        let now = self.executor.now();
        match self.limiter.reserve(permits, args.span("max_wait_ms")?.unwrap_or(Duration::MAX), &now) {
            Ok(reservation) => {
                (found.permit, found.wait) = (true, Some(reservation.at().saturating_duration_since(now)));
                match args.text("token")? {
                    Some(token) => self.enter(token, What::Reserved { _reservation: reservation })?,
                    None => reservation.commit(),
                }
            }
            Err(rejected) => found.rejected = Some(rejected),
        }
        Ok(())
    }

    fn enter(&mut self, token: &'a str, what: What<'l>) -> Result<'a, ()> {
        self.waiting.push(Caller { token, what }).map_err(|_| Unsupported::Room("so many callers"))
    }

    /// Whether two ways to reserve as many permits, each on a limiter of its own, end at the same instant.
    fn compare(&self, step: &Step<'a>) -> Result<'a, bool> {
        let args = step.args()?.only_args(&["a", "b"])?;
        let last = |key: &'a str| {
            let way = args.needed(key, args.text(key))?;
            let mut numbers = way.split(' ').filter_map(|word| word.parse::<u32>().ok());
            let permits = numbers.next().ok_or(Unsupported::Value { key, problem: "names no permits" })?;
            let limiter = Limiter::new(self.settings.config.validate()?);
            let mut at = None;
            for _ in 0..numbers.next().unwrap_or(1) {
                let reservation = limiter.reserve(permits, Duration::MAX, &self.executor);
                at = reservation.ok().map(|reservation| {
                    let at = reservation.at();
                    reservation.commit();
                    at
                });
            }
            Ok::<Option<Instant>, Unsupported<'a>>(at)
        };
        Ok(last("a")? == last("b")?)
    }

    /// Whoever waits looks whether it may go, the first first.
    fn poll_waiting(&mut self, found: &mut Found<'a>) {
        self.waiting.retain_mut(|caller| {
            let What::Waits(asking) = &mut caller.what else { return true };
            let polled = poll(asking);
            if matches!(polled, Poll::Ready(Ok(()))) {
                let _ = found.granted.push(caller.token);
            }
            polled.is_pending()
        });
    }

    fn judge(&self, step: &Step<'a>, found: &Found<'a>, checks: &mut Checks) -> Result<'a, ()> {
        let waiting = self.waiting.iter().filter(|caller| matches!(caller.what, What::Waits(_)));
        let waiting: Names<'a> = waiting.map(|caller| caller.token).collect();
        let (limiter, now) = (self.limiter, self.executor.now());
        let asked = step.op == "acquire_wait";
        let retry_at = found.rejected.and_then(|rejected| rejected.retry_at());
        checks.expect(step, &mut |key| {
            Some(match key {
                "permit" => Actual::Bool(found.permit),
                "retry_after_ms" => Actual::maybe(retry_at.map(|at| Quantity::until(now, at))),
                "wait_ms" => Actual::maybe(found.wait.map(Quantity::millis)),
                "equal" => Actual::Bool(found.equal),
                "pending" if asked => Actual::Bool(found.pending),
                "pending" => Actual::Texts(&waiting),
                "queued" => Actual::whole(i128::try_from(waiting.len()).unwrap_or(i128::MAX)),
                "granted" => Actual::Texts(&found.granted),
                "cancelled" => Actual::Texts(&found.cancelled),
                "evicted" => Actual::Texts(&[]),
                "error" if found.too_many => Actual::Text("out_of_range"),
                "error" => Actual::Nothing,
                // Other queues count those who wait apart, and not as permits that are owed.
                "available" if self.vector.dialect() == "dotnet" => Actual::whole(limiter.available(&now).max(0)),
                "available" => Actual::whole(limiter.available(&now)),
                "next_permit_in_ms" => Actual::maybe(limiter.available_at(1, &now).map(|at| Quantity::until(now, at))),
                "rate_per_s" => Actual::maybe(self.rate()),
                "capacity" | "limit" => Actual::whole(self.settings.config.burst()),
                _ => return None,
            })
        })
    }

    fn rate(&self) -> Option<Quantity> {
        let period = u64::try_from(self.settings.config.period().as_nanos()).unwrap_or(u64::MAX);
        Quantity::fraction(i128::from(self.settings.config.permits()) * 1_000_000_000, period)
    }
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}
