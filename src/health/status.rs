//! What is known of one target.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::health_status::HealthStatus;

/// What one target's checks have shown so far.
///
/// # Examples
///
/// ```
/// use mainstay::HealthStatus;
/// use mainstay::health::Monitor;
///
/// let monitor: Monitor<&str> = Monitor::builder("upstreams").build()?;
/// monitor.add("a", || async { Ok::<_, std::io::Error>(()) });
/// let health = monitor.target(&"a").unwrap();
/// assert_eq!(health.status, HealthStatus::Unknown);
/// assert_eq!(health.last_failure, None);
/// # Ok::<_, mainstay::InvalidConfig>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TargetHealth {
    /// The status.
    pub status: HealthStatus,
    /// Since when it has been that.
    pub since: Instant,
    /// Checks passed without a break, up to now.
    pub passes: u32,
    /// Checks failed without a break, up to now.
    pub failures: u32,
    /// How the latest check that failed did fail; kept when later ones pass.
    pub last_failure: Option<CheckFailure>,
}

/// How a check failed.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::health::CheckFailure;
///
/// let failure = CheckFailure::TimedOut { limit: Duration::from_secs(1) };
/// assert_eq!(failure.to_string(), "no answer within 1s");
/// assert_eq!(failure.kind(), "timed_out");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckFailure {
    /// The probe said so; the text is its error, cut after 256 bytes.
    Failed(Arc<str>),
    /// The probe said that the target itself answered, and answered that it is not well; cut alike.
    Answered(Arc<str>),
    /// The probe did not end within the timeout, and was dropped.
    TimedOut {
        /// The timeout.
        limit: Duration,
    },
    /// The probe panicked; the text is the panic's message, cut alike.
    Panicked(Arc<str>),
}

// === impl CheckFailure ===

impl CheckFailure {
    /// The name used in metrics labels: `failed`, `answered`, `timed_out` or `panicked`.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::health::CheckFailure::Failed("reset".into()).kind(), "failed");
    /// ```
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Failed(_) => "failed",
            Self::Answered(_) => "answered",
            Self::TimedOut { .. } => "timed_out",
            Self::Panicked(_) => "panicked",
        }
    }
}

impl fmt::Display for CheckFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(text) => f.write_str(text),
            Self::Answered(text) => write!(f, "answered: {text}"),
            Self::TimedOut { limit } => write!(f, "no answer within {limit:?}"),
            Self::Panicked(text) => write!(f, "the check panicked: {text}"),
        }
    }
}
