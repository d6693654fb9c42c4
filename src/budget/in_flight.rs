//! [`InFlight`]: extra attempts as a share of the calls that run. Pure: needs no time at all.

use std::sync::Arc;

use crate::cores::sync::atomic::{AtomicU64, Ordering};
use crate::error::InvalidConfig;

/// The settings of a [`Budget::in_flight`](super::Budget::in_flight).
///
/// # Examples
///
/// ```
/// use mainstay::budget::InFlightConfig;
///
/// let config = InFlightConfig::default();
/// assert_eq!((config.ratio, config.minimum), (0.2, 3));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
pub struct InFlightConfig {
    /// Extra attempts in flight for each call in flight, from 0.0 to 1.0. Default: 0.2, as in Envoy's retry budgets.
    pub ratio: f64,
    /// How many may be in flight however few the calls, from 0 to 1 000 000. Default: 3, Envoy's.
    pub minimum: u32,
}

/// What is in flight.
#[derive(Debug)]
pub(super) struct InFlight {
    config: InFlightConfig,
    calls: AtomicU64,
    extra: AtomicU64,
}

/// A call in flight, as long as it exists; see [`Budget::call_started`](super::Budget::call_started).
///
/// # Examples
///
/// ```
/// use mainstay::budget::{Budget, InFlightConfig};
///
/// let budget = Budget::in_flight(InFlightConfig::default())?;
/// let calls: Vec<_> = (0..100).map(|_| budget.call_started()).collect();
/// assert_eq!(budget.balance(), 20.0);
/// drop(calls);
/// assert_eq!(budget.balance(), 3.0);
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
#[derive(Debug)]
#[must_use = "dropped, the call has ended"]
pub struct CallInFlight(pub(super) Option<Arc<InFlight>>);

// === impl InFlightConfig ===

impl Default for InFlightConfig {
    fn default() -> Self {
        Self { ratio: 0.2, minimum: 3 }
    }
}

impl InFlightConfig {
    /// Whether these settings can be used.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut config = mainstay::budget::InFlightConfig::default();
    /// config.ratio = 1.5;
    /// assert_eq!(config.validate().unwrap_err().field(), "ratio");
    /// ```
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        if !(0.0..=1.0).contains(&self.ratio) {
            return Err(InvalidConfig::new("ratio", self.ratio, "must be from 0.0 to 1.0"));
        }
        if self.minimum > 1_000_000 {
            return Err(InvalidConfig::new("minimum", self.minimum, "must be from 0 to 1000000"));
        }
        Ok(())
    }
}

// === impl InFlight ===

impl InFlight {
    /// `config` must be valid.
    pub(super) fn new(config: InFlightConfig) -> Self {
        Self { config, calls: AtomicU64::new(0), extra: AtomicU64::new(0) }
    }

    pub(super) fn start_call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// One more extra attempt that counts for `cost`, if there is room for it.
    pub(super) fn try_start(&self, cost: u32) -> bool {
        let limit = self.limit();
        let fits = |extra: u64| Some(extra + u64::from(cost)).filter(|&extra| extra <= limit);
        self.extra.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// An extra attempt has ended, or was not made after all.
    pub(super) fn end(&self) {
        // One too many must not turn into 2^64 in flight.
        let _ = self.extra.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |extra| extra.checked_sub(1));
    }

    /// How many more may be in flight now.
    #[allow(clippy::cast_precision_loss, reason = "a reading for humans")]
    pub(super) fn balance(&self) -> f64 {
        self.limit().saturating_sub(self.extra.load(Ordering::Relaxed)) as f64
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a valid ratio of fewer than 2^53 calls"
    )]
    fn limit(&self) -> u64 {
        let share = (self.calls.load(Ordering::Relaxed) as f64 * self.config.ratio) as u64;
        share.max(u64::from(self.config.minimum))
    }
}

// === impl CallInFlight ===

impl CallInFlight {
    /// For a budget that goes by other things.
    pub(crate) const NOT_COUNTED: Self = Self(None);
}

impl Drop for CallInFlight {
    #[inline]
    fn drop(&mut self) {
        if let Some(in_flight) = &self.0 {
            in_flight.calls.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_larger_of_share_and_minimum() {
        for (calls, allowed) in [(0, 3), (15, 3), (19, 3), (20, 4), (100, 20)] {
            let in_flight = InFlight::new(InFlightConfig::default());
            (0..calls).for_each(|_| in_flight.start_call());
            assert_eq!((0..1_000).filter(|_| in_flight.try_start(1)).count(), allowed, "{calls}");
            in_flight.end();
            assert!(in_flight.try_start(1) && !in_flight.try_start(1), "room for one again");
        }
    }

    #[test]
    fn what_is_ended_twice_makes_no_room() {
        let in_flight = InFlight::new(InFlightConfig { ratio: 0.0, minimum: 1 });
        in_flight.end();
        assert!(in_flight.try_start(1) && !in_flight.try_start(1));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_field() {
        let good = InFlightConfig::default();
        for ratio in [-0.1, 1.1, f64::NAN] {
            assert_eq!(InFlightConfig { ratio, ..good }.validate().unwrap_err().field(), "ratio");
        }
        assert_eq!(InFlightConfig { minimum: 1_000_001, ..good }.validate().unwrap_err().field(), "minimum");
    }
}

#[cfg(all(test, mainstay_loom))]
mod model {
    use std::sync::Arc;

    use super::*;
    use crate::cores::sync::model::{every_order, join, spawn, with_interruptions};

    #[test]
    fn no_two_take_the_same_room_and_what_ended_makes_room_once() {
        with_interruptions(3, || {
            let in_flight = Arc::new(InFlight::new(InFlightConfig { ratio: 0.0, minimum: 1 }));
            let running = Arc::new(std::sync::atomic::AtomicU32::new(0));
            let threads = [1, 2].map(|tries| {
                let (in_flight, running) = (Arc::clone(&in_flight), Arc::clone(&running));
                spawn(move || {
                    for _ in 0..tries {
                        if in_flight.try_start(1) {
                            assert_eq!(running.fetch_add(1, Ordering::Relaxed), 0, "one at a time");
                            in_flight.balance();
                            running.fetch_sub(1, Ordering::Relaxed);
                            in_flight.end();
                        }
                    }
                })
            });
            threads.into_iter().for_each(join);
            assert_eq!(in_flight.balance(), 1.0);
            assert!(in_flight.try_start(1) && !in_flight.try_start(1));
        });
    }

    #[test]
    fn the_share_follows_the_calls_that_run() {
        every_order(|| {
            let in_flight = Arc::new(InFlight::new(InFlightConfig { ratio: 1.0, minimum: 0 }));
            let threads = [(); 2].map(|()| {
                let in_flight = Arc::clone(&in_flight);
                spawn(move || {
                    in_flight.start_call();
                    (CallInFlight(Some(Arc::clone(&in_flight))), in_flight.try_start(1))
                })
            });
            let (calls, started): (Vec<_>, Vec<_>) = threads.into_iter().map(join).unzip();
            // A call that has just begun may not be seen yet by another thread.
            let started = started.into_iter().filter(|started| *started).count();
            let more = (0..3).filter(|_| in_flight.try_start(1)).count();
            assert!(started >= 1 && started + more == 2, "{started} and {more} for two calls");
            drop(calls);
            assert_eq!(in_flight.limit(), 0);
        });
    }
}
