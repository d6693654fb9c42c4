//! Events of the family `circuit_breaker`.

use std::fmt;
use std::time::Duration;

use crate::circuit_state::CircuitState;
use crate::name::Name;
use crate::outcome::Outcome;

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
        /// Why, as a fixed word: `failure_rate`, `slow_call_rate`, `consecutive_failures`, `failures_per_period`,
        /// `unanswered`, `custom_trip`, `throttled`, `open_time_over`, `health_check_passed`, `half_open_time_over`, `probes_failed`,
        /// `probes_succeeded`, `ramp_over` or `operator`.
        reason: &'a str,
        /// The calls that the change was decided on: those of the window, or the probes; for `unanswered` those that were
        /// cut by a deadline or abandoned.
        calls: u64,
        /// Those of them that failed.
        failures: u64,
        /// Those of them that were slow.
        slow_calls: u64,
        /// Failures in a row, when the state before ended.
        consecutive_failures: u32,
        /// Failures within the period of `failures_per_period`, when the state before ended; zero without that setting.
        period_failures: u64,
        /// How long the circuit will stay open, when it is open now.
        open_for: Option<Duration>,
        /// The outcome of the call that caused the change, if one did.
        cause: Option<Outcome>,
    },
    /// A breaker that observes would have opened now. The calls that it would have rejected from here on are counted, without an
    /// event for each.
    WouldOpen {
        /// Why, as a fixed word, as for a change of the state.
        reason: &'a str,
        /// The calls that it was decided on.
        calls: u64,
        /// Those of them that failed.
        failures: u64,
        /// Those of them that were slow.
        slow_calls: u64,
        /// How long the circuit would stay open.
        open_for: Option<Duration>,
        /// The outcome of the call that would have opened it, if one did.
        cause: Option<Outcome>,
    },
    /// Follows an opening for `unanswered`: the deadlines of the callers cut calls before an attempt timeout ended them. Such a
    /// call is no failure of the callee, so a breaker learns little from it; the timeout of an attempt must be shorter than
    /// the deadline of its call.
    DeadlineBeforeTimeout {
        /// The calls without an answer that opened the circuit.
        calls: u64,
        /// Those of them that a deadline cut; the others were abandoned.
        cut: u64,
    },
    /// A keyed breaker has no room for another key, and no idle one to evict: further keys share one breaker. Told once,
    /// until there was room again.
    KeysExhausted {
        /// The keys that it has.
        keys: usize,
    },
}

impl CircuitBreakerEventKind<'_> {
    /// The kind as a fixed word: `state_changed`, `would_open`, `deadline_before_timeout` or `keys_exhausted`.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitState;
    /// use mainstay::telemetry::event::CircuitBreakerEventKind;
    ///
    /// let kind = CircuitBreakerEventKind::StateChanged {
    ///     from: CircuitState::HalfOpen,
    ///     to: CircuitState::Closed,
    ///     reason: "probes_succeeded",
    ///     calls: 3,
    ///     failures: 0,
    ///     slow_calls: 0,
    ///     consecutive_failures: 0,
    ///     period_failures: 0,
    ///     open_for: None,
    ///     cause: None,
    /// };
    /// assert_eq!(kind.as_str(), "state_changed");
    /// ```
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::StateChanged { .. } => "state_changed",
            Self::WouldOpen { .. } => "would_open",
            Self::DeadlineBeforeTimeout { .. } => "deadline_before_timeout",
            Self::KeysExhausted { .. } => "keys_exhausted",
        }
    }

    /// Whether something got worse.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitState;
    /// use mainstay::telemetry::event::CircuitBreakerEventKind;
    ///
    /// let kind = CircuitBreakerEventKind::StateChanged {
    ///     from: CircuitState::HalfOpen,
    ///     to: CircuitState::Closed,
    ///     reason: "probes_succeeded",
    ///     calls: 3,
    ///     failures: 0,
    ///     slow_calls: 0,
    ///     consecutive_failures: 0,
    ///     period_failures: 0,
    ///     open_for: None,
    ///     cause: None,
    /// };
    /// assert!(!kind.is_warning());
    /// ```
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        match self {
            Self::StateChanged { to, .. } => matches!(to, CircuitState::Open | CircuitState::ForcedOpen),
            Self::WouldOpen { .. } | Self::DeadlineBeforeTimeout { .. } | Self::KeysExhausted { .. } => true,
        }
    }
}

impl fmt::Display for CircuitBreakerEventKind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StateChanged { from, to, reason, calls, failures, slow_calls, period_failures, open_for, .. } => {
                write!(f, "went from {from} to {to}: {reason}, ")?;
                write_counts(f, reason, *calls, *failures, *slow_calls)?;
                if *period_failures > 0 {
                    write!(f, ", {period_failures} failed within the period")?;
                }
                match open_for {
                    Some(wait) => write!(f, ", the next probe is due in {wait:?}"),
                    None => Ok(()),
                }
            }
            Self::WouldOpen { reason, calls, failures, slow_calls, open_for, .. } => {
                write!(f, "is observing and would open: {reason}, ")?;
                write_counts(f, reason, *calls, *failures, *slow_calls)?;
                match open_for {
                    Some(wait) => write!(f, ", for {wait:?}"),
                    None => Ok(()),
                }
            }
            Self::DeadlineBeforeTimeout { calls, cut } => {
                write!(
                    f,
                    "{cut} of {calls} calls without an answer were cut by the deadline of the caller: make the attempt \
                     timeout shorter than the deadline"
                )
            }
            Self::KeysExhausted { keys } => {
                write!(f, "has no room beyond its {keys} keys: further ones share one breaker")
            }
        }
    }
}

fn write_counts(f: &mut fmt::Formatter<'_>, reason: &str, calls: u64, failures: u64, slow_calls: u64) -> fmt::Result {
    match reason {
        "unanswered" => write!(f, "none of {calls} calls was answered"),
        _ => write!(f, "{failures} failed and {slow_calls} slow of {calls} calls"),
    }
}
