//! Circuit breaking: stop calling what is known to fail, and find out carefully when it has recovered.
//!
//! **Why.** A callee that is down costs its callers their time (each call waits for its timeout) and gets in return a load
//! that keeps it down. A breaker judges the calls that it sees; when too many fail, it refuses further ones at once and
//! says for how long. Then it lets a few probes through, and their verdicts decide.
//!
//! **When.** Around every remote dependency that can fail as a whole, closest to the client: inside of retries, so that each
//! attempt is judged and a refusal is known to have never been sent. For the endpoints of a pool there is no need to wrap
//! each one: the pool keeps a breaker for every endpoint and does not pick what is open.
//!
//! **When not.** Around something that cannot fail as a whole (a breaker over a pool of healthy and sick endpoints refuses
//! the healthy ones too), around local work, or where fewer calls are made than
//! [`minimum_calls`](CircuitBreakerConfig::minimum_calls) in any time that matters.
//!
//! # Examples
//!
//! ```
//! use std::time::Duration;
//! use mainstay::circuit_breaker::{CircuitBreakerLayer, OpenTime};
//! use mainstay::{BoxError, Rejectable};
//! use tower::{Layer, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
//! let layer = CircuitBreakerLayer::builder("users-db")
//!     .consecutive_failures(3)
//!     .open_time(OpenTime::Constant(Duration::from_secs(2)))
//!     .build()?;
//! let breaker = layer.handle();
//! let mut service = layer.layer(service_fn(|_: &str| async { Err::<(), BoxError>("connection reset".into()) }));
//!
//! for _ in 0..3 {
//!     let error = service.ready().await?.call("select").await.unwrap_err();
//!     assert_eq!(error.to_string(), "connection reset");
//! }
//! // The fourth call is not sent.
//! let error = service.ready().await?.call("select").await.unwrap_err();
//! let rejected = error.as_rejected().expect("refused by the breaker");
//! assert!(rejected.is_circuit_open() && !rejected.was_sent());
//! assert!(rejected.retry_after() <= Some(Duration::from_secs(2)));
//! assert_eq!(breaker.statistics().rejected, 1);
//! # Ok(())
//! # }
//! # use tower::Service;
//! ```
//!
//! # States
//!
//! | state | calls | leaves it |
//! |---|---|---|
//! | closed | flow and are judged | to open, when something trips |
//! | open | are refused | to half-open, when a call asks and `now - opened >= wait`, or as below |
//! | half-open | [`probes`](CircuitBreakerConfig::probes) are admitted, the rest refused | to closed or open, as the probes show; to open, after a [longest stay](CircuitBreakerConfig::half_open_max) with a probe that is out or was bad |
//! | forced open | are refused | by hand |
//! | disabled | flow, nothing is recorded | by hand |
//! | observing | flow and are recorded, it never opens, and [reports](#dark-launch) when it would have | by hand |
//!
//! # What trips it
//!
//! Any of these, looked at after every verdict in the closed state:
//!
//! * [`consecutive_failures`](CircuitBreakerConfig::consecutive_failures) in a row;
//! * [`failures_per_period`](CircuitBreakerConfig::failures_per_period): so many within a time, whatever else succeeded;
//! * `failures / calls >= failure_rate` over the [window](CircuitBreakerConfig::window), from
//!   [`minimum_calls`](CircuitBreakerConfig::minimum_calls) on. A full count window slides: after 100 000 successes, 50
//!   failures in a window of 100 calls open it at 50 %;
//! * `slow / calls >= rate` over the same window, where slow means to take strictly longer than
//!   [`longer_than`](SlowCalls::longer_than);
//! * at least [`minimum_calls`](CircuitBreakerConfig::minimum_calls) calls in the window that got [no answer](#no-answer), and
//!   not one that did;
//! * a [`Trip`] of one's own, which sees all of these numbers and the verdict.
//!
//! What a verdict says is its [`Outcome`](crate::Outcome): `Transient`, `NotSent` and `Permanent` are failures, `Success`, `Refused`
//! and `DependencyFailed` are healthy (the callee answered), `Throttled` and `Ignored` are no evidence and are in no window.
//! A panic that comes out of the inner `call` or `poll` is a failure, whose outcome is `Permanent`. A refusal by an inner
//! layer of this crate is no evidence.
//!
//! **Abandoned** calls, whose future is dropped before it finished, are no evidence of failure (a
//! [setting](CircuitBreakerConfig::abandoned_is_failure) makes them failures). The same holds for calls that an inner layer cut
//! because the deadline of the caller had passed.
//!
//! A call that ran beyond the slow threshold is a slow call however it ended: answered, failed, cut or abandoned. The time
//! that it ran is a lower bound of its latency. Only a call that was never sent (an inner limit rejected it) is not slow: the
//! time that it waited is not the callee's.
//!
//! # No answer
//!
//! A callee that accepts calls and never answers causes no failure while the deadlines of the callers are shorter than the
//! timeout of an attempt: every call is cut or abandoned. The breaker opens for [`TransitionReason::Unanswered`] when the
//! window holds at least [`minimum_calls`](CircuitBreakerConfig::minimum_calls) such calls and not one answer. Every result
//! of the callee or its client is an answer: a success, a refusal, a throttled call, an error. Callers that leave for reasons of
//! their own (the loser of a hedge, a branch of `select!`) do not open the circuit as long as some calls are answered.
//!
//! * A time window judges the calls of its length.
//! * A count window of `n` calls judges the last `n` calls, here with those that were cut or abandoned. Where no rate is used,
//!   neither is the window, but its size still says how far back an answer counts. (With a time window that no rate uses,
//!   `minimum_calls` calls in a row without an answer open the circuit.)
//! * A half-open circuit opens again after `minimum_calls` probes in a row without an answer, or as many as there are
//!   [`probes`](CircuitBreakerConfig::probes) if that is more.
//! * An error that the classifier ignores when the deadline of the caller has passed, or is less than 10 ms away, is a call that
//!   the deadline cut: this is how a client with its own timer reports it. A response that is ignored then (a 504) is no
//!   evidence, or callers with tiny deadlines could open the circuit.
//! * An attempt timeout that ended a call is a failure, and says nothing about an answer. Neither does an error that the classifier
//!   ignores at another time, nor a call that was never sent.
//!
//! This needs no clock at the end of a call. It is a safety net, not a substitute for an attempt timeout inside the breaker, which
//! turns each hanging call into a failure. If deadlines cut the calls that opened the circuit, the event
//! [`DeadlineBeforeTimeout`](crate::telemetry::event::CircuitBreakerEventKind::DeadlineBeforeTimeout) follows the opening: the
//! attempt timeout is missing or not shorter than the deadline. The cause in a rejection is then
//! [`Ignored`](crate::Outcome::Ignored).
//!
//! # Calls that hang
//!
//! A call is judged when it ends, so that a dependency that takes calls and never answers is seen when their timeouts fire, or
//! never. With [`watch_in_flight`](CircuitBreakerConfig::watch_in_flight), a call counts as slow as soon as it is known to be:
//! when it has been running for longer than the slow threshold, and at most an eighth of the threshold later, at the next
//! call that asks for admission or the next verdict. Whatever the number of calls, nine numbers are kept. A call is never in
//! the window twice:
//!
//! * One that ends before it was counted is in the window as what it ends as, slow or not.
//! * One that was counted before its end stays in the window as one slow call that did not fail. However it ends, failed,
//!   dropped or without evidence, nothing is added and nothing changed there; a failure counts among those in a row and
//!   those per period, and a success begins the row anew.
//! * One whose generation is over is in no window, neither while it runs nor when it ends.
//!
//! A probe that runs beyond the threshold has had its verdict, that it is slow; what it ends as comes too late to decide.
//!
//! # Dark launch
//!
//! An observing breaker judges calls by the rules that trip a closed circuit, and rejects none. When one of the rules trips, it
//! emits [`WouldOpen`](crate::telemetry::event::CircuitBreakerEventKind::WouldOpen), and for the time that the circuit would
//! be open it counts the calls that it would have rejected. The first verdict after that time stands for the probes: a bad one
//! would open the circuit again, a healthy one would close it, and the window begins again. The two counts are
//! [`would_have_opened`](CircuitBreakerStatistics::would_have_opened) and
//! [`would_have_rejected`](CircuitBreakerStatistics::would_have_rejected). No subscription and no observer of transitions sees
//! any of this, since the state does not change.
//!
//! # How long it stays open
//!
//! As [`open_time`](CircuitBreakerConfig::open_time) says, or a function of what opened it
//! ([`open_time_with`](CircuitBreakerBuilder::open_time_with)). With
//! [`throttled_opens`](CircuitBreakerConfig::throttled_opens), one `Throttled` verdict that says how long to wait opens the
//! circuit for just that time.
//!
//! By default the first opening lasts 5 s, and each one that failed probes lead to lasts from 5 s to 5.5 s: see
//! [`OpenTime::Between`]. No time is ever shorter than the configuration says, unless a [jitter](crate::backoff::Jitter) that
//! shortens is set. The [`retry_after`](crate::CircuitOpen::retry_after) of a rejection is exact: what waits for it adds its own
//! jitter on top.
//!
//! An open circuit turns half-open at the next call after its time. Two futures do so without a call, for whoever spawns them:
//! [`follow_open_time`](CircuitBreakerHandle::follow_open_time) as soon as the time is over, and `follow_health` (with the
//! feature `health`) before that, when active checks of the callee pass again. A probe of one's own says so by
//! [`health_check_passed`](CircuitBreakerHandle::health_check_passed). None of them closes a circuit: probes decide that.
//!
//! # Probes
//!
//! A half-open circuit hands out a fixed number of slots. When they are all taken, it rejects further calls without a
//! [`retry_after`](crate::CircuitOpen::retry_after): a probe may end at any moment, so that no time would be true. Under [`ProbeRule::Rate`] each slot is for one verdict, and once
//! all are in, the rates that trip a closed circuit decide. Under [`ProbeRule::ConsecutiveSuccesses`] a slot is free again
//! after its verdict; the given number of healthy probes in a row closes the circuit, and the first one that fails or is
//! slow re-opens it. Under [`ProbeRule::FirstFailure`] each slot is for one verdict, the first bad one re-opens the circuit
//! at once, and it closes when all are healthy. A probe without evidence gives its slot back, and so does one that is dropped. One that never comes
//! back loses its slot to the next caller after the [deadline](CircuitBreakerConfig::probe_deadline), so that a circuit cannot
//! stay half-open for ever. With a [longest stay](CircuitBreakerConfig::half_open_max), a circuit about which the probes have not
//! decided by then is open again, if a probe is out or has shown something bad; if only too few calls came, the stay begins
//! again.
//!
//! With a [`Ramp`], a circuit that the probes have found well stays half-open while the admitted share grows in steps, and
//! closes after the last. The share is exact and needs no draw; the calls that are admitted are ordinary ones, judged by the
//! rules that trip a closed circuit, and no probes. Other calls are refused, in `call` and not before: `poll_ready` asks the
//! inner service during a ramp.
//!
//! Every permit carries the generation of the state that admitted it. A verdict from before a transition is in the
//! statistics and changes nothing else: a straggler admitted before the trip neither closes the circuit nor decides a probe.
//!
//! # Readiness
//!
//! The breaker refuses in `call`, not by being unready: `poll_ready` of an open breaker is ready at once, without asking the
//! inner service, and the `call` that follows refuses, although the circuit may have become half-open since; an unready
//! inner service is never called. (One that was made ready before the circuit opened may take a probe, if it is still open
//! for one.) The slot of a probe is taken in `call`. Errors of the inner `poll_ready` pass unchanged and are no calls.
//!
//! A refusal arms no timer and allocates nothing, unless the error type is boxed.
//!
//! That is [`AdmissionMode::Reject`], the default.
//!
//! # Waiting
//!
//! In [`AdmissionMode::Wait`] a call that the circuit does not admit waits in a queue, first in, first out:
//!
//! * When the open time is over, as many calls are released as there are slots for probes. When the circuit closes, all are
//!   released, in order. On a [ramp](CircuitBreakerConfig::ramp), the share of newcomers that the ramp admits is released.
//! * A failed probe, or a circuit that opens again, changes nothing for those that wait.
//! * A wait ends in vain when `max`, or the deadline of the ambient [context](crate::context), is over. The call is then
//!   rejected by the circuit, at once. So is a call that finds the queue full, and every call while the circuit is
//!   [forced open](CircuitBreakerHandle::force_open), those that wait included.
//! * Nothing overtakes the queue. [`try_acquire`](CircuitBreakerHandle::try_acquire) does not wait, and gets a slot only if there are more
//!   of them than calls that wait.
//! * A released call has half a second to use its turn. If it leaves, or lets the turn lapse, the next one gets it. No slot is
//!   taken before `call`.
//!
//! A service waits in `poll_ready`, so that it need not be `Clone` and holds no request. Two consequences: the wait ends at a
//! deadline that is ambient there, while a total timeout *around* the breaker counts it only with `include_readiness`; and a
//! service that was ready before the circuit opened stays ready, so that its `call` is rejected.
//! [`CircuitBreakerHandle::call`] waits in its future.
//!
//! A waiting call holds a timer, which needs a tokio runtime with time enabled; it may be polled in another runtime later.
//! `waiting`, `waited`, `waits_timed_out` and `queue_full` are in the [statistics](CircuitBreakerStatistics).
//!
//! # Sharing
//!
//! A breaker is shared by all clones of a service, by **all services made by one layer** and its clones, and by whatever is
//! made from its [handle](CircuitBreakerHandle). For independent breakers, build a layer each; for one a key, within bounds, see
//! [`keyed`].
//!
//! # Cost
//!
//! The state is constant in size, whatever the number of calls: two bits for each call of a count window, ten buckets for a
//! time window of any length. In the closed state a success on a full count window without a failure takes no lock and
//! writes nothing but its count; on a time window without a failure it adds one to an atomic. What changes the state, fails,
//! is cut or abandoned, or follows one of these takes a mutex for a few instructions. The clock is read once a call for a time window, twice for
//! slow calls, and not at all for a count window without them. The watch of calls that hang makes a verdict take the mutex,
//! and an admission add one to a shared atomic; while it is off it costs nothing.
//!
//! # Telemetry
//!
//! | metric | labels |
//! |---|---|
//! | `mainstay_circuit_breaker_calls_total` | `name`, `outcome`: `success`, `refused`, `failure`, `ignored`, `rejected`, `abandoned` |
//! | `mainstay_circuit_breaker_waits_total` | `name`, `outcome`: `admitted`, `timed_out`, `rejected`, `abandoned`, `queue_full` |
//! | `mainstay_circuit_breaker_transitions_total` | `name`, `to`: the new state |
//! | `mainstay_circuit_breaker_observed_total` | `name`, `would_have`: `opened`, `rejected` |
//! | `mainstay_circuit_breaker_state` | `name`, `state`: the number of breakers of this name in the state |
//!
//! Several layers of one name add up in every metric. A layer that is dropped leaves the gauge.
//!
//! Each transition is a [`CircuitBreakerEvent`](crate::telemetry::event::CircuitBreakerEvent) with the counts that it was
//! decided on; going to the state that holds already is none.

