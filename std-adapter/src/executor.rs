//! tokio as an executor: its clock, its timers, and randomness from the operating system.

use core::cell::Cell;
use core::hash::{BuildHasher, Hasher};
use core::time::Duration;
use std::collections::hash_map::RandomState;
use std::sync::OnceLock;

use failsoft_core::{Clock, Executor, Instant, Rng};

/// The executor for use within a tokio runtime. Its clock is tokio's: `tokio::time::pause` and `advance` govern every policy.
///
/// The clock counts from the process's first reading of it, and stands still while the machine is suspended, as tokio's does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tokio;

impl Clock for Tokio {
    #[inline]
    fn now(&self) -> Instant {
        since_origin(tokio::time::Instant::now().into_std())
    }
}

impl Executor for Tokio {
    type Sleep = tokio::time::Sleep;

    fn sleep_until(&self, at: Instant) -> tokio::time::Sleep {
        tokio::time::sleep_until(from_origin(at).into())
    }

    fn random(&self) -> u32 {
        random()
    }
}

/// Where the clocks of this crate start. An hour before the first reading, because the virtual clock of a paused test may have
/// stopped a little earlier than that, and must not be cut off at zero.
fn origin() -> std::time::Instant {
    const MARGIN: Duration = Duration::from_secs(3600);
    static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
    *ORIGIN.get_or_init(|| {
        let now = std::time::Instant::now();
        now.checked_sub(MARGIN).unwrap_or(now)
    })
}

pub(crate) fn since_origin(now: std::time::Instant) -> Instant {
    Instant::START.saturating_add(now.saturating_duration_since(origin()))
}

/// The standard library's form of an instant; what it can't hold becomes a time that no process lives to see.
pub(crate) fn from_origin(at: Instant) -> std::time::Instant {
    const AGES: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
    let origin = origin();
    let span = at.saturating_duration_since(Instant::START).min(AGES);
    origin.checked_add(span).unwrap_or(origin)
}

/// A random number from a generator of the thread's own, seeded by the operating system.
pub(crate) fn random() -> u32 {
    thread_local! {
        static RNG: Cell<Rng> = Cell::new(Rng::new(RandomState::new().build_hasher().finish()));
    }
    RNG.with(|cell| {
        let mut rng = cell.get();
        let random = rng.next();
        cell.set(rng);
        random
    })
}
