//! [`FailuresPerPeriod`]: so many failures within a time, and the window that counts them.

use std::time::{Duration, Instant};

use super::config::MIN_WINDOW_LENGTH;
use crate::cores::sliding_window::{Record, TimeWindow};
use crate::error::InvalidConfig;

/// When the number of failures within a period trips the breaker.
///
/// It suits a callee that is called too rarely for a rate, or of which no failure is to be made up for by successes. Successes
/// are not counted and cost what they cost without it. The period is kept in ten buckets, as [`Window::Time`] is, whatever
/// the window of the rates: a failure is forgotten when between nine tenths and the whole of the period have passed.
///
/// [`Window::Time`]: super::Window::Time
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::circuit_breaker::{CircuitBreakerHandle, FailuresPerPeriod};
/// use mainstay::{CircuitState, Outcome};
///
/// # fn main() -> Result<(), mainstay::InvalidConfig> {
/// let breaker = CircuitBreakerHandle::builder("db")
///     .failures_per_period(FailuresPerPeriod { failures: 2, period: Duration::from_secs(60) })
///     .build_handle()?;
/// for outcome in [Outcome::Transient, Outcome::Success, Outcome::Transient] {
///     breaker.try_acquire().expect("a closed circuit admits").record(outcome);
/// }
/// assert_eq!(breaker.state(), CircuitState::Open);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct FailuresPerPeriod {
    /// Trips at this many failures: `failures in the period >= failures`. At least 1.
    pub failures: u32,
    /// How long a failure counts. At least 10 ms.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub period: Duration,
}

/// The failures of the last period.
#[derive(Debug)]
pub(super) struct FailurePeriod {
    limit: u64,
    failed: TimeWindow,
}

// === impl FailuresPerPeriod ===

impl FailuresPerPeriod {
    pub(super) fn validate(&self) -> Result<(), InvalidConfig> {
        if self.failures == 0 {
            return Err(InvalidConfig::new("failures", 0, "must be at least 1"));
        }
        if self.period < MIN_WINDOW_LENGTH {
            let requirement = format!("must be at least {MIN_WINDOW_LENGTH:?}");
            return Err(InvalidConfig::new("period", self.period, requirement));
        }
        Ok(())
    }
}

// === impl FailurePeriod ===

impl FailurePeriod {
    /// An empty period, whose buckets start at `origin`.
    pub(super) fn new(limit: FailuresPerPeriod, origin: Instant) -> Self {
        Self { limit: u64::from(limit.failures), failed: TimeWindow::new(limit.period, origin) }
    }

    /// The same failures under another limit, as far as its period has them.
    pub(super) fn under(&mut self, limit: FailuresPerPeriod, now: Instant) -> Self {
        Self { limit: u64::from(limit.failures), failed: self.failed.resized(limit.period, now) }
    }

    /// Counts a failure at `now`.
    pub(super) fn record_failure(&mut self, now: Instant) {
        self.failed.record(Record { failed: true, slow: false }, now);
    }

    /// The failures of the period that ends at `now`.
    pub(super) fn failures(&mut self, now: Instant) -> u64 {
        self.failed.counts(now).failures
    }

    /// Whether these are as many as are too many.
    pub(super) fn is_reached_by(&self, failures: u64) -> bool {
        failures >= self.limit
    }

    /// Forgets every failure.
    pub(super) fn clear(&mut self) {
        self.failed.clear();
    }
}
