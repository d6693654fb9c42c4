//! `Retry-After`: how long a server asks to be left alone.

use std::time::{Duration, SystemTime};

use ::http::header::{DATE, RETRY_AFTER};
use ::http::{HeaderMap, HeaderValue};

/// The longest time that a `Retry-After` is taken to mean: one day. It bounds what a header can do to the arithmetic of others; a call
/// that would have to wait that long is not retried anyway.
///
/// # Examples
///
/// ```
/// assert_eq!(mainstay::http::MAX_RETRY_AFTER.as_secs(), 24 * 60 * 60);
/// ```
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// The time that the headers of a response ask for, if they do: `Retry-After` in seconds or as a date (RFC 9110, section
/// 10.2.3).
///
/// A date is measured against the response's own `Date`, where it has one: both are of the server's clock, whatever ours shows.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::http::retry_after;
///
/// let response = http::Response::builder()
///     .header("date", "Sun, 06 Nov 1994 08:49:37 GMT")
///     .header("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT")
///     .body(())
///     .unwrap();
/// assert_eq!(retry_after(response.headers()), Some(Duration::from_secs(10)));
/// assert_eq!(retry_after(&http::HeaderMap::new()), None);
/// ```
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?;
    let now = || headers.get(DATE).and_then(date).unwrap_or_else(wall_clock);
    parse(value, now)
}

/// The time that the value of a `Retry-After` header asks for: whole seconds, or the time from `now` to a date; a date in the past is
/// zero. At most [`MAX_RETRY_AFTER`]; `None` for anything else, such as a fraction or a negative number.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use http::HeaderValue;
/// use mainstay::http::parse_retry_after;
///
/// let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
/// let parse = |value| parse_retry_after(&HeaderValue::from_static(value), now);
/// assert_eq!(parse("10"), Some(Duration::from_secs(10)));
/// assert_eq!(parse("Sun, 06 Nov 1994 08:49:40 GMT"), Some(Duration::from_secs(3)));
/// assert_eq!(parse("Sun, 06 Nov 1994 08:49:30 GMT"), Some(Duration::ZERO));
/// assert_eq!(parse("soon"), None);
/// ```
#[must_use]
pub fn parse_retry_after(value: &HeaderValue, now: SystemTime) -> Option<Duration> {
    parse(value, || now)
}

fn parse(value: &HeaderValue, now: impl FnOnce() -> SystemTime) -> Option<Duration> {
    let bytes = value.as_bytes().trim_ascii();
    let asked = if !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit) {
        let seconds =
            bytes.iter().fold(0_u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
        Duration::from_secs(seconds)
    } else {
        // Before `now` it is an error, and over.
        date(value)?.duration_since(now()).unwrap_or(Duration::ZERO)
    };
    Some(asked.min(MAX_RETRY_AFTER))
}

fn date(value: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?.trim_ascii()).ok()
}

#[allow(clippy::disallowed_methods, reason = "a date can only be compared with the wall clock")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
    }

    fn parsed(value: &str) -> Option<Duration> {
        parse_retry_after(&HeaderValue::from_str(value).unwrap(), now())
    }

    /// Scenario 11: ten seconds; a date a day away; a date in the past; none.
    #[test]
    fn seconds_and_dates_are_understood() {
        assert_eq!(parsed("10"), Some(Duration::from_secs(10)));
        assert_eq!(parsed(&httpdate::fmt_http_date(now() + DAY)), Some(DAY));
        assert_eq!(parsed(&httpdate::fmt_http_date(now() - DAY)), Some(Duration::ZERO));
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[test]
    fn the_three_formats_of_dates_are_one_time() {
        for date in ["Sun, 06 Nov 1994 08:50:37 GMT", "Sunday, 06-Nov-94 08:50:37 GMT", "Sun Nov  6 08:50:37 1994"] {
            assert_eq!(parsed(date), Some(Duration::from_secs(60)), "{date}");
        }
    }

    #[test]
    fn what_is_neither_is_nothing() {
        for value in ["", " ", "-1", "+1", "1.5", "1e3", "0x10", "10 s", "tomorrow", "Sun, 32 Nov 1994 08:49:37 GMT"] {
            assert_eq!(parsed(value), None, "{value:?}");
        }
        assert_eq!(parse_retry_after(&HeaderValue::from_bytes(b"\xff\xfe").unwrap(), now()), None);
    }

    #[test]
    fn no_time_is_longer_than_a_day() {
        for value in ["86401", "18446744073709551615", "18446744073709551616", &"9".repeat(10_000)] {
            assert_eq!(parsed(value), Some(MAX_RETRY_AFTER));
        }
        assert_eq!(parsed("Fri, 31 Dec 9999 23:59:59 GMT"), Some(MAX_RETRY_AFTER));
        assert_eq!(parsed(&format!("{}7", "0".repeat(10_000))), Some(Duration::from_secs(7)));
    }

    #[test]
    fn a_date_is_measured_by_the_servers_own_clock() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:47 GMT"));
        headers.insert(DATE, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(10)));
        headers.remove(DATE);
        assert_eq!(retry_after(&headers), Some(Duration::ZERO), "by ours it is long over");
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_exceed_the_bound(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            date in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut headers = HeaderMap::new();
            if let (Ok(value), Ok(date)) = (HeaderValue::from_bytes(&bytes), HeaderValue::from_bytes(&date)) {
                headers.insert(RETRY_AFTER, value);
                headers.insert(DATE, date);
            }
            prop_assert!(retry_after(&headers).is_none_or(|after| after <= MAX_RETRY_AFTER));
        }

        #[test]
        fn nearly_dates_never_panic(
            value in "(Sun|Mon|Foo), [0-9]{1,3} (Nov|Feb|Xxx) [0-9]{1,5} [0-9]{1,3}:[0-9]{2}:[0-9]{2} (GMT|UTC)"
        ) {
            prop_assert!(parsed(&value).is_none_or(|after| after <= MAX_RETRY_AFTER));
        }

        #[test]
        fn every_whole_number_of_seconds_is_itself_up_to_the_bound(seconds: u64) {
            prop_assert_eq!(parsed(&seconds.to_string()), Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER)));
        }
    }
}
