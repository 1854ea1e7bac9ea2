//! Shows that the chain from compiler to emulator works: two tasks, timers, a timeout, the log and the exit code.

#![no_std]
#![no_main]

use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::channel::Channel;
use embassy_time::{Duration, Instant, Timer, with_timeout};

const READINGS: u32 = 3;
const PERIOD: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_millis(150);

static CHANNEL: Channel<CriticalSectionRawMutex, u32, 1> = Channel::new();

#[embassy_executor::task]
async fn produce() {
    for reading in 1..=READINGS {
        Timer::after(PERIOD).await;
        CHANNEL.send(reading).await;
    }
}

#[embassy_executor::task]
async fn consume() {
    let start = Instant::now();
    let mut received = 0;
    while let Ok(reading) = with_timeout(PATIENCE, CHANNEL.receive()).await {
        received += 1;
        defmt::info!("reading {=u32}", reading);
    }

    let took = start.elapsed();
    let expected = PERIOD * READINGS + PATIENCE;
    let asleep = board::asleep();
    defmt::info!("timeout after {=u64:us}, stack used: {=usize} bytes", took.as_micros(), board::stack_used());
    defmt::info!("asleep for {=u64:us} of that", asleep.as_micros());
    // A timer may be late, on a busy host by far; it must never be early. And all there is to do takes a moment.
    board::exit(u8::from(received != READINGS || took < expected || asleep < took / 100 * 95))
}

#[board::entry]
fn main() -> ! {
    board::run(|spawner| {
        spawner.spawn(defmt::unwrap!(produce()));
        spawner.spawn(defmt::unwrap!(consume()));
    })
}
