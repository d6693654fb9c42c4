//! Events of the family `health`.

use std::fmt;

use crate::name::Name;

/// Something that happened in a health monitor.
///
/// # Examples
///
/// ```
/// use mainstay::telemetry::event::HealthEvent;
///
/// fn log(event: &HealthEvent<'_>) {
///     println!("{}: {}", event.name, event.kind);
/// }
/// # let _ = log;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HealthEvent<'a> {
    /// The name it was given.
    pub name: &'a Name,
    /// What happened.
    pub kind: HealthEventKind<'a>,
}

/// What happened in a health monitor.
///
/// # Examples
///
/// ```
/// fn word(kind: &mainstay::telemetry::event::HealthEventKind<'_>) -> &'static str {
///     kind.as_str()
/// }
/// # let _ = word;
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum HealthEventKind<'a> {
    /// The status of a target changed.
    StatusChanged {
        /// The target, as its key shows itself.
        target: &'a str,
        /// The status before, as a fixed word.
        from: &'static str,
        /// The status now, as a fixed word.
        to: &'static str,
        /// What the probe said last.
        reason: &'a str,
    },
}

impl HealthEventKind<'_> {
    /// The kind as a fixed word: `status_changed`.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::telemetry::event::HealthEventKind;
    ///
    /// let kind = HealthEventKind::StatusChanged { target: "a", from: "healthy", to: "unhealthy", reason: "refused" };
    /// assert_eq!(kind.as_str(), "status_changed");
    /// ```
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::StatusChanged { .. } => "status_changed",
        }
    }

    /// Whether something got worse.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::telemetry::event::HealthEventKind;
    ///
    /// let kind = HealthEventKind::StatusChanged { target: "a", from: "healthy", to: "unhealthy", reason: "refused" };
    /// assert!(kind.is_warning());
    /// ```
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        match self {
            Self::StatusChanged { to, .. } => !matches!(to.as_bytes(), b"healthy"),
        }
    }
}

impl fmt::Display for HealthEventKind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StatusChanged { target, from, to, reason } => {
                write!(f, "{target} went from {from} to {to}: {reason}")
            }
        }
    }
}
