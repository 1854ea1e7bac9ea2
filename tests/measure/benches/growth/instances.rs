//! One instance or a million: what a call costs when each goes to another one.

use core::sync::atomic::{AtomicU64, Ordering};
use std::fs;
use std::sync::{Mutex, PoisonError};

use failsoft_tokio::circuit_breaker::{Config, CountBased};
use failsoft_tokio::{CircuitBreaker, LockedCircuitBreaker, Ratio, Tokio, valid};

use crate::Effort;
use crate::plot::{Content, Curve, Plot, Reading, Section, capital, grouped, ns, times};

const COUNTS: [u32; 7] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000];

type Windowed = LockedCircuitBreaker<CountBased<4>>;

/// As many bytes as a breaker has.
type Word = [AtomicU64; WORDS];
const WORDS: usize = size_of::<CircuitBreaker>() / 8;
/// As many bytes as a breaker with a window has.
type Lock = Mutex<[u64; BESIDE_LOCK]>;
const BESIDE_LOCK: usize = size_of::<Windowed>() / 8 - 1;

fn breaker() -> CircuitBreaker {
    CircuitBreaker::new(valid!(Config::new().validate()))
}

/// Over the last 100 calls, and full of successes.
fn windowed() -> Windowed {
    const WINDOW: CountBased<4> = valid!(CountBased::new(Ratio::percent(50), 100));
    let breaker = Windowed::new(valid!(Config::new().with_trip(WINDOW).validate()));
    for _ in 0..100 {
        if let Ok(permit) = breaker.try_acquire(Tokio) {
            permit.success();
        }
    }
    breaker
}

/// Nanoseconds of a call to an instance picked at random, by an index that doesn't wait for memory.
fn visit<T, R>(effort: Effort, instances: &[T], call: impl Fn(&T) -> R) -> f64 {
    let (count, mut state) = (instances.len() as u64, 1_u64);
    effort.nanos(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let index = ((state >> 32) * count) >> 32;
        usize::try_from(index).ok().and_then(|index| instances.get(index)).map(&call)
    })
}

/// Reads a word of each cache line that the words may lie in: the first of every 64 bytes, and the last.
fn touch<W>(words: &[W], read: impl Fn(&W) -> u64) {
    for word in words.iter().step_by(8).chain(words.last()) {
        core::hint::black_box(read(word));
    }
}

fn many<T>(count: u32, new: impl Fn() -> T) -> Vec<T> {
    (0..count).map(|_| new()).collect()
}

/// The memory that this process really has, in bytes.
fn resident() -> Result<u64, String> {
    const STATUS: &str = "/proc/self/status";
    let text = fs::read_to_string(STATUS).map_err(|error| format!("{STATUS}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| format!("{STATUS}: no figure for VmRSS"))
}

/// What so many instances take, by two readings of the resident memory.
fn taken<T>(count: u32, before: u64, after: u64) -> String {
    let bytes = after.saturating_sub(before) as f64;
    let (mib, each) = (bytes / f64::from(1 << 20), bytes / f64::from(count));
    format!("{mib:.1} MiB ({each:.1} bytes each, {} by its type)", size_of::<T>())
}

pub(crate) fn measure(effort: Effort) -> Result<Section, String> {
    let mut curves = [
        Curve::ours("breaker, consecutive failures"),
        Curve::ours("breaker, window of 100 behind a mutex"),
        Curve::floor("as many bytes, read"),
        Curve::floor("as many bytes, locked and read"),
    ];
    let [plain, window, load, lock] = &mut curves;
    // Of the largest number: far more than a page.
    let mut memory = String::new();
    for count in COUNTS {
        let before = resident()?;
        let breakers = many(count, breaker);
        let plainly = taken::<CircuitBreaker>(count, before, resident()?);
        plain
            .push(count, visit(effort, &breakers, |breaker| breaker.try_acquire(Tokio).map(|permit| permit.success())));
        drop(breakers);
        let before = resident()?;
        let windows = many(count, windowed);
        let with_window = taken::<Windowed>(count, before, resident()?);
        window
            .push(count, visit(effort, &windows, |breaker| breaker.try_acquire(Tokio).map(|permit| permit.success())));
        drop(windows);
        let words: Vec<Word> = many(count, || [const { AtomicU64::new(0) }; WORDS]);
        load.push(count, visit(effort, &words, |words| touch(words, |word| word.load(Ordering::Acquire))));
        drop(words);
        let locks: Vec<Lock> = many(count, || Mutex::new([0; BESIDE_LOCK]));
        let locked = |lock: &Lock| touch(&*lock.lock().unwrap_or_else(PoisonError::into_inner), |word| *word);
        lock.push(count, visit(effort, &locks, locked));
        memory = format!("{} breakers take {plainly}; with a window of 100, {with_window}.", grouped(count.into()));
    }
    let reading = vec![against(plain, load), against(window, lock), Reading::new("resident memory", memory)];
    let plot = Plot { x: "instances", y: "ns per successful call", curves: curves.into() };
    Ok(Section {
        title: "From one instance to a million",
        about: String::from(
            "Each call goes to an instance picked at random, all is well, and nothing is written where nothing has to be. Beside it, \
             what it takes only to read as much memory in the same order.",
        ),
        content: Content::Plot(plot),
        reading,
    })
}

/// How much of what a curve grows by is the memory's.
fn against(ours: &Curve, floor: &Curve) -> Reading {
    let (growth, memory) = (ours.last() - ours.first(), floor.last() - floor.first());
    let verdict = match memory / growth {
        0.8.. => "it is the memory, not the breaker",
        0.5..0.8 => "most of it is the memory",
        _ => "most of it is the breaker's own",
    };
    Reading::new(
        &ours.name,
        format!(
            "a call {}, by {}. {}, without a breaker: from {} to {} ({}), by {}: {verdict}.",
            ours.course(),
            ns(growth),
            capital(&floor.name),
            ns(floor.first()),
            ns(floor.last()),
            times(floor.growth()),
            ns(memory),
        ),
    )
}
