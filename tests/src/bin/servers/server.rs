//! Servers as child processes: started, stopped, killed, and never left behind.

use core::net::{Ipv4Addr, SocketAddr};
use core::sync::atomic::{AtomicU16, Ordering::Relaxed};
use core::time::Duration;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::Result;

/// How long a server may take to serve, and to go.
const PATIENCE: Duration = Duration::from_secs(5);

/// The programs that the scenarios need, and where they may be besides the usual.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) redis: PathBuf,
    pub(crate) nginx: PathBuf,
    pub(crate) postgres: PathBuf,
    pub(crate) initdb: PathBuf,
}

impl Programs {
    /// Finds them.
    ///
    /// # Errors
    /// The names of those that are missing.
    pub(crate) fn find() -> core::result::Result<Self, String> {
        let mut folders: Vec<PathBuf> =
            std::env::var_os("PATH").iter().flat_map(std::env::split_paths).chain(["/usr/sbin".into()]).collect();
        // Debian has several versions of it beside each other: the newest.
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let mut versions: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
        versions.sort();
        folders.extend(versions.into_iter().rev());
        let mut missing = Vec::new();
        let mut find = |name| {
            let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
            found.unwrap_or_else(|| {
                missing.push(name);
                PathBuf::new()
            })
        };
        let programs = Self {
            redis: find("redis-server"),
            nginx: find("nginx"),
            postgres: find("postgres"),
            initdb: find("initdb"),
        };
        find("setpriv");
        if missing.is_empty() { Ok(programs) } else { Err(missing.join(", ")) }
    }
}

/// Below those that the system gives to outgoing connections, so that nothing takes a server's port while it is down.
const PORTS: (u16, u16) = (18_000, 30_000);

/// A port of the loopback interface that nobody listens on, another one each time.
pub(crate) fn free_address() -> Result<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let (first, last) = PORTS;
    let offset = u16::try_from(std::process::id() % 10_000).unwrap_or(0);
    for _ in 0..100 {
        let port = first + (offset + NEXT.fetch_add(1, Relaxed)) % (last - first);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err("no port is free".into())
}

/// The signal that makes a server go at once.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Farewell {
    /// For one that has started no others, or whose others notice.
    Kill,
    /// For one that has to end those that it has started.
    Terminate,
    /// The same, in Postgres's words.
    Quit,
}

impl Farewell {
    const fn name(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Terminate => "TERM",
            Self::Quit => "QUIT",
        }
    }

    const fn signal(self) -> Signal {
        match self {
            Self::Kill => Signal::KILL,
            Self::Terminate => Signal::TERM,
            Self::Quit => Signal::QUIT,
        }
    }
}

/// How a server is run.
#[derive(Clone, Debug)]
pub(crate) struct Manner<'a> {
    pub(crate) program: &'a Path,
    pub(crate) arguments: Vec<String>,
    /// A user other than ours, whose it has to be.
    pub(crate) user: Option<&'a str>,
    /// What makes it go at once, with all that it has started. It comes, too, when we are gone without a word.
    pub(crate) farewell: Farewell,
    /// Where its words go.
    pub(crate) log: PathBuf,
}

impl Manner<'_> {
    /// The program, which ends with the thread that starts it.
    pub(crate) fn command(&self) -> Result<Command> {
        let mut command = Command::new("setpriv");
        command.arg(format!("--pdeathsig={}", self.farewell.name()));
        if let Some(user) = self.user {
            command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]);
        }
        let log = File::options().create(true).append(true).open(&self.log)?;
        command.arg(self.program).args(&self.arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }
}

/// A server's processes. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pid: Pid,
    farewell: Farewell,
    /// Those that are in no group of ours.
    also: Vec<Pid>,
}

impl Server {
    /// Starts it in a process group of its own, so that a terminal's Ctrl-C is ours alone.
    pub(crate) fn start(manner: &Manner<'_>) -> Result<Self> {
        let child = manner.command()?.process_group(0).kill_on_drop(true).spawn()?;
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).ok_or("a server that has no process")?;
        Ok(Self { child, pid, farewell: manner.farewell, also: Vec::new() })
    }

    /// Sends a signal to its first process.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(self.pid, signal)?)
    }

    /// Stops it, and these that it has started.
    pub(crate) fn stop(&mut self, also: Vec<Pid>) -> Result<()> {
        self.also = also;
        self.signal(Signal::STOP)?;
        self.also.iter().try_for_each(|&pid| Ok(kill_process(pid, Signal::STOP)?))
    }

    /// Lets all go on that was stopped.
    pub(crate) fn go_on(&mut self) -> Result<()> {
        for pid in self.also.drain(..) {
            // Whose client went meanwhile may be gone.
            let _ = kill_process(pid, Signal::CONT);
        }
        self.signal(Signal::CONT)
    }

    /// Kills it, and returns when it is gone.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Waits until this succeeds.
    pub(crate) async fn until_serving(&mut self, mut serves: impl AsyncFnMut() -> Result<()>) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let Err(why) = serves().await else { return Ok(()) };
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("it ended at once, {status}").into());
            }
            if Instant::now() > until {
                return Err(format!("it does not serve: {why}").into());
            }
            sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.id().is_none() {
            return;
        }
        // Who is stopped hears nothing else.
        let _ = self.go_on();
        let _ = self.signal(self.farewell.signal());
        let until = std::time::Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = kill_process_group(self.pid, Signal::KILL);
    }
}
