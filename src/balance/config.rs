//! [`PoolConfig`]: everything a pool can be told, as data.

use std::time::Duration;

use crate::circuit_breaker::{AdmissionMode, CircuitBreakerConfig};
use crate::error::InvalidConfig;

/// How an endpoint is picked.
///
/// # Examples
///
/// ```
/// use mainstay::balance::Picker;
///
/// assert_eq!(Picker::default(), Picker::PeakEwma);
/// assert_eq!(Picker::RoundRobin.as_str(), "round_robin");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Picker {
    /// By turns in proportion to the weights, and past an endpoint that is clearly slower than a second one: by expected
    /// latency, a peak-sensitive moving average times calls in flight. The default: it follows the endpoints' real speed. Reads
    /// the clock twice per call.
    #[default]
    PeakEwma,
    /// By turns in proportion to the weights, and past an endpoint that has clearly more calls in flight, for its weight, than a
    /// second one. Reads no clock on the happy path.
    InFlight,
    /// One after the other; with unequal weights interleaved smoothly, in exact proportion. Knows nothing of load: for
    /// endpoints and calls that are all alike.
    RoundRobin,
}

/// The settings of a [`Pool`](super::Pool).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::balance::PoolConfig;
///
/// let mut config = PoolConfig::default();
/// config.empty_wait = Duration::from_secs(1);
/// assert!(config.validate().is_ok());
///
/// config.max_out = 1.5;
/// assert_eq!(config.validate().unwrap_err().field(), "max_out");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct PoolConfig {
    /// How an endpoint is picked. Default: [`Picker::PeakEwma`], as in linkerd and Finagle.
    pub picker: Picker,
    /// The latency that an endpoint without history is presumed to have, and the least that a failed call counts as. Above
    /// zero. Default 30 ms (linkerd). Used by [`Picker::PeakEwma`].
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub default_latency: Duration,
    /// The time constant with which latencies and penalties are forgotten: after it, 37 % is left. Above zero. Default 10 s
    /// (linkerd).
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub decay: Duration,
    /// How long a call waits when no endpoint that it asks is ready, before it is rejected with [`NoEndpointReason::NotReady`](crate::NoEndpointReason::NotReady). Zero: no wait. Default 1 s (about what
    /// a connect over a bad network takes with one SYN repeated).
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub ready_timeout: Duration,
    /// How long a call waits when there is no endpoint to pick, before it is refused with
    /// [`NoEndpointReason::Empty`](crate::NoEndpointReason::Empty) or
    /// [`NoneEligible`](crate::NoEndpointReason::NoneEligible). Zero: it is refused at once. Default zero.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub empty_wait: Duration,
    /// The pause of an endpoint after its `poll_ready` failed; doubled with each failure in a row. Above zero. Default 100 ms.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub unready_min: Duration,
    /// The longest such pause. At least `unready_min`. Default 10 s.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub unready_max: Duration,
    /// The largest share of the pool that may be out by passive judgement (ejected, circuit open), those that active probes
    /// took out counted in. Unready endpoints count too, but are never kept in by it. Rounded down; at least one endpoint always stays in. 0.0 to 1.0. Default 0.5: judgement
    /// that condemns more than half is more likely wrong than right, or would leave too few to carry the load.
    pub max_out: f64,
    /// The share of usable endpoints below which all are used, but for drained and disabled ones (*panic mode*). 0.0 (never) to
    /// 1.0. Default 0.5 (Envoy).
    pub panic_threshold: f64,
    /// Whether an endpoint whose key is new to the pool waits for its first probe, as told by
    /// [`PoolHandle::set_health`](super::PoolHandle::set_health). Default `false`: what is not known to be bad is used.
    pub await_first_probe: bool,
    /// Ejection for consecutive failures; `None` turns it off. Default: on.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_off"))]
    pub ejection: Option<EjectionConfig>,
    /// A circuit breaker for each endpoint, as a source of its eligibility; `None` for none. Open, it takes its endpoint out as
    /// an ejection does; when its probe is due, one call is sent to find out. Default `None`: ejection alone.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_off"))]
    pub circuit_breaker: Option<CircuitBreakerConfig>,
    /// Seeds the picks, so that the same calls in the same order give the same picks; `None` draws from a generator per
    /// thread. For tests: the seeded generator is shared by all handles of the pool, which costs under contention. Default
    /// `None`.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_off"))]
    pub seed: Option<u64>,
}

/// When and for how long an endpoint is ejected.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::balance::EjectionConfig;
///
/// let config = EjectionConfig::default();
/// assert_eq!((config.consecutive_failures, config.base_time), (5, Duration::from_secs(30)));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct EjectionConfig {
    /// How many failures in a row eject. At least 1. Default 5 (Envoy).
    pub consecutive_failures: u32,
    /// How long the first ejection lasts; the k-th lasts k times as long. Above zero. Default 30 s (Envoy).
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub base_time: Duration,
    /// The longest ejection. At least `base_time`. Default `None`: 300 s (Envoy), or `base_time` if that is longer.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration::option"))]
    pub max_time: Option<Duration>,
    /// For each such interval without an ejection, one earlier ejection is forgotten. Above zero. Default 30 s.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub decay_interval: Duration,
}

// === impl Picker ===

impl Picker {
    /// The name used in configuration files and logs: `peak_ewma`, `in_flight` or `round_robin`.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::balance::Picker::InFlight.as_str(), "in_flight");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PeakEwma => "peak_ewma",
            Self::InFlight => "in_flight",
            Self::RoundRobin => "round_robin",
        }
    }
}

