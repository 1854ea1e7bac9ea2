//! What an answer over gRPC counts as.

use core::time::Duration;
use std::time::SystemTime;

use failsoft_core::{Classify, Outcome, Verdict};
use http::{HeaderMap, Response, StatusCode};

use super::retry_after;

const STATUS: &str = "grpc-status";
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// What the server says about another attempt, by its field `grpc-retry-pushback-ms`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pushback {
    /// After exactly this long.
    After(Duration),
    /// None at all: a negative number, or what is no number.
    Never,
}

impl Pushback {
    /// What these headers, or trailers, say.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        headers.get(PUSHBACK).map(|value| Self::parse(value.as_bytes()))
    }

    pub(crate) fn parse(value: &[u8]) -> Self {
        let millis = core::str::from_utf8(value).ok().and_then(|text| text.parse::<u32>().ok());
        millis.map_or(Self::Never, |millis| Self::After(Duration::from_millis(millis.into())))
    }
}

/// The verdict over a call that ended with this status code of gRPC's, and with what the server says about another attempt.
///
/// | code | outcome | retried |
/// | --- | --- | --- |
/// | 14 Unavailable | failure | yes |
/// | 8 Resource exhausted | ignored, throttled | yes |
/// | 10 Aborted | ignored | yes |
/// | 2 Unknown, 4 Deadline exceeded, 13 Internal, 15 Data loss, and codes that gRPC doesn't have | failure | no |
/// | 1 Cancelled | ignored | no |
/// | all others: OK, and what is wrong with the request | success | no |
///
/// Pushback goes before it: after exactly that delay there is another attempt, whatever the code but OK, or there is none. What is tried again is
/// no success: it is ignored.
///
/// # Source
/// gRPC's status codes, its mapping of HTTP's statuses, and its proposal A6, client retries.
#[must_use]
pub const fn grpc_verdict(code: i32, pushback: Option<Pushback>) -> Verdict {
    let verdict = match code {
        14 => Verdict::TRANSIENT,
        8 => Verdict::IGNORED.with_retryable(true).with_throttled(),
        10 => Verdict::IGNORED.with_retryable(true),
        1 => Verdict::IGNORED,
        0 | 3 | 5 | 6 | 7 | 9 | 11 | 12 | 16 => Verdict::SUCCESS,
        _ => Verdict::PERMANENT,
    };
    match pushback {
        Some(Pushback::After(delay)) if code != 0 => {
            // To a retry, a success is the end.
            let verdict = if matches!(verdict.outcome(), Outcome::Success) { Verdict::IGNORED } else { verdict };
            verdict.with_retryable(true).with_delay(delay)
        }
        Some(Pushback::Never) => verdict.with_retryable(false),
        _ => verdict,
    }
}

/// Classifies responses of gRPC by their headers, for a layer around a client's channel: see [`grpc_verdict`].
///
/// An answer without a status of gRPC's, by a proxy between, counts as the code that gRPC maps the status of HTTP to; its Retry-After
/// is heeded. A server that fails a call before its first message says so in the headers. One that fails later says so in the trailers, which come
/// after the response has passed: to go by these too, classify the call as a whole, with [`GrpcStatus`](crate::grpc::GrpcStatus) of feature
/// `tonic`.
#[derive(Clone, Copy, Debug, Default)]
pub struct GrpcHeaders;

impl<B, E> Classify<Response<B>, E> for GrpcHeaders {
    fn classify(&self, result: Result<&Response<B>, &E>) -> Verdict {
        let Ok(response) = result else { return Verdict::TRANSIENT };
        let headers = response.headers();
        let code = match headers.get(STATUS) {
            Some(status) => status.to_str().ok().and_then(|text| text.trim().parse().ok()).unwrap_or(-1),
            None => code_of(response.status()),
        };
        let verdict = grpc_verdict(code, Pushback::of(headers));
        match retry_after(headers, SystemTime::now()) {
            // Of a proxy between: gRPC itself has pushback.
            Some(wait) if verdict.is_retryable() && verdict.delay().is_none() => verdict.with_retry_after(wait),
            _ => verdict,
        }
    }
}

/// The code that stands for an answer without one, by a proxy between: as gRPC maps the statuses of HTTP.
const fn code_of(status: StatusCode) -> i32 {
    match status.as_u16() {
        200..=299 => 0,
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use failsoft_core::Outcome::{Failure, Ignored, Success};

    use super::*;

    fn classified(status: u16, fields: &[(&'static str, &'static str)]) -> Verdict {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        GrpcHeaders.classify(Ok::<_, &()>(&response.body(()).expect("it is a response")))
    }

    fn ends(verdict: Verdict) -> (Outcome, bool) {
        (verdict.outcome(), verdict.is_retryable())
    }

    #[test]
    fn each_code_counts_as_the_table_says() {
        let codes = [
            "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17", "-1", "x",
        ];
        let found = codes.map(|code| ends(classified(200, &[(STATUS, code)])));
        let (good, bad) = ((Success, false), (Failure, false));
        let expected = [
            good,
            (Ignored, false),
            bad,
            good,
            bad,
            good,
            good,
            good,
            (Ignored, true),
            good,
            (Ignored, true),
            good,
            good,
            bad,
            (Failure, true),
            bad,
            good,
            bad,
            bad,
            bad,
        ];
        assert_eq!(found, expected);
        assert!(classified(200, &[(STATUS, "8")]).is_throttled());
    }

    #[test]
    fn pushback_sets_the_delay_or_ends_the_attempts() {
        let after = |code, pushback| classified(200, &[(STATUS, code), (PUSHBACK, pushback)]);
        for (code, pushback, retried, delay) in [
            ("14", "250", true, Some(250)),
            ("13", "250", true, Some(250)),
            ("5", "250", true, Some(250)),
            ("14", "0", true, Some(0)),
            ("14", "4294967295", true, Some(4_294_967_295)),
            ("14", "4294967296", false, None),
            ("14", "-1", false, None),
            ("14", "soon", false, None),
            ("14", "", false, None),
            ("0", "250", false, None),
        ] {
            let verdict = after(code, pushback);
            let delay = delay.map(Duration::from_millis);
            assert_eq!((verdict.is_retryable(), verdict.delay()), (retried, delay), "{code} {pushback}");
        }
    }

    #[test]
    fn without_a_status_it_goes_by_http() {
        assert_eq!(
            [200, 503, 404].map(|status| ends(classified(status, &[]))),
            [(Success, false), (Failure, true), (Success, false)]
        );
        assert_eq!(GrpcHeaders.classify(Err::<&Response<()>, _>(&())), Verdict::TRANSIENT);
    }
}
