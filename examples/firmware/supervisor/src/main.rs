//! Shows that tasks are supervised: the chip goes on without an optional one that hangs, the watchdog resets it when a critical one does, and
//! what it should remember it does, over resets but not over a power loss. The chip lives several times, each time as [`LIVES`] says, and
//! compares what it finds with it.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;

use board::{ResetWatchdog, retained};
use embassy_time::Timer;
use failsoft_embassy::boot_loop::{self, Boot};
use failsoft_embassy::budget::QuotaConfig;
use failsoft_embassy::circuit_breaker::{self, Saved, StateKind};
use failsoft_embassy::degradation::{self, DegradationLevel};
use failsoft_embassy::retained::Retained;
use failsoft_embassy::supervisor::{self, Task, TaskChange};
use failsoft_embassy::{
    Backoff, CircuitBreaker, Clock, Degradation, Embassy, Instant, QuotaBudget, Supervised, Supervisor, Valid, valid,
};
use static_cell::StaticCell;

// ---- what the chip remembers ----

retained! {
    /// Boots in a row that came to no good end.
    static BOOTS: Retained<u32> = Retained::new();
}
retained! {
    /// The sensor's breaker, what is left of the budget of retries, and which task hung: the version is that of this list.
    static STATE: Retained<(Saved, u32, u32), 3> = Retained::new();
}
retained! {
    /// For the test, not for the chip: which life this is, when the watchdog was fed in it, and when it was last seen alive, in ms.
    static LIFE: Retained<(u32, u32, u32)> = Retained::new();
}

// ---- what it does ----

const WATCHDOG: embassy_time::Duration = embassy_time::Duration::from_millis(150);
const FEED_INTERVAL: Duration = Duration::from_millis(40);
const CONTROL_DEADLINE: Duration = Duration::from_millis(100);
const DISPLAY_DEADLINE: Duration = Duration::from_millis(200);
/// How often the control does its work, and how often the chip is seen alive.
const STEP: embassy_time::Duration = embassy_time::Duration::from_millis(10);
const CAPACITY: u32 = 20;

const LOOP: Valid<boot_loop::Config> = valid!(
    boot_loop::Config::new()
        .with_hold_off(Backoff::exponential(Duration::from_millis(100)))
        .with_safe_mode_after(3)
        .with_stable_after(Duration::from_secs(5))
        .validate()
);

type Hub = Degradation<2>;
type Levels = &'static Hub;
type Told = fn(&TaskChange);

static HUB: Hub =
    Degradation::new(valid!(degradation::Config::new().with_dwell(Duration::from_millis(100)).validate()));
static TASKS: Supervisor<2, Levels, Told> = Supervisor::with_observer(
    valid!(supervisor::Config::new().with_feed_interval(FEED_INTERVAL).validate()),
    &HUB,
    remember,
);
static SENSOR: CircuitBreaker =
    CircuitBreaker::new(valid!(circuit_breaker::Config::new().with_open_for(Duration::from_secs(10)).validate()));
static BUDGET: QuotaBudget = QuotaBudget::new(valid!(QuotaConfig::new().with_capacity(CAPACITY).validate()));

const CONTROL: &str = "control";
const DISPLAY: &str = "display";

/// The critical task that is stalled: what to look into after the reset.
static HUNG: AtomicU32 = AtomicU32::new(NONE);
const NONE: u32 = 0;
const THE_CONTROL: u32 = 1;

fn remember(change: &TaskChange) {
    defmt::warn!("{}", change);
    if change.critical {
        HUNG.store(if change.stalled { THE_CONTROL } else { NONE }, Ordering::Relaxed);
        // No feeding will come before the reset.
        save(&change.at);
    }
}

fn save(clock: &impl Clock) {
    STATE.store((SENSOR.save(clock), BUDGET.balance(), HUNG.load(Ordering::Relaxed)));
}

// ---- its lives ----

/// How a life ends.
#[derive(Clone, Copy, Eq, PartialEq, defmt::Format)]
enum End {
    /// The control waits for something that never comes.
    Waits,
    /// The control never yields.
    Spins,
    /// The control masks interrupts and never yields, where the watchdog is the chip's own; else it spins.
    Masks,
    LosesPower,
    /// Restarts by itself, when it has become stable.
    Restarts,
    Exits,
}

