//! Text on the emulator's standard output, or its standard error.

use core::fmt;

use semihosting::io::{Stderr, Stdout, Write, stderr, stdout};

/// Each write to the host stops the emulator, so not every word is one.
const BUFFER: usize = 256;

/// The emulator's standard output, for an image whose output is text.
///
/// The log goes there too, so such an image logs nothing as long as it fares well. What is written last needs a
/// [`flush`](Self::flush).
#[derive(Debug)]
pub struct Text {
    stream: Stream,
    buffer: [u8; BUFFER],
    len: usize,
}

#[derive(Debug)]
enum Stream {
    Output(Stdout),
    Error(Stderr),
}

impl Text {
    /// The standard output; `None` where the host offers none.
    pub fn new() -> Option<Self> {
        Some(Self { stream: Stream::Output(stdout().ok()?), buffer: [0; BUFFER], len: 0 })
    }

    /// The standard error; `None` where the host offers none.
    pub fn on_stderr() -> Option<Self> {
        Some(Self { stream: Stream::Error(stderr().ok()?), buffer: [0; BUFFER], len: 0 })
    }

    /// Hands the host what is still here.
    ///
    /// # Errors
    /// When the host doesn't take it.
    pub fn flush(&mut self) -> fmt::Result {
        let text = &self.buffer[..self.len];
        let written = match &mut self.stream {
            Stream::Output(stdout) => stdout.write_all(text),
            Stream::Error(stderr) => stderr.write_all(text),
        };
        self.len = 0;
        written.map_err(|_| fmt::Error)
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // A character may be cut in two: the host sees only bytes.
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            if self.len == BUFFER {
                self.flush()?;
            }
            let free = &mut self.buffer[self.len..];
            let (now, later) = rest.split_at(rest.len().min(free.len()));
            free[..now.len()].copy_from_slice(now);
            self.len += now.len();
            rest = later;
        }
        Ok(())
    }
}
