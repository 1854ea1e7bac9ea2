//! One request on its way to its upstream and back.

use core::net::SocketAddr;
use core::time::Duration;
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
/// How long a body that is kept may take to come. One that is streamed has its attempt's timeout.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is between two neighbours, and none of the others' business: RFC 9110, section 7.6.1.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// That it came by here: RFC 9110, section 7.6.3.
const VIA: HeaderValue = HeaderValue::from_static("1.1 failsoft-gateway");

/// Forwards a request on the route that its path belongs to.
pub(crate) async fn forward(
    State(gateway): State<Arc<Gateway>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: Request<Body>,
) -> Response {
    if !is_plain(request.uri().path()) {
        return (StatusCode::BAD_REQUEST, "the path could be read in two ways\n").into_response();
    }
    let Some(route) = gateway.route(request.uri().path()) else {
        return (StatusCode::NOT_FOUND, "no route leads there\n").into_response();
    };
    let request = match tokio::time::timeout(PATIENCE, outbound(&route, client, request)).await {
        Ok(Ok(request)) => request,
        Err(_) => return (StatusCode::REQUEST_TIMEOUT, "the request took too long\n").into_response(),
        Ok(Err(error)) => {
            return (StatusCode::BAD_REQUEST, format!("the request broke off: {error}\n")).into_response();
        }
    };
    match route.service.clone().oneshot(request).await {
        Ok(mut response) => {
            drop_hop_by_hop(response.headers_mut());
            response.headers_mut().append(header::VIA, VIA);
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
    parts.headers.append(header::VIA, VIA);
    parts.headers.remove(header::HOST);
    parts.uri = on(&route.upstream, &parts.uri);
    parts.version = http::Version::HTTP_11;
    // What isn't tried again need not be kept.
    let kept = if parts.method.is_idempotent() { REPLAYABLE } else { 0 };
    Ok(Request::from_parts(parts, Buffered::read(body, kept).await?))
}

/// The same path and query at the upstream.
fn on(upstream: &Upstream, uri: &Uri) -> Uri {
    let mut parts = uri.clone().into_parts();
    (parts.scheme, parts.authority) = (Some(http::uri::Scheme::HTTP), Some(upstream.0.clone()));
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

/// Whether all upstreams read a path as the routes do: without dots and doubled slashes, which some resolve, and without letters in hex.
fn is_plain(path: &str) -> bool {
    let segments = path.split('/').skip(1);
    let last = path.split('/').count().saturating_sub(2);
    let resolved = |(at, segment): (usize, &str)| matches!(segment, "." | "..") || (segment.is_empty() && at != last);
    let in_hex = |hex: &str| {
        let byte = hex.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        byte.is_none_or(|byte| byte.is_ascii_alphanumeric() || b"-._~/\\".contains(&byte))
    };
    !segments.enumerate().any(resolved) && !path.split('%').skip(1).any(in_hex)
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<_> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse::<HeaderName>().ok())
        .collect();
    // A length beside it is not to be trusted: RFC 9112, section 6.3.
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_could_be_read_in_two_ways_is_refused() {
        for plain in ["/", "/a", "/a/", "/a/b.c/..d", "/a%20b/%C3%A4", "/a/...", "*"] {
            assert!(is_plain(plain), "{plain}");
        }
        for other in [
            "//",
            "//a",
            "/a//b",
            "/a/../b",
            "/..",
            "/./a",
            "/a/.",
            "/%2e%2e/a",
            "/%70ay",
            "/a%2Fb",
            "/a%5Cb",
            "/a%",
            "/a%zz",
        ] {
            assert!(!is_plain(other), "{other}");
        }
    }

    #[test]
    fn what_is_between_neighbours_goes_and_so_does_a_length_that_is_not_to_be_trusted() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "x-private, keep-alive"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("x-kept", "1"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        drop_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-kept"]);
    }
}
