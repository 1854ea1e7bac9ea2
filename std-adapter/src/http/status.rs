//! What an answer over HTTP counts as.

use core::time::Duration;
use std::time::SystemTime;

use failsoft_core::{Classify, Verdict};
use http::{HeaderMap, Response, StatusCode};

use super::retry_after;

/// The longest wait that a server's Retry-After is taken to mean: a longer one is as long as this. What was meant in milliseconds, or by
/// nobody well-meaning, would keep a breaker open for months.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// Classifies by the status of the response, with the server's Retry-After, up to [`LONGEST_RETRY_AFTER`], as the hint of when to come
/// back.
///
/// | status | outcome | retried | besides |
/// | --- | --- | --- | --- |
/// | 500, 502, 503, 504 | failure | yes | throttled, if it has a Retry-After |
/// | other 5xx | failure | no | |
/// | 429 Too Many Requests | ignored | yes | throttled |
/// | 408 Request Timeout, 425 Too Early | ignored | yes | |
/// | all others | success | no | |
/// | none: an error of the transport | failure | yes | |
///
/// A 4xx is a success of the server: it works, and the request was wrong. So it says nothing against the server to a circuit breaker; what
/// it says of the caller's load is ignored by it, and heeded by a retry, a throttle, and an adaptive limit or rate. An error of the transport
/// may be the fault of the request too: of a body that is streamed from somebody else and breaks off. Where that can be, a closure
/// around this should call such errors [`IGNORED`](Verdict::IGNORED). Whether the
/// request may be sent again at all is for [`HttpRequests`](super::HttpRequests) to say.
///
/// Another opinion about some statuses is a closure around this:
///
/// ```
/// use failsoft_tokio::http::HttpStatus;
/// use failsoft_tokio::{Classify, Outcome, Verdict};
/// use http::{Response, StatusCode};
///
/// let classify = |result: Result<&Response<()>, &std::io::Error>| match result {
///     Ok(response) if response.status() == StatusCode::NOT_FOUND => Verdict::PERMANENT,
///     other => HttpStatus.classify(other),
/// };
/// let mut response = Response::new(());
/// assert_eq!(classify(Ok(&response)).outcome(), Outcome::Success);
/// *response.status_mut() = StatusCode::NOT_FOUND;
/// assert_eq!(classify(Ok(&response)).outcome(), Outcome::Failure);
/// ```
///
/// # Source
/// RFC 9110, section 15, RFC 6585, section 4, and RFC 8470, section 5.2.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpStatus;

impl HttpStatus {
    /// The verdict over a response with this status and these headers.
    #[must_use]
    pub fn verdict(status: StatusCode, headers: &HeaderMap) -> Verdict {
        let verdict = match status.as_u16() {
            500 | 502..=504 => Verdict::TRANSIENT,
            501 | 505..=599 => Verdict::PERMANENT,
            408 | 425 | 429 => Verdict::IGNORED.with_retryable(true),
            _ => return Verdict::SUCCESS,
        };
        let verdict = if status == StatusCode::TOO_MANY_REQUESTS { verdict.with_throttled() } else { verdict };
        match retry_after(headers, SystemTime::now()) {
            Some(wait) if verdict.is_retryable() => {
                verdict.with_throttled().with_retry_after(wait.min(LONGEST_RETRY_AFTER))
            }
            _ => verdict,
        }
    }
}

impl<B, E> Classify<Response<B>, E> for HttpStatus {
    fn classify(&self, result: Result<&Response<B>, &E>) -> Verdict {
        result.map_or(Verdict::TRANSIENT, |response| Self::verdict(response.status(), response.headers()))
    }
}

#[cfg(test)]
mod tests {
    use failsoft_core::Outcome;
    use http::header::{HeaderValue, RETRY_AFTER};

    use super::*;

    fn verdict(status: u16, wait: Option<&'static str>) -> Verdict {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).expect("it is a status");
        response.headers_mut().extend(wait.map(|wait| (RETRY_AFTER, HeaderValue::from_static(wait))));
        HttpStatus.classify(Ok::<_, &()>(&response))
    }

    #[test]
    fn each_status_counts_as_the_table_says() {
        for status in 100..=999 {
            let verdict = verdict(status, None);
            let expected = match status {
                500 | 502 | 503 | 504 => (Outcome::Failure, true, false),
                501 | 505..600 => (Outcome::Failure, false, false),
                429 => (Outcome::Ignored, true, true),
                408 | 425 => (Outcome::Ignored, true, false),
                _ => (Outcome::Success, false, false),
            };
            let found = (verdict.outcome(), verdict.is_retryable(), verdict.is_throttled());
            assert_eq!(found, expected, "{status}");
        }
        assert_eq!(HttpStatus.classify(Err::<&Response<()>, _>(&())), Verdict::TRANSIENT);
    }

    #[test]
    fn the_servers_hint_is_heeded_where_another_attempt_makes_sense() {
        let hint =
            |status, wait| (verdict(status, Some(wait)).retry_after(), verdict(status, Some(wait)).is_throttled());
        let two = Some(Duration::from_secs(2));
        assert_eq!([429, 503, 500, 408].map(|status| hint(status, "2")), [(two, true); 4]);
        assert_eq!([501, 200, 301, 404].map(|status| hint(status, "2")), [(None, false); 4]);
        assert_eq!(hint(503, "3601"), (Some(LONGEST_RETRY_AFTER), true));
        assert_eq!(hint(503, "99999999999999999999"), (Some(LONGEST_RETRY_AFTER), true));
        assert_eq!([429, 503].map(|status| hint(status, "soon")), [(None, true), (None, false)]);
    }
}
