//! A set of endpoints that is one service: each call goes to one of them, and to none that is known to be bad.
//!
//! **When**: the same service runs several times (replicas, shards' followers, a fleet behind a name) and the client may choose.
//! **When not**: behind a single address that balances by itself per request (an L7 proxy): a pool of one has nothing to
//! choose. For endpoints that are not alike (shards, regions with different data) choose in the application.
//!
//! [`Pool`] is a [`tower::Service`](tower_service::Service) and `Clone`. There is no buffer and no worker task before it: a
//! clone for each task, or a clone for each call, is how it is meant to be used. Picking takes the same few steps whatever the
//! number of endpoints.
//!
//! # Example
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), mainstay::BoxError> {
//! use mainstay::HealthStatus;
//! use mainstay::balance::Pool;
//! use mainstay::BoxError;
//! use tower::service_fn;
//!
//! let connect = |port: u16| service_fn(move |path: &'static str| async move { Ok::<_, BoxError>(format!("{port}{path}")) });
//!
//! let pool = Pool::builder("app").build()?;
//! let handle = pool.handle();
//! handle.add(8001, connect(8001));
//! handle.add(8002, connect(8002));
//! assert!(pool.clone().oneshot("/users").await?.ends_with("/users"));
//!
//! // A prober says that one is down: from here on nothing goes there.
//! handle.set_health(&8001, HealthStatus::Unhealthy);
//! assert_eq!(pool.clone().oneshot("/users").await?, "8002/users");
//! # Ok(())
//! # }
//! ```
//!
//! # Who is picked
//!
//! Endpoints take turns in proportion to their weights: twice the weight, twice the calls. With [`Picker::RoundRobin`] that is
//! all. [`Picker::PeakEwma`] (default) and [`Picker::InFlight`] also draw a second endpoint, to which the call goes if the one
//! whose turn it is has clearly more load for its weight: more than 0.75 calls of the lighter of the two, or 1.75 times the
//! latency. Endpoints that are equally fast therefore share the calls by weight within a few per cent, at any concurrency and
//! any number of endpoints, and a slow or loaded endpoint gets less. A turn that an endpoint passed on without a lasting
//! difference in load is given back later.
//!
//! What a call teaches:
//!
//! | what it ended in | peak EWMA | in flight |
//! |---|---|---|
//! | success, `Refused` | a sample of the latency | - |
//! | `Transient`, `NotSent`, `Permanent`, `Throttled` | a sample of at least twice the estimate | a phantom call that fades |
//! | dropped | its time is a lower bound of the latency | a phantom call that fades |
//! | `DependencyFailed`, `Ignored` | its time is a lower bound of the latency | - |
//!
//! so that neither an endpoint that fails fast nor one that swallows calls looks idle. An attempt of a retry goes to an endpoint
//! that the earlier attempts have not tried, as long as there is one. Several calls of one handler, or of one attempt, are
//! independent of each other.
//!
//! # Who may be picked
//!
//! One decision for the whole pool, made again whenever something changes:
//!
//! 1. **Administration**: a [drained](PoolHandle::drain) or [disabled](PoolHandle::disable) endpoint is out, whatever happens.
//! 2. **Active health**, as told by a monitor that the pool follows (`PoolHandle::follow_health`, with the feature `health`)
//!    or by hand ([`PoolHandle::set_health`]): unhealthy is out; unknown is in, unless
//!    [`await_first_probe`](PoolConfig::await_first_probe).
//! 3. **Passive evidence** is out, the longest accused first, while no more than [`max_out`](PoolConfig::max_out) (50 %, rounded
//!    down) are out, unready ones counted in, and at least one is in:
//!    * *ejected*: 5 failures in a row, for 30 s times the number of ejections, at most 300 s; one is forgotten every 30 s;
//!    * *circuit open*: its own [breaker](PoolConfig::circuit_breaker); when a probe is due, the next pick takes its slot and
//!      sends it one call.
//! 4. **Panic mode**: if fewer than [`panic_threshold`](PoolConfig::panic_threshold) (50 %) are left, all but those of 1 are
//!    used. More than half being bad is more likely a fault of the view, and if it is not, rejecting every call is no better.
//! 5. **Unready** endpoints are out as long as any other is left, whatever `max_out` says: a call that went there would only
//!    wait, or go on elsewhere. An endpoint is unready after its `poll_ready` failed, for 100 ms, doubled each time, at most
//!    10 s, jittered; or after it was pending for five picks in a row, for at most [`ready_timeout`](PoolConfig::ready_timeout).
//!    Then a fresh clone is asked.
//!
//! What was learned about an endpoint, and what the operator said, belongs to its key until the key is removed. To add a key
//! that is there, by [`PoolHandle::add`] or by a stream of changes, replaces the service (and the weight, where one is given)
//! and nothing else: not `disable`, health, ejections, statistics, the breaker, or loads. A draining endpoint has given up its
//! key: what is added then is its successor, of which nothing is known.
//!
//! An endpoint that is used in spite of an ejection for failures and succeeds is acquitted. Only results that the classifier calls failures
//! ([`Outcome::is_failure`](crate::Outcome::is_failure)) are evidence: `Refused` and `DependencyFailed` come from healthy
//! endpoints.
//!
//! # Readiness
//!
//! The pool itself is always ready: which endpoint's readiness matters is known only when one is picked. The call clones the
//! endpoint's service, waits until that clone is ready, and calls that very clone. While it waits:
//!
//! * *not ready*: all other endpoints are asked that were not found unready a moment ago, and the first that is ready gets the
//!   call at once. If none is, the call waits for two of them within [`ready_timeout`](PoolConfig::ready_timeout) (1 s), which
//!   counts as load, and asks again when endpoints come or leave and when one may be ready again;
//! * *failed*: the endpoint is paused and another asked, up to four; when there is no other, the caller gets the error itself;
//! * *not sent*: if the request [can be repeated](PoolBuilder::clone_requests), the call goes to another endpoint, up to four.
//!   Either a limiter or breaker inside the endpoint rejected it, or it failed with
//!   [`Outcome::NotSent`](crate::Outcome::NotSent), such as a refused connection, which is a failure of that endpoint.
//!
//! None of this spends an attempt, a wait or budget of a retry above.
//!
//! # Services that are not `Sync`
//!
//! Endpoints are shared by all clones of the pool and cloned for each call: a pool can cross threads when its services are
//! `Send + Sync`. A service that is only `Send` can be wrapped in one that is (such as `tower::util::BoxCloneSyncService` or
//! `tower::buffer::Buffer`).
//!
//! # What is counted and told
//!
//! Metrics, by pool name: `mainstay_balance_calls_total{outcome}`, `mainstay_balance_repicks_total{reason}`,
//! `mainstay_balance_ejections_total{reason}`, `mainstay_balance_endpoints`, `mainstay_balance_endpoints_usable`,
//! `mainstay_balance_panic`; and, with [breakers](PoolConfig::circuit_breaker), the sums of their counters under the pool's name
//! (`mainstay_circuit_breaker_calls_total`, `mainstay_circuit_breaker_transitions_total`). Events: [`BalanceEvent`](crate::telemetry::event::BalanceEvent). Endpoints are named in events and
//! by [`PoolHandle::endpoints`], never in a metric's label.
//!
//! Calls = successes + refused + failures + throttled + dependency failed + ignored + rejected + abandoned, always: see
//! [`PoolStatistics`].
//!
//! # Cost
//!
//! A pick reads one version and one immutable list; it takes no lock, allocates nothing and arms no timer. Unequal weights add
//! a binary search. A call writes two
//! counters of its endpoint, and with [`Picker::PeakEwma`] reads the clock twice. A change of who may be picked copies the list,
//! under a lock that no pick takes. Events are sent after that lock is released, so a listener may use the handle.
//!
//! # Differences from `tower::balance`
//!
//! `tower`'s balancer is not `Clone` (so it needs a `Buffer`), drives the readiness of all endpoints from its `poll_ready`,
//! drops an endpoint whose `poll_ready` fails, and knows no ejection, breaker, health or weight. In exchange it asks of its
//! services neither `Clone` nor `Sync`.

mod config;
mod core;
mod discover;
mod eligibility;
mod endpoint;
#[cfg(feature = "health")]
mod follow_health;
mod future;
mod handle;
mod load;
#[cfg(all(test, mainstay_loom))]
mod model;
mod outlier;
mod pick;
mod pool;
mod registry;
mod repeat;
mod search;
mod service;
mod snapshot;

pub use config::{EjectionConfig, Picker, PoolConfig};
pub use discover::Follow;
pub use eligibility::OutReason;
pub use endpoint::Key;
#[cfg(feature = "health")]
pub use follow_health::FollowHealth;
pub use future::ResponseFuture;
pub use handle::{Drained, EndpointStatus, PoolHandle, PoolStatistics};
pub use pool::{Pool, PoolBuilder};
pub use repeat::{CloneRequests, NeverRepeat, Repeat};
pub use tower::discover::{Change, Discover};
