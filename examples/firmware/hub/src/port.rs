//! Where the bus ends: in the board's UART, or in a simulation.

use board::{Uart, UartError};
use embedded_io_async::{ErrorType, Read, ReadReady, Write};

use crate::simulated::SimulatedLine;

/// One of two lines, chosen when the image starts.
pub(crate) enum Port {
    Uart(Uart),
    Simulated(SimulatedLine),
}

impl ErrorType for Port {
    type Error = UartError;
}

impl Read for Port {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, UartError> {
        match self {
            Self::Uart(uart) => uart.read(buffer).await,
            Self::Simulated(line) => line.read(buffer).await,
        }
    }
}

impl ReadReady for Port {
    fn read_ready(&mut self) -> Result<bool, UartError> {
        match self {
            Self::Uart(uart) => uart.read_ready(),
            Self::Simulated(line) => line.read_ready(),
        }
    }
}

impl Write for Port {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, UartError> {
        match self {
            Self::Uart(uart) => uart.write(bytes).await,
            Self::Simulated(line) => line.write(bytes).await,
        }
    }

    async fn flush(&mut self) -> Result<(), UartError> {
        match self {
            Self::Uart(uart) => uart.flush().await,
            Self::Simulated(line) => line.flush().await,
        }
    }
}
