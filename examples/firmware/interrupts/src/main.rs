//! Shows that an interrupt and thread mode share policies: both take and give back permits of one bulkhead, and report to one breaker, one
//! degradation and one limiter, the interrupt wherever it meets thread mode. In the end all is given back, and nothing is lost.

#![no_std]
#![no_main]

use core::cell::Cell;
use core::fmt::{self, Write};
use core::time::Duration;

use board::Text;
use critical_section::Mutex;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use failsoft_embassy::circuit_breaker::{self, ConsecutiveFailures, Totals, Transition};
use failsoft_embassy::degradation::{self, Criticality, DegradationLevel, Service};
use failsoft_embassy::{
    Bulkhead, CircuitBreaker, CriticalSection, Degradation, Instant, KeyedRateLimiter, RawQueue, Rng, bulkhead,
    rate_limiter, valid,
};

type Permit = bulkhead::Permit<&'static Bulkhead<0>, CriticalSection, RawQueue<CriticalSectionRawMutex, 0>>;

/// What each of the two does at least.
const ROUNDS: u32 = 10_000;
/// Each of the two takes two of them at a time, and one may be kept.
const PERMITS: u32 = 4;
/// Less than the two ask for together.
const QUOTA: u32 = 15_000;
/// Time stands still: it is no part of this, and so the quota is exact.
const NOW: Instant = Instant::from_millis(5);

static BUS: Bulkhead<0> = Bulkhead::new(valid!(bulkhead::Config::new(PERMITS).validate()));
// Open for no time: the next call is a probe, and all states come round.
const RESTLESS: circuit_breaker::Config =
    circuit_breaker::Config::new().with_open_for(Duration::ZERO).with_half_open_for(Duration::from_secs(1));
static BREAKER: CircuitBreaker<ConsecutiveFailures, Totals<CriticalSection, fn(&Transition)>> =
    CircuitBreaker::with_observer(valid!(RESTLESS.validate()), Totals::new(count));
static HUB: Degradation<2> =
    Degradation::new(valid!(degradation::Config::new().with_dwell(Duration::ZERO).with_recovery(1).validate()));
static LIMITER: KeyedRateLimiter<&str, 4> =
    KeyedRateLimiter::new(valid!(rate_limiter::Config::new(1, Duration::from_secs(1)).with_burst(QUOTA).validate()));

/// After so many the breaker's numbers start over.
const GENERATIONS: u32 = 4_096;

/// A permit that outlives the round that took it. Whoever comes next gives it back: an interrupt thread mode's, and the other way round.
static KEPT: Mutex<Cell<Option<Permit>>> = Mutex::new(Cell::new(None));

static TRANSITIONS: Mutex<Cell<u32>> = Mutex::new(Cell::new(0));

fn count(_: &Transition) {
    critical_section::with(|cs| TRANSITIONS.borrow(cs).set(TRANSITIONS.borrow(cs).get() + 1));
}

/// Keeps a permit, and gives back the one kept before.
fn keep(permit: Option<Permit>) {
    drop(critical_section::with(|cs| KEPT.borrow(cs).replace(permit)));
}

/// The limiter's key that both use, besides their own.
const OF_BOTH: &str = "both";

static INTERRUPT: Mutex<Cell<Side>> = Mutex::new(Cell::new(Side::new("interrupt", DegradationLevel::Minimal, 1)));

/// One of the two, and what it has been told.
#[derive(Clone, Copy)]
struct Side {
    name: &'static str,
    /// Where the level goes when it is not well.
    falls_to: DegradationLevel,
    rng: Rng,
    rounds: u32,
    /// Rounds that began while the other was in one of its own.
    met: u32,
    /// Permits of the bulkhead that there were not.
    full: u32,
    admitted: u32,
    rejected: u32,
    /// Permits of the limiter, of the key of both and its own.
    quota: [u32; 2],
    /// Reports that the degradation did not know of right after.
    lost: u32,
}

impl Side {
    const fn new(name: &'static str, falls_to: DegradationLevel, seed: u64) -> Self {
        let rng = Rng::new(seed);
        Self { name, falls_to, rng, rounds: 0, met: 0, full: 0, admitted: 0, rejected: 0, quota: [0; 2], lost: 0 }
    }

    fn round(&mut self) {
        self.rounds += 1;
        self.met += u32::from(BUS.snapshot().in_use > 1);
        let (first, second) = (BUS.try_acquire().ok(), BUS.try_acquire().ok());
        self.full += u32::from(first.is_none()) + u32::from(second.is_none());

        let dice = self.rng.next();
        let call = BREAKER.try_acquire(NOW);
        self.report(dice & 1 == 0);
        for (key, taken) in [OF_BOTH, self.name].iter().zip(&mut self.quota) {
            *taken += u32::from(LIMITER.try_acquire(key, &NOW).is_ok());
        }
        match call {
            Ok(call) => {
                self.admitted += 1;
                match dice >> 1 & 7 {
                    0 => call.ignore(),
                    1 => drop(call),
                    2 | 3 => call.success(),
                    _ => call.failure(),
                }
            }
            Err(_) => self.rejected += 1,
        }
        // In one of two rounds, so that the bulkhead is mostly left otherwise than it was found.
        keep(first.filter(|_| dice & 16 == 0));
    }

