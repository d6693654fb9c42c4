//! [`Trip`]: a rule of one's own for when a closed circuit opens.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::cores::sliding_window::WindowCounts;
use crate::outcome::Outcome;

/// Decides whether a closed circuit opens, beside the rules of the [configuration](super::CircuitBreakerConfig).
///
/// It is asked after a verdict in the closed state, or while the breaker observes, that no rule of the configuration has opened the circuit at. It is not
/// asked while the window holds neither a failure nor a slow call and no failure precedes (such a success takes no lock, and
/// nothing speaks for opening), about calls that are no evidence, or about probes.
///
/// It runs under the breaker's lock, one verdict at a time: be brief, keep no state but atomics, and don't ask the breaker
/// itself, which would wait for itself for ever. One that panics has not opened the circuit.
///
/// Closures are trips; name the types of their arguments.
///
/// # Examples
///
/// Opens at once when the callee says that it is broken for good, and when it is both slow and failing:
///
/// ```
/// use mainstay::circuit_breaker::{CircuitBreakerHandle, TripStatistics};
/// use mainstay::{CircuitState, Outcome};
///
/// # fn main() -> Result<(), mainstay::InvalidConfig> {
/// let breaker = CircuitBreakerHandle::builder("db")
///     .trip(|seen: &TripStatistics, verdict: Outcome| {
///         verdict == Outcome::Permanent || (seen.failure_rate() > 0.1 && seen.slow_call_rate() > 0.2)
///     })
///     .build_handle()?;
/// breaker.try_acquire().expect("a closed circuit admits").record(Outcome::Transient);
/// assert_eq!(breaker.state(), CircuitState::Closed);
/// breaker.try_acquire().expect("a closed circuit admits").record(Outcome::Permanent);
/// assert_eq!(breaker.state(), CircuitState::Open);
/// # Ok(())
/// # }
/// ```
pub trait Trip: Send + Sync + 'static {
    /// Whether the circuit opens, after `verdict` has been counted in `seen`. The verdict of a call that was abandoned when it
    /// was slow already is `Ignored`; that of one that panicked is `Permanent`.
    fn trips(&self, seen: &TripStatistics, verdict: Outcome) -> bool;
}

/// What a [`Trip`] decides on.
///
/// # Examples
///
/// ```
/// use mainstay::circuit_breaker::TripStatistics;
///
/// fn more_than_half(seen: &TripStatistics) -> bool {
///     seen.calls >= 10 && seen.failure_rate() > 0.5
/// }
/// # let _ = more_than_half;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TripStatistics {
    /// The calls in the [window](super::CircuitBreakerConfig::window). The minimum number of calls is not looked at.
    pub calls: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// Those of them that were slow, failed or not; zero without [`slow_calls`](super::CircuitBreakerConfig::slow_calls).
    pub slow_calls: u64,
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// Failures within the period of [`failures_per_period`](super::CircuitBreakerConfig::failures_per_period); zero without
    /// that setting.
    pub period_failures: u64,
}

/// A trip that was given, kept from unwinding through the lock.
#[derive(Clone)]
pub(super) struct OwnTrip(Arc<dyn Trip>);

// === impl Trip ===

impl<F> Trip for F
where
    F: Fn(&TripStatistics, Outcome) -> bool + Send + Sync + 'static,
{
    fn trips(&self, seen: &TripStatistics, verdict: Outcome) -> bool {
        self(seen, verdict)
    }
}

// === impl TripStatistics ===

impl TripStatistics {
    /// The share of the calls in the window that failed; `0.0` when there are none.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::circuit_breaker::TripStatistics;
    ///
    /// fn one_in_ten(seen: &TripStatistics) -> bool {
    ///     seen.failure_rate() >= 0.1
    /// }
    /// # let _ = one_in_ten;
    /// ```
    #[must_use]
    pub fn failure_rate(&self) -> f64 {
        self.counts().failure_rate()
    }

    /// The share of the calls in the window that were slow; `0.0` when there are none.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::circuit_breaker::TripStatistics;
    ///
    /// fn most(seen: &TripStatistics) -> bool {
    ///     seen.slow_call_rate() > 0.5
    /// }
    /// # let _ = most;
    /// ```
    #[must_use]
    pub fn slow_call_rate(&self) -> f64 {
        self.counts().slow_rate()
    }

    fn counts(&self) -> WindowCounts {
        WindowCounts { calls: self.calls, failures: self.failures, slow: self.slow_calls }
    }
}

// === impl OwnTrip ===

impl OwnTrip {
    pub(super) fn new(trip: impl Trip) -> Self {
        Self(Arc::new(trip))
    }

    pub(super) fn trips(&self, seen: &TripStatistics, verdict: Outcome) -> bool {
        // The verdict is counted whatever becomes of this; the panic hook has told the operator.
        catch_unwind(AssertUnwindSafe(|| self.0.trips(seen, verdict))).unwrap_or(false)
    }
}

impl fmt::Debug for OwnTrip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnTrip")
    }
}
