//! [`CircuitState`]: the word that breakers, refusals, events and gauges share.

use std::fmt;

/// The state of a circuit breaker. *Closed* means that calls flow, *open* that they are refused.
///
/// # Examples
///
/// ```
/// use mainstay::CircuitState;
///
/// assert_eq!(CircuitState::default(), CircuitState::Closed);
/// assert_eq!(CircuitState::HalfOpen.as_str(), "half_open");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum CircuitState {
    /// Calls flow and are judged.
    #[default]
    Closed,
    /// Calls are refused until the open time is over.
    Open,
    /// A limited number of probes is admitted to find out.
    HalfOpen,
    /// Calls are refused until an operator says otherwise.
    ForcedOpen,
    /// Calls flow and nothing is recorded.
    Disabled,
    /// Calls flow and are recorded; the breaker never opens.
    Observing,
}

impl CircuitState {
    /// All states, in the order of their gauges.
    pub const ALL: [Self; 6] =
        [Self::Closed, Self::Open, Self::HalfOpen, Self::ForcedOpen, Self::Disabled, Self::Observing];

    /// The name used in metrics labels: `closed`, `open`, `half_open`, `forced_open`, `disabled` or `observing`.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::CircuitState::ForcedOpen.as_str(), "forced_open");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::Disabled => "disabled",
            Self::Observing => "observing",
        }
    }
}

impl fmt::Display for CircuitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
            Self::ForcedOpen => "forced open",
            Self::Disabled => "disabled",
            Self::Observing => "observing",
        })
    }
}
