//! [`Code`]: the status codes of gRPC.

use ::http::{HeaderMap, HeaderName, StatusCode};

/// The header or trailer that has the code.
///
/// # Examples
///
/// ```
/// assert_eq!(mainstay::grpc::GRPC_STATUS, "grpc-status");
/// ```
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident = $number:literal, $name:literal;)*) => {
        /// A status code, by `statuscodes.md` of the gRPC project.
        ///
        /// # Examples
        ///
        /// ```
        /// use mainstay::grpc::Code;
        ///
        /// assert_eq!(Code::from_number(14), Code::Unavailable);
        /// assert_eq!(Code::Unavailable.as_str(), "UNAVAILABLE");
        /// assert_eq!(Code::from_number(99), Code::Unknown);
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Code {
            $($(#[$doc])* $code = $number,)*
        }

        impl Code {
            /// All of them, by number.
            ///
            /// # Examples
            ///
            /// ```
            /// assert_eq!(mainstay::grpc::Code::ALL.len(), 17);
            /// ```
            pub const ALL: [Self; 17] = [$(Self::$code),*];

            /// The code of that number; [`Unknown`](Self::Unknown) when there is none.
            ///
            /// # Examples
            ///
            /// ```
            /// assert_eq!(mainstay::grpc::Code::from_number(0), mainstay::grpc::Code::Ok);
            /// ```
            #[must_use]
            pub const fn from_number(number: u32) -> Self {
                match number {
                    $($number => Self::$code,)*
                    _ => Self::Unknown,
                }
            }

            /// Its number: what `grpc-status` holds, and what other libraries make their own code from.
            ///
            /// # Examples
            ///
            /// ```
            /// use mainstay::grpc::Code;
            ///
            /// assert_eq!(tonic::Code::from_i32(Code::Unavailable.number()), tonic::Code::Unavailable);
            /// ```
            #[must_use]
            pub const fn number(self) -> i32 {
                self as i32
            }

            /// The name, as the specification writes it.
            ///
            /// # Examples
            ///
            /// ```
            /// assert_eq!(mainstay::grpc::Code::DataLoss.as_str(), "DATA_LOSS");
            /// ```
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$code => $name,)*
                }
            }
        }
    };
}

codes! {
    /// It was done.
    Ok = 0, "OK";
    /// The caller left.
    Cancelled = 1, "CANCELLED";
    /// Something for which there is no code, or an error of another protocol.
    Unknown = 2, "UNKNOWN";
    /// The request is wrong, whatever the state of the system.
    InvalidArgument = 3, "INVALID_ARGUMENT";
    /// The time was up before it was done.
    DeadlineExceeded = 4, "DEADLINE_EXCEEDED";
    /// There is no such thing.
    NotFound = 5, "NOT_FOUND";
    /// There is such a thing already.
    AlreadyExists = 6, "ALREADY_EXISTS";
    /// The caller may not do this.
    PermissionDenied = 7, "PERMISSION_DENIED";
    /// A quota is used up, or something is full.
    ResourceExhausted = 8, "RESOURCE_EXHAUSTED";
    /// The system's state does not allow it.
    FailedPrecondition = 9, "FAILED_PRECONDITION";
    /// A conflict with another; to be tried again from further up.
    Aborted = 10, "ABORTED";
    /// Beyond the end.
    OutOfRange = 11, "OUT_OF_RANGE";
    /// The server cannot do this at all.
    Unimplemented = 12, "UNIMPLEMENTED";
    /// The server is broken.
    Internal = 13, "INTERNAL";
    /// The server is not there for now.
    Unavailable = 14, "UNAVAILABLE";
    /// Data is gone, or corrupted.
    DataLoss = 15, "DATA_LOSS";
    /// Nobody knows who the caller is.
    Unauthenticated = 16, "UNAUTHENTICATED";
}

impl Code {
    /// The code in these headers or trailers, if `grpc-status` is there; what cannot be read is [`Unknown`](Self::Unknown).
    ///
    /// # Examples
    ///
    /// ```
    /// use http::{HeaderMap, HeaderValue};
    /// use mainstay::grpc::{Code, GRPC_STATUS};
    ///
    /// let mut trailers = HeaderMap::new();
    /// assert_eq!(Code::from_headers(&trailers), None);
    /// trailers.insert(GRPC_STATUS, HeaderValue::from_static("5"));
    /// assert_eq!(Code::from_headers(&trailers), Some(Code::NotFound));
    /// ```
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let digits = headers.get(GRPC_STATUS)?.as_bytes();
        // No code has more than two digits.
        if digits.is_empty() || digits.len() > 2 || !digits.iter().all(u8::is_ascii_digit) {
            return Some(Self::Unknown);
        }
        Some(Self::from_number(digits.iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'))))
    }

    /// The code of an answer that has no `grpc-status`, by its HTTP status (`http-grpc-status-mapping.md` of the gRPC project).
    ///
    /// # Examples
    ///
    /// ```
    /// use http::StatusCode;
    /// use mainstay::grpc::Code;
    ///
    /// assert_eq!(Code::from_http_status(StatusCode::BAD_GATEWAY), Code::Unavailable);
    /// ```
    #[must_use]
    pub fn from_http_status(status: StatusCode) -> Self {
        match status.as_u16() {
            400 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::Unimplemented,
            429 | 502 | 503 | 504 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn of(value: HeaderValue) -> Option<Code> {
        Code::from_headers(&HeaderMap::from_iter([(GRPC_STATUS, value)]))
    }

    #[test]
    fn every_code_is_read_as_it_is_written() {
        for code in Code::ALL {
            assert_eq!(of(HeaderValue::from(code as u16)), Some(code));
            assert_eq!(Code::from_number(code as u32), code);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_is_no_code_is_unknown(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
            let number = std::str::from_utf8(&bytes).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let expected = number.filter(|text| text.len() <= 2).and_then(|text| text.parse().ok()).map(Code::from_number);
            prop_assert_eq!(of(value), Some(expected.unwrap_or(Code::Unknown)));
        }

        #[test]
        fn every_number_is_its_code_or_unknown(number: u32) {
            let expected = Code::ALL.into_iter().find(|code| *code as u32 == number).unwrap_or(Code::Unknown);
            prop_assert_eq!(Code::from_number(number), expected);
            prop_assert_eq!(of(HeaderValue::from(number)), Some(expected));
        }
    }
}
