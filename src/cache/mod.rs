//! Cache-aside: answers are kept in a store; what is missing is loaded from the inner service, once for all who ask.
//!
//! A cache takes load from what is behind it, and keeps answering while that is slow or gone. It also becomes something that the
//! system leans on: the day it is cold, everything behind it sees the full load at once. So what is behind it is protected in
//! three ways: **one load a key** however many ask, **a limit on loads of different keys**, and **old answers** in place of new
//! ones where the application says that it can live with them.
//!
//! Use it for answers that many calls share and that may be a little old. Do not use it for answers that must be read after a
//! write by somebody else at once, that differ by something which is not in the key, or that are asked for once.
//!
//! # Examples
//!
//! ```
//! use std::time::Duration;
//! use mainstay::BoxError;
//! use mainstay::cache::CacheLayer;
//! use tower::{ServiceBuilder, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
//! let layer = CacheLayer::builder("users")
//!     // `None` would send a request past the cache.
//!     .key(|id: &u64| Some(*id))
//!     .ttl(Duration::from_secs(60))
//!     .stale_while_revalidate(Duration::from_secs(300))
//!     .stale_if_error(Duration::from_secs(3600))
//!     .build()?;
//! let handle = layer.handle();
//!
//! let database = service_fn(|id: u64| async move { Ok::<_, BoxError>(format!("user {id}")) });
//! let users = ServiceBuilder::new().layer(layer).service(database);
//!
//! assert_eq!(users.clone().oneshot(7).await?, "user 7");
//! assert_eq!(users.clone().oneshot(7).await?, "user 7");
//! let statistics = handle.statistics();
//! assert_eq!((statistics.misses, statistics.hits, statistics.loads), (1, 1, 1));
//!
//! handle.invalidate(&7).await?;
//! users.clone().oneshot(7).await?;
//! assert_eq!(handle.statistics().loads, 2);
//! # Ok(()) }
//! ```
//!
//! # What is stored
//!
//! The classifier judges each result of a load:
//!
//! | outcome | stored | the caller gets |
//! |---|---|---|
//! | [`Success`](crate::Outcome::Success) | for [`ttl`](CacheConfig::ttl), unless [`cache_if`](CacheBuilder::cache_if), [`cache_if_for`](CacheBuilder::cache_if_for) or [`ttl_of`](CacheBuilder::ttl_of) decline it | the answer |
//! | [`Refused`](crate::Outcome::Refused) | for [`negative_ttl`](CacheConfig::negative_ttl), if set, unless a hook declines it or it [depends on the caller](crate::Classify::depends_on_caller); an older answer is forgotten | the answer |
//! | anything else | never | an old answer within [`stale_if_error`](CacheConfig::stale_if_error), else the result |
//!
//! With the default classifier every `Ok` is a success. A service whose failures arrive as `Ok` (HTTP) needs a classifier that
//! knows them; a 500 is then never stored. A refusal that came as an `Err` is remembered by its words: later callers get
//! [`Rejected::LoadFailed`](crate::Rejected::LoadFailed) with the outcome `Refused`.
//!
//! A time to live is shortened by up to 10 % at random ([`ttl_jitter`](CacheConfig::ttl_jitter)), never lengthened.
//!
//! # Loads
//!
//! The first caller of a missing key *leads* a load; callers that come meanwhile wait for the same load and are woken once. The
//! load is a separate task, with its own [timeout](CacheConfig::load_timeout) and its own [ambient context](crate::context) that
//! holds only that deadline:
//!
//! * A caller that leaves, even the leader, does not stop a load that has begun: it is finished and stored. A load that still waits
//!   for its turn is called off when its last caller leaves, unless that caller took an old answer and counts on the load.
//! * Each caller keeps its own deadline: past it, it gets an old answer that may stand in, or
//!   [`Rejected::DeadlineExceeded`](crate::Rejected::DeadlineExceeded).
//! * At most [`max_concurrent_loads`](CacheConfig::max_concurrent_loads) (256) run at once. Up to
//!   [`max_queued_loads`](CacheConfig::max_queued_loads) (1024) more wait in order of arrival; beyond that a call is rejected with
//!   [`Rejected::Limited`](crate::Rejected::Limited): a load outside the limits would be the very flood they are there to stop.
//!   Only loads count: neither a lookup nor a write in a store elsewhere takes a place.
//!
//! Loads end, unfinished, when the last layer, service, handle and pending call of the cache is gone.
//!
//! The service is always ready; a clone of the inner service is made ready by the load that calls it, so a cached key is served
//! whatever the state of what is behind.
//!
//! # What is shared
//!
//! An answer reaches other callers than its own only if it may be stored, since only then is it the same for all of them:
//!
//! | the load ended with | the leader gets | the callers that waited get |
//! |---|---|---|
//! | an answer that is stored | the answer | the answer |
//! | a success or a refusal that is not stored | the answer or the error | nothing: they load for themselves |
//! | a response that was judged a failure | the response | the response: it says something about the callee, not about the caller |
//! | an error that was judged a failure | the error | [`Rejected::LoadFailed`](crate::Rejected::LoadFailed) with the error's outcome and words; a rejection that was never sent as it is |
//! | a panic | the panic | `LoadFailed` with the outcome `Permanent` |
//!
//! A caller whose leader got an answer for itself alone waits for one more load of the key, which is shared if its answer is stored.
//! Thus the 403 of one caller costs a hundred others one load. If that answer is for one caller alone too, each of those who waited
//! for both loads by itself, within the limits above, and such a load is not stored. Where most answers of a key are for one caller,
//! let the key function return `None`.
//!
//! # Old answers
//!
//! Both windows start at the end of freshness; the longer one ends the entry.
//!
//! * Within [`stale_while_revalidate`](CacheConfig::stale_while_revalidate) the old answer is served at once, and one refresh runs
//!   behind it, if there is a free place for a load; the next one may start when its answer has been stored. With 60 s fresh and 300 s stale: at 61 s old and refreshed, at 361 s a miss.
//! * Within [`stale_if_error`](CacheConfig::stale_if_error) it is served if the load fails (a refusal by an inner breaker is a
//!   failure here), if the load takes longer than [`soft_load_timeout`](CacheConfig::soft_load_timeout), or if there is no room for
//!   it. Never instead of a `Refused`: a 403 or 404 is an answer.
//! * After a failure the key is left alone for 1 s, doubled up to 60 s ([`refresh_backoff`](CacheConfig::refresh_backoff)), and the
//!   old answer is served meanwhile. A callee that asks for more time (429 with `Retry-After`) gets it, and up to a tenth more.
//!
//! [`on_served`](CacheBuilder::on_served) tells each response how it came about, so that callers can see that it is old.
//!
//! # Invalidation
//!
//! By key, by [tag](CacheBuilder::tags) and of everything, through the [`CacheHandle`]. What was loaded before is not served to a
//! call made after the invalidation has returned: not from the store, not by a load or a write that was under way, and not as an old
//! answer in place of a failed or slow load. A load that was under way still answers the calls made before.
//!
//! * By key: a later call starts a second load beside the first one. While two loads of a key run, further calls wait for the newer
//!   one to end, so that a key has at most two loads at once however often it is invalidated.
//! * By tag and of everything: a later call waits for the load that is under way. If its answer was invalidated, the call waits for
//!   the next load of the key. Thus a key has one load at a time, and keys without the tag notice nothing.
//!
//! Memory is constant whatever the number of tags; two tags that share one of 4096 slots invalidate together. Two caches over clones
//! of one store do not know each other's loads: each of them has to be invalidated.
//!
//! # Stores
//!
//! [`MemoryStore`] by default, or any [`Store`]. One that fails, panics or takes longer than
//! [`store_timeout`](CacheConfig::store_timeout) (50 ms) never fails a call: the call goes on without it. After
//! [`store_failures`](CacheConfig::store_failures) (5) in a row it is not asked for 1 s, doubled up to 30 s, and then tried with one
//! operation; reads and writes are judged apart. No call waits for a write, and at most 1024 writes run at once: further ones are left out and counted as bypassed.
//!
//! # Telemetry
//!
//! | metric | label |
//! |---|---|
//! | `mainstay_cache_calls_total` | `result`: `hit`, `negative_hit`, `stale`, `miss`, `coalesced`, `uncached`, `refused`, `abandoned` |
//! | `mainstay_cache_stale_total` | `reason`: `revalidating`, `load_failed`, `cooling_down`, `load_slow`, `limited` |
//! | `mainstay_cache_loads_total` | `outcome`: `stored`, `not_stored`, `failed`, `abandoned` |
//! | `mainstay_cache_refreshes_total` | `outcome`: `success`, `failure` |
//! | `mainstay_cache_errors_total` | `reason`: `failed`, `timeout`, `bypassed`, `panicked` |
//! | `mainstay_cache_loads_in_flight` | |
//! | `mainstay_cache_load_duration_seconds` | |
//!
//! Events: a load failed, a call found no room for its load, the store failed.
//!
//! # Cost
//!
//! A hit in memory costs the store's lookup, one clock read, a counter and the clone of the response: no allocation of ours, no lock,
//! no timer, no task. Responses that are costly to clone are best kept behind an `Arc`. A miss costs two allocations and a task.
//!
//! # Requirements
//!
//! The inner service is `Clone + Send + 'static`, since loads outlive their callers; the response is `Clone`; the error can carry a
//! refusal ([`Rejectable`](crate::Rejectable)) and shows itself (`Display`), so that its words can be shared.

mod builder;
mod config;
mod cooldown;
mod core;
mod entry;
mod future;
mod gate;
mod handle;
mod key;
mod layer;
mod limit;
mod load;
mod make_store;
mod miss;
mod policy;
mod served;
mod service;
mod single_flight;
pub mod store;
mod versions;

pub use builder::{CacheBuilder, NoKey};
pub use config::CacheConfig;
pub use entry::Entry;
pub use future::ResponseFuture;
pub use handle::{CacheHandle, CacheStatistics};
pub use key::{CacheKey, key_fn};
pub use layer::CacheLayer;
pub use make_store::{Custom, InMemory, MakeStore, Weighted};
pub use served::{Served, StaleReason};
pub use service::Cache;
#[doc(inline)]
pub use store::{Lookup, MemoryStore, Store, StoreError};
pub use versions::Tags;
