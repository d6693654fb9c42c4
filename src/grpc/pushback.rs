//! [`pushback`]: when a server wants to be asked again.

use std::time::Duration;

use ::http::{HeaderMap, HeaderName};

use crate::http::MAX_RETRY_AFTER;

/// The header or trailer by which a server says when to try again (gRFC A6, "client retries").
///
/// # Examples
///
/// ```
/// assert_eq!(mainstay::grpc::GRPC_RETRY_PUSHBACK_MS, "grpc-retry-pushback-ms");
/// ```
pub const GRPC_RETRY_PUSHBACK_MS: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// What a server says about the next try.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::grpc::Pushback;
///
/// assert_ne!(Pushback::After(Duration::ZERO), Pushback::Never);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pushback {
    /// Not before this time; at most [`MAX_RETRY_AFTER`].
    After(Duration),
    /// Not at all.
    Never,
}

/// What these headers or trailers say about the next try, if anything: a number of milliseconds, or (negative, not a
/// number, given twice) not at all.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use http::{HeaderMap, HeaderValue};
/// use mainstay::grpc::{GRPC_RETRY_PUSHBACK_MS, Pushback, pushback};
///
/// let mut trailers = HeaderMap::new();
/// assert_eq!(pushback(&trailers), None);
/// trailers.insert(GRPC_RETRY_PUSHBACK_MS, HeaderValue::from_static("250"));
/// assert_eq!(pushback(&trailers), Some(Pushback::After(Duration::from_millis(250))));
/// trailers.insert(GRPC_RETRY_PUSHBACK_MS, HeaderValue::from_static("-1"));
/// assert_eq!(pushback(&trailers), Some(Pushback::Never));
/// ```
#[must_use]
pub fn pushback(headers: &HeaderMap) -> Option<Pushback> {
    let mut values = headers.get_all(GRPC_RETRY_PUSHBACK_MS).iter();
    let digits = values.next()?.as_bytes();
    if values.next().is_some() || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Some(Pushback::Never);
    }
    let millis = digits.iter().fold(0_u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    Some(Pushback::After(Duration::from_millis(millis).min(MAX_RETRY_AFTER)))
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn of(value: &str) -> Option<Pushback> {
        pushback(&HeaderMap::from_iter([(GRPC_RETRY_PUSHBACK_MS, HeaderValue::from_str(value).unwrap())]))
    }

    /// Retry, scenario 15: a pushback of -1 stops.
    #[test]
    fn a_number_is_a_time_and_anything_else_is_a_wish_not_to_be_asked_again() {
        assert_eq!(of("0"), Some(Pushback::After(Duration::ZERO)));
        assert_eq!(of("1500"), Some(Pushback::After(Duration::from_millis(1_500))));
        for value in ["-1", "-9223372036854775808", "", "soon", "1.5", "+1", " 1", "0x10"] {
            assert_eq!(of(value), Some(Pushback::Never), "{value:?}");
        }
        assert_eq!(of(&"9".repeat(1_000)), Some(Pushback::After(MAX_RETRY_AFTER)));
    }

    #[test]
    fn two_values_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(GRPC_RETRY_PUSHBACK_MS, HeaderValue::from_static("1"));
        headers.append(GRPC_RETRY_PUSHBACK_MS, HeaderValue::from_static("2"));
        assert_eq!(pushback(&headers), Some(Pushback::Never));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_exceed_the_bound(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
            let read = pushback(&HeaderMap::from_iter([(GRPC_RETRY_PUSHBACK_MS, value)]));
            let within = match read {
                Some(Pushback::After(time)) => time <= MAX_RETRY_AFTER,
                Some(Pushback::Never) => true,
                None => false,
            };
            prop_assert!(within, "{:?}", read);
        }

        #[test]
        fn every_number_is_itself_up_to_the_bound(millis: u64) {
            let expected = Duration::from_millis(millis).min(MAX_RETRY_AFTER);
            prop_assert_eq!(of(&millis.to_string()), Some(Pushback::After(expected)));
        }
    }
}
