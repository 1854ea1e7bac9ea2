//! The board's UART, driven by interrupts in both directions.

use core::cell::Cell;
use core::fmt;
use core::future::poll_fn;
use core::task::Poll;

use critical_section::{CriticalSection, Mutex};
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::pipe::Pipe;
use embassy_sync::waitqueue::AtomicWaker;
use embedded_io_async::{Error, ErrorKind, ErrorType, Read, ReadReady, Write};

use crate::arch;
use crate::chip::uart;

/// The size of each buffer: some frames of a field bus.
const BUFFER: usize = 64;

static RECEIVED: Pipe<CriticalSectionRawMutex, BUFFER> = Pipe::new();
static TO_SEND: Pipe<CriticalSectionRawMutex, BUFFER> = Pipe::new();
static ALL_SENT: AtomicWaker = AtomicWaker::new();
static STATE: Mutex<Cell<State>> = Mutex::new(Cell::new(State { taken: false, sending: false, overrun: false }));

#[derive(Clone, Copy)]
struct State {
    taken: bool,
    /// A byte is on its way; its interrupt sends the next one.
    sending: bool,
    /// A received byte found the buffer full.
    overrun: bool,
}

/// The board's UART at 115 200 baud, 8N1.
#[derive(Debug)]
pub struct Uart(());

/// Why a [`Uart`] could not be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, defmt::Format)]
#[non_exhaustive]
pub enum UartError {
    /// Bytes came faster than they were read, and some are lost.
    Overrun,
}

impl Uart {
    /// Starts the UART. There is only one: the second call gives `None`.
    pub fn take() -> Option<Self> {
        let state = update(|state| state.taken = true);
        if state.taken {
            return None;
        }
        uart::start();
        arch::unmask_uart();
        Some(Self(()))
    }
}

impl ErrorType for Uart {
    type Error = UartError;
}

impl Read for Uart {
    /// # Cancel safety
    ///
    /// A read that is dropped has taken nothing.
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, UartError> {
        if update(|state| state.overrun = false).overrun {
            return Err(UartError::Overrun);
        }
        Ok(RECEIVED.read(buffer).await)
    }
}

impl ReadReady for Uart {
    fn read_ready(&mut self) -> Result<bool, UartError> {
        Ok(!RECEIVED.is_empty() || critical_section::with(|cs| STATE.borrow(cs).get().overrun))
    }
}

impl Write for Uart {
    /// # Cancel safety
    ///
    /// A write that is dropped has sent nothing.
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, UartError> {
        let count = TO_SEND.write(bytes).await;
        critical_section::with(|cs| {
            if !STATE.borrow(cs).get().sending {
                send_next(cs);
            }
        });
        Ok(count)
    }

    async fn flush(&mut self) -> Result<(), UartError> {
        poll_fn(|context| {
            ALL_SENT.register(context.waker());
            if critical_section::with(|cs| STATE.borrow(cs).get().sending) { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        Ok(())
    }
}

impl Error for UartError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

impl core::error::Error for UartError {}

impl fmt::Display for UartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overrun => f.write_str("bytes came faster than they were read"),
        }
    }
}

/// Changes the state, and returns the one before.
fn update(change: impl FnOnce(&mut State)) -> State {
    critical_section::with(|cs| {
        let before = STATE.borrow(cs).get();
        let mut state = before;
        change(&mut state);
        STATE.borrow(cs).set(state);
        before
    })
}

fn send_next(_masked: CriticalSection<'_>) {
    let mut byte = [0];
    let sending = TO_SEND.try_read(&mut byte).is_ok();
    update(|state| state.sending = sending);
    if sending {
        uart::send(byte[0]);
    } else {
        ALL_SENT.wake();
    }
}

/// Serves the UART's interrupt.
pub(crate) fn on_interrupt() {
    while let Some(byte) = uart::receive() {
        if RECEIVED.try_write(&[byte]).is_err() {
            update(|state| state.overrun = true);
        }
    }
    if uart::take_sent() {
        critical_section::with(send_next);
    }
}
