//! [`ContextHeaders`]: under which names the context travels.

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderName};

use super::grpc_timeout::{GRPC_TIMEOUT, parse_grpc_timeout};
use super::headers::{ATTEMPT, CRITICALITY, DEADLINE_MS, DEPENDENCY_FAILED, GAVE_UP};
use crate::InvalidConfig;

/// The headers by which the context goes out ([`PropagateLayer`](super::PropagateLayer)) and comes in
/// ([`AcceptContextLayer`](super::AcceptContextLayer)). By default [`DEADLINE_MS`], [`ATTEMPT`] and [`CRITICALITY`], and no `grpc-timeout`.
///
/// # Examples
///
/// ```
/// use http::HeaderName;
/// use mainstay::http::{ContextHeaders, PropagateLayer};
///
/// let headers = ContextHeaders::new()
///     .deadline_ms(HeaderName::from_static("x-request-timeout-ms"))
///     .grpc_timeout(true);
/// let layer = PropagateLayer::new().headers(headers)?;
/// # let _ = layer;
/// # Ok::<_, mainstay::InvalidConfig>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextHeaders {
    pub(super) deadline_ms: HeaderName,
    pub(super) attempt: HeaderName,
    pub(super) criticality: HeaderName,
    pub(super) grpc_timeout: bool,
}

/// The default ones are nobody's: services that have them share no count.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedHeaders(Option<Arc<ContextHeaders>>);

static DEFAULT: ContextHeaders = ContextHeaders::new();

// === impl ContextHeaders ===

impl Default for ContextHeaders {
    fn default() -> Self {
        Self::new()
    }
}

impl ContextHeaders {
    /// The default names.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::http::ContextHeaders;
    ///
    /// assert_eq!(ContextHeaders::new(), ContextHeaders::default());
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self { deadline_ms: DEADLINE_MS, attempt: ATTEMPT, criticality: CRITICALITY, grpc_timeout: false }
    }

    /// What is left until the deadline, in whole milliseconds, goes by this name. Default: [`DEADLINE_MS`].
    ///
    /// # Examples
    ///
    /// ```
    /// use http::HeaderName;
    /// use mainstay::http::ContextHeaders;
    ///
    /// // What Envoy tells the servers behind it.
    /// let headers = ContextHeaders::new().deadline_ms(HeaderName::from_static("x-envoy-expected-rq-timeout-ms"));
    /// # let _ = headers;
    /// ```
    #[must_use]
    pub fn deadline_ms(mut self, name: HeaderName) -> Self {
        self.deadline_ms = name;
        self
    }

    /// The number of the attempt goes by this name. Default: [`ATTEMPT`].
    ///
    /// # Examples
    ///
    /// ```
    /// use http::HeaderName;
    /// use mainstay::http::ContextHeaders;
    ///
    /// let headers = ContextHeaders::new().attempt(HeaderName::from_static("x-attempt"));
    /// # let _ = headers;
    /// ```
    #[must_use]
    pub fn attempt(mut self, name: HeaderName) -> Self {
        self.attempt = name;
        self
    }

    /// The criticality goes by this name. Default: [`CRITICALITY`].
    ///
    /// # Examples
    ///
    /// ```
    /// use http::HeaderName;
    /// use mainstay::http::ContextHeaders;
    ///
    /// let headers = ContextHeaders::new().criticality(HeaderName::from_static("x-criticality"));
    /// # let _ = headers;
    /// ```
    #[must_use]
    pub fn criticality(mut self, name: HeaderName) -> Self {
        self.criticality = name;
        self
    }

    /// Whether the deadline is also written to, and read from, [`GRPC_TIMEOUT`]. Default: `false`.
    ///
    /// On the way out a `grpc-timeout` that the client has set already is its own limit for this call, and stays if it is the
    /// nearer one. On the way in the nearer of the two headers holds.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::http::ContextHeaders;
    ///
    /// let headers = ContextHeaders::new().grpc_timeout(true);
    /// # let _ = headers;
    /// ```
    #[must_use]
    pub const fn grpc_timeout(mut self, grpc_timeout: bool) -> Self {
        self.grpc_timeout = grpc_timeout;
        self
    }

    /// Whether every name is used for one thing only.
    ///
    /// # Errors
    ///
    /// The first name that is used twice, here or by [`GRPC_TIMEOUT`], [`GAVE_UP`] or [`DEPENDENCY_FAILED`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::http::{ATTEMPT, ContextHeaders};
    ///
    /// let twice = ContextHeaders::new().criticality(ATTEMPT);
    /// assert_eq!(twice.validate().unwrap_err().field(), "criticality");
    /// ```
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let mut taken = vec![GRPC_TIMEOUT, GAVE_UP, DEPENDENCY_FAILED];
        let names =
            [("deadline_ms", &self.deadline_ms), ("attempt", &self.attempt), ("criticality", &self.criticality)];
        for (field, name) in names {
            if taken.contains(name) {
                return Err(InvalidConfig::new(field, name, "must be a name that is used for nothing else"));
            }
            taken.push(name.clone());
        }
        Ok(())
    }

    /// How long the headers say that is left.
    pub(super) fn remaining(&self, headers: &HeaderMap) -> Option<Duration> {
        let ours = number(headers, &self.deadline_ms).map(Duration::from_millis);
        let grpc = if self.grpc_timeout { headers.get(GRPC_TIMEOUT).and_then(parse_grpc_timeout) } else { None };
        match (ours, grpc) {
            (Some(ours), Some(grpc)) => Some(ours.min(grpc)),
            (ours, grpc) => ours.or(grpc),
        }
    }
}

