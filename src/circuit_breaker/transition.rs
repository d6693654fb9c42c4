//! [`Transition`]: a change of state, and what there is to be known of it.

use std::time::Duration;

use crate::circuit_state::CircuitState;
use crate::cores::sliding_window::WindowCounts;
use crate::outcome::Outcome;

/// A change of state.
///
/// # Examples
///
/// ```
/// use mainstay::circuit_breaker::{CircuitBreakerHandle, TransitionReason};
///
/// # fn main() -> Result<(), mainstay::InvalidConfig> {
/// let breaker = CircuitBreakerHandle::builder("db")
///     .on_transition(|change| {
///         assert_eq!(change.reason, TransitionReason::Operator);
///         println!("from {} to {}", change.from, change.to);
///     })
///     .build_handle()?;
/// breaker.force_open();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Transition {
    /// The state before.
    pub from: CircuitState,
    /// The state now.
    pub to: CircuitState,
    /// Why it changed.
    pub reason: TransitionReason,
    /// The calls that the change was decided on: those of the window, or the probes. For
    /// [`Unanswered`](TransitionReason::Unanswered) those that were cut or abandoned.
    pub calls: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// Those of them that were slow.
    pub slow_calls: u64,
    /// Failures in a row, when the state before ended.
    pub consecutive_failures: u32,
    /// Failures within the period of [`failures_per_period`](super::CircuitBreakerConfig::failures_per_period)
    /// when the state before ended; zero without that setting.
    pub period_failures: u64,
    /// How long the circuit will stay open, when it is open now.
    pub open_for: Option<Duration>,
    /// The outcome of the call that caused the change, if one did.
    pub cause: Option<Outcome>,
    /// The calls that the deadlines of their callers cut, of those that made the circuit open as
    /// [`Unanswered`](TransitionReason::Unanswered); zero for every other reason. Above zero it points at timeouts that are nested
    /// wrongly: the timeout of an attempt must be shorter than the deadline of its call, or the breaker never sees a
    /// timeout as a failure.
    pub cut_by_deadline: u64,
    /// The generation of the new state: of two transitions the later one has the higher.
    pub(super) generation: u64,
    /// An observing breaker would have opened, and did not.
    pub(super) is_observed: bool,
}

/// Why a breaker changed its state.
///
/// # Examples
///
/// ```
/// use mainstay::circuit_breaker::TransitionReason;
///
/// assert_eq!(TransitionReason::FailureRate.as_str(), "failure_rate");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransitionReason {
    /// The share of failed calls in the window reached its limit.
    FailureRate,
    /// The share of slow calls in the window reached its limit.
    SlowCallRate,
    /// The failures in a row reached their limit.
    ConsecutiveFailures,
    /// The failures within a period reached their limit.
    FailuresPerPeriod,
    /// The calls of the window, at least [`minimum_calls`](super::CircuitBreakerConfig::minimum_calls) of them, were cut by
    /// the deadlines of their callers or abandoned, and not one was answered.
    Unanswered,
    /// A [`Trip`](super::Trip) of one's own asked for it.
    CustomTrip,
    /// The callee asked to be left alone for a time, and
    /// [`throttled_opens`](super::CircuitBreakerConfig::throttled_opens) is set.
    Throttled,
    /// The open time is over.
    OpenTimeOver,
    /// A health check of the callee passed while the circuit was open.
    HealthCheckPassed,
    /// The probes had not decided anything within [`half_open_max`](super::CircuitBreakerConfig::half_open_max), and one was out
    /// or had shown something bad.
    HalfOpenTimeOver,
    /// The probes showed that the callee is not well.
    ProbesFailed,
    /// The probes showed that the callee is well.
    ProbesSucceeded,
    /// The last step of the [`ramp`](super::CircuitBreakerConfig::ramp) is over.
    RampOver,
    /// Somebody asked for it through the handle.
    Operator,
}

/// A change of state that makes no sense.
///
/// Half-open is reached from open and forced open only: a half-open circuit tests whether the callee has recovered. Open is
/// not reached from disabled and observing: such a breaker does not open until it has been closed first (it can be forced
/// open).
///
/// # Examples
///
/// ```
/// use mainstay::CircuitState;
/// use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerHandle};
///
/// # fn main() -> Result<(), mainstay::InvalidConfig> {
/// let breaker = CircuitBreakerHandle::new("db", CircuitBreakerConfig::default())?;
/// let error = breaker.transition_to(CircuitState::HalfOpen).unwrap_err();
/// assert_eq!(error.to_string(), "a circuit cannot go from closed to half-open");
/// assert_eq!(breaker.state(), CircuitState::Closed);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a circuit cannot go from {from} to {to}")]
#[non_exhaustive]
pub struct IllegalTransition {
    /// The state it is in, and stays in.
    pub from: CircuitState,
    /// The state that was asked for.
    pub to: CircuitState,
}
// === impl Transition ===

impl Transition {
    /// The share of the calls that failed; `0.0` when there were none.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitBreakerHandle;
    ///
    /// let breaker =
    ///     CircuitBreakerHandle::builder("db").on_transition(|change| assert_eq!(change.failure_rate(), 0.0)).build_handle()?;
    /// breaker.force_open();
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn failure_rate(&self) -> f64 {
        self.counts().failure_rate()
    }

    /// The share of the calls that were slow; `0.0` when there were none.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::CircuitBreakerHandle;
    ///
    /// let breaker =
    ///     CircuitBreakerHandle::builder("db").on_transition(|change| assert_eq!(change.slow_call_rate(), 0.0)).build_handle()?;
    /// breaker.force_open();
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn slow_call_rate(&self) -> f64 {
        self.counts().slow_rate()
    }

    fn counts(&self) -> WindowCounts {
        WindowCounts { calls: self.calls, failures: self.failures, slow: self.slow_calls }
    }
}

// === impl TransitionReason ===

impl TransitionReason {
    /// The reason as a fixed word: `failure_rate`, `slow_call_rate`, `consecutive_failures`, `failures_per_period`,
    /// `unanswered`, `custom_trip`, `throttled`, `open_time_over`, `health_check_passed`, `half_open_time_over`, `probes_failed`,
    /// `probes_succeeded`, `ramp_over` or `operator`.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::circuit_breaker::TransitionReason::OpenTimeOver.as_str(), "open_time_over");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FailureRate => "failure_rate",
            Self::SlowCallRate => "slow_call_rate",
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::FailuresPerPeriod => "failures_per_period",
            Self::Unanswered => "unanswered",
            Self::CustomTrip => "custom_trip",
            Self::Throttled => "throttled",
            Self::OpenTimeOver => "open_time_over",
            Self::HealthCheckPassed => "health_check_passed",
            Self::HalfOpenTimeOver => "half_open_time_over",
            Self::ProbesFailed => "probes_failed",
            Self::ProbesSucceeded => "probes_succeeded",
            Self::RampOver => "ramp_over",
            Self::Operator => "operator",
        }
    }
}