/// What the chip must find when it starts, and what becomes of it.
struct Life {
    resets: u32,
    hold_off: u64,
    safe_mode: bool,
    /// Whether it knows of the sensor and of the budget.
    remembers: bool,
    hung: u32,
    end: End,
}

const LIVES: [Life; 7] = [
    Life { resets: 0, hold_off: 0, safe_mode: false, remembers: false, hung: NONE, end: End::Waits },
    Life { resets: 1, hold_off: 100, safe_mode: false, remembers: true, hung: THE_CONTROL, end: End::Spins },
    // Nobody could say so any more, as in the next one.
    Life { resets: 2, hold_off: 200, safe_mode: false, remembers: true, hung: NONE, end: End::Masks },
    Life { resets: 3, hold_off: 400, safe_mode: true, remembers: true, hung: NONE, end: End::LosesPower },
    Life { resets: 0, hold_off: 0, safe_mode: false, remembers: false, hung: NONE, end: End::Waits },
    Life { resets: 1, hold_off: 100, safe_mode: false, remembers: true, hung: THE_CONTROL, end: End::Restarts },
    Life { resets: 0, hold_off: 0, safe_mode: false, remembers: true, hung: NONE, end: End::Exits },
];

/// When the control hangs, in a life in which it does, in ms after the start.
const HANGS_AT: u32 = 1_000;

/// The exit code of a life that is not as it must be. The board has some more of its own.
const WRONG: u8 = 10;

fn check(what: &str, right: bool) {
    if !right {
        defmt::error!("{=str}: WRONG", what);
        board::exit(WRONG)
    }
}

fn millis() -> u32 {
    u32::try_from(embassy_time::Instant::now().as_millis()).unwrap_or(u32::MAX)
}

/// A critical task.
#[embassy_executor::task]
async fn control(alive: Supervised<2, Levels, Told>, device: &'static Embassy, end: End) {
    loop {
        alive.check_in(device);
        if millis() >= HANGS_AT {
            match end {
                End::Waits => core::future::pending().await,
                End::Masks if ResetWatchdog::IS_HARDWARE => critical_section::with(|_| spin()),
                End::Spins | End::Masks => spin(),
                End::LosesPower | End::Restarts | End::Exits => {}
            }
        }
        Timer::after(STEP).await;
    }
}

fn spin() -> ! {
    loop {
        core::hint::spin_loop();
    }
}

/// An optional task: it hangs from 300 to 700 ms.
#[embassy_executor::task]
async fn display(alive: Supervised<2, Levels, Told>, device: &'static Embassy) {
    loop {
        alive.check_in(device);
        let pause = if (300..700).contains(&millis()) { 400 } else { 10 };
        Timer::after_millis(pause).await;
    }
}

/// Feeds the watchdog, and with it keeps what the chip should remember.
#[embassy_executor::task]
async fn supervise(device: &'static Embassy, mut watchdog: ResetWatchdog, life: u32) {
    TASKS
        .run(device, || {
            watchdog.feed();
            save(device);
            LIFE.store((life, millis(), millis()));
        })
        .await
}

/// Sees the chip alive.
#[embassy_executor::task]
async fn witness() {
    loop {
        Timer::after(STEP).await;
        if let Some((life, fed, _)) = LIFE.load() {
            LIFE.store((life, fed, millis()));
        }
    }
}

/// One life, from its start to its end.
#[embassy_executor::task]
async fn live(device: &'static Embassy, boot: &'static Boot<'static>, end: End) {
    if boot.is_safe_mode() {
        // Nothing but what is needed to be repaired: here, a while in which nothing happens.
        Timer::after_millis(500).await;
    } else {
        sensor_and_display(device).await;
    }
    match end {
        End::Waits | End::Spins | End::Masks => {}
        End::LosesPower => board::lose_power(7, &LIFE),
        End::Restarts => {
            boot.stable(device).await;
            board::reset()
        }
        End::Exits => board::exit(0),
    }
}

/// What an optional task that hangs does to the level; and a sensor that fails.
async fn sensor_and_display(device: &'static Embassy) {
    Timer::at(embassy_time::Instant::from_millis(600)).await;
    check("the level while the display hangs", HUB.level(device) == DegradationLevel::Degraded);
    check("the display hangs", TASKS.stalled() == Some(DISPLAY) && TASKS.is_alive());
    Timer::at(embassy_time::Instant::from_millis(850)).await;
    check("the level when the display is back", HUB.level(device) == DegradationLevel::Full);
    while let Ok(permit) = SENSOR.try_acquire(device) {
        permit.failure();
        let _ = BUDGET.try_withdraw(1);
    }
}

