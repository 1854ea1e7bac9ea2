//! The command line.

use core::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

/// A small reverse proxy in front of upstreams that fail, with failsoft's policies for each route.
///
/// Without a file it brings its own upstreams and its own file, to try it out.
#[derive(Debug, Parser)]
#[command(name = "gateway")]
pub(crate) struct Args {
    /// Where it listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// The routes and their policies; read again when it changes
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where the file goes that it brings along when there is no --config
    #[arg(long, value_name = "FILE", default_value = "target/gateway.toml")]
    pub(crate) demo_file: PathBuf,
}
