//! Retries: another attempt where it may help, and none where it cannot.
//!
//! # Why
//!
//! Connections are reset, instances restart, queues are full for a moment; most of such failures are gone at the second
//! attempt. The same second attempts keep an overloaded callee down. So retries come with what bounds them: attempts, a
//! growing and jittered delay, the deadline, and a [budget](crate::budget) for all calls together, on by default.
//!
//! # When not
//!
//! Where something further in retries already, one of the two is enough: the innermost knows best, and its giving up is respected
//! further out (see below). Requests that must not be executed twice, unless [`idempotent_if`](RetryBuilder::idempotent_if)
//! or the [`RequestPolicy`] says which ones those are: without it every request is taken to be repeatable. For HTTP, `http` on the
//! builder is that rule. Rules add up, in whichever order the builder is given them.
//!
//! # Examples
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use mainstay::{BoxError, RetryLayer, context, retry::RetryConfig};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! let layer = RetryLayer::new("users", RetryConfig::default())?;
//! let handle = layer.handle();
//! let service = ServiceBuilder::new().layer(layer).service(service_fn(|name: &'static str| async move {
//!     match context::current().attempt() {
//!         1 => Err(BoxError::from("connection reset")),
//!         attempt => Ok(format!("{name}, at attempt {attempt}")),
//!     }
//! }));
//!
//! assert_eq!(service.oneshot("ada").await.unwrap(), "ada, at attempt 2");
//! assert_eq!(handle.statistics().retries, 1);
//! # Ok(()) }
//! ```
//!
//! Code that is no service is retried just so, by [`retry`] (or [`RetryLayer::run`], where the error can carry a refusal itself):
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), mainstay::BoxError> {
//! use mainstay::retry::{RetryConfig, RetryLayer, retry};
//!
//! let policy = RetryLayer::new("users", RetryConfig::default())?;
//! let answer = retry(&policy, || async { "42".parse::<u32>() }).await?;
//! assert_eq!(answer, 42);
//! # Ok(()) }
//! ```
//!
//! # Semantics
//!
//! After each attempt, in this order:
//!
//! 1. A result that calls for no other attempt ([`Outcome::retry`](crate::Outcome::retry); for a refusal of this crate
//!    [`Rejected::retry`](crate::Rejected::retry)) is returned.
//! 2. If a retry further in has given up with this result, it is passed on: 3 attempts in each of two layers are 3 attempts, not 9.
//!    An attempt that ends with another result is not affected by an inner call that gave up: one that was optional and replaced by
//!    a default, or one that ran beside it. Opt out by [`retry_after_inner_gave_up`](RetryConfig::retry_after_inner_gave_up). A retry of 1 attempt is turned off and
//!    gives up nothing. A [`DependencyFailed`](crate::Outcome::DependencyFailed) is passed on further out likewise, so that the mark
//!    reaches the outermost of a chain of processes.
//! 3. It gives up, and returns the result it has, when all attempts were made; when the request was sent and is not
//!    idempotent; when there is no copy of it; when that copy can no longer be sent; when the
//!    callee asked for a longer wait than [`max_retry_after`](RetryConfig::max_retry_after); when the delay ends beyond the end of time; when the next attempt would start at
//!    or after the deadline, or not within [`max_elapsed`](RetryConfig::max_elapsed); or when the budget is used up.
//! 4. Else it drops the response, waits, waits until the service is ready, and makes the next attempt. While the copy of the request
//!    [may be lost](RequestPolicy::may_be_lost), as that of a streamed body may while the first attempt is still reading it, the
//!    response is kept instead: if the copy is lost in that time, the call gives up and returns it. The wait is the delay of the
//!    backoff, of [`delay_by`](RetryBuilder::delay_by) or of [`delays`](RetryBuilder::delays), or a longer one that the callee
//!    named. A zero delay touches no timer.
//!
//! * **The backoff** starts from 50 ms; after a throttle that names no time (a 429 without `Retry-After`) from
//!   [1 s](RetryConfig::throttled_initial).
//! * **A time that the callee or a limit names** (`Retry-After`) is never undercut. Up to
//!   [20 %](RetryConfig::hint_jitter) of it comes on top, spread evenly over the calls, so that callers which were given the
//!   same time do not return at the same instant; neither `max_retry_after` nor a deadline is exceeded by that. By
//!   [option](TrustHint::Clamped) a time is only followed within 5 s of the retry's own delay.
//! * **Requests** are copied only when another attempt can follow: never with 1 attempt, at most twice with 3. One that cannot
//!   be copied still gets its first attempt.
//! * **Idempotency** matters only for what was sent. A call that certainly was not sent is retried whatever the request: one
//!   that a layer further in rejected (a full limit, an empty pool), and one whose error the classifier judges as
//!   [`NotSent`](crate::Outcome::NotSent) (a refused connection).
//! * **The budget** counts a call once it was sent, and charges each attempt sent on top of that: one token, or two after a
//!   throttle. Attempts that were rejected locally are free. A call that its caller drops earns nothing. A budget of
//!   what is in flight counts a call until its future is dropped.
//! * **An open circuit** ends the call: the breaker's rejection is returned at once, whether the circuit is open, forced open or
//!   half-open with all probes out. Nothing is withdrawn from the budget and nothing is waited for. Only the breaker can release
//!   waiting callers as the circuit admits them, so waiting is its option.
//! * **Readiness** is waited for before each attempt, until the deadline, for [`max_elapsed`](RetryConfig::max_elapsed), or for
//!   [`ready_timeout`](RetryConfig::ready_timeout); a service that fails to become ready ends the
//!   call with that error. One that is ready only after one of these limits is not called any more.
//! * **A limit that ends a wait** for a later attempt ends the call with the error of the attempt before. A response is
//!   dropped before the wait, since it may hold a connection; in its place the caller gets
//!   [`Rejected::Timeout`](crate::Rejected::Timeout) or [`Rejected::DeadlineExceeded`](crate::Rejected::DeadlineExceeded).
//! * **Attempts without a delay** let other tasks run: the future yields to the runtime after 8 attempts in one poll, so that a
//!   timeout around it ends even unlimited attempts.
//! * **The deadline** is the ambient one ([`context`](crate::context)). A call that comes when it has passed is refused before
//!   its first attempt, by [`Rejected::DeadlineExceeded`](crate::Rejected::DeadlineExceeded) with `sent: false`: it counts as a
//!   failure, and neither the request policy nor the budget hears of it. Each attempt knows its number by
//!   [`Context::attempt`](crate::context::Context::attempt).
//!
//! All services that one layer makes share its settings, counts and budget. [`RetryHandle::reconfigure`] changes all settings while
//! calls run, and keeps the counts and the balance of the budget. To share the budget between layers, give each
//! builder a clone of it.
//!
//! # Telemetry
//!
//! Counters `mainstay_retry_calls_total`, label `outcome`: `success`, `failure` (no retry would help), `abandoned`,
//! `panicked`, and `gave_up_` with the [reason](GiveUpReason); and `mainstay_retries_total`, label `cause`: `transient`, `throttled` or
//! `not_sent`. Events for each retry and for each call that gives up:
//! [`RetryEventKind`](crate::telemetry::event::RetryEventKind).
//!
//! # Differences from `tower::retry`
//!
//! No policy to write: what to do is configured, and what happened is judged by a classifier that all layers share. The first
//! attempt of a request that cannot be cloned is made. The result of the last attempt is what the caller gets.

mod config;
mod future;
mod handle;
mod hooks;
mod layer;
mod policy;
mod progress;
mod request;
mod run;
mod service;
mod time_limits;

pub use config::{RetryConfig, TrustHint};
pub use future::ResponseFuture;
pub use handle::{RetryHandle, RetryStatistics};
pub use hooks::{AfterAttempt, AttemptReport, EndedAttempt, NextDelay};
#[doc(hidden)]
pub use layer::{Chosen, NotChosen};
pub use layer::{RetryBuilder, RetryLayer};
pub use policy::GiveUpReason;
#[doc(hidden)]
pub use request::CopyRequestsBy;
#[cfg(feature = "http")]
pub(crate) use request::replaced;
pub use request::{CloneRequests, CloneWith, IdempotentIf, RequestPolicy, RetryIf, TryClone, TryCloneRequests};
pub use run::{Operation, retry};
pub use service::Retry;
