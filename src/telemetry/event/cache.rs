//! Events of the family `cache`.

use std::fmt;
use std::time::Duration;

use crate::name::Name;
use crate::outcome::Outcome;

/// Something that happened in a cache.
///
/// # Examples
///
/// ```
/// use mainstay::telemetry::event::CacheEvent;
///
/// fn log(event: &CacheEvent<'_>) {
///     println!("{}: {}", event.name, event.kind);
/// }
/// # let _ = log;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CacheEvent<'a> {
    /// The name it was given.
    pub name: &'a Name,
    /// What happened.
    pub kind: CacheEventKind<'a>,
}

/// What happened in a cache.
///
/// # Examples
///
/// ```
/// fn word(kind: &mainstay::telemetry::event::CacheEventKind<'_>) -> &'static str {
///     kind.as_str()
/// }
/// # let _ = word;
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum CacheEventKind<'a> {
    /// The store failed or was too slow, and was bypassed.
    StoreFailed {
        /// What was asked of it: `get`, `set` or `remove`.
        operation: &'static str,
        /// Why, in words.
        reason: &'a str,
    },
    /// A load failed.
    LoadFailed {
        /// Whether it ran behind an old answer, for no caller.
        refresh: bool,
        /// What its result said.
        outcome: Outcome,
        /// For how long the key is left alone, if there is an old answer to serve.
        cooldown: Option<Duration>,
    },
    /// A call found neither an answer nor room for its load.
    Limited {
        /// How many loads run or wait.
        flights: usize,
    },
}

impl CacheEventKind<'_> {
    /// The kind as a fixed word: `store_failed`, `load_failed` or `limited`.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::telemetry::event::CacheEventKind;
    ///
    /// let kind = CacheEventKind::Limited { flights: 8 };
    /// assert_eq!(kind.as_str(), "limited");
    /// ```
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::StoreFailed { .. } => "store_failed",
            Self::LoadFailed { .. } => "load_failed",
            Self::Limited { .. } => "limited",
        }
    }

    /// Whether something got worse.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::telemetry::event::CacheEventKind;
    ///
    /// let kind = CacheEventKind::Limited { flights: 8 };
    /// assert!(kind.is_warning());
    /// ```
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        true
    }
}

impl fmt::Display for CacheEventKind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StoreFailed { operation, reason } => write!(f, "bypassed its store, {operation} failed: {reason}"),
            Self::LoadFailed { refresh, outcome, cooldown } => {
                write!(f, "{} failed ({outcome})", if *refresh { "a refresh" } else { "a load" })?;
                cooldown.map_or(Ok(()), |cooldown| write!(f, ": the key is left alone for {cooldown:?}"))
            }
            Self::Limited { flights } => write!(f, "refused a call: {flights} loads run or wait"),
        }
    }
}
