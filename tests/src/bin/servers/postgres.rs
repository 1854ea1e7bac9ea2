//! Postgres, and as much of its protocol as it takes to ask it something.

use core::net::SocketAddr;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, geteuid};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::Result;
use crate::outage::Subject;
use crate::pool::{Pool, Wire, gibberish};
use crate::server::{Farewell, Manner, Programs, Server, free_address};

/// Who may, without a password.
const USER: &str = "postgres";
/// Protocol 3.0.
const VERSION: u32 = 196_608;
/// More is not to be expected of one message.
const LONGEST: usize = 1 << 16;

/// A connection.
pub(crate) struct Session(BufReader<TcpStream>);

impl Session {
    async fn query(&mut self, text: &str) -> io::Result<Vec<String>> {
        self.send(Some(b'Q'), format!("{text}\0").as_bytes()).await?;
        self.until_ready().await
    }

    async fn send(&mut self, kind: Option<u8>, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(body.len() + 4).map_err(io::Error::other)?;
        let mut message: Vec<u8> = kind.into_iter().chain(length.to_be_bytes()).collect();
        message.extend_from_slice(body);
        self.0.write_all(&message).await
    }

    /// The first column of each row that comes until the server is ready for the next query.
    async fn until_ready(&mut self) -> io::Result<Vec<String>> {
        let (mut rows, mut error) = (Vec::new(), None);
        loop {
            let kind = self.0.read_u8().await?;
            let length = usize::try_from(self.0.read_u32().await?).map_err(io::Error::other)?;
            if !(4..LONGEST).contains(&length) {
                return Err(gibberish("the length of a message"));
            }
            let mut body = vec![0; length - 4];
            self.0.read_exact(&mut body).await?;
            match kind {
                // How many columns, how long the first is, the first.
                b'D' => rows.push(String::from_utf8_lossy(body.get(6..).unwrap_or_default()).into_owned()),
                b'E' => error = Some(gibberish(&String::from_utf8_lossy(&body))),
                b'Z' => return error.map_or(Ok(rows), Err),
                _ => {}
            }
        }
    }
}

impl Wire for Session {
    async fn connect(server: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let mut session = Self(BufReader::new(stream));
        let parameters = format!("user\0{USER}\0database\0postgres\0\0");
        session.send(None, &[&VERSION.to_be_bytes(), parameters.as_bytes()].concat()).await?;
        session.until_ready().await?;
        Ok(session)
    }

    async fn echo(&mut self, number: u32) -> io::Result<String> {
        self.query(&format!("select {number}")).await?.pop().ok_or_else(|| gibberish("no row"))
    }
}

/// How much of the server stops.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Extent {
    /// Only the process that takes connections.
    Postmaster,
    /// And those that serve them.
    All,
}

/// A Postgres of our own.
pub(crate) struct Postgres {
    address: SocketAddr,
    extent: Extent,
    /// Whether the client keeps connections.
    pub(crate) keeps: bool,
    server: Server,
    /// For questions of ours.
    monitor: Session,
    _data: Data,
}

/// The cluster's files, which go with the server. Not among the others: its user must get there.
struct Data(PathBuf);

impl Drop for Data {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Postgres {
    pub(crate) async fn start(programs: &Programs, folder: &Path, extent: Extent, keeps: bool) -> Result<Self> {
        let address = free_address()?;
        let data = Data(std::env::temp_dir().join(format!("failsoft-postgres-{}", address.port())));
        // Of a run that was killed, of a process with the same number.
        let _ = std::fs::remove_dir_all(&data.0);
        let (path, port) = (data.0.display().to_string(), address.port().to_string());
        // It refuses to be root's.
        let user = geteuid().is_root().then_some(USER);
        let manner = |program, arguments: &[&str]| Manner {
            program,
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            user,
            farewell: Farewell::Quit,
            log: folder.join("log"),
        };
        let initdb = ["-D", &path, "-U", USER, "-A", "trust", "--no-sync", "--no-instructions", "--locale=C"];
        let status = manner(&programs.initdb, &initdb).command()?.kill_on_drop(true).status().await?;
        if !status.success() {
            return Err(format!("initdb: {status}").into());
        }
        let options = ["-D", &path, "-p", &port, "-h", "127.0.0.1", "-k", "", "-F", "-c", "max_connections=700"];
        let mut server = Server::start(&manner(&programs.postgres, &options))?;
        let mut monitor = None;
        server
            .until_serving(async || {
                monitor = Some(Session::connect(address).await?);
                Ok(())
            })
            .await?;
        Ok(Self { address, extent, keeps, server, monitor: monitor.ok_or("no connection")?, _data: data })
    }

    /// The processes that serve clients, but for our own.
    async fn backends(&mut self) -> Result<Vec<Pid>> {
        let query =
            "select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()";
        let pids = self.monitor.query(query).await?;
        Ok(pids.iter().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect())
    }
}

impl Subject for Postgres {
    type Client = Pool<Session>;

    fn client(&self) -> Result<Self::Client> {
        Ok(Pool::new(self.address, self.keeps))
    }

    async fn begin(&mut self) -> Result<()> {
        // First of all who makes them, so that there are no more.
        self.server.stop(Vec::new())?;
        let backends = if self.extent == Extent::All { self.backends().await? } else { Vec::new() };
        self.server.stop(backends)
    }

    async fn end(&mut self) -> Result<()> {
        self.server.go_on()
    }

    async fn connections(&mut self) -> Result<usize> {
        Ok(self.backends().await?.len())
    }

    /// Its statistics come too late to be compared.
    async fn requests(&mut self) -> Result<Option<usize>> {
        Ok(None)
    }
}
