//! [`CircuitBreakerStatistics`]: what a breaker has counted, and what it sees now.

use std::time::Duration;

use super::breaker::{Breaker, now};
use super::shared::Admits;
use crate::circuit_state::CircuitState;

/// A breaker's counts since it was built, and what it judges by at the moment.
///
/// Each call is in exactly one of the six counts, once it is over:
/// [`calls`](Self::calls) = successes + refused + failures + ignored + rejected + abandoned. Calls that a disabled breaker
/// admitted are in none.
///
/// # Examples
///
/// ```
/// use mainstay::Outcome;
/// use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerHandle};
///
/// # fn main() -> Result<(), mainstay::InvalidConfig> {
/// let breaker = CircuitBreakerHandle::new("db", CircuitBreakerConfig::default())?;
/// breaker.try_acquire().unwrap().record(Outcome::Success);
/// breaker.try_acquire().unwrap().record(Outcome::Transient);
/// let statistics = breaker.statistics();
/// assert_eq!((statistics.calls(), statistics.successes, statistics.failures), (2, 1, 1));
/// assert_eq!(statistics.window_calls, 2);
/// assert_eq!(statistics.failure_rate, None, "fewer calls than the minimum");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct CircuitBreakerStatistics {
    /// The state.
    pub state: CircuitState,
    /// Calls that succeeded.
    pub successes: u64,
    /// Calls that the callee answered, healthy as it is, with a no: `Refused` and `DependencyFailed`.
    pub refused: u64,
    /// Calls that failed; panics are among them.
    pub failures: u64,
    /// Calls that ended and say nothing about the callee. Calls to a service that was not ready are among them, where the
    /// circuit was closed.
    pub ignored: u64,
    /// Calls that the breaker refused.
    pub rejected: u64,
    /// Calls that were dropped before their end.
    pub abandoned: u64,
    /// How often the breaker would have opened while it was [observing](CircuitState::Observing).
    pub would_have_opened: u64,
    /// Calls that the breaker admitted while it was observing, and would have rejected otherwise. They are in one of the other
    /// counts, too, by how they ended.
    pub would_have_rejected: u64,
    /// Calls that wait for the circuit at the moment, in [`AdmissionMode::Wait`](super::AdmissionMode::Wait).
    pub waiting: usize,
    /// Waits that ended with an admission.
    pub waited: u64,
    /// Waits that ended because the longest wait, or the caller's deadline, was over.
    pub waits_timed_out: u64,
    /// Calls that were to wait and found the queue full.
    pub queue_full: u64,
    /// The calls judged by at the moment: those of the window, the probes of a half-open circuit, or what opened it.
    pub window_calls: u64,
    /// Those of them that failed.
    pub window_failures: u64,
    /// Those of them that were slow.
    pub window_slow_calls: u64,
    /// The share of failures among them; `None` below the minimum number of calls.
    pub failure_rate: Option<f64>,
    /// The share of slow calls among them; `None` below the minimum number of calls.
    pub slow_call_rate: Option<f64>,
    /// Calls that were cut by the deadlines of their callers or abandoned, within the window and since the last answer; zero
    /// while an answer is in the window. [`minimum_calls`](super::CircuitBreakerConfig::minimum_calls) of them open the circuit.
    pub window_unanswered: u64,
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// Failures within the period of [`failures_per_period`](super::CircuitBreakerConfig::failures_per_period); zero without
    /// that setting.
    pub period_failures: u64,
    /// Openings since the circuit was last closed.
    pub consecutive_opens: u32,
    /// Probes of this half-open time that are out.
    pub probes_in_flight: usize,
    /// The share of calls that the [`ramp`](super::CircuitBreakerConfig::ramp) admits at the moment, above 0.0 and at most
    /// 1.0: it is over then, and the next call closes the circuit. `None` when the circuit is on no ramp.
    pub ramp_share: Option<f64>,
    /// How long an open circuit goes on rejecting calls; `None` in every other state, and when no end is known.
    pub retry_after: Option<Duration>,
}

// === impl CircuitBreakerStatistics ===

impl CircuitBreakerStatistics {
    pub(super) fn of(breaker: &Breaker) -> Self {
        let now = now();
        let [successes, refused, failures, ignored, rejected, abandoned] = breaker.ends();
        let [would_have_opened, would_have_rejected] = breaker.would_have();
        let retry_after = match breaker.shared.admits(|| now) {
            Admits::Nothing { retry_after } => retry_after,
            Admits::Call | Admits::Probe => None,
        };
        let [waited, waits_timed_out, _, _, queue_full] = breaker.wait_ends();
        let waiting = breaker.shared.waiting();
        breaker.shared.with_machine(now, |machine| {
            let counts = machine.counts(now);
            let enough = counts.calls >= u64::from(machine.minimum_calls());
            Self {
                state: machine.state(),
                successes,
                refused,
                failures,
                ignored,
                rejected,
                abandoned,
                would_have_opened,
                would_have_rejected,
                waiting,
                waited,
                waits_timed_out,
                queue_full,
                window_calls: counts.calls,
                window_failures: counts.failures,
                window_slow_calls: counts.slow,
                failure_rate: enough.then(|| counts.failure_rate()),
                slow_call_rate: enough.then(|| counts.slow_rate()),
                window_unanswered: machine.unanswered(now).calls.into(),
                consecutive_failures: machine.consecutive_failures(),
                period_failures: machine.period_failures(now),
                consecutive_opens: machine.opens(),
                probes_in_flight: machine.probes_in_flight(),
                ramp_share: machine.ramp_share(now),
                retry_after,
            }
        })
    }

    /// Calls that have ended.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerHandle};
    ///
    /// # fn main() -> Result<(), mainstay::InvalidConfig> {
    /// let breaker = CircuitBreakerHandle::new("db", CircuitBreakerConfig::default())?;
    /// breaker.force_open();
    /// let _ = breaker.try_acquire();
    /// assert_eq!(breaker.statistics().calls(), 1);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn calls(&self) -> u64 {
        self.successes + self.refused + self.failures + self.ignored + self.rejected + self.abandoned
    }
}
