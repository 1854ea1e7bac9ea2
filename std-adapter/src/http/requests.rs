//! Which requests may be sent again.

use core::fmt;

use http::Request;

use super::Replay;
use crate::tower::Requests;

/// Says of one request whether it may be sent again, whatever its method: an extension of the request.
///
/// ```
/// use failsoft_tokio::http::Repeat;
/// use http::Request;
///
/// // The server recognises a payment that it has seen.
/// let request = Request::post("/payments").header("idempotency-key", "8e03978e").extension(Repeat::Allowed).body("12 EUR");
/// # assert!(request.is_ok());
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Repeat {
    /// It may be, though its method is not idempotent.
    Allowed,
    /// It may not be, though its method is idempotent.
    Forbidden,
}

/// A request may be sent again if its method is idempotent and its body can be sent [again](Replay).
///
/// | | sent again |
/// | --- | --- |
/// | GET, HEAD, OPTIONS, TRACE, PUT, DELETE | yes |
/// | all other methods, POST and PATCH among them | no |
/// | with the extension [`Repeat`] | as that says |
/// | with a body that can't be sent again | no |
///
/// What may not be sent again has one attempt, whatever a retry or a hedge would do. An attempt counts once the request was handed to the
/// service: after a rejection by a policy it may still be made.
///
/// # Source
/// RFC 9110, section 9.2.2.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpRequests;

impl HttpRequests {
    pub(crate) fn allows(method: &http::Method, repeat: Option<&Repeat>) -> bool {
        match repeat {
            Some(Repeat::Allowed) => true,
            Some(Repeat::Forbidden) => false,
            None => method.is_idempotent(),
        }
    }
}

impl<B: Replay> Requests<Request<B>> for HttpRequests {
    fn again(&self, request: &Request<B>) -> Option<Request<B>> {
        if !Self::allows(request.method(), request.extensions().get()) {
            return None;
        }
        let mut again = Request::new(request.body().replay()?);
        *again.method_mut() = request.method().clone();
        *again.uri_mut() = request.uri().clone();
        *again.version_mut() = request.version();
        *again.headers_mut() = request.headers().clone();
        *again.extensions_mut() = request.extensions().clone();
        Some(again)
    }
}

impl fmt::Display for Repeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allowed => "may be sent again",
            Self::Forbidden => "must not be sent again",
        })
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, Method, Version};

    use super::*;

    fn again(method: Method, repeat: Option<Repeat>) -> bool {
        let mut request = Request::new("body");
        *request.method_mut() = method;
        if let Some(repeat) = repeat {
            request.extensions_mut().insert(repeat);
        }
        HttpRequests.again(&request).is_some()
    }

    #[test]
    fn only_idempotent_methods_are_sent_again_unless_told_otherwise() {
        let custom = Method::from_bytes(b"PURGE").expect("it is a method");
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE] {
            assert!(again(method.clone(), None), "{method}");
            assert!(!again(method, Some(Repeat::Forbidden)));
        }
        for method in [Method::POST, Method::PATCH, Method::CONNECT, custom] {
            assert!(!again(method.clone(), None), "{method}");
            assert!(again(method, Some(Repeat::Allowed)));
        }
    }

    #[test]
    fn the_same_request_is_sent_again_in_all_its_parts() {
        let request = Request::put("http://host/path?query")
            .version(Version::HTTP_11)
            .header("x-first", "1")
            .header("x-first", "2")
            .extension(7_u8)
            .body("body")
            .expect("it is a request");
        let again = HttpRequests.again(&request).expect("it is idempotent");
        assert_eq!((again.method(), again.version()), (&Method::PUT, Version::HTTP_11));
        assert_eq!((again.uri(), *again.body()), (request.uri(), "body"));
        let values: Vec<_> = again.headers().get_all(HeaderName::from_static("x-first")).iter().collect();
        assert_eq!(values, [HeaderValue::from_static("1"), HeaderValue::from_static("2")]);
        assert_eq!(again.extensions().get(), Some(&7_u8));
    }
}