// === impl PoolConfig ===

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            picker: Picker::PeakEwma,
            default_latency: Duration::from_millis(30),
            decay: Duration::from_secs(10),
            ready_timeout: Duration::from_secs(1),
            empty_wait: Duration::ZERO,
            unready_min: Duration::from_millis(100),
            unready_max: Duration::from_secs(10),
            max_out: 0.5,
            panic_threshold: 0.5,
            await_first_probe: false,
            ejection: Some(EjectionConfig::default()),
            circuit_breaker: None,
            seed: None,
        }
    }
}

impl PoolConfig {
    /// Checks every field.
    ///
    /// # Errors
    ///
    /// The first field whose value is out of its range.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(mainstay::balance::PoolConfig::default().validate().is_ok());
    /// ```
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        above_zero("default_latency", self.default_latency)?;
        above_zero("decay", self.decay)?;
        above_zero("unready_min", self.unready_min)?;
        if self.unready_max < self.unready_min {
            return Err(InvalidConfig::new("unready_max", self.unready_max, "must be at least `unready_min`"));
        }
        share("max_out", self.max_out)?;
        share("panic_threshold", self.panic_threshold)?;
        if let Some(ejection) = &self.ejection {
            ejection.validate().map_err(|error| error.within("ejection"))?;
        }
        if let Some(breaker) = &self.circuit_breaker {
            breaker.validate().map_err(|error| error.within("circuit_breaker"))?;
            if breaker.admission != AdmissionMode::Reject {
                let requirement =
                    "must be `Reject`: a pool does not pick what its breaker refuses, and nothing waits at it";
                return Err(InvalidConfig::new("circuit_breaker.admission", breaker.admission, requirement));
            }
        }
        Ok(())
    }
}

// === impl EjectionConfig ===

impl Default for EjectionConfig {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            base_time: Duration::from_secs(30),
            max_time: None,
            decay_interval: Duration::from_secs(30),
        }
    }
}

impl EjectionConfig {
    /// Checks every field.
    ///
    /// # Errors
    ///
    /// The first field whose value is out of its range.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::balance::EjectionConfig;
    ///
    /// let mut config = EjectionConfig::default();
    /// config.max_time = Some(Duration::from_secs(3));
    /// assert_eq!(config.validate().unwrap_err().field(), "max_time");
    /// ```
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        if self.consecutive_failures == 0 {
            return Err(InvalidConfig::new("consecutive_failures", 0, "must be at least 1"));
        }
        above_zero("base_time", self.base_time)?;
        if let Some(max) = self.max_time.filter(|max| *max < self.base_time) {
            return Err(InvalidConfig::new("max_time", max, "must be at least `base_time`"));
        }
        above_zero("decay_interval", self.decay_interval)
    }

    /// The longest ejection.
    pub(crate) fn longest(&self) -> Duration {
        self.max_time.unwrap_or_else(|| self.base_time.max(Duration::from_secs(300)))
    }
}

fn above_zero(field: &'static str, value: Duration) -> Result<(), InvalidConfig> {
    if value.is_zero() { Err(InvalidConfig::new(field, value, "must be above zero")) } else { Ok(()) }
}

fn share(field: &'static str, value: f64) -> Result<(), InvalidConfig> {
    if (0.0..=1.0).contains(&value) { Ok(()) } else { Err(InvalidConfig::new(field, value, "must be from 0.0 to 1.0")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_scenario_5_a_maximum_below_the_base_is_refused_and_without_one_the_base_may_be_longer() {
        let mut config = EjectionConfig { max_time: Some(Duration::from_secs(3)), ..EjectionConfig::default() };
        config.base_time = Duration::from_secs(10);
        assert_eq!(config.validate().unwrap_err().field(), "max_time");
        config = EjectionConfig { base_time: Duration::from_secs(400), ..EjectionConfig::default() };
        assert!(config.validate().is_ok());
        assert_eq!(config.longest(), Duration::from_secs(400));
        assert_eq!(EjectionConfig::default().longest(), Duration::from_secs(300));
    }

    #[test]
    fn every_bad_field_is_named() {
        type Spoil = fn(&mut PoolConfig);
        let bad: [(&str, Spoil); 9] = [
            ("default_latency", |config| config.default_latency = Duration::ZERO),
            ("decay", |config| config.decay = Duration::ZERO),
            ("unready_min", |config| config.unready_min = Duration::ZERO),
            ("unready_max", |config| config.unready_max = Duration::from_millis(99)),
            ("max_out", |config| config.max_out = -0.1),
            ("max_out", |config| config.max_out = f64::NAN),
            ("panic_threshold", |config| config.panic_threshold = 1.1),
            ("ejection.consecutive_failures", |config| config.ejection.as_mut().unwrap().consecutive_failures = 0),
            ("ejection.decay_interval", |config| config.ejection.as_mut().unwrap().decay_interval = Duration::ZERO),
        ];
        for (field, spoil) in bad {
            let mut config = PoolConfig::default();
            spoil(&mut config);
            assert_eq!(config.validate().unwrap_err().field(), field);
        }
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_file_names_only_what_differs_and_unknown_keys_are_errors() {
        let text = "picker = \"in_flight\"\nempty_wait = \"1s\"\n[ejection]\nconsecutive_failures = 3";
        let read: PoolConfig = toml::from_str(text).unwrap();
        assert_eq!(read.picker, Picker::InFlight);
        assert_eq!(read.empty_wait, Duration::from_secs(1));
        assert_eq!(read.ejection.as_ref().unwrap().consecutive_failures, 3);
        assert_eq!(read.max_out, PoolConfig::default().max_out);
        assert_eq!(toml::from_str::<PoolConfig>(&toml::to_string(&read).unwrap()).unwrap(), read);
        assert!(toml::from_str::<PoolConfig>("max_outs = 0.5").is_err());
    }
}
