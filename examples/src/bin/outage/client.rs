//! The one HTTP client that both sides use.

use core::error::Error;
use core::net::SocketAddr;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::io;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::header::RETRY_AFTER;
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::side::SideName;

/// The header that tells the upstream which side asks.
pub(crate) const SIDE_HEADER: &str = "x-side";

/// An item as the upstream gave it.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// The answer's body.
    pub(crate) body: Bytes,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// No answer in time. The client itself has no timeout: whoever sets one reports it so.
    #[error("no answer in time")]
    TimedOut,
    /// An answer that isn't a success.
    #[error("status {code}")]
    Status {
        /// The status.
        code: u16,
        /// When the upstream wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The connection broke before the answer came.
    #[error("the connection broke before the answer came")]
    Broken,
    /// Nobody listens.
    #[error("connection refused")]
    Refused,
    /// Another failure of the HTTP client.
    #[error("the HTTP client failed")]
    Http(#[source] legacy::Error),
    /// Another failure while reading the answer's body.
    #[error("the answer could not be read")]
    Body(#[source] hyper::Error),
}

/// One side's client with its own connection pool. Clones share the pool.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: legacy::Client<HttpConnector, Empty<Bytes>>,
    upstream: SocketAddr,
    side: SideName,
    refused: Arc<AtomicU64>,
}

impl Client {
    /// A client of `upstream` that says it is `side`.
    pub(crate) fn new(upstream: SocketAddr, side: SideName) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = legacy::Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Self { http, upstream, side, refused: Arc::default() }
    }

    /// Fetches one item: one attempt, without a timeout.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection it waits on.
    pub(crate) async fn get(&self, item: u32) -> Result<Item, CallError> {
        let outcome = self.fetch(item).await;
        if matches!(outcome, Err(CallError::Refused)) {
            // The upstream can't count these: it isn't there.
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }

    /// How many calls ended in a refused connection.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    async fn fetch(&self, item: u32) -> Result<Item, CallError> {
        let response = self.http.request(self.request(item)).await.map_err(of_request)?;
        if response.status() != StatusCode::OK {
            return Err(CallError::Status {
                code: response.status().as_u16(),
                retry_after: retry_after(response.headers()),
            });
        }
        let body = response.into_body().collect().await.map_err(of_body)?;
        Ok(Item { body: body.to_bytes() })
    }

    fn request(&self, item: u32) -> Request<Empty<Bytes>> {
        Request::get(format!("http://{}/item/{item}", self.upstream))
            .header(SIDE_HEADER, self.side.label())
            .body(Empty::new())
            .expect("an address and a number make a valid URI")
    }
}

/// The header's form in seconds; the form with a date is not worth a date parser here.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn of_request(error: legacy::Error) -> CallError {
    match cause(&error) {
        Some(io::ErrorKind::ConnectionRefused) => CallError::Refused,
        Some(_) => CallError::Broken,
        None => CallError::Http(error),
    }
}

fn of_body(error: hyper::Error) -> CallError {
    match cause(&error) {
        Some(_) => CallError::Broken,
        None => CallError::Body(error),
    }
}

/// The system's reason at the bottom of an error; a connection closed before the answer counts as one.
fn cause(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    core::iter::successors(Some(error), |&error| error.source()).find_map(|error| {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        let error = error.downcast_ref::<hyper::Error>()?;
        (error.is_incomplete_message() || error.is_closed() || error.is_canceled())
            .then_some(io::ErrorKind::UnexpectedEof)
    })
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn a_retry_after_is_a_number_of_seconds_or_nothing() {
        let read = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(RETRY_AFTER, HeaderValue::from_static(value));
            }
            retry_after(&headers)
        };
        assert_eq!(read(&[]), None);
        assert_eq!([read(&["0"]), read(&["120"])], [0, 120].map(|seconds| Some(Duration::from_secs(seconds))));
        for nonsense in ["-1", "1.5", "100000000000000000000", "Fri, 31 Dec 1999 23:59:59 GMT", "soon", ""] {
            assert_eq!(read(&[nonsense]), None, "{nonsense}");
        }
        assert_eq!(read(&["3", "7"]), Some(Duration::from_secs(3)), "the first of two");
    }
}
