//! A client of a server that speaks HTTP: hyper's, as a service in the pipeline.

use core::error::Error;
use core::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use failsoft_tokio::PipelineLayer;
use failsoft_tokio::http::{HttpRequests, HttpStatus};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::Result;
use crate::guard::{Guard, Guarded};
use crate::load::{Attempts, Client, Ending};

/// The header that says which call it is.
pub(crate) const CALL: &str = "x-call";
/// Of so many calls one is a POST.
const POST_EVERY: u32 = 5;
/// So many bytes come before the number of the call in the answer.
pub(crate) const PADDING: usize = 1_000;

type Body = String;
/// An answer that has been read to its end, or the error that kept it from that.
pub(crate) type Answer = core::result::Result<Response<bool>, Box<dyn Error + Send + Sync>>;

/// The client, with its connections.
pub(crate) struct HttpClient {
    http: legacy::Client<HttpConnector, Body>,
    server: SocketAddr,
    attempts: Attempts,
    pipeline: OnceLock<Arc<Guarded<HttpStatus>>>,
    /// The status of each answer, and when it came.
    answers: Mutex<Vec<(Instant, StatusCode)>>,
}

impl HttpClient {
    pub(crate) fn new(server: SocketAddr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        // It must not retry on its own.
        let http = builder.pool_timer(TokioTimer::new()).retry_canceled_requests(false).build(connector);
        let (attempts, answers) = (Attempts::default(), Mutex::default());
        Self { http, server, attempts, pipeline: OnceLock::new(), answers }
    }

    /// The request of this call.
    pub(crate) fn request(&self, number: u32) -> http::Result<Request<Body>> {
        let method = if number.is_multiple_of(POST_EVERY) { Method::POST } else { Method::GET };
        let uri = format!("http://{}/item", self.server);
        Request::builder().method(method).uri(uri).header(CALL, number).body(String::new())
    }

    /// One attempt: the answer with all of its body, or an error; and whether it is the answer to this question.
    pub(crate) async fn fetch(&self, request: Request<Body>) -> Answer {
        let _under_way = self.attempts.enter();
        let number = request.headers().get(CALL).cloned();
        let (head, body) = self.http.request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        self.answers().push((Instant::now(), head.status));
        let right = number.is_some_and(|number| body.get(PADDING..) == Some(number.as_bytes()));
        Ok(Response::from_parts(head, right))
    }

    /// The status of each answer, and when it came.
    pub(crate) fn answers(&self) -> std::sync::MutexGuard<'_, Vec<(Instant, StatusCode)>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a call with this answer ended.
pub(crate) fn ending(answer: &Response<bool>) -> Ending {
    match (answer.status(), answer.body()) {
        (StatusCode::OK, true) => Ending::Served,
        (StatusCode::OK, false) => Ending::Wrong,
        _ => Ending::Failed,
    }
}

impl Client for HttpClient {
    async fn guarded(&self, guard: &'static Guard, number: u32) -> Ending {
        let pipeline = self.pipeline.get_or_init(|| Arc::new(guard.pipeline(HttpStatus)));
        let layer = PipelineLayer::with_requests(Arc::clone(pipeline), HttpRequests);
        let Ok(request) = self.request(number) else { return Ending::Failed };
        let service = layer.layer(service_fn(|request| self.fetch(request)));
        match service.oneshot(request).await {
            Ok(answer) => ending(&answer),
            Err(failure) => Ending::from(&failure),
        }
    }

    async fn bare(&self, number: u32) -> Ending {
        let Ok(request) = self.request(number) else { return Ending::Failed };
        self.fetch(request).await.map_or(Ending::Failed, |answer| ending(&answer))
    }

    fn attempts(&self) -> &Attempts {
        &self.attempts
    }
}

/// The body at this path, over a connection of its own: for questions of ours.
pub(crate) async fn get(server: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let (_, body) = text.split_once("\r\n\r\n").ok_or("an answer without a body")?;
    Ok(body.to_owned())
}
