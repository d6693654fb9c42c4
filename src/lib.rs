//! mainstay
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
#[cfg(feature = "health")]
pub mod health;
mod health_status;
#[cfg(feature = "http")]
pub mod http;
mod macros;
mod name;
pub mod outcome;
#[cfg(feature = "retry")]
pub mod retry;
pub mod telemetry;
#[cfg(feature = "timeout")]
pub mod timeout;
#[cfg(any(feature = "retry", feature = "timeout"))]
mod timer;

#[cfg(feature = "balance")]
pub use balance::{Pool, PoolConfig, PoolHandle, PoolStatistics};
#[cfg(feature = "cache")]
pub use cache::{Cache, CacheConfig, CacheHandle, CacheLayer, CacheStatistics};
#[cfg(feature = "circuit-breaker")]
pub use circuit_breaker::{
    CircuitBreaker, CircuitBreakerConfig, CircuitBreakerHandle, CircuitBreakerLayer, CircuitBreakerStatistics,
};
pub use circuit_state::CircuitState;
pub use error::{
    BoxError, CircuitOpen, Error, InvalidConfig, Lift, LiftLayer, LoadFailed, NoEndpoint, NoEndpointReason, Rejectable,
    Rejected,
};
#[cfg(feature = "health")]
pub use health::{HealthReport, Monitor};
pub use health_status::HealthStatus;
#[cfg(feature = "http")]
pub use http::HttpClassifier;
pub use name::Name;
pub use outcome::{Classify, DefaultClassifier, Health, Outcome, RetryHint, classify_fn, judge};
#[cfg(feature = "retry")]
pub use retry::{Retry, RetryLayer};
#[cfg(feature = "timeout")]
pub use timeout::{Timeout, TimeoutLayer};
