//! A sensor hub: it polls a sensor on a Modbus line that is anything but reliable, and always has an answer.
//!
//! The line is the board's UART; the sensor is played by the host program, from a seed. Two tasks use the line, each call of
//! theirs through the [policies](policies); what the hub still promises follows from the [level](health) of degradation. After
//! every poll an [oracle](oracle) says which level and which answer are right, and the first that is not ends the run.
//!
//! With the argument `exchanges=N` the line is [simulated](simulated) in the image itself, in virtual time: so many requests reach a
//! sensor that fails about 30 % of them, the same ones for the same seed, and [more](endurance) is asked of the run.

#![no_std]
#![no_main]

mod bus;
mod endurance;
mod health;
mod oracle;
mod policies;
mod port;
mod simulated;
mod tally;

use core::cell::RefCell;

use board::{Uart, Watchdog};
use bus::Bus;
use embassy_time::{Duration, Instant, Timer, with_timeout};
use endurance::Endurance;
use failsoft_embassy::{Clock, Embassy};
use health::Health;
use oracle::{Oracle, Right};
use policies::Line;
use port::Port;
use sensor_protocol::{DEVICE, END_OF_RUN, TEMPERATURE};
use simulated::SimulatedLine;
use static_cell::StaticCell;
use tally::{Tally, exit_code};

/// Between two polls.
const PERIOD: Duration = Duration::from_millis(50);
/// Between two looks at the line by the diagnostics.
const DIAGNOSTICS: Duration = Duration::from_millis(700);
/// Much more than a poll and its pause take, in whatever way they end.
const WATCHDOG: Duration = Duration::from_secs(2);
/// Longer than the diagnostics can be at it.
const REST: Duration = Duration::from_secs(1);
/// The sensor's script is shorter.
const LONGEST_RUN: Duration = Duration::from_secs(40);

/// Polls the sensor, answers whoever asks for the temperature, and feeds the watchdog for each answer given.
#[embassy_executor::task]
async fn hub(line: &'static Line, endurance: Option<Endurance>) {
    let mut watchdog = Watchdog::start(WATCHDOG);
    let (mut health, mut tally, mut oracle) = (Health::new(line.device()), Tally::default(), Oracle::new());
    let start = Instant::now();
    let longest_run = endurance.map_or(LONGEST_RUN, Endurance::longest_run);

    let ended = loop {
        let polled = line.read(TEMPERATURE).await;
        if let Ok(END_OF_RUN) = polled {
            break true;
        }
        if start.elapsed() > longest_run {
            break false;
        }
        let now = line.device().now();
        let answer = health.answer(now, &polled);
        let (level, since) = health.in_force();
        let is = Right { level: level as u8, since: since.as_nanos(), answer };
        let right = oracle.expect(now.as_nanos(), polled.as_ref().ok().copied());
        if is != right {
            defmt::error!("{}, where the oracle has {}", is, right);
            board::exit(exit_code::WRONG_ANSWER);
        }
        tally.count(&polled, answer);
        // An answer of any level is progress. A hub that hangs gives none, and is not fed.
        watchdog.feed();
        Timer::after(PERIOD).await;
    };

    // The diagnostics may be on the line just now.
    let _ = with_timeout(REST, async {
        while !policies::at_rest() {
            Timer::after(PERIOD).await;
        }
    })
    .await;
    tally.log();
    health.log();
    policies::log();
    let (up, asleep) = (start.elapsed().as_millis(), board::asleep().as_millis());
    defmt::info!("asleep for {=u64:ms} of {=u64:ms} s", asleep, up);
    defmt::info!(
        "the watchdog waited {=u64:ms} s at most; {=usize} bytes of stack used",
        watchdog.longest_gap().as_millis(),
        board::stack_used()
    );
    let verdict = match (tally.verdict(&health, ended), endurance) {
        (exit_code::OK, Some(endurance)) => endurance.verdict(line, &health, watchdog.longest_gap()),
        (verdict, _) => verdict,
    };
    board::exit(verdict)
}

/// Looks at the line now and then, beside the polls: what the bulkhead keeps apart.
#[embassy_executor::task]
async fn diagnostics(line: &'static Line) {
    loop {
        Timer::after(DIAGNOSTICS).await;
        if let Err(failure) = line.read(TEMPERATURE).await {
            defmt::debug!("diagnostics: {}", failure);
        }
    }
}

#[board::entry]
fn main() -> ! {
    static EXECUTOR: StaticCell<Embassy> = StaticCell::new();
    static LINE: StaticCell<Line> = StaticCell::new();

    let seed = board::argument("seed").unwrap_or_default();
    defmt::info!("sensor hub, seed {=u32}", seed);
    // Jitter must differ from device to device: here the seed stands for the device's own number.
    let executor = EXECUTOR.init(Embassy::new(seed.into()));
    let endurance = board::argument("exchanges").map(|exchanges| Endurance { exchanges });
    let port = match endurance {
        Some(Endurance { exchanges }) => Port::Simulated(SimulatedLine::new(seed, exchanges)),
        None => Port::Uart(defmt::unwrap!(Uart::take())),
    };
    let line = LINE.init(Line::new(RefCell::new(Bus::new(port, DEVICE)), executor));
    board::run(|spawner| {
        spawner.spawn(defmt::unwrap!(hub(line, endurance)));
        spawner.spawn(defmt::unwrap!(diagnostics(line)));
    })
}
