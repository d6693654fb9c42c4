//! Events of the family `balance`.

use std::fmt;

use crate::name::Name;

/// Something that happened in a balanced pool.
///
/// # Examples
///
/// ```
/// use mainstay::telemetry::event::BalanceEvent;
///
/// fn log(event: &BalanceEvent<'_>) {
///     println!("{}: {}", event.name, event.kind);
/// }
/// # let _ = log;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BalanceEvent<'a> {
    /// The name it was given.
    pub name: &'a Name,
    /// What happened.
    pub kind: BalanceEventKind<'a>,
}

/// What happened in a balanced pool.
///
/// # Examples
///
/// ```
/// fn word(kind: &mainstay::telemetry::event::BalanceEventKind<'_>) -> &'static str {
///     kind.as_str()
/// }
/// # let _ = word;
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum BalanceEventKind<'a> {
    /// An endpoint may or may not be used any more.
    EligibilityChanged {
        /// The endpoint, as its key shows itself.
        endpoint: &'a str,
        /// Whether calls go to it now.
        eligible: bool,
        /// Why, as a fixed word.
        reason: &'a str,
    },
}

impl BalanceEventKind<'_> {
    /// The kind as a fixed word: `eligibility_changed`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::EligibilityChanged { .. } => "eligibility_changed",
        }
    }

    /// Whether something got worse.
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        match self {
            Self::EligibilityChanged { eligible, .. } => !*eligible,
        }
    }
}

impl fmt::Display for BalanceEventKind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EligibilityChanged { endpoint, eligible: true, reason } => write!(f, "uses {endpoint}: {reason}"),
            Self::EligibilityChanged { endpoint, eligible: false, reason } => {
                write!(f, "no longer uses {endpoint}: {reason}")
            }
        }
    }
}
