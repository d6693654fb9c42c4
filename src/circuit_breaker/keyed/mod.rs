//! A breaker for each key, within bounds.
//!
//! **Why.** One breaker over a service with many parts (shards, tenants, hosts behind a proxy) refuses the healthy parts
//! together with the sick one. A breaker each needs a key to tell them apart, and since keys come with requests, a bound.
//!
//! **When not.** For the endpoints of a pool, which keeps their breakers itself. For a few parts that are known beforehand:
//! a layer each is simpler, and can be set differently.
//!
//! Each call belongs to the breaker of its key; a call without one, to the one *shared* breaker.
//!
//! # Bounds
//!
//! At most [`max_keys`](KeyedCircuitBreakerConfig::max_keys) keys have a breaker. When a new key comes, a few of the others are
//! looked at: those that were **idle** for [`idle_after`](KeyedCircuitBreakerConfig::idle_after) are evicted. A breaker is idle
//! while no call asks for it, no call or probe of it is running, and no handle or subscription of it is held. An open breaker
//! is idle from the end of its open time on, so that the breakers of hosts that are gone do not fill the table. A breaker
//! that an operator has forced into a state is never evicted. The evidence in a closed one is older than `idle_after` when it
//! goes.
//!
//! A key beyond that is served by the shared breaker, until there is room: `overflowed` counts its calls, and an event says
//! so once. [`remove`](KeyedCircuitBreakerHandle::remove) takes out the breaker of a key that comes no more at once. With
//! the default window, a breaker takes about 2 KiB.
//!
//! All settings can change at run time ([`reconfigure`](KeyedCircuitBreakerHandle::reconfigure)), without losing what the
//! breakers have learned.
//!
//! # Cost
//!
//! Over a single breaker, a known key costs its function, its hash, a read lock on one of 16 tables and two reference counts. No
//! allocation (give a borrowed key by [`keyed_ref`](super::CircuitBreakerBuilder::keyed_ref)) and no clock. The counts of one key
//! are plain atomics. A new key costs its breaker and a look at two others, or at eight when there is no room.
//!
//! # Readiness
//!
//! The key is not known before `call`: `poll_ready` is the inner service's, and calls do not wait for a circuit. A handle that is refused
//! keeps what its inner service has reserved for it until its next call, or its end.
//!
//! # Telemetry
//!
//! As of one breaker of the layer's name, for all keys together: keys are never labels. There are no gauges of the state:
//! a state of one key among many is found through [`breakers`](KeyedCircuitBreakerHandle::breakers). Beside those, `mainstay_circuit_breaker_keys` (`name`) and
//! `mainstay_circuit_breaker_key_events_total` (`name`, `event`: `created`, `evicted`, `removed`, `overflowed`). Which key's
//! breaker changed is told to [`on_transition`](KeyedCircuitBreakerBuilder::on_transition).

mod builder;
mod config;
mod handle;
mod key;
mod layer;
mod registry;
mod ring;
mod service;
mod shard;
mod statistics;

pub use builder::KeyedCircuitBreakerBuilder;
pub use config::KeyedCircuitBreakerConfig;
pub use handle::KeyedCircuitBreakerHandle;
pub use key::{BorrowedKey, BreakerKey, KeyOf, OwnedKey};
pub use layer::KeyedCircuitBreakerLayer;
pub use service::KeyedCircuitBreaker;
pub use statistics::KeyedCircuitBreakerStatistics;
