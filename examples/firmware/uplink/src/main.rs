//! A device that takes readings and hands them to a server over TCP. The server is anything but reliable, and no
//! reading is lost that the device believes to have handed over.
//!
//! The network is the board's Ethernet; the server is played by the host program. Two tasks want the one connection,
//! each call of theirs through the [policies]; what the device still promises follows from the [level](health) of
//! degradation, and what it can't hand over it [keeps](store) as long as there is room.

#![no_std]
#![no_main]

mod health;
mod link;
mod policies;
mod store;
mod tally;

use core::cell::{Cell, RefCell};

use board::{Ethernet, Watchdog};
use embassy_executor::Spawner;
use embassy_net::tcp::TcpSocket;
use embassy_net::{Config, IpEndpoint, Ipv4Address, Ipv4Cidr, Runner, Stack, StackResources, StaticConfigV4};
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::signal::Signal;
use embassy_time::{Duration, Instant, Ticker, Timer, with_timeout};
use failsoft_embassy::degradation::{DegradationLevel, Level};
use failsoft_embassy::{Embassy, Failure};
use health::Health;
use link::{Link, LinkError};
use policies::Server;
use sensor_protocol::uplink::{Books, READINGS, Reply, Request};
use static_cell::StaticCell;
use store::{Batch, Store};
use tally::{Tally, exit_code};

/// Between two readings.
const PERIOD: Duration = Duration::from_millis(50);
/// Between two batches, when the device is degraded.
const COLLECT: Duration = Duration::from_millis(250);
/// Between two questions whether the server is there.
const ATTEND: Duration = Duration::from_millis(350);
/// Much more than a call and its pause take, in whatever way they end.
const WATCHDOG: Duration = Duration::from_secs(4);
/// Longer than the server takes to close, and the other task to end.
const REST: Duration = Duration::from_secs(3);
/// The server's script is shorter.
const LONGEST_RUN: Duration = Duration::from_secs(45);

/// Any address will do in a network with nobody else in it; this one is no maker's, by its second lowest bit.
const HARDWARE_ADDRESS: [u8; 6] = [0x02, 0, 0, 0, 0, 1];
/// As the emulator has its network, and the host in it.
const ADDRESS: Ipv4Cidr = Ipv4Cidr::new(Ipv4Address::new(10, 0, 2, 15), 24);
const HOST: Ipv4Address = Ipv4Address::new(10, 0, 2, 2);
/// More than a request or a reply.
const BUFFER: usize = 512;

/// There is a reading.
static TAKEN: Signal<CriticalSectionRawMutex, ()> = Signal::new();

/// What the tasks share.
struct Device {
    server: Server,
    store: RefCell<Store>,
    health: RefCell<Health>,
    tally: RefCell<Tally>,
    /// The server has played its whole script.
    is_over: Cell<bool>,
}

impl Device {
    fn level(&self) -> DegradationLevel {
        self.health.borrow_mut().level()
    }

    /// Hands over a batch of readings, or none, only to see whether the server is there.
    async fn hand_over(&self, batch: &Batch) {
        let request = Request::Readings { level: self.level().step(), first: batch.first, values: &batch.values };
        let result = self.ask(&request).await;
        if let Ok(Reply::Acknowledged { over, .. }) = result {
            self.store.borrow_mut().acknowledge(batch);
            self.is_over.set(over);
        }
    }

    async fn ask(&self, request: &Request<'_>) -> Result<Reply, Failure<LinkError>> {
        let result = self.server.ask(request).await;
        self.tally.borrow_mut().count(&result);
        self.health.borrow_mut().report(result.is_ok());
        if let Err(failure) = &result {
            defmt::debug!("{}", failure);
        }
        result
    }

    /// Takes leave of the server, and returns its books.
    async fn close(&self) -> Option<Books> {
        let books = self.store.borrow().books();
        match self.ask(&Request::Closing(books)).await {
            Ok(Reply::Closed(books)) => Some(books),
            _ => None,
        }
    }
}

/// Takes readings, whatever becomes of them.
#[embassy_executor::task]
async fn take(device: &'static Device) {
    let mut ticker = Ticker::every(PERIOD);
    loop {
        ticker.next().await;
        if device.is_over.get() || device.store.borrow().taken() == READINGS {
            break;
        }
        let reading = device.store.borrow().taken() % 200;
        device.store.borrow_mut().keep(u16::try_from(reading).unwrap_or_default());
        TAKEN.signal(());
    }
}

