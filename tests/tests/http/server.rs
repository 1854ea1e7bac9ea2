//! A server that follows a script, and remembers what it was sent.

use core::convert::Infallible;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What it does with a request.
pub(crate) enum Answer {
    /// Answers with this status, and perhaps a Retry-After.
    Status(u16, Option<String>),
    /// Closes the connection instead.
    Cut,
}

impl Answer {
    pub(crate) const fn status(status: u16) -> Self {
        Self::Status(status, None)
    }

    pub(crate) fn after(status: u16, wait: &str) -> Self {
        Self::Status(status, Some(wait.into()))
    }
}

type Seen = Vec<(Method, String)>;

#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Answer>>,
    seen: Mutex<Seen>,
}

impl Script {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Empty<bytes::Bytes>>, &'static str> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| "the client has gone")?.to_bytes();
        self.seen.lock().unwrap().push((parts.method, String::from_utf8(body.into()).unwrap()));
        let answer = self.answers.lock().unwrap().pop_front();
        match answer {
            Some(Answer::Cut) => Err("cut off"),
            Some(Answer::Status(status, wait)) => {
                let response = Response::builder().status(status);
                let response = wait.into_iter().fold(response, |response, wait| response.header("retry-after", wait));
                Ok(response.body(Empty::new()).unwrap())
            }
            None => Ok(Response::new(Empty::new())),
        }
    }
}

pub(crate) struct Upstream {
    script: Arc<Script>,
    url: String,
    task: JoinHandle<Infallible>,
}

impl Upstream {
    /// One that gives these answers in turn, and then 200.
    pub(crate) async fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        let script = Arc::new(Script { answers: Mutex::new(answers.into_iter().collect()), seen: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let served = script.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let script = served.clone();
                let service = service_fn(move |request| {
                    let script = script.clone();
                    async move { script.answer(request).await }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { script, url, task }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The requests, each with its body.
    pub(crate) fn seen(&self) -> Seen {
        self.script.seen.lock().unwrap().clone()
    }

    /// Where there is nobody any more.
    pub(crate) async fn gone(self) -> String {
        self.task.abort();
        let _ = self.task.await;
        self.url
    }
}
