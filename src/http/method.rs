//! [`is_idempotent`]: what may be sent twice.

use ::http::{Method, Request};

/// Whether a request may be sent a second time after the first may have arrived: `GET`, `HEAD`, `OPTIONS`, `TRACE`, `PUT` and
/// `DELETE` (RFC 9110, section 9.2.2), and any request with a non-empty `Idempotency-Key` header, by which the server recognises
/// the second.
///
/// Hand it to a retry as its predicate. What never left this process may be sent again whatever the method; a retry knows
/// that by itself.
///
/// # Examples
///
/// ```
/// use http::Request;
/// use mainstay::http::is_idempotent;
///
/// assert!(is_idempotent(&Request::get("/").body(()).unwrap()));
/// assert!(!is_idempotent(&Request::post("/orders").body(()).unwrap()));
/// assert!(is_idempotent(&Request::post("/orders").header("idempotency-key", "order-17").body(()).unwrap()));
/// ```
pub fn is_idempotent<B>(request: &Request<B>) -> bool {
    matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    ) || request.headers().get("idempotency-key").is_some_and(|key| !key.as_bytes().trim_ascii().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_idempotent_methods_and_keyed_requests_may_be_sent_twice() {
        let request = |method: &str| Request::builder().method(method).body(()).unwrap();
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
            assert!(is_idempotent(&request(method)), "{method}");
        }
        for method in ["POST", "PATCH", "CONNECT", "get", "LINK"] {
            assert!(!is_idempotent(&request(method)), "{method}");
        }
        let keyed = |key: &str| Request::post("/").header("Idempotency-Key", key).body(()).unwrap();
        assert!(is_idempotent(&keyed("8e03978e")));
        assert!(!is_idempotent(&keyed("")));
        assert!(!is_idempotent(&keyed("  ")));
    }
}