/// Hands the readings over as the level has it, feeds the watchdog, and comes to the verdict.
#[embassy_executor::task]
async fn deliver(device: &'static Device) {
    let mut watchdog = Watchdog::start(WATCHDOG);
    let start = Instant::now();
    while start.elapsed() < LONGEST_RUN {
        let is_empty = device.store.borrow().is_empty();
        if device.is_over.get() && is_empty {
            break;
        }
        match device.level() {
            DegradationLevel::Full if is_empty => TAKEN.wait().await,
            DegradationLevel::Full => {}
            DegradationLevel::Degraded | DegradationLevel::Minimal => Timer::after(COLLECT).await,
        }
        if device.level() != DegradationLevel::Minimal {
            let batch = device.store.borrow().batch();
            device.hand_over(&batch).await;
        }
        watchdog.feed();
    }

    let books = if device.is_over.get() { device.close().await } else { None };
    // The other task may be at it just now.
    let _ = with_timeout(REST, async {
        while !device.server.is_at_rest() {
            device.server.close().await;
            Timer::after(PERIOD).await;
        }
    })
    .await;
    let (store, mut health) = (device.store.borrow(), device.health.borrow_mut());
    device.tally.borrow().log(&store, &device.server);
    health.log();
    let (up, asleep) = (start.elapsed().as_millis(), board::asleep().as_millis());
    defmt::info!("asleep for {=u64:ms} of {=u64:ms} s", asleep, up);
    defmt::info!(
        "the watchdog waited {=u64:ms} s at most; {=usize} bytes of stack used",
        watchdog.longest_gap().as_millis(),
        board::stack_used()
    );
    board::exit(Tally::verdict(&store, &device.server, &mut health, books))
}

/// Sees now and then whether the server is there, at every level: so the device gets up from its minimum.
#[embassy_executor::task]
async fn attend(device: &'static Device) {
    let mut ticker = Ticker::every(ATTEND);
    loop {
        ticker.next().await;
        if device.is_over.get() {
            break;
        }
        device.hand_over(&Batch::default()).await;
    }
}

#[embassy_executor::task]
async fn network(mut runner: Runner<'static, Ethernet>) {
    runner.run().await;
}

/// Starts the network, and returns a socket in it.
fn start_network(spawner: Spawner, seed: u32) -> TcpSocket<'static> {
    static RESOURCES: StaticCell<StackResources<1>> = StaticCell::new();
    static BUFFERS: StaticCell<[[u8; BUFFER]; 2]> = StaticCell::new();

    let ethernet = defmt::unwrap!(Ethernet::take(HARDWARE_ADDRESS));
    let config =
        Config::ipv4_static(StaticConfigV4 { address: ADDRESS, gateway: None, dns_servers: heapless::Vec::new() });
    let (stack, runner): (Stack<'static>, _) =
        embassy_net::new(ethernet, config, RESOURCES.init(StackResources::new()), seed.into());
    spawner.spawn(defmt::unwrap!(network(runner)));
    let [receive, send] = BUFFERS.init([[0; BUFFER]; 2]);
    TcpSocket::new(stack, receive, send)
}

#[board::entry]
fn main() -> ! {
    static EXECUTOR: StaticCell<Embassy> = StaticCell::new();
    static DEVICE: StaticCell<Device> = StaticCell::new();

    let seed = board::argument("seed").unwrap_or_default();
    let Some(port) = board::argument("port").and_then(|port| u16::try_from(port).ok()) else {
        defmt::error!("no server: it takes the argument `port=NUMBER`");
        board::exit(exit_code::NO_END)
    };
    defmt::info!("uplink to port {=u16}, seed {=u32}", port, seed);
    // Jitter must differ from device to device: here the seed stands for the device's own number.
    let executor = EXECUTOR.init(Embassy::new(seed.into()));
    board::run(|spawner| {
        let link = Link::new(start_network(spawner, seed), IpEndpoint::new(HOST.into(), port));
        let device = DEVICE.init(Device {
            server: Server::new(link, executor),
            store: RefCell::new(Store::new()),
            health: RefCell::new(Health::new(executor)),
            tally: RefCell::new(Tally::default()),
            is_over: Cell::new(false),
        });
        spawner.spawn(defmt::unwrap!(take(device)));
        spawner.spawn(defmt::unwrap!(deliver(device)));
        spawner.spawn(defmt::unwrap!(attend(device)));
    })
}
