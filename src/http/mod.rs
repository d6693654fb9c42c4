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
//! | [`DeadlineBodyLayer`] | both | ends the body of a response at the deadline |
//! | [`IdleTimeoutBody`] | both | ends a body that stands still |
//! | [`OnEndBody`] | both | calls a function, or holds a slot, until a body has ended |
#![cfg_attr(
    feature = "circuit-breaker",
    doc = "| [`StreamBreakerLayer`] | client | gives a circuit breaker its verdict when the body has ended |"
)]
#![cfg_attr(
    feature = "cache",
    doc = "| [`HttpCaching`] | both | which answers may be stored, and under which key: `CacheBuilder::http` |"
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
//! | 504 with at most 10 ms left until the caller's deadline | `Ignored`: it was the caller's time that ran out |
//! | 500, 502, 503, 504 | `Transient` |
//! | anything else | `Permanent` |
//!
//! # What errors mean
//!
//! An error of the client, without any response, is `Transient`. Two kinds of errors are treated differently:
//!
//! * **The body of the request failed.** The client reports it as its own error, but the failure is the caller's: an upload that
//!   was aborted, or that stalled. Layers recognise a [`Rejected::RequestBodyFailed`](crate::Rejected::RequestBodyFailed) among the
//!   sources of a boxed error; such a call is `Ignored` and not retried. A replayed body and an [`IdleTimeoutBody`] carry it. For a
//!   body of another type use `body.map_err(Rejected::request_body_failed)` or a rule of the classifier.
//! * **Nothing was sent.** [`HttpClassifier::not_sent_if`] teaches the classifier to recognise it: `NotSent` is a failure, and any
//!   request may be repeated after it.
//!
//! Errors that are lifted by [`LiftLayer`](crate::LiftLayer) and not boxed hide their sources from the layers; a classifier with a rule for
//! that type of error sees them.
//!
//! # Cancel safety
//!
//! The futures of this module hold nothing but the inner future, and a breaker's permit where they say so; dropping one drops that.

mod accept;
#[cfg(feature = "cache")]
mod cache;
mod classifier;
mod classify_end;
mod context_headers;
mod deadline_body;
mod error_rules;
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
#[cfg(feature = "cache")]
pub use cache::{HttpCaching, HttpKey};
pub use classifier::HttpClassifier;
pub use classify_end::ClassifyEnd;
pub use context_headers::ContextHeaders;
pub use deadline_body::{DeadlineBodies, DeadlineBody, DeadlineBodyFuture, DeadlineBodyLayer};
pub use error_rules::ErrorRules;
pub use grpc_timeout::{GRPC_TIMEOUT, format_grpc_timeout, parse_grpc_timeout};
pub use headers::{ATTEMPT, CRITICALITY, DEADLINE_MS, DEPENDENCY_FAILED, GAVE_UP, mark_dependency_failed};
pub use idle_timeout::{IdleBodyError, IdleTimeout, IdleTimeoutBody};
pub use method::is_idempotent;
pub use on_end::{OnEnd, OnEndBody};
#[cfg(feature = "health")]
pub use pages::HealthPages;
pub use propagate::{Propagate, PropagateFuture, PropagateLayer};
#[cfg(feature = "retry")]
pub use replay::{Replay, ReplayBodies, ReplayLayer};
#[cfg(feature = "retry")]
pub use replay_body::{ReplayBody, ReplayError};
#[cfg(feature = "retry")]
#[doc(hidden)]
pub use requests::HttpChoice;
#[cfg(feature = "retry")]
pub use requests::HttpRequests;
pub use retry_after::{MAX_RETRY_AFTER, parse_retry_after, retry_after};
#[cfg(feature = "circuit-breaker")]
pub use stream_breaker::{StreamBreaker, StreamBreakerFuture, StreamBreakerLayer, StreamVerdict};