    fn report(&mut self, good: bool) {
        let known = HUB.report(self.name, good, &NOW).is_ok()
            && HUB.is_healthy(self.name) == Ok(good)
            && (good || HUB.level(&NOW) >= self.falls_to);
        self.lost += u32::from(!known);
    }
}

/// A round of the interrupt, and when the next one is due: every time elsewhere in the other's rounds.
fn interrupt() -> u32 {
    // No other interrupt takes it meanwhile.
    let mut side = critical_section::with(|cs| INTERRUPT.borrow(cs).get());
    side.round();
    let period = SHORTEST + side.rng.next() % SPREAD;
    critical_section::with(|cs| INTERRUPT.borrow(cs).set(side));
    period
}

/// Cycles between two interrupts: enough for a round of thread mode too.
const SHORTEST: u32 = 2_000;
const SPREAD: u32 = 2_048;

fn run() -> bool {
    let mut thread = Side::new("thread", DegradationLevel::Degraded, 2);
    let registered = HUB.register("thread", Service::new(Criticality::Important)).is_ok()
        && HUB.register("interrupt", Service::new(Criticality::Critical)).is_ok();
    board::interrupt(interrupt);
    loop {
        thread.round();
        // In one section, so that the interrupt has no part in what is looked at.
        let verdict = critical_section::with(|cs| {
            let interrupt = INTERRUPT.borrow(cs).get();
            (thread.rounds.min(interrupt.rounds) >= ROUNDS).then(|| is_right(&thread, &interrupt))
        });
        if let Some(right) = verdict {
            return registered && right == Ok(true);
        }
    }
}

fn is_right(thread: &Side, interrupt: &Side) -> Result<bool, fmt::Error> {
    let mut text = Text::new().ok_or(fmt::Error)?;
    let both = |of: fn(&Side) -> u32| of(thread) + of(interrupt);
    writeln!(text, "rounds: {} and {}, {} of them amid another", thread.rounds, interrupt.rounds, interrupt.met)?;
    let amid = thread.met == 0 && interrupt.met >= ROUNDS / 4;

    keep(None);
    let bus = BUS.snapshot();
    writeln!(text, "bulkhead: {} in use, at most {}, {} rejected", bus.in_use, bus.high_water, bus.rejected)?;
    let permits = (bus.in_use, bus.high_water) == (0, PERMITS) && bus.rejected == both(|side| side.full);

    let (totals, told) = (BREAKER.observer(), critical_section::with(|cs| TRANSITIONS.borrow(cs).get()));
    let outcomes = [totals.successes(), totals.failures(), totals.ignored(), totals.abandoned(), totals.late()];
    let (admitted, rejected) = (both(|side| side.admitted), both(|side| side.rejected));
    writeln!(text, "breaker: {} admitted, {} rejected, {} transitions", admitted, rejected, told)?;
    let breaker = BREAKER.snapshot(&NOW);
    let calls = (totals.admitted(), totals.rejected()) == (admitted.into(), rejected.into())
        && outcomes.iter().sum::<u64>() == admitted.into()
        && outcomes.iter().all(|count| *count > 0)
        && (breaker.probes, u32::from(breaker.generation)) == (0, told % GENERATIONS);

    let [of_both, of_thread, of_interrupt] =
        [OF_BOTH, thread.name, interrupt.name].map(|key| QUOTA - LIMITER.available(&key, &NOW));
    writeln!(text, "limiter: {} taken of {}", of_both, QUOTA)?;
    let quota = of_both == both(|side| side.quota[0])
        && [of_thread, of_interrupt] == [thread.quota[1], interrupt.quota[1]]
        && of_both == QUOTA;

    let well = [thread, interrupt].iter().all(|side| HUB.report(side.name, true, &NOW).is_ok());
    let reports = both(|side| side.lost) == 0 && well && HUB.level(&NOW) == DegradationLevel::Full;

    for (what, right) in
        [("rounds", amid), ("bulkhead", permits), ("breaker", calls), ("limiter", quota), ("degradation", reports)]
    {
        if !right {
            writeln!(text, "{what}: WRONG")?;
        }
    }
    text.flush()?;
    Ok(amid && permits && calls && quota && reports)
}

#[board::entry]
fn main() -> ! {
    board::exit(u8::from(!run()))
}
