//! Upstreams and a file for those who just want to see it work.

use core::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};
use core::time::Duration;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::response::{IntoResponse, Response};
use http::{Request, StatusCode};
use tokio::net::TcpListener;

/// How an upstream behaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    /// Answers at once.
    Up,
    /// Answers 503.
    Down,
    /// Takes the request and never answers.
    Mute,
    /// Answers every third request with 503.
    Flaky,
}

impl Mode {
    const ALL: [Self; 4] = [Self::Up, Self::Down, Self::Mute, Self::Flaky];

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| format!("{mode:?}").eq_ignore_ascii_case(text))
    }
}

struct Upstream {
    name: &'static str,
    mode: AtomicU8,
    calls: AtomicU32,
}

impl Upstream {
    async fn answer(&self, request: Request<axum::body::Body>) -> Response {
        let calls = self.calls.fetch_add(1, Relaxed);
        let slow = request.uri().query().is_some_and(|query| query.contains("slow"));
        match Mode::ALL.get(usize::from(self.mode.load(Relaxed))) {
            Some(Mode::Down) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            Some(Mode::Flaky) if calls % 3 == 2 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            Some(Mode::Mute) => core::future::pending().await,
            _ => {
                tokio::time::sleep(Duration::from_millis(if slow { 60_000 } else { 5 })).await;
                format!("{} answers {} {}, its call {calls}\n", self.name, request.method(), request.uri())
                    .into_response()
            }
        }
    }
}

/// The upstreams that the gateway has brought along, each at a port of its own.
pub(crate) struct Demo {
    upstreams: Vec<Arc<Upstream>>,
}

impl Demo {
    /// Starts them, and writes a file that leads to them.
    pub(crate) async fn start(file: &Path) -> Result<Self> {
        let mut text = include_str!("demo.toml").to_owned();
        let mut upstreams = Vec::new();
        for (name, mode) in [("payments", Mode::Up), ("search", Mode::Up), ("catalog", Mode::Flaky)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.context("no port is to be had")?;
            let address = listener.local_addr()?;
            text = text.replace(&format!("http://{name}"), &format!("http://{address}"));
            let upstream = Arc::new(Upstream { name, mode: AtomicU8::new(mode as u8), calls: AtomicU32::new(0) });
            upstreams.push(upstream.clone());
            let app = Router::new().fallback(async move |request| upstream.answer(request).await);
            tokio::spawn(async move { axum::serve(listener, app).await });
        }
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        fs::write(file, text).with_context(|| file.display().to_string())?;
        Ok(Self { upstreams })
    }

    /// Lets one behave otherwise, if there is one of that name.
    pub(crate) fn set(&self, name: &str, mode: Mode) -> bool {
        let upstream = self.upstreams.iter().find(|upstream| upstream.name == name);
        upstream.inspect(|upstream| upstream.mode.store(mode as u8, Relaxed)).is_some()
    }
}
