//! What no server does on purpose: a proxy that cuts answers off, or hands them on byte by byte.

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::Result;
use crate::http::HttpClient;
use crate::nginx::{Line, Mode, Nginx};
use crate::outage::Subject;
use crate::server::Programs;

/// What it does with answers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answers {
    /// Hands them on.
    Whole,
    /// Hands on so many bytes of each, and closes the connection.
    Cut(usize),
    /// Hands on so many bytes of each at once, and then one a second.
    Dripping(usize),
}

/// An nginx behind a proxy, which fails in its stead.
pub(crate) struct Proxied {
    nginx: Nginx,
    address: SocketAddr,
    fault: Answers,
    answers: watch::Sender<Answers>,
    /// Who is connected has one of these.
    connections: Arc<()>,
    _tasks: JoinSet<()>,
}

impl Proxied {
    pub(crate) async fn start(programs: &Programs, folder: &Path, fault: Answers) -> Result<Self> {
        let nginx = Nginx::start(programs, folder, Mode::Healthy).await?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (answers, followed) = watch::channel(Answers::Whole);
        let connections = Arc::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, nginx.address, followed, Arc::clone(&connections)));
        Ok(Self { nginx, address, fault, answers, connections, _tasks: tasks })
    }

    /// What the server behind it has logged.
    pub(crate) fn log(&self) -> Result<Vec<Line>> {
        self.nginx.log()
    }
}

async fn accept(listener: TcpListener, upstream: SocketAddr, answers: watch::Receiver<Answers>, connections: Arc<()>) {
    let mut served = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                let (answers, connected) = (answers.clone(), Arc::clone(&connections));
                served.spawn(async move {
                    // A client that goes away in the middle is part of the game.
                    let _ = serve(stream, upstream, answers).await;
                    drop(connected);
                });
            }
            Some(_) = served.join_next() => {}
        }
    }
}

/// Until either end closes it, or we do.
async fn serve(client: TcpStream, upstream: SocketAddr, answers: watch::Receiver<Answers>) -> io::Result<()> {
    client.set_nodelay(true)?;
    let server = TcpStream::connect(upstream).await?;
    let ((mut from_client, to_client), (from_server, mut to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        ended = tokio::io::copy(&mut from_client, &mut to_server) => ended.map(drop),
        ended = hand_on(from_server, to_client, answers) => ended,
    }
}

async fn hand_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, answers: watch::Receiver<Answers>) -> io::Result<()> {
    // More than an answer has: each comes as a whole.
    let mut buffer = [0; 4_096];
    loop {
        let answer = match from.read(&mut buffer).await? {
            0 => return Ok(()),
            length => &buffer[..length],
        };
        let how = *answers.borrow();
        match how {
            Answers::Whole => to.write_all(answer).await?,
            Answers::Cut(bytes) => return to.write_all(&answer[..bytes.min(answer.len())]).await,
            Answers::Dripping(bytes) => {
                let (first, rest) = answer.split_at(bytes.min(answer.len()));
                to.write_all(first).await?;
                for &byte in rest {
                    sleep(Duration::from_secs(1)).await;
                    to.write_all(&[byte]).await?;
                }
            }
        }
    }
}

impl Subject for Proxied {
    type Client = HttpClient;

    fn client(&self) -> Result<HttpClient> {
        Ok(HttpClient::new(self.address))
    }

    async fn begin(&mut self) -> Result<()> {
        self.answers.send_replace(self.fault);
        Ok(())
    }

    async fn end(&mut self) -> Result<()> {
        self.answers.send_replace(Answers::Whole);
        Ok(())
    }

    /// Those to the proxy and those behind it: the more of the two.
    async fn connections(&mut self) -> Result<usize> {
        // But for ours, and that of whoever accepts.
        let ours = Arc::strong_count(&self.connections).saturating_sub(2);
        Ok(self.nginx.connections().await?.max(ours))
    }

    async fn requests(&mut self) -> Result<Option<usize>> {
        self.nginx.requests().await
    }
}
