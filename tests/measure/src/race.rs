//! How long calls take, by one thread and by two at once, on a machine that others use, too: work is cut into batches short enough to fall
//! between two interruptions.

use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::time::Instant;

use core_affinity::CoreId;

/// What one thread did in one batch: when it began, and when it was done.
type Lap = (Instant, Instant);

/// How often a thread looks whether the other one is there before it makes room for it.
const LOOKS: u32 = 1_000;

fn lap<const COPY: u32, R>(calls: u64, count: &mut u32, work: &mut impl FnMut(u32) -> R) -> Lap {
    // Otherwise the compiler makes one of them.
    black_box(COPY);
    let (start, mut call) = (Instant::now(), *count);
    for _ in 0..calls {
        black_box(work(call));
        call = call.wrapping_add(1);
    }
    *count = call;
    (start, Instant::now())
}

fn median(mut spans: Vec<Duration>) -> Option<Duration> {
    spans.sort_unstable();
    spans.get(spans.len() / 2).copied()
}

/// How long a batch of so many calls takes: the fastest. The worker is told how many calls there were before, in `count`.
///
/// The loop is in the program several times: where one happens to begin in a line of the cache can take a cycle for each call, and says nothing
/// about what is called.
pub fn alone<R>(batches: u64, calls: u64, count: &mut u32, mut work: impl FnMut(u32) -> R) -> Duration {
    let span = |batch| {
        let (start, end) = match batch % 4 {
            0 => lap::<0, R>(calls, count, &mut work),
            1 => lap::<1, R>(calls, count, &mut work),
            2 => lap::<2, R>(calls, count, &mut work),
            _ => lap::<3, R>(calls, count, &mut work),
        };
        end.duration_since(start)
    };
    (0..batches).map(span).min().unwrap_or_default()
}

/// How long the slower one of two workers takes for a batch of so many calls, both at work at once, each on a core of its own: the median,
/// because in the fastest batches the threads missed each other. Nothing where the machine did not let them run at the same time.
///
/// A worker is told how many calls it has done, and keeps what `enter` gives it until the end.
pub fn race<R, G, W>(batches: u64, calls: u64, workers: [W; 2], enter: impl Fn() -> G + Sync) -> Option<Duration>
where
    W: FnMut(u32) -> R + Send,
{
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let arrived = AtomicU64::new(0);
    let run = |core: Option<&CoreId>, mut work: W| {
        let _entered = enter();
        // Where that does not work, the system chooses.
        let _ = core.map(|core| core_affinity::set_for_current(*core));
        let mut count = 0;
        let lap = |batch: u64| {
            arrived.fetch_add(1, Ordering::AcqRel);
            let mut looks = 0_u32;
            // Spinning, since a thread that has to be woken comes too late for a batch of a millisecond.
            while arrived.load(Ordering::Acquire) < 2 * batch {
                looks += 1;
                if looks.is_multiple_of(LOOKS) {
                    std::thread::yield_now();
                }
                core::hint::spin_loop();
            }
            lap::<0, R>(calls, &mut count, &mut work)
        };
        (1..=batches).map(lap).collect::<Vec<Lap>>()
    };
    let [one, other] = workers;
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(|| run(cores.first(), one));
        let other = scope.spawn(|| run(cores.last(), other));
        (one.join().unwrap_or_default(), other.join().unwrap_or_default())
    });
    let both = one.iter().zip(&other).map(|(a, b)| Both::of(*a, *b));
    median(both.filter(Both::together).map(|both| both.slower).collect())
}

/// A batch of both threads.
struct Both {
    slower: Duration,
    overlap: Duration,
}

impl Both {
    fn of(a: Lap, b: Lap) -> Self {
        let slower = a.1.duration_since(a.0).max(b.1.duration_since(b.0));
        Self { slower, overlap: a.1.min(b.1).saturating_duration_since(a.0.max(b.0)) }
    }

    /// Whether the threads were in each other's way for most of it: on a busy machine one may have waited.
    fn together(&self) -> bool {
        self.overlap * 4 >= self.slower * 3
    }
}
