//! [`Served`]: how a call was answered, for callers who want to say so.

use std::fmt;
use std::time::Duration;

/// How a response came about; see [`CacheBuilder::on_served`](super::CacheBuilder::on_served).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::cache::{Served, StaleReason};
///
/// let served = Served::Stale { age: Duration::from_secs(61), reason: StaleReason::Revalidating };
/// assert!(served.is_stale());
/// assert_eq!(served.age(), Some(Duration::from_secs(61)));
/// assert_eq!(served.as_str(), "stale");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Served {
    /// This call loaded it.
    Loaded,
    /// Another call loaded it, and this one waited for the same load.
    Coalesced,
    /// It was in the store, and fresh.
    Hit {
        /// How long ago it was written.
        age: Duration,
    },
    /// An answer that says no was in the store.
    NegativeHit {
        /// How long ago it was written.
        age: Duration,
    },
    /// It was in the store, no longer fresh.
    Stale {
        /// How long ago it was written.
        age: Duration,
        /// Why it was served all the same.
        reason: StaleReason,
    },
}

/// Why an old answer was served.
///
/// # Examples
///
/// ```
/// assert_eq!(mainstay::cache::StaleReason::LoadFailed.as_str(), "load_failed");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StaleReason {
    /// It is within [`stale_while_revalidate`](super::CacheConfig::stale_while_revalidate): a refresh runs behind it, or ran
    /// into an error a short while ago.
    Revalidating,
    /// The load failed just now.
    LoadFailed,
    /// A load failed a short while ago, and the key is left alone (see
    /// [`refresh_backoff`](super::CacheConfig::refresh_backoff)).
    CoolingDown,
    /// The load takes longer than [`soft_load_timeout`](super::CacheConfig::soft_load_timeout), or than the caller's deadline.
    LoadSlow,
    /// There was no room for the load.
    Limited,
}

// === impl Served ===

impl Served {
    /// Whether the answer was no longer fresh.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::Served;
    ///
    /// assert!(!Served::Loaded.is_stale());
    /// ```
    #[must_use]
    pub const fn is_stale(&self) -> bool {
        matches!(self, Self::Stale { .. })
    }

    /// How long ago the answer was written; `None` for one that was loaded just now.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::cache::Served;
    ///
    /// assert_eq!(Served::Loaded.age(), None);
    /// assert_eq!(Served::Hit { age: Duration::from_secs(3) }.age(), Some(Duration::from_secs(3)));
    /// ```
    #[must_use]
    pub const fn age(&self) -> Option<Duration> {
        match self {
            Self::Loaded | Self::Coalesced => None,
            Self::Hit { age } | Self::NegativeHit { age } | Self::Stale { age, .. } => Some(*age),
        }
    }

    /// The kind as a fixed word: `loaded`, `coalesced`, `hit`, `negative_hit` or `stale`.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::cache::Served::Coalesced.as_str(), "coalesced");
    /// ```
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Loaded => "loaded",
            Self::Coalesced => "coalesced",
            Self::Hit { .. } => "hit",
            Self::NegativeHit { .. } => "negative_hit",
            Self::Stale { .. } => "stale",
        }
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl StaleReason ===

impl StaleReason {
    /// All reasons, in the order of their counters.
    pub(crate) const ALL: [Self; 5] =
        [Self::Revalidating, Self::LoadFailed, Self::CoolingDown, Self::LoadSlow, Self::Limited];

    /// The name used in metrics labels: `revalidating`, `load_failed`, `cooling_down`, `load_slow` or `limited`.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::cache::StaleReason::CoolingDown.as_str(), "cooling_down");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Revalidating => "revalidating",
            Self::LoadFailed => "load_failed",
            Self::CoolingDown => "cooling_down",
            Self::LoadSlow => "load_slow",
            Self::Limited => "limited",
        }
    }
}
