//! One request on its way to its upstream and back.

use core::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::response::{IntoResponse, Response};
use failsoft_tokio::http::{Buffered, ShedLayer};
use failsoft_tokio::{Clock as _, Failure, Tokio};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, StatusCode, Uri};
use tower::ServiceExt as _;

use crate::routes::{Gateway, Route, Upstream};

/// Longer bodies are streamed, and so sent once.
const REPLAYABLE: usize = 64 * 1024;

/// What is between two neighbours, and none of the others' business: RFC 9110, section 7.6.1.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// Forwards a request on the route that its path belongs to.
pub(crate) async fn forward(
    State(gateway): State<Arc<Gateway>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: Request<Body>,
) -> Response {
    let Some(route) = gateway.route(request.uri().path()) else {
        return (StatusCode::NOT_FOUND, "no route leads there\n").into_response();
    };
    let request = match outbound(&route, client, request).await {
        Ok(request) => request,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("the request broke off: {error}\n")).into_response(),
    };
    match route.service.clone().oneshot(request).await {
        Ok(mut response) => {
            drop_hop_by_hop(response.headers_mut());
            response.map(Body::new)
        }
        Err(failure) => answer(&route.name, failure),
    }
}

/// The request as the upstream gets it.
async fn outbound(
    route: &Route,
    client: SocketAddr,
    request: Request<Body>,
) -> Result<Request<Buffered<Body>>, axum::Error> {
    let (mut parts, body) = request.into_parts();
    drop_hop_by_hop(&mut parts.headers);
    if let Ok(address) = HeaderValue::from_str(&client.ip().to_string()) {
        parts.headers.append(HeaderName::from_static("x-forwarded-for"), address);
    }
    parts.headers.remove(header::HOST);
    parts.uri = on(&route.upstream, &parts.uri);
    parts.version = http::Version::HTTP_11;
    Ok(Request::from_parts(parts, Buffered::read(body, REPLAYABLE).await?))
}

/// The same path and query at the upstream.
fn on(upstream: &Upstream, uri: &Uri) -> Uri {
    let mut parts = uri.clone().into_parts();
    (parts.scheme, parts.authority) = (Some(http::uri::Scheme::HTTP), Some(upstream.0.clone()));
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<_> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse::<HeaderName>().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

/// What the client gets where no upstream answered.
fn answer(route: &str, failure: Failure<hyper_util::client::legacy::Error>) -> Response {
    let text = format!("{route}: {failure}\n");
    let shed = ShedLayer::new().answer::<Body, _>(failure, Tokio.now());
    shed.map_or_else(
        |_| (StatusCode::BAD_GATEWAY, text.clone()).into_response(),
        |response| response.map(|_| Body::from(text.clone())),
    )
}
