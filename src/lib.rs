//! Layers for `tower` that keep a service up, fast and honest while what it calls is slow, failing, overloaded, moving or gone.
//!
//! Every layer wraps any `Service`, keeps its error type, and has a name, a handle to read and control it at run time, and a
//! refusal ([`Rejected`]) that says who refused and why.
//!
//! ```
//! use std::time::Duration;
//! use mainstay::{BoxError, Rejectable, TimeoutLayer};
//! use tower::{ServiceBuilder, service_fn};
//!
//! # #[cfg(feature = "timeout")]
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), BoxError> {
//! let service = ServiceBuilder::new()
//!     .layer(TimeoutLayer::total("users", Duration::from_millis(250))?)
//!     .service(service_fn(|_: &str| std::future::pending::<Result<u32, BoxError>>()));
//!
//! let error = service.oneshot("alice").await.unwrap_err();
//! assert!(error.as_rejected().is_some(), "it was cut off: {error}");
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "timeout"))] fn main() {}
//! ```
//!
//! # Families
//!
//! | feature | module | layer or service | what it does |
//! |---|---|---|---|
//! | `circuit-breaker` | `circuit_breaker` | `CircuitBreakerLayer` | stops calling what keeps failing, and probes whether it is back |
//! | `retry` | `retry` | `RetryLayer` | tries again, with backoff and on a budget |
//! | `timeout` | `timeout` | `TimeoutLayer` | bounds an attempt, or a whole call and all within it |
//! | `balance` | `balance` | `Pool` | spreads calls over endpoints that come, go, slow down and fail |
//! | `health` | `health` | `Monitor`, `HealthReport` | checks targets actively, and answers for the application itself |
//! | `cache` | `cache` | `CacheLayer` | answers from a store, loads once for many, serves stale answers while it has to |
//!
//! Without any feature there are [`error`], [`outcome`], [`context`], [`backoff`], [`budget`] and [`telemetry`], on which the
//! families stand.
//!
//! # Features
//!
//! Every family is on by default, and so is `metrics`; `full` is all of them.
//!
//! | feature | default | brings |
//! |---|---|---|
//! | a family's | yes | its module; `balance` brings `circuit-breaker` along |
//! | `http` | no | classifiers, headers for the context, `Retry-After`, bodies that end in time, health pages |
//! | `grpc` | no | classifier by `grpc-status`, retry pushback; brings `http` along |
//! | `metrics` | yes | counters, gauges and histograms through the `metrics` facade |
//! | `tracing` | no | events and a span for each call |
//! | `serde` | no | settings from files: durations as `"250ms"`, unknown keys are errors |
//!
//! # Order of layers
//!
//! Outside in:
//!
//! ```text
//! telemetry > total timeout > cache > retry > pool [ per endpoint: breaker > attempt timeout > client ]
//! ```
//!
//! * The total timeout bounds all attempts and the waits between them, and sets the deadline that the layers within respect.
//! * The cache is outside of the retry: a hit costs no attempt.
//! * The retry is outside of the pool, so that another attempt can go to another endpoint.
//! * An endpoint's breaker is a setting of the pool, which never picks what the breaker would refuse.
//! * The attempt timeout is inside of the breaker, which must see it as a failure.
//! * [`LiftLayer`] comes innermost, once, where the client's error cannot carry a refusal.
//!
//! # Other crates' types in this API
//!
//! Their major versions are part of ours: `Service` and `Layer` (`tower-service` 0.3, `tower-layer` 0.3); `Change` and `Discover`
//! (`tower` 0.5, with `balance`); `tokio::time::Instant` for deadlines (`tokio` 1); header maps, methods, statuses, requests and
//! responses (`http` 1, with `http`); bodies and their frames (`http-body` 1, with `http`); `Serialize` and `Deserialize` (`serde` 1, with `serde`). `metrics`, `moka`, `tracing` and the
//! other dependencies are not visible.

#![forbid(unsafe_code)]

pub mod backoff;
#[cfg(feature = "balance")]
pub mod balance;
pub mod budget;
#[cfg(feature = "cache")]
pub mod cache;
#[cfg(feature = "circuit-breaker")]
pub mod circuit_breaker;
mod circuit_state;
pub mod context;
mod cores;
pub mod error;
#[cfg(feature = "grpc")]
pub mod grpc;
#[cfg(feature = "health")]
pub mod health;
mod health_status;
#[cfg(feature = "http")]
pub mod http;
mod macros;
mod name;
mod oneshot;
pub mod outcome;
#[cfg(feature = "retry")]
pub mod retry;
pub mod telemetry;
#[cfg(feature = "timeout")]
pub mod timeout;
#[cfg(any(feature = "retry", feature = "timeout", feature = "http"))]
mod timer;

#[cfg(feature = "balance")]
pub use balance::{Pool, PoolConfig, PoolHandle, PoolStatistics};
#[cfg(feature = "cache")]
pub use cache::{Cache, CacheConfig, CacheHandle, CacheLayer, CacheStatistics};
#[cfg(feature = "circuit-breaker")]
pub use circuit_breaker::{
    CircuitBreaker, CircuitBreakerConfig, CircuitBreakerHandle, CircuitBreakerLayer, CircuitBreakerStatistics,
    KeyedCircuitBreaker, KeyedCircuitBreakerConfig, KeyedCircuitBreakerHandle, KeyedCircuitBreakerLayer,
    KeyedCircuitBreakerStatistics,
};
pub use circuit_state::CircuitState;
pub use error::{
    BoxError, CircuitOpen, Error, InvalidConfig, Lift, LiftLayer, LoadFailed, NoEndpoint, NoEndpointReason, Rejectable,
    Rejected, RequestBodyFailed,
};
#[cfg(feature = "grpc")]
pub use grpc::GrpcClassifier;
#[cfg(feature = "health")]
pub use health::{HealthReport, Monitor, MonitorConfig, MonitorStatistics};
pub use health_status::HealthStatus;
#[cfg(feature = "http")]
pub use http::HttpClassifier;
pub use name::Name;
pub use oneshot::{Oneshot, Ready};
pub use outcome::{Classify, DefaultClassifier, Health, Outcome, RetryHint, classify_fn, judge};
#[cfg(feature = "retry")]
pub use retry::{Retry, RetryConfig, RetryHandle, RetryLayer, RetryStatistics};
#[cfg(feature = "timeout")]
pub use timeout::{Timeout, TimeoutConfig, TimeoutHandle, TimeoutLayer, TimeoutStatistics};

/// The README's example is compiled and run with the others.
#[cfg(all(doctest, feature = "circuit-breaker", feature = "retry", feature = "timeout", feature = "http"))]
#[doc = include_str!("../README.md")]
struct Readme;
