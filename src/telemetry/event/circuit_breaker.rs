//! Events of the family `circuit_breaker`.

use std::fmt;

use crate::circuit_state::CircuitState;
use crate::name::Name;

/// Something that happened in a circuit breaker.
///
/// # Examples
///
/// ```
/// use mainstay::telemetry::event::CircuitBreakerEvent;
///
/// fn log(event: &CircuitBreakerEvent<'_>) {
///     println!("{}: {}", event.name, event.kind);
/// }
/// # let _ = log;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CircuitBreakerEvent<'a> {
    /// The name it was given.
    pub name: &'a Name,
    /// What happened.
    pub kind: CircuitBreakerEventKind<'a>,
}

/// What happened in a circuit breaker.
///
/// # Examples
///
/// ```
/// fn word(kind: &mainstay::telemetry::event::CircuitBreakerEventKind<'_>) -> &'static str {
///     kind.as_str()
/// }
/// # let _ = word;
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum CircuitBreakerEventKind<'a> {
    /// The state changed.
    StateChanged {
        /// The state before.
        from: CircuitState,
        /// The state now.
        to: CircuitState,
        /// Why, in words.
        reason: &'a str,
    },
}

impl CircuitBreakerEventKind<'_> {
    /// The kind as a fixed word: `state_changed`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::StateChanged { .. } => "state_changed",
        }
    }

    /// Whether something got worse.
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        match self {
            Self::StateChanged { to, .. } => matches!(to, CircuitState::Open | CircuitState::ForcedOpen),
        }
    }
}

impl fmt::Display for CircuitBreakerEventKind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StateChanged { from, to, reason } => write!(f, "went from {from} to {to}: {reason}"),
        }
    }
}
