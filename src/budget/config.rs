//! [`BudgetConfig`]: a budget as plain data.

use std::time::Duration;

use crate::error::InvalidConfig;

/// The settings of a [`Budget`](super::Budget).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::budget::BudgetConfig;
///
/// let config = BudgetConfig::default();
/// assert_eq!((config.ratio, config.window), (0.2, Duration::from_secs(2)));
/// assert_eq!((config.reserve, config.reserve_window), (10, Duration::from_secs(10)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
pub struct BudgetConfig {
    /// Extra attempts a call sent, from 0.0 to 10.0. Default: 0.2, as in Finagle and Linkerd.
    pub ratio: f64,
    /// For how long what a call earned can be spent, from 1 s to 60 s (Finagle's limits). It is the burst that a healthy
    /// time saves up: 2 s of it, spent at once. Default: 2 s; Finagle's and Linkerd's 10 s let an outage begin with ten
    /// seconds' worth of retries.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub window: Duration,
    /// Extra attempts that may be sent in each [`reserve_window`](Self::reserve_window) whatever the number of calls, from
    /// 0 to 1 000 000. It is there for clients that make few calls. Default: 10.
    pub reserve: u32,
    /// For how long what was drawn from the reserve counts against it, from 1 s to 60 s. Default: 10 s, which with a reserve
    /// of 10 is 1/s: a tenth of Finagle's, since each process of a fleet has its own.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub reserve_window: Duration,
}

// === impl BudgetConfig ===

impl Default for BudgetConfig {
    fn default() -> Self {
        Self { ratio: 0.2, window: Duration::from_secs(2), reserve: 10, reserve_window: Duration::from_secs(10) }
    }
}

impl BudgetConfig {
    /// Whether these settings can be used.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::budget::BudgetConfig;
    ///
    /// let mut config = BudgetConfig::default();
    /// config.window = Duration::from_secs(61);
    /// assert_eq!(config.validate().unwrap_err().to_string(), "invalid `window` = 61s: must be from 1 s to 60 s");
    /// ```
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        if !(0.0..=10.0).contains(&self.ratio) {
            return Err(InvalidConfig::new("ratio", self.ratio, "must be from 0.0 to 10.0"));
        }
        if self.reserve > 1_000_000 {
            return Err(InvalidConfig::new("reserve", self.reserve, "must be from 0 to 1000000"));
        }
        for (field, window) in [("window", self.window), ("reserve_window", self.reserve_window)] {
            if !(Duration::from_secs(1)..=Duration::from_secs(60)).contains(&window) {
                return Err(InvalidConfig::new(field, window, "must be from 1 s to 60 s"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario 13.
    #[test]
    fn what_cannot_be_meant_is_refused_by_field() {
        let good = BudgetConfig::default();
        for window in [0, 61].map(Duration::from_secs) {
            assert_eq!(BudgetConfig { window, ..good }.validate().unwrap_err().field(), "window");
            let config = BudgetConfig { reserve_window: window, ..good };
            assert_eq!(config.validate().unwrap_err().field(), "reserve_window");
        }
        for ratio in [-1.0, 10.1, f64::NAN, f64::INFINITY] {
            assert_eq!(BudgetConfig { ratio, ..good }.validate().unwrap_err().field(), "ratio");
        }
        assert_eq!(BudgetConfig { reserve: 1_000_001, ..good }.validate().unwrap_err().field(), "reserve");
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_file_reads_as_it_is_written_and_unknown_keys_are_errors() {
        let read: BudgetConfig = toml::from_str("ratio = 0.1\nwindow = \"3s\"\n").unwrap();
        assert_eq!(read, BudgetConfig { ratio: 0.1, window: Duration::from_secs(3), ..BudgetConfig::default() });
        assert_eq!(toml::from_str::<BudgetConfig>(&toml::to_string(&read).unwrap()).unwrap(), read);
        assert!(toml::from_str::<BudgetConfig>("percent = 10").is_err());
    }
}
