//! gRPC: what a call with `tonic` counts as.
//!
//! ```
//! use failsoft_tokio::grpc::GrpcStatus;
//! use failsoft_tokio::{Pipeline, RetryPolicy, Tokio, retry, valid};
//! use tonic::{Code, Request, Response, Status};
//!
//! /// As `tonic` generates them.
//! #[derive(Clone)]
//! struct Client;
//!
//! impl Client {
//!     async fn hello(&mut self, _: Request<()>) -> Result<Response<()>, Status> {
//!         Err(Status::unavailable("not yet"))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let retry = RetryPolicy::new(valid!(retry::Config::new().validate()));
//! let pipeline = Pipeline::new(Tokio).layer(retry).classify(GrpcStatus);
//!
//! let client = Client;
//! let failure = pipeline.call(|_| { let mut client = client.clone(); async move { client.hello(Request::new(())).await } }).await.unwrap_err();
//! assert_eq!((failure.attempts, failure.into_inner().map(|status| status.code())), (3, Some(Code::Unavailable)));
//! # }
//! ```
//!
//! A pipeline around the channel, under the generated client, is a [`PipelineLayer`](crate::PipelineLayer) with
//! [`GrpcHeaders`](crate::http::GrpcHeaders).
//!
//! # When not to use it
//! For a call that streams what it sends: a stream can't be sent again. gRPC doesn't say which methods are idempotent: let only calls
//! be retried that are.
//!
//! # Source
//! gRPC's status codes and its proposal A6, client retries.

use failsoft_core::{Classify, Verdict};
use tonic::Status;

use crate::http::{Pushback, grpc_verdict};

/// Classifies by the status of the call, and heeds the server's pushback; see [`grpc_verdict`].
#[derive(Clone, Copy, Debug, Default)]
pub struct GrpcStatus;

impl<T> Classify<T, Status> for GrpcStatus {
    fn classify(&self, result: Result<&T, &Status>) -> Verdict {
        result.map_or_else(
            |status| {
                let pushback = status.metadata().get("grpc-retry-pushback-ms");
                grpc_verdict(status.code().into(), pushback.map(|value| Pushback::parse(value.as_bytes())))
            },
            |_| Verdict::SUCCESS,
        )
    }
}
