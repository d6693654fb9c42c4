//! [`code_of`] and [`answer`]: a rejection as gRPC says it.

use std::fmt::Write;

use ::http::header::{CONTENT_TYPE, HeaderValue};
use ::http::{HeaderName, Response};

use super::code::{Code, GRPC_STATUS};
use super::pushback::GRPC_RETRY_PUSHBACK_MS;
use crate::{Outcome, Rejected};

/// The header or trailer that has the message, percent-encoded.
///
/// # Examples
///
/// ```
/// assert_eq!(mainstay::grpc::GRPC_MESSAGE, "grpc-message");
/// ```
pub const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The status code that a rejection amounts to.
///
/// | rejection | code |
/// |---|---|
/// | `Timeout`, `DeadlineExceeded` | `DEADLINE_EXCEEDED` |
/// | `CircuitOpen`, `NoEndpoint` | `UNAVAILABLE` |
/// | `Limited`, `Shed` | `RESOURCE_EXHAUSTED` |
/// | `RequestBodyFailed` | `CANCELLED` |
/// | `LoadFailed` | `RESOURCE_EXHAUSTED` if the load was throttled, `INTERNAL` if it failed for good, `UNKNOWN` if the callee declined, else `UNAVAILABLE` |
///
/// # Examples
///
/// A client of `tonic` gets a `Status` with that code instead of `Unknown`:
///
/// ```
/// use mainstay::grpc::code_of;
/// use mainstay::{BoxError, Rejectable, Rejected};
///
/// fn status(error: BoxError) -> tonic::Status {
///     match error.as_rejected() {
///         Some(rejected) => tonic::Status::new(tonic::Code::from_i32(code_of(rejected).number()), rejected.to_string()),
///         None => tonic::Status::from_error(error),
///     }
/// }
/// assert_eq!(status(BoxError::from_rejected(Rejected::shed())).code(), tonic::Code::ResourceExhausted);
/// ```
#[must_use]
pub const fn code_of(rejected: &Rejected) -> Code {
    match rejected {
        Rejected::Timeout { .. } | Rejected::DeadlineExceeded { .. } => Code::DeadlineExceeded,
        Rejected::CircuitOpen(_) | Rejected::NoEndpoint(_) => Code::Unavailable,
        Rejected::Limited { .. } | Rejected::Shed => Code::ResourceExhausted,
        Rejected::RequestBodyFailed(_) => Code::Cancelled,
        Rejected::LoadFailed(failed) => match failed.outcome() {
            Outcome::Throttled { .. } => Code::ResourceExhausted,
            Outcome::Permanent => Code::Internal,
            Outcome::Success | Outcome::Refused => Code::Unknown,
            Outcome::Transient | Outcome::NotSent | Outcome::DependencyFailed | Outcome::Ignored => Code::Unavailable,
        },
    }
}

/// The answer that says so: a head with `grpc-status` and `grpc-message` and an empty body ("trailers only").
///
/// Put it above the layers that reject, and `tonic`, client or server, sees a `Status` of that code. A rejection with a known
/// [`retry_after`](Rejected::retry_after) also sets `grpc-retry-pushback-ms`, rounded up to whole milliseconds, so that a client of
/// the server that answers with it waits that long. A server that rejects because of what *it* calls adds
/// [`mark_dependency_failed`](crate::http::mark_dependency_failed).
///
/// # Examples
///
/// ```
/// use http::{Request, Response};
/// use mainstay::grpc::{Code, answer};
/// use mainstay::{BoxError, Rejectable, TimeoutLayer};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), BoxError> {
/// let channel = service_fn(|_: Request<String>| std::future::pending::<Result<Response<String>, BoxError>>());
/// let channel = ServiceBuilder::new()
///     .map_result(|result: Result<Response<String>, BoxError>| match result {
///         Err(error) => error.as_rejected().map(answer).ok_or(error),
///         answered => answered,
///     })
///     .layer(TimeoutLayer::total("greeter", std::time::Duration::from_secs(1))?)
///     .service(channel);
/// let answered = channel.oneshot(Request::default()).await?;
/// assert_eq!(Code::from_headers(answered.headers()), Some(Code::DeadlineExceeded));
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn answer<B: Default>(rejected: &Rejected) -> Response<B> {
    let mut response = Response::new(B::default());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from(code_of(rejected).number()));
    headers.insert(GRPC_MESSAGE, message(&rejected.to_string()));
    if let Some(after) = rejected.retry_after() {
        let millis = after.as_nanos().div_ceil(1_000_000);
        headers.insert(GRPC_RETRY_PUSHBACK_MS, HeaderValue::from(u64::try_from(millis).unwrap_or(u64::MAX)));
    }
    response
}

/// Percent-encoded by `PROTOCOL-HTTP2.md` of the gRPC project: everything but printable ASCII, and `%`.
fn message(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => write!(encoded, "%{byte:02X}").expect("a string takes everything"),
        }
    }
    HeaderValue::from_str(&encoded).expect("printable ASCII")
}