mod admission;
mod breaker;
mod calls;
mod config;
mod ending;
mod failure_period;
#[cfg(feature = "health")]
mod follow_health;
mod follow_open_time;
mod future;
mod handle;
mod in_flight;
pub mod keyed;
mod layer;
mod opening;
mod own_rules;
mod permit;
mod probes;
mod ramp;
mod service;
mod shared;
mod state;
mod statistics;
mod subscription;
mod transition;
mod trip;
mod unanswered;
mod wait_queue;
mod waiter;
mod watchers;

pub use admission::AdmissionMode;
pub use config::{CircuitBreakerConfig, OpenTime, ProbeRule, SlowCalls, Window};
#[allow(unused_imports, reason = "used by the families beside this one, each behind its feature")]
pub(crate) use ending::{Ending, judge_call};
pub use failure_period::FailuresPerPeriod;
#[cfg(feature = "health")]
pub use follow_health::FollowHealth;
pub use follow_open_time::FollowOpenTime;
pub use future::ResponseFuture;
pub use handle::CircuitBreakerHandle;
pub use keyed::{
    BorrowedKey, BreakerKey, KeyOf, KeyedCircuitBreaker, KeyedCircuitBreakerBuilder, KeyedCircuitBreakerConfig,
    KeyedCircuitBreakerHandle, KeyedCircuitBreakerLayer, KeyedCircuitBreakerStatistics, OwnedKey,
};
pub use layer::{CircuitBreakerBuilder, CircuitBreakerLayer};
pub use opening::Opening;
pub use permit::Permit;
pub use ramp::Ramp;
pub use service::CircuitBreaker;
pub use shared::Admits;
pub use statistics::CircuitBreakerStatistics;
pub use subscription::{StateChange, Subscription};
pub use transition::{IllegalTransition, Transition, TransitionReason};
pub use trip::{Trip, TripStatistics};
#[cfg(feature = "http")]
pub(crate) use waiter::Waiter;
