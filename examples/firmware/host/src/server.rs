//! The flaky server: takes readings over TCP, as its phases let it.

mod books;
mod phases;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use fastrand::Rng;
use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket, sockopt};
use sensor_protocol::uplink::{self, LENGTH, Reply, Request};

use books::Ledger;
pub(crate) use books::Summary;
use phases::{Conduct, Phases};

/// Between two looks at the line when nothing happens there.
const IDLE: Duration = Duration::from_millis(1);
/// What a slow answer takes, in milliseconds: the device waits for some of them, and gives others up.
const SLOW: std::ops::Range<u64> = 50..500;
/// A device that doesn't read is gone.
const WRITE: Duration = Duration::from_secs(1);

/// A port of this host's. Nobody else gets it while the server doesn't listen there.
struct Port {
    address: SocketAddrV4,
    _bound: OwnedFd,
}

impl Port {
    /// One that the system chooses.
    fn choose() -> anyhow::Result<Self> {
        let bound = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        // It never listens. So the system lets another socket share the port, if that one is willing too, as std's
        // listeners are.
        sockopt::set_socket_reuseaddr(&bound, true)?;
        bind(&bound, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
        match SocketAddr::try_from(getsockname(&bound)?) {
            Ok(SocketAddr::V4(address)) => Ok(Self { address, _bound: bound }),
            _ => anyhow::bail!("a port with an address that is none"),
        }
    }

    fn listen(&self) -> io::Result<TcpListener> {
        let listener = TcpListener::bind(self.address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }
}

/// The server, in a thread of its own.
pub(crate) struct Server {
    port: u16,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Summary>>,
}

impl Server {
    /// Listens on a port of this host's that the system chooses, and draws from `seed`.
    pub(crate) fn start(seed: u64) -> anyhow::Result<Self> {
        let port = Port::choose().context("a port for the server")?;
        let number = port.address.port();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || Play::new(port, seed).run(&stopped));
        Ok(Self { port: number, stop, thread })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Ends it, and returns what it has seen.
    pub(crate) fn end(self) -> anyhow::Result<Summary> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

struct Play {
    port: Port,
    listener: Option<TcpListener>,
    /// The device has one at a time.
    connection: Option<Connection>,
    rng: Rng,
    phases: Phases,
    ledger: Ledger,
}

impl Play {
    fn new(port: Port, seed: u64) -> Self {
        Self {
            port,
            listener: None,
            connection: None,
            rng: Rng::with_seed(seed),
            phases: Phases::default(),
            ledger: Ledger::default(),
        }
    }

    fn run(mut self, stop: &AtomicBool) -> anyhow::Result<Summary> {
        while !stop.load(Ordering::Relaxed) {
            self.step().context("the server's socket")?;
        }
        self.phases.end(Instant::now());
        Ok(Summary { ledger: self.ledger, stays: self.phases.stays })
    }

    fn step(&mut self) -> io::Result<()> {
        if let Some(phase) = self.phases.proceed(Instant::now()) {
            println!("server: {}", phase.name);
        }
        if self.phases.conduct() == Conduct::Refuse {
            (self.listener, self.connection) = (None, None);
        } else if self.listener.is_none() {
            self.listener = Some(self.port.listen()?);
        }
        self.accept()?;
        let received = match &mut self.connection {
            Some(connection) => connection.receive(),
            None => Received::Nothing,
        };
        match received {
            Received::Nothing => thread::sleep(IDLE),
            Received::Frame(frame) => self.serve(&frame),
            Received::End => self.connection = None,
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        // Of several, the device has given up all but the newest.
        let mut newest = None;
        while let Some(listener) = &self.listener {
            match listener.accept() {
                Ok((stream, _)) => newest = Some(stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // It was gone before it was accepted.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
        let Some(stream) = newest else { return Ok(()) };
        let connection = Connection::new(stream)?;
        // Or with the request that comes over it.
        if self.phases.conduct() == Conduct::Reset && self.phases.is_other_time() {
            self.phases.meet();
            connection.reset();
        } else {
            self.connection = Some(connection);
        }
        Ok(())
    }

    fn serve(&mut self, frame: &[u8]) {
        let Some(mut connection) = self.connection.take() else { return };
        // Whoever goes on in the same connection has read what it was answered.
        if let Some((first, count)) = connection.answered.take() {
            self.ledger.confirm(first, count);
        }
        let Some(request) = Request::decode(frame) else {
            self.ledger.garbled += 1;
            return;
        };
        self.phases.meet();
        match request {
            Request::Closing(device) => {
                let books = self.ledger.close(device);
                connection.send(&Reply::Closed(books));
                self.connection = Some(connection);
            }
            Request::Readings { level, first, values } => {
                self.ledger.note_level(level);
                let recovered = self.phases.note_level(level, Instant::now());
                if let Some(span) = recovered {
                    self.ledger.recovered = Some(span);
                }
                let count = u8::try_from(values.len()).unwrap_or(u8::MAX);
                self.answer(connection, first, count);
            }
        }
    }

    /// Answers readings as the phase has it, and keeps the connection if it does.
    fn answer(&mut self, mut connection: Connection, first: u32, count: u8) {
        let over = self.phases.is_over(Instant::now());
        let reply = Reply::Acknowledged { first, count, over };
        match self.phases.conduct() {
            // Before it has taken them.
            Conduct::Reset => return connection.reset(),
            Conduct::Refuse => return,
            Conduct::Silent => {}
            // It has taken them, and the device doesn't learn of it.
            Conduct::Close if self.phases.is_other_time() => return self.ledger.take(first, count),
            Conduct::Cut if self.phases.is_other_time() => {
                self.ledger.take(first, count);
                return connection.send_part(&reply, &mut self.rng);
            }
            conduct => {
                self.ledger.take(first, count);
                if conduct == Conduct::Slow {
                    thread::sleep(Duration::from_millis(self.rng.u64(SLOW)));
                }
                self.ledger.acknowledge(first, count);
                if connection.send(&reply) {
                    connection.answered = Some((first, count));
                }
            }
        }
        self.connection = Some(connection);
    }
}

/// What came over a connection.
enum Received {
    Nothing,
    Frame(Vec<u8>),
    /// The device has left.
    End,
}

struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    /// The readings that were acknowledged last.
    answered: Option<(u32, u8)>,
}

impl Connection {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE))?;
        Ok(Self { stream, received: Vec::new(), answered: None })
    }

    /// What is there: the next frame, if all of it is.
    fn receive(&mut self) -> Received {
        let mut buffer = [0; 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Received::End,
            Ok(count) => self.received.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // However it ended, the device has left.
            Err(_) => return Received::End,
        }
        let Some((before, rest)) = self.received.split_first_chunk::<LENGTH>() else { return Received::Nothing };
        // Where that is no length, it is no request either.
        let Some(length) = uplink::length(*before) else { return Received::Frame(Vec::new()) };
        let Some(frame) = rest.get(..length).map(<[u8]>::to_vec) else { return Received::Nothing };
        self.received.drain(..LENGTH + length);
        Received::Frame(frame)
    }

    /// Returns whether all of it went out.
    fn send(&mut self, reply: &Reply) -> bool {
        self.write(reply.encode().as_bytes())
    }

    /// Sends a part of it, and closes.
    fn send_part(mut self, reply: &Reply, rng: &mut Rng) {
        let frame = reply.encode();
        let bytes = frame.as_bytes();
        self.write(&bytes[..rng.usize(1..bytes.len())]);
    }

    /// A device that has left doesn't read.
    fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.set_nonblocking(false).is_ok()
            && self.stream.write_all(bytes).is_ok()
            && self.stream.set_nonblocking(true).is_ok()
    }

    /// Ends it by RST.
    fn reset(self) {
        // Where that fails, it ends by FIN.
        let _ = sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind<T>(result: io::Result<T>) -> Option<ErrorKind> {
        result.err().map(|error| error.kind())
    }

    #[test]
    fn nobody_listens_for_a_while_and_then_the_server_is_back_at_its_port() -> anyhow::Result<()> {
        let port = Port::choose()?;
        for _ in 0..2 {
            let listener = port.listen()?;
            let device = TcpStream::connect(port.address)?;
            drop((listener, device));
            assert_eq!(kind(TcpStream::connect(port.address)), Some(ErrorKind::ConnectionRefused));
        }
        Ok(())
    }

    #[test]
    fn a_reset_is_no_end() -> anyhow::Result<()> {
        let port = Port::choose()?;
        let listener = port.listen()?;
        let mut device = TcpStream::connect(port.address)?;
        listener.set_nonblocking(false)?;
        let (stream, _) = listener.accept()?;
        Connection::new(stream)?.reset();
        assert_eq!(kind(device.read(&mut [0])), Some(ErrorKind::ConnectionReset));
        Ok(())
    }
}
