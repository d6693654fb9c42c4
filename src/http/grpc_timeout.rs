//! `grpc-timeout`: the deadline as gRPC writes it.

use std::time::Duration;

use ::http::{HeaderName, HeaderValue};

/// The header by which gRPC says how long a call may take (`PROTOCOL-HTTP2.md` of the gRPC project, "Timeout").
///
/// # Examples
///
/// ```
/// assert_eq!(mainstay::http::GRPC_TIMEOUT, "grpc-timeout");
/// ```
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The most that eight digits can say.
const MOST: u128 = 99_999_999;

const NANOS_OF_SECOND: u128 = 1_000_000_000;

/// The units of the specification, from the finest, in nanoseconds.
const UNITS: [(u8, u128); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', NANOS_OF_SECOND),
    (b'M', 60 * NANOS_OF_SECOND),
    (b'H', 3_600 * NANOS_OF_SECOND),
];

/// What the value of a `grpc-timeout` header says: one to eight digits and a unit, of `H` hours, `M` minutes, `S` seconds, `m`
/// milliseconds, `u` microseconds and `n` nanoseconds. `None` for anything else.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use http::HeaderValue;
/// use mainstay::http::parse_grpc_timeout;
///
/// let parse = |value| parse_grpc_timeout(&HeaderValue::from_static(value));
/// assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
/// assert_eq!(parse("2S"), Some(Duration::from_secs(2)));
/// assert_eq!(parse("123456789n"), None, "nine digits");
/// ```
#[must_use]
pub fn parse_grpc_timeout(value: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(number * 3_600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// The value of a `grpc-timeout` header for this time: in the finest unit that eight digits are enough for, rounded down. What is more
/// than eight digits of hours is just that many hours.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::http::format_grpc_timeout;
///
/// assert_eq!(format_grpc_timeout(Duration::from_millis(1)), "1000000n");
/// assert_eq!(format_grpc_timeout(Duration::from_secs(2)), "2000000u");
/// assert_eq!(format_grpc_timeout(Duration::MAX), "99999999H");
/// ```
#[must_use]
pub fn format_grpc_timeout(timeout: Duration) -> HeaderValue {
    let nanos = timeout.as_nanos();
    let (unit, size) = UNITS.into_iter().find(|(_, size)| nanos / size <= MOST).unwrap_or(UNITS[UNITS.len() - 1]);
    let mut text = [0_u8; 9];
    let mut left = (nanos / size).min(MOST);
    let mut start = text.len() - 1;
    text[start] = unit;
    loop {
        start -= 1;
        text[start] = b'0' + u8::try_from(left % 10).unwrap_or(0);
        left /= 10;
        if left == 0 {
            break;
        }
    }
    // Digits and a letter: always a legal value.
    HeaderValue::from_bytes(&text[start..]).unwrap_or_else(|_| HeaderValue::from_static("0n"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(value: &str) -> Option<Duration> {
        parse_grpc_timeout(&HeaderValue::from_str(value).unwrap())
    }

    #[test]
    fn the_six_units_are_understood_and_nothing_else() {
        for (value, expected) in [
            ("1H", Duration::from_secs(3_600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("4m", Duration::from_millis(4)),
            ("5u", Duration::from_micros(5)),
            ("6n", Duration::from_nanos(6)),
            ("0n", Duration::ZERO),
            ("00000001S", Duration::from_secs(1)),
            ("99999999H", Duration::from_secs(99_999_999 * 3_600)),
        ] {
            assert_eq!(parsed(value), Some(expected), "{value}");
        }
        for value in ["", "S", "1", "1s", "1h", "-1S", "+1S", "1.5S", "1 S", " 1S", "1S ", "100000000n", "1SS", "0x1S"]
        {
            assert_eq!(parsed(value), None, "{value:?}");
        }
    }

    #[test]
    fn it_is_written_in_the_finest_unit_that_fits_and_rounded_down() {
        for (timeout, expected) in [
            (Duration::ZERO, "0n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(100_000_999), "100000u"),
            (Duration::from_micros(100_000_999), "100000m"),
            (Duration::from_millis(100_000_999), "100000S"),
            (Duration::from_secs(100_000_019), "1666666M"),
            (Duration::from_secs(6_000_003_599), "1666667H"),
        ] {
            assert_eq!(format_grpc_timeout(timeout), expected, "{timeout:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
            let parsed = parse_grpc_timeout(&value);
            prop_assert!(parsed.is_none_or(|timeout| timeout <= Duration::from_secs(99_999_999 * 3_600)));
        }

        /// The next hop never hears of more time than there is, and of less by one part in a hundred thousand at most.
        #[test]
        fn what_is_written_is_read_again_as_nearly_the_same_and_never_as_more(
            seconds in prop_oneof![0..1_000_u64, any::<u64>()],
            nanos in 0..1_000_000_000_u32,
        ) {
            let timeout = Duration::new(seconds, nanos);
            let written = format_grpc_timeout(timeout);
            prop_assert!(written.len() <= 9);
            let read = parse_grpc_timeout(&written).unwrap();
            prop_assert!(read <= timeout);
            if timeout < Duration::from_secs(99_999_999 * 3_600) {
                prop_assert!((timeout - read).as_nanos() <= timeout.as_nanos() / 100_000, "{timeout:?} {written:?}");
            }
        }

        #[test]
        fn every_legal_value_is_its_number_of_units(number in 0..=99_999_999_u32, unit in 0..6_usize) {
            let (letter, size) = UNITS[unit];
            let read = parsed(&format!("{number}{}", char::from(letter))).unwrap();
            prop_assert_eq!(read.as_nanos(), u128::from(number) * size);
        }
    }
}
