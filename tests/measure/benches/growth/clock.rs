//! What a coarse clock buys, where each call reads the clock.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use failsoft_tokio::cell::CellKind;
use failsoft_tokio::circuit_breaker::{Config, CountBased, State, TimeBased, Trip};
use failsoft_tokio::{
    Clock, CoarseClock, Instant, Locked, LockedCircuitBreaker, RateLimiter, Ratio, Threads, rate_limiter, valid,
};

use crate::Effort;
use crate::plot::{Content, Reading, Section, ns, times};

/// A word that somebody else would have to renew: the least that a clock of any kind can cost.
static WORD: AtomicU64 = AtomicU64::new(3_600_000_000_000);

#[derive(Clone, Copy)]
struct Word;

impl Clock for Word {
    #[inline]
    fn now(&self) -> Instant {
        Instant::from_nanos(WORD.load(Ordering::Relaxed))
    }
}

/// So often each clock has its turn.
const TURNS: u32 = 10;

/// What is measured by each clock.
const SUBJECTS: [&str; 4] = ["reading it", "breaker, window over time", "breaker, slow calls", "rate limiter"];

fn call<T: Copy + Trip>(effort: Effort, trip: T, clock: impl Clock + Copy) -> Result<f64, String>
where
    Locked: CellKind<State<T::Meter>>,
{
    let config = Config::new().with_trip(trip).validate().map_err(|error| error.to_string())?;
    let breaker = LockedCircuitBreaker::new(config);
    let call = || breaker.try_acquire(clock).map(|permit| permit.success());
    for _ in 0..100 {
        call().map_err(|rejected| rejected.to_string())?;
    }
    Ok(effort.nanos(|_| call().is_ok()))
}

fn by(effort: Effort, clock: impl Clock + Copy) -> Result<[f64; SUBJECTS.len()], String> {
    const PERIOD: Duration = Duration::from_secs(10);
    const HALF: Ratio = Ratio::percent(50);
    let limiter = RateLimiter::new(valid!(rate_limiter::Config::new(u32::MAX, Duration::from_millis(1)).validate()));
    Ok([
        effort.nanos(|_| clock.now()),
        call(effort, valid!(TimeBased::<10>::new(HALF, PERIOD)), clock)?,
        call(effort, valid!(CountBased::<4>::of_slow(HALF, PERIOD, 100)), clock)?,
        effort.nanos(|_| limiter.try_acquire(&clock).is_ok()),
    ])
}

/// The better of figures of the same things.
fn better<const N: usize>(ones: [f64; N], others: [f64; N]) -> [f64; N] {
    core::array::from_fn(|index| ones[index].min(others[index]))
}

pub(crate) fn measure(effort: Effort) -> Result<Section, String> {
    // By turns, so that what else the machine has to do meets all alike.
    let turns = Effort { batches: effort.batches.div_ceil(TURNS), ..effort };
    let [mut fine, mut coarse, mut word] = [[f64::MAX; SUBJECTS.len()]; 3];
    for _ in 0..TURNS {
        fine = better(fine, by(turns, Threads)?);
        coarse = better(coarse, by(turns, CoarseClock)?);
        word = better(word, by(turns, Word)?);
    }
    let figures = || {
        SUBJECTS
            .into_iter()
            .zip(fine)
            .zip(coarse)
            .zip(word)
            .map(|(((name, fine), coarse), word)| (name, fine, coarse, word))
    };
    let head =
        ["a successful call", "fine clock", "coarse clock", "as against fine", "a word in memory", "as against fine"];
    let rows = figures().map(|(name, fine, coarse, word)| {
        vec![name.into(), ns(fine), ns(coarse), times(fine / coarse), ns(word), times(fine / word)]
    });
    let mut reading: Vec<_> = figures()
        .map(|(name, fine, coarse, word)| {
            let (bought, most) = (fine - coarse, fine - word);
            let share = bought / most * 100.0;
            Reading::new(
                name,
                format!(
                    "the coarse clock saves {} of {}: {share:.0} % of what any clock could save.",
                    ns(bought),
                    ns(fine)
                ),
            )
        })
        .collect();
    let resolution = CoarseClock.resolution();
    let steps = if resolution.is_zero() {
        String::from("this system has none, and the fine one is read in its place.")
    } else {
        format!("it moves in steps of {resolution:?} here.")
    };
    reading.push(Reading::new("the coarse clock", steps));
    Ok(Section {
        title: "What a coarse clock buys",
        about: String::from(
            "The fine clock is the standard library's, which tokio's is too where it can't be paused; the coarse one is CoarseClock. \
             A word in memory, which a task or thread would have to renew, is the least that any clock can cost.",
        ),
        content: Content::Table { head: head.map(String::from).into(), rows: rows.collect() },
        reading,
    })
}
