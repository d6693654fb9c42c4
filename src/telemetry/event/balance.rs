//! Events of the family `balance`.

use std::fmt;
use std::time::Duration;

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
        /// Why, in fixed words.
        reason: &'a str,
    },
    /// An endpoint was ejected on passive evidence, or by hand. Whether calls still go to it (too many others are out) is said
    /// by [`EligibilityChanged`](Self::EligibilityChanged).
    Ejected {
        /// The endpoint, as its key shows itself.
        endpoint: &'a str,
        /// For how long.
        time: Duration,
        /// The failures in a row that led to it; 0 when it was ejected by hand.
        failures: u32,
    },
    /// So few endpoints are healthy that all are used.
    PanicEntered {
        /// How many have nothing against them.
        healthy: usize,
        /// How many there are.
        endpoints: usize,
    },
    /// Enough endpoints are healthy again.
    PanicLeft {
        /// How many have nothing against them.
        healthy: usize,
        /// How many there are.
        endpoints: usize,
    },
    /// The last endpoint left.
    Emptied,
    /// The first endpoint came.
    Filled,
}

impl BalanceEventKind<'_> {
    /// The kind as a fixed word: `eligibility_changed`, `ejected`, `panic_entered`, `panic_left`, `emptied` or `filled`.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::telemetry::event::BalanceEventKind;
    ///
    /// let kind = BalanceEventKind::Emptied;
    /// assert_eq!(kind.as_str(), "emptied");
    /// ```
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::EligibilityChanged { .. } => "eligibility_changed",
            Self::Ejected { .. } => "ejected",
            Self::PanicEntered { .. } => "panic_entered",
            Self::PanicLeft { .. } => "panic_left",
            Self::Emptied => "emptied",
            Self::Filled => "filled",
        }
    }

    /// Whether something got worse.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::telemetry::event::BalanceEventKind;
    ///
    /// assert!(BalanceEventKind::Emptied.is_warning());
    /// assert!(!BalanceEventKind::Filled.is_warning());
    /// ```
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        match self {
            Self::EligibilityChanged { eligible, .. } => !*eligible,
            Self::Ejected { .. } | Self::PanicEntered { .. } | Self::Emptied => true,
            Self::PanicLeft { .. } | Self::Filled => false,
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
            Self::Ejected { endpoint, time, failures: 0 } => write!(f, "ejected {endpoint} for {time:?}, by hand"),
            Self::Ejected { endpoint, time, failures } => {
                write!(f, "ejected {endpoint} for {time:?} after {failures} failures in a row")
            }
            Self::PanicEntered { healthy, endpoints } => {
                write!(f, "uses all endpoints: only {healthy} of {endpoints} are healthy")
            }
            Self::PanicLeft { healthy, endpoints } => {
                write!(f, "uses healthy endpoints only: {healthy} of {endpoints} are")
            }
            Self::Emptied => f.write_str("is empty"),
            Self::Filled => f.write_str("is not empty any more"),
        }
    }
}
