//! A pool of connections, small enough to be understood.

use core::future::Future;
use core::net::SocketAddr;
use std::io;
use std::sync::{Mutex, PoisonError};

use failsoft_tokio::ErrIsFailure;

use crate::guard::Guard;
use crate::load::{Attempts, Client, Ending};

/// A connection over which one question is asked at a time.
pub(crate) trait Wire: Send + Sized + 'static {
    fn connect(server: SocketAddr) -> impl Future<Output = io::Result<Self>> + Send;

    /// Asks for this number, and reads the answer to its end.
    fn echo(&mut self, number: u32) -> impl Future<Output = io::Result<String>> + Send;
}

/// Connections to one server.
pub(crate) struct Pool<W> {
    server: SocketAddr,
    idle: Mutex<Vec<W>>,
    /// Whether connections are kept.
    keeps: bool,
    attempts: Attempts,
}

impl<W: Wire> Pool<W> {
    pub(crate) fn new(server: SocketAddr, keeps: bool) -> Self {
        Self { server, idle: Mutex::default(), keeps, attempts: Attempts::default() }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<W>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One attempt: whether the answer is the right one. Only a connection whose answer has been read to its end comes back; one that is
    /// given up meanwhile is closed, since the next one would read the rest.
    async fn ask(&self, number: u32) -> io::Result<bool> {
        let _under_way = self.attempts.enter();
        let idle = self.idle().pop();
        let mut wire = match idle {
            Some(wire) => wire,
            None => W::connect(self.server).await?,
        };
        let echo = wire.echo(number).await;
        if echo.is_err() {
            // Where one is broken the idle ones are, too, most likely: each would make a probe fail after the server is back.
            self.idle().clear();
        }
        let right = echo? == number.to_string();
        if self.keeps {
            self.idle().push(wire);
        }
        Ok(right)
    }
}

impl<W: Wire> Client for Pool<W> {
    async fn guarded(&self, guard: &'static Guard, number: u32) -> Ending {
        let ended = guard.pipeline(ErrIsFailure).call(|_| self.ask(number)).await;
        ended.map_or_else(|failure| Ending::from(&failure), answered)
    }

    async fn bare(&self, number: u32) -> Ending {
        self.ask(number).await.map_or(Ending::Failed, answered)
    }

    fn attempts(&self) -> &Attempts {
        &self.attempts
    }
}

fn answered(right: bool) -> Ending {
    if right { Ending::Served } else { Ending::Wrong }
}

/// What a server must not say.
pub(crate) fn gibberish(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("unexpected: {what}"))
}
