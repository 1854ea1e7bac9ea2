//! The bus the sensor is on: Modbus RTU over a UART, or what stands in for one.

use embedded_io_async::{Error, ErrorKind, Read, ReadReady, Write};
use sensor_protocol::modbus::{FrameError, ReadRequest, Reply};

/// Why a register could not be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, defmt::Format)]
pub(crate) enum BusError {
    /// The reply was damaged on the line.
    Crc,
    /// An intact frame, but no reply to this request.
    Unexpected,
    /// The sensor answered that it can't, with this code.
    Exception(u8),
    /// The UART failed.
    Uart(ErrorKind),
    /// Somebody else is on the line: there is more than one permit for it.
    Shared,
}

impl From<FrameError> for BusError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Crc => Self::Crc,
            _ => Self::Unexpected,
        }
    }
}

/// A Modbus master that talks to one device.
pub(crate) struct Bus<U> {
    uart: U,
    device: u8,
}

impl<U: Read + ReadReady + Write> Bus<U> {
    pub(crate) fn new(uart: U, device: u8) -> Self {
        Self { uart, device }
    }

    pub(crate) fn uart(&self) -> &U {
        &self.uart
    }

    /// Reads a holding register. It waits as long as the device takes, for ever when a reply is lost: the limit is the caller's.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point. The next call discards what arrived meanwhile. Modbus RTU doesn't number its requests,
    /// so a reply that comes even later, during the next exchange, passes as the reply to that one.
    pub(crate) async fn read_register(&mut self, register: u16) -> Result<u16, BusError> {
        self.discard().await.map_err(uart)?;
        let request = ReadRequest { device: self.device, register }.encode();
        self.uart.write_all(&request).await.map_err(uart)?;

        let mut buffer = [0; Reply::MAX_LEN];
        let mut filled = 0;
        loop {
            let expected = Reply::expected_len(&buffer[..filled]);
            if filled == expected {
                break;
            }
            filled += self.uart.read(&mut buffer[filled..expected]).await.map_err(uart)?;
        }
        match Reply::decode(self.device, &buffer[..filled])? {
            Reply::Value(value) => Ok(value),
            Reply::Exception(code) => Err(BusError::Exception(code)),
        }
    }

    /// Waits until a request that was given up is out, and throws away what has been received since.
    async fn discard(&mut self) -> Result<(), U::Error> {
        self.uart.flush().await?;
        let mut stale = [0; Reply::MAX_LEN];
        while self.uart.read_ready()? {
            // Lost bytes are stale as well, and reported once only.
            let _ = self.uart.read(&mut stale).await;
        }
        Ok(())
    }
}

fn uart(error: impl Error) -> BusError {
    BusError::Uart(error.kind())
}
