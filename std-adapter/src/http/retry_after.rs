//! When a server asked to come back.

use core::time::Duration;
use std::time::SystemTime;

use http::HeaderMap;
use http::header::{DATE, HeaderValue, RETRY_AFTER};

/// How long the server asked to wait, by the Retry-After field of these headers, in either of its forms: so many seconds, or a date.
///
/// A date is compared with the server's own clock, its Date field, where there is one, since the two clocks may differ; else with ours, which
/// is `now`. A date that has passed is no wait at all. What is neither form is as if it weren't there, and of several fields the
/// longest wait counts.
///
/// ```
/// use core::time::Duration;
/// use std::time::SystemTime;
/// use failsoft_tokio::http::retry_after;
/// use http::{HeaderMap, HeaderValue, header::RETRY_AFTER};
///
/// let mut headers = HeaderMap::new();
/// headers.insert(RETRY_AFTER, HeaderValue::from_static("120"));
/// assert_eq!(retry_after(&headers, SystemTime::now()), Some(Duration::from_secs(120)));
/// ```
///
/// # Source
/// RFC 9110, section 10.2.3, with the dates of its section 5.6.7.
#[must_use]
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let server = || headers.get(DATE).and_then(date).unwrap_or(now);
    let wait = |value: &HeaderValue| seconds(value).or_else(|| Some(until(date(value)?, server())));
    headers.get_all(RETRY_AFTER).iter().filter_map(wait).max()
}

/// More seconds than there are numbers for are as many as there are.
fn seconds(value: &HeaderValue) -> Option<Duration> {
    let digits = value.as_bytes().trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = digits.iter().fold(0_u64, |sum, digit| sum.saturating_mul(10).saturating_add((digit - b'0').into()));
    Some(Duration::from_secs(seconds))
}

fn date(value: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?.trim()).ok()
}

fn until(date: SystemTime, now: SystemTime) -> Duration {
    date.duration_since(now).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT, the RFC's own example.
    const NOW: Duration = Duration::from_secs(784_111_777);

    fn wait(fields: &[(http::HeaderName, &[u8])]) -> Option<u64> {
        let value = |bytes| HeaderValue::from_bytes(bytes).expect("it is a value");
        let mut headers = HeaderMap::new();
        for (name, bytes) in fields {
            headers.append(name, value(bytes));
        }
        retry_after(&headers, SystemTime::UNIX_EPOCH + NOW).map(|wait| wait.as_secs())
    }

    #[test]
    fn seconds_are_read_whatever_their_number() {
        let read = [&b"0"[..], b"1", b"0120", b" 7 ", b"18446744073709551615", b"100000000000000000000"]
            .map(|text| wait(&[(RETRY_AFTER, text)]));
        assert_eq!(read, [0, 1, 120, 7, u64::MAX, u64::MAX].map(Some));
    }

    #[test]
    fn dates_are_read_in_all_three_formats_and_what_has_passed_is_no_wait() {
        let read = [
            &b"Sun, 06 Nov 1994 08:50:37 GMT"[..],
            b"Sunday, 06-Nov-94 08:50:37 GMT",
            b"Sun Nov  6 08:50:37 1994",
            b"Sun, 06 Nov 1994 08:49:37 GMT",
            b"Sat, 05 Nov 1994 08:49:37 GMT",
            b"Thu, 01 Jan 1970 00:00:00 GMT",
            b"Fri, 31 Dec 9999 23:59:59 GMT",
        ]
        .map(|text| wait(&[(RETRY_AFTER, text)]));
        assert_eq!(read, [60, 60, 60, 0, 0, 0, 253_402_300_799 - 784_111_777].map(Some));
    }

    #[test]
    fn a_date_is_compared_with_the_servers_own_clock() {
        let fields = |clock: &'static [u8]| [(RETRY_AFTER, &b"Sun, 06 Nov 1994 09:00:00 GMT"[..]), (DATE, clock)];
        assert_eq!(wait(&fields(b"Sun, 06 Nov 1994 08:59:50 GMT")), Some(10));
        assert_eq!(wait(&fields(b"soon")), Some(623), "a clock that can't be read is none");
    }

    #[test]
    fn what_is_neither_form_is_as_if_it_were_not_there() {
        for text in [
            &b""[..],
            b" ",
            b"-1",
            b"+1",
            b"1.5",
            b"1s",
            b"soon",
            b"\xff\xfe",
            b"0x10",
            b"1 2",
            b"Sun, 06 Nov 1994",
            b"Sun, 99 Nov 1994 08:49:37 GMT",
            b"Sun, 06 Nov 1994 08:49:37 CET",
        ] {
            assert_eq!(wait(&[(RETRY_AFTER, text)]), None, "{text:?}");
        }
        assert_eq!(wait(&[]), None);
    }

    #[test]
    fn of_several_fields_the_longest_wait_counts() {
        let fields = [&b"3"[..], b"soon", b"Sun, 06 Nov 1994 08:50:37 GMT", b"5"].map(|text| (RETRY_AFTER, text));
        assert_eq!(wait(&fields), Some(60));
    }

    #[test]
    fn no_bytes_panic() {
        let mut rng = failsoft_core::Rng::new(7);
        for _ in 0..20_000 {
            let alphabet = b"0123456789 ,:-+.GMTSunNovJanFebMonday\xff\t";
            let text: Vec<u8> = (0..rng.next() % 33).map(|_| alphabet[rng.next() as usize % alphabet.len()]).collect();
            if let Ok(value) = HeaderValue::from_bytes(&text) {
                let headers = HeaderMap::from_iter([(RETRY_AFTER, value)]);
                let _ = retry_after(&headers, SystemTime::UNIX_EPOCH + NOW);
            }
        }
    }
}
