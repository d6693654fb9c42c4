//! The names of our headers, in one place.

use ::http::{HeaderName, HeaderValue, Response};

/// On a request: what was left until the caller's deadline when it was sent, in whole milliseconds, rounded down. A duration and
/// not a date: clocks of two machines differ.
///
/// # Examples
///
/// ```
/// assert_eq!(mainstay::http::DEADLINE_MS, "x-mainstay-deadline-ms");
/// ```
pub const DEADLINE_MS: HeaderName = HeaderName::from_static("x-mainstay-deadline-ms");

/// On a request: which attempt it is, from 1.
///
/// # Examples
///
/// ```
/// assert_eq!(mainstay::http::ATTEMPT, "x-mainstay-attempt");
/// ```
pub const ATTEMPT: HeaderName = HeaderName::from_static("x-mainstay-attempt");

/// On a request: how critical it is, as [`Criticality::as_str`](crate::context::Criticality::as_str) has it.
///
/// # Examples
///
/// ```
/// assert_eq!(mainstay::http::CRITICALITY, "x-mainstay-criticality");
/// ```
pub const CRITICALITY: HeaderName = HeaderName::from_static("x-mainstay-criticality");

/// On a response: the server is well, but something that it depends on, and that its siblings share, is not. Set by
/// [`mark_dependency_failed`].
///
/// # Examples
///
/// ```
/// assert_eq!(mainstay::http::DEPENDENCY_FAILED, "x-mainstay-dependency-failed");
/// ```
pub const DEPENDENCY_FAILED: HeaderName = HeaderName::from_static("x-mainstay-dependency-failed");

/// On a response: a retry within the server gave up. The caller does not retry what was retried already. Set by
/// [`AcceptContextLayer`](super::AcceptContextLayer).
///
/// # Examples
///
/// ```
/// assert_eq!(mainstay::http::GAVE_UP, "x-mainstay-gave-up");
/// ```
pub const GAVE_UP: HeaderName = HeaderName::from_static("x-mainstay-gave-up");

/// The value of a mark: it is its presence that counts.
pub(crate) const YES: HeaderValue = HeaderValue::from_static("1");

/// Marks a response as failed by a dependency: see [`DEPENDENCY_FAILED`].
///
/// Use it where a handler answers 5xx because its database or another shared service failed. The caller's
/// [`HttpClassifier`](super::HttpClassifier) then neither blames this server (and ejects it, and all its siblings after it) nor retries
/// elsewhere, where the same dependency fails. The mark means something on 5xx statuses only.
///
/// # Examples
///
/// ```
/// use mainstay::http::{DEPENDENCY_FAILED, mark_dependency_failed};
///
/// let mut response = http::Response::builder().status(503).body("no database").unwrap();
/// mark_dependency_failed(&mut response);
/// assert!(response.headers().contains_key(DEPENDENCY_FAILED));
/// ```
pub fn mark_dependency_failed<B>(response: &mut Response<B>) {
    response.headers_mut().insert(DEPENDENCY_FAILED, YES);
}
