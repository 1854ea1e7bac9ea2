//! The flaky sensor: a Modbus slave that does what its script says.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Instant;

use sensor_protocol::modbus::{ReadRequest, Reply};
use sensor_protocol::{DEVICE, END_OF_RUN, PLAUSIBLE, TEMPERATURE};

use crate::script::{Fate, Progress, Script};

/// Modbus: the device failed while it served the request.
const DEVICE_FAILURE: u8 = 4;
/// Modbus: no such register.
const ILLEGAL_ADDRESS: u8 = 2;

/// What the sensor has seen and done.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    requests: u32,
    garbled: u32,
    dropped: u32,
    delayed: u32,
    corrupted: u32,
    truncated: u32,
    exceptions: u32,
    withheld: u32,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, garbled, dropped, delayed, corrupted, truncated, exceptions, withheld } = self;
        write!(f, "sensor: {requests} requests; {dropped} dropped, {delayed} delayed, {corrupted} corrupted, ")?;
        write!(f, "{truncated} truncated, {exceptions} exceptions, {withheld} withheld")?;
        if *garbled > 0 {
            write!(f, "; {garbled} bytes that were no request")?;
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
        summary.requests += 1;
        let answer = match script.proceed(Instant::now()) {
            Progress::Over => Some((Reply::Value(END_OF_RUN), Fate::Answer)),
            Progress::Same => None,
            Progress::Next(phase) => {
                println!("sensor: {} for {} s", phase.name, phase.length.as_secs());
                None
            }
        };
        let (reply, fate) = answer.unwrap_or_else(|| (measure(request, summary.requests), script.fate()));
        match send(&mut line, reply, fate, &mut summary) {
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

/// A temperature that goes up and down.
fn measure(request: ReadRequest, count: u32) -> Reply {
    if request.register != TEMPERATURE {
        return Reply::Exception(ILLEGAL_ADDRESS);
    }
    let span = PLAUSIBLE.end() - PLAUSIBLE.start();
    let step = u16::try_from(count % u32::from(2 * span)).unwrap_or_default();
    Reply::Value(PLAUSIBLE.start() + if step < span { step } else { 2 * span - step })
}

fn send(line: &mut impl Write, reply: Reply, fate: Fate, summary: &mut Summary) -> io::Result<()> {
    let mut buffer = [0; Reply::MAX_LEN];
    match fate {
        Fate::Answer => line.write_all(reply.encode(DEVICE, &mut buffer)),
        Fate::Drop => {
            summary.dropped += 1;
            Ok(())
        }
        Fate::Delay(delay) => {
            summary.delayed += 1;
            // As in a slave with one task: the next request waits in the line.
            thread::sleep(delay);
            line.write_all(reply.encode(DEVICE, &mut buffer))
        }
        Fate::Corrupt { place, mask } => {
            summary.corrupted += 1;
            let mut frame = reply.encode(DEVICE, &mut buffer).to_vec();
            let place = place % frame.len();
            frame[place] ^= mask;
            line.write_all(&frame)
        }
        Fate::Truncate(len) => {
            summary.truncated += 1;
            let frame = reply.encode(DEVICE, &mut buffer);
            line.write_all(&frame[..len.min(frame.len() - 1)])
        }
        Fate::Exception => {
            summary.exceptions += 1;
            line.write_all(Reply::Exception(DEVICE_FAILURE).encode(DEVICE, &mut buffer))
        }
        Fate::Withhold => {
            summary.withheld += 1;
            Ok(())
        }
    }
}
