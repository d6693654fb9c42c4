//! [`KeyedCircuitBreakerConfig`]: every setting, with its unit, range and default.

use std::time::Duration;

use super::super::admission::AdmissionMode;
use super::super::config::{CircuitBreakerConfig, Window};
use crate::error::InvalidConfig;

/// The settings of a keyed circuit breaker.
///
/// Plain data: start from the default and change fields, or read it from a file (feature `serde`; unknown keys are errors,
/// durations are strings such as `"10min"`).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::circuit_breaker::KeyedCircuitBreakerConfig;
///
/// let mut config = KeyedCircuitBreakerConfig::default();
/// config.breaker.consecutive_failures = Some(5);
/// config.max_keys = 200;
/// assert!(config.validate().is_ok());
///
/// config.breaker.probes = 0;
/// assert_eq!(config.validate().unwrap_err().field(), "breaker.probes");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct KeyedCircuitBreakerConfig {
    /// The settings of each key's breaker, and of the shared one. Its
    /// [`admission`](CircuitBreakerConfig::admission) must be `Reject`: which breaker a call belongs to is known in `call` and
    /// not before.
    pub breaker: CircuitBreakerConfig,
    /// The most keys that have a breaker of their own; further ones are served by the shared breaker. From 1 to 1 048 576.
    /// Default: 1024, more than the hosts, shards or tenants that one process usually calls, and with the default window about
    /// 2 MiB.
    pub max_keys: usize,
    /// A breaker that was not used for this long may be evicted when a new key comes, if it is closed or half-open, or if its open
    /// time ended this long ago; one that is forced open never is. Above zero; at least the
    /// length of a [time window](Window::Time) and the period of
    /// [`failures_per_period`](CircuitBreakerConfig::failures_per_period), so that no evidence which still counts is thrown
    /// away. Calls of a key that come more seldom are not judged together. Default: 10 min: what a count window has recorded
    /// longer ago says little of the callee as it is now.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub idle_after: Duration,
}

/// The most keys there can be.
const MOST_KEYS: usize = 1 << 20;

// === impl KeyedCircuitBreakerConfig ===

impl Default for KeyedCircuitBreakerConfig {
    fn default() -> Self {
        Self { breaker: CircuitBreakerConfig::default(), max_keys: 1024, idle_after: Duration::from_secs(600) }
    }
}

impl KeyedCircuitBreakerConfig {
    /// Checks every field.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] names the first field whose value cannot be used, and the value.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::circuit_breaker::KeyedCircuitBreakerConfig;
    ///
    /// let mut config = KeyedCircuitBreakerConfig::default();
    /// config.max_keys = 0;
    /// assert_eq!(config.validate().unwrap_err().to_string(), "invalid `max_keys` = 0: must be from 1 to 1048576");
    /// ```
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        self.validate_with(false)
    }

    /// The same for breakers that may have a trip of their own, and then need none of these.
    pub(super) fn validate_with(&self, own_trip: bool) -> Result<(), InvalidConfig> {
        self.breaker.validate_with(own_trip).map_err(|error| error.within("breaker"))?;
        if self.breaker.admission != AdmissionMode::Reject {
            let requirement = "must be `Reject`: the key of a call is not known before it is made";
            return Err(InvalidConfig::new("breaker.admission", self.breaker.admission, requirement));
        }
        if !(1..=MOST_KEYS).contains(&self.max_keys) {
            return Err(InvalidConfig::new("max_keys", self.max_keys, format!("must be from 1 to {MOST_KEYS}")));
        }
        if self.idle_after.is_zero() {
            return Err(InvalidConfig::new("idle_after", self.idle_after, "must be above zero"));
        }
        if let Window::Time { length } = self.breaker.window
            && self.idle_after < length
        {
            let requirement = format!("must be at least the window's {length:?}");
            return Err(InvalidConfig::new("idle_after", self.idle_after, requirement));
        }
        if let Some(limit) = &self.breaker.failures_per_period
            && self.idle_after < limit.period
        {
            let requirement = format!("must be at least the {:?} of `failures_per_period`", limit.period);
            return Err(InvalidConfig::new("idle_after", self.idle_after, requirement));
        }
        Ok(())
    }
}
