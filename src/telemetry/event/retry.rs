//! Events of the family `retry`.

use std::fmt;

use crate::name::Name;
use crate::outcome::Outcome;
use std::time::Duration;

/// Something that happened in a retry.
///
/// # Examples
///
/// ```
/// use mainstay::telemetry::event::RetryEvent;
///
/// fn log(event: &RetryEvent<'_>) {
///     println!("{}: {}", event.name, event.kind);
/// }
/// # let _ = log;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RetryEvent<'a> {
    /// The name it was given.
    pub name: &'a Name,
    /// What happened.
    pub kind: RetryEventKind<'a>,
}

/// What happened in a retry.
///
/// # Examples
///
/// ```
/// fn word(kind: &mainstay::telemetry::event::RetryEventKind<'_>) -> &'static str {
///     kind.as_str()
/// }
/// # let _ = word;
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum RetryEventKind<'a> {
    /// An attempt ended badly and another will follow.
    Retrying {
        /// The attempt that ended, from 1.
        attempt: u32,
        /// What it ended in.
        outcome: Outcome,
        /// The wait before the next.
        delay: Duration,
    },
    /// An attempt ended badly and no other will follow.
    GaveUp {
        /// The attempts made.
        attempts: u32,
        /// What the last ended in.
        outcome: Outcome,
        /// Why there is no other, as a fixed word.
        reason: &'a str,
    },
}

impl RetryEventKind<'_> {
    /// The kind as a fixed word: `retrying` or `gave_up`.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::Outcome;
    /// use mainstay::telemetry::event::RetryEventKind;
    ///
    /// let kind = RetryEventKind::GaveUp { attempts: 3, outcome: Outcome::Transient, reason: "attempts" };
    /// assert_eq!(kind.as_str(), "gave_up");
    /// ```
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Retrying { .. } => "retrying",
            Self::GaveUp { .. } => "gave_up",
        }
    }

    /// Whether something got worse.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::Outcome;
    /// use mainstay::telemetry::event::RetryEventKind;
    ///
    /// let kind = RetryEventKind::GaveUp { attempts: 3, outcome: Outcome::Transient, reason: "attempts" };
    /// assert!(kind.is_warning());
    /// ```
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        matches!(self, Self::GaveUp { .. })
    }
}

impl fmt::Display for RetryEventKind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retrying { attempt, outcome, delay } => {
                write!(f, "attempt {attempt} ended in {outcome}, the next starts in {delay:?}")
            }
            Self::GaveUp { attempts, outcome, reason } => {
                write!(f, "gave up after {attempts} attempts, the last ended in {outcome}: {reason}")
            }
        }
    }
}
