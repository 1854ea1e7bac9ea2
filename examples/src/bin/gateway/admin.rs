//! What the gateway says of itself, under `/-/`.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use failsoft_tokio::Tokio;
use http::{StatusCode, header};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::demo::{Demo, Mode};
use crate::routes::{Gateway, status};

/// From here on everything is counted.
pub(crate) fn install_metrics() -> Result<PrometheusHandle> {
    let buckets = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];
    let builder = PrometheusBuilder::new().set_buckets(&buckets)?;
    let handle = builder.install_recorder().context("the metrics can't be installed")?;
    failsoft_tokio::metrics::describe();
    Ok(handle)
}

pub(crate) fn router(gateway: Arc<Gateway>, prometheus: PrometheusHandle, demo: Option<Demo>) -> Router<Arc<Gateway>> {
    let router = Router::new()
        .route("/health", get(async || "well\n"))
        .route("/status", get(async |State(gateway): State<Arc<Gateway>>| status(&gateway)))
        .route("/metrics", get(move || core::future::ready(metrics(&gateway, &prometheus))));
    match demo {
        Some(demo) => {
            let demo = Arc::new(demo);
            router.route("/demo/{upstream}/{mode}", put(move |path| core::future::ready(set_mode(&demo, path))))
        }
        None => router,
    }
}

/// In the format that Prometheus reads.
fn metrics(gateway: &Gateway, prometheus: &PrometheusHandle) -> Response {
    gateway.gauges.collect(&Tokio);
    prometheus.run_upkeep();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], prometheus.render()).into_response()
}

fn set_mode(demo: &Demo, Path((upstream, mode)): Path<(String, String)>) -> Response {
    let Some(mode) = Mode::parse(&mode) else {
        return (StatusCode::BAD_REQUEST, format!("no mode `{mode}`: up, down, mute and flaky are\n")).into_response();
    };
    match demo.set(&upstream, mode) {
        true => format!("{upstream} is {mode:?} from now on\n").into_response(),
        false => (StatusCode::NOT_FOUND, format!("no upstream `{upstream}`\n")).into_response(),
    }
}
