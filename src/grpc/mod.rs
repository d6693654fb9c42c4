//! gRPC: what codes mean, and how long a server asks to be left alone.
//!
//! Everything here speaks the types of the `http` crate, which is what gRPC clients such as tonic's channel speak below their
//! generated code: no client is named, and none is needed.
//!
//! | part | does |
//! |---|---|
//! | [`GrpcClassifier`] | turns a response into an [`Outcome`](crate::Outcome), by its head or by its trailers |
//! | [`Code`] | the status codes |
//! | [`pushback`] | reads `grpc-retry-pushback-ms` |
//! | [`code_of`], [`answer`] | a rejection of this crate as a status code, and as an answer |
//! | [`ContextHeaders::grpc_timeout`](crate::http::ContextHeaders::grpc_timeout) | sends and takes up `grpc-timeout` |
//!
//! # Examples
//!
//! ```
//! use mainstay::grpc::GrpcClassifier;
//! use mainstay::{Classify, Outcome};
//!
//! // An answer of trailers only: the status is in the head.
//! let answer = http::Response::builder().header("grpc-status", "14").body(()).unwrap();
//! let outcome = GrpcClassifier::new().classify(Ok::<_, &std::io::Error>(&answer));
//! assert_eq!(outcome, Outcome::Transient);
//! ```
//!
//! # Where the status is
//!
//! By `PROTOCOL-HTTP2.md` of the gRPC project a response ends with trailers, and `grpc-status` is there; a call that fails at once may
//! answer with *trailers only*, a head that has it and no body. So a head without `grpc-status` says only that the server
//! began to answer: it is `Success` for whoever judges heads, and
//! whoever wants the real verdict waits for the trailers, with
//! [`ClassifyEnd`](crate::http::ClassifyEnd). A status other than 200 without `grpc-status` is a proxy's answer, and
//! becomes a code by `http-grpc-status-mapping.md`. A stream that ends with neither is `UNKNOWN`, as is a number that is no code.
//!
//! # What codes mean
//!
//! | code | outcome | HTTP's counterpart |
//! |---|---|---|
//! | `OK` | `Success` | 200 |
//! | `CANCELLED` | `Ignored`: the caller left | 499 |
//! | `INVALID_ARGUMENT`, `FAILED_PRECONDITION`, `OUT_OF_RANGE` | `Refused` | 400 |
//! | `NOT_FOUND`, `ALREADY_EXISTS`, `PERMISSION_DENIED`, `UNAUTHENTICATED` | `Refused` | 404, 409, 403, 401 |
//! | `ABORTED` | `Refused`: to be tried again from further up, and not by the call itself | 409 |
//! | `RESOURCE_EXHAUSTED` | `Throttled`, for the time of the pushback where there is one | 429 |
//! | `UNAVAILABLE` | `Transient`; with a pushback `Throttled` | 503 |
//! | `DEADLINE_EXCEEDED` | `Transient`; with a pushback `Throttled`; `Ignored` with at most 10 ms left until the caller's deadline | 504 |
//! | `UNKNOWN`, `UNIMPLEMENTED`, `INTERNAL`, `DATA_LOSS` | `Permanent` | 500, 501, 500, 500 |
//!
//! What may be tried again follows `statuscodes.md` of the gRPC project ("`UNAVAILABLE` if the client can retry just the failing call,
//! `ABORTED` at a higher level, `FAILED_PRECONDITION` not before the state is fixed"); the counterparts are those of
//! `google/rpc/code.proto`, so that a server is judged alike by both protocols (`UNKNOWN` and `INTERNAL` differ: they are not said of
//! what passes). A failure with [`DEPENDENCY_FAILED`](crate::http::DEPENDENCY_FAILED) or [`GAVE_UP`](crate::http::GAVE_UP) among its
//! metadata is `DependencyFailed`, as over HTTP.
//!
//! # Pushback
//!
//! By gRFC A6 ("client retries") a server may answer with `grpc-retry-pushback-ms`: a number is how long to wait before the next
//! try, and anything else (negative, not a number, given twice) is a wish not to be asked again. That makes a
//! `Transient` failure `Permanent`, and a `Throttled` one `Ignored`: no evidence, as before, and no other try.
//!
//! # Rejections
//!
//! A gRPC client that gets an error which it does not know reports `UNKNOWN`. So turn a timeout or a rejection of this crate into
//! what gRPC has for it, above the layers that reject: [`code_of`] gives the code (`DEADLINE_EXCEEDED`, `UNAVAILABLE` or
//! `RESOURCE_EXHAUSTED`), and [`answer`] a response that every gRPC client and server understands.
//!
//! # Cancel safety
//!
//! Nothing here waits.

mod answer;
mod classifier;
mod code;
mod pushback;

pub use answer::{GRPC_MESSAGE, answer, code_of};
pub use classifier::GrpcClassifier;
pub use code::{Code, GRPC_STATUS};
pub use pushback::{GRPC_RETRY_PUSHBACK_MS, Pushback, pushback};
