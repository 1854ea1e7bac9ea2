//! A small reverse proxy in front of upstreams that fail: policies for each route from a TOML file that is read again when it changes, answers
//! for what is shed, and metrics for Prometheus.
//!
//! Started without arguments it brings its own upstreams and its own file, and says where:
//!
//! ```text
//! cargo run --release -p failsoft-examples --bin gateway
//! ```
//!
//! Then, in another terminal:
//!
//! ```text
//! curl -i localhost:8080/payments/7                  # served
//! curl -X PUT localhost:8080/-/demo/payments/down    # the upstream answers 503 from now on
//! for i in $(seq 20); do curl -s -o /dev/null -w '%{http_code} %header{retry-after}\n' localhost:8080/payments/7; done
//! curl localhost:8080/-/status                       # the breaker is open: the upstream is left alone
//! curl -X PUT localhost:8080/-/demo/payments/up      # and is found to be back within the open period
//! curl localhost:8080/-/metrics                      # what Prometheus reads
//! curl -i localhost:8080/search?q=slow               # ended by its timeout: 504
//! for i in $(seq 30); do curl -s -o /dev/null -w '%{http_code} ' localhost:8080/catalog; done   # every third answer of the upstream is a 503, none of ours
//! ```
//!
//! The file, `target/gateway.toml` in this case, may be edited while it runs. A wrong one is refused with the key, the reason and what would
//! be valid, and the settings stay as they were.

mod admin;
mod args;
mod demo;
mod file;
mod proxy;
mod routes;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::Router;
use clap::Parser as _;
use tokio::net::TcpListener;

use crate::args::Args;
use crate::demo::Demo;
use crate::routes::Gateway;

fn main() -> ExitCode {
    let ended =
        tokio::runtime::Runtime::new().map_err(Into::into).and_then(|runtime| runtime.block_on(run(Args::parse())));
    if let Err(error) = ended {
        eprintln!("gateway: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

async fn run(args: Args) -> Result<()> {
    let prometheus = admin::install_metrics()?;
    let (path, demo) = match args.config {
        Some(path) => (path, None),
        None => {
            let demo = Demo::start(&args.demo_file).await?;
            (args.demo_file, Some(demo))
        }
    };
    let (gateway, text) = Gateway::open(&path)?;
    let gateway = Arc::new(gateway);
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("can't listen at {}", args.listen))?;
    println!("gateway: listening at http://{}, with the routes of {}", listener.local_addr()?, path.display());
    println!("{gateway}");

    let watching = tokio::spawn(file::watch(path, gateway.clone(), text));
    let app = Router::new()
        .nest("/-", admin::router(gateway.clone(), prometheus, demo))
        .fallback(proxy::forward)
        .with_state(gateway);
    let app = app.into_make_service_with_connect_info::<core::net::SocketAddr>();
    axum::serve(listener, app).with_graceful_shutdown(interrupted()).await.context("the server failed")?;
    watching.abort();
    Ok(())
}

/// Until somebody ends the program: what is under way is answered first.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        core::future::pending::<()>().await;
    }
}