/// Whether the life before ended as the watchdog would have it: fed until the control's deadline, and no further.
fn check_end(end: End, fed: u32, seen: u32) {
    let ms = |span: Duration| u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
    let (deadline, interval) = (ms(CONTROL_DEADLINE), ms(FEED_INTERVAL));
    defmt::info!("fed at {=u32} ms, seen at {=u32} ms", fed, seen);
    match end {
        End::Waits => {
            check("fed until the deadline", (HANGS_AT + deadline - interval..HANGS_AT + deadline + 10).contains(&fed));
            // The chip is seen every step; and an emulated watchdog of hardware may count faster than the clock.
            let period = u32::try_from(WATCHDOG.as_millis()).unwrap_or(u32::MAX);
            let earliest = if ResetWatchdog::IS_HARDWARE { period / 2 } else { period };
            check("reset within a period", (fed + earliest - 11..=fed + period).contains(&seen));
        }
        End::Spins | End::Masks => check("fed until it spins", (HANGS_AT - interval..=HANGS_AT + 10).contains(&fed)),
        End::LosesPower | End::Restarts | End::Exits => {}
    }
}

#[board::entry]
fn main() -> ! {
    static EXECUTOR: StaticCell<Embassy> = StaticCell::new();
    static BOOT: StaticCell<Boot<'static>> = StaticCell::new();

    let (number, fed, seen) = LIFE.load().map_or((0, 0, 0), |(life, fed, seen)| (life + 1, fed, seen));
    LIFE.store((number, 0, 0));
    let Some(life) = LIVES.get(number as usize) else { board::exit(WRONG) };
    if let Some(before) = LIVES.get((number as usize).wrapping_sub(1)) {
        check_end(before.end, fed, seen);
    }

    let device: &Embassy = EXECUTOR.init(Embassy::new(1));
    let boot: &Boot<'static> = BOOT.init(Boot::count(LOOP, &BOOTS));
    let state = STATE.load();
    defmt::info!("life {=u32}: {} resets in a row, safe mode: {=bool}", number, boot.resets(), boot.is_safe_mode());
    check("resets", boot.resets() == life.resets);
    check("hold-off", boot.hold_off() == Duration::from_millis(life.hold_off));
    check("safe mode", boot.is_safe_mode() == life.safe_mode);
    check("what it remembers", state.is_some() == life.remembers);
    if let Some((sensor, balance, hung)) = state {
        check("which task hung", hung == life.hung);
        BUDGET.restore(balance);
        check("the budget", BUDGET.balance() < CAPACITY && BUDGET.balance() == balance);
        SENSOR.restore(sensor, &Instant::START);
        let left = SENSOR.poll_timeout().map_or(0, |end| end.as_nanos() / 1_000_000);
        defmt::info!("the sensor's breaker is {}, for {=u64:ms} s", SENSOR.state(), left);
        check("the breaker", SENSOR.state() == StateKind::Open && (1..10_000).contains(&left));
    }

    board::run(|spawner| {
        spawner.spawn(defmt::unwrap!(begin(spawner, device, boot, number, life.end)));
    })
}

/// Waits for the hold-off to end, and starts what this life is to have.
#[embassy_executor::task]
async fn begin(
    spawner: embassy_executor::Spawner,
    device: &'static Embassy,
    boot: &'static Boot<'static>,
    number: u32,
    end: End,
) {
    let hold_off = boot.hold_off().as_micros();
    Timer::after_micros(u64::try_from(hold_off).unwrap_or(u64::MAX)).await;
    let watchdog = ResetWatchdog::start(WATCHDOG);
    if !boot.is_safe_mode() {
        let alive = defmt::unwrap!(TASKS.register(CONTROL, Task::critical(CONTROL_DEADLINE), device));
        spawner.spawn(defmt::unwrap!(control(alive, device, end)));
        let alive = defmt::unwrap!(TASKS.register(DISPLAY, Task::optional(DISPLAY_DEADLINE), device));
        spawner.spawn(defmt::unwrap!(display(alive, device)));
    }
    spawner.spawn(defmt::unwrap!(supervise(device, watchdog, number)));
    spawner.spawn(defmt::unwrap!(witness()));
    spawner.spawn(defmt::unwrap!(live(device, boot, end)));
}
