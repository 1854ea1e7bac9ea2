//! The parent's handle of the upstream's process.

use core::net::SocketAddr;
use core::time::Duration;
use std::io;
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::news::{Gibberish, News};

/// How long the upstream may take to listen, and to exit.
const PATIENCE: Duration = Duration::from_secs(5);

/// What goes wrong with the upstream's process, as opposed to the outage that it plays.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// It could not be started.
    #[error("the upstream could not be started")]
    Start(#[source] io::Error),
    /// It could not be talked to.
    #[error("the upstream could not be talked to")]
    Talk(#[from] io::Error),
    /// It is gone.
    #[error("the upstream died unexpectedly ({0})")]
    Died(ExitStatus),
    /// It did not listen in time.
    #[error("the upstream did not begin to listen")]
    NotListening,
    /// It said what it never says.
    #[error(transparent)]
    Gibberish(#[from] Gibberish),
}

/// The upstream's process. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Upstream {
    address: SocketAddr,
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Upstream {
    /// Starts this very program again, as the upstream, and waits until it listens.
    pub(crate) async fn start(arguments: &[String]) -> Result<Self, UpstreamError> {
        let program = std::env::current_exe().map_err(UpstreamError::Start)?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(UpstreamError::Start)?;
        let not_piped = || UpstreamError::Start(io::ErrorKind::BrokenPipe.into());
        let input = child.stdin.take().ok_or_else(not_piped)?;
        let output = child.stdout.take().ok_or_else(not_piped)?;
        let mut upstream = Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            child,
            input,
            output: BufReader::new(output).lines(),
        };
        upstream.address = upstream.listening().await?;
        Ok(upstream)
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins the script.
    pub(crate) async fn begin(&mut self) -> Result<(), UpstreamError> {
        self.input.write_all(b"begin\n").await?;
        Ok(self.input.flush().await?)
    }

    /// Waits for what it says next.
    ///
    /// # Cancel safety
    ///
    /// Nothing it says is lost when the future is dropped.
    pub(crate) async fn news(&mut self) -> Result<News, UpstreamError> {
        match self.output.next_line().await? {
            Some(line) => Ok(line.parse()?),
            None => Err(UpstreamError::Died(self.child.wait().await?)),
        }
    }

    /// Ends the process: by closing its input, and by force if that does not help.
    pub(crate) async fn stop(self) -> Result<(), UpstreamError> {
        let Self { mut child, input, output, .. } = self;
        drop(input);
        let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
        drop(output);
        match ended {
            Ok(status) => {
                status?;
            }
            Err(_) => child.kill().await?,
        }
        Ok(())
    }

    async fn listening(&mut self) -> Result<SocketAddr, UpstreamError> {
        match tokio::time::timeout(PATIENCE, self.news()).await {
            Ok(Ok(News::Listening(address))) => Ok(address),
            Ok(Err(error)) => Err(error),
            Ok(Ok(_)) | Err(_) => Err(UpstreamError::NotListening),
        }
    }
}
