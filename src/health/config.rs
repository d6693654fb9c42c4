//! [`MonitorConfig`]: how often to look, and how much it takes to change one's mind.

use std::time::Duration;

use super::hysteresis::{Pace, Thresholds};
use crate::InvalidConfig;

/// The settings of a [`Monitor`](super::Monitor).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::health::MonitorConfig;
///
/// let mut config = MonitorConfig::default();
/// assert_eq!((config.rise, config.fall), (2, 3));
/// config.interval = Duration::ZERO;
/// assert_eq!(config.validate().unwrap_err().field(), "interval");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct MonitorConfig {
    /// From the start of one check of a healthy target to the start of the next. Above zero; 2 s by default, as HAProxy.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub interval: Duration,
    /// The interval while a run of results leads towards another status, and before the first status is known. Above zero
    /// and at most [`interval`](Self::interval); by default (`None`) a quarter of it: a target that refuses
    /// connections is known to be down at most `interval + (fall - 1) * fast_interval` later, and not `fall * interval`.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration::option"))]
    pub fast_interval: Option<Duration>,
    /// The interval while the target is unhealthy and the checks keep failing. Above zero; by default (`None`) the same as
    /// [`interval`](Self::interval).
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration::option"))]
    pub down_interval: Option<Duration>,
    /// What a check may take before it is dropped and counts as failed. Above zero; 1 s by default, as in Kubernetes. Checks of
    /// one target never overlap: where the timeout is longer than the interval, the next check follows at once.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub timeout: Duration,
    /// Each pause is drawn evenly from `interval * (1 - jitter)` to `interval * (1 + jitter)`, and a target's first check starts
    /// after a draw from zero to `interval * jitter`, so that checks started together drift apart. At least 0.0, below 1.0; 0.1
    /// by default.
    pub jitter: f64,
    /// Passes without a break that make a target healthy. At least 1; 2 by default, as HAProxy.
    pub rise: u32,
    /// Failures without a break that make a target unhealthy. At least 1; 3 by default, as HAProxy and Kubernetes.
    pub fall: u32,
    /// Whether the first result ever decides alone, whatever `rise` and `fall` say. `true` by default: there is nothing yet
    /// that it could be weighed against, and a new endpoint that works should not have to wait.
    pub first_result_decides: bool,
    /// Whether one failure in which the target itself *answered* that it is not well makes it unhealthy at once. `true` by
    /// default, as in Envoy: thresholds guard against a noisy way to the target; a target that says "not ready" (in its
    /// shutdown, say) means it.
    pub answer_decides: bool,
}

// === impl MonitorConfig ===

impl Default for MonitorConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(2),
            fast_interval: None,
            down_interval: None,
            timeout: Duration::from_secs(1),
            jitter: 0.1,
            rise: 2,
            fall: 3,
            first_result_decides: true,
            answer_decides: true,
        }
    }
}

impl MonitorConfig {
    /// Checks every field.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(mainstay::health::MonitorConfig::default().validate().is_ok());
    /// ```
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        above_zero("interval", self.interval)?;
        if let Some(fast) = self.fast_interval {
            above_zero("fast_interval", fast)?;
            if fast > self.interval {
                return Err(InvalidConfig::new("fast_interval", fast, "must be at most `interval`"));
            }
        }
        if let Some(down) = self.down_interval {
            above_zero("down_interval", down)?;
        }
        above_zero("timeout", self.timeout)?;
        if !(0.0..1.0).contains(&self.jitter) {
            return Err(InvalidConfig::new("jitter", self.jitter, "must be at least 0.0 and below 1.0"));
        }
        for (field, value) in [("rise", self.rise), ("fall", self.fall)] {
            if value == 0 {
                return Err(InvalidConfig::new(field, value, "must be at least 1"));
            }
        }
        Ok(())
    }

    pub(crate) const fn thresholds(&self) -> Thresholds {
        Thresholds {
            rise: self.rise,
            fall: self.fall,
            first_result_decides: self.first_result_decides,
            answer_decides: self.answer_decides,
        }
    }

    /// From the start of a check to the start of the next; `unit` is a draw from [0, 1).
    pub(crate) fn pause(&self, pace: Pace, unit: f64) -> Duration {
        let base = match pace {
            Pace::Normal => self.interval,
            Pace::Fast => self.fast_interval.unwrap_or_else(|| (self.interval / 4).max(Duration::from_nanos(1))),
            Pace::Down => self.down_interval.unwrap_or(self.interval),
        };
        scale(base, 1.0 - self.jitter + 2.0 * self.jitter * unit)
    }

    /// From adding a target to its first check; `unit` is a draw from [0, 1).
    pub(crate) fn first_pause(&self, unit: f64) -> Duration {
        scale(self.interval, self.jitter * unit)
    }
}

fn above_zero(field: &'static str, value: Duration) -> Result<(), InvalidConfig> {
    if value.is_zero() { Err(InvalidConfig::new(field, value, "must be above zero")) } else { Ok(()) }
}

/// Saturating, where `Duration::mul_f64` panics.
fn scale(duration: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(duration.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut MonitorConfig)) -> Result<(), InvalidConfig> {
        let mut config = MonitorConfig::default();
        change(&mut config);
        config.validate()
    }

    #[test]
    fn every_field_has_its_range() {
        let refused = |result: Result<(), InvalidConfig>| result.unwrap_err().field().to_owned();
        assert_eq!(with(|_| ()), Ok(()));
        assert_eq!(refused(with(|c| c.interval = Duration::ZERO)), "interval");
        assert_eq!(refused(with(|c| c.fast_interval = Some(Duration::ZERO))), "fast_interval");
        assert_eq!(refused(with(|c| c.fast_interval = Some(Duration::from_secs(3)))), "fast_interval");
        assert_eq!(refused(with(|c| c.down_interval = Some(Duration::ZERO))), "down_interval");
        assert_eq!(refused(with(|c| c.timeout = Duration::ZERO)), "timeout");
        for jitter in [-0.1, 1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(refused(with(|c| c.jitter = jitter)), "jitter");
        }
        assert_eq!(refused(with(|c| c.rise = 0)), "rise");
        assert_eq!(refused(with(|c| c.fall = 0)), "fall");
    }

    #[test]
    fn pauses_are_drawn_around_the_interval_of_the_pace() {
        let config = MonitorConfig { down_interval: Some(Duration::from_secs(10)), ..MonitorConfig::default() };
        let near = |a: Duration, millis: u64| a.abs_diff(Duration::from_millis(millis)) < Duration::from_micros(1);
        assert!(near(config.pause(Pace::Normal, 0.0), 1_800));
        assert!(near(config.pause(Pace::Normal, 0.5), 2_000));
        assert!(near(config.pause(Pace::Fast, 0.5), 500));
        assert!(near(config.pause(Pace::Down, 0.5), 10_000));
        assert!(near(config.first_pause(0.0), 0));
        assert!(near(config.first_pause(0.5), 100));
    }

    #[test]
    fn extreme_intervals_saturate() {
        let config = MonitorConfig { interval: Duration::MAX, jitter: 0.9, ..MonitorConfig::default() };
        assert_eq!(config.pause(Pace::Normal, 0.999), Duration::MAX);
        let config = MonitorConfig { interval: Duration::from_nanos(1), jitter: 0.0, ..MonitorConfig::default() };
        assert!(config.pause(Pace::Fast, 0.0) > Duration::ZERO);
    }
}
