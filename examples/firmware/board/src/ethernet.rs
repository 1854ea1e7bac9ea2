//! The board's Ethernet, driven by interrupts: a driver for embassy's network stack.

use core::cell::Cell;
use core::fmt;
use core::task::Context;

use critical_section::Mutex;
use embassy_net_driver::{Capabilities, Driver, HardwareAddress, LinkState, RxToken, TxToken};
use embassy_sync::waitqueue::AtomicWaker;

use crate::arch;
use crate::chip::ethernet::{self, LONGEST};

static TAKEN: Mutex<Cell<bool>> = Mutex::new(Cell::new(false));
/// Who waits for a frame, or until one has left.
static STACK: AtomicWaker = AtomicWaker::new();

/// The board's Ethernet.
pub struct Ethernet {
    address: [u8; 6],
    received: [u8; LONGEST],
    to_send: [u8; LONGEST],
}

impl fmt::Debug for Ethernet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ethernet").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Ethernet {
    /// Starts the Ethernet, with this address. There is only one: the second call gives `None`.
    pub fn take(address: [u8; 6]) -> Option<Self> {
        if critical_section::with(|cs| TAKEN.borrow(cs).replace(true)) {
            return None;
        }
        ethernet::start(address);
        arch::unmask_ethernet();
        Some(Self { address, received: [0; LONGEST], to_send: [0; LONGEST] })
    }
}

impl Driver for Ethernet {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = ToSend<'a>;

    fn receive(&mut self, cx: &mut Context<'_>) -> Option<(Received<'_>, ToSend<'_>)> {
        // Before the question, so that a frame that comes after it wakes.
        STACK.register(cx.waker());
        if !ethernet::has_received() || ethernet::is_sending() {
            return None;
        }
        let len = ethernet::receive(&mut self.received);
        Some((Received(&mut self.received[..len]), ToSend(&mut self.to_send)))
    }

    fn transmit(&mut self, cx: &mut Context<'_>) -> Option<ToSend<'_>> {
        STACK.register(cx.waker());
        (!ethernet::is_sending()).then_some(ToSend(&mut self.to_send))
    }

    /// The cable is always in its place.
    fn link_state(&mut self, _: &mut Context<'_>) -> LinkState {
        LinkState::Up
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = LONGEST;
        // The controller's memory has room for one of the longest.
        capabilities.max_burst_size = Some(1);
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet(self.address)
    }
}

/// A received frame.
#[derive(Debug)]
pub struct Received<'a>(&'a mut [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, work: F) -> R {
        work(self.0)
    }
}

/// Room for a frame to send.
#[derive(Debug)]
pub struct ToSend<'a>(&'a mut [u8; LONGEST]);

impl TxToken for ToSend<'_> {
    /// # Panics
    ///
    /// When `len` is more than the driver's capabilities say.
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, work: F) -> R {
        let frame = &mut self.0[..len];
        let result = work(frame);
        ethernet::send(frame);
        result
    }
}

/// Serves the Ethernet's interrupt.
pub(crate) fn on_interrupt() {
    ethernet::acknowledge_interrupts();
    STACK.wake();
}
