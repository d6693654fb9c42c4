//! Events of the family `timeout`.

use std::fmt;

use crate::name::Name;
use std::time::Duration;

/// Something that happened in a timeout.
///
/// # Examples
///
/// ```
/// use mainstay::telemetry::event::TimeoutEvent;
///
/// fn log(event: &TimeoutEvent<'_>) {
///     println!("{}: {}", event.name, event.kind);
/// }
/// # let _ = log;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TimeoutEvent<'a> {
    /// The name it was given.
    pub name: &'a Name,
    /// What happened.
    pub kind: TimeoutEventKind<'a>,
}

/// What happened in a timeout.
///
/// # Examples
///
/// ```
/// fn word(kind: &mainstay::telemetry::event::TimeoutEventKind<'_>) -> &'static str {
///     kind.as_str()
/// }
/// # let _ = word;
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum TimeoutEventKind<'a> {
    /// A call was cut off.
    TimedOut {
        /// The time it was given.
        timeout: Duration,
        /// What cut it: `timeout` or `deadline`.
        cause: &'a str,
        /// Whether the inner service had been called by then.
        sent: bool,
    },
}

impl TimeoutEventKind<'_> {
    /// The kind as a fixed word: `timed_out`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::telemetry::event::TimeoutEventKind;
    ///
    /// let kind = TimeoutEventKind::TimedOut { timeout: Duration::from_secs(1), cause: "timeout", sent: true };
    /// assert_eq!(kind.as_str(), "timed_out");
    /// ```
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::TimedOut { .. } => "timed_out",
        }
    }

    /// Whether something got worse.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::telemetry::event::TimeoutEventKind;
    ///
    /// let kind = TimeoutEventKind::TimedOut { timeout: Duration::from_secs(1), cause: "timeout", sent: true };
    /// assert!(kind.is_warning());
    /// ```
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        true
    }
}

impl fmt::Display for TimeoutEventKind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut { timeout, cause, sent: true } => {
                write!(f, "cut a call off that may take {timeout:?}, by its {cause}")
            }
            Self::TimedOut { timeout, cause, sent: false } => {
                write!(f, "did not send a call that may take {timeout:?}, by its {cause}")
            }
        }
    }
}
