//! A serial line with the flaky sensor at its other end, played in the chip's own time. What happens to the n-th request follows from the
//! seed alone; in virtual time the whole run does.

use core::future::pending;

use board::UartError;
use embassy_time::{Duration, Instant, Timer};
use embedded_io_async::{ErrorType, Read, ReadReady, Write};
use heapless::Deque;
use sensor_protocol::END_OF_RUN;
use sensor_protocol::endurance::Script;
use sensor_protocol::modbus::{ReadRequest, Reply};
use sensor_protocol::sensor::{Counts, Fate, measure};

/// Ten bits at 115 200 baud, rounded up.
const BYTE: Duration = Duration::from_micros(87);
/// What the sensor takes for a reply, if nothing goes wrong.
const TURNAROUND: Duration = Duration::from_millis(2);
/// Bytes on their way, or received and not read yet: as many as the board's UART holds.
const BUFFER: usize = 64;

/// The hub's end of the line.
pub(crate) struct SimulatedLine {
    script: Script,
    /// When the last request is out.
    sent_at: Instant,
    /// When the sensor has sent its last reply. It serves one request after the other.
    replied_at: Instant,
    /// Bytes for the hub, and when each arrives.
    arriving: Deque<(Instant, u8), BUFFER>,
    overrun: bool,
}

impl SimulatedLine {
    pub(crate) fn new(seed: u32, requests: u32) -> Self {
        let script = Script::new(seed.into(), requests);
        Self { script, sent_at: Instant::MIN, replied_at: Instant::MIN, arriving: Deque::new(), overrun: false }
    }

    /// What happened to the requests so far.
    pub(crate) fn counts(&self) -> Counts {
        self.script.counts()
    }

    fn serve(&mut self, request: ReadRequest) {
        let (reply, fate) = match self.script.next_fate() {
            Some(fate) => (measure(request, self.script.counts().requests), fate),
            None => (Reply::Value(END_OF_RUN), Fate::Answer),
        };
        let delay = Duration::from_micros(u64::try_from(fate.delay().as_micros()).unwrap_or(u64::MAX));
        let mut at = self.sent_at.max(self.replied_at) + TURNAROUND + delay;
        for byte in fate.bytes(reply) {
            at += BYTE;
            self.overrun |= self.arriving.push_back((at, byte)).is_err();
        }
        self.replied_at = at;
    }

    fn has_byte(&self) -> bool {
        self.arriving.front().is_some_and(|(at, _)| *at <= Instant::now())
    }
}

impl ErrorType for SimulatedLine {
    type Error = UartError;
}

impl Read for SimulatedLine {
    /// # Cancel safety
    ///
    /// A read that is dropped has taken nothing.
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, UartError> {
        if core::mem::take(&mut self.overrun) {
            return Err(UartError::Overrun);
        }
        match self.arriving.front() {
            Some((at, _)) => Timer::at(*at).await,
            // Nobody can send a request meanwhile: nothing will ever come.
            None => pending().await,
        }
        let mut count = 0;
        while count < buffer.len() && self.has_byte() {
            let Some((_, byte)) = self.arriving.pop_front() else { break };
            buffer[count] = byte;
            count += 1;
        }
        Ok(count)
    }
}

impl ReadReady for SimulatedLine {
    fn read_ready(&mut self) -> Result<bool, UartError> {
        Ok(self.overrun || self.has_byte())
    }
}

impl Write for SimulatedLine {
    /// # Cancel safety
    ///
    /// It never waits.
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, UartError> {
        for _ in bytes {
            self.sent_at = self.sent_at.max(Instant::now()) + BYTE;
        }
        // As on a real line, nobody answers what is no request.
        if let Ok(Ok(request)) = bytes.try_into().map(ReadRequest::decode) {
            self.serve(request);
        }
        Ok(bytes.len())
    }

    async fn flush(&mut self) -> Result<(), UartError> {
        Timer::at(self.sent_at).await;
        Ok(())
    }
}
