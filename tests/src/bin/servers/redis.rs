//! Redis, and as much of its protocol as it takes to ask it something.

use core::net::SocketAddr;
use core::time::Duration;
use std::io;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::Result;
use crate::outage::{Fault, Subject};
use crate::pool::{Pool, Wire, gibberish};
use crate::server::{Farewell, Manner, Programs, Server, free_address};

/// A connection.
pub(crate) struct Resp(BufReader<TcpStream>);

impl Resp {
    async fn command(&mut self, words: &[&str]) -> io::Result<String> {
        let mut text = format!("*{}\r\n", words.len());
        for word in words {
            text += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.0.write_all(text.as_bytes()).await?;
        let header = self.line().await?;
        let Some(length) = header.strip_prefix('$') else { return Ok(header) };
        let length: usize = length.parse().map_err(|_| gibberish(&header))?;
        let mut bytes = vec![0; length + 2];
        self.0.read_exact(&mut bytes).await?;
        bytes.truncate(length);
        String::from_utf8(bytes).map_err(|_| gibberish("not text"))
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line).await?;
        line.strip_suffix("\r\n").map(str::to_owned).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl Wire for Resp {
    async fn connect(server: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    async fn echo(&mut self, number: u32) -> io::Result<String> {
        self.command(&["ECHO", &number.to_string()]).await
    }
}

/// Connections that the kernel takes in for a Redis that accepts none: as many as Redis asks for by itself.
const BACKLOG: usize = 511;
/// One that is soon full. Those who fill it are among the connections that a Redis has just after it was stopped.
const SHORT_BACKLOG: usize = 15;
/// On the loopback interface, who has not been answered by then is not.
const NO_ANSWER: Duration = Duration::from_millis(100);

/// A Redis of our own.
pub(crate) struct Redis {
    program: PathBuf,
    folder: PathBuf,
    address: SocketAddr,
    fault: Fault,
    server: Server,
    /// For questions of ours.
    monitor: Resp,
    /// They fill its backlog.
    crowd: Vec<TcpStream>,
}

impl Redis {
    pub(crate) async fn start(programs: &Programs, folder: &Path, fault: Fault) -> Result<Self> {
        let address = free_address()?;
        let backlog = if fault == Fault::Unanswered { SHORT_BACKLOG } else { BACKLOG };
        let (server, monitor) = launch(&programs.redis, folder, address, backlog).await?;
        let (program, folder) = (programs.redis.clone(), folder.into());
        Ok(Self { program, folder, address, fault, server, monitor, crowd: Vec::new() })
    }

    /// Connects until it is as if nobody were there.
    async fn crowd(&mut self) -> Result<()> {
        for _ in 0..2 * SHORT_BACKLOG {
            match timeout(NO_ANSWER, TcpStream::connect(self.address)).await {
                Ok(stream) => self.crowd.push(stream?),
                Err(_) => return Ok(()),
            }
        }
        Err(format!("{} connections do not fill a backlog of {SHORT_BACKLOG}", self.crowd.len()).into())
    }
}

async fn launch(program: &Path, folder: &Path, address: SocketAddr, backlog: usize) -> Result<(Server, Resp)> {
    let port = address.port().to_string();
    let (directory, backlog) = (folder.display().to_string(), backlog.to_string());
    let mut arguments = vec!["--port", &port, "--bind", "127.0.0.1", "--tcp-backlog", &backlog];
    arguments.extend(["--dir", &directory, "--save", "", "--appendonly", "no"]);
    let mut server = Server::start(&Manner {
        program,
        arguments: arguments.into_iter().map(str::to_owned).collect(),
        user: None,
        farewell: Farewell::Kill,
        log: folder.join("log"),
    })?;
    let mut monitor = None;
    server
        .until_serving(async || {
            monitor = Some(Resp::connect(address).await?);
            Ok(())
        })
        .await?;
    Ok((server, monitor.ok_or("no connection")?))
}

impl Subject for Redis {
    type Client = Pool<Resp>;

    fn client(&self) -> Result<Self::Client> {
        Ok(Pool::new(self.address, true))
    }

    async fn begin(&mut self) -> Result<()> {
        match self.fault {
            Fault::Killed => self.server.kill().await,
            Fault::Stopped => self.server.stop(Vec::new()),
            Fault::Unanswered => {
                self.server.stop(Vec::new())?;
                self.crowd().await
            }
        }
    }

    async fn end(&mut self) -> Result<()> {
        match self.fault {
            Fault::Killed => {
                (self.server, self.monitor) = launch(&self.program, &self.folder, self.address, BACKLOG).await?;
            }
            Fault::Stopped => self.server.go_on()?,
            Fault::Unanswered => {
                self.crowd.clear();
                self.server.go_on()?;
            }
        }
        Ok(())
    }

    /// But for the one of ours.
    async fn connections(&mut self) -> Result<usize> {
        let list = self.monitor.command(&["CLIENT", "LIST"]).await?;
        Ok(list.lines().count().saturating_sub(1))
    }

    /// Those that were there before it was killed are forgotten.
    async fn requests(&mut self) -> Result<Option<usize>> {
        if self.fault == Fault::Killed {
            return Ok(None);
        }
        let info = self.monitor.command(&["INFO", "commandstats"]).await?;
        let calls = info.split("cmdstat_echo:calls=").nth(1).and_then(|rest| rest.split(',').next());
        Ok(Some(calls.map_or(Ok(0), str::parse)?))
    }
}
