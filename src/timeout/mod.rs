//! Timeouts: a limited time for one attempt, or for a whole call.
//!
//! # Why
//!
//! A call without a limit waits as long as its callee cares to; what it holds meanwhile (a connection, a task, the caller's
//! patience) is what an outage spreads by. Two limits are needed, and they are not the same: one on each *attempt*, so that a
//! stuck one is given up while there is time for another, and one on the *total*, which is what the caller was promised.
//!
//! # When not
//!
//! The inner future is dropped when its time is up. Where dropping it leaves half a job behind, let the job itself end in
//! time: it reads its [deadline](crate::context::Context::deadline) from the context.
//!
//! # Examples
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use mainstay::{BoxError, Rejectable, TimeoutLayer};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! let service = ServiceBuilder::new()
//!     .layer(TimeoutLayer::total("orders", Duration::from_secs(1))?)
//!     .service(service_fn(|_: ()| async {
//!         tokio::time::sleep(Duration::from_secs(5)).await;
//!         Ok::<_, BoxError>(())
//!     }));
//!
//! let error = service.oneshot(()).await.unwrap_err();
//! assert!(error.as_rejected().is_some_and(|rejected| rejected.is_timeout() && rejected.was_sent()));
//! # Ok(()) }
//! ```
//!
//! # Semantics
//!
//! * [`TimeoutKind::Total`] sets the ambient deadline for everything below it: `now + timeout`, or the deadline that is there
//!   already if that is nearer. [`TimeoutKind::Attempt`] sets none, and is cut to what is left of the one that is there.
//! * Time starts at `call`, and costs one reading of the clock. Waiting for readiness counts only if asked for
//!   ([`include_readiness`](TimeoutConfig::include_readiness)): then a service that is still not ready when its time is up takes
//!   the call and refuses it, and the inner service is not called.
//! * The inner future is polled first: a ready result wins over a deadline that has passed. The timer is armed when the
//!   inner future is first pending, and seen even if that spends all of tokio's cooperative budget at each poll.
//! * A timer that fires more than 10 ms late (the process was stopped or starved) yields once to I/O before it counts.
//! * The time ends with the response. **The body of an HTTP response is not covered**, neither by a total timeout nor by one of an
//!   attempt: a body that streams for a minute takes a minute. `http::DeadlineBodyLayer`, put below a total timeout, ends bodies at
//!   the deadline; `http::IdleTimeoutBody` ends one that stands still.
//! * At the end of its time the inner future is polled once more, so that it can record what it waits for, and then dropped at
//!   once, not when the response future is.
//! * The response future must not be polled after it has returned a result; it panics then.
//!
//! | what ended it | the caller gets | evidence against the callee |
//! |---|---|---|
//! | its own timeout | [`Rejected::Timeout { sent: true }`](crate::Rejected::Timeout) | yes ([`Transient`](crate::Outcome::Transient)) |
//! | the ambient deadline, before that | [`Rejected::DeadlineExceeded { sent: true }`](crate::Rejected::DeadlineExceeded) | no |
//! | the ambient deadline, before the call | `Rejected::DeadlineExceeded { sent: false }` | no |
//! | its own timeout, while waiting for readiness, or of zero | `Rejected::Timeout { sent: false }` | no |
//!
//! Where the wait that a limit ends has a known cause (a circuit that is open, a pool without an endpoint), the caller gets the
//! rejection of that cause instead of the rejections above: the on-call engineer reads "circuit `db` is open", not "no answer
//! within 1s". The layer that waits records the cause, the limit picks it up, and the statistics and events of the limit still
//! count a timeout. The cause is not known where something in between does not poll the wait when the time is up, such as a
//! spawned task or `tower::buffer`.
//!
//! A layer below that notices first that a total timeout is up says `DeadlineExceeded`, since to it that is the caller's
//! deadline; the layer whose timeout it was makes a `Timeout` of it, so that what the caller gets does not hang on who was first.
//!
//! # A timeout of each request's own
//!
//! [`TimeoutLayer::computed`] asks a function of the request, at `call`. What it says holds for that call instead of the
//! configured timeout, within the ambient deadline as ever; `None` is the configured one, so that no request is without a limit by
//! an oversight (`Duration::MAX` is none). Zero is not a mistake here but a request whose time is up: it is refused
//! without calling the inner service. While a service is not ready there is no request yet, so the wait for readiness is
//! bounded by the configured timeout.
//!
//! For no timeout leave the layer out (`tower::util::option_layer` takes an `Option`). Zero is [`InvalidConfig`](crate::InvalidConfig). A
//! panic of the inner service stays a panic.
//!
//! All services that one layer makes share its settings and counts, and nothing else.
//!
//! # Telemetry
//!
//! Counter `mainstay_timeouts_total`, label `cause`: `timeout`, `deadline` or `not_sent`. Event
//! [`TimeoutEventKind::TimedOut`](crate::telemetry::event::TimeoutEventKind::TimedOut) for each. Calls that end in time are
//! in no metric of this layer, but in its handle's [`statistics`](TimeoutHandle::statistics); a
//! [`TelemetryLayer`](crate::telemetry::TelemetryLayer) publishes them.

mod compute;
mod config;
mod future;
mod handle;
mod layer;
mod service;

pub use compute::{Computed, Fixed, TimeoutSource};
pub use config::{TimeoutConfig, TimeoutKind};
pub use future::ResponseFuture;
pub use handle::{TimeoutHandle, TimeoutStatistics};
pub use layer::{TimeoutBuilder, TimeoutLayer};
pub use service::Timeout;
