//! [`Event`]: the rare things that happen, typed; a file a family.

mod balance;
mod cache;
mod circuit_breaker;
mod health;
mod retry;
mod timeout;

use std::fmt;

pub use balance::{BalanceEvent, BalanceEventKind};
pub use cache::{CacheEvent, CacheEventKind};
pub use circuit_breaker::{CircuitBreakerEvent, CircuitBreakerEventKind};
pub use health::{HealthEvent, HealthEventKind};
pub use retry::{RetryEvent, RetryEventKind};
pub use timeout::{TimeoutEvent, TimeoutEventKind};

use crate::name::Name;

/// Something that happened in a layer.
///
/// Events borrow what they tell of. `Display` gives one line for a log; [`name`](Self::name), [`family`](Self::family) and
/// [`kind`](Self::kind) say where it comes from.
///
/// # Examples
///
/// ```
/// use mainstay::telemetry::Event;
///
/// fn log(event: &Event<'_>) {
///     println!("{} {} {}: {event}", event.family(), event.name(), event.kind());
/// }
/// # let _ = log;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// From a circuit breaker.
    CircuitBreaker(CircuitBreakerEvent<'a>),
    /// From a retry.
    Retry(RetryEvent<'a>),
    /// From a timeout.
    Timeout(TimeoutEvent<'a>),
    /// From a balanced pool.
    Balance(BalanceEvent<'a>),
    /// From a health monitor.
    Health(HealthEvent<'a>),
    /// From a cache.
    Cache(CacheEvent<'a>),
}

// === impl Event ===

impl Event<'_> {
    /// The name of the layer that it comes from.
    ///
    /// # Examples
    ///
    /// ```
    /// fn layer<'a>(event: &'a mainstay::telemetry::Event<'_>) -> &'a str {
    ///     event.name()
    /// }
    /// # let _ = layer;
    /// ```
    #[must_use]
    pub const fn name(&self) -> &Name {
        match self {
            Self::CircuitBreaker(event) => event.name,
            Self::Retry(event) => event.name,
            Self::Timeout(event) => event.name,
            Self::Balance(event) => event.name,
            Self::Health(event) => event.name,
            Self::Cache(event) => event.name,
        }
    }

    /// The family that it comes from: `circuit_breaker`, `retry`, `timeout`, `balance`, `health` or `cache`.
    ///
    /// # Examples
    ///
    /// ```
    /// fn is_about_health(event: &mainstay::telemetry::Event<'_>) -> bool {
    ///     event.family() == "health"
    /// }
    /// # let _ = is_about_health;
    /// ```
    #[must_use]
    pub const fn family(&self) -> &'static str {
        match self {
            Self::CircuitBreaker(_) => "circuit_breaker",
            Self::Retry(_) => "retry",
            Self::Timeout(_) => "timeout",
            Self::Balance(_) => "balance",
            Self::Health(_) => "health",
            Self::Cache(_) => "cache",
        }
    }

    /// What kind of event it is, within its family; a fixed word.
    ///
    /// # Examples
    ///
    /// ```
    /// fn word(event: &mainstay::telemetry::Event<'_>) -> &'static str {
    ///     event.kind()
    /// }
    /// # let _ = word;
    /// ```
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::CircuitBreaker(event) => event.kind.as_str(),
            Self::Retry(event) => event.kind.as_str(),
            Self::Timeout(event) => event.kind.as_str(),
            Self::Balance(event) => event.kind.as_str(),
            Self::Health(event) => event.kind.as_str(),
            Self::Cache(event) => event.kind.as_str(),
        }
    }

    /// Whether an operator should look: something got worse, as opposed to better or merely different.
    ///
    /// # Examples
    ///
    /// ```
    /// fn page(event: &mainstay::telemetry::Event<'_>) {
    ///     if event.is_warning() {
    ///         eprintln!("look: {event}");
    ///     }
    /// }
    /// # let _ = page;
    /// ```
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        match self {
            Self::CircuitBreaker(event) => event.kind.is_warning(),
            Self::Retry(event) => event.kind.is_warning(),
            Self::Timeout(event) => event.kind.is_warning(),
            Self::Balance(event) => event.kind.is_warning(),
            Self::Health(event) => event.kind.is_warning(),
            Self::Cache(event) => event.kind.is_warning(),
        }
    }
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CircuitBreaker(event) => write!(f, "circuit `{}` {}", event.name, event.kind),
            Self::Retry(event) => write!(f, "retry `{}` {}", event.name, event.kind),
            Self::Timeout(event) => write!(f, "timeout `{}` {}", event.name, event.kind),
            Self::Balance(event) => write!(f, "pool `{}` {}", event.name, event.kind),
            Self::Health(event) => write!(f, "health `{}` {}", event.name, event.kind),
            Self::Cache(event) => write!(f, "cache `{}` {}", event.name, event.kind),
        }
    }
}
