//! HTTP: what statuses mean, how long a server asks to be left alone, what may be sent again, and how the context travels.
//!
//! Everything here speaks the types of the `http` crate and nothing else: it fits hyper, axum, tonic's
//! transport, reqwest's tower service, on the client's side and on the server's.
//!
//! | part | side | does |
//! |---|---|---|
//! | [`HttpClassifier`] | client | turns a status into an [`Outcome`](crate::Outcome) |
//! | [`retry_after`] | client | reads `Retry-After` |
//! | [`is_idempotent`] | client | says whether a request may be sent twice |
#![cfg_attr(
    feature = "retry",
    doc = "| [`HttpRequests`] | client | lets a retry repeat only what may be sent twice: `RetryBuilder::http` |
| [`ReplayLayer`] | client | keeps bodies that stream, up to a cap, so that a retry can send them again |"
)]
//! | [`PropagateLayer`] | client | sends deadline, attempt and criticality along as headers |
//! | [`AcceptContextLayer`] | server | takes them up, where the server trusts its callers; clamped |
//! | [`ContextHeaders`] | both | says under which names, and whether `grpc-timeout` is one |
//! | [`IdleTimeoutBody`] | both | ends a body that stands still |
//! | [`OnEndBody`] | both | calls a function, or holds a slot, until a body has ended |
#![cfg_attr(
    feature = "circuit-breaker",
    doc = "| [`StreamBreakerLayer`] | client | gives a circuit breaker its verdict when the body has ended |"
)]
//! | [`mark_dependency_failed`] | server | says "I am well, what I call is not" |
#![cfg_attr(feature = "health", doc = "| [`HealthPages`] | server | answers `/livez`, `/readyz` and `/startupz` |")]
//!
//! # Examples
//!
//! ```
//! use mainstay::{Classify, HttpClassifier, Outcome};
//!
//! let classifier = HttpClassifier::new();
//! let answer = http::Response::builder().status(429).header("retry-after", "2").body(()).unwrap();
//! let outcome = classifier.classify(Ok::<_, &std::io::Error>(&answer));
//! assert_eq!(outcome, Outcome::throttled(std::time::Duration::from_secs(2)));
//! ```
//!
//! # What statuses mean
//!
//! | status | outcome |
//! |---|---|
//! | 1xx, 2xx, 3xx | `Success` |
//! | 408, 425 | `Transient` |
//! | 429 | `Throttled`, for the time in `Retry-After` where it says one |
//! | other 4xx | `Refused` |
//! | 5xx with [`DEPENDENCY_FAILED`] or [`GAVE_UP`] | `DependencyFailed` |
//! | 503 with `Retry-After` | `Throttled` |
//! | 500, 502, 503, 504 | `Transient` |
//! | anything else | `Permanent` |
//!
//! # Cancel safety
//!
//! The futures of this module hold nothing but the inner future, and a breaker's permit where they say so; dropping one drops that.

mod accept;
mod classifier;
mod classify_end;
mod context_headers;
mod grpc_timeout;
mod headers;
mod idle_timeout;
mod method;
mod on_end;
#[cfg(feature = "health")]
mod pages;
mod propagate;
#[cfg(feature = "retry")]
mod replay;
#[cfg(feature = "retry")]
mod replay_body;
#[cfg(feature = "retry")]
mod requests;
mod retry_after;
#[cfg(feature = "circuit-breaker")]
mod stream_breaker;

pub use accept::{AcceptContext, AcceptContextConfig, AcceptContextFuture, AcceptContextLayer};
pub use classifier::HttpClassifier;
pub use classify_end::ClassifyEnd;
pub use context_headers::ContextHeaders;
pub use grpc_timeout::{GRPC_TIMEOUT, format_grpc_timeout, parse_grpc_timeout};
pub use headers::{ATTEMPT, CRITICALITY, DEADLINE_MS, DEPENDENCY_FAILED, GAVE_UP, mark_dependency_failed};
pub use idle_timeout::{IdleBodyError, IdleTimeout, IdleTimeoutBody};
pub use method::is_idempotent;
pub use on_end::{OnEnd, OnEndBody};
#[cfg(feature = "health")]
pub use pages::HealthPages;
pub use propagate::{Propagate, PropagateLayer};
#[cfg(feature = "retry")]
pub use replay::{Replay, ReplayBodies, ReplayLayer};
#[cfg(feature = "retry")]
pub use replay_body::{ReplayBody, ReplayError};
#[cfg(feature = "retry")]
pub use requests::HttpRequests;
pub use retry_after::{MAX_RETRY_AFTER, parse_retry_after, retry_after};
#[cfg(feature = "circuit-breaker")]
pub use stream_breaker::{StreamBreaker, StreamBreakerFuture, StreamBreakerLayer, StreamVerdict};