/// Whole and without a sign; what is too large for 64 bits is the largest there is.
pub(super) fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    let digits = headers.get(name)?.as_bytes();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0_u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

// === impl SharedHeaders ===

impl SharedHeaders {
    pub(super) const DEFAULT: Self = Self(None);

    pub(super) fn new(headers: ContextHeaders) -> Result<Self, InvalidConfig> {
        headers.validate()?;
        Ok(Self((headers != DEFAULT).then(|| Arc::new(headers))))
    }

    #[inline]
    pub(super) fn get(&self) -> &ContextHeaders {
        self.0.as_deref().unwrap_or(&DEFAULT)
    }
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_number_is_read_as_it_is_written(value: u64) {
            let headers = HeaderMap::from_iter([(ATTEMPT, HeaderValue::from(value))]);
            prop_assert_eq!(number(&headers, &ATTEMPT), Some(value));
        }

        #[test]
        fn no_bytes_panic_and_what_is_no_number_is_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
            let digits = !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit);
            let expected = digits.then(|| String::from_utf8(bytes).unwrap().parse().unwrap_or(u64::MAX));
            let headers = HeaderMap::from_iter([(DEADLINE_MS, value)]);
            prop_assert_eq!(number(&headers, &DEADLINE_MS), expected);
            prop_assert_eq!(ContextHeaders::new().remaining(&headers), expected.map(Duration::from_millis));
        }

        /// The nearer of two limits holds, in whichever header, and one that cannot be read is none.
        #[test]
        fn no_pair_of_limits_panics(ours in "[0-9a]{0,22}", grpc in "[0-9]{0,10}[HMSmunx]?") {
            let headers = HeaderMap::from_iter([(DEADLINE_MS, ours.parse().unwrap()), (GRPC_TIMEOUT, grpc.parse().unwrap())]);
            let one = number(&headers, &DEADLINE_MS).map(Duration::from_millis);
            let other = parse_grpc_timeout(&headers[GRPC_TIMEOUT]);
            let nearer = [one, other].into_iter().flatten().min();
            prop_assert_eq!(ContextHeaders::new().grpc_timeout(true).remaining(&headers), nearer);
        }
    }
}
