//! Spans of calls and attempts, as they are exported to OpenTelemetry.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test may end with a panic")]

use failsoft_tokio::{Pipeline, RetryPolicy, Tokio, Traced, Tracing, retry, valid};
use opentelemetry::trace::{Status, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tracing_subscriber::layer::SubscriberExt;

/// The attributes that are ours.
fn attributes(span: &SpanData) -> Vec<(String, String)> {
    let ours = ["failsoft.", "error.", "http."];
    let all = span.attributes.iter().map(|it| (it.key.to_string(), it.value.to_string()));
    let mut all: Vec<_> = all.filter(|(key, _)| ours.iter().any(|start| key.starts_with(start))).collect();
    all.sort();
    all
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[test]
fn a_retried_call_is_a_trace_of_one_call_and_its_attempts_with_their_status_and_attributes() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        let retry = RetryPolicy::with_observer(valid!(retry::Config::new().validate()), Tracing::new("payments"));
        let pipeline =
            Pipeline::new(Tokio).layer(Traced::calls("payments")).layer(retry).layer(Traced::attempts("payments"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let call = pipeline.call(async |it| if it.number() < 3 { Err(core::fmt::Error) } else { Ok(()) });
        runtime.block_on(call).unwrap();
    });
    provider.force_flush().unwrap();
    let spans = exporter.get_finished_spans().unwrap();
    // As they ended: the attempts, and then the call.
    let [first, second, third, call] = &spans[..] else { panic!("{} spans", spans.len()) };

    assert_eq!((call.name.as_ref(), &call.status), ("payments", &Status::Unset));
    assert_eq!(attributes(call), pairs(&[("failsoft.name", "payments"), ("failsoft.outcome", "success")]));
    let retries: Vec<_> = call.events.iter().map(|event| event.name.as_ref()).collect();
    assert_eq!(retries, ["retry", "retry"], "between the attempts, and so in the call");

    for attempt in [first, second, third] {
        assert_eq!(attempt.name, "attempt");
        assert_eq!(attempt.parent_span_id, call.span_context.span_id(), "within the call");
        assert_eq!(attempt.span_context.trace_id(), call.span_context.trace_id());
    }
    let failed = [("error.type", "core::fmt::Error"), ("failsoft.name", "payments"), ("failsoft.outcome", "failure")];
    assert_eq!((&first.status, attributes(first)), (&Status::error(""), pairs(&failed)));
    let resent = [&failed[..], &[("http.request.resend_count", "1")]].concat();
    assert_eq!((&second.status, attributes(second)), (&Status::error(""), pairs(&resent)));
    let good = [("failsoft.name", "payments"), ("failsoft.outcome", "success"), ("http.request.resend_count", "2")];
    assert_eq!((&third.status, attributes(third)), (&Status::Unset, pairs(&good)));
}
