//! Spans of calls and attempts, and metrics, as they are exported to OpenTelemetry.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test may end with a panic")]

use failsoft_tokio::circuit_breaker::ConsecutiveFailures;
use failsoft_tokio::{
    CircuitBreaker, Gauges, Metered, Metrics, Pipeline, RetryPolicy, Tokio, Traced, Tracing, circuit_breaker, retry,
    valid,
};
use metrics_exporter_otel::OpenTelemetryRecorder;
use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::{Status, TracerProvider};
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, Metric, MetricData, ResourceMetrics};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, SdkMeterProvider};
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

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
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
        let call = pipeline.call(async |it| if it.number() < 3 { Err(core::fmt::Error) } else { Ok(()) });
        paused().block_on(call).unwrap();
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

/// A series, and its value: `name{label="value"} value`.
fn series(metric: &Metric) -> Vec<String> {
    let show = |attributes: &mut dyn Iterator<Item = &KeyValue>, value: f64| {
        let mut labels: Vec<_> = attributes.map(|it| format!("{}={:?}", it.key, it.value.as_str())).collect();
        labels.sort();
        format!("{}{{{}}} {value}", metric.name(), labels.join(","))
    };
    match metric.data() {
        AggregatedMetrics::U64(MetricData::Sum(sum)) if sum.is_monotonic() => {
            let counts = |value| u32::try_from(value).unwrap().into();
            sum.data_points().map(|point| show(&mut point.attributes(), counts(point.value()))).collect()
        }
        AggregatedMetrics::F64(MetricData::Gauge(gauge)) => {
            gauge.data_points().map(|point| show(&mut point.attributes(), point.value())).collect()
        }
        AggregatedMetrics::F64(MetricData::Histogram(durations)) => {
            durations.data_points().map(|point| show(&mut point.attributes(), point.sum())).collect()
        }
        other => panic!("{}: {other:?}", metric.name()),
    }
}

#[test]
fn counts_states_and_durations_are_instruments_with_units_and_labels_as_attributes() {
    type Breaker = CircuitBreaker<ConsecutiveFailures, Metrics>;
    static PAYMENTS: Breaker =
        Breaker::with_observer(valid!(circuit_breaker::Config::new().validate()), Metrics::new("payments"));
    static GAUGES: Gauges = Gauges::new();

    let exporter = InMemoryMetricExporter::default();
    let provider = SdkMeterProvider::builder().with_periodic_exporter(exporter.clone()).build();
    metrics::with_local_recorder(&OpenTelemetryRecorder::new(provider.meter("test")), || {
        failsoft_tokio::metrics::describe();
        GAUGES.register("payments", &PAYMENTS);
        let retry = RetryPolicy::with_observer(valid!(retry::Config::new().validate()), Metrics::new("payments"));
        let pipeline = Pipeline::new(Tokio)
            .layer(Metered::calls("payments").with_durations())
            .layer(retry)
            .layer(Metered::attempts("payments"))
            .layer(&PAYMENTS);
        let call = pipeline.call(async |it| if it.number() < 3 { Err(core::fmt::Error) } else { Ok(()) });
        paused().block_on(call).unwrap();
        GAUGES.collect(&Tokio);
    });
    provider.force_flush().unwrap();
    let exported = exporter.get_finished_metrics().unwrap();
    let metrics: Vec<_> =
        exported.iter().flat_map(ResourceMetrics::scope_metrics).flat_map(|it| it.metrics()).collect();
    let all: Vec<_> = metrics.iter().flat_map(|metric| series(metric)).collect();
    for expected in [
        "failsoft_calls_total{name=\"payments\",outcome=\"success\"} 1",
        "failsoft_attempts_total{name=\"payments\",outcome=\"failure\"} 2",
        "failsoft_attempts_total{name=\"payments\",outcome=\"success\"} 1",
        "failsoft_retries_total{name=\"payments\"} 2",
        "failsoft_circuit_breaker_calls_total{name=\"payments\",result=\"failure\"} 2",
        "failsoft_circuit_breaker_state{name=\"payments\",state=\"closed\"} 1",
        "failsoft_circuit_breaker_state{name=\"payments\",state=\"open\"} 0",
    ] {
        assert!(all.iter().any(|series| series == expected), "{expected}, of {all:#?}");
    }
    // Two waits of a virtual clock: 1 s and 2 s, 10 % more or less.
    let took = all.iter().find_map(|series| {
        series.strip_prefix("failsoft_call_duration_seconds{name=\"payments\",outcome=\"success\"} ")
    });
    assert!((2.7..=3.4).contains(&took.unwrap().parse().unwrap()), "{took:?}");
    let unit =
        metrics.iter().find(|metric| metric.name() == "failsoft_call_duration_seconds").map(|metric| metric.unit());
    assert_eq!(unit, Some("s"));
    assert!(metrics.iter().all(|metric| !metric.description().is_empty()), "all are described");
}
