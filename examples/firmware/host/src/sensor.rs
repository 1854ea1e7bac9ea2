//! The flaky sensor: a Modbus slave that does what its script says.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Instant;

use sensor_protocol::modbus::{ReadRequest, Reply};
use sensor_protocol::sensor::{Counts, Fate, measure};
use sensor_protocol::{DEVICE, END_OF_RUN};

use crate::script::{Progress, Script};

/// What the sensor has seen and done.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    requests: Counts,
    garbled: u32,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sensor: {}", self.requests)?;
        if self.garbled > 0 {
            write!(f, "; {} bytes that were no request", self.garbled)?;
        }
        Ok(())
    }
}

/// Plays the sensor for whoever connects, until they leave.
pub(crate) fn play(listener: &UnixListener, seed: u64) -> io::Result<Summary> {
    let (mut line, _) = listener.accept()?;
    let mut script = Script::new(seed);
    let mut summary = Summary::default();
    while let Some(request) = next_request(&mut line, &mut summary)? {
        let answer = match script.proceed(Instant::now()) {
            Progress::Over => Some((Reply::Value(END_OF_RUN), Fate::Answer)),
            Progress::Same => None,
            Progress::Next(phase) => {
                println!("sensor: {} for {} s", phase.name, phase.length.as_secs());
                None
            }
        };
        let (reply, fate) = answer.unwrap_or_else(|| (measure(request, summary.requests.requests + 1), script.fate()));
        summary.requests.count(fate);
        // As in a slave with one task: the next request waits in the line.
        thread::sleep(fate.delay());
        match line.write_all(&fate.bytes(reply)) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            result => result?,
        }
    }
    Ok(summary)
}

/// Modbus ends a frame by silence, which a socket doesn't carry. So this takes any eight bytes in a row that make a request.
fn next_request(line: &mut impl Read, summary: &mut Summary) -> io::Result<Option<ReadRequest>> {
    let mut frame = [0; ReadRequest::LEN];
    let mut missing = frame.len();
    loop {
        let start = frame.len() - missing;
        match line.read_exact(&mut frame[start..]) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        match ReadRequest::decode(&frame) {
            Ok(request) if request.device == DEVICE => return Ok(Some(request)),
            _ => {
                frame.rotate_left(1);
                missing = 1;
                summary.garbled += 1;
            }
        }
    }
}
