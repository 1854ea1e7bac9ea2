//! Around a service whose requests are handed over as they are, there is none left for a second attempt.

use std::sync::Arc;

use failsoft_tokio::{Pipeline, PipelineLayer, RetryPolicy, Tokio, retry, valid};

fn main() {
    let retry = RetryPolicy::new(valid!(retry::Config::new().validate()));
    let _ = PipelineLayer::once(Arc::new(Pipeline::new(Tokio).layer(retry)));
}
