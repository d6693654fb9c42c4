//! Circuit breaking: stops calling what is known to fail, and finds out when it has recovered.

mod breaker;
mod config;
mod future;
mod handle;
mod layer;
mod permit;
mod probes;
mod service;
mod shared;
mod state;
mod statistics;

pub use config::{CircuitBreakerConfig, OpenTime, ProbeRule, SlowCalls, Window};
pub use future::ResponseFuture;
pub use handle::CircuitBreakerHandle;
pub use layer::{CircuitBreakerBuilder, CircuitBreakerLayer};
pub use permit::Permit;
pub use service::CircuitBreaker;
pub use shared::Admits;
pub use state::{IllegalTransition, Transition, TransitionReason};
pub use statistics::CircuitBreakerStatistics;
