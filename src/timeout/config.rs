//! [`TimeoutConfig`]: a timeout as plain data.

use std::time::Duration;

use crate::error::InvalidConfig;

/// The settings of a [`TimeoutLayer`](super::TimeoutLayer).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::timeout::{TimeoutConfig, TimeoutKind};
///
/// let config = TimeoutConfig::default();
/// assert_eq!((config.kind, config.timeout), (TimeoutKind::Attempt, Duration::from_secs(10)));
/// assert!(!config.include_readiness);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
pub struct TimeoutConfig {
    /// How long a call may take, from its `call` on. Above zero; for no timeout leave the layer out. Default: 10 s, the
    /// attempt timeout of .NET's standard resilience handler.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub timeout: Duration,
    /// Whether this bounds the whole call or one attempt of it. Default: [`TimeoutKind::Attempt`].
    pub kind: TimeoutKind,
    /// Whether the time that a caller waits for the inner service to become ready counts too. Default: `false`.
    pub include_readiness: bool,
}

/// What a timeout bounds.
///
/// # Examples
///
/// ```
/// assert_eq!(mainstay::timeout::TimeoutKind::Total.as_str(), "total");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum TimeoutKind {
    /// One attempt; goes below the retry.
    #[default]
    Attempt,
    /// The whole call with all of its attempts and waits; goes above the retry. Everything below sees the deadline in the
    /// [ambient context](crate::context).
    Total,
}

// === impl TimeoutConfig ===

impl Default for TimeoutConfig {
    fn default() -> Self {
        Self::attempt(Duration::from_secs(10))
    }
}

impl TimeoutConfig {
    /// `timeout` for each attempt.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::timeout::{TimeoutConfig, TimeoutKind};
    ///
    /// assert_eq!(TimeoutConfig::attempt(Duration::from_secs(1)).kind, TimeoutKind::Attempt);
    /// ```
    #[must_use]
    pub const fn attempt(timeout: Duration) -> Self {
        Self { timeout, kind: TimeoutKind::Attempt, include_readiness: false }
    }

    /// `timeout` for the whole call.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::timeout::{TimeoutConfig, TimeoutKind};
    ///
    /// assert_eq!(TimeoutConfig::total(Duration::from_secs(1)).kind, TimeoutKind::Total);
    /// ```
    #[must_use]
    pub const fn total(timeout: Duration) -> Self {
        Self { timeout, kind: TimeoutKind::Total, include_readiness: false }
    }

    /// Whether these settings can be used.
    ///
    /// # Errors
    ///
    /// A timeout of zero.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::timeout::TimeoutConfig;
    ///
    /// assert_eq!(TimeoutConfig::total(Duration::ZERO).validate().unwrap_err().field(), "timeout");
    /// ```
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        if self.timeout.is_zero() {
            let requirement = "must be above zero; for no timeout leave the layer out";
            return Err(InvalidConfig::new("timeout", self.timeout, requirement));
        }
        Ok(())
    }
}

// === impl TimeoutKind ===

impl TimeoutKind {
    /// The kind as a fixed word: `attempt` or `total`.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::timeout::TimeoutKind::Attempt.as_str(), "attempt");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attempt => "attempt",
            Self::Total => "total",
        }
    }
}

#[cfg(all(test, feature = "serde"))]
mod tests {
    use super::*;

    #[test]
    fn a_file_reads_as_it_is_written_and_unknown_keys_are_errors() {
        let read: TimeoutConfig = toml::from_str("timeout = \"2s\"\nkind = \"total\"\n").unwrap();
        assert_eq!(read, TimeoutConfig::total(Duration::from_secs(2)));
        assert_eq!(toml::from_str::<TimeoutConfig>(&toml::to_string(&read).unwrap()).unwrap(), read);
        assert!(toml::from_str::<TimeoutConfig>("timeout = 2").is_err(), "a number has no unit");
        assert!(toml::from_str::<TimeoutConfig>("time_out = \"2s\"").is_err());
    }
}
