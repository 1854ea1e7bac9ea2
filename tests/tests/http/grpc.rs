//! A client of `tonic` and its server: what is called again, and when.

use core::convert::Infallible;
use core::future::Ready;
use core::task::{Context, Poll};
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::{Buf, BufMut, Bytes};
use failsoft_tokio::grpc::GrpcStatus;
use failsoft_tokio::http::GrpcHeaders;
use failsoft_tokio::{CircuitBreaker, Pipeline, PipelineLayer, Policy, Tokio, circuit_breaker, valid};
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status};
use tower::ServiceBuilder;

use super::RETRY;

/// Messages of bytes, as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A status, with what the server says about another attempt.
fn status(code: Code, pushback: Option<&'static str>) -> Status {
    let mut status = Status::new(code, "as told");
    if let Some(pushback) = pushback {
        status.metadata_mut().insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
    }
    status
}

/// Fails as the script says, and then answers with what it is sent.
#[derive(Clone)]
struct Echo {
    script: Arc<Mutex<VecDeque<Status>>>,
    calls: Arc<Mutex<u32>>,
}

impl tonic::server::UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        *self.calls.lock().unwrap() += 1;
        let fails = self.script.lock().unwrap().pop_front();
        core::future::ready(fails.map_or_else(|| Ok(Response::new(request.into_inner())), Err))
    }
}

impl tonic::server::NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

impl tower::Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = core::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move { Ok(tonic::server::Grpc::new(Raw).unary(echo, request).await) })
    }
}

/// A server that fails so, and a channel to it.
async fn serve(script: impl IntoIterator<Item = Status>) -> (Echo, Channel) {
    let echo = Echo { script: Arc::new(Mutex::new(script.into_iter().collect())), calls: Arc::default() };
    let incoming = tonic::transport::server::TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", incoming.local_addr().unwrap());
    tokio::spawn(Server::builder().add_service(echo.clone()).serve_with_incoming(incoming));
    (echo, Endpoint::from_shared(url).unwrap().connect().await.unwrap())
}

async fn call<S>(channel: S) -> Result<Bytes, Status>
where
    S: GrpcService<Body>,
    S::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <S::ResponseBody as http_body::Body>::Error: Into<tower::BoxError>,
{
    let mut grpc = Grpc::new(channel);
    let ready = grpc.ready().await;
    ready.map_err(|error| Status::unknown(error.into().to_string()))?;
    let path = http::uri::PathAndQuery::from_static("/test.Echo/Echo");
    Ok(grpc.unary(Request::new(Bytes::from_static(b"hello")), path, Raw).await?.into_inner())
}

#[tokio::test]
async fn a_call_is_made_again_as_its_status_and_the_servers_pushback_say() {
    let unavailable = || status(Code::Unavailable, None);
    for (script, calls, least) in [
        (vec![unavailable(), unavailable()], 3, 0),
        (vec![status(Code::Unavailable, Some("300")), unavailable()], 3, 300),
        (vec![status(Code::Internal, Some("20"))], 2, 20),
        (vec![status(Code::NotFound, Some("20"))], 2, 20),
        (vec![status(Code::Aborted, None)], 2, 0),
        (vec![status(Code::Unavailable, Some("-1"))], 1, 0),
        (vec![status(Code::Internal, None)], 1, 0),
        (vec![status(Code::NotFound, None)], 1, 0),
    ] {
        let fails = script.len();
        let (echo, channel) = serve(script).await;
        let pipeline = Pipeline::new(Tokio).layer(RETRY).classify(GrpcStatus);
        let begun = Instant::now();
        let ended = pipeline.call(|_| call(channel.clone())).await;
        assert_eq!((*echo.calls.lock().unwrap(), ended.is_ok()), (calls, fails + 1 == calls as usize));
        assert!(begun.elapsed() >= Duration::from_millis(least));
    }
}

#[tokio::test]
async fn a_breaker_around_the_channel_goes_by_the_headers() {
    static BREAKER: CircuitBreaker = CircuitBreaker::new(valid!(
        circuit_breaker::Config::new().with_trip(valid!(circuit_breaker::ConsecutiveFailures::new(2))).validate()
    ));
    let codes = [Code::NotFound, Code::Unavailable, Code::Internal];
    let (echo, channel) = serve(codes.map(|code| status(code, None))).await;
    let pipeline = Arc::new(Pipeline::new(Tokio).layer(&BREAKER).classify(GrpcHeaders));
    let channel = ServiceBuilder::new().layer(PipelineLayer::once(pipeline)).service(channel);
    let mut ends = Vec::new();
    for _ in 0..4 {
        ends.push(call(channel.clone()).await.unwrap_err());
    }
    assert_eq!(ends.iter().take(3).map(Status::code).collect::<Vec<_>>(), codes);
    assert!(ends[3].message().contains("the circuit breaker is open"), "{:?}", ends[3]);
    assert_eq!(
        (*echo.calls.lock().unwrap(), BREAKER.try_acquire(&Tokio).err().map(|it| it.policy())),
        (3, Some(Policy::CircuitBreaker))
    );
}
