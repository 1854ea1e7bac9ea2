//! The connection to the server.

use embassy_net::IpEndpoint;
use embassy_net::tcp::{State, TcpSocket};
use embassy_time::{Duration, Timer};
use embedded_io_async::Write;
use sensor_protocol::uplink::{LENGTH, LONGEST, Reply, Request, length};

/// Between two looks whether a connection is closed.
const LOOK: Duration = Duration::from_millis(10);

/// Why an exchange came to nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, defmt::Format)]
pub(crate) enum LinkError {
    /// There was no connection to be had.
    Refused,
    /// The connection was reset.
    Reset,
    /// The server closed and had not answered.
    Closed,
    /// The server closed amid its answer.
    Cut,
    /// An intact frame, but no answer to this request.
    Unexpected,
    /// Somebody else is at it: there is more than one permit for it.
    Shared,
}

/// A client of one server, with at most one connection at a time.
pub(crate) struct Link {
    socket: TcpSocket<'static>,
    server: IpEndpoint,
}

impl Link {
    pub(crate) fn new(socket: TcpSocket<'static>, server: IpEndpoint) -> Self {
        Self { socket, server }
    }

    /// Sends a request and awaits the reply to it, over a connection that is made if need be. It waits as long as the
    /// server takes: the limit is the caller's.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point. The connection goes with it, and so does a reply that is late.
    pub(crate) async fn exchange(&mut self, request: &Request<'_>) -> Result<Reply, LinkError> {
        let mut exchange = Exchange { socket: &mut self.socket, is_complete: false };
        exchange.connect(self.server).await?;
        exchange.socket.write_all(request.encode().as_bytes()).await.map_err(|_| LinkError::Reset)?;
        let mut before = [0; LENGTH];
        exchange.fill(&mut before, LinkError::Closed).await?;
        let mut frame = [0; LONGEST];
        let frame = length(before).and_then(|length| frame.get_mut(..length)).ok_or(LinkError::Unexpected)?;
        exchange.fill(frame, LinkError::Cut).await?;
        let reply = Reply::decode(frame).ok_or(LinkError::Unexpected)?;
        exchange.is_complete = answers(&reply, request);
        if exchange.is_complete { Ok(reply) } else { Err(LinkError::Unexpected) }
    }

    /// Closes the connection, and waits until the server has too: the limit is the caller's.
    pub(crate) async fn close(&mut self) {
        self.socket.close();
        while !self.is_closed() {
            Timer::after(LOOK).await;
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.socket.state(), State::Closed | State::TimeWait)
    }
}

fn answers(reply: &Reply, request: &Request<'_>) -> bool {
    match (reply, request) {
        (Reply::Acknowledged { first, count, .. }, Request::Readings { first: sent, values, .. }) => {
            first == sent && usize::from(*count) == values.len()
        }
        (Reply::Closed(_), Request::Closing(_)) => true,
        _ => false,
    }
}

/// An exchange under way. Unless it comes to its end, it takes the connection along.
struct Exchange<'a> {
    socket: &'a mut TcpSocket<'static>,
    is_complete: bool,
}

impl Exchange<'_> {
    async fn connect(&mut self, server: IpEndpoint) -> Result<(), LinkError> {
        if self.socket.state() == State::Established {
            return Ok(());
        }
        // Whatever is left of the connection before: the socket is free once the server has been told.
        self.socket.abort();
        let _ = self.socket.flush().await;
        self.socket.connect(server).await.map_err(|_| LinkError::Refused)
    }

    /// Fills the buffer; `none` is what it means when the server closes before the first byte of it.
    async fn fill(&mut self, buffer: &mut [u8], none: LinkError) -> Result<(), LinkError> {
        let mut filled = 0;
        while filled < buffer.len() {
            filled += match self.socket.read(&mut buffer[filled..]).await {
                Ok(0) if filled == 0 => return Err(none),
                Ok(0) => return Err(LinkError::Cut),
                Ok(count) => count,
                Err(_) => return Err(LinkError::Reset),
            };
        }
        Ok(())
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        if !self.is_complete {
            self.socket.abort();
        }
    }
}
