//! [`HealthStatus`]: the word that monitors, reports and pools share.

use std::fmt;

/// What active checks say about a target: unknown, healthy or unhealthy.
///
/// *Unhealthy* is a judgement by probes; what is taken out by the evidence of real calls is *ejected*, and that is another
/// word for another thing. The default is [`HealthStatus::Unknown`].
///
/// # Examples
///
/// ```
/// use mainstay::HealthStatus;
///
/// assert_eq!(HealthStatus::default(), HealthStatus::Unknown);
/// assert_eq!(HealthStatus::Healthy.as_str(), "healthy");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HealthStatus {
    /// Nothing is known: not checked yet, no longer checked, or the prober has died.
    #[default]
    Unknown,
    /// The checks pass.
    Healthy,
    /// The checks fail.
    Unhealthy,
}

// === impl HealthStatus ===

impl HealthStatus {
    /// The name used in metrics labels and in JSON: `unknown`, `healthy` or `unhealthy`.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::HealthStatus::Unknown.as_str(), "unknown");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }

    /// Whether a target of this status is to be used, where `optimistic` says what to do with the unknown.
    ///
    /// Optimistic is the usual choice: a monitor that has not looked yet, or that has died, must not take a whole pool out.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::HealthStatus;
    ///
    /// assert!(HealthStatus::Unknown.is_usable(true));
    /// assert!(!HealthStatus::Unknown.is_usable(false));
    /// assert!(!HealthStatus::Unhealthy.is_usable(true));
    /// ```
    #[must_use]
    pub const fn is_usable(self, optimistic: bool) -> bool {
        match self {
            Self::Unknown => optimistic,
            Self::Healthy => true,
            Self::Unhealthy => false,
        }
    }
}

impl fmt::Display for HealthStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
