//! The interrupt above all tasks: it can't wait, so it takes permits now or not at all.

use core::cell::Cell;

use critical_section::Mutex;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_time::Duration;
use failsoft_embassy::{Bulkhead, CriticalSection, RawQueue, Rng, bulkhead};

use crate::ledger::Count;
use crate::policies::{BUS, LINE};
use crate::round;
use crate::side::{self, Priority, Side};

type Permit<const N: usize> =
    bulkhead::Permit<&'static Bulkhead<N>, CriticalSection, RawQueue<CriticalSectionRawMutex, N>>;
type Kept<const N: usize> = Mutex<Cell<Option<Permit<N>>>>;

/// Permits that outlive the round that took them: tasks wait for them, and the next round leaves them.
static OF_BUS: Kept<4> = Mutex::new(Cell::new(None));
static OF_LINE: Kept<8> = Mutex::new(Cell::new(None));

static RNG: Mutex<Cell<Rng>> = Mutex::new(Cell::new(Rng::new(0)));

/// Between two rounds: up to so many microseconds more than the first.
const PAUSE: (u64, u32) = (200, 1 << 9);

pub(crate) fn start(seed: u64) {
    critical_section::with(|cs| RNG.borrow(cs).set(Rng::new(seed)));
    board::alarm(round);
}

fn round() -> Duration {
    // No other interrupt takes it meanwhile.
    let side = Side::new(Priority::Handler, side::HANDLER, critical_section::with(|cs| RNG.borrow(cs).get()));
    if round::has_ended() {
        keep(&OF_BUS, None);
        keep(&OF_LINE, None);
        side.note(Count::Ended);
        return Duration::MAX;
    }
    side.begin_round();
    round::touch(&side);
    keep(&OF_BUS, take(&side, &BUS));
    keep(&OF_LINE, take(&side, &LINE));
    let pause = Duration::from_micros(PAUSE.0) + side.moment(PAUSE.1);
    critical_section::with(|cs| RNG.borrow(cs).set(side.rng()));
    pause
}

/// A permit, unless there is none or the dice are against it.
fn take<const N: usize>(side: &Side, bulkhead: &'static Bulkhead<N>) -> Option<Permit<N>> {
    if side.dice() % 2 == 0 {
        return None;
    }
    side.note(Count::Asked);
    let permit = bulkhead.try_acquire().ok();
    side.note(if permit.is_some() { Count::Given } else { Count::Rejected });
    permit
}

/// Keeps a permit, and leaves the one kept before.
fn keep<const N: usize>(kept: &'static Kept<N>, permit: Option<Permit<N>>) {
    let before = critical_section::with(|cs| kept.borrow(cs).replace(permit));
    if before.is_some() {
        Priority::Handler.leaves();
    }
    drop(before);
}
